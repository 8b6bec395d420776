//! What else the file system under /dev/shm can do: unnamed files, links, directories, attributes, handles.
//!
//! These are the paths of the kernel's mm/shmem.c that programs reach beside shm_open.

use super::open::{exists, object_name};
use caps::Capability;
use libc::{
    EEXIST, EINVAL, EISDIR, ENAMETOOLONG, ENODATA, ENOENT, ENOTEMPTY, EOVERFLOW, EPERM, ERANGE, ESTALE, O_CLOEXEC,
    O_EXCL, O_RDONLY, O_RDWR, O_TMPFILE, XATTR_CREATE, XATTR_REPLACE,
};
use shmcheck_probe::{Context, Entry, Isolate, Map, Need, Outcome, Probe, Stop, doc, kernel, man, sys};
use std::os::fd::{AsRawFd, OwnedFd};
use sys::tmpfs::{self, fgetxattr, flistxattr, fremovexattr, fsetxattr};

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
    &XATTR_TRUSTED,
    &XATTR_SECURITY,
    &XATTR_USER,
    &XATTR_FLAGS,
    &ACL,
    &HANDLE,
    &HANDLE_STALE,
    &HANDLE_SMALL,
    &CHATTR,
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

const XATTR_TRUSTED: Probe = Probe {
    title: "trusted attributes are kept, and hidden from the unprivileged",
    why: "overlay file systems on tmpfs (image builds, live media) store their whiteouts in them",
    spec: &[man("xattr(7)", "Trusted extended attributes"), kernel("mm/shmem.c", "shmem_xattr_handler_set")],
    needs: &[Need::DevShm, Need::InitCap(Capability::CAP_SYS_ADMIN)],
    ..Probe::new("posix.shm.xattr.trusted", |cx| {
        let held = cx.object(0)?;
        kept(cx, held.raw(), "trusted.shmcheck")?;
        fsetxattr(held.raw(), "trusted.shmcheck", b"value", 0)?;
        cx.without_caps(&[Capability::CAP_SYS_ADMIN], |cx| {
            cx.expect_errno(ENODATA, || fgetxattr(held.raw(), "trusted.shmcheck", 64))?;
            cx.expect_errno(EPERM, || fsetxattr(held.raw(), "trusted.shmcheck", b"other", 0))
        })
    })
};

const XATTR_SECURITY: Probe = Probe {
    title: "security attributes are kept",
    why: "labels of a security module on shared memory live there; lost labels mean denied access",
    spec: &[man("xattr(7)", "Extended security attributes"), kernel("mm/shmem.c", "shmem_xattr_handler_set")],
    needs: &[Need::DevShm, Need::InitCap(Capability::CAP_SYS_ADMIN)],
    ..Probe::new("posix.shm.xattr.security", |cx| {
        let held = cx.object(0)?;
        kept(cx, held.raw(), "security.shmcheck")
    })
};

const XATTR_USER: Probe = Probe {
    title: "user attributes are kept",
    why: "tools that copy trees into tmpfs keep their attributes there; without support they warn on every file",
    varies: "tmpfs has user attributes since Linux 6.6",
    spec: &[man("xattr(7)", "Extended user attributes"), kernel("mm/shmem.c", "shmem_xattr_handler_set")],
    needs: NEEDS,
    ..Probe::new("posix.shm.xattr.user", |cx| {
        let held = cx.object(0)?;
        has_user_attributes(held.raw())?;
        kept(cx, held.raw(), "user.shmcheck")
    })
};

/// A value set is read back, listed, replaced and removed.
fn kept(cx: &Context, fd: i32, name: &str) -> Outcome {
    cx.expect_errno(ENODATA, || fgetxattr(fd, name, 64))?;
    cx.expect_ok(|| fsetxattr(fd, name, b"one", 0))?;
    cx.expect_eq("value", fgetxattr(fd, name, 64)?.1, b"one".to_vec())?;
    cx.expect_ok(|| fsetxattr(fd, name, b"another", 0))?;
    cx.expect_eq("value replaced", fgetxattr(fd, name, 64)?.1, b"another".to_vec())?;
    cx.expect("flistxattr", flistxattr(fd)?.iter().any(|n| n == name), name, "not listed")?;
    cx.expect_ok(|| fremovexattr(fd, name))?;
    cx.expect_errno(ENODATA, || fgetxattr(fd, name, 64))?;
    cx.expect("flistxattr after removal", !flistxattr(fd)?.iter().any(|n| n == name), "not listed", name)
}

fn has_user_attributes(fd: i32) -> Result<(), Stop> {
    match fsetxattr(fd, "user.shmcheck.tried", b"", 0) {
        Err(e) if e.errno == libc::EOPNOTSUPP => Err(Stop::skip("user-attributes", "fsetxattr → EOPNOTSUPP")),
        set => Ok(set.and_then(|()| fremovexattr(fd, "user.shmcheck.tried"))?),
    }
}

