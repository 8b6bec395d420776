//! shmctl(2) SHM_LOCK and SHM_UNLOCK: the bit, the limit, who may.

use super::parts::{STRANGER, expect_change, expect_no_change, page, plainly, segment};
use caps::Capability;
use libc::{ENOMEM, EPERM};
use shmcheck_probe::sys::{self, SHM_LOCK, SHM_LOCKED, SHM_UNLOCK};
use shmcheck_probe::{Context, Need, Outcome, Probe, Segment, Stop, Sys, kernel, man, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &LOCKED_BIT,
    &UNLOCKED,
    &NOT_NESTED,
    &UNLOCK_UNLOCKED,
    &STAYS,
    &NO_FAULT_IN,
    &CONTENT,
    &OVER_LIMIT,
    &LIMIT_ZERO,
    &ADDS_UP,
    &REMOVAL_GIVES_BACK,
    &UNLOCK_FREE,
    &PRIVILEGED,
    &STRANGER_EPERM,
    &STRANGER_UNLOCK,
];

/// The limit that these probes set themselves in bytes.
const LIMIT: u64 = 64 << 10;

fn lock(id: i32) -> sys::Result<()> {
    sys::shmctl(id, SHM_LOCK).map(drop)
}

fn unlock(id: i32) -> sys::Result<()> {
    sys::shmctl(id, SHM_UNLOCK).map(drop)
}

const LOCKED_BIT: Probe = Probe {
    title: "SHM_LOCK sets SHM_LOCKED in shm_perm.mode, nothing else",
    why: "ipcs shows 'locked': it is how one checks that a latency-critical segment cannot be swapped out",
    spec: &[man("shmctl(2)", "SHM_LOCK")],
    calls: &[Sys::Shmctl],
    needs: &[Need::Memlock(LIMIT)],
    ..Probe::new("sysv.shm.lock.bit", |cx| {
        let made = segment(cx, 1, 0o640)?;
        expect_change(cx, made.id, &[], |_| Ok(lock(made.id)?), |stat, ()| stat.mode |= SHM_LOCKED)
    })
};

const UNLOCKED: Probe = Probe {
    title: "SHM_UNLOCK clears SHM_LOCKED, nothing else",
    why: "a service that gives its memory free for swapping must be seen to have done so",
    spec: &[man("shmctl(2)", "SHM_UNLOCK")],
    calls: &[Sys::Shmctl],
    needs: &[Need::Memlock(LIMIT)],
    ..Probe::new("sysv.shm.lock.unlock", |cx| {
        let made = segment(cx, 1, 0o640)?;
        lock(made.id)?;
        cx.expect_eq("shm_perm.mode when locked", made.stat()?.mode, 0o640 | SHM_LOCKED)?;
        expect_change(cx, made.id, &[], |_| Ok(unlock(made.id)?), |stat, ()| stat.mode = 0o640)
    })
};

const NOT_NESTED: Probe = Probe {
    title: "locks do not nest: one SHM_UNLOCK undoes two SHM_LOCK",
    why: "two libraries lock the same segment: its memory must not stay locked for ever through a count",
    spec: &[man("shmctl(2)", "SHM_UNLOCK"), kernel("ipc/shm.c", "shmctl_do_lock")],
    calls: &[Sys::Shmctl],
    needs: &[Need::Memlock(LIMIT)],
    ..Probe::new("sysv.shm.lock.not-nested", |cx| {
        let made = segment(cx, 1, 0o600)?;
        lock(made.id)?;
        cx.expect_ok(|| lock(made.id))?;
        cx.expect_ok(|| unlock(made.id))?;
        cx.expect_eq("shm_perm.mode", made.stat()?.mode, 0o600)
    })
};

