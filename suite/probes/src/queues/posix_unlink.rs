//! mq_unlink(3), mq_close(3): the end of a name, of a descriptor, of a queue.

use libc::{EACCES, EBADF, EEXIST, ENAMETOOLONG, ENOENT, EPERM, O_CREAT, O_EXCL, O_RDONLY, O_RDWR};
use shmcheck_probe::guard_queue::SMALL_MQ;
use shmcheck_probe::{Isolate, MqQueue, Need, Probe, Sys, doc, kernel, man, posix, procfs, sys};
use std::os::fd::{AsRawFd, IntoRawFd};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &NAME_GONE,
    &OPEN_LIVES,
    &NAME_FREE,
    &NO_NAME,
    &TOO_LONG,
    &STICKY,
    &DIRECTORY_EACCES,
    &SURVIVES_PROCESS,
    &SURVIVES_CLOSE,
    &LAST_CLOSE,
    &CLOSE_EBADF,
    &CLOSE_OTHER,
    &FORK_SHARES,
];

const NAME_GONE: Probe = Probe {
    title: "mq_unlink removes the name at once, also while the queue is open",
    why: "a restarting server unlinks first and must not find its old queue in the next line",
    spec: &[man("mq_unlink(3)", "DESCRIPTION"), man("mq_unlink(3)", "ENOENT"), posix("mq_unlink")],
    calls: &[Sys::MqUnlink],
    ..Probe::new("posix.mq.unlink.name-gone", |cx| {
        let mut queue = cx.mq(0)?;
        queue.unlink()?;
        let name = queue.name.clone();
        cx.elsewhere(|cx| cx.expect_errno(ENOENT, || sys::mq_open(&name, O_RDONLY, 0, None)))?;
        cx.expect_errno(ENOENT, || sys::mq_unlink(&name))
    })
};

const OPEN_LIVES: Probe = Probe {
    title: "an unlinked queue works on between those who have it open",
    why: "anonymous queues between parent and children are made this way and leave nothing behind",
    spec: &[man("mq_unlink(3)", "DESCRIPTION"), posix("mq_unlink")],
    calls: &[Sys::MqUnlink, Sys::MqTimedsend, Sys::MqTimedreceive],
    ..Probe::new("posix.mq.unlink.open-lives", |cx| {
        let mut queue = cx.mq(0)?;
        queue.send(b"before", 0)?;
        queue.unlink()?;
        cx.elsewhere(|cx| cx.expect_ok(|| queue.send(b"after", 0)))?;
        for wanted in [&b"before"[..], b"after"] {
            cx.expect_eq("message", queue.receive()?.0, wanted.to_vec())?;
        }
        cx.expect_eq("links", sys::fstat(queue.fd())?.st_nlink, 0)
    })
};

const NAME_FREE: Probe = Probe {
    title: "an unlinked name is free: a new queue of it is another one",
    why: "server generations overlap during an upgrade; their messages must not mix",
    spec: &[man("mq_unlink(3)", "DESCRIPTION"), posix("mq_unlink")],
    calls: &[Sys::MqUnlink, Sys::MqOpen],
    ..Probe::new("posix.mq.unlink.name-free", |cx| {
        let mut old = cx.mq(0)?;
        cx.expect_errno(EEXIST, || sys::mq_open(&old.name, O_CREAT | O_EXCL | O_RDWR, 0o600, Some(&SMALL_MQ)))?;
        old.send(b"old", 0)?;
        old.unlink()?;
        let fd = cx.expect_ok(|| sys::mq_open(&old.name, O_CREAT | O_EXCL | O_RDWR, 0o600, Some(&SMALL_MQ)))?;
        let new = MqQueue::adopt(old.name.clone(), fd);
        cx.expect_eq("messages in the old and the new", (old.attr()?.curmsgs, new.attr()?.curmsgs), (1, 0))
    })
};

const NO_NAME: Probe = Probe {
    title: "mq_unlink of a name that never was fails with ENOENT",
    why: "clean-up code ignores exactly this errno",
    spec: &[man("mq_unlink(3)", "ENOENT"), posix("mq_unlink")],
    calls: &[Sys::MqUnlink],
    ..Probe::new("posix.mq.unlink.no-name-enoent", |cx| {
        let name = cx.fresh_name();
        cx.expect_errno(ENOENT, || sys::mq_unlink(&name))?;
        cx.expect_errno(ENOENT, || sys::mq_unlink("/"))
    })
};

