//! truncate(2) by the path below /dev/shm: the errnos that concern paths, leases and running programs.

use super::open::{object_name, object_of_mode};
use caps::Capability;
use libc::{
    EACCES, EFAULT, EINTR, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EROFS, ETXTBSY, O_CLOEXEC, O_CREAT, O_RDONLY,
    O_RDWR, SIGUSR1,
};
use shmcheck_probe::{
    Context, Entry, Isolate, Map, Need, Object, Outcome, Probe, Stop, Sys, Tiny, man, posix, procfs, sys,
};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &BY_PATH,
    &NO_WRITE_EACCES,
    &NO_SEARCH_EACCES,
    &BAD_POINTER_EFAULT,
    &DIRECTORY_EISDIR,
    &LOOP_ELOOP,
    &LONG_ENAMETOOLONG,
    &ABSENT_ENOENT,
    &FILE_ENOTDIR,
    &READ_ONLY_EROFS,
    &RUNNING_ETXTBSY,
    &LEASE_EINTR,
];

const NEEDS: &[Need] = &[Need::DevShm];
const OVERRIDES: &[Capability] = &[Capability::CAP_DAC_OVERRIDE, Capability::CAP_DAC_READ_SEARCH];

const BY_PATH: Probe = Probe {
    title: "truncate by path resizes the object for every mapper",
    why: "administrators shrink a runaway object with truncate(1); the program that has it mapped must see it",
    spec: &[man("ftruncate(2)", "DESCRIPTION"), posix("truncate")],
    needs: NEEDS,
    ..Probe::new("posix.shm.path.truncate", |cx| {
        let page = sys::page_size();
        let held = cx.object(2 * page)?;
        let map = held.map(2 * page)?;
        map.touch(3);
        cx.expect_ok(|| sys::truncate(held.path(), 1))?;
        cx.expect_eq("size", held.stat()?.st_size, 1)?;
        cx.expect_eq("byte behind the end in the page", map.read(1), 0)?;
        cx.expect_signal("touching the page behind", libc::SIGBUS, || _ = map.read(page))
    })
};

const NO_WRITE_EACCES: Probe = Probe {
    title: "truncate of an object without write permission gives EACCES",
    why: "a reader must not cut the publisher's memory away by its path either",
    spec: &[man("ftruncate(2)", "EACCES"), posix("truncate")],
    needs: NEEDS,
    ..Probe::new("posix.shm.path.no-write-permission", |cx| {
        let held = object_of_mode(cx, 8, 0o400)?;
        cx.without_caps(OVERRIDES, |cx| cx.expect_errno(EACCES, || sys::truncate(held.path(), 0)))?;
        cx.expect_eq("size", held.stat()?.st_size, 8)
    })
};

const NO_SEARCH_EACCES: Probe = Probe {
    title: "truncate below a directory without search permission gives EACCES",
    why: "engines put sockets and buffers of a user into a closed directory of /dev/shm; it must be closed",
    spec: &[man("ftruncate(2)", "EACCES"), man("path_resolution(7)", "Permissions"), posix("truncate")],
    needs: NEEDS,
    ..Probe::new("posix.shm.path.no-search-permission", |cx| {
        let directory = Entry::of(&cx.fresh_name());
        sys::tmpfs::mkdir(&directory.path, 0o700)?;
        let inside = Entry::new(format!("{}/object", directory.path));
        drop(sys::open(&inside.path, O_CREAT | O_RDWR | O_CLOEXEC, 0o666)?);
        let fd = sys::open(&directory.path, O_RDONLY | O_CLOEXEC, 0)?;
        sys::tmpfs::fchmod(fd.as_raw_fd(), 0o600)?;
        let path = inside.path.clone();
        let refused = cx.without_caps(OVERRIDES, move |cx| cx.expect_errno(EACCES, || sys::truncate(&path, 5)));
        sys::tmpfs::fchmod(fd.as_raw_fd(), 0o700)?;
        refused?;
        cx.expect_eq("size", std::fs::metadata(&inside.path)?.len(), 0)?;
        drop(inside);
        Ok(())
    })
};

const BAD_POINTER_EFAULT: Probe = Probe {
    title: "a path pointer outside the address space gives EFAULT",
    why: "the kernel answers a program's bad pointer with an errno; it does not read another's memory for it",
    spec: &[man("ftruncate(2)", "EFAULT")],
    isolate: Isolate::Cell,
    ..Probe::new("posix.shm.path.bad-pointer", |cx| {
        let gone = Map::shared_anonymous(sys::page_size())?;
        let address = gone.address();
        gone.close()?;
        for pointer in [0, address, usize::MAX - 4095] {
            cx.expect_errno(EFAULT, || sys::truncate_at_address(pointer, 0))?;
        }
        Ok(())
    })
};

