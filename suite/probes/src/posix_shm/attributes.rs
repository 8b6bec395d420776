//! Extended attributes, access control lists and chattr flags of objects.

use caps::Capability;
use libc::{EEXIST, EINVAL, ENODATA, EPERM, ERANGE, O_RDWR, XATTR_CREATE, XATTR_REPLACE};
use shmcheck_probe::{Context, Need, Outcome, Probe, Stop, doc, kernel, man, sys};
use sys::tmpfs::{self, fgetxattr, flistxattr, fremovexattr, fsetxattr};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[&XATTR_TRUSTED, &XATTR_SECURITY, &XATTR_USER, &XATTR_FLAGS, &ACL, &CHATTR];

const NEEDS: &[Need] = &[Need::DevShm];

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
