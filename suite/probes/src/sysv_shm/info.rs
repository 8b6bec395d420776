//! shmctl(2) IPC_INFO, SHM_INFO, SHM_STAT, SHM_STAT_ANY, and /proc/sysvipc/shm: the view of ipcs.

use super::parts::{STRANGER, page, plainly, segment};
use libc::{EACCES, EFAULT, EINVAL, IPC_INFO, IPC_STAT};
use shmcheck_probe::sys::{self, SHM_INFO, SHM_RDONLY, SHM_STAT, SHM_STAT_ANY, ShmLimits, ShmStat};
use shmcheck_probe::{Context, Isolate, Need, Outcome, Probe, Segment, Stop, Sys, kernel, man, posix, procfs};

/// The probes of this file.
pub const PROBES: &[&Probe] = &[
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
    &FAULT,
    &BAD_COMMAND,
    &BAD_ID,
    &PROC_ROW,
    &PROC_HEADER,
    &PROC_GONE,
    &PROC_RSS,
    &PROC_STRANGER,
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

/// The index of a segment's identifier, found through SHM_STAT_ANY.
fn index_of(made: &Segment) -> Result<i32, Stop> {
    let (highest, _) = sys::shm_limits()?;
    (0..=highest)
        .find(|index| sys::shm_stat_by(*index, SHM_STAT_ANY).is_ok_and(|(id, _)| id == made.id))
        .ok_or_else(|| Stop::fail("SHM_STAT_ANY", format!("identifier {} at some index", made.id), "none"))
}

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
    let indices = [index_of(&made[0])?, index_of(&made[1])?, index_of(&made[2])?];
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
    let index = index_of(&made)?;
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
    let hole = index_of(&low)?;
    cx.expect_eq("identifier at the index", sys::shm_stat_by(hole, SHM_STAT)?.0, low.id)?;
    low.remove()?;
    for command in [SHM_STAT, SHM_STAT_ANY] {
        for index in [hole, index_of(&high)? + 1, -1, 32_767] {
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
            let index = index_of(made)?;
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
        let (id, stat) = cx.expect_ok(|| sys::shm_stat_by(index_of(&made).unwrap_or(-1), SHM_STAT_ANY))?;
        cx.expect_eq("identifier, size, mode", (id, stat.segsz, stat.mode), (made.id, 2 * page(), 0))
    })
}

