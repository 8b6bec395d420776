//! System V semaphores: semget(2), semop(2), semctl(2).

use super::{Result, raw, ret};
use libc::{c_int, c_long, size_t, timespec};

pub use libc::{GETALL, GETNCNT, GETPID, GETVAL, GETZCNT, IPC_NOWAIT, SETALL, SETVAL};
pub use libc::{SEM_INFO, SEM_STAT, SEM_STAT_ANY};

/// The largest value of a semaphore, semop(2).
pub const SEMVMX: i32 = 32_767;

/// One operation of an array: `struct sembuf`, semop(2).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SemOp {
    /// The semaphore's number in the set.
    pub num: u16,
    /// What is added to its value; 0 waits until it is zero.
    pub op: i16,
    /// `IPC_NOWAIT`, `SEM_UNDO`.
    pub flags: i16,
}

const _: () = assert!(size_of::<SemOp>() == 6 && size_of::<SemOp>() == size_of::<libc::sembuf>());

impl SemOp {
    /// Adds `by` to semaphore `num`; a negative number takes.
    pub const fn add(num: u16, by: i16) -> Self {
        Self { num, op: by, flags: 0 }
    }

    /// Waits until semaphore `num` is zero.
    pub const fn zero(num: u16) -> Self {
        Self { num, op: 0, flags: 0 }
    }

    /// The same operation with `IPC_NOWAIT`.
    pub const fn nowait(self) -> Self {
        Self { flags: self.flags | IPC_NOWAIT as i16, ..self }
    }

    /// The same operation with `SEM_UNDO`.
    pub const fn undo(self) -> Self {
        Self { flags: self.flags | libc::SEM_UNDO as i16, ..self }
    }
}

/// What `IPC_INFO` and `SEM_INFO` fill: `struct seminfo`, semctl(2).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SemInfo {
    /// Entries in the semaphore map; unused within the kernel.
    pub semmap: c_int,
    /// Largest number of sets.
    pub semmni: c_int,
    /// Largest number of semaphores in all sets together.
    pub semmns: c_int,
    /// Largest number of undo structures; unused within the kernel.
    pub semmnu: c_int,
    /// Largest number of semaphores in a set.
    pub semmsl: c_int,
    /// Largest number of operations in a call.
    pub semopm: c_int,
    /// Undo entries per process; unused within the kernel.
    pub semume: c_int,
    /// Size of an undo structure; for `SEM_INFO` the number of sets that exist.
    pub semusz: c_int,
    /// Largest value of a semaphore.
    pub semvmx: c_int,
    /// Largest adjustment on exit; for `SEM_INFO` the number of semaphores that exist.
    pub semaem: c_int,
}

const _: () = assert!(size_of::<SemInfo>() == 40);

/// What `IPC_STAT` fills, with the members that the C library hides under reserved names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SemStat {
    /// The key given to semget.
    pub key: i32,
    /// Effective user id of the owner.
    pub uid: u32,
    /// Effective group id of the owner.
    pub gid: u32,
    /// Effective user id of the creator.
    pub cuid: u32,
    /// Effective group id of the creator.
    pub cgid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Sequence number.
    pub seq: u16,
    /// Time of the last semop in seconds since the epoch, 0 for never.
    pub otime: i64,
    /// Time of creation or of the last `IPC_SET`, `SETVAL`, `SETALL`.
    pub ctime: i64,
    /// Number of semaphores.
    pub nsems: u64,
}

impl From<&libc::semid_ds> for SemStat {
    fn from(ds: &libc::semid_ds) -> Self {
        let perm = &ds.sem_perm;
        Self {
            key: perm.__key,
            uid: perm.uid,
            gid: perm.gid,
            cuid: perm.cuid,
            cgid: perm.cgid,
            mode: u32::from(perm.mode),
            seq: perm.__seq,
            otime: ds.sem_otime,
            ctime: ds.sem_ctime,
            nsems: ds.sem_nsems,
        }
    }
}

