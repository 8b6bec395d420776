//! madvise(2): what happens to the contents.

use super::common::{
    FILE, Island, RW, byte_of, kib, lettered_file, load, must, need_advice, page, probe, refused, small_pages, smaps,
    smaps_of,
};
use libc::{
    EACCES, EFAULT, EINVAL, MADV_COLD, MADV_DONTNEED, MADV_FREE, MADV_NORMAL, MADV_PAGEOUT, MADV_POPULATE_READ,
    MADV_POPULATE_WRITE, MADV_RANDOM, MADV_REMOVE, MADV_SEQUENTIAL, MADV_WILLNEED, MAP_PRIVATE, MAP_SHARED, O_RDONLY,
    PROT_NONE, PROT_READ, SIGBUS, SIGSEGV,
};
use shmcheck_probe::{Context, Map, Need, Outcome, Probe, Stop, Sys, kernel, man, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &DONTNEED_SHARED,
    &DONTNEED_OTHERS,
    &DONTNEED_PRIVATE,
    &DONTNEED_COPY,
    &REMOVE,
    &REMOVE_FREES,
    &REMOVE_PRIVATE,
    &REMOVE_READ_ONLY,
    &FREE_KEEPS_WRITTEN,
    &FREE_SHARED,
    &FREE_FILE,
    &HINTS,
    &COLD,
    &PAGEOUT,
    &POPULATE_READ,
    &POPULATE_WRITE,
    &POPULATE_ALLOCATES,
    &POPULATE_BEYOND,
    &POPULATE_NO_WRITE,
    &POPULATE_NO_READ,
    &GUARD,
    &GUARD_SHARED,
    &COLLAPSE,
];

const CALLS: &[Sys] = &[Sys::Madvise];

const DONTNEED_SHARED: Probe = Probe {
    title: "MADV_DONTNEED on shared memory drops the pages, not the contents",
    why: "jemalloc and Go purge with it; on shared memory the data belongs to others too and has to come back",
    spec: &[man("madvise(2)", "MADV_DONTNEED")],
    calls: CALLS,
    ..probe("map.advise.dontneed.shared-keeps", dontneed_shared)
};
fn dontneed_shared(cx: &mut Context) -> Outcome {
    let island = Island::shared(4)?;
    island.touch(0x4d);
    cx.expect_eq("Rss in kB before", smaps(island.address(), "Rss")?, kib(4))?;
    cx.expect_ok(|| sys::madvise(island.address(), 4 * page(), MADV_DONTNEED))?;
    cx.expect_eq("Rss in kB after", smaps(island.address(), "Rss")?, 0)?;
    let pages: Vec<u8> = (0..4).map(|n| island.read(n * page())).collect();
    cx.expect_eq("the pages", pages, vec![0x4d; 4])
}

const DONTNEED_OTHERS: Probe = Probe {
    title: "MADV_DONTNEED by one process leaves others' pages in place",
    why: "a client that trims itself must not slow down the server",
    spec: &[man("madvise(2)", "MADV_DONTNEED")],
    calls: CALLS,
    ..probe("map.advise.dontneed.caller-only", dontneed_others)
};
fn dontneed_others(cx: &mut Context) -> Outcome {
    let island = Island::shared(2)?;
    island.touch(0x4d);
    cx.elsewhere(|cx| {
        island.touch(0x4e);
        must(sys::madvise(island.address(), 2 * page(), MADV_DONTNEED))?;
        cx.expect_eq("Rss in kB of the caller", smaps(island.address(), "Rss")?, 0)
    })?;
    cx.expect_eq("Rss in kB here", smaps(island.address(), "Rss")?, kib(2))?;
    cx.expect_eq("the contents", (island.read(0), island.read(page())), (0x4e, 0x4e))
}

