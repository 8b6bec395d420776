//! The probe as data, and the chapter that holds probes.

use crate::{Clause, Context, Need, Outcome, Sys};
use std::panic::Location;

/// One claim about the system, with the function that verifies it.
#[derive(Debug)]
pub struct Probe {
    /// Area, object, call, claim: `sysv.shm.get.excl-eexist`. Ids are forever.
    pub id: &'static str,
    /// The behaviour, present tense, at most 72 characters.
    pub title: &'static str,
    /// Which program breaks when this does not hold, and what its user sees.
    pub why: &'static str,
    /// Which environments change the behaviour and how; empty where none does.
    pub varies: &'static str,
    /// What to do where it does not hold; empty where only a kernel or engine can mend it.
    pub fix: &'static str,
    /// Where the claim is written down. An errno as section says that the probe provokes it.
    pub spec: &'static [Clause],
    /// The calls the claim is about.
    pub calls: &'static [Sys],
    /// What must be there for the probe to run, besides the calls.
    pub needs: &'static [Need],
    /// The namespaces it runs in.
    pub isolate: Isolate,
    /// Whether it spends tens of milliseconds and more on waiting, for the clock's next second or for the kernel. It is
    /// started first and beside the others, also where it has no namespaces of its own: it touches only what it made.
    pub waits: bool,
    /// Whether it is about the kernel's promises or about this environment.
    pub kind: Kind,
    /// The function.
    pub run: fn(&mut Context) -> Outcome,
    /// Where the probe is defined; `explain` prints its source from there.
    pub location: &'static Location<'static>,
}

/// The namespaces a probe runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolate {
    /// IPC and mount namespace of its own with its own /dev/shm and /dev/mqueue, in parallel with others. Where the
    /// cell does not permit that, the cell's own namespaces, alone.
    Fresh,
    /// As `Fresh`, and a skip where the cell does not permit it: the probe changes limits or counts objects.
    FreshOnly,
    /// The cell's own namespaces, in parallel with others: it touches only objects it made.
    Cell,
    /// The cell's own namespaces, alone.
    CellAlone,
}

/// What a probe is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What the kernel promises of a call.
    Semantics,
    /// Sizes, modes, limits in effect, visibility, policy of the environment.
    Environment,
}

impl Probe {
    /// A probe with its id and function; the other members are set by struct update.
    #[track_caller]
    pub const fn new(id: &'static str, run: fn(&mut Context) -> Outcome) -> Self {
        Self {
            id,
            title: "",
            why: "",
            varies: "",
            fix: "",
            spec: &[],
            calls: &[],
            needs: &[],
            isolate: Isolate::Fresh,
            waits: false,
            kind: Kind::Semantics,
            run,
            location: Location::caller(),
        }
    }

    /// All needs: the declared ones and the calls.
    pub fn all_needs(&self) -> impl Iterator<Item = Need> + '_ {
        self.calls.iter().map(|call| Need::Call(*call)).chain(self.needs.iter().copied())
    }

    /// The (page, errno) pairs that the probe provokes.
    pub fn provokes(&self) -> impl Iterator<Item = (&'static str, &'static str)> + '_ {
        self.spec.iter().filter_map(|clause| clause.errno().map(|errno| (clause.document, errno)))
    }
}

/// A chapter of the roadmap with its probes, in the source's order.
#[derive(Debug)]
pub struct Chapter {
    /// The number in the roadmap's order.
    pub number: u8,
    /// Short name, used in filters: `@sysv-shm`.
    pub name: &'static str,
    /// The heading.
    pub title: &'static str,
    /// A paragraph that teaches what the chapter is about.
    pub intro: &'static str,
    /// The tables of the chapter's files.
    pub files: &'static [&'static [&'static Probe]],
    /// Pairs of (page, errno) that no probe provokes, with the reason.
    pub excluded: &'static [Excluded],
}

/// A documented behaviour that is not provoked, and why.
#[derive(Debug, Clone, Copy)]
pub struct Excluded {
    /// The man page.
    pub page: &'static str,
    /// The errno's name.
    pub errno: &'static str,
    /// The reason that holds.
    pub reason: &'static str,
}

impl Chapter {
    /// The chapter's probes.
    pub fn probes(&self) -> impl Iterator<Item = &'static Probe> {
        self.files.iter().flat_map(|file| file.iter().copied())
    }
}
