//! A full /dev/shm: sparse against reserved, who gets ENOSPC and who SIGBUS, and when space comes back.
//!
//! Each probe mounts a file system of a few pages on /dev/shm in its own mount namespace, so that filling it is cheap.

use libc::{ENOSPC, O_CREAT, O_RDWR, SIGBUS};
use shmcheck_probe::{Context, Entry, Isolate, Need, Object, Probe, Stop, Sys, doc, kernel, man, posix, sys};
use sys::tmpfs::room;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &TRUNCATE_OVERCOMMITS,
    &TOUCH_SIGBUS,
    &FALLOCATE_ENOSPC,
    &FALLOCATE_UNDONE,
    &FALLOCATE_WHOLE,
    &POSIX_FALLOCATE_ENOSPC,
    &WRITE_ENOSPC,
    &RESERVED_SURVIVES,
    &READ_NEEDS_NOTHING,
    &PUNCH_MAKES_ROOM,
    &UNLINK_KEEPS,
    &COUNTED,
    &INODES,
    &LINKS,
    &SWAPPED,
];

const NEEDS: &[Need] = &[Need::DevShm];
/// Pages of the small file system.
pub(super) const PAGES: usize = 8;

/// A /dev/shm of `PAGES` pages.
pub(super) fn small(cx: &Context) -> Result<(), Stop> {
    cx.own_dev_shm(&format!("mode=1777,size={}", PAGES * sys::page_size()))
}

/// Free pages of /dev/shm.
pub(super) fn free() -> Result<u64, Stop> {
    Ok(room("/dev/shm")?.free)
}

const TRUNCATE_OVERCOMMITS: Probe = Probe {
    title: "ftruncate beyond the free space succeeds and takes none",
    why: "the set-up of a program passes, and it dies in the middle of its work: PyTorch data loaders, Chrome and \
          PostgreSQL in containers with the default 64 MiB",
    fix: "docker run --shm-size=…; Kubernetes: an emptyDir with medium Memory",
    spec: &[doc("Documentation/filesystems/tmpfs.rst", "size"), man("tmpfs(5)", "size"), doc("moby#2606", "")],
    calls: &[Sys::Ftruncate],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.space.truncate-takes-none", |cx| {
        small(cx)?;
        let held = cx.object(0)?;
        let before = free()?;
        cx.expect_ok(|| sys::ftruncate(held.raw(), (4 * PAGES * sys::page_size()) as i64))?;
        cx.expect_eq("free pages", free()?, before)
    })
};

const TOUCH_SIGBUS: Probe = Probe {
    title: "a store that finds no page raises SIGBUS, at the limit exactly",
    why: "'Bus error (core dumped)' is all that the user of a machine-learning container sees",
    fix: "docker run --shm-size=…; Kubernetes: an emptyDir with medium Memory",
    spec: &[man("mmap(2)", "SIGBUS"), doc("pytorch#5040", ""), kernel("mm/shmem.c", "shmem_fault")],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.space.touch-sigbus", |cx| {
        small(cx)?;
        let (page, pages) = (sys::page_size(), usize::try_from(free()?).unwrap_or(0));
        let held = cx.object((pages + 1) * page)?;
        let map = held.map((pages + 1) * page)?;
        let touched = &map;
        cx.expect_no_signal("touching every page that is free", || {
            (0..pages).for_each(|n| touched.write(n * page, 1));
        })?;
        cx.expect_eq("free pages", free()?, 0)?;
        cx.expect_signal("touching one more", SIGBUS, || touched.write(pages * page, 1))?;
        cx.expect_eq("a page touched before", map.read((pages - 1) * page), 1)
    })
};

