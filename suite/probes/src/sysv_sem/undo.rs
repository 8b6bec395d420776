//! semop(2) SEM_UNDO: what a process did is undone when it ends.

use super::helpers::{expect_woken, sleeper, sleeper_that};
use libc::{EAGAIN, ERANGE};
use shmcheck_probe::sys::{self, SEMVMX, SemOp};
use shmcheck_probe::{Context, Exit, Outcome, Probe, SemSet, Stop, Sys, kernel, man, posix, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &TAKEN_GIVEN_BACK,
    &GIVEN_TAKEN_BACK,
    &KILLED,
    &CRASHED,
    &AT_DEATH_NOT_AT_WAIT,
    &SUM,
    &EVERY_SET,
    &LARGE_SET,
    &ONLY_MARKED,
    &NOT_WHILE_ALIVE,
    &REFUSED_LEAVES_NONE,
    &REFUSED_TWICE_NAMED,
    &SLEEPER_DIES,
    &SLEEPER_SERVED,
    &FLOOR,
    &CEILING,
    &RANGE_BELOW,
    &RANGE_ABOVE,
    &RANGE_TWICE_NAMED,
    &SETS_PID,
    &CANCELLED_KEEPS_PID,
    &WITHOUT_PERMISSION,
];

const CALLS: &[Sys] = &[Sys::Semop, Sys::Semtimedop, Sys::Semctl];

/// Runs `body` on the set in a process that exits afterwards; the values it left there just before its end.
pub(super) fn values_before_exit(
    cx: &mut Context,
    set: &SemSet,
    body: impl FnOnce(&SemSet) -> sys::Result<()>,
) -> Result<Vec<u16>, Stop> {
    cx.elsewhere(|_| {
        body(set)?;
        Ok(set.values()?)
    })
}

/// A process performs `ops` and exits: the values at its end and after it.
fn undone(cx: &mut Context, first: &[u16], ops: &[&[SemOp]], during: &[u16], after: &[u16]) -> Outcome {
    let set = cx.sem_set(i32::try_from(first.len()).unwrap_or(1))?;
    set.set_all(first)?;
    let seen = values_before_exit(cx, &set, |set| ops.iter().try_for_each(|ops| set.op(ops)))?;
    cx.expect_eq("values while the process lives", seen, during.to_vec())?;
    cx.expect_eq("values after its exit", set.values()?, after.to_vec())
}

const TAKEN_GIVEN_BACK: Probe = Probe {
    title: "what a process took is given back when it exits",
    why: "a worker that forgets to unlock, or leaves by an error path, would block all others for good",
    spec: &[man("semop(2)", "DESCRIPTION"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.taken-given-back", |cx| {
        undone(cx, &[1, 5], &[&[SemOp::add(0, -1).undo()]], &[0, 5], &[1, 5])
    })
};

const GIVEN_TAKEN_BACK: Probe = Probe {
    title: "what a process added is taken back when it exits",
    why: "presence counters: a dead client must not be counted as connected",
    spec: &[man("semop(2)", "DESCRIPTION"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.given-taken-back", |cx| {
        undone(cx, &[0, 2], &[&[SemOp::add(1, 3).undo()]], &[0, 5], &[0, 2])
    })
};

/// A process takes with undo, meets its end by `end`, and the token is back.
fn dies(cx: &mut Context, end: i32) -> Outcome {
    let set = cx.sem_set(1)?;
    set.set(0, 1)?;
    let (id, taken) = (set.id, cx.gate()?);
    let owner = cx.fork(|cx| {
        sys::semop(id, &[SemOp::add(0, -1).undo()])?;
        taken.open()?;
        // Never opened: the signal ends this process here.
        cx.gate()?.pass()
    })?;
    taken.pass()?;
    cx.expect_eq("value while the owner lives", set.value(0)?, 0)?;
    owner.signal(end)?;
    cx.expect_eq("end of the owner", owner.exit()?, Exit::Signal(end))?;
    cx.expect_eq("value after its end", set.value(0)?, 1)
}

