//! sem_open(3), sem_close(3), sem_unlink(3): semaphores with a name.

use super::tools::{Said, done, expect_said, lost, sleeper};
use libc::{EACCES, EEXIST, EINVAL, EMFILE, ENAMETOOLONG, ENOENT, O_CREAT, O_EXCL};
use shmcheck_probe::sys::sync::{SEM_VALUE_MAX, Sem, SemName, open_sem};
use shmcheck_probe::{Clause, Context, Need, Outcome, Probe, Stop, Sys, man, posix, sys};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &CREATES,
    &CREATE_ONCE,
    &EXCL_EEXIST,
    &MISSING_ENOENT,
    &VALUE_MAX,
    &VALUE_EINVAL,
    &SLASH_EINVAL,
    &INNER_SLASH,
    &LONG_NAME,
    &NO_DESCRIPTORS,
    &MODE_UMASK,
    &OTHERS_EACCES,
    &READ_ONLY_EACCES,
    &OTHERS_ALLOWED,
    &SAME_ADDRESS,
    &CREATED_AT_ONCE,
    &ELSEWHERE,
    &FORK_INHERITS,
    &PERSISTS,
];

#[track_caller]
pub(super) const fn probe(
    id: &'static str,
    title: &'static str,
    why: &'static str,
    spec: &'static [Clause],
    run: fn(&mut Context) -> Outcome,
) -> Probe {
    Probe {
        title,
        why,
        spec,
        varies: "named semaphores are files of /dev/shm: size, mode and mount flags of that decide",
        fix: "mount a tmpfs on /dev/shm with mode 1777 (docker run --ipc=private does)",
        calls: &[Sys::Futex],
        needs: &[Need::DevShm],
        ..Probe::new(id, run)
    }
}

pub(super) const OTHERS: &[Need] = &[Need::DevShm, Need::OtherUsers];

/// A semaphore that this probe creates.
pub(super) fn created(cx: &mut Context, value: u32) -> Result<(SemName, Sem<'static>), Stop> {
    let name = SemName::new(cx.fresh_name());
    let sem = open_sem(&name.name, O_CREAT | O_EXCL, 0o600, value)?;
    Ok((name, sem))
}

pub(super) fn exists(name: &SemName) -> bool {
    std::fs::symlink_metadata(name.path()).is_ok()
}

const CREATES: Probe = probe(
    "sync.sem.open.creates",
    "sem_open with O_CREAT makes /dev/shm/sem.NAME with the value given",
    "administrators look for stale semaphores by this name, and scripts remove them",
    &[man("sem_open(3)", ""), man("sem_overview(7)", "/dev/shm")],
    |cx| {
        let (name, sem) = created(cx, 3)?;
        cx.expect_eq("the value", sem.value()?, 3)?;
        let file = std::fs::symlink_metadata(name.path())?;
        cx.expect("its file", file.is_file(), "a regular file", file.file_type())?;
        cx.expect_eq("the file's size", file.len(), size_of::<libc::sem_t>() as u64)
    },
);

const CREATE_ONCE: Probe = probe(
    "sync.sem.open.existing-keeps-value",
    "O_CREAT on a semaphore that exists ignores mode and value",
    "the second process to start must not set the counter back under the first",
    &[man("sem_open(3)", "O_CREAT"), posix("sem_open")],
    |cx| {
        let (name, sem) = created(cx, 3)?;
        let again = cx.expect_ok(|| open_sem(&name.name, O_CREAT, 0o666, 9))?;
        cx.expect_eq("the value", again.value()?, 3)?;
        cx.expect_eq("the value by the first handle", sem.value()?, 3)?;
        let mode = std::fs::metadata(name.path())?.permissions().mode() & 0o777;
        cx.expect_eq("the mode", mode, 0o600)
    },
);

