//! Two reports compared: outcomes, probes, cells and facts; and whether the later one is worse.

use crate::describe;
use crate::style::{Role, Style};
use crate::units;
use crate::wrap::{INDENT, wrap};
use crate::{clean, failures::safe};
use serde::Serialize;
use serde_json::Value;
use shmcheck_protocol::{Cell, Facts, Report, Result};
use std::collections::{BTreeMap, HashMap};

/// What changed between two reports. Cells are compared by their environment's name, probes by their id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Environments that only the later report has.
    pub cells_added: Vec<String>,
    /// Environments that only the earlier report has.
    pub cells_gone: Vec<String>,
    /// Environments of both in which something changed.
    pub cells: Vec<CellDiff>,
}

/// What changed in one environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CellDiff {
    /// The environment.
    pub environment: String,
    /// Set where it started before and does not now: the reason.
    pub now_missing: Option<String>,
    /// Set where it did not start before and does now: the reason of then.
    pub was_missing: Option<String>,
    /// Probes with another outcome, judgement, or way to fail.
    pub changed: Vec<Change>,
    /// Probes that only the later report has.
    pub added: Vec<String>,
    /// Probes that only the earlier report has.
    pub gone: Vec<String>,
    /// Facts that differ.
    pub facts: Vec<FactChange>,
}

/// A probe whose outcome or judgement changed, or that fails or is refused in another way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The probe.
    pub id: String,
    /// Before: the outcome, in capitals where it was not as expected.
    pub before: String,
    /// Now.
    pub after: String,
    /// Whether now is worse.
    pub worse: bool,
    /// What is seen now; empty for a pass.
    pub now: String,
}

/// A fact that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FactChange {
    /// The member, as `cell.dev_shm.size`.
    pub path: String,
    /// Before; `None` where there was none.
    pub before: Option<String>,
    /// Now; `None` where there is none.
    pub after: Option<String>,
}

/// The results of a report by environment and id.
#[derive(Debug)]
pub(crate) struct Places<'a>(HashMap<&'a str, HashMap<&'a str, &'a Result>>);

impl<'a> Places<'a> {
    pub(crate) fn of(report: &'a Report) -> Self {
        let cell = |cell: &'a Cell| cell.results.iter().map(|result| (result.id.as_str(), result)).collect();
        Self(report.cells.iter().map(|each| (each.environment.as_str(), cell(each))).collect())
    }

    pub(crate) fn result(&self, environment: &str, id: &str) -> Option<&'a Result> {
        self.0.get(environment)?.get(id).copied()
    }
}

impl Diff {
    /// What changed from `before` to `after`.
    pub fn between(before: &Report, after: &Report) -> Self {
        let find = |report: &'_ Report, name: &str| report.cells.iter().position(|cell| cell.environment == name);
        let only = |one: &Report, other: &Report| {
            let names = one.cells.iter().map(|cell| &cell.environment);
            names.filter(|name| find(other, name).is_none()).cloned().collect()
        };
        let pairs =
            after.cells.iter().filter_map(|now| Some((before.cells.get(find(before, &now.environment)?)?, now)));
        Self {
            cells_added: only(after, before),
            cells_gone: only(before, after),
            cells: pairs.map(|(then, now)| CellDiff::between(then, now)).filter(|cell| !cell.is_empty()).collect(),
        }
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Why the later report is worse; empty where it is not. A probe or cell that is gone is not worse, since the
    /// caller chose what to run; an environment that no longer starts is.
    pub fn worse(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for cell in &self.cells {
            if cell.now_missing.is_some() {
                reasons.push(format!("{} started in the baseline and does not now", cell.environment));
            }
            let worse: Vec<_> = cell.changed.iter().filter(|change| change.worse).collect();
            match worse.as_slice() {
                [] => {}
                [one] => reasons.push(format!("{}: {} was {}, is {}", cell.environment, one.id, one.before, one.after)),
                [one, rest @ ..] => reasons.push(format!(
                    "{}: {} was {}, is {}, and {} more are worse",
                    cell.environment,
                    one.id,
                    one.before,
                    one.after,
                    rest.len()
                )),
            }
        }
        reasons
    }

    /// For people, within 80 columns.
    pub fn to_text(&self, style: Style) -> String {
        if self.is_empty() {
            return "no difference\n".to_owned();
        }
        let mut lines = Vec::new();
        for (word, role, names) in [("gone", Role::Odd, &self.cells_gone), ("added", Role::Good, &self.cells_added)] {
            let pad = 8_usize.saturating_sub(word.len());
            let first = format!("{}{:pad$}", style.paint(role, word), "");
            lines.extend(names.iter().flat_map(|name| wrap(&first, INDENT, &format!("cell {}", clean::line(name)))));
        }
        for cell in &self.cells {
            if !lines.is_empty() {
                lines.push(String::new());
            }
            cell.lines(style, &mut lines);
        }
        clean::printed(&lines)
    }
}

impl CellDiff {
    fn between(then: &Cell, now: &Cell) -> Self {
        let index = |cell: &'_ Cell| -> HashMap<String, usize> {
            cell.results.iter().enumerate().map(|(n, result)| (result.id.clone(), n)).collect()
        };
        let (old, new) = (index(then), index(now));
        let mut diff = Self { environment: now.environment.clone(), ..Self::default() };
        match (&then.missing, &now.missing) {
            (None, Some(reason)) => diff.now_missing = Some(reason.clone()),
            (Some(reason), None) => diff.was_missing = Some(reason.clone()),
            _ => {}
        }
        // Where one of the two did not start, each probe would be listed as gone or added.
        if then.missing.is_none() && now.missing.is_none() {
            let ids = |cell: &Cell, other: &HashMap<String, usize>| {
                let ids = cell.results.iter().map(|result| &result.id);
                ids.filter(|id| !other.contains_key(*id)).cloned().collect()
            };
            diff.added = ids(now, &old);
            diff.gone = ids(then, &new);
        }
        for result in &now.results {
            let before = old.get(&result.id).and_then(|n| then.results.get(*n));
            diff.changed.extend(before.and_then(|before| Change::between(before, result)));
        }
        if let (Some(then), Some(now)) = (&then.facts, &now.facts) {
            diff.facts = facts(then, now);
        }
        diff
    }

