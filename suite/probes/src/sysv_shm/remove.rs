//! shmctl(2) IPC_RMID: the mark, the key, and when the memory really goes.

use super::parts::{Holder, OTHER, STRANGER, expect_change, expect_no_change, page, segment, segment_of};
use caps::Capability;
use libc::{EIDRM, EINVAL, ENOENT, EPERM, IPC_PRIVATE, IPC_RMID};
use shmcheck_probe::sys;
use shmcheck_probe::{Context, Isolate, Need, Outcome, Probe, Sys, kernel, man, posix, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &GONE_AT_ONCE,
    &MARK,
    &KEY_FREE,
    &KEY_LOOK_UP,
    &MEMORY_LIVES,
    &LAST_DETACH,
    &LAST_EXIT,
    &LAST_KILL,
    &CHILD_KEEPS,
    &LATE_ATTACH_KEEPS,
    &TWICE_MARKED,
    &TWICE_GONE,
    &STRANGER_EPERM,
    &CREATOR_MAY,
    &SYS_ADMIN,
    &BUFFER_IGNORED,
    &PAGES_FREED,
];

const GONE_AT_ONCE: Probe = Probe {
    title: "IPC_RMID of a segment that nobody attached destroys it at once",
    why: "ipcrm must free the gigabytes a crashed database left, now",
    spec: &[man("shmctl(2)", "IPC_RMID"), posix("shmctl")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.rmid.gone-at-once", gone_at_once)
};
fn gone_at_once(cx: &mut Context) -> Outcome {
    let mut made = segment(cx, 1, 0o600)?;
    // Attached and detached before: only the attaches of now count.
    made.attach(0)?.close()?;
    cx.expect_ok(|| made.remove())?;
    cx.expect_errno_of(&[EINVAL, EIDRM], || made.stat())?;
    cx.expect_errno(ENOENT, || sys::shmget(made.key, 0, 0))?;
    cx.expect("line in /proc/sysvipc/shm", procfs::sysvipc_row("shm", made.id)?.is_none(), "none", made.id)
}

const MARK: Probe = Probe {
    title: "IPC_RMID while attached only marks: SHM_DEST, private key",
    why: "ipcs shows 'dest': the administrator sees that the memory goes with its last user, and need not act",
    spec: &[man("shmctl(2)", "IPC_RMID"), kernel("ipc/shm.c", "do_shm_rmid")],
    calls: &[Sys::Shmctl, Sys::Shmat],
    ..Probe::new("sysv.shm.rmid.mark", mark)
};
fn mark(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o640)?;
    let map = made.attach(0)?;
    expect_change(
        cx,
        made.id,
        &[],
        |_| Ok(sys::shm_remove(made.id)?),
        |stat, ()| {
            stat.mode |= sys::SHM_DEST;
            stat.key = IPC_PRIVATE;
        },
    )?;
    Ok(map.close()?)
}

const KEY_FREE: Probe = Probe {
    title: "after IPC_RMID the key is free while the old memory lives on",
    why: "a server restarts while old workers drain: it gets a new segment, they keep theirs",
    spec: &[man("shmctl(2)", "IPC_RMID"), kernel("ipc/shm.c", "do_shm_rmid")],
    calls: &[Sys::Shmctl, Sys::Shmget, Sys::Shmat],
    ..Probe::new("sysv.shm.rmid.key-free", key_free)
};
fn key_free(cx: &mut Context) -> Outcome {
    let mut old = segment(cx, 1, 0o600)?;
    let before = old.attach(0)?;
    before.write(0, 1);
    old.remove()?;
    let flags = libc::IPC_CREAT | libc::IPC_EXCL | 0o600;
    let id = cx.expect_ok(|| sys::shmget(old.key, page(), flags))?;
    let new = shmcheck_probe::Segment::adopt(id, old.key, page());
    cx.expect_ne("identifier", new.id, old.id)?;
    let after = new.attach(0)?;
    cx.expect_eq("first byte of the new segment", after.read(0), 0)?;
    after.write(0, 2);
    cx.expect_eq("first byte of the old one", before.read(0), 1)?;
    before.close()?;
    cx.expect_errno(EINVAL, || old.stat())?;
    cx.expect_eq("shmget of the key", sys::shmget(old.key, 0, 0)?, new.id)
}

