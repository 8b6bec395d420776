//! fallocate(2) and posix_fallocate(3) on objects: reserving, refusals.

use super::punch::{PUNCH, filled};
use super::truncate::limit_file_size;
use caps::Capability;
use libc::{EBADF, EFBIG, EINVAL, ENODEV, EOPNOTSUPP, EPERM, ESPIPE, O_RDONLY, O_RDWR};
use libc::{FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE, FALLOC_FL_KEEP_SIZE};
use shmcheck_probe::{Context, Isolate, Need, Object, Outcome, Probe, Stop, Sys, doc, kernel, man, posix, procfs, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &RESERVES,
    &KEEPS_CONTENT,
    &KEEP_SIZE,
    &POSIX_SAME,
    &POSIX_ERRNO,
    &RANGES_EOPNOTSUPP,
    &RDONLY_EBADF,
    &CLOSED_EBADF,
    &RANGE_EINVAL,
    &OVERFLOW_EFBIG,
    &FSIZE_EFBIG,
    &PIPE_ESPIPE,
    &DEVICE_ENODEV,
    &IMMUTABLE_EPERM,
    &APPEND_EPERM,
    &SIGNAL,
];

const NEEDS: &[Need] = &[Need::DevShm];
const CALLS: &[Sys] = &[Sys::Fallocate];

const RESERVES: Probe = Probe {
    title: "fallocate reserves pages: they count as blocks at once",
    why: "databases pre-allocate so that no later store can fail; a reservation in name only ends in SIGBUS",
    spec: &[man("fallocate(2)", "Allocating disk space"), doc("Documentation/filesystems/tmpfs.rst", "")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.fallocate.reserves", |cx| {
        let page = sys::page_size() as i64;
        let held = cx.object(0)?;
        cx.expect_ok(|| sys::fallocate(held.raw(), 0, page, 3 * page))?;
        let stat = held.stat()?;
        cx.expect_eq("size", stat.st_size, 4 * page)?;
        cx.expect_eq("bytes in blocks", stat.st_blocks * 512, 3 * page)?;
        let map = held.map(4 * page as usize)?;
        cx.expect_eq("first reserved byte", map.read(page as usize), 0)?;
        map.write(4 * page as usize - 1, 1);
        cx.expect_eq("bytes in blocks after a store into them", held.stat()?.st_blocks * 512, 3 * page)
    })
};

const KEEPS_CONTENT: Probe = Probe {
    title: "fallocate over data keeps the data",
    why: "pre-allocation is run at every start over an object that may already be full",
    spec: &[man("fallocate(2)", "Allocating disk space"), posix("posix_fallocate")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.fallocate.keeps-content", |cx| {
        let page = sys::page_size();
        let held = cx.object(page)?;
        let map = held.map(page)?;
        map.write_all(0, &vec![0x3c; page]);
        cx.expect_ok(|| sys::fallocate(held.raw(), 0, 0, 2 * page as i64))?;
        cx.expect_eq("content", map.read_all(0, page), vec![0x3c; page])
    })
};

const KEEP_SIZE: Probe = Probe {
    title: "FALLOC_FL_KEEP_SIZE reserves behind the end, the size stays",
    why: "a growing log reserves ahead; readers go by the size and must not see the reserve",
    spec: &[man("fallocate(2)", "FALLOC_FL_KEEP_SIZE")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.fallocate.keep-size", |cx| {
        let page = sys::page_size() as i64;
        let held = cx.object(10)?;
        cx.expect_ok(|| sys::fallocate(held.raw(), FALLOC_FL_KEEP_SIZE, 0, 2 * page))?;
        let stat = held.stat()?;
        cx.expect_eq("size", stat.st_size, 10)?;
        cx.expect_eq("bytes in blocks", stat.st_blocks * 512, 2 * page)
    })
};

const POSIX_SAME: Probe = Probe {
    title: "posix_fallocate reserves and grows but never shrinks",
    why: "the portable spelling is what PostgreSQL calls for its dynamic shared memory",
    spec: &[posix("posix_fallocate"), man("posix_fallocate(3)", "DESCRIPTION")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.fallocate.posix", |cx| {
        let page = sys::page_size() as i64;
        let held = cx.object(0)?;
        cx.expect_ok(|| sys::posix_fallocate(held.raw(), 0, 2 * page))?;
        cx.expect_ok(|| sys::posix_fallocate(held.raw(), 0, 1))?;
        let stat = held.stat()?;
        cx.expect_eq("size and bytes in blocks", (stat.st_size, stat.st_blocks * 512), (2 * page, 2 * page))
    })
};

