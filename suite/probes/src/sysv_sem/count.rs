//! semctl(2) GETNCNT and GETZCNT: how many wait, and for what.

use super::helpers::{expect_woken, sleeper};
use shmcheck_probe::sys::SemOp;
use shmcheck_probe::{Context, Outcome, Probe, SemSet, Sys, kernel, man, posix};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &NOBODY,
    &TAKERS,
    &ZERO_WAITERS,
    &PER_SEMAPHORE,
    &ARRAY_AT_FIRST_BLOCKING,
    &ARRAY_MOVES_ON,
    &ARRAY_ZERO_IN_ALTER,
    &ARRAY_OF_ZEROS,
    &SIMPLE_WITH_ARRAY,
    &TAKER_IS_NO_ZERO_WAITER,
    &DROPS_WHEN_WOKEN,
];

const CALLS: &[Sys] = &[Sys::Semctl, Sys::Semop, Sys::Semtimedop];

/// (GETNCNT, GETZCNT) of every semaphore of the set.
fn counts(set: &SemSet) -> shmcheck_probe::sys::Result<Vec<(i32, i32)>> {
    let nums = 0..i32::try_from(set.nsems).unwrap_or(0);
    nums.map(|num| Ok((set.waiting(num)?, set.waiting_zero(num)?))).collect()
}

/// Starts sleepers for these arrays on a set with these values; then the counts must be as given.
fn counted(cx: &mut Context, values: &[u16], waits: &[&[SemOp]], wanted: &[(i32, i32)]) -> Outcome {
    let set = cx.sem_set(i32::try_from(values.len()).unwrap_or(1))?;
    set.set_all(values)?;
    let mut peers = Vec::new();
    for ops in waits {
        peers.push(sleeper(cx, &set, ops)?);
    }
    cx.expect_eq("GETNCNT, GETZCNT", counts(&set)?, wanted.to_vec())?;
    for peer in peers {
        peer.kill()?;
    }
    cx.expect_eq("GETNCNT, GETZCNT after all were killed", counts(&set)?, vec![(0, 0); values.len()])
}

const NOBODY: Probe = Probe {
    title: "nobody waits on a set that nobody waits on",
    why: "supervisors alarm on a count that does not go back to 0",
    spec: &[man("semctl(2)", "GETNCNT"), man("semctl(2)", "GETZCNT")],
    calls: CALLS,
    ..Probe::new("sysv.sem.count.nobody", |cx| {
        let set = cx.sem_set(2)?;
        set.op(&[SemOp::add(0, 1)])?;
        set.op(&[SemOp::add(0, -1), SemOp::zero(1)])?;
        cx.expect_eq("GETNCNT, GETZCNT", counts(&set)?, vec![(0, 0), (0, 0)])
    })
};

const TAKERS: Probe = Probe {
    title: "GETNCNT is the number of processes that wait for an increase",
    why: "load shedding starts when the queue in front of a lock is long",
    spec: &[man("semctl(2)", "GETNCNT"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.count.takers", |cx| {
        counted(cx, &[1], &[&[SemOp::add(0, -2)], &[SemOp::add(0, -3)], &[SemOp::add(0, -2)]], &[(3, 0)])
    })
};

const ZERO_WAITERS: Probe = Probe {
    title: "GETZCNT is the number of processes that wait for zero",
    why: "a barrier's owner sees by it that everybody has arrived",
    spec: &[man("semctl(2)", "GETZCNT"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.count.zero-waiters", |cx| {
        counted(cx, &[1], &[&[SemOp::zero(0)], &[SemOp::zero(0)]], &[(0, 2)])
    })
};

const PER_SEMAPHORE: Probe = Probe {
    title: "waiters are counted on the semaphore they wait for",
    why: "with one number for the whole set nobody finds the contended lock",
    spec: &[man("semctl(2)", "GETNCNT"), man("semctl(2)", "GETZCNT")],
    calls: CALLS,
    ..Probe::new("sysv.sem.count.per-semaphore", |cx| {
        let waits: &[&[SemOp]] = &[&[SemOp::add(0, -2)], &[SemOp::zero(2)], &[SemOp::add(2, -5)], &[SemOp::zero(2)]];
        counted(cx, &[1, 1, 1], waits, &[(1, 0), (0, 0), (1, 2)])
    })
};

const ARRAY_AT_FIRST_BLOCKING: Probe = Probe {
    title: "an array is counted once, where its first blocking operation is",
    why: "Linux before 3.16 counted it on every semaphore: sums of waiters came out too large",
    spec: &[man("semctl(2)", "GETNCNT"), kernel("ipc/sem.c", "count_semcnt")],
    calls: CALLS,
    ..Probe::new("sysv.sem.count.array-first-blocking", |cx| {
        let ops: &[SemOp] = &[SemOp::add(0, -1), SemOp::add(1, -2), SemOp::add(2, -2)];
        counted(cx, &[1, 1, 1], &[ops, ops], &[(0, 0), (2, 0), (0, 0)])
    })
};

