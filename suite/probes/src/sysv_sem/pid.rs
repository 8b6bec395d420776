//! semctl(2) GETPID: which process operated on a semaphore last.

use super::helpers::errno_of;
use libc::EAGAIN;
use shmcheck_probe::sys::{self, GETNCNT, GETPID, GETVAL, GETZCNT, SemOp};
use shmcheck_probe::{Context, Namespace, Need, Outcome, Probe, SemSet, Stop, Sys, kernel, man, posix};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &OF_SEMOP,
    &OF_THREAD,
    &REFUSED_KEEPS,
    &OF_SETVAL,
    &OF_SETALL,
    &READING_KEEPS,
    &INNER_NAMESPACE,
    &OUTER_NAMESPACE,
];

const OF_SEMOP: Probe = Probe {
    title: "sempid of every semaphore named becomes the caller",
    why: "whoever debugs a stuck lock asks GETPID for its holder; a pid for the whole set accuses the wrong one",
    spec: &[man("semop(2)", "DESCRIPTION"), posix("semop")],
    calls: &[Sys::Semop, Sys::Semtimedop, Sys::Semctl],
    ..Probe::new("sysv.sem.pid.of-semop", sets_pid)
};
fn sets_pid(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(4)?;
    set.op(&[SemOp::add(0, 1), SemOp::add(3, 1)])?;
    let (id, own) = (set.id, sys::getpid());
    let other = cx.elsewhere(move |_| {
        sys::semop(id, &[SemOp::add(0, -1), SemOp::zero(1)])?;
        Ok(sys::getpid())
    })?;
    let pids = pids(&set)?;
    // Also the operation that only waits for zero counts as one on its semaphore.
    cx.expect_eq("sempid of the four", pids, vec![other, other, 0, own])
}

fn pids(set: &SemSet) -> sys::Result<Vec<i32>> {
    (0..set.nsems).map(|num| set.last_pid(i32::try_from(num).unwrap_or(-1))).collect()
}

const OF_THREAD: Probe = Probe {
    title: "sempid of a thread's operation is the process",
    why: "a thread's number finds nothing in ps, and the lock's holder stays unknown",
    spec: &[man("semctl(2)", "GETPID"), kernel("ipc/sem.c", "__do_semtimedop")],
    calls: &[Sys::Semop, Sys::Semtimedop, Sys::Semctl],
    ..Probe::new("sysv.sem.pid.of-thread", |cx| {
        let set = cx.sem_set(1)?;
        let id = set.id;
        let thread = std::thread::spawn(move || sys::semop(id, &[SemOp::add(0, 1)]));
        thread.join().map_err(|_| Stop::broken("a thread panicked"))??;
        cx.expect_eq("sempid", set.last_pid(0)?, sys::getpid())
    })
};

const REFUSED_KEEPS: Probe = Probe {
    title: "a refused semop leaves sempid alone",
    why: "the process that only tried would be taken for the holder",
    spec: &[man("semop(2)", "DESCRIPTION")],
    calls: &[Sys::Semop, Sys::Semtimedop, Sys::Semctl],
    ..Probe::new("sysv.sem.pid.refused-keeps", refused_keeps_pid)
};
fn refused_keeps_pid(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(2)?;
    set.op(&[SemOp::add(0, 1)])?;
    let id = set.id;
    let end = cx.elsewhere(move |_| Ok(errno_of(sys::semop(id, &[SemOp::add(0, -1), SemOp::add(1, -1).nowait()]))))?;
    cx.expect_eq("errno", end, EAGAIN)?;
    cx.expect_eq("sempid", pids(&set)?, vec![sys::getpid(), 0])
}

const OF_SETVAL: Probe = Probe {
    title: "SETVAL makes the caller sempid of that semaphore",
    why: "who reset a lock by hand is the one to ask about it; Linux extends POSIX here",
    spec: &[man("semctl(2)", "The sempid value")],
    calls: &[Sys::Semctl],
    ..Probe::new("sysv.sem.pid.of-setval", |cx| {
        let set = cx.sem_set(2)?;
        let id = set.id;
        let pid = cx.elsewhere(move |_| sys::sem_set_value(id, 1, 3).map(|()| sys::getpid()).map_err(Into::into))?;
        cx.expect_eq("sempid", (set.last_pid(0)?, set.last_pid(1)?), (0, pid))
    })
};

