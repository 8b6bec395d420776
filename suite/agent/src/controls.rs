//! Control experiments: is a call refused whatever its arguments?
//!
//! Each call is made with arguments that the kernel rejects in a known way, where possible in two different ways. A
//! filter gives the same answer to both; the kernel does not.

use libc::{EBADF, EFAULT, EINVAL, ENOENT, ESRCH, c_long};
use shmcheck_probe::{Sys, sys};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};

/// A key that nobody uses: it lies in the suite's range with a tag no run has.
const NO_KEY: c_long = 0x5fff_fffe;

/// Arguments and the errno that the kernel answers them with; 0 for success.
type Control = (&'static [c_long], i32);

/// The control experiments of a call.
fn controls(call: Sys) -> &'static [Control] {
    match call {
        Sys::Shmget => &[(&[NO_KEY, 0, 0], ENOENT), (&[0, 0, 0], EINVAL)],
        Sys::Shmat => &[(&[-1, 0, 0], EINVAL)],
        Sys::Shmdt => &[(&[1], EINVAL)],
        Sys::Shmctl | Sys::Msgctl => &[(&[-1, 2, 0], EINVAL), (&[0, 3, 0], EFAULT)],
        Sys::Semget => &[(&[NO_KEY, 0, 0], ENOENT), (&[0, -1, 0], EINVAL)],
        Sys::Semop | Sys::Semtimedop => &[(&[-1, 0, 0, 0], EINVAL), (&[0, 0, 1_000_000, 0], libc::E2BIG)],
        Sys::Semctl => &[(&[-1, 0, 2, 0], EINVAL), (&[0, 0, 3, 0], EFAULT)],
        Sys::Msgget => &[(&[NO_KEY, 0], ENOENT)],
        Sys::Msgsnd => &[(&[-1, 0, 0, 0], EFAULT)],
        Sys::Msgrcv => &[(&[-1, 0, 0, 0, 0], EINVAL)],
        Sys::MqOpen => &[(&[0, 0, 0, 0], EFAULT)],
        Sys::MqUnlink => &[(&[0], EFAULT)],
        Sys::MqTimedsend | Sys::MqTimedreceive => &[(&[-1, 0, 0, 0, 0], EBADF)],
        Sys::MqNotify => &[(&[-1, 0], EBADF)],
        Sys::MqGetsetattr => &[(&[-1, 0, 0], EBADF)],
        Sys::Mmap => &[(&[0, 0, 0, 0x22, -1, 0], EINVAL)],
        Sys::Munmap => &[(&[1, 1], EINVAL)],
        Sys::Mremap => &[(&[1, 1, 1, 0, 0], EINVAL)],
        Sys::RemapFilePages => &[(&[0, 0x1000, 1, 0, 0], EINVAL)],
        Sys::Mprotect | Sys::Msync | Sys::Madvise | Sys::Mincore => &[(&[1, 1, 0], EINVAL)],
        Sys::Mlock | Sys::Munlock => &[(&[0, 0], 0)],
        Sys::Mlock2 => &[(&[0, 0, 0x80], EINVAL)],
        Sys::Mlockall => &[(&[0], EINVAL)],
        Sys::Munlockall => &[(&[], 0)],
        Sys::Ftruncate => &[(&[-1, 0], EBADF), (&[-1, -1], EINVAL)],
        Sys::Fallocate => &[(&[-1, 0, 0, 1], EBADF)],
        Sys::Close => &[(&[-1], EBADF)],
        Sys::MemfdCreate => &[(&[0, 0xffff_ffff], EINVAL), (&[0, 0], EFAULT)],
        Sys::MemfdSecret | Sys::Userfaultfd => &[(&[0x7fff_ffff], EINVAL)],
        Sys::Futex => &[(&[1, 0, 0, 0, 0, 0], EINVAL)],
        Sys::FutexWaitv => &[(&[0, 0, 0, 0, 0], EINVAL)],
        Sys::SetRobustList => &[(&[0, 0], EINVAL)],
        Sys::GetRobustList => &[(&[0x7fff_ffff, 0, 0], ESRCH)],
        Sys::Mbind => &[(&[1, 1, 0, 0, 0, 0], EINVAL)],
        Sys::SetMempolicy => &[(&[99, 0, 0], EINVAL)],
        Sys::GetMempolicy => &[(&[0, 0, 0, 0, -1], EINVAL)],
        Sys::MovePages => &[(&[0, 0, 0, 0, 0, 0xff], EINVAL)],
        Sys::MigratePages => &[(&[0x7fff_ffff, 0, 0, 0], ESRCH)],
        Sys::SetMempolicyHomeNode => &[(&[1, 1, 0, 0], EINVAL)],
        Sys::PidfdOpen => &[(&[-1, 0], EINVAL)],
        Sys::PidfdGetfd => &[(&[-1, 0, 1], EINVAL), (&[-1, 0, 0], EBADF)],
        Sys::ProcessVmReadv | Sys::ProcessVmWritev => &[(&[0, 0, 0, 0, 0, 1], EINVAL)],
        Sys::Ptrace => &[(&[0x4206, 0x7fff_ffff, 0, 0], ESRCH)],
        Sys::Kcmp => &[(&[0x7fff_ffff, 0x7fff_ffff, 0, 0, 0], ESRCH)],
        Sys::Unshare => &[(&[1], EINVAL)],
        Sys::Setns => &[(&[-1, 0], EBADF)],
        Sys::Mount => &[(&[0, 0, 0, 0, 0], EFAULT)],
        Sys::Sendmsg | Sys::Recvmsg => &[(&[-1, 0, 0], EBADF)],
        // Flags that no kernel knows: the one check that comes before family and addresses in every version.
        Sys::Socketpair => &[(&[1, 0x10000, 0, 0], EINVAL)],
        Sys::Splice => &[(&[-1, 0, -1, 0, 1, 0], EBADF)],
        Sys::Vmsplice => &[(&[-1, 0, 0, 0], EBADF)],
        Sys::Sendfile => &[(&[-1, -1, 0, 0], EBADF)],
        Sys::Mseal => &[(&[1, 0, 0], EINVAL)],
        Sys::FutexWake => &[(&[1, 1, 1, 2], EINVAL)],
        Sys::FutexWait => &[(&[1, 0, 1, 2, 0, 0], EINVAL)],
        Sys::FutexRequeue => &[(&[0, 1, 0, 0], EINVAL)],
        Sys::ProcessMadvise => &[(&[-1, 0, 0, 20, 1], EINVAL), (&[-1, 0, 0, 20, 0], EBADF)],
        Sys::PkeyMprotect => &[(&[1, 1, 0, -1], EINVAL)],
    }
}

