//! munmap(2): whole, in part, over holes.

use super::common::{
    FILE, Fault, Island, RW, SHARED, fault_of, lettered_file, load, must, page, perms, probe, refused, reserve,
};
use libc::{EINVAL, MAP_FIXED, MAP_PRIVATE, SIGSEGV};
use shmcheck_probe::{Context, Map, Outcome, Probe, Stop, Sys, man, posix, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &WHOLE,
    &MAPERR,
    &HEAD,
    &MIDDLE,
    &TAIL,
    &SEVERAL,
    &HOLE,
    &LENGTH_ROUNDED,
    &CALLER_ONLY,
    &COPIES_LOST,
    &UNALIGNED,
    &LENGTH_ZERO,
    &BEYOND,
];

const CALLS: &[Sys] = &[Sys::Munmap];

const WHOLE: Probe = Probe {
    title: "after munmap an access to the range raises SIGSEGV",
    why: "a use after unmap must be a crash at the place of the bug, not another thread's data",
    spec: &[man("mmap(2)", "munmap()"), posix("munmap")],
    calls: CALLS,
    ..probe("map.unmap.whole.sigsegv", whole)
};
fn whole(cx: &mut Context) -> Outcome {
    let island = Island::shared(2)?;
    cx.expect_no_signal("a load before", || load(&island, page()))?;
    must(sys::munmap(island.address(), 2 * page()))?;
    cx.expect_signal("a load from the first page", SIGSEGV, || load(&island, 0))?;
    cx.expect_signal("a store to the second page", SIGSEGV, || island.write(page(), 1))?;
    cx.expect_eq("what is mapped there", perms(island.address())?, String::new())
}

const MAPERR: Probe = Probe {
    title: "the fault in an unmapped range carries SEGV_MAPERR with the address",
    why: "crash reporters tell 'no memory there' from 'not allowed' by it",
    spec: &[man("sigaction(2)", "SEGV_MAPERR"), posix("signal.h")],
    calls: CALLS,
    ..probe("map.unmap.whole.segv-maperr", maperr)
};
fn maperr(cx: &mut Context) -> Outcome {
    let island = Island::shared(1)?;
    let address = island.address() + 77;
    let fault = fault_of(cx, || {
        if sys::munmap(island.address(), page()).is_ok() {
            island.write(77, 1);
        }
    })?;
    cx.expect_eq("the fault", fault, Fault { signal: SIGSEGV, code: 1, address })
}

const HEAD: Probe = Probe {
    title: "munmap of the head leaves the rest with its contents",
    why: "allocators trim what lies before an aligned block",
    spec: &[man("mmap(2)", "munmap()"), posix("munmap")],
    calls: CALLS,
    ..probe("map.unmap.part.head", |cx| part(cx, 0))
};
const MIDDLE: Probe = Probe {
    title: "munmap of the middle leaves two mappings with their contents",
    why: "memory pools give single blocks back while their neighbours are in use",
    spec: &[man("mmap(2)", "munmap()"), posix("munmap")],
    calls: CALLS,
    ..probe("map.unmap.part.middle", |cx| part(cx, 1))
};
const TAIL: Probe = Probe {
    title: "munmap of the tail leaves the rest with its contents",
    why: "files that shrink are unmapped from behind",
    spec: &[man("mmap(2)", "munmap()"), posix("munmap")],
    calls: CALLS,
    ..probe("map.unmap.part.tail", |cx| part(cx, 2))
};
fn part(cx: &mut Context, gone: usize) -> Outcome {
    let island = Island::shared(3)?;
    for n in 0..3 {
        island.write(n * page(), n as u8 + 1);
    }
    must(sys::munmap(island.address() + gone * page(), page()))?;
    for n in (0..3).filter(|n| *n != gone) {
        cx.expect_eq("a page that stayed", island.read(n * page()), n as u8 + 1)?;
        cx.elsewhere(|_| {
            island.write(n * page(), 0x50);
            Ok(())
        })?;
        cx.expect_eq("a child's store to it", island.read(n * page()), 0x50)?;
    }
    cx.expect_signal("a load from the page that went", SIGSEGV, || load(&island, gone * page()))
}

const SEVERAL: Probe = Probe {
    title: "one munmap ends all mappings in its range",
    why: "a loader unmaps a whole library, all segments and gaps, with one call",
    spec: &[man("mmap(2)", "munmap()"), posix("munmap")],
    calls: CALLS,
    ..probe("map.unmap.several.one-call", several)
};
fn several(cx: &mut Context) -> Outcome {
    let around = reserve(6)?;
    let at = |n: usize| around.address() + n * page();
    for n in [1, 2, 4] {
        Map::at(at(n), page(), RW, SHARED | MAP_FIXED, -1, 0)?.leak();
    }
    must(sys::munmap(at(3), page()))?;
    must(sys::munmap(at(1), 4 * page()))?;
    let left: Vec<usize> = (0..6).map(|n| Ok(perms(at(n))?.len())).collect::<Result<_, Stop>>()?;
    cx.expect_eq("letters of the six pages", left, vec![4, 0, 0, 0, 0, 4])
}

