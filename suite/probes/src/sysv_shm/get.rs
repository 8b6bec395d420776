//! shmget(2): creating and finding segments.

use super::parts::{page, plainly, segment};
use libc::{EACCES, EEXIST, EINVAL, ENOENT};
use shmcheck_probe::sys::{self, IPC_CREAT, IPC_EXCL, IPC_PRIVATE};
use shmcheck_probe::{Context, Isolate, Outcome, Probe, Segment, Sys, kernel, man, posix, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &EXCL_EEXIST,
    &NO_KEY_ENOENT,
    &EXCL_FIRST,
    &PRIVATE_NEW,
    &PRIVATE_NO_CREAT,
    &PRIVATE_EXCL,
    &KEY_FINDS,
    &CREAT_FINDS,
    &EXCL_ALONE,
    &TWO_KEYS,
    &NEGATIVE_KEY,
    &SIZE_LARGER,
    &SIZE_SMALLER,
    &SIZE_ZERO_FINDS,
    &SIZE_ZERO_CREATE,
    &ID_GONE,
    &SEQUENCE,
    &ID_COMPOSED,
    &RAW_SAME,
    &ONE_WINNER,
];

const EXCL_EEXIST: Probe = Probe {
    title: "IPC_CREAT|IPC_EXCL on a live key fails with EEXIST",
    why: "single-instance locks (PostgreSQL, Oracle) rely on it: without it two servers share one data directory",
    spec: &[man("shmget(2)", "EEXIST"), posix("shmget")],
    calls: &[Sys::Shmget],
    ..Probe::new("sysv.shm.get.excl-eexist", excl_eexist)
};
fn excl_eexist(cx: &mut Context) -> Outcome {
    let key = cx.fresh_key();
    let held = cx.segment(key, page(), 0o600)?;
    cx.expect_errno(EEXIST, || sys::shmget(key, page(), IPC_CREAT | IPC_EXCL | 0o600))?;
    cx.expect_eq("shm_nattch", held.stat()?.nattch, 0)
}

const NO_KEY_ENOENT: Probe = Probe {
    title: "a key that nobody created is not found: ENOENT",
    why: "clients tell 'server not running' from 'server refuses me' by this errno",
    spec: &[man("shmget(2)", "ENOENT"), posix("shmget")],
    calls: &[Sys::Shmget],
    ..Probe::new("sysv.shm.get.no-key-enoent", no_key_enoent)
};
fn no_key_enoent(cx: &mut Context) -> Outcome {
    let key = cx.fresh_key();
    cx.expect_errno(ENOENT, || sys::shmget(key, page(), 0o600))
}

const EXCL_FIRST: Probe = Probe {
    title: "IPC_CREAT|IPC_EXCL says EEXIST also to those without permission",
    why: "a second server under another user must hear 'already running', not a puzzle about rights",
    spec: &[man("shmget(2)", "EEXIST"), kernel("ipc/util.c", "ipcget_public")],
    calls: &[Sys::Shmget],
    ..Probe::new("sysv.shm.get.excl-before-permission", excl_first)
};
fn excl_first(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0)?;
    plainly(cx, |cx| {
        cx.expect_errno(EACCES, || sys::shmget(made.key, page(), IPC_CREAT | 0o600))?;
        cx.expect_errno(EEXIST, || sys::shmget(made.key, page(), IPC_CREAT | IPC_EXCL | 0o600))
    })
}

const PRIVATE_NEW: Probe = Probe {
    title: "IPC_PRIVATE creates a new segment each time",
    why: "X clients make one segment per image with IPC_PRIVATE: were it shared, one window would paint into another",
    spec: &[man("shmget(2)", "DESCRIPTION"), posix("shmget")],
    calls: &[Sys::Shmget, Sys::Shmat],
    ..Probe::new("sysv.shm.get.private-new", private_new)
};
fn private_new(cx: &mut Context) -> Outcome {
    let first = Segment::get(IPC_PRIVATE, page(), IPC_CREAT | 0o600)?;
    let second = Segment::get(IPC_PRIVATE, page(), IPC_CREAT | 0o600)?;
    cx.expect_ne("second identifier", second.id, first.id)?;
    first.attach(0)?.write(0, 1);
    cx.expect_eq("first byte of the second segment", second.attach(0)?.read(0), 0)?;
    cx.expect_eq("shm_perm.key", first.stat()?.key, IPC_PRIVATE)
}

