//! Known deviations: what a kernel, a runtime or an engine is known to do otherwise, as data with its source.
//!
//! The files are those of `fixtures/deviations`, registered in [`FILES`]. A listed deviation is strict: one that no longer
//! occurs is not as expected, and a probe that fails in another way than listed is judged as if nothing were listed.

use crate::declared::{Declared, Maker};
use crate::version::{Range, Version};
use serde::Deserialize;
use shmcheck_probe::{Detail, Verdict};
use shmcheck_protocol::{Expected, Facts, Result as Judged};
use std::sync::OnceLock;

/// The files of deviations that are part of the program. A new file is a line here.
pub const FILES: &[(&str, &str)] = &[
    ("gvisor-map.toml", include_str!("../../../fixtures/deviations/gvisor-map.toml")),
    ("gvisor-posix.toml", include_str!("../../../fixtures/deviations/gvisor-posix.toml")),
    ("gvisor-sync.toml", include_str!("../../../fixtures/deviations/gvisor-sync.toml")),
    ("gvisor-sysv.toml", include_str!("../../../fixtures/deviations/gvisor-sysv.toml")),
];

/// Why a file of deviations cannot be used: file, line and problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub struct DeviationError {
    /// The file.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// What references that are no links are relative to.
    #[serde(default)]
    base: String,
    #[serde(default)]
    when: When,
    #[serde(default)]
    deviation: Vec<toml::Spanned<Cause>>,
    #[serde(default)]
    leftover: Vec<Leftover>,
}

/// A deviation with all that is seen of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cause {
    note: String,
    reference: String,
    #[serde(default)]
    when: When,
    seen: Vec<toml::Spanned<Seen>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    probes: Vec<String>,
    outcome: Verdict,
    #[serde(default)]
    call: Option<String>,
    #[serde(default)]
    got: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    sometimes: bool,
    #[serde(default)]
    when: When,
}

/// Something that a deviation leaves behind, as the cell's list of leftovers names it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leftover {
    /// The thing; `*` stands for any characters.
    pub name: String,
    /// Why it is left, as a fragment.
    pub note: String,
    /// Where it is written.
    pub reference: String,
    #[serde(default)]
    when: When,
}

/// What a file has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Deviations of probes.
    pub deviations: Vec<Deviation>,
    /// What they leave behind.
    pub leftovers: Vec<Leftover>,
}

/// Where a deviation occurs: every condition that is given has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct When {
    /// The kernel by the fact `kernel.implementation`: `linux`, `gvisor`.
    kernel: Option<String>,
    /// Range of the kernel's release.
    kernel_release: Option<Range>,
    engine: Option<String>,
    engine_version: Option<Range>,
    runtime: Option<String>,
    runtime_version: Option<Range>,
    /// The type of the file system on /dev/shm, as in the facts.
    shm_type: Option<String>,
}

/// One deviation: which probes see it, and what they see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deviation {
    /// Ids of probes; `*` stands for any characters.
    pub probes: Vec<String>,
    /// The outcome that is known.
    pub outcome: Verdict,
    /// The call that deviates; `*` as above.
    pub call: Option<String>,
    /// What is got, or the errno of a set-up that fails; `*` as above.
    pub got: Option<String>,
    /// The message of a broken record; `*` as above.
    pub message: Option<String>,
    /// Whether it occurs in some runs and not in others, so that a pass is as expected too.
    pub sometimes: bool,
    /// What the deviation is, as a fragment.
    pub note: String,
    /// Where it is written: the source or an issue.
    pub reference: String,
    when: When,
}

