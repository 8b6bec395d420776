//! The limits of a namespace: kernel.sem, what IPC_INFO says of it, and what it does; kernel.sem_next_id.

use libc::{E2BIG, EINVAL, ENOMEM, ENOSPC, ERANGE};
use shmcheck_probe::sys::{self, IPC_CREAT, IPC_EXCL, IPC_INFO, IPC_PRIVATE, SEMVMX, SemOp};
use shmcheck_probe::{Context, Isolate, Namespace, Need, Outcome, Probe, SemSet, Stop, Sys, doc, kernel, man, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &PROC_AGREES,
    &DEFAULTS,
    &CONSTANTS,
    &WRITE_REACHES_INFO,
    &SEMMSL_IN_EFFECT,
    &SEMMSL_RAISED,
    &SEMMNS_ENOSPC,
    &SEMMNS_FREED,
    &SEMMNI_ENOSPC,
    &SEMMNI_LOOKUP,
    &SEMOPM_LOWERED,
    &SEMOPM_RAISED,
    &SEMMNI_REFUSED,
    &HUGE_SET_ENOMEM,
    &PER_NAMESPACE,
    &NEXT_ID,
    &NEXT_ID_ONCE,
    &NEXT_ID_TAKEN,
];

const CALLS: &[Sys] = &[Sys::Semctl, Sys::Semget];
const SYSCTL: &str = "kernel/sem";

/// SEMMSL, SEMMNS, SEMOPM, SEMMNI: the order of kernel.sem.
fn set_limits(limits: [i32; 4]) -> Result<(), Stop> {
    let [semmsl, semmns, semopm, semmni] = limits;
    procfs::set_sysctl(SYSCTL, format!("{semmsl} {semmns} {semopm} {semmni}"))
}

fn limits_of_info() -> sys::Result<[i32; 4]> {
    sys::sem_info(IPC_INFO).map(|(_, info)| [info.semmsl, info.semmns, info.semopm, info.semmni])
}

fn limits_of_proc() -> Result<Vec<i32>, Stop> {
    let text = procfs::sysctl(SYSCTL)?;
    text.split_whitespace()
        .map(|word| word.parse().map_err(|_| Stop::broken(format!("/proc/sys/{SYSCTL} is {text:?}"))))
        .collect()
}

const PROC_AGREES: Probe = Probe {
    title: "/proc/sys/kernel/sem shows the limits of IPC_INFO",
    why: "installers check the file, programs the call; a database refuses to start on a machine that was tuned",
    spec: &[man("proc(5)", "/proc/sys/kernel/sem"), man("semctl(2)", "IPC_INFO")],
    calls: CALLS,
    needs: &[Need::Path("/proc/sys/kernel/sem")],
    ..Probe::new("sysv.sem.limits.proc-agrees", |cx| {
        cx.expect_eq("/proc/sys/kernel/sem", limits_of_proc()?, limits_of_info()?.to_vec())
    })
};

const DEFAULTS: Probe = Probe {
    title: "a new namespace starts with 32000, 1024000000, 500, 32000",
    why: "containers get these numbers whatever the host's administrator has set; documentation counts on them",
    varies: "Linux before 3.19 had 250, 32000, 32, 128",
    spec: &[man("semget(2)", "Semaphore limits"), man("semop(2)", "Semaphore limits")],
    calls: CALLS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.sem.limits.defaults", |cx| {
        cx.expect_eq("semmsl, semmns, semopm, semmni", limits_of_info()?, [32_000, 1_024_000_000, 500, 32_000])
    })
};

const CONSTANTS: Probe = Probe {
    title: "IPC_INFO gives the constants of the kernel's header",
    why: "libraries check a count against semvmx before they use it",
    spec: &[man("semctl(2)", "IPC_INFO"), kernel("include/uapi/linux/sem.h", "SEMVMX")],
    calls: CALLS,
    ..Probe::new("sysv.sem.limits.constants", |cx| {
        let (_, info) = sys::sem_info(IPC_INFO)?;
        cx.expect_eq("semvmx, semaem", (info.semvmx, info.semaem), (SEMVMX, SEMVMX))?;
        // Unused within the kernel, and so constants of its header.
        let unused = (info.semmap, info.semmnu, info.semume, info.semusz);
        cx.expect_eq("semmap, semmnu, semume, semusz", unused, (1_024_000_000, 1_024_000_000, 500, 20))
    })
};

