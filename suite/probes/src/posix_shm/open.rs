//! shm_open(3): creating and finding objects, the descriptor it returns.

use libc::{EEXIST, ENOENT, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC};
use shmcheck_probe::{Context, Entry, Map, Need, Object, Outcome, Probe, Stop, man, posix, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &EXCL_EEXIST,
    &EXCL_RACE,
    &NO_NAME_ENOENT,
    &CREAT_FINDS,
    &CREAT_KEEPS_MODE,
    &EMPTY,
    &ZERO_FILLED,
    &TRUNC,
    &RDONLY_WRITE,
    &RDONLY_SEES,
    &OWNER,
    &GROUP,
    &SHARED,
    &SAME_FILE,
    &FILE_IS_OBJECT,
];

const NEEDS: &[Need] = &[Need::DevShm];

const EXCL_EEXIST: Probe = Probe {
    title: "O_CREAT|O_EXCL on an existing name fails with EEXIST",
    why: "a server takes its name with O_EXCL to be the only one: without the refusal two servers write into one ring \
          buffer and clients read garbage",
    spec: &[man("shm_open(3)", "EEXIST"), posix("shm_open")],
    needs: NEEDS,
    ..Probe::new("posix.shm.open.excl-eexist", excl_eexist)
};
fn excl_eexist(cx: &mut Context) -> Outcome {
    let held = cx.object(64)?;
    held.map(64)?.write(0, 7);
    cx.expect_errno(EEXIST, || sys::shm_open(&held.name, O_CREAT | O_EXCL | O_RDWR, 0o600))?;
    cx.expect_errno(EEXIST, || sys::shm_open(&held.name, O_CREAT | O_EXCL | O_RDWR | O_TRUNC, 0o600))?;
    cx.expect_eq("size after the refused O_TRUNC", held.stat()?.st_size, 64)?;
    cx.expect_eq("content", held.map(64)?.read(0), 7)
}

const EXCL_RACE: Probe = Probe {
    title: "of processes that race with O_CREAT|O_EXCL exactly one wins",
    why: "all workers of a job start at once and one of them must initialise; two initialisers wipe each other's data",
    spec: &[posix("shm_open"), man("open(2)", "O_EXCL")],
    needs: NEEDS,
    ..Probe::new("posix.shm.open.excl-race", excl_race)
};
fn excl_race(cx: &mut Context) -> Outcome {
    const RACERS: usize = 3;
    const ROUNDS: usize = 20;
    let entries: Vec<Entry> = (0..ROUNDS).map(|_| Entry::of(&cx.fresh_name())).collect();
    let start = cx.gate()?;
    let racers = (0..RACERS)
        .map(|_| {
            cx.fork(|_| {
                start.pass()?;
                let attempt = |entry| sys::shm_open(&object_name(entry), O_CREAT | O_EXCL | O_RDWR, 0o600);
                Ok(entries.iter().map(|entry| attempt(entry).map_or_else(|e| e.errno, |_| 0)).collect::<Vec<i32>>())
            })
        })
        .collect::<Result<Vec<_>, Stop>>()?;
    for _ in 0..RACERS {
        start.open()?;
    }
    let results = racers.into_iter().map(|racer| racer.join()).collect::<Result<Vec<_>, Stop>>()?;
    for round in 0..ROUNDS {
        let mut errnos: Vec<i32> = results.iter().filter_map(|result| result.get(round).copied()).collect();
        errnos.sort_unstable();
        cx.expect_eq("errnos of the racers, 0 for the winner", errnos, vec![0, EEXIST, EEXIST])?;
    }
    Ok(())
}

const NO_NAME_ENOENT: Probe = Probe {
    title: "a name that nobody created is not found: ENOENT",
    why: "clients wait for their server by retrying on ENOENT; another errno makes them give up at start",
    spec: &[man("shm_open(3)", "ENOENT"), posix("shm_open")],
    needs: NEEDS,
    ..Probe::new("posix.shm.open.no-name-enoent", |cx| {
        let entry = Entry::of(&cx.fresh_name());
        let name = format!("/{}", entry.path.rsplit('/').next().unwrap_or_default());
        for flags in [O_RDONLY, O_RDWR, O_RDWR | O_EXCL, O_RDWR | O_TRUNC] {
            cx.expect_errno(ENOENT, || sys::shm_open(&name, flags, 0o600))?;
        }
        cx.expect("the name after refused opens", !exists(&entry.path), "still absent", "present")
    })
};

