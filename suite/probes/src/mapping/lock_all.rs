//! mlockall(2) and munlockall(2).

use super::common::{Island, PRIVATE, RW, SHARED, kib, locked, must, page, probe, refused, smaps};
use caps::Capability;
use libc::{EAGAIN, EINVAL, ENOMEM, MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT, RLIMIT_MEMLOCK};
use shmcheck_probe::{Context, Map, Need, Outcome, Probe, Stop, Sys, man, posix, procfs, sys};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &FUTURE,
    &FUTURE_ON_FAULT,
    &FUTURE_LIMIT,
    &FUTURE_LOST,
    &FUTURE_FORK,
    &UNLOCK_ALL,
    &CURRENT,
    &CURRENT_LIMIT,
    &ON_FAULT_ALONE,
    &NO_FLAGS,
    &UNKNOWN_FLAG,
];

/// Room for mappings of the process's own that come up between: its heap grows while it reads /proc.
const LOCKING: &[Need] = &[Need::Memlock(2 << 20)];
const CALLS: &[Sys] = &[Sys::Mlockall];

const FUTURE: Probe = Probe {
    title: "after mlockall(MCL_FUTURE) new mappings are locked at once",
    why: "real-time programs call it once at start; everything they map later has to be there without a fault",
    spec: &[man("mlock(2)", "MCL_FUTURE"), posix("mlockall")],
    needs: LOCKING,
    calls: CALLS,
    ..probe("map.lock.all.future", |cx| future(cx, MCL_FUTURE, 3))
};
const FUTURE_ON_FAULT: Probe = Probe {
    title: "MCL_FUTURE|MCL_ONFAULT locks new mappings when they are touched",
    why: "programs with large reservations could not use MCL_FUTURE at all before",
    spec: &[man("mlock(2)", "MCL_ONFAULT")],
    needs: LOCKING,
    calls: CALLS,
    ..probe("map.lock.all.future-on-fault", |cx| future(cx, MCL_FUTURE | MCL_ONFAULT, 0))
};
fn future(cx: &mut Context, flags: i32, resident: usize) -> Outcome {
    cx.elsewhere(|cx| {
        cx.expect_ok(|| sys::mlockall(flags))?;
        for kind in [SHARED, PRIVATE] {
            let before = locked()?;
            let map = Map::new(3 * page(), RW, kind, -1)?;
            // Before the heap can grow by reading smaps.
            cx.expect_eq("VmLck in kB", locked()? - before, kib(3))?;
            let block = super::common::smaps_of(map.address())?;
            let has_lock = block.lines().any(|line| line.starts_with("VmFlags:") && line.contains(" lo"));
            cx.expect_eq("the mark lo in VmFlags", has_lock, true)?;
            let present = sys::mincore(map.address(), 3 * page())?.iter().filter(|byte| **byte & 1 == 1).count();
            cx.expect_eq("resident pages", present, resident)?;
        }
        Ok(())
    })
}

const FUTURE_LIMIT: Probe = Probe {
    title: "after mlockall(MCL_FUTURE) mmap beyond the limit fails with EAGAIN",
    why: "the program meets its limit in malloc, long after the call that caused it",
    spec: &[man("mlock(2)", "MCL_FUTURE"), man("mmap(2)", "EAGAIN")],
    needs: LOCKING,
    calls: CALLS,
    ..probe("map.lock.all.future-limit-eagain", future_limit)
};
fn future_limit(cx: &mut Context) -> Outcome {
    cx.without_caps(&[Capability::CAP_IPC_LOCK], |cx| {
        let room = (1 << 20) + locked()? * 1024;
        sys::setrlimit(RLIMIT_MEMLOCK, room, room)?;
        must(sys::mlockall(MCL_FUTURE))?;
        cx.expect_ok(|| Map::new(page(), RW, SHARED, -1))?;
        cx.expect_errno(EAGAIN, || Map::new(2 << 20, RW, SHARED, -1))
    })
}

