//! The exit code: an interface, never a count.
//!
//! # Precedence
//! Several codes can be true of one run; the first of this order is the exit code. The less of the run can be
//! believed, the earlier:
//!
//! 1. [`INTERRUPTED`]: what follows would speak of half a run.
//! 2. [`MISSING`]: of a required environment nothing is known. So it is where no environment ran a probe.
//! 3. [`BROKEN`]: of a probe nothing is known, or the run left something behind.
//! 4. [`UNEXPECTED`]: something is known to be wrong.
//! 5. [`WORSE`]: something became worse than it was, even if it is still as expected.
//! 6. [`NOT_RUN`]: all that ran is well, but not all that had to run did.
//!
//! [`INTERNAL`], [`USAGE`] and [`NOTHING`] come from the program before there is a report.
//!
//! # With a baseline
//! The baseline answers for what it knows: a result that was just as bad in the same environment of the baseline does
//! not count for [`BROKEN`] or [`UNEXPECTED`], and one that became worse counts for [`WORSE`]. A result that the
//! baseline does not have is judged as without one.

use crate::diff::{Diff, Places};
use shmcheck_protocol::{Cell, Report, Result, Verdict};

/// All is as expected.
pub const OK: i32 = 0;
/// The program itself failed.
pub const INTERNAL: i32 = 1;
/// The command line or a file that it names cannot be used.
pub const USAGE: i32 = 2;
/// The filters select no probe.
pub const NOTHING: i32 = 4;
/// A result is not as expected: a fail, or a skip, block or pass that the declared configuration does not explain.
pub const UNEXPECTED: i32 = 100;
/// A probe is broken, or the run left something behind.
pub const BROKEN: i32 = 101;
/// A probe was skipped or blocked for a need that the caller required.
pub const NOT_RUN: i32 = 102;
/// An environment that the caller required did not start, or none ran a probe.
pub const MISSING: i32 = 103;
/// A result is worse than in the baseline.
pub const WORSE: i32 = 104;
/// The run was interrupted.
pub const INTERRUPTED: i32 = 130;

/// All codes with their meaning, for manuals.
pub const CODES: &[(i32, &str)] = &[
    (OK, "all as expected"),
    (INTERNAL, "the program itself failed"),
    (USAGE, "the command line cannot be used"),
    (NOTHING, "no probe was selected"),
    (UNEXPECTED, "a result is not as expected"),
    (BROKEN, "a probe is broken or something was left behind"),
    (NOT_RUN, "something required was skipped or blocked"),
    (MISSING, "a required environment is missing"),
    (WORSE, "a result is worse than in the baseline"),
    (INTERRUPTED, "interrupted"),
];

/// The meaning of a code in words.
pub fn meaning(code: i32) -> &'static str {
    CODES.iter().find(|(known, _)| *known == code).map_or("unknown code", |(_, meaning)| meaning)
}

/// What the caller of a run asks of it beyond the expectations.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demands<'a> {
    /// Environments that must start, as written in the report.
    pub environments: &'a [String],
    /// Needs for which no probe may be skipped or blocked: `swap`, `cap:CAP_IPC_LOCK`, or a kind of need, as
    /// `hugepages` for any pool and `call` for any call.
    pub needs: &'a [String],
    /// An earlier run to compare with.
    pub baseline: Option<&'a Report>,
}

/// An exit code and why it is that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The code.
    pub code: i32,
    /// What led to it, and to codes that come after it in the order; empty for [`OK`].
    pub reasons: Vec<String>,
}

/// The exit code of a run.
pub fn exit_code(report: &Report, demands: Demands<'_>) -> i32 {
    ending(report, demands).code
}

