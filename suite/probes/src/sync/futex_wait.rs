//! futex(2): FUTEX_WAIT and FUTEX_WAIT_BITSET between address spaces, time limits, signals, refusals.

use super::tools::{LOST, SHORT, Said, asleep, asleep_again, expect_said, expect_soon, said, sleeper, wait_for_wake};
use libc::{CLOCK_MONOTONIC, CLOCK_REALTIME, EAGAIN, EFAULT, EINTR, ETIMEDOUT};
use shmcheck_probe::sys;
use shmcheck_probe::sys::futex::{self, FUTEX_CLOCK_REALTIME, FUTEX_WAIT, FUTEX_WAIT_BITSET, MATCH_ANY};
use shmcheck_probe::{Context, Isolate, Map, Need, Outcome, Peer, Probe, Stop, Sys, kernel, man, procfs};
use std::sync::atomic::Ordering::SeqCst;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &DIFFERS_EAGAIN,
    &SLEEPS_WHILE_EQUAL,
    &TIMEOUT_RELATIVE,
    &TIMEOUT_ABSOLUTE,
    &TIMEOUT_REALTIME,
    &TIMEOUT_PAST,
    &HANDLER_EINTR,
    &HANDLER_RESTART,
    &STOP_CONTINUES,
    &READ_ONLY,
    &UNTOUCHED_PAGE,
    &TIME_NAMESPACE,
];

/// A probe of this file: pure memory, no namespace.
#[track_caller]
pub(super) const fn probe(
    id: &'static str,
    title: &'static str,
    why: &'static str,
    run: fn(&mut Context) -> Outcome,
) -> Probe {
    Probe { title, why, calls: &[Sys::Futex], isolate: Isolate::Cell, ..Probe::new(id, run) }
}

pub(super) fn page() -> sys::Result<Map> {
    Map::shared_anonymous(sys::page_size())
}

const DIFFERS_EAGAIN: Probe = Probe {
    spec: &[man("futex(2)", "EAGAIN"), man("futex(2)", "EWOULDBLOCK")],
    ..probe(
        "sync.futex.wait.differs-eagain",
        "FUTEX_WAIT does not sleep when another process changed the word",
        "the check and the sleep are one step: without it every lock can sleep through the unlock that it waits for",
        differs_eagain,
    )
};

fn differs_eagain(cx: &mut Context) -> Outcome {
    let map = page()?;
    cx.expect_errno(ETIMEDOUT, || futex::wait(map.address(), 0, SHORT))?;
    cx.elsewhere(|_| {
        map.atomic(0).store(1, SeqCst);
        Ok(())
    })?;
    cx.expect_errno(EAGAIN, || futex::wait(map.address(), 0, LOST))?;
    cx.expect_errno(EAGAIN, || futex::timed(map.address(), FUTEX_WAIT_BITSET, 0, None, 0, MATCH_ANY))?;
    cx.expect_eq("the word", map.atomic(0).load(SeqCst), 1)
}

const SLEEPS_WHILE_EQUAL: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_WAIT")],
    ..probe(
        "sync.futex.wait.store-does-not-wake",
        "a waiter sleeps until it is woken, not until the word changes",
        "lock code stores first and wakes then; a kernel that polls the word instead would burn a core per waiter",
        sleeps_while_equal,
    )
};

fn sleeps_while_equal(cx: &mut Context) -> Outcome {
    let map = page()?;
    let peer = sleeper(cx, || wait_for_wake(map.address(), 0))?;
    map.atomic(0).store(7, SeqCst);
    super::tools::still_asleep(cx, "the waiter after a plain store", &peer)?;
    expect_said("waiters woken", &said(futex::wake(map.address(), 1)), &Ok(1))?;
    expect_said("FUTEX_WAIT", &peer.join()?, &Ok(0))
}

/// A wait that nobody ends gives ETIMEDOUT, and not before the limit.
fn not_early(cx: &Context, op: i32, clock: i32, absolute: bool) -> Outcome {
    let map = page()?;
    let end = futex::after(clock, SHORT);
    let limit = if absolute { end } else { futex::span(SHORT) };
    cx.expect_errno(ETIMEDOUT, || futex::timed(map.address(), op, 0, Some(&limit), 0, MATCH_ANY))?;
    cx.expect("the time on return", futex::reached(clock, &end), "the limit or later", sys::clock(clock))
}

const TIMEOUT_RELATIVE: Probe = Probe {
    spec: &[man("futex(2)", "ETIMEDOUT")],
    ..probe(
        "sync.futex.wait.timeout-relative",
        "FUTEX_WAIT gives ETIMEDOUT no earlier than its relative limit",
        "Go's and Java's parking use it; early returns turn an idle server into a busy one",
        |cx| not_early(cx, FUTEX_WAIT, CLOCK_MONOTONIC, false),
    )
};

