//! Condition variables, read-write locks, barriers and spin locks between processes: what each promises alone.

use super::tools::{LOST, SHORT, Said, bad_nanos, done, expect_said, lost, said, sleeper, still_asleep};
use libc::{CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_REALTIME, EBUSY, EINVAL, EOWNERDEAD, EPERM, ETIMEDOUT};
use shmcheck_probe::sys::futex;
use shmcheck_probe::sys::pthread::{Attribute, Cond, Mutex, MutexKind, attribute};
use shmcheck_probe::{Clause, Context, Isolate, Map, Outcome, Peer, Probe, Stop, Sys, posix, sys};
use std::sync::atomic::Ordering::SeqCst;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &SIGNAL_ONE,
    &BROADCAST_ALL,
    &BROADCAST_INHERIT,
    &SIGNAL_NOT_KEPT,
    &MUTEX_HELD_AFTER,
    &MUTEX_FREE_WHILE,
    &LIMIT,
    &LIMIT_CLOCK,
    &LIMIT_CLOCKWAIT,
    &LIMIT_EINVAL,
    &CLOCK_DEFAULT,
    &CLOCK_EINVAL,
    &NOT_OWNER,
    &OWNER_DIES,
];

#[track_caller]
const fn probe(
    id: &'static str,
    title: &'static str,
    why: &'static str,
    spec: &'static [Clause],
    run: fn(&mut Context) -> Outcome,
) -> Probe {
    Probe { title, why, spec, calls: &[Sys::Futex], isolate: Isolate::Cell, ..Probe::new(id, run) }
}

/// Where the mutex lies; the condition variable lies before it.
const MUTEX: usize = 128;
/// Where the count of those who passed lies.
const COUNT: usize = 512;

struct Pair {
    map: Map,
}

impl Pair {
    fn new(kind: MutexKind, clock: i32) -> sys::Result<Self> {
        let pair = Self { map: Map::shared_anonymous(sys::page_size())? };
        pair.mutex().init(kind)?;
        pair.cond().init(clock)?;
        Ok(pair)
    }

    fn mutex(&self) -> Mutex<'_> {
        Mutex::at(&self.map, MUTEX)
    }

    fn cond(&self) -> Cond<'_> {
        Cond::at(&self.map, 0)
    }

    /// Waits once, without a predicate, and counts itself while it holds the mutex.
    fn wait(&self, limit: &libc::timespec) -> Said {
        self.mutex().lock().map_err(|e| e.errno)?;
        let answer = done(self.cond().timed_wait(self.mutex(), limit));
        self.map.atomic(COUNT).fetch_add(1, SeqCst);
        self.mutex().unlock().map_err(|e| e.errno)?;
        answer
    }

    /// Peers that wait; all sleep on the condition when it returns.
    fn waiters(&self, cx: &mut Context, count: usize) -> Result<Vec<Peer<Said>>, Stop> {
        let limit = lost();
        let peers: Result<Vec<_>, Stop> = (0..count).map(|_| sleeper(cx, || self.wait(&limit))).collect();
        // Who holds the mutex here knows that no waiter is still before its wait.
        self.mutex().lock()?;
        self.mutex().unlock()?;
        peers
    }

    fn passed(&self) -> u32 {
        self.map.atomic(COUNT).load(SeqCst)
    }
}

const SIGNAL_ONE: Probe =
    probe(
        "sync.cond.signal.at-least-one",
        "each pthread_cond_signal lets a waiting process pass, until none is left",
        "a work queue signals once per job: with one process asleep too many a job waits for the next",
        &[posix("pthread_cond_signal")],
        |cx| {
            let pair = Pair::new(MutexKind::NORMAL, CLOCK_REALTIME)?;
            let peers = pair.waiters(cx, 3)?;
            for wanted in 1..=3 {
                cx.expect_ok(|| pair.cond().signal())?;
                super::tools::expect_soon("pthread_cond_signal", "one more process passes", || {
                    Ok(pair.passed() >= wanted)
                })?;
            }
            peers.into_iter().try_for_each(|peer| expect_said("the wait", &peer.join()?, &Ok(0)))
        },
    );
