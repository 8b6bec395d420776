//! Waiting for each other across the border: objects of the C library in memory that two environments share.

use super::{FIX, MAKER, PARTIES, SEEKER, VARIES_IPC, VARIES_SHM};
use libc::{CLOCK_REALTIME, EOWNERDEAD, O_RDWR};
use shmcheck_probe::sys::futex::after;
use shmcheck_probe::sys::pthread::{Mutex, MutexKind};
use shmcheck_probe::sys::sync::Sem;
use shmcheck_probe::{
    Act, Context, Map, Need, Object, Outcome, Peer, Probe, Scenario, Segment, Shared, Step, Sys, Values, doc, kernel,
    man, sys,
};
use std::time::Duration;

/// The scenarios of this file.
pub(super) const SCENARIOS: &[&Scenario] = &[&WAKE, &EXCLUDES, &OWNER_DIES];

/// How long a wake-up may take before it is lost: far above what a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(4);

const WAKE: Scenario = Scenario {
    probe: Probe {
        title: "a post in one environment wakes a waiter in the other",
        why: "a lost wake-up between containers is a request that never comes back while both sides look idle",
        varies: VARIES_IPC,
        fix: FIX,
        spec: &[
            man("futex(2)", "FUTEX_WAKE"),
            man("sem_init(3)", "DESCRIPTION"),
            kernel("kernel/futex/core.c", "get_futex_key"),
        ],
        calls: &[Sys::Shmget, Sys::Shmat, Sys::Futex],
        ..Scenario::probe("scenario.sync.post-wakes")
    },
    shares: &[Shared::Ipc],
    parties: PARTIES,
    steps: &[
        Step::new(MAKER, "the maker waits for a semaphore in a segment", |cx, values| {
            let segment = cx.segment(libc::IPC_PRIVATE, sys::page_size(), 0o666)?;
            let map = segment.attach(0)?;
            Sem::at(&map, 0).init(true, 0)?;
            let waiter =
                cx.fork(|cx| cx.expect_ok(|| Sem::at(&map, 0).timed_wait(&after(CLOCK_REALTIME, PATIENCE))))?;
            cx.until_sleeping_in(waiter.pid(), &[Sys::Futex])?;
            values.set("id", segment.id);
            cx.keep("waiter", waiter);
            cx.keep("map", map);
            cx.keep("segment", segment);
            Ok(())
        }),
        Step::new(SEEKER, "the seeker posts", |cx, values| {
            let id = values.number("id")?;
            let map = Map::attached(cx.expect_ok(|| sys::shmat(id, 0))?, sys::page_size());
            cx.expect_ok(|| Sem::at(&map, 0).post())
        }),
        Step::new(MAKER, "the waiter goes on", |cx, _| {
            let waiter: Peer<()> = cx.take("waiter")?;
            waiter.join()?;
            let value = Sem::at(cx.kept::<Map>("map")?, 0).value()?;
            cx.expect_eq("value after the wait", value, 0)
        }),
    ],
};

/// An object with a robust mutex, locked by the maker; its name is in the values.
fn lock(cx: &mut Context, values: &mut Values) -> Outcome {
    sys::umask(0);
    let object = Object::create(cx.fresh_name(), sys::page_size(), 0o666)?;
    let map = object.map(sys::page_size())?;
    let mutex = Mutex::at(&map, 0);
    mutex.init(MutexKind::ROBUST)?;
    mutex.lock()?;
    values.set("name", object.name.clone());
    cx.keep("map", map);
    cx.keep("object", object);
    Ok(())
}

fn open(cx: &Context, values: &Values) -> Result<Map, shmcheck_probe::Stop> {
    let name = values.text("name")?;
    let fd = cx.expect_ok(|| sys::shm_open(name, O_RDWR, 0))?;
    Ok(Map::shared(&fd, sys::page_size())?)
}

const EXCLUDES: Scenario = Scenario {
    probe: Probe {
        title: "a process-shared mutex held in one environment is held in the other",
        why: "a cache that two containers map is written by both at once where the lock does not cross the border",
        varies: VARIES_SHM,
        fix: FIX,
        spec: &[man("pthread_mutexattr_setpshared(3)", "DESCRIPTION"), doc("POSIX.1-2017", "pthread_mutex_trylock()")],
        calls: &[Sys::Mmap, Sys::Futex],
        needs: &[Need::DevShm],
        ..Scenario::probe("scenario.sync.mutex-excludes")
    },
    shares: &[Shared::DevShm],
    parties: PARTIES,
    steps: &[
        Step::new(MAKER, "the maker locks", lock),
        Step::new(SEEKER, "the seeker tries", |cx, values| {
            let map = open(cx, values)?;
            cx.expect_errno(libc::EBUSY, || Mutex::at(&map, 0).try_lock())?;
            cx.keep("map", map);
            Ok(())
        }),
        Step::new(MAKER, "the maker unlocks", |cx, _| Ok(Mutex::at(cx.kept::<Map>("map")?, 0).unlock()?)),
        Step::new(SEEKER, "the seeker tries again", |cx, _| {
            let map: Map = cx.take("map")?;
            cx.expect_ok(|| Mutex::at(&map, 0).try_lock())?;
            cx.expect_ok(|| Mutex::at(&map, 0).unlock())
        }),
    ],
};

const OWNER_DIES: Scenario = Scenario {
    probe: Probe {
        title: "who locks after the owner was killed elsewhere gets EOWNERDEAD",
        why: "a container is killed for its memory while it holds the lock: without this all others wait for ever",
        varies: "needs the same memory in both; the kernel tells by the dying thread's number in its own pid namespace",
        fix: FIX,
        spec: &[man("pthread_mutexattr_setrobust(3)", "EOWNERDEAD"), kernel("kernel/futex/core.c", "exit_robust_list")],
        calls: &[Sys::Mmap, Sys::Futex, Sys::Shmget, Sys::Shmat],
        ..Scenario::probe("scenario.sync.owner-dies")
    },
    shares: &[Shared::Ipc],
    parties: PARTIES,
    steps: &[
        Step::new(SEEKER, "the seeker makes a segment", |cx, values| {
            let segment = cx.segment(libc::IPC_PRIVATE, sys::page_size(), 0o666)?;
            let map = segment.attach(0)?;
            Mutex::at(&map, 0).init(MutexKind::ROBUST)?;
            values.set("id", segment.id);
            cx.keep("map", map);
            cx.keep("segment", segment);
            Ok(())
        }),
        Step::new(MAKER, "the maker locks", |cx, values| {
            let map = Map::attached(sys::shmat(values.number("id")?, 0)?, sys::page_size());
            Mutex::at(&map, 0).lock()?;
            cx.keep("map", map);
            Ok(())
        }),
        Step::plain(MAKER, "the maker is killed", Act::Killed),
        Step::new(SEEKER, "the seeker locks", |cx, _| {
            let _segment: Segment = cx.take("segment")?;
            let map: Map = cx.take("map")?;
            let mutex = Mutex::at(&map, 0);
            cx.expect_errno(EOWNERDEAD, || mutex.timed_lock(&after(CLOCK_REALTIME, PATIENCE)))?;
            cx.expect_ok(|| mutex.consistent())?;
            cx.expect_ok(|| mutex.unlock())?;
            cx.expect_ok(|| mutex.try_lock())
        }),
    ],
};
