//! mq_send(3), mq_timedsend(3).

use libc::{EAGAIN, EBADF, EFAULT, EINTR, EINVAL, EMSGSIZE, ETIMEDOUT, O_NONBLOCK, O_RDONLY, O_WRONLY, SA_RESTART};
use shmcheck_probe::guard_queue::SMALL_MQ;
use shmcheck_probe::sys::{self, MQ_PRIO_MAX, MqAttr};
use shmcheck_probe::{Context, MqQueue, Outcome, Peer, Probe, Stop, Sys, doc, kernel, man, posix};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &CONTENT,
    &LONG,
    &ZERO_LENGTH,
    &PRIORITY_MAX,
    &PRIORITY_OVER,
    &MSGSIZE,
    &OVERSIZE,
    &READ_ONLY,
    &BAD_FD,
    &EFAULT_TEXT,
    &FULL_EAGAIN,
    &FULL_WAITS,
    &WAITERS_TURNS,
    &WAITER_PRIORITY,
    &TIMEOUT,
    &TIMEOUT_PAST,
    &TIMEOUT_UNUSED,
    &TIMEOUT_INVALID,
    &TIMEOUT_EFAULT,
    &FULL_EINTR,
    &FULL_RESTART,
];

/// Times that no clock has: mq_send(3), mq_receive(3).
pub(super) const INVALID_TIMES: [(i64, i64); 3] = [(-1, 0), (1, -1), (1, 1_000_000_000)];

/// The real-time clock in `millis` milliseconds: seconds and nanoseconds.
pub(super) fn after(millis: i64) -> (i64, i64) {
    let (seconds, nanoseconds) = sys::clock(libc::CLOCK_REALTIME);
    let nanoseconds = nanoseconds + millis * 1_000_000;
    (seconds + nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000))
}

/// A queue that is full: as many messages of priority 5 as it may hold.
pub(super) fn full(cx: &mut Context, flags: i32) -> Result<MqQueue, Stop> {
    let queue = cx.mq(flags)?;
    for n in 0..SMALL_MQ.maxmsg {
        queue.send(&[n as u8], 5)?;
    }
    Ok(queue)
}

/// A peer that sleeps in `mq_send`; its value is the errno.
fn sender(cx: &mut Context, fd: i32, text: &[u8], priority: u32) -> Result<Peer<i32>, Stop> {
    let peer = cx.fork(|_| Ok(sys::mq_send(fd, text, priority).err().map_or(0, |e| e.errno)))?;
    cx.until_sleeping_in(peer.pid(), &[Sys::MqTimedsend])?;
    Ok(peer)
}

const CONTENT: Probe = Probe {
    title: "another process receives the bytes and the priority that were sent",
    why: "the least that anybody asks of a queue: a command for a drive that arrives changed moves the wrong way",
    spec: &[man("mq_send(3)", "DESCRIPTION"), posix("mq_send")],
    calls: &[Sys::MqTimedsend, Sys::MqTimedreceive],
    ..Probe::new("posix.mq.send.content", |cx| {
        let queue = cx.mq(0)?;
        let text = super::sysv_send::pattern(61);
        queue.send(&text, 17)?;
        let got = cx.elsewhere(|_| Ok(queue.receive()?))?;
        cx.expect_eq("text, priority", got, (text, 17))
    })
};

const LONG: Probe = Probe {
    title: "POSIX messages longer than a page arrive whole, at every boundary",
    why: "the kernel chains pages for long messages; an off-by-one there corrupts one record in a thousand",
    spec: &[man("mq_send(3)", "DESCRIPTION"), kernel("ipc/msgutil.c", "load_msg")],
    calls: &[Sys::MqTimedsend, Sys::MqTimedreceive],
    ..Probe::new("posix.mq.send.long", |cx| {
        let queue = cx.mq_with(0, 0o600, &MqAttr::new(1, 8192))?;
        for size in [1, 4047, 4048, 4049, 4096, 8136, 8137, 8192] {
            let text = super::sysv_send::pattern(size);
            queue.send(&text, 0)?;
            let (got, _) = queue.receive()?;
            cx.expect_eq("length", got.len(), size)?;
            let differs = got.iter().zip(&text).position(|(a, b)| a != b);
            cx.expect(&format!("bytes of a message of {size}"), differs.is_none(), "all equal", differs)?;
        }
        Ok(())
    })
};

