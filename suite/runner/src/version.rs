//! Versions of engines, runtimes and kernels, and ranges of them: `>=20.10, <23`.

use serde::Deserialize;
use std::cmp::Ordering;

/// A version's numbers. What comes behind a `+`, `-` or a blank is a packager's and is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(Vec<u64>);

impl Version {
    /// The numbers of `20.10.24+dfsg1`, `release-20240729.0`, `0.0~20221219.0`; `None` where there are none.
    pub fn parse(text: &str) -> Option<Self> {
        // gVisor has dates for versions. Debian writes 0.0~ before them, the project release-.
        let text = text.strip_prefix("0.0~").or_else(|| text.strip_prefix("release-")).unwrap_or(text);
        let end = text.find(['+', '-', ' ', '~']).unwrap_or(text.len());
        let numbers: Option<Vec<u64>> = text[..end].split('.').map(|part| part.parse().ok()).collect();
        numbers.map(Self)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    /// Missing numbers count as 0: 20.10 is 20.10.0.
    fn cmp(&self, other: &Self) -> Ordering {
        let length = self.0.len().max(other.0.len());
        let at = |version: &Self, n: usize| version.0.get(n).copied().unwrap_or(0);
        (0..length).map(|n| at(self, n).cmp(&at(other, n))).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    }
}

/// Bounds that all have to hold.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Range(Vec<(Bound, Version)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    AtLeast,
    Below,
}

impl Range {
    /// Whether the version lies in the range.
    pub fn contains(&self, version: &Version) -> bool {
        self.0.iter().all(|(bound, limit)| match bound {
            Bound::AtLeast => version >= limit,
            Bound::Below => version < limit,
        })
    }
}

impl TryFrom<String> for Range {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let problem = || format!("{text:?} is no range of versions; write it as \">=20.10, <23\"");
        let bound = |part: &str| {
            let part = part.trim();
            let (bound, version) = match (part.strip_prefix(">="), part.strip_prefix('<')) {
                (Some(version), _) => (Bound::AtLeast, version),
                (None, Some(version)) => (Bound::Below, version),
                (None, None) => return None,
            };
            Some((bound, Version::parse(version.trim())?))
        };
        text.split(',').map(|part| bound(part).ok_or_else(problem)).collect::<Result<_, _>>().map(Self)
    }
}
