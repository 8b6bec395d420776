//! msgsnd(2): what is sent arrives, and what is not taken.

use libc::{EACCES, EAGAIN, EFAULT, EINVAL};
use shmcheck_probe::sys::{self, IPC_NOWAIT};
use shmcheck_probe::{Context, Map, Need, Outcome, Probe, Stop, Sys, kernel, man, posix, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &CONTENT,
    &SEGMENTS,
    &COPIES,
    &ZERO_LENGTH,
    &TYPE_ZERO,
    &TYPE_NEGATIVE,
    &TYPE_LARGEST,
    &SIZE_MSGMAX,
    &SIZE_OVER,
    &SIZE_NEGATIVE,
    &BAD_ID,
    &EFAULT_NULL,
    &EFAULT_TEXT,
    &EACCES_READ_ONLY,
    &FULL_BYTES,
    &FULL_COUNT,
    &LARGER_THAN_QUEUE,
    &REFUSED_CHANGES_NOTHING,
    &FIFO,
    &FIELDS,
    &TIMES,
];

/// Bytes that differ from place to place, so that a segment left out or repeated shows.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8 ^ (n >> 8) as u8).collect()
}

const CONTENT: Probe = Probe {
    title: "another process receives the type and the bytes that were sent",
    why: "the least that anybody asks of a queue: a billing record that arrives changed is worse than one that is lost",
    spec: &[man("msgop(2)", "DESCRIPTION"), posix("msgsnd")],
    calls: &[Sys::Msgsnd, Sys::Msgrcv],
    ..Probe::new("sysv.msg.send.content", content)
};
fn content(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    let text = pattern(61);
    queue.put(1_234_567_890_123, &text)?;
    let got = cx.elsewhere(|_| Ok(queue.take(0, 0)?))?;
    cx.expect_eq("type and text", got, (1_234_567_890_123, text))
}

const SEGMENTS: Probe = Probe {
    title: "messages longer than a page arrive whole, at every boundary",
    why: "the kernel chains pages for long messages; an off-by-one there corrupts one record in a thousand",
    spec: &[man("msgop(2)", "DESCRIPTION"), kernel("ipc/msgutil.c", "load_msg")],
    calls: &[Sys::Msgsnd, Sys::Msgrcv],
    ..Probe::new("sysv.msg.send.segments", segments)
};
fn segments(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    let (_, limits) = sys::msg_info(sys::IPC_INFO)?;
    let largest = usize::try_from(limits.msgmax).unwrap_or(8192).min(3 * sys::page_size());
    let page = sys::page_size();
    // The first piece shares its page with a header of 48 bytes, each further one with a pointer.
    let sizes = [1, 8, page - 49, page - 48, page - 47, page, page + 1, 2 * page - 57, 2 * page - 56, 2 * page - 55];
    for size in sizes.into_iter().filter(|size| *size < largest).chain([largest]) {
        let text = pattern(size);
        sys::msgsnd(queue.id, 1, &text, IPC_NOWAIT)?;
        let got = sys::msgrcv(queue.id, size, 0, IPC_NOWAIT)?;
        cx.expect_eq("length", got.text.len(), size)?;
        let differs = got.text.iter().zip(&text).position(|(a, b)| a != b);
        cx.expect(&format!("bytes of a message of {size}"), differs.is_none(), "all equal", differs)?;
    }
    Ok(())
}

const COPIES: Probe = Probe {
    title: "msgsnd copies: the sender's buffer is free when it returns",
    why: "senders fill the same buffer again in the next round of their loop",
    spec: &[man("msgop(2)", "msgsnd()")],
    calls: &[Sys::Msgsnd, Sys::Msgrcv],
    ..Probe::new("sysv.msg.send.copies", copies)
};
fn copies(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    let buffer = Map::shared_anonymous(sys::page_size())?;
    buffer.write_all(0, &1_i64.to_ne_bytes());
    for text in [b"first.", b"second"] {
        buffer.write_all(8, text);
        raw_send(queue.id, buffer.address(), 6)?;
    }
    buffer.write_all(8, b"third.");
    cx.expect_eq("first message", queue.take(0, 0)?.1, b"first.".to_vec())?;
    cx.expect_eq("second message", queue.take(0, 0)?.1, b"second".to_vec())
}

