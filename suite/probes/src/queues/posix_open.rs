//! mq_open(3): names, creation, modes, descriptors.

use libc::{
    EACCES, EEXIST, EFAULT, EINVAL, EMFILE, ENAMETOOLONG, ENOENT, O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_RDWR,
    O_WRONLY,
};
use shmcheck_probe::guard_queue::SMALL_MQ;
use shmcheck_probe::sys::{self, MqAttr};
use shmcheck_probe::{Context, Isolate, MqQueue, Need, Probe, Sys, doc, kernel, man, posix};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &EXCL_EEXIST,
    &NO_NAME_ENOENT,
    &NAME_FINDS,
    &NAMES_DIFFER,
    &CREAT_FINDS,
    &NO_SLASH,
    &ONLY_SLASH,
    &TWO_SLASHES,
    &DOTS,
    &TOO_LONG,
    &LONGEST,
    &RAW_NAME,
    &RAW_NAME_ERRORS,
    &RAW_EFAULT,
    &MODE_UMASK,
    &OWNER,
    &OWN_MODE,
    &ACCESS_MODE_3,
    &CLOEXEC,
    &NONBLOCK,
    &ATTR_IGNORED,
    &EMFILE_FILES,
    &DIRECTORY_CREATE,
];

const EXCL_EEXIST: Probe = Probe {
    title: "O_CREAT|O_EXCL on a name that is taken fails with EEXIST",
    why: "a daemon that makes its queue this way knows that it runs only once",
    spec: &[man("mq_open(3)", "EEXIST"), posix("mq_open")],
    calls: &[Sys::MqOpen],
    ..Probe::new("posix.mq.open.excl-eexist", |cx| {
        let queue = cx.mq(0)?;
        queue.send(b"first", 0)?;
        cx.expect_errno(EEXIST, || sys::mq_open(&queue.name, O_CREAT | O_EXCL | O_RDWR, 0o600, Some(&SMALL_MQ)))?;
        cx.expect_eq("messages of the first", queue.attr()?.curmsgs, 1)
    })
};

const NO_NAME_ENOENT: Probe = Probe {
    title: "a name without a queue is not found: ENOENT",
    why: "clients say 'server not running' on this errno",
    spec: &[man("mq_open(3)", "ENOENT"), posix("mq_open")],
    calls: &[Sys::MqOpen],
    ..Probe::new("posix.mq.open.no-name-enoent", |cx| {
        let name = cx.fresh_name();
        for flags in [O_RDONLY, O_RDWR | O_EXCL, O_WRONLY | O_NONBLOCK] {
            cx.expect_errno(ENOENT, || sys::mq_open(&name, flags, 0, None))?;
        }
        Ok(())
    })
};

const NAME_FINDS: Probe = Probe {
    title: "another process finds the queue by its name, with its messages",
    why: "two programs meet that share nothing but the name",
    spec: &[doc("mq_overview(7)", "DESCRIPTION"), posix("mq_open")],
    calls: &[Sys::MqOpen, Sys::MqTimedsend, Sys::MqTimedreceive],
    ..Probe::new("posix.mq.open.name-finds", |cx| {
        let queue = cx.mq(0)?;
        let name = queue.name.clone();
        cx.elsewhere(|cx| {
            let fd = cx.expect_ok(|| sys::mq_open(&name, O_WRONLY, 0, None))?;
            Ok(sys::mq_send(fd.as_raw_fd(), b"by name", 2)?)
        })?;
        cx.expect_eq("message, priority", queue.receive()?, (b"by name".to_vec(), 2))
    })
};

const NAMES_DIFFER: Probe = Probe {
    title: "two names are two queues, also where one begins with the other",
    why: "per-client reply queues are called /reply.1 and /reply.12",
    spec: &[doc("mq_overview(7)", "DESCRIPTION")],
    calls: &[Sys::MqOpen, Sys::MqTimedsend],
    ..Probe::new("posix.mq.open.names-differ", |cx| {
        let one = cx.mq(0)?;
        let longer = format!("{}2", one.name);
        let fd = sys::mq_open(&longer, O_CREAT | O_EXCL | O_RDWR, 0o600, Some(&SMALL_MQ))?;
        let two = MqQueue::adopt(longer, fd);
        one.send(b"one", 0)?;
        cx.expect_eq("messages in both", (one.attr()?.curmsgs, two.attr()?.curmsgs), (1, 0))
    })
};