    fn is_empty(&self) -> bool {
        *self == Self { environment: self.environment.clone(), ..Self::default() }
    }

    fn lines(&self, style: Style, lines: &mut Vec<String>) {
        lines.extend(wrap("", INDENT, &style.paint(Role::Strong, &clean::line(&self.environment))));
        let mut say = |role: Role, word: &str, text: &str| {
            let pad = 8_usize.saturating_sub(word.len());
            let first = format!("{INDENT}{}{:pad$}", style.paint(role, word), "");
            lines.extend(wrap(&first, "              ", &safe(text)));
        };
        if let Some(reason) = &self.now_missing {
            say(Role::Bad, "MISSING", &format!("it no longer starts: {reason}"));
        }
        if let Some(reason) = &self.was_missing {
            say(Role::Good, "starts", &format!("it did not before: {reason}"));
        }
        for change in &self.changed {
            let now = if change.now.is_empty() { String::new() } else { format!(": {}", clean::cut(&change.now, 300)) };
            let (role, word) = if change.worse { (Role::Bad, "WORSE") } else { (Role::Good, "changed") };
            say(role, word, &format!("{} {} → {}{now}", change.id, change.before, change.after));
        }
        for (word, ids) in [("added", &self.added), ("gone", &self.gone)] {
            if ids.len() > 8 {
                say(Role::Odd, word, &format!("{}: {}, …", units::count(ids.len(), "probe"), ids[..4].join(", ")));
            } else if !ids.is_empty() {
                say(Role::Odd, word, &ids.join(", "));
            }
        }
        for fact in &self.facts {
            let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
            say(Role::Dim, "fact", &format!("{}: {} → {}", fact.path, side(&fact.before), side(&fact.after)));
        }
    }
}

impl Change {
    fn between(before: &Result, after: &Result) -> Option<Self> {
        let word = |result: &Result| match result.as_expected {
            true => result.outcome.as_str().to_owned(),
            false => result.outcome.as_str().to_uppercase(),
        };
        let judged = |result: &Result| (result.outcome, result.as_expected);
        (judged(before) != judged(after) || differs(before, after)).then(|| Self {
            id: after.id.clone(),
            before: word(before),
            after: word(after),
            worse: badness(after) > badness(before),
            now: describe::sentence(after),
        })
    }
}

/// Whether two results with the same outcome show different things. A skip's measured value and a broken probe's message
/// differ from run to run without a meaning.
fn differs(before: &Result, after: &Result) -> bool {
    use shmcheck_protocol::Verdict::{Blocked, Fail};
    let seen = |result: &Result| {
        let detail = &result.detail;
        [&detail.call, &detail.wanted, &detail.got, &detail.layer, &detail.errno].map(Clone::clone)
    };
    matches!(after.outcome, Fail | Blocked) && seen(before) != seen(after)
}

/// How bad a result is: the order in which a run becomes worse. What did not run is worse than what passed, since a
/// regression hides there as well.
fn badness(result: &Result) -> u8 {
    use shmcheck_protocol::Verdict::{Blocked, Broken, Fail, Pass, Skip};
    match (result.outcome, result.as_expected) {
        (Pass, _) => 0,
        (Skip | Blocked, true) => 1,
        (Fail | Broken, true) => 2,
        (Skip | Blocked, false) => 3,
        (Fail, false) => 4,
        (Broken, false) => 5,
    }
}

/// Facts that differ, without those that differ between any two runs: inodes, free space, what happens to be there.
fn facts(then: &Facts, now: &Facts) -> Vec<FactChange> {
    let leaves = |facts: &Facts| {
        let mut leaves = BTreeMap::new();
        let value = serde_json::to_value(facts).unwrap_or_default();
        collect("", &value, &mut leaves);
        leaves
    };
    let (then, now) = (leaves(then), leaves(now));
    let mut paths: Vec<_> = then.keys().chain(now.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
        .into_iter()
        .filter(|path| then.get(*path) != now.get(*path))
        .map(|path| FactChange { path: path.clone(), before: then.get(path).cloned(), after: now.get(path).cloned() })
        .collect()
}

fn collect(path: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
    let busy = ["namespaces", "inventory"].contains(&path) || path.ends_with(".free") || path.ends_with(".reserved");
    match value {
        _ if busy => {}
        Value::Null => {}
        Value::Object(members) => {
            for (name, value) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect(&path, value, leaves);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (n, value) in items.iter().enumerate() {
                collect(&format!("{path}[{n}]"), value, leaves);
            }
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(leaf).collect();
            leaves.insert(path.to_owned(), items.join(" "));
        }
        other => {
            leaves.insert(path.to_owned(), leaf(other));
        }
    }
}

fn leaf(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
