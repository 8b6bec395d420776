//! Chapter 3: POSIX shared memory.

mod access;
mod attributes;
mod close;
pub(crate) mod descriptor;
pub(crate) mod fallocate;
mod file;
mod io;
mod mount;
mod names;
pub(crate) mod open;
mod path;
mod punch;
mod space;
mod tmpfs;
pub(crate) mod truncate;
mod unlink;

use shmcheck_probe::Chapter;
use shmcheck_probe::catalogue::Excluded;

/// The chapter.
pub const CHAPTER: Chapter = Chapter {
    number: 3,
    name: "posix-shm",
    title: "POSIX shared memory",
    intro: "An object is a file in /dev/shm: shm_open finds or creates it by name, ftruncate gives it a size, mmap makes \
            it memory, shm_unlink takes the name away. The size is a promise that nobody checked: pages come when they \
            are first touched, and a full file system answers that touch with SIGBUS. Only fallocate asks beforehand. \
            Names, owners, modes and the sticky bit are those of any directory open to all users, and so are leftovers: \
            an object lives until it is unlinked and the last process has closed and unmapped it, or until reboot.",
    files: &[
        open::PROBES,
        descriptor::PROBES,
        names::PROBES,
        access::PROBES,
        truncate::PROBES,
        path::PROBES,
        fallocate::PROBES,
        punch::PROBES,
        space::PROBES,
        mount::PROBES,
        file::PROBES,
        io::PROBES,
        tmpfs::PROBES,
        attributes::PROBES,
        unlink::PROBES,
        close::PROBES,
    ],
    excluded: EXCLUDED,
};

const EXCLUDED: &[Excluded] = &[
    Excluded {
        page: "shm_open(3)",
        errno: "ENFILE",
        reason: "the limit fs.file-max counts the open files of the whole machine: reaching it would stop every other \
                 program, and root is exempt from it",
    },
    Excluded {
        page: "ftruncate(2)",
        errno: "EIO",
        reason: "an error of a disk while writing the inode; tmpfs has no device that could give one",
    },
    Excluded {
        page: "fallocate(2)",
        errno: "EIO",
        reason: "an error of a disk; tmpfs and hugetlbfs have no device that could give one",
    },
    Excluded {
        page: "fallocate(2)",
        errno: "ENOSYS",
        reason: "kernels before 2.6.23 and architectures without the call; where a filter answers so, the probes of the \
                 call are blocked and say it",
    },
    Excluded {
        page: "fallocate(2)",
        errno: "ETXTBSY",
        reason: "concerns collapsing and inserting ranges of a running program and, in the kernel's code, swap files: \
                 tmpfs has neither mode and cannot hold swap",
    },
    Excluded {
        page: "close(2)",
        errno: "EINTR",
        reason: "needs a flush operation that waits (NFS, FUSE, terminals); tmpfs and memfd have none",
    },
    Excluded {
        page: "close(2)",
        errno: "EIO",
        reason: "a delayed write error of a device or server; nothing is written back from shared memory",
    },
    Excluded {
        page: "close(2)",
        errno: "ENOSPC",
        reason: "a delayed error of NFS; tmpfs reports a full file system when the page is taken",
    },
];
