//! `list`: ids, chapters, needs; what would be skipped somewhere; what is excluded.

use crate::args::{ListArgs, ListFormat};
use crate::commands::facts;
use crate::failure::{Failure, Outcome};
use crate::output::Streams;
use serde::Serialize;
use shmcheck_probe::{Chapter, Excluded, Probe};
use shmcheck_probes::{CHAPTERS, containers, scenarios};
use shmcheck_protocol::{Facts, unmet};
use shmcheck_runner::select::{Filter, FilterError, select_all};
use std::io::Write;

/// A probe as `--format json` shows it.
#[derive(Debug, Serialize)]
struct Listed {
    id: &'static str,
    chapter: &'static str,
    title: &'static str,
    why: &'static str,
    spec: Vec<String>,
    calls: Vec<&'static str>,
    needs: Vec<String>,
    /// The (page, errno) pairs that the probe provokes.
    provokes: Vec<(&'static str, &'static str)>,
    isolation: &'static str,
    /// With `--on`: the need that is not met there, and the value measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    unmet: Option<(String, String)>,
}

/// An exclusion as `--format json` shows it.
#[derive(Debug, Serialize)]
struct Left {
    chapter: &'static str,
    page: &'static str,
    errno: &'static str,
    reason: &'static str,
}

/// Prints the selection.
pub(crate) fn list(args: &ListArgs, _style: Streams) -> Outcome {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if args.excluded {
        excluded(args, &mut out)?;
        out.flush()?;
        return Ok(0);
    }
    let filters = args.filters.iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let chosen = selected(&filters)?;
    let facts = args.on.as_deref().map(facts::of).transpose()?;
    match args.format {
        ListFormat::Json => {
            let listed: Vec<Listed> = chosen.iter().map(|probe| listed(probe, facts.as_ref())).collect();
            json(&mut out, &listed)?;
        }
        ListFormat::Human => human(&mut out, &chosen, facts.as_ref())?,
    }
    out.flush()?;
    Ok(0)
}

/// Probes and the claims of scenarios.
fn selected(filters: &[Filter]) -> Result<Vec<&'static Probe>, FilterError> {
    let scenarios = scenarios();
    let selection = select_all(CHAPTERS, (&containers::CHAPTER, &scenarios), filters)?;
    let of_scenarios = selection.scenarios.into_iter().map(|scenario| &scenario.probe);
    Ok(selection.probes.into_iter().chain(of_scenarios).collect())
}

fn json(out: &mut impl Write, value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::Internal(e.to_string()))?;
    Ok(writeln!(out, "{text}")?)
}

fn listed(probe: &'static Probe, facts: Option<&Facts>) -> Listed {
    let unmet = facts.and_then(|facts| unmet(probe, facts));
    Listed {
        id: probe.id,
        chapter: shmcheck_probes::chapter_of(probe).map_or("", |chapter| chapter.name),
        title: probe.title,
        why: probe.why,
        spec: probe.spec.iter().map(ToString::to_string).collect(),
        calls: probe.calls.iter().map(|call| call.name()).collect(),
        needs: probe.needs.iter().map(ToString::to_string).collect(),
        provokes: probe.provokes().collect(),
        isolation: isolation(probe),
        unmet: unmet.map(|unmet| (unmet.need, unmet.found)),
    }
}

fn isolation(probe: &Probe) -> &'static str {
    use shmcheck_probe::Isolate;
    if scenarios().iter().any(|scenario| scenario.probe.id == probe.id) {
        return "constellation";
    }
    match probe.isolate {
        Isolate::Fresh => "fresh",
        Isolate::FreshOnly => "fresh-only",
        Isolate::Cell => "cell",
        Isolate::CellAlone => "cell-alone",
    }
}

fn human(out: &mut impl Write, chosen: &[&'static Probe], facts: Option<&Facts>) -> Result<(), Failure> {
    let mut skipped = 0;
    for chapter in CHAPTERS {
        let is_of = |probe: &&&Probe| shmcheck_probes::chapter_of(probe).is_some_and(|own| own.name == chapter.name);
        let probes: Vec<_> = chosen.iter().filter(is_of).collect();
        if probes.is_empty() {
            continue;
        }
        writeln!(out, "{} {} (@{}, {} probes)", chapter.number, chapter.title, chapter.name, probes.len())?;
        for probe in probes {
            writeln!(out, "  {}", probe.id)?;
            writeln!(out, "      {}", probe.title)?;
            match facts {
                None if !probe.needs.is_empty() => {
                    let needs: Vec<String> = probe.needs.iter().map(ToString::to_string).collect();
                    writeln!(out, "      needs {}", needs.join(", "))?;
                }
                None => {}
                Some(facts) => {
                    if let Some(unmet) = unmet(probe, facts) {
                        skipped += 1;
                        let verb = if unmet.refusal.is_some() { "blocked" } else { "skipped" };
                        writeln!(out, "      {verb} here: needs {}, found {}", unmet.need, unmet.found)?;
                    }
                }
            }
        }
    }
    match facts {
        Some(_) => writeln!(out, "{} probes, {skipped} of them would not run there", chosen.len())?,
        None => writeln!(out, "{} probes", chosen.len())?,
    }
    Ok(())
}

fn excluded(args: &ListArgs, out: &mut impl Write) -> Result<(), Failure> {
    let all: Vec<(&Chapter, &Excluded)> =
        CHAPTERS.iter().flat_map(|chapter| chapter.excluded.iter().map(move |e| (*chapter, e))).collect();
    if args.format == ListFormat::Json {
        let left: Vec<Left> = all
            .iter()
            .map(|(chapter, e)| Left { chapter: chapter.name, page: e.page, errno: e.errno, reason: e.reason })
            .collect();
        return json(out, &left);
    }
    for (_, e) in &all {
        writeln!(out, "{} {}\n    {}", e.page, e.errno, e.reason)?;
    }
    writeln!(out, "{} documented errors are not provoked", all.len())?;
    Ok(())
}
