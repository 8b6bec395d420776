//! What programs read: each format over a report with every outcome and over a hostile one.

mod common;

use shmcheck_protocol::Report;
use shmcheck_report::json::ReadError;
use shmcheck_report::{Diff, Format, Ndjson, RunEvent, Style, Texts, html, json, junit, markdown, schema, tap};

fn text(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).expect("a vector can be written to");
    String::from_utf8(out).expect("every format is UTF-8")
}

fn as_json(report: &Report) -> String {
    text(|out| json::write(report, out))
}

#[test]
fn json_of_a_report() {
    let mut report = common::small();
    report.cells.truncate(2);
    report.cells[0].facts = None;
    report.cells[1].facts = None;
    insta::assert_snapshot!(as_json(&report));
}

#[test]
fn json_is_read_back() {
    for report in [common::small(), common::hostile(), common::big()] {
        assert_eq!(json::read(as_json(&report).as_bytes()), Ok(report));
    }
}

#[test]
fn errors_of_json_name_the_place() {
    let whole = as_json(&common::small());
    let read = |text: &str| json::read(text.as_bytes()).expect_err("it is no report").to_string();
    assert!(read("{\"schema_version\": 1,\n oops}").starts_with("line 2, column 2 is not JSON: "));
    assert_eq!(read("[1, 2]"), "it is no report: it has no schema_version");
    assert_eq!(read("{}"), "it is no report: it has no schema_version");
    assert_eq!(read("{\"schema_version\": 2, \"other\": []}"), "schema_version is 2, this program reads 1");
    assert_eq!(read("{\"schema_version\": \"1\"}"), "schema_version is \"1\", this program reads 1");
    let bad = whole.replacen("\"outcome\": \"skip\"", "\"outcome\": \"maybe\"", 1);
    let error = json::read(bad.as_bytes()).expect_err("there is no such outcome");
    assert!(matches!(&error, ReadError::Shape { path, .. } if path == "cells[0].results[1].outcome"), "{error}");
    assert!(error.to_string().contains("unknown variant `maybe`"), "{error}");
    let cut = &whole[..whole.len() / 2];
    assert!(matches!(json::read(cut.as_bytes()), Err(ReadError::Syntax { .. })));
}

#[test]
fn events_are_the_report() {
    let report = common::hostile();
    let mut stream = Ndjson::new(Vec::new());
    for event in RunEvent::of(&report) {
        stream.event(&event).expect("a vector can be written to");
    }
    let stream = String::from_utf8(stream.into_inner()).expect("JSON is UTF-8");
    let events: Vec<RunEvent> =
        stream.lines().map(|line| serde_json::from_str(line).expect("each line is an event")).collect();
    assert_eq!(events, RunEvent::of(&report).collect::<Vec<_>>());
    let results = events.iter().filter(|event| matches!(event, RunEvent::Result { .. })).count();
    assert_eq!(results, report.cells.iter().map(|cell| cell.results.len()).sum::<usize>());
}

#[test]
fn formats_are_found_by_name() {
    for format in Format::ALL {
        assert_eq!(format.to_string().parse(), Ok(format));
    }
    let error = "yaml".parse::<Format>().expect_err("there is none").to_string();
    assert_eq!(error, "there is no format \"yaml\", only json, ndjson, junit, tap, markdown, html");
}

#[test]
fn ndjson() {
    let mut report = common::small();
    report.cells.remove(2);
    report.cells.iter_mut().for_each(|cell| cell.facts = None);
    insta::assert_snapshot!(text(|out| Format::Ndjson.write(&report, &Texts::new(), out)));
}

#[test]
fn junit() {
    insta::assert_snapshot!(text(|out| junit::write(&common::small(), &common::texts(), out)));
}

#[test]
fn junit_counts() {
    let xml = text(|out| junit::write(&common::small(), &common::texts(), out));
    let document = roxmltree::Document::parse(&xml).expect("it is XML");
    let count = |name: &str| document.descendants().filter(|node| node.has_tag_name(name)).count();
    // Errors: the broken probe, the leftovers, the missing environment.
    assert_eq!((count("testsuite"), count("failure"), count("error"), count("skipped")), (5, 5, 3, 6));
}

