//! The object as a file: what fstat says, times, read and write beside mappings, holes, further names.

use super::open::{exists, object_name};
use libc::{EEXIST, EINVAL, ENOENT, ENXIO, O_RDONLY, O_RDWR, RENAME_EXCHANGE, RENAME_NOREPLACE, SEEK_DATA, SEEK_HOLE};
use shmcheck_probe::{Entry, Map, Need, Probe, man, posix, procfs, sys};
use std::os::fd::AsRawFd;
use sys::tmpfs::{lseek, rename};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &TYPE,
    &BLOCKS,
    &LINK_COUNT,
    &MAPS_NAME,
    &FUTIMENS,
    &WRITE_TIMES,
    &CHANGE_TIME,
    &WRITE_SEEN,
    &STORE_SEEN,
    &READ_END,
    &APPEND,
    &FSYNC,
    &SEEK_DATA_HOLE,
    &SEEK_END,
    &SEEK_PUNCHED,
    &HARD_LINK,
    &RENAMED,
    &RENAME_KEEPS,
    &RENAME_SWAPS,
    &RENAME_REPLACES,
];

const NEEDS: &[Need] = &[Need::DevShm];

const TYPE: Probe = Probe {
    title: "fstat shows a regular file with one link, blocks of a page",
    why: "programs tell memory from sockets and pipes by S_ISREG and size their copies by st_blksize",
    spec: &[posix("shm_open"), man("shm_open(3)", "DESCRIPTION"), man("stat(2)", "DESCRIPTION")],
    needs: NEEDS,
    ..Probe::new("posix.shm.file.fstat", |cx| {
        let stat = cx.object(5_000)?.stat()?;
        cx.expect_eq("type", stat.st_mode & libc::S_IFMT, libc::S_IFREG)?;
        cx.expect_eq("st_nlink", stat.st_nlink, 1)?;
        cx.expect_eq("st_size", stat.st_size, 5_000)?;
        let page = sys::page_size() as i64;
        cx.expect("st_blksize", stat.st_blksize >= page && stat.st_blksize % page == 0, "whole pages", stat.st_blksize)
    })
};

const BLOCKS: Probe = Probe {
    title: "st_blocks counts the pages that were touched, in 512-byte units",
    why: "du on /dev/shm shows who really uses memory; the size alone says nothing about a sparse object",
    spec: &[man("stat(2)", "st_blocks"), man("shm_open(3)", "fstat")],
    needs: NEEDS,
    ..Probe::new("posix.shm.file.blocks", |cx| {
        let page = sys::page_size();
        let held = cx.object(10 * page)?;
        let map = held.map(10 * page)?;
        for (n, offset) in [9, 0, 4].into_iter().enumerate() {
            map.write(offset * page, 1);
            cx.expect_eq("bytes in blocks", held.stat()?.st_blocks * 512, ((n + 1) * page) as i64)?;
        }
        Ok(())
    })
};

const LINK_COUNT: Probe = Probe {
    title: "the link count of an open object is 0 after shm_unlink",
    why: "a client finds out that its server has replaced the object by looking for a link count of 0",
    spec: &[man("stat(2)", "st_nlink"), posix("shm_unlink")],
    needs: NEEDS,
    ..Probe::new("posix.shm.file.link-count-0", |cx| {
        let held = cx.object(0)?;
        cx.expect_eq("st_nlink before", held.stat()?.st_nlink, 1)?;
        sys::shm_unlink(&held.name)?;
        cx.expect_eq("st_nlink after", held.stat()?.st_nlink, 0)
    })
};

