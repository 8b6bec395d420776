//! One self-contained page: a matrix of probes and environments, with the details of each result behind a click.
//!
//! The page has no script at all, and its policy forbids any: text from an image under test stands in it. The filter
//! is made of radio buttons and style rules.

use crate::clean;
use crate::describe;
use crate::exit;
use crate::keyfacts;
use crate::reasons::reasons;
use crate::texts::Texts;
use crate::units;
use askama::Template;
use shmcheck_protocol::{Cell, Report, Result, Verdict};
use std::collections::HashMap;
use std::io::{self, Write};

/// How much of a text is shown.
const CHARS: usize = 1_500;

/// Writes the report as a page of HTML.
pub fn write(report: &Report, texts: &Texts, mut out: impl Write) -> io::Result<()> {
    let page = Page::of(report, texts);
    page.write_into(&mut out)?;
    out.flush()
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page {
    verdict: String,
    good: bool,
    origin: String,
    ending: String,
    interrupted: bool,
    counts: Vec<Count>,
    cells: Vec<Card>,
    groups: Vec<Group>,
    columns: usize,
    /// Which rows are shown at first.
    only_bad: bool,
}

struct Count {
    n: usize,
    word: &'static str,
    class: &'static str,
}

struct Card {
    number: usize,
    /// The environment in pieces, between which a line may break.
    name: Vec<String>,
    class: &'static str,
    word: String,
    counts: String,
    time: String,
    missing: String,
    facts: Vec<Part>,
    declared: Vec<Part>,
    reasons: Vec<String>,
    leftovers: Vec<String>,
}

struct Group {
    name: String,
    class: &'static str,
    rows: Vec<Row>,
}

struct Row {
    id: String,
    class: &'static str,
    words: Vec<Part>,
    results: Vec<Seen>,
}

struct Seen {
    class: &'static str,
    symbol: &'static str,
    word: String,
    time: String,
    parts: Vec<Part>,
}

struct Part {
    label: String,
    value: String,
}

impl Part {
    fn new(label: &str, value: &str) -> Self {
        Self { label: shown(label), value: shown(value) }
    }
}

impl Page {
    fn of(report: &Report, texts: &Texts) -> Self {
        let summary = &report.summary;
        let good = report.exit_code == exit::OK;
        let verdict = match summary.unexpected {
            0 if good => "all as expected".to_owned(),
            0 => exit::meaning(report.exit_code).to_owned(),
            n => format!("{} not as expected", units::count(n, "result")),
        };
        let program = match report.program.commit.as_str() {
            "" => format!("shmcheck {}", report.program.version),
            commit => format!("shmcheck {} ({commit})", report.program.version),
        };
        let origin = format!("{} · {} · {program}, {}", report.host, report.started, report.program.libc);
        let counts = [
            (summary.pass, "pass", "pass"),
            (summary.fail, "fail", "fail"),
            (summary.skip, "skip", "skip"),
            (summary.blocked, "blocked", "blocked"),
            (summary.broken, "broken", "broken"),
            (summary.unexpected, "not as expected", "unexpected"),
        ];
        Self {
            verdict,
            good,
            origin: shown(&origin),
            ending: format!("exit code {}: {}", report.exit_code, exit::meaning(report.exit_code)),
            interrupted: report.interrupted,
            counts: counts.into_iter().map(|(n, word, class)| Count { n, word, class }).collect(),
            cells: report.cells.iter().enumerate().map(|(n, cell)| Card::of(n + 1, cell)).collect(),
            groups: groups(report, texts),
            columns: report.cells.len() + 1,
            only_bad: summary.unexpected > 0,
        }
    }
}

impl Card {
    fn of(number: usize, cell: &Cell) -> Self {
        let bad = describe::unexpected(cell);
        let (class, word) = match &cell.missing {
            Some(_) => ("bad", "⚠ missing".to_owned()),
            None if bad > 0 => ("bad", format!("✗ {bad} of {} not as expected", cell.results.len())),
            None if !cell.leftovers.is_empty() => ("bad", "✗ left something behind".to_owned()),
            None if cell.results.is_empty() => ("odd", "⚠ nothing ran".to_owned()),
            None => ("good", "✓ all as expected".to_owned()),
        };
        Self {
            number,
            name: shown(&cell.environment).split_inclusive([':', ',']).map(str::to_owned).collect(),
            class,
            word,
            counts: describe::counts(cell),
            time: units::millis(cell.wall_ms),
            missing: cell.missing.as_deref().map(shown).unwrap_or_default(),
            facts: cell
                .facts
                .iter()
                .flat_map(keyfacts::key_facts)
                .map(|(label, value)| Part::new(label, &value))
                .collect(),
            declared: cell.declared.iter().map(|(key, value)| Part::new(key, value)).collect(),
            reasons: reasons(cell).iter().map(|reason| shown(&reason.line())).collect(),
            leftovers: cell.leftovers.iter().map(|leftover| shown(leftover)).collect(),
        }
    }
}

/// A row per probe in the order of the catalogue, grouped by the area that an id begins with.
fn groups(report: &Report, texts: &Texts) -> Vec<Group> {
    let mut order: Vec<&str> = Vec::new();
    let mut index: HashMap<&str, Vec<Option<&Result>>> = HashMap::new();
    for (n, cell) in report.cells.iter().enumerate() {
        for result in &cell.results {
            let row = index.entry(&result.id).or_insert_with(|| {
                order.push(&result.id);
                vec![None; report.cells.len()]
            });
            row[n] = Some(result);
        }
    }
    let mut groups: Vec<Group> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for id in order {
        let area = id.split('.').next().unwrap_or(id);
        let at = *known.entry(area).or_insert_with(|| {
            groups.push(Group { name: shown(area), class: "plain", rows: Vec::new() });
            groups.len() - 1
        });
        let row = Row::of(report, id, &index[id], texts);
        groups[at].class = worst(groups[at].class, row.class);
        groups[at].rows.push(row);
    }
    groups
}

fn worst(one: &'static str, other: &'static str) -> &'static str {
    ["bad", "odd", "plain"].into_iter().find(|class| [one, other].contains(class)).unwrap_or("plain")
}

