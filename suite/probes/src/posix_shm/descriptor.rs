//! shm_open(3): the descriptor it returns.

use super::open::exists;
use libc::{EMFILE, O_CREAT, O_RDONLY, O_RDWR};
use shmcheck_probe::{Context, Entry, Exit, Need, Outcome, Probe, Stop, Sys, Tiny, man, posix, sys};
use std::os::fd::{AsRawFd, OwnedFd};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[&CLOEXEC, &CLOEXEC_EFFECT, &LOWEST, &OWN_OFFSET, &EMFILE_LIMIT];

const NEEDS: &[Need] = &[Need::DevShm];

const CLOEXEC: Probe = Probe {
    title: "the descriptor has FD_CLOEXEC set",
    why: "a server that starts helpers must not leak its shared memory into each of them",
    spec: &[man("shm_open(3)", "DESCRIPTION"), posix("shm_open")],
    needs: NEEDS,
    ..Probe::new("posix.shm.open.cloexec", |cx| {
        let made = cx.object(0)?;
        let found = made.open(O_RDONLY)?;
        for fd in [made.raw(), found.as_raw_fd()] {
            cx.expect_eq("F_GETFD", sys::fcntl(fd, libc::F_GETFD, 0)?, libc::FD_CLOEXEC)?;
        }
        Ok(())
    })
};

const CLOEXEC_EFFECT: Probe = Probe {
    title: "the descriptor is closed by exec",
    why: "a leaked descriptor keeps gigabytes of /dev/shm occupied for as long as an unrelated child lives",
    spec: &[man("shm_open(3)", "DESCRIPTION"), man("execve(2)", "DESCRIPTION"), posix("exec")],
    needs: NEEDS,
    calls: &[Sys::MemfdCreate],
    ..Probe::new("posix.shm.open.closed-by-exec", closed_by_exec)
};

fn closed_by_exec(cx: &mut Context) -> Outcome {
    let made = cx.object(0)?;
    let kept = made.open(O_RDONLY)?;
    sys::fcntl(kept.as_raw_fd(), libc::F_SETFD, 0)?;
    let (open, closed) = (asked_after_exec(cx, kept.as_raw_fd())?, asked_after_exec(cx, made.raw())?);
    cx.expect_eq("exec with FD_CLOEXEC cleared", open, Exit::Code(0))?;
    cx.expect_eq("exec with the descriptor as it was made", closed, Exit::Code(libc::EBADF))
}

/// What a program started by exec finds at this descriptor's number: an errno as its exit code.
pub(crate) fn asked_after_exec(cx: &mut Context, fd: i32) -> Result<Exit, Stop> {
    let Some(elf) = Tiny::AskDescriptor(fd).elf() else {
        return Err(Stop::skip("tiny-program", std::env::consts::ARCH));
    };
    let program = sys::memfd_create("program", sys::MFD_CLOEXEC | crate::memfd::executable()?)?;
    sys::pwrite(program.as_raw_fd(), &elf, 0)?;
    let peer = cx.fork::<()>(|_| {
        let refused = sys::fexecve(program.as_raw_fd());
        // No errno of fcntl: a refused exec is told from every answer of the program.
        sys::exit_now(if refused.errno == 0 { 126 } else { 127 })
    })?;
    match peer.exit()? {
        Exit::Code(127) => Err(Stop::broken("a program in a memfd was not executed")),
        exit => Ok(exit),
    }
}

const LOWEST: Probe = Probe {
    title: "the descriptor has the lowest number that is free",
    why: "old programs close 0 and open to replace their input; POSIX promises the number",
    spec: &[posix("shm_open"), man("shm_open(3)", "DESCRIPTION")],
    needs: NEEDS,
    ..Probe::new("posix.shm.open.lowest-descriptor", lowest_descriptor)
};

fn lowest_descriptor(cx: &mut Context) -> Outcome {
    let held = cx.object(0)?;
    let copies = (0..3).map(|_| held.open(O_RDONLY)).collect::<sys::Result<Vec<OwnedFd>>>()?;
    let hole = copies[1].as_raw_fd();
    // The middle one is closed by its owner; the others stay.
    let mut copies = copies;
    drop(copies.remove(1));
    let next = held.open(O_RDONLY)?;
    cx.expect_eq("number", next.as_raw_fd(), hole)
}

const OWN_OFFSET: Probe = Probe {
    title: "each shm_open makes an open file description of its own",
    why: "two threads that read through their own descriptors must not move each other's position",
    spec: &[man("shm_open(3)", "DESCRIPTION"), posix("shm_open")],
    needs: NEEDS,
    ..Probe::new("posix.shm.open.own-description", |cx| {
        let held = cx.object(10)?;
        let other = held.open(O_RDWR)?;
        sys::tmpfs::lseek(held.raw(), 7, libc::SEEK_SET)?;
        cx.expect_eq("offset of the other", sys::tmpfs::lseek(other.as_raw_fd(), 0, libc::SEEK_CUR)?, 0)?;
        sys::fcntl(held.raw(), libc::F_SETFL, libc::O_APPEND)?;
        let flags = sys::fcntl(other.as_raw_fd(), libc::F_GETFL, 0)?;
        cx.expect_eq("O_APPEND of the other", flags & libc::O_APPEND, 0)
    })
};

const EMFILE_LIMIT: Probe = Probe {
    title: "at RLIMIT_NOFILE shm_open fails with EMFILE",
    why: "a broker with a channel per client runs out of descriptors; the limit must be told from a missing object",
    fix: "docker run --ulimit nofile=…",
    spec: &[man("shm_open(3)", "EMFILE"), posix("shm_open")],
    needs: NEEDS,
    ..Probe::new("posix.shm.open.emfile", emfile)
};

fn emfile(cx: &mut Context) -> Outcome {
    let held = cx.object(0)?;
    let absent = cx.fresh_name();
    let entry = Entry::of(&absent);
    cx.elsewhere(|cx| {
        let next = held.open(O_RDONLY)?.as_raw_fd();
        let (_, hard) = sys::getrlimit(libc::RLIMIT_NOFILE)?;
        let limit = u64::try_from(next).unwrap_or(0);
        sys::setrlimit(libc::RLIMIT_NOFILE, limit + 1, hard)?;
        let _last = cx.expect_ok(|| held.open(O_RDONLY))?;
        cx.expect_errno(EMFILE, || held.open(O_RDONLY))?;
        cx.expect_errno(EMFILE, || sys::shm_open(&absent, O_CREAT | O_RDWR, 0o600))
    })?;
    cx.expect("the name after the refused creation", !exists(&entry.path), "absent", "present")
}
