//! What else the file system under /dev/shm can do: unnamed files, links, directories, attributes, handles.
//!
//! These are the paths of the kernel's mm/shmem.c that programs reach beside shm_open.

use super::open::{exists, object_name};
use caps::Capability;
use libc::{
    EISDIR, ENAMETOOLONG, ENOENT, ENOTEMPTY, EOVERFLOW, EPERM, ESTALE, O_CLOEXEC, O_EXCL, O_RDONLY, O_RDWR, O_TMPFILE,
};
use shmcheck_probe::{Context, Entry, Isolate, Map, Need, Outcome, Probe, Stop, kernel, man, sys};
use std::os::fd::{AsRawFd, OwnedFd};
use sys::tmpfs::{self};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &TMPFILE,
    &TMPFILE_LINKED,
    &TMPFILE_EXCL,
    &TMPFILE_SPACE,
    &LINK_SHORT,
    &LINK_LONG,
    &LINK_TOO_LONG,
    &DIRECTORY,
    &DIRECTORY_RENAME,
    &FIFO,
    &WHITEOUT,
    &HANDLE,
    &HANDLE_STALE,
    &HANDLE_SMALL,
];

const NEEDS: &[Need] = &[Need::DevShm];

/// An unnamed file in /dev/shm; a skip where its file system has none.
fn unnamed(flags: i32) -> Result<OwnedFd, Stop> {
    match sys::open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0o600) {
        Err(e) if [libc::EOPNOTSUPP, EISDIR].contains(&e.errno) => Err(Stop::skip("O_TMPFILE", e.name())),
        opened => Ok(opened?),
    }
}

const TMPFILE: Probe = Probe {
    title: "O_TMPFILE gives shared memory without a name",
    why: "Wayland clients and JITs want memory that no crash can leave behind in /dev/shm",
    spec: &[man("open(2)", "O_TMPFILE")],
    needs: NEEDS,
    ..Probe::new("posix.shm.tmpfile.unnamed", |cx| {
        let fd = unnamed(0)?;
        sys::ftruncate(fd.as_raw_fd(), 64)?;
        let stat = sys::fstat(fd.as_raw_fd())?;
        cx.expect_eq("st_nlink and st_size", (stat.st_nlink, stat.st_size), (0, 64))?;
        let map = Map::shared(&fd, 64)?;
        cx.elsewhere(|_| {
            Map::shared(&fd, 64)?.write(1, 0x42);
            Ok(())
        })?;
        cx.expect_eq("byte the other process stored", map.read(1), 0x42)
    })
};

const TMPFILE_LINKED: Probe = Probe {
    title: "an unnamed file becomes an object by linkat",
    why: "memory is filled first and published complete; readers never see a half-built object",
    spec: &[man("open(2)", "O_TMPFILE"), man("linkat(2)", "AT_SYMLINK_FOLLOW")],
    needs: NEEDS,
    ..Probe::new("posix.shm.tmpfile.linked", |cx| {
        let fd = unnamed(0)?;
        sys::pwrite(fd.as_raw_fd(), b"complete", 0)?;
        let entry = Entry::of(&cx.fresh_name());
        cx.expect_ok(|| tmpfs::link_descriptor(&fd, &entry.path))?;
        let found = cx.expect_ok(|| sys::shm_open(&object_name(&entry), O_RDONLY, 0))?;
        let mut content = [0; 8];
        sys::pread(found.as_raw_fd(), &mut content, 0)?;
        cx.expect_eq("content", &content, b"complete")?;
        cx.expect_eq("st_nlink", sys::fstat(fd.as_raw_fd())?.st_nlink, 1)
    })
};

