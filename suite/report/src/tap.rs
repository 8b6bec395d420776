//! TAP version 14: a subtest per environment, with YAML diagnostics for all that is not as expected.
//!
//! A skip, and a block that was declared, is `# SKIP`; a known deviation is `# TODO`, which is what TAP has for a test
//! that is expected to fail.

use crate::clean;
use crate::describe;
use crate::texts::Texts;
use shmcheck_protocol::{Cell, Report, Result, Verdict};
use std::io::{self, Write};

/// How much of a text is shown.
const CHARS: usize = 4_000;

/// Writes the report as TAP.
pub fn write(report: &Report, texts: &Texts, mut out: impl Write) -> io::Result<()> {
    writeln!(out, "TAP version 14")?;
    writeln!(out, "1..{}", report.cells.len())?;
    for (n, cell) in report.cells.iter().enumerate() {
        self::cell(n + 1, cell, texts, &mut out)?;
    }
    if report.interrupted {
        writeln!(out, "Bail out! The run was interrupted")?;
    }
    out.flush()
}

fn cell(n: usize, cell: &Cell, texts: &Texts, out: &mut impl Write) -> io::Result<()> {
    let name = escape(&cell.environment);
    if let Some(missing) = &cell.missing {
        writeln!(out, "not ok {n} - {name}")?;
        return diagnostics("", &[("missing", missing.clone())], out);
    }
    if cell.results.is_empty() && cell.leftovers.is_empty() {
        return writeln!(out, "ok {n} - {name} # SKIP nothing ran");
    }
    writeln!(out, "# Subtest: {name}")?;
    writeln!(out, "    1..{}", cell.results.len())?;
    for (n, result) in cell.results.iter().enumerate() {
        self::result(n + 1, cell, result, texts, out)?;
    }
    let bad = describe::unexpected(cell);
    if bad == 0 && cell.leftovers.is_empty() {
        return writeln!(out, "ok {n} - {name}");
    }
    writeln!(out, "not ok {n} - {name}")?;
    let mut parts = Vec::new();
    if bad > 0 {
        parts.push(("message", format!("{bad} of {} not as expected", cell.results.len())));
    }
    if !cell.leftovers.is_empty() {
        parts.push(("leftovers", cell.leftovers.join("\n")));
    }
    diagnostics("", &parts, out)
}

fn result(n: usize, cell: &Cell, result: &Result, texts: &Texts, out: &mut impl Write) -> io::Result<()> {
    let id = escape(&result.id);
    let reason = || escape(&describe::sentence(result));
    match (result.outcome, result.as_expected) {
        (Verdict::Pass, true) => writeln!(out, "    ok {n} - {id}"),
        (Verdict::Skip, true) => writeln!(out, "    ok {n} - {id} # SKIP {}", reason()),
        (Verdict::Blocked, true) => writeln!(out, "    ok {n} - {id} # SKIP blocked: {}", reason()),
        (Verdict::Fail | Verdict::Broken, true) => {
            writeln!(out, "    not ok {n} - {id} # TODO {}", escape(&describe::judged(result)))
        }
        (outcome, false) => {
            writeln!(out, "    not ok {n} - {id}")?;
            let mut parts = vec![("outcome", outcome.to_string())];
            parts.extend(describe::story(&cell.environment, result, texts));
            diagnostics("    ", &parts, out)
        }
    }
}

/// A YAML block. JSON strings are YAML's double-quoted strings, and they never leave their line.
fn diagnostics(indent: &str, parts: &[(&str, String)], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{indent}  ---")?;
    for (label, value) in parts {
        let value = clean::block(&clean::cut(value, CHARS)).into_owned();
        writeln!(out, "{indent}  {label}: {}", clean::no_command(&serde_json::Value::String(value).to_string()))?;
    }
    writeln!(out, "{indent}  ...")
}

/// A description or a reason: one line, in which `#` begins no directive.
fn escape(text: &str) -> String {
    let line = clean::line(&clean::cut(text, CHARS)).into_owned();
    clean::no_command(&line).replace('\\', r"\\").replace('#', r"\#")
}
