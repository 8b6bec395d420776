//! memfd_create(2): the descriptor, exec, and re-opening through /proc.

use super::{sealable, size};
use crate::posix_shm::descriptor::asked_after_exec;
use libc::{EACCES, EINVAL, EMFILE, O_CLOEXEC, O_RDONLY, O_RDWR};
use shmcheck_probe::{Context, Exit, Isolate, Map, Outcome, Probe, Stop, Sys, man, sys};
use std::os::fd::AsRawFd;
use sys::{MFD_ALLOW_SEALING, MFD_CLOEXEC, memfd_create};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &EMFILE_LIMIT,
    &CLOEXEC,
    &NO_CLOEXEC,
    &CLOEXEC_EFFECT,
    &READ_WRITE,
    &REOPEN_READER,
    &REOPEN_MODE,
    &REOPEN_TRUNC,
    &OUTLIVES_CREATOR,
];

const CALLS: &[Sys] = &[Sys::MemfdCreate];

const EMFILE_LIMIT: Probe = Probe {
    title: "at RLIMIT_NOFILE memfd_create fails with EMFILE",
    why: "a compositor holds a memfd per client buffer and must tell its own limit from lack of memory",
    fix: "docker run --ulimit nofile=…",
    spec: &[man("memfd_create(2)", "EMFILE")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.create.emfile", |cx| at_the_limit(cx, || memfd_create("one", 0)))
};

/// The call succeeds with room for one more descriptor and gives EMFILE without.
pub(super) fn at_the_limit(cx: &mut Context, open: fn() -> sys::Result<std::os::fd::OwnedFd>) -> Outcome {
    cx.elsewhere(move |cx| {
        let next = open()?.as_raw_fd();
        let (_, hard) = sys::getrlimit(libc::RLIMIT_NOFILE)?;
        sys::setrlimit(libc::RLIMIT_NOFILE, u64::try_from(next).unwrap_or(0) + 1, hard)?;
        let last = cx.expect_ok(open)?;
        cx.expect_errno(EMFILE, open)?;
        drop(last);
        cx.expect_ok(open).map(drop)
    })
}

const CLOEXEC: Probe = Probe {
    title: "MFD_CLOEXEC sets FD_CLOEXEC",
    why: "a server that starts helpers must not hand each of them its arena",
    spec: &[man("memfd_create(2)", "MFD_CLOEXEC")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.create.cloexec", |cx| {
        let fd = memfd_create("exec", MFD_CLOEXEC)?;
        cx.expect_eq("F_GETFD", sys::fcntl(fd.as_raw_fd(), libc::F_GETFD, 0)?, libc::FD_CLOEXEC)
    })
};

const NO_CLOEXEC: Probe = Probe {
    title: "without MFD_CLOEXEC the descriptor has no FD_CLOEXEC",
    why: "systemd and LXC pass a memfd to the program they start; it must still be open there",
    spec: &[man("memfd_create(2)", "MFD_CLOEXEC")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.create.no-cloexec", |cx| {
        for flags in [0, MFD_ALLOW_SEALING] {
            let fd = memfd_create("exec", flags)?;
            cx.expect_eq("F_GETFD", sys::fcntl(fd.as_raw_fd(), libc::F_GETFD, 0)?, 0)?;
        }
        Ok(())
    })
};

const CLOEXEC_EFFECT: Probe = Probe {
    title: "exec closes a memfd with MFD_CLOEXEC and keeps one without",
    why: "the flag is only worth what exec does with it",
    spec: &[man("memfd_create(2)", "MFD_CLOEXEC"), man("execve(2)", "DESCRIPTION")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.create.cloexec-on-exec", |cx| {
        let (closed, kept) = (memfd_create("closed", MFD_CLOEXEC)?, memfd_create("kept", 0)?);
        let seen = (asked_after_exec(cx, closed.as_raw_fd())?, asked_after_exec(cx, kept.as_raw_fd())?);
        cx.expect_eq("errno of fcntl on both after exec", seen, (Exit::Code(libc::EBADF), Exit::Code(0)))
    })
};

const READ_WRITE: Probe = Probe {
    title: "the descriptor is open for reading and writing at offset 0",
    why: "write, seek back and read is how most libraries fill their first memfd",
    spec: &[man("memfd_create(2)", "DESCRIPTION")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.create.read-write", |cx| {
        let fd = memfd_create("file", 0)?;
        let flags = sys::fcntl(fd.as_raw_fd(), libc::F_GETFL, 0)?;
        cx.expect_eq("access mode and O_APPEND", flags & (libc::O_ACCMODE | libc::O_APPEND), O_RDWR)?;
        cx.expect_eq("bytes written", cx.expect_ok(|| sys::tmpfs::write(fd.as_raw_fd(), b"text"))?, 4)?;
        cx.expect_eq("offset", sys::tmpfs::lseek(fd.as_raw_fd(), 0, libc::SEEK_CUR)?, 4)?;
        sys::tmpfs::lseek(fd.as_raw_fd(), 0, libc::SEEK_SET)?;
        let mut bytes = [0; 9];
        cx.expect_eq("bytes read", sys::tmpfs::read(fd.as_raw_fd(), &mut bytes)?, 4)?;
        cx.expect_eq("content", &bytes[..4], b"text")
    })
};

