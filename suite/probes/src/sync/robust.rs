//! Robust mutexes: what the next owner is told when an owner dies.

use super::tools::{SHORT, Said, done, expect_said, lost, sleeper};
use libc::{CLOCK_REALTIME, EBUSY, EDEADLK, EINVAL, ENOTRECOVERABLE, EOWNERDEAD, EPERM, ETIMEDOUT};
use shmcheck_probe::sys::again::{Again, exec_again, keep_on_exec};
use shmcheck_probe::sys::futex;
use shmcheck_probe::sys::pthread::{
    Attribute, Mutex, MutexKind, PRIO_INHERIT, PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_RECURSIVE, ROBUST, STALLED,
    attribute,
};
use shmcheck_probe::{Clause, Context, Isolate, Map, Outcome, Probe, Stop, Sys, man, posix, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &DEFAULT_STALLED,
    &ATTRIBUTE_EINVAL,
    &STALLED_STAYS,
    &OWNER_EXITS,
    &OWNER_EXECS,
    &WAITER_TOLD,
    &TRYLOCK_TOLD,
    &DEAD_AGAIN,
    &NOT_RECOVERABLE,
    &NOT_RECOVERABLE_WAITER,
    &NOT_RECOVERABLE_INIT,
    &CONSISTENT_NOT_ROBUST,
    &CONSISTENT_NOT_DEAD,
    &FOREIGN_EPERM,
    &ALL_HELD,
    &CHILD_EXIT,
    &UNLOCKED_NOT_TOLD,
    &INHERIT_DEAD,
    &INHERIT_WAITER,
    &INHERIT_NOT_RECOVERABLE,
    &RELOCK,
    &RECURSIVE_DEAD,
];

const DEAD: &[Clause] = &[man("pthread_mutexattr_setrobust(3)", "PTHREAD_MUTEX_ROBUST"), posix("pthread_mutex_lock")];

#[track_caller]
const fn probe(
    id: &'static str,
    title: &'static str,
    why: &'static str,
    spec: &'static [Clause],
    run: fn(&mut Context) -> Outcome,
) -> Probe {
    Probe { title, why, spec, calls: &[Sys::Futex, Sys::SetRobustList], isolate: Isolate::Cell, ..Probe::new(id, run) }
}

const INHERIT: MutexKind = MutexKind { protocol: PRIO_INHERIT, ..MutexKind::ROBUST };

fn memory(kind: MutexKind) -> sys::Result<Map> {
    let map = Map::shared_anonymous(sys::page_size())?;
    at(&map).init(kind)?;
    Ok(map)
}

fn at(map: &Map) -> Mutex<'_> {
    Mutex::at(map, 0)
}

/// A mutex whose owner, another process, has died holding it.
fn orphaned(cx: &mut Context, kind: MutexKind) -> Result<Map, Stop> {
    let map = memory(kind)?;
    die_holding(cx, &map)?;
    Ok(map)
}

/// A process that takes the lock, dead owner or not, and ends.
fn die_holding(cx: &mut Context, map: &Map) -> Outcome {
    cx.elsewhere(|_| match at(map).lock() {
        Err(e) if e.errno != EOWNERDEAD => Err(e.into()),
        _ => Ok(()),
    })
}

