//! Reports made by hand: a small one with every outcome, a hostile one, and one as large as a real run.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its part")]

use shmcheck_protocol::{
    Cell, Detail, Expected, Facts, Ground, Program, Report, Result, SCHEMA_VERSION, Summary, Verdict,
    facts::{DevShm, Kernel, User},
};
use shmcheck_report::{ProbeText, Texts};

fn s(text: &str) -> Option<String> {
    Some(text.to_owned())
}

pub(crate) fn pass(id: &str) -> Result {
    Result {
        id: id.to_owned(),
        outcome: Verdict::Pass,
        expected: Expected::Pass,
        as_expected: true,
        because: String::new(),
        duration_us: 1_250,
        detail: Detail::default(),
    }
}

pub(crate) fn fail(id: &str, call: &str, wanted: &str, got: &str) -> Result {
    let detail = Detail { call: s(call), wanted: s(wanted), got: s(got), ..Detail::default() };
    Result { outcome: Verdict::Fail, as_expected: false, duration_us: 12_400, detail, ..pass(id) }
}

pub(crate) fn skip(id: &str, need: &str, found: &str) -> Result {
    let detail = Detail { need: s(need), found: s(found), ..Detail::default() };
    Result { outcome: Verdict::Skip, duration_us: 0, detail, ..pass(id) }
}

pub(crate) fn blocked(id: &str, call: &str, errno: &str, declared: bool) -> Result {
    let detail = Detail { layer: s("seccomp"), call: s(call), errno: s(errno), ..Detail::default() };
    let expected = if declared { Expected::Blocked } else { Expected::Pass };
    Result { outcome: Verdict::Blocked, expected, as_expected: declared, duration_us: 0, detail, ..pass(id) }
}

pub(crate) fn broken(id: &str, message: &str) -> Result {
    let detail = Detail { message: s(message), ..Detail::default() };
    Result { outcome: Verdict::Broken, as_expected: false, duration_us: 2_000_000, detail, ..pass(id) }
}

pub(crate) fn facts(uid: u32, shm: u64, filter: bool, fresh: bool) -> Facts {
    let dev_shm = DevShm { fs_type: "tmpfs".into(), size: shm, free: shm, mode: "1777".into(), ..DevShm::default() };
    let cell = Ground { dev_shm, ..Ground::default() };
    let refused = ["bpf", "keyctl", "mbind", "shmget", "unshare"].map(|call| (call.to_owned(), "EPERM".to_owned()));
    Facts {
        program: "0.1.0".into(),
        kernel: Kernel {
            name: "Linux".into(),
            release: "6.18.5".into(),
            version: "#1 SMP".into(),
            machine: "x86_64".into(),
            implementation: "linux".to_owned(),
        },
        page_size: 4096,
        cpus: 2,
        nodes: 1,
        user: User {
            uid,
            gid: uid,
            initial: true,
            effective: if uid == 0 { vec!["CAP_CHOWN".into(), "CAP_KILL".into()] } else { Vec::new() },
            ..User::default()
        },
        seccomp_mode: if filter { 2 } else { 0 },
        refused_calls: if filter { refused.into() } else { Default::default() },
        fresh: fresh.then(|| cell.clone()),
        fresh_refused: if fresh { String::new() } else { "unshare(CLONE_NEWNS) → EPERM".into() },
        cell,
        ..Facts::default()
    }
}

pub(crate) fn cell(environment: &str, facts: Option<Facts>, results: Vec<Result>) -> Cell {
    let declared = environment.split_once(':').map_or("", |(_, keys)| keys);
    let declared = declared.split(',').filter_map(|pair| pair.split_once('='));
    Cell {
        environment: environment.to_owned(),
        declared: declared.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        facts,
        wall_ms: 842,
        results,
        leftovers: Vec::new(),
        missing: None,
    }
}

pub(crate) fn report(cells: Vec<Cell>, probes: usize, exit_code: i32) -> Report {
    Report {
        schema_version: SCHEMA_VERSION,
        program: Program { version: "0.1.0".into(), libc: "glibc 2.36, static".into(), commit: "40cff18".into() },
        started: "2026-11-24T15:00:00Z".into(),
        host: "build-7".into(),
        summary: Summary::of(probes, &cells),
        cells,
        interrupted: false,
        exit_code,
    }
}

const ENOSPC: &str = "posix.shm.truncate.enospc";
const EXCL: &str = "sysv.shm.get.excl-eexist";
const LOCK: &str = "sysv.shm.lock.resident";
const UNDO: &str = "sysv.sem.undo.exit-reverts";
const HUGE: &str = "mapping.huge.hugetlb-shared";

