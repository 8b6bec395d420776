//! futex(2): from a plain word to a PI lock, FUTEX_WAIT_REQUEUE_PI with FUTEX_CMP_REQUEUE_PI.

use super::futex_pi::{lock, unlock};
use super::tools::{LOST, SHORT, Said, asleep, asleep_again, expect_said, said, sleeper};
use libc::{CLOCK_MONOTONIC, CLOCK_REALTIME, EAGAIN, ETIMEDOUT};
use shmcheck_probe::sys::futex::{
    self, FUTEX_CLOCK_REALTIME, FUTEX_CMP_REQUEUE_PI, FUTEX_WAIT_REQUEUE_PI, TID_MASK, WAITERS,
};
use shmcheck_probe::{Context, Isolate, Map, Outcome, Peer, Probe, Stop, Sys, kernel, man, sys};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] =
    &[&FREE_TARGET, &HELD_TARGET, &LIMIT, &LIMIT_AFTER_MOVE, &HANDLER_BEFORE, &HANDLER_AFTER];

#[track_caller]
pub(super) const fn probe(
    id: &'static str,
    title: &'static str,
    why: &'static str,
    run: fn(&mut Context) -> Outcome,
) -> Probe {
    Probe { title, why, calls: &[Sys::Futex], isolate: Isolate::Cell, ..Probe::new(id, run) }
}

/// The two words: what a condition variable and its mutex are.
pub(super) struct Words {
    pub(super) map: Map,
    pub(super) cond: usize,
    pub(super) mutex: usize,
}

pub(super) const MUTEX: usize = 256;

pub(super) fn words() -> sys::Result<Words> {
    let map = Map::shared_anonymous(sys::page_size())?;
    let (cond, mutex) = (map.address(), map.address() + MUTEX);
    Ok(Words { map, cond, mutex })
}

impl Words {
    pub(super) fn mutex_word(&self) -> u32 {
        self.map.atomic(MUTEX).load(SeqCst)
    }

    /// Waits on the condition to own the mutex; says 1 where the word names the caller, and frees it.
    pub(super) fn wait(&self, limit: Duration) -> Said {
        let end = futex::after(CLOCK_MONOTONIC, limit);
        let answer = futex::timed(self.cond, FUTEX_WAIT_REQUEUE_PI, 0, Some(&end), self.mutex, 0);
        said(answer.and_then(|_| {
            let own = self.mutex_word() & TID_MASK == futex::own_tid();
            unlock(self.mutex).map(|_| i64::from(own))
        }))
    }

    pub(super) fn waiter(&self, cx: &mut Context) -> Result<Peer<Said>, Stop> {
        sleeper(cx, || self.wait(LOST))
    }

    /// `FUTEX_CMP_REQUEUE_PI`—at most one woken as owner, `move_count` moved.
    pub(super) fn requeue(&self, move_count: usize) -> sys::Result<i64> {
        requeue(self.cond, 1, move_count, self.mutex, 0)
    }

    /// The waiter is still where it was: freeing the mutex and moving it there makes it the owner.
    pub(super) fn finish(&self, peer: Peer<Said>) -> Outcome {
        self.map.atomic(MUTEX).store(0, SeqCst);
        expect_said("woken or moved to the free lock", &said(self.requeue(1)), &Ok(1))?;
        expect_said("the waiter that owns the lock", &peer.join()?, &Ok(1))
    }
}

pub(super) fn requeue(cond: usize, wake: u32, move_count: usize, mutex: usize, expected: u32) -> sys::Result<i64> {
    futex::op(cond, FUTEX_CMP_REQUEUE_PI, wake, move_count, mutex, expected)
}

const FREE_TARGET: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_CMP_REQUEUE_PI")],
    ..probe(
        "sync.futex.requeue-pi.free-target",
        "a waiter moved to a free PI lock wakes up as its owner",
        "a signal to a real-time waiter must not let a third process take the mutex between wake-up and lock",
        free_target,
    )
};

fn free_target(cx: &mut Context) -> Outcome {
    let words = words()?;
    let peer = words.waiter(cx)?;
    expect_said("woken or moved", &said(words.requeue(0)), &Ok(1))?;
    expect_said("the waiter that owns the lock", &peer.join()?, &Ok(1))?;
    cx.expect_eq("the lock at the end", words.mutex_word(), 0)
}

const HELD_TARGET: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_CMP_REQUEUE_PI")],
    ..probe(
        "sync.futex.requeue-pi.held-target",
        "waiters moved to a held PI lock own it one after the other",
        "a broadcast under the mutex is the usual case: all waiters queue at the lock, by priority, and none is lost",
        held_target,
    )
};