const CREAT_FINDS: Probe = Probe {
    title: "O_CREAT without O_EXCL opens the object that exists",
    why: "ROS 2 and Boost.Interprocess use open_or_create from every process; one that got a fresh object would wait \
          for data for ever",
    spec: &[man("shm_open(3)", "O_CREAT"), posix("shm_open")],
    needs: NEEDS,
    ..Probe::new("posix.shm.open.creat-finds", creat_finds)
};
fn creat_finds(cx: &mut Context) -> Outcome {
    let held = cx.object(128)?;
    held.map(128)?.write_all(0, b"kept");
    let found = cx.expect_ok(|| held.open(O_CREAT | O_RDWR))?;
    let stat = sys::fstat(found.as_raw_fd())?;
    cx.expect_eq("inode", stat.st_ino, held.stat()?.st_ino)?;
    cx.expect_eq("size", stat.st_size, 128)?;
    cx.expect_eq("content", Map::shared(&found, 128)?.read_all(0, 4), b"kept".to_vec())
}

const CREAT_KEEPS_MODE: Probe = Probe {
    title: "O_CREAT on an existing object changes neither mode nor owner",
    why: "a careless client that passes 0666 must not open a private object to every user of the machine",
    spec: &[man("shm_open(3)", "O_CREAT"), posix("shm_open")],
    needs: NEEDS,
    ..Probe::new("posix.shm.open.creat-keeps-mode", creat_keeps_mode)
};
fn creat_keeps_mode(cx: &mut Context) -> Outcome {
    let held = cx.object(0)?;
    let before = held.stat()?;
    sys::umask(0);
    let _again = cx.expect_ok(|| sys::shm_open(&held.name, O_CREAT | O_RDWR, 0o666))?;
    let after = held.stat()?;
    cx.expect_eq("mode", after.st_mode & 0o7777, 0o600)?;
    cx.expect_eq("owner and group", (after.st_uid, after.st_gid), (before.st_uid, before.st_gid))
}

const EMPTY: Probe = Probe {
    title: "a new object has size 0",
    why: "programs tell by size 0 that nobody has set the object up yet; a leftover size makes them skip initialisation",
    spec: &[man("shm_open(3)", "DESCRIPTION"), posix("shm_open")],
    needs: NEEDS,
    ..Probe::new("posix.shm.open.new-is-empty", |cx| {
        let made = cx.object(0)?;
        let stat = made.stat()?;
        cx.expect_eq("st_size and st_blocks", (stat.st_size, stat.st_blocks), (0, 0))?;
        cx.expect_eq("bytes read", sys::pread(made.raw(), &mut [0; 8], 0)?, 0)
    })
};

const ZERO_FILLED: Probe = Probe {
    title: "the bytes of a newly sized object read zero",
    why: "lock words and counters start at zero without being set; old content would also leak another user's secrets",
    spec: &[man("shm_open(3)", "DESCRIPTION"), posix("ftruncate")],
    needs: NEEDS,
    ..Probe::new("posix.shm.open.zero-filled", zero_filled)
};
fn zero_filled(cx: &mut Context) -> Outcome {
    let length = 4 * sys::page_size();
    // The pages of an object filled with ones go back to the kernel first: a lazy kernel would hand them out again.
    let dirty = cx.object(length)?;
    dirty.map(length)?.write_all(0, &vec![0xff; length]);
    drop(dirty);
    let made = cx.object(length)?;
    let name = made.name.clone();
    let sum = cx.elsewhere(move |_| {
        let map = Map::shared(&sys::shm_open(&name, O_RDWR, 0)?, length)?;
        Ok(map.read_all(0, length).into_iter().filter(|byte| *byte != 0).count())
    })?;
    cx.expect_eq("bytes that are not zero", sum, 0)
}

