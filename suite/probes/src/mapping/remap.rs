//! mremap(2): growing, shrinking, moving, duplicating.

use super::common::{FILE, Island, PRIVATE, RW, SHARED, kib, lettered_file, load, locked, page, perms, probe, reserve};
use libc::{EINVAL, MAP_FIXED, MAP_SHARED, MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE, PROT_READ, SIGBUS, SIGSEGV};
use shmcheck_probe::{Context, Map, Need, Outcome, Probe, Stop, Sys, kernel, man, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &GROW_PLACE,
    &GROW_MOVES,
    &GROW_FILE,
    &GROW_ANON,
    &SHRINK,
    &MOVED_SHARED,
    &MOVED_PROTECTION,
    &FIXED,
    &FIXED_REPLACES,
    &FIXED_PART,
    &FIXED_SEVERAL,
    &DUPLICATE,
    &DUPLICATE_PLACE,
    &DONT_UNMAP,
    &DONT_UNMAP_SHARED,
    &GROW_LOCKED,
    &GROW_PRIVATE,
    &SAME_SIZE,
];

const CALLS: &[Sys] = &[Sys::Mremap];

/// `mremap`—as a view of the new range, which belongs to the caller.
fn try_remap(old: &Map, old_length: usize, length: usize, flags: i32, target: usize) -> sys::Result<Map> {
    let address = sys::mremap(old.address(), old_length, length, flags, target)?;
    Ok(Map::view(address, length))
}

/// The same; fails where it is refused, or where nothing is mapped at the address it returns.
fn remap(cx: &Context, old: &Map, sizes: (usize, usize), flags: i32, target: usize) -> Result<Map, Stop> {
    let new = cx.expect_ok(|| try_remap(old, sizes.0, sizes.1, flags, target))?;
    is_mapped(cx, new)
}

fn is_mapped(cx: &Context, new: Map) -> Result<Map, Stop> {
    cx.expect("what is mapped at the address returned", !perms(new.address())?.is_empty(), "a mapping", "nothing")?;
    Ok(new)
}

const GROW_PLACE: Probe = Probe {
    title: "mremap grows a mapping where it is while there is room",
    why: "arenas with pointers into themselves can grow only in place",
    spec: &[man("mremap(2)", "DESCRIPTION")],
    needs: FILE,
    calls: CALLS,
    ..probe("map.remap.grow.in-place", grow_place)
};
fn grow_place(cx: &mut Context) -> Outcome {
    let file = lettered_file(3)?;
    let around = reserve(5)?;
    let at = around.address() + page();
    let map = Map::at(at, page(), RW, MAP_SHARED | MAP_FIXED, file.as_raw_fd(), 0)?;
    map.write(0, b'!');
    sys::munmap(at + page(), 2 * page())?;
    let grown = remap(cx, &map, (page(), 3 * page()), 0, 0)?;
    cx.expect_eq("the address", grown.address(), at)?;
    let pages = (grown.read(0), grown.read(page()), grown.read(2 * page()));
    cx.expect_eq("the three pages", pages, (b'!', b'b', b'c'))
}

const GROW_MOVES: Probe = Probe {
    title: "mremap with MREMAP_MAYMOVE moves a mapping that has no room",
    why: "realloc of large blocks: the contents come along and the old place is free",
    spec: &[man("mremap(2)", "MREMAP_MAYMOVE")],
    needs: FILE,
    calls: CALLS,
    ..probe("map.remap.grow.moves", grow_moves)
};
fn grow_moves(cx: &mut Context) -> Outcome {
    let file = lettered_file(2)?;
    let island = Island::new(1, RW, MAP_SHARED, file.as_raw_fd())?;
    island.write(5, b'!');
    let grown = remap(cx, &island, (page(), 2 * page()), MREMAP_MAYMOVE, 0)?;
    cx.expect_ne("the address", grown.address(), island.address())?;
    let bytes = (grown.read(0), grown.read(5), grown.read(page()));
    cx.expect_eq("the contents", bytes, (b'a', b'!', b'b'))?;
    cx.expect_eq("what is left at the old place", perms(island.address())?, String::new())?;
    Ok(sys::munmap(grown.address(), grown.len())?)
}

