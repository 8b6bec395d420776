//! poll(2) and epoll(7) on a queue's descriptor: Linux's addition to POSIX queues.

use libc::{EPOLLET, EPOLLIN, EPOLLOUT, POLLIN, POLLOUT};
use shmcheck_probe::guard_queue::SMALL_MQ;
use shmcheck_probe::{Clause, Context, Outcome, Probe, Stop, Sys, doc, kernel, procfs, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[&READY, &WAKES_READER, &WAKES_WRITER, &EPOLL, &EPOLL_EDGE, &EPOLL_WAKES];

const SPEC: &[Clause] = &[
    doc("mq_overview(7)", "Linux implementation of message queue descriptors"),
    kernel("ipc/mqueue.c", "mqueue_poll_file"),
];

const READY: Probe = Probe {
    title: "poll says readable while there are messages, writable while room",
    why: "event loops treat the queue like a socket; a wrong answer spins or hangs them",
    spec: SPEC,
    calls: &[Sys::MqOpen],
    ..Probe::new("posix.mq.poll.ready", |cx| {
        let queue = cx.mq(0)?;
        let ready = || sys::poll_for(queue.fd(), POLLIN | POLLOUT, 0);
        cx.expect_eq("events of an empty queue", ready()?, POLLOUT)?;
        for n in 1..=SMALL_MQ.maxmsg {
            queue.send(b"x", 0)?;
            let wanted = if n < SMALL_MQ.maxmsg { POLLIN | POLLOUT } else { POLLIN };
            cx.expect_eq(&format!("events with {n} messages"), ready()?, wanted)?;
        }
        for n in (0..SMALL_MQ.maxmsg).rev() {
            queue.receive()?;
            let wanted = if n > 0 { POLLIN | POLLOUT } else { POLLOUT };
            cx.expect_eq(&format!("events with {n} messages"), ready()?, wanted)?;
        }
        Ok(())
    })
};

/// A peer polls for `events`; `wake` is done when it sleeps.
fn wakes(cx: &mut Context, fd: i32, events: i16, wake: impl FnOnce() -> sys::Result<()>) -> Outcome {
    let gate = cx.gate()?;
    let peer = cx.fork(|_| {
        gate.open()?;
        Ok(sys::poll_for(fd, events, 5_000)?)
    })?;
    gate.pass()?;
    until_polling(cx, peer.pid())?;
    wake()?;
    cx.expect_eq("events of the sleeper", peer.join()?, events)
}

/// Waits until the peer, which makes no other call that sleeps, sleeps in poll.
fn until_polling(cx: &Context, pid: libc::pid_t) -> Outcome {
    cx.until("a peer sleeps in poll", || match procfs::state(pid) {
        None | Some('Z') => Err(Stop::broken("a peer ended instead of waiting in poll")),
        // Where the kernel tells the call, it is one that this architecture has for poll.
        Some('S') => Ok(procfs::current_call(pid).is_none_or(|number| sys::POLL_CALLS.contains(&number))),
        Some(_) => Ok(false),
    })
}

const WAKES_READER: Probe = Probe {
    title: "poll for reading sleeps on an empty queue until a message comes",
    why: "a loop over sockets and queues must wake up for both",
    spec: SPEC,
    calls: &[Sys::MqTimedsend],
    ..Probe::new("posix.mq.poll.wakes-reader", |cx| {
        let queue = cx.mq(0)?;
        wakes(cx, queue.fd(), POLLIN, || queue.send(b"x", 0))
    })
};

const WAKES_WRITER: Probe = Probe {
    title: "poll for writing sleeps on a full queue until there is room",
    why: "without this wake-up a non-blocking producer sleeps though the queue is empty",
    spec: SPEC,
    calls: &[Sys::MqTimedreceive],
    ..Probe::new("posix.mq.poll.wakes-writer", |cx| {
        let queue = super::posix_send::full(cx, 0)?;
        wakes(cx, queue.fd(), POLLOUT, || queue.receive().map(drop))
    })
};

const EPOLL: Probe = Probe {
    title: "epoll reports a queue as long as it has messages",
    why: "libevent and tokio drive the queue this way",
    spec: SPEC,
    calls: &[Sys::MqTimedsend],
    ..Probe::new("posix.mq.poll.epoll", |cx| {
        let queue = cx.mq(0)?;
        let epoll = sys::epoll_on(queue.fd(), EPOLLIN)?;
        cx.expect_eq("events of an empty queue", sys::epoll_wait(epoll.as_raw_fd(), 0)?, 0)?;
        queue.send(b"x", 0)?;
        for _ in 0..2 {
            cx.expect_eq("events with a message", sys::epoll_wait(epoll.as_raw_fd(), 0)?, EPOLLIN)?;
        }
        queue.receive()?;
        cx.expect_eq("events after receiving", sys::epoll_wait(epoll.as_raw_fd(), 0)?, 0)
    })
};

const EPOLL_EDGE: Probe = Probe {
    title: "edge-triggered epoll reports each arrival once",
    why: "a loop that drains the queue per report would otherwise be called in vain, or never again",
    spec: SPEC,
    calls: &[Sys::MqTimedsend],
    ..Probe::new("posix.mq.poll.epoll-edge", |cx| {
        let queue = cx.mq(0)?;
        let epoll = sys::epoll_on(queue.fd(), EPOLLIN | EPOLLET)?;
        for _ in 0..2 {
            queue.send(b"x", 0)?;
            cx.expect_eq("events of an arrival", sys::epoll_wait(epoll.as_raw_fd(), 0)?, EPOLLIN)?;
            cx.expect_eq("events without a further one", sys::epoll_wait(epoll.as_raw_fd(), 0)?, 0)?;
        }
        Ok(())
    })
};

const EPOLL_WAKES: Probe = Probe {
    title: "edge-triggered epoll for writing reports the room after a receive",
    why: "the producer of a full queue waits for exactly this edge",
    spec: SPEC,
    calls: &[Sys::MqTimedreceive],
    ..Probe::new("posix.mq.poll.epoll-writer", |cx| {
        let queue = super::posix_send::full(cx, 0)?;
        let epoll = sys::epoll_on(queue.fd(), EPOLLOUT | EPOLLET)?;
        cx.expect_eq("events of a full queue", sys::epoll_wait(epoll.as_raw_fd(), 0)?, 0)?;
        queue.receive()?;
        cx.expect_eq("events with room", sys::epoll_wait(epoll.as_raw_fd(), 0)?, EPOLLOUT)
    })
};
