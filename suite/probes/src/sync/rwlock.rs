//! Read-write locks, barriers and spin locks between processes.

use super::tools::{SHORT, Said, done, expect_said, expect_soon, lost, sleeper, still_asleep};
use libc::{CLOCK_MONOTONIC, CLOCK_REALTIME, EBUSY, EDEADLK, EINVAL, ETIMEDOUT};
use shmcheck_probe::sys::futex;
use shmcheck_probe::sys::pthread::{
    Attribute, Barrier, PREFER_READER, PREFER_WRITER_NONRECURSIVE, RwLock, Spin, attribute,
};
use shmcheck_probe::{Clause, Context, Isolate, Map, Outcome, Peer, Probe, Stop, Sys, man, posix, sys};
use std::sync::atomic::Ordering::SeqCst;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &READERS_TOGETHER,
    &READER_KEEPS_WRITER,
    &WRITER_KEEPS_ALL,
    &UNLOCK_WAKES_READERS,
    &LAST_READER_WAKES,
    &LIMITS,
    &CLOCKS,
    &RELOCK,
    &KIND_DEFAULT,
    &KIND_EINVAL,
    &KIND_READER,
    &KIND_WRITER,
    &BARRIER_ZERO,
    &BARRIER_HOLDS,
    &SPIN_BUSY,
    &SPIN_WAITS,
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

fn memory(kind: i32) -> sys::Result<Map> {
    let map = Map::shared_anonymous(sys::page_size())?;
    at(&map).init(kind)?;
    Ok(map)
}

fn at(map: &Map) -> RwLock<'_> {
    RwLock::at(map, 0)
}

/// What a call says in another process; a lock that it took is given back.
fn elsewhere(cx: &mut Context, map: &Map, take: fn(RwLock) -> sys::Result<()>) -> Result<Said, Stop> {
    cx.elsewhere(|_| Ok(done(take(at(map)).and_then(|()| at(map).unlock()))))
}

/// A peer that sleeps in taking the lock, and gives it back.
fn waiter(cx: &mut Context, map: &Map, take: fn(RwLock) -> sys::Result<()>) -> Result<Peer<Said>, Stop> {
    sleeper(cx, || done(take(at(map)).and_then(|()| at(map).unlock())))
}

fn timed_write(lock: RwLock) -> sys::Result<()> {
    lock.timed_write(&lost())
}

fn timed_read(lock: RwLock) -> sys::Result<()> {
    lock.timed_read(&lost())
}

