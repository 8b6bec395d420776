//! mq_getattr(3), mq_setattr(3), and the attributes that mq_open(3) takes.

use caps::Capability;
use libc::{EBADF, EFAULT, EINVAL, ENOENT, O_CREAT, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY};
use shmcheck_probe::sys::{self, MqAttr};
use shmcheck_probe::{Context, Need, Outcome, Probe, Sys, doc, kernel, man, posix};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &GET_ALL,
    &GET_COUNTS,
    &SET_NONBLOCK,
    &SET_NOTHING_ELSE,
    &SET_OLD,
    &SET_EINVAL,
    &SET_FCNTL,
    &SET_SHARED,
    &EBADF_ALL,
    &EFAULT_ALL,
    &OPEN_ZERO,
    &OPEN_OVER,
    &OPEN_PRIVILEGED,
    &OPEN_HARD,
];

const GET_ALL: Probe = Probe {
    title: "mq_getattr gives what the queue was created with, to everybody",
    why: "receivers size their buffers by mq_msgsize",
    spec: &[man("mq_getattr(3)", "DESCRIPTION"), posix("mq_getattr")],
    calls: &[Sys::MqGetsetattr, Sys::MqOpen],
    ..Probe::new("posix.mq.attr.get", |cx| {
        let queue = cx.mq_with(0, 0o600, &MqAttr::new(7, 33))?;
        for flags in [O_RDONLY, O_WRONLY] {
            let other = queue.open(flags)?;
            let attr = cx.elsewhere(|_| {
                let attr = sys::mq_getattr(other.as_raw_fd())?;
                Ok((attr.flags, attr.maxmsg, attr.msgsize, attr.curmsgs))
            })?;
            cx.expect_eq("mq_flags, mq_maxmsg, mq_msgsize, mq_curmsgs", attr, (0, 7, 33, 0))?;
        }
        Ok(())
    })
};

const GET_COUNTS: Probe = Probe {
    title: "mq_curmsgs goes up with every send and down with every receive",
    why: "autoscalers start workers by the backlog",
    spec: &[man("mq_getattr(3)", "DESCRIPTION")],
    calls: &[Sys::MqGetsetattr, Sys::MqTimedsend, Sys::MqTimedreceive],
    ..Probe::new("posix.mq.attr.counts", |cx| {
        let queue = cx.mq(0)?;
        for count in 1..=4 {
            queue.send(b"x", count)?;
            cx.expect_eq("mq_curmsgs", queue.attr()?.curmsgs, count.into())?;
        }
        for count in (0..4).rev() {
            queue.receive()?;
            cx.expect_eq("mq_curmsgs", queue.attr()?.curmsgs, count)?;
        }
        Ok(())
    })
};

const SET_NONBLOCK: Probe = Probe {
    title: "mq_setattr switches O_NONBLOCK on and off, with effect",
    why: "libraries are handed a descriptor and make it fit their event loop",
    spec: &[man("mq_getattr(3)", "DESCRIPTION"), posix("mq_setattr")],
    calls: &[Sys::MqGetsetattr, Sys::MqTimedreceive],
    ..Probe::new("posix.mq.attr.set-nonblock", |cx| {
        let queue = cx.mq(0)?;
        sys::mq_setattr(queue.fd(), &MqAttr { flags: O_NONBLOCK.into(), ..MqAttr::default() })?;
        cx.expect_errno(libc::EAGAIN, || queue.receive())?;
        sys::mq_setattr(queue.fd(), &MqAttr::default())?;
        cx.expect_eq("mq_flags", queue.attr()?.flags, 0)?;
        // Blocking again: the time runs out, instead of EAGAIN.
        let until = super::posix_send::after(1);
        cx.expect_errno(libc::ETIMEDOUT, || sys::mq_timedreceive(queue.fd(), 64, until))
    })
};

const SET_NOTHING_ELSE: Probe = Probe {
    title: "mq_setattr ignores every member but mq_flags",
    why: "a queue that could be shrunk in operation would lose messages",
    spec: &[man("mq_getattr(3)", "DESCRIPTION"), posix("mq_setattr")],
    calls: &[Sys::MqGetsetattr],
    ..Probe::new("posix.mq.attr.set-nothing-else", |cx| {
        let queue = cx.mq(0)?;
        queue.send(b"x", 0)?;
        let before = queue.attr()?;
        sys::mq_setattr(queue.fd(), &MqAttr { flags: 0, maxmsg: 1, msgsize: -5, curmsgs: 0 })?;
        cx.expect_eq("attributes", queue.attr()?, before)
    })
};

