//! mlock(2), mlock2(2), munlock(2): what is locked, and how it is counted.

use super::common::{
    Island, SHARED, after_exec, kib, lettered_file, locked, must, page, probe, refused, reserve, smaps,
};
use caps::Capability;
use libc::{EINVAL, ENOMEM, EPERM, MAP_SHARED, MLOCK_ONFAULT, RLIMIT_MEMLOCK};
use shmcheck_probe::{Context, Map, Need, Outcome, Probe, Stop, Sys, man, posix, procfs, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &RESIDENT,
    &ROUNDED,
    &UNLOCK,
    &NO_STACK,
    &UNMAP,
    &PART,
    &FORK,
    &EXEC,
    &FILE_PAGES,
    &ON_FAULT,
    &FLAGS_ZERO,
    &UNKNOWN_FLAG,
    &WRAPS,
    &UNLOCK_WRAPS,
    &UNMAPPED,
    &HOLE,
    &BEYOND_FILE,
    &LIMIT,
    &LIMIT_TWICE,
    &PRIVILEGED,
    &FORBIDDEN,
];

/// Room for what these probes lock.
const LOCKING: &[Need] = &[Need::Memlock(65_536)];

const RESIDENT: Probe = Probe {
    title: "mlock makes every page of the range resident",
    why: "audio and control loops lock their buffers: a page fault in the loop is a click, or an arm that overshoots",
    spec: &[man("mlock(2)", "DESCRIPTION"), posix("mlock")],
    needs: LOCKING,
    calls: &[Sys::Mlock],
    ..probe("map.lock.mlock.resident", resident)
};
fn resident(cx: &mut Context) -> Outcome {
    let before = locked()?;
    for island in [Island::shared(3)?, Island::private(3)?] {
        cx.expect_eq("Rss in kB before", smaps(island.address(), "Rss")?, 0)?;
        cx.expect_ok(|| sys::mlock(island.address(), 3 * page()))?;
        cx.expect_eq("Rss in kB after", smaps(island.address(), "Rss")?, kib(3))?;
        cx.expect_eq("VmLck in kB", locked()? - before, kib(3))?;
        cx.expect_eq("the first byte", island.read(0), 0)?;
    }
    cx.expect_eq("VmLck in kB at the end", locked()?, before)
}

const ROUNDED: Probe = Probe {
    title: "mlock locks every page that holds a part of the range",
    why: "a key that lies across two pages is locked whole",
    spec: &[man("mlock(2)", "Linux notes")],
    needs: LOCKING,
    calls: &[Sys::Mlock],
    ..probe("map.lock.mlock.whole-pages", rounded)
};
fn rounded(cx: &mut Context) -> Outcome {
    let island = Island::shared(3)?;
    let before = locked()?;
    cx.expect_ok(|| sys::mlock(island.address() + page() - 1, 2))?;
    cx.expect_eq("VmLck in kB", locked()? - before, kib(2))?;
    let present = sys::mincore(island.address(), 3 * page())?;
    cx.expect_eq("resident pages", present.iter().map(|byte| byte & 1).collect::<Vec<_>>(), vec![1, 1, 0])
}

const UNLOCK: Probe = Probe {
    title: "munlock takes the range out of VmLck",
    why: "pools lock while they work; memory that stays locked starves the next program of the user",
    spec: &[man("mlock(2)", "munlock"), posix("munlock")],
    needs: LOCKING,
    calls: &[Sys::Mlock, Sys::Munlock],
    ..probe("map.lock.munlock.counted", unlock)
};
fn unlock(cx: &mut Context) -> Outcome {
    let island = Island::shared(2)?;
    island.touch(0x11);
    let before = locked()?;
    must(sys::mlock(island.address(), 2 * page()))?;
    cx.expect_eq("VmLck in kB while locked", locked()? - before, kib(2))?;
    cx.expect_ok(|| sys::munlock(island.address(), 2 * page()))?;
    cx.expect_eq("VmLck in kB", locked()?, before)?;
    cx.expect_eq("the contents", (island.read(0), island.read(page())), (0x11, 0x11))
}

