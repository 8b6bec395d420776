//! The agent: runs probes inside an environment and answers with one JSON record per line.
//!
//! The same program as the runner, started in the environment with two streams. It sends its facts, then takes
//! requests until its input ends. Every probe runs in a process of its own, under a worker that is the reaper of
//! all its descendants; the agent survives a probe that crashes, hangs, forks away or writes rubbish.

pub mod controls;
pub mod fresh;
pub mod gather;
mod ground;
pub mod inventory;
mod pool;
mod worker;

pub use gather::libc_version;

use shmcheck_probe::Probe;
use shmcheck_protocol::{Event, Facts, Record, Request, unmet};
use std::io::{BufRead, Write};

/// What the environment says when it starts an agent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Whether other programs may live in the IPC namespace.
    pub shared_ipc: bool,
}

/// Why an agent cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runner is gone.
    #[error("failed to speak to the runner: {0}")]
    Stream(#[from] std::io::Error),
    /// A message could not be written as JSON.
    #[error("failed to write a message: {0}")]
    Message(#[from] serde_json::Error),
    /// A worker could not be started.
    #[error("failed to start a worker: {0}")]
    Worker(#[from] shmcheck_probe::sys::Error),
}

/// Serves requests from `input` on `output` until the input ends.
pub fn serve(
    catalogue: &[&'static Probe],
    options: Options,
    input: impl BufRead,
    mut output: impl Write,
) -> Result<(), Error> {
    let facts = gather::facts(catalogue, options);
    send(&mut output, &Event::Facts(Box::new(facts.clone())))?;
    for line in input.lines() {
        match serde_json::from_str::<Request>(&line?) {
            Ok(Request::Run { probes, run, tag, jobs, deadline_ms }) => {
                let plan = Plan { run, tag, jobs, deadline_ms };
                run_probes(catalogue, &facts, &probes, &plan, &mut output)?;
                send(&mut output, &Event::Done)?;
            }
            Ok(Request::Inventory) => send(&mut output, &Event::Inventory(inventory::take()))?,
            Err(e) => send(&mut output, &Event::Error { message: format!("cannot read a request: {e}") })?,
        }
    }
    Ok(())
}

/// How a request's probes are to be run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) run: String,
    pub(crate) tag: u32,
    pub(crate) jobs: usize,
    pub(crate) deadline_ms: u64,
}

fn run_probes(
    catalogue: &[&'static Probe],
    facts: &Facts,
    ids: &[String],
    plan: &Plan,
    output: &mut impl Write,
) -> Result<(), Error> {
    let mut runnable = Vec::new();
    for id in ids {
        let Some(index) = catalogue.iter().position(|probe| probe.id == id) else {
            let message = format!("this program has no probe {id}; are runner and agent of one build?");
            send(output, &Event::Error { message })?;
            continue;
        };
        match unmet(catalogue[index], facts) {
            Some(need) => send(output, &Event::Result(Record::new(id, Err(need.into_stop()), 0)))?,
            None => runnable.push(index),
        }
    }
    pool::run(catalogue, facts, &runnable, plan, |record| send(output, &Event::Result(record)))
}

fn send(output: &mut impl Write, event: &Event) -> Result<(), Error> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()?;
    Ok(())
}