const SET_OLD: Probe = Probe {
    title: "mq_setattr hands the attributes before the change back",
    why: "a library that changes O_NONBLOCK for one call restores the flag it found; a wrong answer leaves callers blocking",
    spec: &[man("mq_getattr(3)", "DESCRIPTION"), posix("mq_setattr")],
    calls: &[Sys::MqGetsetattr],
    ..Probe::new("posix.mq.attr.set-old", |cx| {
        let queue = cx.mq(O_NONBLOCK)?;
        queue.send(b"x", 0)?;
        let before = queue.attr()?;
        cx.expect_eq("mq_flags", before.flags, O_NONBLOCK.into())?;
        cx.expect_eq("old attributes", sys::mq_setattr(queue.fd(), &MqAttr::default())?, before)?;
        cx.expect_eq("mq_flags", queue.attr()?.flags, 0)
    })
};

const SET_EINVAL: Probe = Probe {
    title: "mq_setattr of any other flag fails with EINVAL and changes nothing",
    why: "O_NDELAY of another system must not silently mean something else",
    spec: &[man("mq_getattr(3)", "EINVAL")],
    calls: &[Sys::MqGetsetattr],
    ..Probe::new("posix.mq.attr.set-einval", |cx| {
        let queue = cx.mq(0)?;
        for flags in [libc::O_APPEND, O_NONBLOCK | O_RDWR, O_NONBLOCK | libc::O_CLOEXEC] {
            cx.expect_errno(EINVAL, || {
                sys::mq_setattr(queue.fd(), &MqAttr { flags: flags.into(), ..MqAttr::default() })
            })?;
        }
        cx.expect_errno(EINVAL, || sys::mq_setattr(queue.fd(), &MqAttr { flags: -1, ..MqAttr::default() }))?;
        cx.expect_eq("mq_flags", queue.attr()?.flags, 0)
    })
};

const SET_FCNTL: Probe = Probe {
    title: "fcntl(F_SETFL) and mq_setattr switch one and the same flag",
    why: "event libraries know descriptors, not queues",
    spec: &[
        doc("mq_overview(7)", "Linux implementation of message queue descriptors"),
        kernel("ipc/mqueue.c", "do_mq_getsetattr"),
    ],
    calls: &[Sys::MqGetsetattr],
    ..Probe::new("posix.mq.attr.set-fcntl", |cx| {
        let queue = cx.mq(0)?;
        sys::fcntl(queue.fd(), libc::F_SETFL, O_NONBLOCK)?;
        cx.expect_eq("mq_flags after F_SETFL", queue.attr()?.flags, O_NONBLOCK.into())?;
        sys::mq_setattr(queue.fd(), &MqAttr::default())?;
        cx.expect_eq("O_NONBLOCK in F_GETFL", sys::fcntl(queue.fd(), libc::F_GETFL, 0)? & O_NONBLOCK, 0)
    })
};

const SET_SHARED: Probe = Probe {
    title: "parent and child share O_NONBLOCK of the inherited descriptor",
    why: "a child that makes it non-blocking breaks the parent's wait: both must know",
    spec: &[doc("mq_overview(7)", "DESCRIPTION")],
    calls: &[Sys::MqGetsetattr],
    ..Probe::new("posix.mq.attr.set-shared", |cx| {
        let queue = cx.mq(0)?;
        let fd = queue.fd();
        cx.elsewhere(|_| {
            Ok(sys::mq_setattr(fd, &MqAttr { flags: O_NONBLOCK.into(), ..MqAttr::default() }).map(|_| ())?)
        })?;
        cx.expect_errno(libc::EAGAIN, || queue.receive())
    })
};

const EBADF_ALL: Probe = Probe {
    title: "mq_getattr, mq_setattr of a number that is no queue fail with EBADF",
    why: "descriptors are recycled; a socket has no attributes",
    spec: &[man("mq_getattr(3)", "EBADF"), posix("mq_getattr")],
    calls: &[Sys::MqGetsetattr],
    ..Probe::new("posix.mq.attr.ebadf", |cx| {
        let (pipe, _writing) = sys::pipe()?;
        for fd in [-1, 1_000_000, pipe.as_raw_fd()] {
            cx.expect_errno(EBADF, || sys::mq_getattr(fd))?;
            cx.expect_errno(EBADF, || sys::mq_setattr(fd, &MqAttr::default()))?;
        }
        Ok(())
    })
};

const EFAULT_ALL: Probe = Probe {
    title: "the system call refuses attributes in missing memory with EFAULT",
    why: "a lost pointer is an error code in the log",
    spec: &[kernel("ipc/mqueue.c", "mq_getsetattr")],
    calls: &[Sys::MqGetsetattr],
    ..Probe::new("posix.mq.attr.efault", |cx| {
        let queue = cx.mq(0)?;
        for arguments in [[queue.fd().into(), 1, 0], [queue.fd().into(), 0, 1]] {
            cx.expect_errno(EFAULT, || sys::raw::numbers(Sys::MqGetsetattr, &arguments))?;
        }
        // Neither a new nor an old value is asked for: nothing to do.
        cx.expect_ok(|| sys::raw::numbers(Sys::MqGetsetattr, &[queue.fd().into(), 0, 0])).map(drop)
    })
};

