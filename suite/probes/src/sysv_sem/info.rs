//! semctl(2): IPC_INFO, SEM_INFO, SEM_STAT, SEM_STAT_ANY; /proc/sysvipc/sem.

use libc::{EACCES, EFAULT, EINVAL};
use shmcheck_probe::sys::{self, IPC_CREAT, IPC_EXCL, IPC_INFO, SEM_INFO, SEM_STAT, SEM_STAT_ANY, SemOp};
use shmcheck_probe::{Context, Isolate, Need, Outcome, Probe, SemSet, Stop, Sys, doc, kernel, man, procfs};
use std::io::{Read, Seek, SeekFrom};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &HIGHEST_INDEX,
    &USAGE,
    &USAGE_KEEPS_LIMITS,
    &INFO_EFAULT,
    &STAT_BY_INDEX,
    &STAT_UNUSED_INDEX,
    &STAT_INDEX_EACCES,
    &STAT_ANY,
    &STAT_ANY_UNUSED_INDEX,
    &STAT_ANY_LIBRARY,
    &STAT_INDEX_EFAULT,
    &SEQUENCE,
    &PROC_LINE,
    &PROC_GONE,
    &PROC_WITHOUT_PERMISSION,
    &PROC_MANY,
];

const CALLS: &[Sys] = &[Sys::Semctl, Sys::Semget];

/// The index of a set in the kernel's table, found as ipcs does it; by either command, so that a fault in one of them
/// fails only the probes that are about it.
fn index_of(id: i32) -> Result<i32, Stop> {
    let (highest, _) = sys::sem_info(IPC_INFO)?;
    let is_it = |index: i32, command| sys::sem_stat_by(index, 0, command).is_ok_and(|(found, _)| found == id);
    (0..=highest)
        .find(|index| is_it(*index, SEM_STAT) || is_it(*index, SEM_STAT_ANY))
        .ok_or_else(|| Stop::fail("SEM_STAT by all indexes", format!("identifier {id} among them"), "no such"))
}

const HIGHEST_INDEX: Probe = Probe {
    title: "IPC_INFO returns the highest index in use",
    why: "ipcs walks up to it; too small a number hides sets, a stale one costs time",
    spec: &[man("semctl(2)", "RETURN VALUE"), kernel("ipc/util.c", "ipc_rmid")],
    calls: CALLS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.sem.info.highest-index", |cx| {
        let highest = || sys::sem_info(IPC_INFO).map(|(highest, _)| highest);
        cx.expect_eq("highest index without a set", highest()?, 0)?;
        let mut sets: Vec<SemSet> = (0..6).map(|_| cx.sem_set(1)).collect::<Result<_, _>>()?;
        cx.expect_eq("highest index of six sets", highest()?, 5)?;
        cx.expect_eq("highest index by SEM_INFO", sys::sem_info(SEM_INFO)?.0, 5)?;
        // A gap below the top changes nothing; then the top itself goes, and with it the gap.
        sets[4].remove()?;
        cx.expect_eq("highest index after the fifth went", highest()?, 5)?;
        sets[5].remove()?;
        cx.expect_eq("highest index after the sixth went", highest()?, 3)?;
        for set in &mut sets[1..4] {
            set.remove()?;
        }
        cx.expect_eq("highest index of the first set", highest()?, 0)?;
        sets[0].remove()?;
        cx.expect_eq("highest index without a set", highest()?, 0)
    })
};

const USAGE: Probe = Probe {
    title: "SEM_INFO counts what exists in the namespace",
    why: "'ENOSPC' is explained by these two numbers; leaks are found by them",
    spec: &[man("semctl(2)", "SEM_INFO")],
    calls: CALLS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.sem.info.usage", |cx| {
        let usage = || sys::sem_info(SEM_INFO).map(|(_, info)| (info.semusz, info.semaem));
        cx.expect_eq("sets, semaphores", usage()?, (0, 0))?;
        let first = cx.sem_set(3)?;
        let second = cx.sem_set(40)?;
        cx.expect_eq("sets, semaphores", usage()?, (2, 43))?;
        drop(first);
        cx.expect_eq("sets, semaphores after one went", usage()?, (1, 40))?;
        drop(second);
        cx.expect_eq("sets, semaphores at the end", usage()?, (0, 0))
    })
};

