//! pthread mutexes between processes: attributes, kinds, who may unlock, time limits.

use super::tools::{LOST, SHORT, Said, bad_nanos, done, expect_said, sleeper};
use libc::{CLOCK_MONOTONIC, CLOCK_REALTIME, EBUSY, EDEADLK, EINVAL, EPERM, ETIMEDOUT};
use shmcheck_probe::sys::futex;
use shmcheck_probe::sys::pthread::{
    self, Attribute, Mutex, MutexKind, PRIO_INHERIT, PTHREAD_MUTEX_RECURSIVE, PTHREAD_PROCESS_PRIVATE,
    PTHREAD_PROCESS_SHARED, attribute,
};
use shmcheck_probe::{Clause, Context, Isolate, Map, Outcome, Probe, Sys, man, posix, sys};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &MUTEX_PRIVATE,
    &COND_PRIVATE,
    &RWLOCK_PRIVATE,
    &BARRIER_PRIVATE,
    &MUTEX_SHARED,
    &COND_SHARED,
    &RWLOCK_SHARED,
    &BARRIER_SHARED,
    &MUTEX_EINVAL,
    &COND_EINVAL,
    &RWLOCK_EINVAL,
    &BARRIER_EINVAL,
    &TYPE_VALUES,
    &PROTOCOL_VALUES,
    &TRYLOCK_BUSY,
    &UNLOCK_WAKES,
    &NORMAL_DEADLOCKS,
    &ERRORCHECK_RELOCK,
    &ERRORCHECK_FOREIGN,
    &RECURSIVE_COUNTS,
    &RECURSIVE_FOREIGN,
    &LIMIT_REALTIME,
    &LIMIT_MONOTONIC,
    &LIMIT_EINVAL,
    &LIMIT_UNUSED,
    &INHERIT_RELOCK,
    &INHERIT_LIMIT,
    &CHILD_NO_OWNER,
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

/// A fresh attribute object has this value.
fn default(cx: &Context, which: Attribute, wanted: i32) -> Outcome {
    let (value, _, _) = attribute(which, &[])?;
    cx.expect_eq("the attribute of a fresh object", value, wanted)
}

/// Each value is accepted, and the last is what is read back.
fn accepts(cx: &Context, which: Attribute, values: &[i32]) -> Outcome {
    for value in values {
        let (_, said, after) = attribute(which, &[*value])?;
        said.into_iter().try_for_each(|answer| cx.expect_ok(|| answer))?;
        cx.expect_eq("the value read back", after, *value)?;
    }
    Ok(())
}

/// Each value is refused with EINVAL, and the value set before stays.
fn refuses(cx: &Context, which: Attribute, good: i32, values: &[i32]) -> Outcome {
    for value in values {
        let (_, said, after) = attribute(which, &[good, *value])?;
        cx.expect_ok(|| said[0])?;
        cx.expect_errno(EINVAL, || said[1])?;
        cx.expect_eq("the value after the refusal", after, good)?;
    }
    Ok(())
}

/// Values that are neither private nor shared.
const NO_SHARING: &[i32] = &[2, -1, i32::MAX];
const SHARINGS: &[i32] = &[PTHREAD_PROCESS_SHARED, PTHREAD_PROCESS_PRIVATE];

