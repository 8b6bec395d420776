//! SHMMAX, SHMALL, SHMMNI: the limits of an IPC namespace, their defaults, their effect, their ranges.

use super::parts::{page, segment};
use libc::{EINVAL, ENOENT, ENOMEM, ENOSPC, IPC_CREAT, IPC_PRIVATE};
use shmcheck_probe::sys::{self, SHM_NORESERVE, ShmLimits};
use shmcheck_probe::{
    Context, Isolate, Namespace, Need, Outcome, Probe, Segment, Stop, Sys, kernel, man, posix, procfs,
};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &DEFAULTS,
    &MAX_EINVAL,
    &MAX_EXISTING,
    &MAX_REPORTED,
    &ALL_ENOSPC,
    &ALL_PAGES,
    &ALL_GIVEN_BACK,
    &ALL_MARKED,
    &ALL_REPORTED,
    &MNI_ENOSPC,
    &MNI_FINDS,
    &MNI_REPORTED,
    &MNI_RANGE,
    &OVERFLOW,
    &OWN_NAMESPACE,
    &OVERCOMMIT,
    &NORESERVE,
];

const MAX: &str = "kernel/shmmax";
const ALL: &str = "kernel/shmall";
const MNI: &str = "kernel/shmmni";

/// A private segment of `size` bytes.
fn make(size: usize) -> sys::Result<Segment> {
    Segment::get(IPC_PRIVATE, size, IPC_CREAT | 0o600)
}

const DEFAULTS: Probe = Probe {
    title: "a new namespace limits 4096 segments, and no amount of memory",
    why: "since Linux 3.16 no database needs its installer to raise shmmax: a container must start with these too",
    spec: &[man("shmget(2)", "Shared memory limits"), kernel("include/uapi/linux/shm.h", "SHMMAX")],
    calls: &[Sys::Shmctl],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.limit.defaults", |cx| {
        let (_, limits) = sys::shm_limits()?;
        let no_limit = u64::MAX - (1 << 24);
        cx.expect_eq(
            "shmmax, shmall, shmmni",
            (limits.shmmax, limits.shmall, limits.shmmni),
            (no_limit, no_limit, 4096),
        )
    })
};

const MAX_EINVAL: Probe = Probe {
    title: "a segment larger than SHMMAX fails with EINVAL",
    why: "ORA-27104 and PostgreSQL's 'could not create shared memory segment: Invalid argument' are this limit",
    fix: "sysctl kernel.shmmax; docker run --sysctl kernel.shmmax=…",
    spec: &[man("shmget(2)", "EINVAL"), posix("shmget")],
    calls: &[Sys::Shmget],
    needs: &[Need::Sysctl(MAX)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.limit.shmmax-einval", max_einval)
};
fn max_einval(cx: &mut Context) -> Outcome {
    // Not a multiple of a page: the limit is in bytes.
    let limit = 3 * page() + 100;
    procfs::set_sysctl(MAX, limit)?;
    let key = cx.fresh_key();
    for size in [limit + 1, 4 * page(), usize::MAX] {
        cx.expect_errno(EINVAL, || sys::shmget(key, size, IPC_CREAT | 0o600))?;
    }
    cx.expect_errno(ENOENT, || sys::shmget(key, 0, 0))?;
    cx.expect_ok(|| Segment::get(key, limit, IPC_CREAT | 0o600)).map(drop)
}

const MAX_EXISTING: Probe = Probe {
    title: "lowering SHMMAX does not touch segments that exist",
    why: "an administrator tightens the limit while a database runs: it must go on, and its workers must attach",
    spec: &[man("shmget(2)", "EINVAL"), man("proc(5)", "/proc/sys/kernel/shmmax")],
    calls: &[Sys::Shmget, Sys::Shmat],
    needs: &[Need::Sysctl(MAX)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.limit.shmmax-existing", |cx| {
        let made = segment(cx, 4, 0o600)?;
        made.attach(0)?.write(3 * page(), 5);
        procfs::set_sysctl(MAX, page())?;
        cx.expect_errno(EINVAL, || make(page() + 1))?;
        cx.expect_eq("shmget of the key", cx.expect_ok(|| sys::shmget(made.key, 4 * page(), 0))?, made.id)?;
        cx.expect_eq("byte", cx.expect_ok(|| made.attach(0))?.read(3 * page()), 5)
    })
};

