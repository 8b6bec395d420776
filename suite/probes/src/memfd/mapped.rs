//! F_SEAL_WRITE and F_SEAL_FUTURE_WRITE against mappings that exist already, and against pages held for I/O.

use super::{known, reopen, sealable, seals_of, size};
use libc::{EBUSY, EPERM, MAP_PRIVATE, MAP_SHARED, O_RDONLY, PROT_READ, PROT_WRITE};
use shmcheck_probe::{Isolate, Map, Probe, Stop, Sys, kernel, man, sys};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use sys::{F_SEAL_FUTURE_WRITE, F_SEAL_GROW, F_SEAL_SHRINK, F_SEAL_WRITE, add_seals};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &MAPPED_EBUSY,
    &ELSEWHERE_EBUSY,
    &WRITABLE_LATER_EBUSY,
    &UNMAPPED_OK,
    &READER_OK,
    &PRIVATE_OK,
    &EBUSY_THEN_WRITABLE,
    &FUTURE_MAPPED_OK,
    &FUTURE_STILL_WRITES,
    &FUTURE_INHERITED,
    &FUTURE_THEN_WRITE,
    &PINNED_EBUSY,
    &UNPINNED_OK,
];

const CALLS: &[Sys] = &[Sys::MemfdCreate];
const SHARED_WRITE: i32 = PROT_READ | PROT_WRITE;

const MAPPED_EBUSY: Probe = Probe {
    title: "F_SEAL_WRITE while a writable mapping exists fails with EBUSY",
    why: "the sender could still store through it; the receiver would trust a seal that does not hold",
    spec: &[man("fcntl(2)", "EBUSY"), man("fcntl(2)", "F_SEAL_WRITE")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.write.mapped-ebusy", |cx| {
        let fd = size(sealable()?, 16)?;
        let map = Map::shared(&fd, 16)?;
        cx.expect_errno(EBUSY, || add_seals(fd.as_raw_fd(), F_SEAL_WRITE))?;
        cx.expect_errno(EBUSY, || add_seals(fd.as_raw_fd(), F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW))?;
        cx.expect_eq("seals", seals_of(fd.as_raw_fd())?, 0)?;
        map.write(0, 1);
        cx.expect_ok(|| add_seals(fd.as_raw_fd(), F_SEAL_SHRINK | F_SEAL_GROW))
    })
};

const ELSEWHERE_EBUSY: Probe = Probe {
    title: "a writable mapping in another process gives EBUSY, too",
    why: "the receiver that seals the buffer itself must find out that the sender still has it mapped",
    spec: &[man("fcntl(2)", "EBUSY")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.write.mapped-elsewhere-ebusy", |cx| {
        let fd = size(sealable()?, 16)?;
        let (mapped, done) = (cx.gate()?, cx.gate()?);
        let holder = cx.fork(|_| {
            let _map = Map::shared(&fd, 16)?;
            mapped.open()?;
            done.pass()
        })?;
        mapped.pass()?;
        let refused = cx.expect_errno(EBUSY, || add_seals(fd.as_raw_fd(), F_SEAL_WRITE));
        done.open()?;
        holder.join()?;
        refused?;
        cx.expect_ok(|| add_seals(fd.as_raw_fd(), F_SEAL_WRITE))
    })
};

const WRITABLE_LATER_EBUSY: Probe = Probe {
    title: "a read-only mapping that could become writable gives EBUSY",
    why: "mprotect needs no further permission: a mapping of a writable descriptor counts as a writer",
    spec: &[man("fcntl(2)", "EBUSY"), kernel("mm/memfd.c", "mapping_deny_writable")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.write.readable-mapping-ebusy", |cx| {
        let fd = size(sealable()?, 16)?;
        let map = Map::new(16, PROT_READ, MAP_SHARED, fd.as_raw_fd())?;
        cx.expect_ok(|| sys::mprotect(map.address(), 16, SHARED_WRITE))?;
        cx.expect_ok(|| sys::mprotect(map.address(), 16, PROT_READ))?;
        cx.expect_errno(EBUSY, || add_seals(fd.as_raw_fd(), F_SEAL_WRITE))?;
        cx.expect_eq("seals", seals_of(fd.as_raw_fd())?, 0)
    })
};

const UNMAPPED_OK: Probe = Probe {
    title: "F_SEAL_WRITE succeeds once the last writable mapping is gone",
    why: "fill, unmap, seal, send: the sequence of every sender",
    spec: &[man("fcntl(2)", "F_SEAL_WRITE")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.write.unmapped", |cx| {
        let fd = size(sealable()?, 16)?;
        let (one, two) = (Map::shared(&fd, 16)?, Map::shared(&fd, 16)?);
        one.write(0, 8);
        one.close()?;
        cx.expect_errno(EBUSY, || add_seals(fd.as_raw_fd(), F_SEAL_WRITE))?;
        two.close()?;
        cx.expect_ok(|| add_seals(fd.as_raw_fd(), F_SEAL_WRITE))?;
        let mut byte = [0];
        sys::pread(fd.as_raw_fd(), &mut byte, 0)?;
        cx.expect_eq("byte stored before", byte, [8])
    })
};

