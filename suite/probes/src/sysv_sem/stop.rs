//! semop(2): what ends a sleeper's call without success: signals, removal, refusals at its turn.

use super::helpers::{SLEEPS_IN, errno_of, expect_end, expect_woken, settle, sleeper, sleeper_that};
use libc::{EAGAIN, EIDRM, EINTR, EINVAL, ERANGE, SA_RESTART, SIGUSR1};
use shmcheck_probe::sys::{self, SEMVMX, SemOp};
use shmcheck_probe::{Context, Map, Outcome, Peer, Probe, SemSet, Stop, Sys, kernel, man, posix};
use std::sync::atomic::Ordering;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &SIGNAL_TAKER,
    &SIGNAL_ZERO,
    &SIGNAL_ARRAY,
    &SIGNAL_STEADY_USE,
    &SIGNAL_RESTART,
    &SIGNAL_IGNORED,
    &STOPPED,
    &SIGNAL_TIMED,
    &KILLED,
    &REMOVED_TAKER,
    &REMOVED_ZERO,
    &REMOVED_ARRAY,
    &REMOVED_ZEROS,
    &REMOVED_ALL,
    &REMOVAL_RACE,
    &OVERFLOW_AT_TURN,
    &NOWAIT_AT_TURN,
    &NOWAIT_ZERO_AT_TURN,
];

const CALLS: &[Sys] = &[Sys::Semop, Sys::Semtimedop, Sys::Semctl];

/// A sleeper that catches SIGUSR1.
fn catcher(cx: &mut Context, set: &SemSet, ops: &[SemOp], flags: i32) -> Result<Peer<i32>, Stop> {
    sleeper_that(cx, set, ops, move |_| Ok(sys::catch_signal(SIGUSR1, flags)?), |_| Ok(()))
}

/// A caught signal ends the sleeper's call, and nothing of it stays: no value changed, nobody counted.
fn interrupted(cx: &mut Context, set: &SemSet, ops: &[SemOp], flags: i32) -> Outcome {
    let before = set.values()?;
    let peer = catcher(cx, set, ops, flags)?;
    peer.signal(SIGUSR1)?;
    expect_end(cx, peer, EINTR)?;
    cx.expect_eq("values", set.values()?, before)?;
    for num in 0..i32::try_from(set.nsems).unwrap_or(0) {
        cx.expect_eq("processes that wait", (set.waiting(num)?, set.waiting_zero(num)?), (0, 0))?;
    }
    Ok(())
}

const SIGNAL_TAKER: Probe = Probe {
    title: "a caught signal ends the wait for an increase with EINTR",
    why: "shutdown handlers set a flag and expect the main loop to look at it",
    spec: &[man("semop(2)", "EINTR"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.stop.signal-taker", |cx| {
        let set = cx.sem_set(1)?;
        set.set(0, 1)?;
        interrupted(cx, &set, &[SemOp::add(0, -2).undo()], 0)
    })
};

const SIGNAL_ZERO: Probe = Probe {
    title: "a caught signal ends the wait for zero with EINTR",
    why: "a coordinator at a barrier must be able to give up",
    spec: &[man("semop(2)", "EINTR"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.stop.signal-zero", |cx| {
        let set = cx.sem_set(1)?;
        set.set(0, 1)?;
        interrupted(cx, &set, &[SemOp::zero(0)], 0)
    })
};

const SIGNAL_ARRAY: Probe = Probe {
    title: "a caught signal ends the wait of an array with EINTR",
    why: "the half that could have proceeded must not stay done",
    spec: &[man("semop(2)", "EINTR"), kernel("ipc/sem.c", "unlink_queue")],
    calls: CALLS,
    ..Probe::new("sysv.sem.stop.signal-array", |cx| {
        let set = cx.sem_set(2)?;
        set.set_all(&[1, 0])?;
        interrupted(cx, &set, &[SemOp::add(0, -1), SemOp::add(1, -1)], 0)
    })
};

