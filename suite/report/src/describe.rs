//! A result in words: the pieces that every format lays out in its own way. Nothing here is made safe to show; each
//! format does that for itself.

use crate::texts::Texts;
use crate::wrap::quote;
use shmcheck_protocol::{Cell, Detail, Expected, Result, Verdict};

/// What was seen, as labels of at most seven characters with their values.
pub(crate) fn seen(detail: &Detail) -> Vec<(&'static str, String)> {
    let mut parts = Vec::new();
    let set = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    let call = set(&detail.call);
    let claim = set(&detail.wanted);
    let claimed = claim.is_some();
    if let Some(wanted) = claim {
        parts.push(("wanted", call.as_ref().map_or(wanted.clone(), |call| format!("{call} → {wanted}"))));
    }
    parts.extend(set(&detail.got).map(|got| ("got", got)));
    parts.extend(set(&detail.need).map(|need| ("need", need)));
    parts.extend(set(&detail.found).map(|found| ("found", found)));
    if claimed {
        parts.extend(set(&detail.errno).map(|errno| ("errno", errno)));
        parts.extend(set(&detail.layer).map(|layer| ("layer", layer)));
    } else {
        match (set(&detail.layer), refused(detail)) {
            (Some(layer), Some(refused)) => parts.push(("refused", format!("{refused}, by {layer}"))),
            (None, Some(refused)) => parts.push(("call", refused)),
            (Some(layer), None) => parts.push(("layer", layer)),
            (None, None) => {}
        }
    }
    parts.extend(set(&detail.message).map(|message| ("message", message)));
    parts
}

fn refused(detail: &Detail) -> Option<String> {
    match (&detail.call, &detail.errno) {
        (Some(call), Some(errno)) => Some(format!("{call} → {errno}")),
        (Some(one), None) | (None, Some(one)) => Some(one.clone()),
        (None, None) => None,
    }
}

/// The outcome in one sentence; empty for a pass as expected.
pub(crate) fn sentence(result: &Result) -> String {
    let detail = &result.detail;
    let word = |value: &Option<String>| value.as_deref().filter(|text| !text.is_empty()).unwrap_or("?").to_owned();
    match result.outcome {
        Verdict::Pass if result.as_expected => String::new(),
        Verdict::Pass => "passes".to_owned(),
        Verdict::Fail => {
            let call = detail.call.as_ref().map(|call| format!("{call}: ")).unwrap_or_default();
            format!("{call}wanted {}, got {}", word(&detail.wanted), word(&detail.got))
        }
        Verdict::Skip => unmet(&word(&detail.need), detail.found.as_deref()),
        Verdict::Blocked => refuses(detail.layer.as_deref(), &word(&detail.call), &word(&detail.errno)),
        Verdict::Broken => match (&detail.message, refused(detail)) {
            (Some(message), _) => message.clone(),
            (None, Some(refused)) => refused,
            (None, None) => "no message".to_owned(),
        },
    }
}

/// The outcome in as few words as it takes, for a line that has little room.
pub(crate) fn short(result: &Result) -> String {
    match (&result.detail.wanted, &result.detail.got) {
        (Some(wanted), Some(got)) if result.outcome == Verdict::Fail => format!("wanted {wanted}, got {got}"),
        _ if result.outcome == Verdict::Pass && !result.as_expected => wanted(result.expected).to_owned(),
        _ => sentence(result),
    }
}

fn wanted(expected: Expected) -> &'static str {
    match expected {
        Expected::Pass => "a pass was not expected",
        Expected::Blocked => "a refusal was expected",
        Expected::Deviation => "a known deviation was expected",
    }
}

/// Why a probe was skipped.
pub(crate) fn unmet(need: &str, found: Option<&str>) -> String {
    match found.filter(|found| !found.is_empty()) {
        Some(found) => format!("need {need} ({found})"),
        None => format!("need {need}"),
    }
}

/// Which policy refused what.
pub(crate) fn refuses(layer: Option<&str>, calls: &str, errno: &str) -> String {
    match layer.filter(|layer| !layer.is_empty() && *layer != "unknown") {
        Some(layer) => format!("{layer} refuses {calls} → {errno}"),
        None => format!("an unknown layer refuses {calls} → {errno}"),
    }
}

/// Why the judgement is what it is; empty where the outcome says it all.
pub(crate) fn judged(result: &Result) -> String {
    let expected = match (result.as_expected, result.expected) {
        (true, Expected::Pass) => "",
        (true, Expected::Blocked) => "as declared",
        (true, Expected::Deviation) if !result.because.is_empty() => "",
        (true, Expected::Deviation) => "a known deviation",
        (false, Expected::Pass) if matches!(result.outcome, Verdict::Fail | Verdict::Broken) => "",
        (false, Expected::Pass) => "not expected",
        (false, expected) => wanted(expected),
    };
    match (expected, result.because.as_str()) {
        ("", because) => because.to_owned(),
        (expected, "") => expected.to_owned(),
        (expected, because) => format!("{expected}: {because}"),
    }
}

/// All that is known of a result, as labels with their values: what was seen, the judgement, the probe's own words and
/// the command that reproduces it.
pub(crate) fn story(environment: &str, result: &Result, texts: &Texts) -> Vec<(&'static str, String)> {
    let mut parts = seen(&result.detail);
    parts.push(("judged", judged(result)));
    if let Some(text) = texts.get(&result.id) {
        parts.extend(text.words());
    }
    if !result.as_expected {
        let words = again(&result.id, environment).map(quote);
        parts.push(("again", words.join(" ")));
    }
    parts.retain(|(_, value)| !value.is_empty());
    parts
}

/// The arguments that run a probe again in an environment.
pub(crate) fn again<'a>(id: &'a str, environment: &'a str) -> [&'a str; 5] {
    ["shmcheck", "run", id, "--on", environment]
}

/// The counts of a cell by outcome, those that are not zero: "300 pass, 12 skip".
pub(crate) fn counts(cell: &Cell) -> String {
    let words: Vec<_> = VERDICTS
        .iter()
        .map(|verdict| (cell.results.iter().filter(|result| result.outcome == *verdict).count(), verdict))
        .filter(|(n, _)| *n > 0)
        .map(|(n, verdict)| format!("{n} {verdict}"))
        .collect();
    if words.is_empty() { "no results".to_owned() } else { words.join(", ") }
}

/// The five outcomes in the order in which they are counted.
pub(crate) const VERDICTS: [Verdict; 5] =
    [Verdict::Pass, Verdict::Fail, Verdict::Skip, Verdict::Blocked, Verdict::Broken];

/// How many of a cell's results are not as expected.
pub(crate) fn unexpected(cell: &Cell) -> usize {
    cell.results.iter().filter(|result| !result.as_expected).count()
}

/// The past participle for a count of an outcome: "12 skipped".
pub(crate) fn participle(outcome: Verdict) -> &'static str {
    match outcome {
        Verdict::Pass => "passed",
        Verdict::Fail => "failed",
        Verdict::Skip => "skipped",
        Verdict::Blocked => "blocked",
        Verdict::Broken => "broken",
    }
}
