//! msgctl(2): `IPC_STAT`, `IPC_SET`, `IPC_RMID`.

use caps::Capability;
use libc::{EAGAIN, EFAULT, EINVAL, ENOMSG, EPERM};
use shmcheck_probe::sys::{self, IPC_RMID, IPC_SET, IPC_STAT};
use shmcheck_probe::{Context, MsgQueue, Need, Outcome, Probe, Sys, kernel, man, posix, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &STAT_PROC,
    &STAT_EACCES,
    &STAT_EFAULT,
    &SET_EFAULT,
    &BAD_COMMAND,
    &BAD_ID,
    &SET_MEMBERS,
    &SET_TIME,
    &SET_OWNER,
    &SET_CREATOR,
    &SET_EPERM,
    &SET_ADMIN,
    &SET_BAD_USER,
    &SET_SHRINK,
    &SET_QBYTES_EPERM,
    &SET_QBYTES_MSGMNB,
    &SET_QBYTES_RESOURCE,
    &REMOVE_OWNER,
    &REMOVE_EPERM,
    &REMOVE_MESSAGES,
    &REMOVE_IGNORES_BUFFER,
];

const STAT_PROC: Probe = Probe {
    title: "/proc/sysvipc/msg shows the queue with the fields of IPC_STAT",
    why: "ipcs and node exporters read the file, programs ask the call; two truths make a dashboard lie",
    spec: &[kernel("ipc/msg.c", "sysvipc_msg_proc_show"), shmcheck_probe::doc("proc(5)", "/proc/sysvipc/msg")],
    calls: &[Sys::Msgctl],
    needs: &[Need::Path("/proc/sysvipc/msg")],
    ..Probe::new("sysv.msg.ctl.stat-proc", stat_proc)
};
fn stat_proc(cx: &mut Context) -> Outcome {
    let mut queue = cx.msg_queue(0o642)?;
    queue.put(1, b"12345")?;
    queue.put(1, b"123")?;
    cx.elsewhere(|_| Ok(queue.take(0, 0).map(drop)?))?;
    let stat = queue.stat()?;
    let Some(row) = procfs::sysvipc_row("msg", queue.id)? else {
        return cx.expect("line of the queue", false, "in /proc/sysvipc/msg", "missing");
    };
    let columns: &[(&str, i64)] = &[
        ("key", stat.key.into()),
        ("perms", stat.mode.into()),
        ("cbytes", stat.cbytes.cast_signed()),
        ("qnum", stat.qnum.cast_signed()),
        ("lspid", stat.lspid.into()),
        ("lrpid", stat.lrpid.into()),
        ("uid", stat.uid.into()),
        ("gid", stat.gid.into()),
        ("cuid", stat.cuid.into()),
        ("cgid", stat.cgid.into()),
        ("stime", stat.stime),
        ("rtime", stat.rtime),
        ("ctime", stat.ctime),
    ];
    for (column, wanted) in columns {
        cx.expect_eq(column, row.number(column)?, *wanted)?;
    }
    queue.remove()?;
    cx.expect_eq("line after IPC_RMID", procfs::sysvipc_row("msg", queue.id)?, None)
}

const STAT_EACCES: Probe = Probe {
    title: "IPC_STAT without read permission fails with EACCES",
    why: "who may only post must not see how many others post",
    spec: &[man("msgctl(2)", "EACCES"), posix("msgctl")],
    calls: &[Sys::Msgctl],
    ..Probe::new("sysv.msg.ctl.stat-eacces", |cx| {
        let queue = cx.msg_queue(0o600)?;
        cx.without_caps(&[Capability::CAP_IPC_OWNER], |cx| {
            cx.expect_ok(|| queue.stat())?;
            queue.set(|to| to.mode = 0o277)?;
            cx.expect_errno(libc::EACCES, || queue.stat())
        })
    })
};

