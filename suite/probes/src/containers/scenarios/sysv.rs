//! Who sees whose System V objects.

use super::{FIX, FROM_MAKER, FROM_SEEKER, MAKER, PARTIES, SEEKER, SEEKERS_PLACE, VARIES_IPC};
use libc::ENOENT;
use shmcheck_probe::sys::{self, IPC_CREAT, IPC_EXCL, SemOp};
use shmcheck_probe::{
    Context, Map, MsgQueue, Need, Outcome, Probe, Scenario, Segment, SemSet, Shared, Step, Stop, Sys, Values, doc, man,
    procfs,
};

/// The scenarios of this file.
pub(super) const SCENARIOS: &[&Scenario] = &[&SEGMENT, &SET, &QUEUE, &LISTED];

const SEGMENT: Scenario = Scenario {
    probe: Probe {
        title: "a segment is found by its key exactly where the namespace is shared",
        why: "two containers that were to share memory start, attach to nothing and wait for each other; or a stranger \
              attaches to a database's buffers",
        varies: VARIES_IPC,
        fix: FIX,
        spec: &[doc("ipc_namespaces(7)", "DESCRIPTION"), man("shmget(2)", "DESCRIPTION")],
        calls: &[Sys::Shmget, Sys::Shmat, Sys::Shmdt, Sys::Shmctl],
        ..Scenario::probe("scenario.sysv-shm.by-key")
    },
    shares: &[],
    parties: PARTIES,
    steps: &[
        Step::new(MAKER, "the maker writes into a new segment", |cx, values| {
            let key = cx.fresh_key();
            let segment = cx.segment(key, sys::page_size(), 0o666)?;
            let map = segment.attach(0)?;
            map.write_all(0, FROM_MAKER);
            values.set("key", key);
            values.set("id", segment.id);
            cx.keep("map", map);
            cx.keep("segment", segment);
            Ok(())
        }),
        Step::new(SEEKER, "the seeker asks for the key", seek_segment),
        Step::new(MAKER, "the maker reads what the seeker wrote", |cx, values| {
            let wanted = if values.expects(Shared::Ipc)? { FROM_SEEKER.to_vec() } else { vec![0; FROM_SEEKER.len()] };
            let map: Map = cx.take("map")?;
            cx.expect_eq("the maker's segment", map.read_all(SEEKERS_PLACE, FROM_SEEKER.len()), wanted)
        }),
    ],
};

fn seek_segment(cx: &mut Context, values: &mut Values) -> Outcome {
    let (key, page) = (values.number("key")?, sys::page_size());
    let (map, wanted, _own): (Map, _, Option<Segment>) = if values.expects(Shared::Ipc)? {
        let id = cx.expect_ok(|| sys::shmget(key, 0, 0))?;
        cx.expect_eq("identifier", id, values.number("id")?)?;
        (Map::attached(cx.expect_ok(|| sys::shmat(id, 0))?, page), FROM_MAKER.to_vec(), None)
    } else {
        cx.expect_errno(ENOENT, || sys::shmget(key, 0, 0))?;
        // Here the key is free, and names another segment.
        let own = cx.segment(key, page, 0o600)?;
        (own.attach(0)?, vec![0; FROM_MAKER.len()], Some(own))
    };
    cx.expect_eq("the segment of the key", map.read_all(0, FROM_MAKER.len()), wanted)?;
    map.write_all(SEEKERS_PLACE, FROM_SEEKER);
    Ok(())
}

const SET: Scenario = Scenario {
    probe: Probe {
        title: "a semaphore set is found by its key where the namespace is shared",
        why: "a lock that each container makes for itself locks nothing: both write at once and the file is torn",
        varies: VARIES_IPC,
        fix: FIX,
        spec: &[doc("ipc_namespaces(7)", "DESCRIPTION"), man("semget(2)", "DESCRIPTION")],
        calls: &[Sys::Semget, Sys::Semop, Sys::Semctl],
        ..Scenario::probe("scenario.sysv-sem.by-key")
    },
    shares: &[],
    parties: PARTIES,
    steps: &[
        Step::new(MAKER, "the maker sets a semaphore to 7", |cx, values| {
            let set = SemSet::get(cx.fresh_key(), 1, IPC_CREAT | IPC_EXCL | 0o666)?;
            set.set(0, 7)?;
            values.set("key", set.key);
            values.set("id", set.id);
            cx.keep("set", set);
            Ok(())
        }),
        Step::new(SEEKER, "the seeker asks for the key and takes 3", |cx, values| {
            let key = values.number("key")?;
            if values.expects(Shared::Ipc)? {
                let id = cx.expect_ok(|| sys::semget(key, 0, 0))?;
                cx.expect_eq("identifier", id, values.number("id")?)?;
                cx.expect_eq("value", sys::semctl(id, 0, sys::GETVAL)?, 7)?;
                return cx.expect_ok(|| sys::semop(id, &[SemOp::add(0, -3).nowait()]));
            }
            cx.expect_errno(ENOENT, || sys::semget(key, 0, 0))?;
            let own = SemSet::get(key, 1, IPC_CREAT | IPC_EXCL | 0o600)?;
            cx.expect_eq("value of the seeker's own set", own.value(0)?, 0)
        }),
        Step::new(MAKER, "the maker reads the value", |cx, values| {
            let wanted = if values.expects(Shared::Ipc)? { 4 } else { 7 };
            let set: SemSet = cx.take("set")?;
            cx.expect_eq("value", set.value(0)?, wanted)
        }),
    ],
};

