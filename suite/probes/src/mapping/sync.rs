//! msync(2): flags, ranges, locks.

use super::common::{FILE, Island, RW, SHARED, byte_of, lettered_file, must, page, probe, reserve};
use libc::{EBUSY, EINVAL, ENOMEM, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, MS_ASYNC, MS_INVALIDATE, MS_SYNC};
use shmcheck_probe::{Context, Map, Need, Outcome, Probe, Sys, man, posix, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] =
    &[&ACCEPTED, &INVALIDATE, &PRIVATE_KEPT, &BOTH, &UNKNOWN, &UNALIGNED, &UNMAPPED, &HOLE, &LOCKED, &LENGTH_ZERO];

const CALLS: &[Sys] = &[Sys::Msync];

const ACCEPTED: Probe = Probe {
    title: "msync takes MS_SYNC, MS_ASYNC or neither, with or without MS_INVALIDATE",
    why: "journals sync with every combination that some Unix once asked for",
    spec: &[man("msync(2)", "NOTES"), posix("msync")],
    needs: FILE,
    calls: CALLS,
    ..probe("map.sync.flags.accepted", accepted)
};
fn accepted(cx: &mut Context) -> Outcome {
    let file = lettered_file(2)?;
    let map = Map::shared(&file, 2 * page())?;
    let anonymous = Map::shared_anonymous(page())?;
    for flags in [MS_SYNC, MS_ASYNC, 0, MS_SYNC | MS_INVALIDATE, MS_ASYNC | MS_INVALIDATE, MS_INVALIDATE] {
        let value = b'0' + flags as u8;
        map.write(page(), value);
        anonymous.write(0, value);
        cx.expect_ok(|| sys::msync(map.address(), 2 * page(), flags))?;
        cx.expect_ok(|| sys::msync(anonymous.address(), page(), flags))?;
        let seen = (map.read(page()), byte_of(&file, page())?, anonymous.read(0));
        cx.expect_eq("mapping, file, memory without a file", seen, (value, value, value))?;
    }
    Ok(())
}

const INVALIDATE: Probe = Probe {
    title: "after MS_INVALIDATE other mappings show what was written",
    why: "portable programs call it before they read what another process has written",
    spec: &[man("msync(2)", "MS_INVALIDATE"), posix("msync")],
    needs: FILE,
    calls: CALLS,
    ..probe("map.sync.invalidate.fresh", invalidate)
};
fn invalidate(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let map = Map::shared(&file, page())?;
    let other = Map::shared(&file, page())?;
    cx.expect_eq("the other mapping before", other.read(0), b'a')?;
    cx.elsewhere(|_| {
        let own = Map::shared(&file, page())?;
        own.write(0, b'!');
        must(sys::msync(own.address(), page(), MS_SYNC | MS_INVALIDATE))
    })?;
    cx.expect_ok(|| sys::msync(map.address(), page(), MS_INVALIDATE))?;
    cx.expect_eq("both mappings", (map.read(0), other.read(0)), (b'!', b'!'))
}

const PRIVATE_KEPT: Probe = Probe {
    title: "MS_INVALIDATE does not take private copies away",
    why: "a copy that was stored to is this program's data, not a cache of the file",
    spec: &[man("msync(2)", "MS_INVALIDATE"), man("mmap(2)", "MAP_PRIVATE")],
    needs: FILE,
    calls: CALLS,
    ..probe("map.sync.invalidate.private-kept", private_kept)
};
fn private_kept(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let map = Map::new(page(), RW, MAP_PRIVATE, file.as_raw_fd())?;
    map.write(0, b'!');
    cx.expect_ok(|| sys::msync(map.address(), page(), MS_SYNC | MS_INVALIDATE))?;
    cx.expect_eq("the copy, the file", (map.read(0), byte_of(&file, 0)?), (b'!', b'a'))
}

