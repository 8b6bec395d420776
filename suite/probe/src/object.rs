//! Named objects of /dev/shm that are gone when the probe ends.

use crate::sys::{self, Result};
use crate::{Context, Map, Stop};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Where shm_open(3) of the C library keeps its objects.
pub const DEV_SHM: &str = "/dev/shm";

/// A name in the file system that is removed when dropped by the process that made the guard.
#[derive(Debug)]
pub struct Entry {
    /// The whole path.
    pub path: String,
    owner: libc::pid_t,
}

impl Entry {
    /// A guard over a path, whether or not something is there yet.
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), owner: sys::getpid() }
    }

    /// A guard over the object of that name.
    pub fn of(name: &str) -> Self {
        Self::new(format!("{DEV_SHM}/{}", name.trim_start_matches('/')))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.owner == sys::getpid() && sys::tmpfs::unlink(&self.path).is_err() {
            // A directory, or gone already: what is really left is found by the agent's inventory.
            let _ = sys::tmpfs::rmdir(&self.path);
        }
    }
}

/// A POSIX shared memory object with a descriptor for reading and writing; its name is removed when dropped.
#[derive(Debug)]
pub struct Object {
    /// The name with its leading slash.
    pub name: String,
    fd: OwnedFd,
    entry: Entry,
}

impl Object {
    /// `shm_open(name, O_CREAT|O_EXCL|O_RDWR, mode)` and `ftruncate` to `size`.
    pub fn create(name: String, size: usize, mode: libc::mode_t) -> Result<Self> {
        let fd = sys::shm_open(&name, libc::O_CREAT | libc::O_EXCL | libc::O_RDWR, mode)?;
        let object = Self { entry: Entry::of(&name), name, fd };
        if size > 0 {
            sys::ftruncate(object.raw(), i64::try_from(size).unwrap_or(0))?;
        }
        Ok(object)
    }

    /// The descriptor's number.
    pub fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// The object's path below /dev/shm.
    pub fn path(&self) -> &str {
        &self.entry.path
    }

    /// `shm_open(name, flags)`—a further descriptor.
    pub fn open(&self, flags: i32) -> Result<OwnedFd> {
        sys::shm_open(&self.name, flags, 0)
    }

    /// `fstat(fd)`
    pub fn stat(&self) -> Result<libc::stat> {
        sys::fstat(self.raw())
    }

    /// The first `length` bytes as shared memory, readable and writable.
    pub fn map(&self, length: usize) -> Result<Map> {
        Map::shared(&self.fd, length)
    }

    /// Closes the descriptor; the name goes when the guard is dropped.
    pub fn into_entry(self) -> Entry {
        self.entry
    }
}

impl AsRawFd for Object {
    fn as_raw_fd(&self) -> RawFd {
        self.raw()
    }
}

impl Context {
    /// A new POSIX shared memory object of `size` bytes, mode 0600; its name is removed when dropped.
    pub fn object(&mut self, size: usize) -> std::result::Result<Object, Stop> {
        Ok(Object::create(self.fresh_name(), size, 0o600)?)
    }

    /// A tmpfs with these options on /dev/shm, in the probe's own mount namespace; gone with the probe.
    ///
    /// The probe is [`crate::Isolate::FreshOnly`].
    pub fn own_dev_shm(&self, options: &str) -> std::result::Result<(), Stop> {
        if !self.is_fresh() {
            return Err(Stop::broken("a probe without namespaces of its own must not mount on /dev/shm"));
        }
        Ok(sys::tmpfs::mount_tmpfs(DEV_SHM, libc::MS_NOSUID | libc::MS_NODEV, options)?)
    }
}
