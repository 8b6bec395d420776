//! Every kind of lock in every kind of memory: counters that come out exact, wake-ups that arrive, deaths that are told.

use super::memory::{Memory, Shared};
use super::tools::{LOST, expect_said, expect_soon, lost, said, sleeper};
use libc::{CLOCK_REALTIME, EOWNERDEAD};
use shmcheck_probe::sys::pthread::{self, Barrier, Cond, Mutex, MutexKind, RwLock, Spin};
use shmcheck_probe::sys::sync::Sem;
use shmcheck_probe::sys::{self, futex};
use shmcheck_probe::{Clause, Context, Map, Outcome, Probe, Stop, Sys, man, posix};
use std::sync::atomic::Ordering::SeqCst;

/// Where the lock lies.
const LOCK: usize = 0;
/// Where a second lock lies: the mutex of a condition variable.
const MUTEX: usize = 128;
/// Where the counter lies.
const COUNT: usize = 512;
/// Where a flag lies.
const FLAG: usize = 516;

/// One claim about a lock, with the texts that are the same in every memory.
struct Claim {
    spec: &'static [Clause],
    run: fn(&mut Context, &Shared) -> Outcome,
}

/// Declares one probe per line: constant, claim, memory, id, title, why.
macro_rules! places {
    ($($name:ident $claim:ident $memory:ident $id:literal $title:literal $why:literal;)*) => {
        /// The probes of this file.
        pub(super) const PROBES: &[&Probe] = &[$(&$name),*];
        $(
            const $name: Probe = Probe {
                title: $title,
                why: $why,
                spec: $claim.spec,
                calls: &[Sys::Futex],
                needs: Memory::$memory.needs(),
                isolate: Memory::$memory.isolate(),
                fix: fix(Memory::$memory),
                ..Probe::new($id, |cx| {
                    let shared = Memory::$memory.make(cx)?;
                    ($claim.run)(cx, &shared)
                })
            };
        )*
    };
}

const fn fix(memory: Memory) -> &'static str {
    match memory {
        Memory::File => {
            "put the file on a file system with coherent shared mappings: tmpfs, ext4, xfs; not 9p, virtiofs or NFS"
        }
        _ => "",
    }
}

const COUNTER_MUTEX: Claim = Claim {
    spec: &[
        posix("pthread_mutex_lock"),
        posix("pthread_mutexattr_setpshared"),
        man("pthread_mutexattr_getpshared(3)", ""),
    ],
    run: mutex,
};
const COUNTER_INHERIT: Claim = Claim { spec: &[posix("pthread_mutexattr_setprotocol")], run: inherit };
const COUNTER_RWLOCK: Claim =
    Claim { spec: &[posix("pthread_rwlock_wrlock"), posix("pthread_rwlockattr_setpshared")], run: rwlock };
const COUNTER_SPIN: Claim =
    Claim { spec: &[man("pthread_spin_init(3)", "PTHREAD_PROCESS_SHARED"), posix("pthread_spin_lock")], run: spin };
const COUNTER_SEM: Claim =
    Claim { spec: &[man("sem_init(3)", ""), man("sem_wait(3)", ""), posix("sem_init")], run: semaphore };
const OWNER_DEAD: Claim = Claim {
    spec: &[man("pthread_mutexattr_setrobust(3)", "PTHREAD_MUTEX_ROBUST"), posix("pthread_mutex_lock")],
    run: owner_dead,
};
const SIGNALS: Claim =
    Claim { spec: &[posix("pthread_cond_signal"), posix("pthread_condattr_setpshared")], run: signals };
const MEETING: Claim =
    Claim { spec: &[posix("pthread_barrier_wait"), posix("pthread_barrierattr_setpshared")], run: meeting };
const WAKES: Claim = Claim { spec: &[man("futex(2)", "FUTEX_WAKE")], run: wakes };