const GROW_FILE: Probe = Probe {
    title: "a mapping of a file grows into the file's next pages, shared",
    why: "databases remap after the file was extended; the new part must be the file's, for everybody",
    spec: &[man("mremap(2)", "DESCRIPTION")],
    needs: FILE,
    calls: CALLS,
    ..probe("map.remap.grow.file-shared", grow_file)
};
fn grow_file(cx: &mut Context) -> Outcome {
    let file = lettered_file(3)?;
    let island = reserve(3)?;
    let map = Map::at(island.address() + page(), page(), RW, MAP_SHARED | MAP_FIXED, file.as_raw_fd(), page() as i64)?;
    let grown = remap(cx, &map, (page(), 2 * page()), MREMAP_MAYMOVE, 0)?;
    cx.expect_eq("the two pages", (grown.read(0), grown.read(page())), (b'b', b'c'))?;
    cx.elsewhere(|_| Ok(sys::pwrite(file.as_raw_fd(), b"!", 2 * page() as i64)?))?;
    cx.expect_eq("another process' write to the new part", grown.read(page()), b'!')?;
    Ok(sys::munmap(grown.address(), grown.len())?)
}

const GROW_ANON: Probe = Probe {
    title: "shared anonymous memory that grows by mremap has no pages behind",
    why: "mremap returns success and the first store to the new part dies of SIGBUS: the object keeps the size it \
          was made with",
    spec: &[kernel("mm/shmem.c", "shmem_zero_setup"), man("mmap(2)", "SIGBUS")],
    calls: CALLS,
    ..probe("map.remap.grow.shared-anonymous-sigbus", grow_anon)
};
fn grow_anon(cx: &mut Context) -> Outcome {
    let island = Island::shared(1)?;
    island.write(0, 1);
    let grown = remap(cx, &island, (page(), 2 * page()), MREMAP_MAYMOVE, 0)?;
    cx.expect_eq("the old part", grown.read(0), 1)?;
    cx.expect_signal("a store to the new part", SIGBUS, || grown.write(page(), 1))?;
    Ok(sys::munmap(grown.address(), grown.len())?)
}

const GROW_PRIVATE: Probe = Probe {
    title: "private memory that grows by mremap gets pages of zeroes",
    why: "glibc's and musl's realloc grow large blocks with it",
    spec: &[man("mremap(2)", "NOTES")],
    calls: CALLS,
    ..probe("map.remap.grow.private-zeroes", grow_private)
};
fn grow_private(cx: &mut Context) -> Outcome {
    let island = Island::private(1)?;
    island.write(page() - 1, 0x44);
    let grown = remap(cx, &island, (page(), 3 * page()), MREMAP_MAYMOVE, 0)?;
    cx.expect_eq("the old part", grown.read(page() - 1), 0x44)?;
    let first = (page()..3 * page()).find(|n| grown.read(*n) != 0);
    cx.expect_eq("the first byte of the new part that is not zero", first, None)?;
    grown.touch(1);
    Ok(sys::munmap(grown.address(), grown.len())?)
}

const SHRINK: Probe = Probe {
    title: "mremap to a smaller size unmaps the tail in place",
    why: "buffers give memory back after a peak; whoever still writes there has to be caught",
    spec: &[man("mremap(2)", "DESCRIPTION")],
    calls: CALLS,
    ..probe("map.remap.shrink.tail-gone", shrink)
};
fn shrink(cx: &mut Context) -> Outcome {
    let island = Island::shared(3)?;
    island.touch(0x17);
    let shrunk = remap(cx, &island, (3 * page(), page()), 0, 0)?;
    cx.expect_eq("the address", shrunk.address(), island.address())?;
    cx.expect_eq("the page that stayed", shrunk.read(0), 0x17)?;
    cx.expect_signal("a load from the second page", SIGSEGV, || load(&island, page()))?;
    cx.expect_eq("what is mapped at the last page", perms(island.address() + 2 * page())?, String::new())
}

