//! msgrcv(2): which message is taken, and how much of it.

use super::sysv_send::pattern;
use libc::{E2BIG, EACCES, EFAULT, EINVAL, ENOMSG};
use shmcheck_probe::sys::{self, IPC_NOWAIT, MSG_EXCEPT, MSG_NOERROR};
use shmcheck_probe::{Context, Map, MsgQueue, Outcome, Probe, Stop, Sys, kernel, man, posix};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &TYPE_ZERO,
    &TYPE_POSITIVE,
    &TYPE_NEGATIVE,
    &TYPE_MINIMUM,
    &EXCEPT,
    &EXCEPT_ANY,
    &NOMSG_EMPTY,
    &NOMSG_TYPE,
    &E2BIG_KEEPS,
    &NOERROR_TRUNCATES,
    &NOERROR_LONG,
    &LENGTH,
    &BAD_ID,
    &SIZE_NEGATIVE,
    &EFAULT_NULL,
    &EFAULT_TEXT,
    &EACCES_WRITE_ONLY,
    &FIELDS,
    &TIMES,
    &REFUSED_CHANGES_NOTHING,
];

/// A queue that holds one message for each type named, whose text is its place.
fn holding(cx: &mut Context, kinds: &[i64]) -> Result<MsgQueue, Stop> {
    let queue = cx.msg_queue(0o600)?;
    for (place, kind) in kinds.iter().enumerate() {
        queue.put(*kind, &[place as u8])?;
    }
    Ok(queue)
}

