//! Limits of an address space: RLIMIT_AS, RLIMIT_DATA, vm.max_map_count.

use super::common::{Island, PRIVATE, RW, SHARED, kib, page, probe, refused, reserve};
use libc::{EAGAIN, ENOMEM, MADV_DONTFORK, PROT_READ, RLIMIT_AS, RLIMIT_DATA};
use shmcheck_probe::{Context, Map, Outcome, Probe, Stop, Sys, kernel, man, posix, procfs, sys};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[&AS_REFUSES, &AS_FREED, &DATA_PRIVATE, &DATA_SHARED, &MAP_COUNT];

/// A field of this process's status in bytes.
fn status(name: &str) -> Result<u64, Stop> {
    let text = procfs::read("/proc/self/status")?;
    let value = procfs::field(&text, name).ok_or_else(|| Stop::skip(format!("status:{name}"), "no such field"))?;
    Ok(value * 1024)
}

/// Sets the soft limit so that about 1 MiB more than the field says now fits.
fn tighten(resource: libc::__rlimit_resource_t, field: &str) -> Result<(), Stop> {
    let (_, hard) = sys::getrlimit(resource)?;
    Ok(sys::setrlimit(resource, (status(field)? + MIB as u64).min(hard), hard)?)
}

const MIB: usize = 1 << 20;

const AS_REFUSES: Probe = Probe {
    title: "a mapping beyond RLIMIT_AS fails with ENOMEM",
    why: "batch schedulers limit jobs by it; shared memory counts in full for every process that maps it",
    spec: &[man("mmap(2)", "ENOMEM"), man("setrlimit(2)", "RLIMIT_AS"), posix("setrlimit")],
    ..probe("map.limit.address-space.enomem", as_refuses)
};
fn as_refuses(cx: &mut Context) -> Outcome {
    cx.elsewhere(|cx| {
        cx.expect_ok(|| Map::new(4 * MIB, RW, SHARED, -1))?;
        tighten(RLIMIT_AS, "VmSize")?;
        for flags in [SHARED, PRIVATE, SHARED | libc::MAP_NORESERVE] {
            refused(cx, ENOMEM, || Map::new(4 * MIB, RW, flags, -1))?;
        }
        cx.expect_ok(|| Map::new(page(), RW, SHARED, -1))?;
        Ok(())
    })
}

const AS_FREED: Probe = Probe {
    title: "what is unmapped counts for RLIMIT_AS no more",
    why: "a program that maps its files one after the other has to go on working under the limit",
    spec: &[man("setrlimit(2)", "RLIMIT_AS")],
    calls: &[Sys::Mmap, Sys::Munmap],
    ..probe("map.limit.address-space.freed", as_freed)
};
fn as_freed(cx: &mut Context) -> Outcome {
    cx.elsewhere(|cx| {
        let held = Map::new(4 * MIB, RW, SHARED, -1)?;
        tighten(RLIMIT_AS, "VmSize")?;
        cx.expect_errno(ENOMEM, || Map::new(3 * MIB, RW, SHARED, -1))?;
        held.close()?;
        cx.expect_ok(|| Map::new(3 * MIB, RW, SHARED, -1))?;
        Ok(())
    })
}

const DATA_PRIVATE: Probe = Probe {
    title: "private writable memory beyond RLIMIT_DATA fails with ENOMEM",
    why: "since Linux 4.7 the limit covers more than the heap; services with a forgotten LimitDATA= fail in mmap",
    spec: &[man("mmap(2)", "ENOMEM"), man("setrlimit(2)", "RLIMIT_DATA")],
    ..probe("map.limit.data.private-enomem", data_private)
};
fn data_private(cx: &mut Context) -> Outcome {
    cx.elsewhere(|cx| {
        tighten(RLIMIT_DATA, "VmData")?;
        refused(cx, ENOMEM, || Map::new(4 * MIB, RW, PRIVATE, -1))?;
        // Memory that cannot be written is no data.
        cx.expect_ok(|| Map::new(4 * MIB, PROT_READ, PRIVATE, -1))?;
        Ok(())
    })
}

