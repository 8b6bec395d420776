//! The sysctls fs.mqueue.*, in effect and per namespace, mq_overview(7).

use super::posix_fs::defaults;
use super::sysv_limits::write_refused;
use caps::Capability;
use libc::{CLONE_NEWIPC, EINVAL, ENOENT, ENOSPC, O_CREAT, O_EXCL, O_RDWR};
use shmcheck_probe::guard_queue::SMALL_MQ;
use shmcheck_probe::sys::{self, MqAttr};
use shmcheck_probe::{Context, Isolate, MqQueue, Namespace, Need, Outcome, Probe, Stop, Sys, doc, kernel, man, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &DEFAULTS,
    &QUEUES_MAX,
    &QUEUES_MAX_ROOT,
    &MSG_MAX,
    &MSGSIZE_MAX,
    &MSG_DEFAULT,
    &MSGSIZE_DEFAULT,
    &DEFAULT_CAPPED,
    &OUT_OF_RANGE,
    &NEW_DEFAULTS,
    &PER_NAMESPACE,
];

const INTERFACES: shmcheck_probe::Clause = doc("mq_overview(7)", "/proc interfaces");
const NO_RESOURCE: &[Capability] = &[Capability::CAP_SYS_RESOURCE];

/// A new queue with the default attributes.
fn by_default(cx: &mut Context) -> Result<MqAttr, Stop> {
    let name = cx.fresh_name();
    let fd = sys::mq_open(&name, O_CREAT | O_EXCL | O_RDWR, 0o600, None)?;
    Ok(MqQueue::adopt(name, fd).attr()?)
}

const DEFAULTS: Probe = Probe {
    title: "a queue without attributes gets msg_default and msgsize_default",
    why: "receivers that assume 10 and 8192 are right only on machines nobody tuned",
    spec: &[man("mq_open(3)", "DESCRIPTION"), INTERFACES],
    calls: &[Sys::MqOpen, Sys::MqGetsetattr],
    needs: &[Need::Path("/proc/sys/fs/mqueue/msg_default")],
    ..Probe::new("posix.mq.limits.defaults", |cx| {
        let attr = by_default(cx)?;
        cx.expect_eq("attributes", attr, MqAttr::new(defaults("msg")?, defaults("msgsize")?))
    })
};

/// One queue is there and the limit is one: what a second `mq_open` gives.
fn second_queue(cx: &mut Context, check: impl FnOnce(&mut Context, &str) -> Outcome) -> Outcome {
    let mut held = cx.mq(0)?;
    procfs::set_sysctl("fs/mqueue/queues_max", 1)?;
    let name = cx.fresh_name();
    check(cx, &name)?;
    cx.expect_ok(|| held.open(O_RDWR))?;
    Ok(held.unlink()?)
}
fn create(name: &str) -> sys::Result<std::os::fd::OwnedFd> {
    sys::mq_open(name, O_CREAT | O_RDWR, 0o600, Some(&SMALL_MQ))
}

const QUEUES_MAX: Probe = Probe {
    title: "one queue more than fs.mqueue.queues_max fails with ENOSPC",
    why: "'No space left on device' with an empty disk: leftover queues of crashed programs",
    fix: "remove leftovers from /dev/mqueue, or sysctl fs.mqueue.queues_max",
    spec: &[man("mq_open(3)", "ENOSPC"), INTERFACES, kernel("ipc/mqueue.c", "mqueue_create_attr")],
    calls: &[Sys::MqOpen],
    needs: &[Need::Sysctl("fs/mqueue/queues_max")],
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.mq.limits.queues-max-enospc", |cx| {
        second_queue(cx, |cx, name| {
            cx.without_caps(NO_RESOURCE, |cx| cx.expect_errno(ENOSPC, || create(name)))?;
            cx.expect_errno(ENOENT, || sys::mq_open(name, O_RDWR, 0, None))
        })?;
        // The held queue is gone: its place is free.
        let name = cx.fresh_name();
        cx.without_caps(NO_RESOURCE, |cx| {
            let fd = cx.expect_ok(|| create(&name))?;
            drop(MqQueue::adopt(name.clone(), fd));
            Ok(())
        })
    })
};

