//! futex(2): locks whose owner the kernel knows: FUTEX_LOCK_PI, TRYLOCK_PI, UNLOCK_PI.

use super::tools::{LOST, SHORT, Said, asleep, asleep_again, done, expect_said, said, sleeper, wait_for_wake};
use libc::{CLOCK_MONOTONIC, CLOCK_REALTIME, EAGAIN, EDEADLK, EINVAL, ENOSYS, EPERM, ESRCH, ETIMEDOUT};
use shmcheck_probe::sys::futex::{
    self, FUTEX_CLOCK_REALTIME, FUTEX_LOCK_PI, FUTEX_LOCK_PI2, FUTEX_TRYLOCK_PI, FUTEX_UNLOCK_PI, OWNER_DIED, TID_MASK,
    WAITERS,
};
use shmcheck_probe::{Context, Isolate, Map, Need, Outcome, Peer, Probe, Stop, Sys, kernel, man, procfs, sys};
use std::sync::atomic::Ordering::SeqCst;

/// The probes of this file.
pub const PROBES: &[&Probe] = &[
    &FREE_TAKEN,
    &UNLOCK_CLEARS,
    &WAITERS_BIT,
    &HANDED_OVER,
    &TRYLOCK_TAKES,
    &TRYLOCK_HELD,
    &OWN_EDEADLK,
    &CHAIN_EDEADLK,
    &UNLOCK_EPERM,
    &NO_OWNER_ESRCH,
    &KERNEL_THREAD_EPERM,
    &LIMIT_REALTIME,
    &LIMIT_LOCK_PI2,
    &HANDLER_KEEPS_WAITING,
    &OWNER_KILLED,
    &DEAD_TAKEN_OVER,
    &PLAIN_WAITER_EINVAL,
    &PLAIN_OPS_EINVAL,
    &TAMPERED_EINVAL,
    &PRIORITY_INHERITED,
    &PRIORITY_FIRST,
];

#[track_caller]
const fn probe(id: &'static str, title: &'static str, why: &'static str, run: fn(&mut Context) -> Outcome) -> Probe {
    Probe { title, why, calls: &[Sys::Futex], isolate: Isolate::Cell, ..Probe::new(id, run) }
}

fn page() -> sys::Result<Map> {
    Map::shared_anonymous(sys::page_size())
}

/// `FUTEX_LOCK_PI` with a limit that only a lost wake-up reaches.
pub(super) fn lock(address: usize) -> sys::Result<i64> {
    futex::timed(address, FUTEX_LOCK_PI, 0, Some(&futex::after(CLOCK_REALTIME, LOST)), 0, 0)
}

pub(super) fn unlock(address: usize) -> sys::Result<i64> {
    futex::op(address, FUTEX_UNLOCK_PI, 0, 0, 0, 0)
}

fn try_lock(address: usize) -> sys::Result<i64> {
    futex::op(address, FUTEX_TRYLOCK_PI, 0, 0, 0, 0)
}

/// A peer that waits for the lock, says what the word was when it had it, and unlocks.
fn waiter(cx: &mut Context, map: &Map) -> Result<Peer<Said>, Stop> {
    sleeper(cx, || lock_look_unlock(map))
}

fn lock_look_unlock(map: &Map) -> Said {
    said(lock(map.address()).and_then(|_| {
        let seen = map.atomic(0).load(SeqCst);
        unlock(map.address()).map(|_| i64::from(seen))
    }))
}

