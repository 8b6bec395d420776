//! Further processes of a probe: forked peers with a result, and gates to order their steps.

use crate::outcome::Stop;
use crate::{Context, sys};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, OwnedFd};

/// How long a peer or gate is waited for before the probe is broken; far above what a loaded machine needs, far below
/// the probe's own deadline.
const PATIENCE_MS: i32 = 6_000;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// Takes a status of waitpid(2) apart.
    pub fn from_status(status: i32) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::Signal(libc::WTERMSIG(status))
        } else {
            Self::Code(libc::WEXITSTATUS(status))
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit {code}"),
            Self::Signal(number) => match nix::sys::signal::Signal::try_from(*number) {
                Ok(signal) => write!(f, "{}", signal.as_str()),
                Err(_) => write!(f, "signal {number}"),
            },
        }
    }
}

/// A forked process that hands back a value, or the reason why it stopped. Killed when dropped.
#[derive(Debug)]
pub struct Peer<T> {
    pid: libc::pid_t,
    result: OwnedFd,
    reaped: bool,
    value: PhantomData<T>,
}

/// Forks; the child runs `body`, sends the bytes it returns and ends without destructors. The child's number and the
/// end of the pipe that its bytes come out of.
///
/// Not generic: the catalogue has a thousand peers, and one copy of this is enough.
fn start(cx: &mut Context, body: &mut dyn FnMut(&mut Context) -> Vec<u8>) -> Result<(libc::pid_t, OwnedFd), Stop> {
    let (reading, writing) = sys::pipe()?;
    let parent = sys::getpid();
    let lane = cx.next_lane();
    let pid = sys::fork()?;
    if pid == 0 {
        drop(reading);
        // A peer must not outlive its probe; the parent may already be gone when this takes effect.
        let armed = sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong);
        if armed.is_err() || nix::unistd::getppid().as_raw() != parent && !cx.crosses_pid_namespace() {
            sys::exit_now(1);
        }
        cx.enter_lane(lane);
        let bytes = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(cx))).unwrap_or_else(|cause| {
            let stop: Result<(), Stop> = Err(Stop::broken(format!("panic in a peer: {}", panic_text(&*cause))));
            serde_json::to_vec(&stop).unwrap_or_default()
        });
        let sent = File::from(writing).write_all(&bytes);
        sys::exit_now(i32::from(sent.is_err()));
    }
    Ok((pid, reading))
}

impl<T: Serialize + DeserializeOwned> Peer<T> {
    /// Forks; the child runs `body`, sends its result and ends without destructors.
    pub(crate) fn spawn(cx: &mut Context, body: impl FnOnce(&mut Context) -> Result<T, Stop>) -> Result<Self, Stop> {
        let mut body = Some(body);
        let (pid, result) = start(cx, &mut |cx| {
            let outcome = body.take().map(|body| body(cx));
            serde_json::to_vec(&outcome.unwrap_or_else(|| Err(Stop::broken("a peer ran twice")))).unwrap_or_default()
        })?;
        Ok(Self { pid, result, reaped: false, value: PhantomData })
    }

    /// Waits for the peer's result: its value, or its own reason to stop.
    pub fn join(mut self) -> Result<T, Stop> {
        let bytes = self.bytes()?;
        serde_json::from_slice::<Result<T, Stop>>(&bytes)
            .map_err(|e| Stop::broken(format!("a peer's result cannot be read: {e}")))?
    }

    /// Waits until the peer has ended, and says how; its result is dropped.
    pub fn exit(mut self) -> Result<Exit, Stop> {
        self.wait()
    }

    /// Kills the peer with SIGKILL and waits until it is gone.
    pub fn kill(mut self) -> Result<Exit, Stop> {
        sys::kill(self.pid, libc::SIGKILL)?;
        self.wait()
    }
}

impl<T> Peer<T> {
    /// The peer's process id.
    pub fn pid(&self) -> libc::pid_t {
        self.pid
    }

    /// Sends a signal to the peer.
    pub fn signal(&self, signal: i32) -> Result<(), Stop> {
        Ok(sys::kill(self.pid, signal)?)
    }

    /// Whether the peer gives its result, or ends, within this time: for claims that it is woken.
    pub fn has_result_within(&self, millis: i32) -> Result<bool, Stop> {
        Ok(sys::poll_in(&self.result, millis)?)
    }

    /// Everything that the peer sent, once it has ended.
    fn bytes(&mut self) -> Result<Vec<u8>, Stop> {
        let mut bytes = Vec::new();
        let mut file = File::from(self.result.try_clone()?);
        let mut chunk = [0; 4096];
        loop {
            if !sys::poll_in(&self.result, PATIENCE_MS)? {
                return Err(Stop::broken(format!("peer {} gave no result within {PATIENCE_MS} ms", self.pid)));
            }
            match file.read(&mut chunk)? {
                0 => break,
                n => bytes.extend_from_slice(&chunk[..n]),
            }
        }
        let exit = self.wait()?;
        if bytes.is_empty() {
            return Err(Stop::broken(format!("a peer ended with {exit} and without a result")));
        }
        Ok(bytes)
    }

    fn wait(&mut self) -> Result<Exit, Stop> {
        // The worker's deadline bounds this: a peer that never ends is killed with its probe.
        let (_, status) = sys::waitpid(self.pid, 0)?;
        self.reaped = true;
        Ok(Exit::from_status(status))
    }
}

impl<T> Drop for Peer<T> {
    fn drop(&mut self) {
        if !self.reaped {
            // The process is this one's own child and not yet reaped, so the number is still its own.
            let _ = sys::kill(self.pid, libc::SIGKILL);
            let _ = sys::waitpid(self.pid, 0);
        }
    }
}

/// The text of a panic's payload.
pub fn panic_text(cause: &(dyn std::any::Any + Send)) -> String {
    cause
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| cause.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

/// A gate between processes: opened any number of times by one side, passed as often by the other.
#[derive(Debug)]
pub struct Gate {
    reading: OwnedFd,
    writing: OwnedFd,
}

impl Gate {
    /// A closed gate. Made before the fork, it is known to both processes.
    pub fn new() -> Result<Self, Stop> {
        let (reading, writing) = sys::pipe()?;
        Ok(Self { reading, writing })
    }

    /// Lets the other side pass once.
    pub fn open(&self) -> Result<(), Stop> {
        let mut file = File::from(self.writing.try_clone()?);
        Ok(file.write_all(&[1])?)
    }

    /// Waits until the gate was opened.
    pub fn pass(&self) -> Result<(), Stop> {
        if !sys::poll_in(&self.reading, PATIENCE_MS)? {
            return Err(Stop::broken(format!("a gate stayed closed for {PATIENCE_MS} ms")));
        }
        let mut file = File::from(self.reading.try_clone()?);
        Ok(file.read_exact(&mut [0])?)
    }

    /// The end that becomes readable when the gate is open.
    pub fn raw(&self) -> i32 {
        self.reading.as_raw_fd()
    }
}

/// What a probe's process hands to its worker: shape of the record on the result pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The probe this is the result of.
    pub id: String,
    /// Its result.
    pub result: Result<(), Stop>,
}
