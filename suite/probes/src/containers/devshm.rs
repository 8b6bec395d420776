//! /dev/shm as the environment gives it: the mount, its mode, its size to the last page.

use crate::containers::full;
use libc::{ENOSPC, SIGBUS};
use nix::sys::statvfs::{FsFlags, statvfs};
use shmcheck_probe::{Context, Isolate, Kind, Map, Need, Object, Outcome, Probe, Stop, Sys, doc, man, sys};
use std::os::unix::fs::PermissionsExt;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] =
    &[&TMPFS, &MODE, &FLAGS, &NO_STRANGERS, &OTHER_USER, &READ_ONLY_ROOT, &FULL_ENOSPC, &FULL_SIGBUS, &FREED];

const OVERVIEW: shmcheck_probe::Clause = doc("shm_overview(7)", "Accessing shared memory objects via the filesystem");

/// A probe of the mount: in the cell itself.
const fn of_mount(id: &'static str, run: fn(&mut Context) -> Outcome) -> Probe {
    Probe { isolate: Isolate::Cell, kind: Kind::Environment, spec: &[OVERVIEW], ..Probe::new(id, run) }
}

const TMPFS: Probe = Probe {
    title: "/dev/shm is a tmpfs",
    why: "a /dev/shm on the container's disk is slow, counts as disk usage and survives a restart with stale names in it",
    varies: "an image that ships files below /dev/shm, or a volume mounted there (podman#1770)",
    fix: "mount a tmpfs on /dev/shm: --shm-size, or a volume of medium Memory",
    needs: &[Need::DevShm],
    ..of_mount("devshm.mount.is-tmpfs", |cx| {
        let found = nix::sys::statfs::statfs("/dev/shm")?.filesystem_type();
        cx.expect_eq("f_type of /dev/shm", found.0, nix::sys::statfs::TMPFS_MAGIC.0)
    })
};

const MODE: Probe = Probe {
    title: "/dev/shm is open to all users and sticky: mode 1777",
    why: "with 0755 a server that is not root fails with EACCES at its first object; with 0777 anybody can remove it",
    varies: "Docker 28.5 with runc 1.3.3 gives an explicit tmpfs 0755 (docker/cli#6630); others: gvisor#5687, \
             smartos-live#689, freeipa-container#544",
    fix: "--tmpfs /dev/shm:mode=1777, or --shm-size instead of an explicit tmpfs",
    needs: &[Need::Path("/dev/shm")],
    ..of_mount("devshm.mount.mode-1777", |cx| {
        let mode = std::fs::metadata("/dev/shm")?.permissions().mode() & 0o7777;
        cx.expect_eq("mode of /dev/shm", format!("{mode:04o}"), "1777".to_owned())
    })
};

const FLAGS: Probe = Probe {
    title: "a container's /dev/shm is mounted nosuid and nodev",
    why: "whoever can write there could leave a set-uid program or a device for the next process of another user",
    varies: "checked where the IPC namespace is the environment's own; a host mounts it as its administrator likes",
    fix: "leave the mount to the engine, or add nosuid,nodev to the tmpfs",
    needs: &[Need::DevShm, Need::OwnIpc],
    ..of_mount("devshm.mount.nosuid-nodev", |cx| {
        let flags = statvfs("/dev/shm")?.flags() & (FsFlags::ST_NOSUID | FsFlags::ST_NODEV);
        cx.expect_eq("flags of the mount", flags, FsFlags::ST_NOSUID | FsFlags::ST_NODEV)
    })
};

const NO_STRANGERS: Probe = Probe {
    title: "a container's /dev/shm holds no names of others",
    why: "leaked objects of a predecessor take the space that the next program counts on, until nothing fits any more",
    varies: "a volume or an image with files below /dev/shm (liboauth2#18 leaks its semaphores there); hosts are passed over",
    fix: "remove what is stale, and find the program that does not unlink",
    needs: &[Need::DevShm, Need::OwnIpc],
    isolate: Isolate::CellAlone,
    ..of_mount("devshm.mount.no-stale-names", |cx| {
        let mut names = Vec::new();
        for entry in std::fs::read_dir("/dev/shm")? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.retain(|name| !name.starts_with("shmcheck") && !name.starts_with("sem.shmcheck"));
        cx.expect_eq("names in /dev/shm", names, Vec::new())
    })
};