const USAGE_KEEPS_LIMITS: Probe = Probe {
    title: "SEM_INFO gives the same limits as IPC_INFO",
    why: "ipcs -l and ipcs -u read one each and are compared side by side",
    spec: &[man("semctl(2)", "SEM_INFO")],
    calls: CALLS,
    ..Probe::new("sysv.sem.info.usage-limits", |cx| {
        let ((_, limits), (_, usage)) = (sys::sem_info(IPC_INFO)?, sys::sem_info(SEM_INFO)?);
        cx.expect_eq("seminfo", sys::SemInfo { semusz: limits.semusz, semaem: limits.semaem, ..usage }, limits)?;
        cx.expect("semmni, semmns, semmsl, semopm", limits.semmsl > 0 && limits.semopm > 0, "positive", limits)
    })
};

const INFO_EFAULT: Probe = Probe {
    title: "the commands for limits refuse a bad address: EFAULT",
    why: "a program that believes it read the limits sizes its sets by rubbish",
    spec: &[man("semctl(2)", "EFAULT"), kernel("ipc/sem.c", "semctl_info")],
    calls: CALLS,
    ..Probe::new("sysv.sem.info.efault", |cx| {
        for command in [IPC_INFO, SEM_INFO] {
            for address in [0, 4] {
                cx.expect_errno(EFAULT, || sys::raw::semctl(0, 0, command, address))?;
            }
        }
        Ok(())
    })
};

const STAT_BY_INDEX: Probe = Probe {
    title: "SEM_STAT gives a set's identifier with its semid_ds by index",
    why: "ipcs has no other way to find sets whose keys it does not know",
    spec: &[man("semctl(2)", "SEM_STAT"), man("semctl(2)", "RETURN VALUE")],
    calls: CALLS,
    ..Probe::new("sysv.sem.info.stat-by-index", |cx| {
        let (first, second) = (cx.sem_set(2)?, cx.sem_set_mode(5, 0o644)?);
        second.op(&[SemOp::add(0, 1)])?;
        for set in [&first, &second] {
            let index = index_of(set.id)?;
            let found = cx.expect_ok(|| sys::sem_stat_by(index, 0, SEM_STAT))?;
            cx.expect_eq("identifier, semid_ds", found, (set.id, set.stat()?))?;
        }
        Ok(())
    })
};

/// The index of a removed set is refused.
fn unused_index(cx: &mut Context, command: i32) -> Outcome {
    let mut set = cx.sem_set(1)?;
    let index = index_of(set.id)?;
    cx.expect_ok(|| sys::sem_stat_by(index, 0, command))?;
    set.remove()?;
    cx.expect_errno(EINVAL, || sys::sem_stat_by(index, 0, command))?;
    cx.expect_errno(EINVAL, || sys::sem_stat_by(-1, 0, command))
}

const STAT_UNUSED_INDEX: Probe = Probe {
    title: "SEM_STAT of an unused index is refused: EINVAL",
    why: "the walk over all indexes skips the gaps by this errno",
    spec: &[man("semctl(2)", "EINVAL")],
    calls: CALLS,
    ..Probe::new("sysv.sem.info.stat-unused-index", |cx| unused_index(cx, SEM_STAT))
};

const STAT_ANY_UNUSED_INDEX: Probe = Probe {
    title: "SEM_STAT_ANY of an unused index is refused: EINVAL",
    why: "otherwise a removed set shows up in ipcs as a ghost",
    spec: &[man("semctl(2)", "EINVAL"), man("semctl(2)", "SEM_STAT_ANY")],
    calls: CALLS,
    ..Probe::new("sysv.sem.info.stat-any-unused-index", |cx| unused_index(cx, SEM_STAT_ANY))
};

const STAT_INDEX_EACCES: Probe = Probe {
    title: "SEM_STAT needs the read bit: EACCES",
    why: "by index as by identifier, a closed set tells nothing about itself",
    spec: &[man("semctl(2)", "EACCES")],
    calls: CALLS,
    ..Probe::new("sysv.sem.info.stat-eacces", |cx| {
        let (closed, readable) = (cx.sem_set_mode(1, 0o200)?, cx.sem_set_mode(1, 0o400)?);
        let (closed, readable) = (index_of(closed.id)?, index_of(readable.id)?);
        cx.without_caps(&[caps::Capability::CAP_IPC_OWNER], |cx| {
            cx.expect_ok(|| sys::sem_stat_by(readable, 0, SEM_STAT))?;
            cx.expect_errno(EACCES, || sys::sem_stat_by(closed, 0, SEM_STAT))
        })
    })
};