#[test]
fn tap() {
    insta::assert_snapshot!(text(|out| tap::write(&common::small(), &common::texts(), out)));
}

#[test]
fn tap_of_a_hostile_report() {
    insta::assert_snapshot!(text(|out| tap::write(&short(), &Texts::new(), out)));
}

#[test]
fn markdown() {
    insta::assert_snapshot!(text(|out| markdown::write(&common::small(), &common::texts(), out)));
}

#[test]
fn markdown_of_a_hostile_report() {
    insta::assert_snapshot!(text(|out| markdown::write(&short(), &Texts::new(), out)));
}

#[test]
fn a_summary_stays_below_what_services_take() {
    for report in [common::big(), common::hostile()] {
        assert!(text(|out| markdown::write(&report, &Texts::new(), out)).len() < 1 << 20);
    }
}

#[test]
fn html() {
    insta::assert_snapshot!(text(|out| html::write(&common::small(), &common::texts(), out)));
}

#[test]
fn html_holds_nothing_but_its_own_elements() {
    const KNOWN: &str = "!doctype html head meta title style body header h1 h2 h3 p span ul li strong main section \
                         code wbr details summary dl dt dd fieldset legend label input div table thead tbody tr th td";
    let page = text(|out| html::write(&common::hostile(), &Texts::new(), out));
    for tag in page.split('<').skip(1) {
        let name: String = tag.trim_start_matches('/').chars().take_while(|c| !" >\n".contains(*c)).collect();
        assert!(KNOWN.split_whitespace().any(|known| known == name.to_lowercase()), "<{tag}");
        let inside = tag.split('>').next().unwrap_or_default();
        assert!(!inside.contains(" on"), "<{tag}");
    }
    assert!(!page.contains('\u{1b}') && !page.contains('\u{202e}'));
}

#[test]
fn schemas() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&schema::events()).expect("a schema is JSON"));
    let report = schema::report();
    let members = report["properties"].as_object().expect("a report is an object");
    let shown = serde_json::to_value(common::small()).expect("a report is JSON");
    assert!(shown.as_object().expect("a report is an object").keys().all(|key| members.contains_key(key)));
}

#[test]
fn diff() {
    let before = common::small();
    let mut after = before.clone();
    let [host, docker, gvisor, ..] = after.cells.as_mut_slice() else { panic!("the report has five cells") };
    host.results[0] = common::fail("sysv.shm.get.excl-eexist", "shmget", "EEXIST", "0");
    host.results.remove(2);
    host.results.push(common::pass("memfd.seal.new-probe"));
    docker.results[3] = common::pass("posix.shm.truncate.enospc");
    if let Some(facts) = &mut docker.facts {
        facts.cell.dev_shm.size = 1 << 30;
        facts.cell.dev_shm.free = 5;
        facts.kernel.release = "6.19.0".into();
    }
    docker.results[1].detail.errno = Some("ENOSYS".into());
    gvisor.missing = Some("runsc: not found".into());
    gvisor.results.clear();
    after.cells[4].missing = None;
    after.cells[3].environment = "sandbox:ipc=host".into();
    let diff = Diff::between(&before, &after);
    insta::assert_snapshot!(diff.to_text(Style::plain()));
    insta::assert_snapshot!(diff.worse().join("\n"));
    assert!(Diff::between(&before, &before).is_empty());
    assert_eq!(Diff::between(&before, &before).to_text(Style::plain()), "no difference\n");
}

/// The hostile report without the very long strings, which would fill the snapshots.
fn short() -> Report {
    let mut report = common::hostile();
    let long = |text: &str| text.len() > 1_000;
    report.cells.retain(|cell| !long(&cell.environment) || !cell.results.is_empty());
    for cell in &mut report.cells {
        cell.results.retain(|result| {
            let detail = &result.detail;
            !long(&result.id)
                && ![&detail.message, &detail.call, &detail.need].into_iter().flatten().any(|text| long(text))
        });
        cell.leftovers.retain(|text| !long(text));
    }
    report
}
