//! shmat(2): what an attach is: memory shared, its protection, its refusals.

use super::parts::{page, plainly, segment};
use libc::{EACCES, PROT_READ, PROT_WRITE, SIGSEGV};
use shmcheck_probe::sys::{self, SHM_EXEC, SHM_RDONLY};
use shmcheck_probe::{Context, Map, Outcome, Probe, Stop, Sys, kernel, man, posix, procfs};
use std::sync::atomic::Ordering::Relaxed;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &SHARED_EVERY_PAGE,
    &SHARED_BOTH_WAYS,
    &ATOMICS,
    &TWICE,
    &MANY_TIMES,
    &READ_ONLY_SEES,
    &RDONLY_FAULTS,
    &RDONLY_MAPS,
    &RDONLY_MPROTECT,
    &RDONLY_BESIDE_RW,
    &EXEC_RUNS,
    &NO_EXEC_FAULTS,
    &EXEC_PERMISSION,
    &BREAK_STAYS,
];

const SHARED_EVERY_PAGE: Probe = Probe {
    title: "every page of a segment is the same memory in two processes",
    why: "a buffer pool of gigabytes is one segment: one page that is private is silent corruption of a database",
    spec: &[man("shmop(2)", "DESCRIPTION"), posix("shmat")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.shared-every-page", shared_every_page)
};
fn shared_every_page(cx: &mut Context) -> Outcome {
    const PAGES: usize = 16;
    let made = segment(cx, PAGES, 0o600)?;
    let map = made.attach(0)?;
    for number in 0..PAGES {
        map.write_all(number * page(), &[number as u8 + 1; 4]);
        map.write((number + 1) * page() - 1, number as u8 + 101);
    }
    let seen = cx.elsewhere(|_| {
        let map = made.attach(0)?;
        Ok((0..PAGES).map(|n| (map.read(n * page() + 3), map.read((n + 1) * page() - 1))).collect::<Vec<_>>())
    })?;
    let wanted: Vec<_> = (0..PAGES).map(|n| (n as u8 + 1, n as u8 + 101)).collect();
    cx.expect_eq("first and last bytes of each page, read elsewhere", seen, wanted)
}

const SHARED_BOTH_WAYS: Probe = Probe {
    title: "stores of either process are seen by the other",
    why: "request and reply go through one segment: sharing one way only hangs the client for ever",
    spec: &[man("shmop(2)", "DESCRIPTION"), posix("shmat")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.shared-both-ways", shared_both_ways)
};
fn shared_both_ways(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let (asked, answered) = (cx.gate()?, cx.gate()?);
    let peer = cx.fork(|_| {
        let map = made.attach(0)?;
        asked.pass()?;
        map.write(1, map.read(0) + 1);
        answered.open()
    })?;
    let map = made.attach(0)?;
    map.write(0, 41);
    asked.open()?;
    answered.pass()?;
    cx.expect_eq("answer of the peer", map.read(1), 42)?;
    peer.join()
}

const ATOMICS: Probe = Probe {
    title: "atomic additions of two processes lose no count",
    why: "connection counters and lock words live in segments: a lost count is a lock held by nobody",
    spec: &[man("shmop(2)", "DESCRIPTION")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.atomics", atomics)
};
fn atomics(cx: &mut Context) -> Outcome {
    const ROUNDS: u32 = 5_000;
    let made = segment(cx, 1, 0o600)?;
    let map = made.attach(0)?;
    let count = |map: &Map| (0..ROUNDS).for_each(|_| _ = map.atomic(0).fetch_add(1, Relaxed));
    let peer = cx.fork(|_| {
        count(&made.attach(0)?);
        Ok(())
    })?;
    count(&map);
    peer.join()?;
    cx.expect_eq("counter", map.atomic(0).load(Relaxed), 2 * ROUNDS)
}

const TWICE: Probe = Probe {
    title: "two attaches in one process are two addresses of one memory",
    why: "ring buffers attach twice in a row to wrap without a copy",
    spec: &[man("shmop(2)", "DESCRIPTION"), posix("shmat")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.twice", twice)
};
fn twice(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let (first, second) = (made.attach(0)?, made.attach(0)?);
    cx.expect_ne("second address", second.address(), first.address())?;
    first.write(5, 55);
    cx.expect_eq("byte at the second address", second.read(5), 55)?;
    cx.expect_eq("shm_nattch", made.stat()?.nattch, 2)
}

const MANY_TIMES: Probe = Probe {
    title: "a process may attach as often as it likes: there is no SHMSEG",
    why: "other systems stop at a few attaches per process; programs ported to Linux rely on none here",
    spec: &[man("shmget(2)", "Shared memory limits")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.many-times", many_times)
};
fn many_times(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let mut maps = Vec::new();
    for _ in 0..150 {
        maps.push(cx.expect_ok(|| made.attach(0))?);
    }
    cx.expect_eq("shm_nattch", made.stat()?.nattch, 150)?;
    maps[0].write(0, 1);
    let seen = maps.iter().filter(|map| map.read(0) == 1).count();
    cx.expect_eq("attaches that see a store", seen, 150)?;
    drop(maps);
    cx.expect_eq("shm_nattch at the end", made.stat()?.nattch, 0)
}

const READ_ONLY_SEES: Probe = Probe {
    title: "a read-only attach sees what others store later",
    why: "monitoring agents attach read-only and poll; a snapshot instead would show a server that stands still",
    spec: &[man("shmop(2)", "SHM_RDONLY"), posix("shmat")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.rdonly-sees", read_only_sees)
};
fn read_only_sees(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let reader = made.attach(SHM_RDONLY)?;
    cx.expect_eq("byte before", reader.read(0), 0)?;
    cx.elsewhere(|_| {
        made.attach(0)?.write(0, 8);
        Ok(())
    })?;
    cx.expect_eq("byte after the other's store", reader.read(0), 8)
}

const RDONLY_FAULTS: Probe = Probe {
    title: "a store through a SHM_RDONLY attach raises SIGSEGV",
    why: "a reader's bug must kill the reader, not damage the data of the server",
    spec: &[man("shmop(2)", "SHM_RDONLY"), posix("shmat")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.rdonly-sigsegv", rdonly_faults)
};
fn rdonly_faults(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let map = made.attach(SHM_RDONLY)?;
    cx.expect_no_signal("a load", || _ = map.read(0))?;
    cx.expect_signal("a store", SIGSEGV, || map.write(0, 1))?;
    cx.expect_eq("byte after the refused store", map.read(0), 0)
}

const RDONLY_MAPS: Probe = Probe {
    title: "maps shows rw-s for an attach and r--s with SHM_RDONLY",
    why: "auditors read here who can write to a segment",
    spec: &[man("shmop(2)", "SHM_RDONLY"), man("proc(5)", "/proc/[pid]/maps")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.maps-perms", rdonly_maps)
};
fn rdonly_maps(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    for (flags, perms) in [(0, "rw-s"), (SHM_RDONLY, "r--s")] {
        let map = made.attach(flags)?;
        let found = procfs::mapping_at(map.address())?.map(|m| m.perms);
        cx.expect_eq("protection in maps", found.as_deref(), Some(perms))?;
    }
    Ok(())
}

const RDONLY_MPROTECT: Probe = Probe {
    title: "mprotect cannot make a SHM_RDONLY attach writable: EACCES",
    why: "read-only would be a request, not a protection, if the reader could lift it by itself",
    spec: &[man("mprotect(2)", "EACCES"), kernel("ipc/shm.c", "do_shmat")],
    calls: &[Sys::Shmat, Sys::Mprotect],
    ..Probe::new("sysv.shm.at.rdonly-mprotect-eacces", rdonly_mprotect)
};
fn rdonly_mprotect(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let writable = made.attach(0)?;
    sys::mprotect(writable.address(), page(), PROT_READ)?;
    cx.expect_ok(|| sys::mprotect(writable.address(), page(), PROT_READ | PROT_WRITE))?;
    let map = made.attach(SHM_RDONLY)?;
    cx.expect_errno(EACCES, || sys::mprotect(map.address(), page(), PROT_READ | PROT_WRITE))?;
    let perms = procfs::mapping_at(map.address())?.map(|m| m.perms);
    cx.expect_eq("protection in maps", perms.as_deref(), Some("r--s"))
}

const RDONLY_BESIDE_RW: Probe = Probe {
    title: "one process may hold a read-only beside a writable attach",
    why: "a library's read-only view must not take the right to write from the program it is linked into",
    spec: &[man("shmop(2)", "DESCRIPTION")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.rdonly-beside-rw", rdonly_beside_rw)
};
fn rdonly_beside_rw(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let (writer, reader) = (made.attach(0)?, made.attach(SHM_RDONLY)?);
    cx.expect_no_signal("a store through the writable attach", || writer.write(0, 3))?;
    cx.expect_signal("a store through the read-only attach", SIGSEGV, || reader.write(0, 4))?;
    cx.expect_eq("byte through the read-only attach", reader.read(0), 3)
}

/// A segment that holds a function which returns, attached with these flags.
fn code(cx: &mut Context, flags: i32) -> Result<(shmcheck_probe::Segment, Map), Stop> {
    let made = segment(cx, 1, 0o700)?;
    made.attach(0)?.write_all(0, sys::RETURN_CODE);
    let map = made.attach(flags)?;
    Ok((made, map))
}

const EXEC_RUNS: Probe = Probe {
    title: "code in a segment attached with SHM_EXEC can be executed",
    why: "JIT compilers that share code between processes die of SIGSEGV without it",
    varies: "a security module may refuse memory that is writable and executable",
    spec: &[man("shmop(2)", "SHM_EXEC")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.exec-runs", exec_runs)
};
fn exec_runs(cx: &mut Context) -> Outcome {
    for (flags, perms) in [(SHM_EXEC, "rwxs"), (SHM_EXEC | SHM_RDONLY, "r-xs")] {
        let (_made, map) = code(cx, flags)?;
        let found = procfs::mapping_at(map.address())?.map(|m| m.perms);
        cx.expect_eq("protection in maps", found.as_deref(), Some(perms))?;
        if !sys::RETURN_CODE.is_empty() {
            cx.expect_no_signal("a call of code in the segment", || sys::execute(map.address()))?;
        }
    }
    Ok(())
}

const NO_EXEC_FAULTS: Probe = Probe {
    title: "without SHM_EXEC a segment's memory cannot be executed",
    why: "an attacker who can write into shared memory must not be able to run what he wrote",
    spec: &[man("shmop(2)", "SHM_EXEC")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.no-exec-faults", no_exec_faults)
};
fn no_exec_faults(cx: &mut Context) -> Outcome {
    let (_made, map) = code(cx, 0)?;
    let found = procfs::mapping_at(map.address())?.map(|m| m.perms);
    cx.expect_eq("protection in maps", found.as_deref(), Some("rw-s"))?;
    if sys::RETURN_CODE.is_empty() {
        return Ok(());
    }
    cx.expect_signal("a call of code in the segment", SIGSEGV, || sys::execute(map.address()))
}

const EXEC_PERMISSION: Probe = Probe {
    title: "SHM_EXEC needs execute permission: EACCES",
    why: "the owner decides by the mode whether code may run from the segment; shmctl(2) denies it, the kernel checks it",
    spec: &[man("shmop(2)", "SHM_EXEC"), man("shmop(2)", "EACCES"), kernel("ipc/shm.c", "do_shmat")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.exec-permission", exec_permission)
};
fn exec_permission(cx: &mut Context) -> Outcome {
    let (with, without) = (segment(cx, 1, 0o700)?, segment(cx, 1, 0o600)?);
    plainly(cx, |cx| {
        cx.expect_ok(|| sys::shmat(with.id, SHM_EXEC))?;
        cx.expect_ok(|| sys::shmat(without.id, 0))?;
        cx.expect_errno(EACCES, || sys::shmat(without.id, SHM_EXEC))?;
        cx.expect_errno(EACCES, || sys::shmat(without.id, SHM_EXEC | SHM_RDONLY))
    })?;
    cx.expect_eq("shm_nattch", without.stat()?.nattch, 0)
}

const BREAK_STAYS: Probe = Probe {
    title: "an attach does not move the program break",
    why: "old attach addresses lay right above the heap: a moved break would let malloc run into the segment",
    spec: &[man("shmop(2)", "DESCRIPTION")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.break-stays", break_stays)
};
fn break_stays(cx: &mut Context) -> Outcome {
    let made = segment(cx, 16, 0o600)?;
    let before = sys::program_break();
    let map = made.attach(0)?;
    cx.expect_eq("program break", sys::program_break(), before)?;
    map.close()?;
    cx.expect_eq("program break after shmdt", sys::program_break(), before)
}