/// Every outcome, expected and not, and an environment that is missing.
pub(crate) fn small() -> Report {
    let host = vec![
        pass(EXCL),
        skip(LOCK, "cap:CAP_IPC_LOCK", "not in the effective set"),
        pass(UNDO),
        pass(ENOSPC),
        skip(HUGE, "hugepages:1x2048kB", "0 free huge pages of 2048 kB"),
    ];
    let docker = vec![
        blocked(EXCL, "shmget", "EPERM", true),
        blocked(LOCK, "shmctl", "EPERM", true),
        broken(UNDO, "deadline of 2 s passed; killed by SIGKILL"),
        fail(ENOSPC, "posix_fallocate", "ENOSPC", "0, then SIGBUS at +64 MiB"),
        skip(HUGE, "hugepages:1x2048kB", "0 free huge pages of 2048 kB"),
    ];
    let deviation = "gVisor has no SEM_UNDO (gvisor.dev/issue/5182)".to_owned();
    let gvisor = vec![
        Result {
            because: "fixed since: remove it from the known deviations".into(),
            expected: Expected::Deviation,
            as_expected: false,
            ..pass(EXCL)
        },
        Result {
            because: "docker was told ulimit.memlock=-1".into(),
            as_expected: false,
            ..skip(LOCK, "memlock:4096", "RLIMIT_MEMLOCK is 0")
        },
        Result {
            because: deviation,
            expected: Expected::Deviation,
            as_expected: true,
            ..fail(UNDO, "semop(SEM_UNDO)", "semval 1", "EINVAL")
        },
        fail(ENOSPC, "posix_fallocate", "ENOSPC", "0, then SIGBUS at +64 MiB"),
        blocked(HUGE, "mmap", "ENOSYS", false),
    ];
    let mut left = cell("sandbox:ipc=private,user=1000", Some(facts(1000, 8 << 30, false, true)), vec![pass(EXCL)]);
    left.leftovers.push("System V shm id 3 key 0x5abc0001".into());
    let mut missing = cell("podman:ipc=private", None, Vec::new());
    missing.missing =
        s("podman run failed: exit status 125: Error: short-name \"scratch\" did not resolve to an alias");
    let cells = vec![
        cell("host", Some(facts(0, 4_187_593_113, false, true)), host),
        cell("docker:ipc=private,shm=64m", Some(facts(0, 64 << 20, true, false)), docker),
        cell(
            "docker:ipc=private,runtime=runsc,shm=64m,ulimit.memlock=-1",
            Some(facts(0, 64 << 20, false, false)),
            gvisor,
        ),
        left,
        missing,
    ];
    report(cells, 5, 101)
}

/// What the catalogue says of the probes of [`small`].
pub(crate) fn texts() -> Texts {
    let text = |title: &str, why: &str, fix: &str, spec: &[&str]| ProbeText {
        title: title.into(),
        why: why.into(),
        fix: fix.into(),
        spec: spec.iter().map(|&clause| clause.to_owned()).collect(),
        ..ProbeText::default()
    };
    let enospc = ProbeText {
        varies: "containers have 64 MiB of /dev/shm unless told otherwise".into(),
        ..text(
            "posix_fallocate beyond the size of /dev/shm fails with ENOSPC",
            "tmpfs is lazy: PyTorch and vLLM die of SIGBUS without a message",
            "docker run --shm-size=… (Kubernetes: emptyDir with medium Memory)",
            &["posix_fallocate(3) ENOSPC", "POSIX posix_fallocate"],
        )
    };
    let excl = text(
        "IPC_CREAT|IPC_EXCL on a live key fails with EEXIST",
        "single-instance locks (PostgreSQL, Oracle) rely on it: without it two servers share one data directory",
        "",
        &["shmget(2) EEXIST", "POSIX shmget"],
    );
    let undo = text(
        "exit of a process reverts its SEM_UNDO operations",
        "a crashed worker of a prefork server would hold the lock for ever",
        "",
        &["semop(2)"],
    );
    [(ENOSPC, enospc), (EXCL, excl), (UNDO, undo)].map(|(id, text)| (id.to_owned(), text)).into()
}

