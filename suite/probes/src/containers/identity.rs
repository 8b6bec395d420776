//! Who made it: user and process ids of an object, seen across user and pid namespaces; and whose capabilities count.

use caps::Capability;
use libc::{CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWUSER, EACCES, EPERM};
use shmcheck_probe::sys;
use shmcheck_probe::{Context, Namespace, Need, Outcome, Probe, Segment, Stop, Sys, doc, kernel, man, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] =
    &[&UNMAPPED, &TRANSLATED, &PIDS_TRANSLATED, &PIDS_OUTSIDE, &NO_OVERRIDE, &NO_REMOVAL, &OVER_OWN];

const UNMAPPED: Probe = Probe {
    title: "a segment's ids show as the overflow id where they are not mapped",
    why: "with --ipc=host and user namespaces the host's root must not look like the container's own: a program that \
          compares uids would take a stranger's segment for its own",
    varies: "containers with userns-remap and rootless ones that use --ipc=host",
    spec: &[kernel("ipc/util.c", "kernel_to_ipc64_perm"), doc("user_namespaces(7)", "Unmapped user and group IDs")],
    calls: &[Sys::Shmget, Sys::Shmctl, Sys::Unshare],
    needs: &[Need::New(Namespace::User), Need::Path("/proc/sys/kernel/overflowuid")],
    ..Probe::new("namespace.user.ids-unmapped", |cx| {
        let segment = cx.segment(libc::IPC_PRIVATE, 64, 0o644)?;
        let overflow: u32 = procfs::sysctl_number("kernel/overflowuid")?;
        let seen = cx.elsewhere(|_| {
            sys::unshare(CLONE_NEWUSER)?;
            ids(&segment)
        })?;
        cx.expect_eq("uid, gid, cuid, cgid inside", seen, [overflow; 4])?;
        let (uid, gid) = (sys::geteuid(), sys::getegid());
        cx.expect_eq("uid, gid, cuid, cgid outside", ids(&segment)?, [uid, gid, uid, gid])
    })
};

fn ids(segment: &Segment) -> Result<[u32; 4], Stop> {
    let stat = segment.stat()?;
    Ok([stat.uid, stat.gid, stat.cuid, stat.cgid])
}

/// A user namespace in which the caller is user 5 and group 6.
fn become_five_six() -> Outcome {
    let (uid, gid) = (sys::geteuid(), sys::getegid());
    own_user_namespace()?;
    for (file, text) in
        [("setgroups", "deny".to_owned()), ("uid_map", format!("5 {uid} 1")), ("gid_map", format!("6 {gid} 1"))]
    {
        match std::fs::write(format!("/proc/self/{file}"), text) {
            // User 0 without CAP_SETFCAP may not map itself, user_namespaces(7).
            Err(e) if e.raw_os_error() == Some(EPERM) => {
                let need = Need::New(Namespace::User).to_string();
                return Err(Stop::skip(need, format!("write to {file} → EPERM")));
            }
            other => other?,
        }
    }
    Ok(())
}

/// A user namespace; machines that keep them from ordinary users are passed over.
fn own_user_namespace() -> Outcome {
    match sys::unshare(CLONE_NEWUSER) {
        Err(e) if e.errno == EPERM => Err(Stop::skip(Need::New(Namespace::User).to_string(), "unshare(user) → EPERM")),
        other => Ok(other?),
    }
}

const TRANSLATED: Probe = Probe {
    title: "a segment's ids are those of the reader's user namespace",
    why: "rootless containers: the user outside is 0 inside, and ipcs must show each side its own number",
    spec: &[kernel("ipc/util.c", "kernel_to_ipc64_perm"), doc("user_namespaces(7)", "User and group ID mappings")],
    calls: &[Sys::Shmget, Sys::Shmctl, Sys::Unshare],
    needs: &[Need::New(Namespace::User)],
    ..Probe::new("namespace.user.ids-translated", |cx| {
        let segment = cx.segment(libc::IPC_PRIVATE, 64, 0o600)?;
        let seen = cx.elsewhere(|_| {
            become_five_six()?;
            ids(&segment)
        })?;
        cx.expect_eq("uid, gid, cuid, cgid inside", seen, [5, 6, 5, 6])
    })
};

/// Runs `inside` as the first process of a pid namespace; its number where the caller is.
fn in_new_pids(cx: &mut Context, inside: impl FnOnce(&mut Context) -> Outcome) -> Result<i32, Stop> {
    sys::unshare(CLONE_NEWPID)?;
    cx.cross_pid_namespace();
    let peer = cx.fork(inside)?;
    let pid = peer.pid();
    peer.join()?;
    Ok(pid)
}

const PIDS_TRANSLATED: Probe = Probe {
    title: "shm_cpid and shm_lpid are translated for each pid namespace",
    why: "an operator on the host looks up who attached last: 1 would be init, not the container's server",
    spec: &[kernel("ipc/shm.c", "shmctl_stat"), doc("pid_namespaces(7)", "DESCRIPTION")],
    calls: &[Sys::Shmget, Sys::Shmat, Sys::Shmctl, Sys::Unshare],
    needs: &[Need::New(Namespace::Pid)],
    ..Probe::new("namespace.pid.shm-pids-translated", |cx| {
        let key = cx.fresh_key();
        let (pid, stat) = cx.elsewhere(|cx| {
            let pid = in_new_pids(cx, |cx| {
                let segment = cx.segment(key, 64, 0o600)?;
                segment.attach(0)?.close()?;
                let stat = segment.stat()?;
                segment.disown();
                cx.expect_eq("shm_cpid, shm_lpid inside", (stat.cpid, stat.lpid), (1, 1))
            })?;
            let segment = Segment::adopt(sys::shmget(key, 0, 0)?, key, 64);
            let stat = segment.stat()?;
            Ok((pid, (stat.cpid, stat.lpid)))
        })?;
        // The creator has ended: its number is kept by the segment, and known to nobody any more.
        cx.expect("shm_cpid, shm_lpid outside", stat == (pid, pid) || stat == (0, 0), format!("({pid}, {pid})"), stat)
    })
};

