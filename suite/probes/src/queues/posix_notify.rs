//! mq_notify(3): being told of a message.

use libc::{EBADF, EBUSY, EFAULT, EINVAL, O_NONBLOCK, O_RDONLY, O_RDWR, SIGUSR1};
use shmcheck_probe::sys::{self, Notify, SI_MESGQ, SignalInfo};
use shmcheck_probe::{Context, MqQueue, Need, Outcome, Probe, Stop, Sys, kernel, man, posix};
use std::os::fd::{AsRawFd, IntoRawFd};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &SIGNAL,
    &SIGNAL_OTHER_USER,
    &ONCE,
    &AGAIN,
    &EBUSY_OTHER,
    &EBUSY_SELF,
    &TAKE_BACK,
    &TAKE_BACK_OTHERS,
    &CLOSE_ENDS,
    &EXIT_ENDS,
    &FORK_KEEPS,
    &NOT_EMPTY,
    &RECEIVER_FIRST,
    &NOTHING,
    &SIGNAL_ZERO,
    &METHOD_EINVAL,
    &SIGNAL_EINVAL,
    &BAD_FD,
    &EFAULT_EVENT,
];

const VALUE: usize = 0x1234_5678_9abc;

/// A queue that announces its next message to this process by SIGUSR1, which is blocked.
fn announcing(cx: &mut Context) -> Result<MqQueue, Stop> {
    sys::block_signal(SIGUSR1)?;
    let queue = cx.mq(O_NONBLOCK)?;
    sys::mq_notify(queue.fd(), Some(Notify::Signal(SIGUSR1, VALUE)))?;
    Ok(queue)
}

/// What has been announced: the signal is pending when mq_send returns.
fn announced() -> Result<Option<SignalInfo>, Stop> {
    Ok(sys::take_signal(SIGUSR1, 0)?)
}

/// Expects that nothing is announced, or something.
fn expect_announced(cx: &Context, what: &str, wanted: bool) -> Outcome {
    cx.expect_eq(&format!("signal {what}"), announced()?.is_some(), wanted)
}

/// Expects that another process can register, or that somebody else has; a registration made here ends at once.
pub(super) fn expect_free(cx: &mut Context, when: &str, queue: &MqQueue, wanted: bool) -> Outcome {
    let fd = queue.fd();
    let free = cx.elsewhere(|_| match sys::mq_notify(fd, Some(Notify::Nothing)) {
        Ok(()) => Ok(true),
        Err(e) if e.errno == EBUSY => Ok(false),
        Err(e) => Err(e.into()),
    })?;
    cx.expect_eq(&format!("another process can register, {when}"), free, wanted)
}

const SIGNAL: Probe = Probe {
    title: "the first message into an empty queue sends the signal, with sender",
    why: "event-driven programs learn from the signal who sent and read the queue then",
    spec: &[man("mq_notify(3)", "SIGEV_SIGNAL"), posix("mq_notify")],
    calls: &[Sys::MqNotify, Sys::MqTimedsend],
    ..Probe::new("posix.mq.notify.signal", |cx| {
        let queue = announcing(cx)?;
        expect_announced(cx, "before any message", false)?;
        let sender = cx.elsewhere(|_| {
            queue.send(b"x", 0)?;
            Ok(sys::getpid())
        })?;
        let wanted = SignalInfo { code: SI_MESGQ, pid: sender, uid: sys::geteuid(), value: VALUE };
        cx.expect_eq("siginfo", announced()?, Some(wanted))
    })
};

const SIGNAL_OTHER_USER: Probe = Probe {
    title: "the signal comes though its sender may not kill the receiver",
    why: "a service is notified of ordinary users' messages; si_uid says whose it is",
    spec: &[man("mq_notify(3)", "SIGEV_SIGNAL"), kernel("ipc/mqueue.c", "__do_notify")],
    calls: &[Sys::MqNotify, Sys::MqTimedsend],
    needs: &[Need::OtherUsers],
    ..Probe::new("posix.mq.notify.signal-other-user", |cx| {
        let queue = announcing(cx)?;
        let own = sys::getpid();
        cx.as_user(65534, 65534, |cx| {
            cx.expect_errno(libc::EPERM, || sys::kill(own, SIGUSR1))?;
            cx.expect_ok(|| queue.send(b"x", 0))
        })?;
        let seen = announced()?.map(|info| (info.code, info.uid));
        cx.expect_eq("si_code, si_uid", seen, Some((SI_MESGQ, 65534)))
    })
};

