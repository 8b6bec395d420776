//! msgsnd(2) and msgrcv(2) that wait: what wakes them, and with which result.

use libc::{E2BIG, EACCES, EIDRM, EINTR, SA_RESTART};
use shmcheck_probe::sys::{self, MSG_EXCEPT, MSG_NOERROR};
use shmcheck_probe::{Context, MsgQueue, Outcome, Peer, Probe, Stop, Sys, kernel, man, posix};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &RECEIVE_SEND,
    &RECEIVE_HANDS_OVER,
    &RECEIVE_POSITIVE,
    &RECEIVE_NEGATIVE,
    &RECEIVE_EXCEPT,
    &RECEIVE_EIDRM,
    &RECEIVE_EINTR,
    &RECEIVE_SET,
    &RECEIVE_EACCES,
    &RECEIVE_E2BIG,
    &RECEIVE_E2BIG_NEXT,
    &RECEIVE_NOERROR,
    &RECEIVE_TURNS,
    &RECEIVE_ONCE,
    &SEND_RECEIVE,
    &SEND_SET,
    &SEND_EIDRM,
    &SEND_EINTR,
    &SEND_EACCES,
    &SEND_SMALLER,
    &SEND_TURNS,
];

/// A peer that sleeps in `msgrcv(id, size, kind, flags)`; its value is the errno, the type and the text.
fn receiver(cx: &mut Context, id: i32, size: usize, kind: i64, flags: i32) -> Result<Peer<Received>, Stop> {
    let peer = cx.fork(|_| {
        Ok(match sys::msgrcv(id, size, kind, flags) {
            Ok(message) => (0, message.kind, message.text),
            Err(e) => (e.errno, 0, Vec::new()),
        })
    })?;
    cx.until_sleeping_in(peer.pid(), &[Sys::Msgrcv])?;
    Ok(peer)
}
type Received = (i32, i64, Vec<u8>);

/// What a receiver that got this message reports.
fn got(kind: i64, text: &[u8]) -> Received {
    (0, kind, text.to_vec())
}

/// What a receiver that was refused reports.
fn refused(errno: i32) -> Received {
    (errno, 0, Vec::new())
}

/// A queue of ten bytes that are used up.
fn full(cx: &mut Context) -> Result<MsgQueue, Stop> {
    let queue = cx.msg_queue(0o600)?;
    queue.set(|to| to.qbytes = 10)?;
    queue.put(1, b"0123456789")?;
    Ok(queue)
}

/// A peer that sleeps in `msgsnd(id, {kind, text}, 0)`; its value is the errno.
fn sender(cx: &mut Context, id: i32, kind: i64, text: &[u8]) -> Result<Peer<i32>, Stop> {
    let peer = cx.fork(|_| Ok(sys::msgsnd(id, kind, text, 0).err().map_or(0, |e| e.errno)))?;
    cx.until_sleeping_in(peer.pid(), &[Sys::Msgsnd])?;
    Ok(peer)
}

const RECEIVE_SEND: Probe = Probe {
    title: "msgrcv on an empty queue sleeps until a message comes",
    why: "workers sit in this call all day; one that spins costs a processor, one that misses the message hangs",
    spec: &[man("msgop(2)", "msgrcv()"), posix("msgrcv")],
    calls: &[Sys::Msgsnd, Sys::Msgrcv],
    ..Probe::new("sysv.msg.wait.receive-send", |cx| {
        let queue = cx.msg_queue(0o600)?;
        let peer = receiver(cx, queue.id, 64, 0, 0)?;
        queue.put(3, b"wake up")?;
        cx.expect_eq("what the sleeper received", peer.join()?, got(3, b"wake up"))
    })
};

const RECEIVE_HANDS_OVER: Probe = Probe {
    title: "a message for a sleeping receiver is his: the count stays 0",
    why: "were it queued first, a third program that polls could steal it from the one who waited",
    spec: &[kernel("ipc/msg.c", "pipelined_send")],
    calls: &[Sys::Msgsnd, Sys::Msgrcv, Sys::Msgctl],
    ..Probe::new("sysv.msg.wait.receive-hands-over", |cx| {
        let queue = cx.msg_queue(0o600)?;
        let peer = receiver(cx, queue.id, 64, 0, 0)?;
        let before = sys::now_seconds();
        queue.put(3, b"yours")?;
        // Whether or not the receiver has run yet, all of this was settled inside msgsnd.
        let stat = queue.stat()?;
        cx.expect_eq("msg_qnum, msg_cbytes", (stat.qnum, stat.cbytes), (0, 0))?;
        cx.expect_eq("msg_lspid, msg_lrpid", (stat.lspid, stat.lrpid), (sys::getpid(), peer.pid()))?;
        cx.expect("msg_stime, msg_rtime", stat.stime >= before && stat.rtime >= before, "both now", stat)?;
        cx.expect_eq("what the sleeper received", peer.join()?, got(3, b"yours"))
    })
};

