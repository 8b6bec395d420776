//! The built-in sandbox: fresh namespaces around the agent, with a /dev/shm of its own. Needs no engine.
//!
//! The runner starts this program as `agent --confine JSON`; [`enter`] then moves that process into its namespaces
//! before the agent says its first word. Everything in it ends with its first process.

use crate::declared::{Declared, Filter, Ipc, cap_names};
use crate::environment::{Environment, HOST_IPC, Missing, Tools};
use crate::launch::Launch;
use crate::seccomp::{self, Known, Newer, Place, Profile, running_kernel};
use crate::spec::{Key, Spec, Value, parse_size, parse_user};
use caps::{CapSet, Capability, CapsHashSet};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Uid, fork};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The sandbox.
#[derive(Debug)]
pub(super) struct Sandbox;

/// The size of the sandbox's /dev/shm where nothing is said: that of a container.
const SHM_SIZE: u64 = 64 << 20;

const KEYS: &[Key] = &[
    Key { name: "ipc", value: Value::Word(&["private", "host"]), help: "whose IPC namespace and /dev/shm" },
    Key { name: "user", value: Value::User, help: "UID or UID:GID inside" },
    Key { name: "userns", value: Value::Flag, help: "a user namespace too; always so for an ordinary user" },
    Key { name: "caps", value: Value::Caps, help: "capabilities left, joined with +; all or none" },
    Key { name: "seccomp", value: Value::WordOrFile(&["unconfined"]), help: "a profile in the engines' JSON format" },
    Key { name: "shm", value: Value::Size, help: "size of /dev/shm" },
    Key { name: "no-new-privs", value: Value::Flag, help: "set no_new_privs" },
    Key { name: "sysctl.", value: Value::Text, help: "sysctl.NAME=VALUE of the IPC namespace" },
];

/// What a process is to become; travels as JSON on the agent's command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confinement {
    private_ipc: bool,
    user: Option<(u32, u32)>,
    userns: bool,
    caps: Option<Vec<String>>,
    seccomp: Option<PathBuf>,
    shm_size: u64,
    no_new_privs: bool,
    sysctls: BTreeMap<String, String>,
}

/// Why a process could not be confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// A step was refused.
    #[error("failed to {step}: {source}")]
    Step {
        /// What was tried.
        step: String,
        /// The errno.
        source: nix::Error,
    },
    /// A capability set could not be changed.
    #[error("failed to change capabilities: {0}")]
    Caps(#[from] caps::errors::CapsError),
    /// The profile cannot be used.
    #[error(transparent)]
    Seccomp(#[from] seccomp::ProfileError),
    /// A file of /proc could not be written.
    #[error("failed to write {path}: {source}")]
    Write {
        /// The file.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
}

impl Environment for Sandbox {
    fn name(&self) -> &'static str {
        "sandbox"
    }

    fn about(&self) -> &'static str {
        "fresh IPC, mount and pid namespaces (for ordinary users also a user namespace) with a /dev/shm of their own"
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn available(&self) -> Result<String, Missing> {
        let probe = Confinement::of(&Spec { name: "sandbox".to_owned(), keys: Vec::new() });
        // SAFETY: the child only makes system calls and ends without destructors.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                let code = i32::from(probe.unshare().is_err());
                shmcheck_probe::sys::exit_now(code)
            }
            Ok(ForkResult::Parent { child }) => match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, 0)) => Ok(String::new()),
                _ => Err(Missing::new(
                    "this user cannot make namespaces",
                    "run as root, or allow user namespaces (user.max_user_namespaces, kernel.unprivileged_userns_clone)",
                )),
            },
            Err(e) => Err(Missing::new(format!("failed to fork: {e}"), "")),
        }
    }

    fn check(&self, spec: &Spec) -> Result<(), String> {
        if spec.get("ipc") == Some("host") && (spec.get("shm").is_some() || spec.dotted("sysctl.").next().is_some()) {
            return Err("shm= and sysctl. need ipc=private: they would change the host's".to_owned());
        }
        Ok(())
    }

    fn lock(&self, spec: &Spec) -> Option<&'static str> {
        (spec.get("ipc") == Some("host")).then_some(HOST_IPC)
    }

    fn launch(&self, spec: &Spec, tools: &Tools) -> Result<Launch, Missing> {
        self.available()?;
        let confinement = Confinement::of(spec);
        let mut declared = Declared::nothing(spec);
        let private = confinement.private_ipc;
        declared.keys.insert("ipc".to_owned(), if private { "private" } else { "host" }.to_owned());
        declared.ipc = if private { Ipc::Private } else { Ipc::Host };
        declared.user = Some(confinement.user.map_or(if confinement.userns { 0 } else { own_uid() }, |(uid, _)| uid));
        declared.dev_shm = Some(true);
        declared.shm_size = private.then_some(confinement.shm_size);
        declared.no_new_privs = confinement.no_new_privs.then_some(true);
        declared.sysctls = confinement.sysctls.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        let caps = spec.get("caps").map(|_| cap_names(spec.all("caps")));
        declared.caps.clone_from(&caps);
        if let Some(caps) = &caps {
            declared.caps_dropped = caps::all().into_iter().filter(|cap| !caps.contains(cap)).collect();
        }
        declared.seccomp = match spec.get("seccomp") {
            None => Filter::Unsaid,
            Some("unconfined") => Filter::Unconfined,
            Some(file) => {
                let profile = Profile::read(Path::new(file)).map_err(|e| Missing::new(e.to_string(), ""))?;
                let whose = "the declared seccomp profile".to_owned();
                Filter::Known(Box::new(Known { profile, place: confinement.place(), whose, newer: Newer::AsDefault }))
            }
        };
        let json = serde_json::to_string(&confinement).map_err(|e| Missing::new(e.to_string(), ""))?;
        let shared = if private { &["--confine", &json][..] } else { &["--confine", &json, "--shared-ipc"][..] };
        Ok(Launch::own(&tools.exe, shared, declared))
    }
}

fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

impl Confinement {
    fn of(spec: &Spec) -> Self {
        let root = nix::unistd::geteuid().is_root();
        Self {
            private_ipc: spec.get("ipc") != Some("host"),
            user: spec.get("user").and_then(parse_user),
            userns: !root || spec.flag("userns"),
            caps: spec.get("caps").map(|_| cap_names(spec.all("caps")).iter().map(ToString::to_string).collect()),
            seccomp: spec.get("seccomp").filter(|word| *word != "unconfined").map(absolute),
            shm_size: spec.get("shm").and_then(parse_size).unwrap_or(SHM_SIZE),
            no_new_privs: spec.flag("no-new-privs"),
            sysctls: spec.dotted("sysctl.").map(|(k, v)| (k.replace('.', "/"), v.to_owned())).collect(),
        }
    }

    fn bounding(&self) -> Option<CapsHashSet> {
        self.caps.as_ref().map(|names| names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    fn place(&self) -> Place {
        let caps = self.bounding().unwrap_or_else(|| caps::all().into_iter().collect());
        Place { caps, kernel: running_kernel() }
    }

    /// The namespaces alone.
    fn unshare(&self) -> Result<(), ConfineError> {
        if self.userns {
            self.unshare_user()?;
        }
        let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
        if self.private_ipc {
            flags |= CloneFlags::CLONE_NEWIPC;
        }
        unshare(flags).map_err(step("make namespaces"))
    }

    /// Root maps a range of ids as engines do; an ordinary user only itself, as the user asked for inside.
    fn unshare_user(&self) -> Result<(), ConfineError> {
        let (uid, gid) = (own_uid(), nix::unistd::getegid().as_raw());
        if uid == 0 {
            return self.unshare_user_as_root();
        }
        unshare(CloneFlags::CLONE_NEWUSER).map_err(step("make a user namespace"))?;
        let (inner_uid, inner_gid) = self.user.unwrap_or((0, 0));
        write("/proc/self/setgroups", "deny")?;
        write("/proc/self/uid_map", &format!("{inner_uid} {uid} 1"))?;
        write("/proc/self/gid_map", &format!("{inner_gid} {gid} 1"))
    }

    /// The map of several ids can only be written from outside: a child of this process, which stays out, does it.
    fn unshare_user_as_root(&self) -> Result<(), ConfineError> {
        let own = nix::unistd::getpid();
        let (wait, go) = std::io::pipe().map_err(|e| ConfineError::Write { path: "a pipe".to_owned(), source: e })?;
        // SAFETY: the child only reads a pipe, writes two files and ends without destructors.
        match unsafe { fork() }.map_err(step("fork"))? {
            ForkResult::Child => {
                drop(go);
                let _ = std::io::Read::read(&mut &wait, &mut [0]);
                let map = |file: &str| write(&format!("/proc/{own}/{file}"), "0 100000 65536");
                let failed = map("uid_map").and_then(|()| map("gid_map")).is_err();
                shmcheck_probe::sys::exit_now(i32::from(failed))
            }
            ForkResult::Parent { child } => {
                unshare(CloneFlags::CLONE_NEWUSER).map_err(step("make a user namespace"))?;
                drop(go);
                match waitpid(child, None) {
                    Ok(WaitStatus::Exited(_, 0)) => {}
                    _ => return Err(step("map users")(nix::Error::EPERM)),
                }
            }
        }
        nix::unistd::setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0)).map_err(step("become group 0"))?;
        nix::unistd::setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).map_err(step("become user 0"))?;
        stay_dumpable()
    }

    /// As the first process of the pid namespace: file systems, limits, identity, filter.
    fn furnish(&self) -> Result<(), ConfineError> {
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount_on(None, "/", None, private, None)?;
        let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount_on(Some("proc"), "/proc", Some("proc"), plain, None)?;
        if self.private_ipc && Path::new("/dev/shm").is_dir() {
            let options = format!("mode=1777,size={}", self.shm_size);
            mount_on(Some("shmcheck"), "/dev/shm", Some("tmpfs"), plain, Some(&options))?;
        }
        if self.private_ipc && Path::new("/dev/mqueue").is_dir() {
            mount_on(Some("shmcheck"), "/dev/mqueue", Some("mqueue"), plain, None)?;
        }
        for (name, value) in &self.sysctls {
            write(&format!("/proc/sys/{name}"), value)?;
        }
        self.limit()
    }

    fn limit(&self) -> Result<(), ConfineError> {
        let kept = self.bounding();
        if let Some(kept) = &kept {
            for cap in caps::all().into_iter().filter(|cap| !kept.contains(cap)) {
                // A capability that the kernel does not know is not there either.
                if caps::has_cap(None, CapSet::Bounding, cap).unwrap_or(false) {
                    caps::drop(None, CapSet::Bounding, cap)?;
                }
            }
        }
        if let Some((uid, gid)) = self.user.filter(|(uid, _)| *uid != own_uid()) {
            nix::unistd::setgroups(&[]).map_err(step("drop the supplementary groups"))?;
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            nix::unistd::setresgid(gid, gid, gid).map_err(step("become the group"))?;
            nix::unistd::setresuid(uid, uid, uid).map_err(step("become the user"))?;
            stay_dumpable()?;
        } else if let Some(kept) = &kept {
            caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
            let have = caps::read(None, CapSet::Permitted)?;
            let left: CapsHashSet = have.into_iter().filter(|cap| kept.contains(cap)).collect();
            // A filter without no_new_privs needs CAP_SYS_ADMIN: where that goes, no_new_privs is set below.
            caps::set(None, CapSet::Effective, &left)?;
            caps::set(None, CapSet::Permitted, &left)?;
        }
        let privileged = caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap_or(false);
        if self.no_new_privs || self.seccomp.is_some() && !privileged {
            shmcheck_probe::sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
                .map_err(|e| step("set no_new_privs")(nix::Error::from_raw(e.errno)))?;
        }
        if let Some(path) = &self.seccomp {
            seccomp::install(&Profile::read(path)?, &self.place())?;
        }
        Ok(())
    }
}