const READER_OK: Probe = Probe {
    title: "mappings of a read-only descriptor do not hinder F_SEAL_WRITE",
    why: "clients may watch the buffer already while its owner finishes and seals it",
    spec: &[man("fcntl(2)", "F_SEAL_WRITE")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.write.reader-mapped", |cx| {
        let fd = size(sealable()?, 16)?;
        let reader = reopen(&fd, O_RDONLY)?;
        let map = Map::new(16, PROT_READ, MAP_SHARED, reader.as_raw_fd())?;
        sys::pwrite(fd.as_raw_fd(), b"done", 0)?;
        cx.expect_ok(|| add_seals(fd.as_raw_fd(), F_SEAL_WRITE))?;
        cx.expect_eq("bytes seen", map.read_all(0, 4), b"done".to_vec())
    })
};

const PRIVATE_OK: Probe = Probe {
    title: "a private writable mapping does not hinder F_SEAL_WRITE",
    why: "a reader may patch its own copy of sealed data, as dynamic linkers do; its stores never reach the file",
    spec: &[man("fcntl(2)", "F_SEAL_WRITE")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.write.private-mapped", |cx| {
        let fd = size(sealable()?, 16)?;
        let map = Map::new(16, SHARED_WRITE, MAP_PRIVATE, fd.as_raw_fd())?;
        map.write(0, 1);
        cx.expect_ok(|| add_seals(fd.as_raw_fd(), F_SEAL_WRITE))?;
        map.write(1, 1);
        let mut bytes = [9; 2];
        sys::pread(fd.as_raw_fd(), &mut bytes, 0)?;
        cx.expect_eq("bytes of the file", bytes, [0; 2])
    })
};

const EBUSY_THEN_WRITABLE: Probe = Probe {
    title: "after EBUSY the file can be mapped writable as before",
    why: "a failed attempt must not leave the file half sealed for its owner",
    spec: &[man("fcntl(2)", "EBUSY"), kernel("mm/memfd.c", "mapping_allow_writable")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.write.ebusy-changes-nothing", |cx| {
        let fd = size(sealable()?, 16)?;
        let first = Map::shared(&fd, 16)?;
        cx.expect_errno(EBUSY, || add_seals(fd.as_raw_fd(), F_SEAL_WRITE))?;
        cx.expect_ok(|| Map::shared(&fd, 16))?.write(2, 2);
        first.close()?;
        cx.expect_ok(|| Map::shared(&fd, 16))?.write(3, 3);
        cx.expect_ok(|| sys::pwrite(fd.as_raw_fd(), b"x", 0)).map(drop)
    })
};

const FUTURE_MAPPED_OK: Probe = Probe {
    title: "F_SEAL_FUTURE_WRITE succeeds while a writable mapping exists",
    why: "the owner keeps its mapping: this is what the seal was made for",
    varies: "F_SEAL_FUTURE_WRITE is there since Linux 5.1",
    spec: &[man("fcntl(2)", "F_SEAL_FUTURE_WRITE")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.future-write.mapped", |cx| {
        known(F_SEAL_FUTURE_WRITE, "F_SEAL_FUTURE_WRITE")?;
        let fd = size(sealable()?, 16)?;
        let _map = Map::shared(&fd, 16)?;
        cx.expect_ok(|| add_seals(fd.as_raw_fd(), F_SEAL_FUTURE_WRITE))?;
        cx.expect_eq("seals", seals_of(fd.as_raw_fd())?, F_SEAL_FUTURE_WRITE)
    })
};

const FUTURE_STILL_WRITES: Probe = Probe {
    title: "F_SEAL_FUTURE_WRITE: stores of an earlier mapping reach readers",
    why: "one writer, many readers that cannot write: Android's shared regions, a clock page, a status block",
    varies: "F_SEAL_FUTURE_WRITE is there since Linux 5.1",
    spec: &[man("fcntl(2)", "F_SEAL_FUTURE_WRITE")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.future-write.earlier-mapping", |cx| {
        known(F_SEAL_FUTURE_WRITE, "F_SEAL_FUTURE_WRITE")?;
        let fd = size(sealable()?, 16)?;
        let writer = Map::shared(&fd, 16)?;
        add_seals(fd.as_raw_fd(), F_SEAL_FUTURE_WRITE)?;
        writer.write(0, 0x61);
        let reader = reopen(&fd, O_RDONLY)?;
        let seen = cx.elsewhere(|_| Ok(Map::new(16, PROT_READ, MAP_SHARED, reader.as_raw_fd())?.read(0)))?;
        cx.expect_eq("byte seen by a reader", seen, 0x61)?;
        cx.expect_errno(EPERM, || sys::pwrite(fd.as_raw_fd(), b"x", 0))
    })
};

