//! futex(2): whom FUTEX_WAKE, FUTEX_WAKE_BITSET, FUTEX_REQUEUE and FUTEX_CMP_REQUEUE reach.

use super::tools::{LOST, Said, expect_said, said, sleeper, still_asleep, wait_for_wake};
use libc::{EAGAIN, EINVAL};
use shmcheck_probe::sys::futex::{
    self, FUTEX_CMP_REQUEUE, FUTEX_PRIVATE_FLAG, FUTEX_REQUEUE, FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_WAKE,
    FUTEX_WAKE_BITSET,
};
use shmcheck_probe::{Context, Isolate, Map, Need, Outcome, Peer, Probe, Stop, Sys, kernel, man, sys};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::SeqCst;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &WAKES_AT_MOST,
    &NOBODY_WAITS,
    &ONE_AT_A_TIME,
    &BITSET_MATCHES,
    &PRIVATE_STAYS,
    &PRIVATE_WAIT_UNREACHED,
    &PRIVATE_MEMORY,
    &SECOND_MAPPING,
    &KEY_BY_OFFSET,
    &REMOVED_SEGMENT,
    &HUGE_SUBPAGES,
    &KILLED_WAITER,
    &REQUEUE_MOVES,
    &CMP_REQUEUE_COUNTS,
    &CMP_REQUEUE_EAGAIN,
    &REQUEUE_NEGATIVE,
    &REQUEUE_SAME_WORD,
    &REQUEUE_OTHER_OBJECT,
];

#[track_caller]
const fn probe(id: &'static str, title: &'static str, why: &'static str, run: fn(&mut Context) -> Outcome) -> Probe {
    Probe { title, why, calls: &[Sys::Futex], isolate: Isolate::Cell, ..Probe::new(id, run) }
}

fn page() -> sys::Result<Map> {
    Map::shared_anonymous(sys::page_size())
}

/// Several peers that sleep on one word.
fn sleepers(cx: &mut Context, address: usize, count: usize) -> Result<Vec<Peer<Said>>, Stop> {
    (0..count).map(|_| sleeper(cx, || wait_for_wake(address, 0))).collect()
}

/// Every peer must have been woken: none says anything but 0.
fn all_woken(peers: Vec<Peer<Said>>) -> Outcome {
    peers.into_iter().try_for_each(|peer| expect_said("FUTEX_WAIT", &peer.join()?, &Ok(0)))
}

const WAKES_AT_MOST: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_WAKE")],
    ..probe(
        "sync.futex.wake.at-most",
        "FUTEX_WAKE wakes as many as asked for, and says how many",
        "a lock wakes one; waking all instead is the thundering herd that stops machines with a hundred workers",
        wakes_at_most,
    )
};
fn wakes_at_most(cx: &mut Context) -> Outcome {
    let map = page()?;
    let peers = sleepers(cx, map.address(), 3)?;
    expect_said("woken of 3 with count 2", &said(futex::wake(map.address(), 2)), &Ok(2))?;
    // The third is still queued: exactly one more is found.
    expect_said("woken with count 5", &said(futex::wake(map.address(), 5)), &Ok(1))?;
    all_woken(peers)
}

const NOBODY_WAITS: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_WAKE")],
    ..probe(
        "sync.futex.wake.nobody-waits",
        "a wake without waiters gives 0, and no later waiter feels it",
        "wake-ups are not stored: lock code keeps its state in the word and would break on a kernel that counts them",
        nobody_waits,
    )
};
fn nobody_waits(cx: &mut Context) -> Outcome {
    let map = page()?;
    expect_said("waiters woken", &said(futex::wake(map.address(), 5)), &Ok(0))?;
    let peer = sleeper(cx, || wait_for_wake(map.address(), 0))?;
    expect_said("waiters woken afterwards", &said(futex::wake(map.address(), 5)), &Ok(1))?;
    all_woken(vec![peer])
}