const MAPS_NAME: Probe = Probe {
    title: "/proc/PID/maps names the object, and says when it is deleted",
    why: "lsof, pmap and a core file tell an administrator whose memory this is and that its name is gone",
    spec: &[man("proc_pid_maps(5)", "pathname")],
    needs: NEEDS,
    ..Probe::new("posix.shm.file.name-in-maps", |cx| {
        let held = cx.object(8)?;
        let map = held.map(8)?;
        let entry =
            |address| Ok::<_, shmcheck_probe::Stop>(procfs::mapping_at(address)?.map(|m| (m.name, m.perms, m.inode)));
        let inode = held.stat()?.st_ino;
        let wanted = |name: String| Some((name, "rw-s".to_owned(), inode));
        cx.expect_eq("mapping", entry(map.address())?, wanted(held.path().to_owned()))?;
        sys::shm_unlink(&held.name)?;
        cx.expect_eq("mapping after shm_unlink", entry(map.address())?, wanted(format!("{} (deleted)", held.path())))
    })
};

const FUTIMENS: Probe = Probe {
    title: "futimens sets access and modification time",
    why: "heartbeats by touching an object: the watchdog restarts a healthy service when times do not move",
    spec: &[man("futimens(3)", "DESCRIPTION"), posix("futimens")],
    needs: NEEDS,
    ..Probe::new("posix.shm.file.futimens", |cx| {
        let held = cx.object(0)?;
        cx.expect_ok(|| sys::tmpfs::futimens(held.raw(), 1_234_567, 987_654_321))?;
        let stat = held.stat()?;
        cx.expect_eq("st_atime and st_mtime", (stat.st_atime, stat.st_mtime), (1_234_567, 987_654_321))
    })
};

const WRITE_TIMES: Probe = Probe {
    title: "write updates the modification time",
    why: "readers that poll the time for news sleep for ever when it stands still",
    spec: &[posix("write"), man("write(2)", "DESCRIPTION")],
    needs: NEEDS,
    ..Probe::new("posix.shm.file.write-updates-mtime", |cx| {
        let held = cx.object(8)?;
        let now = sys::now_seconds();
        sys::tmpfs::futimens(held.raw(), 0, 0)?;
        sys::pwrite(held.raw(), b"x", 0)?;
        let time = held.stat()?.st_mtime;
        cx.expect("st_mtime", (now..=now + 60).contains(&time), format!("{now} or later"), time)
    })
};

const CHANGE_TIME: Probe = Probe {
    title: "the change time moves with the attributes and cannot be set",
    why: "an audit trusts the change time: an intruder may set the others back",
    spec: &[man("inode(7)", "ctime"), posix("fchmod")],
    needs: NEEDS,
    ..Probe::new("posix.shm.file.change-time", |cx| {
        let held = cx.object(0)?;
        let before = stamp(&held.stat()?);
        // Coarse clocks tick every few milliseconds: waiting for one is waiting for the clock, not for the kernel.
        let time = || sys::clock(libc::CLOCK_REALTIME_COARSE);
        let start = time();
        cx.until("the coarse clock ticks", || Ok(time() != start))?;
        sys::tmpfs::futimens(held.raw(), 0, 0)?;
        let after = stamp(&held.stat()?);
        cx.expect("st_ctime after futimens", after > before, format!("later than {before:?}"), after)
    })
};

fn stamp(stat: &libc::stat) -> (i64, i64) {
    (stat.st_ctime, stat.st_ctime_nsec)
}

const WRITE_SEEN: Probe = Probe {
    title: "write is seen at once through another process's mapping",
    why: "shell scripts and Java write into the object that a C program has mapped",
    spec: &[posix("mmap"), man("shm_open(3)", "DESCRIPTION")],
    needs: NEEDS,
    ..Probe::new("posix.shm.file.write-seen-by-mapping", |cx| {
        let held = cx.object(64)?;
        let map = held.map(64)?;
        let name = held.name.clone();
        cx.elsewhere(move |_| {
            let fd = sys::shm_open(&name, O_RDWR, 0)?;
            Ok(sys::pwrite(fd.as_raw_fd(), b"written", 20)?)
        })?;
        cx.expect_eq("mapped bytes", map.read_all(19, 9), b"\0written\0".to_vec())
    })
};

