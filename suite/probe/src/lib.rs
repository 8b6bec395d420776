//! What a probe is: static data, a function, and the context that function works with.
//!
//! A probe holds one documented sentence against the running kernel. It knows nothing of engines, reports or
//! other probes. This crate has the vocabulary ([`Probe`], [`Need`], [`Clause`], [`Outcome`]), the [`Context`] a
//! probe's function receives, and [`sys`], the only place of the suite with `unsafe` system calls for probes.

pub mod call;
pub mod catalogue;
pub mod clause;
pub mod context;
pub mod guard;
pub mod guard_queue;
pub mod guard_sem;
pub mod key;
pub mod need;
pub mod object;
pub mod outcome;
pub mod peer;
pub mod procfs;
pub mod sys;
pub mod tiny;

pub use call::Sys;
pub use catalogue::{Chapter, Excluded, Isolate, Kind, Probe};
pub use clause::{Clause, doc, kernel, man, posix};
pub use context::Context;
pub use guard::{Map, Segment};
pub use guard_queue::{MqQueue, MsgQueue};
pub use guard_sem::SemSet;
pub use need::{Namespace, Need};
pub use object::{Entry, Object};
pub use outcome::{Detail, Outcome, Stop, Verdict};
pub use peer::{Exit, Gate, Peer};
pub use tiny::Tiny;
