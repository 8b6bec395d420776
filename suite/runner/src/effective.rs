//! Declared against effective: each setting that was asked for is compared with what the agent finds. A difference is
//! a finding of its own, so that a probe's failure is not mistaken for the kernel's.

use crate::declared::{Declared, Filter, Ipc};
use shmcheck_probe::{Detail, Verdict};
use shmcheck_protocol::{Facts, Record};

/// A setting that can be declared, with the check that holds it against the facts.
#[derive(Debug)]
pub struct Setting {
    /// Its id among the results.
    pub id: &'static str,
    /// What is held.
    pub title: &'static str,
    /// Who suffers when it is not so.
    pub why: &'static str,
    /// What to do.
    pub fix: &'static str,
    check: fn(&Declared, &Seen) -> Option<Compared>,
}

/// What the agent found, and what the runner knows of the host.
struct Seen<'a> {
    facts: &'a Facts,
    host_ipc: u64,
}

/// A wanted and a found value; equal where the setting is effective.
struct Compared {
    wanted: String,
    got: String,
}

impl Compared {
    fn new(wanted: impl ToString, got: impl ToString) -> Option<Self> {
        Some(Self { wanted: wanted.to_string(), got: got.to_string() })
    }
}

/// Every setting, in the order of the report.
pub const SETTINGS: &[Setting] = &[
    Setting {
        id: "declared.ipc",
        title: "the IPC namespace is the one that was declared",
        why: "a container meant to be private that has the host's IPC can read and remove every database's segments",
        fix: "look for a second place that sets the IPC mode: a pod, a compose file, the daemon's default-ipc-mode",
        check: |declared, seen| {
            let own = *seen.facts.namespaces.get("ipc")?;
            let place = |shared| if shared { "the host's namespace" } else { "a namespace of its own" };
            let got = place(own == seen.host_ipc);
            match declared.ipc {
                Ipc::Host => Compared::new(place(true), got),
                Ipc::Private | Ipc::None | Ipc::Shared => Compared::new(place(false), got),
                Ipc::Unsaid => None,
            }
        },
    },
    Setting {
        id: "declared.shm",
        title: "/dev/shm is there, or is not, as declared",
        why: "a program without /dev/shm dies at its first shm_open with an errno that nobody understands",
        fix: "do not use --ipc=none for programs with shared memory; mount a tmpfs on /dev/shm",
        check: |declared, seen| {
            let there = |is: bool| if is { "there" } else { "absent" };
            let found = seen.facts.cell.dev_shm.refused.as_deref().is_none_or(|reason| !reason.ends_with("ENOENT"));
            Compared::new(there(declared.dev_shm?), there(found))
        },
    },
    Setting {
        id: "declared.shm-size",
        title: "/dev/shm has the size that was declared",
        why: "PyTorch and PostgreSQL die of SIGBUS or ENOSPC in the middle of their work when it is smaller",
        fix: "set the size where /dev/shm is really mounted: on the pod, the donor container, or as a tmpfs",
        check: |declared, seen| {
            let asked = declared.shm_size.filter(|_| declared.dev_shm != Some(false))?;
            // tmpfs rounds up to whole pages.
            let wanted = asked.next_multiple_of(seen.facts.page_size.max(1));
            Compared::new(format!("{wanted} bytes"), format!("{} bytes", seen.facts.cell.dev_shm.size))
        },
    },
    Setting {
        id: "declared.user",
        title: "the program runs as the declared user",
        why: "shared memory made by another uid than the peers expect is found and cannot be opened",
        fix: "look for a USER in the image or an entrypoint that changes it",
        check: |declared, seen| Compared::new(declared.user?, seen.facts.user.uid),
    },
    Setting {
        id: "declared.caps-added",
        title: "capabilities that were added are in the bounding set",
        why: "SHM_LOCK and huge pages fail for a database that was given IPC_LOCK only on paper",
        fix: "rootless and user namespaces limit what can be given; see the engine's documentation",
        check: |declared, seen| {
            (!declared.caps_added.is_empty()).then_some(())?;
            let missing = declared.caps_added.iter().map(ToString::to_string);
            // A capability newer than this kernel is in nobody's set.
            let known = |name: &String| !caps_above_kernel(name);
            let mut missing: Vec<String> =
                missing.filter(|name| !seen.facts.user.bounding.contains(name) && known(name)).collect();
            missing.sort();
            Compared::new("none missing", none_or(&missing, "missing"))
        },
    },
    Setting {
        id: "declared.caps-dropped",
        title: "capabilities that were dropped are not in the bounding set",
        why: "a container that keeps IPC_OWNER can read everyone's segments",
        fix: "look for --privileged, or a runtime that ignores the list",
        check: |declared, seen| {
            (!declared.caps_dropped.is_empty()).then_some(())?;
            let dropped = declared.caps_dropped.iter().map(ToString::to_string);
            let mut left: Vec<String> = dropped.filter(|name| seen.facts.user.bounding.contains(name)).collect();
            left.sort();
            Compared::new("none left", none_or(&left, "left"))
        },
    },
    Setting {
        id: "declared.seccomp",
        title: "a seccomp filter is in force, or is not, as declared",
        why: "an unconfined container that was meant to be filtered passes every test and protects nothing",
        fix: "look for --privileged, or an engine built without seccomp (docker info)",
        check: |declared, seen| {
            let word = |filtered: bool| if filtered { "a filter" } else { "no filter" };
            let got = word(seen.facts.seccomp_mode == 2);
            match declared.seccomp {
                Filter::Unsaid => None,
                Filter::Unconfined => Compared::new(word(false), got),
                Filter::Unknown(_) | Filter::Known(_) => Compared::new(word(true), got),
            }
        },
    },
    Setting {
        id: "declared.read-only",
        title: "the root file system is read-only, or is not, as declared",
        why: "a root that can be written although it was to be read-only is a hole; the other way programs die of EROFS",
        fix: "look for a security context or a runtime that sets it elsewhere",
        check: |declared, seen| {
            let word = |read_only: bool| if read_only { "read-only" } else { "writable" };
            Compared::new(word(declared.read_only?), word(seen.facts.root_read_only))
        },
    },
    Setting {
        id: "declared.no-new-privs",
        title: "no_new_privs is set as declared",
        why: "without it a set-uid program in the image gains what the container was denied",
        fix: "--security-opt no-new-privileges",
        check: |declared, seen| Compared::new(declared.no_new_privs?, seen.facts.no_new_privs),
    },
    Setting {
        id: "declared.sysctl",
        title: "sysctls that were declared are in effect",
        why: "Oracle and Db2 refuse to start when the limits that were set do not reach their namespace",
        fix: "IPC sysctls need an IPC namespace of the container's own; rootless engines may refuse them",
        check: |declared, seen| {
            (!declared.sysctls.is_empty()).then_some(())?;
            let list = |value: &dyn Fn(&str) -> String| {
                let pairs = declared.sysctls.keys().map(|name| format!("{name}={}", value(name)));
                pairs.collect::<Vec<_>>().join(", ")
            };
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            let unknown = "unreadable".to_owned();
            Compared::new(
                list(&|name| words(&declared.sysctls[name])),
                list(&|name| words(seen.facts.sysctls.get(name).unwrap_or(&unknown))),
            )
        },
    },
    Setting {
        id: "declared.ulimit",
        title: "resource limits that were declared are in effect",
        why: "locked and huge memory fail with ENOMEM when RLIMIT_MEMLOCK is not what the operator set",
        fix: "the daemon's own hard limit is the ceiling: raise LimitMEMLOCK and friends of its service",
        check: |declared, seen| {
            (!declared.ulimits.is_empty()).then_some(())?;
            let list = |value: &dyn Fn(&str) -> Option<(u64, u64)>| {
                let pairs = declared.ulimits.keys().map(|name| match value(name) {
                    Some((soft, hard)) => format!("{name}={soft}:{hard}"),
                    None => format!("{name} unknown"),
                });
                pairs.collect::<Vec<_>>().join(", ")
            };
            let found = |name: &str| seen.facts.rlimits.get(name).copied();
            Compared::new(list(&|name| declared.ulimits.get(name).copied()), list(&found))
        },
    },
];

