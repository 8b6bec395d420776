//! The sysctls of System V queues, in effect and per IPC namespace.

use libc::{CLONE_NEWIPC, EINVAL, ENOENT, ENOSPC};
use shmcheck_probe::sys::{self, IPC_CREAT, IPC_INFO, IPC_NOWAIT};
use shmcheck_probe::{Context, Isolate, MsgQueue, Namespace, Need, Outcome, Probe, Sys, doc, kernel, man, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &MSGMAX_LOWER,
    &MSGMAX_RAISE,
    &MSGMNB_NEW,
    &MSGMNI_ENOSPC,
    &MSGMNI_PRIVATE,
    &OUT_OF_RANGE,
    &AUTO_MSGMNI,
    &NEXT_ID,
    &NEXT_ID_ONCE,
    &NEXT_ID_TAKEN,
    &NEW_DEFAULTS,
    &PER_NAMESPACE,
];

const MSGMAX_LOWER: Probe = Probe {
    title: "a lower kernel.msgmax refuses longer messages at once",
    why: "an administrator bounds what one message may cost",
    spec: &[man("msgop(2)", "NOTES"), man("msgop(2)", "EINVAL")],
    calls: &[Sys::Msgsnd],
    needs: &[Need::Sysctl("kernel/msgmax")],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.msg.limits.msgmax-lower", |cx| {
        let queue = cx.msg_queue(0o600)?;
        sys::msgsnd(queue.id, 1, &[1; 101], IPC_NOWAIT)?;
        procfs::set_sysctl("kernel/msgmax", 100)?;
        cx.expect_errno(EINVAL, || sys::msgsnd(queue.id, 1, &[1; 101], IPC_NOWAIT))?;
        cx.expect_ok(|| sys::msgsnd(queue.id, 1, &[1; 100], IPC_NOWAIT))?;
        cx.expect_eq("msgmax of IPC_INFO", sys::msg_info(IPC_INFO)?.1.msgmax, 100)?;
        // What is in the queue already is received whole.
        cx.expect_eq("length of the older message", sys::msgrcv(queue.id, 200, 0, IPC_NOWAIT)?.text.len(), 101)
    })
};

const MSGMAX_RAISE: Probe = Probe {
    title: "a higher kernel.msgmax takes longer messages, whole",
    why: "SAP and others ask for msgmax 65536 and send such messages",
    fix: "docker run --sysctl kernel.msgmax=65536 --sysctl kernel.msgmnb=65536",
    spec: &[man("msgop(2)", "NOTES"), kernel("ipc/msgutil.c", "alloc_msg")],
    calls: &[Sys::Msgsnd, Sys::Msgrcv],
    needs: &[Need::Sysctl("kernel/msgmax"), Need::Sysctl("kernel/msgmnb")],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.msg.limits.msgmax-raise", |cx| {
        const SIZE: usize = 65_536;
        procfs::set_sysctl("kernel/msgmax", SIZE)?;
        procfs::set_sysctl("kernel/msgmnb", SIZE)?;
        let queue = cx.msg_queue(0o600)?;
        let text = super::sysv_send::pattern(SIZE);
        cx.expect_ok(|| sys::msgsnd(queue.id, 1, &text, IPC_NOWAIT))?;
        let got = sys::msgrcv(queue.id, SIZE, 0, IPC_NOWAIT)?;
        cx.expect("bytes", got.text == text, "all equal", got.text.len())
    })
};

const MSGMNB_NEW: Probe = Probe {
    title: "kernel.msgmnb is the size of queues made later, not of older ones",
    why: "after raising it the programs must be restarted: this is why",
    spec: &[man("msgop(2)", "NOTES"), man("msgget(2)", "DESCRIPTION")],
    calls: &[Sys::Msgget, Sys::Msgctl],
    needs: &[Need::Sysctl("kernel/msgmnb")],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.msg.limits.msgmnb-new", |cx| {
        let old = cx.msg_queue(0o600)?;
        let before = old.stat()?.qbytes;
        procfs::set_sysctl("kernel/msgmnb", 12_345)?;
        cx.expect_eq("msg_qbytes of the older queue", old.stat()?.qbytes, before)?;
        let new = cx.msg_queue(0o600)?;
        cx.expect_eq("msg_qbytes of the new queue", new.stat()?.qbytes, 12_345)
    })
};

