//! semop(2): what operations do that need not wait.

use libc::{E2BIG, EAGAIN, EFAULT, EFBIG, EINVAL, ERANGE};
use shmcheck_probe::sys::{self, SEMVMX, SemOp};
use shmcheck_probe::{Context, Outcome, Probe, Sys, kernel, man, posix};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &POSITIVE_ADDS,
    &NEGATIVE_TAKES,
    &ZERO_PASSES,
    &TAKE_EAGAIN,
    &ZERO_EAGAIN,
    &UP_TO_SEMVMX,
    &ABOVE_SEMVMX,
    &NUMBER_EFBIG,
    &NUMBER_NEGATIVE_EFBIG,
    &LATER_NUMBER_EFBIG,
    &NONE_EINVAL,
    &NEGATIVE_ID_EINVAL,
    &UNKNOWN_ID_EINVAL,
    &REMOVED_ID_EINVAL,
    &TOO_MANY_E2BIG,
    &ARRAY_EFAULT,
    &LONG_ARRAY_EFAULT,
    &SETS_OTIME,
    &ZERO_SETS_OTIME,
    &REFUSED_KEEPS_OTIME,
    &UNKNOWN_FLAG,
    &RAW_SEMOP,
    &RAW_SEMTIMEDOP,
];

const POSITIVE_ADDS: Probe = Probe {
    title: "a positive sem_op is added to the value",
    why: "the releasing half of every lock: lost releases end in a server that stands still",
    spec: &[man("semop(2)", "DESCRIPTION"), posix("semop")],
    calls: &[Sys::Semop, Sys::Semtimedop, Sys::Semctl],
    ..Probe::new("sysv.sem.op.positive-adds", positive_adds)
};
fn positive_adds(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(3)?;
    set.set_all(&[1, 1, 1])?;
    cx.expect_ok(|| set.op(&[SemOp::add(1, 1)]))?;
    cx.expect_ok(|| set.op(&[SemOp::add(1, 30)]))?;
    cx.expect_eq("values", set.values()?, vec![1, 32, 1])
}

const NEGATIVE_TAKES: Probe = Probe {
    title: "a negative sem_op is taken from a value that is large enough",
    why: "the taking half of every lock: two workers would both own it",
    spec: &[man("semop(2)", "DESCRIPTION"), posix("semop")],
    calls: &[Sys::Semop, Sys::Semtimedop, Sys::Semctl],
    ..Probe::new("sysv.sem.op.negative-takes", negative_takes)
};
fn negative_takes(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(3)?;
    set.set_all(&[5, 5, 5])?;
    cx.expect_ok(|| set.op(&[SemOp::add(1, -2)]))?;
    cx.expect_ok(|| set.op(&[SemOp::add(1, -3)]))?;
    cx.expect_eq("values", set.values()?, vec![5, 0, 5])
}

const ZERO_PASSES: Probe = Probe {
    title: "a sem_op of 0 passes where the value is 0",
    why: "barriers wait for zero; a barrier that nobody passes hangs a whole job",
    spec: &[man("semop(2)", "DESCRIPTION"), posix("semop")],
    calls: &[Sys::Semop, Sys::Semtimedop, Sys::Semctl],
    ..Probe::new("sysv.sem.op.zero-passes", zero_passes)
};
fn zero_passes(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(2)?;
    set.set(0, 4)?;
    cx.expect_ok(|| set.op(&[SemOp::zero(1).nowait()]))?;
    cx.expect_eq("values", set.values()?, vec![4, 0])
}

const TAKE_EAGAIN: Probe = Probe {
    title: "IPC_NOWAIT takes nothing from a value too small: EAGAIN",
    why: "a try-lock that waits, or takes what is not there, stalls or corrupts its caller",
    spec: &[man("semop(2)", "EAGAIN"), posix("semop")],
    calls: &[Sys::Semop, Sys::Semtimedop, Sys::Semctl],
    ..Probe::new("sysv.sem.op.take-eagain", take_eagain)
};
fn take_eagain(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(1)?;
    set.set(0, 2)?;
    cx.expect_errno(EAGAIN, || set.op(&[SemOp::add(0, -3).nowait()]))?;
    cx.expect_eq("value", set.value(0)?, 2)?;
    cx.expect_ok(|| set.op(&[SemOp::add(0, -2).nowait()]))
}

