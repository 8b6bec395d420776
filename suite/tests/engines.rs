//! The engine reached in a second, independent way: through its API by testcontainers, not by its command line.
//!
//! The program runs there as in a machine of its own (`facts`, `run --on host`), and must find what the runner's cell of
//! the same configuration finds: a mistake in how the runner words a command line would show as a difference.

mod support;

use rstest::rstest;
use serial_test::serial;
use shmcheck_probe::{Sys, sys};
use shmcheck_protocol::{Facts, Result as Judged, Verdict};
use shmcheck_report::ndjson::RunEvent;
use shmcheck_runner::declared::Refusal;
use std::collections::BTreeMap;
use testcontainers::core::WaitFor;
use testcontainers::core::wait::ExitWaitStrategy;
use testcontainers::runners::SyncRunner;
use testcontainers::{ContainerRequest, GenericImage, ImageExt};

/// A container that the API is asked for.
type Request = ContainerRequest<GenericImage>;

/// Whether Docker answers; a visible skip, or a failure where it is required.
fn docker() -> bool {
    let found = shmcheck_runner::environments::find("docker").map(|docker| docker.available());
    match found {
        Some(Ok(_)) => true,
        other => {
            assert!(!support::required("docker"), "docker is required: {other:?}");
            eprintln!("skipped: {other:?}");
            false
        }
    }
}

/// The image of the runner's docker cells, made by a cell of its own where it is not there yet.
fn image() -> GenericImage {
    let cell = support::run("docker", vec![]);
    assert_eq!(cell.missing, None);
    let args = ["image", "ls", "--filter", "label=shmcheck=image", "--format", "{{.Tag}}"];
    let output = std::process::Command::new("docker").args(args).output().expect("docker's client runs");
    let tags = String::from_utf8_lossy(&output.stdout).into_owned();
    GenericImage::new("shmcheck", tags.lines().next().expect("the cell has made its image"))
        .with_wait_for(WaitFor::Exit(ExitWaitStrategy::new()))
}

/// What the program prints in a container that the API starts.
fn output(change: fn(Request) -> Request, words: &[&str]) -> String {
    let command = std::iter::once("/shmcheck").chain(words.iter().copied());
    let request = image().with_cmd(command).with_network("none");
    let container = change(request).start().expect("the API starts a container");
    let bytes = container.stdout_to_vec().expect("the container's log can be read");
    String::from_utf8(bytes).expect("the program prints text")
}

/// What must be the same, whichever way the container was started.
fn comparable(facts: &Facts) -> impl PartialEq + std::fmt::Debug + use<> {
    let own_ipc = std::fs::read_link("/proc/self/ns/ipc").map(|link| link.display().to_string()).unwrap_or_default();
    let ipc = format!("ipc:[{}]", facts.namespaces.get("ipc").copied().unwrap_or_default());
    let shm = &facts.cell.dev_shm;
    (
        (facts.user.uid, facts.user.gid, facts.user.effective.clone(), facts.user.bounding.clone()),
        (facts.seccomp_mode, facts.refused_calls.clone(), facts.root_read_only),
        (shm.size, shm.mode.clone(), shm.options.clone(), shm.refused.clone()),
        facts.rlimits.get("nofile").copied(),
        own_ipc == ipc,
    )
}

#[rstest]
#[case::default("docker", |request: Request| request)]
#[case::sized("docker:shm=1m", |request: Request| request.with_shm_size(1 << 20))]
#[case::user("docker:user=65534:65534", |request: Request| request.with_user("65534:65534"))]
#[case::no_capabilities("docker:cap-drop=all", |request: Request| request.with_cap_drop("ALL"))]
#[case::locking("docker:cap-add=IPC_LOCK", |request: Request| request.with_cap_add("IPC_LOCK"))]
#[case::read_only("docker:read-only", |request: Request| request.with_readonly_rootfs(true))]
#[case::unconfined("docker:seccomp=unconfined", |request: Request| request.with_security_opt("seccomp=unconfined"))]
#[case::limited("docker:ulimit.nofile=512:1024", |request: Request| request.with_ulimit("nofile", 512, Some(1024)))]
#[case::no_ipc("docker:ipc=none", |request: Request| with_ipc(request, "none"))]
#[case::host_ipc("docker:ipc=host", |request: Request| with_ipc(request, "host"))]
#[serial(docker)]
fn the_api_gives_what_the_command_line_gives(#[case] environment: &str, #[case] change: fn(Request) -> Request) {
    if !docker() {
        return;
    }
    let by_command_line = support::facts(environment).expect("the runner starts its cell");
    let by_api: Facts = serde_json::from_str(&output(change, &["facts"])).expect("the program prints its facts");
    assert_eq!(comparable(&by_api), comparable(&by_command_line));
}

