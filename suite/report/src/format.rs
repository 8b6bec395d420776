//! The formats that a report can be written in as a file, by their names on the command line.

use crate::texts::Texts;
use crate::{Ndjson, RunEvent, html, json, junit, markdown, tap};
use shmcheck_protocol::Report;
use std::io::{self, Write};

/// A format for a whole report. The one for people on a terminal is [`crate::Human`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// The report itself; can be read back.
    Json,
    /// The report as a stream of events.
    Ndjson,
    /// JUnit XML.
    Junit,
    /// TAP version 14.
    Tap,
    /// GitHub-flavoured Markdown.
    Markdown,
    /// A self-contained page.
    Html,
}

/// There is no format of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no format {name:?}, only {}", Format::ALL.map(Format::as_str).join(", "))]
pub struct UnknownFormat {
    name: String,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 6] = [Self::Json, Self::Ndjson, Self::Junit, Self::Tap, Self::Markdown, Self::Html];

    /// The name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Junit => "junit",
            Self::Tap => "tap",
            Self::Markdown => "markdown",
            Self::Html => "html",
        }
    }

    /// Writes the report in this format and flushes `out`.
    pub fn write(self, report: &Report, texts: &Texts, mut out: impl Write) -> io::Result<()> {
        match self {
            Self::Json => json::write(report, out),
            Self::Ndjson => {
                let mut stream = Ndjson::new(&mut out);
                RunEvent::of(report).try_for_each(|event| stream.event(&event))
            }
            Self::Junit => junit::write(report, texts, out),
            Self::Tap => tap::write(report, texts, out),
            Self::Markdown => markdown::write(report, texts, out),
            Self::Html => html::write(report, texts, out),
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        Self::ALL
            .into_iter()
            .find(|format| format.as_str() == name)
            .ok_or_else(|| UnknownFormat { name: name.to_owned() })
    }
}