const POSIX_ERRNO: Probe = Probe {
    title: "posix_fallocate returns its errno as value",
    why: "programs that look at errno instead print 'Success' for a full /dev/shm; the value must be there to be seen",
    spec: &[posix("posix_fallocate"), man("posix_fallocate(3)", "ERRORS")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.fallocate.posix-errno", |cx| {
        let held = cx.object(0)?;
        cx.expect_errno(EINVAL, || sys::posix_fallocate(held.raw(), 0, 0))?;
        cx.expect_errno(EINVAL, || sys::posix_fallocate(held.raw(), -1, 1))?;
        cx.expect_errno(EBADF, || sys::posix_fallocate(-1, 0, 1))?;
        let (_reading, writing) = sys::pipe()?;
        cx.expect_errno(ESPIPE, || sys::posix_fallocate(writing.as_raw_fd(), 0, 1))
    })
};

const RANGES_EOPNOTSUPP: Probe = Probe {
    title: "tmpfs neither collapses nor inserts ranges: EOPNOTSUPP",
    why: "a program that moves data by these modes needs a refusal to fall back to copying",
    spec: &[man("fallocate(2)", "EOPNOTSUPP"), kernel("mm/shmem.c", "shmem_fallocate")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.fallocate.range-modes", |cx| {
        let page = sys::page_size() as i64;
        let held = filled(cx, 3)?;
        for mode in [FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE] {
            cx.expect_errno(EOPNOTSUPP, || sys::fallocate(held.raw(), mode, page, page))?;
        }
        cx.expect_eq("size", held.stat()?.st_size, 3 * page)
    })
};

const RDONLY_EBADF: Probe = Probe {
    title: "fallocate through an O_RDONLY descriptor fails with EBADF",
    why: "a reader must neither reserve memory on the owner's account nor punch holes into its data",
    spec: &[man("fallocate(2)", "EBADF"), posix("posix_fallocate")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.fallocate.rdonly", |cx| {
        let held = filled(cx, 1)?;
        let reader = held.open(O_RDONLY)?;
        for mode in [0, FALLOC_FL_KEEP_SIZE, PUNCH] {
            cx.expect_errno(EBADF, || sys::fallocate(reader.as_raw_fd(), mode, 0, 1 << 20))?;
        }
        let stat = held.stat()?;
        let page = sys::page_size() as i64;
        cx.expect_eq("size and bytes in blocks", (stat.st_size, stat.st_blocks * 512), (page, page))
    })
};

const CLOSED_EBADF: Probe = Probe {
    title: "fallocate of a closed descriptor fails with EBADF",
    why: "a reservation that went nowhere must not look like success",
    spec: &[man("fallocate(2)", "EBADF")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("posix.shm.fallocate.closed", |cx| {
        let (reading, writing) = sys::pipe()?;
        let number = writing.as_raw_fd();
        drop((reading, writing));
        for fd in [number, -1] {
            cx.expect_errno(EBADF, || sys::fallocate(fd, 0, 0, 1))?;
        }
        Ok(())
    })
};

const RANGE_EINVAL: Probe = Probe {
    title: "a negative offset, a length of 0 or less: EINVAL",
    why: "a size computed as 0 is a bug of the caller; success would leave it without any reservation",
    spec: &[man("fallocate(2)", "EINVAL"), posix("posix_fallocate")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.fallocate.bad-range", |cx| {
        let held = cx.object(0)?;
        for mode in [0, PUNCH] {
            for (offset, length) in [(-1, 1), (0, 0), (0, -1), (i64::MIN, 1)] {
                cx.expect_errno(EINVAL, || sys::fallocate(held.raw(), mode, offset, length))?;
            }
        }
        cx.expect_eq("blocks", held.stat()?.st_blocks, 0)
    })
};

const OVERFLOW_EFBIG: Probe = Probe {
    title: "a range beyond the largest file size fails with EFBIG",
    why: "offset plus length may overflow; the kernel must not wrap around to the front of the object",
    spec: &[man("fallocate(2)", "EFBIG"), posix("posix_fallocate")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.fallocate.overflow", |cx| {
        let held = filled(cx, 1)?;
        for mode in [0, FALLOC_FL_KEEP_SIZE, PUNCH] {
            cx.expect_errno(EFBIG, || sys::fallocate(held.raw(), mode, 1, i64::MAX))?;
        }
        cx.expect_eq("first byte", super::truncate::byte_at(held.raw(), 0)?, 0x5d)
    })
};