const READERS_TOGETHER: Probe = probe(
    "sync.rwlock.readers-together",
    "readers in several processes hold the lock at once",
    "it is what the lock is for: one reader at a time makes a cache slower than none",
    &[posix("pthread_rwlock_rdlock")],
    |cx| {
        let map = memory(PREFER_READER)?;
        cx.expect_ok(|| at(&map).read())?;
        expect_said("a second reader", &elsewhere(cx, &map, |lock| lock.try_read())?, &Ok(0))?;
        cx.expect_ok(|| at(&map).read())?;
        expect_said("a third", &elsewhere(cx, &map, |lock| lock.read())?, &Ok(0))
    },
);
const READER_KEEPS_WRITER: Probe = probe(
    "sync.rwlock.reader-keeps-writer",
    "a reader keeps writers of other processes out: EBUSY",
    "a table must not change under its reader",
    &[posix("pthread_rwlock_trywrlock")],
    |cx| {
        let map = memory(PREFER_READER)?;
        cx.expect_ok(|| at(&map).read())?;
        expect_said("a writer elsewhere", &elsewhere(cx, &map, |lock| lock.try_write())?, &Err(EBUSY))?;
        cx.expect_ok(|| at(&map).unlock())?;
        expect_said("a writer after the reader", &elsewhere(cx, &map, |lock| lock.try_write())?, &Ok(0))
    },
);
const WRITER_KEEPS_ALL: Probe = probe(
    "sync.rwlock.writer-keeps-all",
    "a writer keeps readers and writers of other processes out: EBUSY",
    "who reads during a write sees half a row",
    &[posix("pthread_rwlock_tryrdlock"), posix("pthread_rwlock_trywrlock")],
    |cx| {
        let map = memory(PREFER_READER)?;
        cx.expect_ok(|| at(&map).write())?;
        expect_said("a reader elsewhere", &elsewhere(cx, &map, |lock| lock.try_read())?, &Err(EBUSY))?;
        expect_said("a writer elsewhere", &elsewhere(cx, &map, |lock| lock.try_write())?, &Err(EBUSY))?;
        cx.expect_ok(|| at(&map).unlock())?;
        expect_said("a reader after the writer", &elsewhere(cx, &map, |lock| lock.try_read())?, &Ok(0))
    },
);
const UNLOCK_WAKES_READERS: Probe = probe(
    "sync.rwlock.unlock-wakes-readers",
    "a writer that unlocks wakes every reader that waits in another process",
    "one of them woken and the others left: half of the workers stand still after an update",
    &[posix("pthread_rwlock_unlock")],
    |cx| {
        let map = memory(PREFER_READER)?;
        cx.expect_ok(|| at(&map).write())?;
        let readers = [waiter(cx, &map, timed_read)?, waiter(cx, &map, timed_read)?, waiter(cx, &map, timed_read)?];
        cx.expect_ok(|| at(&map).unlock())?;
        readers.into_iter().try_for_each(|reader| expect_said("a reader", &reader.join()?, &Ok(0)))
    },
);
const LAST_READER_WAKES: Probe = probe(
    "sync.rwlock.last-reader-wakes",
    "the last reader that unlocks wakes the writer, not one before",
    "readers in different processes count each other in shared memory; a miscount starves the writer",
    &[posix("pthread_rwlock_unlock")],
    |cx| {
        let map = memory(PREFER_READER)?;
        cx.expect_ok(|| at(&map).read())?;
        cx.expect_ok(|| at(&map).read())?;
        let writer = waiter(cx, &map, timed_write)?;
        cx.expect_ok(|| at(&map).unlock())?;
        still_asleep(cx, "the writer while a reader is left", &writer)?;
        cx.expect_ok(|| at(&map).unlock())?;
        expect_said("the writer", &writer.join()?, &Ok(0))
    },
);

/// A way to take the lock until a time of a clock.
type TimedLock = fn(RwLock, i32, &libc::timespec) -> sys::Result<()>;

/// A held lock gives ETIMEDOUT elsewhere, not before the limit.
fn limit(cx: &mut Context, clock: i32, takes: [TimedLock; 2]) -> Outcome {
    let map = memory(PREFER_READER)?;
    cx.expect_ok(|| at(&map).write())?;
    for take in takes {
        let end = futex::after(clock, SHORT);
        let (answer, early): (Said, bool) = cx.elsewhere(|_| {
            let answer = done(take(at(&map), clock, &end));
            Ok((answer, !futex::reached(clock, &end)))
        })?;
        expect_said("a timed lock against a writer", &answer, &Err(ETIMEDOUT))?;
        cx.expect_eq("returned before the limit", early, false)?;
    }
    cx.expect_ok(|| at(&map).unlock())?;
    expect_said("a writer at the end", &elsewhere(cx, &map, |lock| lock.try_write())?, &Ok(0))
}

