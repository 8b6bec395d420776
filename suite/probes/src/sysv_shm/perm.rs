//! Who may what: owner, creator, groups and others against every combination of their three bits.
//!
//! Each probe makes eight segments whose bits for one class are 0 to 7, while the two other classes have exactly the
//! opposite bits: a kernel that looks at the wrong class, or at the best of all, gives a different row of answers.

use super::parts::{OTHER, STRANGER, index_of, plainly, said, segment};
use caps::Capability;
use shmcheck_probe::sys::{self, SHM_EXEC, SHM_RDONLY, SHM_STAT, SHM_STAT_ANY};
use shmcheck_probe::{Clause, Context, Need, Outcome, Probe, Segment, Stop, Sys, kernel, man, posix};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &OWNER_GET,
    &OWNER_ATTACH,
    &OWNER_STAT,
    &CREATOR_GET,
    &CREATOR_ATTACH,
    &CREATOR_STAT,
    &GROUP_GET,
    &GROUP_ATTACH,
    &GROUP_STAT,
    &CREATOR_GROUP_GET,
    &CREATOR_GROUP_ATTACH,
    &CREATOR_GROUP_STAT,
    &SUPPLEMENTARY_GET,
    &SUPPLEMENTARY_ATTACH,
    &SUPPLEMENTARY_STAT,
    &OTHERS_GET,
    &OTHERS_ATTACH,
    &OTHERS_STAT,
    &CAPABLE_GET,
    &CAPABLE_ATTACH,
    &CAPABLE_STAT,
];

/// Whose bits of the mode decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// This process made the segment and owns it.
    Owner,
    /// It made the segment and gave it to another user.
    Creator,
    /// Another user's process in the group that IPC_SET gave the segment.
    Group,
    /// Another user's process in the group the segment was made in.
    CreatorGroup,
    /// Another user's process that has the segment's group as a supplementary one.
    Supplementary,
    /// Another user's process in another group.
    Others,
}

impl Class {
    fn shift(self) -> u32 {
        match self {
            Self::Owner | Self::Creator => 6,
            Self::Group | Self::CreatorGroup | Self::Supplementary => 3,
            Self::Others => 0,
        }
    }

    /// The mode in which this class has `bits` and the two others have what it has not.
    fn mode(self, bits: u32) -> u32 {
        [0, 3, 6]
            .into_iter()
            .map(|shift| if shift == self.shift() { bits << shift } else { (!bits & 7) << shift })
            .sum()
    }
}