const WRITE_REACHES_INFO: Probe = Probe {
    title: "a write to kernel.sem changes what IPC_INFO gives",
    why: "sysctl -w succeeded, and the database still says that the limit is too small",
    spec: &[man("proc(5)", "/proc/sys/kernel/sem"), man("semctl(2)", "IPC_INFO")],
    calls: CALLS,
    needs: &[Need::Sysctl(SYSCTL)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.sem.limits.write-reaches-info", |cx| {
        set_limits([250, 256_000, 100, 1_024])?;
        cx.expect_eq("semmsl, semmns, semopm, semmni", limits_of_info()?, [250, 256_000, 100, 1_024])?;
        cx.expect_eq("/proc/sys/kernel/sem", limits_of_proc()?, vec![250, 256_000, 100, 1_024])
    })
};

const SEMMSL_IN_EFFECT: Probe = Probe {
    title: "a lowered SEMMSL refuses larger sets: EINVAL",
    why: "an administrator's limit that is only displayed protects nothing",
    spec: &[man("semget(2)", "EINVAL"), man("semget(2)", "Semaphore limits")],
    calls: CALLS,
    needs: &[Need::Sysctl(SYSCTL)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.sem.limits.semmsl", |cx| {
        let before = cx.sem_set(20)?;
        set_limits([10, 1_000, 500, 100])?;
        drop(cx.sem_set(10)?);
        let key = cx.fresh_key();
        cx.expect_errno(EINVAL, || sys::semget(key, 11, IPC_CREAT | 0o600))?;
        // A set from before stays as large as it is.
        cx.expect_ok(|| before.set(19, 1))?;
        cx.expect_eq("sem_nsems of the earlier set", before.stat()?.nsems, 20)
    })
};

const SEMMSL_RAISED: Probe = Probe {
    title: "a raised SEMMSL allows larger sets",
    why: "SAP and Oracle notes ask for it; after the change the installer must get through",
    spec: &[man("semget(2)", "Semaphore limits")],
    calls: CALLS,
    needs: &[Need::Sysctl(SYSCTL)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.sem.limits.semmsl-raised", |cx| {
        set_limits([32_768, 1_024_000_000, 500, 32_000])?;
        let key = cx.fresh_key();
        let set = cx.expect_ok(|| SemSet::get(key, 32_768, IPC_CREAT | IPC_EXCL | 0o600))?;
        cx.expect_ok(|| set.op(&[SemOp::add(32_767, 2)]))?;
        cx.expect_eq("value of the last", set.value(32_767)?, 2)
    })
};

const SEMMNS_ENOSPC: Probe = Probe {
    title: "semaphores beyond SEMMNS are refused: ENOSPC",
    why: "the famous 'No space left on device' of initdb: the remedy is this number, not the disk",
    fix: "sysctl -w kernel.sem=\"…\" (second number), in a container docker run --sysctl kernel.sem=…",
    spec: &[man("semget(2)", "ENOSPC"), doc("greenplum-db/pxf#262", "")],
    calls: CALLS,
    needs: &[Need::Sysctl(SYSCTL)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.sem.limits.semmns", |cx| {
        set_limits([100, 50, 500, 100])?;
        let _most = cx.sem_set(40)?;
        let key = cx.fresh_key();
        cx.expect_errno(ENOSPC, || sys::semget(key, 11, IPC_CREAT | 0o600))?;
        cx.expect_errno(ENOSPC, || sys::semget(IPC_PRIVATE, 11, 0o600))?;
        cx.expect_eq("sets", sys::sem_info(sys::SEM_INFO)?.1.semusz, 1)?;
        cx.expect_ok(|| SemSet::get(key, 10, IPC_CREAT | 0o600)).map(drop)
    })
};

const SEMMNS_FREED: Probe = Probe {
    title: "removing a set makes room for its semaphores again",
    why: "a service that restarts often would run into ENOSPC after some days",
    spec: &[man("semget(2)", "ENOSPC"), kernel("ipc/sem.c", "freeary")],
    calls: CALLS,
    needs: &[Need::Sysctl(SYSCTL)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.sem.limits.semmns-freed", |cx| {
        set_limits([100, 50, 500, 2])?;
        for _ in 0..5 {
            drop(cx.expect_ok(|| SemSet::get(IPC_PRIVATE, 50, 0o600))?);
        }
        let _full = cx.sem_set(50)?;
        cx.expect_errno(ENOSPC, || sys::semget(IPC_PRIVATE, 1, 0o600))
    })
};

const SEMMNI_ENOSPC: Probe = Probe {
    title: "sets beyond SEMMNI are refused: ENOSPC",
    why: "leaked sets of crashed test runs stop the next start with this errno",
    fix: "ipcs -s shows the sets, ipcrm -s removes leaked ones; sysctl -w kernel.sem (fourth number)",
    spec: &[man("semget(2)", "ENOSPC"), kernel("ipc/util.c", "ipc_addid")],
    calls: CALLS,
    needs: &[Need::Sysctl(SYSCTL)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.sem.limits.semmni", |cx| {
        set_limits([100, 1_000, 500, 3])?;
        let mut sets = [cx.sem_set(1)?, cx.sem_set(1)?, cx.sem_set(1)?];
        let key = cx.fresh_key();
        cx.expect_errno(ENOSPC, || sys::semget(key, 1, IPC_CREAT | 0o600))?;
        cx.expect_eq("sets", sys::sem_info(sys::SEM_INFO)?.1.semusz, 3)?;
        sets[1].remove()?;
        cx.expect_ok(|| SemSet::get(key, 1, IPC_CREAT | 0o600)).map(drop)
    })
};

