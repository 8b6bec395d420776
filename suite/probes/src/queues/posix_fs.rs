//! The message queue file system, mq_overview(7), and POSIX queues in IPC namespaces.

use libc::{CLONE_NEWIPC, EACCES, EINVAL, ENOENT, EPERM, O_NONBLOCK, O_RDWR, SIGUSR1};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;
use shmcheck_probe::sys::{self, Notify};
use shmcheck_probe::{Context, Isolate, MqQueue, Namespace, Need, Outcome, Probe, Stop, Sys, doc, kernel, man, procfs};
use std::fs;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &LISTED,
    &ROOT_STICKY,
    &STATUS_SIZE,
    &STATUS_SIGNAL,
    &STATUS_NONE,
    &STATUS_DESCRIPTOR,
    &REMOVE,
    &CREATE,
    &NO_DIRECTORY,
    &WRITE_REFUSED,
    &TIMES,
    &SECOND_MOUNT,
    &NS_SEPARATE,
    &NS_MOUNT_STAYS,
    &NS_DESCRIPTOR,
    &NS_NOTIFY,
    &NS_DEAD,
];

const NEEDS: &[Need] = &[Need::Mqueue];

/// Where the queues of this namespace are files.
fn place() -> Result<&'static str, Stop> {
    procfs::mqueue_place().ok_or_else(|| Stop::skip("mqueue", "the file system is not mounted"))
}

/// The path of a queue.
fn path(queue: &MqQueue) -> Result<String, Stop> {
    Ok(format!("{}{}", place()?, queue.name))
}

const LISTED: Probe = Probe {
    title: "a queue is a regular file of its name under /dev/mqueue, until unlinked",
    why: "ls and rm are the only tools for POSIX queues",
    spec: &[doc("mq_overview(7)", "Mounting the message queue filesystem")],
    calls: &[Sys::MqOpen, Sys::MqUnlink],
    needs: NEEDS,
    ..Probe::new("posix.mq.fs.listed", |cx| {
        let mut queue = cx.mq_with(0, 0o620, &sys::MqAttr::new(1, 1))?;
        let path = path(&queue)?;
        let meta = fs::metadata(&path)?;
        let own = sys::fstat(queue.fd())?;
        cx.expect_eq("type, mode", meta.mode(), libc::S_IFREG | 0o600)?;
        cx.expect_eq("inode of name and descriptor", meta.ino(), own.st_ino)?;
        cx.expect_eq("owner, group", (meta.uid(), meta.gid()), (sys::geteuid(), sys::getegid()))?;
        cx.expect_eq("listed before mq_unlink", is_listed(&queue)?, true)?;
        queue.unlink()?;
        cx.expect_eq("listed after mq_unlink", is_listed(&queue)?, false)?;
        cx.expect_eq("the file", fs::exists(&path)?, false)
    })
};
fn is_listed(queue: &MqQueue) -> Result<bool, Stop> {
    for entry in fs::read_dir(place()?)? {
        if entry?.file_name().to_str() == Some(queue.bare_name()) {
            return Ok(true);
        }
    }
    Ok(false)
}

const ROOT_STICKY: Probe = Probe {
    title: "the directory of queues is open to everybody, with the sticky bit",
    why: "every user makes queues, and none removes another's",
    spec: &[doc("mq_overview(7)", "Mounting the message queue filesystem")],
    calls: &[Sys::MqOpen],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.mq.fs.root-sticky", |cx| {
        cx.expect_eq("mode of the directory", fs::metadata(place()?)?.mode(), libc::S_IFDIR | 0o1777)
    })
};

