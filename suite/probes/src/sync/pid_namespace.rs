//! Owners of locks are written down by number, and numbers are those of a pid namespace: what that means for
//! containers which share memory but not their processes.

use super::futex_pi::{lock, unlock};
use super::robust_list::List;
use super::tools::{Said, done, expect_said, said, sleeper};
use libc::EDEADLK;
use shmcheck_probe::sys::futex::{self, OWNER_DIED, TID_MASK};
use shmcheck_probe::{Context, Map, Namespace, Need, Outcome, Peer, Probe, Stop, Sys, kernel, man, sys};
use std::sync::atomic::Ordering::SeqCst;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[&OWN_NUMBER, &SAME_NUMBER, &MARKS_OWN_NUMBER, &PLAIN_WAKE];

#[track_caller]
const fn probe(id: &'static str, title: &'static str, why: &'static str, run: fn(&mut Context) -> Outcome) -> Probe {
    Probe {
        title,
        why,
        varies: "containers that share an IPC namespace or /dev/shm have pid namespaces of their own by default",
        fix: "let them share the pid namespace, too: docker run --pid=container:…, shareProcessNamespace in Kubernetes",
        calls: &[Sys::Futex, Sys::Unshare],
        needs: &[Need::Cap(caps::Capability::CAP_SYS_ADMIN), Need::New(Namespace::Pid)],
        ..Probe::new(id, run)
    }
}

/// Starts a process that is number 1 of a pid namespace of its own.
fn first_of_namespace(cx: &mut Context, body: impl FnOnce() -> Result<Said, Stop>) -> Result<Peer<Said>, Stop> {
    cx.fork(|cx| {
        sys::unshare(libc::CLONE_NEWPID)?;
        cx.cross_pid_namespace();
        cx.elsewhere(|_| body())
    })
}

const OWN_NUMBER: Probe = Probe {
    spec: &[kernel("kernel/futex/pi.c", "futex_lock_pi_atomic, task_pid_vnr"), man("pid_namespaces(7)", "")],
    ..probe(
        "sync.futex.pid-namespace.own-number",
        "a lock's owner is written down by its number in its own pid namespace",
        "from outside the word names a stranger: priorities go to the wrong process, and tools show the wrong owner",
        own_number,
    )
};
fn own_number(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(sys::page_size())?;
    let inside = first_of_namespace(cx, || {
        lock(map.address())?;
        Ok(Ok(futex::own_tid().into()))
    })?;
    expect_said("the process's number inside", &inside.join()?, &Ok(1))?;
    cx.expect_eq("the owner in the word", map.atomic(0).load(SeqCst) & TID_MASK, 1)
}

const SAME_NUMBER: Probe = Probe {
    spec: &[kernel("kernel/futex/core.c", "handle_futex_death: the same TID in another PID namespace")],
    ..probe(
        "sync.futex.pid-namespace.same-number",
        "one number in two pid namespaces is one owner to the kernel",
        "two containers' main processes are both number 1: the second one's lock fails with EDEADLK though another holds it",
        same_number,
    )
};
fn same_number(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(sys::page_size())?;
    let first = first_of_namespace(cx, || Ok(said(lock(map.address()))))?.join()?;
    expect_said("FUTEX_LOCK_PI as number 1", &first, &Ok(0))?;
    // The first has died without a robust list: the word still names number 1.
    cx.expect_eq("the word", map.atomic(0).load(SeqCst) & TID_MASK, 1)?;
    let second = first_of_namespace(cx, || Ok(said(lock(map.address()))))?.join()?;
    expect_said("FUTEX_LOCK_PI as number 1 of another namespace", &second, &Err(EDEADLK))?;
    let freed = first_of_namespace(cx, || Ok(said(unlock(map.address()))))?.join()?;
    expect_said("FUTEX_UNLOCK_PI as number 1 of a third", &freed, &Ok(0))
}

const MARKS_OWN_NUMBER: Probe = Probe {
    spec: &[kernel("kernel/futex/core.c", "handle_futex_death, task_pid_vnr")],
    ..probe(
        "sync.robust-list.pid-namespace",
        "robust locks of a process in a pid namespace are marked when it ends",
        "the kernel compares the number inside: a container that is stopped leaves no lock behind",
        marks_own_number,
    )
};
fn marks_own_number(cx: &mut Context) -> Outcome {
    let list = List::new(2)?;
    let outside = 77_777;
    let ended = first_of_namespace(cx, || {
        list.set_word(0, futex::own_tid());
        list.set_word(1, outside);
        list.link(2);
        Ok(done(list.register()))
    })?
    .join()?;
    expect_said("set_robust_list", &ended, &Ok(0))?;
    cx.expect_eq("the word with the number inside", list.word(0), OWNER_DIED)?;
    cx.expect_eq("the other word", list.word(1), outside)
}

const PLAIN_WAKE: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_WAKE"), man("pid_namespaces(7)", "")],
    ..probe(
        "sync.futex.pid-namespace.wake",
        "FUTEX_WAKE from another pid namespace reaches the waiter",
        "plain locks know no numbers: containers that share memory and nothing else can use them",
        plain_wake,
    )
};
fn plain_wake(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(sys::page_size())?;
    let waiter = sleeper(cx, || super::tools::wait_for_wake(map.address(), 0))?;
    let woken = first_of_namespace(cx, || Ok(said(futex::wake(map.address(), 9))))?.join()?;
    expect_said("waiters woken", &woken, &Ok(1))?;
    expect_said("FUTEX_WAIT", &waiter.join()?, &Ok(0))
}