const EXCL_EEXIST: Probe = probe(
    "sync.sem.open.excl-eexist",
    "O_CREAT|O_EXCL on a semaphore that exists: EEXIST",
    "single-instance programs (browsers, installers) tell by it that they run already",
    &[man("sem_open(3)", "EEXIST")],
    |cx| {
        let (name, sem) = created(cx, 3)?;
        cx.expect_errno(EEXIST, || open_sem(&name.name, O_CREAT | O_EXCL, 0o600, 1))?;
        cx.expect_eq("the value", sem.value()?, 3)
    },
);

const MISSING_ENOENT: Probe = probe(
    "sync.sem.open.missing-enoent",
    "sem_open without O_CREAT on a name that nobody made: ENOENT",
    "clients tell by it that the server does not run, and wait or start it",
    &[man("sem_open(3)", "ENOENT")],
    |cx| {
        let name = SemName::new(cx.fresh_name());
        cx.expect_errno(ENOENT, || open_sem(&name.name, 0, 0, 0))?;
        cx.expect_eq("a file", exists(&name), false)
    },
);

const VALUE_MAX: Probe = probe(
    "sync.sem.open.value-max",
    "sem_open takes SEM_VALUE_MAX as a value",
    "an unlimited credit is written this way; a smaller ceiling would refuse a pool at its start",
    &[man("sem_open(3)", ""), posix("sem_open")],
    |cx| {
        let (_name, sem) = created(cx, SEM_VALUE_MAX)?;
        cx.expect_eq("the value", sem.value()?, i32::MAX)
    },
);

const VALUE_EINVAL: Probe = probe(
    "sync.sem.open.value-einval",
    "sem_open with a value above SEM_VALUE_MAX: EINVAL, and nothing is made",
    "half of a creation would be found by the next process as a semaphore with rubbish in it",
    &[man("sem_open(3)", "EINVAL")],
    |cx| {
        let name = SemName::new(cx.fresh_name());
        cx.expect_errno(EINVAL, || open_sem(&name.name, O_CREAT, 0o600, SEM_VALUE_MAX + 1))?;
        cx.expect_eq("a file", exists(&name), false)
    },
);

const SLASH_EINVAL: Probe = probe(
    "sync.sem.open.slash-einval",
    "a name that is only a slash is refused: EINVAL",
    "an empty setting in a configuration file must be an error with a meaning",
    &[man("sem_open(3)", "EINVAL")],
    |cx| {
        cx.expect_errno(EINVAL, || open_sem("/", O_CREAT, 0o600, 1))?;
        cx.expect_eq("a file", std::path::Path::new("/dev/shm/sem.").exists(), false)
    },
);

const INNER_SLASH: Probe = probe(
    "sync.sem.open.inner-slash",
    "a name with a slash inside is refused, and no file is made",
    "a name taken from a path must not reach into other folders of /dev/shm",
    // The page names ENOENT for a name that is not well formed; glibc has given EINVAL since 2.34.
    &[man("sem_open(3)", "name wasn't well formed"), man("sem_overview(7)", "/somename")],
    |cx| {
        let name = format!("{}/b", cx.fresh_name());
        cx.expect_errno_of(&[EINVAL, ENOENT], || open_sem(&name, O_CREAT, 0o600, 1))?;
        cx.expect_errno_of(&[EINVAL, ENOENT], || open_sem(&name, 0, 0, 0))
    },
);

/// A name of `length` characters behind the slash.
pub(super) fn long_name(cx: &mut Context, length: usize) -> SemName {
    let mut name = cx.fresh_name();
    while name.len() <= length {
        name.push('x');
    }
    SemName::new(name)
}

/// NAME_MAX without the `sem.` that the library puts before the name, sem_overview(7).
pub(super) const LONGEST: usize = 251;

