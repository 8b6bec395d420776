//! What a person sees.

mod common;

use shmcheck_protocol::Report;
use shmcheck_report::{Demands, Human, Style, Texts, exit};
use textwrap::core::display_width;

fn shown(report: &Report, texts: Texts, verbose: bool) -> String {
    let mut human = Human::new(Vec::new(), Style::plain(), texts, verbose);
    for cell in &report.cells {
        human.cell(cell).expect("a vector can be written to");
    }
    let ending = exit::ending(report, Demands::default());
    human.finish(report, &ending.reasons).expect("a vector can be written to");
    String::from_utf8(human.into_inner()).expect("it writes text")
}

fn is_tame(text: &str) {
    for line in text.lines() {
        assert!(display_width(line) <= 80, "{} columns: {line:?}", display_width(line));
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

#[test]
fn small() {
    let text = shown(&common::small(), common::texts(), false);
    is_tame(&text);
    insta::assert_snapshot!(text);
}

#[test]
fn small_verbose() {
    let text = shown(&common::small(), common::texts(), true);
    is_tame(&text);
    insta::assert_snapshot!(text);
}

#[test]
fn hostile() {
    let text = shown(&common::hostile(), Texts::new(), false);
    is_tame(&text);
    insta::assert_snapshot!(text);
}

#[test]
fn a_large_run_stays_readable() {
    let text = shown(&common::big(), Texts::new(), false);
    is_tame(&text);
    assert!(text.lines().count() < 400, "{} lines", text.lines().count());
    insta::assert_snapshot!(text);
}

#[test]
fn a_ruin_stays_readable() {
    let mut report = common::big();
    for cell in &mut report.cells {
        let name = cell.environment.clone();
        cell.results.iter_mut().for_each(|result| *result = common::broken(&result.id, &name));
        cell.leftovers = (0..1_000).map(|n| format!("/dev/shm/x{n}")).collect();
    }
    let text = shown(&report, Texts::new(), false);
    is_tame(&text);
    assert!(text.lines().count() < 600, "{} lines", text.lines().count());
    assert!(text.contains("(120 in short and 5456 left out: "), "{text}");
}

#[test]
fn all_is_well() {
    let report = common::report(
        vec![common::cell("host", Some(common::facts(0, 1 << 30, false, true)), vec![common::pass("a.b.c")])],
        1,
        0,
    );
    insta::assert_snapshot!(shown(&report, Texts::new(), false));
}

#[test]
fn colours_only_where_wanted() {
    let mut human = Human::new(Vec::new(), Style::new(true), Texts::new(), false);
    human.cell(&common::small().cells[1]).expect("a vector can be written to");
    let text = String::from_utf8(human.into_inner()).expect("it writes text");
    assert!(text.contains("\u{1b}[1m\u{1b}[31mFAIL\u{1b}[0m"), "{text:?}");
}

#[test]
fn explain() {
    insta::assert_snapshot!(shmcheck_report::explain(&common::texts()["posix.shm.truncate.enospc"]));
}