/// Creates with IPC_PRIVATE and these flags, which the call is to ignore.
fn private_with(cx: &mut Context, flags: i32) -> Outcome {
    let id = cx.expect_ok(|| sys::shmget(IPC_PRIVATE, page(), flags | 0o640))?;
    let made = Segment::adopt(id, IPC_PRIVATE, page());
    cx.expect_eq("shm_perm.mode", made.stat()?.mode, 0o640)
}

const PRIVATE_NO_CREAT: Probe = Probe {
    title: "IPC_PRIVATE creates without IPC_CREAT",
    why: "the classic shmget(IPC_PRIVATE, size, 0600) of countless programs has no IPC_CREAT: they would not start",
    spec: &[man("shmget(2)", "NOTES"), posix("shmget")],
    calls: &[Sys::Shmget],
    ..Probe::new("sysv.shm.get.private-no-creat", |cx| private_with(cx, 0))
};

const PRIVATE_EXCL: Probe = Probe {
    title: "IPC_PRIVATE ignores IPC_EXCL",
    why: "a wrapper that always adds IPC_CREAT|IPC_EXCL works for private segments too; else its first one blocks all others",
    spec: &[man("shmget(2)", "NOTES")],
    calls: &[Sys::Shmget],
    ..Probe::new("sysv.shm.get.private-excl", |cx| {
        let _first = Segment::get(IPC_PRIVATE, page(), IPC_CREAT | IPC_EXCL | 0o600)?;
        private_with(cx, IPC_CREAT | IPC_EXCL)
    })
};

const KEY_FINDS: Probe = Probe {
    title: "a key gives another process the same identifier",
    why: "this is how a client finds its server's segment; with another identifier it would map memory nobody writes",
    spec: &[man("shmget(2)", "DESCRIPTION"), posix("shmget")],
    calls: &[Sys::Shmget, Sys::Shmat],
    ..Probe::new("sysv.shm.get.key-finds", key_finds)
};
fn key_finds(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    made.attach(0)?.write(7, 42);
    let (id, byte) = cx.elsewhere(|cx| {
        let id = cx.expect_ok(|| sys::shmget(made.key, page(), 0))?;
        let found = Segment::adopt(id, made.key, page());
        let byte = found.attach(0)?.read(7);
        Ok((found.disown(), byte))
    })?;
    cx.expect_eq("shmget", id, made.id)?;
    cx.expect_eq("byte read by the other process", byte, 42)
}

const CREAT_FINDS: Probe = Probe {
    title: "IPC_CREAT on a live key finds the segment as it is",
    why: "a restarted worker calls the same create-or-open code: it must get the old data with the old rights",
    spec: &[man("shmget(2)", "DESCRIPTION"), posix("shmget")],
    calls: &[Sys::Shmget],
    ..Probe::new("sysv.shm.get.creat-finds", creat_finds)
};
fn creat_finds(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    made.attach(0)?.write(0, 9);
    let before = made.stat()?;
    let id = cx.expect_ok(|| sys::shmget(made.key, page() / 2, IPC_CREAT | 0o400))?;
    cx.expect_eq("shmget", id, made.id)?;
    cx.expect_eq("shmid_ds", made.stat()?, before)?;
    cx.expect_eq("first byte", made.attach(0)?.read(0), 9)
}

