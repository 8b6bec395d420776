//! Chapter 5: synchronisation in shared memory.

mod memory;
mod places;
mod tools;

use shmcheck_probe::Chapter;

/// The chapter.
pub const CHAPTER: Chapter = Chapter {
    number: 5,
    name: "sync",
    title: "Synchronisation in shared memory",
    intro: "",
    files: &[places::PROBES],
    excluded: &[],
};
