//! futex(2): FUTEX_WAKE_OP, which changes a second word and wakes there by what it was.

use super::tools::{expect_said, said, sleeper, wait_for_wake};
use libc::ENOSYS;
use shmcheck_probe::sys::futex::{self, FUTEX_WAKE_OP, wake_op_code};
use shmcheck_probe::{Clause, Context, Isolate, Map, Outcome, Probe, Sys, kernel, man, sys};
use std::sync::atomic::Ordering::SeqCst;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &SET,
    &ADD,
    &OR,
    &ANDN,
    &XOR,
    &SHIFT,
    &NEGATIVE,
    &EQ,
    &NE,
    &LT,
    &LE,
    &GT,
    &GE,
    &SIGNED,
    &BOTH_COUNTED,
    &UNKNOWN,
    &READ_ONLY,
];

/// Operations and comparisons, futex(2).
const OP_SET: u32 = 0;
const OP_ADD: u32 = 1;
const OP_OR: u32 = 2;
const OP_ANDN: u32 = 3;
const OP_XOR: u32 = 4;
const OP_SHIFT: u32 = 8;
const CMP_EQ: u32 = 0;
const CMP_NE: u32 = 1;
const CMP_LT: u32 = 2;
const CMP_LE: u32 = 3;
const CMP_GT: u32 = 4;
const CMP_GE: u32 = 5;

const WRITTEN: &[Clause] = &[man("futex(2)", "FUTEX_WAKE_OP")];

#[track_caller]
const fn probe(id: &'static str, title: &'static str, why: &'static str, run: fn(&mut Context) -> Outcome) -> Probe {
    Probe { title, why, spec: WRITTEN, calls: &[Sys::Futex], isolate: Isolate::Cell, ..Probe::new(id, run) }
}

/// Each row: operation, its argument, the word before, the word wanted.
fn operation(cx: &Context, rows: &[(u32, u32, u32, u32)]) -> Outcome {
    let map = Map::shared_anonymous(sys::page_size())?;
    for (op, argument, before, wanted) in rows {
        map.atomic(64).store(*before, SeqCst);
        let code = wake_op_code(*op, *argument, CMP_EQ, 0);
        futex::op(map.address(), FUTEX_WAKE_OP, 0, 0, map.address() + 64, code)?;
        cx.expect_eq(
            &format!("{before:#x} after operation {op} with {argument:#x}"),
            map.atomic(64).load(SeqCst),
            *wanted,
        )?;
        cx.expect_eq("the first word", map.atomic(0).load(SeqCst), 0)?;
    }
    Ok(())
}

const SET: Probe = probe(
    "sync.futex.wake-op.set",
    "FUTEX_OP_SET stores its argument in the second word",
    "glibc's old pthread_cond_signal cleared the internal lock by it in the same call that woke",
    |cx| operation(cx, &[(OP_SET, 5, 9, 5), (OP_SET, 0, 9, 0)]),
);
const ADD: Probe = probe(
    "sync.futex.wake-op.add",
    "FUTEX_OP_ADD adds its argument to the second word",
    "counting locks hand on a ticket and wake its holder in one call",
    |cx| operation(cx, &[(OP_ADD, 5, 9, 14), (OP_ADD, 1, u32::MAX, 0)]),
);
const OR: Probe = probe(
    "sync.futex.wake-op.or",
    "FUTEX_OP_OR sets the argument's bits in the second word",
    "a waiters bit set by the kernel together with a wake leaves no window in which it is missing",
    |cx| operation(cx, &[(OP_OR, 0b0110, 0b0011, 0b0111)]),
);
const ANDN: Probe = probe(
    "sync.futex.wake-op.andn",
    "FUTEX_OP_ANDN clears the argument's bits in the second word",
    "taken for a plain 'and' it would keep exactly the bits that were to go, and the lock stays locked",
    |cx| operation(cx, &[(OP_ANDN, 0b0110, 0b0011, 0b0001)]),
);
const XOR: Probe = probe(
    "sync.futex.wake-op.xor",
    "FUTEX_OP_XOR inverts the argument's bits in the second word",
    "sense-reversing barriers flip their phase and wake the other side with it",
    |cx| operation(cx, &[(OP_XOR, 0b0110, 0b0011, 0b0101)]),
);
const SHIFT: Probe = probe(
    "sync.futex.wake-op.shift",
    "FUTEX_OP_ARG_SHIFT makes the argument one shifted by it",
    "the argument has twelve bits; flags in the upper half of a lock word are only reached this way",
    |cx| operation(cx, &[(OP_SHIFT | OP_OR, 31, 1, 0x8000_0001), (OP_SHIFT | OP_SET, 4, 0, 16)]),
);
const NEGATIVE: Probe = Probe {
    spec: &[kernel("kernel/futex/waitwake.c", "futex_atomic_op_inuser"), man("futex(2)", "FUTEX_WAKE_OP")],
    ..probe(
        "sync.futex.wake-op.negative-argument",
        "the twelve-bit argument is signed: 0xfff adds minus one",
        "a count that goes down needs a negative number; read as 4095 the lock would never be free again",
        |cx| operation(cx, &[(OP_ADD, 0xfff, 9, 8), (OP_SET, 0x800, 0, 0xffff_f800)]),
    )
};

