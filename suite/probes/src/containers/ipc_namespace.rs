//! IPC namespaces: what is separate, what outlives leaving one.

use libc::{CLONE_NEWIPC, EINVAL, ENOENT, O_CLOEXEC, O_RDONLY};
use shmcheck_probe::sys::{self, IPC_CREAT, IPC_EXCL};
use shmcheck_probe::{
    Context, Isolate, Map, Namespace, Need, Outcome, Probe, Segment, Stop, Sys, doc, kernel, man, procfs,
};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] =
    &[&KEYS, &IDENTIFIERS, &TABLE, &STAYS_MAPPED, &STAYS_COUNTED, &ATTACHED_HOLDS, &KEPT_BY_FILE, &JOINED_TWICE];

const NEEDS: &[Need] = &[Need::New(Namespace::Ipc)];
const DOCUMENT: &str = "ipc_namespaces(7)";

const KEYS: Probe = Probe {
    title: "one key names two segments in two IPC namespaces",
    why: "every container of an image uses the same keys: without separation the second database finds the first one's \
          buffers and refuses to start, or corrupts them",
    spec: &[doc(DOCUMENT, "DESCRIPTION"), man("shmget(2)", "DESCRIPTION")],
    calls: &[Sys::Shmget, Sys::Shmat, Sys::Unshare],
    needs: NEEDS,
    ..Probe::new("namespace.ipc.key-separate", |cx| {
        let segment = segment(cx)?;
        let map = segment.attach(0)?;
        map.write(0, 7);
        let key = segment.key;
        cx.elsewhere(|cx| {
            sys::unshare(CLONE_NEWIPC)?;
            cx.expect_errno(ENOENT, || sys::shmget(key, 0, 0))?;
            let other = cx.expect_ok(|| Segment::get(key, sys::page_size(), IPC_CREAT | IPC_EXCL | 0o600))?;
            let inner = other.attach(0)?;
            cx.expect_eq("content of the other segment", inner.read(0), 0)?;
            inner.write(0, 9);
            Ok(())
        })?;
        cx.expect_eq("content of the first segment", map.read(0), 7)?;
        cx.expect_eq("identifier of the key", sys::shmget(key, 0, 0)?, segment.id)
    })
};

/// A segment of a page under a key of its own.
fn segment(cx: &mut Context) -> Result<Segment, Stop> {
    let key = cx.fresh_key();
    cx.segment(key, sys::page_size(), 0o600)
}

const IDENTIFIERS: Probe = Probe {
    title: "identifiers repeat from one IPC namespace to the next",
    why: "an identifier handed to another container by mistake names a stranger's segment there, and nothing says so",
    spec: &[doc(DOCUMENT, "DESCRIPTION"), kernel("ipc/util.c", "ipc_idr_alloc")],
    calls: &[Sys::Shmget, Sys::Shmat, Sys::Unshare],
    needs: NEEDS,
    ..Probe::new("namespace.ipc.identifiers-repeat", |cx| {
        let first_of_new = |cx: &mut Context| -> Result<i32, Stop> {
            cx.elsewhere(|cx| {
                sys::unshare(CLONE_NEWIPC)?;
                let segment = cx.segment(libc::IPC_PRIVATE, sys::page_size(), 0o600)?;
                cx.expect_eq("content", segment.attach(0)?.read(0), 0)?;
                Ok(segment.id)
            })
        };
        let (one, two) = (first_of_new(cx)?, first_of_new(cx)?);
        cx.expect_eq("first identifier of two new namespaces", two, one)
    })
};

