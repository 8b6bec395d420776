//! Permissions of a set: whose bits decide about reading and altering.

use libc::EACCES;
use shmcheck_probe::sys::{self, GETALL, GETNCNT, GETPID, GETVAL, GETZCNT, SemOp};
use shmcheck_probe::{Clause, Context, Need, Outcome, Probe, Stop, Sys, kernel, man, posix};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &OWNER_READ,
    &OWNER_ALTER,
    &CREATOR_READ,
    &CREATOR_ALTER,
    &GROUP_READ,
    &GROUP_ALTER,
    &CREATOR_GROUP_READ,
    &CREATOR_GROUP_ALTER,
    &SUPPLEMENTARY_READ,
    &SUPPLEMENTARY_ALTER,
    &OTHER_READ,
    &OTHER_ALTER,
    &COMMANDS_NEED_READ,
    &SET_COMMANDS_NEED_ALTER,
    &OP_NEEDS_ALTER,
    &ZERO_NEEDS_READ,
    &EXECUTE_MEANS_NOTHING,
    &CAPABILITY_OVERRIDES,
    &EFFECTIVE_USER,
];

const CALLS: &[Sys] = &[Sys::Semctl, Sys::Semop, Sys::Semtimedop];
const IPC_OWNER: caps::Capability = caps::Capability::CAP_IPC_OWNER;

/// Owner, group, creator and creator's group of the set in these probes, and somebody who is none of them.
const OWNER: u32 = 1;
const STRANGER: u32 = 65_534;

/// Who asks, relative to the set.
#[derive(Clone, Copy)]
enum Who {
    Owner,
    Creator,
    Group,
    CreatorGroup,
    Supplementary,
    Other,
}

/// With only the bits of its class the process passes; with all bits but those it is refused.
///
/// `bit` is 4 for reading or 2 for altering.
fn class_decides(cx: &mut Context, who: Who, bit: u16) -> Outcome {
    let set = cx.sem_set(1)?;
    // A set made by this process (its user and group are the creator's) and given to user and group 1.
    let own = (sys::geteuid(), sys::getegid());
    let shift = match who {
        Who::Owner | Who::Creator => 6,
        Who::Group | Who::CreatorGroup | Who::Supplementary => 3,
        Who::Other => 0,
    };
    let only = bit << shift;
    for (mode, passes) in [(only, true), (0o777 & !only, false)] {
        sys::sem_set(set.id, OWNER, OWNER, mode)?;
        let id = set.id;
        let ask = move |cx: &mut Context| asked(cx, id, bit, passes);
        match who {
            Who::Owner => cx.as_user(OWNER, STRANGER, ask)?,
            Who::Creator => cx.without_caps(&[IPC_OWNER], ask)?,
            Who::Group => cx.as_user(STRANGER, OWNER, ask)?,
            Who::CreatorGroup => cx.as_user(STRANGER, own.1, ask)?,
            Who::Supplementary => with_group(cx, OWNER, ask)?,
            Who::Other => cx.as_user(STRANGER, STRANGER, ask)?,
        }
    }
    Ok(())
}

/// Runs `ask` as a stranger with one supplementary group.
fn with_group(cx: &mut Context, group: u32, ask: impl FnOnce(&mut Context) -> Outcome) -> Result<(), Stop> {
    cx.elsewhere(|cx| {
        sys::setgroups(&[group])?;
        sys::setgid_all(STRANGER)?;
        sys::setuid_all(STRANGER)?;
        ask(cx)
    })
}

/// Reading (GETVAL, waiting for zero) or altering (semop, SETVAL) passes or is refused.
fn asked(cx: &mut Context, id: i32, bit: u16, passes: bool) -> Outcome {
    let calls: [&dyn Fn() -> sys::Result<()>; 2] = if bit == 4 {
        [&|| sys::semctl(id, 0, GETVAL).map(drop), &|| sys::semop(id, &[SemOp::zero(0).nowait()])]
    } else {
        [&|| sys::semop(id, &[SemOp::add(0, 1), SemOp::add(0, -1)]), &|| sys::sem_set_value(id, 0, 0)]
    };
    for call in calls {
        if passes {
            cx.expect_ok(call)?;
        } else {
            cx.expect_errno(EACCES, call)?;
        }
    }
    Ok(())
}

const CLASS_SPEC: &[Clause] =
    &[man("semctl(2)", "EACCES"), man("semop(2)", "EACCES"), kernel("ipc/util.c", "ipcperms")];

/// A probe of one class and one right; the text is all that differs.
#[track_caller]
const fn class(id: &'static str, title: &'static str, why: &'static str, run: fn(&mut Context) -> Outcome) -> Probe {
    Probe { title, why, spec: CLASS_SPEC, calls: CALLS, needs: &[Need::OtherUsers], ..Probe::new(id, run) }
}