const UNLOCK_UNLOCKED: Probe = Probe {
    title: "SHM_UNLOCK of a segment that is not locked succeeds",
    why: "clean-up code need not know whether the lock succeeded",
    spec: &[kernel("ipc/shm.c", "shmctl_do_lock")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.lock.unlock-unlocked", |cx| {
        let made = segment(cx, 1, 0o600)?;
        expect_no_change(cx, made.id, |cx| cx.expect_ok(|| unlock(made.id)))
    })
};

const STAYS: Probe = Probe {
    title: "the lock belongs to the segment: it outlives its process",
    why: "unlike mlock: a start-up tool locks the segment and ends, and the service's memory stays locked",
    spec: &[man("shmctl(2)", "SHM_LOCK")],
    calls: &[Sys::Shmctl],
    needs: &[Need::Memlock(LIMIT)],
    ..Probe::new("sysv.shm.lock.stays", |cx| {
        let made = segment(cx, 1, 0o600)?;
        cx.elsewhere(|_| {
            made.attach(0)?;
            Ok(lock(made.id)?)
        })?;
        cx.expect_eq("shm_perm.mode", made.stat()?.mode, 0o600 | SHM_LOCKED)?;
        cx.elsewhere(|cx| cx.expect_ok(|| unlock(made.id)))?;
        cx.expect_eq("shm_perm.mode after another process unlocked", made.stat()?.mode, 0o600)
    })
};

const NO_FAULT_IN: Probe = Probe {
    title: "SHM_LOCK brings no page into memory by itself",
    why: "unlike mlock: a program that does not touch its pages first meets its page faults in production",
    spec: &[man("shmctl(2)", "SHM_LOCK")],
    calls: &[Sys::Shmctl, Sys::Shmat, Sys::Mincore],
    needs: &[Need::Memlock(LIMIT)],
    ..Probe::new("sysv.shm.lock.no-fault-in", |cx| {
        let made = segment(cx, 3, 0o600)?;
        let map = made.attach(0)?;
        map.write(page(), 1);
        lock(made.id)?;
        let resident: Vec<u8> = sys::mincore(map.address(), 3 * page())?.iter().map(|byte| byte & 1).collect();
        cx.expect_eq("resident pages", resident, vec![0, 1, 0])
    })
};

const CONTENT: Probe = Probe {
    title: "locking and unlocking leave the content alone",
    why: "a database locks its pool while it runs: a page that changes there is a corrupt table",
    spec: &[man("shmctl(2)", "SHM_LOCK")],
    calls: &[Sys::Shmctl, Sys::Shmat],
    needs: &[Need::Memlock(LIMIT)],
    ..Probe::new("sysv.shm.lock.content", |cx| {
        let made = segment(cx, 2, 0o600)?;
        let map = made.attach(0)?;
        map.touch(0x5a);
        lock(made.id)?;
        cx.expect_eq("bytes when locked", (map.read(0), map.read(page())), (0x5a, 0x5a))?;
        map.write(page(), 1);
        unlock(made.id)?;
        cx.expect_eq("bytes when unlocked", (map.read(0), map.read(page())), (0x5a, 1))
    })
};

/// Runs `body` without privileges and with this soft limit of locked memory.
///
/// The kernel counts per user and user namespace. Where one can be had, the process counts for itself alone; where
/// not (a container), nothing else of the suite runs beside a probe, but programs of the same user may.
fn limited(cx: &mut Context, soft: u64, body: impl FnOnce(&mut Context) -> Outcome) -> Outcome {
    plainly(cx, |cx| {
        // Before the limit is lowered: the new namespace takes it over as the most that its parent's count may reach.
        let _ = sys::unshare(libc::CLONE_NEWUSER);
        let (_, hard) = sys::getrlimit(libc::RLIMIT_MEMLOCK)?;
        sys::setrlimit(libc::RLIMIT_MEMLOCK, soft, hard)?;
        body(cx)
    })
}

/// A segment of that many quarters of [`LIMIT`].
fn quarters(cx: &mut Context, count: usize) -> Result<Segment, Stop> {
    segment(cx, count * LIMIT as usize / 4 / page(), 0o600)
}

