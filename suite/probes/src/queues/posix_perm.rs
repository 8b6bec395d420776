//! Permissions of a POSIX queue: what each mode lets a user open it for.

use caps::Capability;
use libc::{EACCES, O_CREAT, O_RDONLY, O_RDWR, O_WRONLY};
use shmcheck_probe::guard_queue::SMALL_MQ;
use shmcheck_probe::{Context, Need, Outcome, Probe, Sys, kernel, man, posix, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[&OWNER, &GROUP, &OTHER, &FIRST_CLASS, &OPENED_STAYS, &CHMOD, &CAP_DAC];

/// Opening for reading, writing, both is permitted exactly as the three bits at `place` say; `uid` and `gid` are those of
/// the process, the queue belongs to user 1 and group 1.
fn by_mode(cx: &mut Context, (uid, gid): (u32, u32), place: u32) -> Outcome {
    sys::umask(0);
    for bits in [0, 2, 4, 6] {
        // The other two classes have what this one has not.
        let mode = 0o666 & !(6 << place) | bits << place;
        let name = cx.fresh_name();
        cx.as_user(1, 1, |_| {
            drop(sys::mq_open(&name, O_CREAT | O_RDWR, mode, Some(&SMALL_MQ))?);
            Ok(())
        })?;
        let opened = cx.as_user(uid, gid, |cx| {
            for (flags, needed) in [(O_RDONLY, 4), (O_WRONLY, 2), (O_RDWR, 6)] {
                let open = || sys::mq_open(&name, flags, 0, None);
                if bits & needed == needed {
                    cx.expect_ok(open)?;
                } else {
                    cx.expect_errno(EACCES, open)?;
                }
            }
            Ok(())
        });
        // Its owner removes it; root without CAP_FOWNER could not.
        cx.as_user(1, 1, |_| Ok(sys::mq_unlink(&name)?))?;
        opened?;
    }
    Ok(())
}

const WHY: &str = "services and their clients run as different users and meet at a queue whose mode is all that \
                   keeps the rest of the machine out";

const OWNER: Probe = Probe {
    title: "the owner opens the queue as his three mode bits say",
    why: WHY,
    spec: &[man("mq_open(3)", "EACCES"), posix("mq_open")],
    calls: &[Sys::MqOpen],
    needs: &[Need::OtherUsers],
    ..Probe::new("posix.mq.perm.owner", |cx| by_mode(cx, (1, 65534), 6))
};
const GROUP: Probe = Probe {
    title: "the group opens the queue as its three mode bits say",
    why: WHY,
    spec: &[man("mq_open(3)", "EACCES"), posix("mq_open")],
    calls: &[Sys::MqOpen],
    needs: &[Need::OtherUsers],
    ..Probe::new("posix.mq.perm.group", |cx| by_mode(cx, (65534, 1), 3))
};
const OTHER: Probe = Probe {
    title: "others open the queue as their three mode bits say",
    why: WHY,
    spec: &[man("mq_open(3)", "EACCES"), posix("mq_open")],
    calls: &[Sys::MqOpen],
    needs: &[Need::OtherUsers],
    ..Probe::new("posix.mq.perm.other", |cx| by_mode(cx, (65534, 65534), 0))
};

/// Without what lets a process past file permissions.
const NO_DAC: &[Capability] = &[Capability::CAP_DAC_OVERRIDE, Capability::CAP_DAC_READ_SEARCH];

const FIRST_CLASS: Probe = Probe {
    title: "O_CREAT on a queue that exists needs its permissions all the same",
    why: "a flag that creates must not be a way around the mode",
    spec: &[man("mq_open(3)", "EACCES"), posix("mq_open")],
    calls: &[Sys::MqOpen],
    ..Probe::new("posix.mq.perm.creat", |cx| {
        cx.without_caps(NO_DAC, |cx| {
            let queue = cx.mq_with(0, 0o400, &SMALL_MQ)?;
            cx.expect_ok(|| sys::mq_open(&queue.name, O_CREAT | O_RDONLY, 0o600, None))?;
            cx.expect_errno(EACCES, || sys::mq_open(&queue.name, O_CREAT | O_WRONLY, 0o666, None))
        })
    })
};

const OPENED_STAYS: Probe = Probe {
    title: "permissions are checked on opening: a descriptor outlives them",
    why: "a service opens as root and drops its privileges afterwards",
    spec: &[man("mq_open(3)", "DESCRIPTION"), kernel("ipc/mqueue.c", "prepare_open")],
    calls: &[Sys::MqOpen, Sys::MqTimedsend],
    needs: &[Need::OtherUsers],
    ..Probe::new("posix.mq.perm.opened-stays", |cx| {
        let queue = cx.mq(0)?;
        let fd = queue.fd();
        cx.as_user(65534, 65534, |cx| {
            cx.expect_errno(EACCES, || queue.open(O_WRONLY))?;
            cx.expect_ok(|| sys::mq_send(fd, b"still", 0))
        })?;
        cx.expect_eq("message", queue.receive()?.0, b"still".to_vec())
    })
};

const CHMOD: Probe = Probe {
    title: "fchmod of the descriptor changes who may open the queue",
    why: "the way around the umask: daemons set the mode after creating",
    spec: &[kernel("ipc/mqueue.c", "mqueue_get_inode"), man("mq_open(3)", "EACCES")],
    calls: &[Sys::MqOpen],
    ..Probe::new("posix.mq.perm.fchmod", |cx| {
        use nix::sys::stat::{Mode, fchmod};
        cx.without_caps(NO_DAC, |cx| {
            let queue = cx.mq(0)?;
            let file = queue.open(O_RDONLY)?;
            fchmod(&file, Mode::from_bits_truncate(0o200))?;
            cx.expect_errno(EACCES, || queue.open(O_RDONLY))?;
            cx.expect_ok(|| queue.open(O_WRONLY))?;
            cx.expect_eq("mode", sys::fstat(file.as_raw_fd())?.st_mode & 0o777, 0o200)
        })
    })
};

const CAP_DAC: Probe = Probe {
    title: "CAP_DAC_OVERRIDE opens a queue of mode 0",
    why: "queues are files to the kernel: root's usual capability counts here, not CAP_IPC_OWNER",
    varies: "unlike for System V queues, root in a default container has the capability for it",
    spec: &[man("mq_open(3)", "EACCES"), kernel("ipc/mqueue.c", "prepare_open")],
    calls: &[Sys::MqOpen],
    needs: &[Need::Cap(Capability::CAP_DAC_OVERRIDE)],
    ..Probe::new("posix.mq.perm.cap-dac-override", |cx| {
        let queue = cx.mq_with(0, 0, &SMALL_MQ)?;
        cx.expect_ok(|| queue.open(O_RDWR))?;
        cx.without_caps(NO_DAC, |cx| cx.expect_errno(EACCES, || queue.open(O_RDWR)))
    })
};
