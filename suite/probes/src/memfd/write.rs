//! F_SEAL_WRITE and F_SEAL_FUTURE_WRITE: every way to change the content, writable mappings, pinned pages.

use super::{known, reopen, sealable};
use libc::{EACCES, EPERM, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, MAP_PRIVATE, MAP_SHARED, O_RDONLY, O_RDWR};
use libc::{PROT_READ, PROT_WRITE};
use shmcheck_probe::{Context, Isolate, Map, Outcome, Probe, Stop, Sys, kernel, man, sys};
use std::os::fd::{AsRawFd, OwnedFd};
use sys::{F_SEAL_FUTURE_WRITE, F_SEAL_GROW, F_SEAL_SHRINK, F_SEAL_WRITE, add_seals};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &WRITE_CALLS,
    &FUTURE_CALLS,
    &WRITE_MAP,
    &FUTURE_MAP,
    &WRITE_READ_MAP,
    &FUTURE_READ_MAP,
    &WRITE_PRIVATE,
    &FUTURE_PRIVATE,
    &WRITE_PUNCH,
    &FUTURE_PUNCH,
    &WRITE_RESIZE,
    &WRITE_FALLOCATE,
    &WRITE_READ,
    &SPLICED,
    &COPIED,
    &PROC_MEM,
];

const CALLS: &[Sys] = &[Sys::MemfdCreate];
const SHARED_WRITE: i32 = PROT_READ | PROT_WRITE;

/// A memfd of one page, filled with 0x4d, with these seals.
fn sealed(seals: i32) -> Result<OwnedFd, Stop> {
    if seals & F_SEAL_FUTURE_WRITE != 0 {
        known(F_SEAL_FUTURE_WRITE, "F_SEAL_FUTURE_WRITE")?;
    }
    let fd = sealable()?;
    sys::pwrite(fd.as_raw_fd(), &vec![0x4d; sys::page_size()], 0)?;
    add_seals(fd.as_raw_fd(), seals)?;
    Ok(fd)
}

/// The content is still that of [`sealed`].
fn unchanged(cx: &Context, fd: &OwnedFd) -> Outcome {
    let mut content = vec![0; sys::page_size() + 1];
    let length = sys::pread(fd.as_raw_fd(), &mut content, 0)?;
    let changed = content[..length].iter().filter(|byte| **byte != 0x4d).count();
    cx.expect_eq("bytes in all, bytes changed", (length, changed), (sys::page_size(), 0))
}

