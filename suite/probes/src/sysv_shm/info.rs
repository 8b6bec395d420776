//! shmctl(2) IPC_INFO, SHM_INFO, SHM_STAT, SHM_STAT_ANY: limits, usage, and segments by index.

use super::parts::{index_of, page, plainly, segment};
use libc::{EACCES, EFAULT, EINVAL, IPC_INFO, IPC_STAT};
use shmcheck_probe::sys::{self, SHM_INFO, SHM_RDONLY, SHM_STAT, SHM_STAT_ANY, ShmLimits, ShmStat};
use shmcheck_probe::{Context, Isolate, Outcome, Probe, Stop, Sys, kernel, man, posix, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &LIMIT_MAX,
    &LIMIT_ALL,
    &LIMIT_MNI,
    &LIMIT_MIN,
    &LIMIT_SEG,
    &HIGHEST_INDEX,
    &EMPTY,
    &USED_IDS,
    &TOTAL_PAGES,
    &RESIDENT_PAGES,
    &BY_INDEX,
    &ANY_BY_INDEX,
    &WALK,
    &UNUSED_INDEX,
    &STAT_EACCES,
    &ANY_UNCHECKED,
    &UNPRIVILEGED,
    &FAULT,
    &BAD_COMMAND,
    &BAD_ID,
];

/// A limit in IPC_INFO against the sysctl of that name.
fn limit_is_sysctl(cx: &mut Context, name: &str, of: fn(&ShmLimits) -> u64) -> Outcome {
    let sysctl: u64 = procfs::sysctl_number(name)?;
    let (_, limits) = cx.expect_ok(sys::shm_limits)?;
    cx.expect_eq(name, of(&limits), sysctl)
}