const FSIZE_EFBIG: Probe = Probe {
    title: "reserving above RLIMIT_FSIZE fails with EFBIG",
    why: "a limited service gets the refusal when it reserves, not later in the middle of its work",
    fix: "raise LimitFSIZE (systemd) or --ulimit fsize",
    spec: &[man("getrlimit(2)", "RLIMIT_FSIZE"), posix("posix_fallocate")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.fallocate.fsize", |cx| {
        let held = cx.object(0)?;
        cx.elsewhere(|cx| {
            sys::trace::ignore(libc::SIGXFSZ);
            limit_file_size(4096)?;
            cx.expect_ok(|| sys::fallocate(held.raw(), 0, 0, 4096))?;
            cx.expect_errno(EFBIG, || sys::fallocate(held.raw(), 0, 0, 4097))?;
            cx.expect_eq("size", held.stat()?.st_size, 4096)
        })
    })
};

const PIPE_ESPIPE: Probe = Probe {
    title: "fallocate of a pipe fails with ESPIPE",
    why: "standard output may be a pipe or a file; a program that reserves space there tells them apart by this",
    spec: &[man("fallocate(2)", "ESPIPE"), posix("posix_fallocate")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("posix.shm.fallocate.pipe", |cx| {
        let (_reading, writing) = sys::pipe()?;
        cx.expect_errno(ESPIPE, || sys::fallocate(writing.as_raw_fd(), 0, 0, 1))
    })
};

const DEVICE_ENODEV: Probe = Probe {
    title: "fallocate of a device or socket fails with ENODEV",
    why: "/dev/null and /dev/zero are configured as buffers for tests; nothing can be reserved there",
    spec: &[man("fallocate(2)", "ENODEV"), posix("posix_fallocate")],
    calls: CALLS,
    needs: &[Need::Path("/dev/null")],
    isolate: Isolate::Cell,
    ..Probe::new("posix.shm.fallocate.device", |cx| {
        let device = sys::open("/dev/null", O_RDWR | libc::O_CLOEXEC, 0)?;
        let (socket, _other) = std::os::unix::net::UnixDatagram::pair()?;
        for fd in [device.as_raw_fd(), socket.as_raw_fd()] {
            cx.expect_errno(ENODEV, || sys::fallocate(fd, 0, 0, 1))?;
        }
        Ok(())
    })
};

const IMMUTABLE_EPERM: Probe = Probe {
    title: "an object marked immutable reserves nothing: EPERM",
    why: "an administrator freezes a buffer for an investigation with chattr +i; nothing may change it then",
    varies: "chattr on tmpfs needs Linux 6.0 and CAP_LINUX_IMMUTABLE",
    spec: &[man("fallocate(2)", "EPERM"), man("ioctl_iflags(2)", "FS_IMMUTABLE_FL")],
    calls: CALLS,
    needs: &[Need::DevShm, Need::InitCap(Capability::CAP_LINUX_IMMUTABLE)],
    ..Probe::new("posix.shm.fallocate.immutable", |cx| {
        let held = filled(cx, 1)?;
        let _flag = flagged(&held, sys::tmpfs::FS_IMMUTABLE_FL)?;
        for mode in [0, PUNCH] {
            cx.expect_errno(EPERM, || sys::fallocate(held.raw(), mode, 0, 1 << 20))?;
        }
        cx.expect_errno(EPERM, || held.open(O_RDWR))?;
        cx.expect_eq("first byte", super::truncate::byte_at(held.raw(), 0)?, 0x5d)
    })
};

const APPEND_EPERM: Probe = Probe {
    title: "no hole is punched into an append-only object: EPERM",
    why: "an audit trail in shared memory may grow; nobody may blank a part of it",
    varies: "chattr on tmpfs needs Linux 6.0 and CAP_LINUX_IMMUTABLE",
    spec: &[man("fallocate(2)", "EPERM"), man("ioctl_iflags(2)", "FS_APPEND_FL")],
    calls: CALLS,
    needs: &[Need::DevShm, Need::InitCap(Capability::CAP_LINUX_IMMUTABLE)],
    ..Probe::new("posix.shm.fallocate.append-only", |cx| {
        let page = sys::page_size() as i64;
        let held = filled(cx, 1)?;
        let _flag = flagged(&held, sys::tmpfs::FS_APPEND_FL)?;
        cx.expect_errno(EPERM, || sys::fallocate(held.raw(), PUNCH, 0, 1))?;
        cx.expect_ok(|| sys::fallocate(held.raw(), 0, page, page))?;
        cx.expect_errno(EPERM, || sys::ftruncate(held.raw(), 0))?;
        cx.expect_eq("first byte", super::truncate::byte_at(held.raw(), 0)?, 0x5d)
    })
};

const SIGNAL: Probe = Probe {
    title: "a signal during fallocate leaves all of the range or none",
    why: "a program with an interval timer reserves gigabytes: it must come to an end, and not pay for half of it",
    varies: "older kernels give EINTR for any signal, newer ones only when the process is killed",
    spec: &[
        man("fallocate(2)", "ERRORS"),
        kernel("mm/shmem.c", "shmem_fallocate: signal_pending, later fatal_signal_pending"),
        posix("posix_fallocate"),
    ],
    calls: &[Sys::Fallocate, Sys::Ptrace],
    needs: NEEDS,
    ..Probe::new("posix.shm.fallocate.signal", signal)
};
fn signal(cx: &mut Context) -> Outcome {
    let page = sys::page_size() as i64;
    let held = cx.object(0)?;
    let errno = interrupted_fallocate(cx, held.raw(), 4 * page)?;
    let stat = held.stat()?;
    let got = (errno.as_str(), stat.st_size, stat.st_blocks * 512);
    let allowed = [("EINTR", 0, 0), ("success", 4 * page, 4 * page)];
    cx.expect("errno, size and bytes in blocks", allowed.contains(&got), format!("one of {allowed:?}"), got)
}

/// What `fallocate(fd, 0, 0, length)` gives in a process for which a signal with a handler is pending all through
/// the call.
pub(crate) fn interrupted_fallocate(cx: &mut Context, fd: i32, length: i64) -> Result<String, Stop> {
    let peer = cx.fork(move |_| {
        sys::trace::interrupt_by(libc::SIGUSR1)?;
        sys::trace_me()?;
        sys::trace::raise(libc::SIGSTOP)?;
        Ok(sys::fallocate(fd, 0, 0, length).map_or_else(|e| e.name(), |()| "success").to_owned())
    })?;
    let pid = peer.pid();
    // The tracee is held at the entry of the call and gets its signal there: it is pending while the call runs,
    // however fast that is.
    loop {
        let (_, status) = sys::waitpid(pid, 0)?;
        if !libc::WIFSTOPPED(status) {
            return Err(Stop::broken("a traced peer ended before its call"));
        }
        match procfs::current_call(pid) {
            Some(number) if number == Sys::Fallocate.number() => break,
            Some(_) => sys::trace::trace_resume(libc::PTRACE_SYSCALL, pid, 0)?,
            None => return Err(Stop::skip("path:/proc/PID/syscall", "it does not tell a tracee's call")),
        }
    }
    peer.signal(libc::SIGUSR1)?;
    sys::trace::trace_resume(libc::PTRACE_CONT, pid, 0)?;
    // The signal's delivery is a stop of its own; passed on, the handler runs.
    let (_, status) = sys::waitpid(pid, 0)?;
    if libc::WIFSTOPPED(status) {
        sys::trace::trace_resume(libc::PTRACE_CONT, pid, libc::WSTOPSIG(status))?;
    }
    peer.join()
}

/// An object whose chattr flag is taken off again when dropped: with it the object could not be removed.
struct Flagged(i32);

impl Drop for Flagged {
    fn drop(&mut self) {
        // What remains is found by the agent's inventory.
        let _ = sys::tmpfs::set_inode_flags(self.0, 0);
    }
}

fn flagged(object: &Object, flag: i32) -> Result<Flagged, Stop> {
    if sys::tmpfs::inode_flags(object.raw()).is_err() {
        return Err(Stop::skip("chattr on tmpfs", "ioctl(FS_IOC_GETFLAGS) is refused"));
    }
    sys::tmpfs::set_inode_flags(object.raw(), flag)?;
    Ok(Flagged(object.raw()))
}
