//! semget(2): what a new set looks like.

use libc::EINVAL;
use shmcheck_probe::sys::{self, IPC_CREAT, IPC_EXCL};
use shmcheck_probe::{Context, Need, Outcome, Probe, SemSet, Sys, man, posix};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &NSEMS_ZERO,
    &NSEMS_NEGATIVE,
    &NSEMS_ABOVE_SEMMSL,
    &VALUES_ZERO,
    &NO_PID,
    &OWNER,
    &OWNER_EFFECTIVE,
    &MODE,
    &NSEMS_FIELD,
    &KEY_FIELD,
    &OTIME_ZERO,
    &CTIME_NOW,
    &NEW_IDENTIFIER,
];

const NSEMS_ZERO: Probe = Probe {
    title: "a new set of no semaphores is refused: EINVAL",
    why: "a forgotten count would give a set on which every later call fails",
    spec: &[man("semget(2)", "DESCRIPTION"), posix("semget")],
    calls: &[Sys::Semget],
    ..Probe::new("sysv.sem.create.zero-einval", |cx| refused(cx, 0))
};

const NSEMS_NEGATIVE: Probe = Probe {
    title: "a negative number of semaphores is refused: EINVAL",
    why: "an overflowed count must not become a huge allocation",
    spec: &[man("semget(2)", "EINVAL"), posix("semget")],
    calls: &[Sys::Semget],
    ..Probe::new("sysv.sem.create.negative-einval", |cx| refused(cx, -1))
};

const NSEMS_ABOVE_SEMMSL: Probe = Probe {
    title: "more semaphores than SEMMSL are refused: EINVAL",
    why: "databases size their sets by the limit and retry with smaller ones on EINVAL",
    varies: "SEMMSL is the first number of kernel.sem, per IPC namespace",
    spec: &[man("semget(2)", "EINVAL"), posix("semget")],
    calls: &[Sys::Semget, Sys::Semctl],
    ..Probe::new("sysv.sem.create.semmsl-einval", |cx| {
        let limit = sys::sem_info(sys::IPC_INFO)?.1.semmsl;
        match limit.checked_add(1) {
            Some(above) => refused(cx, above),
            // A limit of INT_MAX cannot be exceeded; the next representable count is negative.
            None => refused(cx, i32::MIN),
        }
    })
};

fn refused(cx: &mut Context, nsems: i32) -> Outcome {
    drop(cx.sem_set(1)?);
    let key = cx.fresh_key();
    cx.expect_errno(EINVAL, || sys::semget(key, nsems, IPC_CREAT | 0o600))?;
    cx.expect_errno(EINVAL, || sys::semget(sys::IPC_PRIVATE, nsems, IPC_CREAT | 0o600))?;
    cx.expect_errno(libc::ENOENT, || sys::semget(key, 1, 0o600))
}

const VALUES_ZERO: Probe = Probe {
    title: "every semaphore of a new set is 0",
    why: "Linux promises it beyond POSIX; programs skip SETALL and would start with a taken or doubled lock",
    spec: &[man("semget(2)", "Semaphore initialization")],
    calls: &[Sys::Semget, Sys::Semctl],
    ..Probe::new("sysv.sem.create.values-zero", values_zero)
};
fn values_zero(cx: &mut Context) -> Outcome {
    // A set with other values goes before it, so that reused memory would show.
    let dirty = cx.sem_set(300)?;
    dirty.set_all(&[0x5a5a; 300])?;
    drop(dirty);
    let set = cx.sem_set(300)?;
    cx.expect_eq("semaphores that are not 0", set.values()?.into_iter().filter(|v| *v != 0).count(), 0)
}

const NO_PID: Probe = Probe {
    title: "no process has operated on a new set: sempid is 0",
    why: "debuggers would blame a process for a lock that nobody ever took",
    spec: &[posix("semctl"), man("semop(2)", "DESCRIPTION")],
    calls: &[Sys::Semget, Sys::Semctl],
    ..Probe::new("sysv.sem.create.pid-zero", no_pid)
};
fn no_pid(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(2)?;
    cx.expect_eq("sempid", (set.last_pid(0)?, set.last_pid(1)?), (0, 0))
}

const OWNER: Probe = Probe {
    title: "a new set belongs to the user who made it",
    why: "the creator could not set up or remove its own set",
    spec: &[man("semget(2)", "DESCRIPTION"), posix("semget")],
    calls: &[Sys::Semget, Sys::Semctl],
    ..Probe::new("sysv.sem.create.owner", owner)
};
fn owner(cx: &mut Context) -> Outcome {
    let stat = cx.sem_set(1)?.stat()?;
    let (uid, gid) = (sys::geteuid(), sys::getegid());
    cx.expect_eq("uid, gid", (stat.uid, stat.gid), (uid, gid))?;
    cx.expect_eq("cuid, cgid", (stat.cuid, stat.cgid), (uid, gid))
}