const BROADCAST_ALL: Probe = probe(
    "sync.cond.broadcast.all",
    "pthread_cond_broadcast lets every waiting process pass",
    "'shutting down' is told to all workers by it; one that is left keeps the service from stopping",
    &[posix("pthread_cond_broadcast")],
    |cx| broadcast(cx, MutexKind::NORMAL),
);
const BROADCAST_INHERIT: Probe = probe(
    "sync.cond.broadcast.inherit",
    "a broadcast with a priority-inheriting mutex reaches every process",
    "the waiters queue for a lock that the kernel hands on; none may be forgotten",
    &[posix("pthread_cond_broadcast"), posix("pthread_mutexattr_setprotocol")],
    |cx| broadcast(cx, MutexKind::INHERIT),
);
fn broadcast(cx: &mut Context, kind: MutexKind) -> Outcome {
    let pair = Pair::new(kind, CLOCK_REALTIME)?;
    let peers = pair.waiters(cx, 3)?;
    cx.expect_ok(|| pair.mutex().lock())?;
    cx.expect_ok(|| pair.cond().broadcast())?;
    cx.expect_eq("processes that passed while the mutex was held", pair.passed(), 0)?;
    cx.expect_ok(|| pair.mutex().unlock())?;
    peers.into_iter().try_for_each(|peer| expect_said("the wait", &peer.join()?, &Ok(0)))?;
    cx.expect_eq("processes that passed", pair.passed(), 3)
}

const SIGNAL_NOT_KEPT: Probe = probe(
    "sync.cond.signal.not-kept",
    "a signal without a waiter is not kept for a later one",
    "the predicate is the memory, not the condition variable; semaphores are for counting",
    &[posix("pthread_cond_signal")],
    |cx| {
        let pair = Pair::new(MutexKind::NORMAL, CLOCK_REALTIME)?;
        cx.expect_ok(|| pair.cond().signal())?;
        cx.expect_ok(|| pair.cond().broadcast())?;
        let peers = pair.waiters(cx, 1)?;
        for peer in &peers {
            still_asleep(cx, "the one who came later", peer)?;
        }
        cx.expect_ok(|| pair.cond().signal())?;
        peers.into_iter().try_for_each(|peer| expect_said("the wait", &peer.join()?, &Ok(0)))
    },
);
const MUTEX_HELD_AFTER: Probe = probe(
    "sync.cond.wait.mutex-held-after",
    "the wait returns with the mutex held, also on ETIMEDOUT",
    "a caller that unlocks what it does not hold lets two processes in",
    &[posix("pthread_cond_timedwait")],
    |cx| {
        let pair = Pair::new(MutexKind::ERRORCHECK, CLOCK_REALTIME)?;
        cx.expect_ok(|| pair.mutex().lock())?;
        let limit = futex::after(CLOCK_REALTIME, SHORT);
        cx.expect_errno(ETIMEDOUT, || pair.cond().timed_wait(pair.mutex(), &limit))?;
        let other: Said = cx.elsewhere(|_| Ok(done(pair.mutex().try_lock())))?;
        expect_said("trylock elsewhere", &other, &Err(EBUSY))?;
        cx.expect_ok(|| pair.mutex().unlock())
    },
);
const MUTEX_FREE_WHILE: Probe = probe(
    "sync.cond.wait.mutex-free-while",
    "the mutex is free for other processes while one waits",
    "a wait that keeps the mutex is a deadlock with whoever wants to signal",
    &[posix("pthread_cond_wait")],
    |cx| {
        let pair = Pair::new(MutexKind::NORMAL, CLOCK_REALTIME)?;
        // A wait without limit, the usual form: the signal below must end it.
        let peer = sleeper(cx, || {
            done(pair.mutex().lock().and_then(|()| pair.cond().wait(pair.mutex())).and_then(|()| pair.mutex().unlock()))
        })?;
        cx.expect_ok(|| pair.mutex().timed_lock(&lost()))?;
        cx.expect_ok(|| pair.mutex().unlock())?;
        cx.expect_ok(|| pair.cond().signal())?;
        expect_said("the wait", &peer.join()?, &Ok(0))
    },
);

/// A wait that nobody ends, on a condition variable of one clock, gives ETIMEDOUT not before the limit.
fn not_early(
    cx: &Context,
    made_with: i32,
    clock: i32,
    wait: fn(&Pair, i32, &libc::timespec) -> sys::Result<()>,
) -> Outcome {
    let pair = Pair::new(MutexKind::NORMAL, made_with)?;
    cx.expect_ok(|| pair.mutex().lock())?;
    let end = futex::after(clock, SHORT);
    cx.expect_errno(ETIMEDOUT, || wait(&pair, clock, &end))?;
    cx.expect("the time on return", futex::reached(clock, &end), "the limit or later", sys::clock(clock))
}

