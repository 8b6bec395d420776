//! What madvise(2) refuses, and process_madvise(2).

use super::common::{Island, need_advice, page, perms, probe, refused, smaps};
use caps::Capability;
use libc::{
    EBADF, EINVAL, ENOMEM, EPERM, MADV_COLD, MADV_DONTFORK, MADV_DONTNEED, MADV_HWPOISON, MADV_NORMAL, MADV_PAGEOUT,
    MADV_REMOVE,
};
use shmcheck_probe::{Context, Map, Need, Outcome, Probe, Sys, man, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &UNKNOWN,
    &UNALIGNED,
    &NEGATIVE,
    &LENGTH_ZERO,
    &UNMAPPED,
    &REST_APPLIED,
    &DONTNEED_LOCKED,
    &REMOVE_LOCKED,
    &COLD_LOCKED,
    &PAGEOUT_LOCKED,
    &POISON,
    &PROCESS_COLD,
    &PROCESS_DESTRUCTIVE,
    &PROCESS_BAD_FD,
];

const CALLS: &[Sys] = &[Sys::Madvise];

const UNKNOWN: Probe = Probe {
    title: "an unknown advice fails with EINVAL",
    why: "allocators try the newest advice first and fall back: success without effect would leak memory for ever",
    spec: &[man("madvise(2)", "EINVAL")],
    calls: CALLS,
    ..probe("map.advise.refused.unknown-einval", |cx| {
        invalid(cx, |map| (map.address(), page(), 12_345))?;
        invalid(cx, |map| (map.address(), page(), -1))
    })
};
const UNALIGNED: Probe = Probe {
    title: "madvise of an address inside a page fails with EINVAL",
    why: "MADV_DONTNEED rounded down would throw away the neighbour's data",
    spec: &[man("madvise(2)", "EINVAL")],
    calls: CALLS,
    ..probe("map.advise.refused.unaligned-einval", |cx| {
        invalid(cx, |map| (map.address() + 1, page(), MADV_NORMAL))?;
        invalid(cx, |map| (map.address() + page() / 2, page(), MADV_REMOVE))
    })
};
const NEGATIVE: Probe = Probe {
    title: "madvise of a negative length fails with EINVAL",
    why: "a length computed the wrong way round must not be taken for 'everything'",
    spec: &[man("madvise(2)", "EINVAL")],
    calls: CALLS,
    ..probe("map.advise.refused.negative-length-einval", |cx| {
        invalid(cx, |map| (map.address(), usize::MAX - 5, MADV_DONTNEED))?;
        invalid(cx, |map| (map.address(), usize::MAX - 2 * page() + 1, MADV_REMOVE))
    })
};
fn invalid(cx: &mut Context, arguments: fn(&Map) -> (usize, usize, i32)) -> Outcome {
    let island = Island::shared(2)?;
    island.touch(0x66);
    let (address, length, advice) = arguments(&island);
    cx.expect_ok(|| sys::madvise(island.address(), 2 * page(), MADV_NORMAL))?;
    refused(cx, EINVAL, || sys::madvise(address, length, advice))?;
    cx.expect_eq("the pages", (island.read(0), island.read(page())), (0x66, 0x66))
}

const LENGTH_ZERO: Probe = Probe {
    title: "madvise of length 0 succeeds without any effect",
    why: "programs probe for an advice with madvise(0, 0, …), as the page tells them to",
    spec: &[man("madvise(2)", "NOTES")],
    calls: CALLS,
    ..probe("map.advise.length-zero.nothing", length_zero)
};
fn length_zero(cx: &mut Context) -> Outcome {
    let island = Island::shared(1)?;
    island.touch(0x67);
    cx.expect_ok(|| sys::madvise(island.address(), 0, MADV_REMOVE))?;
    cx.expect_ok(|| sys::madvise(0, 0, MADV_NORMAL))?;
    cx.expect_eq("the page", island.read(0), 0x67)?;
    cx.expect_ok(|| sys::madvise(island.address(), 1, MADV_REMOVE))?;
    cx.expect_eq("the page after length 1", island.read(0), 0)
}

