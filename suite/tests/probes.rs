//! Every probe is a test with its own name, on the host and in the sandbox: `host::sysv.shm.get.excl-eexist`.
//!
//! A probe whose needs are not met here is an ignored test; the reason is printed. The cells are run once, by the same
//! runner as `shmcheck run`, with the probes that the command line selects.

mod support;

use libtest_mimic::{Arguments, Failed, Trial};
use shmcheck_probe::Probe;
use shmcheck_protocol::{Cell, unmet};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for environment in ["host", "sandbox"] {
        trials.extend(of_environment(environment, &arguments));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn of_environment(environment: &'static str, arguments: &Arguments) -> Vec<Trial> {
    let facts = match support::facts(environment) {
        Ok(facts) => facts,
        Err(reason) => {
            let required = support::required(environment);
            eprintln!("{environment}: not here: {reason}");
            let trial = Trial::test(format!("{environment}::starts"), move || Err(Failed::from(reason)));
            return vec![trial.with_ignored_flag(!required)];
        }
    };
    let name = |probe: &Probe| format!("{environment}::{}", probe.id);
    let (runnable, skipped): (Vec<&'static Probe>, Vec<&'static Probe>) =
        shmcheck_probes::catalogue().into_iter().partition(|probe| unmet(probe, &facts).is_none());
    let mut trials = Vec::new();
    for probe in skipped {
        let reason = unmet(probe, &facts).map(|unmet| format!("needs {}, found {}", unmet.need, unmet.found));
        let reason = reason.unwrap_or_default();
        if selected(arguments, &name(probe)) && !arguments.list {
            eprintln!("{}: skipped: {reason}", name(probe));
        }
        // Run with --ignored it says why.
        trials.push(Trial::test(name(probe), move || Err(Failed::from(reason))).with_ignored_flag(true));
    }
    let wanted: Vec<&'static Probe> =
        runnable.iter().copied().filter(|probe| selected(arguments, &name(probe))).collect();
    let cell: Arc<OnceLock<Cell>> = Arc::default();
    for probe in runnable {
        let (cell, wanted) = (Arc::clone(&cell), wanted.clone());
        trials.push(Trial::test(name(probe), move || {
            let cell = cell.get_or_init(|| support::run(environment, wanted));
            let result = cell.results.iter().find(|result| result.id == probe.id);
            let result = result.ok_or_else(|| Failed::from(format!("no result; missing: {:?}", cell.missing)))?;
            if result.as_expected {
                return Ok(());
            }
            let again = format!("again: shmcheck run {} --on {environment}", probe.id);
            let detail = serde_json::to_string(&result.detail)?;
            Err(Failed::from(format!("{} ({detail})\nwhy: {}\n{again}", result.outcome, probe.why)))
        }));
    }
    let cell = Arc::clone(&cell);
    trials.push(Trial::test(format!("{environment}::leaves-nothing"), move || {
        let cell = cell.get_or_init(|| support::run(environment, wanted));
        if cell.leftovers.is_empty() { Ok(()) } else { Err(Failed::from(cell.leftovers.join(", "))) }
    }));
    trials
}

/// As libtest-mimic selects, so that the cell runs no more than is asked for.
fn selected(arguments: &Arguments, name: &str) -> bool {
    let means = |filter: &str| if arguments.exact { name == filter } else { name.contains(filter) };
    arguments.filter.as_deref().is_none_or(means) && !arguments.skip.iter().any(|skip| means(skip))
}
