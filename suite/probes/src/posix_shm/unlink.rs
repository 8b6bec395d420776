//! shm_unlink(3), and how long names and memory live.

use super::open::{exists, object_name, object_of_mode};
use caps::Capability;
use libc::{EACCES, ENOENT, EPERM, O_CREAT, O_EXCL, O_RDONLY, O_RDWR};
use shmcheck_probe::{Entry, Exit, Isolate, Map, Need, Object, Probe, doc, man, posix, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &NAME_GONE,
    &ABSENT_ENOENT,
    &TWICE_ENOENT,
    &LIVES_OPEN,
    &LIVES_MAPPED,
    &NAME_FREE,
    &WITHOUT_PERMISSION,
    &STICKY_EACCES,
    &STICKY_EPERM,
    &NOT_STICKY,
    &CLOSED_DIRECTORY,
    &LINK,
    &SURVIVES_CLOSE,
    &SURVIVES_EXIT,
    &SURVIVES_KILL,
    &SURVIVES_LEADER,
];

const NEEDS: &[Need] = &[Need::DevShm];
const USERS: &[Need] = &[Need::DevShm, Need::OtherUsers];

const NAME_GONE: Probe = Probe {
    title: "shm_unlink takes the name away at once",
    why: "a server that withdraws its object must not be joined by any more clients",
    spec: &[man("shm_open(3)", "shm_unlink"), posix("shm_unlink")],
    needs: NEEDS,
    ..Probe::new("posix.shm.unlink.name-gone", |cx| {
        let held = cx.object(8)?;
        let map = held.map(8)?;
        cx.expect_ok(|| sys::shm_unlink(&held.name))?;
        cx.expect_errno(ENOENT, || held.open(O_RDWR))?;
        let name = held.name.clone();
        cx.elsewhere(move |cx| cx.expect_errno(ENOENT, || sys::shm_open(&name, O_RDONLY, 0)))?;
        cx.expect("the file in /dev/shm", !exists(held.path()), "gone", "present")?;
        cx.expect_eq("byte of the memory", map.read(0), 0)
    })
};

const ABSENT_ENOENT: Probe = Probe {
    title: "shm_unlink of a name that is not there gives ENOENT",
    why: "start-up code removes leftovers first and ignores exactly this errno",
    spec: &[man("shm_open(3)", "ENOENT"), posix("shm_unlink")],
    needs: NEEDS,
    ..Probe::new("posix.shm.unlink.absent", |cx| {
        let name = cx.fresh_name();
        cx.expect_errno(ENOENT, || sys::shm_unlink(&name))
    })
};

const TWICE_ENOENT: Probe = Probe {
    title: "the second shm_unlink of a name gives ENOENT while it is mapped",
    why: "of two processes that clean up, one must learn that the other was first",
    spec: &[man("shm_open(3)", "ENOENT"), posix("shm_unlink")],
    needs: NEEDS,
    ..Probe::new("posix.shm.unlink.twice", |cx| {
        let held = cx.object(8)?;
        let _map = held.map(8)?;
        sys::shm_unlink(&held.name)?;
        let name = held.name.clone();
        cx.elsewhere(move |cx| cx.expect_errno(ENOENT, || sys::shm_unlink(&name)))
    })
};

const LIVES_OPEN: Probe = Probe {
    title: "memory of an unlinked object lives while a descriptor is open",
    why: "the usual pattern unlinks right after opening so that a crash leaves nothing; the object must still work",
    spec: &[man("shm_open(3)", "shm_unlink"), posix("shm_unlink")],
    needs: NEEDS,
    ..Probe::new("posix.shm.unlink.lives-while-open", |cx| {
        let held = cx.object(0)?;
        let other = held.open(O_RDWR)?;
        sys::shm_unlink(&held.name)?;
        cx.expect_ok(|| sys::ftruncate(held.raw(), 64))?;
        held.map(64)?.write(5, 0x5e);
        let seen = cx.elsewhere(|_| Ok(Map::shared(&other, 64)?.read(5)))?;
        cx.expect_eq("byte through another descriptor", seen, 0x5e)
    })
};

const LIVES_MAPPED: Probe = Probe {
    title: "memory of an unlinked object lives while it is mapped",
    why: "a server withdraws and closes its object while clients still work in it; they must not fault",
    spec: &[man("shm_open(3)", "shm_unlink"), posix("shm_unlink")],
    needs: NEEDS,
    ..Probe::new("posix.shm.unlink.lives-while-mapped", |cx| {
        let held = cx.object(64)?;
        let map = held.map(64)?;
        map.write(0, 1);
        sys::shm_unlink(&held.name)?;
        drop(held);
        cx.elsewhere(|_| {
            map.write(1, map.read(0) + 1);
            Ok(())
        })?;
        cx.expect_eq("bytes stored before and after", map.read_all(0, 2), vec![1, 2])
    })
};

