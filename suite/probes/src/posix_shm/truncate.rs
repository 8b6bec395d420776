//! ftruncate(2) on objects: growing, shrinking, what mappings see, refusals.

use libc::{EBADF, EFBIG, EINVAL, O_RDONLY, RLIMIT_FSIZE, SIGBUS, SIGXFSZ};
use shmcheck_probe::{Exit, Isolate, Map, Need, Probe, Sys, doc, man, posix, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &GROWS,
    &SHRINKS,
    &SHRINK_FORGETS,
    &PARTIAL_PAGE,
    &SHRINK_SIGBUS,
    &REVIVED,
    &TAIL_NOT_KEPT,
    &SEEN_BY_ALL,
    &SPARSE,
    &OFFSET_STAYS,
    &TIMES,
    &RDONLY_EINVAL,
    &NEGATIVE_EINVAL,
    &FSIZE_EFBIG,
    &FSIZE_SIGNAL,
    &FSIZE_SHRINK,
    &CLOSED_EBADF,
    &NOT_A_FILE_EINVAL,
];

const NEEDS: &[Need] = &[Need::DevShm];
const CALLS: &[Sys] = &[Sys::Ftruncate];

const GROWS: Probe = Probe {
    title: "growing keeps the content and adds zeros",
    why: "Boost's managed memory grows its segment in place; lost or dirty bytes corrupt the allocator inside it",
    spec: &[man("ftruncate(2)", "DESCRIPTION"), posix("ftruncate")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.truncate.grows", |cx| {
        let page = sys::page_size();
        let held = cx.object(100)?;
        held.map(100)?.write_all(0, &[0xab; 100]);
        cx.expect_ok(|| sys::ftruncate(held.raw(), 2 * page as i64))?;
        cx.expect_eq("size", held.stat()?.st_size, 2 * page as i64)?;
        let map = held.map(2 * page)?;
        cx.expect_eq("old content", map.read_all(0, 100), vec![0xab; 100])?;
        cx.expect_eq("first byte of the new part", map.read(100), 0)?;
        cx.expect_eq("last byte", map.read(2 * page - 1), 0)
    })
};

const SHRINKS: Probe = Probe {
    title: "shrinking gives the pages behind the new end back",
    why: "a cache in /dev/shm that trims itself must lower the container's memory use, or the OOM killer ends it",
    spec: &[man("ftruncate(2)", "DESCRIPTION"), posix("ftruncate")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.truncate.shrinks", |cx| {
        let page = sys::page_size();
        let held = cx.object(4 * page)?;
        held.map(4 * page)?.touch(1);
        let before = held.stat()?.st_blocks;
        cx.expect_ok(|| sys::ftruncate(held.raw(), page as i64))?;
        let stat = held.stat()?;
        cx.expect_eq("size", stat.st_size, page as i64)?;
        cx.expect_eq("four times the blocks left", stat.st_blocks * 4, before)
    })
};

const SHRINK_FORGETS: Probe = Probe {
    title: "content cut off by shrinking does not come back by growing",
    why: "a program that cuts off secrets and grows again for the next client must not hand them over",
    spec: &[man("ftruncate(2)", "DESCRIPTION"), posix("ftruncate")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.truncate.shrink-forgets", |cx| {
        let page = sys::page_size();
        let held = cx.object(2 * page)?;
        let map = held.map(2 * page)?;
        map.write_all(0, &vec![0x77; 2 * page]);
        sys::ftruncate(held.raw(), 0)?;
        sys::ftruncate(held.raw(), 2 * page as i64)?;
        let left = map.read_all(0, 2 * page).into_iter().filter(|byte| *byte != 0).count();
        cx.expect_eq("bytes that are not zero", left, 0)
    })
};

