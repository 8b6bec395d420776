//! futex(2), futex_waitv and the futex2 calls, robust lists: always the system calls themselves.
//!
//! Addresses are plain numbers here. By contract each is a word of a live [`crate::Map`], which is only accessed
//! atomically or volatilely, or an address that the kernel is to reject.

use super::raw;
use super::{Result, ret};
use crate::Sys;
use libc::{c_int, c_long, timespec};
use std::time::Duration;

pub use libc::{
    FUTEX_CLOCK_REALTIME, FUTEX_CMP_REQUEUE, FUTEX_CMP_REQUEUE_PI, FUTEX_FD, FUTEX_LOCK_PI, FUTEX_LOCK_PI2,
    FUTEX_PRIVATE_FLAG, FUTEX_REQUEUE, FUTEX_TRYLOCK_PI, FUTEX_UNLOCK_PI, FUTEX_WAIT, FUTEX_WAIT_BITSET,
    FUTEX_WAIT_REQUEUE_PI, FUTEX_WAKE, FUTEX_WAKE_BITSET, FUTEX_WAKE_OP,
};

/// Bit of a PI or robust word: somebody sleeps in the kernel, futex(2).
pub const WAITERS: u32 = 0x8000_0000;
/// Bit of a PI or robust word: its owner died holding it, futex(2).
pub const OWNER_DIED: u32 = 0x4000_0000;
/// Mask of the owner's thread id in a PI or robust word, futex(2).
pub const TID_MASK: u32 = 0x3fff_ffff;
/// Matches every bit set, futex(2).
pub const MATCH_ANY: u32 = 0xffff_ffff;
/// A 32-bit futex, flag of the futex2 calls; the only size there is. Linux 5.16.
pub const SIZE_U32: u32 = 2;
/// The most words that one futex_waitv takes, Linux 5.16.
pub const WAITV_MAX: usize = 128;
/// How many entries of a robust list the kernel walks, include/uapi/linux/futex.h.
pub const ROBUST_LIST_LIMIT: usize = 2048;

/// An address as the kernel's register-wide argument.
#[expect(clippy::cast_possible_wrap, reason = "an address has the same width as long; the kernel sees the same bits")]
const fn word(address: usize) -> c_long {
    address as c_long
}

/// A span as a `timespec`.
pub fn span(time: Duration) -> timespec {
    timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: time.subsec_nanos().into() }
}

/// The time on `clock` after `ahead` from now, for absolute time limits.
pub fn after(clock: libc::clockid_t, ahead: Duration) -> timespec {
    let (seconds, nanos) = super::clock(clock);
    let now = Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanos).unwrap_or(0));
    span(now + ahead)
}

/// Whether the clock shows that time or a later one.
pub fn reached(clock: libc::clockid_t, time: &timespec) -> bool {
    super::clock(clock) >= (time.tv_sec, time.tv_nsec)
}

/// `futex(address, op, val, val2, address2, val3)`—operations without a time limit; `val2` is also an address that
/// the kernel is to reject as time limit.
pub fn op(address: usize, op: c_int, val: u32, val2: usize, address2: usize, val3: u32) -> Result<i64> {
    raw::numbers(Sys::Futex, &[word(address), op.into(), val.into(), word(val2), word(address2), val3.into()])
}

/// `futex(address, op, val, timeout, address2, val3)`—operations with a time limit.
pub fn timed(
    address: usize,
    op: c_int,
    val: u32,
    timeout: Option<&timespec>,
    address2: usize,
    val3: u32,
) -> Result<i64> {
    let timeout = timeout.map_or(0, |time| std::ptr::from_ref(time) as usize);
    self::op(address, op, val, timeout, address2, val3)
}

/// `futex(address, FUTEX_WAIT, val, limit)`
pub fn wait(address: usize, val: u32, limit: Duration) -> Result<i64> {
    timed(address, FUTEX_WAIT, val, Some(&span(limit)), 0, 0)
}

/// `futex(address, FUTEX_WAKE, count)`—the number of waiters woken.
pub fn wake(address: usize, count: u32) -> Result<i64> {
    op(address, FUTEX_WAKE, count, 0, 0, 0)
}

/// The sixth argument of `FUTEX_WAKE_OP`: operation, comparison and their 12-bit arguments, futex(2).
pub const fn wake_op_code(op: u32, op_arg: u32, cmp: u32, cmp_arg: u32) -> u32 {
    op << 28 | cmp << 24 | (op_arg & 0xfff) << 12 | (cmp_arg & 0xfff)
}

/// One word of a list that `futex_waitv` or `futex_requeue` takes: `struct futex_waitv`, Linux 5.16.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WaitWord {
    /// The value expected there.
    pub val: u64,
    /// The address.
    pub address: u64,
    /// Size and kind of the futex.
    pub flags: u32,
    /// Must be 0.
    pub reserved: u32,
}

const _: () = assert!(size_of::<WaitWord>() == 24);

