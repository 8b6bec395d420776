//! fcntl(2) F_ADD_SEALS and F_GET_SEALS: which files have seals, who may add them, and that none is ever lost.

use super::{executable, reopen, sealable, seals_of, size};
use libc::{EBADF, EINVAL, EPERM, O_RDONLY, O_RDWR};
use shmcheck_probe::{Isolate, Need, Probe, Stop, Sys, kernel, man, sys};
use std::os::fd::AsRawFd;
use sys::{
    F_SEAL_FUTURE_WRITE, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, MFD_CLOEXEC, add_seals, memfd_create,
};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &DEFAULT_SEALED,
    &DEFAULT_ADD,
    &ALLOW_EMPTY,
    &ADDED,
    &ADD_UNITES,
    &ADD_AGAIN,
    &ADD_NOTHING,
    &UNKNOWN,
    &WIDE,
    &UNKNOWN_WITH_KNOWN,
    &SEAL_SEAL,
    &SEAL_SEAL_WITH_OTHERS,
    &SEAL_SEAL_ALONE,
    &READER_ADDS,
    &READER_GETS,
    &OTHER_FILES,
    &CLOSED,
    &DUPLICATE,
    &FORK,
    &REOPENED,
    &OWNER_ADDS,
    &NAMED_OBJECT,
    &UNNAMED_FILE,
];

const CALLS: &[Sys] = &[Sys::MemfdCreate];

const DEFAULT_SEALED: Probe = Probe {
    title: "without MFD_ALLOW_SEALING a memfd has F_SEAL_SEAL set",
    why: "old programs that know nothing of seals must not find their file sealed by whoever got the descriptor",
    spec: &[man("memfd_create(2)", "MFD_ALLOW_SEALING"), man("fcntl(2)", "F_GET_SEALS")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.seals.default", |cx| {
        let fd = memfd_create("default", MFD_CLOEXEC | executable()?)?;
        cx.expect_eq("seals", seals_of(fd.as_raw_fd())?, F_SEAL_SEAL)
    })
};

const DEFAULT_ADD: Probe = Probe {
    title: "without MFD_ALLOW_SEALING no seal can be added: EPERM",
    why: "a peer that seals its partner's buffer against writing would stop the partner",
    spec: &[man("memfd_create(2)", "MFD_ALLOW_SEALING"), man("fcntl(2)", "EPERM")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.seals.default-add", |cx| {
        let fd = memfd_create("default", MFD_CLOEXEC | executable()?)?;
        for seal in [F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE, F_SEAL_SEAL, 0] {
            cx.expect_errno(EPERM, || add_seals(fd.as_raw_fd(), seal))?;
        }
        cx.expect_ok(|| sys::pwrite(fd.as_raw_fd(), b"x", 0))?;
        cx.expect_eq("seals", seals_of(fd.as_raw_fd())?, F_SEAL_SEAL)
    })
};

const ALLOW_EMPTY: Probe = Probe {
    title: "with MFD_ALLOW_SEALING a memfd starts without seals",
    why: "a sender fills its buffer first and seals it then",
    spec: &[man("memfd_create(2)", "MFD_ALLOW_SEALING"), man("fcntl(2)", "F_GET_SEALS")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.seals.allowed", |cx| cx.expect_eq("seals", seals_of(sealable()?.as_raw_fd())?, 0))
};

const ADDED: Probe = Probe {
    title: "each seal that was added is reported, and only that one",
    why: "D-Bus and Wayland receivers trust a buffer by the seals it shows",
    spec: &[man("fcntl(2)", "F_ADD_SEALS"), man("fcntl(2)", "F_GET_SEALS")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.seals.each-reported", |cx| {
        for seal in [F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE, F_SEAL_FUTURE_WRITE, F_SEAL_SEAL] {
            let fd = sealable()?;
            cx.expect_ok(|| add_seals(fd.as_raw_fd(), seal))?;
            cx.expect_eq("seals", seals_of(fd.as_raw_fd())?, seal)?;
        }
        Ok(())
    })
};

const ADD_UNITES: Probe = Probe {
    title: "adding seals keeps those that were there",
    why: "two layers of a program add what each of them needs; the second must not weaken the first",
    spec: &[man("fcntl(2)", "F_ADD_SEALS")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.seals.cumulative", |cx| {
        let fd = sealable()?;
        let mut all = 0;
        for seal in [F_SEAL_GROW, F_SEAL_WRITE, F_SEAL_SHRINK, F_SEAL_SEAL] {
            cx.expect_ok(|| add_seals(fd.as_raw_fd(), seal))?;
            all |= seal;
            cx.expect_eq("seals", seals_of(fd.as_raw_fd())?, all)?;
        }
        Ok(())
    })
};

