//! Container engines with Docker's command line: docker and podman share it but for a few words.

use super::handed;
use super::identity::{accounts, with_subordinate_ids};
use super::image::{Client, LABEL};
use crate::declared::{Declared, Filter, Ipc, Maker, cap_names, parse_ulimit};
use crate::environment::{Environment, HOST_IPC, Missing, Tools};
use crate::launch::Launch;
use crate::seccomp::{Dialect, Known, Newer, Place, Profile, running_kernel};
use crate::spec::{Key, Spec, Value, parse_size, parse_user};
use caps::{Capability, CapsHashSet};
use std::path::Path;

/// An engine.
#[derive(Debug)]
pub(super) struct Engine {
    name: &'static str,
    about: &'static str,
    keys: &'static [Key],
    /// How a container is killed and removed; Podman would first ask it to end for ten seconds.
    remove: &'static [&'static str],
    default_ipc: &'static str,
    default_shm: u64,
    default_caps: &'static [Capability],
}

/// Docker.
pub(super) const DOCKER: Engine = Engine {
    name: "docker",
    about: "a container of the Docker engine, made from this program or in the image given",
    keys: KEYS.split_at(KEYS.len() - 1).0,
    remove: &["rm", "--force", "--volumes"],
    default_ipc: "private",
    default_shm: 64 << 20,
    default_caps: &[
        Capability::CAP_CHOWN,
        Capability::CAP_DAC_OVERRIDE,
        Capability::CAP_FOWNER,
        Capability::CAP_FSETID,
        Capability::CAP_KILL,
        Capability::CAP_SETGID,
        Capability::CAP_SETUID,
        Capability::CAP_SETPCAP,
        Capability::CAP_NET_BIND_SERVICE,
        Capability::CAP_NET_RAW,
        Capability::CAP_SYS_CHROOT,
        Capability::CAP_MKNOD,
        Capability::CAP_AUDIT_WRITE,
        Capability::CAP_SETFCAP,
    ],
};

/// Podman, as root or rootless.
pub(super) const PODMAN: Engine = Engine {
    name: "podman",
    about: "a container of Podman, as root or (rootless) as an ordinary user",
    keys: KEYS,
    remove: &["rm", "--force", "--volumes", "--time", "0"],
    default_ipc: "shareable",
    // "65536k" of containers-common, read with k = 1000.
    default_shm: 65_536_000,
    default_caps: &[
        Capability::CAP_CHOWN,
        Capability::CAP_DAC_OVERRIDE,
        Capability::CAP_FOWNER,
        Capability::CAP_FSETID,
        Capability::CAP_KILL,
        Capability::CAP_NET_BIND_SERVICE,
        Capability::CAP_SETFCAP,
        Capability::CAP_SETGID,
        Capability::CAP_SETPCAP,
        Capability::CAP_SETUID,
        Capability::CAP_SYS_CHROOT,
    ],
};

const IPC: Value = Value::WordOrContainer(&["private", "shareable", "host", "none"]);

// Podman's own key stands last: Docker's list is this one without it.
const KEYS: &[Key] = &[
    Key { name: "ipc", value: IPC, help: "whose IPC namespace: private, shareable, host, none, container:ID" },
    Key {
        name: "seccomp",
        value: Value::WordOrFile(&["default", "unconfined"]),
        help: "the filter: default, unconfined, or a profile in the engines' JSON format",
    },
    Key { name: "user", value: Value::User, help: "UID or UID:GID inside" },
    Key { name: "userns", value: Value::Text, help: "as the engine's --userns" },
    Key { name: "cap-add", value: Value::Caps, help: "capabilities to add, joined with +" },
    Key { name: "cap-drop", value: Value::Caps, help: "capabilities to drop, joined with +" },
    Key { name: "privileged", value: Value::Flag, help: "all capabilities, no filter" },
    Key { name: "shm", value: Value::Size, help: "size of /dev/shm" },
    Key { name: "tmpfs-shm", value: Value::Size, help: "an explicit tmpfs of this size on /dev/shm" },
    Key { name: "read-only", value: Value::Flag, help: "the root file system cannot be written" },
    Key { name: "memory", value: Value::Size, help: "memory limit of the container" },
    Key { name: "ulimit.", value: Value::Text, help: "ulimit.NAME=SOFT[:HARD]" },
    Key { name: "sysctl.", value: Value::Text, help: "sysctl.NAME=VALUE, such as sysctl.kernel.shmmni=5" },
    Key { name: "runtime", value: Value::Text, help: "OCI runtime: runc, crun, runsc, …" },
    Key { name: "image", value: Value::Text, help: "image under test; this program is mounted into it" },
    Key { name: "rootless", value: Value::Flag, help: "as an ordinary user; as root: as the user of ci/engines" },
];

