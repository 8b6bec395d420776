//! `explain`: what a probe claims and why, for someone on call and for someone who learns the subject.

use crate::args::{ExplainArgs, ExplainFormat};
use crate::commands::reference;
use crate::failure::{Failure, Outcome};
use crate::output::Streams;
use shmcheck_probe::{Chapter, Probe};
use shmcheck_probes::CHAPTERS;
use shmcheck_runner::effective::{SETTINGS, Setting};
use shmcheck_runner::select::near_misses;
use std::fmt::Write as _;
use std::io::Write;

/// The width of the text in columns.
const WIDTH: usize = 80;

/// What can be explained.
enum Subject {
    Roadmap,
    /// All of a number: two halves of the roadmap's chapter may have it.
    Chapters(Vec<&'static Chapter>),
    Probe(&'static Probe),
    Setting(&'static Setting),
}

/// Prints it.
pub(crate) fn explain(args: &ExplainArgs, _style: Streams) -> Outcome {
    let subject = args.what.as_deref().map_or(Ok(Subject::Roadmap), find)?;
    let text = match args.format {
        ExplainFormat::Human => match subject {
            Subject::Roadmap => roadmap(),
            Subject::Chapters(chapters) => each(&chapters, of_chapter),
            Subject::Probe(probe) => of_probe(probe),
            Subject::Setting(setting) => of_setting(setting),
        },
        ExplainFormat::Markdown => match subject {
            Subject::Roadmap => reference::index(),
            Subject::Chapters(chapters) => each(&chapters, reference::of_chapter),
            Subject::Probe(probe) => reference::of_probe(probe),
            Subject::Setting(setting) => reference::of_setting(setting),
        },
    };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(0)
}

fn find(what: &str) -> Result<Subject, Failure> {
    if let Some(probe) = CHAPTERS.iter().flat_map(|chapter| chapter.probes()).find(|probe| probe.id == what) {
        return Ok(Subject::Probe(probe));
    }
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.id == what) {
        return Ok(Subject::Setting(setting));
    }
    let plain = what.trim_start_matches('@');
    let named = |chapter: &&&'static Chapter| chapter.name == plain || chapter.number.to_string() == plain;
    let chapters: Vec<&'static Chapter> = CHAPTERS.iter().filter(named).copied().collect();
    if !chapters.is_empty() {
        return Ok(Subject::Chapters(chapters));
    }
    let near = near_misses(CHAPTERS, what);
    let hint = if near.is_empty() { "see `shmcheck list`".to_owned() } else { format!("near: {}", near.join(", ")) };
    Err(Failure::Nothing(format!("there is no probe or chapter {what:?}; {hint}")))
}

fn each(chapters: &[&'static Chapter], text: fn(&Chapter) -> String) -> String {
    chapters.iter().map(|chapter| text(chapter)).collect::<Vec<_>>().join("\n")
}

fn of_setting(setting: &Setting) -> String {
    let mut text = format!("{}\n{}\n\n", setting.id, setting.title);
    labelled(&mut text, "why", setting.why);
    labelled(&mut text, "fix", setting.fix);
    labelled(&mut text, "runs in", "every environment that declares it, compared with what the agent finds there");
    text
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
    let mut text = format!("{}\n{}\n\n", probe.id, probe.title);
    let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join("; ");
    for (label, words) in [
        ("why", probe.why.to_owned()),
        ("varies", probe.varies.to_owned()),
        ("fix", probe.fix.to_owned()),
        ("spec", list(&mut probe.spec.iter().map(ToString::to_string))),
        ("calls", list(&mut probe.calls.iter().map(|call| call.name().to_owned()))),
        ("needs", list(&mut probe.needs.iter().map(ToString::to_string))),
        ("runs in", reference::place(probe.isolate).to_owned()),
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
