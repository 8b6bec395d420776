//! The futex2 calls: futex_wait, futex_wake and futex_requeue.

use super::tools::{LOST, SHORT, Said, expect_said, said, sleeper, still_asleep, wait_for_wake};
use super::waitv::page;
use libc::{CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_REALTIME, EAGAIN, EFAULT, EINVAL, ETIMEDOUT};
use shmcheck_probe::sys::futex::{self, MATCH_ANY, SIZE_U32, WaitWord};
use shmcheck_probe::{Clause, Context, Isolate, Map, Outcome, Peer, Probe, Stop, Sys, kernel, sys};
use std::sync::atomic::Ordering::SeqCst;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &WAIT2_WAKE2,
    &WAKE2_NONE,
    &WAKE2_COUNT,
    &MASK2,
    &WAIT2_DIFFERS,
    &WAIT2_LIMIT,
    &WAIT2_REFUSED,
    &WAKE2_REFUSED,
    &REQUEUE2_MOVES,
    &REQUEUE2_DIFFERS,
    &REQUEUE2_REFUSED,
    &OLD_AND_NEW,
];

const FUTEX2: &[Clause] = &[kernel("kernel/futex/syscalls.c", "futex_wait, futex_wake, futex_requeue")];

#[track_caller]
const fn futex2(id: &'static str, title: &'static str, why: &'static str, run: fn(&mut Context) -> Outcome) -> Probe {
    Probe {
        title,
        why,
        varies: "Linux 6.7; filters older than the calls refuse them, and should do so with ENOSYS",
        spec: FUTEX2,
        calls: &[Sys::FutexWait, Sys::FutexWake, Sys::FutexRequeue],
        isolate: Isolate::Cell,
        ..Probe::new(id, run)
    }
}

/// Sleeps by the new call.
fn wait2(address: usize, mask: u64) -> Said {
    let limit = futex::after(CLOCK_MONOTONIC, LOST);
    said(futex::wait2(address, 0, mask, SIZE_U32, Some(&limit), CLOCK_MONOTONIC))
}

fn wake2(address: usize, count: i32) -> sys::Result<i64> {
    futex::wake2(address, MATCH_ANY.into(), count, SIZE_U32)
}

const WAIT2_WAKE2: Probe = futex2(
    "sync.futex2.wake.crosses",
    "futex_wake reaches a process that sleeps in futex_wait",
    "io_uring and new C libraries move to these calls; between processes they must work as the old ones",
    |cx| {
        let map = page()?;
        let peer = sleeper(cx, || wait2(map.address(), 1))?;
        expect_said("waiters woken at another word", &said(wake2(map.address() + 4, 9)), &Ok(0))?;
        expect_said("waiters woken", &said(wake2(map.address(), 9)), &Ok(1))?;
        expect_said("futex_wait", &peer.join()?, &Ok(0))
    },
);

const WAKE2_NONE: Probe = futex2(
    "sync.futex2.wake.count-zero",
    "futex_wake with a count of 0 wakes nobody",
    "the old call wakes one then, an error of twenty years that the new one does not repeat",
    |cx| {
        let map = page()?;
        let peer = sleeper(cx, || wait2(map.address(), 1))?;
        expect_said("waiters woken", &said(wake2(map.address(), 0)), &Ok(0))?;
        still_asleep(cx, "the waiter", &peer)?;
        expect_said("waiters woken with a count of 1", &said(wake2(map.address(), 1)), &Ok(1))?;
        expect_said("futex_wait", &peer.join()?, &Ok(0))
    },
);

const WAKE2_COUNT: Probe = futex2(
    "sync.futex2.wake.at-most",
    "futex_wake wakes as many as asked for",
    "waking all for one is a herd that fights for one lock",
    |cx| {
        let map = page()?;
        let peers = [sleeper(cx, || wait2(map.address(), 1))?, sleeper(cx, || wait2(map.address(), 1))?];
        expect_said("woken of 2 with a count of 1", &said(wake2(map.address(), 1)), &Ok(1))?;
        expect_said("woken then", &said(wake2(map.address(), 9)), &Ok(1))?;
        peers.into_iter().try_for_each(|peer| expect_said("futex_wait", &peer.join()?, &Ok(0)))
    },
);

