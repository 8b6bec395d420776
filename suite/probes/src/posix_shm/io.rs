//! The object beside other input and output: splice, copy_file_range, poll, epoll, pipes.

use libc::{EPERM, O_RDONLY};
use shmcheck_probe::{Need, Probe, Sys, kernel, man, posix, sys};
use std::os::fd::AsRawFd;
use sys::tmpfs::{copy_range, lseek, splice};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[&SPLICE_OUT, &SPLICE_IN, &COPY_RANGE, &POLL, &EPOLL];

const NEEDS: &[Need] = &[Need::DevShm];

const SPLICE_OUT: Probe = Probe {
    title: "splice out of an object gives its data, and zeros for its holes",
    why: "web servers send a cached object to a socket without copying; a hole must not end the transfer",
    spec: &[man("splice(2)", "DESCRIPTION"), kernel("mm/shmem.c", "shmem_file_splice_read")],
    calls: &[Sys::Splice],
    needs: NEEDS,
    ..Probe::new("posix.shm.io.splice-out", |cx| {
        let page = sys::page_size();
        let held = cx.object(3 * page)?;
        sys::pwrite(held.raw(), &vec![0x41; page], page as i64)?;
        let (reading, writing) = sys::pipe()?;
        let mut content = Vec::new();
        while content.len() < 3 * page {
            let moved = cx.expect_ok(|| splice(held.raw(), writing.as_raw_fd(), 3 * page - content.len()))?;
            cx.expect_ne("bytes moved before the end", moved, 0)?;
            let mut part = vec![0xee; moved];
            let read = sys::tmpfs::read(reading.as_raw_fd(), &mut part)?;
            content.extend_from_slice(&part[..read]);
        }
        let wanted = [vec![0; page], vec![0x41; page], vec![0; page]].concat();
        cx.expect("content", content == wanted, "a page of 0x41 between two of zeros", content.len())?;
        cx.expect_eq("bytes moved at the end", splice(held.raw(), writing.as_raw_fd(), page)?, 0)?;
        cx.expect_eq("blocks, in pages", held.stat()?.st_blocks * 512 / page as i64, 1)
    })
};

const SPLICE_IN: Probe = Probe {
    title: "splice from a pipe writes into the object",
    why: "recorders move a stream into shared memory without a copy through their own",
    spec: &[man("splice(2)", "DESCRIPTION")],
    calls: &[Sys::Splice],
    needs: NEEDS,
    ..Probe::new("posix.shm.io.splice-in", |cx| {
        let held = cx.object(0)?;
        let map_later = held.open(O_RDONLY)?;
        let (reading, writing) = sys::pipe()?;
        sys::tmpfs::write(writing.as_raw_fd(), b"through a pipe")?;
        cx.expect_eq("bytes moved", cx.expect_ok(|| splice(reading.as_raw_fd(), held.raw(), 100))?, 14)?;
        let mut content = [0; 16];
        cx.expect_eq("size", sys::pread(map_later.as_raw_fd(), &mut content, 0)?, 14)?;
        cx.expect_eq("content", &content[..14], b"through a pipe")
    })
};

const COPY_RANGE: Probe = Probe {
    title: "copy_file_range copies between two objects",
    why: "snapshots of a live object are taken inside the kernel",
    spec: &[man("copy_file_range(2)", "DESCRIPTION")],
    needs: NEEDS,
    ..Probe::new("posix.shm.io.copy-range", |cx| {
        let (from, to) = (cx.object(0)?, cx.object(0)?);
        sys::pwrite(from.raw(), b"0123456789", 0)?;
        lseek(from.raw(), 3, libc::SEEK_SET)?;
        cx.expect_eq("bytes copied", cx.expect_ok(|| copy_range(from.raw(), to.raw(), 5))?, 5)?;
        let mut content = [0; 8];
        cx.expect_eq("size of the copy", sys::pread(to.raw(), &mut content, 0)?, 5)?;
        cx.expect_eq("content", &content[..5], b"34567")?;
        to.map(1)?.write(0, b'x');
        cx.expect_eq("first byte of the source", super::truncate::byte_at(from.raw(), 3)?, b'3')
    })
};

const POLL: Probe = Probe {
    title: "poll calls an object readable at once, empty or not",
    why: "there is no waiting for shared memory by poll: a program that tries spins at 100 % CPU",
    fix: "use a futex, an eventfd or a semaphore for waking",
    spec: &[man("poll(2)", "DESCRIPTION"), posix("poll")],
    needs: NEEDS,
    ..Probe::new("posix.shm.io.poll", |cx| {
        let held = cx.object(0)?;
        cx.expect_eq("readable when empty", cx.expect_ok(|| sys::poll_in(&held, 0))?, true)?;
        sys::pwrite(held.raw(), b"x", 0)?;
        cx.expect_eq("readable with content", cx.expect_ok(|| sys::poll_in(&held, 0))?, true)
    })
};

const EPOLL: Probe = Probe {
    title: "an object cannot be watched by epoll: EPERM",
    why: "event loops find out at set-up that they need another channel for waking",
    fix: "use an eventfd beside the object",
    spec: &[man("epoll_ctl(2)", "EPERM")],
    needs: NEEDS,
    ..Probe::new("posix.shm.io.epoll", |cx| {
        let held = cx.object(8)?;
        let (reading, _writing) = sys::pipe()?;
        cx.expect_ok(|| sys::tmpfs::epoll_watch(reading.as_raw_fd()))?;
        cx.expect_errno(EPERM, || sys::tmpfs::epoll_watch(held.raw()))
    })
};
