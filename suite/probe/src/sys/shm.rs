//! System V shared memory: shmget(2), shmop(2), shmctl(2).

use super::{Result, ret};
use libc::{c_int, c_void};

pub use libc::{IPC_CREAT, IPC_EXCL, IPC_INFO, IPC_PRIVATE, IPC_RMID, IPC_SET, IPC_STAT};
pub use libc::{SHM_EXEC, SHM_HUGETLB, SHM_LOCK, SHM_NORESERVE, SHM_RDONLY, SHM_REMAP, SHM_RND, SHM_UNLOCK};

/// `shmctl` command: usage of the namespace, shmctl(2).
pub const SHM_INFO: c_int = 14;
/// `shmctl` command: a segment by its index, shmctl(2).
pub const SHM_STAT: c_int = 13;
/// `shmctl` command: as `SHM_STAT` without the permission check, Linux 4.17, shmctl(2).
pub const SHM_STAT_ANY: c_int = 15;
/// Bit of `shm_perm.mode`: marked for destruction, shmctl(2).
pub const SHM_DEST: u32 = 0o1000;
/// Bit of `shm_perm.mode`: locked into memory, shmctl(2).
pub const SHM_LOCKED: u32 = 0o2000;
/// The address granularity of `SHM_RND`; the page size on every architecture this suite runs on, shmop(2).
pub fn shmlba() -> usize {
    super::page_size()
}

/// What `IPC_INFO` fills: the limits of the namespace. `struct shminfo`, shmctl(2).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShmLimits {
    /// Largest size of a segment in bytes.
    pub shmmax: u64,
    /// Smallest size of a segment in bytes; always 1.
    pub shmmin: u64,
    /// Number of segments in the namespace.
    pub shmmni: u64,
    /// Segments per process; unused by the kernel, equal to `shmmni`.
    pub shmseg: u64,
    /// Pages in all segments together.
    pub shmall: u64,
    unused: [u64; 4],
}

/// What `SHM_INFO` fills: usage of the namespace. `struct shm_info`, shmctl(2).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShmUsage {
    /// Number of segments that exist.
    pub used_ids: c_int,
    /// Pages of all segments together.
    pub shm_tot: u64,
    /// Resident pages.
    pub shm_rss: u64,
    /// Swapped pages.
    pub shm_swp: u64,
    /// Unused since Linux 2.4.
    pub swap_attempts: u64,
    /// Unused since Linux 2.4.
    pub swap_successes: u64,
}

const _: () = assert!(size_of::<ShmLimits>() == 72 && size_of::<ShmUsage>() == 48);

/// What `IPC_STAT` fills, with the members that the C library hides under reserved names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShmStat {
    /// The key given to shmget.
    pub key: i32,
    /// Effective user id of the owner.
    pub uid: u32,
    /// Effective group id of the owner.
    pub gid: u32,
    /// Effective user id of the creator.
    pub cuid: u32,
    /// Effective group id of the creator.
    pub cgid: u32,
    /// Permission bits with `SHM_DEST` and `SHM_LOCKED`.
    pub mode: u32,
    /// Sequence number.
    pub seq: u16,
    /// Size in bytes, as asked for.
    pub segsz: usize,
    /// Time of the last attach in seconds since the epoch, 0 for never.
    pub atime: i64,
    /// Time of the last detach in seconds since the epoch, 0 for never.
    pub dtime: i64,
    /// Time of creation or of the last `IPC_SET`.
    pub ctime: i64,
    /// Process that created the segment.
    pub cpid: i32,
    /// Process of the last shmat or shmdt.
    pub lpid: i32,
    /// Number of attaches.
    pub nattch: u64,
}

impl From<&libc::shmid_ds> for ShmStat {
    fn from(ds: &libc::shmid_ds) -> Self {
        let perm = &ds.shm_perm;
        Self {
            key: perm.__key,
            uid: perm.uid,
            gid: perm.gid,
            cuid: perm.cuid,
            cgid: perm.cgid,
            mode: u32::from(perm.mode),
            seq: perm.__seq,
            segsz: ds.shm_segsz,
            atime: ds.shm_atime,
            dtime: ds.shm_dtime,
            ctime: ds.shm_ctime,
            cpid: ds.shm_cpid,
            lpid: ds.shm_lpid,
            nattch: ds.shm_nattch,
        }
    }
}

