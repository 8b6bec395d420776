//! What outlives a process here: System V objects, names in /dev/shm and /dev/mqueue.

use shmcheck_probe::procfs;
use shmcheck_protocol::Inventory;
use std::fs;

/// Everything that can be listed; what cannot be read is empty.
pub fn take() -> Inventory {
    Inventory {
        shm: table("shm"),
        sem: table("sem"),
        msg: table("msg"),
        dev_shm: names("/dev/shm"),
        mqueue: names("/dev/mqueue"),
    }
}

fn table(name: &str) -> Vec<(i32, i32)> {
    let rows = procfs::sysvipc(name).unwrap_or_default();
    let number = |row: &procfs::Row, column: &str| row.number(column).ok().and_then(|n| i32::try_from(n).ok());
    rows.iter().filter_map(|row| Some((number(row, &format!("{name}id"))?, number(row, "key")?))).collect()
}

fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
