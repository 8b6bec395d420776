//! The engines' own default profiles: read as each engine reads them, they answer as the book's table says.

use caps::{Capability, CapsHashSet};
use shmcheck_probe::Sys;
use shmcheck_runner::seccomp::{
    Answer, Dialect, Known, Newer, Place, Profile, podman_default_file, stored_docker_default,
};

const ALLOW: Answer = Answer::Allow;
const EPERM: Answer = Answer::Errno(libc::EPERM);
const ENOSYS: Answer = Answer::Errno(libc::ENOSYS);

const NICE: &[Capability] = &[Capability::CAP_SYS_NICE];
const PTRACE: &[Capability] = &[Capability::CAP_SYS_PTRACE];

/// Call, capabilities beyond none, and the answers of Docker 20.10 and 26.1 under runc.
const DOCKER: &[(Sys, &[Capability], Answer, Answer)] = &[
    (Sys::Mbind, &[], EPERM, EPERM),
    (Sys::Mbind, NICE, ALLOW, ALLOW),
    (Sys::GetMempolicy, NICE, ALLOW, ALLOW),
    (Sys::SetMempolicy, &[], EPERM, EPERM),
    // Newer than the profile of 20.10, and known to that of 26.1.
    (Sys::SetMempolicyHomeNode, &[], ENOSYS, EPERM),
    (Sys::SetMempolicyHomeNode, NICE, ENOSYS, ALLOW),
    (Sys::MovePages, &[], EPERM, EPERM),
    (Sys::MovePages, NICE, EPERM, EPERM),
    (Sys::MigratePages, &[], EPERM, EPERM),
    (Sys::PidfdGetfd, &[], EPERM, EPERM),
    (Sys::PidfdGetfd, PTRACE, ALLOW, ALLOW),
    // moby#42083
    (Sys::ProcessVmReadv, &[], EPERM, ALLOW),
    (Sys::ProcessVmWritev, PTRACE, ALLOW, ALLOW),
    (Sys::Ptrace, &[], ALLOW, ALLOW),
    (Sys::Kcmp, &[], EPERM, EPERM),
    (Sys::Kcmp, PTRACE, ALLOW, ALLOW),
    (Sys::FutexWaitv, &[], ALLOW, ALLOW),
    (Sys::Userfaultfd, &[], EPERM, EPERM),
    (Sys::Mseal, &[], ENOSYS, ENOSYS),
    (Sys::Unshare, &[], EPERM, EPERM),
    (Sys::Unshare, &[Capability::CAP_SYS_ADMIN], ALLOW, ALLOW),
];

/// Calls that every default profile allows without a capability.
const EVERYWHERE: &[Sys] = &[
    Sys::Shmget,
    Sys::Shmat,
    Sys::Shmdt,
    Sys::Shmctl,
    Sys::Semget,
    Sys::Semop,
    Sys::Semtimedop,
    Sys::Semctl,
    Sys::Msgget,
    Sys::Msgsnd,
    Sys::Msgrcv,
    Sys::Msgctl,
    Sys::MqOpen,
    Sys::MqUnlink,
    Sys::MqTimedsend,
    Sys::MqTimedreceive,
    Sys::MqNotify,
    Sys::MqGetsetattr,
    Sys::Mmap,
    Sys::Mremap,
    Sys::Madvise,
    Sys::Mlock,
    Sys::Mlock2,
    Sys::MemfdCreate,
    Sys::MemfdSecret,
    Sys::Futex,
];

fn known(profile: &Profile, dialect: Dialect, caps: &[Capability], newer: Newer) -> Known {
    let place = Place { caps: caps.iter().copied().collect(), kernel: (6, 1) };
    Known { profile: profile.handed(dialect, &place), place, whose: String::new(), newer }
}

fn docker(version: &str) -> Profile {
    stored_docker_default(version).unwrap_or_else(|| panic!("the profile of docker {version} is stored"))
}

#[test]
fn docker_answers_as_the_table_says() {
    for version in ["20.10.24+dfsg1", "26.1.5"] {
        let (profile, dialect) = (docker(version), Dialect::docker(version));
        for (call, caps, old, new) in DOCKER {
            let wanted = if version.starts_with("20.") { *old } else { *new };
            let found = known(&profile, dialect, caps, Newer::Enosys).answer(*call);
            assert_eq!(found, Some(wanted), "docker {version} on {} with {caps:?}", call.name());
        }
        for call in EVERYWHERE {
            let found = known(&profile, dialect, &[], Newer::Enosys).answer(*call);
            assert_eq!(found, Some(ALLOW), "docker {version} on {}", call.name());
        }
    }
}