/// The status line of a queue: name and value of each column, in order.
fn status(queue: &MqQueue) -> Result<Vec<(String, i64)>, Stop> {
    let text = procfs::read(&path(queue)?)?;
    let columns = text.split_whitespace().map(|column| {
        let (name, value) = column.split_once(':')?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    columns.collect::<Option<_>>().ok_or_else(|| Stop::broken(format!("status line cannot be read: {text:?}")))
}

/// Expects this status line.
fn expect_status(cx: &Context, queue: &MqQueue, size: i64, notify: i64, signal: i64, pid: i64) -> Outcome {
    let wanted = [("QSIZE", size), ("NOTIFY", notify), ("SIGNO", signal), ("NOTIFY_PID", pid)];
    cx.expect_eq("status line", status(queue)?, wanted.map(|(name, value)| (name.to_owned(), value)).to_vec())
}

const STATUS_SIZE: Probe = Probe {
    title: "QSIZE in the file is the bytes of user data in the queue",
    why: "monitoring reads the backlog from it; Linux 3.5 to 4.1 counted the kernel's own bytes, too",
    spec: &[doc("mq_overview(7)", "Mounting the message queue filesystem"), doc("mq_overview(7)", "BUGS")],
    calls: &[Sys::MqTimedsend, Sys::MqTimedreceive],
    needs: NEEDS,
    ..Probe::new("posix.mq.fs.status-size", |cx| {
        let queue = cx.mq(0)?;
        expect_status(cx, &queue, 0, 0, 0, 0)?;
        queue.send(&[1; 50], 9)?;
        queue.send(&[1; 14], 3)?;
        queue.send(b"", 3)?;
        expect_status(cx, &queue, 64, 0, 0, 0)?;
        queue.receive()?;
        expect_status(cx, &queue, 14, 0, 0, 0)
    })
};

const STATUS_SIGNAL: Probe = Probe {
    title: "the file names who is to be signalled, and with what",
    why: "'EBUSY: who holds the notification?' is answered by cat",
    spec: &[doc("mq_overview(7)", "Mounting the message queue filesystem")],
    calls: &[Sys::MqNotify],
    needs: NEEDS,
    ..Probe::new("posix.mq.fs.status-signal", |cx| {
        let queue = cx.mq(O_NONBLOCK)?;
        sys::mq_notify(queue.fd(), Some(Notify::Signal(SIGUSR1, 0)))?;
        expect_status(cx, &queue, 0, libc::SIGEV_SIGNAL.into(), SIGUSR1.into(), sys::getpid().into())?;
        sys::mq_notify(queue.fd(), None)?;
        expect_status(cx, &queue, 0, 0, 0, 0)
    })
};

const STATUS_NONE: Probe = Probe {
    title: "a registration with SIGEV_NONE shows as NOTIFY:1 with its pid",
    why: "a reserved notification must be told from a free one",
    spec: &[doc("mq_overview(7)", "Mounting the message queue filesystem")],
    calls: &[Sys::MqNotify],
    needs: NEEDS,
    ..Probe::new("posix.mq.fs.status-none", |cx| {
        let queue = cx.mq(O_NONBLOCK)?;
        sys::mq_notify(queue.fd(), Some(Notify::Nothing))?;
        expect_status(cx, &queue, 0, libc::SIGEV_NONE.into(), 0, sys::getpid().into())
    })
};

const STATUS_DESCRIPTOR: Probe = Probe {
    title: "read(2) of the queue's descriptor gives the status line, no message",
    why: "a program that takes the queue for a pipe gets text it does not expect, and loses no message",
    spec: &[kernel("ipc/mqueue.c", "mqueue_read_file")],
    calls: &[Sys::MqOpen],
    ..Probe::new("posix.mq.fs.status-descriptor", |cx| {
        let queue = cx.mq(O_NONBLOCK)?;
        queue.send(b"12345", 0)?;
        let mut buffer = [0; 100];
        let length = sys::pread(queue.fd(), &mut buffer, 0)?;
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        cx.expect("text", text.starts_with("QSIZE:5 ") && text.ends_with('\n'), "QSIZE:5 …", &text)?;
        cx.expect_eq("bytes behind the line", sys::pread(queue.fd(), &mut buffer, length as i64)?, 0)?;
        cx.expect_eq("mq_curmsgs", queue.attr()?.curmsgs, 1)
    })
};

const REMOVE: Probe = Probe {
    title: "removing the file removes the queue's name",
    why: "rm /dev/mqueue/… is how operators get rid of a leftover",
    spec: &[doc("mq_overview(7)", "Mounting the message queue filesystem")],
    calls: &[Sys::MqOpen],
    needs: NEEDS,
    ..Probe::new("posix.mq.fs.remove", |cx| {
        let queue = cx.mq(0)?;
        fs::remove_file(path(&queue)?)?;
        cx.expect_errno(ENOENT, || queue.open(O_RDWR))?;
        cx.expect_ok(|| queue.send(b"open ones live", 0))
    })
};

const CREATE: Probe = Probe {
    title: "a file created under /dev/mqueue is a queue with default attributes",
    why: "shell scripts prepare a queue with its owner and mode before the service starts",
    spec: &[kernel("ipc/mqueue.c", "mqueue_create")],
    calls: &[Sys::MqOpen, Sys::MqTimedsend],
    needs: NEEDS,
    ..Probe::new("posix.mq.fs.create", |cx| {
        let name = cx.fresh_name();
        let path = format!("{}{name}", place()?);
        drop(fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?);
        let fd = cx.expect_ok(|| sys::mq_open(&name, O_RDWR | O_NONBLOCK, 0, None))?;
        let queue = MqQueue::adopt(name, fd);
        let attr = queue.attr()?;
        let wanted = (defaults("msg")?, defaults("msgsize")?);
        cx.expect_eq("mq_maxmsg, mq_msgsize", (attr.maxmsg, attr.msgsize), wanted)?;
        queue.send(b"works", 0)?;
        cx.expect_eq("message", sys::mq_receive(queue.fd(), attr.msgsize as usize)?.0, b"works".to_vec())
    })
};
/// What a queue without attributes gets: the default, bounded by the limit.
pub(super) fn defaults(kind: &str) -> Result<i64, Stop> {
    let default: i64 = procfs::sysctl_number(&format!("fs/mqueue/{kind}_default"))?;
    let limit: i64 = procfs::sysctl_number(&format!("fs/mqueue/{kind}_max"))?;
    Ok(default.min(limit))
}

const NO_DIRECTORY: Probe = Probe {
    title: "directories, links and renames do not exist among queues",
    why: "a script that backs /dev/mqueue up as a directory must fail, not half succeed",
    spec: &[kernel("ipc/mqueue.c", "mqueue_dir_inode_operations")],
    calls: &[Sys::MqOpen],
    needs: NEEDS,
    ..Probe::new("posix.mq.fs.no-directory", |cx| {
        let queue = cx.mq(0)?;
        let (old, new) = (path(&queue)?, format!("{}{}", place()?, cx.fresh_name()));
        let refused = [
            ("mkdir", fs::create_dir(&new)),
            ("link", fs::hard_link(&old, &new)),
            ("symlink", std::os::unix::fs::symlink(&old, &new)),
            ("rename", fs::rename(&old, &new)),
        ];
        for (call, result) in refused {
            let errno = result.err().and_then(|e| e.raw_os_error()).unwrap_or(0);
            cx.expect_eq(&format!("errno of {call}"), sys::errno_name(errno), sys::errno_name(EPERM))?;
        }
        cx.expect_ok(|| queue.open(O_RDWR)).map(drop)
    })
};

const WRITE_REFUSED: Probe = Probe {
    title: "write(2) to a queue is refused with EINVAL, nothing sent",
    why: "echo text > /dev/mqueue/name is tried by everybody once",
    spec: &[kernel("ipc/mqueue.c", "mqueue_file_operations")],
    calls: &[Sys::MqOpen],
    ..Probe::new("posix.mq.fs.write-einval", |cx| {
        let queue = cx.mq(0)?;
        cx.expect_errno(EINVAL, || sys::pwrite(queue.fd(), b"text", 0))?;
        cx.expect_eq("mq_curmsgs", queue.attr()?.curmsgs, 0)
    })
};

const TIMES: Probe = Probe {
    title: "sending and receiving touch the queue file's times",
    why: "find -mmin over /dev/mqueue is how abandoned queues are found",
    spec: &[kernel("ipc/mqueue.c", "do_mq_timedsend")],
    calls: &[Sys::MqTimedsend, Sys::MqTimedreceive],
    ..Probe::new("posix.mq.fs.times", |cx| {
        let queue = cx.mq(0)?;
        // The file system counts seconds: from a time long ago, a change is seen at once.
        let old = TimeSpec::new(1_000_000, 0);
        let used = |what: &str| -> Outcome {
            let (modified, now) = (sys::fstat(queue.fd())?.st_mtime, sys::now_seconds());
            cx.expect(what, (now - 10..=now).contains(&modified), format!("about {now}"), modified)
        };
        let file = queue.open(O_RDWR)?;
        futimens(&file, &old, &old)?;
        cx.expect_eq("modification time that was set", sys::fstat(queue.fd())?.st_mtime, 1_000_000)?;
        queue.send(b"x", 0)?;
        used("modification time after sending")?;
        futimens(&file, &old, &old)?;
        queue.receive()?;
        used("modification time after receiving")
    })
};

/// Mounts the queues of this process's IPC namespace at `place`.
fn mount_at(place: &str) -> Result<(), Stop> {
    Ok(mount(Some("shmcheck"), place, Some("mqueue"), MsFlags::empty(), None::<&str>)?)
}

const SECOND_MOUNT: Probe = Probe {
    title: "a second mount in the same namespace shows the same queues",
    why: "a service's private mount (systemd, containers) must not cut it off",
    spec: &[kernel("ipc/mqueue.c", "mqueue_get_tree")],
    calls: &[Sys::Mount],
    needs: &[Need::Mqueue, Need::DevShm, Need::New(Namespace::Mount)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.mq.fs.second-mount", |cx| {
        let queue = cx.mq(0)?;
        let other = format!("/dev/shm{}", cx.fresh_name());
        fs::create_dir(&other)?;
        mount_at(&other)?;
        let seen = fs::metadata(format!("{other}{}", queue.name))?.ino();
        cx.expect_eq("inode", seen, sys::fstat(queue.fd())?.st_ino)
    })
};

const NS_NEEDS: &[Need] = &[Need::Mqueue, Need::New(Namespace::Ipc), Need::New(Namespace::Mount)];

const NS_SEPARATE: Probe = Probe {
    title: "a name of one IPC namespace is not found in another, and is free there",
    why: "two containers of one image run side by side with equal queue names",
    fix: "docker run --ipc=container:… or --ipc=host where the containers are to share queues",
    spec: &[man("mq_open(3)", "ENOENT"), doc("ipc_namespaces(7)", "DESCRIPTION")],
    calls: &[Sys::MqOpen, Sys::MqUnlink, Sys::Unshare],
    needs: &[Need::New(Namespace::Ipc)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.mq.ns.separate", |cx| {
        let queue = cx.mq(0)?;
        queue.send(b"outside", 0)?;
        cx.elsewhere(|cx| {
            sys::unshare(CLONE_NEWIPC)?;
            cx.expect_errno(ENOENT, || queue.open(O_RDWR))?;
            cx.expect_errno(ENOENT, || sys::mq_unlink(&queue.name))?;
            let flags = libc::O_CREAT | libc::O_EXCL | O_RDWR;
            let attr = shmcheck_probe::guard_queue::SMALL_MQ;
            let fd = cx.expect_ok(|| sys::mq_open(&queue.name, flags, 0o600, Some(&attr)))?;
            let own = MqQueue::adopt(queue.name.clone(), fd);
            cx.expect_eq("messages inside", own.attr()?.curmsgs, 0)
        })?;
        cx.expect_ok(|| queue.open(O_RDWR))?;
        cx.expect_eq("messages outside", queue.attr()?.curmsgs, 1)
    })
};

