//! A constellation's cell: its parties started, the scenarios performed one after the other, the records judged.

use crate::Observer;
use crate::constellation::{self, Constellation};
use crate::declared::{Declared, Ipc};
use crate::judge::judge;
use crate::run::Order;
use crate::spec::Spec;
use crate::troupe::{Performed, Troupe};
use shmcheck_probe::{Scenario, Shared, Stop, Values};
use shmcheck_protocol::{Cell, Record, Result};
use std::time::Instant;

/// What the parties can share.
const KINDS: [Shared; 2] = [Shared::Ipc, Shared::DevShm];

/// Runs the scenarios in one constellation. Whatever happens there, the cell comes back with a record for each.
pub fn run(
    constellation: &Constellation,
    scenarios: &[&'static Scenario],
    number: usize,
    order: &Order,
    observer: &dyn Observer,
) -> Cell {
    let start = Instant::now();
    let environment = constellation.to_string();
    observer.cell_started(number, &environment);
    let mut cell = Cell {
        environment,
        declared: constellation::declared(constellation),
        facts: None,
        wall_ms: 0,
        results: Vec::new(),
        leftovers: Vec::new(),
        missing: None,
    };
    match Troupe::gather(constellation, number, order) {
        Err(reason) => cell.missing = Some(reason),
        Ok(troupe) => Season { constellation, number, order, observer }.play(troupe, scenarios, &mut cell),
    }
    cell.wall_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    observer.cell_finished(number, &cell);
    cell
}

/// What stays the same over the scenarios of a constellation.
struct Season<'a> {
    constellation: &'a Constellation,
    number: usize,
    order: &'a Order,
    observer: &'a dyn Observer,
}

impl Season<'_> {
    fn play(&self, troupe: Troupe, scenarios: &[&'static Scenario], cell: &mut Cell) {
        // The first party's; a report has room for one place.
        let facts = troupe.members[0].facts.clone();
        self.observer.facts(self.number, cell, &facts);
        cell.facts = Some(facts);
        // Those that end a party come last: each takes a troupe along.
        let (last, first): (Vec<&Scenario>, Vec<&Scenario>) =
            scenarios.iter().copied().partition(|scenario| scenario.ends_a_party());
        let mut troupe = Some(troupe);
        for scenario in first.into_iter().chain(last) {
            if self.order.is_stopped() {
                break;
            }
            let result =
                match troupe.take().map_or_else(|| Troupe::gather(self.constellation, self.number, self.order), Ok) {
                    Ok(mut own) => {
                        let (result, intact) = self.one(&mut own, scenario);
                        if intact {
                            troupe = Some(own)
                        } else {
                            own.dismiss()
                        }
                        result
                    }
                    Err(reason) => broken(scenario, &reason),
                };
            self.observer.result(self.number, &cell.environment, &result);
            cell.results.push(result);
        }
        if let Some(troupe) = troupe {
            troupe.dismiss();
        }
        let place = |result: &Result| scenarios.iter().position(|scenario| scenario.probe.id == result.id);
        cell.results.sort_by_key(place);
    }

    /// One scenario, judged; and whether the troupe can go on.
    fn one(&self, troupe: &mut Troupe, scenario: &Scenario) -> (Result, bool) {
        let parties: Vec<(&Spec, &Declared)> = self
            .constellation
            .parties
            .iter()
            .zip(&troupe.members)
            .map(|(party, member)| (&party.spec, &member.launch.declared))
            .collect();
        // What is not performed ends nobody.
        let (performed, ends) = match self.expected(scenario, &parties) {
            Ok(values) => (troupe.perform(scenario, values, self.order), scenario.ends_a_party()),
            Err(stop) => {
                let record = Record::new(scenario.probe.id, Err(stop), 0);
                (Performed { record, party: 0, intact: true }, false)
            }
        };
        let declared = &troupe.members[performed.party].launch.declared;
        (judge(&scenario.probe, declared, performed.record), performed.intact && !ends)
    }

    /// What the declared configuration lets the steps expect; a skip where the scenario says nothing of it.
    fn expected(&self, scenario: &Scenario, parties: &[(&Spec, &Declared)]) -> std::result::Result<Values, Stop> {
        if scenario.parties.len() != parties.len() {
            let found = format!("{} environments in this constellation", parties.len());
            return Err(Stop::skip(format!("parties:{}", scenario.parties.len()), found));
        }
        if let Some(n) = parties.iter().position(|(_, declared)| declared.ipc == Ipc::Unsaid) {
            return Err(Stop::skip("declared:ipc", format!("nothing was declared of the IPC mode of party {}", n + 1)));
        }
        let mut values = Values::default();
        for kind in KINDS {
            let shared = constellation::shared(parties, kind);
            if scenario.shares.contains(&kind) && shared != Some(true) {
                return Err(Stop::skip(kind.name(), "the parties were not declared to share it"));
            }
            if let Some(shared) = shared {
                values.set(kind.name(), shared);
            }
        }
        for (n, observer) in self.constellation.parties.iter().enumerate() {
            for (m, subject) in self.constellation.parties.iter().enumerate() {
                // The host's pid namespace is above all others; those of two sandboxes or containers are side by side.
                let seen = !observer.environment.own_pids() || n == m && subject.environment.own_pids();
                values.set(&format!("sees-pids.{n}.{m}"), seen);
            }
        }
        Ok(values)
    }
}

fn broken(scenario: &Scenario, problem: &str) -> Result {
    let record = Record::new(scenario.probe.id, Err(Stop::broken(problem)), 0);
    Result::of(record, shmcheck_protocol::Expected::Pass, false, String::new())
}
