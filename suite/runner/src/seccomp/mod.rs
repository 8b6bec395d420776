//! Seccomp profiles in the engines' JSON format: reading them, what they say of a call, installing them.
//!
//! Docker and Podman share the format; it is the OCI runtime specification's with `includes` and `excludes` (by
//! capability, architecture and kernel) and `archMap` on top. They are read here, not by oci-spec, which drops
//! those members without a word.

mod install;
mod known;

pub use install::install;
pub use known::{Dialect, Known, Newer, podman_default_file, stored_docker_default};

use caps::CapsHashSet;
use serde::Deserialize;
use shmcheck_probe::Sys;
use std::path::Path;

/// A profile as its file says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    default_action: Action,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    /// Podman's name for the errno, which it prefers to the number.
    #[serde(default)]
    default_errno: Option<String>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    names: Vec<String>,
    /// The older form with one name.
    #[serde(default)]
    name: Option<String>,
    action: Action,
    #[serde(default)]
    errno_ret: Option<u32>,
    /// As [`Profile::default_errno`].
    #[serde(default)]
    errno: Option<String>,
    #[serde(default)]
    args: Option<Vec<Arg>>,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arg {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: Op,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Op {
    #[serde(rename = "SCMP_CMP_NE")]
    Ne,
    #[serde(rename = "SCMP_CMP_LT")]
    Lt,
    #[serde(rename = "SCMP_CMP_LE")]
    Le,
    #[serde(rename = "SCMP_CMP_EQ")]
    Eq,
    #[serde(rename = "SCMP_CMP_GE")]
    Ge,
    #[serde(rename = "SCMP_CMP_GT")]
    Gt,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEq,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Action {
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
}

/// What a profile says of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Allowed whatever the arguments.
    Allow,
    /// Refused with this errno whatever the arguments.
    Errno(i32),
    /// The process dies by SIGSYS.
    Kill,
    /// It depends on the arguments.
    Depends,
}

/// What the place of a profile decides: `includes` and `excludes` ask for it.
#[derive(Debug, Clone)]
pub struct Place {
    /// The capabilities the container is given: its bounding set, root or not.
    pub caps: CapsHashSet,
    /// `major.minor` of the running kernel.
    pub kernel: (u32, u32),
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file cannot be read.
    #[error("failed to read the seccomp profile {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not of the format; the cause names line and column.
    #[error("seccomp profile {path}: {source}")]
    Format {
        /// The file.
        path: String,
        /// The cause.
        source: serde_json::Error,
    },
    /// A rule means something this program cannot do.
    #[error("seccomp profile: {0}")]
    Rule(String),
    /// The kernel refused the filter.
    #[error("failed to install the seccomp filter: {0}")]
    Install(String),
}

impl Profile {
    /// Reads a profile from its file.
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        let name = path.display().to_string();
        let text = std::fs::read(path).map_err(|source| ProfileError::Read { path: name.clone(), source })?;
        Self::parse(&text, &name)
    }

    /// Takes a profile from its text; `name` is for the error message.
    pub fn parse(text: &[u8], name: &str) -> Result<Self, ProfileError> {
        let profile: Self =
            serde_json::from_slice(text).map_err(|source| ProfileError::Format { path: name.to_owned(), source })?;
        for arg in profile.syscalls.iter().flat_map(|rule| rule.args.iter().flatten()) {
            if arg.index > 5 {
                return Err(ProfileError::Rule(format!(
                    "argument {} does not exist; calls have six, 0 to 5",
                    arg.index
                )));
            }
        }
        Ok(profile)
    }

    /// What the profile says of a call at this place, for its whole range of arguments.
    pub fn answer(&self, call: Sys, place: &Place) -> Answer {
        self.answer_to(call.name(), place)
    }

    /// [`Profile::answer`] for a call by its name.
    fn answer_to(&self, call: &str, place: &Place) -> Answer {
        let rules: Vec<&Rule> = self.rules_at(place).filter(|rule| rule.names().any(|name| name == call)).collect();
        if let Some(rule) = rules.iter().find(|rule| rule.is_unconditional()) {
            return rule.action.answer(rule.errno_ret);
        }
        let default = self.default_action.answer(self.default_errno_ret);
        if rules.iter().all(|rule| rule.action.answer(rule.errno_ret) == default) { default } else { Answer::Depends }
    }

    /// Whether any rule is about the call.
    fn names(&self, call: &str) -> bool {
        self.syscalls.iter().any(|rule| rule.names().any(|name| name == call))
    }

    /// The errno of a rule that refuses the call for some arguments, if there is one.
    pub fn errno_of_some(&self, call: &str, place: &Place) -> Option<i32> {
        let rules = self.rules_at(place).filter(|rule| rule.names().any(|name| name == call));
        let answers = rules.map(|rule| rule.action.answer(rule.errno_ret));
        answers.chain([self.default_action.answer(self.default_errno_ret)]).find_map(|answer| match answer {
            Answer::Errno(errno) => Some(errno),
            _ => None,
        })
    }

    fn rules_at<'a>(&'a self, place: &'a Place) -> impl Iterator<Item = &'a Rule> {
        self.syscalls.iter().filter(|rule| rule.applies(place))
    }
}

impl Rule {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str).chain(self.name.as_deref())
    }

    fn is_unconditional(&self) -> bool {
        self.args.as_ref().is_none_or(Vec::is_empty)
    }

    /// Whether the rule is part of the filter here. As in the engines: every listed capability must be there for
    /// `includes`, any listed one being there takes the rule out for `excludes`.
    fn applies(&self, place: &Place) -> bool {
        let has = |name: &String| crate::spec::parse_cap(name).is_some_and(|cap| place.caps.contains(&cap));
        let here = |arches: &Vec<String>| arches.iter().any(|arch| arch == native_arch());
        let new_enough = |version: &String| parse_kernel(version).is_none_or(|wanted| place.kernel >= wanted);
        let (inc, exc) = (&self.includes, &self.excludes);
        inc.caps.iter().flatten().all(has)
            && inc.arches.as_ref().is_none_or(|arches| arches.is_empty() || here(arches))
            && inc.min_kernel.as_ref().is_none_or(new_enough)
            && !exc.caps.iter().flatten().any(has)
            && !exc.arches.as_ref().is_some_and(here)
            && !exc.min_kernel.as_ref().is_some_and(new_enough)
    }
}

impl Action {
    fn answer(self, errno: Option<u32>) -> Answer {
        match self {
            Self::Allow | Self::Log => Answer::Allow,
            // EPERM where the profile gives none: seccomp.json(5) of containers-common, and moby's default.
            Self::Errno => Answer::Errno(errno.and_then(|n| i32::try_from(n).ok()).unwrap_or(libc::EPERM)),
            Self::KillThread | Self::KillProcess | Self::Trap => Answer::Kill,
        }
    }
}

/// The architecture's name as profiles write it in `arches`.
fn native_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `major.minor` of a kernel release or of a profile's `minKernel`.
pub fn parse_kernel(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// `major.minor` of the kernel this program runs on.
pub fn running_kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    parse_kernel(&release).unwrap_or((0, 0))
}
