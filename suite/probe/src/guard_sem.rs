//! A System V semaphore set that is gone when the probe ends.
//!
//! As the guards of [`crate::guard`] it frees only in the process that made it.

use crate::outcome::Stop;
use crate::sys::{self, Result, SemOp, SemStat};
use crate::{Context, sys::IPC_CREAT, sys::IPC_EXCL};

/// A semaphore set, removed when dropped by the process that made it.
#[derive(Debug)]
pub struct SemSet {
    /// The identifier.
    pub id: i32,
    /// The key it was made with.
    pub key: i32,
    /// The number of semaphores asked for.
    pub nsems: usize,
    owner: libc::pid_t,
}

impl SemSet {
    /// `semget(key, nsems, flags)`—a guard over what it returns; flags hold mode bits and `IPC_CREAT`.
    pub fn get(key: i32, nsems: i32, flags: i32) -> Result<Self> {
        let id = sys::semget(key, nsems, flags)?;
        Ok(Self::adopt(id, key, usize::try_from(nsems).unwrap_or(0)))
    }

    /// A guard over a set that exists.
    pub fn adopt(id: i32, key: i32, nsems: usize) -> Self {
        Self { id, key, nsems, owner: sys::getpid() }
    }

    /// Leaves the set to somebody else: nothing is removed on drop.
    pub fn disown(mut self) -> i32 {
        self.owner = 0;
        self.id
    }

    /// `semctl(id, 0, IPC_RMID)`—now; a later drop does nothing.
    pub fn remove(&mut self) -> Result<()> {
        self.owner = 0;
        sys::sem_remove(self.id)
    }

    /// `semctl(id, 0, IPC_STAT)`
    pub fn stat(&self) -> Result<SemStat> {
        sys::sem_stat(self.id)
    }

    /// `semop(id, ops)`
    pub fn op(&self, ops: &[SemOp]) -> Result<()> {
        sys::semop(self.id, ops)
    }

    /// `GETVAL` of one semaphore.
    pub fn value(&self, num: i32) -> Result<i32> {
        sys::semctl(self.id, num, sys::GETVAL)
    }

    /// `GETALL`
    pub fn values(&self) -> Result<Vec<u16>> {
        sys::sem_values(self.id, self.nsems)
    }

    /// `SETVAL` of one semaphore.
    pub fn set(&self, num: i32, value: i32) -> Result<()> {
        sys::sem_set_value(self.id, num, value)
    }

    /// `SETALL`; one value for every semaphore.
    pub fn set_all(&self, values: &[u16]) -> Result<()> {
        assert!(values.len() >= self.nsems, "SETALL needs a value for every semaphore");
        sys::sem_set_values(self.id, 0, values)
    }

    /// `GETPID`: the process of the last operation on one semaphore.
    pub fn last_pid(&self, num: i32) -> Result<i32> {
        sys::semctl(self.id, num, sys::GETPID)
    }

    /// `GETNCNT`: how many wait for one semaphore to increase.
    pub fn waiting(&self, num: i32) -> Result<i32> {
        sys::semctl(self.id, num, sys::GETNCNT)
    }

    /// `GETZCNT`: how many wait for one semaphore to become zero.
    pub fn waiting_zero(&self, num: i32) -> Result<i32> {
        sys::semctl(self.id, num, sys::GETZCNT)
    }
}

impl Drop for SemSet {
    fn drop(&mut self) {
        if self.owner == sys::getpid() {
            // The probe may have removed it by another way; what is really left is found by the agent's inventory.
            let _ = sys::sem_remove(self.id);
        }
    }
}

impl Context {
    /// A new set of `nsems` semaphores under a fresh key with mode 0600; removed when dropped.
    pub fn sem_set(&mut self, nsems: i32) -> std::result::Result<SemSet, Stop> {
        self.sem_set_mode(nsems, 0o600)
    }

    /// A new set of `nsems` semaphores under a fresh key with these mode bits; removed when dropped.
    pub fn sem_set_mode(&mut self, nsems: i32, mode: i32) -> std::result::Result<SemSet, Stop> {
        Ok(SemSet::get(self.fresh_key(), nsems, IPC_CREAT | IPC_EXCL | mode)?)
    }
}
