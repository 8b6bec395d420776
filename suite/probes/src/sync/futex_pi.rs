//! futex(2): locks whose owner the kernel knows: FUTEX_LOCK_PI, TRYLOCK_PI, UNLOCK_PI.

use super::tools::{LOST, SHORT, Said, asleep, asleep_again, done, expect_said, said, sleeper};
use libc::{CLOCK_MONOTONIC, CLOCK_REALTIME, EAGAIN, ENOSYS, ETIMEDOUT};
use shmcheck_probe::sys::futex::{
    self, FUTEX_CLOCK_REALTIME, FUTEX_LOCK_PI, FUTEX_LOCK_PI2, FUTEX_TRYLOCK_PI, FUTEX_UNLOCK_PI, OWNER_DIED, TID_MASK,
    WAITERS,
};
use shmcheck_probe::{Context, Isolate, Map, Need, Outcome, Peer, Probe, Stop, Sys, kernel, man, procfs, sys};
use std::sync::atomic::Ordering::SeqCst;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &FREE_TAKEN,
    &UNLOCK_CLEARS,
    &WAITERS_BIT,
    &HANDED_OVER,
    &TRYLOCK_TAKES,
    &TRYLOCK_HELD,
    &LIMIT_REALTIME,
    &LIMIT_LOCK_PI2,
    &HANDLER_KEEPS_WAITING,
    &OWNER_KILLED,
    &DEAD_TAKEN_OVER,
    &DYING_QUEUES,
    &PRIORITY_INHERITED,
    &PRIORITY_FIRST,
];

#[track_caller]
pub(super) const fn probe(
    id: &'static str,
    title: &'static str,
    why: &'static str,
    run: fn(&mut Context) -> Outcome,
) -> Probe {
    Probe { title, why, calls: &[Sys::Futex], isolate: Isolate::Cell, ..Probe::new(id, run) }
}

pub(super) fn page() -> sys::Result<Map> {
    Map::shared_anonymous(sys::page_size())
}

/// `FUTEX_LOCK_PI` with a limit that only a lost wake-up reaches.
pub(super) fn lock(address: usize) -> sys::Result<i64> {
    futex::timed(address, FUTEX_LOCK_PI, 0, Some(&futex::after(CLOCK_REALTIME, LOST)), 0, 0)
}

pub(super) fn unlock(address: usize) -> sys::Result<i64> {
    futex::op(address, FUTEX_UNLOCK_PI, 0, 0, 0, 0)
}

pub(super) fn try_lock(address: usize) -> sys::Result<i64> {
    futex::op(address, FUTEX_TRYLOCK_PI, 0, 0, 0, 0)
}

/// A peer that waits for the lock, says what the word was when it had it, and unlocks.
pub(super) fn waiter(cx: &mut Context, map: &Map) -> Result<Peer<Said>, Stop> {
    sleeper(cx, || lock_look_unlock(map))
}

fn lock_look_unlock(map: &Map) -> Said {
    said(lock(map.address()).and_then(|_| {
        let seen = map.atomic(0).load(SeqCst);
        unlock(map.address()).map(|_| i64::from(seen))
    }))
}

/// The owner's number in the word that a waiter saw.
pub(super) fn owner_in(what: &str, said: &Said) -> Result<u32, Stop> {
    match said {
        Ok(word) => Ok(u32::try_from(*word).unwrap_or(0) & TID_MASK),
        Err(errno) => Err(Stop::fail(what, "the lock", sys::errno_name(*errno))),
    }
}

const FREE_TAKEN: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_LOCK_PI")],
    ..probe(
        "sync.futex.pi.free-taken",
        "FUTEX_LOCK_PI on a free word stores the caller's thread id there",
        "the owner's number is how the kernel finds whom to boost; a wrong one boosts a stranger",
        free_taken,
    )
};

fn free_taken(cx: &mut Context) -> Outcome {
    let map = page()?;
    cx.expect_ok(|| lock(map.address()))?;
    cx.expect_eq("the word", map.atomic(0).load(SeqCst), futex::own_tid())
}

const UNLOCK_CLEARS: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_UNLOCK_PI")],
    ..probe(
        "sync.futex.pi.unlock-clears",
        "FUTEX_UNLOCK_PI without waiters makes the word 0",
        "the fast path is a compare-and-swap from 0: any bit left makes every later lock a system call, or a deadlock",
        unlock_clears,
    )
};

fn unlock_clears(cx: &mut Context) -> Outcome {
    let map = page()?;
    map.atomic(0).store(futex::own_tid() | WAITERS | OWNER_DIED, SeqCst);
    cx.expect_ok(|| unlock(map.address()))?;
    cx.expect_eq("the word", map.atomic(0).load(SeqCst), 0)
}

