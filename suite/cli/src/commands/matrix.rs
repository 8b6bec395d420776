//! `matrix`: all cells of a matrix file.

use crate::args::MatrixArgs;
use crate::commands::run;
use crate::failure::{Failure, Outcome};
use crate::output::Streams;
use shmcheck_runner::matrix::{Matrix, MatrixError};
use std::io::Write;
use std::path::Path;

/// Runs the file's cells, or prints them.
pub(crate) fn matrix(mut args: MatrixArgs, style: Streams) -> Outcome {
    if !args.list {
        if let Some(other) = args.run.matrix.replace(args.file) {
            return Err(Failure::Usage(format!("--matrix {}: `matrix` has its file already", other.display())));
        }
        return run::run(&args.run, style);
    }
    let mut out = std::io::stdout().lock();
    for cell in read(&args.file)?.cells {
        writeln!(out, "{}{}", cell.planned.spec, if cell.required { " (required)" } else { "" })?;
    }
    Ok(0)
}

/// A matrix file; what is wrong with it is the caller's to mend.
pub(crate) fn read(file: &Path) -> Result<Matrix, Failure> {
    Matrix::read(file).map_err(|e: MatrixError| Failure::Usage(e.to_string()))
}
