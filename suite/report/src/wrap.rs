//! Text within the width of a terminal.

use crate::clean;
use textwrap::core::display_width;
use textwrap::{Options, WordSplitter};

/// Columns that nothing exceeds.
pub(crate) const WIDTH: usize = 80;

/// Where the body of an entry begins.
pub(crate) const INDENT: &str = "      ";

/// Where the values of an entry begin.
pub(crate) const VALUE: &str = "              ";

/// The text in lines of at most [`WIDTH`] columns; the first begins with `first`, the others with `rest`.
pub(crate) fn wrap(first: &str, rest: &str, text: &str) -> Vec<String> {
    let options = Options::new(WIDTH)
        .initial_indent(first)
        .subsequent_indent(rest)
        .word_splitter(WordSplitter::NoHyphenation)
        .wrap_algorithm(textwrap::WrapAlgorithm::FirstFit);
    textwrap::wrap(text, options).into_iter().map(|line| line.trim_end().to_owned()).collect()
}

/// The text in the body of an entry.
pub(crate) fn body(text: &str) -> Vec<String> {
    wrap(INDENT, INDENT, text)
}

/// A labelled value in the body of an entry.
pub(crate) fn labelled(label: &str, text: &str) -> Vec<String> {
    wrap(&format!("{INDENT}{label:<8}"), VALUE, text)
}

/// `left` and `right` at the two ends of a line; `None` where they do not fit.
pub(crate) fn ends(left: &str, right: &str) -> Option<String> {
    let space = WIDTH.checked_sub(display_width(left) + display_width(right)).filter(|space| *space >= 2)?;
    Some(format!("{left}{:space$}{right}", ""))
}

/// The beginning of the text in at most `width` columns, with `…` where something is left out.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    if display_width(text) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += display_width(c.encode_utf8(&mut [0; 4]));
        if used > width {
            break;
        }
        kept.push(c);
    }
    format!("{}…", kept.trim_end())
}

/// A command line to copy: quoted for a shell, continued with a backslash where it is too long for a line. A word that
/// is longer than a line goes on at the very beginning of the next, where the shell joins it.
pub(crate) fn command(label: &str, words: &[&str]) -> Vec<String> {
    const ROOM: usize = WIDTH - VALUE.len() - 2;
    let mut lines = Vec::new();
    let mut line = format!("{INDENT}{label:<8}");
    let mut empty = true;
    for word in words {
        let quoted = quote(&clean::line(word));
        if !empty && display_width(&line) + 1 + display_width(&quoted) + 2 > WIDTH {
            lines.push(format!("{line} \\"));
            line = VALUE.to_owned();
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        if display_width(&quoted) <= ROOM {
            line.push_str(&quoted);
        } else {
            for (n, piece) in pieces(&clean::line(word), ROOM / 2).into_iter().enumerate() {
                if n > 0 {
                    lines.push(format!("{line}\\"));
                    line.clear();
                }
                line.push_str(&quote(&piece));
            }
        }
        empty = false;
    }
    lines.push(line);
    lines
}

/// Pieces that are at most `width` columns wide without quotes. A quote needs four columns, so it stands for that many.
fn pieces(word: &str, width: usize) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut used = 0;
    for c in word.chars() {
        let columns = if c == '\'' { 4 } else { display_width(c.encode_utf8(&mut [0; 4])) };
        if used + columns > width {
            pieces.push(String::new());
            used = 0;
        }
        used += columns;
        if let Some(last) = pieces.last_mut() {
            last.push(c);
        }
    }
    pieces
}

/// The word as a shell takes it.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::{WIDTH, command, ends, shorten, wrap};
    use textwrap::core::display_width;

    #[test]
    fn ids_are_not_torn_at_hyphens() {
        let lines = wrap("  ", "  ", &"sysv.shm.get.excl-eexist ".repeat(4));
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.split_whitespace().all(|id| id == "sysv.shm.get.excl-eexist")));
    }

    #[test]
    fn a_command_can_be_copied() {
        let again = ["shmcheck", "run", "a.b.c", "--on", "docker:seccomp=/my profiles/it's.json"];
        assert_eq!(
            command("again", &again),
            ["      again   shmcheck run a.b.c --on \\", "              'docker:seccomp=/my profiles/it'\\''s.json'"]
        );
    }

    #[test]
    fn a_long_word_of_a_command_is_joined_by_the_shell() {
        let word = "it's ".repeat(60);
        let lines = command("again", &["echo", &word]);
        assert!(lines.iter().all(|line| display_width(line) <= WIDTH), "{lines:#?}");
        let script = lines.join("\n").replace("again", "printf %s \"$(") + ")\"";
        let shell = std::process::Command::new("sh").arg("-c").arg(script).output().expect("sh runs");
        assert_eq!(String::from_utf8_lossy(&shell.stdout).trim_end(), word.trim_end());
    }

    #[test]
    fn short_and_ends() {
        assert_eq!(shorten("漢字かな", 5), "漢字…");
        assert_eq!(shorten("abc", 3), "abc");
        assert_eq!(ends("left", "right").map(|line| line.len()), Some(WIDTH));
        assert_eq!(ends(&"l".repeat(78), "r"), None);
    }
}