const SEMMNI_LOOKUP: Probe = Probe {
    title: "at SEMMNI existing sets are still found with IPC_CREAT",
    why: "workers pass the flag always; a full table must not stop them from attaching",
    spec: &[man("semget(2)", "ENOSPC")],
    calls: CALLS,
    needs: &[Need::Sysctl(SYSCTL)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.sem.limits.semmni-lookup", |cx| {
        let set = cx.sem_set(1)?;
        set_limits([100, 1, 500, 0])?;
        cx.expect_eq("identifier", cx.expect_ok(|| sys::semget(set.key, 1, IPC_CREAT | 0o600))?, set.id)?;
        cx.expect_errno(ENOSPC, || sys::semget(IPC_PRIVATE, 1, 0o600))
    })
};

const SEMOPM_LOWERED: Probe = Probe {
    title: "a lowered SEMOPM refuses longer arrays: E2BIG",
    why: "the limit guards the kernel's memory; it must act on running programs as well",
    spec: &[man("semop(2)", "E2BIG"), man("semop(2)", "Semaphore limits")],
    calls: &[Sys::Semop, Sys::Semtimedop, Sys::Semctl],
    needs: &[Need::Sysctl(SYSCTL)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.sem.limits.semopm", |cx| {
        let set = cx.sem_set(1)?;
        cx.expect_ok(|| set.op(&[SemOp::add(0, 1); 6]))?;
        set_limits([100, 100, 5, 100])?;
        cx.expect_errno(E2BIG, || set.op(&[SemOp::add(0, 1); 6]))?;
        cx.expect_ok(|| set.op(&[SemOp::add(0, 1); 5]))?;
        cx.expect_eq("value", set.value(0)?, 11)
    })
};

const SEMOPM_RAISED: Probe = Probe {
    title: "a raised SEMOPM allows longer arrays",
    why: "databases document a value for it; without effect their largest transactions fail",
    spec: &[man("semop(2)", "Semaphore limits")],
    calls: &[Sys::Semop, Sys::Semtimedop, Sys::Semctl],
    needs: &[Need::Sysctl(SYSCTL)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.sem.limits.semopm-raised", |cx| {
        let set = cx.sem_set(1)?;
        set_limits([100, 100, 2_000, 100])?;
        cx.expect_ok(|| set.op(&[SemOp::add(0, 1); 2_000]))?;
        cx.expect_errno(E2BIG, || set.op(&[SemOp::add(0, 1); 2_001]))?;
        cx.expect_eq("value", set.value(0)?, 2_000)
    })
};

const SEMMNI_REFUSED: Probe = Probe {
    title: "kernel.sem refuses a SEMMNI that identifiers cannot express",
    why: "sysctl -p must fail visibly instead of leaving a limit that is not in effect",
    spec: &[kernel("ipc/ipc_sysctl.c", "proc_ipc_sem_dointvec")],
    calls: CALLS,
    needs: &[Need::Sysctl(SYSCTL)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.sem.limits.semmni-refused", |cx| {
        let write = |semmni: i64| {
            std::fs::write("/proc/sys/kernel/sem", format!("32000 1024000000 500 {semmni}"))
                .map_err(|e| sys::Error { call: "write to kernel.sem", errno: e.raw_os_error().unwrap_or(0) })
        };
        cx.expect_ok(|| write(32_768))?;
        // With the boot option ipcmni_extend identifiers carry 2^24 indexes.
        cx.expect_errno_of(&[EINVAL, ERANGE], || write((1 << 24) + 1))?;
        cx.expect_errno_of(&[EINVAL, ERANGE], || write(-1))?;
        cx.expect_eq("semmni", limits_of_info()?[3], 32_768)
    })
};

const HUGE_SET_ENOMEM: Probe = Probe {
    title: "a set that no memory can hold is refused: ENOMEM",
    why: "limits raised without thought must end in an error, not in an overflow of the size",
    spec: &[man("semget(2)", "ENOMEM"), kernel("ipc/sem.c", "sem_alloc")],
    calls: CALLS,
    needs: &[Need::Sysctl(SYSCTL)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.sem.limits.huge-enomem", |cx| {
        set_limits([i32::MAX, i32::MAX, 500, 100])?;
        let key = cx.fresh_key();
        cx.expect_errno(ENOMEM, || sys::semget(key, i32::MAX, IPC_CREAT | 0o600))?;
        cx.expect_errno(libc::ENOENT, || sys::semget(key, 0, 0))?;
        cx.expect_ok(|| SemSet::get(key, 1, IPC_CREAT | 0o600)).map(drop)
    })
};

