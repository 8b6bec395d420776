//! userfaultfd(2), as far as probes need it: a page whose first touch waits until the probe lets it go on.

use super::{Result, poll_in, ret};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const UFFD_API: u64 = 0xaa;
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_ZEROPAGE: libc::c_ulong = 0xc020_aa04;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;

/// A range of anonymous private memory whose missing pages stop whoever touches them, also the kernel.
#[derive(Debug)]
pub struct FaultTrap {
    fd: OwnedFd,
    start: usize,
    length: usize,
}

impl FaultTrap {
    /// Watches a range of whole pages that nobody has touched yet.
    ///
    /// A touch by the kernel itself waits only with CAP_SYS_PTRACE or `vm.unprivileged_userfaultfd` = 1.
    pub fn new(start: usize, length: usize) -> Result<Self> {
        // Without O_NONBLOCK poll(2) reports an error at once, userfaultfd(2).
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: no memory is passed.
        let fd = ret("userfaultfd", unsafe { libc::syscall(libc::SYS_userfaultfd, flags) })?;
        // SAFETY: the call returned a descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) };
        let trap = Self { fd, start, length };
        trap.ioctl("ioctl(UFFDIO_API)", UFFDIO_API, &mut [UFFD_API, 0, 0, 0])?;
        let (start, length) = (start as u64, length as u64);
        trap.ioctl("ioctl(UFFDIO_REGISTER)", UFFDIO_REGISTER, &mut [start, length, UFFDIO_REGISTER_MODE_MISSING, 0])?;
        Ok(trap)
    }

    /// Waits until somebody touched the range, at most `millis`.
    pub fn touched(&self, millis: i32) -> Result<bool> {
        poll_in(&self.fd, millis)
    }

    /// Fills the range with zeros and lets everybody go on.
    pub fn release(&self) -> Result<()> {
        self.ioctl("ioctl(UFFDIO_ZEROPAGE)", UFFDIO_ZEROPAGE, &mut [self.start as u64, self.length as u64, 0, 0])
    }

    fn ioctl(&self, name: &'static str, request: libc::c_ulong, words: &mut [u64; 4]) -> Result<()> {
        // SAFETY: each of these requests reads and writes at most four 64-bit words.
        ret(name, unsafe { libc::ioctl(self.fd.as_raw_fd(), request, words.as_mut_ptr()) }).map(drop)
    }
}
