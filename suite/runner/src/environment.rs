//! What an environment is: anything that can start the agent and hand over its two streams.

use crate::launch::Launch;
use crate::spec::{Key, Spec};
use std::path::PathBuf;

/// Why an environment cannot start: the cause and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}{}", if remedy.is_empty() { String::new() } else { format!("; {remedy}") })]
pub struct Missing {
    /// What is not there.
    pub cause: String,
    /// How to get it; may be empty.
    pub remedy: String,
}

impl Missing {
    /// A cause with its remedy.
    pub fn new(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { cause: cause.into(), remedy: remedy.into() }
    }
}

/// What an environment may use to make its launch.
#[derive(Debug, Clone)]
pub struct Tools {
    /// This program's own file.
    pub exe: PathBuf,
    /// The run's id: part of every name that outlives a process.
    pub run: String,
    /// The cell's number in the run.
    pub number: usize,
}

/// The lock of cells that work in the host's IPC namespace.
pub const HOST_IPC: &str = "host-ipc";

/// A kind of place that probes run in. Registered in [`crate::environments::ALL`]; nothing else knows it.
pub trait Environment: Sync + std::fmt::Debug {
    /// The name in environment strings.
    fn name(&self) -> &'static str;

    /// What it is, for help.
    fn about(&self) -> &'static str;

    /// The keys it understands.
    fn keys(&self) -> &'static [Key];

    /// Whether it can start at all here; the version that would be used, or what is missing.
    fn available(&self) -> Result<String, Missing>;

    /// Further checks of a spec whose keys are known and well formed: keys that contradict each other.
    fn check(&self, _spec: &Spec) -> Result<(), String> {
        Ok(())
    }

    /// Cells with the same lock do not run at the same time: they share the state it names.
    fn lock(&self, _spec: &Spec) -> Option<&'static str> {
        None
    }

    /// Whether processes there have numbers of their own, a pid namespace below the host's.
    fn own_pids(&self) -> bool {
        true
    }

    /// How to start the agent for this spec. May prepare what several cells share (an image).
    fn launch(&self, spec: &Spec, tools: &Tools) -> Result<Launch, Missing>;

    /// Completes what is declared with what only the started environment tells: which runtime, which seccomp profile.
    fn learn(&self, _launch: &mut Launch) {}

    /// Finds, and unless `dry` removes, what dead runs left in this environment's own stores. One line per thing.
    fn clean(&self, _dead: &dyn Fn(&str) -> bool, _dry: bool) -> Vec<String> {
        Vec::new()
    }
}
