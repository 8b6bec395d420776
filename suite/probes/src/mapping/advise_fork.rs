//! madvise(2): what a child inherits, and the marks that /proc shows.

use super::common::{Island, must, need_advice, page, perms, probe, refused, smaps_of};
use libc::{
    EINVAL, MADV_DODUMP, MADV_DOFORK, MADV_DONTDUMP, MADV_DONTFORK, MADV_HUGEPAGE, MADV_KEEPONFORK, MADV_MERGEABLE,
    MADV_NOHUGEPAGE, MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_UNMERGEABLE, MADV_WIPEONFORK, SIGSEGV,
};
use shmcheck_probe::{Clause, Context, Outcome, Probe, Stop, Sys, doc, man, sys};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &DONTFORK,
    &DOFORK,
    &WIPE,
    &WIPE_GRANDCHILD,
    &KEEP,
    &WIPE_SHARED,
    &FLAG_DONTFORK,
    &FLAG_DONTDUMP,
    &FLAG_SEQUENTIAL,
    &FLAG_RANDOM,
    &FLAG_WIPE,
    &FLAG_HUGE,
    &FLAG_NO_HUGE,
    &FLAG_MERGEABLE,
];

const CALLS: &[Sys] = &[Sys::Madvise];

const DONTFORK: Probe = Probe {
    title: "MADV_DONTFORK keeps memory out of the child's address space",
    why: "RDMA libraries mark their buffers: a child that shares them breaks the parent's transfers",
    spec: &[man("madvise(2)", "MADV_DONTFORK")],
    calls: CALLS,
    ..probe("map.advise.dontfork.not-in-child", dontfork)
};
fn dontfork(cx: &mut Context) -> Outcome {
    let island = Island::shared(3)?;
    island.touch(0x71);
    must(sys::madvise(island.address() + page(), page(), MADV_DONTFORK))?;
    let childs = cx.elsewhere(|_| {
        let letters = [0, 1, 2].map(|n| perms(island.address() + n * page()));
        let letters: Vec<String> = letters.into_iter().collect::<Result<_, Stop>>()?;
        Ok((letters, island.read(0), island.read(2 * page())))
    })?;
    let letters = ["rw-s", "", "rw-s"].map(str::to_owned).to_vec();
    cx.expect_eq("the child's pages", childs, (letters, 0x71, 0x71))?;
    cx.expect_signal("a child's load", SIGSEGV, || super::common::load(&island, page()))?;
    cx.expect_eq("the parent's page", island.read(page()), 0x71)
}

const DOFORK: Probe = Probe {
    title: "MADV_DOFORK undoes MADV_DONTFORK",
    why: "a buffer that is no longer registered is ordinary memory again, also for children",
    spec: &[man("madvise(2)", "MADV_DOFORK")],
    calls: CALLS,
    ..probe("map.advise.dofork.back-in-child", dofork)
};
fn dofork(cx: &mut Context) -> Outcome {
    let island = Island::shared(1)?;
    must(sys::madvise(island.address(), page(), MADV_DONTFORK))?;
    let childs = cx.elsewhere(|_| perms(island.address()))?;
    cx.expect_eq("a child's page before", childs, String::new())?;
    must(sys::madvise(island.address(), page(), MADV_DOFORK))?;
    cx.elsewhere(|cx| {
        cx.expect_eq("the child's page", perms(island.address())?, "rw-s".to_owned())?;
        island.write(0, 0x72);
        Ok(())
    })?;
    cx.expect_eq("the child's store", island.read(0), 0x72)
}

const WIPE: Probe = Probe {
    title: "MADV_WIPEONFORK gives the child zeroes",
    why: "random number generators (BoringSSL, Rust's rand) learn of a fork by it; else two processes make the same keys",
    spec: &[man("madvise(2)", "MADV_WIPEONFORK")],
    calls: CALLS,
    ..probe("map.advise.wipeonfork.child-zeroes", wipe)
};
fn wipe(cx: &mut Context) -> Outcome {
    need_advice(MADV_WIPEONFORK, "MADV_WIPEONFORK")?;
    let island = Island::private(2)?;
    island.touch(0x73);
    must(sys::madvise(island.address(), page(), MADV_WIPEONFORK))?;
    let childs = cx.elsewhere(|_| Ok((island.read(0), island.read(page()))))?;
    cx.expect_eq("the child's two pages, the first marked", childs, (0, 0x73))?;
    cx.expect_eq("the parent's page", island.read(0), 0x73)
}