const PARTIAL_PAGE: Probe = Probe {
    title: "shrinking into a page zeroes the rest of that page",
    why: "another process has the page mapped: stale bytes behind the end would show it what was cut off",
    spec: &[man("ftruncate(2)", "DESCRIPTION"), posix("ftruncate")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.truncate.zeroes-partial-page", |cx| {
        let page = sys::page_size();
        let held = cx.object(page)?;
        let map = held.map(page)?;
        map.write_all(0, &vec![0x77; page]);
        sys::ftruncate(held.raw(), 10)?;
        cx.expect_eq("bytes in front of the end", map.read_all(0, 10), vec![0x77; 10])?;
        let left = map.read_all(10, page - 10).into_iter().filter(|byte| *byte != 0).count();
        cx.expect_eq("bytes behind the end that are not zero", left, 0)
    })
};

const SHRINK_SIGBUS: Probe = Probe {
    title: "after shrinking, touching a page behind the end raises SIGBUS",
    why: "a peer that shrinks the object kills every reader: Wayland compositors guard against clients that do so",
    spec: &[man("mmap(2)", "SIGBUS"), posix("mmap")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.truncate.shrink-sigbus", |cx| {
        let page = sys::page_size();
        let held = cx.object(2 * page)?;
        let map = held.map(2 * page)?;
        map.touch(1);
        cx.expect_no_signal("reading the second page before", || _ = map.read(page))?;
        sys::ftruncate(held.raw(), 1)?;
        cx.expect_no_signal("reading the page that holds the end", || _ = map.read(page - 1))?;
        cx.expect_signal("reading behind the end", SIGBUS, || _ = map.read(page))?;
        cx.expect_signal("storing behind the end", SIGBUS, || map.write(page, 1))
    })
};

const REVIVED: Probe = Probe {
    title: "a mapping behind the end works once the object has grown",
    why: "growing rings are mapped with room in advance and extended by ftruncate; readers need no new mapping",
    spec: &[man("mmap(2)", "NOTES"), posix("mmap")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.truncate.grow-revives-mapping", |cx| {
        let page = sys::page_size();
        let held = cx.object(page)?;
        let map = held.map(3 * page)?;
        cx.expect_signal("touching behind the end", SIGBUS, || map.write(2 * page, 1))?;
        sys::ftruncate(held.raw(), 3 * page as i64)?;
        let map = &map;
        cx.expect_no_signal("touching the same place", || map.write(2 * page, 9))?;
        cx.expect_eq("the byte, through a read", byte_at(held.raw(), 2 * page)?, 9)
    })
};

const TAIL_NOT_KEPT: Probe = Probe {
    title: "stores behind the end in the last page are not part of the object",
    why: "a writer that overruns its size by a few bytes does not fault; nobody may find those bytes in the object",
    spec: &[man("mmap(2)", "NOTES"), posix("mmap")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.truncate.tail-not-kept", |cx| {
        let held = cx.object(10)?;
        let map = held.map(sys::page_size())?;
        map.write(10, 0x66);
        let mut bytes = [0; 16];
        cx.expect_eq("bytes read", sys::pread(held.raw(), &mut bytes, 0)?, 10)?;
        cx.expect_eq("size", held.stat()?.st_size, 10)
    })
};

const SEEN_BY_ALL: Probe = Probe {
    title: "a new size is seen at once through every descriptor",
    why: "a client waits until the server has sized the object by polling fstat on a descriptor of its own",
    spec: &[posix("ftruncate"), man("ftruncate(2)", "DESCRIPTION")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.truncate.seen-by-all", |cx| {
        let held = cx.object(0)?;
        let other = held.open(O_RDONLY)?;
        let name = held.name.clone();
        cx.elsewhere(move |_| {
            let fd = sys::shm_open(&name, libc::O_RDWR, 0)?;
            Ok(sys::ftruncate(fd.as_raw_fd(), 12_345)?)
        })?;
        cx.expect_eq("size", sys::fstat(other.as_raw_fd())?.st_size, 12_345)
    })
};