const TABLE: Probe = Probe {
    title: "/proc/sysvipc/shm shows the namespace of whoever opens it",
    why: "ipcs in a container lists that container's objects; a host's list there would give away names and sizes",
    spec: &[doc(DOCUMENT, "DESCRIPTION"), kernel("ipc/util.c", "sysvipc_proc_open")],
    calls: &[Sys::Shmget, Sys::Unshare],
    needs: &[Need::New(Namespace::Ipc), Need::Path("/proc/sysvipc/shm")],
    ..Probe::new("namespace.ipc.proc-separate", |cx| {
        let segment = segment(cx)?;
        cx.expect("row outside", procfs::sysvipc_row("shm", segment.id)?.is_some(), "listed", "not listed")?;
        cx.elsewhere(|cx| {
            sys::unshare(CLONE_NEWIPC)?;
            cx.expect_eq("rows of the new namespace", procfs::sysvipc("shm")?.len(), 0)?;
            let own = cx.segment(libc::IPC_PRIVATE, 77, 0o600)?;
            let row = procfs::sysvipc_row("shm", own.id)?;
            let row = row.ok_or_else(|| Stop::fail("/proc/sysvipc/shm", "the own segment", "no row of it"))?;
            cx.expect_eq("rows, size", (procfs::sysvipc("shm")?.len(), row.number("size")?), (1, 77))
        })
    })
};

const STAYS_MAPPED: Probe = Probe {
    title: "an attached segment stays mapped over unshare, and is not found",
    why: "a worker that moves into a sandbox after it attached keeps its memory; one that attaches afterwards gets nothing",
    spec: &[kernel("ipc/shm.c", "shm_mmap"), doc(DOCUMENT, "DESCRIPTION")],
    calls: &[Sys::Shmget, Sys::Shmat, Sys::Shmctl, Sys::Unshare],
    needs: NEEDS,
    ..Probe::new("namespace.ipc.attached-survives-unshare", |cx| {
        let segment = segment(cx)?;
        let map = segment.attach(0)?;
        map.write(0, 1);
        cx.elsewhere(|cx| {
            sys::unshare(CLONE_NEWIPC)?;
            cx.expect_errno(ENOENT, || sys::shmget(segment.key, 0, 0))?;
            cx.expect_errno(EINVAL, || segment.stat())?;
            cx.expect_errno(EINVAL, || sys::shmat(segment.id, 0))?;
            cx.expect_eq("content after unshare", map.read(0), 1)?;
            map.write(0, 2);
            Ok(())
        })?;
        cx.expect_eq("what was stored behind unshare", map.read(0), 2)
    })
};

const STAYS_COUNTED: Probe = Probe {
    title: "an attach that outlives unshare is counted where the segment is",
    why: "nattch tells an operator whether a segment may be removed: users in other namespaces must be in it",
    spec: &[kernel("ipc/shm.c", "shm_close"), man("shmctl(2)", "shm_nattch")],
    calls: &[Sys::Shmget, Sys::Shmat, Sys::Shmdt, Sys::Shmctl, Sys::Unshare],
    needs: NEEDS,
    ..Probe::new("namespace.ipc.detach-counted-after-unshare", |cx| {
        let segment = cx.segment(libc::IPC_PRIVATE, sys::page_size(), 0o600)?;
        let (left, go) = (cx.gate()?, cx.gate()?);
        let peer = cx.fork(|cx| {
            let map = segment.attach(0)?;
            sys::unshare(CLONE_NEWIPC)?;
            left.open()?;
            go.pass()?;
            cx.expect_ok(|| map.close())
        })?;
        left.pass()?;
        let held = segment.stat()?.nattch;
        go.open()?;
        peer.join()?;
        cx.expect_eq("shm_nattch while attached from elsewhere, after shmdt", (held, segment.stat()?.nattch), (1, 0))
    })
};

