//! shmat(2): where a segment is attached: chosen, asked for, rounded, replaced.

use super::parts::{page, segment};
use caps::Capability;
use libc::{EACCES, EINVAL, EPERM, MAP_ANONYMOUS, MAP_PRIVATE, PROT_NONE};
use shmcheck_probe::sys::{self, SHM_RDONLY, SHM_REMAP, SHM_RND};
use shmcheck_probe::{Context, Map, Outcome, Probe, Segment, Stop, Sys, doc, kernel, man, posix, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &CHOSEN_ALIGNED,
    &EXACT,
    &UNALIGNED,
    &RND_DOWN,
    &RND_ALIGNED,
    &OCCUPIED,
    &OCCUPIED_PART,
    &REMAP_REPLACES,
    &REMAP_PART,
    &REMAP_NULL,
    &REMAP_ROUNDED_NULL,
    &PAGE_ZERO,
    &WRAPS,
];

const CHOSEN_ALIGNED: Probe = Probe {
    title: "with NULL the kernel chooses a free, page-aligned address",
    why: "nearly every program attaches this way; an overlap would destroy its heap or its libraries",
    spec: &[man("shmop(2)", "DESCRIPTION"), posix("shmat")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.chosen-aligned", chosen_aligned)
};
fn chosen_aligned(cx: &mut Context) -> Outcome {
    let made = segment(cx, 3, 0o600)?;
    let before = procfs::maps("self")?;
    let map = made.attach(0)?;
    cx.expect_eq("address modulo the page size", map.address() % page(), 0)?;
    let (start, end) = (map.address(), map.address() + 3 * page());
    let found = procfs::mapping_at(start)?.map(|m| (m.start, m.end, m.offset));
    cx.expect_eq("mapping", found, Some((start, end, 0)))?;
    let overlap = before.into_iter().find(|m| m.start < end && start < m.end).map(|m| m.name);
    cx.expect_eq("what was mapped there before", overlap, None)
}

/// A free range of that many pages, which nothing else of this process will take: it has one thread.
fn free_range(pages: usize) -> Result<usize, Stop> {
    let reserved = Map::new(pages * page(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1)?;
    let address = reserved.address();
    reserved.close()?;
    Ok(address)
}

/// Attaches at `address` with `flags`, and expects the attach at `wanted`.
fn lands_at(cx: &mut Context, made: &Segment, address: usize, flags: i32, wanted: usize) -> Outcome {
    let got = cx.expect_ok(|| sys::shmat_addr(made.id, address, flags))?;
    let map = Map::attached(got, made.size);
    cx.expect_eq("address", got, wanted)?;
    let inode = procfs::mapping_at(wanted)?.map(|m| m.inode);
    cx.expect_eq("identifier of what is mapped there", inode, u64::try_from(made.id).ok())?;
    Ok(map.close()?)
}

const EXACT: Probe = Probe {
    title: "a page-aligned address is taken exactly",
    why: "Oracle and PostgreSQL children re-attach where the parent had it: pointers inside the segment stay valid",
    spec: &[man("shmop(2)", "DESCRIPTION"), posix("shmat")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.exact", |cx| {
        let made = segment(cx, 2, 0o600)?;
        let at = free_range(4)? + page();
        lands_at(cx, &made, at, 0, at)
    })
};

const UNALIGNED: Probe = Probe {
    title: "an unaligned address without SHM_RND fails with EINVAL",
    why: "silent rounding would move every pointer of the program by some bytes",
    spec: &[man("shmop(2)", "EINVAL"), posix("shmat")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.unaligned-einval", unaligned)
};
fn unaligned(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let at = free_range(3)? + page();
    lands_at(cx, &made, at, 0, at)?;
    for offset in [1, 8, page() / 2, page() - 1] {
        cx.expect_errno(EINVAL, || sys::shmat_addr(made.id, at + offset, 0))?;
    }
    cx.expect_eq("mapping", procfs::mapping_at(at)?.map(|m| m.name), None)?;
    cx.expect_eq("shm_nattch", made.stat()?.nattch, 0)
}

const RND_DOWN: Probe = Probe {
    title: "SHM_RND rounds the address down to a multiple of SHMLBA",
    why: "portable programs pass any address with SHM_RND; rounded up, the segment would lie where the next one goes",
    spec: &[man("shmop(2)", "SHM_RND"), posix("shmat")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.rnd-down", rnd_down)
};
fn rnd_down(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let lba = sys::shmlba();
    let at = free_range(3)?.next_multiple_of(lba);
    for offset in [1, lba / 2, lba - 1] {
        lands_at(cx, &made, at + offset, SHM_RND, at)?;
    }
    Ok(())
}

const RND_ALIGNED: Probe = Probe {
    title: "SHM_RND leaves an aligned address as it is",
    why: "rounding what is round already would put the segment a page below its pointers",
    spec: &[man("shmop(2)", "SHM_RND"), posix("shmat")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.rnd-aligned", |cx| {
        let made = segment(cx, 1, 0o600)?;
        let at = free_range(3)?.next_multiple_of(sys::shmlba());
        lands_at(cx, &made, at, SHM_RND, at)
    })
};

/// Pages of private memory that hold 7.
fn sevens(pages: usize) -> Result<Map, Stop> {
    let map = Map::new(pages * page(), libc::PROT_READ | libc::PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1)?;
    map.touch(7);
    Ok(map)
}

const OCCUPIED: Probe = Probe {
    title: "an address where something is mapped fails with EINVAL",
    why: "an attach over the heap is the worst kind of bug to find: it must be refused and change nothing",
    spec: &[man("shmop(2)", "EINVAL"), man("shmop(2)", "SHM_REMAP")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.occupied-einval", occupied)
};
fn occupied(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let mine = sevens(1)?;
    for flags in [0, SHM_RDONLY, SHM_RND] {
        cx.expect_errno(EINVAL, || sys::shmat_addr(made.id, mine.address(), flags))?;
    }
    cx.expect_eq("byte of what was mapped there", mine.read(0), 7)?;
    cx.expect_eq("shm_nattch", made.stat()?.nattch, 0)?;
    let at = mine.address();
    mine.close()?;
    lands_at(cx, &made, at, 0, at)
}

const OCCUPIED_PART: Probe = Probe {
    title: "one occupied page in the range is enough for EINVAL",
    why: "the start of the range may be free while its end runs into a library: that must not be overwritten either",
    spec: &[man("shmop(2)", "EINVAL"), kernel("ipc/shm.c", "do_shmat")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.occupied-part-einval", occupied_part)
};
fn occupied_part(cx: &mut Context) -> Outcome {
    let made = segment(cx, 3, 0o600)?;
    let mine = sevens(3)?;
    // Only the last of the three pages stays.
    sys::munmap(mine.address(), 2 * page())?;
    cx.expect_errno(EINVAL, || sys::shmat_addr(made.id, mine.address(), 0))?;
    cx.expect_eq("byte of the page that was there", mine.read(2 * page()), 7)?;
    cx.expect_eq("mapping at the start of the range", procfs::mapping_at(mine.address())?.map(|m| m.name), None)?;
    cx.expect_eq("shm_nattch", made.stat()?.nattch, 0)
}

const REMAP_REPLACES: Probe = Probe {
    title: "SHM_REMAP replaces what is mapped at the address",
    why: "programs reserve a range first and attach into it, so that every process has the segment at one address",
    spec: &[man("shmop(2)", "SHM_REMAP")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.remap-replaces", remap_replaces)
};
fn remap_replaces(cx: &mut Context) -> Outcome {
    let made = segment(cx, 2, 0o600)?;
    made.attach(0)?.touch(9);
    let mine = sevens(2)?;
    let at = cx.expect_ok(|| sys::shmat_addr(made.id, mine.address(), SHM_REMAP))?;
    cx.expect_eq("address", at, mine.address())?;
    cx.expect_eq("bytes there", (mine.read(0), mine.read(page())), (9, 9))?;
    mine.write(1, 10);
    cx.expect_eq("byte stored there, through another attach", made.attach(0)?.read(1), 10)?;
    cx.expect_eq("shm_nattch", made.stat()?.nattch, 1)?;
    Ok(sys::shmdt(at)?)
}

const REMAP_PART: Probe = Probe {
    title: "SHM_REMAP replaces exactly as much as the segment's size",
    why: "the neighbours in a reserved range are other segments: replacing one page too many destroys them",
    spec: &[man("shmop(2)", "SHM_REMAP")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.remap-part", remap_part)
};
fn remap_part(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let mine = sevens(3)?;
    let at = mine.address() + page();
    cx.expect_eq("address", sys::shmat_addr(made.id, at, SHM_REMAP)?, at)?;
    let bytes: Vec<u8> = (0..3).map(|n| mine.read(n * page())).collect();
    cx.expect_eq("first bytes of the three pages", bytes, vec![7, 0, 7])
}

const REMAP_NULL: Probe = Probe {
    title: "SHM_REMAP with address NULL fails with EINVAL",
    why: "'replace what is there' has no meaning where the kernel chooses; it must not replace anything it likes",
    spec: &[man("shmop(2)", "EINVAL"), man("shmop(2)", "SHM_REMAP")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.remap-null-einval", remap_null)
};
fn remap_null(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    cx.expect_errno(EINVAL, || sys::shmat_addr(made.id, 0, SHM_REMAP))?;
    cx.expect_errno(EINVAL, || sys::shmat_addr(made.id, 0, SHM_REMAP | SHM_RND))?;
    cx.expect_eq("shm_nattch", made.stat()?.nattch, 0)
}

const REMAP_ROUNDED_NULL: Probe = Probe {
    title: "SHM_REMAP with an address that rounds down to 0 fails with EINVAL",
    why: "CVE-2017-5669: a page at address 0 turns a kernel's null pointer bug into root for anybody",
    spec: &[man("shmop(2)", "EINVAL"), doc("CVE-2017-5669", ""), kernel("ipc/shm.c", "do_shmat")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.remap-rounds-to-null", remap_rounded_null)
};
fn remap_rounded_null(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    for address in [1, sys::shmlba() - 1] {
        cx.expect_errno(EINVAL, || sys::shmat_addr(made.id, address, SHM_RND | SHM_REMAP))?;
    }
    cx.expect_eq("mapping at address 0", procfs::mapping_at(0)?.map(|m| m.name), None)
}

const PAGE_ZERO: Probe = Probe {
    title: "SHM_RND below SHMLBA maps no page 0 without CAP_SYS_RAWIO",
    why: "a page at address 0 turns a kernel's null pointer bug into root for anybody",
    varies: "vm.mmap_min_addr = 0 permits it on purpose",
    fix: "sysctl vm.mmap_min_addr=65536",
    spec: &[
        doc("Documentation/admin-guide/sysctl/vm.rst", "mmap_min_addr"),
        kernel("security/commoncap.c", "cap_mmap_addr"),
    ],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.no-page-zero", page_zero)
};
fn page_zero(cx: &mut Context) -> Outcome {
    let lowest: usize = procfs::sysctl_number("vm/mmap_min_addr")?;
    if lowest < page() {
        return Err(Stop::skip("vm.mmap_min_addr of a page or more", lowest.to_string()));
    }
    let made = segment(cx, 1, 0o600)?;
    cx.without_caps(&[Capability::CAP_SYS_RAWIO], |cx| {
        // Where a security module has its own check, it says EACCES.
        cx.expect_errno_of(&[EPERM, EACCES], || sys::shmat_addr(made.id, 1, SHM_RND))?;
        cx.expect_eq("mapping at address 0", procfs::mapping_at(0)?.map(|m| m.name), None)
    })
}

const WRAPS: Probe = Probe {
    title: "an address whose range wraps around fails with EINVAL",
    why: "a computed address near the end of the address space must not come out as a mapping at its start",
    spec: &[man("shmop(2)", "EINVAL"), kernel("ipc/shm.c", "do_shmat")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.wraps-einval", wraps)
};
fn wraps(cx: &mut Context) -> Outcome {
    let made = segment(cx, 2, 0o600)?;
    let last = usize::MAX - page() + 1;
    cx.expect_errno(EINVAL, || sys::shmat_addr(made.id, last, 0))?;
    cx.expect_eq("shm_nattch", made.stat()?.nattch, 0)
}
