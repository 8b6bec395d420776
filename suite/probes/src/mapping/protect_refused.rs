//! What mprotect(2) and pkey_mprotect(2) refuse.

use super::common::{FILE, Island, SHARED, lettered_file, load, must, page, perms, probe, refused, reopen, reserve};
use libc::{
    EACCES, EINVAL, ENOMEM, MAP_SHARED, O_RDONLY, PROT_GROWSDOWN, PROT_GROWSUP, PROT_NONE, PROT_READ, PROT_WRITE,
};
use shmcheck_probe::{Context, Map, Outcome, Probe, Sys, man, posix, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] =
    &[&READ_ONLY_FILE, &UNALIGNED, &UNMAPPED, &HOLE, &BOTH_DIRECTIONS, &UNKNOWN_BITS, &NOT_GROWING, &NO_KEY];

const READ_ONLY_FILE: Probe = Probe {
    title: "a shared mapping of a read-only descriptor stays unwritable: EACCES",
    why: "who hands out a read-only descriptor of its memory relies on it: a client must not promote itself",
    spec: &[man("mprotect(2)", "EACCES"), posix("mprotect")],
    needs: FILE,
    calls: &[Sys::Mprotect],
    ..probe("map.protect.mprotect.read-only-file-eacces", read_only_file)
};
fn read_only_file(cx: &mut Context) -> Outcome {
    let file = lettered_file(1)?;
    let reader = reopen(&file, O_RDONLY)?;
    let map = Map::new(page(), PROT_READ, MAP_SHARED, reader.as_raw_fd())?;
    must(sys::mprotect(map.address(), page(), PROT_NONE))?;
    must(sys::mprotect(map.address(), page(), PROT_READ))?;
    refused(cx, EACCES, || sys::mprotect(map.address(), page(), PROT_READ | PROT_WRITE))?;
    refused(cx, EACCES, || sys::mprotect(map.address(), page(), PROT_WRITE))?;
    cx.expect_signal("a store", libc::SIGSEGV, || map.write(0, 1))
}

const UNALIGNED: Probe = Probe {
    title: "mprotect of an address inside a page fails with EINVAL",
    why: "programs that pass the address of an object find their bug here; rounding down would protect its neighbours",
    spec: &[man("mprotect(2)", "EINVAL"), posix("mprotect")],
    calls: &[Sys::Mprotect],
    ..probe("map.protect.mprotect.unaligned-einval", unaligned)
};
fn unaligned(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(2 * page())?;
    refused(cx, EINVAL, || sys::mprotect(map.address() + 1, page(), PROT_READ))?;
    refused(cx, EINVAL, || sys::mprotect(map.address() + page() / 2, page(), PROT_READ))
}

const UNMAPPED: Probe = Probe {
    title: "mprotect where nothing is mapped fails with ENOMEM",
    why: "a runtime that believes its heap to be there learns here that another part of the program unmapped it",
    spec: &[man("mprotect(2)", "ENOMEM"), posix("mprotect")],
    calls: &[Sys::Mprotect],
    ..probe("map.protect.mprotect.unmapped-enomem", unmapped)
};
fn unmapped(cx: &mut Context) -> Outcome {
    let around = reserve(3)?;
    let at = around.address() + page();
    sys::munmap(at, page())?;
    refused(cx, ENOMEM, || sys::mprotect(at, page(), PROT_READ))
}

const HOLE: Probe = Probe {
    title: "mprotect over a hole fails with ENOMEM",
    why: "a range that is only partly protected must not be reported as protected",
    spec: &[man("mprotect(2)", "ENOMEM"), posix("mprotect")],
    calls: &[Sys::Mprotect],
    ..probe("map.protect.mprotect.hole-enomem", hole)
};
fn hole(cx: &mut Context) -> Outcome {
    let island = Island::new(3, super::common::RW, SHARED, -1)?;
    let at = island.map.address();
    cx.expect_ok(|| sys::mprotect(at, 3 * page(), PROT_READ | PROT_WRITE))?;
    sys::munmap(at + page(), page())?;
    cx.expect_errno(ENOMEM, || sys::mprotect(at, 3 * page(), PROT_READ))?;
    cx.expect_eq("the hole afterwards", perms(at + page())?, String::new())?;
    cx.expect_signal("a load from the hole", libc::SIGSEGV, || load(&island.map, page()))
}

const BOTH_DIRECTIONS: Probe = Probe {
    title: "mprotect with PROT_GROWSDOWN|PROT_GROWSUP fails with EINVAL",
    why: "flags that contradict each other show a caller's bug; obeying one of them would hide it",
    spec: &[man("mprotect(2)", "EINVAL")],
    calls: &[Sys::Mprotect],
    ..probe("map.protect.mprotect.both-grows-einval", |cx| flags(cx, PROT_READ | PROT_GROWSDOWN | PROT_GROWSUP))
};
const UNKNOWN_BITS: Probe = Probe {
    title: "mprotect with an unknown protection bit fails with EINVAL",
    why: "libraries find out what a kernel supports by trying a bit; a kernel that ignores it claims a protection",
    spec: &[man("mprotect(2)", "EINVAL")],
    calls: &[Sys::Mprotect],
    ..probe("map.protect.mprotect.unknown-bit-einval", |cx| flags(cx, PROT_READ | 0x0800_0000))
};
const NOT_GROWING: Probe = Probe {
    title: "PROT_GROWSDOWN on memory that does not grow fails with EINVAL",
    why: "loaders make stacks executable with it; on any other memory it would reach further than the caller named",
    spec: &[man("mprotect(2)", "EINVAL"), man("mprotect(2)", "PROT_GROWSDOWN")],
    calls: &[Sys::Mprotect],
    ..probe("map.protect.mprotect.grows-down-einval", |cx| flags(cx, PROT_READ | PROT_GROWSDOWN))
};
fn flags(cx: &mut Context, protection: i32) -> Outcome {
    let map = Map::shared_anonymous(page())?;
    refused(cx, EINVAL, || sys::mprotect(map.address(), page(), protection))?;
    cx.expect_no_signal("a store", || map.write(0, 1))?;
    cx.expect_ok(|| sys::mprotect(map.address(), page(), PROT_READ))
}

const NO_KEY: Probe = Probe {
    title: "pkey_mprotect with a key that was not allocated fails with EINVAL",
    why: "sandboxes inside a process (V8, SAP HANA) fence memory by key: a wrong key must not open it",
    spec: &[man("mprotect(2)", "EINVAL"), man("pkey_mprotect(2)", "EINVAL")],
    calls: &[Sys::PkeyMprotect],
    ..probe("map.protect.pkey.not-allocated-einval", no_key)
};
fn no_key(cx: &mut Context) -> Outcome {
    let map = Map::shared_anonymous(page())?;
    // Key -1 means mprotect(2), also where the processor has no keys.
    cx.expect_ok(|| sys::pkey_mprotect(map.address(), page(), PROT_READ, -1))?;
    cx.expect_eq("the letters with key -1", perms(map.address())?, "r--s".to_owned())?;
    refused(cx, EINVAL, || sys::pkey_mprotect(map.address(), page(), PROT_READ | PROT_WRITE, 14))
}
