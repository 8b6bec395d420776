//! futex_waitv: one sleep on many words; and the futex2 calls futex_wait, futex_wake and futex_requeue.

use super::tools::{LOST, SHORT, Said, asleep, bad_nanos, expect_said, expect_soon, said, sleeper, wait_for_wake};
use libc::{CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_REALTIME, EAGAIN, EFAULT, EINTR, EINVAL, ETIMEDOUT};
use shmcheck_probe::sys::futex::{self, FUTEX_PRIVATE_FLAG, SIZE_U32, WAITV_MAX, WaitWord};
use shmcheck_probe::{Clause, Context, Isolate, Map, Outcome, Probe, Sys, doc, kernel, sys};
use std::sync::atomic::Ordering::SeqCst;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
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
];

const WAITV: &[Clause] = &[doc("Documentation/userspace-api/futex2.rst", "futex_waitv")];

const WAITV_PARSE: &[Clause] =
    &[kernel("kernel/futex/syscalls.c", "futex_waitv"), doc("Documentation/userspace-api/futex2.rst", "futex_waitv")];

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

pub(super) fn page() -> sys::Result<Map> {
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
            expect_said(
                "waiters left at the others",
                &said(futex::wake(map.address() + 4 * ((index + 1) % 3), 9)),
                &Ok(0),
            )?;
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
    |_| {
        let map = page()?;
        map.atomic(8).store(1, SeqCst);
        expect_said("futex_waitv", &wait(&words(&map, 3)), &Err(EAGAIN))?;
        expect_said("waiters left at the first word", &said(futex::wake(map.address(), 9)), &Ok(0))
    },
);

const WAITV_LIMIT: Probe = waitv(
    "sync.futex.waitv.limit",
    "futex_waitv gives ETIMEDOUT no earlier than its limit, by either clock",
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
    "of a private and a shared word only the shared one is reached outside",
    "each word has its own flags: one wait covers a thread's event and another process's",
    |cx| {
        let map = page()?;
        let mut list = words(&map, 2);
        list[0].flags |= FUTEX_PRIVATE_FLAG as u32;
        let peer = sleeper(cx, || wait(&list))?;
        // Once the second word is found, the first is queued for certain; it is looked at before.
        expect_said("woken at the private word", &said(futex::wake(map.address(), 9)), &Ok(0))?;
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
        |_| {
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
            expect_said("waiters left at the good word", &said(futex::wake(map.address(), 9)), &Ok(0))
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
            expect_said("waiters left at the good word", &said(futex::wake(map.address(), 9)), &Ok(0))
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
        expect_said("woken with a count of one", &said(futex::wake(map.address() + 8, 1)), &Ok(1))?;
        expect_said("FUTEX_WAIT", &peer.join()?, &Ok(0))
    },
);