const FUTURE_LOST: Probe = Probe {
    title: "a later mlockall without MCL_FUTURE ends the locking of new mappings",
    why: "a library that locks the present takes the program's standing order away",
    spec: &[man("mlock(2)", "NOTES")],
    needs: &[Need::InitCap(Capability::CAP_IPC_LOCK)],
    calls: CALLS,
    ..probe("map.lock.all.future-lost", future_lost)
};
fn future_lost(cx: &mut Context) -> Outcome {
    cx.elsewhere(|cx| {
        must(sys::mlockall(MCL_FUTURE))?;
        let first = Map::new(page(), RW, SHARED, -1)?;
        cx.expect_eq("Locked in kB of a mapping before", smaps(first.address(), "Locked")?, kib(1))?;
        must(sys::mlockall(MCL_CURRENT | MCL_ONFAULT))?;
        let map = Map::new(page(), RW, SHARED, -1)?;
        cx.expect_eq("Locked in kB of a new mapping", smaps(map.address(), "Locked")?, 0)?;
        cx.expect_eq("Rss in kB of it", smaps(map.address(), "Rss")?, 0)
    })
}

const FUTURE_FORK: Probe = Probe {
    title: "MCL_FUTURE is not inherited over fork",
    why: "helpers of a real-time program are ordinary programs",
    spec: &[man("mlock(2)", "NOTES")],
    needs: LOCKING,
    calls: CALLS,
    ..probe("map.lock.all.future-not-inherited", future_fork)
};
fn future_fork(cx: &mut Context) -> Outcome {
    cx.elsewhere(|cx| {
        must(sys::mlockall(MCL_FUTURE))?;
        let own = Map::new(page(), RW, SHARED, -1)?;
        cx.expect_eq("resident pages of the parent's new mapping", sys::mincore(own.address(), page())?[0] & 1, 1)?;
        let childs = cx.elsewhere(|_| {
            let map = Map::new(page(), RW, SHARED, -1)?;
            Ok((locked()?, sys::mincore(map.address(), page())?[0] & 1))
        })?;
        cx.expect_eq("VmLck and residency of a child's new mapping", childs, (0, 0))
    })
}

const UNLOCK_ALL: Probe = Probe {
    title: "munlockall ends all locks, those of future mappings too",
    why: "a program that leaves its real-time phase gives its memory back to the machine",
    spec: &[man("mlock(2)", "munlockall"), posix("munlockall")],
    needs: LOCKING,
    calls: &[Sys::Mlockall, Sys::Munlockall],
    ..probe("map.lock.all.munlockall", unlock_all)
};
fn unlock_all(cx: &mut Context) -> Outcome {
    cx.elsewhere(|cx| {
        let island = Island::shared(2)?;
        sys::mlock(island.address(), 2 * page())?;
        must(sys::mlockall(MCL_FUTURE))?;
        let first = Map::new(page(), RW, SHARED, -1)?;
        cx.expect_eq("Locked in kB of a mapping before", smaps(first.address(), "Locked")?, kib(1))?;
        cx.expect_ok(sys::munlockall)?;
        cx.expect_eq("VmLck in kB", locked()?, 0)?;
        let map = Map::new(page(), RW, SHARED, -1)?;
        cx.expect_eq("resident pages of a new mapping", sys::mincore(map.address(), page())?[0] & 1, 0)
    })
}

