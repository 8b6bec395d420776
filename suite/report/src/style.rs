//! Colours of what a person sees, on or off as the caller decides.

use anstyle::{AnsiColor, Effects};
use shmcheck_protocol::Verdict;

/// Whether text is coloured. A colour never says what a word does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    on: bool,
}

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Good,
    Bad,
    Odd,
    Dim,
    Strong,
}

impl Style {
    /// With colours or without.
    pub const fn new(on: bool) -> Self {
        Self { on }
    }

    /// Without colours.
    pub const fn plain() -> Self {
        Self::new(false)
    }

    /// Text that says that something is well.
    pub fn good(self, text: &str) -> String {
        self.paint(Role::Good, text)
    }

    /// Text that says that something is wrong or absent.
    pub fn bad(self, text: &str) -> String {
        self.paint(Role::Bad, text)
    }

    pub(crate) fn paint(self, role: Role, text: &str) -> String {
        if !self.on || text.is_empty() {
            return text.to_owned();
        }
        let style = match role {
            Role::Good => AnsiColor::Green.on_default(),
            Role::Bad => AnsiColor::Red.on_default() | Effects::BOLD,
            Role::Odd => AnsiColor::Yellow.on_default(),
            Role::Dim => anstyle::Style::new() | Effects::DIMMED,
            Role::Strong => anstyle::Style::new() | Effects::BOLD,
        };
        format!("{style}{text}{style:#}")
    }
}

/// The role of a result's word.
pub(crate) fn role(outcome: Verdict, as_expected: bool) -> Role {
    match outcome {
        _ if !as_expected => Role::Bad,
        Verdict::Pass => Role::Good,
        Verdict::Skip | Verdict::Blocked => Role::Dim,
        Verdict::Fail | Verdict::Broken => Role::Odd,
    }
}
