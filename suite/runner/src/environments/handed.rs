//! What an engine really handed to the OCI runtime: the runtime's name, and the seccomp filter of the container's bundle.
//!
//! The engine writes a `config.json` for the runtime. Where this user can read it, it is what the expectation is derived
//! from; else the profile that the engine reads is; else the filter stays unknown, and says so in every judgement.

use crate::declared::{Filter, Maker};
use crate::launch::{Launch, run_tool};
use crate::seccomp::{
    Dialect, Known, Newer, Place, Profile, podman_default_file, running_kernel, stored_docker_default,
};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Where containerd keeps the bundles of Docker's containers: its own service's, and that of a daemon which started it.
const DOCKER_BUNDLES: &[&str] = &[
    "/run/containerd/io.containerd.runtime.v2.task/moby",
    "/run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby",
];

/// Asks the engine for the started container, and completes the declaration.
pub(super) fn learn(launch: &mut Launch) {
    let Some(asked) = inspect(launch) else { return };
    let runtime = Maker { version: version(launch, &asked.runtime), name: asked.runtime.clone() };
    launch.declared.runtime = Some(runtime);
    let newer = Newer::of_runtime(&asked.runtime);
    let place = Place { caps: launch.declared.caps.clone().unwrap_or_default(), kernel: running_kernel() };
    launch.declared.seccomp = match std::mem::replace(&mut launch.declared.seccomp, Filter::Unsaid) {
        Filter::Known(mut known) => {
            known.newer = newer;
            Filter::Known(known)
        }
        Filter::Unknown(_) => default_filter(launch, asked.bundle.as_deref(), place, newer),
        other => other,
    };
}

/// What the engine says of a container.
struct Asked {
    runtime: String,
    /// The runtime's `config.json`, where it can be named.
    bundle: Option<PathBuf>,
}

fn inspect(launch: &Launch) -> Option<Asked> {
    let container = launch.container.as_deref()?;
    let docker = is_docker(launch);
    let format = if docker { "{{.Id}} {{.HostConfig.Runtime}}" } else { "{{.OCIConfigPath}} {{.OCIRuntime}}" };
    let line = [&launch.program, "container", "inspect", "--format", format, container].map(str::to_owned);
    let answer = launch.tool(&line).ok()?;
    let (place, runtime) = answer.split_once(' ')?;
    let bundle = if docker {
        DOCKER_BUNDLES.iter().map(|folder| Path::new(folder).join(place).join("config.json")).find(|path| path.exists())
    } else {
        Some(PathBuf::from(place))
    };
    Some(Asked { runtime: runtime.to_owned(), bundle })
}

fn is_docker(launch: &Launch) -> bool {
    launch.declared.engine.as_ref().is_some_and(|engine| engine.name == "docker")
}

/// The engine's default: from the bundle, else from the file that the engine reads, else from what is stored here.
fn default_filter(launch: &Launch, bundle: Option<&Path>, place: Place, newer: Newer) -> Filter {
    let engine = launch.declared.engine.clone().unwrap_or_default();
    let known = |profile: Profile, whose: String| {
        Filter::Known(Box::new(Known { profile, place: place.clone(), whose, newer }))
    };
    let config = bundle.and_then(|path| std::fs::read(path).ok());
    if let Some(Ok(Some(profile))) = config.map(|bytes| Profile::of_bundle(&bytes)) {
        let whose = format!("{}'s default seccomp profile (as handed to {})", engine.name, runtime_of(launch));
        return known(profile, whose);
    }
    if is_docker(launch) {
        let options = launch.tool(&["docker", "info", "--format", "{{.SecurityOptions}}"].map(str::to_owned));
        let built_in = options.is_ok_and(|text| text.contains("profile=default") || text.contains("profile=builtin"));
        return match stored_docker_default(&engine.version).filter(|_| built_in) {
            Some(profile) => known(
                profile.handed(Dialect::docker(&engine.version), &place),
                format!("the default seccomp profile of docker {} (from its source)", engine.version),
            ),
            None => Filter::Unknown(format!("that of docker {} is not known", engine.version)),
        };
    }
    let home = launch.env.iter().find(|(name, _)| name == "HOME").map(|(_, value)| PathBuf::from(value));
    let home = home.or_else(|| std::env::var_os("HOME").map(PathBuf::from));
    let read = podman_default_file(home.as_deref()).and_then(|file| Some((Profile::read(&file).ok()?, file)));
    match read {
        Some((profile, file)) => {
            known(profile.handed(Dialect::PODMAN, &place), format!("the seccomp profile {}", file.display()))
        }
        None => Filter::Unknown(format!("podman {} has no profile that can be read", engine.version)),
    }
}

fn runtime_of(launch: &Launch) -> &str {
    launch.declared.runtime.as_ref().map_or("the runtime", |runtime| runtime.name.as_str())
}

/// The version of a runtime by its own word, asked for once; empty where it does not say.
fn version(launch: &Launch, runtime: &str) -> String {
    static KNOWN: Mutex<Option<HashMap<String, String>>> = Mutex::new(None);
    let Ok(mut known) = KNOWN.lock() else { return String::new() };
    let known = known.get_or_insert_default();
    if let Some(version) = known.get(runtime) {
        return version.clone();
    }
    let said = run_tool(runtime, &["--version".to_owned()], &launch.env, launch.user).unwrap_or_default();
    let version = said.lines().next().and_then(|line| line.split(' ').next_back()).unwrap_or_default().to_owned();
    known.insert(runtime.to_owned(), version.clone());
    version
}
