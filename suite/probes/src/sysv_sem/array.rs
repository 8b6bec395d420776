//! semop(2): arrays of operations are performed in order, all or none.

use super::helpers::{expect_woken, settle, sleeper};
use libc::{EAGAIN, ERANGE};
use shmcheck_probe::sys::{self, SEMVMX, SemOp};
use shmcheck_probe::{Context, Map, Outcome, Probe, Sys, kernel, man, posix};
use std::sync::atomic::Ordering;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &ALL_DONE,
    &NONE_DONE,
    &NONE_DONE_TWICE_NAMED,
    &IN_ORDER,
    &ORDER_MATTERS,
    &ZERO_THEN_ADD,
    &OVERFLOW_BETWEEN,
    &NOWAIT_OF_BLOCKING_ONE,
    &SAME_SEMAPHORE_SUMS,
    &NUMBERS_64_APART,
    &FULL_LENGTH,
    &SNAPSHOT,
    &MUTUAL_EXCLUSION,
    &MIXED,
];

const CALLS: &[Sys] = &[Sys::Semop, Sys::Semtimedop, Sys::Semctl];

const ALL_DONE: Probe = Probe {
    title: "an array that can proceed is performed as a whole",
    why: "PostgreSQL's and Oracle's multi-lock requests would take only part of their locks",
    spec: &[man("semop(2)", "DESCRIPTION"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.array.all-done", |cx| {
        let set = cx.sem_set(4)?;
        set.set_all(&[4, 4, 0, 4])?;
        cx.expect_ok(|| set.op(&[SemOp::add(0, -4), SemOp::add(1, 3), SemOp::zero(2), SemOp::add(3, -1)]))?;
        cx.expect_eq("values", set.values()?, vec![0, 7, 0, 3])
    })
};

const NONE_DONE: Probe = Probe {
    title: "an array whose last operation would wait does nothing at all",
    why: "half a transfer loses a token for good: a dining philosopher keeps one fork and starves",
    spec: &[man("semop(2)", "DESCRIPTION"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.array.none-done", |cx| {
        let set = cx.sem_set(3)?;
        set.set_all(&[2, 2, 0])?;
        let refused = [SemOp::add(0, -2), SemOp::add(1, 5), SemOp::add(2, -1).nowait()];
        cx.expect_errno(EAGAIN, || set.op(&refused))?;
        cx.expect_eq("values", set.values()?, vec![2, 2, 0])?;
        cx.expect_ok(|| set.op(&[SemOp::add(2, 1)]))?;
        cx.expect_ok(|| set.op(&refused))?;
        cx.expect_eq("values", set.values()?, vec![0, 7, 0])
    })
};

const NONE_DONE_TWICE_NAMED: Probe = Probe {
    title: "nothing is done also where the array names a semaphore twice",
    why: "the kernel performs such arrays on another path, step by step, and must take every step back",
    spec: &[man("semop(2)", "DESCRIPTION"), kernel("ipc/sem.c", "perform_atomic_semop_slow")],
    calls: CALLS,
    ..Probe::new("sysv.sem.array.none-done-twice-named", |cx| {
        let set = cx.sem_set(2)?;
        set.set_all(&[2, 1])?;
        let refused = [SemOp::add(0, -1).undo(), SemOp::add(1, 3), SemOp::add(0, -1), SemOp::add(0, -1).nowait()];
        cx.expect_errno(EAGAIN, || set.op(&refused))?;
        cx.expect_eq("values", set.values()?, vec![2, 1])?;
        cx.expect_eq("sem_otime", set.stat()?.otime, 0)?;
        set.op(&[SemOp::add(0, 1)])?;
        cx.expect_ok(|| set.op(&refused))?;
        cx.expect_eq("values", set.values()?, vec![0, 4])
    })
};

const IN_ORDER: Probe = Probe {
    title: "operations see the effect of those before them in the array",
    why: "'add one, take one' is used as a poke; out of order it would wait for ever",
    spec: &[man("semop(2)", "DESCRIPTION"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.array.in-order", |cx| {
        let set = cx.sem_set(1)?;
        cx.expect_ok(|| set.op(&[SemOp::add(0, 1), SemOp::add(0, -1).nowait()]))?;
        cx.expect_ok(|| set.op(&[SemOp::add(0, 3), SemOp::add(0, -3).nowait(), SemOp::zero(0).nowait()]))?;
        cx.expect_eq("value", set.value(0)?, 0)
    })
};

const ORDER_MATTERS: Probe = Probe {
    title: "a later increase does not help an earlier decrease",
    why: "a kernel that only looks at the sum would let a second owner in",
    spec: &[man("semop(2)", "DESCRIPTION"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.array.order-matters", |cx| {
        let set = cx.sem_set(1)?;
        cx.expect_errno(EAGAIN, || set.op(&[SemOp::add(0, -1).nowait(), SemOp::add(0, 1)]))?;
        cx.expect_errno(EAGAIN, || set.op(&[SemOp::add(0, 1), SemOp::zero(0).nowait(), SemOp::add(0, -1)]))?;
        cx.expect_eq("value", set.value(0)?, 0)
    })
};