const ZERO_LENGTH: Probe = Probe {
    title: "a message without text is a message: it has a priority and is counted",
    why: "programs send bare priorities as events, without a byte of text; a refusal would silence them",
    spec: &[man("mq_send(3)", "DESCRIPTION"), posix("mq_send")],
    calls: &[Sys::MqTimedsend],
    ..Probe::new("posix.mq.send.zero-length", |cx| {
        let queue = cx.mq(0)?;
        cx.expect_ok(|| queue.send(b"", 9))?;
        cx.expect_eq("mq_curmsgs", queue.attr()?.curmsgs, 1)?;
        cx.expect_eq("text, priority", queue.receive()?, (vec![], 9))
    })
};

const PRIORITY_MAX: Probe = Probe {
    title: "priorities go up to sysconf(_SC_MQ_PRIO_MAX) − 1, which is 32767",
    why: "programs map deadlines onto the whole range of priorities; the last one must still be taken",
    spec: &[doc("mq_overview(7)", "DESCRIPTION"), posix("mq_send")],
    calls: &[Sys::MqTimedsend],
    ..Probe::new("posix.mq.send.priority-max", |cx| {
        cx.expect_eq("sysconf(_SC_MQ_PRIO_MAX)", sys::mq_prio_max(), MQ_PRIO_MAX.into())?;
        let queue = cx.mq(0)?;
        cx.expect_ok(|| queue.send(b"x", MQ_PRIO_MAX - 1))?;
        cx.expect_eq("priority", queue.receive()?.1, MQ_PRIO_MAX - 1)
    })
};

const PRIORITY_OVER: Probe = Probe {
    title: "a priority of MQ_PRIO_MAX or more fails with EINVAL, nothing sent",
    why: "a negative number becomes a huge unsigned one; it must not overtake everything",
    spec: &[posix("mq_send"), kernel("ipc/mqueue.c", "do_mq_timedsend")],
    calls: &[Sys::MqTimedsend],
    ..Probe::new("posix.mq.send.priority-over", |cx| {
        let queue = cx.mq(0)?;
        for priority in [MQ_PRIO_MAX, u32::MAX] {
            cx.expect_errno(EINVAL, || queue.send(b"x", priority))?;
        }
        cx.expect_eq("mq_curmsgs", queue.attr()?.curmsgs, 0)
    })
};

const MSGSIZE: Probe = Probe {
    title: "a message of exactly mq_msgsize bytes is taken",
    why: "programs send structures of the size they created the queue with",
    spec: &[man("mq_send(3)", "DESCRIPTION")],
    calls: &[Sys::MqTimedsend],
    ..Probe::new("posix.mq.send.msgsize", |cx| {
        let queue = cx.mq(0)?;
        cx.expect_ok(|| queue.send(&[7; 64], 0))?;
        cx.expect_eq("text", queue.receive()?.0, vec![7; 64])
    })
};

const OVERSIZE: Probe = Probe {
    title: "a message of one byte more than mq_msgsize fails with EMSGSIZE",
    why: "two versions of a program with different structures meet at one queue: this is the message",
    spec: &[man("mq_send(3)", "EMSGSIZE"), posix("mq_send")],
    calls: &[Sys::MqTimedsend],
    ..Probe::new("posix.mq.send.emsgsize", |cx| {
        let queue = cx.mq(0)?;
        for size in [65, 100_000] {
            cx.expect_errno(EMSGSIZE, || queue.send(&vec![7; size], 0))?;
        }
        cx.expect_eq("mq_curmsgs", queue.attr()?.curmsgs, 0)
    })
};

