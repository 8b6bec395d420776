//! futex(2): what FUTEX_LOCK_PI, TRYLOCK_PI and UNLOCK_PI refuse, and with which errno.

use super::futex_pi::{lock, owner_in, page, probe, try_lock, unlock, waiter};
use super::tools::{expect_said, said, sleeper, wait_for_wake};
use libc::{EDEADLK, EINVAL, EPERM, ESRCH};
use shmcheck_probe::sys::futex::{self, TID_MASK, WAITERS};
use shmcheck_probe::{Context, Outcome, Probe, Stop, kernel, man, procfs};
use std::sync::atomic::Ordering::SeqCst;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &OWN_EDEADLK,
    &CHAIN_EDEADLK,
    &UNLOCK_EPERM,
    &NO_OWNER_ESRCH,
    &ZOMBIE_ESRCH,
    &KERNEL_THREAD_EPERM,
    &PLAIN_WAITER_EINVAL,
    &PLAIN_OPS_EINVAL,
    &TAMPERED_EINVAL,
];

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
    expect_said("waiters woken", &said(futex::wake(map.address(), 9)), &Ok(1))?;
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

const ZOMBIE_ESRCH: Probe = Probe {
    spec: &[man("futex(2)", "ESRCH"), kernel("kernel/futex/pi.c", "handle_exit_race")],
    ..probe(
        "sync.futex.pi.zombie-esrch",
        "a word whose owner has ended but was not waited for is refused: ESRCH",
        "containers without an init keep zombies for ever; a lock that waits for one waits as long",
        zombie_esrch,
    )
};
fn zombie_esrch(cx: &mut Context) -> Outcome {
    let map = page()?;
    let peer = cx.fork(|_| Ok(()))?;
    cx.until("the owner is a zombie", || Ok(procfs::state(peer.pid()) == Some('Z')))?;
    let dead = peer.pid().cast_unsigned();
    map.atomic(0).store(dead, SeqCst);
    cx.expect_errno(ESRCH, || lock(map.address()))?;
    cx.expect_errno(ESRCH, || try_lock(map.address()))?;
    cx.expect_eq("the owner", map.atomic(0).load(SeqCst) & TID_MASK, dead)?;
    peer.join()
}