const NAME_FREE: Probe = Probe {
    title: "after shm_unlink the name is free for another object",
    why: "a restarted server makes its object anew while clients of the old one still have that mapped",
    spec: &[man("shm_open(3)", "shm_unlink"), posix("shm_unlink")],
    needs: NEEDS,
    ..Probe::new("posix.shm.unlink.name-free", |cx| {
        let old = cx.object(8)?;
        let map = old.map(8)?;
        map.write(0, 1);
        sys::shm_unlink(&old.name)?;
        let new = cx.expect_ok(|| Object::create(old.name.clone(), 8, 0o600))?;
        cx.expect_ne("inode of the new object", new.stat()?.st_ino, old.stat()?.st_ino)?;
        let fresh = new.map(8)?;
        cx.expect_eq("first byte of the new object", fresh.read(0), 0)?;
        fresh.write(0, 2);
        cx.expect_eq("first byte of the old object", map.read(0), 1)
    })
};

const WITHOUT_PERMISSION: Probe = Probe {
    title: "the mode of an object does not keep its owner from unlinking it",
    why: "objects of mode 0 are locks; whoever made one must be able to take it away",
    spec: &[posix("shm_unlink"), man("unlink(2)", "DESCRIPTION")],
    needs: NEEDS,
    ..Probe::new("posix.shm.unlink.mode-0", |cx| {
        let held = object_of_mode(cx, 0, 0)?;
        let overrides = [Capability::CAP_DAC_OVERRIDE, Capability::CAP_DAC_READ_SEARCH, Capability::CAP_FOWNER];
        cx.without_caps(&overrides, |cx| cx.expect_ok(|| sys::shm_unlink(&held.name)))?;
        cx.expect("the file in /dev/shm", !exists(held.path()), "gone", "present")
    })
};

const STICKY_EACCES: Probe = Probe {
    title: "shm_unlink of another user's object gives EACCES",
    why: "the sticky bit of /dev/shm keeps users apart; without it anybody can cut a service off from its clients",
    fix: "mode=1777 for the mount on /dev/shm",
    spec: &[man("shm_open(3)", "EACCES"), doc("glibc posix/shm_unlink.c", "EPERM"), posix("shm_unlink")],
    needs: USERS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.unlink.sticky-eacces", |cx| {
        cx.own_dev_shm("mode=1777")?;
        let held = object_of_mode(cx, 0, 0)?;
        sys::tmpfs::fchmod(held.raw(), 0o666)?;
        let name = held.name.clone();
        cx.as_user(1, 1, move |cx| {
            cx.expect_ok(|| sys::shm_open(&name, O_RDWR, 0))?;
            cx.expect_errno(EACCES, || sys::shm_unlink(&name))
        })?;
        cx.expect("the object", exists(held.path()), "present", "gone")
    })
};

const STICKY_EPERM: Probe = Probe {
    title: "unlink(2) of another user's object gives EPERM",
    why: "the call itself says EPERM, the C library's shm_unlink EACCES: tools in other languages see the former",
    fix: "mode=1777 for the mount on /dev/shm",
    spec: &[man("unlink(2)", "EPERM"), posix("unlink")],
    needs: USERS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.unlink.sticky-eperm", |cx| {
        cx.own_dev_shm("mode=1777")?;
        let held = cx.object(0)?;
        let free = Entry::of(&cx.fresh_name());
        cx.as_user(1, 1, |cx| {
            cx.expect_errno(EPERM, || sys::tmpfs::unlink(held.path()))?;
            cx.expect_errno(EPERM, || sys::tmpfs::rename(held.path(), &free.path, 0))
        })?;
        cx.expect("the object", exists(held.path()), "present", "gone")
    })
};

const NOT_STICKY: Probe = Probe {
    title: "without the sticky bit any user can unlink any object",
    why: "an image that mounts /dev/shm with 0777 lets one tenant remove the memory of another",
    fix: "mode=1777 for the mount on /dev/shm",
    spec: &[man("unlink(2)", "EPERM or EACCES"), doc("freeipa-container#544", "")],
    needs: USERS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.unlink.not-sticky", |cx| {
        cx.own_dev_shm("mode=0777")?;
        let held = cx.object(0)?;
        let name = held.name.clone();
        cx.as_user(1, 1, move |cx| {
            cx.expect_errno(EACCES, || sys::shm_open(&name, O_RDONLY, 0))?;
            cx.expect_ok(|| sys::shm_unlink(&name))
        })?;
        cx.expect("the object", !exists(held.path()), "gone", "present")
    })
};

const CLOSED_DIRECTORY: Probe = Probe {
    title: "where /dev/shm is not writable, own objects stay: EACCES",
    why: "a service user under a 0755 /dev/shm can use what root gave it, but not clean up",
    fix: "mode=1777 for the mount on /dev/shm",
    spec: &[man("shm_open(3)", "EACCES"), man("unlink(2)", "EACCES"), posix("shm_unlink")],
    needs: &[Need::DevShm, Need::OtherUsers, Need::Cap(Capability::CAP_CHOWN)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.unlink.directory-not-writable", |cx| {
        cx.own_dev_shm("mode=0755")?;
        let held = cx.object(0)?;
        sys::tmpfs::fchown(held.raw(), 1, 1)?;
        let name = held.name.clone();
        cx.as_user(1, 1, move |cx| {
            cx.expect_ok(|| sys::shm_open(&name, O_RDWR, 0))?;
            cx.expect_errno(EACCES, || sys::shm_unlink(&name))
        })?;
        cx.expect("the object", exists(held.path()), "present", "gone")
    })
};

