//! The command line. Interfaces that scripts rely on: they change only with a note in the changelog.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Verifies every documented behaviour of shared memory on Linux: on this host, in a sandbox, in containers.
#[derive(Debug, Parser)]
#[command(name = "shmcheck", version, args_conflicts_with_subcommands = true, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Colour on standard output and error
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) color: Color,
}

const AFTER_HELP: &str = "\
Filters: a glob on ids (sysv.shm.*), @CHAPTER, @call:NAME, @need:NAME; ! before one negates it.
Environments: NAME[:KEY=VALUE[,KEY=VALUE…]]; `shmcheck doctor` lists them with their keys.
Exit codes: 0 all as expected, 1 internal error, 2 usage, 4 nothing selected, 100 unexpected fail, 101 broken,
102 required but skipped or blocked, 103 required environment missing, 104 worse than the baseline, 130 interrupted.";

/// When to colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, and as NO_COLOR and CLICOLOR_FORCE say
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run probes on environments (what `shmcheck` does without a command)
    Run(RunArgs),
    /// Ids, chapters and needs; with --on what would be skipped there and why
    List(ListArgs),
    /// Claim, why, clauses, remedy and source of a probe; without argument the chapters
    Explain(ExplainArgs),
    /// The fingerprint of an environment
    Facts(FactsArgs),
    /// Run probes on all cells of a matrix file
    Matrix(MatrixArgs),
    /// What changed between two reports
    Diff(DiffArgs),
    /// A report in another format
    Report(ReportArgs),
    /// What works here, and how to get what does not
    Doctor,
    /// Remove what killed runs left behind, and nothing else
    Clean(CleanArgs),
    /// The JSON schema of reports or of their events
    Schema(SchemaArgs),
    /// Completions for a shell
    Completions(CompletionsArgs),
    /// The manual page
    Man(ManArgs),
    /// The agent (started by the runner inside an environment)
    #[command(hide = true)]
    Agent(AgentArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// Which probes; all where nothing is said
    #[arg(value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
    /// An environment to run on (repeatable); host, sandbox and every engine found where nothing is said
    #[arg(long, value_name = "ENV")]
    pub(crate) on: Vec<String>,
    /// Run on all cells of a matrix file
    #[arg(long, value_name = "FILE")]
    pub(crate) matrix: Option<PathBuf>,
    /// Probes at once in a cell [default: processors + 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub(crate) jobs: Option<u16>,
    /// Deadline of one probe
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = deadline)]
    pub(crate) deadline: Duration,
    /// What is written to standard output
    #[arg(long, value_enum, default_value_t, value_name = "FMT")]
    pub(crate) format: Format,
    /// Write a report as well (repeatable): json, ndjson, junit, tap, markdown, html
    #[arg(long, value_name = "FMT=PATH", value_parser = report_target)]
    pub(crate) report: Vec<(FileFormat, PathBuf)>,
    /// Fail where this environment is missing or this need is not met (repeatable)
    #[arg(long, value_name = "ENV|NEED")]
    pub(crate) require: Vec<String>,
    /// A report to be no worse than
    #[arg(long, value_name = "RUN.json")]
    pub(crate) baseline: Option<PathBuf>,
    /// End at the first unexpected result
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// No progress on standard error
    #[arg(long)]
    pub(crate) no_progress: bool,
    /// Show every result, not only the unexpected ones
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// A format of standard output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For a person
    #[default]
    Human,
    /// One event per line, flushed
    Ndjson,
    /// The report
    Json,
    /// JUnit XML
    Junit,
    /// TAP 14
    Tap,
    /// A summary for a CI job
    Markdown,
}

/// A format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileFormat {
    /// The report
    Json,
    /// One event per line
    Ndjson,
    /// JUnit XML
    Junit,
    /// TAP 14
    Tap,
    /// A summary for a CI job
    Markdown,
    /// One page with everything
    Html,
}

fn report_target(text: &str) -> Result<(FileFormat, PathBuf), String> {
    let (format, path) = text.split_once('=').ok_or("write it as FMT=PATH, such as junit=results.xml")?;
    let format = FileFormat::from_str(format, false)
        .map_err(|_| format!("{format:?} is no format of files; give json, ndjson, junit, tap, markdown or html"))?;
    if path.is_empty() {
        return Err("the path is empty".to_owned());
    }
    Ok((format, path.into()))
}

/// The longest deadline: a probe that needs an hour is no probe.
const LONGEST_DEADLINE: Duration = Duration::from_secs(3600);

fn deadline(text: &str) -> Result<Duration, String> {
    let value = humantime::parse_duration(text).map_err(|e| format!("{e}; write 500ms, 10s, 2min"))?;
    if value < Duration::from_millis(1) || value > LONGEST_DEADLINE {
        return Err("give something from 1ms to 1h".to_owned());
    }
    Ok(value)
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Which probes; all where nothing is said
    #[arg(value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
    /// Say what would be skipped there and why
    #[arg(long, value_name = "ENV")]
    pub(crate) on: Option<String>,
    /// Documented errors that no probe provokes, with the reason
    #[arg(long, conflicts_with = "on")]
    pub(crate) excluded: bool,
    /// Human or json
    #[arg(long, value_enum, default_value_t, value_name = "FMT")]
    pub(crate) format: ListFormat,
}

/// A format of `list`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    /// For a person
    #[default]
    Human,
    /// One JSON document
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A probe's id, or a chapter's name or number
    #[arg(value_name = "ID|CHAPTER")]
    pub(crate) what: Option<String>,
    /// Human or markdown: the page that the book has of it
    #[arg(long, value_enum, default_value_t, value_name = "FMT")]
    pub(crate) format: ExplainFormat,
}

/// A format of `explain`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExplainFormat {
    /// For a person
    #[default]
    Human,
    /// A page of the reference
    Markdown,
}

#[derive(Debug, Args)]
pub(crate) struct FactsArgs {
    /// The environment
    #[arg(long, value_name = "ENV", default_value = "host")]
    pub(crate) on: String,
}

#[derive(Debug, Args)]
#[command(mut_arg("matrix", |arg| arg.hide(true)))]
pub(crate) struct MatrixArgs {
    /// The matrix file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Only print the cells, one environment string a line
    #[arg(long)]
    pub(crate) list: bool,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The report before
    #[arg(value_name = "A.json")]
    pub(crate) before: PathBuf,
    /// The report after
    #[arg(value_name = "B.json")]
    pub(crate) after: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// A report in JSON
    #[arg(value_name = "RUN.json")]
    pub(crate) file: PathBuf,
    /// The format to write to standard output
    #[arg(long, value_enum, value_name = "FMT")]
    pub(crate) to: ReportFormat,
}

/// A format that `report` can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// For a person
    Human,
    /// One page with everything
    Html,
    /// A summary for a CI job
    Markdown,
    /// JUnit XML
    Junit,
    /// TAP 14
    Tap,
}

#[derive(Debug, Args)]
pub(crate) struct CleanArgs {
    /// Only say what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SchemaArgs {
    /// Of what
    #[arg(value_enum, default_value_t, value_name = "WHAT")]
    pub(crate) what: SchemaOf,
}

/// What has a schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaOf {
    /// The JSON report
    #[default]
    Report,
    /// The lines of --format ndjson
    Events,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write a page for every command into this folder instead
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// Other programs may live in the IPC namespace
    #[arg(long)]
    pub(crate) shared_ipc: bool,
    /// Move into a sandbox first: its description as JSON
    #[arg(long, value_name = "JSON")]
    pub(crate) confine: Option<String>,
}
