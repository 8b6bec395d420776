//! memfd_create(2): flags, names, the descriptor, what the file is.

use super::size;
use crate::posix_shm::open::exists;
use crate::posix_shm::truncate::limit_file_size;
use libc::{EFAULT, EINVAL, EXDEV, O_RDWR};
use shmcheck_probe::{Entry, Isolate, Map, Need, Probe, Stop, Sys, doc, kernel, man, posix, procfs, sys};
use std::os::fd::AsRawFd;
use sys::{MFD_ALLOW_SEALING, MFD_CLOEXEC, MFD_HUGETLB, memfd_create};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &EMPTY,
    &RAW,
    &SHARED_FORK,
    &LINK_TEXT,
    &MAPS_NAME,
    &NAMES_REPEAT,
    &NAME_ANY,
    &NAME_LONGEST,
    &NAME_TOO_LONG,
    &BAD_POINTER,
    &BAD_FLAGS,
    &SIZE_WITHOUT_HUGE,
    &OWNER,
    &NOT_IN_DEV_SHM,
    &NOT_LINKED,
    &OTHER_SPACE,
    &FSIZE,
    &PUNCH,
    &SEEK,
];

const CALLS: &[Sys] = &[Sys::MemfdCreate];

const EMPTY: Probe = Probe {
    title: "a memfd starts with size 0 and reads zero once it is sized",
    why: "frame buffers and IPC arenas are expected clean; old bytes would be another process's secrets",
    spec: &[man("memfd_create(2)", "DESCRIPTION")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.create.empty", |cx| {
        let fd = memfd_create("empty", 0)?;
        let stat = sys::fstat(fd.as_raw_fd())?;
        cx.expect_eq("st_size and st_blocks", (stat.st_size, stat.st_blocks), (0, 0))?;
        let length = 2 * sys::page_size();
        sys::ftruncate(fd.as_raw_fd(), length as i64)?;
        let set = Map::shared(&fd, length)?.read_all(0, length).into_iter().filter(|byte| *byte != 0).count();
        cx.expect_eq("bytes that are not zero", set, 0)
    })
};

const RAW: Probe = Probe {
    title: "the system call and the C library's function do the same",
    why: "programs built against an old C library make the call by number",
    spec: &[man("memfd_create(2)", "SYNOPSIS")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.create.raw-call", |cx| {
        for flags in [0, MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_CLOEXEC | MFD_ALLOW_SEALING] {
            let (raw, library) = (cx.expect_ok(|| sys::memfd_create_raw("both", flags))?, memfd_create("both", flags)?);
            let seen = |fd: i32| Ok::<_, Stop>((sys::fcntl(fd, libc::F_GETFD, 0)?, sys::get_seals(fd)?));
            cx.expect_eq(
                &format!("F_GETFD and seals of flags {flags:#x}"),
                seen(raw.as_raw_fd())?,
                seen(library.as_raw_fd())?,
            )?;
        }
        Ok(())
    })
};

const SHARED_FORK: Probe = Probe {
    title: "a memfd mapped shared is one memory for parent and child",
    why: "browsers put a memfd between their processes; a private copy shows a blank window",
    spec: &[man("memfd_create(2)", "DESCRIPTION"), posix("mmap")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.create.shared-over-fork", |cx| {
        let fd = size(memfd_create("shared", 0)?, 64)?;
        let map = Map::shared(&fd, 64)?;
        map.write(0, 1);
        let seen = cx.elsewhere(|_| {
            let own = Map::shared(&fd, 64)?;
            own.write(1, 2);
            Ok(own.read(0))
        })?;
        cx.expect_eq("byte seen by the child, byte the child stored", (seen, map.read(1)), (1, 2))
    })
};

const LINK_TEXT: Probe = Probe {
    title: "/proc/self/fd shows a memfd as '/memfd:NAME (deleted)'",
    why: "the name is there for debugging: lsof tells an administrator whose buffer it is",
    spec: &[man("memfd_create(2)", "DESCRIPTION"), man("proc_pid_fd(5)", "DESCRIPTION")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.create.link-text", |cx| {
        let fd = memfd_create("a name", 0)?;
        let text = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
        cx.expect_eq("link text", text.to_string_lossy().as_ref(), "/memfd:a name (deleted)")
    })
};