/// Each row: word before, argument of the comparison, whether it holds. Where it holds, a waiter at the second word is
/// woken; where not, that one sleeps on.
fn comparison(cx: &mut Context, cmp: u32, rows: &[(u32, u32, bool)]) -> Outcome {
    let map = Map::shared_anonymous(sys::page_size())?;
    let (first, second) = (map.address(), map.address() + 64);
    let peer = {
        map.atomic(64).store(0, SeqCst);
        sleeper(cx, || wait_for_wake(second, 0))?
    };
    // Those that do not hold come first: the waiter must be there afterwards.
    let mut ordered = rows.to_vec();
    ordered.sort_by_key(|(_, _, holds)| *holds);
    let mut left = 1;
    for (before, argument, holds) in ordered {
        map.atomic(64).store(before, SeqCst);
        let code = wake_op_code(OP_ADD, 0, cmp, argument);
        let woken = futex::op(first, FUTEX_WAKE_OP, 1, 1, second, code)?;
        let wanted = if holds { std::mem::take(&mut left) } else { 0 };
        cx.expect_eq(&format!("woken by comparison {cmp} of {before} with {argument:#x}"), woken, wanted)?;
    }
    expect_said("waiters left", &said(futex::wake(second, 9)), &Ok(0))?;
    expect_said("FUTEX_WAIT", &peer.join()?, &Ok(0))
}

const EQ: Probe = probe(
    "sync.futex.wake-op.cmp-eq",
    "FUTEX_OP_CMP_EQ wakes at the second word if it was equal",
    "'wake the others only if the lock was held without waiters' is decided by it",
    |cx| comparison(cx, CMP_EQ, &[(4, 5, false), (6, 5, false), (5, 5, true)]),
);
const NE: Probe = probe(
    "sync.futex.wake-op.cmp-ne",
    "FUTEX_OP_CMP_NE wakes at the second word if it was different",
    "an inverted test wakes nobody exactly when somebody must be woken",
    |cx| comparison(cx, CMP_NE, &[(5, 5, false), (6, 5, true)]),
);
const LT: Probe = probe(
    "sync.futex.wake-op.cmp-lt",
    "FUTEX_OP_CMP_LT wakes at the second word if it was less",
    "pools wake producers when the fill level was below a mark",
    |cx| comparison(cx, CMP_LT, &[(5, 5, false), (6, 5, false), (4, 5, true)]),
);
const LE: Probe = probe(
    "sync.futex.wake-op.cmp-le",
    "FUTEX_OP_CMP_LE wakes at the second word if it was less or equal",
    "off by one here, the last producer is never woken",
    |cx| comparison(cx, CMP_LE, &[(6, 5, false), (5, 5, true)]),
);
const GT: Probe = probe(
    "sync.futex.wake-op.cmp-gt",
    "FUTEX_OP_CMP_GT wakes at the second word if it was greater",
    "glibc's condition variables asked 'were there waiters beside me' by it: more than one",
    |cx| comparison(cx, CMP_GT, &[(5, 5, false), (4, 5, false), (6, 5, true)]),
);
const GE: Probe = probe(
    "sync.futex.wake-op.cmp-ge",
    "FUTEX_OP_CMP_GE wakes at the second word if it was greater or equal",
    "off by one here, a lone waiter sleeps for ever",
    |cx| comparison(cx, CMP_GE, &[(4, 5, false), (5, 5, true)]),
);
const SIGNED: Probe = Probe {
    spec: &[kernel("kernel/futex/waitwake.c", "futex_atomic_op_inuser"), man("futex(2)", "FUTEX_WAKE_OP")],
    ..probe(
        "sync.futex.wake-op.cmp-signed",
        "comparisons are signed: 0xffffffff is less than 0",
        "a balance below zero means waiters; compared unsigned, a debt looks like a fortune",
        |cx| comparison(cx, CMP_LT, &[(0, 0, false), (u32::MAX, 0, true)]),
    )
};