fn none_or(names: &[String], word: &str) -> String {
    if names.is_empty() { format!("none {word}") } else { format!("{word}: {}", names.join(", ")) }
}

/// Whether this kernel has no such capability, as /proc/sys/kernel/cap_last_cap says.
fn caps_above_kernel(name: &str) -> bool {
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok().and_then(|s| s.trim().parse::<u8>().ok());
    let cap: Option<caps::Capability> = name.parse().ok();
    matches!((last, cap), (Some(last), Some(cap)) if cap.index() > last)
}

/// A record for each setting that was declared.
pub fn records(declared: &Declared, facts: &Facts) -> Vec<Record> {
    use std::os::unix::fs::MetadataExt;
    let host_ipc = std::fs::metadata("/proc/self/ns/ipc").map_or(0, |meta| meta.ino());
    let seen = Seen { facts, host_ipc };
    let record = |setting: &Setting| {
        let compared = (setting.check)(declared, &seen)?;
        let effective = compared.wanted == compared.got;
        let detail = Detail {
            call: Some("declared configuration".to_owned()),
            wanted: Some(compared.wanted),
            got: Some(compared.got),
            ..Detail::default()
        };
        let outcome = if effective { Verdict::Pass } else { Verdict::Fail };
        let detail = if effective { Detail::default() } else { detail };
        Some(Record { id: setting.id.to_owned(), outcome, duration_us: 0, detail })
    };
    SETTINGS.iter().filter_map(record).collect()
}