const DIRECTORY_EISDIR: Probe = Probe {
    title: "truncate of a directory gives EISDIR",
    why: "a configured path that is a directory must be named as such, not as an invalid size",
    spec: &[man("ftruncate(2)", "EISDIR"), posix("truncate")],
    needs: NEEDS,
    ..Probe::new("posix.shm.path.directory", |cx| {
        let directory = Entry::of(&cx.fresh_name());
        sys::tmpfs::mkdir(&directory.path, 0o700)?;
        cx.expect_errno(EISDIR, || sys::truncate(&directory.path, 0))
    })
};

const LOOP_ELOOP: Probe = Probe {
    title: "symbolic links that lead in a circle give ELOOP",
    why: "a deployment script that links two names to each other must show as an error, not as a hanging program",
    spec: &[man("ftruncate(2)", "ELOOP"), posix("truncate")],
    needs: NEEDS,
    ..Probe::new("posix.shm.path.link-loop", |cx| {
        let (one, two) = (Entry::of(&cx.fresh_name()), Entry::of(&cx.fresh_name()));
        sys::tmpfs::symlink(&two.path, &one.path)?;
        sys::tmpfs::symlink(&one.path, &two.path)?;
        cx.expect_errno(ELOOP, || sys::truncate(&one.path, 0))
    })
};

const LONG_ENAMETOOLONG: Probe = Probe {
    title: "a component longer than NAME_MAX, a path of PATH_MAX: ENAMETOOLONG",
    why: "generated names that outgrow the limit must be reported instead of cut",
    spec: &[man("ftruncate(2)", "ENAMETOOLONG"), posix("truncate")],
    needs: NEEDS,
    ..Probe::new("posix.shm.path.too-long", |cx| {
        let held = cx.object(0)?;
        let component = format!("/dev/shm/{}", "x".repeat(256));
        let slashes = format!("/{}{}", "/".repeat(4096), &held.path()[1..]);
        cx.expect_ok(|| sys::truncate(&format!("///{}", held.path()), 1))?;
        cx.expect_errno(ENAMETOOLONG, || sys::truncate(&component, 0))?;
        cx.expect_errno(ENAMETOOLONG, || sys::truncate(&slashes, 0))
    })
};

const ABSENT_ENOENT: Probe = Probe {
    title: "truncate of a name that is not there gives ENOENT",
    why: "unlike open with O_CREAT, resizing must never create an object that nobody set up",
    spec: &[man("ftruncate(2)", "ENOENT"), posix("truncate")],
    needs: NEEDS,
    ..Probe::new("posix.shm.path.absent", |cx| {
        let entry = Entry::of(&cx.fresh_name());
        cx.expect_errno(ENOENT, || sys::truncate(&entry.path, 8))?;
        cx.expect_errno(ENOENT, || sys::truncate("", 8))?;
        cx.expect_errno(ENOENT, || sys::shm_open(&object_name(&entry), O_RDONLY, 0))
    })
};

const FILE_ENOTDIR: Probe = Probe {
    title: "an object used as a directory gives ENOTDIR",
    why: "two programs that disagree whether a name is a buffer or a directory of buffers get told so",
    spec: &[man("ftruncate(2)", "ENOTDIR"), posix("truncate")],
    needs: NEEDS,
    ..Probe::new("posix.shm.path.not-a-directory", |cx| {
        let held = cx.object(8)?;
        cx.expect_errno(ENOTDIR, || sys::truncate(&format!("{}/part", held.path()), 0))?;
        cx.expect_errno(ENOTDIR, || sys::truncate(&format!("{}/", held.path()), 0))?;
        cx.expect_eq("size", held.stat()?.st_size, 8)
    })
};

const READ_ONLY_EROFS: Probe = Probe {
    title: "truncate on a read-only mount gives EROFS",
    why: "a sidecar that has the shared directory mounted read-only must not be able to damage it",
    spec: &[man("ftruncate(2)", "EROFS"), posix("truncate")],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.path.read-only-mount", |cx| {
        cx.own_dev_shm("mode=1777")?;
        let entry = Object::create(cx.fresh_name(), 8, 0o600)?.into_entry();
        cx.expect_ok(|| sys::truncate(&entry.path, 9))?;
        sys::tmpfs::mount_tmpfs("/dev/shm", libc::MS_REMOUNT | libc::MS_RDONLY, "")?;
        cx.expect_errno(EROFS, || sys::truncate(&entry.path, 0))?;
        cx.expect_eq("size", std::fs::metadata(&entry.path)?.len(), 9)
    })
};

