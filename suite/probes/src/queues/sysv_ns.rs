//! System V queues in IPC, pid and user namespaces.

use caps::Capability;
use libc::{CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWUSER, EINVAL, ENOENT, ENOSPC, EPERM};
use shmcheck_probe::sys::{self, IPC_CREAT, IPC_EXCL};
use shmcheck_probe::{Context, Isolate, MsgQueue, Namespace, Need, Outcome, Probe, Stop, Sys, doc, kernel, man};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] =
    &[&KEY, &ID, &SAME_KEY, &RETURN, &RETURN_EPERM, &ENDS, &PIDS_INSIDE, &PIDS_OUTSIDE, &USERS];

const NEEDS: &[Need] = &[Need::New(Namespace::Ipc)];

/// Runs `body` in a peer in an IPC namespace of its own.
fn in_new(cx: &mut Context, body: impl FnOnce(&mut Context) -> Outcome) -> Outcome {
    cx.elsewhere(|cx| {
        sys::unshare(CLONE_NEWIPC)?;
        body(cx)
    })
}

const KEY: Probe = Probe {
    title: "a key of one IPC namespace is not found in another: ENOENT",
    why: "containers that should talk and do not: each looks for the queue in its own namespace",
    fix: "docker run --ipc=container:… or --ipc=host; Kubernetes: one pod",
    spec: &[man("msgget(2)", "ENOENT"), doc("ipc_namespaces(7)", "DESCRIPTION")],
    calls: &[Sys::Msgget, Sys::Unshare],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.msg.ns.key-enoent", |cx| {
        let queue = cx.msg_queue(0o666)?;
        let key = queue.key;
        in_new(cx, |cx| cx.expect_errno(ENOENT, || sys::msgget(key, 0)))?;
        cx.expect_eq("identifier by the key", sys::msgget(key, 0)?, queue.id)
    })
};

const ID: Probe = Probe {
    title: "an identifier of one IPC namespace is none in another: EINVAL",
    why: "identifiers are small numbers that anybody can try",
    spec: &[man("msgop(2)", "EINVAL"), doc("ipc_namespaces(7)", "DESCRIPTION")],
    calls: &[Sys::Msgsnd, Sys::Msgrcv, Sys::Msgctl, Sys::Unshare],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.msg.ns.id-einval", |cx| {
        let queue = cx.msg_queue(0o666)?;
        queue.put(1, b"here")?;
        in_new(cx, |cx| {
            cx.expect_errno(EINVAL, || queue.put(1, b"x"))?;
            cx.expect_errno(EINVAL, || queue.take(0, 0))?;
            cx.expect_errno(EINVAL, || queue.stat())?;
            cx.expect_errno(EINVAL, || sys::msg_remove(queue.id))
        })?;
        cx.expect_eq("message", queue.take(0, 0)?, (1, b"here".to_vec()))
    })
};

const SAME_KEY: Probe = Probe {
    title: "one key names separate queues in two IPC namespaces",
    why: "two copies of one program run side by side in two containers with the key from one configuration file",
    spec: &[doc("ipc_namespaces(7)", "DESCRIPTION")],
    calls: &[Sys::Msgget, Sys::Unshare],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.msg.ns.same-key", |cx| {
        let queue = cx.msg_queue(0o600)?;
        let key = queue.key;
        in_new(cx, |cx| {
            let own = cx.expect_ok(|| MsgQueue::get(key, IPC_CREAT | IPC_EXCL | 0o600))?;
            own.put(1, b"inside")?;
            cx.expect_eq("messages inside", own.stat()?.qnum, 1)
        })?;
        cx.expect_eq("messages outside", queue.stat()?.qnum, 0)
    })
};