const TMPFILE_EXCL: Probe = Probe {
    title: "an unnamed file made with O_EXCL never gets a name: ENOENT",
    why: "secret scratch memory must not be published by a confused part of the same program",
    spec: &[man("open(2)", "O_TMPFILE")],
    needs: NEEDS,
    ..Probe::new("posix.shm.tmpfile.excl", |cx| {
        let fd = unnamed(O_EXCL)?;
        let entry = Entry::of(&cx.fresh_name());
        cx.expect_errno(ENOENT, || tmpfs::link_descriptor(&fd, &entry.path))?;
        cx.expect("the name", !exists(&entry.path), "absent", "present")
    })
};

const TMPFILE_SPACE: Probe = Probe {
    title: "space of an unnamed file comes back when it is closed",
    why: "a crash of the owner must give the memory back without any clean-up",
    spec: &[man("open(2)", "O_TMPFILE")],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.tmpfile.space", |cx| {
        let before = tmpfs::room("/dev/shm")?;
        let fd = unnamed(0)?;
        sys::fallocate(fd.as_raw_fd(), 0, 0, 2 * sys::page_size() as i64)?;
        let during = tmpfs::room("/dev/shm")?;
        cx.expect_eq(
            "free pages and inodes during",
            (during.free, during.free_inodes),
            (before.free - 2, before.free_inodes - 1),
        )?;
        drop(fd);
        cx.expect_eq("after", tmpfs::room("/dev/shm")?, before)
    })
};

const LINK_SHORT: Probe = Probe {
    title: "a symbolic link in /dev/shm keeps its target's text",
    why: "engines bind devices and sockets by links there",
    spec: &[man("symlink(2)", "DESCRIPTION"), kernel("mm/shmem.c", "shmem_symlink")],
    needs: NEEDS,
    ..Probe::new("posix.shm.symlink.short", |cx| link_of_length(cx, 20))
};

const LINK_LONG: Probe = Probe {
    title: "a long symbolic link keeps its text, too",
    why: "a long target is stored in a page of its own: another path in the kernel, the same promise",
    spec: &[man("symlink(2)", "DESCRIPTION"), kernel("mm/shmem.c", "shmem_symlink: SHORT_SYMLINK_LEN")],
    needs: NEEDS,
    ..Probe::new("posix.shm.symlink.long", |cx| {
        for length in [127, 128, 129, 4_000, 4_094] {
            link_of_length(cx, length)?;
        }
        Ok(())
    })
};

/// A link with a target of that many characters reads back the same, by lstat too.
fn link_of_length(cx: &mut Context, length: usize) -> Outcome {
    let link = Entry::of(&cx.fresh_name());
    let target: String = "/target-of-a-link".chars().cycle().take(length).collect();
    cx.expect_ok(|| tmpfs::symlink(&target, &link.path))?;
    let read = std::fs::read_link(&link.path)?;
    cx.expect_eq(&format!("target of {length} characters"), read.to_string_lossy().as_ref(), target.as_str())?;
    cx.expect_eq("st_size", std::fs::symlink_metadata(&link.path)?.len(), length as u64)
}

const LINK_TOO_LONG: Probe = Probe {
    title: "a link target of PATH_MAX characters fails with ENAMETOOLONG",
    why: "a target that cannot be followed must be refused when it is made",
    spec: &[man("symlink(2)", "ENAMETOOLONG")],
    needs: NEEDS,
    ..Probe::new("posix.shm.symlink.too-long", |cx| {
        let link = Entry::of(&cx.fresh_name());
        cx.expect_errno(ENAMETOOLONG, || tmpfs::symlink(&"x".repeat(4_096), &link.path))?;
        cx.expect("the link", !exists(&link.path), "absent", "present")
    })
};

