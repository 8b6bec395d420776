//! ftok(3): how programs agree on a key.

use libc::ENOENT;
use shmcheck_probe::{Context, Isolate, Outcome, Probe, man, posix, sys};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[&STABLE, &PROJECT, &PROJECT_BITS, &FILE, &MISSING];

/// Two files that every environment has.
const FILES: [&str; 2] = ["/proc/self/exe", "/dev/null"];

const STABLE: Probe = Probe {
    title: "ftok gives every process the same key for a file and a number",
    why: "server and client compute it independently: one bit apart and they never meet",
    spec: &[man("ftok(3)", "DESCRIPTION"), posix("ftok")],
    isolate: Isolate::Cell,
    ..Probe::new("sysv.shm.ftok.stable", |cx| {
        let key = cx.expect_ok(|| sys::ftok(FILES[1], 65))?;
        // By another name of the same file, in another process.
        let other = cx.elsewhere(|cx| cx.expect_ok(|| sys::ftok("/dev/../dev/./null", 65)))?;
        cx.expect_eq("key in another process", other, key)?;
        cx.expect_ne("key", key, libc::IPC_PRIVATE)
    })
};

const PROJECT: Probe = Probe {
    title: "ftok gives different keys for different project numbers",
    why: "one program keys its segment, its semaphores and its queue by 1, 2 and 3",
    spec: &[man("ftok(3)", "DESCRIPTION"), posix("ftok")],
    isolate: Isolate::Cell,
    ..Probe::new("sysv.shm.ftok.project", |cx| {
        let mut keys = Vec::new();
        for project in 1..=255 {
            keys.push(sys::ftok(FILES[1], project)?);
        }
        keys.sort_unstable();
        keys.dedup();
        cx.expect_eq("different keys of 255 numbers", keys.len(), 255)
    })
};

const PROJECT_BITS: Probe = Probe {
    title: "ftok uses the low eight bits of the project number only",
    why: "numbers that differ above bit 7 collide: two programs meet in one segment",
    spec: &[man("ftok(3)", "DESCRIPTION"), posix("ftok")],
    isolate: Isolate::Cell,
    ..Probe::new("sysv.shm.ftok.project-bits", |cx| {
        let key = sys::ftok(FILES[1], 0x41)?;
        for project in [0x141, 0x7fff_ff41] {
            cx.expect_eq("key", sys::ftok(FILES[1], project)?, key)?;
        }
        Ok(())
    })
};

const FILE: Probe = Probe {
    title: "ftok's key has the file's inode and device and the number",
    why: "replacing the key file changes the key: restarted clients and the old server no longer find each other",
    spec: &[man("ftok(3)", "NOTES")],
    isolate: Isolate::Cell,
    ..Probe::new("sysv.shm.ftok.file", file)
};
fn file(cx: &mut Context) -> Outcome {
    for path in FILES {
        let meta = std::fs::metadata(path)?;
        let (inode, device) = (std::os::unix::fs::MetadataExt::ino(&meta), std::os::unix::fs::MetadataExt::dev(&meta));
        let wanted = (inode & 0xffff) as u32 | ((device & 0xff) as u32) << 16 | 0x7a << 24;
        cx.expect_eq("key", sys::ftok(path, 0x7a)?.cast_unsigned(), wanted)?;
    }
    Ok(())
}

const MISSING: Probe = Probe {
    title: "ftok of a file that is not there fails with ENOENT",
    why: "-1 is a valid key too: a program that ignores the error meets all others that ignore it",
    spec: &[man("ftok(3)", "RETURN VALUE"), posix("ftok")],
    isolate: Isolate::Cell,
    ..Probe::new("sysv.shm.ftok.missing", |cx| cx.expect_errno(ENOENT, || sys::ftok("/proc/self/no-such-file", 1)))
};