const OVER_LIMIT: Probe = Probe {
    title: "SHM_LOCK beyond RLIMIT_MEMLOCK fails with ENOMEM",
    why: "the limit keeps one user from locking all memory; the program must hear that its segment is not locked",
    fix: "docker run --ulimit memlock=-1, or LimitMEMLOCK= in the unit",
    spec: &[man("shmctl(2)", "ENOMEM"), man("getrlimit(2)", "RLIMIT_MEMLOCK")],
    calls: &[Sys::Shmctl],
    needs: &[Need::Memlock(LIMIT)],
    ..Probe::new("sysv.shm.lock.over-limit-enomem", |cx| {
        let (small, large) = (segment(cx, 1, 0o600)?, quarters(cx, 5)?);
        limited(cx, LIMIT, |cx| {
            cx.expect_ok(|| lock(small.id))?;
            cx.expect_errno(ENOMEM, || lock(large.id))
        })?;
        cx.expect_eq("shm_perm.mode of the refused segment", large.stat()?.mode, 0o600)
    })
};

const LIMIT_ZERO: Probe = Probe {
    title: "SHM_LOCK with RLIMIT_MEMLOCK 0 fails with EPERM",
    why: "'not allowed at all' is told apart from 'too much': the remedy is another one",
    fix: "docker run --ulimit memlock=-1, or LimitMEMLOCK= in the unit",
    spec: &[man("shmctl(2)", "EPERM"), kernel("ipc/shm.c", "shmctl_do_lock")],
    calls: &[Sys::Shmctl],
    needs: &[Need::Memlock(LIMIT)],
    ..Probe::new("sysv.shm.lock.limit-zero-eperm", |cx| {
        let made = segment(cx, 1, 0o600)?;
        limited(cx, LIMIT, |cx| cx.expect_ok(|| lock(made.id)))?;
        unlock(made.id)?;
        limited(cx, 0, |cx| cx.expect_errno(EPERM, || lock(made.id)))?;
        cx.expect_eq("shm_perm.mode", made.stat()?.mode, 0o600)
    })
};

const ADDS_UP: Probe = Probe {
    title: "locked segments of a user add up against RLIMIT_MEMLOCK",
    why: "a limit per segment would be no limit: a user makes as many as he likes",
    spec: &[man("shmctl(2)", "ENOMEM"), kernel("mm/mlock.c", "user_shm_lock")],
    calls: &[Sys::Shmctl],
    needs: &[Need::Memlock(LIMIT)],
    ..Probe::new("sysv.shm.lock.adds-up", |cx| {
        let (first, second) = (quarters(cx, 3)?, quarters(cx, 3)?);
        limited(cx, LIMIT, |cx| {
            cx.expect_ok(|| lock(first.id))?;
            cx.expect_errno(ENOMEM, || lock(second.id))?;
            // What is unlocked does not count any more.
            unlock(first.id)?;
            cx.expect_ok(|| lock(second.id))
        })
    })
};

const REMOVAL_GIVES_BACK: Probe = Probe {
    title: "removing a locked segment gives its share of the limit back",
    why: "a service that restarts without unlocking would be refused after a few restarts",
    spec: &[kernel("ipc/shm.c", "shm_destroy"), man("getrlimit(2)", "RLIMIT_MEMLOCK")],
    calls: &[Sys::Shmctl],
    needs: &[Need::Memlock(LIMIT)],
    ..Probe::new("sysv.shm.lock.removal-gives-back", |cx| {
        let (first, second) = (quarters(cx, 3)?, quarters(cx, 3)?);
        limited(cx, LIMIT, |cx| {
            cx.expect_ok(|| lock(first.id))?;
            cx.expect_errno(ENOMEM, || lock(second.id))?;
            sys::shm_remove(first.id)?;
            cx.expect_ok(|| lock(second.id))
        })
    })
};