const DIRECTORY: Probe = Probe {
    title: "directories in /dev/shm nest, count links, go only when empty",
    why: "DDS and MPI implementations keep a directory per session and remove it at the end",
    spec: &[man("mkdir(2)", "DESCRIPTION"), man("rmdir(2)", "ENOTEMPTY"), kernel("mm/shmem.c", "shmem_rmdir")],
    needs: NEEDS,
    ..Probe::new("posix.shm.directory.nest", |cx| {
        use std::os::unix::fs::MetadataExt;
        let outer = Entry::of(&cx.fresh_name());
        tmpfs::mkdir(&outer.path, 0o700)?;
        let inner = Entry::new(format!("{}/inner", outer.path));
        cx.expect_ok(|| tmpfs::mkdir(&inner.path, 0o700))?;
        cx.expect_eq("st_nlink with a directory inside", std::fs::metadata(&outer.path)?.nlink(), 3)?;
        cx.expect_errno(ENOTEMPTY, || tmpfs::rmdir(&outer.path))?;
        cx.expect_errno(EISDIR, || tmpfs::unlink(&inner.path))?;
        cx.expect_ok(|| tmpfs::rmdir(&inner.path))?;
        cx.expect_eq("st_nlink when empty", std::fs::metadata(&outer.path)?.nlink(), 2)?;
        cx.expect_ok(|| tmpfs::rmdir(&outer.path))
    })
};

const DIRECTORY_RENAME: Probe = Probe {
    title: "a directory replaces only an empty directory: else ENOTEMPTY",
    why: "switching a session's directory by rename must not lose the files of a live session",
    spec: &[man("rename(2)", "ENOTEMPTY"), kernel("mm/shmem.c", "shmem_rename2")],
    needs: NEEDS,
    ..Probe::new("posix.shm.directory.rename", |cx| {
        let (one, two) = (Entry::of(&cx.fresh_name()), Entry::of(&cx.fresh_name()));
        tmpfs::mkdir(&one.path, 0o700)?;
        tmpfs::mkdir(&two.path, 0o700)?;
        let file = Entry::new(format!("{}/file", two.path));
        drop(sys::open(&file.path, libc::O_CREAT | O_RDWR | O_CLOEXEC, 0o600)?);
        let moved = Entry::new(format!("{}/file", one.path));
        cx.expect_errno(ENOTEMPTY, || tmpfs::rename(&one.path, &two.path, 0))?;
        cx.expect_ok(|| tmpfs::rename(&two.path, &one.path, 0))?;
        let found = exists(&moved.path);
        drop(moved);
        cx.expect("the file below the replaced directory", found, "present", "absent")
    })
};

const FIFO: Probe = Probe {
    title: "a FIFO can live in /dev/shm",
    why: "programs keep the wake-up channel beside the buffer",
    spec: &[man("mkfifo(3)", "DESCRIPTION"), kernel("mm/shmem.c", "shmem_mknod")],
    needs: NEEDS,
    ..Probe::new("posix.shm.directory.fifo", |cx| {
        let entry = Entry::of(&cx.fresh_name());
        cx.expect_ok(|| tmpfs::mkfifo(&entry.path, 0o600))?;
        let both = sys::open(&entry.path, O_RDWR | libc::O_NONBLOCK | O_CLOEXEC, 0)?;
        cx.expect_eq("type", sys::fstat(both.as_raw_fd())?.st_mode & libc::S_IFMT, libc::S_IFIFO)?;
        tmpfs::write(both.as_raw_fd(), b"ring")?;
        let mut bytes = [0; 8];
        cx.expect_eq("bytes through it", tmpfs::read(both.as_raw_fd(), &mut bytes)?, 4)
    })
};

