//! The run as a stream of events: one JSON object per line, flushed, so that a reader sees it while it goes on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shmcheck_protocol::{Facts, Program, Report, Result, SCHEMA_VERSION, Summary};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// One line. Cells may run at the same time, so events of different environments may alternate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunEvent {
    /// Always the first.
    RunStarted {
        /// The version of the report's format, which is also that of the events.
        schema_version: u32,
        /// The program that runs.
        program: Program,
        /// RFC 3339 in UTC.
        started: String,
        /// The host's name.
        host: String,
        /// The environments of the run.
        environments: Vec<String>,
        /// Number of different probes selected.
        probes: usize,
    },
    /// An environment is up, or is known not to start.
    CellStarted {
        /// The environment.
        environment: String,
        /// What it was asked for.
        declared: BTreeMap<String, String>,
        /// What the agent found; null where the environment did not start.
        facts: Option<Box<Facts>>,
    },
    /// One probe's outcome, judged.
    Result {
        /// The environment.
        environment: String,
        /// The members of a result in the report.
        #[serde(flatten)]
        result: Result,
    },
    /// An environment is done.
    CellFinished {
        /// The environment.
        environment: String,
        /// From the start of the environment to its end in milliseconds.
        wall_ms: u64,
        /// What the cell left behind.
        leftovers: Vec<String>,
        /// Why the environment could not start.
        missing: Option<String>,
    },
    /// Always the last.
    RunFinished {
        /// The numbers.
        summary: Summary,
        /// Whether the run was interrupted.
        interrupted: bool,
        /// The exit code of the program.
        exit_code: i32,
    },
}

impl RunEvent {
    /// The events of a run that is over, cell by cell.
    pub fn of(report: &Report) -> impl Iterator<Item = Self> + '_ {
        let first = Self::RunStarted {
            schema_version: SCHEMA_VERSION,
            program: report.program.clone(),
            started: report.started.clone(),
            host: report.host.clone(),
            environments: report.cells.iter().map(|cell| cell.environment.clone()).collect(),
            probes: report.summary.probes,
        };
        let cells = report.cells.iter().flat_map(|cell| {
            let started = Self::CellStarted {
                environment: cell.environment.clone(),
                declared: cell.declared.clone(),
                facts: cell.facts.clone().map(Box::new),
            };
            let result =
                |result: &Result| Self::Result { environment: cell.environment.clone(), result: result.clone() };
            let finished = Self::CellFinished {
                environment: cell.environment.clone(),
                wall_ms: cell.wall_ms,
                leftovers: cell.leftovers.clone(),
                missing: cell.missing.clone(),
            };
            std::iter::once(started).chain(cell.results.iter().map(result)).chain(std::iter::once(finished))
        });
        let last =
            Self::RunFinished { summary: report.summary, interrupted: report.interrupted, exit_code: report.exit_code };
        std::iter::once(first).chain(cells).chain(std::iter::once(last))
    }
}

/// Writes events.
#[derive(Debug)]
pub struct Ndjson<W>(W);

impl<W: Write> Ndjson<W> {
    /// A stream on `out`.
    pub fn new(out: W) -> Self {
        Self(out)
    }

    /// Writes one event as one line, in one write, and flushes it.
    pub fn event(&mut self, event: &RunEvent) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.0.write_all(&line)?;
        self.0.flush()
    }

    /// The writer.
    pub fn into_inner(self) -> W {
        self.0
    }
}