const MOVED_SHARED: Probe = Probe {
    title: "memory that was moved is still shared with those who had it",
    why: "a process that compacts its address space must not fall out of the pool",
    spec: &[man("mremap(2)", "DESCRIPTION"), man("mmap(2)", "MAP_SHARED")],
    calls: CALLS,
    ..probe("map.remap.move.still-shared", moved_shared)
};
fn moved_shared(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(2 * page())?;
    map.touch(1);
    let target = reserve(2)?;
    let (moved, checked) = (cx.gate()?, cx.gate()?);
    let peer = cx.fork(|_| {
        moved.pass()?;
        // This process still has it at the old place.
        map.write(page(), 2);
        checked.open()?;
        Ok(map.read(0))
    })?;
    let new = remap(cx, &map, (2 * page(), 2 * page()), MREMAP_MAYMOVE | MREMAP_FIXED, target.address())?;
    new.write(0, 3);
    moved.open()?;
    checked.pass()?;
    cx.expect_eq("the other's store at the new place", new.read(page()), 2)?;
    cx.expect_eq("this process' store as the other sees it", peer.join()?, 3)
}

const MOVED_PROTECTION: Probe = Probe {
    title: "a mapping keeps its protection when it is moved",
    why: "a page that was sealed read-only must not come out of a move writable",
    spec: &[man("mremap(2)", "NOTES")],
    calls: CALLS,
    ..probe("map.remap.move.protection-kept", moved_protection)
};
fn moved_protection(cx: &mut Context) -> Outcome {
    let island = Island::shared(1)?;
    island.write(0, 9);
    sys::mprotect(island.address(), page(), PROT_READ)?;
    let target = reserve(1)?;
    let new = remap(cx, &island, (page(), page()), MREMAP_MAYMOVE | MREMAP_FIXED, target.address())?;
    cx.expect_eq("the letters", perms(new.address())?, "r--s".to_owned())?;
    cx.expect_eq("the byte", new.read(0), 9)?;
    cx.expect_signal("a store", SIGSEGV, || new.write(0, 1))
}

const FIXED: Probe = Probe {
    title: "MREMAP_FIXED moves the mapping to exactly the address",
    why: "Android's and CRIU's restorers put pages where the saved pointers expect them",
    spec: &[man("mremap(2)", "MREMAP_FIXED")],
    calls: CALLS,
    ..probe("map.remap.fixed.exact", fixed)
};
fn fixed(cx: &mut Context) -> Outcome {
    let island = Island::shared(2)?;
    island.write(page(), 0x61);
    let target = reserve(4)?;
    let at = target.address() + page();
    sys::munmap(at, 2 * page())?;
    let new = remap(cx, &island, (2 * page(), 2 * page()), MREMAP_MAYMOVE | MREMAP_FIXED, at)?;
    cx.expect_eq("the address", new.address(), at)?;
    cx.expect_eq("the contents", new.read(page()), 0x61)?;
    cx.expect_eq("what is left at the old place", perms(island.address())?, String::new())
}

const FIXED_REPLACES: Probe = Probe {
    title: "MREMAP_FIXED unmaps what was at the new address",
    why: "tables are swapped by moving the new one over the old one",
    spec: &[man("mremap(2)", "MREMAP_FIXED")],
    calls: CALLS,
    ..probe("map.remap.fixed.replaces", fixed_replaces)
};
fn fixed_replaces(cx: &mut Context) -> Outcome {
    let new = Island::shared(1)?;
    let old = Island::shared(3)?;
    new.write(0, 0x0e);
    old.touch(0x0d);
    let at = old.address() + page();
    remap(cx, &new, (page(), page()), MREMAP_MAYMOVE | MREMAP_FIXED, at)?;
    let pages = (old.read(0), old.read(page()), old.read(2 * page()));
    cx.expect_eq("the three pages", pages, (0x0d, 0x0e, 0x0d))
}

const FIXED_PART: Probe = Probe {
    title: "mremap moves a part of a mapping; the rest stays",
    why: "garbage collectors move single pages out of a heap that is in use",
    spec: &[man("mremap(2)", "DESCRIPTION")],
    calls: CALLS,
    ..probe("map.remap.fixed.part", fixed_part)
};
fn fixed_part(cx: &mut Context) -> Outcome {
    let island = Island::shared(3)?;
    for n in 0..3 {
        island.write(n * page(), n as u8 + 1);
    }
    let target = reserve(1)?;
    let middle = Map::view(island.address() + page(), page());
    let new = remap(cx, &middle, (page(), page()), MREMAP_MAYMOVE | MREMAP_FIXED, target.address())?;
    let pages = (island.read(0), new.read(0), island.read(2 * page()));
    cx.expect_eq("first page, moved page, last page", pages, (1, 2, 3))?;
    cx.expect_eq("what is left in the middle", perms(middle.address())?, String::new())
}

