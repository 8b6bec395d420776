//! Chapter 6: memfd and seals.

mod create;
mod descriptor;
mod exec;
mod hugetlb;
mod mapped;
mod noexec;
mod resize;
mod rules;
mod secret;
mod write;

use shmcheck_probe::catalogue::Excluded;
use shmcheck_probe::{Chapter, Stop, procfs, sys};
use std::os::fd::{AsRawFd, OwnedFd};

/// The chapter.
pub const CHAPTER: Chapter = Chapter {
    number: 6,
    name: "memfd",
    title: "memfd and seals",
    intro: "memfd_create makes shared memory without any name: a file that exists only as a descriptor, passed over fork or \
            a socket, gone with its last user. Whoever receives one cannot trust it: the sender may shrink it (SIGBUS) or \
            change what was just checked. Seals take such operations away from everybody, for ever: F_SEAL_SHRINK, \
            F_SEAL_GROW, F_SEAL_WRITE, F_SEAL_FUTURE_WRITE, F_SEAL_EXEC, and F_SEAL_SEAL closes the list. They belong to \
            the file, not to the descriptor. memfd_secret goes further: pages that even the kernel has no map of.",
    files: &[
        create::PROBES,
        descriptor::PROBES,
        rules::PROBES,
        resize::PROBES,
        write::PROBES,
        mapped::PROBES,
        exec::PROBES,
        noexec::PROBES,
        hugetlb::PROBES,
        secret::PROBES,
    ],
    excluded: EXCLUDED,
};

const EXCLUDED: &[Excluded] = &[
    Excluded {
        page: "memfd_create(2)",
        errno: "ENFILE",
        reason: "the limit fs.file-max counts the open files of the whole machine: reaching it would stop every other \
                 program, and root is exempt from it",
    },
    Excluded {
        page: "memfd_create(2)",
        errno: "ENOMEM",
        reason: "an inode could not be allocated in the kernel: it needs a machine or memory cgroup without any free \
                 memory, in which the probe itself would be killed first",
    },
    Excluded {
        page: "memfd_secret(2)",
        errno: "ENOMEM",
        reason: "an inode could not be allocated in the kernel: it needs a machine or memory cgroup without any free \
                 memory, in which the probe itself would be killed first",
    },
    Excluded {
        page: "memfd_secret(2)",
        errno: "ENOSYS",
        reason: "a kernel without the call or booted with secretmem.enable=0: the probes of the call are skipped there \
                 and say so",
    },
];

/// A memfd that seals can be added to.
fn sealable() -> sys::Result<OwnedFd> {
    sys::memfd_create("sealable", sys::MFD_CLOEXEC | sys::MFD_ALLOW_SEALING)
}

/// The file with that size.
fn size(fd: OwnedFd, length: usize) -> sys::Result<OwnedFd> {
    sys::ftruncate(fd.as_raw_fd(), i64::try_from(length).unwrap_or(0))?;
    Ok(fd)
}

/// Another open file description of the same file.
fn reopen(fd: &OwnedFd, flags: i32) -> sys::Result<OwnedFd> {
    sys::open(&format!("/proc/self/fd/{}", fd.as_raw_fd()), flags | libc::O_CLOEXEC, 0)
}

/// A skip where the kernel does not know a seal.
fn known(seal: i32, name: &str) -> Result<(), Stop> {
    match sys::add_seals(sealable()?.as_raw_fd(), seal) {
        Err(e) if e.errno == libc::EINVAL => Err(Stop::skip(name, "fcntl(F_ADD_SEALS) → EINVAL")),
        added => Ok(added?),
    }
}

/// The seals of a file except F_SEAL_EXEC: where vm.memfd_noexec is not 0, a memfd has it without being asked, and the
/// claims about the other seals hold all the same.
fn seals_of(fd: i32) -> sys::Result<i32> {
    sys::get_seals(fd).map(|seals| seals & !sys::F_SEAL_EXEC)
}

/// The flag that makes a memfd as it was before vm.memfd_noexec: executable, without any seal of its own. 0 where the
/// kernel does not know it, a skip where the pid namespace forbids it.
pub(crate) fn executable() -> Result<u32, Stop> {
    match procfs::sysctl_number::<u32>("vm/memfd_noexec") {
        Err(_) => Ok(0),
        Ok(0 | 1) => Ok(sys::MFD_EXEC),
        Ok(value) => Err(Stop::skip("vm.memfd_noexec below 2", value.to_string())),
    }
}
