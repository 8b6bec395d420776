//! `explain`: what a probe claims and why, for someone on call and for someone who learns the subject.

use crate::args::ExplainArgs;
use crate::failure::{Failure, Outcome};
use crate::output::Streams;
use shmcheck_probe::{Chapter, Isolate, Probe, Scenario};
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
    if let Some(scenario) = scenario(what) {
        return Ok(of_probe(&scenario.probe));
    }
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.id == what) {
        let mut text = format!("{}\n{}\n\n", setting.id, setting.title);
        labelled(&mut text, "why", setting.why);
        labelled(&mut text, "fix", setting.fix);
        labelled(&mut text, "runs in", "every environment that declares it, compared with what the agent finds there");
        return Ok(text);
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

fn scenario(id: &str) -> Option<&'static Scenario> {
    shmcheck_probes::scenarios().into_iter().find(|scenario| scenario.probe.id == id)
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
    let of_scenarios = shmcheck_probes::scenarios().into_iter().map(|scenario| &scenario.probe);
    let is_of = |probe: &&Probe| shmcheck_probes::chapter_of(probe).is_some_and(|own| own.name == chapter.name);
    for probe in chapter.probes().chain(of_scenarios.filter(is_of)) {
        let _ = write!(text, "\n{}\n    {}\n", probe.id, probe.title);
    }
    text
}

fn of_probe(probe: &'static Probe) -> String {
    let mut text = format!("{}\n{}\n\n", probe.id, probe.title);
    let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join("; ");
    let parties =
        scenario(probe.id).map(|scenario| scenario.parties.iter().map(|party| party.name).collect::<Vec<_>>());
    let place = match probe.isolate {
        _ if parties.is_some() => "constellations, a party in each environment: --on A+B",
        Isolate::Fresh => "IPC and mount namespaces of its own where it can have them",
        Isolate::FreshOnly => "IPC and mount namespaces of its own, or not at all",
        Isolate::Cell => "the environment's own namespaces",
        Isolate::CellAlone => "the environment's own namespaces, alone",
    };
    for (label, words) in [
        ("why", probe.why.to_owned()),
        ("varies", probe.varies.to_owned()),
        ("fix", probe.fix.to_owned()),
        ("spec", list(&mut probe.spec.iter().map(ToString::to_string))),
        ("calls", list(&mut probe.calls.iter().map(|call| call.name().to_owned()))),
        ("needs", list(&mut probe.needs.iter().map(ToString::to_string))),
        ("runs in", place.to_owned()),
        ("parties", parties.unwrap_or_default().join(", ")),
        ("again", format!("shmcheck run {}", probe.id)),
        ("source", format!("{}:{}", probe.location.file(), probe.location.line())),
    ] {
        labelled(&mut text, label, &words);
    }
    if let Some(source) = shmcheck_probes::source::of(probe) {
        let _ = write!(text, "\n{source}");
    }
    text
}

/// A label and its words, wrapped behind it; nothing where there are no words.
fn labelled(text: &mut String, label: &str, words: &str) {
    if !words.is_empty() {
        let head = format!("{label:<8}");
        let options = textwrap::Options::new(WIDTH).initial_indent(&head).subsequent_indent("        ");
        let _ = writeln!(text, "{}", textwrap::fill(words, options.break_words(false)));
    }
}

/// Text of several lines, wrapped and indented.
fn paragraph(text: &str, indent: &str, width: usize) -> String {
    textwrap::fill(text, textwrap::Options::new(width).initial_indent(indent).subsequent_indent(indent))
}