const KILLED: Probe = Probe {
    title: "SIGKILL undoes as an exit does",
    why: "the out-of-memory killer gives no chance to unlock: only the kernel can free the lock then",
    spec: &[man("semop(2)", "NOTES"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.killed", |cx| dies(cx, libc::SIGKILL))
};

const CRASHED: Probe = Probe {
    title: "a crash by a signal undoes as an exit does",
    why: "one worker's abort must not hang its neighbours",
    spec: &[man("semop(2)", "NOTES"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.crashed", |cx| dies(cx, libc::SIGABRT))
};

const AT_DEATH_NOT_AT_WAIT: Probe = Probe {
    title: "a process undoes when it dies, before its parent waits for it",
    why: "a master that reaps late would keep the lock of its dead worker",
    spec: &[man("semop(2)", "NOTES"), kernel("kernel/exit.c", "do_exit")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.before-wait", |cx| {
        let set = cx.sem_set(1)?;
        set.set(0, 1)?;
        let peer = cx.fork(|_| Ok(set.op(&[SemOp::add(0, -1).undo()])?))?;
        let pid = peer.pid();
        cx.until("the peer is a zombie", || Ok(procfs::state(pid) == Some('Z')))?;
        cx.expect_eq("value while the process is a zombie", set.value(0)?, 1)?;
        peer.join()
    })
};

const SUM: Probe = Probe {
    title: "the adjustment is the sum of all marked operations",
    why: "a lock taken, released, taken again is one lock to give back, not two",
    spec: &[man("semop(2)", "NOTES")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.sum", |cx| {
        let ops: &[&[SemOp]] = &[
            &[SemOp::add(0, -3).undo(), SemOp::add(1, 2).undo()],
            &[SemOp::add(0, 1).undo()],
            &[SemOp::add(0, -2).undo(), SemOp::add(1, -1).undo()],
            // Named twice: the kernel's other path keeps the same account.
            &[SemOp::add(1, 4).undo(), SemOp::add(1, -1).undo()],
        ];
        undone(cx, &[9, 0, 7], ops, &[5, 4, 7], &[9, 0, 7])
    })
};

const EVERY_SET: Probe = Probe {
    title: "a process undoes on every set it used",
    why: "an application holds locks of several libraries when it dies",
    spec: &[man("semop(2)", "NOTES")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.every-set", |cx| {
        let sets = [(); 4].map(|()| cx.sem_set(2));
        let mut ids = Vec::new();
        for set in &sets {
            let set = set.as_ref().map_err(Clone::clone)?;
            set.set_all(&[2, 2])?;
            ids.push(set.id);
        }
        cx.elsewhere(|_| {
            // Back and forth, so that a set is looked up among several.
            for id in ids.iter().chain(ids.iter().rev()) {
                sys::semop(*id, &[SemOp::add(1, -1).undo()])?;
            }
            Ok(())
        })?;
        for id in ids {
            cx.expect_eq("values", sys::sem_values(id, 2)?, vec![2, 2])?;
        }
        Ok(())
    })
};

const LARGE_SET: Probe = Probe {
    title: "every semaphore of a large set is undone",
    why: "connection slots of a big database are one set; slots past some number would leak",
    spec: &[man("semop(2)", "NOTES"), kernel("ipc/sem.c", "exit_sem")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.large-set", |cx| {
        let count = sys::sem_info(sys::IPC_INFO)?.1.semopm.clamp(1, 300);
        let set = cx.sem_set(count)?;
        let ops: Vec<SemOp> = (0..u16::try_from(count).unwrap_or(1)).map(|num| SemOp::add(num, 1).undo()).collect();
        let during = values_before_exit(cx, &set, |set| set.op(&ops))?;
        cx.expect_eq("semaphores at 1 while the process lives", during.iter().filter(|v| **v == 1).count(), ops.len())?;
        cx.expect_eq("semaphores not at 0 afterwards", set.values()?.iter().filter(|v| **v != 0).count(), 0)
    })
};

const ONLY_MARKED: Probe = Probe {
    title: "operations without SEM_UNDO stay",
    why: "items already produced are there, whoever made them and died",
    spec: &[man("semop(2)", "DESCRIPTION"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.only-marked", |cx| {
        let ops: &[&[SemOp]] =
            &[&[SemOp::add(0, -1).undo(), SemOp::add(1, 1)], &[SemOp::add(0, -1), SemOp::zero(2).undo()]];
        undone(cx, &[4, 0, 0], ops, &[2, 1, 0], &[3, 1, 0])
    })
};

const NOT_WHILE_ALIVE: Probe = Probe {
    title: "another process's exit undoes nothing of a living one",
    why: "adjustments belong to one process; a neighbour's end would open a held lock",
    spec: &[man("semop(2)", "NOTES")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.own-only", |cx| {
        let set = cx.sem_set(1)?;
        set.set(0, 5)?;
        set.op(&[SemOp::add(0, -1).undo()])?;
        let during = values_before_exit(cx, &set, |set| set.op(&[SemOp::add(0, -2).undo()]))?;
        cx.expect_eq("values while both live", during, vec![2])?;
        cx.expect_eq("value after the other's exit", set.value(0)?, 4)
    })
};

/// A process's array is refused with EAGAIN; its exit then changes nothing.
fn refused_leaves_none(cx: &mut Context, first: &[u16], ops: &[SemOp]) -> Outcome {
    let set = cx.sem_set(i32::try_from(first.len()).unwrap_or(1))?;
    set.set_all(first)?;
    cx.elsewhere(|cx| cx.expect_errno(EAGAIN, || set.op(ops)))?;
    cx.expect_eq("values after the exit", set.values()?, first.to_vec())
}

