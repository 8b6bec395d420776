//! RLIMIT_MSGQUEUE: what POSIX queues cost the user who makes them, getrlimit(2).

use libc::{EMFILE, ENOENT, O_CREAT, O_RDWR, RLIMIT_MSGQUEUE};
use shmcheck_probe::guard_queue::SMALL_MQ;
use shmcheck_probe::sys::{self, MQ_PRIO_MAX, MqAttr};
use shmcheck_probe::{Context, MqQueue, Need, Outcome, Probe, Stop, Sys, kernel, man};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[&NONE_LEFT, &EXACT, &FREED, &PER_USER, &OTHER_USER, &OPEN_FREE];

const FIX: &str = "ulimit -q, or docker run --ulimit msgqueue=…; remove forgotten queues from /dev/mqueue";

/// What a queue costs: room for all its messages, a header of 48 bytes for each, a tree node of 48 for each priority.
pub(super) fn cost(attr: &MqAttr) -> u64 {
    let (maxmsg, msgsize) = (attr.maxmsg.unsigned_abs(), attr.msgsize.unsigned_abs());
    maxmsg * 48 + maxmsg.min(MQ_PRIO_MAX.into()) * 48 + maxmsg * msgsize
}

/// Sets the soft limit of this process; the hard one stays.
pub(super) fn allow(bytes: u64) -> Result<(), Stop> {
    let (_, hard) = sys::getrlimit(RLIMIT_MSGQUEUE)?;
    if bytes > hard {
        return Err(Stop::skip(format!("RLIMIT_MSGQUEUE of {bytes}"), format!("the hard limit is {hard}")));
    }
    Ok(sys::setrlimit(RLIMIT_MSGQUEUE, bytes, hard)?)
}

/// Runs `body` as a user who has no other queues: the limit counts per real user id, over all namespaces.
pub(super) fn as_lonely_user(cx: &mut Context, body: impl FnOnce(&mut Context) -> Outcome) -> Outcome {
    let uid = lonely_uid();
    cx.as_user(uid, 65534, body)
}

/// A user id that hardly anybody else uses at this time; mapped wherever user 65534 is. Containers share the ids of the
/// host and have equal process ids, so the time goes in.
fn lonely_uid() -> u32 {
    let (_, nanoseconds) = sys::clock(libc::CLOCK_MONOTONIC);
    let salt = u32::try_from(nanoseconds / 100).unwrap_or(0);
    20_000 + salt.wrapping_add(sys::getpid().unsigned_abs().wrapping_mul(7_919)) % 40_000
}

const NONE_LEFT: Probe = Probe {
    title: "a queue beyond RLIMIT_MSGQUEUE fails with EMFILE, nothing made",
    why: "the message is 'Too many open files' and hides the limit that was hit (seen with containers/qm)",
    fix: FIX,
    spec: &[man("getrlimit(2)", "RLIMIT_MSGQUEUE"), kernel("ipc/mqueue.c", "mqueue_get_inode")],
    calls: &[Sys::MqOpen],
    ..Probe::new("posix.mq.rlimit.emfile", |cx| {
        drop(cx.mq(0)?);
        let name = cx.fresh_name();
        cx.elsewhere(|cx| {
            allow(0)?;
            cx.expect_errno(EMFILE, || sys::mq_open(&name, O_CREAT | O_RDWR, 0o600, Some(&SMALL_MQ)))
        })?;
        cx.expect_errno(ENOENT, || sys::mq_open(&name, O_RDWR, 0, None))
    })
};

const EXACT: Probe = Probe {
    title: "RLIMIT_MSGQUEUE counts what getrlimit(2) says, to the byte",
    why: "administrators compute the limit for a service by this formula",
    fix: FIX,
    spec: &[man("getrlimit(2)", "RLIMIT_MSGQUEUE"), kernel("ipc/mqueue.c", "mqueue_get_inode")],
    calls: &[Sys::MqOpen],
    needs: &[Need::OtherUsers],
    ..Probe::new("posix.mq.rlimit.exact", |cx| {
        for attr in [MqAttr::new(1, 1), MqAttr::new(10, 100)] {
            as_lonely_user(cx, |cx| {
                let name = cx.fresh_name();
                allow(cost(&attr) - 1)?;
                cx.expect_errno(EMFILE, || sys::mq_open(&name, O_CREAT | O_RDWR, 0o600, Some(&attr)))?;
                allow(cost(&attr))?;
                let fd = cx.expect_ok(|| sys::mq_open(&name, O_CREAT | O_RDWR, 0o600, Some(&attr)))?;
                drop(MqQueue::adopt(name, fd));
                Ok(())
            })?;
        }
        Ok(())
    })
};

