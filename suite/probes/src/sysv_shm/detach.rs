//! shmdt(2), and the other ways in which an attach ends or is cut.

use super::parts::{Stamp, expect_change, expect_no_change, page, segment};
use libc::{EINVAL, MREMAP_FIXED, MREMAP_MAYMOVE, PROT_READ, SIGSEGV};
use shmcheck_probe::sys;
use shmcheck_probe::{Context, Map, Outcome, Probe, Sys, kernel, man, posix, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &MEMORY_GONE,
    &ONE_OF_TWO,
    &OTHER_PROCESS,
    &NOT_ATTACHED,
    &INSIDE,
    &AGAIN,
    &NULL,
    &UNALIGNED,
    &MUNMAP_DETACHES,
    &CUT_FIRST,
    &CUT_MIDDLE,
    &CUT_LAST,
    &CUT_COUNTS,
    &MPROTECTED_PART,
    &MOVED,
    &FOREIGN_PAGE,
];

const MEMORY_GONE: Probe = Probe {
    title: "after shmdt the memory is gone: a load raises SIGSEGV",
    why: "a use after detach must crash where it happens, not read a stale copy",
    spec: &[man("shmop(2)", "shmdt()"), posix("shmdt")],
    calls: &[Sys::Shmat, Sys::Shmdt],
    ..Probe::new("sysv.shm.dt.memory-gone", memory_gone)
};
fn memory_gone(cx: &mut Context) -> Outcome {
    let made = segment(cx, 2, 0o600)?;
    let map = made.attach(0)?;
    map.touch(1);
    let view = Map::view(map.address(), 2 * page());
    cx.expect_no_signal("a load before", || _ = view.read(page()))?;
    cx.expect_ok(|| sys::shmdt(map.leak()))?;
    for offset in [0, page()] {
        cx.expect_signal("a load after shmdt", SIGSEGV, || _ = view.read(offset))?;
        cx.expect_eq("mapping", procfs::mapping_at(view.address() + offset)?.map(|m| m.name), None)?;
    }
    Ok(())
}

const ONE_OF_TWO: Probe = Probe {
    title: "shmdt ends one attach; another of the same segment stays",
    why: "a library that detaches its own view must not pull the memory away from the program",
    spec: &[man("shmop(2)", "shmdt()"), posix("shmdt")],
    calls: &[Sys::Shmat, Sys::Shmdt],
    ..Probe::new("sysv.shm.dt.one-of-two", one_of_two)
};
fn one_of_two(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let (first, second) = (made.attach(0)?, made.attach(0)?);
    first.write(0, 6);
    let gone = first.address();
    first.close()?;
    cx.expect_no_signal("a load through the other attach", || _ = second.read(0))?;
    cx.expect_eq("byte through the other attach", second.read(0), 6)?;
    cx.expect_eq("mapping at the first address", procfs::mapping_at(gone)?.map(|m| m.name), None)?;
    cx.expect_eq("shm_nattch", made.stat()?.nattch, 1)
}

const OTHER_PROCESS: Probe = Probe {
    title: "shmdt takes nothing from another process",
    why: "one worker that shuts down must not crash the pool",
    spec: &[man("shmop(2)", "shmdt()"), posix("shmdt")],
    calls: &[Sys::Shmat, Sys::Shmdt],
    ..Probe::new("sysv.shm.dt.other-process-keeps", other_process)
};
fn other_process(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let map = made.attach(0)?;
    map.write(0, 5);
    cx.elsewhere(|cx| {
        cx.expect_ok(|| sys::shmdt(map.address()))?;
        cx.expect_eq("mapping in the peer", procfs::mapping_at(map.address())?.map(|m| m.name), None)
    })?;
    cx.expect_no_signal("a load in the parent", || _ = map.read(0))?;
    cx.expect_eq("byte in the parent", map.read(0), 5)
}

