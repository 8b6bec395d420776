//! shmget(2): what a new segment is like, member by member.

use super::parts::{OTHER, STRANGER, page, segment};
use libc::{IPC_CREAT, IPC_EXCL, IPC_PRIVATE};
use shmcheck_probe::sys::{self, SHM_NORESERVE};
use shmcheck_probe::{Context, Need, Outcome, Probe, Segment, Sys, doc, kernel, man, posix, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &ZERO_BYTES,
    &SEGSZ_KEPT,
    &WHOLE_PAGE,
    &KEY_KEPT,
    &MODE_NINE_BITS,
    &NO_FLAG_IN_MODE,
    &UMASK_IGNORED,
    &OWNER_EFFECTIVE,
    &GROUP_EFFECTIVE,
    &CREATOR_PID,
    &CREATION_TIME,
    &ZERO_MEMBERS,
    &MAPS_NAME,
    &MAPS_INODE,
];

const ZERO_BYTES: Probe = Probe {
    title: "a new segment reads zero in every byte",
    why: "programs take zero for 'not initialised'; old bytes would be another user's data handed to this one",
    spec: &[man("shmget(2)", "DESCRIPTION"), posix("shmget")],
    calls: &[Sys::Shmget, Sys::Shmat],
    ..Probe::new("sysv.shm.new.reads-zero", zero_bytes)
};
fn zero_bytes(cx: &mut Context) -> Outcome {
    // Pages that were just freed are the ones a careless kernel would hand out again.
    let mut dirty = segment(cx, 8, 0o600)?;
    let map = dirty.attach(0)?;
    for number in 0..8 {
        map.write_all(number * page(), &[0xa5; 512]);
    }
    map.close()?;
    dirty.remove()?;
    let fresh = segment(cx, 8, 0o600)?;
    let bytes = fresh.attach(0)?.read_all(0, 8 * page());
    cx.expect_eq("first byte that is not zero", bytes.iter().position(|byte| *byte != 0), None)
}

const SEGSZ_KEPT: Probe = Probe {
    title: "shm_segsz is the size asked for, not the rounded one",
    why: "a client reads the size of the structure from shm_segsz: rounding would make it run over the end of an array",
    spec: &[man("shmget(2)", "DESCRIPTION"), posix("shmget")],
    calls: &[Sys::Shmget, Sys::Shmctl],
    ..Probe::new("sysv.shm.new.segsz-kept", segsz_kept)
};
fn segsz_kept(cx: &mut Context) -> Outcome {
    for size in [1, page() - 1, page(), page() + 1, 3 * page() + 17] {
        let key = cx.fresh_key();
        let made = cx.segment(key, size, 0o600)?;
        cx.expect_eq("shm_segsz", made.stat()?.segsz, size)?;
    }
    Ok(())
}

const WHOLE_PAGE: Probe = Probe {
    title: "memory is given in whole pages",
    why: "the tail of the last page is shared like the rest; programs that were compiled for rounded sizes use it",
    spec: &[man("shmget(2)", "DESCRIPTION")],
    calls: &[Sys::Shmget, Sys::Shmat],
    ..Probe::new("sysv.shm.new.whole-pages", whole_page)
};
fn whole_page(cx: &mut Context) -> Outcome {
    let key = cx.fresh_key();
    let made = cx.segment(key, page() + 1, 0o600)?;
    let address = sys::shmat(made.id, 0)?;
    let map = shmcheck_probe::Map::attached(address, 2 * page());
    let found = procfs::mapping_at(address)?.map(|m| (m.start, m.end));
    cx.expect_eq("mapping", found, Some((address, address + 2 * page())))?;
    map.write(2 * page() - 1, 77);
    let seen = cx.elsewhere(|_| {
        let address = sys::shmat(made.id, 0)?;
        Ok(shmcheck_probe::Map::attached(address, 2 * page()).read(2 * page() - 1))
    })?;
    cx.expect_eq("last byte of the last page, read elsewhere", seen, 77)
}

const KEY_KEPT: Probe = Probe {
    title: "shm_perm.key is the key given to shmget",
    why: "ipcs shows it, and an administrator finds by it whose segment is left over",
    spec: &[man("shmctl(2)", "__key")],
    calls: &[Sys::Shmget, Sys::Shmctl],
    ..Probe::new("sysv.shm.new.key-kept", key_kept)
};
fn key_kept(cx: &mut Context) -> Outcome {
    let (first, second) = (segment(cx, 1, 0o600)?, segment(cx, 1, 0o600)?);
    cx.expect_eq("shm_perm.key", first.stat()?.key, first.key)?;
    cx.expect_eq("shm_perm.key", second.stat()?.key, second.key)
}

