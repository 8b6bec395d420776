//! POSIX semaphores of the C library: named, and unnamed in memory that processes share.

use super::{Result, cstr, ret};
use crate::Map;
use libc::{c_char, c_int, c_uint, clockid_t, mode_t, sem_t, timespec};
use std::marker::PhantomData;

// The libc crate lacks these for Linux.
unsafe extern "C" {
    fn sem_open(name: *const c_char, flags: c_int, ...) -> *mut sem_t;
    fn sem_close(sem: *mut sem_t) -> c_int;
    fn sem_unlink(name: *const c_char) -> c_int;
    fn sem_init(sem: *mut sem_t, shared: c_int, value: c_uint) -> c_int;
    fn sem_destroy(sem: *mut sem_t) -> c_int;
    fn sem_wait(sem: *mut sem_t) -> c_int;
    fn sem_trywait(sem: *mut sem_t) -> c_int;
    fn sem_timedwait(sem: *mut sem_t, limit: *const timespec) -> c_int;
    fn sem_clockwait(sem: *mut sem_t, clock: clockid_t, limit: *const timespec) -> c_int;
    fn sem_post(sem: *mut sem_t) -> c_int;
    fn sem_getvalue(sem: *mut sem_t, value: *mut c_int) -> c_int;
}

/// `SEM_VALUE_MAX`, sem_overview(7) and limits.h.
pub const SEM_VALUE_MAX: u32 = 0x7fff_ffff;

/// A semaphore of the C library: a pointer to memory that outlives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sem<'m>(*mut sem_t, PhantomData<&'m Map>);

impl<'m> Sem<'m> {
    /// The semaphore that lies, or is to be made, at an offset of a mapping.
    pub fn at(map: &'m Map, offset: usize) -> Self {
        assert!(offset.is_multiple_of(align_of::<sem_t>()), "a semaphore at {offset} is not aligned");
        Self(map.pointer(offset), PhantomData)
    }

    /// `sem_init(sem, shared, value)`
    pub fn init(self, shared: bool, value: u32) -> Result<()> {
        // SAFETY: the pointer is to aligned memory of the size of a semaphore in a live mapping.
        ret("sem_init", unsafe { sem_init(self.0, c_int::from(shared), value) }).map(drop)
    }

    /// `sem_destroy(sem)`
    pub fn destroy(self) -> Result<()> {
        // SAFETY: the pointer is to a semaphore that was initialised.
        ret("sem_destroy", unsafe { sem_destroy(self.0) }).map(drop)
    }

    /// `sem_wait(sem)`
    pub fn wait(self) -> Result<()> {
        // SAFETY: the pointer is to a semaphore that was initialised.
        ret("sem_wait", unsafe { sem_wait(self.0) }).map(drop)
    }

    /// `sem_trywait(sem)`
    pub fn try_wait(self) -> Result<()> {
        // SAFETY: the pointer is to a semaphore that was initialised.
        ret("sem_trywait", unsafe { sem_trywait(self.0) }).map(drop)
    }

    /// `sem_timedwait(sem, limit)`—an absolute time of `CLOCK_REALTIME`.
    pub fn timed_wait(self, limit: &timespec) -> Result<()> {
        // SAFETY: as for sem_wait; the limit is a timespec.
        ret("sem_timedwait", unsafe { sem_timedwait(self.0, limit) }).map(drop)
    }

    /// `sem_clockwait(sem, clock, limit)`—an absolute time of that clock.
    pub fn clock_wait(self, clock: clockid_t, limit: &timespec) -> Result<()> {
        // SAFETY: as for sem_wait; the limit is a timespec.
        ret("sem_clockwait", unsafe { sem_clockwait(self.0, clock, limit) }).map(drop)
    }

    /// `sem_post(sem)`
    pub fn post(self) -> Result<()> {
        // SAFETY: the pointer is to a semaphore that was initialised.
        ret("sem_post", unsafe { sem_post(self.0) }).map(drop)
    }

    /// `sem_getvalue(sem)`
    pub fn value(self) -> Result<c_int> {
        let mut value = -1;
        // SAFETY: the pointer is to a semaphore that was initialised; the answer is an int.
        ret("sem_getvalue", unsafe { sem_getvalue(self.0, &raw mut value) })?;
        Ok(value)
    }

    /// `sem_close(sem)`—no copy of a named semaphore is used afterwards, unless it was opened once more.
    pub fn close(self) -> Result<()> {
        // SAFETY: the library looks the pointer up among those it handed out and refuses others.
        ret("sem_close", unsafe { sem_close(self.0) }).map(drop)
    }

    /// The address, to look it up in the process's mappings.
    pub fn address(self) -> usize {
        self.0 as usize
    }
}

/// `sem_open(name, flags, mode, value)`—the library's mapping of a named semaphore. [`Sem::close`] ends it; a process
/// that ends without does no harm.
pub fn open_sem(name: &str, flags: c_int, mode: mode_t, value: u32) -> Result<Sem<'static>> {
    let name = cstr(name);
    // SAFETY: the name is a C string; mode and value are passed as sem_open expects where flags has O_CREAT.
    let sem = unsafe { sem_open(name.as_ptr(), flags, c_uint::from(mode), value) };
    // SEM_FAILED is the null pointer in glibc.
    ret("sem_open", if sem.is_null() { -1 } else { 0 })?;
    Ok(Sem(sem, PhantomData))
}

/// `sem_unlink(name)`
pub fn unlink_sem(name: &str) -> Result<()> {
    let name = cstr(name);
    // SAFETY: the name is a C string.
    ret("sem_unlink", unsafe { sem_unlink(name.as_ptr()) }).map(drop)
}

/// The name of a semaphore that is unlinked when dropped by the process that made the guard.
#[derive(Debug)]
pub struct SemName {
    /// The name with its slash.
    pub name: String,
    owner: libc::pid_t,
}

impl SemName {
    /// A guard over a name, whether or not the semaphore exists yet.
    pub fn new(name: String) -> Self {
        Self { name, owner: super::getpid() }
    }

    /// The file by which Linux keeps the semaphore, sem_overview(7).
    pub fn path(&self) -> String {
        format!("/dev/shm/sem.{}", self.name.trim_start_matches('/'))
    }
}

impl Drop for SemName {
    fn drop(&mut self) {
        if self.owner == super::getpid() {
            // The probe may have unlinked it; what is really left is found by the agent's inventory.
            let _ = unlink_sem(&self.name);
        }
    }
}