const FALLOCATE_ENOSPC: Probe = Probe {
    title: "fallocate beyond the free space fails at once with ENOSPC",
    why: "the one call that tells a program before its work starts that /dev/shm is too small",
    fix: "docker run --shm-size=…; Kubernetes: an emptyDir with medium Memory",
    spec: &[man("fallocate(2)", "ENOSPC"), doc("Documentation/filesystems/tmpfs.rst", "size")],
    calls: &[Sys::Fallocate],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.space.fallocate-enospc", |cx| {
        small(cx)?;
        let page = sys::page_size() as i64;
        // The first takes half, so that the second is refused for what is free, not for what there is in all.
        let half = cx.object(0)?;
        cx.expect_ok(|| sys::fallocate(half.raw(), 0, 0, page * PAGES as i64 / 2))?;
        let held = cx.object(0)?;
        cx.expect_errno(ENOSPC, || sys::fallocate(held.raw(), 0, 0, page * PAGES as i64 - page))?;
        cx.expect_ok(|| sys::fallocate(held.raw(), 0, 0, page))
    })
};

const FALLOCATE_UNDONE: Probe = Probe {
    title: "a refused fallocate leaves nothing allocated",
    why: "a program that tries smaller sizes after a refusal would find the space eaten by its own attempt",
    spec: &[kernel("mm/shmem.c", "shmem_fallocate: shmem_undo_range"), man("fallocate(2)", "ENOSPC")],
    calls: &[Sys::Fallocate],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.space.fallocate-undone", |cx| {
        small(cx)?;
        let page = sys::page_size() as i64;
        let held = cx.object(0)?;
        sys::fallocate(held.raw(), 0, 0, page)?;
        let before = (free()?, held.stat()?.st_size, held.stat()?.st_blocks);
        cx.expect_errno(ENOSPC, || sys::fallocate(held.raw(), 0, page, page * PAGES as i64))?;
        let after = (free()?, held.stat()?.st_size, held.stat()?.st_blocks);
        cx.expect_eq("free pages, size and blocks", after, before)
    })
};

const FALLOCATE_WHOLE: Probe = Probe {
    title: "fallocate of more than the whole file system is ENOSPC",
    why: "--shm-size forgotten: the request exceeds /dev/shm as a whole and must be refused without filling it first",
    varies: "a /dev/shm without a size limit has nothing to refuse by",
    spec: &[man("fallocate(2)", "ENOSPC"), kernel("mm/shmem.c", "shmem_fallocate: max_blocks")],
    calls: &[Sys::Fallocate],
    needs: &[Need::DevShm],
    ..Probe::new("posix.shm.space.fallocate-whole", |cx| {
        let room = room("/dev/shm")?;
        if room.blocks == 0 {
            return Err(Stop::skip("size-limit", "/dev/shm has no size limit"));
        }
        let held = cx.object(0)?;
        let more = i64::try_from((room.blocks + 1) * room.block).unwrap_or(i64::MAX);
        cx.expect_ok(|| sys::ftruncate(held.raw(), more))?;
        cx.expect_errno(ENOSPC, || sys::fallocate(held.raw(), 0, 0, more))?;
        cx.expect_eq("blocks", held.stat()?.st_blocks, 0)
    })
};

const POSIX_FALLOCATE_ENOSPC: Probe = Probe {
    title: "posix_fallocate beyond the free space returns ENOSPC",
    why: "PostgreSQL reports 'No space left on device' for its shared memory instead of crashing, thanks to this",
    spec: &[posix("posix_fallocate"), man("posix_fallocate(3)", "ENOSPC"), doc("docker-library/postgres#416", "")],
    calls: &[Sys::Fallocate],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.space.posix-fallocate", |cx| {
        small(cx)?;
        let page = sys::page_size() as i64;
        let held = cx.object(0)?;
        cx.expect_ok(|| sys::posix_fallocate(held.raw(), 0, page * PAGES as i64))?;
        cx.expect_errno(ENOSPC, || sys::posix_fallocate(held.raw(), page * PAGES as i64, 1))?;
        cx.expect_eq("size", held.stat()?.st_size, page * PAGES as i64)
    })
};

const WRITE_ENOSPC: Probe = Probe {
    title: "write fills the last page, then fails with ENOSPC",
    why: "a program that writes instead of mapping gets an errno where the mapper dies",
    spec: &[man("write(2)", "ENOSPC"), posix("write")],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.space.write-enospc", |cx| {
        small(cx)?;
        let (page, pages) = (sys::page_size(), usize::try_from(free()?).unwrap_or(0));
        let held = cx.object(0)?;
        let bytes = vec![1; (pages + 2) * page];
        let written = cx.expect_ok(|| sys::pwrite(held.raw(), &bytes, 0))?;
        cx.expect_eq("bytes written of more than fit", written, pages * page)?;
        cx.expect_errno(ENOSPC, || sys::pwrite(held.raw(), &bytes[..1], written as i64))?;
        cx.expect_eq("size", held.stat()?.st_size, written as i64)
    })
};