const MUTEX_PRIVATE: Probe = probe(
    "sync.mutex.attr.default-private",
    "a mutex is private to its process unless it is told otherwise",
    "the most common error of all: a default mutex in a segment works until the first contention, then hangs",
    &[man("pthread_mutexattr_getpshared(3)", "PTHREAD_PROCESS_PRIVATE"), posix("pthread_mutexattr_getpshared")],
    |cx| default(cx, Attribute::MutexShared, PTHREAD_PROCESS_PRIVATE),
);
const COND_PRIVATE: Probe = probe(
    "sync.cond.attr.default-private",
    "a condition variable is private to its process by default",
    "a signal to a default condition variable in a segment goes nowhere, and a consumer waits for ever",
    &[posix("pthread_condattr_getpshared")],
    |cx| default(cx, Attribute::CondShared, PTHREAD_PROCESS_PRIVATE),
);
const RWLOCK_PRIVATE: Probe = probe(
    "sync.rwlock.attr.default-private",
    "a read-write lock is private to its process by default",
    "readers of a cache in /dev/shm get by without sleeping for months, until a writer holds the lock a little longer",
    &[posix("pthread_rwlockattr_getpshared")],
    |cx| default(cx, Attribute::RwLockShared, PTHREAD_PROCESS_PRIVATE),
);
const BARRIER_PRIVATE: Probe = probe(
    "sync.barrier.attr.default-private",
    "a barrier is private to its process by default",
    "forked workers that meet at a default barrier never leave it",
    &[posix("pthread_barrierattr_getpshared")],
    |cx| default(cx, Attribute::BarrierShared, PTHREAD_PROCESS_PRIVATE),
);

const MUTEX_SHARED: Probe = probe(
    "sync.mutex.attr.set-shared",
    "pthread_mutexattr_setpshared stores both values",
    "a C library that drops the flag makes every lock of a segment private without a word",
    &[man("pthread_mutexattr_getpshared(3)", ""), posix("pthread_mutexattr_setpshared")],
    |cx| accepts(cx, Attribute::MutexShared, SHARINGS),
);
const COND_SHARED: Probe = probe(
    "sync.cond.attr.set-shared",
    "pthread_condattr_setpshared stores both values",
    "some C libraries answer ENOTSUP here, and ports find out in production",
    &[posix("pthread_condattr_setpshared")],
    |cx| accepts(cx, Attribute::CondShared, SHARINGS),
);
const RWLOCK_SHARED: Probe = probe(
    "sync.rwlock.attr.set-shared",
    "pthread_rwlockattr_setpshared stores both values",
    "Boost.Interprocess and APCu choose their lock by whether this works",
    &[posix("pthread_rwlockattr_setpshared")],
    |cx| accepts(cx, Attribute::RwLockShared, SHARINGS),
);
const BARRIER_SHARED: Probe = probe(
    "sync.barrier.attr.set-shared",
    "pthread_barrierattr_setpshared stores both values",
    "benchmarks that fork set it and do not look at the answer",
    &[posix("pthread_barrierattr_setpshared")],
    |cx| accepts(cx, Attribute::BarrierShared, SHARINGS),
);

const MUTEX_EINVAL: Probe = probe(
    "sync.mutex.attr.shared-einval",
    "pthread_mutexattr_setpshared with any other value: EINVAL",
    "'true' is not always 1: a wrapper in another language passes what it likes and must be told",
    &[man("pthread_mutexattr_getpshared(3)", "EINVAL"), posix("pthread_mutexattr_setpshared")],
    |cx| refuses(cx, Attribute::MutexShared, PTHREAD_PROCESS_SHARED, NO_SHARING),
);
const COND_EINVAL: Probe = probe(
    "sync.cond.attr.shared-einval",
    "pthread_condattr_setpshared with any other value: EINVAL",
    "an attribute object that was never initialised by its binding shows here instead of at the first signal",
    &[posix("pthread_condattr_setpshared")],
    |cx| refuses(cx, Attribute::CondShared, PTHREAD_PROCESS_SHARED, NO_SHARING),
);
const RWLOCK_EINVAL: Probe = probe(
    "sync.rwlock.attr.shared-einval",
    "pthread_rwlockattr_setpshared with any other value: EINVAL",
    "a silent fall-back to private is a lock that excludes nobody",
    &[posix("pthread_rwlockattr_setpshared")],
    |cx| refuses(cx, Attribute::RwLockShared, PTHREAD_PROCESS_SHARED, NO_SHARING),
);
const BARRIER_EINVAL: Probe = probe(
    "sync.barrier.attr.shared-einval",
    "pthread_barrierattr_setpshared with any other value: EINVAL",
    "a barrier made with rubbish would hold its first visitor for ever",
    &[posix("pthread_barrierattr_setpshared")],
    |cx| refuses(cx, Attribute::BarrierShared, PTHREAD_PROCESS_SHARED, NO_SHARING),
);
const TYPE_VALUES: Probe = probe(
    "sync.mutex.attr.type-einval",
    "pthread_mutexattr_settype refuses unknown types: EINVAL",
    "a type that is ignored turns a recursive lock into a deadlock",
    &[posix("pthread_mutexattr_settype")],
    |cx| {
        let kinds = [pthread::PTHREAD_MUTEX_NORMAL, pthread::PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_RECURSIVE];
        accepts(cx, Attribute::MutexType, &kinds)?;
        refuses(cx, Attribute::MutexType, PTHREAD_MUTEX_RECURSIVE, &[-1, 99])
    },
);
const PROTOCOL_VALUES: Probe = probe(
    "sync.mutex.attr.protocol-einval",
    "pthread_mutexattr_setprotocol refuses unknown protocols: EINVAL",
    "real-time software that asks for inheritance must not get a plain mutex instead",
    &[posix("pthread_mutexattr_setprotocol")],
    |cx| {
        accepts(cx, Attribute::MutexProtocol, &[pthread::PRIO_NONE, PRIO_INHERIT])?;
        refuses(cx, Attribute::MutexProtocol, PRIO_INHERIT, &[-1, 99])
    },
);

