//! Where the file ends: the partial last page, pages beyond, and files that shrink and grow under their mappings.

use super::common::{FILE, Fault, RW, byte_of, fault_of, lettered_file, load, page, probe};
use libc::{BUS_ADRERR, EFAULT, MAP_PRIVATE, SIGBUS};
use shmcheck_probe::{Context, Map, Outcome, Probe, Sys, kernel, man, posix, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &TAIL_ZERO,
    &TAIL_NO_FAULT,
    &TAIL_NOT_WRITTEN,
    &BEYOND_LOAD,
    &BEYOND_STORE,
    &BEYOND_PRIVATE,
    &BEYOND_CODE,
    &BEYOND_SYSCALL,
    &EMPTY,
    &SHRUNK,
    &SHRUNK_PRIVATE,
    &SHRUNK_KEPT,
    &GROWN,
    &REGROWN_ZERO,
    &CUT_TAIL_ZERO,
    &APPENDED,
];

/// A file of one page and a half.
fn one_and_a_half() -> Result<std::os::fd::OwnedFd, shmcheck_probe::Stop> {
    let file = lettered_file(2)?;
    sys::ftruncate(file.as_raw_fd(), size() as i64)?;
    Ok(file)
}

fn size() -> usize {
    page() + page() / 2
}

const TAIL_ZERO: Probe = Probe {
    title: "the last page is filled with zeroes behind the end of the file",
    why: "string searches in mapped files (ripgrep, git) stop at this zero byte",
    spec: &[man("mmap(2)", "NOTES"), posix("mmap")],
    needs: FILE,
    ..probe("map.eof.tail.zero-filled", tail_zero)
};
fn tail_zero(cx: &mut Context) -> Outcome {
    let file = one_and_a_half()?;
    let map = Map::shared(&file, 2 * page())?;
    cx.expect_eq("the last byte of the file", map.read(size() - 1), b'b')?;
    let first = (size()..2 * page()).find(|n| map.read(*n) != 0);
    cx.expect_eq("the first byte behind it that is not zero", first, None)
}

const TAIL_NO_FAULT: Probe = Probe {
    title: "an access behind the end within the last page does not fault",
    why: "vectorised code reads whole words at the end of its input and relies on the page being there",
    spec: &[man("mmap(2)", "NOTES"), posix("mmap")],
    needs: FILE,
    ..probe("map.eof.tail.no-fault", tail_no_fault)
};
fn tail_no_fault(cx: &mut Context) -> Outcome {
    let file = one_and_a_half()?;
    let map = Map::shared(&file, 3 * page())?;
    cx.expect_no_signal("the last byte of the last page", || {
        map.read(2 * page() - 1);
        map.write(2 * page() - 1, 1);
    })?;
    cx.expect_signal("the first byte of the page behind", SIGBUS, || load(&map, 2 * page()))
}

const TAIL_NOT_WRITTEN: Probe = Probe {
    title: "a store behind the end of the file does not change the file",
    why: "a program that scribbles over the tail must not grow the file for all others",
    spec: &[man("mmap(2)", "NOTES"), posix("mmap")],
    needs: FILE,
    calls: &[Sys::Mmap, Sys::Msync],
    ..probe("map.eof.tail.not-in-file", tail_not_written)
};
fn tail_not_written(cx: &mut Context) -> Outcome {
    let file = one_and_a_half()?;
    let map = Map::shared(&file, 2 * page())?;
    map.write(size(), b'!');
    map.write(size() - 1, b'?');
    sys::msync(map.address(), 2 * page(), libc::MS_SYNC)?;
    cx.expect_eq("st_size", sys::fstat(file.as_raw_fd())?.st_size, size() as i64)?;
    let mut rest = [0; 2];
    let n = sys::pread(file.as_raw_fd(), &mut rest, size() as i64 - 1)?;
    cx.expect_eq("what read(2) finds at the end", (n, rest[0]), (1, b'?'))
}

const BEYOND_LOAD: Probe = Probe {
    title: "a load from a page beyond the end of the file raises SIGBUS",
    why: "a reader of a file that was not sized yet has to die, or handle it, rather than compute with invented bytes",
    spec: &[man("mmap(2)", "SIGBUS"), posix("mmap")],
    needs: FILE,
    ..probe("map.eof.beyond.load-sigbus", |cx| beyond(cx, libc::MAP_SHARED, |map| load(map, 2 * page())))
};
const BEYOND_STORE: Probe = Probe {
    title: "a store to a page beyond the end of the file raises SIGBUS",
    why: "the classic crash of a program that maps before it calls ftruncate; silently lost stores would be worse",
    spec: &[man("mmap(2)", "SIGBUS"), posix("mmap")],
    needs: FILE,
    ..probe("map.eof.beyond.store-sigbus", |cx| beyond(cx, libc::MAP_SHARED, |map| map.write(2 * page(), 1)))
};
const BEYOND_PRIVATE: Probe = Probe {
    title: "a private mapping faults beyond the end of the file as well",
    why: "a truncated library on disk shows as SIGBUS at start; zeroes instead would run as code",
    spec: &[man("mmap(2)", "SIGBUS"), posix("mmap")],
    needs: FILE,
    ..probe("map.eof.beyond.private-sigbus", |cx| beyond(cx, MAP_PRIVATE, |map| map.write(2 * page(), 1)))
};
fn beyond(cx: &mut Context, flags: i32, touch: fn(&Map)) -> Outcome {
    let file = one_and_a_half()?;
    let map = Map::new(3 * page(), RW, flags, file.as_raw_fd())?;
    cx.expect_no_signal("a store to the file's own pages", || map.write(size() - 1, 1))?;
    cx.expect_signal("the access", SIGBUS, || touch(&map))?;
    cx.expect_eq("st_size", sys::fstat(file.as_raw_fd())?.st_size, size() as i64)
}