const WAITERS_BIT: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_WAITERS")],
    ..probe(
        "sync.futex.pi.waiters-bit",
        "a waiter makes the kernel set FUTEX_WAITERS in the owner's word",
        "without the bit the owner unlocks in user space, and the waiter sleeps for ever",
        waiters_bit,
    )
};

fn waiters_bit(cx: &mut Context) -> Outcome {
    let map = page()?;
    // Taken as user space takes it: the kernel has not heard of this lock.
    map.atomic(0).store(futex::own_tid(), SeqCst);
    let peer = waiter(cx, &map)?;
    cx.expect_eq("the word", map.atomic(0).load(SeqCst), futex::own_tid() | WAITERS)?;
    unlock(map.address())?;
    peer.join().map(drop)
}

const HANDED_OVER: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_UNLOCK_PI")],
    ..probe(
        "sync.futex.pi.handed-over",
        "FUTEX_UNLOCK_PI makes a waiter the owner before it runs",
        "a lock that is free for a moment is stolen by whoever runs; real-time waiters would starve",
        handed_over,
    )
};

fn handed_over(cx: &mut Context) -> Outcome {
    let map = page()?;
    cx.expect_ok(|| lock(map.address()))?;
    let peer = waiter(cx, &map)?;
    let pid = peer.pid().cast_unsigned();
    cx.expect_ok(|| unlock(map.address()))?;
    let seen = peer.join()?;
    cx.expect_eq("the owner that the waiter saw", owner_in("FUTEX_LOCK_PI", &seen)?, pid)?;
    cx.expect_eq("the word at the end", map.atomic(0).load(SeqCst), 0)
}

const TRYLOCK_TAKES: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_TRYLOCK_PI")],
    ..probe(
        "sync.futex.pi.trylock-takes",
        "FUTEX_TRYLOCK_PI takes a word whose owner is 0 but whose bits are set",
        "user space cannot take such a word by itself; the C library asks the kernel by this call",
        trylock_takes,
    )
};

fn trylock_takes(cx: &mut Context) -> Outcome {
    let map = page()?;
    map.atomic(0).store(WAITERS, SeqCst);
    cx.expect_ok(|| try_lock(map.address()))?;
    cx.expect_eq("the owner", map.atomic(0).load(SeqCst) & TID_MASK, futex::own_tid())
}

const TRYLOCK_HELD: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_TRYLOCK_PI"), kernel("kernel/futex/pi.c", "futex_lock_pi")],
    ..probe(
        "sync.futex.pi.trylock-held",
        "FUTEX_TRYLOCK_PI on a lock that another process holds: EAGAIN",
        "pthread_mutex_trylock must come back at once; a sleep in it stalls an audio callback",
        trylock_held,
    )
};

fn trylock_held(cx: &mut Context) -> Outcome {
    let map = page()?;
    cx.expect_ok(|| try_lock(map.address()))?;
    let held = cx.elsewhere(|_| Ok(said(try_lock(map.address()))))?;
    expect_said("FUTEX_TRYLOCK_PI", &held, &Err(EAGAIN))?;
    cx.expect_eq("the owner", map.atomic(0).load(SeqCst) & TID_MASK, futex::own_tid())?;
    cx.expect_ok(|| unlock(map.address())).map(drop)
}

/// A lock that is held gives ETIMEDOUT not before the limit, and its owner keeps it.
fn limit(cx: &mut Context, op: i32, clock: i32) -> Outcome {
    let map = page()?;
    cx.expect_ok(|| lock(map.address()))?;
    let end = futex::after(clock, SHORT);
    let (answer, early) = cx.elsewhere(|_| {
        let answer = said(futex::timed(map.address(), op, 0, Some(&end), 0, 0));
        Ok((answer, !futex::reached(clock, &end)))
    })?;
    expect_said("a lock that is held", &answer, &Err(ETIMEDOUT))?;
    cx.expect_eq("returned before the limit", early, false)?;
    cx.expect_ok(|| unlock(map.address()))?;
    cx.expect_eq("the word after the owner's unlock", map.atomic(0).load(SeqCst), 0)
}

const LIMIT_REALTIME: Probe = Probe {
    spec: &[man("futex(2)", "ETIMEDOUT"), man("futex(2)", "FUTEX_LOCK_PI")],
    ..probe(
        "sync.futex.pi.limit-realtime",
        "FUTEX_LOCK_PI's limit is an absolute time on the wall clock",
        "pthread_mutex_timedlock on a PI mutex hands its wall-clock time through",
        |cx| limit(cx, FUTEX_LOCK_PI, CLOCK_REALTIME),
    )
};

