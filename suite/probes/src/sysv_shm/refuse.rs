//! shmat(2): what it refuses, and that a refusal leaves no trace.

use super::parts::{expect_no_change, page, plainly, segment};
use libc::{EACCES, EIDRM, EINVAL, ENOMEM};
use shmcheck_probe::sys::{self, SHM_RDONLY};
use shmcheck_probe::{Context, Map, Outcome, Probe, Sys, kernel, man, posix, procfs};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[&WRITE_ONLY, &BAD_ID, &REMOVED_ID, &MARKED_ID, &NO_MEMORY, &REFUSED_UNCHANGED];

const WRITE_ONLY: Probe = Probe {
    title: "there is no write-only attach: mode 0200 cannot be attached",
    why: "a log sink with mode 0200 looks like a good idea and cannot work: the refusal must come at once",
    spec: &[man("shmop(2)", "SHM_RDONLY"), man("shmop(2)", "EACCES")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.write-only-eacces", write_only)
};
fn write_only(cx: &mut Context) -> Outcome {
    let (both, write) = (segment(cx, 1, 0o600)?, segment(cx, 1, 0o200)?);
    plainly(cx, |cx| {
        cx.expect_ok(|| sys::shmat(both.id, 0))?;
        cx.expect_errno(EACCES, || sys::shmat(write.id, 0))?;
        cx.expect_errno(EACCES, || sys::shmat(write.id, SHM_RDONLY))
    })
}

const BAD_ID: Probe = Probe {
    title: "shmat of an identifier that never was fails with EINVAL",
    why: "a client with a stale or corrupted identifier gets an error, not somebody else's memory",
    spec: &[man("shmop(2)", "EINVAL"), posix("shmat")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.bad-id-einval", bad_id)
};
fn bad_id(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o600)?;
    made.attach(0)?;
    // The same index with another sequence number, and numbers no identifier has.
    for id in [made.id ^ 1 << 30, -1, i32::MIN, i32::MAX] {
        cx.expect_errno(EINVAL, || sys::shmat(id, 0))?;
        cx.expect_errno(EINVAL, || sys::raw::shmat(id, 0, 0))?;
    }
    cx.expect_eq("shm_nattch of the segment that is", made.stat()?.nattch, 0)
}

const REMOVED_ID: Probe = Probe {
    title: "shmat of a removed identifier fails with EINVAL or EIDRM",
    why: "a client that outlived its server learns so by this errno and reconnects",
    spec: &[man("shmop(2)", "RETURN VALUE"), posix("shmat")],
    calls: &[Sys::Shmat, Sys::Shmctl],
    ..Probe::new("sysv.shm.at.removed-id", removed_id)
};
fn removed_id(cx: &mut Context) -> Outcome {
    let mut made = segment(cx, 1, 0o600)?;
    made.attach(0)?;
    made.remove()?;
    // The manual has EIDRM for it and POSIX only EINVAL, which is what Linux gives outside a narrow race.
    cx.expect_errno_of(&[EINVAL, EIDRM], || sys::shmat(made.id, 0))
}

const MARKED_ID: Probe = Probe {
    title: "a segment marked for removal can still be attached by identifier",
    why: "programs remove right after the first attach, so that no crash leaks; later children attach by the number",
    spec: &[man("shmctl(2)", "NOTES"), man("shmop(2)", "NOTES")],
    calls: &[Sys::Shmat, Sys::Shmctl],
    ..Probe::new("sysv.shm.at.marked-id", marked_id)
};
fn marked_id(cx: &mut Context) -> Outcome {
    let mut made = segment(cx, 1, 0o600)?;
    let first = made.attach(0)?;
    first.write(0, 12);
    made.remove()?;
    let second = cx.expect_ok(|| sys::shmat(made.id, 0))?;
    cx.expect_eq("byte of the late attach", Map::attached(second, page()).read(0), 12)
}

const NO_MEMORY: Probe = Probe {
    title: "shmat beyond RLIMIT_AS fails with ENOMEM",
    why: "a batch system limits address space: the program must hear it at the attach, and leave no count behind",
    fix: "raise the limit of address space (ulimit -v)",
    spec: &[man("shmop(2)", "ENOMEM"), man("getrlimit(2)", "RLIMIT_AS")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.rlimit-as-enomem", no_memory)
};
fn no_memory(cx: &mut Context) -> Outcome {
    let made = segment(cx, 256, 0o600)?;
    cx.expect_ok(|| sys::shmat(made.id, 0)).and_then(|at| Ok(sys::shmdt(at)?))?;
    expect_no_change(cx, made.id, |cx| {
        let (_, hard) = sys::getrlimit(libc::RLIMIT_AS)?;
        let used = procfs::read("/proc/self/statm")?.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        sys::setrlimit(libc::RLIMIT_AS, (used + 128) * page() as u64, hard)?;
        let refused = cx.expect_errno(ENOMEM, || sys::shmat(made.id, 0));
        sys::setrlimit(libc::RLIMIT_AS, hard, hard)?;
        refused
    })
}

const REFUSED_UNCHANGED: Probe = Probe {
    title: "a refused shmat leaves nattch, atime and lpid alone",
    why: "a client that tries and fails must not keep a segment alive, or look like its last user",
    spec: &[man("shmop(2)", "DESCRIPTION"), kernel("ipc/shm.c", "do_shmat")],
    calls: &[Sys::Shmat],
    ..Probe::new("sysv.shm.at.refused-unchanged", refused_unchanged)
};
fn refused_unchanged(cx: &mut Context) -> Outcome {
    let made = segment(cx, 1, 0o400)?;
    // Refused with EACCES before the count rises, and with EINVAL after it had to rise and fall again.
    let occupied = Map::shared_anonymous(page())?;
    expect_no_change(cx, made.id, |cx| {
        plainly(cx, |cx| cx.expect_errno(EACCES, || sys::shmat(made.id, 0)))?;
        cx.expect_errno(EINVAL, || sys::shmat_addr(made.id, 1, SHM_RDONLY))?;
        cx.expect_errno(EINVAL, || sys::shmat_addr(made.id, occupied.address(), SHM_RDONLY))
    })
}
