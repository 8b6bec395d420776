//! Shared mappings of a file: one memory for every mapping, for read(2) and for write(2).

use super::common::{FILE, RW, byte_of, lettered_file, load, page, probe, reopen};
use libc::{MAP_SHARED, O_RDONLY, PROT_EXEC, PROT_READ};
use shmcheck_probe::{Context, Map, Need, Outcome, Probe, Stop, Sys, kernel, man, posix, procfs, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &WRITE_SEEN,
    &STORE_READ,
    &OTHER_PROCESS,
    &TWO_MAPPINGS,
    &READ_ONLY_SEES,
    &OFFSET,
    &CLOSE_STAYS,
    &UNLINK_STAYS,
    &HOLE_ZERO,
    &HOLE_STORE,
    &PUNCHED,
    &LENGTH_ROUNDED,
    &MTIME,
    &DUAL_MAP,
    &UNMAPPED_KEPT,
    &WHOLE_CONTENT,
    &KILLED,
    &LISTED,
];

const WRITE_SEEN: Probe = Probe {
    title: "write(2) to a file is seen at once in its shared mapping",
    why: "log shippers map what another program appends; a stale page makes them ship garbage",
    spec: &[man("mmap(2)", "MAP_SHARED"), posix("mmap")],
    needs: FILE,
    ..probe("map.file.shared.write-seen", write_seen)
};
fn write_seen(cx: &mut Context) -> Outcome {
    let file = lettered_file(2)?;
    let map = Map::shared(&file, 2 * page())?;
    // Present before the write: not read from the file afterwards.
    cx.expect_eq("the page before", map.read(page()), b'b')?;
    cx.elsewhere(|_| Ok(sys::pwrite(file.as_raw_fd(), b"news", page() as i64 - 2)?))?;
    cx.expect_eq("the bytes in the mapping", map.read_all(page() - 2, 4), b"news".to_vec())
}

const STORE_READ: Probe = Probe {
    title: "a store to a shared mapping is seen by read(2)",
    why: "SQLite's and LMDB's readers may map or read: both must find the same database",
    spec: &[man("mmap(2)", "MAP_SHARED"), posix("mmap")],
    needs: FILE,
    ..probe("map.file.shared.store-read", store_read)
};
fn store_read(cx: &mut Context) -> Outcome {
    let file = lettered_file(2)?;
    let map = Map::shared(&file, 2 * page())?;
    map.write_all(page() - 2, b"span");
    let seen = cx.elsewhere(|_| {
        let mut bytes = [0; 4];
        sys::pread(file.as_raw_fd(), &mut bytes, page() as i64 - 2)?;
        Ok(bytes)
    })?;
    cx.expect_eq("the bytes that another process reads", &seen, b"span")
}

const OTHER_PROCESS: Probe = Probe {
    title: "processes that map one file by themselves share its memory",
    why: "this is how unrelated programs meet: Envoy's hot restart, Chromium's processes, every database's buffers",
    spec: &[man("mmap(2)", "MAP_SHARED"), posix("mmap")],
    needs: FILE,
    ..probe("map.file.shared.other-process", other_process)
};
fn other_process(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let (asked, answered) = (cx.gate()?, cx.gate()?);
    let peer = cx.fork(|_| {
        let own = reopen(&file, libc::O_RDWR)?;
        let map = Map::shared(&own, page())?;
        asked.pass()?;
        let seen = map.read_all(10, 4);
        map.write_all(20, b"pong");
        answered.open()?;
        Ok(seen)
    })?;
    let map = Map::shared(&file, page())?;
    map.write_all(10, b"ping");
    asked.open()?;
    answered.pass()?;
    cx.expect_eq("the answer", map.read_all(20, 4), b"pong".to_vec())?;
    cx.expect_eq("the question as the other process saw it", peer.join()?, b"ping".to_vec())
}