/// A value written to a limit's sysctl is what IPC_INFO reports.
fn reported(cx: &mut Context, name: &str, value: u64, of: fn(&ShmLimits) -> u64) -> Outcome {
    procfs::set_sysctl(name, value)?;
    cx.expect_eq(name, procfs::sysctl_number::<u64>(name)?, value)?;
    cx.expect_eq("IPC_INFO", of(&sys::shm_limits()?.1), value)
}

const MAX_REPORTED: Probe = Probe {
    title: "IPC_INFO follows a write to kernel.shmmax",
    why: "installers raise the limit and read it back through IPC_INFO",
    spec: &[man("shmctl(2)", "IPC_INFO")],
    calls: &[Sys::Shmctl],
    needs: &[Need::Sysctl(MAX)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.limit.shmmax-reported", |cx| reported(cx, MAX, 123_457, |limits| limits.shmmax))
};

const ALL_ENOSPC: Probe = Probe {
    title: "exceeding SHMALL fails with ENOSPC",
    why: "'No space left on device' from shmget sends people to df; it is the total of all segments",
    fix: "sysctl kernel.shmall (in pages); remove left-over segments: ipcs -m",
    spec: &[man("shmget(2)", "ENOSPC"), posix("shmget")],
    calls: &[Sys::Shmget],
    needs: &[Need::Sysctl(ALL)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.limit.shmall-enospc", |cx| {
        procfs::set_sysctl(ALL, 10)?;
        let _first = make(6 * page())?;
        let key = cx.fresh_key();
        cx.expect_errno(ENOSPC, || sys::shmget(key, 5 * page(), IPC_CREAT | 0o600))?;
        cx.expect_errno(ENOENT, || sys::shmget(key, 0, 0))?;
        // To the last page.
        let _second = cx.expect_ok(|| make(4 * page()))?;
        cx.expect_errno(ENOSPC, || make(1))
    })
};

const ALL_PAGES: Probe = Probe {
    title: "SHMALL counts whole pages: one byte takes one",
    why: "thousands of tiny segments exhaust a limit that looks like gigabytes",
    spec: &[man("shmget(2)", "Shared memory limits"), kernel("ipc/shm.c", "newseg")],
    calls: &[Sys::Shmget],
    needs: &[Need::Sysctl(ALL)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.limit.shmall-pages", |cx| {
        procfs::set_sysctl(ALL, 3)?;
        let _two = [cx.expect_ok(|| make(1))?, cx.expect_ok(|| make(1))?];
        cx.expect_errno(ENOSPC, || make(page() + 1))?;
        let _third = cx.expect_ok(|| make(1))?;
        cx.expect_errno(ENOSPC, || make(1))
    })
};

const ALL_GIVEN_BACK: Probe = Probe {
    title: "removing a segment gives its pages back to SHMALL",
    why: "a service that restarts often would run into the limit with nothing left over",
    spec: &[man("shmget(2)", "Shared memory limits"), kernel("ipc/shm.c", "shm_destroy")],
    calls: &[Sys::Shmget, Sys::Shmctl],
    needs: &[Need::Sysctl(ALL)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.limit.shmall-given-back", |cx| {
        procfs::set_sysctl(ALL, 4)?;
        for _ in 0..3 {
            let mut made = cx.expect_ok(|| make(3 * page() + 1))?;
            cx.expect_errno(ENOSPC, || make(1))?;
            made.remove()?;
        }
        cx.expect_ok(|| make(4 * page())).map(drop)
    })
};

const ALL_MARKED: Probe = Probe {
    title: "a removed segment counts against SHMALL until its last detach",
    why: "its memory is still there: a restart while old workers drain can exceed the limit, and must be told",
    spec: &[man("shmctl(2)", "IPC_RMID"), kernel("ipc/shm.c", "do_shm_rmid")],
    calls: &[Sys::Shmget, Sys::Shmctl],
    needs: &[Need::Sysctl(ALL)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.limit.shmall-marked", |cx| {
        procfs::set_sysctl(ALL, 4)?;
        let mut made = make(3 * page())?;
        let map = made.attach(0)?;
        made.remove()?;
        cx.expect_errno(ENOSPC, || make(2 * page()))?;
        map.close()?;
        cx.expect_ok(|| make(2 * page())).map(drop)
    })
};

