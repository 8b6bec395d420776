//! What an environment was asked for, in one vocabulary for all of them: expectation is derived from this alone.

use crate::seccomp::{Answer, Known};
use crate::spec::{Spec, parse_cap};
use caps::{Capability, CapsHashSet};
use shmcheck_probe::Sys;
use std::collections::BTreeMap;

/// Whose IPC namespace the cell was asked to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipc {
    /// Nothing was said.
    Unsaid,
    /// The host's.
    Host,
    /// One of its own.
    Private,
    /// One of its own that others may join, or another container's.
    Shared,
    /// One of its own, and no /dev/shm.
    None,
}

/// The seccomp filter the cell was asked to have.
#[derive(Debug, Clone)]
pub enum Filter {
    /// Nothing was said.
    Unsaid,
    /// None.
    Unconfined,
    /// One whose profile is not known, for this reason.
    Unknown(String),
    /// One whose profile is known: the caller's or the engine's own.
    Known(Box<Known>),
}

/// A program that makes a cell: an engine, a runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Maker {
    /// Its name.
    pub name: String,
    /// Its version as it says it; empty where it does not.
    pub version: String,
}

/// A cell's declared configuration. `None` and `Unsaid` mean that nothing was declared, so nothing is promised.
#[derive(Debug, Clone)]
pub struct Declared {
    /// Who makes the cell, by version; `None` where it is this program.
    pub engine: Option<Maker>,
    /// The OCI runtime beneath the engine.
    pub runtime: Option<Maker>,
    /// The keys for the report, defaults included.
    pub keys: BTreeMap<String, String>,
    /// Whose IPC namespace.
    pub ipc: Ipc,
    /// The user inside.
    pub user: Option<u32>,
    /// The bounding set inside.
    pub caps: Option<CapsHashSet>,
    /// Capabilities that were asked for by name.
    pub caps_added: CapsHashSet,
    /// Capabilities that were taken away by name.
    pub caps_dropped: CapsHashSet,
    /// The seccomp filter.
    pub seccomp: Filter,
    /// Whether /dev/shm was promised.
    pub dev_shm: Option<bool>,
    /// The promised size of /dev/shm in bytes.
    pub shm_size: Option<u64>,
    /// Whether a read-only root was asked for.
    pub read_only: Option<bool>,
    /// Whether no_new_privs was asked for.
    pub no_new_privs: Option<bool>,
    /// Sysctls by their path below /proc/sys.
    pub sysctls: BTreeMap<String, String>,
    /// Resource limits by name: soft and hard.
    pub ulimits: BTreeMap<String, (u64, u64)>,
}

/// What a declared filter does to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Refused with this errno, or killed where it is `None`, whatever the arguments.
    Always(Option<i32>),
    /// Refused with this errno for some arguments.
    Sometimes(i32),
    /// The filter is not known and may refuse it.
    Perhaps,
}

impl Declared {
    /// Nothing but the spec's own keys.
    pub fn nothing(spec: &Spec) -> Self {
        Self {
            engine: None,
            runtime: None,
            keys: spec.declared(),
            ipc: Ipc::Unsaid,
            user: None,
            caps: None,
            caps_added: CapsHashSet::new(),
            caps_dropped: CapsHashSet::new(),
            seccomp: Filter::Unsaid,
            dev_shm: None,
            shm_size: None,
            read_only: None,
            no_new_privs: None,
            sysctls: BTreeMap::new(),
            ulimits: BTreeMap::new(),
        }
    }

    /// What the declared filter does to a call; `None` where it allows it or nothing was declared.
    pub fn refusal(&self, call: Sys) -> Option<Refusal> {
        self.refusal_of(call.name())
    }

    /// [`Declared::refusal`] for a call by its name, as records have it.
    pub fn refusal_of(&self, call: &str) -> Option<Refusal> {
        match &self.seccomp {
            Filter::Unsaid | Filter::Unconfined => None,
            Filter::Unknown(_) => Some(Refusal::Perhaps),
            Filter::Known(known) => match known.answer_to(call) {
                Some(Answer::Allow) => None,
                Some(Answer::Errno(errno)) => Some(Refusal::Always(Some(errno))),
                Some(Answer::Kill) => Some(Refusal::Always(None)),
                Some(Answer::Depends) => known.profile.errno_of_some(call, &known.place).map(Refusal::Sometimes),
                None => Some(Refusal::Perhaps),
            },
        }
    }

    /// The declared filter as the subject of a sentence.
    pub fn filter(&self) -> String {
        match &self.seccomp {
            Filter::Known(known) => known.whose.clone(),
            Filter::Unknown(reason) => format!("the engine's default seccomp profile ({reason})"),
            Filter::Unsaid | Filter::Unconfined => "the declared seccomp filter".to_owned(),
        }
    }

    /// Whether the cell was promised this capability in its effective set: `None` where nothing was said.
    pub fn promises_cap(&self, cap: Capability) -> Option<bool> {
        let caps = self.caps.as_ref()?;
        if self.user.is_some_and(|uid| uid != 0) {
            return Some(false);
        }
        Some(caps.contains(&cap))
    }
}

/// Adds and drops names of capabilities: `all`, `none`, or names with or without `CAP_`.
pub(crate) fn cap_names<'a>(names: impl Iterator<Item = &'a str>) -> CapsHashSet {
    let mut set = CapsHashSet::new();
    for name in names {
        match name {
            "all" | "ALL" => set.extend(caps::all()),
            "none" | "NONE" => {}
            _ => set.extend(parse_cap(name)),
        }
    }
    set
}

/// A limit such as `1024` or `1024:2048`; `-1` and `unlimited` mean no limit.
pub(crate) fn parse_ulimit(text: &str) -> Option<(u64, u64)> {
    let number = |s: &str| match s {
        "-1" | "unlimited" => Some(u64::MAX),
        _ => s.parse().ok(),
    };
    let (soft, hard) = text.split_once(':').unwrap_or((text, text));
    Some((number(soft)?, number(hard)?))
}
