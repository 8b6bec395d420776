//! semop(2): who sleeps, and what wakes a sleeper with success.

use super::helpers::{expect_woken, settle, sleeper};
use shmcheck_probe::sys::{self, SemOp};
use shmcheck_probe::{Context, Outcome, Probe, SemSet, Sys, kernel, man, posix};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &BY_POST,
    &BY_POST_SIMPLE_LOCK,
    &BY_ZERO,
    &BY_ENOUGH,
    &BY_SETVAL,
    &BY_SETVAL_ZERO,
    &BY_SETALL,
    &BY_EXIT,
    &ALL_ZERO_SLEEPERS,
    &AS_MANY_AS_FIT,
    &FIRST_COME,
    &SMALL_PASSES_LARGE,
    &ARRAY_OF_ZEROS,
    &ARRAY_ALL_AT_ONCE,
    &LOCK_OF_THE_MANUAL,
    &CHAIN,
    &CHAIN_TO_ZERO,
    &SIMPLE_BEHIND_ARRAY,
    &SIMPLE_BEFORE_ARRAY,
    &SLEEPERS_PID,
];

const CALLS: &[Sys] = &[Sys::Semop, Sys::Semtimedop, Sys::Semctl];

/// A sleeper for `ops` that must not end before `wake` was done, and must end by it; then the values.
fn woken_by(
    cx: &mut Context,
    first: &[u16],
    ops: &[SemOp],
    wake: impl FnOnce(&SemSet) -> sys::Result<()>,
    last: &[u16],
) -> Outcome {
    let set = cx.sem_set(i32::try_from(first.len()).unwrap_or(1))?;
    set.set_all(first)?;
    let peer = sleeper(cx, &set, ops)?;
    cx.expect_eq("values while it sleeps", set.values()?, first.to_vec())?;
    wake(&set)?;
    expect_woken(cx, peer)?;
    cx.expect_eq("values afterwards", set.values()?, last.to_vec())
}

const BY_POST: Probe = Probe {
    title: "a process that waits for an increase is woken by it",
    why: "a lost wake-up leaves a database backend asleep on a free lock",
    spec: &[man("semop(2)", "DESCRIPTION"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.wake.by-post", |cx| {
        woken_by(cx, &[0], &[SemOp::add(0, -1)], |set| set.op(&[SemOp::add(0, 1)]), &[0])
    })
};

const BY_POST_SIMPLE_LOCK: Probe = Probe {
    title: "a sleeper on a set in steady use is woken too",
    why: "after some operations the kernel locks single semaphores; a race there hangs only busy servers",
    spec: &[man("semop(2)", "DESCRIPTION"), kernel("ipc/sem.c", "sem_lock")],
    calls: CALLS,
    ..Probe::new("sysv.sem.wake.steady-use", |cx| {
        let set = cx.sem_set(2)?;
        settle(&set)?;
        let (taker, watcher) = (sleeper(cx, &set, &[SemOp::add(1, -2)])?, sleeper(cx, &set, &[SemOp::add(0, -1)])?);
        set.op(&[SemOp::add(1, 2)])?;
        expect_woken(cx, taker)?;
        set.op(&[SemOp::add(0, 1)])?;
        expect_woken(cx, watcher)?;
        cx.expect_eq("values", set.values()?, vec![0, 0])
    })
};

const BY_ZERO: Probe = Probe {
    title: "a process that waits for zero is woken when the value gets there",
    why: "the last worker reports with a decrement; the coordinator would wait for ever",
    spec: &[man("semop(2)", "DESCRIPTION"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.wake.by-zero", |cx| {
        let down = |set: &SemSet| set.op(&[SemOp::add(0, -1)]).and_then(|()| set.op(&[SemOp::add(0, -1)]));
        woken_by(cx, &[2], &[SemOp::zero(0)], down, &[0])
    })
};

