//! Who sees whose POSIX objects: shared memory and named semaphores through /dev/shm, queues through the IPC namespace.

use super::{FIX, FROM_MAKER, FROM_SEEKER, MAKER, PARTIES, SEEKER, SEEKERS_PLACE, VARIES_SHM};
use libc::{ENOENT, O_CREAT, O_EXCL, O_NONBLOCK, O_RDWR};
use shmcheck_probe::guard_queue::SMALL_MQ;
use shmcheck_probe::sys::sync::{SemName, open_sem};
use shmcheck_probe::{
    Context, Map, MqQueue, Need, Object, Outcome, Probe, Scenario, Shared, Step, Sys, Values, doc, man, sys,
};

/// The scenarios of this file.
pub(super) const SCENARIOS: &[&Scenario] = &[&OBJECT, &SEMAPHORE, &QUEUE];

const OBJECT: Scenario = Scenario {
    probe: Probe {
        title: "a shared memory object is found by name where /dev/shm is shared",
        why: "a sidecar that was to read a model server's buffers finds no such file, although both have a /dev/shm",
        varies: VARIES_SHM,
        fix: FIX,
        spec: &[
            doc("shm_overview(7)", "Accessing shared memory objects via the filesystem"),
            man("shm_open(3)", "NOTES"),
        ],
        calls: &[Sys::Ftruncate, Sys::Mmap],
        needs: &[Need::DevShm],
        ..Scenario::probe("scenario.posix-shm.by-name")
    },
    shares: &[],
    parties: PARTIES,
    steps: &[
        Step::new(MAKER, "the maker writes into a new object", |cx, values| {
            sys::umask(0);
            let object = Object::create(cx.fresh_name(), sys::page_size(), 0o666)?;
            let map = object.map(sys::page_size())?;
            map.write_all(0, FROM_MAKER);
            values.set("name", object.name.clone());
            cx.keep("map", map);
            cx.keep("object", object);
            Ok(())
        }),
        Step::new(SEEKER, "the seeker opens the name", seek_object),
        Step::new(MAKER, "the maker reads what the seeker wrote", |cx, values| {
            let shared = values.expects(Shared::DevShm)?;
            let wanted = if shared { FROM_SEEKER.to_vec() } else { vec![0; FROM_SEEKER.len()] };
            let map: Map = cx.take("map")?;
            cx.expect_eq("the maker's object", map.read_all(SEEKERS_PLACE, FROM_SEEKER.len()), wanted)
        }),
    ],
};

fn seek_object(cx: &mut Context, values: &mut Values) -> Outcome {
    let (name, page) = (values.text("name")?.to_owned(), sys::page_size());
    let (map, wanted, _own): (Map, _, Option<Object>) = if values.expects(Shared::DevShm)? {
        let fd = cx.expect_ok(|| sys::shm_open(&name, O_RDWR, 0))?;
        (Map::shared(&fd, page)?, FROM_MAKER.to_vec(), None)
    } else {
        cx.expect_errno(ENOENT, || sys::shm_open(&name, O_RDWR, 0))?;
        // Here the name is free, and names another object.
        let own = Object::create(name, page, 0o600)?;
        (own.map(page)?, vec![0; FROM_MAKER.len()], Some(own))
    };
    cx.expect_eq("the object of the name", map.read_all(0, FROM_MAKER.len()), wanted)?;
    map.write_all(SEEKERS_PLACE, FROM_SEEKER);
    Ok(())
}

