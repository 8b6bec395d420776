//! msgget(2): creating and finding queues.

use super::EACCES_NEEDS;
use libc::{EACCES, EEXIST, EINVAL, ENOENT};
use shmcheck_probe::sys::{self, IPC_CREAT, IPC_EXCL, IPC_PRIVATE};
use shmcheck_probe::{Context, MsgQueue, Need, Outcome, Probe, Sys, doc, kernel, man, posix, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &EXCL_EEXIST,
    &NO_KEY_ENOENT,
    &KEY_FINDS,
    &KEYS_DIFFER,
    &CREAT_FINDS,
    &PRIVATE_NEW,
    &PRIVATE_IGNORES_FLAGS,
    &ID_CHANGES,
    &SEQUENCE,
    &REMOVED_KEY_FREE,
    &NEW_IS_EMPTY,
    &NEW_BELONGS,
    &NEW_TIMES,
    &NEW_QBYTES,
    &MODE_NINE_BITS,
    &UMASK_IGNORED,
    &OWNER_EFFECTIVE,
    &LOOKUP_EACCES,
    &LOOKUP_OWNER_EACCES,
    &LOOKUP_NO_BITS,
    &SURVIVES_CREATOR,
];

const EXCL_EEXIST: Probe = Probe {
    title: "IPC_CREAT|IPC_EXCL on a live queue's key fails with EEXIST",
    why: "a server that makes its request queue this way knows it is the first; without it two servers steal each \
          other's requests",
    spec: &[man("msgget(2)", "EEXIST"), posix("msgget")],
    calls: &[Sys::Msgget],
    ..Probe::new("sysv.msg.get.excl-eexist", excl_eexist)
};
fn excl_eexist(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    cx.expect_errno(EEXIST, || sys::msgget(queue.key, IPC_CREAT | IPC_EXCL | 0o600))?;
    cx.expect_eq("the queue found by the key", sys::msgget(queue.key, 0)?, queue.id)
}

const NO_KEY_ENOENT: Probe = Probe {
    title: "a key without a queue is not found: ENOENT",
    why: "clients say 'server not running' on this errno; any other and they report a broken installation",
    spec: &[man("msgget(2)", "ENOENT"), posix("msgget")],
    calls: &[Sys::Msgget],
    ..Probe::new("sysv.msg.get.no-key-enoent", no_key_enoent)
};
fn no_key_enoent(cx: &mut Context) -> Outcome {
    let key = cx.fresh_key();
    // IPC_EXCL without IPC_CREAT means nothing.
    for flags in [0, 0o600, IPC_EXCL] {
        cx.expect_errno(ENOENT, || sys::msgget(key, flags))?;
    }
    Ok(())
}

const KEY_FINDS: Probe = Probe {
    title: "another process finds the queue by its key, with its messages",
    why: "two programs that share nothing but a number from ftok meet at the queue; a queue per process delivers nothing",
    spec: &[man("msgget(2)", "DESCRIPTION"), posix("msgget")],
    calls: &[Sys::Msgget, Sys::Msgsnd, Sys::Msgrcv],
    ..Probe::new("sysv.msg.get.key-finds", key_finds)
};
fn key_finds(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    let key = queue.key;
    let sent = cx.elsewhere(|cx| {
        let id = cx.expect_ok(|| sys::msgget(key, 0o600))?;
        sys::msgsnd(id, 5, b"by key", 0)?;
        Ok(id)
    })?;
    cx.expect_eq("identifier in the other process", sent, queue.id)?;
    cx.expect_eq("message of the other process", queue.take(0, 0)?, (5, b"by key".to_vec()))
}