// The libc crate lacks it.
unsafe extern "C" {
    #[link_name = "semtimedop"]
    fn libc_semtimedop(id: c_int, ops: *mut libc::sembuf, count: size_t, timeout: *const timespec) -> c_int;
}

/// A time of so many milliseconds for semtimedop.
pub const fn millis(ms: i64) -> timespec {
    timespec { tv_sec: ms / 1_000, tv_nsec: ms % 1_000 * 1_000_000 }
}

/// `semget(key, nsems, flags)`—finds or creates a set; its identifier.
pub fn semget(key: i32, nsems: c_int, flags: c_int) -> Result<c_int> {
    // SAFETY: no memory is passed.
    ret("semget", unsafe { libc::semget(key, nsems, flags) })
}

/// `semop(id, ops, count)`—all operations or none.
pub fn semop(id: c_int, ops: &[SemOp]) -> Result<()> {
    semop_at(id, ops.as_ptr() as usize, ops.len())
}

/// `semop(id, address, count)`—any address and count, also those to be refused: the kernel only reads there.
pub fn semop_at(id: c_int, address: usize, count: usize) -> Result<()> {
    // SAFETY: the kernel reads the array and checks that it can; nothing is written.
    ret("semop", unsafe { libc::semop(id, address as *mut libc::sembuf, count) }).map(drop)
}

/// `semtimedop(id, ops, count, timeout)`—all operations or none, waiting no longer than `timeout`.
pub fn semtimedop(id: c_int, ops: &[SemOp], timeout: &timespec) -> Result<()> {
    semtimedop_at(id, ops, std::ptr::from_ref(timeout) as usize)
}

/// `semtimedop(id, ops, count, address)`—any address as timeout, NULL for none: the kernel only reads there.
pub fn semtimedop_at(id: c_int, ops: &[SemOp], timeout: usize) -> Result<()> {
    let array = ops.as_ptr().cast_mut().cast();
    // SAFETY: array and time are only read, and the kernel checks that it can.
    ret("semtimedop", unsafe { libc_semtimedop(id, array, ops.len(), timeout as *const timespec) }).map(drop)
}

/// `semctl(id, num, command)`—a command without argument: `GETVAL`, `GETPID`, `GETNCNT`, `GETZCNT`, `IPC_RMID`.
pub fn semctl(id: c_int, num: c_int, command: c_int) -> Result<c_int> {
    // SAFETY: the commands ignore the argument; a null one is rejected by those that do not.
    ret("semctl", unsafe { libc::semctl(id, num, command, 0 as c_long) })
}

/// `semctl(id, num, SETVAL, value)`
pub fn sem_set_value(id: c_int, num: c_int, value: c_int) -> Result<()> {
    // SAFETY: the argument is a number.
    ret("semctl", unsafe { libc::semctl(id, num, SETVAL, c_long::from(value)) }).map(drop)
}

/// `semctl(id, num, GETALL, values)`—for a set of at most `values.len()` semaphores.
pub fn sem_values_into(id: c_int, num: c_int, values: &mut [u16]) -> Result<()> {
    // SAFETY: by contract the array has room for every semaphore of the set.
    ret("semctl", unsafe { libc::semctl(id, num, GETALL, values.as_mut_ptr()) }).map(drop)
}

/// `semctl(id, 0, GETALL)`—the values of a set of at most `count` semaphores.
pub fn sem_values(id: c_int, count: usize) -> Result<Vec<u16>> {
    let mut values = vec![0; count];
    sem_values_into(id, 0, &mut values).map(|()| values)
}

/// `semctl(id, num, SETALL, values)`—for a set of at most `values.len()` semaphores.
pub fn sem_set_values(id: c_int, num: c_int, values: &[u16]) -> Result<()> {
    // SAFETY: the kernel reads one value for every semaphore of the set and checks that it can.
    ret("semctl", unsafe { libc::semctl(id, num, SETALL, values.as_ptr()) }).map(drop)
}

