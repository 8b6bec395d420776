//! futex_waitv: one sleep on many words; and the futex2 calls futex_wait, futex_wake and futex_requeue.

use super::tools::{
    LOST, SHORT, Said, asleep, bad_nanos, expect_said, expect_soon, said, sleeper, still_asleep, wait_for_wake,
};
use libc::{CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_REALTIME, EAGAIN, EFAULT, EINTR, EINVAL, ETIMEDOUT};
use shmcheck_probe::sys::futex::{self, FUTEX_PRIVATE_FLAG, MATCH_ANY, SIZE_U32, WAITV_MAX, WaitWord};
use shmcheck_probe::{Clause, Context, Isolate, Map, Outcome, Peer, Probe, Stop, Sys, doc, kernel, sys};
use std::sync::atomic::Ordering::SeqCst;

/// The probes of this file.
pub const PROBES: &[&Probe] = &[
    &WAITV_INDEX,
    &WAITV_LAST_OF_MANY,
    &WAITV_DIFFERS,
    &WAITV_LIMIT,
    &WAITV_HANDLER,
    &WAITV_PRIVATE,
    &WAITV_OBJECTS,
    &WAITV_COUNT,
    &WAITV_FLAGS,
    &WAITV_WORDS,
    &WAITV_CLOCK,
    &WAITV_EFAULT,
    &WAITV_GONE,
    &WAIT2_WAKE2,
    &WAKE2_NONE,
    &WAKE2_COUNT,
    &MASK2,
    &WAIT2_DIFFERS,
    &WAIT2_LIMIT,
    &WAIT2_REFUSED,
    &WAKE2_REFUSED,
    &REQUEUE2_MOVES,
    &REQUEUE2_DIFFERS,
    &REQUEUE2_REFUSED,
    &OLD_AND_NEW,
];

const WAITV: &[Clause] = &[doc("Documentation/userspace-api/futex2.rst", "futex_waitv")];
const WAITV_PARSE: &[Clause] =
    &[kernel("kernel/futex/syscalls.c", "futex_waitv"), doc("Documentation/userspace-api/futex2.rst", "futex_waitv")];
const FUTEX2: &[Clause] = &[kernel("kernel/futex/syscalls.c", "futex_wait, futex_wake, futex_requeue")];

#[track_caller]
const fn waitv(id: &'static str, title: &'static str, why: &'static str, run: fn(&mut Context) -> Outcome) -> Probe {
    Probe {
        title,
        why,
        varies: "Linux 5.16; filters older than the call refuse it, and should do so with ENOSYS",
        spec: WAITV,
        calls: &[Sys::FutexWaitv],
        isolate: Isolate::Cell,
        ..Probe::new(id, run)
    }
}

#[track_caller]
const fn futex2(id: &'static str, title: &'static str, why: &'static str, run: fn(&mut Context) -> Outcome) -> Probe {
    Probe {
        title,
        why,
        varies: "Linux 6.7; filters older than the calls refuse them, and should do so with ENOSYS",
        spec: FUTEX2,
        calls: &[Sys::FutexWait, Sys::FutexWake, Sys::FutexRequeue],
        isolate: Isolate::Cell,
        ..Probe::new(id, run)
    }
}

fn page() -> sys::Result<Map> {
    Map::shared_anonymous(sys::page_size())
}

/// The first words of a mapping, each expected to be 0.
fn words(map: &Map, count: usize) -> Vec<WaitWord> {
    (0..count).map(|n| WaitWord::shared(map.address() + 4 * n, 0)).collect()
}

fn wait(words: &[WaitWord]) -> Said {
    let limit = futex::after(CLOCK_MONOTONIC, LOST);
    said(futex::waitv(words, words.len(), 0, Some(&limit), CLOCK_MONOTONIC))
}

/// Wakes the word's one waiter. It sleeps already, but may still be queueing itself at the later words.
fn wake_one(address: usize) -> Outcome {
    expect_soon("FUTEX_WAKE", "finds the waiter", || Ok(futex::wake(address, 9)? == 1))
}

