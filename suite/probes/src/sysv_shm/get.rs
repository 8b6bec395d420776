//! shmget(2): creating and finding segments.

use libc::{EEXIST, ENOENT};
use shmcheck_probe::sys::{self, IPC_CREAT, IPC_EXCL};
use shmcheck_probe::{Context, Outcome, Probe, Sys, man, posix};

/// The probes of this file.
pub const PROBES: &[&Probe] = &[&EXCL_EEXIST, &NO_KEY_ENOENT];

const EXCL_EEXIST: Probe = Probe {
    title: "IPC_CREAT|IPC_EXCL on a live key fails with EEXIST",
    why: "single-instance locks (PostgreSQL, Oracle) rely on it: without it two servers share one data directory",
    spec: &[man("shmget(2)", "EEXIST"), posix("shmget")],
    calls: &[Sys::Shmget],
    ..Probe::new("sysv.shm.get.excl-eexist", excl_eexist)
};
fn excl_eexist(cx: &mut Context) -> Outcome {
    let key = cx.fresh_key();
    let held = cx.segment(key, sys::page_size(), 0o600)?;
    cx.expect_errno(EEXIST, || sys::shmget(key, sys::page_size(), IPC_CREAT | IPC_EXCL | 0o600))?;
    cx.expect_eq("shm_nattch", held.stat()?.nattch, 0)
}

const NO_KEY_ENOENT: Probe = Probe {
    title: "a key that nobody created is not found: ENOENT",
    why: "clients tell 'server not running' from 'server refuses me' by this errno",
    spec: &[man("shmget(2)", "ENOENT"), posix("shmget")],
    calls: &[Sys::Shmget],
    ..Probe::new("sysv.shm.get.no-key-enoent", no_key_enoent)
};
fn no_key_enoent(cx: &mut Context) -> Outcome {
    let key = cx.fresh_key();
    cx.expect_errno(ENOENT, || sys::shmget(key, sys::page_size(), 0o600))
}