const STORE_SEEN: Probe = Probe {
    title: "a store is seen at once through another process's read",
    why: "cat and hexdump on /dev/shm must show the present state of a live buffer",
    spec: &[posix("mmap"), man("shm_open(3)", "DESCRIPTION")],
    needs: NEEDS,
    ..Probe::new("posix.shm.file.store-seen-by-read", |cx| {
        let held = cx.object(64)?;
        let map = held.map(64)?;
        for value in [1_u8, 2, 3] {
            map.write(33, value);
            let name = held.name.clone();
            let seen = cx.elsewhere(move |_| {
                let fd = sys::shm_open(&name, O_RDONLY, 0)?;
                Ok(super::truncate::byte_at(fd.as_raw_fd(), 33)?)
            })?;
            cx.expect_eq("byte read", seen, value)?;
        }
        Ok(())
    })
};

const READ_END: Probe = Probe {
    title: "read stops at the size, write beyond it grows the object",
    why: "a copy of an object through read must be as long as the object, not as long as its last page",
    spec: &[posix("read"), posix("write")],
    needs: NEEDS,
    ..Probe::new("posix.shm.file.read-to-end", |cx| {
        let held = cx.object(100)?;
        let mut bytes = [1; 200];
        cx.expect_eq("bytes read from 60", sys::pread(held.raw(), &mut bytes, 60)?, 40)?;
        cx.expect_eq("bytes read at the end", sys::pread(held.raw(), &mut bytes, 100)?, 0)?;
        cx.expect_eq("bytes read behind the end", sys::pread(held.raw(), &mut bytes, 1 << 30)?, 0)?;
        sys::pwrite(held.raw(), b"end", 9_000)?;
        cx.expect_eq("size", held.stat()?.st_size, 9_003)
    })
};

const APPEND: Probe = Probe {
    title: "O_APPEND writers of two processes do not overwrite each other",
    why: "several workers log into one object; lost lines are found only when they are needed",
    spec: &[posix("write"), man("open(2)", "O_APPEND")],
    needs: NEEDS,
    ..Probe::new("posix.shm.file.append", |cx| {
        let held = cx.object(0)?;
        const LINES: usize = 64;
        let append = |name: String, byte: u8| {
            move |_: &mut shmcheck_probe::Context| {
                let fd = sys::shm_open(&name, O_RDWR | libc::O_APPEND, 0)?;
                for _ in 0..LINES {
                    sys::tmpfs::write(fd.as_raw_fd(), &[byte; 7])?;
                }
                Ok(())
            }
        };
        let other = cx.fork(append(held.name.clone(), b'a'))?;
        append(held.name.clone(), b'b')(cx)?;
        other.join()?;
        let mut content = vec![0; 2 * LINES * 7 + 1];
        let length = sys::pread(held.raw(), &mut content, 0)?;
        cx.expect_eq("bytes in all", length, 2 * LINES * 7)?;
        let torn = content[..length].chunks(7).filter(|line| line.iter().any(|b| *b != line[0])).count();
        cx.expect_eq("torn lines", torn, 0)
    })
};

const FSYNC: Probe = Probe {
    title: "fsync succeeds, also on a read-only descriptor",
    why: "libraries sync whatever file they are given; shared memory must not make them fail",
    spec: &[man("fsync(2)", "DESCRIPTION"), posix("fsync")],
    needs: NEEDS,
    ..Probe::new("posix.shm.file.fsync", |cx| {
        let held = cx.object(8)?;
        sys::pwrite(held.raw(), b"x", 0)?;
        cx.expect_ok(|| sys::tmpfs::fsync(held.raw()))?;
        let reader = held.open(O_RDONLY)?;
        cx.expect_ok(|| sys::tmpfs::fsync(reader.as_raw_fd()))?;
        cx.expect_eq("content", super::truncate::byte_at(held.raw(), 0)?, b'x')
    })
};