const ZERO_THEN_ADD: Probe = Probe {
    title: "wait-for-zero followed by an increase takes a lock exactly once",
    why: "it is the manual's own example of a lock; both callers would enter",
    spec: &[man("semop(2)", "EXAMPLES")],
    calls: CALLS,
    ..Probe::new("sysv.sem.array.zero-then-add", |cx| {
        let set = cx.sem_set(1)?;
        let lock = [SemOp::zero(0).nowait(), SemOp::add(0, 1)];
        cx.expect_ok(|| set.op(&lock))?;
        cx.expect_errno(EAGAIN, || set.op(&lock))?;
        cx.expect_eq("value", set.value(0)?, 1)?;
        set.op(&[SemOp::add(0, -1)])?;
        cx.expect_ok(|| set.op(&lock))
    })
};

const OVERFLOW_BETWEEN: Probe = Probe {
    title: "a value above SEMVMX between two operations refuses the array",
    why: "the check holds for each operation; the steps before it are taken back",
    spec: &[man("semop(2)", "ERANGE"), kernel("ipc/sem.c", "perform_atomic_semop_slow")],
    calls: CALLS,
    ..Probe::new("sysv.sem.array.overflow-between", |cx| {
        let set = cx.sem_set(2)?;
        set.set_all(&[SEMVMX as u16, 0])?;
        let ops = [SemOp::add(1, 4).undo(), SemOp::add(1, 4), SemOp::add(0, 1), SemOp::add(0, -1)];
        cx.expect_errno(ERANGE, || set.op(&ops))?;
        cx.expect_eq("values", set.values()?, vec![SEMVMX as u16, 0])?;
        let reversed = [SemOp::add(1, 4), SemOp::add(0, -1), SemOp::add(0, 1)];
        cx.expect_ok(|| set.op(&reversed))?;
        cx.expect_eq("values", set.values()?, vec![SEMVMX as u16, 4])
    })
};

const NOWAIT_OF_BLOCKING_ONE: Probe = Probe {
    title: "only the flag of the operation that blocks decides about waiting",
    why: "a program that marks one operation IPC_NOWAIT still means to wait for the others",
    spec: &[man("semop(2)", "DESCRIPTION")],
    calls: CALLS,
    ..Probe::new("sysv.sem.array.nowait-per-operation", nowait_of_blocking_one)
};
fn nowait_of_blocking_one(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(2)?;
    set.set_all(&[1, 0])?;
    let peer = sleeper(cx, &set, &[SemOp::add(0, -1).nowait(), SemOp::add(1, -1)])?;
    cx.expect_eq("values while it waits", set.values()?, vec![1, 0])?;
    set.op(&[SemOp::add(1, 1)])?;
    expect_woken(cx, peer)?;
    cx.expect_eq("values", set.values()?, vec![0, 0])
}

const SAME_SEMAPHORE_SUMS: Probe = Probe {
    title: "operations on one semaphore in one array add up",
    why: "generated batches name a semaphore many times; each has to count",
    spec: &[man("semop(2)", "DESCRIPTION"), kernel("ipc/sem.c", "perform_atomic_semop_slow")],
    calls: CALLS,
    ..Probe::new("sysv.sem.array.same-semaphore", |cx| {
        let set = cx.sem_set(3)?;
        let ops = [SemOp::add(1, 5), SemOp::add(2, 1), SemOp::add(1, -2), SemOp::add(1, 7), SemOp::zero(0)];
        cx.expect_ok(|| set.op(&ops))?;
        cx.expect_eq("values", set.values()?, vec![0, 10, 1])?;
        cx.expect_eq("sempid of the last one", set.last_pid(0)?, sys::getpid())
    })
};