const ADD_AGAIN: Probe = Probe {
    title: "adding a seal that is set already changes nothing",
    why: "every receiver may insist on the seals it needs without asking first",
    spec: &[man("fcntl(2)", "F_ADD_SEALS")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.seals.again", |cx| {
        let fd = sealable()?;
        let seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
        add_seals(fd.as_raw_fd(), seals)?;
        for seal in [F_SEAL_WRITE, F_SEAL_SHRINK, seals] {
            cx.expect_ok(|| add_seals(fd.as_raw_fd(), seal))?;
        }
        cx.expect_eq("seals", seals_of(fd.as_raw_fd())?, seals)
    })
};

const ADD_NOTHING: Probe = Probe {
    title: "adding no seal succeeds and removes none",
    why: "seals can never be removed: an argument of 0 must not be taken as 'set to nothing'",
    spec: &[man("fcntl(2)", "F_ADD_SEALS")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.seals.add-nothing", |cx| {
        let fd = sealable()?;
        add_seals(fd.as_raw_fd(), F_SEAL_SHRINK)?;
        cx.expect_ok(|| add_seals(fd.as_raw_fd(), 0))?;
        cx.expect_eq("seals", seals_of(fd.as_raw_fd())?, F_SEAL_SHRINK)
    })
};

const UNKNOWN: Probe = Probe {
    title: "an unknown seal fails with EINVAL",
    why: "a program that asks for a newer seal must learn that this kernel does not enforce it",
    spec: &[man("fcntl(2)", "EINVAL")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.seals.unknown", |cx| {
        let fd = sealable()?;
        for seal in [1 << 16, 1 << 30, i32::MIN, -1] {
            cx.expect_errno(EINVAL, || add_seals(fd.as_raw_fd(), seal))?;
        }
        cx.expect_eq("seals", seals_of(fd.as_raw_fd())?, 0)
    })
};

const WIDE: Probe = Probe {
    title: "bits above the 32 of the argument are refused or ignored",
    why: "the register is wider than the argument: rubbish in its upper half must not add a seal nobody asked for",
    varies: "older kernels look at the whole register and give EINVAL, newer ones take an int",
    spec: &[kernel("mm/memfd.c", "memfd_fcntl: disallow upper 32bit"), man("fcntl(2)", "F_ADD_SEALS")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.seals.wide-argument", |cx| {
        let fd = sealable()?;
        cx.expect_ok(|| sys::add_seals_wide(fd.as_raw_fd(), i64::from(F_SEAL_SHRINK)))?;
        let wide = sys::add_seals_wide(fd.as_raw_fd(), 1 << 35 | i64::from(F_SEAL_GROW));
        let got = (wide.map_or_else(|e| e.name(), |()| "success"), seals_of(fd.as_raw_fd())?);
        let allowed = [("EINVAL", F_SEAL_SHRINK), ("success", F_SEAL_SHRINK | F_SEAL_GROW)];
        cx.expect("result and seals", allowed.contains(&got), format!("one of {allowed:?}"), got)
    })
};

const UNKNOWN_WITH_KNOWN: Probe = Probe {
    title: "a refused request adds none of its seals",
    why: "half a request applied would leave the sender with a file it can neither use nor share",
    spec: &[man("fcntl(2)", "F_ADD_SEALS")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.seals.all-or-none", |cx| {
        let fd = size(sealable()?, 16)?;
        cx.expect_errno(EINVAL, || add_seals(fd.as_raw_fd(), F_SEAL_WRITE | F_SEAL_SHRINK | 1 << 20))?;
        cx.expect_eq("seals", seals_of(fd.as_raw_fd())?, 0)?;
        cx.expect_ok(|| sys::pwrite(fd.as_raw_fd(), b"x", 0))?;
        cx.expect_ok(|| sys::ftruncate(fd.as_raw_fd(), 0))
    })
};

const SEAL_SEAL: Probe = Probe {
    title: "after F_SEAL_SEAL any further request fails with EPERM",
    why: "a receiver must not be able to seal the sender's file beyond what was agreed",
    spec: &[man("fcntl(2)", "EPERM"), man("fcntl(2)", "F_SEAL_SEAL")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.seals.seal-seal", |cx| {
        let fd = sealable()?;
        add_seals(fd.as_raw_fd(), F_SEAL_SHRINK)?;
        cx.expect_ok(|| add_seals(fd.as_raw_fd(), F_SEAL_SEAL))?;
        for seal in [F_SEAL_GROW, F_SEAL_WRITE, F_SEAL_SHRINK, F_SEAL_SEAL, 0] {
            cx.expect_errno(EPERM, || add_seals(fd.as_raw_fd(), seal))?;
        }
        cx.expect_eq("seals", seals_of(fd.as_raw_fd())?, F_SEAL_SHRINK | F_SEAL_SEAL)
    })
};

