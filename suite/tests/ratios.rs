//! `cargo bench`: what a run costs, in ratios measured side by side in one run.
//!
//! Every figure is the median of several rounds; what it is compared with runs in the same rounds, so that load and
//! machine cancel out. Nothing here is asserted: it prints.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn main() {
    // `cargo bench -- NAME` and `--bench` are cargo's words; there is one thing to do.
    let program = env!("CARGO_BIN_EXE_shmcheck");
    let size = std::fs::metadata(program).map_or(0, |meta| meta.len());
    println!("program                {:.2} MB", size as f64 / 1e6);
    let start = median(21, || time(Command::new(program).args(["agent"]).stdin(Stdio::null())));
    let nothing = median(21, || time(Command::new(program).arg("--version")));
    println!("agent, start to end    {:.1} ms (with all facts)", millis(start));
    println!("the program alone      {:.1} ms", millis(nothing));
    let host = cell(program, "host");
    println!("host cell              {:.0} ms", millis(host));
    println!("sandbox cell           {:.0} ms", millis(cell(program, "sandbox")));
    slowest(program);
    containers(program);
}

fn containers(program: &str) {
    for engine in ["docker", "podman"] {
        let image =
            format!("{engine} image ls --filter label=shmcheck=image --format {{{{.Repository}}}}:{{{{.Tag}}}}");
        // The first cell makes the image.
        let mut cells = vec![cell(program, engine)];
        let output = Command::new("sh").args(["-c", &image]).output();
        let name = output.map(|o| String::from_utf8_lossy(&o.stdout).lines().next().unwrap_or("").to_owned());
        let Some(name) = name.ok().filter(|name| !name.is_empty()) else {
            println!("{engine:<22} not here");
            continue;
        };
        let mut bare = Vec::new();
        cells.clear();
        for _ in 0..7 {
            let run = ["run", "--rm", "--network", "none", "--log-driver", "none", &name, "/shmcheck", "--version"];
            bare.push(time(Command::new(engine).args(run)));
            cells.push(cell(program, engine));
        }
        let (bare, cell) = (middle(bare), middle(cells));
        println!(
            "{engine} cell            {:.0} ms; {engine} run of the program that does nothing {:.0} ms; cell / run = {:.2}",
            millis(cell),
            millis(bare),
            cell.as_secs_f64() / bare.as_secs_f64()
        );
    }
}

fn slowest(program: &str) {
    let output = Command::new(program).args(["run", "--on", "host", "--format", "json", "--no-progress"]).output();
    let Some(report) = output.ok().and_then(|o| serde_json::from_slice::<serde_json::Value>(&o.stdout).ok()) else {
        return;
    };
    let results = report["cells"][0]["results"].as_array().cloned().unwrap_or_default();
    let mut times: Vec<(u64, String)> = results
        .iter()
        .map(|r| (r["duration_us"].as_u64().unwrap_or(0), r["id"].as_str().unwrap_or_default().to_owned()))
        .collect();
    times.sort_by(|a, b| b.cmp(a));
    println!("slowest ten of {} on the host:", times.len());
    for (micros, id) in times.iter().take(10) {
        println!("  {:>7.1} ms  {id}", *micros as f64 / 1e3);
    }
}

fn cell(program: &str, environment: &str) -> Duration {
    time(Command::new(program).args(["run", "--on", environment, "--no-progress", "--format", "json"]))
}

fn time(command: &mut Command) -> Duration {
    let start = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !matches!(status, Ok(status) if status.success()) {
        println!("  (a command did not succeed: {})", Path::new(command.get_program()).display());
    }
    start.elapsed()
}

fn median(rounds: usize, mut measure: impl FnMut() -> Duration) -> Duration {
    middle((0..rounds).map(|_| measure()).collect())
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
