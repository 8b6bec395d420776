//! Chapter 1: System V shared memory.

mod abi32;
mod address;
mod attach;
mod create;
mod detach;
mod fields;
mod forced;
mod ftok;
mod get;
mod huge;
mod info;
mod life;
mod limits;
mod lock;
mod mapped;
mod memory;
mod parts;
mod perm;
mod proc;
mod refuse;
mod remove;
mod set;
mod users;

use shmcheck_probe::Chapter;
use shmcheck_probe::catalogue::Excluded;

/// The chapter.
pub const CHAPTER: Chapter = Chapter {
    number: 1,
    name: "sysv-shm",
    title: "System V shared memory",
    intro: "A segment is a piece of memory with an identity of its own. shmget makes or finds it by a key, a 32-bit \
            number that programs agree on (often through ftok), and gives an identifier that is valid in the whole \
            IPC namespace; shmat maps it, shmdt unmaps it, shmctl describes, re-owns, locks and removes it. The \
            kernel keeps a record of each segment, shmid_ds: whose it is, its mode, how many mappings there are, and \
            when and by whom it was attached and detached last. Nothing removes a segment by itself: it outlives \
            every process, also one that crashed, until someone calls IPC_RMID, and a segment so marked lives on \
            until its last mapping goes. That is its strength (state that survives a restart) and its plague \
            (left-overs that fill SHMMNI). Permissions are those of files without directories: owner or creator, \
            group, others, in this order, the first class that matches decides.",
    files: &[
        ftok::PROBES,
        get::PROBES,
        create::PROBES,
        attach::PROBES,
        address::PROBES,
        refuse::PROBES,
        detach::PROBES,
        fields::PROBES,
        users::PROBES,
        set::PROBES,
        remove::PROBES,
        info::PROBES,
        proc::PROBES,
        perm::PROBES,
        lock::PROBES,
        life::PROBES,
        limits::PROBES,
        forced::PROBES,
        memory::PROBES,
        mapped::PROBES,
        huge::PROBES,
        abi32::PROBES,
    ],
    excluded: &[
        Excluded {
            page: "shmget(2)",
            errno: "ENFILE",
            reason: "the table of open files of the whole machine would have to be full: every other program would \
                     fail with it",
        },
        Excluded {
            page: "shmop(2)",
            errno: "EIDRM",
            reason: "the kernel gives it only between finding a segment and locking it, while another processor \
                     removes it; a removed identifier is EINVAL otherwise, which sysv.shm.at.removed-id holds",
        },
        Excluded {
            page: "shmctl(2)",
            errno: "EIDRM",
            reason: "the kernel gives it only between finding a segment and locking it, while another processor \
                     removes it; a removed identifier is EINVAL otherwise, which sysv.shm.info.bad-id-einval holds",
        },
        Excluded {
            page: "shmctl(2)",
            errno: "EOVERFLOW",
            reason: "only for the structure with 16-bit ids of Linux before 2.4; the call of 64-bit programs has 32 \
                     bits for an id",
        },
    ],
};
