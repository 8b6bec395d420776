//! unshare(2) and setns(2) refused: every error that the pages list and that can be provoked.

use caps::Capability;
use libc::{CLONE_NEWIPC, CLONE_NEWNS, CLONE_NEWUSER, EBADF, EINVAL, ENOSPC, EPERM, ESRCH, O_CLOEXEC, O_RDONLY};
use shmcheck_probe::catalogue::Excluded;
use shmcheck_probe::sys;
use shmcheck_probe::{Context, Exit, Isolate, Namespace, Need, Outcome, Probe, Stop, Sys, man};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &UNSHARE_EINVAL,
    &UNSHARE_EPERM,
    &UNSHARE_ENOSPC,
    &SETNS_EBADF,
    &SETNS_EINVAL,
    &SETNS_EINVAL_FILE,
    &SETNS_EPERM,
    &SETNS_ESRCH,
];

/// What no probe provokes.
pub(super) const EXCLUDED: &[Excluded] = &[
    Excluded {
        page: "unshare(2)",
        errno: "ENOMEM",
        reason: "an allocation of the kernel that fails; it needs fault injection or a machine out of memory",
    },
    Excluded {
        page: "unshare(2)",
        errno: "EUSERS",
        reason: "the errno of Linux 3.11 to 4.8 for what is ENOSPC since; the page itself says so",
    },
    Excluded {
        page: "setns(2)",
        errno: "ENOMEM",
        reason: "an allocation of the kernel that fails; it needs fault injection or a machine out of memory",
    },
];

/// The inode of the caller's IPC namespace.
fn namespace() -> Result<u64, Stop> {
    Ok(std::fs::metadata("/proc/self/ns/ipc")?.ino())
}

fn own_file() -> Result<OwnedFd, Stop> {
    Ok(sys::open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC, 0)?)
}

/// Runs `call` in a peer, where it is to be refused and to leave the IPC namespace as it is.
fn refused(cx: &mut Context, errno: i32, call: impl FnOnce() -> sys::Result<()>) -> Outcome {
    cx.elsewhere(|cx| {
        let before = namespace()?;
        cx.expect_errno(errno, call)?;
        cx.expect_eq("inode of /proc/self/ns/ipc", namespace()?, before)
    })
}

const UNSHARE_EINVAL: Probe = Probe {
    title: "unshare with a flag that is none fails with EINVAL",
    why: "runtimes ask for new kinds of namespace and fall back on EINVAL; success would claim an isolation that is not there",
    spec: &[man("unshare(2)", "EINVAL")],
    calls: &[Sys::Unshare],
    isolate: Isolate::Cell,
    // The exit signal of clone(2) has no meaning here.
    ..Probe::new("namespace.unshare.unknown-flag-einval", |cx| refused(cx, EINVAL, || sys::unshare(1)))
};

const UNSHARE_EPERM: Probe = Probe {
    title: "unshare of IPC without CAP_SYS_ADMIN fails with EPERM",
    why: "a sandbox that an unprivileged service could build by itself would hide its objects from the administrator",
    spec: &[man("unshare(2)", "EPERM")],
    calls: &[Sys::Unshare],
    isolate: Isolate::Cell,
    ..Probe::new("namespace.unshare.no-capability-eperm", |cx| {
        cx.without_caps(&[Capability::CAP_SYS_ADMIN], |cx| refused(cx, EPERM, || sys::unshare(CLONE_NEWIPC)))
    })
};

const LIMIT: &str = "/proc/sys/user/max_ipc_namespaces";

const UNSHARE_ENOSPC: Probe = Probe {
    title: "an IPC namespace above user.max_ipc_namespaces fails with ENOSPC",
    why: "a host full of containers refuses the next one: \"no space left on device\" that no disk explains",
    fix: "raise sysctl user.max_ipc_namespaces",
    spec: &[man("unshare(2)", "ENOSPC"), man("namespaces(7)", "The /proc/sys/user directory")],
    calls: &[Sys::Unshare],
    needs: &[Need::New(Namespace::User), Need::New(Namespace::Ipc)],
    ..Probe::new("namespace.unshare.limit-enospc", |cx| {
        cx.elsewhere(|cx| {
            // As the owner of a user namespace this process limits only its own.
            sys::unshare(CLONE_NEWUSER)?;
            if let Err(e) = std::fs::write(LIMIT, "1") {
                return Err(Stop::skip(format!("{LIMIT} writable in a user namespace"), e.to_string()));
            }
            cx.expect_ok(|| sys::unshare(CLONE_NEWIPC))?;
            refused(cx, ENOSPC, || sys::unshare(CLONE_NEWIPC))
        })
    })
};

