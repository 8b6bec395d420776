//! What mmap(2) refuses: arguments and descriptors.

use super::common::{FILE, PRIVATE, RW, SHARED, lettered_file, page, probe, refused, reopen, reserve};
use libc::{
    EACCES, EBADF, EINVAL, ENODEV, ENOMEM, EOVERFLOW, MAP_ANONYMOUS, MAP_FIXED, MAP_GROWSDOWN, MAP_PRIVATE, MAP_SHARED,
    O_RDONLY, O_RDWR, O_WRONLY, PROT_NONE, PROT_READ, PROT_WRITE,
};
use shmcheck_probe::{Context, Map, Need, Outcome, Probe, Stop, kernel, man, posix, sys};
use std::os::fd::{AsRawFd, OwnedFd};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &LENGTH_ZERO,
    &OFFSET,
    &NO_TYPE,
    &FIXED_UNALIGNED,
    &BAD_FD,
    &WRITE_ONLY,
    &READ_ONLY,
    &READ_ONLY_WRITE_ONLY_PROT,
    &APPEND_ONLY,
    &PIPE,
    &DIRECTORY,
    &SOCKET,
    &OVERFLOW,
    &TOO_LONG,
    &BEYOND_SPACE,
    &GROWS_SHARED,
];

const LENGTH_ZERO: Probe = Probe {
    title: "mmap of length 0 fails with EINVAL",
    why: "mapping an empty file by its size is the commonest bug of file readers; it has to show",
    spec: &[man("mmap(2)", "EINVAL"), posix("mmap")],
    needs: FILE,
    ..probe("map.mmap.refused.length-zero-einval", length_zero)
};
fn length_zero(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    for (flags, fd) in [(SHARED, -1), (PRIVATE, -1), (MAP_SHARED, file.as_raw_fd()), (MAP_PRIVATE, file.as_raw_fd())] {
        cx.expect_ok(|| Map::new(1, RW, flags, fd))?;
        refused(cx, EINVAL, || sys::mmap_raw(0, RW, flags, fd, 0))?;
    }
    Ok(())
}

const OFFSET: Probe = Probe {
    title: "an offset that is no multiple of the page size fails with EINVAL",
    why: "programs built for 4 KiB pages fail here on machines with 64 KiB, instead of reading the wrong place",
    spec: &[man("mmap(2)", "EINVAL"), posix("mmap")],
    needs: FILE,
    ..probe("map.mmap.refused.offset-unaligned-einval", offset)
};
fn offset(cx: &mut Context) -> Outcome {
    let file = lettered_file(2)?;
    for offset in [1, 512, page() as i64 - 1, page() as i64 + 1] {
        refused(cx, EINVAL, || sys::mmap_raw(page(), PROT_READ, MAP_SHARED, file.as_raw_fd(), offset))?;
    }
    cx.expect_ok(|| Map::at(0, page(), PROT_READ, MAP_SHARED, file.as_raw_fd(), page() as i64))?;
    Ok(())
}

const NO_TYPE: Probe = Probe {
    title: "flags with neither MAP_SHARED nor MAP_PRIVATE fail with EINVAL",
    why: "a kernel that picked one of them for the caller would share what was to be private",
    spec: &[man("mmap(2)", "EINVAL"), posix("mmap")],
    needs: FILE,
    ..probe("map.mmap.refused.no-type-einval", no_type)
};
fn no_type(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    refused(cx, EINVAL, || Map::new(page(), RW, MAP_ANONYMOUS, -1))?;
    refused(cx, EINVAL, || Map::new(page(), RW, 0, file.as_raw_fd()))
}

const FIXED_UNALIGNED: Probe = Probe {
    title: "MAP_FIXED with an address inside a page fails with EINVAL",
    why: "checkpoint tools restore memory where it was; one page beside it every pointer is wrong",
    spec: &[man("mmap(2)", "EINVAL"), posix("mmap")],
    ..probe("map.mmap.refused.fixed-unaligned-einval", fixed_unaligned)
};
fn fixed_unaligned(cx: &mut Context) -> Outcome {
    let around = reserve(3)?;
    let at = around.address() + page();
    refused(cx, EINVAL, || Map::at(at + 8, page(), RW, SHARED | MAP_FIXED, -1, 0))?;
    cx.expect_eq("the address without the 8", Map::at(at, page(), RW, SHARED | MAP_FIXED, -1, 0)?.address(), at)
}