const ONE_AT_A_TIME: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_WAKE")],
    ..probe(
        "sync.futex.wake.others-sleep-on",
        "those whom a wake did not reach sleep on",
        "a spurious wake-up costs a context switch per waiter and unlock; under load that is all a machine does",
        one_at_a_time,
    )
};
fn one_at_a_time(cx: &mut Context) -> Outcome {
    let map = page()?;
    let other = sleeper(cx, || wait_for_wake(map.address() + 64, 0))?;
    let peer = sleeper(cx, || wait_for_wake(map.address(), 0))?;
    expect_said("waiters woken", &said(futex::wake(map.address(), 9)), &Ok(1))?;
    all_woken(vec![peer])?;
    still_asleep(cx, "the waiter on the other word", &other)?;
    expect_said("waiters woken there", &said(futex::wake(map.address() + 64, 9)), &Ok(1))?;
    all_woken(vec![other])
}

const BITSET_MATCHES: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_WAKE_BITSET")],
    ..probe(
        "sync.futex.bitset.matches",
        "FUTEX_WAKE_BITSET wakes the waiters that share a bit with its mask",
        "read-write locks let readers and writers sleep on one word under different bits; the wrong ones woken is a stall",
        bitset_matches,
    )
};
fn bitset_matches(cx: &mut Context) -> Outcome {
    let map = page()?;
    let at = map.address();
    let wait = |mask: u32| {
        let limit = futex::after(libc::CLOCK_MONOTONIC, LOST);
        said(futex::timed(at, FUTEX_WAIT_BITSET, 0, Some(&limit), 0, mask))
    };
    let readers = sleeper(cx, || wait(0b01))?;
    let writer = sleeper(cx, || wait(0b10))?;
    let wake = |mask: u32| futex::op(at, FUTEX_WAKE_BITSET, 9, 0, 0, mask);
    cx.expect_eq("woken with a mask that nobody has", wake(0b100)?, 0)?;
    cx.expect_eq("woken with the writer's bit", wake(0b110)?, 1)?;
    all_woken(vec![writer])?;
    still_asleep(cx, "the waiter with another bit", &readers)?;
    expect_said("woken by a plain wake", &said(futex::wake(at, 9)), &Ok(1))?;
    all_woken(vec![readers])
}

const PRIVATE_STAYS: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_PRIVATE_FLAG")],
    ..probe(
        "sync.futex.private.wake-does-not-cross",
        "FUTEX_WAKE with FUTEX_PRIVATE_FLAG does not reach another process",
        "a lock initialised without pshared works in tests with threads and hangs between processes; this is why",
        private_stays,
    )
};
fn private_stays(cx: &mut Context) -> Outcome {
    let map = page()?;
    let peer = sleeper(cx, || wait_for_wake(map.address(), 0))?;
    let private = futex::op(map.address(), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 9, 0, 0, 0)?;
    cx.expect_eq("woken by a private wake", private, 0)?;
    expect_said("woken by a shared wake", &said(futex::wake(map.address(), 9)), &Ok(1))?;
    all_woken(vec![peer])
}

const PRIVATE_WAIT_UNREACHED: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_PRIVATE_FLAG")],
    ..probe(
        "sync.futex.private.waiter-not-reached",
        "a waiter with FUTEX_PRIVATE_FLAG is not reached from another process",
        "libraries that default to private locks (most do) must not be placed in shared memory: the unlock goes nowhere",
        private_wait_unreached,
    )
};
fn private_wait_unreached(cx: &mut Context) -> Outcome {
    let map = page()?;
    let wait = || said(futex::timed(map.address(), FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, None, 0, 0));
    let peer = sleeper(cx, wait)?;
    expect_said("woken by a shared wake", &said(futex::wake(map.address(), 9)), &Ok(0))?;
    let private = futex::op(map.address(), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 9, 0, 0, 0)?;
    cx.expect_eq("woken by a private wake", private, 0)?;
    still_asleep(cx, "the private waiter", &peer)?;
    peer.kill().map(drop)
}

