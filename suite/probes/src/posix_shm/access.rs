//! shm_open(3): who may open an object: mode, umask, owner, fs.protected_regular, mount flags.

use super::open::{exists, object_name, object_of_mode};
use caps::Capability;
use libc::{EACCES, EPERM, EROFS, O_CREAT, O_RDONLY, O_RDWR, O_TRUNC};
use shmcheck_probe::{Context, Entry, Isolate, Map, Need, Object, Outcome, Probe, doc, man, posix, procfs, sys};
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &MODE_UMASK,
    &MODE_OF_CREATOR,
    &OWNER_BITS,
    &GROUP_BITS,
    &OTHER_BITS,
    &SUPPLEMENTARY,
    &OVERRIDE,
    &ONCE,
    &TRUNC_NEEDS_WRITE,
    &PROTECTED_USER,
    &PROTECTED_ROOT,
    &CLOSED_DIRECTORY,
    &READ_ONLY_MOUNT,
    &FCHMOD,
    &FCHMOD_OTHER,
    &FCHOWN,
    &FCHOWN_OTHER,
];

const NEEDS: &[Need] = &[Need::DevShm];
const USERS: &[Need] = &[Need::DevShm, Need::OtherUsers];
/// To make objects of another user: give them away, then set their mode.
const GIVING: &[Need] =
    &[Need::DevShm, Need::OtherUsers, Need::Cap(Capability::CAP_CHOWN), Need::Cap(Capability::CAP_FOWNER)];
/// What root loses to be judged by the mode bits like everybody.
const OVERRIDES: &[Capability] = &[Capability::CAP_DAC_OVERRIDE, Capability::CAP_DAC_READ_SEARCH];

const MODE_UMASK: Probe = Probe {
    title: "the mode of a new object is the one asked for less the umask",
    why: "a daemon that wants 0666 for its clients and runs under umask 077 serves nobody but itself; Fast DDS users of \
          two accounts discover each other and get no data",
    fix: "set the umask before creating, or fchmod afterwards",
    spec: &[man("shm_open(3)", "O_CREAT"), man("umask(2)", "DESCRIPTION"), posix("shm_open")],
    needs: NEEDS,
    ..Probe::new("posix.shm.access.mode-and-umask", mode_and_umask)
};
fn mode_and_umask(cx: &mut Context) -> Outcome {
    for (mode, mask, wanted) in
        [(0o666, 0, 0o666), (0o666, 0o022, 0o644), (0o777, 0o077, 0o700), (0o640, 0o137, 0o640), (0o600, 0o777, 0)]
    {
        sys::umask(mask);
        let made = object_of_mode(cx, 0, mode)?;
        cx.expect_eq(&format!("mode of {mode:o} under umask {mask:o}"), made.stat()?.st_mode & 0o7777, wanted)?;
    }
    Ok(())
}

const MODE_OF_CREATOR: Probe = Probe {
    title: "the creator's descriptor works whatever the mode says",
    why: "the classic lock is created with mode 0 and filled by its creator alone; later opens obey the mode",
    spec: &[man("open(2)", "O_CREAT"), man("shm_open(3)", "EACCES"), posix("shm_open")],
    needs: NEEDS,
    ..Probe::new("posix.shm.access.mode-spares-creator", |cx| {
        let name = cx.fresh_name();
        cx.without_caps(OVERRIDES, move |cx| {
            let made = Object::create(name, 0, 0)?;
            cx.expect_ok(|| sys::ftruncate(made.raw(), 8))?;
            made.map(8)?.write(0, 1);
            cx.expect_errno(EACCES, || made.open(O_RDONLY))
        })
    })
};