const ONCE: Probe = Probe {
    title: "the notification comes once: a second message is not announced",
    why: "the handler re-registers; a kernel that goes on by itself floods it",
    spec: &[man("mq_notify(3)", "DESCRIPTION"), posix("mq_notify")],
    calls: &[Sys::MqNotify, Sys::MqTimedsend],
    ..Probe::new("posix.mq.notify.once", |cx| {
        let queue = announcing(cx)?;
        queue.send(b"x", 0)?;
        expect_announced(cx, "of the first message", true)?;
        queue.receive()?;
        queue.send(b"y", 0)?;
        expect_announced(cx, "of the second", false)?;
        expect_free(cx, "in the end", &queue, true)
    })
};

const AGAIN: Probe = Probe {
    title: "after a notification the process can register again",
    why: "it is how every handler of the signal begins",
    spec: &[man("mq_notify(3)", "DESCRIPTION"), posix("mq_notify")],
    calls: &[Sys::MqNotify, Sys::MqTimedsend],
    ..Probe::new("posix.mq.notify.again", |cx| {
        let queue = announcing(cx)?;
        for round in 1..4 {
            queue.send(b"x", 0)?;
            expect_announced(cx, "of a message", true)?;
            queue.receive()?;
            let again = Notify::Signal(SIGUSR1, VALUE + round);
            cx.expect_ok(|| sys::mq_notify(queue.fd(), Some(again)))?;
        }
        Ok(())
    })
};

const EBUSY_OTHER: Probe = Probe {
    title: "a second process that registers fails with EBUSY",
    why: "two monitors on one queue: the second must learn that it will hear nothing",
    spec: &[man("mq_notify(3)", "EBUSY"), posix("mq_notify")],
    calls: &[Sys::MqNotify],
    ..Probe::new("posix.mq.notify.ebusy", |cx| {
        let queue = announcing(cx)?;
        cx.elsewhere(|cx| {
            let own = queue.open(O_RDWR)?;
            for event in [Notify::Nothing, Notify::Signal(SIGUSR1, 0)] {
                cx.expect_errno(EBUSY, || sys::mq_notify(own.as_raw_fd(), Some(event)))?;
            }
            Ok(())
        })?;
        queue.send(b"x", 0)?;
        expect_announced(cx, "for the first process", true)
    })
};

const EBUSY_SELF: Probe = Probe {
    title: "also the registered process itself cannot register twice",
    why: "changing the signal takes two steps: take back, register",
    spec: &[man("mq_notify(3)", "EBUSY"), kernel("ipc/mqueue.c", "do_mq_notify")],
    calls: &[Sys::MqNotify],
    ..Probe::new("posix.mq.notify.ebusy-self", |cx| {
        let queue = announcing(cx)?;
        cx.expect_errno(EBUSY, || sys::mq_notify(queue.fd(), Some(Notify::Nothing)))?;
        sys::mq_notify(queue.fd(), None)?;
        cx.expect_ok(|| sys::mq_notify(queue.fd(), Some(Notify::Nothing)))
    })
};

const TAKE_BACK: Probe = Probe {
    title: "mq_notify with NULL takes the registration back",
    why: "a component that is switched off must not be signalled any more",
    spec: &[man("mq_notify(3)", "DESCRIPTION"), posix("mq_notify")],
    calls: &[Sys::MqNotify],
    ..Probe::new("posix.mq.notify.take-back", |cx| {
        let queue = announcing(cx)?;
        expect_free(cx, "before", &queue, false)?;
        cx.expect_ok(|| sys::mq_notify(queue.fd(), None))?;
        queue.send(b"x", 0)?;
        expect_announced(cx, "after the registration was taken back", false)?;
        expect_free(cx, "after", &queue, true)
    })
};

const TAKE_BACK_OTHERS: Probe = Probe {
    title: "mq_notify with NULL by another process does nothing, without error",
    why: "a library's clean-up must not switch the application's notification off",
    spec: &[man("mq_notify(3)", "DESCRIPTION"), kernel("ipc/mqueue.c", "do_mq_notify")],
    calls: &[Sys::MqNotify],
    ..Probe::new("posix.mq.notify.take-back-others", |cx| {
        let queue = announcing(cx)?;
        cx.elsewhere(|cx| cx.expect_ok(|| sys::mq_notify(queue.fd(), None)))?;
        queue.send(b"x", 0)?;
        expect_announced(cx, "for the registered process", true)
    })
};

