//! Message queues that a probe makes and that are gone when it ends.
//!
//! As the other guards: a queue is removed only by the process that made it.

use crate::outcome::Stop;
use crate::sys::{self, MqAttr, MsgStat, Result};
use crate::{Context, Sys};
use libc::{IPC_CREAT, IPC_EXCL, O_CREAT, O_EXCL, O_RDWR, c_int};
use std::os::fd::{AsRawFd, OwnedFd};

/// A System V message queue, removed when dropped by the process that made it.
#[derive(Debug)]
pub struct MsgQueue {
    /// The identifier.
    pub id: i32,
    /// The key it was made with.
    pub key: i32,
    owner: libc::pid_t,
}

impl MsgQueue {
    /// `msgget(key, flags)`—a guard over what it returns; flags hold mode bits and `IPC_CREAT`.
    pub fn get(key: i32, flags: c_int) -> Result<Self> {
        Ok(Self { id: sys::msgget(key, flags)?, key, owner: sys::getpid() })
    }

    /// `msgctl(id, IPC_STAT)`
    pub fn stat(&self) -> Result<MsgStat> {
        sys::msg_stat(self.id)
    }

    /// `msgsnd(id, {kind, text}, IPC_NOWAIT)`
    pub fn put(&self, kind: i64, text: &[u8]) -> Result<()> {
        sys::msgsnd(self.id, kind, text, sys::IPC_NOWAIT)
    }

    /// `msgrcv(id, 64 bytes, kind, flags | IPC_NOWAIT)`—type and text.
    pub fn take(&self, kind: i64, flags: c_int) -> Result<(i64, Vec<u8>)> {
        let message = sys::msgrcv(self.id, 64, kind, flags | sys::IPC_NOWAIT)?;
        Ok((message.kind, message.text))
    }

    /// `msgctl(id, IPC_SET)`—of the members of `msqid_ds` that `change` changes.
    pub fn set(&self, change: impl FnOnce(&mut MsgStat)) -> Result<()> {
        let mut to = self.stat()?;
        change(&mut to);
        sys::msg_set(self.id, &to)
    }

    /// `msgctl(id, IPC_RMID)`—now; a later drop does nothing.
    pub fn remove(&mut self) -> Result<()> {
        self.owner = 0;
        sys::msg_remove(self.id)
    }
}

impl Drop for MsgQueue {
    fn drop(&mut self) {
        if self.owner == sys::getpid() {
            // The probe may have removed it by another way; what is really left is found by the agent's inventory.
            let _ = sys::msg_remove(self.id);
        }
    }
}

/// A POSIX message queue with a descriptor for it; its name is removed when dropped by the process that made it.
#[derive(Debug)]
pub struct MqQueue {
    /// The name with its leading slash.
    pub name: String,
    fd: OwnedFd,
    owner: libc::pid_t,
}

impl MqQueue {
    /// Takes over a queue that exists under this name.
    pub fn adopt(name: String, fd: OwnedFd) -> Self {
        Self { name, fd, owner: sys::getpid() }
    }

    /// The descriptor's number.
    pub fn fd(&self) -> c_int {
        self.fd.as_raw_fd()
    }

    /// `mq_getattr(fd)`
    pub fn attr(&self) -> Result<MqAttr> {
        sys::mq_getattr(self.fd())
    }

    /// `mq_send(fd, text, priority)`—a full queue is for the probe's deadline.
    pub fn send(&self, text: &[u8], priority: u32) -> Result<()> {
        sys::mq_send(self.fd(), text, priority)
    }

    /// `mq_receive(fd)` with a buffer that any message of the suite's queues fits into.
    pub fn receive(&self) -> Result<(Vec<u8>, u32)> {
        sys::mq_receive(self.fd(), 8192)
    }

    /// A further description of the queue: `mq_open(name, flags)`.
    pub fn open(&self, flags: c_int) -> Result<OwnedFd> {
        sys::mq_open(&self.name, flags, 0, None)
    }

    /// `mq_unlink(name)`—now; a later drop removes nothing.
    pub fn unlink(&mut self) -> Result<()> {
        self.owner = 0;
        sys::mq_unlink(&self.name)
    }

    /// The name as the file system and the system call know it.
    pub fn bare_name(&self) -> &str {
        self.name.trim_start_matches('/')
    }
}

impl Drop for MqQueue {
    fn drop(&mut self) {
        if self.owner == sys::getpid() {
            let _ = sys::mq_unlink(&self.name);
        }
    }
}

/// The attributes of [`Context::mq`]: so small that the user's RLIMIT_MSGQUEUE is no concern of a probe.
pub const SMALL_MQ: MqAttr = MqAttr::new(4, 64);

impl Context {
    /// A new System V queue with these mode bits; removed when dropped.
    pub fn msg_queue(&mut self, mode: i32) -> std::result::Result<MsgQueue, Stop> {
        let key = self.fresh_key();
        Ok(MsgQueue::get(key, IPC_CREAT | IPC_EXCL | mode)?)
    }

    /// A new POSIX queue of four messages of 64 bytes, readable and writable, mode 0600; unlinked when dropped.
    pub fn mq(&mut self, flags: c_int) -> std::result::Result<MqQueue, Stop> {
        self.mq_with(flags, 0o600, &SMALL_MQ)
    }

    /// A new POSIX queue with mode and attributes; unlinked when dropped.
    pub fn mq_with(&mut self, flags: c_int, mode: u32, attr: &MqAttr) -> std::result::Result<MqQueue, Stop> {
        let name = self.fresh_name();
        let fd = sys::mq_open(&name, O_CREAT | O_EXCL | O_RDWR | flags, mode, Some(attr))?;
        Ok(MqQueue::adopt(name, fd))
    }

    /// Runs `body` in a peer, sends it SIGUSR1 while it sleeps in one of `calls`, and returns once its handler has run.
    ///
    /// `flags` are those of the handler, such as `SA_RESTART`.
    pub fn interrupted<T: serde::Serialize + serde::de::DeserializeOwned>(
        &mut self,
        flags: c_int,
        calls: &[Sys],
        body: impl FnOnce(&mut Self) -> std::result::Result<T, Stop>,
    ) -> std::result::Result<crate::Peer<T>, Stop> {
        let (reading, writing) = sys::pipe()?;
        let peer = self.fork(|cx| {
            sys::tell_signal(libc::SIGUSR1, flags, writing.as_raw_fd())?;
            body(cx)
        })?;
        self.until_sleeping_in(peer.pid(), calls)?;
        peer.signal(libc::SIGUSR1)?;
        if !sys::poll_in(&reading, 6_000)? {
            return Err(Stop::broken("a peer's signal handler did not run within 6 s"));
        }
        Ok(peer)
    }
}
