//! What several files of this chapter share: files in memory, islands, faults in detail, what /proc says.

use libc::{MAP_ANONYMOUS, MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, MAP_SHARED, PROT_NONE, PROT_READ, PROT_WRITE};
use shmcheck_probe::{Context, Isolate, Map, Need, Outcome, Probe, Stop, Sys, procfs, sys};
use std::fmt::Debug;
use std::os::fd::{AsRawFd, OwnedFd};

/// Readable and writable.
pub(super) const RW: i32 = PROT_READ | PROT_WRITE;
/// Shared memory without a file.
pub(super) const SHARED: i32 = MAP_SHARED | MAP_ANONYMOUS;
/// Private memory without a file.
pub(super) const PRIVATE: i32 = MAP_PRIVATE | MAP_ANONYMOUS;
/// What a probe with a file in memory needs.
pub(super) const FILE: &[Need] = &[Need::Call(Sys::MemfdCreate)];

/// A probe of this chapter: about mmap unless it says otherwise, and in the cell's own namespaces, because memory has
/// no name there.
#[track_caller]
pub(super) const fn probe(id: &'static str, run: fn(&mut Context) -> Outcome) -> Probe {
    Probe { calls: &[Sys::Mmap], isolate: Isolate::Cell, ..Probe::new(id, run) }
}

/// The size of a page.
pub(super) fn page() -> usize {
    sys::page_size()
}

/// A file in memory of so many pages; every byte of page n is `'a' + n`.
pub(super) fn lettered_file(pages: usize) -> Result<OwnedFd, Stop> {
    let file = sys::memory_file(pages * page())?;
    for (n, letter) in (b'a'..=b'z').take(pages).enumerate() {
        sys::pwrite(file.as_raw_fd(), &vec![letter; page()], (n * page()) as i64)?;
    }
    Ok(file)
}

/// The same file opened again with other flags, as another program would.
pub(super) fn reopen(file: &OwnedFd, flags: i32) -> Result<OwnedFd, Stop> {
    Ok(sys::open(&format!("/proc/self/fd/{}", file.as_raw_fd()), flags | libc::O_CLOEXEC, 0)?)
}

/// One byte of a file, by pread(2).
pub(super) fn byte_of(file: &OwnedFd, offset: usize) -> Result<u8, Stop> {
    let mut byte = [0];
    match sys::pread(file.as_raw_fd(), &mut byte, offset as i64)? {
        1 => Ok(byte[0]),
        _ => Err(Stop::broken(format!("the file ends before offset {offset}"))),
    }
}

/// Address space of so many pages that nothing can be put into.
pub(super) fn reserve(pages: usize) -> Result<Map, Stop> {
    Ok(Map::new(pages * page(), PROT_NONE, PRIVATE | MAP_NORESERVE, -1)?)
}

/// A mapping between two reserved pages: it merges with no neighbour, and cannot grow where it is.
#[derive(Debug)]
pub(super) struct Island {
    /// The mapping.
    pub(super) map: Map,
    /// Dropped after the mapping.
    _around: Map,
}

impl Island {
    /// Maps so many pages of `fd`, or of anonymous memory, with these protections and flags.
    pub(super) fn new(pages: usize, protection: i32, flags: i32, fd: i32) -> Result<Self, Stop> {
        let around = reserve(pages + 2)?;
        let at = around.address() + page();
        Ok(Self { map: Map::at(at, pages * page(), protection, flags | MAP_FIXED, fd, 0)?, _around: around })
    }

    /// Shared anonymous pages; never huge ones, so that counts of pages are exact.
    pub(super) fn shared(pages: usize) -> Result<Self, Stop> {
        Self::small(pages, SHARED)
    }

    /// Private anonymous pages, never huge ones.
    pub(super) fn private(pages: usize) -> Result<Self, Stop> {
        Self::small(pages, PRIVATE)
    }

    fn small(pages: usize, flags: i32) -> Result<Self, Stop> {
        let island = Self::new(pages, RW, flags, -1)?;
        small_pages(&island.map)?;
        Ok(island)
    }
}

impl std::ops::Deref for Island {
    type Target = Map;

    fn deref(&self) -> &Map {
        &self.map
    }
}

