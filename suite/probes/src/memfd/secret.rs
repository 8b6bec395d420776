//! memfd_secret(2): memory that the kernel itself has no map of.

use super::descriptor::at_the_limit;
use super::size;
use caps::Capability;
use libc::{EAGAIN, EFAULT, EINVAL, EIO, EPERM, MAP_PRIVATE, MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE};
use shmcheck_probe::{Context, Exit, Isolate, Map, Need, Outcome, Probe, Stop, Sys, kernel, man, procfs, sys};
use std::os::fd::AsRawFd;
use sys::{F_SEAL_WRITE, add_seals, get_seals, memfd_secret};

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[
    &EMPTY,
    &SHARED_FORK,
    &CLOEXEC,
    &BAD_FLAGS,
    &EMFILE_LIMIT,
    &NO_READ,
    &NO_VM_READ,
    &NO_PTRACE,
    &NO_PROC_MEM,
    &NO_PIN,
    &PRIVATE,
    &SIZE_ONCE,
    &BEYOND,
    &NO_EXEC,
    &LOCKED,
    &MEMLOCK,
    &NO_SEALS,
    &NO_FALLOCATE,
];

const CALLS: &[Sys] = &[Sys::MemfdSecret];
/// Secret memory is locked memory: two pages are what a probe maps at most.
const NEEDS: &[Need] = &[Need::Memlock(2 * 65_536)];

/// A page of secret memory with a word in it.
fn secret() -> Result<(Map, std::os::fd::OwnedFd), Stop> {
    let fd = size(memfd_secret(libc::O_CLOEXEC.cast_unsigned())?, sys::page_size())?;
    let map = Map::shared(&fd, sys::page_size())?;
    map.write_all(0, b"password");
    Ok((map, fd))
}

const EMPTY: Probe = Probe {
    title: "secret memory starts empty and reads zero once it is sized",
    why: "a key store expects clean pages; another program's old bytes there would be a leak of their own",
    spec: &[man("memfd_secret(2)", "DESCRIPTION")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.secret.empty", |cx| {
        let fd = cx.expect_ok(|| memfd_secret(0))?;
        cx.expect_eq("size", sys::fstat(fd.as_raw_fd())?.st_size, 0)?;
        sys::ftruncate(fd.as_raw_fd(), sys::page_size() as i64)?;
        let map = cx.expect_ok(|| Map::shared(&fd, sys::page_size()))?;
        let set = map.read_all(0, map.len()).into_iter().filter(|byte| *byte != 0).count();
        cx.expect_eq("bytes that are not zero", set, 0)
    })
};

const SHARED_FORK: Probe = Probe {
    title: "secret memory is shared with a child that has the descriptor",
    why: "a key agent splits its work over processes; they must see one memory",
    spec: &[man("memfd_secret(2)", "DESCRIPTION")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.secret.shared", |cx| {
        let (map, fd) = secret()?;
        let seen = cx.elsewhere(|_| {
            let own = Map::shared(&fd, 16)?;
            own.write(8, b'!');
            Ok(own.read_all(0, 8))
        })?;
        cx.expect_eq("bytes seen by the child", seen, b"password".to_vec())?;
        cx.expect_eq("byte stored by the child", map.read(8), b'!')
    })
};

const CLOEXEC: Probe = Probe {
    title: "FD_CLOEXEC is set by the flag O_CLOEXEC alone",
    why: "a key must not be inherited by every helper program that is started",
    spec: &[man("memfd_secret(2)", "FD_CLOEXEC")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.secret.cloexec", |cx| {
        for (flags, wanted) in [(0, 0), (libc::O_CLOEXEC.cast_unsigned(), libc::FD_CLOEXEC)] {
            let fd = cx.expect_ok(|| memfd_secret(flags))?;
            cx.expect_eq("F_GETFD", sys::fcntl(fd.as_raw_fd(), libc::F_GETFD, 0)?, wanted)?;
        }
        Ok(())
    })
};

const BAD_FLAGS: Probe = Probe {
    title: "an unknown flag fails with EINVAL",
    why: "a stronger kind of secrecy asked for and silently not given would be worse than none",
    spec: &[man("memfd_secret(2)", "EINVAL")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.secret.bad-flags", |cx| {
        for flags in [1, 2, 1 << 10, 1 << 31, u32::MAX] {
            cx.expect_errno(EINVAL, || memfd_secret(flags))?;
        }
        Ok(())
    })
};

