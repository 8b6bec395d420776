//! mq_receive(3), mq_timedreceive(3).

use super::posix_send::{INVALID_TIMES, after};
use libc::{EAGAIN, EBADF, EFAULT, EINTR, EINVAL, EMSGSIZE, ETIMEDOUT, O_NONBLOCK, O_RDONLY, O_WRONLY, SA_RESTART};
use shmcheck_probe::sys::{self, MqAttr};
use shmcheck_probe::{Context, Map, Outcome, Peer, Probe, Stop, Sys, doc, kernel, man, posix};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &PRIORITY_ORDER,
    &FIFO,
    &PRIORITIES_MANY,
    &LENGTH,
    &NULL_PRIORITY,
    &SMALL_BUFFER,
    &WRITE_ONLY,
    &BAD_FD,
    &EFAULT_TEXT,
    &EMPTY_EAGAIN,
    &EMPTY_WAITS,
    &HANDS_OVER,
    &TURNS,
    &NICE,
    &ONCE,
    &TIMEOUT,
    &TIMEOUT_PAST,
    &TIMEOUT_UNUSED,
    &TIMEOUT_INVALID,
    &TIMEOUT_WOKEN,
    &EMPTY_EINTR,
    &EMPTY_RESTART,
];

const PRIORITY_ORDER: Probe = Probe {
    title: "the message of the highest priority is received first",
    why: "the emergency stop overtakes a thousand position reports",
    spec: &[man("mq_receive(3)", "DESCRIPTION"), man("mq_send(3)", "DESCRIPTION"), posix("mq_receive")],
    calls: &[Sys::MqTimedreceive],
    ..Probe::new("posix.mq.receive.priority-order", |cx| {
        let queue = cx.mq(0)?;
        for priority in [3, 32_767, 0, 31] {
            queue.send(&priority.to_string().into_bytes(), priority)?;
        }
        for priority in [32_767, 31, 3, 0] {
            cx.expect_eq("message", queue.receive()?, (priority.to_string().into_bytes(), priority))?;
        }
        Ok(())
    })
};

const FIFO: Probe = Probe {
    title: "messages of one priority are received in the order they were sent",
    why: "a debit that overtakes its credit bounces",
    spec: &[man("mq_send(3)", "DESCRIPTION"), man("mq_receive(3)", "DESCRIPTION"), posix("mq_receive")],
    calls: &[Sys::MqTimedreceive],
    ..Probe::new("posix.mq.receive.fifo", |cx| {
        let queue = cx.mq_with(0, 0o600, &MqAttr::new(9, 8))?;
        for n in 0..9 {
            queue.send(&[n], (n % 3).into())?;
        }
        let mut order = Vec::new();
        for _ in 0..9 {
            order.extend(queue.receive()?.0);
        }
        cx.expect_eq("order", order, vec![2, 5, 8, 1, 4, 7, 0, 3, 6])
    })
};

const PRIORITIES_MANY: Probe = Probe {
    title: "priorities that come and go in any order keep the queue sorted",
    why: "the kernel keeps a tree of priorities with one spare node; an error there shows only after many changes",
    spec: &[man("mq_receive(3)", "DESCRIPTION"), kernel("ipc/mqueue.c", "msg_insert, msg_get")],
    calls: &[Sys::MqTimedsend, Sys::MqTimedreceive],
    ..Probe::new("posix.mq.receive.priorities-many", priorities_many)
};
fn priorities_many(cx: &mut Context) -> Outcome {
    let queue = cx.mq_with(O_NONBLOCK, 0o600, &MqAttr::new(10, 8))?;
    // The model: (priority, number) in the order of receipt.
    let mut model: Vec<(u32, u8)> = Vec::new();
    let mut state = 12_345_u32;
    for number in 0..200_u8 {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let priority = state >> 16 & 7;
        if model.len() == 10 || (!model.is_empty() && state >> 24 & 3 == 0) {
            let (priority, number) = model.remove(0);
            cx.expect_eq("message", queue.receive()?, (vec![number], priority))?;
        }
        queue.send(&[number], priority)?;
        let place = model.iter().position(|(other, _)| *other < priority).unwrap_or(model.len());
        model.insert(place, (priority, number));
    }
    for (priority, number) in model {
        cx.expect_eq("message", queue.receive()?, (vec![number], priority))?;
    }
    cx.expect_errno(EAGAIN, || queue.receive())
}

