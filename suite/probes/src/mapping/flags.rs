//! Flags that are checked, and flags that are ignored.

use super::common::{FILE, RW, SHARED, byte_of, lettered_file, page, probe, refused};
use libc::{EOPNOTSUPP, EPERM, MAP_SHARED, MAP_SHARED_VALIDATE, MAP_SYNC, PROT_EXEC, PROT_READ};
use shmcheck_probe::{Context, Isolate, Map, Need, Outcome, Probe, Sys, man, sys};
use std::os::fd::{AsRawFd, OwnedFd};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &VALIDATE_SHARES,
    &VALIDATE_UNKNOWN,
    &SHARED_UNKNOWN,
    &VALIDATE_SYNC,
    &SHARED_SYNC,
    &DENY_WRITE,
    &IGNORED,
    &NOEXEC,
    &NOEXEC_LATER,
];

/// A flag of mmap that nothing has defined.
const UNKNOWN: i32 = 0x0080_0000;

const VALIDATE_SHARES: Probe = Probe {
    title: "MAP_SHARED_VALIDATE maps as MAP_SHARED does",
    why: "persistent-memory libraries use it for everything; on ordinary files it has to behave the same",
    spec: &[man("mmap(2)", "MAP_SHARED_VALIDATE")],
    needs: FILE,
    ..probe("map.flags.validate.shares", |cx| shares(cx, MAP_SHARED_VALIDATE))
};
const SHARED_UNKNOWN: Probe = Probe {
    title: "MAP_SHARED ignores unknown flags",
    why: "binaries built with newer headers pass flags that an older kernel has to let go by",
    spec: &[man("mmap(2)", "MAP_SHARED_VALIDATE")],
    needs: FILE,
    ..probe("map.flags.shared.unknown-ignored", |cx| shares(cx, MAP_SHARED | UNKNOWN))
};
const SHARED_SYNC: Probe = Probe {
    title: "MAP_SHARED silently ignores MAP_SYNC",
    why: "a program that asks this way gets no guarantee; that it works nevertheless is documented",
    spec: &[man("mmap(2)", "MAP_SYNC")],
    needs: FILE,
    ..probe("map.flags.shared.sync-ignored", |cx| shares(cx, MAP_SHARED | MAP_SYNC))
};
fn shares(cx: &mut Context, flags: i32) -> Outcome {
    let file = lettered_file(1)?;
    let map = cx.expect_ok(|| Map::new(page(), RW, flags, file.as_raw_fd()))?;
    cx.expect_eq("the file's byte in the mapping", map.read(0), b'a')?;
    cx.elsewhere(|_| {
        map.write(0, b'!');
        Ok(())
    })?;
    cx.expect_eq("a child's store in the file", byte_of(&file, 0)?, b'!')
}

const VALIDATE_UNKNOWN: Probe = Probe {
    title: "MAP_SHARED_VALIDATE refuses an unknown flag with EOPNOTSUPP",
    why: "the only way to learn that a guarantee is not given, before data depends on it",
    spec: &[man("mmap(2)", "MAP_SHARED_VALIDATE")],
    needs: FILE,
    ..probe("map.flags.validate.unknown-eopnotsupp", |cx| not_supported(cx, UNKNOWN))
};
const VALIDATE_SYNC: Probe = Probe {
    title: "MAP_SYNC on a file without DAX fails with EOPNOTSUPP",
    why: "a database for persistent memory must not believe that a tmpfs survives a power cut",
    spec: &[man("mmap(2)", "MAP_SYNC")],
    needs: FILE,
    ..probe("map.flags.validate.sync-eopnotsupp", |cx| not_supported(cx, MAP_SYNC))
};
fn not_supported(cx: &mut Context, flag: i32) -> Outcome {
    let file = lettered_file(1)?;
    cx.expect_ok(|| Map::new(page(), RW, MAP_SHARED_VALIDATE, file.as_raw_fd()))?;
    refused(cx, EOPNOTSUPP, || Map::new(page(), RW, MAP_SHARED_VALIDATE | flag, file.as_raw_fd()))
}