const DONTNEED_PRIVATE: Probe = Probe {
    title: "MADV_DONTNEED on private anonymous memory leaves zeroes",
    why: "allocators hand such pages out as cleared memory",
    spec: &[man("madvise(2)", "MADV_DONTNEED")],
    calls: CALLS,
    ..probe("map.advise.dontneed.private-zeroes", dontneed_private)
};
fn dontneed_private(cx: &mut Context) -> Outcome {
    let island = Island::private(3)?;
    island.touch(0x4d);
    must(sys::madvise(island.address() + page(), page(), MADV_DONTNEED))?;
    let pages = (island.read(0), island.read(page()), island.read(2 * page()));
    cx.expect_eq("the three pages", pages, (0x4d, 0, 0x4d))
}

const DONTNEED_COPY: Probe = Probe {
    title: "MADV_DONTNEED replaces a private copy by the file's present page",
    why: "snapshot readers refresh their view of a file this way instead of mapping it anew",
    spec: &[man("madvise(2)", "MADV_DONTNEED")],
    needs: FILE,
    calls: CALLS,
    ..probe("map.advise.dontneed.private-file", dontneed_copy)
};
fn dontneed_copy(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let map = Map::new(page(), RW, MAP_PRIVATE, file.as_raw_fd())?;
    map.write(0, b'!');
    sys::pwrite(file.as_raw_fd(), b"new", 0)?;
    cx.expect_eq("the copy before", map.read(0), b'!')?;
    must(sys::madvise(map.address(), page(), MADV_DONTNEED))?;
    cx.expect_eq("the page afterwards", map.read_all(0, 4), b"newa".to_vec())
}

const REMOVE: Probe = Probe {
    title: "MADV_REMOVE punches a hole that every user of the file sees",
    why: "VMs give memory back to the host (virtio-balloon): a page that keeps old bytes leaks them",
    spec: &[man("madvise(2)", "MADV_REMOVE")],
    needs: FILE,
    calls: CALLS,
    ..probe("map.advise.remove.zeroes-for-all", remove)
};
fn remove(cx: &mut Context) -> Outcome {
    let file = lettered_file(3)?;
    let map = Map::shared(&file, 3 * page())?;
    let other = Map::shared(&file, 3 * page())?;
    cx.expect_eq("another mapping before", other.read(page()), b'b')?;
    cx.elsewhere(|_| must(sys::madvise(map.address() + page(), page(), MADV_REMOVE)))?;
    let pages = (other.read(0), other.read(page()), other.read(2 * page()));
    cx.expect_eq("another mapping after", pages, (b'a', 0, b'c'))?;
    cx.expect_eq("read(2)", byte_of(&file, 2 * page() - 1)?, 0)?;
    cx.expect_eq("st_size", sys::fstat(file.as_raw_fd())?.st_size, 3 * page() as i64)
}

const REMOVE_FREES: Probe = Probe {
    title: "MADV_REMOVE gives the pages back",
    why: "a store that forgets old objects has to shrink in the memory cgroup, not only in its own books",
    spec: &[man("madvise(2)", "MADV_REMOVE")],
    needs: FILE,
    calls: CALLS,
    ..probe("map.advise.remove.frees", remove_frees)
};
fn remove_frees(cx: &mut Context) -> Outcome {
    let file = sys::memory_file(4 * page())?;
    let map = Map::shared(&file, 4 * page())?;
    small_pages(&map)?;
    map.touch(1);
    let blocks = || Ok::<_, Stop>(sys::fstat(file.as_raw_fd())?.st_blocks * 512 / page() as i64);
    cx.expect_eq("pages before", blocks()?, 4)?;
    must(sys::madvise(map.address() + page(), 2 * page(), MADV_REMOVE))?;
    cx.expect_eq("pages after", blocks()?, 2)
}

