//! Chapter 5: synchronisation in shared memory.

use shmcheck_probe::Chapter;

/// The chapter.
pub const CHAPTER: Chapter = Chapter {
    number: 5,
    name: "sync",
    title: "Synchronisation in shared memory",
    intro: "",
    files: &[],
    excluded: &[],
};