const SPARSE: Probe = Probe {
    title: "growing reserves nothing: a terabyte is a size, not memory",
    why: "ftruncate succeeds far beyond the memory there is, and the program dies of SIGBUS later; PyTorch's data \
          loaders and vLLM meet this in 64 MiB containers",
    fix: "posix_fallocate says ENOSPC at once where ftruncate says nothing",
    spec: &[doc("Documentation/filesystems/tmpfs.rst", ""), man("ftruncate(2)", "DESCRIPTION")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.truncate.sparse", |cx| {
        let held = cx.object(0)?;
        cx.expect_ok(|| sys::ftruncate(held.raw(), 1 << 40))?;
        let stat = held.stat()?;
        cx.expect_eq("st_size and st_blocks", (stat.st_size, stat.st_blocks), (1 << 40, 0))?;
        let page = sys::page_size();
        let at = (1 << 40) - page as i64;
        let last = Map::at(0, page, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, held.raw(), at)?;
        last.write(page - 1, 1);
        cx.expect_eq("bytes allocated after one store", held.stat()?.st_blocks * 512, page as i64)
    })
};

const OFFSET_STAYS: Probe = Probe {
    title: "the file offset does not move",
    why: "a logger that writes through the descriptor after a resize continues where it was, leaving a hole if it must",
    spec: &[man("ftruncate(2)", "DESCRIPTION"), posix("ftruncate")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.truncate.offset-stays", |cx| {
        let held = cx.object(100)?;
        sys::tmpfs::lseek(held.raw(), 60, libc::SEEK_SET)?;
        sys::ftruncate(held.raw(), 20)?;
        cx.expect_eq("offset", sys::tmpfs::lseek(held.raw(), 0, libc::SEEK_CUR)?, 60)?;
        sys::tmpfs::write(held.raw(), b"x")?;
        cx.expect_eq("size after writing one byte there", held.stat()?.st_size, 61)?;
        cx.expect_eq("byte of the hole", byte_at(held.raw(), 40)?, 0)
    })
};

const TIMES: Probe = Probe {
    title: "a change of the size updates the modification time",
    why: "clean-up jobs remove what has not changed for days; an object in use must not look abandoned",
    spec: &[man("ftruncate(2)", "DESCRIPTION"), posix("ftruncate")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.truncate.updates-times", |cx| {
        let held = cx.object(8)?;
        let now = sys::now_seconds();
        sys::tmpfs::futimens(held.raw(), 1_000, 2_000)?;
        sys::ftruncate(held.raw(), 16)?;
        let stat = held.stat()?;
        cx.expect("st_mtime", (now..=now + 60).contains(&stat.st_mtime), format!("{now} or later"), stat.st_mtime)?;
        cx.expect("st_ctime", (now..=now + 60).contains(&stat.st_ctime), format!("{now} or later"), stat.st_ctime)?;
        cx.expect_eq("st_atime", stat.st_atime, 1_000)
    })
};

const RDONLY_EINVAL: Probe = Probe {
    title: "ftruncate through an O_RDONLY descriptor fails with EINVAL",
    why: "a subscriber must not resize the publisher's object under its feet",
    spec: &[man("ftruncate(2)", "EINVAL"), posix("ftruncate")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.truncate.rdonly", |cx| {
        let held = cx.object(8)?;
        let reader = held.open(O_RDONLY)?;
        for length in [0, 8, 16] {
            cx.expect_errno(EINVAL, || sys::ftruncate(reader.as_raw_fd(), length))?;
        }
        cx.expect_eq("size", held.stat()?.st_size, 8)
    })
};

const NEGATIVE_EINVAL: Probe = Probe {
    title: "a negative length fails with EINVAL",
    why: "an overflown size computation must be reported, not turned into a huge object",
    spec: &[man("ftruncate(2)", "EINVAL"), posix("ftruncate")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.truncate.negative", |cx| {
        let held = cx.object(8)?;
        for length in [-1, i64::MIN] {
            cx.expect_errno(EINVAL, || sys::ftruncate(held.raw(), length))?;
        }
        cx.expect_eq("size", held.stat()?.st_size, 8)
    })
};

const FSIZE_EFBIG: Probe = Probe {
    title: "growing above RLIMIT_FSIZE fails with EFBIG",
    why: "a service with LimitFSIZE set for its logs cannot create its shared memory either, to everyone's surprise",
    fix: "raise LimitFSIZE (systemd) or --ulimit fsize",
    spec: &[man("ftruncate(2)", "EFBIG"), man("getrlimit(2)", "RLIMIT_FSIZE"), posix("ftruncate")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.truncate.fsize-efbig", |cx| {
        let held = cx.object(8)?;
        cx.elsewhere(|cx| {
            sys::trace::ignore(SIGXFSZ);
            limit_file_size(4096)?;
            cx.expect_ok(|| sys::ftruncate(held.raw(), 4096))?;
            cx.expect_errno(EFBIG, || sys::ftruncate(held.raw(), 4097))?;
            cx.expect_eq("size", held.stat()?.st_size, 4096)
        })
    })
};

