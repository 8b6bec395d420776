//! Progress on standard error: a bar a cell on a terminal, a line a cell elsewhere.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use shmcheck_protocol::Cell;
use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

/// What is shown while a run goes on.
#[derive(Debug)]
pub(crate) struct Progress {
    mode: Mode,
    probes: u64,
}

#[derive(Debug)]
enum Mode {
    Silent,
    Lines,
    Bars { all: MultiProgress, bars: Mutex<HashMap<usize, ProgressBar>> },
}

impl Progress {
    /// Bars where standard error is a terminal, lines where not, nothing where the user wants none.
    pub(crate) fn new(wanted: bool, probes: usize) -> Self {
        let mode = if !wanted {
            Mode::Silent
        } else if std::io::stderr().is_terminal() {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(12));
            Mode::Bars { all, bars: Mutex::new(HashMap::new()) }
        } else {
            Mode::Lines
        };
        Self { mode, probes: probes as u64 }
    }

    /// A cell is being started.
    pub(crate) fn started(&self, number: usize, environment: &str) {
        match &self.mode {
            Mode::Silent => {}
            Mode::Lines => line(&format!("starting {environment}")),
            Mode::Bars { all, bars } => {
                let bar = all.add(ProgressBar::new(self.probes));
                let template = "{prefix:<32!} {bar:24} {pos}/{len} {msg}";
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style);
                }
                bar.set_prefix(environment.to_owned());
                bar.enable_steady_tick(Duration::from_millis(100));
                if let Ok(mut bars) = bars.lock() {
                    bars.insert(number, bar);
                }
            }
        }
    }

    /// A result has come.
    pub(crate) fn result(&self, number: usize) {
        if let Mode::Bars { bars, .. } = &self.mode
            && let Ok(bars) = bars.lock()
            && let Some(bar) = bars.get(&number)
        {
            bar.inc(1);
        }
    }

    /// A cell is complete.
    pub(crate) fn finished(&self, number: usize, cell: &Cell) {
        match &self.mode {
            Mode::Silent => {}
            Mode::Lines => line(&format!("finished {} in {} ms", cell.environment, cell.wall_ms)),
            Mode::Bars { all, bars } => {
                if let Ok(mut bars) = bars.lock()
                    && let Some(bar) = bars.remove(&number)
                {
                    bar.finish_and_clear();
                    all.remove(&bar);
                }
            }
        }
    }

    /// Runs `write` while the bars are out of the way.
    pub(crate) fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.mode {
            Mode::Bars { all, .. } => all.suspend(write),
            Mode::Silent | Mode::Lines => write(),
        }
    }
}

/// Nobody may be listening.
fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
