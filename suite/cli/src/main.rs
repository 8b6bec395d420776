//! `shmcheck`: the conformance suite for shared memory on Linux.
//!
//! This crate puts the others together and is the only place that prints or exits.

mod args;
mod commands;
mod failure;
mod live;
mod output;
mod progress;
mod sources;

use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let style = output::Streams::of(cli.color);
    let outcome = match cli.command {
        None => commands::run::run(&cli.run, style),
        Some(Command::Run(args)) => commands::run::run(&args, style),
        Some(Command::List(args)) => commands::list::list(&args, style),
        Some(Command::Explain(args)) => commands::explain::explain(&args, style),
        Some(Command::Facts(args)) => commands::facts::facts(&args),
        Some(Command::Matrix(args)) => commands::matrix::matrix(args, style),
        Some(Command::Diff(args)) => commands::diff::diff(&args, style),
        Some(Command::Report(args)) => commands::report::report(&args, style),
        Some(Command::Doctor) => commands::doctor::doctor(style),
        Some(Command::Clean(args)) => commands::clean::clean(&args),
        Some(Command::Schema(args)) => commands::generate::schema(&args),
        Some(Command::Completions(args)) => commands::generate::completions(&args),
        Some(Command::Man(args)) => commands::generate::man(&args),
        Some(Command::Agent(args)) => commands::agent::agent(&args),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(),
    }
}