const EMFILE_LIMIT: Probe = Probe {
    title: "at RLIMIT_NOFILE memfd_secret fails with EMFILE",
    why: "an agent with a descriptor per key meets the limit and must report it as such",
    spec: &[man("memfd_secret(2)", "EMFILE")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.secret.emfile", |cx| at_the_limit(cx, || memfd_secret(0)))
};

const NO_READ: Probe = Probe {
    title: "read and write on the descriptor fail with EINVAL",
    why: "the kernel would have to copy the secret; whoever inherits the descriptor cannot dump it by cat",
    spec: &[man("memfd_secret(2)", "DESCRIPTION"), kernel("mm/secretmem.c", "secretmem_fops")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.secret.no-read", |cx| {
        let (map, fd) = secret()?;
        let mut bytes = [0; 8];
        cx.expect_errno(EINVAL, || sys::tmpfs::read(fd.as_raw_fd(), &mut bytes))?;
        cx.expect_errno(EINVAL, || sys::tmpfs::write(fd.as_raw_fd(), b"overlaid"))?;
        cx.expect_eq("bytes read", bytes, [0; 8])?;
        cx.expect_eq("content", map.read_all(0, 8), b"password".to_vec())
    })
};

const NO_VM_READ: Probe = Probe {
    title: "process_vm_readv does not reach secret memory: EFAULT",
    why: "the attacker has the same user id and no bug in the victim; keys stay out of reach all the same",
    spec: &[man("memfd_secret(2)", "DESCRIPTION"), man("process_vm_readv(2)", "EFAULT")],
    calls: &[Sys::MemfdSecret, Sys::ProcessVmReadv],
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.secret.no-process-vm-readv", |cx| {
        let (map, _fd) = secret()?;
        let open = Map::shared_anonymous(16)?;
        open.write_all(0, b"no secret");
        with_holder(cx, |cx, pid| {
            let mut bytes = [0; 8];
            // The control: the same holder's ordinary memory can be read.
            cx.expect_eq("bytes of ordinary memory", sys::trace::process_vm_read(pid, open.address(), &mut bytes)?, 8)?;
            cx.expect_eq("ordinary memory", &bytes, b"no secre")?;
            let mut bytes = [0; 8];
            cx.expect_errno(EFAULT, || sys::trace::process_vm_read(pid, map.address(), &mut bytes))?;
            cx.expect_eq("bytes of the secret", bytes, [0; 8])
        })
    })
};

/// Runs `body` with the id of a child that has this process's memory.
fn with_holder(cx: &mut Context, body: impl FnOnce(&mut Context, libc::pid_t) -> Outcome) -> Outcome {
    let done = cx.gate()?;
    let holder = cx.fork(|_| done.pass())?;
    let outcome = body(cx, holder.pid());
    done.open()?;
    holder.join()?;
    outcome
}

const NO_PTRACE: Probe = Probe {
    title: "a debugger cannot read secret memory: EIO",
    why: "gdb attached by an administrator, or by an intruder, shows no key",
    spec: &[man("memfd_secret(2)", "DESCRIPTION"), man("ptrace(2)", "EIO")],
    calls: &[Sys::MemfdSecret, Sys::Ptrace],
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.secret.no-ptrace", |cx| {
        let (map, _fd) = secret()?;
        let open = Map::shared_anonymous(16)?;
        open.write(0, 7);
        let holder = cx.fork(|_| {
            sys::trace_me()?;
            Ok(sys::trace::raise(libc::SIGSTOP)?)
        })?;
        let (_, status) = sys::waitpid(holder.pid(), 0)?;
        if !libc::WIFSTOPPED(status) {
            return Err(Stop::broken("a traced peer ended before it was stopped"));
        }
        cx.expect_eq("word of ordinary memory", sys::trace::trace_peek(holder.pid(), open.address())?, 7)?;
        cx.expect_errno(EIO, || sys::trace::trace_peek(holder.pid(), map.address()))?;
        sys::trace::trace_resume(libc::PTRACE_CONT, holder.pid(), 0)?;
        cx.expect_eq("end of the holder", holder.exit()?, Exit::Code(0))
    })
};