const KEY_LOOK_UP: Probe = Probe {
    title: "a segment marked for removal is not found by its key: ENOENT",
    why: "a client must start a new server instead of joining one that is shutting down",
    spec: &[man("shmget(2)", "ENOENT"), kernel("ipc/shm.c", "do_shm_rmid")],
    calls: &[Sys::Shmctl, Sys::Shmget],
    ..Probe::new("sysv.shm.rmid.key-enoent", key_look_up)
};
fn key_look_up(cx: &mut Context) -> Outcome {
    let mut made = segment(cx, 1, 0o600)?;
    let map = made.attach(0)?;
    cx.expect_eq("shmget before", sys::shmget(made.key, 0, 0)?, made.id)?;
    made.remove()?;
    cx.expect_errno(ENOENT, || sys::shmget(made.key, 0, 0))?;
    Ok(map.close()?)
}

const MEMORY_LIVES: Probe = Probe {
    title: "a removed segment stays shared memory for those who have it",
    why: "programs remove right after attaching, so that no crash leaks: the memory must go on working for hours",
    spec: &[man("shmctl(2)", "IPC_RMID"), posix("shmctl")],
    calls: &[Sys::Shmctl, Sys::Shmat],
    ..Probe::new("sysv.shm.rmid.memory-lives", memory_lives)
};
fn memory_lives(cx: &mut Context) -> Outcome {
    let mut made = segment(cx, 2, 0o600)?;
    let map = made.attach(0)?;
    map.write(0, 1);
    let holder = Holder::of(cx, made.id, |address| {
        let view = shmcheck_probe::Map::view(address, 2 * page());
        view.write(page(), view.read(0) + 1);
        Ok(())
    })?;
    made.remove()?;
    map.write(0, 20);
    holder.act()?;
    cx.expect_eq("byte that the other process derived from a store after the removal", map.read(page()), 21)?;
    holder.end()?;
    cx.expect_eq("bytes when the other is gone", (map.read(0), map.read(page())), (20, 21))
}

/// A removed segment is there until `last` ends its only attach, and then is not.
fn ends_with(cx: &mut Context, last: impl FnOnce(Holder) -> Result<(), shmcheck_probe::Stop>) -> Outcome {
    let mut made = segment(cx, 1, 0o600)?;
    let holder = Holder::of(cx, made.id, |address| Ok(sys::shmdt(address)?))?;
    let own = made.attach(0)?;
    made.remove()?;
    own.close()?;
    cx.expect_eq("shm_nattch while the peer has it", made.stat()?.nattch, 1)?;
    last(holder)?;
    cx.expect_errno_of(&[EINVAL, EIDRM], || made.stat())?;
    cx.expect_errno_of(&[EINVAL, EIDRM], || sys::shmat(made.id, 0))
}

const LAST_DETACH: Probe = Probe {
    title: "the last shmdt destroys a segment marked for removal",
    why: "otherwise every restart of the service leaks one segment, until shmget fails with ENOSPC",
    spec: &[man("shmop(2)", "shmdt()"), posix("shmctl")],
    calls: &[Sys::Shmctl, Sys::Shmat, Sys::Shmdt],
    ..Probe::new("sysv.shm.rmid.last-detach", |cx| {
        ends_with(cx, |holder| {
            holder.act()?;
            holder.end()
        })
    })
};

const LAST_EXIT: Probe = Probe {
    title: "the exit of the last user destroys a segment marked for removal",
    why: "programs that mark first and then just end leave nothing behind",
    spec: &[man("shmctl(2)", "IPC_RMID"), man("shmop(2)", "NOTES")],
    calls: &[Sys::Shmctl, Sys::Shmat],
    ..Probe::new("sysv.shm.rmid.last-exit", |cx| ends_with(cx, Holder::end))
};

