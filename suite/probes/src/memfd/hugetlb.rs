//! memfd_create(2) with MFD_HUGETLB: page sizes, sizes, seals. None of these probes needs a free huge page.

use super::{executable, reopen, seals_of};
use crate::posix_shm::fallocate::interrupted_fallocate;
use libc::{EBUSY, EINVAL, ENODEV, EPERM, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, MAP_NORESERVE, MAP_SHARED};
use libc::{O_RDWR, PROT_READ, PROT_WRITE};
use shmcheck_probe::{Isolate, Map, Need, Probe, Stop, Sys, kernel, man, procfs, sys};
use std::os::fd::{AsRawFd, OwnedFd};
use sys::{
    F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, MFD_ALLOW_SEALING, MFD_CLOEXEC, MFD_HUGETLB, add_seals,
    memfd_create,
};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &CREATED,
    &EACH_SIZE,
    &NO_SUCH_SIZE,
    &NAME,
    &WRITE,
    &UNALIGNED,
    &SEALS,
    &RESIZE_SEALED,
    &WRITE_SEALED,
    &MAPPED_EBUSY,
    &INTERRUPTED,
];

const NEEDS: &[Need] = &[Need::Path("/sys/kernel/mm/hugepages")];
const CALLS: &[Sys] = &[Sys::MemfdCreate];
const SHARED: i32 = MAP_SHARED | MAP_NORESERVE;

/// A hugetlb memfd of the default page size; a skip where the kernel has none.
fn huge(flags: u32) -> Result<OwnedFd, Stop> {
    match memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | flags) {
        Err(e) if [libc::ENOSYS, ENODEV, libc::ENOENT].contains(&e.errno) => {
            Err(Stop::skip("hugetlb", format!("memfd_create(MFD_HUGETLB) → {}", e.name())))
        }
        made => Ok(made?),
    }
}

/// The default huge page size in bytes.
fn page() -> Result<i64, Stop> {
    let kib = procfs::field(&procfs::read("/proc/meminfo")?, "Hugepagesize");
    let bytes = kib.and_then(|kib| i64::try_from(kib << 10).ok());
    bytes.ok_or_else(|| Stop::skip("hugetlb", "/proc/meminfo has no Hugepagesize"))
}

const CREATED: Probe = Probe {
    title: "MFD_HUGETLB makes an empty file of the default huge page size",
    why: "DPDK and QEMU probe for huge page support by creating one; it must work before any page is reserved",
    spec: &[man("memfd_create(2)", "MFD_HUGETLB")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.hugetlb.created", |cx| {
        let stat = sys::fstat(huge(0)?.as_raw_fd())?;
        cx.expect_eq("st_size and st_blksize", (stat.st_size, stat.st_blksize), (0, page()?))?;
        cx.expect_eq("type", stat.st_mode & libc::S_IFMT, libc::S_IFREG)
    })
};

const EACH_SIZE: Probe = Probe {
    title: "each page size of the kernel can be asked for in the flags",
    why: "a database asks for 1 GiB pages: getting 2 MiB without a word costs the speed that was bought",
    spec: &[man("memfd_create(2)", "MFD_HUGE_2MB, MFD_HUGE_1GB")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.hugetlb.each-size", |cx| {
        drop(huge(0)?);
        for entry in std::fs::read_dir("/sys/kernel/mm/hugepages")?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let kib: Option<i64> = name.strip_prefix("hugepages-").and_then(|n| n.strip_suffix("kB")?.parse().ok());
            let Some(bytes) = kib.map(|kib| kib << 10) else { continue };
            let fd =
                cx.expect_ok(|| memfd_create("sized", MFD_HUGETLB | bytes.trailing_zeros() << sys::MFD_HUGE_SHIFT))?;
            cx.expect_eq(&format!("st_blksize of {name}"), sys::fstat(fd.as_raw_fd())?.st_blksize, bytes)?;
        }
        Ok(())
    })
};

const NO_SUCH_SIZE: Probe = Probe {
    title: "a page size the kernel does not have fails with ENODEV",
    why: "the program falls back to the next size; ordinary pages instead would look like success",
    spec: &[kernel("fs/hugetlbfs/inode.c", "hugetlb_file_setup"), man("memfd_create(2)", "MFD_HUGE_2MB, MFD_HUGE_1GB")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.hugetlb.no-such-size", |cx| {
        drop(huge(0)?);
        // 4 KiB is the base page, 8 EiB more than any machine has.
        for log in [12, 63] {
            cx.expect_errno(ENODEV, || memfd_create("sized", MFD_HUGETLB | log << sys::MFD_HUGE_SHIFT))?;
        }
        Ok(())
    })
};

