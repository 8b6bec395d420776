//! How the kernel walks the robust list of a process that ends: pending entries, limits, damage.

use super::robust_list::{HEAD, List, STRIDE, TO_WORD, holder, probe};
use super::tools::{expect_said, said, sleeper, still_asleep, wait_for_wake};
use shmcheck_probe::sys::futex::{self, OWNER_DIED, ROBUST_HEAD, ROBUST_LIST_LIMIT, WAITERS};
use shmcheck_probe::{Clause, Context, Map, Outcome, Probe, Sys, doc, kernel, sys};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::SeqCst;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &PENDING_MARKED,
    &PENDING_LISTED,
    &HALF_HEAD,
    &PENDING_UNLOCK_WAKES,
    &PENDING_FOREIGN,
    &EVERY_ENTRY,
    &LIMIT,
    &CIRCLE_ENDS,
    &UNALIGNED_STOPS,
    &BAD_NEXT_STOPS,
    &BAD_HEAD,
    &NEGATIVE_OFFSET,
    &PI_ENTRY,
    &READ_ONLY_STOPS,
];

const WALK: &[Clause] =
    &[kernel("kernel/futex/core.c", "exit_robust_list"), doc("Documentation/locking/robust-futex-ABI.rst", "")];

const PENDING_MARKED: Probe = probe(
    "sync.robust-list.pending-marked",
    "a lock that was being taken when the owner died is marked as well",
    "between taking the word and linking it into the list there is a moment; the pending entry covers it",
    pending_marked,
);

fn pending_marked(cx: &mut Context) -> Outcome {
    let list = List::new(1)?;
    list.after_exit(cx, |list, tid| {
        list.set_word(0, tid);
        list.link(0);
        list.put(HEAD + 16, list.address(List::entry(0)));
    })?;
    cx.expect_eq("the word", list.word(0), OWNER_DIED)
}

/// A pending entry with this word; whether its waiter was woken.
fn pending_word(cx: &mut Context, word: u32, woken: bool) -> Outcome {
    let list = List::new(1)?;
    list.set_word(0, word);
    let waiter = sleeper(cx, || wait_for_wake(list.word_address(0), word))?;
    list.after_exit(cx, |list, _| {
        list.link(0);
        list.put(HEAD + 16, list.address(List::entry(0)));
    })?;
    cx.expect_eq("the word", list.word(0), word)?;
    expect_said("waiters left", &said(futex::wake(list.word_address(0), 9)), &Ok(i64::from(!woken)))?;
    expect_said("FUTEX_WAIT", &waiter.join()?, &Ok(0))
}

const PENDING_UNLOCK_WAKES: Probe = Probe {
    spec: &[kernel("kernel/futex/core.c", "handle_futex_death, commit ca16d5bee598")],
    ..probe(
        "sync.robust-list.pending-unlock-wakes",
        "an owner killed between unlocking and waking: the kernel wakes a waiter",
        "the word says free and nobody comes to say so: before Linux 5.5 the waiters slept for ever",
        |cx| pending_word(cx, 0, true),
    )
};

const PENDING_FOREIGN: Probe = Probe {
    spec: &[kernel("kernel/futex/core.c", "handle_futex_death")],
    ..probe(
        "sync.robust-list.pending-foreign-quiet",
        "a pending word that another holds with waiters is left alone",
        "its owner will wake them; an extra wake-up is only noise",
        |cx| pending_word(cx, futex::own_tid() | WAITERS, false),
    )
};

const EVERY_ENTRY: Probe = probe(
    "sync.robust-list.every-entry",
    "every entry of the list is marked, not only the first",
    "a transaction holds many locks when it crashes, and each has its waiters",
    every_entry,
);

fn every_entry(cx: &mut Context) -> Outcome {
    const HELD: usize = 20;
    let list = List::new(HELD)?;
    list.after_exit(cx, |list, tid| {
        (0..HELD).for_each(|n| list.set_word(n, tid));
        list.link(HELD);
    })?;
    let words: Vec<u32> = (0..HELD).map(|n| list.word(n)).collect();
    cx.expect_eq("the words", words, vec![OWNER_DIED; HELD])
}

const LIMIT: Probe = Probe {
    spec: &[
        kernel("include/uapi/linux/futex.h", "ROBUST_LIST_LIMIT"),
        kernel("kernel/futex/core.c", "exit_robust_list"),
    ],
    ..probe(
        "sync.robust-list.limit",
        "the kernel walks 2048 entries of a list and no more",
        "a program that holds more robust locks must know that the rest stays locked when it dies",
        limit,
    )
};

