//! shm_open(3): what a name may be, and symbolic links, which are not followed.

use super::open::{exists, object_name};
use libc::{EINVAL, ELOOP, ENAMETOOLONG, ENOENT, O_CREAT, O_EXCL, O_RDONLY, O_RDWR};
use shmcheck_probe::{Context, Entry, Need, Object, Outcome, Probe, doc, man, posix, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &NO_SLASH,
    &MANY_SLASHES,
    &EMPTY,
    &EMBEDDED_SLASH,
    &LONGEST,
    &TOO_LONG,
    &LAST_CHARACTER,
    &DOT,
    &DIRECTORY,
    &BYTES,
    &CASE,
    &LINK_NOT_FOLLOWED,
    &LINK_CREATES_NOTHING,
    &UNLINK_EMPTY,
    &UNLINK_TOO_LONG,
];

const NEEDS: &[Need] = &[Need::DevShm];
/// The longest name below /dev/shm, limits.h.
const NAME_MAX: usize = 255;

const NO_SLASH: Probe = Probe {
    title: "a name without a leading slash means the same object",
    why: "Python's multiprocessing and many C programs leave the slash away; POSIX leaves it to the implementation, \
          Linux programs rely on it",
    varies: "other C libraries and systems may refuse it",
    spec: &[doc("glibc posix/shm-directory.c", "__shm_get_name"), posix("shm_open")],
    needs: NEEDS,
    ..Probe::new("posix.shm.name.no-slash", |cx| same_object(cx, ""))
};

const MANY_SLASHES: Probe = Probe {
    title: "several leading slashes count as one",
    why: "names put together from a configured prefix get a slash too many; the program must not lose its peer by it",
    varies: "other C libraries and systems may refuse it",
    spec: &[doc("glibc posix/shm-directory.c", "__shm_get_name"), posix("shm_open")],
    needs: NEEDS,
    ..Probe::new("posix.shm.name.many-slashes", |cx| same_object(cx, "///"))
};

/// The name with this prefix in the place of its slash finds the same object, also for shm_unlink.
fn same_object(cx: &mut Context, prefix: &str) -> Outcome {
    let held = cx.object(8)?;
    let spelled = format!("{prefix}{}", &held.name[1..]);
    let found = cx.expect_ok(|| sys::shm_open(&spelled, O_RDWR, 0))?;
    cx.expect_eq("inode", sys::fstat(found.as_raw_fd())?.st_ino, held.stat()?.st_ino)?;
    cx.expect_ok(|| sys::shm_unlink(&spelled))?;
    cx.expect("the name after shm_unlink", !exists(held.path()), "gone", "present")
}

const EMPTY: Probe = Probe {
    title: "an empty name is invalid: EINVAL",
    why: "a configuration value that is missing becomes an empty name; it must not silently open /dev/shm itself",
    spec: &[man("shm_open(3)", "EINVAL"), posix("shm_open")],
    needs: NEEDS,
    ..Probe::new("posix.shm.name.empty", |cx| {
        for name in ["", "/", "///"] {
            for flags in [O_RDONLY, O_RDWR, O_CREAT | O_RDWR] {
                cx.expect_errno(EINVAL, || sys::shm_open(name, flags, 0o600))?;
            }
        }
        Ok(())
    })
};

const EMBEDDED_SLASH: Probe = Probe {
    title: "a slash inside a name is invalid: EINVAL",
    why: "a name from outside must not climb into other directories, however it is spelled",
    spec: &[man("shm_open(3)", "EINVAL"), man("shm_open(3)", "DESCRIPTION"), posix("shm_open")],
    needs: NEEDS,
    ..Probe::new("posix.shm.name.embedded-slash", embedded_slash)
};
fn embedded_slash(cx: &mut Context) -> Outcome {
    let directory = Entry::of(&cx.fresh_name());
    sys::tmpfs::mkdir(&directory.path, 0o700)?;
    let below = object_name(&directory);
    // The directory exists, so that only the rule about names stands against these.
    for name in [format!("{below}/a"), format!("{below}/"), format!("{below}/./a"), format!("/../shm{below}/a")] {
        cx.expect_errno(EINVAL, || sys::shm_open(&name, O_CREAT | O_RDWR, 0o600))?;
    }
    let left = std::fs::read_dir(&directory.path)?.count();
    cx.expect_eq("entries of the directory", left, 0)
}

const LONGEST: Probe = Probe {
    title: "a name of NAME_MAX characters is accepted",
    why: "names that hold a UUID, a topic and a host come close to the limit; a shorter limit breaks only some of them",
    spec: &[man("shm_open(3)", "DESCRIPTION"), posix("shm_open")],
    needs: NEEDS,
    ..Probe::new("posix.shm.name.longest", |cx| {
        let name = padded(&cx.fresh_name(), NAME_MAX, 'x');
        let made = cx.expect_ok(|| Object::create(name, 0, 0o600))?;
        cx.expect("the file in /dev/shm", exists(made.path()), "present", "absent")
    })
};