const LENGTH: Probe = Probe {
    title: "mq_receive returns the text's length and writes nothing behind it",
    why: "programs take the length from the return value, and keep other data behind short messages",
    spec: &[man("mq_receive(3)", "RETURN VALUE"), posix("mq_receive")],
    calls: &[Sys::MqTimedreceive],
    ..Probe::new("posix.mq.receive.length", |cx| {
        let queue = cx.mq(0)?;
        queue.send(b"abc", 1)?;
        let mut buffer = [sys::UNTOUCHED; 100];
        cx.expect_eq("length, priority", sys::mq_receive_into(queue.fd(), &mut buffer)?, (3, 1))?;
        cx.expect_eq("text", &buffer[..3], b"abc")?;
        cx.expect("bytes behind", buffer[3..].iter().all(|b| *b == sys::UNTOUCHED), "untouched", &buffer[3..])
    })
};

const NULL_PRIORITY: Probe = Probe {
    title: "who does not want the priority passes NULL",
    why: "most programs do not ask for the priority; a store through the null pointer would end them",
    spec: &[man("mq_receive(3)", "DESCRIPTION"), posix("mq_receive")],
    calls: &[Sys::MqTimedreceive],
    ..Probe::new("posix.mq.receive.null-priority", |cx| {
        let queue = cx.mq(0)?;
        queue.send(b"abc", 1)?;
        let text = cx.expect_ok(|| sys::mq_receive_text(queue.fd(), 64))?;
        cx.expect_eq("text", text, b"abc".to_vec())
    })
};

const SMALL_BUFFER: Probe = Probe {
    title: "a buffer smaller than mq_msgsize fails with EMSGSIZE, message kept",
    why: "it is refused even where this message would fit: found in the first test, not with the first long message",
    spec: &[man("mq_receive(3)", "EMSGSIZE"), posix("mq_receive")],
    calls: &[Sys::MqTimedreceive],
    ..Probe::new("posix.mq.receive.emsgsize", |cx| {
        let queue = cx.mq(0)?;
        queue.send(b"abc", 1)?;
        for size in [0, 3, 63] {
            cx.expect_errno(EMSGSIZE, || sys::mq_receive(queue.fd(), size))?;
        }
        cx.expect_eq("mq_curmsgs", queue.attr()?.curmsgs, 1)?;
        cx.expect_eq("text", sys::mq_receive(queue.fd(), 64)?.0, b"abc".to_vec())
    })
};

const WRITE_ONLY: Probe = Probe {
    title: "receiving through a descriptor opened for writing fails with EBADF",
    why: "a client that may only post must not take others' messages out",
    spec: &[man("mq_receive(3)", "EBADF"), man("mq_open(3)", "DESCRIPTION"), posix("mq_receive")],
    calls: &[Sys::MqTimedreceive],
    ..Probe::new("posix.mq.receive.write-only-ebadf", |cx| {
        let queue = cx.mq(0)?;
        queue.send(b"abc", 1)?;
        let (writer, reader) = (queue.open(O_WRONLY)?, queue.open(O_RDONLY)?);
        cx.expect_errno(EBADF, || sys::mq_receive(writer.as_raw_fd(), 64))?;
        cx.expect_ok(|| sys::mq_receive(reader.as_raw_fd(), 64)).map(drop)
    })
};

const BAD_FD: Probe = Probe {
    title: "receiving from a number that is no queue fails with EBADF",
    why: "descriptors are recycled: data of a pipe must not be taken for a message",
    spec: &[man("mq_receive(3)", "EBADF"), posix("mq_receive")],
    calls: &[Sys::MqTimedreceive],
    ..Probe::new("posix.mq.receive.ebadf", |cx| {
        let (pipe, _writing) = sys::pipe()?;
        for fd in [-1, 1_000_000, pipe.as_raw_fd()] {
            cx.expect_errno(EBADF, || sys::mq_receive(fd, 64))?;
        }
        Ok(())
    })
};