const MASK2: Probe = futex2(
    "sync.futex2.wake.mask",
    "futex_wake reaches only waiters that share a bit with its mask",
    "readers and writers of one lock sleep under different bits",
    |cx| {
        let map = page()?;
        let peer = sleeper(cx, || wait2(map.address(), 0b10))?;
        expect_said("woken with another bit", &said(futex::wake2(map.address(), 0b01, 9, SIZE_U32)), &Ok(0))?;
        expect_said("woken with the waiter's bit", &said(futex::wake2(map.address(), 0b11, 9, SIZE_U32)), &Ok(1))?;
        expect_said("futex_wait", &peer.join()?, &Ok(0))
    },
);

const WAIT2_DIFFERS: Probe = futex2(
    "sync.futex2.wait.differs-eagain",
    "futex_wait does not sleep when the word differs: EAGAIN",
    "check and sleep are one step, as with the old call",
    |_| {
        let map = page()?;
        map.atomic(0).store(1, SeqCst);
        expect_said("futex_wait", &wait2(map.address(), 1), &Err(EAGAIN))
    },
);

const WAIT2_LIMIT: Probe = futex2(
    "sync.futex2.wait.limit",
    "futex_wait gives ETIMEDOUT no earlier than its limit, by either clock",
    "the new call takes the clock as an argument; the wrong one would wait for years",
    |cx| {
        let map = page()?;
        for clock in [CLOCK_MONOTONIC, CLOCK_REALTIME] {
            let end = futex::after(clock, SHORT);
            cx.expect_errno(ETIMEDOUT, || futex::wait2(map.address(), 0, 1, SIZE_U32, Some(&end), clock))?;
            cx.expect("the time on return", futex::reached(clock, &end), "the limit or later", sys::clock(clock))?;
        }
        Ok(())
    },
);

const WAIT2_REFUSED: Probe = futex2(
    "sync.futex2.wait.einval",
    "futex_wait refuses other sizes, unknown flags, masks and clocks: EINVAL",
    "sizes of one, two and eight bytes are reserved; a kernel that ignores them compares the wrong bytes",
    |cx| {
        let map = page()?;
        let end = futex::after(CLOCK_MONOTONIC, SHORT);
        let wait = |address: usize, val: u64, mask: u64, flags: u32, clock: i32| {
            futex::wait2(address, val, mask, flags, Some(&end), clock)
        };
        let at = map.address();
        for flags in [0, 1, 3, SIZE_U32 | 0x4000, 0x8000_0000 | SIZE_U32] {
            cx.expect_errno(EINVAL, || wait(at, 0, 1, flags, CLOCK_MONOTONIC))?;
        }
        cx.expect_errno(EINVAL, || wait(at, 0, 0, SIZE_U32, CLOCK_MONOTONIC))?;
        cx.expect_errno(EINVAL, || wait(at, 0, 1 << 32, SIZE_U32, CLOCK_MONOTONIC))?;
        cx.expect_errno(EINVAL, || wait(at, 1 << 32, 1, SIZE_U32, CLOCK_MONOTONIC))?;
        cx.expect_errno(EINVAL, || wait(at + 2, 0, 1, SIZE_U32, CLOCK_MONOTONIC))?;
        cx.expect_errno(EINVAL, || wait(at, 0, 1, SIZE_U32, CLOCK_PROCESS_CPUTIME_ID))?;
        cx.expect_errno(EFAULT, || wait(futex::unmapped()?, 0, 1, SIZE_U32, CLOCK_MONOTONIC))
    },
);

const WAKE2_REFUSED: Probe = futex2(
    "sync.futex2.wake.einval",
    "futex_wake refuses other sizes, unknown flags and empty masks: EINVAL",
    "a wake that goes nowhere without an error is a hang in another process",
    |cx| {
        let map = page()?;
        let at = map.address();
        expect_said("waiters woken", &said(wake2(at, 1)), &Ok(0))?;
        for flags in [0, 1, 3, SIZE_U32 | 0x4000] {
            cx.expect_errno(EINVAL, || futex::wake2(at, 1, 1, flags))?;
        }
        cx.expect_errno(EINVAL, || futex::wake2(at, 0, 1, SIZE_U32))?;
        cx.expect_errno(EINVAL, || futex::wake2(at, 1 << 32, 1, SIZE_U32))?;
        cx.expect_errno(EINVAL, || futex::wake2(at + 2, 1, 1, SIZE_U32))?;
        cx.expect_errno(EFAULT, || futex::wake2(futex::unmapped()?, 1, 1, SIZE_U32))
    },
);