places! {
    MUTEX_SEGMENT COUNTER_MUTEX Segment "sync.mutex.exclusion.sysv" "a process-shared mutex in a System V segment excludes" "PROJ, GRASS and old middleware keep one mutex at the start of their segment; two holders at once tear the structure behind it";
    MUTEX_POSIX COUNTER_MUTEX Posix "sync.mutex.exclusion.posix" "a process-shared mutex in a POSIX object excludes" "Boost.Interprocess allocates from a segment in /dev/shm under such a mutex; without exclusion its heap is corrupt within seconds";
    MUTEX_MEMFD COUNTER_MUTEX Memfd "sync.mutex.exclusion.memfd" "a process-shared mutex in a memfd excludes" "Wayland compositors and PipeWire clients pass a memfd and lock inside it; a lost update is a torn frame";
    MUTEX_ANONYMOUS COUNTER_MUTEX Anonymous "sync.mutex.exclusion.anonymous" "a process-shared mutex in inherited anonymous memory excludes" "pre-forking servers (Apache, nginx's shared zones, PHP-FPM) count requests this way; wrong counts stall the pool";
    MUTEX_FILE COUNTER_MUTEX File "sync.mutex.exclusion.file" "a process-shared mutex in a mapped file excludes" "LMDB keeps its lock table in a mapped file beside the data; two writers at once lose a transaction";
    MUTEX_HUGE COUNTER_MUTEX Huge "sync.mutex.exclusion.huge" "a process-shared mutex in a huge page excludes" "DPDK's primary and secondary processes lock their memory zones in huge pages; a race there hands one buffer out twice";

    INHERIT_SEGMENT COUNTER_INHERIT Segment "sync.mutex.inherit-exclusion.sysv" "a priority-inheriting mutex in a System V segment excludes" "control software on PREEMPT_RT mixes segments of the nineties with PI mutexes; the kernel must find one lock behind two addresses";
    INHERIT_POSIX COUNTER_INHERIT Posix "sync.mutex.inherit-exclusion.posix" "a priority-inheriting mutex in a POSIX object excludes" "ROS 2 nodes with the real-time executor lock message pools in /dev/shm; a broken PI lock shows as a missed cycle";
    INHERIT_MEMFD COUNTER_INHERIT Memfd "sync.mutex.inherit-exclusion.memfd" "a priority-inheriting mutex in a memfd excludes" "JACK and PipeWire run real-time clients on memfd buffers; without exclusion audio crackles";
    INHERIT_ANONYMOUS COUNTER_INHERIT Anonymous "sync.mutex.inherit-exclusion.anonymous" "a priority-inheriting mutex in anonymous shared memory excludes" "forked real-time workers share their queue this way, and a queue entry consumed twice moves a motor twice";
    INHERIT_FILE COUNTER_INHERIT File "sync.mutex.inherit-exclusion.file" "a priority-inheriting mutex in a mapped file excludes" "a recorder that maps its ring from disk locks it against real-time writers; the kernel keys the lock by inode";
    INHERIT_HUGE COUNTER_INHERIT Huge "sync.mutex.inherit-exclusion.huge" "a priority-inheriting mutex in a huge page excludes" "packet processing with pinned cores places PI locks in huge pages, where the futex key is built from the whole huge page";

    RWLOCK_SEGMENT COUNTER_RWLOCK Segment "sync.rwlock.exclusion.sysv" "writers of a shared read-write lock in a System V segment exclude" "database caches in a segment are read by many and written by few; a writer that is not alone leaves half a row";
    RWLOCK_POSIX COUNTER_RWLOCK Posix "sync.rwlock.exclusion.posix" "writers of a shared read-write lock in a POSIX object exclude" "Fast DDS guards its port registry in /dev/shm with such locks; a race shows as participants that never meet";
    RWLOCK_MEMFD COUNTER_RWLOCK Memfd "sync.rwlock.exclusion.memfd" "writers of a shared read-write lock in a memfd exclude" "browsers hand preference tables to sandboxed processes in a memfd; readers must not see a half-written table";
    RWLOCK_ANONYMOUS COUNTER_RWLOCK Anonymous "sync.rwlock.exclusion.anonymous" "writers of a shared read-write lock in anonymous memory exclude" "OpenResty dictionaries and PHP's APCu use them between workers; a broken one returns another user's session";
    RWLOCK_FILE COUNTER_RWLOCK File "sync.rwlock.exclusion.file" "writers of a shared read-write lock in a mapped file exclude" "persistent caches (RocksDB's secondary, ccache-like stores) lock in the file itself and trust it after a restart";
    RWLOCK_HUGE COUNTER_RWLOCK Huge "sync.rwlock.exclusion.huge" "writers of a shared read-write lock in a huge page exclude" "VPP and DPDK keep routing tables in huge pages under such locks; a torn update sends packets to the wrong port";

    SPIN_SEGMENT COUNTER_SPIN Segment "sync.spin.exclusion.sysv" "a process-shared spin lock in a System V segment excludes" "trading systems spin on a word in a segment rather than sleep; two holders book one order twice";
    SPIN_POSIX COUNTER_SPIN Posix "sync.spin.exclusion.posix" "a process-shared spin lock in a POSIX object excludes" "MPI's shared-memory transports spin in /dev/shm; an emulated kernel that copies pages breaks this silently";
    SPIN_MEMFD COUNTER_SPIN Memfd "sync.spin.exclusion.memfd" "a process-shared spin lock in a memfd excludes" "a device model and its guest process (vhost-user) spin on one word of a memfd; atomics must be coherent across both mappings";
    SPIN_ANONYMOUS COUNTER_SPIN Anonymous "sync.spin.exclusion.anonymous" "a process-shared spin lock in anonymous shared memory excludes" "PostgreSQL's latches begin as spin locks in inherited memory; without exclusion its buffer table is damaged";
    SPIN_FILE COUNTER_SPIN File "sync.spin.exclusion.file" "a process-shared spin lock in a mapped file excludes" "file systems that copy pages between hosts (9p, NFS) map the file but not one memory, and a spin lock shows it first";
    SPIN_HUGE COUNTER_SPIN Huge "sync.spin.exclusion.huge" "a process-shared spin lock in a huge page excludes" "DPDK's rings spin in huge pages between processes; a wrong mapping of the second process corrupts the ring";

    SEM_SEGMENT COUNTER_SEM Segment "sync.sem.exclusion.sysv" "an unnamed semaphore in a System V segment excludes" "the textbook's producer and consumer: sem_init with pshared in a segment, and no item may be taken twice";
    SEM_POSIX COUNTER_SEM Posix "sync.sem.exclusion.posix" "an unnamed semaphore in a POSIX object excludes" "Python's shared_memory users and ROS bridges put a sem_t beside the data; a lost count is a frozen pipeline";
    SEM_MEMFD COUNTER_SEM Memfd "sync.sem.exclusion.memfd" "an unnamed semaphore in a memfd excludes" "sandboxed decoders get one memfd with ring and semaphores; they cannot open anything by name";
    SEM_ANONYMOUS COUNTER_SEM Anonymous "sync.sem.exclusion.anonymous" "an unnamed semaphore in anonymous shared memory excludes" "Python's multiprocessing and Ruby's Process.fork pools throttle workers with it";
    SEM_FILE COUNTER_SEM File "sync.sem.exclusion.file" "an unnamed semaphore in a mapped file excludes" "batch systems keep licence counters as a semaphore in a file; a count lost is a licence lost";
    SEM_HUGE COUNTER_SEM Huge "sync.sem.exclusion.huge" "an unnamed semaphore in a huge page excludes" "inference servers hold tensors and their semaphores in one huge page pool; the wake-up must find the other process";

    DEAD_SEGMENT OWNER_DEAD Segment "sync.robust.owner-dead.sysv" "a killed owner of a mutex in a System V segment is told: EOWNERDEAD" "a database server whose backend is killed by the OOM killer must learn it from the lock, else every client hangs";
    DEAD_POSIX OWNER_DEAD Posix "sync.robust.owner-dead.posix" "a killed owner of a mutex in a POSIX object is told: EOWNERDEAD" "Fast DDS and iceoryx recover a crashed node's port by it; without it every later start hangs until /dev/shm is emptied by hand";
    DEAD_MEMFD OWNER_DEAD Memfd "sync.robust.owner-dead.memfd" "a killed owner of a mutex in a memfd is told: EOWNERDEAD" "a compositor must survive a client that is killed while it holds the buffer's lock";
    DEAD_ANONYMOUS OWNER_DEAD Anonymous "sync.robust.owner-dead.anonymous" "a killed owner of a mutex in anonymous memory is told: EOWNERDEAD" "Apache's robust accept mutex: a worker that crashes while accepting would stop the whole server";
    DEAD_FILE OWNER_DEAD File "sync.robust.owner-dead.file" "a killed owner of a mutex in a mapped file is told: EOWNERDEAD" "LMDB relies on it after a writer's crash: else mdb_txn_begin hangs in every process of the machine";
    DEAD_HUGE OWNER_DEAD Huge "sync.robust.owner-dead.huge" "a killed owner of a mutex in a huge page is told: EOWNERDEAD" "a secondary process that dies in a memory zone's lock must not take the packet path with it";

    COND_SEGMENT SIGNALS Segment "sync.cond.hand-over.sysv" "no signal of a condition variable in a System V segment is lost" "two processes that hand a buffer to and fro stop for ever at the first lost wake-up";
    COND_POSIX SIGNALS Posix "sync.cond.hand-over.posix" "no signal of a condition variable in a POSIX object is lost" "Boost.Interprocess queues and camera pipelines in /dev/shm stand still, without an error, when a signal is lost";
    COND_MEMFD SIGNALS Memfd "sync.cond.hand-over.memfd" "no signal of a condition variable in a memfd is lost" "media sandboxes sleep on a condition variable in the buffer that was passed; a lost signal is a frozen picture";
    COND_ANONYMOUS SIGNALS Anonymous "sync.cond.hand-over.anonymous" "no signal of a condition variable in anonymous memory is lost" "worker pools that fork wait for jobs on one; a lost signal leaves jobs queued and workers idle";
    COND_FILE SIGNALS File "sync.cond.hand-over.file" "no signal of a condition variable in a mapped file is lost" "log shippers wait inside the mapped journal; they would deliver the last line only with the next one";
    COND_HUGE SIGNALS Huge "sync.cond.hand-over.huge" "no signal of a condition variable in a huge page is lost" "model servers signal 'batch ready' in huge page memory, and a lost one is a request that times out";

    BARRIER_SEGMENT MEETING Segment "sync.barrier.meeting.sysv" "a barrier in a System V segment holds every process until all came" "numerical codes step together: a process that runs ahead reads last step's halo";
    BARRIER_POSIX MEETING Posix "sync.barrier.meeting.posix" "a barrier in a POSIX object holds every process until all came" "MPI programs on one node synchronise their windows in /dev/shm; an early one computes with stale data";
    BARRIER_MEMFD MEETING Memfd "sync.barrier.meeting.memfd" "a barrier in a memfd holds every process until all came" "benchmarks start their clients together with one; without it the numbers mean nothing";
    BARRIER_ANONYMOUS MEETING Anonymous "sync.barrier.meeting.anonymous" "a barrier in anonymous memory holds every process until all came" "forked simulation workers exchange ghost cells after a barrier and get wrong physics without it";
    BARRIER_FILE MEETING File "sync.barrier.meeting.file" "a barrier in a mapped file holds every process until all came" "parallel checkpoints write through one mapped file and cut it only when all have met";
    BARRIER_HUGE MEETING Huge "sync.barrier.meeting.huge" "a barrier in a huge page holds every process until all came" "HPC runtimes place their collectives' flags in huge pages; a process let through early reduces garbage";

    FUTEX_SEGMENT WAKES Segment "sync.futex.wake.crosses-sysv" "FUTEX_WAKE reaches a process that mapped the System V segment elsewhere" "each process attaches at another address; the kernel must key the word by the segment, or every lock in it hangs";
    FUTEX_POSIX WAKES Posix "sync.futex.wake.crosses-posix" "FUTEX_WAKE reaches a process that mapped the POSIX object elsewhere" "address randomisation gives every process another address for /dev/shm memory, and locks must work all the same";
    FUTEX_MEMFD WAKES Memfd "sync.futex.wake.crosses-memfd" "FUTEX_WAKE reaches a process that mapped the memfd elsewhere" "the receiver of a descriptor maps it where it likes; a key by address would never find it";
    FUTEX_ANONYMOUS WAKES Anonymous "sync.futex.wake.crosses-anonymous" "FUTEX_WAKE reaches a forked process in anonymous shared memory" "two address spaces hold this word at one address: a kernel that keys by process loses the wake-up";
    FUTEX_FILE WAKES File "sync.futex.wake.crosses-file" "FUTEX_WAKE reaches a process that mapped the file elsewhere" "LMDB and SQLite-like stores sleep on words in files; the key is inode and offset, whatever the address";
    FUTEX_HUGE WAKES Huge "sync.futex.wake.crosses-huge" "FUTEX_WAKE reaches a forked process in a huge page" "kernels once built the key from the small page's number and lost wake-ups in huge pages";
}