const ZERO_EAGAIN: Probe = Probe {
    title: "IPC_NOWAIT does not wait for zero: EAGAIN",
    why: "a monitor that only asks 'is it idle' would be caught until it is",
    spec: &[man("semop(2)", "EAGAIN"), posix("semop")],
    calls: &[Sys::Semop, Sys::Semtimedop, Sys::Semctl],
    ..Probe::new("sysv.sem.op.zero-eagain", zero_eagain)
};
fn zero_eagain(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(1)?;
    cx.expect_ok(|| set.op(&[SemOp::zero(0).nowait()]))?;
    set.set(0, 1)?;
    cx.expect_errno(EAGAIN, || set.op(&[SemOp::zero(0).nowait()]))?;
    cx.expect_eq("value", set.value(0)?, 1)
}

const UP_TO_SEMVMX: Probe = Probe {
    title: "a semaphore holds every value up to SEMVMX",
    why: "a pool that counts buffers in one semaphore would stop growing",
    spec: &[man("semop(2)", "Semaphore limits")],
    calls: &[Sys::Semop, Sys::Semtimedop, Sys::Semctl],
    ..Probe::new("sysv.sem.op.up-to-semvmx", up_to_semvmx)
};
fn up_to_semvmx(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(1)?;
    cx.expect_ok(|| set.op(&[SemOp::add(0, i16::MAX)]))?;
    cx.expect_eq("value", set.value(0)?, SEMVMX)?;
    cx.expect_ok(|| set.op(&[SemOp::add(0, -i16::MAX)]))?;
    cx.expect_eq("value", set.value(0)?, 0)
}

const ABOVE_SEMVMX: Probe = Probe {
    title: "an increase beyond SEMVMX is refused: ERANGE",
    why: "a counter that wraps around turns a full pool into an empty one",
    spec: &[man("semop(2)", "ERANGE"), posix("semop")],
    calls: &[Sys::Semop, Sys::Semtimedop, Sys::Semctl],
    ..Probe::new("sysv.sem.op.above-semvmx", above_semvmx)
};
fn above_semvmx(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(2)?;
    set.set_all(&[32_760, 1])?;
    cx.expect_errno(ERANGE, || set.op(&[SemOp::add(0, 8)]))?;
    cx.expect_errno(ERANGE, || set.op(&[SemOp::add(0, i16::MAX)]))?;
    cx.expect_errno(ERANGE, || set.op(&[SemOp::add(1, -1), SemOp::add(0, 8)]))?;
    cx.expect_eq("values", set.values()?, vec![32_760, 1])?;
    cx.expect_ok(|| set.op(&[SemOp::add(0, 7)]))
}

const NUMBER_EFBIG: Probe = Probe {
    title: "an operation on a semaphore past the set's end fails: EFBIG",
    why: "an index computed for a larger set must not reach the kernel's memory behind this one",
    spec: &[man("semop(2)", "EFBIG"), posix("semop")],
    calls: &[Sys::Semop, Sys::Semtimedop],
    ..Probe::new("sysv.sem.op.number-efbig", |cx| efbig(cx, &[SemOp::add(3, 1)]))
};

const NUMBER_NEGATIVE_EFBIG: Probe = Probe {
    title: "an operation on semaphore number -1 fails with EFBIG",
    why: "'not found' indexes of -1 are the usual programming error",
    spec: &[man("semop(2)", "EFBIG"), posix("semop")],
    calls: &[Sys::Semop, Sys::Semtimedop],
    ..Probe::new("sysv.sem.op.number-negative-efbig", |cx| efbig(cx, &[SemOp::add(u16::MAX, 1)]))
};