/// The ordinary user whom root becomes for rootless cells, unless `SHMCHECK_ROOTLESS_USER` names another.
const ROOTLESS_USER: &str = "shmcheck";

impl Engine {
    fn client(&self, rootless: bool) -> Result<Client, Missing> {
        let plain = Client { program: self.name, user: None, env: Vec::new() };
        if !rootless || !nix::unistd::geteuid().is_root() {
            return Ok(plain);
        }
        let name = std::env::var("SHMCHECK_ROOTLESS_USER").unwrap_or_else(|_| ROOTLESS_USER.to_owned());
        let remedy = "ci/engines makes one, or name another in SHMCHECK_ROOTLESS_USER";
        let account = accounts()
            .into_iter()
            .find(|account| account.name == name && account.uid != 0)
            .ok_or_else(|| Missing::new(format!("there is no ordinary user {name} for rootless containers"), remedy))?;
        if !with_subordinate_ids().contains(&name) {
            return Err(Missing::new(format!("user {name} has no subordinate ids in /etc/subuid"), remedy));
        }
        let env = vec![
            ("HOME".to_owned(), account.home),
            ("USER".to_owned(), account.name),
            ("XDG_RUNTIME_DIR".to_owned(), format!("/run/user/{}", account.uid)),
        ];
        Ok(Client { user: Some((account.uid, account.gid)), env, ..plain })
    }

    fn server_version(&self, client: &Client) -> Result<String, Missing> {
        let format = if self.name == "docker" { "{{.Server.Version}}" } else { "{{.Client.Version}}" };
        client.run(&["version", "--format", format]).map_err(|complaint| {
            let remedy = "start it, or set it up with ci/engines on Debian; `shmcheck doctor` tells more";
            if complaint.contains("No such file or directory") && complaint.starts_with(self.name) {
                Missing::new(
                    format!("there is no program {} on the PATH", self.name),
                    "ci/engines installs it on Debian",
                )
            } else {
                Missing::new(format!("{} does not answer: {complaint}", self.name), remedy)
            }
        })
    }

