//! What the tests share: cells run by the runner with the program under test.

#![allow(dead_code, reason = "each test target uses a part of this")]

use shmcheck_probe::Probe;
use shmcheck_protocol::{Cell, Facts};
use shmcheck_runner::journal::Journal;
use shmcheck_runner::run::{Order, Planned};
use shmcheck_runner::{Declared, Observer, cell, environments};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// The program under test: cargo's, or where the tests run away from it the one that `SHMCHECK_PROGRAM` names.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("SHMCHECK_PROGRAM").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_shmcheck")), PathBuf::from)
}

/// Whether the caller says that this environment has to be here: `SHMCHECK_REQUIRE=docker,podman`.
pub(crate) fn required(environment: &str) -> bool {
    std::env::var("SHMCHECK_REQUIRE").is_ok_and(|list| list.split(',').any(|name| name.trim() == environment))
}

/// An observer that needs nothing.
#[derive(Debug)]
pub(crate) struct Nobody;
impl Observer for Nobody {}

/// The facts of an environment, or why it is not here.
pub(crate) fn facts(environment: &str) -> Result<Facts, String> {
    let journal = Journal::begin().map_err(|e| e.to_string())?;
    cell::facts(&planned(environment), &program(), &journal.entry.run)
}

/// The facts of an environment, and what was declared as far as the environment tells.
pub(crate) fn look(environment: &str) -> Result<(Facts, Declared), String> {
    let journal = Journal::begin().map_err(|e| e.to_string())?;
    cell::look(&planned(environment), &program(), &journal.entry.run)
}

/// Runs probes in one environment.
pub(crate) fn run(environment: &str, probes: Vec<&'static Probe>) -> Cell {
    run_with(environment, probes, program(), Duration::from_secs(10))
}

/// Runs probes in one environment, with that program as the agent.
pub(crate) fn run_with(environment: &str, probes: Vec<&'static Probe>, exe: PathBuf, deadline: Duration) -> Cell {
    let journal = Journal::begin().expect("a journal can be written");
    let order = Order {
        probes,
        run: journal.entry.run.clone(),
        tag: journal.entry.tag,
        jobs: 0,
        cells_at_once: 1,
        deadline,
        exe,
        fail_fast: false,
        stop: Arc::new(AtomicBool::new(false)),
    };
    cell::run(&planned(environment), 0, &order, &Nobody)
}

/// A cell of that environment string.
pub(crate) fn planned(environment: &str) -> Planned {
    let (environment, spec) = environments::parse(environment).expect("the environment string is well formed");
    Planned { environment, spec }
}