const REMOVE_PRIVATE: Probe = Probe {
    title: "MADV_REMOVE on a private mapping of a file fails with EACCES",
    why: "who only has a copy must not punch holes into the original",
    spec: &[man("madvise(2)", "EACCES")],
    needs: FILE,
    calls: CALLS,
    ..probe("map.advise.remove.private-eacces", |cx| remove_refused(cx, MAP_PRIVATE, libc::O_RDWR))
};
const REMOVE_READ_ONLY: Probe = Probe {
    title: "MADV_REMOVE on a mapping that cannot be writable fails with EACCES",
    why: "a consumer with a read-only descriptor must not erase what the producer wrote",
    spec: &[man("madvise(2)", "EACCES")],
    needs: FILE,
    calls: CALLS,
    ..probe("map.advise.remove.read-only-eacces", |cx| remove_refused(cx, MAP_SHARED, O_RDONLY))
};
fn remove_refused(cx: &mut Context, flags: i32, mode: i32) -> Outcome {
    let file = lettered_file(1)?;
    let fd = super::common::reopen(&file, mode)?;
    let map = Map::new(page(), PROT_READ, flags, fd.as_raw_fd())?;
    refused(cx, EACCES, || sys::madvise(map.address(), page(), MADV_REMOVE))?;
    cx.expect_eq("the file's byte", byte_of(&file, 0)?, b'a')
}

const FREE_KEEPS_WRITTEN: Probe = Probe {
    title: "what is stored after MADV_FREE stays",
    why: "Go and jemalloc reuse blocks that they had freed lazily; a page dropped then is lost data",
    spec: &[man("madvise(2)", "MADV_FREE")],
    calls: CALLS,
    ..probe("map.advise.free.later-store-stays", free_keeps_written)
};
fn free_keeps_written(cx: &mut Context) -> Outcome {
    need_advice(MADV_FREE, "MADV_FREE")?;
    let island = Island::private(2)?;
    island.touch(0x4d);
    must(sys::madvise(island.address(), 2 * page(), MADV_FREE))?;
    // What makes a page free to take: it is no longer dirty.
    cx.expect_eq("Private_Dirty in kB", smaps(island.address(), "Private_Dirty")?, 0)?;
    island.write(0, 0x4f);
    cx.expect_eq("Private_Dirty in kB after a store", smaps(island.address(), "Private_Dirty")?, kib(1))?;
    sys::madvise(island.address(), 2 * page(), MADV_COLD)
        .or_else(|e| if e.errno == EINVAL { Ok(()) } else { Err(e) })?;
    cx.expect_eq("the byte stored afterwards", island.read(0), 0x4f)?;
    let other = island.read(page());
    cx.expect("the page not stored to", other == 0x4d || other == 0, "its old byte or 0", other)
}

const FREE_SHARED: Probe = Probe {
    title: "MADV_FREE on shared memory fails with EINVAL",
    why: "one process may not declare another's data worthless",
    spec: &[man("madvise(2)", "EINVAL")],
    calls: CALLS,
    ..probe("map.advise.free.shared-einval", free_shared)
};
fn free_shared(cx: &mut Context) -> Outcome {
    need_advice(MADV_FREE, "MADV_FREE")?;
    let island = Island::shared(1)?;
    island.touch(0x4d);
    refused(cx, EINVAL, || sys::madvise(island.address(), page(), MADV_FREE))?;
    cx.expect_eq("the page", island.read(0), 0x4d)
}

const FREE_FILE: Probe = Probe {
    title: "MADV_FREE on a private mapping of a file fails with EINVAL",
    why: "a page of a file has somewhere to come back from; allocators must use MADV_DONTNEED there",
    spec: &[man("madvise(2)", "EINVAL")],
    needs: FILE,
    calls: CALLS,
    ..probe("map.advise.free.file-einval", free_file)
};
fn free_file(cx: &mut Context) -> Outcome {
    need_advice(MADV_FREE, "MADV_FREE")?;
    let file = lettered_file(1)?;
    let map = Map::new(page(), RW, MAP_PRIVATE, file.as_raw_fd())?;
    map.write(0, b'!');
    refused(cx, EINVAL, || sys::madvise(map.address(), page(), MADV_FREE))?;
    cx.expect_eq("the copy", map.read_all(0, 2), b"!a".to_vec())
}