const OWNER_READ: Probe = class(
    "sysv.sem.perm.owner-read",
    "the owner reads by the owner's bits alone",
    "a service account that owns a set checks its locks; wider bits for others must not be needed",
    |cx| class_decides(cx, Who::Owner, 4),
);
const OWNER_ALTER: Probe = class(
    "sysv.sem.perm.owner-alter",
    "the owner alters by the owner's bits alone",
    "an owner locked out by mode 0400 must stay out although group and others may write",
    |cx| class_decides(cx, Who::Owner, 2),
);
const CREATOR_READ: Probe = class(
    "sysv.sem.perm.creator-read",
    "the creator reads by the owner's bits after the set was given away",
    "an installer creates sets for a service; it still has to verify them",
    |cx| class_decides(cx, Who::Creator, 4),
);
const CREATOR_ALTER: Probe = class(
    "sysv.sem.perm.creator-alter",
    "the creator alters by the owner's bits after giving the set away",
    "the manual's rule for owners holds for creators: a launcher resets the lock of its service",
    |cx| class_decides(cx, Who::Creator, 2),
);
const GROUP_READ: Probe = class(
    "sysv.sem.perm.group-read",
    "a process of the set's group reads by the group's bits alone",
    "monitoring agents are members of the database's group, not its user",
    |cx| class_decides(cx, Who::Group, 4),
);
const GROUP_ALTER: Probe = class(
    "sysv.sem.perm.group-alter",
    "a process of the set's group alters by the group's bits alone",
    "Oracle's oinstall group shares sets of mode 0660 between accounts",
    |cx| class_decides(cx, Who::Group, 2),
);
const CREATOR_GROUP_READ: Probe = class(
    "sysv.sem.perm.creator-group-read",
    "the creator's group reads by the group's bits as well",
    "after a change of owner the installing team still looks at the set",
    |cx| class_decides(cx, Who::CreatorGroup, 4),
);
const CREATOR_GROUP_ALTER: Probe = class(
    "sysv.sem.perm.creator-group-alter",
    "the creator's group alters by the group's bits as well",
    "whoever closes a set by IPC_SET has to know that the first group keeps its rights",
    |cx| class_decides(cx, Who::CreatorGroup, 2),
);
const SUPPLEMENTARY_READ: Probe = class(
    "sysv.sem.perm.supplementary-read",
    "a supplementary group gives the group's right to read",
    "users get access to a set by usermod -aG; their primary group is another",
    |cx| class_decides(cx, Who::Supplementary, 4),
);
const SUPPLEMENTARY_ALTER: Probe = class(
    "sysv.sem.perm.supplementary-alter",
    "a supplementary group gives the group's right to alter",
    "containers with --group-add rely on it to share the host's sets",
    |cx| class_decides(cx, Who::Supplementary, 2),
);
const OTHER_READ: Probe = class(
    "sysv.sem.perm.other-read",
    "everybody else reads by the last three bits",
    "mode 0600 keeps other tenants of a machine from watching a service's locks",
    |cx| class_decides(cx, Who::Other, 4),
);
const OTHER_ALTER: Probe = class(
    "sysv.sem.perm.other-alter",
    "everybody else alters by the last three bits",
    "an unprivileged user who could release a lock of mode 0600 corrupts what it guards",
    |cx| class_decides(cx, Who::Other, 2),
);

/// The reading commands, on an index as well where the command takes one.
fn reading(id: i32) -> [(i32, sys::Result<()>); 6] {
    let [val, pid, ncnt, zcnt] = [GETVAL, GETPID, GETNCNT, GETZCNT].map(|c| (c, sys::semctl(id, 0, c).map(drop)));
    let all = (GETALL, sys::sem_values(id, 1).map(drop));
    [val, pid, ncnt, zcnt, all, (libc::IPC_STAT, sys::sem_stat(id).map(drop))]
}

const COMMANDS_NEED_READ: Probe = Probe {
    title: "every reading command is refused without the read bit: EACCES",
    why: "one forgotten check lets any user of the machine read a service's state",
    spec: &[man("semctl(2)", "EACCES"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.perm.commands-need-read", |cx| {
        let (readable, closed) = (cx.sem_set_mode(1, 0o400)?, cx.sem_set_mode(1, 0o200)?);
        cx.without_caps(&[IPC_OWNER], |cx| {
            for (command, result) in reading(readable.id) {
                cx.expect(&format!("semctl command {command}"), result.is_ok(), "success", result)?;
            }
            for (command, result) in reading(closed.id) {
                let errno = super::helpers::errno_of(result);
                cx.expect_eq(&format!("errno of semctl command {command}"), errno, EACCES)?;
            }
            Ok(())
        })
    })
};

const SET_COMMANDS_NEED_ALTER: Probe = Probe {
    title: "setting values needs the alter bit: EACCES",
    why: "a reader who could set values opens every lock",
    spec: &[man("semctl(2)", "EACCES"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.perm.set-needs-alter", |cx| {
        let (writable, closed) = (cx.sem_set_mode(1, 0o200)?, cx.sem_set_mode(1, 0o400)?);
        cx.without_caps(&[IPC_OWNER], |cx| {
            cx.expect_ok(|| writable.set(0, 1))?;
            cx.expect_ok(|| writable.set_all(&[2]))?;
            cx.expect_errno(EACCES, || closed.set(0, 1))?;
            cx.expect_errno(EACCES, || closed.set_all(&[1]))?;
            cx.expect_eq("value", closed.value(0)?, 0)
        })
    })
};