const SIGNAL_STEADY_USE: Probe = Probe {
    title: "a signal ends a wait also on a set in steady use",
    why: "there the kernel holds only one semaphore's lock while it takes the sleeper off the queue",
    spec: &[man("semop(2)", "EINTR"), kernel("ipc/sem.c", "sem_lock")],
    calls: CALLS,
    ..Probe::new("sysv.sem.stop.signal-steady-use", |cx| {
        let set = cx.sem_set(2)?;
        settle(&set)?;
        interrupted(cx, &set, &[SemOp::add(1, -1)], 0)
    })
};

const SIGNAL_RESTART: Probe = Probe {
    title: "SA_RESTART does not restart semop: EINTR all the same",
    why: "code written for it checks EINTR; a silent restart keeps it from ever seeing the signal",
    spec: &[man("semop(2)", "NOTES"), man("signal(7)", "Interruption of system calls")],
    calls: CALLS,
    ..Probe::new("sysv.sem.stop.signal-restart", |cx| {
        let set = cx.sem_set(1)?;
        interrupted(cx, &set, &[SemOp::add(0, -1)], SA_RESTART)
    })
};

const SIGNAL_IGNORED: Probe = Probe {
    title: "a signal without a handler does not end the wait",
    why: "SIGWINCH or SIGCHLD at its default must not surprise code that expects no EINTR",
    spec: &[man("semop(2)", "DESCRIPTION"), man("signal(7)", "Signal dispositions")],
    calls: CALLS,
    ..Probe::new("sysv.sem.stop.signal-ignored", |cx| {
        let set = cx.sem_set(1)?;
        let peer = sleeper(cx, &set, &[SemOp::add(0, -1)])?;
        for signal in [libc::SIGWINCH, libc::SIGCHLD, libc::SIGURG] {
            peer.signal(signal)?;
        }
        cx.expect_eq("processes that wait", set.waiting(0)?, 1)?;
        set.op(&[SemOp::add(0, 1)])?;
        expect_woken(cx, peer)
    })
};

const STOPPED: Probe = Probe {
    title: "a sleeper that was stopped ends with EINTR when continued",
    why: "^Z and fg on a job give this error out of nowhere; programs that do not expect it stop",
    spec: &[man("signal(7)", "Interruption of system calls and library functions by stop signals")],
    calls: CALLS,
    ..Probe::new("sysv.sem.stop.stopped", stopped)
};
fn stopped(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(1)?;
    let peer = sleeper(cx, &set, &[SemOp::add(0, -1)])?;
    let pid = peer.pid();
    peer.signal(libc::SIGSTOP)?;
    cx.until("the sleeper is stopped", || Ok(shmcheck_probe::procfs::state(pid) == Some('T')))?;
    peer.signal(libc::SIGCONT)?;
    expect_end(cx, peer, EINTR)?;
    cx.expect_eq("processes that wait", set.waiting(0)?, 0)
}

const SIGNAL_TIMED: Probe = Probe {
    title: "an interrupted semtimedop leaves its timeout as it was",
    why: "callers reuse the structure; a remaining time written there would shorten every later wait",
    spec: &[man("semop(2)", "semtimedop()"), man("semop(2)", "EINTR")],
    calls: &[Sys::Semtimedop, Sys::Semctl],
    ..Probe::new("sysv.sem.stop.signal-timed", signal_timed)
};
fn signal_timed(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(1)?;
    let id = set.id;
    let peer = cx.fork(move |_| {
        sys::catch_signal(SIGUSR1, SA_RESTART)?;
        let mut timeout = libc::timespec { tv_sec: 3_600, tv_nsec: 7 };
        let errno = errno_of(sys::raw::semtimedop(id, &[SemOp::add(0, -1)], &mut timeout));
        Ok((errno, timeout.tv_sec, timeout.tv_nsec))
    })?;
    cx.until_sleeping_in(peer.pid(), SLEEPS_IN)?;
    peer.signal(SIGUSR1)?;
    cx.expect_eq("errno, timeout", peer.join()?, (EINTR, 3_600, 7))
}

