//! `run`: probes on environments, the report, the exit code.

use crate::args::{FileFormat, Format, RunArgs};
use crate::commands::matrix;
use crate::failure::{Failure, Outcome};
use crate::live::{Live, Watcher};
use crate::output::Streams;
use crate::progress::Progress;
use crate::sources;
use shmcheck_probes::{CHAPTERS, containers};
use shmcheck_protocol::{Program, Report, SCHEMA_VERSION, Summary};
use shmcheck_report::exit::{Demands, ending};
use shmcheck_report::ndjson::{Ndjson, RunEvent};
use shmcheck_report::{html, json, junit, markdown, tap};
use shmcheck_runner::Constellation;
use shmcheck_runner::effective::SETTINGS;
use shmcheck_runner::environments;
use shmcheck_runner::journal::Journal;
use shmcheck_runner::matrix::Matrix;
use shmcheck_runner::run::{Order, Planned, Scenarios};
use shmcheck_runner::select::{Filter, Selection, select_all};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// Runs the selection and says what came of it.
pub(crate) fn run(args: &RunArgs, style: Streams) -> Outcome {
    let matrix = args.matrix.as_deref().map(matrix::read).transpose()?;
    let words = match &matrix {
        Some(matrix) if args.filters.is_empty() => &matrix.filters,
        _ => &args.filters,
    };
    let filters = words.iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let known = shmcheck_probes::scenarios();
    let Selection { probes, scenarios } = select_all(CHAPTERS, (&containers::CHAPTER, &known), &filters)?;
    // A matrix lists its cells; constellations are no part of it.
    let scenarios = if matrix.is_some() { Vec::new() } else { scenarios };
    let mut required = Required::parse(&args.require)?;
    let means_setting = SETTINGS.iter().any(|setting| filters.iter().any(|filter| filter.matches_id(setting.id)));
    let cells = if probes.is_empty() && !means_setting { Vec::new() } else { plan(args, matrix, &mut required)? };
    let constellations = if scenarios.is_empty() { Vec::new() } else { constellations(args, &required)? };
    if cells.is_empty() && constellations.is_empty() {
        return Err(Failure::Nothing(mismatch(scenarios.is_empty()).to_owned()));
    }
    let selected = probes.len() + scenarios.len();
    let environments = cells.iter().map(|cell| cell.spec.to_string());
    let environments = environments.chain(constellations.iter().map(ToString::to_string)).collect();
    let scenarios = Scenarios { scenarios, constellations };
    let baseline = args.baseline.as_deref().map(read_report).transpose()?;
    let mut files = open_reports(&args.report)?;
    let journal = Journal::begin().map_err(|e| Failure::Internal(e.to_string()))?;
    let order = Order {
        probes,
        run: journal.entry.run.clone(),
        tag: journal.entry.tag,
        jobs: args.jobs.map_or(0, usize::from),
        cells_at_once: std::thread::available_parallelism().map_or(1, usize::from),
        deadline: args.deadline,
        exe: own_file()?,
        fail_fast: args.fail_fast,
        stop: Arc::new(AtomicBool::new(false)),
    };
    let interrupted = listen_for_interrupts(&order.stop)?;
    let progress = Progress::new(!args.no_progress && args.format != Format::Ndjson, selected);
    let started = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let live = Live::begin(args, style, selected, environments, &started)?;
    let watcher = Watcher { progress, live: Mutex::new(live), closed: Arc::clone(&order.stop) };
    let outcome = shmcheck_runner::run::run_all(&cells, &scenarios, &order, &watcher);
    let mut report = Report {
        schema_version: SCHEMA_VERSION,
        program: program(),
        started,
        host: host_name(),
        summary: Summary::of(selected, &outcome.cells),
        cells: outcome.cells,
        interrupted: interrupted.load(Ordering::Relaxed) > 0,
        exit_code: 0,
    };
    let demands = Demands { environments: &required.environments, needs: &required.needs, baseline: baseline.as_ref() };
    let end = ending(&report, demands);
    report.exit_code = end.code;
    for (format, file, path) in &mut files {
        render(*format, &report, file)
            .map_err(|e| Failure::Internal(format!("failed to write {}: {e}", path.display())))?;
    }
    if outcome.stopped || report.summary.broken > 0 {
        // What was cut off may have left things; what ended in order was counted by its own inventory.
        let _ = shmcheck_runner::clean::sweep(&journal.entry);
    }
    drop(journal);
    let live = watcher.live.into_inner().map_err(|_| Failure::Internal("a cell's thread panicked".to_owned()))?;
    live.finish(args.format, &report, &end.reasons)?;
    Ok(u8::try_from(end.code).unwrap_or(1))
}

/// What `--require` asks for.
#[derive(Debug, Default)]
struct Required {
    environments: Vec<String>,
    needs: Vec<String>,
}

impl Required {
    fn parse(words: &[String]) -> Result<Self, Failure> {
        let mut required = Self::default();
        let kinds: Vec<String> = shmcheck_probes::catalogue()
            .iter()
            .flat_map(|probe| probe.all_needs())
            .map(|need| need.to_string())
            .chain(["fresh-namespaces".to_owned()])
            .collect();
        for word in words {
            let name = word.split(':').next().unwrap_or_default();
            if let Some(constellation) = Constellation::parse(word) {
                required.environments.push(constellation?.to_string());
            } else if environments::find(name).is_some() {
                let (_, spec) = environments::parse(word)?;
                required.environments.push(spec.to_string());
            } else if kinds.iter().any(|need| need == word || need.split(':').next() == Some(word)) {
                required.needs.push(word.clone());
            } else {
                let names: Vec<&str> = environments::ALL.iter().map(|environment| environment.name()).collect();
                return Err(Failure::Usage(format!(
                    "--require {word}: this is neither an environment ({}) nor a need of any probe (see `shmcheck list`)",
                    names.join(", ")
                )));
            }
        }
        Ok(required)
    }
}