const PRIVATE_MEMORY: Probe = Probe {
    spec: &[man("futex(2)", "the same futex in different processes"), kernel("kernel/futex/core.c", "get_futex_key")],
    ..probe(
        "sync.futex.key.private-memory",
        "a word in private memory is another futex after fork",
        "locks on the heap are copied by fork; a child's unlock must not wake the parent out of its own critical section",
        private_memory,
    )
};
fn private_memory(cx: &mut Context) -> Outcome {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let map = Map::new(sys::page_size(), libc::PROT_READ | libc::PROT_WRITE, flags, -1)?;
    map.write(64, 1);
    let peer = sleeper(cx, || said(futex::timed(map.address(), FUTEX_WAIT, 0, None, 0, 0)))?;
    expect_said("woken from the parent", &said(futex::wake(map.address(), 9)), &Ok(0))?;
    still_asleep(cx, "the child", &peer)?;
    peer.kill().map(drop)
}

const SECOND_MAPPING: Probe = Probe {
    spec: &[man("futex(2)", "the same futex in different processes")],
    ..probe(
        "sync.futex.key.second-mapping",
        "two mappings of one page in one process are one futex",
        "ring buffers map their memory twice in a row; a lock taken through one view must be freed through the other",
        second_mapping,
    )
};
fn second_mapping(cx: &mut Context) -> Outcome {
    let map = page()?;
    // An old size of 0 duplicates a shared mapping, mremap(2).
    let copy = Map::view(sys::mremap(map.address(), 0, map.len(), libc::MREMAP_MAYMOVE, 0)?, map.len());
    let peer = sleeper(cx, || wait_for_wake(map.address() + 8, 0))?;
    cx.expect_ne("the address of the second mapping", copy.address(), map.address())?;
    expect_said("woken through the second mapping", &said(futex::wake(copy.address() + 8, 9)), &Ok(1))?;
    all_woken(vec![peer])
}

const KEY_BY_OFFSET: Probe = Probe {
    spec: &[man("futex(2)", "the same futex in different processes"), kernel("kernel/futex/core.c", "get_futex_key")],
    needs: &[Need::Call(Sys::MemfdCreate)],
    ..probe(
        "sync.futex.key.by-offset",
        "the word's place in the object decides, not in the mapping",
        "a client maps only the part of a pool that it was given; page two of the owner is page one of the client",
        key_by_offset,
    )
};
fn key_by_offset(cx: &mut Context) -> Outcome {
    let size = sys::page_size();
    let fd = nix::sys::memfd::memfd_create(c"shmcheck", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    sys::ftruncate(fd.as_raw_fd(), 2 * size as i64)?;
    let whole = Map::shared(&fd, 2 * size)?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let second = Map::at(0, size, protection, libc::MAP_SHARED, fd.as_raw_fd(), size as i64)?;
    let peer = sleeper(cx, || wait_for_wake(second.address(), 0))?;
    expect_said("woken on the first page", &said(futex::wake(whole.address(), 9)), &Ok(0))?;
    expect_said("woken on the second page", &said(futex::wake(whole.address() + size, 9)), &Ok(1))?;
    all_woken(vec![peer])
}

const REMOVED_SEGMENT: Probe = Probe {
    isolate: Isolate::Fresh,
    spec: &[man("shmctl(2)", "IPC_RMID"), man("futex(2)", "FUTEX_WAKE")],
    calls: &[Sys::Futex, Sys::Shmget, Sys::Shmat],
    ..probe(
        "sync.futex.key.removed-segment",
        "a removed segment that is still attached keeps its futexes",
        "servers remove the segment as soon as all are attached, so that a crash leaves nothing; their locks must go on working",
        removed_segment,
    )
};
fn removed_segment(cx: &mut Context) -> Outcome {
    let key = cx.fresh_key();
    let mut segment = cx.segment(key, 4096, 0o600)?;
    let (here, there) = (segment.attach(0)?, segment.attach(0)?);
    segment.remove()?;
    let peer = sleeper(cx, || wait_for_wake(there.address(), 0))?;
    expect_said("waiters woken", &said(futex::wake(here.address(), 9)), &Ok(1))?;
    all_woken(vec![peer])
}

const HUGE_SUBPAGES: Probe = Probe {
    spec: &[kernel("kernel/futex/core.c", "commit 13d60f4b6ab5, hugepages in the futex key")],
    needs: super::memory::Memory::Huge.needs(),
    isolate: super::memory::Memory::Huge.isolate(),
    ..probe(
        "sync.futex.key.huge-subpages",
        "words at one offset of two small pages of a huge page are two futexes",
        "before Linux 3.11 they were one: processes on huge pages woke strangers and slept through their own wake-ups",
        huge_subpages,
    )
};
fn huge_subpages(cx: &mut Context) -> Outcome {
    let map = super::memory::Memory::Huge.make(cx)?.map;
    let (first, second) = (map.address(), map.address() + 3 * sys::page_size());
    let peer = sleeper(cx, || wait_for_wake(second, 0))?;
    expect_said("woken on the first small page", &said(futex::wake(first, 9)), &Ok(0))?;
    expect_said("woken on the fourth small page", &said(futex::wake(second, 9)), &Ok(1))?;
    all_woken(vec![peer])
}

const KILLED_WAITER: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_WAKE")],
    ..probe(
        "sync.futex.wake.killed-waiter",
        "a waiter that was killed takes no wake-up from the others",
        "the OOM killer takes one of many waiters; a wake-up given to the dead would leave the living asleep",
        killed_waiter,
    )
};
fn killed_waiter(cx: &mut Context) -> Outcome {
    let map = page()?;
    let mut peers = sleepers(cx, map.address(), 2)?;
    peers.remove(0).kill()?;
    expect_said("waiters woken", &said(futex::wake(map.address(), 1)), &Ok(1))?;
    all_woken(peers)
}