const EFAULT_TEXT: Probe = Probe {
    title: "receiving into missing memory fails with EFAULT",
    why: "a lost pointer is an error code in the log",
    spec: &[kernel("ipc/mqueue.c", "do_mq_timedreceive")],
    calls: &[Sys::MqTimedreceive],
    ..Probe::new("posix.mq.receive.efault", |cx| {
        let queue = cx.mq(0)?;
        let room = Map::shared_anonymous(sys::page_size())?;
        let address = room.address().cast_signed() as i64;
        // Once the text has no place, once the priority.
        for (text, priority) in [(0, 0), (address, 1)] {
            queue.send(b"abc", 1)?;
            let arguments = [queue.fd().into(), text, 64, priority, 0];
            cx.expect_errno(EFAULT, || sys::raw::numbers(Sys::MqTimedreceive, &arguments))?;
        }
        Ok(())
    })
};

const EMPTY_EAGAIN: Probe = Probe {
    title: "receiving from an empty queue with O_NONBLOCK fails with EAGAIN",
    why: "event loops empty the queue until they see this errno",
    spec: &[man("mq_receive(3)", "EAGAIN"), posix("mq_receive")],
    calls: &[Sys::MqTimedreceive],
    ..Probe::new("posix.mq.receive.empty-eagain", |cx| {
        let queue = cx.mq(O_NONBLOCK)?;
        cx.expect_errno(EAGAIN, || queue.receive())?;
        queue.send(b"", 0)?;
        cx.expect_ok(|| queue.receive())?;
        cx.expect_errno(EAGAIN, || queue.receive())
    })
};

/// A peer that sleeps in `mq_receive`; its value is what it received.
fn receiver(cx: &mut Context, fd: i32, nice: i32) -> Result<Peer<(Vec<u8>, u32)>, Stop> {
    let peer = cx.fork(|cx| {
        sys::be_nice(nice);
        cx.expect_ok(|| sys::mq_receive(fd, 64))
    })?;
    cx.until_sleeping_in(peer.pid(), &[Sys::MqTimedreceive])?;
    Ok(peer)
}

const EMPTY_WAITS: Probe = Probe {
    title: "mq_receive on an empty queue sleeps until a message comes",
    why: "workers sit in this call all day; one that returned at once would burn a processor",
    spec: &[man("mq_receive(3)", "DESCRIPTION"), posix("mq_receive")],
    calls: &[Sys::MqTimedsend, Sys::MqTimedreceive],
    ..Probe::new("posix.mq.receive.empty-waits", |cx| {
        let queue = cx.mq(0)?;
        let peer = receiver(cx, queue.fd(), 0)?;
        queue.send(b"wake up", 3)?;
        cx.expect_eq("what the sleeper received", peer.join()?, (b"wake up".to_vec(), 3))
    })
};

const HANDS_OVER: Probe = Probe {
    title: "a message for a sleeping receiver is his: mq_curmsgs stays 0",
    why: "were it queued first, a third program that polls could steal it from the one who waited",
    spec: &[kernel("ipc/mqueue.c", "pipelined_send")],
    calls: &[Sys::MqTimedsend, Sys::MqTimedreceive],
    ..Probe::new("posix.mq.receive.hands-over", |cx| {
        let queue = cx.mq(O_NONBLOCK)?;
        let waiting = queue.open(O_RDONLY)?;
        let peer = receiver(cx, waiting.as_raw_fd(), 0)?;
        queue.send(b"yours", 3)?;
        // Whether or not the receiver has run yet.
        cx.expect_eq("mq_curmsgs", queue.attr()?.curmsgs, 0)?;
        cx.expect_errno(EAGAIN, || queue.receive())?;
        cx.expect_eq("what the sleeper received", peer.join()?, (b"yours".to_vec(), 3))
    })
};

