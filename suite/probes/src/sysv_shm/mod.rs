//! Chapter 1: System V shared memory.

mod get;

use shmcheck_probe::Chapter;

/// The chapter.
pub const CHAPTER: Chapter = Chapter {
    number: 1,
    name: "sysv-shm",
    title: "System V shared memory",
    intro: "A segment is named by a key, found with shmget, mapped with shmat, and lives in its IPC namespace until \
            someone removes it. Nothing removes it by itself: a crashed program leaves its segments behind.",
    files: &[get::PROBES],
    excluded: &[],
};
