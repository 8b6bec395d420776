//! The two streams of a started agent: requests in, events out, each line bounded and validated.

use crate::launch::{Launch, expression};
use shmcheck_protocol::{Event, MAX_LINE, Request};
use std::io::{BufRead, BufReader, PipeWriter, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How much of an environment's standard error is kept: its end says why it could not start.
const MAX_STDERR: usize = 16 << 10;

/// A running agent.
#[derive(Debug)]
pub struct Session {
    requests: Option<PipeWriter>,
    lines: Receiver<Line>,
    stderr: Arc<Mutex<Vec<u8>>>,
    child: duct::Handle,
    stderr_reader: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Line {
    Event(Box<Event>),
    Rubbish(String),
}

/// What came of waiting for an event.
#[derive(Debug)]
pub enum Heard {
    /// An event.
    Event(Box<Event>),
    /// A line that is no event: the text of what is wrong with it.
    Rubbish(String),
    /// The agent's output has ended.
    Ended,
    /// Nothing within the time.
    Silence,
}

impl Session {
    /// Starts a launch's command line as the agent.
    pub fn start(launch: &Launch) -> std::io::Result<Self> {
        let (stdin_read, stdin_write) = std::io::pipe()?;
        let (stdout_read, stdout_write) = std::io::pipe()?;
        let (stderr_read, stderr_write) = std::io::pipe()?;
        let command = expression(&launch.program, &launch.args, &launch.env, launch.user)
            .stdin_file(stdin_read)
            .stdout_file(stdout_write)
            .stderr_file(stderr_write)
            .unchecked();
        let child = command.start()?;
        drop(command);
        let (sender, lines) = sync_channel(256);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout_read);
            while let Ok(Some(bytes)) = read_line(&mut reader) {
                let line = parse(&bytes);
                let hopeless = matches!(line, Line::Rubbish(_));
                // After rubbish the stream cannot be trusted to be in step; nothing more is read from it.
                if sender.send(line).is_err() || hopeless {
                    break;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&stderr);
        let stderr_reader = std::thread::spawn(move || keep_tail(stderr_read, &kept));
        Ok(Self { requests: Some(stdin_write), lines, stderr, child, stderr_reader: Some(stderr_reader) })
    }

    /// Sends a request.
    pub fn send(&mut self, request: &Request) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        match &mut self.requests {
            Some(pipe) => pipe.write_all(&line),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// The next event, waited for at most `patience`.
    pub fn hear(&self, patience: Duration) -> Heard {
        match self.lines.recv_timeout(patience) {
            Ok(Line::Event(event)) => Heard::Event(event),
            Ok(Line::Rubbish(problem)) => Heard::Rubbish(problem),
            Err(RecvTimeoutError::Timeout) => Heard::Silence,
            Err(RecvTimeoutError::Disconnected) => Heard::Ended,
        }
    }

    /// The end of what the environment said on standard error.
    pub fn stderr(&self) -> String {
        let bytes = self.stderr.lock().map(|bytes| bytes.clone()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    /// Ends the agent: its input is closed; what has not ended within `patience` is killed. The exit code, where it
    /// ended by itself.
    pub fn end(mut self, patience: Duration) -> Option<i32> {
        self.requests = None;
        self.end_within(patience)
    }

    fn end_within(&mut self, patience: Duration) -> Option<i32> {
        let start = Instant::now();
        let mut pause = Duration::from_micros(200);
        loop {
            match self.child.try_wait() {
                Ok(Some(output)) => return self.finish(output.status.code()),
                Ok(None) if start.elapsed() < patience => {
                    // An agent that is told to end does so within a millisecond; an engine's client takes longer.
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(10));
                }
                _ => break,
            }
        }
        let _ = self.child.kill();
        self.finish(None)
    }

    /// Ends the agent; its exit code and its last words, complete.
    pub fn end_with_words(mut self, patience: Duration) -> (Option<i32>, String) {
        let words = Arc::clone(&self.stderr);
        self.requests = None;
        let code = self.end_within(patience);
        let bytes = words.lock().map(|bytes| bytes.clone()).unwrap_or_default();
        (code, String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// Leaves the agent: nobody reads it any more, so it begins nothing new and ends with the probes under way, which
    /// take along what they made. What has not ended within `patience` is killed.
    pub fn leave(mut self, patience: Duration) -> Option<i32> {
        self.requests = None;
        // The reader ends with the receiver, and the pipe with the reader.
        self.lines = sync_channel(0).1;
        self.end_within(patience)
    }

    /// Ends the agent at once.
    pub fn kill(self) {
        let _ = self.child.kill();
    }

    fn finish(&mut self, code: Option<i32>) -> Option<i32> {
        if code != Some(0)
            && let Some(reader) = self.stderr_reader.take()
        {
            // The last words are complete when the writer is gone.
            let _ = reader.join();
        }
        code
    }
}

/// One line without its end; `None` at the end of the stream. A line longer than the limit is cut and so is malformed.
fn read_line(reader: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let limit = MAX_LINE as u64 + 1;
    let read = reader.by_ref().take(limit).read_until(b'\n', &mut bytes)?;
    Ok((read > 0).then_some(bytes))
}

fn parse(bytes: &[u8]) -> Line {
    if bytes.len() > MAX_LINE {
        return Line::Rubbish(format!("a line of more than {MAX_LINE} bytes"));
    }
    match serde_json::from_slice(bytes) {
        Ok(event) => Line::Event(Box::new(event)),
        Err(e) => {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
            Line::Rubbish(format!("a line that is no record: {:?} ({e})", text.trim_end()))
        }
    }
}

fn keep_tail(mut pipe: impl Read, kept: &Mutex<Vec<u8>>) {
    let mut chunk = [0; 4096];
    while let Ok(n) = pipe.read(&mut chunk) {
        if n == 0 {
            break;
        }
        if let Ok(mut bytes) = kept.lock() {
            bytes.extend_from_slice(&chunk[..n]);
            let surplus = bytes.len().saturating_sub(MAX_STDERR);
            bytes.drain(..surplus);
        }
    }
}