const NO_STACK: Probe = Probe {
    title: "locks do not stack: one munlock undoes any number of mlock",
    why: "two users of one page inside a program have to count for themselves; the page says so",
    spec: &[man("mlock(2)", "NOTES")],
    needs: LOCKING,
    calls: &[Sys::Mlock, Sys::Munlock],
    ..probe("map.lock.munlock.no-stacking", no_stack)
};
fn no_stack(cx: &mut Context) -> Outcome {
    let island = Island::shared(1)?;
    let before = locked()?;
    for _ in 0..3 {
        must(sys::mlock(island.address(), page()))?;
    }
    cx.expect_eq("VmLck in kB after three locks", locked()? - before, kib(1))?;
    must(sys::munlock(island.address(), page()))?;
    cx.expect_eq("VmLck in kB after one munlock", locked()?, before)
}

const UNMAP: Probe = Probe {
    title: "unmapping removes the lock",
    why: "otherwise a program that maps and unmaps locked buffers reaches its limit with nothing locked",
    spec: &[man("mlock(2)", "NOTES"), posix("munmap")],
    needs: LOCKING,
    calls: &[Sys::Mlock, Sys::Munmap],
    ..probe("map.lock.munmap.unlocks", unmap)
};
fn unmap(cx: &mut Context) -> Outcome {
    let island = Island::shared(3)?;
    let before = locked()?;
    must(sys::mlock(island.address(), 3 * page()))?;
    sys::munmap(island.address() + page(), page())?;
    cx.expect_eq("VmLck in kB after a part", locked()? - before, kib(2))?;
    sys::munmap(island.address(), 3 * page())?;
    cx.expect_eq("VmLck in kB after all", locked()?, before)
}

const PART: Probe = Probe {
    title: "munlock of the middle leaves both sides locked",
    why: "a buffer that is released inside a locked arena must not unlock its neighbours",
    spec: &[man("mlock(2)", "munlock")],
    needs: LOCKING,
    calls: &[Sys::Mlock, Sys::Munlock],
    ..probe("map.lock.munlock.middle", part)
};
fn part(cx: &mut Context) -> Outcome {
    let island = Island::shared(3)?;
    let before = locked()?;
    must(sys::mlock(island.address(), 3 * page()))?;
    must(sys::munlock(island.address() + page(), page()))?;
    cx.expect_eq("VmLck in kB", locked()? - before, kib(2))?;
    // `Locked` in smaps shares a page's size among those who map it: one process here.
    let each = [0, 1, 2].map(|n| smaps(island.address() + n * page(), "Locked"));
    let each: Vec<u64> = each.into_iter().collect::<Result<_, Stop>>()?;
    cx.expect_eq("Locked in kB of the three pages", each, vec![kib(1), 0, kib(1)])
}

const FORK: Probe = Probe {
    title: "memory locks are not inherited over fork",
    why: "a service that forks a helper must not double its locked memory",
    spec: &[man("mlock(2)", "NOTES"), posix("fork")],
    needs: LOCKING,
    calls: &[Sys::Mlock],
    ..probe("map.lock.fork.not-inherited", fork)
};
fn fork(cx: &mut Context) -> Outcome {
    let island = Island::shared(2)?;
    must(sys::mlock(island.address(), 2 * page()))?;
    let before = locked()?;
    cx.expect("VmLck in kB of the parent", before >= kib(2), format!("at least {}", kib(2)), before)?;
    let childs = cx.elsewhere(|_| locked())?;
    cx.expect_eq("VmLck in kB of the child", childs, 0)?;
    cx.expect_eq("VmLck in kB of the parent", locked()?, before)
}

