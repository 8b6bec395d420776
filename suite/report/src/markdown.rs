//! Markdown for the summary of a CI job: the cells in a table, what is not as expected, why something did not run.
//!
//! Text from outside stands in code spans, in which Markdown knows no links, images, mentions or HTML.

use crate::clean;
use crate::describe::{self, VERDICTS};
use crate::exit;
use crate::failures::{Failure, failures};
use crate::keyfacts;
use crate::reasons::reasons;
use crate::texts::Texts;
use crate::units;
use shmcheck_protocol::{Cell, Report};
use std::fmt::{self, Write as _};
use std::io::{self, Write};

/// CI services cut summaries at a mebibyte: so many entries, each of bounded length, stay well below.
const ENTRIES: usize = 100;
const CHARS: usize = 600;

/// Writes the report as GitHub-flavoured Markdown.
pub fn write(report: &Report, texts: &Texts, mut out: impl Write) -> io::Result<()> {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = page(report, texts, &mut text);
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn page(report: &Report, texts: &Texts, out: &mut String) -> fmt::Result {
    let summary = &report.summary;
    let verdict = match summary.unexpected {
        0 if report.exit_code == exit::OK => "all as expected".to_owned(),
        0 => exit::meaning(report.exit_code).to_owned(),
        n => format!("{} not as expected", units::count(n, "result")),
    };
    writeln!(out, "## shmcheck: {verdict}\n")?;
    let (probes, cells) = (units::count(summary.probes, "probe"), units::count(summary.cells, "environment"));
    writeln!(out, "{probes} in {cells} on {}, {}.", code(&report.host), escape(&report.started))?;
    writeln!(out, "Exit code {}: {}.\n", report.exit_code, exit::meaning(report.exit_code))?;
    if report.interrupted {
        writeln!(out, "**The run was interrupted: what is not listed did not run.**\n")?;
    }
    table(report, out)?;
    let failures = failures(&report.cells);
    if !failures.is_empty() {
        writeln!(out, "\n### Not as expected\n")?;
        for failure in failures.iter().take(ENTRIES) {
            entry(failure, texts, out)?;
        }
        if let Some(more) = failures.len().checked_sub(ENTRIES).filter(|more| *more > 0) {
            writeln!(out, "…and {more} more.")?;
        }
    }
    let told: Vec<_> = report.cells.iter().filter(|cell| cell.facts.is_some() || cell.missing.is_some()).collect();
    if !told.is_empty() {
        writeln!(out, "\n### Environments\n")?;
        for cell in told {
            about(cell, out)?;
        }
    }
    Ok(())
}

fn table(report: &Report, out: &mut String) -> fmt::Result {
    writeln!(out, "| environment | verdict | pass | fail | skip | blocked | broken | unexpected | time |")?;
    writeln!(out, "|---|---|--:|--:|--:|--:|--:|--:|--:|")?;
    for cell in &report.cells {
        write!(out, "| {} | {} |", html(&cell.environment), word(cell))?;
        for verdict in VERDICTS {
            write!(out, " {} |", cell.results.iter().filter(|result| result.outcome == verdict).count())?;
        }
        writeln!(out, " {} | {} |", describe::unexpected(cell), units::millis(cell.wall_ms))?;
    }
    Ok(())
}

fn word(cell: &Cell) -> &'static str {
    match (&cell.missing, describe::unexpected(cell), cell.leftovers.len(), cell.results.len()) {
        (Some(_), ..) => "⚠ missing",
        (None, 1.., ..) => "✗ fail",
        (None, 0, 1.., _) => "✗ leftovers",
        (None, 0, 0, 0) => "⚠ nothing ran",
        (None, 0, 0, 1..) => "✓ ok",
    }
}

fn entry(failure: &Failure<'_>, texts: &Texts, out: &mut String) -> fmt::Result {
    let (place, result) = failure.first();
    let (ids, places) = (failure.ids(), failure.places());
    let what = match ids.as_slice() {
        [id] => code(id),
        ids => units::count(ids.len(), "probe"),
    };
    writeln!(out, "#### {} {what}\n", result.outcome.as_str().to_uppercase())?;
    writeln!(out, "- **in** {}", listed(&places))?;
    if ids.len() > 1 {
        writeln!(out, "- **probes** {}", listed(&ids))?;
    }
    for (label, value) in describe::seen(&result.detail) {
        writeln!(out, "- **{label}** {}", code(&value))?;
    }
    let judged = describe::judged(result);
    if !judged.is_empty() {
        writeln!(out, "- **judged** {}", code(&judged))?;
    }
    if let Some(text) = texts.get(&result.id).filter(|_| ids.len() == 1) {
        for (label, value) in text.words().iter().filter(|(_, value)| !value.is_empty()) {
            writeln!(out, "- **{label}** {}", escape(value))?;
        }
    }
    let again = describe::again(&result.id, place).map(crate::wrap::quote);
    writeln!(out, "- **again** {}\n", code(&again.join(" ")))
}

fn about(cell: &Cell, out: &mut String) -> fmt::Result {
    let counts = if cell.missing.is_some() { "could not start".to_owned() } else { describe::counts(cell) };
    writeln!(out, "<details><summary>{}: {counts}</summary>\n", html(&cell.environment))?;
    if let Some(missing) = &cell.missing {
        writeln!(out, "- {}", code(missing))?;
    }
    if let Some(facts) = &cell.facts {
        writeln!(out, "- {}", code(&keyfacts::sentence(facts)))?;
    }
    for reason in reasons(cell) {
        writeln!(out, "- {}", code(&reason.line()))?;
    }
    for leftover in &cell.leftovers {
        writeln!(out, "- left behind: {}", code(leftover))?;
    }
    writeln!(out, "\n</details>\n")
}

fn listed(names: &[&str]) -> String {
    const SHOWN: usize = 12;
    let shown: Vec<_> = names.iter().take(SHOWN).map(|name| code(name)).collect();
    match names.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        Some(more) => format!("{} and {more} more", shown.join(", ")),
        None => shown.join(", "),
    }
}

/// A code span: fenced by more backticks than the text has in a row.
fn code(text: &str) -> String {
    let text = clean::cut(text, CHARS);
    let text = clean::line(text.trim());
    let text = clean::no_command(&text);
    if text.is_empty() {
        return "(empty)".to_owned();
    }
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(longest + 1);
    if longest == 0 { format!("{fence}{text}{fence}") } else { format!("{fence} {text} {fence}") }
}

/// Code in a table or in HTML, where a pipe or a backtick ends something: everything that means anything is a
/// character reference.
fn html(text: &str) -> String {
    let mut shown = String::from("<code>");
    for c in clean::line(&clean::cut(text, CHARS)).chars() {
        if c.is_ascii_punctuation() && !".,:=-".contains(c) {
            let _ = write!(shown, "&#{};", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    shown + "</code>"
}

/// Words of the catalogue as text.
fn escape(text: &str) -> String {
    let mut shown = String::new();
    for c in clean::line(text).chars() {
        if "\\`*_{}[]<>#|~@&!$".contains(c) {
            shown.push('\\');
        }
        shown.push(c);
    }
    shown
}
