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
pub const FILES: &[(&str, &str)] = &[("gvisor.toml", include_str!("../../../fixtures/deviations/gvisor.toml"))];

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
    #[serde(default)]
    when: When,
    #[serde(default)]
    deviation: Vec<toml::Spanned<Deviation>>,
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
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deviation {
    /// Ids of probes; `*` stands for any characters.
    pub probes: Vec<String>,
    /// The outcome that is known.
    pub outcome: Verdict,
    /// The call that deviates; `*` as above.
    #[serde(default)]
    pub call: Option<String>,
    /// What is got, or the errno of a set-up that fails; `*` as above.
    #[serde(default)]
    pub got: Option<String>,
    /// The message of a broken record; `*` as above.
    #[serde(default)]
    pub message: Option<String>,
    /// What the deviation is, as a fragment.
    pub note: String,
    /// Where it is written: a line of source or an issue.
    pub reference: String,
    #[serde(default)]
    when: When,
}

/// Reads a file of deviations.
pub fn parse(file: &str, text: &str) -> Result<Vec<Deviation>, DeviationError> {
    let error = |start: usize, problem: String| DeviationError {
        file: file.to_owned(),
        line: crate::matrix::line_of(text, start),
        problem,
    };
    let read: File = toml::from_str(text)
        .map_err(|e| error(e.span().map_or(0, |span| span.start), e.message().trim().to_owned()))?;
    let mut list = Vec::new();
    for spanned in read.deviation {
        let start = spanned.span().start;
        let mut deviation = spanned.into_inner();
        if deviation.probes.is_empty() {
            return Err(error(start, "no probe is named; give probes = [\"…\"]".to_owned()));
        }
        if matches!(deviation.outcome, Verdict::Pass | Verdict::Skip) {
            let problem = "a deviation is a fail, broken or blocked; a skip or pass needs no excuse";
            return Err(error(start, problem.to_owned()));
        }
        if deviation.got.is_none() && deviation.message.is_none() {
            let problem = "without got or message it would hide every failure of the probe; give what is seen";
            return Err(error(start, problem.to_owned()));
        }
        if !deviation.reference.starts_with("https://") {
            let problem = "the reference is no link; give the line of source or the issue that shows it";
            return Err(error(start, problem.to_owned()));
        }
        deviation.when = read.when.and(&deviation.when);
        list.push(deviation);
    }
    Ok(list)
}

/// All deviations that are part of the program.
fn all() -> &'static [Deviation] {
    static ALL: OnceLock<Vec<Deviation>> = OnceLock::new();
    // That every file can be read is a test; one that cannot would here make its deviations unexpected, not hide any.
    ALL.get_or_init(|| FILES.iter().flat_map(|(file, text)| parse(file, text).unwrap_or_default()).collect())
}

/// The deviations that are known of one cell.
#[derive(Debug, Default)]
pub struct Here(Vec<(&'static Deviation, Applies)>);

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

    /// Those of these deviations whose conditions hold.
    pub fn among(list: &'static [Deviation], declared: &Declared, facts: &Facts) -> Self {
        let weighed = list.iter().map(|deviation| (deviation, deviation.when.applies(declared, facts)));
        Self(weighed.filter(|(_, applies)| *applies != Applies::No).collect())
    }

    /// Judges a judged result anew where a deviation of its probe is known.
    pub fn weigh(&self, mut result: Judged) -> Judged {
        let mut of_probe =
            self.0.iter().filter(|(deviation, _)| deviation.probes.iter().any(|probe| wild(probe, &result.id)));
        let Some(first) = of_probe.clone().next() else { return result };
        if let Some((deviation, _)) = of_probe.clone().find(|(deviation, _)| deviation.describes(&result)) {
            result.expected = Expected::Deviation;
            result.as_expected = true;
            result.because = format!("known deviation: {} ({})", deviation.note, deviation.reference);
        } else if result.outcome == Verdict::Pass {
            if let Some((deviation, _)) = of_probe.find(|(_, applies)| *applies == Applies::Yes) {
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
