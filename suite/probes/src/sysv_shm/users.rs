//! shm_nattch and its companions as processes come and go: fork, exit, SIGKILL, execve, threads, races.

use super::parts::{Holder, Stamp, expect_change, expect_detach, segment};
use shmcheck_probe::sys::{self, SHM_RDONLY};
use shmcheck_probe::{Context, Need, Outcome, Probe, Stop, Sys, kernel, man, posix};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[&FORK, &EXIT, &KILL, &EXEC, &THREADS, &NATTCH_SUM, &NATTCH_RACE];

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
