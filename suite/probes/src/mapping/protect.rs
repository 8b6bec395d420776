//! What may be done with a page: PROT_*, mprotect(2) and the faults.

use super::common::{
    FILE, Fault, Island, PRIVATE, RW, SHARED, byte_of, fault_of, lettered_file, load, must, page, perms, probe, reopen,
};
use libc::{EFAULT, MAP_PRIVATE, MAP_SHARED, O_RDONLY, PROT_EXEC, PROT_NONE, PROT_READ, PROT_WRITE, SIGSEGV};
use shmcheck_probe::{Context, Map, Outcome, Probe, Sys, kernel, man, posix, procfs, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &NONE_LOAD,
    &NONE_SYSCALL,
    &READ_STORE,
    &ACCERR,
    &NO_EXEC,
    &EXEC_RUNS,
    &MADE_READ_ONLY,
    &MADE_WRITABLE,
    &SPLITS,
    &WHOLE_PAGES,
    &CALLER_ONLY,
    &LENGTH_ZERO,
    &PRIVATE_OF_READ_ONLY,
    &CONTENT_KEPT,
];

const NONE_LOAD: Probe = Probe {
    title: "memory with PROT_NONE cannot be read: SIGSEGV",
    why: "guard pages under thread stacks and around arenas are made of it; an overrun that is not caught corrupts",
    spec: &[man("mprotect(2)", "PROT_NONE"), posix("mmap")],
    ..probe("map.protect.none.load-sigsegv", none_load)
};
fn none_load(cx: &mut Context) -> Outcome {
    let map = Map::new(page(), PROT_NONE, SHARED, -1)?;
    cx.expect_signal("a load", SIGSEGV, || load(&map, 0))?;
    cx.expect_signal("a store", SIGSEGV, || map.write(page() - 1, 1))
}

const NONE_SYSCALL: Probe = Probe {
    title: "write(2) from memory with PROT_NONE gives EFAULT",
    why: "a heap that fences off freed blocks turns a use after free into an errno instead of sending old secrets",
    spec: &[man("write(2)", "EFAULT")],
    needs: FILE,
    ..probe("map.protect.none.syscall-efault", none_syscall)
};
fn none_syscall(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let map = Map::shared_anonymous(page())?;
    map.write_all(0, b"secret");
    cx.expect_eq("bytes written while readable", sys::write_from(file.as_raw_fd(), map.address(), 1)?, 1)?;
    must(sys::mprotect(map.address(), page(), PROT_NONE))?;
    cx.expect_errno(EFAULT, || sys::write_from(file.as_raw_fd(), map.address(), 6))?;
    cx.expect_eq("the file's second byte", byte_of(&file, 1)?, b'a')
}

const READ_STORE: Probe = Probe {
    title: "a store to a read-only shared mapping raises SIGSEGV",
    why: "consumers map the producer's ring read-only so that their bugs stay theirs",
    spec: &[man("mmap(2)", "SIGSEGV"), posix("mmap")],
    needs: FILE,
    ..probe("map.protect.read.store-sigsegv", read_store)
};
fn read_store(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let map = Map::new(page(), PROT_READ, MAP_SHARED, file.as_raw_fd())?;
    cx.expect_no_signal("a load", || load(&map, 0))?;
    cx.expect_signal("a store", SIGSEGV, || map.write(0, b'!'))?;
    cx.expect_eq("the byte in the file", byte_of(&file, 0)?, b'a')
}

const ACCERR: Probe = Probe {
    title: "the fault of a forbidden store carries SEGV_ACCERR with the address",
    why: "garbage collectors (Go's, Java's) write-protect pages and find what was written by this address",
    spec: &[man("sigaction(2)", "SEGV_ACCERR"), posix("signal.h")],
    ..probe("map.protect.read.segv-accerr", accerr)
};
fn accerr(cx: &mut Context) -> Outcome {
    let map = Map::new(2 * page(), PROT_READ, SHARED, -1)?;
    let address = map.address() + page() + 24;
    let fault = fault_of(cx, || map.write(page() + 24, 1))?;
    cx.expect_eq("the fault", fault, Fault { signal: SIGSEGV, code: 2, address })
}