const MODE_NINE_BITS: Probe = Probe {
    title: "the nine permission bits of shmflg become shm_perm.mode",
    why: "a bit lost locks a group of workers out, a bit gained opens a database's memory to every user",
    spec: &[man("shmget(2)", "DESCRIPTION"), posix("shmget")],
    calls: &[Sys::Shmget, Sys::Shmctl],
    ..Probe::new("sysv.shm.new.mode-bits", mode_nine_bits)
};
fn mode_nine_bits(cx: &mut Context) -> Outcome {
    // Owner and creator are this process, which without read permission could not look: 0400 is in every mode.
    for bits in [0, 0o001, 0o002, 0o004, 0o010, 0o020, 0o040, 0o100, 0o200, 0o377] {
        let mode = 0o400 | bits;
        let made = segment(cx, 1, mode)?;
        cx.expect_eq("shm_perm.mode", made.stat()?.mode, mode.cast_unsigned())?;
    }
    Ok(())
}

const NO_FLAG_IN_MODE: Probe = Probe {
    title: "creation flags do not show in shm_perm.mode",
    why: "IPC_CREAT and SHM_DEST are the same bit: a flag that leaks makes ipcs call a healthy segment 'dest'",
    spec: &[man("shmget(2)", "DESCRIPTION"), man("shmctl(2)", "SHM_DEST")],
    calls: &[Sys::Shmget, Sys::Shmctl],
    ..Probe::new("sysv.shm.new.no-flag-in-mode", no_flag_in_mode)
};
fn no_flag_in_mode(cx: &mut Context) -> Outcome {
    for flags in [IPC_CREAT, IPC_CREAT | IPC_EXCL, IPC_CREAT | SHM_NORESERVE] {
        let made = Segment::get(cx.fresh_key(), page(), flags | 0o600)?;
        cx.expect_eq("shm_perm.mode", made.stat()?.mode, 0o600)?;
    }
    Ok(())
}

const UMASK_IGNORED: Probe = Probe {
    title: "the umask does not change a segment's mode",
    why: "unlike files: a daemon with umask 077 still shares its segment with the group, as its author intended",
    spec: &[man("umask(2)", "NOTES"), man("shmget(2)", "DESCRIPTION")],
    calls: &[Sys::Shmget, Sys::Shmctl],
    ..Probe::new("sysv.shm.new.umask-ignored", umask_ignored)
};
fn umask_ignored(cx: &mut Context) -> Outcome {
    sys::umask(0o777);
    let made = segment(cx, 1, 0o666)?;
    cx.expect_eq("shm_perm.mode", made.stat()?.mode, 0o666)
}

