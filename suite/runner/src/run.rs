//! A run: the same probes in several cells, those at the same time that share nothing.

use crate::cell;
use crate::environment::Environment;
use crate::spec::Spec;
use shmcheck_probe::Probe;
use shmcheck_protocol::{Cell, Facts, Result};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// A cell to be run.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The environment.
    pub environment: &'static dyn Environment,
    /// What it is asked for.
    pub spec: Spec,
}

/// What is to be run in every cell, and how.
#[derive(Debug, Clone)]
pub struct Order {
    /// The probes, in the catalogue's order.
    pub probes: Vec<&'static Probe>,
    /// The run's id.
    pub run: String,
    /// The run's tag in System V keys.
    pub tag: u32,
    /// Probes at once in a cell; 0 for one more than processors.
    pub jobs: usize,
    /// Cells at once.
    pub cells_at_once: usize,
    /// Deadline of one probe.
    pub deadline: Duration,
    /// This program's own file.
    pub exe: PathBuf,
    /// Whether the first unexpected result ends the run.
    pub fail_fast: bool,
    /// Set from outside to end the run.
    pub stop: Arc<AtomicBool>,
}

impl Order {
    /// Whether the run is to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Told of what happens while it happens; cells call it from their own threads.
pub trait Observer: Sync {
    /// A cell is being started.
    fn cell_started(&self, _number: usize, _environment: &str) {}
    /// A cell's agent has sent its facts; the cell has no results yet.
    fn facts(&self, _number: usize, _cell: &Cell, _facts: &Facts) {}
    /// A judged result.
    fn result(&self, _number: usize, _environment: &str, _result: &Result) {}
    /// A cell is complete, or missing.
    fn cell_finished(&self, _number: usize, _cell: &Cell) {}
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The cells in the order given; cells that an interruption left out are not there.
    pub cells: Vec<Cell>,
    /// Whether the run ended early.
    pub stopped: bool,
}

/// The cells that wait, and the locks that are taken.
struct Board {
    waiting: VecDeque<usize>,
    taken: Vec<&'static str>,
}

/// Runs all cells.
pub fn run(cells: &[Planned], order: &Order, observer: &dyn Observer) -> Outcome {
    let board = Mutex::new(Board { waiting: (0..cells.len()).collect(), taken: Vec::new() });
    let freed = Condvar::new();
    let done: Vec<Mutex<Option<Cell>>> = cells.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..order.cells_at_once.clamp(1, cells.len().max(1)) {
            scope.spawn(|| {
                while let Some((number, lock)) = next(&board, &freed, cells, order) {
                    let cell = cell::run(&cells[number], number, order, observer);
                    if order.fail_fast && cell.results.iter().any(|result| !result.as_expected) {
                        order.stop.store(true, Ordering::Relaxed);
                    }
                    if let Ok(mut slot) = done[number].lock() {
                        *slot = Some(cell);
                    }
                    if let (Some(lock), Ok(mut board)) = (lock, board.lock()) {
                        board.taken.retain(|taken| *taken != lock);
                    }
                    freed.notify_all();
                }
            });
        }
    });
    let cells = done.into_iter().filter_map(|slot| slot.into_inner().ok().flatten()).collect();
    Outcome { cells, stopped: order.is_stopped() }
}

/// The next cell whose lock is free, waited for; `None` when there is nothing left to do.
fn next(
    board: &Mutex<Board>,
    freed: &Condvar,
    cells: &[Planned],
    order: &Order,
) -> Option<(usize, Option<&'static str>)> {
    let mut board = board.lock().ok()?;
    loop {
        if order.is_stopped() || board.waiting.is_empty() {
            return None;
        }
        let free = board.waiting.iter().position(|number| {
            let lock = cells[*number].environment.lock(&cells[*number].spec);
            lock.is_none_or(|lock| !board.taken.contains(&lock))
        });
        if let Some(place) = free {
            let number = board.waiting.remove(place)?;
            let lock = cells[number].environment.lock(&cells[number].spec);
            board.taken.extend(lock);
            return Some((number, lock));
        }
        board = freed.wait(board).ok()?;
    }
}
