//! Chapter 4: mappings.

mod account;
mod advise;
mod advise_fork;
mod advise_refused;
mod anonymous;
mod common;
mod disk;
mod end_of_file;
mod file;
mod flags;
mod limits;
mod lock;
mod lock_all;
mod place;
mod populate;
mod private;
mod protect;
mod protect_refused;
mod refused;
mod remap;
mod remap_refused;
mod seal;
mod sync;
mod unmap;

use shmcheck_probe::Chapter;
use shmcheck_probe::catalogue::Excluded;

/// The chapter.
pub const CHAPTER: Chapter = Chapter {
    number: 4,
    name: "mapping",
    title: "Mappings",
    intro: "mmap puts an object into a process's address space: a file, or memory without one. A shared mapping is one \
            memory for everybody who maps the object, for its readers and for its writers; a private one copies a page \
            at the first store. Nothing is allocated before it is touched, so what goes wrong goes wrong late: not as \
            an errno of mmap, but as SIGBUS or SIGSEGV in the middle of a program.",
    files: &[
        anonymous::PROBES,
        file::PROBES,
        private::PROBES,
        end_of_file::PROBES,
        disk::PROBES,
        refused::PROBES,
        flags::PROBES,
        place::PROBES,
        populate::PROBES,
        protect::PROBES,
        protect_refused::PROBES,
        unmap::PROBES,
        remap::PROBES,
        remap_refused::PROBES,
        advise::PROBES,
        advise_fork::PROBES,
        advise_refused::PROBES,
        lock::PROBES,
        lock_all::PROBES,
        sync::PROBES,
        seal::PROBES,
        limits::PROBES,
        account::PROBES,
    ],
    excluded: &[
        Excluded {
            page: "mmap(2)",
            errno: "ENFILE",
            reason: "only at the machine's limit of open files, fs.file-max, which is everybody's",
        },
        Excluded {
            page: "mmap(2)",
            errno: "ETXTBSY",
            reason: "MAP_DENYWRITE is ignored since Linux 2.0 (map.flags.deny-write.ignored); what is left is a mapping of an active swap file",
        },
        Excluded {
            page: "mprotect(2)",
            errno: "EFAULT",
            reason: "not given since Linux 2.4.19, which gives ENOMEM (map.protect.mprotect.unmapped-enomem)",
        },
        Excluded {
            page: "mlock(2)",
            errno: "EAGAIN",
            reason: "only when the kernel runs out of memory while it brings the pages in",
        },
        Excluded {
            page: "madvise(2)",
            errno: "EBADF",
            reason: "only for MADV_WILLNEED on a kernel without CONFIG_SWAP",
        },
        Excluded {
            page: "madvise(2)",
            errno: "EBUSY",
            reason: "only when MADV_COLLAPSE cannot charge a huge page to a memory cgroup of the caller's, which has no room for it",
        },
        Excluded {
            page: "madvise(2)",
            errno: "EIO",
            reason: "no kernel gives it: mm/madvise.c does not look at the resident set's limit",
        },
        Excluded {
            page: "madvise(2)",
            errno: "EHWPOISON",
            reason: "poisoning a page takes memory away from the machine until it is started anew",
        },
        Excluded {
            page: "mincore(2)",
            errno: "EAGAIN",
            reason: "only when the kernel has no page to spare for the answer",
        },
    ],
};
