//! Permissions of a System V queue: which of the nine mode bits counts for whom.

use caps::Capability;
use libc::EACCES;
use shmcheck_probe::{Context, Need, Outcome, Probe, Sys, doc, kernel, man, sys};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] =
    &[&OWNER_READ, &OWNER_WRITE, &GROUP_READ, &GROUP_WRITE, &OTHER_READ, &OTHER_WRITE, &FIRST_CLASS, &CAP_IPC_OWNER];

/// A process's relation to the queue, which belongs to user 1 and group 1.
#[derive(Clone, Copy)]
enum Class {
    Owner,
    Group,
    Other,
}

impl Class {
    /// User and group of a process of this class, and the place of its three bits.
    const fn parts(self) -> (u32, u32, u32) {
        match self {
            Self::Owner => (1, 65534, 6),
            Self::Group => (65534, 1, 3),
            Self::Other => (65534, 65534, 0),
        }
    }
}

/// Of the nine bits, exactly the one of this class and kind lets it through.
fn only_its_bit(cx: &mut Context, class: Class, write: bool) -> Outcome {
    let (uid, gid, place) = class.parts();
    let own = if write { 2 } else { 4 } << place;
    let queue = cx.msg_queue(0o600)?;
    queue.put(1, b"something to read")?;
    // A process for all nine, which says when it is done with one; root remains the creator and changes the mode.
    let (ready, done) = (cx.gate()?, cx.gate()?);
    let id = queue.id;
    let peer = cx.fork(|cx| {
        cx.as_user(uid, gid, |cx| {
            let mut through = Vec::new();
            for bit in (0..9).map(|n| 1_u32 << n) {
                ready.pass()?;
                let tried = if write { sys::msgsnd(id, 1, b"x", sys::IPC_NOWAIT) } else { sys::msg_stat(id).map(drop) };
                match tried {
                    Ok(()) => through.push(bit),
                    Err(e) => cx.expect_eq("errno of a refused call", e.name(), sys::errno_name(EACCES))?,
                }
                done.open()?;
            }
            Ok(through)
        })
    })?;
    for bit in (0..9).map(|n| 1_u32 << n) {
        let (mut to, uid) = (super::owned_stat(bit), 1);
        (to.uid, to.gid) = (uid, 1);
        sys::msg_set(id, &to)?;
        ready.open()?;
        // A peer that stopped at a failed expectation opens no gate; its result says more than a closed gate.
        if done.pass().is_err() {
            break;
        }
    }
    cx.expect_eq("mode bits that let the call through", peer.join()?, vec![own])
}

const WHY_READ: &str = "reports of who read whose messages start with a bit that counted for the wrong class";
const WHY_WRITE: &str = "a program that may write where it should not can order anything in another's name";

const OWNER_READ: Probe = Probe {
    title: "the owner reads by mode bit 0400 alone",
    why: WHY_READ,
    spec: &[man("msgctl(2)", "EACCES"), man("msgctl(2)", "DESCRIPTION")],
    calls: &[Sys::Msgctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.msg.perm.owner-read", |cx| only_its_bit(cx, Class::Owner, false))
};
const OWNER_WRITE: Probe = Probe {
    title: "the owner writes by mode bit 0200 alone",
    why: WHY_WRITE,
    spec: &[man("msgop(2)", "EACCES"), man("msgctl(2)", "DESCRIPTION")],
    calls: &[Sys::Msgsnd],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.msg.perm.owner-write", |cx| only_its_bit(cx, Class::Owner, true))
};
const GROUP_READ: Probe = Probe {
    title: "the group reads by mode bit 0040 alone",
    why: WHY_READ,
    spec: &[man("msgctl(2)", "EACCES"), man("msgctl(2)", "DESCRIPTION")],
    calls: &[Sys::Msgctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.msg.perm.group-read", |cx| only_its_bit(cx, Class::Group, false))
};
const GROUP_WRITE: Probe = Probe {
    title: "the group writes by mode bit 0020 alone",
    why: WHY_WRITE,
    spec: &[man("msgop(2)", "EACCES"), man("msgctl(2)", "DESCRIPTION")],
    calls: &[Sys::Msgsnd],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.msg.perm.group-write", |cx| only_its_bit(cx, Class::Group, true))
};
const OTHER_READ: Probe = Probe {
    title: "others read by mode bit 0004 alone",
    why: WHY_READ,
    spec: &[man("msgctl(2)", "EACCES"), man("msgctl(2)", "DESCRIPTION")],
    calls: &[Sys::Msgctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.msg.perm.other-read", |cx| only_its_bit(cx, Class::Other, false))
};
const OTHER_WRITE: Probe = Probe {
    title: "others write by mode bit 0002 alone",
    why: WHY_WRITE,
    spec: &[man("msgop(2)", "EACCES"), man("msgctl(2)", "DESCRIPTION")],
    calls: &[Sys::Msgsnd],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.msg.perm.other-write", |cx| only_its_bit(cx, Class::Other, true))
};

const FIRST_CLASS: Probe = Probe {
    title: "the owner's bits decide for the owner, though others have more",
    why: "mode 0077 shuts the owner out on purpose; falling through to the others' bits lets him in again",
    spec: &[doc("sysvipc(7)", "Resource access permissions"), kernel("ipc/util.c", "ipcperms")],
    calls: &[Sys::Msgsnd],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.msg.perm.first-class-decides", |cx| {
        let queue = cx.msg_queue(0o600)?;
        queue.set(|to| (to.uid, to.gid, to.mode) = (1, 1, 0o077))?;
        cx.as_user(65534, 65534, |cx| cx.expect_ok(|| queue.put(1, b"x")))?;
        cx.as_user(1, 65534, |cx| cx.expect_errno(EACCES, || queue.put(1, b"x")))?;
        queue_mode(&queue, 0o707)?;
        cx.as_user(65534, 1, |cx| cx.expect_errno(EACCES, || queue.put(1, b"x")))
    })
};
/// Gives the queue to user and group 1 with this mode, without reading it.
fn queue_mode(queue: &shmcheck_probe::MsgQueue, mode: u32) -> sys::Result<()> {
    let mut to = super::owned_stat(mode);
    (to.uid, to.gid) = (1, 1);
    sys::msg_set(queue.id, &to)
}

const CAP_IPC_OWNER: Probe = Probe {
    title: "CAP_IPC_OWNER reads and writes a queue of mode 0",
    why: "backup and checkpoint tools run with this capability and must get at every queue",
    varies: "root in a default container does not have the capability and is refused",
    spec: &[man("msgop(2)", "EACCES"), kernel("ipc/util.c", "ipcperms")],
    calls: &[Sys::Msgget, Sys::Msgsnd, Sys::Msgrcv, Sys::Msgctl],
    needs: &[Need::Cap(Capability::CAP_IPC_OWNER)],
    ..Probe::new("sysv.msg.perm.cap-ipc-owner", |cx| {
        let queue = cx.msg_queue(0)?;
        cx.expect_ok(|| queue.put(1, b"x"))?;
        cx.expect_ok(|| queue.stat())?;
        cx.expect_ok(|| sys::msgget(queue.key, 0o666))?;
        cx.expect_ok(|| queue.take(0, 0))?;
        cx.without_caps(&[Capability::CAP_IPC_OWNER], |cx| {
            cx.expect_errno(EACCES, || queue.put(1, b"x"))?;
            cx.expect_errno(EACCES, || sys::msgget(queue.key, 0o400))
        })
    })
};