/// How often each of the two processes adds one.
const ROUNDS: u32 = 1_000;

/// Two processes add to a counter by a plain load and a plain store; only exclusion makes the sum exact.
fn count(
    cx: &mut Context,
    shared: &Shared,
    rounds: u32,
    lock: impl Fn(&Map) -> sys::Result<()>,
    unlock: impl Fn(&Map) -> sys::Result<()>,
) -> Outcome {
    let add = |cx: &Context, map: &Map| {
        for round in 0..rounds {
            cx.expect_ok(|| lock(map))?;
            let seen = map.atomic(COUNT).load(SeqCst);
            // Giving the processor away in between makes a lock that excludes nothing lose updates on one core, too.
            if round % 128 == 0 {
                sys::sched_yield();
            }
            map.atomic(COUNT).store(seen + 1, SeqCst);
            cx.expect_ok(|| unlock(map))?;
        }
        Ok(())
    };
    let peer = cx.fork(|cx| add(cx, &shared.again()?))?;
    add(cx, &shared.map)?;
    peer.join()?;
    cx.expect_eq("the counter", shared.map.atomic(COUNT).load(SeqCst), 2 * rounds)
}

fn mutex(cx: &mut Context, shared: &Shared) -> Outcome {
    Mutex::at(&shared.map, LOCK).init(MutexKind::NORMAL)?;
    count(cx, shared, ROUNDS, |map| Mutex::at(map, LOCK).timed_lock(&lost()), |map| Mutex::at(map, LOCK).unlock())
}

