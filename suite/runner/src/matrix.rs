//! Matrix files: many cells in one place, as environment strings and as products of keys.
//!
//! ```toml
//! filters = ["@sysv-shm"]            # where the command line names none
//!
//! [[cell]]
//! on = "host"
//! require = true
//!
//! [[product]]
//! on = ["docker", "podman:runtime=runc"]
//! axes = { ipc = ["private", "host"], shm = ["", "1m"] }    # "" leaves the key out
//! exclude = [{ ipc = "host", shm = "1m" }]                  # cells with all of these
//! ```

use crate::environments;
use crate::run::Planned;
use crate::spec::Spec;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use toml::Spanned;

/// The most cells that a file may describe: more is a slip in an axis.
const MAX_CELLS: usize = 2_000;

/// The cells of a file.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// Filters for runs whose command line has none.
    pub filters: Vec<String>,
    /// The cells in the order written, each once.
    pub cells: Vec<MatrixCell>,
}

/// A cell and what the file asks of it.
#[derive(Debug, Clone)]
pub struct MatrixCell {
    /// The cell.
    pub planned: Planned,
    /// Whether the run is to fail where it cannot start.
    pub required: bool,
}

/// Why a matrix file cannot be used: the place and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatrixError {
    /// The file cannot be read.
    #[error("failed to read the matrix {file}: {cause}")]
    Read {
        /// The file.
        file: String,
        /// The cause.
        cause: String,
    },
    /// What it says cannot be used.
    #[error("{file}:{line}: {problem}")]
    Content {
        /// The file.
        file: String,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong and what would be right.
        problem: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    filters: Vec<String>,
    #[serde(default)]
    cell: Vec<Single>,
    #[serde(default)]
    product: Vec<Spanned<Product>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Single {
    on: Spanned<String>,
    #[serde(default)]
    require: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Product {
    on: Vec<Spanned<String>>,
    #[serde(default)]
    require: bool,
    #[serde(default)]
    axes: BTreeMap<String, Spanned<Vec<Word>>>,
    #[serde(default)]
    exclude: Vec<Spanned<BTreeMap<String, Words>>>,
}

/// A key's value: `user = [0, "65534"]`, `read-only = [true]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a string, a whole number, or true or false")]
enum Word {
    Text(String),
    Number(u64),
    Flag(bool),
}

/// One value or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a value or a list of values")]
enum Words {
    One(Word),
    Many(Vec<Word>),
}

impl Word {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
        }
    }
}

impl Words {
    fn has(&self, value: &str) -> bool {
        match self {
            Self::One(word) => word.text() == value,
            Self::Many(words) => words.iter().any(|word| word.text() == value),
        }
    }
}

/// A problem with the place in the text where it is.
type Problem = (usize, String);