const REQUEUE_MOVES: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_REQUEUE")],
    ..probe(
        "sync.futex.requeue.moves",
        "FUTEX_REQUEUE wakes some waiters and moves the rest to another word",
        "a broadcast moves its waiters to the mutex instead of waking a hundred processes for one lock",
        requeue_moves,
    )
};
fn requeue_moves(cx: &mut Context) -> Outcome {
    let map = page()?;
    let (from, to) = (map.address(), map.address() + 256);
    let peers = sleepers(cx, from, 3)?;
    futex::op(from, FUTEX_REQUEUE, 1, 1, to, 0)?;
    // Three waiters: one was woken, one moved, one stayed. Each place is counted by waking it.
    expect_said("waiters at the second word", &said(futex::wake(to, 9)), &Ok(1))?;
    expect_said("waiters left at the first word", &said(futex::wake(from, 9)), &Ok(1))?;
    all_woken(peers)
}

const CMP_REQUEUE_COUNTS: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_CMP_REQUEUE")],
    ..probe(
        "sync.futex.requeue.cmp-counts",
        "FUTEX_CMP_REQUEUE gives the number of waiters woken or moved",
        "lock code keeps its count of sleepers by this value; a wrong one is a waiter that nobody remembers",
        cmp_requeue_counts,
    )
};
fn cmp_requeue_counts(cx: &mut Context) -> Outcome {
    let map = page()?;
    let (from, to) = (map.address(), map.address() + 256);
    let peers = sleepers(cx, from, 3)?;
    let moved = futex::op(from, FUTEX_CMP_REQUEUE, 0, usize::try_from(i32::MAX).unwrap_or(9), to, 0);
    expect_said("woken or moved", &said(moved), &Ok(3))?;
    expect_said("waiters left at the first word", &said(futex::wake(from, 9)), &Ok(0))?;
    expect_said("waiters at the second word", &said(futex::wake(to, 9)), &Ok(3))?;
    all_woken(peers)
}