const MSGMNI_ENOSPC: Probe = Probe {
    title: "one queue more than kernel.msgmni fails with ENOSPC",
    why: "programs that leak queues end here: 'No space left on device' with an empty disk",
    fix: "ipcs -q and ipcrm, or sysctl kernel.msgmni",
    spec: &[man("msgget(2)", "ENOSPC")],
    calls: &[Sys::Msgget],
    needs: &[Need::Sysctl("kernel/msgmni")],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.msg.limits.msgmni-enospc", |cx| {
        procfs::set_sysctl("kernel/msgmni", 2)?;
        let (one, mut two) = (cx.msg_queue(0o600)?, cx.msg_queue(0o600)?);
        let key = cx.fresh_key();
        cx.expect_errno(ENOSPC, || sys::msgget(key, IPC_CREAT | 0o600))?;
        cx.expect_errno(ENOENT, || sys::msgget(key, 0))?;
        cx.expect_ok(|| sys::msgget(one.key, IPC_CREAT | 0o600))?;
        two.remove()?;
        cx.expect_ok(|| MsgQueue::get(key, IPC_CREAT | 0o600)).map(drop)
    })
};

const MSGMNI_PRIVATE: Probe = Probe {
    title: "kernel.msgmni holds for IPC_PRIVATE queues too, and may be 0",
    why: "a namespace with 0 has no queues at all, by whatever key",
    spec: &[man("msgget(2)", "ENOSPC")],
    calls: &[Sys::Msgget],
    needs: &[Need::Sysctl("kernel/msgmni")],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.msg.limits.msgmni-private", |cx| {
        procfs::set_sysctl("kernel/msgmni", 0)?;
        cx.expect_errno(ENOSPC, || sys::msgget(sys::IPC_PRIVATE, 0o600))?;
        cx.expect_eq("queues", sys::msg_info(sys::MSG_INFO)?.1.msgpool, 0)
    })
};

/// Writes a sysctl that is to be refused.
pub(super) fn write_refused(cx: &Context, name: &str, value: &str) -> Outcome {
    let before = procfs::sysctl(name)?;
    let wrote = std::fs::write(format!("/proc/sys/{name}"), value);
    let errno = wrote.err().and_then(|e| e.raw_os_error()).unwrap_or(0);
    cx.expect_eq(&format!("errno of writing {value} to {name}"), sys::errno_name(errno), sys::errno_name(EINVAL))?;
    cx.expect_eq(name, procfs::sysctl(name)?, before)
}

const OUT_OF_RANGE: Probe = Probe {
    title: "negative and too large values of the limits are refused with EINVAL",
    why: "a typing error in sysctl.conf must not turn a limit into its opposite",
    spec: &[kernel("ipc/ipc_sysctl.c", "ipc_sysctls")],
    calls: &[Sys::Msgget],
    needs: &[Need::Sysctl("kernel/msgmax"), Need::Sysctl("kernel/msgmnb"), Need::Sysctl("kernel/msgmni")],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.msg.limits.out-of-range", |cx| {
        for name in ["kernel/msgmax", "kernel/msgmnb", "kernel/msgmni"] {
            write_refused(cx, name, "-1")?;
            write_refused(cx, name, "2147483648")?;
        }
        // The number of identifiers is 2¹⁵, or 2²⁴ with ipcmni_extend.
        write_refused(cx, "kernel/msgmni", "16777217")
    })
};

const AUTO_MSGMNI: Probe = Probe {
    title: "kernel.auto_msgmni has no effect: it reads 0 and changes nothing",
    why: "old tuning guides set it; it must neither fail nor change msgmni",
    spec: &[doc("Documentation/admin-guide/sysctl/kernel.rst", "auto_msgmni")],
    calls: &[Sys::Msgget],
    needs: &[Need::Sysctl("kernel/auto_msgmni")],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.msg.limits.auto-msgmni", |cx| {
        let before = procfs::sysctl("kernel/msgmni")?;
        for value in [1, 0] {
            procfs::set_sysctl("kernel/auto_msgmni", value)?;
            cx.expect_eq("auto_msgmni", procfs::sysctl("kernel/auto_msgmni")?, "0".to_owned())?;
            cx.expect_eq("msgmni", procfs::sysctl("kernel/msgmni")?, before.clone())?;
        }
        Ok(())
    })
};