const DATA_SHARED: Probe = Probe {
    title: "shared memory does not count for RLIMIT_DATA",
    why: "databases under a data limit keep their buffers in shared memory; counting them would stop every backend",
    spec: &[kernel("include/linux/mm.h", "is_data_mapping"), man("setrlimit(2)", "RLIMIT_DATA")],
    ..probe("map.limit.data.shared-free", data_shared)
};
fn data_shared(cx: &mut Context) -> Outcome {
    cx.elsewhere(|cx| {
        let before = status("VmData")?;
        tighten(RLIMIT_DATA, "VmData")?;
        let map = cx.expect_ok(|| Map::new(4 * MIB, RW, SHARED, -1))?;
        map.write(3 * MIB, 1);
        let grown = status("VmData")?.saturating_sub(before);
        cx.expect("growth of VmData in bytes", grown < MIB as u64, "less than 1 MiB", grown)
    })
}

const MAP_COUNT: Probe = Probe {
    title: "at vm.max_map_count no call can add or split a mapping",
    why: "Elasticsearch refuses to start below 262144, games under Proton crash: many small mappings, one limit",
    varies: "skipped where the limit is higher than can be reached in a moment",
    fix: "sysctl vm.max_map_count=1048576 on the host; a container cannot set it",
    spec: &[
        man("mmap(2)", "ENOMEM"),
        man("mprotect(2)", "ENOMEM"),
        man("mlock(2)", "ENOMEM"),
        man("madvise(2)", "EAGAIN"),
        kernel("mm/madvise.c", "madvise_update_vma"),
    ],
    calls: &[Sys::Mmap, Sys::Munmap, Sys::Mprotect, Sys::Madvise],
    ..probe("map.limit.map-count.refused", map_count)
};
fn map_count(cx: &mut Context) -> Outcome {
    /// Reaching it takes about a microsecond and a half and half a kilobyte of the kernel per mapping.
    const REACHABLE: usize = 70_000;
    let text = procfs::sysctl("vm/max_map_count")?;
    let limit: usize = text.trim().parse().unwrap_or(usize::MAX);
    if limit > REACHABLE {
        return Err(Stop::skip("sysctl:vm/max_map_count", text));
    }
    cx.elsewhere(|cx| {
        let probe = Island::shared(3)?;
        probe.touch(0x19);
        let middle = probe.address() + page();
        let area = reserve(limit + 3)?;
        let mut splits = 0;
        let split = |n: usize| sys::mprotect(area.address() + (2 * n + 1) * page(), page(), PROT_READ);
        let last = loop {
            match split(splits) {
                Ok(()) if 2 * splits <= limit => splits += 1,
                last => break last,
            }
        };
        cx.expect_errno(ENOMEM, || last)?;
        cx.expect("mappings made", 2 * splits > limit * 9 / 10, format!("most of {limit}"), 2 * splits)?;
        // The last slot, if a split of two stopped one short of it.
        while Map::new(page(), PROT_READ, SHARED, -1).map(Map::leak).is_ok() {}
        cx.expect_errno(ENOMEM, || Map::new(page(), RW, SHARED, -1))?;
        cx.expect_errno(ENOMEM, || sys::munmap(middle, page()))?;
        cx.expect_errno(EAGAIN, || sys::madvise(middle, page(), MADV_DONTFORK))?;
        if sys::getrlimit(libc::RLIMIT_MEMLOCK)?.0 >= kib(2) * 1024 {
            cx.expect_errno(ENOMEM, || sys::mlock(middle, page()))?;
        }
        let pages = [0, 1, 2].map(|n| probe.read(n * page()));
        cx.expect_eq("the pages of a mapping that was to be split", pages, [0x19; 3])?;
        // A whole mapping less makes room again.
        area.close()?;
        cx.expect_ok(|| sys::munmap(middle, page()))
    })
}