/// Asks for base pages, where the kernel knows others at all.
pub(super) fn small_pages(map: &Map) -> Result<(), Stop> {
    match sys::madvise(map.address(), map.len(), libc::MADV_NOHUGEPAGE) {
        Ok(()) => Ok(()),
        Err(e) if e.errno == libc::EINVAL => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// A load whose value does not matter, only whether it faults.
pub(super) fn load(map: &Map, offset: usize) {
    let _ = map.read(offset);
}

/// A field in kB of /proc/self/smaps for the mapping that holds an address.
pub(super) fn smaps(address: usize, field: &str) -> Result<u64, Stop> {
    let block = smaps_of(address)?;
    procfs::field(&block, field).ok_or_else(|| Stop::skip(format!("smaps:{field}"), "no such field"))
}

/// The block of /proc/self/smaps for the mapping that holds an address.
pub(super) fn smaps_of(address: usize) -> Result<String, Stop> {
    let found = procfs::mapping_at(address)?;
    procfs::smaps_block(found.ok_or_else(|| Stop::broken(format!("nothing is mapped at {address:#x}")))?.start)
}

/// So many pages in kB, as /proc counts.
pub(super) fn kib(pages: usize) -> u64 {
    (pages * page() / 1024) as u64
}

/// `VmLck` of this process in kB.
pub(super) fn locked() -> Result<u64, Stop> {
    let text = procfs::read("/proc/self/status")?;
    procfs::field(&text, "VmLck").ok_or_else(|| Stop::skip("status:VmLck", "no such field"))
}

/// Protection and type at an address as /proc/self/maps shows them, empty where nothing is mapped.
pub(super) fn perms(address: usize) -> Result<String, Stop> {
    Ok(procfs::mapping_at(address)?.map_or(String::new(), |m| m.perms))
}

/// Fails unless the call is refused with this errno and leaves all mappings as they were.
pub(super) fn refused<T: Debug>(cx: &Context, errno: i32, call: impl FnOnce() -> sys::Result<T>) -> Outcome {
    let before = without_heap()?;
    cx.expect_errno(errno, call)?;
    cx.expect_eq("the mappings after the refused call", without_heap()?, before)
}

/// All mappings but heap and stack, which grow by reading these.
fn without_heap() -> Result<Vec<procfs::Mapping>, Stop> {
    Ok(procfs::maps("self")?.into_iter().filter(|m| m.name != "[heap]" && m.name != "[stack]").collect())
}

/// Skips where madvise does not know the advice: "madvise(0, 0, advice) will return zero iff advice is supported".
pub(super) fn need_advice(advice: i32, name: &str) -> Result<(), Stop> {
    match sys::madvise(0, 0, advice) {
        Ok(()) => Ok(()),
        Err(e) => Err(Stop::skip(format!("advice:{name}"), format!("madvise(0, 0, {name}) → {}", e.name()))),
    }
}

/// The value of the call that the claim is about, where it is a step on the way: refused is a fail, not broken.
pub(super) fn must<T>(result: sys::Result<T>) -> Result<T, Stop> {
    result.map_err(|e| Stop::fail(e.call, "success", e.name()))
}

/// What a signal handler was told of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    /// The signal, 0 where nothing faulted.
    pub(super) signal: i32,
    /// `si_code`
    pub(super) code: i32,
    /// `si_addr`
    pub(super) address: usize,
}

/// Runs `body` in a process of its own and says how it faulted.
pub(super) fn fault_of(cx: &mut Context, body: impl FnOnce()) -> Result<Fault, Stop> {
    let slot = Map::shared_anonymous(page())?;
    let exit = cx.exit_of(|| {
        if sys::report_fault(slot.address()).is_err() {
            sys::exit_now(1);
        }
        body();
    })?;
    if exit != shmcheck_probe::Exit::Code(0) {
        return Err(Stop::broken(format!("the process that was to fault ended with {exit}")));
    }
    let word = |n: usize| {
        let bytes: Vec<u8> = slot.read_all(8 * n, 8);
        u64::from_ne_bytes(bytes.try_into().unwrap_or_default())
    };
    Ok(Fault { signal: word(0) as i32, code: word(1) as i32, address: word(2) as usize })
}

/// Starts this program anew in a child, stopped at the end of execve(2), and looks at it.
pub(super) fn after_exec<T>(
    cx: &mut Context,
    before: impl FnOnce() -> Result<(), Stop>,
    look: impl FnOnce(&str) -> Result<T, Stop>,
) -> Result<T, Stop> {
    let peer = cx.fork::<()>(|_| {
        before()?;
        Err(sys::exec_stopped().into())
    })?;
    let (_, status) = sys::waitpid(peer.pid(), 0)?;
    if !sys::has_stopped(status) {
        return Err(Stop::broken(format!("no stop after execve, status {status:#x}")));
    }
    let seen = look(&peer.pid().to_string());
    peer.kill()?;
    seen
}
