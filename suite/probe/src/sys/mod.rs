//! Thin wrappers over the calls that probes make: the only `unsafe` code of the catalogue.
//!
//! Each wrapper returns the call's value or an [`Error`] with the call's name and errno. Where the C library and the
//! system call can differ, the library's function has the plain name and the system call stands in [`raw`].

pub mod abi32;
pub mod again;
pub mod fs;
pub mod futex;
pub mod memfd;
pub mod mman;
pub mod notify;
pub mod numa;
pub mod posix;
pub mod process;
pub mod pthread;
pub mod queue;
pub mod raw;
pub mod sem;
pub mod shm;
pub mod sync;
pub mod tmpfs;
pub mod trace;
pub mod uffd;

pub use abi32::*;
pub use fs::*;
pub use memfd::*;
pub use mman::*;
pub use notify::*;
pub use numa::*;
pub use posix::*;
pub use process::*;
pub use queue::*;
pub use sem::*;
pub use shm::*;

use std::cell::Cell;

/// A refused call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{call} → {}", self.name())]
pub struct Error {
    /// The call's name.
    pub call: &'static str,
    /// The errno it gave.
    pub errno: i32,
}

/// The result of a wrapper.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The errno's symbolic name.
    pub fn name(&self) -> &'static str {
        errno_name(self.errno)
    }
}

thread_local! {
    static LAST_CALL: Cell<&'static str> = const { Cell::new("") };
}

/// The name of the call that the last wrapper of this thread made; failure messages name it.
pub fn last_call() -> &'static str {
    LAST_CALL.get()
}

/// Notes the name of the call that is being made, where no convention below applies.
pub(crate) fn note_call(call: &'static str) {
    LAST_CALL.set(call);
}

/// Turns the convention "−1 and errno" into a result, and notes the call's name.
pub fn ret<T: Into<i64> + Copy>(call: &'static str, value: T) -> Result<T> {
    LAST_CALL.set(call);
    if value.into() == -1 { Err(Error { call, errno: errno() }) } else { Ok(value) }
}

/// Turns the convention of the pthread functions (the errno is the value) into a result.
pub fn ret_errno(call: &'static str, value: libc::c_int) -> Result<()> {
    LAST_CALL.set(call);
    if value == 0 { Ok(()) } else { Err(Error { call, errno: value }) }
}

/// The errno of this thread's last refused call.
pub fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// The symbolic name of an errno, `E?` for a number without one.
pub fn errno_name(errno: i32) -> &'static str {
    // ENOTSUP and EWOULDBLOCK are the same numbers as EOPNOTSUPP and EAGAIN on Linux; 524 is the kernel's own ENOTSUPP.
    match nix::errno::Errno::from_raw(errno) {
        nix::errno::Errno::UnknownErrno => "E?",
        known => known.into_name(),
    }
}

/// The number of an errno by its symbolic name.
pub fn errno_number(name: &str) -> Option<i32> {
    (1..134).find(|number| errno_name(*number) == name)
}

/// Access to the private naming of nix, which prints variants as their C names.
trait IntoName {
    fn into_name(self) -> &'static str;
}

impl IntoName for nix::errno::Errno {
    fn into_name(self) -> &'static str {
        // The derived Debug form of a unit variant is its name; leaked once per errno, at most 133 of them.
        static NAMES: std::sync::OnceLock<Vec<&'static str>> = std::sync::OnceLock::new();
        let names = NAMES.get_or_init(|| {
            (0..134)
                .map(|n| {
                    let name: &'static str = format!("{:?}", nix::errno::Errno::from_raw(n)).leak();
                    name
                })
                .collect()
        });
        usize::try_from(self as i32).ok().and_then(|n| names.get(n)).copied().unwrap_or("E?")
    }
}

/// The size of a base page in bytes.
pub fn page_size() -> usize {
    // SAFETY: sysconf reads a constant of the process; no memory is passed.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}