const HANDLE: Probe = Probe {
    title: "a file handle finds the object again after a rename",
    why: "NFS servers, CRIU and fanotify listeners name files of tmpfs by handle",
    varies: "opening by handle needs CAP_DAC_READ_SEARCH",
    spec: &[man("open_by_handle_at(2)", "DESCRIPTION"), kernel("mm/shmem.c", "shmem_fh_to_dentry")],
    needs: &[Need::DevShm, Need::InitCap(Capability::CAP_DAC_READ_SEARCH)],
    ..Probe::new("posix.shm.handle.opens", |cx| {
        let held = cx.object(8)?;
        let mut handle = cx.expect_ok(|| tmpfs::handle_of(held.path(), 128))?;
        let moved = Entry::of(&cx.fresh_name());
        tmpfs::rename(held.path(), &moved.path, 0)?;
        let mount = sys::open("/dev/shm", O_RDONLY | O_CLOEXEC, 0)?;
        let found = cx.expect_ok(|| tmpfs::open_by_handle(&mount, &mut handle, O_RDWR | O_CLOEXEC))?;
        cx.expect_eq("inode", sys::fstat(found.as_raw_fd())?.st_ino, held.stat()?.st_ino)?;
        Map::shared(&found, 8)?.write(0, 3);
        cx.expect_eq("byte stored through it", held.map(8)?.read(0), 3)
    })
};

const HANDLE_STALE: Probe = Probe {
    title: "the handle of an object that is gone is stale: ESTALE",
    why: "a handle must not open whatever took the inode's place",
    varies: "opening by handle needs CAP_DAC_READ_SEARCH",
    spec: &[man("open_by_handle_at(2)", "ESTALE"), kernel("mm/shmem.c", "shmem_match")],
    needs: &[Need::DevShm, Need::InitCap(Capability::CAP_DAC_READ_SEARCH)],
    ..Probe::new("posix.shm.handle.stale", |cx| {
        let held = cx.object(8)?;
        let mut handle = tmpfs::handle_of(held.path(), 128)?;
        let mount = sys::open("/dev/shm", O_RDONLY | O_CLOEXEC, 0)?;
        cx.expect_ok(|| tmpfs::open_by_handle(&mount, &mut handle, O_RDONLY | O_CLOEXEC)).map(drop)?;
        drop(held);
        let _next = cx.object(8)?;
        cx.expect_errno(ESTALE, || tmpfs::open_by_handle(&mount, &mut handle, O_RDONLY | O_CLOEXEC))
    })
};

const HANDLE_SMALL: Probe = Probe {
    title: "a handle's buffer that is too small: EOVERFLOW",
    why: "callers ask with no room first to learn the size",
    spec: &[man("open_by_handle_at(2)", "EOVERFLOW"), kernel("mm/shmem.c", "shmem_encode_fh")],
    needs: NEEDS,
    ..Probe::new("posix.shm.handle.small-buffer", |cx| {
        let held = cx.object(8)?;
        match tmpfs::handle_of(held.path(), 128) {
            Err(e) if [libc::EOPNOTSUPP, EPERM, libc::ENOSYS].contains(&e.errno) => {
                return Err(Stop::skip("file-handles", format!("name_to_handle_at → {}", e.name())));
            }
            handle => handle?,
        };
        cx.expect_errno(EOVERFLOW, || tmpfs::handle_of(held.path(), 0))?;
        cx.expect_errno(EOVERFLOW, || tmpfs::handle_of(held.path(), 4))
    })
};

const WHITEOUT: Probe = Probe {
    title: "RENAME_WHITEOUT leaves a whiteout in the old place",
    why: "overlay file systems with their upper layer on tmpfs (live systems, image builds) hide files by it",
    spec: &[man("rename(2)", "RENAME_WHITEOUT"), kernel("mm/shmem.c", "shmem_whiteout")],
    needs: &[Need::DevShm, Need::Cap(Capability::CAP_MKNOD)],
    ..Probe::new("posix.shm.directory.whiteout", |cx| {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let held = cx.object(8)?;
        let new = Entry::of(&cx.fresh_name());
        cx.expect_ok(|| tmpfs::rename(held.path(), &new.path, libc::RENAME_WHITEOUT))?;
        let left = std::fs::symlink_metadata(held.path())?;
        cx.expect_eq("character device and its number", (left.file_type().is_char_device(), left.rdev()), (true, 0))?;
        cx.expect_eq("size under the new name", std::fs::metadata(&new.path)?.len(), 8)
    })
};
