//! The process that a probe or an actor runs in: its group, limits and streams, and waiting for what it says.

use shmcheck_probe::sys;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

/// Own group, death with the parent, no core, `input` or /dev/null as input, output to the parent, all else closed but
/// the pipe for results.
pub(crate) fn prepare(
    parent: libc::pid_t,
    input: Option<OwnedFd>,
    result: OwnedFd,
    output: OwnedFd,
) -> sys::Result<File> {
    let _ = nix::unistd::setpgid(nix::unistd::Pid::from_raw(0), nix::unistd::Pid::from_raw(0));
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)?;
    if nix::unistd::getppid().as_raw() != parent {
        sys::exit_now(1);
    }
    // A limit of 1 keeps also a core_pattern with a pipe from dumping, core(5); where it cannot be raised it is 0.
    if sys::setrlimit(libc::RLIMIT_CORE, 1, 1).is_err() {
        let _ = sys::setrlimit(libc::RLIMIT_CORE, 0, 0);
    }
    // SAFETY: SIGPIPE's default ends a peer whose reader is gone; one thread, a valid disposition.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    sys::umask(0o022);
    let null = || sys::open("/dev/null", libc::O_RDWR, 0).unwrap_or_else(|_| placeholder().into());
    let input = input.unwrap_or_else(null);
    for (from, to) in [(input.as_raw_fd(), 0), (output.as_raw_fd(), 1), (output.as_raw_fd(), 2)] {
        // SAFETY: the standard streams are replaced by descriptors that stay valid.
        sys::ret("dup2", unsafe { libc::dup2(from, to) })?;
    }
    // The record's pipe goes out of the way: probes claim things about the lowest free descriptor.
    let ceiling = sys::getrlimit(libc::RLIMIT_NOFILE).map_or(1024, |limit| limit.0).min(1 << 20);
    let high = i32::try_from(ceiling.saturating_sub(1)).unwrap_or(1023).min(1_000);
    let moved = sys::fcntl(result.as_raw_fd(), libc::F_DUPFD_CLOEXEC, high)
        .or_else(|_| sys::fcntl(result.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3))?;
    // All other descriptors are closed by number, also these: none may be closed a second time by its owner.
    for owned in [input, output, result] {
        let _ = owned.into_raw_fd();
    }
    close_between(3, moved - 1);
    close_between(moved + 1, i32::MAX);
    // SAFETY: the descriptor was made above and is owned by nobody else.
    Ok(unsafe { File::from_raw_fd(moved) })
}

/// Closes all descriptors from `first` to `last`.
fn close_between(first: i32, last: i32) {
    if first > last {
        return;
    }
    // SAFETY: none of these descriptors is used by this process from here on.
    let value = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if value != 0 {
        // A kernel before 5.9 or a filter: one by one, as far as descriptors usually go.
        for fd in first..=last.min(4_096) {
            let _ = sys::close(fd);
        }
    }
}

/// A descriptor that never becomes readable, where /dev/null is missing.
pub(crate) fn placeholder() -> File {
    // SAFETY: eventfd takes no memory.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    // SAFETY: the descriptor is new and owned by nobody else; -1 would be a table without room, which reads as an error.
    unsafe { File::from_raw_fd(fd) }
}

/// A pipe with what was read of it, and how much is kept.
pub(crate) type Sink = (File, Vec<u8>, usize);

/// Reads what is there; beyond the limit it is thrown away.
pub(crate) fn drain((file, bytes, limit): &mut Sink) {
    let mut chunk = [0; 16 << 10];
    // Bounded per call, so that an endless writer cannot keep the worker from looking at the deadline.
    for _ in 0..16 {
        match file.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(n) => bytes.extend_from_slice(&chunk[..n.min(limit.saturating_sub(bytes.len()))]),
        }
    }
}

fn poll(fds: &[i32], millis: i32) -> Vec<libc::pollfd> {
    let mut entries: Vec<libc::pollfd> =
        fds.iter().map(|fd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 }).collect();
    // SAFETY: pointer and count are those of the vector. An error or interruption leaves revents 0.
    unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, millis) };
    entries
}

/// Waits until one of the descriptors can be read, or the time is over.
pub(crate) fn wait_readable(fds: &[i32], patience: Duration) {
    let millis = patience.as_millis().clamp(1, 60_000);
    poll(fds, i32::try_from(millis).unwrap_or(60_000));
}

/// Which of the pipes have no writer any more.
pub(crate) fn closed(fds: &[i32]) -> Vec<bool> {
    poll(fds, 0).iter().map(|entry| entry.revents & libc::POLLHUP != 0).collect()
}

/// A descriptor that becomes readable when the process ends; `None` where the kernel or a filter has none.
pub(crate) fn pidfd(pid: libc::pid_t) -> Option<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the call returned a descriptor that nobody else owns.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}
