//! What a person sees on a terminal: each cell when it is complete, and at the end all that went wrong.

use crate::clean;
use crate::describe;
use crate::exit;
use crate::failures::{failures, safe};
use crate::keyfacts;
use crate::reasons::reasons;
use crate::style::{Role, Style, role};
use crate::texts::Texts;
use crate::units;
use crate::wrap::{INDENT, WIDTH, body, ends, shorten, wrap};
use shmcheck_protocol::{Cell, Report, Result, Summary, Verdict};
use std::io::{self, Write};

/// How much a cell shows at once, and how many entries the end explains.
const LINES_PER_CELL: usize = 12;
/// How many unexpected skips or blocks of one reason have a line each.
const FEW: usize = 3;
const REASONS_PER_CELL: usize = 10;
const ENTRIES: usize = 24;
/// How many further entries have a line at the end.
const HEADLINES: usize = 120;

/// Writes a run for people, within 80 columns.
#[derive(Debug)]
pub struct Human<W> {
    out: W,
    style: Style,
    texts: Texts,
    verbose: bool,
}

impl<W: Write> Human<W> {
    /// A run on `out`. With `verbose` every result is printed and nothing is left out of a list.
    pub fn new(out: W, style: Style, texts: Texts, verbose: bool) -> Self {
        Self { out, style, texts, verbose }
    }

    /// A cell that is complete. Cells may come in any order.
    pub fn cell(&mut self, cell: &Cell) -> io::Result<()> {
        let mut lines = self.heading(cell);
        if let Some(missing) = &cell.missing {
            lines.extend(body(&safe(missing)));
        }
        if let Some(facts) = &cell.facts {
            let facts = clean::cut(&keyfacts::sentence(facts), 400).into_owned();
            lines.extend(body(&clean::line(&facts)).iter().map(|line| self.style.paint(Role::Dim, line)));
        }
        let shown = if self.verbose { cell.leftovers.len() } else { LINES_PER_CELL };
        for leftover in cell.leftovers.iter().take(shown) {
            lines.extend(wrap(INDENT, "        ", &format!("left behind: {}", safe(leftover))));
        }
        if let Some(more) = cell.leftovers.len().checked_sub(shown).filter(|more| *more > 0) {
            lines.extend(body(&format!("and {more} more left behind")));
        }
        self.reason_lines(cell, &mut lines);
        lines.push(String::new());
        self.write(&lines)
    }

    /// The end of the run: all that is not as expected once more and in full, then the numbers and what the exit code
    /// means. `reasons` are those of [`exit::ending`]; they may be empty.
    pub fn finish(&mut self, report: &Report, reasons: &[String]) -> io::Result<()> {
        let failures = failures(&report.cells);
        let shown = if self.verbose { failures.len() } else { ENTRIES };
        let mut lines = Vec::new();
        for failure in failures.iter().take(shown) {
            lines.extend(failure.entry(&self.texts, self.style, self.verbose));
            lines.push(String::new());
        }
        let rest = failures.get(shown..).unwrap_or_default();
        lines.extend(rest.iter().take(HEADLINES).flat_map(|failure| failure.headline(self.style)));
        if !rest.is_empty() {
            let untold = match rest.len().saturating_sub(HEADLINES) {
                0 => String::new(),
                n => format!(" and {n} left out"),
            };
            let told = rest.len().min(HEADLINES);
            lines.extend(body(&format!("({told} in short{untold}: --verbose or a report file has them all)")));
            lines.push(String::new());
        }
        for cell in &report.cells {
            let name = clean::line(&cell.environment);
            if let Some(missing) = &cell.missing {
                let first = format!("{}  ", self.style.paint(Role::Bad, "MISSING"));
                let reason = clean::cut(missing, 300);
                lines.extend(wrap(&first, INDENT, &format!("{name}: {}", clean::line(&reason))));
            }
            if !cell.leftovers.is_empty() {
                let first = format!("{}  ", self.style.paint(Role::Bad, "LEFT"));
                let what = units::count(cell.leftovers.len(), "object");
                lines.extend(wrap(&first, INDENT, &format!("{name}: {what} left behind; see `shmcheck clean`")));
            }
        }
        if lines.last().is_some_and(|line| !line.is_empty()) {
            lines.push(String::new());
        }
        lines.extend(self.totals(report, reasons));
        self.write(&lines)?;
        self.out.flush()
    }

