//! Chapter 5: message queues.

use shmcheck_probe::Chapter;

/// The chapter.
pub const CHAPTER: Chapter =
    Chapter { number: 5, name: "queues", title: "Message queues", intro: "", files: &[], excluded: &[] };