/// Sends two messages to two sleepers, of whom the second is nicer by `nice.1`; who got which.
fn two_sleepers(cx: &mut Context, nice: (i32, i32), wanted: (&[u8], &[u8])) -> Outcome {
    let queue = cx.mq(0)?;
    let (one, two) = (receiver(cx, queue.fd(), nice.0)?, receiver(cx, queue.fd(), nice.1)?);
    queue.send(b"a", 0)?;
    queue.send(b"b", 0)?;
    cx.expect_eq("messages of the two sleepers", (one.join()?.0, two.join()?.0), (wanted.0.to_vec(), wanted.1.to_vec()))
}
const TURNS: Probe = Probe {
    title: "of sleeping receivers the one who has waited longest goes first",
    why: "a pool of workers shares the load by it; without turns one worker starves beside the others",
    spec: &[posix("mq_receive"), kernel("ipc/mqueue.c", "wq_add")],
    calls: &[Sys::MqTimedsend, Sys::MqTimedreceive],
    ..Probe::new("posix.mq.receive.turns", |cx| two_sleepers(cx, (0, 0), (b"a", b"b")))
};
const NICE: Probe = Probe {
    title: "of sleeping receivers the one of higher scheduling priority goes first",
    why: "the urgent thread of a control system must not queue behind the logger",
    spec: &[posix("mq_receive"), kernel("ipc/mqueue.c", "wq_add")],
    calls: &[Sys::MqTimedsend, Sys::MqTimedreceive],
    ..Probe::new("posix.mq.receive.turns-by-priority", |cx| two_sleepers(cx, (5, 0), (b"b", b"a")))
};

const ONCE: Probe = Probe {
    title: "a POSIX message is received by exactly one of two busy receivers",
    why: "an order that two workers execute is shipped twice",
    spec: &[man("mq_receive(3)", "DESCRIPTION"), posix("mq_receive")],
    calls: &[Sys::MqTimedsend, Sys::MqTimedreceive],
    ..Probe::new("posix.mq.receive.once", once)
};
fn once(cx: &mut Context) -> Outcome {
    const COUNT: u8 = 100;
    let queue = cx.mq_with(0, 0o600, &MqAttr::new(3, 8))?;
    let worker = |cx: &mut Context| {
        cx.fork(|_| {
            let mut taken = Vec::new();
            loop {
                let (text, priority) = queue.receive()?;
                if priority == 0 {
                    return Ok(taken);
                }
                taken.extend(text);
            }
        })
    };
    let workers = [worker(cx)?, worker(cx)?];
    // The queue is far too small: sender and receivers sleep and wake each other all the time.
    for n in 0..COUNT {
        queue.send(&[n], 1)?;
    }
    for _ in &workers {
        queue.send(b"", 0)?;
    }
    let mut all: Vec<u8> = Vec::new();
    for worker in workers {
        let taken: Vec<u8> = worker.join()?;
        cx.expect("order in one worker", taken.is_sorted(), "rising", &taken)?;
        all.extend(taken);
    }
    all.sort_unstable();
    cx.expect_eq("messages of both workers", all, (0..COUNT).collect())
}

const TIMEOUT: Probe = Probe {
    title: "mq_timedreceive on an empty queue fails with ETIMEDOUT, not early",
    why: "heartbeat monitors call a partner dead on this errno; early, they do so for no reason",
    spec: &[man("mq_receive(3)", "ETIMEDOUT"), posix("mq_timedreceive")],
    calls: &[Sys::MqTimedreceive],
    ..Probe::new("posix.mq.receive.timeout", |cx| {
        let queue = cx.mq(0)?;
        let until = after(3);
        cx.expect_errno(ETIMEDOUT, || sys::mq_timedreceive(queue.fd(), 64, until))?;
        let now = sys::clock(libc::CLOCK_REALTIME);
        cx.expect("time of return", now >= until, format!("not before {until:?}"), now)
    })
};

