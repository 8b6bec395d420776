//! What is known of a filter that an engine has a runtime install: the engine's reading of the profile, and what the
//! runtime adds to it.

use super::{Action, Answer, Condition, Place, Profile, Rule};
use serde::Deserialize;
use shmcheck_probe::{Sys, sys};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A filter with all that decides its answers.
#[derive(Debug, Clone)]
pub struct Known {
    /// The profile.
    pub profile: Profile,
    /// Where it is evaluated.
    pub place: Place,
    /// Whose it is, as the subject of a sentence: `the declared seccomp profile`.
    pub whose: String,
    /// What the runtime does with calls that are newer than the profile.
    pub newer: Newer,
}

/// What a runtime answers to a call whose number is above those of all calls that the profile names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newer {
    /// What the profile says by default: crun, and this program's own sandbox.
    AsDefault,
    /// ENOSYS, so that programs fall back: runc since 1.0.0-rc93, unless the default is to allow.
    Enosys,
    /// The runtime is not known.
    Unknown,
}

impl Newer {
    /// By the runtime's name or path.
    pub fn of_runtime(runtime: &str) -> Self {
        match Path::new(runtime).file_name().and_then(|name| name.to_str()) {
            Some("runc" | "io.containerd.runc.v2") => Self::Enosys,
            Some("crun") => Self::AsDefault,
            _ => Self::Unknown,
        }
    }
}

impl Known {
    /// What the filter answers to a call; `None` where that cannot be known.
    pub fn answer(&self, call: Sys) -> Option<Answer> {
        self.answer_to(call.name())
    }

    /// [`Known::answer`] for a call by its name; `None` also for a name that is no call here.
    pub fn answer_to(&self, call: &str) -> Option<Answer> {
        let number = syscalls::Sysno::from_str(call).ok()?.id();
        let by_profile = self.profile.answer_to(call, &self.place);
        if by_profile == Answer::Allow || self.profile.names(call) || i64::from(number) <= self.last() {
            return Some(by_profile);
        }
        match self.newer {
            Newer::AsDefault => Some(by_profile),
            Newer::Enosys => Some(Answer::Errno(libc::ENOSYS)),
            Newer::Unknown => (by_profile == Answer::Errno(libc::ENOSYS)).then_some(by_profile),
        }
    }

    /// The largest number of a call that the profile names here.
    fn last(&self) -> i64 {
        let names = self.profile.rules_at(&self.place).flat_map(Rule::names);
        let numbers = names.filter_map(|name| syscalls::Sysno::from_str(name).ok());
        numbers.map(|number| i64::from(number.id())).max().unwrap_or(0)
    }
}

/// How an engine reads a profile before it hands it to the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// Whether `defaultErrnoRet` is handed on.
    default_errno: bool,
    /// Whether `errno` and `defaultErrno` name an errno.
    errno_names: bool,
    /// Whether `minKernel` is a condition.
    min_kernel: bool,
}

impl Dialect {
    /// Podman's, containers/common: it knows no `minKernel`, so that such a rule always applies.
    pub const PODMAN: Self = Self { default_errno: true, errno_names: true, min_kernel: false };

    /// Docker's of this version: `defaultErrnoRet` is dropped by those before 23 (moby#42604).
    pub fn docker(version: &str) -> Self {
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        Self { default_errno: major.is_none_or(|major| major >= 23), errno_names: false, min_kernel: true }
    }
}

impl Profile {
    /// The profile as the engine hands it to the runtime: without conditions and without what the engine drops.
    pub fn handed(&self, dialect: Dialect, place: &Place) -> Self {
        let errno = |name: &Option<String>, number: Option<u32>| {
            let named = name.as_deref().filter(|name| dialect.errno_names && !name.is_empty());
            named.map_or(number, errno_by_name)
        };
        let applies = |rule: &&Rule| {
            let mut rule = (*rule).clone();
            if !dialect.min_kernel {
                rule.includes.min_kernel = None;
                rule.excludes.min_kernel = None;
            }
            rule.applies(place)
        };
        let hand = |rule: &Rule| Rule {
            names: rule.names().map(str::to_owned).collect(),
            name: None,
            action: rule.action,
            errno_ret: errno(&rule.errno, rule.errno_ret),
            errno: None,
            args: rule.args.clone().filter(|args| !args.is_empty()),
            includes: Condition::default(),
            excludes: Condition::default(),
        };
        Self {
            default_action: self.default_action,
            default_errno_ret: errno(&self.default_errno, self.default_errno_ret).filter(|_| dialect.default_errno),
            default_errno: None,
            syscalls: self.syscalls.iter().filter(applies).map(hand).collect(),
        }
    }

    /// What an OCI bundle's `config.json` has the runtime install; `None` where there is no filter.
    pub fn of_bundle(config: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        #[derive(Deserialize)]
        struct Config {
            linux: Linux,
        }
        #[derive(Deserialize)]
        struct Linux {
            seccomp: Option<Profile>,
        }
        let config: Config = serde_json::from_slice(config)?;
        Ok(config.linux.seccomp)
    }

    /// Whether the runtime allows what no rule names.
    pub fn allows_by_default(&self) -> bool {
        matches!(self.default_action, Action::Allow | Action::Log)
    }
}

/// An errno by its name or number; `None`, which stands for EPERM, where it is neither.
fn errno_by_name(name: &str) -> Option<u32> {
    name.parse().ok().or_else(|| (1..134).find(|n| sys::errno_name(*n) == name).and_then(|n| u32::try_from(n).ok()))
}

/// The file of Podman's default profile: what containers.conf names, else the administrator's, else the package's.
/// `None` where there is none and the built-in one applies.
pub fn podman_default_file(home: Option<&Path>) -> Option<PathBuf> {
    let named = containers_conf(home).iter().rev().find_map(|file| {
        let table: toml::Table = std::fs::read_to_string(file).ok()?.parse().ok()?;
        let path = table.get("containers")?.get("seccomp_profile")?.as_str()?;
        (!path.is_empty()).then(|| PathBuf::from(path))
    });
    let usual = ["/etc/containers/seccomp.json", "/usr/share/containers/seccomp.json"].map(PathBuf::from);
    named.or_else(|| usual.into_iter().find(|path| path.is_file()))
}

/// Podman's configuration files in the order in which later ones win.
fn containers_conf(home: Option<&Path>) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = vec!["/usr/share/containers/containers.conf".into()];
    let folders = ["/etc/containers".into()].into_iter().chain(home.map(|home| home.join(".config/containers")));
    for folder in folders {
        files.push(folder.join("containers.conf"));
        let parts = std::fs::read_dir(folder.join("containers.conf.d")).into_iter().flatten().flatten();
        let mut parts: Vec<PathBuf> = parts.map(|entry| entry.path()).collect();
        parts.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
        parts.sort();
        files.extend(parts);
    }
    files
}

/// Docker's built-in profile of this version as its source has it, for runs that cannot read what the engine hands to
/// the runtime.
pub fn stored_docker_default(version: &str) -> Option<Profile> {
    const STORED: &[(&str, &str)] = &[
        ("20.10.", include_str!("../../../../fixtures/seccomp/engines/docker-20.10.json")),
        ("26.1.", include_str!("../../../../fixtures/seccomp/engines/docker-26.1.json")),
    ];
    let (_, text) = STORED.iter().find(|(prefix, _)| version.starts_with(prefix))?;
    Profile::parse(text.as_bytes(), version).ok()
}