const REFUSED_LEAVES_NONE: Probe = Probe {
    title: "a refused array leaves no adjustment",
    why: "the exit would give back a lock that was never taken, and two owners follow",
    spec: &[man("semop(2)", "DESCRIPTION"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.refused-leaves-none", |cx| {
        refused_leaves_none(cx, &[2, 0], &[SemOp::add(0, -1).undo(), SemOp::add(1, -1).undo().nowait()])
    })
};

const REFUSED_TWICE_NAMED: Probe = Probe {
    title: "a refused array that names one twice leaves no adjustment",
    why: "there the kernel writes adjustments step by step and has to take them back",
    spec: &[man("semop(2)", "DESCRIPTION"), kernel("ipc/sem.c", "perform_atomic_semop_slow")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.refused-twice-named", |cx| {
        let ops = [SemOp::add(0, -1).undo(), SemOp::add(0, -1).undo(), SemOp::add(0, -1).undo().nowait()];
        refused_leaves_none(cx, &[2], &ops)
    })
};

const SLEEPER_DIES: Probe = Probe {
    title: "a process killed in its wait has nothing to undo",
    why: "its request was never served; giving back would invent a token",
    spec: &[man("semop(2)", "DESCRIPTION")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.sleeper-dies", |cx| {
        let set = cx.sem_set(2)?;
        set.set_all(&[1, 0])?;
        sleeper(cx, &set, &[SemOp::add(0, -1).undo(), SemOp::add(1, -1).undo()])?.kill()?;
        cx.expect_eq("values", set.values()?, vec![1, 0])
    })
};

const SLEEPER_SERVED: Probe = Probe {
    title: "an operation performed after a wait is undone as well",
    why: "most contended locks are got by waiting; just these would leak",
    spec: &[man("semop(2)", "DESCRIPTION"), kernel("ipc/sem.c", "update_queue")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.sleeper-served", |cx| {
        let set = cx.sem_set(1)?;
        let (served, end) = (cx.gate()?, cx.gate()?);
        let peer = sleeper_that(
            cx,
            &set,
            &[SemOp::add(0, -1).undo()],
            |_| Ok(()),
            |_| {
                served.open()?;
                end.pass()
            },
        )?;
        set.op(&[SemOp::add(0, 1)])?;
        served.pass()?;
        cx.expect_eq("value while the process lives", set.value(0)?, 0)?;
        end.open()?;
        expect_woken(cx, peer)?;
        cx.expect_eq("value after its exit", set.value(0)?, 1)
    })
};

const FLOOR: Probe = Probe {
    title: "an adjustment that would fall below 0 stops at 0",
    why: "exit never blocks: Linux takes back as much as is there",
    spec: &[man("semop(2)", "BUGS"), kernel("ipc/sem.c", "exit_sem")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.floor", |cx| {
        undone(cx, &[0], &[&[SemOp::add(0, 5).undo()], &[SemOp::add(0, -3)]], &[2], &[0])
    })
};

const CEILING: Probe = Probe {
    title: "an adjustment that would exceed SEMVMX stops there",
    why: "a value wrapped into the negative would make every taker sleep for ever",
    spec: &[kernel("ipc/sem.c", "exit_sem"), man("semop(2)", "Semaphore limits")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.ceiling", |cx| {
        let ops: &[&[SemOp]] = &[&[SemOp::add(0, -5).undo()], &[SemOp::add(0, 3)]];
        undone(cx, &[SEMVMX as u16], ops, &[SEMVMX as u16 - 2], &[SEMVMX as u16])
    })
};

