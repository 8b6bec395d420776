//! The documents hold: their examples are run, the command lines they quote exist, their links lead somewhere.

mod support;

use shmcheck_runner::{Constellation, environments, select::Filter};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// All tests of this target work in the repository's folder, as its readers do.
fn at_root() {
    std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).expect("the repository is there");
}

/// Pages that `ci/book` writes, by the name they have in the book.
fn generated() -> BTreeSet<PathBuf> {
    let chapters = shmcheck_probes::CHAPTERS.iter().map(|chapter| chapter.name);
    let copied = [
        "index",
        "how-to-add-a-probe",
        "how-to-add-a-scenario",
        "engines",
        "kernels",
        "seccomp-profiles",
        "engine-profiles",
        "matrices",
        "deviations",
    ];
    chapters.chain(copied).map(|name| PathBuf::from(format!("docs/book/src/generated/{name}.md"))).collect()
}

/// Every Markdown file that people write.
fn pages() -> Vec<(PathBuf, String)> {
    at_root();
    let mut files: Vec<PathBuf> = ["README.md", "CHANGELOG.md", "fixtures/seccomp/README.md"].map(PathBuf::from).into();
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be read").flatten() {
            let path = entry.path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "generated") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                files.push(path);
            }
        }
    }
    files.sort();
    let read = |path: PathBuf| (path.clone(), fs::read_to_string(&path).expect("the page can be read"));
    files.into_iter().map(read).collect()
}

/// Every example that is marked as console is run. `TRYCMD=overwrite` records its output anew.
#[test]
fn examples_give_what_they_show() {
    at_root();
    trycmd::TestCases::new()
        .register_bin("shmcheck", support::program())
        .env("NO_COLOR", "1")
        .case("README.md")
        .case("docs/*.md")
        .case("docs/book/src/*.md")
        .case("docs/book/src/chapters/*.md");
}

#[test]
fn links_lead_somewhere() {
    let generated = generated();
    for (page, text) in pages() {
        for target in links(&text) {
            if target.contains("://") || target.starts_with('#') {
                continue;
            }
            let file = target.split('#').next().unwrap_or_default();
            let path = normal(&page.parent().unwrap_or(Path::new("")).join(file));
            assert!(generated.contains(&path) || path.exists(), "{}: {target} leads nowhere", page.display());
        }
    }
}

/// Every page of the book is in its table of contents: mdbook leaves out the others without a word.
#[test]
fn the_table_of_contents_is_whole() {
    let pages = pages();
    let book = Path::new("docs/book/src");
    let (_, summary) = pages.iter().find(|(path, _)| path.ends_with("SUMMARY.md")).expect("the book has one");
    let listed: BTreeSet<PathBuf> = links(summary).map(|target| normal(&book.join(target))).collect();
    let written = pages.iter().map(|(path, _)| path.clone());
    let own = written.filter(|path| path.starts_with(book) && !path.ends_with("SUMMARY.md"));
    for path in own.chain(generated()) {
        assert!(listed.contains(&path), "SUMMARY.md lacks {}", path.display());
    }
}

/// The README's table has exactly the keys that the environments have.
#[test]
fn the_readme_has_every_key() {
    at_root();
    let readme = fs::read_to_string("README.md").expect("the README can be read");
    let rows: Vec<Vec<&str>> = readme
        .lines()
        .skip_while(|line| !line.starts_with("| key |"))
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let (head, rows) = rows.split_first().expect("the table is there");
    for environment in environments::ALL {
        let column = head.iter().position(|name| *name == environment.name());
        let column = column.unwrap_or_else(|| panic!("the table lacks {}", environment.name()));
        let marked = rows.iter().filter(|row| row[column] == "•");
        let told: BTreeSet<&str> = marked.flat_map(|row| row[0].split(", ").map(|key| key.trim_matches('`'))).collect();
        let known: BTreeSet<&str> = environment.keys().iter().map(|key| key.name).collect();
        assert_eq!(told, known, "{}", environment.name());
    }
}

/// A command line in a document has a command and options that exist, environments and filters that can be read.
#[test]
fn quoted_commands_exist() {
    let mut helps = BTreeMap::new();
    let mut count = 0;
    for (page, text) in pages() {
        for line in command_lines(&text) {
            count += 1;
            if let Err(problem) = check(&line, &mut helps) {
                panic!("{}: `shmcheck {}`: {problem}", page.display(), line.join(" "));
            }
        }
    }
    assert!(count > 20, "only {count} command lines were found");
}

#[test]
fn a_stale_command_is_noticed() {
    let mut helps = BTreeMap::new();
    let mut told = |line: &str| check(&words(line), &mut helps).err().unwrap_or_default();
    assert_eq!(told("run --on docker:shm=1m 'sysv.*' --format tap # comment"), "");
    assert_eq!(told("--on host --verbose"), "");
    assert_eq!(told("frobnicate"), "there is no command frobnicate");
    assert_eq!(told("list --jobs 2"), "list has no option --jobs");
    assert!(told("run --on docker:size=1m").contains("has no key"));
    assert!(told("run @chapter:x").contains("only @call:"));
    assert_eq!(told("report run.json --to json"), "--to has no value json");
    assert_eq!(told("explain sysv.shm.got"), "nothing is called sysv.shm.got");
}

