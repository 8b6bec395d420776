//! What mremap(2) refuses; afterwards the mapping is as it was.

use super::common::{FILE, Island, RW, locked, page, perms, probe, refused, reserve};
use libc::{
    EAGAIN, EFAULT, EINVAL, ENOMEM, MAP_FIXED, MAP_PRIVATE, MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE, PROT_READ,
    RLIMIT_AS, RLIMIT_MEMLOCK,
};
use shmcheck_probe::{Context, Map, Need, Outcome, Probe, Stop, Sys, kernel, man, procfs, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &UNALIGNED,
    &UNKNOWN_FLAG,
    &NEW_SIZE_ZERO,
    &FIXED_ALONE,
    &DONT_UNMAP_ALONE,
    &DONT_UNMAP_RESIZED,
    &TARGET_UNALIGNED,
    &TARGET_BEYOND,
    &OVERLAP,
    &PRIVATE_DUPLICATE,
    &DUPLICATE_FIXED_PLACE,
    &UNMAPPED,
    &TWO_KINDS,
    &NO_ROOM,
    &ADDRESS_SPACE,
    &LOCK_LIMIT,
];

const CALLS: &[Sys] = &[Sys::Mremap];

/// `mremap(address, old, new, flags, target)`
type Arguments = (usize, usize, usize, i32, usize);

/// The call fails with EINVAL for two shared pages, and they stay.
fn invalid(cx: &mut Context, arguments: fn(&Map) -> Arguments) -> Outcome {
    let island = Island::shared(2)?;
    island.touch(0x5e);
    let (address, old, new, flags, target) = arguments(&island);
    refused(cx, EINVAL, || sys::mremap_raw(address, old, new, flags, target))?;
    cx.expect_eq("the pages", (island.read(0), island.read(page())), (0x5e, 0x5e))?;
    shrinks(cx, &island)
}

/// The positive control: a valid call does its work on the same mapping.
fn shrinks(cx: &Context, island: &Island) -> Outcome {
    let at = cx.expect_ok(|| sys::mremap(island.address(), 2 * page(), page(), 0, 0))?;
    cx.expect_eq("the address of the valid call", at, island.address())?;
    cx.expect_eq("the second page after it", perms(island.address() + page())?, String::new())
}

