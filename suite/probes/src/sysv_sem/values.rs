//! semctl(2) on values: GETVAL, SETVAL, GETALL, SETALL, GETPID.

use libc::{EFAULT, EIDRM, EINVAL, ERANGE};
use shmcheck_probe::sys::uffd::FaultTrap;
use shmcheck_probe::sys::{self, GETALL, GETNCNT, GETPID, GETVAL, GETZCNT, SEMVMX, SETALL, SETVAL};
use shmcheck_probe::{Context, Map, Need, Outcome, Probe, Sys, kernel, man, posix};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &SETVAL_GETVAL,
    &SETALL_GETALL,
    &LARGE_SET,
    &GETALL_LENGTH,
    &NUM_IGNORED,
    &SETVAL_NEGATIVE,
    &SETVAL_TOO_LARGE,
    &SETALL_TOO_LARGE,
    &SETALL_TOO_LARGE_BIG_SET,
    &NUM_PAST_END,
    &NUM_NEGATIVE,
    &GETALL_EFAULT,
    &SETALL_EFAULT,
    &SETALL_EFAULT_BIG_SET,
    &SETALL_EIDRM,
    &UNKNOWN_COMMAND,
    &UNKNOWN_ID,
    &REMOVED_ID,
    &RAW_SETVAL,
];

const CALLS: &[Sys] = &[Sys::Semctl];

const SETVAL_GETVAL: Probe = Probe {
    title: "GETVAL reads what SETVAL wrote to the one semaphore named",
    why: "every initialisation of a lock; a neighbour's value must not move",
    spec: &[man("semctl(2)", "SETVAL"), man("semctl(2)", "GETVAL"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.values.setval-getval", |cx| {
        let set = cx.sem_set(3)?;
        for value in [1, 0, 255, SEMVMX] {
            cx.expect_ok(|| set.set(1, value))?;
            cx.expect_eq("value", set.value(1)?, value)?;
        }
        cx.expect_eq("values of the neighbours", (set.value(0)?, set.value(2)?), (0, 0))?;
        let id = set.id;
        let seen = cx.elsewhere(move |_| Ok(sys::semctl(id, 1, GETVAL)?))?;
        cx.expect_eq("value in another process", seen, SEMVMX)
    })
};

const SETALL_GETALL: Probe = Probe {
    title: "GETALL reads what SETALL wrote, in the order of the numbers",
    why: "a whole table of locks is saved or initialised in one call",
    spec: &[man("semctl(2)", "SETALL"), man("semctl(2)", "GETALL"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.values.setall-getall", |cx| {
        let set = cx.sem_set(5)?;
        let values = vec![1, SEMVMX as u16, 0, 300, 2];
        cx.expect_ok(|| set.set_all(&values))?;
        cx.expect_eq("values", cx.expect_ok(|| set.values())?, values)?;
        cx.expect_eq("value of the fourth", set.value(3)?, 300)
    })
};

const LARGE_SET: Probe = Probe {
    title: "the values of a set are carried whatever its size",
    why: "above 256 semaphores the kernel copies through other memory; a truncated copy loses the last locks",
    spec: &[man("semctl(2)", "SETALL"), man("semctl(2)", "GETALL"), kernel("ipc/sem.c", "semctl_main")],
    calls: CALLS,
    ..Probe::new("sysv.sem.values.large-set", |cx| {
        let limit = sys::sem_info(sys::IPC_INFO)?.1.semmsl;
        for nsems in [256, 257, 2_000] {
            let set = cx.sem_set(nsems.min(limit))?;
            let values: Vec<u16> = (0..set.nsems).map(|n| u16::try_from(n * 7 % 32_768).unwrap_or(0)).collect();
            cx.expect_ok(|| set.set_all(&values))?;
            cx.expect("values", cx.expect_ok(|| set.values())? == values, "as set", "others")?;
            cx.expect_eq("value of the last", set.value(nsems.min(limit) - 1)?, i32::from(values[set.nsems - 1]))?;
        }
        Ok(())
    })
};

