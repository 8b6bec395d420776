//! Starts agents in environments, derives expectations from what was declared, and judges outcomes.
//!
//! The flow, one way: a [`Spec`] names an environment; the environment turns it into a [`Launch`]; [`cell::run`]
//! starts the agent there, takes its facts and records; [`judge`] holds each record against what was
//! [`Declared`]. The runner knows a probe's data and never its code.

pub mod cell;
pub mod clean;
pub mod constellation;
pub mod declared;
pub mod deviation;
pub mod effective;
pub mod environment;
pub mod environments;
pub mod journal;
pub mod judge;
pub mod launch;
pub mod matrix;
pub mod run;
pub mod scenario;
pub mod seccomp;
pub mod select;
pub mod session;
pub mod spec;
mod troupe;
pub mod version;

pub use constellation::Constellation;
pub use declared::Declared;
pub use environment::{Environment, Missing, Tools};
pub use launch::Launch;
pub use run::{Observer, Order, Outcome};
pub use spec::Spec;