/// The errno a call is refused with, whatever its arguments; `None` where the kernel executes it.
///
/// `filtered` says whether this process has a seccomp filter: without one, only a call that the kernel does not have
/// is refused.
pub fn refusal(call: Sys, filtered: bool) -> Option<i32> {
    let mut answer = None;
    for (arguments, expected) in controls(call) {
        let errno = match sys::raw::numbers(call, arguments) {
            Ok(_) => 0,
            Err(e) => e.errno,
        };
        // With RLIMIT_MEMLOCK 0 the kernel answers every mlock like a filter would; the limit has its own need.
        let by_limit =
            call == Sys::Mlock && errno == libc::EPERM && matches!(sys::getrlimit(libc::RLIMIT_MEMLOCK), Ok((0, _)));
        let executed = errno == *expected || by_limit || !(filtered || errno == libc::ENOSYS);
        if executed {
            return None;
        }
        answer = Some(errno);
    }
    answer
}

/// The refused calls among `calls` with the errno's name, or `SIGSYS` where a filter kills.
pub fn refused(calls: &[Sys], filtered: bool) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = calls;
    while !rest.is_empty() {
        let Ok((answers, killed)) = answers(rest, filtered) else { break };
        for (call, errno) in rest.iter().zip(&answers) {
            if *errno != 0 {
                found.insert(call.name().to_owned(), sys::errno_name(i32::from(*errno)).to_owned());
            }
        }
        match rest.get(answers.len()) {
            Some(call) if killed => found.insert(call.name().to_owned(), "SIGSYS".to_owned()),
            _ => None,
        };
        rest = rest.get(answers.len() + 1..).unwrap_or_default();
    }
    found
}

/// One byte per call tried, 0 where it is executed, from a process of its own; and whether that process was killed.
fn answers(calls: &[Sys], filtered: bool) -> Result<(Vec<u8>, bool), sys::Error> {
    let (reading, writing) = sys::pipe()?;
    let pid = sys::fork()?;
    if pid == 0 {
        // A filter that kills is expected here; it must not leave a core.
        let _ = sys::prctl(libc::PR_SET_DUMPABLE, 0);
        let mut out = File::from(writing);
        for call in calls {
            let errno = refusal(*call, filtered).and_then(|errno| u8::try_from(errno).ok()).unwrap_or(0);
            if out.write_all(&[errno]).is_err() {
                break;
            }
        }
        sys::exit_now(0);
    }
    drop(writing);
    let mut bytes = Vec::new();
    // A short answer is what a killed process leaves; the status below tells.
    let _ = File::from(reading).read_to_end(&mut bytes);
    let (_, status) = sys::waitpid(pid, 0)?;
    Ok((bytes, libc::WIFSIGNALED(status)))
}