const NAME: Probe = Probe {
    title: "a hugetlb memfd shows its name like any other",
    why: "the consumer of the scarce pages is found by this name in /proc",
    spec: &[man("memfd_create(2)", "DESCRIPTION")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.hugetlb.name", |cx| {
        let fd = huge(0)?;
        let text = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
        cx.expect_eq("link text", text.to_string_lossy().as_ref(), "/memfd:huge (deleted)")
    })
};

const WRITE: Probe = Probe {
    title: "write to a hugetlb memfd fails with EINVAL",
    why: "huge pages are filled through mappings only; a copying program must know",
    spec: &[kernel("fs/hugetlbfs/inode.c", "hugetlbfs_file_operations"), man("write(2)", "EINVAL")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.hugetlb.write", |cx| {
        let fd = huge(0)?;
        cx.expect_errno(EINVAL, || sys::pwrite(fd.as_raw_fd(), b"x", 0))?;
        cx.expect_eq("size", sys::fstat(fd.as_raw_fd())?.st_size, 0)?;
        cx.expect_eq("bytes read", cx.expect_ok(|| sys::pread(fd.as_raw_fd(), &mut [0; 4], 0))?, 0)
    })
};

const UNALIGNED: Probe = Probe {
    title: "a size that is no multiple of the huge page fails with EINVAL",
    why: "a size rounded in silence would differ from what the program maps",
    spec: &[man("ftruncate(2)", "EINVAL"), kernel("fs/hugetlbfs/inode.c", "hugetlbfs_setattr")],
    calls: &[Sys::MemfdCreate, Sys::Ftruncate],
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.hugetlb.unaligned", |cx| {
        let (fd, page) = (huge(0)?, page()?);
        cx.expect_ok(|| sys::ftruncate(fd.as_raw_fd(), 2 * page))?;
        for length in [1, page - 1, page + 4096] {
            cx.expect_errno(EINVAL, || sys::ftruncate(fd.as_raw_fd(), length))?;
        }
        cx.expect_eq("size", sys::fstat(fd.as_raw_fd())?.st_size, 2 * page)
    })
};

const SEALS: Probe = Probe {
    title: "MFD_HUGETLB and MFD_ALLOW_SEALING go together",
    why: "vhost-user back ends get huge guest memory by descriptor and insist on seals",
    varies: "before Linux 4.16 the pair is EINVAL, as the manual page still says",
    spec: &[man("memfd_create(2)", "ERRORS"), kernel("mm/memfd.c", "memfd_file_seals_ptr")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.hugetlb.seals", |cx| {
        cx.expect_eq("seals by default", seals_of(huge(executable()?)?.as_raw_fd())?, F_SEAL_SEAL)?;
        let fd = huge(MFD_ALLOW_SEALING)?;
        cx.expect_eq("seals when allowed", seals_of(fd.as_raw_fd())?, 0)?;
        cx.expect_ok(|| add_seals(fd.as_raw_fd(), F_SEAL_SHRINK | F_SEAL_SEAL))?;
        cx.expect_eq("seals", seals_of(fd.as_raw_fd())?, F_SEAL_SHRINK | F_SEAL_SEAL)?;
        cx.expect_errno(EPERM, || add_seals(fd.as_raw_fd(), F_SEAL_GROW))
    })
};

const RESIZE_SEALED: Probe = Probe {
    title: "F_SEAL_SHRINK and F_SEAL_GROW hold on huge pages: EPERM",
    why: "a guest that shrinks its memory under a back end kills that with SIGBUS",
    spec: &[man("fcntl(2)", "F_SEAL_SHRINK"), man("ftruncate(2)", "EPERM"), man("fallocate(2)", "EPERM")],
    calls: &[Sys::MemfdCreate, Sys::Ftruncate, Sys::Fallocate],
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.hugetlb.resize-sealed", |cx| {
        let (fd, page) = (huge(MFD_ALLOW_SEALING)?, page()?);
        sys::ftruncate(fd.as_raw_fd(), 2 * page)?;
        add_seals(fd.as_raw_fd(), F_SEAL_SHRINK)?;
        cx.expect_errno(EPERM, || sys::ftruncate(fd.as_raw_fd(), page))?;
        cx.expect_ok(|| sys::ftruncate(fd.as_raw_fd(), 3 * page))?;
        add_seals(fd.as_raw_fd(), F_SEAL_GROW)?;
        cx.expect_errno(EPERM, || sys::ftruncate(fd.as_raw_fd(), 4 * page))?;
        cx.expect_errno(EPERM, || sys::fallocate(fd.as_raw_fd(), 0, 3 * page, page))?;
        cx.expect_ok(|| sys::ftruncate(fd.as_raw_fd(), 3 * page))?;
        cx.expect_eq("size", sys::fstat(fd.as_raw_fd())?.st_size, 3 * page)
    })
};

