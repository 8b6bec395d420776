//! What agent, runner and readers of reports agree on: facts, messages, records, the report and their schema.
//!
//! Everything here is serialised; a change of a member is a change of an interface.

pub mod facts;
pub mod fitness;
pub mod message;
pub mod report;

pub use facts::{Facts, Ground, Inventory};
pub use fitness::{Unmet, unmet};
pub use message::{Event, Record, Request};
pub use report::{Cell, Expected, Program, Report, Result, Summary};
pub use shmcheck_probe::{Detail, Verdict};

/// The version of the report's format.
pub const SCHEMA_VERSION: u32 = 1;

/// What names of objects outside a process begin with, so that they can be found again.
pub const NAME_PREFIX: &str = "shmcheck.";

/// The longest line that an agent may send in bytes; a longer one is a fault of the agent.
pub const MAX_LINE: usize = 1 << 20;