const HINTS: Probe = Probe {
    title: "the conventional hints do not change contents",
    why: "they are about speed; programs sprinkle them over live data",
    spec: &[man("madvise(2)", "Conventional advice values")],
    needs: FILE,
    calls: CALLS,
    ..probe("map.advise.hints.contents-stay", |cx| {
        keeps(cx, &[MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_NORMAL])
    })
};
const COLD: Probe = Probe {
    title: "MADV_COLD does not change contents",
    why: "Android marks the memory of apps in the background; they come back as they were",
    spec: &[man("madvise(2)", "MADV_COLD")],
    needs: FILE,
    calls: CALLS,
    ..probe("map.advise.cold.contents-stay", |cx| {
        need_advice(MADV_COLD, "MADV_COLD")?;
        keeps(cx, &[MADV_COLD])
    })
};
const PAGEOUT: Probe = Probe {
    title: "MADV_PAGEOUT does not change contents",
    why: "user-space memory managers push shared pages out; whoever reads them next must not notice",
    spec: &[man("madvise(2)", "MADV_PAGEOUT")],
    needs: FILE,
    calls: CALLS,
    ..probe("map.advise.pageout.contents-stay", |cx| {
        need_advice(MADV_PAGEOUT, "MADV_PAGEOUT")?;
        keeps(cx, &[MADV_PAGEOUT])
    })
};
fn keeps(cx: &mut Context, advices: &[i32]) -> Outcome {
    let file = lettered_file(3)?;
    let map = Map::shared(&file, 3 * page())?;
    for (n, advice) in advices.iter().enumerate() {
        map.write(1, n as u8);
        cx.expect_ok(|| sys::madvise(map.address(), 3 * page(), *advice))?;
        let pages = (map.read(0), map.read(1), map.read(page()), map.read(2 * page()));
        cx.expect_eq("the bytes here", pages, (b'a', n as u8, b'b', b'c'))?;
        cx.expect_eq("the byte by read(2)", byte_of(&file, 1)?, n as u8)?;
    }
    Ok(())
}

const POPULATE_READ: Probe = Probe {
    title: "MADV_POPULATE_READ makes a file's pages resident",
    why: "QEMU and databases prefault a part of a mapping before they promise latencies",
    spec: &[man("madvise(2)", "MADV_POPULATE_READ")],
    needs: FILE,
    calls: CALLS,
    ..probe("map.advise.populate-read.resident", |cx| populate(cx, MADV_POPULATE_READ, "MADV_POPULATE_READ"))
};
const POPULATE_WRITE: Probe = Probe {
    title: "MADV_POPULATE_WRITE makes a range resident before any store",
    why: "preallocation that cannot fail later by SIGBUS: DPDK and VMs want to know at start",
    spec: &[man("madvise(2)", "MADV_POPULATE_WRITE")],
    needs: FILE,
    calls: CALLS,
    ..probe("map.advise.populate-write.resident", |cx| populate(cx, MADV_POPULATE_WRITE, "MADV_POPULATE_WRITE"))
};
fn populate(cx: &mut Context, advice: i32, name: &str) -> Outcome {
    need_advice(advice, name)?;
    let file = lettered_file(4)?;
    let island = Island::new(4, RW, MAP_SHARED, file.as_raw_fd())?;
    cx.expect_eq("Rss in kB before", smaps(island.address(), "Rss")?, 0)?;
    cx.expect_ok(|| sys::madvise(island.address(), 4 * page(), advice))?;
    cx.expect_eq("Rss in kB after", smaps(island.address(), "Rss")?, kib(4))?;
    let pages: Vec<u8> = (0..4).map(|n| island.read(n * page())).collect();
    cx.expect_eq("the contents", pages, b"abcd".to_vec())
}

