//! What a probe's function works with: fresh keys and names, expectations, peers.

use crate::guard::Segment;
use crate::outcome::{Outcome, Stop};
use crate::peer::{Exit, Gate, Peer};
use crate::sys::{self, errno_name};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// What the agent tells a probe about the place it runs in.
#[derive(Debug, Clone)]
pub struct Place {
    /// The run's id; part of every name that outlives a process.
    pub run: String,
    /// Number of the probe in the catalogue, so that keys and names of two probes differ.
    pub index: u32,
    /// The run's tag in System V keys, see [`crate::key`].
    pub tag: u32,
    /// Whether the probe has namespaces of its own.
    pub fresh: bool,
}

/// The context of one probe's process.
#[derive(Debug)]
pub struct Context {
    place: Place,
    lane: u32,
    lanes: u32,
    used: u32,
    crosses_pid_namespace: bool,
    pub(crate) kept: crate::scenario::Kept,
}

impl Context {
    /// A context for a place.
    pub fn new(place: Place) -> Self {
        Self { place, lane: 0, lanes: 0, used: 0, crosses_pid_namespace: false, kept: crate::scenario::Kept::default() }
    }

    /// Whether the probe has an IPC and mount namespace of its own.
    pub fn is_fresh(&self) -> bool {
        self.place.fresh
    }

    // ---- keys and names -------------------------------------------------------------------------------------

    /// A System V key that no other probe, peer or run uses; never 0.
    pub fn fresh_key(&mut self) -> i32 {
        let n = self.next_number();
        crate::key::make(self.place.tag, self.place.index, n)
    }

    /// A name for a POSIX object that no other probe, peer or run uses, with its leading slash.
    pub fn fresh_name(&mut self) -> String {
        let n = self.next_number();
        format!("/shmcheck.{}.{:x}.{n:x}", self.place.run, self.place.index)
    }

    fn next_number(&mut self) -> u32 {
        self.used += 1;
        self.lane * 32 + self.used
    }

    pub(crate) fn next_lane(&mut self) -> u32 {
        self.lanes += 1;
        self.lanes
    }

    pub(crate) fn enter_lane(&mut self, lane: u32) {
        self.lane = self.lane * 3 + lane;
        (self.lanes, self.used) = (0, 0);
    }

    pub(crate) fn crosses_pid_namespace(&self) -> bool {
        self.crosses_pid_namespace
    }

    /// Says that peers from here on start in a pid namespace of their own, where their parent has no number.
    pub fn cross_pid_namespace(&mut self) {
        self.crosses_pid_namespace = true;
    }

    // ---- objects --------------------------------------------------------------------------------------------

    /// A new segment of `size` bytes with these mode bits; removed when dropped.
    pub fn segment(&mut self, key: i32, size: usize, mode: i32) -> Result<Segment, Stop> {
        Ok(Segment::get(key, size, libc::IPC_CREAT | libc::IPC_EXCL | mode)?)
    }

    // ---- expectations: the only way to fail -----------------------------------------------------------------

    /// Fails unless `got` equals `wanted`.
    pub fn expect_eq<T: PartialEq + Debug>(&self, what: &str, got: T, wanted: T) -> Outcome {
        if got == wanted { Ok(()) } else { Err(differs(what, "", &wanted, &got)) }
    }

    /// Fails if `got` equals `other`.
    pub fn expect_ne<T: PartialEq + Debug>(&self, what: &str, got: T, other: T) -> Outcome {
        if got != other { Ok(()) } else { Err(differs(what, "anything but ", &other, &got)) }
    }

    /// Fails unless the condition holds; `wanted` and `got` say what was compared.
    pub fn expect(&self, what: &str, holds: bool, wanted: impl Into<String>, got: impl Debug) -> Outcome {
        if holds { Ok(()) } else { Err(Stop::fail(what, wanted, format!("{got:?}"))) }
    }