const STAT_EFAULT: Probe = Probe {
    title: "IPC_STAT into missing memory fails with EFAULT",
    why: "a null pointer is an error code, not a crash",
    spec: &[man("msgctl(2)", "EFAULT")],
    calls: &[Sys::Msgctl],
    ..Probe::new("sysv.msg.ctl.stat-efault", |cx| {
        let queue = cx.msg_queue(0o600)?;
        cx.expect_errno(EFAULT, || raw(queue.id, IPC_STAT, 0))?;
        cx.expect_errno(EFAULT, || raw(queue.id, IPC_STAT, 1))
    })
};
const SET_EFAULT: Probe = Probe {
    title: "IPC_SET from missing memory fails with EFAULT and sets nothing",
    why: "a null pointer must not make the queue root's with mode 0",
    spec: &[man("msgctl(2)", "EFAULT")],
    calls: &[Sys::Msgctl],
    ..Probe::new("sysv.msg.ctl.set-efault", |cx| {
        let queue = cx.msg_queue(0o640)?;
        let before = queue.stat()?;
        cx.expect_errno(EFAULT, || raw(queue.id, IPC_SET, 0))?;
        cx.expect_eq("msqid_ds", queue.stat()?, before)
    })
};
/// `msgctl(id, command, address)`—the system call.
fn raw(id: i32, command: i32, address: i64) -> sys::Result<i64> {
    sys::raw::numbers(Sys::Msgctl, &[id.into(), command.into(), address])
}

const BAD_COMMAND: Probe = Probe {
    title: "a command that msgctl does not have fails with EINVAL",
    why: "libraries try new commands and fall back on exactly this errno",
    spec: &[man("msgctl(2)", "EINVAL"), posix("msgctl")],
    calls: &[Sys::Msgctl],
    ..Probe::new("sysv.msg.ctl.bad-command-einval", |cx| {
        let queue = cx.msg_queue(0o600)?;
        // 16 is GETALL's neighbourhood of semctl, 14 SHM_INFO, −1 below all.
        for command in [99, 14, 16, -1] {
            cx.expect_errno(EINVAL, || raw(queue.id, command, 0))?;
        }
        cx.expect_ok(|| queue.stat()).map(drop)
    })
};

const BAD_ID: Probe = Probe {
    title: "msgctl of an identifier that is none fails with EINVAL",
    why: "a second ipcrm of the same queue must say 'no such queue'",
    spec: &[man("msgctl(2)", "EINVAL"), posix("msgctl")],
    calls: &[Sys::Msgctl],
    ..Probe::new("sysv.msg.ctl.bad-id-einval", |cx| {
        let mut queue = cx.msg_queue(0o600)?;
        let stat = queue.stat()?;
        queue.remove()?;
        for id in [-1, i32::MIN, queue.id] {
            cx.expect_errno(EINVAL, || sys::msg_stat(id))?;
            cx.expect_errno(EINVAL, || sys::msg_set(id, &stat))?;
            cx.expect_errno(EINVAL, || sys::msg_remove(id))?;
        }
        Ok(())
    })
};

const SET_MEMBERS: Probe = Probe {
    title: "IPC_SET sets owner, nine mode bits and msg_qbytes, and nothing else",
    why: "programs read the structure, change one member and write it back; a count written back would lose messages",
    spec: &[man("msgctl(2)", "IPC_SET"), posix("msgctl")],
    calls: &[Sys::Msgctl],
    ..Probe::new("sysv.msg.ctl.set-members", set_members)
};
fn set_members(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    queue.put(1, b"12345")?;
    queue.take(0, 0)?;
    queue.put(1, b"123")?;
    let before = queue.stat()?;
    queue.set(|to| {
        (to.mode, to.qbytes) = (0o7_641, 77);
        (to.key, to.cuid, to.cgid, to.seq) = (1, 1, 1, before.seq.wrapping_add(1));
        (to.stime, to.rtime, to.ctime, to.cbytes, to.qnum) = (1, 1, 1, 1, 9);
        (to.lspid, to.lrpid) = (1, 1);
    })?;
    let after = queue.stat()?;
    let wanted = sys::MsgStat { mode: 0o641, qbytes: 77, ctime: after.ctime, ..before };
    cx.expect_eq("msqid_ds", after, wanted)?;
    cx.expect("msg_ctime", after.ctime >= before.ctime, format!("from {}", before.ctime), after.ctime)
}

