//! /dev/shm as the environment gives it.

use shmcheck_probe::{Context, Isolate, Kind, Need, Outcome, Probe, doc};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[&TMPFS];

const TMPFS: Probe = Probe {
    title: "/dev/shm is a tmpfs",
    why: "a /dev/shm on the container's disk is slow, counts as disk usage and survives a restart with stale names in it",
    varies: "an image that ships files below /dev/shm, or a volume mounted there (podman#1770)",
    fix: "mount a tmpfs on /dev/shm: --shm-size, or a volume of medium Memory",
    spec: &[doc("shm_overview(7)", "Accessing shared memory objects via the filesystem")],
    needs: &[Need::DevShm],
    isolate: Isolate::Cell,
    kind: Kind::Environment,
    ..Probe::new("devshm.mount.is-tmpfs", is_tmpfs)
};
fn is_tmpfs(cx: &mut Context) -> Outcome {
    let found = nix::sys::statfs::statfs("/dev/shm")?.filesystem_type();
    cx.expect_eq("f_type of /dev/shm", found.0, nix::sys::statfs::TMPFS_MAGIC.0)
}
