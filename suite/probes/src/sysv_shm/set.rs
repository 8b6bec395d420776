//! shmctl(2) IPC_SET: what it sets, what it leaves alone, who may.

use super::parts::{
    IPC_CAPS, OTHER, STRANGER, Stamp, expect_change, expect_no_change, index_of, page, plainly, segment, segment_of,
};
use caps::Capability;
use libc::{EACCES, EFAULT, EINVAL, EPERM, IPC_SET};
use shmcheck_probe::sys;
use shmcheck_probe::{Context, Need, Outcome, Probe, Sys, kernel, man, posix};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &MODE,
    &MODE_HIGH_BITS,
    &KEEPS_LOCKED,
    &KEEPS_DEST,
    &OWNER,
    &NOTHING_ELSE,
    &AT_ONCE,
    &ATTACHED_KEEPS,
    &NEW_OWNER,
    &CREATOR_MAY,
    &STRANGER_EPERM,
    &MODE_NO_HELP,
    &SYS_ADMIN,
    &IPC_OWNER_NOT,
    &INVALID_UID,
    &INVALID_GID,
    &FAULT,
];

/// Sets only the mode.
fn set_mode(id: i32, mode: u32) -> sys::Result<()> {
    sys::shm_set(id, sys::geteuid(), sys::getegid(), mode)
}