const SET_TIME: Probe = Probe {
    title: "IPC_SET sets msg_ctime to now; sending, receiving, reading do not",
    why: "auditors see in ipcs -t when the permissions of a queue were last changed",
    spec: &[man("msgctl(2)", "IPC_SET"), posix("msgctl")],
    calls: &[Sys::Msgctl],
    waits: true,
    ..Probe::new("sysv.msg.ctl.set-time", set_time)
};
fn set_time(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    let made = queue.stat()?.ctime;
    // The field counts seconds: only in the next one a change can be seen.
    cx.until("the next second begins", || Ok(sys::now_seconds() > made))?;
    queue.put(1, b"x")?;
    queue.take(0, 0)?;
    cx.expect_eq("msg_ctime after use", queue.stat()?.ctime, made)?;
    queue.set(|_| {})?;
    cx.expect_ne("msg_ctime after IPC_SET", queue.stat()?.ctime, made)
}

/// A queue that user 1 owns and this process created.
fn given_away(cx: &mut Context) -> Result<MsgQueue, shmcheck_probe::Stop> {
    let queue = cx.msg_queue(0o600)?;
    queue.set(|to| (to.uid, to.gid) = (1, 1))?;
    Ok(queue)
}

const SET_OWNER: Probe = Probe {
    title: "IPC_SET gives the queue away, and the new owner may set it",
    why: "root makes the queue for a service and hands it over",
    spec: &[man("msgctl(2)", "IPC_SET")],
    calls: &[Sys::Msgctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.msg.ctl.set-owner", |cx| {
        let queue = given_away(cx)?;
        let stat = cx.as_user(1, 1, |cx| {
            cx.expect_ok(|| queue.set(|to| to.mode = 0o660))?;
            let stat = queue.stat()?;
            Ok((stat.uid, stat.gid, stat.cuid, stat.cgid, stat.mode))
        })?;
        cx.expect_eq("uid, gid, cuid, cgid, mode", stat, (1, 1, sys::geteuid(), sys::getegid(), 0o660))
    })
};

const SET_CREATOR: Probe = Probe {
    title: "the creator keeps the right to set and remove a queue given away",
    why: "the service's installer takes the queue down again without being root",
    spec: &[man("msgctl(2)", "IPC_SET"), man("msgctl(2)", "IPC_RMID")],
    calls: &[Sys::Msgctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.msg.ctl.set-creator", |cx| {
        cx.as_user(1, 1, |cx| {
            let mut queue = cx.msg_queue(0o600)?;
            cx.expect_ok(|| queue.set(|to| to.uid = 65534))?;
            cx.expect_eq("owner", queue.stat()?.uid, 65534)?;
            cx.expect_ok(|| queue.set(|to| to.mode = 0o640))?;
            cx.expect_ok(|| queue.remove())
        })
    })
};

const SET_EPERM: Probe = Probe {
    title: "IPC_SET by anybody else fails with EPERM, whatever the mode",
    why: "mode 0666 lets everybody use the queue, not take it over",
    spec: &[man("msgctl(2)", "EPERM"), posix("msgctl")],
    calls: &[Sys::Msgctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.msg.ctl.set-eperm", |cx| {
        let queue = cx.msg_queue(0o666)?;
        let before = queue.stat()?;
        // Also one of the owner's group has no such right.
        for gid in [1, sys::getegid()] {
            cx.as_user(1, gid, |cx| cx.expect_errno(EPERM, || queue.set(|to| to.uid = 1)))?;
        }
        cx.expect_eq("msqid_ds", queue.stat()?, before)
    })
};

const SET_ADMIN: Probe = Probe {
    title: "CAP_SYS_ADMIN may set and remove the queue of another user",
    why: "the cleaner of a batch system removes what dead jobs of any user left",
    spec: &[man("msgctl(2)", "DESCRIPTION"), kernel("ipc/util.c", "ipcctl_obtain_check")],
    calls: &[Sys::Msgctl],
    needs: &[Need::OtherUsers, Need::Cap(Capability::CAP_SYS_ADMIN)],
    ..Probe::new("sysv.msg.ctl.set-admin", |cx| {
        let key = cx.fresh_key();
        cx.as_user(1, 1, |_| Ok(sys::msgget(key, sys::IPC_CREAT | sys::IPC_EXCL | 0o666)?))?;
        let mut queue = MsgQueue::get(key, 0)?;
        // Readable for all: the capability does not read.
        cx.expect_ok(|| queue.set(|to| to.mode = 0o604))?;
        cx.expect_eq("mode", queue.stat()?.mode, 0o604)?;
        cx.expect_ok(|| queue.remove())
    })
};

