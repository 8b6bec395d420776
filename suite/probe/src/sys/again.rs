//! This program once more after execve(2), for claims about what survives it.
//!
//! The new image must do one small thing and be there in every environment, also where nothing else is: so it is this
//! same program. An initialiser that runs before `main` looks for a name that only [`exec_again`] gives; whichever
//! binary has linked the probes has it.

use super::{Error, Result, cstr, errno, exit_now};
use std::ffi::{CStr, c_char, c_int};

/// What the new image does before it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// `sem_post` on the semaphore at the start of the object behind this descriptor.
    PostMapped(c_int),
    /// `sem_post` on the semaphore at the start of the segment of this identifier.
    PostSegment(c_int),
    /// Writes a byte to this descriptor, then waits until it is killed.
    Stay(c_int),
}

const NAME: &CStr = c"shmcheck-again";

/// `execve("/proc/self/exe", …)`—replaces this process; returns only where it is refused.
pub fn exec_again(what: Again) -> Error {
    let (action, number) = match what {
        Again::PostMapped(fd) => (c"map", fd),
        Again::PostSegment(id) => (c"shm", id),
        Again::Stay(fd) => (c"stay", fd),
    };
    let number = cstr(&number.to_string());
    let arguments = [NAME.as_ptr(), action.as_ptr(), number.as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null()];
    // SAFETY: path and strings are C strings, both lists end with a null pointer.
    unsafe { libc::execve(c"/proc/self/exe".as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    Error { call: "execve", errno: errno() }
}

/// Keeps an inherited descriptor open across [`exec_again`].
pub fn keep_on_exec(fd: c_int) -> Result<()> {
    super::fcntl(fd, libc::F_SETFD, 0).map(drop)
}

/// Runs before `main` of every binary that links this crate; does nothing unless it was started by [`exec_again`].
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn(c_int, *const *const c_char, *const *const c_char) = before_main;

extern "C" fn before_main(count: c_int, arguments: *const *const c_char, _: *const *const c_char) {
    if count != 3 {
        return;
    }
    let argument = |n: usize| {
        let place = arguments.wrapping_add(n);
        // SAFETY: the list has `count` strings, and n is below it.
        let text = unsafe { place.read() };
        // SAFETY: the strings of the argument list end with a zero byte and live as long as the process.
        unsafe { CStr::from_ptr(text) }
    };
    if argument(0) != NAME {
        return;
    }
    let number = argument(2).to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(-1);
    let done = match argument(1).to_bytes() {
        b"map" => post(super::mmap(0, 64, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, number, 0)),
        b"shm" => post(super::shmat(number, 0)),
        b"stay" => stay(number),
        _ => Ok(()),
    };
    exit_now(i32::from(done.is_err()));
}

fn post(attached: Result<usize>) -> Result<()> {
    let map = crate::Map::view(attached?, 64);
    super::sync::Sem::at(&map, 0).post()
}

fn stay(fd: c_int) -> Result<()> {
    // SAFETY: one byte of a constant is passed.
    super::ret("write", unsafe { libc::write(fd, [1_u8].as_ptr().cast(), 1) } as i64)?;
    loop {
        // SAFETY: no memory is passed.
        unsafe { libc::pause() };
    }
}
