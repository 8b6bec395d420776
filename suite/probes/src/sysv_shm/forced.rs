//! The sysctls kernel.shm_rmid_forced and kernel.shm_next_id.

use super::parts::{Holder, page, segment};
use libc::{EINVAL, ENOENT, IPC_CREAT, IPC_EXCL, IPC_PRIVATE};
use shmcheck_probe::sys;
use shmcheck_probe::{
    Context, Gate, Isolate, Need, Outcome, Peer, Probe, Segment, Stop, Sys, doc, kernel, man, procfs,
};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &FORCED_DEFAULT,
    &FORCED_DETACH,
    &FORCED_ATTACHED,
    &FORCED_EXIT,
    &FORCED_ORPHANS,
    &FORCED_LIVING,
    &FORCED_INHERITED,
    &FORCED_OFF,
    &FORCED_RANGE,
    &NEXT_DEFAULT,
    &NEXT_TAKEN,
    &NEXT_ONCE,
    &NEXT_OCCUPIED,
    &NEXT_FIND,
    &NEXT_RANGE,
];

const FORCED: &str = "kernel/shm_rmid_forced";
const NEXT: &str = "kernel/shm_next_id";

/// A process that made a segment and waits to be told to end.
struct Maker {
    peer: Peer<()>,
    end: Gate,
    made: Segment,
}

impl Maker {
    fn new(cx: &mut Context) -> Result<Self, Stop> {
        let (key, end, ready) = (cx.fresh_key(), cx.gate()?, cx.gate()?);
        let peer = cx.fork(|cx| {
            cx.segment(key, page(), 0o600)?.disown();
            ready.open()?;
            end.pass()
        })?;
        ready.pass()?;
        let made = Segment::adopt(sys::shmget(key, 0, 0)?, key, page());
        Ok(Self { peer, end, made })
    }

    /// Ends the process; what it made.
    fn end(self) -> Result<Segment, Stop> {
        self.end.open()?;
        self.peer.join()?;
        Ok(self.made)
    }
}

/// Fails unless identifier and key of the segment are gone.
fn expect_gone(cx: &mut Context, made: &Segment) -> Outcome {
    cx.expect_errno(EINVAL, || made.stat())?;
    cx.expect_errno(ENOENT, || sys::shmget(made.key, 0, 0))
}

const FORCED_DEFAULT: Probe = Probe {
    title: "kernel.shm_rmid_forced is 0 in a new namespace",
    why: "a loader that fills a segment and ends would lose it: programs rely on POSIX's lifetime",
    spec: &[doc("Documentation/admin-guide/sysctl/kernel.rst", "shm_rmid_forced"), man("proc(5)", "shm_rmid_forced")],
    needs: &[Need::Path("/proc/sys/kernel/shm_rmid_forced")],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.forced.default", |cx| cx.expect_eq(FORCED, procfs::sysctl(FORCED)?.as_str(), "0"))
};

