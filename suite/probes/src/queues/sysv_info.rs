//! msgctl(2): `IPC_INFO`, `MSG_INFO`, `MSG_STAT`, `MSG_STAT_ANY`: what ipcs(1) asks.

use libc::{EACCES, EFAULT, EINVAL};
use shmcheck_probe::sys::{self, IPC_INFO, MSG_INFO, MSG_STAT, MSG_STAT_ANY};
use shmcheck_probe::{Context, Isolate, Need, Outcome, Probe, Stop, Sys, kernel, man, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &LIMITS,
    &LIMITS_CONSTANTS,
    &USAGE,
    &USAGE_REMOVED,
    &HIGHEST,
    &INFO_EFAULT,
    &STAT_INDEX,
    &STAT_UNUSED,
    &STAT_NEGATIVE,
    &STAT_EACCES,
    &STAT_ANY,
    &STAT_EFAULT,
    &LIST,
];

const LIMITS: Probe = Probe {
    title: "IPC_INFO reports kernel.msgmax, msgmnb and msgmni",
    why: "installers check the limits through ipcs -l before they start the database",
    spec: &[man("msgctl(2)", "IPC_INFO")],
    calls: &[Sys::Msgctl],
    needs: &[Need::Path("/proc/sys/kernel/msgmax")],
    ..Probe::new("sysv.msg.info.limits", limits)
};
fn limits(cx: &mut Context) -> Outcome {
    for command in [IPC_INFO, MSG_INFO] {
        let (_, info) = sys::msg_info(command)?;
        cx.expect_eq("msgmax", info.msgmax, procfs::sysctl_number("kernel/msgmax")?)?;
        cx.expect_eq("msgmnb", info.msgmnb, procfs::sysctl_number("kernel/msgmnb")?)?;
        cx.expect_eq("msgmni", info.msgmni, procfs::sysctl_number("kernel/msgmni")?)?;
    }
    Ok(())
}

const LIMITS_CONSTANTS: Probe = Probe {
    title: "IPC_INFO's unused members are the kernel's constants, not usage",
    why: "ipcs -l prints them; IPC_INFO that answers as MSG_INFO does shows nonsense there",
    spec: &[
        man("msgctl(2)", "IPC_INFO"),
        kernel("include/uapi/linux/msg.h", "MSGPOOL, MSGMAP, MSGTQL, MSGSSZ, MSGSEG"),
    ],
    calls: &[Sys::Msgctl],
    ..Probe::new("sysv.msg.info.limits-constants", |cx| {
        let (_, info) = sys::msg_info(IPC_INFO)?;
        // MSGPOOL is MSGMNI·MSGMNB/1024, MSGMAP and MSGTQL are MSGMNB, MSGSEG is cut at 65535.
        let constants = (info.msgpool, info.msgmap, info.msgtql, info.msgssz, info.msgseg);
        cx.expect_eq("msgpool, msgmap, msgtql, msgssz, msgseg", constants, (512_000, 16_384, 16_384, 16, 0xffff))
    })
};

const USAGE: Probe = Probe {
    title: "MSG_INFO counts queues, messages and bytes of the namespace exactly",
    why: "the sum of all backlogs is one number on the operator's screen",
    spec: &[man("msgctl(2)", "MSG_INFO")],
    calls: &[Sys::Msgctl],
    needs: &[Need::OwnIpc],
    ..Probe::new("sysv.msg.info.usage", usage)
};
/// Queues, messages, bytes.
fn used() -> Result<(i32, i32, i32), Stop> {
    let (_, info) = sys::msg_info(MSG_INFO)?;
    Ok((info.msgpool, info.msgmap, info.msgtql))
}
fn usage(cx: &mut Context) -> Outcome {
    let (queues, messages, bytes) = used()?;
    let one = cx.msg_queue(0o600)?;
    let two = cx.msg_queue(0o600)?;
    one.put(1, &[0; 10])?;
    one.put(1, &[0; 0])?;
    two.put(1, &[0; 300])?;
    cx.expect_eq("queues, messages, bytes", used()?, (queues + 2, messages + 3, bytes + 310))?;
    one.take(0, 0)?;
    cx.expect_eq("after a message was received", used()?, (queues + 2, messages + 2, bytes + 300))
}

