//! Filters: which probes of the catalogue a user means.

use globset::{Glob, GlobMatcher};
use shmcheck_probe::{Chapter, Probe, Sys};
use std::collections::BTreeSet;

/// One filter of the command line.
#[derive(Debug)]
pub struct Filter {
    text: String,
    negated: bool,
    matcher: Matcher,
}

#[derive(Debug)]
enum Matcher {
    Id(GlobMatcher),
    Chapter(String),
    Call(Sys),
    Need(String),
}

/// Why a filter cannot be used or selects nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The filter is not of any known form.
    #[error("filter {filter:?}: {problem}")]
    Malformed {
        /// The filter.
        filter: String,
        /// What is wrong.
        problem: String,
    },
    /// No probe matches.
    #[error("no probe matches {filters}{}", alike(near))]
    Nothing {
        /// All filters as given.
        filters: String,
        /// Ids, chapters or calls that look alike.
        near: Vec<String>,
    },
}

fn alike(near: &[String]) -> String {
    if near.is_empty() { "; see `shmcheck list`".to_owned() } else { format!("; near misses: {}", near.join(", ")) }
}

impl Filter {
    /// `GLOB`, `@chapter`, `@call:NAME`, `@need:NAME`, each with `!` before it for the opposite.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let malformed = |problem: String| FilterError::Malformed { filter: text.to_owned(), problem };
        let (negated, rest) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let matcher = match rest.strip_prefix('@') {
            None if rest.is_empty() => return Err(malformed("it is empty".to_owned())),
            None => Matcher::Id(Glob::new(rest).map_err(|e| malformed(e.kind().to_string()))?.compile_matcher()),
            Some(tag) => match tag.split_once(':') {
                Some(("call", name)) => Matcher::Call(
                    Sys::from_name(name).ok_or_else(|| malformed(format!("the catalogue has no call {name}")))?,
                ),
                Some(("need", name)) => Matcher::Need(name.to_owned()),
                Some((kind, _)) => return Err(malformed(format!("there is no @{kind}:, only @call: and @need:"))),
                None => Matcher::Chapter(tag.to_owned()),
            },
        };
        Ok(Self { text: text.to_owned(), negated, matcher })
    }

    /// Whether an id that is not of the catalogue is meant.
    pub fn matches_id(&self, id: &str) -> bool {
        matches!(&self.matcher, Matcher::Id(glob) if glob.is_match(id)) && !self.negated
    }

    fn matches(&self, chapter: &Chapter, probe: &Probe) -> bool {
        match &self.matcher {
            Matcher::Id(glob) => glob.is_match(probe.id),
            Matcher::Chapter(name) => chapter.name == name || chapter.number.to_string() == *name,
            Matcher::Call(call) => probe.calls.contains(call),
            Matcher::Need(name) => probe.all_needs().any(|need| {
                let need = need.to_string();
                need == *name || need.split(':').next() == Some(name)
            }),
        }
    }
}

/// The probes that any positive filter matches and no negative one, in the catalogue's order. Without positive filters
/// all are candidates. Ids of declared settings are known too: they are checked in every run, so a filter that means one
/// selects something even where it selects no probe.
pub fn select(chapters: &[&'static Chapter], filters: &[Filter]) -> Result<Vec<&'static Probe>, FilterError> {
    let positive: Vec<&Filter> = filters.iter().filter(|f| !f.negated).collect();
    let negative: Vec<&Filter> = filters.iter().filter(|f| f.negated).collect();
    let mut chosen = Vec::new();
    for chapter in chapters {
        for probe in chapter.probes() {
            let wanted = positive.is_empty() || positive.iter().any(|f| f.matches(chapter, probe));
            if wanted && !negative.iter().any(|f| f.matches(chapter, probe)) {
                chosen.push(probe);
            }
        }
    }
    let means_setting = || crate::effective::SETTINGS.iter().any(|s| filters.iter().any(|f| f.matches_id(s.id)));
    if chosen.is_empty() && !means_setting() {
        let texts: Vec<&str> = filters.iter().map(|f| f.text.as_str()).collect();
        let near = positive.iter().flat_map(|filter| near_misses(chapters, &filter.text)).take(6).collect();
        return Err(FilterError::Nothing { filters: texts.join(" "), near });
    }
    Ok(chosen)
}

/// Ids and chapters that look like `text`.
pub fn near_misses(chapters: &[&'static Chapter], text: &str) -> Vec<String> {
    let plain: String = text.chars().filter(|c| !matches!(c, '@' | '!' | '*' | '?' | '[' | ']' | '{' | '}')).collect();
    let plain = plain.trim_end_matches('.');
    let settings = crate::effective::SETTINGS.iter().map(|setting| setting.id.to_owned());
    // A glob is held against globs: what ids have before their last dot.
    let as_meant = |id: &str| match id.rsplit_once('.') {
        Some((head, _)) if text.contains('*') => format!("{head}.*"),
        _ => id.to_owned(),
    };
    let ids: BTreeSet<String> = chapters.iter().flat_map(|c| c.probes()).map(|p| as_meant(p.id)).collect();
    let words = chapters.iter().map(|c| format!("@{}", c.name)).chain(ids).chain(settings);
    let mut scored: Vec<(f64, String)> = words
        .map(|word| (strsim::jaro_winkler(plain, word.trim_start_matches('@').trim_end_matches(".*")), word))
        .filter(|(score, _)| *score > 0.75)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(3).map(|(_, word)| word).collect()
}