const FORCED_DETACH: Probe = Probe {
    title: "with shm_rmid_forced=1 the last detach destroys a segment",
    why: "administrators set it against leaks: every segment then behaves as if it had been removed at once",
    spec: &[doc("Documentation/admin-guide/sysctl/kernel.rst", "shm_rmid_forced"), man("proc(5)", "shm_rmid_forced")],
    calls: &[Sys::Shmat, Sys::Shmdt],
    needs: &[Need::Sysctl(FORCED)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.forced.last-detach", forced_detach)
};
fn forced_detach(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    made.attach(0)?.close()?;
    cx.expect_eq("shm_nattch with 0 in the sysctl", cx.expect_ok(|| made.stat())?.nattch, 0)?;
    procfs::set_sysctl(FORCED, 1)?;
    let (first, second) = (made.attach(0)?, made.attach(0)?);
    first.close()?;
    cx.expect_eq("shm_nattch", cx.expect_ok(|| made.stat())?.nattch, 1)?;
    second.close()?;
    expect_gone(cx, &made)
}

const FORCED_ATTACHED: Probe = Probe {
    title: "shm_rmid_forced=1 leaves key and mode of a segment in use alone",
    why: "it must not break programs that run: clients still find the segment until its last user ends",
    spec: &[doc("Documentation/admin-guide/sysctl/kernel.rst", "shm_rmid_forced")],
    calls: &[Sys::Shmat, Sys::Shmget],
    needs: &[Need::Sysctl(FORCED)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.forced.in-use", forced_attached)
};
fn forced_attached(cx: &mut Context) -> Outcome {
    let maker = Maker::new(cx)?;
    let map = maker.made.attach(0)?;
    procfs::set_sysctl(FORCED, 1)?;
    // Not even its creator's end: it is attached here.
    let made = maker.end()?;
    let stat = cx.expect_ok(|| made.stat())?;
    cx.expect_eq("key, mode, nattch", (stat.key, stat.mode, stat.nattch), (made.key, 0o600, 1))?;
    cx.expect_eq("shmget", cx.expect_ok(|| sys::shmget(made.key, 0, 0))?, made.id)?;
    map.close()?;
    expect_gone(cx, &made)
}

const FORCED_EXIT: Probe = Probe {
    title: "with shm_rmid_forced=1 the creator's exit destroys an unused segment",
    why: "a program that dies between shmget and shmat leaves nothing behind on such a machine",
    spec: &[doc("Documentation/admin-guide/sysctl/kernel.rst", "shm_rmid_forced"), kernel("ipc/shm.c", "exit_shm")],
    calls: &[Sys::Shmget],
    needs: &[Need::Sysctl(FORCED)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.forced.creator-exit", |cx| {
        procfs::set_sysctl(FORCED, 1)?;
        let maker = Maker::new(cx)?;
        cx.expect_ok(|| maker.made.stat())?;
        let made = maker.end()?;
        expect_gone(cx, &made)
    })
};

const FORCED_ORPHANS: Probe = Probe {
    title: "setting shm_rmid_forced destroys the orphans that are there",
    why: "an administrator frees what crashed programs left over, without looking for each identifier",
    spec: &[
        doc("Documentation/admin-guide/sysctl/kernel.rst", "shm_rmid_forced"),
        kernel("ipc/shm.c", "shm_destroy_orphaned"),
    ],
    calls: &[Sys::Shmget],
    needs: &[Need::Sysctl(FORCED)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.forced.orphans", forced_orphans)
};
fn forced_orphans(cx: &mut Context) -> Outcome {
    let orphans = [Maker::new(cx)?.end()?, Maker::new(cx)?.end()?];
    for orphan in &orphans {
        cx.expect_ok(|| orphan.stat())?;
    }
    procfs::set_sysctl(FORCED, 1)?;
    for orphan in &orphans {
        expect_gone(cx, orphan)?;
    }
    cx.expect_eq("used_ids", sys::shm_usage()?.1.used_ids, 0)
}

const FORCED_LIVING: Probe = Probe {
    title: "setting shm_rmid_forced spares unused segments of living creators",
    why: "a server that has made its segment and not yet attached it must find it when it does",
    spec: &[kernel("ipc/shm.c", "shm_try_destroy_orphaned")],
    calls: &[Sys::Shmget],
    needs: &[Need::Sysctl(FORCED)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.forced.living-creator", |cx| {
        let orphan = Maker::new(cx)?.end()?;
        let maker = Maker::new(cx)?;
        let own = segment(cx, 1, 0o600)?;
        procfs::set_sysctl(FORCED, 1)?;
        expect_gone(cx, &orphan)?;
        cx.expect_ok(|| maker.made.stat())?;
        cx.expect_ok(|| own.stat())?;
        let made = maker.end()?;
        expect_gone(cx, &made)
    })
};

const FORCED_INHERITED: Probe = Probe {
    title: "setting shm_rmid_forced spares orphans that someone has attached",
    why: "the readers of a segment whose loader ended keep their memory until they are done",
    spec: &[kernel("ipc/shm.c", "shm_may_destroy")],
    calls: &[Sys::Shmat],
    needs: &[Need::Sysctl(FORCED)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.forced.attached-orphan", |cx| {
        let orphan = Maker::new(cx)?.end()?;
        let reader = Holder::of(cx, orphan.id, |_| Ok(()))?;
        procfs::set_sysctl(FORCED, 1)?;
        cx.expect_eq("shm_nattch", cx.expect_ok(|| orphan.stat())?.nattch, 1)?;
        reader.end()?;
        expect_gone(cx, &orphan)
    })
};