/// The exit code of a run with its reasons.
pub fn ending(report: &Report, demands: Demands<'_>) -> Ending {
    let baseline = demands.baseline.map(Places::of);
    let diff = demands.baseline.map(|before| Diff::between(before, report));
    let found = [
        (INTERRUPTED, report.interrupted.then(|| "the run was interrupted".to_owned()).into_iter().collect()),
        (MISSING, missing(report, demands.environments)),
        (BROKEN, broken(report, baseline.as_ref())),
        (UNEXPECTED, unexpected(report, baseline.as_ref())),
        (WORSE, diff.map(|diff| diff.worse()).unwrap_or_default()),
        (NOT_RUN, not_run(report, demands.needs)),
    ];
    let code = found.iter().find(|(_, reasons)| !reasons.is_empty()).map_or(OK, |(code, _)| *code);
    Ending { code, reasons: found.into_iter().flat_map(|(_, reasons)| reasons).collect() }
}

fn missing(report: &Report, required: &[String]) -> Vec<String> {
    let mut reasons = Vec::new();
    for name in required {
        let mut cells = report.cells.iter().filter(|cell| cell.environment == *name).peekable();
        if cells.peek().is_none() {
            reasons.push(format!("required environment {name} is not in the run"));
        }
        reasons.extend(
            cells.filter(|cell| cell.missing.is_some()).map(|_| format!("required environment {name} did not start")),
        );
    }
    if reasons.is_empty() && report.cells.iter().all(|cell| cell.results.is_empty()) {
        reasons.push("no environment ran a probe".to_owned());
    }
    reasons
}

fn broken(report: &Report, baseline: Option<&Places<'_>>) -> Vec<String> {
    let mut reasons = Vec::new();
    for cell in &report.cells {
        let bad = |result: &&Result| result.outcome == Verdict::Broken && !result.as_expected;
        reasons.extend(tell(&cell.environment, &fresh(cell, baseline, bad), "broken"));
        match cell.leftovers.len() {
            0 => {}
            n => reasons.push(format!("{}: {} left behind", cell.environment, crate::units::count(n, "object"))),
        }
    }
    reasons
}

fn unexpected(report: &Report, baseline: Option<&Places<'_>>) -> Vec<String> {
    let bad = |result: &&Result| result.outcome != Verdict::Broken && !result.as_expected;
    let cells = report.cells.iter();
    cells.filter_map(|cell| tell(&cell.environment, &fresh(cell, baseline, bad), "not as expected")).collect()
}

/// The bad results of a cell for which no baseline answers.
fn fresh<'a>(cell: &'a Cell, baseline: Option<&Places<'_>>, bad: impl Fn(&&Result) -> bool) -> Vec<&'a str> {
    let known =
        |result: &&Result| baseline.is_some_and(|places| places.result(&cell.environment, &result.id).is_some());
    cell.results.iter().filter(|result| bad(result) && !known(result)).map(|result| result.id.as_str()).collect()
}

fn tell(environment: &str, ids: &[&str], what: &str) -> Option<String> {
    match ids {
        [] => None,
        [id] => Some(format!("{environment}: {id} is {what}")),
        [id, rest @ ..] => Some(format!("{environment}: {id} and {} more are {what}", rest.len())),
    }
}

fn not_run(report: &Report, needs: &[String]) -> Vec<String> {
    let mut reasons = Vec::new();
    for need in needs {
        for cell in &report.cells {
            let ids: Vec<_> = cell
                .results
                .iter()
                .filter(|result| stopped_by(result, need))
                .map(|result| result.id.as_str())
                .collect();
            reasons.extend(tell(&cell.environment, &ids, &format!("skipped or blocked, but {need} is required")));
        }
    }
    reasons
}

/// Whether a need, by its full name or its kind, kept the probe from running. A block is a need for a call.
fn stopped_by(result: &Result, need: &str) -> bool {
    let stopped = match result.outcome {
        Verdict::Skip => result.detail.need.clone(),
        Verdict::Blocked => Some(format!("call:{}", result.detail.call.as_deref().unwrap_or_default())),
        Verdict::Pass | Verdict::Fail | Verdict::Broken => None,
    };
    stopped.is_some_and(|stopped| stopped == need || stopped.split_once(':').is_some_and(|(kind, _)| kind == need))
}
