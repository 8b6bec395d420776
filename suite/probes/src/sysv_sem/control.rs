//! semctl(2): IPC_STAT, IPC_SET, IPC_RMID.

use libc::{EACCES, EEXIST, EFAULT, EINVAL, EPERM, IPC_RMID, IPC_SET, IPC_STAT};
use shmcheck_probe::sys::{self, IPC_CREAT, IPC_EXCL, SemOp};
use shmcheck_probe::{Context, Map, Need, Outcome, Probe, SemSet, Stop, Sys, kernel, man, posix};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &STAT_IN_OTHER_PROCESS,
    &STAT_NUM_IGNORED,
    &STAT_EFAULT,
    &SET_MODE,
    &SET_OWNER,
    &SET_NOTHING_ELSE,
    &SET_HIGH_BITS,
    &SET_BAD_USER,
    &SET_EFAULT,
    &SET_BY_OWNER,
    &SET_BY_CREATOR,
    &SET_EPERM,
    &SET_BY_ADMIN,
    &REMOVE_FREES_KEY,
    &REMOVE_NEEDS_NO_BITS,
    &REMOVE_NUM_IGNORED,
    &REMOVE_BY_OWNER,
    &REMOVE_BY_CREATOR,
    &REMOVE_EPERM,
    &REMOVE_BY_ADMIN,
];

const CALLS: &[Sys] = &[Sys::Semctl];
const ADMIN: caps::Capability = caps::Capability::CAP_SYS_ADMIN;
/// A user and group who get the set, and somebody who has nothing to do with it.
const OWNER: u32 = 1;
const STRANGER: u32 = 65_534;

const STAT_IN_OTHER_PROCESS: Probe = Probe {
    title: "IPC_STAT shows every process the same semid_ds",
    why: "ipcs is another process; what it prints has to be what the owner sees",
    spec: &[man("semctl(2)", "IPC_STAT"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.control.stat-other-process", |cx| {
        let set = cx.sem_set_mode(7, 0o640)?;
        set.op(&[SemOp::add(0, 1)])?;
        let (id, own) = (set.id, set.stat()?);
        let other = cx.elsewhere(move |_| Ok(format!("{:?}", sys::sem_stat(id)?)))?;
        cx.expect_eq("semid_ds", other, format!("{own:?}"))?;
        cx.expect_eq("key, mode, nsems", (own.key, own.mode, own.nsems), (set.key, 0o640, 7))
    })
};

const STAT_NUM_IGNORED: Probe = Probe {
    title: "IPC_STAT ignores the semaphore's number",
    why: "old programs pass rubbish as the number there; a check would turn their start-up into EINVAL",
    spec: &[man("semctl(2)", "IPC_STAT")],
    calls: CALLS,
    ..Probe::new("sysv.sem.control.stat-num-ignored", |cx| {
        let set = cx.sem_set(1)?;
        let stat = set.stat()?;
        for num in [-1, 1, i32::MAX] {
            cx.expect_eq("semid_ds", cx.expect_ok(|| sys::sem_stat_by(set.id, num, IPC_STAT))?, (0, stat))?;
        }
        Ok(())
    })
};

const STAT_EFAULT: Probe = Probe {
    title: "IPC_STAT to a bad address is refused: EFAULT",
    why: "the caller hears of its wild pointer instead of reading an old structure",
    spec: &[man("semctl(2)", "EFAULT")],
    calls: CALLS,
    ..Probe::new("sysv.sem.control.stat-efault", |cx| {
        let set = cx.sem_set(1)?;
        let page = Map::new(sys::page_size(), libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
        for address in [0, page.address()] {
            cx.expect_errno(EFAULT, || sys::raw::semctl(set.id, 0, IPC_STAT, address))?;
        }
        Ok(())
    })
};

const SET_MODE: Probe = Probe {
    title: "the mode set by IPC_SET decides from then on",
    why: "services open a set to a group after initialising it",
    spec: &[man("semctl(2)", "IPC_SET"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.control.set-mode", |cx| {
        let set = cx.sem_set(1)?;
        cx.expect_ok(|| sys::sem_set(set.id, sys::geteuid(), sys::getegid(), 0o466))?;
        cx.expect_eq("sem_perm.mode", set.stat()?.mode, 0o466)?;
        cx.without_caps(&[caps::Capability::CAP_IPC_OWNER], |cx| {
            cx.expect_ok(|| set.value(0))?;
            cx.expect_errno(EACCES, || set.set(0, 1))
        })
    })
};

const SET_OWNER: Probe = Probe {
    title: "IPC_SET gives the set to another user, group",
    why: "an installer run by root makes the sets and hands them to the service account",
    spec: &[man("semctl(2)", "IPC_SET"), posix("semctl")],
    calls: CALLS,
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.sem.control.set-owner", |cx| {
        let set = cx.sem_set(1)?;
        cx.expect_ok(|| sys::sem_set(set.id, OWNER, STRANGER, 0o600))?;
        let stat = set.stat()?;
        cx.expect_eq("uid, gid", (stat.uid, stat.gid), (OWNER, STRANGER))?;
        cx.expect_eq("cuid, cgid", (stat.cuid, stat.cgid), (sys::geteuid(), sys::getegid()))?;
        cx.as_user(OWNER, OWNER, |cx| cx.expect_ok(|| set.set(0, 8)))?;
        cx.expect_eq("value set by the new owner", sys::semctl(set.id, 0, sys::GETVAL)?, 8)
    })
};