/// Moves this process into the confinement. The calling process becomes the outer one, which waits for the inner and
/// ends with its code; only the inner one returns.
pub fn enter(confinement: &Confinement) -> Result<(), ConfineError> {
    confinement.unshare()?;
    // SAFETY: the program has one thread here; the outer process only waits and ends.
    match unsafe { fork() }.map_err(step("start the first process"))? {
        ForkResult::Child => {
            // The sandbox ends with the runner's child: what the outer process cannot hand over, the kernel does.
            shmcheck_probe::sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL.unsigned_abs().into())
                .map_err(|e| step("die with the parent")(nix::Error::from_raw(e.errno)))?;
            confinement.furnish()
        }
        ForkResult::Parent { child } => {
            let code = match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, code)) => code,
                _ => 1,
            };
            shmcheck_probe::sys::exit_now(code)
        }
    }
}

/// A change of ids clears the flag, and /proc/self would belong to root: nobody could look into these processes.
fn stay_dumpable() -> Result<(), ConfineError> {
    shmcheck_probe::sys::prctl(libc::PR_SET_DUMPABLE, 1)
        .map(drop)
        .map_err(|e| step("keep /proc/self readable")(nix::Error::from_raw(e.errno)))
}

fn absolute(path: &str) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.into())
}

fn step(what: &str) -> impl Fn(nix::Error) -> ConfineError + use<> {
    let step = what.to_owned();
    move |source| ConfineError::Step { step: step.clone(), source }
}

fn write(path: &str, text: &str) -> Result<(), ConfineError> {
    std::fs::write(path, text).map_err(|source| ConfineError::Write { path: path.to_owned(), source })
}

fn mount_on(
    source: Option<&str>,
    target: &str,
    kind: Option<&str>,
    flags: MsFlags,
    data: Option<&str>,
) -> Result<(), ConfineError> {
    mount(source, target, kind, flags, data).map_err(step(&format!("mount on {target}")))
}
