//! sem_wait(3), sem_post(3), sem_getvalue(3), sem_init(3): semaphores between processes, made in shared memory.

use super::memory::Memory;
use super::tools::{LOST, SHORT, Said, asleep, asleep_again, bad_nanos, done, expect_said, lost, sleeper};
use libc::{CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_REALTIME, EAGAIN, EINTR, EINVAL, EOVERFLOW, ETIMEDOUT};
use shmcheck_probe::sys::again::{Again, exec_again, keep_on_exec};
use shmcheck_probe::sys::futex;
use shmcheck_probe::sys::sync::{SEM_VALUE_MAX, Sem};
use shmcheck_probe::{Clause, Context, Exit, Isolate, Map, Outcome, Peer, Probe, Stop, Sys, man, posix, sys};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::SeqCst;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &INIT_MAX,
    &INIT_EINVAL,
    &DESTROY_INIT,
    &COUNTS,
    &TRYWAIT_EAGAIN,
    &POST_WAKES,
    &POST_WAKES_ONE,
    &POST_OVERFLOW,
    &VALUE_WITH_WAITERS,
    &PING_PONG,
    &LIMIT_REALTIME,
    &LIMIT_CLOCK,
    &LIMIT_NANOS,
    &LIMIT_CLOCK_EINVAL,
    &LIMIT_UNUSED,
    &LIMIT_POSTED,
    &HANDLER_EINTR,
    &HANDLER_RESTART,
    &TIMED_HANDLER,
    &KILLED_WAITER,
    &EXEC_MEMFD,
    &EXEC_SEGMENT,
];

#[track_caller]
const fn probe(
    id: &'static str,
    title: &'static str,
    why: &'static str,
    spec: &'static [Clause],
    run: fn(&mut Context) -> Outcome,
) -> Probe {
    Probe { title, why, spec, calls: &[Sys::Futex], isolate: Isolate::Cell, ..Probe::new(id, run) }
}

/// A semaphore in memory that forked peers share.
fn memory(value: u32) -> sys::Result<Map> {
    let map = Map::shared_anonymous(sys::page_size())?;
    at(&map).init(true, value)?;
    Ok(map)
}

fn at(map: &Map) -> Sem<'_> {
    Sem::at(map, 0)
}

/// A peer that sleeps on the semaphore, at most until its post counts as lost.
fn waiter(cx: &mut Context, map: &Map) -> Result<Peer<Said>, Stop> {
    let limit = lost();
    sleeper(cx, || done(at(map).timed_wait(&limit)))
}

fn expect_value(cx: &Context, map: &Map, wanted: i32) -> Outcome {
    cx.expect_eq("the semaphore's value", at(map).value()?, wanted)
}