const SEMAPHORE: Scenario = Scenario {
    probe: Probe {
        title: "a named semaphore is found by its name where /dev/shm is shared",
        why: "each container opens a semaphore of its own by the same name; both enter at once and nobody sees why",
        varies: VARIES_SHM,
        fix: FIX,
        spec: &[doc("sem_overview(7)", "Accessing named semaphores via the filesystem"), man("sem_open(3)", "ENOENT")],
        calls: &[Sys::Mmap, Sys::Futex],
        needs: &[Need::DevShm],
        ..Scenario::probe("scenario.posix-sem.by-name")
    },
    shares: &[],
    parties: PARTIES,
    steps: &[
        Step::new(MAKER, "the maker makes a semaphore with value 5", |cx, values| {
            sys::umask(0);
            let name = SemName::new(cx.fresh_name());
            let sem = open_sem(&name.name, O_CREAT | O_EXCL, 0o666, 5)?;
            values.set("name", name.name.clone());
            cx.keep("sem", sem);
            cx.keep("name", name);
            Ok(())
        }),
        Step::new(SEEKER, "the seeker opens the name and takes one", |cx, values| {
            let name = values.text("name")?;
            if values.expects(Shared::DevShm)? {
                let sem = cx.expect_ok(|| open_sem(name, 0, 0, 0))?;
                cx.expect_eq("value", sem.value()?, 5)?;
                cx.expect_ok(|| sem.try_wait())?;
                return Ok(sem.close()?);
            }
            cx.expect_errno(ENOENT, || open_sem(name, 0, 0, 0).map(|sem| sem.address()))
        }),
        Step::new(MAKER, "the maker reads the value", |cx, values| {
            let wanted = if values.expects(Shared::DevShm)? { 4 } else { 5 };
            let sem: sys::sync::Sem<'static> = cx.take("sem")?;
            cx.expect_eq("value", sem.value()?, wanted)
        }),
    ],
};

const QUEUE: Scenario = Scenario {
    probe: Probe {
        title: "a POSIX queue is found by its name where the namespace is shared",
        why: "a logger in another container opens the queue and gets ENOENT while /dev/mqueue is mounted in both",
        varies: "POSIX queues belong to the IPC namespace, not to the mount on /dev/mqueue: where that one is shared and \
                 the namespace is not, mq_open finds nothing (moby#36674 is the mount alone)",
        fix: FIX,
        spec: &[doc("mq_overview(7)", "IPC namespaces"), doc("ipc_namespaces(7)", "DESCRIPTION")],
        calls: &[Sys::MqOpen, Sys::MqUnlink, Sys::MqTimedsend, Sys::MqTimedreceive],
        ..Scenario::probe("scenario.posix-mq.by-name")
    },
    shares: &[],
    parties: PARTIES,
    steps: &[
        Step::new(MAKER, "the maker sends a message", |cx, values| {
            sys::umask(0);
            let queue = cx.mq_with(O_NONBLOCK, 0o666, &SMALL_MQ)?;
            queue.send(FROM_MAKER, 1)?;
            values.set("name", queue.name.clone());
            cx.keep("queue", queue);
            Ok(())
        }),
        Step::new(SEEKER, "the seeker opens the name, receives and answers", |cx, values| {
            let name = values.text("name")?;
            if values.expects(Shared::Ipc)? {
                let queue = cx.expect_ok(|| sys::mq_open(name, O_RDWR | O_NONBLOCK, 0, None))?;
                let fd = std::os::fd::AsRawFd::as_raw_fd(&queue);
                let message = cx.expect_ok(|| sys::mq_receive(fd, 64))?;
                cx.expect_eq("message", message, (FROM_MAKER.to_vec(), 1))?;
                return cx.expect_ok(|| sys::mq_send(fd, FROM_SEEKER, 2));
            }
            cx.expect_errno(ENOENT, || sys::mq_open(name, O_RDWR | O_NONBLOCK, 0, None))
        }),
        Step::new(MAKER, "the maker receives", |cx, values| {
            let shared = values.expects(Shared::Ipc)?;
            let wanted = if shared { (FROM_SEEKER.to_vec(), 2) } else { (FROM_MAKER.to_vec(), 1) };
            let queue: MqQueue = cx.take("queue")?;
            cx.expect_eq("message", queue.receive()?, wanted)
        }),
    ],
};