const QUEUES_MAX_ROOT: Probe = Probe {
    title: "CAP_SYS_RESOURCE makes queues beyond queues_max",
    why: "the administrator can still start his own service on a full system",
    spec: &[INTERFACES],
    calls: &[Sys::MqOpen],
    needs: &[Need::Sysctl("fs/mqueue/queues_max"), Need::InitCap(Capability::CAP_SYS_RESOURCE)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.mq.limits.queues-max-privileged", |cx| {
        second_queue(cx, |cx, name| {
            let fd = cx.expect_ok(|| create(name))?;
            drop(MqQueue::adopt(name.to_owned(), fd));
            Ok(())
        })
    })
};

/// Sets a limit; a queue at it is made, one beyond it is refused, one made before is as it was.
fn limited(cx: &mut Context, name: &str, limit: i64, attr: fn(i64) -> MqAttr) -> Outcome {
    let before = cx.mq_with(0, 0o600, &attr(limit + 1))?;
    procfs::set_sysctl(name, limit)?;
    cx.expect_eq("attributes of an older queue", before.attr()?, attr(limit + 1))?;
    cx.without_caps(NO_RESOURCE, |cx| {
        let refused = cx.fresh_name();
        cx.expect_errno(EINVAL, || sys::mq_open(&refused, O_CREAT | O_RDWR, 0o600, Some(&attr(limit + 1))))?;
        let fine = cx.fresh_name();
        let fd = cx.expect_ok(|| sys::mq_open(&fine, O_CREAT | O_RDWR, 0o600, Some(&attr(limit))))?;
        cx.expect_eq("attributes", MqQueue::adopt(fine, fd).attr()?, attr(limit))
    })
}

const MSG_MAX: Probe = Probe {
    title: "fs.mqueue.msg_max bounds mq_maxmsg of new queues",
    why: "it is the first limit everybody meets: eleven messages are 'Invalid argument'",
    fix: "docker run --sysctl fs.mqueue.msg_max=…",
    spec: &[man("mq_open(3)", "EINVAL"), INTERFACES],
    calls: &[Sys::MqOpen],
    needs: &[Need::Sysctl("fs/mqueue/msg_max")],
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.mq.limits.msg-max", |cx| limited(cx, "fs/mqueue/msg_max", 5, |limit| MqAttr::new(limit, 8)))
};
const MSGSIZE_MAX: Probe = Probe {
    title: "fs.mqueue.msgsize_max bounds mq_msgsize of new queues",
    why: "a queue for 9000-byte frames is 'Invalid argument' until it is raised",
    fix: "docker run --sysctl fs.mqueue.msgsize_max=…",
    spec: &[man("mq_open(3)", "EINVAL"), INTERFACES],
    calls: &[Sys::MqOpen],
    needs: &[Need::Sysctl("fs/mqueue/msgsize_max")],
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.mq.limits.msgsize-max", |cx| {
        limited(cx, "fs/mqueue/msgsize_max", 300, |limit| MqAttr::new(1, limit))
    })
};

const MSG_DEFAULT: Probe = Probe {
    title: "fs.mqueue.msg_default is mq_maxmsg of queues without attributes",
    why: "programs that pass no attributes are tuned by this sysctl; their queue would stay as short as before",
    spec: &[INTERFACES],
    calls: &[Sys::MqOpen],
    needs: &[Need::Sysctl("fs/mqueue/msg_default")],
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.mq.limits.msg-default", |cx| {
        procfs::set_sysctl("fs/mqueue/msg_default", 3)?;
        let attr = by_default(cx)?;
        cx.expect_eq("mq_maxmsg", attr.maxmsg, 3)
    })
};
const MSGSIZE_DEFAULT: Probe = Probe {
    title: "fs.mqueue.msgsize_default is mq_msgsize of queues without attributes",
    why: "programs that pass no attributes are tuned by this sysctl; their first long message would be EMSGSIZE",
    spec: &[INTERFACES],
    calls: &[Sys::MqOpen],
    needs: &[Need::Sysctl("fs/mqueue/msgsize_default")],
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.mq.limits.msgsize-default", |cx| {
        procfs::set_sysctl("fs/mqueue/msgsize_default", 333)?;
        let attr = by_default(cx)?;
        cx.expect_eq("mq_msgsize", attr.msgsize, 333)
    })
};