const CREAT_FINDS: Probe = Probe {
    title: "O_CREAT on a name that is taken opens the queue as it is",
    why: "programs start in any order and all pass O_CREAT with their own idea of the attributes",
    spec: &[man("mq_open(3)", "DESCRIPTION"), posix("mq_open")],
    calls: &[Sys::MqOpen, Sys::MqGetsetattr],
    ..Probe::new("posix.mq.open.creat-finds", |cx| {
        let queue = cx.mq(0)?;
        queue.send(b"kept", 0)?;
        let wanted = queue.attr()?;
        let mode = sys::fstat(queue.fd())?.st_mode;
        let other = cx.expect_ok(|| sys::mq_open(&queue.name, O_CREAT | O_RDWR, 0o644, Some(&MqAttr::new(2, 16))))?;
        cx.expect_eq("attributes", sys::mq_getattr(other.as_raw_fd())?, wanted)?;
        cx.expect_eq("mode", sys::fstat(other.as_raw_fd())?.st_mode, mode)
    })
};

const NO_SLASH: Probe = Probe {
    title: "a name without a leading slash fails with EINVAL in the library",
    why: "POSIX leaves it to the system; glibc's answer tells porters at once",
    spec: &[man("mq_open(3)", "EINVAL"), man("mq_open(3)", "NOTES")],
    calls: &[Sys::MqOpen],
    ..Probe::new("posix.mq.open.no-slash-einval", |cx| {
        let bare = cx.fresh_name().trim_start_matches('/').to_owned();
        for name in [bare.as_str(), ""] {
            cx.expect_errno(EINVAL, || sys::mq_open(name, O_CREAT | O_RDWR, 0o600, Some(&SMALL_MQ)))?;
        }
        cx.expect_errno(ENOENT, || sys::raw_mq_open(&bare, O_RDWR, 0, None))
    })
};

const ONLY_SLASH: Probe = Probe {
    title: "the name \"/\" alone fails with ENOENT",
    why: "an empty name from a configuration file must not create anything",
    spec: &[man("mq_open(3)", "ENOENT")],
    calls: &[Sys::MqOpen],
    ..Probe::new("posix.mq.open.only-slash-enoent", |cx| {
        cx.expect_errno(ENOENT, || sys::mq_open("/", O_CREAT | O_RDWR, 0o600, Some(&SMALL_MQ)))
    })
};

const TWO_SLASHES: Probe = Probe {
    title: "a name with more than one slash fails with EACCES",
    why: "queues have no directories; programs that take them for files hear it here",
    spec: &[man("mq_open(3)", "EACCES")],
    calls: &[Sys::MqOpen],
    ..Probe::new("posix.mq.open.two-slashes-eacces", |cx| {
        let name = cx.fresh_name();
        for name in [format!("/{name}"), format!("{name}/"), format!("{name}/queue")] {
            cx.expect_errno(EACCES, || sys::mq_open(&name, O_CREAT | O_RDWR, 0o600, Some(&SMALL_MQ)))?;
        }
        cx.expect_errno(ENOENT, || sys::mq_open(&name, O_RDWR, 0, None))
    })
};

const DOTS: Probe = Probe {
    title: "the names \"/.\" and \"/..\" are refused with EACCES",
    why: "a name built from user input must not reach the file system's root as a queue",
    spec: &[kernel("fs/namei.c", "lookup_one_common")],
    calls: &[Sys::MqOpen, Sys::MqUnlink],
    ..Probe::new("posix.mq.open.dots-eacces", |cx| {
        for name in ["/.", "/.."] {
            cx.expect_errno(EACCES, || sys::mq_open(name, O_CREAT | O_RDWR, 0o600, Some(&SMALL_MQ)))?;
            cx.expect_errno(EACCES, || sys::mq_unlink(name))?;
        }
        Ok(())
    })
};

