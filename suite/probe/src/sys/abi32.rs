//! The 32-bit system calls of x86, made from this 64-bit process: what the kernel gives to 32-bit programs.

use super::{Error, Result};
use libc::c_int;

/// Numbers of the calls in the 32-bit table, arch/x86/entry/syscalls/syscall_32.tbl.
pub mod number32 {
    /// `getpid`
    pub const GETPID: u32 = 20;
    /// `ipc`, the one call for all of System V IPC before Linux 5.1
    pub const IPC: u32 = 117;
    /// `shmget`
    pub const SHMGET: u32 = 395;
    /// `shmctl`
    pub const SHMCTL: u32 = 396;
    /// `shmat`
    pub const SHMAT: u32 = 397;
    /// `shmdt`
    pub const SHMDT: u32 = 398;
}

/// A 32-bit call by its number, its five arguments being numbers, or addresses below 4 GiB in memory that a
/// [`crate::Map`] owns. Dies of SIGSEGV where the kernel has no 32-bit calls.
pub fn call32(name: &'static str, number: u32, arguments: [u32; 5]) -> Result<u32> {
    super::note_call(name);
    let value = interrupt(number, arguments);
    // The kernel's own convention: the last page of numbers are errnos.
    if value > u32::MAX - 4095 {
        return Err(Error { call: name, errno: c_int::try_from(u32::MAX - value + 1).unwrap_or(0) });
    }
    Ok(value)
}

#[cfg(target_arch = "x86_64")]
fn interrupt(number: u32, [b, c, d, si, di]: [u32; 5]) -> u32 {
    let mut value = number;
    // SAFETY: the kernel preserves all registers but rax (and r8 to r11 before Linux 4.17); rbx, which the compiler
    // keeps for itself, is put back. Memory is written as the caller's contract says, through volatile accessors.
    unsafe {
        std::arch::asm!(
            "push rbx",
            "mov ebx, {b:e}",
            "int 0x80",
            "pop rbx",
            b = in(reg) b,
            inout("eax") value,
            in("ecx") c,
            in("edx") d,
            in("esi") si,
            in("edi") di,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
        );
    }
    value
}

#[cfg(not(target_arch = "x86_64"))]
fn interrupt(_: u32, _: [u32; 5]) -> u32 {
    libc::ENOSYS.cast_unsigned().wrapping_neg()
}