const FIXED_SEVERAL: Probe = Probe {
    title: "a range of two mappings moves whole, or not at all with EFAULT",
    why: "a heap of many mappings is relocated with one call since Linux 6.17; half a heap must never move",
    spec: &[man("mremap(2)", "ERRORS"), kernel("mm/mremap.c", "remap_move")],
    calls: CALLS,
    ..probe("map.remap.fixed.several-or-none", fixed_several)
};
fn fixed_several(cx: &mut Context) -> Outcome {
    let around = reserve(4)?;
    let at = around.address() + page();
    let first = Map::at(at, page(), RW, SHARED | MAP_FIXED, -1, 0)?;
    let second = Map::at(at + page(), page(), RW, SHARED | MAP_FIXED, -1, 0)?;
    first.write(0, 1);
    second.write(0, 2);
    let target = reserve(2)?;
    let moved = try_remap(&first, 2 * page(), 2 * page(), MREMAP_MAYMOVE | MREMAP_FIXED, target.address());
    match moved {
        Err(e) if e.errno == libc::EFAULT => {
            cx.expect_eq("both pages at the old place", (first.read(0), second.read(0)), (1, 2))
        }
        other => {
            let new = is_mapped(cx, cx.expect_ok(|| other)?)?;
            cx.expect_eq("both pages at the new place", (new.read(0), new.read(page())), (1, 2))?;
            let left = (perms(at)?, perms(at + page())?);
            cx.expect_eq("what is left at the old place", left, (String::new(), String::new()))
        }
    }
}

const DUPLICATE: Probe = Probe {
    title: "mremap with old size 0 maps shared memory a second time",
    why: "mirrored ring buffers without a file descriptor are built with it",
    spec: &[man("mremap(2)", "DESCRIPTION")],
    calls: CALLS,
    ..probe("map.remap.old-size-zero.duplicates", duplicate)
};
fn duplicate(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(2 * page())?;
    map.write(page(), 1);
    let copy = remap(cx, &map, (0, 2 * page()), MREMAP_MAYMOVE, 0)?;
    cx.expect_ne("the address", copy.address(), map.address())?;
    cx.expect_eq("the contents", copy.read(page()), 1)?;
    copy.write(0, 2);
    cx.expect_eq("a store to the second, read from the first", map.read(0), 2)?;
    map.write(0, 3);
    cx.expect_eq("a store to the first, read from the second", copy.read(0), 3)?;
    sys::munmap(copy.address(), copy.len())?;
    cx.expect_eq("the first after the second was unmapped", map.read(page()), 1)
}

const DUPLICATE_PLACE: Probe = Probe {
    title: "MREMAP_FIXED names the place of a duplicate (old size 0)",
    why: "the second half of a mirrored ring has to lie right behind the first",
    spec: &[man("mremap(2)", "DESCRIPTION")],
    calls: CALLS,
    ..probe("map.remap.old-size-zero.fixed", duplicate_place)
};
fn duplicate_place(cx: &mut Context) -> Outcome {
    let ring = reserve(2)?;
    let first = Map::at(ring.address(), page(), RW, SHARED | MAP_FIXED, -1, 0)?;
    let behind = ring.address() + page();
    let copy = remap(cx, &first, (0, page()), MREMAP_MAYMOVE | MREMAP_FIXED, behind)?;
    cx.expect_eq("the address", copy.address(), behind)?;
    Map::view(ring.address(), 2 * page()).write_all(page() - 1, b"xy");
    cx.expect_eq("the first byte of the ring", first.read(0), b'y')
}