const TWO_MAPPINGS: Probe = Probe {
    title: "two shared mappings of one file in one process are one memory",
    why: "ring buffers map their file twice in a row so that no message is ever split; QEMU and PipeWire do",
    spec: &[man("mmap(2)", "MAP_SHARED")],
    needs: FILE,
    ..probe("map.file.shared.two-mappings", two_mappings)
};
fn two_mappings(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let ring = super::common::reserve(2)?;
    let first = Map::at(ring.address(), page(), RW, MAP_SHARED | libc::MAP_FIXED, file.as_raw_fd(), 0)?;
    let second = Map::at(ring.address() + page(), page(), RW, MAP_SHARED | libc::MAP_FIXED, file.as_raw_fd(), 0)?;
    Map::view(ring.address(), 2 * page()).write_all(page() - 2, b"wrap");
    cx.expect_eq("the end of the ring", first.read_all(page() - 2, 2), b"wr".to_vec())?;
    cx.expect_eq("its start, through the first mapping", first.read_all(0, 2), b"ap".to_vec())?;
    cx.expect_eq("its end, through the second mapping", second.read_all(page() - 2, 2), b"wr".to_vec())
}

const READ_ONLY_SEES: Probe = Probe {
    title: "a read-only shared mapping follows the stores of a writer",
    why: "monitors attach to a running program read-only: tail of systemd's journal, Wayland's keymaps, metrics files",
    spec: &[man("mmap(2)", "MAP_SHARED")],
    needs: FILE,
    ..probe("map.file.shared.read-only-follows", read_only_sees)
};
fn read_only_sees(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let writer = Map::shared(&file, page())?;
    let view = reopen(&file, O_RDONLY)?;
    let reader = Map::new(page(), PROT_READ, MAP_SHARED, view.as_raw_fd())?;
    for value in 1..=3 {
        cx.elsewhere(|_| {
            writer.write(100, value);
            Ok(())
        })?;
        cx.expect_eq("the byte as the reader sees it", reader.read(100), value)?;
    }
    Ok(())
}

const OFFSET: Probe = Probe {
    title: "a mapping starts at its offset in the file",
    why: "databases map their file in windows: the wrong window is another table's data",
    spec: &[man("mmap(2)", "DESCRIPTION"), posix("mmap")],
    needs: FILE,
    ..probe("map.file.shared.offset", offset)
};
fn offset(cx: &mut Context) -> Outcome {
    let file = lettered_file(4)?;
    for n in [0, 1, 3] {
        let map = Map::at(0, page(), RW, MAP_SHARED, file.as_raw_fd(), (n * page()) as i64)?;
        let letter = b'a' + n as u8;
        cx.expect_eq("first and last byte", (map.read(0), map.read(page() - 1)), (letter, letter))?;
        map.write(1, b'!');
        cx.expect_eq("the byte in the file", byte_of(&file, n * page() + 1)?, b'!')?;
    }
    cx.expect_eq("a byte of the page that was never mapped", byte_of(&file, 2 * page() + 1)?, b'c')
}

const CLOSE_STAYS: Probe = Probe {
    title: "closing the descriptor does not end the mapping",
    why: "every program closes it right after mmap; otherwise long-lived ones run out of descriptors",
    spec: &[man("mmap(2)", "DESCRIPTION"), posix("mmap")],
    needs: FILE,
    calls: &[Sys::Mmap, Sys::Close],
    ..probe("map.file.shared.close-keeps", close_stays)
};
fn close_stays(cx: &mut Context) -> Outcome {
    let file = lettered_file(2)?;
    let map = Map::shared(&file, 2 * page())?;
    drop(file);
    // One page was never touched before the last descriptor went.
    cx.expect_eq("the second page", map.read(page()), b'b')?;
    cx.elsewhere(|_| {
        map.write(0, b'z');
        Ok(())
    })?;
    cx.expect_eq("a child's store", map.read(0), b'z')
}