const NO_PROC_MEM: Probe = Probe {
    title: "/proc/PID/mem does not show secret memory: EIO",
    why: "memory scrapers read it page by page; the secret must be a hole",
    spec: &[man("memfd_secret(2)", "DESCRIPTION"), kernel("mm/gup.c", "vma_is_secretmem")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.secret.no-proc-mem", |cx| {
        let (map, _fd) = secret()?;
        let open = Map::shared_anonymous(16)?;
        open.write(0, 0x31);
        let mem = sys::open("/proc/self/mem", libc::O_RDONLY | libc::O_CLOEXEC, 0)?;
        let mut byte = [0];
        cx.expect_eq("bytes of ordinary memory", sys::pread(mem.as_raw_fd(), &mut byte, open.address() as i64)?, 1)?;
        cx.expect_eq("ordinary memory", byte, [0x31])?;
        cx.expect_errno(EIO, || sys::pread(mem.as_raw_fd(), &mut byte, map.address() as i64))
    })
};

const NO_PIN: Probe = Probe {
    title: "secret memory cannot be handed to the kernel by reference: EFAULT",
    why: "vmsplice, direct I/O and devices would see the pages through the kernel's map, which does not have them",
    spec: &[man("memfd_secret(2)", "DESCRIPTION"), kernel("mm/gup.c", "check_vma_flags: vma_is_secretmem")],
    calls: &[Sys::MemfdSecret, Sys::Vmsplice],
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.secret.no-vmsplice", |cx| {
        let (map, _fd) = secret()?;
        let (_reading, writing) = sys::pipe()?;
        let open = Map::shared_anonymous(sys::page_size())?;
        open.touch(1);
        cx.expect_eq("bytes of ordinary memory", sys::vmsplice(writing.as_raw_fd(), open.address(), 16)?, 16)?;
        cx.expect_errno(EFAULT, || sys::vmsplice(writing.as_raw_fd(), map.address(), 16))
    })
};

const PRIVATE: Probe = Probe {
    title: "secret memory can be mapped shared only: a private mapping is EINVAL",
    why: "copies on write would be ordinary pages, readable by everybody again",
    spec: &[kernel("mm/secretmem.c", "secretmem_mmap"), man("mmap(2)", "EINVAL")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.secret.private-mapping", |cx| {
        let (_map, fd) = secret()?;
        cx.expect_errno(EINVAL, || Map::new(16, PROT_READ, MAP_PRIVATE, fd.as_raw_fd()))?;
        cx.expect_ok(|| Map::new(16, PROT_READ, MAP_SHARED, fd.as_raw_fd())).map(drop)
    })
};

const SIZE_ONCE: Probe = Probe {
    title: "the size of secret memory is set once: a second ftruncate is EINVAL",
    why: "pages that were secret cannot be cut off and returned while someone else still maps them",
    spec: &[kernel("mm/secretmem.c", "secretmem_setattr"), man("ftruncate(2)", "EINVAL")],
    calls: &[Sys::MemfdSecret, Sys::Ftruncate],
    isolate: Isolate::Cell,
    ..Probe::new("memfd.secret.size-once", |cx| {
        let page = sys::page_size() as i64;
        let fd = memfd_secret(0)?;
        cx.expect_ok(|| sys::ftruncate(fd.as_raw_fd(), 2 * page))?;
        for length in [0, page, 3 * page] {
            cx.expect_errno(EINVAL, || sys::ftruncate(fd.as_raw_fd(), length))?;
        }
        cx.expect_eq("size", sys::fstat(fd.as_raw_fd())?.st_size, 2 * page)
    })
};

const BEYOND: Probe = Probe {
    title: "touching secret memory beyond its size raises SIGBUS",
    why: "an overrun ends the program instead of reading a neighbour's page",
    spec: &[man("mmap(2)", "SIGBUS"), kernel("mm/secretmem.c", "secretmem_fault")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.secret.beyond-size", |cx| {
        let page = sys::page_size();
        let fd = size(memfd_secret(0)?, page)?;
        let map = Map::shared(&fd, 2 * page)?;
        cx.expect_no_signal("the first page", || map.write(page - 1, 1))?;
        cx.expect_signal("the second page", libc::SIGBUS, || map.write(page, 1))
    })
};

const NO_EXEC: Probe = Probe {
    title: "secret memory cannot be mapped executable: EPERM",
    why: "nobody can inspect code in there; it must not run either",
    spec: &[kernel("mm/secretmem.c", "secretmem_init: MNT_NOEXEC"), man("mmap(2)", "EPERM")],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.secret.no-exec", |cx| {
        let (map, fd) = secret()?;
        cx.expect_errno(EPERM, || Map::new(16, PROT_READ | PROT_EXEC, MAP_SHARED, fd.as_raw_fd()))?;
        cx.expect_errno(libc::EACCES, || sys::mprotect(map.address(), 16, PROT_READ | PROT_EXEC))
    })
};

