//! semop(2) SEM_UNDO: what fork, exec, clone, unshare, semctl and removal do to the adjustments of a process.

use super::undo::values_before_exit;
use shmcheck_probe::sys::{self, SemOp};
use shmcheck_probe::{Context, Exit, Namespace, Need, Outcome, Probe, SemSet, Stop, Sys, kernel, man, posix, procfs};
use std::sync::atomic::Ordering;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &FORK_NOT_INHERITED,
    &EXEC_KEEPS,
    &CLONE_SHARES,
    &CLONE_SHARES_LATER,
    &CLONE_NEW_NAMESPACE,
    &THREADS_SHARE,
    &THREADS_TOGETHER,
    &UNSHARE_APPLIES,
    &UNSHARE_SHARED_KEEPS,
    &NEW_NAMESPACE_APPLIES,
    &SETVAL_CLEARS,
    &SETVAL_CLEARS_THAT_ONE,
    &SETALL_CLEARS,
    &IPC_SET_KEEPS,
    &REMOVED,
    &REMOVED_AND_NEW,
];

const CALLS: &[Sys] = &[Sys::Semop, Sys::Semtimedop, Sys::Semctl];

const FORK_NOT_INHERITED: Probe = Probe {
    title: "a child inherits no adjustments over fork",
    why: "the exit of every child would release the lock that its parent holds",
    spec: &[man("semop(2)", "NOTES"), man("fork(2)", "DESCRIPTION"), posix("fork")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.fork-not-inherited", |cx| {
        let set = cx.sem_set(1)?;
        set.set(0, 3)?;
        set.op(&[SemOp::add(0, -2).undo()])?;
        cx.elsewhere(|_| Ok(()))?;
        cx.expect_eq("value after the child's exit", set.value(0)?, 1)
    })
};

const EXEC_KEEPS: Probe = Probe {
    title: "adjustments survive execve",
    why: "a wrapper takes a license or a slot with SEM_UNDO, then executes the program that uses it",
    spec: &[man("semop(2)", "NOTES"), man("execve(2)", "NOTES"), posix("exec")],
    calls: CALLS,
    needs: &[Need::Call(Sys::Ptrace)],
    ..Probe::new("sysv.sem.undo.exec-keeps", exec_keeps)
};
fn exec_keeps(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(1)?;
    set.set(0, 1)?;
    let id = set.id;
    let peer = cx.fork::<()>(move |_| {
        sys::semop(id, &[SemOp::add(0, -1).undo()])?;
        Err(sys::exec_stopped().into())
    })?;
    let pid = peer.pid();
    cx.until("the peer stands before its new program's first instruction", || match procfs::state(pid) {
        Some('t') => Ok(true),
        None | Some('Z') => Err(Stop::broken("the peer ended instead of stopping after execve")),
        Some(_) => Ok(false),
    })?;
    cx.expect_eq("value after execve", set.value(0)?, 0)?;
    cx.expect_eq("end of the new program", peer.kill()?, Exit::Signal(libc::SIGKILL))?;
    cx.expect_eq("value after its end", set.value(0)?, 1)
}

/// Runs `body` in a child that shares this process's adjustments, until its exit.
fn sharing_child(body: impl FnOnce() -> sys::Result<()>) -> Result<(), Stop> {
    let pid = sys::fork_with(libc::CLONE_SYSVSEM)?;
    if pid == 0 {
        sys::exit_now(body().map_or_else(|e| e.errno, |()| 0));
    }
    match Exit::from_status(sys::waitpid(pid, 0)?.1) {
        Exit::Code(0) => Ok(()),
        other => Err(Stop::broken(format!("the child that shares adjustments ended with {other}"))),
    }
}

const CLONE_SHARES: Probe = Probe {
    title: "with CLONE_SYSVSEM only the last exit undoes",
    why: "the threads of a process are such children: one thread's end must not open the locks of all",
    spec: &[man("clone(2)", "CLONE_SYSVSEM"), kernel("ipc/sem.c", "copy_semundo")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.clone-shares", |cx| {
        let set = cx.sem_set(1)?;
        set.set(0, 5)?;
        let during = values_before_exit_of_family(cx, &set)?;
        cx.expect_eq("value after the child's exit", during, 2)?;
        cx.expect_eq("value after the last exit", set.value(0)?, 5)
    })
};

