//! Known deviations: the files are read, they excuse what they describe and nothing else.

use proptest::prelude::*;
use shmcheck_probe::{Detail, Verdict};
use shmcheck_protocol::{Expected, Facts, Result as Judged};
use shmcheck_runner::Declared;
use shmcheck_runner::declared::Maker;
use shmcheck_runner::deviation::{FILES, Here, Known, parse};
use shmcheck_runner::spec::Spec;
use shmcheck_runner::version::{Range, Version};

const TEXT: &str = r#"
    base = "https://example.org/"

    [when]
    kernel = "gvisor"

    [[deviation]]
    note = "anybody may remove a segment"
    reference = "1"
    seen = [
        { probes = ["sysv.shm.rmid.*"], outcome = "fail", call = "shmctl", got = "0*" },
    ]

    [[deviation]]
    note = "no SEM_UNDO"
    reference = "https://example.org/2"
    when = { runtime = "runsc", runtime-version = "<20240101" }
    seen = [{ probes = ["sysv.sem.undo"], outcome = "broken", message = "set-up failed: semop*" }]

    [[deviation]]
    note = "no order"
    reference = "3"
    seen = [{ probes = ["sysv.sem.wake"], outcome = "fail", got = "2", sometimes = true }]

    [[leftover]]
    name = "/dev/shm/sem.*"
    note = "made before a descriptor is had"
    reference = "4"
"#;

fn list() -> &'static Known {
    Box::leak(Box::new(parse("test.toml", TEXT).unwrap_or_else(|e| panic!("{e}"))))
}

fn here(kernel: &str, runtime: Option<(&str, &str)>) -> Here {
    let mut declared = Declared::nothing(&Spec::parse("docker").expect("it is a spec"));
    declared.runtime = runtime.map(|(name, version)| Maker { name: name.to_owned(), version: version.to_owned() });
    let mut facts = Facts::default();
    facts.kernel.implementation = kernel.to_owned();
    Here::among(list(), &declared, &facts)
}

fn result(id: &str, outcome: Verdict, detail: Detail) -> Judged {
    let as_expected = outcome == Verdict::Pass;
    Judged {
        id: id.to_owned(),
        outcome,
        expected: Expected::Pass,
        as_expected,
        because: String::new(),
        duration_us: 1,
        detail,
    }
}

fn failed(call: &str, got: &str) -> Detail {
    Detail { call: Some(call.to_owned()), got: Some(got.to_owned()), ..Detail::default() }
}

#[test]
fn every_file_is_read() {
    for (file, text) in FILES {
        parse(file, text).unwrap_or_else(|e| panic!("{e}"));
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/deviations");
    for entry in std::fs::read_dir(folder).expect("the folder is there").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".toml") {
            assert!(FILES.iter().any(|(file, _)| *file == name), "{name} is not part of the program: see FILES");
        }
    }
}

#[test]
fn what_is_described_is_as_expected() {
    let judged = here("gvisor", None).weigh(result("sysv.shm.rmid.not-owner", Verdict::Fail, failed("shmctl", "0")));
    assert!(judged.as_expected && judged.expected == Expected::Deviation);
    assert!(judged.because.contains("anybody may remove") && judged.because.contains("https://example.org/1"));
}

#[test]
fn a_different_failure_is_not_hidden() {
    for (call, got) in [("shmctl", "EIO"), ("shmget", "0")] {
        let judged = here("gvisor", None).weigh(result("sysv.shm.rmid.not-owner", Verdict::Fail, failed(call, got)));
        assert!(!judged.as_expected && judged.expected == Expected::Pass, "{call} {got}");
        assert!(judged.because.contains("not the known deviation"), "{}", judged.because);
    }
    let crash = Detail { message: Some("the probe's process died by SIGBUS".to_owned()), ..Detail::default() };
    let judged = here("gvisor", None).weigh(result("sysv.shm.rmid.not-owner", Verdict::Broken, crash));
    assert!(!judged.as_expected, "another outcome is another failure");
}

#[test]
fn one_that_no_longer_occurs_is_reported() {
    let judged = here("gvisor", None).weigh(result("sysv.shm.rmid.not-owner", Verdict::Pass, Detail::default()));
    assert!(!judged.as_expected && judged.expected == Expected::Deviation);
    assert!(judged.because.contains("no longer occurs"), "{}", judged.because);
}

#[test]
fn one_that_occurs_sometimes_may_pass() {
    let here = here("gvisor", None);
    assert!(here.weigh(result("sysv.sem.wake", Verdict::Pass, Detail::default())).as_expected);
    assert!(here.weigh(result("sysv.sem.wake", Verdict::Fail, failed("semop", "2"))).as_expected);
    assert!(!here.weigh(result("sysv.sem.wake", Verdict::Fail, failed("semop", "3"))).as_expected);
}

