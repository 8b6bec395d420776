//! semget(2): finding a set by its key.

use libc::{EACCES, EEXIST, EINVAL, ENOENT};
use shmcheck_probe::sys::{self, IPC_CREAT, IPC_EXCL, IPC_PRIVATE};
use shmcheck_probe::{Context, Need, Outcome, Probe, SemSet, Sys, kernel, man, posix};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &PRIVATE_ALWAYS_NEW,
    &PRIVATE_IGNORES_FLAGS,
    &KEY_FINDS_SET,
    &KEYS_DIFFER,
    &CREAT_FINDS_EXISTING,
    &EXCL_ALONE_IGNORED,
    &EXCL_EEXIST,
    &NO_KEY_ENOENT,
    &FEWER_FOUND,
    &MORE_EINVAL,
    &LOOKUP_EACCES,
    &LOOKUP_WITHOUT_BITS,
    &KEY_IN_OTHER_PROCESS,
    &OUTLIVES_CREATOR,
    &RAW_CALL,
];

const PRIVATE_ALWAYS_NEW: Probe = Probe {
    title: "IPC_PRIVATE makes a new set at every call",
    why: "a server that keeps its locks in private sets would share them with a stranger",
    spec: &[man("semget(2)", "DESCRIPTION"), posix("semget")],
    calls: &[Sys::Semget, Sys::Semctl],
    ..Probe::new("sysv.sem.get.private-new", private_always_new)
};
fn private_always_new(cx: &mut Context) -> Outcome {
    let first = SemSet::get(IPC_PRIVATE, 1, IPC_CREAT | 0o600)?;
    let second = SemSet::get(IPC_PRIVATE, 1, IPC_CREAT | 0o600)?;
    cx.expect_ne("identifier", second.id, first.id)?;
    first.set(0, 7)?;
    cx.expect_eq("value in the second set", second.value(0)?, 0)
}

const PRIVATE_IGNORES_FLAGS: Probe = Probe {
    title: "IPC_PRIVATE creates even without IPC_CREAT",
    why: "old code passes only mode bits; it would stop with ENOENT at its first start",
    spec: &[man("semget(2)", "NOTES")],
    calls: &[Sys::Semget],
    ..Probe::new("sysv.sem.get.private-without-creat", private_ignores_flags)
};
fn private_ignores_flags(cx: &mut Context) -> Outcome {
    let set = cx.expect_ok(|| SemSet::get(IPC_PRIVATE, 2, IPC_EXCL | 0o640))?;
    cx.expect_eq("sem_nsems", set.stat()?.nsems, 2)
}

const KEY_FINDS_SET: Probe = Probe {
    title: "a key finds the set that was made with it",
    why: "client and server agree on a key and nothing else; each would wait on a set of its own",
    spec: &[man("semget(2)", "DESCRIPTION"), posix("semget")],
    calls: &[Sys::Semget],
    ..Probe::new("sysv.sem.get.key-finds", key_finds_set)
};
fn key_finds_set(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(1)?;
    let found = cx.expect_ok(|| sys::semget(set.key, 1, 0o600))?;
    cx.expect_eq("identifier", found, set.id)
}

const KEYS_DIFFER: Probe = Probe {
    title: "two keys name two sets",
    why: "two databases on one machine would release each other's locks",
    spec: &[man("semget(2)", "DESCRIPTION"), posix("semget")],
    calls: &[Sys::Semget],
    ..Probe::new("sysv.sem.get.keys-differ", keys_differ)
};
fn keys_differ(cx: &mut Context) -> Outcome {
    let (first, second) = (cx.sem_set(1)?, cx.sem_set(1)?);
    cx.expect_ne("identifier", second.id, first.id)?;
    for set in [&first, &second] {
        cx.expect_eq("identifier by key", sys::semget(set.key, 0, 0)?, set.id)?;
    }
    Ok(())
}

const CREAT_FINDS_EXISTING: Probe = Probe {
    title: "IPC_CREAT on a live key leaves the set as it is",
    why: "a worker that starts late would reset the lock that the others hold",
    spec: &[man("semget(2)", "DESCRIPTION"), posix("semget")],
    calls: &[Sys::Semget],
    ..Probe::new("sysv.sem.get.creat-finds", creat_finds_existing)
};
fn creat_finds_existing(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(2)?;
    set.set_all(&[3, 4])?;
    let before = set.stat()?;
    let found = cx.expect_ok(|| sys::semget(set.key, 1, IPC_CREAT | 0o600))?;
    cx.expect_eq("identifier", found, set.id)?;
    cx.expect_eq("values", set.values()?, vec![3, 4])?;
    cx.expect_eq("semid_ds", set.stat()?, before)
}