const TOO_LONG: Probe = Probe {
    title: "a name longer than NAME_MAX fails with ENAMETOOLONG",
    why: "a silently shortened name makes two programs share memory by accident",
    spec: &[man("shm_open(3)", "ENAMETOOLONG"), posix("shm_open")],
    needs: NEEDS,
    ..Probe::new("posix.shm.name.too-long", |cx| {
        let name = padded(&cx.fresh_name(), NAME_MAX + 1, 'x');
        let entry = Entry::of(&name[..=NAME_MAX]);
        for flags in [O_RDWR, O_CREAT | O_RDWR] {
            cx.expect_errno(ENAMETOOLONG, || sys::shm_open(&name, flags, 0o600))?;
        }
        cx.expect("a file of the shortened name", !exists(&entry.path), "absent", "present")
    })
};

const LAST_CHARACTER: Probe = Probe {
    title: "names that differ in the last of NAME_MAX characters differ",
    why: "a lookup by a prefix or a weak hash would give one tenant the memory of another",
    spec: &[posix("shm_open"), man("shm_open(3)", "DESCRIPTION")],
    needs: NEEDS,
    ..Probe::new("posix.shm.name.last-character", |cx| {
        let name = padded(&cx.fresh_name(), NAME_MAX - 1, 'x');
        two_objects(cx, &format!("{name}a"), &format!("{name}b"))
    })
};

const DOT: Probe = Probe {
    title: "the names . and .. are invalid for writing: EINVAL",
    why: "they are directories; creating there must not fail with a surprising EISDIR that callers do not know",
    spec: &[man("shm_open(3)", "EINVAL"), doc("glibc posix/shm_open.c", "EISDIR")],
    needs: NEEDS,
    ..Probe::new("posix.shm.name.dot", |cx| {
        for name in ["/.", "/..", ".", ".."] {
            for flags in [O_RDWR, O_CREAT | O_RDWR] {
                cx.expect_errno(EINVAL, || sys::shm_open(name, flags, 0o600))?;
            }
        }
        Ok(())
    })
};

const DIRECTORY: Probe = Probe {
    title: "the name of a directory is invalid for writing: EINVAL",
    why: "engines put directories into /dev/shm; a program whose name hits one must get a documented errno",
    spec: &[man("shm_open(3)", "EINVAL"), doc("glibc posix/shm_open.c", "EISDIR")],
    needs: NEEDS,
    ..Probe::new("posix.shm.name.directory", |cx| {
        let directory = Entry::of(&cx.fresh_name());
        sys::tmpfs::mkdir(&directory.path, 0o700)?;
        let name = object_name(&directory);
        cx.expect_errno(EINVAL, || sys::shm_open(&name, O_RDWR, 0))?;
        cx.expect_errno(EINVAL, || sys::shm_open(&name, O_CREAT | O_RDWR, 0o600))
    })
};

const BYTES: Probe = Probe {
    title: "a name may hold spaces, newlines or any text encoding",
    why: "names made from user input or in another language must find the same object in both programs",
    spec: &[posix("shm_open"), man("shm_open(3)", "DESCRIPTION")],
    needs: NEEDS,
    ..Probe::new("posix.shm.name.any-bytes", |cx| {
        let name = format!("{} \n\t*?\u{e4}\u{1f9e0}\u{7f}", cx.fresh_name());
        let made = cx.expect_ok(|| Object::create(name.clone(), 0, 0o600))?;
        let found = cx.expect_ok(|| sys::shm_open(&name, O_RDWR, 0))?;
        cx.expect_eq("inode", sys::fstat(found.as_raw_fd())?.st_ino, made.stat()?.st_ino)
    })
};

const CASE: Probe = Probe {
    title: "upper and lower case are different names",
    why: "a folding /dev/shm (casefold tmpfs, a foreign file system) merges two objects of one application",
    spec: &[posix("shm_open"), man("shm_open(3)", "DESCRIPTION")],
    needs: NEEDS,
    ..Probe::new("posix.shm.name.case", |cx| {
        let name = cx.fresh_name();
        two_objects(cx, &format!("{name}.ring"), &format!("{name}.RING"))
    })
};

/// Both names can be created, and each has its own memory.
fn two_objects(cx: &mut Context, one: &str, two: &str) -> Outcome {
    let one = cx.expect_ok(|| Object::create(one.to_owned(), 8, 0o600))?;
    let two = cx.expect_ok(|| Object::create(two.to_owned(), 8, 0o600))?;
    one.map(8)?.write(0, 1);
    cx.expect_ne("inode", one.stat()?.st_ino, two.stat()?.st_ino)?;
    cx.expect_eq("byte of the other object", two.map(8)?.read(0), 0)
}