const TOO_LONG: Probe = Probe {
    title: "mq_unlink of more than NAME_MAX bytes fails with ENAMETOOLONG",
    why: "cut silently, it would remove another program's queue",
    spec: &[man("mq_unlink(3)", "ENAMETOOLONG"), posix("mq_unlink")],
    calls: &[Sys::MqUnlink],
    ..Probe::new("posix.mq.unlink.too-long", |cx| {
        let name = super::posix_open::long_name(cx, 256);
        cx.expect_errno(ENAMETOOLONG, || sys::mq_unlink(&name))
    })
};

const STICKY: Probe = Probe {
    title: "mq_unlink of another user's queue is refused, though he may use it",
    why: "any user who could remove the name would stop the service of all",
    varies: "Linux says EPERM, as its sticky directory does; POSIX and the manual say EACCES",
    spec: &[
        posix("mq_unlink"),
        kernel("fs/namei.c", "may_delete"),
        doc("mq_overview(7)", "Mounting the message queue filesystem"),
    ],
    calls: &[Sys::MqUnlink],
    needs: &[Need::OtherUsers],
    ..Probe::new("posix.mq.unlink.other-user", |cx| {
        sys::umask(0);
        let queue = cx.mq_with(0, 0o666, &SMALL_MQ)?;
        cx.as_user(1, 1, |cx| {
            cx.expect_ok(|| queue.open(O_RDWR))?;
            cx.expect_errno_of(&[EPERM, EACCES], || sys::mq_unlink(&queue.name))
        })?;
        cx.expect_ok(|| queue.open(O_RDWR)).map(drop)
    })
};

/// Takes the write permission for others away from the directory of all queues of this namespace.
pub(super) fn close_directory() -> Result<(), shmcheck_probe::Stop> {
    use std::os::unix::fs::PermissionsExt;
    let place = procfs::mqueue_place().unwrap_or("/dev/mqueue");
    Ok(std::fs::set_permissions(place, std::fs::Permissions::from_mode(0o755))?)
}

const DIRECTORY_EACCES: Probe = Probe {
    title: "mq_unlink without write permission on the directory: EACCES",
    why: "an administrator closes /dev/mqueue to ordinary users; also their own queues stay then",
    spec: &[man("mq_unlink(3)", "EACCES"), posix("mq_unlink")],
    calls: &[Sys::MqUnlink],
    needs: &[Need::OtherUsers, Need::Mqueue],
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.mq.unlink.directory-eacces", |cx| {
        let name = cx.fresh_name();
        cx.as_user(1, 1, |_| {
            drop(sys::mq_open(&name, O_CREAT | O_RDWR, 0o600, Some(&SMALL_MQ))?);
            Ok(())
        })?;
        close_directory()?;
        cx.as_user(1, 1, |cx| {
            cx.expect_ok(|| sys::mq_open(&name, O_RDWR, 0, None))?;
            cx.expect_errno(EACCES, || sys::mq_unlink(&name))
        })?;
        cx.expect_ok(|| sys::mq_unlink(&name))
    })
};

const SURVIVES_PROCESS: Probe = Probe {
    title: "a POSIX queue with its messages outlives the process that made it",
    why: "the worker that starts later finds what the batch program left; leaked queues count against the user",
    spec: &[doc("mq_overview(7)", "Persistence"), posix("mq_close")],
    calls: &[Sys::MqOpen, Sys::MqTimedreceive],
    ..Probe::new("posix.mq.unlink.survives-process", |cx| {
        let name = cx.fresh_name();
        cx.elsewhere(|_| {
            let fd = sys::mq_open(&name, O_CREAT | O_EXCL | O_RDWR, 0o600, Some(&SMALL_MQ))?;
            Ok(sys::mq_send(fd.as_raw_fd(), b"left behind", 3)?)
        })?;
        let fd = cx.expect_ok(|| sys::mq_open(&name, O_RDWR, 0, None))?;
        let queue = MqQueue::adopt(name, fd);
        cx.expect_eq("message, priority", queue.receive()?, (b"left behind".to_vec(), 3))
    })
};

