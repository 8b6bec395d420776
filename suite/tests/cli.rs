//! The command line as its users see it: words, exit codes, closed pipes, interrupts.

mod support;

use snapbox::cmd::Command;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

fn shmcheck() -> Command {
    Command::new(support::program()).env("NO_COLOR", "1")
}

fn start(args: &[&str]) -> Child {
    std::process::Command::new(support::program())
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// Output and exit code of what is said to wrong and to right words. `TRYCMD=overwrite` records them anew.
#[test]
fn words_and_exit_codes() {
    trycmd::TestCases::new()
        .register_bin("shmcheck", support::program())
        .env("NO_COLOR", "1")
        .case("../tests/cli/*.trycmd");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let matrix: &[&[&str]] = &[
        &["list", "--format", "json"],
        &["schema"],
        &["run", "--no-progress", "--format", "ndjson", "--on", "host"],
        &["run", "--no-progress", "--format", "junit", "--on", "host"],
        &["explain"],
    ];
    for args in matrix {
        let mut child = start(args);
        let mut line = String::new();
        let mut reader = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        reader.read_line(&mut line).expect("a first line comes");
        drop(reader);
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("panicked") && !said.contains("failed"), "{args:?} said {said}");
        assert!(matches!(output.status.code(), Some(0 | 130)), "{args:?} ended with {:?}", output.status);
    }
}

#[test]
fn an_interrupt_ends_in_order_with_130() {
    let mut child = start(&["run", "--format", "ndjson", "--on", "host", "--jobs", "1"]);
    let mut reader = BufReader::new(child.stdout.take().expect("its output is a pipe"));
    let mut line = String::new();
    // The run is under way when its second event comes.
    for _ in 0..3 {
        line.clear();
        reader.read_line(&mut line).expect("an event comes");
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid fits"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("the signal is sent");
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("the events are text");
    let output = child.wait_with_output().expect("it ends");
    let last = rest.lines().last().unwrap_or_default();
    assert!(last.contains("\"event\":\"run_finished\""), "the last event is {last}");
    // A run that was over before the signal came is as good as any.
    assert!(matches!(output.status.code(), Some(0 | 130)), "{:?}", output.status);
}

#[test]
fn reports_of_one_run_agree() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let json = path("run.json");
    let targets = [
        ("json", "run.json"),
        ("junit", "run.xml"),
        ("tap", "run.tap"),
        ("html", "run.html"),
        ("ndjson", "run.ndjson"),
        ("markdown", "run.md"),
    ];
    let mut command = shmcheck().args(["run", "sysv.shm.get.*", "--on", "host", "--no-progress"]);
    for (format, file) in targets {
        command = command.args(["--report", &format!("{format}={}", path(file))]);
    }
    command.assert().success();
    for (_, file) in targets {
        let text = std::fs::read_to_string(path(file)).expect("the report was written");
        // The summary for a CI job names only what is unexpected.
        let word = if file == "run.md" { "all as expected" } else { "sysv.shm.get.excl-eexist" };
        assert!(text.contains(word), "{file} lacks {word}");
    }
    shmcheck().args(["diff", &json, &json]).assert().success();
    shmcheck().args(["report", &json, "--to", "tap"]).assert().success();
    shmcheck().args(["run", "sysv.shm.get.*", "--on", "host", "--no-progress", "--baseline", &json]).assert().success();
    std::fs::write(path("broken.json"), "{\"schema_version\": 1, \"cells\": 7}").expect("a file can be written");
    shmcheck().args(["report", &path("broken.json"), "--to", "html"]).assert().code(2);
}

/// The JSON report is of the schema that the program prints: members and no others are required.
#[test]
fn list_in_json_has_calls_and_errnos() {
    let output = shmcheck().args(["list", "--format", "json"]).output().expect("it runs");
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let listed = listed.as_array().expect("it is a list");
    assert_eq!(listed.len(), shmcheck_probes::catalogue().len());
    let provokes = |probe: &serde_json::Value| probe["provokes"].as_array().is_some_and(|pairs| !pairs.is_empty());
    assert!(listed.iter().any(provokes), "no probe names an errno");
    assert!(listed.iter().any(|probe| probe["calls"][0] == "shmget"), "no probe names shmget");
}

/// The reference is whole: each chapter has a page, each probe one entry in it, and the index leads to every page.
#[test]
fn every_probe_is_in_the_reference_once() {
    let page = |words: &[&str]| {
        let output = shmcheck().args(["explain", "--format", "markdown"]).args(words).output().expect("it runs");
        assert!(output.status.success(), "explain {words:?}");
        String::from_utf8(output.stdout).expect("Markdown is text")
    };
    let index = page(&[]);
    for chapter in shmcheck_probes::CHAPTERS {
        assert!(index.contains(&format!("({}.md)", chapter.name)), "the index lacks {}", chapter.name);
        let text = page(&[chapter.name]);
        assert!(text.starts_with("# "), "{} has no heading", chapter.name);
        for probe in chapter.probes() {
            let heading = format!("### `{}`", probe.id);
            assert_eq!(text.lines().filter(|line| *line == heading).count(), 1, "{}", probe.id);
        }
        let entries = text.lines().filter(|line| line.starts_with("### ")).count();
        assert_eq!(entries, chapter.probes().count(), "{} has entries of no probe", chapter.name);
        for line in text.lines().filter(|line| line.starts_with('|')) {
            assert_eq!(line.matches('|').count() - line.matches("\\|").count(), 4, "{}: {line}", chapter.name);
        }
    }
}