const TIMEOUT_PAST: Probe = Probe {
    title: "mq_timedreceive with a time that is over: ETIMEDOUT, no waiting",
    why: "a loop that is late catches up only if the call returns",
    spec: &[man("mq_receive(3)", "ETIMEDOUT"), man("mq_receive(3)", "DESCRIPTION")],
    calls: &[Sys::MqTimedreceive],
    ..Probe::new("posix.mq.receive.timeout-past", |cx| {
        let queue = cx.mq(0)?;
        for until in [(0, 0), (1, 999_999_999)] {
            cx.expect_errno(ETIMEDOUT, || sys::mq_timedreceive(queue.fd(), 64, until))?;
        }
        Ok(())
    })
};

const TIMEOUT_UNUSED: Probe = Probe {
    title: "where a message is there, a time that is over does not matter",
    why: "'take it if there is one' is written as a time of 0",
    spec: &[posix("mq_timedreceive")],
    calls: &[Sys::MqTimedreceive],
    ..Probe::new("posix.mq.receive.timeout-unused", |cx| {
        let queue = cx.mq(0)?;
        queue.send(b"x", 2)?;
        let got = cx.expect_ok(|| sys::mq_timedreceive(queue.fd(), 64, (0, 0)))?;
        cx.expect_eq("message", got, (b"x".to_vec(), 2))
    })
};

const TIMEOUT_INVALID: Probe = Probe {
    title: "an empty queue and a time that no clock has: EINVAL",
    why: "a computed time with 10⁹ nanoseconds is the classic slip; it must not wait for ever or not at all",
    spec: &[man("mq_receive(3)", "EINVAL"), posix("mq_timedreceive")],
    calls: &[Sys::MqTimedreceive],
    ..Probe::new("posix.mq.receive.timeout-einval", |cx| {
        let queue = cx.mq(0)?;
        for until in INVALID_TIMES {
            cx.expect_errno(EINVAL, || sys::mq_timedreceive(queue.fd(), 64, until))?;
        }
        Ok(())
    })
};

const TIMEOUT_WOKEN: Probe = Probe {
    title: "a message ends a timed wait long before its time",
    why: "a worker with a timeout of an hour reacts to the message, not to the hour",
    spec: &[man("mq_receive(3)", "DESCRIPTION"), posix("mq_timedreceive")],
    calls: &[Sys::MqTimedsend, Sys::MqTimedreceive],
    ..Probe::new("posix.mq.receive.timeout-woken", |cx| {
        let queue = cx.mq(0)?;
        let peer = cx.fork(|cx| cx.expect_ok(|| sys::mq_timedreceive(queue.fd(), 64, after(3_600_000))))?;
        cx.until_sleeping_in(peer.pid(), &[Sys::MqTimedreceive])?;
        queue.send(b"now", 4)?;
        cx.expect_eq("what the sleeper received", peer.join()?, (b"now".to_vec(), 4))
    })
};

const EMPTY_EINTR: Probe = Probe {
    title: "a signal ends the wait for a message with EINTR",
    why: "programs stop cleanly on SIGTERM because this call returns",
    spec: &[man("mq_receive(3)", "EINTR"), posix("mq_receive")],
    calls: &[Sys::MqTimedreceive],
    ..Probe::new("posix.mq.receive.eintr", |cx| {
        let queue = cx.mq(0)?;
        let peer = cx.interrupted(0, &[Sys::MqTimedreceive], |cx| cx.expect_errno(EINTR, || queue.receive()))?;
        peer.join()?;
        queue.send(b"still", 0)?;
        cx.expect_eq("message after the interruption", queue.receive()?.0, b"still".to_vec())
    })
};

const EMPTY_RESTART: Probe = Probe {
    title: "with SA_RESTART the wait for a message goes on after the handler",
    why: "other than msgrcv: a profiler's timer signal must not end every worker",
    spec: &[doc("signal(7)", "Interruption of system calls and library functions by signal handlers")],
    calls: &[Sys::MqTimedreceive],
    ..Probe::new("posix.mq.receive.restart", |cx| {
        let queue = cx.mq(0)?;
        let peer = cx.interrupted(SA_RESTART, &[Sys::MqTimedreceive], |cx| cx.expect_ok(|| queue.receive()))?;
        queue.send(b"after all", 0)?;
        cx.expect_eq("what the sleeper received", peer.join()?.0, b"after all".to_vec())
    })
};