const LATER_NUMBER_EFBIG: Probe = Probe {
    title: "one bad semaphore number refuses the whole array: EFBIG",
    why: "the first half of a transaction would be done and its end refused",
    spec: &[man("semop(2)", "EFBIG"), posix("semop")],
    calls: &[Sys::Semop, Sys::Semtimedop],
    ..Probe::new("sysv.sem.op.later-number-efbig", |cx| efbig(cx, &[SemOp::add(0, 1), SemOp::add(7, 1)]))
};

fn efbig(cx: &mut Context, ops: &[SemOp]) -> Outcome {
    let set = cx.sem_set(3)?;
    cx.expect_ok(|| set.op(&[SemOp::add(2, 1)]))?;
    cx.expect_errno(EFBIG, || set.op(ops))?;
    cx.expect_errno(EFBIG, || set.op(&ops.iter().map(|op| op.undo().nowait()).collect::<Vec<_>>()))?;
    cx.expect_eq("values", set.values()?, vec![0, 0, 1])
}

const NONE_EINVAL: Probe = Probe {
    title: "an array of no operations is refused: EINVAL",
    why: "a batch that came out empty is a mistake the program should hear of",
    spec: &[man("semop(2)", "EINVAL")],
    calls: &[Sys::Semop, Sys::Semtimedop],
    ..Probe::new("sysv.sem.op.none-einval", |cx| {
        let set = cx.sem_set(1)?;
        cx.expect_errno(EINVAL, || set.op(&[]))?;
        cx.expect_eq("sem_otime", set.stat()?.otime, 0)
    })
};

const NEGATIVE_ID_EINVAL: Probe = Probe {
    title: "a negative identifier is refused: EINVAL",
    why: "the unchecked -1 of a failed semget must not act on some set",
    spec: &[man("semop(2)", "EINVAL"), posix("semop")],
    calls: &[Sys::Semop, Sys::Semtimedop],
    ..Probe::new("sysv.sem.op.negative-id-einval", |cx| {
        let set = cx.sem_set(1)?;
        for id in [-1, i32::MIN, i32::MIN | set.id] {
            cx.expect_errno(EINVAL, || sys::semop(id, &[SemOp::add(0, 1)]))?;
        }
        cx.expect_eq("value", set.value(0)?, 0)
    })
};

const UNKNOWN_ID_EINVAL: Probe = Probe {
    title: "an identifier that no set has is refused: EINVAL",
    why: "a stale number in a configuration must be told from a lock that is busy",
    spec: &[man("semop(2)", "EINVAL"), posix("semop")],
    calls: &[Sys::Semop, Sys::Semtimedop],
    ..Probe::new("sysv.sem.op.unknown-id-einval", |cx| {
        let set = cx.sem_set(1)?;
        // The same index with another sequence number, and an index far from any in use.
        for id in [set.id ^ 0x4000_0000, i32::MAX] {
            cx.expect_errno(EINVAL, || sys::semop(id, &[SemOp::add(0, 1)]))?;
            cx.expect_errno(EINVAL, || sys::semop(id, &[SemOp::add(0, 1).undo()]))?;
        }
        cx.expect_eq("value", set.value(0)?, 0)
    })
};

const REMOVED_ID_EINVAL: Probe = Probe {
    title: "the identifier of a removed set is refused: EINVAL",
    why: "after a restart of the server, clients with the old number must notice",
    spec: &[man("semop(2)", "EINVAL"), posix("semop")],
    calls: &[Sys::Semop, Sys::Semtimedop, Sys::Semctl],
    ..Probe::new("sysv.sem.op.removed-id-einval", |cx| {
        let mut set = cx.sem_set(1)?;
        cx.expect_ok(|| set.op(&[SemOp::add(0, 1).undo()]))?;
        set.remove()?;
        let next = cx.sem_set(1)?;
        cx.expect_errno(EINVAL, || set.op(&[SemOp::add(0, 1)]))?;
        cx.expect_errno(EINVAL, || set.op(&[SemOp::add(0, 1).undo()]))?;
        cx.expect_eq("value of the next set", next.value(0)?, 0)
    })
};