const OTHER_USER: Probe = Probe {
    title: "a user who is not root creates objects in /dev/shm",
    why: "images drop root before they start the server: its first shm_open must not fail where root's did not",
    fix: "mode 1777 on the mount",
    needs: &[Need::DevShm, Need::OtherUsers],
    ..of_mount("devshm.write.other-user", |cx| {
        let name = cx.fresh_name();
        cx.as_user(65534, 65534, |cx| {
            let object = cx.expect_ok(|| Object::create(name, sys::page_size(), 0o600))?;
            cx.expect_eq("owner", object.stat()?.st_uid, 65534)
        })
    })
};

const READ_ONLY_ROOT: Probe = Probe {
    title: "/dev/shm can be written where the root file system cannot",
    why: "hardened containers run with --read-only: shared memory has to work there, or the program needs a new design",
    varies: "gh-aw-firewall#972 had both read-only",
    fix: "mount a tmpfs on /dev/shm",
    needs: &[Need::Path("/dev/shm")],
    ..of_mount("devshm.write.read-only-root", |cx| {
        if !statvfs("/")?.flags().contains(FsFlags::ST_RDONLY) {
            return Err(Stop::skip("read-only-root", "the root file system can be written"));
        }
        let name = cx.fresh_name();
        let object = cx.expect_ok(|| Object::create(name, sys::page_size(), 0o600))?;
        let map = object.map(sys::page_size())?;
        map.write(0, 8);
        cx.expect_eq("content", map.read(0), 8)
    })
};

/// A probe that fills /dev/shm.
const fn of_size(id: &'static str, run: fn(&mut Context) -> Outcome) -> Probe {
    Probe {
        isolate: Isolate::CellAlone,
        kind: Kind::Environment,
        fix: "--shm-size for the container, sizeLimit of a Memory volume for a pod: as much as the program maps",
        needs: &[Need::DevShm, Need::OwnIpc],
        calls: &[Sys::Fallocate, Sys::Ftruncate, Sys::Mmap],
        ..Probe::new(id, run)
    }
}

const FULL_ENOSPC: Probe = Probe {
    title: "/dev/shm takes its size to the last page, then says ENOSPC",
    why: "a program that asks first (fallocate) is told in words that 64 MiB are not enough; one that does not dies later",
    varies: "64 MiB in containers (moby#2606); filled where it is at most 128 MiB and the environment's own",
    spec: &[man("posix_fallocate(3)", "ENOSPC"), doc("Documentation/filesystems/tmpfs.rst", "size")],
    ..of_size("devshm.size.full-enospc", |cx| {
        let _full = full::fill(cx)?;
        cx.expect_eq("free bytes when full", full::free()?, 0)?;
        let one = cx.object(0)?;
        let page = i64::try_from(sys::page_size()).unwrap_or(4096);
        cx.expect_errno(ENOSPC, || sys::posix_fallocate(one.raw(), 0, page))?;
        cx.expect_eq("blocks of the refused object", one.stat()?.st_blocks, 0)
    })
};

const FULL_SIGBUS: Probe = Probe {
    title: "the first touch of a page that /dev/shm has no room for is SIGBUS",
    why: "PyTorch's loaders, PostgreSQL's workers and Chromium's tabs die of it without a message (pytorch#5040)",
    varies: "as for devshm.size.full-enospc; ftruncate succeeds whatever the size",
    spec: &[man("mmap(2)", "SIGBUS"), doc("Documentation/filesystems/tmpfs.rst", "size")],
    ..of_size("devshm.size.full-sigbus", |cx| {
        let _full = full::fill(cx)?;
        let one = cx.object(sys::page_size())?;
        let map: Map = one.map(sys::page_size())?;
        cx.expect_signal("a store", SIGBUS, || map.write(0, 1))
    })
};

const FREED: Probe = Probe {
    title: "space of /dev/shm comes back when the last user of an object is gone",
    why: "a cache that unlinks its old buffers must get their room back, or the container dies of its own history",
    spec: &[man("shm_unlink(3)", "DESCRIPTION"), OVERVIEW],
    ..of_size("devshm.size.freed-after-unlink", |cx| {
        let before = full::free()?;
        let object = full::fill(cx)?;
        let fd = object.open(libc::O_RDWR)?;
        drop(object);
        cx.expect_eq("free bytes while the unlinked object is open", full::free()?, 0)?;
        drop(fd);
        cx.expect_eq("free bytes when it is closed", full::free()?, before)
    })
};