#[test]
fn what_is_known_to_be_left_is_no_finding() {
    let left = || vec!["/dev/shm/sem.Ab12cd".to_owned(), "/dev/shm/shmcheck.7".to_owned()];
    assert_eq!(here("gvisor", None).beyond(left()), ["/dev/shm/shmcheck.7"]);
    assert_eq!(here("linux", None).beyond(left()), left());
}

#[test]
fn other_places_and_probes_are_left_alone() {
    let pass = || result("sysv.shm.rmid.not-owner", Verdict::Pass, Detail::default());
    assert!(here("linux", None).weigh(pass()).as_expected);
    let fail = result("sysv.shm.rmid.not-owner", Verdict::Fail, failed("shmctl", "0"));
    assert!(!here("linux", None).weigh(fail).as_expected);
    let skip = result("sysv.shm.rmid.not-owner", Verdict::Skip, Detail::default());
    assert_eq!(here("gvisor", None).weigh(skip.clone()), skip);
    let other = result("sysv.shm.get.excl-eexist", Verdict::Pass, Detail::default());
    assert_eq!(here("gvisor", None).weigh(other.clone()), other);
}

/// In the range it is strict, outside it is not known, and where no version can be had both is as expected.
#[test]
fn versions_bound_a_deviation() {
    let message = Some("set-up failed: semop → EINVAL".to_owned());
    let broken = || result("sysv.sem.undo", Verdict::Broken, Detail { message: message.clone(), ..Detail::default() });
    let pass = || result("sysv.sem.undo", Verdict::Pass, Detail::default());
    for (version, excused, strict) in [
        ("0.0~20221219.0", true, true),
        ("release-20221219.0", true, true),
        ("0.0~20240729.0", false, false),
        ("", true, false),
    ] {
        let here = here("gvisor", Some(("/usr/bin/runsc", version)));
        assert_eq!(here.weigh(broken()).as_expected, excused, "{version:?}");
        assert_eq!(!here.weigh(pass()).as_expected, strict, "{version:?}");
    }
    assert!(!here("gvisor", Some(("kata", "1.0"))).weigh(broken()).as_expected, "another runtime");
}

#[test]
fn entries_that_would_hide_too_much_are_refused() {
    let link = "https://example.org";
    for (reference, seen, word) in [
        (link, r#"probes = [], outcome = "fail", got = "0""#, "no probe"),
        (link, r#"probes = ["a"], outcome = "fail""#, "hide every failure"),
        (link, r#"probes = ["a"], outcome = "fail", got = "*""#, "hide every failure"),
        (link, r#"probes = ["a"], outcome = "skip", got = "0""#, "needs no excuse"),
        (link, r#"probes = ["a"], outcome = "fail", got = "0", when = { moon = "full" }"#, "moon"),
        ("me", r#"probes = ["a"], outcome = "fail", got = "0""#, "no link"),
    ] {
        let text = format!("[[deviation]]\nnote = \"n\"\nreference = \"{reference}\"\nseen = [{{ {seen} }}]\n");
        let said = parse("test.toml", &text).expect_err("it is refused").to_string();
        assert!(said.starts_with("test.toml:") && said.contains(word), "{said}");
    }
}

proptest! {
    #[test]
    fn any_file_is_read_or_refused(text in "\\PC{0,200}") {
        if let Err(e) = parse("test.toml", &text) {
            prop_assert!(e.to_string().starts_with("test.toml:"));
        }
    }

    #[test]
    fn any_entry_is_read_or_refused(
        member in "(probes|outcome|got|call|message|note|reference|when|seen|[a-z]{1,5})",
        value in prop_oneof![
            "\"[ -!#-\\[\\]-~]{0,12}\"",
            "\\[\"[a-z.*]{0,8}\"\\]",
            "[0-9]{1,3}",
            "\\{[a-z =\"]{0,12}\\}",
        ],
    ) {
        let _ = parse("test.toml", &format!("[[deviation]]\n{member} = {value}\n"));
        let _ = parse("test.toml", &TEXT.replace("\"fail\"", &value));
    }

    #[test]
    fn any_version_and_range_is_read_or_refused(text in "\\PC{0,20}") {
        let _ = (Version::parse(&text), Range::try_from(text));
    }

    #[test]
    fn versions_are_ordered_as_numbers(a in 0_u32..99, b in 0_u32..99) {
        let version = |n: u32| Version::parse(&format!("1.{n}.0")).expect("it is a version");
        prop_assert_eq!(version(a).cmp(&version(b)), a.cmp(&b));
        let range = Range::try_from(format!(">=1.{a}, <1.{}", a + 1)).expect("it is a range");
        prop_assert_eq!(range.contains(&version(b)), a == b);
    }
}