/// A process takes 1, its sharing child takes 2 and exits: the value then, before the process exits itself.
fn values_before_exit_of_family(cx: &mut Context, set: &SemSet) -> Result<i32, Stop> {
    cx.elsewhere(|_| {
        set.op(&[SemOp::add(0, -1).undo()])?;
        sharing_child(|| set.op(&[SemOp::add(0, -2).undo()]))?;
        Ok(set.value(0)?)
    })
}

const CLONE_SHARES_LATER: Probe = Probe {
    title: "with CLONE_SYSVSEM a child cancels its parent's adjustment",
    why: "one worker thread takes the lock, another one releases it: nothing is left to undo",
    spec: &[man("clone(2)", "CLONE_SYSVSEM")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.clone-cancels", |cx| {
        let set = cx.sem_set(1)?;
        set.set(0, 1)?;
        cx.elsewhere(|_| {
            // The list is shared also where it does not exist yet when the child is made.
            sharing_child(|| set.op(&[SemOp::add(0, -1).undo()]))?;
            Ok(set.op(&[SemOp::add(0, 1).undo()])?)
        })?;
        cx.expect_eq("value after the exit", set.value(0)?, 1)
    })
};

const CLONE_NEW_NAMESPACE: Probe = Probe {
    title: "CLONE_SYSVSEM with CLONE_NEWIPC is refused: EINVAL",
    why: "adjustments of one namespace would be applied to strangers' sets of another that have the same numbers",
    spec: &[man("clone(2)", "EINVAL"), kernel("kernel/nsproxy.c", "copy_namespaces")],
    calls: CALLS,
    needs: &[Need::New(Namespace::Ipc), Need::Cap(caps::Capability::CAP_SYS_ADMIN)],
    ..Probe::new("sysv.sem.undo.clone-new-namespace", |cx| {
        for flags in [libc::CLONE_NEWIPC, libc::CLONE_SYSVSEM] {
            cx.expect_ok(|| forked_with(flags))?;
        }
        cx.expect_errno(libc::EINVAL, || forked_with(libc::CLONE_NEWIPC | libc::CLONE_SYSVSEM))
    })
};

/// A child made with these flags that ends at once, and is reaped.
fn forked_with(flags: i32) -> sys::Result<()> {
    let pid = sys::fork_with(flags)?;
    if pid == 0 {
        sys::exit_now(0);
    }
    sys::waitpid(pid, 0).map(drop)
}

const THREADS_SHARE: Probe = Probe {
    title: "adjustments belong to the process, not to the thread",
    why: "POSIX threads share them: a pool that shrinks by one thread must keep the locks of the process",
    spec: &[man("pthreads(7)", ""), man("semop(2)", "NOTES"), posix("semop")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.threads-share", |cx| {
        let set = cx.sem_set(1)?;
        set.set(0, 4)?;
        let id = set.id;
        let during = cx.elsewhere(|_| {
            let thread = std::thread::spawn(move || sys::semop(id, &[SemOp::add(0, -3).undo()]));
            thread.join().map_err(|_| Stop::broken("a thread panicked"))??;
            Ok(sys::semctl(id, 0, sys::GETVAL)?)
        })?;
        cx.expect_eq("value after the thread's end", during, 1)?;
        cx.expect_eq("value after the process's exit", set.value(0)?, 4)
    })
};

