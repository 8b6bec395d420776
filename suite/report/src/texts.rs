//! What a report says of a probe beyond its outcome. The program fills this from its catalogue: this crate does not
//! know the probes.

use std::collections::BTreeMap;

/// The words of one probe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProbeText {
    /// The claim in one sentence.
    pub title: String,
    /// Which program breaks where the claim does not hold, and what its user sees.
    pub why: String,
    /// How environments change the behaviour; may be empty.
    pub varies: String,
    /// What to do about it; may be empty.
    pub fix: String,
    /// The clauses that state the claim, each as a person would cite it.
    pub spec: Vec<String>,
}

impl ProbeText {
    /// The members with their labels; empty ones have empty values.
    pub(crate) fn words(&self) -> [(&'static str, String); 4] {
        let clauses = if self.spec.is_empty() { String::new() } else { format!(" [{}]", self.spec.join("; ")) };
        [
            ("claim", format!("{}{clauses}", self.title)),
            ("why", self.why.clone()),
            ("varies", self.varies.clone()),
            ("fix", self.fix.clone()),
        ]
    }
}

/// The words of all probes by id. A report of a newer program may have probes that are not in here.
pub type Texts = BTreeMap<String, ProbeText>;