const NOT_ATTACHED: Probe = Probe {
    title: "shmdt of memory that is no attach fails with EINVAL",
    why: "a wrong pointer handed to shmdt must not unmap the heap or a file",
    spec: &[man("shmop(2)", "EINVAL"), posix("shmdt")],
    calls: &[Sys::Shmdt],
    ..Probe::new("sysv.shm.dt.not-attached-einval", not_attached)
};
fn not_attached(cx: &mut Context) -> Outcome {
    let mine = Map::shared_anonymous(2 * page())?;
    mine.touch(4);
    cx.expect_errno(EINVAL, || sys::shmdt(mine.address()))?;
    cx.expect_no_signal("a load", || _ = mine.read(page()))?;
    let free = mine.address();
    mine.close()?;
    cx.expect_errno(EINVAL, || sys::shmdt(free))
}

const INSIDE: Probe = Probe {
    title: "shmdt of an address inside the segment fails with EINVAL",
    why: "only the address that shmat gave is valid; a tail that is cut off would fault much later",
    spec: &[man("shmop(2)", "EINVAL"), posix("shmdt")],
    calls: &[Sys::Shmat, Sys::Shmdt],
    ..Probe::new("sysv.shm.dt.inside-einval", inside)
};
fn inside(cx: &mut Context) -> Outcome {
    let made = segment(cx, 3, 0o600)?;
    let map = made.attach(0)?;
    for number in [1, 2] {
        cx.expect_errno(EINVAL, || sys::shmdt(map.address() + number * page()))?;
    }
    let found = procfs::mapping_at(map.address())?.map(|m| m.end - m.start);
    cx.expect_eq("length of the mapping", found, Some(3 * page()))?;
    cx.expect_eq("shm_nattch", made.stat()?.nattch, 1)
}

const AGAIN: Probe = Probe {
    title: "shmdt of an address already detached fails with EINVAL",
    why: "double clean-up in an error path is told apart from success, and counts down once only",
    spec: &[man("shmop(2)", "EINVAL"), posix("shmdt")],
    calls: &[Sys::Shmat, Sys::Shmdt],
    ..Probe::new("sysv.shm.dt.again-einval", again)
};
fn again(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let keeps = made.attach(0)?;
    let address = made.attach(0)?.leak();
    cx.expect_ok(|| sys::shmdt(address))?;
    expect_no_change(cx, made.id, |cx| {
        cx.expect_errno(EINVAL, || sys::shmdt(address))?;
        cx.expect_errno(EINVAL, || sys::raw::shmdt(address))
    })?;
    Ok(keeps.close()?)
}

const NULL: Probe = Probe {
    title: "shmdt(NULL) fails with EINVAL",
    why: "clean-up code calls it for a pointer that was never set; it must not detach what lies lowest",
    spec: &[man("shmop(2)", "EINVAL"), posix("shmdt")],
    calls: &[Sys::Shmat, Sys::Shmdt],
    ..Probe::new("sysv.shm.dt.null-einval", null)
};
fn null(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let _map = made.attach(0)?;
    cx.expect_errno(EINVAL, || sys::shmdt(0))?;
    cx.expect_eq("shm_nattch", made.stat()?.nattch, 1)
}

const UNALIGNED: Probe = Probe {
    title: "shmdt of an unaligned address fails with EINVAL",
    why: "a pointer to a member is not the segment: rounding it down would detach memory in use",
    spec: &[man("shmop(2)", "EINVAL"), posix("shmdt")],
    calls: &[Sys::Shmat, Sys::Shmdt],
    ..Probe::new("sysv.shm.dt.unaligned-einval", unaligned)
};
fn unaligned(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let map = made.attach(0)?;
    for offset in [1, 64, page() - 1] {
        cx.expect_errno(EINVAL, || sys::shmdt(map.address() + offset))?;
    }
    cx.expect_eq("shm_nattch", made.stat()?.nattch, 1)?;
    cx.expect_no_signal("a load", || _ = map.read(0))
}

