//! JUnit XML for CI services: a suite per environment, a case per probe.
//!
//! A fail is a failure and a broken probe an error. Skips, blocks and known deviations are skipped with their reason
//! while they are as expected; anything that is not as expected is a failure. A missing environment is a suite with one
//! error, and so is one that left something behind.

use crate::clean;
use crate::describe;
use crate::exit;
use crate::keyfacts;
use crate::texts::Texts;
use quick_junit::{NonSuccessKind, Property, Report as Junit, TestCase, TestCaseStatus, TestSuite};
use shmcheck_protocol::{Cell, Report, Result, Verdict};
use std::io::{self, Write};
use std::time::Duration;

/// How much of a text is shown.
const CHARS: usize = 8_000;

/// Writes the report as JUnit XML.
pub fn write(report: &Report, texts: &Texts, mut out: impl Write) -> io::Result<()> {
    let mut junit = Junit::new("shmcheck");
    if let Ok(started) = chrono::DateTime::parse_from_rfc3339(&report.started) {
        junit.set_timestamp(started);
    }
    junit.set_time(Duration::from_millis(report.cells.iter().map(|cell| cell.wall_ms).fold(0, u64::saturating_add)));
    junit.add_test_suites(report.cells.iter().map(|cell| suite(report, cell, texts)));
    junit.serialize(&mut out).map_err(io::Error::other)?;
    out.flush()
}

fn suite(report: &Report, cell: &Cell, texts: &Texts) -> TestSuite {
    let mut suite = TestSuite::new(one(&cell.environment));
    suite.set_time(Duration::from_millis(cell.wall_ms));
    if let Ok(started) = chrono::DateTime::parse_from_rfc3339(&report.started) {
        suite.set_timestamp(started);
    }
    suite.add_property(Property::new("host", one(&report.host)));
    let code = format!("{} ({})", report.exit_code, exit::meaning(report.exit_code));
    suite.add_property(Property::new("exit_code", code));
    for (key, value) in &cell.declared {
        suite.add_property(Property::new(format!("declared.{}", one(key)), one(value)));
    }
    for (label, value) in cell.facts.iter().flat_map(keyfacts::key_facts) {
        suite.add_property(Property::new(label, one(&value)));
    }
    if let Some(missing) = &cell.missing {
        suite.add_test_case(error(cell, "environment", "the environment could not start", missing));
    }
    suite.add_test_cases(cell.results.iter().map(|result| case(cell, result, texts)));
    if !cell.leftovers.is_empty() {
        let message = format!("{} left behind", crate::units::count(cell.leftovers.len(), "object"));
        suite.add_test_case(error(cell, "leftovers", &message, &cell.leftovers.join("\n")));
    }
    suite
}

fn case(cell: &Cell, result: &Result, texts: &Texts) -> TestCase {
    let mut status = match (result.outcome, result.as_expected) {
        (Verdict::Pass, true) => TestCaseStatus::success(),
        (_, true) => TestCaseStatus::skipped(),
        (Verdict::Broken, false) => TestCaseStatus::non_success(NonSuccessKind::Error),
        (_, false) => TestCaseStatus::non_success(NonSuccessKind::Failure),
    };
    let note = describe::judged(result);
    let note = if note.is_empty() { note } else { format!(" ({note})") };
    status.set_message(one(&format!("{}: {}{note}", result.outcome, describe::sentence(result))));
    status.set_type(result.outcome.as_str());
    if !result.as_expected {
        let story = describe::story(&cell.environment, result, texts);
        let lines: Vec<_> = story.iter().map(|(label, value)| format!("{label:<8}{}", many(value))).collect();
        status.set_description(lines.join("\n"));
    }
    let mut case = TestCase::new(one(&result.id), status);
    // Several services tell cases apart by class and name alone, not by suite.
    case.set_classname(one(&cell.environment));
    case.set_time(Duration::from_micros(result.duration_us));
    case
}

fn error(cell: &Cell, name: &str, message: &str, text: &str) -> TestCase {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
    status.set_message(message).set_type(name).set_description(many(text));
    let mut case = TestCase::new(name, status);
    case.set_classname(one(&cell.environment));
    case
}

fn one(text: &str) -> String {
    clean::line(&clean::cut(text, CHARS)).into_owned()
}

fn many(text: &str) -> String {
    let text = clean::block(&clean::cut(text, CHARS)).into_owned();
    let lines: Vec<_> = text.lines().map(clean::no_command).collect();
    lines.join("\n")
}