const PIDS_OUTSIDE: Probe = Probe {
    title: "a creator without a number in the reader's pid namespace shows as 0",
    why: "a container that shares its IPC with the host must not take a host process for one of its own and signal it",
    spec: &[kernel("ipc/shm.c", "shmctl_stat"), doc("pid_namespaces(7)", "DESCRIPTION")],
    calls: &[Sys::Shmget, Sys::Shmat, Sys::Shmctl, Sys::Unshare],
    needs: &[Need::New(Namespace::Pid)],
    ..Probe::new("namespace.pid.shm-pids-outside", |cx| {
        let segment = cx.segment(libc::IPC_PRIVATE, 64, 0o600)?;
        let _map = segment.attach(0)?;
        let own = sys::getpid();
        cx.expect_eq("shm_cpid, shm_lpid outside", (segment.stat()?.cpid, segment.stat()?.lpid), (own, own))?;
        cx.elsewhere(|cx| {
            in_new_pids(cx, |cx| {
                let stat = segment.stat()?;
                cx.expect_eq("shm_cpid, shm_lpid inside", (stat.cpid, stat.lpid), (0, 0))
            })
            .map(drop)
        })
    })
};

/// An ordinary user who has every capability in a user namespace of his own.
fn as_rootless<T: serde::Serialize + serde::de::DeserializeOwned>(
    cx: &mut Context,
    body: impl FnOnce(&mut Context) -> Result<T, Stop>,
) -> Result<T, Stop> {
    cx.as_user(65534, 65534, |cx| {
        own_user_namespace()?;
        if !caps::has_cap(None, caps::CapSet::Effective, Capability::CAP_IPC_OWNER).unwrap_or(false) {
            return Err(Stop::broken("a new user namespace came without capabilities"));
        }
        body(cx)
    })
}

const CAP_NEEDS: &[Need] = &[Need::OtherUsers, Need::New(Namespace::User)];

const NO_OVERRIDE: Probe = Probe {
    title: "CAP_IPC_OWNER of an inner user namespace does not open outer objects",
    why: "anybody can be root in a user namespace: if that counted, every user could read every database's buffers",
    spec: &[kernel("ipc/util.c", "ipcperms"), doc("user_namespaces(7)", "Capabilities"), man("shmget(2)", "EACCES")],
    calls: &[Sys::Shmget, Sys::Shmat, Sys::Unshare],
    needs: CAP_NEEDS,
    ..Probe::new("namespace.user.no-override-outside", |cx| {
        let key = cx.fresh_key();
        let segment = cx.segment(key, 64, 0o600)?;
        as_rootless(cx, |cx| {
            cx.expect_errno(EACCES, || sys::shmget(key, 0, 0o400))?;
            cx.expect_errno(EACCES, || sys::shmat(segment.id, libc::SHM_RDONLY))
        })
    })
};

const NO_REMOVAL: Probe = Probe {
    title: "CAP_SYS_ADMIN of an inner user namespace removes no outer objects",
    why: "a rootless container with --ipc=host could otherwise remove the shared memory of all programs of the machine",
    spec: &[kernel("ipc/util.c", "ipcctl_obtain_check"), man("shmctl(2)", "EPERM")],
    calls: &[Sys::Shmctl, Sys::Unshare],
    needs: CAP_NEEDS,
    ..Probe::new("namespace.user.no-removal-outside", |cx| {
        let segment = cx.segment(libc::IPC_PRIVATE, 64, 0o666)?;
        as_rootless(cx, |cx| {
            cx.expect_errno(EPERM, || sys::shm_remove(segment.id))?;
            cx.expect_errno(EPERM, || sys::shm_set(segment.id, 65534, 65534, 0o666))
        })?;
        let stat = segment.stat()?;
        cx.expect_eq("owner, mode", (stat.uid, stat.mode), (sys::geteuid(), 0o666))
    })
};

const OVER_OWN: Probe = Probe {
    title: "CAP_IPC_OWNER counts in an IPC namespace that its user namespace owns",
    why: "root in a rootless container must be able to do what root does: attach to what its other users made",
    spec: &[kernel("ipc/util.c", "ipcperms"), doc("user_namespaces(7)", "Capabilities")],
    calls: &[Sys::Shmget, Sys::Shmat, Sys::Unshare],
    needs: CAP_NEEDS,
    ..Probe::new("namespace.user.override-inside", |cx| {
        as_rootless(cx, |cx| {
            sys::unshare(CLONE_NEWIPC)?;
            let segment = cx.segment(libc::IPC_PRIVATE, 64, 0)?;
            cx.without_caps(&[Capability::CAP_IPC_OWNER], |cx| {
                cx.expect_errno(EACCES, || sys::shmat(segment.id, libc::SHM_RDONLY))
            })?;
            cx.expect_ok(|| segment.attach(0)).map(drop)
        })
    })
};
