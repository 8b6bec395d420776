//! What is not as expected, all cells together: the same failure in four environments is told once.

use crate::clean;
use crate::describe;
use crate::reasons::same;
use crate::style::{Role, Style};
use crate::texts::{ProbeText, Texts};
use crate::units;
use crate::wrap::{INDENT, VALUE, WIDTH, command, ends, labelled, wrap};
use shmcheck_protocol::{Cell, Result, Verdict};
use std::collections::{HashMap, HashSet};
use textwrap::core::display_width;

/// Results that are not as expected for the same reason.
#[derive(Debug)]
pub(crate) struct Failure<'a> {
    /// Each result with its environment; never empty.
    pub(crate) seen: Vec<(&'a str, &'a Result)>,
}

/// All that is not as expected: fails and broken probes first, each in the catalogue's order.
pub(crate) fn failures(cells: &[Cell]) -> Vec<Failure<'_>> {
    let mut failures: Vec<Failure<'_>> = Vec::new();
    // Only results with the same hint can have the same reason: where all of thousands fail, all pairs are too many.
    let mut hints: HashMap<(Verdict, Option<&str>), Vec<usize>> = HashMap::new();
    for cell in cells {
        for result in cell.results.iter().filter(|result| !result.as_expected) {
            let place = (cell.environment.as_str(), result);
            let hint = match result.outcome {
                Verdict::Skip => result.detail.need.as_deref(),
                Verdict::Blocked => result.detail.errno.as_deref(),
                Verdict::Pass | Verdict::Fail | Verdict::Broken => Some(result.id.as_str()),
            };
            let alike = hints.entry((result.outcome, hint)).or_default();
            match alike.iter().find(|n| same(failures[**n].first().1, result)) {
                Some(n) => failures[*n].seen.push(place),
                None => {
                    alike.push(failures.len());
                    failures.push(Failure { seen: vec![place] });
                }
            }
        }
    }
    failures.sort_by_key(|failure| match failure.first().1.outcome {
        Verdict::Fail => 0,
        Verdict::Broken => 1,
        Verdict::Pass => 2,
        Verdict::Blocked => 3,
        Verdict::Skip => 4,
    });
    failures
}

impl<'a> Failure<'a> {
    pub(crate) fn first(&self) -> (&'a str, &'a Result) {
        self.seen[0]
    }

    /// The ids, each once.
    pub(crate) fn ids(&self) -> Vec<&'a str> {
        unique(self.seen.iter().map(|(_, result)| result.id.as_str()))
    }

    /// The environments, each once.
    pub(crate) fn places(&self) -> Vec<&'a str> {
        unique(self.seen.iter().map(|(place, _)| *place))
    }

    /// One line: the word, the probe, the place.
    pub(crate) fn headline(&self, style: Style) -> Vec<String> {
        let (word, what, place) = self.head(style);
        match ends(&format!("{word}  {what}   {place}"), "") {
            Some(line) => vec![line.trim_end().to_owned()],
            None => wrap(&format!("{word}  "), INDENT, &format!("{what}   {place}")),
        }
    }

    /// The whole entry.
    pub(crate) fn entry(&self, texts: &Texts, style: Style, all: bool) -> Vec<String> {
        let (first_place, first) = self.first();
        let (ids, places) = (self.ids(), self.places());
        let (word, what, place) = self.head(style);
        // What did not start took no time, and several results took different times.
        let timed = self.seen.len() == 1 && first.duration_us > 0;
        let time = if timed { units::micros(first.duration_us) } else { String::new() };
        let mut lines = Vec::new();
        let mut placed = places.len() == 1;
        if let Some(line) = ends(&format!("{word}  {what}   {place}"), &time) {
            lines.push(line.trim_end().to_owned());
        } else {
            placed = false;
            match ends(&format!("{word}  {what}"), &time) {
                Some(line) => lines.push(line.trim_end().to_owned()),
                None => lines.extend(wrap(&format!("{word}  "), INDENT, &what)),
            }
        }
        if !placed {
            lines.extend(labelled("in", &listed(&places, all)));
        }
        if ids.len() > 1 {
            lines.extend(labelled("probes", &listed(&ids, all)));
        }
        lines.extend(seen(first, ids.len() > 1));
        let judged = describe::judged(first);
        if !judged.is_empty() {
            lines.extend(labelled("judged", &safe(&judged)));
        }
        if let Some(text) = texts.get(&first.id).filter(|_| ids.len() == 1) {
            lines.extend(words(text));
        }
        lines.extend(command("again", &describe::again(&first.id, first_place)));
        lines
    }

    fn head(&self, style: Style) -> (String, String, String) {
        let word = self.first().1.outcome.as_str().to_uppercase();
        let what = match self.ids().as_slice() {
            [id] => clean::line(id).into_owned(),
            ids => units::count(ids.len(), "probe"),
        };
        let place = match self.places().as_slice() {
            [place] => clean::line(place).into_owned(),
            places => units::count(places.len(), "environment"),
        };
        (style.paint(Role::Bad, &word), style.paint(Role::Strong, &what), place)
    }
}

/// What was seen; of several probes that were refused, only what they have in common.
fn seen(result: &Result, several: bool) -> Vec<String> {
    if several {
        let what = match result.outcome {
            Verdict::Blocked => {
                let errno = result.detail.errno.as_deref().unwrap_or("?");
                describe::refuses(result.detail.layer.as_deref(), "their calls", errno)
            }
            _ => describe::sentence(result),
        };
        return labelled("reason", &safe(&what));
    }
    let parts = describe::seen(&result.detail);
    if let [("wanted", wanted), ("got", got), ..] = parts.as_slice() {
        let line = format!("{INDENT}wanted  {}      got  {}", clean::line(wanted), clean::line(got));
        if display_width(&line) <= WIDTH {
            let rest = parts[2..].iter().flat_map(|(label, value)| labelled(label, &safe(value)));
            return std::iter::once(line).chain(rest).collect();
        }
    }
    parts.iter().flat_map(|(label, value)| labelled(label, &safe(value))).collect()
}

/// What the catalogue says of the probe.
pub(crate) fn words(text: &ProbeText) -> Vec<String> {
    let words = text.words().into_iter().filter(|(_, value)| !value.is_empty());
    words.flat_map(|(label, value)| labelled(label, &safe(&value))).collect()
}

/// Names in a sentence, at most a handful of them unless all are wanted.
fn listed(names: &[&str], all: bool) -> String {
    const SHOWN: usize = 6;
    let safe = |names: &[&str]| names.iter().map(|name| clean::line(name)).collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(SHOWN).filter(|more| *more > 1 && !all) {
        Some(more) => format!("{} and {more} more", safe(&names[..SHOWN])),
        None => safe(names),
    }
}

/// A value from outside: visible, and not longer than a person reads.
pub(crate) fn safe(text: &str) -> String {
    const CHARS: usize = 1_200;
    const LINES: usize = 12;
    let cut = clean::cut(text, CHARS);
    let shown = clean::block(&cut);
    match shown.lines().count().checked_sub(LINES).filter(|more| *more > 1) {
        Some(more) => {
            let kept: Vec<_> = shown.lines().take(LINES).collect();
            format!("{}\n… ({more} more lines)", kept.join("\n"))
        }
        None => shown.into_owned(),
    }
}

fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut kept = Vec::new();
    let mut known = HashSet::new();
    kept.extend(names.filter(|name| known.insert(*name)));
    kept
}

const _: () = assert!(VALUE.len() == INDENT.len() + 8, "labels are padded to eight columns");