const DEFAULT_STALLED: Probe = probe(
    "sync.robust.attr.default-stalled",
    "a mutex is not robust unless it is told so; both values are stored",
    "crash recovery that was never switched on is found out at the first crash",
    &[man("pthread_mutexattr_setrobust(3)", "PTHREAD_MUTEX_STALLED"), posix("pthread_mutexattr_getrobust")],
    |cx| {
        let (value, said, after) = attribute(Attribute::MutexRobust, &[STALLED, ROBUST])?;
        cx.expect_eq("the attribute of a fresh object", value, STALLED)?;
        said.into_iter().try_for_each(|answer| cx.expect_ok(|| answer))?;
        cx.expect_eq("the value read back", after, ROBUST)
    },
);
const ATTRIBUTE_EINVAL: Probe = probe(
    "sync.robust.attr.einval",
    "pthread_mutexattr_setrobust with any other value: EINVAL",
    "a wrong constant from a foreign header must not pass for robustness",
    &[man("pthread_mutexattr_setrobust(3)", "EINVAL")],
    |cx| {
        for bad in [-1, 2, i32::MAX] {
            let (_, said, after) = attribute(Attribute::MutexRobust, &[ROBUST, bad])?;
            cx.expect_errno(EINVAL, || said[1])?;
            cx.expect_eq("the value after the refusal", after, ROBUST)?;
        }
        Ok(())
    },
);
const STALLED_STAYS: Probe = probe(
    "sync.robust.stalled-stays-locked",
    "a mutex that is not robust stays locked when its owner dies",
    "this is the hang after every kill -9, until somebody deletes the segment; robustness is the remedy",
    &[man("pthread_mutexattr_setrobust(3)", "PTHREAD_MUTEX_STALLED")],
    |cx| {
        let map = orphaned(cx, MutexKind::NORMAL)?;
        cx.expect_errno(EBUSY, || at(&map).try_lock())?;
        cx.expect_errno(ETIMEDOUT, || at(&map).timed_lock(&futex::after(CLOCK_REALTIME, SHORT)))
    },
);
const OWNER_EXITS: Probe = probe(
    "sync.robust.owner-exits",
    "an owner that exits with the lock is told as one that was killed",
    "exit() in an error path is the most common way to leave a lock behind",
    DEAD,
    |cx| {
        let map = orphaned(cx, MutexKind::ROBUST)?;
        cx.expect_errno(EOWNERDEAD, || at(&map).timed_lock(&lost()))
    },
);
const OWNER_EXECS: Probe = probe(
    "sync.robust.owner-execs",
    "an owner that replaces itself by execve is told as dead",
    "the process lives, but the program that held the lock is gone",
    DEAD,
    |cx| {
        let map = memory(MutexKind::ROBUST)?;
        let (arrived, writing) = sys::pipe()?;
        let peer = cx.fork(|_| {
            at(&map).lock()?;
            keep_on_exec(writing.as_raw_fd())?;
            Err::<(), _>(exec_again(Again::Stay(writing.as_raw_fd())).into())
        })?;
        drop(writing);
        std::io::Read::read_exact(&mut std::fs::File::from(arrived), &mut [0])?;
        cx.expect_errno(EOWNERDEAD, || at(&map).timed_lock(&lost()))?;
        cx.expect_eq("the former owner", shmcheck_probe::procfs::state(peer.pid()).is_some_and(|s| s != 'Z'), true)?;
        peer.kill().map(drop)
    },
);
const WAITER_TOLD: Probe = probe(
    "sync.robust.waiter-told",
    "a process that already waits when the owner is killed gets EOWNERDEAD",
    "the clients are asleep in the lock when the OOM killer takes the server",
    DEAD,
    |cx| waiter_told(cx, MutexKind::ROBUST),
);
const INHERIT_WAITER: Probe = probe(
    "sync.robust.inherit-waiter-told",
    "a waiter of a robust PI mutex whose owner is killed gets EOWNERDEAD",
    "here the kernel itself makes the waiter the owner, and must say at whose expense",
    DEAD,
    |cx| waiter_told(cx, INHERIT),
);
fn waiter_told(cx: &mut Context, kind: MutexKind) -> Outcome {
    let map = memory(kind)?;
    let (locked, never) = (cx.gate()?, cx.gate()?);
    let owner = cx.fork(|_| {
        at(&map).lock()?;
        locked.open()?;
        never.pass()
    })?;
    locked.pass()?;
    let limit = lost();
    let waiter = sleeper(cx, || {
        let told = done(at(&map).timed_lock(&limit));
        // Repaired and freed, so that the lock outlives this process.
        match at(&map).consistent().and_then(|()| at(&map).unlock()) {
            Ok(()) => told,
            Err(e) => Err(e.errno),
        }
    })?;
    owner.kill()?;
    expect_said("the lock of the one who waits", &waiter.join()?, &Err(EOWNERDEAD))?;
    cx.expect_ok(|| at(&map).timed_lock(&lost()))
}

