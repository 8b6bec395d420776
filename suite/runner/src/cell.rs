//! One cell: an agent started, its facts taken, its probes run, its records judged, its leftovers counted.

use crate::declared::{Declared, Filter};
use crate::deviation::Here;
use crate::environment::Tools;
use crate::judge::{judge, judge_setting};
use crate::launch::{Launch, RUN_VARIABLE};
use crate::run::{Order, Planned};
use crate::session::{Heard, Session};
use crate::{Observer, effective};
use shmcheck_probe::{Probe, Stop};
use shmcheck_protocol::{Cell, Event, Facts, Record, Request, Result};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long an environment may take to bring up the agent: an engine on a loaded machine, an image to unpack.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// What an agent may need beyond a probe's own deadline before its record must be here.
pub(crate) const RECORD_PATIENCE: Duration = Duration::from_secs(15);
/// How long an agent may take to end once it was told to; an engine removes its container meanwhile.
pub(crate) const END_PATIENCE: Duration = Duration::from_secs(20);
/// How often a waiting runner looks whether it was interrupted.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// Runs the order's probes in one environment. Whatever happens there, the cell comes back with a record for each.
pub fn run(planned: &Planned, number: usize, order: &Order, observer: &dyn Observer) -> Cell {
    let start = Instant::now();
    let environment = planned.spec.to_string();
    observer.cell_started(number, &environment);
    let mut cell = Cell {
        environment,
        declared: planned.spec.declared(),
        facts: None,
        wall_ms: 0,
        results: Vec::new(),
        leftovers: Vec::new(),
        missing: None,
    };
    let tools = Tools { exe: order.exe.clone(), run: order.run.clone(), number };
    match planned.environment.launch(&planned.spec, &tools) {
        Err(missing) => cell.missing = Some(missing.to_string()),
        Ok(mut launch) => {
            launch.env.push((RUN_VARIABLE.to_owned(), order.run.clone()));
            cell.declared.clone_from(&launch.declared.keys);
            match Visit::begin(&launch) {
                Err(Trouble::Absent(reason)) => cell.missing = Some(reason),
                Err(Trouble::Rubbish(problem)) => {
                    let records = order.probes.iter().map(|probe| broken(probe, &problem));
                    for record in records {
                        observer.result(number, &cell.environment, &record);
                        cell.results.push(record);
                    }
                }
                Ok(visit) => {
                    planned.environment.learn(&mut launch);
                    visit.carry_out(&mut launch, number, order, observer, &mut cell);
                }
            }
            launch.undo_if_needed(&cell);
        }
    }
    cell.wall_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    observer.cell_finished(number, &cell);
    cell
}

/// Starts an agent and takes its facts alone.
pub fn facts(planned: &Planned, exe: &std::path::Path, run: &str) -> std::result::Result<Facts, String> {
    look(planned, exe, run).map(|(facts, _)| facts)
}

/// Starts an agent; its facts, and what was declared, completed by what the environment tells.
pub fn look(planned: &Planned, exe: &std::path::Path, run: &str) -> std::result::Result<(Facts, Declared), String> {
    let tools = Tools { exe: exe.to_owned(), run: run.to_owned(), number: 0 };
    let mut launch = planned.environment.launch(&planned.spec, &tools).map_err(|missing| missing.to_string())?;
    let visit = Visit::begin(&launch).map_err(|trouble| match trouble {
        Trouble::Absent(reason) | Trouble::Rubbish(reason) => reason,
    })?;
    planned.environment.learn(&mut launch);
    let facts = (*visit.facts).clone();
    if visit.session.end(END_PATIENCE).is_none() {
        launch.undo();
    }
    Ok((facts, launch.declared))
}

/// Why there is no visit.
pub(crate) enum Trouble {
    /// The environment did not bring up an agent.
    Absent(String),
    /// It brought up something that answers, and not as an agent does.
    Rubbish(String),
}

/// A started agent that has sent its facts.
pub(crate) struct Visit {
    pub(crate) session: Session,
    pub(crate) facts: Box<Facts>,
}

impl Visit {
    pub(crate) fn begin(launch: &Launch) -> std::result::Result<Self, Trouble> {
        let session =
            Session::start(launch).map_err(|e| Trouble::Absent(format!("failed to start {}: {e}", launch.program)))?;
        let trouble = match session.hear(START_PATIENCE) {
            Heard::Event(event) => match *event {
                Event::Facts(facts) => return Ok(Self { session, facts }),
                Event::Error { message } => Trouble::Absent(message),
                _ => Trouble::Rubbish("the agent did not begin with its facts".to_owned()),
            },
            Heard::Rubbish(problem) => Trouble::Rubbish(format!("the agent answered {problem}")),
            Heard::Silence => Trouble::Absent(format!("the agent said nothing within {} s", START_PATIENCE.as_secs())),
            Heard::Ended => {
                let (code, said) = session.end_with_words(END_PATIENCE);
                let said = if said.is_empty() { "without a word".to_owned() } else { said };
                let code = code.map_or_else(|| "a signal".to_owned(), |code| format!("code {code}"));
                return Err(Trouble::Absent(format!("{} ended with {code}: {said}", launch.program)));
            }
        };
        session.kill();
        launch.undo();
        Err(trouble)
    }

