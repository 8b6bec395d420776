//! Chapter 5: message queues.

mod posix_attr;
mod posix_notify;
mod posix_open;
mod posix_receive;
mod posix_rlimit;
mod posix_send;
mod posix_unlink;
mod sysv_copy;
mod sysv_ctl;
mod sysv_get;
mod sysv_info;
mod sysv_limits;
mod sysv_perm;
mod sysv_receive;
mod sysv_send;
mod sysv_wait;

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
    intro: "",
    files: &[sysv_get::PROBES, sysv_send::PROBES, sysv_receive::PROBES, sysv_copy::PROBES, sysv_wait::PROBES, sysv_ctl::PROBES, sysv_perm::PROBES, sysv_info::PROBES, sysv_limits::PROBES, posix_open::PROBES, posix_unlink::PROBES, posix_rlimit::PROBES, posix_send::PROBES, posix_receive::PROBES, posix_attr::PROBES, posix_notify::PROBES],
    excluded: &[],
};