const STAT_ANY: Probe = Probe {
    title: "SEM_STAT_ANY shows a set without the read bit",
    why: "an ordinary user's ipcs lists all sets as /proc/sysvipc/sem does; before 4.17 the two disagreed",
    spec: &[man("semctl(2)", "SEM_STAT_ANY")],
    calls: CALLS,
    ..Probe::new("sysv.sem.info.stat-any", |cx| {
        let set = cx.sem_set_mode(3, 0)?;
        let (id, key, index) = (set.id, set.key, index_of(set.id)?);
        cx.without_caps(&[caps::Capability::CAP_IPC_OWNER], move |cx| {
            cx.expect_errno(EACCES, || sys::sem_stat(id))?;
            let (found, stat) = cx.expect_ok(|| sys::sem_stat_by(index, 0, SEM_STAT_ANY))?;
            cx.expect_eq("identifier, key, mode, nsems", (found, stat.key, stat.mode, stat.nsems), (id, key, 0, 3))
        })
    })
};

const STAT_ANY_LIBRARY: Probe = Probe {
    title: "the C library fills the caller's buffer for SEM_STAT_ANY",
    why: "glibc before 2.33 passed a wrong buffer: the structure stayed as it was",
    spec: &[man("semctl(2)", "SEM_STAT_ANY"), doc("glibc BZ 26637", "")],
    calls: CALLS,
    ..Probe::new("sysv.sem.info.stat-any-library", |cx| {
        let set = cx.sem_set(4)?;
        let index = index_of(set.id)?;
        let library = cx.expect_ok(|| sys::sem_stat_by(index, 0, SEM_STAT_ANY))?;
        cx.expect_eq("identifier, semid_ds", library, cx.expect_ok(|| sys::sem_stat_any_raw(index))?)?;
        cx.expect_eq("sem_nsems", library.1.nsems, 4)
    })
};

const STAT_INDEX_EFAULT: Probe = Probe {
    title: "the commands by index refuse a bad address: EFAULT",
    why: "the identifier alone must not come back as if all were well",
    spec: &[man("semctl(2)", "EFAULT")],
    calls: CALLS,
    ..Probe::new("sysv.sem.info.stat-efault", |cx| {
        let set = cx.sem_set(1)?;
        let index = index_of(set.id)?;
        for command in [SEM_STAT, SEM_STAT_ANY] {
            cx.expect_errno(EFAULT, || sys::raw::semctl(index, 0, command, 8))?;
        }
        Ok(())
    })
};

const SEQUENCE: Probe = Probe {
    title: "the identifier is made of sem_perm.__seq together with the index",
    why: "checkpoint tools take it apart to give a set its old number on another machine",
    spec: &[man("semctl(2)", "ipc_perm"), kernel("ipc/util.c", "ipc_idr_alloc")],
    calls: CALLS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.sem.info.sequence", |cx| {
        let key = cx.fresh_key();
        // The number grows when the indexes start again from below; with ipcmni_extend that takes 4096 sets.
        for _ in 0..10_000 {
            let set = SemSet::get(key, 1, IPC_CREAT | IPC_EXCL | 0o600)?;
            let (stat, index) = (set.stat()?, sys::sem_info(IPC_INFO)?.0);
            if stat.seq == 0 {
                continue;
            }
            let seq = i32::from(stat.seq);
            let made = [15, 24].map(|shift| (seq << shift) + index);
            return cx.expect("identifier", made.contains(&set.id), format!("one of {made:?}"), set.id);
        }
        Err(Stop::fail("sem_perm.__seq of 10000 sets in a row", "a number above 0", "0"))
    })
};

/// The set's line in /proc/sysvipc/sem agrees with IPC_STAT in every column.
fn expect_line(cx: &Context, set: &SemSet, stat: &sys::SemStat) -> Outcome {
    let Some(row) = procfs::sysvipc_row("sem", set.id)? else {
        return Err(Stop::fail("/proc/sysvipc/sem", format!("a line of set {}", set.id), "none"));
    };
    let columns: [(&str, i64); 9] = [
        ("key", stat.key.into()),
        ("perms", stat.mode.into()),
        ("nsems", stat.nsems.cast_signed()),
        ("uid", stat.uid.into()),
        ("gid", stat.gid.into()),
        ("cuid", stat.cuid.into()),
        ("cgid", stat.cgid.into()),
        ("otime", stat.otime),
        ("ctime", stat.ctime),
    ];
    for (column, wanted) in columns {
        cx.expect_eq(&format!("column {column}"), row.number(column)?, wanted)?;
    }
    Ok(())
}

