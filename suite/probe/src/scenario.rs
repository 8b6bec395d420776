//! A scenario: a claim about two or more parties in different environments, held step by step.
//!
//! Each party has a process of its own, its *actor*, inside its environment; the actor lives over the steps of its party,
//! so that mappings and descriptors do. A step is a function that runs in one actor; what another party must know of it
//! travels in [`Values`] through the runner.

use crate::context::{Context, Place};
use crate::outcome::{Outcome, Stop};
use crate::{Isolate, Kind, Need, Probe};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// A claim whose parties are in different environments.
#[derive(Debug)]
pub struct Scenario {
    /// The claim as of any probe: id, texts, clauses, calls, and the needs of every party. Made by [`Scenario::probe`].
    pub probe: Probe,
    /// What the parties must share for the claim to say anything; where they do not, the scenario is skipped.
    pub shares: &'static [Shared],
    /// The parties, in the order of the constellation's environments.
    pub parties: &'static [Party],
    /// The steps in their order.
    pub steps: &'static [Step],
}

/// One party of a scenario.
#[derive(Debug)]
pub struct Party {
    /// What it is in the claim: `server`, `client`.
    pub name: &'static str,
    /// What this party needs beyond what all need.
    pub needs: &'static [Need],
}

/// One step.
#[derive(Debug)]
pub struct Step {
    /// The party's place in [`Scenario::parties`].
    pub party: usize,
    /// What happens, for whoever reads a failure: "the server removes the segment".
    pub what: &'static str,
    /// What is done.
    pub act: Act,
}

/// What a step does.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    /// Runs in the party's actor.
    Run(fn(&mut Context, &mut Values) -> Outcome),
    /// The party's actor is killed; nothing of it is tidied up before.
    Killed,
    /// The party's environment ends: its sandbox or container is gone when the next step begins.
    Ends,
}

/// What two environments can share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shared {
    /// The IPC namespace: System V objects and POSIX queues.
    Ipc,
    /// The mount on /dev/shm: POSIX shared memory objects and named semaphores.
    DevShm,
}

impl Shared {
    /// The name in values and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipc => "shared.ipc",
            Self::DevShm => "shared.dev-shm",
        }
    }
}

impl Scenario {
    /// The claim's data with its id; the other members are set by struct update.
    #[track_caller]
    pub const fn probe(id: &'static str) -> Probe {
        Probe {
            isolate: Isolate::Cell,
            kind: Kind::Environment,
            ..Probe::new(id, |_| Err(Stop::broken("this claim has parties: it is held by its scenario")))
        }
    }

    /// Whether a party's environment ends within the steps, so that nothing can follow in it.
    pub fn ends_a_party(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.act, Act::Ends))
    }

    /// What a party needs: the calls, the needs of all, its own.
    pub fn needs_of(&self, party: usize) -> impl Iterator<Item = Need> + '_ {
        let own = self.parties.get(party).map_or(&[][..], |party| party.needs);
        self.probe.all_needs().chain(own.iter().copied())
    }
}

impl Party {
    /// A party without needs of its own.
    pub const fn new(name: &'static str) -> Self {
        Self { name, needs: &[] }
    }
}

impl Step {
    /// A step that runs a function.
    pub const fn new(party: usize, what: &'static str, run: fn(&mut Context, &mut Values) -> Outcome) -> Self {
        Self { party, what, act: Act::Run(run) }
    }

    /// A step without a function.
    pub const fn plain(party: usize, what: &'static str, act: Act) -> Self {
        Self { party, what, act }
    }
}

/// What travels between the steps: names with a number or a text, a few of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Values(BTreeMap<String, Value>);

/// One value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Value {
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

macro_rules! numbers {
    ($($kind:ty)*) => {
        $(impl From<$kind> for Value {
            fn from(number: $kind) -> Self {
                Self::Number(number.into())
            }
        })*
    };
}

numbers! { i64 i32 u32 bool }

impl Values {
    /// How many values there may be.
    pub const MOST: usize = 64;
    /// The longest name or text in bytes.
    pub const LONGEST: usize = 4096;

    /// Sets a value.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// A number that an earlier step has set.
    pub fn number<T: TryFrom<i64>>(&self, name: &str) -> Result<T, Stop> {
        match self.0.get(name) {
            Some(Value::Number(number)) => {
                T::try_from(*number).map_err(|_| Stop::broken(format!("value {name} does not fit: {number}")))
            }
            other => Err(Stop::broken(format!("no step has set the number {name}: {other:?}"))),
        }
    }

    /// A text that an earlier step has set.
    pub fn text(&self, name: &str) -> Result<&str, Stop> {
        match self.0.get(name) {
            Some(Value::Text(text)) => Ok(text),
            other => Err(Stop::broken(format!("no step has set the text {name}: {other:?}"))),
        }
    }

    /// Whether something is so, of which a step or the runner has spoken.
    pub fn flag(&self, name: &str) -> Result<bool, Stop> {
        self.number::<i64>(name).map(|number| number != 0)
    }

    /// Whether the parties were declared to share this.
    pub fn expects(&self, shared: Shared) -> Result<bool, Stop> {
        self.flag(shared.name())
    }

    /// Whether what a party sent can be taken: neither too many nor too long.
    pub fn are_bounded(&self) -> bool {
        let short = |(name, value): (&String, &Value)| {
            name.len() <= Self::LONGEST && !matches!(value, Value::Text(text) if text.len() > Self::LONGEST)
        };
        self.0.len() <= Self::MOST && self.0.iter().all(short)
    }
}

/// What an actor keeps from one step to the next: guards, mappings, peers. Dropped when the actor ends in order.
#[derive(Debug, Default)]
pub(crate) struct Kept(BTreeMap<&'static str, Box<dyn Any>>);

impl Context {
    /// The context of a party's actor: keys and names of two parties differ.
    pub fn of_party(place: Place, party: usize) -> Self {
        let mut cx = Self::new(place);
        cx.enter_lane(u32::try_from(party).unwrap_or(0) + 1);
        cx
    }

    /// Keeps something for a later step of this party.
    pub fn keep<T: 'static>(&mut self, name: &'static str, thing: T) {
        self.kept.0.insert(name, Box::new(thing));
    }

    /// What an earlier step of this party has kept.
    pub fn kept<T: 'static>(&mut self, name: &'static str) -> Result<&mut T, Stop> {
        let thing = self.kept.0.get_mut(name).and_then(|thing| thing.downcast_mut());
        thing.ok_or_else(|| Stop::broken(format!("no earlier step of this party has kept {name}")))
    }

    /// Takes what an earlier step of this party has kept.
    pub fn take<T: 'static>(&mut self, name: &'static str) -> Result<T, Stop> {
        let thing = self.kept.0.remove(name).and_then(|thing| thing.downcast().ok());
        thing.map(|thing| *thing).ok_or_else(|| Stop::broken(format!("no earlier step of this party has kept {name}")))
    }
}