const SET_NOTHING_ELSE: Probe = Probe {
    title: "IPC_SET changes nothing but owner, group, mode, sem_ctime",
    why: "a structure that was not read before must not rewrite key, times or size",
    spec: &[man("semctl(2)", "IPC_SET"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.control.set-nothing-else", |cx| {
        let set = cx.sem_set(3)?;
        set.op(&[SemOp::add(2, 4)])?;
        let before = set.stat()?;
        cx.expect_ok(|| sys::sem_set_all_ones(set.id, before.uid, before.gid, 0o640))?;
        let after = set.stat()?;
        cx.expect("sem_ctime", after.ctime >= before.ctime, "the time of the call", after.ctime)?;
        cx.expect_eq("semid_ds", after, sys::SemStat { mode: 0o640, ctime: after.ctime, ..before })?;
        cx.expect_eq("values", set.values()?, vec![0, 0, 4])?;
        cx.expect_eq("identifier by key", sys::semget(set.key, 3, 0o600)?, set.id)
    })
};

const SET_HIGH_BITS: Probe = Probe {
    title: "IPC_SET takes only the low nine bits of the mode",
    why: "callers pass st_mode of a file, type bits included",
    spec: &[man("semctl(2)", "IPC_SET")],
    calls: CALLS,
    ..Probe::new("sysv.sem.control.set-high-bits", |cx| {
        let set = cx.sem_set(1)?;
        cx.expect_ok(|| sys::sem_set(set.id, sys::geteuid(), sys::getegid(), 0o107_644))?;
        cx.expect_eq("sem_perm.mode", set.stat()?.mode, 0o644)
    })
};

const SET_BAD_USER: Probe = Probe {
    title: "IPC_SET to the user or group -1 is refused: EINVAL",
    why: "a failed lookup of a user gives -1; the set would belong to nobody",
    spec: &[man("semctl(2)", "EINVAL"), kernel("ipc/util.c", "ipc_update_perm")],
    calls: CALLS,
    ..Probe::new("sysv.sem.control.set-bad-user", |cx| {
        let set = cx.sem_set(1)?;
        let before = set.stat()?;
        cx.expect_errno(EINVAL, || sys::sem_set(set.id, u32::MAX, before.gid, 0o640))?;
        cx.expect_errno(EINVAL, || sys::sem_set(set.id, before.uid, u32::MAX, 0o640))?;
        cx.expect_eq("semid_ds", set.stat()?, before)
    })
};

const SET_EFAULT: Probe = Probe {
    title: "IPC_SET from a bad address is refused: EFAULT",
    why: "random permissions from unmapped memory would open or close the set",
    spec: &[man("semctl(2)", "EFAULT")],
    calls: CALLS,
    ..Probe::new("sysv.sem.control.set-efault", |cx| {
        let set = cx.sem_set(1)?;
        let before = set.stat()?;
        for address in [0, 8] {
            cx.expect_errno(EFAULT, || sys::raw::semctl(set.id, 0, IPC_SET, address))?;
        }
        cx.expect_eq("semid_ds", set.stat()?, before)
    })
};

/// A set of this process that belongs to user and group 1.
fn given_away(cx: &mut Context) -> Result<SemSet, Stop> {
    let set = cx.sem_set_mode(1, 0)?;
    sys::sem_set(set.id, OWNER, OWNER, 0)?;
    Ok(set)
}