const LIMITS: Probe = probe(
    "sync.rwlock.timed.not-early",
    "timed read and write locks give ETIMEDOUT no earlier than their limits",
    "after it the caller reports a stuck partner: early is a false alarm",
    &[posix("pthread_rwlock_timedrdlock"), posix("pthread_rwlock_timedwrlock")],
    |cx| limit(cx, CLOCK_REALTIME, [|lock, _, end| lock.timed_read(end), |lock, _, end| lock.timed_write(end)]),
);
const CLOCKS: Probe = probe(
    "sync.rwlock.clock.not-early",
    "read and write locks by CLOCK_MONOTONIC give ETIMEDOUT no earlier either",
    "the wall clock is set while the program waits, and std::shared_timed_mutex must not notice",
    &[posix("pthread_rwlock_clockrdlock"), posix("pthread_rwlock_clockwrlock")],
    |cx| {
        let read = |lock: RwLock, clock: i32, end: &libc::timespec| lock.clock_read(clock, end);
        limit(cx, CLOCK_MONOTONIC, [read, |lock, clock, end| lock.clock_write(clock, end)])
    },
);
const RELOCK: Probe = probe(
    "sync.rwlock.relock-edeadlk",
    "the writer that locks again, to write or to read: EDEADLK",
    "upgrades and recursion by mistake are told instead of sleeping for ever",
    &[posix("pthread_rwlock_wrlock"), posix("pthread_rwlock_rdlock")],
    |cx| {
        let map = memory(PREFER_READER)?;
        cx.expect_ok(|| at(&map).write())?;
        cx.expect_errno(EDEADLK, || at(&map).write())?;
        cx.expect_errno(EDEADLK, || at(&map).read())?;
        cx.expect_ok(|| at(&map).unlock())?;
        expect_said("a writer elsewhere", &elsewhere(cx, &map, |lock| lock.try_write())?, &Ok(0))
    },
);
const KIND_DEFAULT: Probe = probe(
    "sync.rwlock.kind.default",
    "read-write locks prefer readers unless they are told otherwise",
    "who expects the other starves: a writer can wait for ever behind overlapping readers",
    &[man("pthread_rwlockattr_setkind_np(3)", "PTHREAD_RWLOCK_PREFER_READER_NP")],
    |cx| {
        let (value, said, after) = attribute(Attribute::RwLockKind, &[PREFER_WRITER_NONRECURSIVE])?;
        cx.expect_eq("the kind of a fresh object", value, PREFER_READER)?;
        said.into_iter().try_for_each(|answer| cx.expect_ok(|| answer))?;
        cx.expect_eq("the kind read back", after, PREFER_WRITER_NONRECURSIVE)
    },
);
const KIND_EINVAL: Probe = probe(
    "sync.rwlock.kind.einval",
    "a kind that does not exist is refused",
    "a preference that is silently dropped shows as starvation under load",
    &[man("pthread_rwlockattr_setkind_np(3)", "RETURN VALUE")],
    |cx| {
        for bad in [-1, 3, 99] {
            let (_, said, after) = attribute(Attribute::RwLockKind, &[PREFER_WRITER_NONRECURSIVE, bad])?;
            cx.expect_errno(EINVAL, || said[1])?;
            cx.expect_eq("the kind after the refusal", after, PREFER_WRITER_NONRECURSIVE)?;
        }
        Ok(())
    },
);
const KIND_READER: Probe = probe(
    "sync.rwlock.kind.reader-overtakes",
    "with the default kind a new reader overtakes a writer that waits",
    "recursive readers depend on it: else the second read lock of one process waits behind the writer, for ever",
    &[man("pthread_rwlockattr_setkind_np(3)", "PTHREAD_RWLOCK_PREFER_READER_NP")],
    |cx| new_reader(cx, PREFER_READER, Ok(0)),
);
const KIND_WRITER: Probe = probe(
    "sync.rwlock.kind.writer-first",
    "with the writer kind a waiting writer keeps new readers out",
    "configuration must change while readers come and go without a gap",
    &[man("pthread_rwlockattr_setkind_np(3)", "PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP")],
    |cx| new_reader(cx, PREFER_WRITER_NONRECURSIVE, Err(EBUSY)),
);
fn new_reader(cx: &mut Context, kind: i32, wanted: Said) -> Outcome {
    let map = memory(kind)?;
    cx.expect_ok(|| at(&map).read())?;
    let writer = waiter(cx, &map, timed_write)?;
    expect_said("a new reader while a writer waits", &elsewhere(cx, &map, |lock| lock.try_read())?, &wanted)?;
    cx.expect_ok(|| at(&map).unlock())?;
    expect_said("the writer", &writer.join()?, &Ok(0))
}