const DONT_UNMAP: Probe = Probe {
    title: "MREMAP_DONTUNMAP leaves an empty mapping at the old place",
    why: "Android's garbage collector takes the heap away this way while threads run on into the empty range",
    spec: &[man("mremap(2)", "MREMAP_DONTUNMAP")],
    calls: CALLS,
    ..probe("map.remap.dontunmap.private", dont_unmap)
};
fn dont_unmap(cx: &mut Context) -> Outcome {
    let island = Island::private(2)?;
    island.touch(0x3c);
    let new = match try_remap(&island, 2 * page(), 2 * page(), MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0) {
        // What a kernel before 5.7 says of every flag it does not know.
        Err(e) if e.errno == EINVAL => return Err(Stop::skip("flag:MREMAP_DONTUNMAP", "mremap → EINVAL")),
        other => is_mapped(cx, cx.expect_ok(|| other)?)?,
    };
    cx.expect_ne("the address", new.address(), island.address())?;
    cx.expect_eq("the new range", (new.read(0), new.read(page())), (0x3c, 0x3c))?;
    cx.expect_eq("the old range", (island.read(0), island.read(page())), (0, 0))?;
    island.write(0, 1);
    cx.expect_eq("the new range after a store to the old", new.read(0), 0x3c)?;
    Ok(sys::munmap(new.address(), new.len())?)
}

const DONT_UNMAP_SHARED: Probe = Probe {
    title: "MREMAP_DONTUNMAP of shared memory gives a second view or EINVAL",
    why: "the page says private anonymous memory only; kernels from 5.13 take shared memory too, and collectors use it",
    spec: &[man("mremap(2)", "MREMAP_DONTUNMAP"), kernel("mm/mremap.c", "a46041779353")],
    calls: CALLS,
    ..probe("map.remap.dontunmap.shared", dont_unmap_shared)
};
fn dont_unmap_shared(cx: &mut Context) -> Outcome {
    let island = Island::shared(1)?;
    island.write(0, 5);
    let new = match try_remap(&island, page(), page(), MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0) {
        Err(e) if e.errno == EINVAL => {
            cx.expect_eq("the memory", island.read(0), 5)?;
            // Without the flag the same move works.
            let new = remap(cx, &island, (page(), page()), MREMAP_MAYMOVE | MREMAP_FIXED, reserve(1)?.leak())?;
            return cx.expect_eq("the memory after a plain move", new.read(0), 5);
        }
        other => is_mapped(cx, cx.expect_ok(|| other)?)?,
    };
    cx.expect_eq("the new and the old range", (new.read(0), island.read(0)), (5, 5))?;
    new.write(0, 6);
    cx.expect_eq("a store to the new range, read from the old", island.read(0), 6)?;
    Ok(sys::munmap(new.address(), new.len())?)
}

const GROW_LOCKED: Probe = Probe {
    title: "memory that is locked stays locked when it grows",
    why: "a pool of keys that is enlarged must not become swappable",
    spec: &[man("mremap(2)", "DESCRIPTION")],
    needs: &[Need::Memlock(65_536), Need::Call(Sys::MemfdCreate)],
    calls: CALLS,
    ..probe("map.remap.grow.lock-kept", grow_locked)
};
fn grow_locked(cx: &mut Context) -> Outcome {
    let file = lettered_file(3)?;
    let island = Island::new(1, RW, MAP_SHARED, file.as_raw_fd())?;
    let before = locked()?;
    sys::mlock(island.address(), page())?;
    let grown = remap(cx, &island, (page(), 3 * page()), MREMAP_MAYMOVE, 0)?;
    cx.expect_eq("VmLck in kB", locked()? - before, kib(3))?;
    cx.expect_eq("resident kB", super::common::smaps(grown.address(), "Rss")?, kib(3))?;
    sys::munmap(grown.address(), grown.len())?;
    cx.expect_eq("VmLck in kB after munmap", locked()?, before)
}

const SAME_SIZE: Probe = Probe {
    title: "mremap to the same size returns the same address",
    why: "callers round sizes up to pages; a call that changes nothing must not move anything",
    spec: &[man("mremap(2)", "DESCRIPTION")],
    calls: CALLS,
    ..probe("map.remap.same-size.stays", same_size)
};
fn same_size(cx: &mut Context) -> Outcome {
    for flags in [SHARED, PRIVATE] {
        let map = Map::new(2 * page(), RW, flags, -1)?;
        map.touch(4);
        let new = remap(cx, &map, (2 * page(), page() + 1), MREMAP_MAYMOVE, 0)?;
        cx.expect_eq("the address", new.address(), map.address())?;
        cx.expect_eq("the contents", (map.read(0), map.read(page())), (4, 4))?;
    }
    Ok::<(), Stop>(())
}
