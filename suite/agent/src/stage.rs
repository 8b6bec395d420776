//! The stage: a scenario's party as the agent sees it. Between agent and actor stands a keeper, as a worker stands between
//! agent and probe: it holds the deadline, reaps what the actor leaves, and answers whatever becomes of the actor.

use crate::actor::{self, Part};
use crate::worker::Bench;
use crate::{Error, gather, reap};
use serde::{Deserialize, Serialize};
use shmcheck_probe::{Scenario, Stop, Values, sys};
use shmcheck_protocol::{Event, Facts, Record, unmet_in_cell};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// From the agent to the keeper, a line each.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Run this step.
    Step(usize, Values),
    /// End; at once where it is true.
    Leave(bool),
}

/// From the keeper to the agent: the result, the values, the time in microseconds.
pub(crate) type Answer = (Result<(), Stop>, Values, u64);

/// The agent's end of a keeper.
struct Keeper {
    pid: libc::pid_t,
    orders: File,
    answers: BufReader<File>,
    scenario: &'static Scenario,
}

/// What an agent knows of scenarios, and the one that is on.
pub(crate) struct Stage<'a> {
    scenarios: &'a [&'static Scenario],
    /// The number of the first scenario: behind the probes.
    first: usize,
    facts: &'a Facts,
    on: Option<Keeper>,
}

impl<'a> Stage<'a> {
    /// An empty stage.
    pub(crate) fn new(scenarios: &'a [&'static Scenario], first: usize, facts: &'a Facts) -> Self {
        Self { scenarios, first, facts, on: None }
    }

    /// Starts a party's actor, where its needs are met.
    pub(crate) fn enter(
        &mut self,
        id: &str,
        party: usize,
        run: &str,
        tag: u32,
        deadline_ms: u64,
    ) -> Result<Event, Error> {
        let Some(place) = self.scenarios.iter().position(|scenario| scenario.probe.id == id) else {
            return Ok(refusal(format!("this program has no scenario {id}; are runner and agent of one build?")));
        };
        let scenario = self.scenarios[place];
        if self.on.is_some() || party >= scenario.parties.len() {
            return Ok(refusal(format!(
                "party {party} of {id} cannot enter: an actor is there, or it has no such party"
            )));
        }
        let unmet = unmet_in_cell(scenario.needs_of(party), self.facts);
        let result = unmet.map_or(Ok(()), |unmet| Err(unmet.into_stop()));
        if result.is_ok() {
            let bench = Bench {
                run: run.to_owned(),
                tag,
                deadline: Duration::from_millis(deadline_ms),
                fresh: self.facts.fresh.as_ref().map(|_| gather::way(&self.facts.user)),
            };
            self.on = Some(spawn(Part { scenario, index: self.first + place, party, bench })?);
        }
        Ok(Event::Acted { record: Record::new(id, result, 0), values: Values::default() })
    }

    /// Runs a step in the actor.
    pub(crate) fn step(&mut self, step: usize, values: Values) -> Result<Event, Error> {
        let Some(keeper) = &mut self.on else { return Ok(refusal("there is no actor for a step".to_owned())) };
        let (result, values, duration) = keeper.ask(&Order::Step(step, values))?;
        Ok(Event::Acted { record: Record::new(keeper.scenario.probe.id, result, duration), values })
    }

    /// Ends the actor.
    pub(crate) fn leave(&mut self, killed: bool) -> Result<Event, Error> {
        let Some(mut keeper) = self.on.take() else { return Ok(refusal("there is no actor to leave".to_owned())) };
        let (result, values, duration) = keeper.ask(&Order::Leave(killed))?;
        let record = Record::new(keeper.scenario.probe.id, result, duration);
        keeper.end()?;
        Ok(Event::Acted { record, values })
    }

    /// Ends what is still on when the runner is gone.
    pub(crate) fn clear(&mut self) -> Result<(), Error> {
        self.on.take().map_or(Ok(()), Keeper::end)
    }
}

fn refusal(message: String) -> Event {
    Event::Error { message }
}

impl Keeper {
    /// Sends an order and waits for the answer; a keeper that is gone is an answer too.
    fn ask(&mut self, order: &Order) -> Result<Answer, Error> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        // A keeper that is gone is noticed when its answers end.
        let _ = self.orders.write_all(&line);
        let mut answer = String::new();
        match self.answers.read_line(&mut answer) {
            Ok(count) if count > 0 => Ok(serde_json::from_str(&answer)?),
            _ => Ok((Err(Stop::broken("the party took its keeper along")), Values::default(), 0)),
        }
    }

    /// The keeper ends when its orders do.
    fn end(self) -> Result<(), Error> {
        drop(self.orders);
        sys::waitpid(self.pid, 0)?;
        Ok(())
    }
}

fn spawn(part: Part) -> Result<Keeper, Error> {
    let (orders_in, orders_out) = sys::pipe()?;
    let (answers_in, answers_out) = sys::pipe()?;
    let agent = sys::getpid();
    let scenario = part.scenario;
    let pid = sys::fork()?;
    if pid == 0 {
        drop((orders_out, answers_in));
        sys::exit_now(keep(&part, agent, orders_in, answers_out));
    }
    Ok(Keeper { pid, orders: File::from(orders_out), answers: BufReader::new(File::from(answers_in)), scenario })
}

/// A keeper's life: orders in, answers out. Its exit code.
fn keep(part: &Part, agent: libc::pid_t, orders: OwnedFd, answers: OwnedFd) -> i32 {
    let armed = sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong);
    if armed.is_err() || nix::unistd::getppid().as_raw() != agent {
        return 1;
    }
    // Refused by kernels that only let the first process reap: then that one is the reaper.
    let _ = reap::become_reaper();
    let mut answers = File::from(answers);
    let mut actor = match actor::Actor::start(part) {
        Ok(actor) => actor,
        Err(stop) => actor::Actor::stillborn(stop),
    };
    for line in BufReader::new(File::from(orders)).lines() {
        let Some(order) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { break };
        let (answer, last): (Answer, bool) = match order {
            Order::Step(step, values) => (actor.step(step, values), false),
            Order::Leave(killed) => (actor.leave(killed), true),
        };
        let Ok(mut line) = serde_json::to_vec(&answer) else { return 1 };
        line.push(b'\n');
        if answers.write_all(&line).is_err() || last {
            break;
        }
    }
    actor.kill();
    reap::reap_descendants();
    0
}
