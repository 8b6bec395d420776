//! mseal(2): a mapping that can no longer be changed.

use super::common::{Island, PRIVATE, RW, SHARED, must, page, perms, probe, refused};
use libc::{EINVAL, ENOMEM, EPERM, MADV_DONTNEED, MAP_FIXED, MREMAP_FIXED, MREMAP_MAYMOVE, PROT_READ};
use shmcheck_probe::{Context, Map, Outcome, Probe, Stop, Sys, doc, sys};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &UNMAP,
    &PROTECT,
    &REMAP,
    &MAP_OVER,
    &REMAP_OVER,
    &DISCARD,
    &USABLE,
    &PART,
    &FORK,
    &AGAIN,
    &FLAGS,
    &UNALIGNED,
    &HOLE,
];

const BASE: Probe = Probe { spec: &[doc("Documentation/userspace-api/mseal.rst", "")], ..probe("", |_| Ok(())) };

/// Two sealed pages of these flags that hold 0x5a and have this protection.
fn sealed(protection: i32, flags: i32) -> Result<Island, Stop> {
    let island = Island::new(2, RW, flags, -1)?;
    island.touch(0x5a);
    sys::mprotect(island.address(), 2 * page(), protection)?;
    must(sys::mseal(island.address(), 2 * page(), 0))?;
    Ok(island)
}

/// The call fails with EPERM for sealed shared memory, which stays as it was.
fn forbidden(cx: &mut Context, call: impl FnOnce(&Map) -> sys::Result<()>) -> Outcome {
    let island = sealed(RW, SHARED)?;
    refused(cx, EPERM, || call(&island))?;
    cx.expect_eq("the letters", perms(island.address())?, "rw-s".to_owned())?;
    cx.expect_eq("the pages", (island.read(0), island.read(page())), (0x5a, 0x5a))
}

const UNMAP: Probe = Probe {
    title: "sealed memory cannot be unmapped: EPERM",
    why: "an exploit that unmaps a library's read-only data can put its own there",
    ..at("map.seal.munmap.eperm", |cx| forbidden(cx, |map| sys::munmap(map.address(), page())))
};
const PROTECT: Probe = Probe {
    title: "sealed memory keeps its protection: EPERM",
    why: "Chrome seals its JIT's pages: one mprotect less in an attacker's tool box",
    ..at("map.seal.mprotect.eperm", |cx| forbidden(cx, |map| sys::mprotect(map.address(), page(), PROT_READ)))
};
const REMAP: Probe = Probe {
    title: "sealed memory cannot be moved or shrunk by mremap: EPERM",
    why: "moving it away frees its address for somebody else's contents",
    ..at("map.seal.mremap.eperm", |cx| {
        forbidden(cx, |map| sys::mremap(map.address(), 2 * page(), page(), 0, 0).map(drop))?;
        let target = super::common::reserve(2)?;
        forbidden(cx, |map| {
            let flags = MREMAP_MAYMOVE | MREMAP_FIXED;
            sys::mremap(map.address(), 2 * page(), 2 * page(), flags, target.address()).map(drop)
        })
    })
};
const MAP_OVER: Probe = Probe {
    title: "MAP_FIXED cannot replace sealed memory: EPERM",
    why: "mapping over it is the third way to exchange its contents",
    ..at("map.seal.fixed.eperm", |cx| {
        forbidden(cx, |map| Map::at(map.address() + page(), page(), RW, PRIVATE | MAP_FIXED, -1, 0).map(drop))
    })
};
const REMAP_OVER: Probe = Probe {
    title: "MREMAP_FIXED cannot move another mapping over sealed memory: EPERM",
    why: "an attacker who can move one page of his own over a checked one needs no store at all",
    ..at("map.seal.mremap.target-eperm", |cx| {
        let other = Island::shared(1)?;
        forbidden(cx, |map| {
            let flags = MREMAP_MAYMOVE | MREMAP_FIXED;
            sys::mremap(other.address(), page(), page(), flags, map.address()).map(drop)
        })
    })
};

const DISCARD: Probe = Probe {
    title: "sealed private memory without PROT_WRITE cannot be discarded: EPERM",
    why: "MADV_DONTNEED would turn constants into zeroes, which is a store by another name",
    ..at("map.seal.dontneed.eperm", discard)
};
fn discard(cx: &mut Context) -> Outcome {
    let writable = sealed(RW, PRIVATE)?;
    cx.expect_ok(|| sys::madvise(writable.address(), page(), MADV_DONTNEED))?;
    let island = sealed(PROT_READ, PRIVATE)?;
    refused(cx, EPERM, || sys::madvise(island.address(), page(), MADV_DONTNEED))?;
    cx.expect_eq("the pages", (island.read(0), island.read(page())), (0x5a, 0x5a))
}