/// A mutex in memory that forked peers share.
fn memory(kind: MutexKind) -> sys::Result<Map> {
    let map = Map::shared_anonymous(sys::page_size())?;
    at(&map).init(kind)?;
    Ok(map)
}

fn at(map: &Map) -> Mutex<'_> {
    Mutex::at(map, 0)
}

/// What a call says in another process.
fn elsewhere(cx: &mut Context, call: impl FnOnce() -> sys::Result<()>) -> Result<Said, shmcheck_probe::Stop> {
    cx.elsewhere(|_| Ok(done(call())))
}

const TRYLOCK_BUSY: Probe = probe(
    "sync.mutex.trylock.busy-elsewhere",
    "a mutex that another process holds is busy: EBUSY",
    "a server that polls its lock would otherwise enter while a client is inside",
    &[posix("pthread_mutex_trylock")],
    |cx| {
        for kind in [MutexKind::NORMAL, MutexKind::ROBUST, MutexKind::INHERIT, MutexKind::RECURSIVE] {
            let map = memory(kind)?;
            cx.expect_ok(|| at(&map).lock())?;
            expect_said("trylock elsewhere", &elsewhere(cx, || at(&map).try_lock())?, &Err(EBUSY))?;
            cx.expect_ok(|| at(&map).unlock())?;
            let free = elsewhere(cx, || at(&map).try_lock().and_then(|()| at(&map).unlock()))?;
            expect_said("trylock elsewhere after the unlock", &free, &Ok(0))?;
        }
        Ok(())
    },
);
const UNLOCK_WAKES: Probe = probe(
    "sync.mutex.unlock.wakes-elsewhere",
    "unlocking wakes a process that sleeps in pthread_mutex_lock",
    "without contention nobody notices a lock that wakes only threads; the first sleeper shows it",
    &[posix("pthread_mutex_unlock")],
    |cx| {
        for kind in [MutexKind::NORMAL, MutexKind::ROBUST, MutexKind::INHERIT, MutexKind::ERRORCHECK] {
            let map = memory(kind)?;
            cx.expect_ok(|| at(&map).lock())?;
            let limit = super::tools::lost();
            let peer = sleeper(cx, || done(at(&map).timed_lock(&limit).and_then(|()| at(&map).unlock())))?;
            cx.expect_ok(|| at(&map).unlock())?;
            expect_said("the lock elsewhere", &peer.join()?, &Ok(0))?;
        }
        Ok(())
    },
);
const NORMAL_DEADLOCKS: Probe = probe(
    "sync.mutex.normal.relock-waits",
    "the owner of a normal mutex that locks it again waits",
    "the standard's choice: no error, no recursion; time-limited locks are how programs get out of it",
    &[posix("pthread_mutex_lock")],
    |cx| {
        let map = memory(MutexKind::NORMAL)?;
        cx.expect_ok(|| at(&map).lock())?;
        let limit = futex::after(CLOCK_REALTIME, SHORT);
        cx.expect_errno(ETIMEDOUT, || at(&map).timed_lock(&limit))
    },
);
const ERRORCHECK_RELOCK: Probe = probe(
    "sync.mutex.errorcheck.relock-edeadlk",
    "the owner of an error-checking mutex that locks it again: EDEADLK",
    "test builds use this type to find deadlocks; in a segment it must know its own process from others",
    &[posix("pthread_mutex_lock")],
    |cx| {
        let map = memory(MutexKind::ERRORCHECK)?;
        cx.expect_ok(|| at(&map).lock())?;
        cx.expect_errno(EDEADLK, || at(&map).lock())?;
        expect_said("trylock elsewhere", &elsewhere(cx, || at(&map).try_lock())?, &Err(EBUSY))
    },
);
const ERRORCHECK_FOREIGN: Probe = probe(
    "sync.mutex.errorcheck.foreign-eperm",
    "unlocking an error-checking mutex of another process: EPERM",
    "a clean-up routine that frees whatever is locked lets two processes in",
    &[posix("pthread_mutex_unlock")],
    |cx| foreign_unlock(cx, MutexKind::ERRORCHECK),
);
const RECURSIVE_FOREIGN: Probe = probe(
    "sync.mutex.recursive.foreign-eperm",
    "unlocking a recursive mutex of another process: EPERM",
    "owner and count lie in the shared memory; the check is all that protects them",
    &[posix("pthread_mutex_unlock")],
    |cx| foreign_unlock(cx, MutexKind::RECURSIVE),
);
fn foreign_unlock(cx: &mut Context, kind: MutexKind) -> Outcome {
    let map = memory(kind)?;
    cx.expect_ok(|| at(&map).lock())?;
    expect_said("unlock elsewhere", &elsewhere(cx, || at(&map).unlock())?, &Err(EPERM))?;
    expect_said("trylock elsewhere", &elsewhere(cx, || at(&map).try_lock())?, &Err(EBUSY))?;
    cx.expect_ok(|| at(&map).unlock())?;
    cx.expect_errno(EPERM, || at(&map).unlock())
}