fn limit(cx: &mut Context) -> Outcome {
    let entries = ROBUST_LIST_LIMIT + 1;
    let list = List::new(entries)?;
    let tid = std::cell::Cell::new(0);
    let (peer, go) = holder(cx, &list, |list, tid| {
        (0..entries).for_each(|n| list.set_word(n, tid));
        list.link(entries);
    })?;
    tid.set(peer.pid().cast_unsigned());
    go.open()?;
    peer.join()?;
    cx.expect_eq("the first word", list.word(0), OWNER_DIED)?;
    cx.expect_eq("the last word within the limit", list.word(ROBUST_LIST_LIMIT - 1), OWNER_DIED)?;
    cx.expect_eq("the first word beyond", list.word(ROBUST_LIST_LIMIT), tid.get())
}

const CIRCLE_ENDS: Probe = Probe {
    spec: WALK,
    ..probe(
        "sync.robust-list.circle-ends",
        "a list that never returns to its head does not keep a process alive",
        "the list is the program's own memory and may be anything; exit must come to its end",
        circle_ends,
    )
};

fn circle_ends(cx: &mut Context) -> Outcome {
    let list = List::new(3)?;
    list.after_exit(cx, |list, tid| {
        (0..3).for_each(|n| list.set_word(n, tid));
        list.link(2);
        list.put(List::entry(1), list.address(List::entry(0)));
        list.put(HEAD + 16, list.address(List::entry(2)));
    })?;
    cx.expect_eq("the words of the circle", [list.word(0), list.word(1)], [OWNER_DIED; 2])?;
    cx.expect_eq("the pending word", list.word(2), OWNER_DIED)
}

/// A walk of three entries that stops behind the first: that is marked, the third is not.
fn stops(cx: &mut Context, spoil: impl Fn(&List)) -> Outcome {
    let list = List::new(3)?;
    let (peer, go) = holder(cx, &list, |list, tid| {
        (0..3).for_each(|n| list.set_word(n, tid));
        list.link(3);
        spoil(list);
    })?;
    let tid = peer.pid().cast_unsigned();
    go.open()?;
    peer.join()?;
    cx.expect_eq("the first word", list.word(0), OWNER_DIED)?;
    cx.expect_eq("the last word", list.word(2), tid)
}

const UNALIGNED_STOPS: Probe = Probe {
    spec: WALK,
    ..probe(
        "sync.robust-list.unaligned-stops",
        "the walk ends at an entry whose word is not aligned",
        "damaged memory must not make the kernel write across the words of others",
        |cx| stops(cx, |list| list.put(List::entry(0), list.address(List::entry(1) + 2))),
    )
};

const BAD_NEXT_STOPS: Probe = Probe {
    spec: WALK,
    ..probe(
        "sync.robust-list.bad-pointer-stops",
        "the walk ends at a pointer into unmapped memory, without harm",
        "a program that crashes has often damaged its list, and its exit must go on",
        |cx| {
            let gone = futex::unmapped()?;
            stops(cx, |list| list.put(List::entry(0), gone))
        },
    )
};

const BAD_HEAD: Probe = Probe {
    spec: WALK,
    ..probe(
        "sync.robust-list.bad-head",
        "a process whose list head is unmapped ends as any other",
        "memory was unmapped before the thread that registered it ended: no oops, no signal, an exit code",
        bad_head,
    )
};

fn bad_head(cx: &mut Context) -> Outcome {
    let gone = futex::unmapped()?;
    let exit = cx.exit_of(|| {
        let registered = futex::set_robust_list(gone, ROBUST_HEAD);
        sys::exit_now(if registered.is_ok() { 42 } else { 1 });
    })?;
    cx.expect_eq("how the process ended", exit, shmcheck_probe::Exit::Code(42))
}

const NEGATIVE_OFFSET: Probe = probe(
    "sync.robust-list.negative-offset",
    "the word may lie before the entry: the offset is signed",
    "glibc's mutexes have the list behind the word; an offset taken as unsigned points out of the address space",
    negative_offset,
);

fn negative_offset(cx: &mut Context) -> Outcome {
    let list = List::new(2)?;
    list.after_exit(cx, |list, tid| {
        list.set_word(0, tid);
        list.link(0);
        // The entry is the second, its word the first's.
        list.put(HEAD, list.address(List::entry(1)));
        list.put(List::entry(1), list.address(HEAD));
        list.put(HEAD + 8, TO_WORD.wrapping_sub(STRIDE));
    })?;
    cx.expect_eq("the word", list.word(0), OWNER_DIED)
}

const PI_ENTRY: Probe = Probe {
    spec: WALK,
    ..probe(
        "sync.robust-list.pi-entry",
        "an entry with bit 0 set is a PI lock: marked, but not woken plainly",
        "PI waiters are woken by the kernel's own queue of owners; a plain wake as well would wake two",
        pi_entry,
    )
};

