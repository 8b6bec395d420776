//! Scenarios in constellations of environments: host and sandbox everywhere, engines where they are found.

mod support;

use rstest::rstest;
use serial_test::serial;
use shmcheck_probe::Verdict;
use shmcheck_protocol::Cell;
use shmcheck_runner::declared::Ipc;
use shmcheck_runner::journal::Journal;
use shmcheck_runner::run::{Order, Planned};
use shmcheck_runner::spec::{Key, Spec};
use shmcheck_runner::{Constellation, Environment, Launch, Missing, Tools, environments, scenario};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Runs all scenarios in a constellation.
fn play(constellation: &Constellation) -> Cell {
    let journal = Journal::begin().expect("a journal can be written");
    let order = Order {
        probes: Vec::new(),
        run: journal.entry.run.clone(),
        tag: journal.entry.tag,
        jobs: 0,
        cells_at_once: 1,
        deadline: Duration::from_secs(10),
        exe: support::program(),
        fail_fast: false,
        stop: Arc::new(AtomicBool::new(false)),
    };
    scenario::run(constellation, &shmcheck_probes::scenarios(), 0, &order, &support::Nobody)
}

fn parse(string: &str) -> Constellation {
    Constellation::parse(string).expect("several environments").expect("the constellation is well formed")
}

/// Whether all environments are here; a visible skip, or a failure where one is required.
fn here(constellation: &Constellation) -> bool {
    constellation.parties.iter().all(|party| match party.environment.available() {
        Ok(_) => true,
        Err(missing) => {
            assert!(!support::required(party.environment.name()), "{} is required: {missing}", party.spec);
            eprintln!("skipped: {constellation}: {missing}");
            false
        }
    })
}

/// Every scenario comes to what is declared; `shared` says how many are not passed over.
fn holds(string: &str, shared: bool) {
    let constellation = parse(string);
    if !here(&constellation) {
        return;
    }
    let cell = play(&constellation);
    assert_eq!(cell.missing, None, "{string}");
    assert_eq!(cell.results.len(), shmcheck_probes::scenarios().len(), "{string}: a result for each scenario");
    for result in &cell.results {
        assert!(result.as_expected, "{string}: {result:#?}");
        let skipped =
            result.outcome == Verdict::Skip && result.detail.need.as_deref().is_some_and(|n| n.starts_with("shared."));
        assert!(result.outcome == Verdict::Pass || skipped && !shared, "{string}: {result:#?}");
    }
    let passed = cell.results.iter().filter(|result| result.outcome == Verdict::Pass).count();
    assert!(passed >= 7, "{string}: scenarios of visibility say something everywhere");
}

#[rstest]
#[case::host_and_sandbox("host+sandbox", false)]
#[case::host_and_open_sandbox("host+sandbox:ipc=host", true)]
#[case::two_sandboxes("sandbox+sandbox", false)]
#[case::two_open_sandboxes("sandbox:ipc=host+sandbox:ipc=host", true)]
#[serial(host_ipc)]
fn without_engines(#[case] string: &str, #[case] shared: bool) {
    holds(string, shared);
}

#[rstest]
#[case::two_users("host:user=1000+host:user=1001", true)]
#[case::remapped("host+sandbox:ipc=host,userns", true)]
#[serial(host_ipc)]
fn as_root(#[case] string: &str, #[case] shared: bool) {
    if nix::unistd::geteuid().is_root() {
        holds(string, shared);
    } else {
        eprintln!("skipped: {string}: only root can be another user");
    }
}

#[rstest]
#[case::docker("docker", "private", "private", false)]
#[case::docker_host("docker", "host", "host", true)]
#[case::docker_joined("docker", "shareable", "container:@1", true)]
#[case::docker_not_joined("docker", "shareable", "shareable", false)]
#[case::podman("podman", "private", "private", false)]
#[case::podman_host("podman", "host", "host", true)]
#[case::podman_joined("podman", "shareable", "container:@1", true)]
#[serial(host_ipc)]
fn with_engines(#[case] engine: &str, #[case] donor: &str, #[case] joiner: &str, #[case] shared: bool) {
    holds(&format!("{engine}:ipc={donor}+{engine}:ipc={joiner}"), shared);
    if donor == joiner {
        holds(&format!("host+{engine}:ipc={joiner}"), shared);
    }
}

/// Says that it is private, and is not.
#[derive(Debug)]
struct Liar;

impl Environment for Liar {
    fn name(&self) -> &'static str {
        "sandbox"
    }

    fn about(&self) -> &'static str {
        "a sandbox that is not what it declares"
    }

    fn keys(&self) -> &'static [Key] {
        &[]
    }

    fn available(&self) -> Result<String, Missing> {
        Ok(String::new())
    }

    fn launch(&self, _spec: &Spec, tools: &Tools) -> Result<Launch, Missing> {
        let (sandbox, spec) = environments::parse("sandbox:ipc=host").expect("there is a sandbox");
        let mut launch = sandbox.launch(&spec, tools)?;
        launch.declared.ipc = Ipc::Private;
        Ok(launch)
    }
}

/// The scenarios of visibility notice when a party sees what it was declared not to see.
#[test]
#[serial(host_ipc)]
fn a_leak_is_noticed() {
    let mut constellation = parse("host+sandbox");
    let spec = constellation.parties[1].spec.clone();
    constellation.parties[1] = Planned { environment: &Liar, spec };
    let cell = play(&constellation);
    let visible: Vec<_> = cell.results.iter().filter(|result| result.outcome != Verdict::Skip).collect();
    assert!(visible.len() >= 7, "{visible:#?}");
    for result in visible {
        assert_eq!((result.outcome, result.as_expected), (Verdict::Fail, false), "{result:#?}");
        assert!(result.detail.message.as_ref().is_some_and(|text| text.contains("party")), "{result:#?}");
    }
    assert_eq!(cell.leftovers, Vec::<String>::new());
}

/// A donor that cannot be joined is a reason, not a failure of the scenarios; and leaves no container.
#[test]
#[serial(host_ipc)]
fn a_private_donor_cannot_be_joined() {
    let constellation = parse("docker:ipc=private+docker:ipc=container:@1");
    if here(&constellation) {
        let cell = play(&constellation);
        assert!(cell.missing.is_some_and(|reason| reason.starts_with("party 2")), "the reason names the party");
    }
}
