//! What the probes of this chapter share: sleepers, bounded waits, answers in words.

use shmcheck_probe::sys::{self, futex};
use shmcheck_probe::{Context, Outcome, Peer, Stop, Sys, procfs};
use std::time::{Duration, Instant};

/// How long something that must happen may take before it counts as lost: far above what a loaded machine needs.
pub(super) const LOST: Duration = Duration::from_millis(3_000);
/// A time limit that is meant to pass.
pub(super) const SHORT: Duration = Duration::from_millis(2);

/// What a call said in another process: its value or its errno.
pub(super) type Said = Result<i64, i32>;

/// The answer in words.
pub(super) fn words(said: &Said) -> String {
    match said {
        Ok(value) => format!("{value}"),
        Err(errno) => sys::errno_name(*errno).to_owned(),
    }
}

/// A call's result as a peer can hand it over.
pub(super) fn said<T: Into<i64>>(result: sys::Result<T>) -> Said {
    result.map(Into::into).map_err(|e| e.errno)
}

/// As [`said`] for calls without a value.
pub(super) fn done(result: sys::Result<()>) -> Said {
    result.map(|()| 0).map_err(|e| e.errno)
}

/// Fails unless the answer is the one wanted.
pub(super) fn expect_said(what: &str, got: &Said, wanted: &Said) -> Outcome {
    if got == wanted { Ok(()) } else { Err(Stop::fail(what, words(wanted), words(got))) }
}

/// The calls in which a waiter of this chapter sleeps.
const SLEEPING_CALLS: &[Sys] = &[Sys::Futex, Sys::FutexWaitv, Sys::FutexWait];

/// A peer that makes one call in which it is to sleep; returns when it does. A peer that does not sleep is a failure.
pub(super) fn sleeper(cx: &mut Context, call: impl FnOnce() -> Said) -> Result<Peer<Said>, Stop> {
    let peer = cx.fork(|_| Ok(call()))?;
    asleep(cx, peer)
}

/// Waits until the peer sleeps in its call; a peer that returned instead is a failure.
pub(super) fn asleep(cx: &Context, peer: Peer<Said>) -> Result<Peer<Said>, Stop> {
    match cx.until_sleeping_in(peer.pid(), SLEEPING_CALLS) {
        Ok(()) => Ok(peer),
        Err(_) => Err(Stop::fail("a call that is to wait", "the caller sleeps", words(&peer.join()?))),
    }
}

/// Waits until the peer has taken the signal and sleeps in its call again.
pub(super) fn asleep_again(cx: &Context, peer: Peer<Said>) -> Result<Peer<Said>, Stop> {
    cx.until("the signal is taken", || {
        let status = procfs::read(&format!("/proc/{}/status", peer.pid()))?;
        let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
        Ok(pending.is_some_and(|mask| mask.trim().bytes().all(|digit| digit == b'0')))
    })?;
    asleep(cx, peer)
}

/// Whether the peer still sleeps.
pub(super) fn still_asleep(cx: &Context, what: &str, peer: &Peer<Said>) -> Outcome {
    // A waiter that was woken by mistake may have run already or be about to: only a sleeper has this state.
    cx.expect_eq(what, procfs::state(peer.pid()), Some('S'))
}

/// Waits for a state that must come; a failure when it does not within [`LOST`].
pub(super) fn expect_soon(what: &str, wanted: &str, mut holds: impl FnMut() -> Result<bool, Stop>) -> Outcome {
    let start = Instant::now();
    let mut rounds = 0_u32;
    while !holds()? {
        if start.elapsed() > LOST {
            return Err(Stop::fail(what, wanted, format!("not within {} ms", LOST.as_millis())));
        }
        rounds += 1;
        if rounds < 20 {
            sys::sched_yield();
        } else {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    Ok(())
}

/// The time on the wall clock at which a lock counts as lost.
pub(super) fn lost() -> libc::timespec {
    futex::after(libc::CLOCK_REALTIME, LOST)
}

/// Sleeps in `FUTEX_WAIT` on a word that holds `value`, at most [`LOST`].
pub(super) fn wait_for_wake(address: usize, value: u32) -> Said {
    said(futex::wait(address, value, LOST))
}

/// A time whose nanoseconds are no nanoseconds.
pub(super) fn bad_nanos(nanos: i64) -> libc::timespec {
    libc::timespec { tv_sec: 1, tv_nsec: nanos }
}