const EXEC: Probe = Probe {
    title: "memory locks end with execve",
    why: "a supervisor that locks itself must not lock every program it starts",
    spec: &[man("mlock(2)", "NOTES"), posix("exec")],
    needs: LOCKING,
    calls: &[Sys::Mlock, Sys::Ptrace],
    ..probe("map.lock.exec.ends", exec)
};
fn exec(cx: &mut Context) -> Outcome {
    let lock = || {
        let map = Map::shared_anonymous(page())?;
        must(sys::mlock(map.address(), page()))?;
        match locked()? {
            0 => Err(Stop::broken("nothing is locked before execve")),
            _ => {
                map.leak();
                Ok(())
            }
        }
    };
    let left = after_exec(cx, lock, |pid| Ok(procfs::field(&procfs::read(&format!("/proc/{pid}/status"))?, "VmLck")))?;
    cx.expect_eq("VmLck in kB after execve", left, Some(0))
}

const FILE_PAGES: Probe = Probe {
    title: "mlock brings the pages of a mapped file into memory",
    why: "a model file that is locked answers the first request as fast as the last",
    spec: &[man("mlock(2)", "DESCRIPTION")],
    needs: &[Need::Memlock(65_536), Need::Call(Sys::MemfdCreate)],
    calls: &[Sys::Mlock],
    ..probe("map.lock.mlock.file", file_pages)
};
fn file_pages(cx: &mut Context) -> Outcome {
    let file = lettered_file(3)?;
    let island = Island::new(3, libc::PROT_READ, MAP_SHARED, file.as_raw_fd())?;
    cx.expect_eq("Rss in kB before", smaps(island.address(), "Rss")?, 0)?;
    cx.expect_ok(|| sys::mlock(island.address(), 3 * page()))?;
    cx.expect_eq("Rss in kB after", smaps(island.address(), "Rss")?, kib(3))
}

const ON_FAULT: Probe = Probe {
    title: "MLOCK_ONFAULT locks pages when they are touched, not before",
    why: "large sparse buffers can be locked without paying for what is never used",
    spec: &[man("mlock(2)", "MLOCK_ONFAULT")],
    needs: LOCKING,
    calls: &[Sys::Mlock2],
    ..probe("map.lock.mlock2.on-fault", on_fault)
};
fn on_fault(cx: &mut Context) -> Outcome {
    let island = Island::shared(3)?;
    let before = locked()?;
    cx.expect_ok(|| sys::mlock2(island.address(), 3 * page(), MLOCK_ONFAULT))?;
    cx.expect_eq("Rss in kB before a touch", smaps(island.address(), "Rss")?, 0)?;
    cx.expect_eq("VmLck in kB", locked()? - before, kib(3))?;
    island.write(page(), 1);
    cx.expect_eq("Rss in kB after one store", smaps(island.address(), "Rss")?, kib(1))?;
    // Locked pages cannot be dropped on advice.
    cx.expect_errno(EINVAL, || sys::madvise(island.address(), page(), libc::MADV_DONTNEED))
}

const FLAGS_ZERO: Probe = Probe {
    title: "mlock2 without flags behaves as mlock",
    why: "the C library's mlock may be either call; a program must not notice which one it got",
    spec: &[man("mlock(2)", "MLOCK_ONFAULT")],
    needs: LOCKING,
    calls: &[Sys::Mlock2],
    ..probe("map.lock.mlock2.flags-zero", flags_zero)
};
fn flags_zero(cx: &mut Context) -> Outcome {
    let island = Island::shared(2)?;
    cx.expect_ok(|| sys::mlock2(island.address(), 2 * page(), 0))?;
    cx.expect_eq("Rss in kB", smaps(island.address(), "Rss")?, kib(2))
}

const UNKNOWN_FLAG: Probe = Probe {
    title: "mlock2 with an unknown flag fails with EINVAL",
    why: "a flag that promises more than the kernel can do has to be refused",
    spec: &[man("mlock(2)", "EINVAL")],
    needs: LOCKING,
    calls: &[Sys::Mlock2],
    ..probe("map.lock.mlock2.unknown-flag-einval", unknown_flag)
};
fn unknown_flag(cx: &mut Context) -> Outcome {
    let island = Island::shared(1)?;
    let before = locked()?;
    refused(cx, EINVAL, || sys::mlock2(island.address(), page(), MLOCK_ONFAULT | 0x40))?;
    cx.expect_eq("VmLck in kB", locked()?, before)?;
    cx.expect_ok(|| sys::mlock2(island.address(), page(), MLOCK_ONFAULT))
}