/// A fresh name, filled up to `length` bytes behind the slash.
pub(super) fn long_name(cx: &mut Context, length: usize) -> String {
    let name = cx.fresh_name();
    let filler = (length + 1).saturating_sub(name.len());
    format!("{name}{}", "x".repeat(filler))
}

const TOO_LONG: Probe = Probe {
    title: "a name of more than NAME_MAX bytes fails with ENAMETOOLONG",
    why: "cut silently, two long names would be one queue",
    spec: &[man("mq_open(3)", "ENAMETOOLONG"), posix("mq_open")],
    calls: &[Sys::MqOpen],
    ..Probe::new("posix.mq.open.too-long", |cx| {
        for length in [256, 5000] {
            let name = long_name(cx, length);
            cx.expect_errno(ENAMETOOLONG, || sys::mq_open(&name, O_CREAT | O_RDWR, 0o600, Some(&SMALL_MQ)))?;
        }
        Ok(())
    })
};

const LONGEST: Probe = Probe {
    title: "a name of NAME_MAX bytes behind the slash is taken whole",
    why: "generated names with host, service and UUID come near the limit",
    spec: &[doc("mq_overview(7)", "DESCRIPTION")],
    calls: &[Sys::MqOpen],
    ..Probe::new("posix.mq.open.longest", |cx| {
        let name = long_name(cx, 255);
        let fd = cx.expect_ok(|| sys::mq_open(&name, O_CREAT | O_EXCL | O_RDWR, 0o600, Some(&SMALL_MQ)))?;
        let queue = MqQueue::adopt(name, fd);
        let shorter = queue.name[..255].to_owned();
        cx.expect_errno(ENOENT, || sys::mq_open(&shorter, O_RDWR, 0, None))?;
        cx.expect_ok(|| queue.open(O_RDWR)).map(drop)
    })
};

const RAW_NAME: Probe = Probe {
    title: "the system call takes the library's name without its slash",
    why: "runtimes that make system calls themselves (Go, musl's ports) must meet the queues of C programs",
    spec: &[man("mq_open(3)", "NOTES")],
    calls: &[Sys::MqOpen, Sys::MqUnlink],
    ..Probe::new("posix.mq.open.raw-name", |cx| {
        let mut queue = cx.mq(0)?;
        let fd = cx.expect_ok(|| sys::raw_mq_open(queue.bare_name(), O_WRONLY, 0, None))?;
        sys::mq_send(fd.as_raw_fd(), b"raw", 0)?;
        cx.expect_eq("message", queue.receive()?.0, b"raw".to_vec())?;
        cx.expect_ok(|| sys::raw_mq_unlink(queue.bare_name()))?;
        cx.expect_errno(ENOENT, || queue.unlink())
    })
};

const RAW_NAME_ERRORS: Probe = Probe {
    title: "the system call refuses a slash with EACCES, no name with ENOENT",
    why: "the errnos of the library's page come from these two",
    spec: &[man("mq_open(3)", "NOTES"), kernel("ipc/mqueue.c", "do_mq_open")],
    calls: &[Sys::MqOpen, Sys::MqUnlink],
    ..Probe::new("posix.mq.open.raw-name-errors", |cx| {
        let name = cx.fresh_name();
        cx.expect_errno(EACCES, || sys::raw_mq_open(&name, O_CREAT | O_RDWR, 0o600, Some(&SMALL_MQ)))?;
        cx.expect_errno(ENOENT, || sys::raw_mq_open("", O_CREAT | O_RDWR, 0o600, Some(&SMALL_MQ)))?;
        cx.expect_errno(EACCES, || sys::raw_mq_unlink(&name))?;
        cx.expect_errno(ENOENT, || sys::raw_mq_unlink(""))
    })
};