const BEYOND_CODE: Probe = Probe {
    title: "SIGBUS beyond the end carries BUS_ADRERR with the address",
    why: "Java's and .NET's handlers turn it into an exception by code and address; else the whole server dies",
    spec: &[man("sigaction(2)", "BUS_ADRERR"), posix("signal.h")],
    needs: FILE,
    ..probe("map.eof.beyond.bus-adrerr", beyond_code)
};
fn beyond_code(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let map = Map::shared(&file, 3 * page())?;
    let address = map.address() + page() + 40;
    let fault = fault_of(cx, || map.write(page() + 40, 1))?;
    cx.expect_eq("the fault", fault, Fault { signal: SIGBUS, code: BUS_ADRERR, address })
}

const BEYOND_SYSCALL: Probe = Probe {
    title: "read(2) into a page beyond the end of the file gives EFAULT",
    why: "a proxy reads from its socket into a mapped file: it gets an error it can handle, not a signal",
    spec: &[man("read(2)", "EFAULT")],
    needs: FILE,
    ..probe("map.eof.beyond.syscall-efault", beyond_syscall)
};
fn beyond_syscall(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let source = lettered_file(2)?;
    let map = Map::shared(&file, 2 * page())?;
    cx.expect_eq("bytes read into the file", sys::read_into(source.as_raw_fd(), map.address(), 16)?, 16)?;
    cx.expect_errno(EFAULT, || sys::read_into(source.as_raw_fd(), map.address() + page(), 16))
}

const EMPTY: Probe = Probe {
    title: "an empty file can be mapped; the first access raises SIGBUS",
    why: "the window between shm_open and ftruncate: another process maps in time and dies of its first look",
    spec: &[man("mmap(2)", "SIGBUS"), posix("mmap")],
    needs: FILE,
    ..probe("map.eof.empty.sigbus", empty)
};
fn empty(cx: &mut Context) -> Outcome {
    let file = sys::memory_file(0)?;
    let map = cx.expect_ok(|| Map::shared(&file, page()))?;
    cx.expect_signal("the first load", SIGBUS, || load(&map, 0))?;
    sys::ftruncate(file.as_raw_fd(), 1)?;
    cx.expect_no_signal("the load after ftruncate to one byte", || load(&map, page() - 1))
}

const SHRUNK: Probe = Probe {
    title: "pages cut off by ftruncate raise SIGBUS in every mapping",
    why: "a log rotated by truncation kills the reader that has it mapped; that this is so is why rotation renames",
    spec: &[posix("ftruncate"), man("ftruncate(2)", "DESCRIPTION"), man("mmap(2)", "SIGBUS")],
    needs: FILE,
    calls: &[Sys::Mmap, Sys::Ftruncate],
    ..probe("map.eof.shrink.sigbus", |cx| shrunk(cx, libc::MAP_SHARED))
};
const SHRUNK_PRIVATE: Probe = Probe {
    title: "ftruncate takes away private copies of the pages it cuts off",
    why: "a private copy is still a mapping of the file: programs that count on their copy die when it is truncated",
    spec: &[kernel("mm/memory.c", "unmap_mapping_range"), man("mmap(2)", "SIGBUS")],
    needs: FILE,
    calls: &[Sys::Mmap, Sys::Ftruncate],
    ..probe("map.eof.shrink.private-sigbus", |cx| shrunk(cx, MAP_PRIVATE))
};
fn shrunk(cx: &mut Context, flags: i32) -> Outcome {
    let file = lettered_file(3)?;
    let map = Map::new(3 * page(), RW, flags, file.as_raw_fd())?;
    map.touch(b'!');
    cx.elsewhere(|_| Ok(sys::ftruncate(file.as_raw_fd(), page() as i64)?))?;
    cx.expect_eq("the page that stayed", map.read(0), b'!')?;
    cx.expect_signal("a load from a page that was cut off", SIGBUS, || load(&map, page()))?;
    cx.expect_signal("a store to the last page", SIGBUS, || map.write(3 * page() - 1, 1))
}

