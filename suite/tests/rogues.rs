//! Rogue probes show each rule of agent and runner: whatever a probe does, the record says so and the others go on.
//!
//! This target is its own agent: the runner starts it with `agent`, and it serves the rogues instead of the catalogue.

mod support;

use libtest_mimic::{Arguments, Failed, Trial};
use shmcheck_probe::peer::Handover;
use shmcheck_probe::{Context, Isolate, Outcome, Probe, Verdict, sys};
use shmcheck_protocol::{Cell, Event};
use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A rogue, and the words that its broken record must have.
struct Rogue {
    probe: Probe,
    says: &'static str,
}

const fn rogue(id: &'static str, says: &'static str, run: fn(&mut Context) -> Outcome) -> Rogue {
    Rogue { probe: Probe { isolate: Isolate::Cell, ..Probe::new(id, run) }, says }
}

const fn rogue_alone(id: &'static str, says: &'static str, run: fn(&mut Context) -> Outcome) -> Rogue {
    Rogue { probe: Probe { isolate: Isolate::CellAlone, ..Probe::new(id, run) }, says }
}

static ROGUES: [Rogue; 17] = [
    rogue("rogue.hang", "the deadline of 1500 ms passed", |_| {
        loop {
            std::thread::park();
        }
    }),
    rogue("rogue.spin-ignoring-sigterm", "the deadline of 1500 ms passed", |_| {
        // SAFETY: SIG_IGN is a valid disposition.
        unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
        loop {
            std::hint::spin_loop();
        }
    }),
    rogue("rogue.abort", "died by SIGABRT", |_| std::process::abort()),
    rogue("rogue.panic", "panic: out of my depth", |_| panic!("out of my depth")),
    rogue("rogue.sigbus", "died by SIGBUS", |_| {
        // SAFETY: the name is a C string.
        let fd = sys::ret("memfd_create", unsafe { libc::memfd_create(c"rogue".as_ptr(), 0) })?;
        let flags = libc::PROT_READ | libc::PROT_WRITE;
        shmcheck_probe::Map::new(sys::page_size(), flags, libc::MAP_SHARED, fd)?.write(0, 1);
        Ok(())
    }),
    rogue("rogue.sigsegv", "died by SIGSEGV", |_| {
        let map =
            shmcheck_probe::Map::new(sys::page_size(), libc::PROT_NONE, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1)?;
        map.write(0, 1);
        Ok(())
    }),
    rogue("rogue.stack-overflow", "died by SIG", |_| {
        fn deeper(depth: u64) -> u64 {
            let block = std::hint::black_box([depth; 512]);
            if depth == u64::MAX { 0 } else { deeper(depth + 1) + block[7] }
        }
        std::hint::black_box(deeper(0));
        Ok(())
    }),
    rogue("rogue.exit-quietly", "without a record", |_| sys::exit_now(0)),
    rogue("rogue.exit-with-words", "it printed: goodbye", |_| {
        println!("goodbye");
        sys::exit_now(3)
    }),
    rogue("rogue.fork-and-exit", "left processes running", |cx| {
        let away = cx.gate()?;
        if sys::fork()? == 0 {
            // Out of the probe's group, and its parent is about to end: only the reaper can find it.
            let _ = nix::unistd::setsid();
            let _ = away.open();
            loop {
                std::thread::park();
            }
        }
        away.pass()
    }),
    rogue("rogue.closed-streams", "without a record", |_| {
        for fd in 0..1100 {
            let _ = sys::close(fd);
        }
        Ok(())
    }),
    rogue("rogue.two-records", "more than one record", |cx| {
        send(&record(cx, "rogue.two-records"));
        Ok(())
    }),
    rogue("rogue.foreign-record", "the record is of rogue.sane", |cx| {
        send(&record(cx, "rogue.sane"));
        sys::exit_now(0)
    }),
    rogue("rogue.malformed-record", "the record cannot be read", |_| {
        send(b"{\"id\": \"rogue.malformed-record\", \"result\": maybe}");
        sys::exit_now(0)
    }),
    rogue("rogue.gigantic-record", "longer than", |_| {
        let chunk = vec![b'x'; 1 << 16];
        for _ in 0..64 {
            send(&chunk);
        }
        sys::exit_now(0)
    }),
    rogue_alone("rogue.leaves-segment", "left behind: System V shm", |cx| {
        let key = cx.fresh_key();
        cx.segment(key, 4096, 0o600)?.disown();
        Ok(())
    }),
    rogue_alone("rogue.leaves-name", "left behind: /dev/shm/shmcheck", |cx| {
        std::fs::write(format!("/dev/shm{}", cx.fresh_name()), "x")?;
        Ok(())
    }),
];

