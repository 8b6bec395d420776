//! SHM_HUGETLB: segments of huge pages: who may, which sizes, what a pool gives.

use super::parts::{OTHER, STRANGER, page, resident};
use caps::Capability;
use libc::{EINVAL, ENOENT, ENOMEM, EPERM, IPC_CREAT, SIGBUS};
use shmcheck_probe::sys::{self, SHM_HUGETLB, SHM_LOCK, SHM_NORESERVE, SHM_UNLOCK, shm_huge};
use shmcheck_probe::{Context, Isolate, Map, Need, Outcome, Probe, Segment, Stop, Sys, doc, kernel, man, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &UNPRIVILEGED,
    &GROUP_MEMBER,
    &POOL_EMPTY,
    &UNKNOWN_SIZE,
    &NORESERVE,
    &NORESERVE_SIGBUS,
    &ROUNDED,
    &PAGE_SIZES,
    &ALIGNMENT,
    &CUT,
    &LOCK_NOTHING,
    &SHARED_2M,
    &COUNTED,
];

/// The folder of huge page pools.
const POOLS: &str = "/sys/kernel/mm/hugepages";
const MIB_2: usize = 2 << 20;

/// Fails unless shmget with these flags gives this errno and makes nothing.
fn refused(cx: &mut Context, errno: i32, size: usize, flags: i32) -> Outcome {
    let key = cx.fresh_key();
    cx.expect_errno(errno, || sys::shmget(key, size, SHM_HUGETLB | IPC_CREAT | 0o600 | flags))?;
    cx.expect_errno(ENOENT, || sys::shmget(key, 0, 0))
}

/// The group that may use huge pages without privilege.
fn huge_group() -> Result<u32, Stop> {
    procfs::sysctl_number("vm/hugetlb_shm_group")
}

/// Older kernels, with a warning that it is obsolete, let RLIMIT_MEMLOCK stand in for the privilege.
fn no_locked_memory() -> Result<(), Stop> {
    let (_, hard) = sys::getrlimit(libc::RLIMIT_MEMLOCK)?;
    Ok(sys::setrlimit(libc::RLIMIT_MEMLOCK, 0, hard)?)
}

const UNPRIVILEGED: Probe = Probe {
    title: "SHM_HUGETLB without CAP_IPC_LOCK or the group fails with EPERM",
    why: "Oracle and PostgreSQL with huge_pages=on stop here; the pool is for those the administrator chose",
    fix: "sysctl vm.hugetlb_shm_group=GID, or add CAP_IPC_LOCK to the container",
    spec: &[man("shmget(2)", "EPERM"), kernel("fs/hugetlbfs/inode.c", "can_do_hugetlb_shm")],
    calls: &[Sys::Shmget],
    needs: &[Need::OtherUsers, Need::Path("/proc/sys/vm/hugetlb_shm_group"), Need::Path(POOLS)],
    ..Probe::new("sysv.shm.huge.unprivileged-eperm", |cx| {
        let allowed = huge_group()?;
        let gid = if allowed == STRANGER { OTHER } else { STRANGER };
        cx.as_user(STRANGER, gid, |cx| {
            no_locked_memory()?;
            let key = cx.fresh_key();
            let _plain = cx.segment(key, page(), 0o600)?;
            refused(cx, EPERM, MIB_2, 0)
        })
    })
};

const GROUP_MEMBER: Probe = Probe {
    title: "a member of vm.hugetlb_shm_group may use SHM_HUGETLB",
    why: "this is how a database without privileges gets its huge pages: add its user to the group",
    fix: "docker run --group-add with the number in vm.hugetlb_shm_group",
    spec: &[man("shmget(2)", "EPERM"), doc("Documentation/admin-guide/sysctl/vm.rst", "hugetlb_shm_group")],
    calls: &[Sys::Shmget],
    needs: &[
        Need::OtherUsers,
        Need::InitCap(Capability::CAP_SETGID),
        Need::Path("/proc/sys/vm/hugetlb_shm_group"),
        Need::Path(POOLS),
    ],
    ..Probe::new("sysv.shm.huge.group-member", |cx| {
        let gid = huge_group()?;
        let made = |cx: &mut Context| {
            no_locked_memory()?;
            let key = cx.fresh_key();
            let got = Segment::get(key, huge_page()?, SHM_HUGETLB | IPC_CREAT | 0o600);
            Ok(got.map(drop).map_err(|e| e.errno).err().unwrap_or(0))
        };
        let stranger = if gid == STRANGER { OTHER } else { STRANGER };
        let without = cx.as_user(STRANGER, stranger, made)?;
        cx.expect("shmget", without == EPERM, "EPERM without the group", sys::errno_name(without))?;
        // Past the check the pool decides.
        let granted = |errno: i32| errno == 0 || errno == ENOMEM;
        for got in [cx.as_user(STRANGER, gid, made)?, cx.as_member(STRANGER, stranger, &[gid], made)?] {
            cx.expect("shmget", granted(got), "success or ENOMEM", sys::errno_name(got))?;
        }
        Ok(())
    })
};

