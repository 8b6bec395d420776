//! Processes, identities, limits and namespaces.

use super::{Result, ret};
use libc::{c_int, gid_t, pid_t, uid_t};

/// `fork()`—0 in the child. The caller runs no destructors in the child and ends it with [`exit_now`].
pub fn fork() -> Result<pid_t> {
    // SAFETY: a probe's process has one thread, or the child only calls async-signal-safe code and the allocator.
    ret("fork", unsafe { libc::fork() })
}

/// `_exit(code)`—ends the process without destructors or handlers.
pub fn exit_now(code: c_int) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(code) }
}

/// `waitpid(pid, flags)`—the process and its raw status; pid 0 where `WNOHANG` found none.
pub fn waitpid(pid: pid_t, flags: c_int) -> Result<(pid_t, c_int)> {
    let mut status = 0;
    loop {
        // SAFETY: status is an int.
        match ret("waitpid", unsafe { libc::waitpid(pid, &raw mut status, flags) }) {
            Ok(pid) => return Ok((pid, status)),
            Err(e) if e.errno == libc::EINTR => {}
            Err(e) => return Err(e),
        }
    }
}

/// `kill(pid, signal)`
pub fn kill(pid: pid_t, signal: c_int) -> Result<()> {
    // SAFETY: no memory is passed.
    ret("kill", unsafe { libc::kill(pid, signal) }).map(drop)
}

/// `getpid()`
pub fn getpid() -> pid_t {
    // SAFETY: cannot fail, no memory is passed.
    unsafe { libc::getpid() }
}

/// `geteuid()`
pub fn geteuid() -> uid_t {
    // SAFETY: cannot fail, no memory is passed.
    unsafe { libc::geteuid() }
}

/// `getegid()`
pub fn getegid() -> gid_t {
    // SAFETY: cannot fail, no memory is passed.
    unsafe { libc::getegid() }
}

/// `setgroups(groups)`—the supplementary groups of this process.
pub fn setgroups(groups: &[gid_t]) -> Result<()> {
    // SAFETY: pointer and length are those of the slice.
    ret("setgroups", unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }).map(drop)
}

/// `setresgid(gid, gid, gid)`
pub fn setgid_all(gid: gid_t) -> Result<()> {
    // SAFETY: no memory is passed.
    ret("setresgid", unsafe { libc::setresgid(gid, gid, gid) }).map(drop)
}

/// `setresuid(uid, uid, uid)`—drops all capabilities where uid is not 0.
pub fn setuid_all(uid: uid_t) -> Result<()> {
    // SAFETY: no memory is passed.
    ret("setresuid", unsafe { libc::setresuid(uid, uid, uid) }).map(drop)
}

/// `seteuid(uid)`—the effective user id alone.
pub fn seteuid(uid: uid_t) -> Result<()> {
    // SAFETY: no memory is passed.
    ret("seteuid", unsafe { libc::seteuid(uid) }).map(drop)
}

/// `setegid(gid)`—the effective group id alone.
pub fn setegid(gid: gid_t) -> Result<()> {
    // SAFETY: no memory is passed.
    ret("setegid", unsafe { libc::setegid(gid) }).map(drop)
}

/// `unshare(flags)`
pub fn unshare(flags: c_int) -> Result<()> {
    // SAFETY: namespaces and tables of this process change, no memory is passed.
    ret("unshare", unsafe { libc::unshare(flags) }).map(drop)
}

/// `setns(fd, kind)`
pub fn setns(fd: c_int, kind: c_int) -> Result<()> {
    // SAFETY: no memory is passed.
    ret("setns", unsafe { libc::setns(fd, kind) }).map(drop)
}

/// `prctl(option, argument)`—options that take one number.
pub fn prctl(option: c_int, argument: libc::c_ulong) -> Result<c_int> {
    // SAFETY: by contract the option takes a number.
    ret("prctl", unsafe { libc::prctl(option, argument, 0, 0, 0) })
}