const KEYS_DIFFER: Probe = Probe {
    title: "two keys name two queues: a message is in one of them only",
    why: "request and reply queues are told apart by their keys; mixed up, a server answers its own answers",
    spec: &[man("msgget(2)", "DESCRIPTION")],
    calls: &[Sys::Msgget, Sys::Msgsnd],
    ..Probe::new("sysv.msg.get.keys-differ", keys_differ)
};
fn keys_differ(cx: &mut Context) -> Outcome {
    let (one, two) = (cx.msg_queue(0o600)?, cx.msg_queue(0o600)?);
    cx.expect_ne("identifier of the second queue", two.id, one.id)?;
    one.put(1, b"one")?;
    cx.expect_eq("messages in the first queue", one.stat()?.qnum, 1)?;
    cx.expect_eq("messages in the second queue", two.stat()?.qnum, 0)
}

const CREAT_FINDS: Probe = Probe {
    title: "IPC_CREAT on a live key finds the queue, its mode unchanged",
    why: "programs start in any order and all pass IPC_CREAT; the later one must neither fail nor widen the permissions",
    spec: &[man("msgget(2)", "DESCRIPTION")],
    calls: &[Sys::Msgget],
    ..Probe::new("sysv.msg.get.creat-finds", creat_finds)
};
fn creat_finds(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    let before = queue.stat()?;
    let found = cx.expect_ok(|| sys::msgget(queue.key, IPC_CREAT | 0o600))?;
    cx.expect_eq("identifier", found, queue.id)?;
    cx.expect_eq("msqid_ds", queue.stat()?, before)
}

const PRIVATE_NEW: Probe = Probe {
    title: "IPC_PRIVATE makes a new queue every time, with key 0",
    why: "a parent makes a private queue for each child; one queue for all mixes their work",
    spec: &[man("msgget(2)", "NOTES"), posix("msgget")],
    calls: &[Sys::Msgget],
    ..Probe::new("sysv.msg.get.private-new", private_new)
};
fn private_new(cx: &mut Context) -> Outcome {
    // A private queue has no key that `clean` would know: these two live for an instant.
    let one = MsgQueue::get(IPC_PRIVATE, 0o600)?;
    let two = MsgQueue::get(IPC_PRIVATE, 0o600)?;
    cx.expect_ne("identifier of the second queue", two.id, one.id)?;
    cx.expect_eq("key in msg_perm", one.stat()?.key, 0)
}

const PRIVATE_IGNORES_FLAGS: Probe = Probe {
    title: "IPC_PRIVATE ignores all of the flags but the nine mode bits",
    why: "wrappers hand the same flags over for every key; IPC_EXCL must not turn a private queue into EEXIST",
    spec: &[man("msgget(2)", "NOTES")],
    calls: &[Sys::Msgget],
    ..Probe::new("sysv.msg.get.private-ignores-flags", private_ignores_flags)
};
fn private_ignores_flags(cx: &mut Context) -> Outcome {
    let _held = MsgQueue::get(IPC_PRIVATE, 0o600)?;
    for flags in [0, IPC_EXCL, IPC_CREAT | IPC_EXCL] {
        let queue = cx.expect_ok(|| MsgQueue::get(IPC_PRIVATE, flags | 0o640))?;
        cx.expect_eq("mode", queue.stat()?.mode, 0o640)?;
    }
    Ok(())
}

const ID_CHANGES: Probe = Probe {
    title: "a removed queue's identifier stays invalid after the key is reused",
    why: "a client that kept the identifier over a server's restart must get an error, not talk to another queue",
    spec: &[man("msgop(2)", "EINVAL"), kernel("ipc/util.c", "ipc_idr_alloc")],
    calls: &[Sys::Msgget, Sys::Msgsnd],
    ..Probe::new("sysv.msg.get.id-changes", id_changes)
};
fn id_changes(cx: &mut Context) -> Outcome {
    let mut old = cx.msg_queue(0o600)?;
    old.remove()?;
    let new = MsgQueue::get(old.key, IPC_CREAT | IPC_EXCL | 0o600)?;
    cx.expect_ne("identifier of the new queue", new.id, old.id)?;
    cx.expect_errno(EINVAL, || old.put(1, b"stale"))?;
    cx.expect_eq("messages in the new queue", new.stat()?.qnum, 0)
}