fn inherit(cx: &mut Context, shared: &Shared) -> Outcome {
    Mutex::at(&shared.map, LOCK).init(MutexKind::INHERIT)?;
    count(cx, shared, ROUNDS, |map| Mutex::at(map, LOCK).timed_lock(&lost()), |map| Mutex::at(map, LOCK).unlock())
}

fn rwlock(cx: &mut Context, shared: &Shared) -> Outcome {
    RwLock::at(&shared.map, LOCK).init(pthread::PREFER_READER)?;
    count(cx, shared, ROUNDS, |map| RwLock::at(map, LOCK).timed_write(&lost()), |map| RwLock::at(map, LOCK).unlock())
}

fn spin(cx: &mut Context, shared: &Shared) -> Outcome {
    Spin::at(&shared.map, LOCK).init()?;
    // Whoever spins against a holder that is not running burns its whole time slice: fewer rounds, and no waiting in
    // the library, which has no time limit for it.
    let lock = |map: &Map| loop {
        match Spin::at(map, LOCK).try_lock() {
            Err(e) if e.errno == libc::EBUSY => sys::sched_yield(),
            answer => break answer,
        }
    };
    count(cx, shared, ROUNDS / 2, lock, |map| Spin::at(map, LOCK).unlock())
}

fn semaphore(cx: &mut Context, shared: &Shared) -> Outcome {
    Sem::at(&shared.map, LOCK).init(true, 1)?;
    count(cx, shared, ROUNDS, |map| Sem::at(map, LOCK).timed_wait(&lost()), |map| Sem::at(map, LOCK).post())
}