const TIMEOUT_ABSOLUTE: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_WAIT_BITSET")],
    ..probe(
        "sync.futex.wait.timeout-absolute",
        "FUTEX_WAIT_BITSET's limit is an absolute time of CLOCK_MONOTONIC",
        "every timed wait of the C library counts on it; a limit taken as relative never ends on a machine that is up for long",
        |cx| not_early(cx, FUTEX_WAIT_BITSET, CLOCK_MONOTONIC, true),
    )
};

const TIMEOUT_REALTIME: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_CLOCK_REALTIME")],
    ..probe(
        "sync.futex.wait.timeout-realtime",
        "with FUTEX_CLOCK_REALTIME the limit is a time on the wall clock",
        "sem_timedwait and pthread_mutex_timedlock pass wall-clock times; measured by the wrong clock they wait for decades",
        |cx| not_early(cx, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, CLOCK_REALTIME, true),
    )
};

const TIMEOUT_PAST: Probe = Probe {
    spec: &[man("futex(2)", "ETIMEDOUT")],
    ..probe(
        "sync.futex.wait.timeout-past",
        "a limit in the past gives ETIMEDOUT although the word is as expected",
        "polling with a limit of now is how timers are checked; an endless sleep there stops the event loop",
        timeout_past,
    )
};

fn timeout_past(cx: &mut Context) -> Outcome {
    let map = page()?;
    let past = libc::timespec { tv_sec: 0, tv_nsec: 1 };
    cx.expect_errno(ETIMEDOUT, || futex::timed(map.address(), FUTEX_WAIT_BITSET, 0, Some(&past), 0, MATCH_ANY))?;
    cx.expect_errno(ETIMEDOUT, || futex::wait(map.address(), 0, std::time::Duration::ZERO))?;
    cx.expect_errno(EAGAIN, || futex::timed(map.address(), FUTEX_WAIT_BITSET, 1, Some(&past), 0, MATCH_ANY))
}

/// A peer with a handler that sleeps on the first word.
fn with_handler(cx: &mut Context, map: &Map, flags: i32, wait: fn(usize) -> Said) -> Result<Peer<Said>, Stop> {
    let peer = cx.fork(|_| {
        futex::catch_signal(flags)?;
        Ok(wait(map.address()))
    })?;
    asleep(cx, peer)
}

/// Waits without limit: the only form that a handler with SA_RESTART does not end.
fn wait_for_ever(address: usize) -> Said {
    said(futex::timed(address, FUTEX_WAIT, 0, None, 0, 0))
}

const HANDLER_EINTR: Probe = Probe {
    spec: &[man("futex(2)", "EINTR")],
    ..probe(
        "sync.futex.wait.handler-eintr",
        "a signal handler ends FUTEX_WAIT with EINTR",
        "a server that waits for work must come back to see that SIGTERM asked it to stop",
        handler_eintr,
    )
};

fn handler_eintr(cx: &mut Context) -> Outcome {
    let map = page()?;
    for wait in [wait_for_ever, |address| wait_for_wake(address, 0)] {
        let peer = with_handler(cx, &map, 0, wait)?;
        peer.signal(futex::SIGNAL)?;
        expect_said("FUTEX_WAIT", &peer.join()?, &Err(EINTR))?;
    }
    expect_said("waiters left", &said(futex::wake(map.address(), 1)), &Ok(0))
}

const HANDLER_RESTART: Probe = Probe {
    spec: &[man("signal(7)", "SA_RESTART")],
    ..probe(
        "sync.futex.wait.handler-restart",
        "with SA_RESTART a handler does not end FUTEX_WAIT",
        "profilers send signals a hundred times a second; a lock that fails at each would break every program under perf",
        handler_restart,
    )
};

fn handler_restart(cx: &mut Context) -> Outcome {
    let map = page()?;
    let peer = with_handler(cx, &map, libc::SA_RESTART, wait_for_ever)?;
    peer.signal(futex::SIGNAL)?;
    let peer = asleep_again(cx, peer)?;
    expect_said("waiters woken", &said(futex::wake(map.address(), 1)), &Ok(1))?;
    expect_said("FUTEX_WAIT", &peer.join()?, &Ok(0))
}

const STOP_CONTINUES: Probe = Probe {
    spec: &[man("signal(7)", "Interruption of system calls and library functions by stop signals")],
    ..probe(
        "sync.futex.wait.stop-continues",
        "a waiter that is stopped and continued goes on waiting",
        "debuggers and cgroup freezers stop whole services; a wait that ends by it looks like a wake-up that nobody sent",
        stop_continues,
    )
};