const UNLINK_STAYS: Probe = Probe {
    title: "unlinking the file keeps its mappings shared",
    why: "programs unlink the name at once, so that a crash leaves nothing behind; their memory has to stay one",
    spec: &[posix("unlink"), man("unlink(2)", "DESCRIPTION")],
    needs: &[Need::DevShm],
    isolate: shmcheck_probe::Isolate::Fresh,
    ..probe("map.file.shared.unlink-keeps", unlink_stays)
};
fn unlink_stays(cx: &mut Context) -> Outcome {
    let path = format!("/dev/shm{}", cx.fresh_name());
    let file = sys::open(&path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC, 0o600)?;
    let prepared = sys::ftruncate(file.as_raw_fd(), page() as i64).and_then(|()| Map::shared(&file, page()));
    std::fs::remove_file(&path)?;
    let map = prepared?;
    let other = Map::shared(&file, page())?;
    drop(file);
    cx.expect_eq("the name afterwards", std::fs::exists(&path)?, false)?;
    cx.elsewhere(|_| {
        map.write(0, 0x42);
        Ok(())
    })?;
    cx.expect_eq("a store through the other mapping", other.read(0), 0x42)
}

const HOLE_ZERO: Probe = Probe {
    title: "a hole of the file reads as zeroes in its mapping",
    why: "sparse shared files (databases, VM memory) rely on untouched parts being 0",
    spec: &[posix("ftruncate"), man("ftruncate(2)", "DESCRIPTION")],
    needs: FILE,
    ..probe("map.file.shared.hole-zero", hole_zero)
};
fn hole_zero(cx: &mut Context) -> Outcome {
    let file = sys::memory_file(4 * page())?;
    let map = Map::shared(&file, 4 * page())?;
    map.write(0, 1);
    map.write(4 * page() - 1, 1);
    let first = (1..4 * page() - 1).find(|n| map.read(*n) != 0);
    cx.expect_eq("the first byte of the hole that is not zero", first, None)
}

const HOLE_STORE: Probe = Probe {
    title: "a store into a hole allocates the page it falls into only",
    why: "`du` and a pod's memory limit count allocated pages: a reservation of 64 GiB has to stay nearly free",
    spec: &[kernel("mm/shmem.c", "shmem_fault"), man("tmpfs(5)", "")],
    needs: FILE,
    ..probe("map.file.shared.hole-allocates", hole_store)
};
fn hole_store(cx: &mut Context) -> Outcome {
    let file = sys::memory_file(8 * page())?;
    let map = Map::shared(&file, 8 * page())?;
    super::common::small_pages(&map)?;
    cx.expect_eq("blocks of 512 bytes before", sys::fstat(file.as_raw_fd())?.st_blocks, 0)?;
    map.write(3 * page(), 1);
    map.write(5 * page() + 1, 1);
    let blocks = sys::fstat(file.as_raw_fd())?.st_blocks;
    cx.expect_eq("blocks of 512 bytes after two stores", blocks, (2 * page() / 512) as i64)
}

const PUNCHED: Probe = Probe {
    title: "a hole punched into the file reads as zeroes in every mapping",
    why: "a server gives memory back while clients are attached: they must see zeroes, not a page of their own",
    spec: &[man("fallocate(2)", "FALLOC_FL_PUNCH_HOLE")],
    needs: FILE,
    calls: &[Sys::Mmap, Sys::Fallocate],
    ..probe("map.file.shared.punched-hole-seen", punched)
};
fn punched(cx: &mut Context) -> Outcome {
    let file = lettered_file(3)?;
    let map = Map::shared(&file, 3 * page())?;
    let before = (map.read(0), map.read(page()), map.read(2 * page()));
    cx.expect_eq("the pages before", before, (b'a', b'b', b'c'))?;
    cx.elsewhere(|_| {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        Ok(sys::fallocate(file.as_raw_fd(), mode, page() as i64, page() as i64)?)
    })?;
    cx.expect_eq("the pages after", (map.read(0), map.read(page()), map.read(2 * page())), (b'a', 0, b'c'))?;
    map.write(page(), b'n');
    cx.expect_eq("a store into the hole", byte_of(&file, page())?, b'n')
}

