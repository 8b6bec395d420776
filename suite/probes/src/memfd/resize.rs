//! F_SEAL_SHRINK and F_SEAL_GROW: every way to change the size, and what stays allowed.

use super::{reopen, sealable, size};
use libc::{EPERM, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, O_RDWR, O_TRUNC};
use shmcheck_probe::{Isolate, Map, Probe, Stop, Sys, kernel, man, sys};
use std::os::fd::{AsRawFd, OwnedFd};
use sys::{F_SEAL_GROW, F_SEAL_SHRINK, add_seals};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &SHRINK_FTRUNCATE,
    &SHRINK_PATH,
    &SHRINK_OPEN,
    &SHRINK_ALLOWS,
    &SHRINK_PUNCH,
    &SHRINK_SAFE,
    &GROW_FTRUNCATE,
    &GROW_WRITE,
    &GROW_CROSSING,
    &GROW_FALLOCATE,
    &GROW_ALLOWS,
    &BOTH_FIX,
];

const CALLS: &[Sys] = &[Sys::MemfdCreate];

/// A memfd of two pages, filled with 0x4d, with these seals.
fn sealed(seals: i32) -> Result<OwnedFd, Stop> {
    let fd = sealable()?;
    sys::pwrite(fd.as_raw_fd(), &vec![0x4d; 2 * sys::page_size()], 0)?;
    add_seals(fd.as_raw_fd(), seals)?;
    Ok(fd)
}

fn length(fd: &OwnedFd) -> Result<usize, Stop> {
    Ok(usize::try_from(sys::fstat(fd.as_raw_fd())?.st_size).unwrap_or(0))
}

fn path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

const SHRINK_FTRUNCATE: Probe = Probe {
    title: "F_SEAL_SHRINK: ftruncate to a smaller size fails with EPERM",
    why: "a compositor maps its client's buffer: without the seal the client can kill it with SIGBUS at any moment",
    spec: &[man("fcntl(2)", "F_SEAL_SHRINK"), man("ftruncate(2)", "EPERM")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.shrink.ftruncate", |cx| {
        let fd = sealed(F_SEAL_SHRINK)?;
        let full = length(&fd)?;
        for smaller in [0, 1, full - 1] {
            cx.expect_errno(EPERM, || sys::ftruncate(fd.as_raw_fd(), smaller as i64))?;
        }
        cx.expect_eq("size", length(&fd)?, full)?;
        cx.expect_eq("last byte", Map::shared(&fd, full)?.read(full - 1), 0x4d)
    })
};

const SHRINK_PATH: Probe = Probe {
    title: "F_SEAL_SHRINK: truncate by path fails with EPERM",
    why: "the seal must hold on the way through /proc as well",
    spec: &[man("fcntl(2)", "F_SEAL_SHRINK"), man("ftruncate(2)", "EPERM")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.shrink.truncate", |cx| {
        let fd = sealed(F_SEAL_SHRINK)?;
        let full = length(&fd)?;
        cx.expect_errno(EPERM, || sys::truncate(&path(&fd), 0))?;
        cx.expect_eq("size", length(&fd)?, full)
    })
};

const SHRINK_OPEN: Probe = Probe {
    title: "F_SEAL_SHRINK: open with O_TRUNC fails with EPERM",
    why: "the third way to empty a file; the page names it, and a kernel may forget it",
    spec: &[man("fcntl(2)", "F_SEAL_SHRINK")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.shrink.open-trunc", |cx| {
        let fd = sealed(F_SEAL_SHRINK)?;
        let full = length(&fd)?;
        cx.expect_ok(|| reopen(&fd, O_RDWR))?;
        cx.expect_errno(EPERM, || reopen(&fd, O_RDWR | O_TRUNC))?;
        cx.expect_eq("size", length(&fd)?, full)
    })
};

const SHRINK_ALLOWS: Probe = Probe {
    title: "F_SEAL_SHRINK leaves the same size, growing and writing allowed",
    why: "a log that only grows is shared under this seal; more would stop it",
    spec: &[man("fcntl(2)", "F_SEAL_SHRINK")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.shrink.allows", |cx| {
        let fd = sealed(F_SEAL_SHRINK)?;
        let full = length(&fd)?;
        cx.expect_ok(|| sys::ftruncate(fd.as_raw_fd(), full as i64))?;
        cx.expect_ok(|| sys::ftruncate(fd.as_raw_fd(), 2 * full as i64))?;
        cx.expect_ok(|| sys::pwrite(fd.as_raw_fd(), b"end", 2 * full as i64))?;
        cx.expect_ok(|| sys::fallocate(fd.as_raw_fd(), 0, 0, 3 * full as i64))?;
        cx.expect_eq("size", length(&fd)?, 3 * full)?;
        Map::shared(&fd, full)?.write(0, 1);
        cx.expect_errno(EPERM, || sys::ftruncate(fd.as_raw_fd(), 2 * full as i64))
    })
};