const ARRAY_MOVES_ON: Probe = Probe {
    title: "an array that gets further is counted where it waits next",
    why: "the display would keep accusing a lock that is long free",
    spec: &[man("semctl(2)", "GETNCNT"), kernel("ipc/sem.c", "check_qop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.count.array-moves-on", |cx| {
        let set = cx.sem_set(2)?;
        let peer = sleeper(cx, &set, &[SemOp::add(0, -1), SemOp::add(1, -1)])?;
        cx.expect_eq("GETNCNT, GETZCNT", counts(&set)?, vec![(1, 0), (0, 0)])?;
        set.op(&[SemOp::add(0, 1)])?;
        cx.expect_eq("GETNCNT, GETZCNT", counts(&set)?, vec![(0, 0), (1, 0)])?;
        set.op(&[SemOp::add(1, 1)])?;
        expect_woken(cx, peer)
    })
};

const ARRAY_ZERO_IN_ALTER: Probe = Probe {
    title: "a lock of wait-for-zero with increase counts as waiting for zero",
    why: "the manual's own lock: its waiters are found with GETZCNT",
    spec: &[man("semctl(2)", "GETZCNT"), man("semop(2)", "EXAMPLES")],
    calls: CALLS,
    ..Probe::new("sysv.sem.count.array-zero-add", |cx| {
        counted(cx, &[1], &[&[SemOp::zero(0), SemOp::add(0, 1)]], &[(0, 1)])
    })
};

const ARRAY_OF_ZEROS: Probe = Probe {
    title: "an array of waits for zero is counted at the first that blocks",
    why: "who waits for several groups shows up at the one that is late",
    spec: &[man("semctl(2)", "GETZCNT"), kernel("ipc/sem.c", "count_semcnt")],
    calls: CALLS,
    ..Probe::new("sysv.sem.count.array-of-zeros", |cx| {
        counted(cx, &[0, 1, 1], &[&[SemOp::zero(0), SemOp::zero(1), SemOp::zero(2)]], &[(0, 0), (0, 1), (0, 0)])
    })
};

const SIMPLE_WITH_ARRAY: Probe = Probe {
    title: "single operations are counted also while an array sleeps",
    why: "the kernel keeps them in another queue then; a monitor must not lose them",
    spec: &[man("semctl(2)", "GETNCNT"), man("semctl(2)", "GETZCNT"), kernel("ipc/sem.c", "count_semcnt")],
    calls: CALLS,
    ..Probe::new("sysv.sem.count.simple-with-array", |cx| {
        let array: &[SemOp] = &[SemOp::add(0, -1), SemOp::add(1, -1)];
        let waits = [&[SemOp::add(0, -1)], array, &[SemOp::add(0, -1)], &[SemOp::zero(2)], &[SemOp::add(2, -9)]];
        counted(cx, &[0, 0, 1], &waits, &[(3, 0), (0, 0), (1, 1)])
    })
};

const TAKER_IS_NO_ZERO_WAITER: Probe = Probe {
    title: "an array that waits for an increase does not count as zero waiter",
    why: "the two counts answer two questions and are read side by side",
    spec: &[man("semctl(2)", "GETZCNT"), kernel("ipc/sem.c", "check_qop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.count.array-kinds-apart", |cx| {
        let waits: &[&[SemOp]] = &[&[SemOp::add(0, -2), SemOp::zero(0)], &[SemOp::zero(0), SemOp::add(1, 1)]];
        counted(cx, &[1, 0], waits, &[(1, 1), (0, 0)])
    })
};

const DROPS_WHEN_WOKEN: Probe = Probe {
    title: "a woken process is no longer counted",
    why: "the count is decremented at the wake-up, not when the process next runs",
    spec: &[man("semop(2)", "DESCRIPTION"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.count.drops-when-woken", |cx| {
        let set = cx.sem_set(2)?;
        set.set_all(&[0, 1])?;
        let taker = sleeper(cx, &set, &[SemOp::add(0, -1)])?;
        let zero = sleeper(cx, &set, &[SemOp::zero(1)])?;
        cx.expect_eq("GETNCNT, GETZCNT", counts(&set)?, vec![(1, 0), (0, 1)])?;
        set.op(&[SemOp::add(0, 1)])?;
        cx.expect_eq("GETNCNT, GETZCNT", counts(&set)?, vec![(0, 0), (0, 1)])?;
        set.op(&[SemOp::add(1, -1)])?;
        cx.expect_eq("GETNCNT, GETZCNT", counts(&set)?, vec![(0, 0), (0, 0)])?;
        expect_woken(cx, taker)?;
        expect_woken(cx, zero)
    })
};