const WRITE_SEALED: Probe = Probe {
    title: "F_SEAL_WRITE holds on huge pages: no writable mapping, no hole",
    why: "the content of a verified guest image must stay as it was verified",
    spec: &[
        man("fcntl(2)", "F_SEAL_WRITE"),
        man("mmap(2)", "EPERM"),
        kernel("fs/hugetlbfs/inode.c", "hugetlbfs_punch_hole"),
    ],
    calls: &[Sys::MemfdCreate, Sys::Fallocate],
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.hugetlb.write-sealed", |cx| {
        let (fd, page) = (huge(MFD_ALLOW_SEALING)?, page()?);
        sys::ftruncate(fd.as_raw_fd(), page)?;
        let length = usize::try_from(page).unwrap_or(0);
        // Nothing is touched and nothing reserved: the mapping needs no page.
        cx.expect_ok(|| Map::new(length, PROT_READ | PROT_WRITE, SHARED, fd.as_raw_fd()))?.close()?;
        add_seals(fd.as_raw_fd(), F_SEAL_WRITE)?;
        cx.expect_errno(EPERM, || Map::new(length, PROT_READ | PROT_WRITE, SHARED, fd.as_raw_fd()))?;
        let other = reopen(&fd, O_RDWR)?;
        cx.expect_errno(EPERM, || Map::new(length, PROT_READ | PROT_WRITE, SHARED, other.as_raw_fd()))?;
        let mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        cx.expect_errno(EPERM, || sys::fallocate(fd.as_raw_fd(), mode, 0, page))
    })
};

const MAPPED_EBUSY: Probe = Probe {
    title: "F_SEAL_WRITE on huge pages that are mapped writable gives EBUSY",
    why: "the rule is the same as for small pages; only the code in the kernel differs",
    spec: &[man("fcntl(2)", "EBUSY"), kernel("fs/hugetlbfs/inode.c", "hugetlbfs_file_mmap")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.hugetlb.mapped-ebusy", |cx| {
        let (fd, page) = (huge(MFD_ALLOW_SEALING)?, page()?);
        sys::ftruncate(fd.as_raw_fd(), page)?;
        let map = Map::new(usize::try_from(page).unwrap_or(0), PROT_READ | PROT_WRITE, SHARED, fd.as_raw_fd())?;
        cx.expect_errno(EBUSY, || add_seals(fd.as_raw_fd(), F_SEAL_WRITE))?;
        cx.expect_eq("seals", seals_of(fd.as_raw_fd())?, 0)?;
        map.close()?;
        cx.expect_ok(|| add_seals(fd.as_raw_fd(), F_SEAL_WRITE))
    })
};

const INTERRUPTED: Probe = Probe {
    title: "a signal interrupts fallocate of huge pages: EINTR",
    why: "reserving hundreds of gigabytes takes long; the errno tells giving up from running out",
    spec: &[man("fallocate(2)", "EINTR"), kernel("fs/hugetlbfs/inode.c", "hugetlbfs_fallocate")],
    calls: &[Sys::MemfdCreate, Sys::Fallocate, Sys::Ptrace],
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.hugetlb.fallocate-eintr", |cx| {
        let (fd, page) = (huge(0)?, page()?);
        let errno = interrupted_fallocate(cx, fd.as_raw_fd(), page)?;
        cx.expect_eq("fallocate with a signal pending", errno.as_str(), "EINTR")?;
        // The size may have grown nevertheless (hugetlbfs_fallocate sets it after the loop); no page was taken.
        cx.expect_eq("blocks", sys::fstat(fd.as_raw_fd())?.st_blocks, 0)
    })
};
