//! `explain`: what a probe claims and why, for someone on call and for someone who learns the subject.

use crate::args::ExplainArgs;
use crate::failure::{Failure, Outcome};
use crate::output::Streams;
use crate::sources::{text_of, text_of_setting};
use shmcheck_probe::{Chapter, Probe};
use shmcheck_probes::CHAPTERS;
use shmcheck_runner::effective::SETTINGS;
use shmcheck_runner::select::near_misses;
use std::fmt::Write as _;
use std::io::Write;

/// The width of the text in columns.
const WIDTH: usize = 80;

/// Prints it.
pub(crate) fn explain(args: &ExplainArgs, _style: Streams) -> Outcome {
    let text = match args.what.as_deref() {
        None => roadmap(),
        Some(what) => about(what)?,
    };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(0)
}

fn about(what: &str) -> Result<String, Failure> {
    if let Some(probe) = CHAPTERS.iter().flat_map(|chapter| chapter.probes()).find(|probe| probe.id == what) {
        return Ok(of_probe(probe));
    }
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.id == what) {
        return Ok(format!("{}\n{}", setting.id, shmcheck_report::explain(&text_of_setting(setting))));
    }
    let plain = what.trim_start_matches('@');
    let named = |chapter: &&&Chapter| chapter.name == plain || chapter.number.to_string() == plain;
    if let Some(chapter) = CHAPTERS.iter().find(named) {
        return Ok(of_chapter(chapter));
    }
    let near = near_misses(CHAPTERS, what);
    let hint = if near.is_empty() { "see `shmcheck list`".to_owned() } else { format!("near: {}", near.join(", ")) };
    Err(Failure::Nothing(format!("there is no probe or chapter {what:?}; {hint}")))
}

fn roadmap() -> String {
    let mut text = String::from("The Shared Memory Mastery Roadmap, chapter by chapter\n\n");
    for chapter in CHAPTERS {
        let _ = writeln!(
            text,
            "{}  {} (@{}, {} probes)",
            chapter.number,
            chapter.title,
            chapter.name,
            chapter.probes().count()
        );
        let _ = writeln!(text, "{}\n", paragraph(chapter.intro, "   ", WIDTH));
    }
    text.push_str("`shmcheck explain CHAPTER` lists its probes, `shmcheck explain ID` explains one.\n");
    text
}

fn of_chapter(chapter: &Chapter) -> String {
    let mut text = format!("{}  {}\n\n{}\n", chapter.number, chapter.title, paragraph(chapter.intro, "", WIDTH));
    for probe in chapter.probes() {
        let _ = write!(text, "\n{}\n    {}\n", probe.id, probe.title);
    }
    text
}

fn of_probe(probe: &'static Probe) -> String {
    let mut text = format!("{}\n{}", probe.id, shmcheck_report::explain(&text_of(probe)));
    let mut line = |name: &str, words: String| {
        if !words.is_empty() {
            let _ = writeln!(text, "{}", paragraph(&format!("{name:<8}{words}"), "        ", WIDTH).trim_start());
        }
    };
    line("calls", probe.calls.iter().map(|call| call.name()).collect::<Vec<_>>().join(", "));
    line("needs", probe.needs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    line("run", format!("shmcheck run {}", probe.id));
    let file = probe.location.file();
    if let Some(source) = shmcheck_probes::source::of(probe) {
        let _ = write!(text, "\n{file}\n\n{source}");
    }
    text
}

/// Text of several lines, wrapped; all but the first are indented, the first with the text's own start.
fn paragraph(text: &str, indent: &str, width: usize) -> String {
    textwrap::fill(text, textwrap::Options::new(width).initial_indent(indent).subsequent_indent(indent))
}
