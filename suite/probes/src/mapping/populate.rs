//! What is in memory: MAP_POPULATE, MAP_NONBLOCK, MAP_NORESERVE, MAP_LOCKED, mincore(2).

use super::common::{
    FILE, Island, PRIVATE, RW, SHARED, kib, lettered_file, load, locked, must, page, probe, refused, reserve,
    small_pages, smaps,
};
use libc::{
    EAGAIN, EFAULT, EINVAL, ENOMEM, EPERM, MAP_LOCKED, MAP_NONBLOCK, MAP_NORESERVE, MAP_POPULATE, MAP_SHARED,
    RLIMIT_MEMLOCK,
};
use shmcheck_probe::{Context, Map, Need, Outcome, Probe, Stop, Sys, doc, kernel, man, procfs, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &LAZY,
    &POPULATED,
    &POPULATED_FILE,
    &POPULATED_PRIVATE,
    &POPULATE_BEYOND,
    &NON_BLOCK,
    &NO_RESERVE,
    &LOCKED,
    &LOCKED_LIMIT,
    &LOCKED_FORBIDDEN,
    &CORE_PATTERN,
    &CORE_SHARED,
    &CORE_LENGTH,
    &CORE_UNALIGNED,
    &CORE_UNMAPPED,
    &CORE_TOO_LONG,
    &CORE_BAD_VECTOR,
];

/// `Rss` of so many pages mapped with these flags, in kB.
fn resident(pages: usize, flags: i32, fd: i32) -> Result<u64, Stop> {
    smaps(Island::new(pages, RW, flags, fd)?.map.address(), "Rss")
}

const LAZY: Probe = Probe {
    title: "mapping shared memory allocates nothing",
    why: "reservations of hundreds of gigabytes (LMDB, Java, ASan) work only because of this",
    spec: &[man("proc(5)", "/proc/[pid]/smaps"), man("mmap(2)", "MAP_POPULATE")],
    ..probe("map.resident.plain.lazy", |cx| cx.expect_eq("Rss in kB", resident(4, SHARED, -1)?, 0))
};
const POPULATED: Probe = Probe {
    title: "MAP_POPULATE makes shared anonymous memory resident at once",
    why: "trading systems prefault their rings: a fault in the first message costs microseconds they do not have",
    spec: &[man("mmap(2)", "MAP_POPULATE")],
    ..probe("map.resident.populate.shared", |cx| {
        cx.expect_eq("Rss in kB", resident(4, SHARED | MAP_POPULATE, -1)?, kib(4))
    })
};
const POPULATED_PRIVATE: Probe = Probe {
    title: "MAP_POPULATE makes private memory resident at once",
    why: "VMs with preallocated memory start with it; without it they meet the out-of-memory killer later",
    spec: &[man("mmap(2)", "MAP_POPULATE")],
    ..probe("map.resident.populate.private", |cx| {
        cx.expect_eq("Rss in kB", resident(4, PRIVATE | MAP_POPULATE, -1)?, kib(4))
    })
};
const NON_BLOCK: Probe = Probe {
    title: "MAP_NONBLOCK causes MAP_POPULATE to do nothing",
    why: "two flags that together do nothing surprise; code that depends on it is documented to",
    spec: &[man("mmap(2)", "MAP_NONBLOCK")],
    ..probe("map.resident.populate.nonblock-nothing", |cx| {
        cx.expect_eq("Rss in kB", resident(4, SHARED | MAP_POPULATE | MAP_NONBLOCK, -1)?, 0)
    })
};

