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

/// A duplicate id fails the build: every id's hash is compared with every other's.
const _: () = {
    let mut seen = [0_u64; 2048];
    let mut count = 0;
    let mut chapter = 0;
    while chapter < CHAPTERS.len() {
        let files = CHAPTERS[chapter].files;
        let mut file = 0;
        while file < files.len() {
            let mut n = 0;
            while n < files[file].len() {
                seen[count] = hash(files[file][n].id.as_bytes());
                count += 1;
                n += 1;
            }
            file += 1;
        }
        chapter += 1;
    }
    let mut a = 0;
    while a < count {
        let mut b = a + 1;
        while b < count {
            assert!(seen[a] != seen[b], "two probes have the same id");
            b += 1;
        }
        a += 1;
    }
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