const ALL_REPORTED: Probe = Probe {
    title: "IPC_INFO follows a write to kernel.shmall",
    why: "installers raise the limit and read it back through IPC_INFO",
    spec: &[man("shmctl(2)", "IPC_INFO")],
    calls: &[Sys::Shmctl],
    needs: &[Need::Sysctl(ALL)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.limit.shmall-reported", |cx| reported(cx, ALL, 54_321, |limits| limits.shmall))
};

const MNI_ENOSPC: Probe = Probe {
    title: "one segment more than SHMMNI fails with ENOSPC",
    why: "greenplum: the message talks of space, the cause is a number of left-over segments",
    fix: "remove left-over segments (ipcs -m), or sysctl kernel.shmmni",
    spec: &[man("shmget(2)", "ENOSPC"), posix("shmget")],
    calls: &[Sys::Shmget],
    needs: &[Need::Sysctl(MNI)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.limit.shmmni-enospc", |cx| {
        procfs::set_sysctl(MNI, 3)?;
        let mut made = [make(1)?, make(1)?, make(1)?];
        let key = cx.fresh_key();
        cx.expect_errno(ENOSPC, || sys::shmget(key, 1, IPC_CREAT | 0o600))?;
        cx.expect_errno(ENOENT, || sys::shmget(key, 0, 0))?;
        cx.expect_errno(ENOSPC, || make(1))?;
        made[1].remove()?;
        let _fourth = cx.expect_ok(|| make(1))?;
        cx.expect_errno(ENOSPC, || make(1))
    })
};

const MNI_FINDS: Probe = Probe {
    title: "finding a segment works when SHMMNI is reached",
    why: "a full table must not stop clients from connecting to the servers that run",
    spec: &[man("shmget(2)", "ENOSPC")],
    calls: &[Sys::Shmget],
    needs: &[Need::Sysctl(MNI)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.limit.shmmni-finds", |cx| {
        let made = segment(cx, 1, 0o600)?;
        procfs::set_sysctl(MNI, 1)?;
        cx.expect_errno(ENOSPC, || make(1))?;
        cx.expect_eq("shmget", cx.expect_ok(|| sys::shmget(made.key, 1, IPC_CREAT | 0o600))?, made.id)
    })
};

const MNI_REPORTED: Probe = Probe {
    title: "IPC_INFO follows a write to kernel.shmmni",
    why: "ipcs -l must show the limit in force, not the one of the boot",
    spec: &[man("shmctl(2)", "IPC_INFO")],
    calls: &[Sys::Shmctl],
    needs: &[Need::Sysctl(MNI)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.limit.shmmni-reported", |cx| reported(cx, MNI, 17, |limits| limits.shmmni))
};

/// Writes a value that the kernel is to refuse.
fn write_sysctl(name: &str, value: i64) -> sys::Result<()> {
    std::fs::write(format!("/proc/sys/{name}"), value.to_string())
        .map_err(|e| sys::Error { call: "write to a sysctl", errno: e.raw_os_error().unwrap_or(0) })
}

const MNI_RANGE: Probe = Probe {
    title: "kernel.shmmni takes 0 to IPCMNI, all else fails with EINVAL",
    why: "a typo in sysctl.conf is reported at boot instead of silently forbidding every segment",
    spec: &[kernel("ipc/ipc_sysctl.c", "ipc_sysctls"), man("proc(5)", "/proc/sys/kernel/shmmni")],
    calls: &[Sys::Shmget],
    needs: &[Need::Sysctl(MNI)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.limit.shmmni-range", |cx| {
        cx.expect_ok(|| write_sysctl(MNI, 32_768))?;
        // One above IPCMNI with ipcmni_extend, the largest there is.
        for value in [-1, (1 << 24) + 1] {
            cx.expect_errno(EINVAL, || write_sysctl(MNI, value))?;
        }
        cx.expect_eq("kernel.shmmni", procfs::sysctl_number::<i64>(MNI)?, 32_768)?;
        cx.expect_ok(|| write_sysctl(MNI, 0))?;
        cx.expect_errno(ENOSPC, || make(1))
    })
};