const SET_BY_OWNER: Probe = Probe {
    title: "the owner may IPC_SET a set that somebody else created",
    why: "after the hand-over the service manages its set itself",
    spec: &[man("semctl(2)", "IPC_SET"), posix("semctl")],
    calls: CALLS,
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.sem.control.set-by-owner", |cx| {
        let set = given_away(cx)?;
        let id = set.id;
        cx.as_user(OWNER, STRANGER, move |cx| cx.expect_ok(|| sys::sem_set(id, OWNER, OWNER, 0o444)))?;
        cx.expect_eq("sem_perm.mode", sys::sem_stat_by(set.id, 0, IPC_STAT)?.1.mode, 0o444)
    })
};

const SET_BY_CREATOR: Probe = Probe {
    title: "the creator may IPC_SET a set that was given away",
    why: "a hand-over to the wrong account can be taken back",
    spec: &[man("semctl(2)", "IPC_SET"), posix("semctl")],
    calls: CALLS,
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.sem.control.set-by-creator", |cx| {
        let set = given_away(cx)?;
        cx.without_caps(&[ADMIN, caps::Capability::CAP_IPC_OWNER], |cx| {
            cx.expect_ok(|| sys::sem_set(set.id, sys::geteuid(), sys::getegid(), 0o600))?;
            cx.expect_eq("uid", set.stat()?.uid, sys::geteuid())
        })
    })
};

const SET_EPERM: Probe = Probe {
    title: "nobody else may IPC_SET, whatever the mode is: EPERM",
    why: "a stranger who takes over a set decides about a service's locks",
    spec: &[man("semctl(2)", "EPERM"), posix("semctl")],
    calls: CALLS,
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.sem.control.set-eperm", |cx| {
        let set = cx.sem_set_mode(1, 0o666)?;
        let before = set.stat()?;
        cx.as_user(STRANGER, before.gid, |cx| {
            cx.expect_ok(|| set.set(0, 0))?;
            cx.expect_errno(EPERM, || sys::sem_set(set.id, STRANGER, STRANGER, 0o600))
        })?;
        let after = set.stat()?;
        cx.expect_eq("uid, gid, mode", (after.uid, after.gid, after.mode), (before.uid, before.gid, before.mode))
    })
};

/// A set that user 1 created and owns, with its identifier; removed again by that user.
fn of_other_user(cx: &mut Context, check: impl FnOnce(&mut Context, i32) -> Outcome) -> Outcome {
    let key = cx.fresh_key();
    let id = cx.as_user(OWNER, OWNER, move |_| Ok(sys::semget(key, 1, IPC_CREAT | IPC_EXCL | 0o600)?))?;
    let checked = check(cx, id);
    // What the check removed is gone already; anything else its owner removes.
    let _ = cx.as_user(OWNER, OWNER, move |_| Ok(sys::sem_remove(id).is_ok()))?;
    checked
}

const SET_BY_ADMIN: Probe = Probe {
    title: "CAP_SYS_ADMIN may IPC_SET any set",
    why: "root repairs the ownership of sets after a user's number changed",
    varies: "a default container has no CAP_SYS_ADMIN: its root may not",
    spec: &[man("semctl(2)", "EPERM"), man("capabilities(7)", "CAP_SYS_ADMIN")],
    calls: CALLS,
    needs: &[Need::OtherUsers, Need::Cap(ADMIN)],
    ..Probe::new("sysv.sem.control.set-by-admin", |cx| {
        of_other_user(cx, |cx, id| {
            cx.expect_ok(|| sys::sem_set(id, OWNER, OWNER, 0o666))?;
            cx.expect_eq("sem_perm.mode", sys::sem_stat(id)?.mode, 0o666)?;
            cx.without_caps(&[ADMIN], move |cx| cx.expect_errno(EPERM, || sys::sem_set(id, OWNER, OWNER, 0o600)))
        })
    })
};

const REMOVE_FREES_KEY: Probe = Probe {
    title: "IPC_RMID frees the key at once",
    why: "a service that restarts makes its set anew under the same key",
    spec: &[man("semctl(2)", "IPC_RMID"), posix("semctl")],
    calls: &[Sys::Semctl, Sys::Semget],
    ..Probe::new("sysv.sem.control.remove-frees-key", |cx| {
        let mut set = cx.sem_set(2)?;
        set.set(1, 5)?;
        cx.expect_errno(EEXIST, || sys::semget(set.key, 2, IPC_CREAT | IPC_EXCL | 0o600))?;
        cx.expect_ok(|| set.remove())?;
        cx.expect_errno(libc::ENOENT, || sys::semget(set.key, 2, 0o600))?;
        cx.expect_errno(EINVAL, || set.stat())?;
        let new = SemSet::get(set.key, 2, IPC_CREAT | IPC_EXCL | 0o600)?;
        cx.expect_eq("values of the new set", new.values()?, vec![0, 0])
    })
};