const USAGE_REMOVED: Probe = Probe {
    title: "IPC_RMID takes the queue's messages and bytes out of MSG_INFO",
    why: "counts that only grow raise false alarms after every restart",
    spec: &[man("msgctl(2)", "MSG_INFO"), kernel("ipc/msg.c", "freeque")],
    calls: &[Sys::Msgctl],
    needs: &[Need::OwnIpc],
    ..Probe::new("sysv.msg.info.usage-removed", |cx| {
        let before = used()?;
        let mut queue = cx.msg_queue(0o600)?;
        queue.put(1, &[0; 50])?;
        queue.put(1, &[0; 5000])?;
        cx.expect_ne("queues, messages, bytes", used()?, before)?;
        queue.remove()?;
        cx.expect_eq("after IPC_RMID", used()?, before)
    })
};

const HIGHEST: Probe = Probe {
    title: "IPC_INFO and MSG_INFO return the highest index in use",
    why: "ipcs loops from 0 to this number; one too few hides the newest queue",
    spec: &[man("msgctl(2)", "RETURN VALUE")],
    calls: &[Sys::Msgctl],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.msg.info.highest", |cx| {
        cx.expect_eq("index in an empty namespace", sys::msg_info(MSG_INFO)?.0, 0)?;
        let (one, mut two) = (cx.msg_queue(0o600)?, cx.msg_queue(0o600)?);
        let second = index_of(&two)?;
        cx.expect_ne("indices of two queues", index_of(&one)?, second)?;
        for command in [IPC_INFO, MSG_INFO] {
            cx.expect_eq("value with two queues", sys::msg_info(command)?.0, second)?;
        }
        two.remove()?;
        cx.expect_eq("value after the last was removed", sys::msg_info(MSG_INFO)?.0, index_of(&one)?)
    })
};

const INFO_EFAULT: Probe = Probe {
    title: "IPC_INFO and MSG_INFO into missing memory fail with EFAULT",
    why: "a null pointer is an error code, not a crash",
    spec: &[kernel("ipc/msg.c", "ksys_msgctl")],
    calls: &[Sys::Msgctl],
    ..Probe::new("sysv.msg.info.efault", |cx| {
        for command in [IPC_INFO, MSG_INFO] {
            cx.expect_errno(EFAULT, || sys::raw::numbers(Sys::Msgctl, &[0, command.into(), 1]))?;
        }
        Ok(())
    })
};

/// The index of a queue in the kernel's table, found as ipcs does.
fn index_of(queue: &shmcheck_probe::MsgQueue) -> Result<i32, Stop> {
    let highest = sys::msg_info(MSG_INFO)?.0;
    (0..=highest)
        .find(|index| sys::msg_stat_by(*index, MSG_STAT_ANY).is_ok_and(|(id, _)| id == queue.id))
        .ok_or_else(|| Stop::broken(format!("no index up to {highest} has queue {}", queue.id)))
}

const STAT_INDEX: Probe = Probe {
    title: "MSG_STAT returns the identifier of the index, with its fields",
    why: "ipcs prints the identifier from here and ipcrm removes what it prints",
    spec: &[man("msgctl(2)", "MSG_STAT")],
    calls: &[Sys::Msgctl],
    ..Probe::new("sysv.msg.info.stat-index", |cx| {
        let queue = cx.msg_queue(0o600)?;
        queue.put(1, b"12345")?;
        let index = index_of(&queue)?;
        let stat = queue.stat()?;
        cx.expect_eq("identifier and msqid_ds", sys::msg_stat_by(index, MSG_STAT)?, (queue.id, stat))?;
        cx.expect_eq("value of IPC_STAT", sys::msg_stat_by(queue.id, sys::IPC_STAT)?, (0, stat))
    })
};

const STAT_UNUSED: Probe = Probe {
    title: "MSG_STAT and MSG_STAT_ANY of an unused index fail with EINVAL",
    why: "ipcs skips holes in the table by this errno",
    spec: &[man("msgctl(2)", "EINVAL")],
    calls: &[Sys::Msgctl],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.msg.info.stat-unused-einval", |cx| {
        let (mut hole, _held) = (cx.msg_queue(0o600)?, cx.msg_queue(0o600)?);
        let index = index_of(&hole)?;
        cx.expect_ok(|| sys::msg_stat_by(index, MSG_STAT))?;
        hole.remove()?;
        for command in [MSG_STAT, MSG_STAT_ANY] {
            cx.expect_errno(EINVAL, || sys::msg_stat_by(index, command))?;
        }
        Ok(())
    })
};