const RUNNING_ETXTBSY: Probe = Probe {
    title: "truncate of a program that is running gives ETXTBSY",
    why: "an update that overwrites a running program in place crashes it; the kernel refuses",
    varies: "Linux 6.11 and 6.12 do not protect running programs",
    spec: &[man("ftruncate(2)", "ETXTBSY"), man("open(2)", "ETXTBSY")],
    calls: &[Sys::MemfdCreate],
    isolate: Isolate::Cell,
    ..Probe::new("posix.shm.path.running-program", running_program)
};
fn running_program(cx: &mut Context) -> Outcome {
    let Some(elf) = Tiny::Sleep.elf() else {
        return Err(Stop::skip("tiny-program", std::env::consts::ARCH));
    };
    let writable = sys::memfd_create("program", sys::MFD_CLOEXEC | crate::memfd::executable()?)?;
    sys::pwrite(writable.as_raw_fd(), &elf, 0)?;
    let program = sys::open(&format!("/proc/self/fd/{}", writable.as_raw_fd()), O_RDONLY | O_CLOEXEC, 0)?;
    let path = format!("/proc/self/fd/{}", program.as_raw_fd());
    // A program that is open for writing cannot be executed: the same protection seen from the other side.
    drop(writable);
    cx.expect_ok(|| sys::truncate(&path, elf.len() as i64))?;
    let (running, starting) = sys::pipe()?;
    let peer = cx.fork::<()>(|_| {
        let refused = sys::fexecve(program.as_raw_fd());
        Err(refused.into())
    })?;
    drop(starting);
    // The peer's copy of the pipe is closed by exec.
    if !sys::poll_in(&running, 6_000)? {
        return Err(Stop::broken("a peer did not execute its program"));
    }
    match sys::open(&path, O_RDWR | O_CLOEXEC, 0) {
        Ok(_) => return Err(Stop::skip("running-programs-protected", "a running program opens for writing")),
        Err(e) => cx.expect_eq("open for writing", e.name(), "ETXTBSY")?,
    }
    cx.expect_errno(ETXTBSY, || sys::truncate(&path, 0))?;
    cx.expect_eq("size", sys::fstat(program.as_raw_fd())?.st_size, elf.len() as i64)?;
    peer.kill().map(drop)
}

const LEASE_EINTR: Probe = Probe {
    title: "truncate that waits for a lease is interrupted by a signal: EINTR",
    why: "Samba and NFS servers hold leases; a program that waits for one must still react to its time limit",
    spec: &[man("ftruncate(2)", "EINTR"), man("fcntl(2)", "Leases"), man("signal(7)", "Interruption of system calls")],
    needs: &[Need::DevShm, Need::Path("/proc/sys/fs/leases-enable")],
    ..Probe::new("posix.shm.path.lease-eintr", lease_eintr)
};
fn lease_eintr(cx: &mut Context) -> Outcome {
    // A read lease needs that nobody has the file open for writing.
    let entry = cx.object(8)?.into_entry();
    let reader = sys::open(&entry.path, O_RDONLY | O_CLOEXEC, 0)?;
    // The holder is told of the break by SIGIO, which would end it.
    sys::trace::ignore(libc::SIGIO);
    if let Err(e) = sys::fcntl(reader.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) {
        return Err(Stop::skip("leases", format!("fcntl(F_SETLEASE) → {}", e.name())));
    }
    let path = entry.path.clone();
    let peer = cx.fork(move |cx| {
        sys::trace::interrupt_by(SIGUSR1)?;
        cx.expect_errno(EINTR, || sys::truncate(&path, 0))
    })?;
    cx.until("the peer waits for the lease", || {
        let waits = procfs::current_call(peer.pid()).is_none_or(|number| number == libc::SYS_truncate);
        Ok(waits && matches!(procfs::state(peer.pid()), Some('S')))
    })?;
    peer.signal(SIGUSR1)?;
    peer.join()?;
    cx.expect_eq("size", sys::fstat(reader.as_raw_fd())?.st_size, 8)
}
