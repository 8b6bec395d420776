//! Where a claim is written down.

/// One place of a document that states what a probe claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clause {
    /// The kind of document.
    pub source: Source,
    /// The document: `shmget(2)`, a POSIX interface, a file of the kernel's tree or its documentation.
    pub document: &'static str,
    /// The section, the errno's name, or the function; may be empty.
    pub section: &'static str,
}

/// The kind of document a [`Clause`] points into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A page of the Linux man-pages project.
    Man,
    /// An interface of POSIX.1-2017.
    Posix,
    /// A source file of the Linux kernel and a function or commit in it.
    Kernel,
    /// Any other document: an engine's manual, kernel documentation, a bug report.
    Doc,
}

/// A man page and the section or errno in it: `man("shmget(2)", "EEXIST")`.
///
/// A section that is the name of an errno says that the probe provokes exactly this pair; the errno matrix is
/// checked against these.
pub const fn man(page: &'static str, section: &'static str) -> Clause {
    Clause { source: Source::Man, document: page, section }
}

/// An interface of POSIX.1-2017: `posix("shmget")`.
pub const fn posix(interface: &'static str) -> Clause {
    Clause { source: Source::Posix, document: interface, section: "" }
}

/// A file of the kernel's tree and a function, commit or version: `kernel("ipc/shm.c", "do_shmat")`.
pub const fn kernel(file: &'static str, section: &'static str) -> Clause {
    Clause { source: Source::Kernel, document: file, section }
}

/// Any other document: `doc("Documentation/filesystems/tmpfs.rst", "size")`, `doc("moby#2606", "")`.
pub const fn doc(document: &'static str, section: &'static str) -> Clause {
    Clause { source: Source::Doc, document, section }
}

impl Clause {
    /// The errno a man page's clause names, if its section is one.
    pub fn errno(&self) -> Option<&'static str> {
        let named = self.section.len() > 2
            && self.section.starts_with('E')
            && self.section.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        (named && self.source == Source::Man).then_some(self.section)
    }
}

impl std::fmt::Display for Clause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.source {
            Source::Man | Source::Doc => write!(f, "{}", self.document)?,
            Source::Posix => write!(f, "POSIX.1-2017 {}()", self.document)?,
            Source::Kernel => write!(f, "linux {}", self.document)?,
        }
        if self.section.is_empty() { Ok(()) } else { write!(f, ", {}", self.section) }
    }
}