const REOPEN_READER: Probe = Probe {
    title: "a memfd re-opened O_RDONLY through /proc cannot be written",
    why: "this is how a service gives clients read-only access without sealing its own",
    spec: &[man("memfd_create(2)", "NOTES"), man("proc_pid_fd(5)", "DESCRIPTION")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.reopen.read-only", |cx| {
        let fd = size(sealable()?, 64)?;
        let reader = cx.expect_ok(|| super::reopen(&fd, O_RDONLY))?;
        cx.expect_errno(EACCES, || Map::shared(&reader, 64))?;
        cx.expect_errno(libc::EBADF, || sys::pwrite(reader.as_raw_fd(), b"x", 0))?;
        cx.expect_errno(EINVAL, || sys::ftruncate(reader.as_raw_fd(), 0))?;
        Map::shared(&fd, 64)?.write(0, 9);
        let map = Map::new(64, libc::PROT_READ, libc::MAP_SHARED, reader.as_raw_fd())?;
        cx.expect_eq("byte seen through it", map.read(0), 9)
    })
};

const REOPEN_MODE: Probe = Probe {
    title: "re-opening a memfd through /proc obeys its mode",
    why: "a receiver of a read-only descriptor must not get a writable one from /proc/self/fd",
    spec: &[man("proc_pid_fd(5)", "DESCRIPTION"), man("fchmod(2)", "DESCRIPTION")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.reopen.mode", |cx| {
        use caps::Capability::{CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH};
        let fd = size(sealable()?, 64)?;
        cx.without_caps(&[CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH], |cx| {
            sys::tmpfs::fchmod(fd.as_raw_fd(), 0o400)?;
            let reader = cx.expect_ok(|| super::reopen(&fd, O_RDONLY))?;
            cx.expect_errno(EACCES, || super::reopen(&reader, O_RDWR))?;
            sys::tmpfs::fchmod(fd.as_raw_fd(), 0)?;
            cx.expect_errno(EACCES, || super::reopen(&fd, O_RDONLY))
        })
    })
};

const REOPEN_TRUNC: Probe = Probe {
    title: "O_TRUNC through /proc empties a memfd, with an offset of its own",
    why: "helpers recycle a buffer by its /proc path; what else has it open must see the new size",
    spec: &[man("open(2)", "O_TRUNC"), man("proc_pid_fd(5)", "DESCRIPTION")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.reopen.trunc", |cx| {
        let fd = memfd_create("recycled", 0)?;
        sys::tmpfs::write(fd.as_raw_fd(), b"old content")?;
        let again = cx.expect_ok(|| super::reopen(&fd, O_RDWR | libc::O_TRUNC))?;
        cx.expect_eq("size", sys::fstat(fd.as_raw_fd())?.st_size, 0)?;
        let offset = |fd: i32| sys::tmpfs::lseek(fd, 0, libc::SEEK_CUR);
        cx.expect_eq("offsets of both", (offset(fd.as_raw_fd())?, offset(again.as_raw_fd())?), (11, 0))
    })
};

const OUTLIVES_CREATOR: Probe = Probe {
    title: "a memfd opened through /proc outlives the process that made it",
    why: "a crash of the producer must not take the frame away that the consumer is showing",
    spec: &[man("memfd_create(2)", "DESCRIPTION")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.create.outlives-creator", |cx| {
        let (made, taken) = (cx.gate()?, cx.gate()?);
        let creator = cx.fork(|_| {
            let fd = size(memfd_create("frame", 0)?, 16)?;
            sys::pwrite(fd.as_raw_fd(), b"frame", 0)?;
            // The number is told by its place in the table: it is moved to one that both know.
            let _known = sys::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 200)?;
            made.open()?;
            taken.pass()
        })?;
        made.pass()?;
        let path = format!("/proc/{}/fd/200", creator.pid());
        let opened = sys::open(&path, O_RDWR | O_CLOEXEC, 0);
        taken.open()?;
        creator.join()?;
        let fd = match opened {
            Err(e) if e.errno == EACCES => {
                return Err(Stop::skip("path:/proc/PID/fd", "a child's descriptors are closed to its parent"));
            }
            opened => cx.expect_ok(|| opened)?,
        };
        let mut bytes = [0; 5];
        sys::pread(fd.as_raw_fd(), &mut bytes, 0)?;
        cx.expect_eq("content after the creator's end", &bytes, b"frame")
    })
};