const EXCL_ALONE_IGNORED: Probe = Probe {
    title: "IPC_EXCL without IPC_CREAT finds a live set",
    why: "a client that passes the server's flags minus IPC_CREAT would never connect",
    spec: &[man("semget(2)", "DESCRIPTION"), kernel("ipc/util.c", "ipcget_public")],
    calls: &[Sys::Semget],
    ..Probe::new("sysv.sem.get.excl-alone", excl_alone_ignored)
};
fn excl_alone_ignored(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(1)?;
    let found = cx.expect_ok(|| sys::semget(set.key, 1, IPC_EXCL | 0o600))?;
    cx.expect_eq("identifier", found, set.id)
}

const EXCL_EEXIST: Probe = Probe {
    title: "IPC_CREAT|IPC_EXCL on a live key fails with EEXIST",
    why: "whoever creates also sets the first values; two creators would hand out one token twice",
    spec: &[man("semget(2)", "EEXIST"), posix("semget")],
    calls: &[Sys::Semget],
    ..Probe::new("sysv.sem.get.excl-eexist", excl_eexist)
};
fn excl_eexist(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(1)?;
    set.set(0, 5)?;
    cx.expect_errno(EEXIST, || sys::semget(set.key, 1, IPC_CREAT | IPC_EXCL | 0o600))?;
    cx.expect_eq("identifier by key", sys::semget(set.key, 0, 0)?, set.id)?;
    cx.expect_eq("value", set.value(0)?, 5)
}

const NO_KEY_ENOENT: Probe = Probe {
    title: "a key that nobody created is not found: ENOENT",
    why: "a client tells 'server not running' from 'server refuses me' by this errno",
    spec: &[man("semget(2)", "ENOENT"), posix("semget")],
    calls: &[Sys::Semget],
    ..Probe::new("sysv.sem.get.no-key-enoent", no_key_enoent)
};
fn no_key_enoent(cx: &mut Context) -> Outcome {
    let key = cx.fresh_key();
    cx.expect_errno(ENOENT, || sys::semget(key, 1, 0o600))?;
    cx.expect_errno(ENOENT, || sys::semget(key, 1, IPC_EXCL | 0o600))
}

const FEWER_FOUND: Probe = Probe {
    title: "a lookup may ask for fewer semaphores than the set has",
    why: "clients pass 0 because they do not know the server's count",
    spec: &[man("semget(2)", "DESCRIPTION"), posix("semget")],
    calls: &[Sys::Semget],
    ..Probe::new("sysv.sem.get.fewer-found", fewer_found)
};
fn fewer_found(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(4)?;
    for nsems in [0, 1, 4] {
        let found = cx.expect_ok(|| sys::semget(set.key, nsems, 0o600))?;
        cx.expect_eq("identifier", found, set.id)?;
    }
    cx.expect_eq("sem_nsems", set.stat()?.nsems, 4)
}

const MORE_EINVAL: Probe = Probe {
    title: "a lookup for more semaphores than the set has fails: EINVAL",
    why: "after an upgrade the new program must notice the old set, not index past its end",
    spec: &[man("semget(2)", "EINVAL"), posix("semget")],
    calls: &[Sys::Semget],
    ..Probe::new("sysv.sem.get.more-einval", more_einval)
};
fn more_einval(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(4)?;
    cx.expect_eq("identifier of all four", sys::semget(set.key, 4, 0o600)?, set.id)?;
    cx.expect_errno(EINVAL, || sys::semget(set.key, 5, 0o600))?;
    cx.expect_errno(EINVAL, || sys::semget(set.key, 5, IPC_CREAT | 0o600))?;
    cx.expect_eq("sem_nsems", set.stat()?.nsems, 4)
}

const LOOKUP_EACCES: Probe = Probe {
    title: "a lookup that asks for a refused permission fails: EACCES",
    why: "a stranger would learn only much later, inside its first semop, that it may not use the set",
    spec: &[man("semget(2)", "EACCES"), posix("semget")],
    calls: &[Sys::Semget],
    ..Probe::new("sysv.sem.get.lookup-eacces", lookup_eacces)
};
fn lookup_eacces(cx: &mut Context) -> Outcome {
    let set = cx.sem_set_mode(1, 0o400)?;
    cx.without_caps(&[caps::Capability::CAP_IPC_OWNER], |cx| {
        cx.expect_eq("lookup for reading", sys::semget(set.key, 1, 0o400)?, set.id)?;
        cx.expect_errno(EACCES, || sys::semget(set.key, 1, 0o600))?;
        cx.expect_errno(EACCES, || sys::semget(set.key, 1, 0o200))?;
        cx.expect_errno(EACCES, || sys::semget(set.key, 1, IPC_CREAT | 0o020))
    })
}