const UNMAPPED: Probe = Probe {
    title: "madvise where nothing is mapped fails with ENOMEM",
    why: "an allocator whose books are wrong finds out",
    spec: &[man("madvise(2)", "ENOMEM")],
    calls: CALLS,
    ..probe("map.advise.refused.unmapped-enomem", unmapped)
};
fn unmapped(cx: &mut Context) -> Outcome {
    let around = super::common::reserve(3)?;
    cx.expect_ok(|| sys::madvise(around.address(), 3 * page(), MADV_DONTNEED))?;
    sys::munmap(around.address() + page(), page())?;
    for advice in [MADV_NORMAL, MADV_DONTNEED, MADV_DONTFORK] {
        cx.expect_errno(ENOMEM, || sys::madvise(around.address() + page(), page(), advice))?;
    }
    Ok(())
}

const REST_APPLIED: Probe = Probe {
    title: "madvise over a hole returns ENOMEM but applies to the rest",
    why: "purging a heap with gaps frees all of it although the call reports an error",
    spec: &[man("madvise(2)", "NOTES"), man("madvise(2)", "ENOMEM")],
    calls: CALLS,
    ..probe("map.advise.hole.rest-applied", rest_applied)
};
fn rest_applied(cx: &mut Context) -> Outcome {
    let island = Island::private(3)?;
    island.touch(0x68);
    sys::munmap(island.address() + page(), page())?;
    cx.expect_errno(ENOMEM, || sys::madvise(island.address(), 3 * page(), MADV_DONTNEED))?;
    cx.expect_eq("the pages around the hole", (island.read(0), island.read(2 * page())), (0, 0))
}

const DONTNEED_LOCKED: Probe = Probe {
    title: "MADV_DONTNEED on locked memory fails with EINVAL",
    why: "mlock promises that the pages stay; an allocator's purge must not break another part's promise",
    spec: &[man("madvise(2)", "EINVAL")],
    needs: LOCKING,
    calls: CALLS,
    ..probe("map.advise.dontneed.locked-einval", |cx| on_locked(cx, MADV_DONTNEED, "MADV_DONTNEED"))
};
const REMOVE_LOCKED: Probe = Probe {
    title: "MADV_REMOVE on locked memory fails with EINVAL",
    why: "a balloon driver must not take pages that a device writes to",
    spec: &[man("madvise(2)", "EINVAL")],
    needs: LOCKING,
    calls: CALLS,
    ..probe("map.advise.remove.locked-einval", |cx| on_locked(cx, MADV_REMOVE, "MADV_REMOVE"))
};
const COLD_LOCKED: Probe = Probe {
    title: "MADV_COLD on locked memory fails with EINVAL",
    why: "locked pages cannot be reclaimed; the caller's wish contradicts what is locked",
    spec: &[man("madvise(2)", "EINVAL")],
    needs: LOCKING,
    calls: CALLS,
    ..probe("map.advise.cold.locked-einval", |cx| on_locked(cx, MADV_COLD, "MADV_COLD"))
};
const PAGEOUT_LOCKED: Probe = Probe {
    title: "MADV_PAGEOUT on locked memory fails with EINVAL",
    why: "keys that were locked must not go to swap on somebody's advice",
    spec: &[man("madvise(2)", "EINVAL")],
    needs: LOCKING,
    calls: CALLS,
    ..probe("map.advise.pageout.locked-einval", |cx| on_locked(cx, MADV_PAGEOUT, "MADV_PAGEOUT"))
};
const LOCKING: &[Need] = &[Need::Memlock(65_536)];
fn on_locked(cx: &mut Context, advice: i32, name: &str) -> Outcome {
    need_advice(advice, name)?;
    let island = Island::shared(1)?;
    island.touch(0x69);
    sys::mlock(island.address(), page())?;
    refused(cx, EINVAL, || sys::madvise(island.address(), page(), advice))?;
    cx.expect_eq("Rss in kB", smaps(island.address(), "Rss")?, super::common::kib(1))?;
    cx.expect_eq("the page", island.read(0), 0x69)?;
    sys::munlock(island.address(), page())?;
    cx.expect_ok(|| sys::madvise(island.address(), page(), advice))?;
    Ok(())
}

const POISON: Probe = Probe {
    title: "MADV_HWPOISON without CAP_SYS_ADMIN fails with EPERM",
    why: "anybody could take the machine's memory out of service page by page",
    spec: &[man("madvise(2)", "EPERM")],
    calls: CALLS,
    ..probe("map.advise.hwpoison.unprivileged-eperm", poison)
};
fn poison(cx: &mut Context) -> Outcome {
    need_advice(MADV_HWPOISON, "MADV_HWPOISON")?;
    cx.without_caps(&[Capability::CAP_SYS_ADMIN], |cx| {
        let island = Island::private(1)?;
        island.touch(0x6a);
        refused(cx, EPERM, || sys::madvise(island.address(), page(), MADV_HWPOISON))?;
        cx.expect_eq("the page", island.read(0), 0x6a)
    })
}

