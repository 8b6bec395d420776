//! An actor: the process of one party of a scenario, which lives over the party's steps.

use crate::process::{Sink, closed, drain, pidfd, placeholder, prepare, wait_readable};
use crate::reap::reap_descendants;
use crate::stage::Answer;
use crate::worker::{Bench, MAX_OUTPUT, MAX_RESULT, excerpt};
use serde::{Deserialize, Serialize};
use shmcheck_probe::context::Place;
use shmcheck_probe::peer::panic_text;
use shmcheck_probe::{Act, Context, Exit, Scenario, Stop, Values, sys};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// A party's part in a scenario.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) scenario: &'static Scenario,
    /// The scenario's number in keys and names.
    pub(crate) index: usize,
    pub(crate) party: usize,
    pub(crate) bench: Bench,
}

/// What the actor's process hands over after a step: which, what came of it, the values.
#[derive(Debug, Serialize, Deserialize)]
struct Played {
    step: usize,
    result: Result<(), Stop>,
    values: Values,
}

/// The keeper's end of an actor's process.
pub(crate) struct Actor {
    pid: libc::pid_t,
    /// Why there is nothing more to expect of it.
    over: Option<Stop>,
    orders: Option<File>,
    sinks: [Sink; 2],
    pidfd: Option<OwnedFd>,
    deadline: Duration,
}

impl Actor {
    /// Starts the process.
    pub(crate) fn start(part: &Part) -> Result<Self, Stop> {
        let (orders_in, orders_out) = sys::pipe()?;
        let (result_in, result_out) = sys::pipe()?;
        let (output_in, output_out) = sys::pipe()?;
        let keeper = sys::getpid();
        let pid = sys::fork()?;
        if pid == 0 {
            drop(orders_out);
            play(part, keeper, orders_in, result_out, output_out);
        }
        // Also set by the child: whichever comes first, the group exists before anybody signals it.
        let _ = nix::unistd::setpgid(nix::unistd::Pid::from_raw(pid), nix::unistd::Pid::from_raw(pid));
        for pipe in [&result_in, &output_in] {
            sys::fcntl(pipe.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK)?;
        }
        Ok(Self {
            pid,
            over: None,
            orders: Some(File::from(orders_out)),
            sinks: sinks(File::from(result_in), File::from(output_in)),
            pidfd: pidfd(pid),
            deadline: part.bench.deadline,
        })
    }

    /// An actor that could not be started.
    pub(crate) fn stillborn(stop: Stop) -> Self {
        let sinks = sinks(placeholder(), placeholder());
        Self { pid: 0, over: Some(stop), orders: None, sinks, pidfd: None, deadline: Duration::ZERO }
    }

    /// Runs a step and waits for what came of it.
    pub(crate) fn step(&mut self, step: usize, values: Values) -> Answer {
        let start = Instant::now();
        let before = values.clone();
        let played = match &self.over {
            Some(stop) => Err(stop.clone()),
            None => self.send(step, values).and_then(|()| self.hear(start)).and_then(|line| understand(step, &line)),
        };
        let took = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        match played {
            Ok(played) => (played.result, played.values, took),
            Err(stop) => {
                // Nothing that such an actor says later could be trusted.
                self.kill();
                self.over.get_or_insert_with(|| stop.clone());
                (Err(stop), before, took)
            }
        }
    }