const EXCL_ALONE: Probe = Probe {
    title: "IPC_EXCL without IPC_CREAT finds a live key",
    why: "code that clears IPC_CREAT to look up but forgets IPC_EXCL works on Linux: it is told the identifier",
    spec: &[man("shmget(2)", "IPC_EXCL"), kernel("ipc/util.c", "ipcget_public")],
    calls: &[Sys::Shmget],
    ..Probe::new("sysv.shm.get.excl-alone-finds", excl_alone)
};
fn excl_alone(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let id = cx.expect_ok(|| sys::shmget(made.key, 0, IPC_EXCL | 0o600))?;
    cx.expect_eq("shmget", id, made.id)
}

const TWO_KEYS: Probe = Probe {
    title: "two keys name two segments with memory of their own",
    why: "two database clusters on one machine differ by their key only; one memory would be corruption of both",
    spec: &[man("shmget(2)", "DESCRIPTION"), posix("shmget")],
    calls: &[Sys::Shmget, Sys::Shmat],
    ..Probe::new("sysv.shm.get.two-keys", two_keys)
};
fn two_keys(cx: &mut Context) -> Outcome {
    let (first, second) = (segment(cx, 1, 0o600)?, segment(cx, 1, 0o600)?);
    cx.expect_ne("second identifier", second.id, first.id)?;
    let (a, b) = (first.attach(0)?, second.attach(0)?);
    a.touch(1);
    b.touch(2);
    cx.expect_eq("first bytes of the two", (a.read(0), b.read(0)), (1, 2))
}

const NEGATIVE_KEY: Probe = Probe {
    title: "keys are 32 bits: negative ones name segments too",
    why: "ftok and hashed keys use the sign bit: half of all programs could not create their segment without it",
    spec: &[man("shmget(2)", "DESCRIPTION"), man("ftok(3)", "DESCRIPTION")],
    calls: &[Sys::Shmget],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.get.negative-key", negative_key)
};
fn negative_key(cx: &mut Context) -> Outcome {
    for key in [-1, i32::MIN, i32::MAX] {
        let id = cx.expect_ok(|| sys::shmget(key, page(), IPC_CREAT | IPC_EXCL | 0o600))?;
        let made = Segment::adopt(id, key, page());
        cx.expect_eq("shmget of the same key", sys::shmget(key, 0, 0)?, id)?;
        cx.expect_eq("shm_perm.key", made.stat()?.key, key)?;
    }
    Ok(())
}

const SIZE_LARGER: Probe = Probe {
    title: "finding a segment that is smaller than asked for: EINVAL",
    why: "PostgreSQL and Zabbix report a stale segment of an older configuration by this errno instead of running past its end",
    fix: "remove the stale segment: ipcs -m, then ipcrm -m ID",
    spec: &[man("shmget(2)", "EINVAL"), posix("shmget")],
    calls: &[Sys::Shmget],
    ..Probe::new("sysv.shm.get.size-larger-einval", size_larger)
};
fn size_larger(cx: &mut Context) -> Outcome {
    let key = cx.fresh_key();
    let made = cx.segment(key, 100, 0o600)?;
    cx.expect_eq("shmget of the same size", sys::shmget(key, 100, 0o600)?, made.id)?;
    // The limit is the size asked for, not the page it was rounded up to.
    for flags in [0o600, IPC_CREAT | 0o600] {
        cx.expect_errno(EINVAL, || sys::shmget(key, 101, flags))?;
    }
    cx.expect_eq("shm_segsz", made.stat()?.segsz, 100)
}

/// Finds a segment of two pages with a smaller size; it keeps its own.
fn found_with_size(cx: &mut Context, size: usize) -> Outcome {
    let made = segment(cx, 2, 0o600)?;
    let id = cx.expect_ok(|| sys::shmget(made.key, size, 0o600))?;
    cx.expect_eq("shmget", id, made.id)?;
    cx.expect_eq("shm_segsz", made.stat()?.segsz, 2 * page())
}

const SIZE_SMALLER: Probe = Probe {
    title: "finding a segment with a smaller size succeeds",
    why: "an older client that knows only the head of a structure still attaches to a newer server's segment",
    spec: &[man("shmget(2)", "EINVAL"), posix("shmget")],
    calls: &[Sys::Shmget],
    ..Probe::new("sysv.shm.get.size-smaller-found", |cx| found_with_size(cx, page()))
};