const OWNER_BITS: Probe = Probe {
    title: "the owner's bits alone decide for the owner",
    why: "a service that takes its own write bit away must be stopped by it, even where others may write",
    spec: &[man("shm_open(3)", "EACCES"), man("path_resolution(7)", "Permissions"), posix("shm_open")],
    needs: GIVING,
    ..Probe::new("posix.shm.access.owner-bits", |cx| class_bits(cx, 6, (1, 65534)))
};
const GROUP_BITS: Probe = Probe {
    title: "the group's bits alone decide for a member of the group",
    why: "vLLM and DDS set-ups share through a group; an ignored group bit shows as silence between containers",
    spec: &[man("shm_open(3)", "EACCES"), man("path_resolution(7)", "Permissions"), posix("shm_open")],
    needs: GIVING,
    ..Probe::new("posix.shm.access.group-bits", |cx| class_bits(cx, 3, (65534, 1)))
};
const OTHER_BITS: Probe = Probe {
    title: "the bits of others decide for everybody else",
    why: "a stale object of mode 0644 lets a second user discover the bus and never write to it; mode 0600 must keep \
          secrets from all",
    spec: &[man("shm_open(3)", "EACCES"), man("path_resolution(7)", "Permissions"), posix("shm_open")],
    needs: GIVING,
    ..Probe::new("posix.shm.access.other-bits", |cx| class_bits(cx, 0, (65534, 65534)))
};

/// Objects of user 1 and group 1 with every read/write pattern in the class at `shift`, and the opposite pattern in
/// both other classes, opened by a user whom that class is for.
fn class_bits(cx: &mut Context, shift: u32, user: (u32, u32)) -> Outcome {
    let mut objects = Vec::new();
    for bits in [0, 2, 4, 6] {
        let mode = (0..3).map(|n| n * 3).map(|s| if s == shift { bits << s } else { (bits ^ 6) << s }).sum::<u32>();
        let made = object_of_mode(cx, 0, 0)?;
        sys::tmpfs::fchown(made.raw(), 1, 1)?;
        // The change of owner comes first: it may clear bits of the mode.
        sys::tmpfs::fchmod(made.raw(), mode)?;
        objects.push((made, bits, mode));
    }
    // By reference: objects that moved into the closure would be removed when this process drops it.
    cx.as_user(user.0, user.1, |cx| {
        for (object, bits, mode) in &objects {
            for (flags, needed) in [(O_RDONLY, 4), (O_RDWR, 6)] {
                let opened = sys::shm_open(&object.name, flags, 0);
                let wanted = if bits & needed == needed { "success" } else { "EACCES" };
                let got = opened.map_or_else(|e| e.name(), |_| "success");
                cx.expect_eq(&format!("open flags {flags} of mode {mode:o}"), got, wanted)?;
            }
        }
        Ok(())
    })
}

const SUPPLEMENTARY: Probe = Probe {
    title: "a supplementary group counts as the object's group",
    why: "docker run --group-add and Kubernetes' supplementalGroups are how a pod gets at a group's objects",
    spec: &[man("path_resolution(7)", "Permissions"), man("credentials(7)", "Supplementary group IDs")],
    needs: GIVING,
    ..Probe::new("posix.shm.access.supplementary-group", |cx| {
        let made = object_of_mode(cx, 0, 0)?;
        sys::tmpfs::fchown(made.raw(), u32::MAX, 1)?;
        sys::tmpfs::fchmod(made.raw(), 0o060)?;
        for (groups, wanted) in [(&[1_u32][..], "success"), (&[], "EACCES")] {
            let name = made.name.clone();
            let got = cx.elsewhere(move |_| {
                sys::setgroups(groups)?;
                sys::setgid_all(65534)?;
                sys::setuid_all(65534)?;
                Ok(sys::shm_open(&name, O_RDWR, 0).map_or_else(|e| e.name(), |_| "success").to_owned())
            })?;
            cx.expect_eq(&format!("open with supplementary groups {groups:?}"), got.as_str(), wanted)?;
        }
        Ok(())
    })
};

const OVERRIDE: Probe = Probe {
    title: "CAP_DAC_OVERRIDE opens an object that its mode closes",
    why: "backup and debugging tools of root read every object; without the capability root is refused like others",
    varies: "containers with --cap-drop=ALL, user namespaces over files of unmapped users",
    spec: &[man("capabilities(7)", "CAP_DAC_OVERRIDE"), man("shm_open(3)", "EACCES")],
    needs: &[Need::DevShm, Need::Cap(Capability::CAP_DAC_OVERRIDE)],
    ..Probe::new("posix.shm.access.dac-override", |cx| {
        let made = object_of_mode(cx, 0, 0)?;
        let name = made.name.clone();
        cx.expect_ok(|| made.open(O_RDWR))?;
        cx.without_caps(OVERRIDES, move |cx| cx.expect_errno(EACCES, || sys::shm_open(&name, O_RDWR, 0)))
    })
};