const BARRIER_ZERO: Probe = probe(
    "sync.barrier.zero-einval",
    "a barrier for nobody is refused: EINVAL",
    "the number often comes from a configuration file; zero must be an error there, not a hang later",
    &[posix("pthread_barrier_init")],
    |cx| {
        let map = Map::shared_anonymous(sys::page_size())?;
        cx.expect_ok(|| Barrier::at(&map, 0).init(1))?;
        cx.expect_eq("told to be the one, of one", Barrier::at(&map, 0).wait()?, true)?;
        cx.expect_errno(EINVAL, || Barrier::at(&map, 64).init(0))
    },
);
const BARRIER_HOLDS: Probe = probe(
    "sync.barrier.last-opens",
    "all but the last sleep at the barrier; the last opens it",
    "a barrier one short runs ahead, one too many hangs: the count is all it has",
    &[posix("pthread_barrier_wait")],
    |cx| {
        let map = Map::shared_anonymous(sys::page_size())?;
        Barrier::at(&map, 0).init(3)?;
        let wait = || Barrier::at(&map, 0).wait().map(i64::from).map_err(|e| e.errno);
        let peers = [sleeper(cx, wait)?, sleeper(cx, wait)?];
        for peer in &peers {
            still_asleep(cx, "one of two at a barrier for three", peer)?;
        }
        let mut told = i64::from(cx.expect_ok(|| Barrier::at(&map, 0).wait())?);
        for peer in peers {
            told += peer.join()?.map_err(|errno| Stop::fail("pthread_barrier_wait", "0", sys::errno_name(errno)))?;
        }
        cx.expect_eq("told to be the one", told, 1)?;
        cx.expect_ok(|| Barrier::at(&map, 0).destroy())
    },
);
const SPIN_BUSY: Probe = probe(
    "sync.spin.trylock-busy",
    "a spin lock that another process holds is busy: EBUSY",
    "a program that tries and does something else meanwhile must not get in twice",
    &[man("pthread_spin_lock(3)", "EBUSY"), posix("pthread_spin_trylock")],
    |cx| {
        let map = Map::shared_anonymous(sys::page_size())?;
        Spin::at(&map, 0).init()?;
        cx.expect_ok(|| Spin::at(&map, 0).lock())?;
        let held: Said = cx.elsewhere(|_| Ok(done(Spin::at(&map, 0).try_lock())))?;
        expect_said("trylock elsewhere", &held, &Err(EBUSY))?;
        cx.expect_ok(|| Spin::at(&map, 0).unlock())?;
        let free: Said = cx.elsewhere(|_| Ok(done(Spin::at(&map, 0).try_lock())))?;
        expect_said("trylock elsewhere after the unlock", &free, &Ok(0))
    },
);
const SPIN_WAITS: Probe = probe(
    "sync.spin.lock-waits",
    "pthread_spin_lock waits until another process unlocks",
    "the store of the unlock must become visible in the other mapping; an emulation that caches pages spins for ever",
    &[man("pthread_spin_lock(3)", ""), posix("pthread_spin_lock")],
    |cx| {
        let map = Map::shared_anonymous(sys::page_size())?;
        Spin::at(&map, 0).init()?;
        cx.expect_ok(|| Spin::at(&map, 0).lock())?;
        let peer = cx.fork(|_| {
            map.atomic(64).store(1, SeqCst);
            Spin::at(&map, 0).lock()?;
            map.atomic(64).store(2, SeqCst);
            Ok(())
        })?;
        expect_soon("the other process", "comes to the lock", || Ok(map.atomic(64).load(SeqCst) == 1))?;
        sys::sched_yield();
        cx.expect_eq("passed while the lock was held", map.atomic(64).load(SeqCst), 1)?;
        cx.expect_ok(|| Spin::at(&map, 0).unlock())?;
        expect_soon("pthread_spin_lock elsewhere", "passes", || Ok(map.atomic(64).load(SeqCst) == 2))?;
        peer.join()
    },
);