const THREADS_TOGETHER: Probe = Probe {
    title: "threads that use SEM_UNDO for the first time at once share one account",
    why: "both find no account yet and make one; the loser's adjustment must not get lost",
    spec: &[man("semop(2)", "NOTES"), kernel("ipc/sem.c", "find_alloc_undo")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.threads-together", threads_together)
};
fn threads_together(cx: &mut Context) -> Outcome {
    const SETS: usize = 40;
    let sets: Vec<SemSet> = (0..SETS).map(|_| cx.sem_set(1)).collect::<Result<_, _>>()?;
    let ids: Vec<i32> = sets.iter().map(|set| set.id).collect();
    let during = cx.elsewhere(|_| {
        let arrived = std::sync::atomic::AtomicUsize::new(0);
        let work = || {
            for (n, id) in ids.iter().enumerate() {
                arrived.fetch_add(1, Ordering::SeqCst);
                while arrived.load(Ordering::SeqCst) < 2 * (n + 1) {
                    // Two threads on one processor would wait for each other's time slice.
                    sys::sched_yield();
                }
                sys::semop(*id, &[SemOp::add(0, 1).undo()])?;
            }
            Ok::<(), sys::Error>(())
        };
        std::thread::scope(|scope| {
            let threads = [scope.spawn(work), scope.spawn(work)];
            threads.into_iter().try_for_each(|thread| {
                thread.join().map_err(|_| Stop::broken("a thread panicked"))?.map_err(Stop::from)
            })
        })?;
        Ok(ids.iter().map(|id| sys::semctl(*id, 0, sys::GETVAL)).collect::<sys::Result<Vec<i32>>>()?)
    })?;
    cx.expect_eq("values while the process lives", during, vec![2; SETS])?;
    for set in &sets {
        cx.expect_eq("value after its exit", set.value(0)?, 0)?;
    }
    Ok(())
}

const UNSHARE_APPLIES: Probe = Probe {
    title: "unshare(CLONE_SYSVSEM) applies the adjustments at once",
    why: "whoever leaves the list and is its last user gives everything back there and then",
    spec: &[man("unshare(2)", "CLONE_SYSVSEM"), kernel("kernel/fork.c", "ksys_unshare")],
    calls: &[Sys::Semop, Sys::Semtimedop, Sys::Semctl, Sys::Unshare],
    ..Probe::new("sysv.sem.undo.unshare-applies", |cx| {
        let set = cx.sem_set(1)?;
        set.set(0, 2)?;
        let after = values_before_exit(cx, &set, |set| {
            set.op(&[SemOp::add(0, -2).undo()])?;
            sys::unshare(libc::CLONE_SYSVSEM)
        })?;
        cx.expect_eq("values after unshare", after, vec![2])?;
        cx.expect_eq("value after the exit", set.value(0)?, 2)
    })
};

const UNSHARE_SHARED_KEEPS: Probe = Probe {
    title: "unshare(CLONE_SYSVSEM) leaves a list that others still use",
    why: "a helper that goes its own way must not release what the rest of the group holds",
    spec: &[man("unshare(2)", "CLONE_SYSVSEM")],
    calls: &[Sys::Semop, Sys::Semtimedop, Sys::Semctl, Sys::Unshare],
    ..Probe::new("sysv.sem.undo.unshare-shared-keeps", |cx| {
        let set = cx.sem_set(1)?;
        set.set(0, 5)?;
        let during = cx.elsewhere(|_| {
            set.op(&[SemOp::add(0, -1).undo()])?;
            sharing_child(|| {
                sys::unshare(libc::CLONE_SYSVSEM)?;
                // From here on the child's own list, applied at its exit.
                set.op(&[SemOp::add(0, -2).undo()])
            })?;
            Ok(set.value(0)?)
        })?;
        cx.expect_eq("value after the child's exit", during, 4)?;
        cx.expect_eq("value after the last exit", set.value(0)?, 5)
    })
};

const NEW_NAMESPACE_APPLIES: Probe = Probe {
    title: "leaving the IPC namespace applies the adjustments",
    why: "a process that moves into a container cannot reach the old sets any more; its locks there must open",
    spec: &[man("unshare(2)", "CLONE_NEWIPC"), kernel("kernel/fork.c", "ksys_unshare")],
    calls: &[Sys::Semop, Sys::Semtimedop, Sys::Semctl, Sys::Unshare],
    needs: &[Need::New(Namespace::Ipc), Need::Cap(caps::Capability::CAP_SYS_ADMIN)],
    ..Probe::new("sysv.sem.undo.new-namespace", new_namespace_applies)
};
fn new_namespace_applies(cx: &mut Context) -> Outcome {
    let set = cx.sem_set(1)?;
    set.set(0, 2)?;
    let (left, end) = (cx.gate()?, cx.gate()?);
    let peer = cx.fork(|_| {
        set.op(&[SemOp::add(0, -2).undo()])?;
        sys::unshare(libc::CLONE_NEWIPC)?;
        // A set with an adjustment in the new namespace goes with it.
        let own = sys::semget(sys::IPC_PRIVATE, 1, 0o600)?;
        sys::semop(own, &[SemOp::add(0, 1).undo()])?;
        left.open()?;
        end.pass()
    })?;
    left.pass()?;
    cx.expect_eq("value while the process lives elsewhere", set.value(0)?, 2)?;
    end.open()?;
    peer.join()?;
    cx.expect_eq("value after its exit", set.value(0)?, 2)
}

/// A process operates with undo, `change` is made by another, and the process exits: the values after that.
fn changed_before_exit(
    cx: &mut Context,
    ops: &[SemOp],
    change: impl FnOnce(&SemSet) -> sys::Result<()>,
) -> Result<Vec<u16>, Stop> {
    let set = cx.sem_set(3)?;
    set.set_all(&[5, 5, 5])?;
    let (done, end) = (cx.gate()?, cx.gate()?);
    let peer = cx.fork(|_| {
        set.op(ops)?;
        done.open()?;
        end.pass()
    })?;
    done.pass()?;
    change(&set)?;
    end.open()?;
    peer.join()?;
    Ok(set.values()?)
}

const SETVAL_CLEARS: Probe = Probe {
    title: "SETVAL clears the adjustments that other processes hold",
    why: "after a repair by hand the dying processes would add their old tokens on top",
    spec: &[man("semctl(2)", "SETVAL"), man("semop(2)", "NOTES"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.setval-clears", |cx| {
        let after = changed_before_exit(cx, &[SemOp::add(0, -2).undo()], |set| set.set(0, 7))?;
        cx.expect_eq("values after the exit", after, vec![7, 5, 5])
    })
};

const SETVAL_CLEARS_THAT_ONE: Probe = Probe {
    title: "SETVAL keeps the adjustments of the other semaphores",
    why: "resetting one lock of a set must not leak the others",
    spec: &[man("semctl(2)", "SETVAL"), man("semop(2)", "NOTES")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.setval-that-one", |cx| {
        let ops = [SemOp::add(0, -2).undo(), SemOp::add(1, -2).undo(), SemOp::add(2, 1).undo()];
        let after = changed_before_exit(cx, &ops, |set| set.set(1, 3))?;
        cx.expect_eq("values after the exit", after, vec![5, 3, 5])
    })
};