const WIPE_GRANDCHILD: Probe = Probe {
    title: "the mark of MADV_WIPEONFORK stays in the child",
    why: "a worker that forks again must not hand its seed to its own children",
    spec: &[man("madvise(2)", "MADV_WIPEONFORK")],
    calls: CALLS,
    ..probe("map.advise.wipeonfork.inherited", wipe_grandchild)
};
fn wipe_grandchild(cx: &mut Context) -> Outcome {
    need_advice(MADV_WIPEONFORK, "MADV_WIPEONFORK")?;
    let island = Island::private(1)?;
    must(sys::madvise(island.address(), page(), MADV_WIPEONFORK))?;
    let seen = cx.elsewhere(|cx| {
        island.write(0, 0x74);
        cx.elsewhere(|_| Ok(island.read(0)))
    })?;
    cx.expect_eq("the grandchild's page", seen, 0)
}

const KEEP: Probe = Probe {
    title: "MADV_KEEPONFORK undoes MADV_WIPEONFORK",
    why: "memory that is given back by the generator serves as ordinary memory again",
    spec: &[man("madvise(2)", "MADV_KEEPONFORK")],
    calls: CALLS,
    ..probe("map.advise.keeponfork.child-copy", keep)
};
fn keep(cx: &mut Context) -> Outcome {
    need_advice(MADV_WIPEONFORK, "MADV_WIPEONFORK")?;
    let island = Island::private(1)?;
    island.write(0, 0x75);
    must(sys::madvise(island.address(), page(), MADV_WIPEONFORK))?;
    let childs = cx.elsewhere(|_| Ok(island.read(0)))?;
    cx.expect_eq("a child's page before", childs, 0)?;
    must(sys::madvise(island.address(), page(), MADV_KEEPONFORK))?;
    let childs = cx.elsewhere(|_| Ok(island.read(0)))?;
    cx.expect_eq("the child's page", childs, 0x75)
}

const WIPE_SHARED: Probe = Probe {
    title: "MADV_WIPEONFORK on shared memory fails with EINVAL",
    why: "a library that keeps its seed in shared memory has to find another way, not believe itself safe",
    spec: &[man("madvise(2)", "EINVAL"), man("madvise(2)", "MADV_WIPEONFORK")],
    calls: CALLS,
    ..probe("map.advise.wipeonfork.shared-einval", wipe_shared)
};
fn wipe_shared(cx: &mut Context) -> Outcome {
    need_advice(MADV_WIPEONFORK, "MADV_WIPEONFORK")?;
    let private = Island::private(1)?;
    cx.expect_ok(|| sys::madvise(private.address(), page(), MADV_WIPEONFORK))?;
    let shared = Island::shared(1)?;
    shared.write(0, 0x76);
    refused(cx, EINVAL, || sys::madvise(shared.address(), page(), MADV_WIPEONFORK))?;
    let childs = cx.elsewhere(|_| Ok(shared.read(0)))?;
    cx.expect_eq("the child's page", childs, 0x76)
}

/// One advice, the mark it sets in VmFlags, and the advice that takes it away.
struct Mark {
    name: &'static str,
    advice: i32,
    letters: &'static str,
    undo: i32,
    private: bool,
}