const MODE: Probe = Probe {
    title: "IPC_SET sets the nine permission bits and ctime, nothing else",
    why: "an administrator opens a segment to the monitoring group with it; any other change breaks the service",
    spec: &[man("shmctl(2)", "IPC_SET"), posix("shmctl")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.set.mode", mode)
};
fn mode(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    made.attach(0)?;
    for mode in [0o640, 0o777, 0o421, 0o400] {
        expect_change(cx, made.id, &[Stamp::Change], |_| Ok(set_mode(made.id, mode)?), |stat, ()| stat.mode = mode)?;
    }
    Ok(())
}

const MODE_HIGH_BITS: Probe = Probe {
    title: "IPC_SET ignores the mode bits above the lowest nine",
    why: "programs write back the mode they read: SHM_DEST or SHM_LOCKED in it must not mark or lock anything",
    spec: &[man("shmctl(2)", "IPC_SET")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.set.mode-high-bits", mode_high_bits)
};
fn mode_high_bits(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    for high in [sys::SHM_DEST, sys::SHM_LOCKED, 0o4000, 0o17_7000] {
        set_mode(made.id, 0o644 | high)?;
        cx.expect_eq("shm_perm.mode", made.stat()?.mode, 0o644)?;
    }
    // Not marked: it outlives a last detach.
    made.attach(0)?.close()?;
    cx.expect_eq("shm_nattch of the segment that stays", made.stat()?.nattch, 0)
}

const KEEPS_LOCKED: Probe = Probe {
    title: "IPC_SET does not clear SHM_LOCKED",
    why: "changing the mode must not silently let a latency-critical segment be swapped out",
    spec: &[man("shmctl(2)", "IPC_SET"), kernel("ipc/util.c", "ipc_update_perm")],
    calls: &[Sys::Shmctl],
    needs: &[Need::Memlock(64 << 10)],
    ..Probe::new("sysv.shm.set.keeps-locked", keeps_locked)
};
fn keeps_locked(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    sys::shmctl(made.id, sys::SHM_LOCK)?;
    set_mode(made.id, 0o640)?;
    cx.expect_eq("shm_perm.mode", made.stat()?.mode, 0o640 | sys::SHM_LOCKED)
}

const KEEPS_DEST: Probe = Probe {
    title: "IPC_SET does not clear SHM_DEST: the mark stays",
    why: "a removal cannot be taken back by a change of the mode: the memory is still freed at the last detach",
    spec: &[man("shmctl(2)", "IPC_SET"), man("shmctl(2)", "IPC_RMID")],
    calls: &[Sys::Shmctl, Sys::Shmat],
    ..Probe::new("sysv.shm.set.keeps-dest", keeps_dest)
};
fn keeps_dest(cx: &mut Context) -> Outcome {
    let mut made = segment(cx, 1, 0o600)?;
    let map = made.attach(0)?;
    made.remove()?;
    cx.expect_ok(|| set_mode(made.id, 0o640))?;
    cx.expect_eq("shm_perm.mode", made.stat()?.mode, 0o640 | sys::SHM_DEST)?;
    map.close()?;
    cx.expect_errno(EINVAL, || made.stat())
}

const OWNER: Probe = Probe {
    title: "IPC_SET sets uid and gid; cuid and cgid stay",
    why: "a root launcher hands the segment to the service's user; with the old owner the service is refused",
    spec: &[man("shmctl(2)", "IPC_SET"), posix("shmctl")],
    calls: &[Sys::Shmctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.set.owner", owner)
};
fn owner(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    for (uid, gid) in [(STRANGER, sys::getegid()), (STRANGER, OTHER), (sys::geteuid(), STRANGER)] {
        expect_change(
            cx,
            made.id,
            &[Stamp::Change],
            |_| Ok(sys::shm_set(made.id, uid, gid, 0o600)?),
            |stat, ()| (stat.uid, stat.gid) = (uid, gid),
        )?;
    }
    Ok(())
}

const NOTHING_ELSE: Probe = Probe {
    title: "IPC_SET ignores every other member of its buffer",
    why: "callers pass a shmid_ds that holds rubbish besides uid, gid and mode: sizes and counts must not follow",
    spec: &[man("shmctl(2)", "IPC_SET"), posix("shmctl")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.set.nothing-else", nothing_else)
};
fn nothing_else(cx: &mut Context) -> Outcome {
    let made = segment(cx, 3, 0o600)?;
    made.attach(0)?;
    let set = || sys::shm_set_all_ones(made.id, sys::geteuid(), sys::getegid(), 0o620);
    expect_change(cx, made.id, &[Stamp::Change], |_| Ok(set()?), |stat, ()| stat.mode = 0o620)?;
    cx.expect_eq("shmget of the key", sys::shmget(made.key, 3 * page(), 0)?, made.id)
}

const AT_ONCE: Probe = Probe {
    title: "a permission taken away by IPC_SET is refused at the next shmat",
    why: "locking users out before maintenance works only if the new mode counts from now on",
    spec: &[man("shmctl(2)", "IPC_SET"), man("shmop(2)", "EACCES")],
    calls: &[Sys::Shmctl, Sys::Shmat],
    ..Probe::new("sysv.shm.set.at-once", at_once)
};
fn at_once(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    plainly(cx, |cx| {
        cx.expect_ok(|| sys::shmat(made.id, 0))?;
        set_mode(made.id, 0)?;
        cx.expect_errno(EACCES, || sys::shmat(made.id, sys::SHM_RDONLY))?;
        // The owner may always give himself the right back.
        cx.expect_ok(|| set_mode(made.id, 0o600))?;
        cx.expect_ok(|| sys::shmat(made.id, 0)).map(drop)
    })
}

const ATTACHED_KEEPS: Probe = Probe {
    title: "an attach keeps its rights when IPC_SET takes them away",
    why: "as with open files: tightening the mode must not crash the workers that are running",
    spec: &[man("shmctl(2)", "IPC_SET"), kernel("ipc/util.c", "ipcperms")],
    calls: &[Sys::Shmctl, Sys::Shmat],
    ..Probe::new("sysv.shm.set.attached-keeps", attached_keeps)
};
fn attached_keeps(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let map = made.attach(0)?;
    set_mode(made.id, 0)?;
    plainly(cx, |cx| {
        cx.expect_no_signal("a store through the old attach", || map.write(0, 3))?;
        cx.expect_errno(EACCES, || sys::shmat(made.id, 0))
    })?;
    cx.expect_eq("byte stored", map.read(0), 3)
}

const NEW_OWNER: Probe = Probe {
    title: "the owner set by IPC_SET has an owner's rights",
    why: "the service's user must be able to clean up what its root launcher created",
    spec: &[man("shmctl(2)", "IPC_SET"), posix("shmctl")],
    calls: &[Sys::Shmctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.set.new-owner-may", new_owner)
};
fn new_owner(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let refused = |cx: &mut Context| cx.expect_errno(EPERM, || sys::shm_remove(made.id));
    cx.as_user(STRANGER, STRANGER, refused)?;
    sys::shm_set(made.id, STRANGER, sys::getegid(), 0o600)?;
    cx.as_user(STRANGER, STRANGER, |cx| {
        cx.expect_ok(|| sys::shm_set(made.id, STRANGER, STRANGER, 0o640))?;
        cx.expect_ok(|| sys::shm_remove(made.id))
    })?;
    cx.expect_errno(EINVAL, || made.stat())
}

const CREATOR_MAY: Probe = Probe {
    title: "the creator may still set after giving the segment away",
    why: "a launcher without privileges that handed ownership over can still take the segment back",
    spec: &[man("shmctl(2)", "IPC_SET"), posix("shmctl")],
    calls: &[Sys::Shmctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.set.creator-may", creator_may)
};
fn creator_may(cx: &mut Context) -> Outcome {
    let made = segment_of(cx, STRANGER, 0o600)?;
    cx.as_user(STRANGER, STRANGER, |cx| {
        cx.expect_ok(|| sys::shm_set(made.id, OTHER, OTHER, 0o600))?;
        let stat = made.stat()?;
        cx.expect_eq("uid and cuid", (stat.uid, stat.cuid), (OTHER, STRANGER))?;
        cx.expect_ok(|| sys::shm_set(made.id, STRANGER, STRANGER, 0o600))?;
        sys::shm_set(made.id, OTHER, OTHER, 0o600)?;
        // Removal by the creator, which is not the owner now.
        cx.expect_ok(|| sys::shm_remove(made.id))
    })
}

const STRANGER_EPERM: Probe = Probe {
    title: "IPC_SET by neither owner nor creator fails with EPERM",
    why: "any user could open another's segment to himself",
    spec: &[man("shmctl(2)", "EPERM"), posix("shmctl")],
    calls: &[Sys::Shmctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.set.stranger-eperm", |cx| stranger(cx, 0o600, STRANGER))
};

const MODE_NO_HELP: Probe = Probe {
    title: "mode 0777 and the segment's group do not permit IPC_SET: EPERM",
    why: "write permission is for the memory; changing who owns it is the owner's alone",
    spec: &[man("shmctl(2)", "IPC_SET"), kernel("ipc/util.c", "ipcctl_obtain_check")],
    calls: &[Sys::Shmctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.set.mode-no-help", |cx| stranger(cx, 0o777, sys::getegid()))
};

/// A stranger in this group is refused, and nothing changes.
fn stranger(cx: &mut Context, mode: i32, gid: u32) -> Outcome {
    let made = segment(cx, 1, mode)?;
    cx.expect_ok(|| set_mode(made.id, mode.cast_unsigned()))?;
    expect_no_change(cx, made.id, |cx| {
        cx.as_user(STRANGER, gid, |cx| cx.expect_errno(EPERM, || sys::shm_set(made.id, STRANGER, gid, 0o666)))
    })
}

const SYS_ADMIN: Probe = Probe {
    title: "CAP_SYS_ADMIN permits IPC_SET on another's segment",
    why: "an administrator corrects the owner of a segment whose service was installed under a wrong user",
    spec: &[man("shmctl(2)", "IPC_SET"), man("capabilities(7)", "CAP_SYS_ADMIN")],
    calls: &[Sys::Shmctl],
    needs: &[Need::OtherUsers, Need::Cap(Capability::CAP_SYS_ADMIN)],
    ..Probe::new("sysv.shm.set.sys-admin-may", |cx| {
        let made = segment_of(cx, STRANGER, 0o600)?;
        cx.without_caps(&[Capability::CAP_SYS_ADMIN], |cx| {
            cx.expect_errno(EPERM, || sys::shm_set(made.id, OTHER, OTHER, 0o640))
        })?;
        cx.expect_ok(|| sys::shm_set(made.id, OTHER, OTHER, 0o640))?;
        let stat = sys::shm_stat_by(index_of(made.id)?, sys::SHM_STAT_ANY)?.1;
        cx.expect_eq("uid, gid, mode", (stat.uid, stat.gid, stat.mode), (OTHER, OTHER, 0o640))
    })
};

const IPC_OWNER_NOT: Probe = Probe {
    title: "CAP_IPC_OWNER alone does not permit IPC_SET: EPERM",
    why: "that capability is for reading and writing; a backup agent with it must not be able to take segments over",
    spec: &[
        man("shmctl(2)", "EPERM"),
        man("capabilities(7)", "CAP_IPC_OWNER"),
        kernel("ipc/util.c", "ipcctl_obtain_check"),
    ],
    calls: &[Sys::Shmctl],
    needs: &[Need::OtherUsers, Need::Cap(Capability::CAP_IPC_OWNER)],
    ..Probe::new("sysv.shm.set.ipc-owner-eperm", |cx| {
        let made = segment_of(cx, STRANGER, 0)?;
        let rest: Vec<_> = IPC_CAPS.iter().copied().filter(|cap| *cap != Capability::CAP_IPC_OWNER).collect();
        cx.without_caps(&rest, |cx| {
            cx.expect_ok(|| sys::shmat(made.id, 0))?;
            cx.expect_errno(EPERM, || sys::shm_set(made.id, OTHER, OTHER, 0o640))?;
            cx.expect_errno(EPERM, || sys::shm_remove(made.id))
        })?;
        cx.as_user(STRANGER, STRANGER, |cx| cx.expect_ok(|| sys::shm_remove(made.id)))
    })
};

/// An id that no user namespace maps is refused, and nothing changes.
fn invalid(cx: &mut Context, uid: u32, gid: u32) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    cx.expect_ok(|| set_mode(made.id, 0o600))?;
    expect_no_change(cx, made.id, |cx| cx.expect_errno(EINVAL, || sys::shm_set(made.id, uid, gid, 0o666)))
}

const INVALID_UID: Probe = Probe {
    title: "IPC_SET with a uid that does not exist here fails with EINVAL",
    why: "-1 from a failed look-up of a user name must not become the owner of the segment",
    spec: &[kernel("ipc/util.c", "ipc_update_perm")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.set.invalid-uid-einval", |cx| invalid(cx, u32::MAX, sys::getegid()))
};

const INVALID_GID: Probe = Probe {
    title: "IPC_SET with a gid that does not exist here fails with EINVAL",
    why: "-1 from a failed look-up of a group name must not become the segment's group",
    spec: &[kernel("ipc/util.c", "ipc_update_perm")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.set.invalid-gid-einval", |cx| invalid(cx, sys::geteuid(), u32::MAX))
};

const FAULT: Probe = Probe {
    title: "IPC_SET from an address that cannot be read fails with EFAULT",
    why: "a wild pointer is an error to report, not a mode of random bits",
    spec: &[man("shmctl(2)", "EFAULT")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.set.efault", fault)
};
fn fault(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    cx.expect_ok(|| set_mode(made.id, 0o600))?;
    expect_no_change(cx, made.id, |cx| {
        for address in [0, 8, usize::MAX - 7] {
            cx.expect_errno(EFAULT, || sys::raw::shmctl(made.id, IPC_SET, address))?;
        }
        Ok(())
    })
}
