//! Memory policies: mbind(2), get_mempolicy(2).

use super::{Result, raw};
use crate::Sys;
use libc::{c_int, c_long, c_ulong};

/// Flag of get_mempolicy: the policy of an address, get_mempolicy(2).
const MPOL_F_ADDR: c_long = 1 << 1;

/// `mbind(address, length, mode, nodes, 64 bits, 0)`—a policy for a range that a [`crate::Map`] owns.
pub fn mbind(address: usize, length: usize, mode: c_int, nodes: c_ulong) -> Result<()> {
    // The kernel reads one bit less than it is told, mbind(2): 65 makes it read the whole word.
    let mask = &raw const nodes as c_long;
    #[expect(clippy::cast_possible_wrap, reason = "addresses and lengths have the width of long")]
    let args = [address as c_long, length as c_long, mode.into(), mask, 65, 0];
    // SAFETY: the mask is one readable word, of which the kernel reads 64 bits.
    unsafe { raw::call("mbind", Sys::Mbind.number(), &args) }.map(drop)
}

/// `get_mempolicy(…, address, MPOL_F_ADDR)`—mode and nodes (the first 64) of the policy that holds at an address.
pub fn mempolicy_at(address: usize) -> Result<(c_int, c_ulong)> {
    // As many words as the largest kernel configuration has nodes for: the call wants room for all of them.
    const WORDS: usize = 16;
    let (mut mode, mut nodes) = (0, [0 as c_ulong; WORDS]);
    #[expect(clippy::cast_possible_wrap, reason = "an address has the width of long")]
    let args =
        [&raw mut mode as c_long, &raw mut nodes as c_long, (WORDS * 64) as c_long + 1, address as c_long, MPOL_F_ADDR];
    // SAFETY: the mode is an int, and the mask has room for as many bits as the call is told.
    unsafe { raw::call("get_mempolicy", Sys::GetMempolicy.number(), &args) }?;
    Ok((mode, nodes[0]))
}