const LONG_NAME: Probe = probe(
    "sync.sem.open.enametoolong",
    "a name of 251 characters is taken, one of 252 is not: ENAMETOOLONG",
    "names are built from paths and user names; four characters go to the prefix that nobody sees",
    &[man("sem_open(3)", "ENAMETOOLONG"), man("sem_overview(7)", "NAME_MAX-4")],
    |cx| {
        let fits = long_name(cx, LONGEST);
        cx.expect_ok(|| open_sem(&fits.name, O_CREAT | O_EXCL, 0o600, 1))?;
        let long = long_name(cx, LONGEST + 1);
        cx.expect_errno(ENAMETOOLONG, || open_sem(&long.name, O_CREAT | O_EXCL, 0o600, 1))
    },
);

const NO_DESCRIPTORS: Probe = probe(
    "sync.sem.open.emfile",
    "sem_open in a process without a free descriptor: EMFILE",
    "a server at its limit must report that, and not 'no such semaphore'",
    &[man("sem_open(3)", "EMFILE")],
    |cx| {
        let (name, _sem) = created(cx, 1)?;
        let missing = SemName::new(cx.fresh_name());
        let name = name.name.clone();
        let answers: (Said, Said) = cx.elsewhere(|_| {
            let (_, hard) = sys::getrlimit(libc::RLIMIT_NOFILE)?;
            sys::setrlimit(libc::RLIMIT_NOFILE, 0, hard)?;
            let open = done(open_sem(&name, 0, 0, 0).map(drop));
            Ok((open, done(open_sem(&missing.name, O_CREAT, 0o600, 1).map(drop))))
        })?;
        expect_said("sem_open", &answers.0, &Err(EMFILE))?;
        expect_said("sem_open with O_CREAT", &answers.1, &Err(EMFILE))?;
        cx.expect_eq("a file of the refused one", exists(&missing), false)
    },
);

const MODE_UMASK: Probe = probe(
    "sync.sem.open.mode-umask",
    "a new semaphore has the mode given less the umask, the caller as owner",
    "services set 0666 for their clients and forget the umask of systemd: EACCES for everybody else",
    &[man("sem_open(3)", "umask"), posix("sem_open")],
    |cx| {
        for (mask, wanted) in [(0o022, 0o644), (0o077, 0o600), (0, 0o666)] {
            let name = SemName::new(cx.fresh_name());
            let before = sys::umask(mask);
            let opened = open_sem(&name.name, O_CREAT | O_EXCL, 0o666, 1);
            sys::umask(before);
            cx.expect_ok(|| opened)?;
            let file = std::fs::metadata(name.path())?;
            cx.expect_eq("the mode", file.permissions().mode() & 0o777, wanted)?;
            cx.expect_eq("the owner", file.uid(), sys::geteuid())?;
        }
        Ok(())
    },
);

/// What another user's sem_open says of a semaphore of this mode.
fn as_other(cx: &mut Context, mode: u32) -> Result<Said, Stop> {
    let name = SemName::new(cx.fresh_name());
    let before = sys::umask(0);
    let opened = open_sem(&name.name, O_CREAT | O_EXCL, mode, 1);
    sys::umask(before);
    opened?;
    cx.as_user(65534, 65534, |_| {
        let opened = open_sem(&name.name, 0, 0, 0);
        Ok(done(opened.and_then(Sem::try_wait)))
    })
}

const OTHERS_EACCES: Probe = Probe {
    needs: OTHERS,
    ..probe(
        "sync.sem.open.other-user-eacces",
        "another user may not open a semaphore of mode 0600: EACCES",
        "a counter that anybody can lower stops the service",
        &[man("sem_open(3)", "EACCES")],
        |cx| expect_said("sem_open as user 65534", &as_other(cx, 0o600)?, &Err(EACCES)),
    )
};

const READ_ONLY_EACCES: Probe = Probe {
    needs: OTHERS,
    ..probe(
        "sync.sem.open.read-only-eacces",
        "read permission alone is not enough to open a semaphore: EACCES",
        "every operation writes; mode 0644 looks as if others could wait on it, and they cannot",
        &[man("sem_open(3)", "EACCES"), man("sem_open(3)", "mode")],
        |cx| expect_said("sem_open as user 65534", &as_other(cx, 0o644)?, &Err(EACCES)),
    )
};

