//! Mount options of /dev/shm and their change on the running machine, with `mount -o remount`.

use super::space::{PAGES, free, small};
use libc::{EINVAL, O_CREAT, O_RDWR, SIGBUS};
use shmcheck_probe::{Context, Isolate, Map, Need, Object, Outcome, Probe, Stop, Sys, doc, kernel, man, procfs, sys};
use std::os::fd::AsRawFd;
use sys::tmpfs::{Room, mount_tmpfs, room};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &GROW,
    &SHRINK_EINVAL,
    &UNLIMITED_EINVAL,
    &INODES_EINVAL,
    &SUFFIXES,
    &BAD_OPTION,
    &OWNER_OPTIONS,
    &OPTIONS_SHOWN,
    &HUGE_OPTION,
];

const NEEDS: &[Need] = &[Need::DevShm];

/// `mount -o remount,OPTIONS /dev/shm`
fn remount(options: &str) -> sys::Result<()> {
    mount_tmpfs("/dev/shm", libc::MS_REMOUNT | libc::MS_NOSUID | libc::MS_NODEV, options)
}

const GROW: Probe = Probe {
    title: "remount with a larger size makes room at once, content stays",
    why: "the remedy on a running machine: mount -o remount,size=… /dev/shm, without restarting the database",
    spec: &[doc("Documentation/filesystems/tmpfs.rst", "remount"), man("tmpfs(5)", "size")],
    calls: &[Sys::Mount],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.space.remount-grows", |cx| {
        small(cx)?;
        let page = sys::page_size();
        let held = cx.object(2 * PAGES * page)?;
        let map = held.map(2 * PAGES * page)?;
        (0..PAGES).for_each(|n| map.write(n * page, 5));
        cx.expect_signal("the page beyond the limit", SIGBUS, || map.write(PAGES * page, 5))?;
        cx.expect_ok(|| remount(&format!("size={}", 2 * PAGES * page)))?;
        cx.expect_eq("blocks in all", room("/dev/shm")?.blocks, 2 * PAGES as u64)?;
        let map = &map;
        cx.expect_no_signal("the same page after the remount", || map.write(PAGES * page, 6))?;
        cx.expect_eq("first byte", map.read(0), 5)
    })
};

const SHRINK_EINVAL: Probe = Probe {
    title: "remount below what is in use fails with EINVAL",
    why: "shrinking /dev/shm under running programs must not take their pages",
    spec: &[
        doc("Documentation/filesystems/tmpfs.rst", "remount"),
        kernel("mm/shmem.c", "Too small a size for current use"),
    ],
    calls: &[Sys::Mount],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.space.remount-below-use", |cx| {
        small(cx)?;
        let page = sys::page_size();
        let held = cx.object(4 * page)?;
        held.map(4 * page)?.touch(1);
        cx.expect_errno(EINVAL, || remount(&format!("size={}", 3 * page)))?;
        cx.expect_eq("blocks in all", room("/dev/shm")?.blocks, PAGES as u64)?;
        cx.expect_ok(|| remount(&format!("size={}", 4 * page)))?;
        cx.expect_eq("free pages", free()?, 0)
    })
};

const UNLIMITED_EINVAL: Probe = Probe {
    title: "an unlimited file system cannot be limited later: EINVAL",
    why: "pages are not counted without a limit; one set afterwards would be wrong from the start",
    spec: &[kernel("mm/shmem.c", "Cannot retroactively limit size"), man("tmpfs(5)", "size")],
    calls: &[Sys::Mount],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.space.no-late-limit", |cx| {
        cx.own_dev_shm("mode=1777,size=0,nr_inodes=0")?;
        let unlimited = room("/dev/shm")?;
        cx.expect_eq("blocks and inodes in all", (unlimited.blocks, unlimited.inodes), (0, 0))?;
        cx.expect_errno(EINVAL, || remount("size=1m"))?;
        cx.expect_errno(EINVAL, || remount("nr_inodes=1k"))?;
        cx.expect_ok(|| remount("size=0"))?;
        let held = cx.object(0)?;
        cx.expect_ok(|| sys::fallocate(held.raw(), 0, 0, 64 << 10))
    })
};

const INODES_EINVAL: Probe = Probe {
    title: "remount with fewer inodes than are in use fails with EINVAL",
    why: "a limit below the present number would make every later creation fail for no visible reason",
    spec: &[kernel("mm/shmem.c", "Too few inodes for current use"), man("tmpfs(5)", "nr_inodes")],
    calls: &[Sys::Mount],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.space.remount-inodes", |cx| {
        cx.own_dev_shm("mode=1777,nr_inodes=10")?;
        let _held = [cx.object(0)?, cx.object(0)?, cx.object(0)?];
        cx.expect_errno(EINVAL, || remount("nr_inodes=3"))?;
        cx.expect_eq("inodes in all", room("/dev/shm")?.inodes, 10)?;
        cx.expect_ok(|| remount("nr_inodes=5"))?;
        let after = room("/dev/shm")?;
        cx.expect_eq("inodes in all and free", (after.inodes, after.free_inodes), (5, 1))
    })
};