const BOTH_COUNTED: Probe = probe(
    "sync.futex.wake-op.both-counted",
    "the value is the number woken at both words together",
    "the caller repeats the wake until the sum is right; a count of one word only makes it loop",
    both_counted,
);
fn both_counted(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(sys::page_size())?;
    let (first, second) = (map.address(), map.address() + 64);
    let peers = [
        sleeper(cx, || wait_for_wake(first, 0))?,
        sleeper(cx, || wait_for_wake(first, 0))?,
        sleeper(cx, || wait_for_wake(second, 0))?,
    ];
    let code = wake_op_code(OP_SET, 1, CMP_EQ, 0);
    expect_said("woken at both words", &said(futex::op(first, FUTEX_WAKE_OP, 1, 1, second, code)), &Ok(2))?;
    cx.expect_eq("the second word", map.atomic(64).load(SeqCst), 1)?;
    expect_said("waiters left at the first word", &said(futex::wake(first, 9)), &Ok(1))?;
    peers.into_iter().try_for_each(|peer| expect_said("FUTEX_WAIT", &peer.join()?, &Ok(0)))
}

const UNKNOWN: Probe = Probe {
    spec: &[kernel("kernel/futex/waitwake.c", "futex_atomic_op_inuser"), man("futex(2)", "ENOSYS")],
    ..probe(
        "sync.futex.wake-op.unknown-enosys",
        "an operation or comparison that does not exist is refused: ENOSYS",
        "a reserved code that does something by accident is one that can never get a meaning",
        unknown,
    )
};
fn unknown(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(sys::page_size())?;
    for code in [wake_op_code(5, 1, CMP_EQ, 0), wake_op_code(7, 1, CMP_EQ, 0), wake_op_code(OP_ADD, 0, 6, 0)] {
        cx.expect_errno(ENOSYS, || futex::op(map.address(), FUTEX_WAKE_OP, 1, 1, map.address() + 64, code))?;
    }
    cx.expect_eq("the second word", map.atomic(64).load(SeqCst), 0)
}

const READ_ONLY: Probe = Probe {
    spec: &[man("futex(2)", "EFAULT")],
    ..probe(
        "sync.futex.wake-op.read-only-efault",
        "FUTEX_WAKE_OP on a second word that is read-only is refused: EFAULT",
        "the kernel writes on behalf of the caller; it must not write where the caller may not",
        read_only,
    )
};
fn read_only(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(sys::page_size())?;
    let other = Map::shared_anonymous(sys::page_size())?;
    let code = wake_op_code(OP_SET, 7, CMP_EQ, 0);
    futex::op(map.address(), FUTEX_WAKE_OP, 0, 0, other.address(), code)?;
    cx.expect_eq("the second word", other.atomic(0).load(SeqCst), 7)?;
    sys::mprotect(other.address(), other.len(), libc::PROT_READ)?;
    let code = wake_op_code(OP_SET, 8, CMP_EQ, 0);
    cx.expect_errno(libc::EFAULT, || futex::op(map.address(), FUTEX_WAKE_OP, 0, 0, other.address(), code))?;
    cx.expect_eq("the second word after the refusal", other.atomic(0).load(SeqCst), 7)
}
