//! Constellations: which environment each party of a scenario is in, `A+B`; and what the parties share by declaration.
//!
//! A party may join the IPC namespace of an earlier one's container: `docker:ipc=shareable+docker:ipc=container:@1`. What
//! is expected of visibility is derived from the declared IPC modes alone, here, and never listed by scenario.

use crate::declared::{Declared, Ipc};
use crate::environments;
use crate::run::Planned;
use crate::spec::{Spec, SpecError};
use shmcheck_probe::Shared;
use std::collections::BTreeMap;
use std::fmt;

/// Environments of parties, in the order in which they are started.
#[derive(Debug, Clone)]
pub struct Constellation {
    /// One environment for each party.
    pub parties: Vec<Planned>,
}

/// What is run where nothing is said, as far as the environments are here.
const DEFAULT: &[&str] = &[
    "host+sandbox",
    "host+sandbox:ipc=host",
    "sandbox+sandbox",
    "host+docker",
    "host+docker:ipc=host",
    "docker+docker",
    "docker:ipc=shareable+docker:ipc=container:@1",
    "host+podman:ipc=host",
    "podman:ipc=shareable+podman:ipc=container:@1",
    "docker+podman",
];

/// Only root can be two users.
const DEFAULT_OF_ROOT: &[&str] = &["host:user=1000+host:user=1001", "host+sandbox:ipc=host,userns"];

/// What stands before the number of an earlier party.
const REFERENCE: &str = "container:@";

impl Constellation {
    /// Reads `A+B`; `None` where the string names one environment only.
    ///
    /// A `+` also joins capabilities; it separates environments where the name of one follows.
    pub fn parse(string: &str) -> Option<Result<Self, SpecError>> {
        let parts = split(string);
        (parts.len() > 1).then(|| Self::of(string, &parts))
    }

    fn of(string: &str, parts: &[&str]) -> Result<Self, SpecError> {
        let error = |problem: String| SpecError { string: string.to_owned(), problem };
        let mut parties: Vec<Planned> = Vec::new();
        for part in parts {
            let (environment, spec) = environments::parse(part)?;
            if let Some(reference) = reference(&spec) {
                let donor = reference.checked_sub(1).and_then(|n| parties.get(n));
                match donor {
                    None => return Err(error(format!("{part}: there is no earlier party {reference}"))),
                    Some(donor)
                        if donor.spec.name != spec.name || donor.spec.flag("rootless") != spec.flag("rootless") =>
                    {
                        return Err(error(format!("{part}: party {reference} is no container of the same engine")));
                    }
                    Some(_) => {}
                }
            }
            parties.push(Planned { environment, spec });
        }
        Ok(Self { parties })
    }

    /// The constellations of a run for which nothing was said: those whose environments are here.
    pub fn defaults() -> Vec<Self> {
        let root = nix::unistd::geteuid().is_root();
        let of_root = DEFAULT_OF_ROOT.iter().filter(|_| root);
        let mut here: BTreeMap<&str, bool> = BTreeMap::new();
        let all = DEFAULT.iter().chain(of_root).filter_map(|string| Self::parse(string)?.ok());
        all.filter(|constellation| {
            constellation.parties.iter().all(|party| {
                let name = party.environment.name();
                *here.entry(name).or_insert_with(|| party.environment.available().is_ok())
            })
        })
        .collect()
    }

    /// The lock of the constellation: that of any of its parties.
    pub fn lock(&self) -> Option<&'static str> {
        self.parties.iter().find_map(|party| party.environment.lock(&party.spec))
    }
}

impl fmt::Display for Constellation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, party) in self.parties.iter().enumerate() {
            if n > 0 {
                f.write_str("+")?;
            }
            party.spec.fmt(f)?;
        }
        Ok(())
    }
}

/// Cuts a string at each `+` behind which the name of an environment stands.
fn split(string: &str) -> Vec<&str> {
    let begins = |rest: &str| {
        let name = rest.split([':', '+']).next().unwrap_or_default();
        environments::find(name).is_some()
    };
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in string.match_indices('+') {
        if begins(&string[at + 1..]) {
            parts.push(&string[start..at]);
            start = at + 1;
        }
    }
    parts.push(&string[start..]);
    parts
}

/// The number of the earlier party that a spec refers to.
pub fn reference(spec: &Spec) -> Option<usize> {
    let number = spec.get("ipc")?.strip_prefix(REFERENCE)?;
    // What is no number refers to nobody, which is said where the party is looked up.
    Some(number.parse().unwrap_or(0))
}

/// A spec in which the reference is replaced by the container's name.
pub fn resolved(spec: &Spec, container: &str) -> Spec {
    let mut spec = spec.clone();
    for (_, value) in spec.keys.iter_mut().filter(|(key, value)| key == "ipc" && value.starts_with(REFERENCE)) {
        *value = format!("container:{container}");
    }
    spec
}