    fn declare(&self, spec: &Spec, version: String) -> Result<Declared, Missing> {
        let mut declared = Declared::nothing(spec);
        let dialect = if self.name == "docker" { Dialect::docker(&version) } else { Dialect::PODMAN };
        declared.engine = Some(Maker { name: self.name.to_owned(), version });
        declared.runtime = spec.get("runtime").map(|name| Maker { name: name.to_owned(), version: String::new() });
        let ipc = spec.get("ipc").unwrap_or(self.default_ipc);
        declared.keys.insert("ipc".to_owned(), ipc.to_owned());
        declared.ipc = match ipc {
            "host" => Ipc::Host,
            "none" => Ipc::None,
            "private" => Ipc::Private,
            _ => Ipc::Shared,
        };
        declared.user = match spec.get("user").and_then(parse_user) {
            Some((uid, _)) => Some(uid),
            // Inside, the program is whoever called the engine.
            None if spec.get("userns").is_some_and(|mode| mode.starts_with("keep-id")) => None,
            None => Some(0),
        };
        let privileged = spec.flag("privileged");
        declared.caps_added = cap_names(spec.all("cap-add"));
        declared.caps_dropped = cap_names(spec.all("cap-drop"));
        let mut caps: CapsHashSet = self.default_caps.iter().copied().collect();
        if privileged {
            caps = caps::all().into_iter().collect();
        }
        caps.retain(|cap| !declared.caps_dropped.contains(cap));
        caps.extend(&declared.caps_added);
        // An explicit drop of one beats `cap-add=all`; an explicit add of one beats `cap-drop=all`.
        if spec.all("cap-add").any(|name| name.eq_ignore_ascii_case("all")) {
            caps.retain(|cap| !declared.caps_dropped.contains(cap));
        }
        declared.caps_dropped.retain(|cap| !caps.contains(cap));
        let place = Place { caps: caps.clone(), kernel: running_kernel() };
        declared.caps = Some(caps);
        declared.seccomp = match spec.get("seccomp") {
            Some("unconfined") => Filter::Unconfined,
            None | Some("default") if privileged => Filter::Unconfined,
            // The container itself tells when it is there: see `learn`.
            None | Some("default") => Filter::Unknown("which one was not found out".to_owned()),
            Some(file) => {
                let profile = Profile::read(Path::new(file)).map_err(|e| Missing::new(e.to_string(), ""))?;
                let profile = profile.handed(dialect, &place);
                let newer = spec.get("runtime").map_or(Newer::Unknown, Newer::of_runtime);
                let whose = "the declared seccomp profile".to_owned();
                Filter::Known(Box::new(Known { profile, place, whose, newer }))
            }
        };
        declared.dev_shm = Some(declared.ipc != Ipc::None || spec.get("tmpfs-shm").is_some());
        let own_shm = matches!(declared.ipc, Ipc::Private | Ipc::Shared) && !ipc.starts_with("container:");
        let asked = spec.get("tmpfs-shm").or(spec.get("shm")).and_then(parse_size);
        declared.shm_size = asked.or(own_shm.then_some(self.default_shm));
        declared.read_only = Some(spec.flag("read-only"));
        declared.sysctls = spec.dotted("sysctl.").map(|(k, v)| (k.replace('.', "/"), v.to_owned())).collect();
        declared.ulimits = spec.dotted("ulimit.").filter_map(|(k, v)| Some((k.to_owned(), parse_ulimit(v)?))).collect();
        Ok(declared)
    }

    /// The arguments of `run`, without the image and what comes behind it.
    fn arguments(&self, spec: &Spec, tools: &Tools, name: &str) -> Vec<String> {
        let mut args: Vec<String> =
            ["run", "-i", "--rm", "--network", "none", "--log-driver", "none", "--pull", "never"]
                .map(str::to_owned)
                .to_vec();
        let mut add = |flag: &str, value: &str| args.extend([flag.to_owned(), value.to_owned()]);
        add("--name", name);
        add("--label", &format!("{LABEL}.run={}", tools.run));
        add("--label", &owner());
        for (key, value) in &spec.keys {
            match key.as_str() {
                "ipc" | "user" | "userns" | "memory" | "runtime" => add(&format!("--{key}"), value),
                "seccomp" if value == "default" => {}
                // The engines resolve a relative path against their own working directory.
                "seccomp" => add("--security-opt", &format!("seccomp={}", absolute(value))),
                "cap-add" | "cap-drop" => value.split('+').for_each(|cap| add(&format!("--{key}"), cap)),
                "shm" => add("--shm-size", value),
                "tmpfs-shm" => add("--tmpfs", &format!("/dev/shm:rw,nosuid,nodev,noexec,mode=1777,size={value}")),
                "privileged" | "read-only" if value == "true" => add(&format!("--{key}=true"), ""),
                _ => {}
            }
        }
        for (name, value) in spec.dotted("sysctl.") {
            add("--sysctl", &format!("{name}={value}"));
        }
        for (name, value) in spec.dotted("ulimit.") {
            add("--ulimit", &format!("{name}={value}"));
        }
        args.retain(|arg| !arg.is_empty());
        args
    }
}

