//! Where a mapping lies: hints, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_32BIT, MAP_GROWSDOWN.

use super::common::{PRIVATE, RW, SHARED, load, page, perms, probe, refused, reserve};
use caps::Capability;
use libc::{EACCES, EEXIST, EPERM, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_GROWSDOWN, SIGSEGV};
use shmcheck_probe::{Context, Map, Outcome, Probe, Stop, kernel, man, posix, procfs, sys};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &HINT_FREE,
    &HINT_TAKEN,
    &HINT_UNALIGNED,
    &HINT_LOW,
    &ZERO_PAGE,
    &FIXED_EXACT,
    &FIXED_REPLACES,
    &FIXED_OTHERS,
    &NOREPLACE_TAKEN,
    &NOREPLACE_OVERLAP,
    &NOREPLACE_FREE,
    &LOW_32,
    &GROWS,
    &GROWS_STOPS,
];

const HINT_FREE: Probe = Probe {
    title: "an address that is free is taken as the place",
    why: "emulators and sanitizers ask for one address and give up when they get another",
    spec: &[man("mmap(2)", "DESCRIPTION")],
    ..probe("map.place.hint.free-taken", hint_free)
};
fn hint_free(cx: &mut Context) -> Outcome {
    let around = reserve(5)?;
    let at = around.address() + 2 * page();
    sys::munmap(around.address() + page(), 3 * page())?;
    let map = Map::at(at, page(), RW, SHARED, -1, 0)?;
    cx.expect_eq("the address", map.address(), at)
}

const HINT_TAKEN: Probe = Probe {
    title: "an address that is taken gives another place",
    why: "two libraries that want the same address must not overwrite each other's memory",
    spec: &[man("mmap(2)", "DESCRIPTION"), posix("mmap")],
    ..probe("map.place.hint.taken-elsewhere", hint_taken)
};
fn hint_taken(cx: &mut Context) -> Outcome {
    let first = Map::shared_anonymous(page())?;
    first.write(0, 0x11);
    let second = Map::at(first.address(), page(), RW, SHARED, -1, 0)?;
    second.write(0, 0x22);
    cx.expect_ne("the address of the second", second.address(), first.address())?;
    cx.expect_eq("the first mapping", first.read(0), 0x11)
}

const HINT_UNALIGNED: Probe = Probe {
    title: "an address inside a page without MAP_FIXED gives a whole page",
    why: "the address is only a hint: programs pass any pointer there",
    spec: &[man("mmap(2)", "DESCRIPTION")],
    ..probe("map.place.hint.unaligned-rounded", hint_unaligned)
};
fn hint_unaligned(cx: &mut Context) -> Outcome {
    let around = reserve(6)?;
    sys::munmap(around.address() + page(), 4 * page())?;
    let map = cx.expect_ok(|| Map::at(around.address() + 2 * page() + 123, page(), RW, SHARED, -1, 0))?;
    cx.expect_eq("the address within its page", map.address() % page(), 0)?;
    cx.expect(
        "the distance to the hint",
        map.address().abs_diff(around.address() + 2 * page()) <= page(),
        "at most a page",
        map.address(),
    )?;
    cx.expect_no_signal("stores to the whole page", || {
        map.write(0, 1);
        map.write(page() - 1, 1);
    })
}

const HINT_LOW: Probe = Probe {
    title: "a hint below vm.mmap_min_addr gives a place at or above it",
    why: "null pointer dereferences must hit nothing; a program's hint must not undo that",
    spec: &[man("mmap(2)", "DESCRIPTION"), man("proc(5)", "/proc/sys/vm/mmap_min_addr")],
    ..probe("map.place.hint.above-min-addr", hint_low)
};
fn hint_low(cx: &mut Context) -> Outcome {
    let least = min_addr()?;
    let map = Map::at(1, page(), RW, SHARED, -1, 0)?;
    cx.expect("the address", map.address() >= least, format!("at least {least:#x}"), map.address())
}

fn min_addr() -> Result<usize, Stop> {
    match procfs::sysctl("vm/mmap_min_addr")?.trim().parse() {
        Ok(0) | Err(_) => Err(Stop::skip("sysctl:vm/mmap_min_addr", "it is 0")),
        Ok(least) => Ok(least),
    }
}