const INIT_MAX: Probe = probe(
    "sync.sem.init.value-max",
    "sem_init takes SEM_VALUE_MAX as a value",
    "a port from another system assumes at least 32767; Linux has 2147483647",
    &[man("sem_init(3)", ""), posix("sem_init")],
    |cx| {
        let map = memory(SEM_VALUE_MAX)?;
        expect_value(cx, &map, i32::MAX)?;
        cx.expect_ok(|| at(&map).wait())?;
        expect_value(cx, &map, i32::MAX - 1)
    },
);
const INIT_EINVAL: Probe = probe(
    "sync.sem.init.value-einval",
    "sem_init with a value above SEM_VALUE_MAX: EINVAL",
    "a negative number passed as unsigned would be a semaphore that never blocks",
    &[man("sem_init(3)", "EINVAL")],
    |cx| {
        let map = memory(3)?;
        for value in [SEM_VALUE_MAX + 1, u32::MAX] {
            cx.expect_errno(EINVAL, || at(&map).init(true, value))?;
        }
        expect_value(cx, &map, 3)
    },
);
const DESTROY_INIT: Probe = probe(
    "sync.sem.destroy.init-anew",
    "a destroyed semaphore can be made anew in the same place",
    "servers re-initialise their segment at start instead of removing it",
    &[man("sem_destroy(3)", ""), posix("sem_destroy")],
    |cx| {
        let map = memory(1)?;
        cx.expect_ok(|| at(&map).destroy())?;
        cx.expect_ok(|| at(&map).init(true, 4))?;
        let seen = cx.elsewhere(|_| Ok(at(&map).value()?))?;
        cx.expect_eq("the value seen by another process", seen, 4)
    },
);
const COUNTS: Probe = probe(
    "sync.sem.wait.counts",
    "posts of one process are what another can take, no more",
    "a credit too many is a buffer used twice, one too few a buffer lost",
    &[man("sem_wait(3)", ""), man("sem_post(3)", "")],
    |cx| {
        let map = memory(0)?;
        cx.elsewhere(|_| (0..3).try_for_each(|_| Ok(at(&map).post()?)))?;
        expect_value(cx, &map, 3)?;
        for left in [2, 1, 0] {
            cx.expect_ok(|| at(&map).wait())?;
            expect_value(cx, &map, left)?;
        }
        cx.expect_errno(EAGAIN, || at(&map).try_wait())
    },
);
const TRYWAIT_EAGAIN: Probe = probe(
    "sync.sem.trywait.eagain",
    "sem_trywait on a semaphore at zero: EAGAIN, and it stays at zero",
    "polling must not change the count: below zero the next post is swallowed",
    &[man("sem_wait(3)", "EAGAIN")],
    |cx| {
        let map = memory(1)?;
        cx.expect_ok(|| at(&map).try_wait())?;
        for _ in 0..3 {
            cx.expect_errno(EAGAIN, || at(&map).try_wait())?;
        }
        expect_value(cx, &map, 0)?;
        cx.expect_ok(|| at(&map).post())?;
        cx.expect_ok(|| at(&map).try_wait())
    },
);
const POST_WAKES: Probe = probe(
    "sync.sem.post.wakes-elsewhere",
    "sem_post wakes a process that sleeps in sem_wait without a limit",
    "the plainest use of all; a semaphore made with pshared 0 counts correctly and wakes nobody",
    &[man("sem_post(3)", ""), posix("sem_post")],
    |cx| {
        let map = memory(0)?;
        let peer = sleeper(cx, || done(at(&map).wait()))?;
        cx.expect_ok(|| at(&map).post())?;
        expect_said("sem_wait", &peer.join()?, &Ok(0))?;
        expect_value(cx, &map, 0)
    },
);
const POST_WAKES_ONE: Probe = probe(
    "sync.sem.post.one-passes",
    "one post lets one of two waiting processes pass",
    "two workers with one job is a job done twice",
    &[man("sem_post(3)", ""), posix("sem_post")],
    |cx| {
        let map = memory(0)?;
        let limit = lost();
        let pass = || {
            let answer = done(at(&map).timed_wait(&limit));
            map.atomic(64).fetch_add(1, SeqCst);
            answer
        };
        let peers = [sleeper(cx, pass)?, sleeper(cx, pass)?];
        for wanted in [1, 2] {
            cx.expect_ok(|| at(&map).post())?;
            super::tools::expect_soon("sem_post", "a process passes", || Ok(map.atomic(64).load(SeqCst) >= wanted))?;
            cx.expect_eq("processes that passed", map.atomic(64).load(SeqCst), wanted)?;
            expect_value(cx, &map, 0)?;
        }
        peers.into_iter().try_for_each(|peer| expect_said("sem_wait", &peer.join()?, &Ok(0)))
    },
);
const POST_OVERFLOW: Probe = probe(
    "sync.sem.post.eoverflow",
    "sem_post at SEM_VALUE_MAX: EOVERFLOW, and the value stays",
    "a loop that posts by mistake must end in an error, not in a semaphore that wrapped to zero",
    &[man("sem_post(3)", "EOVERFLOW")],
    |cx| {
        let map = memory(SEM_VALUE_MAX - 1)?;
        cx.expect_ok(|| at(&map).post())?;
        cx.expect_errno(EOVERFLOW, || at(&map).post())?;
        expect_value(cx, &map, i32::MAX)
    },
);
const VALUE_WITH_WAITERS: Probe = probe(
    "sync.sem.getvalue.waiters-zero",
    "sem_getvalue gives 0 while processes wait, not their number",
    "POSIX allows both; programs written for one misread the other as a corrupt semaphore",
    &[man("sem_getvalue(3)", "")],
    |cx| {
        let map = memory(0)?;
        let peers = [waiter(cx, &map)?, waiter(cx, &map)?];
        expect_value(cx, &map, 0)?;
        // Any of them may take any post: both are there before the first is joined.
        cx.expect_ok(|| at(&map).post())?;
        cx.expect_ok(|| at(&map).post())?;
        peers.into_iter().try_for_each(|peer| expect_said("sem_timedwait", &peer.join()?, &Ok(0)))
    },
);
const PING_PONG: Probe = probe(
    "sync.sem.post.none-lost",
    "no post is lost in many turns between two processes",
    "a lost one shows after hours: the pipeline stands and both sides wait for each other",
    &[posix("sem_post")],
    |cx| {
        const TURNS: u32 = 300;
        let map = Map::shared_anonymous(sys::page_size())?;
        let (ping, pong) = (Sem::at(&map, 0), Sem::at(&map, 64));
        ping.init(true, 0)?;
        pong.init(true, 0)?;
        let peer = cx.fork(|cx| {
            for _ in 0..TURNS {
                cx.expect_ok(|| ping.timed_wait(&lost()))?;
                map.atomic(128).fetch_add(1, SeqCst);
                cx.expect_ok(|| pong.post())?;
            }
            Ok(())
        })?;
        for turn in 1..=TURNS {
            cx.expect_ok(|| ping.post())?;
            cx.expect_ok(|| pong.timed_wait(&lost()))?;
            cx.expect_eq("turns of the other process", map.atomic(128).load(SeqCst), turn)?;
        }
        peer.join()
    },
);

