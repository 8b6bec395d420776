//! sem_otime and sem_ctime: which calls move them.
//!
//! Both have a resolution of one second, and a new set starts with sem_ctime at the current one. That a call moves
//! a time is seen only after the second has changed; each of these probes waits for that once, for all its calls.

use shmcheck_probe::sys::{self, SemOp};
use shmcheck_probe::{Context, Outcome, Probe, SemSet, Stop, Sys, man, posix};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[&CTIME_MOVES, &OTIME_MOVES, &OTIME_OF_SETTING];

const CALLS: &[Sys] = &[Sys::Semctl, Sys::Semop, Sys::Semtimedop];

/// Waits until the clock that the kernel stamps with shows another second than that of `earlier`.
fn next_second(cx: &Context, earlier: i64) -> Result<(), Stop> {
    // Nothing announces a new second. Up to it the process sleeps, so that other probes have the processor.
    let (seconds, nanoseconds) = sys::clock(libc::CLOCK_REALTIME);
    if seconds == earlier {
        std::thread::sleep(std::time::Duration::from_nanos((1_000_000_000 - nanoseconds).cast_unsigned()));
    }
    cx.until("the next second begins", || Ok(sys::now_seconds() > earlier))
}

/// A call on one set, and whether it moves the time.
type Move = (&'static str, bool, fn(&SemSet) -> sys::Result<()>);

/// Prepares a set for every call, waits for the next second, makes the calls; the times must be as claimed.
fn moves(
    cx: &mut Context,
    prepare: fn(&SemSet) -> sys::Result<()>,
    time: fn(&sys::SemStat) -> i64,
    calls: &[Move],
) -> Outcome {
    let sets: Vec<SemSet> = calls.iter().map(|_| cx.sem_set(2)).collect::<Result<_, _>>()?;
    sets.iter().try_for_each(prepare)?;
    let before: Vec<i64> = sets.iter().map(|set| Ok(time(&set.stat()?))).collect::<sys::Result<_>>()?;
    next_second(cx, sys::now_seconds())?;
    for ((name, moved, call), (set, before)) in calls.iter().zip(sets.iter().zip(before)) {
        let start = sys::now_seconds();
        call(set)?;
        let end = sys::now_seconds();
        let after = time(&set.stat()?);
        if *moved {
            cx.expect(name, (start..=end).contains(&after), format!("{start} to {end}, the time of the call"), after)?;
        } else {
            cx.expect_eq(name, after, before)?;
        }
    }
    Ok(())
}

fn owner_set(set: &SemSet) -> sys::Result<()> {
    sys::sem_set(set.id, sys::geteuid(), sys::getegid(), 0o640)
}

fn read(set: &SemSet) -> sys::Result<()> {
    set.values()?;
    set.last_pid(0)?;
    set.waiting(0)?;
    set.waiting_zero(0)?;
    set.value(0).map(drop)
}

const CTIME_MOVES: Probe = Probe {
    title: "sem_ctime is the time of the last IPC_SET, SETVAL or SETALL",
    why: "audits ask when a set was last reconfigured; use is no configuration",
    spec: &[man("semctl(2)", "semid_ds"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.times.ctime", |cx| {
        moves(
            cx,
            |_| Ok(()),
            |stat| stat.ctime,
            &[
                ("sem_ctime after IPC_SET", true, owner_set),
                ("sem_ctime after SETVAL", true, |set| set.set(1, 2)),
                ("sem_ctime after SETALL", true, |set| set.set_all(&[1, 2])),
                ("sem_ctime after semop", false, |set| set.op(&[SemOp::add(0, 1)])),
                ("sem_ctime after reading", false, read),
                ("sem_ctime after a refused SETVAL", false, |set| {
                    let _ = set.set(0, -1);
                    Ok(())
                }),
                ("sem_ctime after a lookup", false, |set| sys::semget(set.key, 2, 0o600).map(drop)),
            ],
        )
    })
};

const OTIME_MOVES: Probe = Probe {
    title: "sem_otime is the time of the last completed semop",
    why: "idle detection and clean-up by age take it for the last use",
    spec: &[man("semop(2)", "DESCRIPTION"), man("semctl(2)", "semid_ds"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.times.otime", |cx| {
        moves(
            cx,
            |set| set.op(&[SemOp::add(0, 5)]),
            |stat| stat.otime,
            &[
                ("sem_otime after an increase", true, |set| set.op(&[SemOp::add(1, 1)])),
                ("sem_otime after a decrease", true, |set| set.op(&[SemOp::add(0, -1)])),
                ("sem_otime after a wait for zero", true, |set| set.op(&[SemOp::zero(1)])),
                ("sem_otime after an array", true, |set| set.op(&[SemOp::add(0, 1), SemOp::add(1, 1)])),
                ("sem_otime after the system call", true, |set| sys::raw::semop(set.id, &[SemOp::add(1, 1)])),
                ("sem_otime after a refused semop", false, |set| {
                    let _ = set.op(&[SemOp::add(1, -1).nowait()]);
                    Ok(())
                }),
                ("sem_otime after SETVAL", false, |set| set.set(1, 2)),
                ("sem_otime after IPC_SET", false, owner_set),
                ("sem_otime after reading", false, read),
            ],
        )
    })
};

const OTIME_OF_SETTING: Probe = Probe {
    title: "values set by semctl leave sem_otime of an unused set at 0",
    why: "the initialisation protocol waits for the creator's first semop, which comes after its SETALL",
    spec: &[man("semget(2)", "Semaphore initialization"), man("semctl(2)", "semid_ds")],
    calls: CALLS,
    ..Probe::new("sysv.sem.times.otime-of-setting", |cx| {
        let set = cx.sem_set(2)?;
        set.set(0, 1)?;
        set.set_all(&[1, 1])?;
        owner_set(&set)?;
        cx.expect_eq("sem_otime", set.stat()?.otime, 0)?;
        set.op(&[SemOp::add(0, -1)])?;
        cx.expect_ne("sem_otime after semop", set.stat()?.otime, 0)
    })
};