/// The owner's number in the word that a waiter saw.
fn owner_in(what: &str, said: &Said) -> Result<u32, Stop> {
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

const OWN_EDEADLK: Probe = Probe {
    spec: &[man("futex(2)", "EDEADLK")],
    ..probe(
        "sync.futex.pi.own-edeadlk",
        "locking a word that the caller owns is refused: EDEADLK",
        "a recursion by mistake would sleep for ever on itself; the error names it",
        own_edeadlk,
    )
};
fn own_edeadlk(cx: &mut Context) -> Outcome {
    let map = page()?;
    cx.expect_ok(|| lock(map.address()))?;
    cx.expect_errno(EDEADLK, || lock(map.address()))?;
    cx.expect_errno(EDEADLK, || try_lock(map.address()))?;
    cx.expect_eq("the word", map.atomic(0).load(SeqCst), futex::own_tid())
}

const CHAIN_EDEADLK: Probe = Probe {
    spec: &[kernel("kernel/locking/rtmutex.c", "rt_mutex_adjust_prio_chain"), man("futex(2)", "EDEADLK")],
    ..probe(
        "sync.futex.pi.chain-edeadlk",
        "two processes that wait for each other's locks are found out: EDEADLK",
        "locks taken in opposite order stop plain mutexes without a word; the PI chain is walked and tells",
        chain_edeadlk,
    )
};
fn chain_edeadlk(cx: &mut Context) -> Outcome {
    let map = page()?;
    let (first, second) = (map.address(), map.address() + 64);
    cx.expect_ok(|| lock(first))?;
    let peer = sleeper(cx, || {
        let took = lock(second).and_then(|_| lock(first));
        said(took.and_then(|_| unlock(first)).and_then(|_| unlock(second)))
    })?;
    cx.expect_errno(EDEADLK, || lock(second))?;
    cx.expect_ok(|| unlock(first))?;
    expect_said("FUTEX_LOCK_PI of the other process", &peer.join()?, &Ok(0))
}

const UNLOCK_EPERM: Probe = Probe {
    spec: &[man("futex(2)", "EPERM")],
    ..probe(
        "sync.futex.pi.unlock-eperm",
        "unlocking a word that another process owns is refused: EPERM",
        "a child after fork holds a copy of the parent's state but not its locks; freeing them would let two in",
        unlock_eperm,
    )
};
fn unlock_eperm(cx: &mut Context) -> Outcome {
    let map = page()?;
    cx.expect_ok(|| lock(map.address()))?;
    let foreign = cx.elsewhere(|_| Ok(said(unlock(map.address()))))?;
    expect_said("FUTEX_UNLOCK_PI", &foreign, &Err(EPERM))?;
    cx.expect_eq("the word", map.atomic(0).load(SeqCst), futex::own_tid())?;
    cx.expect_ok(|| unlock(map.address()))?;
    cx.expect_errno(EPERM, || unlock(map.address()))
}

const NO_OWNER_ESRCH: Probe = Probe {
    spec: &[man("futex(2)", "ESRCH")],
    ..probe(
        "sync.futex.pi.no-owner-esrch",
        "a word whose owner does not exist is refused: ESRCH",
        "a lock left by a process of before the reboot, in a file, must be an error and not a wait without end",
        no_owner_esrch,
    )
};
fn no_owner_esrch(cx: &mut Context) -> Outcome {
    let map = page()?;
    // Above PID_MAX_LIMIT, which is 2²² on every machine.
    map.atomic(0).store(TID_MASK - 1, SeqCst);
    cx.expect_errno(ESRCH, || lock(map.address()))?;
    cx.expect_errno(ESRCH, || try_lock(map.address()))?;
    cx.expect_eq("the owner", map.atomic(0).load(SeqCst) & TID_MASK, TID_MASK - 1)
}

const KERNEL_THREAD_EPERM: Probe = Probe {
    spec: &[man("futex(2)", "EPERM"), kernel("kernel/futex/pi.c", "attach_to_pi_owner")],
    varies: "kernel threads are seen only in the initial pid namespace",
    ..probe(
        "sync.futex.pi.kernel-thread-eperm",
        "a word that names a kernel thread as owner is refused: EPERM",
        "else any user could attach priorities to kthreadd by writing a 2 into a word",
        kernel_thread_eperm,
    )
};
fn kernel_thread_eperm(cx: &mut Context) -> Outcome {
    kernel_thread()?;
    let map = page()?;
    map.atomic(0).store(2, SeqCst);
    cx.expect_errno(EPERM, || lock(map.address()))?;
    cx.expect_errno(EPERM, || try_lock(map.address()))?;
    cx.expect_eq("the owner", map.atomic(0).load(SeqCst) & TID_MASK, 2)
}

/// Skips unless process 2 is a kernel thread here.
pub(super) fn kernel_thread() -> Outcome {
    const PF_KTHREAD: u64 = 0x0020_0000;
    let stat = std::fs::read_to_string("/proc/2/stat").unwrap_or_default();
    let flags = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(6)?.parse::<u64>().ok());
    match flags {
        Some(flags) if flags & PF_KTHREAD != 0 => Ok(()),
        Some(flags) => Err(Stop::skip("kernel-thread", format!("process 2 is none (flags {flags:#x})"))),
        None => Err(Stop::skip("kernel-thread", "no process 2 in this pid namespace")),
    }
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

const PLAIN_WAITER_EINVAL: Probe = Probe {
    spec: &[man("futex(2)", "EINVAL")],
    ..probe(
        "sync.futex.pi.plain-waiter-einval",
        "PI operations on a word with a FUTEX_WAIT sleeper are refused: EINVAL",
        "two programs that disagree about the kind of a lock must be told, before one sleeps where nobody wakes",
        plain_waiter_einval,
    )
};
fn plain_waiter_einval(cx: &mut Context) -> Outcome {
    let map = page()?;
    let own = futex::own_tid();
    map.atomic(0).store(own, SeqCst);
    let peer = sleeper(cx, || wait_for_wake(map.address(), own))?;
    for take in [lock, try_lock] {
        let answer = cx.elsewhere(|_| Ok(said(take(map.address()))))?;
        expect_said("a PI lock on a plain futex", &answer, &Err(EINVAL))?;
    }
    cx.expect_errno(EINVAL, || unlock(map.address()))?;
    cx.expect_eq("the word", map.atomic(0).load(SeqCst), futex::own_tid())?;
    cx.expect_eq("waiters woken", futex::wake(map.address(), 9)?, 1)?;
    expect_said("FUTEX_WAIT", &peer.join()?, &Ok(0))
}

const PLAIN_OPS_EINVAL: Probe = Probe {
    spec: &[man("futex(2)", "EINVAL")],
    ..probe(
        "sync.futex.pi.plain-ops-einval",
        "plain wakes and moves on a word with a PI waiter are refused: EINVAL",
        "a plain wake would return the lock call of a waiter that does not own the lock",
        plain_ops_einval,
    )
};
fn plain_ops_einval(cx: &mut Context) -> Outcome {
    let map = page()?;
    let (at, second) = (map.address(), map.address() + 64);
    cx.expect_ok(|| lock(at))?;
    let peer = waiter(cx, &map)?;
    let word = map.atomic(0).load(SeqCst);
    cx.expect_errno(EINVAL, || futex::wake(at, 1))?;
    cx.expect_errno(EINVAL, || futex::op(at, futex::FUTEX_WAKE_BITSET, 1, 0, 0, 1))?;
    cx.expect_errno(EINVAL, || futex::op(at, futex::FUTEX_REQUEUE, 1, 1, second, 0))?;
    cx.expect_errno(EINVAL, || futex::op(at, futex::FUTEX_CMP_REQUEUE, 1, 1, second, word))?;
    let nothing = futex::wake_op_code(1, 0, 0, 0);
    cx.expect_errno(EINVAL, || futex::op(at, futex::FUTEX_WAKE_OP, 1, 1, second, nothing))?;
    cx.expect_errno(EINVAL, || futex::op(second, futex::FUTEX_WAKE_OP, 1, 1, at, futex::wake_op_code(1, 0, 1, 0)))?;
    super::tools::still_asleep(cx, "the PI waiter", &peer)?;
    cx.expect_ok(|| unlock(at))?;
    peer.join().and_then(|seen| owner_in("FUTEX_LOCK_PI", &seen)).map(drop)
}

const TAMPERED_EINVAL: Probe = Probe {
    spec: &[man("futex(2)", "EINVAL"), kernel("kernel/futex/pi.c", "attach_to_pi_state")],
    ..probe(
        "sync.futex.pi.tampered-einval",
        "a word that names another owner than the kernel knows is refused: EINVAL",
        "a stray store into a lock must not move priorities or hand the lock to a process that never took it",
        tampered_einval,
    )
};
fn tampered_einval(cx: &mut Context) -> Outcome {
    let map = page()?;
    cx.expect_ok(|| lock(map.address()))?;
    let peer = waiter(cx, &map)?;
    let good = map.atomic(0).load(SeqCst);
    let answers = cx.elsewhere(|_| {
        let parent = nix::unistd::getppid().as_raw().cast_unsigned();
        // The parent holds it; the word says that its own child does.
        map.atomic(0).store(futex::own_tid() | WAITERS, SeqCst);
        let foreign_unlock = said(unlock(map.address()));
        map.atomic(0).store(peer.pid().cast_unsigned() | WAITERS, SeqCst);
        let foreign_lock = said(lock(map.address()));
        map.atomic(0).store(parent | WAITERS, SeqCst);
        Ok((foreign_unlock, foreign_lock))
    })?;
    expect_said("FUTEX_UNLOCK_PI by the owner that the word names", &answers.0, &Err(EINVAL))?;
    expect_said("FUTEX_LOCK_PI on a word that names a third", &answers.1, &Err(EINVAL))?;
    map.atomic(0).store(good, SeqCst);
    cx.expect_ok(|| unlock(map.address()))?;
    peer.join().and_then(|seen| owner_in("FUTEX_LOCK_PI", &seen)).map(drop)
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