fn not_early(cx: &Context, clock: i32, wait: fn(Sem, &libc::timespec) -> sys::Result<()>) -> Outcome {
    let map = memory(0)?;
    let end = futex::after(clock, SHORT);
    cx.expect_errno(ETIMEDOUT, || wait(at(&map), &end))?;
    cx.expect("the time on return", futex::reached(clock, &end), "the limit or later", sys::clock(clock))?;
    expect_value(cx, &map, 0)
}

const LIMIT_REALTIME: Probe = probe(
    "sync.sem.timedwait.not-early",
    "sem_timedwait gives ETIMEDOUT no earlier than its wall-clock limit",
    "a consumer with a watchdog restarts its producer too soon",
    &[man("sem_wait(3)", "ETIMEDOUT")],
    |cx| not_early(cx, CLOCK_REALTIME, |sem, end| sem.timed_wait(end)),
);
const LIMIT_CLOCK: Probe = probe(
    "sync.sem.clockwait.not-early",
    "sem_clockwait waits by the clock that it is given",
    "std::counting_semaphore's try_acquire_for depends on it",
    &[posix("sem_clockwait")],
    |cx| {
        not_early(cx, CLOCK_MONOTONIC, |sem, end| sem.clock_wait(CLOCK_MONOTONIC, end))?;
        not_early(cx, CLOCK_REALTIME, |sem, end| sem.clock_wait(CLOCK_REALTIME, end))
    },
);
const LIMIT_NANOS: Probe = probe(
    "sync.sem.timedwait.nanos-einval",
    "a limit of impossible nanoseconds is refused: EINVAL",
    "deadlines are sums; one that was not carried over must be an error",
    &[man("sem_wait(3)", "EINVAL")],
    |cx| {
        let map = memory(0)?;
        for nanos in [-1, 1_000_000_000] {
            cx.expect_errno(EINVAL, || at(&map).timed_wait(&bad_nanos(nanos)))?;
            cx.expect_errno(EINVAL, || at(&map).clock_wait(CLOCK_MONOTONIC, &bad_nanos(nanos)))?;
        }
        expect_value(cx, &map, 0)
    },
);
const LIMIT_CLOCK_EINVAL: Probe = probe(
    "sync.sem.clockwait.clock-einval",
    "sem_clockwait with a CPU-time clock: EINVAL",
    "such a clock stands still while the process sleeps",
    &[posix("sem_clockwait")],
    |cx| {
        let map = memory(0)?;
        let end = futex::after(CLOCK_MONOTONIC, SHORT);
        cx.expect_errno(EINVAL, || at(&map).clock_wait(CLOCK_PROCESS_CPUTIME_ID, &end))
    },
);
const LIMIT_UNUSED: Probe = probe(
    "sync.sem.timedwait.past-limit-free",
    "a semaphore above zero is taken whatever the limit, even one in the past",
    "code that is late must not leave behind what is there to be taken",
    &[man("sem_wait(3)", "sem_timedwait()")],
    |cx| {
        let map = memory(1)?;
        cx.expect_ok(|| at(&map).timed_wait(&libc::timespec { tv_sec: 0, tv_nsec: 0 }))?;
        expect_value(cx, &map, 0)
    },
);
const LIMIT_POSTED: Probe = probe(
    "sync.sem.timedwait.posted",
    "a post from another process ends sem_timedwait before its limit",
    "the usual form of waiting with a watchdog",
    &[man("sem_wait(3)", "sem_timedwait()")],
    |cx| {
        let map = memory(0)?;
        let peer = waiter(cx, &map)?;
        cx.expect_ok(|| at(&map).post())?;
        expect_said("sem_timedwait", &peer.join()?, &Ok(0))
    },
);

/// A peer with a handler that sleeps in `wait`.
fn with_handler(cx: &mut Context, map: &Map, flags: i32, wait: fn(Sem) -> sys::Result<()>) -> Result<Peer<Said>, Stop> {
    let peer = cx.fork(|_| {
        futex::catch_signal(flags)?;
        Ok(done(wait(at(map))))
    })?;
    asleep(cx, peer)
}