const POPULATED_FILE: Probe = Probe {
    title: "MAP_POPULATE fills the page table of a file mapping",
    why: "model servers prefault gigabytes of weights so that the first request is not a minute late",
    spec: &[man("mmap(2)", "MAP_POPULATE")],
    needs: FILE,
    ..probe("map.resident.populate.file", populated_file)
};
fn populated_file(cx: &mut Context) -> Outcome {
    let file = lettered_file(4)?;
    cx.expect_eq("Rss in kB without", resident(4, MAP_SHARED, file.as_raw_fd())?, 0)?;
    cx.expect_eq("Rss in kB with", resident(4, MAP_SHARED | MAP_POPULATE, file.as_raw_fd())?, kib(4))
}

const POPULATE_BEYOND: Probe = Probe {
    title: "mmap does not fail when MAP_POPULATE cannot populate",
    why: "the flag is a wish: a mapping beyond the end of a file that is to grow has to be made nevertheless",
    spec: &[man("mmap(2)", "MAP_POPULATE")],
    needs: FILE,
    ..probe("map.resident.populate.beyond-end-succeeds", populate_beyond)
};
fn populate_beyond(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let map = cx.expect_ok(|| Map::new(3 * page(), RW, MAP_SHARED | MAP_POPULATE, file.as_raw_fd()))?;
    cx.expect_eq("the page that is there", map.read(0), b'a')?;
    cx.expect_signal("a load from one that is not", libc::SIGBUS, || load(&map, 2 * page()))
}

const NO_RESERVE: Probe = Probe {
    title: "MAP_NORESERVE maps what the overcommit heuristic refuses",
    why: "sanitizers and VMs reserve terabytes of shadow or guest memory; without the flag they do not start",
    varies: "only under vm.overcommit_memory 0",
    spec: &[
        man("mmap(2)", "MAP_NORESERVE"),
        man("mmap(2)", "ENOMEM"),
        doc("Documentation/mm/overcommit-accounting.rst", "0"),
    ],
    ..probe("map.resident.noreserve.beyond-heuristic", no_reserve)
};
fn no_reserve(cx: &mut Context) -> Outcome {
    const LENGTH: usize = 16 << 40;
    let mode = procfs::sysctl("vm/overcommit_memory")?;
    if mode.trim() != "0" {
        return Err(Stop::skip("sysctl:vm/overcommit_memory", mode));
    }
    let (limit, _) = sys::getrlimit(libc::RLIMIT_AS)?;
    if limit != libc::RLIM_INFINITY {
        return Err(Stop::skip("rlimit:as", format!("RLIMIT_AS is {limit}")));
    }
    refused(cx, ENOMEM, || Map::new(LENGTH, RW, SHARED, -1))?;
    let map = cx.expect_ok(|| Map::new(LENGTH, RW, SHARED | MAP_NORESERVE, -1))?;
    cx.expect_no_signal("a store in the middle", || map.write(LENGTH / 2, 1))
}

const LOCKED: Probe = Probe {
    title: "memory mapped with MAP_LOCKED counts as locked from the start",
    why: "GnuPG and OpenSSL keep keys in it: pages that could be swapped would put them on disk",
    spec: &[man("mmap(2)", "MAP_LOCKED"), man("mlock(2)", "Linux notes")],
    needs: &[Need::Memlock(65_536)],
    ..probe("map.resident.locked.counted", map_locked)
};
fn map_locked(cx: &mut Context) -> Outcome {
    let before = locked()?;
    let island = Island::new(2, RW, SHARED | MAP_LOCKED, -1)?;
    cx.expect_eq("VmLck in kB", locked()? - before, kib(2))?;
    cx.expect_eq("Rss in kB", smaps(island.map.address(), "Rss")?, kib(2))
}

