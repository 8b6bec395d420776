//! Private mappings of a file: copies on write.

use super::common::{FILE, RW, byte_of, lettered_file, page, probe, reopen, smaps};
use libc::{MAP_PRIVATE, MAP_SHARED, O_RDONLY, PROT_READ};
use shmcheck_probe::{Context, Map, Outcome, Probe, Sys, man, posix, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] =
    &[&NOT_IN_FILE, &NOT_SEEN, &KEEPS_COPY, &READ_ONLY_FILE, &OTHER_PAGES, &COUNTED, &EXEC_CODE];

const NOT_IN_FILE: Probe = Probe {
    title: "a store to a private mapping does not reach the file",
    why: "a debugger sets its breakpoints in such copies of a program's text; the program on disk must stay whole",
    spec: &[man("mmap(2)", "MAP_PRIVATE"), posix("mmap")],
    needs: FILE,
    calls: &[Sys::Mmap, Sys::Msync],
    ..probe("map.file.private.not-in-file", not_in_file)
};
fn not_in_file(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let map = Map::new(page(), RW, MAP_PRIVATE, file.as_raw_fd())?;
    map.write(3, b'!');
    sys::msync(map.address(), page(), libc::MS_SYNC)?;
    cx.expect_eq("the byte in the mapping", map.read(3), b'!')?;
    map.close()?;
    cx.expect_eq("the byte in the file", byte_of(&file, 3)?, b'a')
}

const NOT_SEEN: Probe = Probe {
    title: "a store to a private mapping is not seen in other mappings",
    why: "relocated data of a shared library is private to each process; elsewhere it would be another's pointers",
    spec: &[man("mmap(2)", "MAP_PRIVATE"), posix("mmap")],
    needs: FILE,
    ..probe("map.file.private.not-seen-by-others", not_seen)
};
fn not_seen(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let map = Map::new(page(), RW, MAP_PRIVATE, file.as_raw_fd())?;
    let shared = Map::new(page(), PROT_READ, MAP_SHARED, file.as_raw_fd())?;
    let private = Map::new(page(), PROT_READ, MAP_PRIVATE, file.as_raw_fd())?;
    map.write(0, b'!');
    cx.expect_eq("shared and private neighbours", (shared.read(0), private.read(0)), (b'a', b'a'))
}

const KEEPS_COPY: Probe = Probe {
    title: "a page that was stored to keeps its copy when the file changes",
    why: "a program patched in memory must not lose the patch when its file is rewritten",
    spec: &[man("mmap(2)", "MAP_PRIVATE"), posix("mmap")],
    needs: FILE,
    ..probe("map.file.private.keeps-its-copy", keeps_copy)
};
fn keeps_copy(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let map = Map::new(page(), RW, MAP_PRIVATE, file.as_raw_fd())?;
    map.write(0, b'!');
    cx.elsewhere(|_| Ok(sys::pwrite(file.as_raw_fd(), b"zz", 0)?))?;
    cx.expect_eq("the first two bytes of the copy", map.read_all(0, 2), b"!a".to_vec())
}

const READ_ONLY_FILE: Probe = Probe {
    title: "a file open for reading only can be mapped for private stores",
    why: "the dynamic loader maps every library's data so; without it no program starts",
    spec: &[posix("mmap"), man("mmap(2)", "ERRORS")],
    needs: FILE,
    ..probe("map.file.private.read-only-file", read_only_file)
};
fn read_only_file(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let reader = reopen(&file, O_RDONLY)?;
    let map = cx.expect_ok(|| Map::new(page(), RW, MAP_PRIVATE, reader.as_raw_fd()))?;
    map.write(0, b'!');
    cx.expect_eq("the mapping's bytes", map.read_all(0, 2), b"!a".to_vec())?;
    cx.expect_eq("the file's byte", byte_of(&file, 0)?, b'a')
}

const OTHER_PAGES: Probe = Probe {
    title: "a store copies no page but its own",
    why: "hundreds of processes share one library's pages; one store must cost one page, not a megabyte",
    spec: &[man("proc(5)", "/proc/[pid]/smaps"), man("mmap(2)", "MAP_PRIVATE")],
    needs: FILE,
    ..probe("map.file.private.copies-one-page", other_pages)
};
fn other_pages(cx: &mut Context) -> Outcome {
    let file = lettered_file(4)?;
    let map = super::common::Island::new(4, RW, MAP_PRIVATE, file.as_raw_fd())?;
    let read: Vec<u8> = (0..4).map(|n| map.read(n * page())).collect();
    cx.expect_eq("the pages before", read, b"abcd".to_vec())?;
    cx.expect_eq("Anonymous before", smaps(map.address(), "Anonymous")?, 0)?;
    map.write(2 * page(), b'!');
    cx.expect_eq("Anonymous after one store", smaps(map.address(), "Anonymous")?, super::common::kib(1))
}

const COUNTED: Probe = Probe {
    title: "a child's copy of a private page is its own from its first store",
    why: "after a fork both sides go on; whichever stores first must not change the page of the other",
    spec: &[man("fork(2)", "NOTES"), man("mmap(2)", "MAP_PRIVATE")],
    needs: FILE,
    ..probe("map.file.private.fork-copies", counted)
};
fn counted(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let map = Map::new(page(), RW, MAP_PRIVATE, file.as_raw_fd())?;
    map.write(0, b'1');
    let childs = cx.elsewhere(|_| {
        let before = map.read(0);
        map.write(0, b'2');
        Ok((before, map.read(0)))
    })?;
    cx.expect_eq("the child's byte before and after its store", childs, (b'1', b'2'))?;
    cx.expect_eq("the parent's byte, the file's byte", (map.read(0), byte_of(&file, 0)?), (b'1', b'a'))
}

const EXEC_CODE: Probe = Probe {
    title: "code in a private mapping with PROT_EXEC runs",
    why: "this is how the text of every shared library is mapped",
    varies: "refused where the security module denies execution of the file",
    spec: &[man("mmap(2)", "PROT_EXEC")],
    needs: FILE,
    ..probe("map.file.private.code-runs", exec_code)
};
fn exec_code(cx: &mut Context) -> Outcome {
    let file = sys::memory_file(page())?;
    sys::pwrite(file.as_raw_fd(), super::file::machine_code()?, 64)?;
    let map = Map::new(page(), PROT_READ | libc::PROT_EXEC, MAP_PRIVATE, file.as_raw_fd())?;
    super::file::runs(cx, map.address() + 64)
}