const KILLED: Probe = Probe {
    title: "a killed sleeper is gone from the queue",
    why: "a token handed to a dead process is lost, and with it the last free connection of a pool",
    spec: &[man("semop(2)", "DESCRIPTION"), man("signal(7)", "SIGKILL")],
    calls: CALLS,
    ..Probe::new("sysv.sem.stop.killed", |cx| {
        let set = cx.sem_set(1)?;
        let dead = sleeper(cx, &set, &[SemOp::add(0, -1).undo()])?;
        let alive = sleeper(cx, &set, &[SemOp::add(0, -1)])?;
        dead.kill()?;
        cx.expect_eq("processes that wait", set.waiting(0)?, 1)?;
        set.op(&[SemOp::add(0, 1)])?;
        expect_woken(cx, alive)?;
        cx.expect_eq("value", set.value(0)?, 0)
    })
};

fn removed(cx: &mut Context, ops: &[SemOp]) -> Outcome {
    let mut set = cx.sem_set(2)?;
    set.set_all(&[1, 1])?;
    let peer = sleeper(cx, &set, ops)?;
    set.remove()?;
    expect_end(cx, peer, EIDRM)
}

const REMOVED_TAKER: Probe = Probe {
    title: "removing the set ends the wait for an increase with EIDRM",
    why: "workers of a server that shuts down must end, not sleep on",
    spec: &[man("semop(2)", "EIDRM"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.stop.removed-taker", |cx| removed(cx, &[SemOp::add(1, -2)]))
};

const REMOVED_ZERO: Probe = Probe {
    title: "removing the set ends the wait for zero with EIDRM",
    why: "a barrier that vanishes must not look passed",
    spec: &[man("semop(2)", "EIDRM"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.stop.removed-zero", |cx| removed(cx, &[SemOp::zero(1)]))
};

const REMOVED_ARRAY: Probe = Probe {
    title: "removing the set ends the wait of an array with EIDRM",
    why: "sleepers with arrays stand in a queue of their own, which removal must empty too",
    spec: &[man("semop(2)", "EIDRM"), kernel("ipc/sem.c", "freeary")],
    calls: CALLS,
    ..Probe::new("sysv.sem.stop.removed-array", |cx| removed(cx, &[SemOp::add(0, -1), SemOp::add(1, -2).undo()]))
};

const REMOVED_ZEROS: Probe = Probe {
    title: "removing the set ends the wait for several zeros with EIDRM",
    why: "the fourth of the kernel's queues, which nothing but such arrays use",
    spec: &[man("semop(2)", "EIDRM"), kernel("ipc/sem.c", "freeary")],
    calls: CALLS,
    ..Probe::new("sysv.sem.stop.removed-zeros", |cx| removed(cx, &[SemOp::zero(0), SemOp::zero(1)]))
};

const REMOVED_ALL: Probe = Probe {
    title: "removing the set wakes every process that sleeps on it",
    why: "ipcrm is the administrator's way to free a whole stuck service at once",
    spec: &[man("semctl(2)", "IPC_RMID"), man("semop(2)", "EIDRM"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.stop.removed-all", |cx| {
        let mut set = cx.sem_set(3)?;
        set.set_all(&[1, 1, 0])?;
        let waits: [&[SemOp]; 4] =
            [&[SemOp::add(2, -1)], &[SemOp::zero(0)], &[SemOp::add(0, -1), SemOp::add(2, -1)], &[SemOp::add(2, -1)]];
        let peers = waits.map(|ops| sleeper(cx, &set, ops));
        set.remove()?;
        peers.into_iter().try_for_each(|peer| expect_end(cx, peer?, EIDRM))
    })
};

const REMOVAL_RACE: Probe = Probe {
    title: "a call that meets a removal succeeds or fails with EIDRM or EINVAL",
    why: "a server is stopped while its clients work: any other end of a call is one they do not handle",
    spec: &[man("semop(2)", "ERRORS"), man("semctl(2)", "ERRORS"), kernel("ipc/sem.c", "semctl_main")],
    calls: CALLS,
    ..Probe::new("sysv.sem.stop.removal-race", removal_race)
};
fn removal_race(cx: &mut Context) -> Outcome {
    const NSEMS: usize = 300;
    const DONE: u32 = u32::MAX;
    let memory = Map::shared_anonymous(sys::page_size())?;
    let mut set = cx.sem_set(300)?;
    memory.atomic(0).store(set.id.cast_unsigned(), Ordering::SeqCst);
    let shared = Map::view(memory.address(), memory.len());
    let peer = cx.fork(move |cx| {
        let mut values = vec![0; NSEMS];
        loop {
            let id = match shared.atomic(0).load(Ordering::SeqCst) {
                DONE => return Ok(()),
                id => id.cast_signed(),
            };
            shared.atomic(4).fetch_add(1, Ordering::SeqCst);
            let read = sys::sem_values_into(id, 0, &mut values);
            // Values and accounts start anew in every round, however many there are.
            values.fill(0);
            let ends = [
                read,
                sys::sem_set_values(id, 0, &values),
                sys::semop(id, &[SemOp::add(7, 1).undo()]),
                sys::semop(id, &[SemOp::add(7, -1).undo().nowait(), SemOp::add(8, 1)]),
                sys::sem_set_value(id, 3, 1),
                sys::semctl(id, 3, sys::GETVAL).map(drop),
                sys::sem_stat(id).map(drop),
            ];
            for end in ends {
                let fine = matches!(errno_of(end), 0 | EIDRM | EINVAL | EAGAIN);
                cx.expect("a call beside the removal", fine, "success, EIDRM or EINVAL", end)?;
            }
        }
    })?;
    cx.until("a peer makes its calls", || Ok(memory.atomic(4).load(Ordering::SeqCst) > 0))?;
    for _ in 0..40 {
        set.remove()?;
        set = cx.sem_set(300)?;
        memory.atomic(0).store(set.id.cast_unsigned(), Ordering::SeqCst);
    }
    memory.atomic(0).store(DONE, Ordering::SeqCst);
    peer.join()
}

const OVERFLOW_AT_TURN: Probe = Probe {
    title: "an array whose turn comes but would exceed SEMVMX ends with ERANGE",
    why: "the error is found only when the wait is over; sleeping on would hide it for ever",
    spec: &[man("semop(2)", "ERANGE"), kernel("ipc/sem.c", "update_queue")],
    calls: CALLS,
    ..Probe::new("sysv.sem.stop.overflow-at-turn", |cx| {
        let set = cx.sem_set(2)?;
        set.set_all(&[0, SEMVMX as u16])?;
        let peer = sleeper(cx, &set, &[SemOp::add(0, -1), SemOp::add(1, 1)])?;
        set.op(&[SemOp::add(0, 1)])?;
        expect_end(cx, peer, ERANGE)?;
        cx.expect_eq("values", set.values()?, vec![1, SEMVMX as u16])
    })
};

const NOWAIT_AT_TURN: Probe = Probe {
    title: "an IPC_NOWAIT operation that blocks at the array's turn: EAGAIN",
    why: "the flag belongs to its operation whenever that is tried; the caller asked not to wait there",
    spec: &[man("semop(2)", "EAGAIN"), kernel("ipc/sem.c", "update_queue")],
    calls: CALLS,
    ..Probe::new("sysv.sem.stop.nowait-at-turn", |cx| {
        let set = cx.sem_set(2)?;
        let peer = sleeper(cx, &set, &[SemOp::add(0, -1), SemOp::add(1, -1).nowait()])?;
        set.op(&[SemOp::add(0, 1)])?;
        expect_end(cx, peer, EAGAIN)?;
        cx.expect_eq("values", set.values()?, vec![1, 0])
    })
};

const NOWAIT_ZERO_AT_TURN: Probe = Probe {
    title: "IPC_NOWAIT for a second zero is judged when the first is there",
    why: "a waiter for two zeros would otherwise sleep on an operation that may not sleep",
    spec: &[man("semop(2)", "EAGAIN"), kernel("ipc/sem.c", "wake_const_ops")],
    calls: CALLS,
    ..Probe::new("sysv.sem.stop.nowait-zero-at-turn", |cx| {
        let set = cx.sem_set(2)?;
        set.set_all(&[1, 1])?;
        let peer = sleeper(cx, &set, &[SemOp::zero(0), SemOp::zero(1).nowait()])?;
        set.op(&[SemOp::add(0, -1)])?;
        expect_end(cx, peer, EAGAIN)?;
        cx.expect_eq("values", set.values()?, vec![0, 1])
    })
};
