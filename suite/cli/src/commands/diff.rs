//! `diff`: what changed between two reports.

use crate::args::DiffArgs;
use crate::commands::run::read_report;
use crate::failure::Outcome;
use crate::output::Streams;
use shmcheck_report::{Diff, exit};
use std::io::Write;

/// Prints the differences; the exit code says whether something became worse.
pub(crate) fn diff(args: &DiffArgs, style: Streams) -> Outcome {
    let (before, after) = (read_report(&args.before)?, read_report(&args.after)?);
    let diff = Diff::between(&before, &after);
    std::io::stdout().lock().write_all(diff.to_text(style.out()).as_bytes())?;
    let code = if diff.worse().is_empty() { exit::OK } else { exit::WORSE };
    Ok(u8::try_from(code).unwrap_or(1))
}
