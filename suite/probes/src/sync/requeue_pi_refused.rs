//! futex(2): what FUTEX_WAIT_REQUEUE_PI and FUTEX_CMP_REQUEUE_PI refuse, and with which errno.

use super::futex_pi::{lock, unlock};
use super::pi_refused::kernel_thread;
use super::requeue_pi::{MUTEX, probe, requeue, words};
use super::tools::{LOST, SHORT, expect_said, said, sleeper, wait_for_wake};
use libc::{CLOCK_MONOTONIC, EAGAIN, EDEADLK, EFAULT, EINVAL, EPERM, ESRCH};
use shmcheck_probe::sys::futex::{self, FUTEX_WAIT_REQUEUE_PI, TID_MASK};
use shmcheck_probe::{Context, Map, Outcome, Probe, kernel, man, sys};
use std::sync::atomic::Ordering::SeqCst;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &WAIT_DIFFERS,
    &CMP_DIFFERS,
    &SAME_WORD,
    &SAME_WORD_TWO_MAPPINGS,
    &WAKE_NOT_ONE,
    &OTHER_TARGET,
    &PLAIN_SOURCE,
    &PI_SOURCE,
    &PLAIN_TARGET,
    &PLAIN_OPS,
    &OWN_EDEADLK,
    &CHAIN_EDEADLK,
    &ESRCH_TARGET,
    &EPERM_TARGET,
    &EFAULT_TARGET,
];

const WAIT_DIFFERS: Probe = Probe {
    spec: &[man("futex(2)", "EAGAIN")],
    ..probe(
        "sync.futex.requeue-pi.wait-eagain",
        "FUTEX_WAIT_REQUEUE_PI does not sleep when the word differs: EAGAIN",
        "a signal that came before the wait must not be slept through",
        wait_differs,
    )
};

fn wait_differs(cx: &mut Context) -> Outcome {
    let words = words()?;
    words.map.atomic(0).store(3, SeqCst);
    let answer = words.wait(LOST);
    expect_said("FUTEX_WAIT_REQUEUE_PI", &answer, &Err(EAGAIN))?;
    cx.expect_eq("the lock", words.mutex_word(), 0)
}

const CMP_DIFFERS: Probe = Probe {
    spec: &[man("futex(2)", "EAGAIN")],
    ..probe(
        "sync.futex.requeue-pi.cmp-eagain",
        "FUTEX_CMP_REQUEUE_PI moves nobody when the word differs: EAGAIN",
        "a waiter that came after the state changed waits for the next signal, not for this one",
        cmp_differs,
    )
};

fn cmp_differs(cx: &mut Context) -> Outcome {
    let words = words()?;
    let peer = words.waiter(cx)?;
    cx.expect_errno(EAGAIN, || requeue(words.cond, 1, 1, words.mutex, 7))?;
    cx.expect_eq("the lock", words.mutex_word(), 0)?;
    words.finish(peer)
}

const SAME_WORD: Probe = Probe {
    spec: &[man("futex(2)", "EINVAL")],
    ..probe(
        "sync.futex.requeue-pi.same-word-einval",
        "moving to the same word is refused: EINVAL",
        "CVE-2014-3153: a missing check here gave every Android user root",
        |cx| {
            let words = words()?;
            same_word(cx, words.cond, words.cond)
        },
    )
};

const SAME_WORD_TWO_MAPPINGS: Probe = Probe {
    spec: &[man("futex(2)", "EINVAL"), kernel("kernel/futex/requeue.c", "commit e9c243a5a6de, CVE-2014-3153")],
    ..probe(
        "sync.futex.requeue-pi.same-word-two-mappings-einval",
        "moving to the same word through a second mapping is refused: EINVAL",
        "the check by address was not enough: with two mappings the exploit worked all the same",
        |cx| {
            let words = words()?;
            let copy = sys::mremap(words.cond, 0, words.map.len(), libc::MREMAP_MAYMOVE, 0)?;
            same_word(cx, words.cond, copy)
        },
    )
};

fn same_word(cx: &mut Context, one: usize, other: usize) -> Outcome {
    let limit = futex::after(CLOCK_MONOTONIC, LOST);
    cx.expect_errno(EINVAL, || requeue(one, 1, 1, other, 0))?;
    cx.expect_errno(EINVAL, || futex::timed(one, FUTEX_WAIT_REQUEUE_PI, 0, Some(&limit), other, 0))
}

const WAKE_NOT_ONE: Probe = Probe {
    spec: &[man("futex(2)", "EINVAL")],
    ..probe(
        "sync.futex.requeue-pi.wake-not-one-einval",
        "FUTEX_CMP_REQUEUE_PI with a number to wake other than 1: EINVAL",
        "only one can own the lock; a second one woken would run without it",
        wake_not_one,
    )
};