const SET_BAD_USER: Probe = Probe {
    title: "IPC_SET to a user or group that does not exist here fails with EINVAL",
    why: "in a container most host ids have no mapping; a queue given to one would be nobody's",
    spec: &[man("msgctl(2)", "EINVAL"), kernel("ipc/util.c", "ipc_update_perm")],
    calls: &[Sys::Msgctl],
    ..Probe::new("sysv.msg.ctl.set-bad-user-einval", |cx| {
        let queue = cx.msg_queue(0o600)?;
        let before = queue.stat()?;
        cx.expect_errno(EINVAL, || queue.set(|to| to.uid = u32::MAX))?;
        cx.expect_errno(EINVAL, || queue.set(|to| to.gid = u32::MAX))?;
        cx.expect_eq("msqid_ds", queue.stat()?, before)
    })
};

const SET_SHRINK: Probe = Probe {
    title: "a smaller msg_qbytes keeps the messages and refuses new ones",
    why: "an operator throttles a queue in operation; nothing that was accepted may be lost",
    spec: &[man("msgop(2)", "msgsnd()"), man("msgctl(2)", "IPC_SET")],
    calls: &[Sys::Msgctl, Sys::Msgsnd, Sys::Msgrcv],
    ..Probe::new("sysv.msg.ctl.set-shrink", |cx| {
        let queue = cx.msg_queue(0o600)?;
        queue.put(1, &[1; 30])?;
        queue.put(2, &[2; 30])?;
        cx.expect_ok(|| queue.set(|to| to.qbytes = 35))?;
        cx.expect_errno(EAGAIN, || queue.put(3, b""))?;
        cx.expect_eq("first message", queue.take(0, 0)?, (1, vec![1; 30]))?;
        cx.expect_ok(|| queue.put(3, &[3; 5]))?;
        cx.expect_errno(EAGAIN, || queue.put(4, &[4; 1]))
    })
};

const SET_QBYTES_EPERM: Probe = Probe {
    title: "msg_qbytes beyond kernel.msgmnb without CAP_SYS_RESOURCE: EPERM",
    why: "the limit is the administrator's word about kernel memory",
    fix: "sysctl kernel.msgmnb before the queue is made: docker run --sysctl kernel.msgmnb=…",
    spec: &[man("msgctl(2)", "EPERM")],
    calls: &[Sys::Msgctl],
    needs: &[Need::Path("/proc/sys/kernel/msgmnb")],
    ..Probe::new("sysv.msg.ctl.set-qbytes-eperm", |cx| {
        let queue = cx.msg_queue(0o600)?;
        let before = queue.stat()?;
        let limit: u64 = procfs::sysctl_number("kernel/msgmnb")?;
        cx.without_caps(&[Capability::CAP_SYS_RESOURCE], |cx| {
            cx.expect_errno(EPERM, || queue.set(|to| to.qbytes = limit + 1))
        })?;
        cx.expect_eq("msqid_ds", queue.stat()?, before)
    })
};

const SET_QBYTES_MSGMNB: Probe = Probe {
    title: "anybody may lower msg_qbytes and raise it to kernel.msgmnb again",
    why: "the owner tunes his queue within what the administrator allows",
    spec: &[man("msgctl(2)", "IPC_SET")],
    calls: &[Sys::Msgctl],
    needs: &[Need::Path("/proc/sys/kernel/msgmnb")],
    ..Probe::new("sysv.msg.ctl.set-qbytes-msgmnb", |cx| {
        let queue = cx.msg_queue(0o600)?;
        let limit: u64 = procfs::sysctl_number("kernel/msgmnb")?;
        cx.without_caps(&[Capability::CAP_SYS_RESOURCE], |cx| {
            for qbytes in [1, limit] {
                cx.expect_ok(|| queue.set(|to| to.qbytes = qbytes))?;
                cx.expect_eq("msg_qbytes", queue.stat()?.qbytes, qbytes)?;
            }
            Ok(())
        })
    })
};

