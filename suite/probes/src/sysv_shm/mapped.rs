//! A segment's mapping moved, grown and re-ordered; its file in /proc; its memory policy.

use super::parts::{page, resident, segment};
use caps::Capability;
use libc::{EINVAL, MREMAP_MAYMOVE, O_CLOEXEC, O_RDWR, SIGBUS};
use shmcheck_probe::sys;
use shmcheck_probe::{Context, Map, Need, Outcome, Probe, Segment, Stop, Sys, doc, kernel, man};
use std::os::fd::{AsRawFd, OwnedFd};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &DUPLICATED,
    &GROWN,
    &REORDERED,
    &REORDERED_MARKED,
    &FILE_READ,
    &FILE_WRITTEN,
    &FILE_PUNCHED,
    &FILE_SYNCED,
    &POLICY_SHARED,
    &POLICY_STAYS,
];

const DUPLICATED: Probe = Probe {
    title: "mremap with old size 0 makes a second attach of the segment",
    why: "emulators map one memory at several addresses this way; each counts, and each must be detached",
    spec: &[man("mremap(2)", "old_size"), kernel("ipc/shm.c", "shm_open")],
    calls: &[Sys::Shmat, Sys::Shmdt, Sys::Mremap],
    ..Probe::new("sysv.shm.mem.mremap-duplicates", |cx| {
        let made = segment(cx, 1, 0o600)?;
        let map = made.attach(0)?;
        let at = cx.expect_ok(|| sys::mremap(map.address(), 0, page(), MREMAP_MAYMOVE, 0))?;
        let second = Map::attached(at, page());
        cx.expect_ne("second address", at, map.address())?;
        map.write(0, 6);
        cx.expect_eq("byte at the second address", second.read(0), 6)?;
        cx.expect_eq("shm_nattch", made.stat()?.nattch, 2)?;
        second.close()?;
        cx.expect_eq("shm_nattch after shmdt of the second", made.stat()?.nattch, 1)
    })
};

const GROWN: Probe = Probe {
    title: "mremap cannot enlarge a segment: a store beyond it raises SIGBUS",
    why: "the size was fixed by shmget: a program that grows its mapping must not find memory that nobody shares",
    spec: &[man("mremap(2)", "NOTES"), kernel("mm/shmem.c", "shmem_fault")],
    calls: &[Sys::Shmat, Sys::Mremap],
    ..Probe::new("sysv.shm.mem.mremap-grown-sigbus", |cx| {
        let made = segment(cx, 1, 0o600)?;
        let map = made.attach(0)?;
        map.write(0, 7);
        let at = sys::mremap(map.leak(), page(), 3 * page(), MREMAP_MAYMOVE, 0)?;
        let grown = Map::attached(at, 3 * page());
        cx.expect_eq("byte of the segment", grown.read(0), 7)?;
        cx.expect_signal("a store beyond the segment", SIGBUS, || grown.write(page(), 1))?;
        cx.expect_eq("shm_segsz", made.stat()?.segsz, page())
    })
};

const REORDERED: Probe = Probe {
    title: "remap_file_pages shows another page of the segment in place",
    why: "old databases window a huge segment with it; the kernel only emulates it today, with the same effect",
    spec: &[man("remap_file_pages(2)", "DESCRIPTION"), kernel("ipc/shm.c", "shm_mmap")],
    calls: &[Sys::Shmat, Sys::RemapFilePages],
    ..Probe::new("sysv.shm.mem.remap-file-pages", |cx| reordered(cx, false))
};

const REORDERED_MARKED: Probe = Probe {
    title: "remap_file_pages works on a segment marked for removal",
    why: "programs mark their segment first thing: the window must go on moving",
    spec: &[man("remap_file_pages(2)", "DESCRIPTION"), kernel("ipc/shm.c", "shm_mmap")],
    calls: &[Sys::Shmat, Sys::RemapFilePages],
    ..Probe::new("sysv.shm.mem.remap-file-pages-marked", |cx| reordered(cx, true))
};