const SHRUNK_KEPT: Probe = Probe {
    title: "ftruncate to a smaller size keeps the bytes before the new end",
    why: "a server shrinks its arena while clients work in the rest of it",
    spec: &[posix("ftruncate")],
    needs: FILE,
    calls: &[Sys::Mmap, Sys::Ftruncate],
    ..probe("map.eof.shrink.rest-kept", shrunk_kept)
};
fn shrunk_kept(cx: &mut Context) -> Outcome {
    let file = lettered_file(3)?;
    let map = Map::shared(&file, 3 * page())?;
    cx.expect_eq("the last byte to stay", map.read(size() - 1), b'b')?;
    cx.elsewhere(|_| Ok(sys::ftruncate(file.as_raw_fd(), size() as i64)?))?;
    cx.expect_eq("first byte and last", (map.read(0), map.read(size() - 1)), (b'a', b'b'))?;
    map.write(page(), b'!');
    cx.expect_eq("a store to what is left", byte_of(&file, page())?, b'!')
}

const GROWN: Probe = Probe {
    title: "pages added by ftruncate can be used through older mappings",
    why: "LMDB and many arenas map their largest size once, then grow the file as they need it",
    spec: &[kernel("mm/filemap.c", "filemap_fault"), man("ftruncate(2)", "DESCRIPTION")],
    needs: FILE,
    calls: &[Sys::Mmap, Sys::Ftruncate],
    ..probe("map.eof.grow.usable", grown)
};
fn grown(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let map = Map::shared(&file, 3 * page())?;
    cx.expect_signal("a load before the file grows", SIGBUS, || load(&map, 2 * page()))?;
    cx.elsewhere(|_| Ok(sys::ftruncate(file.as_raw_fd(), 3 * page() as i64)?))?;
    cx.expect_no_signal("a store after it has grown", || map.write(2 * page(), b'!'))?;
    cx.expect_eq("the byte in the file", byte_of(&file, 2 * page())?, b'!')
}

const REGROWN_ZERO: Probe = Probe {
    title: "pages that were cut off come back as zeroes when the file grows",
    why: "a pool that shrinks and grows again hands out memory that its users take for cleared",
    spec: &[posix("ftruncate"), man("ftruncate(2)", "DESCRIPTION")],
    needs: FILE,
    calls: &[Sys::Mmap, Sys::Ftruncate],
    ..probe("map.eof.grow.zeroes-again", regrown_zero)
};
fn regrown_zero(cx: &mut Context) -> Outcome {
    let file = lettered_file(3)?;
    let map = Map::shared(&file, 3 * page())?;
    map.touch(b'!');
    sys::ftruncate(file.as_raw_fd(), page() as i64)?;
    sys::ftruncate(file.as_raw_fd(), 3 * page() as i64)?;
    let first = (page()..3 * page()).find(|n| map.read(*n) != 0);
    cx.expect_eq("the first byte that is not zero", first, None)?;
    cx.expect_eq("the page that was never cut off", map.read(0), b'!')
}

const CUT_TAIL_ZERO: Probe = Probe {
    title: "bytes cut off within a page come back as zeroes",
    why: "the rest of the last page is the place where an old record shows up again as if it were new",
    spec: &[posix("ftruncate"), man("ftruncate(2)", "DESCRIPTION")],
    needs: FILE,
    calls: &[Sys::Mmap, Sys::Ftruncate],
    ..probe("map.eof.grow.cut-bytes-zero", cut_tail_zero)
};
fn cut_tail_zero(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let map = Map::shared(&file, page())?;
    cx.expect_eq("the last byte before", map.read(page() - 1), b'a')?;
    sys::ftruncate(file.as_raw_fd(), 100)?;
    sys::ftruncate(file.as_raw_fd(), page() as i64)?;
    let first = (0..page()).find(|n| map.read(*n) != b'a');
    cx.expect_eq("the first byte that is not the old one", first, Some(100))?;
    let first = (100..page()).find(|n| map.read(*n) != 0);
    cx.expect_eq("the first byte behind it that is not zero", first, None)
}

const APPENDED: Probe = Probe {
    title: "bytes that write(2) appends to the last page appear in its mapping",
    why: "readers of a growing file look at the tail of the page they have mapped already",
    spec: &[man("mmap(2)", "MAP_SHARED"), posix("mmap")],
    needs: FILE,
    ..probe("map.eof.tail.append-seen", appended)
};
fn appended(cx: &mut Context) -> Outcome {
    let file = one_and_a_half()?;
    let map = Map::shared(&file, 2 * page())?;
    cx.expect_eq("behind the end before", map.read(size()), 0)?;
    cx.elsewhere(|_| Ok(sys::pwrite(file.as_raw_fd(), b"tail", size() as i64)?))?;
    cx.expect_eq("the bytes in the mapping", map.read_all(size(), 5), b"tail\0".to_vec())
}