/// Runs between and after the rogues: it must pass.
static SANE: Probe = Probe { isolate: Isolate::Cell, ..Probe::new("rogue.sane", |_| Ok(())) };

fn record(_cx: &Context, id: &str) -> Vec<u8> {
    serde_json::to_vec(&Handover { id: id.to_owned(), result: Ok(()) }).unwrap_or_default()
}

/// Writes to every descriptor that could be the record's pipe.
fn send(bytes: &[u8]) {
    for fd in 3..1100 {
        let _ = nix::unistd::write(unsafe_borrow(fd), bytes);
    }
}

fn unsafe_borrow(fd: i32) -> std::os::fd::BorrowedFd<'static> {
    // SAFETY: a number that is no descriptor gives EBADF, which the caller ignores; none is closed.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) }
}

fn catalogue() -> Vec<&'static Probe> {
    ROGUES.iter().map(|rogue| &rogue.probe).chain([&SANE]).collect()
}

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("agent") => {
            if let Ok(kind) = std::env::var("SHMCHECK_TEST_AGENT") {
                rogue_agent(&kind);
            } else {
                let options = shmcheck_agent::Options { shared_ipc: true };
                let _ = shmcheck_agent::serve(
                    &catalogue(),
                    &[],
                    options,
                    std::io::stdin().lock(),
                    std::io::stdout().lock(),
                );
            }
            ExitCode::SUCCESS
        }
        _ => tests(),
    }
}