const BAD_FD: Probe = Probe {
    title: "a descriptor that is not open fails with EBADF",
    why: "the descriptor was closed too early by another thread: the program must hear of it",
    spec: &[man("mmap(2)", "EBADF"), posix("mmap")],
    needs: FILE,
    ..probe("map.mmap.refused.bad-descriptor-ebadf", bad_fd)
};
fn bad_fd(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let number = file.as_raw_fd();
    drop(file);
    for (fd, flags) in [(number, MAP_SHARED), (number, MAP_PRIVATE), (-1, MAP_SHARED)] {
        refused(cx, EBADF, || Map::new(page(), PROT_READ, flags, fd))?;
    }
    Ok(())
}

const WRITE_ONLY: Probe = Probe {
    title: "a file that is not open for reading cannot be mapped: EACCES",
    why: "a log handed out for writing must not become readable through the side door",
    spec: &[man("mmap(2)", "EACCES"), posix("mmap")],
    needs: FILE,
    ..probe("map.mmap.refused.write-only-eacces", write_only)
};
fn write_only(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let writer = reopen(&file, O_WRONLY)?;
    for (flags, protection) in [
        (MAP_SHARED, PROT_READ),
        (MAP_SHARED, PROT_WRITE),
        (MAP_SHARED, PROT_NONE),
        (MAP_PRIVATE, PROT_READ),
        (MAP_PRIVATE, PROT_WRITE),
    ] {
        refused(cx, EACCES, || Map::new(page(), protection, flags, writer.as_raw_fd()))?;
        cx.expect_ok(|| Map::new(page(), protection, flags, file.as_raw_fd()))?;
    }
    Ok(())
}

const READ_ONLY: Probe = Probe {
    title: "a writable shared mapping of a read-only descriptor fails with EACCES",
    why: "the right that memory is handed over with: a client with a read-only descriptor must not change anything",
    spec: &[man("mmap(2)", "EACCES"), posix("mmap")],
    needs: FILE,
    ..probe("map.mmap.refused.read-only-eacces", |cx| read_only(cx, RW))
};
const READ_ONLY_WRITE_ONLY_PROT: Probe = Probe {
    title: "PROT_WRITE alone needs a writable descriptor as well",
    why: "a check for 'readable and writable' that forgets the bare PROT_WRITE is a hole that real kernels had",
    spec: &[man("mmap(2)", "EACCES"), posix("mmap")],
    needs: FILE,
    ..probe("map.mmap.refused.read-only-prot-write-eacces", |cx| read_only(cx, PROT_WRITE))
};
fn read_only(cx: &mut Context, protection: i32) -> Outcome {
    let file = lettered_file(1)?;
    let reader = reopen(&file, O_RDONLY)?;
    cx.expect_ok(|| Map::new(page(), PROT_READ, MAP_SHARED, reader.as_raw_fd()))?;
    cx.expect_ok(|| Map::new(page(), protection, MAP_SHARED, file.as_raw_fd()))?;
    refused(cx, EACCES, || Map::new(page(), protection, MAP_SHARED, reader.as_raw_fd()))?;
    refused(cx, EACCES, || Map::new(page(), protection, libc::MAP_SHARED_VALIDATE, reader.as_raw_fd()))
}

const APPEND_ONLY: Probe = Probe {
    title: "an append-only file cannot be mapped writable: EACCES",
    why: "audit logs are made append-only (chattr +a) so that nobody rewrites history; a mapping would",
    spec: &[man("mmap(2)", "EACCES"), man("ioctl_iflags(2)", "FS_APPEND_FL")],
    needs: &[Need::InitCap(caps::Capability::CAP_LINUX_IMMUTABLE), Need::Scratch],
    ..probe("map.mmap.refused.append-only-eacces", append_only)
};
fn append_only(cx: &mut Context) -> Outcome {
    /// `FS_APPEND_FL`, include/uapi/linux/fs.h.
    const APPEND: i32 = 0x20;
    let Some(place) = shmcheck_probe::procfs::scratch_place() else { return Err(Stop::broken("no place to write to")) };
    let file = match sys::open(place, libc::O_TMPFILE | O_RDWR | libc::O_CLOEXEC, 0o600) {
        Ok(file) => file,
        Err(e) => return Err(Stop::skip("O_TMPFILE", format!("{place} → {}", e.name()))),
    };
    sys::pwrite(file.as_raw_fd(), &vec![b'a'; page()], 0)?;
    let plain = sys::attributes(file.as_raw_fd());
    let set = plain.and_then(|plain| sys::set_attributes(file.as_raw_fd(), plain | APPEND).map(|()| plain));
    let plain = match set {
        Ok(plain) => plain,
        Err(e) => return Err(Stop::skip("FS_APPEND_FL", format!("{place} → {}", e.name()))),
    };
    let outcome = refused(cx, EACCES, || Map::shared(&file, page()));
    // An append-only file without a name could not be removed by its file system.
    sys::set_attributes(file.as_raw_fd(), plain)?;
    outcome?;
    cx.expect_ok(|| Map::shared(&file, page()))?;
    Ok(())
}