const SEEK_DATA_HOLE: Probe = Probe {
    title: "SEEK_DATA and SEEK_HOLE find the pages that hold data",
    why: "tar and checkpoint tools copy a sparse object by its data; without them a terabyte of zeros is written",
    spec: &[man("lseek(2)", "Seeking file data and holes")],
    needs: NEEDS,
    ..Probe::new("posix.shm.file.seek-data-hole", |cx| {
        let page = sys::page_size() as i64;
        let held = cx.object(8 * page as usize)?;
        for data in [2, 3, 6] {
            sys::pwrite(held.raw(), b"d", data * page + 5)?;
        }
        for (from, whence, wanted) in [
            (0, SEEK_DATA, 2 * page),
            (0, SEEK_HOLE, 0),
            (2 * page, SEEK_DATA, 2 * page),
            (2 * page + 9, SEEK_DATA, 2 * page + 9),
            (2 * page, SEEK_HOLE, 4 * page),
            (4 * page, SEEK_DATA, 6 * page),
            (6 * page, SEEK_HOLE, 7 * page),
            (7 * page, SEEK_HOLE, 7 * page),
        ] {
            let got = cx.expect_ok(|| lseek(held.raw(), from, whence))?;
            cx.expect_eq(&format!("lseek({from}, whence {whence})"), got, wanted)?;
        }
        cx.expect_eq("offset left by the last", lseek(held.raw(), 0, libc::SEEK_CUR)?, 7 * page)
    })
};

const SEEK_END: Probe = Probe {
    title: "SEEK_DATA and SEEK_HOLE at or behind the end fail with ENXIO",
    why: "copy loops end by this errno; another one makes them fail or spin",
    spec: &[man("lseek(2)", "ENXIO")],
    needs: NEEDS,
    ..Probe::new("posix.shm.file.seek-enxio", |cx| {
        let page = sys::page_size() as i64;
        let held = cx.object(3 * page as usize)?;
        sys::pwrite(held.raw(), b"d", 0)?;
        cx.expect_errno(ENXIO, || lseek(held.raw(), page, SEEK_DATA))?;
        for whence in [SEEK_DATA, SEEK_HOLE] {
            for offset in [3 * page, 4 * page, i64::MAX] {
                cx.expect_errno(ENXIO, || lseek(held.raw(), offset, whence))?;
            }
            cx.expect_errno(ENXIO, || lseek(held.raw(), -1, whence))?;
        }
        cx.expect_errno(EINVAL, || lseek(held.raw(), -1, libc::SEEK_SET))?;
        sys::pwrite(held.raw(), &vec![1; 3 * page as usize], 0)?;
        cx.expect_eq("first hole of a full object", lseek(held.raw(), 0, SEEK_HOLE)?, 3 * page)
    })
};

const SEEK_PUNCHED: Probe = Probe {
    title: "a punched range is a hole for SEEK_HOLE",
    why: "a store that frees slots by punching and is copied sparsely keeps its size on the backup small",
    spec: &[man("lseek(2)", "Seeking file data and holes"), man("fallocate(2)", "FALLOC_FL_PUNCH_HOLE")],
    calls: &[shmcheck_probe::Sys::Fallocate],
    needs: NEEDS,
    ..Probe::new("posix.shm.file.seek-punched", |cx| {
        let page = sys::page_size() as i64;
        let held = cx.object(0)?;
        sys::pwrite(held.raw(), &vec![1; 4 * page as usize], 0)?;
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        cx.expect_ok(|| sys::fallocate(held.raw(), punch, page, 2 * page))?;
        cx.expect_eq("hole", lseek(held.raw(), 0, SEEK_HOLE)?, page)?;
        cx.expect_eq("data behind it", lseek(held.raw(), page, SEEK_DATA)?, 3 * page)
    })
};

const HARD_LINK: Probe = Probe {
    title: "a hard link is a second name of the object",
    why: "a service publishes one buffer under an old and a new name while its clients are upgraded",
    varies: "fs.protected_hardlinks refuses links to files of others",
    spec: &[man("link(2)", "DESCRIPTION"), posix("link")],
    needs: NEEDS,
    ..Probe::new("posix.shm.file.hard-link", |cx| {
        let held = cx.object(8)?;
        let second = Entry::of(&cx.fresh_name());
        cx.expect_ok(|| sys::tmpfs::link(held.path(), &second.path))?;
        cx.expect_eq("st_nlink", held.stat()?.st_nlink, 2)?;
        cx.expect_errno(EEXIST, || sys::tmpfs::link(held.path(), &second.path))?;
        sys::shm_unlink(&held.name)?;
        cx.expect_eq("st_nlink after unlinking the first", held.stat()?.st_nlink, 1)?;
        let found = cx.expect_ok(|| sys::shm_open(&object_name(&second), O_RDWR, 0))?;
        Map::shared(&found, 8)?.write(0, 4);
        cx.expect_eq("byte through the first descriptor", held.map(8)?.read(0), 4)
    })
};