/// A receiver that waits with `kind` sleeps through messages of `others` and is woken by one of `wanted`.
fn sleeps_through(cx: &mut Context, kind: i64, flags: i32, others: &[i64], wanted: i64) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    let peer = receiver(cx, queue.id, 64, kind, flags)?;
    for other in others {
        queue.put(*other, b"other")?;
        cx.until_sleeping_in(peer.pid(), &[Sys::Msgrcv])?;
    }
    cx.expect_eq("msg_qnum of the others", queue.stat()?.qnum, others.len() as u64)?;
    queue.put(wanted, b"mine")?;
    cx.expect_eq("what the sleeper received", peer.join()?, got(wanted, b"mine"))
}
const RECEIVE_POSITIVE: Probe = Probe {
    title: "a sleeper with a positive msgtyp is woken by that type only",
    why: "a hundred clients sleep on one reply queue, each for its own pid",
    spec: &[man("msgop(2)", "msgrcv()")],
    calls: &[Sys::Msgsnd, Sys::Msgrcv],
    ..Probe::new("sysv.msg.wait.receive-positive", |cx| sleeps_through(cx, 5, 0, &[4, 6], 5))
};
const RECEIVE_NEGATIVE: Probe = Probe {
    title: "a sleeper with a negative msgtyp is woken by any type up to it",
    why: "the emergency worker sleeps until something urgent comes, whatever else piles up",
    spec: &[man("msgop(2)", "msgrcv()")],
    calls: &[Sys::Msgsnd, Sys::Msgrcv],
    ..Probe::new("sysv.msg.wait.receive-negative", |cx| sleeps_through(cx, -5, 0, &[6, 100], 5))
};
const RECEIVE_EXCEPT: Probe = Probe {
    title: "a sleeper with MSG_EXCEPT is woken by any other type",
    why: "the general worker must not be woken by what is left to the specialist",
    spec: &[man("msgop(2)", "MSG_EXCEPT")],
    calls: &[Sys::Msgsnd, Sys::Msgrcv],
    ..Probe::new("sysv.msg.wait.receive-except", |cx| sleeps_through(cx, 5, MSG_EXCEPT, &[5, 5], 6))
};

const RECEIVE_EIDRM: Probe = Probe {
    title: "IPC_RMID wakes every sleeping receiver with EIDRM",
    why: "it is how a server tells its workers to end; one that sleeps on is a process for ever",
    spec: &[man("msgop(2)", "EIDRM"), man("msgctl(2)", "IPC_RMID"), posix("msgrcv")],
    calls: &[Sys::Msgrcv, Sys::Msgctl],
    ..Probe::new("sysv.msg.wait.receive-eidrm", |cx| {
        let mut queue = cx.msg_queue(0o600)?;
        let peers = [receiver(cx, queue.id, 64, 0, 0)?, receiver(cx, queue.id, 64, 7, 0)?];
        queue.remove()?;
        for peer in peers {
            cx.expect_eq("errno of the sleeper", peer.join()?, refused(EIDRM))?;
        }
        Ok(())
    })
};

const RECEIVE_EINTR: Probe = Probe {
    title: "a signal ends msgrcv with EINTR, also with SA_RESTART",
    why: "programs stop cleanly on SIGTERM because this call returns; restarted, only SIGKILL ends them",
    spec: &[man("msgop(2)", "EINTR"), posix("msgrcv")],
    calls: &[Sys::Msgrcv],
    ..Probe::new("sysv.msg.wait.receive-eintr", |cx| {
        let queue = cx.msg_queue(0o600)?;
        for flags in [0, SA_RESTART] {
            let peer =
                cx.interrupted(flags, &[Sys::Msgrcv], |cx| cx.expect_errno(EINTR, || sys::msgrcv(queue.id, 8, 0, 0)))?;
            peer.join()?;
        }
        queue.put(1, b"still")?;
        cx.expect_eq("message after the interruption", queue.take(0, 0)?, (1, b"still".to_vec()))
    })
};