const WAITV_INDEX: Probe = waitv(
    "sync.futex.waitv.index",
    "futex_waitv returns the index of the word that another process woke",
    "Wine and Proton wait for any of many Windows events by it; a wrong index is the wrong event",
    |cx| {
        let map = page()?;
        for index in 0..3 {
            let peer = sleeper(cx, || wait(&words(&map, 3)))?;
            wake_one(map.address() + 4 * index)?;
            expect_said("futex_waitv", &peer.join()?, &Ok(index as i64))?;
            cx.expect_eq("waiters left at the others", futex::wake(map.address() + 4 * ((index + 1) % 3), 9)?, 0)?;
        }
        Ok(())
    },
);
const WAITV_LAST_OF_MANY: Probe = waitv(
    "sync.futex.waitv.most",
    "futex_waitv takes 128 words and tells the last from the others",
    "games wait on 64 handles and more; a smaller limit makes them poll",
    |cx| {
        let map = page()?;
        let peer = sleeper(cx, || wait(&words(&map, WAITV_MAX)))?;
        wake_one(map.address() + 4 * (WAITV_MAX - 1))?;
        expect_said("futex_waitv", &peer.join()?, &Ok(WAITV_MAX as i64 - 1))
    },
);
const WAITV_DIFFERS: Probe = waitv(
    "sync.futex.waitv.differs-eagain",
    "futex_waitv does not sleep when any word differs: EAGAIN",
    "the event may have come at the third word while the first two were looked at",
    |cx| {
        let map = page()?;
        map.atomic(8).store(1, SeqCst);
        expect_said("futex_waitv", &wait(&words(&map, 3)), &Err(EAGAIN))?;
        cx.expect_eq("waiters left at the first word", futex::wake(map.address(), 9)?, 0)
    },
);
const WAITV_LIMIT: Probe = waitv(
    "sync.futex.waitv.limit",
    "futex_waitv gives ETIMEDOUT no earlier than its absolute limit, by either clock",
    "WaitForMultipleObjects has a deadline; coming back early makes a game's loop spin",
    |cx| {
        let map = page()?;
        for clock in [CLOCK_MONOTONIC, CLOCK_REALTIME] {
            let end = futex::after(clock, SHORT);
            cx.expect_errno(ETIMEDOUT, || futex::waitv(&words(&map, 2), 2, 0, Some(&end), clock))?;
            cx.expect("the time on return", futex::reached(clock, &end), "the limit or later", sys::clock(clock))?;
        }
        Ok(())
    },
);
const WAITV_HANDLER: Probe = waitv(
    "sync.futex.waitv.handler-eintr",
    "a signal handler ends futex_waitv with EINTR",
    "a thread that waits for events must be told to stop by a signal",
    |cx| {
        let map = page()?;
        let peer = cx.fork(|_| {
            futex::catch_signal(0)?;
            Ok(wait(&words(&map, 2)))
        })?;
        let peer = asleep(cx, peer)?;
        peer.signal(futex::SIGNAL)?;
        expect_said("futex_waitv", &peer.join()?, &Err(EINTR))
    },
);
const WAITV_PRIVATE: Probe = waitv(
    "sync.futex.waitv.private-word",
    "of a private and a shared word only the shared one is reached from outside",
    "each word has its own flags: one wait covers a thread's event and another process's",
    |cx| {
        let map = page()?;
        let mut list = words(&map, 2);
        list[0].flags |= FUTEX_PRIVATE_FLAG as u32;
        let peer = sleeper(cx, || wait(&list))?;
        // Once the second word is found, the first is queued for certain; it is looked at before.
        cx.expect_eq("woken at the private word", futex::wake(map.address(), 9)?, 0)?;
        wake_one(map.address() + 4)?;
        expect_said("futex_waitv", &peer.join()?, &Ok(1))
    },
);
const WAITV_OBJECTS: Probe = waitv(
    "sync.futex.waitv.two-objects",
    "the words of one futex_waitv may lie in different objects",
    "one wait for the compositor's memory and the decoder's memory saves a thread per peer",
    |cx| {
        let (first, second) = (page()?, page()?);
        let list = [WaitWord::shared(first.address(), 0), WaitWord::shared(second.address(), 0)];
        let peer = sleeper(cx, || wait(&list))?;
        wake_one(second.address())?;
        expect_said("futex_waitv", &peer.join()?, &Ok(1))
    },
);
const WAITV_COUNT: Probe = Probe {
    spec: WAITV_PARSE,
    ..waitv(
        "sync.futex.waitv.count-einval",
        "no word and more than 128 words are refused: EINVAL",
        "a wait on nothing never ends, and a list without bound is memory of the kernel's",
        |cx| {
            let map = page()?;
            let list = words(&map, WAITV_MAX + 1);
            cx.expect_errno(EINVAL, || futex::waitv(&list, 0, 0, None, CLOCK_MONOTONIC))?;
            cx.expect_errno(EINVAL, || futex::waitv(&list, WAITV_MAX + 1, 0, None, CLOCK_MONOTONIC))?;
            cx.expect_errno(EINVAL, || futex::waitv_at(0, 1, 0, 0, CLOCK_MONOTONIC))
        },
    )
};
const WAITV_FLAGS: Probe = Probe {
    spec: WAITV_PARSE,
    ..waitv(
        "sync.futex.waitv.flags-einval",
        "futex_waitv refuses any flag of its own: EINVAL",
        "what is refused today can mean something tomorrow",
        |cx| {
            let map = page()?;
            let end = futex::after(CLOCK_MONOTONIC, SHORT);
            let list = words(&map, 1);
            cx.expect_errno(ETIMEDOUT, || futex::waitv(&list, 1, 0, Some(&end), CLOCK_MONOTONIC))?;
            cx.expect_errno(EINVAL, || futex::waitv(&list, 1, 1, Some(&end), CLOCK_MONOTONIC))
        },
    )
};
const WAITV_WORDS: Probe = Probe {
    spec: WAITV_PARSE,
    ..waitv(
        "sync.futex.waitv.word-einval",
        "a word with another size, an unknown flag or a reserved value: EINVAL",
        "a library that fills the structure carelessly must not get a wait of some other kind",
        |cx| {
            let map = page()?;
            let good = WaitWord::shared(map.address(), 0);
            let bad = [
                WaitWord { flags: 0, ..good },
                WaitWord { flags: 1, ..good },
                WaitWord { flags: SIZE_U32 | 0x4000, ..good },
                WaitWord { reserved: 1, ..good },
                WaitWord { address: good.address + 2, ..good },
            ];
            for word in bad {
                expect_said(&format!("futex_waitv with {word:?}"), &wait(&[good, word]), &Err(EINVAL))?;
            }
            cx.expect_eq("waiters left at the good word", futex::wake(map.address(), 9)?, 0)
        },
    )
};
const WAITV_CLOCK: Probe = Probe {
    spec: WAITV_PARSE,
    ..waitv(
        "sync.futex.waitv.clock-einval",
        "a limit by another clock or with impossible nanoseconds: EINVAL",
        "CPU-time clocks stand still while the caller sleeps: such a limit would never come",
        |cx| {
            let map = page()?;
            let list = words(&map, 1);
            let end = futex::after(CLOCK_MONOTONIC, SHORT);
            cx.expect_errno(EINVAL, || futex::waitv(&list, 1, 0, Some(&end), CLOCK_PROCESS_CPUTIME_ID))?;
            cx.expect_errno(EINVAL, || futex::waitv(&list, 1, 0, Some(&bad_nanos(1_000_000_000)), CLOCK_MONOTONIC))?;
            cx.expect_errno(EINVAL, || futex::waitv(&list, 1, 0, Some(&bad_nanos(-1)), CLOCK_REALTIME))
        },
    )
};
const WAITV_EFAULT: Probe = Probe {
    spec: WAITV_PARSE,
    ..waitv(
        "sync.futex.waitv.efault",
        "a list, a limit or a word in unmapped memory is refused: EFAULT",
        "the kernel copies the list before it sleeps; a bad one must be told to the caller at once",
        |cx| {
            let map = page()?;
            let gone = futex::unmapped()?;
            let list = words(&map, 1);
            cx.expect_errno(EFAULT, || futex::waitv_at(gone, 1, 0, 0, CLOCK_MONOTONIC))?;
            cx.expect_errno(EFAULT, || futex::waitv_at(list.as_ptr() as usize, 1, 0, gone, CLOCK_MONOTONIC))?;
            expect_said("futex_waitv", &wait(&[list[0], WaitWord::shared(gone, 0)]), &Err(EFAULT))?;
            cx.expect_eq("waiters left at the good word", futex::wake(map.address(), 9)?, 0)
        },
    )
};
const WAITV_GONE: Probe = waitv(
    "sync.futex.waitv.killed",
    "a killed waiter is gone from all of its words",
    "a wake-up spent on a dead process is lost to the living one",
    |cx| {
        let map = page()?;
        sleeper(cx, || wait(&words(&map, 3)))?.kill()?;
        let peer = sleeper(cx, || wait_for_wake(map.address() + 8, 0))?;
        cx.expect_eq("woken with a count of one", futex::wake(map.address() + 8, 1)?, 1)?;
        expect_said("FUTEX_WAIT", &peer.join()?, &Ok(0))
    },
);