const RANGE_BELOW: Probe = Probe {
    title: "an adjustment below -32768 is refused: ERANGE",
    why: "a wrapped account would add tens of thousands to the semaphore at exit",
    spec: &[posix("semop"), kernel("ipc/sem.c", "perform_atomic_semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.range-below", |cx| {
        let set = cx.sem_set(1)?;
        set.op(&[SemOp::add(0, i16::MAX).undo()])?;
        set.op(&[SemOp::add(0, -i16::MAX)])?;
        cx.expect_ok(|| set.op(&[SemOp::add(0, 1).undo()]))?;
        cx.expect_errno(ERANGE, || set.op(&[SemOp::add(0, 1).undo()]))?;
        cx.expect_eq("value", set.value(0)?, 1)?;
        cx.expect_ok(|| set.op(&[SemOp::add(0, 1)]))
    })
};

const RANGE_ABOVE: Probe = Probe {
    title: "an adjustment above SEMAEM is refused: ERANGE",
    why: "the caller must hear that its operation could not be undone any more",
    spec: &[posix("semop"), kernel("ipc/sem.c", "perform_atomic_semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.range-above", |cx| {
        let set = cx.sem_set(2)?;
        set.set_all(&[SEMVMX as u16, 1])?;
        set.op(&[SemOp::add(0, -i16::MAX).undo()])?;
        set.op(&[SemOp::add(0, 9)])?;
        cx.expect_errno(ERANGE, || set.op(&[SemOp::add(1, -1), SemOp::add(0, -1).undo()]))?;
        cx.expect_eq("values", set.values()?, vec![9, 1])?;
        cx.expect_ok(|| set.op(&[SemOp::add(0, -1)]))
    })
};

const RANGE_TWICE_NAMED: Probe = Probe {
    title: "the range holds for arrays that name a semaphore twice",
    why: "the kernel checks it a second time on its other path; there it takes back what it did",
    spec: &[posix("semop"), kernel("ipc/sem.c", "perform_atomic_semop_slow")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.range-twice-named", |cx| {
        let set = cx.sem_set(2)?;
        cx.elsewhere(|cx| {
            set.op(&[SemOp::add(0, i16::MAX).undo()])?;
            set.op(&[SemOp::add(0, -i16::MAX)])?;
            let ops = [SemOp::add(1, 2).undo(), SemOp::add(0, 1).undo(), SemOp::add(0, 1).undo()];
            cx.expect_errno(ERANGE, || set.op(&ops))?;
            cx.expect_eq("values", set.values()?, vec![0, 0])?;
            // Taken back, the account has room for this one.
            cx.expect_ok(|| set.op(&[SemOp::add(0, 1).undo()]))?;
            Ok(set.op(&[SemOp::add(1, 9)])?)
        })?;
        cx.expect_eq("values after the exit", set.values()?, vec![0, 9])
    })
};

const SETS_PID: Probe = Probe {
    title: "the adjustment at exit makes the dead process sempid",
    why: "the last one who changed the value was the dying process; the manual names this among Linux's rules",
    spec: &[man("semctl(2)", "The sempid value"), kernel("ipc/sem.c", "exit_sem")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.sets-pid", |cx| {
        let set = cx.sem_set(2)?;
        let (id, taken, end) = (set.id, cx.gate()?, cx.gate()?);
        let peer = cx.fork(|_| {
            sys::semop(id, &[SemOp::add(0, 2).undo()])?;
            taken.open()?;
            end.pass()
        })?;
        let pid = peer.pid();
        taken.pass()?;
        set.op(&[SemOp::add(0, -1), SemOp::zero(1)])?;
        cx.expect_eq("sempid while it lives", set.last_pid(0)?, sys::getpid())?;
        end.open()?;
        peer.join()?;
        cx.expect_eq("sempid", (set.last_pid(0)?, set.last_pid(1)?), (pid, sys::getpid()))
    })
};

const CANCELLED_KEEPS_PID: Probe = Probe {
    title: "a sum of 0 leaves the semaphore alone at exit",
    why: "a process that gave everything back long ago must not appear as the last user",
    spec: &[man("semop(2)", "NOTES"), kernel("ipc/sem.c", "exit_sem")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.cancelled-keeps-pid", |cx| {
        let set = cx.sem_set(1)?;
        set.set(0, 1)?;
        let (id, done, end) = (set.id, cx.gate()?, cx.gate()?);
        let peer = cx.fork(|_| {
            sys::semop(id, &[SemOp::add(0, -1).undo()])?;
            sys::semop(id, &[SemOp::add(0, 1).undo()])?;
            done.open()?;
            end.pass()
        })?;
        done.pass()?;
        set.op(&[SemOp::add(0, 1)])?;
        end.open()?;
        peer.join()?;
        cx.expect_eq("value", set.value(0)?, 2)?;
        cx.expect_eq("sempid", set.last_pid(0)?, sys::getpid())
    })
};

const WITHOUT_PERMISSION: Probe = Probe {
    title: "the adjustment needs no permission at exit",
    why: "a set closed for maintenance with chmod-like IPC_SET still gets its tokens back",
    spec: &[man("semop(2)", "NOTES"), kernel("ipc/sem.c", "exit_sem")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.without-permission", |cx| {
        let set = cx.sem_set(1)?;
        set.set(0, 3)?;
        let (uid, gid) = (sys::geteuid(), sys::getegid());
        cx.without_caps(&[caps::Capability::CAP_IPC_OWNER], |cx| {
            set.op(&[SemOp::add(0, -2).undo()])?;
            sys::sem_set(set.id, uid, gid, 0)?;
            cx.expect_errno(libc::EACCES, || set.op(&[SemOp::add(0, 1)]))
        })?;
        sys::sem_set(set.id, uid, gid, 0o600)?;
        cx.expect_eq("value after the exit", set.value(0)?, 3)
    })
};
