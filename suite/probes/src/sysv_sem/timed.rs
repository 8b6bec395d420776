//! semtimedop(2): a wait with an end.

use super::helpers::{SLEEPS_IN, errno_of, expect_end, settle};
use libc::{EAGAIN, EFAULT, EINVAL, timespec};
use shmcheck_probe::sys::{self, SemOp, millis};
use shmcheck_probe::{Context, Outcome, Probe, Sys, man};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &TAKER_EXPIRES,
    &ZERO_EXPIRES,
    &ARRAY_EXPIRES,
    &STEADY_USE_EXPIRES,
    &NO_TIME,
    &POSTED_IN_TIME,
    &LONGEST,
    &NULL_WAITS,
    &DONE_AT_ONCE,
    &NANOSECONDS_TOO_MANY,
    &NANOSECONDS_NEGATIVE,
    &SECONDS_NEGATIVE,
    &BAD_ADDRESS,
    &LEAVES_QUEUE,
];

const CALLS: &[Sys] = &[Sys::Semtimedop, Sys::Semctl];

/// The call is refused with EAGAIN, and not before 3 ms are over; nothing of it is done.
fn expires(cx: &mut Context, ops: &[SemOp], settled: bool) -> Outcome {
    const TIME_NS: i64 = 3_000_000;
    let set = cx.sem_set(2)?;
    if settled {
        settle(&set)?;
    }
    set.set_all(&[1, 1])?;
    let now = || {
        let (seconds, nanoseconds) = sys::clock(libc::CLOCK_MONOTONIC);
        seconds * 1_000_000_000 + nanoseconds
    };
    let start = now();
    cx.expect_errno(EAGAIN, || sys::semtimedop(set.id, ops, &timespec { tv_sec: 0, tv_nsec: TIME_NS }))?;
    let waited = now() - start;
    cx.expect("nanoseconds until EAGAIN", waited >= TIME_NS, format!("{TIME_NS} or more"), waited)?;
    cx.expect_eq("values", set.values()?, vec![1, 1])?;
    for num in 0..2 {
        cx.expect_eq("processes that wait", (set.waiting(num)?, set.waiting_zero(num)?), (0, 0))?;
    }
    Ok(())
}

const TAKER_EXPIRES: Probe = Probe {
    title: "a wait for an increase ends with EAGAIN, not before its time",
    why: "a lock with a timeout that ends early makes a busy server drop requests",
    spec: &[man("semop(2)", "EAGAIN"), man("semop(2)", "semtimedop()")],
    calls: CALLS,
    ..Probe::new("sysv.sem.timed.taker-expires", |cx| expires(cx, &[SemOp::add(0, -2)], false))
};

const ZERO_EXPIRES: Probe = Probe {
    title: "a wait for zero ends with EAGAIN, not before its time",
    why: "a coordinator reports which workers are late; too early it accuses all",
    spec: &[man("semop(2)", "EAGAIN"), man("semop(2)", "semtimedop()")],
    calls: CALLS,
    ..Probe::new("sysv.sem.timed.zero-expires", |cx| expires(cx, &[SemOp::zero(1)], false))
};

const ARRAY_EXPIRES: Probe = Probe {
    title: "an array whose time is over is not done at all: EAGAIN",
    why: "the operation that could have been done alone must not stay done",
    spec: &[man("semop(2)", "EAGAIN"), man("semop(2)", "semtimedop()")],
    calls: CALLS,
    ..Probe::new("sysv.sem.timed.array-expires", |cx| expires(cx, &[SemOp::add(0, -1), SemOp::add(1, -2)], false))
};

const STEADY_USE_EXPIRES: Probe = Probe {
    title: "a wait on a set in steady use keeps its time as well",
    why: "busy sets take the kernel's short way with one semaphore's lock",
    spec: &[man("semop(2)", "semtimedop()"), shmcheck_probe::kernel("ipc/sem.c", "sem_lock")],
    calls: CALLS,
    ..Probe::new("sysv.sem.timed.steady-use-expires", |cx| expires(cx, &[SemOp::add(0, -2)], true))
};

const NO_TIME: Probe = Probe {
    title: "a timeout of 0 tries once: EAGAIN",
    why: "pollers pass 0; waiting for ever there stops an event loop",
    spec: &[man("semop(2)", "semtimedop()")],
    calls: CALLS,
    ..Probe::new("sysv.sem.timed.no-time", |cx| {
        let set = cx.sem_set(1)?;
        cx.expect_errno(EAGAIN, || sys::semtimedop(set.id, &[SemOp::add(0, -1)], &millis(0)))?;
        set.set(0, 1)?;
        cx.expect_ok(|| sys::semtimedop(set.id, &[SemOp::add(0, -1)], &millis(0)))?;
        cx.expect_eq("value", set.value(0)?, 0)
    })
};

const POSTED_IN_TIME: Probe = Probe {
    title: "an increase within the time ends the wait with success",
    why: "with a timeout as without one the lock has to be handed over",
    spec: &[man("semop(2)", "semtimedop()")],
    calls: CALLS,
    ..Probe::new("sysv.sem.timed.posted", |cx| woken(cx, timespec { tv_sec: 3_600, tv_nsec: 0 }))
};