const RECEIVE_SET: Probe = Probe {
    title: "IPC_SET does not end the wait of a receiver who still may read",
    why: "an administrator changes the size of a live queue; workers must not notice",
    spec: &[man("msgop(2)", "msgrcv()"), kernel("ipc/msg.c", "msgctl_down")],
    calls: &[Sys::Msgrcv, Sys::Msgctl],
    ..Probe::new("sysv.msg.wait.receive-set", |cx| {
        let queue = cx.msg_queue(0o600)?;
        let peer = receiver(cx, queue.id, 64, 0, 0)?;
        queue.set(|to| to.mode = 0o644)?;
        cx.until_sleeping_in(peer.pid(), &[Sys::Msgrcv])?;
        queue.put(2, b"after")?;
        cx.expect_eq("what the sleeper received", peer.join()?, got(2, b"after"))
    })
};

const RECEIVE_EACCES: Probe = Probe {
    title: "IPC_SET that takes read permission away ends the wait with EACCES",
    why: "who lost the permission must not get the message that comes a minute later",
    spec: &[man("msgop(2)", "EACCES"), kernel("ipc/msg.c", "msgctl_down")],
    calls: &[Sys::Msgrcv, Sys::Msgctl],
    ..Probe::new("sysv.msg.wait.receive-eacces", |cx| {
        let queue = cx.msg_queue(0o600)?;
        cx.without_caps(&[caps::Capability::CAP_IPC_OWNER], |cx| {
            let peer = receiver(cx, queue.id, 64, 0, 0)?;
            queue.set(|to| to.mode = 0o200)?;
            cx.expect_eq("result of the sleeper", peer.join()?, refused(EACCES))
        })
    })
};

const RECEIVE_E2BIG: Probe = Probe {
    title: "a message too long for the sleeper wakes him with E2BIG and stays",
    why: "the worker enlarges its buffer and takes the message in the next call",
    spec: &[man("msgop(2)", "E2BIG"), kernel("ipc/msg.c", "pipelined_send")],
    calls: &[Sys::Msgsnd, Sys::Msgrcv],
    ..Probe::new("sysv.msg.wait.receive-e2big", |cx| {
        let queue = cx.msg_queue(0o600)?;
        let peer = receiver(cx, queue.id, 3, 0, 0)?;
        queue.put(1, b"four")?;
        cx.expect_eq("result of the sleeper", peer.join()?, refused(E2BIG))?;
        cx.expect_eq("the message", queue.take(0, 0)?, (1, b"four".to_vec()))
    })
};

const RECEIVE_E2BIG_NEXT: Probe = Probe {
    title: "what is too long for one sleeper goes to the next who has the room",
    why: "one worker of an older version with a small buffer must not stop the others",
    spec: &[man("msgop(2)", "E2BIG"), kernel("ipc/msg.c", "pipelined_send")],
    calls: &[Sys::Msgsnd, Sys::Msgrcv],
    ..Probe::new("sysv.msg.wait.receive-e2big-next", |cx| {
        let queue = cx.msg_queue(0o600)?;
        let (small, large) = (receiver(cx, queue.id, 3, 0, 0)?, receiver(cx, queue.id, 4, 0, 0)?);
        queue.put(1, b"four")?;
        cx.expect_eq("result of the first", small.join()?, refused(E2BIG))?;
        cx.expect_eq("what the second received", large.join()?, got(1, b"four"))?;
        cx.expect_eq("msg_qnum", queue.stat()?.qnum, 0)
    })
};

const RECEIVE_NOERROR: Probe = Probe {
    title: "a sleeper with MSG_NOERROR gets the beginning of a long message",
    why: "whether the message was there before the call must make no difference",
    spec: &[man("msgop(2)", "MSG_NOERROR")],
    calls: &[Sys::Msgsnd, Sys::Msgrcv],
    ..Probe::new("sysv.msg.wait.receive-noerror", |cx| {
        let queue = cx.msg_queue(0o600)?;
        let peer = receiver(cx, queue.id, 3, 0, MSG_NOERROR)?;
        queue.put(1, b"four")?;
        cx.expect_eq("what the sleeper received", peer.join()?, got(1, b"fou"))?;
        cx.expect_eq("msg_qnum", queue.stat()?.qnum, 0)
    })
};

