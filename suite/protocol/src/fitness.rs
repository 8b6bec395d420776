//! Whether a place meets a probe's needs: the one evaluation that `list`, `run` and `cargo test` share.

use crate::facts::{Facts, Ground};
use caps::Capability;
use shmcheck_probe::procfs::SCRATCH_PLACES;
use shmcheck_probe::{Isolate, Namespace, Need, Probe, Stop};

/// A need that the place does not meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    /// The need as it is written in reports.
    pub need: String,
    /// The value measured.
    pub found: String,
    /// Set where a policy refused: layer, call, errno.
    pub refusal: Option<(String, String, String)>,
}

impl Unmet {
    fn new(need: Need, found: impl Into<String>) -> Self {
        Self { need: need.to_string(), found: found.into(), refusal: None }
    }

    /// The outcome of a probe with this need: blocked where a policy refused, else a skip.
    pub fn into_stop(self) -> Stop {
        match self.refusal {
            Some((layer, call, errno)) => Stop::blocked(layer, call, errno),
            None => Stop::skip(self.need, self.found),
        }
    }
}

/// The first need of the probe that the place does not meet.
pub fn unmet(probe: &Probe, facts: &Facts) -> Option<Unmet> {
    let fresh = facts.fresh.as_ref().filter(|_| matches!(probe.isolate, Isolate::Fresh | Isolate::FreshOnly));
    if let Some(found) = probe.all_needs().find_map(|need| check(need, facts, fresh)) {
        return Some(found);
    }
    if probe.isolate == Isolate::FreshOnly && fresh.is_none() {
        let refused = &facts.fresh_refused;
        return Some(Unmet { need: "fresh-namespaces".to_owned(), found: refused.clone(), refusal: None });
    }
    None
}

/// The first of these needs that the cell's own namespaces do not meet.
pub fn unmet_in_cell(mut needs: impl Iterator<Item = Need>, facts: &Facts) -> Option<Unmet> {
    needs.find_map(|need| check(need, facts, None))
}

fn check(need: Need, facts: &Facts, fresh: Option<&Ground>) -> Option<Unmet> {
    let ground = fresh.unwrap_or(&facts.cell);
    // Without CAP_SYS_ADMIN the fresh namespaces are had through a user namespace, and that is not the initial one.
    let initial = facts.user.initial && (fresh.is_none() || holds(&facts.user.effective, Capability::CAP_SYS_ADMIN));
    let found = match need {
        Need::Call(call) => return refused_call(need, call.name(), facts),
        Need::Cap(cap) => (!holds(&ground.effective, cap)).then(|| "not in the effective set".to_owned()),
        Need::InitCap(cap) if !initial => Some(format!("{cap} holds only in a user namespace")),
        Need::InitCap(cap) => (!holds(&facts.user.effective, cap)).then(|| "not in the effective set".to_owned()),
        Need::OtherUsers => ground.other_users.clone(),
        Need::OwnIpc => {
            (fresh.is_none() && facts.shared_ipc).then(|| "the IPC namespace is shared with other programs".to_owned())
        }
        Need::New(kind) => {
            let refused = facts.refused_namespaces.get(kind.name()).map(|e| format!("unshare({}) → {e}", kind.name()));
            // Only a user namespace can be made without the capability, clone(2).
            let allowed = kind == Namespace::User || holds(&ground.effective, Capability::CAP_SYS_ADMIN);
            refused.or_else(|| (!allowed).then(|| "CAP_SYS_ADMIN is not in the effective set".to_owned()))
        }
        Need::DevShm => ground.dev_shm.refused.clone(),
        Need::Mqueue => ground.mqueue.clone(),
        Need::Path(path) => facts.missing_paths.get(path).map(|errno| format!("{path} → {errno}")),
        Need::Sysctl(name) => ground.read_only_sysctls.get(name).map(|errno| format!("write to {name} → {errno}")),
        Need::HugePages { kib, count } => {
            let free = facts.hugepages.iter().find(|pool| pool.kib == kib).map_or(0, |pool| pool.free);
            (free < count).then(|| format!("{free} free huge pages of {kib} kB"))
        }
        Need::Nodes(n) => (facts.nodes < n).then(|| format!("{} nodes with memory", facts.nodes)),
        Need::Memlock(bytes) => {
            let soft = facts.rlimits.get("memlock").map_or(0, |limit| limit.0);
            let privileged = initial && holds(&facts.user.effective, Capability::CAP_IPC_LOCK);
            (soft < bytes && !privileged).then(|| format!("RLIMIT_MEMLOCK is {soft}"))
        }
        Need::Cpus(n) => (facts.cpus < n).then(|| format!("{} processors", facts.cpus)),
        Need::Swap => (facts.swap == 0).then(|| "no swap space".to_owned()),
        Need::Lsm(name) => {
            (!facts.lsms.iter().any(|lsm| lsm == name)).then(|| format!("active: {}", facts.lsms.join(",")))
        }
        Need::Scratch => {
            let refused = facts.missing_paths.get(&need.to_string());
            refused.map(|_| format!("none of {} can be written", SCRATCH_PLACES.join(", ")))
        }
    };
    found.map(|found| Unmet::new(need, found))
}

fn refused_call(need: Need, call: &str, facts: &Facts) -> Option<Unmet> {
    let errno = facts.refused_calls.get(call)?;
    // Without a filter the kernel itself does not have the call: not a policy, an unmet need.
    if facts.seccomp_mode == 0 && errno == "ENOSYS" {
        return Some(Unmet::new(need, "this kernel does not have the call (ENOSYS)"));
    }
    let layer = if facts.seccomp_mode == 2 { "seccomp" } else { "unknown" };
    Some(Unmet {
        need: need.to_string(),
        found: format!("{call} → {errno}"),
        refusal: Some((layer.to_owned(), call.to_owned(), errno.clone())),
    })
}

fn holds(set: &[String], cap: Capability) -> bool {
    set.contains(&cap.to_string())
}