const RAW_EFAULT: Probe = Probe {
    title: "name or attributes in missing memory fail with EFAULT",
    why: "a null pointer is an error code, not a crash",
    spec: &[kernel("ipc/mqueue.c", "mq_open")],
    calls: &[Sys::MqOpen, Sys::MqUnlink],
    ..Probe::new("posix.mq.open.raw-efault", |cx| {
        let flags = i64::from(O_CREAT | O_RDWR);
        cx.expect_errno(EFAULT, || sys::raw::numbers(Sys::MqOpen, &[0, flags, 0o600, 0]))?;
        cx.expect_errno(EFAULT, || sys::raw::numbers(Sys::MqUnlink, &[0]))?;
        // The name is good, the attributes are not.
        let name = cx.fresh_name();
        let text = shmcheck_probe::Map::shared_anonymous(sys::page_size())?;
        text.write_all(0, &name.as_bytes()[1..]);
        let address = text.address().cast_signed() as i64;
        cx.expect_errno(EFAULT, || sys::raw::numbers(Sys::MqOpen, &[address, flags, 0o600, 1]))?;
        cx.expect_errno(ENOENT, || sys::mq_open(&name, O_RDWR, 0, None))
    })
};

const MODE_UMASK: Probe = Probe {
    title: "a new queue has the mode asked for without the bits of the umask",
    why: "other than System V queues: a daemon with umask 077 shuts its clients out unless it uses fchmod",
    spec: &[man("mq_open(3)", "DESCRIPTION"), posix("mq_open")],
    calls: &[Sys::MqOpen],
    ..Probe::new("posix.mq.open.mode-umask", |cx| {
        for (umask, mode, wanted) in [(0o000, 0o666, 0o666), (0o027, 0o666, 0o640), (0o077, 0o777, 0o700)] {
            sys::umask(umask);
            let queue = cx.mq_with(0, mode, &SMALL_MQ)?;
            cx.expect_eq("mode", sys::fstat(queue.fd())?.st_mode, libc::S_IFREG | wanted)?;
        }
        Ok(())
    })
};

const OWNER: Probe = Probe {
    title: "a new queue belongs to the effective user and group",
    why: "the mode's first three bits are for them",
    spec: &[man("mq_open(3)", "DESCRIPTION"), posix("mq_open")],
    calls: &[Sys::MqOpen],
    needs: &[Need::OtherUsers],
    ..Probe::new("posix.mq.open.owner", |cx| {
        cx.as_user(1, 65534, |cx| {
            let queue = cx.mq(0)?;
            let stat = sys::fstat(queue.fd())?;
            cx.expect_eq("owner, group", (stat.st_uid, stat.st_gid), (1, 65534))
        })
    })
};

const OWN_MODE: Probe = Probe {
    title: "the creator's descriptor works whatever mode the queue gets",
    why: "as with open(2): a queue of mode 0 is private to the descriptors handed on",
    spec: &[man("mq_open(3)", "DESCRIPTION"), kernel("ipc/mqueue.c", "prepare_open")],
    calls: &[Sys::MqOpen, Sys::MqTimedsend],
    ..Probe::new("posix.mq.open.own-mode", |cx| {
        cx.without_caps(&[caps::Capability::CAP_DAC_OVERRIDE, caps::Capability::CAP_DAC_READ_SEARCH], |cx| {
            let queue = cx.mq_with(0, 0, &SMALL_MQ)?;
            cx.expect_ok(|| queue.send(b"mine", 0))?;
            cx.expect_errno(EACCES, || queue.open(O_RDONLY))
        })
    })
};

const ACCESS_MODE_3: Probe = Probe {
    title: "the access mode 3 opens no queue: EINVAL",
    why: "O_WRONLY|O_RDWR is a common slip for O_RDWR and must not go unnoticed",
    spec: &[posix("mq_open"), kernel("ipc/mqueue.c", "prepare_open")],
    calls: &[Sys::MqOpen],
    ..Probe::new("posix.mq.open.access-mode-3", |cx| {
        let queue = cx.mq(0)?;
        cx.expect_errno(EINVAL, || queue.open(O_WRONLY | O_RDWR))
    })
};

