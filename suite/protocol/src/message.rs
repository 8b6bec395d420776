//! The lines between runner and agent: one JSON object each.

use crate::facts::{Facts, Inventory};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shmcheck_probe::{Detail, Stop, Verdict};

/// From the runner to the agent, on the agent's standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Run these probes and answer each with a record, then with `done`.
    Run {
        /// Ids of the probes.
        probes: Vec<String>,
        /// The run's id: lower-case letters and digits.
        run: String,
        /// The run's tag in System V keys.
        tag: u32,
        /// How many probes may run at once; 0 for one per processor.
        jobs: usize,
        /// Deadline of one probe in milliseconds.
        deadline_ms: u64,
    },
    /// List what is there now; answered with `inventory`.
    Inventory,
}

/// From the agent to the runner, on the agent's standard output. The first is always `facts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// The fingerprint.
    Facts(Box<Facts>),
    /// One probe's record.
    Result(Record),
    /// Answer to `inventory`.
    Inventory(Inventory),
    /// All probes of the last `run` are answered.
    Done,
    /// The agent cannot do what was asked.
    Error {
        /// What and why.
        message: String,
    },
}

/// The outcome of one probe, as the agent saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The probe.
    pub id: String,
    /// The verdict.
    pub outcome: Verdict,
    /// Time from the start of the probe's process to its end in microseconds; 0 where none was started.
    pub duration_us: u64,
    /// What is known beyond the verdict.
    #[serde(default)]
    pub detail: Detail,
}

impl Record {
    /// A record of a probe's result.
    pub fn new(id: &str, result: Result<(), Stop>, duration_us: u64) -> Self {
        let (outcome, detail) = match result {
            Ok(()) => (Verdict::Pass, Detail::default()),
            Err(stop) => stop.into_parts(),
        };
        Self { id: id.to_owned(), outcome, duration_us, detail }
    }
}