const FORCED_OFF: Probe = Probe {
    title: "after shm_rmid_forced=0 segments outlive their users again",
    why: "the setting can be tried on a running machine and taken back without a reboot",
    spec: &[doc("Documentation/admin-guide/sysctl/kernel.rst", "shm_rmid_forced")],
    calls: &[Sys::Shmat, Sys::Shmdt],
    needs: &[Need::Sysctl(FORCED)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.forced.off", |cx| {
        procfs::set_sysctl(FORCED, 1)?;
        let first = segment(cx, 1, 0o600)?;
        first.attach(0)?.close()?;
        expect_gone(cx, &first)?;
        procfs::set_sysctl(FORCED, 0)?;
        let left = Maker::new(cx)?.end()?;
        left.attach(0)?.close()?;
        cx.expect_ok(|| left.stat()).map(drop)
    })
};

/// Writes a value that the kernel is to refuse; the value before stays.
fn refused_value(cx: &mut Context, name: &str, value: i64) -> Outcome {
    let before = procfs::sysctl(name)?;
    cx.expect_errno(EINVAL, || {
        std::fs::write(format!("/proc/sys/{name}"), value.to_string())
            .map_err(|e| sys::Error { call: "write to a sysctl", errno: e.raw_os_error().unwrap_or(0) })
    })?;
    cx.expect_eq(name, procfs::sysctl(name)?, before)
}

const FORCED_RANGE: Probe = Probe {
    title: "kernel.shm_rmid_forced takes 0 and 1 only: EINVAL",
    why: "a typo must not switch on what destroys segments",
    spec: &[kernel("ipc/ipc_sysctl.c", "ipc_sysctls")],
    needs: &[Need::Sysctl(FORCED)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.forced.range", |cx| {
        refused_value(cx, FORCED, 2)?;
        refused_value(cx, FORCED, -1)
    })
};

const NEXT_DEFAULT: Probe = Probe {
    title: "kernel.shm_next_id is −1: the kernel chooses identifiers",
    why: "anything else would be a restore in progress",
    spec: &[doc("Documentation/admin-guide/sysctl/kernel.rst", "shm_next_id")],
    needs: &[Need::Path("/proc/sys/kernel/shm_next_id")],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.next-id.default", |cx| cx.expect_eq(NEXT, procfs::sysctl(NEXT)?.as_str(), "-1"))
};

/// An identifier with this sequence number and index.
fn id_of(seq: i32, index: i32) -> i32 {
    seq << 15 | index
}