const READ_ONLY: Probe = Probe {
    title: "sending through a descriptor opened for reading fails with EBADF",
    why: "the receiver of a queue must not feed it by a slip",
    spec: &[man("mq_send(3)", "EBADF"), man("mq_open(3)", "DESCRIPTION"), posix("mq_send")],
    calls: &[Sys::MqTimedsend],
    ..Probe::new("posix.mq.send.read-only-ebadf", |cx| {
        let queue = cx.mq(0)?;
        let (reader, writer) = (queue.open(O_RDONLY)?, queue.open(O_WRONLY)?);
        cx.expect_ok(|| sys::mq_send(writer.as_raw_fd(), b"x", 0))?;
        cx.expect_errno(EBADF, || sys::mq_send(reader.as_raw_fd(), b"x", 0))?;
        cx.expect_eq("mq_curmsgs", queue.attr()?.curmsgs, 1)
    })
};

const BAD_FD: Probe = Probe {
    title: "sending to a number that is no queue fails with EBADF",
    why: "descriptors are recycled: a message must not land in a log file",
    spec: &[man("mq_send(3)", "EBADF"), posix("mq_send")],
    calls: &[Sys::MqTimedsend],
    ..Probe::new("posix.mq.send.ebadf", |cx| {
        let (_reading, pipe) = sys::pipe()?;
        for fd in [-1, 1_000_000, pipe.as_raw_fd()] {
            cx.expect_errno(EBADF, || sys::mq_send(fd, b"x", 0))?;
        }
        Ok(())
    })
};

const EFAULT_TEXT: Probe = Probe {
    title: "a text in missing memory fails with EFAULT, nothing sent",
    why: "a lost pointer is an error code in the log",
    spec: &[kernel("ipc/msgutil.c", "load_msg")],
    calls: &[Sys::MqTimedsend],
    ..Probe::new("posix.mq.send.efault", |cx| {
        let queue = cx.mq(0)?;
        cx.expect_errno(EFAULT, || sys::raw::numbers(Sys::MqTimedsend, &[queue.fd().into(), 0, 5, 0, 0]))?;
        cx.expect_eq("mq_curmsgs", queue.attr()?.curmsgs, 0)
    })
};

const FULL_EAGAIN: Probe = Probe {
    title: "sending to a full queue with O_NONBLOCK fails with EAGAIN",
    why: "real-time loops drop the sample instead of waiting",
    spec: &[man("mq_send(3)", "EAGAIN"), posix("mq_send")],
    calls: &[Sys::MqTimedsend],
    ..Probe::new("posix.mq.send.full-eagain", |cx| {
        let queue = full(cx, O_NONBLOCK)?;
        cx.expect_errno(EAGAIN, || queue.send(b"x", 9))?;
        cx.expect_eq("mq_curmsgs", queue.attr()?.curmsgs, SMALL_MQ.maxmsg)?;
        queue.receive()?;
        cx.expect_ok(|| queue.send(b"x", 9))
    })
};

const FULL_WAITS: Probe = Probe {
    title: "sending to a full queue sleeps until a message is taken out",
    why: "producers are slowed down by it instead of losing data",
    spec: &[man("mq_send(3)", "DESCRIPTION"), posix("mq_send")],
    calls: &[Sys::MqTimedsend, Sys::MqTimedreceive],
    ..Probe::new("posix.mq.send.full-waits", |cx| {
        let queue = full(cx, 0)?;
        let peer = sender(cx, queue.fd(), b"next", 9)?;
        cx.expect_eq("mq_curmsgs while he sleeps", queue.attr()?.curmsgs, SMALL_MQ.maxmsg)?;
        cx.expect_eq("message taken out", queue.receive()?, (vec![0], 5))?;
        cx.expect_eq("result of the sleeper", peer.join()?, 0)?;
        cx.expect_eq("mq_curmsgs", queue.attr()?.curmsgs, SMALL_MQ.maxmsg)?;
        cx.expect_eq("next message", queue.receive()?, (b"next".to_vec(), 9))
    })
};