/// `getrlimit(resource)`—soft and hard limit.
pub fn getrlimit(resource: libc::__rlimit_resource_t) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the buffer is a struct rlimit.
    ret("getrlimit", unsafe { libc::getrlimit(resource, &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// `setrlimit(resource, soft, hard)`—of this process.
pub fn setrlimit(resource: libc::__rlimit_resource_t, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the buffer is a struct rlimit.
    ret("setrlimit", unsafe { libc::setrlimit(resource, &raw const limit) }).map(drop)
}

/// `umask(mask)`—the mask before.
pub fn umask(mask: libc::mode_t) -> libc::mode_t {
    // SAFETY: cannot fail, no memory is passed.
    unsafe { libc::umask(mask) }
}

/// Seconds since the epoch as the kernel stamps them (`CLOCK_REALTIME_COARSE` is what ktime_get_real_seconds reads).
pub fn now_seconds() -> i64 {
    clock(libc::CLOCK_REALTIME_COARSE).0
}

/// `clock_gettime(clock)`—seconds and nanoseconds.
pub fn clock(id: libc::clockid_t) -> (i64, i64) {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the buffer is a struct timespec.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    (time.tv_sec, time.tv_nsec)
}

/// Lets other processes run once.
pub fn sched_yield() {
    // SAFETY: no memory is passed.
    unsafe { libc::sched_yield() };
}

/// `execve(path, [path], [])`—returns only when it is refused. Descriptors without `FD_CLOEXEC` stay open.
pub fn execve(path: &str) -> Result<std::convert::Infallible> {
    let path = super::cstr(path);
    let arguments = [path.as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null()];
    // SAFETY: both lists end with a null pointer, and all strings outlive the call.
    Err(match ret("execve", unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) }) {
        Err(refused) => refused,
        Ok(_) => super::Error { call: "execve", errno: 0 },
    })
}

/// `ptrace(PTRACE_TRACEME)`—this process stops with SIGTRAP after its next successful execve, for its parent to see.
pub fn trace_me() -> Result<()> {
    // SAFETY: this request ignores its other arguments.
    ret("ptrace", unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }).map(drop)
}

/// `brk(0)`—the end of this process's data segment.
pub fn program_break() -> i64 {
    // SAFETY: an impossible address changes nothing; the system call returns the present end.
    unsafe { libc::syscall(libc::SYS_brk, 0) }
}

/// `sigaction(signal)`—a handler that does nothing, with these flags (`SA_RESTART` or 0).
pub fn catch_signal(signal: c_int, flags: c_int) -> Result<()> {
    extern "C" fn nothing(_: c_int) {}
    // SAFETY: sigaction is plain numbers and a pointer, for which zero is a value; the mask is empty.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(c_int) as libc::sighandler_t;
    action.sa_flags = flags;
    // SAFETY: the handler only returns, which is safe at any moment.
    ret("sigaction", unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) }).map(drop)
}

/// `clone(flags | SIGCHLD)`—a fork that shares what the flags name, such as `CLONE_SYSVSEM`, but never memory.
///
/// As with [`fork`], the child ends with [`exit_now`].
pub fn fork_with(flags: c_int) -> Result<pid_t> {
    let flags = libc::c_long::from(flags & !(libc::CLONE_VM | libc::CLONE_THREAD) | libc::SIGCHLD);
    // SAFETY: without a stack of its own and without shared memory clone is fork, in a process with one thread.
    let pid = unsafe { super::raw::call("clone", libc::SYS_clone, &[flags, 0, 0, 0, 0]) }?;
    Ok(pid_t::try_from(pid).unwrap_or(-1))
}

/// `execve("/proc/self/exe")` under `PTRACE_TRACEME`—the new program stops before its first instruction (state `t`),
/// and nothing of it ever runs when the parent kills it there. Returns only where it is refused.
pub fn exec_stopped() -> super::Error {
    match trace_me().and_then(|()| execve("/proc/self/exe")) {
        Err(refused) => refused,
        Ok(never) => match never {},
    }
}