const LAST_KILL: Probe = Probe {
    title: "SIGKILL of the last user destroys a segment marked for removal",
    why: "this is why programs mark early: not even an OOM kill leaks the memory",
    spec: &[man("shmctl(2)", "IPC_RMID"), man("shmop(2)", "NOTES")],
    calls: &[Sys::Shmctl, Sys::Shmat],
    ..Probe::new("sysv.shm.rmid.last-kill", |cx| ends_with(cx, Holder::kill))
};

const CHILD_KEEPS: Probe = Probe {
    title: "an attach inherited by fork keeps a removed segment alive",
    why: "a parent that marks, forks and detaches leaves the memory to its workers",
    spec: &[man("shmop(2)", "NOTES"), man("shmctl(2)", "IPC_RMID")],
    calls: &[Sys::Shmctl, Sys::Shmat],
    ..Probe::new("sysv.shm.rmid.child-keeps", child_keeps)
};
fn child_keeps(cx: &mut Context) -> Outcome {
    let mut made = segment(cx, 1, 0o600)?;
    let map = made.attach(0)?;
    map.write(0, 14);
    made.remove()?;
    let go = cx.gate()?;
    let child = cx.fork(|_| {
        go.pass()?;
        Ok(map.read(0))
    })?;
    map.close()?;
    cx.expect_eq("shm_nattch when the parent has detached", made.stat()?.nattch, 1)?;
    go.open()?;
    cx.expect_eq("byte read by the child", child.join()?, 14)?;
    cx.expect_errno(EINVAL, || made.stat())
}

const LATE_ATTACH_KEEPS: Probe = Probe {
    title: "an attach made after the removal keeps the segment alive too",
    why: "workers that start late attach by number and outlive the launcher: their memory must not go with it",
    spec: &[man("shmctl(2)", "NOTES")],
    calls: &[Sys::Shmctl, Sys::Shmat],
    ..Probe::new("sysv.shm.rmid.late-attach-keeps", late_attach_keeps)
};
fn late_attach_keeps(cx: &mut Context) -> Outcome {
    let mut made = segment(cx, 1, 0o600)?;
    let map = made.attach(0)?;
    map.write(0, 15);
    made.remove()?;
    let late = made.attach(0)?;
    map.close()?;
    cx.expect_eq("shm_nattch", made.stat()?.nattch, 1)?;
    cx.expect_eq("byte", late.read(0), 15)?;
    late.close()?;
    cx.expect_errno(EINVAL, || made.stat())
}

const TWICE_MARKED: Probe = Probe {
    title: "IPC_RMID again while attached succeeds without a change",
    why: "launcher and worker both remove in their clean-up: the second must not report a failure",
    spec: &[man("shmctl(2)", "IPC_RMID"), kernel("ipc/shm.c", "do_shm_rmid")],
    calls: &[Sys::Shmctl, Sys::Shmat],
    ..Probe::new("sysv.shm.rmid.twice-marked", twice_marked)
};
fn twice_marked(cx: &mut Context) -> Outcome {
    let mut made = segment(cx, 1, 0o600)?;
    let map = made.attach(0)?;
    made.remove()?;
    expect_no_change(cx, made.id, |cx| cx.expect_ok(|| sys::shm_remove(made.id)))?;
    Ok(map.close()?)
}