const NS_MOUNT_STAYS: Probe = Probe {
    title: "a mount shows the queues of the namespace it was mounted in",
    why: "a container that brings the host's /dev/mqueue along lists queues it cannot open",
    spec: &[doc("ipc_namespaces(7)", "DESCRIPTION"), kernel("ipc/mqueue.c", "mqueue_get_tree")],
    calls: &[Sys::MqOpen, Sys::Unshare, Sys::Mount],
    needs: NS_NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.mq.ns.mount-stays", |cx| {
        let queue = cx.mq(0)?;
        cx.elsewhere(|cx| {
            sys::unshare(CLONE_NEWIPC | libc::CLONE_NEWNS)?;
            cx.expect_eq("listed in the old mount", is_listed(&queue)?, true)?;
            cx.expect_errno(ENOENT, || queue.open(O_RDWR))?;
            mount_at(place()?)?;
            cx.expect_eq("listed in a new mount", is_listed(&queue)?, false)?;
            let own = cx.mq(0)?;
            cx.expect_eq("own queue listed", is_listed(&own)?, true)
        })
    })
};

const NS_DESCRIPTOR: Probe = Probe {
    title: "an open descriptor works on in another IPC namespace",
    why: "a service opens its queue and then isolates itself",
    spec: &[kernel("ipc/mqueue.c", "do_mq_timedsend"), doc("ipc_namespaces(7)", "DESCRIPTION")],
    calls: &[Sys::MqTimedsend, Sys::Unshare],
    needs: &[Need::New(Namespace::Ipc)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.mq.ns.descriptor-works", |cx| {
        let queue = cx.mq(0)?;
        cx.elsewhere(|cx| {
            sys::unshare(CLONE_NEWIPC)?;
            cx.expect_ok(|| queue.send(b"from inside", 1))
        })?;
        cx.expect_eq("message", queue.receive()?, (b"from inside".to_vec(), 1))
    })
};

