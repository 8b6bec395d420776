//! Segments as 32-bit programs see them, on x86 kernels that run such programs.

use super::parts::{page, segment};
use libc::{EINVAL, IPC_CREAT, IPC_INFO, IPC_SET, IPC_STAT, MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE};
use shmcheck_probe::sys::{self, SHM_INFO, call32, number32};
use shmcheck_probe::{Context, Exit, Map, Outcome, Probe, Segment, Stop, Sys, doc, kernel, man};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[&SAME_SEGMENT, &ATTACH, &STAT, &SET, &LIMITS, &OLD_STAT];

/// Skips where the kernel has no 32-bit calls: a call made in a process of its own tells.
fn emulated(cx: &mut Context) -> Outcome {
    let exit = cx.exit_of(|| {
        let pid = call32("getpid", number32::GETPID, [0; 5]);
        sys::exit_now(i32::from(pid.ok() != Some(sys::getpid().cast_unsigned())));
    })?;
    if exit == Exit::Code(0) { Ok(()) } else { Err(Stop::skip("32-bit system calls", exit.to_string())) }
}

/// A buffer that a 32-bit pointer can name.
fn low_memory() -> Result<Map, Stop> {
    Ok(Map::new(page(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | libc::MAP_32BIT, -1)?)
}

/// The little-endian number of `N` bytes at an offset.
fn number<const N: usize>(map: &Map, offset: usize) -> u64 {
    map.read_all(offset, N).iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn shmctl32(id: i32, command: i32, buffer: &Map) -> sys::Result<u32> {
    let address = buffer.address() as u32;
    call32("shmctl", number32::SHMCTL, [id.cast_unsigned(), command.cast_unsigned(), address, 0, 0])
}

const SAME_SEGMENT: Probe = Probe {
    title: "a 32-bit program finds a 64-bit program's segment by its key",
    why: "an old 32-bit client talks to a 64-bit server over one segment, on the same machine",
    varies: "kernels without 32-bit calls skip",
    spec: &[man("shmget(2)", "DESCRIPTION"), kernel("arch/x86/entry/syscalls/syscall_32.tbl", "shmget")],
    calls: &[Sys::Shmget],
    ..Probe::new("sysv.shm.abi32.same-segment", |cx| {
        emulated(cx)?;
        let made = segment(cx, 1, 0o600)?;
        let get = |key: i32, flags: i32| {
            call32("shmget", number32::SHMGET, [key.cast_unsigned(), page() as u32, flags.cast_unsigned(), 0, 0])
        };
        cx.expect_eq("shmget", cx.expect_ok(|| get(made.key, 0))?, made.id.cast_unsigned())?;
        // And the other way round.
        let key = cx.fresh_key();
        let id = cx.expect_ok(|| get(key, IPC_CREAT | 0o640))?.cast_signed();
        let other = Segment::adopt(id, key, page());
        let stat = other.stat()?;
        cx.expect_eq("key, mode, size", (stat.key, stat.mode, stat.segsz), (key, 0o640, page()))
    })
};

const ATTACH: Probe = Probe {
    title: "a 32-bit shmat maps the same memory below 4 GiB",
    why: "a pointer that does not fit is a crash at the first access; Wine's games share segments with the X server",
    varies: "kernels without 32-bit calls skip",
    spec: &[man("shmop(2)", "DESCRIPTION"), kernel("ipc/shm.c", "compat_sys_shmat")],
    calls: &[Sys::Shmat, Sys::Shmdt],
    ..Probe::new("sysv.shm.abi32.attach", |cx| {
        emulated(cx)?;
        let made = segment(cx, 1, 0o600)?;
        made.attach(0)?.write(5, 50);
        let at = cx.expect_ok(|| call32("shmat", number32::SHMAT, [made.id.cast_unsigned(), 0, 0, 0, 0]))?;
        cx.expect_eq("byte", Map::view(at as usize, page()).read(5), 50)?;
        cx.expect_eq("shm_nattch", made.stat()?.nattch, 1)?;
        cx.expect_ok(|| call32("shmdt", number32::SHMDT, [at, 0, 0, 0, 0]))?;
        cx.expect_eq("shm_nattch after shmdt", made.stat()?.nattch, 0)?;
        cx.expect_errno(EINVAL, || call32("shmdt", number32::SHMDT, [at, 0, 0, 0, 0]))
    })
};

const STAT: Probe = Probe {
    title: "a 32-bit IPC_STAT has every member that a 64-bit one has",
    why: "FEX#1452: one member at a wrong offset, and a 32-bit program takes the time for the number of attaches",
    varies: "kernels without 32-bit calls skip",
    spec: &[man("shmctl(2)", "IPC_STAT"), kernel("ipc/shm.c", "copy_compat_shmid_to_user"), doc("FEX#1452", "")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.abi32.stat", |cx| {
        emulated(cx)?;
        let key = cx.fresh_key();
        let made = cx.segment(key, page() + 5, 0o642)?;
        made.attach(0)?.close()?;
        let _map = made.attach(0)?;
        let buffer = low_memory()?;
        cx.expect_ok(|| shmctl32(made.id, IPC_STAT, &buffer))?;
        let stat = made.stat()?;
        // struct shmid64_ds of 32-bit x86: all times have their high half after the low one.
        let got = |offset| number::<4>(&buffer, offset);
        let members: [(&str, u64, u64); 12] = [
            ("key", got(0), u64::from(stat.key.cast_unsigned())),
            ("uid", got(4), stat.uid.into()),
            ("gid", got(8), stat.gid.into()),
            ("cuid", got(12), stat.cuid.into()),
            ("cgid", got(16), stat.cgid.into()),
            ("mode", number::<2>(&buffer, 20), stat.mode.into()),
            ("seq", number::<2>(&buffer, 24), stat.seq.into()),
            ("segsz", got(36), stat.segsz as u64),
            ("cpid", got(64), u64::from(stat.cpid.cast_unsigned())),
            ("lpid", got(68), u64::from(stat.lpid.cast_unsigned())),
            ("nattch", got(72), stat.nattch),
            ("end of the structure", got(84), 0),
        ];
        for (name, got, wanted) in members {
            cx.expect_eq(name, got, wanted)?;
        }
        let times = [number::<8>(&buffer, 40), number::<8>(&buffer, 48), number::<8>(&buffer, 56)];
        cx.expect_eq("atime, dtime, ctime", times.map(u64::cast_signed), [stat.atime, stat.dtime, stat.ctime])
    })
};

const SET: Probe = Probe {
    title: "a 32-bit IPC_SET sets the mode and no other member",
    why: "32-bit administration tools of old databases still run on 64-bit kernels",
    varies: "kernels without 32-bit calls skip",
    spec: &[man("shmctl(2)", "IPC_SET"), kernel("ipc/shm.c", "copy_compat_shmid_from_user")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.abi32.set", |cx| {
        emulated(cx)?;
        let made = segment(cx, 1, 0o600)?;
        let (before, buffer) = (made.stat()?, low_memory()?);
        shmctl32(made.id, IPC_STAT, &buffer)?;
        buffer.write_all(20, &0o640_u16.to_le_bytes());
        cx.expect_ok(|| shmctl32(made.id, IPC_SET, &buffer))?;
        let after = made.stat()?;
        cx.expect_eq("shmid_ds", sys::ShmStat { ctime: before.ctime, ..after }, sys::ShmStat { mode: 0o640, ..before })
    })
};