const LIMIT_MAX: Probe = Probe {
    title: "IPC_INFO's shmmax is kernel.shmmax",
    why: "installers of databases read the one and tell the administrator to set the other",
    spec: &[man("shmctl(2)", "IPC_INFO"), man("proc(5)", "/proc/sys/kernel/shmmax")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.info.shmmax", |cx| limit_is_sysctl(cx, "kernel/shmmax", |limits| limits.shmmax))
};

const LIMIT_ALL: Probe = Probe {
    title: "IPC_INFO's shmall is kernel.shmall",
    why: "ipcs -l shows it: a wrong value sends the administrator after the wrong limit",
    spec: &[man("shmctl(2)", "IPC_INFO"), man("proc(5)", "/proc/sys/kernel/shmall")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.info.shmall", |cx| limit_is_sysctl(cx, "kernel/shmall", |limits| limits.shmall))
};

const LIMIT_MNI: Probe = Probe {
    title: "IPC_INFO's shmmni is kernel.shmmni",
    why: "ENOSPC from shmget is nearly always this limit; ipcs -l must show the one in force",
    spec: &[man("shmctl(2)", "IPC_INFO"), man("proc(5)", "/proc/sys/kernel/shmmni")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.info.shmmni", |cx| limit_is_sysctl(cx, "kernel/shmmni", |limits| limits.shmmni))
};

const LIMIT_MIN: Probe = Probe {
    title: "IPC_INFO's shmmin is always 1",
    why: "configure scripts size their smallest request by it",
    spec: &[man("shmctl(2)", "IPC_INFO")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.info.shmmin", |cx| {
        let (_, limits) = cx.expect_ok(sys::shm_limits)?;
        cx.expect_eq("shmmin", limits.shmmin, 1)
    })
};

const LIMIT_SEG: Probe = Probe {
    title: "IPC_INFO's shmseg equals shmmni: a process has no limit of its own",
    why: "portable programs plan their attaches by shmseg; a 0 there stops them before they try",
    spec: &[man("shmctl(2)", "IPC_INFO"), kernel("ipc/shm.c", "shmctl_ipc_info")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.info.shmseg", |cx| {
        let (_, limits) = cx.expect_ok(sys::shm_limits)?;
        cx.expect_eq("shmseg", limits.shmseg, limits.shmmni)
    })
};

const HIGHEST_INDEX: Probe = Probe {
    title: "IPC_INFO and SHM_INFO return the highest index in use",
    why: "ipcs walks from 0 to this number: one too low and the newest segment is invisible",
    spec: &[man("shmctl(2)", "RETURN VALUE")],
    calls: &[Sys::Shmctl],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.info.highest-index", highest_index)
};
fn highest_index(cx: &mut Context) -> Outcome {
    let mut made = [segment(cx, 1, 0o600)?, segment(cx, 1, 0o600)?, segment(cx, 1, 0o600)?];
    let indices = [index_of(made[0].id)?, index_of(made[1].id)?, index_of(made[2].id)?];
    let both = || Ok::<_, Stop>((sys::shm_limits()?.0, sys::shm_usage()?.0));
    let highest = indices.iter().copied().max().unwrap_or(-1);
    cx.expect_eq("IPC_INFO, SHM_INFO", both()?, (highest, highest))?;
    // Without the highest, the second highest; a hole below changes nothing.
    let last = indices.iter().position(|index| *index == highest).unwrap_or(0);
    made[last].remove()?;
    let rest = indices.iter().copied().filter(|index| *index != highest).max().unwrap_or(-1);
    cx.expect_eq("IPC_INFO, SHM_INFO without the highest", both()?, (rest, rest))?;
    let low = indices.iter().position(|index| *index != highest && *index != rest).unwrap_or(0);
    made[low].remove()?;
    cx.expect_eq("IPC_INFO, SHM_INFO with a hole", both()?, (rest, rest))
}

const EMPTY: Probe = Probe {
    title: "without a segment IPC_INFO and SHM_INFO return 0",
    why: "−1 would look like an error to every tool on a machine that uses no segments",
    spec: &[man("shmctl(2)", "RETURN VALUE"), kernel("ipc/shm.c", "shmctl_shm_info")],
    calls: &[Sys::Shmctl],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.info.empty", empty)
};
fn empty(cx: &mut Context) -> Outcome {
    cx.expect_eq("IPC_INFO", cx.expect_ok(sys::shm_limits)?.0, 0)?;
    let (value, usage) = cx.expect_ok(sys::shm_usage)?;
    cx.expect_eq("SHM_INFO", (value, usage), (0, sys::ShmUsage::default()))?;
    cx.expect_eq("lines in /proc/sysvipc/shm", procfs::sysvipc("shm")?.len(), 0)
}

const USED_IDS: Probe = Probe {
    title: "SHM_INFO's used_ids is the number of segments",
    why: "monitoring warns before SHMMNI is reached: it needs the true count",
    spec: &[man("shmctl(2)", "SHM_INFO")],
    calls: &[Sys::Shmctl],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.info.used-ids", used_ids)
};
fn used_ids(cx: &mut Context) -> Outcome {
    let mut made = Vec::new();
    for count in 1..=5 {
        made.push(segment(cx, 1, 0o600)?);
        cx.expect_eq("used_ids", sys::shm_usage()?.1.used_ids, count)?;
    }
    made.remove(2);
    cx.expect_eq("used_ids after a removal", sys::shm_usage()?.1.used_ids, 4)?;
    cx.expect_eq("lines in /proc/sysvipc/shm", procfs::sysvipc("shm")?.len(), 4)
}

const TOTAL_PAGES: Probe = Probe {
    title: "SHM_INFO's shm_tot counts whole pages of all segments",
    why: "it is what counts against SHMALL: an administrator plans the limit by it",
    spec: &[man("shmctl(2)", "SHM_INFO"), kernel("ipc/shm.c", "newseg")],
    calls: &[Sys::Shmctl],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.info.shm-tot", total_pages)
};
fn total_pages(cx: &mut Context) -> Outcome {
    let mut made = Vec::new();
    let mut pages = 0;
    for (size, more) in [(1, 1), (page(), 1), (page() + 1, 2), (10 * page(), 10)] {
        let key = cx.fresh_key();
        made.push(cx.segment(key, size, 0o600)?);
        pages += more;
        cx.expect_eq("shm_tot", sys::shm_usage()?.1.shm_tot, pages)?;
    }
    drop(made);
    cx.expect_eq("shm_tot after all removals", sys::shm_usage()?.1.shm_tot, 0)
}

const RESIDENT_PAGES: Probe = Probe {
    title: "SHM_INFO's shm_rss counts the pages that were touched",
    why: "a segment of 100 GB costs nothing until it is used: this number tells what is really in memory",
    spec: &[man("shmctl(2)", "SHM_INFO"), kernel("ipc/shm.c", "shm_add_rss_swap")],
    calls: &[Sys::Shmctl, Sys::Shmat],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.info.shm-rss", resident_pages)
};
fn resident_pages(cx: &mut Context) -> Outcome {
    let (first, second) = (segment(cx, 6, 0o600)?, segment(cx, 4, 0o600)?);
    let counted = || sys::shm_usage().map(|(_, usage)| (usage.shm_rss, usage.shm_swp));
    cx.expect_eq("resident and swapped pages before a touch", counted()?, (0, 0))?;
    let (a, b) = (first.attach(0)?, second.attach(0)?);
    a.write(0, 1);
    a.write(5 * page(), 1);
    b.write(page(), 1);
    // Nobody writes to swap space here while pages are this new, but the two must add up.
    let (rss, swp) = counted()?;
    cx.expect_eq("resident and swapped pages together", rss + swp, 3)?;
    a.write(5 * page() + 1, 2);
    let (rss, swp) = counted()?;
    cx.expect_eq("the same after a second touch", rss + swp, 3)
}

/// A segment with every member set, seen by index as by identifier.
fn by_index(cx: &mut Context, command: i32) -> Outcome {
    let made = segment(cx, 3, 0o640)?;
    made.attach(0)?.close()?;
    let _map = made.attach(0)?;
    let index = index_of(made.id)?;
    let wanted: (i32, ShmStat) = (made.id, made.stat()?);
    cx.expect_eq("identifier and shmid_ds", cx.expect_ok(|| sys::shm_stat_by(index, command))?, wanted)?;
    cx.expect_eq("the same by the system call", cx.expect_ok(|| sys::shm_stat_raw(index, command))?, wanted)
}

const BY_INDEX: Probe = Probe {
    title: "SHM_STAT gives identifier and members of the segment at an index",
    why: "ipcs knows indices only; from this it prints its table",
    spec: &[man("shmctl(2)", "SHM_STAT")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.info.stat-by-index", |cx| by_index(cx, SHM_STAT))
};

const ANY_BY_INDEX: Probe = Probe {
    title: "SHM_STAT_ANY gives what SHM_STAT gives",
    why: "tools switched to it to see every segment; a member less would show nonsense for some",
    spec: &[man("shmctl(2)", "SHM_STAT_ANY")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.info.stat-any-by-index", |cx| by_index(cx, SHM_STAT_ANY))
};

const WALK: Probe = Probe {
    title: "a walk from 0 to the highest index meets every segment once",
    why: "this is how ipcs works: what it misses, nobody ever cleans up",
    spec: &[man("shmctl(2)", "RETURN VALUE"), man("shmctl(2)", "SHM_STAT")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.info.walk", walk)
};
fn walk(cx: &mut Context) -> Outcome {
    let mut made = Vec::new();
    for _ in 0..6 {
        made.push(segment(cx, 1, 0o600)?);
    }
    made.remove(3);
    let (highest, _) = sys::shm_usage()?;
    let met: Vec<i32> =
        (0..=highest).filter_map(|index| sys::shm_stat_by(index, SHM_STAT_ANY).ok()).map(|(id, _)| id).collect();
    for segment in &made {
        let times = met.iter().filter(|id| **id == segment.id).count();
        cx.expect_eq("times that the walk meets a segment", times, 1)?;
    }
    Ok(())
}

const UNUSED_INDEX: Probe = Probe {
    title: "SHM_STAT and SHM_STAT_ANY of an unused index fail with EINVAL",
    why: "the walk of ipcs meets holes: an error it knows, not a line of zeroes",
    spec: &[man("shmctl(2)", "EINVAL")],
    calls: &[Sys::Shmctl],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.info.unused-index-einval", unused_index)
};
fn unused_index(cx: &mut Context) -> Outcome {
    let (mut low, high) = (segment(cx, 1, 0o600)?, segment(cx, 1, 0o600)?);
    let hole = index_of(low.id)?;
    cx.expect_eq("identifier at the index", sys::shm_stat_by(hole, SHM_STAT)?.0, low.id)?;
    low.remove()?;
    for command in [SHM_STAT, SHM_STAT_ANY] {
        for index in [hole, index_of(high.id)? + 1, -1, 32_767] {
            cx.expect_errno(EINVAL, || sys::shm_stat_by(index, command))?;
        }
    }
    Ok(())
}

const STAT_EACCES: Probe = Probe {
    title: "IPC_STAT and SHM_STAT need read permission: EACCES",
    why: "size and users of a segment are the owner's business; the manual promises the check",
    spec: &[man("shmctl(2)", "EACCES"), man("shmctl(2)", "IPC_STAT")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.info.stat-eacces", stat_eacces)
};
fn stat_eacces(cx: &mut Context) -> Outcome {
    let (open, closed) = (segment(cx, 1, 0o400)?, segment(cx, 1, 0o200)?);
    plainly(cx, |cx| {
        for (made, allowed) in [(&open, true), (&closed, false)] {
            let index = index_of(made.id)?;
            if allowed {
                cx.expect_ok(|| sys::shm_stat(made.id))?;
                cx.expect_ok(|| sys::shm_stat_by(index, SHM_STAT))?;
            } else {
                cx.expect_errno(EACCES, || sys::shm_stat(made.id))?;
                cx.expect_errno(EACCES, || sys::shm_stat_by(index, SHM_STAT))?;
            }
        }
        Ok(())
    })
}

const ANY_UNCHECKED: Probe = Probe {
    title: "SHM_STAT_ANY needs no read permission",
    why: "monitoring without privileges sees all segments, as /proc/sysvipc/shm shows them anyway",
    spec: &[man("shmctl(2)", "SHM_STAT_ANY")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.info.stat-any-unchecked", any_unchecked)
};
fn any_unchecked(cx: &mut Context) -> Outcome {
    let made = segment(cx, 2, 0)?;
    plainly(cx, |cx| {
        cx.expect_errno(EACCES, || sys::shm_stat(made.id))?;
        let (id, stat) = cx.expect_ok(|| sys::shm_stat_by(index_of(made.id).unwrap_or(-1), SHM_STAT_ANY))?;
        cx.expect_eq("identifier, size, mode", (id, stat.segsz, stat.mode), (made.id, 2 * page(), 0))
    })
}

const UNPRIVILEGED: Probe = Probe {
    title: "IPC_INFO and SHM_INFO need no privilege",
    why: "ipcs -lm and -um are for every user: a monitor need not be root to warn of a full table",
    spec: &[man("shmctl(2)", "IPC_INFO"), man("shmctl(2)", "SHM_INFO")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.info.unprivileged", |cx| {
        let _closed = segment(cx, 1, 0)?;
        let (_, own) = sys::shm_limits()?;
        let (limits, used) = plainly(cx, |cx| {
            let (_, limits) = cx.expect_ok(sys::shm_limits)?;
            let (_, usage) = cx.expect_ok(sys::shm_usage)?;
            Ok(((limits.shmmax, limits.shmall, limits.shmmni), usage.used_ids))
        })?;
        cx.expect_eq("limits", limits, (own.shmmax, own.shmall, own.shmmni))?;
        cx.expect("used_ids", used >= 1, "1 or more", used)
    })
};

const FAULT: Probe = Probe {
    title: "a buffer that cannot be written makes the commands fail with EFAULT",
    why: "a wild pointer is reported, and the kernel writes nowhere",
    spec: &[man("shmctl(2)", "EFAULT")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.info.efault", fault)
};
fn fault(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let index = index_of(made.id)?;
    let commands = [(made.id, IPC_STAT), (0, IPC_INFO), (0, SHM_INFO), (index, SHM_STAT), (index, SHM_STAT_ANY)];
    // An attach that may only be read is no buffer either.
    let read_only = made.attach(SHM_RDONLY)?;
    for (id, command) in commands {
        for address in [0, 8, read_only.address()] {
            cx.expect_errno(EFAULT, || sys::raw::shmctl(id, command, address))?;
        }
    }
    cx.expect_eq("first byte of the read-only buffer", read_only.read(0), 0)
}

const BAD_COMMAND: Probe = Probe {
    title: "a command that does not exist fails with EINVAL",
    why: "programs built for a newer kernel fall back when they hear this",
    spec: &[man("shmctl(2)", "EINVAL"), kernel("ipc/shm.c", "ksys_shmctl")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.info.bad-command-einval", bad_command)
};
fn bad_command(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let before = made.stat()?;
    // Semaphores' and queues' commands among them; 256 is the flag of an interface that 64-bit calls never had.
    for command in [4, 5, 10, 16, 17, 19, 99, 256 + IPC_STAT, -1, i32::MIN] {
        cx.expect_errno(EINVAL, || sys::raw::shmctl(made.id, command, 0))?;
    }
    cx.expect_eq("shmid_ds", made.stat()?, before)
}

const BAD_ID: Probe = Probe {
    title: "every command on an identifier that is not fails with EINVAL",
    why: "scripts loop over identifiers that others remove meanwhile: each must hear that it is gone",
    spec: &[man("shmctl(2)", "EINVAL"), posix("shmctl")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.info.bad-id-einval", bad_id)
};
fn bad_id(cx: &mut Context) -> Outcome {
    let mut gone = segment(cx, 1, 0o600)?;
    gone.remove()?;
    for id in [gone.id, -1, i32::MIN, i32::MAX] {
        cx.expect_errno(EINVAL, || sys::shm_stat(id))?;
        cx.expect_errno(EINVAL, || sys::shm_set(id, sys::geteuid(), sys::getegid(), 0o600))?;
        cx.expect_errno(EINVAL, || sys::shm_remove(id))?;
        cx.expect_errno(EINVAL, || sys::shmctl(id, sys::SHM_LOCK))?;
        cx.expect_errno(EINVAL, || sys::shmctl(id, sys::SHM_UNLOCK))?;
    }
    Ok(())
}
