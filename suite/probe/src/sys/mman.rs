//! Mappings: mmap(2) and its relatives. Owned mappings are [`crate::Map`]; these are the bare calls.

use super::{Result, ret};
use libc::{c_int, c_void, off_t};

/// `mmap(address, length, protection, flags, fd, offset)`—the address of a new mapping.
///
/// With `MAP_FIXED` the caller answers for the range: only for ranges that a [`crate::Map`] owns.
pub fn mmap(address: usize, length: usize, protection: c_int, flags: c_int, fd: c_int, offset: off_t) -> Result<usize> {
    // SAFETY: without MAP_FIXED the kernel maps only free ranges; with it the caller owns the range.
    let at = unsafe { libc::mmap(address as *mut c_void, length, protection, flags, fd, offset) };
    ret("mmap", at as isize as i64)?;
    Ok(at as usize)
}

/// `munmap(address, length)`—for ranges no live [`crate::Map`] is used through afterwards.
pub fn munmap(address: usize, length: usize) -> Result<()> {
    // SAFETY: by contract nothing that Rust uses lies in the range.
    ret("munmap", unsafe { libc::munmap(address as *mut c_void, length) }).map(drop)
}

/// `mprotect(address, length, protection)`—for ranges that a [`crate::Map`] owns.
pub fn mprotect(address: usize, length: usize, protection: c_int) -> Result<()> {
    // SAFETY: the range belongs to a Map, whose accessors are volatile and may fault.
    ret("mprotect", unsafe { libc::mprotect(address as *mut c_void, length, protection) }).map(drop)
}

/// `mremap(address, old, new, flags, target)`—all five arguments are passed explicitly: glibc's variadic wrapper
/// reads the fifth whenever the flags ask for it, and passing it always is what the system call takes.
pub fn mremap(address: usize, old: usize, new: usize, flags: c_int, target: usize) -> Result<usize> {
    // SAFETY: the range belongs to a Map that the caller does not use at the old address afterwards.
    let at = unsafe { libc::mremap(address as *mut c_void, old, new, flags, target as *mut c_void) };
    ret("mremap", at as isize as i64)?;
    Ok(at as usize)
}

/// `msync(address, length, flags)`
pub fn msync(address: usize, length: usize, flags: c_int) -> Result<()> {
    // SAFETY: msync writes file contents only; unmapped ranges are refused.
    ret("msync", unsafe { libc::msync(address as *mut c_void, length, flags) }).map(drop)
}

/// `madvise(address, length, advice)`—for ranges that a [`crate::Map`] owns.
pub fn madvise(address: usize, length: usize, advice: c_int) -> Result<()> {
    // SAFETY: the range belongs to a Map, whose accessors are volatile.
    ret("madvise", unsafe { libc::madvise(address as *mut c_void, length, advice) }).map(drop)
}

/// `mincore(address, length)`—one byte per page, bit 0 set where the page is resident.
pub fn mincore(address: usize, length: usize) -> Result<Vec<u8>> {
    let mut pages = vec![0; length.div_ceil(super::page_size())];
    // SAFETY: the vector has one byte for each page of the range.
    ret("mincore", unsafe { libc::mincore(address as *mut c_void, length, pages.as_mut_ptr()) })?;
    Ok(pages)
}

/// `mlock(address, length)`
pub fn mlock(address: usize, length: usize) -> Result<()> {
    // SAFETY: locking changes residency only.
    ret("mlock", unsafe { libc::mlock(address as *const c_void, length) }).map(drop)
}

/// `munlock(address, length)`
pub fn munlock(address: usize, length: usize) -> Result<()> {
    // SAFETY: unlocking changes residency only.
    ret("munlock", unsafe { libc::munlock(address as *const c_void, length) }).map(drop)
}

/// `remap_file_pages(address, length, 0, page, 0)`—lets the range show the object from `page` on.
pub fn remap_file_pages(address: usize, length: usize, page: usize) -> Result<()> {
    // SAFETY: the range belongs to a Map, whose accessors are volatile.
    ret("remap_file_pages", unsafe { libc::remap_file_pages(address as *mut c_void, length, 0, page, 0) }).map(drop)
}
