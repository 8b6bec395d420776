//! The catalogue: a folder per chapter of the roadmap, a file per call or rule.
//!
//! A probe is a constant in the table of its file; the chapter's `mod.rs` lists the files. Nothing else needs to
//! know of it.

pub mod mapping;
pub mod memfd;
pub mod posix_shm;
pub mod queues;
pub mod source;
pub mod sync;
pub mod sysv_sem;
pub mod sysv_shm;

use shmcheck_probe::{Chapter, Probe};

/// The chapters in the roadmap's order.
pub const CHAPTERS: &[&Chapter] = &[
    &sysv_shm::CHAPTER,
    &sysv_sem::CHAPTER,
    &posix_shm::CHAPTER,
    &mapping::CHAPTER,
    &sync::CHAPTER,
    &queues::CHAPTER,
    &memfd::CHAPTER,
];

/// Every probe, in the order of the chapters and of the source.
pub fn catalogue() -> Vec<&'static Probe> {
    CHAPTERS.iter().flat_map(|chapter| chapter.probes()).collect()
}

/// The chapter a probe belongs to.
pub fn chapter_of(probe: &Probe) -> Option<&'static Chapter> {
    CHAPTERS.iter().copied().find(|chapter| chapter.probes().any(|other| other.id == probe.id))
}

/// Places of the table below: a power of two well above the number of probes.
const PLACES: usize = 8192;

/// A duplicate id fails the build: ids are entered by their hash into an open table, where an equal one is met. A
/// catalogue that outgrows the numbers in keys fails it as well.
const _: () = {
    let mut seen = [0_u64; PLACES];
    let mut count = 0_u32;
    let mut chapter = 0;
    while chapter < CHAPTERS.len() {
        let files = CHAPTERS[chapter].files;
        let mut file = 0;
        while file < files.len() {
            let mut n = 0;
            while n < files[file].len() {
                let id = hash(files[file][n].id.as_bytes());
                let mut place = id as usize % PLACES;
                while seen[place] != 0 {
                    assert!(seen[place] != id, "two probes have the same id");
                    place = (place + 1) % PLACES;
                }
                seen[place] = id;
                count += 1;
                n += 1;
            }
            file += 1;
        }
        chapter += 1;
    }
    assert!(count <= shmcheck_probe::key::PROBES, "keys have no room for so many probes");
};

/// FNV-1a, 64 bits.
const fn hash(bytes: &[u8]) -> u64 {
    let mut value = 0xcbf2_9ce4_8422_2325_u64;
    let mut n = 0;
    while n < bytes.len() {
        value = (value ^ bytes[n] as u64).wrapping_mul(0x0100_0000_01b3);
        n += 1;
    }
    value
}
