//! Judgement: a record against what the declared configuration lets expect.

use crate::declared::{Declared, Filter, Refusal};
use shmcheck_probe::sys::errno_name;
use shmcheck_probe::{Detail, Isolate, Need, Probe, Stop, Sys, Verdict};
use shmcheck_protocol::{Expected, Record, Result};

/// Judges one record.
pub fn judge(probe: &Probe, declared: &Declared, mut record: Record) -> Result {
    reattribute(probe, declared, &mut record);
    let certain = probe.all_needs().find_map(|need| match need {
        Need::Call(call) if matches!(declared.refusal(call), Some(Refusal::Always(_))) => Some(call),
        _ => None,
    });
    let expected = if certain.is_some() { Expected::Blocked } else { Expected::Pass };
    let (as_expected, expected, because) = match record.outcome {
        Verdict::Pass => match certain {
            None => (true, expected, String::new()),
            Some(call) => {
                let because = format!("{} refuses {}, and the probe passed", declared.filter(), call.name());
                (false, expected, because)
            }
        },
        Verdict::Blocked => blocked(declared, &record.detail),
        Verdict::Skip => match promised(probe, declared, &record.detail) {
            Some(promise) => (false, expected, promise),
            None => (true, expected, String::new()),
        },
        Verdict::Fail => (false, expected, String::new()),
        Verdict::Broken => (false, expected, String::new()),
    };
    Result::of(record, expected, as_expected, because)
}

/// A record without a probe of the catalogue behind it: a declared setting.
pub fn judge_setting(record: Record) -> Result {
    let effective = record.outcome == Verdict::Pass;
    let because = if effective { "" } else { "a declared setting is not effective" };
    Result::of(record, Expected::Pass, effective, because.to_owned())
}

/// A call that the filter refuses fails inside a probe with the filter's errno, for some arguments only or in a set-up that
/// the probe's needs do not name: that is the filter's doing, not the kernel's.
fn reattribute(probe: &Probe, declared: &Declared, record: &mut Record) {
    if !matches!(record.outcome, Verdict::Fail | Verdict::Broken) {
        return;
    }
    let detail = &record.detail;
    // A value that was compared is quoted.
    let seen = detail.errno.as_deref().or(detail.got.as_deref()).map(|seen| seen.trim_matches('"'));
    let filtered = detail.call.as_deref().and_then(|call| match declared.refusal_of(call)? {
        Refusal::Always(Some(errno)) | Refusal::Sometimes(errno) => {
            (seen == Some(errno_name(errno))).then(|| (call.to_owned(), errno_name(errno)))
        }
        Refusal::Always(None) | Refusal::Perhaps => None,
    });
    let is_kill = |call: &Sys| matches!(declared.refusal(*call), Some(Refusal::Always(None)));
    let killed = || {
        detail.message.as_ref().filter(|text| text.contains("SIGSYS"))?;
        // The record of a killed process cannot say which call it was; one of the probe's own comes first.
        probe.calls.iter().chain(Sys::ALL).copied().find(is_kill).map(|call| (call.name().to_owned(), "SIGSYS"))
    };
    if let Some((call, errno)) = filtered.or_else(killed) {
        (record.outcome, record.detail) = Stop::blocked("seccomp", call, errno).into_parts();
        return;
    }
    let limited = LIMITS.iter().find(|(call, errno, limit)| {
        detail.call.as_deref() == Some(*call) && seen == Some(*errno) && declared.ulimits.contains_key(*limit)
    });
    if let Some((call, errno, _)) = limited {
        (record.outcome, record.detail) = Stop::blocked("rlimit", *call, *errno).into_parts();
    }
}

/// Calls that a declared limit refuses, the errno, and the limit: mq_overview(7).
const LIMITS: &[(&str, &str, &str)] = &[("mq_open", "EMFILE", "msgqueue")];

fn blocked(declared: &Declared, detail: &Detail) -> (bool, Expected, String) {
    let (call, errno) = (detail.call.as_deref().unwrap_or(""), detail.errno.as_deref().unwrap_or(""));
    if detail.layer.as_deref() == Some("rlimit") {
        let limit = LIMITS.iter().find(|(limited, ..)| *limited == call).map_or("", |(_, _, limit)| limit);
        return (true, Expected::Blocked, format!("ulimit.{limit} was declared"));
    }
    if detail.layer.as_deref() != Some("seccomp") {
        return (true, Expected::Pass, "nothing was declared of this layer".to_owned());
    }
    let filter = declared.filter();
    match declared.refusal_of(call) {
        Some(Refusal::Always(wanted)) => {
            let wanted = wanted.map_or("SIGSYS", errno_name);
            (wanted == errno, Expected::Blocked, format!("{filter} refuses {call} with {wanted}"))
        }
        Some(Refusal::Sometimes(_)) => (true, Expected::Blocked, format!("{filter} refuses {call} for some arguments")),
        Some(Refusal::Perhaps) => (true, Expected::Blocked, format!("{filter} may refuse {call}")),
        None if matches!(declared.seccomp, Filter::Unsaid) => {
            (true, Expected::Pass, "nothing was declared of seccomp".to_owned())
        }
        // Behind a filter, a kernel or a runtime's libseccomp without the call looks as if the filter refused it.
        None if errno == errno_name(libc::ENOSYS) => {
            let because = format!("{filter} allows {call}: this kernel or the runtime does not know it");
            (true, Expected::Pass, because)
        }
        None => (false, Expected::Pass, format!("{filter} does not refuse {call}")),
    }
}

/// Why a skip is not as expected: the declared configuration promised what the probe needs.
fn promised(probe: &Probe, declared: &Declared, detail: &Detail) -> Option<String> {
    let need = detail.need.as_deref()?;
    let found = probe.all_needs().find(|n| n.to_string() == need);
    match found {
        Some(Need::DevShm) if declared.dev_shm == Some(true) => {
            Some("a /dev/shm was declared, and it cannot be used".to_owned())
        }
        // A user namespace may hold the capability and still not be asked by the kernel; the need says which is meant.
        Some(Need::Cap(cap))
            if declared.promises_cap(cap) == Some(true)
                && matches!(probe.isolate, Isolate::Cell | Isolate::CellAlone) =>
        {
            Some(format!("{cap} was declared, and it is not effective"))
        }
        _ => None,
    }
}
