//! Filling /dev/shm where that is small, and nobody else's.

use nix::sys::statvfs::statvfs;
use shmcheck_probe::{Context, Object, Stop, sys};

/// The largest /dev/shm that is filled in bytes.
const LARGEST: u64 = 128 << 20;

/// Limits of the cgroup: version 2, version 1.
const LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// Free bytes of /dev/shm.
pub(super) fn free() -> Result<u64, Stop> {
    let stat = statvfs("/dev/shm")?;
    Ok(stat.blocks_free() * stat.fragment_size())
}

/// An object that takes all that is free; a skip where that is much, or more than the memory cgroup grants.
pub(super) fn fill(cx: &mut Context) -> Result<Object, Stop> {
    let (free, stat) = (free()?, statvfs("/dev/shm")?);
    let size = stat.blocks() * stat.fragment_size();
    if size == 0 || size > LARGEST {
        return Err(Stop::skip("small-dev-shm", format!("/dev/shm has {} MiB", size >> 20)));
    }
    for path in LIMITS {
        let limit = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
        if let Some(limit) = limit.filter(|limit| *limit < 2 * size) {
            return Err(Stop::skip("memory for /dev/shm", format!("the cgroup grants {} MiB", limit >> 20)));
        }
    }
    let object = cx.object(0)?;
    let length = i64::try_from(free).map_err(|_| Stop::broken("more is free than a file can be long"))?;
    cx.expect_ok(|| sys::posix_fallocate(object.raw(), 0, length))?;
    Ok(object)
}