const LONGEST: Probe = Probe {
    title: "the longest timeout that fits does not end at once",
    why: "'wait practically for ever' is often written as the largest number; overflow turns it into no wait",
    spec: &[man("semop(2)", "semtimedop()"), shmcheck_probe::kernel("ipc/sem.c", "__do_semtimedop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.timed.longest", |cx| woken(cx, timespec { tv_sec: i64::MAX, tv_nsec: 999_999_999 }))
};

fn woken(cx: &mut Context, timeout: timespec) -> Outcome {
    let set = cx.sem_set(1)?;
    let id = set.id;
    let peer = cx.fork(move |_| Ok(errno_of(sys::semtimedop(id, &[SemOp::add(0, -1)], &timeout))))?;
    cx.until("the peer waits or has ended", || Ok(set.waiting(0)? == 1 || peer.has_result_within(0)?))?;
    set.op(&[SemOp::add(0, 1)])?;
    expect_end(cx, peer, 0)?;
    cx.expect_eq("value", set.value(0)?, 0)
}

const NULL_WAITS: Probe = Probe {
    title: "without a timeout semtimedop waits like semop",
    why: "wrappers pass NULL for 'no limit' and must not get a bad address or no wait",
    spec: &[man("semop(2)", "semtimedop()")],
    calls: CALLS,
    ..Probe::new("sysv.sem.timed.null-waits", |cx| {
        let set = cx.sem_set(1)?;
        let id = set.id;
        let peer = cx.fork(move |_| Ok(errno_of(sys::semtimedop_at(id, &[SemOp::add(0, -1)], 0))))?;
        cx.until_sleeping_in(peer.pid(), SLEEPS_IN)?;
        set.op(&[SemOp::add(0, 1)])?;
        expect_end(cx, peer, 0)
    })
};

const DONE_AT_ONCE: Probe = Probe {
    title: "operations that can proceed need no time",
    why: "the usual case: the lock is free and the limit is not looked at",
    spec: &[man("semop(2)", "semtimedop()")],
    calls: CALLS,
    ..Probe::new("sysv.sem.timed.done-at-once", |cx| {
        let set = cx.sem_set(2)?;
        let ops = [SemOp::add(0, 2), SemOp::zero(1), SemOp::add(0, -1)];
        cx.expect_ok(|| sys::semtimedop(set.id, &ops, &timespec { tv_sec: 0, tv_nsec: 1 }))?;
        cx.expect_eq("values", set.values()?, vec![1, 0])
    })
};

/// A time that is none refuses the call, also where nothing would have to wait.
fn bad_time(cx: &mut Context, tv_sec: i64, tv_nsec: i64) -> Outcome {
    let set = cx.sem_set(1)?;
    cx.expect_ok(|| sys::semtimedop(set.id, &[SemOp::add(0, 1)], &timespec { tv_sec: 0, tv_nsec: 999_999_999 }))?;
    for op in [SemOp::add(0, -2), SemOp::add(0, 1)] {
        cx.expect_errno(EINVAL, || sys::semtimedop(set.id, &[op], &timespec { tv_sec, tv_nsec }))?;
    }
    cx.expect_eq("value", set.value(0)?, 1)
}

const NANOSECONDS_TOO_MANY: Probe = Probe {
    title: "a timeout with a whole second of nanoseconds is refused: EINVAL",
    why: "sums of times without carry are the usual mistake; silently accepted, waits become wrong",
    spec: &[man("timespec(3type)", ""), shmcheck_probe::kernel("include/linux/time64.h", "timespec64_valid")],
    calls: CALLS,
    ..Probe::new("sysv.sem.timed.nanoseconds-too-many", |cx| bad_time(cx, 0, 1_000_000_000))
};

const NANOSECONDS_NEGATIVE: Probe = Probe {
    title: "a timeout with negative nanoseconds is refused: EINVAL",
    why: "differences of times without borrow must not be taken for a wait of centuries",
    spec: &[man("timespec(3type)", ""), shmcheck_probe::kernel("include/linux/time64.h", "timespec64_valid")],
    calls: CALLS,
    ..Probe::new("sysv.sem.timed.nanoseconds-negative", |cx| bad_time(cx, 1, -1))
};

const SECONDS_NEGATIVE: Probe = Probe {
    title: "a timeout with negative seconds is refused: EINVAL",
    why: "a deadline that has passed gives a negative rest; the caller must hear of it rather than hang",
    spec: &[shmcheck_probe::kernel("include/linux/time64.h", "timespec64_valid")],
    calls: CALLS,
    ..Probe::new("sysv.sem.timed.seconds-negative", |cx| bad_time(cx, -1, 0))
};

const BAD_ADDRESS: Probe = Probe {
    title: "a timeout at a bad address is refused: EFAULT",
    why: "without the check a wild pointer becomes a random wait",
    spec: &[man("semop(2)", "EFAULT")],
    calls: CALLS,
    ..Probe::new("sysv.sem.timed.efault", |cx| {
        let set = cx.sem_set(1)?;
        for address in [1, usize::MAX & !0xfff] {
            cx.expect_errno(EFAULT, || sys::semtimedop_at(set.id, &[SemOp::add(0, 1)], address))?;
        }
        cx.expect_eq("value", set.value(0)?, 0)
    })
};

const LEAVES_QUEUE: Probe = Probe {
    title: "who gave up in time does not get a later token",
    why: "a token handed to a process that no longer waits is lost for everybody",
    spec: &[man("semop(2)", "semtimedop()")],
    calls: CALLS,
    ..Probe::new("sysv.sem.timed.leaves-queue", |cx| {
        let set = cx.sem_set(1)?;
        cx.expect_errno(EAGAIN, || sys::semtimedop(set.id, &[SemOp::add(0, -1)], &millis(1)))?;
        set.op(&[SemOp::add(0, 1)])?;
        cx.expect_eq("value", set.value(0)?, 1)
    })
};