const PER_NAMESPACE: Probe = Probe {
    title: "the limits of one namespace are not those of another",
    why: "docker run --sysctl kernel.sem must change the container and not the host",
    spec: &[man("ipc_namespaces(7)", ""), man("proc(5)", "/proc/sys/kernel/sem")],
    calls: &[Sys::Semctl, Sys::Semget, Sys::Unshare],
    needs: &[Need::Sysctl(SYSCTL), Need::New(Namespace::Ipc), Need::Cap(caps::Capability::CAP_SYS_ADMIN)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.sem.limits.per-namespace", |cx| {
        set_limits([77, 770, 70, 7])?;
        let inner = cx.elsewhere(|_| {
            sys::unshare(libc::CLONE_NEWIPC)?;
            let before = limits_of_info()?;
            set_limits([88, 880, 80, 8])?;
            Ok((before[0], limits_of_info()?))
        })?;
        cx.expect_ne("semmsl at the start of the new namespace", inner.0, 77)?;
        cx.expect_eq("limits of the new namespace", inner.1, [88, 880, 80, 8])?;
        cx.expect_eq("limits of the old namespace", limits_of_info()?, [77, 770, 70, 7])
    })
};

/// kernel.sem_next_id, which checkpoint tools write before they make a set anew.
const NEXT: &str = "kernel/sem_next_id";

const NEXT_ID: Probe = Probe {
    title: "kernel.sem_next_id gives the next set its identifier",
    why: "CRIU restores a program with the identifiers that it holds in its variables",
    spec: &[man("proc(5)", "sem_next_id"), doc("Documentation/admin-guide/sysctl/kernel.rst", "sem_next_id")],
    calls: CALLS,
    needs: &[Need::Sysctl(NEXT)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.sem.limits.next-id", |cx| {
        let wanted = (5 << 15) + 11;
        procfs::set_sysctl(NEXT, wanted)?;
        let set = cx.sem_set(1)?;
        cx.expect_eq("identifier", set.id, wanted)?;
        cx.expect_ok(|| set.set(0, 1))?;
        cx.expect_eq("value through the identifier", sys::semctl(wanted, 0, sys::GETVAL)?, 1)
    })
};

const NEXT_ID_ONCE: Probe = Probe {
    title: "kernel.sem_next_id holds for one set, then reads -1",
    why: "left in place it would push later sets of other programs aside",
    spec: &[doc("Documentation/admin-guide/sysctl/kernel.rst", "sem_next_id"), kernel("ipc/util.c", "ipc_idr_alloc")],
    calls: CALLS,
    needs: &[Need::Sysctl(NEXT)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.sem.limits.next-id-once", |cx| {
        cx.expect_eq("sem_next_id at first", procfs::sysctl(NEXT)?, "-1".to_owned())?;
        procfs::set_sysctl(NEXT, 300)?;
        cx.expect_eq("sem_next_id as written", procfs::sysctl(NEXT)?, "300".to_owned())?;
        let (first, second) = (cx.sem_set(1)?, cx.sem_set(1)?);
        cx.expect_eq("sem_next_id afterwards", procfs::sysctl(NEXT)?, "-1".to_owned())?;
        cx.expect_eq("identifier of the first set", first.id, 300)?;
        cx.expect_ne("identifier of the second set", second.id, 300)
    })
};

const NEXT_ID_TAKEN: Probe = Probe {
    title: "kernel.sem_next_id at a taken index does not touch the set there",
    why: "a restore into a namespace in use must not replace somebody's set",
    spec: &[doc("Documentation/admin-guide/sysctl/kernel.rst", "sem_next_id"), kernel("ipc/util.c", "ipc_idr_alloc")],
    calls: CALLS,
    needs: &[Need::Sysctl(NEXT)],
    isolate: Isolate::FreshOnly,
    ..Probe::new("sysv.sem.limits.next-id-taken", next_id_taken)
};
fn next_id_taken(cx: &mut Context) -> Outcome {
    procfs::set_sysctl(NEXT, 20)?;
    let holder = cx.sem_set(1)?;
    holder.set(0, 6)?;
    cx.expect_eq("identifier of the holder", holder.id, 20)?;
    procfs::set_sysctl(NEXT, 20)?;
    let other = cx.sem_set(1)?;
    cx.expect_ne("identifier of the other set", other.id, 20)?;
    cx.expect_eq("value of the holder", holder.value(0)?, 6)?;
    cx.expect_eq("value of the other", other.value(0)?, 0)
}