/// `msgsnd(id, address, size, IPC_NOWAIT)`—the system call.
fn raw_send(id: i32, address: usize, size: i64) -> sys::Result<i64> {
    sys::raw::numbers(Sys::Msgsnd, &[id.into(), address.cast_signed() as i64, size, IPC_NOWAIT.into()])
}

const ZERO_LENGTH: Probe = Probe {
    title: "a message without text is a message: it has a type and is counted",
    why: "programs send bare types as events, without a byte of text; a refusal would silence them",
    spec: &[man("msgop(2)", "DESCRIPTION")],
    calls: &[Sys::Msgsnd, Sys::Msgrcv],
    ..Probe::new("sysv.msg.send.zero-length", zero_length)
};
fn zero_length(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    cx.expect_ok(|| queue.put(9, b""))?;
    let stat = queue.stat()?;
    cx.expect_eq("msg_qnum, msg_cbytes", (stat.qnum, stat.cbytes), (1, 0))?;
    cx.expect_eq("type and text", queue.take(0, 0)?, (9, vec![]))
}

const TYPE_ZERO: Probe = Probe {
    title: "a message of type 0 is refused with EINVAL",
    why: "type 0 means 'any' to the receiver; programs that forget to set it must hear of it",
    spec: &[man("msgop(2)", "EINVAL"), posix("msgsnd")],
    calls: &[Sys::Msgsnd],
    ..Probe::new("sysv.msg.send.type-zero-einval", |cx| type_refused(cx, 0))
};
const TYPE_NEGATIVE: Probe = Probe {
    title: "a message of negative type is refused with EINVAL",
    why: "a negative type means 'up to' to the receiver: such a message could never be asked for",
    spec: &[man("msgop(2)", "EINVAL"), posix("msgsnd")],
    calls: &[Sys::Msgsnd],
    ..Probe::new("sysv.msg.send.type-negative-einval", |cx| {
        type_refused(cx, -1)?;
        type_refused(cx, i64::MIN)
    })
};
fn type_refused(cx: &mut Context, kind: i64) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    queue.put(1, b"good")?;
    cx.expect_errno(EINVAL, || queue.put(kind, b"bad"))?;
    cx.expect_eq("msg_qnum", queue.stat()?.qnum, 1)
}

const TYPE_LARGEST: Probe = Probe {
    title: "the type is a whole long: its largest value arrives",
    why: "servers put a client's pid or a 64-bit token into the type",
    spec: &[man("msgop(2)", "DESCRIPTION")],
    calls: &[Sys::Msgsnd, Sys::Msgrcv],
    ..Probe::new("sysv.msg.send.type-largest", type_largest)
};
fn type_largest(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    cx.expect_ok(|| queue.put(i64::MAX, b"x"))?;
    cx.expect_eq("type", queue.take(i64::MAX, 0)?.0, i64::MAX)
}