const SHRINK_PUNCH: Probe = Probe {
    title: "F_SEAL_SHRINK leaves punching holes allowed",
    why: "the size is what is sealed; memory may be given back, and the mapper reads zeros instead of dying",
    spec: &[man("fcntl(2)", "F_SEAL_WRITE"), kernel("mm/shmem.c", "shmem_fallocate")],
    calls: &[Sys::MemfdCreate, Sys::Fallocate],
    isolate: Isolate::Cell,
    ..Probe::new("memfd.shrink.allows-punch", |cx| {
        let fd = sealed(F_SEAL_SHRINK | F_SEAL_GROW)?;
        let full = length(&fd)?;
        let mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        cx.expect_ok(|| sys::fallocate(fd.as_raw_fd(), mode, 0, 16))?;
        cx.expect_eq("size", length(&fd)?, full)?;
        cx.expect_eq("bytes around the hole's end", Map::shared(&fd, full)?.read_all(15, 2), vec![0, 0x4d])
    })
};

const SHRINK_SAFE: Probe = Probe {
    title: "a mapping of a file with F_SEAL_SHRINK never faults by its peer",
    why: "this is the promise that D-Bus and Wayland receivers buy with the seal",
    spec: &[man("memfd_create(2)", "NOTES"), man("fcntl(2)", "F_SEAL_SHRINK")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.shrink.no-sigbus", |cx| {
        let attack = |cx: &mut shmcheck_probe::Context, fd: &OwnedFd| {
            let full = length(fd)?;
            let map = Map::shared(fd, full)?;
            // What a malicious peer can try; the results are claims of other probes.
            cx.elsewhere(|_| {
                let _ = sys::ftruncate(fd.as_raw_fd(), 0);
                let _ = sys::truncate(&path(fd), 0);
                let _ = reopen(fd, O_RDWR | O_TRUNC);
                Ok(())
            })?;
            cx.exit_of(|| (0..full).step_by(512).for_each(|n| _ = map.read(n)))
        };
        let bus = attack(cx, &sealed(0)?)?;
        cx.expect_eq("the unsealed control", bus, shmcheck_probe::Exit::Signal(libc::SIGBUS))?;
        let safe = attack(cx, &sealed(F_SEAL_SHRINK)?)?;
        cx.expect_eq("the sealed file", safe, shmcheck_probe::Exit::Code(0))
    })
};

const GROW_FTRUNCATE: Probe = Probe {
    title: "F_SEAL_GROW: ftruncate to a larger size fails with EPERM",
    why: "the receiver accounts for the buffer when it gets it; growing later would be memory nobody counted",
    spec: &[man("fcntl(2)", "F_SEAL_GROW"), man("ftruncate(2)", "EPERM")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.grow.ftruncate", |cx| {
        let fd = sealed(F_SEAL_GROW)?;
        let full = length(&fd)?;
        for larger in [full + 1, 1 << 30] {
            cx.expect_errno(EPERM, || sys::ftruncate(fd.as_raw_fd(), larger as i64))?;
            cx.expect_errno(EPERM, || sys::truncate(&path(&fd), larger as i64))?;
        }
        cx.expect_eq("size", length(&fd)?, full)
    })
};

const GROW_WRITE: Probe = Probe {
    title: "F_SEAL_GROW: write at or behind the end fails with EPERM",
    why: "appending is growing; a writer that relies on it must be told",
    spec: &[man("fcntl(2)", "F_SEAL_GROW"), man("write(2)", "EPERM")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.grow.write-at-end", |cx| {
        let fd = sealed(F_SEAL_GROW)?;
        let full = length(&fd)?;
        for offset in [full, full + 4096] {
            cx.expect_errno(EPERM, || sys::pwrite(fd.as_raw_fd(), b"x", offset as i64))?;
        }
        let append = reopen(&fd, O_RDWR | libc::O_APPEND)?;
        cx.expect_errno(EPERM, || sys::tmpfs::write(append.as_raw_fd(), b"x"))?;
        cx.expect_eq("size", length(&fd)?, full)
    })
};

