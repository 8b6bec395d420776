//! shmctl(2) IPC_STAT: each member of `shmid_ds` after each transition: what changes, and what must not.

use super::parts::{Holder, Stamp, expect_change, expect_detach, expect_no_change, page, segment};
use libc::{IPC_STAT, PROT_READ};
use shmcheck_probe::sys::{self, SHM_RDONLY};
use shmcheck_probe::{Context, Isolate, Outcome, Probe, Sys, kernel, man, posix, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &ATTACH,
    &ATTACH_READ_ONLY,
    &DETACH,
    &LOOK_UP,
    &LOOK,
    &STORES,
    &PROTECTION,
    &LPID_STAYS,
    &OTHER_SEGMENT,
    &STAMPS_ALONE,
];

const ATTACH: Probe = Probe {
    title: "shmat raises nattch, sets atime and lpid, changes nothing else",
    why: "PostgreSQL decides by nattch whether an old server still lives: one wrong member and two servers run",
    spec: &[man("shmop(2)", "DESCRIPTION"), posix("shmat")],
    calls: &[Sys::Shmat, Sys::Shmctl],
    ..Probe::new("sysv.shm.stat.attach", |cx| attached(cx, 0))
};

const ATTACH_READ_ONLY: Probe = Probe {
    title: "a read-only shmat is counted and stamped like any other",
    why: "a monitoring agent counts as a user: the segment must live as long as it looks",
    spec: &[man("shmop(2)", "DESCRIPTION"), posix("shmat")],
    calls: &[Sys::Shmat, Sys::Shmctl],
    ..Probe::new("sysv.shm.stat.attach-rdonly", |cx| attached(cx, SHM_RDONLY))
};

/// Two attaches of another process: the second one changes a count and a stamp that are not zero any more.
fn attached(cx: &mut Context, flags: i32) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let (go, done) = (cx.gate()?, cx.gate()?);
    let peer = cx.fork(|_| {
        for _ in 0..2 {
            go.pass()?;
            sys::shmat(made.id, flags)?;
            done.open()?;
        }
        go.pass()
    })?;
    for _ in 0..2 {
        expect_change(
            cx,
            made.id,
            &[Stamp::Attach],
            |_| {
                go.open()?;
                done.pass()
            },
            |stat, ()| {
                stat.nattch += 1;
                stat.lpid = peer.pid();
            },
        )?;
    }
    go.open()?;
    peer.join()
}

const DETACH: Probe = Probe {
    title: "shmdt lowers nattch, sets dtime and lpid, changes nothing else",
    why: "clean-up scripts remove segments with nattch 0 that were left long ago: both come from here",
    spec: &[man("shmop(2)", "shmdt()"), posix("shmdt")],
    calls: &[Sys::Shmat, Sys::Shmdt, Sys::Shmctl],
    ..Probe::new("sysv.shm.stat.detach", detach)
};
fn detach(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let holder = Holder::of(cx, made.id, |address| Ok(sys::shmdt(address)?))?;
    // The last to touch the segment is this process: the peer's number must come back.
    let map = made.attach(0)?;
    expect_detach(cx, made.id, holder.pid(), || holder.act())?;
    map.close()?;
    cx.expect_eq("shm_nattch after the last", made.stat()?.nattch, 0)?;
    holder.end()
}

const LOOK_UP: Probe = Probe {
    title: "finding a segment with shmget changes no member",
    why: "a tool that looks whether the key exists must not appear as the last user",
    spec: &[man("shmget(2)", "DESCRIPTION"), man("shmctl(2)", "IPC_STAT")],
    calls: &[Sys::Shmget, Sys::Shmctl],
    ..Probe::new("sysv.shm.stat.lookup-unchanged", look_up)
};
fn look_up(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    expect_no_change(cx, made.id, |cx| {
        cx.elsewhere(|_| Ok(sys::shmget(made.key, 1, libc::IPC_CREAT | 0o444)?))?;
        cx.expect_errno(libc::EEXIST, || sys::shmget(made.key, 1, libc::IPC_CREAT | libc::IPC_EXCL | 0o444))
    })
}

