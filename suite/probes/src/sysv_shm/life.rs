//! How long a segment lives, and what fork, exit, SIGKILL and threads do to its content.

use super::parts::{Holder, page, segment};
use libc::SIGKILL;
use shmcheck_probe::sys;
use shmcheck_probe::{Context, Exit, Isolate, Map, Outcome, Probe, Segment, Sys, man, posix, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &LAST_DETACH,
    &CREATOR_EXIT,
    &CREATOR_KILLED,
    &WRITER_KILLED,
    &FORK_SHARES,
    &FORK_SAME_ADDRESS,
    &GRANDCHILD,
    &CHILD_ATTACH,
    &BY_ID,
    &MANY,
];

const LAST_DETACH: Probe = Probe {
    title: "a segment and its content outlive the last detach",
    why: "unlike anonymous memory: a cache survives the restart of its only user, and so does a leak",
    spec: &[man("sysvipc(7)", "Shared memory segments"), man("shmctl(2)", "IPC_RMID")],
    calls: &[Sys::Shmat, Sys::Shmdt],
    ..Probe::new("sysv.shm.life.last-detach", last_detach)
};
fn last_detach(cx: &mut Context) -> Outcome {
    let made = segment(cx, 2, 0o600)?;
    for round in 1..=3 {
        let map = made.attach(0)?;
        cx.expect_eq("byte left by the round before", map.read(page()), round - 1)?;
        map.write(page(), round);
        map.close()?;
        cx.expect_eq("shm_nattch", made.stat()?.nattch, 0)?;
    }
    Ok(())
}

/// A process that creates, attaches, stores and ends in this way leaves segment and content behind.
fn creator_ends(cx: &mut Context, ends: impl FnOnce(), wanted: Exit) -> Outcome {
    let key = cx.fresh_key();
    let exit = cx.exit_of(|| {
        if let Ok(made) = Segment::get(key, page(), libc::IPC_CREAT | libc::IPC_EXCL | 0o600)
            && let Ok(map) = made.attach(0)
        {
            map.write(9, 99);
            // Neither guard may run: the process just ends.
            map.leak();
            made.disown();
        }
        ends();
    })?;
    if exit != wanted {
        return Err(shmcheck_probe::Stop::broken(format!("the creator ended with {exit}")));
    }
    let id = cx.expect_ok(|| sys::shmget(key, page(), 0))?;
    let left = Segment::adopt(id, key, page());
    cx.expect_eq("shm_nattch", left.stat()?.nattch, 0)?;
    cx.expect_eq("byte of the ended creator", left.attach(0)?.read(9), 99)
}

const CREATOR_EXIT: Probe = Probe {
    title: "a segment and its content outlive their creator's exit",
    why: "a loader fills a table and ends; the readers that start later find it",
    varies: "kernel.shm_rmid_forced=1 removes it",
    spec: &[man("shmctl(2)", "IPC_RMID"), posix("_exit")],
    calls: &[Sys::Shmget, Sys::Shmat],
    ..Probe::new("sysv.shm.life.creator-exit", |cx| creator_ends(cx, || (), Exit::Code(0)))
};

const CREATOR_KILLED: Probe = Probe {
    title: "a segment and its content outlive a creator killed by SIGKILL",
    why: "after a crash the new server reads the old one's shared state to recover; ipcs shows the left-over",
    varies: "kernel.shm_rmid_forced=1 removes it",
    spec: &[man("shmctl(2)", "IPC_RMID")],
    calls: &[Sys::Shmget, Sys::Shmat],
    ..Probe::new("sysv.shm.life.creator-killed", |cx| {
        creator_ends(cx, || _ = sys::kill(sys::getpid(), SIGKILL), Exit::Signal(SIGKILL))
    })
};