const QUEUE: Scenario = Scenario {
    probe: Probe {
        title: "a System V queue is found by its key where the namespace is shared",
        why: "a worker in another container never gets a job, and the queue that operators look at stays empty",
        varies: VARIES_IPC,
        fix: FIX,
        spec: &[doc("ipc_namespaces(7)", "DESCRIPTION"), man("msgget(2)", "DESCRIPTION")],
        calls: &[Sys::Msgget, Sys::Msgsnd, Sys::Msgrcv, Sys::Msgctl],
        ..Scenario::probe("scenario.sysv-msg.by-key")
    },
    shares: &[],
    parties: PARTIES,
    steps: &[
        Step::new(MAKER, "the maker sends a message", |cx, values| {
            let queue = cx.msg_queue(0o666)?;
            queue.put(1, FROM_MAKER)?;
            values.set("key", queue.key);
            cx.keep("queue", queue);
            Ok(())
        }),
        Step::new(SEEKER, "the seeker asks for the key, receives and answers", |cx, values| {
            let key = values.number("key")?;
            if values.expects(Shared::Ipc)? {
                let id = cx.expect_ok(|| sys::msgget(key, 0))?;
                let message = cx.expect_ok(|| sys::msgrcv(id, 512, 0, libc::IPC_NOWAIT))?;
                cx.expect_eq("message", (message.kind, message.text), (1, FROM_MAKER.to_vec()))?;
                return cx.expect_ok(|| sys::msgsnd(id, 2, FROM_SEEKER, libc::IPC_NOWAIT));
            }
            cx.expect_errno(ENOENT, || sys::msgget(key, 0))?;
            let own = MsgQueue::get(key, IPC_CREAT | IPC_EXCL | 0o600)?;
            cx.expect_eq("messages in the seeker's own queue", own.stat()?.qnum, 0)
        }),
        Step::new(MAKER, "the maker receives", |cx, values| {
            let wanted =
                if values.expects(Shared::Ipc)? { (2, FROM_SEEKER.to_vec()) } else { (1, FROM_MAKER.to_vec()) };
            let queue: MsgQueue = cx.take("queue")?;
            cx.expect_eq("message", queue.take(0, libc::IPC_NOWAIT)?, wanted)
        }),
    ],
};

/// The tables of /proc/sysvipc.
const TABLES: [&str; 3] = ["shm", "sem", "msg"];

const LISTED: Scenario = Scenario {
    probe: Probe {
        title: "/proc/sysvipc lists another's objects where the namespace is shared",
        why: "operators run ipcs in a container to see who holds what: objects that are missing there were never shared",
        varies: VARIES_IPC,
        fix: FIX,
        spec: &[doc("proc_sysvipc(5)", "DESCRIPTION"), doc("ipc_namespaces(7)", "DESCRIPTION")],
        calls: &[Sys::Shmget, Sys::Semget, Sys::Msgget],
        needs: &[Need::Path("/proc/sysvipc/shm"), Need::Path("/proc/sysvipc/sem"), Need::Path("/proc/sysvipc/msg")],
        ..Scenario::probe("scenario.sysv.listed")
    },
    shares: &[],
    parties: PARTIES,
    steps: &[
        Step::new(MAKER, "the maker makes a segment, a set and a queue", |cx, values| {
            let key = cx.fresh_key();
            values.set("key", key);
            let segment = cx.segment(key, sys::page_size(), 0o600)?;
            cx.keep("segment", segment);
            cx.keep("set", SemSet::get(key, 1, IPC_CREAT | IPC_EXCL | 0o600)?);
            cx.keep("queue", MsgQueue::get(key, IPC_CREAT | IPC_EXCL | 0o600)?);
            expect_listed(cx, key, true)
        }),
        Step::new(SEEKER, "the seeker reads its tables", |cx, values| {
            expect_listed(cx, values.number("key")?, values.expects(Shared::Ipc)?)
        }),
    ],
};

fn expect_listed(cx: &Context, key: i32, wanted: bool) -> Outcome {
    for table in TABLES {
        let rows = procfs::sysvipc(table)?;
        let keys = rows.iter().map(|row| row.number("key")).collect::<Result<Vec<i64>, Stop>>()?;
        cx.expect_eq(&format!("listed in /proc/sysvipc/{table}"), keys.contains(&i64::from(key)), wanted)?;
    }
    Ok(())
}