const LOCKED_LIMIT: Probe = Probe {
    title: "MAP_LOCKED beyond RLIMIT_MEMLOCK fails with EAGAIN",
    why: "containers start with a small limit: RDMA and JIT programs fail here and print 'try again'",
    fix: "raise the limit (docker run --ulimit memlock=…, LimitMEMLOCK= of the unit)",
    spec: &[man("mmap(2)", "EAGAIN"), man("setrlimit(2)", "RLIMIT_MEMLOCK")],
    needs: &[Need::Memlock(65_536)],
    ..probe("map.resident.locked.limit-eagain", locked_limit)
};
fn locked_limit(cx: &mut Context) -> Outcome {
    cx.without_caps(&[caps::Capability::CAP_IPC_LOCK], |cx| {
        let room = locked()? * 1024 + page() as u64;
        sys::setrlimit(RLIMIT_MEMLOCK, room, room)?;
        let one = cx.expect_ok(|| Map::new(page(), RW, SHARED | MAP_LOCKED, -1))?;
        refused(cx, EAGAIN, || Map::new(page(), RW, SHARED | MAP_LOCKED, -1))?;
        one.close()?;
        cx.expect_ok(|| Map::new(page(), RW, SHARED | MAP_LOCKED, -1))?;
        Ok(())
    })
}

const LOCKED_FORBIDDEN: Probe = Probe {
    title: "MAP_LOCKED with RLIMIT_MEMLOCK 0 fails with EPERM",
    why: "a limit of 0 says that nothing may be locked here at all; the errno tells it from 'too much'",
    spec: &[kernel("mm/mlock.c", "can_do_mlock")],
    ..probe("map.resident.locked.forbidden-eperm", locked_forbidden)
};
fn locked_forbidden(cx: &mut Context) -> Outcome {
    cx.without_caps(&[caps::Capability::CAP_IPC_LOCK], |cx| {
        sys::setrlimit(RLIMIT_MEMLOCK, 0, 0)?;
        cx.expect_ok(|| Map::new(page(), RW, SHARED, -1))?;
        refused(cx, EPERM, || Map::new(page(), RW, SHARED | MAP_LOCKED, -1))
    })
}

/// One bit per page: whether it is resident.
fn core(map: &Map, length: usize) -> Result<Vec<u8>, Stop> {
    Ok(sys::mincore(map.address(), length)?.into_iter().map(|byte| byte & 1).collect())
}

const CORE_PATTERN: Probe = Probe {
    title: "mincore tells the pages that were touched from those that were not",
    why: "caches decide by it whether a read would block; vmtouch and PostgreSQL's pg_prewarm show it to people",
    spec: &[man("mincore(2)", "DESCRIPTION")],
    calls: &[Sys::Mincore],
    ..probe("map.mincore.pages.touched-only", core_pattern)
};
fn core_pattern(cx: &mut Context) -> Outcome {
    for island in [Island::shared(5)?, Island::private(5)?] {
        cx.expect_eq("before", core(&island, 5 * page())?, vec![0; 5])?;
        island.write(page(), 1);
        island.write(3 * page() + 9, 1);
        cx.expect_eq("after stores to two pages", core(&island, 5 * page())?, vec![0, 1, 0, 1, 0])?;
    }
    Ok(())
}

const CORE_SHARED: Probe = Probe {
    title: "mincore reports pages of the object that another process touched",
    why: "a warm-up process fills the cache that the server then finds resident",
    spec: &[man("mincore(2)", "DESCRIPTION"), kernel("mm/mincore.c", "mincore_page")],
    needs: FILE,
    calls: &[Sys::Mincore],
    ..probe("map.mincore.pages.of-the-object", core_shared)
};
fn core_shared(cx: &mut Context) -> Outcome {
    let file = sys::memory_file(3 * page())?;
    let map = Map::shared(&file, 3 * page())?;
    small_pages(&map)?;
    cx.expect_eq("before", core(&map, 3 * page())?, vec![0; 3])?;
    cx.elsewhere(|_| Ok(sys::pwrite(file.as_raw_fd(), b"x", page() as i64)?))?;
    cx.expect_eq("after another process' write", core(&map, 3 * page())?, vec![0, 1, 0])?;
    sys::ftruncate(file.as_raw_fd(), 0)?;
    sys::ftruncate(file.as_raw_fd(), 3 * page() as i64)?;
    cx.expect_eq("after the file was cut off and grew", core(&map, 3 * page())?, vec![0; 3])
}

