//! What a probe can rely on in one set of namespaces, measured from inside.

use shmcheck_probe::{Need, Probe, procfs, sys};
use shmcheck_protocol::facts::{DevShm, Ground};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs;

/// Measures the namespaces this process is in.
pub(crate) fn measure(catalogue: &[&'static Probe]) -> Ground {
    Ground {
        effective: effective(),
        other_users: other_users(),
        dev_shm: dev_shm(),
        mqueue: mqueue(),
        read_only_sysctls: read_only_sysctls(catalogue),
    }
}

/// Names of the effective capabilities of this process.
pub(crate) fn effective() -> Vec<String> {
    names(caps::CapSet::Effective)
}

/// Names of the capabilities in a set of this process, sorted.
pub(crate) fn names(set: caps::CapSet) -> Vec<String> {
    let mut names: Vec<String> = caps::read(None, set).unwrap_or_default().iter().map(ToString::to_string).collect();
    names.sort();
    names
}

/// Why this process cannot act as users 1 and 65534, if it cannot.
fn other_users() -> Option<String> {
    for cap in [caps::Capability::CAP_SETUID, caps::Capability::CAP_SETGID] {
        if !caps::has_cap(None, caps::CapSet::Effective, cap).unwrap_or(false) {
            return Some(format!("{cap} is not in the effective set"));
        }
    }
    let unmapped = |file: &str, id: u32| {
        let map = crate::gather::id_map(file);
        !map.iter().any(|(inside, _, count)| *inside <= id && u64::from(id) < u64::from(*inside) + u64::from(*count))
    };
    for (file, what) in [("uid_map", "user"), ("gid_map", "group")] {
        for id in [1, 65534] {
            if unmapped(file, id) {
                return Some(format!("{what} {id} is not mapped in this user namespace"));
            }
        }
    }
    match fs::read_to_string("/proc/self/setgroups") {
        Ok(text) if text.trim() == "deny" => Some("setgroups is denied in this user namespace".to_owned()),
        _ => None,
    }
}

fn dev_shm() -> DevShm {
    let mut found = DevShm::default();
    let path = c"/dev/shm";
    match fs::metadata("/dev/shm") {
        Ok(meta) => {
            use std::os::unix::fs::PermissionsExt;
            found.mode = format!("{:04o}", meta.permissions().mode() & 0o7777);
        }
        Err(e) => {
            found.refused = Some(format!("/dev/shm: {}", sys::errno_name(e.raw_os_error().unwrap_or(0))));
            return found;
        }
    }
    if let Some(stat) = statfs(path) {
        found.fs_type = match stat.f_type {
            libc::TMPFS_MAGIC => "tmpfs".to_owned(),
            other => format!("{other:#x}"),
        };
        #[expect(clippy::cast_sign_loss, reason = "a block size is positive")]
        let block = stat.f_bsize as u64;
        (found.size, found.free, found.inodes) = (stat.f_blocks * block, stat.f_bfree * block, stat.f_files);
    }
    if let Ok(stat) = nix::sys::statvfs::statvfs("/dev/shm") {
        use nix::sys::statvfs::FsFlags;
        let options = [
            (FsFlags::ST_RDONLY, "ro"),
            (FsFlags::ST_NOSUID, "nosuid"),
            (FsFlags::ST_NODEV, "nodev"),
            (FsFlags::ST_NOEXEC, "noexec"),
        ];
        let set = options.into_iter().filter(|(flag, _)| stat.flags().contains(*flag));
        found.options = set.map(|(_, name)| name.to_owned()).collect();
    }
    // Whether a file can be created is tried, not derived from mode and owner; it has no name.
    let created = sys::open("/dev/shm", libc::O_TMPFILE | libc::O_RDWR | libc::O_CLOEXEC, 0o600);
    found.refused = match created {
        Ok(_) => None,
        Err(e) if e.errno == libc::EOPNOTSUPP || e.errno == libc::EISDIR => None,
        Err(e) => Some(format!("creating a file in /dev/shm → {}", e.name())),
    };
    found
}

fn statfs(path: &CStr) -> Option<libc::statfs> {
    // SAFETY: statfs is plain numbers, for which zero is a value.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a C string and the buffer a struct statfs.
    let value = unsafe { libc::statfs(path.as_ptr(), &raw mut stat) };
    (value == 0).then_some(stat)
}

fn mqueue() -> Option<String> {
    match procfs::mqueue_place() {
        Some(_) => None,
        None => Some("no message queue file system on /dev/mqueue".to_owned()),
    }
}

fn read_only_sysctls(catalogue: &[&'static Probe]) -> BTreeMap<String, String> {
    let mut refused = BTreeMap::new();
    for probe in catalogue {
        for need in probe.needs {
            let Need::Sysctl(name) = need else { continue };
            // Opening for writing is the check that a write makes; nothing is written.
            if let Err(e) = sys::open(&format!("/proc/sys/{name}"), libc::O_WRONLY | libc::O_CLOEXEC, 0) {
                refused.insert((*name).to_owned(), e.name().to_owned());
            }
        }
    }
    refused
}