const TRUNC: Probe = Probe {
    title: "O_TRUNC empties an existing object",
    why: "a restarted server clears the state of its crashed predecessor with O_TRUNC, and clients see the new size",
    spec: &[man("shm_open(3)", "O_TRUNC"), posix("shm_open")],
    needs: NEEDS,
    ..Probe::new("posix.shm.open.trunc-empties", trunc_empties)
};
fn trunc_empties(cx: &mut Context) -> Outcome {
    let held = cx.object(sys::page_size())?;
    held.map(1)?.write(0, 9);
    let emptied = cx.expect_ok(|| held.open(O_RDWR | O_TRUNC))?;
    let stat = held.stat()?;
    cx.expect_eq("st_size and st_blocks", (stat.st_size, stat.st_blocks), (0, 0))?;
    sys::ftruncate(emptied.as_raw_fd(), 1)?;
    cx.expect_eq("first byte after growing again", held.map(1)?.read(0), 0)
}

const RDONLY_WRITE: Probe = Probe {
    title: "an O_RDONLY descriptor gives no way to write",
    why: "a publisher hands read-only access to its subscribers; one that could write would corrupt all the others",
    spec: &[man("shm_open(3)", "O_RDONLY"), man("mmap(2)", "ERRORS"), posix("shm_open")],
    needs: NEEDS,
    ..Probe::new("posix.shm.open.rdonly-no-write", rdonly_no_write)
};
fn rdonly_no_write(cx: &mut Context) -> Outcome {
    let held = cx.object(16)?;
    let reader = held.open(O_RDONLY)?;
    let fd = reader.as_raw_fd();
    cx.expect_eq("access mode", sys::fcntl(fd, libc::F_GETFL, 0)? & libc::O_ACCMODE, O_RDONLY)?;
    cx.expect_errno(libc::EBADF, || sys::pwrite(fd, b"x", 0))?;
    cx.expect_errno(libc::EACCES, || Map::shared(&reader, 16))?;
    let seen = Map::new(16, libc::PROT_READ, libc::MAP_SHARED, fd)?;
    let writable = libc::PROT_READ | libc::PROT_WRITE;
    cx.expect_errno(libc::EACCES, || sys::mprotect(seen.address(), 16, writable))?;
    cx.expect_eq("content", seen.read(0), 0)
}

const RDONLY_SEES: Probe = Probe {
    title: "a mapping through an O_RDONLY descriptor sees later stores",
    why: "subscribers of a shared ring map it read-only; a snapshot instead of the live memory looks like a dead \
          publisher",
    spec: &[man("shm_open(3)", "O_RDONLY"), posix("mmap")],
    needs: NEEDS,
    ..Probe::new("posix.shm.open.rdonly-sees-stores", rdonly_sees)
};
fn rdonly_sees(cx: &mut Context) -> Outcome {
    let held = cx.object(16)?;
    let writer = held.map(16)?;
    let (go, name) = (cx.gate()?, held.name.clone());
    let (ready, seen) = (cx.gate()?, cx.gate()?);
    let reader = cx.fork(|_| {
        let fd = sys::shm_open(&name, O_RDONLY, 0)?;
        let map = Map::new(16, libc::PROT_READ, libc::MAP_SHARED, fd.as_raw_fd())?;
        let before = map.read(3);
        ready.open()?;
        go.pass()?;
        seen.open()?;
        Ok((before, map.read(3)))
    })?;
    ready.pass()?;
    writer.write(3, 0x5a);
    go.open()?;
    seen.pass()?;
    cx.expect_eq("byte before and after the store", reader.join()?, (0, 0x5a))
}

const OWNER: Probe = Probe {
    title: "the owner of a new object is the effective user",
    why: "a set-user-ID broker creates objects as its service user; with the caller's id the service cannot clean up",
    spec: &[man("shm_open(3)", "O_CREAT"), posix("shm_open")],
    needs: &[Need::DevShm, Need::OtherUsers],
    ..Probe::new("posix.shm.open.owner-effective-uid", |cx| {
        let entry = Entry::of(&cx.fresh_name());
        let name = object_name(&entry);
        let uid = cx.elsewhere(move |_| {
            sys::seteuid(1)?;
            let fd = sys::shm_open(&name, O_CREAT | O_EXCL | O_RDWR, 0o600)?;
            Ok(sys::fstat(fd.as_raw_fd())?.st_uid)
        })?;
        cx.expect_eq("st_uid with effective user 1", uid, 1)
    })
};

