//! Looking into another process and interrupting it: ptrace(2), process_vm_readv(2), signal dispositions.

use super::{Result, errno, ret};
use libc::{c_int, c_long, c_void, pid_t};

/// `ptrace(request, pid, 0, signal)`—for requests that let a stopped tracee go on.
pub fn trace_resume(request: libc::c_uint, pid: pid_t, signal: c_int) -> Result<()> {
    let null: *mut c_void = std::ptr::null_mut();
    // SAFETY: the request takes a number as data.
    ret("ptrace", unsafe { libc::ptrace(request, pid, null, c_long::from(signal) as *mut c_void) }).map(drop)
}

/// `ptrace(PTRACE_PEEKDATA, pid, address)`—a word of a stopped tracee.
pub fn trace_peek(pid: pid_t, address: usize) -> Result<c_long> {
    let null: *mut c_void = std::ptr::null_mut();
    // SAFETY: the C library stores the word in a variable of its own.
    let word = unsafe { libc::ptrace(libc::PTRACE_PEEKDATA, pid, address as *mut c_void, null) };
    // −1 is also a word; the C library sets errno to 0 after success and so tells the two apart.
    if word == -1 && errno() != 0 { ret("ptrace", word) } else { Ok(word) }
}

/// `process_vm_readv(pid, buffer, address)`—the number of bytes read.
pub fn process_vm_read(pid: pid_t, address: usize, buffer: &mut [u8]) -> Result<usize> {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = libc::iovec { iov_base: address as *mut c_void, iov_len: buffer.len() };
    // SAFETY: pointer and length are those of the slice; the remote address is only read.
    let n =
        ret("process_vm_readv", unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) }
            as i64)?;
    Ok(usize::try_from(n).unwrap_or(0))
}

extern "C" fn nothing(_: c_int) {}

/// A handler that does nothing, and calls are not restarted after it: `sigaction(signal, {handler, 0})`.
pub fn interrupt_by(signal: c_int) -> Result<()> {
    // SAFETY: sigaction is plain numbers and a handler, for which zero means none.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(c_int) as usize;
    // SAFETY: the action is a struct sigaction whose handler touches nothing.
    ret("sigaction", unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) }).map(drop)
}

/// `signal(signal, SIG_IGN)`
pub fn ignore(signal: c_int) {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// `signal(signal, SIG_DFL)`
pub fn by_default(signal: c_int) {
    // SAFETY: SIG_DFL is a valid disposition.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// `raise(signal)`
pub fn raise(signal: c_int) -> Result<()> {
    // SAFETY: no memory is passed.
    ret("raise", unsafe { libc::raise(signal) }).map(drop)
}
