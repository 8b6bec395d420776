//! Files and descriptors, as far as probes need them beyond the standard library.

use super::{Result, ret};
use libc::{c_int, mode_t, off_t};
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A C string; interior zero bytes end it, as they would in C.
pub fn cstr(text: &str) -> CString {
    let bytes: Vec<u8> = text.bytes().take_while(|b| *b != 0).collect();
    CString::new(bytes).unwrap_or_default()
}

/// `open(path, flags, mode)`
pub fn open(path: &str, flags: c_int, mode: mode_t) -> Result<OwnedFd> {
    let path = cstr(path);
    // SAFETY: the path is a C string that outlives the call.
    let fd = ret("open", unsafe { libc::open(path.as_ptr(), flags, mode) })?;
    // SAFETY: the call returned a descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `ftruncate(fd, length)`—any descriptor number, also one to be refused.
pub fn ftruncate(fd: c_int, length: off_t) -> Result<()> {
    // SAFETY: no memory is passed.
    ret("ftruncate", unsafe { libc::ftruncate(fd, length) }).map(drop)
}

/// `fallocate(fd, mode, offset, length)`
pub fn fallocate(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> Result<()> {
    // SAFETY: no memory is passed.
    ret("fallocate", unsafe { libc::fallocate(fd, mode, offset, length) }).map(drop)
}

/// `fstat(fd)`
pub fn fstat(fd: c_int) -> Result<libc::stat> {
    // SAFETY: stat is plain numbers, for which zero is a value.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the buffer is a struct stat.
    ret("fstat", unsafe { libc::fstat(fd, &raw mut stat) })?;
    Ok(stat)
}

/// `fcntl(fd, command, argument)`—commands with a number as argument.
pub fn fcntl(fd: c_int, command: c_int, argument: c_int) -> Result<c_int> {
    // SAFETY: by contract the command takes a number or nothing.
    ret("fcntl", unsafe { libc::fcntl(fd, command, argument) })
}

/// `pread(fd, buffer, offset)`—the number of bytes read.
pub fn pread(fd: c_int, buffer: &mut [u8], offset: off_t) -> Result<usize> {
    // SAFETY: pointer and length are those of the slice.
    let n = ret("pread", unsafe { libc::pread(fd, buffer.as_mut_ptr().cast(), buffer.len(), offset) } as i64)?;
    Ok(usize::try_from(n).unwrap_or(0))
}

/// `pwrite(fd, buffer, offset)`—the number of bytes written.
pub fn pwrite(fd: c_int, buffer: &[u8], offset: off_t) -> Result<usize> {
    // SAFETY: pointer and length are those of the slice.
    let n = ret("pwrite", unsafe { libc::pwrite(fd, buffer.as_ptr().cast(), buffer.len(), offset) } as i64)?;
    Ok(usize::try_from(n).unwrap_or(0))
}

/// `close(fd)`—any number; for descriptors that no owner will close again.
pub fn close(fd: c_int) -> Result<()> {
    // SAFETY: by contract no owned descriptor of this number is used afterwards.
    ret("close", unsafe { libc::close(fd) }).map(drop)
}

/// The two ends of a pipe, closed on exec: reading end, writing end.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for two descriptors.
    ret("pipe2", unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: the call returned a descriptor that nobody else owns.
    let reading = unsafe { OwnedFd::from_raw_fd(ends[0]) };
    // SAFETY: the call returned a second descriptor that nobody else owns.
    let writing = unsafe { OwnedFd::from_raw_fd(ends[1]) };
    Ok((reading, writing))
}

/// Waits until `fd` can be read (or its other end is closed), at most `millis`; false when the time is over.
pub fn poll_in(fd: &impl AsRawFd, millis: i32) -> Result<bool> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    loop {
        // SAFETY: one entry is passed and counted as one.
        match ret("poll", unsafe { libc::poll(&raw mut entry, 1, millis) }) {
            Ok(ready) => return Ok(ready > 0),
            Err(e) if e.errno == libc::EINTR => {}
            Err(e) => return Err(e),
        }
    }
}

/// `mount(source, target, type, flags, data)`—in a mount namespace of the probe's own.
pub fn mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong, data: &str) -> Result<()> {
    let [source, target, kind, data] = [source, target, kind, data].map(cstr);
    // SAFETY: all strings are C strings that outlive the call.
    let value = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) };
    ret("mount", value).map(drop)
}

/// `futimens(fd)`—sets access and modification time to this second.
pub fn set_times(fd: c_int, seconds: i64) -> Result<()> {
    let time = libc::timespec { tv_sec: seconds, tv_nsec: 0 };
    let both = [time, time];
    // SAFETY: the array has the two times.
    ret("futimens", unsafe { libc::futimens(fd, both.as_ptr()) }).map(drop)
}

/// `ioctl(fd, FS_IOC_GETFLAGS)`—the file's attributes, ioctl_iflags(2).
pub fn attributes(fd: c_int) -> Result<c_int> {
    let mut value: c_int = 0;
    // SAFETY: the buffer is an int, which is what every file system writes here.
    ret("ioctl", unsafe { libc::ioctl(fd, libc::FS_IOC_GETFLAGS, &raw mut value) })?;
    Ok(value)
}

/// `ioctl(fd, FS_IOC_SETFLAGS)`—sets the file's attributes.
pub fn set_attributes(fd: c_int, value: c_int) -> Result<()> {
    // SAFETY: the buffer is an int that outlives the call.
    ret("ioctl", unsafe { libc::ioctl(fd, libc::FS_IOC_SETFLAGS, &raw const value) }).map(drop)
}
