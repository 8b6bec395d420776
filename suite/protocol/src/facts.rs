//! The fingerprint of a place: what the agent finds there.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything an agent measures before it runs a probe. Sizes are in bytes unless the name says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Facts {
    /// Version of the agent's program.
    pub program: String,
    /// The kernel.
    pub kernel: Kernel,
    /// The C library the agent is linked with.
    pub libc: String,
    /// Size of a base page.
    pub page_size: u64,
    /// Online processors.
    pub cpus: usize,
    /// NUMA nodes with memory.
    pub nodes: usize,
    /// Memory of the machine.
    pub memory: u64,
    /// Swap space.
    pub swap: u64,
    /// Who the agent is.
    pub user: User,
    /// `Seccomp` of /proc/self/status: 0 none, 1 strict, 2 filter.
    pub seccomp_mode: u32,
    /// `NoNewPrivs` of /proc/self/status.
    pub no_new_privs: bool,
    /// Active security modules, from securityfs; empty where it cannot be read.
    pub lsms: Vec<String>,
    /// The agent's own label, where a module gives one.
    pub label: String,
    /// Inode numbers of the agent's namespaces by kind.
    pub namespaces: BTreeMap<String, u64>,
    /// Calls that are refused whatever their arguments, with the errno's name, or `SIGSYS`.
    pub refused_calls: BTreeMap<String, String>,
    /// Kinds of namespace that cannot be created, with the errno's name.
    pub refused_namespaces: BTreeMap<String, String>,
    /// What a probe finds in the cell's own namespaces.
    pub cell: Ground,
    /// What a probe finds in fresh namespaces; `None` where they cannot be made, for the reason in `fresh_refused`.
    pub fresh: Option<Ground>,
    /// Why fresh namespaces cannot be made.
    pub fresh_refused: String,
    /// Whether other programs may live in the agent's IPC namespace.
    pub shared_ipc: bool,
    /// Whether the root file system is mounted read-only.
    pub root_read_only: bool,
    /// System V and POSIX queue limits, and other sysctls by their path below /proc/sys.
    pub sysctls: BTreeMap<String, String>,
    /// Paths that probes need and that cannot be read, with the errno's name.
    pub missing_paths: BTreeMap<String, String>,
    /// Huge page pools.
    pub hugepages: Vec<HugePool>,
    /// Transparent huge pages of shared memory: the `shmem_enabled` setting in effect.
    pub shmem_enabled: String,
    /// Resource limits: soft and hard; `unlimited` is the largest number.
    pub rlimits: BTreeMap<String, (u64, u64)>,
    /// Limits of the agent's cgroup, where they can be read.
    pub cgroup: BTreeMap<String, String>,
    /// `kernel.yama.ptrace_scope`, where there is Yama.
    pub yama: Option<i32>,
    /// What is there before the first probe.
    pub inventory: Inventory,
}

/// The running kernel, uname(2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Kernel {
    /// `sysname`
    pub name: String,
    /// `release`
    pub release: String,
    /// `version`
    pub version: String,
    /// `machine`
    pub machine: String,
    /// `linux`, or the kernel that answers in its place: `gvisor`.
    pub implementation: String,
}

/// Identity and capabilities of the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct User {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Lines of /proc/self/uid_map: inside, outside, count.
    pub uid_map: Vec<(u32, u32, u32)>,
    /// Lines of /proc/self/gid_map.
    pub gid_map: Vec<(u32, u32, u32)>,
    /// Whether this is the initial user namespace, as far as the map tells.
    pub initial: bool,
    /// Effective capabilities.
    pub effective: Vec<String>,
    /// Bounding set.
    pub bounding: Vec<String>,
}

/// What a probe can rely on in one set of namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Ground {
    /// Effective capabilities there.
    pub effective: Vec<String>,
    /// Whether users 1 and 65534 can be assumed; otherwise why not.
    pub other_users: Option<String>,
    /// /dev/shm there.
    pub dev_shm: DevShm,
    /// Why there is no message queue file system on /dev/mqueue; `None` where there is.
    pub mqueue: Option<String>,
    /// Sysctls that probes need and that cannot be written, with the errno's name.
    pub read_only_sysctls: BTreeMap<String, String>,
}

/// The /dev/shm file system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DevShm {
    /// Why no file can be created there; `None` where it can.
    pub refused: Option<String>,
    /// File system type, `tmpfs` where all is well.
    pub fs_type: String,
    /// Mount options that matter: `ro`, `nosuid`, `nodev`, `noexec`.
    pub options: Vec<String>,
    /// Permission bits of the directory with the sticky bit, in octal.
    pub mode: String,
    /// Total size.
    pub size: u64,
    /// Free space.
    pub free: u64,
    /// Total inodes, 0 for no limit.
    pub inodes: u64,
}

/// A pool of huge pages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HugePool {
    /// Size of a page in KiB.
    pub kib: u64,
    /// Pages in the pool.
    pub total: u64,
    /// Pages not in use.
    pub free: u64,
    /// Pages promised to mappings and not yet touched.
    pub reserved: u64,
    /// Pages above the pool's size.
    pub surplus: u64,
}

/// Objects that outlive a process. An entry names its object as a person would look it up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Inventory {
    /// System V segments: identifier and key.
    pub shm: Vec<(i32, i32)>,
    /// System V semaphore sets: identifier and key.
    pub sem: Vec<(i32, i32)>,
    /// System V queues: identifier and key.
    pub msg: Vec<(i32, i32)>,
    /// Names in /dev/shm.
    pub dev_shm: Vec<String>,
    /// Names in /dev/mqueue.
    pub mqueue: Vec<String>,
}

impl Inventory {
    /// What is here and was not in `before`; of objects that others may have made, only those of the run: keys with
    /// its tag, names with its id.
    pub fn since(&self, before: &Self, run: &str, tag: u32, shared: bool) -> Vec<String> {
        let ours = |key: i32| !shared || shmcheck_probe::key::has_tag(key, tag);
        let mark = format!("{}{run}.", crate::NAME_PREFIX);
        let mut left = Vec::new();
        for (kind, now, then) in
            [("shm", &self.shm, &before.shm), ("sem", &self.sem, &before.sem), ("msg", &self.msg, &before.msg)]
        {
            for (id, key) in now.iter().filter(|entry| !then.contains(entry) && ours(entry.1)) {
                left.push(format!("System V {kind} id {id} key {key:#x}"));
            }
        }
        for (place, now, then) in
            [("/dev/shm", &self.dev_shm, &before.dev_shm), ("/dev/mqueue", &self.mqueue, &before.mqueue)]
        {
            for name in now.iter().filter(|name| !then.contains(name) && (!shared || name.contains(&mark))) {
                left.push(format!("{place}/{name}"));
            }
        }
        left
    }
}