/// Whether a container is gone, which an engine that was already removing it needs a moment for.
fn is_gone(client: &Client, name: &str) -> bool {
    (0..50).any(|_| {
        let gone = client.run(&["container", "inspect", name]).is_err();
        if !gone {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        gone
    })
}

/// The label that says whose run a container belongs to.
fn owner() -> String {
    format!("{LABEL}.user={}", nix::unistd::geteuid())
}

fn container_name(tools: &Tools) -> String {
    format!("{LABEL}-{}-{}", tools.run, tools.number)
}

/// The run that a container of [`container_name`] belongs to.
fn run_of(name: &str) -> Option<&str> {
    name.strip_prefix(LABEL)?.strip_prefix('-')?.rsplit_once('-').map(|(run, _)| run)
}

fn absolute(path: &str) -> String {
    std::fs::canonicalize(path).map_or_else(|_| path.to_owned(), |full| full.display().to_string())
}

impl Environment for Engine {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn keys(&self) -> &'static [Key] {
        self.keys
    }

    fn available(&self) -> Result<String, Missing> {
        self.server_version(&self.client(false)?)
    }

    fn check(&self, spec: &Spec) -> Result<(), String> {
        for (name, value) in spec.dotted("ulimit.") {
            if parse_ulimit(value).is_none() {
                return Err(format!("ulimit.{name}={value}: give SOFT or SOFT:HARD, each a number or -1"));
            }
        }
        if spec.get("shm").is_some() && spec.get("tmpfs-shm").is_some() {
            return Err("shm and tmpfs-shm both size /dev/shm; give one of them".to_owned());
        }
        if self.name == "docker" && spec.get("ipc") == Some("none") && spec.get("shm").is_some() {
            return Err("ipc=none has no /dev/shm that shm= could size".to_owned());
        }
        Ok(())
    }

    fn lock(&self, spec: &Spec) -> Option<&'static str> {
        (spec.get("ipc") == Some("host")).then_some(HOST_IPC)
    }

    fn launch(&self, spec: &Spec, tools: &Tools) -> Result<Launch, Missing> {
        let client = self.client(spec.flag("rootless"))?;
        let version = self.server_version(&client)?;
        if spec.flag("rootless") && client.user.is_none() && nix::unistd::geteuid().is_root() {
            return Err(Missing::new("rootless needs an ordinary user", ""));
        }
        let declared = self.declare(spec, version)?;
        if !cfg!(target_feature = "crt-static") {
            let remedy = "build with the repository's .cargo/config.toml, which links statically";
            return Err(Missing::new("this program is linked dynamically and cannot run in an image", remedy));
        }
        let name = container_name(tools);
        let mut args = self.arguments(spec, tools, &name);
        match spec.get("image") {
            Some(image) => {
                let exe = tools.exe.display();
                args.extend(["--volume".to_owned(), format!("{exe}:/shmcheck:ro"), "--entrypoint".to_owned()]);
                args.extend(["/shmcheck".to_owned(), image.to_owned()]);
            }
            None => {
                let image = client.image(&tools.exe).map_err(|complaint| Missing::new(complaint, ""))?;
                args.extend([image, "/shmcheck".to_owned()]);
            }
        }
        args.push("agent".to_owned());
        let joined = spec.get("ipc").is_some_and(|ipc| ipc == "host" || ipc.starts_with("container:"));
        if joined {
            args.push("--shared-ipc".to_owned());
        }
        Ok(Launch {
            program: client.program.to_owned(),
            args,
            env: client.env.clone(),
            user: client.user,
            container: Some(name.clone()),
            declared,
            undo: vec![
                std::iter::once(client.program)
                    .chain(self.remove.iter().copied())
                    .chain([name.as_str()])
                    .map(str::to_owned)
                    .collect(),
            ],
        })
    }

    fn learn(&self, launch: &mut Launch) {
        handed::learn(launch);
    }

    fn clean(&self, dead: &dyn Fn(&str) -> bool, dry: bool) -> Vec<String> {
        let mut lines = Vec::new();
        for rootless in [false, true] {
            if rootless && (self.name != "podman" || !nix::unistd::geteuid().is_root()) {
                continue;
            }
            let Ok(client) = self.client(rootless) else { continue };
            // Of this user's runs only: whether another's live, its journals would have to say.
            let filter = format!("label={}", owner());
            let Ok(list) = client.run(&["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"]) else {
                continue;
            };
            for name in list.lines().filter(|name| run_of(name).is_some_and(dead)) {
                let removed = dry || client.run(&[self.remove, &[name]].concat()).is_ok() || is_gone(&client, name);
                let failed = if removed { "" } else { " (failed)" };
                lines.push(format!("{} container {name}{failed}", self.name));
            }
        }
        lines
    }
}