const NUMBERS_64_APART: Probe = Probe {
    title: "semaphores 64 apart are told from one named twice",
    why: "the kernel's quick test for repeats counts modulo 64; the values must come out the same",
    spec: &[man("semop(2)", "DESCRIPTION"), kernel("ipc/sem.c", "__do_semtimedop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.array.numbers-64-apart", |cx| {
        let set = cx.sem_set(130)?;
        cx.expect_ok(|| set.op(&[SemOp::add(1, 1), SemOp::add(65, 2), SemOp::add(129, 3)]))?;
        cx.expect_errno(EAGAIN, || set.op(&[SemOp::add(1, -1), SemOp::add(65, -3).nowait()]))?;
        let values = set.values()?;
        cx.expect_eq("values 1, 65, 129", [values[1], values[65], values[129]], [1, 2, 3])?;
        cx.expect_eq("sum of all values", values.iter().sum::<u16>(), 6)
    })
};

const FULL_LENGTH: Probe = Probe {
    title: "an array as long as SEMOPM allows is performed to its end",
    why: "above 64 operations the kernel copies the array elsewhere; a lost tail leaves locks held",
    spec: &[man("semop(2)", "Semaphore limits"), kernel("ipc/sem.c", "do_semtimedop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.array.full-length", full_length)
};
fn full_length(cx: &mut Context) -> Outcome {
    let limit = sys::sem_info(sys::IPC_INFO)?.1.semopm.clamp(1, 500);
    let set = cx.sem_set(limit)?;
    let count = u16::try_from(limit).unwrap_or(1);
    let each: Vec<SemOp> = (0..count).map(|num| SemOp::add(num, 2)).collect();
    cx.expect_ok(|| set.op(&each))?;
    let wrong = set.values()?.into_iter().filter(|value| *value != 2).count();
    cx.expect_eq("semaphores that missed their operation", wrong, 0)?;
    let one = vec![SemOp::add(0, 1); usize::from(count)];
    cx.expect_ok(|| set.op(&one))?;
    cx.expect_eq("value after as many increases of one", set.value(0)?, 2 + limit)
}

const SNAPSHOT: Probe = Probe {
    title: "no reader sees an array half performed",
    why: "GETALL is how a supervisor adds up who holds what: tokens on their way would be missing in the sum",
    spec: &[man("semop(2)", "DESCRIPTION"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.array.snapshot", snapshot)
};
fn snapshot(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(8)?;
    set.set_all(&[100, 0, 0, 0, 0, 0, 0, 100])?;
    let (id, ready) = (set.id, cx.gate()?);
    let mover = cx.fork(|_| {
        ready.open()?;
        for _ in 0..300 {
            sys::semop(id, &[SemOp::add(0, -3), SemOp::add(3, 3), SemOp::add(7, -5), SemOp::add(4, 5)])?;
            sys::semop(id, &[SemOp::add(4, -5), SemOp::add(7, 5), SemOp::add(3, -3), SemOp::add(0, 3)])?;
        }
        Ok(())
    })?;
    ready.pass()?;
    for _ in 0..300 {
        let values = set.values()?;
        cx.expect_eq("sum of all values", values.iter().sum::<u16>(), 200)?;
        cx.expect(
            "values",
            values[3] == 0 && values[4] == 0 || values[3] == 3 && values[4] == 5,
            "both moved",
            values,
        )?;
    }
    mover.join()
}

const MUTUAL_EXCLUSION: Probe = Probe {
    title: "a semaphore of 1 lets one process at a time into a section",
    why: "it is what the calls are for; lost updates are silent corruption of the shared data",
    spec: &[man("semop(2)", "DESCRIPTION"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.array.mutual-exclusion", mutual_exclusion)
};
fn mutual_exclusion(cx: &mut Context) -> Outcome {
    const ROUNDS: u32 = 150;
    let set = cx.sem_set(1)?;
    settle(&set)?;
    let memory = Map::shared_anonymous(sys::page_size())?;
    let id = set.id;
    let mut peers = Vec::new();
    for _ in 0..3 {
        let shared = Map::view(memory.address(), memory.len());
        peers.push(cx.fork(move |_| {
            for _ in 0..ROUNDS {
                sys::semop(id, &[SemOp::add(0, -1)])?;
                // Read and store apart: another owner in between loses one of the two increments.
                let count = shared.atomic(0).load(Ordering::Relaxed);
                for _ in 0..20 {
                    std::hint::spin_loop();
                }
                shared.atomic(0).store(count + 1, Ordering::Relaxed);
                sys::semop(id, &[SemOp::add(0, 1)])?;
            }
            Ok(())
        })?);
    }
    // All three wait for the first token.
    set.op(&[SemOp::add(0, 1)])?;
    for peer in peers {
        peer.join()?;
    }
    cx.expect_eq("increments counted", memory.atomic(0).load(Ordering::Relaxed), 3 * ROUNDS)?;
    cx.expect_eq("value", set.value(0)?, 1)
}

const MIXED: Probe = Probe {
    title: "single operations lose nothing beside arrays on the same set",
    why: "the kernel locks one semaphore for the one, the whole set for the other; races between the two lost updates",
    spec: &[man("semop(2)", "DESCRIPTION"), kernel("ipc/sem.c", "complexmode_enter")],
    calls: CALLS,
    ..Probe::new("sysv.sem.array.mixed", mixed)
};
fn mixed(cx: &mut Context) -> Outcome {
    const ROUNDS: i32 = 300;
    const WORK: [&[SemOp]; 3] =
        [&[SemOp::add(0, 1)], &[SemOp::add(1, 1)], &[SemOp::add(0, 2), SemOp::add(1, 2), SemOp::zero(2)]];
    let set = cx.sem_set(3)?;
    settle(&set)?;
    let id = set.id;
    let mut peers = Vec::new();
    for ops in WORK {
        // Singles follow each other closely; an array now and then, so that the kernel changes its mode often.
        let arrays = ops.len() > 1;
        peers.push(cx.fork(move |_| {
            for round in 0..ROUNDS {
                if !arrays || round % 12 == 0 {
                    sys::semop(id, ops)?;
                } else {
                    sys::semop(id, &[SemOp::add(2, 1)])?;
                    sys::semop(id, &[SemOp::add(2, -1)])?;
                }
            }
            Ok(())
        })?);
    }
    for peer in peers {
        peer.join()?;
    }
    let each = u16::try_from(ROUNDS + 2 * (ROUNDS / 12)).unwrap_or(0);
    cx.expect_eq("values", set.values()?, vec![each, each, 0])
}