/// Reads a file of deviations.
pub fn parse(file: &str, text: &str) -> Result<Known, DeviationError> {
    let error = |start: usize, problem: String| DeviationError {
        file: file.to_owned(),
        line: crate::matrix::line_of(text, start),
        problem,
    };
    let read: File = toml::from_str(text)
        .map_err(|e| error(e.span().map_or(0, |span| span.start), e.message().trim().to_owned()))?;
    let mut known = Known { deviations: Vec::new(), leftovers: read.leftover };
    for cause in read.deviation {
        let start = cause.span().start;
        let cause = cause.into_inner();
        let reference = link(&read.base, &cause.reference).map_err(|problem| error(start, problem))?;
        let when = read.when.and(&cause.when);
        for seen in cause.seen {
            let start = seen.span().start;
            let seen = seen.into_inner();
            seen.check().map_err(|problem| error(start, problem.to_owned()))?;
            known.deviations.push(Deviation {
                probes: seen.probes,
                outcome: seen.outcome,
                call: seen.call,
                got: seen.got,
                message: seen.message,
                sometimes: seen.sometimes,
                note: cause.note.clone(),
                reference: reference.clone(),
                when: when.and(&seen.when),
            });
        }
    }
    for leftover in &mut known.leftovers {
        leftover.reference = link(&read.base, &leftover.reference).map_err(|problem| error(0, problem))?;
        leftover.when = read.when.and(&leftover.when);
    }
    Ok(known)
}

/// The whole link of a reference.
fn link(base: &str, reference: &str) -> Result<String, String> {
    let whole = if reference.starts_with("https://") { reference.to_owned() } else { format!("{base}{reference}") };
    if whole.starts_with("https://") && !reference.is_empty() {
        return Ok(whole);
    }
    Err(format!("the reference {reference:?} is no link; name the source or the issue that shows it, or give a base"))
}

impl Seen {
    /// `Err` says what would hide more than it describes.
    fn check(&self) -> Result<(), &'static str> {
        let says = |pattern: &Option<String>| pattern.as_ref().is_some_and(|pattern| pattern != "*");
        if self.probes.is_empty() {
            return Err("no probe is named; give probes = [\"…\"]");
        }
        if matches!(self.outcome, Verdict::Pass | Verdict::Skip) {
            return Err("a deviation is a fail, broken or blocked; a skip or pass needs no excuse");
        }
        if !(says(&self.got) || says(&self.message) || self.got.is_some() && says(&self.call)) {
            return Err("it would hide every failure of the probe; give message, or got, or call with got = \"*\"");
        }
        Ok(())
    }
}

/// All that the program's files have.
fn all() -> &'static Known {
    static ALL: OnceLock<Known> = OnceLock::new();
    // That every file can be read is a test; one that cannot would here make its deviations unexpected, not hide any.
    ALL.get_or_init(|| {
        let mut all = Known::default();
        for known in FILES.iter().filter_map(|(file, text)| parse(file, text).ok()) {
            all.deviations.extend(known.deviations);
            all.leftovers.extend(known.leftovers);
        }
        all
    })
}

/// The deviations that are known of one cell.
#[derive(Debug, Default)]
pub struct Here {
    deviations: Vec<(&'static Deviation, Applies)>,
    leftovers: Vec<&'static Leftover>,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Applies {
    No,
    /// The version that it asks for is not known.
    Perhaps,
    Yes,
}

impl Here {
    /// Those of the program's deviations whose conditions hold.
    pub fn of(declared: &Declared, facts: &Facts) -> Self {
        Self::among(all(), declared, facts)
    }

    /// Those of these whose conditions hold.
    pub fn among(known: &'static Known, declared: &Declared, facts: &Facts) -> Self {
        let deviations = known.deviations.iter().map(|it| (it, it.when.applies(declared, facts)));
        let leftovers = known.leftovers.iter().filter(|it| it.when.applies(declared, facts) != Applies::No);
        Self {
            deviations: deviations.filter(|(_, applies)| *applies != Applies::No).collect(),
            leftovers: leftovers.collect(),
        }
    }

    /// What is left behind beyond what is known to be.
    pub fn beyond(&self, mut left: Vec<String>) -> Vec<String> {
        left.retain(|thing| !self.leftovers.iter().any(|known| wild(&known.name, thing)));
        left
    }

