//! `report`: a JSON report in another format.

use crate::args::{FileFormat, ReportArgs, ReportFormat};
use crate::commands::run::{read_report, render};
use crate::failure::Outcome;
use crate::output::Streams;
use crate::sources;
use shmcheck_report::Human;
use std::io::{Write, stdout};

/// Reads it and writes it to standard output.
pub(crate) fn report(args: &ReportArgs, style: Streams) -> Outcome {
    let report = read_report(&args.file)?;
    let format = match args.to {
        ReportFormat::Human => {
            let mut human = Human::new(stdout().lock(), style.out(), sources::texts(), false);
            for cell in &report.cells {
                human.cell(cell)?;
            }
            human.finish(&report, &[])?;
            return Ok(0);
        }
        ReportFormat::Html => FileFormat::Html,
        ReportFormat::Markdown => FileFormat::Markdown,
        ReportFormat::Junit => FileFormat::Junit,
        ReportFormat::Tap => FileFormat::Tap,
    };
    // In one piece: a format's own writer would wrap the error of a pipe that its reader closed.
    let mut bytes = Vec::new();
    render(format, &report, &mut bytes)?;
    stdout().lock().write_all(&bytes)?;
    Ok(0)
}