const POPULATE_ALLOCATES: Probe = Probe {
    title: "MADV_POPULATE_WRITE allocates the holes of a file",
    why: "afterwards the memory is there whatever others take from the tmpfs",
    spec: &[man("madvise(2)", "MADV_POPULATE_WRITE")],
    needs: FILE,
    calls: CALLS,
    ..probe("map.advise.populate-write.allocates", populate_allocates)
};
fn populate_allocates(cx: &mut Context) -> Outcome {
    need_advice(MADV_POPULATE_WRITE, "MADV_POPULATE_WRITE")?;
    let file = sys::memory_file(4 * page())?;
    let map = Map::shared(&file, 4 * page())?;
    small_pages(&map)?;
    must(sys::madvise(map.address() + page(), 2 * page(), MADV_POPULATE_WRITE))?;
    let pages = sys::fstat(file.as_raw_fd())?.st_blocks * 512 / page() as i64;
    cx.expect_eq("pages of the file", pages, 2)
}

const POPULATE_BEYOND: Probe = Probe {
    title: "populating beyond the end of the file fails with EFAULT, no signal",
    why: "the difference to touching the pages: an error at start instead of SIGBUS at night",
    spec: &[man("madvise(2)", "EFAULT")],
    needs: FILE,
    calls: CALLS,
    ..probe("map.advise.populate.beyond-end-efault", populate_beyond)
};
fn populate_beyond(cx: &mut Context) -> Outcome {
    need_advice(MADV_POPULATE_WRITE, "MADV_POPULATE_WRITE")?;
    let file = lettered_file(1)?;
    let map = Map::shared(&file, 3 * page())?;
    for advice in [MADV_POPULATE_READ, MADV_POPULATE_WRITE] {
        cx.expect_ok(|| sys::madvise(map.address(), page(), advice))?;
        cx.expect_errno(EFAULT, || sys::madvise(map.address(), 3 * page(), advice))?;
    }
    cx.expect_signal("a load there", SIGBUS, || load(&map, page()))
}

const POPULATE_NO_WRITE: Probe = Probe {
    title: "MADV_POPULATE_WRITE on read-only memory fails with EINVAL",
    why: "prefaulting must not become a way around the protection",
    spec: &[man("madvise(2)", "EINVAL")],
    calls: CALLS,
    ..probe("map.advise.populate-write.read-only-einval", |cx| unpopulated(cx, PROT_READ, MADV_POPULATE_WRITE))
};
const POPULATE_NO_READ: Probe = Probe {
    title: "MADV_POPULATE_READ on memory with PROT_NONE fails with EINVAL",
    why: "guard pages inside a range have to be reported, not silently skipped",
    spec: &[man("madvise(2)", "EINVAL")],
    calls: CALLS,
    ..probe("map.advise.populate-read.none-einval", |cx| unpopulated(cx, PROT_NONE, MADV_POPULATE_READ))
};
fn unpopulated(cx: &mut Context, protection: i32, advice: i32) -> Outcome {
    need_advice(advice, "MADV_POPULATE")?;
    let island = Island::shared(1)?;
    cx.expect_ok(|| sys::madvise(island.address(), page(), advice))?;
    must(sys::madvise(island.address(), page(), MADV_DONTNEED))?;
    sys::mprotect(island.address(), page(), protection)?;
    refused(cx, EINVAL, || sys::madvise(island.address(), page(), advice))?;
    cx.expect_eq("Rss in kB", smaps(island.address(), "Rss")?, 0)
}