const SETNS_EBADF: Probe = Probe {
    title: "setns with a number that is no descriptor fails with EBADF",
    why: "a runtime that lost the file of a namespace must not go on in its own and believe itself confined",
    spec: &[man("setns(2)", "EBADF")],
    calls: &[Sys::Setns],
    isolate: Isolate::Cell,
    ..Probe::new("namespace.setns.ebadf", |cx| refused(cx, EBADF, || sys::setns(-1, CLONE_NEWIPC)))
};

const SETNS_EINVAL: Probe = Probe {
    title: "setns with a file of another kind of namespace fails with EINVAL",
    why: "the second argument guards against joining the wrong namespace by a descriptor that somebody else opened",
    spec: &[man("setns(2)", "EINVAL")],
    calls: &[Sys::Setns],
    isolate: Isolate::Cell,
    ..Probe::new("namespace.setns.other-kind-einval", |cx| {
        let own = own_file()?;
        refused(cx, EINVAL, || sys::setns(own.as_raw_fd(), CLONE_NEWNS))
    })
};

const SETNS_EINVAL_FILE: Probe = Probe {
    title: "setns with a file that is no namespace fails with EINVAL",
    why: "a path below /run that should be a bind mount of a namespace is an empty file after a failed start",
    spec: &[man("setns(2)", "EINVAL")],
    calls: &[Sys::Setns],
    isolate: Isolate::Cell,
    ..Probe::new("namespace.setns.plain-file-einval", |cx| {
        let file = sys::open("/proc/self/status", O_RDONLY | O_CLOEXEC, 0)?;
        refused(cx, EINVAL, || sys::setns(file.as_raw_fd(), CLONE_NEWIPC))
    })
};

const SETNS_EPERM: Probe = Probe {
    title: "setns into an IPC namespace without CAP_SYS_ADMIN fails with EPERM",
    why: "otherwise a process of a container could step into the next one's IPC namespace by its file in /proc",
    spec: &[man("setns(2)", "EPERM"), man("ipc_namespaces(7)", "DESCRIPTION")],
    calls: &[Sys::Setns],
    isolate: Isolate::Cell,
    ..Probe::new("namespace.setns.no-capability-eperm", |cx| {
        let own = own_file()?;
        cx.without_caps(&[Capability::CAP_SYS_ADMIN], |cx| {
            refused(cx, EPERM, || sys::setns(own.as_raw_fd(), CLONE_NEWIPC))
        })
    })
};

const SETNS_ESRCH: Probe = Probe {
    title: "setns by the descriptor of a process that is gone fails with ESRCH",
    why: "nsenter by a pidfd must say that the container has ended, not join whoever has its number now",
    spec: &[man("setns(2)", "ESRCH")],
    calls: &[Sys::Setns, Sys::PidfdOpen],
    needs: &[Need::Cap(Capability::CAP_SYS_ADMIN)],
    ..Probe::new("namespace.setns.dead-process-esrch", |cx| {
        let go = cx.gate()?;
        let peer = cx.fork(|_| go.pass())?;
        let pidfd = sys::process_descriptor(peer.pid())?;
        let alive = cx.elsewhere(|_| Ok(sys::setns(pidfd.as_raw_fd(), CLONE_NEWIPC).err().map_or(0, |e| e.errno)))?;
        if alive == EINVAL {
            return Err(Stop::skip("setns by pidfd", "EINVAL: this kernel takes only files of namespaces"));
        }
        cx.expect_eq("errno of setns while the process lives", alive, 0)?;
        go.open()?;
        cx.expect_eq("end of the process", peer.exit()?, Exit::Code(0))?;
        refused(cx, ESRCH, || sys::setns(pidfd.as_raw_fd(), CLONE_NEWIPC))
    })
};
