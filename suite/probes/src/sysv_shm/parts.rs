//! What several files of this chapter use: segments, holders, and transitions of `shmid_ds`.

use caps::Capability;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shmcheck_probe::sys::{self, ShmStat};
use shmcheck_probe::{Context, Gate, Outcome, Peer, Segment, Stop, procfs};

/// The size of a page.
pub(super) fn page() -> usize {
    sys::page_size()
}

/// A new segment of that many pages with a fresh key.
pub(super) fn segment(cx: &mut Context, pages: usize, mode: i32) -> Result<Segment, Stop> {
    let key = cx.fresh_key();
    cx.segment(key, pages * page(), mode)
}

/// Every capability that a System V call looks at.
pub(super) const IPC_CAPS: &[Capability] =
    &[Capability::CAP_IPC_OWNER, Capability::CAP_IPC_LOCK, Capability::CAP_SYS_ADMIN];

/// Runs `body` in another process of the same user, which no capability helps.
pub(super) fn plainly<T: Serialize + DeserializeOwned>(
    cx: &mut Context,
    body: impl FnOnce(&mut Context) -> Result<T, Stop>,
) -> Result<T, Stop> {
    cx.without_caps(IPC_CAPS, body)
}

/// A user and group that is neither the superuser nor whoever runs the suite; mapped where [`shmcheck_probe::Need::OtherUsers`] holds.
pub(super) const STRANGER: u32 = 65534;
/// A second one.
pub(super) const OTHER: u32 = 1;

/// The errno's name of a refused call, or `"success"`: for tables of results.
pub(super) fn said<T>(result: sys::Result<T>) -> String {
    result.map_or_else(|e| e.name().to_owned(), |_| "success".to_owned())
}

/// A segment made and left by another user; the caller's to remove.
pub(super) fn segment_of(cx: &mut Context, user: u32, mode: i32) -> Result<Segment, Stop> {
    let key = cx.fresh_key();
    let id = cx.as_user(user, user, move |cx| Ok(cx.segment(key, page(), mode)?.disown()))?;
    Ok(Segment::adopt(id, key, page()))
}

/// A time stamp of `shmid_ds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stamp {
    Attach,
    Detach,
    Change,
}

impl Stamp {
    fn name(self) -> &'static str {
        match self {
            Self::Attach => "shm_atime",
            Self::Detach => "shm_dtime",
            Self::Change => "shm_ctime",
        }
    }

    /// The stamp's value.
    pub(super) fn of(self, stat: &ShmStat) -> i64 {
        match self {
            Self::Attach => stat.atime,
            Self::Detach => stat.dtime,
            Self::Change => stat.ctime,
        }
    }

    fn set(self, stat: &mut ShmStat, value: i64) {
        match self {
            Self::Attach => stat.atime = value,
            Self::Detach => stat.dtime = value,
            Self::Change => stat.ctime = value,
        }
    }
}

/// Fails unless `act` changes `shmid_ds` exactly as `apply` does to a copy, and sets these stamps to its own time.
///
/// Members that nobody names must stay: a kernel that updates one too many fails as well as one that forgets one.
pub(super) fn expect_change<T>(
    cx: &mut Context,
    id: i32,
    stamps: &[Stamp],
    act: impl FnOnce(&mut Context) -> Result<T, Stop>,
    apply: impl FnOnce(&mut ShmStat, &T),
) -> Result<T, Stop> {
    let mut wanted = sys::shm_stat(id)?;
    let start = sys::now_seconds();
    let value = act(cx)?;
    let after = sys::shm_stat(id)?;
    let end = sys::now_seconds();
    apply(&mut wanted, &value);
    for stamp in stamps {
        let got = stamp.of(&after);
        cx.expect(stamp.name(), (start..=end).contains(&got), format!("{start} to {end}"), got)?;
        stamp.set(&mut wanted, got);
    }
    cx.expect_eq("shmid_ds", after, wanted)?;
    Ok(value)
}

/// Fails unless `act` ends one attach of process `pid`: that changes count, detach time and last process alone.
pub(super) fn expect_detach(
    cx: &mut Context,
    id: i32,
    pid: libc::pid_t,
    act: impl FnOnce() -> Result<(), Stop>,
) -> Outcome {
    expect_change(
        cx,
        id,
        &[Stamp::Detach],
        |_| act(),
        |stat, ()| {
            stat.nattch -= 1;
            stat.lpid = pid;
        },
    )
}

/// Fails unless `shmid_ds` is the same after `act` as before.
pub(super) fn expect_no_change(
    cx: &mut Context,
    id: i32,
    act: impl FnOnce(&mut Context) -> Result<(), Stop>,
) -> Outcome {
    expect_change(cx, id, &[], act, |_, ()| ())
}

/// A peer that has a segment attached and waits for orders.
pub(super) struct Holder {
    peer: Peer<()>,
    order: Gate,
    done: Gate,
}

impl Holder {
    /// Forks a peer that attaches the segment; at the first order it calls `then` with the address, at the second it
    /// ends. Returns when the peer has attached.
    pub(super) fn of(cx: &mut Context, id: i32, then: impl FnOnce(usize) -> Result<(), Stop>) -> Result<Self, Stop> {
        let (order, done) = (cx.gate()?, cx.gate()?);
        let peer = cx.fork(|_| {
            let address = sys::shmat(id, 0)?;
            done.open()?;
            order.pass()?;
            then(address)?;
            done.open()?;
            order.pass()
        })?;
        done.pass()?;
        Ok(Self { peer, order, done })
    }

    /// The peer's process id.
    pub(super) fn pid(&self) -> libc::pid_t {
        self.peer.pid()
    }

    /// Lets the peer do what it was made for, and waits until it has.
    pub(super) fn act(&self) -> Result<(), Stop> {
        self.order.open()?;
        self.done.pass()
    }

    /// Lets the peer end, and waits until it has.
    pub(super) fn end(self) -> Result<(), Stop> {
        self.order.open()?;
        self.order.open()?;
        self.peer.join()
    }

    /// Kills the peer, and waits until it is gone.
    pub(super) fn kill(self) -> Result<(), Stop> {
        self.peer.kill().map(drop)
    }
}

/// Bytes of a segment in memory and in swap space, from /proc/sysvipc/shm.
pub(super) fn resident(id: i32) -> Result<i64, Stop> {
    match procfs::sysvipc_row("shm", id)? {
        Some(row) => Ok(row.number("rss")? + row.number("swap")?),
        None => Err(Stop::broken(format!("/proc/sysvipc/shm has no line for {id}"))),
    }
}

/// The index of an identifier: 15 bits of it, or 24 where the kernel was started with ipcmni_extend.
pub(super) fn index_of(id: i32) -> Result<i32, Stop> {
    [0x7fff, 0xff_ffff]
        .into_iter()
        .map(|mask| id & mask)
        .find(|index| sys::shm_stat_by(*index, sys::SHM_STAT_ANY).is_ok_and(|(found, _)| found == id))
        .ok_or_else(|| Stop::fail("SHM_STAT_ANY", format!("identifier {id} at its index"), "another or none"))
}