const STAT_NEGATIVE: Probe = Probe {
    title: "MSG_STAT, MSG_STAT_ANY and MSG_INFO of a negative number: EINVAL",
    why: "a table index is never negative; the error of an earlier call is",
    spec: &[man("msgctl(2)", "EINVAL"), kernel("ipc/msg.c", "ksys_msgctl")],
    calls: &[Sys::Msgctl],
    ..Probe::new("sysv.msg.info.stat-negative-einval", |cx| {
        for command in [MSG_STAT, MSG_STAT_ANY] {
            cx.expect_errno(EINVAL, || sys::msg_stat_by(-1, command))?;
        }
        cx.expect_errno(EINVAL, || sys::raw::numbers(Sys::Msgctl, &[-1, MSG_INFO.into(), 0]))
    })
};

const STAT_EACCES: Probe = Probe {
    title: "MSG_STAT without read permission fails with EACCES",
    why: "a table index must not be a way around the mode",
    spec: &[man("msgctl(2)", "EACCES")],
    calls: &[Sys::Msgctl],
    ..Probe::new("sysv.msg.info.stat-eacces", |cx| {
        let queue = cx.msg_queue(0o277)?;
        let index = index_of(&queue)?;
        cx.without_caps(&[caps::Capability::CAP_IPC_OWNER], |cx| {
            cx.expect_errno(EACCES, || sys::msg_stat_by(index, MSG_STAT))
        })
    })
};

const STAT_ANY: Probe = Probe {
    title: "MSG_STAT_ANY needs no permission at all",
    why: "ipcs shows an ordinary user all queues, as /proc/sysvipc/msg does anyway",
    spec: &[man("msgctl(2)", "MSG_STAT_ANY")],
    calls: &[Sys::Msgctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.msg.info.stat-any", |cx| {
        let queue = cx.msg_queue(0)?;
        let index = index_of(&queue)?;
        let id = queue.id;
        cx.as_user(65534, 65534, |cx| {
            cx.expect_errno(EACCES, || sys::msg_stat_by(index, MSG_STAT))?;
            let (found, stat) = cx.expect_ok(|| sys::msg_stat_by(index, MSG_STAT_ANY))?;
            cx.expect_eq("identifier, mode", (found, stat.mode), (id, 0))
        })
    })
};

const STAT_EFAULT: Probe = Probe {
    title: "MSG_STAT into missing memory fails with EFAULT",
    why: "a null pointer is an error code, not a crash",
    spec: &[kernel("ipc/msg.c", "ksys_msgctl")],
    calls: &[Sys::Msgctl],
    ..Probe::new("sysv.msg.info.stat-efault", |cx| {
        let queue = cx.msg_queue(0o600)?;
        let index = index_of(&queue)?;
        for command in [MSG_STAT, MSG_STAT_ANY] {
            cx.expect_errno(EFAULT, || sys::raw::numbers(Sys::Msgctl, &[index.into(), command.into(), 1]))?;
        }
        Ok(())
    })
};

const LIST: Probe = Probe {
    title: "/proc/sysvipc/msg lists each queue of the namespace once",
    why: "cleaners walk the file; a queue that is missing there is never cleaned up",
    spec: &[kernel("ipc/util.c", "sysvipc_proc_next")],
    calls: &[Sys::Msgget],
    needs: &[Need::Path("/proc/sysvipc/msg")],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.msg.info.list", |cx| {
        cx.expect_eq("lines of an empty namespace", procfs::sysvipc("msg")?.len(), 0)?;
        let mut queues = (0..12).map(|_| cx.msg_queue(0o600)).collect::<Result<Vec<_>, _>>()?;
        for hole in [9, 4, 0] {
            queues.remove(hole);
        }
        let listed = procfs::sysvipc("msg")?;
        let ids = listed.iter().map(|row| row.number("msqid")).collect::<Result<Vec<_>, _>>()?;
        cx.expect_eq("identifiers", ids, queues.iter().map(|queue| i64::from(queue.id)).collect())
    })
};
