//! Judgement: a record against what the declared configuration lets expect.

use crate::declared::{Declared, Refusal};
use shmcheck_probe::sys::errno_name;
use shmcheck_probe::{Detail, Isolate, Need, Probe, Verdict};
use shmcheck_protocol::{Expected, Record, Result};

/// A refusal that the declared configuration announces for a probe.
struct Announced {
    call: &'static str,
    refusal: Refusal,
}

/// Judges one record.
pub fn judge(probe: &Probe, declared: &Declared, mut record: Record) -> Result {
    let announced: Vec<Announced> = probe
        .calls
        .iter()
        .filter_map(|call| Some(Announced { call: call.name(), refusal: declared.refusal(*call)? }))
        .collect();
    reattribute(&announced, &mut record);
    let certain = announced.iter().find(|a| matches!(a.refusal, Refusal::Always(_)));
    let expected = if certain.is_some() { Expected::Blocked } else { Expected::Pass };
    let (as_expected, expected, because) = match record.outcome {
        Verdict::Pass => match certain {
            None => (true, expected, String::new()),
            Some(a) => (false, expected, format!("{} refuses {}, and it was not", declared.filter(), a.call)),
        },
        Verdict::Blocked => blocked(&announced, declared, &record.detail),
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

/// A call that the profile refuses for some arguments fails inside a probe with the profile's errno: that is the
/// filter's doing, not the kernel's.
fn reattribute(announced: &[Announced], record: &mut Record) {
    if !matches!(record.outcome, Verdict::Fail | Verdict::Broken) {
        return;
    }
    let seen = record.detail.errno.as_deref().or(record.detail.got.as_deref());
    let filter = announced.iter().find_map(|a| match a.refusal {
        Refusal::Sometimes(errno)
            if record.detail.call.as_deref() == Some(a.call) && seen == Some(errno_name(errno)) =>
        {
            Some((a.call, errno))
        }
        _ => None,
    });
    if let Some((call, errno)) = filter {
        record.outcome = Verdict::Blocked;
        record.detail = Detail {
            layer: Some("seccomp".to_owned()),
            call: Some(call.to_owned()),
            errno: Some(errno_name(errno).to_owned()),
            ..Detail::default()
        };
    }
}

fn blocked(announced: &[Announced], declared: &Declared, detail: &Detail) -> (bool, Expected, String) {
    let (call, errno) = (detail.call.as_deref().unwrap_or(""), detail.errno.as_deref().unwrap_or(""));
    if !matches!(detail.layer.as_deref(), Some("seccomp")) {
        return (true, Expected::Pass, "nothing was declared of this layer".to_owned());
    }
    match announced.iter().find(|a| a.call == call).map(|a| a.refusal) {
        Some(Refusal::Always(wanted)) => {
            let wanted = wanted.map_or("SIGSYS", errno_name);
            let because = format!("{} refuses {call} with {wanted}", declared.filter());
            (wanted == errno, Expected::Blocked, because)
        }
        Some(Refusal::Sometimes(_)) => {
            (true, Expected::Blocked, format!("{} refuses {call} for some arguments", declared.filter()))
        }
        Some(Refusal::Perhaps) => (true, Expected::Blocked, format!("{} may refuse {call}", declared.filter())),
        None if matches!(declared.seccomp, crate::declared::Filter::Unsaid) => {
            (true, Expected::Pass, "nothing was declared of seccomp".to_owned())
        }
        // Behind a filter, a kernel or a runtime's libseccomp without the call looks as if the filter refused it.
        None if errno == errno_name(libc::ENOSYS) => {
            let because = format!("{} allows {call}: this kernel or the runtime does not know it", declared.filter());
            (true, Expected::Pass, because)
        }
        None => (false, Expected::Pass, format!("{} does not refuse {call}", declared.filter())),
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