const OWNER_EFFECTIVE: Probe = Probe {
    title: "uid and cuid are the effective user id of the creator",
    why: "a set-user-ID program's segment belongs to the program's owner, not to whoever started it",
    spec: &[man("shmget(2)", "DESCRIPTION"), posix("shmget")],
    calls: &[Sys::Shmget, Sys::Shmctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.new.owner-effective", owner_effective)
};
fn owner_effective(cx: &mut Context) -> Outcome {
    let own = segment(cx, 1, 0o600)?.stat()?;
    cx.expect_eq("uid and cuid", (own.uid, own.cuid), (sys::geteuid(), sys::geteuid()))?;
    let stat = cx.elsewhere(|cx| {
        // The real user id stays: only the effective one may count.
        sys::seteuid(STRANGER)?;
        let stat = segment(cx, 1, 0o600)?.stat()?;
        Ok((stat.uid, stat.cuid))
    })?;
    cx.expect_eq("uid and cuid of another effective user", stat, (STRANGER, STRANGER))
}

const GROUP_EFFECTIVE: Probe = Probe {
    title: "gid and cgid are the effective group id of the creator",
    why: "workers share by group: with a supplementary group's id here the wrong set of users gets in",
    spec: &[man("shmget(2)", "DESCRIPTION"), posix("shmget")],
    calls: &[Sys::Shmget, Sys::Shmctl],
    needs: &[Need::OtherUsers],
    ..Probe::new("sysv.shm.new.group-effective", group_effective)
};
fn group_effective(cx: &mut Context) -> Outcome {
    let own = segment(cx, 1, 0o600)?.stat()?;
    cx.expect_eq("gid and cgid", (own.gid, own.cgid), (sys::getegid(), sys::getegid()))?;
    let groups = cx.as_member(STRANGER, OTHER, &[STRANGER], |cx| {
        let stat = segment(cx, 1, 0o600)?.stat()?;
        Ok((stat.gid, stat.cgid))
    })?;
    cx.expect_eq("gid and cgid of another effective group", groups, (OTHER, OTHER))
}

const CREATOR_PID: Probe = Probe {
    title: "shm_cpid is the creator's process id, also after it has ended",
    why: "ipcs -p tells who made a left-over segment; with 0 or another's number the wrong service is blamed",
    spec: &[man("shmctl(2)", "shm_cpid"), posix("shmctl")],
    calls: &[Sys::Shmget, Sys::Shmctl],
    ..Probe::new("sysv.shm.new.cpid", creator_pid)
};
fn creator_pid(cx: &mut Context) -> Outcome {
    let own = segment(cx, 1, 0o600)?;
    cx.expect_eq("shm_cpid", own.stat()?.cpid, sys::getpid())?;
    let key = cx.fresh_key();
    let maker = cx.fork(move |cx| Ok(cx.segment(key, page(), 0o600)?.disown()))?;
    let pid = maker.pid();
    let made = Segment::adopt(maker.join()?, key, page());
    cx.expect_eq("shm_cpid of a creator that ended", made.stat()?.cpid, pid)?;
    // Whoever finds it is not its creator.
    sys::shmget(key, 0, 0)?;
    cx.expect_eq("shm_cpid after a look-up", made.stat()?.cpid, pid)
}

const CREATION_TIME: Probe = Probe {
    title: "shm_ctime is the time of creation",
    why: "clean-up jobs remove segments by age: with a wrong time they take a running service's memory",
    spec: &[man("shmget(2)", "DESCRIPTION"), posix("shmget")],
    calls: &[Sys::Shmget, Sys::Shmctl],
    ..Probe::new("sysv.shm.new.ctime", creation_time)
};
fn creation_time(cx: &mut Context) -> Outcome {
    let start = sys::now_seconds();
    let made = segment(cx, 1, 0o600)?;
    let end = sys::now_seconds();
    let got = made.stat()?.ctime;
    cx.expect("shm_ctime", (start..=end).contains(&got), format!("{start} to {end}"), got)
}

const ZERO_MEMBERS: Probe = Probe {
    title: "nobody attached a new segment: lpid, nattch, atime, dtime are 0",
    why: "PostgreSQL takes nattch 0 for 'no server is alive': a wrong count keeps it from starting after a crash",
    spec: &[man("shmget(2)", "DESCRIPTION"), posix("shmget")],
    calls: &[Sys::Shmget, Sys::Shmctl],
    ..Probe::new("sysv.shm.new.zero-members", zero_members)
};
fn zero_members(cx: &mut Context) -> Outcome {
    let stat = segment(cx, 1, 0o600)?.stat()?;
    cx.expect_eq("lpid, nattch, atime, dtime", (stat.lpid, stat.nattch, stat.atime, stat.dtime), (0, 0, 0, 0))
}

const MAPS_NAME: Probe = Probe {
    title: "/proc/PID/maps names an attach /SYSV and its key in hexadecimal",
    why: "pmap and crash tools show by this name what a process's biggest mapping is",
    spec: &[doc("Documentation/filesystems/proc.rst", "maps"), kernel("ipc/shm.c", "newseg")],
    calls: &[Sys::Shmget, Sys::Shmat],
    ..Probe::new("sysv.shm.new.maps-name", maps_name)
};
fn maps_name(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    let private = Segment::get(IPC_PRIVATE, page(), IPC_CREAT | 0o600)?;
    for segment in [&made, &private] {
        let map = segment.attach(0)?;
        let name = procfs::mapping_at(map.address())?.map(|m| m.name).unwrap_or_default();
        let wanted = format!("/SYSV{:08x}", segment.key);
        cx.expect("name of the mapping", name.split(' ').next() == Some(&wanted), wanted, &name)?;
    }
    Ok(())
}

const MAPS_INODE: Probe = Probe {
    title: "the inode of an attach in /proc/PID/maps is the identifier",
    why: "this is how lsof and procps tell which segment a process has; 'changing this will break them', says the kernel",
    spec: &[kernel("ipc/shm.c", "newseg")],
    calls: &[Sys::Shmget, Sys::Shmat],
    ..Probe::new("sysv.shm.new.maps-inode", maps_inode)
};
fn maps_inode(cx: &mut Context) -> Outcome {
    for _ in 0..2 {
        let made = segment(cx, 1, 0o600)?;
        let map = made.attach(0)?;
        let inode = procfs::mapping_at(map.address())?.map(|m| m.inode);
        cx.expect_eq("inode of the mapping", inode, u64::try_from(made.id).ok())?;
    }
    Ok(())
}