const LIMIT_LOCK_PI2: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_LOCK_PI2")],
    varies: "Linux 5.14; the C library falls back where it is missing",
    ..probe(
        "sync.futex.pi.limit-lock-pi2",
        "FUTEX_LOCK_PI2's limit is of CLOCK_MONOTONIC, or the wall clock by flag",
        "pthread_mutex_clocklock on a PI mutex must not jump with the wall clock when NTP sets it",
        limit_lock_pi2,
    )
};

fn limit_lock_pi2(cx: &mut Context) -> Outcome {
    let map = page()?;
    // An unaligned word is refused by a kernel that has the operation.
    if let Err(e) = futex::op(map.address() + 1, FUTEX_LOCK_PI2, 0, 0, 0, 0)
        && e.errno == ENOSYS
    {
        return Err(Stop::skip("FUTEX_LOCK_PI2", "this kernel does not have the operation (ENOSYS)"));
    }
    limit(cx, FUTEX_LOCK_PI2, CLOCK_MONOTONIC)?;
    limit(cx, FUTEX_LOCK_PI2 | FUTEX_CLOCK_REALTIME, CLOCK_REALTIME)
}

const HANDLER_KEEPS_WAITING: Probe = Probe {
    spec: &[kernel("kernel/futex/pi.c", "futex_lock_pi, ERESTARTNOINTR"), man("futex(2)", "FUTEX_LOCK_PI")],
    ..probe(
        "sync.futex.pi.handler-keeps-waiting",
        "a signal handler does not end FUTEX_LOCK_PI",
        "pthread_mutex_lock has no EINTR by POSIX; for PI locks the kernel must go on by itself",
        handler_keeps_waiting,
    )
};

fn handler_keeps_waiting(cx: &mut Context) -> Outcome {
    let map = page()?;
    cx.expect_ok(|| lock(map.address()))?;
    let peer = cx.fork(|_| {
        futex::catch_signal(0)?;
        Ok(lock_look_unlock(&map))
    })?;
    let pid = peer.pid().cast_unsigned();
    let peer = asleep(cx, peer)?;
    peer.signal(futex::SIGNAL)?;
    let peer = asleep_again(cx, peer)?;
    cx.expect_ok(|| unlock(map.address()))?;
    let seen = peer.join()?;
    cx.expect_eq("the owner that the waiter saw", owner_in("FUTEX_LOCK_PI", &seen)?, pid)
}

const OWNER_KILLED: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_OWNER_DIED"), kernel("kernel/futex/core.c", "exit_pi_state_list")],
    ..probe(
        "sync.futex.pi.owner-killed",
        "a killed owner's waiter gets the lock with FUTEX_OWNER_DIED set",
        "it happens without a robust list: the kernel knows the owner, and a crash must not stop the others",
        owner_killed,
    )
};

fn owner_killed(cx: &mut Context) -> Outcome {
    let map = page()?;
    let (locked, never) = (cx.gate()?, cx.gate()?);
    let owner = cx.fork(|_| {
        lock(map.address())?;
        locked.open()?;
        never.pass()
    })?;
    locked.pass()?;
    let peer = waiter(cx, &map)?;
    let pid = peer.pid().cast_unsigned();
    owner.kill()?;
    let seen = peer.join()?;
    cx.expect_eq("the owner that the waiter saw", owner_in("FUTEX_LOCK_PI", &seen)?, pid)?;
    let died = seen.is_ok_and(|word| u32::try_from(word).unwrap_or(0) & OWNER_DIED != 0);
    cx.expect_eq("FUTEX_OWNER_DIED in the word", died, true)
}

const DEAD_TAKEN_OVER: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_OWNER_DIED"), kernel("kernel/futex/pi.c", "futex_lock_pi_atomic")],
    ..probe(
        "sync.futex.pi.dead-taken-over",
        "a word left by a dead owner is taken, and the bit that tells so stays",
        "who takes the lock must learn that the data may be half-written",
        dead_taken_over,
    )
};

fn dead_taken_over(cx: &mut Context) -> Outcome {
    let map = page()?;
    for take in [lock, try_lock] {
        map.atomic(0).store(OWNER_DIED, SeqCst);
        cx.expect_ok(|| take(map.address()))?;
        cx.expect_eq("the word", map.atomic(0).load(SeqCst), futex::own_tid() | OWNER_DIED)?;
    }
    Ok(())
}

