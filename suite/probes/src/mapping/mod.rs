//! Chapter 4: mappings.

use shmcheck_probe::Chapter;

/// The chapter.
pub const CHAPTER: Chapter =
    Chapter { number: 4, name: "mapping", title: "Mappings", intro: "", files: &[], excluded: &[] };