const SIZE_MSGMAX: Probe = Probe {
    title: "a message of exactly kernel.msgmax bytes is taken",
    why: "programs split their data into pieces of the size IPC_INFO names",
    spec: &[man("msgop(2)", "NOTES")],
    calls: &[Sys::Msgsnd],
    needs: &[Need::Path("/proc/sys/kernel/msgmax")],
    ..Probe::new("sysv.msg.send.size-msgmax", |cx| {
        let (queue, limit) = limited(cx)?;
        cx.expect_ok(|| sys::msgsnd(queue.id, 1, &vec![7; limit], IPC_NOWAIT))?;
        cx.expect_eq("msg_cbytes", queue.stat()?.cbytes, limit as u64)
    })
};
const SIZE_OVER: Probe = Probe {
    title: "a message of one byte more than kernel.msgmax fails with EINVAL",
    why: "a sender that is not told would wait for ever or lose the end of its record",
    fix: "sysctl kernel.msgmax, in the container's namespace: docker run --sysctl kernel.msgmax=…",
    spec: &[man("msgop(2)", "EINVAL"), posix("msgsnd")],
    calls: &[Sys::Msgsnd],
    needs: &[Need::Path("/proc/sys/kernel/msgmax")],
    ..Probe::new("sysv.msg.send.size-over-einval", |cx| {
        let (queue, limit) = limited(cx)?;
        cx.expect_errno(EINVAL, || sys::msgsnd(queue.id, 1, &vec![7; limit + 1], IPC_NOWAIT))?;
        cx.expect_eq("msg_qnum", queue.stat()?.qnum, 0)
    })
};
/// A queue and the largest message it should take.
fn limited(cx: &mut Context) -> Result<(shmcheck_probe::MsgQueue, usize), Stop> {
    let queue = cx.msg_queue(0o600)?;
    let limit: usize = procfs::sysctl_number("kernel/msgmax")?;
    // A machine may have a limit that is larger than any queue, or memory: then the claim cannot be tried.
    let room = usize::try_from(queue.stat()?.qbytes).unwrap_or(usize::MAX).min(1 << 20);
    if limit > room {
        return Err(Stop::skip(format!("kernel.msgmax up to {room}"), format!("kernel.msgmax is {limit}")));
    }
    Ok((queue, limit))
}

const SIZE_NEGATIVE: Probe = Probe {
    title: "a negative message size is refused with EINVAL by the system call",
    why: "a computed length that went below zero must not be taken for a very large one",
    spec: &[man("msgop(2)", "EINVAL")],
    calls: &[Sys::Msgsnd],
    ..Probe::new("sysv.msg.send.size-negative-einval", size_negative)
};
fn size_negative(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    let buffer = Map::shared_anonymous(sys::page_size())?;
    buffer.write_all(0, &1_i64.to_ne_bytes());
    cx.expect_ok(|| raw_send(queue.id, buffer.address(), 1))?;
    for size in [-1, i64::MIN] {
        cx.expect_errno(EINVAL, || raw_send(queue.id, buffer.address(), size))?;
    }
    cx.expect_eq("msg_qnum", queue.stat()?.qnum, 1)
}

const BAD_ID: Probe = Probe {
    title: "msgsnd to an identifier that is none fails with EINVAL",
    why: "a program that never checked msgget passes −1 on; a removed queue's number is as dead",
    spec: &[man("msgop(2)", "EINVAL"), posix("msgsnd")],
    calls: &[Sys::Msgsnd],
    ..Probe::new("sysv.msg.send.bad-id-einval", bad_id)
};
fn bad_id(cx: &mut Context) -> Outcome {
    let mut queue = cx.msg_queue(0o600)?;
    cx.expect_ok(|| queue.put(1, b"x"))?;
    queue.remove()?;
    for id in [-1, i32::MIN, queue.id] {
        cx.expect_errno(EINVAL, || sys::msgsnd(id, 1, b"x", IPC_NOWAIT))?;
    }
    Ok(())
}

const EFAULT_NULL: Probe = Probe {
    title: "a message at an address without memory fails with EFAULT",
    why: "a lost pointer is an error code in the log, not a crash inside the kernel's copy",
    spec: &[man("msgop(2)", "EFAULT")],
    calls: &[Sys::Msgsnd],
    ..Probe::new("sysv.msg.send.efault", efault_null)
};
fn efault_null(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    let gone = Map::shared_anonymous(sys::page_size())?;
    let address = gone.address();
    gone.close()?;
    for address in [0, address] {
        cx.expect_errno(EFAULT, || raw_send(queue.id, address, 1))?;
    }
    cx.expect_eq("msg_qnum", queue.stat()?.qnum, 0)
}