const WRITER_KILLED: Probe = Probe {
    title: "stores made before a SIGKILL stay for the others",
    why: "crash recovery reads what the killed worker wrote last: nothing may be rolled back or lost",
    spec: &[man("shmop(2)", "DESCRIPTION")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.life.writer-killed", writer_killed)
};
fn writer_killed(cx: &mut Context) -> Outcome {
    let made = segment(cx, 3, 0o600)?;
    let map = made.attach(0)?;
    let writer = Holder::of(cx, made.id, |address| {
        Map::view(address, 3 * page()).touch(0x77);
        Ok(())
    })?;
    writer.act()?;
    writer.kill()?;
    let bytes: Vec<u8> = (0..3).map(|n| map.read(n * page())).collect();
    cx.expect_eq("first byte of each page", bytes, vec![0x77; 3])
}

const FORK_SHARES: Probe = Probe {
    title: "after fork parent and child share the attach both ways",
    why: "pre-forking servers attach once and fork: a copy instead would split their state silently",
    spec: &[man("shmop(2)", "NOTES"), posix("fork")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.life.fork-shares", fork_shares)
};
fn fork_shares(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let map = made.attach(0)?;
    map.write(0, 1);
    let go = cx.gate()?;
    let child = cx.fork(|_| {
        go.pass()?;
        map.write(1, map.read(0) + 1);
        Ok(())
    })?;
    // Stored after the fork: a private copy would still hold 1.
    map.write(0, 10);
    go.open()?;
    child.join()?;
    cx.expect_eq("byte that the child derived", map.read(1), 11)
}

const FORK_SAME_ADDRESS: Probe = Probe {
    title: "a child has the attach at its parent's address",
    why: "pointers inside the segment are valid in every forked worker",
    spec: &[man("shmop(2)", "NOTES"), posix("fork")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.life.fork-same-address", fork_same_address)
};
fn fork_same_address(cx: &mut Context) -> Outcome {
    let made = segment(cx, 2, 0o600)?;
    let map = made.attach(sys::SHM_RDONLY)?;
    let at = map.address();
    let look = || Ok::<_, shmcheck_probe::Stop>(procfs::mapping_at(at)?.map(|m| (m.start, m.end, m.perms, m.inode)));
    let own = look()?;
    let of_child = cx.elsewhere(|_| look())?;
    cx.expect_eq("range, protection and identifier in the child", of_child, own)
}

const GRANDCHILD: Probe = Probe {
    title: "a grandchild inherits the attach",
    why: "daemons fork twice: the second child is the service and needs the memory",
    spec: &[man("shmop(2)", "NOTES"), posix("fork")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.life.grandchild", grandchild)
};
fn grandchild(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let map = made.attach(0)?;
    let count = cx.elsewhere(|cx| {
        cx.elsewhere(|_| {
            map.write(0, 3);
            Ok(made.stat()?.nattch)
        })
    })?;
    cx.expect_eq("shm_nattch with child and grandchild", count, 3)?;
    cx.expect_eq("byte stored by the grandchild", map.read(0), 3)?;
    cx.expect_eq("shm_nattch after their end", made.stat()?.nattch, 1)
}

const CHILD_ATTACH: Probe = Probe {
    title: "what a child attaches does not appear in its parent",
    why: "a plugin process that maps segments must not fill its parent's address space",
    spec: &[posix("shmat"), man("shmop(2)", "DESCRIPTION")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.life.child-attach", child_attach)
};
fn child_attach(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let holder = Holder::of(cx, made.id, |_| Ok(()))?;
    cx.expect_eq("shm_nattch", made.stat()?.nattch, 1)?;
    let own = procfs::maps("self")?.into_iter().find(|m| m.inode == made.id as u64 && m.name.starts_with("/SYSV"));
    cx.expect_eq("mapping in the parent", own.map(|m| m.name), None)?;
    holder.end()
}

const BY_ID: Probe = Probe {
    title: "an unrelated process attaches a private segment by its number",
    why: "X clients hand the number of an IPC_PRIVATE segment to the server: private is the key, not the memory",
    spec: &[man("shmget(2)", "NOTES"), man("shmget(2)", "BUGS")],
    calls: &[Sys::Shmget, Sys::Shmat],
    ..Probe::new("sysv.shm.life.private-by-id", by_id)
};
fn by_id(cx: &mut Context) -> Outcome {
    // Made by a sibling, so that no fork handed the attach on.
    let id = cx.elsewhere(|_| {
        let made = Segment::get(libc::IPC_PRIVATE, page(), libc::IPC_CREAT | 0o600)?;
        made.attach(0)?.write(0, 31);
        Ok(made.disown())
    })?;
    let made = Segment::adopt(id, libc::IPC_PRIVATE, page());
    cx.expect_eq("byte", cx.expect_ok(|| made.attach(0))?.read(0), 31)
}

const MANY: Probe = Probe {
    title: "a hundred segments keep their content apart",
    why: "an X session or a grid engine has hundreds: each must come back with its own bytes",
    spec: &[man("shmget(2)", "DESCRIPTION"), man("shmget(2)", "Shared memory limits")],
    calls: &[Sys::Shmget, Sys::Shmat],
    isolate: Isolate::Fresh,
    ..Probe::new("sysv.shm.life.many", many)
};
fn many(cx: &mut Context) -> Outcome {
    let mut made = Vec::new();
    for number in 0..100_u8 {
        let segment = Segment::get(libc::IPC_PRIVATE, page(), libc::IPC_CREAT | 0o600)?;
        let map = segment.attach(0)?;
        map.write(usize::from(number), number + 1);
        made.push((segment, map));
    }
    for (number, (segment, map)) in made.iter().enumerate() {
        let bytes: Vec<u8> = map.read_all(0, 100);
        let mut wanted = vec![0; 100];
        wanted[number] = number as u8 + 1;
        cx.expect("bytes of a segment", bytes == wanted, format!("{} at {number} only", number + 1), segment.id)?;
    }
    Ok(())
}