const BY_ENOUGH: Probe = Probe {
    title: "a process that waits for 3 sleeps on until the value is 3",
    why: "woken at 1 it would use two buffers that others still hold",
    spec: &[man("semop(2)", "DESCRIPTION"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.wake.by-enough", by_enough)
};
fn by_enough(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(1)?;
    let peer = sleeper(cx, &set, &[SemOp::add(0, -3)])?;
    for value in 1..=2 {
        set.op(&[SemOp::add(0, 1)])?;
        cx.expect_eq("value while it sleeps", set.value(0)?, value)?;
        cx.expect_eq("processes that wait", set.waiting(0)?, 1)?;
    }
    set.op(&[SemOp::add(0, 2)])?;
    expect_woken(cx, peer)?;
    cx.expect_eq("value", set.value(0)?, 1)
}

const BY_SETVAL: Probe = Probe {
    title: "SETVAL to a sufficient value wakes a sleeper",
    why: "an operator repairs a stuck counter with SETVAL and expects the workers to go on",
    spec: &[man("semctl(2)", "SETVAL"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.wake.by-setval", |cx| {
        woken_by(cx, &[1, 0], &[SemOp::add(1, -2)], |set| set.set(1, 5), &[1, 3])
    })
};

const BY_SETVAL_ZERO: Probe = Probe {
    title: "SETVAL to 0 wakes a process that waits for zero",
    why: "resetting a barrier after a crash must release those who still stand at it",
    spec: &[man("semctl(2)", "SETVAL"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.wake.by-setval-zero", |cx| {
        woken_by(cx, &[1, 9], &[SemOp::zero(1)], |set| set.set(1, 0), &[1, 0])
    })
};

const BY_SETALL: Probe = Probe {
    title: "SETALL wakes a sleeper whose operations can now proceed",
    why: "servers initialise a set with SETALL while early clients already sleep on it",
    spec: &[man("semctl(2)", "SETALL"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.wake.by-setall", |cx| {
        let ops = [SemOp::add(0, -1), SemOp::add(1, -1), SemOp::zero(2)];
        woken_by(cx, &[1, 0, 1], &ops, |set| set.set_all(&[4, 4, 0]), &[3, 3, 0])
    })
};

const BY_EXIT: Probe = Probe {
    title: "the undo of an exiting process wakes who waits for its lock",
    why: "that is why locks use SEM_UNDO: the next worker goes on when the owner dies",
    spec: &[man("semop(2)", "NOTES"), kernel("ipc/sem.c", "exit_sem")],
    calls: CALLS,
    ..Probe::new("sysv.sem.wake.by-exit", by_exit)
};
fn by_exit(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(2)?;
    set.set_all(&[1, 0])?;
    let (id, taken, end) = (set.id, cx.gate()?, cx.gate()?);
    let owner = cx.fork(|_| {
        sys::semop(id, &[SemOp::add(0, -1).undo(), SemOp::add(1, 1).undo()])?;
        taken.open()?;
        end.pass()
    })?;
    taken.pass()?;
    let next = sleeper(cx, &set, &[SemOp::add(0, -1)])?;
    let zero = sleeper(cx, &set, &[SemOp::zero(1)])?;
    end.open()?;
    owner.join()?;
    expect_woken(cx, next)?;
    expect_woken(cx, zero)?;
    cx.expect_eq("values", set.values()?, vec![0, 0])
}

const ALL_ZERO_SLEEPERS: Probe = Probe {
    title: "every process that waits for zero is woken",
    why: "a barrier releases all of its workers, not the first one",
    spec: &[man("semop(2)", "DESCRIPTION"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.wake.all-zero-sleepers", |cx| {
        let set = cx.sem_set(1)?;
        set.set(0, 1)?;
        let peers = [(); 3].map(|()| sleeper(cx, &set, &[SemOp::zero(0)]));
        set.op(&[SemOp::add(0, -1)])?;
        peers.into_iter().try_for_each(|peer| expect_woken(cx, peer?))
    })
};

const AS_MANY_AS_FIT: Probe = Probe {
    title: "an increase by 2 wakes two of three takers",
    why: "one lost token idles a worker for ever, one too many oversubscribes a pool",
    spec: &[man("semop(2)", "DESCRIPTION"), kernel("ipc/sem.c", "update_queue")],
    calls: CALLS,
    ..Probe::new("sysv.sem.wake.as-many-as-fit", as_many_as_fit)
};
fn as_many_as_fit(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(1)?;
    let [first, second, third] = [(); 3].map(|()| sleeper(cx, &set, &[SemOp::add(0, -1)]));
    let (first, second, third) = (first?, second?, third?);
    set.op(&[SemOp::add(0, 2)])?;
    cx.expect_eq("processes that still wait", set.waiting(0)?, 1)?;
    cx.expect_eq("value", set.value(0)?, 0)?;
    expect_woken(cx, first)?;
    expect_woken(cx, second)?;
    set.op(&[SemOp::add(0, 1)])?;
    expect_woken(cx, third)
}

const FIRST_COME: Probe = Probe {
    title: "of equal sleepers the one who came first is woken first",
    why: "without order one worker can starve while its neighbours are served again and again",
    spec: &[kernel("ipc/sem.c", "User space visible behavior: FIFO ordering")],
    calls: CALLS,
    ..Probe::new("sysv.sem.wake.first-come", first_come)
};
fn first_come(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(1)?;
    let first = sleeper(cx, &set, &[SemOp::add(0, -1)])?;
    let second = sleeper(cx, &set, &[SemOp::add(0, -1)])?;
    let third = sleeper(cx, &set, &[SemOp::add(0, -1)])?;
    for peer in [first, second, third] {
        set.op(&[SemOp::add(0, 1)])?;
        expect_woken(cx, peer)?;
    }
    Ok(())
}

const SMALL_PASSES_LARGE: Probe = Probe {
    title: "a sleeper for 1 is not held up by an earlier sleeper for 2",
    why: "a large request in front of the queue must not stop all small ones",
    spec: &[
        man("semop(2)", "DESCRIPTION"),
        kernel("ipc/sem.c", "User space visible behavior: not starvation protection"),
    ],
    calls: CALLS,
    ..Probe::new("sysv.sem.wake.small-passes-large", |cx| {
        let set = cx.sem_set(1)?;
        let large = sleeper(cx, &set, &[SemOp::add(0, -2)])?;
        let small = sleeper(cx, &set, &[SemOp::add(0, -1)])?;
        set.op(&[SemOp::add(0, 1)])?;
        expect_woken(cx, small)?;
        cx.expect_eq("processes that still wait", set.waiting(0)?, 1)?;
        set.op(&[SemOp::add(0, 2)])?;
        expect_woken(cx, large)
    })
};

const ARRAY_OF_ZEROS: Probe = Probe {
    title: "an array that waits for several zeros needs all of them",
    why: "a coordinator of two groups must not start while one of them still works",
    spec: &[man("semop(2)", "DESCRIPTION"), kernel("ipc/sem.c", "wake_const_ops")],
    calls: CALLS,
    ..Probe::new("sysv.sem.wake.array-of-zeros", array_of_zeros)
};
fn array_of_zeros(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(2)?;
    set.set_all(&[1, 1])?;
    let peer = sleeper(cx, &set, &[SemOp::zero(0), SemOp::zero(1)])?;
    set.op(&[SemOp::add(0, -1)])?;
    cx.expect_eq("processes that wait for the second", set.waiting_zero(1)?, 1)?;
    set.op(&[SemOp::add(0, 1)])?;
    set.op(&[SemOp::add(1, -1)])?;
    cx.expect_eq("processes that wait for the first again", set.waiting_zero(0)?, 1)?;
    set.op(&[SemOp::add(0, -1)])?;
    expect_woken(cx, peer)
}

const ARRAY_ALL_AT_ONCE: Probe = Probe {
    title: "a sleeping array takes nothing until it can take everything",
    why: "holding one lock while waiting for the next is how deadlocks are made",
    spec: &[man("semop(2)", "DESCRIPTION"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.wake.array-all-at-once", array_all_at_once)
};
fn array_all_at_once(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(2)?;
    let peer = sleeper(cx, &set, &[SemOp::add(0, -1), SemOp::add(1, -1)])?;
    set.op(&[SemOp::add(0, 1)])?;
    cx.expect_eq("values after the first increase", set.values()?, vec![1, 0])?;
    cx.expect_ok(|| set.op(&[SemOp::add(0, -1).nowait()]))?;
    set.op(&[SemOp::add(1, 1)])?;
    cx.expect_eq("values after the second", set.values()?, vec![0, 1])?;
    set.op(&[SemOp::add(0, 1)])?;
    expect_woken(cx, peer)?;
    cx.expect_eq("values at the end", set.values()?, vec![0, 0])
}

const LOCK_OF_THE_MANUAL: Probe = Probe {
    title: "the manual's lock passes from owner to sleeper",
    why: "wait-for-zero with an increase is the oldest lock of all; two at once corrupt what it guards",
    spec: &[man("semop(2)", "EXAMPLES"), kernel("ipc/sem.c", "perform_atomic_semop_slow")],
    calls: CALLS,
    ..Probe::new("sysv.sem.wake.lock-of-the-manual", lock_of_the_manual)
};
fn lock_of_the_manual(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(1)?;
    let lock = [SemOp::zero(0), SemOp::add(0, 1)];
    set.op(&lock)?;
    let first = sleeper(cx, &set, &lock)?;
    let second = sleeper(cx, &set, &lock)?;
    cx.expect_eq("processes that wait for zero", set.waiting_zero(0)?, 2)?;
    set.op(&[SemOp::add(0, -1)])?;
    expect_woken(cx, first)?;
    cx.expect_eq("value", set.value(0)?, 1)?;
    cx.expect_eq("processes that wait for zero", set.waiting_zero(0)?, 1)?;
    set.op(&[SemOp::add(0, -1)])?;
    expect_woken(cx, second)
}

const CHAIN: Probe = Probe {
    title: "what a woken array adds wakes the next sleeper",
    why: "stages of a pipeline hand on tokens this way; it would stop at the second stage",
    spec: &[man("semop(2)", "DESCRIPTION"), kernel("ipc/sem.c", "check_restart")],
    calls: CALLS,
    ..Probe::new("sysv.sem.wake.chain", |cx| {
        let set = cx.sem_set(3)?;
        // The last stage sleeps first: the kernel must look at its queue again after each success.
        let last = sleeper(cx, &set, &[SemOp::add(2, -1)])?;
        let middle = sleeper(cx, &set, &[SemOp::add(1, -1), SemOp::add(2, 1)])?;
        let first = sleeper(cx, &set, &[SemOp::add(0, -1), SemOp::add(1, 1)])?;
        set.op(&[SemOp::add(0, 1)])?;
        for peer in [first, middle, last] {
            expect_woken(cx, peer)?;
        }
        cx.expect_eq("values", set.values()?, vec![0, 0, 0])
    })
};

const CHAIN_TO_ZERO: Probe = Probe {
    title: "a woken taker that brings the value to 0 wakes waiters for zero",
    why: "a drain waits until the last token is gone, whoever takes it",
    spec: &[man("semop(2)", "DESCRIPTION"), kernel("ipc/sem.c", "do_smart_wakeup_zero")],
    calls: CALLS,
    ..Probe::new("sysv.sem.wake.chain-to-zero", |cx| {
        let set = cx.sem_set(1)?;
        set.set(0, 1)?;
        let taker = sleeper(cx, &set, &[SemOp::add(0, -2)])?;
        let zero = sleeper(cx, &set, &[SemOp::zero(0)])?;
        set.op(&[SemOp::add(0, 1)])?;
        expect_woken(cx, taker)?;
        expect_woken(cx, zero)?;
        cx.expect_eq("value", set.value(0)?, 0)
    })
};

const SIMPLE_BEHIND_ARRAY: Probe = Probe {
    title: "single operations are served while an array sleeps on the set",
    why: "one large request must not change what everybody else's lock does",
    spec: &[man("semop(2)", "DESCRIPTION"), kernel("ipc/sem.c", "merge_queues")],
    calls: CALLS,
    ..Probe::new("sysv.sem.wake.simple-behind-array", |cx| {
        let set = cx.sem_set(3)?;
        let array = sleeper(cx, &set, &[SemOp::add(0, -1), SemOp::add(1, -1)])?;
        let single = sleeper(cx, &set, &[SemOp::add(2, -1)])?;
        set.op(&[SemOp::add(2, 1)])?;
        expect_woken(cx, single)?;
        set.op(&[SemOp::add(0, 1), SemOp::add(1, 1)])?;
        expect_woken(cx, array)
    })
};

const SIMPLE_BEFORE_ARRAY: Probe = Probe {
    title: "a single operation still wakes after a sleeping array was killed",
    why: "the kernel moves sleepers between queues when arrays come and go; one left behind sleeps for ever",
    spec: &[man("semop(2)", "DESCRIPTION"), kernel("ipc/sem.c", "unmerge_queues")],
    calls: CALLS,
    ..Probe::new("sysv.sem.wake.simple-before-array", |cx| {
        let set = cx.sem_set(3)?;
        let before = sleeper(cx, &set, &[SemOp::add(2, -1)])?;
        let array = sleeper(cx, &set, &[SemOp::add(0, -1), SemOp::add(1, -1)])?;
        let after = sleeper(cx, &set, &[SemOp::add(2, -1)])?;
        array.kill()?;
        cx.expect_eq("processes that wait", (set.waiting(0)?, set.waiting(2)?), (0, 2))?;
        for peer in [before, after] {
            set.op(&[SemOp::add(2, 1)])?;
            expect_woken(cx, peer)?;
        }
        Ok(())
    })
};

const SLEEPERS_PID: Probe = Probe {
    title: "sempid becomes the sleeper whose operation was done at last",
    why: "the holder of the lock is who waited for it, not who released it",
    spec: &[man("semop(2)", "DESCRIPTION"), kernel("ipc/sem.c", "perform_atomic_semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.wake.sleepers-pid", |cx| {
        let set = cx.sem_set(2)?;
        let peer = sleeper(cx, &set, &[SemOp::add(0, -1)])?;
        let pid = peer.pid();
        cx.expect_eq("sempid while it sleeps", set.last_pid(0)?, 0)?;
        set.op(&[SemOp::add(0, 1)])?;
        expect_woken(cx, peer)?;
        cx.expect_eq("sempid", (set.last_pid(0)?, set.last_pid(1)?), (pid, 0))
    })
};
