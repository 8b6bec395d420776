//! Memory without a file: MAP_ANONYMOUS, shared and private, over fork and exec.

use super::common::{FILE, PRIVATE, RW, SHARED, after_exec, byte_of, lettered_file, page, perms, probe, reserve};
use libc::{PROT_READ, PROT_WRITE};
use shmcheck_probe::{Context, Map, Need, Outcome, Probe, Stop, Sys, kernel, man, posix, procfs, sys};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::SeqCst;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &SHARED_ZERO,
    &PRIVATE_ZERO,
    &CHILD_STORE,
    &PARENT_STORE,
    &SIBLINGS,
    &COUNTER,
    &OUTLIVES,
    &KILLED,
    &APART,
    &FD_IGNORED,
    &DEV_ZERO,
    &LISTED,
    &FORK_ATTRIBUTES,
    &EXEC_GONE,
    &PRIVATE_COPY,
    &PRIVATE_CHILD_STORE,
    &PRIVATE_PARENT_STORE,
];

const SHARED_ZERO: Probe = Probe {
    title: "new shared anonymous memory reads as zeroes",
    why: "a page that still holds another program's bytes leaks its secrets, and every counter that a server \
          expects at 0 starts somewhere",
    spec: &[man("mmap(2)", "MAP_ANONYMOUS")],
    ..probe("map.anon.shared.zero-filled", |cx| zero_filled(cx, SHARED))
};
const PRIVATE_ZERO: Probe = Probe {
    title: "new private anonymous memory reads as zeroes",
    why: "calloc hands large blocks out without clearing them: it trusts the kernel, and so does each caller",
    spec: &[man("mmap(2)", "MAP_ANONYMOUS")],
    ..probe("map.anon.private.zero-filled", |cx| zero_filled(cx, PRIVATE))
};
fn zero_filled(cx: &mut Context, flags: i32) -> Outcome {
    // The pages freed first are the likeliest to be handed out again.
    let used = Map::new(8 * page(), RW, flags, -1)?;
    (0..used.len()).for_each(|n| used.write(n, 0xa5));
    used.close()?;
    let map = Map::new(8 * page(), RW, flags, -1)?;
    let first = (0..map.len()).find(|n| map.read(*n) != 0);
    cx.expect_eq("the first byte that is not zero", first, None)
}

const CHILD_STORE: Probe = Probe {
    title: "a child's store to shared anonymous memory reaches its parent",
    why: "Apache's scoreboard lives here: without it the parent believes that no worker ever took a request",
    spec: &[man("mmap(2)", "MAP_SHARED"), posix("mmap")],
    ..probe("map.anon.shared.child-store-seen", child_store)
};
fn child_store(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(2 * page())?;
    cx.elsewhere(|_| {
        map.write(page() + 7, 0x5a);
        Ok(())
    })?;
    cx.expect_eq("the byte that the child stored", map.read(page() + 7), 0x5a)
}

const PARENT_STORE: Probe = Probe {
    title: "a parent's store after fork reaches its child's shared memory",
    why: "a master tells its workers to reload through a flag: a worker with a copy serves the old configuration \
          for ever",
    spec: &[man("mmap(2)", "MAP_SHARED"), posix("mmap")],
    ..probe("map.anon.shared.parent-store-seen", |cx| after_fork(cx, SHARED, 2))
};
const PRIVATE_PARENT_STORE: Probe = Probe {
    title: "a parent's store after fork stays out of its child's private memory",
    why: "Redis forks to save a snapshot while it keeps serving writes: a child that saw them would save a \
          database that never existed",
    spec: &[man("mmap(2)", "MAP_PRIVATE"), posix("mmap")],
    ..probe("map.anon.private.parent-store-unseen", |cx| after_fork(cx, PRIVATE, 1))
};
fn after_fork(cx: &mut Context, flags: i32, wanted: u8) -> Outcome {
    let map = Map::new(page(), RW, flags, -1)?;
    map.write(3, 1);
    let stored = cx.gate()?;
    let peer = cx.fork(|_| {
        stored.pass()?;
        Ok(map.read(3))
    })?;
    map.write(3, 2);
    stored.open()?;
    cx.expect_eq("the byte as the child sees it", peer.join()?, wanted)
}

const SIBLINGS: Probe = Probe {
    title: "two children share what their parent mapped before the forks",
    why: "pre-forking servers hand work from one worker to another this way, and the parent only watches",
    spec: &[man("mmap(2)", "MAP_SHARED")],
    ..probe("map.anon.shared.siblings", siblings)
};
fn siblings(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(page())?;
    let written = cx.gate()?;
    let reader = cx.fork(|_| {
        written.pass()?;
        Ok(map.read_all(64, 4))
    })?;
    cx.elsewhere(|_| {
        map.write_all(64, b"work");
        written.open()
    })?;
    cx.expect_eq("the bytes of the other child", reader.join()?, b"work".to_vec())
}