const SEQUENCE: Probe = Probe {
    title: "identifiers begin with the sequence number of msg_perm and do not recur",
    why: "a stale identifier is caught only because the same slot gets another number each time round",
    spec: &[kernel("ipc/util.c", "ipc_idr_alloc"), man("msgctl(2)", "DESCRIPTION")],
    calls: &[Sys::Msgget, Sys::Msgctl],
    ..Probe::new("sysv.msg.get.sequence", sequence)
};
fn sequence(cx: &mut Context) -> Outcome {
    let key = cx.fresh_key();
    let mut seen = std::collections::HashSet::new();
    let mut last = (0, 0);
    // The kernel goes round 64 slots or more before it raises the number.
    for _ in 0..70 {
        let queue = MsgQueue::get(key, IPC_CREAT | IPC_EXCL | 0o600)?;
        cx.expect("identifier", seen.insert(queue.id), "one that was not there before", queue.id)?;
        last = (queue.id, queue.stat()?.seq);
    }
    let (id, seq) = last;
    // 15 bits are the slot's, 24 with ipcmni_extend.
    let fits = [15, 24].iter().any(|bits| id >> bits == i32::from(seq));
    cx.expect("sequence number of the last", fits, format!("the high bits of {id:#x}"), seq)
}

const REMOVED_KEY_FREE: Probe = Probe {
    title: "after IPC_RMID the key names no queue, at once",
    why: "a restart script removes the old queue and makes a new one in the next line",
    spec: &[man("msgctl(2)", "IPC_RMID")],
    calls: &[Sys::Msgget, Sys::Msgctl],
    ..Probe::new("sysv.msg.get.removed-key-free", removed_key_free)
};
fn removed_key_free(cx: &mut Context) -> Outcome {
    let mut queue = cx.msg_queue(0o600)?;
    let key = queue.key;
    cx.expect_eq("identifier by the key", sys::msgget(key, 0)?, queue.id)?;
    queue.remove()?;
    cx.elsewhere(|cx| cx.expect_errno(ENOENT, || sys::msgget(key, 0)))
}

const NEW_IS_EMPTY: Probe = Probe {
    title: "a new queue holds nothing and was never used: counts and pids are 0",
    why: "monitoring takes the last sender's pid and the counts from here; leftovers show a dead program as alive",
    spec: &[man("msgget(2)", "DESCRIPTION"), posix("msgget")],
    calls: &[Sys::Msgget, Sys::Msgctl],
    ..Probe::new("sysv.msg.get.new-is-empty", new_is_empty)
};
fn new_is_empty(cx: &mut Context) -> Outcome {
    let stat = cx.msg_queue(0o600)?.stat()?;
    cx.expect_eq("msg_qnum", stat.qnum, 0)?;
    cx.expect_eq("msg_cbytes", stat.cbytes, 0)?;
    cx.expect_eq("msg_lspid", stat.lspid, 0)?;
    cx.expect_eq("msg_lrpid", stat.lrpid, 0)
}

const NEW_BELONGS: Probe = Probe {
    title: "a new queue's owner, creator and key are those of the call",
    why: "every later permission check compares with these four ids",
    spec: &[man("msgget(2)", "DESCRIPTION"), posix("msgget")],
    calls: &[Sys::Msgget, Sys::Msgctl],
    ..Probe::new("sysv.msg.get.new-belongs", new_belongs)
};
fn new_belongs(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o600)?;
    let stat = queue.stat()?;
    cx.expect_eq("key", stat.key, queue.key)?;
    cx.expect_eq("uid, cuid", (stat.uid, stat.cuid), (sys::geteuid(), sys::geteuid()))?;
    cx.expect_eq("gid, cgid", (stat.gid, stat.cgid), (sys::getegid(), sys::getegid()))
}