const MAPS_NAME: Probe = Probe {
    title: "/proc/PID/maps shows the name of a mapped memfd",
    why: "memory tools attribute shared buffers by it: Android and Chrome sum up their arenas by name",
    spec: &[man("memfd_create(2)", "DESCRIPTION"), man("proc_pid_maps(5)", "pathname")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.create.name-in-maps", |cx| {
        let fd = size(memfd_create("arena", 0)?, 8)?;
        let map = Map::shared(&fd, 8)?;
        let found = procfs::mapping_at(map.address())?.map(|m| (m.name, m.perms, m.inode));
        let inode = sys::fstat(fd.as_raw_fd())?.st_ino;
        cx.expect_eq("mapping", found, Some(("/memfd:arena (deleted)".to_owned(), "rw-s".to_owned(), inode)))
    })
};

const NAMES_REPEAT: Probe = Probe {
    title: "two memfds of one name are two files",
    why: "every buffer of a library carries the same name; sharing by accident would mix their contents",
    spec: &[man("memfd_create(2)", "DESCRIPTION")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.create.names-repeat", |cx| {
        let (one, two) = (size(memfd_create("same", 0)?, 8)?, size(memfd_create("same", 0)?, 8)?);
        Map::shared(&one, 8)?.write(0, 1);
        cx.expect_eq("byte of the other", Map::shared(&two, 8)?.read(0), 0)?;
        cx.expect_ne("inode", sys::fstat(one.as_raw_fd())?.st_ino, sys::fstat(two.as_raw_fd())?.st_ino)
    })
};

const NAME_ANY: Probe = Probe {
    title: "the name may be empty or hold slashes: it is no path",
    why: "libraries pass whatever label they have; it must neither fail nor reach the file system",
    spec: &[man("memfd_create(2)", "DESCRIPTION"), kernel("mm/shmem.c", "__shmem_file_setup: clear_nlink")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.create.name-any", |cx| {
        for name in ["", "/", "../../etc/passwd", "a/b", "\u{1f9e0} \t"] {
            let fd = cx.expect_ok(|| memfd_create(name, 0))?;
            cx.expect_eq("st_nlink", sys::fstat(fd.as_raw_fd())?.st_nlink, 0)?;
            let text = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
            cx.expect_eq("link text", text.to_string_lossy().as_ref(), format!("/memfd:{name} (deleted)").as_str())?;
        }
        Ok(())
    })
};

const NAME_LONGEST: Probe = Probe {
    title: "a name of 249 bytes is accepted whole",
    why: "labels put together from program and purpose come near the limit",
    spec: &[man("memfd_create(2)", "ERRORS")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.create.name-longest", |cx| {
        let name = "n".repeat(249);
        let fd = cx.expect_ok(|| memfd_create(&name, 0))?;
        let text = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
        cx.expect_eq("link text", text.to_string_lossy().as_ref(), format!("/memfd:{name} (deleted)").as_str())
    })
};

const NAME_TOO_LONG: Probe = Probe {
    title: "a name longer than 249 bytes fails with EINVAL",
    why: "a generated label must be cut by its maker, who gets to know of it here",
    spec: &[man("memfd_create(2)", "EINVAL")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.create.name-too-long", |cx| {
        for length in [250, 256, 8_192] {
            cx.expect_errno(EINVAL, || memfd_create(&"n".repeat(length), 0))?;
        }
        Ok(())
    })
};

const BAD_POINTER: Probe = Probe {
    title: "a name pointer to invalid memory fails with EFAULT",
    why: "the label of a buffer that was freed must be an error, not a crash in the kernel",
    spec: &[man("memfd_create(2)", "EFAULT")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.create.bad-pointer", |cx| {
        let page = sys::page_size();
        let map = Map::shared_anonymous(2 * page)?;
        // A name that begins in memory and runs into a page without access.
        sys::mprotect(map.address() + page, page, libc::PROT_NONE)?;
        map.write_all(page - 4, b"name");
        for pointer in [0, map.address() + page - 4, map.address() + page, usize::MAX - 15] {
            cx.expect_errno(EFAULT, || sys::memfd_create_at_address(pointer))?;
        }
        map.write(page - 1, 0);
        cx.expect_ok(|| sys::memfd_create_at_address(map.address() + page - 4)).map(drop)
    })
};

