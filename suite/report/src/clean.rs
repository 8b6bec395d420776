//! Text from the place under test, made safe to show: what it prints is hostile.
//!
//! A terminal obeys control characters, and a reader is fooled by characters that turn the direction of the text or
//! have no width. Both are replaced by something that can be seen.

use std::borrow::Cow;
use std::fmt::Write;

/// The text as one line: line breaks become `␊`, other control characters their pictures or their number.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    replace(text, false)
}

/// The text with its line breaks, and all else as in [`line`]. Line breaks at the end are dropped.
pub(crate) fn block(text: &str) -> Cow<'_, str> {
    replace(text.trim_end(), true)
}

/// At most `max` characters of the text, with a note of how many are left out.
pub(crate) fn cut(text: &str, max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max) {
        None => Cow::Borrowed(text),
        Some((end, _)) => {
            let more = text[end..].chars().count();
            Cow::Owned(format!("{}… ({more} more characters)", &text[..end]))
        }
    }
}

/// The line without what a CI service would obey in a log: GitHub takes `::` at the beginning of a line for a command,
/// GitHub, Azure and TeamCity take `##name[` anywhere for one. Nothing becomes wider by it.
pub(crate) fn no_command(line: &str) -> Cow<'_, str> {
    let at = line.len() - line.trim_start().len();
    let command = line[at..].starts_with("::");
    if !command && !line.contains("##") {
        return Cow::Borrowed(line);
    }
    let rest = if command { format!("∷{}", &line[at + 2..]) } else { line[at..].to_owned() };
    Cow::Owned(format!("{}{}", &line[..at], rest.replace("##", "#♯")))
}

/// The lines as they are printed, each with its end and without commands.
pub(crate) fn printed(lines: &[String]) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(&no_command(line));
        text.push('\n');
    }
    text
}

fn replace(text: &str, keep_lines: bool) -> Cow<'_, str> {
    if !text.chars().any(|c| is_unsafe(c) && !(keep_lines && c == '\n')) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' if keep_lines && chars.peek() == Some(&'\n') => {}
            '\n' if keep_lines => shown.push('\n'),
            '\0'..='\x1f' => shown.extend(char::from_u32(0x2400 + u32::from(c))),
            '\x7f' => shown.push('␡'),
            _ if is_unsafe(c) => {
                // Writing to a String cannot fail.
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
            }
            _ => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Control characters, those that are invisible or change how their neighbours are shown, and what XML forbids.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::{block, cut, line, no_command};

    #[test]
    fn control_characters_are_seen() {
        assert_eq!(line("a\x1b[31mb\nc\x7f\u{9b}"), "a␛[31mb␊c␡\\u{9b}");
        assert_eq!(line("user\u{202e}txt"), "user\\u{202e}txt");
        assert_eq!(line("plain → text"), "plain → text");
    }

    #[test]
    fn a_block_keeps_its_lines() {
        assert_eq!(block("one\r\ntwo\rthree\n\n"), "one\ntwo␍three");
    }

    #[test]
    fn a_log_gives_no_commands() {
        assert_eq!(no_command("   ::error::forged"), "   ∷error::forged");
        assert_eq!(no_command("see ##[error]"), "see #♯[error]");
        assert_eq!(no_command("std::mem"), "std::mem");
    }

    #[test]
    fn a_cut_says_how_much_is_gone() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöü", 1), "ä… (2 more characters)");
    }
}
