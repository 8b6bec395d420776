//! The kinds of memory that processes share, so that every lock is tried in each.

use libc::{O_CLOEXEC, O_CREAT, O_EXCL, O_RDWR, PROT_READ, PROT_WRITE};
use shmcheck_probe::{Context, Isolate, Map, Need, Segment, Stop, sys};
use std::os::fd::OwnedFd;

/// A kind of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// A System V segment.
    Segment,
    /// A POSIX object in /dev/shm.
    Posix,
    /// A memfd.
    Memfd,
    /// `MAP_SHARED | MAP_ANONYMOUS`, inherited by fork.
    Anonymous,
    /// A file on whatever file system holds temporary files.
    File,
    /// Huge pages.
    Huge,
}

/// Memory that every process of a probe can map, with what holds it.
#[derive(Debug)]
pub(super) struct Shared {
    /// The first mapping; peers inherit it.
    pub(super) map: Map,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Segment(Segment),
    Fd(OwnedFd),
    Inherited,
}

impl Memory {
    /// What a probe in this memory needs of the place.
    pub(super) const fn needs(self) -> &'static [Need] {
        match self {
            Self::Segment => &[Need::Call(shmcheck_probe::Sys::Shmget), Need::Call(shmcheck_probe::Sys::Shmat)],
            Self::Posix => &[Need::DevShm],
            Self::Memfd => &[Need::Call(shmcheck_probe::Sys::MemfdCreate)],
            Self::Anonymous | Self::File => &[],
            Self::Huge => &[Need::HugePages { kib: 2048, count: 1 }],
        }
    }

    /// Keys and names want namespaces; memory without either is made anywhere.
    pub(super) const fn isolate(self) -> Isolate {
        match self {
            Self::Segment | Self::Posix => Isolate::Fresh,
            // Two at once would take each other's pages from a small pool.
            Self::Huge => Isolate::CellAlone,
            _ => Isolate::Cell,
        }
    }

    /// One zeroed page of this memory, or one huge page.
    pub(super) fn make(self, cx: &mut Context) -> Result<Shared, Stop> {
        let size = sys::page_size();
        match self {
            Self::Segment => {
                let key = cx.fresh_key();
                let segment = cx.segment(key, size, 0o600)?;
                Ok(Shared { map: segment.attach(0)?, source: Source::Segment(segment) })
            }
            Self::Anonymous => Ok(Shared { map: Map::shared_anonymous(size)?, source: Source::Inherited }),
            Self::Huge => {
                let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
                Ok(Shared { map: Map::new(2 << 20, PROT_READ | PROT_WRITE, flags, -1)?, source: Source::Inherited })
            }
            Self::Posix => {
                let path = format!("/dev/shm{}", cx.fresh_name());
                let fd = unlinked(&path)?;
                Shared::of(fd, size)
            }
            Self::Memfd => {
                let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
                Shared::of(nix::sys::memfd::memfd_create(c"shmcheck", flags)?, size)
            }
            Self::File => Shared::of(temporary(cx)?, size),
        }
    }
}

impl Shared {
    fn of(fd: OwnedFd, size: usize) -> Result<Self, Stop> {
        sys::ftruncate(std::os::fd::AsRawFd::as_raw_fd(&fd), i64::try_from(size).unwrap_or(0))?;
        Ok(Self { map: Map::shared(&fd, size)?, source: Source::Fd(fd) })
    }

    /// The segment's identifier, where it is one.
    pub(super) fn segment_id(&self) -> Option<i32> {
        match &self.source {
            Source::Segment(segment) => Some(segment.id),
            _ => None,
        }
    }

    /// The same memory mapped once more, at another address: two programs never agree on one.
    pub(super) fn again(&self) -> Result<Map, Stop> {
        match &self.source {
            Source::Segment(segment) => Ok(segment.attach(0)?),
            Source::Fd(fd) => Ok(Map::shared(fd, self.map.len())?),
            // Nothing names it: a peer uses the addresses that fork gave it.
            Source::Inherited => Ok(Map::view(self.map.address(), self.map.len())),
        }
    }
}

/// A new file whose name is gone again.
fn unlinked(path: &str) -> Result<OwnedFd, Stop> {
    let fd = sys::open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)?;
    std::fs::remove_file(path)?;
    Ok(fd)
}

/// A nameless file outside of tmpfs where there is a folder for it, else on whatever can be written.
pub(super) fn temporary(cx: &mut Context) -> Result<OwnedFd, Stop> {
    let name = cx.fresh_name();
    let mut refused = Vec::new();
    for folder in ["/tmp", "/var/tmp", "", "/run"] {
        let path = format!("{folder}{name}");
        match sys::open(&path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600) {
            Ok(fd) => {
                std::fs::remove_file(&path)?;
                return Ok(fd);
            }
            Err(e) => refused.push(format!("{folder}/ → {}", e.name())),
        }
    }
    Err(Stop::skip("writable-file-system", refused.join(", ")))
}