fn reordered(cx: &mut Context, marked: bool) -> Outcome {
    let mut made = segment(cx, 3, 0o600)?;
    let map = made.attach(0)?;
    for number in 0..3 {
        map.write(number * page(), number as u8 + 1);
    }
    if marked {
        made.remove()?;
    }
    cx.expect_ok(|| sys::remap_file_pages(map.address(), page(), 2))?;
    let bytes: Vec<u8> = (0..3).map(|n| map.read(n * page())).collect();
    cx.expect_eq("first bytes of the pages in place", bytes, vec![3, 2, 3])?;
    map.write(0, 30);
    cx.expect_eq("byte of the page shown twice", map.read(2 * page()), 30)?;
    // Page by page: the first part is no fragment that shmdt would look for.
    sys::munmap(map.leak(), 3 * page())?;
    if marked {
        return cx.expect_errno(EINVAL, || made.stat());
    }
    cx.expect_eq("shm_nattch", made.stat()?.nattch, 0)
}

/// The file behind an attach, through /proc/self/map_files.
fn file_of(map: &Map) -> Result<OwnedFd, Stop> {
    let range = format!("{:x}-{:x}", map.address(), map.address() + map.len());
    Ok(sys::open(&format!("/proc/self/map_files/{range}"), O_RDWR | O_CLOEXEC, 0)?)
}

/// What the kernel asks of whoever opens a file there, proc(5).
const MAP_FILES: &[Need] = &[Need::InitCap(Capability::CAP_SYS_ADMIN), Need::Path("/proc/self/map_files")];

const FILE_READ: Probe = Probe {
    title: "the file in /proc/PID/map_files reads the segment's content",
    why: "CRIU saves segments through it: what it reads is what a restored database gets",
    spec: &[man("proc(5)", "/proc/[pid]/map_files")],
    calls: &[Sys::Shmat],
    needs: MAP_FILES,
    ..Probe::new("sysv.shm.file.read", |cx| {
        let made = segment(cx, 3, 0o600)?;
        let map = made.attach(0)?;
        for number in 0..3 {
            map.write(number * page() + 11, number as u8 + 1);
        }
        let file = file_of(&map)?;
        for number in 0..3 {
            let mut byte = [0];
            sys::pread(file.as_raw_fd(), &mut byte, (number * page() + 11) as i64)?;
            cx.expect_eq("byte read from the file", byte[0], number as u8 + 1)?;
        }
        cx.expect_eq("size of the file", sys::fstat(file.as_raw_fd())?.st_size, 3 * page() as i64)
    })
};

const FILE_WRITTEN: Probe = Probe {
    title: "what is written to that file appears in the segment",
    why: "debuggers and restore tools put content back through it while the segment is attached",
    spec: &[man("proc(5)", "/proc/[pid]/map_files")],
    calls: &[Sys::Shmat],
    needs: MAP_FILES,
    ..Probe::new("sysv.shm.file.write", |cx| {
        let made = segment(cx, 1, 0o600)?;
        let map = made.attach(0)?;
        let count = sys::pwrite(file_of(&map)?.as_raw_fd(), b"abc", 20)?;
        cx.expect_eq("bytes written", count, 3)?;
        cx.expect_eq("bytes in the segment", map.read_all(19, 5), b"\0abc\0".to_vec())
    })
};

const FILE_PUNCHED: Probe = Probe {
    title: "a hole punched into that file zeroes pages of the segment",
    why: "a balloon driver frees parts of a guest's memory from outside the process that maps it",
    spec: &[man("fallocate(2)", "FALLOC_FL_PUNCH_HOLE"), man("proc(5)", "/proc/[pid]/map_files")],
    calls: &[Sys::Shmat, Sys::Fallocate],
    needs: MAP_FILES,
    ..Probe::new("sysv.shm.file.punch-hole", |cx| {
        let made = segment(cx, 3, 0o600)?;
        let map = made.attach(0)?;
        map.touch(4);
        let file = file_of(&map)?;
        let hole = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        cx.expect_ok(|| sys::fallocate(file.as_raw_fd(), hole, page() as i64, page() as i64))?;
        let bytes: Vec<u8> = (0..3).map(|n| map.read(n * page())).collect();
        cx.expect_eq("first bytes of the pages", bytes, vec![4, 0, 4])?;
        cx.expect_eq("rss", resident(made.id)? >= 2 * page() as i64, true)
    })
};

