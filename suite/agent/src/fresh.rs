//! Fresh namespaces for a probe: IPC and mounts with a /dev/shm and /dev/mqueue of their own.

use shmcheck_probe::{procfs, sys};
use std::ffi::CStr;
use std::path::Path;

/// How fresh namespaces can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// With CAP_SYS_ADMIN.
    Privileged,
    /// Inside a new user namespace, where this user is 0.
    UserNamespace,
}

/// Moves this process into fresh namespaces.
///
/// Where /dev/shm is no directory, it stays as it is; where /dev/mqueue is none, the queues are mounted on
/// /dev/shm/mqueue.
pub fn enter(way: Way) -> sys::Result<()> {
    if way == Way::UserNamespace {
        enter_user_namespace()?;
    }
    sys::unshare(libc::CLONE_NEWIPC | libc::CLONE_NEWNS)?;
    mount(c"none", c"/", c"", libc::MS_REC | libc::MS_PRIVATE, c"")?;
    if Path::new("/dev/shm").is_dir() {
        let flags = libc::MS_NOSUID | libc::MS_NODEV;
        mount(c"shmcheck", c"/dev/shm", c"tmpfs", flags, c"mode=1777,size=256m")?;
    }
    let queues = if Path::new(procfs::MQUEUE_PLACES[0]).is_dir() {
        c"/dev/mqueue"
    } else {
        // The host's /dev has no such folder and must not get one; the file system just mounted may.
        let _ = std::fs::create_dir(procfs::MQUEUE_PLACES[1]);
        c"/dev/shm/mqueue"
    };
    // Some kernels and emulations have no queues; the facts say so and probes of queues are skipped.
    let _ = mount(c"shmcheck", queues, c"mqueue", libc::MS_NOSUID | libc::MS_NODEV, c"");
    Ok(())
}

/// A user namespace in which this process's user and group are 0.
fn enter_user_namespace() -> sys::Result<()> {
    let (uid, gid) = (sys::geteuid(), sys::getegid());
    sys::unshare(libc::CLONE_NEWUSER)?;
    let write = |path: &'static str, text: String| {
        std::fs::write(path, text)
            .map_err(|e| sys::Error { call: "write to uid_map", errno: e.raw_os_error().unwrap_or(0) })
    };
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// `mount(source, target, type, flags, data)`
pub fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: libc::c_ulong, data: &CStr) -> sys::Result<()> {
    // SAFETY: all strings are C strings that outlive the call.
    let value = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) };
    sys::ret("mount", value).map(drop)
}
