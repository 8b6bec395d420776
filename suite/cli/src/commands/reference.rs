//! The reference: the catalogue as Markdown, a page per chapter, for the book.

use shmcheck_probe::{Chapter, Clause, Isolate, Kind, Probe, clause::Source};
use shmcheck_probes::CHAPTERS;
use shmcheck_runner::effective::{SETTINGS, Setting};
use std::fmt::Write as _;

/// Every page begins with it: who edits the page is told where its text comes from.
const NOTICE: &str = "<!-- Written by shmcheck explain --format markdown; edit the catalogue instead. -->";

/// The page that leads to the chapters' pages (`NAME.md` beside it) and describes the declared settings.
pub(crate) fn index() -> String {
    let total: usize = CHAPTERS.iter().map(|chapter| chapter.probes().count()).sum();
    let mut page = format!("# The probes\n\n{NOTICE}\n\n{total} probes in {} chapters.\n\n", CHAPTERS.len());
    page.push_str("| | chapter | filter | probes |\n|---|---|---|---|\n");
    for chapter in CHAPTERS {
        let Chapter { number, name, title, .. } = chapter;
        let count = chapter.probes().count();
        let _ =
            writeln!(page, "| {number} | [{}]({name}.md) | {} | {count} |", escape(title), code(&format!("@{name}")));
    }
    page.push_str("\n## Declared settings\n\n");
    page.push_str("Checked in every cell that declares them: what was asked for against what the agent finds there.\n");
    for setting in SETTINGS {
        page.push('\n');
        page.push_str(&of_setting(setting));
    }
    page
}

/// A chapter's page.
pub(crate) fn of_chapter(chapter: &Chapter) -> String {
    let mut page = format!("# {}\n\n{NOTICE}\n\n", escape(chapter.title));
    if !chapter.intro.is_empty() {
        let _ = writeln!(page, "{}\n", escape(chapter.intro));
    }
    let count = chapter.probes().count();
    let words = if count == 1 { "1 probe" } else { &format!("{count} probes") };
    let _ = writeln!(page, "{words}: {}", code(&format!("shmcheck run @{}", chapter.name)));
    for file in chapter.files {
        let Some(first) = file.first() else { continue };
        // A file's own documentation is Markdown already.
        let about = shmcheck_probes::source::about(first).filter(|about| !about.is_empty());
        let about = about.unwrap_or_else(|| code(first.location.file()));
        let _ = writeln!(page, "\n## {}", about.trim_end_matches('.'));
        for probe in *file {
            page.push('\n');
            page.push_str(&of_probe(probe));
        }
    }
    if !chapter.excluded.is_empty() {
        page.push_str("\n## Documented errors that no probe provokes\n\n| page | error | reason |\n|---|---|---|\n");
        for left in chapter.excluded {
            let _ = writeln!(page, "| {} | {} | {} |", link_man(left.page), left.errno, escape(left.reason));
        }
    }
    page
}

/// A probe's entry.
pub(crate) fn of_probe(probe: &Probe) -> String {
    let mut entry = format!("### {}\n\n**{}**\n\n", code(probe.id), escape(probe.title));
    let spans = |names: &mut dyn Iterator<Item = String>| names.map(|name| code(&name)).collect::<Vec<_>>().join(", ");
    let kind = match probe.kind {
        Kind::Semantics => "",
        Kind::Environment => "; about the environment, not the kernel",
    };
    for (label, words) in [
        ("Why", escape(probe.why)),
        ("Varies", escape(probe.varies)),
        ("Fix", escape(probe.fix)),
        ("Written in", probe.spec.iter().map(clause).collect::<Vec<_>>().join("; ")),
        ("Calls", spans(&mut probe.calls.iter().map(|call| call.name().to_owned()))),
        ("Needs", spans(&mut probe.needs.iter().map(ToString::to_string))),
        ("Runs in", format!("{}{kind}", place(probe.isolate))),
        ("Source", code(&format!("{}:{}", probe.location.file(), probe.location.line()))),
    ] {
        if !words.is_empty() {
            let _ = writeln!(entry, "- *{label}:* {words}");
        }
    }
    entry
}

/// A declared setting's entry.
pub(crate) fn of_setting(setting: &Setting) -> String {
    let Setting { id, title, why, fix, .. } = setting;
    format!("### {}\n\n**{}**\n\n- *Why:* {}\n- *Fix:* {}\n", code(id), escape(title), escape(why), escape(fix))
}

/// The namespaces a probe runs in, in words.
pub(crate) fn place(isolate: Isolate) -> &'static str {
    match isolate {
        Isolate::Fresh => "IPC and mount namespaces of its own where it can have them",
        Isolate::FreshOnly => "IPC and mount namespaces of its own, or not at all",
        Isolate::Cell => "the environment's own namespaces",
        Isolate::CellAlone => "the environment's own namespaces, alone",
    }
}