/// The places of the messages that repeated calls take, until there are no more.
fn places(queue: &MsgQueue, kind: i64, flags: i32) -> Result<Vec<u8>, Stop> {
    let mut places = Vec::new();
    loop {
        match queue.take(kind, flags) {
            Ok((_, text)) => places.extend(text),
            Err(e) if e.errno == ENOMSG => return Ok(places),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Takes messages by `kind` from a queue that holds `kinds`: those at `wanted`, in that order, and no other.
fn takes(cx: &mut Context, kinds: &[i64], kind: i64, flags: i32, wanted: &[u8]) -> Outcome {
    let queue = holding(cx, kinds)?;
    cx.expect_eq("places of the messages taken", places(&queue, kind, flags)?, wanted.to_vec())?;
    cx.expect_eq("messages left", queue.stat()?.qnum, (kinds.len() - wanted.len()) as u64)
}

const TYPE_ZERO: Probe = Probe {
    title: "msgtyp 0 takes the first message, whatever its type",
    why: "a worker that serves everybody in turn asks for 0; sorted by type, one client starves the others",
    spec: &[man("msgop(2)", "msgrcv()"), posix("msgrcv")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.receive.type-zero", |cx| takes(cx, &[9, 1, 5, 1], 0, 0, &[0, 1, 2, 3]))
};

const TYPE_POSITIVE: Probe = Probe {
    title: "a positive msgtyp takes the first message of exactly that type",
    why: "clients wait for replies to their pid; another's reply is another's data",
    spec: &[man("msgop(2)", "msgrcv()"), posix("msgrcv")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.receive.type-positive", |cx| takes(cx, &[9, 5, 1, 5, 6, 4], 5, 0, &[1, 3]))
};

const TYPE_NEGATIVE: Probe = Probe {
    title: "a negative msgtyp takes the lowest type up to its value first",
    why: "servers implement priorities with it: urgent requests have the lower type",
    spec: &[man("msgop(2)", "msgrcv()"), posix("msgrcv")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.receive.type-negative", |cx| takes(cx, &[4, 3, 5, 2, 3, 2, 4], -4, 0, &[3, 5, 1, 4, 0, 6]))
};

const TYPE_MINIMUM: Probe = Probe {
    title: "the smallest long as msgtyp means every type, the lowest first",
    why: "its absolute value does not exist; before Linux 4.10 such a call took nothing and waited for ever",
    spec: &[kernel("ipc/msg.c", "convert_mode"), man("msgop(2)", "msgrcv()")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.receive.type-minimum", |cx| takes(cx, &[7, i64::MAX, 2], i64::MIN, 0, &[2, 0, 1]))
};

const EXCEPT: Probe = Probe {
    title: "MSG_EXCEPT takes the first message of any other type",
    why: "a worker leaves one kind of request to its specialist and takes the rest",
    spec: &[man("msgop(2)", "MSG_EXCEPT")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.receive.except", |cx| takes(cx, &[5, 1, 5, 9, 5], 5, MSG_EXCEPT, &[1, 3]))
};

const EXCEPT_ANY: Probe = Probe {
    title: "MSG_EXCEPT changes nothing about msgtyp 0 or a negative one",
    why: "the flag is documented for positive types; programs that always pass it rely on that",
    spec: &[man("msgop(2)", "MSG_EXCEPT"), kernel("ipc/msg.c", "convert_mode")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.receive.except-only-positive", |cx| {
        takes(cx, &[5, 1, 9], 0, MSG_EXCEPT, &[0, 1, 2])?;
        takes(cx, &[5, 1, 9], -5, MSG_EXCEPT, &[1, 0])
    })
};

const NOMSG_EMPTY: Probe = Probe {
    title: "IPC_NOWAIT on an empty queue fails with ENOMSG",
    why: "a program that polls tells 'nothing yet' from 'queue gone' by it",
    spec: &[man("msgop(2)", "ENOMSG"), posix("msgrcv")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.receive.empty-enomsg", |cx| {
        let queue = cx.msg_queue(0o600)?;
        for kind in [0, 1, -1] {
            cx.expect_errno(ENOMSG, || sys::msgrcv(queue.id, 8, kind, IPC_NOWAIT))?;
        }
        cx.expect_eq("msg_lrpid", queue.stat()?.lrpid, 0)
    })
};

const NOMSG_TYPE: Probe = Probe {
    title: "IPC_NOWAIT fails with ENOMSG where no message has the type",
    why: "each client looks for its own reply in a queue that is full of others'",
    spec: &[man("msgop(2)", "ENOMSG"), posix("msgrcv")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.receive.type-enomsg", |cx| {
        let queue = holding(cx, &[4, 4])?;
        for (kind, flags) in [(5, 0), (-3, 0), (4, MSG_EXCEPT)] {
            cx.expect_errno(ENOMSG, || sys::msgrcv(queue.id, 8, kind, flags | IPC_NOWAIT))?;
        }
        cx.expect_eq("msg_qnum", queue.stat()?.qnum, 2)
    })
};

const E2BIG_KEEPS: Probe = Probe {
    title: "a message that does not fit fails with E2BIG and stays in the queue",
    why: "the receiver makes its buffer larger and asks again; a message that is gone by then is lost work",
    spec: &[man("msgop(2)", "E2BIG"), posix("msgrcv")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.receive.e2big-keeps", e2big_keeps)
};
fn e2big_keeps(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    queue.put(1, b"0123456789")?;
    for size in [0, 9] {
        cx.expect_errno(E2BIG, || sys::msgrcv(queue.id, size, 0, IPC_NOWAIT))?;
    }
    let stat = queue.stat()?;
    cx.expect_eq("msg_qnum, msg_cbytes", (stat.qnum, stat.cbytes), (1, 10))?;
    let got = cx.expect_ok(|| sys::msgrcv(queue.id, 10, 0, IPC_NOWAIT))?;
    cx.expect_eq("text", got.text, b"0123456789".to_vec())
}

const NOERROR_TRUNCATES: Probe = Probe {
    title: "MSG_NOERROR cuts a message that does not fit; its rest is lost",
    why: "loggers with a fixed line length ask for it; without it one long line stops them for good",
    spec: &[man("msgop(2)", "MSG_NOERROR"), posix("msgrcv")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.receive.noerror-truncates", noerror_truncates)
};
fn noerror_truncates(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    for (size, wanted) in [(4, &b"0123"[..]), (0, b"")] {
        queue.put(6, b"0123456789")?;
        let got = cx.expect_ok(|| sys::msgrcv(queue.id, size, 0, IPC_NOWAIT | MSG_NOERROR))?;
        cx.expect_eq("type", got.kind, 6)?;
        cx.expect_eq("text", got.text, wanted.to_vec())?;
        cx.expect("bytes behind the buffer", got.rest.iter().all(|b| *b == sys::UNTOUCHED), "untouched", &got.rest)?;
        let stat = queue.stat()?;
        cx.expect_eq("msg_qnum, msg_cbytes", (stat.qnum, stat.cbytes), (0, 0))?;
    }
    Ok(())
}

const NOERROR_LONG: Probe = Probe {
    title: "MSG_NOERROR cuts a message of several pages at the byte asked for",
    why: "the cut may fall into any piece of the kernel's chain; a copy past it overwrites the caller's stack",
    spec: &[man("msgop(2)", "MSG_NOERROR"), kernel("ipc/msgutil.c", "store_msg")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.receive.noerror-long", noerror_long)
};
fn noerror_long(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    let page = sys::page_size();
    let text = pattern(2 * page - 100);
    for size in [page - 48, page - 47, page + 1] {
        sys::msgsnd(queue.id, 1, &text, IPC_NOWAIT)?;
        let got = cx.expect_ok(|| sys::msgrcv(queue.id, size, 0, IPC_NOWAIT | MSG_NOERROR))?;
        let differs = got.text.iter().zip(&text).position(|(a, b)| a != b);
        cx.expect("bytes", differs.is_none() && got.text.len() == size, format!("the first {size}"), differs)?;
        cx.expect("bytes behind the buffer", got.rest.iter().all(|b| *b == sys::UNTOUCHED), "untouched", &got.rest)?;
    }
    Ok(())
}

const LENGTH: Probe = Probe {
    title: "msgrcv returns the text's length and writes nothing behind it",
    why: "programs take the length from the return value, and keep other data behind short messages",
    spec: &[man("msgop(2)", "RETURN VALUE"), posix("msgrcv")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.receive.length", length)
};
fn length(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    queue.put(1, b"abc")?;
    let got = sys::msgrcv(queue.id, 40, 0, IPC_NOWAIT)?;
    cx.expect_eq("text", got.text, b"abc".to_vec())?;
    cx.expect("bytes behind the text", got.rest.iter().all(|b| *b == sys::UNTOUCHED), "untouched", &got.rest)
}

const BAD_ID: Probe = Probe {
    title: "msgrcv from an identifier that is none fails with EINVAL",
    why: "a worker whose queue was removed while it was busy ends here, instead of waiting for ever",
    spec: &[man("msgop(2)", "EINVAL"), posix("msgrcv")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.receive.bad-id-einval", bad_id)
};
fn bad_id(cx: &mut Context) -> Outcome {
    let mut queue = holding(cx, &[1])?;
    queue.remove()?;
    // Without IPC_NOWAIT: a kernel that waits is found by the deadline.
    for id in [-1, i32::MIN, queue.id] {
        cx.expect_errno(EINVAL, || sys::msgrcv(id, 8, 0, 0))?;
    }
    Ok(())
}

/// `msgrcv(id, address, size, 0, IPC_NOWAIT)`—the system call.
fn raw_receive(id: i32, address: usize, size: i64) -> sys::Result<i64> {
    sys::raw::numbers(Sys::Msgrcv, &[id.into(), address.cast_signed() as i64, size, 0, IPC_NOWAIT.into()])
}

const SIZE_NEGATIVE: Probe = Probe {
    title: "a negative buffer size is refused with EINVAL by the system call",
    why: "a miscalculated size must not let the kernel write without bounds",
    spec: &[man("msgop(2)", "EINVAL")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.receive.size-negative-einval", |cx| {
        let queue = holding(cx, &[1])?;
        let buffer = Map::shared_anonymous(sys::page_size())?;
        for size in [-1, i64::MIN] {
            cx.expect_errno(EINVAL, || raw_receive(queue.id, buffer.address(), size))?;
        }
        cx.expect_eq("msg_qnum", queue.stat()?.qnum, 1)
    })
};

const EFAULT_NULL: Probe = Probe {
    title: "receiving to an address without memory fails with EFAULT",
    why: "a lost pointer is an error code in the log",
    spec: &[man("msgop(2)", "EFAULT")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.receive.efault", |cx| {
        let queue = holding(cx, &[1])?;
        cx.expect_errno(EFAULT, || raw_receive(queue.id, 0, 8))
    })
};

const EFAULT_TEXT: Probe = Probe {
    title: "a text that runs into missing memory is received with EFAULT",
    why: "a buffer shorter than its stated size is found at the first long message, not by a crash later",
    spec: &[man("msgop(2)", "EFAULT"), kernel("ipc/msgutil.c", "store_msg")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.receive.efault-text", efault_text)
};
fn efault_text(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    let page = sys::page_size();
    let buffer = Map::shared_anonymous(3 * page)?;
    let text = pattern(page + 200);
    // Once the type and nothing else can be stored, once the first piece and not the second.
    for (hole, start) in [(page, page - 8), (2 * page, page - 16)] {
        sys::msgsnd(queue.id, 1, &text, IPC_NOWAIT)?;
        sys::mprotect(buffer.address() + hole, page, libc::PROT_NONE)?;
        cx.expect_errno(EFAULT, || raw_receive(queue.id, buffer.address() + start, text.len() as i64))?;
        sys::mprotect(buffer.address() + hole, page, libc::PROT_READ | libc::PROT_WRITE)?;
    }
    Ok(())
}

const EACCES_WRITE_ONLY: Probe = Probe {
    title: "receiving without read permission fails with EACCES",
    why: "clients that only post must not be able to take other clients' requests out",
    spec: &[man("msgop(2)", "EACCES"), posix("msgrcv")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.receive.eacces", eacces_write_only)
};
fn eacces_write_only(cx: &mut Context) -> Outcome {
    let queue = holding(cx, &[1, 1])?;
    cx.without_caps(&[caps::Capability::CAP_IPC_OWNER], |cx| {
        cx.expect_ok(|| queue.take(0, 0))?;
        queue.set(|to| to.mode = 0o277)?;
        cx.expect_errno(EACCES, || queue.take(0, 0))?;
        set_mode(&queue, 0o677)?;
        cx.expect_eq("msg_qnum", queue.stat()?.qnum, 1)
    })
}
/// `IPC_SET` of the mode where the mode forbids `IPC_STAT`.
fn set_mode(queue: &MsgQueue, mode: u32) -> sys::Result<()> {
    sys::msg_set(queue.id, &super::owned_stat(mode))
}

const FIELDS: Probe = Probe {
    title: "msgrcv takes the message out of the counts and notes the receiver",
    why: "operators see from these whether a worker is alive and whether the backlog shrinks",
    spec: &[man("msgop(2)", "msgrcv()"), posix("msgrcv")],
    calls: &[Sys::Msgrcv, Sys::Msgctl],
    ..Probe::new("sysv.msg.receive.fields", fields)
};
fn fields(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    for text in [&b"12345"[..], b"123"] {
        queue.put(1, text)?;
    }
    let mut wanted = queue.stat()?;
    for (count, bytes) in [(1, 3), (0, 0)] {
        let receiver = cx.elsewhere(|_| {
            queue.take(0, 0)?;
            Ok(sys::getpid())
        })?;
        let stat = queue.stat()?;
        (wanted.qnum, wanted.cbytes, wanted.lrpid, wanted.rtime) = (count, bytes, receiver, stat.rtime);
        cx.expect_eq("msqid_ds", stat, wanted)?;
    }
    Ok(())
}

const TIMES: Probe = Probe {
    title: "msgrcv sets msg_rtime to now",
    why: "an alert 'nobody reads this queue any more' compares this time with the clock",
    spec: &[man("msgop(2)", "msgrcv()"), posix("msgrcv")],
    calls: &[Sys::Msgrcv, Sys::Msgctl],
    ..Probe::new("sysv.msg.receive.time", times)
};
fn times(cx: &mut Context) -> Outcome {
    let queue = holding(cx, &[1])?;
    cx.expect_eq("msg_rtime before", queue.stat()?.rtime, 0)?;
    let before = sys::now_seconds();
    queue.take(0, 0)?;
    let (stat, after) = (queue.stat()?, sys::now_seconds());
    cx.expect("msg_rtime", (before..=after).contains(&stat.rtime), format!("{before}..={after}"), stat.rtime)
}

const REFUSED_CHANGES_NOTHING: Probe = Probe {
    title: "a refused receive changes no field of the queue",
    why: "a worker that polls in vain must not look like one that works",
    spec: &[man("msgop(2)", "msgrcv()"), posix("msgrcv")],
    calls: &[Sys::Msgrcv, Sys::Msgctl],
    ..Probe::new("sysv.msg.receive.refused-changes-nothing", refused_changes_nothing)
};
fn refused_changes_nothing(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    queue.put(2, b"0123456789")?;
    let before = queue.stat()?;
    cx.expect_errno(ENOMSG, || sys::msgrcv(queue.id, 64, 1, IPC_NOWAIT))?;
    cx.expect_errno(E2BIG, || sys::msgrcv(queue.id, 9, 0, IPC_NOWAIT))?;
    cx.expect_eq("msqid_ds", queue.stat()?, before)
}
