//! A probe's own source, cut out of the file that defines it.

use shmcheck_probe::Probe;
use std::sync::OnceLock;

/// Every source file of this crate, packed by the build script: name, length and text, one after the other.
const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sources.bin"));

/// The item that defines the probe, and the functions behind it up to the next item that is no function.
pub fn of(probe: &Probe) -> Option<String> {
    let text = file_of(probe)?;
    let lines: Vec<&str> = text.lines().collect();
    let at = (probe.location.line() as usize).checked_sub(1).filter(|at| *at < lines.len())?;
    let start = (0..=at).rev().find(|n| begins_item(lines[*n]))?;
    let mut end = item_end(&lines, start)?.max(at);
    // A constant's function stands right behind it.
    if lines.get(end + 1).is_some_and(|line| line.starts_with("fn ")) {
        end = item_end(&lines, end + 1)?;
    }
    Some(lines[start..=end].iter().flat_map(|line| [line, "\n"]).collect())
}

/// What the file that defines the probe is about: the first sentence of its own documentation.
pub fn about(probe: &Probe) -> Option<String> {
    let lines = file_of(probe)?.lines().map_while(|line| line.strip_prefix("//!"));
    let text = lines.map(str::trim).take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    Some(text.split_once(". ").map_or(text.as_str(), |(first, _)| first).to_owned())
}

/// The text of the file that defines the probe.
fn file_of(probe: &Probe) -> Option<&'static str> {
    static ALL: OnceLock<Option<String>> = OnceLock::new();
    let unpack = || String::from_utf8(miniz_oxide::inflate::decompress_to_vec(PACKED).ok()?).ok();
    let mut rest = ALL.get_or_init(unpack).as_deref()?;
    loop {
        let (name, tail) = rest.split_once('\n')?;
        let (length, tail) = tail.split_once('\n')?;
        let (text, tail) = tail.split_at_checked(length.parse().ok()?)?;
        if probe.location.file().ends_with(name) {
            return Some(text);
        }
        rest = tail;
    }
}

fn begins_item(line: &str) -> bool {
    ["const ", "pub const ", "static ", "fn ", "macro_rules!"].iter().any(|word| line.starts_with(word))
}

/// The line with which the item that begins at `start` ends: the first that closes at the left margin.
fn item_end(lines: &[&str], start: usize) -> Option<usize> {
    (start..lines.len()).find(|n| {
        let line = lines[*n];
        let closes = !line.starts_with(char::is_whitespace) && (line.ends_with(';') || line.starts_with('}'));
        closes || *n == start && line.ends_with('}')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_has_its_source() {
        for probe in crate::catalogue() {
            let source = of(probe);
            assert!(source.is_some_and(|text| text.lines().count() >= 3), "{} has no source", probe.id);
        }
    }
}
