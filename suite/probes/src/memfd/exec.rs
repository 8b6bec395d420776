//! Executable or not: MFD_EXEC, MFD_NOEXEC_SEAL, F_SEAL_EXEC, and running a program from a memfd.

use super::{executable, reopen, sealable};
use libc::{EACCES, EBUSY, EINVAL, EPERM, O_RDONLY};
use shmcheck_probe::{Context, Exit, Isolate, Map, Need, Outcome, Probe, Stop, Sys, Tiny, doc, kernel, man, sys};
use std::os::fd::{AsRawFd, OwnedFd};
use sys::{
    F_SEAL_EXEC, F_SEAL_FUTURE_WRITE, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, MFD_ALLOW_SEALING,
    MFD_CLOEXEC, MFD_EXEC, MFD_NOEXEC_SEAL, add_seals, get_seals, memfd_create,
};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &MODE_EXEC,
    &MODE_NOEXEC,
    &NOEXEC_SEALABLE,
    &BOTH_EINVAL,
    &UMASK,
    &NOEXEC_CHMOD,
    &SEAL_KEEPS_MODE,
    &SEAL_OTHER_BITS,
    &SEAL_IMPLIES,
    &SEAL_ALONE,
    &SEAL_EBUSY,
    &RUNS,
    &RUNS_SEALED,
    &NOEXEC_RUNS_NOT,
    &CHMOD_RUNS_NOT,
];

/// The file tells that the kernel knows the two flags and the seal: they came together in Linux 6.3.
const NEEDS: &[Need] = &[Need::Path("/proc/sys/vm/memfd_noexec")];
const CALLS: &[Sys] = &[Sys::MemfdCreate];
const GUIDE: &str = "Documentation/userspace-api/mfd_noexec.rst";

/// Mode bits and seals of a file.
pub(super) fn mode_and_seals(fd: &OwnedFd) -> Result<(u32, i32), Stop> {
    Ok((sys::fstat(fd.as_raw_fd())?.st_mode & 0o7777, get_seals(fd.as_raw_fd())?))
}

const MODE_EXEC: Probe = Probe {
    title: "MFD_EXEC makes a memfd of mode 0777 without F_SEAL_EXEC",
    why: "JITs and loaders that run code from memory ask for it; without the bits their exec fails",
    spec: &[doc(GUIDE, "MFD_EXEC"), kernel("mm/memfd.c", "memfd_create")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.exec.exec-mode", |cx| {
        executable()?;
        for (flags, seals) in [(MFD_EXEC, F_SEAL_SEAL), (MFD_EXEC | MFD_ALLOW_SEALING, 0)] {
            let fd = cx.expect_ok(|| memfd_create("code", flags))?;
            cx.expect_eq("mode and seals", mode_and_seals(&fd)?, (0o777, seals))?;
        }
        Ok(())
    })
};

const MODE_NOEXEC: Probe = Probe {
    title: "MFD_NOEXEC_SEAL makes a memfd of mode 0666 with F_SEAL_EXEC",
    why: "a buffer is data: malware that is written into it must not run from there",
    spec: &[doc(GUIDE, "MFD_NOEXEC_SEAL"), kernel("mm/memfd.c", "memfd_create")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.exec.noexec-mode", |cx| {
        let fd = cx.expect_ok(|| memfd_create("data", MFD_NOEXEC_SEAL))?;
        cx.expect_eq("mode and seals", mode_and_seals(&fd)?, (0o666, F_SEAL_EXEC))
    })
};

const NOEXEC_SEALABLE: Probe = Probe {
    title: "MFD_NOEXEC_SEAL allows sealing without MFD_ALLOW_SEALING",
    why: "programs switch to the flag and keep adding their seals",
    spec: &[doc(GUIDE, "MFD_NOEXEC_SEAL"), kernel("mm/memfd.c", "memfd_create")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.exec.noexec-sealable", |cx| {
        let fd = memfd_create("data", MFD_NOEXEC_SEAL)?;
        cx.expect_ok(|| add_seals(fd.as_raw_fd(), F_SEAL_GROW | F_SEAL_SEAL))?;
        cx.expect_eq("seals", get_seals(fd.as_raw_fd())?, F_SEAL_EXEC | F_SEAL_GROW | F_SEAL_SEAL)?;
        cx.expect_errno(EPERM, || sys::ftruncate(fd.as_raw_fd(), 1))
    })
};

const BOTH_EINVAL: Probe = Probe {
    title: "MFD_EXEC together with MFD_NOEXEC_SEAL fails with EINVAL",
    why: "a contradiction must not be resolved to the less safe side",
    spec: &[kernel("mm/memfd.c", "memfd_create: Invalid if both EXEC and NOEXEC_SEAL are set"), doc(GUIDE, "")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.exec.both-flags", |cx| {
        cx.expect_errno(EINVAL, || memfd_create("both", MFD_EXEC | MFD_NOEXEC_SEAL))?;
        cx.expect_errno(EINVAL, || memfd_create("both", MFD_EXEC | MFD_NOEXEC_SEAL | MFD_ALLOW_SEALING))
    })
};