const WAITERS_TURNS: Probe = Probe {
    title: "of sleeping senders the one who has waited longest goes first",
    why: "without turns one producer can starve behind the others",
    spec: &[posix("mq_send"), kernel("ipc/mqueue.c", "wq_add")],
    calls: &[Sys::MqTimedsend, Sys::MqTimedreceive],
    ..Probe::new("posix.mq.send.waiters-turns", |cx| {
        let queue = full(cx, 0)?;
        let (one, two) = (sender(cx, queue.fd(), b"one", 9)?, sender(cx, queue.fd(), b"two", 9)?);
        queue.receive()?;
        cx.expect_eq("result of the first", one.join()?, 0)?;
        cx.until_sleeping_in(two.pid(), &[Sys::MqTimedsend])?;
        cx.expect_eq("message", queue.receive()?.0, b"one".to_vec())?;
        cx.expect_eq("result of the second", two.join()?, 0)?;
        cx.expect_eq("message", queue.receive()?.0, b"two".to_vec())
    })
};

const WAITER_PRIORITY: Probe = Probe {
    title: "a sleeper's message takes the place of its priority, not the end",
    why: "an alarm that had to wait for room must still overtake the backlog",
    spec: &[man("mq_send(3)", "DESCRIPTION"), kernel("ipc/mqueue.c", "pipelined_receive")],
    calls: &[Sys::MqTimedsend, Sys::MqTimedreceive],
    ..Probe::new("posix.mq.send.waiter-priority", |cx| {
        // The others have priority 5.
        let queue = full(cx, 0)?;
        for (priority, place) in [(4, 3), (5, 3), (6, 0)] {
            let peer = sender(cx, queue.fd(), b"late", priority)?;
            queue.receive()?;
            cx.expect_eq("result of the sleeper", peer.join()?, 0)?;
            let mut texts = Vec::new();
            for _ in 0..SMALL_MQ.maxmsg {
                texts.push(queue.receive()?.0);
            }
            let found = texts.iter().position(|text| text == b"late").unwrap_or(texts.len());
            cx.expect_eq(&format!("place of priority {priority}"), found, place)?;
            for n in 0..SMALL_MQ.maxmsg {
                queue.send(&[n as u8], 5)?;
            }
        }
        Ok(())
    })
};

const TIMEOUT: Probe = Probe {
    title: "mq_timedsend to a full queue fails with ETIMEDOUT, not early",
    why: "retry loops compute with the time; one that comes back early turns into a busy loop",
    spec: &[man("mq_send(3)", "ETIMEDOUT"), posix("mq_timedsend")],
    calls: &[Sys::MqTimedsend],
    ..Probe::new("posix.mq.send.timeout", |cx| {
        let queue = full(cx, 0)?;
        let until = after(3);
        cx.expect_errno(ETIMEDOUT, || sys::mq_timedsend(queue.fd(), b"x", 0, until))?;
        let now = sys::clock(libc::CLOCK_REALTIME);
        cx.expect("time of return", now >= until, format!("not before {until:?}"), now)?;
        cx.expect_eq("mq_curmsgs", queue.attr()?.curmsgs, SMALL_MQ.maxmsg)
    })
};

const TIMEOUT_PAST: Probe = Probe {
    title: "mq_timedsend with a time that is over: ETIMEDOUT, no waiting",
    why: "a message that is late anyway must not hold up the next one",
    spec: &[man("mq_send(3)", "ETIMEDOUT"), man("mq_send(3)", "DESCRIPTION")],
    calls: &[Sys::MqTimedsend],
    ..Probe::new("posix.mq.send.timeout-past", |cx| {
        let queue = full(cx, 0)?;
        for until in [(0, 0), (1, 999_999_999)] {
            cx.expect_errno(ETIMEDOUT, || sys::mq_timedsend(queue.fd(), b"x", 0, until))?;
        }
        Ok(())
    })
};

