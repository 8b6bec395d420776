//! Chapter 2: System V semaphores.

use shmcheck_probe::Chapter;

/// The chapter.
pub const CHAPTER: Chapter =
    Chapter { number: 2, name: "sysv-sem", title: "System V semaphores", intro: "", files: &[], excluded: &[] };