const GROUP: Probe = Probe {
    title: "the group of a new object is the effective group",
    why: "members of a service's group share objects of mode 0660; the wrong group locks them out",
    spec: &[man("shm_open(3)", "O_CREAT"), posix("shm_open")],
    needs: &[Need::DevShm, Need::OtherUsers],
    ..Probe::new("posix.shm.open.group-effective-gid", |cx| {
        let entry = Entry::of(&cx.fresh_name());
        let name = object_name(&entry);
        let ids = cx.as_user(65534, 1, move |_| {
            let fd = sys::shm_open(&name, O_CREAT | O_EXCL | O_RDWR, 0o600)?;
            let stat = sys::fstat(fd.as_raw_fd())?;
            Ok((stat.st_uid, stat.st_gid))
        })?;
        cx.expect_eq("st_uid and st_gid", ids, (65534, 1))
    })
};

const SHARED: Probe = Probe {
    title: "two processes that open one name share its memory both ways",
    why: "this is what the interface is for; a private copy would leave both sides waiting without any error",
    spec: &[man("shm_open(3)", "DESCRIPTION"), posix("shm_open")],
    needs: NEEDS,
    ..Probe::new("posix.shm.open.shared-between-processes", shared)
};
fn shared(cx: &mut Context) -> Outcome {
    let held = cx.object(sys::page_size())?;
    let here = held.map(16)?;
    here.write(0, 0x11);
    let name = held.name.clone();
    let seen = cx.elsewhere(move |_| {
        let map = Map::shared(&sys::shm_open(&name, O_RDWR, 0)?, 16)?;
        map.write(1, 0x22);
        Ok(map.read(0))
    })?;
    cx.expect_eq("byte seen by the other", seen, 0x11)?;
    cx.expect_eq("byte the other stored", here.read(1), 0x22)
}

const SAME_FILE: Probe = Probe {
    title: "the object is the file of that name in /dev/shm",
    why: "administrators find and remove leaked objects with ls and rm; monitoring sums up the directory",
    spec: &[man("shm_overview(7)", "Accessing shared memory objects via the filesystem")],
    needs: NEEDS,
    ..Probe::new("posix.shm.open.is-file-in-dev-shm", same_file)
};
fn same_file(cx: &mut Context) -> Outcome {
    let held = cx.object(32)?;
    let (path, name) = (held.path().to_owned(), held.name.clone());
    let file = cx.expect_ok(|| sys::open(&path, O_RDWR | libc::O_CLOEXEC, 0))?;
    let (stat, other) = (sys::fstat(file.as_raw_fd())?, held.stat()?);
    cx.expect_eq("device and inode", (stat.st_dev, stat.st_ino), (other.st_dev, other.st_ino))?;
    let listed = std::fs::read_dir("/dev/shm")?.flatten().any(|entry| entry.file_name() == name[1..]);
    cx.expect("listing of /dev/shm", listed, format!("an entry {}", &name[1..]), "none")
}

const FILE_IS_OBJECT: Probe = Probe {
    title: "a file created in /dev/shm is found by shm_open",
    why: "shells, Java and Go programs without shm_open create files there and expect C programs to find them",
    spec: &[man("shm_overview(7)", "Accessing shared memory objects via the filesystem")],
    needs: NEEDS,
    ..Probe::new("posix.shm.open.file-is-object", |cx| {
        let entry = Entry::of(&cx.fresh_name());
        let file = sys::open(&entry.path, O_CREAT | O_EXCL | O_RDWR | libc::O_CLOEXEC, 0o600)?;
        sys::pwrite(file.as_raw_fd(), b"file", 0)?;
        let found = cx.expect_ok(|| sys::shm_open(&object_name(&entry), O_RDWR, 0))?;
        cx.expect_eq("content", Map::shared(&found, 4)?.read_all(0, 4), b"file".to_vec())
    })
};

/// Whether there is anything of that path, without following a symbolic link.
pub(crate) fn exists(path: &str) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// The name of an object by its guard.
pub(crate) fn object_name(entry: &Entry) -> String {
    entry.path.trim_start_matches("/dev/shm").to_owned()
}

/// An object of another mode than 0600, as the umask lets it be.
pub(crate) fn object_of_mode(cx: &mut Context, size: usize, mode: u32) -> Result<Object, Stop> {
    Ok(Object::create(cx.fresh_name(), size, mode)?)
}
