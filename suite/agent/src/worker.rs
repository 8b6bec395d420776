//! A worker: runs one probe at a time, each in a process of its own, and reaps whatever the probe leaves running.
//!
//! The worker is the subreaper of its descendants: a process that a probe forked and forgot becomes the worker's
//! child, so that "any other child" and "left behind by this probe" are the same.

use crate::fresh::{self, Way};
use crate::inventory;
use shmcheck_probe::context::Place;
use shmcheck_probe::peer::{Handover, panic_text};
use shmcheck_probe::{Context, Exit, Isolate, Probe, Stop, key, sys};
use shmcheck_protocol::{Inventory, Record};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// The longest result that a probe may hand over in bytes.
const MAX_RESULT: usize = 64 << 10;
/// How much of a probe's own output is kept for a broken record.
const MAX_OUTPUT: usize = 4 << 10;
/// How long descendants that were told to die may take; on a loaded machine a killed process needs a time slice.
const GRACE: Duration = Duration::from_millis(2_000);

/// What a worker needs to know of the place.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    pub(crate) run: String,
    pub(crate) tag: u32,
    pub(crate) deadline: Duration,
    pub(crate) fresh: Option<Way>,
}

/// Makes this process the reaper of all its descendants.
pub(crate) fn become_reaper() -> sys::Result<()> {
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map(drop)
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

fn excerpt(bytes: &[u8]) -> String {
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
    let mut sinks =
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

/// A descriptor that never becomes readable, where /dev/null is missing.
fn placeholder() -> File {
    // SAFETY: eventfd takes no memory.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    // SAFETY: the descriptor is new and owned by nobody else; -1 would be a table without room, which reads as an error.
    unsafe { File::from_raw_fd(fd) }
}

/// Reads what is there; beyond the limit it is thrown away.
fn drain((file, bytes, limit): &mut (File, Vec<u8>, usize)) {
    let mut chunk = [0; 16 << 10];
    // Bounded per call, so that an endless writer cannot keep the worker from looking at the deadline.
    for _ in 0..16 {
        match file.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(n) => bytes.extend_from_slice(&chunk[..n.min(limit.saturating_sub(bytes.len()))]),
        }
    }
}

fn poll(fds: &[i32], millis: i32) -> Vec<libc::pollfd> {
    let mut entries: Vec<libc::pollfd> =
        fds.iter().map(|fd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 }).collect();
    // SAFETY: pointer and count are those of the vector. An error or interruption leaves revents 0.
    unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, millis) };
    entries
}

fn wait_readable(fds: &[i32], patience: Duration) {
    let millis = patience.as_millis().clamp(1, 60_000);
    poll(fds, i32::try_from(millis).unwrap_or(60_000));
}

/// Which of the pipes have no writer any more.
fn closed(fds: &[i32]) -> Vec<bool> {
    poll(fds, 0).iter().map(|entry| entry.revents & libc::POLLHUP != 0).collect()
}

fn pidfd(pid: libc::pid_t) -> Option<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the call returned a descriptor that nobody else owns.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Ends and reaps every descendant; names those that did not end by themselves.
pub(crate) fn reap_descendants() -> Option<String> {
    let start = Instant::now();
    let mut stubborn = String::new();
    loop {
        match sys::waitpid(-1, libc::WNOHANG) {
            Err(_) => break,
            Ok((0, _)) => {
                // Peers die with their parent; give the signal the time to arrive before calling them left behind.
                if start.elapsed() > Duration::from_millis(200) && stubborn.is_empty() {
                    stubborn =
                        children().iter().map(|(pid, name)| format!("{name}[{pid}]")).collect::<Vec<_>>().join(" ");
                }
                if !stubborn.is_empty() {
                    for (pid, _) in children() {
                        let _ = sys::kill(pid, libc::SIGKILL);
                    }
                }
                if start.elapsed() > GRACE {
                    break;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            Ok(_) => {}
        }
    }
    (!stubborn.is_empty()).then_some(stubborn)
}

/// The children of this process with their names.
fn children() -> Vec<(libc::pid_t, String)> {
    let own = sys::getpid();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let parse = |entry: std::fs::DirEntry| {
        let pid: libc::pid_t = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (head, tail) = stat.rsplit_once(") ")?;
        let parent: libc::pid_t = tail.split(' ').nth(1)?.parse().ok()?;
        (parent == own).then(|| (pid, head.split_once('(').map_or("", |(_, name)| name).to_owned()))
    };
    entries.filter_map(parse).collect()
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
    let prepared = prepare(worker, result, output);
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

/// Own group, death with the worker, no core, /dev/null as input, output to the worker, all else closed.
fn prepare(worker: libc::pid_t, result: OwnedFd, output: OwnedFd) -> sys::Result<File> {
    let _ = nix::unistd::setpgid(nix::unistd::Pid::from_raw(0), nix::unistd::Pid::from_raw(0));
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)?;
    if nix::unistd::getppid().as_raw() != worker {
        sys::exit_now(1);
    }
    // A limit of 1 keeps also a core_pattern with a pipe from dumping, core(5); where it cannot be raised it is 0.
    if sys::setrlimit(libc::RLIMIT_CORE, 1, 1).is_err() {
        let _ = sys::setrlimit(libc::RLIMIT_CORE, 0, 0);
    }
    // SAFETY: SIGPIPE's default ends a peer whose reader is gone; one thread, a valid disposition.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    sys::umask(0o022);
    let null = sys::open("/dev/null", libc::O_RDWR, 0).unwrap_or_else(|_| placeholder().into());
    for (from, to) in [(null.as_raw_fd(), 0), (output.as_raw_fd(), 1), (output.as_raw_fd(), 2)] {
        // SAFETY: the standard streams are replaced by descriptors that stay valid.
        sys::ret("dup2", unsafe { libc::dup2(from, to) })?;
    }
    // The record's pipe goes out of the way: probes claim things about the lowest free descriptor.
    let ceiling = sys::getrlimit(libc::RLIMIT_NOFILE).map_or(1024, |limit| limit.0).min(1 << 20);
    let high = i32::try_from(ceiling.saturating_sub(1)).unwrap_or(1023).min(1_000);
    let moved = sys::fcntl(result.as_raw_fd(), libc::F_DUPFD_CLOEXEC, high)
        .or_else(|_| sys::fcntl(result.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3))?;
    // All other descriptors are closed by number, also these: none may be closed a second time by its owner.
    for owned in [null, output, result] {
        let _ = owned.into_raw_fd();
    }
    close_between(3, moved - 1);
    close_between(moved + 1, i32::MAX);
    // SAFETY: the descriptor was made above and is owned by nobody else.
    Ok(unsafe { File::from_raw_fd(moved) })
}

/// Closes all descriptors from `first` to `last`.
fn close_between(first: i32, last: i32) {
    if first > last {
        return;
    }
    // SAFETY: none of these descriptors is used by this process from here on.
    let value = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if value != 0 {
        // A kernel before 5.9 or a filter: one by one, as far as descriptors usually go.
        for fd in first..=last.min(4_096) {
            let _ = sys::close(fd);
        }
    }
}
