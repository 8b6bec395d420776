//! A segment as mapped memory: protection, advice, residency.

use super::parts::{Holder, page, resident, segment};
use libc::{EACCES, MADV_DONTFORK, MADV_DONTNEED, MADV_REMOVE, MS_ASYNC, MS_SYNC};
use libc::{PROT_NONE, PROT_READ, PROT_WRITE, SIGSEGV};
use shmcheck_probe::sys::{self, SHM_RDONLY};
use shmcheck_probe::{Map, Need, Probe, Segment, Stop, Sys, kernel, man, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &READ_ONLY,
    &NO_ACCESS,
    &PROTECTION_OWN,
    &SYNCED,
    &DONTNEED,
    &REMOVE,
    &REMOVE_FREES,
    &REMOVE_READ_ONLY,
    &DONTFORK,
    &RESIDENT,
    &PAGED_OUT,
    &LOCKED_AT_ATTACH,
    &BEYOND_4G,
];

const READ_ONLY: Probe = Probe {
    title: "mprotect to read makes a store to the segment raise SIGSEGV",
    why: "databases protect their pool between updates, so that a stray pointer dies instead of corrupting",
    spec: &[man("mprotect(2)", "PROT_READ"), man("shmop(2)", "DESCRIPTION")],
    calls: &[Sys::Shmat, Sys::Mprotect],
    ..Probe::new("sysv.shm.mem.mprotect-read", |cx| {
        let made = segment(cx, 2, 0o600)?;
        let map = made.attach(0)?;
        map.touch(5);
        sys::mprotect(map.address(), page(), PROT_READ)?;
        cx.expect_signal("a store to the protected page", SIGSEGV, || map.write(0, 6))?;
        cx.expect_no_signal("a store to the other page", || map.write(page(), 6))?;
        cx.expect_eq("bytes of both pages", (map.read(0), map.read(page())), (5, 6))?;
        sys::mprotect(map.address(), page(), PROT_READ | PROT_WRITE)?;
        cx.expect_no_signal("a store when it is writable again", || map.write(0, 7))?;
        cx.expect_eq("byte", map.read(0), 7)
    })
};

const NO_ACCESS: Probe = Probe {
    title: "mprotect to none makes a load from the segment raise SIGSEGV",
    why: "guard pages inside a segment catch overruns between its parts",
    spec: &[man("mprotect(2)", "PROT_NONE")],
    calls: &[Sys::Shmat, Sys::Mprotect],
    ..Probe::new("sysv.shm.mem.mprotect-none", |cx| {
        let made = segment(cx, 1, 0o600)?;
        let map = made.attach(0)?;
        map.write(0, 3);
        sys::mprotect(map.address(), page(), PROT_NONE)?;
        cx.expect_signal("a load", SIGSEGV, || _ = map.read(0))?;
        // Protection is the mapping's: through another the content is there.
        cx.expect_eq("byte through another attach", made.attach(0)?.read(0), 3)
    })
};

const PROTECTION_OWN: Probe = Probe {
    title: "mprotect changes one process's attach, not the others'",
    why: "a worker that protects itself must not make its colleagues fault",
    spec: &[man("mprotect(2)", "DESCRIPTION")],
    calls: &[Sys::Shmat, Sys::Mprotect],
    ..Probe::new("sysv.shm.mem.mprotect-own", |cx| {
        let made = segment(cx, 1, 0o600)?;
        let map = made.attach(0)?;
        let peer = Holder::of(cx, made.id, |address| {
            Map::view(address, page()).write(0, 4);
            Ok(())
        })?;
        sys::mprotect(map.address(), page(), PROT_READ)?;
        peer.act()?;
        cx.expect_eq("byte stored by the peer", map.read(0), 4)?;
        peer.end()
    })
};

const SYNCED: Probe = Probe {
    title: "msync of a segment succeeds without touching its content",
    why: "storage libraries call msync on whatever memory they were given; a segment has no file, yet no error either",
    spec: &[man("msync(2)", "DESCRIPTION"), kernel("ipc/shm.c", "shm_fsync")],
    calls: &[Sys::Shmat, Sys::Msync],
    ..Probe::new("sysv.shm.mem.msync", |cx| {
        let made = segment(cx, 2, 0o600)?;
        let map = made.attach(0)?;
        map.touch(8);
        for flags in [MS_SYNC, MS_ASYNC] {
            cx.expect_ok(|| sys::msync(map.address(), 2 * page(), flags))?;
        }
        cx.expect_eq("bytes of both pages", (map.read(0), map.read(page())), (8, 8))
    })
};

