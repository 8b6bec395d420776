//! POSIX shared memory and files in /dev/shm: shm_open(3), shm_unlink(3), posix_fallocate(3), truncate(2).

use super::{Result, cstr, ret, ret_errno};
use libc::{c_int, c_long, mode_t, off_t};
use std::os::fd::{FromRawFd, OwnedFd};

/// `shm_open(name, flags, mode)`
pub fn shm_open(name: &str, flags: c_int, mode: mode_t) -> Result<OwnedFd> {
    let name = cstr(name);
    // SAFETY: the name is a C string that outlives the call.
    let fd = ret("shm_open", unsafe { libc::shm_open(name.as_ptr(), flags, mode) })?;
    // SAFETY: the call returned a descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `shm_unlink(name)`
pub fn shm_unlink(name: &str) -> Result<()> {
    let name = cstr(name);
    // SAFETY: the name is a C string that outlives the call.
    ret("shm_unlink", unsafe { libc::shm_unlink(name.as_ptr()) }).map(drop)
}

/// `posix_fallocate(fd, offset, length)`—the errno is its value.
pub fn posix_fallocate(fd: c_int, offset: off_t, length: off_t) -> Result<()> {
    // SAFETY: no memory is passed.
    ret_errno("posix_fallocate", unsafe { libc::posix_fallocate(fd, offset, length) })
}

/// `truncate(path, length)`
pub fn truncate(path: &str, length: off_t) -> Result<()> {
    let path = cstr(path);
    // SAFETY: the path is a C string that outlives the call.
    ret("truncate", unsafe { libc::truncate(path.as_ptr(), length) }).map(drop)
}

/// `truncate(address, length)`—the system call with a path pointer that the kernel is to reject.
pub fn truncate_at_address(address: usize, length: off_t) -> Result<()> {
    #[expect(clippy::cast_possible_wrap, reason = "an address has the same width as long")]
    let arguments = [address as c_long, length];
    // SAFETY: the kernel only reads a path, and checks the pointer first.
    unsafe { super::raw::call("truncate", libc::SYS_truncate, &arguments) }.map(drop)
}
