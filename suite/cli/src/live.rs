//! What is written while a run goes on: results to standard output, progress to standard error.

use crate::args::{FileFormat, Format, RunArgs};
use crate::commands::run::{host_name, program, render};
use crate::failure::Failure;
use crate::output::Streams;
use crate::progress::Progress;
use crate::sources;
use shmcheck_protocol::{Cell, Facts, Report, Result as Judged, SCHEMA_VERSION};
use shmcheck_report::Human;
use shmcheck_report::ndjson::{Ndjson, RunEvent};
use shmcheck_runner::Observer;
use std::collections::BTreeSet;
use std::io::{Stdout, Write, stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// What is written to standard output while the run goes on.
pub(crate) enum Live {
    Human(Box<Human<Stdout>>),
    Events(Ndjson<Stdout>, BTreeSet<usize>),
    Later,
}

impl Live {
    pub(crate) fn begin(
        args: &RunArgs,
        style: Streams,
        probes: usize,
        environments: Vec<String>,
        started: &str,
    ) -> Result<Self, Failure> {
        Ok(match args.format {
            Format::Human => Self::Human(Box::new(Human::new(stdout(), style.out(), sources::texts(), args.verbose))),
            Format::Ndjson => {
                let mut events = Ndjson::new(stdout());
                events.event(&RunEvent::RunStarted {
                    schema_version: SCHEMA_VERSION,
                    program: program(),
                    started: started.to_owned(),
                    host: host_name(),
                    environments,
                    probes,
                })?;
                Self::Events(events, BTreeSet::new())
            }
            _ => Self::Later,
        })
    }

    /// The event that begins a cell, once: when its facts are there, or when it will never have any.
    fn begin_cell(&mut self, number: usize, cell: &Cell, facts: Option<&Facts>) -> std::io::Result<()> {
        match self {
            Self::Events(events, begun) => {
                if !begun.insert(number) {
                    return Ok(());
                }
                events.event(&RunEvent::CellStarted {
                    environment: cell.environment.clone(),
                    declared: cell.declared.clone(),
                    facts: facts.cloned().map(Box::new),
                })
            }
            Self::Human(_) | Self::Later => Ok(()),
        }
    }

    pub(crate) fn finish(self, format: Format, report: &Report, reasons: &[String]) -> Result<(), Failure> {
        let late = |format: FileFormat| {
            // In one piece: a format's own writer would wrap the error of a pipe that its reader closed.
            let mut bytes = Vec::new();
            render(format, report, &mut bytes)?;
            stdout().lock().write_all(&bytes)
        };
        match self {
            Self::Human(mut human) => human.finish(report, reasons)?,
            Self::Events(mut events, _) => events.event(&RunEvent::RunFinished {
                summary: report.summary,
                interrupted: report.interrupted,
                exit_code: report.exit_code,
            })?,
            Self::Later => match format {
                Format::Junit => late(FileFormat::Junit)?,
                Format::Tap => late(FileFormat::Tap)?,
                Format::Markdown => late(FileFormat::Markdown)?,
                Format::Json | Format::Human | Format::Ndjson => late(FileFormat::Json)?,
            },
        }
        Ok(())
    }
}

/// Takes what the cells tell: progress to standard error, results to standard output.
pub(crate) struct Watcher {
    pub(crate) progress: Progress,
    pub(crate) live: Mutex<Live>,
    /// Set when nobody reads the output any more: the run then ends.
    pub(crate) closed: Arc<AtomicBool>,
}

impl Watcher {
    fn tell(&self, write: impl FnOnce(&mut Live) -> std::io::Result<()>) {
        let Ok(mut live) = self.live.lock() else { return };
        if self.progress.suspend(|| write(&mut live)).is_err() {
            self.closed.store(true, Ordering::Relaxed);
        }
    }
}

impl Observer for Watcher {
    fn cell_started(&self, number: usize, environment: &str) {
        self.progress.started(number, environment);
    }

    fn facts(&self, number: usize, cell: &Cell, facts: &Facts) {
        self.tell(|live| live.begin_cell(number, cell, Some(facts)));
    }

    fn result(&self, number: usize, environment: &str, result: &Judged) {
        self.progress.result(number);
        self.tell(|live| match live {
            Live::Events(events, _) => {
                events.event(&RunEvent::Result { environment: environment.to_owned(), result: result.clone() })
            }
            Live::Human(_) | Live::Later => Ok(()),
        });
    }

    fn cell_finished(&self, number: usize, cell: &Cell) {
        self.progress.finished(number, cell);
        self.tell(|live| {
            live.begin_cell(number, cell, None)?;
            match live {
                Live::Human(human) => human.cell(cell),
                Live::Events(events, _) => events.event(&RunEvent::CellFinished {
                    environment: cell.environment.clone(),
                    wall_ms: cell.wall_ms,
                    leftovers: cell.leftovers.clone(),
                    missing: cell.missing.clone(),
                }),
                Live::Later => Ok(()),
            }
        });
    }
}