const DONTNEED: Probe = Probe {
    title: "MADV_DONTNEED drops no content of a segment",
    why: "allocators that give pages back this way would zero a shared cache under everyone's feet",
    spec: &[man("madvise(2)", "MADV_DONTNEED")],
    calls: &[Sys::Shmat, Sys::Madvise],
    ..Probe::new("sysv.shm.mem.dontneed-keeps", |cx| {
        let made = segment(cx, 2, 0o600)?;
        let map = made.attach(0)?;
        map.touch(9);
        cx.expect_ok(|| sys::madvise(map.address(), 2 * page(), MADV_DONTNEED))?;
        cx.expect_eq("bytes of both pages", (map.read(0), map.read(page())), (9, 9))
    })
};

const REMOVE: Probe = Probe {
    title: "MADV_REMOVE zeroes the range for every process",
    why: "this is how a buffer pool shrinks while it is in use: the pages read zero for all, the rest stays",
    spec: &[man("madvise(2)", "MADV_REMOVE"), kernel("ipc/shm.c", "shm_fallocate")],
    calls: &[Sys::Shmat, Sys::Madvise],
    ..Probe::new("sysv.shm.mem.remove-zeroes", |cx| {
        let made = segment(cx, 3, 0o600)?;
        let map = made.attach(0)?;
        map.touch(9);
        cx.elsewhere(|cx| cx.expect_ok(|| sys::madvise(map.address() + page(), page(), MADV_REMOVE)))?;
        let bytes: Vec<u8> = (0..3).map(|n| map.read(n * page())).collect();
        cx.expect_eq("first bytes of the pages", bytes, vec![9, 0, 9])
    })
};

const REMOVE_FREES: Probe = Probe {
    title: "MADV_REMOVE gives the pages of a segment back",
    why: "shrinking a pool must lower the memory charged to the container, or the OOM killer comes all the same",
    spec: &[man("madvise(2)", "MADV_REMOVE")],
    calls: &[Sys::Shmat, Sys::Madvise],
    needs: &[Need::Path("/proc/sysvipc/shm")],
    ..Probe::new("sysv.shm.mem.remove-frees", |cx| {
        let made = segment(cx, 4, 0o600)?;
        let map = made.attach(0)?;
        map.touch(1);
        cx.expect_eq("rss before", resident(made.id)?, 4 * page() as i64)?;
        cx.expect_ok(|| sys::madvise(map.address(), 3 * page(), MADV_REMOVE))?;
        cx.expect_eq("rss after", resident(made.id)?, page() as i64)
    })
};

const REMOVE_READ_ONLY: Probe = Probe {
    title: "MADV_REMOVE through a read-only attach fails with EACCES",
    why: "zeroing is writing: a reader must not be able to empty the server's memory",
    spec: &[man("madvise(2)", "EACCES")],
    calls: &[Sys::Shmat, Sys::Madvise],
    ..Probe::new("sysv.shm.mem.remove-rdonly-eacces", |cx| {
        let made = segment(cx, 1, 0o600)?;
        made.attach(0)?.write(0, 2);
        let map = made.attach(SHM_RDONLY)?;
        cx.expect_errno(EACCES, || sys::madvise(map.address(), page(), MADV_REMOVE))?;
        cx.expect_eq("byte", map.read(0), 2)
    })
};

const DONTFORK: Probe = Probe {
    title: "MADV_DONTFORK keeps an attach out of a child",
    why: "RDMA libraries mark their segments so: a child neither has the memory nor counts as its user",
    spec: &[man("madvise(2)", "MADV_DONTFORK")],
    calls: &[Sys::Shmat, Sys::Madvise],
    ..Probe::new("sysv.shm.mem.dontfork", |cx| {
        let (made, other) = (segment(cx, 1, 0o600)?, segment(cx, 1, 0o600)?);
        let (map, inherited) = (made.attach(0)?, other.attach(0)?);
        cx.expect_ok(|| sys::madvise(map.address(), page(), MADV_DONTFORK))?;
        let child = cx.elsewhere(|_| {
            let name = |map: &Map| Ok::<_, Stop>(procfs::mapping_at(map.address())?.map(|m| m.inode as i32));
            Ok((name(&map)?, name(&inherited)?, made.stat()?.nattch, other.stat()?.nattch))
        })?;
        cx.expect_eq("mappings and counts in the child", child, (None, Some(other.id), 1, 2))
    })
};