/// `shmget(key, size, flags)`—finds or creates a segment; its identifier.
pub fn shmget(key: i32, size: usize, flags: c_int) -> Result<c_int> {
    // SAFETY: no memory is passed.
    ret("shmget", unsafe { libc::shmget(key, size, flags) })
}

/// `shmat(id, NULL, flags)`—attaches where the kernel chooses; the address.
pub fn shmat(id: c_int, flags: c_int) -> Result<usize> {
    shmat_addr(id, 0, flags)
}

/// `shmat(id, address, flags)`—attaches at an address; the address it chose.
///
/// With `SHM_REMAP` the caller answers for what was mapped there: only for ranges that a [`crate::Map`] owns.
pub fn shmat_addr(id: c_int, address: usize, flags: c_int) -> Result<usize> {
    // SAFETY: without SHM_REMAP an occupied address is refused; with it the caller owns the range.
    let at = unsafe { libc::shmat(id, address as *const c_void, flags) };
    ret("shmat", at as isize as i64)?;
    Ok(at as usize)
}

/// `shmdt(address)`—detaches; for addresses at which no [`crate::Map`] is alive.
pub fn shmdt(address: usize) -> Result<()> {
    // SAFETY: by contract nothing that Rust uses lies in the segment attached there.
    ret("shmdt", unsafe { libc::shmdt(address as *const c_void) }).map(drop)
}

/// `shmctl(id, IPC_STAT)`—all members of `shmid_ds`.
pub fn shm_stat(id: c_int) -> Result<ShmStat> {
    shm_stat_by(id, IPC_STAT).map(|(_, stat)| stat)
}

/// `shmctl(id or index, command)` for `IPC_STAT`, `SHM_STAT`, `SHM_STAT_ANY`; the value returned and the members.
pub fn shm_stat_by(id: c_int, command: c_int) -> Result<(c_int, ShmStat)> {
    // SAFETY: shmid_ds is plain numbers, for which zero is a value.
    let mut ds: libc::shmid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: the buffer is a shmid_ds, as these commands expect.
    let value = ret("shmctl", unsafe { libc::shmctl(id, command, &raw mut ds) })?;
    Ok((value, ShmStat::from(&ds)))
}

/// `shmctl(id, IPC_SET)`—sets owner, group and the low nine mode bits.
pub fn shm_set(id: c_int, uid: u32, gid: u32, mode: u32) -> Result<()> {
    // SAFETY: shmid_ds is plain numbers, for which zero is a value.
    let mut ds: libc::shmid_ds = unsafe { std::mem::zeroed() };
    ds.shm_perm.uid = uid;
    ds.shm_perm.gid = gid;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "mode_t of ipc_perm is 16 bits wide in libc; higher bits have no meaning"
    )]
    {
        ds.shm_perm.mode = mode as _;
    }
    // SAFETY: the buffer is a shmid_ds, which the kernel only reads.
    ret("shmctl", unsafe { libc::shmctl(id, IPC_SET, &raw mut ds) }).map(drop)
}

/// `shmctl(id, IPC_SET)` with every other member of the buffer filled with ones, to show that they are ignored.
pub fn shm_set_all_ones(id: c_int, uid: u32, gid: u32, mode: u16) -> Result<()> {
    // SAFETY: shmid_ds is plain numbers, for which every bit pattern is a value.
    let mut ds: libc::shmid_ds = unsafe { std::mem::zeroed() };
    ds.shm_perm.uid = uid;
    ds.shm_perm.gid = gid;
    ds.shm_perm.mode = mode;
    ds.shm_perm.cuid = 1;
    ds.shm_perm.cgid = 1;
    ds.shm_perm.__key = 1;
    ds.shm_perm.__seq = 1;
    ds.shm_segsz = 1;
    ds.shm_atime = 1;
    ds.shm_dtime = 1;
    ds.shm_ctime = 1;
    ds.shm_cpid = 1;
    ds.shm_lpid = 1;
    ds.shm_nattch = 1;
    // SAFETY: the buffer is a shmid_ds, which the kernel only reads.
    ret("shmctl", unsafe { libc::shmctl(id, IPC_SET, &raw mut ds) }).map(drop)
}

/// `shmctl(id, command, NULL)`—a command without buffer: `IPC_RMID`, `SHM_LOCK`, `SHM_UNLOCK`, or one to be refused.
pub fn shmctl(id: c_int, command: c_int) -> Result<c_int> {
    // SAFETY: no memory is passed.
    ret("shmctl", unsafe { libc::shmctl(id, command, std::ptr::null_mut()) })
}

