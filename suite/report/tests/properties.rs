//! What holds of every format whatever the text under test: the reader is not led astray.

mod common;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use shmcheck_protocol::{Cell, Detail, Expected, Report, Result, Verdict};
use shmcheck_report::{Diff, Human, Ndjson, RunEvent, Style, Texts, exit, html, json, junit, markdown, tap};
use textwrap::core::display_width;

/// Any text, more often than not with characters that mean something to some reader.
fn text() -> impl Strategy<Value = String> {
    let sharp = prop::sample::select(vec![
        "\u{1b}[31m",
        "\n",
        "\r\n",
        "\t",
        "\0",
        "]]>",
        "</script>",
        "#",
        "\\",
        "'",
        "\"",
        "&",
        "`",
        "``",
        "|",
        "::error::",
        "##[error]",
        "---",
        "...",
        "ok 1",
        "漢",
        "\u{202e}",
        "\u{85}",
        "\u{fffe}",
        "e\u{301}",
        " ",
        "wordwordword",
    ]);
    prop_oneof![
        vec(sharp, 0..12).prop_map(|parts| parts.concat()),
        any::<String>(),
        "[ -~]{0,200}",
        "[a-z]{1,6}(\\.[a-z-]{1,9}){2}"
    ]
}

fn result() -> impl Strategy<Value = Result> {
    let outcome =
        prop::sample::select(vec![Verdict::Pass, Verdict::Fail, Verdict::Skip, Verdict::Blocked, Verdict::Broken]);
    let expected = prop::sample::select(vec![Expected::Pass, Expected::Blocked, Expected::Deviation]);
    let detail = vec(option::of(text()), 8).prop_map(|mut members| {
        let mut next = || members.pop().flatten();
        let (call, wanted, got, need) = (next(), next(), next(), next());
        Detail { call, wanted, got, need, found: next(), layer: next(), errno: next(), message: next() }
    });
    (text(), outcome, expected, any::<bool>(), text(), any::<u64>(), detail).prop_map(
        |(id, outcome, expected, as_expected, because, duration_us, detail)| Result {
            id,
            outcome,
            expected,
            as_expected,
            because,
            duration_us,
            detail,
        },
    )
}

fn cell() -> impl Strategy<Value = Cell> {
    let facts = option::of(text().prop_map(|release| {
        let mut facts = common::facts(0, 64 << 20, true, false);
        facts.cell.dev_shm.refused = Some(release.clone());
        facts.kernel.release = release;
        facts
    }));
    (text(), facts, vec(result(), 0..6), vec(text(), 0..3), option::of(text()), any::<u64>()).prop_map(
        |(name, facts, results, leftovers, missing, wall_ms)| Cell {
            leftovers,
            missing,
            wall_ms,
            ..common::cell(&name, facts, results)
        },
    )
}

fn report() -> impl Strategy<Value = Report> {
    let code = prop::sample::select(exit::CODES.iter().map(|(code, _)| *code).collect::<Vec<_>>());
    (vec(cell(), 0..4), code, any::<bool>(), text()).prop_map(|(cells, code, interrupted, host)| Report {
        interrupted,
        host,
        ..common::report(cells, 6, code)
    })
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).expect("a vector can be written to");
    String::from_utf8(out).expect("every format is UTF-8")
}