const SEAL_SEAL_WITH_OTHERS: Probe = Probe {
    title: "F_SEAL_SEAL in one request with others sets them all",
    why: "sealing everything at the end is one call in every program",
    spec: &[man("fcntl(2)", "F_SEAL_SEAL")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.seals.all-at-once", |cx| {
        let fd = sealable()?;
        let all = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
        cx.expect_ok(|| add_seals(fd.as_raw_fd(), all))?;
        cx.expect_eq("seals", seals_of(fd.as_raw_fd())?, all)?;
        cx.expect_errno(EPERM, || sys::ftruncate(fd.as_raw_fd(), 1))
    })
};

const SEAL_SEAL_ALONE: Probe = Probe {
    title: "F_SEAL_SEAL alone restricts nothing but sealing",
    why: "a sender fixes the set of seals and goes on resizing and writing its buffer",
    spec: &[man("fcntl(2)", "F_SEAL_SEAL")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.seals.seal-seal-alone", |cx| {
        let fd = sealable()?;
        add_seals(fd.as_raw_fd(), F_SEAL_SEAL)?;
        cx.expect_ok(|| sys::ftruncate(fd.as_raw_fd(), 4_096))?;
        cx.expect_ok(|| sys::pwrite(fd.as_raw_fd(), b"x", 0))?;
        shmcheck_probe::Map::shared(&fd, 8)?.write(1, 1);
        cx.expect_ok(|| sys::ftruncate(fd.as_raw_fd(), 1))
    })
};

const READER_ADDS: Probe = Probe {
    title: "a read-only descriptor cannot add seals: EPERM",
    why: "who may only read must not freeze the writer's buffer",
    spec: &[man("fcntl(2)", "EPERM"), man("fcntl(2)", "F_ADD_SEALS")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.seals.read-only-adds", |cx| {
        let fd = sealable()?;
        let reader = reopen(&fd, O_RDONLY)?;
        cx.expect_errno(EPERM, || add_seals(reader.as_raw_fd(), F_SEAL_WRITE))?;
        cx.expect_eq("seals", seals_of(fd.as_raw_fd())?, 0)?;
        let writer = reopen(&fd, O_RDWR)?;
        cx.expect_ok(|| add_seals(writer.as_raw_fd(), F_SEAL_WRITE))
    })
};

const READER_GETS: Probe = Probe {
    title: "a read-only descriptor shows the seals",
    why: "the reader is the one who must know whether the buffer can still change",
    spec: &[man("fcntl(2)", "F_GET_SEALS")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.seals.read-only-gets", |cx| {
        let fd = sealable()?;
        let reader = reopen(&fd, O_RDONLY)?;
        add_seals(fd.as_raw_fd(), F_SEAL_WRITE | F_SEAL_SHRINK)?;
        cx.expect_eq("seals", cx.expect_ok(|| seals_of(reader.as_raw_fd()))?, F_SEAL_WRITE | F_SEAL_SHRINK)
    })
};

const OTHER_FILES: Probe = Probe {
    title: "files that cannot be sealed answer EINVAL",
    why: "a receiver that was sent a file on disk instead of a memfd finds out by this and refuses it",
    spec: &[man("fcntl(2)", "EINVAL"), man("fcntl(2)", "F_GET_SEALS")],
    isolate: Isolate::Cell,
    ..Probe::new("memfd.seals.other-files", |cx| {
        let (_reading, pipe) = sys::pipe()?;
        let (socket, _other) = std::os::unix::net::UnixDatagram::pair()?;
        for fd in [pipe.as_raw_fd(), socket.as_raw_fd()] {
            cx.expect_errno(EINVAL, || seals_of(fd))?;
            cx.expect_errno(EINVAL, || add_seals(fd, F_SEAL_SHRINK))?;
        }
        let proc = sys::open("/proc/self/status", O_RDONLY | libc::O_CLOEXEC, 0)?;
        cx.expect_errno(EINVAL, || seals_of(proc.as_raw_fd()))
    })
};

const CLOSED: Probe = Probe {
    title: "a closed descriptor answers EBADF",
    why: "a receiver that forgot to take the descriptor out of its message is told so",
    spec: &[man("fcntl(2)", "EBADF")],
    isolate: Isolate::Cell,
    ..Probe::new("memfd.seals.closed", |cx| {
        cx.expect_errno(EBADF, || seals_of(-1))?;
        cx.expect_errno(EBADF, || add_seals(-1, F_SEAL_SHRINK))
    })
};

const DUPLICATE: Probe = Probe {
    title: "seals are shared by duplicates of the descriptor",
    why: "a library that keeps a dup is bound by the seals, whoever set them",
    spec: &[man("fcntl(2)", "File Sealing")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.seals.duplicate", |cx| {
        let fd = sealable()?;
        let copy = fd.try_clone()?;
        add_seals(copy.as_raw_fd(), F_SEAL_GROW)?;
        cx.expect_eq("seals of the first", seals_of(fd.as_raw_fd())?, F_SEAL_GROW)?;
        cx.expect_errno(EPERM, || sys::ftruncate(fd.as_raw_fd(), 1))
    })
};

