//! Locks of the C library in memory that processes share: mutex, condition variable, read-write lock, barrier and
//! spin lock, with their attributes.
//!
//! Every wrapper takes a handle to an object inside a live [`crate::Map`]. The functions return their errno; the
//! library never reads beyond the object, so that an object which another process destroyed or overwrote gives at
//! worst a wrong answer.

use super::{Result, ret_errno};
use crate::Map;
use libc::{
    c_int, c_uint, clockid_t, pthread_barrier_t, pthread_barrierattr_t, pthread_cond_t, pthread_condattr_t,
    pthread_mutex_t, pthread_mutexattr_t, pthread_rwlock_t, pthread_rwlockattr_t, pthread_spinlock_t, timespec,
};
use std::marker::PhantomData;
use std::mem::MaybeUninit;

pub use libc::{
    PTHREAD_BARRIER_SERIAL_THREAD, PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_RECURSIVE,
    PTHREAD_PROCESS_PRIVATE, PTHREAD_PROCESS_SHARED,
};

/// Protocol: no inheritance of priority, pthread.h.
pub const PRIO_NONE: c_int = 0;
/// Protocol: the owner inherits the priority of those who wait, pthread.h.
pub const PRIO_INHERIT: c_int = 1;
/// Robustness: whoever waits for a dead owner waits for ever, pthread_mutexattr_setrobust(3).
pub const STALLED: c_int = 0;
/// Robustness: the next owner is told, pthread_mutexattr_setrobust(3).
pub const ROBUST: c_int = 1;
/// Kind of a read-write lock: readers overtake waiting writers, pthread_rwlockattr_setkind_np(3).
pub const PREFER_READER: c_int = 0;
/// Kind of a read-write lock: a waiting writer keeps new readers out, pthread_rwlockattr_setkind_np(3).
pub const PREFER_WRITER_NONRECURSIVE: c_int = 2;

// The libc crate lacks these for Linux, or has them only for some C libraries.
unsafe extern "C" {
    fn pthread_mutex_clocklock(mutex: *mut pthread_mutex_t, clock: clockid_t, limit: *const timespec) -> c_int;
    fn pthread_cond_clockwait(
        cond: *mut pthread_cond_t,
        mutex: *mut pthread_mutex_t,
        clock: clockid_t,
        limit: *const timespec,
    ) -> c_int;
    fn pthread_rwlock_timedrdlock(lock: *mut pthread_rwlock_t, limit: *const timespec) -> c_int;
    fn pthread_rwlock_timedwrlock(lock: *mut pthread_rwlock_t, limit: *const timespec) -> c_int;
    fn pthread_rwlock_clockrdlock(lock: *mut pthread_rwlock_t, clock: clockid_t, limit: *const timespec) -> c_int;
    fn pthread_rwlock_clockwrlock(lock: *mut pthread_rwlock_t, clock: clockid_t, limit: *const timespec) -> c_int;
    fn pthread_mutexattr_gettype(attr: *const pthread_mutexattr_t, kind: *mut c_int) -> c_int;
}

/// Calls a pthread function whose pointers are those of live handles and locals.
macro_rules! call {
    ($function:ident($($argument:expr),*)) => {
        // SAFETY: handles point to aligned memory of the object's size in a live mapping; the other pointers are to
        // locals of the type that the function takes.
        ret_errno(stringify!($function), unsafe { call!(@from $function)($($argument),*) })
    };
    (@from pthread_mutex_clocklock) => { pthread_mutex_clocklock };
    (@from pthread_cond_clockwait) => { pthread_cond_clockwait };
    (@from pthread_rwlock_timedrdlock) => { pthread_rwlock_timedrdlock };
    (@from pthread_rwlock_timedwrlock) => { pthread_rwlock_timedwrlock };
    (@from pthread_rwlock_clockrdlock) => { pthread_rwlock_clockrdlock };
    (@from pthread_rwlock_clockwrlock) => { pthread_rwlock_clockwrlock };
    (@from pthread_mutexattr_gettype) => { pthread_mutexattr_gettype };
    (@from $function:ident) => { libc::$function };
}

