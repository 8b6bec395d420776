//! The few facts that explain most of a cell's results.

use crate::units;
use shmcheck_protocol::Facts;

/// Labels and values, in the order in which they are shown. The values read well without their labels.
pub(crate) fn key_facts(facts: &Facts) -> Vec<(&'static str, String)> {
    vec![
        ("kernel", kernel(facts)),
        ("user", user(facts)),
        ("capabilities", capabilities(&facts.user.effective)),
        ("seccomp", seccomp(facts)),
        ("/dev/shm", dev_shm(facts)),
        ("fresh namespaces", fresh(facts)),
    ]
}

/// The key facts in one sentence.
pub(crate) fn sentence(facts: &Facts) -> String {
    let values: Vec<_> = key_facts(facts).into_iter().map(|(_, value)| value).collect();
    values.join(", ")
}

/// What uname(2) says, and who says it where that is not Linux itself.
fn kernel(facts: &Facts) -> String {
    let kernel = &facts.kernel;
    let said = format!("{} {} {}", kernel.name, kernel.release, kernel.machine);
    match kernel.implementation.as_str() {
        "" | "linux" => said,
        other => format!("{other} that calls itself {said}"),
    }
}

fn user(facts: &Facts) -> String {
    let who = if facts.user.uid == 0 { "root".to_owned() } else { format!("uid {}", facts.user.uid) };
    if facts.user.initial { who } else { format!("{who} of a user namespace") }
}

fn capabilities(effective: &[String]) -> String {
    match effective.len() {
        0 => "no capabilities".to_owned(),
        1 => "1 capability".to_owned(),
        n => format!("{n} capabilities"),
    }
}

fn seccomp(facts: &Facts) -> String {
    let mode = match facts.seccomp_mode {
        0 => return "no seccomp filter".to_owned(),
        1 => "seccomp strict mode".to_owned(),
        2 => "a seccomp filter".to_owned(),
        other => format!("seccomp mode {other}"),
    };
    match facts.refused_calls.len() {
        0 => mode,
        n => format!("{mode} ({} refused)", units::count(n, "call")),
    }
}

fn dev_shm(facts: &Facts) -> String {
    let shm = &facts.cell.dev_shm;
    match &shm.refused {
        Some(refused) => format!("/dev/shm unusable: {refused}"),
        None if shm.fs_type == "tmpfs" => format!("/dev/shm {}", units::bytes(shm.size)),
        None => format!("/dev/shm {} on {}", units::bytes(shm.size), shm.fs_type),
    }
}

fn fresh(facts: &Facts) -> String {
    match (&facts.fresh, facts.fresh_refused.as_str()) {
        (Some(_), _) => "fresh namespaces".to_owned(),
        (None, "") => "no fresh namespaces".to_owned(),
        (None, refused) => format!("no fresh namespaces ({refused})"),
    }
}
