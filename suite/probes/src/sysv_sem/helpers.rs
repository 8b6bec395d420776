//! What several files of this chapter need: peers that sleep in semop, and what became of them.

use shmcheck_probe::sys::{self, SemOp};
use shmcheck_probe::{Context, Outcome, Peer, SemSet, Stop, Sys};

/// How long a peer that must wake may take; far above what a loaded machine needs.
const PATIENCE_MS: i32 = 5_000;

/// The calls a sleeper is seen in: the C library makes semtimedop of semop.
pub(super) const SLEEPS_IN: &[Sys] = &[Sys::Semop, Sys::Semtimedop];

/// The errno of a call, 0 where it succeeded.
pub(super) fn errno_of<T>(result: sys::Result<T>) -> i32 {
    result.map_or_else(|e| e.errno, |_| 0)
}

/// A peer that makes one semop call and is asleep in it when this returns; its value is the errno, 0 for success.
pub(super) fn sleeper(cx: &mut Context, set: &SemSet, ops: &[SemOp]) -> Result<Peer<i32>, Stop> {
    sleeper_that(cx, set, ops, |_| Ok(()), |_| Ok(()))
}

/// As [`sleeper`], with something to do before the call and, where it succeeded, after it.
pub(super) fn sleeper_that(
    cx: &mut Context,
    set: &SemSet,
    ops: &[SemOp],
    before: impl FnOnce(&mut Context) -> Result<(), Stop>,
    after: impl FnOnce(&mut Context) -> Result<(), Stop>,
) -> Result<Peer<i32>, Stop> {
    let id = set.id;
    let peer = cx.fork(move |cx| {
        before(cx)?;
        let errno = errno_of(sys::semop(id, ops));
        if errno == 0 {
            after(cx)?;
        }
        Ok(errno)
    })?;
    cx.until_sleeping_in(peer.pid(), SLEEPS_IN)?;
    Ok(peer)
}

/// Fails unless the sleeper's call ends with success.
pub(super) fn expect_woken(cx: &Context, peer: Peer<i32>) -> Outcome {
    expect_end(cx, peer, 0)
}

/// Fails unless the sleeper's call ends with this errno, 0 for success.
pub(super) fn expect_end(cx: &Context, peer: Peer<i32>, errno: i32) -> Outcome {
    let name = |errno| if errno == 0 { "success" } else { sys::errno_name(errno) };
    if !peer.has_result_within(PATIENCE_MS)? {
        return Err(Stop::fail("semop", name(errno), format!("still asleep after {PATIENCE_MS} ms")));
    }
    cx.expect_eq("semop of the sleeper", name(peer.join()?), name(errno))
}

/// Performs twelve simple operations: the kernel then locks single semaphores instead of the whole set.
///
/// ipc/sem.c starts a set with the global lock and leaves it after ten operations (`USE_GLOBAL_LOCK_HYSTERESIS`).
pub(super) fn settle(set: &SemSet) -> sys::Result<()> {
    for _ in 0..6 {
        set.op(&[SemOp::add(0, 1)])?;
        set.op(&[SemOp::add(0, -1)])?;
    }
    Ok(())
}
