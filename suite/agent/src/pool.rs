//! The workers of an agent: probes in parallel where they may, alone where they must.

use crate::worker::{self, Bench};
use crate::{Error, Plan, gather, reap};
use shmcheck_probe::{Isolate, Probe, Stop, sys};
use shmcheck_protocol::{Facts, Record};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// A worker process and what it is at.
struct Worker {
    pid: libc::pid_t,
    orders: File,
    answers: BufReader<File>,
    busy: Option<usize>,
}

/// Runs the probes at these places of the catalogue; `answer` gets a record for each.
pub(crate) fn run(
    catalogue: &[&'static Probe],
    facts: &Facts,
    selected: &[usize],
    plan: &Plan,
    mut answer: impl FnMut(Record) -> Result<(), Error>,
) -> Result<(), Error> {
    let bench = Bench {
        run: plan.run.clone(),
        tag: plan.tag,
        deadline: Duration::from_millis(plan.deadline_ms),
        fresh: facts.fresh.as_ref().map(|_| gather::way(&facts.user)),
    };
    let together = |index: &usize| match catalogue[*index].isolate {
        Isolate::Fresh | Isolate::FreshOnly => facts.fresh.is_some() || catalogue[*index].waits,
        Isolate::Cell => true,
        Isolate::CellAlone => false,
    };
    let (mut parallel, alone): (Vec<usize>, Vec<usize>) = selected.iter().copied().partition(together);
    // Those that wait begin first, each on a worker that would only sleep otherwise.
    parallel.sort_by_key(|index| !catalogue[*index].waits);
    let waiting = parallel.iter().filter(|index| catalogue[**index].waits).count();
    // Waiting probes overlap: one more worker than processors keeps both busy.
    let jobs = if plan.jobs == 0 { facts.cpus + 1 + waiting } else { plan.jobs };
    let mut workers = Vec::new();
    let mut outcome = Ok(());
    for (queue, jobs) in [(VecDeque::from(parallel), jobs), (VecDeque::from(alone), 1)] {
        // A runner that is gone takes no more records; what is under way still ends in order, so that nothing is left.
        if outcome.is_ok() {
            outcome = drive(catalogue, &bench, queue, jobs, &mut workers, &mut answer);
        }
    }
    for worker in workers {
        // A worker ends when its orders do.
        drop(worker.orders);
        sys::waitpid(worker.pid, 0)?;
    }
    // Only as the first process of a pid namespace, and without reapers below, has the agent children now.
    reap::reap_descendants();
    outcome
}

fn drive(
    catalogue: &[&'static Probe],
    bench: &Bench,
    mut queue: VecDeque<usize>,
    jobs: usize,
    workers: &mut Vec<Worker>,
    answer: &mut impl FnMut(Record) -> Result<(), Error>,
) -> Result<(), Error> {
    while workers.len() < jobs.min(queue.len()) {
        let worker = spawn(catalogue, bench, workers)?;
        workers.push(worker);
    }
    let mut outcome = Ok(());
    loop {
        for worker in workers.iter_mut().take(jobs).filter(|worker| worker.busy.is_none()) {
            let Some(index) = queue.pop_front() else { break };
            worker.busy = Some(index);
            // A worker that is gone is noticed below, when its answers end.
            let _ = worker.orders.write_all(&(index as u32).to_ne_bytes());
        }
        if workers.iter().all(|worker| worker.busy.is_none()) {
            return outcome;
        }
        for n in readable(workers) {
            let Some(index) = workers[n].busy.take() else { continue };
            let mut line = String::new();
            let read = workers[n].answers.read_line(&mut line);
            let record = match read {
                Ok(count) if count > 0 => serde_json::from_str(&line)?,
                _ => {
                    let (_, status) = sys::waitpid(workers[n].pid, 0)?;
                    let end = shmcheck_probe::Exit::from_status(status);
                    workers[n] = spawn(catalogue, bench, workers)?;
                    let stop = Stop::broken(format!("the probe took its worker along ({end})"));
                    Record::new(catalogue[index].id, Err(stop), 0)
                }
            };
            if let Err(e) = answer(record) {
                queue.clear();
                outcome = Err(e);
            }
        }
    }
}

/// The busy workers that have something to say.
fn readable(workers: &[Worker]) -> Vec<usize> {
    let mut entries: Vec<libc::pollfd> = workers
        .iter()
        .map(|worker| libc::pollfd {
            fd: if worker.busy.is_some() { worker.answers.get_ref().as_raw_fd() } else { -1 },
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    // SAFETY: pointer and count are those of the vector; an interruption leaves revents 0 and is tried again.
    unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, -1) };
    entries.iter().enumerate().filter(|(_, entry)| entry.revents != 0).map(|(n, _)| n).collect()
}

fn spawn(catalogue: &[&'static Probe], bench: &Bench, others: &[Worker]) -> Result<Worker, Error> {
    let (orders_in, orders_out) = sys::pipe()?;
    let (answers_in, answers_out) = sys::pipe()?;
    let agent = sys::getpid();
    let pid = sys::fork()?;
    if pid == 0 {
        drop((orders_out, answers_in));
        // The pipes of the other workers: a copy here would keep them alive after the agent.
        for other in others {
            let _ = sys::close(other.orders.as_raw_fd());
            let _ = sys::close(other.answers.get_ref().as_raw_fd());
        }
        sys::exit_now(work(catalogue, bench, agent, orders_in, answers_out));
    }
    Ok(Worker { pid, orders: File::from(orders_out), answers: BufReader::new(File::from(answers_in)), busy: None })
}

/// A worker's life: an index in, a record out. Its exit code.
fn work(catalogue: &[&'static Probe], bench: &Bench, agent: libc::pid_t, orders: OwnedFd, answers: OwnedFd) -> i32 {
    use std::io::Read;
    let armed = sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong);
    if armed.is_err() || nix::unistd::getppid().as_raw() != agent {
        return 1;
    }
    // gVisor of 2022 refuses this to all but the first process (EINVAL): what a probe forks and forgets then becomes
    // the child of that one, and where it is the agent is ended there, when the workers are gone.
    let _ = reap::become_reaper();
    let (mut orders, mut answers) = (File::from(orders), File::from(answers));
    let mut order = [0; 4];
    while orders.read_exact(&mut order).is_ok() {
        let index = u32::from_ne_bytes(order) as usize;
        let record = worker::run(catalogue[index], index, bench);
        let Ok(mut line) = serde_json::to_vec(&record) else { return 1 };
        line.push(b'\n');
        if answers.write_all(&line).is_err() {
            return 1;
        }
    }
    0
}
