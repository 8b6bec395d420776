//! What a probe's function returns, and how a reason to stop is made.

use crate::sys;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The five outcomes of a probe. Nothing is ever inferred from silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The claim holds.
    Pass,
    /// The claim does not hold: the detail has call, wanted and got.
    Fail,
    /// A declared need is not met: the detail has the need and the value measured.
    Skip,
    /// A policy refused a call: the detail has layer, call and errno.
    Blocked,
    /// Set-up or harness failed: deadline, signal, missing or malformed record, leftovers.
    Broken,
}

impl Verdict {
    /// The word used in every report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Skip => "skip",
            Self::Blocked => "blocked",
            Self::Broken => "broken",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What is known beyond the verdict. Only the members that apply are set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Detail {
    /// The call or value that the claim is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// What the claim says: an errno's name, a value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
    /// What was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub got: Option<String>,
    /// The declared need that is not met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub need: Option<String>,
    /// The value measured where the need was evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// The layer that refused: seccomp, capability, lsm, yama, rlimit, cgroup, namespace, mount, kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// The errno of the refusal, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
    /// Free text for whoever reads a broken probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The reason why a probe's function ended before its last line: anything but a pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop(Box<(Verdict, Detail)>);

/// What a probe's function returns. `?` on a system call's error means broken; only `expect_*` means fail.
pub type Outcome = Result<(), Stop>;

impl Stop {
    /// Any verdict with its detail; for the agent and the runner.
    pub fn new(verdict: Verdict, detail: Detail) -> Self {
        Self(Box::new((verdict, detail)))
    }

    /// The claim does not hold: `call` was to give `wanted` and gave `got`.
    pub fn fail(call: impl Into<String>, wanted: impl Into<String>, got: impl Into<String>) -> Self {
        Self::new(
            Verdict::Fail,
            Detail { call: Some(call.into()), wanted: Some(wanted.into()), got: Some(got.into()), ..Detail::default() },
        )
    }

    /// A need is not met: its name and the value measured.
    pub fn skip(need: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Verdict::Skip, Detail { need: Some(need.into()), found: Some(found.into()), ..Detail::default() })
    }

    /// A policy layer refused `call` with the errno named.
    pub fn blocked(layer: impl Into<String>, call: impl Into<String>, errno: impl Into<String>) -> Self {
        Self::new(
            Verdict::Blocked,
            Detail {
                layer: Some(layer.into()),
                call: Some(call.into()),
                errno: Some(errno.into()),
                ..Detail::default()
            },
        )
    }

    /// The set-up or the harness failed.
    pub fn broken(message: impl Into<String>) -> Self {
        Self::new(Verdict::Broken, Detail { message: Some(message.into()), ..Detail::default() })
    }

    /// The verdict this stop stands for.
    pub fn verdict(&self) -> Verdict {
        self.0.0
    }

    /// The detail of this stop.
    pub fn detail(&self) -> &Detail {
        &self.0.1
    }

    /// Takes the stop apart.
    pub fn into_parts(self) -> (Verdict, Detail) {
        *self.0
    }
}

impl From<sys::Error> for Stop {
    /// A call of the set-up failed: broken, with the call and its errno, so that the agent can name the layer.
    fn from(error: sys::Error) -> Self {
        Self::new(
            Verdict::Broken,
            Detail {
                call: Some(error.call.to_owned()),
                errno: Some(error.name().to_owned()),
                message: Some(format!("set-up failed: {error}")),
                ..Detail::default()
            },
        )
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => sys::Error { call: "io", errno }.into(),
            None => Self::broken(format!("set-up failed: {error}")),
        }
    }
}

impl From<nix::Error> for Stop {
    fn from(errno: nix::Error) -> Self {
        sys::Error { call: "nix", errno: errno as i32 }.into()
    }
}