fn held_target(cx: &mut Context) -> Outcome {
    let words = words()?;
    cx.expect_ok(|| lock(words.mutex))?;
    let peers = [words.waiter(cx)?, words.waiter(cx)?, words.waiter(cx)?];
    expect_said("woken or moved", &said(words.requeue(99)), &Ok(3))?;
    cx.expect_eq("the lock's word", words.mutex_word(), futex::own_tid() | WAITERS)?;
    expect_said("waiters left at the condition", &said(futex::wake(words.cond, 9)), &Ok(0))?;
    for peer in &peers {
        super::tools::still_asleep(cx, "a waiter that was moved", peer)?;
    }
    cx.expect_ok(|| unlock(words.mutex))?;
    for peer in peers {
        expect_said("the waiter that owns the lock", &peer.join()?, &Ok(1))?;
    }
    cx.expect_eq("the lock at the end", words.mutex_word(), 0)
}

const LIMIT: Probe = Probe {
    spec: &[man("futex(2)", "ETIMEDOUT"), man("futex(2)", "FUTEX_WAIT_REQUEUE_PI")],
    ..probe(
        "sync.futex.requeue-pi.limit",
        "a waiter that nobody moves gives ETIMEDOUT, not early, without the lock",
        "pthread_cond_timedwait takes the mutex itself after it; owning it already would be a deadlock with oneself",
        limit,
    )
};

fn limit(cx: &mut Context) -> Outcome {
    let words = words()?;
    for (flag, clock) in [(0, CLOCK_MONOTONIC), (FUTEX_CLOCK_REALTIME, CLOCK_REALTIME)] {
        let end = futex::after(clock, SHORT);
        let op = FUTEX_WAIT_REQUEUE_PI | flag;
        cx.expect_errno(ETIMEDOUT, || futex::timed(words.cond, op, 0, Some(&end), words.mutex, 0))?;
        cx.expect("the time on return", futex::reached(clock, &end), "the limit or later", sys::clock(clock))?;
        cx.expect_eq("the lock", words.mutex_word(), 0)?;
    }
    Ok(())
}

const LIMIT_AFTER_MOVE: Probe = Probe {
    spec: &[man("futex(2)", "ETIMEDOUT"), kernel("kernel/futex/requeue.c", "futex_wait_requeue_pi")],
    ..probe(
        "sync.futex.requeue-pi.limit-after-move",
        "the limit holds on after the move to a held lock: ETIMEDOUT",
        "a deadline does not end because a signal came; a held mutex must not make it endless",
        limit_after_move,
    )
};

fn limit_after_move(cx: &mut Context) -> Outcome {
    let words = words()?;
    cx.expect_ok(|| lock(words.mutex))?;
    // On a loaded machine the short limits pass before the move: then once more with a longer one.
    for millis in [4, 30, 250, 2_000] {
        let peer = sleeper(cx, || words.wait(Duration::from_millis(millis)));
        let Ok(peer) = peer else { continue };
        let moved = words.requeue(1)?;
        expect_said("the waiter", &peer.join()?, &Err(ETIMEDOUT))?;
        if moved == 1 {
            cx.expect_eq("the owner", words.mutex_word() & TID_MASK, futex::own_tid())?;
            return cx.expect_ok(|| unlock(words.mutex)).map(drop);
        }
    }
    Err(Stop::broken("no waiter could be moved before its limit"))
}

/// A waiter with a handler.
fn with_handler(cx: &mut Context, words: &Words) -> Result<Peer<Said>, Stop> {
    let peer = cx.fork(|_| {
        futex::catch_signal(0)?;
        Ok(words.wait(LOST))
    })?;
    asleep(cx, peer)
}

const HANDLER_BEFORE: Probe = Probe {
    spec: &[kernel("kernel/futex/requeue.c", "handle_early_requeue_pi_wakeup, ERESTARTNOINTR")],
    ..probe(
        "sync.futex.requeue-pi.handler-before-move",
        "a signal handler does not end the wait for a move",
        "condition variables have no EINTR by POSIX, and the signal to come must still find its waiter",
        |cx| {
            let words = words()?;
            let peer = with_handler(cx, &words)?;
            peer.signal(futex::SIGNAL)?;
            let peer = asleep_again(cx, peer)?;
            words.finish(peer)
        },
    )
};

const HANDLER_AFTER: Probe = Probe {
    spec: &[kernel("kernel/futex/requeue.c", "futex_wait_requeue_pi, EWOULDBLOCK")],
    ..probe(
        "sync.futex.requeue-pi.handler-after-move",
        "a handler after the move ends the wait with EAGAIN, without the lock",
        "the caller then locks by itself; it must not find the lock its own already",
        handler_after,
    )
};

fn handler_after(cx: &mut Context) -> Outcome {
    let words = words()?;
    cx.expect_ok(|| lock(words.mutex))?;
    let peer = with_handler(cx, &words)?;
    expect_said("woken or moved", &said(words.requeue(1)), &Ok(1))?;
    peer.signal(futex::SIGNAL)?;
    expect_said("the waiter", &peer.join()?, &Err(EAGAIN))?;
    cx.expect_eq("the owner", words.mutex_word() & TID_MASK, futex::own_tid())?;
    cx.expect_ok(|| unlock(words.mutex)).map(drop)
}