const LOOK: Probe = Probe {
    title: "looking at a segment changes no member",
    why: "monitoring every second would hide who really used it last",
    spec: &[man("shmctl(2)", "IPC_STAT"), man("shmctl(2)", "SHM_STAT")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.stat.look-unchanged", look)
};
fn look(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    expect_no_change(cx, made.id, |cx| {
        cx.elsewhere(|_| {
            sys::shm_stat(made.id)?;
            sys::shm_stat_raw(made.id, IPC_STAT)?;
            sys::shm_usage()?;
            procfs::sysvipc("shm").map(drop)
        })
    })
}

const STORES: Probe = Probe {
    title: "loads and stores change no member of shmid_ds",
    why: "unlike a file's times, these say who attached, not who wrote: tools must not read activity into them",
    spec: &[man("shmctl(2)", "DESCRIPTION")],
    calls: &[Sys::Shmat, Sys::Shmctl],
    ..Probe::new("sysv.shm.stat.stores-unchanged", stores)
};
fn stores(cx: &mut Context) -> Outcome {
    let made = segment(cx, 4, 0o600)?;
    let holder = Holder::of(cx, made.id, |address| {
        shmcheck_probe::Map::view(address, 4 * page()).touch(1);
        Ok(())
    })?;
    expect_no_change(cx, made.id, |_| holder.act())?;
    holder.end()
}

const PROTECTION: Probe = Probe {
    title: "mprotect of a whole attach changes no member",
    why: "write-protecting the segment between updates is no detach: nattch must not move",
    spec: &[man("shmctl(2)", "shm_nattch")],
    calls: &[Sys::Shmat, Sys::Mprotect, Sys::Shmctl],
    ..Probe::new("sysv.shm.stat.mprotect-unchanged", protection)
};
fn protection(cx: &mut Context) -> Outcome {
    let made = segment(cx, 2, 0o600)?;
    let holder = Holder::of(cx, made.id, |address| Ok(sys::mprotect(address, 2 * page(), PROT_READ)?))?;
    expect_no_change(cx, made.id, |_| holder.act())?;
    holder.end()
}

const LPID_STAYS: Probe = Probe {
    title: "shm_lpid stays after its process has ended",
    why: "after a crash ipcs -p is how an administrator learns who touched the segment last",
    spec: &[man("shmctl(2)", "shm_lpid"), kernel("ipc/util.h", "ipc_update_pid")],
    calls: &[Sys::Shmat, Sys::Shmctl],
    ..Probe::new("sysv.shm.stat.lpid-stays", lpid_stays)
};
fn lpid_stays(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let holder = Holder::of(cx, made.id, |_| Ok(()))?;
    let pid = holder.pid();
    holder.end()?;
    cx.expect_errno(libc::ESRCH, || sys::kill(pid, 0))?;
    cx.expect_eq("shm_lpid", made.stat()?.lpid, pid)
}

const OTHER_SEGMENT: Probe = Probe {
    title: "using one segment changes no member of another",
    why: "with two databases on a machine, each one's count and times must be its own",
    spec: &[man("shmop(2)", "DESCRIPTION")],
    calls: &[Sys::Shmat, Sys::Shmdt, Sys::Shmctl],
    ..Probe::new("sysv.shm.stat.other-segment-unchanged", other_segment)
};
fn other_segment(cx: &mut Context) -> Outcome {
    let (quiet, busy) = (segment(cx, 1, 0o600)?, segment(cx, 1, 0o600)?);
    expect_no_change(cx, quiet.id, |cx| {
        let holder = Holder::of(cx, busy.id, |address| Ok(sys::shmdt(address)?))?;
        holder.act()?;
        holder.end()?;
        sys::shm_set(busy.id, sys::geteuid(), sys::getegid(), 0o644)?;
        Ok(sys::shm_remove(busy.id)?)
    })
}

const STAMPS_ALONE: Probe = Probe {
    title: "atime, dtime and ctime each move with their own call alone",
    why: "clean-up by age trusts these times: one that never moves, or moves with every look, removes the wrong segment",
    spec: &[
        man("shmctl(2)", "shm_atime"),
        man("shmctl(2)", "shm_dtime"),
        man("shmctl(2)", "shm_ctime"),
        posix("shmctl"),
    ],
    calls: &[Sys::Shmat, Sys::Shmdt, Sys::Shmctl],
    // It waits, so it must never be the one that others wait for: beside them in the cell's own namespaces.
    isolate: Isolate::Cell,
    waits: true,
    ..Probe::new("sysv.shm.stat.stamps-alone", stamps_alone)
};
fn stamps_alone(cx: &mut Context) -> Outcome {
    /// A stamp, and the call on an identifier or an attach that moves it.
    type Mover = (Stamp, fn(i32, usize) -> sys::Result<()>);
    const CALLS: [Mover; 3] = [
        (Stamp::Attach, |id, _| sys::shmat(id, 0).map(drop)),
        (Stamp::Detach, |_, address| sys::shmdt(address)),
        (Stamp::Change, |id, _| sys::shm_set(id, sys::geteuid(), sys::getegid(), 0o600)),
    ];
    // One segment per call, each with all three stamps set, and with an attach left for the detach.
    let mut made = Vec::new();
    for _ in CALLS {
        let segment = segment(cx, 1, 0o600)?;
        segment.attach(0)?.close()?;
        made.push((sys::shmat(segment.id, 0)?, segment.stat()?, segment));
    }
    // The stamps are whole seconds: a move can only be seen in the next one. The one wait of this chapter, for all.
    let last = sys::now_seconds();
    cx.until("the next second begins", || Ok(sys::now_seconds() > last))?;
    for ((stamp, call), (address, old, segment)) in CALLS.into_iter().zip(&made) {
        segment.stat()?;
        sys::shmget(segment.key, 0, 0)?;
        call(segment.id, *address)?;
        let new = segment.stat()?;
        for other in [Stamp::Attach, Stamp::Detach, Stamp::Change] {
            let moved = other.of(&new) > last;
            cx.expect_eq(&format!("{stamp:?} moves {other:?}"), moved, other == stamp)?;
            if !moved {
                cx.expect_eq(&format!("{other:?} after {stamp:?}"), other.of(&new), other.of(old))?;
            }
        }
    }
    Ok(())
}
