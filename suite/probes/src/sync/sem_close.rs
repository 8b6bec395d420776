//! sem_close(3) and sem_unlink(3): the end of a mapping, and the end of a name.

use super::sem_open::{LONGEST, OTHERS, created, exists, long_name, probe};
use super::tools::{Said, done, expect_said, lost, sleeper};
use libc::{EACCES, EINVAL, ENAMETOOLONG, ENOENT, O_CREAT, O_EXCL};
use shmcheck_probe::sys::again::{Again, exec_again, keep_on_exec};
use shmcheck_probe::sys::sync::{Sem, open_sem, unlink_sem};
use shmcheck_probe::{Probe, Stop, man, posix, procfs, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &CLOSE_UNMAPS,
    &CLOSE_COUNTS,
    &CLOSE_EINVAL,
    &CLOSE_OTHERS,
    &EXEC_CLOSES,
    &UNLINK_NAME,
    &UNLINK_OPEN,
    &UNLINK_NEW,
    &UNLINK_ENOENT,
    &UNLINK_LONG,
    &UNLINK_EACCES,
];

fn mapped(sem: Sem) -> Result<bool, Stop> {
    Ok(procfs::mapping_at(sem.address())?.is_some())
}

const CLOSE_UNMAPS: Probe = probe(
    "sync.sem.close.unmaps",
    "sem_close takes the semaphore out of the process's memory",
    "a daemon that opens one per client would run out of mappings",
    &[man("sem_close(3)", "")],
    |cx| {
        let (_name, sem) = created(cx, 1)?;
        cx.expect_eq("mapped before", mapped(sem)?, true)?;
        cx.expect_ok(|| sem.close())?;
        cx.expect_eq("mapped after", mapped(sem)?, false)
    },
);

const CLOSE_COUNTS: Probe = probe(
    "sync.sem.close.counts-opens",
    "opened twice, it needs two closes",
    "two libraries of one program open the same name; one's clean-up must not break the other",
    &[posix("sem_open"), posix("sem_close")],
    |cx| {
        let (name, sem) = created(cx, 1)?;
        let again = open_sem(&name.name, 0, 0, 0)?;
        cx.expect_ok(|| again.close())?;
        cx.expect_ok(|| sem.post())?;
        cx.expect_eq("the value", sem.value()?, 2)?;
        cx.expect_ok(|| sem.close())?;
        cx.expect_eq("mapped after the second close", mapped(sem)?, false)
    },
);

const CLOSE_EINVAL: Probe = probe(
    "sync.sem.close.einval",
    "sem_close of what is not open: EINVAL",
    "closing twice must be an error, not the end of somebody else's mapping",
    &[man("sem_close(3)", "EINVAL")],
    |cx| {
        let (_name, sem) = created(cx, 1)?;
        cx.expect_ok(|| sem.close())?;
        cx.expect_errno(EINVAL, || sem.close())?;
        let map = shmcheck_probe::Map::shared_anonymous(sys::page_size())?;
        Sem::at(&map, 0).init(true, 1)?;
        cx.expect_errno(EINVAL, || Sem::at(&map, 0).close())
    },
);

const CLOSE_OTHERS: Probe = probe(
    "sync.sem.close.others-keep",
    "a close in one process leaves the semaphore to the others",
    "the first client that ends must not end the rest",
    &[man("sem_close(3)", "")],
    |cx| {
        let (_name, sem) = created(cx, 1)?;
        cx.elsewhere(|_| Ok(sem.close()?))?;
        cx.expect_ok(|| sem.post())?;
        cx.expect_eq("the value", sem.value()?, 2)
    },
);

const EXEC_CLOSES: Probe = probe(
    "sync.sem.close.exec",
    "execve closes named semaphores; they themselves stay",
    "a supervisor that execs a program must not hand it mappings that it knows nothing of",
    &[man("sem_close(3)", "execve"), posix("sem_close")],
    |cx| {
        let (name, sem) = created(cx, 5)?;
        let (arrived, writing) = sys::pipe()?;
        let peer = cx.fork(|_| {
            sem.wait()?;
            keep_on_exec(writing.as_raw_fd())?;
            Err::<(), _>(exec_again(Again::Stay(writing.as_raw_fd())).into())
        })?;
        drop(writing);
        std::io::Read::read_exact(&mut std::fs::File::from(arrived), &mut [0])?;
        let maps = procfs::maps(&peer.pid().to_string())?;
        let kept = maps.iter().any(|mapping| mapping.name == name.path());
        cx.expect_eq("mapped in the new program", kept, false)?;
        cx.expect_eq("the value", sem.value()?, 4)?;
        peer.kill().map(drop)
    },
);

