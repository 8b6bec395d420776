//! vm.memfd_noexec: what memfd_create does under each of its values, in a pid namespace of the probe's own.

use super::exec::mode_and_seals;
use caps::Capability;
use libc::{EINVAL, EPERM, O_CLOEXEC, O_WRONLY};
use shmcheck_probe::{Context, Isolate, Need, Outcome, Probe, Stop, Sys, doc, kernel, procfs, sys};
use std::os::fd::AsRawFd;
use sys::{F_SEAL_EXEC, F_SEAL_SEAL, MFD_EXEC, MFD_NOEXEC_SEAL, memfd_create};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] =
    &[&VALUE_0, &VALUE_1, &VALUE_2, &NOT_LOWERED, &INHERITED, &OWN_NAMESPACE, &PRIVILEGE, &RANGE];

const SYSCTL: &str = "vm/memfd_noexec";
const GUIDE: &str = "Documentation/userspace-api/mfd_noexec.rst";
const CALLS: &[Sys] = &[Sys::MemfdCreate];
const NEEDS: &[Need] = &[
    Need::Path("/proc/sys/vm/memfd_noexec"),
    Need::Sysctl(SYSCTL),
    Need::Cap(Capability::CAP_SYS_ADMIN),
    Need::New(shmcheck_probe::Namespace::Pid),
];

/// Runs `body` as the first process of a new pid namespace.
fn in_new_namespace(cx: &mut Context, body: impl FnOnce(&mut Context) -> Outcome) -> Outcome {
    cx.elsewhere(|cx| {
        sys::unshare(libc::CLONE_NEWPID)?;
        cx.cross_pid_namespace();
        cx.elsewhere(body)
    })
}

/// Writes the sysctl of this process's pid namespace.
fn set(value: &str) -> sys::Result<()> {
    let file = sys::open(&format!("/proc/sys/{SYSCTL}"), O_WRONLY | O_CLOEXEC, 0)?;
    sys::tmpfs::write(file.as_raw_fd(), value.as_bytes()).map(drop)
}

fn value() -> Result<u32, Stop> {
    procfs::sysctl_number(SYSCTL)
}

/// A skip where the cell's own value is above the wanted one: it is the least for all namespaces below.
fn reachable(wanted: u32) -> Result<(), Stop> {
    let least = value()?;
    if least <= wanted {
        Ok(())
    } else {
        Err(Stop::skip(format!("vm.memfd_noexec of at most {wanted}"), least.to_string()))
    }
}

/// What memfd_create gave: an errno's name, or mode and seals.
type Made = Result<(u32, i32), &'static str>;
const EXECUTABLE: Made = Ok((0o777, F_SEAL_SEAL));
const DATA: Made = Ok((0o666, F_SEAL_EXEC));

/// Under the value, each set of flags gives one of the results allowed.
fn matrix(cx: &mut Context, wanted: u32, rows: &'static [(u32, &'static [Made])]) -> Outcome {
    reachable(wanted)?;
    in_new_namespace(cx, move |cx| {
        cx.expect_ok(|| set(&wanted.to_string()))?;
        cx.expect_eq("the sysctl read back", value()?, wanted)?;
        for (flags, allowed) in rows {
            let made = match memfd_create("matrix", *flags) {
                Ok(fd) => Ok(mode_and_seals(&fd)?),
                Err(e) => Err(e.name()),
            };
            let what = format!("mode and seals of flags {flags:#x} under {wanted}");
            cx.expect(&what, allowed.contains(&made), format!("one of {allowed:?}"), made)?;
        }
        Ok(())
    })
}

const VALUE_0: Probe = Probe {
    title: "vm.memfd_noexec=0: a plain memfd is executable, as it always was",
    why: "programs from before the flags run code from their memfds; the default must not break them",
    spec: &[doc(GUIDE, "vm.memfd_noexec=0"), kernel("mm/memfd.c", "check_sysctl_memfd_noexec")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.noexec.value-0", |cx| {
        matrix(cx, 0, &[(0, &[EXECUTABLE]), (MFD_EXEC, &[EXECUTABLE]), (MFD_NOEXEC_SEAL, &[DATA])])
    })
};

const VALUE_1: Probe = Probe {
    title: "vm.memfd_noexec=1: a plain memfd is made as with MFD_NOEXEC_SEAL",
    why: "an administrator closes the hole for all programs that do not ask for execution",
    spec: &[doc(GUIDE, "vm.memfd_noexec=1"), kernel("mm/memfd.c", "check_sysctl_memfd_noexec"), doc("lxc#4315", "")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.noexec.value-1", |cx| {
        matrix(cx, 1, &[(0, &[DATA]), (MFD_EXEC, &[EXECUTABLE]), (MFD_NOEXEC_SEAL, &[DATA])])
    })
};