const FSIZE_SIGNAL: Probe = Probe {
    title: "growing above RLIMIT_FSIZE raises SIGXFSZ",
    why: "the default action ends the program: its user sees 'File size limit exceeded' and no file anywhere",
    fix: "raise LimitFSIZE (systemd) or --ulimit fsize",
    spec: &[man("getrlimit(2)", "RLIMIT_FSIZE"), man("signal(7)", "SIGXFSZ"), posix("ftruncate")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.truncate.fsize-sigxfsz", |cx| {
        let held = cx.object(8)?;
        let exit = cx
            .fork(|_| {
                sys::trace::by_default(SIGXFSZ);
                limit_file_size(4096)?;
                Ok(sys::ftruncate(held.raw(), 4097)?)
            })?
            .exit()?;
        cx.expect_eq("end of the process", exit, Exit::Signal(SIGXFSZ))?;
        cx.expect_eq("size", held.stat()?.st_size, 8)
    })
};

const FSIZE_SHRINK: Probe = Probe {
    title: "RLIMIT_FSIZE does not stop shrinking an object",
    why: "a limited helper that trims the big cache of its unlimited parent must not be killed for it",
    spec: &[man("getrlimit(2)", "RLIMIT_FSIZE"), posix("ftruncate")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.truncate.fsize-shrink", |cx| {
        let held = cx.object(100_000)?;
        cx.elsewhere(|cx| {
            sys::trace::ignore(SIGXFSZ);
            limit_file_size(4096)?;
            cx.expect_ok(|| sys::ftruncate(held.raw(), 50_000))
        })?;
        cx.expect_eq("size", held.stat()?.st_size, 50_000)
    })
};

/// Sets the soft limit of RLIMIT_FSIZE; this process's own pipe is not a file.
pub(crate) fn limit_file_size(bytes: u64) -> sys::Result<()> {
    let (_, hard) = sys::getrlimit(RLIMIT_FSIZE)?;
    sys::setrlimit(RLIMIT_FSIZE, bytes, hard)
}

const CLOSED_EBADF: Probe = Probe {
    title: "ftruncate of a closed descriptor fails with EBADF",
    why: "a descriptor closed too early shows here, not as an object of the wrong size",
    spec: &[man("ftruncate(2)", "EBADF"), posix("ftruncate")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("posix.shm.truncate.closed", |cx| {
        let (reading, writing) = sys::pipe()?;
        let number = reading.as_raw_fd();
        drop((reading, writing));
        for fd in [number, -1, i32::MAX] {
            cx.expect_errno(EBADF, || sys::ftruncate(fd, 0))?;
        }
        Ok(())
    })
};

const NOT_A_FILE_EINVAL: Probe = Probe {
    title: "ftruncate of something that is no file fails with EINVAL",
    why: "a mixed-up descriptor must not be answered with success, or the program maps an object of size 0 and dies",
    spec: &[man("ftruncate(2)", "EINVAL"), posix("ftruncate")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("posix.shm.truncate.not-a-file", |cx| {
        let (_reading, writing) = sys::pipe()?;
        let (socket, _other) = std::os::unix::net::UnixDatagram::pair()?;
        let directory = sys::open("/", O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC, 0)?;
        for fd in [writing.as_raw_fd(), socket.as_raw_fd(), directory.as_raw_fd()] {
            cx.expect_errno(EINVAL, || sys::ftruncate(fd, 1))?;
        }
        Ok(())
    })
};

/// The byte that read(2) finds at an offset.
pub(crate) fn byte_at(fd: i32, offset: usize) -> sys::Result<u8> {
    let mut byte = [0xee];
    sys::pread(fd, &mut byte, offset as i64)?;
    Ok(byte[0])
}
