//! Chapter 5: synchronisation in shared memory.

mod cond;
mod futex2;
mod futex_op;
mod futex_pi;
mod futex_refused;
mod futex_wait;
mod futex_wake;
mod memory;
mod mutex;
mod pi_refused;
mod pid_namespace;
mod places;
mod requeue_pi;
mod requeue_pi_refused;
mod robust;
mod robust_list;
mod robust_walk;
mod rwlock;
mod sem_close;
mod sem_open;
mod sem_wait;
mod tools;
mod waitv;

use shmcheck_probe::Chapter;
use shmcheck_probe::catalogue::Excluded;

/// The chapter.
pub const CHAPTER: Chapter = Chapter {
    number: 5,
    name: "sync",
    title: "Synchronisation in shared memory",
    intro: "Sharing memory is easy; agreeing on who may touch it when is the work. All locks of Linux rest on one call: \
        futex(2) lets a process sleep on a 32-bit word and another wake it, and the kernel knows the word by the object \
        it lies in, not by its address, so that two programs may map it wherever they like. On it the C library builds \
        semaphores, mutexes, condition variables, read-write locks and barriers. Between processes they work only if \
        made for that (PTHREAD_PROCESS_SHARED, pshared of sem_init): the default wakes threads of one process alone, \
        passes every test without contention and hangs with it. A lock in shared memory outlives its owner. Robust \
        mutexes tell the next one that the owner died (EOWNERDEAD): the kernel walks a list that the dying process \
        left. Priority-inheriting mutexes put the owner's number into the word, so that the kernel can lend it the \
        priority of those who wait. Each lock is tried here in each kind of memory: System V segment, POSIX object, \
        memfd, inherited anonymous memory, file and huge page.",
    files: &[
        sem_open::PROBES,
        sem_close::PROBES,
        sem_wait::PROBES,
        places::PROBES,
        mutex::PROBES,
        robust::PROBES,
        cond::PROBES,
        rwlock::PROBES,
        futex_wait::PROBES,
        futex_refused::PROBES,
        futex_wake::PROBES,
        futex_op::PROBES,
        futex_pi::PROBES,
        pi_refused::PROBES,
        requeue_pi::PROBES,
        requeue_pi_refused::PROBES,
        waitv::PROBES,
        futex2::PROBES,
        robust_list::PROBES,
        robust_walk::PROBES,
        pid_namespace::PROBES,
    ],
    excluded: &[
        excluded(
            "futex(2)",
            "EACCES",
            "the kernel gives EFAULT for a word that cannot be read; no path of kernel/futex returns EACCES",
        ),
        excluded("futex(2)", "ENFILE", "only FUTEX_FD gave it, which was removed in Linux 2.6.26 and is ENOSYS since"),
        excluded(
            "futex(2)",
            "ENOMEM",
            "the kernel's allocation of a few hundred bytes must fail, which no limit of a process provokes",
        ),
        excluded(
            "sem_open(3)",
            "ENFILE",
            "the system-wide table of files would have to be filled, on a machine that others use",
        ),
        excluded("sem_open(3)", "ENOMEM", "malloc of a few bytes must fail between two calls of the library"),
        excluded(
            "sem_post(3)",
            "EINVAL",
            "glibc does not look whether the memory is a semaphore; a bad pointer is undefined behaviour",
        ),
        excluded("sem_init(3)", "ENOSYS", "Linux has had process-shared semaphores since 2.6"),
        excluded(
            "sem_destroy(3)",
            "EINVAL",
            "glibc does not look whether the memory is a semaphore, and sem_destroy does nothing",
        ),
        excluded(
            "sem_getvalue(3)",
            "EINVAL",
            "glibc does not look whether the memory is a semaphore, as the page says",
        ),
        excluded("pthread_mutexattr_getpshared(3)", "ENOTSUP", "glibc on Linux supports process-shared mutexes always"),
    ],
};

/// A pair that no probe provokes, with the reason.
const fn excluded(page: &'static str, errno: &'static str, reason: &'static str) -> Excluded {
    Excluded { page, errno, reason }
}