const NS_NOTIFY: Probe = Probe {
    title: "si_pid of a notification is the sender's number where the receiver is",
    why: "a supervisor outside signals the container's process back by this number",
    spec: &[kernel("ipc/mqueue.c", "__do_notify"), doc("pid_namespaces(7)", "DESCRIPTION")],
    calls: &[Sys::MqNotify, Sys::MqTimedsend, Sys::Unshare],
    needs: &[Need::New(Namespace::Pid)],
    ..Probe::new("posix.mq.ns.notify-pid", |cx| {
        sys::block_signal(SIGUSR1)?;
        let queue = cx.mq(O_NONBLOCK)?;
        sys::mq_notify(queue.fd(), Some(Notify::Signal(SIGUSR1, 0)))?;
        let sender = cx.elsewhere(|cx| {
            sys::unshare(libc::CLONE_NEWPID)?;
            cx.cross_pid_namespace();
            let peer = cx.fork(|cx| {
                cx.expect_eq("the sender's own number", sys::getpid(), 1)?;
                Ok(queue.send(b"x", 0)?)
            })?;
            let pid = peer.pid();
            peer.join()?;
            Ok(pid)
        })?;
        cx.expect_eq("si_pid", sys::take_signal(SIGUSR1, 0)?.map(|info| info.pid), Some(sender))
    })
};