const SIZE_ZERO_FINDS: Probe = Probe {
    title: "finding a segment with size 0 succeeds",
    why: "readers that do not know the size pass 0 and ask IPC_STAT: monitoring tools could not attach otherwise",
    spec: &[man("shmget(2)", "EINVAL"), posix("shmget")],
    calls: &[Sys::Shmget],
    ..Probe::new("sysv.shm.get.size-zero-found", |cx| found_with_size(cx, 0))
};

const SIZE_ZERO_CREATE: Probe = Probe {
    title: "creating a segment of size 0 fails with EINVAL",
    why: "a miscomputed size shows at creation instead of as a fault at the first store",
    spec: &[man("shmget(2)", "EINVAL"), posix("shmget")],
    calls: &[Sys::Shmget],
    ..Probe::new("sysv.shm.get.size-zero-einval", size_zero_create)
};
fn size_zero_create(cx: &mut Context) -> Outcome {
    let key = cx.fresh_key();
    cx.expect_errno(EINVAL, || sys::shmget(key, 0, IPC_CREAT | 0o600))?;
    cx.expect_errno(ENOENT, || sys::shmget(key, 0, 0o600))?;
    cx.expect_errno(EINVAL, || sys::shmget(IPC_PRIVATE, 0, IPC_CREAT | 0o600))?;
    // The smallest size there is, SHMMIN.
    let made = cx.expect_ok(|| sys::shmget(key, 1, IPC_CREAT | 0o600))?;
    cx.expect_eq("shm_segsz", Segment::adopt(made, key, 1).stat()?.segsz, 1)
}

const ID_GONE: Probe = Probe {
    title: "a key that was removed and made again has another identifier",
    why: "a client that kept the identifier of a restarted server gets an error instead of the new server's memory",
    spec: &[posix("shmget"), kernel("ipc/util.c", "ipc_idr_alloc")],
    calls: &[Sys::Shmget, Sys::Shmctl],
    ..Probe::new("sysv.shm.get.id-changes", id_gone)
};
fn id_gone(cx: &mut Context) -> Outcome {
    let mut old = segment(cx, 1, 0o600)?;
    old.remove()?;
    let new = cx.segment(old.key, page(), 0o600)?;
    cx.expect_ne("identifier", new.id, old.id)?;
    cx.expect_errno(EINVAL, || sys::shm_stat(old.id))?;
    cx.expect_errno(EINVAL, || sys::shmat(old.id, 0))?;
    cx.expect_errno(EINVAL, || sys::shm_remove(old.id))?;
    cx.expect_eq("shm_perm.key", new.stat()?.key, new.key)
}

/// The index of an identifier in the kernel's array, and its sequence number, where the latter is `seq`.
///
/// The index has 15 bits, or 24 where the kernel was started with ipcmni_extend.
fn taken_apart(id: i32, seq: u16) -> Option<i32> {
    [15, 24].into_iter().find(|bits| id >> bits == i32::from(seq)).map(|bits| id & ((1 << bits) - 1))
}

const SEQUENCE: Probe = Probe {
    title: "an index is used again only with another sequence number",
    why: "a stale identifier would silently mean the next program's segment: wrong data instead of an error",
    spec: &[man("shmctl(2)", "__seq"), kernel("ipc/util.c", "ipc_idr_alloc")],
    calls: &[Sys::Shmget, Sys::Shmctl],
    ..Probe::new("sysv.shm.get.sequence", sequence)
};
fn sequence(cx: &mut Context) -> Outcome {
    // Indices are handed out in a circle of at least 64, so one comes again soon.
    let mut seen = std::collections::HashMap::new();
    for _ in 0..400 {
        let made = Segment::get(IPC_PRIVATE, page(), IPC_CREAT | 0o600)?;
        let seq = made.stat()?.seq;
        let Some(index) = taken_apart(made.id, seq) else { break };
        if let Some((id, before)) = seen.insert(index, (made.id, seq)) {
            cx.expect_ne("shm_perm.seq of a used index", seq, before)?;
            return cx.expect_errno(EINVAL, || sys::shm_stat(id));
        }
    }
    cx.expect("identifiers of 400 segments", false, "an index that comes again", seen.len())
}

