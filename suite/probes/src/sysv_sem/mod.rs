//! Chapter 2: System V semaphores.

mod array;
mod count;
mod create;
mod get;
mod helpers;
mod op;
mod stop;
mod timed;
mod wake;

use shmcheck_probe::Chapter;

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
    ],
    excluded: &[],
};