const XATTR_FLAGS: Probe = Probe {
    title: "XATTR_CREATE, XATTR_REPLACE, a short buffer: EEXIST, ENODATA, ERANGE",
    why: "tools that take an attribute as a lock rely on exactly one of two creators winning",
    varies: "tmpfs has user attributes since Linux 6.6",
    spec: &[man("setxattr(2)", "EEXIST"), man("setxattr(2)", "ENODATA"), man("getxattr(2)", "ERANGE")],
    needs: NEEDS,
    ..Probe::new("posix.shm.xattr.flags", |cx| {
        let held = cx.object(0)?;
        has_user_attributes(held.raw())?;
        let (fd, name) = (held.raw(), "user.shmcheck");
        cx.expect_errno(ENODATA, || fsetxattr(fd, name, b"value", XATTR_REPLACE))?;
        cx.expect_ok(|| fsetxattr(fd, name, b"value", XATTR_CREATE))?;
        cx.expect_errno(EEXIST, || fsetxattr(fd, name, b"other", XATTR_CREATE))?;
        cx.expect_errno(ERANGE, || fgetxattr(fd, name, 4))?;
        cx.expect_eq("length asked for alone", fgetxattr(fd, name, 0)?.0, 5)?;
        cx.expect_errno(ENODATA, || fremovexattr(fd, "user.shmcheck.none"))?;
        cx.expect_eq("value", fgetxattr(fd, name, 64)?.1, b"value".to_vec())
    })
};

const ACL: Probe = Probe {
    title: "a POSIX ACL lets in a user whom the mode keeps out",
    why: "setfacl on /dev/shm is the fine-grained answer to 'two accounts, one buffer'",
    varies: "needs CONFIG_TMPFS_POSIX_ACL",
    spec: &[man("acl(5)", "ACCESS CHECK ALGORITHM"), kernel("mm/shmem.c", "shmem_xattr_handlers")],
    needs: &[Need::DevShm, Need::OtherUsers],
    ..Probe::new("posix.shm.xattr.acl", |cx| {
        let held = cx.object(0)?;
        let name = held.name.clone();
        let other = name.clone();
        cx.as_user(1, 1, move |cx| cx.expect_errno(libc::EACCES, || sys::shm_open(&other, O_RDWR, 0)))?;
        if let Err(e) = fsetxattr(held.raw(), "system.posix_acl_access", &acl_for_user(1), 0) {
            return Err(Stop::skip("posix-acl", format!("fsetxattr(system.posix_acl_access) → {}", e.name())));
        }
        let other = name.clone();
        cx.as_user(1, 1, move |cx| cx.expect_ok(|| sys::shm_open(&name, O_RDWR, 0)).map(drop))?;
        cx.as_user(65534, 65534, move |cx| cx.expect_errno(libc::EACCES, || sys::shm_open(&other, O_RDWR, 0)))
    })
};

/// `user::rw-,user:UID:rw-,group::---,mask::rw-,other::---` in the form of the attribute, acl(5) and
/// include/uapi/linux/posix_acl_xattr.h.
fn acl_for_user(uid: u32) -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, u32::MAX), (2, 6, uid), (4, 0, u32::MAX), (0x10, 6, u32::MAX), (0x20, 0, u32::MAX)];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

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

const CHATTR: Probe = Probe {
    title: "chattr flags that tmpfs knows are kept, others are refused",
    why: "lsattr on /dev/shm shows what was set; a flag accepted without effect would be a false promise",
    varies: "chattr on tmpfs needs Linux 6.0",
    spec: &[man("ioctl_iflags(2)", "DESCRIPTION"), kernel("mm/shmem.c", "shmem_fileattr_set"), doc("chattr(1)", "")],
    needs: NEEDS,
    ..Probe::new("posix.shm.xattr.chattr", |cx| {
        let held = cx.object(0)?;
        if tmpfs::inode_flags(held.raw()).is_err() {
            return Err(Stop::skip("chattr on tmpfs", "ioctl(FS_IOC_GETFLAGS) is refused"));
        }
        let nodump = tmpfs::FS_NODUMP_FL;
        cx.expect_ok(|| tmpfs::set_inode_flags(held.raw(), nodump))?;
        cx.expect_eq("flags", tmpfs::inode_flags(held.raw())?, nodump)?;
        cx.expect_errno_of(&[libc::EOPNOTSUPP, EINVAL], || tmpfs::set_inode_flags(held.raw(), tmpfs::FS_COMPR_FL))?;
        cx.without_caps(&[Capability::CAP_LINUX_IMMUTABLE], |cx| {
            cx.expect_errno(EPERM, || tmpfs::set_inode_flags(held.raw(), tmpfs::FS_IMMUTABLE_FL))
        })?;
        cx.expect_eq("flags after refusals", tmpfs::inode_flags(held.raw())?, nodump)
    })
};