fn tests() -> ExitCode {
    let arguments = Arguments::from_args();
    let cell: Arc<OnceLock<Cell>> = Arc::default();
    let mut trials: Vec<Trial> = ROGUES
        .iter()
        .map(|rogue| {
            let cell = Arc::clone(&cell);
            Trial::test(rogue.probe.id, move || is_broken(rogues(&cell), rogue.probe.id, rogue.says))
        })
        .collect();
    let shared = Arc::clone(&cell);
    trials.push(Trial::test("rogue.others-go-on", move || {
        let result = rogues(&shared).results.iter().find(|result| result.id == SANE.id);
        match result.map(|result| result.outcome) {
            Some(Verdict::Pass) => Ok(()),
            other => Err(Failed::from(format!("the sane probe has {other:?}"))),
        }
    }));
    let shared = Arc::clone(&cell);
    trials.push(Trial::test("rogue.leftovers-are-counted", move || {
        let left = &rogues(&shared).leftovers;
        let has = |word: &str| left.iter().any(|thing| thing.contains(word));
        if has("System V shm") && has("/dev/shm/") { Ok(()) } else { Err(Failed::from(format!("{left:?}"))) }
    }));
    for (kind, says) in AGENTS {
        trials.push(Trial::test(format!("agent.{kind}"), move || agent_is_broken(kind, says)));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn rogues(cell: &OnceLock<Cell>) -> &Cell {
    cell.get_or_init(|| {
        let cell = run(None);
        // What the rogues left is removed by what users would call: the run's journal is gone, so by hand here.
        for thing in &cell.leftovers {
            if let Some(id) =
                thing.strip_prefix("System V shm id ").and_then(|rest| rest.split(' ').next()?.parse().ok())
            {
                let _ = sys::shm_remove(id);
            } else if thing.starts_with("/dev/shm/shmcheck.") {
                let _ = std::fs::remove_file(thing);
            }
        }
        cell
    })
}

fn run(agent: Option<&str>) -> Cell {
    let exe = std::env::current_exe().expect("this program has a file");
    // The environment is inherited by the agent; tests that set it run one after the other.
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock();
    match agent {
        // SAFETY: no other thread of this program reads or writes the environment meanwhile: the lock is held.
        Some(kind) => unsafe { std::env::set_var("SHMCHECK_TEST_AGENT", kind) },
        // SAFETY: as above.
        None => unsafe { std::env::remove_var("SHMCHECK_TEST_AGENT") },
    }
    support::run_with("host", catalogue(), exe, Duration::from_millis(1500))
}

fn is_broken(cell: &Cell, id: &str, says: &str) -> Result<(), Failed> {
    let result = cell.results.iter().find(|result| result.id == id).ok_or("no result")?;
    let message = result.detail.message.clone().unwrap_or_default();
    if result.outcome == Verdict::Broken && !result.as_expected && message.contains(says) {
        return Ok(());
    }
    Err(Failed::from(format!("wanted broken with {says:?}, got {} with {message:?}", result.outcome)))
}

// ---- rogue agents: what an image under test may put in the agent's place -------------------------------------------

/// What the agent does, and what every probe's broken record, or the missing cell, must say.
const AGENTS: &[(&str, &str)] = &[
    ("silent-exit", "ended with code 7"),
    ("last-words", "no such file: libmissing.so"),
    ("rubbish", "a line that is no record"),
    ("endless-line", "a line of more than"),
    ("no-facts", "did not begin with its facts"),
    ("wrong-shape", "a line that is no record"),
    ("stops-after-facts", "ended before this probe's record"),
    ("done-at-once", "left this record out"),
    ("second-record", "a second record of rogue.hang"),
    ("unknown-probe", "which nobody asked for"),
    ("complains", "cannot go on: out of paper"),
];

fn rogue_agent(kind: &str) {
    let mut out = std::io::stdout().lock();
    let mut say = |event: &Event| {
        let _ = serde_json::to_writer(&mut out, event);
        let _ = out.write_all(b"\n");
        let _ = out.flush();
    };
    let facts = || Event::Facts(Box::default());
    let record = |id: &str| Event::Result(shmcheck_protocol::Record::new(id, Ok(()), 1));
    let wait = || drop(std::io::stdin().lock().read(&mut [0; 1]));
    match kind {
        "silent-exit" => std::process::exit(7),
        "last-words" => {
            eprintln!("no such file: libmissing.so");
            std::process::exit(1);
        }
        "rubbish" => println!("Welcome to this image!"),
        "endless-line" => {
            let chunk = [b'y'; 1 << 16];
            while std::io::stdout().lock().write_all(&chunk).is_ok() {}
        }
        "no-facts" => say(&Event::Done),
        "wrong-shape" => println!("{{\"event\":\"facts\",\"kernel\":7}}"),
        "stops-after-facts" => {
            say(&facts());
            wait();
        }
        "done-at-once" => {
            say(&facts());
            wait();
            say(&Event::Done);
        }
        "second-record" => {
            say(&facts());
            wait();
            say(&record("rogue.hang"));
            say(&record("rogue.hang"));
        }
        "unknown-probe" => {
            say(&facts());
            wait();
            say(&record("no.such.probe"));
        }
        "complains" => {
            say(&facts());
            wait();
            say(&Event::Error { message: "out of paper".to_owned() });
        }
        other => panic!("no rogue agent {other}"),
    }
}

fn agent_is_broken(kind: &str, says: &str) -> Result<(), Failed> {
    let cell = run(Some(kind));
    if let Some(missing) = &cell.missing {
        return if missing.contains(says) { Ok(()) } else { Err(Failed::from(format!("missing: {missing}"))) };
    }
    let told = |result: &shmcheck_protocol::Result| {
        result.outcome == Verdict::Broken && result.detail.message.as_ref().is_some_and(|text| text.contains(says))
    };
    if cell.results.iter().filter(|result| told(result)).count() >= ROGUES.len() {
        return Ok(());
    }
    let first = cell.results.iter().find(|result| !told(result)).map(|result| format!("{result:?}"));
    Err(Failed::from(first.unwrap_or_else(|| "too few results".to_owned())))
}
