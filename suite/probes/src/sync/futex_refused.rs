//! futex(2): addresses, time limits, masks and operations that are refused, and with which errno.

use super::futex_wait::{page, probe};
use super::tools::{SHORT, Said, bad_nanos, expect_said, said};
use libc::{CLOCK_MONOTONIC, CLOCK_REALTIME, EAGAIN, EFAULT, EINVAL, ENOSYS, ETIMEDOUT};
use shmcheck_probe::sys;
use shmcheck_probe::sys::futex::{
    self, FUTEX_CLOCK_REALTIME, FUTEX_PRIVATE_FLAG, FUTEX_WAIT, FUTEX_WAIT_BITSET, MATCH_ANY, WaitWord,
};
use shmcheck_probe::{Context, Map, Need, Outcome, Probe, Sys, kernel, man};
use std::sync::atomic::Ordering::SeqCst;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &NANOS_EINVAL,
    &NEGATIVE_EINVAL,
    &UNALIGNED_EINVAL,
    &MASK_EINVAL,
    &UNMAPPED_EFAULT,
    &PRIVATE_UNMAPPED,
    &PRIVATE_UNTOUCHED,
    &UNREADABLE_EFAULT,
    &TIMEOUT_EFAULT,
    &TRUNCATED_EFAULT,
    &UNKNOWN_ENOSYS,
    &FD_ENOSYS,
    &REALTIME_ENOSYS,
];

/// The operations that take a time limit refuse one that is none.
fn bad_limit(cx: &Context, limit: libc::timespec) -> Outcome {
    let map = page()?;
    cx.expect_errno(ETIMEDOUT, || futex::wait(map.address(), 0, SHORT))?;
    for op in [FUTEX_WAIT, FUTEX_WAIT_BITSET, futex::FUTEX_LOCK_PI, futex::FUTEX_WAIT_REQUEUE_PI] {
        let second = map.address() + 64;
        cx.expect_errno(EINVAL, || futex::timed(map.address(), op, 0, Some(&limit), second, MATCH_ANY))?;
        cx.expect_eq("the word", map.atomic(0).load(SeqCst), 0)?;
    }
    Ok(())
}

const NANOS_EINVAL: Probe = Probe {
    spec: &[man("futex(2)", "EINVAL")],
    ..probe(
        "sync.futex.wait.nanos-einval",
        "a limit of a thousand million nanoseconds is refused: EINVAL",
        "arithmetic that forgets to carry makes such limits; accepted, they end a second late or never",
        |cx| bad_limit(cx, bad_nanos(1_000_000_000)),
    )
};

const NEGATIVE_EINVAL: Probe = Probe {
    spec: &[man("futex(2)", "EINVAL")],
    ..probe(
        "sync.futex.wait.negative-einval",
        "a limit of negative seconds is refused: EINVAL",
        "a deadline that has passed becomes a negative rest; taken as unsigned it would be an endless wait",
        |cx| bad_limit(cx, libc::timespec { tv_sec: -1, tv_nsec: 0 }),
    )
};

const UNALIGNED_EINVAL: Probe = Probe {
    spec: &[man("futex(2)", "EINVAL")],
    ..probe(
        "sync.futex.address.unaligned-einval",
        "a word that is not aligned to four bytes is refused: EINVAL",
        "a packed structure puts a lock across two cache lines or pages, where no atomic access is possible",
        unaligned_einval,
    )
};

fn unaligned_einval(cx: &mut Context) -> Outcome {
    let map = page()?;
    let bad = map.address() + 2;
    for op in [FUTEX_WAIT, futex::FUTEX_WAKE, futex::FUTEX_LOCK_PI, futex::FUTEX_TRYLOCK_PI] {
        cx.expect_errno(EINVAL, || futex::timed(bad, op, 0, Some(&futex::span(SHORT)), 0, 0))?;
    }
    for op in [futex::FUTEX_REQUEUE, futex::FUTEX_CMP_REQUEUE, futex::FUTEX_WAKE_OP] {
        cx.expect_errno(EINVAL, || futex::op(map.address(), op, 1, 1, bad, 0))?;
        cx.expect_errno(EINVAL, || futex::op(bad, op, 1, 1, map.address(), 0))?;
    }
    cx.expect_eq("the memory", map.read_all(0, 8), vec![0; 8])
}

