//! Environment strings: `NAME[:KEY=VALUE[,KEY=VALUE…]]`.

use std::collections::BTreeMap;
use std::fmt;

/// An environment as the user wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The environment's name.
    pub name: String,
    /// Keys in the order written; a key may occur more than once (`cap-add`).
    pub keys: Vec<(String, String)>,
}

/// Why an environment string cannot be used: the place and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("environment {string:?}: {problem}")]
pub struct SpecError {
    /// The whole string.
    pub string: String,
    /// What is wrong, where, and what would be right.
    pub problem: String,
}

/// A key that an environment understands.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The key; one that ends with a dot takes a name behind it (`sysctl.`).
    pub name: &'static str,
    /// How its value is written.
    pub value: Value,
    /// What it does, for help and error messages.
    pub help: &'static str,
}

/// How a key's value is written.
#[derive(Debug, Clone, Copy)]
pub enum Value {
    /// `true` or `false`; the key alone means `true`.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    /// One of these words, or `container:ID`.
    WordOrContainer(&'static [&'static str]),
    /// One of these words, or the path of a file.
    WordOrFile(&'static [&'static str]),
    /// A size: digits and an optional `k`, `m` or `g`.
    Size,
    /// `UID` or `UID:GID`.
    User,
    /// A capability's name with or without `CAP_`, several joined with `+`, or `all`, `none`.
    Caps,
    /// Any text that is not empty.
    Text,
}

impl Spec {
    /// Takes a string apart; keys are checked later, by the environment that has the name.
    pub fn parse(string: &str) -> Result<Self, SpecError> {
        let error = |problem: String| SpecError { string: string.to_owned(), problem };
        let (name, rest) = match string.split_once(':') {
            Some((name, rest)) => (name, Some(rest)),
            None => (string, None),
        };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(error("it has to begin with the name of an environment, such as host or docker".to_owned()));
        }
        let mut keys = Vec::new();
        for (n, part) in rest.into_iter().flat_map(|rest| rest.split(',')).enumerate() {
            let (key, value) = part.split_once('=').unwrap_or((part, "true"));
            if key.is_empty() {
                return Err(error(format!("key {} is empty; keys are written KEY=VALUE, separated by commas", n + 1)));
            }
            keys.push((key.to_owned(), value.to_owned()));
        }
        Ok(Self { name: name.to_owned(), keys })
    }

    /// Checks every key against what the environment understands.
    pub fn check(&self, known: &[Key]) -> Result<(), SpecError> {
        let error = |problem: String| SpecError { string: self.to_string(), problem };
        for (n, (key, value)) in self.keys.iter().enumerate() {
            let Some(found) = known.iter().find(|k| k.matches(key)) else {
                let names: Vec<&str> = known.iter().map(|k| k.name).collect();
                let names = if names.is_empty() { "it has no keys".to_owned() } else { names.join(", ") };
                return Err(error(format!("{} has no key {key:?}; its keys: {names}", self.name)));
            };
            found.value.check(value).map_err(|wanted| error(format!("{key}={value}: {wanted}")))?;
            let repeats = matches!(found.value, Value::Caps);
            if !repeats && self.keys[..n].iter().any(|(other, _)| other == key) {
                return Err(error(format!("the key {key} is given twice")));
            }
        }
        Ok(())
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.keys.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Whether a flag is set.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key) == Some("true")
    }

    /// All values of a key that may be repeated, each split at `+`.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.keys.iter().filter(move |(k, _)| k == key).flat_map(|(_, v)| v.split('+'))
    }

    /// Pairs of the name behind a dotted key and its value: `sysctl.kernel.shmmni=5`.
    pub fn dotted<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.keys.iter().filter_map(move |(k, v)| Some((k.strip_prefix(prefix)?, v.as_str())))
    }

    /// The keys as a map, for the report.
    pub fn declared(&self) -> BTreeMap<String, String> {
        let mut map: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in &self.keys {
            map.entry(key.clone())
                .and_modify(|old| {
                    old.push('+');
                    old.push_str(value);
                })
                .or_insert_with(|| value.clone());
        }
        map
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (n, (key, value)) in self.keys.iter().enumerate() {
            f.write_str(if n == 0 { ":" } else { "," })?;
            f.write_str(key)?;
            if value != "true" {
                write!(f, "={value}")?;
            }
        }
        Ok(())
    }
}

impl Key {
    fn matches(&self, key: &str) -> bool {
        if self.name.ends_with('.') {
            key.len() > self.name.len() && key.starts_with(self.name)
        } else {
            self.name == key
        }
    }
}

impl Value {
    /// `Err` says what the value should have been.
    fn check(self, value: &str) -> Result<(), String> {
        let ok = match self {
            Self::Flag => matches!(value, "true" | "false"),
            Self::Word(words) => words.contains(&value),
            Self::WordOrContainer(words) => {
                words.contains(&value) || value.strip_prefix("container:").is_some_and(|id| !id.is_empty())
            }
            Self::WordOrFile(words) => {
                if words.contains(&value) {
                    return Ok(());
                }
                return match std::fs::metadata(value) {
                    Ok(meta) if meta.is_file() => Ok(()),
                    Ok(_) => Err("this is no regular file".to_owned()),
                    Err(e) => Err(format!("{e}; give a file or one of {}", words.join(", "))),
                };
            }
            Self::Size => parse_size(value).is_some(),
            Self::User => parse_user(value).is_some(),
            Self::Caps => value.split('+').all(|name| matches!(name, "all" | "none") || parse_cap(name).is_some()),
            Self::Text => !value.is_empty(),
        };
        if ok { Ok(()) } else { Err(self.wanted()) }
    }

    fn wanted(self) -> String {
        match self {
            Self::Flag => "give true or false".to_owned(),
            Self::Word(words) | Self::WordOrFile(words) => format!("give one of {}", words.join(", ")),
            Self::WordOrContainer(words) => format!("give one of {}, container:ID", words.join(", ")),
            Self::Size => "give a size such as 65536, 64m or 1g".to_owned(),
            Self::User => "give a numeric UID or UID:GID".to_owned(),
            Self::Caps => "give capabilities such as IPC_LOCK or SYS_ADMIN+IPC_OWNER, or all, or none".to_owned(),
            Self::Text => "give a value".to_owned(),
        }
    }
}

/// A size in bytes: digits and an optional `k`, `m` or `g` (powers of 1024).
pub fn parse_size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let (digits, shift) = match lower.as_bytes().last()? {
        b'k' => (&lower[..lower.len() - 1], 10),
        b'm' => (&lower[..lower.len() - 1], 20),
        b'g' => (&lower[..lower.len() - 1], 30),
        _ => (lower.as_str(), 0),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A user and group; the group is the user's number where none is given.
pub fn parse_user(text: &str) -> Option<(u32, u32)> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    // 4294967295 means "leave unchanged" to setresuid(2).
    let id = |s: &str| s.parse::<u32>().ok().filter(|n| *n != u32::MAX && s.bytes().all(|b| b.is_ascii_digit()));
    Some((id(uid)?, id(gid)?))
}

/// A capability by its name, with or without `CAP_`, in any case.
pub fn parse_cap(name: &str) -> Option<caps::Capability> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    full.parse().ok()
}