const OWNER_EFFECTIVE: Probe = Probe {
    title: "the effective ids become owner of a new set, not the real ones",
    why: "a set-uid helper would leave sets that its own service account may not touch",
    spec: &[man("semget(2)", "DESCRIPTION"), posix("semget")],
    calls: &[Sys::Semget, Sys::Semctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.sem.create.owner-effective", owner_effective)
};
fn owner_effective(cx: &mut Context) -> Outcome {
    let key = cx.fresh_key();
    let (id, stat) = cx.elsewhere(move |_| {
        sys::setgroups(&[])?;
        sys::setegid(65_534)?;
        sys::seteuid(1)?;
        let set = SemSet::get(key, 1, IPC_CREAT | IPC_EXCL | 0o600)?;
        let stat = set.stat()?;
        Ok((set.disown(), [stat.uid, stat.gid, stat.cuid, stat.cgid]))
    })?;
    // Adopted by a process that may remove it: the probe's own user is not the owner, root of the namespace may.
    let removed = cx.elsewhere(move |_| {
        sys::seteuid(1)?;
        Ok(sys::sem_remove(id)?)
    });
    cx.expect_eq("uid, gid, cuid, cgid", stat, [1, 65_534, 1, 65_534])?;
    removed
}

const MODE: Probe = Probe {
    title: "the mode of a new set is the low nine bits of semflg",
    why: "an administrator who reads ipcs -s would see other permissions than the program asked for",
    spec: &[man("semget(2)", "DESCRIPTION"), posix("semget")],
    calls: &[Sys::Semget, Sys::Semctl],
    ..Probe::new("sysv.sem.create.mode", mode)
};
fn mode(cx: &mut Context) -> Outcome {
    sys::umask(0o077);
    for bits in [0o600, 0o644, 0o753, 0o777] {
        let set = cx.sem_set_mode(1, bits)?;
        cx.expect_eq("sem_perm.mode", set.stat()?.mode, bits.cast_unsigned())?;
    }
    // The umask takes nothing away, and a bit above the nine is not kept.
    let set = cx.sem_set_mode(1, 0o4_600)?;
    cx.expect_eq("sem_perm.mode", set.stat()?.mode, 0o600)
}

const NSEMS_FIELD: Probe = Probe {
    title: "sem_nsems is the number of semaphores asked for",
    why: "whoever reads all values takes the array's size from here; a wrong number overruns it",
    spec: &[man("semget(2)", "DESCRIPTION"), posix("semget")],
    calls: &[Sys::Semget, Sys::Semctl],
    ..Probe::new("sysv.sem.create.nsems", nsems_field)
};
fn nsems_field(cx: &mut Context) -> Outcome {
    for nsems in [1, 17, 257] {
        let set = cx.sem_set(nsems)?;
        cx.expect_eq("sem_nsems", set.stat()?.nsems, u64::from(nsems.cast_unsigned()))?;
        cx.expect_eq("value of the last one", set.value(nsems - 1)?, 0)?;
        cx.expect_errno(EINVAL, || set.value(nsems))?;
    }
    Ok(())
}

const KEY_FIELD: Probe = Probe {
    title: "sem_perm.__key is the key given to semget",
    why: "ipcs and clean-up scripts find a service's sets by it",
    spec: &[man("semctl(2)", "ipc_perm")],
    calls: &[Sys::Semget, Sys::Semctl],
    ..Probe::new("sysv.sem.create.key", key_field)
};
fn key_field(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(1)?;
    cx.expect_eq("sem_perm.__key", set.stat()?.key, set.key)?;
    let private = SemSet::get(sys::IPC_PRIVATE, 1, 0o600)?;
    cx.expect_eq("sem_perm.__key of a private set", private.stat()?.key, sys::IPC_PRIVATE)
}

const OTIME_ZERO: Probe = Probe {
    title: "sem_otime of a new set is 0",
    why: "the classic initialisation protocol waits until it is not: without the 0, a client uses a set too early",
    spec: &[man("semget(2)", "DESCRIPTION"), posix("semget")],
    calls: &[Sys::Semget, Sys::Semctl],
    ..Probe::new("sysv.sem.create.otime-zero", otime_zero)
};
fn otime_zero(cx: &mut Context) -> Outcome {
    let used = cx.sem_set(1)?;
    used.op(&[sys::SemOp::add(0, 1)])?;
    cx.expect_ne("sem_otime of a used set", used.stat()?.otime, 0)?;
    drop(used);
    let set = cx.sem_set(1)?;
    cx.expect_eq("sem_otime", set.stat()?.otime, 0)
}

const CTIME_NOW: Probe = Probe {
    title: "sem_ctime of a new set is the current time",
    why: "monitoring finds leaked sets by their age",
    spec: &[man("semget(2)", "DESCRIPTION"), posix("semget")],
    calls: &[Sys::Semget, Sys::Semctl],
    ..Probe::new("sysv.sem.create.ctime-now", ctime_now)
};
fn ctime_now(cx: &mut Context) -> Outcome {
    let before = sys::now_seconds();
    let set = cx.sem_set(1)?;
    let after = sys::now_seconds();
    let ctime = set.stat()?.ctime;
    cx.expect("sem_ctime", (before..=after).contains(&ctime), format!("{before} to {after}"), ctime)
}

const NEW_IDENTIFIER: Probe = Probe {
    title: "a set made after a removal has another identifier",
    why: "a process that slept through the restart of its server would take the new server's locks by the old number",
    spec: &[man("semctl(2)", "ipc_perm"), shmcheck_probe::kernel("ipc/util.c", "ipc_idr_alloc")],
    calls: &[Sys::Semget, Sys::Semctl],
    ..Probe::new("sysv.sem.create.new-identifier", new_identifier)
};
fn new_identifier(cx: &mut Context) -> Outcome {
    let key = cx.fresh_key();
    let mut seen = Vec::new();
    // More often than the kernel has index numbers in a row: the sequence number must make the difference.
    for _ in 0..80 {
        let set = SemSet::get(key, 1, IPC_CREAT | IPC_EXCL | 0o600)?;
        cx.expect("identifier", !seen.contains(&set.id), "a number not used before", set.id)?;
        seen.push(set.id);
    }
    let first = seen.first().copied().unwrap_or(-1);
    cx.expect_errno(EINVAL, || sys::semctl(first, 0, sys::GETVAL))
}
