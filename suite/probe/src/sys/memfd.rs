//! memfd_create(2), seals of fcntl(2), memfd_secret(2), fexecve(3).

use super::{Error, Result, cstr, errno, raw, ret};
use crate::Sys;
use libc::{c_int, c_long, c_uint};
use std::os::fd::{FromRawFd, OwnedFd};

pub use libc::{F_ADD_SEALS, F_GET_SEALS};
pub use libc::{F_SEAL_FUTURE_WRITE, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE};
pub use libc::{MFD_ALLOW_SEALING, MFD_CLOEXEC, MFD_HUGETLB};

/// Seal: the executable bits of the mode cannot change, Linux 6.3, fcntl(2).
pub const F_SEAL_EXEC: c_int = 0x20;
/// Flag of `memfd_create`: not executable, and sealed so, Linux 6.3.
pub const MFD_NOEXEC_SEAL: c_uint = 0x08;
/// Flag of `memfd_create`: executable, Linux 6.3.
pub const MFD_EXEC: c_uint = 0x10;
/// Where the base-2 logarithm of a huge page's size stands in the flags of `memfd_create`.
pub const MFD_HUGE_SHIFT: u32 = 26;

fn owned(fd: c_int) -> OwnedFd {
    // SAFETY: only called with a descriptor that a call just returned and nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// `memfd_create(name, flags)`
pub fn memfd_create(name: &str, flags: c_uint) -> Result<OwnedFd> {
    let name = cstr(name);
    // SAFETY: the name is a C string that outlives the call.
    ret("memfd_create", unsafe { libc::memfd_create(name.as_ptr(), flags) }).map(owned)
}

/// `memfd_create(name, flags)`—the system call.
pub fn memfd_create_raw(name: &str, flags: c_uint) -> Result<OwnedFd> {
    let name = cstr(name);
    // SAFETY: the name is a C string that outlives the call, the flags are a number.
    let fd = unsafe { raw::call("memfd_create", Sys::MemfdCreate.number(), &[name.as_ptr() as c_long, flags.into()]) }?;
    Ok(owned(i32::try_from(fd).unwrap_or(-1)))
}

/// `memfd_create(address, 0)`—the system call with a name pointer that the kernel is to reject.
pub fn memfd_create_at_address(address: usize) -> Result<OwnedFd> {
    #[expect(clippy::cast_possible_wrap, reason = "an address has the same width as long")]
    let fd = raw::numbers(Sys::MemfdCreate, &[address as c_long, 0])?;
    Ok(owned(i32::try_from(fd).unwrap_or(-1)))
}

/// `memfd_secret(flags)`
pub fn memfd_secret(flags: c_uint) -> Result<OwnedFd> {
    let fd = raw::numbers(Sys::MemfdSecret, &[flags.into()])?;
    Ok(owned(i32::try_from(fd).unwrap_or(-1)))
}

/// `fcntl(fd, F_ADD_SEALS, seals)`
pub fn add_seals(fd: c_int, seals: c_int) -> Result<()> {
    // SAFETY: the command takes a number.
    ret("fcntl(F_ADD_SEALS)", unsafe { libc::fcntl(fd, F_ADD_SEALS, seals) }).map(drop)
}

/// `fcntl(fd, F_ADD_SEALS, seals)`—the system call with an argument of full width.
pub fn add_seals_wide(fd: c_int, seals: c_long) -> Result<()> {
    // SAFETY: the command takes a number.
    unsafe { raw::call("fcntl(F_ADD_SEALS)", libc::SYS_fcntl, &[fd.into(), F_ADD_SEALS.into(), seals]) }.map(drop)
}

/// `fcntl(fd, F_GET_SEALS)`
pub fn get_seals(fd: c_int) -> Result<c_int> {
    // SAFETY: the command takes no argument.
    ret("fcntl(F_GET_SEALS)", unsafe { libc::fcntl(fd, F_GET_SEALS) })
}

/// `fexecve(fd, {"program"}, {})`—the reason why the program was not executed.
pub fn fexecve(fd: c_int) -> Error {
    let argv = [c"program".as_ptr(), std::ptr::null()];
    let envp: [*const libc::c_char; 1] = [std::ptr::null()];
    // SAFETY: both arrays end with null and outlive the call.
    unsafe { libc::fexecve(fd, argv.as_ptr(), envp.as_ptr()) };
    Error { call: "fexecve", errno: errno() }
}

/// `vmsplice(pipe, {address, length}, 0)`—the pages go into the pipe by reference; the number of bytes.
pub fn vmsplice(pipe: c_int, address: usize, length: usize) -> Result<usize> {
    let part = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: length };
    // SAFETY: one element is passed and counted as one; the kernel reads the pages or rejects the address.
    let n = ret("vmsplice", unsafe { libc::vmsplice(pipe, &raw const part, 1, 0) } as i64)?;
    Ok(usize::try_from(n).unwrap_or(0))
}