const PROCESS_COLD: Probe = Probe {
    title: "process_madvise counts the bytes it advised in another process",
    why: "Android's memory daemon trims apps in the background with it",
    spec: &[man("process_madvise(2)", "RETURN VALUE")],
    needs: &[Need::InitCap(Capability::CAP_SYS_NICE), Need::Call(Sys::PidfdOpen)],
    calls: &[Sys::ProcessMadvise],
    ..probe("map.advise.process.counts-bytes", process_cold)
};
fn process_cold(cx: &mut Context) -> Outcome {
    let island = Island::shared(3)?;
    island.touch(0x6b);
    let (ready, done) = (cx.gate()?, cx.gate()?);
    let peer = cx.fork(|_| {
        // In the child alone: the advice can only be for its address space, not for the caller's.
        let own = Island::shared(2)?;
        own.touch(0x6c);
        sys::munmap(island.address(), page())?;
        ready.open()?;
        done.pass()?;
        Ok((island.read(page()), own.read(0)))
    })?;
    ready.pass()?;
    let pidfd = sys::process_descriptor(peer.pid())?;
    let at = island.address();
    let ranges = [(at + page(), page()), (at + 2 * page(), page())];
    let advised = cx.expect_ok(|| sys::process_madvise(pidfd.as_raw_fd(), &ranges, MADV_COLD, 0))?;
    cx.expect_eq("bytes advised", advised, 2 * page())?;
    // The first page is mapped here but not there.
    cx.expect_errno(ENOMEM, || sys::process_madvise(pidfd.as_raw_fd(), &[(at, page())], MADV_COLD, 0))?;
    done.open()?;
    cx.expect_eq("the pages of the other", peer.join()?, (0x6b, 0x6c))
}

const PROCESS_DESTRUCTIVE: Probe = Probe {
    title: "process_madvise refuses MADV_DONTNEED for another process: EINVAL",
    why: "advice from outside must never change what a program computes",
    spec: &[man("process_madvise(2)", "DESCRIPTION")],
    needs: &[Need::InitCap(Capability::CAP_SYS_NICE), Need::Call(Sys::PidfdOpen)],
    calls: &[Sys::ProcessMadvise],
    ..probe("map.advise.process.dontneed-einval", process_destructive)
};
fn process_destructive(cx: &mut Context) -> Outcome {
    let island = Island::private(1)?;
    island.touch(0x6d);
    let done = cx.gate()?;
    let peer = cx.fork(|_| {
        done.pass()?;
        Ok((island.read(0), perms(island.address())?))
    })?;
    let pidfd = sys::process_descriptor(peer.pid())?;
    let range = [(island.address(), page())];
    cx.expect_ok(|| sys::process_madvise(pidfd.as_raw_fd(), &range, MADV_COLD, 0))?;
    cx.expect_errno(EINVAL, || sys::process_madvise(pidfd.as_raw_fd(), &range, MADV_DONTNEED, 0))?;
    cx.expect_errno(EINVAL, || sys::process_madvise(pidfd.as_raw_fd(), &range, MADV_COLD, 1))?;
    done.open()?;
    cx.expect_eq("the page of the other", peer.join()?, (0x6d, "rw-p".to_owned()))
}

const PROCESS_BAD_FD: Probe = Probe {
    title: "process_madvise with a descriptor of no process fails with EBADF",
    why: "a recycled descriptor number must not advise a stranger",
    spec: &[man("process_madvise(2)", "EBADF")],
    needs: &[Need::Call(Sys::MemfdCreate)],
    calls: &[Sys::ProcessMadvise],
    ..probe("map.advise.process.not-a-process-ebadf", process_bad_fd)
};
fn process_bad_fd(cx: &mut Context) -> Outcome {
    let file = sys::memory_file(page())?;
    let island = Island::shared(1)?;
    let range = [(island.address(), page())];
    cx.expect_errno(EBADF, || sys::process_madvise(file.as_raw_fd(), &range, MADV_COLD, 0))?;
    cx.expect_errno(EBADF, || sys::process_madvise(-1, &range, MADV_COLD, 0))
}
