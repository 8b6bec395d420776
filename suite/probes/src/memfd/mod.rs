//! Chapter 6: memfd and seals.

use shmcheck_probe::Chapter;

/// The chapter.
pub const CHAPTER: Chapter =
    Chapter { number: 6, name: "memfd", title: "memfd and seals", intro: "", files: &[], excluded: &[] };
