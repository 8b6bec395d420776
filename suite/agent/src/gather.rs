//! The facts: what the agent finds where it runs.

use crate::fresh::{self, Way};
use crate::{Options, controls, ground, inventory};
use shmcheck_probe::{Namespace, Need, Probe, Sys, procfs, sys};
use shmcheck_protocol::facts::{Facts, Ground, HugePool, Kernel, User};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;

/// Measures everything.
pub fn facts(catalogue: &[&'static Probe], options: Options) -> Facts {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let seccomp_mode = procfs::field(&status, "Seccomp").and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let user = user();
    let (fresh, fresh_refused) = match fresh_ground(catalogue, way(&user)) {
        Ok(ground) => (Some(ground), String::new()),
        Err(reason) => (None, reason),
    };
    Facts {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: kernel(),
        libc: libc_version(),
        page_size: sys::page_size() as u64,
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        nodes: nodes(),
        memory: procfs::field(&meminfo, "MemTotal").unwrap_or(0) * 1024,
        swap: procfs::field(&meminfo, "SwapTotal").unwrap_or(0) * 1024,
        user,
        seccomp_mode,
        no_new_privs: procfs::field(&status, "NoNewPrivs") == Some(1),
        lsms: text("/sys/kernel/security/lsm").split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
        label: text("/proc/self/attr/current").trim_end_matches('\0').to_owned(),
        namespaces: namespaces(),
        refused_calls: controls::refused(Sys::ALL, seccomp_mode == 2),
        refused_namespaces: refused_namespaces(fresh.is_some()),
        cell: ground::measure(catalogue),
        fresh,
        fresh_refused,
        shared_ipc: options.shared_ipc,
        root_read_only: nix::sys::statvfs::statvfs("/")
            .is_ok_and(|stat| stat.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY)),
        sysctls: sysctls(),
        missing_paths: missing_paths(catalogue),
        hugepages: hugepages(),
        shmem_enabled: text("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
        rlimits: rlimits(),
        cgroup: cgroup(),
        yama: text("/proc/sys/kernel/yama/ptrace_scope").parse().ok(),
        inventory: inventory::take(),
    }
}

/// How this user gets fresh namespaces.
pub(crate) fn way(user: &User) -> Way {
    let admin = caps::Capability::CAP_SYS_ADMIN.to_string();
    if user.effective.contains(&admin) { Way::Privileged } else { Way::UserNamespace }
}

/// Enters fresh namespaces in a process of its own and measures there.
fn fresh_ground(catalogue: &[&'static Probe], way: Way) -> Result<Ground, String> {
    in_child(|| match fresh::enter(way) {
        Ok(()) => Ok(ground::measure(catalogue)),
        Err(e) => Err(e.to_string()),
    })
    .unwrap_or_else(Err)
}

/// Runs `body` in a forked process and hands back its value.
fn in_child<T: serde::Serialize + serde::de::DeserializeOwned>(body: impl FnOnce() -> T) -> Result<T, String> {
    let attempt = || -> Result<T, Box<dyn std::error::Error>> {
        let (reading, writing) = sys::pipe()?;
        let pid = sys::fork()?;
        if pid == 0 {
            let sent = serde_json::to_writer(fs::File::from(writing), &body());
            sys::exit_now(i32::from(sent.is_err()));
        }
        drop(writing);
        let mut bytes = Vec::new();
        fs::File::from(reading).read_to_end(&mut bytes)?;
        let (_, status) = sys::waitpid(pid, 0)?;
        if bytes.is_empty() {
            return Err(
                format!("the measuring process ended with {}", shmcheck_probe::Exit::from_status(status)).into()
            );
        }
        Ok(serde_json::from_slice(&bytes)?)
    };
    attempt().map_err(|e| e.to_string())
}

/// Tries each kind of namespace in a process of its own. `fresh` says whether probes run in fresh namespaces.
fn refused_namespaces(fresh: bool) -> BTreeMap<String, String> {
    let kinds = [Namespace::Ipc, Namespace::Mount, Namespace::Pid, Namespace::User, Namespace::Net];
    let admin = caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_ADMIN).unwrap_or(false);
    let mut refused = BTreeMap::new();
    for kind in kinds {
        // A probe that needs a further namespace makes it from inside its fresh ones: as their owner.
        let through_user = if admin || !fresh || kind == Namespace::User { 0 } else { libc::CLONE_NEWUSER };
        let errno = in_child(|| sys::unshare(kind.flag() | through_user).err().map_or(0, |e| e.errno));
        match errno {
            Ok(0) => {}
            Ok(errno) => drop(refused.insert(kind.name().to_owned(), sys::errno_name(errno).to_owned())),
            Err(message) => drop(refused.insert(kind.name().to_owned(), message)),
        }
    }
    refused
}

fn kernel() -> Kernel {
    let Ok(name) = nix::sys::utsname::uname() else { return Kernel::default() };
    let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
    Kernel {
        name: text(name.sysname()),
        release: text(name.release()),
        version: text(name.version()),
        machine: text(name.machine()),
        implementation: implementation().to_owned(),
    }
}

/// Who answers the calls. gVisor calls itself Linux 4.4.0, but its kernel log begins with its own name whoever asks;
/// Linux keeps its log from most, and has nothing of the kind at its beginning.
fn implementation() -> &'static str {
    /// `SYSLOG_ACTION_READ_ALL` of syslog(2).
    const READ_ALL: libc::c_int = 3;
    let mut log = [0_u8; 64];
    // SAFETY: the buffer has the length that is passed.
    let read = unsafe { libc::klogctl(READ_ALL, log.as_mut_ptr().cast(), log.len() as libc::c_int) };
    let log = usize::try_from(read).map_or(&[][..], |length| &log[..length.min(log.len())]);
    if String::from_utf8_lossy(log).contains("Starting gVisor") { "gvisor" } else { "linux" }
}

