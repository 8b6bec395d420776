//! Chapter 5: synchronisation in shared memory.

mod cond;
mod futex_op;
mod futex_pi;
mod futex_wait;
mod futex_wake;
mod memory;
mod mutex;
mod places;
mod requeue_pi;
mod robust;
mod robust_list;
mod rwlock;
mod sem_named;
mod sem_wait;
mod tools;
mod waitv;

use shmcheck_probe::Chapter;

/// The chapter.
pub const CHAPTER: Chapter = Chapter {
    number: 5,
    name: "sync",
    title: "Synchronisation in shared memory",
    intro: "",
    files: &[
        sem_named::PROBES,
        sem_wait::PROBES,
        places::PROBES,
        mutex::PROBES,
        robust::PROBES,
        cond::PROBES,
        rwlock::PROBES,
        futex_wait::PROBES,
        futex_wake::PROBES,
        futex_op::PROBES,
        futex_pi::PROBES,
        requeue_pi::PROBES,
        waitv::PROBES,
        robust_list::PROBES,
    ],
    excluded: &[],
};