const CURRENT: Probe = Probe {
    title: "mlockall(MCL_CURRENT) locks what is mapped, not what comes later",
    why: "a program locks itself after start-up; what it loads later is not its loop",
    spec: &[man("mlock(2)", "MCL_CURRENT"), posix("mlockall")],
    needs: &[Need::InitCap(Capability::CAP_IPC_LOCK)],
    calls: CALLS,
    ..probe("map.lock.all.current", current)
};
fn current(cx: &mut Context) -> Outcome {
    cx.elsewhere(|cx| {
        let island = Island::shared(2)?;
        cx.expect_ok(|| sys::mlockall(MCL_CURRENT))?;
        let later = Map::new(page(), RW, SHARED, -1)?;
        cx.expect_eq("Locked in kB of a mapping before", smaps(island.address(), "Locked")?, kib(2))?;
        cx.expect_eq("Rss in kB of it", smaps(island.address(), "Rss")?, kib(2))?;
        cx.expect_eq("Rss in kB of a mapping after", smaps(later.address(), "Rss")?, 0)?;
        let text = procfs::read("/proc/self/status")?;
        let field = |name: &str| procfs::field(&text, name).unwrap_or(0);
        // Text, data, heap and stack are locked too: all but the vDSO and what came later.
        let rest = field("VmSize").saturating_sub(field("VmLck"));
        cx.expect("VmSize − VmLck in kB", rest <= 256, "at most 256", rest)
    })
}

const CURRENT_LIMIT: Probe = Probe {
    title: "mlockall(MCL_CURRENT) beyond RLIMIT_MEMLOCK fails with ENOMEM",
    why: "a JVM that cannot lock its heap says so at start, and nothing of it stays locked",
    spec: &[man("mlock(2)", "ENOMEM"), posix("mlockall")],
    calls: CALLS,
    ..probe("map.lock.all.current-limit-enomem", current_limit)
};
fn current_limit(cx: &mut Context) -> Outcome {
    cx.without_caps(&[Capability::CAP_IPC_LOCK], |cx| {
        let (soft, _) = sys::getrlimit(RLIMIT_MEMLOCK)?;
        let small = soft.min(page() as u64);
        if small == 0 {
            return Err(Stop::skip("rlimit:memlock", "RLIMIT_MEMLOCK is 0"));
        }
        sys::setrlimit(RLIMIT_MEMLOCK, small, small)?;
        refused(cx, ENOMEM, || sys::mlockall(MCL_CURRENT))?;
        cx.expect_eq("VmLck in kB", locked()?, 0)
    })
}

const ON_FAULT_ALONE: Probe = Probe {
    title: "MCL_ONFAULT without MCL_CURRENT or MCL_FUTURE fails with EINVAL",
    why: "the flag says how to lock, not what; taken alone it would lock nothing and look like success",
    spec: &[man("mlock(2)", "EINVAL")],
    needs: LOCKING,
    calls: CALLS,
    ..probe("map.lock.all.on-fault-alone-einval", |cx| invalid(cx, MCL_ONFAULT))
};
const NO_FLAGS: Probe = Probe {
    title: "mlockall without flags fails with EINVAL",
    why: "a forgotten flag must not look like a locked program",
    spec: &[man("mlock(2)", "EINVAL"), posix("mlockall")],
    needs: LOCKING,
    calls: CALLS,
    ..probe("map.lock.all.no-flags-einval", |cx| invalid(cx, 0))
};
const UNKNOWN_FLAG: Probe = Probe {
    title: "mlockall with an unknown flag fails with EINVAL",
    why: "flags of a newer kernel are tried first; the errno starts the fallback",
    spec: &[man("mlock(2)", "EINVAL")],
    needs: LOCKING,
    calls: CALLS,
    ..probe("map.lock.all.unknown-flag-einval", |cx| invalid(cx, MCL_FUTURE | 0x40))
};
fn invalid(cx: &mut Context, flags: i32) -> Outcome {
    cx.elsewhere(|cx| {
        let before = locked()?;
        refused(cx, EINVAL, || sys::mlockall(flags))?;
        cx.expect_eq("VmLck in kB", locked()?, before)?;
        let map = Map::new(page(), RW, SHARED, -1)?;
        cx.expect_eq("resident pages of a new mapping", sys::mincore(map.address(), page())?[0] & 1, 0)?;
        cx.expect_ok(|| sys::mlockall(MCL_FUTURE | MCL_ONFAULT))
    })
}