const TRYLOCK_TOLD: Probe = probe(
    "sync.robust.trylock-told",
    "pthread_mutex_trylock takes a dead owner's lock with EOWNERDEAD",
    "a monitor that only tries must see the death, too, and it owns the lock then",
    &[posix("pthread_mutex_trylock")],
    |cx| {
        let map = orphaned(cx, MutexKind::ROBUST)?;
        cx.expect_errno(EOWNERDEAD, || at(&map).try_lock())?;
        let other: Said = cx.elsewhere(|_| Ok(done(at(&map).try_lock())))?;
        expect_said("trylock elsewhere", &other, &Err(EBUSY))
    },
);
const DEAD_AGAIN: Probe = probe(
    "sync.robust.dead-again",
    "a second owner that dies before it repaired leaves EOWNERDEAD again",
    "whatever killed the first process often kills the one that repairs",
    DEAD,
    |cx| {
        let map = orphaned(cx, MutexKind::ROBUST)?;
        die_holding(cx, &map)?;
        cx.expect_errno(EOWNERDEAD, || at(&map).timed_lock(&lost()))?;
        cx.expect_ok(|| at(&map).consistent())?;
        cx.expect_ok(|| at(&map).unlock())?;
        cx.expect_ok(|| at(&map).try_lock())
    },
);
const NOT_RECOVERABLE: Probe = probe(
    "sync.robust.not-recoverable",
    "unlocked without repair the mutex is lost for all: ENOTRECOVERABLE",
    "nobody may go on with data of which the one who saw it said nothing",
    &[man("pthread_mutexattr_setrobust(3)", "PTHREAD_MUTEX_ROBUST"), posix("pthread_mutex_consistent")],
    |cx| not_recoverable(cx, MutexKind::ROBUST),
);
const INHERIT_NOT_RECOVERABLE: Probe = probe(
    "sync.robust.inherit-not-recoverable",
    "a PI mutex unlocked without repair is lost as well: ENOTRECOVERABLE",
    "the mark lies outside of the word that the kernel knows, and has to survive its hand-over",
    &[posix("pthread_mutex_consistent")],
    |cx| not_recoverable(cx, INHERIT),
);
fn not_recoverable(cx: &mut Context, kind: MutexKind) -> Outcome {
    let map = orphaned(cx, kind)?;
    cx.expect_errno(EOWNERDEAD, || at(&map).timed_lock(&lost()))?;
    cx.expect_ok(|| at(&map).unlock())?;
    cx.expect_errno(ENOTRECOVERABLE, || at(&map).timed_lock(&lost()))?;
    let other: Said = cx.elsewhere(|_| Ok(done(at(&map).timed_lock(&lost()))))?;
    expect_said("lock elsewhere", &other, &Err(ENOTRECOVERABLE))?;
    // Last, because glibc 2.36's trylock does not give the word back when it says so: a lock after it would wait.
    cx.expect_errno(ENOTRECOVERABLE, || at(&map).try_lock())
}

