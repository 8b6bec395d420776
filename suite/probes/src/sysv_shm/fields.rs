//! shmctl(2) IPC_STAT: each member of `shmid_ds` after each transition: what changes, and what must not.

use super::parts::{Holder, Stamp, expect_change, expect_no_change, page, segment};
use libc::{IPC_STAT, PROT_READ};
use shmcheck_probe::sys::{self, SHM_RDONLY};
use shmcheck_probe::{Context, Isolate, Need, Outcome, Probe, Stop, Sys, kernel, man, posix, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &ATTACH,
    &ATTACH_READ_ONLY,
    &DETACH,
    &FORK,
    &EXIT,
    &KILL,
    &EXEC,
    &THREADS,
    &NATTCH_SUM,
    &NATTCH_RACE,
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

/// What the end of one attach by process `pid` changes.
fn expect_detach(cx: &mut Context, id: i32, pid: libc::pid_t, act: impl FnOnce() -> Result<(), Stop>) -> Outcome {
    expect_change(
        cx,
        id,
        &[Stamp::Detach],
        |_| act(),
        |stat, ()| {
            stat.nattch -= 1;
            stat.lpid = pid;
        },
    )
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

const FORK: Probe = Probe {
    title: "fork attaches for the child: nattch + 1, atime, the parent's lpid",
    why: "a pre-forking server with 100 workers has nattch 101; the segment is safe until the last of them ends",
    spec: &[man("shmop(2)", "NOTES"), posix("fork"), kernel("ipc/shm.c", "shm_open")],
    calls: &[Sys::Shmat, Sys::Shmctl],
    ..Probe::new("sysv.shm.stat.fork", fork)
};
fn fork(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let _map = made.attach(0)?;
    let end = cx.gate()?;
    let child = expect_change(
        cx,
        made.id,
        &[Stamp::Attach],
        |cx| cx.fork(|_| end.pass()),
        |stat, _| {
            stat.nattch += 1;
            stat.lpid = sys::getpid();
        },
    )?;
    end.open()?;
    child.join()
}

const EXIT: Probe = Probe {
    title: "exit detaches: nattch − 1, dtime, the ended process's lpid",
    why: "programs never call shmdt, they just end: without this the count only ever grows",
    spec: &[man("shmop(2)", "NOTES"), posix("_exit")],
    calls: &[Sys::Shmat, Sys::Shmctl],
    ..Probe::new("sysv.shm.stat.exit", exit)
};
fn exit(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let holder = Holder::of(cx, made.id, |_| Ok(()))?;
    let _map = made.attach(0)?;
    let pid = holder.pid();
    expect_detach(cx, made.id, pid, || holder.end())
}

const KILL: Probe = Probe {
    title: "a process killed by SIGKILL is detached as by exit",
    why: "after an OOM kill the supervisor waits for nattch 0 before it restarts: it would wait for ever",
    spec: &[man("shmop(2)", "NOTES"), kernel("ipc/shm.c", "shm_close")],
    calls: &[Sys::Shmat, Sys::Shmctl],
    ..Probe::new("sysv.shm.stat.kill", kill)
};
fn kill(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let holder = Holder::of(cx, made.id, |_| Ok(()))?;
    let _map = made.attach(0)?;
    let pid = holder.pid();
    expect_detach(cx, made.id, pid, || holder.kill())
}

const EXEC: Probe = Probe {
    title: "execve detaches: nattch − 1, dtime, lpid, while the process lives",
    why: "a worker that starts a long-running helper must not keep the database's memory alive through it",
    varies: "a Yama scope of 2 or 3 forbids the tracing that holds the new program still",
    spec: &[man("shmop(2)", "NOTES"), posix("execve")],
    calls: &[Sys::Shmat, Sys::Shmctl],
    needs: &[Need::Call(Sys::Ptrace)],
    ..Probe::new("sysv.shm.stat.exec", exec)
};
fn exec(cx: &mut Context) -> Outcome {
    cx.elsewhere(|_| sys::trace_me().map_err(|e| Stop::skip("ptrace(PTRACE_TRACEME)", e.name())))?;
    let made = segment(cx, 1, 0o600)?;
    let (go, ready) = (cx.gate()?, cx.gate()?);
    let peer = cx.fork::<()>(|_| {
        sys::trace_me()?;
        sys::shmat(made.id, 0)?;
        ready.open()?;
        go.pass()?;
        // Any program will do: it stops before its first instruction.
        match sys::execve("/proc/self/exe") {
            Err(refused) => Err(refused.into()),
            Ok(never) => match never {},
        }
    })?;
    ready.pass()?;
    let _map = made.attach(0)?;
    let pid = peer.pid();
    let status = expect_change(
        cx,
        made.id,
        &[Stamp::Detach],
        |_| {
            go.open()?;
            Ok(sys::waitpid(pid, 0)?.1)
        },
        |stat, _| {
            stat.nattch -= 1;
            stat.lpid = pid;
        },
    )?;
    if !libc::WIFSTOPPED(status) {
        return Err(Stop::broken(format!("the peer did not stop after execve: status {status:#x}")));
    }
    peer.kill().map(drop)
}

const THREADS: Probe = Probe {
    title: "a thread shares the attach of its process: nattch stays",
    why: "a server with a thread per client would look like hundreds of processes to whoever waits for nattch 1",
    spec: &[man("shmctl(2)", "shm_nattch")],
    calls: &[Sys::Shmat, Sys::Shmctl],
    ..Probe::new("sysv.shm.stat.threads", threads)
};
fn threads(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let map = made.attach(0)?;
    map.write(0, 1);
    let inside = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let seen = map.read(0);
            map.write(0, 2);
            (seen, made.stat().map(|stat| stat.nattch))
        });
        thread.join().map_err(|_| Stop::broken("a thread panicked"))
    })?;
    cx.expect_eq("byte and shm_nattch in the thread", inside, (1, Ok(1)))?;
    cx.expect_eq("byte stored by the thread", map.read(0), 2)?;
    cx.expect_eq("shm_nattch after the thread's end", made.stat()?.nattch, 1)
}