const FAULT: Probe = Probe {
    title: "a buffer that cannot be written makes the commands fail with EFAULT",
    why: "a wild pointer is reported, and the kernel writes nowhere",
    spec: &[man("shmctl(2)", "EFAULT")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.info.efault", fault)
};
fn fault(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let index = index_of(&made)?;
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

/// Columns of /proc/sysvipc/shm with the member each one shows.
const COLUMNS: [(&str, fn(&ShmStat) -> i64); 13] = [
    ("key", |s| s.key.into()),
    ("perms", |s| s.mode.into()),
    ("size", |s| s.segsz as i64),
    ("cpid", |s| s.cpid.into()),
    ("lpid", |s| s.lpid.into()),
    ("nattch", |s| s.nattch as i64),
    ("uid", |s| s.uid.into()),
    ("gid", |s| s.gid.into()),
    ("cuid", |s| s.cuid.into()),
    ("cgid", |s| s.cgid.into()),
    ("atime", |s| s.atime),
    ("dtime", |s| s.dtime),
    ("ctime", |s| s.ctime),
];

const PROC_ROW: Probe = Probe {
    title: "a line of /proc/sysvipc/shm agrees with IPC_STAT in each column",
    why: "ipcs prefers this file: what it prints is what an administrator removes by",
    spec: &[man("proc(5)", "/proc/sysvipc"), kernel("ipc/shm.c", "sysvipc_shm_proc_show")],
    calls: &[Sys::Shmctl],
    needs: &[Need::Path("/proc/sysvipc/shm")],
    ..Probe::new("sysv.shm.proc.row", proc_row)
};
fn proc_row(cx: &mut Context) -> Outcome {
    let key = cx.fresh_key();
    let mut made = cx.segment(key, page() + 3, 0o642)?;
    made.attach(0)?.close()?;
    let map = made.attach(0)?;
    // Once as it is, once marked for removal: key and mode change.
    for marked in [false, true] {
        if marked {
            made.remove()?;
        }
        let stat = made.stat()?;
        let Some(row) = procfs::sysvipc_row("shm", made.id)? else {
            return cx.expect("line in /proc/sysvipc/shm", false, "one", made.id);
        };
        for (column, of) in COLUMNS {
            cx.expect_eq(column, row.number(column)?, of(&stat))?;
        }
    }
    Ok(map.close()?)
}

const PROC_HEADER: Probe = Probe {
    title: "/proc/sysvipc/shm begins with the names of its columns",
    why: "ipcs and lsipc read the table by position: a column more in between shifts every number",
    spec: &[man("proc(5)", "/proc/sysvipc"), kernel("ipc/shm.c", "shm_init")],
    needs: &[Need::Path("/proc/sysvipc/shm")],
    isolate: Isolate::Cell,
    ..Probe::new("sysv.shm.proc.header", proc_header)
};
fn proc_header(cx: &mut Context) -> Outcome {
    let text = procfs::read("/proc/sysvipc/shm")?;
    let names: Vec<_> = text.lines().next().unwrap_or("").split_whitespace().collect();
    let wanted = "key shmid perms size cpid lpid nattch uid gid cuid cgid atime dtime ctime rss swap";
    cx.expect_eq("first line", names.join(" ").as_str(), wanted)
}

const PROC_GONE: Probe = Probe {
    title: "a segment has one line in /proc/sysvipc/shm while it exists",
    why: "a ghost line makes administrators hunt memory that is free; a missing one hides what is not",
    spec: &[man("proc(5)", "/proc/sysvipc")],
    calls: &[Sys::Shmctl],
    needs: &[Need::Path("/proc/sysvipc/shm")],
    ..Probe::new("sysv.shm.proc.exists", proc_gone)
};
fn proc_gone(cx: &mut Context) -> Outcome {
    let mut made = segment(cx, 1, 0o600)?;
    let lines = |id: i32| {
        let ids: Vec<_> = procfs::sysvipc("shm")?.iter().map(|row| row.number("shmid")).collect::<Result<_, _>>()?;
        Ok::<_, Stop>(ids.into_iter().filter(|other| *other == i64::from(id)).count())
    };
    cx.expect_eq("lines of a segment", lines(made.id)?, 1)?;
    let map = made.attach(0)?;
    made.remove()?;
    cx.expect_eq("lines while marked for removal", lines(made.id)?, 1)?;
    map.close()?;
    cx.expect_eq("lines when it is gone", lines(made.id)?, 0)
}

const PROC_RSS: Probe = Probe {
    title: "rss in /proc/sysvipc/shm is the bytes of touched pages",
    why: "it answers which of ten segments really uses the memory",
    spec: &[kernel("ipc/shm.c", "sysvipc_shm_proc_show")],
    calls: &[Sys::Shmat],
    needs: &[Need::Path("/proc/sysvipc/shm")],
    ..Probe::new("sysv.shm.proc.rss", proc_rss)
};
fn proc_rss(cx: &mut Context) -> Outcome {
    let made = segment(cx, 5, 0o600)?;
    let map = made.attach(0)?;
    for (number, offset) in [4 * page(), 0, 2 * page()].into_iter().enumerate() {
        let Some(row) = procfs::sysvipc_row("shm", made.id)? else {
            return cx.expect("line in /proc/sysvipc/shm", false, "one", made.id);
        };
        let got = row.number("rss")? + row.number("swap")?;
        cx.expect_eq("rss and swap together", got, (number * page()) as i64)?;
        map.write(offset, 1);
    }
    Ok(())
}

const PROC_STRANGER: Probe = Probe {
    title: "/proc/sysvipc/shm shows segments that the reader may not read",
    why: "an unprivileged monitor counts all segments of its namespace",
    spec: &[man("shmctl(2)", "SHM_STAT_ANY"), man("proc(5)", "/proc/sysvipc")],
    calls: &[Sys::Shmctl],
    needs: &[Need::OtherUsers, Need::Path("/proc/sysvipc/shm")],
    ..Probe::new("sysv.shm.proc.stranger", proc_stranger)
};
fn proc_stranger(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0)?;
    let size = cx.as_user(STRANGER, STRANGER, |cx| {
        cx.expect_errno(EACCES, || sys::shm_stat(made.id))?;
        procfs::sysvipc_row("shm", made.id)?.map(|row| row.number("size")).transpose()
    })?;
    cx.expect_eq("size column as another user sees it", size, Some(page() as i64))
}