const USABLE: Probe = Probe {
    title: "sealed shared memory is used as before",
    why: "the seal is about the mapping; what lies in it goes on living",
    ..at("map.seal.contents.usable", usable)
};
fn usable(cx: &mut Context) -> Outcome {
    let island = sealed(RW, SHARED)?;
    cx.elsewhere(|_| {
        island.write(0, 0x5b);
        Ok(())
    })?;
    cx.expect_eq("a child's store", island.read(0), 0x5b)?;
    cx.expect_errno(EPERM, || sys::munmap(island.address(), 2 * page()))
}

const PART: Probe = Probe {
    title: "sealing a part leaves the rest changeable",
    why: "a loader seals a library's relocated pages and nothing else",
    ..at("map.seal.part.rest-free", part)
};
fn part(cx: &mut Context) -> Outcome {
    let island = Island::shared(3)?;
    must(sys::mseal(island.address() + page(), page(), 0))?;
    refused(cx, EPERM, || sys::munmap(island.address(), 3 * page()))?;
    cx.expect_ok(|| sys::munmap(island.address(), page()))?;
    cx.expect_ok(|| sys::mprotect(island.address() + 2 * page(), page(), PROT_READ))?;
    let seen = [0, 1, 2].map(|n| perms(island.address() + n * page()));
    let seen: Vec<String> = seen.into_iter().collect::<Result<_, Stop>>()?;
    cx.expect_eq("the three pages", seen, ["", "rw-s", "r--s"].map(str::to_owned).to_vec())
}

const FORK: Probe = Probe {
    title: "a child's mapping is sealed as its parent's is",
    why: "Android's zygote seals once; an app that could undo it would have nothing of it",
    ..at("map.seal.fork.inherited", fork)
};
fn fork(cx: &mut Context) -> Outcome {
    let island = sealed(RW, SHARED)?;
    cx.elsewhere(|cx| cx.expect_errno(EPERM, || sys::munmap(island.address(), page())))
}

const AGAIN: Probe = Probe {
    title: "sealing sealed memory again succeeds",
    why: "two parts of a program may both seal the same range",
    ..at("map.seal.again.succeeds", again)
};
fn again(cx: &mut Context) -> Outcome {
    let island = sealed(RW, SHARED)?;
    cx.expect_ok(|| sys::mseal(island.address(), 2 * page(), 0))?;
    refused(cx, EPERM, || sys::munmap(island.address(), page()))
}

const FLAGS: Probe = Probe {
    title: "mseal with a flag fails with EINVAL",
    why: "flags are for later kernels; a seal that did less than it was asked would be trusted",
    ..at("map.seal.refused.flags-einval", |cx| unsealed(cx, EINVAL, |map| sys::mseal(map.address(), page(), 1)))
};
const UNALIGNED: Probe = Probe {
    title: "mseal of an address inside a page fails with EINVAL",
    why: "there is no way back: it seals what was named, or nothing",
    ..at("map.seal.refused.unaligned-einval", |cx| unsealed(cx, EINVAL, |map| sys::mseal(map.address() + 8, page(), 0)))
};
const HOLE: Probe = Probe {
    title: "mseal over a hole seals nothing: ENOMEM",
    why: "a half-sealed range would look sealed to whoever checks its start",
    ..at("map.seal.refused.hole-enomem", |cx| unsealed(cx, ENOMEM, |map| sys::mseal(map.address(), 4 * page(), 0)))
};
/// The call is refused for three pages with a hole behind the second, and the first can be unmapped afterwards.
fn unsealed(cx: &mut Context, errno: i32, call: fn(&Map) -> sys::Result<()>) -> Outcome {
    let island = Island::shared(3)?;
    sys::munmap(island.address() + 2 * page(), page())?;
    refused(cx, errno, || call(&island))?;
    cx.expect_ok(|| sys::munmap(island.address(), page()))?;
    cx.expect_eq("what is left at the first page", perms(island.address())?, String::new())?;
    cx.expect_ok(|| sys::mseal(island.address() + page(), page(), 0))?;
    cx.expect_errno(EPERM, || sys::munmap(island.address() + page(), page()))
}

#[track_caller]
const fn at(id: &'static str, run: fn(&mut Context) -> Outcome) -> Probe {
    Probe { id, run, location: std::panic::Location::caller(), calls: &[Sys::Mseal], ..BASE }
}