const SET_QBYTES_RESOURCE: Probe = Probe {
    title: "CAP_SYS_RESOURCE raises msg_qbytes beyond kernel.msgmnb, effectively",
    why: "databases ask for queues of megabytes at start-up, as root",
    spec: &[man("msgop(2)", "NOTES"), man("msgctl(2)", "IPC_SET")],
    calls: &[Sys::Msgctl, Sys::Msgsnd],
    needs: &[Need::InitCap(Capability::CAP_SYS_RESOURCE)],
    isolate: shmcheck_probe::Isolate::FreshOnly,
    ..Probe::new("sysv.msg.ctl.set-qbytes-resource", |cx| {
        let queue = cx.msg_queue(0o600)?;
        let (_, limits) = sys::msg_info(sys::IPC_INFO)?;
        let (size, room) = (limits.msgmax as usize, limits.msgmnb as usize);
        cx.expect_ok(|| queue.set(|to| to.qbytes = (room + size) as u64))?;
        let count = (room + size) / size;
        for _ in 0..count {
            cx.expect_ok(|| queue.put(1, &vec![0; size]))?;
        }
        cx.expect_eq("msg_cbytes", queue.stat()?.cbytes, (count * size) as u64)
    })
};

const REMOVE_OWNER: Probe = Probe {
    title: "an owner who is not the creator may remove the queue",
    why: "a service removes the queue that root made for it",
    spec: &[man("msgctl(2)", "IPC_RMID")],
    calls: &[Sys::Msgctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.msg.ctl.remove-owner", |cx| {
        let queue = given_away(cx)?;
        let id = queue.id;
        cx.as_user(1, 1, |cx| cx.expect_ok(|| sys::msg_remove(id)))?;
        cx.expect_errno(EINVAL, || queue.stat())
    })
};

const REMOVE_EPERM: Probe = Probe {
    title: "IPC_RMID by anybody else fails with EPERM; the queue lives on",
    why: "any user who could remove it would stop the service of all",
    spec: &[man("msgctl(2)", "EPERM"), posix("msgctl")],
    calls: &[Sys::Msgctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.msg.ctl.remove-eperm", |cx| {
        let queue = cx.msg_queue(0o666)?;
        queue.put(1, b"kept")?;
        let id = queue.id;
        cx.as_user(1, 1, |cx| cx.expect_errno(EPERM, || sys::msg_remove(id)))?;
        cx.expect_eq("message", queue.take(0, 0)?, (1, b"kept".to_vec()))
    })
};

const REMOVE_MESSAGES: Probe = Probe {
    title: "IPC_RMID destroys the messages: a new queue of the key is empty",
    why: "old requests must not be executed by the next generation of the server",
    spec: &[man("msgctl(2)", "IPC_RMID"), posix("msgctl")],
    calls: &[Sys::Msgctl],
    ..Probe::new("sysv.msg.ctl.remove-messages", |cx| {
        let mut queue = cx.msg_queue(0o600)?;
        queue.put(1, b"old")?;
        queue.put(1, &[7; 4000])?;
        queue.remove()?;
        let new = MsgQueue::get(queue.key, sys::IPC_CREAT | sys::IPC_EXCL | 0o600)?;
        cx.expect_eq("msg_qnum, msg_cbytes", (new.stat()?.qnum, new.stat()?.cbytes), (0, 0))?;
        cx.expect_errno(ENOMSG, || new.take(0, 0))
    })
};

const REMOVE_IGNORES_BUFFER: Probe = Probe {
    title: "IPC_RMID ignores its third argument, even an impossible address",
    why: "half of all programs pass a pointer, half NULL",
    spec: &[man("msgctl(2)", "IPC_RMID")],
    calls: &[Sys::Msgctl],
    ..Probe::new("sysv.msg.ctl.remove-ignores-buffer", |cx| {
        let queue = cx.msg_queue(0o600)?;
        cx.expect_ok(|| raw(queue.id, IPC_RMID, 1))?;
        cx.expect_errno(EINVAL, || queue.stat())
    })
};
