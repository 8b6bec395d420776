//! What a probe needs of the place it runs in, as data.
//!
//! Needs are evaluated against the agent's facts before the probe's process starts, so that `list`, `run` and
//! `cargo test` agree. They name capabilities of the system (does the call, the flag, the file exist?), never
//! versions.

use crate::Sys;
use caps::Capability;

/// One need of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The kernel has the call and no filter refuses it.
    Call(Sys),
    /// The capability is effective over the namespaces the probe runs in.
    Cap(Capability),
    /// The capability is effective in the initial user namespace: resource limits and global sysctls ask for that.
    InitCap(Capability),
    /// The probe may act as other users: CAP_SETUID, CAP_SETGID and uids 1 and 65534 mapped.
    OtherUsers,
    /// No other program lives in the IPC namespace: the probe's own or a container's private one.
    OwnIpc,
    /// A further namespace of this kind can be created.
    New(Namespace),
    /// /dev/shm is a directory where this user can create files.
    DevShm,
    /// The message queue file system can be mounted or is mounted on /dev/mqueue.
    Mqueue,
    /// The path exists and can be read.
    Path(&'static str),
    /// The sysctl below /proc/sys can be written where the probe runs.
    Sysctl(&'static str),
    /// That many free huge pages of that size in KiB.
    HugePages {
        /// Size of a page in KiB.
        kib: u64,
        /// Number of free pages.
        count: u64,
    },
    /// At least that many NUMA nodes with memory.
    Nodes(usize),
    /// At least that many bytes may be locked (RLIMIT_MEMLOCK), or CAP_IPC_LOCK.
    Memlock(u64),
    /// At least that many online processors.
    Cpus(usize),
    /// Swap space is configured.
    Swap,
    /// The security module of that name is active.
    Lsm(&'static str),
    /// One of [`crate::procfs::SCRATCH_PLACES`] is a directory where this user can create files.
    Scratch,
}

/// A kind of namespace that a probe may create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// System V objects and POSIX queues.
    Ipc,
    /// Mounts.
    Mount,
    /// Process ids.
    Pid,
    /// User ids and capabilities.
    User,
    /// Network and abstract sockets.
    Net,
}

impl Namespace {
    /// The name below /proc/PID/ns.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipc => "ipc",
            Self::Mount => "mnt",
            Self::Pid => "pid",
            Self::User => "user",
            Self::Net => "net",
        }
    }

    /// The flag of clone(2) and unshare(2).
    pub const fn flag(self) -> libc::c_int {
        match self {
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Mount => libc::CLONE_NEWNS,
            Self::Pid => libc::CLONE_NEWPID,
            Self::User => libc::CLONE_NEWUSER,
            Self::Net => libc::CLONE_NEWNET,
        }
    }
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Call(call) => write!(f, "call:{}", call.name()),
            Self::Cap(cap) => write!(f, "cap:{cap}"),
            Self::InitCap(cap) => write!(f, "init-cap:{cap}"),
            Self::OtherUsers => write!(f, "other-users"),
            Self::OwnIpc => write!(f, "own-ipc"),
            Self::New(kind) => write!(f, "new:{}", kind.name()),
            Self::DevShm => write!(f, "dev-shm"),
            Self::Mqueue => write!(f, "mqueue"),
            Self::Path(path) => write!(f, "path:{path}"),
            Self::Sysctl(name) => write!(f, "sysctl:{name}"),
            Self::HugePages { kib, count } => write!(f, "hugepages:{count}x{kib}kB"),
            Self::Nodes(n) => write!(f, "nodes:{n}"),
            Self::Memlock(bytes) => write!(f, "memlock:{bytes}"),
            Self::Cpus(n) => write!(f, "cpus:{n}"),
            Self::Swap => write!(f, "swap"),
            Self::Lsm(name) => write!(f, "lsm:{name}"),
            Self::Scratch => write!(f, "scratch"),
        }
    }
}
