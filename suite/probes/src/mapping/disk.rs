//! The file system the cell works on: is a shared mapping there one memory with read(2), write(2) and other processes?

use super::common::{RW, page, probe};
use libc::{MAP_SHARED, O_CLOEXEC, O_RDWR};
use shmcheck_probe::{Context, Kind, Map, Need, Outcome, Probe, Stop, Sys, man, posix, procfs, sys};
use std::os::fd::{AsRawFd, OwnedFd};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[&STORE_READ, &WRITE_SEEN, &BETWEEN, &SYNCED];

/// What these probes have in common.
const BASE: Probe = Probe {
    varies: "network and pass-through file systems (virtiofs, 9p, some FUSE) keep a cache of their own per client or \
             refuse shared mappings with ENODEV",
    fix: "keep mapped files on a local file system: a tmpfs, an emptyDir volume, a local disk",
    needs: &[Need::Scratch],
    kind: Kind::Environment,
    ..probe("", |_| Ok(()))
};

/// A file without a name on the working file system, one page long.
fn scratch(cx: &mut Context) -> Result<OwnedFd, Stop> {
    let Some(place) = procfs::scratch_place() else { return Err(Stop::broken("no place to write to")) };
    let unnamed = sys::open(place, libc::O_TMPFILE | O_RDWR | O_CLOEXEC, 0o600);
    let file = match unnamed {
        Ok(file) => file,
        // Not every file system has files without a name: one with a name that is removed at once.
        Err(_) => {
            let path = format!("{}{}", place.trim_end_matches('/'), cx.fresh_name());
            let file = sys::open(&path, libc::O_CREAT | libc::O_EXCL | O_RDWR | O_CLOEXEC, 0o600)?;
            std::fs::remove_file(&path)?;
            file
        }
    };
    sys::pwrite(file.as_raw_fd(), &vec![b'a'; page()], 0)?;
    Ok(file)
}

const STORE_READ: Probe = Probe {
    title: "on the working file system a store to a mapping is seen by read(2)",
    why: "SQLite in WAL mode keeps its index in such a mapping: without coherence it reports a malformed database",
    spec: &[man("mmap(2)", "MAP_SHARED"), posix("mmap")],
    ..at("map.disk.shared.store-read", store_read)
};
fn store_read(cx: &mut Context) -> Outcome {
    let file = scratch(cx)?;
    let map = cx.expect_ok(|| Map::shared(&file, page()))?;
    map.write_all(50, b"news");
    let seen = cx.elsewhere(|_| {
        let mut bytes = [0; 4];
        sys::pread(file.as_raw_fd(), &mut bytes, 50)?;
        Ok(bytes)
    })?;
    cx.expect_eq("the bytes read", &seen, b"news")
}

const WRITE_SEEN: Probe = Probe {
    title: "on the working file system write(2) is seen in a mapping",
    why: "a follower that maps the leader's file on a shared volume serves yesterday's data",
    spec: &[man("mmap(2)", "MAP_SHARED"), posix("mmap")],
    ..at("map.disk.shared.write-seen", write_seen)
};
fn write_seen(cx: &mut Context) -> Outcome {
    let file = scratch(cx)?;
    let map = cx.expect_ok(|| Map::new(page(), libc::PROT_READ, MAP_SHARED, file.as_raw_fd()))?;
    cx.expect_eq("the byte before", map.read(9), b'a')?;
    cx.elsewhere(|_| Ok(sys::pwrite(file.as_raw_fd(), b"zz", 9)?))?;
    cx.expect_eq("the bytes in the mapping", map.read_all(8, 4), b"azza".to_vec())
}

const BETWEEN: Probe = Probe {
    title: "on the working file system two processes' mappings are one memory",
    why: "boost::interprocess and Java's MappedByteBuffer meet in such files when no /dev/shm was configured",
    spec: &[man("mmap(2)", "MAP_SHARED"), posix("mmap")],
    ..at("map.disk.shared.between-processes", between)
};
fn between(cx: &mut Context) -> Outcome {
    let file = scratch(cx)?;
    let map = cx.expect_ok(|| Map::new(page(), RW, MAP_SHARED, file.as_raw_fd()))?;
    cx.expect_eq("the byte before", map.read(0), b'a')?;
    let childs = cx.elsewhere(|_| {
        let own = Map::shared(&file, page())?;
        own.write(0, b'c');
        Ok(own.read(1))
    })?;
    cx.expect_eq("this process' byte after the other's store", map.read(0), b'c')?;
    cx.expect_eq("the byte nobody stored to", childs, b'a')
}

const SYNCED: Probe = Probe {
    title: "on the working file system msync(MS_SYNC) writes a mapping back",
    why: "a database acknowledges a commit after it; an error here is the last chance to tell the user",
    spec: &[man("msync(2)", "MS_SYNC"), posix("msync")],
    calls: &[Sys::Mmap, Sys::Msync],
    ..at("map.disk.shared.msync-sets-mtime", synced)
};
fn synced(cx: &mut Context) -> Outcome {
    const OLD: i64 = 1_000_000;
    let file = scratch(cx)?;
    let map = cx.expect_ok(|| Map::shared(&file, page()))?;
    sys::set_times(file.as_raw_fd(), OLD)?;
    let start = sys::now_seconds();
    map.write_all(0, b"kept");
    cx.expect_ok(|| sys::msync(map.address(), page(), libc::MS_SYNC))?;
    // A file system that is memory has nothing to write back to: its pages stay dirty.
    let kind = nix::sys::statfs::fstatfs(&file)?.filesystem_type();
    if kind != nix::sys::statfs::TMPFS_MAGIC {
        let dirty = super::common::smaps(map.address(), "Private_Dirty")?;
        cx.expect_eq("Private_Dirty in kB after msync", dirty, 0)?;
    }
    let time = sys::fstat(file.as_raw_fd())?.st_mtime;
    cx.expect("st_mtime after msync", time >= start - 1, format!("about {start}"), time)?;
    map.close()?;
    let mut bytes = [0; 4];
    sys::pread(file.as_raw_fd(), &mut bytes, 0)?;
    cx.expect_eq("the file's bytes", &bytes, b"kept")
}

#[track_caller]
const fn at(id: &'static str, run: fn(&mut Context) -> Outcome) -> Probe {
    Probe { id, run, location: std::panic::Location::caller(), ..BASE }
}