const ONCE: Probe = Probe {
    title: "permission is checked when opening, not when using",
    why: "a server closes its object to newcomers with fchmod 0 while the sessions that are open go on",
    spec: &[posix("shm_open"), man("open(2)", "DESCRIPTION")],
    needs: NEEDS,
    ..Probe::new("posix.shm.access.checked-once", |cx| {
        let held = cx.object(8)?;
        cx.without_caps(OVERRIDES, |cx| {
            let before = held.open(O_RDWR)?;
            sys::tmpfs::fchmod(held.raw(), 0)?;
            cx.expect_errno(EACCES, || held.open(O_RDWR))?;
            cx.expect_eq("bytes written", cx.expect_ok(|| sys::pwrite(before.as_raw_fd(), b"go", 0))?, 2)?;
            let map = cx.expect_ok(|| Map::shared(&before, 8))?;
            cx.expect_eq("content", map.read_all(0, 2), b"go".to_vec())
        })
    })
};

const TRUNC_NEEDS_WRITE: Probe = Probe {
    title: "O_TRUNC without write permission fails with EACCES",
    why: "a reader must not be able to empty a ring buffer that it may only look at",
    spec: &[man("shm_open(3)", "EACCES"), posix("shm_open")],
    needs: NEEDS,
    ..Probe::new("posix.shm.access.trunc-needs-write", |cx| {
        let held = cx.object(8)?;
        sys::tmpfs::fchmod(held.raw(), 0o444)?;
        let name = held.name.clone();
        cx.without_caps(OVERRIDES, move |cx| {
            cx.expect_ok(|| sys::shm_open(&name, O_RDONLY, 0))?;
            cx.expect_errno(EACCES, || sys::shm_open(&name, O_RDONLY | O_TRUNC, 0))?;
            cx.expect_errno(EACCES, || sys::shm_open(&name, O_RDWR | O_TRUNC, 0))
        })?;
        cx.expect_eq("size", held.stat()?.st_size, 8)
    })
};

const PROTECTED_USER: Probe = Probe {
    title: "O_CREAT on another user's object obeys fs.protected_regular",
    why: "open_or_create from a second account works on one machine and is EACCES on the next, though the mode is 0666",
    varies: "the sysctl is 0, 1 or 2 by distribution; systemd sets it",
    fix: "open without O_CREAT first, or sysctl fs.protected_regular=0",
    spec: &[
        man("proc_sys_fs(5)", "protected_regular"),
        doc("Documentation/admin-guide/sysctl/fs.rst", "protected_regular"),
    ],
    needs: &[
        Need::DevShm,
        Need::OtherUsers,
        Need::Cap(Capability::CAP_CHOWN),
        Need::Cap(Capability::CAP_FOWNER),
        Need::Path("/proc/sys/fs/protected_regular"),
    ],
    ..Probe::new("posix.shm.access.protected-regular", |cx| protected(cx, false))
};
const PROTECTED_ROOT: Probe = Probe {
    title: "fs.protected_regular does not spare the superuser",
    why: "a broker running as root is refused with EACCES on an object that any user could open: the message makes no \
          sense to its administrator",
    varies: "the sysctl is 0, 1 or 2 by distribution; systemd sets it",
    fix: "open without O_CREAT first, or sysctl fs.protected_regular=0",
    spec: &[
        man("proc_sys_fs(5)", "protected_regular"),
        doc("Documentation/admin-guide/sysctl/fs.rst", "protected_regular"),
    ],
    needs: &[
        Need::DevShm,
        Need::OtherUsers,
        Need::Cap(Capability::CAP_CHOWN),
        Need::Cap(Capability::CAP_FOWNER),
        Need::Cap(Capability::CAP_DAC_OVERRIDE),
        Need::Path("/proc/sys/fs/protected_regular"),
    ],
    ..Probe::new("posix.shm.access.protected-regular-root", |cx| protected(cx, true))
};