const TWICE_GONE: Probe = Probe {
    title: "IPC_RMID of what is gone already fails with EINVAL or EIDRM",
    why: "ipcrm tells 'already gone' from 'not yours'",
    spec: &[man("shmctl(2)", "EINVAL"), posix("shmctl")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.rmid.twice-gone", twice_gone)
};
fn twice_gone(cx: &mut Context) -> Outcome {
    let mut made = segment(cx, 1, 0o600)?;
    made.remove()?;
    // EIDRM is what the manual has beside it; Linux gives EINVAL outside a narrow race.
    cx.expect_errno_of(&[EINVAL, EIDRM], || sys::shm_remove(made.id))
}

const STRANGER_EPERM: Probe = Probe {
    title: "IPC_RMID by neither owner nor creator fails with EPERM",
    why: "gvisor#14191: any user could remove a database's memory",
    spec: &[man("shmctl(2)", "EPERM"), posix("shmctl")],
    calls: &[Sys::Shmctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.rmid.stranger-eperm", stranger_eperm)
};
fn stranger_eperm(cx: &mut Context) -> Outcome {
    // Full permission on the memory, and the segment's own group: neither is a right to remove.
    let made = segment(cx, 1, 0o777)?;
    for gid in [STRANGER, sys::getegid()] {
        expect_no_change(cx, made.id, |cx| {
            cx.as_user(STRANGER, gid, |cx| cx.expect_errno(EPERM, || sys::shm_remove(made.id)))
        })?;
    }
    cx.expect_eq("shmget of the key", sys::shmget(made.key, 0, 0)?, made.id)
}

const CREATOR_MAY: Probe = Probe {
    title: "the creator may remove a segment that now has another owner",
    why: "the program that made it cleans up, whoever it gave the segment to",
    spec: &[man("shmctl(2)", "IPC_RMID"), posix("shmctl")],
    calls: &[Sys::Shmctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.rmid.creator-may", creator_may)
};
fn creator_may(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    sys::shm_set(made.id, STRANGER, STRANGER, 0o600)?;
    // No capability that would permit it to anybody.
    cx.without_caps(&[Capability::CAP_SYS_ADMIN], |cx| cx.expect_ok(|| sys::shm_remove(made.id)))?;
    cx.expect_errno(EINVAL, || made.stat())
}

const SYS_ADMIN: Probe = Probe {
    title: "CAP_SYS_ADMIN permits IPC_RMID on another's segment",
    why: "the administrator's ipcrm must work on every user's left-over",
    spec: &[man("shmctl(2)", "IPC_RMID"), man("capabilities(7)", "CAP_SYS_ADMIN")],
    calls: &[Sys::Shmctl],
    needs: &[Need::OtherUsers, Need::Cap(Capability::CAP_SYS_ADMIN)],
    ..Probe::new("sysv.shm.rmid.sys-admin-may", sys_admin)
};
fn sys_admin(cx: &mut Context) -> Outcome {
    let mut made = segment_of(cx, OTHER, 0o600)?;
    cx.without_caps(&[Capability::CAP_SYS_ADMIN], |cx| cx.expect_errno(EPERM, || sys::shm_remove(made.id)))?;
    cx.expect_ok(|| made.remove())?;
    cx.expect_errno(EINVAL, || sys::shm_remove(made.id))
}

const BUFFER_IGNORED: Probe = Probe {
    title: "IPC_RMID ignores its buffer argument",
    why: "old code passes rubbish there: removal must not depend on it",
    spec: &[man("shmctl(2)", "IPC_RMID")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.rmid.buffer-ignored", buffer_ignored)
};
fn buffer_ignored(cx: &mut Context) -> Outcome {
    for address in [0, 8, usize::MAX] {
        let mut made = segment(cx, 1, 0o600)?;
        cx.expect_ok(|| sys::raw::shmctl(made.id, IPC_RMID, address))?;
        cx.expect_errno(EINVAL, || made.remove())?;
    }
    Ok(())
}

const PAGES_FREED: Probe = Probe {
    title: "the memory of a removed segment is given back at the last detach",
    why: "free memory must rise when the last worker of the old database ends, not at the next reboot",
    spec: &[man("shmctl(2)", "IPC_RMID"), man("shmctl(2)", "SHM_INFO")],
    calls: &[Sys::Shmctl, Sys::Shmat],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.rmid.pages-freed", pages_freed)
};
fn pages_freed(cx: &mut Context) -> Outcome {
    let counted = || sys::shm_usage().map(|(_, usage)| (usage.used_ids, usage.shm_tot, usage.shm_rss));
    let mut made = segment(cx, 8, 0o600)?;
    let map = made.attach(0)?;
    map.touch(1);
    cx.expect_eq("segments, pages, resident pages", counted()?, (1, 8, 8))?;
    made.remove()?;
    cx.expect_eq("the same after IPC_RMID", counted()?, (1, 8, 8))?;
    map.close()?;
    cx.expect_eq("the same after the last detach", counted()?, (0, 0, 0))
}
