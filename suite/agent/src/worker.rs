//! A worker: runs one probe at a time, each in a process of its own, and reaps whatever the probe leaves running.
//!
//! The worker is the subreaper of its descendants: a process that a probe forked and forgot becomes the worker's
//! child, so that "any other child" and "left behind by this probe" are the same.

use crate::fresh::{self, Way};
use crate::inventory;
use crate::process::{Sink, closed, drain, pidfd, placeholder, prepare, wait_readable};
use crate::reap::reap_descendants;
use shmcheck_probe::context::Place;
use shmcheck_probe::peer::{Handover, panic_text};
use shmcheck_probe::{Context, Exit, Isolate, Probe, Stop, key, sys};
use shmcheck_protocol::{Inventory, Record};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// The longest result that a probe may hand over in bytes.
pub(crate) const MAX_RESULT: usize = 64 << 10;
/// How much of a probe's own output is kept for a broken record.
pub(crate) const MAX_OUTPUT: usize = 4 << 10;

/// What a worker needs to know of the place.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    pub(crate) run: String,
    pub(crate) tag: u32,
    pub(crate) deadline: Duration,
    pub(crate) fresh: Option<Way>,
}

/// Runs one probe and says what came of it.
pub(crate) fn run(probe: &'static Probe, index: usize, bench: &Bench) -> Record {
    let start = Instant::now();
    let before = inventory_of(probe, bench);
    let mut result = attempt(probe, index, bench, start);
    let duration = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    if let Some(running) = reap_descendants()
        && result.is_ok()
    {
        result = Err(Stop::broken(format!("the probe left processes running: {running}")));
    }
    if let Some(before) = before {
        let left = left_by(index, bench, &before);
        if !left.is_empty() && !matches!(&result, Err(stop) if stop.verdict() == shmcheck_probe::Verdict::Fail) {
            result = Err(Stop::broken(format!("the probe left behind: {}", left.join(", "))));
        }
    }
    Record::new(probe.id, result, duration)
}

/// The inventory before a probe that runs in the cell's own namespaces.
fn inventory_of(probe: &Probe, bench: &Bench) -> Option<Inventory> {
    let own = bench.fresh.is_some() && matches!(probe.isolate, Isolate::Fresh | Isolate::FreshOnly);
    (!own).then(inventory::take)
}

/// What is there now, was not before, and carries this probe's number.
fn left_by(index: usize, bench: &Bench, before: &Inventory) -> Vec<String> {
    let now = inventory::take();
    let ours = |key: i32| key::has_tag(key, bench.tag) && key::has_probe(key, index as u32);
    let mark = format!("{}{}.{index:x}.", shmcheck_protocol::NAME_PREFIX, bench.run);
    let mut of_probe = now.clone();
    for list in [&mut of_probe.shm, &mut of_probe.sem, &mut of_probe.msg] {
        list.retain(|(_, key)| ours(*key));
    }
    for list in [&mut of_probe.dev_shm, &mut of_probe.mqueue] {
        list.retain(|name| name.contains(&mark));
    }
    of_probe.since(before, &bench.run, bench.tag, true)
}

fn attempt(probe: &'static Probe, index: usize, bench: &Bench, start: Instant) -> Result<(), Stop> {
    let (result_in, result_out) = sys::pipe()?;
    let (output_in, output_out) = sys::pipe()?;
    let worker = sys::getpid();
    let pid = sys::fork()?;
    if pid == 0 {
        run_inside(probe, index, bench, worker, result_out, output_out);
    }
    drop((result_out, output_out));
    // Also set by the child: whichever comes first, the group exists before anybody signals it.
    let _ = nix::unistd::setpgid(nix::unistd::Pid::from_raw(pid), nix::unistd::Pid::from_raw(pid));
    let watched = watch(pid, result_in, output_in, bench.deadline, start);
    // The group is ended whatever came of the probe; it may be gone already.
    let _ = sys::kill(-pid, libc::SIGKILL);
    let (end, result, output) = match watched {
        Ok(seen) => seen,
        Err(e) => {
            let _ = sys::kill(pid, libc::SIGKILL);
            let _ = sys::waitpid(pid, 0);
            return Err(e);
        }
    };
    verdict(probe, end, &result, &output, bench.deadline)
}

/// How the probe's own process ended: by itself, or at the deadline.
enum End {
    Exit(Exit),
    Deadline,
}