const LINK: Probe = Probe {
    title: "shm_unlink of a symbolic link removes the link, not its target",
    why: "cleaning up after a planted link must not destroy what it points to",
    spec: &[man("unlink(2)", "DESCRIPTION"), posix("unlink")],
    needs: NEEDS,
    ..Probe::new("posix.shm.unlink.symlink", |cx| {
        let target = cx.object(8)?;
        let link = Entry::of(&cx.fresh_name());
        sys::tmpfs::symlink(target.path(), &link.path)?;
        cx.expect_ok(|| sys::shm_unlink(&object_name(&link)))?;
        cx.expect("the link", !exists(&link.path), "gone", "present")?;
        cx.expect_eq("st_nlink of the target", target.stat()?.st_nlink, 1)
    })
};

const SURVIVES_CLOSE: Probe = Probe {
    title: "an object that nobody has open or mapped keeps its content",
    why: "a warm cache lives in /dev/shm between runs of the program",
    spec: &[posix("shm_open"), man("shm_overview(7)", "Persistence")],
    needs: NEEDS,
    ..Probe::new("posix.shm.lifetime.survives-close", |cx| {
        let held = cx.object(sys::page_size())?;
        held.map(16)?.write_all(0, b"still here");
        let entry = held.into_entry();
        let found = cx.expect_ok(|| sys::shm_open(&object_name(&entry), O_RDWR, 0))?;
        cx.expect_eq("size", sys::fstat(found.as_raw_fd())?.st_size, sys::page_size() as i64)?;
        cx.expect_eq("content", Map::shared(&found, 16)?.read_all(0, 10), b"still here".to_vec())
    })
};

const SURVIVES_EXIT: Probe = Probe {
    title: "an object outlives the process that made it",
    why: "producer and consumer need not run at the same time; and a crashed program's memory stays until someone \
          removes it",
    spec: &[posix("shm_open"), man("shm_overview(7)", "Persistence")],
    needs: NEEDS,
    ..Probe::new("posix.shm.lifetime.survives-exit", |cx| outlives(cx, Exit::Code(0)))
};

const SURVIVES_KILL: Probe = Probe {
    title: "an object outlives a creator killed by SIGKILL",
    why: "the state in shared memory is there for the restarted server after the OOM killer came",
    spec: &[posix("shm_open"), man("shm_overview(7)", "Persistence")],
    needs: NEEDS,
    ..Probe::new("posix.shm.lifetime.survives-kill", |cx| outlives(cx, Exit::Signal(libc::SIGKILL)))
};

/// A creator that ends this way leaves name and content.
fn outlives(cx: &mut shmcheck_probe::Context, end: Exit) -> shmcheck_probe::Outcome {
    let entry = Entry::of(&cx.fresh_name());
    let name = object_name(&entry);
    let creator = cx.fork(move |_| {
        let fd = sys::shm_open(&name, O_CREAT | O_EXCL | O_RDWR, 0o600)?;
        sys::ftruncate(fd.as_raw_fd(), 64)?;
        Map::shared(&fd, 64)?.write(9, 0x77);
        if let Exit::Signal(signal) = end {
            sys::kill(sys::getpid(), signal)?;
        }
        Ok(())
    })?;
    cx.expect_eq("end of the creator", creator.exit()?, end)?;
    let found = cx.expect_ok(|| sys::shm_open(&object_name(&entry), O_RDWR, 0))?;
    cx.expect_eq("byte the creator stored", Map::shared(&found, 64)?.read(9), 0x77)
}

const SURVIVES_LEADER: Probe = Probe {
    title: "a child's mapping outlives the parent that mapped it",
    why: "pre-fork servers map once and fork; the master may be replaced while workers go on",
    spec: &[posix("fork"), man("mmap(2)", "DESCRIPTION")],
    needs: NEEDS,
    ..Probe::new("posix.shm.lifetime.inherited-mapping", |cx| {
        let held = cx.object(64)?;
        let (ready, gone, stored) = (cx.gate()?, cx.gate()?, cx.gate()?);
        let fd = held.raw();
        let parent = cx.fork(|cx| {
            let map = Map::new(64, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd)?;
            // The child is left to the probe's reaper on purpose; it ends by itself right after its store.
            let child = cx.fork(|_| {
                sys::prctl(libc::PR_SET_PDEATHSIG, 0)?;
                ready.open()?;
                gone.pass()?;
                map.write(2, 0x33);
                stored.open()
            })?;
            std::mem::forget(child);
            ready.pass()
        })?;
        cx.expect_eq("end of the parent", parent.exit()?, Exit::Code(0))?;
        gone.open()?;
        stored.pass()?;
        cx.expect_eq("byte stored after the parent's end", super::truncate::byte_at(held.raw(), 2)?, 0x33)
    })
};