const DEFAULT_CAPPED: Probe = Probe {
    title: "the defaults are capped by msg_max and msgsize_max",
    why: "an administrator who lowers the limits must not make every mq_open with NULL fail",
    spec: &[INTERFACES],
    calls: &[Sys::MqOpen],
    needs: &[Need::Sysctl("fs/mqueue/msg_max"), Need::Sysctl("fs/mqueue/msgsize_max")],
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.mq.limits.defaults-capped", |cx| {
        procfs::set_sysctl("fs/mqueue/msg_max", 2)?;
        procfs::set_sysctl("fs/mqueue/msgsize_max", 200)?;
        let attr = by_default(cx)?;
        cx.expect_eq("attributes", attr, MqAttr::new(2, 200))
    })
};

const OUT_OF_RANGE: Probe = Probe {
    title: "the limits take 1 to 65536 messages of 128 bytes to 16 MiB",
    why: "these are the bounds no administrator can move: larger queues need another design",
    spec: &[INTERFACES, kernel("ipc/mq_sysctl.c", "mq_sysctls")],
    calls: &[Sys::MqOpen],
    needs: &[
        Need::Sysctl("fs/mqueue/msg_max"),
        Need::Sysctl("fs/mqueue/msg_default"),
        Need::Sysctl("fs/mqueue/msgsize_max"),
        Need::Sysctl("fs/mqueue/msgsize_default"),
    ],
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.mq.limits.range", |cx| {
        for (kind, low, high) in [("msg", 1_i64, 65_536_i64), ("msgsize", 128, 16 << 20)] {
            for name in ["max", "default"].map(|end| format!("fs/mqueue/{kind}_{end}")) {
                write_refused(cx, &name, &(low - 1).to_string())?;
                write_refused(cx, &name, &(high + 1).to_string())?;
                for value in [low, high] {
                    procfs::set_sysctl(&name, value)?;
                    cx.expect_eq(&name, procfs::sysctl_number::<i64>(&name)?, value)?;
                }
            }
        }
        Ok(())
    })
};

const NEW_DEFAULTS: Probe = Probe {
    title: "a new IPC namespace starts with the kernel's own queue limits",
    why: "a container does not inherit the host's tuned msg_max: it must be set with --sysctl",
    spec: &[INTERFACES, kernel("ipc/mqueue.c", "mq_init_ns")],
    calls: &[Sys::MqOpen, Sys::Unshare],
    needs: &[Need::Sysctl("fs/mqueue/msg_default"), Need::New(Namespace::Ipc)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.mq.limits.new-defaults", |cx| {
        procfs::set_sysctl("fs/mqueue/msg_default", 3)?;
        let attr = cx.elsewhere(|cx| {
            sys::unshare(CLONE_NEWIPC)?;
            let attr = by_default(cx)?;
            Ok((attr.maxmsg, attr.msgsize, procfs::sysctl_number::<i64>("fs/mqueue/queues_max")?))
        })?;
        cx.expect_eq("mq_maxmsg, mq_msgsize, queues_max", attr, (10, 8192, 256))
    })
};

const PER_NAMESPACE: Probe = Probe {
    title: "a queue limit set in one IPC namespace leaves the other's as it is",
    why: "one tenant's tuning must not touch its neighbour",
    spec: &[doc("ipc_namespaces(7)", "DESCRIPTION"), kernel("ipc/mq_sysctl.c", "setup_mq_sysctls")],
    calls: &[Sys::MqOpen, Sys::Unshare],
    needs: &[Need::Sysctl("fs/mqueue/msg_default"), Need::New(Namespace::Ipc)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.mq.limits.per-namespace", |cx| {
        let inside = cx.elsewhere(|cx| {
            sys::unshare(CLONE_NEWIPC)?;
            procfs::set_sysctl("fs/mqueue/msg_default", 3)?;
            Ok(by_default(cx)?.maxmsg)
        })?;
        let outside = by_default(cx)?.maxmsg;
        cx.expect_eq("mq_maxmsg inside, outside", (inside, outside), (3, 10))
    })
};