const RESERVED_SURVIVES: Probe = Probe {
    title: "reserved pages can be touched after others filled the rest",
    why: "this is what pre-allocation is bought for: another program's greed must not kill this one",
    spec: &[posix("posix_fallocate"), man("fallocate(2)", "Allocating disk space")],
    calls: &[Sys::Fallocate],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.space.reserved-survives", |cx| {
        small(cx)?;
        let page = sys::page_size();
        let (reserved, greedy) = (cx.object(0)?, cx.object(0)?);
        sys::fallocate(reserved.raw(), 0, 0, 3 * page as i64)?;
        sys::pwrite(greedy.raw(), &vec![1; PAGES * page], 0)?;
        cx.expect_eq("free pages", free()?, 0)?;
        let map = reserved.map(3 * page)?;
        cx.expect_no_signal("touching what was reserved", || map.touch(1))
    })
};

const READ_NEEDS_NOTHING: Probe = Probe {
    title: "read of a hole gives zeros and takes no page",
    why: "a checker that reads a sparse object through must not fill /dev/shm by looking",
    spec: &[kernel("mm/shmem.c", "shmem_file_read_iter"), posix("read")],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.space.read-takes-none", |cx| {
        small(cx)?;
        let page = sys::page_size();
        let held = cx.object(PAGES * page)?;
        let before = free()?;
        let mut bytes = vec![9; PAGES * page];
        cx.expect_eq("bytes read", sys::pread(held.raw(), &mut bytes, 0)?, PAGES * page)?;
        cx.expect_eq("bytes that are not zero", bytes.into_iter().filter(|byte| *byte != 0).count(), 0)?;
        cx.expect_eq("free pages", free()?, before)
    })
};

const PUNCH_MAKES_ROOM: Probe = Probe {
    title: "a punched hole makes room for another object",
    why: "stores that evict by punching serve the next client from that room; otherwise they report a full memory",
    spec: &[man("fallocate(2)", "FALLOC_FL_PUNCH_HOLE")],
    calls: &[Sys::Fallocate],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.space.punch-makes-room", |cx| {
        small(cx)?;
        let page = sys::page_size() as i64;
        let (full, next) = (cx.object(0)?, cx.object(0)?);
        sys::fallocate(full.raw(), 0, 0, page * PAGES as i64)?;
        cx.expect_errno(ENOSPC, || sys::fallocate(next.raw(), 0, 0, page))?;
        sys::fallocate(full.raw(), libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 2 * page, page)?;
        cx.expect_ok(|| sys::fallocate(next.raw(), 0, 0, page))?;
        cx.expect_errno(ENOSPC, || sys::fallocate(next.raw(), 0, page, page))
    })
};

const UNLINK_KEEPS: Probe = Probe {
    title: "space of an unlinked object comes back with its last mapping",
    why: "df shows a full /dev/shm and ls an empty one: some process still has the object mapped",
    spec: &[man("shm_open(3)", "shm_unlink"), posix("shm_unlink"), posix("munmap")],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.space.freed-by-last-mapper", |cx| {
        small(cx)?;
        let page = sys::page_size();
        let before = free()?;
        let held = cx.object(2 * page)?;
        let map = held.map(2 * page)?;
        map.touch(1);
        cx.expect_eq("free pages in use", free()?, before - 2)?;
        sys::shm_unlink(&held.name)?;
        cx.expect_eq("free pages after shm_unlink", free()?, before - 2)?;
        drop(held);
        cx.expect_eq("free pages after close", free()?, before - 2)?;
        map.close()?;
        cx.expect_eq("free pages after munmap", free()?, before)
    })
};