const RESIDENT: Probe = Probe {
    title: "a page of a segment becomes resident at its first touch",
    why: "start-up of a 1 TB segment is instant, and the first store to each page pays for it",
    spec: &[man("mincore(2)", "DESCRIPTION"), man("shmctl(2)", "SHM_LOCK")],
    calls: &[Sys::Shmat, Sys::Mincore],
    ..Probe::new("sysv.shm.mem.first-touch", |cx| {
        let made = segment(cx, 4, 0o600)?;
        let map = made.attach(0)?;
        let pages =
            || Ok::<_, Stop>(sys::mincore(map.address(), 4 * page())?.iter().map(|b| b & 1).collect::<Vec<_>>());
        cx.expect_eq("resident pages before", pages()?, vec![0; 4])?;
        map.write(2 * page(), 1);
        cx.expect_eq("resident pages after", pages()?, vec![0, 0, 1, 0])
    })
};

const PAGED_OUT: Probe = Probe {
    title: "MADV_PAGEOUT loses no content: rss and swap still add up",
    why: "under memory pressure a pool goes to swap and comes back; a page lost there is a lost table",
    spec: &[man("madvise(2)", "MADV_PAGEOUT"), kernel("ipc/shm.c", "shm_add_rss_swap")],
    calls: &[Sys::Shmat, Sys::Madvise],
    needs: &[Need::Path("/proc/sysvipc/shm")],
    ..Probe::new("sysv.shm.mem.pageout-keeps", |cx| {
        let made = segment(cx, 8, 0o600)?;
        let map = made.attach(0)?;
        for number in 0..8 {
            map.write(number * page(), number as u8 + 1);
        }
        match sys::madvise(map.address(), 8 * page(), libc::MADV_PAGEOUT) {
            // Older than Linux 5.4.
            Err(e) if e.errno == libc::EINVAL => return Err(Stop::skip("madvise(MADV_PAGEOUT)", e.name())),
            done => cx.expect_ok(|| done)?,
        }
        cx.expect_eq("rss and swap together", resident(made.id)?, 8 * page() as i64)?;
        let bytes: Vec<u8> = (0..8).map(|n| map.read(n * page())).collect();
        cx.expect_eq("first bytes of the pages", bytes, (1..=8).collect::<Vec<u8>>())
    })
};

const LOCKED_AT_ATTACH: Probe = Probe {
    title: "after mlockall(MCL_FUTURE) an attach has all its pages in memory",
    why: "real-time programs lock everything at start: an attach that faults later misses its deadline",
    spec: &[man("mlockall(2)", "MCL_FUTURE"), kernel("ipc/shm.c", "do_shmat")],
    calls: &[Sys::Shmat, Sys::Mlockall, Sys::Mincore],
    needs: &[Need::Memlock(1 << 20)],
    ..Probe::new("sysv.shm.mem.mlockall-future", |cx| {
        let made = segment(cx, 4, 0o600)?;
        let map = made.attach(0)?;
        cx.expect_eq("resident pages before", sys::mincore(map.address(), 4 * page())?[3] & 1, 0)?;
        cx.elsewhere(|cx| {
            sys::raw::numbers(Sys::Mlockall, &[libc::MCL_FUTURE.into()])?;
            let locked = made.attach(0)?;
            let pages: Vec<u8> = sys::mincore(locked.address(), 4 * page())?.iter().map(|byte| byte & 1).collect();
            cx.expect_eq("resident pages of the attach", pages, vec![1; 4])
        })
    })
};

const BEYOND_4G: Probe = Probe {
    title: "a segment of more than 4 GiB keeps its offsets apart",
    why: "a size cut to 32 bits maps the start of a large pool where its end should be",
    spec: &[man("shmget(2)", "Shared memory limits"), man("shmctl(2)", "shm_segsz")],
    calls: &[Sys::Shmget, Sys::Shmat],
    ..Probe::new("sysv.shm.mem.beyond-4g", |cx| {
        let size = (5 << 30) + page();
        let (key, flags) = (cx.fresh_key(), sys::SHM_NORESERVE | libc::IPC_CREAT | 0o600);
        let made = match Segment::get(key, size, flags) {
            Err(e) if [libc::ENOMEM, libc::EINVAL, libc::ENOSPC].contains(&e.errno) => {
                return Err(Stop::skip("limits of 5 GiB", e.name()));
            }
            made => cx.expect_ok(|| made)?,
        };
        cx.expect_eq("shm_segsz", made.stat()?.segsz, size)?;
        let map = match made.attach(0) {
            Err(e) if e.errno == libc::ENOMEM => return Err(Stop::skip("address space of 5 GiB", e.name())),
            map => cx.expect_ok(|| map)?,
        };
        map.write(size - 1, 2);
        map.write(page() - 1, 1);
        let seen = cx.elsewhere(|_| {
            let own = made.attach(SHM_RDONLY)?;
            Ok((own.read(page() - 1), own.read((1 << 30) + page() - 1), own.read(size - 1)))
        })?;
        cx.expect_eq("last bytes of page 0, of the page at 1 GiB, of the segment", seen, (1, 0, 2))
    })
};
