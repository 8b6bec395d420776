//! close(2): what goes with a descriptor and what stays.

use libc::{EBADF, O_RDONLY, O_RDWR};
use shmcheck_probe::{Isolate, Map, Need, Probe, Sys, man, posix, sys};
use std::os::fd::{AsRawFd, IntoRawFd};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] =
    &[&NEVER_OPEN, &TWICE, &GONE_FOR_ALL_CALLS, &MAPPING_STAYS, &COPY_STAYS, &CHILD_KEEPS, &LOCKS_GO];

const CALLS: &[Sys] = &[Sys::Close];

const NEVER_OPEN: Probe = Probe {
    title: "close of a number that is not open gives EBADF",
    why: "a wrong descriptor in clean-up code shows here; success would hide that the right one leaks",
    spec: &[man("close(2)", "EBADF"), posix("close")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("posix.shm.close.never-open", |cx| {
        for fd in [-1, i32::MIN, i32::MAX, 1 << 19] {
            cx.expect_errno(EBADF, || sys::close(fd))?;
        }
        Ok(())
    })
};

const TWICE: Probe = Probe {
    title: "the second close of a descriptor gives EBADF",
    why: "a double close in a threaded program hits somebody else's new descriptor; alone it must be an error",
    spec: &[man("close(2)", "EBADF"), posix("close")],
    calls: CALLS,
    needs: &[Need::DevShm],
    ..Probe::new("posix.shm.close.twice", |cx| {
        let held = cx.object(0)?;
        let number = held.open(O_RDWR)?.into_raw_fd();
        cx.expect_ok(|| sys::close(number))?;
        cx.expect_errno(EBADF, || sys::close(number))
    })
};

const GONE_FOR_ALL_CALLS: Probe = Probe {
    title: "no call works on a closed descriptor: EBADF",
    why: "using a closed object must not reach another file by chance or by a stale table",
    spec: &[posix("close"), man("close(2)", "DESCRIPTION")],
    calls: CALLS,
    needs: &[Need::DevShm],
    ..Probe::new("posix.shm.close.no-call-works", |cx| {
        let held = cx.object(16)?;
        let number = held.open(O_RDWR)?.into_raw_fd();
        cx.expect_ok(|| sys::close(number))?;
        cx.expect_errno(EBADF, || sys::fstat(number).map(drop))?;
        cx.expect_errno(EBADF, || sys::pread(number, &mut [0], 0))?;
        cx.expect_errno(EBADF, || sys::tmpfs::lseek(number, 0, libc::SEEK_CUR))?;
        cx.expect_errno(EBADF, || sys::fcntl(number, libc::F_GETFD, 0))?;
        cx.expect_errno(EBADF, || Map::new(16, libc::PROT_READ, libc::MAP_SHARED, number))
    })
};

const MAPPING_STAYS: Probe = Probe {
    title: "a mapping stays when its descriptor is closed",
    why: "programs close the descriptor right after mmap, as every textbook says",
    spec: &[man("mmap(2)", "NOTES"), man("shm_open(3)", "DESCRIPTION"), posix("close")],
    calls: CALLS,
    needs: &[Need::DevShm],
    ..Probe::new("posix.shm.close.mapping-stays", |cx| {
        let held = cx.object(16)?;
        let number = held.open(O_RDWR)?.into_raw_fd();
        let map = Map::new(16, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, number)?;
        cx.expect_ok(|| sys::close(number))?;
        map.write(3, 0x19);
        cx.expect_eq("byte through another descriptor", super::truncate::byte_at(held.raw(), 3)?, 0x19)
    })
};

const COPY_STAYS: Probe = Probe {
    title: "closing a descriptor leaves its duplicates open",
    why: "libraries keep a dup of what they were given; their object must not vanish with the caller's",
    spec: &[man("close(2)", "DESCRIPTION"), man("dup(2)", "DESCRIPTION"), posix("close")],
    calls: CALLS,
    needs: &[Need::DevShm],
    ..Probe::new("posix.shm.close.duplicate-stays", |cx| {
        let held = cx.object(16)?;
        let first = held.open(O_RDWR)?;
        sys::tmpfs::lseek(first.as_raw_fd(), 11, libc::SEEK_SET)?;
        let copy = first.try_clone()?;
        cx.expect_ok(|| sys::close(first.into_raw_fd()))?;
        cx.expect_eq("offset of the duplicate", sys::tmpfs::lseek(copy.as_raw_fd(), 0, libc::SEEK_CUR)?, 11)
    })
};

const CHILD_KEEPS: Probe = Probe {
    title: "a child's copy of a descriptor is its own to close",
    why: "pre-fork servers close what their workers use and the other way round",
    spec: &[posix("fork"), man("fork(2)", "NOTES")],
    calls: CALLS,
    needs: &[Need::DevShm],
    ..Probe::new("posix.shm.close.child-has-its-own", |cx| {
        let held = cx.object(16)?;
        let number = held.open(O_RDWR)?.into_raw_fd();
        cx.elsewhere(move |cx| {
            sys::tmpfs::lseek(number, 5, libc::SEEK_SET)?;
            cx.expect_ok(|| sys::close(number))
        })?;
        cx.expect_eq("offset, which is shared", sys::tmpfs::lseek(number, 0, libc::SEEK_CUR)?, 5)?;
        cx.expect_ok(|| sys::close(number))
    })
};

const LOCKS_GO: Probe = Probe {
    title: "closing any descriptor of the object drops the record locks",
    why: "a library that opens and closes the same object silently releases its caller's lock, and two writers meet",
    spec: &[man("close(2)", "DESCRIPTION"), man("fcntl(2)", "Advisory record locking"), posix("close")],
    calls: CALLS,
    needs: &[Need::DevShm],
    ..Probe::new("posix.shm.close.drops-record-locks", |cx| {
        let held = cx.object(16)?;
        cx.expect_ok(|| sys::tmpfs::lock(held.raw(), libc::F_SETLK))?;
        let name = held.name.clone();
        let attempt = move |_: &mut shmcheck_probe::Context| {
            let fd = sys::shm_open(&name, O_RDWR, 0)?;
            Ok(sys::tmpfs::lock(fd.as_raw_fd(), libc::F_SETLK).map_or_else(|e| e.name(), |()| "success").to_owned())
        };
        let refused = cx.elsewhere(attempt.clone())?;
        cx.expect("lock of another process", ["EAGAIN", "EACCES"].contains(&refused.as_str()), "EAGAIN", &refused)?;
        drop(held.open(O_RDONLY)?);
        let granted = cx.elsewhere(attempt)?;
        cx.expect_eq("lock of another process after a close", granted.as_str(), "success")
    })
};