const MUNMAP_DETACHES: Probe = Probe {
    title: "munmap of the whole attach detaches it",
    why: "garbage collectors unmap what they reserved: the count must follow, or the segment is never freed",
    spec: &[kernel("ipc/shm.c", "shm_close"), man("shmctl(2)", "shm_nattch")],
    calls: &[Sys::Shmat, Sys::Munmap],
    ..Probe::new("sysv.shm.dt.munmap-detaches", munmap_detaches)
};
fn munmap_detaches(cx: &mut Context) -> Outcome {
    let made = segment(cx, 2, 0o600)?;
    let address = made.attach(0)?.leak();
    expect_change(
        cx,
        made.id,
        &[Stamp::Detach],
        |_| Ok(sys::munmap(address, 2 * page())?),
        |stat, ()| {
            stat.nattch = 0;
            stat.lpid = sys::getpid();
        },
    )?;
    cx.expect_errno(EINVAL, || sys::shmdt(address))
}

/// Unmaps pages `from..to` of four, then detaches by the first address: all the rest goes too.
fn cut(cx: &mut Context, from: usize, to: usize) -> Outcome {
    let made = segment(cx, 4, 0o600)?;
    let map = made.attach(0)?;
    map.touch(3);
    sys::munmap(map.address() + from * page(), (to - from) * page())?;
    let rest = (0..4).filter(|n| !(from..to).contains(n));
    for number in rest {
        cx.expect_eq("byte of a page that stays", map.read(number * page()), 3)?;
    }
    let address = map.leak();
    cx.expect_ok(|| sys::shmdt(address))?;
    let left: Vec<usize> = procfs::maps("self")?
        .iter()
        .filter(|m| m.start < address + 4 * page() && address < m.end)
        .map(|m| (m.start - address) / page())
        .collect();
    cx.expect_eq("pages still mapped after shmdt", left, vec![])?;
    cx.expect_eq("shm_nattch", made.stat()?.nattch, 0)
}

const CUT_FIRST: Probe = Probe {
    title: "shmdt finds an attach whose first page was unmapped",
    why: "a guard page cut from the front must not make the segment undetachable",
    spec: &[kernel("ipc/shm.c", "ksys_shmdt")],
    calls: &[Sys::Shmat, Sys::Shmdt, Sys::Munmap],
    ..Probe::new("sysv.shm.dt.cut-first", |cx| cut(cx, 0, 1))
};

const CUT_MIDDLE: Probe = Probe {
    title: "shmdt ends both parts of an attach that was cut in the middle",
    why: "the second part left behind keeps the segment's memory allocated until the process ends",
    spec: &[kernel("ipc/shm.c", "ksys_shmdt")],
    calls: &[Sys::Shmat, Sys::Shmdt, Sys::Munmap],
    ..Probe::new("sysv.shm.dt.cut-middle", |cx| cut(cx, 1, 3))
};

const CUT_LAST: Probe = Probe {
    title: "shmdt ends an attach whose tail was unmapped",
    why: "programs give the tail of a generous segment back and detach the rest later",
    spec: &[kernel("ipc/shm.c", "ksys_shmdt")],
    calls: &[Sys::Shmat, Sys::Shmdt, Sys::Munmap],
    ..Probe::new("sysv.shm.dt.cut-last", |cx| cut(cx, 3, 4))
};

const CUT_COUNTS: Probe = Probe {
    title: "an attach cut in two counts as two in shm_nattch",
    why: "a start-up check for 'nattch is 1' misjudges a program that unmapped a hole: it is mappings that are counted",
    spec: &[kernel("ipc/shm.c", "shm_open")],
    calls: &[Sys::Shmat, Sys::Munmap],
    ..Probe::new("sysv.shm.dt.cut-counts", cut_counts)
};
fn cut_counts(cx: &mut Context) -> Outcome {
    let made = segment(cx, 3, 0o600)?;
    let map = made.attach(0)?;
    sys::munmap(map.address() + page(), page())?;
    cx.expect_eq("shm_nattch", made.stat()?.nattch, 2)?;
    sys::munmap(map.address() + 2 * page(), page())?;
    cx.expect_eq("shm_nattch without the second part", made.stat()?.nattch, 1)?;
    map.close()?;
    cx.expect_eq("shm_nattch after shmdt", made.stat()?.nattch, 0)
}