/// The pair that futex_requeue takes, with the value expected at the first word.
fn pair(map: &Map, val: u32) -> [WaitWord; 2] {
    [WaitWord::shared(map.address(), val), WaitWord::shared(map.address() + 64, 0)]
}

fn two_sleepers(cx: &mut Context, map: &Map) -> Result<[Peer<Said>; 2], Stop> {
    Ok([sleeper(cx, || wait2(map.address(), 1))?, sleeper(cx, || wait2(map.address(), 1))?])
}

const REQUEUE2_MOVES: Probe = futex2(
    "sync.futex2.requeue.moves",
    "futex_requeue wakes some waiters and moves the rest to the second word",
    "condition variables of new C libraries broadcast by it",
    |cx| {
        let map = page()?;
        let peers = two_sleepers(cx, &map)?;
        expect_said("woken or moved", &said(futex::requeue2(Some(&pair(&map, 0)), 0, 1, 9)), &Ok(2))?;
        expect_said("waiters at the first word", &said(wake2(map.address(), 9)), &Ok(0))?;
        expect_said("waiters at the second word", &said(wake2(map.address() + 64, 9)), &Ok(1))?;
        peers.into_iter().try_for_each(|peer| expect_said("futex_wait", &peer.join()?, &Ok(0)))
    },
);

const REQUEUE2_DIFFERS: Probe = futex2(
    "sync.futex2.requeue.differs-eagain",
    "futex_requeue moves nobody when the first word differs: EAGAIN",
    "a waiter that came late is not moved by a signal that was not for it",
    |cx| {
        let map = page()?;
        let peers = two_sleepers(cx, &map)?;
        cx.expect_errno(EAGAIN, || futex::requeue2(Some(&pair(&map, 7)), 0, 1, 9))?;
        expect_said("waiters at the second word", &said(wake2(map.address() + 64, 9)), &Ok(0))?;
        expect_said("waiters at the first word", &said(wake2(map.address(), 9)), &Ok(2))?;
        peers.into_iter().try_for_each(|peer| expect_said("futex_wait", &peer.join()?, &Ok(0)))
    },
);

const REQUEUE2_REFUSED: Probe = futex2(
    "sync.futex2.requeue.einval",
    "futex_requeue refuses flags, negative numbers and a missing pair: EINVAL",
    "a call that has no flags yet must keep the place free for them",
    |cx| {
        let map = page()?;
        let good = pair(&map, 0);
        expect_said("woken or moved of nobody", &said(futex::requeue2(Some(&good), 0, 1, 1)), &Ok(0))?;
        cx.expect_errno(EINVAL, || futex::requeue2(Some(&good), 1, 1, 1))?;
        cx.expect_errno(EINVAL, || futex::requeue2(None, 0, 1, 1))?;
        cx.expect_errno(EINVAL, || futex::requeue2(Some(&good), 0, -1, 1))?;
        cx.expect_errno(EINVAL, || futex::requeue2(Some(&good), 0, 1, -1))?;
        let bad = [good[0], WaitWord { flags: 0, ..good[1] }];
        cx.expect_errno(EINVAL, || futex::requeue2(Some(&bad), 0, 1, 1))
    },
);

const OLD_AND_NEW: Probe = futex2(
    "sync.futex2.wake.reaches-old-waiter",
    "the old and the new calls meet at one word",
    "a program with an old C library and one with a new share a lock: each must wake the other",
    |cx| {
        let map = page()?;
        let old = sleeper(cx, || wait_for_wake(map.address(), 0))?;
        expect_said("old waiters woken by the new call", &said(wake2(map.address(), 9)), &Ok(1))?;
        expect_said("FUTEX_WAIT", &old.join()?, &Ok(0))?;
        let new = sleeper(cx, || wait2(map.address(), 1))?;
        expect_said("new waiters woken by the old call", &said(futex::wake(map.address(), 9)), &Ok(1))?;
        expect_said("futex_wait", &new.join()?, &Ok(0))
    },
);
