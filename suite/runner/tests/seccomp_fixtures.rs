//! `fixtures/seccomp`: every profile is read, and says of its calls what its README promises.

use caps::Capability;
use shmcheck_probe::Sys;
use shmcheck_runner::seccomp::{Answer, Place, Profile};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

const ALLOW: Answer = Answer::Allow;
const EPERM: Answer = Answer::Errno(libc::EPERM);
const EACCES: Answer = Answer::Errno(libc::EACCES);
const ENOSYS: Answer = Answer::Errno(libc::ENOSYS);

/// Profile, call, capabilities of the container, answer.
const ANSWERS: &[(&str, Sys, &[Capability], Answer)] = &[
    ("no-sysv", Sys::Shmget, &[], EPERM),
    ("no-sysv", Sys::Semtimedop, &[], EPERM),
    ("no-sysv", Sys::Msgctl, &[], EPERM),
    ("no-sysv", Sys::MqOpen, &[], ALLOW),
    ("no-shmget-enosys", Sys::Shmget, &[], ENOSYS),
    ("no-shmget-enosys", Sys::Shmat, &[], ALLOW),
    ("no-posix-mq", Sys::MqOpen, &[], ENOSYS),
    ("no-posix-mq", Sys::MqTimedreceive, &[], ENOSYS),
    ("no-posix-mq", Sys::Msgget, &[], ALLOW),
    ("no-memfd", Sys::MemfdCreate, &[], EPERM),
    ("no-memfd", Sys::MemfdSecret, &[], EPERM),
    ("no-memfd", Sys::Shmget, &[], ALLOW),
    ("no-mempolicy", Sys::Mbind, &[], EPERM),
    ("no-mempolicy", Sys::MovePages, &[], EPERM),
    ("no-mempolicy", Sys::Mmap, &[], ALLOW),
    ("enosys-default", Sys::Shmget, &[], ALLOW),
    ("enosys-default", Sys::MemfdCreate, &[], ENOSYS),
    ("enosys-default", Sys::FutexWaitv, &[], ENOSYS),
    ("enosys-default", Sys::Ptrace, &[], ALLOW),
    ("enosys-default", Sys::Mbind, &[], ENOSYS),
    ("enosys-default", Sys::Mbind, &[Capability::CAP_SYS_NICE], ALLOW),
    ("enosys-default", Sys::Unshare, &[], ENOSYS),
    ("enosys-default", Sys::Unshare, &[Capability::CAP_SYS_ADMIN], ALLOW),
    ("enosys-default", Sys::PidfdGetfd, &[Capability::CAP_SYS_PTRACE], ALLOW),
    ("kill-process", Sys::Shmat, &[], Answer::Kill),
    ("kill-process", Sys::Shmget, &[], ALLOW),
    ("arg-filter", Sys::Shmget, &[], Answer::Depends),
    ("arg-filter", Sys::Shmat, &[], ALLOW),
    ("shm-eacces", Sys::Shmctl, &[], EACCES),
    ("shm-eacces", Sys::Shmget, &[], ALLOW),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/seccomp")
}

/// Every profile of the folder by its name without `.json`.
fn profiles() -> BTreeMap<String, Profile> {
    let files = std::fs::read_dir(folder()).expect("the folder of the fixtures");
    files
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "json"))
        .map(|path| {
            let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
            (name, Profile::read(&path).expect("a profile that can be read"))
        })
        .collect()
}

#[test]
fn profiles_answer_as_promised() {
    let profiles = profiles();
    for &(name, call, caps, wanted) in ANSWERS {
        let place = Place { caps: caps.iter().copied().collect(), kernel: (6, 1) };
        let found = profiles[name].answer(call, &place);
        assert_eq!(found, wanted, "{name} on {} with {caps:?}", call.name());
    }
}

#[test]
fn an_old_kernel_gets_no_ptrace() {
    let place = Place { caps: HashSet::new(), kernel: (4, 7) };
    assert_eq!(profiles()["enosys-default"].answer(Sys::Ptrace, &place), ENOSYS);
}

#[test]
fn every_profile_is_described_and_tested() {
    let readme = std::fs::read_to_string(folder().join("README.md")).expect("the README of the fixtures");
    for name in profiles().keys() {
        assert!(readme.contains(&format!("`{name}.json`")), "README.md says nothing of {name}.json");
        assert!(ANSWERS.iter().any(|(tested, ..)| tested == name), "no answer of {name}.json is tested");
    }
}