const CLOSE_ENDS: Probe = Probe {
    title: "mq_close ends the registration",
    why: "who closes the queue does not expect its signal, whose default is death",
    spec: &[man("mq_close(3)", "DESCRIPTION"), posix("mq_close")],
    calls: &[Sys::MqNotify, Sys::Close],
    ..Probe::new("posix.mq.notify.close-ends", |cx| {
        sys::block_signal(SIGUSR1)?;
        let queue = cx.mq(O_NONBLOCK)?;
        let fd = queue.open(O_RDONLY)?.into_raw_fd();
        sys::mq_notify(fd, Some(Notify::Signal(SIGUSR1, 0)))?;
        expect_free(cx, "before", &queue, false)?;
        sys::mq_close(fd)?;
        queue.send(b"x", 0)?;
        expect_announced(cx, "after mq_close", false)?;
        expect_free(cx, "after", &queue, true)
    })
};

const EXIT_ENDS: Probe = Probe {
    title: "the registration ends with its process, also by SIGKILL",
    why: "a monitor that was killed must not keep its successor out with EBUSY",
    spec: &[man("mq_close(3)", "NOTES"), posix("mq_close")],
    calls: &[Sys::MqNotify],
    ..Probe::new("posix.mq.notify.exit-ends", |cx| {
        let queue = cx.mq(O_NONBLOCK)?;
        let (gate, asleep) = (cx.gate()?, cx.gate()?);
        let peer = cx.fork(|_| {
            sys::mq_notify(queue.fd(), Some(Notify::Nothing))?;
            gate.open()?;
            // Never opened: this process is killed while it waits.
            asleep.pass()
        })?;
        gate.pass()?;
        cx.expect_errno(EBUSY, || sys::mq_notify(queue.fd(), Some(Notify::Nothing)))?;
        peer.kill()?;
        cx.expect_ok(|| sys::mq_notify(queue.fd(), Some(Notify::Nothing)))
    })
};

const FORK_KEEPS: Probe = Probe {
    title: "a child that closes its copy leaves the parent's registration alone",
    why: "every fork and exec of a shell command closes the copies",
    spec: &[man("mq_close(3)", "DESCRIPTION"), kernel("ipc/mqueue.c", "mqueue_flush_file")],
    calls: &[Sys::MqNotify],
    ..Probe::new("posix.mq.notify.fork-keeps", |cx| {
        let queue = announcing(cx)?;
        let fd = queue.fd();
        cx.elsewhere(|_| Ok(sys::mq_close(fd)?))?;
        queue.send(b"x", 0)?;
        expect_announced(cx, "for the parent", true)
    })
};

const NOT_EMPTY: Probe = Probe {
    title: "registered on a queue with messages: told only after it was empty",
    why: "the known race: who registers late must empty the queue first, or waits for ever",
    spec: &[man("mq_notify(3)", "DESCRIPTION"), posix("mq_notify")],
    calls: &[Sys::MqNotify, Sys::MqTimedsend],
    ..Probe::new("posix.mq.notify.not-empty", |cx| {
        sys::block_signal(SIGUSR1)?;
        let queue = cx.mq(O_NONBLOCK)?;
        queue.send(b"before", 0)?;
        sys::mq_notify(queue.fd(), Some(Notify::Signal(SIGUSR1, 0)))?;
        expect_announced(cx, "of an old message", false)?;
        queue.send(b"second", 0)?;
        expect_announced(cx, "of a message behind another", false)?;
        queue.receive()?;
        queue.receive()?;
        queue.send(b"first again", 0)?;
        expect_announced(cx, "of a message into the emptied queue", true)
    })
};

const RECEIVER_FIRST: Probe = Probe {
    title: "a sleeping receiver gets the message without any notification",
    why: "the registration stays for the next message; used up here, the monitor would miss that one",
    spec: &[man("mq_notify(3)", "DESCRIPTION"), posix("mq_notify")],
    calls: &[Sys::MqNotify, Sys::MqTimedreceive],
    ..Probe::new("posix.mq.notify.receiver-first", |cx| {
        let queue = announcing(cx)?;
        let waiting = queue.open(O_RDONLY)?;
        let peer = cx.fork(|_| Ok(sys::mq_receive(waiting.as_raw_fd(), 64)?.0))?;
        cx.until_sleeping_in(peer.pid(), &[Sys::MqTimedreceive])?;
        queue.send(b"his", 0)?;
        cx.expect_eq("what the sleeper received", peer.join()?, b"his".to_vec())?;
        expect_announced(cx, "of a message for the sleeper", false)?;
        queue.send(b"mine", 0)?;
        expect_announced(cx, "of the next message", true)
    })
};

