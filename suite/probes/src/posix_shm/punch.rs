//! fallocate(2) with FALLOC_FL_PUNCH_HOLE: giving a part of an object back.

use libc::{EOPNOTSUPP, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, O_RDWR};
use shmcheck_probe::{Context, Map, Need, Object, Outcome, Probe, Stop, Sys, kernel, man, posix, sys};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] =
    &[&PUNCH_ZEROES, &PUNCH_FREES, &PUNCH_PARTIAL, &PUNCH_BEHIND_END, &PUNCH_MAPPING, &PUNCH_ALONE, &PUNCH_RACE];

const NEEDS: &[Need] = &[Need::DevShm];
const CALLS: &[Sys] = &[Sys::Fallocate];
/// The only way tmpfs takes it.
pub(super) const PUNCH: i32 = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

const PUNCH_ZEROES: Probe = Probe {
    title: "a punched hole reads zero, its neighbours are kept",
    why: "in-memory stores free single slots of a big object by punching; a page too many is silent data loss",
    spec: &[man("fallocate(2)", "FALLOC_FL_PUNCH_HOLE")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.punch.zeroes", |cx| {
        let page = sys::page_size();
        let held = filled(cx, 4)?;
        cx.expect_ok(|| sys::fallocate(held.raw(), PUNCH, page as i64, 2 * page as i64))?;
        let mut content = vec![0; 4 * page];
        sys::pread(held.raw(), &mut content, 0)?;
        let wanted = [vec![0x5d; page], vec![0; 2 * page], vec![0x5d; page]].concat();
        cx.expect("content", content == wanted, "two pages of zeros between two of 0x5d", summary(&content))?;
        cx.expect_eq("size", held.stat()?.st_size, 4 * page as i64)
    })
};

const PUNCH_FREES: Probe = Probe {
    title: "punching a hole frees its pages",
    why: "without it a long-lived buffer only grows, and the container is killed for memory nobody uses",
    spec: &[man("fallocate(2)", "FALLOC_FL_PUNCH_HOLE")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.punch.frees", |cx| {
        let page = sys::page_size() as i64;
        let held = filled(cx, 4)?;
        cx.expect_ok(|| sys::fallocate(held.raw(), PUNCH, 0, 3 * page))?;
        cx.expect_eq("bytes in blocks", held.stat()?.st_blocks * 512, page)
    })
};

const PUNCH_PARTIAL: Probe = Probe {
    title: "punching inside a page zeroes exactly that range",
    why: "records are smaller than pages; rounding up would wipe the neighbour's record",
    spec: &[man("fallocate(2)", "FALLOC_FL_PUNCH_HOLE")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.punch.partial", |cx| {
        let page = sys::page_size();
        let held = filled(cx, 2)?;
        cx.expect_ok(|| sys::fallocate(held.raw(), PUNCH, 100, page as i64))?;
        let mut content = vec![0; 2 * page];
        sys::pread(held.raw(), &mut content, 0)?;
        let wanted = [vec![0x5d; 100], vec![0; page], vec![0x5d; page - 100]].concat();
        cx.expect("content", content == wanted, "zeros from 100 for one page", summary(&content))?;
        cx.expect_eq("bytes in blocks", held.stat()?.st_blocks * 512, 2 * page as i64)
    })
};

const PUNCH_BEHIND_END: Probe = Probe {
    title: "punching behind the end drops a reserve, the size stays",
    why: "a log that gives its unused reserve back must not grow by doing so",
    spec: &[man("fallocate(2)", "FALLOC_FL_PUNCH_HOLE")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.punch.behind-end", |cx| {
        let page = sys::page_size() as i64;
        let held = cx.object(10)?;
        cx.expect_ok(|| sys::fallocate(held.raw(), FALLOC_FL_KEEP_SIZE, 0, 4 * page))?;
        cx.expect_ok(|| sys::fallocate(held.raw(), PUNCH, page, 100 * page))?;
        let stat = held.stat()?;
        cx.expect_eq("size and bytes in blocks", (stat.st_size, stat.st_blocks * 512), (10, page))
    })
};