const UNLINK_NAME: Probe = probe(
    "sync.sem.unlink.name-gone",
    "sem_unlink takes the name away at once",
    "a clean start begins with it; what is left makes the next start wait on a dead counter",
    &[man("sem_unlink(3)", "")],
    |cx| {
        let (name, _sem) = created(cx, 1)?;
        cx.expect_ok(|| unlink_sem(&name.name))?;
        cx.expect_eq("its file", exists(&name), false)?;
        cx.expect_errno(ENOENT, || open_sem(&name.name, 0, 0, 0))
    },
);

const UNLINK_OPEN: Probe = probe(
    "sync.sem.unlink.open-works-on",
    "processes that have an unlinked semaphore open go on using it",
    "the careful unlink as soon as all have opened it, so that a crash leaves nothing",
    &[man("sem_unlink(3)", "")],
    |cx| {
        let (name, sem) = created(cx, 0)?;
        let limit = lost();
        let waiter = sleeper(cx, || done(sem.timed_wait(&limit)))?;
        cx.expect_ok(|| unlink_sem(&name.name))?;
        cx.expect_ok(|| sem.post())?;
        expect_said("sem_timedwait", &waiter.join()?, &Ok(0))
    },
);

const UNLINK_NEW: Probe = probe(
    "sync.sem.unlink.new-one",
    "the name made anew after an unlink is another semaphore",
    "a service restarted while its clients live on: both sides wait, each on its own",
    &[posix("sem_unlink")],
    |cx| {
        let (name, old) = created(cx, 1)?;
        cx.expect_ok(|| unlink_sem(&name.name))?;
        let new = cx.expect_ok(|| open_sem(&name.name, O_CREAT | O_EXCL, 0o600, 5))?;
        cx.expect_ne("the address", new.address(), old.address())?;
        cx.expect_ok(|| old.post())?;
        cx.expect_eq("the values", (old.value()?, new.value()?), (2, 5))
    },
);

const UNLINK_ENOENT: Probe = probe(
    "sync.sem.unlink.enoent",
    "sem_unlink of a name that is not there: ENOENT",
    "stop scripts tell 'was not running' from 'could not be removed' by it",
    &[man("sem_unlink(3)", "ENOENT")],
    |cx| {
        let (name, _sem) = created(cx, 1)?;
        cx.expect_ok(|| unlink_sem(&name.name))?;
        cx.expect_errno(ENOENT, || unlink_sem(&name.name))
    },
);

const UNLINK_LONG: Probe = probe(
    "sync.sem.unlink.enametoolong",
    "sem_unlink of a name of 252 characters: ENAMETOOLONG",
    "the limit is the same as for sem_open, else what was made could not be removed",
    &[man("sem_unlink(3)", "ENAMETOOLONG")],
    |cx| {
        let fits = long_name(cx, LONGEST);
        cx.expect_errno(ENOENT, || unlink_sem(&fits.name))?;
        let long = long_name(cx, LONGEST + 1);
        cx.expect_errno(ENAMETOOLONG, || unlink_sem(&long.name))
    },
);

const UNLINK_EACCES: Probe = Probe {
    needs: OTHERS,
    varies: "it is the sticky bit of /dev/shm that forbids it: with mode 0777 anybody can remove anything",
    ..probe(
        "sync.sem.unlink.other-user-eacces",
        "another user's semaphore cannot be unlinked: EACCES",
        "any user could take the lock of a service away and put another in its place",
        &[man("sem_unlink(3)", "EACCES")],
        |cx| {
            let (name, _sem) = created(cx, 1)?;
            let answer: Said = cx.as_user(65534, 65534, |_| Ok(done(unlink_sem(&name.name))))?;
            expect_said("sem_unlink as user 65534", &answer, &Err(EACCES))?;
            cx.expect_eq("its file", exists(&name), true)
        },
    )
};