    /// Ends the actor: in order, so that its guards tidy up, or at once.
    pub(crate) fn leave(&mut self, killed: bool) -> Answer {
        let start = Instant::now();
        let mut result = Ok(());
        if !killed && self.over.is_none() {
            self.orders = None;
            result = match self.wait(start) {
                Some(Exit::Code(0)) => Ok(()),
                Some(exit) => Err(Stop::broken(format!("the party ended with {exit}{}", self.said()))),
                None => Err(self.late()),
            };
        }
        self.kill();
        if let Some(running) = reap_descendants()
            && result.is_ok()
            && !killed
        {
            result = Err(Stop::broken(format!("the party left processes running: {running}")));
        }
        (result, Values::default(), u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Kills the actor's group and reaps its process.
    pub(crate) fn kill(&mut self) {
        if self.pid > 0 {
            // The process is this one's own child and not yet reaped, so the number is still its own.
            let _ = sys::kill(-self.pid, libc::SIGKILL);
            let _ = sys::kill(self.pid, libc::SIGKILL);
            let _ = sys::waitpid(self.pid, 0);
            self.pid = 0;
        }
    }

    fn send(&mut self, step: usize, values: Values) -> Result<(), Stop> {
        let line = serde_json::to_vec(&(step, values)).map_err(|e| Stop::broken(e.to_string()))?;
        let sent = self.orders.as_mut().map(|pipe| pipe.write_all(&[&line[..], b"\n"].concat()));
        // A process that is gone is noticed by its exit.
        drop(sent);
        Ok(())
    }

    /// The next line of the result pipe, waited for until the deadline.
    fn hear(&mut self, start: Instant) -> Result<Vec<u8>, Stop> {
        loop {
            self.sinks.iter_mut().for_each(drain);
            let bytes = &mut self.sinks[0].1;
            if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
                let rest = bytes.split_off(end + 1);
                let line = std::mem::replace(bytes, rest);
                if !bytes.is_empty() {
                    return Err(Stop::broken("the party handed over more than one record for a step"));
                }
                return Ok(line);
            }
            if bytes.len() > MAX_RESULT {
                return Err(Stop::broken(format!("the record is longer than {MAX_RESULT} bytes")));
            }
            if let Some(exit) = self.ended() {
                return Err(Stop::broken(format!("the party ended with {exit} and without a record{}", self.said())));
            }
            if self.pause(start) {
                return Err(self.late());
            }
        }
    }

    /// How the process ended; `None` at the deadline.
    fn wait(&mut self, start: Instant) -> Option<Exit> {
        loop {
            self.sinks.iter_mut().for_each(drain);
            if let Some(exit) = self.ended() {
                return Some(exit);
            }
            if self.pause(start) {
                return None;
            }
        }
    }

    /// How the process ended, where it has.
    fn ended(&mut self) -> Option<Exit> {
        match sys::waitpid(self.pid, libc::WNOHANG) {
            Ok((pid, status)) if pid == self.pid => {
                // Its group may still have members; the number is kept by them until they are gone.
                let _ = sys::kill(-self.pid, libc::SIGKILL);
                self.pid = 0;
                // What it wrote last is complete now.
                self.sinks.iter_mut().for_each(drain);
                Some(Exit::from_status(status))
            }
            _ => None,
        }
    }

    /// Waits until something happens; whether the deadline has passed.
    fn pause(&mut self, start: Instant) -> bool {
        let left = self.deadline.saturating_sub(start.elapsed());
        // Without pidfd_open (a filter, an old kernel) the process is looked at every other millisecond.
        let patience = if self.pidfd.is_some() { left } else { left.min(Duration::from_millis(2)) };
        let pipes = [self.sinks[0].0.as_raw_fd(), self.sinks[1].0.as_raw_fd()];
        wait_readable(&[pipes[0], pipes[1], self.pidfd.as_ref().map_or(-1, AsRawFd::as_raw_fd)], patience);
        for (n, closed) in closed(&pipes).into_iter().enumerate() {
            if closed {
                drain(&mut self.sinks[n]);
                // A closed pipe would be readable for ever; the process's end is still awaited.
                self.sinks[n].0 = placeholder();
            }
        }
        left.is_zero()
    }

    fn late(&self) -> Stop {
        Stop::broken(format!("the deadline of {} ms passed{}", self.deadline.as_millis(), self.said()))
    }

    /// What the process printed, for a broken record.
    fn said(&self) -> String {
        match String::from_utf8_lossy(&self.sinks[1].1).trim() {
            "" => String::new(),
            text => format!("; it printed: {text}"),
        }
    }
}

fn sinks(result: File, output: File) -> [Sink; 2] {
    [(result, Vec::new(), MAX_RESULT + 1), (output, Vec::new(), MAX_OUTPUT)]
}

fn understand(step: usize, line: &[u8]) -> Result<Played, Stop> {
    let played: Played = serde_json::from_slice(line)
        .map_err(|_| Stop::broken(format!("the record cannot be read: {}", excerpt(line))))?;
    if played.step != step {
        return Err(Stop::broken(format!("the record is of step {}, not of step {step}", played.step)));
    }
    if !played.values.are_bounded() {
        return Err(Stop::broken("the party handed over more or longer values than may travel"));
    }
    Ok(played)
}

/// The actor's process: streams and limits, then a step for each order, until there are no more.
fn play(part: &Part, keeper: libc::pid_t, orders: OwnedFd, result: OwnedFd, output: OwnedFd) -> ! {
    let Ok(mut pipe) = prepare(keeper, Some(orders), result, output) else { sys::exit_now(70) };
    let (run, tag) = (part.bench.run.clone(), part.bench.tag);
    let place = Place { run, index: u32::try_from(part.index).unwrap_or(u32::MAX), tag, fresh: false };
    let mut cx = Context::of_party(place, part.party);
    // Not the library's handle: the agent, from which this process was forked, holds its lock.
    // SAFETY: the descriptor was put there by `prepare`, and nothing else owns it.
    let orders = BufReader::new(unsafe { File::from_raw_fd(0) });
    for line in orders.lines() {
        let order: Option<(usize, Values)> = line.ok().and_then(|line| serde_json::from_str(&line).ok());
        let Some((step, mut values)) = order else { break };
        let result = match part.scenario.steps.get(step).map(|step| step.act) {
            Some(Act::Run(run)) => std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut cx, &mut values)))
                .unwrap_or_else(|cause| Err(Stop::broken(format!("panic: {}", panic_text(&*cause))))),
            _ => Err(Stop::broken(format!("step {step} is not one for an actor"))),
        };
        let sent = serde_json::to_vec(&Played { step, result, values });
        if !sent.is_ok_and(|line| pipe.write_all(&[&line[..], b"\n"].concat()).is_ok()) {
            sys::exit_now(1);
        }
    }
    drop(cx);
    sys::exit_now(0)
}