const LIMIT: Probe = probe(
    "sync.cond.timedwait.not-early",
    "pthread_cond_timedwait gives ETIMEDOUT no earlier than its limit",
    "heartbeats are counted by it; early ones report a living partner as dead",
    &[posix("pthread_cond_timedwait")],
    |cx| not_early(cx, CLOCK_REALTIME, CLOCK_REALTIME, |pair, _, end| pair.cond().timed_wait(pair.mutex(), end)),
);
const LIMIT_CLOCK: Probe = probe(
    "sync.cond.timedwait.clock-attribute",
    "the limit is of the clock that the condition variable was made with",
    "a monotonic limit read as wall-clock time is decades ago, and every wait returns at once",
    &[posix("pthread_condattr_setclock")],
    |cx| not_early(cx, CLOCK_MONOTONIC, CLOCK_MONOTONIC, |pair, _, end| pair.cond().timed_wait(pair.mutex(), end)),
);
const LIMIT_CLOCKWAIT: Probe = probe(
    "sync.cond.clockwait.not-early",
    "pthread_cond_clockwait waits by the clock of the call",
    "C++'s wait_until with a steady clock is built on it",
    &[posix("pthread_cond_clockwait")],
    |cx| {
        not_early(cx, CLOCK_REALTIME, CLOCK_MONOTONIC, |pair, clock, end| {
            pair.cond().clock_wait(pair.mutex(), clock, end)
        })
    },
);
const LIMIT_EINVAL: Probe = probe(
    "sync.cond.timedwait.nanos-einval",
    "a limit of impossible nanoseconds is refused with the mutex held: EINVAL",
    "after the error the caller goes on and unlocks; the mutex must still be its own",
    &[posix("pthread_cond_timedwait")],
    |cx| {
        let pair = Pair::new(MutexKind::ERRORCHECK, CLOCK_REALTIME)?;
        cx.expect_ok(|| pair.mutex().lock())?;
        for nanos in [-1, 1_000_000_000] {
            cx.expect_errno(EINVAL, || pair.cond().timed_wait(pair.mutex(), &bad_nanos(nanos)))?;
        }
        cx.expect_ok(|| pair.mutex().unlock())
    },
);
const CLOCK_DEFAULT: Probe = probe(
    "sync.cond.attr.clock-default",
    "a condition variable's clock is the wall clock unless set otherwise",
    "programs that assume the other wait for minutes, or not at all",
    &[posix("pthread_condattr_getclock")],
    |cx| {
        let (value, said, after) = attribute(Attribute::CondClock, &[CLOCK_MONOTONIC])?;
        cx.expect_eq("the clock of a fresh object", value, CLOCK_REALTIME)?;
        said.into_iter().try_for_each(|answer| cx.expect_ok(|| answer))?;
        cx.expect_eq("the clock read back", after, CLOCK_MONOTONIC)
    },
);
const CLOCK_EINVAL: Probe = probe(
    "sync.cond.attr.clock-einval",
    "a CPU-time clock is refused for a condition variable: EINVAL",
    "it stands still while the process waits: the limit would never come",
    &[posix("pthread_condattr_setclock")],
    |cx| {
        let (_, said, after) = attribute(Attribute::CondClock, &[CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID])?;
        cx.expect_errno(EINVAL, || said[1])?;
        cx.expect_eq("the clock after the refusal", after, CLOCK_MONOTONIC)
    },
);
const NOT_OWNER: Probe = probe(
    "sync.cond.wait.not-owner-eperm",
    "waiting with an error-checking mutex that another process holds: EPERM",
    "a wait that frees a stranger's lock is the worst of the mistakes with condition variables",
    &[posix("pthread_cond_wait")],
    |cx| {
        let pair = Pair::new(MutexKind::ERRORCHECK, CLOCK_REALTIME)?;
        cx.expect_ok(|| pair.mutex().lock())?;
        let limit = futex::after(CLOCK_REALTIME, LOST);
        let answers: (Said, Said) =
            cx.elsewhere(|_| Ok((done(pair.cond().timed_wait(pair.mutex(), &limit)), done(pair.mutex().try_lock()))))?;
        expect_said("the wait elsewhere", &answers.0, &Err(EPERM))?;
        expect_said("trylock elsewhere", &answers.1, &Err(EBUSY))?;
        cx.expect_ok(|| pair.mutex().unlock())
    },
);
const OWNER_DIES: Probe = probe(
    "sync.cond.wait.owner-dies-eownerdead",
    "a wait whose robust mutex was left by a dead owner returns EOWNERDEAD",
    "the producer dies while it fills the buffer; the consumer must not read on as if nothing had happened",
    &[posix("pthread_cond_wait")],
    |cx| {
        let pair = Pair::new(MutexKind::ROBUST, CLOCK_REALTIME)?;
        let limit = lost();
        let peer = sleeper(cx, || {
            let wait = pair.mutex().lock().and_then(|()| pair.cond().timed_wait(pair.mutex(), &limit));
            let consistent = pair.mutex().consistent().and_then(|()| pair.mutex().unlock());
            done(wait).and_then(|_| said(consistent.map(|()| 0)))
        })?;
        // Signals while it holds the mutex, and dies with it: the waiter must take the mutex from the dead.
        cx.elsewhere(|_| Ok(pair.mutex().lock().and_then(|()| pair.cond().signal())?))?;
        expect_said("the wait", &peer.join()?, &Err(EOWNERDEAD))?;
        cx.expect_ok(|| pair.mutex().timed_lock(&lost()))
    },
);