impl Matrix {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, MatrixError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|e| MatrixError::Read { file: file.clone(), cause: e.to_string() })?;
        Self::parse(&text, &file, path.parent().unwrap_or(Path::new("")))
    }

    /// Takes a matrix from its text; `file` is for messages, paths in it are relative to `folder`.
    pub fn parse(text: &str, file: &str, folder: &Path) -> Result<Self, MatrixError> {
        let content = |(start, problem): Problem| MatrixError::Content {
            file: file.to_owned(),
            line: line_of(text, start),
            problem,
        };
        let read: File = toml::from_str(text)
            .map_err(|e| content((e.span().map_or(0, |span| span.start), e.message().trim().to_owned())))?;
        let mut matrix = Self { filters: read.filters, cells: Vec::new() };
        for single in &read.cell {
            let spec =
                Spec::parse(single.on.get_ref()).map_err(|e| content((single.on.span().start, e.to_string())))?;
            matrix.add(spec, single.require, folder).map_err(|problem| content((single.on.span().start, problem)))?;
        }
        for product in &read.product {
            matrix.multiply(product, folder).map_err(content)?;
        }
        if matrix.cells.is_empty() {
            return Err(content((
                0,
                "there is no cell; write [[cell]] with on = \"host\", or a [[product]]".to_owned(),
            )));
        }
        Ok(matrix)
    }

    /// Adds a cell, once; it is required where one of its places in the file says so.
    fn add(&mut self, mut spec: Spec, required: bool, folder: &Path) -> Result<(), String> {
        for (_, value) in spec.keys.iter_mut().filter(|(key, _)| key == "seccomp") {
            if !matches!(value.as_str(), "default" | "unconfined") && Path::new(&*value).is_relative() {
                *value = beside(folder, value);
            }
        }
        let environment = environments::resolve(&spec).map_err(|e| e.to_string())?;
        match self.cells.iter_mut().find(|cell| cell.planned.spec == spec) {
            Some(cell) => cell.required |= required,
            None => self.cells.push(MatrixCell { planned: Planned { environment, spec }, required }),
        }
        Ok(())
    }

    fn multiply(&mut self, product: &Spanned<Product>, folder: &Path) -> Result<(), Problem> {
        let (start, product) = (product.span().start, product.get_ref());
        if product.on.is_empty() {
            return Err((start, "the product has no environment; give on = [\"docker\"]".to_owned()));
        }
        check_axes(product)?;
        let count = product.axes.values().fold(product.on.len(), |n, axis| n.saturating_mul(axis.get_ref().len()));
        if self.cells.len().saturating_add(count) > MAX_CELLS {
            let problem =
                format!("that makes {count} cells more, and a file may have {MAX_CELLS}; name pairs that matter");
            return Err((start, problem));
        }
        let mut used = vec![false; product.exclude.len()];
        for base in &product.on {
            let place = base.span().start;
            let whole = Spec::parse(base.get_ref()).map_err(|e| (place, e.to_string()))?;
            let mut specs = vec![whole];
            for (key, axis) in &product.axes {
                specs = specs.iter().flat_map(|spec| axis.get_ref().iter().map(|word| with(spec, key, word))).collect();
            }
            for spec in specs {
                let hits: Vec<usize> = (0..used.len())
                    .filter(|n| is_excluded(&spec, base.get_ref(), product.exclude[*n].get_ref()))
                    .collect();
                for n in &hits {
                    used[*n] = true;
                }
                if hits.is_empty() {
                    self.add(spec, product.require, folder).map_err(|problem| (place, problem))?;
                }
            }
        }
        match used.iter().position(|used| !used) {
            Some(n) => {
                let problem = "this excludes no cell of the product; mend or remove it";
                Err((product.exclude[n].span().start, problem.to_owned()))
            }
            None => Ok(()),
        }
    }
}

fn check_axes(product: &Product) -> Result<(), Problem> {
    for (key, axis) in &product.axes {
        let start = axis.span().start;
        if axis.get_ref().is_empty() {
            return Err((start, format!("the axis {key} is empty; give values, or \"\" to leave the key out")));
        }
        for word in axis.get_ref() {
            let text = word.text();
            if text.contains(',') {
                return Err((start, format!("{text:?}: a comma cannot be part of a value; give the axis two values")));
            }
        }
    }
    Ok(())
}

/// The spec with one key more; an empty word leaves it out.
fn with(spec: &Spec, key: &str, word: &Word) -> Spec {
    let mut spec = spec.clone();
    let text = word.text();
    if !text.is_empty() {
        spec.keys.push((key.to_owned(), text));
    }
    spec
}

/// Whether all conditions hold: on keys, and with `on` on the environment's name or the whole string of the product.
fn is_excluded(spec: &Spec, base: &str, conditions: &BTreeMap<String, Words>) -> bool {
    let holds = |(key, wanted): (&String, &Words)| match key.as_str() {
        "on" => wanted.has(&spec.name) || wanted.has(base),
        key => wanted.has(spec.get(key).unwrap_or_default()),
    };
    conditions.iter().all(holds)
}

/// A path beside the matrix file, as short as it goes: below the working directory it is relative to that.
fn beside(folder: &Path, value: &str) -> String {
    let mut path = PathBuf::new();
    for part in folder.join(value).components() {
        let above = matches!(path.components().next_back(), Some(Component::Normal(_)));
        match part {
            Component::ParentDir if above => {
                path.pop();
            }
            Component::CurDir => {}
            other => path.push(other),
        }
    }
    // Where a folder on the way is a symbolic link, `..` behind it means another place.
    let plain = folder.join(value);
    let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if same(&path, &plain) { path.display().to_string() } else { plain.display().to_string() }
}

/// The line of a place in a text, counted from 1.
pub(crate) fn line_of(text: &str, start: usize) -> usize {
    text.as_bytes().iter().take(start).filter(|byte| **byte == b'\n').count() + 1
}