const GUARD: Probe = Probe {
    title: "MADV_GUARD_INSTALL makes accesses fault until MADV_GUARD_REMOVE",
    why: "thread stacks get guards that cost no mapping each: with thousands of threads vm.max_map_count was the limit",
    spec: &[man("madvise(2)", "MADV_GUARD_INSTALL"), kernel("mm/madvise.c", "madvise_guard_install")],
    calls: CALLS,
    ..probe("map.advise.guard.private", |cx| guard(cx, &Island::private(3)?.map, 0))
};
const GUARD_SHARED: Probe = Probe {
    title: "a guard in shared memory hides the page, which comes back after",
    why: "allocators over shared files catch overruns of one process; the others keep reading",
    spec: &[man("madvise(2)", "MADV_GUARD_INSTALL"), kernel("mm/madvise.c", "is_valid_guard_vma")],
    calls: CALLS,
    ..probe("map.advise.guard.shared", guard_shared)
};
fn guard_shared(cx: &mut Context) -> Outcome {
    need_advice(sys::MADV_GUARD_INSTALL, "MADV_GUARD_INSTALL")?;
    let island = Island::shared(3)?;
    // The first kernels with guards (6.13, 6.14) had them for private anonymous memory only.
    match sys::madvise(island.address(), page(), sys::MADV_GUARD_INSTALL) {
        Err(e) if e.errno == EINVAL => {
            return Err(Stop::skip("guard:shared", "MADV_GUARD_INSTALL on shared memory → EINVAL"));
        }
        other => cx.expect_ok(|| other)?,
    }
    must(sys::madvise(island.address(), page(), sys::MADV_GUARD_REMOVE))?;
    guard(cx, &island, 0x4d)
}
/// A guard on the second of three pages that hold 0x4d; `after` is what the page holds when the guard is gone.
fn guard(cx: &mut Context, map: &Map, after: u8) -> Outcome {
    need_advice(sys::MADV_GUARD_INSTALL, "MADV_GUARD_INSTALL")?;
    map.touch(0x4d);
    must(sys::madvise(map.address() + page(), page(), sys::MADV_GUARD_INSTALL))?;
    cx.expect_signal("a load from the guard", SIGSEGV, || load(map, page()))?;
    cx.expect_signal("a store to the guard", SIGSEGV, || map.write(2 * page() - 1, 1))?;
    cx.expect_eq("the neighbours", (map.read(0), map.read(2 * page())), (0x4d, 0x4d))?;
    must(sys::madvise(map.address() + page(), page(), sys::MADV_GUARD_REMOVE))?;
    cx.expect_eq("the page without the guard", map.read(page()), after)?;
    map.write(page(), 1);
    cx.expect_eq("a store to it", map.read(page()), 1)
}

const COLLAPSE: Probe = Probe {
    title: "MADV_COLLAPSE turns shared memory into one huge page, kept as it was",
    why: "databases without a huge page pool get huge pages for their buffers this way",
    varies: "refused where shmem_enabled is 'deny'; best effort where memory is fragmented",
    spec: &[man("madvise(2)", "MADV_COLLAPSE")],
    needs: &[Need::Call(Sys::MemfdCreate), Need::Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")],
    calls: CALLS,
    ..probe("map.advise.collapse.shared", collapse)
};
fn collapse(cx: &mut Context) -> Outcome {
    need_advice(sys::MADV_COLLAPSE, "MADV_COLLAPSE")?;
    let text = shmcheck_probe::procfs::read("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")?;
    let huge: usize = match text.trim().parse() {
        Ok(size) if size <= 4 << 20 => size,
        _ => return Err(Stop::skip("hpage_pmd_size", text)),
    };
    let file = sys::memory_file(huge)?;
    let around = super::common::reserve(2 * huge / page())?;
    let at = around.address().next_multiple_of(huge);
    let map = Map::at(at, huge, RW, MAP_SHARED | libc::MAP_FIXED, file.as_raw_fd(), 0)?;
    for n in [0, page() + 1, huge / 2, huge - 1] {
        map.write(n, 0x4d);
    }
    match sys::madvise(map.address(), huge, sys::MADV_COLLAPSE) {
        Ok(()) => {}
        // Best effort by its definition; EINVAL is the answer of 'deny' and of kernels without huge shared memory.
        Err(e) => return Err(Stop::skip("collapse", format!("MADV_COLLAPSE → {}", e.name()))),
    }
    let block = smaps_of(map.address())?;
    let mapped = shmcheck_probe::procfs::field(&block, "ShmemPmdMapped").unwrap_or(0);
    cx.expect_eq("ShmemPmdMapped in kB", mapped, (huge / 1024) as u64)?;
    let bytes = [0, 1, page() + 1, huge / 2, huge - 1].map(|n| map.read(n));
    cx.expect_eq("the contents", bytes, [0x4d, 0, 0x4d, 0x4d, 0x4d])
}