const TIMEOUT_UNUSED: Probe = Probe {
    title: "where there is room, a time that is over does not matter",
    why: "'send if you can, now' is written as a time of 0",
    spec: &[posix("mq_timedsend")],
    calls: &[Sys::MqTimedsend],
    ..Probe::new("posix.mq.send.timeout-unused", |cx| {
        let queue = cx.mq(0)?;
        cx.expect_ok(|| sys::mq_timedsend(queue.fd(), b"x", 0, (0, 0)))?;
        cx.expect_eq("mq_curmsgs", queue.attr()?.curmsgs, 1)
    })
};

const TIMEOUT_INVALID: Probe = Probe {
    title: "a full queue and a time that no clock has: EINVAL",
    why: "a computed time with 10⁹ nanoseconds is the classic slip; it must not wait for ever or not at all",
    spec: &[man("mq_send(3)", "EINVAL"), posix("mq_timedsend")],
    calls: &[Sys::MqTimedsend],
    ..Probe::new("posix.mq.send.timeout-einval", |cx| {
        let queue = full(cx, 0)?;
        for until in INVALID_TIMES {
            cx.expect_errno(EINVAL, || sys::mq_timedsend(queue.fd(), b"x", 0, until))?;
        }
        Ok(())
    })
};

const TIMEOUT_EFAULT: Probe = Probe {
    title: "a time in missing memory fails with EFAULT",
    why: "a lost pointer is an error code in the log",
    spec: &[kernel("ipc/mqueue.c", "prepare_timeout")],
    calls: &[Sys::MqTimedsend, Sys::MqTimedreceive],
    ..Probe::new("posix.mq.send.timeout-efault", |cx| {
        let queue = cx.mq(0)?;
        for call in [Sys::MqTimedsend, Sys::MqTimedreceive] {
            cx.expect_errno(EFAULT, || sys::raw::numbers(call, &[queue.fd().into(), 0, 0, 0, 1]))?;
        }
        Ok(())
    })
};

const FULL_EINTR: Probe = Probe {
    title: "a signal ends the wait for room with EINTR, nothing sent",
    why: "programs stop cleanly on SIGTERM because this call returns",
    spec: &[man("mq_send(3)", "EINTR"), posix("mq_send")],
    calls: &[Sys::MqTimedsend],
    ..Probe::new("posix.mq.send.eintr", |cx| {
        let queue = full(cx, 0)?;
        let peer = cx.interrupted(0, &[Sys::MqTimedsend], |cx| cx.expect_errno(EINTR, || queue.send(b"x", 9)))?;
        peer.join()?;
        cx.expect_eq("first message", queue.receive()?, (vec![0], 5))?;
        cx.expect_eq("mq_curmsgs", queue.attr()?.curmsgs, SMALL_MQ.maxmsg - 1)
    })
};

const FULL_RESTART: Probe = Probe {
    title: "with SA_RESTART the wait for room goes on after the handler",
    why: "other than msgsnd: a program with a timer signal must not lose messages on EINTR it does not expect",
    spec: &[doc("signal(7)", "Interruption of system calls and library functions by signal handlers")],
    calls: &[Sys::MqTimedsend],
    ..Probe::new("posix.mq.send.restart", restart)
};
fn restart(cx: &mut Context) -> Outcome {
    let queue = full(cx, 0)?;
    let peer = cx.interrupted(SA_RESTART, &[Sys::MqTimedsend], |cx| cx.expect_ok(|| queue.send(b"after all", 9)))?;
    queue.receive()?;
    peer.join()?;
    cx.expect_eq("first message", queue.receive()?, (b"after all".to_vec(), 9))
}