/// Sleeps by the new call.
fn wait2(address: usize, mask: u64) -> Said {
    let limit = futex::after(CLOCK_MONOTONIC, LOST);
    said(futex::wait2(address, 0, mask, SIZE_U32, Some(&limit), CLOCK_MONOTONIC))
}

fn wake2(address: usize, count: i32) -> sys::Result<i64> {
    futex::wake2(address, MATCH_ANY.into(), count, SIZE_U32)
}

const WAIT2_WAKE2: Probe = futex2(
    "sync.futex2.wake.crosses",
    "futex_wake reaches a process that sleeps in futex_wait",
    "io_uring and new C libraries move to these calls; between processes they must work as the old ones",
    |cx| {
        let map = page()?;
        let peer = sleeper(cx, || wait2(map.address(), 1))?;
        cx.expect_eq("waiters woken at another word", wake2(map.address() + 4, 9)?, 0)?;
        cx.expect_eq("waiters woken", wake2(map.address(), 9)?, 1)?;
        expect_said("futex_wait", &peer.join()?, &Ok(0))
    },
);
const WAKE2_NONE: Probe = futex2(
    "sync.futex2.wake.count-zero",
    "futex_wake with a count of 0 wakes nobody",
    "the old call wakes one then, an error of twenty years that the new one does not repeat",
    |cx| {
        let map = page()?;
        let peer = sleeper(cx, || wait2(map.address(), 1))?;
        cx.expect_eq("waiters woken", wake2(map.address(), 0)?, 0)?;
        still_asleep(cx, "the waiter", &peer)?;
        cx.expect_eq("waiters woken with a count of 1", wake2(map.address(), 1)?, 1)?;
        expect_said("futex_wait", &peer.join()?, &Ok(0))
    },
);
const WAKE2_COUNT: Probe = futex2(
    "sync.futex2.wake.at-most",
    "futex_wake wakes as many as asked for",
    "waking all for one is a herd that fights for one lock",
    |cx| {
        let map = page()?;
        let peers = [sleeper(cx, || wait2(map.address(), 1))?, sleeper(cx, || wait2(map.address(), 1))?];
        cx.expect_eq("woken of 2 with a count of 1", wake2(map.address(), 1)?, 1)?;
        cx.expect_eq("woken then", wake2(map.address(), 9)?, 1)?;
        peers.into_iter().try_for_each(|peer| expect_said("futex_wait", &peer.join()?, &Ok(0)))
    },
);
const MASK2: Probe = futex2(
    "sync.futex2.wake.mask",
    "futex_wake reaches only waiters that share a bit with its mask",
    "readers and writers of one lock sleep under different bits",
    |cx| {
        let map = page()?;
        let peer = sleeper(cx, || wait2(map.address(), 0b10))?;
        cx.expect_eq("woken with another bit", futex::wake2(map.address(), 0b01, 9, SIZE_U32)?, 0)?;
        cx.expect_eq("woken with the waiter's bit", futex::wake2(map.address(), 0b11, 9, SIZE_U32)?, 1)?;
        expect_said("futex_wait", &peer.join()?, &Ok(0))
    },
);
const WAIT2_DIFFERS: Probe = futex2(
    "sync.futex2.wait.differs-eagain",
    "futex_wait does not sleep when the word differs: EAGAIN",
    "check and sleep are one step, as with the old call",
    |_| {
        let map = page()?;
        map.atomic(0).store(1, SeqCst);
        expect_said("futex_wait", &wait2(map.address(), 1), &Err(EAGAIN))
    },
);
const WAIT2_LIMIT: Probe = futex2(
    "sync.futex2.wait.limit",
    "futex_wait gives ETIMEDOUT no earlier than its absolute limit, by either clock",
    "the new call takes the clock as an argument; the wrong one would wait for years",
    |cx| {
        let map = page()?;
        for clock in [CLOCK_MONOTONIC, CLOCK_REALTIME] {
            let end = futex::after(clock, SHORT);
            cx.expect_errno(ETIMEDOUT, || futex::wait2(map.address(), 0, 1, SIZE_U32, Some(&end), clock))?;
            cx.expect("the time on return", futex::reached(clock, &end), "the limit or later", sys::clock(clock))?;
        }
        Ok(())
    },
);
const WAIT2_REFUSED: Probe = futex2(
    "sync.futex2.wait.einval",
    "futex_wait refuses other sizes, unknown flags, masks and clocks: EINVAL",
    "sizes of one, two and eight bytes are reserved; a kernel that ignores them compares the wrong bytes",
    |cx| {
        let map = page()?;
        let end = futex::after(CLOCK_MONOTONIC, SHORT);
        let wait = |address: usize, val: u64, mask: u64, flags: u32, clock: i32| {
            futex::wait2(address, val, mask, flags, Some(&end), clock)
        };
        let at = map.address();
        for flags in [0, 1, 3, SIZE_U32 | 0x4000, 0x8000_0000 | SIZE_U32] {
            cx.expect_errno(EINVAL, || wait(at, 0, 1, flags, CLOCK_MONOTONIC))?;
        }
        cx.expect_errno(EINVAL, || wait(at, 0, 0, SIZE_U32, CLOCK_MONOTONIC))?;
        cx.expect_errno(EINVAL, || wait(at, 0, 1 << 32, SIZE_U32, CLOCK_MONOTONIC))?;
        cx.expect_errno(EINVAL, || wait(at, 1 << 32, 1, SIZE_U32, CLOCK_MONOTONIC))?;
        cx.expect_errno(EINVAL, || wait(at + 2, 0, 1, SIZE_U32, CLOCK_MONOTONIC))?;
        cx.expect_errno(EINVAL, || wait(at, 0, 1, SIZE_U32, CLOCK_PROCESS_CPUTIME_ID))?;
        cx.expect_errno(EFAULT, || wait(futex::unmapped()?, 0, 1, SIZE_U32, CLOCK_MONOTONIC))
    },
);
const WAKE2_REFUSED: Probe = futex2(
    "sync.futex2.wake.einval",
    "futex_wake refuses other sizes, unknown flags and empty masks: EINVAL",
    "a wake that goes nowhere without an error is a hang in another process",
    |cx| {
        let map = page()?;
        let at = map.address();
        cx.expect_eq("waiters woken", wake2(at, 1)?, 0)?;
        for flags in [0, 1, 3, SIZE_U32 | 0x4000] {
            cx.expect_errno(EINVAL, || futex::wake2(at, 1, 1, flags))?;
        }
        cx.expect_errno(EINVAL, || futex::wake2(at, 0, 1, SIZE_U32))?;
        cx.expect_errno(EINVAL, || futex::wake2(at, 1 << 32, 1, SIZE_U32))?;
        cx.expect_errno(EINVAL, || futex::wake2(at + 2, 1, 1, SIZE_U32))?;
        cx.expect_errno(EFAULT, || futex::wake2(futex::unmapped()?, 1, 1, SIZE_U32))
    },
);