const OTHERS_ALLOWED: Probe = Probe {
    needs: OTHERS,
    ..probe(
        "sync.sem.open.other-user",
        "with mode 0666 another user opens the semaphore and takes from it",
        "a root service and its clients meet here; in containers with user namespaces the numbers differ",
        &[man("sem_open(3)", "mode")],
        |cx| expect_said("sem_trywait as user 65534", &as_other(cx, 0o666)?, &Ok(0)),
    )
};

const SAME_ADDRESS: Probe = probe(
    "sync.sem.open.same-address",
    "opened twice in one process, a semaphore has one address",
    "libraries compare pointers; two mappings would count as two semaphores for them",
    &[posix("sem_open")],
    |cx| {
        let (name, sem) = created(cx, 1)?;
        let again = open_sem(&name.name, 0, 0, 0)?;
        cx.expect_eq("the address", again.address(), sem.address())?;
        let created_again = open_sem(&name.name, O_CREAT, 0o600, 5)?;
        cx.expect_eq("the address with O_CREAT", created_again.address(), sem.address())
    },
);

const CREATED_AT_ONCE: Probe = probe(
    "sync.sem.open.created-at-once",
    "processes that create one name at the same time get one semaphore",
    "whole services start together; glibc 2.38 failed at random here (its bug 30789)",
    &[posix("sem_open")],
    |cx| {
        const NAMES: usize = 12;
        let names: Vec<SemName> = (0..NAMES).map(|_| SemName::new(cx.fresh_name())).collect();
        let open_all = |cx: &Context| {
            for name in &names {
                let sem = cx.expect_ok(|| open_sem(&name.name, O_CREAT, 0o600, 0))?;
                cx.expect_ok(|| sem.post())?;
            }
            Ok(())
        };
        let peer = cx.fork(|cx| open_all(cx))?;
        open_all(cx)?;
        peer.join()?;
        for name in &names {
            cx.expect_eq("posts of the two processes", open_sem(&name.name, 0, 0, 0)?.value()?, 2)?;
        }
        Ok(())
    },
);

const ELSEWHERE: Probe = probe(
    "sync.sem.open.one-counter",
    "a process that opens the name wakes one that waits",
    "two unrelated programs know nothing of each other but the name",
    &[man("sem_overview(7)", "Named semaphores"), posix("sem_open")],
    |cx| {
        let (name, sem) = created(cx, 0)?;
        let limit = lost();
        let waiter = sleeper(cx, || done(sem.timed_wait(&limit)))?;
        cx.elsewhere(|_| {
            // Not the mapping that fork gave: that is closed, and the name opened anew.
            sem.close()?;
            Ok(open_sem(&name.name, 0, 0, 0)?.post()?)
        })?;
        expect_said("sem_timedwait", &waiter.join()?, &Ok(0))
    },
);

const FORK_INHERITS: Probe = probe(
    "sync.sem.open.fork-inherits",
    "a child of fork uses the semaphores that its parent opened",
    "worker pools open them once, before they fork",
    &[man("fork(2)", ""), posix("sem_open")],
    |cx| {
        let (_name, sem) = created(cx, 0)?;
        cx.elsewhere(|_| Ok(sem.post()?))?;
        cx.expect_ok(|| sem.try_wait())
    },
);

const PERSISTS: Probe = probe(
    "sync.sem.open.persists",
    "a named semaphore keeps its value when nobody has it open",
    "it lives until it is unlinked or the machine stops: a crash leaves it at zero, and the next start waits",
    &[man("sem_overview(7)", "Persistence")],
    |cx| {
        let name = SemName::new(cx.fresh_name());
        cx.elsewhere(|_| {
            let sem = open_sem(&name.name, O_CREAT | O_EXCL, 0o600, 7)?;
            sem.wait()?;
            Ok(sem.close()?)
        })?;
        cx.expect_eq("the value", open_sem(&name.name, 0, 0, 0)?.value()?, 6)
    },
);