const BOTH: Probe = Probe {
    title: "MS_SYNC together with MS_ASYNC fails with EINVAL",
    why: "a caller who asks to wait and not to wait must not be told that its data is safe",
    spec: &[man("msync(2)", "EINVAL"), posix("msync")],
    calls: CALLS,
    ..probe("map.sync.refused.both-einval", |cx| invalid(cx, |map| (map.address(), page(), MS_SYNC | MS_ASYNC)))
};
const UNKNOWN: Probe = Probe {
    title: "msync with an unknown flag fails with EINVAL",
    why: "flags have other numbers on other systems; a port that forgot to recompile shows here",
    spec: &[man("msync(2)", "EINVAL"), posix("msync")],
    calls: CALLS,
    ..probe("map.sync.refused.unknown-flag-einval", |cx| invalid(cx, |map| (map.address(), page(), MS_SYNC | 0x100)))
};
const UNALIGNED: Probe = Probe {
    title: "msync of an address inside a page fails with EINVAL",
    why: "databases that pass the address of a record learn that pages are synced, not records",
    spec: &[man("msync(2)", "EINVAL"), posix("msync")],
    calls: CALLS,
    ..probe("map.sync.refused.unaligned-einval", |cx| invalid(cx, |map| (map.address() + 8, page(), MS_SYNC)))
};
fn invalid(cx: &mut Context, arguments: fn(&Map) -> (usize, usize, i32)) -> Outcome {
    let map = Map::shared_anonymous(2 * page())?;
    cx.expect_ok(|| sys::msync(map.address(), page(), MS_SYNC))?;
    let (address, length, flags) = arguments(&map);
    cx.expect_errno(EINVAL, || sys::msync(address, length, flags))
}

const UNMAPPED: Probe = Probe {
    title: "msync where nothing is mapped fails with ENOMEM",
    why: "a commit of memory that was unmapped must not be acknowledged",
    spec: &[man("msync(2)", "ENOMEM"), posix("msync")],
    calls: CALLS,
    ..probe("map.sync.refused.unmapped-enomem", unmapped)
};
fn unmapped(cx: &mut Context) -> Outcome {
    let around = reserve(3)?;
    sys::munmap(around.address() + page(), page())?;
    for flags in [MS_SYNC, MS_ASYNC] {
        cx.expect_errno(ENOMEM, || sys::msync(around.address() + page(), page(), flags))?;
    }
    Ok(())
}

const HOLE: Probe = Probe {
    title: "msync over a hole fails with ENOMEM",
    why: "a database that lost a part of its mapping must not believe all of it is on disk",
    spec: &[man("msync(2)", "ENOMEM"), posix("msync")],
    needs: FILE,
    calls: CALLS,
    ..probe("map.sync.refused.hole-enomem", hole)
};
fn hole(cx: &mut Context) -> Outcome {
    let file = lettered_file(3)?;
    let around = reserve(3)?;
    let map = Map::at(around.address(), 3 * page(), RW, MAP_SHARED | MAP_FIXED, file.as_raw_fd(), 0)?;
    cx.expect_ok(|| sys::msync(map.address(), 3 * page(), MS_SYNC))?;
    sys::munmap(map.address() + page(), page())?;
    cx.expect_errno(ENOMEM, || sys::msync(map.address(), 3 * page(), MS_SYNC))?;
    cx.expect_ok(|| sys::msync(map.address(), page(), MS_SYNC))
}

const LOCKED: Probe = Probe {
    title: "MS_INVALIDATE over locked memory fails with EBUSY",
    why: "locked pages may not be thrown away; a program that does both has to learn which of them failed",
    spec: &[man("msync(2)", "EBUSY"), posix("msync")],
    needs: &[Need::Memlock(65_536)],
    calls: CALLS,
    ..probe("map.sync.invalidate.locked-ebusy", locked)
};
fn locked(cx: &mut Context) -> Outcome {
    let island = Island::shared(3)?;
    island.touch(0x2d);
    sys::mlock(island.address() + page(), page())?;
    cx.expect_ok(|| sys::msync(island.address(), 3 * page(), MS_SYNC))?;
    cx.expect_errno(EBUSY, || sys::msync(island.address(), 3 * page(), MS_SYNC | MS_INVALIDATE))?;
    cx.expect_ok(|| sys::msync(island.address(), page(), MS_SYNC | MS_INVALIDATE))?;
    cx.expect_eq("the locked page", island.read(page()), 0x2d)?;
    sys::munlock(island.address() + page(), page())?;
    cx.expect_ok(|| sys::msync(island.address(), 3 * page(), MS_SYNC | MS_INVALIDATE))
}

const LENGTH_ZERO: Probe = Probe {
    title: "msync of length 0 succeeds; a part of a page counts as the page",
    why: "the last, empty slice of a loop is no error; half a page that is mapped is none either",
    spec: &[posix("msync"), man("msync(2)", "DESCRIPTION")],
    calls: CALLS,
    ..probe("map.sync.length.rounded", length_zero)
};
fn length_zero(cx: &mut Context) -> Outcome {
    let island = Island::new(1, RW, SHARED, -1)?;
    cx.expect_ok(|| sys::msync(island.address(), 0, MS_SYNC))?;
    cx.expect_ok(|| sys::msync(island.address(), 1, MS_SYNC))?;
    sys::munmap(island.address(), page())?;
    cx.expect_errno(ENOMEM, || sys::msync(island.address(), 1, MS_SYNC))
}