const REMOVE_NEEDS_NO_BITS: Probe = Probe {
    title: "IPC_RMID needs no permission bits, only ownership",
    why: "a set made with mode 0 by mistake must not stay for ever",
    spec: &[man("semctl(2)", "IPC_RMID"), kernel("ipc/util.c", "ipcctl_obtain_check")],
    calls: CALLS,
    ..Probe::new("sysv.sem.control.remove-no-bits", |cx| {
        let set = cx.sem_set_mode(1, 0)?;
        let id = set.id;
        cx.without_caps(&[ADMIN, caps::Capability::CAP_IPC_OWNER], move |cx| {
            cx.expect_errno(EACCES, || sys::sem_stat(id))?;
            cx.expect_ok(|| sys::sem_remove(id))
        })?;
        cx.expect_errno(EINVAL, || sys::semctl(id, 0, IPC_RMID))
    })
};

const REMOVE_NUM_IGNORED: Probe = Probe {
    title: "IPC_RMID ignores the semaphore's number",
    why: "a clean-up with a left-over number has to clean up all the same",
    spec: &[man("semctl(2)", "IPC_RMID")],
    calls: CALLS,
    ..Probe::new("sysv.sem.control.remove-num-ignored", |cx| {
        let set = cx.sem_set(1)?;
        cx.expect_ok(|| sys::semctl(set.id, -7, IPC_RMID))?;
        cx.expect_errno(EINVAL, || set.value(0))
    })
};

const REMOVE_BY_OWNER: Probe = Probe {
    title: "the owner may IPC_RMID a set that somebody else created",
    why: "a service cleans up the sets that its installer gave it",
    spec: &[man("semctl(2)", "IPC_RMID"), posix("semctl")],
    calls: CALLS,
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.sem.control.remove-by-owner", |cx| {
        let id = given_away(cx)?.disown();
        cx.as_user(OWNER, STRANGER, move |cx| cx.expect_ok(|| sys::sem_remove(id)))?;
        cx.expect_errno(EINVAL, || sys::sem_stat(id))
    })
};

const REMOVE_BY_CREATOR: Probe = Probe {
    title: "the creator may IPC_RMID a set that was given away",
    why: "the installer's uninstall step has no other right to it",
    spec: &[man("semctl(2)", "IPC_RMID"), posix("semctl")],
    calls: CALLS,
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.sem.control.remove-by-creator", |cx| {
        let id = given_away(cx)?.disown();
        cx.without_caps(&[ADMIN, caps::Capability::CAP_IPC_OWNER], move |cx| cx.expect_ok(|| sys::sem_remove(id)))?;
        cx.expect_errno(EINVAL, || sys::sem_stat(id))
    })
};

const REMOVE_EPERM: Probe = Probe {
    title: "nobody else may IPC_RMID, whatever the mode is: EPERM",
    why: "any user could stop a database by ipcrm (it happened in gVisor)",
    spec: &[man("semctl(2)", "EPERM"), posix("semctl"), shmcheck_probe::doc("gvisor#14191", "")],
    calls: CALLS,
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.sem.control.remove-eperm", |cx| {
        let set = cx.sem_set_mode(1, 0o666)?;
        set.set(0, 3)?;
        cx.as_user(STRANGER, sys::getegid(), |cx| cx.expect_errno(EPERM, || sys::sem_remove(set.id)))?;
        cx.expect_eq("value", set.value(0)?, 3)
    })
};

const REMOVE_BY_ADMIN: Probe = Probe {
    title: "CAP_SYS_ADMIN may IPC_RMID any set",
    why: "root removes what a deleted user left behind",
    varies: "a default container has no CAP_SYS_ADMIN: its root may not",
    spec: &[man("semctl(2)", "EPERM"), man("capabilities(7)", "CAP_SYS_ADMIN")],
    calls: CALLS,
    needs: &[Need::OtherUsers, Need::Cap(ADMIN)],
    ..Probe::new("sysv.sem.control.remove-by-admin", |cx| {
        of_other_user(cx, |cx, id| {
            cx.without_caps(&[ADMIN], move |cx| cx.expect_errno(EPERM, || sys::sem_remove(id)))?;
            cx.expect_ok(|| sys::sem_remove(id))?;
            cx.expect_errno(EINVAL, || sys::sem_stat(id))
        })
    })
};
