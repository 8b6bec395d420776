//! set_robust_list(2) and what the kernel does with the list of a process that ends.

use super::tools::{Said, expect_said, sleeper, still_asleep, wait_for_wake};
use libc::{EFAULT, EINVAL, EPERM, ESRCH};
use shmcheck_probe::sys::again::{Again, exec_again, keep_on_exec};
use shmcheck_probe::sys::futex::{self, OWNER_DIED, ROBUST_HEAD, ROBUST_LIST_LIMIT, WAITERS};
use shmcheck_probe::{Clause, Context, Isolate, Map, Need, Outcome, Peer, Probe, Stop, Sys, doc, kernel, man, sys};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::SeqCst;

/// The probes of this file.
pub const PROBES: &[&Probe] = &[
    &SET_GET,
    &SET_EINVAL,
    &GET_OTHER,
    &GET_EFAULT,
    &GET_ESRCH,
    &GET_EPERM,
    &EXIT_MARKS,
    &KILL_MARKS,
    &EXEC_MARKS,
    &FOREIGN_UNTOUCHED,
    &WAITERS_WOKEN,
    &NO_BIT_NO_WAKE,
    &PENDING_MARKED,
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

const ABI: &[Clause] = &[doc("Documentation/locking/robust-futex-ABI.rst", ""), man("get_robust_list(2)", "")];
const WALK: &[Clause] =
    &[kernel("kernel/futex/core.c", "exit_robust_list"), doc("Documentation/locking/robust-futex-ABI.rst", "")];

#[track_caller]
const fn probe(id: &'static str, title: &'static str, why: &'static str, run: fn(&mut Context) -> Outcome) -> Probe {
    Probe {
        title,
        why,
        spec: ABI,
        calls: &[Sys::SetRobustList, Sys::GetRobustList],
        isolate: Isolate::Cell,
        ..Probe::new(id, run)
    }
}

/// Where the head lies.
const HEAD: usize = 0;
/// Where entries begin: each a pointer to the next and, behind it, the word.
const ENTRIES: usize = 64;
/// Bytes per entry.
const STRIDE: usize = 16;
/// From an entry to its word.
const TO_WORD: usize = 8;

/// A list in shared memory, so that others see what the kernel did to it.
struct List {
    map: Map,
}

impl List {
    fn new(entries: usize) -> sys::Result<Self> {
        Ok(Self { map: Map::shared_anonymous((ENTRIES + STRIDE * entries).next_multiple_of(sys::page_size()))? })
    }

    fn entry(n: usize) -> usize {
        ENTRIES + STRIDE * n
    }

    fn address(&self, offset: usize) -> usize {
        self.map.address() + offset
    }

    fn word_address(&self, n: usize) -> usize {
        self.address(Self::entry(n) + TO_WORD)
    }

    fn word(&self, n: usize) -> u32 {
        self.map.atomic(Self::entry(n) + TO_WORD).load(SeqCst)
    }

    fn set_word(&self, n: usize, value: u32) {
        self.map.atomic(Self::entry(n) + TO_WORD).store(value, SeqCst);
    }

    fn put(&self, offset: usize, value: usize) {
        self.map.write_all(offset, &value.to_ne_bytes());
    }

    /// Links the entries in order, back to the head, with nothing pending.
    fn link(&self, entries: usize) {
        let mut at = HEAD;
        for n in 0..entries {
            self.put(at, self.address(Self::entry(n)));
            at = Self::entry(n);
        }
        self.put(at, self.address(HEAD));
        self.put(HEAD + 8, TO_WORD);
        self.put(HEAD + 16, 0);
    }

    fn register(&self) -> sys::Result<()> {
        futex::set_robust_list(self.address(HEAD), ROBUST_HEAD)
    }

    /// A process that prepares the list, registers it and ends.
    fn after_exit(&self, cx: &mut Context, prepare: impl FnOnce(&Self, u32)) -> Outcome {
        cx.elsewhere(|_| {
            prepare(self, futex::own_tid());
            Ok(self.register()?)
        })
    }
}

const SET_GET: Probe = probe(
    "sync.robust-list.set-get",
    "get_robust_list gives the head and length that were set",
    "checkpoint tools (CRIU) save the pointer by it; restored wrongly, locks of a crashed process stay locked",
    set_get,
);
fn set_get(cx: &mut Context) -> Outcome {
    let list = List::new(1)?;
    list.link(0);
    let seen = cx.elsewhere(|_| {
        list.register()?;
        Ok((futex::get_robust_list(0)?, futex::get_robust_list(sys::getpid())?))
    })?;
    let wanted = (list.address(HEAD), ROBUST_HEAD);
    cx.expect_eq("head and length of the caller", seen.0, wanted)?;
    cx.expect_eq("head and length by process id", seen.1, wanted)
}

const SET_EINVAL: Probe = Probe {
    spec: &[man("get_robust_list(2)", "EINVAL")],
    ..probe(
        "sync.robust-list.set-einval",
        "set_robust_list with another length than the structure's: EINVAL",
        "the C library tells by it that its structure is the kernel's; else it must not promise robust locks",
        set_einval,
    )
};
fn set_einval(cx: &mut Context) -> Outcome {
    let before = futex::get_robust_list(0)?;
    let list = List::new(1)?;
    for length in [0, ROBUST_HEAD - 1, ROBUST_HEAD + 1, ROBUST_HEAD / 2] {
        cx.expect_errno(EINVAL, || futex::set_robust_list(list.address(HEAD), length))?;
    }
    cx.expect_eq("the list after the refusals", futex::get_robust_list(0)?, before)
}

const GET_OTHER: Probe = probe(
    "sync.robust-list.get-other",
    "get_robust_list reads the list of another process of the same user",
    "debuggers show which locks a hung process holds",
    get_other,
);
fn get_other(cx: &mut Context) -> Outcome {
    let list = List::new(1)?;
    list.link(0);
    let (ready, never) = (cx.gate()?, cx.gate()?);
    let peer = cx.fork(|_| {
        list.register()?;
        ready.open()?;
        never.pass()
    })?;
    ready.pass()?;
    let seen = cx.expect_ok(|| futex::get_robust_list(peer.pid()))?;
    cx.expect_eq("head and length", seen, (list.address(HEAD), ROBUST_HEAD))?;
    peer.kill().map(drop)
}

const GET_EFAULT: Probe = Probe {
    spec: &[man("get_robust_list(2)", "EFAULT")],
    ..probe(
        "sync.robust-list.get-efault",
        "get_robust_list with an unmapped address for an answer: EFAULT",
        "two answers are written; each must be checked",
        get_efault,
    )
};
fn get_efault(cx: &mut Context) -> Outcome {
    let list = List::new(1)?;
    let gone = futex::unmapped()?;
    cx.expect_ok(|| futex::get_robust_list_at(0, list.address(0), list.address(8)))?;
    cx.expect_errno(EFAULT, || futex::get_robust_list_at(0, gone, list.address(8)))?;
    cx.expect_errno(EFAULT, || futex::get_robust_list_at(0, list.address(0), gone))
}

const GET_ESRCH: Probe = Probe {
    spec: &[man("get_robust_list(2)", "ESRCH")],
    ..probe(
        "sync.robust-list.get-esrch",
        "get_robust_list of a thread that does not exist: ESRCH",
        "a monitor must see that the process is gone, not an empty list",
        |cx| cx.expect_errno(ESRCH, || futex::get_robust_list(0x3fff_fffe)),
    )
};

const GET_EPERM: Probe = Probe {
    spec: &[man("get_robust_list(2)", "EPERM")],
    needs: &[Need::OtherUsers],
    ..probe(
        "sync.robust-list.get-eperm",
        "get_robust_list of another user's process without CAP_SYS_PTRACE: EPERM",
        "the address tells where a program's memory lies, which randomisation is to hide",
        get_eperm,
    )
};
fn get_eperm(cx: &mut Context) -> Outcome {
    let own = sys::getpid();
    cx.expect_ok(|| futex::get_robust_list(own))?;
    let answer: Said = cx
        .as_user(65534, 65534, |_| Ok(futex::get_robust_list(own).map(|(head, _)| head as i64).map_err(|e| e.errno)))?;
    expect_said("get_robust_list as user 65534", &answer, &Err(EPERM))
}

const EXIT_MARKS: Probe = probe(
    "sync.robust-list.exit-marks",
    "a word on the list of a process that exits becomes FUTEX_OWNER_DIED",
    "this bit is all that the next owner learns: without it a crash is a deadlock",
    exit_marks,
);
fn exit_marks(cx: &mut Context) -> Outcome {
    let list = List::new(1)?;
    list.after_exit(cx, |list, tid| {
        list.set_word(0, tid);
        list.link(1);
    })?;
    cx.expect_eq("the word", list.word(0), OWNER_DIED)
}

/// A process that registered a list and lives until it is told or killed.
fn holder(
    cx: &mut Context,
    list: &List,
    prepare: impl FnOnce(&List, u32),
) -> Result<(Peer<()>, shmcheck_probe::Gate), Stop> {
    let (ready, go) = (cx.gate()?, cx.gate()?);
    let peer = cx.fork(|_| {
        prepare(list, futex::own_tid());
        list.register()?;
        ready.open()?;
        go.pass()
    })?;
    ready.pass()?;
    Ok((peer, go))
}

const KILL_MARKS: Probe = probe(
    "sync.robust-list.kill-marks",
    "SIGKILL does not keep the kernel from walking the list",
    "the OOM killer asks nobody; the list must be walked by the kernel alone",
    kill_marks,
);
fn kill_marks(cx: &mut Context) -> Outcome {
    let list = List::new(1)?;
    let (peer, _go) = holder(cx, &list, |list, tid| {
        list.set_word(0, tid);
        list.link(1);
    })?;
    cx.expect_eq("the word while the holder lives", list.word(0), peer.pid().cast_unsigned())?;
    peer.kill()?;
    cx.expect_eq("the word", list.word(0), OWNER_DIED)
}

const EXEC_MARKS: Probe = Probe {
    spec: &[kernel("kernel/futex/core.c", "futex_exec_release"), doc("Documentation/locking/robust-futexes.rst", "")],
    ..probe(
        "sync.robust-list.exec-marks",
        "execve walks the list as exit does, and forgets it",
        "a supervisor that locks and execs the next version would leave its locks held by a program that does not know them",
        exec_marks,
    )
};
fn exec_marks(cx: &mut Context) -> Outcome {
    let list = List::new(1)?;
    let (arrived, writing) = sys::pipe()?;
    let peer = cx.fork(|_| {
        list.set_word(0, futex::own_tid());
        list.link(1);
        list.register()?;
        keep_on_exec(writing.as_raw_fd())?;
        Err::<(), _>(exec_again(Again::Stay(writing.as_raw_fd())).into())
    })?;
    drop(writing);
    let mut byte = [0];
    std::io::Read::read_exact(&mut std::fs::File::from(arrived), &mut byte)?;
    cx.expect_eq("the word while the new program runs", list.word(0), OWNER_DIED)?;
    cx.expect_ne("the new program's list", futex::get_robust_list(peer.pid())?.0, list.address(HEAD))?;
    peer.kill().map(drop)
}

const FOREIGN_UNTOUCHED: Probe = probe(
    "sync.robust-list.foreign-untouched",
    "a word that names another owner is left alone",
    "the list may be stale: a lock that was handed on must not be broken by its former owner's end",
    foreign_untouched,
);
fn foreign_untouched(cx: &mut Context) -> Outcome {
    let list = List::new(2)?;
    let foreign = futex::own_tid();
    list.after_exit(cx, |list, tid| {
        list.set_word(0, foreign);
        list.set_word(1, tid);
        list.link(2);
    })?;
    cx.expect_eq("the foreign word", list.word(0), foreign)?;
    cx.expect_eq("the own word behind it", list.word(1), OWNER_DIED)
}

const WAITERS_WOKEN: Probe = probe(
    "sync.robust-list.waiters-woken",
    "a word with FUTEX_WAITERS keeps the bit, and one waiter is woken",
    "the waiter sleeps in another process and hears of the crash only by this wake-up",
    waiters_woken,
);
fn waiters_woken(cx: &mut Context) -> Outcome {
    let list = List::new(1)?;
    let (peer, go) = holder(cx, &list, |list, tid| {
        list.set_word(0, tid | WAITERS);
        list.link(1);
    })?;
    let held = peer.pid().cast_unsigned() | WAITERS;
    let waiters = [
        sleeper(cx, || wait_for_wake(list.word_address(0), held))?,
        sleeper(cx, || wait_for_wake(list.word_address(0), held))?,
    ];
    go.open()?;
    peer.join()?;
    cx.expect_eq("the word", list.word(0), OWNER_DIED | WAITERS)?;
    // One of the two was woken by the kernel, the other is still there to be woken by hand.
    cx.expect_eq("waiters left", futex::wake(list.word_address(0), 9)?, 1)?;
    waiters.into_iter().try_for_each(|waiter| expect_said("FUTEX_WAIT", &waiter.join()?, &Ok(0)))
}

const NO_BIT_NO_WAKE: Probe = probe(
    "sync.robust-list.no-bit-no-wake",
    "without FUTEX_WAITERS in the word nobody is woken",
    "the bit is the protocol; a waiter that forgot to set it must find its own error",
    no_bit_no_wake,
);
fn no_bit_no_wake(cx: &mut Context) -> Outcome {
    let list = List::new(1)?;
    let (peer, go) = holder(cx, &list, |list, tid| {
        list.set_word(0, tid);
        list.link(1);
    })?;
    let held = peer.pid().cast_unsigned();
    let waiter = sleeper(cx, || wait_for_wake(list.word_address(0), held))?;
    go.open()?;
    peer.join()?;
    cx.expect_eq("the word", list.word(0), OWNER_DIED)?;
    still_asleep(cx, "the waiter", &waiter)?;
    cx.expect_eq("waiters left", futex::wake(list.word_address(0), 9)?, 1)?;
    expect_said("FUTEX_WAIT", &waiter.join()?, &Ok(0))
}

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
    cx.expect_eq("waiters left", futex::wake(list.word_address(0), 9)?, i64::from(!woken))?;
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
        "a list that never returns to its head does not keep the process from ending",
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
    cx.expect_eq("waiters left", futex::wake(list.word_address(0), 9)?, 1)?;
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