const UNALIGNED: Probe = Probe {
    title: "an old address inside a page fails with EINVAL",
    why: "realloc of a pointer that mmap did not return shows here",
    spec: &[man("mremap(2)", "EINVAL")],
    calls: CALLS,
    ..probe("map.remap.refused.unaligned-einval", |cx| {
        invalid(cx, |map| (map.address() + 16, page(), 2 * page(), MREMAP_MAYMOVE, 0))
    })
};
const UNKNOWN_FLAG: Probe = Probe {
    title: "an unknown flag fails with EINVAL",
    why: "programs try new flags and fall back on this errno",
    spec: &[man("mremap(2)", "EINVAL")],
    calls: CALLS,
    ..probe("map.remap.refused.unknown-flag-einval", |cx| {
        invalid(cx, |map| (map.address(), 2 * page(), page(), MREMAP_MAYMOVE | 0x100, 0))
    })
};
const NEW_SIZE_ZERO: Probe = Probe {
    title: "a new size of 0 fails with EINVAL",
    why: "it is not another way to say munmap: the memory stays",
    spec: &[man("mremap(2)", "EINVAL")],
    calls: CALLS,
    ..probe("map.remap.refused.new-size-zero-einval", |cx| {
        invalid(cx, |map| (map.address(), 2 * page(), 0, MREMAP_MAYMOVE, 0))
    })
};
const FIXED_ALONE: Probe = Probe {
    title: "MREMAP_FIXED without MREMAP_MAYMOVE fails with EINVAL",
    why: "a caller that names a place but forbids the move contradicts itself",
    spec: &[man("mremap(2)", "EINVAL")],
    calls: CALLS,
    ..probe("map.remap.refused.fixed-alone-einval", |cx| {
        invalid(cx, |map| (map.address(), page(), page(), MREMAP_FIXED, map.address() + 4 * page()))
    })
};
const DONT_UNMAP_ALONE: Probe = Probe {
    title: "MREMAP_DONTUNMAP without MREMAP_MAYMOVE fails with EINVAL",
    why: "it always moves; an older kernel that ignores the flag would leave one mapping where two are expected",
    spec: &[man("mremap(2)", "EINVAL")],
    calls: CALLS,
    ..probe("map.remap.refused.dontunmap-alone-einval", |cx| {
        invalid(cx, |map| (map.address(), page(), page(), MREMAP_DONTUNMAP, 0))
    })
};
const DONT_UNMAP_RESIZED: Probe = Probe {
    title: "MREMAP_DONTUNMAP with another size fails with EINVAL",
    why: "a collector that got the sizes wrong must not lose the tail of its heap",
    spec: &[man("mremap(2)", "EINVAL")],
    calls: CALLS,
    ..probe("map.remap.refused.dontunmap-resized-einval", |cx| {
        invalid(cx, |map| (map.address(), 2 * page(), page(), MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0))
    })
};
const TARGET_BEYOND: Probe = Probe {
    title: "a new address beyond the address space fails with EINVAL",
    why: "a saved layout of a larger machine cannot be restored; nothing may be lost by the attempt",
    spec: &[man("mremap(2)", "EINVAL")],
    calls: CALLS,
    ..probe("map.remap.refused.target-beyond-einval", |cx| {
        invalid(cx, |map| (map.address(), page(), page(), MREMAP_MAYMOVE | MREMAP_FIXED, 1 << 62))
    })
};
const TARGET_UNALIGNED: Probe = Probe {
    title: "a new address inside a page fails with EINVAL",
    why: "mappings consist of whole pages; a rounded address would be the wrong one",
    spec: &[man("mremap(2)", "EINVAL")],
    calls: CALLS,
    ..probe("map.remap.refused.target-unaligned-einval", |cx| {
        invalid(cx, |map| {
            (map.address(), page(), page(), MREMAP_MAYMOVE | MREMAP_FIXED, map.address() + 4 * page() + 8)
        })
    })
};
const OVERLAP: Probe = Probe {
    title: "a new range that overlaps the old one fails with EINVAL",
    why: "moving memory over itself would unmap its own source first",
    spec: &[man("mremap(2)", "EINVAL")],
    calls: CALLS,
    ..probe("map.remap.refused.overlap-einval", |cx| {
        invalid(cx, |map| {
            (map.address(), 2 * page(), 2 * page(), MREMAP_MAYMOVE | MREMAP_FIXED, map.address() + page())
        })
    })
};
const DUPLICATE_FIXED_PLACE: Probe = Probe {
    title: "an old size of 0 without MREMAP_MAYMOVE is refused",
    why: "the duplicate needs a place of its own; EINVAL is documented, ENOMEM is what the first kernels gave",
    spec: &[man("mremap(2)", "DESCRIPTION"), kernel("mm/mremap.c", "mremap")],
    calls: CALLS,
    ..probe("map.remap.refused.old-size-zero-stays", duplicate_in_place)
};
fn duplicate_in_place(cx: &mut Context) -> Outcome {
    let island = Island::shared(2)?;
    island.touch(0x5e);
    cx.expect_errno_of(&[EINVAL, ENOMEM], || sys::mremap(island.address(), 0, page(), 0, 0))?;
    cx.expect_eq("the pages", (island.read(0), island.read(page())), (0x5e, 0x5e))?;
    shrinks(cx, &island)
}

const PRIVATE_DUPLICATE: Probe = Probe {
    title: "an old size of 0 on private memory fails with EINVAL",
    why: "before Linux 4.14 it gave an unrelated empty mapping that programs took for a copy",
    spec: &[man("mremap(2)", "EINVAL"), man("mremap(2)", "BUGS")],
    calls: CALLS,
    ..probe("map.remap.refused.old-size-zero-private-einval", private_duplicate)
};
fn private_duplicate(cx: &mut Context) -> Outcome {
    let island = Island::private(2)?;
    island.write(0, 8);
    refused(cx, EINVAL, || sys::mremap(island.address(), 0, page(), MREMAP_MAYMOVE, 0))?;
    cx.expect_eq("the page", island.read(0), 8)?;
    shrinks(cx, &island)
}

const UNMAPPED: Probe = Probe {
    title: "mremap where nothing is mapped fails with EFAULT",
    why: "a double free of a large block shows as this errno instead of as somebody else's memory",
    spec: &[man("mremap(2)", "EFAULT")],
    calls: CALLS,
    ..probe("map.remap.refused.unmapped-efault", unmapped)
};
fn unmapped(cx: &mut Context) -> Outcome {
    let around = reserve(3)?;
    let at = around.address() + page();
    sys::munmap(at, page())?;
    refused(cx, EFAULT, || sys::mremap(at, page(), 2 * page(), MREMAP_MAYMOVE, 0))?;
    cx.expect_eq("what is mapped there", perms(at)?, String::new())
}

