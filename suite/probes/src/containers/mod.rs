//! Chapter 10: containers, namespaces, security.

mod devshm;
mod full;
mod identity;
mod ipc_namespace;
mod refused;
mod scenarios;

use shmcheck_probe::Chapter;

pub(crate) use scenarios::SCENARIOS;

/// The chapter.
pub const CHAPTER: Chapter = Chapter {
    number: 10,
    name: "containers",
    title: "Containers, namespaces, security",
    intro: "A container's shared memory is decided by two things that look like one: its IPC namespace, which holds the \
            System V objects and POSIX queues, and the mount on /dev/shm, which holds the POSIX objects and named \
            semaphores. Who shares both sees everything, who shares one sees half, and the IPC mode of an engine sets \
            both at once. User and pid namespaces translate who made what; capabilities reach only as far as the user \
            namespace that owns the IPC namespace. Scenarios put two parties into different environments and hold what \
            one sees of the other against what was declared.",
    files: &[ipc_namespace::PROBES, identity::PROBES, refused::PROBES, devshm::PROBES],
    excluded: refused::EXCLUDED,
};