const FLAG_DONTFORK: Probe = Probe {
    title: "MADV_DONTFORK sets the mark dc in VmFlags",
    ..marked("map.advise.flags.dontfork", |cx| {
        mark(
            cx,
            &Mark { name: "MADV_DONTFORK", advice: MADV_DONTFORK, letters: "dc", undo: MADV_DOFORK, private: false },
        )
    })
};
const FLAG_DONTDUMP: Probe = Probe {
    title: "MADV_DONTDUMP sets the mark dd in VmFlags",
    ..marked("map.advise.flags.dontdump", |cx| {
        mark(
            cx,
            &Mark { name: "MADV_DONTDUMP", advice: MADV_DONTDUMP, letters: "dd", undo: MADV_DODUMP, private: false },
        )
    })
};
const FLAG_SEQUENTIAL: Probe = Probe {
    title: "MADV_SEQUENTIAL sets the mark sr in VmFlags",
    ..marked("map.advise.flags.sequential", |cx| {
        let undo = MADV_NORMAL;
        mark(cx, &Mark { name: "MADV_SEQUENTIAL", advice: MADV_SEQUENTIAL, letters: "sr", undo, private: false })
    })
};
const FLAG_RANDOM: Probe = Probe {
    title: "MADV_RANDOM sets the mark rr in VmFlags",
    ..marked("map.advise.flags.random", |cx| {
        mark(cx, &Mark { name: "MADV_RANDOM", advice: MADV_RANDOM, letters: "rr", undo: MADV_NORMAL, private: false })
    })
};
const FLAG_WIPE: Probe = Probe {
    title: "MADV_WIPEONFORK sets the mark wf in VmFlags",
    ..marked("map.advise.flags.wipeonfork", |cx| {
        let undo = MADV_KEEPONFORK;
        mark(cx, &Mark { name: "MADV_WIPEONFORK", advice: MADV_WIPEONFORK, letters: "wf", undo, private: true })
    })
};
const FLAG_HUGE: Probe = Probe {
    title: "MADV_HUGEPAGE sets the mark hg in VmFlags of shared memory",
    ..marked("map.advise.flags.hugepage", |cx| {
        let undo = MADV_NOHUGEPAGE;
        mark(cx, &Mark { name: "MADV_HUGEPAGE", advice: MADV_HUGEPAGE, letters: "hg", undo, private: false })
    })
};
const FLAG_NO_HUGE: Probe = Probe {
    title: "MADV_NOHUGEPAGE sets the mark nh in VmFlags of shared memory",
    ..marked("map.advise.flags.nohugepage", |cx| {
        let undo = MADV_HUGEPAGE;
        mark(cx, &Mark { name: "MADV_NOHUGEPAGE", advice: MADV_NOHUGEPAGE, letters: "nh", undo, private: false })
    })
};
const FLAG_MERGEABLE: Probe = Probe {
    title: "MADV_MERGEABLE sets the mark mg in VmFlags of private memory",
    ..marked("map.advise.flags.mergeable", |cx| {
        let undo = MADV_UNMERGEABLE;
        mark(cx, &Mark { name: "MADV_MERGEABLE", advice: MADV_MERGEABLE, letters: "mg", undo, private: true })
    })
};
const MARKS: &[Clause] = &[doc("Documentation/filesystems/proc.rst", "VmFlags"), man("madvise(2)", "DESCRIPTION")];
#[track_caller]
const fn marked(id: &'static str, run: fn(&mut Context) -> Outcome) -> Probe {
    Probe {
        why: "the mark in /proc/PID/smaps is how people find out whether a program's advice was taken: a kernel that \
              returns 0 and forgets it shows here only",
        spec: MARKS,
        calls: CALLS,
        ..probe(id, run)
    }
}
fn mark(cx: &mut Context, mark: &Mark) -> Outcome {
    need_advice(mark.advice, mark.name)?;
    // A mapping of its own without small_pages, which sets one of the marks.
    let flags = if mark.private { super::common::PRIVATE } else { super::common::SHARED };
    let island = Island::new(1, super::common::RW, flags, -1)?;
    cx.expect_eq("the mark before", has(&island, mark.letters)?, false)?;
    cx.expect_ok(|| sys::madvise(island.address(), page(), mark.advice))?;
    cx.expect_eq("the mark", has(&island, mark.letters)?, true)?;
    cx.expect_ok(|| sys::madvise(island.address(), page(), mark.undo))?;
    cx.expect_eq("the mark after the opposite advice", has(&island, mark.letters)?, false)
}

/// Whether VmFlags of a mapping has the mark; /proc/PID/smaps, CONFIG_PROC_PAGE_MONITOR.
fn has(island: &Island, letters: &str) -> Result<bool, Stop> {
    let block = smaps_of(island.address())?;
    let Some(line) = block.lines().find_map(|line| line.strip_prefix("VmFlags:")) else {
        return Err(Stop::skip("smaps:VmFlags", "no such field"));
    };
    Ok(line.split_whitespace().any(|mark| mark == letters))
}