/// The pair that futex_requeue takes, with the value expected at the first word.
fn pair(map: &Map, val: u32) -> [WaitWord; 2] {
    [WaitWord::shared(map.address(), val), WaitWord::shared(map.address() + 64, 0)]
}

fn two_sleepers(cx: &mut Context, map: &Map) -> Result<[Peer<Said>; 2], Stop> {
    Ok([sleeper(cx, || wait2(map.address(), 1))?, sleeper(cx, || wait2(map.address(), 1))?])
}

const REQUEUE2_MOVES: Probe = futex2(
    "sync.futex2.requeue.moves",
    "futex_requeue wakes some waiters and moves the rest to the second word",
    "condition variables of new C libraries broadcast by it",
    |cx| {
        let map = page()?;
        let peers = two_sleepers(cx, &map)?;
        cx.expect_eq("woken or moved", futex::requeue2(Some(&pair(&map, 0)), 0, 1, 9)?, 2)?;
        cx.expect_eq("waiters at the first word", wake2(map.address(), 9)?, 0)?;
        cx.expect_eq("waiters at the second word", wake2(map.address() + 64, 9)?, 1)?;
        peers.into_iter().try_for_each(|peer| expect_said("futex_wait", &peer.join()?, &Ok(0)))
    },
);
const REQUEUE2_DIFFERS: Probe = futex2(
    "sync.futex2.requeue.differs-eagain",
    "futex_requeue moves nobody when the first word differs: EAGAIN",
    "a waiter that came late is not moved by a signal that was not for it",
    |cx| {
        let map = page()?;
        let peers = two_sleepers(cx, &map)?;
        cx.expect_errno(EAGAIN, || futex::requeue2(Some(&pair(&map, 7)), 0, 1, 9))?;
        cx.expect_eq("waiters at the second word", wake2(map.address() + 64, 9)?, 0)?;
        cx.expect_eq("waiters at the first word", wake2(map.address(), 9)?, 2)?;
        peers.into_iter().try_for_each(|peer| expect_said("futex_wait", &peer.join()?, &Ok(0)))
    },
);
const REQUEUE2_REFUSED: Probe = futex2(
    "sync.futex2.requeue.einval",
    "futex_requeue refuses flags, negative numbers and a missing pair: EINVAL",
    "a call that has no flags yet must keep the place free for them",
    |cx| {
        let map = page()?;
        let good = pair(&map, 0);
        cx.expect_eq("woken or moved of nobody", futex::requeue2(Some(&good), 0, 1, 1)?, 0)?;
        cx.expect_errno(EINVAL, || futex::requeue2(Some(&good), 1, 1, 1))?;
        cx.expect_errno(EINVAL, || futex::requeue2(None, 0, 1, 1))?;
        cx.expect_errno(EINVAL, || futex::requeue2(Some(&good), 0, -1, 1))?;
        cx.expect_errno(EINVAL, || futex::requeue2(Some(&good), 0, 1, -1))?;
        let bad = [good[0], WaitWord { flags: 0, ..good[1] }];
        cx.expect_errno(EINVAL, || futex::requeue2(Some(&bad), 0, 1, 1))
    },
);
const OLD_AND_NEW: Probe = futex2(
    "sync.futex2.wake.reaches-old-waiter",
    "the old and the new calls meet at one word",
    "a program with an old C library and one with a new share a lock: each must wake the other",
    |cx| {
        let map = page()?;
        let old = sleeper(cx, || wait_for_wake(map.address(), 0))?;
        cx.expect_eq("old waiters woken by the new call", wake2(map.address(), 9)?, 1)?;
        expect_said("FUTEX_WAIT", &old.join()?, &Ok(0))?;
        let new = sleeper(cx, || wait2(map.address(), 1))?;
        cx.expect_eq("new waiters woken by the old call", futex::wake(map.address(), 9)?, 1)?;
        expect_said("futex_wait", &new.join()?, &Ok(0))
    },
);
