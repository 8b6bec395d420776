//! Reading what /proc says: mappings, System V tables, sysctls, processes.

use crate::outcome::Stop;
use std::fs;

/// One line of /proc/PID/maps, proc_pid_maps(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: usize,
    /// Address behind the last.
    pub end: usize,
    /// `rwxs` or `rwxp` with dashes.
    pub perms: String,
    /// Offset into the object in bytes.
    pub offset: u64,
    /// Inode; for a System V segment its identifier.
    pub inode: u64,
    /// Name as the kernel prints it; empty for anonymous memory.
    pub name: String,
}

/// The mappings of a process; `"self"` for this one.
pub fn maps(pid: &str) -> Result<Vec<Mapping>, Stop> {
    let text = read(&format!("/proc/{pid}/maps"))?;
    Ok(text.lines().filter_map(mapping).collect())
}

/// The mapping of this process that holds an address, if there is one.
pub fn mapping_at(address: usize) -> Result<Option<Mapping>, Stop> {
    Ok(maps("self")?.into_iter().find(|m| m.start <= address && address < m.end))
}

fn mapping(line: &str) -> Option<Mapping> {
    let mut rest = line;
    let mut word = || {
        let trimmed = rest.trim_start();
        let (head, tail) = trimmed.split_once(' ').unwrap_or((trimmed, ""));
        rest = tail;
        head.to_owned()
    };
    let range = word();
    let (start, end) = range.split_once('-')?;
    let (perms, offset, _device, inode) = (word(), word(), word(), word());
    Some(Mapping {
        start: usize::from_str_radix(start, 16).ok()?,
        end: usize::from_str_radix(end, 16).ok()?,
        perms,
        offset: u64::from_str_radix(&offset, 16).ok()?,
        inode: inode.parse().ok()?,
        name: rest.trim_start().to_owned(),
    })
}

/// A line of /proc/sysvipc/{shm,sem,msg}, by the names in the table's first line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row(Vec<(String, String)>);

impl Row {
    /// The column of that name as a number; columns in octal are converted.
    pub fn number(&self, column: &str) -> Result<i64, Stop> {
        let (_, value) = self
            .0
            .iter()
            .find(|(name, _)| name == column)
            .ok_or_else(|| Stop::broken(format!("/proc/sysvipc has no column {column}")))?;
        let parsed = if column == "perms" { i64::from_str_radix(value, 8) } else { value.parse() };
        parsed.map_err(|e| Stop::broken(format!("/proc/sysvipc column {column} is {value:?}: {e}")))
    }
}

/// All lines of /proc/sysvipc/`table`, proc_sysvipc(5).
pub fn sysvipc(table: &str) -> Result<Vec<Row>, Stop> {
    let text = read(&format!("/proc/sysvipc/{table}"))?;
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or("").split_whitespace().collect();
    Ok(lines
        .map(|line| {
            Row(names.iter().map(|n| (*n).to_owned()).zip(line.split_whitespace().map(str::to_owned)).collect())
        })
        .collect())
}

/// The line of /proc/sysvipc/`table` with that identifier.
pub fn sysvipc_row(table: &str, id: i32) -> Result<Option<Row>, Stop> {
    // The kernel calls a message queue's identifier msqid.
    let column = if table == "msg" { "msqid".to_owned() } else { format!("{table}id") };
    for row in sysvipc(table)? {
        if row.number(&column)? == i64::from(id) {
            return Ok(Some(row));
        }
    }
    Ok(None)
}

/// A sysctl by its path below /proc/sys, without the line's end.
pub fn sysctl(name: &str) -> Result<String, Stop> {
    Ok(read(&format!("/proc/sys/{name}"))?.trim_end().to_owned())
}

/// A sysctl that is one number.
pub fn sysctl_number<T: std::str::FromStr>(name: &str) -> Result<T, Stop> {
    let text = sysctl(name)?;
    text.parse().map_err(|_| Stop::broken(format!("/proc/sys/{name} is not a number: {text:?}")))
}

/// Writes a sysctl. A refusal is the set-up's: broken.
pub fn set_sysctl(name: &str, value: impl std::fmt::Display) -> Result<(), Stop> {
    fs::write(format!("/proc/sys/{name}"), value.to_string())
        .map_err(|e| Stop::broken(format!("failed to write {value} to /proc/sys/{name}: {e}")))
}

/// The state letter of a process (`R`, `S`, `Z`, …), or `None` when it is gone. proc_pid_stat(5).
pub fn state(pid: libc::pid_t) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.chars().next()
}

/// The number of the system call a stopped or sleeping process is in, where the kernel tells. proc_pid_syscall(5).
pub fn current_call(pid: libc::pid_t) -> Option<libc::c_long> {
    let text = fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
    // It has left the call in which it slept a moment ago, or a fault that looked like one: in no call, not "not told".
    if text.trim_end() == "running" {
        return Some(-1);
    }
    text.split(' ').next()?.parse().ok()
}

/// A field of a `Name:   value kB` file such as /proc/meminfo or /proc/PID/smaps_rollup, as a number.
pub fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok())
}

/// The block of /proc/self/smaps of the mapping that starts at `start`.
pub fn smaps_block(start: usize) -> Result<String, Stop> {
    let text = read("/proc/self/smaps")?;
    let head = format!("{start:08x}-");
    let mut block = String::new();
    for line in text.lines() {
        let is_head = line.split('-').next().is_some_and(|a| !a.is_empty() && a.bytes().all(|b| b.is_ascii_hexdigit()));
        if is_head && !block.is_empty() {
            break;
        }
        if line.starts_with(&head) || !block.is_empty() {
            block.push_str(line);
            block.push('\n');
        }
    }
    if block.is_empty() { Err(Stop::broken(format!("no mapping starts at {start:#x}"))) } else { Ok(block) }
}

/// Where the message queue file system is looked for: the usual place, and the one that fresh namespaces use where the
/// machine has no folder for it.
pub const MQUEUE_PLACES: [&str; 2] = ["/dev/mqueue", "/dev/shm/mqueue"];

/// Where the message queue file system is mounted, by its magic number (ipc/mqueue.c, MQUEUE_MAGIC).
pub fn mqueue_place() -> Option<&'static str> {
    const MQUEUE_MAGIC: i64 = 0x1980_0202;
    let is_mqueue =
        |place: &&str| nix::sys::statfs::statfs(*place).is_ok_and(|stat| stat.filesystem_type().0 == MQUEUE_MAGIC);
    MQUEUE_PLACES.into_iter().find(is_mqueue)
}

/// A whole small file.
pub fn read(path: &str) -> Result<String, Stop> {
    fs::read_to_string(path).map_err(|e| Stop::broken(format!("failed to read {path}: {e}")))
}

/// Where a file on the working file system of the cell is made: the usual places, then the root of an empty image.
pub const SCRATCH_PLACES: [&str; 3] = ["/var/tmp", "/tmp", "/"];

/// The first of [`SCRATCH_PLACES`] where this user can create a file.
pub fn scratch_place() -> Option<&'static str> {
    SCRATCH_PLACES.into_iter().find(|place| {
        // access(2) asks the kernel for this user; a read-only mount refuses as well.
        nix::unistd::access(*place, nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK).is_ok()
    })
}
