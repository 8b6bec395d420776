//! The report: what a run found, cell by cell. `shmcheck schema` prints its schema.

use crate::facts::Facts;
use crate::message::Record;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shmcheck_probe::{Detail, Verdict};
use std::collections::BTreeMap;

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// [`crate::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The program that ran.
    pub program: Program,
    /// When the run began, RFC 3339 in UTC.
    pub started: String,
    /// The host's name.
    pub host: String,
    /// One entry per environment.
    pub cells: Vec<Cell>,
    /// The numbers.
    pub summary: Summary,
    /// Set where the run was interrupted: what is missing then was not run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
    /// The exit code of the program.
    pub exit_code: i32,
}

/// The program that made a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Program {
    /// Its version.
    pub version: String,
    /// The C library it is linked with, and how.
    pub libc: String,
    /// The commit it was built from; empty where that is not known.
    pub commit: String,
}

/// One environment with what was declared, found and seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cell {
    /// The environment string.
    pub environment: String,
    /// What it was asked for: the keys of the environment string, defaults included.
    pub declared: BTreeMap<String, String>,
    /// What the agent found; empty where the environment did not start.
    pub facts: Option<Facts>,
    /// Time from the start of the environment to its end in milliseconds.
    pub wall_ms: u64,
    /// One entry per probe, in the catalogue's order.
    pub results: Vec<Result>,
    /// What the cell left behind.
    pub leftovers: Vec<String>,
    /// Why the environment could not start.
    pub missing: Option<String>,
}

/// One probe's outcome in one cell, judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Result {
    /// The probe.
    pub id: String,
    /// What was seen.
    pub outcome: Verdict,
    /// What the declared configuration lets expect.
    pub expected: Expected,
    /// The judgement.
    pub as_expected: bool,
    /// Why the judgement is what it is, where the outcome alone does not say it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub because: String,
    /// Time of the probe's process in microseconds.
    pub duration_us: u64,
    /// What is known beyond the verdict.
    #[serde(default)]
    pub detail: Detail,
}

/// What is expected of a probe in a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// The claim holds, or a need that nothing promised is unmet.
    Pass,
    /// A declared policy refuses.
    Blocked,
    /// A known deviation of this engine or kernel.
    Deviation,
}

impl Expected {
    /// The word used in every report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Blocked => "blocked",
            Self::Deviation => "deviation",
        }
    }
}

/// The numbers of a run: results by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Different probes selected.
    pub probes: usize,
    /// Cells, missing ones included.
    pub cells: usize,
    /// Results that pass.
    pub pass: usize,
    /// Results that fail.
    pub fail: usize,
    /// Results that were skipped.
    pub skip: usize,
    /// Results that were blocked.
    pub blocked: usize,
    /// Results that are broken.
    pub broken: usize,
    /// Results that are not as expected.
    pub unexpected: usize,
}

impl Summary {
    /// Counts the results of all cells.
    pub fn of(probes: usize, cells: &[Cell]) -> Self {
        let mut summary = Self { probes, cells: cells.len(), ..Self::default() };
        for result in cells.iter().flat_map(|cell| &cell.results) {
            match result.outcome {
                Verdict::Pass => summary.pass += 1,
                Verdict::Fail => summary.fail += 1,
                Verdict::Skip => summary.skip += 1,
                Verdict::Blocked => summary.blocked += 1,
                Verdict::Broken => summary.broken += 1,
            }
            summary.unexpected += usize::from(!result.as_expected);
        }
        summary
    }
}

impl Result {
    /// A judged result of a record.
    pub fn of(record: Record, expected: Expected, as_expected: bool, because: String) -> Self {
        Self {
            id: record.id,
            outcome: record.outcome,
            expected,
            as_expected,
            because,
            duration_us: record.duration_us,
            detail: record.detail,
        }
    }
}
