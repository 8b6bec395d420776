//! Mappings: mmap(2) and its relatives. Owned mappings are [`crate::Map`]; these are the bare calls.

use super::{Result, raw, ret};
use crate::Sys;
use libc::{c_int, c_long, c_void, off_t};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

/// `MADV_GUARD_INSTALL`, include/uapi/asm-generic/mman-common.h; newer than the C library's headers.
pub const MADV_GUARD_INSTALL: c_int = 102;
/// `MADV_GUARD_REMOVE`
pub const MADV_GUARD_REMOVE: c_int = 103;
/// `MADV_COLLAPSE`
pub const MADV_COLLAPSE: c_int = 25;

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

/// `mlock2(address, length, flags)`
pub fn mlock2(address: usize, length: usize, flags: u32) -> Result<()> {
    raw::numbers(Sys::Mlock2, &[address as c_long, length as c_long, c_long::from(flags)]).map(drop)
}

/// `mlockall(flags)`
pub fn mlockall(flags: c_int) -> Result<()> {
    // SAFETY: locking changes residency only.
    ret("mlockall", unsafe { libc::mlockall(flags) }).map(drop)
}

/// `munlockall()`
pub fn munlockall() -> Result<()> {
    // SAFETY: unlocking changes residency only.
    ret("munlockall", unsafe { libc::munlockall() }).map(drop)
}

/// `mseal(address, length, flags)`—the range can never be unmapped by this process again.
pub fn mseal(address: usize, length: usize, flags: c_long) -> Result<()> {
    raw::numbers(Sys::Mseal, &[address as c_long, length as c_long, flags]).map(drop)
}

/// `pkey_mprotect(address, length, protection, key)`—for ranges that a [`crate::Map`] owns.
pub fn pkey_mprotect(address: usize, length: usize, protection: c_int, key: c_int) -> Result<()> {
    let args = [address as c_long, length as c_long, protection.into(), key.into()];
    raw::numbers(Sys::PkeyMprotect, &args).map(drop)
}

/// `process_madvise(pidfd, ranges, advice, flags)`—the number of bytes advised; ranges are (address, length).
pub fn process_madvise(pidfd: c_int, ranges: &[(usize, usize)], advice: c_int, flags: c_long) -> Result<usize> {
    let vectors: Vec<libc::iovec> =
        ranges.iter().map(|(at, len)| libc::iovec { iov_base: *at as *mut c_void, iov_len: *len }).collect();
    let args = [pidfd.into(), vectors.as_ptr() as c_long, vectors.len() as c_long, advice.into(), flags];
    // SAFETY: pointer and count are those of the vector, which the kernel only reads.
    let n = unsafe { raw::call("process_madvise", Sys::ProcessMadvise.number(), &args) }?;
    Ok(usize::try_from(n).unwrap_or(0))
}