/// `shmctl(id, IPC_RMID)`—marks the segment for destruction.
pub fn shm_remove(id: c_int) -> Result<()> {
    shmctl(id, IPC_RMID).map(drop)
}

/// `shmctl(0, IPC_INFO)`—the value returned (highest index in use) and the limits.
pub fn shm_limits() -> Result<(c_int, ShmLimits)> {
    let mut limits = ShmLimits::default();
    // SAFETY: for IPC_INFO the kernel writes a struct shminfo, whose layout ShmLimits has.
    let value = unsafe { libc::shmctl(0, IPC_INFO, (&raw mut limits).cast()) };
    ret("shmctl", value).map(|highest| (highest, limits))
}

/// `shmctl(0, SHM_INFO)`—the value returned (highest index in use) and the usage.
pub fn shm_usage() -> Result<(c_int, ShmUsage)> {
    let mut usage = ShmUsage::default();
    // SAFETY: for SHM_INFO the kernel writes a struct shm_info, whose layout ShmUsage has.
    let value = unsafe { libc::shmctl(0, SHM_INFO, (&raw mut usage).cast()) };
    ret("shmctl", value).map(|highest| (highest, usage))
}

/// The position of the page size's logarithm in shmget's flags, shmget(2).
pub const SHM_HUGE_SHIFT: c_int = 26;

/// The bits of shmget's flags that ask for huge pages of 2^`log2` bytes, shmget(2).
pub const fn shm_huge(log2: c_int) -> c_int {
    log2 << SHM_HUGE_SHIFT
}

/// What the system call fills for `IPC_STAT`: `struct shmid64_ds`, include/uapi/asm-generic/shmbuf.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct KernelStat {
    key: i32,
    uid: u32,
    gid: u32,
    cuid: u32,
    cgid: u32,
    mode: u32,
    seq: u16,
    pad: [u16; 3],
    reserved: [u64; 2],
    segsz: usize,
    atime: i64,
    dtime: i64,
    ctime: i64,
    cpid: i32,
    lpid: i32,
    nattch: u64,
    unused: [u64; 2],
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<KernelStat>() == 112 && std::mem::offset_of!(KernelStat, segsz) == 48);

/// `shmctl(id or index, command)` past the C library, for the commands of [`shm_stat_by`].
pub fn shm_stat_raw(id: c_int, command: c_int) -> Result<(c_int, ShmStat)> {
    let mut ds = KernelStat::default();
    let buffer = (&raw mut ds) as libc::c_long;
    // SAFETY: the buffer has the layout of the kernel's shmid64_ds, as these commands expect.
    let value = unsafe { super::raw::call("shmctl", libc::SYS_shmctl, &[id.into(), command.into(), buffer]) }?;
    let KernelStat { key, uid, gid, cuid, cgid, mode, seq, segsz, atime, dtime, ctime, cpid, lpid, nattch, .. } = ds;
    let stat = ShmStat { key, uid, gid, cuid, cgid, mode, seq, segsz, atime, dtime, ctime, cpid, lpid, nattch };
    Ok((c_int::try_from(value).unwrap_or(-1), stat))
}

unsafe extern "C" {
    #[link_name = "ftok"]
    fn c_ftok(path: *const libc::c_char, project: c_int) -> libc::key_t;
}

/// `ftok(path, project)`—a key from a file and a number.
pub fn ftok(path: &str, project: c_int) -> Result<i32> {
    let path = super::cstr(path);
    // SAFETY: the path is a C string that outlives the call.
    ret("ftok", unsafe { c_ftok(path.as_ptr(), project) })
}

/// The machine code of a function that returns at once; empty where this suite does not know it.
pub const RETURN_CODE: &[u8] = if cfg!(target_arch = "x86_64") {
    &[0xc3]
} else if cfg!(target_arch = "aarch64") {
    &[0xc0, 0x03, 0x5f, 0xd6]
} else {
    &[]
};

/// Calls the code at `address`, which is [`RETURN_CODE`]; faults where it may not be executed.
pub fn execute(address: usize) {
    // SAFETY: a function pointer has the size of an address; what stands there is this architecture's return.
    let code = unsafe { std::mem::transmute::<usize, extern "C" fn()>(address) };
    code();
}