const NEXT_ID: Probe = Probe {
    title: "kernel.msg_next_id gives the next queue this identifier",
    why: "CRIU restores queues under the identifiers that the restored processes remember",
    spec: &[doc("Documentation/admin-guide/sysctl/kernel.rst", "msg_next_id")],
    calls: &[Sys::Msgget],
    needs: &[Need::Sysctl("kernel/msg_next_id")],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.msg.limits.next-id", |cx| {
        const WANTED: i32 = 12 << 24 | 77;
        procfs::set_sysctl("kernel/msg_next_id", WANTED)?;
        let queue = cx.msg_queue(0o600)?;
        cx.expect_eq("identifier", queue.id, WANTED)?;
        cx.expect_ok(|| queue.put(1, b"x"))
    })
};

const NEXT_ID_ONCE: Probe = Probe {
    title: "kernel.msg_next_id counts for one queue and is -1 again",
    why: "the next program's queue must not collide with the restored one",
    spec: &[doc("Documentation/admin-guide/sysctl/kernel.rst", "msg_next_id"), kernel("ipc/util.c", "ipc_idr_alloc")],
    calls: &[Sys::Msgget],
    needs: &[Need::Sysctl("kernel/msg_next_id")],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.msg.limits.next-id-once", |cx| {
        procfs::set_sysctl("kernel/msg_next_id", 55)?;
        let one = cx.msg_queue(0o600)?;
        cx.expect_eq("identifier of the first", one.id, 55)?;
        cx.expect_eq("msg_next_id", procfs::sysctl("kernel/msg_next_id")?, "-1".to_owned())?;
        let two = cx.msg_queue(0o600)?;
        cx.expect_ne("identifier of the second", two.id, 55)
    })
};

const NEXT_ID_TAKEN: Probe = Probe {
    title: "a taken kernel.msg_next_id gives another identifier, not an error",
    why: "CRIU compares and reports; two queues with one identifier would be the end of both",
    spec: &[kernel("ipc/util.c", "ipc_idr_alloc")],
    calls: &[Sys::Msgget],
    needs: &[Need::Sysctl("kernel/msg_next_id")],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.msg.limits.next-id-taken", |cx| {
        let held = cx.msg_queue(0o600)?;
        procfs::set_sysctl("kernel/msg_next_id", held.id)?;
        let other = cx.msg_queue(0o600)?;
        cx.expect_ne("identifier", other.id, held.id)?;
        other.put(1, b"x")?;
        cx.expect_eq("messages in the first queue", held.stat()?.qnum, 0)
    })
};

const NEW_DEFAULTS: Probe = Probe {
    title: "a new IPC namespace starts with the kernel's own limits",
    why: "a container does not inherit the host's tuned msgmax: it must be set with --sysctl",
    spec: &[kernel("ipc/msg.c", "msg_init_ns"), man("msgop(2)", "NOTES")],
    calls: &[Sys::Msgctl, Sys::Unshare],
    needs: &[Need::Sysctl("kernel/msgmax"), Need::New(Namespace::Ipc)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.msg.limits.new-defaults", |cx| {
        procfs::set_sysctl("kernel/msgmax", 100)?;
        let (max, mnb, mni) = cx.elsewhere(|_| {
            sys::unshare(CLONE_NEWIPC)?;
            let (_, info) = sys::msg_info(IPC_INFO)?;
            Ok((info.msgmax, info.msgmnb, info.msgmni))
        })?;
        cx.expect_eq("msgmax, msgmnb, msgmni", (max, mnb, mni), (8192, 16_384, 32_000))
    })
};

const PER_NAMESPACE: Probe = Probe {
    title: "a limit set in one IPC namespace leaves the other's as it is",
    why: "one tenant's tuning must not touch its neighbour",
    spec: &[doc("ipc_namespaces(7)", "DESCRIPTION"), kernel("ipc/ipc_sysctl.c", "setup_ipc_sysctls")],
    calls: &[Sys::Msgsnd, Sys::Unshare],
    needs: &[Need::Sysctl("kernel/msgmax"), Need::New(Namespace::Ipc)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.msg.limits.per-namespace", |cx| {
        let queue = cx.msg_queue(0o600)?;
        let before = procfs::sysctl("kernel/msgmax")?;
        cx.elsewhere(|cx| {
            sys::unshare(CLONE_NEWIPC)?;
            procfs::set_sysctl("kernel/msgmax", 10)?;
            let own = cx.msg_queue(0o600)?;
            cx.expect_errno(EINVAL, || own.put(1, &[0; 11]))
        })?;
        cx.expect_eq("kernel.msgmax outside", procfs::sysctl("kernel/msgmax")?, before)?;
        cx.expect_ok(|| queue.put(1, &[0; 11]))
    })
};