const CMP_REQUEUE_EAGAIN: Probe = Probe {
    spec: &[man("futex(2)", "EAGAIN")],
    ..probe(
        "sync.futex.requeue.cmp-eagain",
        "FUTEX_CMP_REQUEUE moves nobody when the word differs: EAGAIN",
        "the comparison closes the race that FUTEX_REQUEUE had: a waiter that came late must not be moved",
        cmp_requeue_eagain,
    )
};
fn cmp_requeue_eagain(cx: &mut Context) -> Outcome {
    let map = page()?;
    let (from, to) = (map.address(), map.address() + 256);
    let peers = sleepers(cx, from, 1)?;
    map.atomic(0).store(5, SeqCst);
    cx.expect_errno(EAGAIN, || futex::op(from, FUTEX_CMP_REQUEUE, 1, 1, to, 4))?;
    expect_said("waiters at the second word", &said(futex::wake(to, 9)), &Ok(0))?;
    expect_said("waiters left at the first word", &said(futex::wake(from, 9)), &Ok(1))?;
    all_woken(peers)
}

const REQUEUE_NEGATIVE: Probe = Probe {
    spec: &[man("futex(2)", "EINVAL"), kernel("kernel/futex/requeue.c", "commit fbe0e839d1e2, CVE-2018-6927")],
    ..probe(
        "sync.futex.requeue.negative-einval",
        "negative numbers to wake or to move are refused: EINVAL",
        "they overflowed the kernel's own count once; any local user could make trouble with them",
        requeue_negative,
    )
};
fn requeue_negative(cx: &mut Context) -> Outcome {
    let map = page()?;
    let (from, to) = (map.address(), map.address() + 256);
    expect_said("woken or moved of nobody", &said(futex::op(from, FUTEX_CMP_REQUEUE, 1, 1, to, 0)), &Ok(0))?;
    cx.expect_errno(EINVAL, || futex::op(from, FUTEX_CMP_REQUEUE, u32::MAX, 1, to, 0))?;
    cx.expect_errno(EINVAL, || futex::op(from, FUTEX_CMP_REQUEUE, 1, u32::MAX as usize, to, 0))
}

const REQUEUE_SAME_WORD: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_REQUEUE")],
    ..probe(
        "sync.futex.requeue.same-word",
        "waiters moved to the word they wait on are still found there",
        "a condition variable and its mutex can share one word in compact locks; nobody may be lost on the way",
        requeue_same_word,
    )
};
fn requeue_same_word(cx: &mut Context) -> Outcome {
    let map = page()?;
    let peers = sleepers(cx, map.address(), 2)?;
    futex::op(map.address(), FUTEX_CMP_REQUEUE, 0, 9, map.address(), 0)?;
    expect_said("waiters woken", &said(futex::wake(map.address(), 9)), &Ok(2))?;
    all_woken(peers)
}

const REQUEUE_OTHER_OBJECT: Probe = Probe {
    spec: &[man("futex(2)", "FUTEX_CMP_REQUEUE")],
    calls: &[Sys::Futex, Sys::MemfdCreate],
    ..probe(
        "sync.futex.requeue.other-object",
        "waiters of one object can be moved to a word of another",
        "a condition variable in one segment with its mutex in another is allowed; the key must be exchanged whole",
        requeue_other_object,
    )
};
fn requeue_other_object(cx: &mut Context) -> Outcome {
    let first = page()?;
    let fd = nix::sys::memfd::memfd_create(c"shmcheck", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    sys::ftruncate(fd.as_raw_fd(), 4096)?;
    let (second, seen) = (Map::shared(&fd, 4096)?, Map::shared(&fd, 4096)?);
    let peers = sleepers(cx, first.address(), 2)?;
    let moved = futex::op(first.address(), FUTEX_CMP_REQUEUE, 0, 2, second.address(), 0)?;
    cx.expect_eq("woken or moved", moved, 2)?;
    // Found from a process and an address that never saw the first object's waiters.
    let woken = cx.elsewhere(|_| Ok(futex::wake(seen.address(), 9)?))?;
    cx.expect_eq("waiters woken in the second object", woken, 2)?;
    all_woken(peers)
}