/// The C library and how this program is linked with it.
pub fn libc_version() -> String {
    let linkage = if cfg!(target_feature = "crt-static") { "static" } else { "dynamic" };
    // SAFETY: the function returns a constant C string.
    let version = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: the string is constant and terminated.
    let version = unsafe { std::ffi::CStr::from_ptr(version) };
    format!("glibc {} ({linkage})", version.to_string_lossy())
}

fn user() -> User {
    let uid_map = id_map("uid_map");
    User {
        uid: sys::geteuid(),
        gid: sys::getegid(),
        groups: nix::unistd::getgroups().unwrap_or_default().iter().map(|gid| gid.as_raw()).collect(),
        initial: uid_map == [(0, 0, u32::MAX)],
        uid_map,
        gid_map: id_map("gid_map"),
        effective: ground::effective(),
        bounding: ground::names(caps::CapSet::Bounding),
    }
}

/// The lines of /proc/self/uid_map or gid_map, user_namespaces(7).
pub(crate) fn id_map(file: &str) -> Vec<(u32, u32, u32)> {
    let parse = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default().lines().filter_map(parse).collect()
}

fn namespaces() -> BTreeMap<String, u64> {
    use std::os::unix::fs::MetadataExt;
    ["ipc", "mnt", "pid", "user", "net", "cgroup", "uts", "time"]
        .into_iter()
        .filter_map(|kind| Some((kind.to_owned(), fs::metadata(format!("/proc/self/ns/{kind}")).ok()?.ino())))
        .collect()
}

fn nodes() -> usize {
    // A range list such as "0-1,3"; a kernel without NUMA has no such file and one node.
    let list = text("/sys/devices/system/node/has_memory");
    let count = list.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<usize>().ok()? - first.parse::<usize>().ok()? + 1)
    });
    count.sum::<usize>().max(1)
}

fn sysctls() -> BTreeMap<String, String> {
    const NAMES: &[&str] = &[
        "kernel/shmmax",
        "kernel/shmall",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
        "kernel/sem",
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "fs/mqueue/queues_max",
        "fs/mqueue/msg_max",
        "fs/mqueue/msgsize_max",
        "fs/mqueue/msg_default",
        "fs/mqueue/msgsize_default",
        "fs/protected_regular",
        "vm/max_map_count",
        "vm/memfd_noexec",
        "vm/nr_hugepages",
        "vm/nr_overcommit_hugepages",
        "vm/hugetlb_shm_group",
        "vm/overcommit_memory",
        "vm/unprivileged_userfaultfd",
        "user/max_ipc_namespaces",
        "user/max_user_namespaces",
    ];
    NAMES.iter().filter_map(|name| Some(((*name).to_owned(), procfs::sysctl(name).ok()?))).collect()
}

fn missing_paths(catalogue: &[&'static Probe]) -> BTreeMap<String, String> {
    let mut missing = BTreeMap::new();
    if procfs::scratch_place().is_none() {
        missing.insert(Need::Scratch.to_string(), sys::errno_name(libc::EACCES).to_owned());
    }
    for need in catalogue.iter().flat_map(|probe| probe.needs) {
        let Need::Path(path) = need else { continue };
        if let Err(e) = sys::open(path, libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK, 0) {
            missing.insert((*path).to_owned(), e.name().to_owned());
        }
    }
    missing
}

fn hugepages() -> Vec<HugePool> {
    let mut pools = Vec::new();
    for entry in fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(kib) = name.strip_prefix("hugepages-").and_then(|s| s.strip_suffix("kB")?.parse().ok()) else {
            continue;
        };
        let number = |file: &str| text(&format!("{}/{file}", entry.path().display())).parse().unwrap_or(0);
        pools.push(HugePool {
            kib,
            total: number("nr_hugepages"),
            free: number("free_hugepages"),
            reserved: number("resv_hugepages"),
            surplus: number("surplus_hugepages"),
        });
    }
    pools.sort_by_key(|pool| pool.kib);
    pools
}

fn rlimits() -> BTreeMap<String, (u64, u64)> {
    [
        ("as", libc::RLIMIT_AS),
        ("fsize", libc::RLIMIT_FSIZE),
        ("memlock", libc::RLIMIT_MEMLOCK),
        ("msgqueue", libc::RLIMIT_MSGQUEUE),
        ("nofile", libc::RLIMIT_NOFILE),
        ("nproc", libc::RLIMIT_NPROC),
        ("rtprio", libc::RLIMIT_RTPRIO),
        ("core", libc::RLIMIT_CORE),
    ]
    .into_iter()
    .filter_map(|(name, resource)| Some((name.to_owned(), sys::getrlimit(resource).ok()?)))
    .collect()
}

/// The limits of version 2 below /sys/fs/cgroup, or of version 1 as the engine mounts it.
fn cgroup() -> BTreeMap<String, String> {
    const FILES: &[(&str, &str)] = &[
        ("memory.max", "/sys/fs/cgroup/memory.max"),
        ("memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        ("pids.max", "/sys/fs/cgroup/pids.max"),
        ("pids.max", "/sys/fs/cgroup/pids/pids.max"),
        ("cpuset.mems", "/sys/fs/cgroup/cpuset.mems.effective"),
        ("cpuset.mems", "/sys/fs/cgroup/cpuset/cpuset.effective_mems"),
    ];
    let read =
        |(name, path): &(&str, &str)| Some(((*name).to_owned(), fs::read_to_string(path).ok()?.trim().to_owned()));
    FILES.iter().filter_map(read).collect()
}

/// A small file without the white space around it; empty where it cannot be read.
fn text(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}
