//! set_robust_list(2) and what the kernel does with the list of a process that ends.

use super::tools::{Said, expect_said, said, sleeper, still_asleep, wait_for_wake};
use libc::{EFAULT, EINVAL, EPERM, ESRCH};
use shmcheck_probe::sys::again::{Again, exec_again, keep_on_exec};
use shmcheck_probe::sys::futex::{self, OWNER_DIED, ROBUST_HEAD, WAITERS};
use shmcheck_probe::{Clause, Context, Isolate, Map, Need, Outcome, Peer, Probe, Stop, Sys, doc, kernel, man, sys};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::SeqCst;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
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
];

const ABI: &[Clause] = &[doc("Documentation/locking/robust-futex-ABI.rst", ""), man("get_robust_list(2)", "")];

#[track_caller]
pub(super) const fn probe(
    id: &'static str,
    title: &'static str,
    why: &'static str,
    run: fn(&mut Context) -> Outcome,
) -> Probe {
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
pub(super) const HEAD: usize = 0;

/// Where entries begin: each a pointer to the next and, behind it, the word.
const ENTRIES: usize = 64;

/// Bytes per entry.
pub(super) const STRIDE: usize = 16;

/// From an entry to its word.
pub(super) const TO_WORD: usize = 8;

/// A list in shared memory, so that others see what the kernel did to it.
pub(super) struct List {
    pub(super) map: Map,
}

impl List {
    pub(super) fn new(entries: usize) -> sys::Result<Self> {
        Ok(Self { map: Map::shared_anonymous((ENTRIES + STRIDE * entries).next_multiple_of(sys::page_size()))? })
    }

    pub(super) fn entry(n: usize) -> usize {
        ENTRIES + STRIDE * n
    }

    pub(super) fn address(&self, offset: usize) -> usize {
        self.map.address() + offset
    }

    pub(super) fn word_address(&self, n: usize) -> usize {
        self.address(Self::entry(n) + TO_WORD)
    }

    pub(super) fn word(&self, n: usize) -> u32 {
        self.map.atomic(Self::entry(n) + TO_WORD).load(SeqCst)
    }

    pub(super) fn set_word(&self, n: usize, value: u32) {
        self.map.atomic(Self::entry(n) + TO_WORD).store(value, SeqCst);
    }

    pub(super) fn put(&self, offset: usize, value: usize) {
        self.map.write_all(offset, &value.to_ne_bytes());
    }

    /// Links the entries in order, back to the head, with nothing pending.
    pub(super) fn link(&self, entries: usize) {
        let mut at = HEAD;
        for n in 0..entries {
            self.put(at, self.address(Self::entry(n)));
            at = Self::entry(n);
        }
        self.put(at, self.address(HEAD));
        self.put(HEAD + 8, TO_WORD);
        self.put(HEAD + 16, 0);
    }

    pub(super) fn register(&self) -> sys::Result<()> {
        futex::set_robust_list(self.address(HEAD), ROBUST_HEAD)
    }

    /// A process that prepares the list, registers it and ends.
    pub(super) fn after_exit(&self, cx: &mut Context, prepare: impl FnOnce(&Self, u32)) -> Outcome {
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
pub(super) fn holder(
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
    expect_said("waiters left", &said(futex::wake(list.word_address(0), 9)), &Ok(1))?;
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
    expect_said("waiters left", &said(futex::wake(list.word_address(0), 9)), &Ok(1))?;
    expect_said("FUTEX_WAIT", &waiter.join()?, &Ok(0))
}