/// An object of user 1 with mode 0666, opened with and without O_CREAT by root or by user 65534.
fn protected(cx: &mut Context, root: bool) -> Outcome {
    use std::os::unix::fs::MetadataExt;
    let value: u32 = procfs::sysctl_number("fs/protected_regular")?;
    let directory = std::fs::metadata("/dev/shm")?;
    let (mode, sticky) = (directory.mode(), directory.mode() & 0o1000 != 0);
    let made = object_of_mode(cx, 0, 0)?;
    sys::tmpfs::fchown(made.raw(), 1, 1)?;
    sys::tmpfs::fchmod(made.raw(), 0o666)?;
    let applies = value > 0 && sticky && (mode & 0o002 != 0 || value > 1 && mode & 0o020 != 0) && directory.uid() != 1;
    let name = made.name.clone();
    let attempt = move |cx: &mut Context| {
        cx.expect_ok(|| sys::shm_open(&name, O_RDWR, 0))?;
        let opened = sys::shm_open(&name, O_CREAT | O_RDWR, 0o666).map_or_else(|e| e.name(), |_| "success");
        let what = format!("shm_open with O_CREAT, fs.protected_regular={value}, /dev/shm of mode {:o}", mode & 0o7777);
        cx.expect_eq(&what, opened, if applies { "EACCES" } else { "success" })
    };
    if root { attempt(cx) } else { cx.as_user(65534, 65534, attempt) }
}

const CLOSED_DIRECTORY: Probe = Probe {
    title: "where /dev/shm is not writable, objects open but none is made",
    why: "an explicit tmpfs mount gets mode 0755: programs of ordinary users fail with EACCES in that container only",
    fix: "docker run --tmpfs /dev/shm:mode=1777, or --shm-size instead of a mount",
    spec: &[man("shm_open(3)", "EACCES"), doc("docker/cli#6630", ""), man("tmpfs(5)", "mode")],
    needs: USERS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.access.directory-not-writable", |cx| {
        cx.own_dev_shm("mode=0755")?;
        let held = object_of_mode(cx, 0, 0)?;
        sys::tmpfs::fchmod(held.raw(), 0o666)?;
        let (name, absent) = (held.name.clone(), cx.fresh_name());
        cx.as_user(65534, 65534, move |cx| {
            cx.expect_ok(|| sys::shm_open(&name, O_RDWR, 0))?;
            cx.expect_ok(|| sys::shm_open(&name, O_CREAT | O_RDWR, 0o600))?;
            cx.expect_errno(EACCES, || sys::shm_open(&absent, O_CREAT | O_RDWR, 0o600))
        })
    })
};

const READ_ONLY_MOUNT: Probe = Probe {
    title: "on a read-only /dev/shm objects can be read but not written",
    why: "images hardened with a read-only root take /dev/shm along: the first shm_open of the program gives EROFS",
    fix: "mount a tmpfs on /dev/shm in the container",
    spec: &[man("open(2)", "EROFS"), man("mount(2)", "MS_RDONLY"), doc("gh-aw-firewall#972", "")],
    needs: NEEDS,
    isolate: Isolate::FreshOnly,
    ..Probe::new("posix.shm.access.read-only-mount", |cx| {
        cx.own_dev_shm("mode=1777")?;
        let name = cx.fresh_name();
        // The name goes with the mount: the guard would be refused to remove it.
        let _entry = Object::create(name.clone(), 8, 0o600)?.into_entry();
        sys::tmpfs::mount_tmpfs("/dev/shm", libc::MS_REMOUNT | libc::MS_RDONLY, "")?;
        let reader = cx.expect_ok(|| sys::shm_open(&name, O_RDONLY, 0))?;
        cx.expect_eq("size", sys::fstat(reader.as_raw_fd())?.st_size, 8)?;
        cx.expect_errno(EROFS, || sys::shm_open(&name, O_RDWR, 0))?;
        let absent = cx.fresh_name();
        cx.expect_errno(EROFS, || sys::shm_open(&absent, O_CREAT | O_RDWR, 0o600))?;
        cx.expect_errno(EROFS, || sys::shm_unlink(&name))?;
        cx.expect("the object", exists(&format!("/dev/shm{name}")), "present", "gone")
    })
};

