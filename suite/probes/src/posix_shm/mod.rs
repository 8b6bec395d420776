//! Chapter 3: POSIX shared memory.

use shmcheck_probe::Chapter;

/// The chapter.
pub const CHAPTER: Chapter =
    Chapter { number: 3, name: "posix-shm", title: "POSIX shared memory", intro: "", files: &[], excluded: &[] };
