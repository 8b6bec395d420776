//! /proc/sysvipc/shm: the table that ipcs prefers.

use super::parts::{OTHER, STRANGER, page, segment};
use libc::EACCES;
use shmcheck_probe::sys::{self, ShmStat};
use shmcheck_probe::{Context, Isolate, Need, Outcome, Probe, Stop, Sys, kernel, man, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[&PROC_ROW, &PROC_OWNERS, &PROC_HEADER, &PROC_GONE, &PROC_RSS, &PROC_STRANGER];

/// The value of a member as a column shows it.
type Column = (&'static str, fn(&ShmStat) -> i64);

/// Columns of /proc/sysvipc/shm with the member each one shows.
const COLUMNS: [Column; 13] = [
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

const PROC_OWNERS: Probe = Probe {
    title: "/proc/sysvipc/shm tells owner, group and their creators apart",
    why: "an administrator asks the user in this column before removing: the wrong one says yes",
    spec: &[man("proc(5)", "/proc/sysvipc"), kernel("ipc/shm.c", "sysvipc_shm_proc_show")],
    calls: &[Sys::Shmctl],
    needs: &[Need::OtherUsers, Need::Path("/proc/sysvipc/shm")],
    ..Probe::new("sysv.shm.proc.owners", |cx| {
        let made = segment(cx, 1, 0o600)?;
        sys::shm_set(made.id, STRANGER, OTHER, 0o604)?;
        let Some(row) = procfs::sysvipc_row("shm", made.id)? else {
            return cx.expect("line in /proc/sysvipc/shm", false, "one", made.id);
        };
        let wanted = [STRANGER, OTHER, sys::geteuid(), sys::getegid(), 0o604];
        for (column, wanted) in ["uid", "gid", "cuid", "cgid", "perms"].into_iter().zip(wanted) {
            cx.expect_eq(column, row.number(column)?, wanted.into())?;
        }
        Ok(())
    })
};

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