/// What the filter is expected to refuse, call by call, against what the agent's control experiments find refused: the
/// expectation comes from the profile, the finding from the kernel.
#[rstest]
#[case::docker("docker")]
#[case::docker_crun("docker:runtime=crun")]
#[case::docker_nice("docker:cap-add=SYS_NICE+SYS_PTRACE")]
#[case::docker_default_errno("docker:seccomp=../../fixtures/seccomp/enosys-default.json")]
#[case::docker_without("docker:seccomp=../../fixtures/seccomp/no-mempolicy.json,cap-drop=all")]
#[case::podman("podman")]
#[case::podman_runc("podman:runtime=runc")]
#[case::podman_caps("podman:cap-drop=all,user=65534")]
#[case::podman_default_errno("podman:seccomp=../../fixtures/seccomp/enosys-default.json")]
#[case::rootless("podman:rootless")]
#[serial(docker)]
fn every_call_is_refused_as_the_profile_says(#[case] environment: &str) {
    let engine = environment.split(':').next().unwrap_or_default();
    let (facts, declared) = match support::look(environment) {
        Ok(found) => found,
        Err(reason) => {
            assert!(!support::required(engine), "{engine} is required: {reason}");
            eprintln!("skipped: {reason}");
            return;
        }
    };
    for call in Sys::ALL {
        let found = facts.refused_calls.get(call.name()).map(String::as_str);
        match declared.refusal(*call) {
            Some(Refusal::Always(errno)) => {
                let wanted = errno.map_or("SIGSYS", sys::errno_name);
                assert_eq!(found, Some(wanted), "{} refuses {}", declared.filter(), call.name());
            }
            // A kernel without the call gives ENOSYS by itself.
            None => assert!(matches!(found, None | Some("ENOSYS")), "{} in {environment}: {found:?}", call.name()),
            Some(Refusal::Sometimes(_) | Refusal::Perhaps) => {}
        }
    }
    let unknown = Sys::ALL.iter().filter(|call| declared.refusal(**call) == Some(Refusal::Perhaps)).count();
    assert_eq!(unknown, 0, "{}", declared.filter());
}

fn with_ipc(request: Request, mode: &'static str) -> Request {
    request.with_host_config_modifier(move |config| config.ipc_mode = Some(mode.to_owned()))
}

#[test]
#[serial(docker)]
fn every_probe_has_the_same_outcome_by_the_api() {
    if !docker() {
        return;
    }
    let cell = support::run("docker", shmcheck_probes::catalogue());
    // Inside, `--on host` cannot know that nobody else lives in the IPC namespace.
    let alone = |result: &Judged| result.detail.need.as_deref() == Some("own-ipc");
    let text = output(|request| request, &["run", "--on", "host", "--format", "ndjson", "--no-progress"]);
    let events = text.lines().map(|line| serde_json::from_str(line).expect("a line is an event"));
    let results = events.filter_map(|event| match event {
        RunEvent::Result { result, .. } if !result.id.starts_with("declared.") => Some(result),
        _ => None,
    });
    let by_api: BTreeMap<String, Verdict> =
        results.filter(|result| !alone(result)).map(|result| (result.id, result.outcome)).collect();
    let of_cell = cell.results.iter().filter(|result| by_api.contains_key(&result.id));
    let by_command_line: BTreeMap<String, Verdict> =
        of_cell.map(|result| (result.id.clone(), result.outcome)).collect();
    assert!(by_api.len() * 10 > cell.results.len() * 9, "only {} results by the API", by_api.len());
    assert_eq!(by_api, by_command_line);
}

/// A segment of the host is in the table of a container with the host's IPC namespace, and in no other's.
#[rstest]
#[case::host(|request: Request| with_ipc(request, "host"), true)]
#[case::private(|request: Request| with_ipc(request, "private"), false)]
#[case::shareable(|request: Request| with_ipc(request, "shareable"), false)]
#[serial(docker)]
fn a_segment_of_the_host_is_seen(#[case] change: fn(Request) -> Request, #[case] seen: bool) {
    if !docker() {
        return;
    }
    let id = sys::shmget(libc::IPC_PRIVATE, 4096, 0o600).expect("a segment can be made");
    let text = output(change, &["facts"]);
    sys::shm_remove(id).expect("the segment can be removed");
    let facts: Facts = serde_json::from_str(&text).expect("the program prints its facts");
    assert_eq!(facts.inventory.shm.iter().any(|(found, _)| *found == id), seen, "{:?}", facts.inventory.shm);
}

/// A cell leaves no container, whatever became of it.
#[test]
#[serial(docker)]
fn no_container_is_left() {
    if !docker() {
        return;
    }
    let left = |word: &str| {
        let args = ["ps", "--all", "--quiet", "--filter", "label=shmcheck.run"];
        let output = std::process::Command::new("docker").args(args).output().expect("docker's client runs");
        assert!(output.stdout.is_empty(), "{word}: {}", String::from_utf8_lossy(&output.stdout));
    };
    support::run("docker", vec![]);
    left("after a cell");
    let cell = support::run("docker:ipc=container:no-such-donor", vec![]);
    assert!(cell.missing.is_some_and(|reason| reason.contains("no-such-donor")), "the reason names the donor");
    left("after a cell that did not start");
    let cell = support::run("docker:image=no-such-image:none", vec![]);
    assert!(cell.missing.is_some(), "an image that is not there is a reason");
    left("after an image that is not there");
}