const GETALL_LENGTH: Probe = Probe {
    title: "GETALL writes one value for each semaphore, not one more",
    why: "callers size the array by sem_nsems; one more overwrites their stack",
    spec: &[man("semctl(2)", "GETALL"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.values.getall-length", |cx| {
        for nsems in [3, 300] {
            let set = cx.sem_set(nsems)?;
            let mut values = vec![0xaaaa; set.nsems + 8];
            cx.expect_ok(|| sys::sem_values_into(set.id, 0, &mut values))?;
            cx.expect_eq("values written", values.iter().position(|v| *v == 0xaaaa), Some(set.nsems))?;
        }
        Ok(())
    })
};

const NUM_IGNORED: Probe = Probe {
    title: "the commands on all values ignore the semaphore's number",
    why: "old programs pass rubbish or -1 as the number there, and work; a kernel that checked it would stop them",
    spec: &[man("semctl(2)", "GETALL"), man("semctl(2)", "SETALL")],
    calls: CALLS,
    ..Probe::new("sysv.sem.values.num-ignored", |cx| {
        let set = cx.sem_set(2)?;
        for num in [-1, 99, i32::MAX] {
            cx.expect_ok(|| sys::sem_set_values(set.id, num, &[6, 7]))?;
            let mut values = [0; 2];
            cx.expect_ok(|| sys::sem_values_into(set.id, num, &mut values))?;
            cx.expect_eq("values", values, [6, 7])?;
        }
        Ok(())
    })
};

/// SETVAL refuses the value; the semaphore keeps its own and whoever changed it last.
fn setval_refused(cx: &mut Context, value: i32) -> Outcome {
    let set = cx.sem_set(1)?;
    cx.expect_ok(|| set.set(0, 5))?;
    cx.expect_errno(ERANGE, || set.set(0, value))?;
    cx.expect_eq("value", set.value(0)?, 5)
}

const SETVAL_NEGATIVE: Probe = Probe {
    title: "SETVAL to a negative value is refused: ERANGE",
    why: "a miscalculated count would make every taker sleep for ever",
    spec: &[man("semctl(2)", "ERANGE"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.values.setval-negative", |cx| {
        setval_refused(cx, -1)?;
        setval_refused(cx, i32::MIN)
    })
};

const SETVAL_TOO_LARGE: Probe = Probe {
    title: "SETVAL above SEMVMX is refused: ERANGE",
    why: "cut to 16 bits the value would silently be another one",
    spec: &[man("semctl(2)", "ERANGE"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.values.setval-too-large", |cx| {
        for value in [SEMVMX + 1, 65_536 + 5, i32::MAX] {
            setval_refused(cx, value)?;
        }
        Ok(())
    })
};

/// SETALL refuses one value above SEMVMX; no semaphore changes.
fn setall_refused(cx: &mut Context, nsems: i32) -> Outcome {
    let set = cx.sem_set(nsems)?;
    set.set_all(&vec![3; set.nsems])?;
    let mut values = vec![9; set.nsems];
    for place in [0, set.nsems - 1] {
        values[place] = SEMVMX as u16 + 1;
        cx.expect_errno(ERANGE, || set.set_all(&values))?;
        values[place] = 9;
    }
    cx.expect_eq("semaphores that changed", set.values()?.iter().filter(|v| **v != 3).count(), 0)?;
    cx.expect_ok(|| set.set_all(&values))
}

