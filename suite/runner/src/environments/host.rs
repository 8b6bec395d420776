//! The host: the agent as a child process, in the namespaces of whoever started the runner.

use crate::declared::{Declared, Ipc};
use crate::environment::{Environment, HOST_IPC, Missing, Tools};
use crate::launch::Launch;
use crate::spec::{Key, Spec, Value, parse_user};

/// The machine as it is.
#[derive(Debug)]
pub(super) struct Host;

const KEYS: &[Key] = &[Key { name: "user", value: Value::User, help: "run the agent as this user (needs root)" }];

impl Environment for Host {
    fn name(&self) -> &'static str {
        "host"
    }

    fn about(&self) -> &'static str {
        "the machine as it is, in the caller's own namespaces"
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn available(&self) -> Result<String, Missing> {
        Ok(String::new())
    }

    fn lock(&self, _spec: &Spec) -> Option<&'static str> {
        Some(HOST_IPC)
    }

    fn launch(&self, spec: &Spec, tools: &Tools) -> Result<Launch, Missing> {
        let user = spec.get("user").and_then(parse_user);
        let mut declared = Declared::nothing(spec);
        declared.ipc = Ipc::Host;
        declared.user = user.map(|(uid, _)| uid);
        let mut launch = Launch::own(&tools.exe, &["--shared-ipc"], declared);
        if let Some((uid, gid)) = user {
            if !nix::unistd::geteuid().is_root() && nix::unistd::geteuid().as_raw() != uid {
                return Err(Missing::new(
                    format!("user {uid} can be assumed by root only"),
                    "run as root or leave out user=",
                ));
            }
            launch.user = nix::unistd::geteuid().is_root().then_some((uid, gid));
        }
        Ok(launch)
    }
}