const RETURN: Probe = Probe {
    title: "setns into an IPC namespace finds the queue there",
    why: "nsenter -i is how an operator looks at a container's queues",
    spec: &[doc("ipc_namespaces(7)", "DESCRIPTION"), kernel("ipc/namespace.c", "ipcns_install")],
    calls: &[Sys::Msgrcv, Sys::Unshare, Sys::Setns],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.msg.ns.setns-finds", |cx| {
        let queue = cx.msg_queue(0o600)?;
        queue.put(1, b"outside")?;
        cx.elsewhere(|cx| {
            let home = sys::open("/proc/self/ns/ipc", libc::O_RDONLY | libc::O_CLOEXEC, 0)?;
            sys::unshare(CLONE_NEWIPC)?;
            cx.expect_errno(EINVAL, || queue.stat())?;
            sys::setns(home.as_raw_fd(), CLONE_NEWIPC)?;
            let got = cx.expect_ok(|| queue.take(0, 0))?;
            cx.expect_eq("message", got, (1, b"outside".to_vec()))
        })
    })
};

const ENDS: Probe = Probe {
    title: "an IPC namespace with queues is destroyed when nothing holds it",
    why: "a stopped container must leave no queues: nobody could find or remove them, and they cost kernel memory",
    spec: &[doc("ipc_namespaces(7)", "DESCRIPTION"), kernel("ipc/namespace.c", "put_ipc_ns")],
    calls: &[Sys::Msgget, Sys::Unshare],
    needs: &[Need::New(Namespace::Ipc), Need::New(Namespace::User)],
    isolate: Isolate::FreshOnly,
    waits: true,
    ..Probe::new("sysv.msg.ns.ends-with-last", |cx| {
        cx.elsewhere(|cx| {
            // As owner of a user namespace this process limits its IPC namespaces: the one it is in and one more.
            sys::unshare(CLONE_NEWUSER)?;
            const LIMIT: &str = "/proc/sys/user/max_ipc_namespaces";
            if let Err(e) = std::fs::write(LIMIT, "2") {
                return Err(Stop::skip(format!("{LIMIT} writable in a user namespace"), e.to_string()));
            }
            sys::unshare(CLONE_NEWIPC)?;
            let id = sys::msgget(cx.fresh_key(), IPC_CREAT | 0o600)?;
            sys::msgsnd(id, 1, &[7; 5000], 0)?;
            let held = sys::open("/proc/self/ns/ipc", libc::O_RDONLY | libc::O_CLOEXEC, 0)?;
            sys::unshare(CLONE_NEWIPC)?;
            cx.expect_errno(EINVAL, || sys::msg_stat(id))?;
            cx.expect_errno(ENOSPC, || sys::unshare(CLONE_NEWIPC))?;
            drop(held);
            // Possible only when the first namespace is gone, with its queue. Kernels before 6.3 free one namespace
            // after the other, behind those of all probes before, and say ENOSPC meanwhile.
            let start = std::time::Instant::now();
            cx.until("the namespace is gone", || match sys::unshare(CLONE_NEWIPC) {
                Ok(()) => Ok(true),
                Err(e) if e.errno != ENOSPC => Err(e.into()),
                Err(_) if start.elapsed().as_millis() < 1_000 => Ok(false),
                Err(_) => Err(Stop::skip("IPC namespaces freed within a second", "unshare → ENOSPC for a second")),
            })
        })
    })
};

const RETURN_EPERM: Probe = Probe {
    title: "setns into an IPC namespace needs CAP_SYS_ADMIN, even into the own",
    why: "a process that was confined must not walk into a neighbour's queues",
    spec: &[man("setns(2)", "EPERM"), kernel("ipc/namespace.c", "ipcns_install")],
    calls: &[Sys::Setns],
    needs: &[Need::Cap(Capability::CAP_SYS_ADMIN)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.msg.ns.setns-eperm", |cx| {
        let home = sys::open("/proc/self/ns/ipc", libc::O_RDONLY | libc::O_CLOEXEC, 0)?;
        cx.expect_ok(|| sys::setns(home.as_raw_fd(), CLONE_NEWIPC))?;
        cx.without_caps(&[Capability::CAP_SYS_ADMIN], |cx| {
            cx.expect_errno(EPERM, || sys::setns(home.as_raw_fd(), CLONE_NEWIPC))
        })
    })
};