const NO_EXEC: Probe = Probe {
    title: "memory without PROT_EXEC cannot be executed",
    why: "without it every overflow of a shared buffer runs as code",
    varies: "processors without a no-execute bit execute what can be read; so does personality READ_IMPLIES_EXEC",
    spec: &[man("mprotect(2)", "DESCRIPTION"), man("mmap(2)", "PROT_EXEC")],
    needs: FILE,
    ..probe("map.protect.read.run-sigsegv", no_exec)
};
fn no_exec(cx: &mut Context) -> Outcome {
    let code = super::file::machine_code()?;
    let file = sys::memory_file(page())?;
    let map = Map::shared(&file, page())?;
    map.write_all(0, code);
    cx.expect_signal("running the code", SIGSEGV, || drop(Box::new(sys::run_code(map.address()))))
}

const EXEC_RUNS: Probe = Probe {
    title: "mprotect with PROT_EXEC makes code run that was stored before",
    why: "JavaScript engines write a function, flip its page and call it; where this is refused a browser tab dies",
    varies: "security modules may refuse it (SELinux execmod, PaX)",
    spec: &[man("mprotect(2)", "PROT_EXEC")],
    needs: FILE,
    calls: &[Sys::Mmap, Sys::Mprotect],
    ..probe("map.protect.mprotect.exec-runs", exec_runs)
};
fn exec_runs(cx: &mut Context) -> Outcome {
    let code = super::file::machine_code()?;
    let file = sys::memory_file(page())?;
    let map = Map::shared(&file, page())?;
    map.write_all(16, code);
    cx.expect_ok(|| sys::mprotect(map.address(), page(), PROT_READ | PROT_EXEC))?;
    super::file::runs(cx, map.address() + 16)
}

const MADE_READ_ONLY: Probe = Probe {
    title: "mprotect takes the right to store away from shared memory",
    why: "an object store seals what it has published; a client's stray pointer must fault, not change it for all",
    spec: &[man("mprotect(2)", "DESCRIPTION"), posix("mprotect")],
    calls: &[Sys::Mprotect],
    ..probe("map.protect.mprotect.read-only-faults", made_read_only)
};
fn made_read_only(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(page())?;
    map.write(0, 1);
    cx.expect_ok(|| sys::mprotect(map.address(), page(), PROT_READ))?;
    cx.expect_signal("a store", SIGSEGV, || map.write(0, 2))?;
    cx.expect_eq("the byte", map.read(0), 1)?;
    cx.expect_eq("the letters in /proc/self/maps", perms(map.address())?, "r--s".to_owned())
}

const MADE_WRITABLE: Probe = Probe {
    title: "mprotect gives back the right to store to shared memory",
    why: "arenas are reserved with PROT_NONE and opened page by page: malloc, Go and Java grow their heaps so",
    spec: &[man("mprotect(2)", "DESCRIPTION"), posix("mprotect")],
    calls: &[Sys::Mprotect],
    ..probe("map.protect.mprotect.writable-again", made_writable)
};
fn made_writable(cx: &mut Context) -> Outcome {
    let map = Map::new(page(), PROT_NONE, SHARED, -1)?;
    cx.expect_ok(|| sys::mprotect(map.address(), page(), RW))?;
    cx.expect_no_signal("a child's store", || map.write(1, 0x2a))?;
    cx.expect_eq("a child's store", map.read(1), 0x2a)
}

const SPLITS: Probe = Probe {
    title: "mprotect of the middle leaves both sides as they were",
    why: "a guard page inside an arena must not take its neighbours with it",
    spec: &[man("mprotect(2)", "ENOMEM"), posix("mprotect")],
    calls: &[Sys::Mprotect],
    ..probe("map.protect.mprotect.middle-splits", splits)
};
fn splits(cx: &mut Context) -> Outcome {
    let island = Island::shared(3)?;
    let (map, p) = (&island.map, page());
    must(sys::mprotect(map.address() + p, p, PROT_READ))?;
    let inside = |m: &procfs::Mapping| m.start >= map.address() && m.end <= map.address() + 3 * p;
    let parts = || Ok::<_, shmcheck_probe::Stop>(procfs::maps("self")?.into_iter().filter(inside).collect::<Vec<_>>());
    let seen: Vec<_> = parts()?.into_iter().map(|m| (m.start - map.address(), m.perms)).collect();
    let wanted = [(0, "rw-s"), (p, "r--s"), (2 * p, "rw-s")].map(|(at, perms)| (at, perms.to_owned()));
    cx.expect_eq("the parts", seen, wanted.to_vec())?;
    cx.expect_no_signal("stores to both sides", || {
        map.write(p - 1, 1);
        map.write(2 * p, 1);
    })?;
    cx.expect_signal("a store to the middle", SIGSEGV, || map.write(p, 1))
}

