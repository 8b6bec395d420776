//! Scenarios: claims about two parties in different environments.

mod identity;
mod lifetime;
mod posix;
mod sync;
mod sysv;

use shmcheck_probe::{Party, Scenario};

/// All scenarios of the chapter, a table for each file.
pub(crate) const SCENARIOS: &[&[&Scenario]] =
    &[sysv::SCENARIOS, posix::SCENARIOS, identity::SCENARIOS, sync::SCENARIOS, lifetime::SCENARIOS];

/// The party that makes an object.
const MAKER: usize = 0;
/// The party that looks for it.
const SEEKER: usize = 1;

/// The parties of all scenarios of visibility.
const PARTIES: &[Party] = &[Party::new("maker"), Party::new("seeker")];

/// What the maker writes.
const FROM_MAKER: &[u8] = b"from the maker";
/// What the seeker writes.
const FROM_SEEKER: &[u8] = b"from the seeker";
/// Where the seeker writes.
const SEEKERS_PLACE: usize = 64;

/// What changes visibility, for all scenarios of the IPC namespace.
const VARIES_IPC: &str = "System V objects and POSIX queues are seen by those who share an IPC namespace: --ipc=host and \
                          the host, --ipc=container:… and its donor, the containers of a Kubernetes pod. Docker's \
                          default is private, Podman's shareable, and neither is shared until somebody joins";
/// What changes visibility, for all scenarios of /dev/shm.
const VARIES_SHM: &str = "objects in /dev/shm are seen by those who have the same mount there: the engines mount the host's \
                          with --ipc=host and the donor's with --ipc=container:…; a tmpfs or volume on /dev/shm hides \
                          it whatever the IPC mode says (moby#12046, podman#8181)";
/// The remedy for all of them.
const FIX: &str = "run both with one IPC mode that shares: --ipc=shareable for the donor and --ipc=container:NAME for the \
                   others, or one pod; where they must not see each other, leave the default (private)";
