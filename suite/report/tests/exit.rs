//! The exit code and the order of precedence.

mod common;

use common::{blocked, broken, cell, fail, pass, report, skip};
use shmcheck_protocol::{Cell, Report, Result};
use shmcheck_report::{Demands, exit};

fn of(results: Vec<Result>) -> Report {
    report(vec![cell("host", None, results)], 1, 0)
}

fn missing(name: &str) -> Cell {
    Cell { missing: Some("no such engine".into()), ..cell(name, None, Vec::new()) }
}

fn code(report: &Report) -> i32 {
    exit::exit_code(report, Demands::default())
}

fn against(before: &Report, after: &Report) -> i32 {
    exit::exit_code(after, Demands { baseline: Some(before), ..Demands::default() })
}

#[test]
fn one_reason() {
    assert_eq!(code(&of(vec![pass("a.b.c"), skip("a.b.d", "swap", "no swap space")])), exit::OK);
    assert_eq!(code(&of(vec![fail("a.b.c", "x", "0", "1")])), exit::UNEXPECTED);
    assert_eq!(code(&of(vec![blocked("a.b.c", "shmget", "EPERM", false)])), exit::UNEXPECTED);
    assert_eq!(code(&of(vec![Result { as_expected: false, ..pass("a.b.c") }])), exit::UNEXPECTED);
    assert_eq!(code(&of(vec![broken("a.b.c", "hang")])), exit::BROKEN);
    let mut left = of(vec![pass("a.b.c")]);
    left.cells[0].leftovers.push("/dev/shm/x".into());
    assert_eq!(code(&left), exit::BROKEN);
    assert_eq!(code(&Report { interrupted: true, ..of(vec![pass("a.b.c")]) }), exit::INTERRUPTED);
}

#[test]
fn nothing_ran_is_never_well() {
    assert_eq!(code(&of(Vec::new())), exit::MISSING);
    assert_eq!(code(&report(Vec::new(), 1, 0)), exit::MISSING);
    assert_eq!(code(&report(vec![missing("docker")], 1, 0)), exit::MISSING);
}

#[test]
fn a_missing_environment_counts_where_it_is_required() {
    let both = report(vec![cell("host", None, vec![pass("a.b.c")]), missing("docker")], 1, 0);
    assert_eq!(code(&both), exit::OK);
    let require = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        exit::ending(&both, Demands { environments: &names, ..Demands::default() })
    };
    assert_eq!(require(&["host"]).code, exit::OK);
    assert_eq!(require(&["docker"]).code, exit::MISSING);
    assert_eq!(require(&["podman"]).reasons, ["required environment podman is not in the run"]);
}

#[test]
fn required_needs() {
    let run = of(vec![
        skip("a.b.c", "hugepages:1x2048kB", "0 free"),
        skip("a.b.d", "swap", "no swap space"),
        blocked("a.b.e", "shmget", "EPERM", true),
    ]);
    let require = |need: &str| exit::exit_code(&run, Demands { needs: &[need.to_owned()], ..Demands::default() });
    for need in ["hugepages", "hugepages:1x2048kB", "swap", "call:shmget", "call"] {
        assert_eq!(require(need), exit::NOT_RUN, "{need}");
    }
    for need in ["huge", "hugepages:2x2048kB", "nodes", "call:shmat", "shmget"] {
        assert_eq!(require(need), exit::OK, "{need}");
    }
}

#[test]
fn the_baseline_answers_for_what_it_knows() {
    let old = of(vec![fail("a.b.c", "x", "0", "1"), pass("a.b.d"), broken("a.b.e", "hang")]);
    assert_eq!(against(&old, &old), exit::OK);
    let worse = of(vec![fail("a.b.c", "x", "0", "1"), fail("a.b.d", "x", "0", "1")]);
    assert_eq!(against(&old, &worse), exit::WORSE);
    let lost = of(vec![pass("a.b.c"), skip("a.b.d", "swap", "none")]);
    assert_eq!(against(&old, &lost), exit::WORSE);
    let better = of(vec![pass("a.b.c"), pass("a.b.d"), fail("a.b.e", "x", "0", "1")]);
    assert_eq!(against(&old, &better), exit::OK);
    let new = of(vec![pass("a.b.d"), fail("a.b.new", "x", "0", "1")]);
    assert_eq!(against(&old, &new), exit::UNEXPECTED);
    let gone = report(vec![missing("host"), cell("sandbox", None, vec![pass("a.b.c")])], 1, 0);
    assert_eq!(against(&old, &gone), exit::WORSE);
}

#[test]
fn precedence() {
    let old = of(vec![pass("a.b.c")]);
    let mut run = of(vec![
        fail("a.b.c", "x", "0", "1"),
        broken("a.b.d", "hang"),
        fail("a.b.e", "x", "0", "1"),
        skip("a.b.f", "swap", "no swap space"),
    ]);
    run.interrupted = true;
    let (environments, needs) = (["docker".to_owned()], ["swap".to_owned()]);
    let mut demands = Demands { environments: &environments, needs: &needs, baseline: Some(&old) };
    let mut seen = vec![exit::exit_code(&run, demands)];
    run.interrupted = false;
    seen.push(exit::exit_code(&run, demands));
    demands.environments = &[];
    seen.push(exit::exit_code(&run, demands));
    run.cells[0].results.remove(1);
    seen.push(exit::exit_code(&run, demands));
    run.cells[0].results.remove(1);
    seen.push(exit::exit_code(&run, demands));
    run.cells[0].results.remove(0);
    seen.push(exit::exit_code(&run, demands));
    run.cells[0].results[0] = pass("a.b.f");
    seen.push(exit::exit_code(&run, demands));
    assert_eq!(seen, [130, 103, 101, 100, 104, 102, 0]);
}

#[test]
fn every_code_has_its_words() {
    for code in [0, 1, 2, 4, 100, 101, 102, 103, 104, 130] {
        assert_ne!(exit::meaning(code), exit::meaning(77), "{code}");
    }
}
