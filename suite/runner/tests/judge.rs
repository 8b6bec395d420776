//! Judgement of what a declared filter refuses.

use shmcheck_probe::{Detail, Probe, Sys, Verdict};
use shmcheck_protocol::{Expected, Record, Result as Judged};
use shmcheck_runner::Declared;
use shmcheck_runner::declared::Filter;
use shmcheck_runner::judge::judge;
use shmcheck_runner::seccomp::{Known, Newer, Place, Profile};
use shmcheck_runner::spec::Spec;

static PROBE: Probe = Probe { calls: &[Sys::Shmget], ..Probe::new("sysv.shm.get.test", |_| Ok(())) };

/// A filter that gives `action` to `call`, and allows all else.
fn declared(call: &str, action: &str) -> Declared {
    let text = format!(
        r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["{call}"],"action":"{action}","errnoRet":13}}]}}"#
    );
    let profile = Profile::parse(text.as_bytes(), "test").expect("it is a profile");
    let place = Place { caps: caps::CapsHashSet::new(), kernel: (6, 1) };
    let whose = "the declared seccomp profile".to_owned();
    let known = Known { profile, place, whose, newer: Newer::AsDefault };
    let mut declared = Declared::nothing(&Spec::parse("sandbox").expect("it is a spec"));
    declared.seccomp = Filter::Known(Box::new(known));
    declared
}

fn judged(declared: &Declared, outcome: Verdict, detail: Detail) -> Judged {
    judge(&PROBE, declared, Record { id: PROBE.id.to_owned(), outcome, duration_us: 1, detail })
}

fn seccomp(call: &str, errno: &str) -> Detail {
    let text = |text: &str| Some(text.to_owned());
    Detail { layer: text("seccomp"), call: text(call), errno: text(errno), ..Detail::default() }
}

fn set_up(call: &str, errno: &str) -> Detail {
    let message = Some(format!("set-up failed: {call} → {errno}"));
    Detail { call: Some(call.to_owned()), errno: Some(errno.to_owned()), message, ..Detail::default() }
}

#[test]
fn a_refusal_with_the_declared_errno_is_as_expected() {
    let shmget = declared("shmget", "SCMP_ACT_ERRNO");
    let result = judged(&shmget, Verdict::Blocked, seccomp("shmget", "EACCES"));
    assert!(result.as_expected && result.expected == Expected::Blocked, "{result:?}");
    let result = judged(&shmget, Verdict::Blocked, seccomp("shmget", "EPERM"));
    assert!(!result.as_expected && result.because.contains("with EACCES"), "{result:?}");
    let result = judged(&shmget, Verdict::Pass, Detail::default());
    assert!(!result.as_expected && result.because.contains("the probe passed"), "{result:?}");
}

#[test]
fn a_refusal_that_nobody_declared_is_not() {
    let result = judged(&declared("shmat", "SCMP_ACT_ERRNO"), Verdict::Blocked, seccomp("shmget", "EPERM"));
    assert!(!result.as_expected && result.because.contains("does not refuse shmget"), "{result:?}");
}

/// A set-up may use calls that the probe is not about.
#[test]
fn a_set_up_that_the_filter_refuses_is_blocked() {
    let shmctl = declared("shmctl", "SCMP_ACT_ERRNO");
    let result = judged(&shmctl, Verdict::Broken, set_up("shmctl", "EACCES"));
    assert!(result.outcome == Verdict::Blocked && result.as_expected, "{result:?}");
    for (call, errno) in [("shmctl", "EINVAL"), ("shmat", "EACCES"), ("io", "EACCES")] {
        let result = judged(&shmctl, Verdict::Broken, set_up(call, errno));
        assert!(result.outcome == Verdict::Broken && !result.as_expected, "{call} {errno}: {result:?}");
    }
}

#[test]
fn a_process_that_the_filter_kills_is_blocked() {
    let died = |signal: &str| {
        let message = Some(format!("the probe's process died by {signal}"));
        Detail { message, ..Detail::default() }
    };
    let kill = declared("shmat", "SCMP_ACT_KILL_PROCESS");
    let result = judged(&kill, Verdict::Broken, died("SIGSYS"));
    assert!(result.outcome == Verdict::Blocked && result.detail.call.as_deref() == Some("shmat"), "{result:?}");
    assert!(!judged(&kill, Verdict::Broken, died("SIGSEGV")).as_expected);
    assert!(!judged(&declared("shmat", "SCMP_ACT_ERRNO"), Verdict::Broken, died("SIGSYS")).as_expected);
}

/// Without the call the kernel answers ENOSYS, and the agent cannot tell that from a filter.
#[test]
fn a_call_that_is_allowed_and_not_there_is_no_refusal() {
    let shmat = declared("shmat", "SCMP_ACT_ERRNO");
    let result = judged(&shmat, Verdict::Blocked, seccomp("shmget", "ENOSYS"));
    assert!(result.as_expected && result.because.contains("does not know it"), "{result:?}");
}

#[test]
fn an_unknown_filter_may_refuse_and_says_why_it_is_unknown() {
    let mut unknown = declared("shmat", "SCMP_ACT_ERRNO");
    unknown.seccomp = Filter::Unknown("that of docker 99 is not known".to_owned());
    let result = judged(&unknown, Verdict::Blocked, seccomp("shmget", "EPERM"));
    assert!(result.as_expected && result.because.contains("docker 99 is not known"), "{result:?}");
    assert!(judged(&unknown, Verdict::Pass, Detail::default()).as_expected);
}

/// A record may name a call that no probe of the catalogue declares.
#[test]
fn a_call_beyond_the_catalogue_is_known_by_its_name() {
    let handle = declared("open_by_handle_at", "SCMP_ACT_ERRNO");
    let result = judged(&handle, Verdict::Broken, set_up("open_by_handle_at", "EACCES"));
    assert!(result.outcome == Verdict::Blocked && result.as_expected, "{result:?}");
}

#[test]
fn a_declared_limit_explains_its_refusal() {
    let mut limited = declared("shmat", "SCMP_ACT_ERRNO");
    assert!(!judged(&limited, Verdict::Broken, set_up("mq_open", "EMFILE")).as_expected);
    limited.ulimits.insert("msgqueue".to_owned(), (0, 0));
    let result = judged(&limited, Verdict::Broken, set_up("mq_open", "EMFILE"));
    assert!(result.outcome == Verdict::Blocked && result.as_expected, "{result:?}");
    assert!(result.because.contains("ulimit.msgqueue"), "{result:?}");
    assert!(!judged(&limited, Verdict::Broken, set_up("mq_open", "EACCES")).as_expected);
}