const MASK_EINVAL: Probe = Probe {
    spec: &[man("futex(2)", "EINVAL")],
    ..probe(
        "sync.futex.bitset.empty-mask-einval",
        "a mask of no bits is refused by wait and wake: EINVAL",
        "a waiter with an empty mask could never be woken; a lock that computes masks must hear of it at once",
        mask_einval,
    )
};

fn mask_einval(cx: &mut Context) -> Outcome {
    let map = page()?;
    let soon = futex::after(CLOCK_MONOTONIC, SHORT);
    cx.expect_errno(ETIMEDOUT, || futex::timed(map.address(), FUTEX_WAIT_BITSET, 0, Some(&soon), 0, 1))?;
    cx.expect_errno(EINVAL, || futex::timed(map.address(), FUTEX_WAIT_BITSET, 0, Some(&soon), 0, 0))?;
    expect_said("woken with a mask", &said(futex::op(map.address(), futex::FUTEX_WAKE_BITSET, 1, 0, 0, 1)), &Ok(0))?;
    cx.expect_errno(EINVAL, || futex::op(map.address(), futex::FUTEX_WAKE_BITSET, 1, 0, 0, 0))
}

const UNMAPPED_EFAULT: Probe = Probe {
    spec: &[man("futex(2)", "EFAULT")],
    ..probe(
        "sync.futex.address.unmapped-efault",
        "a word in unmapped memory is refused: EFAULT",
        "a process that detached the segment and still unlocks in it must get an error, not a wake-up of strangers",
        unmapped_efault,
    )
};

fn unmapped_efault(cx: &mut Context) -> Outcome {
    let map = page()?;
    let gone = futex::unmapped()?;
    let limit = futex::span(SHORT);
    for op in [FUTEX_WAIT, futex::FUTEX_LOCK_PI, futex::FUTEX_TRYLOCK_PI] {
        cx.expect_errno(EFAULT, || futex::timed(gone, op, 0, Some(&limit), 0, 0))?;
    }
    cx.expect_errno(EFAULT, || futex::wake(gone, 1))?;
    cx.expect_errno(EFAULT, || futex::op(gone, futex::FUTEX_UNLOCK_PI, 0, 0, 0, 0))?;
    for op in [futex::FUTEX_REQUEUE, futex::FUTEX_CMP_REQUEUE, futex::FUTEX_WAKE_OP] {
        cx.expect_errno(EFAULT, || futex::op(map.address(), op, 1, 1, gone, 0))?;
        cx.expect_errno(EFAULT, || futex::op(gone, op, 1, 1, map.address(), 0))?;
    }
    // The half of the address space that is the kernel's: rejected before anything is looked up.
    cx.expect_errno(EFAULT, || futex::wake(1 << 63, 1))
}

const UNREADABLE_EFAULT: Probe = Probe {
    spec: &[man("futex(2)", "EFAULT"), kernel("kernel/futex/core.c", "get_futex_key")],
    varies: "the page names EACCES for memory that cannot be read; the kernel has never returned it",
    ..probe(
        "sync.futex.address.unreadable-efault",
        "a word in memory without read access is refused: EFAULT",
        "guard pages between shared structures must stop a stray lock, and the error tells which",
        unreadable_efault,
    )
};

fn unreadable_efault(cx: &mut Context) -> Outcome {
    let map = page()?;
    expect_said("waiters woken", &said(futex::wake(map.address(), 1)), &Ok(0))?;
    sys::mprotect(map.address(), map.len(), libc::PROT_NONE)?;
    cx.expect_errno(EFAULT, || futex::wait(map.address(), 0, SHORT))?;
    cx.expect_errno(EFAULT, || futex::wake(map.address(), 1))
}