fn wake_not_one(cx: &mut Context) -> Outcome {
    let words = words()?;
    let peer = words.waiter(cx)?;
    for count in [0, 2, u32::MAX >> 1] {
        cx.expect_errno(EINVAL, || requeue(words.cond, count, 1, words.mutex, 0))?;
    }
    words.finish(peer)
}

const OTHER_TARGET: Probe = Probe {
    spec: &[man("futex(2)", "EINVAL")],
    ..probe(
        "sync.futex.requeue-pi.other-target-einval",
        "a waiter is moved only to the lock that it named: EINVAL",
        "two mutexes used with one condition variable is a program's error that must not end as a wrong owner",
        other_target,
    )
};

fn other_target(cx: &mut Context) -> Outcome {
    let words = words()?;
    let peer = words.waiter(cx)?;
    let other = words.mutex + 64;
    cx.expect_errno(EINVAL, || requeue(words.cond, 1, 1, other, 0))?;
    cx.expect_eq("the other lock", words.map.atomic(MUTEX + 64).load(SeqCst), 0)?;
    words.finish(peer)
}

const PLAIN_SOURCE: Probe = Probe {
    spec: &[man("futex(2)", "EINVAL")],
    ..probe(
        "sync.futex.requeue-pi.plain-source-einval",
        "a waiter of FUTEX_WAIT is not moved to a PI lock: EINVAL",
        "it would come back as owner without knowing, and the lock would never be freed",
        plain_source,
    )
};

fn plain_source(cx: &mut Context) -> Outcome {
    let words = words()?;
    let peer = sleeper(cx, || wait_for_wake(words.cond, 0))?;
    cx.expect_errno(EINVAL, || words.requeue(1))?;
    cx.expect_eq("the lock", words.mutex_word(), 0)?;
    expect_said("waiters woken", &said(futex::wake(words.cond, 9)), &Ok(1))?;
    expect_said("FUTEX_WAIT", &peer.join()?, &Ok(0))
}

const PI_SOURCE: Probe = Probe {
    spec: &[man("futex(2)", "EINVAL")],
    ..probe(
        "sync.futex.requeue-pi.pi-source-einval",
        "a waiter of FUTEX_LOCK_PI is not moved to another lock: EINVAL",
        "it waits for an owner by name; moved away it would boost one process and wait for another",
        pi_source,
    )
};

fn pi_source(cx: &mut Context) -> Outcome {
    let words = words()?;
    cx.expect_ok(|| lock(words.cond))?;
    let peer = sleeper(cx, || said(lock(words.cond).and_then(|_| unlock(words.cond))))?;
    let word = words.map.atomic(0).load(SeqCst);
    cx.expect_errno(EINVAL, || requeue(words.cond, 1, 1, words.mutex, word))?;
    cx.expect_ok(|| unlock(words.cond))?;
    expect_said("FUTEX_LOCK_PI", &peer.join()?, &Ok(0))
}

const PLAIN_TARGET: Probe = Probe {
    spec: &[man("futex(2)", "EINVAL")],
    ..probe(
        "sync.futex.requeue-pi.plain-target-einval",
        "a lock on whose word somebody sleeps in FUTEX_WAIT is no target: EINVAL",
        "the kernel cannot queue owners and plain sleepers at one word; it says so instead of losing one",
        plain_target,
    )
};

fn plain_target(cx: &mut Context) -> Outcome {
    let words = words()?;
    let own = futex::own_tid();
    words.map.atomic(MUTEX).store(own, SeqCst);
    let plain = sleeper(cx, || wait_for_wake(words.mutex, own))?;
    let peer = words.waiter(cx)?;
    cx.expect_errno(EINVAL, || words.requeue(1))?;
    expect_said("waiters woken at the target", &said(futex::wake(words.mutex, 9)), &Ok(1))?;
    expect_said("FUTEX_WAIT", &plain.join()?, &Ok(0))?;
    words.finish(peer)
}

const PLAIN_OPS: Probe = Probe {
    spec: &[man("futex(2)", "EINVAL"), man("futex(2)", "FUTEX_WAIT_REQUEUE_PI")],
    ..probe(
        "sync.futex.requeue-pi.plain-ops-einval",
        "plain wakes and moves of a FUTEX_WAIT_REQUEUE_PI waiter: EINVAL",
        "the pair belongs together; a plain wake would let the waiter believe that it holds the lock",
        plain_ops,
    )
};