const RENAMED: Probe = Probe {
    title: "a renamed object is found under its new name only",
    why: "publishing complete data by rename: clients must see either no object or a finished one",
    spec: &[man("rename(2)", "DESCRIPTION"), posix("rename")],
    needs: NEEDS,
    ..Probe::new("posix.shm.file.rename", |cx| {
        let held = cx.object(8)?;
        let new = Entry::of(&cx.fresh_name());
        cx.expect_ok(|| rename(held.path(), &new.path, 0))?;
        cx.expect_errno(ENOENT, || held.open(O_RDWR))?;
        let found = cx.expect_ok(|| sys::shm_open(&object_name(&new), O_RDWR, 0))?;
        cx.expect_eq("inode", sys::fstat(found.as_raw_fd())?.st_ino, held.stat()?.st_ino)
    })
};

const RENAME_KEEPS: Probe = Probe {
    title: "RENAME_NOREPLACE does not replace an existing object: EEXIST",
    why: "of two servers that publish under one name exactly one must win",
    spec: &[man("rename(2)", "RENAME_NOREPLACE")],
    needs: NEEDS,
    ..Probe::new("posix.shm.file.rename-noreplace", |cx| {
        let (one, two) = (cx.object(1)?, cx.object(2)?);
        cx.expect_errno(EEXIST, || rename(one.path(), two.path(), RENAME_NOREPLACE))?;
        cx.expect_eq("sizes by name", sizes(one.path(), two.path())?, (1, 2))?;
        let free = Entry::of(&cx.fresh_name());
        cx.expect_ok(|| rename(one.path(), &free.path, RENAME_NOREPLACE))?;
        cx.expect("the new name", exists(&free.path), "present", "absent")
    })
};

const RENAME_SWAPS: Probe = Probe {
    title: "RENAME_EXCHANGE swaps two objects in one step",
    why: "double buffering by name: a client that opens at any moment finds one of the two, never none",
    spec: &[man("rename(2)", "RENAME_EXCHANGE")],
    needs: NEEDS,
    ..Probe::new("posix.shm.file.rename-exchange", |cx| {
        let (one, two) = (cx.object(1)?, cx.object(2)?);
        cx.expect_ok(|| rename(one.path(), two.path(), RENAME_EXCHANGE))?;
        cx.expect_eq("sizes by name", sizes(one.path(), two.path())?, (2, 1))
    })
};

const RENAME_REPLACES: Probe = Probe {
    title: "rename over an object leaves its mappers with the old memory",
    why: "a configuration block is replaced under running readers: they keep a consistent old one until they reopen",
    spec: &[man("rename(2)", "DESCRIPTION"), posix("rename")],
    needs: NEEDS,
    ..Probe::new("posix.shm.file.rename-replaces", |cx| {
        let (old, new) = (cx.object(8)?, cx.object(8)?);
        let map = old.map(8)?;
        map.write(0, 1);
        new.map(8)?.write(0, 2);
        cx.expect_ok(|| rename(new.path(), old.path(), 0))?;
        cx.expect_eq("byte in the old mapping", map.read(0), 1)?;
        cx.expect_eq("st_nlink of the old object", old.stat()?.st_nlink, 0)?;
        let found = old.open(O_RDWR)?;
        cx.expect_eq("byte under the name", Map::shared(&found, 8)?.read(0), 2)
    })
};

fn sizes(one: &str, two: &str) -> Result<(u64, u64), shmcheck_probe::Stop> {
    Ok((std::fs::metadata(one)?.len(), std::fs::metadata(two)?.len()))
}