const NEXT_TAKEN: Probe = Probe {
    title: "the next segment gets the identifier in kernel.shm_next_id",
    why: "CRIU restores a database whose processes remember the number: it must be the same",
    spec: &[doc("Documentation/admin-guide/sysctl/kernel.rst", "shm_next_id"), kernel("ipc/util.c", "ipc_idr_alloc")],
    calls: &[Sys::Shmget],
    needs: &[Need::Sysctl(NEXT)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.next-id.taken", next_taken)
};
fn next_taken(cx: &mut Context) -> Outcome {
    for wanted in [id_of(77, 9), id_of(3, 200), id_of(0, 0)] {
        procfs::set_sysctl(NEXT, wanted)?;
        let made = segment(cx, 1, 0o600)?;
        cx.expect_eq("identifier", made.id, wanted)?;
        // The index has 15 bits, or 24 with ipcmni_extend.
        let seq = i32::from(made.stat()?.seq);
        cx.expect("shm_perm.seq", [wanted >> 15, wanted >> 24].contains(&seq), format!("{}", wanted >> 15), seq)?;
    }
    Ok(())
}

const NEXT_ONCE: Probe = Probe {
    title: "kernel.shm_next_id counts once: it is −1 afterwards",
    why: "otherwise every program after a restore would ask for the same number",
    spec: &[doc("Documentation/admin-guide/sysctl/kernel.rst", "shm_next_id")],
    calls: &[Sys::Shmget],
    needs: &[Need::Sysctl(NEXT)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.next-id.once", |cx| {
        let wanted = id_of(5, 40);
        procfs::set_sysctl(NEXT, wanted)?;
        let mut first = Segment::get(IPC_PRIVATE, page(), IPC_CREAT | 0o600)?;
        cx.expect_eq("first identifier", first.id, wanted)?;
        cx.expect_eq(NEXT, procfs::sysctl(NEXT)?.as_str(), "-1")?;
        // Free again, and still not handed out a second time.
        first.remove()?;
        let second = Segment::get(IPC_PRIVATE, page(), IPC_CREAT | 0o600)?;
        cx.expect_ne("second identifier", second.id, wanted)
    })
};

const NEXT_OCCUPIED: Probe = Probe {
    title: "where the index is taken, the next segment gets another one",
    why: "restore tools compare and give up cleanly; the segment that is there must not be replaced",
    spec: &[doc("Documentation/admin-guide/sysctl/kernel.rst", "shm_next_id"), kernel("ipc/util.c", "ipc_idr_alloc")],
    calls: &[Sys::Shmget],
    needs: &[Need::Sysctl(NEXT)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.next-id.occupied", |cx| {
        let wanted = id_of(6, 30);
        procfs::set_sysctl(NEXT, wanted)?;
        let first = segment(cx, 1, 0o600)?;
        first.attach(0)?.write(0, 1);
        procfs::set_sysctl(NEXT, wanted)?;
        let second = segment(cx, 1, 0o600)?;
        cx.expect_ne("second identifier", second.id, first.id)?;
        cx.expect_eq("first byte of each", (first.attach(0)?.read(0), second.attach(0)?.read(0)), (1, 0))?;
        cx.expect_eq("key of the first identifier", sys::shm_stat(wanted)?.key, first.key)
    })
};

const NEXT_FIND: Probe = Probe {
    title: "finding a segment does not use kernel.shm_next_id up",
    why: "a client that connects during a restore must not take the number away",
    spec: &[doc("Documentation/admin-guide/sysctl/kernel.rst", "shm_next_id")],
    calls: &[Sys::Shmget],
    needs: &[Need::Sysctl(NEXT)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.next-id.find", |cx| {
        let there = segment(cx, 1, 0o600)?;
        let wanted = id_of(8, 50);
        procfs::set_sysctl(NEXT, wanted)?;
        cx.expect_eq("shmget of a live key", sys::shmget(there.key, 0, IPC_CREAT | 0o600)?, there.id)?;
        cx.expect_errno(libc::EEXIST, || sys::shmget(there.key, 1, IPC_CREAT | IPC_EXCL | 0o600))?;
        cx.expect_eq(NEXT, procfs::sysctl_number::<i32>(NEXT)?, wanted)?;
        let made = segment(cx, 1, 0o600)?;
        cx.expect_eq("identifier", made.id, wanted)
    })
};

const NEXT_RANGE: Probe = Probe {
    title: "kernel.shm_next_id takes no negative number: EINVAL",
    why: "identifiers are never negative: −1 is how shmget reports an error",
    spec: &[kernel("ipc/ipc_sysctl.c", "ipc_sysctls")],
    needs: &[Need::Sysctl(NEXT)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.next-id.range", |cx| {
        refused_value(cx, NEXT, -1)?;
        refused_value(cx, NEXT, i64::from(i32::MAX) + 1)
    })
};