    /// Fails unless the call is refused with exactly this errno.
    pub fn expect_errno<T: Debug>(&self, errno: i32, call: impl FnOnce() -> sys::Result<T>) -> Outcome {
        self.expect_errno_of(&[errno], call)
    }

    /// Fails unless the call is refused with one of these errnos; the probe's clauses say what allows several.
    pub fn expect_errno_of<T: Debug>(&self, errnos: &[i32], call: impl FnOnce() -> sys::Result<T>) -> Outcome {
        match call() {
            Err(e) => held_against(errnos, e),
            Ok(value) => Err(not_refused(errnos, &value)),
        }
    }

    /// Fails unless the call succeeds; its value.
    pub fn expect_ok<T>(&self, call: impl FnOnce() -> sys::Result<T>) -> Result<T, Stop> {
        call().map_err(refused)
    }

    /// Fails unless `body`, run in a process of its own, dies by this signal.
    pub fn expect_signal(&mut self, what: &str, signal: i32, body: impl FnOnce()) -> Outcome {
        let exit = self.exit_of(body)?;
        let wanted = Exit::Signal(signal);
        if exit == wanted { Ok(()) } else { Err(Stop::fail(what, wanted.to_string(), exit.to_string())) }
    }

    /// Fails unless `body`, run in a process of its own, returns: nothing it touches faults.
    pub fn expect_no_signal(&mut self, what: &str, body: impl FnOnce()) -> Outcome {
        let exit = self.exit_of(body)?;
        if exit == Exit::Code(0) { Ok(()) } else { Err(Stop::fail(what, "no fault", exit.to_string())) }
    }

    /// Runs `body` in a process of its own and says how that ended; code 0 where it returned.
    pub fn exit_of(&mut self, body: impl FnOnce()) -> Result<Exit, Stop> {
        let peer = self.fork(|_| {
            // The runtime's handler would report a stack overflow; the claim is about the plain signal.
            for signal in [libc::SIGSEGV, libc::SIGBUS] {
                // SAFETY: SIG_DFL is a valid disposition, and this process has one thread.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
            }
            body();
            Ok(())
        })?;
        peer.exit()
    }

    // ---- peers ----------------------------------------------------------------------------------------------

    /// A forked process that runs `body`; [`Peer::join`] gives its value.
    pub fn fork<T: Serialize + DeserializeOwned>(
        &mut self,
        body: impl FnOnce(&mut Context) -> Result<T, Stop>,
    ) -> Result<Peer<T>, Stop> {
        Peer::spawn(self, body)
    }

    /// Runs `body` in another process and waits for its value.
    pub fn elsewhere<T: Serialize + DeserializeOwned>(
        &mut self,
        body: impl FnOnce(&mut Context) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        self.fork(body)?.join()
    }

    /// Runs `body` in another process as this user and group, without supplementary groups or capabilities.
    ///
    /// The probe declares [`crate::Need::OtherUsers`].
    pub fn as_user<T: Serialize + DeserializeOwned>(
        &mut self,
        uid: u32,
        gid: u32,
        body: impl FnOnce(&mut Context) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        self.as_member(uid, gid, &[], body)
    }

    /// Runs `body` in another process as this user and group with these supplementary groups, without capabilities.
    ///
    /// The probe declares [`crate::Need::OtherUsers`].
    pub fn as_member<T: Serialize + DeserializeOwned>(
        &mut self,
        uid: u32,
        gid: u32,
        groups: &[u32],
        body: impl FnOnce(&mut Context) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        self.fork(move |cx| {
            become_user(uid, gid, groups)?;
            body(cx)
        })?
        .join()
    }