const NATTCH_SUM: Probe = Probe {
    title: "shm_nattch is the sum of the attaches of all processes",
    why: "whoever removes the segment at the last detach needs the true count, not that of one process",
    spec: &[man("shmctl(2)", "shm_nattch"), posix("shmctl")],
    calls: &[Sys::Shmat, Sys::Shmdt, Sys::Shmctl],
    ..Probe::new("sysv.shm.stat.nattch-sum", nattch_sum)
};
fn nattch_sum(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let holders = [Holder::of(cx, made.id, |_| Ok(()))?, Holder::of(cx, made.id, |_| Ok(()))?];
    let maps = [made.attach(0)?, made.attach(SHM_RDONLY)?, made.attach(0)?];
    cx.expect_eq("shm_nattch of two peers and three own attaches", made.stat()?.nattch, 5)?;
    drop(maps);
    cx.expect_eq("shm_nattch of two peers", made.stat()?.nattch, 2)?;
    for (holder, left) in holders.into_iter().zip([1, 0]) {
        holder.end()?;
        cx.expect_eq("shm_nattch after a peer's end", made.stat()?.nattch, left)?;
    }
    Ok(())
}

const NATTCH_RACE: Probe = Probe {
    title: "attaches and detaches of racing processes leave nattch exact",
    why: "one count lost in a busy hour, and the segment is never freed, or freed under its last user",
    spec: &[man("shmctl(2)", "shm_nattch"), kernel("ipc/shm.c", "shm_open")],
    calls: &[Sys::Shmat, Sys::Shmdt, Sys::Shmctl],
    ..Probe::new("sysv.shm.stat.nattch-race", nattch_race)
};
fn nattch_race(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let keeps = made.attach(0)?;
    let start = cx.gate()?;
    let mut peers = Vec::new();
    for _ in 0..3 {
        peers.push(cx.fork(|_| {
            start.pass()?;
            for _ in 0..60 {
                let maps = [made.attach(0)?, made.attach(SHM_RDONLY)?];
                drop(maps);
            }
            Ok(())
        })?);
    }
    for _ in 0..3 {
        start.open()?;
    }
    for peer in peers {
        peer.join()?;
    }
    cx.expect_eq("shm_nattch", made.stat()?.nattch, 1)?;
    Ok(keeps.close()?)
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