/// `pidfd_open(pid, 0)`
pub fn process_descriptor(pid: libc::pid_t) -> Result<OwnedFd> {
    let fd = raw::numbers(Sys::PidfdOpen, &[pid.into(), 0])?;
    // SAFETY: the call returned a descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// A file of `size` bytes in memory, closed on exec: the cheapest file that can be mapped, memfd_create(2).
pub fn memory_file(size: usize) -> Result<OwnedFd> {
    /// `MFD_NOEXEC_SEAL`, for where vm.memfd_noexec refuses a plain file.
    const NOEXEC_SEAL: u32 = 8;
    let create = |flags: u32| {
        // SAFETY: the name is a C string.
        ret("memfd_create", unsafe { libc::memfd_create(c"shmcheck".as_ptr(), libc::MFD_CLOEXEC | flags) })
    };
    let fd = create(0).or_else(|_| create(NOEXEC_SEAL))?;
    // SAFETY: the call returned a descriptor that nobody else owns.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    super::ftruncate(fd, size as off_t)?;
    Ok(file)
}

/// `pread(fd, address, length, 0)` into memory of a [`crate::Map`] that the kernel may be unable to write to.
pub fn read_into(fd: c_int, address: usize, length: usize) -> Result<usize> {
    let args = [fd.into(), address as c_long, length as c_long, 0];
    // SAFETY: the range belongs to a Map, whose accessors are volatile.
    let n = unsafe { raw::call("pread", libc::SYS_pread64, &args) }?;
    Ok(usize::try_from(n).unwrap_or(0))
}

/// `pwrite(fd, address, length, 0)` from memory of a [`crate::Map`] that the kernel may be unable to read.
pub fn write_from(fd: c_int, address: usize, length: usize) -> Result<usize> {
    let args = [fd.into(), address as c_long, length as c_long, 0];
    // SAFETY: the kernel only reads the range, and refuses where it cannot.
    let n = unsafe { raw::call("pwrite", libc::SYS_pwrite64, &args) }?;
    Ok(usize::try_from(n).unwrap_or(0))
}

/// `mmap` as the system call, for arguments that the C library would refuse itself; without `MAP_FIXED`.
pub fn mmap_raw(length: usize, protection: c_int, flags: c_int, fd: c_int, offset: c_long) -> Result<usize> {
    let args = [0, length as c_long, protection.into(), flags.into(), fd.into(), offset];
    raw::numbers(Sys::Mmap, &args).map(|at| at as usize)
}

/// `mremap` as the system call, for flags that the C library would refuse itself.
pub fn mremap_raw(address: usize, old: usize, new: usize, flags: c_int, target: usize) -> Result<usize> {
    let args = [address as c_long, old as c_long, new as c_long, flags.into(), target as c_long];
    raw::numbers(Sys::Mremap, &args).map(|at| at as usize)
}

/// `mincore(address, length, vector)`—the system call with a vector at any address that a [`crate::Map`] owns, or that
/// the kernel is to reject.
pub fn mincore_into(address: usize, length: usize, vector: usize) -> Result<()> {
    raw::numbers(Sys::Mincore, &[address as c_long, length as c_long, vector as c_long]).map(drop)
}

/// Machine code of a function without arguments that returns 42; empty where it is not written down for the processor.
pub const fn code_of_42() -> &'static [u8] {
    if cfg!(target_arch = "x86_64") { &[0xb8, 42, 0, 0, 0, 0xc3] } else { &[] }
}

/// Calls the code at `address`, which is that of [`code_of_42`] or cannot be executed.
pub fn run_code(address: usize) -> i32 {
    // SAFETY: the address holds code of a function of this type, or the probe is about the fault of running it.
    let function = unsafe { std::mem::transmute::<usize, extern "C" fn() -> i32>(address) };
    function()
}

/// Where [`on_fault`] writes; 0 before [`report_fault`].
static FAULT_SLOT: AtomicUsize = AtomicUsize::new(0);

/// From here on SIGSEGV and SIGBUS write signal, code and address as three 64-bit words to `slot`, which is shared
/// memory, and end this process with code 0.
pub fn report_fault(slot: usize) -> Result<()> {
    FAULT_SLOT.store(slot, Ordering::SeqCst);
    // SAFETY: sigaction is plain numbers and an empty mask, for which zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_fault as extern "C" fn(c_int, *const libc::siginfo_t, *mut c_void) as usize;
    action.sa_flags = libc::SA_SIGINFO;
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: the handler is async-signal-safe: it stores three words and ends the process.
        ret("sigaction", unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) })?;
    }
    Ok(())
}

extern "C" fn on_fault(signal: c_int, info: *const libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a siginfo that lives as long as the handler.
    let info = unsafe { &*info };
    // SAFETY: SIGSEGV and SIGBUS fill in the address.
    let address = unsafe { info.si_addr() } as u64;
    let slot = FAULT_SLOT.load(Ordering::SeqCst);
    let values = [i64::from(signal).cast_unsigned(), i64::from(info.si_code).cast_unsigned(), address];
    for (n, value) in values.into_iter().enumerate() {
        // SAFETY: the slot is writable shared memory of at least three words.
        unsafe { std::ptr::write_volatile((slot + 8 * n) as *mut u64, value) };
    }
    super::exit_now(0);
}

/// Whether a status of waitpid(2) says that the process stopped.
pub fn has_stopped(status: c_int) -> bool {
    libc::WIFSTOPPED(status)
}