const EFAULT_TEXT: Probe = Probe {
    title: "a text that runs into missing memory fails with EFAULT, nothing sent",
    why: "a length that is too large must not send the half that could be read",
    spec: &[man("msgop(2)", "EFAULT"), kernel("ipc/msgutil.c", "load_msg")],
    calls: &[Sys::Msgsnd],
    ..Probe::new("sysv.msg.send.efault-text", efault_text)
};
fn efault_text(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    let page = sys::page_size();
    let buffer = Map::shared_anonymous(3 * page)?;
    buffer.write_all(0, &1_i64.to_ne_bytes());
    // The type lies at the end of one page, the text in the next, once with its first piece and once with a later one.
    for (hole, start) in [(page, page - 8), (2 * page, page - 16)] {
        sys::mprotect(buffer.address() + hole, page, libc::PROT_NONE)?;
        buffer.write_all(start, &1_i64.to_ne_bytes());
        cx.expect_errno(EFAULT, || raw_send(queue.id, buffer.address() + start, (page + 100) as i64))?;
        sys::mprotect(buffer.address() + hole, page, libc::PROT_READ | libc::PROT_WRITE)?;
    }
    cx.expect_eq("msg_qnum, msg_lspid", (queue.stat()?.qnum, queue.stat()?.lspid), (0, 0))
}

const EACCES_READ_ONLY: Probe = Probe {
    title: "sending without write permission fails with EACCES",
    why: "a monitor that may only read must not be able to inject work",
    spec: &[man("msgop(2)", "EACCES"), posix("msgsnd")],
    calls: &[Sys::Msgsnd],
    ..Probe::new("sysv.msg.send.eacces", eacces_read_only)
};
fn eacces_read_only(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    cx.without_caps(&[caps::Capability::CAP_IPC_OWNER], |cx| {
        cx.expect_ok(|| queue.put(1, b"x"))?;
        queue.set(|to| to.mode = 0o477)?;
        cx.expect_errno(EACCES, || queue.put(1, b"x"))?;
        cx.expect_eq("msg_qnum", queue.stat()?.qnum, 1)
    })
}

const FULL_BYTES: Probe = Probe {
    title: "a queue takes bytes up to msg_qbytes exactly; then EAGAIN",
    why: "producers rely on the brake: a queue that grows without limit eats kernel memory",
    spec: &[man("msgop(2)", "EAGAIN"), posix("msgsnd")],
    calls: &[Sys::Msgsnd, Sys::Msgctl],
    ..Probe::new("sysv.msg.send.full-bytes-eagain", full_bytes)
};
fn full_bytes(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    queue.set(|to| to.qbytes = 100)?;
    queue.put(1, &[1; 60])?;
    cx.expect_errno(EAGAIN, || queue.put(1, &[2; 41]))?;
    cx.expect_ok(|| queue.put(1, &[3; 40]))?;
    cx.expect_errno(EAGAIN, || queue.put(1, &[4; 1]))?;
    // A message without text needs no byte.
    cx.expect_ok(|| queue.put(1, &[]))?;
    let stat = queue.stat()?;
    cx.expect_eq("msg_qnum, msg_cbytes", (stat.qnum, stat.cbytes), (3, 100))
}

const FULL_COUNT: Probe = Probe {
    title: "a queue takes no more messages than msg_qbytes, even empty ones",
    why: "without this second limit a flood of empty messages takes all kernel memory",
    spec: &[man("msgop(2)", "EAGAIN"), man("msgop(2)", "msgsnd()")],
    calls: &[Sys::Msgsnd, Sys::Msgctl],
    ..Probe::new("sysv.msg.send.full-count-eagain", full_count)
};
fn full_count(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    queue.set(|to| to.qbytes = 3)?;
    for _ in 0..3 {
        cx.expect_ok(|| queue.put(1, b""))?;
    }
    cx.expect_errno(EAGAIN, || queue.put(1, b""))?;
    cx.expect_eq("msg_qnum", queue.stat()?.qnum, 3)
}

