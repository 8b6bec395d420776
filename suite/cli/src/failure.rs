//! Why the program ends without doing what it was asked, and with which code.

use shmcheck_report::exit;
use std::io::Write;
use std::process::ExitCode;

/// A reason to end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The caller's words do not fit.
    #[error("{0}")]
    Usage(String),
    /// The filters select nothing.
    #[error("{0}")]
    Nothing(String),
    /// Something here went wrong.
    #[error("{0}")]
    Internal(String),
    /// The output was closed by its reader, as `head` does.
    #[error("output closed")]
    Closed,
}

/// What a command returns: the exit code.
pub(crate) type Outcome = Result<u8, Failure>;

impl Failure {
    fn code(&self) -> i32 {
        match self {
            Self::Usage(_) => exit::USAGE,
            Self::Nothing(_) => exit::NOTHING,
            Self::Internal(_) => exit::INTERNAL,
            // What an ordinary tool that dies of SIGPIPE shows to its shell would be 141; a closed pipe ends quietly.
            Self::Closed => exit::OK,
        }
    }

    /// Says it on standard error.
    pub(crate) fn report(&self) -> ExitCode {
        if !matches!(self, Self::Closed) {
            // Nobody may be listening there either.
            let _ = writeln!(std::io::stderr(), "shmcheck: {self}");
        }
        ExitCode::from(u8::try_from(self.code()).unwrap_or(1))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::Closed
        } else {
            Self::Internal(format!("failed to write: {error}"))
        }
    }
}

impl From<shmcheck_runner::select::FilterError> for Failure {
    fn from(error: shmcheck_runner::select::FilterError) -> Self {
        use shmcheck_runner::select::FilterError;
        match error {
            FilterError::Malformed { .. } => Self::Usage(error.to_string()),
            FilterError::Nothing { .. } => Self::Nothing(error.to_string()),
        }
    }
}

impl From<shmcheck_runner::spec::SpecError> for Failure {
    fn from(error: shmcheck_runner::spec::SpecError) -> Self {
        Self::Usage(error.to_string())
    }
}
