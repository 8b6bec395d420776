//! sem_otime and sem_ctime: which calls move them.
//!
//! Both have a resolution of one second, and a new set starts with sem_ctime at the current one. That a call moves
//! a time is seen only after the second has changed; one probe waits for that once, for all calls.

use shmcheck_probe::sys::{self, SemOp, SemStat};
use shmcheck_probe::{Context, Outcome, Probe, SemSet, Stop, Sys, man, posix};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[&MOVE, &OTIME_OF_SETTING];

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

/// A time of a set, a call on the set, and whether the call moves the time.
type Move = (&'static str, fn(&SemStat) -> i64, bool, fn(&SemSet) -> sys::Result<()>);

const OTIME: fn(&SemStat) -> i64 = |stat| stat.otime;
const CTIME: fn(&SemStat) -> i64 = |stat| stat.ctime;

const MOVES: &[Move] = &[
    ("sem_ctime after IPC_SET", CTIME, true, owner_set),
    ("sem_ctime after SETVAL", CTIME, true, |set| set.set(1, 2)),
    ("sem_ctime after SETALL", CTIME, true, |set| set.set_all(&[1, 2])),
    ("sem_ctime after semop", CTIME, false, |set| set.op(&[SemOp::add(0, 1)])),
    ("sem_ctime after reading", CTIME, false, read),
    ("sem_ctime after a refused SETVAL", CTIME, false, |set| refused(set.set(0, -1))),
    ("sem_ctime after a lookup", CTIME, false, |set| sys::semget(set.key, 2, 0o600).map(drop)),
    ("sem_otime after an increase", OTIME, true, |set| set.op(&[SemOp::add(1, 1)])),
    ("sem_otime after a decrease", OTIME, true, |set| set.op(&[SemOp::add(0, -1)])),
    ("sem_otime after a wait for zero", OTIME, true, |set| set.op(&[SemOp::zero(1)])),
    ("sem_otime after an array", OTIME, true, |set| set.op(&[SemOp::add(0, 1), SemOp::add(1, 1)])),
    ("sem_otime after the system call", OTIME, true, |set| sys::raw::semop(set.id, &[SemOp::add(1, 1)])),
    ("sem_otime after a refused semop", OTIME, false, |set| refused(set.op(&[SemOp::add(1, -1).nowait()]))),
    ("sem_otime after SETVAL", OTIME, false, |set| set.set(1, 2)),
    ("sem_otime after SETALL", OTIME, false, |set| set.set_all(&[1, 2])),
    ("sem_otime after IPC_SET", OTIME, false, owner_set),
    ("sem_otime after reading", OTIME, false, read),
];

const MOVE: Probe = Probe {
    title: "sem_otime, sem_ctime move with exactly the calls semctl(2) names",
    why: "clean-up by age takes sem_otime for the last use, audits take sem_ctime for the last configuration",
    spec: &[man("semctl(2)", "semid_ds"), man("semop(2)", "DESCRIPTION"), posix("semctl"), posix("semop")],
    calls: CALLS,
    waits: true,
    ..Probe::new("sysv.sem.times.move", moves)
};
fn moves(cx: &mut Context) -> Outcome {
    let sets: Vec<SemSet> = MOVES.iter().map(|_| cx.sem_set(2)).collect::<Result<_, _>>()?;
    let mut before = Vec::new();
    for (set, (_, time, ..)) in sets.iter().zip(MOVES) {
        set.op(&[SemOp::add(0, 5)])?;
        before.push(time(&set.stat()?));
    }
    next_second(cx, sys::now_seconds())?;
    for ((name, time, moved, call), (set, before)) in MOVES.iter().zip(sets.iter().zip(before)) {
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

/// The call is one that other probes show to be refused.
fn refused(result: sys::Result<()>) -> sys::Result<()> {
    let _ = result;
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