const SURVIVES_CLOSE: Probe = Probe {
    title: "closing the last descriptor keeps queue, messages and attributes",
    why: "a cron job opens, sends and closes; nobody need have the queue open meanwhile",
    spec: &[doc("mq_overview(7)", "Persistence"), posix("mq_close")],
    calls: &[Sys::MqOpen, Sys::Close],
    ..Probe::new("posix.mq.unlink.survives-close", |cx| {
        let name = cx.fresh_name();
        let fd = sys::mq_open(&name, O_CREAT | O_EXCL | O_RDWR, 0o600, Some(&sys::MqAttr::new(2, 9)))?;
        sys::mq_send(fd.as_raw_fd(), b"kept", 1)?;
        cx.expect_ok(|| sys::mq_close(fd.into_raw_fd()))?;
        let fd = cx.expect_ok(|| sys::mq_open(&name, O_RDWR, 0, None))?;
        let queue = MqQueue::adopt(name, fd);
        let attr = queue.attr()?;
        cx.expect_eq("mq_maxmsg, mq_msgsize, mq_curmsgs", (attr.maxmsg, attr.msgsize, attr.curmsgs), (2, 9, 1))?;
        cx.expect_eq("message", queue.receive()?.0, b"kept".to_vec())
    })
};

const LAST_CLOSE: Probe = Probe {
    title: "an unlinked queue is destroyed with its last descriptor",
    why: "its memory counts against RLIMIT_MSGQUEUE until then; a program that forgets a child's copy runs into it",
    spec: &[man("mq_unlink(3)", "DESCRIPTION"), kernel("ipc/mqueue.c", "mqueue_evict_inode")],
    calls: &[Sys::MqUnlink, Sys::Close],
    needs: &[Need::OtherUsers],
    ..Probe::new("posix.mq.unlink.last-close", |cx| {
        let name = cx.fresh_name();
        let other = cx.fresh_name();
        super::posix_rlimit::as_lonely_user(cx, |cx| {
            // Room for one queue: a second one is possible only when the first is gone for good.
            super::posix_rlimit::allow(super::posix_rlimit::cost(&SMALL_MQ))?;
            let fd = sys::mq_open(&name, O_CREAT | O_RDWR, 0o600, Some(&SMALL_MQ))?;
            sys::mq_unlink(&name)?;
            cx.expect_errno(libc::EMFILE, || sys::mq_open(&other, O_CREAT | O_RDWR, 0o600, Some(&SMALL_MQ)))?;
            drop(fd);
            let fd = cx.expect_ok(|| sys::mq_open(&other, O_CREAT | O_RDWR, 0o600, Some(&SMALL_MQ)))?;
            drop(MqQueue::adopt(other, fd));
            Ok(())
        })
    })
};

const CLOSE_EBADF: Probe = Probe {
    title: "mq_close of a descriptor that is none fails with EBADF",
    why: "double closes show up instead of closing somebody else's file later",
    spec: &[man("mq_close(3)", "EBADF"), posix("mq_close")],
    calls: &[Sys::Close],
    ..Probe::new("posix.mq.close.ebadf", |cx| {
        let queue = cx.mq(0)?;
        let fd = queue.open(O_RDONLY)?.into_raw_fd();
        cx.expect_ok(|| sys::mq_close(fd))?;
        for fd in [fd, -1] {
            cx.expect_errno(EBADF, || sys::mq_close(fd))?;
        }
        cx.expect_errno(EBADF, || sys::mq_getattr(fd))
    })
};

const CLOSE_OTHER: Probe = Probe {
    title: "closing one descriptor of a queue leaves the others usable",
    why: "threads of one program open the queue each for itself",
    spec: &[man("mq_close(3)", "DESCRIPTION"), posix("mq_close")],
    calls: &[Sys::Close],
    ..Probe::new("posix.mq.close.others-stay", |cx| {
        let queue = cx.mq(0)?;
        let copy = sys::fcntl(queue.fd(), libc::F_DUPFD_CLOEXEC, 0)?;
        sys::mq_close(copy)?;
        sys::mq_close(queue.open(O_RDWR)?.into_raw_fd())?;
        cx.expect_ok(|| queue.send(b"still", 0))?;
        cx.expect_eq("message", queue.receive()?.0, b"still".to_vec())
    })
};

const FORK_SHARES: Probe = Probe {
    title: "a child's inherited descriptor is the same queue, without a name",
    why: "pre-forking servers open once and hand the queue to all children",
    spec: &[doc("mq_overview(7)", "DESCRIPTION")],
    calls: &[Sys::MqTimedsend, Sys::MqTimedreceive],
    ..Probe::new("posix.mq.close.fork-shares", |cx| {
        let mut queue = cx.mq(0)?;
        queue.unlink()?;
        queue.send(b"to child", 0)?;
        let got = cx.elsewhere(|_| {
            let (text, _) = queue.receive()?;
            queue.send(b"to parent", 0)?;
            Ok(text)
        })?;
        cx.expect_eq("message in the child", got, b"to child".to_vec())?;
        cx.expect_eq("message in the parent", queue.receive()?.0, b"to parent".to_vec())
    })
};