const WHOLE_PAGES: Probe = Probe {
    title: "mprotect changes every page that holds a part of the range",
    why: "callers pass the length of their object; the page its last byte lies in is protected too",
    spec: &[man("mprotect(2)", "DESCRIPTION"), posix("mprotect")],
    calls: &[Sys::Mprotect],
    ..probe("map.protect.mprotect.whole-pages", whole_pages)
};
fn whole_pages(cx: &mut Context) -> Outcome {
    let island = Island::shared(3)?;
    let at = island.map.address();
    must(sys::mprotect(at, page() + 1, PROT_READ))?;
    let seen = [perms(at)?, perms(at + page())?, perms(at + 2 * page())?];
    cx.expect_eq("the three pages", seen, ["r--s", "r--s", "rw-s"].map(str::to_owned))?;
    cx.expect_signal("a store to the end of the second page", SIGSEGV, || island.map.write(2 * page() - 1, 1))
}

const CALLER_ONLY: Probe = Probe {
    title: "mprotect changes the calling process alone",
    why: "a reader protects itself from its own bugs while the writer goes on writing",
    spec: &[man("mprotect(2)", "DESCRIPTION")],
    calls: &[Sys::Mprotect],
    ..probe("map.protect.mprotect.caller-only", caller_only)
};
fn caller_only(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(page())?;
    let (protected, written) = (cx.gate()?, cx.gate()?);
    let peer = cx.fork(|_| {
        must(sys::mprotect(map.address(), page(), PROT_READ))?;
        protected.open()?;
        written.pass()?;
        Ok((map.read(0), perms(map.address())?))
    })?;
    protected.pass()?;
    cx.expect_eq("the letters of this process", perms(map.address())?, "rw-s".to_owned())?;
    cx.expect_no_signal("a store by a third process", || map.write(0, 5))?;
    written.open()?;
    cx.expect_eq("the byte and letters of the other", peer.join()?, (5, "r--s".to_owned()))
}

const LENGTH_ZERO: Probe = Probe {
    title: "mprotect of zero bytes changes nothing",
    why: "the last slice of a loop over a buffer is often empty",
    spec: &[kernel("mm/mprotect.c", "do_mprotect_pkey")],
    calls: &[Sys::Mprotect],
    ..probe("map.protect.mprotect.length-zero", length_zero)
};
fn length_zero(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(page())?;
    cx.expect_ok(|| sys::mprotect(map.address(), 0, PROT_NONE))?;
    cx.expect_eq("the letters", perms(map.address())?, "rw-s".to_owned())?;
    cx.expect_ok(|| sys::mprotect(map.address(), 1, PROT_NONE))?;
    cx.expect_eq("the letters after length 1", perms(map.address())?, "---s".to_owned())
}

const PRIVATE_OF_READ_ONLY: Probe = Probe {
    title: "a private mapping of a read-only file can be made writable",
    why: "text relocations and breakpoints: the loader and gdb write to their copy of a file they may only read",
    spec: &[man("mprotect(2)", "NOTES")],
    needs: FILE,
    calls: &[Sys::Mprotect],
    ..probe("map.protect.mprotect.private-of-read-only", private_of_read_only)
};
fn private_of_read_only(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let reader = reopen(&file, O_RDONLY)?;
    let map = Map::new(page(), PROT_READ, MAP_PRIVATE, reader.as_raw_fd())?;
    cx.expect_ok(|| sys::mprotect(map.address(), page(), RW))?;
    cx.expect_no_signal("a store", || map.write(0, b'!'))?;
    map.write(0, b'?');
    cx.expect_eq("the copy and the file", (map.read(0), byte_of(&file, 0)?), (b'?', b'a'))
}

const CONTENT_KEPT: Probe = Probe {
    title: "contents survive a phase with PROT_NONE",
    why: "snapshot and migration tools fence memory off for a while; what was there has to be there afterwards",
    spec: &[man("mprotect(2)", "DESCRIPTION")],
    calls: &[Sys::Mprotect],
    ..probe("map.protect.mprotect.contents-kept", content_kept)
};
fn content_kept(cx: &mut Context) -> Outcome {
    for flags in [SHARED, PRIVATE] {
        let map = Map::new(2 * page(), RW, flags, -1)?;
        map.touch(0x6b);
        for (protection, letters) in [(PROT_NONE, "---"), (PROT_WRITE, "-w-"), (PROT_READ, "r--")] {
            must(sys::mprotect(map.address(), map.len(), protection))?;
            cx.expect_eq("the letters", perms(map.address())?[..3].to_owned(), letters.to_owned())?;
        }
        cx.expect_eq("both pages", (map.read(0), map.read(page())), (0x6b, 0x6b))?;
    }
    Ok(())
}