    /// Judges a judged result anew where a deviation of its probe is known.
    pub fn weigh(&self, mut result: Judged) -> Judged {
        let mut of_probe = self
            .deviations
            .iter()
            .filter(|(deviation, _)| deviation.probes.iter().any(|probe| wild(probe, &result.id)));
        let Some(first) = of_probe.clone().next() else { return result };
        if let Some((deviation, _)) = of_probe.clone().find(|(deviation, _)| deviation.describes(&result)) {
            result.expected = Expected::Deviation;
            result.as_expected = true;
            result.because = format!("known deviation: {} ({})", deviation.note, deviation.reference);
        } else if result.outcome == Verdict::Pass {
            if let Some((deviation, _)) = of_probe.find(|(it, applies)| *applies == Applies::Yes && !it.sometimes) {
                result.expected = Expected::Deviation;
                result.as_expected = false;
                result.because =
                    format!("the known deviation no longer occurs: {} ({})", deviation.note, deviation.reference);
            }
        } else if matches!(result.outcome, Verdict::Fail | Verdict::Broken) {
            let but = format!("it is not the known deviation: {}", first.0.note);
            result.because = [std::mem::take(&mut result.because), but]
                .into_iter()
                .filter(|s| !s.is_empty())
                .collect::<Vec<_>>()
                .join("; ");
        }
        result
    }
}

impl Deviation {
    /// Whether this is what was seen.
    fn describes(&self, result: &Judged) -> bool {
        let Detail { call, got, errno, message, .. } = &result.detail;
        let like = |wanted: &Option<String>, seen: &[&Option<String>]| {
            wanted.as_ref().is_none_or(|pattern| seen.iter().copied().flatten().any(|text| wild(pattern, text)))
        };
        result.outcome == self.outcome
            && like(&self.call, &[call])
            && like(&self.got, &[got, errno])
            && like(&self.message, &[message])
    }
}

impl When {
    /// The conditions of a file and of one of its entries together; the entry's come first.
    fn and(&self, own: &Self) -> Self {
        Self {
            kernel: own.kernel.clone().or_else(|| self.kernel.clone()),
            kernel_release: own.kernel_release.clone().or_else(|| self.kernel_release.clone()),
            engine: own.engine.clone().or_else(|| self.engine.clone()),
            engine_version: own.engine_version.clone().or_else(|| self.engine_version.clone()),
            runtime: own.runtime.clone().or_else(|| self.runtime.clone()),
            runtime_version: own.runtime_version.clone().or_else(|| self.runtime_version.clone()),
            shm_type: own.shm_type.clone().or_else(|| self.shm_type.clone()),
        }
    }

    fn applies(&self, declared: &Declared, facts: &Facts) -> Applies {
        let is = |wanted: &Option<String>, found: Option<&str>| match wanted {
            Some(wanted) if found != Some(wanted) => Applies::No,
            _ => Applies::Yes,
        };
        let within = |range: &Option<Range>, version: Option<&str>| match (range, version.and_then(Version::parse)) {
            (None, _) => Applies::Yes,
            (Some(_), None) => Applies::Perhaps,
            (Some(range), Some(version)) if range.contains(&version) => Applies::Yes,
            (Some(_), Some(_)) => Applies::No,
        };
        // A runtime may be given by its path.
        let name =
            |of: &Option<Maker>| of.as_ref().map(|maker| maker.name.rsplit('/').next().unwrap_or_default().to_owned());
        let version = |of: &Option<Maker>| of.as_ref().map(|maker| maker.version.clone());
        [
            is(&self.kernel, Some(&facts.kernel.implementation)),
            is(&self.engine, name(&declared.engine).as_deref()),
            is(&self.runtime, name(&declared.runtime).as_deref()),
            is(&self.shm_type, Some(&facts.cell.dev_shm.fs_type)),
            within(&self.kernel_release, Some(&facts.kernel.release)),
            within(&self.engine_version, version(&declared.engine).as_deref()),
            within(&self.runtime_version, version(&declared.runtime).as_deref()),
        ]
        .into_iter()
        .min()
        .unwrap_or(Applies::Yes)
    }
}

/// Whether `text` is what the pattern says: `*` stands for any characters, also none, everything else for itself.
fn wild(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(place) => rest = &rest[place + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}