const SETALL_CLEARS: Probe = Probe {
    title: "SETALL clears the adjustments of every semaphore",
    why: "a set initialised anew starts without the debts of its former users",
    spec: &[man("semctl(2)", "SETALL"), man("semop(2)", "NOTES"), posix("semctl")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.setall-clears", |cx| {
        let ops = [SemOp::add(0, -2).undo(), SemOp::add(2, 1).undo()];
        let after = changed_before_exit(cx, &ops, |set| set.set_all(&[1, 2, 3]))?;
        cx.expect_eq("values after the exit", after, vec![1, 2, 3])
    })
};

const IPC_SET_KEEPS: Probe = Probe {
    title: "IPC_SET keeps the adjustments",
    why: "handing a set to another owner changes who may use it, not what is owed",
    spec: &[man("semctl(2)", "IPC_SET")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.ipc-set-keeps", |cx| {
        let (uid, gid) = (sys::geteuid(), sys::getegid());
        let after = changed_before_exit(cx, &[SemOp::add(0, -2).undo()], |set| sys::sem_set(set.id, uid, gid, 0o640))?;
        cx.expect_eq("values after the exit", after, vec![5, 5, 5])
    })
};

const REMOVED: Probe = Probe {
    title: "a process with adjustments on a removed set exits as usual",
    why: "ipcrm under running programs is everyday; their exit must neither fail nor reach another set",
    spec: &[man("semctl(2)", "IPC_RMID"), kernel("ipc/sem.c", "freeary")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.removed", |cx| {
        let (mut gone, kept) = (cx.sem_set(1)?, cx.sem_set(1)?);
        let (done, end) = (cx.gate()?, cx.gate()?);
        let peer = cx.fork(|_| {
            gone.op(&[SemOp::add(0, 4).undo()])?;
            kept.op(&[SemOp::add(0, 3).undo()])?;
            done.open()?;
            end.pass()
        })?;
        done.pass()?;
        gone.remove()?;
        end.open()?;
        cx.expect_eq("end of the process", peer.exit()?, Exit::Code(0))?;
        cx.expect_eq("value of the set that is left", kept.value(0)?, 0)
    })
};

const REMOVED_AND_NEW: Probe = Probe {
    title: "adjustments on a removed set never reach its successor",
    why: "a server is restarted under its clients: their exits would change the new server's counters",
    spec: &[man("semctl(2)", "IPC_RMID"), kernel("ipc/sem.c", "freeary")],
    calls: CALLS,
    ..Probe::new("sysv.sem.undo.removed-and-new", |cx| {
        let mut old = cx.sem_set(1)?;
        old.set(0, 5)?;
        let (done, end) = (cx.gate()?, cx.gate()?);
        let peer = cx.fork(|_| {
            old.op(&[SemOp::add(0, -2).undo()])?;
            done.open()?;
            end.pass()
        })?;
        done.pass()?;
        old.remove()?;
        let new = SemSet::get(old.key, 1, sys::IPC_CREAT | sys::IPC_EXCL | 0o600)?;
        new.set(0, 1)?;
        end.open()?;
        peer.join()?;
        cx.expect_eq("value of the new set", new.value(0)?, 1)
    })
};