/// The kernel's huge page sizes as powers of two, with the folder of each pool.
fn pools() -> Result<Vec<(i32, std::path::PathBuf)>, Stop> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(POOLS)? {
        let folder = entry?.path();
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or("");
        let kib = name.strip_prefix("hugepages-").and_then(|rest| rest.strip_suffix("kB"));
        if let Some(kib) = kib.and_then(|kib| kib.parse::<usize>().ok()) {
            found.push((kib.trailing_zeros() as i32 + 10, folder));
        }
    }
    found.sort();
    Ok(found)
}

/// A pool that cannot grow: its page size as a power of two, and its number of pages.
fn fixed_pool() -> Result<(i32, usize), Stop> {
    for (log2, folder) in pools()? {
        let number = |name: &str| {
            let text = procfs::read(&folder.join(name).to_string_lossy())?;
            text.trim().parse::<usize>().map_err(|_| Stop::broken(format!("{name} is no number: {text:?}")))
        };
        if number("nr_overcommit_hugepages")? == 0 {
            return Ok((log2, number("nr_hugepages")?));
        }
    }
    Err(Stop::skip("a huge page pool without overcommit", "none"))
}

const POOL_EMPTY: Probe = Probe {
    title: "SHM_HUGETLB beyond the pool fails with ENOMEM",
    why: "a database that does not get its huge pages must hear it at start, not die of SIGBUS under load",
    fix: "sysctl vm.nr_hugepages",
    spec: &[man("shmget(2)", "ENOMEM"), kernel("fs/hugetlbfs/inode.c", "hugetlb_file_setup")],
    calls: &[Sys::Shmget],
    needs: &[Need::InitCap(Capability::CAP_IPC_LOCK), Need::Path(POOLS)],
    ..Probe::new("sysv.shm.huge.pool-enomem", |cx| {
        let (log2, pages) = fixed_pool()?;
        refused(cx, ENOMEM, (pages + 1) << log2, shm_huge(log2))
    })
};

const UNKNOWN_SIZE: Probe = Probe {
    title: "SHM_HUGETLB with a page size that does not exist fails with EINVAL",
    why: "a configuration for other hardware is refused instead of silently getting other pages",
    spec: &[man("shmget(2)", "SHM_HUGE_2MB"), kernel("ipc/shm.c", "newseg")],
    calls: &[Sys::Shmget],
    needs: &[Need::Path(POOLS)],
    ..Probe::new("sysv.shm.huge.unknown-size-einval", |cx| {
        // 8 kB and 2^63 bytes are no page size of any architecture.
        for log2 in [13, 63] {
            refused(cx, EINVAL, MIB_2, shm_huge(log2))?;
        }
        Ok(())
    })
};

/// A segment of huge pages, of which none is reserved: it needs no pool, and a store to it would fail.
fn unreserved(cx: &mut Context, size: usize, flags: i32) -> Result<Segment, Stop> {
    let flags = SHM_HUGETLB | SHM_NORESERVE | IPC_CREAT | 0o600 | flags;
    let key = cx.fresh_key();
    cx.expect_ok(|| Segment::get(key, size, flags))
}

/// The default size of a huge page in bytes.
fn huge_page() -> Result<usize, Stop> {
    let kib = procfs::field(&procfs::read("/proc/meminfo")?, "Hugepagesize");
    match kib {
        Some(kib) => Ok((kib as usize) << 10),
        None => Err(Stop::skip("Hugepagesize in /proc/meminfo", "none")),
    }
}

/// The kernel has huge pages, and this process may use them.
const ALLOWED: &[Need] = &[Need::InitCap(Capability::CAP_IPC_LOCK), Need::Path(POOLS)];

const NORESERVE: Probe = Probe {
    title: "SHM_HUGETLB|SHM_NORESERVE is created beyond the pool",
    why: "sparse tables take huge pages as they need them; reserving all of them would starve everybody else",
    spec: &[man("shmget(2)", "SHM_NORESERVE"), kernel("ipc/shm.c", "newseg")],
    calls: &[Sys::Shmget],
    needs: ALLOWED,
    ..Probe::new("sysv.shm.huge.noreserve", |cx| {
        let (log2, pages) = fixed_pool()?;
        let size = (pages + 1) << log2;
        refused(cx, ENOMEM, size, shm_huge(log2))?;
        let made = unreserved(cx, size, shm_huge(log2))?;
        cx.expect_eq("shm_segsz", made.stat()?.segsz, size)
    })
};

