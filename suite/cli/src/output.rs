//! Where output goes and whether it has colour.

use crate::args::Color;
use shmcheck_report::Style;
use std::io::IsTerminal;

/// Colour on standard output; progress on standard error decides by itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streams {
    out: bool,
}

impl Streams {
    /// As the option, the variables NO_COLOR and CLICOLOR_FORCE, and the terminals say; in this order.
    pub(crate) fn of(color: Color) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let forced = match color {
            Color::Always => Some(true),
            Color::Never => Some(false),
            Color::Auto if set("NO_COLOR") => Some(false),
            Color::Auto if set("CLICOLOR_FORCE") => Some(true),
            Color::Auto => None,
        };
        Self { out: forced.unwrap_or_else(|| std::io::stdout().is_terminal()) }
    }

    /// The style of standard output.
    pub(crate) fn out(self) -> Style {
        Style::new(self.out)
    }
}