const BAD_FLAGS: Probe = Probe {
    title: "an unknown flag fails with EINVAL",
    why: "programs try a new flag first and fall back: a kernel that swallows it would give them an unsealable file",
    spec: &[man("memfd_create(2)", "EINVAL")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.create.bad-flags", |cx| {
        // Bits between the flags in use and the page size's field, which no kernel has given a meaning.
        for flags in [1 << 16, 1 << 20, 1 << 25, 1 << 20 | MFD_CLOEXEC, 1 << 20 | MFD_HUGETLB, u32::MAX] {
            cx.expect_errno(EINVAL, || memfd_create("flags", flags))?;
        }
        Ok(())
    })
};

const SIZE_WITHOUT_HUGE: Probe = Probe {
    title: "a huge page size without MFD_HUGETLB fails with EINVAL",
    why: "a forgotten flag would silently give small pages and cost the speed they were asked for",
    spec: &[man("memfd_create(2)", "EINVAL"), kernel("mm/memfd.c", "memfd_create")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.create.huge-size-alone", |cx| {
        for shift in [21, 30] {
            cx.expect_errno(EINVAL, || memfd_create("size", shift << sys::MFD_HUGE_SHIFT))?;
        }
        Ok(())
    })
};

const OWNER: Probe = Probe {
    title: "a memfd is a regular file of the effective user",
    why: "quotas, audits and re-opening through /proc go by the owner",
    spec: &[man("memfd_create(2)", "DESCRIPTION"), kernel("mm/shmem.c", "shmem_get_inode")],
    calls: CALLS,
    needs: &[Need::OtherUsers],
    isolate: Isolate::Cell,
    ..Probe::new("memfd.create.owner", |cx| {
        let seen = cx.as_user(1, 65534, |_| {
            let stat = sys::fstat(memfd_create("owned", 0)?.as_raw_fd())?;
            Ok((stat.st_uid, stat.st_gid, stat.st_mode & libc::S_IFMT))
        })?;
        cx.expect_eq("st_uid, st_gid, type", seen, (1, 65534, libc::S_IFREG))
    })
};

const NOT_IN_DEV_SHM: Probe = Probe {
    title: "a memfd has no name in /dev/shm",
    why: "nothing is left behind by a crash, and no other user can find the buffer",
    spec: &[man("memfd_create(2)", "DESCRIPTION")],
    calls: CALLS,
    needs: &[Need::DevShm],
    ..Probe::new("memfd.create.not-in-dev-shm", |cx| {
        let name = cx.fresh_name();
        let fd = memfd_create(&name[1..], 0)?;
        cx.expect("a file of that name", !exists(&format!("/dev/shm{name}")), "none", "present")?;
        cx.expect_errno(libc::ENOENT, || sys::shm_open(&name, O_RDWR, 0))?;
        let other = std::fs::metadata("/dev/shm")?;
        use std::os::unix::fs::MetadataExt;
        cx.expect_ne("device", sys::fstat(fd.as_raw_fd())?.st_dev, other.dev())
    })
};

const NOT_LINKED: Probe = Probe {
    title: "a memfd cannot be given a name in /dev/shm: EXDEV",
    why: "unlike O_TMPFILE, anonymous memory stays anonymous, whatever a confused program does",
    spec: &[man("link(2)", "EXDEV"), man("memfd_create(2)", "DESCRIPTION")],
    calls: CALLS,
    needs: &[Need::DevShm],
    ..Probe::new("memfd.create.not-linked", |cx| {
        let entry = Entry::of(&cx.fresh_name());
        let fd = memfd_create("nameless", 0)?;
        cx.expect_errno(EXDEV, || sys::tmpfs::link_descriptor(&fd, &entry.path))?;
        cx.expect("the name", !exists(&entry.path), "absent", "present")
    })
};