    /// Runs `body` in another process without these capabilities.
    pub fn without_caps<T: Serialize + DeserializeOwned>(
        &mut self,
        dropped: &[caps::Capability],
        body: impl FnOnce(&mut Context) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        self.fork(move |cx| {
            for cap in dropped {
                for set in [caps::CapSet::Effective, caps::CapSet::Permitted] {
                    caps::drop(None, set, *cap).map_err(|e| Stop::broken(format!("failed to drop {cap}: {e}")))?;
                }
            }
            body(cx)
        })?
        .join()
    }

    /// A gate for ordering steps with a peer; made before the fork.
    pub fn gate(&self) -> Result<Gate, Stop> {
        Gate::new()
    }

    /// Waits until `holds` is true. The one bounded back-off: for states that no descriptor announces, such as
    /// "the peer sleeps in semop". Broken after six seconds.
    pub fn until(&self, what: &str, mut holds: impl FnMut() -> Result<bool, Stop>) -> Result<(), Stop> {
        let start = std::time::Instant::now();
        let mut rounds = 0_u32;
        while !holds()? {
            if start.elapsed().as_secs() >= 6 {
                return Err(Stop::broken(format!("waited 6 s in vain until {what}")));
            }
            rounds += 1;
            if rounds < 20 {
                sys::sched_yield();
            } else {
                std::thread::sleep(std::time::Duration::from_micros(100));
            }
        }
        Ok(())
    }

    /// Waits until a process sleeps inside this system call; where the kernel does not tell the call, until it sleeps.
    pub fn until_sleeping_in(&self, pid: libc::pid_t, calls: &[crate::Sys]) -> Result<(), Stop> {
        self.until("a peer sleeps in the call", || match crate::procfs::state(pid) {
            None | Some('Z') => Err(Stop::broken(format!("peer {pid} ended instead of waiting in the call"))),
            Some('S' | 'D') => {
                if calls.contains(&crate::Sys::Futex) {
                    // A waiter for a PI lock spins, marked as asleep, while the lock's owner is on a processor
                    // (kernel/locking/rtmutex.c, rtmutex_spin_on_owner), and reading its call spins until it is off
                    // its own (wait_task_inactive). Where this process is the owner, only its absence ends that.
                    std::thread::sleep(std::time::Duration::from_micros(20));
                }
                Ok(crate::procfs::current_call(pid)
                    .is_none_or(|number| calls.iter().any(|call| call.number() == number)))
            }
            Some(_) => Ok(false),
        })
    }
}

// What becomes of an expectation that does not hold. Not generic and out of line: the catalogue has thousands.

#[inline(never)]
fn held_against(errnos: &[i32], seen: sys::Error) -> Outcome {
    if errnos.contains(&seen.errno) { Ok(()) } else { Err(Stop::fail(seen.call, names(errnos), seen.name())) }
}

#[cold]
#[inline(never)]
fn not_refused(errnos: &[i32], value: &dyn Debug) -> Stop {
    Stop::fail(sys::last_call(), names(errnos), format!("success ({value:?})"))
}

#[cold]
#[inline(never)]
fn refused(error: sys::Error) -> Stop {
    Stop::fail(error.call, "success", error.name())
}

#[cold]
#[inline(never)]
fn differs(what: &str, prefix: &str, wanted: &dyn Debug, got: &dyn Debug) -> Stop {
    Stop::fail(what, format!("{prefix}{wanted:?}"), format!("{got:?}"))
}

fn names(errnos: &[i32]) -> String {
    errnos.iter().map(|e| errno_name(*e)).collect::<Vec<_>>().join(" or ")
}

/// Makes this process the user: groups first, then uid; capabilities go with it.
fn become_user(uid: u32, gid: u32, groups: &[u32]) -> Result<(), Stop> {
    sys::setgroups(groups)?;
    sys::setgid_all(gid)?;
    sys::setuid_all(uid)?;
    // A change of the effective ids clears the dumpable flag, and /proc/self would belong to root.
    sys::prctl(libc::PR_SET_DUMPABLE, 1)?;
    // The death signal is cleared by a change of ids, prctl(2).
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)?;
    Ok(())
}