const OP_NEEDS_ALTER: Probe = Probe {
    title: "an operation that changes a value needs the alter bit: EACCES",
    why: "read-only clients watch a lock; they must not be able to take or release it",
    spec: &[man("semop(2)", "EACCES"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.perm.op-needs-alter", |cx| {
        let set = cx.sem_set_mode(1, 0o400)?;
        cx.without_caps(&[IPC_OWNER], |cx| {
            cx.expect_ok(|| set.op(&[SemOp::zero(0)]))?;
            for op in [SemOp::add(0, 1), SemOp::add(0, 1).undo(), SemOp::add(0, -1).nowait()] {
                cx.expect_errno(EACCES, || set.op(&[op]))?;
            }
            // One altering operation among others that only wait is enough.
            cx.expect_errno(EACCES, || set.op(&[SemOp::zero(0), SemOp::add(0, 1)]))?;
            cx.expect_eq("value", set.value(0)?, 0)
        })
    })
};

const ZERO_NEEDS_READ: Probe = Probe {
    title: "waiting for zero needs the read bit: EACCES",
    why: "whoever may not read a value must not find it out by waiting either",
    spec: &[man("semop(2)", "EACCES"), man("semop(2)", "DESCRIPTION")],
    calls: CALLS,
    ..Probe::new("sysv.sem.perm.zero-needs-read", |cx| {
        let set = cx.sem_set_mode(1, 0o200)?;
        cx.without_caps(&[IPC_OWNER], |cx| {
            cx.expect_ok(|| set.op(&[SemOp::add(0, 1)]))?;
            cx.expect_ok(|| set.op(&[SemOp::add(0, -1)]))?;
            cx.expect_errno(EACCES, || set.op(&[SemOp::zero(0)]))
        })
    })
};

const EXECUTE_MEANS_NOTHING: Probe = Probe {
    title: "the execute bits give no access",
    why: "a mode of 0711, copied from a directory, must stay closed to others",
    spec: &[man("semctl(2)", "ipc_perm"), man("semget(2)", "DESCRIPTION")],
    calls: CALLS,
    ..Probe::new("sysv.sem.perm.execute-bits", |cx| {
        let set = cx.sem_set_mode(1, 0o111)?;
        cx.without_caps(&[IPC_OWNER], |cx| {
            cx.expect_errno(EACCES, || set.value(0))?;
            cx.expect_errno(EACCES, || set.op(&[SemOp::add(0, 1)]))?;
            cx.expect_errno(EACCES, || set.op(&[SemOp::zero(0)]))
        })
    })
};

const CAPABILITY_OVERRIDES: Probe = Probe {
    title: "CAP_IPC_OWNER opens a set of mode 0",
    why: "backup and debugging tools of root rely on it",
    varies: "a default container has no CAP_IPC_OWNER: root there obeys the bits",
    fix: "docker run --cap-add=IPC_OWNER",
    spec: &[man("capabilities(7)", "CAP_IPC_OWNER"), man("semop(2)", "EACCES"), kernel("ipc/util.c", "ipcperms")],
    calls: CALLS,
    needs: &[Need::Cap(IPC_OWNER)],
    ..Probe::new("sysv.sem.perm.capability", |cx| {
        let set = cx.sem_set_mode(1, 0)?;
        cx.expect_ok(|| set.op(&[SemOp::add(0, 4)]))?;
        cx.expect_eq("value", cx.expect_ok(|| set.value(0))?, 4)?;
        cx.without_caps(&[IPC_OWNER], |cx| {
            cx.expect_errno(EACCES, || set.value(0))?;
            cx.expect_errno(EACCES, || set.op(&[SemOp::add(0, 1)]))
        })
    })
};

const EFFECTIVE_USER: Probe = Probe {
    title: "the effective user decides, not the real one",
    why: "a set-uid helper works on its service's set for a user who may not",
    spec: &[man("semctl(2)", "ipc_perm"), kernel("ipc/util.c", "ipcperms")],
    calls: CALLS,
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.sem.perm.effective-user", |cx| {
        let set = cx.sem_set(1)?;
        sys::sem_set(set.id, OWNER, sys::getegid(), 0o600)?;
        cx.elsewhere(|cx| {
            sys::setgroups(&[])?;
            sys::setegid(STRANGER)?;
            sys::seteuid(OWNER)?;
            cx.expect_ok(|| set.op(&[SemOp::add(0, 1)]))?;
            sys::seteuid(0)?;
            sys::seteuid(STRANGER)?;
            cx.expect_errno(EACCES, || set.op(&[SemOp::add(0, 1)]))
        })
    })
};