const PUNCH_MAPPING: Probe = Probe {
    title: "another process's mapping sees the hole and can fill it again",
    why: "a consumer has the buffer mapped while the producer recycles it: it must read zeros, not the page as it was",
    spec: &[man("fallocate(2)", "FALLOC_FL_PUNCH_HOLE"), posix("mmap")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.punch.seen-by-mapper", punch_mapping)
};
fn punch_mapping(cx: &mut Context) -> Outcome {
    let page = sys::page_size();
    let held = filled(cx, 1)?;
    let (mapped, punched) = (cx.gate()?, cx.gate()?);
    let name = held.name.clone();
    let (opening, passing) = (&mapped, &punched);
    let peer = cx.fork(move |_| {
        let map = Map::shared(&sys::shm_open(&name, O_RDWR, 0)?, page)?;
        let before = map.read(7);
        opening.open()?;
        passing.pass()?;
        let after = map.read(7);
        map.write(8, 0x21);
        Ok((before, after))
    })?;
    mapped.pass()?;
    cx.expect_ok(|| sys::fallocate(held.raw(), PUNCH, 0, page as i64))?;
    punched.open()?;
    cx.expect_eq("the mapper's byte before and after", peer.join()?, (0x5d, 0))?;
    cx.expect_eq("byte stored into the hole", super::truncate::byte_at(held.raw(), 8)?, 0x21)
}

const PUNCH_ALONE: Probe = Probe {
    title: "FALLOC_FL_PUNCH_HOLE without FALLOC_FL_KEEP_SIZE is refused",
    why: "the pair is required so that nobody expects a hole at the end to shorten the file",
    spec: &[man("fallocate(2)", "FALLOC_FL_PUNCH_HOLE"), man("fallocate(2)", "EOPNOTSUPP")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.punch.needs-keep-size", |cx| {
        let held = filled(cx, 1)?;
        cx.expect_errno(EOPNOTSUPP, || sys::fallocate(held.raw(), FALLOC_FL_PUNCH_HOLE, 0, 1))?;
        cx.expect_eq("first byte", super::truncate::byte_at(held.raw(), 0)?, 0x5d)
    })
};

const PUNCH_RACE: Probe = Probe {
    title: "stores that race with punching are kept or zeroed, never torn",
    why: "the consumer works in the buffer while the producer recycles it; a page lost to both would eat later stores",
    spec: &[man("fallocate(2)", "FALLOC_FL_PUNCH_HOLE"), kernel("mm/shmem.c", "shmem_fault: shmem_falloc")],
    calls: CALLS,
    needs: NEEDS,
    ..Probe::new("posix.shm.punch.races-with-stores", punch_race)
};
fn punch_race(cx: &mut Context) -> Outcome {
    const ROUNDS: u8 = 200;
    let page = sys::page_size();
    let held = filled(cx, 1)?;
    let start = cx.gate()?;
    let storing = cx.fork(|cx| {
        let map = held.map(page)?;
        start.pass()?;
        for value in 1..=ROUNDS {
            map.write(40, value);
            let seen = map.read(40);
            cx.expect("byte read back", seen == value || seen == 0, format!("{value} or 0"), seen)?;
        }
        Ok(())
    })?;
    start.open()?;
    for _ in 0..ROUNDS {
        cx.expect_ok(|| sys::fallocate(held.raw(), PUNCH, 0, page as i64))?;
    }
    storing.join()?;
    // Whatever happened before, a store now is seen by everybody.
    let map = held.map(page)?;
    map.write(40, 0xfe);
    cx.expect_eq("a store after the race, by read", super::truncate::byte_at(held.raw(), 40)?, 0xfe)?;
    cx.expect_eq("bytes in blocks", held.stat()?.st_blocks * 512, page as i64)
}

/// An object of that many pages full of 0x5d.
pub(super) fn filled(cx: &mut Context, pages: usize) -> Result<Object, Stop> {
    let length = pages * sys::page_size();
    let held = cx.object(length)?;
    sys::pwrite(held.raw(), &vec![0x5d; length], 0)?;
    Ok(held)
}

/// The runs of equal bytes, for a message.
fn summary(content: &[u8]) -> String {
    let runs: Vec<String> =
        content.chunk_by(|a, b| a == b).take(8).map(|run| format!("{}×{:#04x}", run.len(), run[0])).collect();
    runs.join(" ")
}