/// Declares a handle to an object of the C library in shared memory.
macro_rules! handle {
    ($(#[$doc:meta])* $name:ident, $object:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name<'m>(*mut $object, PhantomData<&'m Map>);

        impl<'m> $name<'m> {
            /// The object that lies, or is to be made, at an offset of a mapping.
            pub fn at(map: &'m Map, offset: usize) -> Self {
                assert!(offset.is_multiple_of(align_of::<$object>()), "an object at {offset} is not aligned");
                Self(map.pointer(offset), PhantomData)
            }
        }
    };
}

handle! {
    /// A `pthread_mutex_t`.
    Mutex, pthread_mutex_t
}
handle! {
    /// A `pthread_cond_t`.
    Cond, pthread_cond_t
}
handle! {
    /// A `pthread_rwlock_t`.
    RwLock, pthread_rwlock_t
}
handle! {
    /// A `pthread_barrier_t`.
    Barrier, pthread_barrier_t
}
handle! {
    /// A `pthread_spinlock_t`.
    Spin, pthread_spinlock_t
}

/// How a mutex between processes is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MutexKind {
    /// `PTHREAD_MUTEX_NORMAL`, `_ERRORCHECK` or `_RECURSIVE`.
    pub kind: c_int,
    /// [`STALLED`] or [`ROBUST`].
    pub robust: c_int,
    /// [`PRIO_NONE`] or [`PRIO_INHERIT`].
    pub protocol: c_int,
}

impl MutexKind {
    /// A plain mutex.
    pub const NORMAL: Self = Self { kind: PTHREAD_MUTEX_NORMAL, robust: STALLED, protocol: PRIO_NONE };
    /// A mutex that tells of a dead owner.
    pub const ROBUST: Self = Self { robust: ROBUST, ..Self::NORMAL };
    /// A mutex whose owner inherits priority.
    pub const INHERIT: Self = Self { protocol: PRIO_INHERIT, ..Self::NORMAL };
    /// A mutex that refuses mistakes.
    pub const ERRORCHECK: Self = Self { kind: PTHREAD_MUTEX_ERRORCHECK, ..Self::NORMAL };
    /// A mutex that its owner may lock again.
    pub const RECURSIVE: Self = Self { kind: PTHREAD_MUTEX_RECURSIVE, ..Self::NORMAL };
}

/// An attribute of a kind of object, with the functions that set and get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// `pthread_mutexattr_setpshared`
    MutexShared,
    /// `pthread_condattr_setpshared`
    CondShared,
    /// `pthread_rwlockattr_setpshared`
    RwLockShared,
    /// `pthread_barrierattr_setpshared`
    BarrierShared,
    /// `pthread_mutexattr_settype`
    MutexType,
    /// `pthread_mutexattr_setrobust`
    MutexRobust,
    /// `pthread_mutexattr_setprotocol`
    MutexProtocol,
    /// `pthread_condattr_setclock`
    CondClock,
    /// `pthread_rwlockattr_setkind_np`
    RwLockKind,
}

/// A fresh attribute object: its value, what setting says for each of `values`, and the value afterwards.
pub fn attribute(which: Attribute, values: &[c_int]) -> Result<(c_int, Vec<Result<()>>, c_int)> {
    macro_rules! with {
        ($init:ident, $get:ident, $set:ident) => {{
            let mut attr = MaybeUninit::uninit();
            call!($init(attr.as_mut_ptr()))?;
            let (mut before, mut after) = (-1, -1);
            call!($get(attr.as_ptr(), &raw mut before))?;
            let said = values.iter().map(|value| call!($set(attr.as_mut_ptr(), *value))).collect();
            call!($get(attr.as_ptr(), &raw mut after))?;
            Ok((before, said, after))
        }};
    }
    match which {
        Attribute::MutexShared => {
            with!(pthread_mutexattr_init, pthread_mutexattr_getpshared, pthread_mutexattr_setpshared)
        }
        Attribute::CondShared => {
            with!(pthread_condattr_init, pthread_condattr_getpshared, pthread_condattr_setpshared)
        }
        Attribute::RwLockShared => {
            with!(pthread_rwlockattr_init, pthread_rwlockattr_getpshared, pthread_rwlockattr_setpshared)
        }
        Attribute::BarrierShared => {
            with!(pthread_barrierattr_init, pthread_barrierattr_getpshared, pthread_barrierattr_setpshared)
        }
        Attribute::MutexType => with!(pthread_mutexattr_init, pthread_mutexattr_gettype, pthread_mutexattr_settype),
        Attribute::MutexRobust => {
            with!(pthread_mutexattr_init, pthread_mutexattr_getrobust, pthread_mutexattr_setrobust)
        }
        Attribute::MutexProtocol => {
            with!(pthread_mutexattr_init, pthread_mutexattr_getprotocol, pthread_mutexattr_setprotocol)
        }
        Attribute::CondClock => with!(pthread_condattr_init, pthread_condattr_getclock, pthread_condattr_setclock),
        Attribute::RwLockKind => {
            with!(pthread_rwlockattr_init, pthread_rwlockattr_getkind_np, pthread_rwlockattr_setkind_np)
        }
    }
}

