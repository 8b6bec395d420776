//! `facts`: the fingerprint of an environment, as JSON.

use crate::args::FactsArgs;
use crate::commands::run;
use crate::failure::{Failure, Outcome};
use shmcheck_runner::{cell, environments, journal::Journal};
use std::io::Write;

/// Starts an agent there and prints what it finds.
pub(crate) fn facts(args: &FactsArgs) -> Outcome {
    let facts = of(&args.on)?;
    let mut out = std::io::stdout().lock();
    let text = serde_json::to_string_pretty(&facts).map_err(|e| Failure::Internal(e.to_string()))?;
    writeln!(out, "{text}")?;
    Ok(0)
}

/// The facts of an environment; an environment that is missing is an internal error with its reason.
pub(crate) fn of(environment: &str) -> Result<shmcheck_protocol::Facts, Failure> {
    let (environment, spec) = environments::parse(environment)?;
    // Nothing is made that a journal would have to remember; an id that no run has will do where none can be written.
    let journal = Journal::begin().ok();
    let run = journal.as_ref().map_or("facts", |journal| &journal.entry.run);
    let planned = shmcheck_runner::run::Planned { environment, spec };
    cell::facts(&planned, &run::own_file()?, run)
        .map_err(|reason| Failure::Internal(format!("{}: {reason}", planned.spec)))
}
