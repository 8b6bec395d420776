//! Chapter 2: System V semaphores.

mod array;
mod control;
mod count;
mod create;
mod get;
mod helpers;
mod info;
mod limits;
mod op;
mod perm;
mod pid;
mod stop;
mod timed;
mod times;
mod undo;
mod undo_life;
mod values;
mod wake;

use shmcheck_probe::{Chapter, catalogue::Excluded};

/// The chapter.
pub const CHAPTER: Chapter = Chapter {
    number: 2,
    name: "sysv-sem",
    title: "System V semaphores",
    intro: "A set of counters under one key, changed by arrays of operations that happen all at once or not at all, \
            with sleepers in the kernel and adjustments (SEM_UNDO) that it performs when a process dies. Databases \
            build their locks on it. A set lives in its IPC namespace until someone removes it.",
    files: &[
        get::PROBES,
        create::PROBES,
        op::PROBES,
        array::PROBES,
        wake::PROBES,
        stop::PROBES,
        timed::PROBES,
        count::PROBES,
        undo::PROBES,
        undo_life::PROBES,
        values::PROBES,
        pid::PROBES,
        control::PROBES,
        perm::PROBES,
        times::PROBES,
        info::PROBES,
        limits::PROBES,
    ],
    excluded: &[Excluded {
        page: "semop(2)",
        errno: "ENOMEM",
        reason: "the undo structure has two bytes for each semaphore of the set; the kernel finds no memory for it only \
                 where the whole machine or memory cgroup is out of memory, and then its OOM killer acts first",
    }],
};
