//! Users of the machine, read from /etc/passwd: a static program has no name service.

use std::fs;

/// A line of /etc/passwd, passwd(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    /// The name.
    pub(super) name: String,
    /// User id.
    pub(super) uid: u32,
    /// Group id.
    pub(super) gid: u32,
    /// Home directory.
    pub(super) home: String,
}

/// All accounts of /etc/passwd; lines that are none are passed over.
pub(super) fn accounts() -> Vec<Account> {
    parse(&fs::read_to_string("/etc/passwd").unwrap_or_default())
}

fn parse(text: &str) -> Vec<Account> {
    let account = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, _] = fields[..] else { return None };
        Some(Account { name: name.to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.to_owned() })
    };
    text.lines().filter_map(account).collect()
}

/// The names that have subordinate user ids, subuid(5).
pub(super) fn with_subordinate_ids() -> Vec<String> {
    let text = fs::read_to_string("/etc/subuid").unwrap_or_default();
    text.lines().filter_map(|line| line.split_once(':').map(|(name, _)| name.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_over_lines_that_are_no_account() {
        let found = parse("root:x:0:0:root:/root:/bin/sh\n# comment\nbad:x:no:0::/:/\nu:x:5:6:a:/home/u:/bin/sh\n");
        let expected = Account { name: "u".to_owned(), uid: 5, gid: 6, home: "/home/u".to_owned() };
        assert_eq!(found.last(), Some(&expected));
        assert_eq!(found.len(), 2);
    }
}