const UMASK: Probe = Probe {
    title: "the umask does not apply to a memfd",
    why: "its mode matters to whoever re-opens it through /proc; it must not depend on the caller's habits",
    spec: &[kernel("mm/shmem.c", "shmem_file_setup: S_IRWXUGO"), doc(GUIDE, "")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.exec.umask", |cx| {
        for mask in [0, 0o077, 0o777] {
            sys::umask(mask);
            let fd = memfd_create("mode", MFD_NOEXEC_SEAL)?;
            cx.expect_eq(&format!("mode under umask {mask:o}"), mode_and_seals(&fd)?.0, 0o666)?;
        }
        Ok(())
    })
};

const NOEXEC_CHMOD: Probe = Probe {
    title: "a file of MFD_NOEXEC_SEAL cannot be made executable: EPERM",
    why: "without it the attack is one fchmod away: drop a program into the memfd, make it executable, run it",
    spec: &[doc(GUIDE, "MFD_NOEXEC_SEAL"), kernel("mm/shmem.c", "shmem_setattr: F_SEAL_EXEC")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.exec.noexec-chmod", |cx| {
        let fd = memfd_create("data", MFD_NOEXEC_SEAL)?;
        for mode in [0o777, 0o766, 0o676, 0o667] {
            cx.expect_errno(EPERM, || sys::tmpfs::fchmod(fd.as_raw_fd(), mode))?;
        }
        cx.expect_eq("mode", mode_and_seals(&fd)?.0, 0o666)
    })
};

const SEAL_KEEPS_MODE: Probe = Probe {
    title: "F_SEAL_EXEC on an executable file keeps its execute bits: EPERM",
    why: "a verified program in memory stays what it was verified as, runnable too",
    spec: &[kernel("mm/shmem.c", "shmem_setattr: F_SEAL_EXEC"), doc(GUIDE, "F_SEAL_EXEC")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.exec.seal-keeps-x", |cx| {
        executable()?;
        let fd = memfd_create("code", MFD_EXEC | MFD_ALLOW_SEALING)?;
        cx.expect_ok(|| sys::tmpfs::fchmod(fd.as_raw_fd(), 0o700))?;
        add_seals(fd.as_raw_fd(), F_SEAL_EXEC)?;
        for mode in [0o600, 0o711, 0] {
            cx.expect_errno(EPERM, || sys::tmpfs::fchmod(fd.as_raw_fd(), mode))?;
        }
        cx.expect_eq("mode", mode_and_seals(&fd)?.0, 0o700)
    })
};

const SEAL_OTHER_BITS: Probe = Probe {
    title: "F_SEAL_EXEC leaves the read and write bits changeable",
    why: "access for others is regulated by them even on a sealed buffer",
    spec: &[kernel("mm/shmem.c", "shmem_setattr: F_SEAL_EXEC"), doc(GUIDE, "F_SEAL_EXEC")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.exec.seal-other-bits", |cx| {
        let fd = memfd_create("data", MFD_NOEXEC_SEAL)?;
        for mode in [0o600, 0o444, 0] {
            cx.expect_ok(|| sys::tmpfs::fchmod(fd.as_raw_fd(), mode))?;
            cx.expect_eq("mode", mode_and_seals(&fd)?.0, mode)?;
        }
        Ok(())
    })
};

const SEAL_IMPLIES: Probe = Probe {
    title: "F_SEAL_EXEC on an executable file seals writing and size as well",
    why: "'write or execute': code that can still be changed would make the seal worthless",
    spec: &[kernel("mm/memfd.c", "memfd_add_seals: SEAL_EXEC implies SEAL_WRITE"), doc(GUIDE, "F_SEAL_EXEC")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.exec.seal-implies-write", |cx| {
        executable()?;
        let fd = memfd_create("code", MFD_EXEC | MFD_ALLOW_SEALING)?;
        sys::pwrite(fd.as_raw_fd(), b"code", 0)?;
        add_seals(fd.as_raw_fd(), F_SEAL_EXEC)?;
        let implied = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE;
        cx.expect_eq("seals", get_seals(fd.as_raw_fd())?, F_SEAL_EXEC | implied)?;
        cx.expect_errno(EPERM, || sys::pwrite(fd.as_raw_fd(), b"evil", 0))?;
        cx.expect_errno(EPERM, || sys::ftruncate(fd.as_raw_fd(), 0))
    })
};

const SEAL_ALONE: Probe = Probe {
    title: "F_SEAL_EXEC on a file without execute bits seals nothing else",
    why: "a data buffer stays writable; this is what MFD_NOEXEC_SEAL hands to every program",
    spec: &[kernel("mm/memfd.c", "memfd_add_seals"), doc(GUIDE, "F_SEAL_EXEC")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.exec.seal-alone", |cx| {
        let fd = sealable()?;
        if get_seals(fd.as_raw_fd())? == 0 {
            sys::tmpfs::fchmod(fd.as_raw_fd(), 0o600)?;
            cx.expect_ok(|| add_seals(fd.as_raw_fd(), F_SEAL_EXEC))?;
        }
        cx.expect_eq("seals", get_seals(fd.as_raw_fd())?, F_SEAL_EXEC)?;
        cx.expect_ok(|| sys::pwrite(fd.as_raw_fd(), b"data", 0))?;
        cx.expect_ok(|| Map::shared(&fd, 4)).map(drop)
    })
};

