//! Memory accounting: what /proc/PID/smaps says of shared pages.

use super::common::{FILE, Island, RW, kib, lettered_file, page, probe, smaps, smaps_of};
use libc::{MADV_DONTNEED, MAP_PRIVATE, MAP_SHARED};
use shmcheck_probe::{Context, Outcome, Probe, Stop, doc, man, procfs, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] =
    &[&RSS, &PSS_ALONE, &PSS_SHARED, &SHARED_DIRTY, &CHILD_GONE, &NOT_INHERITED, &SIZE, &COPY, &TWICE];

const SPEC: &[shmcheck_probe::Clause] =
    &[man("proc(5)", "/proc/[pid]/smaps"), doc("Documentation/filesystems/proc.rst", "smaps")];

/// The fields in kB of the mapping that holds an address.
fn fields<const N: usize>(address: usize, names: [&str; N]) -> Result<[u64; N], Stop> {
    let block = smaps_of(address)?;
    let mut values = [0; N];
    for (value, name) in values.iter_mut().zip(names) {
        *value = procfs::field(&block, name).ok_or_else(|| Stop::skip(format!("smaps:{name}"), "no such field"))?;
    }
    Ok(values)
}

const RSS: Probe = Probe {
    title: "Rss counts the pages of shared memory that were touched",
    why: "out-of-memory scores and dashboards start from it",
    spec: SPEC,
    ..probe("map.account.rss.touched-pages", rss)
};
fn rss(cx: &mut Context) -> Outcome {
    let island = Island::shared(5)?;
    for touched in 1..=5 {
        island.write((touched - 1) * page(), 1);
        cx.expect_eq("Rss in kB", smaps(island.address(), "Rss")?, kib(touched))?;
    }
    sys::madvise(island.address(), 2 * page(), MADV_DONTNEED)?;
    cx.expect_eq("Rss in kB after two pages were dropped", smaps(island.address(), "Rss")?, kib(3))
}

const PSS_ALONE: Probe = Probe {
    title: "shared memory of a single process counts as private to it",
    why: "'shared' in smaps is about who has a page now, not about MAP_SHARED; reports that mix them up double-count",
    spec: SPEC,
    ..probe("map.account.private.one-process", pss_alone)
};
fn pss_alone(cx: &mut Context) -> Outcome {
    let island = Island::shared(4)?;
    island.touch(1);
    let seen = fields(island.address(), ["Pss", "Private_Dirty", "Shared_Dirty"])?;
    cx.expect_eq("Pss, Private_Dirty, Shared_Dirty in kB", seen, [kib(4), kib(4), 0])
}

const PSS_SHARED: Probe = Probe {
    title: "Pss divides a page by the number of processes that have it",
    why: "the one number that can be added up over a pool of workers: PostgreSQL with 100 backends is not 100 times big",
    spec: SPEC,
    ..probe("map.account.pss.divided", pss_shared)
};
fn pss_shared(cx: &mut Context) -> Outcome {
    let island = Island::shared(4)?;
    island.touch(1);
    let touched = cx.gate()?;
    let done = cx.gate()?;
    let peer = cx.fork(|_| {
        island.touch(2);
        touched.open()?;
        done.pass()?;
        fields(island.address(), ["Rss", "Pss"])
    })?;
    touched.pass()?;
    let own = fields(island.address(), ["Rss", "Pss"])?;
    done.open()?;
    cx.expect_eq("Rss and Pss in kB here", own, [kib(4), kib(2)])?;
    cx.expect_eq("Rss and Pss in kB of the other", peer.join()?, [kib(4), kib(2)])
}

const SHARED_DIRTY: Probe = Probe {
    title: "pages that two processes have move from Private to Shared",
    why: "smem and container dashboards show by it what a worker would free by ending",
    spec: SPEC,
    ..probe("map.account.shared.two-processes", shared_dirty)
};
fn shared_dirty(cx: &mut Context) -> Outcome {
    let island = Island::shared(4)?;
    island.touch(1);
    let touched = cx.gate()?;
    let peer = cx.fork(|_| {
        // One page only: the other three stay the parent's alone.
        island.write(page(), 2);
        touched.open()?;
        until_killed()
    })?;
    touched.pass()?;
    let seen = fields(island.address(), ["Shared_Dirty", "Private_Dirty"])?;
    peer.kill()?;
    cx.expect_eq("Shared_Dirty, Private_Dirty in kB", seen, [kib(1), kib(3)])
}