const COUNTER: Probe = Probe {
    title: "atomic additions of two processes to one word all count",
    why: "nginx counts its connections in such a word: lost updates let the limit drift until it refuses everybody",
    spec: &[man("mmap(2)", "MAP_SHARED")],
    ..probe("map.anon.shared.atomic-counter", counter)
};
fn counter(cx: &mut Context) -> Outcome {
    const EACH: u32 = 20_000;
    let map = Map::shared_anonymous(page())?;
    let peer = cx.fork(|_| {
        for _ in 0..EACH {
            map.atomic(128).fetch_add(1, SeqCst);
        }
        Ok(())
    })?;
    for _ in 0..EACH {
        map.atomic(128).fetch_add(1, SeqCst);
    }
    peer.join()?;
    cx.expect_eq("the counter", map.atomic(128).load(SeqCst), 2 * EACH)
}

const OUTLIVES: Probe = Probe {
    title: "shared anonymous memory outlives the unmapping of who made it",
    why: "a launcher maps, forks and forgets: the children's arena must not go with it",
    spec: &[man("mmap(2)", "MAP_SHARED"), man("fork(2)", "NOTES")],
    ..probe("map.anon.shared.outlives-creator", outlives)
};
fn outlives(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(2 * page())?;
    map.touch(0x33);
    let (address, length) = (map.address(), map.len());
    let gone = cx.gate()?;
    let peer = cx.fork(|cx| {
        gone.pass()?;
        let map = Map::view(address, length);
        let seen = (map.read(0), map.read(page()));
        // Still shared with those that come later.
        cx.elsewhere(|_| {
            map.write(1, 0x44);
            Ok(())
        })?;
        Ok((seen, map.read(1)))
    })?;
    map.close()?;
    gone.open()?;
    cx.expect_eq("what the child has", peer.join()?, ((0x33, 0x33), 0x44))
}

const KILLED: Probe = Probe {
    title: "the last stores of a process that was killed are there for others",
    why: "a supervisor reads from the shared block what a worker was doing when it was shot",
    spec: &[man("mmap(2)", "MAP_SHARED"), man("signal(7)", "SIGKILL")],
    ..probe("map.anon.shared.killed-stores-stay", killed)
};
fn killed(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(page())?;
    let stored = cx.gate()?;
    let peer = cx.fork(|cx| {
        map.write_all(200, b"last");
        stored.open()?;
        // Never opened: the process ends here by its signal.
        cx.gate()?.pass()
    })?;
    stored.pass()?;
    cx.expect_eq("how the process ended", peer.kill()?, shmcheck_probe::Exit::Signal(libc::SIGKILL))?;
    cx.expect_eq("its last stores", map.read_all(200, 4), b"last".to_vec())
}

const APART: Probe = Probe {
    title: "two shared anonymous mappings are two objects",
    why: "two pools of one program that shared pages would overwrite each other's queues",
    spec: &[man("mmap(2)", "MAP_ANONYMOUS")],
    ..probe("map.anon.shared.mappings-apart", apart)
};
fn apart(cx: &mut Context) -> Outcome {
    let first = Map::shared_anonymous(page())?;
    let second = Map::shared_anonymous(page())?;
    first.touch(1);
    cx.expect_eq("the second mapping after a store to the first", second.read(0), 0)?;
    let inode = |map: &Map| Ok::<_, Stop>(procfs::mapping_at(map.address())?.map(|m| m.inode));
    cx.expect_ne("the inode of the second mapping", inode(&second)?, inode(&first)?)
}

const FD_IGNORED: Probe = Probe {
    title: "MAP_ANONYMOUS ignores the descriptor",
    why: "code ported from systems without the flag passes a descriptor beside it; its file must not be written",
    needs: FILE,
    spec: &[man("mmap(2)", "MAP_ANONYMOUS")],
    ..probe("map.anon.shared.descriptor-ignored", fd_ignored)
};
fn fd_ignored(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let map = cx.expect_ok(|| Map::new(page(), RW, SHARED, file.as_raw_fd()))?;
    cx.expect_eq("the first byte of the mapping", map.read(0), 0)?;
    map.write(0, b'x');
    cx.expect_eq("the first byte of the file", byte_of(&file, 0)?, b'a')?;
    cx.expect_ok(|| Map::new(page(), RW, SHARED, 12_345))?;
    Ok(())
}

const DEV_ZERO: Probe = Probe {
    title: "a shared mapping of /dev/zero is shared memory of its own",
    why: "portable programs of the System V tradition get their shared memory from /dev/zero: Perl's and Tcl's \
          modules among them",
    spec: &[kernel("drivers/char/mem.c", "mmap_zero")],
    needs: &[Need::Path("/dev/zero")],
    ..probe("map.anon.shared.dev-zero", dev_zero)
};
fn dev_zero(cx: &mut Context) -> Outcome {
    let zero = sys::open("/dev/zero", libc::O_RDWR | libc::O_CLOEXEC, 0)?;
    let map = cx.expect_ok(|| Map::shared(&zero, page()))?;
    let other = Map::shared(&zero, page())?;
    cx.elsewhere(|_| {
        map.write(9, 9);
        Ok(())
    })?;
    cx.expect_eq("the child's store", map.read(9), 9)?;
    cx.expect_eq("the same place of another mapping of /dev/zero", other.read(9), 0)
}

