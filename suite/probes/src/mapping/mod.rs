//! Chapter 4: mappings.

mod anonymous;
mod common;
mod disk;
mod end_of_file;
mod file;
mod flags;
mod place;
mod populate;
mod private;
mod protect;
mod protect_refused;
mod refused;
mod unmap;

use shmcheck_probe::Chapter;

/// The chapter.
pub const CHAPTER: Chapter = Chapter {
    number: 4,
    name: "mapping",
    title: "Mappings",
    intro: "mmap puts an object into a process's address space: a file, or memory without one. A shared mapping is one \
            memory for everybody who maps the object, for its readers and for its writers; a private one copies a page \
            at the first store. Nothing is allocated before it is touched, so what goes wrong goes wrong late: not as \
            an errno of mmap, but as SIGBUS or SIGSEGV in the middle of a program.",
    files: &[
        anonymous::PROBES,
        file::PROBES,
        private::PROBES,
        end_of_file::PROBES,
        disk::PROBES,
        refused::PROBES,
        flags::PROBES,
        place::PROBES,
        populate::PROBES,
        protect::PROBES,
        protect_refused::PROBES,
        unmap::PROBES,
    ],
    excluded: &[],
};
