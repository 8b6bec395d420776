//! The commands, a file each.

pub(crate) mod agent;
pub(crate) mod clean;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod facts;
pub(crate) mod generate;
pub(crate) mod list;
pub(crate) mod matrix;
pub(crate) mod reference;
pub(crate) mod report;
pub(crate) mod run;
