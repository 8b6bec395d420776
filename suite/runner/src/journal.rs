//! The journal of a run: written before anything outlives a process, locked while the run lives, removed at its end.
//!
//! A run that was killed leaves its journal, unlocked: that is how `clean` knows which keys, names and containers are
//! nobody's any more. The lock, not a process id, says whether a run lives, so a reused id cannot mislead it.

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use shmcheck_probe::key::TAGS;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a journal says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The run's id: lower-case letters and digits.
    pub run: String,
    /// The run's tag in System V keys.
    pub tag: u32,
}

/// A living run's journal.
#[derive(Debug)]
pub struct Journal {
    /// What it says.
    pub entry: Entry,
    path: PathBuf,
    // Held for its lock, which ends with the process.
    _lock: Flock<File>,
}

/// Why there is no journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The folder or file cannot be made.
    #[error("failed to write the run's journal in {}: {source}", path.display())]
    Write {
        /// The folder or file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The folder is not this user's own.
    #[error("the folder for journals, {}, belongs to user {owner} or can be written by others; remove it", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// All tags are taken.
    #[error("{TAGS} runs are under way; wait for one to end")]
    Full,
}

/// The folders that may hold this user's journals, in the order tried: a machine or container may have a read-only
/// root, or no /dev/shm.
pub fn folders() -> [PathBuf; 2] {
    ["/tmp", "/dev/shm"].map(|place| PathBuf::from(format!("{place}/shmcheck-{}", nix::unistd::geteuid())))
}

impl Journal {
    /// Begins a run: a new id, a tag that no journal names, and the lock.
    pub fn begin() -> Result<Self, JournalError> {
        let [first, second] = folders();
        // The first folder's error is the one that a user can mend.
        Self::begin_in(&first).or_else(|error| Self::begin_in(&second).map_err(|_| error))
    }

    fn begin_in(folder: &Path) -> Result<Self, JournalError> {
        own_folder(folder)?;
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let run = base36(nanos / 1_000 * 100_000 + u128::from(std::process::id()));
        for attempt in 0..u128::from(TAGS) {
            let tag = u32::try_from((nanos / 1_000 + attempt) % u128::from(TAGS)).unwrap_or(0);
            // One file per tag: creating it exclusively is the reservation.
            let path = folder.join(format!("{tag}.json"));
            let file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => continue,
                // Another run of this user ended meanwhile and took the empty folder along.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    own_folder(folder)?;
                    continue;
                }
                Err(source) => return Err(JournalError::Write { path, source }),
            };
            let entry = Entry { run: run.clone(), tag };
            let write = |source: std::io::Error| JournalError::Write { path: path.clone(), source };
            let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| write(e.into()))?;
            serde_json::to_writer(&*lock, &entry).map_err(|e| write(e.into()))?;
            return Ok(Self { entry, path, _lock: lock });
        }
        Err(JournalError::Full)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        // Only the last run's goes through; the folder is not kept for nothing.
        if let Some(folder) = self.path.parent() {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Makes the folder where it is missing; it must be this user's own.
fn own_folder(path: &Path) -> Result<(), JournalError> {
    let write = |source| JournalError::Write { path: path.to_owned(), source };
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(write(e)),
        _ => {}
    }
    let meta = fs::symlink_metadata(path).map_err(write)?;
    let own = nix::unistd::geteuid().as_raw();
    if !meta.is_dir() || meta.uid() != own || meta.mode() & 0o077 != 0 {
        return Err(JournalError::Foreign { path: path.to_owned(), owner: meta.uid() });
    }
    Ok(())
}

/// The journals of this user's runs: those alive, and those dead with their files.
#[derive(Debug, Default)]
pub struct Journals {
    /// Ids of the runs that live.
    pub alive: Vec<String>,
    /// Dead runs with the journal's file.
    pub dead: Vec<(Entry, PathBuf)>,
}

/// Reads all journals. A file that is no journal is left alone.
pub fn read_all() -> Journals {
    let mut found = Journals::default();
    for file in folders().iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten()) {
        let path = file.path();
        let Some(entry) = read(&path) else { continue };
        if is_locked(&path) { found.alive.push(entry.run) } else { found.dead.push((entry, path)) }
    }
    found
}

fn read(path: &Path) -> Option<Entry> {
    let entry: Entry = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let sound = !entry.run.is_empty() && entry.run.bytes().all(|b| b.is_ascii_alphanumeric()) && entry.tag < TAGS;
    sound.then_some(entry)
}

fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err()
}

fn base36(mut number: u128) -> String {
    let mut digits = Vec::new();
    while number > 0 {
        digits.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize]);
        number /= 36;
    }
    digits.reverse();
    // The first digits change with the year only.
    let tail = digits.len().saturating_sub(12);
    String::from_utf8_lossy(&digits[tail..]).into_owned()
}