const LENGTH_ROUNDED: Probe = Probe {
    title: "a mapping of one byte covers its whole page",
    why: "headers are mapped with sizeof(header); the code behind them computes with pages",
    spec: &[man("mmap(2)", "NOTES"), posix("mmap")],
    needs: FILE,
    ..probe("map.file.shared.length-rounded", length_rounded)
};
fn length_rounded(cx: &mut Context) -> Outcome {
    let file = lettered_file(2)?;
    let around = super::common::reserve(2)?;
    let map = Map::at(around.address(), 1, RW, MAP_SHARED | libc::MAP_FIXED, file.as_raw_fd(), 0)?;
    let view = Map::view(map.address(), 2 * page());
    view.write(page() - 1, b'!');
    cx.expect_eq("the last byte of the page in the file", byte_of(&file, page() - 1)?, b'!')?;
    cx.expect_signal("a load from the page behind", libc::SIGSEGV, || load(&view, page()))
}

const MTIME: Probe = Probe {
    title: "a store to a shared mapping updates the file's times",
    why: "backup and make look at st_mtime: a database changed through its mapping would never be saved",
    spec: &[man("mmap(2)", "Timestamps changes for file-backed mappings"), posix("mmap")],
    needs: FILE,
    calls: &[Sys::Mmap, Sys::Msync],
    ..probe("map.file.shared.store-sets-mtime", mtime)
};
fn mtime(cx: &mut Context) -> Outcome {
    const OLD: i64 = 1_000_000;
    let file = lettered_file(1)?;
    let map = Map::shared(&file, page())?;
    sys::set_times(file.as_raw_fd(), OLD)?;
    let before = sys::fstat(file.as_raw_fd())?;
    cx.expect_eq("st_mtime before the store", before.st_mtime, OLD)?;
    let start = sys::now_seconds();
    map.write(0, 1);
    sys::msync(map.address(), page(), libc::MS_SYNC)?;
    let after = sys::fstat(file.as_raw_fd())?;
    let fresh = |time: i64| time >= start - 1 && time <= sys::now_seconds() + 1;
    cx.expect("st_mtime", fresh(after.st_mtime), format!("about {start}"), after.st_mtime)?;
    cx.expect("st_ctime", fresh(after.st_ctime), format!("about {start}"), after.st_ctime)
}

const DUAL_MAP: Probe = Probe {
    title: "code stored through one mapping runs through another",
    why: "just-in-time compilers that never hold memory writable and executable at once (.NET, Java, Wasmtime) \
          map their code twice",
    varies: "refused where the security module denies execution of writable files, or /dev/shm's mount does",
    spec: &[man("mmap(2)", "PROT_EXEC")],
    needs: FILE,
    ..probe("map.file.shared.dual-map-runs", dual_map)
};
fn dual_map(cx: &mut Context) -> Outcome {
    let code = machine_code()?;
    let file = sys::memory_file(page())?;
    let writer = Map::shared(&file, page())?;
    let runner = Map::new(page(), PROT_READ | PROT_EXEC, MAP_SHARED, file.as_raw_fd())?;
    writer.write_all(0, code);
    runs(cx, runner.address())
}

/// Fails unless [`machine_code`] runs at the address and gives its value.
pub(super) fn runs(cx: &mut Context, address: usize) -> Outcome {
    let exit = cx.exit_of(|| sys::exit_now(sys::run_code(address)))?;
    cx.expect_eq("the value of the function as exit code", exit, shmcheck_probe::Exit::Code(42))
}

/// The code of a small function, or a skip on a processor without one here.
pub(super) fn machine_code() -> Result<&'static [u8], Stop> {
    match sys::code_of_42() {
        [] => Err(Stop::skip("machine-code", "none is written down for this processor")),
        code => Ok(code),
    }
}

