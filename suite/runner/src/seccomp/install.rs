//! Installing a profile in this process.

use super::{Action, Arg, Op, Place, Profile, ProfileError, Rule};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;
use std::str::FromStr;

/// Filters of one match action each: the kernel takes the strictest answer of all installed filters, seccomp(2).
///
/// The last one allows everything the profile names and gives the default to the rest; before it one filter for each
/// other action turns its calls, and only these.
pub fn install(profile: &Profile, place: &Place) -> Result<(), ProfileError> {
    let default = action(profile.default_action, profile.default_errno_ret);
    let rules: Vec<&Rule> = profile.rules_at(place).collect();
    let mut by_action: Vec<(SeccompAction, Vec<&Rule>)> = Vec::new();
    for rule in &rules {
        let wanted = action(rule.action, rule.errno_ret);
        if wanted == default || wanted == SeccompAction::Allow {
            continue;
        }
        match by_action.iter_mut().find(|(other, _)| *other == wanted) {
            Some((_, list)) => list.push(rule),
            None => by_action.push((wanted, vec![rule])),
        }
    }
    let mut programs = Vec::new();
    for (wanted, list) in by_action {
        programs.push(program(&list, SeccompAction::Allow, wanted)?);
    }
    if default != SeccompAction::Allow {
        let named: Vec<&Rule> =
            rules.iter().copied().filter(|rule| action(rule.action, rule.errno_ret) != default).collect();
        programs.push(program(&named, default, SeccompAction::Allow)?);
    }
    // The call seccomp itself must still be allowed while the filters go in: a program without it goes last.
    for program in &programs {
        seccompiler::apply_filter(program).map_err(|e| ProfileError::Install(e.to_string()))?;
    }
    Ok(())
}

fn action(action: Action, errno: Option<u32>) -> SeccompAction {
    match action {
        Action::Allow => SeccompAction::Allow,
        Action::Log => SeccompAction::Log,
        Action::Errno => SeccompAction::Errno(errno.unwrap_or(libc::EPERM.unsigned_abs())),
        Action::KillThread => SeccompAction::KillThread,
        Action::KillProcess => SeccompAction::KillProcess,
        Action::Trap => SeccompAction::Trap,
    }
}

fn program(rules: &[&Rule], mismatch: SeccompAction, matched: SeccompAction) -> Result<BpfProgram, ProfileError> {
    let mut map: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in rules {
        for name in rule.names() {
            // Profiles name calls of every architecture and age; those this one does not have need no rule.
            let Ok(number) = syscalls::Sysno::from_str(name) else { continue };
            let number = i64::from(number.id());
            let entry = map.entry(number).or_default();
            match rule.args.as_deref() {
                None | Some([]) => entry.clear(),
                Some(_) if map_is_unconditional(rules, name, rule) => {}
                Some(args) => {
                    let conditions = args.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
                    entry.push(SeccompRule::new(conditions).map_err(|e| ProfileError::Rule(e.to_string()))?);
                }
            }
        }
    }
    let arch: TargetArch =
        std::env::consts::ARCH.try_into().map_err(|e: seccompiler::BackendError| ProfileError::Rule(e.to_string()))?;
    SeccompFilter::new(map, mismatch, matched, arch)
        .and_then(TryInto::try_into)
        .map_err(|e: seccompiler::BackendError| ProfileError::Rule(e.to_string()))
}

/// Whether another rule of the list names the call without conditions: then conditions add nothing.
fn map_is_unconditional(rules: &[&Rule], name: &str, this: &Rule) -> bool {
    rules.iter().any(|rule| !std::ptr::eq(*rule, this) && rule.is_unconditional() && rule.names().any(|n| n == name))
}

fn condition(arg: &Arg) -> Result<SeccompCondition, ProfileError> {
    let (op, value) = match arg.op {
        Op::Ne => (SeccompCmpOp::Ne, arg.value),
        Op::Lt => (SeccompCmpOp::Lt, arg.value),
        Op::Le => (SeccompCmpOp::Le, arg.value),
        Op::Eq => (SeccompCmpOp::Eq, arg.value),
        Op::Ge => (SeccompCmpOp::Ge, arg.value),
        Op::Gt => (SeccompCmpOp::Gt, arg.value),
        // In the profile `value` is the mask and `valueTwo` what the masked argument equals, seccomp_rule_add(3).
        Op::MaskedEq => (SeccompCmpOp::MaskedEq(arg.value), arg.value_two),
    };
    SeccompCondition::new(arg.index, SeccompCmpArgLen::Qword, op, value).map_err(|e| ProfileError::Rule(e.to_string()))
}
