//! The catalogue itself: ids, titles, clauses, and every documented error provoked or excluded with a reason.

use shmcheck_probe::Probe;
use shmcheck_probes::CHAPTERS;
use std::collections::{BTreeMap, BTreeSet};

/// Pages of the errno matrix whose chapters are still to come.
const TO_COME: &[&str] = &[
    "get_mempolicy(2)",
    "mbind(2)",
    "migrate_pages(2)",
    "move_pages(2)",
    "pidfd_getfd(2)",
    "process_vm_readv(2)",
    "set_mempolicy(2)",
    "unix(7)",
];

/// Probes, and the claims of scenarios.
fn claims() -> impl Iterator<Item = &'static Probe> {
    shmcheck_probes::catalogue().into_iter().chain(shmcheck_probes::scenarios().into_iter().map(|s| &s.probe))
}

#[test]
fn scenarios_are_complete() {
    for scenario in shmcheck_probes::scenarios() {
        let id = scenario.probe.id;
        assert!(id.starts_with("scenario."), "{id}: ids of scenarios begin with their area");
        assert!(scenario.parties.len() > 1, "{id}: a claim about one party is a probe");
        for party in 0..scenario.parties.len() {
            assert!(scenario.steps.iter().any(|step| step.party == party), "{id}: party {party} has no step");
        }
        assert!(scenario.steps.iter().all(|step| step.party < scenario.parties.len()), "{id}: a step of nobody");
    }
}

#[test]
fn ids_are_well_formed() {
    for probe in claims() {
        let parts: Vec<&str> = probe.id.split('.').collect();
        assert!(parts.len() >= 3, "{}: area, object, call or claim", probe.id);
        let word = |part: &&str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        assert!(parts.iter().all(word), "{}: lower-case letters, digits and dashes", probe.id);
    }
}

/// Area and object of an id: the same rule of two calls may well be told in the same words.
fn area(id: &str) -> (&str, &str) {
    let mut parts = id.split('.');
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

#[test]
fn texts_say_what_they_must() {
    let mut titles = BTreeMap::new();
    for probe in claims() {
        let length = probe.title.chars().count();
        assert!((10..=72).contains(&length), "{}: the title has {length} characters", probe.id);
        assert!(!probe.title.ends_with('.'), "{}: a title is no sentence with a full stop", probe.id);
        assert!(probe.why.len() >= 40, "{}: `why` tells whose program breaks and what its user sees", probe.id);
        assert!(!probe.spec.is_empty(), "{}: where is it written?", probe.id);
        if let Some(other) = titles.insert((area(probe.id), probe.title), probe.id) {
            panic!("{} and {other} have the same title", probe.id);
        }
    }
}

#[test]
fn chapters_teach() {
    for chapter in CHAPTERS {
        assert!(chapter.intro.len() > 100, "chapter {} has no introduction", chapter.name);
        assert!(chapter.probes().count() > 0, "chapter {} is empty", chapter.name);
    }
}

#[test]
fn every_documented_error_is_provoked_or_excluded() {
    let matrix = include_str!("../../fixtures/errno-matrix.tsv");
    let provoked: BTreeSet<(&str, &str)> =
        shmcheck_probes::catalogue().iter().flat_map(|probe| probe.provokes()).collect();
    let excluded: BTreeMap<(&str, &str), &str> = CHAPTERS
        .iter()
        .flat_map(|chapter| chapter.excluded)
        .map(|excluded| ((excluded.page, excluded.errno), excluded.reason))
        .collect();
    let mut open = Vec::new();
    for line in matrix.lines().skip(1) {
        let mut columns = line.split('\t');
        let (Some(page), Some(errno)) = (columns.next(), columns.next()) else {
            panic!("{line:?} is no line of the matrix")
        };
        if page == "page" || TO_COME.contains(&page) {
            continue;
        }
        let pair = (page, errno);
        match (provoked.contains(&pair), excluded.get(&pair)) {
            (true, Some(_)) => panic!("{page} {errno} is provoked and excluded"),
            (false, None) => open.push(format!("{page} {errno}")),
            (false, Some(reason)) => assert!(reason.len() > 20, "{page} {errno}: the reason says nothing"),
            (true, None) => {}
        }
    }
    assert!(
        open.is_empty(),
        "{} documented errors are neither provoked nor excluded:\n{}",
        open.len(),
        open.join("\n")
    );
}

/// The list of probes: a changed or removed id shows in review. Ids are forever.
#[test]
fn ids_are_as_recorded() {
    let list: Vec<String> = claims().map(|probe| format!("{}\n    {}", probe.id, probe.title)).collect();
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("catalogue", list.join("\n"));
    });
}
