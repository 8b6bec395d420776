//! Chapter 5: message queues.

mod posix_attr;
mod posix_fs;
mod posix_limits;
mod posix_notify;
mod posix_notify_thread;
mod posix_open;
mod posix_perm;
mod posix_poll;
mod posix_receive;
mod posix_rlimit;
mod posix_send;
mod posix_unlink;
mod sysv_copy;
mod sysv_ctl;
mod sysv_get;
mod sysv_info;
mod sysv_limits;
mod sysv_ns;
mod sysv_perm;
mod sysv_receive;
mod sysv_send;
mod sysv_wait;

use shmcheck_probe::catalogue::Excluded;
use shmcheck_probe::sys::{self, MsgStat};
use shmcheck_probe::{Chapter, Need};

/// What a probe needs that shows how the mode holds another user back.
const EACCES_NEEDS: &[Need] = &[Need::OtherUsers];

/// What `IPC_SET` is handed where `IPC_STAT` is not permitted: this user and group, the mode, a small queue.
fn owned_stat(mode: u32) -> MsgStat {
    let (uid, gid) = (sys::geteuid(), sys::getegid());
    MsgStat {
        key: 0,
        uid,
        gid,
        cuid: 0,
        cgid: 0,
        mode,
        seq: 0,
        stime: 0,
        rtime: 0,
        ctime: 0,
        cbytes: 0,
        qnum: 0,
        qbytes: 4096,
        lspid: 0,
        lrpid: 0,
    }
}

/// The chapter.
pub const CHAPTER: Chapter = Chapter {
    number: 5,
    name: "queues",
    title: "Message queues",
    intro: "A queue holds whole messages in the kernel until somebody takes them: sender and receiver need not run at \
            the same time, and neither sees the other's memory. System V queues are found by a key and sorted by \
            type; who receives chooses which types he wants. POSIX queues are found by a name, sorted by priority, \
            and are files to the kernel: with a mode under the umask, a descriptor for poll, a notification when \
            something arrives. Both live in the IPC namespace and stay until they are removed; what they may cost is \
            bounded by kernel.msg*, fs.mqueue.* and RLIMIT_MSGQUEUE.",
    files: &[
        sysv_get::PROBES,
        sysv_send::PROBES,
        sysv_receive::PROBES,
        sysv_copy::PROBES,
        sysv_wait::PROBES,
        sysv_ctl::PROBES,
        sysv_perm::PROBES,
        sysv_info::PROBES,
        sysv_limits::PROBES,
        sysv_ns::PROBES,
        posix_open::PROBES,
        posix_unlink::PROBES,
        posix_perm::PROBES,
        posix_attr::PROBES,
        posix_send::PROBES,
        posix_receive::PROBES,
        posix_notify::PROBES,
        posix_notify_thread::PROBES,
        posix_poll::PROBES,
        posix_fs::PROBES,
        posix_limits::PROBES,
        posix_rlimit::PROBES,
    ],
    excluded: &[
        Excluded {
            page: "msgget(2)",
            errno: "ENOMEM",
            reason: "only where the kernel has no memory for its own small structure: that machine kills processes first",
        },
        Excluded {
            page: "msgop(2)",
            errno: "ENOMEM",
            reason: "only where the kernel has no page for the copy of a message: that machine kills processes first",
        },
        Excluded {
            page: "msgop(2)",
            errno: "ENOSYS",
            reason: "only a kernel built without CONFIG_CHECKPOINT_RESTORE answers MSG_COPY so; there the probes of \
                     MSG_COPY are skipped with this errno",
        },
        Excluded {
            page: "msgctl(2)",
            errno: "EIDRM",
            reason: "only in the instant between the lookup and the lock of a queue that another processor removes; \
                     before and after it is EINVAL (ipc/msg.c, msgctl_stat)",
        },
        Excluded {
            page: "mq_open(3)",
            errno: "ENFILE",
            reason: "needs the whole machine's table of open files to be full, which would stop every other program",
        },
        Excluded {
            page: "mq_open(3)",
            errno: "ENOMEM",
            reason: "only where the kernel has no memory for the inode of a queue: that machine kills processes first",
        },
    ],
};