const OTHER_SPACE: Probe = Probe {
    title: "a memfd is not limited by the size of /dev/shm",
    why: "programs move from shm_open to memfd to get around the 64 MiB of a container; the memory cgroup still counts",
    spec: &[doc("Documentation/filesystems/tmpfs.rst", "internal mount"), kernel("mm/shmem.c", "shm_mnt")],
    calls: &[Sys::MemfdCreate, Sys::Fallocate],
    needs: &[Need::DevShm],
    isolate: Isolate::FreshOnly,
    ..Probe::new("memfd.create.not-in-dev-shm-size", |cx| {
        let page = sys::page_size() as i64;
        cx.own_dev_shm(&format!("mode=1777,size={}", 2 * page))?;
        let (named, anonymous) = (cx.object(0)?, memfd_create("free", 0)?);
        cx.expect_errno(libc::ENOSPC, || sys::fallocate(named.raw(), 0, 0, 4 * page))?;
        cx.expect_ok(|| sys::fallocate(anonymous.as_raw_fd(), 0, 0, 4 * page))?;
        cx.expect_eq("bytes in blocks", sys::fstat(anonymous.as_raw_fd())?.st_blocks * 512, 4 * page)
    })
};

const FSIZE: Probe = Probe {
    title: "a memfd counts against RLIMIT_FSIZE: EFBIG",
    why: "a virtual machine monitor under LimitFSIZE cannot get its guest's memory, with an errno that speaks of files",
    fix: "raise LimitFSIZE (systemd) or --ulimit fsize",
    spec: &[man("getrlimit(2)", "RLIMIT_FSIZE"), doc("overdrive#258", "")],
    calls: &[Sys::MemfdCreate, Sys::Ftruncate],
    isolate: Isolate::Cell,
    ..Probe::new("memfd.create.fsize", |cx| {
        cx.elsewhere(|cx| {
            sys::trace::ignore(libc::SIGXFSZ);
            limit_file_size(4096)?;
            let fd = memfd_create("limited", 0)?;
            cx.expect_ok(|| sys::ftruncate(fd.as_raw_fd(), 4096))?;
            cx.expect_errno(libc::EFBIG, || sys::ftruncate(fd.as_raw_fd(), 4097))?;
            cx.expect_errno(libc::EFBIG, || sys::pwrite(fd.as_raw_fd(), b"x", 4096))?;
            cx.expect_eq("size", sys::fstat(fd.as_raw_fd())?.st_size, 4096)
        })
    })
};

const PUNCH: Probe = Probe {
    title: "fallocate reserves pages of a memfd and punches holes",
    why: "guest memory is given back to the host page by page: ballooning in cloud hypervisors",
    spec: &[man("fallocate(2)", "FALLOC_FL_PUNCH_HOLE")],
    calls: &[Sys::MemfdCreate, Sys::Fallocate],
    isolate: Isolate::Cell,
    ..Probe::new("memfd.create.fallocate", |cx| {
        let page = sys::page_size() as i64;
        let fd = memfd_create("guest", 0)?;
        let blocks = || Ok::<_, Stop>(sys::fstat(fd.as_raw_fd())?.st_blocks * 512);
        cx.expect_ok(|| sys::fallocate(fd.as_raw_fd(), 0, 0, 4 * page))?;
        cx.expect_eq("bytes in blocks", blocks()?, 4 * page)?;
        sys::pwrite(fd.as_raw_fd(), b"gone", page)?;
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        cx.expect_ok(|| sys::fallocate(fd.as_raw_fd(), mode, page, page))?;
        cx.expect_eq("bytes in blocks after the hole", blocks()?, 3 * page)?;
        let mut bytes = [1; 4];
        sys::pread(fd.as_raw_fd(), &mut bytes, page)?;
        cx.expect_eq("content of the hole", bytes, [0; 4])
    })
};

const SEEK: Probe = Probe {
    title: "SEEK_DATA and SEEK_HOLE work on a memfd",
    why: "snapshots of a sparse guest memory copy only what was touched",
    spec: &[man("lseek(2)", "Seeking file data and holes")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.create.seek-data", |cx| {
        let page = sys::page_size() as i64;
        let fd = size(memfd_create("sparse", 0)?, 4 * page as usize)?;
        Map::shared(&fd, 4 * page as usize)?.write(2 * page as usize, 1);
        let seek = |from, whence| sys::tmpfs::lseek(fd.as_raw_fd(), from, whence);
        cx.expect_eq("first data", cx.expect_ok(|| seek(0, libc::SEEK_DATA))?, 2 * page)?;
        cx.expect_eq("hole behind it", cx.expect_ok(|| seek(2 * page, libc::SEEK_HOLE))?, 3 * page)
    })
};