const PROC_LINE: Probe = Probe {
    title: "/proc/sysvipc/sem shows what IPC_STAT shows",
    why: "monitoring reads the file, programs make the call; both are quoted in one bug report",
    spec: &[man("proc(5)", "/proc/sysvipc/sem"), man("sysvipc(7)", ""), kernel("ipc/sem.c", "sysvipc_sem_proc_show")],
    calls: CALLS,
    needs: &[Need::Path("/proc/sysvipc/sem")],
    ..Probe::new("sysv.sem.info.proc-line", |cx| {
        let (unused, used) = (cx.sem_set_mode(1, 0o607)?, cx.sem_set_mode(31, 0o640)?);
        used.op(&[SemOp::add(7, 1)])?;
        for set in [&unused, &used] {
            expect_line(cx, set, &set.stat()?)?;
        }
        Ok(())
    })
};

const PROC_GONE: Probe = Probe {
    title: "a removed set disappears from /proc/sysvipc/sem",
    why: "clean-up jobs loop until the list is empty",
    spec: &[man("proc(5)", "/proc/sysvipc/sem"), man("semctl(2)", "IPC_RMID")],
    calls: CALLS,
    needs: &[Need::Path("/proc/sysvipc/sem")],
    ..Probe::new("sysv.sem.info.proc-gone", |cx| {
        let mut set = cx.sem_set(1)?;
        cx.expect_eq("line while it exists", procfs::sysvipc_row("sem", set.id)?.is_some(), true)?;
        set.remove()?;
        cx.expect_eq("line after its removal", procfs::sysvipc_row("sem", set.id)?.is_some(), false)
    })
};

const PROC_WITHOUT_PERMISSION: Probe = Probe {
    title: "/proc/sysvipc/sem lists sets that the reader may not read",
    why: "an unprivileged monitor has to see all sets to find the leak",
    spec: &[man("semctl(2)", "SEM_STAT_ANY"), man("proc(5)", "/proc/sysvipc/sem")],
    calls: CALLS,
    needs: &[Need::Path("/proc/sysvipc/sem"), Need::OtherUsers],
    ..Probe::new("sysv.sem.info.proc-without-permission", |cx| {
        let set = cx.sem_set_mode(2, 0)?;
        let (id, key) = (set.id, i64::from(set.key));
        cx.as_user(65_534, 65_534, move |cx| {
            cx.expect_errno(EACCES, || sys::sem_stat(id))?;
            let row =
                procfs::sysvipc_row("sem", id)?.ok_or_else(|| Stop::fail("/proc/sysvipc/sem", "a line", "none"))?;
            cx.expect_eq(
                "key, perms, nsems",
                (row.number("key")?, row.number("perms")?, row.number("nsems")?),
                (key, 0, 2),
            )
        })
    })
};

const PROC_MANY: Probe = Probe {
    title: "/proc/sysvipc/sem read in pieces is the whole list",
    why: "a long list takes several reads; kernels have printed lines twice there, and clean-up jobs counted them twice",
    spec: &[man("proc(5)", "/proc/sysvipc/sem"), kernel("ipc/util.c", "sysvipc_proc_next")],
    calls: CALLS,
    needs: &[Need::Path("/proc/sysvipc/sem")],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.sem.info.proc-many", proc_many)
};
fn proc_many(cx: &mut Context) -> Outcome {
    let mut sets: Vec<SemSet> = (0..120).map(|_| cx.sem_set(1)).collect::<Result<_, _>>()?;
    // Gaps, which the reader has to step over.
    for n in (0..120).step_by(7) {
        sets[n].remove()?;
    }
    let wanted: Vec<i32> = sets.iter().enumerate().filter(|(n, _)| n % 7 != 0).map(|(_, set)| set.id).collect();
    let mut file = std::fs::File::open("/proc/sysvipc/sem")?;
    for piece in [64, 1_000, 65_536] {
        file.seek(SeekFrom::Start(0))?;
        let (mut text, mut buffer) = (Vec::new(), vec![0; piece]);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => text.extend_from_slice(&buffer[..n]),
            }
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        let ids: Vec<i32> =
            text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)?.parse().ok()).collect();
        cx.expect("identifiers in the list", ids == wanted, format!("the {} that exist", wanted.len()), ids)?;
    }
    Ok(())
}