const HANDLER_EINTR: Probe = probe(
    "sync.sem.wait.handler-eintr",
    "a signal handler ends sem_wait with EINTR, and nothing is taken",
    "services leave their main loop this way; the next post must still be there for others",
    &[man("sem_wait(3)", "EINTR")],
    |cx| {
        let map = memory(0)?;
        let peer = with_handler(cx, &map, 0, |sem| sem.wait())?;
        peer.signal(futex::SIGNAL)?;
        expect_said("sem_wait", &peer.join()?, &Err(EINTR))?;
        cx.expect_ok(|| at(&map).post())?;
        expect_value(cx, &map, 1)
    },
);
const HANDLER_RESTART: Probe = probe(
    "sync.sem.wait.handler-restart",
    "with SA_RESTART a handler does not end sem_wait",
    "libraries that do not loop on EINTR rely on the flag",
    &[man("signal(7)", "SA_RESTART")],
    |cx| {
        let map = memory(0)?;
        let peer = with_handler(cx, &map, libc::SA_RESTART, |sem| sem.wait())?;
        peer.signal(futex::SIGNAL)?;
        let peer = asleep_again(cx, peer)?;
        cx.expect_ok(|| at(&map).post())?;
        expect_said("sem_wait", &peer.join()?, &Ok(0))
    },
);
const TIMED_HANDLER: Probe = probe(
    "sync.sem.timedwait.handler-eintr",
    "a signal handler ends sem_timedwait with EINTR",
    "a wait of an hour must not keep the process from stopping",
    &[man("sem_wait(3)", "EINTR")],
    |cx| {
        let map = memory(0)?;
        let peer = with_handler(cx, &map, 0, |sem| sem.timed_wait(&futex::after(CLOCK_REALTIME, LOST)))?;
        peer.signal(futex::SIGNAL)?;
        expect_said("sem_timedwait", &peer.join()?, &Err(EINTR))?;
        expect_value(cx, &map, 0)
    },
);
const KILLED_WAITER: Probe = probe(
    "sync.sem.wait.killed-waiter",
    "a waiting process that is killed takes no post from the others",
    "a pool loses a worker and must not lose a job with it",
    &[posix("sem_post")],
    |cx| {
        let map = memory(0)?;
        let (dead, alive) = (waiter(cx, &map)?, waiter(cx, &map)?);
        dead.kill()?;
        cx.expect_ok(|| at(&map).post())?;
        expect_said("sem_timedwait of the living one", &alive.join()?, &Ok(0))?;
        expect_value(cx, &map, 0)
    },
);
const EXEC_MEMFD: Probe = Probe {
    calls: &[Sys::Futex, Sys::MemfdCreate],
    ..probe(
        "sync.sem.exec.memfd",
        "a program started by execve maps the memfd again and wakes a waiter",
        "launchers pass a descriptor to the next program, which knows neither address nor process",
        &[man("sem_init(3)", ""), posix("sem_init")],
        |cx| {
            let fd = nix::sys::memfd::memfd_create(c"shmcheck", nix::sys::memfd::MFdFlags::empty())?;
            sys::ftruncate(fd.as_raw_fd(), 4096)?;
            let map = Map::shared(&fd, 4096)?;
            keep_on_exec(fd.as_raw_fd())?;
            posted_after_exec(cx, &map, Again::PostMapped(fd.as_raw_fd()))
        },
    )
};
const EXEC_SEGMENT: Probe = Probe {
    isolate: Isolate::Fresh,
    calls: &[Sys::Futex, Sys::Shmget, Sys::Shmat],
    ..probe(
        "sync.sem.exec.segment",
        "a program started by execve attaches the segment and wakes a waiter",
        "execve detaches everything; the semaphore lives in the segment and not in the process",
        &[man("sem_init(3)", ""), man("shmop(2)", "execve")],
        |cx| {
            let memory = Memory::Segment.make(cx)?;
            let Some(id) = memory.segment_id() else { return Err(Stop::broken("a segment without identifier")) };
            posted_after_exec(cx, &memory.map, Again::PostSegment(id))
        },
    )
};
fn posted_after_exec(cx: &mut Context, map: &Map, what: Again) -> Outcome {
    at(map).init(true, 0)?;
    let waiter = waiter(cx, map)?;
    let program = cx.fork(|_| Err::<(), _>(exec_again(what).into()))?;
    expect_said("sem_timedwait", &waiter.join()?, &Ok(0))?;
    cx.expect_eq("the program's end", program.exit()?, Exit::Code(0))
}