const COUNTED: Probe = Probe {
    title: "statfs shows the size, and every page taken by store or write",
    why: "df, monitoring and the program's own check at start rely on these numbers; some sandboxes report none free",
    spec: &[man("statfs(2)", "DESCRIPTION"), doc("gvisor#146", ""), kernel("mm/shmem.c", "shmem_statfs")],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.space.statfs", |cx| {
        small(cx)?;
        let page = sys::page_size();
        let first = room("/dev/shm")?;
        cx.expect_eq(
            "block size, blocks and free blocks",
            (first.block, first.blocks, first.free),
            (page as u64, PAGES as u64, PAGES as u64),
        )?;
        let held = cx.object(4 * page)?;
        cx.expect_eq("free inodes", room("/dev/shm")?.free_inodes, first.free_inodes - 1)?;
        held.map(page)?.touch(1);
        cx.expect_eq("free after a store", free()?, first.free - 1)?;
        sys::pwrite(held.raw(), b"x", 2 * page as i64)?;
        cx.expect_eq("free after a write", free()?, first.free - 2)?;
        sys::ftruncate(held.raw(), 0)?;
        cx.expect_eq("free after ftruncate to 0", free()?, first.free)
    })
};

const INODES: Probe = Probe {
    title: "out of inodes, shm_open fails with ENOSPC while space is free",
    why: "leaked sem.* files exhaust the inodes: 'No space left on device' with gigabytes free",
    spec: &[man("open(2)", "ENOSPC"), man("tmpfs(5)", "nr_inodes"), doc("OpenIDC/liboauth2#18", "")],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.space.no-inodes", |cx| {
        cx.own_dev_shm("mode=1777,nr_inodes=3")?;
        // The root directory is one of the three.
        let (one, _two) = (cx.object(0)?, cx.object(0)?);
        let absent = cx.fresh_name();
        cx.expect_errno(ENOSPC, || sys::shm_open(&absent, O_CREAT | O_RDWR, 0o600))?;
        cx.expect_ok(|| sys::pwrite(one.raw(), b"still room", 0))?;
        drop(one);
        cx.expect_ok(|| Object::create(absent, 0, 0o600)).map(drop)
    })
};

const LINKS: Probe = Probe {
    title: "out of inodes, a hard link fails with ENOSPC as well",
    why: "each name pins memory of the kernel that nothing can reclaim; the limit must cover names, too",
    spec: &[man("link(2)", "ENOSPC"), kernel("mm/shmem.c", "shmem_link: shmem_reserve_inode")],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.space.links-need-inodes", |cx| {
        cx.own_dev_shm("mode=1777,nr_inodes=3")?;
        let held = cx.object(0)?;
        let (first, second) = (Entry::of(&cx.fresh_name()), Entry::of(&cx.fresh_name()));
        cx.expect_ok(|| sys::tmpfs::link(held.path(), &first.path))?;
        cx.expect_errno(ENOSPC, || sys::tmpfs::link(held.path(), &second.path))?;
        cx.expect_eq("st_nlink", held.stat()?.st_nlink, 2)?;
        drop(first);
        cx.expect_ok(|| sys::tmpfs::link(held.path(), &second.path))
    })
};

const SWAPPED: Probe = Probe {
    title: "content that was paged out comes back unchanged",
    why: "shared memory is swapped like any other; a page lost or mixed up on the way is silent corruption",
    spec: &[man("madvise(2)", "MADV_PAGEOUT"), kernel("mm/shmem.c", "shmem_swapin_folio")],
    calls: &[Sys::Madvise],
    needs: &[Need::DevShm, Need::Swap],
    ..Probe::new("posix.shm.space.swapped", |cx| {
        let (page, pages) = (sys::page_size(), 32);
        let held = cx.object(pages * page)?;
        let map = held.map(pages * page)?;
        (0..pages).for_each(|n| map.write(n * page + n, n as u8 + 1));
        cx.expect_ok(|| sys::madvise(map.address(), map.len(), libc::MADV_PAGEOUT))?;
        let wrong = (0..pages).filter(|n| map.read(n * page + n) != *n as u8 + 1).count();
        cx.expect_eq("pages with other content", wrong, 0)?;
        cx.expect_eq("blocks, in pages", held.stat()?.st_blocks * 512 / page as i64, pages as i64)
    })
};