const UNMAPPED_KEPT: Probe = Probe {
    title: "a later mapping shows what was stored before munmap",
    why: "batch jobs hand over through a file in memory: the next one maps what the last one left",
    spec: &[man("mmap(2)", "MAP_SHARED"), posix("munmap")],
    needs: FILE,
    calls: &[Sys::Mmap, Sys::Munmap],
    ..probe("map.file.shared.kept-after-unmap", unmapped_kept)
};
fn unmapped_kept(cx: &mut Context) -> Outcome {
    let file = sys::memory_file(3 * page())?;
    cx.elsewhere(|cx| {
        let map = Map::shared(&file, 3 * page())?;
        map.touch(0x77);
        let address = map.address();
        map.close()?;
        cx.expect_eq("what is left at its address", super::common::perms(address)?, String::new())
    })?;
    let map = Map::shared(&file, 3 * page())?;
    let pages = (map.read(0), map.read(page()), map.read(2 * page()));
    cx.expect_eq("the pages in the later mapping", pages, (0x77, 0x77, 0x77))
}

const WHOLE_CONTENT: Probe = Probe {
    title: "every byte of a mapping is the file's byte at that offset",
    why: "one page out of place corrupts a model or an index that is mapped rather than read; nobody notices for days",
    spec: &[man("mmap(2)", "DESCRIPTION")],
    needs: FILE,
    ..probe("map.file.shared.every-byte", whole_content)
};
fn whole_content(cx: &mut Context) -> Outcome {
    let length = 9 * page();
    let file = sys::memory_file(length)?;
    let wanted: Vec<u8> = (0..length).map(|n| (n * 31 + n / 251) as u8).collect();
    sys::pwrite(file.as_raw_fd(), &wanted, 0)?;
    let map = Map::new(length, PROT_READ, MAP_SHARED, file.as_raw_fd())?;
    let first = (0..length).rev().find(|n| map.read(*n) != wanted[*n]);
    cx.expect_eq("an offset with another byte", first, None)
}

const KILLED: Probe = Probe {
    title: "stores of a process that was killed before msync are in the file",
    why: "crash-safe counters and flight recorders (Prometheus clients, Netflix's Atlas) need no call for it",
    spec: &[man("mmap(2)", "MAP_SHARED"), posix("mmap")],
    needs: FILE,
    ..probe("map.file.shared.killed-stores-stay", killed)
};
fn killed(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let stored = cx.gate()?;
    let peer = cx.fork(|cx| {
        let map = Map::shared(&file, page())?;
        map.write(8, b'!');
        stored.open()?;
        // Never opened: the process ends here by its signal.
        cx.gate()?.pass()
    })?;
    stored.pass()?;
    cx.expect_eq("how the process ended", peer.kill()?, shmcheck_probe::Exit::Signal(libc::SIGKILL))?;
    cx.expect_eq("the file's byte", byte_of(&file, 8)?, b'!')
}

const LISTED: Probe = Probe {
    title: "/proc/self/maps shows a mapping's file, inode, offset",
    why: "pmap, perf and crash reports name the file behind an address from this line",
    spec: &[man("proc(5)", "/proc/[pid]/maps")],
    needs: FILE,
    ..probe("map.file.shared.listed", listed)
};
fn listed(cx: &mut Context) -> Outcome {
    let file = lettered_file(3)?;
    let stat = sys::fstat(file.as_raw_fd())?;
    let map = Map::at(0, page(), RW, MAP_SHARED, file.as_raw_fd(), 2 * page() as i64)?;
    let Some(line) = procfs::mapping_at(map.address())? else {
        return Err(Stop::fail("/proc/self/maps", "a line for the mapping", "none"));
    };
    cx.expect_eq("inode", line.inode, stat.st_ino)?;
    cx.expect_eq("offset", line.offset, 2 * page() as u64)?;
    cx.expect_eq("range", line.end - line.start, page())?;
    cx.expect_eq("name", line.name, "/memfd:shmcheck (deleted)".to_owned())
}
