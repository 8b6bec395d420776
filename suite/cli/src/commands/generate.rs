//! `schema`, `completions`, `man`: what is generated from the types and the command line.

use crate::args::{Cli, CompletionsArgs, ManArgs, SchemaArgs, SchemaOf};
use crate::failure::{Failure, Outcome};
use clap::CommandFactory;
use std::io::Write;

/// A JSON schema.
pub(crate) fn schema(args: &SchemaArgs) -> Outcome {
    let schema = match args.what {
        SchemaOf::Report => shmcheck_report::schema::report(),
        SchemaOf::Events => shmcheck_report::schema::events(),
    };
    let text = serde_json::to_string_pretty(&schema).map_err(|e| Failure::Internal(e.to_string()))?;
    writeln!(std::io::stdout().lock(), "{text}")?;
    Ok(0)
}

/// Completions for a shell.
pub(crate) fn completions(args: &CompletionsArgs) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "shmcheck", &mut text);
    std::io::stdout().lock().write_all(&text)?;
    Ok(0)
}

/// The manual page, or one for every command in a folder.
pub(crate) fn man(args: &ManArgs) -> Outcome {
    match &args.out {
        Some(folder) => {
            let failed = |e: std::io::Error| Failure::Internal(format!("failed to write to {}: {e}", folder.display()));
            std::fs::create_dir_all(folder).map_err(failed)?;
            clap_mangen::generate_to(Cli::command(), folder).map_err(failed)?;
        }
        None => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut text)?;
            std::io::stdout().lock().write_all(&text)?;
        }
    }
    Ok(0)
}