/// Text within a line that was escaped for TAP: whether a `#` begins a directive in it.
fn directives(line: &str) -> usize {
    let mut escaped = false;
    let mut found = 0;
    for c in line.chars() {
        found += usize::from(c == '#' && !escaped);
        escaped = c == '\\' && !escaped;
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_is_read_back(report in report()) {
        let text = written(|out| json::write(&report, out));
        prop_assert_eq!(json::read(text.as_bytes()), Ok(report));
    }

    #[test]
    fn rubbish_is_refused_without_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(json::read(&bytes).is_err());
    }

    #[test]
    fn an_event_is_one_line(report in report()) {
        let mut stream = Ndjson::new(Vec::new());
        for event in RunEvent::of(&report) {
            stream.event(&event).expect("a vector can be written to");
        }
        let stream = String::from_utf8(stream.into_inner()).expect("JSON is UTF-8");
        prop_assert_eq!(stream.lines().count(), RunEvent::of(&report).count());
        for (line, event) in stream.split_terminator('\n').zip(RunEvent::of(&report)) {
            prop_assert_eq!(serde_json::from_str::<RunEvent>(line).expect("a line is an event"), event);
        }
    }

    #[test]
    fn junit_is_xml_with_a_case_per_result(report in report()) {
        let xml = written(|out| junit::write(&report, &Texts::new(), out));
        let document = roxmltree::Document::parse(&xml).map_err(|e| TestCaseError::fail(format!("{e}: {xml}")))?;
        let cases = document.descendants().filter(|node| node.has_tag_name("testcase")).count();
        let extra = |cell: &Cell| usize::from(cell.missing.is_some()) + usize::from(!cell.leftovers.is_empty());
        prop_assert_eq!(cases, report.cells.iter().map(|cell| cell.results.len() + extra(cell)).sum::<usize>());
    }

    #[test]
    fn tap_lines_are_what_they_say(report in report()) {
        let tap = written(|out| tap::write(&report, &Texts::new(), out));
        let mut diagnostics = false;
        for line in tap.split_terminator('\n') {
            prop_assert!(!line.chars().any(char::is_control), "{:?}", line);
            let bare = line.trim_start_matches(' ');
            if diagnostics {
                diagnostics = bare != "...";
                continue;
            }
            diagnostics = bare == "---";
            let test = bare.starts_with("ok ") || bare.starts_with("not ok ");
            let known = test || diagnostics || bare.starts_with("1..") || bare == "TAP version 14"
                || bare.starts_with("# Subtest: ") || bare.starts_with("Bail out! ");
            prop_assert!(known, "{:?}", line);
            let allowed = usize::from(bare.contains(" # SKIP") || bare.contains(" # TODO"));
            if test {
                prop_assert_eq!(directives(bare), allowed, "{:?}", line);
            }
        }
        prop_assert!(!diagnostics);
    }

    #[test]
    fn a_terminal_obeys_nothing_and_is_wide_enough(report in report(), verbose in any::<bool>()) {
        let mut human = Human::new(Vec::new(), Style::plain(), Texts::new(), verbose);
        for cell in &report.cells {
            human.cell(cell).expect("a vector can be written to");
        }
        human.finish(&report, &exit::ending(&report, Default::default()).reasons).expect("a vector can be written to");
        let mut shown = String::from_utf8(human.into_inner()).expect("it writes text");
        shown.push_str(&Diff::between(&common::small(), &report).to_text(Style::plain()));
        for line in shown.split_terminator('\n') {
            prop_assert!(!line.chars().any(char::is_control), "{:?}", line);
            prop_assert!(!line.contains('\u{202e}'), "{:?}", line);
            prop_assert!(display_width(line) <= 80, "{}: {:?}", display_width(line), line);
            prop_assert!(!line.trim_start().starts_with("::") && !line.contains("##"), "{:?}", line);
        }
    }

    #[test]
    fn markdown_and_html_hold_no_elements_of_others(report in report()) {
        let page = written(|out| html::write(&report, &Texts::new(), out));
        prop_assert!(!page.contains("<script") && !page.contains("</script"));
        prop_assert!(!page.chars().any(|c| c.is_control() && c != '\n'));
        let summary = written(|out| markdown::write(&report, &Texts::new(), out));
        prop_assert!(!summary.chars().any(|c| c.is_control() && c != '\n'));
        for line in summary.lines().filter(|line| line.starts_with('|')) {
            prop_assert_eq!(line.matches('|').count(), 10, "{:?}", line);
        }
    }
}