const SEAL_EBUSY: Probe = Probe {
    title: "F_SEAL_EXEC on an executable file that is mapped writable: EBUSY",
    why: "the implied write seal cannot hold while someone can store into the code",
    spec: &[man("fcntl(2)", "EBUSY"), kernel("mm/memfd.c", "memfd_add_seals: SEAL_EXEC implies SEAL_WRITE")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.exec.seal-ebusy", |cx| {
        executable()?;
        let fd = super::size(memfd_create("code", MFD_EXEC | MFD_ALLOW_SEALING)?, 16)?;
        let map = Map::shared(&fd, 16)?;
        cx.expect_errno(EBUSY, || add_seals(fd.as_raw_fd(), F_SEAL_EXEC))?;
        cx.expect_eq("seals", get_seals(fd.as_raw_fd())?, 0)?;
        map.close()?;
        cx.expect_ok(|| add_seals(fd.as_raw_fd(), F_SEAL_EXEC))
    })
};

/// A memfd with a program that ends with code 7; executable unless the flags say otherwise.
fn program(flags: u32) -> Result<OwnedFd, Stop> {
    let Some(elf) = Tiny::Exit(7).elf() else {
        return Err(Stop::skip("tiny-program", std::env::consts::ARCH));
    };
    let fd = memfd_create("program", MFD_CLOEXEC | flags)?;
    sys::pwrite(fd.as_raw_fd(), &elf, 0)?;
    Ok(fd)
}

/// How a process ends that executes the file: the program's own code, or the errno's name.
fn executed(cx: &mut Context, fd: &OwnedFd) -> Result<String, Stop> {
    let peer = cx.fork::<()>(|_| {
        let refused = sys::fexecve(fd.as_raw_fd());
        sys::exit_now(100 + refused.errno.min(100))
    })?;
    Ok(match peer.exit()? {
        Exit::Code(code) if code > 100 => sys::errno_name(code - 100).to_owned(),
        exit => exit.to_string(),
    })
}

const RUNS: Probe = Probe {
    title: "a program in an executable memfd runs by fexecve",
    why: "runc and other runtimes copy themselves into a memfd before they enter a container, against CVE-2019-5736",
    varies: "vm.memfd_noexec and security modules forbid it",
    spec: &[doc(GUIDE, "MFD_EXEC"), man("fexecve(3)", "DESCRIPTION")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.exec.runs", |cx| {
        executable()?;
        let fd = program(MFD_EXEC)?;
        let end = executed(cx, &fd)?;
        cx.expect_eq("end of the process", end.as_str(), "exit 7")
    })
};

const RUNS_SEALED: Probe = Probe {
    title: "a fully sealed program in a memfd runs",
    why: "runc seals its copy so that no container can overwrite the runtime through /proc",
    varies: "vm.memfd_noexec and security modules forbid it",
    spec: &[doc(GUIDE, "MFD_EXEC"), man("memfd_create(2)", "NOTES")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.exec.runs-sealed", |cx| {
        executable()?;
        let fd = program(MFD_EXEC | MFD_ALLOW_SEALING)?;
        add_seals(fd.as_raw_fd(), F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_EXEC)?;
        let reader = reopen(&fd, O_RDONLY)?;
        let end = executed(cx, &reader)?;
        cx.expect_eq("end of the process", end.as_str(), "exit 7")
    })
};

const NOEXEC_RUNS_NOT: Probe = Probe {
    title: "a program in a memfd of MFD_NOEXEC_SEAL does not run: EACCES",
    why: "the point of the flag; root is refused like everybody",
    spec: &[doc(GUIDE, "MFD_NOEXEC_SEAL"), man("execve(2)", "EACCES")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.exec.noexec-runs-not", |cx| {
        let fd = program(MFD_NOEXEC_SEAL)?;
        let end = executed(cx, &fd)?;
        cx.expect_eq("fexecve", end.as_str(), "EACCES")
    })
};

const CHMOD_RUNS_NOT: Probe = Probe {
    title: "without execute bits a program in a memfd does not run: EACCES",
    why: "the bits decide, not the seal: a file without both is plain data",
    spec: &[man("execve(2)", "EACCES")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.exec.mode-runs-not", mode_runs_not)
};
fn mode_runs_not(cx: &mut Context) -> Outcome {
    executable()?;
    let fd = program(MFD_EXEC)?;
    sys::tmpfs::fchmod(fd.as_raw_fd(), 0o666)?;
    let refused = executed(cx, &fd)?;
    cx.expect_eq("fexecve of mode 0666", refused.as_str(), sys::errno_name(EACCES))?;
    sys::tmpfs::fchmod(fd.as_raw_fd(), 0o777)?;
    let end = executed(cx, &fd)?;
    cx.expect_eq("end of the process with mode 0777", end.as_str(), "exit 7")
}
