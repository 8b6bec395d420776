//! Whom one party sees when it looks at what the other made: user, group and process ids.

use super::{MAKER, PARTIES, SEEKER};
use shmcheck_probe::{
    Context, Need, Outcome, Probe, Scenario, Segment, Shared, Step, Stop, Sys, Values, doc, kernel, procfs, sys,
};
use std::fs;

/// The scenarios of this file.
pub(super) const SCENARIOS: &[&Scenario] = &[&CREATOR, &LAST, &OWNER];

const PIDS_VARY: &str = "the host sees the numbers of all containers' processes; a container sees 0 for those of the host and \
                         of other containers, unless they share a pid namespace";

/// A segment that the other party may use, with its identifier in the values.
fn make(cx: &mut Context, values: &mut Values) -> Outcome {
    let segment = cx.segment(libc::IPC_PRIVATE, sys::page_size(), 0o666)?;
    values.set("id", segment.id);
    values.set("pid", sys::getpid());
    cx.keep("segment", segment);
    Ok(())
}

/// Holds a process id that one party sees against the other's own: 0 where it has no number here, else the number here
/// of the process that calls itself `own` where it is.
fn expect_pid(cx: &Context, what: &str, seen: i32, own: i32, visible: bool) -> Outcome {
    if !visible {
        return cx.expect_eq(what, seen, 0);
    }
    cx.expect_ne(what, seen, 0)?;
    // The last number of NSpid is the one in the process's own namespace, proc_pid_status(5).
    let status = procfs::read(&format!("/proc/{seen}/status"))?;
    let inner = status.lines().find_map(|line| line.strip_prefix("NSpid:")?.split_whitespace().last()?.parse().ok());
    let inner: i32 = inner.ok_or_else(|| Stop::broken(format!("/proc/{seen}/status has no NSpid")))?;
    cx.expect_eq(&format!("own number of process {seen}, which is {what}"), inner, own)
}

const CREATOR: Scenario = Scenario {
    probe: Probe {
        title: "shm_cpid is the creator's number where the reader sees it, else 0",
        why: "a watchdog that signals a segment's creator must not hit a process of its own that has the same number",
        varies: PIDS_VARY,
        spec: &[kernel("ipc/shm.c", "shmctl_stat"), doc("pid_namespaces(7)", "DESCRIPTION")],
        calls: &[Sys::Shmget, Sys::Shmctl],
        ..Scenario::probe("scenario.identity.shm-cpid")
    },
    shares: &[Shared::Ipc],
    parties: PARTIES,
    steps: &[
        Step::new(MAKER, "the maker makes a segment", make),
        Step::new(SEEKER, "the seeker looks who made it", |cx, values| {
            let id = values.number("id")?;
            let stat = cx.expect_ok(|| sys::shm_stat(id))?;
            expect_pid(cx, "shm_cpid", stat.cpid, values.number("pid")?, values.flag("sees-pids.1.0")?)
        }),
    ],
};

const LAST: Scenario = Scenario {
    probe: Probe {
        title: "shm_lpid is the last user's number where the reader sees it, else 0",
        why: "an operator on the host asks who attached to the database last, and looks that number up with ps",
        varies: PIDS_VARY,
        spec: &[kernel("ipc/shm.c", "shmctl_stat"), doc("pid_namespaces(7)", "DESCRIPTION")],
        calls: &[Sys::Shmget, Sys::Shmat, Sys::Shmdt, Sys::Shmctl],
        ..Scenario::probe("scenario.identity.shm-lpid")
    },
    shares: &[Shared::Ipc],
    parties: PARTIES,
    steps: &[
        Step::new(MAKER, "the maker makes a segment", make),
        Step::new(SEEKER, "the seeker attaches", |cx, values| {
            let id = values.number("id")?;
            values.set("pid", sys::getpid());
            let address = cx.expect_ok(|| sys::shmat(id, 0))?;
            Ok(sys::shmdt(address)?)
        }),
        Step::new(MAKER, "the maker looks who was there last", |cx, values| {
            let (pid, visible) = (values.number("pid")?, values.flag("sees-pids.0.1")?);
            let stat = cx.kept::<Segment>("segment")?.stat()?;
            expect_pid(cx, "shm_lpid", stat.lpid, pid, visible)
        }),
    ],
};

/// The lines of /proc/self/uid_map or gid_map: inside, outside, count.
fn map(file: &str) -> Result<Vec<[i64; 3]>, Stop> {
    let text = fs::read_to_string(format!("/proc/self/{file}"))?;
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse);
        Some([numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?])
    };
    Ok(text.lines().filter_map(line).collect())
}

/// An id of this process's user namespace in the one around it.
fn outside(file: &str, id: u32) -> Result<i64, Stop> {
    let id = i64::from(id);
    let found = map(file)?.into_iter().find(|[inside, _, count]| (*inside..inside + count).contains(&id));
    found
        .map(|[inside, outside, _]| id - inside + outside)
        .ok_or_else(|| Stop::broken(format!("{id} is not in /proc/self/{file}")))
}

/// An id of the namespace around this process's in its own; the overflow id where it has none.
fn inside(file: &str, id: i64) -> Result<i64, Stop> {
    let found = map(file)?.into_iter().find(|[_, outside, count]| (*outside..outside + count).contains(&id));
    match found {
        Some([inside, outside, _]) => Ok(id - outside + inside),
        None => procfs::sysctl_number(if file == "uid_map" { "kernel/overflowuid" } else { "kernel/overflowgid" }),
    }
}

const OWNER: Scenario = Scenario {
    probe: Probe {
        title: "owner and creator are those of the reader's user namespace",
        why: "with userns-remap or rootless engines root of a container is nobody of importance outside: who compares \
              uids across the border is told the right one, or the overflow id",
        varies: "Docker joins the donor's user namespace together with its IPC namespace (moby#46210); rootless Podman: \
                 uid 0 inside is the user outside",
        fix: "give the segment a group or mode that both sides have, not an owner",
        spec: &[kernel("ipc/util.c", "kernel_to_ipc64_perm"), doc("user_namespaces(7)", "User and group ID mappings")],
        calls: &[Sys::Shmget, Sys::Shmctl],
        needs: &[Need::Path("/proc/sys/kernel/overflowuid"), Need::Path("/proc/sys/kernel/overflowgid")],
        ..Scenario::probe("scenario.identity.owner")
    },
    shares: &[Shared::Ipc],
    parties: PARTIES,
    steps: &[
        Step::new(MAKER, "the maker makes a segment", |cx, values| {
            values.set("uid", outside("uid_map", sys::geteuid())?);
            values.set("gid", outside("gid_map", sys::getegid())?);
            make(cx, values)
        }),
        Step::new(SEEKER, "the seeker looks whose it is", |cx, values| {
            let id = values.number("id")?;
            let stat = cx.expect_ok(|| sys::shm_stat(id))?;
            let uid = inside("uid_map", values.number("uid")?)?;
            let gid = inside("gid_map", values.number("gid")?)?;
            let seen = [stat.uid, stat.cuid, stat.gid, stat.cgid].map(i64::from);
            cx.expect_eq("uid, cuid, gid, cgid", seen, [uid, uid, gid, gid])
        }),
    ],
};
