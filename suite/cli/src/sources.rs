//! What the catalogue says of a probe, as the readers of reports need it.

use shmcheck_probe::Probe;
use shmcheck_report::{ProbeText, Texts};
use shmcheck_runner::effective::{SETTINGS, Setting};

/// The texts of every probe, of every scenario and of every declared setting.
pub(crate) fn texts() -> Texts {
    let of_scenarios = shmcheck_probes::scenarios().into_iter().map(|scenario| &scenario.probe);
    let probes =
        shmcheck_probes::catalogue().into_iter().chain(of_scenarios).map(|probe| (probe.id.to_owned(), text_of(probe)));
    probes.chain(SETTINGS.iter().map(|setting| (setting.id.to_owned(), text_of_setting(setting)))).collect()
}

/// A probe's text.
fn text_of(probe: &Probe) -> ProbeText {
    ProbeText {
        title: probe.title.to_owned(),
        why: probe.why.to_owned(),
        varies: probe.varies.to_owned(),
        fix: probe.fix.to_owned(),
        spec: probe.spec.iter().map(ToString::to_string).collect(),
    }
}

/// A declared setting's text.
fn text_of_setting(setting: &Setting) -> ProbeText {
    ProbeText {
        title: setting.title.to_owned(),
        why: setting.why.to_owned(),
        varies: String::new(),
        fix: setting.fix.to_owned(),
        spec: Vec::new(),
    }
}