const TWO_KINDS: Probe = Probe {
    title: "growing over two mappings of different kinds fails with EFAULT",
    why: "one call cannot enlarge half a file and half a heap",
    spec: &[man("mremap(2)", "EFAULT")],
    needs: FILE,
    calls: CALLS,
    ..probe("map.remap.refused.two-kinds-efault", two_kinds)
};
fn two_kinds(cx: &mut Context) -> Outcome {
    let file = super::common::lettered_file(1)?;
    let island = Island::shared(2)?;
    let behind = island.address() + page();
    let second = Map::at(behind, page(), PROT_READ, MAP_PRIVATE | MAP_FIXED, file.as_raw_fd(), 0)?;
    island.write(0, 7);
    refused(cx, EFAULT, || sys::mremap(island.address(), 2 * page(), 3 * page(), MREMAP_MAYMOVE, 0))?;
    cx.expect_eq("both pages", (island.read(0), second.read(0)), (7, b'a'))
}

const NO_ROOM: Probe = Probe {
    title: "growing without room fails with ENOMEM unless it may move",
    why: "programs with pointers into the block ask first whether it can grow in place",
    spec: &[man("mremap(2)", "ENOMEM")],
    calls: CALLS,
    ..probe("map.remap.refused.no-room-enomem", no_room)
};
fn no_room(cx: &mut Context) -> Outcome {
    let island = Island::shared(2)?;
    island.touch(2);
    refused(cx, ENOMEM, || sys::mremap(island.address(), 2 * page(), 3 * page(), 0, 0))?;
    cx.expect_eq("the pages", (island.read(0), island.read(page())), (2, 2))
}

const ADDRESS_SPACE: Probe = Probe {
    title: "growing beyond RLIMIT_AS fails with ENOMEM",
    why: "batch systems limit address space; realloc has to return NULL rather than the program to die",
    spec: &[man("mremap(2)", "ENOMEM"), man("setrlimit(2)", "RLIMIT_AS")],
    calls: CALLS,
    ..probe("map.remap.refused.address-space-enomem", address_space)
};
fn address_space(cx: &mut Context) -> Outcome {
    /// Well above what reading /proc needs in between.
    const ROOM: usize = 1 << 20;
    cx.elsewhere(|cx| {
        let map = Map::new(page(), RW, super::common::PRIVATE, -1)?;
        map.write(0, 6);
        let text = procfs::read("/proc/self/status")?;
        let size = procfs::field(&text, "VmSize").ok_or_else(|| Stop::skip("status:VmSize", "no such field"))?;
        sys::setrlimit(RLIMIT_AS, size * 1024 + ROOM as u64, sys::getrlimit(RLIMIT_AS)?.1)?;
        refused(cx, ENOMEM, || sys::mremap(map.address(), page(), 4 * ROOM, MREMAP_MAYMOVE, 0))?;
        cx.expect_eq("the page", map.read(0), 6)?;
        let at = cx.expect_ok(|| sys::mremap(map.address(), page(), 2 * page(), MREMAP_MAYMOVE, 0))?;
        cx.expect_eq("the page after growing by less", Map::view(at, page()).read(0), 6)
    })
}

const LOCK_LIMIT: Probe = Probe {
    title: "growing locked memory beyond RLIMIT_MEMLOCK fails with EAGAIN",
    why: "a key store that grows past its limit has to hear of it, and keep what it has locked",
    spec: &[man("mremap(2)", "EAGAIN")],
    needs: &[Need::Memlock(65_536)],
    calls: CALLS,
    ..probe("map.remap.refused.lock-limit-eagain", lock_limit)
};
fn lock_limit(cx: &mut Context) -> Outcome {
    cx.without_caps(&[caps::Capability::CAP_IPC_LOCK], |cx| {
        let island = Island::private(1)?;
        sys::mlock(island.address(), page())?;
        let now = locked()?;
        sys::setrlimit(RLIMIT_MEMLOCK, now * 1024, now * 1024)?;
        refused(cx, EAGAIN, || sys::mremap(island.address(), page(), 2 * page(), MREMAP_MAYMOVE, 0))?;
        cx.expect_eq("VmLck in kB", locked()?, now)
    })
}
