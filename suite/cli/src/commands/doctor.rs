//! `doctor`: what works here, and how to get what does not.

use crate::commands::facts;
use crate::failure::Outcome;
use crate::output::Streams;
use shmcheck_protocol::Facts;
use shmcheck_report::Style;
use shmcheck_runner::environments;
use std::io::Write;

/// The width of the text in columns.
const WIDTH: usize = 80;

/// A finding: whether it is well, what it is about, what was found, what to do.
struct Finding {
    well: bool,
    about: &'static str,
    found: String,
    remedy: &'static str,
}

/// Prints the findings; always 0: it reports and does not judge.
pub(crate) fn doctor(streams: Streams) -> Outcome {
    let style = streams.out();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    writeln!(out, "Environments")?;
    for environment in environments::ALL {
        let (well, found) = match environment.available() {
            Ok(version) if version.is_empty() => (true, environment.about().to_owned()),
            Ok(version) => (true, format!("{version}: {}", environment.about())),
            Err(missing) => (false, missing.to_string()),
        };
        line(&mut out, style, well, environment.name(), &found)?;
        let keys: Vec<&str> = environment.keys().iter().map(|key| key.name).collect();
        line(&mut out, style, true, "", &format!("keys: {}", keys.join(", ")))?;
    }
    let facts = facts::of("host")?;
    writeln!(out, "\nThis machine, as user {}", facts.user.uid)?;
    for finding in findings(&facts) {
        line(&mut out, style, finding.well, finding.about, &finding.found)?;
        if !finding.well && !finding.remedy.is_empty() {
            line(&mut out, style, true, "", &format!("→ {}", finding.remedy))?;
        }
    }
    writeln!(out, "\nLeftovers")?;
    let left = shmcheck_runner::clean::clean(true);
    if left.is_empty() {
        line(&mut out, style, true, "shmcheck", "nothing is left of earlier runs")?;
    }
    for thing in &left {
        line(&mut out, style, false, "shmcheck", &format!("{thing}; `shmcheck clean` removes it"))?;
    }
    let inventory = &facts.inventory;
    let others = [
        ("shared memory segments", inventory.shm.len()),
        ("semaphore sets", inventory.sem.len()),
        ("System V queues", inventory.msg.len()),
        ("names in /dev/shm", inventory.dev_shm.len()),
        ("names in /dev/mqueue", inventory.mqueue.len()),
    ];
    let found: Vec<String> =
        others.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{count} {what}")).collect();
    let found = if found.is_empty() { "nothing in this namespace".to_owned() } else { found.join(", ") };
    line(&mut out, style, true, "others", &found)?;
    out.flush()?;
    Ok(0)
}

fn line(out: &mut impl Write, style: Style, well: bool, about: &str, found: &str) -> std::io::Result<()> {
    let mark = match (well, about) {
        (_, "") => "    ".to_owned(),
        (true, _) => style.good("ok  "),
        (false, _) => style.bad("none"),
    };
    let head = format!("  {mark} {about:<11} ");
    // Colour does not count for the width.
    let options = textwrap::Options::new(WIDTH - 19).break_words(false);
    for (n, row) in textwrap::wrap(found, options).iter().enumerate() {
        if n == 0 { writeln!(out, "{head}{row}")? } else { writeln!(out, "{:19}{row}", "")? }
    }
    Ok(())
}

fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |well: bool, about: &'static str, found: String, remedy: &'static str| {
        findings.push(Finding { well, about, found, remedy });
    };
    add(true, "kernel", format!("{} {} {}", facts.kernel.name, facts.kernel.release, facts.kernel.machine), "");
    add(
        facts.fresh.is_some(),
        "namespaces",
        match &facts.fresh {
            Some(_) => "probes get IPC and mount namespaces of their own, and run in parallel".to_owned(),
            None => format!("no fresh namespaces ({}): probes run one by one", facts.fresh_refused),
        },
        "run as root, or allow user namespaces: sysctl user.max_user_namespaces",
    );
    let shm = &facts.cell.dev_shm;
    add(
        shm.refused.is_none(),
        "/dev/shm",
        match &shm.refused {
            None => {
                format!("{} of {} MiB, mode {}, {} MiB free", shm.fs_type, shm.size >> 20, shm.mode, shm.free >> 20)
            }
            Some(reason) => reason.clone(),
        },
        "mount -t tmpfs -o mode=1777,nosuid,nodev shm /dev/shm",
    );
    add(
        facts.cell.mqueue.is_none(),
        "/dev/mqueue",
        facts.cell.mqueue.clone().unwrap_or_else(|| "mounted".to_owned()),
        "mkdir -p /dev/mqueue; mount -t mqueue mqueue /dev/mqueue (queues work without it)",
    );
    let cgroup: Vec<String> = facts.cgroup.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let cgroup = if cgroup.is_empty() { "no limits can be read".to_owned() } else { cgroup.join(", ") };
    add(true, "cgroup", cgroup, "");
    let pools: Vec<String> = facts
        .hugepages
        .iter()
        .map(|pool| format!("{} of {} pages of {} kB free", pool.free, pool.total, pool.kib))
        .collect();
    let any = facts.hugepages.iter().any(|pool| pool.total > 0);
    let pools = if pools.is_empty() { "the kernel has none".to_owned() } else { pools.join(", ") };
    add(any, "huge pages", pools, "as root: sysctl vm.nr_hugepages=N");
    add(true, "NUMA", format!("{} node(s) with memory, {} processor(s)", facts.nodes, facts.cpus), "");
    add(facts.swap > 0, "swap", format!("{} MiB", facts.swap >> 20), "");
    let locked = facts.rlimits.get("memlock").map_or(0, |limit| limit.0);
    let unlimited = locked == u64::MAX;
    let locked = if unlimited { "unlimited".to_owned() } else { format!("{} kB", locked >> 10) };
    add(true, "memlock", locked, "");
    let lsms = if facts.lsms.is_empty() { "none visible".to_owned() } else { facts.lsms.join(", ") };
    add(true, "LSM", lsms, "");
    let refused: Vec<String> = facts.refused_calls.iter().map(|(call, errno)| format!("{call} → {errno}")).collect();
    let calls = if refused.is_empty() { "all of the catalogue's are there".to_owned() } else { refused.join(", ") };
    add(refused.is_empty(), "calls", calls, "");
    findings
}