const TOO_MANY_E2BIG: Probe = Probe {
    title: "more operations than SEMOPM are refused: E2BIG",
    why: "programs split their batches by the limit; nothing of a refused batch may be done",
    varies: "SEMOPM is the third number of kernel.sem, per IPC namespace",
    spec: &[man("semop(2)", "E2BIG"), posix("semop")],
    calls: &[Sys::Semop, Sys::Semtimedop, Sys::Semctl],
    ..Probe::new("sysv.sem.op.too-many-e2big", too_many_e2big)
};
fn too_many_e2big(cx: &mut Context) -> Outcome {
    let limit = usize::try_from(sys::sem_info(sys::IPC_INFO)?.1.semopm).unwrap_or(0);
    let set = cx.sem_set(1)?;
    // The size is judged before the array is read: a limit of millions costs nothing here.
    let ops = [SemOp::add(0, 1)];
    cx.expect_errno(E2BIG, || sys::semop_at(set.id, ops.as_ptr() as usize, limit + 1))?;
    if limit < 10_000 {
        cx.expect_errno(E2BIG, || set.op(&vec![SemOp::add(0, 1); limit + 1]))?;
    }
    cx.expect_eq("value", set.value(0)?, 0)
}

const ARRAY_EFAULT: Probe = Probe {
    title: "an array at a bad address is refused: EFAULT",
    why: "a wild pointer must give an error, not operations nobody asked for",
    spec: &[man("semop(2)", "EFAULT")],
    calls: &[Sys::Semop, Sys::Semtimedop],
    ..Probe::new("sysv.sem.op.array-efault", |cx| array_efault(cx, 1))
};

const LONG_ARRAY_EFAULT: Probe = Probe {
    title: "an array that runs into a bad address is refused: EFAULT",
    why: "the readable first half must not be performed",
    spec: &[man("semop(2)", "EFAULT"), kernel("ipc/sem.c", "do_semtimedop")],
    calls: &[Sys::Semop, Sys::Semtimedop],
    ..Probe::new("sysv.sem.op.long-array-efault", |cx| array_efault(cx, 100))
};

fn array_efault(cx: &mut Context, count: usize) -> Outcome {
    let set = cx.sem_set(1)?;
    let page = sys::page_size();
    let map = shmcheck_probe::Map::shared_anonymous(2 * page)?;
    sys::mprotect(map.address() + page, page, libc::PROT_NONE)?;
    // The last operation lies half behind the end of the readable page.
    let start = map.address() + page - count * size_of::<SemOp>() + 2;
    cx.expect_errno(EFAULT, || sys::semop_at(set.id, start, count))?;
    cx.expect_errno(EFAULT, || sys::semop_at(set.id, 0, count))?;
    cx.expect_eq("sem_otime", set.stat()?.otime, 0)
}

const SETS_OTIME: Probe = Probe {
    title: "sem_otime becomes the current time",
    why: "clients wait for it to know that the creator has finished initialising the set",
    spec: &[man("semop(2)", "DESCRIPTION"), posix("semop")],
    calls: &[Sys::Semop, Sys::Semtimedop, Sys::Semctl],
    ..Probe::new("sysv.sem.op.sets-otime", |cx| otime_of(cx, &[SemOp::add(1, 1)]))
};

const ZERO_SETS_OTIME: Probe = Probe {
    title: "an operation that only waits for zero sets sem_otime too",
    why: "the man page makes no exception; a set used as a barrier alone would look unused",
    spec: &[man("semop(2)", "DESCRIPTION"), posix("semop")],
    calls: &[Sys::Semop, Sys::Semtimedop, Sys::Semctl],
    ..Probe::new("sysv.sem.op.zero-sets-otime", |cx| otime_of(cx, &[SemOp::zero(2)]))
};

fn otime_of(cx: &mut Context, ops: &[SemOp]) -> Outcome {
    let set = cx.sem_set(3)?;
    cx.expect_eq("sem_otime before", set.stat()?.otime, 0)?;
    let before = sys::now_seconds();
    set.op(ops)?;
    let after = sys::now_seconds();
    let otime = set.stat()?.otime;
    cx.expect("sem_otime", (before..=after).contains(&otime), format!("{before} to {after}"), otime)
}