fn pi_entry(cx: &mut Context) -> Outcome {
    let list = List::new(1)?;
    let (peer, go) = holder(cx, &list, |list, tid| {
        list.set_word(0, tid | WAITERS);
        list.link(1);
        list.put(HEAD, list.address(List::entry(0)) | 1);
    })?;
    let held = peer.pid().cast_unsigned() | WAITERS;
    let waiter = sleeper(cx, || wait_for_wake(list.word_address(0), held))?;
    go.open()?;
    peer.join()?;
    cx.expect_eq("the word", list.word(0), OWNER_DIED | WAITERS)?;
    still_asleep(cx, "the plain waiter", &waiter)?;
    expect_said("waiters left", &said(futex::wake(list.word_address(0), 9)), &Ok(1))?;
    expect_said("FUTEX_WAIT", &waiter.join()?, &Ok(0))
}

const READ_ONLY_STOPS: Probe = Probe {
    spec: WALK,
    calls: &[Sys::SetRobustList, Sys::MemfdCreate],
    ..probe(
        "sync.robust-list.read-only-stops",
        "a word that the dead process could not write stays as it was",
        "the kernel acts with the rights of the process: a list must not be a way to write into read-only memory",
        read_only_stops,
    )
};

fn read_only_stops(cx: &mut Context) -> Outcome {
    let fd = nix::sys::memfd::memfd_create(c"shmcheck", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    sys::ftruncate(fd.as_raw_fd(), 4096)?;
    let seen = Map::shared(&fd, 4096)?;
    let read_only = Map::new(4096, libc::PROT_READ, libc::MAP_SHARED, fd.as_raw_fd())?;
    let list = List::new(1)?;
    let (peer, go) = holder(cx, &list, |list, tid| {
        list.link(0);
        // The entry lies in the read-only memory: its pointer leads back to the head, the word names the process.
        seen.write_all(0, &list.address(HEAD).to_ne_bytes());
        seen.atomic(TO_WORD).store(tid, SeqCst);
        list.put(HEAD, read_only.address());
    })?;
    let tid = peer.pid().cast_unsigned();
    go.open()?;
    peer.join()?;
    cx.expect_eq("the word", seen.atomic(TO_WORD).load(SeqCst), tid)
}

const PENDING_LISTED: Probe = Probe {
    spec: WALK,
    ..probe(
        "sync.robust-list.pending-listed",
        "an entry that is pending and on the list wakes one waiter, not two",
        "unlocking passes through this state; two wake-ups for one lock is a herd at every crash",
        pending_listed,
    )
};
fn pending_listed(cx: &mut Context) -> Outcome {
    let list = List::new(1)?;
    let (peer, go) = holder(cx, &list, |list, tid| {
        list.set_word(0, tid | WAITERS);
        list.link(1);
        list.put(HEAD + 16, list.address(List::entry(0)));
    })?;
    let held = peer.pid().cast_unsigned() | WAITERS;
    let waiters = [
        sleeper(cx, || wait_for_wake(list.word_address(0), held))?,
        sleeper(cx, || wait_for_wake(list.word_address(0), held))?,
    ];
    go.open()?;
    peer.join()?;
    cx.expect_eq("the word", list.word(0), OWNER_DIED | WAITERS)?;
    expect_said("waiters left", &said(futex::wake(list.word_address(0), 9)), &Ok(1))?;
    waiters.into_iter().try_for_each(|waiter| expect_said("FUTEX_WAIT", &waiter.join()?, &Ok(0)))
}

const HALF_HEAD: Probe = Probe {
    spec: WALK,
    ..probe(
        "sync.robust-list.half-head",
        "a list head that reaches into unmapped memory marks nothing",
        "without the offset every entry would be taken for its word, and strangers' memory be written",
        half_head,
    )
};
fn half_head(cx: &mut Context) -> Outcome {
    let size = sys::page_size();
    let list = List::new(1)?;
    for readable in [8, 16] {
        let map = Map::shared_anonymous(2 * size)?;
        sys::munmap(map.address() + size, size)?;
        let head = map.address() + size - readable;
        let tid: i64 = cx.elsewhere(|_| {
            list.set_word(0, futex::own_tid());
            list.link(1);
            list.put(List::entry(0), head);
            map.write_all(size - readable, &list.address(List::entry(0)).to_ne_bytes());
            if readable == 16 {
                map.write_all(size - 8, &TO_WORD.to_ne_bytes());
            }
            futex::set_robust_list(head, ROBUST_HEAD)?;
            Ok(futex::own_tid().into())
        })?;
        cx.expect_eq("the word", i64::from(list.word(0)), tid)?;
    }
    Ok(())
}