const LOOKUP_WITHOUT_BITS: Probe = Probe {
    title: "a lookup that asks for no permission finds any set",
    why: "ipcrm -S finds a set by its key with flags 0, whatever its mode is",
    spec: &[man("semget(2)", "DESCRIPTION"), kernel("ipc/util.c", "ipcperms")],
    calls: &[Sys::Semget],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.sem.get.lookup-no-bits", lookup_without_bits)
};
fn lookup_without_bits(cx: &mut Context) -> Outcome {
    let set = cx.sem_set_mode(1, 0)?;
    cx.as_user(65_534, 65_534, |cx| {
        let found = cx.expect_ok(|| sys::semget(set.key, 0, 0))?;
        cx.expect_eq("identifier", found, set.id)?;
        cx.expect_errno(EACCES, || sys::semget(set.key, 0, 0o004))
    })
}

const KEY_IN_OTHER_PROCESS: Probe = Probe {
    title: "another process works on the same set by the key",
    why: "semaphores exist to be shared; a postmaster and its children would never meet",
    spec: &[man("semget(2)", "DESCRIPTION"), man("sem_overview(7)", ""), posix("semget")],
    calls: &[Sys::Semget, Sys::Semop, Sys::Semctl],
    ..Probe::new("sysv.sem.get.other-process", key_in_other_process)
};
fn key_in_other_process(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(2)?;
    set.set(1, 5)?;
    let key = set.key;
    let seen = cx.elsewhere(move |_| {
        let id = sys::semget(key, 2, 0o600)?;
        let seen = sys::semctl(id, 1, sys::GETVAL)?;
        sys::semop(id, &[sys::SemOp::add(1, 3)])?;
        Ok(seen)
    })?;
    cx.expect_eq("value seen by the other process", seen, 5)?;
    cx.expect_eq("value after the other process's semop", set.value(1)?, 8)
}

const OUTLIVES_CREATOR: Probe = Probe {
    title: "a set outlives the process that created it",
    why: "a set-up script makes the sets and ends; the service starts after it",
    spec: &[man("sysvipc(7)", ""), man("semctl(2)", "IPC_RMID")],
    calls: &[Sys::Semget, Sys::Semctl],
    ..Probe::new("sysv.sem.get.outlives-creator", outlives_creator)
};
fn outlives_creator(cx: &mut Context) -> Outcome {
    let key = cx.fresh_key();
    let id = cx.elsewhere(move |_| {
        let set = SemSet::get(key, 1, IPC_CREAT | IPC_EXCL | 0o600)?;
        set.set(0, 9)?;
        Ok(set.disown())
    })?;
    let set = SemSet::adopt(id, key, 1);
    cx.expect_eq("identifier by key", cx.expect_ok(|| sys::semget(key, 1, 0))?, id)?;
    cx.expect_eq("value", set.value(0)?, 9)
}

const RAW_CALL: Probe = Probe {
    title: "the semget system call does what the C library's function does",
    why: "Go programs and static runtimes make the call themselves",
    spec: &[man("semget(2)", "DESCRIPTION"), kernel("ipc/sem.c", "ksys_semget")],
    calls: &[Sys::Semget],
    ..Probe::new("sysv.sem.get.raw", raw_call)
};
fn raw_call(cx: &mut Context) -> Outcome {
    let key = cx.fresh_key();
    cx.expect_errno(ENOENT, || sys::raw::semget(key, 3, 0o600))?;
    let id = cx.expect_ok(|| sys::raw::semget(key, 3, IPC_CREAT | IPC_EXCL | 0o640))?;
    let set = SemSet::adopt(id, key, 3);
    cx.expect_eq("identifier by the library", sys::semget(key, 3, 0o600)?, id)?;
    cx.expect_errno(EEXIST, || sys::raw::semget(key, 3, IPC_CREAT | IPC_EXCL | 0o640))?;
    let stat = set.stat()?;
    cx.expect_eq("sem_nsems", stat.nsems, 3)?;
    cx.expect_eq("sem_perm.mode", stat.mode, 0o640)
}