const FUTURE_INHERITED: Probe = Probe {
    title: "F_SEAL_FUTURE_WRITE: an earlier mapping made read-only comes back",
    why: "mprotect of the owner's old mapping is no new mapping",
    varies: "F_SEAL_FUTURE_WRITE is there since Linux 5.1",
    spec: &[man("fcntl(2)", "F_SEAL_FUTURE_WRITE"), man("mprotect(2)", "DESCRIPTION")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.future-write.earlier-mprotect", |cx| {
        known(F_SEAL_FUTURE_WRITE, "F_SEAL_FUTURE_WRITE")?;
        let fd = size(sealable()?, 16)?;
        let map = Map::shared(&fd, 16)?;
        add_seals(fd.as_raw_fd(), F_SEAL_FUTURE_WRITE)?;
        sys::mprotect(map.address(), 16, PROT_READ)?;
        cx.expect_ok(|| sys::mprotect(map.address(), 16, SHARED_WRITE))?;
        map.write(0, 3);
        let mut byte = [0];
        sys::pread(fd.as_raw_fd(), &mut byte, 0)?;
        cx.expect_eq("byte of the file", byte, [3])
    })
};

const FUTURE_THEN_WRITE: Probe = Probe {
    title: "F_SEAL_WRITE after F_SEAL_FUTURE_WRITE still waits for mappings",
    why: "the last step, freezing the content, needs the owner's own mapping gone",
    varies: "F_SEAL_FUTURE_WRITE is there since Linux 5.1",
    spec: &[man("fcntl(2)", "EBUSY"), man("fcntl(2)", "F_SEAL_FUTURE_WRITE")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.future-write.then-write", |cx| {
        known(F_SEAL_FUTURE_WRITE, "F_SEAL_FUTURE_WRITE")?;
        let fd = size(sealable()?, 16)?;
        let map = Map::shared(&fd, 16)?;
        add_seals(fd.as_raw_fd(), F_SEAL_FUTURE_WRITE)?;
        cx.expect_errno(EBUSY, || add_seals(fd.as_raw_fd(), F_SEAL_WRITE))?;
        map.close()?;
        cx.expect_ok(|| add_seals(fd.as_raw_fd(), F_SEAL_WRITE))?;
        cx.expect_eq("seals", seals_of(fd.as_raw_fd())?, F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)
    })
};

/// A sealable file of one page whose page lies in a pipe by reference, and the pipe's two ends.
fn pinned() -> Result<(OwnedFd, OwnedFd, OwnedFd), Stop> {
    let page = sys::page_size();
    let fd = size(sealable()?, page)?;
    let map = Map::shared(&fd, page)?;
    map.write(0, 0x70);
    let (reading, writing) = sys::pipe()?;
    sys::vmsplice(writing.as_raw_fd(), map.address(), page)?;
    map.close()?;
    Ok((fd, reading, writing))
}

const PINNED_EBUSY: Probe = Probe {
    title: "F_SEAL_WRITE while the kernel holds pages for I/O gives EBUSY",
    why: "direct I/O and zero-copy sends write into pages without any mapping; the seal would not stop them",
    spec: &[man("fcntl(2)", "EBUSY"), kernel("mm/memfd.c", "memfd_wait_for_pins")],
    calls: &[Sys::MemfdCreate, Sys::Vmsplice],
    isolate: Isolate::Cell,
    waits: true,
    ..Probe::new("memfd.write.pinned-ebusy", |cx| {
        let (fd, reading, _writing) = pinned()?;
        // The kernel itself waits 150 ms for such pages before it gives up.
        cx.expect_errno(EBUSY, || add_seals(fd.as_raw_fd(), F_SEAL_WRITE))?;
        cx.expect_eq("seals", seals_of(fd.as_raw_fd())?, 0)?;
        drain(&reading)?;
        cx.expect_ok(|| add_seals(fd.as_raw_fd(), F_SEAL_WRITE))
    })
};

const UNPINNED_OK: Probe = Probe {
    title: "F_SEAL_WRITE waits for pages that are let go soon",
    why: "a short direct write in flight must not make sealing fail at random",
    spec: &[kernel("mm/memfd.c", "memfd_wait_for_pins"), man("fcntl(2)", "F_SEAL_WRITE")],
    calls: &[Sys::MemfdCreate, Sys::Vmsplice],
    isolate: Isolate::Cell,
    ..Probe::new("memfd.write.pinned-then-released", |cx| {
        let (fd, reading, _writing) = pinned()?;
        let sealer = cx.fork(|_| Ok(add_seals(fd.as_raw_fd(), F_SEAL_WRITE)?))?;
        let waits = || Ok(matches!(shmcheck_probe::procfs::state(sealer.pid()), Some('S' | 'D' | 'Z') | None));
        cx.until("the sealing process waits", waits)?;
        drain(&reading)?;
        sealer.join()?;
        cx.expect_eq("seals", seals_of(fd.as_raw_fd())?, F_SEAL_WRITE)
    })
};

/// Reads the page out of the pipe: its reference is dropped.
fn drain(reading: &OwnedFd) -> Result<(), Stop> {
    Ok(File::from(reading.try_clone()?).read_exact(&mut vec![0; sys::page_size()])?)
}