#[test]
fn calls_newer_than_the_profile_are_up_to_the_runtime() {
    let (profile, dialect) = (docker("20.10.1"), Dialect::docker("20.10.1"));
    let answer = |newer| known(&profile, dialect, &[], newer).answer(Sys::Mseal);
    assert_eq!(answer(Newer::of_runtime("/usr/bin/runc")), Some(ENOSYS));
    assert_eq!(answer(Newer::of_runtime("crun")), Some(EPERM));
    assert_eq!(answer(Newer::of_runtime("youki")), None);
}

#[test]
fn an_unknown_version_has_no_stored_profile() {
    assert!(stored_docker_default("99.0.1").is_none());
    assert!(stored_docker_default("").is_none());
}

/// The default of a profile, an errno by its name, and a condition on the kernel, as each engine reads them.
#[test]
fn engines_read_one_profile_differently() {
    let text = br#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "defaultErrno": "EBUSY",
        "syscalls": [
            {"names": ["shmget"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13, "errno": "EPERM"},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}}
        ]
    }"#;
    let profile = Profile::parse(text, "test").expect("it is a profile");
    let answer = |dialect, call| known(&profile, dialect, &[], Newer::AsDefault).answer(call).expect("it is known");
    for (dialect, default, shmget, ptrace) in [
        (Dialect::docker("20.10.24"), EPERM, Answer::Errno(libc::EACCES), EPERM),
        (Dialect::docker("26.1.5"), ENOSYS, Answer::Errno(libc::EACCES), ENOSYS),
        (Dialect::PODMAN, Answer::Errno(libc::EBUSY), EPERM, ALLOW),
    ] {
        assert_eq!(answer(dialect, Sys::Mbind), default, "{dialect:?}");
        assert_eq!(answer(dialect, Sys::Shmget), shmget, "{dialect:?}");
        assert_eq!(answer(dialect, Sys::Ptrace), ptrace, "{dialect:?}");
    }
}

/// Podman's profile is a file of its package; where that is not installed there is nothing to test.
#[test]
fn podman_allows_what_the_table_says() {
    let Some(file) = podman_default_file(None) else { return };
    let profile = Profile::read(&file).expect("the engine's own profile can be read");
    let caps = CapsHashSet::new();
    let place = Place { caps, kernel: (6, 1) };
    let answer = |call| profile.handed(Dialect::PODMAN, &place).answer(call, &place);
    for call in EVERYWHERE {
        assert_eq!(answer(*call), ALLOW, "{} in {}", call.name(), file.display());
    }
    for call in [Sys::Mbind, Sys::GetMempolicy, Sys::PidfdGetfd, Sys::ProcessVmReadv, Sys::Ptrace] {
        assert_eq!(answer(call), ALLOW, "{} in {}", call.name(), file.display());
    }
    for call in [Sys::MovePages, Sys::MigratePages, Sys::Kcmp, Sys::Userfaultfd] {
        assert_eq!(answer(call), EPERM, "{} in {}", call.name(), file.display());
    }
    // Not in any of its lists: its default, ENOSYS.
    assert_eq!(answer(Sys::Mseal), ENOSYS, "{}", file.display());
}

#[test]
fn what_is_handed_is_read_from_a_bundle() {
    let bundle = br#"{"ociVersion": "1.0.2", "linux": {"seccomp": {
        "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["shmget"], "action": "SCMP_ACT_ALLOW"}]
    }}}"#;
    let profile = Profile::of_bundle(bundle).expect("it is a bundle").expect("it has a filter");
    let place = Place { caps: CapsHashSet::new(), kernel: (6, 1) };
    assert_eq!(profile.answer(Sys::Shmget, &place), ALLOW);
    assert_eq!(profile.answer(Sys::Shmat, &place), EPERM);
    let none = Profile::of_bundle(br#"{"linux": {}}"#).expect("it is a bundle");
    assert!(none.is_none());
}

/// A user's own configuration comes last, its parts in the order of their names.
#[test]
fn podman_takes_the_profile_that_its_configuration_names() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = home.path().join(".config/containers");
    std::fs::create_dir_all(folder.join("containers.conf.d")).expect("it can be made");
    let write = |file: &str, text: &str| std::fs::write(folder.join(file), text).expect("it can be written");
    write("containers.conf", "[containers]\nseccomp_profile = \"/first.json\"\n");
    assert_eq!(podman_default_file(Some(home.path())), Some("/first.json".into()));
    write("containers.conf.d/20-later.conf", "[containers]\nseccomp_profile = \"/later.json\"\n");
    write("containers.conf.d/10-other.conf", "[containers]\nseccomp_profile = \"/other.json\"\n");
    write("containers.conf.d/99-note.txt", "[containers]\nseccomp_profile = \"/note.json\"\n");
    assert_eq!(podman_default_file(Some(home.path())), Some("/later.json".into()));
    write("containers.conf.d/30-broken.conf", "[containers\n");
    assert_eq!(podman_default_file(Some(home.path())), Some("/later.json".into()));
}