const SUFFIXES: Probe = Probe {
    title: "the size option takes k, m, g, pages by nr_blocks, and percent",
    why: "a Kubernetes manifest or compose file says 50% or 2g; a size taken as bytes gives a /dev/shm of one page",
    spec: &[man("tmpfs(5)", "size"), doc("Documentation/filesystems/tmpfs.rst", "size")],
    calls: &[Sys::Mount],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.space.size-suffixes", |cx| {
        let page = sys::page_size() as u64;
        small(cx)?;
        for (option, bytes) in [
            ("size=512k", 512 << 10),
            ("size=3m", 3 << 20),
            ("size=1g", 1 << 30),
            ("nr_blocks=7", 7 * page),
            ("size=1", page),
        ] {
            cx.expect_ok(|| remount(option))?;
            cx.expect_eq(&format!("size by {option}"), room("/dev/shm")?.blocks * page, bytes)?;
        }
        let blocks = |percent: &str| -> Result<u64, Stop> {
            cx.expect_ok(|| remount(&format!("size={percent}")))?;
            Ok(room("/dev/shm")?.blocks)
        };
        let (tenth, half) = (blocks("10%")?, blocks("50%")?);
        cx.expect("blocks by 50% against five times 10%", half.abs_diff(5 * tenth) <= 5, format!("{}", 5 * tenth), half)
    })
};

const BAD_OPTION: Probe = Probe {
    title: "an option tmpfs does not know, a malformed size: EINVAL",
    why: "a typing error in fstab or a pod must not leave /dev/shm at an accidental size",
    spec: &[man("mount(2)", "EINVAL"), kernel("mm/shmem.c", "shmem_parse_one")],
    calls: &[Sys::Mount],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.space.bad-option", |cx| {
        small(cx)?;
        for option in
            ["size=abc", "size=1x", "nr_inodes=many", "mode=9", "huge=sometimes", "mpol=nowhere", "shmcheck=1"]
        {
            cx.expect_errno(EINVAL, || remount(option))?;
        }
        let Room { blocks, .. } = room("/dev/shm")?;
        cx.expect_eq("blocks in all", blocks, PAGES as u64)
    })
};

const OWNER_OPTIONS: Probe = Probe {
    title: "mode, uid and gid options set the root directory",
    why: "a /dev/shm for one service account is mounted so; ignored options leave it open, or closed to its owner",
    spec: &[man("tmpfs(5)", "mode, uid, gid"), doc("Documentation/filesystems/tmpfs.rst", "mode, uid, gid")],
    calls: &[Sys::Mount],
    needs: &[Need::DevShm, Need::OtherUsers],
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.space.owner-options", owner_options)
};

fn owner_options(cx: &mut Context) -> Outcome {
    use std::os::unix::fs::MetadataExt;
    cx.own_dev_shm("mode=0710,uid=1,gid=65534")?;
    let root = std::fs::metadata("/dev/shm")?;
    cx.expect_eq("mode, uid, gid", (root.mode() & 0o7777, root.uid(), root.gid()), (0o710, 1, 65534))?;
    let (mine, foreign) = (cx.fresh_name(), cx.fresh_name());
    cx.as_user(1, 1, move |cx| {
        let made = cx.expect_ok(|| Object::create(mine, sys::page_size(), 0o600))?;
        let map = Map::shared(&made, 1)?;
        map.write(0, 1);
        Ok(made.as_raw_fd() >= 0)
    })?;
    cx.as_user(65534, 1, move |cx| cx.expect_errno(libc::EACCES, || sys::shm_open(&foreign, O_CREAT | O_RDWR, 0o600)))
}

const OPTIONS_SHOWN: Probe = Probe {
    title: "/proc/self/mountinfo shows the options in effect",
    why: "an administrator reads the size of a container's /dev/shm there; what is not shown cannot be found out",
    spec: &[man("proc_pid_mountinfo(5)", "super options"), kernel("mm/shmem.c", "shmem_show_options")],
    calls: &[Sys::Mount],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.space.options-shown", |cx| {
        cx.own_dev_shm("mode=0751,size=1m,nr_inodes=99")?;
        let shown = super_options()?;
        for option in ["size=1024k", "nr_inodes=99", "mode=751"] {
            cx.expect("super options", shown.iter().any(|o| o == option), format!("{option} among them"), &shown)?;
        }
        remount("size=2m")?;
        let after = super_options()?;
        cx.expect("super options after a remount", after.iter().any(|o| o == "size=2048k"), "size=2048k", &after)
    })
};

/// The options of the file system that is mounted last on /dev/shm.
fn super_options() -> Result<Vec<String>, Stop> {
    let text = procfs::read("/proc/self/mountinfo")?;
    let line = text.lines().rfind(|line| line.split(' ').nth(4) == Some("/dev/shm"));
    let options = line.and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
    Ok(options.split(',').map(str::to_owned).collect())
}

const HUGE_OPTION: Probe = Probe {
    title: "huge= of each kind is accepted, shown, and keeps small objects right",
    why: "databases mount their memory with huge=; whether pages are huge or not, content and limits must be the same",
    varies: "kernels without transparent huge pages refuse the option",
    spec: &[man("tmpfs(5)", "huge"), doc("Documentation/admin-guide/mm/transhuge.rst", "Hugepages in tmpfs/shmem")],
    calls: &[Sys::Mount],
    needs: &[Need::DevShm, Need::Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")],
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.space.huge-option", |cx| {
        small(cx)?;
        if let Err(e) = remount("huge=advise") {
            return Err(Stop::skip("transparent huge pages", format!("remount with huge=advise → {}", e.name())));
        }
        for kind in ["always", "within_size", "advise", "never"] {
            cx.expect_ok(|| remount(&format!("huge={kind}")))?;
            let shown = super_options()?;
            // The default is not shown.
            let listed = shown.iter().any(|o| *o == format!("huge={kind}"));
            cx.expect("super options", listed || kind == "never", format!("huge={kind} among them"), &shown)?;
            let held = cx.object(3 * sys::page_size())?;
            let map = held.map(3 * sys::page_size())?;
            map.touch(7);
            cx.expect_eq("last byte stored", map.read(2 * sys::page_size()), 7)?;
            cx.expect_eq("free pages", free()?, PAGES as u64 - 3)?;
        }
        Ok(())
    })
};