const FILE_SYNCED: Probe = Probe {
    title: "fallocate of that file brings pages of the segment into memory",
    why: "pre-allocation from a launcher finds out about missing memory before the service stores into it",
    spec: &[man("fallocate(2)", "DESCRIPTION"), doc("Documentation/filesystems/tmpfs.rst", "")],
    calls: &[Sys::Shmat, Sys::Fallocate, Sys::Mincore],
    needs: MAP_FILES,
    ..Probe::new("sysv.shm.file.fallocate", |cx| {
        let made = segment(cx, 3, 0o600)?;
        let map = made.attach(0)?;
        let file = file_of(&map)?;
        cx.expect_eq("rss before", resident(made.id)?, 0)?;
        cx.expect_ok(|| sys::fallocate(file.as_raw_fd(), 0, 0, 2 * page() as i64))?;
        cx.expect_eq("rss after", resident(made.id)?, 2 * page() as i64)?;
        cx.expect_eq("bytes", (map.read(0), map.read(page())), (0, 0))?;
        cx.expect_eq("shm_segsz", made.stat()?.segsz, 3 * page())
    })
};

/// A memory policy that binds a segment to node 0, as another attach sees it.
fn policy(cx: &mut Context, between: impl FnOnce(&mut Context, &Segment, Map) -> Result<Map, Stop>) -> Outcome {
    let made = segment(cx, 2, 0o600)?;
    let map = made.attach(0)?;
    let default = sys::mempolicy_at(map.address())?;
    cx.expect_eq("mode before", default.0, libc::MPOL_DEFAULT)?;
    // The second page only: the policy belongs to a range of the segment.
    cx.expect_ok(|| sys::mbind(map.address() + page(), page(), libc::MPOL_BIND, 1))?;
    let map = between(cx, &made, map)?;
    cx.expect_eq("mode and nodes of the bound page", sys::mempolicy_at(map.address() + page())?, (libc::MPOL_BIND, 1))?;
    cx.expect_eq("mode of the other page", sys::mempolicy_at(map.address())?.0, libc::MPOL_DEFAULT)
}

const POLICY_SHARED: Probe = Probe {
    title: "a memory policy set by mbind holds for another process's attach",
    why: "a launcher interleaves a database's segment over the nodes; were it private, workers would fill one node",
    varies: "a default container's seccomp profile refuses mbind without CAP_SYS_NICE",
    fix: "docker run --cap-add=SYS_NICE",
    spec: &[
        doc("Documentation/admin-guide/mm/numa_memory_policy.rst", "Shared Policy"),
        kernel("ipc/shm.c", "shm_set_policy"),
    ],
    calls: &[Sys::Shmat, Sys::Mbind, Sys::GetMempolicy],
    needs: &[Need::Path("/proc/self/numa_maps")],
    ..Probe::new("sysv.shm.mem.policy-shared", |cx| {
        policy(cx, |cx, made, map| {
            let seen = cx.elsewhere(|_| {
                let own = made.attach(0)?;
                Ok((sys::mempolicy_at(own.address())?, sys::mempolicy_at(own.address() + page())?))
            })?;
            let wanted = ((libc::MPOL_DEFAULT, 0), (libc::MPOL_BIND, 1));
            cx.expect_eq("policies of both pages in another process", seen, wanted)?;
            Ok(map)
        })
    })
};

const POLICY_STAYS: Probe = Probe {
    title: "a segment's memory policy outlives the last detach",
    why: "numactl --shmid sets the policy before the database starts, and ends",
    varies: "a default container's seccomp profile refuses mbind without CAP_SYS_NICE",
    fix: "docker run --cap-add=SYS_NICE",
    spec: &[doc("Documentation/admin-guide/mm/numa_memory_policy.rst", "Shared Policy"), man("mbind(2)", "NOTES")],
    calls: &[Sys::Shmat, Sys::Shmdt, Sys::Mbind, Sys::GetMempolicy],
    needs: &[Need::Path("/proc/self/numa_maps")],
    ..Probe::new("sysv.shm.mem.policy-stays", |cx| {
        policy(cx, |cx, made, map| {
            map.close()?;
            cx.expect_eq("shm_nattch", made.stat()?.nattch, 0)?;
            Ok(made.attach(0)?)
        })
    })
};