fn stop_continues(cx: &mut Context) -> Outcome {
    let map = page()?;
    let peer = sleeper(cx, || wait_for_wake(map.address(), 0))?;
    peer.signal(libc::SIGSTOP)?;
    cx.until("the waiter is stopped", || Ok(procfs::state(peer.pid()) == Some('T')))?;
    peer.signal(libc::SIGCONT)?;
    expect_soon("FUTEX_WAKE", "finds the waiter again", || Ok(futex::wake(map.address(), 1)? == 1))?;
    expect_said("FUTEX_WAIT", &peer.join()?, &Ok(0))
}

const READ_ONLY: Probe = Probe {
    spec: &[kernel("kernel/futex/core.c", "commit 9ea71503a8ed, read-only shared mappings")],
    needs: &[Need::Call(Sys::MemfdCreate)],
    ..probe(
        "sync.futex.wait.read-only-mapping",
        "a process with a read-only mapping can wait and be woken",
        "readers of a published table map it read-only and sleep on its version word; Linux 2.6.32 to 3.1 refused that",
        read_only,
    )
};

fn read_only(cx: &mut Context) -> Outcome {
    let fd = nix::sys::memfd::memfd_create(c"shmcheck", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    sys::ftruncate(std::os::fd::AsRawFd::as_raw_fd(&fd), 4096)?;
    let map = Map::shared(&fd, 4096)?;
    let reader = Map::new(4096, libc::PROT_READ, libc::MAP_SHARED, std::os::fd::AsRawFd::as_raw_fd(&fd))?;
    let peer = sleeper(cx, || wait_for_wake(reader.address(), 0))?;
    expect_said("waiters woken", &said(futex::wake(map.address(), 1)), &Ok(1))?;
    expect_said("FUTEX_WAIT", &peer.join()?, &Ok(0))?;
    let writes = "FUTEX_LOCK_PI, which must write the word";
    let refused = said(futex::timed(reader.address(), futex::FUTEX_LOCK_PI, 0, None, 0, 0));
    expect_said(writes, &refused, &Err(EFAULT))
}

const UNTOUCHED_PAGE: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_WAIT")],
    ..probe(
        "sync.futex.wait.untouched-page",
        "a word in a page that nobody touched yet is zero and can be waited on",
        "segments are huge and lazy: the first process to wait must not fail because no page is there yet",
        untouched_page,
    )
};

fn untouched_page(cx: &mut Context) -> Outcome {
    let map = page()?;
    let peer = sleeper(cx, || wait_for_wake(map.address(), 0))?;
    expect_said("waiters woken", &said(futex::wake(map.address(), 1)), &Ok(1))?;
    expect_said("FUTEX_WAIT", &peer.join()?, &Ok(0))
}

const TIME_NAMESPACE: Probe = Probe {
    isolate: Isolate::Fresh,
    needs: &[Need::Cap(caps::Capability::CAP_SYS_ADMIN)],
    calls: &[Sys::Futex, Sys::Unshare],
    spec: &[man("time_namespaces(7)", ""), kernel("kernel/futex/syscalls.c", "timens_ktime_to_host")],
    ..probe(
        "sync.futex.wait.time-namespace",
        "an absolute limit is a time of the caller's time namespace",
        "restored containers (CRIU) have shifted clocks: read as the host's time their limits come hours too late",
        time_namespace,
    )
};
fn time_namespace(cx: &mut Context) -> Outcome {
    const CLONE_NEWTIME: i32 = 0x80;
    let map = page()?;
    let outside = sys::clock(CLOCK_MONOTONIC).0;
    let peer = cx.fork(|cx| {
        let skip = |what: String| Stop::skip("time-namespace", what);
        sys::unshare(CLONE_NEWTIME).map_err(|e| skip(format!("unshare → {}", e.name())))?;
        // An hour ahead: a limit taken as the host's would be an hour away.
        std::fs::write("/proc/self/timens_offsets", "monotonic 3600 0")
            .map_err(|e| skip(format!("write to /proc/self/timens_offsets: {e}")))?;
        cx.elsewhere(|_| {
            let end = futex::after(CLOCK_MONOTONIC, SHORT);
            let answer = said(futex::timed(map.address(), FUTEX_WAIT_BITSET, 0, Some(&end), 0, MATCH_ANY));
            Ok((answer, futex::reached(CLOCK_MONOTONIC, &end), end.tv_sec))
        })
    })?;
    expect_soon("FUTEX_WAIT_BITSET with a limit of 2 ms", "comes back", || {
        Ok(procfs::state(peer.pid()).is_none_or(|state| state == 'Z'))
    })?;
    let (answer, reached, limit) = peer.join()?;
    cx.expect("the clock inside", limit > outside + 3_000, "an hour ahead", (limit, outside))?;
    cx.expect_eq("the limit is reached", reached, true)?;
    expect_said("FUTEX_WAIT_BITSET", &answer, &Err(ETIMEDOUT))
}