const RECEIVE_TURNS: Probe = Probe {
    title: "sleeping receivers are served in the order they came",
    why: "a pool of workers shares the load by it; served the other way round, the first ones never work",
    spec: &[kernel("ipc/msg.c", "pipelined_send")],
    calls: &[Sys::Msgsnd, Sys::Msgrcv],
    ..Probe::new("sysv.msg.wait.receive-turns", |cx| {
        let queue = cx.msg_queue(0o600)?;
        let peers =
            [receiver(cx, queue.id, 8, 0, 0)?, receiver(cx, queue.id, 8, 2, 0)?, receiver(cx, queue.id, 8, -3, 0)?];
        for kind in [1, 2, 3] {
            queue.put(kind, b"")?;
        }
        for (peer, kind) in peers.into_iter().zip([1, 2, 3]) {
            cx.expect_eq("what the sleeper received", peer.join()?, got(kind, b""))?;
        }
        Ok(())
    })
};

const RECEIVE_ONCE: Probe = Probe {
    title: "every message is received by exactly one of two busy receivers",
    why: "an order that two workers execute is shipped twice",
    spec: &[man("msgop(2)", "msgrcv()"), posix("msgrcv")],
    calls: &[Sys::Msgsnd, Sys::Msgrcv],
    ..Probe::new("sysv.msg.wait.receive-once", receive_once)
};
fn receive_once(cx: &mut Context) -> Outcome {
    const COUNT: u8 = 100;
    let queue = cx.msg_queue(0o600)?;
    queue.set(|to| to.qbytes = 8)?;
    let worker = |cx: &mut Context| {
        cx.fork(|_| {
            let mut taken = Vec::new();
            loop {
                match sys::msgrcv(queue.id, 8, 0, 0) {
                    Ok(message) if message.kind == 2 => return Ok(taken),
                    Ok(message) => taken.extend(message.text),
                    Err(e) => return Err(e.into()),
                }
            }
        })
    };
    let workers = [worker(cx)?, worker(cx)?];
    // The queue is far too small: sender and receivers sleep and wake each other all the time.
    for n in 0..COUNT {
        sys::msgsnd(queue.id, 1, &[n], 0)?;
    }
    for _ in &workers {
        sys::msgsnd(queue.id, 2, b"", 0)?;
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

const SEND_RECEIVE: Probe = Probe {
    title: "msgsnd to a full queue sleeps until a message is taken out",
    why: "producers are slowed down by it instead of losing data",
    spec: &[man("msgop(2)", "msgsnd()"), posix("msgsnd")],
    calls: &[Sys::Msgsnd, Sys::Msgrcv],
    ..Probe::new("sysv.msg.wait.send-receive", |cx| {
        let queue = full(cx)?;
        let peer = sender(cx, queue.id, 4, b"next")?;
        cx.expect_eq("msg_qnum while he sleeps", queue.stat()?.qnum, 1)?;
        queue.take(0, 0)?;
        cx.expect_eq("result of the sleeper", peer.join()?, 0)?;
        cx.expect_eq("his message", queue.take(0, 0)?, (4, b"next".to_vec()))
    })
};

const SEND_SET: Probe = Probe {
    title: "IPC_SET of a larger msg_qbytes wakes a sender who then has room",
    why: "raising the limit is the first aid for a stuck system: it must take effect at once",
    spec: &[man("msgop(2)", "msgsnd()"), kernel("ipc/msg.c", "msgctl_down")],
    calls: &[Sys::Msgsnd, Sys::Msgctl],
    ..Probe::new("sysv.msg.wait.send-set", |cx| {
        let queue = full(cx)?;
        let peer = sender(cx, queue.id, 4, b"next")?;
        queue.set(|to| to.qbytes = 13)?;
        cx.until_sleeping_in(peer.pid(), &[Sys::Msgsnd])?;
        cx.expect_eq("msg_qnum with one byte too few", queue.stat()?.qnum, 1)?;
        queue.set(|to| to.qbytes = 14)?;
        cx.expect_eq("result of the sleeper", peer.join()?, 0)?;
        cx.expect_eq("msg_cbytes", queue.stat()?.cbytes, 14)
    })
};

const SEND_EIDRM: Probe = Probe {
    title: "IPC_RMID wakes every sleeping sender with EIDRM",
    why: "a producer in front of a removed queue must end, not wait for a consumer that never comes",
    spec: &[man("msgop(2)", "EIDRM"), man("msgctl(2)", "IPC_RMID"), posix("msgsnd")],
    calls: &[Sys::Msgsnd, Sys::Msgctl],
    ..Probe::new("sysv.msg.wait.send-eidrm", |cx| {
        let mut queue = full(cx)?;
        let peers = [sender(cx, queue.id, 1, b"a")?, sender(cx, queue.id, 2, b"b")?];
        queue.remove()?;
        for peer in peers {
            cx.expect_eq("errno of the sleeper", peer.join()?, EIDRM)?;
        }
        Ok(())
    })
};

const SEND_EINTR: Probe = Probe {
    title: "a signal ends msgsnd with EINTR, also with SA_RESTART, nothing sent",
    why: "a producer gives up after an alarm; the message must not turn up later all the same",
    spec: &[man("msgop(2)", "EINTR"), posix("msgsnd")],
    calls: &[Sys::Msgsnd],
    ..Probe::new("sysv.msg.wait.send-eintr", |cx| {
        let queue = full(cx)?;
        for flags in [0, SA_RESTART] {
            let peer = cx.interrupted(flags, &[Sys::Msgsnd], |cx| {
                cx.expect_errno(EINTR, || sys::msgsnd(queue.id, 1, b"x", 0))
            })?;
            peer.join()?;
        }
        cx.expect_eq("msg_qnum", queue.stat()?.qnum, 1)
    })
};

const SEND_EACCES: Probe = Probe {
    title: "a sender who has room but no permission any more gets EACCES",
    why: "the permission is that of the moment when the message goes in",
    spec: &[man("msgop(2)", "EACCES"), kernel("ipc/msg.c", "do_msgsnd")],
    calls: &[Sys::Msgsnd, Sys::Msgctl],
    ..Probe::new("sysv.msg.wait.send-eacces", |cx| {
        let queue = full(cx)?;
        cx.without_caps(&[caps::Capability::CAP_IPC_OWNER], |cx| {
            let peer = sender(cx, queue.id, 1, b"x")?;
            queue.set(|to| (to.mode, to.qbytes) = (0o400, 100))?;
            cx.expect_eq("result of the sleeper", peer.join()?, EACCES)?;
            cx.expect_eq("msg_qnum", queue.stat()?.qnum, 1)
        })
    })
};

const SEND_SMALLER: Probe = Probe {
    title: "a message that fits is taken while a larger one waits for room",
    why: "one giant report must not stop all small requests behind it",
    spec: &[man("msgop(2)", "msgsnd()")],
    calls: &[Sys::Msgsnd],
    ..Probe::new("sysv.msg.wait.send-smaller", |cx| {
        let queue = full(cx)?;
        queue.set(|to| to.qbytes = 12)?;
        let peer = sender(cx, queue.id, 4, b"large")?;
        cx.expect_ok(|| queue.put(5, b"s"))?;
        cx.expect_eq("msg_cbytes", queue.stat()?.cbytes, 11)?;
        queue.take(1, 0)?;
        cx.expect_eq("result of the sleeper", peer.join()?, 0)
    })
};

const SEND_TURNS: Probe = Probe {
    title: "a sleeping sender without room does not keep the others asleep",
    why: "a wake-up that stops at the first in line leaves producers asleep in front of an empty queue",
    spec: &[man("msgop(2)", "msgsnd()"), kernel("ipc/msg.c", "ss_wakeup")],
    calls: &[Sys::Msgsnd, Sys::Msgrcv],
    ..Probe::new("sysv.msg.wait.send-all-woken", |cx| {
        let queue = full(cx)?;
        queue.set(|to| to.qbytes = 12)?;
        queue.put(6, b"x")?;
        let large = sender(cx, queue.id, 2, b"twelve bytes")?;
        let small = [sender(cx, queue.id, 3, b"aa")?, sender(cx, queue.id, 4, b"bb")?];
        // One byte remains: room for both small messages, not for the large one.
        queue.take(1, 0)?;
        for (peer, kind) in small.into_iter().zip([3, 4]) {
            cx.expect_eq("result of a small sender", peer.join()?, 0)?;
            cx.expect_eq("type of a small message", queue.take(kind, 0)?.0, kind)?;
        }
        cx.until_sleeping_in(large.pid(), &[Sys::Msgsnd])?;
        queue.take(6, 0)?;
        cx.expect_eq("result of the large sender", large.join()?, 0)?;
        cx.expect_eq("the large message", queue.take(2, 0)?.1, b"twelve bytes".to_vec())
    })
};