const LINK_NOT_FOLLOWED: Probe = Probe {
    title: "a symbolic link in /dev/shm is not followed: ELOOP",
    why: "/dev/shm is open to all users: a planted link must not make a service write into a file of its own",
    varies: "C libraries that open without O_NOFOLLOW follow it",
    spec: &[doc("glibc posix/shm_open.c", "O_NOFOLLOW"), man("open(2)", "ELOOP")],
    needs: NEEDS,
    ..Probe::new("posix.shm.name.link-not-followed", link_not_followed)
};
fn link_not_followed(cx: &mut Context) -> Outcome {
    let target = cx.object(8)?;
    target.map(8)?.write(0, 5);
    let link = Entry::of(&cx.fresh_name());
    sys::tmpfs::symlink(target.path(), &link.path)?;
    // The link itself is good: open(2) goes through it.
    let through = sys::open(&link.path, O_RDWR | libc::O_CLOEXEC, 0)?;
    cx.expect_eq("inode through the link", sys::fstat(through.as_raw_fd())?.st_ino, target.stat()?.st_ino)?;
    for flags in [O_RDONLY, O_RDWR, O_RDWR | libc::O_TRUNC, O_RDWR | O_CREAT] {
        cx.expect_errno(ELOOP, || sys::shm_open(&object_name(&link), flags, 0o600))?;
    }
    cx.expect_eq("size of the target", target.stat()?.st_size, 8)
}

const LINK_CREATES_NOTHING: Probe = Probe {
    title: "O_CREAT does not create the target of a dangling link",
    why: "otherwise a planted link lets any user choose where a privileged service creates files",
    varies: "C libraries that open without O_NOFOLLOW create it",
    spec: &[doc("glibc posix/shm_open.c", "O_NOFOLLOW"), man("open(2)", "ELOOP")],
    needs: NEEDS,
    ..Probe::new("posix.shm.name.dangling-link", |cx| {
        let target = Entry::of(&cx.fresh_name());
        let link = Entry::of(&cx.fresh_name());
        sys::tmpfs::symlink(&target.path, &link.path)?;
        let name = object_name(&link);
        cx.expect_errno(ELOOP, || sys::shm_open(&name, O_CREAT | O_RDWR, 0o600))?;
        cx.expect_errno(libc::EEXIST, || sys::shm_open(&name, O_CREAT | O_EXCL | O_RDWR, 0o600))?;
        cx.expect("the link's target", !exists(&target.path), "absent", "present")
    })
};

const UNLINK_EMPTY: Probe = Probe {
    title: "shm_unlink refuses an empty name and one with a slash inside",
    why: "clean-up code that lost its name must not remove anything else",
    varies: "glibc says ENOENT for every invalid name, other C libraries EINVAL",
    spec: &[man("shm_open(3)", "ENOENT"), doc("glibc posix/shm_unlink.c", "ENOENT"), posix("shm_unlink")],
    needs: NEEDS,
    ..Probe::new("posix.shm.name.unlink-invalid", |cx| {
        let directory = Entry::of(&cx.fresh_name());
        sys::tmpfs::mkdir(&directory.path, 0o700)?;
        let inside = Entry::new(format!("{}/object", directory.path));
        drop(sys::open(&inside.path, O_CREAT | O_RDWR | libc::O_CLOEXEC, 0o600)?);
        for name in [String::new(), "/".to_owned(), object_name(&inside)] {
            cx.expect_errno_of(&[ENOENT, EINVAL], || sys::shm_unlink(&name))?;
        }
        cx.expect("the file below a directory", exists(&inside.path), "present", "removed")?;
        drop(inside);
        Ok(())
    })
};

const UNLINK_TOO_LONG: Probe = Probe {
    title: "shm_unlink of a name longer than NAME_MAX gives ENAMETOOLONG",
    why: "a shortened name would remove the object of somebody else",
    spec: &[posix("shm_unlink"), man("shm_open(3)", "ENAMETOOLONG")],
    needs: NEEDS,
    ..Probe::new("posix.shm.name.unlink-too-long", |cx| {
        let name = padded(&cx.fresh_name(), NAME_MAX + 1, 'x');
        let kept = Object::create(name[..=NAME_MAX].to_owned(), 0, 0o600)?;
        cx.expect_errno(ENAMETOOLONG, || sys::shm_unlink(&name))?;
        cx.expect("the object of the shortened name", exists(kept.path()), "present", "removed")
    })
};

/// The name, filled up to that many characters behind its slash.
fn padded(name: &str, length: usize, filler: char) -> String {
    let mut name = name.to_owned();
    while name.len() < length + 1 {
        name.push(filler);
    }
    name
}