const NOT_RECOVERABLE_WAITER: Probe = probe(
    "sync.robust.not-recoverable-waiter",
    "who waits when it is given up is woken with ENOTRECOVERABLE",
    "the process that gives up knows of nobody; without a wake-up the other sleeps on a lock that is lost",
    &[posix("pthread_mutex_consistent"), man("pthread_mutexattr_setrobust(3)", "PTHREAD_MUTEX_ROBUST")],
    |cx| {
        let map = orphaned(cx, MutexKind::ROBUST)?;
        cx.expect_errno(EOWNERDEAD, || at(&map).timed_lock(&lost()))?;
        let limit = lost();
        // One: glibc 2.36 hands the wake-up on to no second waiter, because it takes FUTEX_WAITERS for a sign.
        let waiter = sleeper(cx, || done(at(&map).timed_lock(&limit)))?;
        cx.expect_ok(|| at(&map).unlock())?;
        expect_said("the lock of one who waits", &waiter.join()?, &Err(ENOTRECOVERABLE))
    },
);
const NOT_RECOVERABLE_INIT: Probe = probe(
    "sync.robust.not-recoverable-init",
    "a lost mutex can be destroyed and made anew in the same place",
    "the segment stays; a restart must be able to put its lock right without removing it",
    &[posix("pthread_mutex_consistent"), posix("pthread_mutex_destroy")],
    |cx| {
        let map = orphaned(cx, MutexKind::ROBUST)?;
        cx.expect_errno(EOWNERDEAD, || at(&map).timed_lock(&lost()))?;
        cx.expect_ok(|| at(&map).unlock())?;
        cx.expect_ok(|| at(&map).destroy())?;
        cx.expect_ok(|| at(&map).init(MutexKind::ROBUST))?;
        let other: Said = cx.elsewhere(|_| Ok(done(at(&map).lock().and_then(|()| at(&map).unlock()))))?;
        expect_said("lock elsewhere", &other, &Ok(0))
    },
);
const CONSISTENT_NOT_ROBUST: Probe = probe(
    "sync.robust.consistent-not-robust-einval",
    "pthread_mutex_consistent on a mutex that is not robust: EINVAL",
    "recovery code that runs against an old segment's plain mutex must learn that it repaired nothing",
    &[man("pthread_mutex_consistent(3)", "EINVAL")],
    |cx| {
        let map = memory(MutexKind::NORMAL)?;
        cx.expect_ok(|| at(&map).lock())?;
        cx.expect_errno(EINVAL, || at(&map).consistent())
    },
);
const CONSISTENT_NOT_DEAD: Probe = probe(
    "sync.robust.consistent-not-dead-einval",
    "pthread_mutex_consistent on a mutex whose owner did not die: EINVAL",
    "called once too often it would hide the next death",
    &[man("pthread_mutex_consistent(3)", "EINVAL")],
    |cx| {
        let map = orphaned(cx, MutexKind::ROBUST)?;
        cx.expect_errno(EOWNERDEAD, || at(&map).timed_lock(&lost()))?;
        cx.expect_ok(|| at(&map).consistent())?;
        cx.expect_errno(EINVAL, || at(&map).consistent())?;
        cx.expect_ok(|| at(&map).unlock())?;
        cx.expect_errno(EINVAL, || at(&map).consistent())
    },
);
const FOREIGN_EPERM: Probe = probe(
    "sync.robust.foreign-unlock-eperm",
    "unlocking a robust mutex of another process: EPERM, and it stays locked",
    "robust mutexes check their owner whatever their type; a clean-up at exit must not free the locks of others",
    &[posix("pthread_mutex_unlock")],
    |cx| {
        for kind in [MutexKind::ROBUST, INHERIT] {
            let map = memory(kind)?;
            cx.expect_ok(|| at(&map).lock())?;
            let foreign: Said = cx.elsewhere(|_| Ok(done(at(&map).unlock())))?;
            expect_said("unlock elsewhere", &foreign, &Err(EPERM))?;
            let other: Said = cx.elsewhere(|_| Ok(done(at(&map).try_lock())))?;
            expect_said("trylock elsewhere", &other, &Err(EBUSY))?;
            cx.expect_ok(|| at(&map).unlock())?;
        }
        Ok(())
    },
);
const ALL_HELD: Probe = probe(
    "sync.robust.all-held",
    "every robust mutex that a dead process held is told",
    "a crash inside a transaction leaves a dozen locks, and each of them blocks somebody",
    DEAD,
    |cx| {
        const HELD: usize = 12;
        let map = Map::shared_anonymous(sys::page_size())?;
        let mutexes: Vec<_> = (0..HELD).map(|n| Mutex::at(&map, 64 * n)).collect();
        mutexes.iter().try_for_each(|mutex| mutex.init(MutexKind::ROBUST))?;
        // Taken in order and one given back: the list is changed in its middle.
        cx.elsewhere(|_| {
            mutexes.iter().try_for_each(|mutex| mutex.lock())?;
            Ok(mutexes[5].unlock()?)
        })?;
        for (n, mutex) in mutexes.iter().enumerate() {
            let answer = done(mutex.timed_lock(&lost()));
            expect_said(&format!("lock of mutex {n}"), &answer, &if n == 5 { Ok(0) } else { Err(EOWNERDEAD) })?;
        }
        Ok(())
    },
);
const CHILD_EXIT: Probe = probe(
    "sync.robust.child-exit-keeps",
    "the end of a forked child breaks none of its parent's locks",
    "servers fork helpers while they hold locks; the child's list must be its own",
    &[posix("fork"), man("pthread_mutexattr_setrobust(3)", "PTHREAD_MUTEX_ROBUST")],
    |cx| {
        let map = memory(MutexKind::ROBUST)?;
        cx.expect_ok(|| at(&map).lock())?;
        cx.elsewhere(|_| Ok(()))?;
        let other: Said = cx.elsewhere(|_| Ok(done(at(&map).try_lock())))?;
        expect_said("trylock elsewhere", &other, &Err(EBUSY))?;
        cx.expect_ok(|| at(&map).unlock())?;
        cx.expect_ok(|| at(&map).lock())
    },
);
const UNLOCKED_NOT_TOLD: Probe = probe(
    "sync.robust.unlocked-not-told",
    "a process that unlocked before it died leaves nothing to tell",
    "a false alarm makes every client rebuild its state after an ordinary end",
    DEAD,
    |cx| {
        let map = memory(MutexKind::ROBUST)?;
        cx.elsewhere(|_| Ok(at(&map).lock().and_then(|()| at(&map).unlock())?))?;
        cx.expect_ok(|| at(&map).timed_lock(&lost()))
    },
);
const INHERIT_DEAD: Probe = probe(
    "sync.robust.inherit-owner-dead",
    "the death of a robust PI mutex's owner is told: EOWNERDEAD",
    "real-time systems combine both; the word is freed by another part of the kernel then",
    DEAD,
    |cx| {
        let map = orphaned(cx, INHERIT)?;
        cx.expect_errno(EOWNERDEAD, || at(&map).timed_lock(&lost()))?;
        cx.expect_ok(|| at(&map).consistent())?;
        cx.expect_ok(|| at(&map).unlock())?;
        cx.expect_ok(|| at(&map).timed_lock(&lost()))?;
        cx.expect_ok(|| at(&map).unlock())
    },
);
const RELOCK: Probe = probe(
    "sync.robust.errorcheck-relock-edeadlk",
    "a robust error-checking mutex locked twice: EDEADLK",
    "robustness must not swallow the other checks",
    &[posix("pthread_mutex_lock")],
    |cx| {
        let map = memory(MutexKind { kind: PTHREAD_MUTEX_ERRORCHECK, ..MutexKind::ROBUST })?;
        cx.expect_ok(|| at(&map).lock())?;
        cx.expect_errno(EDEADLK, || at(&map).lock())?;
        cx.expect_ok(|| at(&map).unlock())
    },
);
const RECURSIVE_DEAD: Probe = probe(
    "sync.robust.recursive-owner-dead",
    "a robust recursive mutex of a dead owner is held once by the next",
    "the dead owner's depth must not be inherited, or the new one unlocks in vain",
    DEAD,
    |cx| {
        let map = memory(MutexKind { kind: PTHREAD_MUTEX_RECURSIVE, ..MutexKind::ROBUST })?;
        cx.elsewhere(|_| Ok(at(&map).lock().and_then(|()| at(&map).lock())?))?;
        cx.expect_errno(EOWNERDEAD, || at(&map).timed_lock(&lost()))?;
        cx.expect_ok(|| at(&map).consistent())?;
        cx.expect_ok(|| at(&map).unlock())?;
        let other: Said = cx.elsewhere(|_| Ok(done(at(&map).try_lock().and_then(|()| at(&map).unlock()))))?;
        expect_said("trylock elsewhere after one unlock", &other, &Ok(0))
    },
);