/// A real-time peer that waits for the lock; a skip where real-time scheduling cannot be had.
fn realtime_waiter(cx: &mut Context, map: &Map, priority: i32) -> Result<Peer<Said>, Stop> {
    let tried = cx.elsewhere(|_| Ok(done(futex::become_realtime(priority))))?;
    if let Err(errno) = tried {
        // A cgroup without a real-time budget refuses with EPERM whatever the capabilities.
        return Err(Stop::skip("real-time scheduling", format!("sched_setscheduler → {}", sys::errno_name(errno))));
    }
    sleeper(cx, || done(futex::become_realtime(priority)).and_then(|_| lock_look_unlock(map)))
}

/// The priority of a process as the kernel shows it: −1 − the real-time priority, proc_pid_stat(5).
fn priority() -> Result<i64, Stop> {
    let stat = procfs::read("/proc/self/stat")?;
    let field = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(15)?.parse().ok());
    field.ok_or_else(|| Stop::broken("no priority in /proc/self/stat"))
}

const PRIORITY_INHERITED: Probe = Probe {
    spec: &[man("futex(2)", "Priority-inheritance futexes"), man("proc(5)", "/proc/pid/stat priority")],
    needs: &[Need::InitCap(caps::Capability::CAP_SYS_NICE)],
    ..probe(
        "sync.futex.pi.priority-inherited",
        "the owner runs at the priority of its highest waiter until it unlocks",
        "this is what the operation is for: without it a Mars lander's bus task waits for a weather task",
        priority_inherited,
    )
};

fn priority_inherited(cx: &mut Context) -> Outcome {
    let map = page()?;
    cx.expect_ok(|| lock(map.address()))?;
    let before = priority()?;
    let peer = realtime_waiter(cx, &map, 10)?;
    cx.expect_eq("the owner's priority with a waiter of real-time priority 10", priority()?, -11)?;
    cx.expect_ok(|| unlock(map.address()))?;
    cx.expect_eq("the priority after unlocking", priority()?, before)?;
    peer.join().map(drop)
}

const PRIORITY_FIRST: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_UNLOCK_PI")],
    needs: &[Need::InitCap(caps::Capability::CAP_SYS_NICE)],
    ..probe(
        "sync.futex.pi.priority-first",
        "the waiter of the highest priority gets the lock, not the first",
        "first come first served makes a control loop wait behind a logger",
        priority_first,
    )
};

fn priority_first(cx: &mut Context) -> Outcome {
    let map = page()?;
    let count = |cx: &mut Context, priority: i32| {
        sleeper(cx, || {
            done(futex::become_realtime(priority))?;
            let place = said(lock(map.address())).map(|_| i64::from(map.atomic(128).fetch_add(1, SeqCst)));
            said(unlock(map.address())).and(place)
        })
    };
    cx.expect_ok(|| lock(map.address()))?;
    // Whether real-time scheduling is to be had is found out by a first waiter, outside of the count.
    let probe = Map::shared_anonymous(sys::page_size())?;
    lock(probe.address())?;
    let tried = realtime_waiter(cx, &probe, 2)?;
    unlock(probe.address())?;
    tried.join()?.map_err(|errno| Stop::broken(format!("a real-time waiter → {}", sys::errno_name(errno))))?;
    let low = count(cx, 5)?;
    let high = count(cx, 10)?;
    cx.expect_ok(|| unlock(map.address()))?;
    expect_said("the turn of the waiter of priority 10", &high.join()?, &Ok(0))?;
    expect_said("the turn of the waiter of priority 5", &low.join()?, &Ok(1))
}

const DYING_QUEUES: Probe = Probe {
    spec: &[kernel("kernel/futex/pi.c", "attach_to_pi_state, comment 6")],
    ..probe(
        "sync.futex.pi.dying-owner-queues",
        "a word marked by a dying owner's list still queues those who come",
        "the list is walked before the waiters are woken; who asks in between must wait with the others, not fail",
        dying_queues,
    )
};
fn dying_queues(cx: &mut Context) -> Outcome {
    let map = page()?;
    cx.expect_ok(|| lock(map.address()))?;
    let first = waiter(cx, &map)?;
    let good = map.atomic(0).load(SeqCst);
    // As the walk of a robust list leaves it: no owner in the word, while the kernel still knows one.
    map.atomic(0).store(OWNER_DIED | WAITERS, SeqCst);
    let second = waiter(cx, &map)?;
    map.atomic(0).store(good, SeqCst);
    cx.expect_ok(|| unlock(map.address()))?;
    for peer in [first, second] {
        let pid = peer.pid().cast_unsigned();
        cx.expect_eq("the owner that a waiter saw", owner_in("FUTEX_LOCK_PI", &peer.join()?)?, pid)?;
    }
    Ok(())
}