const SETALL_TOO_LARGE: Probe = Probe {
    title: "SETALL with one value above SEMVMX sets none: ERANGE",
    why: "half an initialisation is worse than none",
    spec: &[man("semctl(2)", "ERANGE"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.values.setall-too-large", |cx| setall_refused(cx, 3))
};

const SETALL_TOO_LARGE_BIG_SET: Probe = Probe {
    title: "SETALL of more than 256 semaphores checks every value: ERANGE",
    why: "the kernel holds such an array elsewhere; it must check and free it all the same",
    spec: &[man("semctl(2)", "ERANGE"), kernel("ipc/sem.c", "semctl_main")],
    calls: CALLS,
    ..Probe::new("sysv.sem.values.setall-too-large-big-set", |cx| setall_refused(cx, 400))
};

/// Every command that names one semaphore refuses this number.
fn num_refused(cx: &mut Context, num: i32) -> Outcome {
    let set = cx.sem_set(3)?;
    for command in [GETVAL, GETPID, GETNCNT, GETZCNT] {
        cx.expect_ok(|| sys::semctl(set.id, 2, command))?;
        cx.expect_errno(EINVAL, || sys::semctl(set.id, num, command))?;
    }
    cx.expect_ok(|| set.set(2, 1))?;
    cx.expect_errno(EINVAL, || set.set(num, 1))?;
    cx.expect_eq("values", set.values()?, vec![0, 0, 1])
}

const NUM_PAST_END: Probe = Probe {
    title: "a semaphore number past the set's end is refused: EINVAL",
    why: "off by one must not read the kernel's memory behind the set",
    spec: &[posix("semctl"), kernel("ipc/sem.c", "semctl_main")],
    calls: CALLS,
    ..Probe::new("sysv.sem.values.num-past-end", |cx| {
        num_refused(cx, 3)?;
        num_refused(cx, i32::MAX)
    })
};

const NUM_NEGATIVE: Probe = Probe {
    title: "a negative semaphore number is refused: EINVAL",
    why: "'not found' indexes of -1 reach this call unchecked",
    spec: &[posix("semctl"), kernel("ipc/sem.c", "semctl_setval")],
    calls: CALLS,
    ..Probe::new("sysv.sem.values.num-negative", |cx| num_refused(cx, -1))
};

const GETALL_EFAULT: Probe = Probe {
    title: "GETALL to a bad address is refused: EFAULT",
    why: "the caller hears of its wild pointer instead of dying or reading old values",
    spec: &[man("semctl(2)", "EFAULT")],
    calls: CALLS,
    ..Probe::new("sysv.sem.values.getall-efault", |cx| {
        for nsems in [2, 300] {
            let set = cx.sem_set(nsems)?;
            let page = Map::new(sys::page_size(), libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
            for address in [0, page.address()] {
                cx.expect_errno(EFAULT, || sys::raw::semctl(set.id, 0, GETALL, address))?;
            }
        }
        Ok(())
    })
};

/// SETALL from an address that ends in the middle of the array; nothing is set.
fn setall_efault(cx: &mut Context, nsems: i32) -> Outcome {
    let set = cx.sem_set(nsems)?;
    set.set_all(&vec![1; set.nsems])?;
    let page = sys::page_size();
    let map = Map::shared_anonymous(2 * page)?;
    sys::mprotect(map.address() + page, page, libc::PROT_NONE)?;
    cx.expect_errno(EFAULT, || sys::raw::semctl(set.id, 0, SETALL, map.address() + page - 2))?;
    cx.expect_errno(EFAULT, || sys::raw::semctl(set.id, 0, SETALL, 0))?;
    cx.expect_eq("semaphores that changed", set.values()?.iter().filter(|v| **v != 1).count(), 0)
}

const SETALL_EFAULT: Probe = Probe {
    title: "SETALL from a bad address sets nothing: EFAULT",
    why: "the readable first values must not be set alone",
    spec: &[man("semctl(2)", "EFAULT")],
    calls: CALLS,
    ..Probe::new("sysv.sem.values.setall-efault", |cx| setall_efault(cx, 3))
};

const SETALL_EFAULT_BIG_SET: Probe = Probe {
    title: "SETALL of more than 256 values from a bad address: EFAULT",
    why: "the other copy path of the kernel, which also has to drop its hold on the set",
    spec: &[man("semctl(2)", "EFAULT"), kernel("ipc/sem.c", "semctl_main")],
    calls: CALLS,
    ..Probe::new("sysv.sem.values.setall-efault-big-set", |cx| setall_efault(cx, 300))
};

const SETALL_EIDRM: Probe = Probe {
    title: "a set removed while SETALL reads its array: EIDRM",
    why: "an administrator's ipcrm meets a program that starts: it must hear that its set is gone",
    spec: &[man("semctl(2)", "EIDRM"), kernel("ipc/sem.c", "semctl_main")],
    calls: &[Sys::Semctl, Sys::Userfaultfd],
    needs: &[Need::InitCap(caps::Capability::CAP_SYS_PTRACE)],
    ..Probe::new("sysv.sem.values.setall-eidrm", setall_eidrm)
};
fn setall_eidrm(cx: &mut Context) -> Outcome {
    let mut set = cx.sem_set(2)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let page = Map::new(sys::page_size(), libc::PROT_READ | libc::PROT_WRITE, flags, -1)?;
    let trap = FaultTrap::new(page.address(), page.len())?;
    let (id, address) = (set.id, page.address());
    // A thread, because the trap watches this process's memory; it stops in the kernel's copy of the array.
    let setter = std::thread::spawn(move || sys::raw::semctl(id, 0, SETALL, address));
    let reached = trap.touched(5_000)?;
    if reached {
        set.remove()?;
    }
    trap.release()?;
    let end = setter.join().map_err(|_| shmcheck_probe::Stop::broken("the setting thread panicked"))?;
    cx.expect("SETALL reads its array", reached, "a read of the page", "none")?;
    cx.expect_errno(EIDRM, || end)
}

const UNKNOWN_COMMAND: Probe = Probe {
    title: "an unknown command is refused: EINVAL",
    why: "programs find out by it whether a newer command exists",
    spec: &[man("semctl(2)", "EINVAL"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.values.unknown-command", |cx| {
        let set = cx.sem_set(1)?;
        for command in [-1, 9, 77, 0x7fff_ffff] {
            cx.expect_errno(EINVAL, || sys::raw::semctl(set.id, 0, command, 0))?;
        }
        Ok(())
    })
};

/// All commands with their number; those with an argument get a null one, which is not reached.
const COMMANDS: [i32; 9] = [GETVAL, GETPID, GETNCNT, GETZCNT, GETALL, SETALL, SETVAL, libc::IPC_STAT, libc::IPC_RMID];

const UNKNOWN_ID: Probe = Probe {
    title: "every command refuses an identifier that no set has: EINVAL",
    why: "a stale number must not act on the set that now has its slot",
    spec: &[man("semctl(2)", "EINVAL"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.values.unknown-id", |cx| {
        let set = cx.sem_set(1)?;
        for id in [-1, i32::MIN, set.id ^ 0x4000_0000, i32::MAX] {
            for command in COMMANDS {
                cx.expect_errno(EINVAL, || sys::raw::semctl(id, 0, command, 0))?;
            }
            cx.expect_errno(EINVAL, || sys::sem_set(id, 0, 0, 0))?;
        }
        cx.expect_eq("sem_perm.mode", set.stat()?.mode, 0o600)
    })
};

const REMOVED_ID: Probe = Probe {
    title: "every command refuses the identifier of a removed set: EINVAL",
    why: "clients that ask on after a shutdown have to notice it",
    spec: &[man("semctl(2)", "EINVAL"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.values.removed-id", |cx| {
        let mut set = cx.sem_set(1)?;
        cx.expect_ok(|| set.value(0))?;
        set.remove()?;
        for command in COMMANDS {
            cx.expect_errno(EINVAL, || sys::raw::semctl(set.id, 0, command, 0))?;
        }
        cx.expect_errno(EINVAL, || sys::sem_set(set.id, 0, 0, 0))
    })
};

const RAW_SETVAL: Probe = Probe {
    title: "the semctl system call takes SETVAL's value as an int",
    why: "the argument is a union: rubbish in the upper half of the register is allowed",
    spec: &[man("semctl(2)", "DESCRIPTION"), kernel("ipc/sem.c", "ksys_semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.values.raw-setval", |cx| {
        let set = cx.sem_set(1)?;
        // 64-bit little-endian machines pass the int in the lower half.
        #[cfg(all(target_pointer_width = "64", target_endian = "little"))]
        cx.expect_ok(|| sys::raw::semctl(set.id, 0, SETVAL, 0x7777_0000_0000_0011))?;
        #[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
        set.set(0, 17)?;
        cx.expect_eq("value", cx.expect_ok(|| sys::raw::semctl(set.id, 0, GETVAL, 0))?, 17)
    })
};