const WRAPS: Probe = Probe {
    title: "mlock of a range that wraps around fails with EINVAL",
    why: "a negative length must not lock everything, down to the last page of the machine",
    spec: &[man("mlock(2)", "EINVAL")],
    // Without it the length is beyond the limit in the first place: ENOMEM.
    needs: &[Need::InitCap(Capability::CAP_IPC_LOCK)],
    calls: &[Sys::Mlock],
    ..probe("map.lock.refused.wraps-einval", |cx| wraps(cx, sys::mlock))
};
const UNLOCK_WRAPS: Probe = Probe {
    title: "munlock of a range that wraps around fails with EINVAL",
    why: "a negative length must not unlock what other parts of the program rely on",
    spec: &[man("mlock(2)", "EINVAL")],
    needs: LOCKING,
    calls: &[Sys::Munlock],
    ..probe("map.lock.refused.munlock-wraps-einval", |cx| wraps(cx, sys::munlock))
};
fn wraps(cx: &mut Context, call: fn(usize, usize) -> sys::Result<()>) -> Outcome {
    let island = Island::shared(1)?;
    must(sys::mlock(island.address(), page()))?;
    let before = locked()?;
    refused(cx, EINVAL, || call(island.address(), usize::MAX - page() + 1))?;
    cx.expect_eq("VmLck in kB", locked()?, before)
}

const UNMAPPED: Probe = Probe {
    title: "mlock where nothing is mapped fails with ENOMEM",
    why: "a program must not believe that a buffer it has lost is locked",
    spec: &[man("mlock(2)", "ENOMEM"), posix("mlock")],
    needs: LOCKING,
    calls: &[Sys::Mlock, Sys::Munlock],
    ..probe("map.lock.refused.unmapped-enomem", unmapped)
};
fn unmapped(cx: &mut Context) -> Outcome {
    let around = reserve(3)?;
    let at = around.address() + page();
    sys::munmap(at, page())?;
    let before = locked()?;
    refused(cx, ENOMEM, || sys::mlock(at, page()))?;
    refused(cx, ENOMEM, || sys::munlock(at, page()))?;
    cx.expect_eq("VmLck in kB", locked()?, before)
}

const HOLE: Probe = Probe {
    title: "mlock over a hole fails with ENOMEM",
    why: "half a locked buffer is not a locked buffer",
    spec: &[man("mlock(2)", "ENOMEM"), posix("mlock")],
    needs: LOCKING,
    calls: &[Sys::Mlock],
    ..probe("map.lock.refused.hole-enomem", hole)
};
fn hole(cx: &mut Context) -> Outcome {
    let island = Island::shared(3)?;
    cx.expect_ok(|| sys::mlock(island.address(), 3 * page()))?;
    sys::munmap(island.address() + page(), page())?;
    cx.expect_errno(ENOMEM, || sys::mlock(island.address(), 3 * page()))
}

const BEYOND_FILE: Probe = Probe {
    title: "mlock beyond the end of a mapped file fails with ENOMEM",
    why: "the pages cannot be made resident, and the caller hears it as an errno, not as SIGBUS",
    spec: &[man("mlock(2)", "ENOMEM")],
    needs: &[Need::Memlock(65_536), Need::Call(Sys::MemfdCreate)],
    calls: &[Sys::Mlock],
    ..probe("map.lock.refused.beyond-file-enomem", beyond_file)
};
fn beyond_file(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let map = Map::shared(&file, 3 * page())?;
    cx.expect_ok(|| sys::mlock(map.address(), page()))?;
    cx.expect_errno(ENOMEM, || sys::mlock(map.address() + 2 * page(), page()))
}