const RECURSIVE_COUNTS: Probe = probe(
    "sync.mutex.recursive.counts",
    "a recursive mutex is free after as many unlocks as locks, not before",
    "a callback that locks again must not open the lock of its caller to other processes",
    &[posix("pthread_mutex_lock"), posix("pthread_mutex_unlock")],
    |cx| {
        let map = memory(MutexKind::RECURSIVE)?;
        for _ in 0..3 {
            cx.expect_ok(|| at(&map).lock())?;
        }
        for _ in 0..3 {
            expect_said("trylock elsewhere", &elsewhere(cx, || at(&map).try_lock())?, &Err(EBUSY))?;
            cx.expect_ok(|| at(&map).unlock())?;
        }
        let free = elsewhere(cx, || at(&map).try_lock().and_then(|()| at(&map).unlock()))?;
        expect_said("trylock elsewhere after three unlocks", &free, &Ok(0))
    },
);

/// A held mutex gives ETIMEDOUT elsewhere, not before the limit.
fn limit(cx: &mut Context, kind: MutexKind, clock: i32) -> Outcome {
    let map = memory(kind)?;
    cx.expect_ok(|| at(&map).lock())?;
    let end = futex::after(clock, SHORT);
    let (answer, early) = cx.elsewhere(|_| {
        let answer = match clock {
            CLOCK_REALTIME => at(&map).timed_lock(&end),
            _ => at(&map).clock_lock(clock, &end),
        };
        Ok((done(answer), !futex::reached(clock, &end)))
    })?;
    expect_said("a timed lock of a held mutex", &answer, &Err(ETIMEDOUT))?;
    cx.expect_eq("returned before the limit", early, false)
}