const NEW_TIMES: Probe = Probe {
    title: "a new queue has msg_ctime of now, and 0 for sent and received",
    why: "cleaners delete queues whose times are old: a new queue must not look abandoned",
    spec: &[man("msgget(2)", "DESCRIPTION"), posix("msgget")],
    calls: &[Sys::Msgget, Sys::Msgctl],
    ..Probe::new("sysv.msg.get.new-times", new_times)
};
fn new_times(cx: &mut Context) -> Outcome {
    let before = sys::now_seconds();
    let stat = cx.msg_queue(0o600)?.stat()?;
    let after = sys::now_seconds();
    cx.expect("msg_ctime", (before..=after).contains(&stat.ctime), format!("{before}..={after}"), stat.ctime)?;
    cx.expect_eq("msg_stime, msg_rtime", (stat.stime, stat.rtime), (0, 0))
}

const NEW_QBYTES: Probe = Probe {
    title: "a new queue may hold as many bytes as kernel.msgmnb says",
    why: "the administrator raises msgmnb for IBM MQ or Oracle and expects new queues to have the room",
    spec: &[man("msgget(2)", "DESCRIPTION"), man("msgop(2)", "NOTES")],
    calls: &[Sys::Msgget, Sys::Msgctl],
    needs: &[Need::Path("/proc/sys/kernel/msgmnb")],
    ..Probe::new("sysv.msg.get.new-qbytes", new_qbytes)
};
fn new_qbytes(cx: &mut Context) -> Outcome {
    let limit: u64 = procfs::sysctl_number("kernel/msgmnb")?;
    let stat = cx.msg_queue(0o600)?.stat()?;
    cx.expect_eq("msg_qbytes", stat.qbytes, limit)
}

const MODE_NINE_BITS: Probe = Probe {
    title: "the nine low bits of msgflg become the mode, and no other bit",
    why: "IPC_CREAT and IPC_EXCL share the number with the mode; a bit that leaks shows up in ipcs and in comparisons",
    spec: &[man("msgget(2)", "DESCRIPTION"), posix("msgget")],
    calls: &[Sys::Msgget, Sys::Msgctl],
    ..Probe::new("sysv.msg.get.mode-nine-bits", mode_nine_bits)
};
fn mode_nine_bits(cx: &mut Context) -> Outcome {
    // The owner reads in each: msgctl asks for that. 0o111 is unused but kept, 0o4000 is IPC_NOWAIT's bit.
    for mode in [0o400, 0o421, 0o777, 0o7_400] {
        let queue = MsgQueue::get(cx.fresh_key(), IPC_CREAT | IPC_EXCL | mode)?;
        cx.expect_eq("mode", queue.stat()?.mode, mode.cast_unsigned() & 0o777)?;
    }
    Ok(())
}

const UMASK_IGNORED: Probe = Probe {
    title: "the umask takes nothing away from a queue's mode",
    why: "daemons run with umask 077 and pass 0666 for their clients; with the mask applied every client gets EACCES",
    spec: &[man("msgget(2)", "DESCRIPTION"), kernel("ipc/msg.c", "newque")],
    calls: &[Sys::Msgget],
    ..Probe::new("sysv.msg.get.umask-ignored", umask_ignored)
};
fn umask_ignored(cx: &mut Context) -> Outcome {
    sys::umask(0o377);
    let queue = cx.msg_queue(0o666)?;
    cx.expect_eq("mode", queue.stat()?.mode, 0o666)
}