const CORE_LENGTH: Probe = Probe {
    title: "mincore writes one byte per page, also for a part of one",
    why: "a vector sized by the rounded-down length would be overrun by the last page",
    spec: &[man("mincore(2)", "DESCRIPTION")],
    calls: &[Sys::Mincore],
    ..probe("map.mincore.vector.byte-per-page", core_length)
};
fn core_length(cx: &mut Context) -> Outcome {
    let island = Island::shared(3)?;
    island.touch(1);
    let vector = Map::shared_anonymous(page())?;
    (0..8).for_each(|n| vector.write(n, 0xee));
    must(sys::mincore_into(island.address(), page() + 1, vector.address()))?;
    let seen: Vec<u8> =
        vector.read_all(0, 4).into_iter().map(|byte| if byte == 0xee { byte } else { byte & 1 }).collect();
    cx.expect_eq("the vector", seen, vec![1, 1, 0xee, 0xee])
}

const CORE_UNALIGNED: Probe = Probe {
    title: "mincore of an address inside a page fails with EINVAL",
    why: "rounding down would answer for a page the caller did not name",
    spec: &[man("mincore(2)", "EINVAL")],
    calls: &[Sys::Mincore],
    ..probe("map.mincore.refused.unaligned-einval", core_unaligned)
};
fn core_unaligned(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(2 * page())?;
    cx.expect_ok(|| sys::mincore(map.address(), page()))?;
    cx.expect_errno(EINVAL, || sys::mincore(map.address() + 1, page()))
}

const CORE_UNMAPPED: Probe = Probe {
    title: "mincore of a range with a hole fails with ENOMEM",
    why: "debuggers and sanitizers ask mincore whether an address may be read at all",
    spec: &[man("mincore(2)", "ENOMEM")],
    calls: &[Sys::Mincore],
    ..probe("map.mincore.refused.unmapped-enomem", core_unmapped)
};
fn core_unmapped(cx: &mut Context) -> Outcome {
    let around = reserve(3)?;
    cx.expect_ok(|| sys::mincore(around.address(), 3 * page()))?;
    sys::munmap(around.address() + page(), page())?;
    cx.expect_errno(ENOMEM, || sys::mincore(around.address() + page(), page()))?;
    cx.expect_errno(ENOMEM, || sys::mincore(around.address(), 3 * page()))
}

const CORE_TOO_LONG: Probe = Probe {
    title: "mincore beyond the address space fails with ENOMEM",
    why: "a negative length must not make the kernel fill memory for ever",
    spec: &[man("mincore(2)", "ENOMEM")],
    calls: &[Sys::Mincore],
    ..probe("map.mincore.refused.too-long-enomem", core_too_long)
};
fn core_too_long(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(page())?;
    let vector = Map::shared_anonymous(page())?;
    let length = usize::MAX - page() + 1;
    cx.expect_errno(ENOMEM, || sys::mincore_into(map.address(), length, vector.address()))?;
    cx.expect_eq("the vector", vector.read(0), 0)
}

const CORE_BAD_VECTOR: Probe = Probe {
    title: "mincore with a vector that cannot be written fails with EFAULT",
    why: "the kernel checks whose memory it writes to",
    spec: &[man("mincore(2)", "EFAULT")],
    calls: &[Sys::Mincore],
    ..probe("map.mincore.refused.bad-vector-efault", core_bad_vector)
};
fn core_bad_vector(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(page())?;
    let read_only = Map::new(page(), libc::PROT_READ, SHARED, -1)?;
    let around = reserve(1)?;
    for vector in [read_only.address(), around.address(), usize::MAX - page() + 1] {
        cx.expect_errno(EFAULT, || sys::mincore_into(map.address(), page(), vector))?;
    }
    Ok(())
}