/// The cells: those asked for; where nothing is said, every environment, missing engines included so that the output
/// says why they are not there. What the matrix requires is added to `required`.
fn plan(args: &RunArgs, matrix: Option<Matrix>, required: &mut Required) -> Result<Vec<Planned>, Failure> {
    let mut words: Vec<String> = args.on.clone();
    if words.is_empty() && matrix.is_none() {
        words = environments::ALL.iter().map(|environment| environment.name().to_owned()).collect();
    }
    // What is required is run, also where it was not asked for in other words.
    words.extend(required.environments.iter().cloned());
    let mut cells: Vec<Planned> = Vec::new();
    for cell in matrix.into_iter().flat_map(|matrix| matrix.cells) {
        if cell.required {
            required.environments.push(cell.planned.spec.to_string());
        }
        cells.push(cell.planned);
    }
    for word in words.iter().filter(|word| Constellation::parse(word).is_none()) {
        let (environment, spec) = environments::parse(word)?;
        if !cells.iter().any(|cell| cell.spec == spec) {
            cells.push(Planned { environment, spec });
        }
    }
    Ok(cells)
}

/// The constellations: those asked for; where nothing is said, the usual ones.
fn constellations(args: &RunArgs, required: &Required) -> Result<Vec<Constellation>, Failure> {
    let mut all = if args.on.is_empty() { Constellation::defaults() } else { Vec::new() };
    for word in args.on.iter().chain(&required.environments) {
        if let Some(constellation) = Constellation::parse(word).transpose()?
            && !all.iter().any(|other| other.to_string() == constellation.to_string())
        {
            all.push(constellation);
        }
    }
    Ok(all)
}

/// What is wrong where the selection and the environments do not meet.
fn mismatch(only_probes: bool) -> &'static str {
    if only_probes {
        "a constellation A+B runs scenarios, and none is selected; see `shmcheck list 'scenario.*'`"
    } else {
        "scenarios need a constellation such as --on host+sandbox, and none is named"
    }
}

/// A report read back; what is wrong with it is the caller's to mend.
pub(crate) fn read_report(path: &Path) -> Result<Report, Failure> {
    let text =
        std::fs::read_to_string(path).map_err(|e| Failure::Usage(format!("failed to read {}: {e}", path.display())))?;
    json::read(text.as_bytes()).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))
}

/// Writes the report in a file's format.
pub(crate) fn render(format: FileFormat, report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    let texts = sources::texts();
    match format {
        FileFormat::Json => json::write(report, out),
        FileFormat::Ndjson => {
            let mut events = Ndjson::new(out);
            RunEvent::of(report).try_for_each(|event| events.event(&event))
        }
        FileFormat::Junit => junit::write(report, &texts, out),
        FileFormat::Tap => tap::write(report, &texts, out),
        FileFormat::Markdown => markdown::write(report, &texts, out),
        FileFormat::Html => html::write(report, &texts, out),
    }
}

type Target = (FileFormat, std::fs::File, PathBuf);

/// Files are opened before the run: a path that cannot be written is said at once, not after a minute.
fn open_reports(wanted: &[(FileFormat, PathBuf)]) -> Result<Vec<Target>, Failure> {
    wanted
        .iter()
        .map(|(format, path)| {
            let file = std::fs::File::create(path)
                .map_err(|e| Failure::Usage(format!("--report: failed to create {}: {e}", path.display())))?;
            Ok((*format, file, path.clone()))
        })
        .collect()
}

/// This program's own file.
pub(crate) fn own_file() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|e| Failure::Internal(format!("failed to find this program's file: {e}")))
}

/// This program, for reports.
pub(crate) fn program() -> Program {
    Program {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        libc: shmcheck_agent::libc_version(),
        commit: env!("SHMCHECK_COMMIT").to_owned(),
    }
}

/// The host's name, for reports.
pub(crate) fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// The first ^C ends the run in order, the second at once; what then may be left is said.
fn listen_for_interrupts(stop: &Arc<AtomicBool>) -> Result<Arc<AtomicUsize>, Failure> {
    let count = Arc::new(AtomicUsize::new(0));
    let (seen, stop) = (Arc::clone(&count), Arc::clone(stop));
    ctrlc::set_handler(move || {
        stop.store(true, Ordering::Relaxed);
        let text = if seen.fetch_add(1, Ordering::Relaxed) == 0 {
            "shmcheck: ending in order; once more ends at once and may leave things for `shmcheck clean`"
        } else {
            "shmcheck: ended at once; `shmcheck clean` removes what is left"
        };
        let _ = writeln!(std::io::stderr(), "{text}");
        if seen.load(Ordering::Relaxed) > 1 {
            std::process::exit(shmcheck_report::exit::INTERRUPTED);
        }
    })
    .map_err(|e| Failure::Internal(format!("failed to listen for ^C: {e}")))?;
    Ok(count)
}