const WRITE_CALLS: Probe = Probe {
    title: "F_SEAL_WRITE: write fails with EPERM, the content stays",
    why: "a receiver checks a message and uses it afterwards: the sender must not be able to change it in between",
    spec: &[man("fcntl(2)", "F_SEAL_WRITE"), man("write(2)", "EPERM")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.write.write-calls", |cx| writing_calls(cx, F_SEAL_WRITE))
};
const FUTURE_CALLS: Probe = Probe {
    title: "F_SEAL_FUTURE_WRITE: write fails with EPERM, the content stays",
    why: "Android hands its read-only regions out under this seal: a client that writes must be stopped",
    varies: "F_SEAL_FUTURE_WRITE is there since Linux 5.1",
    spec: &[man("fcntl(2)", "F_SEAL_FUTURE_WRITE"), man("write(2)", "EPERM")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.future-write.write-calls", |cx| writing_calls(cx, F_SEAL_FUTURE_WRITE))
};
fn writing_calls(cx: &mut Context, seal: i32) -> Outcome {
    let fd = sealed(seal)?;
    cx.expect_errno(EPERM, || sys::pwrite(fd.as_raw_fd(), b"x", 0))?;
    cx.expect_errno(EPERM, || sys::tmpfs::write(fd.as_raw_fd(), b"x"))?;
    cx.expect_errno(EPERM, || sys::pwrite(fd.as_raw_fd(), b"x", sys::page_size() as i64))?;
    let other = reopen(&fd, O_RDWR)?;
    cx.expect_errno(EPERM, || sys::tmpfs::write(other.as_raw_fd(), b"x"))?;
    unchanged(cx, &fd)
}

const WRITE_MAP: Probe = Probe {
    title: "F_SEAL_WRITE: a shared writable mapping is refused with EPERM",
    why: "the mapping is the way that matters; checking write alone would leave the door open",
    spec: &[man("fcntl(2)", "F_SEAL_WRITE"), man("mmap(2)", "EPERM")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.write.map", |cx| writable_map(cx, F_SEAL_WRITE))
};
const FUTURE_MAP: Probe = Probe {
    title: "F_SEAL_FUTURE_WRITE: a new shared writable mapping gives EPERM",
    why: "only mappings from before the seal may write; a receiver must never get one",
    varies: "F_SEAL_FUTURE_WRITE is there since Linux 5.1",
    spec: &[man("fcntl(2)", "F_SEAL_FUTURE_WRITE"), man("mmap(2)", "EPERM")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.future-write.map", |cx| writable_map(cx, F_SEAL_FUTURE_WRITE))
};
fn writable_map(cx: &mut Context, seal: i32) -> Outcome {
    let fd = sealed(seal)?;
    for protection in [SHARED_WRITE, PROT_WRITE] {
        cx.expect_errno(EPERM, || Map::new(16, protection, MAP_SHARED, fd.as_raw_fd()))?;
    }
    let other = reopen(&fd, O_RDWR)?;
    cx.expect_errno(EPERM, || Map::shared(&other, 16))?;
    unchanged(cx, &fd)
}

const WRITE_READ_MAP: Probe = Probe {
    title: "F_SEAL_WRITE: a shared read-only mapping can never be made writable",
    why: "mprotect is the back door of a reader's mapping",
    varies: "before Linux 6.7 and in 6.12 even the read-only mapping of a writable descriptor is refused with EPERM",
    spec: &[
        man("fcntl(2)", "F_SEAL_WRITE"),
        man("mprotect(2)", "EACCES"),
        kernel("mm/memfd.c", "memfd_check_seals_mmap"),
    ],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.write.read-map", |cx| read_map(cx, F_SEAL_WRITE))
};
const FUTURE_READ_MAP: Probe = Probe {
    title: "F_SEAL_FUTURE_WRITE: a later read-only mapping stays read-only",
    why: "mprotect would turn the receiver's view into a writable one",
    varies: "F_SEAL_FUTURE_WRITE is there since Linux 5.1",
    spec: &[man("fcntl(2)", "F_SEAL_FUTURE_WRITE"), man("mprotect(2)", "EACCES")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.future-write.read-map", |cx| read_map(cx, F_SEAL_FUTURE_WRITE))
};
fn read_map(cx: &mut Context, seal: i32) -> Outcome {
    let fd = sealed(seal)?;
    let reader = reopen(&fd, O_RDONLY)?;
    let map = cx.expect_ok(|| Map::new(16, PROT_READ, MAP_SHARED, reader.as_raw_fd()))?;
    cx.expect_eq("content", map.read(3), 0x4d)?;
    cx.expect_errno(EACCES, || sys::mprotect(map.address(), 16, SHARED_WRITE))?;
    cx.expect_signal("a store", libc::SIGSEGV, || map.write(0, 1))?;
    match Map::new(16, PROT_READ, MAP_SHARED, fd.as_raw_fd()) {
        Ok(map) => cx.expect_errno(EACCES, || sys::mprotect(map.address(), 16, SHARED_WRITE))?,
        Err(e) => cx.expect_eq("read-only mapping of a writable descriptor", e.name(), "EPERM")?,
    }
    unchanged(cx, &fd)
}

const WRITE_PRIVATE: Probe = Probe {
    title: "F_SEAL_WRITE: a private mapping may be written, the file is not",
    why: "receivers parse in place on a private copy; the seal does not forbid it",
    spec: &[man("fcntl(2)", "F_SEAL_WRITE"), man("mmap(2)", "MAP_PRIVATE")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.write.private-map", |cx| private_map(cx, F_SEAL_WRITE))
};
const FUTURE_PRIVATE: Probe = Probe {
    title: "F_SEAL_FUTURE_WRITE: a private mapping may be written",
    why: "copy on write changes nothing for the others; a refusal would break readers that patch their copy",
    varies: "F_SEAL_FUTURE_WRITE is there since Linux 5.1",
    spec: &[man("fcntl(2)", "F_SEAL_FUTURE_WRITE"), man("mmap(2)", "MAP_PRIVATE")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.future-write.private-map", |cx| private_map(cx, F_SEAL_FUTURE_WRITE))
};
fn private_map(cx: &mut Context, seal: i32) -> Outcome {
    let fd = sealed(seal)?;
    let map = cx.expect_ok(|| Map::new(16, SHARED_WRITE, MAP_PRIVATE, fd.as_raw_fd()))?;
    map.write(0, 1);
    cx.expect_eq("bytes of the copy", map.read_all(0, 2), vec![1, 0x4d])?;
    unchanged(cx, &fd)
}

const WRITE_PUNCH: Probe = Probe {
    title: "F_SEAL_WRITE: punching a hole fails with EPERM",
    why: "zeros are a change of the content as well",
    spec: &[man("fcntl(2)", "F_SEAL_WRITE"), man("fallocate(2)", "EPERM")],
    calls: &[Sys::MemfdCreate, Sys::Fallocate],
    isolate: Isolate::Cell,
    ..Probe::new("memfd.write.punch", |cx| punch(cx, F_SEAL_WRITE))
};
const FUTURE_PUNCH: Probe = Probe {
    title: "F_SEAL_FUTURE_WRITE: punching a hole fails with EPERM",
    why: "zeros are a change of the content as well",
    varies: "F_SEAL_FUTURE_WRITE is there since Linux 5.1",
    spec: &[man("fallocate(2)", "EPERM"), kernel("mm/shmem.c", "shmem_fallocate: F_SEAL_FUTURE_WRITE")],
    calls: &[Sys::MemfdCreate, Sys::Fallocate],
    isolate: Isolate::Cell,
    ..Probe::new("memfd.future-write.punch", |cx| punch(cx, F_SEAL_FUTURE_WRITE))
};
fn punch(cx: &mut Context, seal: i32) -> Outcome {
    let fd = sealed(seal)?;
    let mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    cx.expect_errno(EPERM, || sys::fallocate(fd.as_raw_fd(), mode, 0, 1))?;
    cx.expect_errno(EPERM, || sys::fallocate(fd.as_raw_fd(), mode, 0, sys::page_size() as i64))?;
    unchanged(cx, &fd)
}

const WRITE_RESIZE: Probe = Probe {
    title: "F_SEAL_WRITE alone leaves growing and shrinking allowed",
    why: "whoever needs a constant size must add the other seals; a receiver that forgets them dies of SIGBUS",
    spec: &[man("fcntl(2)", "F_SEAL_WRITE")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.write.allows-resize", |cx| {
        for seal in [F_SEAL_WRITE, F_SEAL_FUTURE_WRITE] {
            let fd = sealed(seal)?;
            cx.expect_ok(|| sys::ftruncate(fd.as_raw_fd(), 100_000))?;
            cx.expect_ok(|| sys::ftruncate(fd.as_raw_fd(), 10))?;
            cx.expect_eq("size", sys::fstat(fd.as_raw_fd())?.st_size, 10)?;
        }
        Ok(())
    })
};

const WRITE_FALLOCATE: Probe = Probe {
    title: "F_SEAL_WRITE leaves reserving pages allowed",
    why: "the page names punching alone; reserving changes no byte",
    spec: &[man("fcntl(2)", "F_SEAL_WRITE")],
    calls: &[Sys::MemfdCreate, Sys::Fallocate],
    isolate: Isolate::Cell,
    ..Probe::new("memfd.write.allows-fallocate", |cx| {
        let fd = sealed(F_SEAL_WRITE)?;
        let page = sys::page_size() as i64;
        cx.expect_ok(|| sys::fallocate(fd.as_raw_fd(), FALLOC_FL_KEEP_SIZE, 0, 2 * page))?;
        cx.expect_eq("bytes in blocks", sys::fstat(fd.as_raw_fd())?.st_blocks * 512, 2 * page)?;
        unchanged(cx, &fd)
    })
};

const WRITE_READ: Probe = Probe {
    title: "all seals together leave reading allowed",
    why: "a fully sealed file is how systemd and LXC pass configuration: everybody reads it, nobody changes it",
    spec: &[man("fcntl(2)", "File Sealing")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.write.allows-reading", |cx| {
        let fd = sealed(F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | sys::F_SEAL_SEAL)?;
        let reader = cx.expect_ok(|| reopen(&fd, O_RDONLY))?;
        unchanged(cx, &reader)?;
        let copy = cx.expect_ok(|| Map::new(16, PROT_READ, MAP_PRIVATE, fd.as_raw_fd()))?;
        cx.expect_eq("mapped byte", copy.read(9), 0x4d)
    })
};

const SPLICED: Probe = Probe {
    title: "F_SEAL_WRITE: splice from a pipe into the file gives EPERM",
    why: "the seal must hold on every path that writes, not only on the two that everybody tests",
    spec: &[man("fcntl(2)", "F_SEAL_WRITE"), kernel("mm/shmem.c", "shmem_write_begin")],
    calls: &[Sys::MemfdCreate, Sys::Splice],
    isolate: Isolate::Cell,
    ..Probe::new("memfd.write.splice", |cx| {
        let (open, fd) = (sealed(0)?, sealed(F_SEAL_WRITE)?);
        let (reading, writing) = sys::pipe()?;
        sys::tmpfs::write(writing.as_raw_fd(), b"evil content")?;
        // The control: the same call into a file without the seal.
        cx.expect_eq("bytes spliced", sys::tmpfs::splice(reading.as_raw_fd(), open.as_raw_fd(), 4)?, 4)?;
        cx.expect_errno(EPERM, || sys::tmpfs::splice(reading.as_raw_fd(), fd.as_raw_fd(), 4))?;
        unchanged(cx, &fd)
    })
};

const COPIED: Probe = Probe {
    title: "F_SEAL_WRITE: copy_file_range into the file gives EPERM",
    why: "a copy made inside the kernel is a write as well",
    spec: &[man("fcntl(2)", "F_SEAL_WRITE"), man("copy_file_range(2)", "DESCRIPTION")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.write.copy-range", |cx| {
        let (open, fd, source) = (sealed(0)?, sealed(F_SEAL_WRITE)?, sealed(0)?);
        match sys::tmpfs::copy_range(source.as_raw_fd(), open.as_raw_fd(), 16) {
            Err(e) if e.errno == libc::ENOSYS => return Err(Stop::skip("call:copy_file_range", e.name())),
            copied => cx.expect_eq("bytes copied", copied?, 16)?,
        }
        cx.expect_errno(EPERM, || sys::tmpfs::copy_range(source.as_raw_fd(), fd.as_raw_fd(), 16))?;
        unchanged(cx, &fd)
    })
};

const PROC_MEM: Probe = Probe {
    title: "F_SEAL_WRITE: no way through /proc/self/mem into the file",
    why: "that file writes even where the protection forbids it; for a sealed buffer it must not",
    spec: &[
        man("proc_pid_mem(5)", "DESCRIPTION"),
        kernel("mm/gup.c", "check_vma_flags: FOLL_FORCE"),
        man("fcntl(2)", "F_SEAL_WRITE"),
    ],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.write.proc-mem", |cx| {
        let mem = sys::open("/proc/self/mem", O_RDWR | libc::O_CLOEXEC, 0)?;
        let fd = sealed(F_SEAL_WRITE)?;
        let reader = reopen(&fd, O_RDONLY)?;
        let shared = Map::new(16, PROT_READ, MAP_SHARED, reader.as_raw_fd())?;
        let private = Map::new(16, PROT_READ, MAP_PRIVATE, fd.as_raw_fd())?;
        // A private mapping is written on a copy, or refused by policy; the shared one has no copy.
        let _ = sys::pwrite(mem.as_raw_fd(), b"evil", private.address() as i64);
        cx.expect_errno(libc::EIO, || sys::pwrite(mem.as_raw_fd(), b"evil", shared.address() as i64))?;
        cx.expect_eq("bytes seen by the shared mapping", shared.read_all(0, 4), vec![0x4d; 4])?;
        unchanged(cx, &fd)
    })
};