const LIMITS: Probe = Probe {
    title: "a 32-bit IPC_INFO caps SHMMAX at 2^31 − 1",
    why: "the limit of a 64-bit kernel cut to 32 bits would read as a limit of nearly nothing",
    varies: "kernels without 32-bit calls skip",
    spec: &[kernel("ipc/shm.c", "copy_compat_shminfo_to_user")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.abi32.limits", |cx| {
        emulated(cx)?;
        let made = segment(cx, 3, 0o600)?;
        let buffer = low_memory()?;
        let (_, limits) = sys::shm_limits()?;
        cx.expect_ok(|| shmctl32(0, IPC_INFO, &buffer))?;
        let most = u64::from(i32::MAX.cast_unsigned());
        cx.expect_eq("shmmax", number::<4>(&buffer, 0), limits.shmmax.min(most))?;
        cx.expect_eq("shmmin, shmmni", (number::<4>(&buffer, 4), number::<4>(&buffer, 8)), (1, limits.shmmni))?;
        cx.expect_ok(|| shmctl32(0, SHM_INFO, &buffer))?;
        let (used, pages) = (number::<4>(&buffer, 0), number::<4>(&buffer, 4));
        cx.expect("used_ids, shm_tot", used >= 1 && pages >= 3, "1 and 3 or more", (used, pages))?;
        cx.expect_eq("shm_nattch", made.stat()?.nattch, 0)
    })
};

const OLD_STAT: Probe = Probe {
    title: "the ipc call without IPC_64 fills the old shmid_ds of 16-bit ids",
    why: "binaries of the nineties pass a smaller structure: a larger one would be written over their stack",
    varies: "kernels without 32-bit calls skip",
    spec: &[man("shmctl(2)", "NOTES"), man("ipc(2)", "DESCRIPTION"), kernel("ipc/shm.c", "compat_ksys_old_shmctl")],
    calls: &[Sys::Shmctl],
    ..Probe::new("sysv.shm.abi32.old-stat", |cx| {
        /// Number of shmctl in the ipc call, include/uapi/linux/ipc.h.
        const SHMCTL: u32 = 24;
        emulated(cx)?;
        let made = segment(cx, 2, 0o604)?;
        let _map = made.attach(0)?;
        let buffer = low_memory()?;
        buffer.write_all(48, &[0xee; 16]);
        let arguments = [SHMCTL, made.id.cast_unsigned(), IPC_STAT.cast_unsigned(), 0, buffer.address() as u32];
        cx.expect_ok(|| call32("ipc", number32::IPC, arguments))?;
        let stat = made.stat()?;
        cx.expect_eq("key", number::<4>(&buffer, 0), u64::from(stat.key.cast_unsigned()))?;
        cx.expect_eq("mode", number::<2>(&buffer, 12), stat.mode.into())?;
        cx.expect_eq("segsz", number::<4>(&buffer, 16), stat.segsz as u64)?;
        let times: Vec<u64> = [20, 24, 28].into_iter().map(|offset| number::<4>(&buffer, offset)).collect();
        let wanted = [stat.atime, stat.dtime, stat.ctime].map(|time| time.cast_unsigned() & 0xffff_ffff);
        cx.expect_eq("atime, dtime, ctime", times, wanted.to_vec())?;
        cx.expect_eq("lpid", number::<2>(&buffer, 34), u64::from(stat.lpid.cast_unsigned()) & 0xffff)?;
        cx.expect_eq("nattch", number::<2>(&buffer, 36), stat.nattch)?;
        cx.expect_eq("bytes behind the structure", buffer.read_all(48, 16), vec![0xee; 16])
    })
};