const OF_SETALL: Probe = Probe {
    title: "SETALL makes the caller sempid of every semaphore",
    why: "before Linux 4.6 it did not, and the former holders were blamed",
    spec: &[man("semctl(2)", "The sempid value")],
    calls: &[Sys::Semctl],
    ..Probe::new("sysv.sem.pid.of-setall", |cx| {
        let set = cx.sem_set(2)?;
        set.op(&[SemOp::add(0, 1)])?;
        let id = set.id;
        let pid =
            cx.elsewhere(move |_| sys::sem_set_values(id, 0, &[1, 1]).map(|()| sys::getpid()).map_err(Into::into))?;
        cx.expect_eq("sempid", (set.last_pid(0)?, set.last_pid(1)?), (pid, pid))
    })
};

const READING_KEEPS: Probe = Probe {
    title: "reading a set changes neither sempid nor semid_ds",
    why: "a monitor that looks every second must leave no traces",
    spec: &[man("semctl(2)", "The sempid value"), man("semctl(2)", "DESCRIPTION")],
    calls: &[Sys::Semctl],
    ..Probe::new("sysv.sem.pid.reading-keeps", |cx| {
        let set = cx.sem_set(2)?;
        set.op(&[SemOp::add(0, 1)])?;
        let (id, before) = (set.id, set.stat()?);
        cx.elsewhere(move |_| {
            for command in [GETVAL, GETPID, GETNCNT, GETZCNT] {
                sys::semctl(id, 1, command)?;
            }
            sys::sem_values(id, 2)?;
            Ok(sys::sem_stat(id).map(drop)?)
        })?;
        cx.expect_eq("sempid", (set.last_pid(0)?, set.last_pid(1)?), (sys::getpid(), 0))?;
        cx.expect_eq("semid_ds", set.stat()?, before)
    })
};

const INNER_NAMESPACE: Probe = Probe {
    title: "GETPID gives a container's process by the caller's own number",
    why: "from the host, a lock held inside a container must lead to a process that can be found",
    spec: &[man("pid_namespaces(7)", ""), kernel("ipc/sem.c", "semctl_main")],
    calls: &[Sys::Semctl, Sys::Semop, Sys::Semtimedop, Sys::Unshare],
    needs: &[Need::New(Namespace::Pid), Need::Cap(caps::Capability::CAP_SYS_ADMIN)],
    ..Probe::new("sysv.sem.pid.inner-namespace", |cx| {
        let set = cx.sem_set(1)?;
        let (id, done, end) = (set.id, cx.gate()?, cx.gate()?);
        sys::unshare(libc::CLONE_NEWPID)?;
        cx.cross_pid_namespace();
        let peer = cx.fork(|_| {
            sys::semop(id, &[SemOp::add(0, 1)])?;
            let inner = sys::semctl(id, 0, GETPID)?;
            done.open()?;
            end.pass()?;
            Ok((inner, sys::getpid()))
        })?;
        let pid = peer.pid();
        done.pass()?;
        cx.expect_eq("sempid seen from outside", set.last_pid(0)?, pid)?;
        end.open()?;
        cx.expect_eq("sempid seen from inside, its own number", peer.join()?, (1, 1))
    })
};

const OUTER_NAMESPACE: Probe = Probe {
    title: "GETPID gives 0 for a process outside the caller's pid namespace",
    why: "any other number would name an innocent process inside the container",
    spec: &[man("pid_namespaces(7)", ""), kernel("ipc/sem.c", "semctl_main")],
    calls: &[Sys::Semctl, Sys::Semop, Sys::Semtimedop, Sys::Unshare],
    needs: &[Need::New(Namespace::Pid), Need::Cap(caps::Capability::CAP_SYS_ADMIN)],
    ..Probe::new("sysv.sem.pid.outer-namespace", |cx| {
        let set = cx.sem_set(1)?;
        set.op(&[SemOp::add(0, 1)])?;
        let id = set.id;
        sys::unshare(libc::CLONE_NEWPID)?;
        cx.cross_pid_namespace();
        let inner = cx.elsewhere(move |_| Ok(sys::semctl(id, 0, GETPID)?))?;
        cx.expect_eq("sempid seen from inside", inner, 0)?;
        cx.expect_eq("sempid seen from outside", set.last_pid(0)?, sys::getpid())
    })
};
