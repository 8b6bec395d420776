//! `clean`: what killed runs left behind.

use crate::args::CleanArgs;
use crate::failure::Outcome;
use std::io::Write;

/// Removes it, or with `--dry-run` names it.
pub(crate) fn clean(args: &CleanArgs) -> Outcome {
    let mut out = std::io::stdout().lock();
    let lines = shmcheck_runner::clean::clean(args.dry_run);
    if lines.is_empty() {
        writeln!(out, "nothing is left of earlier runs")?;
    }
    let word = if args.dry_run { "would remove" } else { "removed" };
    for line in &lines {
        writeln!(out, "{word} {line}")?;
    }
    Ok(u8::from(lines.iter().any(|line| line.ends_with("(failed)"))))
}