const GROW_CROSSING: Probe = Probe {
    title: "F_SEAL_GROW: a write across the end does not grow the file",
    why: "the last block of a copy overlaps the end; whether the part in front is written differs, the size must not",
    varies: "kernels refuse the whole write with EPERM or write the part in front of the end",
    spec: &[man("fcntl(2)", "F_SEAL_GROW"), kernel("mm/shmem.c", "shmem_write_begin")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.grow.write-across-end", |cx| {
        let fd = sealed(F_SEAL_GROW)?;
        let full = length(&fd)?;
        let got = sys::pwrite(fd.as_raw_fd(), &[1; 20], full as i64 - 10).map_err(|e| e.name());
        cx.expect(
            "pwrite of 20 bytes 10 in front of the end",
            [Ok(10), Err("EPERM")].contains(&got),
            "EPERM or 10",
            got,
        )?;
        cx.expect_eq("size", length(&fd)?, full)
    })
};

const GROW_FALLOCATE: Probe = Probe {
    title: "F_SEAL_GROW: fallocate behind the end fails with EPERM",
    why: "reserving is growing, also with FALLOC_FL_KEEP_SIZE: it takes memory the receiver did not agree to",
    spec: &[man("fcntl(2)", "F_SEAL_GROW"), man("fallocate(2)", "EPERM")],
    calls: &[Sys::MemfdCreate, Sys::Fallocate],
    isolate: Isolate::Cell,
    ..Probe::new("memfd.grow.fallocate", |cx| {
        let fd = sealed(F_SEAL_GROW)?;
        let full = length(&fd)?;
        cx.expect_ok(|| sys::fallocate(fd.as_raw_fd(), 0, 0, full as i64))?;
        cx.expect_errno(EPERM, || sys::fallocate(fd.as_raw_fd(), 0, 0, full as i64 + 1))?;
        cx.expect_errno(EPERM, || sys::fallocate(fd.as_raw_fd(), FALLOC_FL_KEEP_SIZE, full as i64, 4096))?;
        let stat = sys::fstat(fd.as_raw_fd())?;
        cx.expect_eq("size and bytes in blocks", (stat.st_size, stat.st_blocks * 512), (full as i64, full as i64))
    })
};

const GROW_ALLOWS: Probe = Probe {
    title: "F_SEAL_GROW leaves the same size, shrinking and writing allowed",
    why: "a sender hands over room and trims it to what it used",
    spec: &[man("fcntl(2)", "F_SEAL_GROW")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.grow.allows", |cx| {
        let fd = sealed(F_SEAL_GROW)?;
        let full = length(&fd)?;
        cx.expect_ok(|| sys::ftruncate(fd.as_raw_fd(), full as i64))?;
        cx.expect_eq("bytes written to the end", sys::pwrite(fd.as_raw_fd(), &[1; 10], full as i64 - 10)?, 10)?;
        Map::shared(&fd, full)?.write(0, 2);
        cx.expect_ok(|| sys::ftruncate(fd.as_raw_fd(), 100))?;
        cx.expect_errno(EPERM, || sys::ftruncate(fd.as_raw_fd(), full as i64))?;
        cx.expect_eq("size", length(&fd)?, 100)
    })
};

const BOTH_FIX: Probe = Probe {
    title: "both seals together fix the size and nothing else",
    why: "ring buffers between two processes: constant size, both sides write",
    spec: &[man("memfd_create(2)", "NOTES"), man("fcntl(2)", "File Sealing")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.grow.with-shrink", |cx| {
        let fd = size(sealable()?, 4_096)?;
        add_seals(fd.as_raw_fd(), F_SEAL_GROW | F_SEAL_SHRINK)?;
        for other in [0, 4_095, 4_097] {
            cx.expect_errno(EPERM, || sys::ftruncate(fd.as_raw_fd(), other))?;
        }
        cx.expect_ok(|| sys::ftruncate(fd.as_raw_fd(), 4_096))?;
        let map = cx.expect_ok(|| Map::shared(&fd, 4_096))?;
        cx.elsewhere(|_| {
            Map::shared(&fd, 4_096)?.write(7, 7);
            Ok(())
        })?;
        cx.expect_eq("byte of the other side", map.read(7), 7)
    })
};