const LOCKED: Probe = Probe {
    title: "secret memory is locked and left out of core dumps",
    why: "a key must reach neither the swap device nor the crash report that is sent to the vendor",
    spec: &[man("memfd_secret(2)", "NOTES"), kernel("mm/secretmem.c", "secretmem_mmap: VM_LOCKED, VM_DONTDUMP")],
    calls: CALLS,
    needs: &[Need::Memlock(2 * 65_536), Need::Path("/proc/self/smaps")],
    isolate: Isolate::Cell,
    ..Probe::new("memfd.secret.locked", |cx| {
        let (map, _fd) = secret()?;
        let block = procfs::smaps_block(map.address())?;
        let flags = block.lines().find_map(|line| line.strip_prefix("VmFlags:")).unwrap_or_default();
        for flag in ["lo", "dd", "sh"] {
            cx.expect("VmFlags", flags.split_whitespace().any(|f| f == flag), format!("{flag} among them"), flags)?;
        }
        Ok(())
    })
};

const MEMLOCK: Probe = Probe {
    title: "secret memory counts against RLIMIT_MEMLOCK: mmap gives EAGAIN",
    why: "the default limit of a few MiB is reached soon; the errno must say what to raise",
    fix: "LimitMEMLOCK (systemd), --ulimit memlock, or CAP_IPC_LOCK",
    spec: &[
        man("memfd_secret(2)", "RLIMIT_MEMLOCK"),
        man("mmap(2)", "EAGAIN"),
        kernel("mm/secretmem.c", "secretmem_mmap"),
    ],
    calls: CALLS,
    needs: NEEDS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.secret.memlock", |cx| {
        let page = sys::page_size();
        let fd = size(memfd_secret(0)?, 2 * page)?;
        cx.without_caps(&[Capability::CAP_IPC_LOCK], |cx| {
            let (_, hard) = sys::getrlimit(libc::RLIMIT_MEMLOCK)?;
            sys::setrlimit(libc::RLIMIT_MEMLOCK, page as u64, hard)?;
            cx.expect_errno(EAGAIN, || Map::shared(&fd, 2 * page))?;
            let one = cx.expect_ok(|| Map::new(page, PROT_READ | PROT_WRITE, MAP_SHARED, fd.as_raw_fd()))?;
            cx.expect_errno(EAGAIN, || Map::at(0, page, PROT_READ, MAP_SHARED, fd.as_raw_fd(), page as i64))?;
            one.close()?;
            cx.expect_ok(|| Map::at(0, page, PROT_READ, MAP_SHARED, fd.as_raw_fd(), page as i64)).map(drop)
        })
    })
};

const NO_SEALS: Probe = Probe {
    title: "secret memory has no seals: EINVAL",
    why: "a program that wants both must know that it gets one of them",
    spec: &[man("fcntl(2)", "EINVAL"), kernel("mm/memfd.c", "memfd_file_seals_ptr")],
    calls: CALLS,
    isolate: Isolate::Cell,
    ..Probe::new("memfd.secret.no-seals", |cx| {
        let fd = memfd_secret(0)?;
        cx.expect_errno(EINVAL, || get_seals(fd.as_raw_fd()))?;
        cx.expect_errno(EINVAL, || add_seals(fd.as_raw_fd(), F_SEAL_WRITE))
    })
};

const NO_FALLOCATE: Probe = Probe {
    title: "secret memory cannot be reserved beforehand: EOPNOTSUPP",
    why: "a program that pre-allocates gets a refusal, not a reservation in name only",
    spec: &[man("fallocate(2)", "EOPNOTSUPP"), kernel("mm/secretmem.c", "secretmem_fops")],
    calls: &[Sys::MemfdSecret, Sys::Fallocate],
    isolate: Isolate::Cell,
    ..Probe::new("memfd.secret.no-fallocate", |cx| {
        let fd = memfd_secret(0)?;
        cx.expect_errno(libc::EOPNOTSUPP, || sys::fallocate(fd.as_raw_fd(), 0, 0, 4096))?;
        cx.expect_eq("size", sys::fstat(fd.as_raw_fd())?.st_size, 0)
    })
};