/// A peer locks and is killed; the next to lock is told, can repair, and the lock is as new.
fn owner_dead(cx: &mut Context, shared: &Shared) -> Outcome {
    let mutex = Mutex::at(&shared.map, LOCK);
    mutex.init(MutexKind::ROBUST)?;
    let (locked, never) = (cx.gate()?, cx.gate()?);
    let owner = cx.fork(|_| {
        let map = shared.again()?;
        Mutex::at(&map, LOCK).lock()?;
        locked.open()?;
        never.pass()
    })?;
    locked.pass()?;
    cx.expect_errno(libc::EBUSY, || mutex.try_lock())?;
    owner.kill()?;
    cx.expect_errno(EOWNERDEAD, || mutex.timed_lock(&lost()))?;
    cx.expect_ok(|| mutex.consistent())?;
    cx.expect_ok(|| mutex.unlock())?;
    cx.expect_ok(|| mutex.timed_lock(&lost()))?;
    cx.expect_ok(|| mutex.unlock())
}

/// Two processes take turns, each waiting for the other's signal.
fn signals(cx: &mut Context, shared: &Shared) -> Outcome {
    const TURNS: u32 = 100;
    Mutex::at(&shared.map, MUTEX).init(MutexKind::NORMAL)?;
    Cond::at(&shared.map, LOCK).init(CLOCK_REALTIME)?;
    let play = |cx: &Context, map: &Map, own: u32| {
        let (mutex, cond) = (Mutex::at(map, MUTEX), Cond::at(map, LOCK));
        for _ in 0..TURNS {
            cx.expect_ok(|| mutex.timed_lock(&lost()))?;
            while map.atomic(FLAG).load(SeqCst) % 2 != own {
                cx.expect_ok(|| cond.timed_wait(mutex, &lost()))?;
            }
            map.atomic(FLAG).fetch_add(1, SeqCst);
            cx.expect_ok(|| cond.signal())?;
            cx.expect_ok(|| mutex.unlock())?;
        }
        Ok(())
    };
    let peer = cx.fork(|cx| play(cx, &shared.again()?, 1))?;
    play(cx, &shared.map, 0)?;
    peer.join()?;
    cx.expect_eq("turns taken", shared.map.atomic(FLAG).load(SeqCst), 2 * TURNS)
}