const NORESERVE_SIGBUS: Probe = Probe {
    title: "a store to an unreserved huge page that the pool lacks: SIGBUS",
    why: "this is the price of not reserving, and what a crash report of such a program says",
    fix: "sysctl vm.nr_hugepages",
    spec: &[man("shmget(2)", "SHM_NORESERVE"), doc("Documentation/mm/hugetlbfs_reserv.rst", "")],
    calls: &[Sys::Shmget, Sys::Shmat],
    needs: ALLOWED,
    ..Probe::new("sysv.shm.huge.noreserve-sigbus", |cx| {
        let (log2, pages) = fixed_pool()?;
        if pages > 0 {
            return Err(Stop::skip("an empty huge page pool", format!("{pages} pages of 2^{log2} bytes")));
        }
        let map = unreserved(cx, 1 << log2, shm_huge(log2))?.attach(0)?;
        cx.expect_signal("a store", SIGBUS, || map.write(0, 1))
    })
};

const ROUNDED: Probe = Probe {
    title: "a huge segment rounds up to huge pages, shm_segsz does not",
    why: "the tail of the last huge page is usable memory; its size is still what was asked for",
    spec: &[man("shmget(2)", "DESCRIPTION"), kernel("ipc/shm.c", "newseg")],
    calls: &[Sys::Shmget, Sys::Shmat],
    needs: ALLOWED,
    ..Probe::new("sysv.shm.huge.rounded", |cx| {
        let huge = huge_page()?;
        for (size, length) in [(page(), huge), (huge, huge), (huge + 1, 2 * huge)] {
            let made = unreserved(cx, size, 0)?;
            cx.expect_eq("shm_segsz", made.stat()?.segsz, size)?;
            let map = made.attach(0)?;
            let found = procfs::mapping_at(map.address())?.map(|m| m.end - m.start);
            cx.expect_eq("length of the mapping", found, Some(length))?;
        }
        Ok(())
    })
};

const PAGE_SIZES: Probe = Probe {
    title: "SHM_HUGE_* chooses each page size that the kernel has",
    why: "other pages than asked for are a silent slow-down of a database by tens of percent",
    spec: &[man("shmget(2)", "SHM_HUGE_2MB"), doc("Documentation/admin-guide/mm/hugetlbpage.rst", "")],
    calls: &[Sys::Shmget, Sys::Shmat],
    needs: ALLOWED,
    ..Probe::new("sysv.shm.huge.page-sizes", |cx| {
        for (log2, _) in pools()? {
            let map = unreserved(cx, 1 << log2, shm_huge(log2))?.attach(0)?;
            let kib = procfs::field(&procfs::smaps_block(map.address())?, "KernelPageSize");
            cx.expect_eq("KernelPageSize in kB", kib, Some(1 << (log2 - 10)))?;
        }
        Ok(())
    })
};

const ALIGNMENT: Probe = Probe {
    title: "a huge segment cannot be attached between huge page boundaries",
    why: "programs that re-attach at a fixed address must choose it by the huge page size: the error comes at once",
    spec: &[man("shmop(2)", "EINVAL"), doc("Documentation/admin-guide/mm/hugetlbpage.rst", "")],
    calls: &[Sys::Shmget, Sys::Shmat],
    needs: ALLOWED,
    ..Probe::new("sysv.shm.huge.alignment-einval", |cx| {
        let huge = huge_page()?;
        let made = unreserved(cx, huge, 0)?;
        let map = made.attach(0)?;
        let at = map.address();
        cx.expect_eq("address modulo the huge page size", at % huge, 0)?;
        map.close()?;
        cx.expect_errno(EINVAL, || sys::shmat_addr(made.id, at + page(), 0))?;
        cx.expect_eq("shm_nattch", made.stat()?.nattch, 0)?;
        cx.expect_eq("address", cx.expect_ok(|| sys::shmat_addr(made.id, at, 0))?, at)?;
        Ok(sys::shmdt(at)?)
    })
};