    fn carry_out(
        mut self,
        launch: &mut Launch,
        number: usize,
        order: &Order,
        observer: &dyn Observer,
        cell: &mut Cell,
    ) {
        let environment = cell.environment.clone();
        observer.facts(number, cell, &self.facts);
        let settings = effective::records(&launch.declared, &self.facts);
        let known = Here::of(&launch.declared, &self.facts);
        for result in settings.into_iter().map(judge_setting).map(|result| known.weigh(result)) {
            observer.result(number, &environment, &result);
            cell.results.push(result);
        }
        // A filter that is not in force is a finding of its own, `declared.seccomp`; the probes are not to repeat it.
        if self.facts.seccomp_mode != 2 {
            launch.declared.seccomp = Filter::Unsaid;
        }
        let (records, problem) = self.collect(order, |record| {
            let probe = order.probes.iter().find(|probe| probe.id == record.id)?;
            let result = known.weigh(judge(probe, &launch.declared, record));
            observer.result(number, &environment, &result);
            Some(result)
        });
        let mut records = records;
        for probe in &order.probes {
            let missing = || {
                let problem = problem.as_deref().unwrap_or("no record came for this probe");
                let result = broken(probe, problem);
                observer.result(number, &environment, &result);
                result
            };
            cell.results.push(records.remove(probe.id).unwrap_or_else(missing));
        }
        if problem.is_none() {
            cell.leftovers = known.beyond(self.leftovers(order));
        }
        cell.facts = Some((*self.facts).clone());
        if problem.is_some() {
            if order.is_stopped() {
                self.session.leave(order.deadline + RECORD_PATIENCE);
            } else {
                self.session.kill();
            }
            launch.undo();
        } else if self.session.end(END_PATIENCE).is_none() {
            launch.undo();
        }
    }

    /// Sends the order and takes records until all are here; what went wrong, where something did.
    fn collect(
        &mut self,
        order: &Order,
        mut judged: impl FnMut(Record) -> Option<Result>,
    ) -> (HashMap<String, Result>, Option<String>) {
        let mut records: HashMap<String, Result> = HashMap::new();
        let request = Request::Run {
            probes: order.probes.iter().map(|probe| probe.id.to_owned()).collect(),
            run: order.run.clone(),
            tag: order.tag,
            jobs: order.jobs,
            deadline_ms: u64::try_from(order.deadline.as_millis()).unwrap_or(u64::MAX),
        };
        if let Err(e) = self.session.send(&request) {
            return (records, Some(format!("failed to send the order to the agent: {e}")));
        }
        let patience = order.deadline + RECORD_PATIENCE;
        let mut last = Instant::now();
        let problem = loop {
            if order.is_stopped() {
                break "the run was interrupted".to_owned();
            }
            match self.session.hear(TICK) {
                Heard::Event(event) => match *event {
                    Event::Result(record) => {
                        last = Instant::now();
                        let id = record.id.clone();
                        if records.contains_key(&id) {
                            break format!("the agent sent a second record of {id}");
                        }
                        match judged(record) {
                            Some(result) => drop(records.insert(id, result)),
                            None => break format!("the agent sent a record of {id:?}, which nobody asked for"),
                        }
                    }
                    Event::Done if records.len() == order.probes.len() => return (records, None),
                    Event::Done => break "the agent says it is done and left this record out".to_owned(),
                    Event::Error { message } => break format!("the agent cannot go on: {message}"),
                    Event::Facts(_) | Event::Inventory(_) | Event::Acted { .. } => {
                        break "the agent sent what was not asked for".to_owned();
                    }
                },
                Heard::Rubbish(problem) => break format!("the agent answered {problem}"),
                Heard::Ended => {
                    let said = self.session.stderr();
                    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
                    break format!("the agent ended before this probe's record{said}");
                }
                Heard::Silence if last.elapsed() > patience => {
                    break format!("the agent sent nothing for {} s", patience.as_secs());
                }
                Heard::Silence => {}
            }
        };
        (records, Some(problem))
    }

    fn leftovers(&mut self, order: &Order) -> Vec<String> {
        if let Err(e) = self.session.send(&Request::Inventory) {
            return vec![format!("unknown: the agent took no request for an inventory ({e})")];
        }
        match self.session.hear(RECORD_PATIENCE) {
            Heard::Event(event) => match *event {
                Event::Inventory(now) => now.since(&self.facts.inventory, &order.run, order.tag, self.facts.shared_ipc),
                _ => vec!["unknown: the agent answered something else than an inventory".to_owned()],
            },
            _ => vec!["unknown: the agent gave no inventory".to_owned()],
        }
    }
}

impl Launch {
    /// Whatever could not be started in order may still be half there.
    fn undo_if_needed(&self, cell: &Cell) {
        if cell.missing.is_some() {
            self.undo();
        }
    }
}

fn broken(probe: &Probe, problem: &str) -> Result {
    let record = Record::new(probe.id, Err(Stop::broken(problem)), 0);
    Result::of(record, shmcheck_protocol::Expected::Pass, false, String::new())
}