/// A clause with a link to its document, where the document has a well-known address.
fn clause(clause: &Clause) -> String {
    let mut text = match clause.source {
        Source::Man => link_man(clause.document),
        Source::Posix if clause.document.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') => {
            let name = clause.document;
            let base = "https://pubs.opengroup.org/onlinepubs/9699919799/functions";
            format!("POSIX.1-2017 [{}()]({base}/{name}.html)", escape(name))
        }
        Source::Posix => format!("POSIX.1-2017 {}", escape(clause.document)),
        Source::Kernel => format!("Linux, {}", code(clause.document)),
        Source::Doc => link_doc(clause.document),
    };
    if !clause.section.is_empty() {
        let _ = write!(text, ", {}", escape(clause.section));
    }
    text
}

/// Kernel documentation, man pages and threads with a link; anything else as it is.
fn link_doc(document: &str) -> String {
    let text = escape(document);
    if let Some(path) = document.strip_prefix("Documentation/").and_then(|path| path.strip_suffix(".rst")) {
        return format!("[{text}](https://docs.kernel.org/{path}.html)");
    }
    match document.split_once('#') {
        Some((repository, thread)) if repository.contains('/') && !repository.contains(' ') => {
            format!("[{text}](https://github.com/{repository}/issues/{thread})")
        }
        _ => link_man(document),
    }
}

/// `shmget(2)` with a link to the page; as it is where it is not of that form.
fn link_man(page: &str) -> String {
    let parts = page.strip_suffix(')').and_then(|page| page.split_once('('));
    match parts.filter(|(_, section)| section.starts_with(|c: char| c.is_ascii_digit())) {
        Some((name, section)) => {
            let volume = &section[..1];
            let address = format!("https://man7.org/linux/man-pages/man{volume}/{name}.{section}.html");
            format!("[{}]({address})", escape(page))
        }
        None => escape(page),
    }
}

/// Text that Markdown shows as it is, in one line.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut before = None;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let inside = |c: Option<&char>| c.is_some_and(|c| c.is_alphanumeric());
        let special = match c {
            '\\' | '`' | '*' | '[' | ']' | '<' | '>' | '&' | '~' | '|' | '{' | '}' => true,
            // Within a word it is no emphasis.
            '_' => !(inside(before.as_ref()) && inside(rest.peek())),
            // A heading or a list, where a line begins with it.
            '#' | '-' | '+' | '=' => before.is_none(),
            '.' | ')' => out.bytes().all(|b| b.is_ascii_digit()) && !out.is_empty(),
            _ => false,
        };
        if special {
            out.push('\\');
        }
        out.push(c);
        before = Some(c);
    }
    out
}

/// A code span, also of text with backticks.
fn code(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let pad = if longest > 0 { " " } else { "" };
    format!("{fence}{pad}{text}{pad}{fence}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_shows_the_words_themselves() {
        for (text, escaped) in [
            ("IPC_CREAT|IPC_EXCL with EEXIST", r"IPC_CREAT\|IPC_EXCL with EEXIST"),
            ("each SHM_HUGE_* size", r"each SHM_HUGE\_\* size"),
            ("<b>&amp; [x](y) ~~z~~", r"\<b\>\&amp; \[x\](y) \~\~z\~\~"),
            ("# 1. no heading", r"\# 1. no heading"),
            ("1. no list", r"1\. no list"),
            ("- no list - but a dash", r"\- no list - but a dash"),
            ("two\n   lines", "two lines"),
            (r"a\b `c`", r"a\\b \`c\`"),
        ] {
            assert_eq!(escape(text), escaped, "{text}");
        }
        assert_eq!(code("a`b"), "`` a`b ``");
    }

    #[test]
    fn clauses_lead_to_their_documents() {
        let man = shmcheck_probe::man("shmget(2)", "EEXIST");
        assert_eq!(clause(&man), "[shmget(2)](https://man7.org/linux/man-pages/man2/shmget.2.html), EEXIST");
        assert_eq!(clause(&shmcheck_probe::kernel("ipc/shm.c", "do_shmat")), "Linux, `ipc/shm.c`, do_shmat");
        let doc = |document| clause(&shmcheck_probe::doc(document, ""));
        assert_eq!(doc("moby#2606"), "moby#2606");
        assert_eq!(doc("docker/cli#6630"), "[docker/cli#6630](https://github.com/docker/cli/issues/6630)");
        assert_eq!(doc("tmpfs(5)"), "[tmpfs(5)](https://man7.org/linux/man-pages/man5/tmpfs.5.html)");
        assert_eq!(
            doc("Documentation/filesystems/tmpfs.rst"),
            "[Documentation/filesystems/tmpfs.rst](https://docs.kernel.org/filesystems/tmpfs.html)"
        );
    }
}