const ID_COMPOSED: Probe = Probe {
    title: "an identifier is its sequence number and its index",
    why: "ipcs and CRIU take identifiers apart; a wrong number makes them show or restore another segment",
    spec: &[man("shmctl(2)", "__seq"), kernel("ipc/util.h", "ipc_buildid")],
    calls: &[Sys::Shmget, Sys::Shmctl],
    ..Probe::new("sysv.shm.get.id-composed", id_composed)
};
fn id_composed(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let stat = made.stat()?;
    let index = taken_apart(made.id, stat.seq);
    cx.expect("shm_perm.seq", index.is_some(), format!("the high bits of {:#x}", made.id), stat.seq)?;
    let (id, _) = sys::shm_stat_by(index.unwrap_or(-1), sys::SHM_STAT)?;
    cx.expect_eq("identifier at the index", id, made.id)
}

const RAW_SAME: Probe = Probe {
    title: "the system calls see the C library's segment, field by field",
    why: "Go programs make the calls without libc: the two must agree, or a Go agent misreads a C server's segment",
    spec: &[man("shmctl(2)", "NOTES"), kernel("include/uapi/asm-generic/shmbuf.h", "shmid64_ds")],
    calls: &[Sys::Shmget, Sys::Shmctl, Sys::Shmat, Sys::Shmdt],
    ..Probe::new("sysv.shm.get.raw-same", raw_same)
};
fn raw_same(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o640)?;
    made.attach(0)?.write(3, 33);
    cx.expect_eq("raw shmget", sys::raw::shmget(made.key, page(), 0o600)?, made.id)?;
    let address = cx.expect_ok(|| sys::raw::shmat(made.id, 0, 0))?;
    cx.expect_eq("byte behind raw shmat", shmcheck_probe::Map::view(address, page()).read(3), 33)?;
    cx.expect_eq("raw IPC_STAT", sys::shm_stat_raw(made.id, libc::IPC_STAT)?.1, made.stat()?)?;
    cx.expect_ok(|| sys::raw::shmdt(address))?;
    cx.expect_eq("mapping after raw shmdt", procfs::mapping_at(address)?.map(|m| m.name), None)
}

const ONE_WINNER: Probe = Probe {
    title: "of processes racing with IPC_CREAT|IPC_EXCL exactly one creates",
    why: "two servers started at once by an init system: exactly one may believe that it owns the data",
    spec: &[man("shmget(2)", "IPC_EXCL"), posix("shmget")],
    calls: &[Sys::Shmget],
    ..Probe::new("sysv.shm.get.one-winner", one_winner)
};
fn one_winner(cx: &mut Context) -> Outcome {
    const RACERS: usize = 3;
    let key = cx.fresh_key();
    let start = cx.gate()?;
    let mut peers = Vec::new();
    for _ in 0..RACERS {
        peers.push(cx.fork(|_| {
            start.pass()?;
            Ok(sys::shmget(key, page(), IPC_CREAT | IPC_EXCL | 0o600).map_err(|e| e.errno))
        })?);
    }
    for _ in 0..RACERS {
        start.open()?;
    }
    let results: Vec<_> = peers.into_iter().map(shmcheck_probe::Peer::join).collect::<Result<_, _>>()?;
    let winners: Vec<_> = results.iter().filter_map(|r| r.as_ref().ok()).collect();
    let made = winners.first().map(|id| Segment::adopt(**id, key, page()));
    cx.expect_eq("number of creators", winners.len(), 1)?;
    let losers = results.iter().filter(|r| **r == Err(EEXIST)).count();
    cx.expect_eq("number of EEXIST", losers, RACERS - 1)?;
    cx.expect_eq("identifier of the key", Some(sys::shmget(key, 0, 0)?), made.map(|made| made.id))
}