impl Row {
    fn of(report: &Report, id: &str, results: &[Option<&Result>], texts: &Texts) -> Self {
        let words = texts.get(id).into_iter().flat_map(|text| text.words());
        let class = results.iter().flatten().map(|result| match (result.outcome, result.as_expected) {
            (_, false) => "bad",
            (Verdict::Pass, true) => "plain",
            (_, true) => "odd",
        });
        Self {
            id: shown(id),
            class: class.fold("plain", worst),
            words: words
                .filter(|(_, value)| !value.is_empty())
                .map(|(label, value)| Part::new(label, &value))
                .collect(),
            results: results
                .iter()
                .zip(&report.cells)
                .map(|(result, cell)| result.map_or_else(Seen::none, |result| Seen::of(&cell.environment, result)))
                .collect(),
        }
    }
}

impl Seen {
    fn none() -> Self {
        Self { class: "none", symbol: "–", word: "not run".to_owned(), time: String::new(), parts: Vec::new() }
    }

    fn of(environment: &str, result: &Result) -> Self {
        let (class, symbol) = match result.outcome {
            Verdict::Pass => ("pass", "✓"),
            Verdict::Fail => ("fail", "✗"),
            Verdict::Skip => ("skip", "○"),
            Verdict::Blocked => ("blocked", "⊘"),
            Verdict::Broken => ("broken", "⚠"),
        };
        let word = result.outcome.as_str();
        let known = result.as_expected && matches!(result.outcome, Verdict::Fail | Verdict::Broken);
        // The probe's own words stand in the row's first column.
        let parts = describe::story(environment, result, &Texts::new());
        Self {
            class: if known { "known" } else { class },
            symbol,
            word: match result.as_expected {
                true if known => format!("{word} (known)"),
                true => word.to_owned(),
                false => word.to_uppercase(),
            },
            time: if result.duration_us > 0 { units::micros(result.duration_us) } else { String::new() },
            parts: parts.iter().map(|(label, value)| Part::new(label, value)).collect(),
        }
    }

    fn unexpected(&self) -> bool {
        self.word.starts_with(|c: char| c.is_ascii_uppercase())
    }
}

fn shown(text: &str) -> String {
    clean::block(&clean::cut(text, CHARS)).into_owned()
}