const LARGER_THAN_QUEUE: Probe = Probe {
    title: "a message larger than the whole queue waits: EAGAIN, not EINVAL",
    why: "a queue that its owner made too small hangs such a sender for ever; IPC_NOWAIT shows it",
    spec: &[man("msgop(2)", "EAGAIN"), kernel("ipc/msg.c", "msg_fits_inqueue")],
    calls: &[Sys::Msgsnd, Sys::Msgctl],
    ..Probe::new("sysv.msg.send.larger-than-queue", |cx| {
        let queue = cx.msg_queue(0o600)?;
        queue.set(|to| to.qbytes = 10)?;
        cx.expect_errno(EAGAIN, || queue.put(1, &[7; 11]))?;
        cx.expect_ok(|| queue.put(1, &[7; 10]))
    })
};

const REFUSED_CHANGES_NOTHING: Probe = Probe {
    title: "a refused send changes no field of the queue",
    why: "a producer that only knocks must not look like one that delivers",
    spec: &[man("msgop(2)", "msgsnd()"), posix("msgsnd")],
    calls: &[Sys::Msgsnd, Sys::Msgctl],
    ..Probe::new("sysv.msg.send.refused-changes-nothing", |cx| {
        let queue = cx.msg_queue(0o600)?;
        queue.set(|to| to.qbytes = 10)?;
        let before = queue.stat()?;
        cx.expect_errno(EAGAIN, || queue.put(1, &[7; 11]))?;
        cx.expect_errno(EINVAL, || queue.put(0, b"x"))?;
        cx.expect_errno(EFAULT, || raw_send(queue.id, 0, 1))?;
        cx.expect_eq("msqid_ds", queue.stat()?, before)
    })
};

const FIFO: Probe = Probe {
    title: "messages of one type leave the queue in the order they came",
    why: "a debit that overtakes its credit bounces",
    spec: &[man("msgop(2)", "DESCRIPTION"), posix("msgrcv")],
    calls: &[Sys::Msgsnd, Sys::Msgrcv],
    ..Probe::new("sysv.msg.send.fifo", fifo)
};
fn fifo(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    for n in 0..20 {
        queue.put(1 + i64::from(n % 3), &[n])?;
    }
    let mut got = Vec::new();
    for kind in [2, 1, 3] {
        while let Ok((_, text)) = queue.take(kind, 0) {
            got.extend(text);
        }
    }
    let wanted = [1, 0, 2].into_iter().flat_map(|rest| (0..20).filter(move |n| n % 3 == rest)).collect::<Vec<u8>>();
    cx.expect_eq("order by type", got, wanted)
}

const FIELDS: Probe = Probe {
    title: "msgsnd counts the message and its bytes and notes the sender",
    why: "ipcs -q and every monitor read the backlog and the last sender from these",
    spec: &[man("msgop(2)", "msgsnd()"), posix("msgsnd")],
    calls: &[Sys::Msgsnd, Sys::Msgctl],
    ..Probe::new("sysv.msg.send.fields", fields)
};
fn fields(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    let mut wanted = queue.stat()?;
    for (count, bytes) in [(1, 5), (2, 10)] {
        let sender = cx.elsewhere(|_| {
            queue.put(2, b"12345")?;
            Ok(sys::getpid())
        })?;
        let stat = queue.stat()?;
        (wanted.qnum, wanted.cbytes, wanted.lspid, wanted.stime) = (count, bytes, sender, stat.stime);
        cx.expect_eq("msqid_ds", stat, wanted)?;
    }
    Ok(())
}

const TIMES: Probe = Probe {
    title: "msgsnd sets msg_stime to now",
    why: "a watchdog calls a producer dead when its last message is too old",
    spec: &[man("msgop(2)", "msgsnd()"), posix("msgsnd")],
    calls: &[Sys::Msgsnd, Sys::Msgctl],
    ..Probe::new("sysv.msg.send.time", times)
};
fn times(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    let before = sys::now_seconds();
    queue.put(1, b"x")?;
    let stat = queue.stat()?;
    let after = sys::now_seconds();
    cx.expect("msg_stime", (before..=after).contains(&stat.stime), format!("{before}..={after}"), stat.stime)?;
    cx.expect_eq("msg_rtime", stat.rtime, 0)
}
