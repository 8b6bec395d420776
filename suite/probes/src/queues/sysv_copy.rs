//! msgrcv(2) with `MSG_COPY`: looking into a queue without taking anything out.

use super::sysv_send::pattern;
use libc::{E2BIG, EINVAL, ENOMSG, ENOSYS};
use shmcheck_probe::sys::{self, IPC_NOWAIT, MSG_COPY, MSG_EXCEPT, MSG_NOERROR};
use shmcheck_probe::{Context, MsgQueue, Outcome, Probe, Stop, Sys, kernel, man};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] =
    &[&POSITIONS, &CHANGES_NOTHING, &BEYOND, &WITHOUT_NOWAIT, &WITH_EXCEPT, &TOO_SMALL, &TOO_SMALL_NOERROR, &LONG];

const WHY: &str = "CRIU saves queues with it when a container is checkpointed; a message lost there is lost for good";

/// A queue with three messages, where this kernel has `MSG_COPY` at all.
fn held(cx: &mut Context) -> Result<MsgQueue, Stop> {
    let queue = cx.msg_queue(0o600)?;
    for (kind, text) in [(5, b"zero"), (1, b"one."), (9, b"two.")] {
        queue.put(kind, text)?;
    }
    match copy(&queue, 64, 0, 0) {
        Err(e) if e.errno == ENOSYS => Err(Stop::skip("MSG_COPY", "msgrcv → ENOSYS: no CONFIG_CHECKPOINT_RESTORE")),
        _ => Ok(queue),
    }
}

fn copy(queue: &MsgQueue, size: usize, position: i64, flags: i32) -> sys::Result<(i64, Vec<u8>)> {
    let message = sys::msgrcv(queue.id, size, position, MSG_COPY | IPC_NOWAIT | flags)?;
    Ok((message.kind, message.text))
}

const POSITIONS: Probe = Probe {
    title: "MSG_COPY gives the message at the position in msgtyp",
    why: WHY,
    spec: &[man("msgop(2)", "MSG_COPY")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.copy.positions", positions)
};
fn positions(cx: &mut Context) -> Outcome {
    let queue = held(cx)?;
    for (position, kind, text) in [(2, 9, b"two."), (0, 5, b"zero"), (1, 1, b"one.")] {
        let got = cx.expect_ok(|| copy(&queue, 64, position, 0))?;
        cx.expect_eq(&format!("message at {position}"), got, (kind, text.to_vec()))?;
    }
    Ok(())
}

const CHANGES_NOTHING: Probe = Probe {
    title: "MSG_COPY leaves the message in the queue, all fields unchanged",
    why: "a debugger that looks at a production queue must leave no trace: no receiver, no time, no count",
    spec: &[man("msgop(2)", "MSG_COPY")],
    calls: &[Sys::Msgrcv, Sys::Msgctl],
    ..Probe::new("sysv.msg.copy.changes-nothing", changes_nothing)
};
fn changes_nothing(cx: &mut Context) -> Outcome {
    let queue = held(cx)?;
    let before = queue.stat()?;
    cx.expect_ok(|| copy(&queue, 64, 1, 0))?;
    cx.expect_eq("msqid_ds", queue.stat()?, before)?;
    cx.expect_eq("first message", queue.take(0, 0)?, (5, b"zero".to_vec()))
}

const BEYOND: Probe = Probe {
    title: "MSG_COPY behind the last message fails with ENOMSG",
    why: "a checkpoint tool reads message after message; this errno is how its loop over the queue ends",
    spec: &[man("msgop(2)", "ENOMSG")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.copy.beyond-enomsg", |cx| {
        let queue = held(cx)?;
        cx.expect_ok(|| copy(&queue, 64, 2, 0))?;
        for position in [3, 1000, -1] {
            cx.expect_errno(ENOMSG, || copy(&queue, 64, position, 0))?;
        }
        Ok(())
    })
};

const WITHOUT_NOWAIT: Probe = Probe {
    title: "MSG_COPY without IPC_NOWAIT fails with EINVAL",
    why: "until Linux 3.14 such a call slept and then copied a message nobody had asked for",
    spec: &[man("msgop(2)", "EINVAL")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.copy.without-nowait-einval", |cx| {
        let queue = held(cx)?;
        cx.expect_errno(EINVAL, || sys::msgrcv(queue.id, 64, 0, MSG_COPY))
    })
};

const WITH_EXCEPT: Probe = Probe {
    title: "MSG_COPY together with MSG_EXCEPT fails with EINVAL",
    why: "both flags give msgtyp another meaning; taken together one of them would be ignored in silence",
    spec: &[man("msgop(2)", "EINVAL")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.copy.with-except-einval", |cx| {
        let queue = held(cx)?;
        cx.expect_errno(EINVAL, || copy(&queue, 64, 1, MSG_EXCEPT))
    })
};

const TOO_SMALL: Probe = Probe {
    title: "MSG_COPY of a message that does not fit fails with E2BIG",
    why: "the saver makes its buffer larger and asks again",
    spec: &[man("msgop(2)", "E2BIG")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.copy.e2big", |cx| {
        let queue = held(cx)?;
        cx.expect_errno(E2BIG, || copy(&queue, 3, 0, 0))?;
        cx.expect_eq("msg_qnum", queue.stat()?.qnum, 3)
    })
};

const TOO_SMALL_NOERROR: Probe = Probe {
    title: "MSG_COPY does not truncate: with MSG_NOERROR it fails with EINVAL",
    why: "a checkpoint with cut messages would be restored without a word",
    spec: &[kernel("ipc/msgutil.c", "copy_msg")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.copy.noerror-einval", |cx| {
        let queue = held(cx)?;
        cx.expect_errno(EINVAL, || copy(&queue, 3, 0, MSG_NOERROR))?;
        cx.expect_eq("msg_qnum", queue.stat()?.qnum, 3)
    })
};

const LONG: Probe = Probe {
    title: "MSG_COPY copies a message of several pages whole",
    why: "the copy walks two chains of pages side by side",
    spec: &[man("msgop(2)", "MSG_COPY"), kernel("ipc/msgutil.c", "copy_msg")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.copy.long", long)
};
fn long(cx: &mut Context) -> Outcome {
    let queue = held(cx)?;
    let text = pattern(2 * sys::page_size() - 10);
    sys::msgsnd(queue.id, 4, &text, IPC_NOWAIT)?;
    let (kind, got) = cx.expect_ok(|| copy(&queue, 8192, 3, 0))?;
    cx.expect_eq("type, length", (kind, got.len()), (4, text.len()))?;
    let differs = got.iter().zip(&text).position(|(a, b)| a != b);
    cx.expect("bytes", differs.is_none(), "all equal", differs)
}