const TIMEOUT_EFAULT: Probe = Probe {
    spec: &[man("futex(2)", "EFAULT")],
    ..probe(
        "sync.futex.wait.timeout-efault",
        "a limit at an unmapped address is refused: EFAULT",
        "an error here is a bug report; a wait without limit instead is a hang that nobody can explain",
        timeout_efault,
    )
};

fn timeout_efault(cx: &mut Context) -> Outcome {
    let map = page()?;
    let gone = futex::unmapped()?;
    for op in [FUTEX_WAIT, FUTEX_WAIT_BITSET, futex::FUTEX_LOCK_PI] {
        cx.expect_errno(EFAULT, || futex::op(map.address(), op, 0, gone, 0, MATCH_ANY))?;
    }
    cx.expect_eq("the word", map.atomic(0).load(SeqCst), 0)
}

const TRUNCATED_EFAULT: Probe = Probe {
    spec: &[man("futex(2)", "EFAULT"), man("mmap(2)", "SIGBUS")],
    needs: &[Need::Call(Sys::MemfdCreate)],
    ..probe(
        "sync.futex.address.truncated-efault",
        "a word beyond the end of a truncated object is refused: EFAULT",
        "an object that was recreated smaller kills by SIGBUS on access; the lock call must return instead",
        truncated_efault,
    )
};

fn truncated_efault(cx: &mut Context) -> Outcome {
    let fd = nix::sys::memfd::memfd_create(c"shmcheck", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    sys::ftruncate(std::os::fd::AsRawFd::as_raw_fd(&fd), 4096)?;
    let map = Map::shared(&fd, 4096)?;
    cx.expect_errno(ETIMEDOUT, || futex::wait(map.address(), 0, SHORT))?;
    sys::ftruncate(std::os::fd::AsRawFd::as_raw_fd(&fd), 0)?;
    cx.expect_errno(EFAULT, || futex::wait(map.address(), 0, SHORT))?;
    cx.expect_errno(EFAULT, || futex::wake(map.address(), 1))
}

const UNKNOWN_ENOSYS: Probe = Probe {
    spec: &[man("futex(2)", "ENOSYS")],
    ..probe(
        "sync.futex.op.unknown-enosys",
        "an operation that does not exist is refused: ENOSYS",
        "the C library tries new operations and falls back on this errno; any other stops the fallback",
        unknown_enosys,
    )
};

fn unknown_enosys(cx: &mut Context) -> Outcome {
    let map = page()?;
    for op in [14, 99, 127] {
        cx.expect_errno(ENOSYS, || futex::op(map.address(), op, 0, 0, 0, 0))?;
    }
    Ok(())
}

const FD_ENOSYS: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_FD"), man("futex(2)", "ENOSYS")],
    ..probe(
        "sync.futex.op.fd-enosys",
        "FUTEX_FD is gone since Linux 2.6.26: ENOSYS",
        "it was removed because it was racy; an emulation that still offers it invites code that loses wake-ups",
        |cx| {
            let map = page()?;
            cx.expect_errno(ENOSYS, || futex::op(map.address(), futex::FUTEX_FD, 0, 0, 0, 0))
        },
    )
};

const REALTIME_ENOSYS: Probe = Probe {
    spec: &[man("futex(2)", "ENOSYS")],
    ..probe(
        "sync.futex.op.realtime-enosys",
        "FUTEX_CLOCK_REALTIME with an operation without time limit: ENOSYS",
        "glibc finds out by it what the kernel can; a flag that is ignored would make time limits mean another clock",
        realtime_enosys,
    )
};

