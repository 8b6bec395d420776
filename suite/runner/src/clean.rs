//! `clean`: what killed runs left behind, and nothing else.
//!
//! A dead run is one whose journal is there and not locked. Its objects carry its tag (System V keys) or its id (names,
//! labels of containers); what carries neither is nobody's business here.

use crate::environments;
use crate::journal::{self, Entry};
use crate::launch::RUN_VARIABLE;
use shmcheck_probe::{key, procfs, sys};
use shmcheck_protocol::NAME_PREFIX;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Removes what dead runs left, or with `dry` only finds it; a line for each thing.
pub fn clean(dry: bool) -> Vec<String> {
    let journals = journal::read_all();
    let mut lines = Vec::new();
    // Containers first: an agent in the host's IPC namespace could still make what is swept below.
    // A container's run is dead when no living run has its id: its journal may have been cleaned before.
    let dead = |run: &str| !journals.alive.iter().any(|alive| alive == run);
    for environment in environments::ALL {
        lines.extend(environment.clean(&dead, dry));
    }
    for (entry, path) in &journals.dead {
        lines.extend(processes(&entry.run, dry));
        lines.extend(objects(entry, dry));
        if !dry {
            // Last: a clean that is killed leaves the journal, and the next one goes on.
            let _ = fs::remove_file(path);
        }
        lines.push(format!("journal of run {}", entry.run));
    }
    for folder in journal::folders() {
        let _ = fs::remove_dir(folder);
    }
    lines
}

/// Removes what a run made where this program runs: for a run that ends before its cells did.
pub fn sweep(entry: &Entry) -> Vec<String> {
    objects(entry, false)
}

fn objects(entry: &Entry, dry: bool) -> Vec<String> {
    let mut lines = system_v(entry.tag, dry);
    lines.extend(names(&entry.run, dry));
    lines
}

/// How long processes of a dead run may take to end by themselves: an agent whose runner is gone ends with the probes
/// that are under way, and these take what they made along.
const LAST_WORDS: Duration = Duration::from_secs(12);

/// The processes of a run: first awaited, since an agent ends in order, then killed.
fn processes(run: &str, dry: bool) -> Vec<String> {
    let start = Instant::now();
    loop {
        let found = with_mark(run);
        if found.is_empty() {
            return Vec::new();
        }
        if dry {
            return found.iter().map(|pid| format!("process {pid}")).collect();
        }
        if start.elapsed() > LAST_WORDS {
            let kill = |pid: &libc::pid_t| {
                let failed = if sys::kill(*pid, libc::SIGKILL).is_ok() { "" } else { " (failed)" };
                format!("process {pid}{failed}")
            };
            return found.iter().map(kill).collect();
        }
        // No descriptor announces the end of somebody else's child on every kernel this runs on.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Processes whose environment has the run's mark.
fn with_mark(run: &str) -> Vec<libc::pid_t> {
    let mark = format!("{RUN_VARIABLE}={run}");
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: libc::pid_t = entry.file_name().to_str()?.parse().ok()?;
            let environment = fs::read(entry.path().join("environ")).ok()?;
            environment.split(|byte| *byte == 0).any(|pair| pair == mark.as_bytes()).then_some(pid)
        })
        .collect()
}

fn system_v(tag: u32, dry: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for (table, call) in [("shm", libc::SYS_shmctl), ("sem", libc::SYS_semctl), ("msg", libc::SYS_msgctl)] {
        for row in procfs::sysvipc(table).unwrap_or_default() {
            let number = |column: &str| row.number(column).ok().and_then(|n| i32::try_from(n).ok());
            let (Some(id), Some(key)) = (number(&format!("{table}id")), number("key")) else { continue };
            if !key::has_tag(key, tag) {
                continue;
            }
            // semctl has the command in third place, the other two in second; a spare zero hurts neither.
            let value = if table == "sem" { [0, libc::IPC_RMID] } else { [libc::IPC_RMID, 0] };
            // SAFETY: IPC_RMID takes no memory.
            let removed = dry || unsafe { libc::syscall(call, id, value[0], value[1], 0) } == 0;
            let failed = if removed { "" } else { " (failed)" };
            lines.push(format!("System V {table} id {id} key {key:#x}{failed}"));
        }
    }
    lines
}

fn names(run: &str, dry: bool) -> Vec<String> {
    let mark = format!("{NAME_PREFIX}{run}.");
    let mut lines = Vec::new();
    for folder in ["/dev/shm", "/dev/mqueue"] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.contains(&mark) {
                let removed = dry || remove(&entry.path());
                lines.push(format!("{folder}/{name}{}", if removed { "" } else { " (failed)" }));
            }
        }
    }
    // Where the queues' file system is mounted its listing is complete.
    if procfs::mqueue_place() != Some(procfs::MQUEUE_PLACES[0]) {
        lines.extend(unlisted_queues(run, dry));
    }
    lines
}

fn remove(path: &Path) -> bool {
    if path.is_dir() { fs::remove_dir_all(path).is_ok() } else { fs::remove_file(path).is_ok() }
}

/// Queues where no file system lists them: every name that the run can have used is tried.
fn unlisted_queues(run: &str, dry: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for probe in 0..key::PROBES {
        for number in 0..key::NUMBERS {
            let name = sys::cstr(&format!("{NAME_PREFIX}{run}.{probe:x}.{number:x}"));
            let found = if dry {
                // SAFETY: the name is a C string; no attributes are passed without O_CREAT.
                let fd = unsafe { libc::syscall(libc::SYS_mq_open, name.as_ptr(), libc::O_RDONLY, 0, 0) };
                i32::try_from(fd).is_ok_and(|fd| fd >= 0 && sys::close(fd).is_ok())
            } else {
                // SAFETY: the name is a C string.
                unsafe { libc::syscall(libc::SYS_mq_unlink, name.as_ptr()) == 0 }
            };
            if found {
                lines.push(format!("POSIX queue /{}", name.to_string_lossy()));
            } else if sys::errno() != libc::ENOENT {
                return lines;
            }
        }
    }
    lines
}