impl Mutex<'_> {
    /// `pthread_mutex_init`—between processes, of that kind.
    pub fn init(self, kind: MutexKind) -> Result<()> {
        let mut attr = MaybeUninit::<pthread_mutexattr_t>::uninit();
        call!(pthread_mutexattr_init(attr.as_mut_ptr()))?;
        call!(pthread_mutexattr_setpshared(attr.as_mut_ptr(), PTHREAD_PROCESS_SHARED))?;
        call!(pthread_mutexattr_settype(attr.as_mut_ptr(), kind.kind))?;
        call!(pthread_mutexattr_setrobust(attr.as_mut_ptr(), kind.robust))?;
        call!(pthread_mutexattr_setprotocol(attr.as_mut_ptr(), kind.protocol))?;
        call!(pthread_mutex_init(self.0, attr.as_ptr()))
    }

    /// `pthread_mutex_lock`
    pub fn lock(self) -> Result<()> {
        call!(pthread_mutex_lock(self.0))
    }

    /// `pthread_mutex_trylock`
    pub fn try_lock(self) -> Result<()> {
        call!(pthread_mutex_trylock(self.0))
    }

    /// `pthread_mutex_timedlock`—an absolute time of `CLOCK_REALTIME`.
    pub fn timed_lock(self, limit: &timespec) -> Result<()> {
        call!(pthread_mutex_timedlock(self.0, limit))
    }

    /// `pthread_mutex_clocklock`—an absolute time of that clock.
    pub fn clock_lock(self, clock: clockid_t, limit: &timespec) -> Result<()> {
        call!(pthread_mutex_clocklock(self.0, clock, limit))
    }

    /// `pthread_mutex_unlock`
    pub fn unlock(self) -> Result<()> {
        call!(pthread_mutex_unlock(self.0))
    }

    /// `pthread_mutex_consistent`
    pub fn consistent(self) -> Result<()> {
        call!(pthread_mutex_consistent(self.0))
    }

    /// `pthread_mutex_destroy`
    pub fn destroy(self) -> Result<()> {
        call!(pthread_mutex_destroy(self.0))
    }
}

impl Cond<'_> {
    /// `pthread_cond_init`—between processes; time limits are of that clock.
    pub fn init(self, clock: clockid_t) -> Result<()> {
        let mut attr = MaybeUninit::<pthread_condattr_t>::uninit();
        call!(pthread_condattr_init(attr.as_mut_ptr()))?;
        call!(pthread_condattr_setpshared(attr.as_mut_ptr(), PTHREAD_PROCESS_SHARED))?;
        call!(pthread_condattr_setclock(attr.as_mut_ptr(), clock))?;
        call!(pthread_cond_init(self.0, attr.as_ptr()))
    }

    /// `pthread_cond_wait`
    pub fn wait(self, mutex: Mutex) -> Result<()> {
        call!(pthread_cond_wait(self.0, mutex.0))
    }

    /// `pthread_cond_timedwait`—an absolute time of the clock it was made with.
    pub fn timed_wait(self, mutex: Mutex, limit: &timespec) -> Result<()> {
        call!(pthread_cond_timedwait(self.0, mutex.0, limit))
    }

    /// `pthread_cond_clockwait`—an absolute time of that clock.
    pub fn clock_wait(self, mutex: Mutex, clock: clockid_t, limit: &timespec) -> Result<()> {
        call!(pthread_cond_clockwait(self.0, mutex.0, clock, limit))
    }

    /// `pthread_cond_signal`
    pub fn signal(self) -> Result<()> {
        call!(pthread_cond_signal(self.0))
    }

    /// `pthread_cond_broadcast`
    pub fn broadcast(self) -> Result<()> {
        call!(pthread_cond_broadcast(self.0))
    }
}