const NS_DEAD: Probe = Probe {
    title: "a mount of an IPC namespace that is gone creates no queues: EACCES",
    why: "a stopped container's mount that was kept must not bring its namespace back to life",
    spec: &[kernel("ipc/mqueue.c", "mqueue_create_attr, mq_clear_sbinfo"), doc("ipc_namespaces(7)", "DESCRIPTION")],
    calls: &[Sys::Unshare, Sys::Mount],
    needs: NS_NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.mq.ns.dead-mount-eacces", |cx| {
        let names = [cx.fresh_name(), cx.fresh_name()];
        cx.elsewhere(|cx| {
            sys::unshare(CLONE_NEWIPC | libc::CLONE_NEWNS)?;
            mount_at(place()?)?;
            let create = |name: &str| fs::File::create(format!("{}{name}", place()?)).map(drop).map_err(Stop::from);
            create(&names[0])?;
            // Nobody else is in that namespace.
            sys::unshare(CLONE_NEWIPC)?;
            let path = format!("{}{}", place()?, names[1]);
            cx.expect_errno(EACCES, || sys::open(&path, libc::O_CREAT | O_RDWR, 0o600))?;
            cx.expect_errno(ENOENT, || sys::mq_open(&names[0], O_RDWR, 0, None))
        })
    })
};