const ATTACHED_HOLDS: Probe = Probe {
    title: "memory of a namespace that was left lives as long as it is mapped",
    why: "the last process of a sandbox goes back to its old namespace: what it still maps must not turn into SIGBUS",
    spec: &[kernel("ipc/shm.c", "do_shmat"), kernel("ipc/namespace.c", "put_ipc_ns")],
    calls: &[Sys::Shmget, Sys::Shmat, Sys::Unshare, Sys::Setns],
    needs: NEEDS,
    ..Probe::new("namespace.ipc.attached-survives-setns", |cx| {
        cx.elsewhere(|cx| {
            let home = own_namespace()?;
            sys::unshare(CLONE_NEWIPC)?;
            let key = cx.fresh_key();
            let map = Segment::adopt(sys::shmget(key, sys::page_size(), IPC_CREAT | 0o600)?, key, sys::page_size());
            let (map, _) = (map.attach(0)?, map.disown());
            map.write(0, 3);
            cx.expect_ok(|| sys::setns(home.as_raw_fd(), CLONE_NEWIPC))?;
            cx.expect_errno(ENOENT, || sys::shmget(key, 0, 0))?;
            cx.expect_eq("content after setns", map.read(0), 3)?;
            let next = 4;
            cx.elsewhere(|_| {
                map.write(0, next);
                Ok(())
            })?;
            cx.expect_eq("a child's store", map.read(0), next)
        })
    })
};

fn own_namespace() -> Result<std::os::fd::OwnedFd, Stop> {
    Ok(sys::open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC, 0)?)
}

const KEPT_BY_FILE: Probe = Probe {
    title: "an open /proc/PID/ns/ipc keeps a namespace without processes",
    why: "pods and runtimes hold the namespace of a group by a file: a restarted container finds its segments again",
    spec: &[doc("namespaces(7)", "Namespace lifetime"), doc(DOCUMENT, "DESCRIPTION")],
    calls: &[Sys::Shmget, Sys::Shmat, Sys::Shmctl, Sys::Unshare, Sys::Setns],
    needs: NEEDS,
    ..Probe::new("namespace.ipc.kept-by-open-file", |cx| {
        let key = cx.fresh_key();
        let (made, go) = (cx.gate()?, cx.gate()?);
        let peer = cx.fork(|_| {
            sys::unshare(CLONE_NEWIPC)?;
            let id = sys::shmget(key, sys::page_size(), IPC_CREAT | IPC_EXCL | 0o600)?;
            Map::attached(sys::shmat(id, 0)?, sys::page_size()).write(0, 5);
            made.open()?;
            go.pass()
        })?;
        made.pass()?;
        let path = format!("/proc/{}/ns/ipc", peer.pid());
        let held = sys::open(&path, O_RDONLY | O_CLOEXEC, 0)?;
        go.open()?;
        peer.join()?;
        cx.elsewhere(|cx| {
            cx.expect_errno(ENOENT, || sys::shmget(key, 0, 0))?;
            cx.expect_ok(|| sys::setns(held.as_raw_fd(), CLONE_NEWIPC))?;
            let id = cx.expect_ok(|| sys::shmget(key, 0, 0))?;
            let map = Map::attached(cx.expect_ok(|| sys::shmat(id, 0))?, sys::page_size());
            cx.expect_eq("content", map.read(0), 5)?;
            cx.expect_eq("shm_nattch", sys::shm_stat(id)?.nattch, 1)
        })
    })
};

const JOINED_TWICE: Probe = Probe {
    title: "setns into the own IPC namespace changes nothing",
    why: "tools such as nsenter join every namespace of a target, also those it shares with them",
    spec: &[man("setns(2)", "DESCRIPTION"), kernel("ipc/namespace.c", "ipcns_install")],
    calls: &[Sys::Shmget, Sys::Setns],
    needs: &[Need::Cap(caps::Capability::CAP_SYS_ADMIN)],
    isolate: Isolate::Fresh,
    ..Probe::new("namespace.ipc.setns-own", |cx| {
        let segment = segment(cx)?;
        let (key, id) = (segment.key, segment.id);
        cx.elsewhere(|cx| -> Outcome {
            let own = own_namespace()?;
            cx.expect_ok(|| sys::setns(own.as_raw_fd(), 0))?;
            cx.expect_eq("identifier of the key", sys::shmget(key, 0, 0)?, id)
        })
    })
};