const LISTED: Probe = Probe {
    title: "/proc/self/maps marks shared memory with s, private with p",
    why: "tools that add up a container's memory (pmap, smem, cgroup exporters) count shared pages once by this \
          letter",
    spec: &[man("proc(5)", "/proc/[pid]/maps")],
    ..probe("map.anon.shared.listed", listed)
};
fn listed(cx: &mut Context) -> Outcome {
    let around = reserve(7)?;
    let cases = [
        (1, SHARED, RW, "rw-s"),
        (3, SHARED, PROT_READ, "r--s"),
        (4, SHARED, PROT_WRITE, "-w-s"),
        (5, PRIVATE, RW, "rw-p"),
    ];
    for (n, flags, protection, wanted) in cases {
        let at = around.address() + n * page();
        let map = Map::at(at, page(), protection, flags | libc::MAP_FIXED, -1, 0)?;
        cx.expect_eq("the letters", perms(map.address())?, wanted.to_owned())?;
    }
    Ok(())
}

const FORK_ATTRIBUTES: Probe = Probe {
    title: "a mapping is preserved across fork with the same attributes",
    why: "a server maps its configuration read-only before it forks: a child that could write would change it for all",
    spec: &[man("mmap(2)", "NOTES")],
    calls: &[Sys::Mmap, Sys::Mprotect],
    ..probe("map.anon.shared.fork-same-attributes", fork_attributes)
};
fn fork_attributes(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(3 * page())?;
    map.touch(7);
    sys::mprotect(map.address() + page(), page(), PROT_READ)?;
    let of = |pid: &str| {
        let inside = |m: &procfs::Mapping| m.end > map.address() && m.start < map.address() + map.len();
        Ok::<_, Stop>(
            procfs::maps(pid)?.into_iter().filter(inside).map(|m| (m.start, m.end, m.perms)).collect::<Vec<_>>(),
        )
    };
    let own = of("self")?;
    cx.expect_eq("number of mappings before", own.len(), 3)?;
    let childs = cx.elsewhere(|_| of("self"))?;
    cx.expect_eq("the child's mappings", childs, own)?;
    let read = cx.elsewhere(|_| Ok(map.read(page())))?;
    cx.expect_eq("the page that is read-only, read by the child", read, 7)?;
    cx.expect_signal("a child's store to the page that is read-only", libc::SIGSEGV, || map.write(page(), 1))
}

const EXEC_GONE: Probe = Probe {
    title: "execve does not preserve mappings",
    why: "a helper that a server starts must not see the server's memory: keys, sessions, other users' data",
    spec: &[man("execve(2)", "Effect on process attributes"), posix("exec")],
    calls: &[Sys::Mmap, Sys::Ptrace],
    ..probe("map.anon.shared.gone-after-exec", exec_gone)
};
fn exec_gone(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(page())?;
    let Some(own) = procfs::mapping_at(map.address())? else { return Err(Stop::broken("no mapping to begin with")) };
    let left = after_exec(
        cx,
        || Ok(()),
        |pid| Ok(procfs::maps(pid)?.into_iter().find(|m| m.inode == own.inode && m.perms == own.perms)),
    )?;
    cx.expect_eq("the mapping after execve", left, None)
}

const PRIVATE_COPY: Probe = Probe {
    title: "a child inherits the contents of private memory as of the fork",
    why: "every fork of a running program relies on it, from shells to Android's zygote",
    spec: &[man("mmap(2)", "MAP_PRIVATE"), man("fork(2)", "DESCRIPTION")],
    ..probe("map.anon.private.child-inherits", private_copy)
};
fn private_copy(cx: &mut Context) -> Outcome {
    let map = Map::new(3 * page(), RW, PRIVATE, -1)?;
    map.touch(0x61);
    map.write_all(2 * page() - 2, b"span");
    let seen = cx.elsewhere(|_| Ok((map.read(0), map.read_all(2 * page() - 2, 4))))?;
    cx.expect_eq("what the child has", seen, (0x61, b"span".to_vec()))
}

const PRIVATE_CHILD_STORE: Probe = Probe {
    title: "a child's store to private memory stays with the child",
    why: "without copy-on-write one worker's crash scribbles over its siblings and the master",
    spec: &[man("mmap(2)", "MAP_PRIVATE"), posix("mmap")],
    ..probe("map.anon.private.child-store-unseen", private_child_store)
};
fn private_child_store(cx: &mut Context) -> Outcome {
    let map = Map::new(page(), RW, PRIVATE, -1)?;
    map.write(5, 1);
    let childs = cx.elsewhere(|_| {
        map.write(5, 2);
        Ok(map.read(5))
    })?;
    cx.expect_eq("the byte as the child sees it", childs, 2)?;
    cx.expect_eq("the byte as the parent sees it", map.read(5), 1)
}
