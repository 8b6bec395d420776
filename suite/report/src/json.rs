//! The report as JSON, written and read back.

use serde_json::Value;
use shmcheck_protocol::{Report, SCHEMA_VERSION};
use std::io::{self, Write};

/// Why a file is not a report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is not JSON.
    #[error("line {line}, column {column} is not JSON: {problem}")]
    Syntax {
        /// Counted from one.
        line: usize,
        /// Counted from one.
        column: usize,
        /// What the parser says.
        problem: String,
    },
    /// It has no `schema_version`: it may be JSON of something else.
    #[error("it is no report: it has no schema_version")]
    NoVersion,
    /// It was written in another version of the format.
    #[error("schema_version is {found}, this program reads {SCHEMA_VERSION}")]
    Version {
        /// The version of the file.
        found: String,
    },
    /// A member is missing or has the wrong type.
    #[error("at {path} (line {line}, column {column}): {problem}")]
    Shape {
        /// The member, as `cells[3].results[17].outcome`.
        path: String,
        /// Counted from one.
        line: usize,
        /// Counted from one.
        column: usize,
        /// What is wrong.
        problem: String,
    },
}

/// Writes the report, indented, with a line break at the end.
pub fn write(report: &Report, mut out: impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut out, report)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Reads a report. The version is looked at before the rest, so that a report of another version is refused as that.
pub fn read(text: &[u8]) -> Result<Report, ReadError> {
    let value: Value = serde_json::from_slice(text).map_err(|error| ReadError::Syntax {
        line: error.line(),
        column: error.column(),
        problem: plain(&error),
    })?;
    match value.get("schema_version") {
        None => return Err(ReadError::NoVersion),
        Some(found) if *found == SCHEMA_VERSION => {}
        Some(found) => return Err(ReadError::Version { found: found.to_string() }),
    }
    // From the text again: a value no longer knows its line.
    let mut parser = serde_json::Deserializer::from_slice(text);
    serde_path_to_error::deserialize(&mut parser).map_err(|error| ReadError::Shape {
        path: error.path().to_string(),
        line: error.inner().line(),
        column: error.inner().column(),
        problem: plain(error.inner()),
    })
}

/// The parser's words without the place, which is said elsewhere.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(problem, _)| problem.to_owned())
}