const REFUSED_KEEPS_OTIME: Probe = Probe {
    title: "a refused semop leaves sem_otime alone",
    why: "a client's failed attempt would tell the others that the set is ready",
    spec: &[man("semop(2)", "DESCRIPTION")],
    calls: &[Sys::Semop, Sys::Semtimedop, Sys::Semctl],
    ..Probe::new("sysv.sem.op.refused-keeps-otime", |cx| {
        let set = cx.sem_set(2)?;
        cx.expect_errno(EAGAIN, || set.op(&[SemOp::add(0, 1), SemOp::add(1, -1).nowait()]))?;
        cx.expect_errno(EFBIG, || set.op(&[SemOp::add(2, 1)]))?;
        cx.expect_errno(ERANGE, || set.op(&[SemOp::add(0, i16::MAX), SemOp::add(0, 1)]))?;
        cx.expect_eq("sem_otime", set.stat()?.otime, 0)
    })
};

const UNKNOWN_FLAG: Probe = Probe {
    title: "an unknown bit in sem_flg changes nothing",
    why: "programs leave rubbish in the upper bits; they work on every kernel so far",
    spec: &[man("semop(2)", "DESCRIPTION"), kernel("ipc/sem.c", "__do_semtimedop")],
    calls: &[Sys::Semop, Sys::Semtimedop, Sys::Semctl],
    ..Probe::new("sysv.sem.op.unknown-flag", |cx| {
        let set = cx.sem_set(1)?;
        cx.expect_ok(|| set.op(&[SemOp { num: 0, op: 2, flags: 0x0421 }]))?;
        cx.expect_eq("value", set.value(0)?, 2)
    })
};

const RAW_SEMOP: Probe = Probe {
    title: "the semop system call does what the C library's function does",
    why: "Go programs make the call themselves; a seccomp profile that knows only semtimedop stops just them",
    varies: "glibc makes semtimedop of semop, so a filter on semop is met by the raw call alone",
    spec: &[man("semop(2)", "DESCRIPTION"), kernel("ipc/sem.c", "semop")],
    calls: &[Sys::Semop, Sys::Semctl],
    ..Probe::new("sysv.sem.op.raw-semop", raw_semop)
};
fn raw_semop(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(2)?;
    cx.expect_ok(|| sys::raw::semop(set.id, &[SemOp::add(0, 5), SemOp::add(1, 2)]))?;
    cx.expect_ok(|| sys::raw::semop(set.id, &[SemOp::add(0, -1)]))?;
    cx.expect_errno(EAGAIN, || sys::raw::semop(set.id, &[SemOp::add(1, -3).nowait()]))?;
    cx.expect_errno(EINVAL, || sys::raw::semop(set.id, &[]))?;
    cx.expect_eq("values", set.values()?, vec![4, 2])?;
    cx.expect_eq("sempid", set.last_pid(1)?, sys::getpid())
}

const RAW_SEMTIMEDOP: Probe = Probe {
    title: "the semtimedop system call does what the C library's does",
    why: "language runtimes without libc rely on the kernel's own convention",
    spec: &[man("semop(2)", "semtimedop()"), kernel("ipc/sem.c", "ksys_semtimedop")],
    calls: &[Sys::Semtimedop, Sys::Semctl],
    ..Probe::new("sysv.sem.op.raw-semtimedop", raw_semtimedop)
};
fn raw_semtimedop(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(1)?;
    cx.expect_ok(|| sys::raw::semtimedop(set.id, &[SemOp::add(0, 5)], &mut sys::millis(1)))?;
    cx.expect_errno(EAGAIN, || sys::raw::semtimedop(set.id, &[SemOp::add(0, -6)], &mut sys::millis(1)))?;
    cx.expect_errno(EINVAL, || sys::raw::semtimedop(set.id, &[SemOp::add(0, 1)], &mut sys::millis(-1)))?;
    cx.expect_eq("value", set.value(0)?, 5)
}