const PIPE: Probe = Probe {
    title: "a pipe cannot be mapped: ENODEV",
    why: "readers that get a pipe instead of a file fall back to read(2) on this errno",
    spec: &[man("mmap(2)", "ENODEV"), posix("mmap")],
    ..probe("map.mmap.refused.pipe-enodev", |cx| {
        let (reading, _writing) = sys::pipe()?;
        no_device(cx, &reading)
    })
};
const DIRECTORY: Probe = Probe {
    title: "a directory cannot be mapped: ENODEV",
    why: "a path mistyped as its directory must not appear as an empty file",
    spec: &[man("mmap(2)", "ENODEV"), posix("mmap")],
    ..probe("map.mmap.refused.directory-enodev", |cx| {
        let root = sys::open("/", O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC, 0)?;
        no_device(cx, &root)
    })
};
const SOCKET: Probe = Probe {
    title: "a socket cannot be mapped: ENODEV",
    why: "a descriptor passed in the wrong order by a compositor's client must be refused, not mapped",
    spec: &[man("mmap(2)", "ENODEV"), posix("mmap")],
    ..probe("map.mmap.refused.socket-enodev", |cx| {
        let (one, _other) = std::os::unix::net::UnixStream::pair()?;
        no_device(cx, &one.into())
    })
};
fn no_device(cx: &mut Context, fd: &OwnedFd) -> Outcome {
    for flags in [MAP_SHARED, MAP_PRIVATE] {
        refused(cx, ENODEV, || Map::new(page(), PROT_READ, flags, fd.as_raw_fd()))?;
    }
    Ok(())
}

const OVERFLOW: Probe = Probe {
    title: "a range beyond the largest file offset fails with EOVERFLOW",
    why: "offsets that wrap around would map the start of the file in place of its end",
    spec: &[man("mmap(2)", "EOVERFLOW"), posix("mmap"), kernel("mm/mmap.c", "file_mmap_ok")],
    needs: FILE,
    ..probe("map.mmap.refused.offset-eoverflow", overflow)
};
fn overflow(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let last = i64::MAX - (page() as i64 - 1);
    refused(cx, EOVERFLOW, || Map::at(0, 2 * page(), PROT_READ, MAP_SHARED, file.as_raw_fd(), last))
}

const TOO_LONG: Probe = Probe {
    title: "a length beyond the address space fails with ENOMEM",
    why: "a size computed from a negative number must be refused, not cut to what fits",
    spec: &[man("mmap(2)", "ENOMEM"), posix("mmap")],
    ..probe("map.mmap.refused.too-long-enomem", too_long)
};
fn too_long(cx: &mut Context) -> Outcome {
    for length in [usize::MAX / 2, usize::MAX - page() + 1, usize::MAX] {
        refused(cx, ENOMEM, || sys::mmap_raw(length, PROT_READ, SHARED, -1, 0))?;
    }
    Ok(())
}

const BEYOND_SPACE: Probe = Probe {
    title: "MAP_FIXED beyond the address space fails with ENOMEM",
    why: "a snapshot taken on a machine with a larger address space cannot be restored here, and must say so",
    spec: &[man("mmap(2)", "ENOMEM")],
    ..probe("map.mmap.refused.beyond-space-enomem", beyond_space)
};
fn beyond_space(cx: &mut Context) -> Outcome {
    refused(cx, ENOMEM, || Map::at(1 << 62, page(), RW, SHARED | MAP_FIXED, -1, 0))?;
    refused(cx, ENOMEM, || Map::at(usize::MAX - 2 * page() + 1, page(), RW, SHARED | MAP_FIXED, -1, 0))
}

const GROWS_SHARED: Probe = Probe {
    title: "shared memory cannot be mapped with MAP_GROWSDOWN: EINVAL",
    why: "a stack that others share would grow into their data; the kernel has never allowed it",
    spec: &[kernel("mm/mmap.c", "do_mmap")],
    needs: FILE,
    ..probe("map.mmap.refused.shared-growsdown-einval", grows_shared)
};
fn grows_shared(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    refused(cx, EINVAL, || Map::new(page(), RW, SHARED | MAP_GROWSDOWN, -1))?;
    refused(cx, EINVAL, || Map::new(page(), RW, MAP_SHARED | MAP_GROWSDOWN, file.as_raw_fd()))
}