/// Checks the words behind `shmcheck`.
fn check(line: &[String], helps: &mut BTreeMap<String, String>) -> Result<(), String> {
    let top = help("", helps);
    let first = line.first().map_or("", String::as_str);
    let command = match first {
        "" => return Ok(()),
        word if is_command(&top, word) => word,
        // Without a command it is `run`, with options or with filters alone.
        word if word.starts_with('-') || word.contains(['.', '@', '*']) || placeholder(word) => "",
        word => return Err(format!("there is no command {word}")),
    };
    let text = help(command, helps);
    let mut rest = line.iter().skip(usize::from(!command.is_empty()));
    while let Some(word) = rest.next() {
        let (option, given) = word.split_once('=').map_or((word.as_str(), None), |(o, v)| (o, Some(v.to_owned())));
        if !option.starts_with('-') {
            if placeholder(word) {
                continue;
            }
            match command {
                "" | "run" | "list" => drop(Filter::parse(word).map_err(|e| e.to_string())?),
                "explain" if !explained(word) => return Err(format!("nothing is called {word}")),
                _ => {}
            }
            continue;
        }
        let named = |line: &str| line.split([' ', ',', '=']).any(|part| part == option);
        let Some(at) = text.lines().find(|line| line.trim_start().starts_with('-') && named(line)) else {
            return Err(format!("{command} has no option {option}"));
        };
        let value = if at.contains('<') { given.or_else(|| rest.next().cloned()) } else { None };
        let Some(value) = value.filter(|value| !placeholder(value)) else { continue };
        if option == "--on"
            || option == "--require" && environments::find(value.split(':').next().unwrap_or("")).is_some()
        {
            match Constellation::parse(&value) {
                Some(parsed) => drop(parsed.map_err(|e| e.to_string())?),
                None => drop(environments::parse(&value).map_err(|e| e.to_string())?),
            }
        }
        if matches!(option, "--format" | "--to") && !values(&text, option).contains(&value) {
            return Err(format!("{option} has no value {value}"));
        }
    }
    Ok(())
}

/// Whether `explain` knows the word.
fn explained(word: &str) -> bool {
    let plain = word.trim_start_matches('@');
    let chapter = |c: &&shmcheck_probe::Chapter| c.name == plain || c.number.to_string() == plain;
    shmcheck_probes::catalogue().iter().any(|probe| probe.id == word)
        || shmcheck_runner::effective::SETTINGS.iter().any(|setting| setting.id == word)
        || shmcheck_probes::CHAPTERS.iter().any(chapter)
}

/// Words that stand for others: FILTER, ENV, `…`, `[FILTER]`.
fn placeholder(word: &str) -> bool {
    let name = word.trim_matches(['[', ']', '.']);
    word.contains('…') || !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b"=|:[]_-".contains(&b))
}

fn is_command(help: &str, word: &str) -> bool {
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // The agent is not for people and not in the help.
    word == "agent" || commands.into_iter().any(|line| line.split_whitespace().next() == Some(word))
}

/// The values that the help names for an option.
fn values(help: &str, option: &str) -> BTreeSet<String> {
    let begins = |line: &&str| line.trim_start().starts_with('-') && line.contains(&format!("{option} <"));
    let from = help.lines().skip_while(|line| !begins(line)).skip(1);
    let lines = from.take_while(|line| !line.trim_start().starts_with("--")).map(str::trim);
    lines.filter_map(|line| Some(line.strip_prefix("- ")?.split(':').next()?.to_owned())).collect()
}

fn help(command: &str, known: &mut BTreeMap<String, String>) -> String {
    let ask = || {
        let words = [command, "--help"].into_iter().filter(|word| !word.is_empty());
        let output = Command::new(support::program()).args(words).output().expect("the program starts");
        String::from_utf8(output.stdout).expect("help is text")
    };
    known.entry(command.to_owned()).or_insert_with(ask).clone()
}

/// The command lines of a page: those of its code blocks and those quoted in its text.
fn command_lines(text: &str) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    let mut block: Option<String> = None;
    let mut joined = String::new();
    for line in text.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            block = if block.is_some() { None } else { Some(language.trim().to_owned()) };
            continue;
        }
        match block.as_deref() {
            None => lines.extend(line.split('`').skip(1).step_by(2).filter_map(behind_name)),
            Some("sh" | "console" | "") => {
                joined.push_str(line.trim_end_matches('\\'));
                if !line.ends_with('\\') {
                    let line = std::mem::take(&mut joined);
                    lines.extend(behind_name(line.strip_prefix("$ ").unwrap_or(&line)));
                }
            }
            Some(_) => {}
        }
    }
    lines
}

/// What stands behind the program's name, or behind `cargo run --`; nothing where the line is of another program.
fn behind_name(line: &str) -> Option<Vec<String>> {
    if let Some(rest) = line.strip_prefix("cargo run") {
        return rest.split_once(" -- ").map(|(_, rest)| words(rest));
    }
    line.strip_prefix("shmcheck ").map(words)
}

/// Words of a shell's line up to a comment, a pipe or a redirection.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![];
    let mut quoted = None;
    let mut word: Option<String> = None;
    for c in line.chars() {
        match (quoted, c) {
            (Some(quote), c) if c == quote => quoted = None,
            (None, '\'' | '"') => {
                quoted = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '#' | '>' | ';' | '&') if word.is_none() => return words,
            // `bash|zsh` in a synopsis is a word, a pipe stands alone.
            (None, '|') if word.is_none() => return words,
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Targets of the links outside code.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    let prose = text.lines().filter(move |line| {
        code ^= line.trim_start().starts_with("```");
        !code
    });
    prose.flat_map(|line| line.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target)))
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(out.pop()),
            std::path::Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}