    /// The writer.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn heading(&self, cell: &Cell) -> Vec<String> {
        let bad = describe::unexpected(cell);
        let all = cell.results.len();
        let (word, role, said) = if cell.missing.is_some() {
            ("MISSING", Role::Bad, "could not start".to_owned())
        } else if bad > 0 {
            ("FAIL", Role::Bad, format!("{bad} of {all} not as expected"))
        } else if !cell.leftovers.is_empty() {
            ("BROKEN", Role::Bad, "left something behind".to_owned())
        } else if all == 0 {
            ("EMPTY", Role::Odd, "nothing ran".to_owned())
        } else {
            ("ok", Role::Good, describe::counts(cell))
        };
        let left = format!(
            "{}{:pad$}",
            self.style.paint(role, word),
            "",
            pad = INDENT.len().saturating_sub(word.len()).max(2)
        );
        let time = units::millis(cell.wall_ms);
        let name = clean::line(&cell.environment);
        let painted = self.style.paint(Role::Strong, &name);
        let right = format!("{said}{time:>10}");
        let mut lines = match ends(&format!("{left}{painted}"), &right) {
            Some(line) => vec![line],
            None => {
                let mut lines = wrap(&left, INDENT, &name);
                lines.extend(ends(INDENT, &right));
                lines
            }
        };
        if bad > 0 {
            lines.extend(body(&describe::counts(cell)));
        }
        lines
    }

    /// What hundreds of results have in common, and the unexpected ones that have nothing in common.
    fn reason_lines(&self, cell: &Cell, lines: &mut Vec<String>) {
        let (reasons, single): (Vec<_>, Vec<_>) =
            reasons(cell).into_iter().partition(|reason| reason.as_expected || reason.results.len() > FEW);
        let shown = if self.verbose { reasons.len() } else { REASONS_PER_CELL };
        for reason in reasons.iter().take(shown) {
            let text = wrap(INDENT, "        ", &clean::cut(&clean::line(&reason.line()), 320));
            let role = if reason.as_expected { None } else { Some(Role::Bad) };
            lines.extend(text.into_iter().map(|line| role.map_or(line.clone(), |role| self.style.paint(role, &line))));
        }
        if let Some(rest) = reasons.get(shown..).filter(|rest| !rest.is_empty()) {
            let results = rest.iter().map(|reason| reason.results.len()).sum();
            let (reasons, results) = (units::count(rest.len(), "more reason"), units::count(results, "result"));
            lines.extend(body(&format!("{reasons} for {results}: --verbose shows them")));
        }
        if self.verbose {
            lines.extend(cell.results.iter().flat_map(|result| self.result(result)));
            return;
        }
        let grouped = |result: &Result| matches!(result.outcome, Verdict::Skip | Verdict::Blocked);
        let bad: Vec<_> = cell.results.iter().filter(|result| !result.as_expected && !grouped(result)).collect();
        let bad: Vec<_> = bad.into_iter().chain(single.into_iter().flat_map(|reason| reason.results)).collect();
        // One line more is better than a line that says that there is one line more.
        let shown = if bad.len() == LINES_PER_CELL + 1 { bad.len() } else { LINES_PER_CELL };
        lines.extend(bad.iter().take(shown).flat_map(|result| self.result(result)));
        if let Some(more) = bad.len().checked_sub(shown).filter(|more| *more > 0) {
            lines.extend(body(&format!("and {more} more; the end of the run tells of all")));
        }
    }

    /// One result in a line: the word, the id, the time or what was seen.
    fn result(&self, result: &Result) -> Vec<String> {
        let word = if result.as_expected {
            result.outcome.as_str().to_owned()
        } else {
            result.outcome.as_str().to_uppercase()
        };
        let pad = 8_usize.saturating_sub(word.len());
        let word = self.style.paint(role(result.outcome, result.as_expected), &word);
        let left = format!("{INDENT}{word}{:pad$}{}", "", clean::line(&result.id));
        let sentence = describe::short(result);
        let time = units::micros(result.duration_us);
        let right = if sentence.is_empty() { time } else { String::new() };
        let Some(line) = ends(&left, &right) else {
            return wrap(&left[..left.len() - clean::line(&result.id).len()], INDENT, &clean::line(&result.id));
        };
        if sentence.is_empty() {
            return vec![line];
        }
        let used = textwrap::core::display_width(&left) + 2;
        let said = clean::line(clean::cut(&sentence, WIDTH).trim_end()).into_owned();
        match WIDTH.checked_sub(used).filter(|room| *room >= 24) {
            Some(room) => vec![format!("{left}  {}", self.style.paint(Role::Dim, &shorten(&said, room)))],
            None => vec![left],
        }
    }

    fn totals(&self, report: &Report, reasons: &[String]) -> Vec<String> {
        let Summary { probes, cells, pass, fail, skip, blocked, broken, unexpected } = report.summary;
        let role = if report.exit_code == exit::OK { Role::Good } else { Role::Bad };
        let verdict =
            if unexpected == 0 { "all as expected".to_owned() } else { format!("{unexpected} NOT AS EXPECTED") };
        let counts: Vec<_> = [(pass, "pass"), (fail, "fail"), (skip, "skip"), (blocked, "blocked"), (broken, "broken")]
            .into_iter()
            .filter(|(n, word)| *n > 0 || *word == "pass")
            .map(|(n, word)| format!("{n} {word}"))
            .collect();
        let (cells, probes) = (units::count(cells, "cell"), units::count(probes, "probe"));
        let mut lines = wrap("", INDENT, &format!("{cells}, {probes}: {}; {verdict}", counts.join(", ")));
        if report.interrupted {
            lines.extend(wrap("", INDENT, "The run was interrupted: what is not listed did not run."));
        }
        let code = format!("exit {}: {}", report.exit_code, exit::meaning(report.exit_code));
        lines.extend(wrap("", INDENT, &code).iter().map(|line| self.style.paint(role, line)));
        for reason in reasons {
            lines.extend(wrap("      - ", "        ", &safe(reason)));
        }
        lines
    }

    fn write(&mut self, lines: &[String]) -> io::Result<()> {
        // One write per cell: what two cells say is never mixed, and a closed pipe is an error, not a panic.
        self.out.write_all(clean::printed(lines).as_bytes())
    }
}

/// The words of a probe within 80 columns, for `explain`: claim, why, varies, fix.
pub fn explain(text: &crate::texts::ProbeText) -> String {
    clean::printed(&crate::failures::words(text))
}