/// Waits until this process is killed.
fn until_killed() -> Result<(), Stop> {
    let (never, _open) = sys::pipe()?;
    sys::poll_in(&never, -1)?;
    Ok(())
}

const CHILD_GONE: Probe = Probe {
    title: "when the other process ends its pages are private again",
    why: "numbers that stay behind after a worker's death send people looking for leaks",
    spec: SPEC,
    ..probe("map.account.shared.ends-with-process", child_gone)
};
fn child_gone(cx: &mut Context) -> Outcome {
    let island = Island::shared(2)?;
    island.touch(1);
    cx.elsewhere(|cx| {
        island.touch(2);
        let seen = fields(island.address(), ["Shared_Dirty", "Private_Dirty"])?;
        cx.expect_eq("Shared_Dirty, Private_Dirty in kB meanwhile", seen, [kib(2), 0])
    })?;
    let seen = fields(island.address(), ["Pss", "Shared_Dirty", "Private_Dirty"])?;
    cx.expect_eq("Pss, Shared_Dirty, Private_Dirty in kB", seen, [kib(2), 0, kib(2)])
}

const NOT_INHERITED: Probe = Probe {
    title: "two processes' own mappings of one file share its pages",
    why: "it makes no difference whether workers fork or start by themselves: memory is counted once",
    spec: SPEC,
    needs: FILE,
    ..probe("map.account.pss.unrelated", not_inherited)
};
fn not_inherited(cx: &mut Context) -> Outcome {
    let file = lettered_file(2)?;
    let own = Island::new(2, RW, MAP_SHARED, file.as_raw_fd())?;
    own.touch(1);
    cx.elsewhere(|cx| {
        sys::munmap(own.address(), own.len())?;
        let other = Island::new(2, RW, MAP_SHARED, file.as_raw_fd())?;
        other.touch(2);
        let seen = fields(other.address(), ["Rss", "Pss"])?;
        cx.expect_eq("Rss and Pss in kB", seen, [kib(2), kib(1)])
    })?;
    cx.expect_eq("Pss in kB alone again", smaps(own.address(), "Pss")?, kib(2))
}

const SIZE: Probe = Probe {
    title: "Size counts what is mapped, touched or not",
    why: "VSZ in ps: large for everybody who reserves, and no reason to worry",
    spec: SPEC,
    ..probe("map.account.size.mapped", size)
};
fn size(cx: &mut Context) -> Outcome {
    let island = Island::shared(6)?;
    island.write(0, 1);
    let seen = fields(island.address(), ["Size", "Rss", "KernelPageSize", "Swap"])?;
    cx.expect_eq("Size, Rss, KernelPageSize, Swap in kB", seen, [kib(6), kib(1), kib(1), 0])
}

const COPY: Probe = Probe {
    title: "a private copy of a file's page counts as anonymous",
    why: "it is what a process costs beyond the files that all share",
    spec: SPEC,
    needs: FILE,
    ..probe("map.account.anonymous.copies", copy)
};
fn copy(cx: &mut Context) -> Outcome {
    let file = lettered_file(3)?;
    let shared = Island::new(3, RW, MAP_SHARED, file.as_raw_fd())?;
    shared.touch(1);
    let private = Island::new(3, RW, MAP_PRIVATE, file.as_raw_fd())?;
    private.touch(2);
    cx.expect_eq("Anonymous in kB of the shared mapping", smaps(shared.address(), "Anonymous")?, 0)?;
    cx.expect_eq("Anonymous in kB of the private mapping", smaps(private.address(), "Anonymous")?, kib(3))
}

const TWICE: Probe = Probe {
    title: "a page mapped twice in one process counts half in each mapping",
    why: "mirrored rings look twice as big in Rss; Pss shows what they cost",
    spec: SPEC,
    needs: FILE,
    ..probe("map.account.pss.mapped-twice", twice)
};
fn twice(cx: &mut Context) -> Outcome {
    let file = lettered_file(2)?;
    let first = Island::new(2, RW, MAP_SHARED, file.as_raw_fd())?;
    let second = Island::new(2, RW, MAP_SHARED, file.as_raw_fd())?;
    first.touch(1);
    second.touch(2);
    for island in [&first, &second] {
        let seen = fields(island.address(), ["Rss", "Pss"])?;
        cx.expect_eq("Rss and Pss in kB", seen, [kib(2), kib(1)])?;
    }
    Ok(())
}