fn plain_ops(cx: &mut Context) -> Outcome {
    let words = words()?;
    let peer = words.waiter(cx)?;
    cx.expect_errno(EINVAL, || futex::wake(words.cond, 1))?;
    cx.expect_errno(EINVAL, || futex::op(words.cond, futex::FUTEX_CMP_REQUEUE, 1, 1, words.mutex, 0))?;
    let code = futex::wake_op_code(1, 0, 0, 0);
    cx.expect_errno(EINVAL, || futex::op(words.cond, futex::FUTEX_WAKE_OP, 1, 1, words.mutex, code))?;
    words.finish(peer)
}

const OWN_EDEADLK: Probe = Probe {
    spec: &[man("futex(2)", "EDEADLK")],
    ..probe(
        "sync.futex.requeue-pi.own-edeadlk",
        "a waiter that already owns the target is not moved there: EDEADLK",
        "waiting on a condition without freeing its mutex is a common mistake; the signaller is told",
        own_edeadlk,
    )
};

fn own_edeadlk(cx: &mut Context) -> Outcome {
    let words = words()?;
    let peer = words.waiter(cx)?;
    words.map.atomic(MUTEX).store(peer.pid().cast_unsigned(), SeqCst);
    cx.expect_errno(EDEADLK, || words.requeue(1))?;
    words.finish(peer)
}

const CHAIN_EDEADLK: Probe = Probe {
    spec: &[man("futex(2)", "EDEADLK"), kernel("kernel/locking/rtmutex.c", "rt_mutex_start_proxy_lock")],
    ..probe(
        "sync.futex.requeue-pi.chain-edeadlk",
        "moving a waiter to a lock whose owner waits for that waiter: EDEADLK",
        "a ring of two locks closes by the signal of a third process, and only the kernel can see it",
        chain_edeadlk,
    )
};

fn chain_edeadlk(cx: &mut Context) -> Outcome {
    let words = words()?;
    let third = words.mutex + 64;
    let waiter = sleeper(cx, || said(lock(third)).and_then(|_| words.wait(LOST)))?;
    let owner = sleeper(cx, || said(lock(words.mutex).and_then(|_| lock(third))))?;
    cx.expect_errno(EDEADLK, || words.requeue(1))?;
    cx.expect_eq("the lock's owner", words.mutex_word() & TID_MASK, owner.pid().cast_unsigned())?;
    owner.kill()?;
    waiter.kill().map(drop)
}

const ESRCH_TARGET: Probe = Probe {
    spec: &[man("futex(2)", "ESRCH")],
    ..probe(
        "sync.futex.requeue-pi.no-owner-esrch",
        "a target whose owner does not exist is refused: ESRCH",
        "a waiter moved to the lock of a dead process would wait for ever",
        |cx| {
            let words = words()?;
            let peer = words.waiter(cx)?;
            words.map.atomic(MUTEX).store(TID_MASK - 1, SeqCst);
            cx.expect_errno(ESRCH, || words.requeue(1))?;
            words.finish(peer)
        },
    )
};

const EPERM_TARGET: Probe = Probe {
    spec: &[man("futex(2)", "EPERM"), kernel("kernel/futex/pi.c", "attach_to_pi_owner")],
    varies: "kernel threads are seen only in the initial pid namespace",
    ..probe(
        "sync.futex.requeue-pi.kernel-thread-eperm",
        "a target that names a kernel thread as owner is refused: EPERM",
        "priorities must not be lent to the kernel's own threads by a number in user memory",
        |cx| {
            kernel_thread()?;
            let words = words()?;
            let peer = words.waiter(cx)?;
            words.map.atomic(MUTEX).store(2, SeqCst);
            cx.expect_errno(EPERM, || words.requeue(1))?;
            words.finish(peer)
        },
    )
};

const EFAULT_TARGET: Probe = Probe {
    spec: &[man("futex(2)", "EFAULT")],
    ..probe(
        "sync.futex.requeue-pi.target-efault",
        "a target that is unmapped or read-only is refused: EFAULT",
        "the kernel must write the owner's number; where it cannot, nobody may be moved",
        efault_target,
    )
};

fn efault_target(cx: &mut Context) -> Outcome {
    let words = words()?;
    let read_only = Map::shared_anonymous(sys::page_size())?;
    sys::mprotect(read_only.address(), read_only.len(), libc::PROT_READ)?;
    for target in [futex::unmapped()?, read_only.address()] {
        cx.expect_errno(EFAULT, || requeue(words.cond, 1, 1, target, 0))?;
        let limit = futex::after(CLOCK_MONOTONIC, SHORT);
        cx.expect_errno(EFAULT, || futex::timed(words.cond, FUTEX_WAIT_REQUEUE_PI, 0, Some(&limit), target, 0))?;
    }
    Ok(())
}