/// Strings that attack each of the formats.
pub(crate) const HOSTILE: &[&str] = &[
    "\u{1b}[2J\u{1b}]0;owned\u{7}\u{1b}[31mred",
    "two\nlines\r\nok 1 - forged\n::error::forged",
    "]]></failure><script>alert(1)</script>",
    "</script></style><img src=x onerror=alert(1)>\" onmouseover='alert(1)",
    "# SKIP not really \\# and \\",
    "| `a` || ``b`` | [link](javascript:alert(1)) ![](http://x/y.png) @everyone",
    "...\n---\nkey: value",
    "right\u{202e}txt.exe \u{200b}\u{feff} \u{fffd}\u{fffe}\u{ffff}\0\u{85}\u{9b}31m\u{2028}",
    "漢字 👩‍👩‍👧 e\u{301}\u{301}\u{301}\u{301}",
    "",
];

/// Each hostile string in each member of each kind of result.
pub(crate) fn hostile() -> Report {
    let long = "x".repeat(5_000);
    let lines = "line\n".repeat(500);
    let strings = || HOSTILE.iter().copied().chain([long.as_str(), lines.as_str()]);
    let mut results = Vec::new();
    for text in strings() {
        let n = results.len();
        results.push(fail(&format!("hostile.fail.n{n}"), text, text, text));
        results.push(skip(&format!("hostile.skip.n{n}"), text, text));
        results.push(Result { because: text.to_owned(), ..broken(&format!("hostile.broken.n{n}"), text) });
        let mut refused = blocked(&format!("hostile.blocked.n{n}"), text, text, false);
        refused.detail.layer = s(text);
        results.push(refused);
        results.push(pass(&format!("hostile.id.{text}")));
    }
    let mut facts = facts(0, 64 << 20, true, false);
    facts.kernel.release = HOSTILE.concat();
    facts.cell.dev_shm.refused = s(HOSTILE[2]);
    let mut first = cell(&HOSTILE.concat(), Some(facts), results);
    first.leftovers = strings().map(str::to_owned).collect();
    let mut cells = vec![first];
    for text in strings() {
        let mut missing = cell(text, None, Vec::new());
        missing.missing = Some(text.to_owned());
        cells.push(missing);
    }
    report(cells, 60, 100)
}

/// As large as a real run: 700 probes in eight environments.
pub(crate) fn big() -> Report {
    let areas = ["sysv.shm", "sysv.sem", "sysv.msg", "posix.shm", "posix.mq", "mapping", "memfd", "sync"];
    let objects = ["get", "op", "ctl-stat", "undo", "limits", "perm", "unlink-mapping-stays"];
    let ids: Vec<_> = (0..700)
        .map(|n| format!("{}.{}.claim-number-{n}", areas[n * areas.len() / 700], objects[n % objects.len()]))
        .collect();
    let environments = [
        "host",
        "sandbox",
        "sandbox:user=1000,userns=no",
        "docker:ipc=private,shm=64m",
        "docker:ipc=host,user=65534",
        "docker:cap-drop=ALL,ipc=private,no-new-privs=yes,read-only=yes,shm=1g",
        "podman:ipc=private,rootless=yes",
        "docker:ipc=private,runtime=runsc",
    ];
    let calls = ["shmget", "shmat", "shmctl", "semget", "semop", "msgget", "mq_open", "mbind", "userfaultfd"];
    let mut cells = Vec::new();
    for (e, environment) in environments.iter().enumerate() {
        let results = ids.iter().enumerate().map(|(n, id)| match (e, n) {
            (_, n) if n % 59 == 3 => skip(id, "cap:CAP_IPC_LOCK", "not in the effective set"),
            (_, n) if n % 97 == 5 => skip(id, "swap", "no swap space"),
            (2.., n) if n % 31 == 2 => skip(id, &format!("sysctl:kernel/{}", objects[n % 7]), "write → EROFS"),
            (3..=5, n) if n % 19 == 7 => blocked(id, calls[n % calls.len()], "EPERM", true),
            (6, n) if n % 19 == 7 => blocked(id, calls[n % calls.len()], "ENOSYS", false),
            (3.., 117 | 340) => fail(id, "shmctl(IPC_STAT)", "shm_nattch 2", "shm_nattch 1"),
            (7, n) if n % 9 == 4 => fail(id, calls[n % calls.len()], "EINVAL", "ENOSYS"),
            (7, n) if n % 13 == 4 => Result {
                expected: Expected::Deviation,
                as_expected: true,
                because: "gVisor's tmpfs has no seals".into(),
                ..fail(id, "fcntl(F_ADD_SEALS)", "0", "EINVAL")
            },
            (4, 200) => broken(id, "no record: the process ended with exit code 3"),
            _ => pass(id),
        });
        cells.push(cell(
            environment,
            Some(facts(if e == 2 { 1000 } else { 0 }, 64 << 20, e > 2, e < 2)),
            results.collect(),
        ));
    }
    report(cells, 700, 101)
}