const DENY_WRITE: Probe = Probe {
    title: "MAP_DENYWRITE is ignored: the file can still be written",
    why: "otherwise any reader of a file could lock its owner out by mapping it",
    spec: &[man("mmap(2)", "MAP_DENYWRITE")],
    needs: FILE,
    ..probe("map.flags.deny-write.ignored", deny_write)
};
fn deny_write(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let reader = super::common::reopen(&file, libc::O_RDONLY)?;
    let flags = MAP_SHARED | libc::MAP_DENYWRITE;
    let map = cx.expect_ok(|| Map::new(page(), PROT_READ, flags, reader.as_raw_fd()))?;
    cx.expect_ok(|| sys::pwrite(file.as_raw_fd(), b"!", 0))?;
    cx.expect_eq("the byte in the mapping", map.read(0), b'!')?;
    let again = super::common::reopen(&file, libc::O_RDWR);
    cx.expect("opening the file for writing", again.is_ok(), "success", again.err())
}

const IGNORED: Probe = Probe {
    title: "MAP_EXECUTABLE, MAP_STACK and MAP_FILE change nothing",
    why: "portable code passes them on every system",
    spec: &[man("mmap(2)", "MAP_EXECUTABLE"), man("mmap(2)", "MAP_STACK"), man("mmap(2)", "MAP_FILE")],
    ..probe("map.flags.no-op.ignored", ignored)
};
fn ignored(cx: &mut Context) -> Outcome {
    for flag in [libc::MAP_EXECUTABLE, libc::MAP_STACK, libc::MAP_FILE] {
        let map = cx.expect_ok(|| Map::new(page(), RW, SHARED | flag, -1))?;
        cx.elsewhere(|_| {
            map.write(0, 3);
            Ok(())
        })?;
        cx.expect_eq("a child's store", map.read(0), 3)?;
        cx.expect_eq("the letters", super::common::perms(map.address())?, "rw-s".to_owned())?;
    }
    Ok(())
}

/// A file on a file system of the probe's own that is mounted noexec.
fn file_on_noexec(cx: &mut Context) -> Result<OwnedFd, shmcheck_probe::Stop> {
    sys::mount("shmcheck", "/dev/shm", "tmpfs", libc::MS_NOEXEC, "mode=1777,size=1m")?;
    let path = format!("/dev/shm{}", cx.fresh_name());
    let file = sys::open(&path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC, 0o700)?;
    sys::pwrite(file.as_raw_fd(), &vec![b'a'; page()], 0)?;
    Ok(file)
}

const NOEXEC: Probe = Probe {
    title: "PROT_EXEC of a file on a noexec mount fails with EPERM",
    why: "Docker mounts /dev/shm noexec: Java, .NET and libffi fail here, with a message that names no mount",
    fix: "let the program put its code elsewhere (TMPDIR, DOTNET_EnableWriteXorExecute=0), or mount /dev/shm with exec",
    spec: &[man("mmap(2)", "EPERM")],
    needs: &[Need::DevShm, Need::Cap(caps::Capability::CAP_SYS_ADMIN)],
    calls: &[Sys::Mmap, Sys::Mount],
    isolate: Isolate::FreshOnly,
    ..probe("map.flags.noexec-mount.exec-eperm", noexec)
};
fn noexec(cx: &mut Context) -> Outcome {
    let file = file_on_noexec(cx)?;
    cx.expect_ok(|| Map::new(page(), PROT_READ, MAP_SHARED, file.as_raw_fd()))?;
    for flags in [MAP_SHARED, libc::MAP_PRIVATE] {
        refused(cx, EPERM, || Map::new(page(), PROT_READ | PROT_EXEC, flags, file.as_raw_fd()))?;
    }
    Ok(())
}

const NOEXEC_LATER: Probe = Probe {
    title: "mprotect cannot add PROT_EXEC on a noexec mount: EACCES",
    why: "a mount option that two calls instead of one get around protects nothing",
    spec: &[man("mprotect(2)", "EACCES")],
    needs: &[Need::DevShm, Need::Cap(caps::Capability::CAP_SYS_ADMIN)],
    calls: &[Sys::Mprotect, Sys::Mount],
    isolate: Isolate::FreshOnly,
    ..probe("map.flags.noexec-mount.mprotect-eacces", noexec_later)
};
fn noexec_later(cx: &mut Context) -> Outcome {
    let file = file_on_noexec(cx)?;
    let map = Map::new(page(), PROT_READ, MAP_SHARED, file.as_raw_fd())?;
    cx.expect_ok(|| sys::mprotect(map.address(), page(), RW))?;
    refused(cx, libc::EACCES, || sys::mprotect(map.address(), page(), PROT_READ | PROT_EXEC))
}