const CUT: Probe = Probe {
    title: "munmap cannot cut a huge page of a segment: EINVAL",
    why: "an allocator that returns 4 kB pieces of a huge segment must hear that it cannot",
    spec: &[
        man("munmap(2)", "EINVAL"),
        man("mmap(2)", "Huge page (Huge TLB) mappings"),
        kernel("ipc/shm.c", "shm_may_split"),
    ],
    calls: &[Sys::Shmget, Sys::Shmat, Sys::Munmap],
    needs: ALLOWED,
    ..Probe::new("sysv.shm.huge.cut-einval", |cx| {
        let huge = huge_page()?;
        let made = unreserved(cx, 2 * huge, 0)?;
        let map = Map::attached(sys::shmat(made.id, 0)?, 2 * huge);
        cx.expect_errno(EINVAL, || sys::munmap(map.address() + page(), page()))?;
        cx.expect_eq("shm_nattch", made.stat()?.nattch, 1)?;
        cx.expect_ok(|| sys::munmap(map.address() + huge, huge))?;
        map.close()?;
        cx.expect_eq("shm_nattch after shmdt of the rest", made.stat()?.nattch, 0)
    })
};

const LOCK_NOTHING: Probe = Probe {
    title: "SHM_LOCK of a huge segment succeeds and sets no bit",
    why: "huge pages are never swapped: databases lock them all the same, and must not be refused",
    spec: &[kernel("ipc/shm.c", "shmctl_do_lock"), man("shmctl(2)", "SHM_LOCK")],
    calls: &[Sys::Shmget, Sys::Shmctl],
    needs: ALLOWED,
    ..Probe::new("sysv.shm.huge.lock-nothing", |cx| {
        let made = unreserved(cx, huge_page()?, 0)?;
        for command in [SHM_LOCK, SHM_UNLOCK] {
            cx.expect_ok(|| sys::shmctl(made.id, command))?;
            cx.expect_eq("shm_perm.mode", made.stat()?.mode, 0o600)?;
        }
        Ok(())
    })
};

const SHARED_2M: Probe = Probe {
    title: "SHM_HUGE_2MB gives shared memory in pages of 2 MB",
    why: "with small pages instead, the page tables of 1000 connections to a large pool eat more than the pool",
    fix: "sysctl vm.nr_hugepages",
    spec: &[man("shmget(2)", "SHM_HUGE_2MB"), doc("Documentation/admin-guide/mm/hugetlbpage.rst", "")],
    calls: &[Sys::Shmget, Sys::Shmat],
    needs: &[Need::InitCap(Capability::CAP_IPC_LOCK), Need::HugePages { kib: 2 << 10, count: 1 }],
    isolate: Isolate::CellAlone,
    ..Probe::new("sysv.shm.huge.shared-2m", |cx| {
        let key = cx.fresh_key();
        let flags = SHM_HUGETLB | shm_huge(21) | IPC_CREAT | 0o600;
        let made = cx.expect_ok(|| Segment::get(key, MIB_2, flags))?;
        let map = made.attach(0)?;
        cx.expect_eq("last byte of the new segment", map.read(MIB_2 - 1), 0)?;
        map.write(MIB_2 - 1, 12);
        let seen = cx.elsewhere(|_| Ok(made.attach(0)?.read(MIB_2 - 1)))?;
        cx.expect_eq("last byte, read elsewhere", seen, 12)
    })
};

const COUNTED: Probe = Probe {
    title: "rss counts a touched huge page with all its small pages",
    why: "free memory and the sum over segments must agree: a pool of 100 GB is neither 50 pages nor 50 TB",
    varies: "Linux 6.18 (and, by its source, every kernel since 6.7) counts each small page as a huge one: 512 times too much",
    spec: &[kernel("ipc/shm.c", "shm_add_rss_swap"), man("shmctl(2)", "SHM_INFO")],
    calls: &[Sys::Shmget, Sys::Shmat, Sys::Shmctl],
    needs: &[Need::InitCap(Capability::CAP_IPC_LOCK), Need::HugePages { kib: 2 << 10, count: 1 }],
    isolate: Isolate::CellAlone,
    ..Probe::new("sysv.shm.huge.counted", |cx| {
        let (key, size) = (cx.fresh_key(), MIB_2);
        let made = Segment::get(key, size, SHM_HUGETLB | shm_huge(21) | IPC_CREAT | 0o600)?;
        cx.expect_eq("rss before the touch", resident(made.id)?, 0)?;
        let before = sys::shm_usage()?.1.shm_rss;
        made.attach(0)?.write(0, 1);
        cx.expect_eq("rss after the touch", resident(made.id)?, size as i64)?;
        let more = sys::shm_usage()?.1.shm_rss.saturating_sub(before);
        cx.expect("more pages in shm_rss", more >= (size / page()) as u64, "all of a huge page", more)
    })
};