const ZERO_PAGE: Probe = Probe {
    title: "without CAP_SYS_RAWIO nothing is mapped below vm.mmap_min_addr",
    why: "a bug of the kernel that follows a null pointer would read what an attacker put there",
    spec: &[man("proc(5)", "/proc/sys/vm/mmap_min_addr"), kernel("security/commoncap.c", "cap_mmap_addr")],
    ..probe("map.place.fixed.below-min-addr", zero_page)
};
fn zero_page(cx: &mut Context) -> Outcome {
    min_addr()?;
    cx.without_caps(&[Capability::CAP_SYS_RAWIO], |cx| {
        // A security module refuses with EACCES where the capability check is its own (SELinux, mmap_zero).
        cx.expect_errno_of(&[EPERM, EACCES], || Map::at(0, page(), RW, SHARED | MAP_FIXED, -1, 0))?;
        cx.expect_eq("what is mapped at 0", perms(0)?, String::new())
    })
}

const FIXED_EXACT: Probe = Probe {
    title: "MAP_FIXED places the mapping at exactly the address",
    why: "shared memory with pointers inside works at one address only: Oracle's SGA and checkpoint/restore",
    spec: &[man("mmap(2)", "MAP_FIXED"), posix("mmap")],
    ..probe("map.place.fixed.exact", fixed_exact)
};
fn fixed_exact(cx: &mut Context) -> Outcome {
    let around = reserve(4)?;
    for n in [2, 1, 3] {
        let at = around.address() + n * page();
        let map = Map::at(at, page(), RW, SHARED | MAP_FIXED, -1, 0)?;
        cx.expect_eq("the address", map.address(), at)?;
        cx.expect_eq("what /proc/self/maps has there", perms(at)?, "rw-s".to_owned())?;
        map.leak();
    }
    Ok(())
}

const FIXED_REPLACES: Probe = Probe {
    title: "MAP_FIXED discards the overlapped part of a mapping, no more",
    why: "loaders put a library's segments over one reservation; the neighbours have to stay",
    spec: &[man("mmap(2)", "MAP_FIXED"), posix("mmap")],
    ..probe("map.place.fixed.replaces-overlap", fixed_replaces)
};
fn fixed_replaces(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(3 * page())?;
    map.touch(0x31);
    let middle = Map::at(map.address() + page(), page(), RW, SHARED | MAP_FIXED, -1, 0)?;
    cx.expect_eq("the address", middle.address(), map.address() + page())?;
    let pages = (map.read(0), map.read(page()), map.read(2 * page()));
    cx.expect_eq("the three pages", pages, (0x31, 0, 0x31))?;
    cx.elsewhere(|_| {
        map.touch(0x32);
        Ok(())
    })?;
    let pages = (map.read(0), map.read(page()), map.read(2 * page()));
    cx.expect_eq("the three pages after a child's stores", pages, (0x32, 0x32, 0x32))
}

const FIXED_OTHERS: Probe = Probe {
    title: "MAP_FIXED over shared memory does not take it from others",
    why: "a worker that puts private memory over a shared page leaves the pool; the pool goes on without it",
    spec: &[man("mmap(2)", "MAP_FIXED")],
    ..probe("map.place.fixed.others-keep", fixed_others)
};
fn fixed_others(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(page())?;
    map.write(0, 1);
    let childs = cx.elsewhere(|_| {
        let own = Map::at(map.address(), page(), RW, PRIVATE | MAP_FIXED, -1, 0)?;
        let before = own.read(0);
        own.write(0, 2);
        Ok(before)
    })?;
    cx.expect_eq("the child's new page", childs, 0)?;
    cx.expect_eq("the parent's page", map.read(0), 1)
}

const NOREPLACE_TAKEN: Probe = Probe {
    title: "MAP_FIXED_NOREPLACE over a mapping fails with EEXIST",
    why: "the loader maps programs with it: a library already there must not be overwritten",
    spec: &[man("mmap(2)", "EEXIST"), man("mmap(2)", "MAP_FIXED_NOREPLACE")],
    ..probe("map.place.noreplace.taken-eexist", |cx| noreplace(cx, 1, 1))
};
const NOREPLACE_OVERLAP: Probe = Probe {
    title: "MAP_FIXED_NOREPLACE fails with EEXIST on a partial overlap",
    why: "the first kernels with the flag looked at the first page only and clobbered the rest",
    spec: &[man("mmap(2)", "EEXIST"), kernel("mm/mmap.c", "7aa867dd8952")],
    ..probe("map.place.noreplace.overlap-eexist", |cx| noreplace(cx, 0, 2))
};
fn noreplace(cx: &mut Context, first: usize, pages: usize) -> Outcome {
    let around = reserve(3)?;
    let taken = Map::at(around.address() + page(), page(), RW, SHARED | MAP_FIXED, -1, 0)?;
    taken.write(0, 0x99);
    sys::munmap(around.address(), page())?;
    sys::munmap(around.address() + 2 * page(), page())?;
    let at = around.address() + first * page();
    refused(cx, EEXIST, || Map::at(at, pages * page(), RW, SHARED | MAP_FIXED_NOREPLACE, -1, 0))?;
    cx.expect_eq("the mapping that was there", taken.read(0), 0x99)
}