/// The keys of all parties for the report, each with the party's number before it.
pub fn declared(constellation: &Constellation) -> BTreeMap<String, String> {
    let numbered = constellation.parties.iter().enumerate();
    numbered
        .flat_map(|(n, party)| {
            let name = [(format!("{}", n + 1), party.spec.name.clone())];
            let keys = party.spec.declared().into_iter().map(move |(key, value)| (format!("{}.{key}", n + 1), value));
            name.into_iter().chain(keys)
        })
        .collect()
}

/// Whose something is; what belongs to the same is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owner {
    Host,
    Party(usize),
    Container(String),
}

/// Whose IPC namespace and whose /dev/shm a party has; `None` where nothing was declared, or there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Places {
    ipc: Option<Owner>,
    dev_shm: Option<Owner>,
}

/// What the parties were declared to share; `None` where of one of them nothing was declared.
pub fn shared(parties: &[(&Spec, &Declared)], what: Shared) -> Option<bool> {
    let mut places: Vec<Places> = Vec::new();
    for (n, (spec, declared)) in parties.iter().enumerate() {
        let own = Some(Owner::Party(n));
        let donor = reference(spec).and_then(|n| places.get(n.checked_sub(1)?).cloned());
        let outside = spec.get("ipc").and_then(|ipc| ipc.strip_prefix("container:"));
        let mut place = match (donor, outside, declared.ipc) {
            (Some(donor), ..) => donor,
            (None, Some(id), _) => {
                let owner = Some(Owner::Container(id.to_owned()));
                Places { ipc: owner.clone(), dev_shm: owner }
            }
            (None, None, Ipc::Host) => Places { ipc: Some(Owner::Host), dev_shm: Some(Owner::Host) },
            (None, None, Ipc::Private | Ipc::Shared) => Places { ipc: own.clone(), dev_shm: own.clone() },
            (None, None, Ipc::None) => Places { ipc: own.clone(), dev_shm: None },
            (None, None, Ipc::Unsaid) => return None,
        };
        // A tmpfs of the container's own is mounted over whatever the IPC mode gives.
        if spec.get("tmpfs-shm").is_some() {
            place.dev_shm = own;
        }
        places.push(place);
    }
    let owner = |place: &Places| match what {
        Shared::Ipc => place.ipc.clone(),
        Shared::DevShm => place.dev_shm.clone(),
    };
    let first = places.first().and_then(owner)?;
    Some(places.iter().all(|place| owner(place).as_ref() == Some(&first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_before_names_of_environments_only() {
        assert_eq!(
            split("host+docker:cap-add=IPC_LOCK+SYS_NICE,ipc=host"),
            ["host", "docker:cap-add=IPC_LOCK+SYS_NICE,ipc=host"]
        );
        assert_eq!(split("sandbox+sandbox+host:user=1"), ["sandbox", "sandbox", "host:user=1"]);
        assert_eq!(split("docker:cap-add=all"), ["docker:cap-add=all"]);
    }

    #[test]
    fn a_reference_names_an_earlier_container_of_the_same_engine() {
        let problem = |string: &str| Constellation::parse(string).and_then(Result::err).map(|e| e.problem);
        assert_eq!(problem("docker:ipc=shareable+docker:ipc=container:@1"), None);
        for wrong in [
            "docker:ipc=container:@2+docker:ipc=shareable",
            "host+docker:ipc=container:@1",
            "docker+docker:ipc=container:@x",
            "docker:ipc=shareable+podman:ipc=container:@1",
        ] {
            assert!(problem(wrong).is_some_and(|text| text.contains("party")), "{wrong}");
        }
    }

    #[test]
    fn who_shares_follows_from_the_modes() {
        let cases = [
            ("host+docker", false, false),
            ("host+docker:ipc=host", true, true),
            ("docker+docker", false, false),
            ("docker:ipc=host+sandbox:ipc=host", true, true),
            ("docker:ipc=shareable+docker:ipc=container:@1", true, true),
            ("docker:ipc=container:x+docker:ipc=container:x", true, true),
            ("docker:ipc=container:x+docker:ipc=container:y", false, false),
            ("docker:ipc=host+docker:ipc=host,tmpfs-shm=1m", true, false),
            ("host+docker:ipc=none", false, false),
        ];
        for (string, ipc, dev_shm) in cases {
            let constellation = Constellation::parse(string).expect("several parties").expect("well formed");
            let declared: Vec<Declared> = constellation
                .parties
                .iter()
                .map(|party| {
                    let mut declared = Declared::nothing(&party.spec);
                    declared.ipc = match (party.spec.name.as_str(), party.spec.get("ipc")) {
                        ("host", _) | (_, Some("host")) => Ipc::Host,
                        (_, Some("none")) => Ipc::None,
                        (_, None | Some("private")) => Ipc::Private,
                        _ => Ipc::Shared,
                    };
                    declared
                })
                .collect();
            let parties: Vec<_> = constellation.parties.iter().map(|party| &party.spec).zip(&declared).collect();
            assert_eq!(shared(&parties, Shared::Ipc), Some(ipc), "{string}");
            assert_eq!(shared(&parties, Shared::DevShm).unwrap_or(false), dev_shm, "{string}");
        }
    }
}