const LIMIT: Probe = Probe {
    title: "mlock beyond RLIMIT_MEMLOCK fails with ENOMEM",
    why: "the default limit of a container is 64 KiB or 8 MiB: Elasticsearch logs 'Unable to lock JVM Memory'",
    fix: "raise the limit (docker run --ulimit memlock=-1, LimitMEMLOCK= of the unit)",
    spec: &[man("mlock(2)", "ENOMEM"), man("setrlimit(2)", "RLIMIT_MEMLOCK")],
    needs: LOCKING,
    calls: &[Sys::Mlock],
    ..probe("map.lock.limit.enomem", limit)
};
fn limit(cx: &mut Context) -> Outcome {
    cx.without_caps(&[Capability::CAP_IPC_LOCK], |cx| {
        let island = Island::shared(3)?;
        let before = locked()?;
        let room = (before + kib(2)) * 1024;
        sys::setrlimit(RLIMIT_MEMLOCK, room, room)?;
        refused(cx, ENOMEM, || sys::mlock(island.address(), 3 * page()))?;
        cx.expect_eq("VmLck in kB", locked()?, before)?;
        cx.expect_ok(|| sys::mlock(island.address(), 2 * page()))?;
        refused(cx, ENOMEM, || sys::mlock(island.address() + 2 * page(), page()))
    })
}

const LIMIT_TWICE: Probe = Probe {
    title: "locking a locked range again costs nothing of the limit",
    why: "kernels before 4.9 counted it twice; programs near their limit failed for no reason",
    spec: &[man("mlock(2)", "BUGS")],
    needs: LOCKING,
    calls: &[Sys::Mlock],
    ..probe("map.lock.limit.counted-once", limit_twice)
};
fn limit_twice(cx: &mut Context) -> Outcome {
    cx.without_caps(&[Capability::CAP_IPC_LOCK], |cx| {
        let island = Island::shared(2)?;
        let room = (locked()? + kib(2)) * 1024;
        sys::setrlimit(RLIMIT_MEMLOCK, room, room)?;
        must(sys::mlock(island.address(), page()))?;
        cx.expect_ok(|| sys::mlock(island.address(), 2 * page()))?;
        cx.expect_eq("VmLck in kB", locked()? * 1024, room)
    })
}

const PRIVILEGED: Probe = Probe {
    title: "with CAP_IPC_LOCK the limit is not enforced",
    why: "system services lock what they need without anybody tuning their limits",
    spec: &[man("mlock(2)", "Limits and permissions"), man("capabilities(7)", "CAP_IPC_LOCK")],
    needs: &[Need::InitCap(Capability::CAP_IPC_LOCK)],
    calls: &[Sys::Mlock],
    ..probe("map.lock.limit.cap-ipc-lock", privileged)
};
fn privileged(cx: &mut Context) -> Outcome {
    cx.elsewhere(|cx| {
        sys::setrlimit(RLIMIT_MEMLOCK, 0, 0)?;
        let map = Map::new(2 * page(), super::common::RW, SHARED, -1)?;
        let before = locked()?;
        cx.expect_ok(|| sys::mlock(map.address(), 2 * page()))?;
        cx.expect_eq("VmLck in kB", locked()? - before, kib(2))
    })
}

const FORBIDDEN: Probe = Probe {
    title: "mlock fails with EPERM where RLIMIT_MEMLOCK is 0",
    why: "'not permitted' instead of 'out of memory' tells the administrator where to look",
    spec: &[man("mlock(2)", "EPERM")],
    calls: &[Sys::Mlock],
    ..probe("map.lock.limit.zero-eperm", forbidden)
};
fn forbidden(cx: &mut Context) -> Outcome {
    cx.without_caps(&[Capability::CAP_IPC_LOCK], |cx| {
        let island = Island::shared(1)?;
        sys::setrlimit(RLIMIT_MEMLOCK, 0, 0)?;
        refused(cx, EPERM, || sys::mlock(island.address(), page()))?;
        cx.expect_eq("VmLck in kB", locked()?, 0)?;
        cx.expect_errno(EPERM, || sys::mlockall(libc::MCL_FUTURE))
    })
}
