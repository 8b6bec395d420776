//! The system calls themselves, past the C library.

use super::{Result, ret};
use crate::Sys;
use libc::c_long;

/// `syscall(number, args…)`—any call by number with up to six arguments.
///
/// # Safety
/// The arguments are those the call expects: pointers among them are valid for what the kernel reads and writes.
pub unsafe fn call(name: &'static str, number: c_long, args: &[c_long]) -> Result<c_long> {
    let mut six = [0; 6];
    six[..args.len()].copy_from_slice(args);
    let [a, b, c, d, e, f] = six;
    // SAFETY: the caller answers for the arguments; unused ones are ignored by the kernel.
    ret(name, unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

/// A call whose arguments are plain numbers, or addresses that the kernel is to reject.
///
/// Only for calls that cannot write into this process's valid memory through `args`: a probe passes null or
/// addresses it has unmapped.
pub fn numbers(sys: Sys, args: &[c_long]) -> Result<c_long> {
    // SAFETY: by this function's contract no argument is a pointer into memory that Rust uses.
    unsafe { call(sys.name(), sys.number(), args) }
}

/// `semget(key, nsems, flags)`—the system call.
pub fn semget(key: i32, nsems: i32, flags: i32) -> Result<i32> {
    let id = numbers(Sys::Semget, &[key.into(), nsems.into(), flags.into()])?;
    Ok(i32::try_from(id).unwrap_or(-1))
}

/// `semop(id, ops, count)`—the system call; the C library makes semtimedop of it.
pub fn semop(id: i32, ops: &[super::SemOp]) -> Result<()> {
    // The kernel only reads the array.
    numbers(Sys::Semop, &[id.into(), ops.as_ptr() as c_long, length(ops.len())]).map(drop)
}

/// `semtimedop(id, ops, count, timeout)`—the system call, with a time that could be seen to change.
pub fn semtimedop(id: i32, ops: &[super::SemOp], timeout: &mut libc::timespec) -> Result<()> {
    let timeout = std::ptr::from_mut(timeout) as c_long;
    let args = [id.into(), ops.as_ptr() as c_long, length(ops.len()), timeout];
    // SAFETY: the array is only read; a kernel that wrote to the time would find it writable.
    unsafe { call(Sys::Semtimedop.name(), Sys::Semtimedop.number(), &args) }.map(drop)
}

/// `semctl(id, num, command, argument)`—the system call with a plain number as argument.
///
/// For commands that ignore the argument or take a number, and for addresses the kernel is to reject.
pub fn semctl(id: i32, num: i32, command: i32, argument: usize) -> Result<c_long> {
    #[expect(clippy::cast_possible_wrap, reason = "an address has the same width as long")]
    numbers(Sys::Semctl, &[id.into(), num.into(), command.into(), argument as c_long])
}

fn length(n: usize) -> c_long {
    c_long::try_from(n).unwrap_or(c_long::MAX)
}

/// `shmget(key, size, flags)`—the system call.
pub fn shmget(key: i32, size: usize, flags: i32) -> Result<i32> {
    #[expect(clippy::cast_possible_wrap, reason = "size_t and long have the same width; the kernel sees the same bits")]
    let id = numbers(Sys::Shmget, &[key.into(), size as c_long, flags.into()])?;
    Ok(i32::try_from(id).unwrap_or(-1))
}

/// `shmat(id, address, flags)`—the system call; the address it returns. The mapping is the caller's to detach.
pub fn shmat(id: i32, address: usize, flags: i32) -> Result<usize> {
    if flags & libc::SHM_REMAP != 0 && address != 0 {
        return super::shmat_addr(id, address, flags);
    }
    #[expect(clippy::cast_possible_wrap, reason = "an address has the same width as long")]
    let at = numbers(Sys::Shmat, &[id.into(), address as c_long, flags.into()])?;
    #[expect(clippy::cast_sign_loss, reason = "an address has the same width as long")]
    Ok(at as usize)
}

/// `shmdt(address)`—the system call, for addresses at which nothing that Rust uses is attached.
pub fn shmdt(address: usize) -> Result<()> {
    #[expect(clippy::cast_possible_wrap, reason = "an address has the same width as long")]
    numbers(Sys::Shmdt, &[address as c_long]).map(drop)
}

/// `shmctl(id, command, address)`—the system call with a plain number as third argument.
///
/// For commands that ignore the buffer, and for addresses the kernel is to reject.
pub fn shmctl(id: i32, command: i32, address: usize) -> Result<c_long> {
    #[expect(clippy::cast_possible_wrap, reason = "an address has the same width as long")]
    numbers(Sys::Shmctl, &[id.into(), command.into(), address as c_long])
}
