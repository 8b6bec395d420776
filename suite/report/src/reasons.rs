//! Why probes of a cell did not run or deviate, grouped: hundreds of results have a handful of reasons.

use crate::describe;
use shmcheck_protocol::{Cell, Result, Verdict};

/// Results of a cell that share their reason.
#[derive(Debug)]
pub(crate) struct Reason<'a> {
    pub(crate) outcome: Verdict,
    pub(crate) as_expected: bool,
    /// The results, in their order.
    pub(crate) results: Vec<&'a Result>,
}

impl Reason<'_> {
    /// The reason as a sentence: "need swap (no swap space)", "seccomp refuses shmget, shmat → EPERM".
    pub(crate) fn sentence(&self) -> String {
        let Some(first) = self.results.first() else { return String::new() };
        let detail = &first.detail;
        match self.outcome {
            Verdict::Blocked => {
                let errno = detail.errno.as_deref().unwrap_or("?");
                describe::refuses(detail.layer.as_deref(), &self.calls(), errno)
            }
            Verdict::Skip => describe::sentence(first),
            _ => "known deviation".to_owned(),
        }
    }

    /// The judgement on all of them; empty where there is nothing to say.
    pub(crate) fn note(&self) -> String {
        self.results.first().map(|first| describe::judged(first)).unwrap_or_default()
    }

    /// "12 skipped: need swap (no swap space)", "37 blocked: seccomp refuses shmget → EPERM (as declared)".
    pub(crate) fn line(&self) -> String {
        let (n, what) = (self.results.len(), describe::participle(self.outcome));
        match (self.outcome, self.note().as_str()) {
            (Verdict::Fail | Verdict::Broken, note) => format!("{n} {what} as known: {note}"),
            (_, "") => format!("{n} {what}: {}", self.sentence()),
            (_, note) => format!("{n} {what}: {} ({note})", self.sentence()),
        }
    }

    fn calls(&self) -> String {
        const SHOWN: usize = 6;
        let mut calls: Vec<&str> = Vec::new();
        for call in self.results.iter().map(|result| result.detail.call.as_deref().unwrap_or("?")) {
            if !calls.contains(&call) {
                calls.push(call);
            }
        }
        match calls.len().checked_sub(SHOWN).filter(|more| *more > 1) {
            Some(more) => format!("{} and {more} more calls", calls[..SHOWN].join(", ")),
            None => calls.join(", "),
        }
    }
}

/// The reasons of a cell's skips, blocks and known deviations, the most frequent first. Fails and breakages that
/// nobody expected are no reasons: each stands for itself.
pub(crate) fn reasons(cell: &Cell) -> Vec<Reason<'_>> {
    let mut reasons: Vec<Reason<'_>> = Vec::new();
    for result in &cell.results {
        match (result.outcome, result.as_expected) {
            (Verdict::Pass, _) | (Verdict::Fail | Verdict::Broken, false) => continue,
            _ => {}
        }
        match reasons.iter_mut().find(|reason| reason.results.first().is_some_and(|first| same(first, result))) {
            Some(reason) => reason.results.push(result),
            None => {
                reasons.push(Reason { outcome: result.outcome, as_expected: result.as_expected, results: vec![result] })
            }
        }
    }
    reasons.sort_by_key(|reason| (reason.as_expected, std::cmp::Reverse(reason.results.len())));
    reasons
}

/// Whether two results have the same reason: of refusals the calls may differ, of known deviations what was seen.
pub(crate) fn same(one: &Result, other: &Result) -> bool {
    let judgement = |result: &Result| (result.outcome, result.expected, result.as_expected);
    if judgement(one) != judgement(other) || one.because != other.because {
        return false;
    }
    let (a, b) = (&one.detail, &other.detail);
    match one.outcome {
        Verdict::Skip => (&a.need, &a.found) == (&b.need, &b.found),
        Verdict::Blocked => (&a.layer, &a.errno) == (&b.layer, &b.errno),
        Verdict::Fail | Verdict::Broken if one.as_expected => true,
        Verdict::Pass => one.id == other.id,
        Verdict::Fail | Verdict::Broken => one.id == other.id && a == b,
    }
}