const OWNER_EFFECTIVE: Probe = Probe {
    title: "a new queue belongs to the effective user and group of its creator",
    why: "services that drop their privileges make queues afterwards and must own them",
    spec: &[man("msgget(2)", "DESCRIPTION")],
    calls: &[Sys::Msgget, Sys::Msgctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.msg.get.owner-effective", owner_effective)
};
fn owner_effective(cx: &mut Context) -> Outcome {
    cx.as_user(1, 65534, |cx| {
        let stat = cx.msg_queue(0o600)?.stat()?;
        cx.expect_eq("uid, cuid", (stat.uid, stat.cuid), (1, 1))?;
        cx.expect_eq("gid, cgid", (stat.gid, stat.cgid), (65534, 65534))
    })
}

const LOOKUP_EACCES: Probe = Probe {
    title: "asking for permissions the mode does not give fails with EACCES",
    why: "a client learns at start that it may not write, not with its first order",
    fix: "run both programs as the same user, or create the queue with a mode for the other one",
    spec: &[man("msgget(2)", "EACCES"), posix("msgget")],
    calls: &[Sys::Msgget],
    needs: EACCES_NEEDS,
    ..Probe::new("sysv.msg.get.lookup-eacces", lookup_eacces)
};
fn lookup_eacces(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o604)?;
    let (key, id) = (queue.key, queue.id);
    cx.as_user(1, 1, |cx| {
        cx.expect_eq("lookup for reading", sys::msgget(key, 0o004)?, id)?;
        for wanted in [0o002, 0o006, 0o600, 0o020] {
            cx.expect_errno(EACCES, || sys::msgget(key, wanted))?;
        }
        Ok(())
    })
}

const LOOKUP_OWNER_EACCES: Probe = Probe {
    title: "an owner without CAP_IPC_OWNER is held to his own mode bits",
    why: "mode 0200 is a drop box: also its owner must not read it by accident",
    spec: &[man("msgget(2)", "EACCES")],
    calls: &[Sys::Msgget],
    ..Probe::new("sysv.msg.get.lookup-owner-eacces", lookup_owner_eacces)
};
fn lookup_owner_eacces(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0o277)?;
    let (key, id) = (queue.key, queue.id);
    cx.without_caps(&[caps::Capability::CAP_IPC_OWNER], |cx| {
        cx.expect_eq("lookup for writing", sys::msgget(key, 0o200)?, id)?;
        cx.expect_errno(EACCES, || sys::msgget(key, 0o400))
    })
}

const LOOKUP_NO_BITS: Probe = Probe {
    title: "asking for no permission finds a queue of mode 0",
    why: "ipcrm and ipcs look a key up with 0 and must find what they are to remove",
    spec: &[kernel("ipc/util.c", "ipcperms"), doc("sysvipc(7)", "Resource access permissions")],
    calls: &[Sys::Msgget],
    needs: EACCES_NEEDS,
    ..Probe::new("sysv.msg.get.lookup-no-bits", lookup_no_bits)
};
fn lookup_no_bits(cx: &mut Context) -> Outcome {
    let queue = cx.msg_queue(0)?;
    let (key, id) = (queue.key, queue.id);
    cx.as_user(1, 1, |cx| {
        let found = cx.expect_ok(|| sys::msgget(key, 0))?;
        cx.expect_eq("identifier", found, id)
    })
}

const SURVIVES_CREATOR: Probe = Probe {
    title: "a queue with its messages outlives the process that made it",
    why: "a batch program leaves its work in the queue and ends; the worker that starts later must find it",
    spec: &[posix("msgget"), doc("sysvipc(7)", "DESCRIPTION")],
    calls: &[Sys::Msgget, Sys::Msgsnd, Sys::Msgrcv],
    ..Probe::new("sysv.msg.get.survives-creator", survives_creator)
};
fn survives_creator(cx: &mut Context) -> Outcome {
    let key = cx.fresh_key();
    let (id, creator) = cx.elsewhere(|_| {
        let id = sys::msgget(key, IPC_CREAT | IPC_EXCL | 0o600)?;
        sys::msgsnd(id, 3, b"left behind", 0)?;
        Ok((id, sys::getpid()))
    })?;
    let queue = MsgQueue::get(key, 0)?;
    cx.expect_eq("identifier", queue.id, id)?;
    cx.expect_eq("msg_lspid of the ended sender", queue.stat()?.lspid, creator)?;
    cx.expect_eq("message", queue.take(0, 0)?, (3, b"left behind".to_vec()))
}