/// Judges the bytes that the probe's process handed over.
fn verdict(probe: &Probe, end: End, bytes: &[u8], output: &[u8], deadline: Duration) -> Result<(), Stop> {
    let said = if output.is_empty() {
        String::new()
    } else {
        format!("; it printed: {}", String::from_utf8_lossy(output).trim())
    };
    let exit = match end {
        End::Deadline => {
            return Err(Stop::broken(format!("the deadline of {} ms passed{said}", deadline.as_millis())));
        }
        End::Exit(exit) => exit,
    };
    if bytes.len() > MAX_RESULT {
        return Err(Stop::broken(format!("the record is longer than {MAX_RESULT} bytes")));
    }
    if let Exit::Signal(_) = exit {
        return Err(Stop::broken(format!("the probe's process died by {exit}{said}")));
    }
    if bytes.is_empty() {
        return Err(Stop::broken(format!("the probe's process ended ({exit}) without a record{said}")));
    }
    let mut records = serde_json::Deserializer::from_slice(bytes).into_iter::<Handover>();
    let first = match records.next() {
        Some(Ok(record)) => record,
        _ => return Err(Stop::broken(format!("the record cannot be read: {}", excerpt(bytes)))),
    };
    if records.next().is_some() {
        return Err(Stop::broken("the probe's process handed over more than one record"));
    }
    if first.id != probe.id {
        return Err(Stop::broken(format!("the record is of {}, not of this probe", first.id)));
    }
    if exit != Exit::Code(0) {
        return Err(Stop::broken(format!("the probe's process ended with {exit} after its record{said}")));
    }
    first.result
}

pub(crate) fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned()
}

/// Reads the probe's two pipes until its process ends or the deadline passes; kills it at the deadline.
fn watch(
    pid: libc::pid_t,
    result_in: OwnedFd,
    output_in: OwnedFd,
    deadline: Duration,
    start: Instant,
) -> Result<(End, Vec<u8>, Vec<u8>), Stop> {
    for pipe in [&result_in, &output_in] {
        sys::fcntl(pipe.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK)?;
    }
    let pidfd = pidfd(pid);
    let mut sinks: [Sink; 2] =
        [(File::from(result_in), Vec::new(), MAX_RESULT + 1), (File::from(output_in), Vec::new(), MAX_OUTPUT)];
    let end = loop {
        for sink in &mut sinks {
            drain(sink);
        }
        if let (ended, status) = sys::waitpid(pid, libc::WNOHANG)?
            && ended == pid
        {
            break End::Exit(Exit::from_status(status));
        }
        let left = deadline.saturating_sub(start.elapsed());
        if left.is_zero() {
            sys::kill(pid, libc::SIGKILL)?;
            sys::waitpid(pid, 0)?;
            break End::Deadline;
        }
        // Without pidfd_open (a filter, an old kernel) the process is looked at every other millisecond.
        let patience = if pidfd.is_some() { left } else { left.min(Duration::from_millis(2)) };
        let fds = [sinks[0].0.as_raw_fd(), sinks[1].0.as_raw_fd(), pidfd.as_ref().map_or(-1, AsRawFd::as_raw_fd)];
        wait_readable(&fds, patience);
        if patience.as_millis() == 0 {
            sys::sched_yield();
        }
        for (n, closed) in closed(&fds[..2]).into_iter().enumerate() {
            if closed {
                drain(&mut sinks[n]);
                // A closed pipe would be readable for ever; the process's end is still awaited.
                sinks[n].0 = File::open("/dev/null").unwrap_or_else(|_| placeholder());
            }
        }
    };
    for sink in &mut sinks {
        drain(sink);
    }
    let [(_, result, _), (_, output, _)] = sinks;
    Ok((end, result, output))
}

/// The probe's process: namespaces, limits and streams, then the function, then the record.
fn run_inside(
    probe: &'static Probe,
    index: usize,
    bench: &Bench,
    worker: libc::pid_t,
    result: OwnedFd,
    output: OwnedFd,
) -> ! {
    let prepared = prepare(worker, None, result, output);
    let Ok(mut pipe) = prepared else { sys::exit_now(70) };
    let own = bench.fresh.filter(|_| matches!(probe.isolate, Isolate::Fresh | Isolate::FreshOnly));
    let entered = own.map_or(Ok(()), |way| fresh::enter(way).map_err(Stop::from));
    let outcome = entered.and_then(|()| {
        let place = Place { run: bench.run.clone(), index: index as u32, tag: bench.tag, fresh: own.is_some() };
        let mut cx = Context::new(place);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (probe.run)(&mut cx)))
            .unwrap_or_else(|cause| Err(Stop::broken(format!("panic: {}", panic_text(&*cause)))))
    });
    let handover = Handover { id: probe.id.to_owned(), result: outcome };
    let sent = serde_json::to_vec(&handover).map(|bytes| pipe.write_all(&bytes));
    sys::exit_now(i32::from(!matches!(sent, Ok(Ok(())))));
}