const FORK: Probe = Probe {
    title: "seals that a child adds bind the parent",
    why: "they belong to the file: a worker that seals the result protects it from its master as well",
    spec: &[man("fcntl(2)", "File Sealing")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.seals.fork", |cx| {
        let fd = size(sealable()?, 8)?;
        cx.elsewhere(|_| Ok(add_seals(fd.as_raw_fd(), F_SEAL_WRITE | F_SEAL_SHRINK)?))?;
        cx.expect_eq("seals", seals_of(fd.as_raw_fd())?, F_SEAL_WRITE | F_SEAL_SHRINK)?;
        cx.expect_errno(EPERM, || sys::pwrite(fd.as_raw_fd(), b"x", 0))
    })
};

const REOPENED: Probe = Probe {
    title: "seals hold for every open of the file, earlier or later",
    why: "the sender may have opened the file twice before sealing it in front of the receiver's eyes",
    spec: &[man("fcntl(2)", "File Sealing")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.seals.reopened", |cx| {
        let fd = size(sealable()?, 8)?;
        let earlier = reopen(&fd, O_RDWR)?;
        add_seals(fd.as_raw_fd(), F_SEAL_WRITE | F_SEAL_GROW)?;
        let later = reopen(&fd, O_RDWR)?;
        for other in [earlier.as_raw_fd(), later.as_raw_fd()] {
            cx.expect_eq("seals", seals_of(other)?, F_SEAL_WRITE | F_SEAL_GROW)?;
            cx.expect_errno(EPERM, || sys::pwrite(other, b"x", 0))?;
            cx.expect_errno(EPERM, || sys::ftruncate(other, 9))?;
        }
        Ok(())
    })
};

const OWNER_ADDS: Probe = Probe {
    title: "any holder of a writable descriptor may add seals",
    why: "the receiver in another account seals the buffer itself before it looks inside",
    spec: &[man("fcntl(2)", "F_ADD_SEALS")],
    calls: CALLS,
    needs: &[Need::OtherUsers],
    isolate: Isolate::Cell,
    ..Probe::new("memfd.seals.other-user-adds", |cx| {
        let fd = sealable()?;
        cx.as_user(65534, 65534, |cx| cx.expect_ok(|| add_seals(fd.as_raw_fd(), F_SEAL_SHRINK)))?;
        cx.expect_eq("seals", seals_of(fd.as_raw_fd())?, F_SEAL_SHRINK)
    })
};

const NAMED_OBJECT: Probe = Probe {
    title: "an object of shm_open has F_SEAL_SEAL set: no seal can be added",
    why: "others have it by name; sealing works for anonymous memory only, and programs must find that out by EPERM",
    spec: &[kernel("mm/shmem.c", "shmem_get_inode: F_SEAL_SEAL"), man("fcntl(2)", "F_SEAL_SEAL")],
    needs: &[Need::DevShm],
    ..Probe::new("memfd.seals.shm-open", |cx| {
        let held = cx.object(8)?;
        cx.expect_eq("seals", seals_of(held.raw())?, F_SEAL_SEAL)?;
        for seal in [F_SEAL_WRITE, F_SEAL_SHRINK, F_SEAL_SEAL] {
            cx.expect_errno(EPERM, || add_seals(held.raw(), seal))?;
        }
        cx.expect_ok(|| sys::pwrite(held.raw(), b"x", 0))?;
        cx.expect_ok(|| sys::ftruncate(held.raw(), 0))
    })
};

const UNNAMED_FILE: Probe = Probe {
    title: "an O_TMPFILE file in /dev/shm has F_SEAL_SEAL set, too",
    why: "it can be given a name later; only memfd_create gives memory that seals can be trusted on",
    spec: &[kernel("mm/shmem.c", "shmem_get_inode: F_SEAL_SEAL"), man("open(2)", "O_TMPFILE")],
    needs: &[Need::DevShm],
    ..Probe::new("memfd.seals.tmpfile", |cx| {
        let fd = match sys::open("/dev/shm", libc::O_TMPFILE | O_RDWR | libc::O_CLOEXEC, 0o600) {
            Err(e) if [libc::EOPNOTSUPP, libc::EISDIR].contains(&e.errno) => {
                return Err(Stop::skip("O_TMPFILE", e.name()));
            }
            opened => opened?,
        };
        cx.expect_eq("seals", seals_of(fd.as_raw_fd())?, F_SEAL_SEAL)?;
        cx.expect_errno(EPERM, || add_seals(fd.as_raw_fd(), F_SEAL_WRITE))
    })
};