/// Two peers meet this process again and again; none is let through before all have come.
fn meeting(cx: &mut Context, shared: &Shared) -> Outcome {
    const MEETINGS: u32 = 10;
    const PARTIES: u32 = 3;
    Barrier::at(&shared.map, LOCK).init(PARTIES)?;
    let meet = |cx: &Context, map: &Map| {
        let mut told = 0_u32;
        for meeting in 1..=MEETINGS {
            map.atomic(COUNT).fetch_add(1, SeqCst);
            if cx.expect_ok(|| Barrier::at(map, LOCK).wait())? {
                told += 1;
            }
            let came = map.atomic(COUNT).load(SeqCst);
            let wanted = format!("at least {} arrivals", PARTIES * meeting);
            cx.expect("let through", came >= PARTIES * meeting, wanted, came)?;
        }
        Ok::<_, Stop>(told)
    };
    let first = cx.fork(|cx| meet(cx, &shared.again()?))?;
    let second = cx.fork(|cx| meet(cx, &shared.again()?))?;
    let told = cx.fork(|cx| meet(cx, &shared.again()?))?.join()? + first.join()? + second.join()?;
    cx.expect_eq("callers that were told PTHREAD_BARRIER_SERIAL_THREAD", told, MEETINGS)
}

/// A peer sleeps on a word of its own mapping; one wake through this process's mapping ends that.
fn wakes(cx: &mut Context, shared: &Shared) -> Outcome {
    let word = shared.map.atomic(COUNT) as *const _ as usize;
    // The mapping is made before the fork, so that nothing but the futex call can put the peer to sleep.
    let other = shared.again()?;
    let peer = sleeper(cx, || said(futex::wait(other.address() + COUNT, 0, LOST)))?;
    expect_said("waiters woken on the next word", &said(futex::wake(word + 4, 1)), &Ok(0))?;
    expect_said("waiters woken", &said(futex::wake(word, u32::MAX >> 1)), &Ok(1))?;
    expect_said("FUTEX_WAIT", &peer.join()?, &Ok(0))?;
    expect_soon("a second wake", "no waiter is left", || Ok(futex::wake(word, 1)? == 0))
}