const MPROTECTED_PART: Probe = Probe {
    title: "shmdt ends all parts of an attach that mprotect split",
    why: "databases write-protect a control page inside their segment and still detach it with one call",
    spec: &[kernel("ipc/shm.c", "ksys_shmdt")],
    calls: &[Sys::Shmat, Sys::Shmdt, Sys::Mprotect],
    ..Probe::new("sysv.shm.dt.mprotect-split", mprotected_part)
};
fn mprotected_part(cx: &mut Context) -> Outcome {
    let made = segment(cx, 3, 0o600)?;
    let map = made.attach(0)?;
    let address = map.address();
    sys::mprotect(address + page(), page(), PROT_READ)?;
    let parts =
        procfs::maps("self")?.iter().filter(|m| m.inode == made.id as u64 && m.name.starts_with("/SYSV")).count();
    cx.expect_eq("parts in maps", parts, 3)?;
    cx.expect_ok(|| sys::shmdt(map.leak()))?;
    for number in 0..3 {
        let found = procfs::mapping_at(address + number * page())?.map(|m| m.name);
        cx.expect_eq("mapping after shmdt", found, None)?;
    }
    cx.expect_eq("shm_nattch", made.stat()?.nattch, 0)
}

const MOVED: Probe = Probe {
    title: "an attach moved by mremap is detached at its new address",
    why: "checkpoint tools move mappings; the old address is somebody else's by then",
    spec: &[kernel("ipc/shm.c", "ksys_shmdt"), man("mremap(2)", "DESCRIPTION")],
    calls: &[Sys::Shmat, Sys::Shmdt, Sys::Mremap],
    ..Probe::new("sysv.shm.dt.moved", moved)
};
fn moved(cx: &mut Context) -> Outcome {
    let made = segment(cx, 2, 0o600)?;
    let map = made.attach(0)?;
    map.touch(2);
    let old = map.leak();
    let goal = Map::shared_anonymous(2 * page())?;
    let new = sys::mremap(old, 2 * page(), 2 * page(), MREMAP_MAYMOVE | MREMAP_FIXED, goal.leak())?;
    let view = Map::view(new, 2 * page());
    cx.expect_eq("bytes at the new address", (view.read(0), view.read(page())), (2, 2))?;
    cx.expect_eq("shm_nattch", made.stat()?.nattch, 1)?;
    cx.expect_errno(EINVAL, || sys::shmdt(old))?;
    cx.expect_ok(|| sys::shmdt(new))?;
    cx.expect_eq("mapping after shmdt", procfs::mapping_at(new)?.map(|m| m.name), None)?;
    cx.expect_eq("shm_nattch after shmdt", made.stat()?.nattch, 0)
}

const FOREIGN_PAGE: Probe = Probe {
    title: "shmdt leaves another segment's page that lies in the range",
    why: "a page moved there by mremap looks like part of the attach by its offset: it belongs to other data",
    spec: &[kernel("ipc/shm.c", "ksys_shmdt")],
    calls: &[Sys::Shmat, Sys::Shmdt, Sys::Mremap],
    ..Probe::new("sysv.shm.dt.foreign-page", foreign_page)
};
fn foreign_page(cx: &mut Context) -> Outcome {
    let (made, other) = (segment(cx, 3, 0o600)?, segment(cx, 3, 0o600)?);
    let (map, guest) = (made.attach(0)?, other.attach(0)?);
    guest.touch(8);
    let at = map.address() + page();
    // Page 1 of the other segment takes the place of page 1 of the first: offsets and positions agree.
    sys::mremap(guest.address() + page(), page(), page(), MREMAP_MAYMOVE | MREMAP_FIXED, at)?;
    cx.expect_ok(|| sys::shmdt(map.leak()))?;
    let found = procfs::mapping_at(at)?.map(|m| (m.start, m.end, m.inode));
    cx.expect_eq("mapping of the other segment's page", found, Some((at, at + page(), other.id as u64)))?;
    cx.expect_eq("its byte", Map::view(at, page()).read(0), 8)?;
    cx.expect_eq("shm_nattch of the detached segment", made.stat()?.nattch, 0)
}