fn realtime_enosys(cx: &mut Context) -> Outcome {
    let map = page()?;
    let limit = futex::after(CLOCK_REALTIME, SHORT);
    let known = FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME;
    cx.expect_errno(ETIMEDOUT, || futex::timed(map.address(), known, 0, Some(&limit), 0, MATCH_ANY))?;
    for op in [futex::FUTEX_WAKE, futex::FUTEX_WAKE_BITSET, futex::FUTEX_REQUEUE, futex::FUTEX_LOCK_PI] {
        cx.expect_errno(ENOSYS, || futex::op(map.address(), op | FUTEX_CLOCK_REALTIME, 0, 0, 0, MATCH_ANY))?;
    }
    cx.expect_eq("the word", map.atomic(0).load(SeqCst), 0)
}

/// An operation on two words, and what it says of words that are 0.
type Private = (&'static str, fn(usize, usize) -> Said, Said);

/// Operations with `FUTEX_PRIVATE_FLAG`, which the kernel starts without a look at the page.
const PRIVATE: &[Private] = &[
    ("FUTEX_WAIT", |first, second| private(FUTEX_WAIT, first, second, 0), Err(EAGAIN)),
    ("FUTEX_CMP_REQUEUE", |first, second| private(futex::FUTEX_CMP_REQUEUE, first, second, 0), Ok(0)),
    ("FUTEX_WAKE_OP", |first, second| private(futex::FUTEX_WAKE_OP, first, second, 0), Ok(0)),
    ("FUTEX_CMP_REQUEUE_PI", |first, second| private(futex::FUTEX_CMP_REQUEUE_PI, first, second, 0), Ok(0)),
    ("FUTEX_TRYLOCK_PI", |first, second| private(futex::FUTEX_TRYLOCK_PI, first, second, 0), Ok(0)),
    ("futex_waitv", private_waitv, Err(EAGAIN)),
];

/// One with 1 as value or count, which no fresh word holds.
fn private(op: i32, first: usize, second: usize, val3: u32) -> Said {
    let val2 = usize::from(op != FUTEX_WAIT);
    said(futex::op(first, op | FUTEX_PRIVATE_FLAG, 1, val2, second, val3))
}

fn private_waitv(first: usize, _: usize) -> Said {
    let mut word = WaitWord::shared(first, 1);
    word.flags |= FUTEX_PRIVATE_FLAG.cast_unsigned();
    said(futex::waitv(&[word], 1, 0, None, CLOCK_MONOTONIC))
}

const PRIVATE_UNMAPPED: Probe = Probe {
    spec: &[man("futex(2)", "EFAULT")],
    calls: &[Sys::Futex, Sys::FutexWaitv],
    ..probe(
        "sync.futex.private.unmapped-efault",
        "with FUTEX_PRIVATE_FLAG an unmapped word is refused, too: EFAULT",
        "the short cut past the look-up of the page must not be a way around the check",
        private_unmapped,
    )
};
fn private_unmapped(_cx: &mut Context) -> Outcome {
    let gone = futex::unmapped()?;
    for (name, operation, _) in PRIVATE {
        expect_said(name, &operation(gone, gone + 8), &Err(EFAULT))?;
    }
    Ok(())
}

const PRIVATE_UNTOUCHED: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_PRIVATE_FLAG"), kernel("kernel/futex/core.c", "fault_in_user_writeable")],
    calls: &[Sys::Futex, Sys::FutexWaitv],
    ..probe(
        "sync.futex.private.untouched-page",
        "private operations work on pages that nobody touched yet",
        "a fresh segment has no pages: the kernel must fetch them in the middle of the operation and begin again",
        private_untouched,
    )
};
fn private_untouched(cx: &mut Context) -> Outcome {
    let size = sys::page_size();
    for &(name, operation, ref wanted) in PRIVATE {
        // Two pages of its own for each, none of which was ever touched.
        let map = Map::shared_anonymous(2 * size)?;
        expect_said(name, &operation(map.address(), map.address() + size), wanted)?;
        let owned = if name == "FUTEX_TRYLOCK_PI" { futex::own_tid() } else { 0 };
        cx.expect_eq("the word", map.atomic(0).load(SeqCst), owned)?;
    }
    Ok(())
}