impl WaitWord {
    /// A 32-bit word between processes.
    pub fn shared(address: usize, val: u32) -> Self {
        Self { val: val.into(), address: address as u64, flags: SIZE_U32, reserved: 0 }
    }
}

/// `futex_waitv(words, count, flags, timeout, clock)`—the index of a word that was woken. `count` may differ from the
/// slice's length only where the kernel is to reject it.
pub fn waitv(
    words: &[WaitWord],
    count: usize,
    flags: u32,
    timeout: Option<&timespec>,
    clock: libc::clockid_t,
) -> Result<i64> {
    let timeout = timeout.map_or(0, |time| std::ptr::from_ref(time) as usize);
    waitv_at(words.as_ptr() as usize, count, flags, timeout, clock)
}

/// `futex_waitv` with addresses for its two structures, for those that the kernel is to reject.
pub fn waitv_at(words: usize, count: usize, flags: u32, timeout: usize, clock: libc::clockid_t) -> Result<i64> {
    raw::numbers(Sys::FutexWaitv, &[word(words), word(count), flags.into(), word(timeout), clock.into()])
}

/// `futex_wait(address, val, mask, flags, timeout, clock)`—Linux 6.7; the time limit is absolute.
pub fn wait2(address: usize, val: u64, mask: u64, flags: u32, timeout: Option<&timespec>, clock: i32) -> Result<i64> {
    let timeout = timeout.map_or(0, |time| std::ptr::from_ref(time) as usize);
    let (val, mask) = (val.cast_signed(), mask.cast_signed());
    raw::numbers(Sys::FutexWait, &[word(address), val, mask, flags.into(), word(timeout), clock.into()])
}

/// `futex_wake(address, mask, count, flags)`—Linux 6.7.
pub fn wake2(address: usize, mask: u64, count: i32, flags: u32) -> Result<i64> {
    raw::numbers(Sys::FutexWake, &[word(address), mask.cast_signed(), count.into(), flags.into()])
}

/// `futex_requeue(words, flags, wake, requeue)`—from the first word to the second, Linux 6.7.
pub fn requeue2(words: Option<&[WaitWord; 2]>, flags: u32, wake: i32, requeue: i32) -> Result<i64> {
    let words = words.map_or(0, |pair| pair.as_ptr() as usize);
    raw::numbers(Sys::FutexRequeue, &[word(words), flags.into(), wake.into(), requeue.into()])
}

/// The size of `struct robust_list_head`: first entry, offset of the word from an entry, pending entry.
pub const ROBUST_HEAD: usize = 24;

/// `set_robust_list(head, length)`—the list that the kernel walks when this thread ends.
///
/// The head lies in a mapping that lives as long as the process. The C library's own list is forgotten: only for
/// processes that lock no robust mutex afterwards.
pub fn set_robust_list(head: usize, length: usize) -> Result<()> {
    raw::numbers(Sys::SetRobustList, &[word(head), word(length)]).map(drop)
}

/// `get_robust_list(pid)`—address and length of a thread's list; 0 for the caller.
pub fn get_robust_list(pid: libc::pid_t) -> Result<(usize, usize)> {
    let (mut head, mut length) = (0_usize, 0_usize);
    get_robust_list_at(pid, &raw mut head as usize, &raw mut length as usize)?;
    Ok((head, length))
}

/// `get_robust_list(pid, head, length)` with addresses for the answers, for those that the kernel is to reject.
pub fn get_robust_list_at(pid: libc::pid_t, head: usize, length: usize) -> Result<()> {
    raw::numbers(Sys::GetRobustList, &[pid.into(), word(head), word(length)]).map(drop)
}

/// `gettid()`—the number that stands in PI and robust words; that of the process where it has one thread.
pub fn own_tid() -> u32 {
    super::getpid().cast_unsigned()
}

/// An address that is not mapped in this process: one page, mapped and unmapped again.
pub fn unmapped() -> Result<usize> {
    let at = super::mmap(0, super::page_size(), libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)?;
    super::munmap(at, super::page_size())?;
    Ok(at)
}

/// The signal that [`catch_signal`] prepares for.
pub const SIGNAL: c_int = libc::SIGUSR1;

extern "C" fn nothing(_: c_int) {}

/// `sigaction(SIGUSR1, …)`—a handler that does nothing, with these flags: it interrupts a sleeping call.
pub fn catch_signal(flags: c_int) -> Result<()> {
    // SAFETY: sigaction is plain numbers and an empty set, for which zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(c_int) as usize;
    action.sa_flags = flags;
    // SAFETY: the action is complete; the handler is a function that touches nothing.
    ret("sigaction", unsafe { libc::sigaction(SIGNAL, &raw const action, std::ptr::null_mut()) }).map(drop)
}

/// `sched_setscheduler(0, SCHED_FIFO, priority)`—this process becomes real-time.
pub fn become_realtime(priority: c_int) -> Result<()> {
    let parameter = libc::sched_param { sched_priority: priority };
    // SAFETY: the parameter is a struct sched_param.
    ret("sched_setscheduler", unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter) }).map(drop)
}