const VALUE_2: Probe = Probe {
    title: "vm.memfd_noexec=2: MFD_EXEC fails with EACCES",
    why: "a locked-down node: runtimes that copy themselves into an executable memfd cannot start there",
    varies: "a plain call fails too in Linux 6.3 to 6.5, later it is made as with MFD_NOEXEC_SEAL",
    fix: "vm.memfd_noexec=1, or a runtime that does without an executable memfd",
    spec: &[doc(GUIDE, "vm.memfd_noexec=2"), kernel("mm/memfd.c", "check_sysctl_memfd_noexec")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.noexec.value-2", |cx| {
        matrix(cx, 2, &[(0, &[DATA, Err("EACCES")]), (MFD_EXEC, &[Err("EACCES")]), (MFD_NOEXEC_SEAL, &[DATA])])
    })
};

const NOT_LOWERED: Probe = Probe {
    title: "a pid namespace cannot go below its parent's vm.memfd_noexec",
    why: "a container with its own root must not undo the host's decision",
    varies: "EINVAL by the range of the value, EPERM in Linux 6.3 to 6.5",
    spec: &[doc(GUIDE, "hierarchical"), kernel("kernel/pid_sysctl.h", "pid_mfd_noexec_dointvec_minmax")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.noexec.not-below-parent", |cx| {
        reachable(1)?;
        in_new_namespace(cx, |cx| {
            cx.expect_ok(|| set("1"))?;
            in_new_namespace(cx, |cx| {
                cx.expect_errno_of(&[EINVAL, EPERM], || set("0"))?;
                cx.expect_eq("value", value()?, 1)?;
                cx.expect_eq("mode and seals", mode_and_seals(&memfd_create("plain", 0)?)?, (0o666, F_SEAL_EXEC))?;
                cx.expect_ok(|| set("2"))
            })
        })
    })
};

const INHERITED: Probe = Probe {
    title: "a new pid namespace starts with its parent's vm.memfd_noexec",
    why: "containers started on a hardened node are hardened from their first process on",
    spec: &[doc(GUIDE, "inherited"), kernel("kernel/pid_namespace.c", "create_pid_namespace")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.noexec.inherited", |cx| {
        in_new_namespace(cx, |cx| {
            set("2")?;
            in_new_namespace(cx, |cx| cx.expect_eq("value in a namespace below one of 2", value()?, 2))
        })
    })
};

const OWN_NAMESPACE: Probe = Probe {
    title: "vm.memfd_noexec of a pid namespace leaves its parent alone",
    why: "one strict container must not stop the runtimes of the host",
    spec: &[doc(GUIDE, "pid namespace"), kernel("kernel/pid_sysctl.h", "")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.noexec.own-namespace", |cx| {
        let made = || mode_and_seals(&memfd_create("plain", 0)?);
        let before = (value()?, made()?);
        in_new_namespace(cx, |_| Ok(set("2")?))?;
        cx.expect_eq("value and a plain memfd outside", (value()?, made()?), before)
    })
};

const PRIVILEGE: Probe = Probe {
    title: "vm.memfd_noexec is set with CAP_SYS_ADMIN only: EPERM",
    why: "whoever may switch it off in a container has switched it off",
    spec: &[doc(GUIDE, "CAP_SYS_ADMIN"), kernel("kernel/pid_sysctl.h", "ns_capable")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.noexec.privilege", |cx| {
        in_new_namespace(cx, |cx| {
            let before = value()?;
            cx.without_caps(&[Capability::CAP_SYS_ADMIN], |cx| cx.expect_errno(EPERM, || set("2")))?;
            cx.expect_eq("value", value()?, before)?;
            cx.expect_ok(|| set("2"))
        })
    })
};

const RANGE: Probe = Probe {
    title: "values of vm.memfd_noexec other than 0, 1, 2 fail with EINVAL",
    why: "a mistyped value must not be taken for one of the others",
    spec: &[doc(GUIDE, "vm.memfd_noexec"), kernel("kernel/pid_sysctl.h", "MEMFD_NOEXEC_SCOPE_NOEXEC_ENFORCED")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.noexec.range", |cx| {
        in_new_namespace(cx, |cx| {
            let before = value()?;
            for wrong in ["3", "-1", "on"] {
                cx.expect_errno(EINVAL, || set(wrong))?;
            }
            cx.expect_eq("value", value()?, before)
        })
    })
};