/// What is asked of a segment: the answer for one question, and the bits it needs.
type Question = (&'static str, u32, fn(&Segment) -> sys::Result<()>);

const GET: &[Question] = &[
    ("shmget(0)", 0, |s| sys::shmget(s.key, 0, 0).map(drop)),
    ("shmget(0444)", 4, |s| sys::shmget(s.key, 0, 0o444).map(drop)),
    ("shmget(0222)", 2, |s| sys::shmget(s.key, 0, 0o222).map(drop)),
    ("shmget(0666)", 6, |s| sys::shmget(s.key, 0, 0o666).map(drop)),
    ("shmget(IPC_CREAT|0600)", 6, |s| sys::shmget(s.key, 0, libc::IPC_CREAT | 0o600).map(drop)),
];

const ATTACH: &[Question] = &[
    ("shmat(SHM_RDONLY)", 4, |s| sys::shmat(s.id, SHM_RDONLY).and_then(sys::shmdt)),
    ("shmat(0)", 6, |s| sys::shmat(s.id, 0).and_then(sys::shmdt)),
    ("shmat(SHM_RDONLY|SHM_EXEC)", 5, |s| sys::shmat(s.id, SHM_RDONLY | SHM_EXEC).and_then(sys::shmdt)),
    ("shmat(SHM_EXEC)", 7, |s| sys::shmat(s.id, SHM_EXEC).and_then(sys::shmdt)),
];

const STAT: &[Question] = &[
    ("IPC_STAT", 4, |s| sys::shm_stat(s.id).map(drop)),
    ("SHM_STAT", 4, |s| stat_by_index(s.id, SHM_STAT)),
    ("SHM_STAT_ANY", 0, |s| stat_by_index(s.id, SHM_STAT_ANY)),
];

/// The description of a segment by its index.
fn stat_by_index(id: i32, command: i32) -> sys::Result<()> {
    sys::shm_stat_by(index_of(id).unwrap_or(-1), command).map(drop)
}

/// Asks all questions about one segment per combination of bits, as a member of the class.
fn ask(cx: &mut Context, class: Class, questions: &[Question]) -> Result<Vec<Vec<String>>, Stop> {
    let mut made = Vec::new();
    for bits in 0..8 {
        let segment = segment(cx, 1, 0o600)?;
        let (uid, gid) = match class {
            Class::Creator => (STRANGER, OTHER),
            Class::Group | Class::Supplementary | Class::CreatorGroup => (sys::geteuid(), OTHER),
            Class::Owner | Class::Others => (sys::geteuid(), sys::getegid()),
        };
        sys::shm_set(segment.id, uid, gid, class.mode(bits))?;
        made.push(segment);
    }
    let answers =
        |_: &mut Context| Ok(made.iter().map(|s| questions.iter().map(|(_, _, put)| said(put(s))).collect()).collect());
    match class {
        Class::Owner | Class::Creator => plainly(cx, answers),
        Class::Group => cx.as_user(STRANGER, OTHER, answers),
        Class::CreatorGroup => cx.as_user(STRANGER, sys::getegid(), answers),
        Class::Supplementary => cx.as_member(STRANGER, STRANGER, &[OTHER], answers),
        Class::Others => cx.as_user(STRANGER, STRANGER, answers),
    }
}

/// Fails unless each question is granted exactly where the class has the bits it needs.
fn decides(cx: &mut Context, class: Class, questions: &[Question]) -> Outcome {
    let answers = ask(cx, class, questions)?;
    for (bits, row) in answers.into_iter().enumerate() {
        for ((what, needed, _), got) in questions.iter().zip(row) {
            let wanted = if bits as u32 & needed == *needed { "success" } else { "EACCES" };
            cx.expect_eq(&format!("{what} with mode {:04o}", class.mode(bits as u32)), got.as_str(), wanted)?;
        }
    }
    Ok(())
}

/// Fails unless CAP_IPC_OWNER grants every question on a segment whose mode grants nothing.
fn overrides(cx: &mut Context, questions: &[Question]) -> Outcome {
    let closed = segment(cx, 1, 0)?;
    for (what, needed, put) in questions {
        let without = plainly(cx, |_| Ok(said(put(&closed))))?;
        let refused = if *needed == 0 { "success" } else { "EACCES" };
        cx.expect_eq(&format!("{what} without the capability"), without.as_str(), refused)?;
        cx.expect_eq(&format!("{what} with the capability"), said(put(&closed)).as_str(), "success")?;
    }
    Ok(())
}

const GET_SPEC: &[Clause] = &[man("shmget(2)", "EACCES"), posix("shmget"), kernel("ipc/util.c", "ipcperms")];
const ATTACH_SPEC: &[Clause] = &[man("shmop(2)", "EACCES"), posix("shmat"), kernel("ipc/util.c", "ipcperms")];
const STAT_SPEC: &[Clause] = &[man("shmctl(2)", "EACCES"), posix("shmctl"), kernel("ipc/util.c", "ipcperms")];

const OWNER_GET: Probe = Probe {
    title: "shmget asks the owner's bits, and only those, of the owner",
    why: "a service finds its own segment by the bits it set for itself; group and others must not stand in for them",
    spec: GET_SPEC,
    calls: &[Sys::Shmget],
    ..Probe::new("sysv.shm.perm.owner-get", |cx| decides(cx, Class::Owner, GET))
};
const OWNER_ATTACH: Probe = Probe {
    title: "shmat asks the owner's bits, and only those, of the owner",
    why: "a program that made its segment read-only for itself is protected from its own stray stores",
    spec: ATTACH_SPEC,
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.perm.owner-attach", |cx| decides(cx, Class::Owner, ATTACH))
};
const OWNER_STAT: Probe = Probe {
    title: "IPC_STAT asks the owner's read bit of the owner",
    why: "the check of 'may I read?' is one for memory and description; they must agree",
    spec: STAT_SPEC,
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.perm.owner-stat", |cx| decides(cx, Class::Owner, STAT))
};
const CREATOR_GET: Probe = Probe {
    title: "shmget asks the owner's bits of the creator too",
    why: "a launcher that gave the segment to the service's user finds it by key like that user",
    spec: GET_SPEC,
    calls: &[Sys::Shmget],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.perm.creator-get", |cx| decides(cx, Class::Creator, GET))
};
const CREATOR_ATTACH: Probe = Probe {
    title: "shmat asks the owner's bits of the creator too",
    why: "a launcher that gave the segment away can still write its start-up parameters into it",
    spec: ATTACH_SPEC,
    calls: &[Sys::Shmat],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.perm.creator-attach", |cx| decides(cx, Class::Creator, ATTACH))
};
const CREATOR_STAT: Probe = Probe {
    title: "IPC_STAT asks the owner's read bit of the creator too",
    why: "the launcher watches nattch of the segment it gave away",
    spec: STAT_SPEC,
    calls: &[Sys::Shmctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.perm.creator-stat", |cx| decides(cx, Class::Creator, STAT))
};
const GROUP_GET: Probe = Probe {
    title: "shmget asks the group's bits of a member of the segment's group",
    why: "Oracle's dba group: members find the instance's segment, and nobody finds it through 'others'",
    spec: GET_SPEC,
    calls: &[Sys::Shmget],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.perm.group-get", |cx| decides(cx, Class::Group, GET))
};
const GROUP_ATTACH: Probe = Probe {
    title: "shmat asks the group's bits of a member of the segment's group",
    why: "a group of workers shares by mode 0660; a member with fewer bits than others must get the fewer",
    spec: ATTACH_SPEC,
    calls: &[Sys::Shmat],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.perm.group-attach", |cx| decides(cx, Class::Group, ATTACH))
};
const GROUP_STAT: Probe = Probe {
    title: "IPC_STAT asks the group's read bit of a member of the group",
    why: "monitoring runs in the service's group with mode 0640",
    spec: STAT_SPEC,
    calls: &[Sys::Shmctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.perm.group-stat", |cx| decides(cx, Class::Group, STAT))
};
const CREATOR_GROUP_GET: Probe = Probe {
    title: "shmget asks the group's bits of the creator's group too",
    why: "after a change of the segment's group the old group still counts; who forgets it opens more than he thinks",
    spec: GET_SPEC,
    calls: &[Sys::Shmget],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.perm.creator-group-get", |cx| decides(cx, Class::CreatorGroup, GET))
};
const CREATOR_GROUP_ATTACH: Probe = Probe {
    title: "shmat asks the group's bits of the creator's group too",
    why: "colleagues of the creator keep their access when the segment is handed to another group",
    spec: ATTACH_SPEC,
    calls: &[Sys::Shmat],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.perm.creator-group-attach", |cx| decides(cx, Class::CreatorGroup, ATTACH))
};
const CREATOR_GROUP_STAT: Probe = Probe {
    title: "IPC_STAT asks the group's read bit of the creator's group too",
    why: "cgid is more than a record of who made it: it decides",
    spec: STAT_SPEC,
    calls: &[Sys::Shmctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.perm.creator-group-stat", |cx| decides(cx, Class::CreatorGroup, STAT))
};
const SUPPLEMENTARY_GET: Probe = Probe {
    title: "a supplementary group counts for shmget like the effective one",
    why: "adding a user to a group is how access is granted; without this a new login would change nothing",
    spec: GET_SPEC,
    calls: &[Sys::Shmget],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.perm.supplementary-get", |cx| decides(cx, Class::Supplementary, GET))
};
const SUPPLEMENTARY_ATTACH: Probe = Probe {
    title: "a supplementary group counts for shmat like the effective one",
    why: "in a pod, supplementalGroups is how two containers with different users share a segment",
    fix: "docker run --group-add GID (Kubernetes: securityContext.supplementalGroups)",
    spec: ATTACH_SPEC,
    calls: &[Sys::Shmat],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.perm.supplementary-attach", |cx| decides(cx, Class::Supplementary, ATTACH))
};
const SUPPLEMENTARY_STAT: Probe = Probe {
    title: "a supplementary group counts for IPC_STAT like the effective one",
    why: "a monitor is added to the groups of all services it watches",
    spec: STAT_SPEC,
    calls: &[Sys::Shmctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.perm.supplementary-stat", |cx| decides(cx, Class::Supplementary, STAT))
};
const OTHERS_GET: Probe = Probe {
    title: "shmget asks the bits for others of everybody else",
    why: "a database with mode 0600 is not even found by another user's program",
    spec: GET_SPEC,
    calls: &[Sys::Shmget],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.perm.others-get", |cx| decides(cx, Class::Others, GET))
};
const OTHERS_ATTACH: Probe = Probe {
    title: "shmat asks the bits for others of everybody else",
    why: "X servers refuse with BadAccess when client and server are different users (osrf/docker_images#21)",
    fix: "run both as one user, or create the segment with mode 0666",
    spec: ATTACH_SPEC,
    calls: &[Sys::Shmat],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.perm.others-attach", |cx| decides(cx, Class::Others, ATTACH))
};
const OTHERS_STAT: Probe = Probe {
    title: "IPC_STAT asks the read bit for others of everybody else",
    why: "who may not read the memory may not read its description by identifier either",
    spec: STAT_SPEC,
    calls: &[Sys::Shmctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.perm.others-stat", |cx| decides(cx, Class::Others, STAT))
};
const CAPABLE_GET: Probe = Probe {
    title: "CAP_IPC_OWNER finds a segment whatever its mode",
    why: "a privileged agent inspects segments of mode 0000",
    varies: "root of a default container does not have the capability",
    spec: &[man("capabilities(7)", "CAP_IPC_OWNER"), man("shmget(2)", "EACCES")],
    calls: &[Sys::Shmget],
    needs: &[Need::Cap(Capability::CAP_IPC_OWNER)],
    ..Probe::new("sysv.shm.perm.cap-get", |cx| overrides(cx, GET))
};
const CAPABLE_ATTACH: Probe = Probe {
    title: "CAP_IPC_OWNER attaches a segment whatever its mode",
    why: "CRIU saves the memory of every user's segments; without this a checkpoint lacks data",
    varies: "root of a default container does not have the capability",
    spec: &[man("capabilities(7)", "CAP_IPC_OWNER"), man("shmop(2)", "EACCES")],
    calls: &[Sys::Shmat],
    needs: &[Need::Cap(Capability::CAP_IPC_OWNER)],
    ..Probe::new("sysv.shm.perm.cap-attach", |cx| overrides(cx, ATTACH))
};
const CAPABLE_STAT: Probe = Probe {
    title: "CAP_IPC_OWNER reads a segment's description whatever its mode",
    why: "root's ipcs shows every segment in full, also those that their owners closed to everybody",
    varies: "root of a default container does not have the capability",
    spec: &[man("capabilities(7)", "CAP_IPC_OWNER"), man("shmctl(2)", "EACCES")],
    calls: &[Sys::Shmctl],
    needs: &[Need::Cap(Capability::CAP_IPC_OWNER)],
    ..Probe::new("sysv.shm.perm.cap-stat", |cx| overrides(cx, STAT))
};
