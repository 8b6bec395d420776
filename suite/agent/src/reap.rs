//! Ending what a probe or an actor leaves running.

use shmcheck_probe::sys;
use std::time::{Duration, Instant};

/// How long descendants that were told to die may take; on a loaded machine a killed process needs a time slice.
const GRACE: Duration = Duration::from_millis(2_000);

/// Makes this process the reaper of all its descendants.
pub(crate) fn become_reaper() -> sys::Result<()> {
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map(drop)
}

/// Ends and reaps every descendant; names those that did not end by themselves.
pub(crate) fn reap_descendants() -> Option<String> {
    let start = Instant::now();
    let mut stubborn = String::new();
    loop {
        match sys::waitpid(-1, libc::WNOHANG) {
            Err(_) => break,
            Ok((0, _)) => {
                // Peers die with their parent; give the signal the time to arrive before calling them left behind.
                if start.elapsed() > Duration::from_millis(200) && stubborn.is_empty() {
                    stubborn =
                        children().iter().map(|(pid, name)| format!("{name}[{pid}]")).collect::<Vec<_>>().join(" ");
                }
                if !stubborn.is_empty() {
                    for (pid, _) in children() {
                        let _ = sys::kill(pid, libc::SIGKILL);
                    }
                }
                if start.elapsed() > GRACE {
                    break;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            Ok(_) => {}
        }
    }
    (!stubborn.is_empty()).then_some(stubborn)
}

/// The children of this process with their names.
fn children() -> Vec<(libc::pid_t, String)> {
    let own = sys::getpid();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let parse = |entry: std::fs::DirEntry| {
        let pid: libc::pid_t = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (head, tail) = stat.rsplit_once(") ")?;
        let parent: libc::pid_t = tail.split(' ').nth(1)?.parse().ok()?;
        (parent == own).then(|| (pid, head.split_once('(').map_or("", |(_, name)| name).to_owned()))
    };
    entries.filter_map(parse).collect()
}
