//! Reports in every format. This crate knows records and judgements only: it never prints, exits or looks at the
//! system, and it does not know the probes; what it says of one beyond the outcome comes from [`Texts`].
//!
//! Everything from the place under test is hostile. Each format replaces or escapes what its reader would obey.

mod clean;
mod describe;
pub mod diff;
pub mod exit;
mod failures;
mod format;
pub mod html;
mod human;
pub mod json;
pub mod junit;
mod keyfacts;
pub mod markdown;
pub mod ndjson;
mod reasons;
pub mod schema;
mod style;
pub mod tap;
mod texts;
mod units;
mod wrap;

pub use diff::Diff;
pub use exit::{Demands, Ending};
pub use format::{Format, UnknownFormat};
pub use human::{Human, explain};
pub use ndjson::{Ndjson, RunEvent};
pub use style::Style;
pub use texts::{ProbeText, Texts};