const CLOEXEC: Probe = Probe {
    title: "a queue's descriptor is closed on exec, without being asked to",
    why: "children of a shell-out must not keep the queue's memory and its notification alive",
    spec: &[doc("mq_overview(7)", "Linux implementation of message queue descriptors"), man("mq_close(3)", "NOTES")],
    calls: &[Sys::MqOpen],
    ..Probe::new("posix.mq.open.cloexec", |cx| {
        let queue = cx.mq(0)?;
        let other = queue.open(O_RDONLY)?;
        for fd in [queue.fd(), other.as_raw_fd()] {
            cx.expect_eq("descriptor flags", sys::fcntl(fd, libc::F_GETFD, 0)?, libc::FD_CLOEXEC)?;
        }
        Ok(())
    })
};

const NONBLOCK: Probe = Probe {
    title: "O_NONBLOCK belongs to one opening, not to the queue",
    why: "the event loop polls while the worker waits, on the same queue",
    spec: &[man("mq_open(3)", "DESCRIPTION"), man("mq_getattr(3)", "DESCRIPTION")],
    calls: &[Sys::MqOpen, Sys::MqGetsetattr],
    ..Probe::new("posix.mq.open.nonblock", |cx| {
        let queue = cx.mq(O_NONBLOCK)?;
        let other = queue.open(O_RDONLY)?;
        cx.expect_eq("mq_flags of the first", queue.attr()?.flags, O_NONBLOCK.into())?;
        cx.expect_eq("mq_flags of the second", sys::mq_getattr(other.as_raw_fd())?.flags, 0)
    })
};

const ATTR_IGNORED: Probe = Probe {
    title: "mq_flags and mq_curmsgs of the attributes are ignored on creation",
    why: "programs pass on what mq_getattr of another queue gave them",
    spec: &[man("mq_open(3)", "DESCRIPTION")],
    calls: &[Sys::MqOpen, Sys::MqGetsetattr],
    ..Probe::new("posix.mq.open.attr-ignored", |cx| {
        let attr = MqAttr { flags: O_NONBLOCK.into(), maxmsg: 3, msgsize: 17, curmsgs: 2 };
        let queue = cx.mq_with(0, 0o600, &attr)?;
        cx.expect_eq("attributes", queue.attr()?, MqAttr::new(3, 17))
    })
};

const EMFILE_FILES: Probe = Probe {
    title: "without a free descriptor mq_open fails with EMFILE, nothing made",
    why: "a server with too many connections must say which limit it hit",
    spec: &[man("mq_open(3)", "EMFILE"), posix("mq_open")],
    calls: &[Sys::MqOpen],
    ..Probe::new("posix.mq.open.emfile", |cx| {
        let name = cx.fresh_name();
        cx.elsewhere(|cx| {
            // Descriptors from here on up are above the limit; those that exist stay usable.
            let lowest = sys::fcntl(0, libc::F_DUPFD_CLOEXEC, 0)?;
            sys::close(lowest)?;
            let (_, hard) = sys::getrlimit(libc::RLIMIT_NOFILE)?;
            sys::setrlimit(libc::RLIMIT_NOFILE, lowest.unsigned_abs().into(), hard)?;
            cx.expect_errno(EMFILE, || sys::mq_open(&name, O_CREAT | O_RDWR, 0o600, Some(&SMALL_MQ)))
        })?;
        cx.expect_errno(ENOENT, || sys::mq_open(&name, O_RDONLY, 0, None))
    })
};

const DIRECTORY_CREATE: Probe = Probe {
    title: "mq_open cannot create without write permission on the directory",
    why: "an administrator closes /dev/mqueue: existing queues work, new ones need him",
    spec: &[man("mq_open(3)", "EACCES"), posix("mq_open")],
    calls: &[Sys::MqOpen],
    needs: &[Need::OtherUsers, Need::Mqueue],
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.mq.open.directory-eacces", |cx| {
        super::posix_unlink::close_directory()?;
        let name = cx.fresh_name();
        cx.as_user(1, 1, |cx| {
            cx.expect_errno(EACCES, || sys::mq_open(&name, O_CREAT | O_RDWR, 0o600, Some(&SMALL_MQ)))
        })?;
        cx.expect_errno(ENOENT, || sys::mq_open(&name, O_RDWR, 0, None))
    })
};