const UNLOCK_FREE: Probe = Probe {
    title: "SHM_UNLOCK needs no limit: RLIMIT_MEMLOCK 0 does not hinder it",
    why: "a process whose limit was lowered can still give locked memory back",
    spec: &[man("shmctl(2)", "SHM_UNLOCK"), kernel("ipc/shm.c", "shmctl_do_lock")],
    calls: &[Sys::Shmctl],
    needs: &[Need::Memlock(LIMIT)],
    ..Probe::new("sysv.shm.lock.unlock-without-limit", |cx| {
        let made = segment(cx, 1, 0o600)?;
        lock(made.id)?;
        limited(cx, 0, |cx| cx.expect_ok(|| unlock(made.id)))?;
        cx.expect_eq("shm_perm.mode", made.stat()?.mode, 0o600)
    })
};

const PRIVILEGED: Probe = Probe {
    title: "CAP_IPC_LOCK locks beyond RLIMIT_MEMLOCK",
    why: "a database started with the capability locks its pool whatever the limit of its user",
    spec: &[man("capabilities(7)", "CAP_IPC_LOCK"), man("shmctl(2)", "SHM_LOCK")],
    calls: &[Sys::Shmctl],
    needs: &[Need::InitCap(Capability::CAP_IPC_LOCK)],
    ..Probe::new("sysv.shm.lock.cap-ipc-lock", |cx| {
        let made = segment(cx, 4, 0o600)?;
        for soft in [0, page() as u64] {
            let (_, hard) = sys::getrlimit(libc::RLIMIT_MEMLOCK)?;
            sys::setrlimit(libc::RLIMIT_MEMLOCK, soft, hard)?;
            cx.expect_ok(|| lock(made.id))?;
            cx.expect_eq("shm_perm.mode", made.stat()?.mode, 0o600 | SHM_LOCKED)?;
            cx.expect_ok(|| unlock(made.id))?;
        }
        Ok(())
    })
};

/// Neither owner nor creator: refused, and nothing changes.
fn stranger(cx: &mut Context, command: i32, locked: bool) -> Outcome {
    let made = segment(cx, 1, 0o777)?;
    if locked {
        lock(made.id)?;
    }
    expect_no_change(cx, made.id, |cx| {
        cx.as_user(STRANGER, sys::getegid(), |cx| cx.expect_errno(EPERM, || sys::shmctl(made.id, command)))
    })?;
    // By the owner the same command works.
    plainly(cx, |cx| cx.expect_ok(|| sys::shmctl(made.id, command)))?;
    let Some(row) = procfs::sysvipc_row("shm", made.id)? else {
        return cx.expect("line in /proc/sysvipc/shm", false, "one", made.id);
    };
    cx.expect_eq("perms column", row.number("perms")?, if locked { 0o777 } else { 0o2777 })
}

const STRANGER_EPERM: Probe = Probe {
    title: "SHM_LOCK by neither owner nor creator fails with EPERM",
    why: "locking counts against memory for all: nobody may lock another's segment",
    spec: &[man("shmctl(2)", "SHM_LOCK"), kernel("ipc/shm.c", "shmctl_do_lock")],
    calls: &[Sys::Shmctl],
    needs: &[Need::OtherUsers, Need::Memlock(LIMIT)],
    ..Probe::new("sysv.shm.lock.stranger-eperm", |cx| stranger(cx, SHM_LOCK, false))
};

const STRANGER_UNLOCK: Probe = Probe {
    title: "SHM_UNLOCK by neither owner nor creator fails with EPERM",
    why: "a neighbour must not be able to push a latency-critical segment out to swap",
    spec: &[man("shmctl(2)", "SHM_UNLOCK"), kernel("ipc/shm.c", "shmctl_do_lock")],
    calls: &[Sys::Shmctl],
    needs: &[Need::OtherUsers, Need::Memlock(LIMIT)],
    ..Probe::new("sysv.shm.lock.stranger-unlock-eperm", |cx| stranger(cx, SHM_UNLOCK, true))
};