const PID_NEEDS: &[Need] = &[Need::New(Namespace::Pid)];

/// A child of this peer in a pid namespace of its own: runs `inside`, and its number here is handed back.
fn in_new_pids(cx: &mut Context, inside: impl FnOnce(&mut Context) -> Outcome) -> Result<i32, Stop> {
    sys::unshare(CLONE_NEWPID)?;
    cx.cross_pid_namespace();
    let peer = cx.fork(inside)?;
    let pid = peer.pid();
    peer.join()?;
    Ok(pid)
}

const PIDS_INSIDE: Probe = Probe {
    title: "msg_lspid and msg_lrpid are translated for each pid namespace",
    why: "ps on the host and ps in the container must both find the sender",
    spec: &[kernel("ipc/msg.c", "msgctl_stat"), doc("pid_namespaces(7)", "DESCRIPTION")],
    calls: &[Sys::Msgsnd, Sys::Msgrcv, Sys::Msgctl, Sys::Unshare],
    needs: PID_NEEDS,
    ..Probe::new("sysv.msg.ns.pids-translated", |cx| {
        let queue = cx.msg_queue(0o600)?;
        let pid = cx.elsewhere(|cx| {
            in_new_pids(cx, |cx| {
                queue.put(1, b"x")?;
                queue.take(0, 0)?;
                let stat = queue.stat()?;
                cx.expect_eq("msg_lspid, msg_lrpid inside", (stat.lspid, stat.lrpid), (1, 1))
            })
        })?;
        let stat = queue.stat()?;
        cx.expect_eq("msg_lspid, msg_lrpid outside", (stat.lspid, stat.lrpid), (pid, pid))
    })
};

const PIDS_OUTSIDE: Probe = Probe {
    title: "a sender who has no number in the reader's pid namespace shows as 0",
    why: "a container that shares its IPC with the host must not see host processes as its own",
    spec: &[kernel("ipc/msg.c", "msgctl_stat"), doc("pid_namespaces(7)", "DESCRIPTION")],
    calls: &[Sys::Msgsnd, Sys::Msgctl, Sys::Unshare],
    needs: PID_NEEDS,
    ..Probe::new("sysv.msg.ns.pids-outside", |cx| {
        let queue = cx.msg_queue(0o600)?;
        queue.put(1, b"x")?;
        cx.elsewhere(|cx| in_new_pids(cx, |cx| cx.expect_eq("msg_lspid inside", queue.stat()?.lspid, 0)))?;
        cx.expect_eq("msg_lspid outside", queue.stat()?.lspid, sys::getpid())
    })
};

const USERS: Probe = Probe {
    title: "owner and creator show as the overflow id where they are not mapped",
    why: "with --ipc=host and user namespaces ids of the host must not look like the container's root",
    spec: &[kernel("ipc/util.c", "kernel_to_ipc64_perm"), doc("user_namespaces(7)", "Unmapped user and group IDs")],
    calls: &[Sys::Msgctl, Sys::Unshare],
    needs: &[Need::New(Namespace::User), Need::Path("/proc/sys/kernel/overflowuid")],
    ..Probe::new("sysv.msg.ns.users-unmapped", |cx| {
        let queue = cx.msg_queue(0o600)?;
        let overflow: u32 = shmcheck_probe::procfs::sysctl_number("kernel/overflowuid")?;
        let seen = cx.elsewhere(|_| {
            // Without a map every id is unknown; the process is still the owner to the kernel.
            sys::unshare(CLONE_NEWUSER)?;
            let stat = queue.stat()?;
            Ok((stat.uid, stat.cuid))
        })?;
        cx.expect_eq("uid, cuid inside", seen, (overflow, overflow))?;
        cx.expect_eq("uid outside", queue.stat()?.uid, sys::geteuid())
    })
};