impl RwLock<'_> {
    /// `pthread_rwlock_init`—between processes, of that kind.
    pub fn init(self, kind: c_int) -> Result<()> {
        let mut attr = MaybeUninit::<pthread_rwlockattr_t>::uninit();
        call!(pthread_rwlockattr_init(attr.as_mut_ptr()))?;
        call!(pthread_rwlockattr_setpshared(attr.as_mut_ptr(), PTHREAD_PROCESS_SHARED))?;
        call!(pthread_rwlockattr_setkind_np(attr.as_mut_ptr(), kind))?;
        call!(pthread_rwlock_init(self.0, attr.as_ptr()))
    }

    /// `pthread_rwlock_rdlock`
    pub fn read(self) -> Result<()> {
        call!(pthread_rwlock_rdlock(self.0))
    }

    /// `pthread_rwlock_tryrdlock`
    pub fn try_read(self) -> Result<()> {
        call!(pthread_rwlock_tryrdlock(self.0))
    }

    /// `pthread_rwlock_timedrdlock`—an absolute time of `CLOCK_REALTIME`.
    pub fn timed_read(self, limit: &timespec) -> Result<()> {
        call!(pthread_rwlock_timedrdlock(self.0, limit))
    }

    /// `pthread_rwlock_clockrdlock`—an absolute time of that clock.
    pub fn clock_read(self, clock: clockid_t, limit: &timespec) -> Result<()> {
        call!(pthread_rwlock_clockrdlock(self.0, clock, limit))
    }

    /// `pthread_rwlock_wrlock`
    pub fn write(self) -> Result<()> {
        call!(pthread_rwlock_wrlock(self.0))
    }

    /// `pthread_rwlock_trywrlock`
    pub fn try_write(self) -> Result<()> {
        call!(pthread_rwlock_trywrlock(self.0))
    }

    /// `pthread_rwlock_timedwrlock`—an absolute time of `CLOCK_REALTIME`.
    pub fn timed_write(self, limit: &timespec) -> Result<()> {
        call!(pthread_rwlock_timedwrlock(self.0, limit))
    }

    /// `pthread_rwlock_clockwrlock`—an absolute time of that clock.
    pub fn clock_write(self, clock: clockid_t, limit: &timespec) -> Result<()> {
        call!(pthread_rwlock_clockwrlock(self.0, clock, limit))
    }

    /// `pthread_rwlock_unlock`
    pub fn unlock(self) -> Result<()> {
        call!(pthread_rwlock_unlock(self.0))
    }
}

impl Barrier<'_> {
    /// `pthread_barrier_init`—between processes, for `count` of them.
    pub fn init(self, count: c_uint) -> Result<()> {
        let mut attr = MaybeUninit::<pthread_barrierattr_t>::uninit();
        call!(pthread_barrierattr_init(attr.as_mut_ptr()))?;
        call!(pthread_barrierattr_setpshared(attr.as_mut_ptr(), PTHREAD_PROCESS_SHARED))?;
        call!(pthread_barrier_init(self.0, attr.as_ptr(), count))
    }

    /// `pthread_barrier_wait`—whether this caller is the one that is told so.
    pub fn wait(self) -> Result<bool> {
        match call!(pthread_barrier_wait(self.0)) {
            Ok(()) => Ok(false),
            Err(e) if e.errno == PTHREAD_BARRIER_SERIAL_THREAD => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// `pthread_barrier_destroy`
    pub fn destroy(self) -> Result<()> {
        call!(pthread_barrier_destroy(self.0))
    }
}

impl Spin<'_> {
    /// `pthread_spin_init`—between processes.
    pub fn init(self) -> Result<()> {
        call!(pthread_spin_init(self.0, PTHREAD_PROCESS_SHARED))
    }

    /// `pthread_spin_lock`
    pub fn lock(self) -> Result<()> {
        call!(pthread_spin_lock(self.0))
    }

    /// `pthread_spin_trylock`
    pub fn try_lock(self) -> Result<()> {
        call!(pthread_spin_trylock(self.0))
    }

    /// `pthread_spin_unlock`
    pub fn unlock(self) -> Result<()> {
        call!(pthread_spin_unlock(self.0))
    }
}