/// `semctl(id, 0, IPC_STAT)`—all members of `semid_ds`.
pub fn sem_stat(id: c_int) -> Result<SemStat> {
    sem_stat_by(id, 0, libc::IPC_STAT).map(|(_, stat)| stat)
}

/// `semctl(id or index, num, command)` for `IPC_STAT`, `SEM_STAT`, `SEM_STAT_ANY`; the value returned and the members.
pub fn sem_stat_by(id: c_int, num: c_int, command: c_int) -> Result<(c_int, SemStat)> {
    // SAFETY: semid_ds is plain numbers, for which zero is a value.
    let mut ds: libc::semid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: the buffer is a semid_ds, as these commands expect.
    let value = ret("semctl", unsafe { libc::semctl(id, num, command, &raw mut ds) })?;
    Ok((value, SemStat::from(&ds)))
}

/// `semctl(index, 0, SEM_STAT_ANY)`—the system call itself.
pub fn sem_stat_any_raw(index: c_int) -> Result<(c_int, SemStat)> {
    // SAFETY: semid_ds is plain numbers, for which zero is a value.
    let mut ds: libc::semid_ds = unsafe { std::mem::zeroed() };
    let args = [index.into(), 0, SEM_STAT_ANY.into(), (&raw mut ds) as c_long];
    // SAFETY: the buffer is a semid_ds, whose layout is the kernel's on 64-bit architectures.
    let value = unsafe { raw::call("semctl", libc::SYS_semctl, &args) }?;
    Ok((c_int::try_from(value).unwrap_or(-1), SemStat::from(&ds)))
}

/// `semctl(id, 0, IPC_SET)`—sets owner, group and the low nine mode bits.
pub fn sem_set(id: c_int, uid: u32, gid: u32, mode: u16) -> Result<()> {
    // SAFETY: semid_ds is plain numbers, for which zero is a value.
    let mut ds: libc::semid_ds = unsafe { std::mem::zeroed() };
    ds.sem_perm.uid = uid;
    ds.sem_perm.gid = gid;
    ds.sem_perm.mode = mode;
    // SAFETY: the buffer is a semid_ds, which the kernel only reads.
    ret("semctl", unsafe { libc::semctl(id, 0, libc::IPC_SET, &raw mut ds) }).map(drop)
}

/// `semctl(id, 0, IPC_SET)` with every other member of the buffer set to 1, to show that they are ignored.
pub fn sem_set_all_ones(id: c_int, uid: u32, gid: u32, mode: u16) -> Result<()> {
    // SAFETY: semid_ds is plain numbers, for which zero is a value.
    let mut ds: libc::semid_ds = unsafe { std::mem::zeroed() };
    let perm = &mut ds.sem_perm;
    (perm.uid, perm.gid, perm.mode) = (uid, gid, mode);
    (perm.cuid, perm.cgid, perm.__key, perm.__seq) = (1, 1, 1, 1);
    (ds.sem_otime, ds.sem_ctime, ds.sem_nsems) = (1, 1, 1);
    // SAFETY: the buffer is a semid_ds, which the kernel only reads.
    ret("semctl", unsafe { libc::semctl(id, 0, libc::IPC_SET, &raw mut ds) }).map(drop)
}

/// `semctl(id, 0, IPC_RMID)`—removes the set.
pub fn sem_remove(id: c_int) -> Result<()> {
    semctl(id, 0, libc::IPC_RMID).map(drop)
}

/// `semctl(0, 0, command)` for `IPC_INFO` and `SEM_INFO`; the value returned (highest index in use) and the members.
pub fn sem_info(command: c_int) -> Result<(c_int, SemInfo)> {
    let mut info = SemInfo::default();
    // SAFETY: for these commands the kernel writes a struct seminfo, whose layout SemInfo has.
    let value = unsafe { libc::semctl(0, 0, command, &raw mut info) };
    ret("semctl", value).map(|highest| (highest, info))
}