const HOLE: Probe = Probe {
    title: "munmap of a range where nothing is mapped succeeds",
    why: "clean-up code unmaps twice; an error there would turn a shutdown into a failure",
    spec: &[man("mmap(2)", "munmap()"), posix("munmap")],
    calls: CALLS,
    ..probe("map.unmap.hole.no-error", hole)
};
fn hole(cx: &mut Context) -> Outcome {
    let around = reserve(3)?;
    let at = around.address() + page();
    cx.expect_ok(|| sys::munmap(at, page()))?;
    cx.expect_eq("what is left", perms(at)?, String::new())?;
    cx.expect_ok(|| sys::munmap(at, page()))?;
    cx.expect_eq("the neighbours", (perms(at - page())?, perms(at + page())?), ("---p".to_owned(), "---p".to_owned()))
}

const LENGTH_ROUNDED: Probe = Probe {
    title: "munmap ends every page that holds a part of the range",
    why: "callers pass the file's length; half a page left over is address space that leaks",
    spec: &[man("mmap(2)", "munmap()"), posix("munmap")],
    calls: CALLS,
    ..probe("map.unmap.part.length-rounded", length_rounded)
};
fn length_rounded(cx: &mut Context) -> Outcome {
    let island = Island::shared(3)?;
    island.touch(7);
    cx.expect_ok(|| sys::munmap(island.address(), page() + 1))?;
    let left = (perms(island.address())?, perms(island.address() + page())?, island.read(2 * page()));
    cx.expect_eq("the three pages", left, (String::new(), String::new(), 7))
}

const CALLER_ONLY: Probe = Probe {
    title: "munmap ends the mapping in the calling process alone",
    why: "a client that detaches must not pull the memory away under the server",
    spec: &[man("mmap(2)", "munmap()"), man("fork(2)", "NOTES")],
    calls: CALLS,
    ..probe("map.unmap.whole.caller-only", caller_only)
};
fn caller_only(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(page())?;
    let left = cx.elsewhere(|_| {
        map.write(0, 0x21);
        must(sys::munmap(map.address(), page()))?;
        perms(map.address())
    })?;
    cx.expect_eq("the child's mapping afterwards", left, String::new())?;
    cx.expect_eq("the parent's byte", map.read(0), 0x21)
}

const COPIES_LOST: Probe = Probe {
    title: "private copies end with munmap: the next mapping shows the file",
    why: "a library that is unloaded and loaded again starts with fresh data",
    spec: &[man("mmap(2)", "MAP_PRIVATE"), posix("munmap")],
    needs: FILE,
    calls: CALLS,
    ..probe("map.unmap.whole.copies-lost", copies_lost)
};
fn copies_lost(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let map = Map::new(page(), RW, MAP_PRIVATE, file.as_raw_fd())?;
    map.write(0, b'!');
    let address = map.address();
    map.close()?;
    cx.expect_eq("what is left at its address", perms(address)?, String::new())?;
    cx.expect_eq("the next mapping", Map::new(page(), RW, MAP_PRIVATE, file.as_raw_fd())?.read(0), b'a')
}

const UNALIGNED: Probe = Probe {
    title: "munmap of an address inside a page fails with EINVAL",
    why: "rounding down would unmap a page that the caller did not mean",
    spec: &[man("mmap(2)", "EINVAL"), posix("munmap")],
    calls: CALLS,
    ..probe("map.unmap.refused.unaligned-einval", |cx| refuse(cx, |map| (map.address() + 1, page())))
};
const LENGTH_ZERO: Probe = Probe {
    title: "munmap of length 0 fails with EINVAL",
    why: "a length that was never set shows as this error instead of a leak",
    spec: &[man("mmap(2)", "EINVAL"), posix("munmap")],
    calls: CALLS,
    ..probe("map.unmap.refused.length-zero-einval", |cx| refuse(cx, |map| (map.address(), 0)))
};
const BEYOND: Probe = Probe {
    title: "munmap beyond the address space fails with EINVAL",
    why: "an address and a length whose sum wraps around must not unmap anything",
    spec: &[man("mmap(2)", "EINVAL"), posix("munmap")],
    calls: CALLS,
    ..probe("map.unmap.refused.beyond-space-einval", |cx| refuse(cx, |map| (map.address(), usize::MAX - page() + 1)))
};
fn refuse(cx: &mut Context, range: fn(&Map) -> (usize, usize)) -> Outcome {
    let map = Map::shared_anonymous(2 * page())?;
    map.touch(1);
    let (address, length) = range(&map);
    refused(cx, EINVAL, || sys::munmap(address, length))?;
    cx.expect_eq("both pages", (map.read(0), map.read(page())), (1, 1))?;
    cx.expect_ok(|| sys::munmap(map.address(), 2 * page()))?;
    cx.expect_eq("what is left of them after a valid call", perms(map.address())?, String::new())
}