const FREED: Probe = Probe {
    title: "a closed queue counts until it is unlinked, then its bytes are free",
    why: "a program that crashes before mq_unlink eats its user's limit with every start",
    fix: FIX,
    spec: &[man("getrlimit(2)", "RLIMIT_MSGQUEUE"), kernel("ipc/mqueue.c", "mqueue_evict_inode")],
    calls: &[Sys::MqOpen, Sys::MqUnlink],
    needs: &[Need::OtherUsers],
    ..Probe::new("posix.mq.rlimit.freed", |cx| {
        as_lonely_user(cx, |cx| {
            let (one, two) = (cx.fresh_name(), cx.fresh_name());
            allow(cost(&SMALL_MQ))?;
            drop(sys::mq_open(&one, O_CREAT | O_RDWR, 0o600, Some(&SMALL_MQ))?);
            let refused = cx.expect_errno(EMFILE, || sys::mq_open(&two, O_CREAT | O_RDWR, 0o600, Some(&SMALL_MQ)));
            sys::mq_unlink(&one)?;
            refused?;
            let fd = cx.expect_ok(|| sys::mq_open(&two, O_CREAT | O_RDWR, 0o600, Some(&SMALL_MQ)))?;
            drop(MqQueue::adopt(two, fd));
            Ok(())
        })
    })
};

const PER_USER: Probe = Probe {
    title: "RLIMIT_MSGQUEUE counts the queues of all processes of the user",
    why: "one leaking program takes the limit away from all others of the account",
    fix: FIX,
    spec: &[man("getrlimit(2)", "RLIMIT_MSGQUEUE")],
    calls: &[Sys::MqOpen],
    needs: &[Need::OtherUsers],
    ..Probe::new("posix.mq.rlimit.per-user", |cx| {
        as_lonely_user(cx, |cx| {
            let name = cx.fresh_name();
            allow(cost(&SMALL_MQ))?;
            let _held = cx.mq(0)?;
            cx.elsewhere(|cx| cx.expect_errno(EMFILE, || sys::mq_open(&name, O_CREAT | O_RDWR, 0o600, Some(&SMALL_MQ))))
        })
    })
};

const OTHER_USER: Probe = Probe {
    title: "RLIMIT_MSGQUEUE of one user leaves another user's as it is",
    why: "services run as users of their own so that none starves the others",
    spec: &[man("getrlimit(2)", "RLIMIT_MSGQUEUE")],
    calls: &[Sys::MqOpen],
    needs: &[Need::OtherUsers],
    ..Probe::new("posix.mq.rlimit.other-user", |cx| {
        // This process's user has a queue already; it does not count for the other.
        let _held = cx.mq_with(0, 0o600, &MqAttr::new(8, 512))?;
        as_lonely_user(cx, |cx| {
            allow(cost(&SMALL_MQ))?;
            let name = cx.fresh_name();
            let fd = cx.expect_ok(|| sys::mq_open(&name, O_CREAT | O_RDWR, 0o600, Some(&SMALL_MQ)))?;
            drop(MqQueue::adopt(name, fd));
            Ok(())
        })
    })
};

const OPEN_FREE: Probe = Probe {
    title: "opening a queue that exists costs nothing of RLIMIT_MSGQUEUE",
    why: "clients run with small limits and open the server's large queue",
    spec: &[man("getrlimit(2)", "RLIMIT_MSGQUEUE")],
    calls: &[Sys::MqOpen],
    ..Probe::new("posix.mq.rlimit.open-is-free", |cx| {
        let queue = cx.mq(0)?;
        cx.elsewhere(|cx| {
            allow(0)?;
            let _fd = cx.expect_ok(|| sys::mq_open(&queue.name, O_CREAT | O_RDWR, 0o600, Some(&SMALL_MQ)))?;
            cx.expect_ok(|| queue.send(b"x", 0))
        })
    })
};