const NOREPLACE_FREE: Probe = Probe {
    title: "MAP_FIXED_NOREPLACE in a free range maps at exactly the address",
    why: "heaps of one layout in many processes (SAP, Erlang) claim their place this way",
    spec: &[man("mmap(2)", "MAP_FIXED_NOREPLACE")],
    ..probe("map.place.noreplace.free-exact", noreplace_free)
};
fn noreplace_free(cx: &mut Context) -> Outcome {
    let around = reserve(4)?;
    let at = around.address() + page();
    sys::munmap(at, 2 * page())?;
    let map = cx.expect_ok(|| Map::at(at, 2 * page(), RW, SHARED | MAP_FIXED_NOREPLACE, -1, 0))?;
    cx.expect_eq("the address", map.address(), at)
}

const LOW_32: Probe = Probe {
    title: "MAP_32BIT maps within the first 2 GiB",
    why: "code that keeps pointers in 32 bits (older JITs, Wine, Mono) runs only there",
    spec: &[man("mmap(2)", "MAP_32BIT")],
    ..probe("map.place.32bit.below-2-gib", low_32)
};
fn low_32(cx: &mut Context) -> Outcome {
    /// `MAP_32BIT`, arch/x86/include/uapi/asm/mman.h; other architectures do not have it.
    const BELOW_2_GIB: i32 = 0x40;
    if !cfg!(target_arch = "x86_64") {
        return Err(Stop::skip("x86-64", std::env::consts::ARCH));
    }
    let map = Map::new(2 * page(), RW, SHARED | BELOW_2_GIB, -1)?;
    cx.expect("its end", map.address() + map.len() <= 1 << 31, "at most 0x80000000", map.address() + map.len())
}

/// A growing mapping of one page, `free` unmapped pages below it, and there a page that can be read; in the order of
/// addresses. Made in the process that is to use it.
fn growing(free: usize) -> Result<(Map, Map), Stop> {
    let around = reserve(free + 3)?;
    let below = Map::at(around.address(), page(), RW, PRIVATE | MAP_FIXED, -1, 0)?;
    let top = around.address() + (free + 1) * page();
    // From here on only these two and the topmost page are mapped; nothing allocates in between.
    sys::munmap(below.address() + page(), free * page())?;
    let stack = Map::at(top, page(), RW, PRIVATE | MAP_FIXED | MAP_GROWSDOWN, -1, 0)?;
    around.leak();
    Ok((below, stack))
}

const GROWS: Probe = Probe {
    title: "a MAP_GROWSDOWN mapping grows when the page below is touched",
    why: "the main thread's stack is one; languages with stacks of their own build on the same flag",
    spec: &[man("mmap(2)", "MAP_GROWSDOWN")],
    ..probe("map.place.grows-down.grows", grows)
};
fn grows(cx: &mut Context) -> Outcome {
    let (before, after) = cx.elsewhere(|_| {
        let (_below, stack) = growing(1024)?;
        let start = |at: usize| Ok::<_, Stop>(procfs::mapping_at(at)?.map(|m| at - m.start));
        let before = start(stack.address())?;
        for n in 1..=3 {
            Map::view(stack.address() - n * page(), page()).write(0, 1);
        }
        Ok((before, start(stack.address())?))
    })?;
    cx.expect_eq("bytes below before", before, Some(0))?;
    cx.expect_eq("bytes below after three pages were touched", after, Some(3 * page()))
}

const GROWS_STOPS: Probe = Probe {
    title: "a MAP_GROWSDOWN mapping stops growing above its neighbour",
    why: "Stack Clash: without a gap a deep recursion runs into the heap and the attacker writes return addresses",
    spec: &[man("mmap(2)", "MAP_GROWSDOWN")],
    ..probe("map.place.grows-down.stops-at-neighbour", grows_stops)
};
fn grows_stops(cx: &mut Context) -> Outcome {
    cx.expect_signal("touching the page below that borders on a mapping", SIGSEGV, || {
        if let Ok((_below, stack)) = growing(1) {
            load(&Map::view(stack.address() - page(), page()), 0);
        }
    })
}