const NOTHING: Probe = Probe {
    title: "SIGEV_NONE holds the place until a message comes, and sends nothing",
    why: "programs reserve the notification before they decide how to be told",
    spec: &[man("mq_notify(3)", "SIGEV_NONE"), posix("mq_notify")],
    calls: &[Sys::MqNotify],
    ..Probe::new("posix.mq.notify.none", |cx| {
        let queue = cx.mq(O_NONBLOCK)?;
        sys::mq_notify(queue.fd(), Some(Notify::Nothing))?;
        expect_free(cx, "before", &queue, false)?;
        queue.send(b"x", 0)?;
        expect_free(cx, "after", &queue, true)
    })
};

const SIGNAL_ZERO: Probe = Probe {
    title: "signal number 0 is taken, and no signal is sent",
    why: "a zeroed structure is a registration that says nothing; the program waits in vain and asks why",
    spec: &[kernel("ipc/mqueue.c", "__do_notify")],
    calls: &[Sys::MqNotify],
    ..Probe::new("posix.mq.notify.signal-zero", |cx| {
        let queue = cx.mq(O_NONBLOCK)?;
        cx.expect_ok(|| sys::mq_notify(queue.fd(), Some(Notify::Signal(0, 0))))?;
        queue.send(b"x", 0)?;
        expect_free(cx, "in the end", &queue, true)
    })
};

const METHOD_EINVAL: Probe = Probe {
    title: "a method of notification that does not exist fails with EINVAL",
    why: "an uninitialised structure is found at once, and the queue stays free",
    spec: &[man("mq_notify(3)", "EINVAL")],
    calls: &[Sys::MqNotify],
    ..Probe::new("posix.mq.notify.method-einval", |cx| {
        let queue = cx.mq(0)?;
        for method in [-1, 3, 99] {
            cx.expect_errno(EINVAL, || sys::mq_notify(queue.fd(), Some(Notify::Other(method, SIGUSR1))))?;
        }
        expect_free(cx, "in the end", &queue, true)
    })
};

const SIGNAL_EINVAL: Probe = Probe {
    title: "a signal number that does not exist fails with EINVAL",
    why: "the program would wait for a signal that cannot come",
    spec: &[man("mq_notify(3)", "EINVAL")],
    calls: &[Sys::MqNotify],
    ..Probe::new("posix.mq.notify.signal-einval", |cx| {
        let queue = cx.mq(0)?;
        for signal in [-1, 65, 1000] {
            cx.expect_errno(EINVAL, || sys::mq_notify(queue.fd(), Some(Notify::Signal(signal, 0))))?;
        }
        cx.expect_ok(|| sys::mq_notify(queue.fd(), Some(Notify::Signal(64, 0))))
    })
};

const BAD_FD: Probe = Probe {
    title: "mq_notify of a number that is no queue fails with EBADF",
    why: "descriptors are recycled: a notification registered on the wrong one would signal for somebody else's queue",
    spec: &[man("mq_notify(3)", "EBADF"), posix("mq_notify")],
    calls: &[Sys::MqNotify],
    ..Probe::new("posix.mq.notify.ebadf", |cx| {
        let (pipe, _writing) = sys::pipe()?;
        for fd in [-1, 1_000_000, pipe.as_raw_fd()] {
            for event in [None, Some(Notify::Nothing)] {
                cx.expect_errno(EBADF, || sys::mq_notify(fd, event))?;
            }
        }
        Ok(())
    })
};

const EFAULT_EVENT: Probe = Probe {
    title: "an event in missing memory fails with EFAULT",
    why: "a lost pointer is an error code in the log",
    spec: &[kernel("ipc/mqueue.c", "mq_notify")],
    calls: &[Sys::MqNotify],
    ..Probe::new("posix.mq.notify.efault", |cx| {
        let queue = cx.mq(0)?;
        cx.expect_errno(EFAULT, || sys::raw::numbers(Sys::MqNotify, &[queue.fd().into(), 1]))
    })
};
