//! Things that a probe makes and that are gone when it ends: segments and mappings.
//!
//! A guard frees only in the process that made it, so that a forked peer which ends early takes nothing away.

use crate::sys::{self, Result, ShmStat};
use std::sync::atomic::AtomicU32;

/// A System V segment, removed when dropped by the process that made it.
#[derive(Debug)]
pub struct Segment {
    /// The identifier.
    pub id: i32,
    /// The key it was made with.
    pub key: i32,
    /// The size asked for in bytes.
    pub size: usize,
    owner: libc::pid_t,
}

impl Segment {
    /// `shmget(key, size, flags)`—a guard over what it returns; flags hold mode bits and `IPC_CREAT`.
    pub fn get(key: i32, size: usize, flags: i32) -> Result<Self> {
        Ok(Self::adopt(sys::shmget(key, size, flags)?, key, size))
    }

    /// A guard over a segment that exists.
    pub fn adopt(id: i32, key: i32, size: usize) -> Self {
        Self { id, key, size, owner: sys::getpid() }
    }

    /// Leaves the segment to somebody else: nothing is removed on drop.
    pub fn disown(mut self) -> i32 {
        self.owner = 0;
        self.id
    }

    /// `shmctl(id, IPC_STAT)`
    pub fn stat(&self) -> Result<ShmStat> {
        sys::shm_stat(self.id)
    }

    /// `shmat(id, NULL, flags)`—as a mapping that is detached when dropped.
    pub fn attach(&self, flags: i32) -> Result<Map> {
        let address = sys::shmat(self.id, flags)?;
        Ok(Map::attached(address, self.size))
    }

    /// `shmctl(id, IPC_RMID)`—now; a later drop does nothing.
    pub fn remove(&mut self) -> Result<()> {
        self.owner = 0;
        sys::shm_remove(self.id)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.owner == sys::getpid() {
            // The probe may have removed it by another way; what is really left is found by the agent's inventory.
            let _ = sys::shm_remove(self.id);
        }
    }
}

/// How a mapping ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Unmap,
    Detach,
    Nothing,
}

/// A range of memory with volatile accessors, unmapped or detached when dropped.
///
/// The accessors check their offset against the length asked for, not whether the memory may be touched: a store to
/// read-only or truncated memory faults, as the probe may want. See [`crate::Context::expect_signal`].
#[derive(Debug)]
pub struct Map {
    address: usize,
    length: usize,
    end: End,
}

impl Map {
    /// `mmap(NULL, length, protection, flags, fd, 0)`
    pub fn new(length: usize, protection: i32, flags: i32, fd: i32) -> Result<Self> {
        Self::at(0, length, protection, flags, fd, 0)
    }

    /// `mmap` with all arguments; `MAP_FIXED` only over a range that the probe owns.
    pub fn at(address: usize, length: usize, protection: i32, flags: i32, fd: i32, offset: i64) -> Result<Self> {
        let address = sys::mmap(address, length, protection, flags, fd, offset)?;
        Ok(Self { address, length, end: End::Unmap })
    }

    /// Anonymous shared memory of `length` bytes, readable and writable.
    pub fn shared_anonymous(length: usize) -> Result<Self> {
        Self::new(length, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1)
    }

    /// The object behind `fd`, shared, readable and writable.
    pub fn shared(fd: &impl std::os::fd::AsRawFd, length: usize) -> Result<Self> {
        Self::new(length, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd.as_raw_fd())
    }

    /// A System V attach at `address`.
    pub fn attached(address: usize, length: usize) -> Self {
        Self { address, length, end: End::Detach }
    }

    /// A view of a range that somebody else ends.
    pub fn view(address: usize, length: usize) -> Self {
        Self { address, length, end: End::Nothing }
    }

    /// The first address.
    pub fn address(&self) -> usize {
        self.address
    }

    /// The length asked for in bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether the range is empty.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Forgets the mapping without ending it; its address.
    pub fn leak(mut self) -> usize {
        self.end = End::Nothing;
        self.address
    }

    /// `shmdt` or `munmap` now, with the result.
    pub fn close(mut self) -> Result<()> {
        let end = std::mem::replace(&mut self.end, End::Nothing);
        match end {
            End::Unmap => sys::munmap(self.address, self.length),
            End::Detach => sys::shmdt(self.address),
            End::Nothing => Ok(()),
        }
    }

    /// The byte at `offset`, read anew from memory.
    pub fn read(&self, offset: usize) -> u8 {
        assert!(offset < self.length, "offset {offset} is outside a mapping of {} bytes", self.length);
        // SAFETY: the offset lies inside the mapping; a fault is what the probe asked for.
        unsafe { std::ptr::read_volatile((self.address + offset) as *const u8) }
    }

    /// Stores one byte at `offset`.
    pub fn write(&self, offset: usize, value: u8) {
        assert!(offset < self.length, "offset {offset} is outside a mapping of {} bytes", self.length);
        // SAFETY: the offset lies inside the mapping; a fault is what the probe asked for.
        unsafe { std::ptr::write_volatile((self.address + offset) as *mut u8, value) }
    }

    /// Copies `bytes` to `offset`.
    pub fn write_all(&self, offset: usize, bytes: &[u8]) {
        for (n, byte) in bytes.iter().enumerate() {
            self.write(offset + n, *byte);
        }
    }

    /// Copies `length` bytes from `offset`.
    pub fn read_all(&self, offset: usize, length: usize) -> Vec<u8> {
        (offset..offset + length).map(|n| self.read(n)).collect()
    }

    /// Stores `value` once in every page, so that each is present.
    pub fn touch(&self, value: u8) {
        for offset in (0..self.length).step_by(sys::page_size()) {
            self.write(offset, value);
        }
    }

    /// The aligned 32-bit word at `offset` as an atomic: for counters between processes and futexes.
    pub fn atomic(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.length, "offset {offset} is no word of this mapping");
        // SAFETY: aligned, inside the mapping, and memory shared between processes is only accessed atomically there.
        unsafe { AtomicU32::from_ptr((self.address + offset) as *mut u32) }
    }

    /// A pointer into the mapping, for objects of the C library that live in shared memory.
    pub fn pointer<T>(&self, offset: usize) -> *mut T {
        assert!(offset + size_of::<T>() <= self.length, "an object at {offset} does not fit");
        (self.address + offset) as *mut T
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // Every process has its own table of mappings: ending a copy that fork made takes nothing from the parent.
        let _ = match self.end {
            End::Unmap => sys::munmap(self.address, self.length),
            End::Detach => sys::shmdt(self.address),
            End::Nothing => Ok(()),
        };
    }
}