/// `mq_open` with each of these attributes is refused with EINVAL, and makes no queue.
fn refused(cx: &mut Context, attributes: &[MqAttr]) -> Outcome {
    let name = cx.fresh_name();
    for attr in attributes {
        cx.expect_errno(EINVAL, || sys::mq_open(&name, O_CREAT | O_RDWR, 0o600, Some(attr)))?;
    }
    cx.expect_errno(ENOENT, || sys::mq_open(&name, O_RDWR, 0, None))
}

const OPEN_ZERO: Probe = Probe {
    title: "a queue for no message, or for messages of no byte: EINVAL",
    why: "forgotten members of the structure are 0; a queue that takes nothing would block its first sender for ever",
    spec: &[man("mq_open(3)", "EINVAL"), posix("mq_open")],
    calls: &[Sys::MqOpen],
    ..Probe::new("posix.mq.attr.open-zero-einval", |cx| {
        cx.mq_with(0, 0o600, &MqAttr::new(1, 1))?;
        refused(cx, &[MqAttr::new(0, 8), MqAttr::new(8, 0), MqAttr::new(-1, 8), MqAttr::new(8, -1)])
    })
};

const OPEN_OVER: Probe = Probe {
    title: "attributes beyond msg_max or msgsize_max fail with EINVAL",
    why: "the most frequent puzzle of all: 'Invalid argument' means that the queue is larger than fs.mqueue allows",
    fix: "sysctl fs.mqueue.msg_max and fs.mqueue.msgsize_max: docker run --sysctl fs.mqueue.msg_max=…",
    spec: &[man("mq_open(3)", "EINVAL"), doc("mq_overview(7)", "/proc interfaces")],
    calls: &[Sys::MqOpen],
    needs: &[Need::Path("/proc/sys/fs/mqueue/msg_max"), Need::Path("/proc/sys/fs/mqueue/msgsize_max")],
    ..Probe::new("posix.mq.attr.open-over-einval", |cx| {
        let maxmsg: i64 = shmcheck_probe::procfs::sysctl_number("fs/mqueue/msg_max")?;
        let msgsize: i64 = shmcheck_probe::procfs::sysctl_number("fs/mqueue/msgsize_max")?;
        cx.without_caps(&[Capability::CAP_SYS_RESOURCE], |cx| {
            refused(cx, &[MqAttr::new(maxmsg + 1, 1), MqAttr::new(1, msgsize + 1), MqAttr::new(i64::MAX, i64::MAX)])
        })
    })
};

const OPEN_PRIVILEGED: Probe = Probe {
    title: "CAP_SYS_RESOURCE makes queues beyond msg_max and msgsize_max",
    why: "system daemons get their large queues without raising the limits for all",
    varies: "root in a default container does not have the capability",
    spec: &[doc("mq_overview(7)", "/proc interfaces"), man("mq_open(3)", "EINVAL")],
    calls: &[Sys::MqOpen],
    needs: &[Need::InitCap(Capability::CAP_SYS_RESOURCE)],
    ..Probe::new("posix.mq.attr.open-privileged", |cx| {
        sys::setrlimit(libc::RLIMIT_MSGQUEUE, libc::RLIM_INFINITY, libc::RLIM_INFINITY)?;
        for attr in [MqAttr::new(65_536, 1), MqAttr::new(1, 16 << 20)] {
            let queue = cx.mq_with(0, 0o600, &attr)?;
            cx.expect_eq("attributes", queue.attr()?, attr)?;
        }
        cx.without_caps(&[Capability::CAP_SYS_RESOURCE], |cx| refused(cx, &[MqAttr::new(65_536, 1)]))
    })
};

const OPEN_HARD: Probe = Probe {
    title: "not even CAP_SYS_RESOURCE goes beyond 65536 messages of 16 MiB",
    why: "kernel memory of a queue is bounded whatever a daemon computes",
    spec: &[man("mq_open(3)", "EINVAL"), doc("mq_overview(7)", "/proc interfaces")],
    calls: &[Sys::MqOpen],
    needs: &[Need::InitCap(Capability::CAP_SYS_RESOURCE)],
    ..Probe::new("posix.mq.attr.open-hard-einval", |cx| {
        refused(cx, &[MqAttr::new(65_537, 1), MqAttr::new(1, (16 << 20) + 1)])
    })
};