const LIMIT_REALTIME: Probe = probe(
    "sync.mutex.timedlock.not-early",
    "pthread_mutex_timedlock gives ETIMEDOUT no earlier than its limit",
    "watchdogs declare the other process dead after it: a second too early is a needless restart",
    &[posix("pthread_mutex_timedlock")],
    |cx| limit(cx, MutexKind::NORMAL, CLOCK_REALTIME),
);
const LIMIT_MONOTONIC: Probe = probe(
    "sync.mutex.clocklock.not-early",
    "pthread_mutex_clocklock waits by the clock that it is given",
    "a lock measured by the wall clock fails at once when NTP sets the clock forward",
    &[posix("pthread_mutex_clocklock")],
    |cx| limit(cx, MutexKind::NORMAL, CLOCK_MONOTONIC),
);
const LIMIT_EINVAL: Probe = probe(
    "sync.mutex.timedlock.nanos-einval",
    "a limit of impossible nanoseconds is refused once it has to wait: EINVAL",
    "an error of arithmetic must not turn into an endless wait",
    &[posix("pthread_mutex_timedlock")],
    |cx| {
        let map = memory(MutexKind::NORMAL)?;
        cx.expect_ok(|| at(&map).lock())?;
        for nanos in [-1, 1_000_000_000] {
            let answer = elsewhere(cx, || at(&map).timed_lock(&bad_nanos(nanos)))?;
            expect_said("a timed lock of a held mutex", &answer, &Err(EINVAL))?;
        }
        Ok(())
    },
);
const LIMIT_UNUSED: Probe = probe(
    "sync.mutex.timedlock.past-limit-free",
    "a free mutex is locked whatever the limit, even one in the past",
    "code that computes its deadline before a slow step must still get a lock that nobody holds",
    &[posix("pthread_mutex_timedlock")],
    |cx| {
        let map = memory(MutexKind::NORMAL)?;
        cx.expect_ok(|| at(&map).timed_lock(&libc::timespec { tv_sec: 0, tv_nsec: 0 }))?;
        expect_said("trylock elsewhere", &elsewhere(cx, || at(&map).try_lock())?, &Err(EBUSY))
    },
);
const INHERIT_RELOCK: Probe = probe(
    "sync.mutex.inherit.relock-edeadlk",
    "an error-checking PI mutex locked twice: EDEADLK",
    "with PI the check is made by library and kernel together; they must agree on who the owner is",
    &[posix("pthread_mutex_lock")],
    |cx| {
        let map = memory(MutexKind { protocol: PRIO_INHERIT, ..MutexKind::ERRORCHECK })?;
        cx.expect_ok(|| at(&map).lock())?;
        cx.expect_errno(EDEADLK, || at(&map).lock())?;
        cx.expect_ok(|| at(&map).unlock())
    },
);
const INHERIT_LIMIT: Probe = probe(
    "sync.mutex.inherit.timedlock-not-early",
    "a timed lock of a held PI mutex gives ETIMEDOUT, not early",
    "real-time loops rely on it to report an overrun rather than to miss the next cycle",
    &[posix("pthread_mutex_timedlock")],
    |cx| limit(cx, MutexKind::INHERIT, CLOCK_REALTIME),
);
const CHILD_NO_OWNER: Probe = probe(
    "sync.mutex.fork.child-no-owner",
    "a child of fork does not own the shared mutexes that its parent holds",
    "a worker forked inside a critical section must wait like anybody else",
    &[posix("pthread_mutex_unlock"), posix("fork")],
    |cx| {
        let map = memory(MutexKind::ERRORCHECK)?;
        cx.expect_ok(|| at(&map).lock())?;
        let end = futex::after(CLOCK_REALTIME, LOST);
        // EDEADLK would say that the child believes to be the owner.
        let peer = sleeper(cx, || done(at(&map).timed_lock(&end)))?;
        cx.expect_ok(|| at(&map).unlock())?;
        expect_said("the child's lock", &peer.join()?, &Ok(0))
    },
);