const FCHMOD: Probe = Probe {
    title: "fchmod changes who may open the object",
    why: "programs under a strict umask widen the mode afterwards; without effect their clients stay outside",
    spec: &[man("fchmod(2)", "DESCRIPTION"), posix("fchmod")],
    needs: NEEDS,
    ..Probe::new("posix.shm.access.fchmod", |cx| {
        let held = cx.object(0)?;
        cx.without_caps(OVERRIDES, |cx| {
            for (mode, flags, wanted) in [
                (0o400, O_RDONLY, "success"),
                (0o400, O_RDWR, "EACCES"),
                (0o200, O_RDONLY, "EACCES"),
                (0o600, O_RDWR, "success"),
            ] {
                cx.expect_ok(|| sys::tmpfs::fchmod(held.raw(), mode))?;
                cx.expect_eq("st_mode", held.stat()?.st_mode & 0o7777, mode)?;
                let got = held.open(flags).map_or_else(|e| e.name(), |_| "success");
                cx.expect_eq(&format!("open flags {flags} of mode {mode:o}"), got, wanted)?;
            }
            Ok(())
        })
    })
};

const FCHMOD_OTHER: Probe = Probe {
    title: "only the owner may change an object's mode: EPERM",
    why: "a client with a writable descriptor must not open the object to the whole machine",
    spec: &[man("fchmod(2)", "EPERM"), posix("fchmod")],
    needs: USERS,
    ..Probe::new("posix.shm.access.fchmod-not-owner", |cx| {
        let held = cx.object(0)?;
        cx.as_user(1, 1, |cx| cx.expect_errno(EPERM, || sys::tmpfs::fchmod(held.raw(), 0o666)))?;
        cx.expect_eq("mode", held.stat()?.st_mode & 0o7777, 0o600)
    })
};

const FCHOWN: Probe = Probe {
    title: "fchown hands an object to another user",
    why: "a root start-up script creates the memory and gives it to the service's user, who cannot start otherwise",
    spec: &[man("fchown(2)", "DESCRIPTION"), posix("fchown")],
    needs: &[Need::DevShm, Need::OtherUsers, Need::Cap(Capability::CAP_CHOWN)],
    ..Probe::new("posix.shm.access.fchown", |cx| {
        let held = cx.object(0)?;
        let name = held.name.clone();
        let before = name.clone();
        cx.as_user(1, 1, move |cx| cx.expect_errno(EACCES, || sys::shm_open(&before, O_RDWR, 0)))?;
        cx.expect_ok(|| sys::tmpfs::fchown(held.raw(), 1, 65534))?;
        let stat = held.stat()?;
        cx.expect_eq("st_uid and st_gid", (stat.st_uid, stat.st_gid), (1, 65534))?;
        cx.as_user(1, 1, move |cx| cx.expect_ok(|| sys::shm_open(&name, O_RDWR, 0)).map(drop))
    })
};

const FCHOWN_OTHER: Probe = Probe {
    title: "an ordinary user cannot give an object away: EPERM",
    why: "a quota or an audit by owner means nothing where users can disown their memory",
    spec: &[man("fchown(2)", "EPERM"), man("capabilities(7)", "CAP_CHOWN"), posix("fchown")],
    needs: USERS,
    ..Probe::new("posix.shm.access.fchown-not-root", |cx| {
        let entry = Entry::of(&cx.fresh_name());
        let name = object_name(&entry);
        let owner = cx.as_user(1, 1, move |cx| {
            let fd = sys::shm_open(&name, O_CREAT | O_RDWR, 0o600)?;
            cx.expect_errno(EPERM, || sys::tmpfs::fchown(fd.as_raw_fd(), 65534, u32::MAX))?;
            cx.expect_errno(EPERM, || sys::tmpfs::fchown(fd.as_raw_fd(), u32::MAX, 65534))?;
            let stat = sys::fstat(fd.as_raw_fd())?;
            Ok((stat.st_uid, stat.st_gid))
        })?;
        cx.expect_eq("st_uid and st_gid", owner, (1, 1))
    })
};