const OVERFLOW: Probe = Probe {
    title: "a size whose pages overflow fails with ENOSPC, whatever SHMMAX",
    why: "rounded up it would become 0 pages: a segment of no memory with a size of all",
    spec: &[man("shmget(2)", "ENOSPC"), kernel("ipc/shm.c", "newseg")],
    calls: &[Sys::Shmget],
    needs: &[Need::Sysctl(MAX), Need::Sysctl(ALL)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.limit.overflow-enospc", |cx| {
        for name in [MAX, ALL] {
            procfs::set_sysctl(name, u64::MAX)?;
        }
        let one = make(page())?;
        for size in [usize::MAX, usize::MAX - page() + 2] {
            cx.expect_errno(ENOSPC, || make(size))?;
        }
        cx.expect_eq("segments", sys::shm_usage()?.1.used_ids, 1)?;
        cx.expect_eq("shm_nattch", one.stat()?.nattch, 0)
    })
};

const OWN_NAMESPACE: Probe = Probe {
    title: "the limits belong to the IPC namespace: others keep theirs",
    why: "a container that raises shmmax for its database must not change the host's or its neighbour's limits",
    spec: &[man("ipc_namespaces(7)", "DESCRIPTION"), kernel("ipc/namespace.c", "create_ipc_ns")],
    calls: &[Sys::Shmget, Sys::Unshare],
    needs: &[Need::Sysctl(MAX), Need::Sysctl(MNI), Need::New(Namespace::Ipc)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.shm.limit.own-namespace", own_namespace)
};
fn own_namespace(cx: &mut Context) -> Outcome {
    procfs::set_sysctl(MAX, 2 * page())?;
    procfs::set_sysctl(MNI, 2)?;
    let _one = make(page())?;
    cx.elsewhere(|cx| {
        sys::unshare(libc::CLONE_NEWIPC)?;
        let (_, limits) = sys::shm_limits()?;
        cx.expect_eq("shmmni of a new namespace", limits.shmmni, 4096)?;
        let large = cx.expect_ok(|| make(3 * page()))?;
        procfs::set_sysctl(MAX, page())?;
        cx.expect_errno(EINVAL, || make(2 * page()))?;
        drop(large);
        Ok(())
    })?;
    cx.expect_eq("kernel.shmmax", procfs::sysctl_number::<usize>(MAX)?, 2 * page())?;
    let _two = cx.expect_ok(|| make(2 * page()))?;
    cx.expect_errno(ENOSPC, || make(1))
}

/// 64 TiB: more than any machine's memory and swap, less than a file may have.
const TOO_MUCH: usize = 1 << 46;

/// What shmget says to [`TOO_MUCH`] with these flags.
fn too_much(cx: &mut Context, flags: i32, wanted: impl Fn(u32) -> bool) -> Outcome {
    let (_, limits) = sys::shm_limits()?;
    let least = limits.shmmax.min(limits.shmall.saturating_mul(page() as u64));
    if least < TOO_MUCH as u64 {
        return Err(Stop::skip("limits of 64 TiB or more", least.to_string()));
    }
    let mode: u32 = procfs::sysctl_number("vm/overcommit_memory")?;
    let key = cx.fresh_key();
    if wanted(mode) {
        return cx.expect_ok(|| Segment::get(key, TOO_MUCH, flags | IPC_CREAT | 0o600)).map(drop);
    }
    cx.expect_errno(ENOMEM, || sys::shmget(key, TOO_MUCH, flags | IPC_CREAT | 0o600))?;
    cx.expect_errno(ENOENT, || sys::shmget(key, 0, 0))
}

const OVERCOMMIT: Probe = Probe {
    title: "a segment larger than memory and swap fails with ENOMEM",
    why: "its size is reserved at creation, so that a store need not fail later; with vm.overcommit_memory=1 it is not",
    varies: "vm.overcommit_memory=1 accounts nothing",
    spec: &[man("shmget(2)", "ENOMEM"), man("proc(5)", "/proc/sys/vm/overcommit_memory")],
    calls: &[Sys::Shmget],
    ..Probe::new("sysv.shm.limit.memory-enomem", |cx| too_much(cx, 0, |mode| mode == 1))
};

const NORESERVE: Probe = Probe {
    title: "SHM_NORESERVE makes a segment larger than memory and swap",
    why: "sparse tables of scientific codes reserve address space by the terabyte and use little of it",
    varies: "vm.overcommit_memory=2 accounts it all the same",
    spec: &[man("shmget(2)", "SHM_NORESERVE"), man("proc(5)", "/proc/sys/vm/overcommit_memory")],
    calls: &[Sys::Shmget],
    ..Probe::new("sysv.shm.limit.noreserve", |cx| too_much(cx, SHM_NORESERVE, |mode| mode != 2))
};
