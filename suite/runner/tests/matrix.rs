//! Matrix files: what is read from them, what is said of mistakes, and the files of this repository.

use proptest::prelude::*;
use shmcheck_runner::matrix::{Matrix, MatrixError};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/matrices")
}

fn parse(text: &str) -> Result<Matrix, MatrixError> {
    Matrix::parse(text, "test.toml", &folder())
}

fn cells(text: &str) -> Vec<String> {
    let matrix = parse(text).unwrap_or_else(|e| panic!("{e}"));
    matrix.cells.iter().map(|cell| cell.planned.spec.to_string()).collect()
}

#[test]
fn cells_come_in_the_order_written_and_once() {
    let text = r#"
        filters = ["sysv.shm.*"]
        [[cell]]
        on = "sandbox"
        [[cell]]
        on = "host"
        [[cell]]
        on = "sandbox"
        require = true
    "#;
    assert_eq!(cells(text), ["sandbox", "host"]);
    let matrix = parse(text).expect("it is a matrix");
    assert_eq!(matrix.filters, ["sysv.shm.*"]);
    assert!(matrix.cells[0].required && !matrix.cells[1].required, "what is required once is required");
}

#[test]
fn a_product_has_every_combination_but_the_excluded() {
    let text = r#"
        [[product]]
        on = ["docker", "podman:rootless"]
        axes = { ipc = ["private", "host"], shm = ["", "1m"], user = [0] }
        exclude = [{ ipc = "host", shm = ["1m", "2m"] }, { on = "podman", ipc = "private", shm = "" }]
    "#;
    assert_eq!(
        cells(text),
        [
            "docker:ipc=private,user=0",
            "docker:ipc=private,shm=1m,user=0",
            "docker:ipc=host,user=0",
            "podman:rootless,ipc=private,shm=1m,user=0",
            "podman:rootless,ipc=host,user=0",
        ]
    );
}

#[test]
fn profiles_lie_beside_the_matrix() {
    let text = "[[cell]]\non = \"sandbox:seccomp=../seccomp/no-sysv.json\"";
    let cells = cells(text);
    let [cell] = &cells[..] else { panic!("{cells:?}") };
    assert!(cell.ends_with("fixtures/seccomp/no-sysv.json") && !cell.contains("matrices"), "{cell}");
}

/// Text, line, and what the message must contain: the mistake and what would be right.
const MISTAKES: &[(&str, usize, &[&str])] = &[
    ("", 1, &["no cell", "[[cell]]"]),
    ("[[cell]]\non = \"host\"\nrequired = true", 3, &["unknown field `required`", "`require`"]),
    ("[[cell]]", 1, &["missing field `on`"]),
    ("\n[[cell]]\non = 7", 3, &["invalid type"]),
    ("[[cell]]\non = \"hots\"", 2, &["no environment \"hots\"", "host"]),
    ("[[cell]]\non = \"sandbox:ipc=none\"", 2, &["ipc=none", "private"]),
    ("[[cell]]\non = \"sandbox:seccomp=nowhere.json\"", 2, &["nowhere.json", "No such file"]),
    ("[[product]]\non = []", 1, &["no environment", "on = "]),
    ("[[product]]\non = [\"sandbox\"]\naxes = { ipc = [] }", 3, &["axis ipc is empty"]),
    ("[[product]]\non = [\"sandbox\"]\naxes = { caps = [\"a,b\"] }", 3, &["comma"]),
    ("[[product]]\non = [\"sandbox:shm=1m\"]\naxes = { shm = [\"2m\"] }", 2, &["given twice"]),
    ("[[product]]\non = [\"sandbox\"]\naxes = { ipc = [1.5] }", 3, &["a string, a whole number"]),
    (
        "[[product]]\non = [\"sandbox\"]\naxes = { ipc = [\"host\"] }\nexclude = [\n{ ipc = \"none\" }]",
        5,
        &["excludes no cell"],
    ),
    ("[[cell]\non = \"host\"", 1, &[]),
];

#[test]
fn mistakes_are_named_with_file_line_and_remedy() {
    for (text, line, words) in MISTAKES {
        let Err(e) = parse(text) else { panic!("{text:?} is taken for a matrix") };
        let said = e.to_string();
        assert!(said.starts_with(&format!("test.toml:{line}: ")), "{text:?}: {said}");
        for word in *words {
            assert!(said.contains(word), "{text:?}: {said} does not say {word:?}");
        }
    }
}

#[test]
fn a_product_that_explodes_is_refused() {
    let values = (1..=50).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let text = format!("[[product]]\non = [\"sandbox\"]\naxes = {{ shm = [{values}], user = [{values}] }}");
    let said = parse(&text).expect_err("2500 cells are too many").to_string();
    assert!(said.contains("2500 cells"), "{said}");
}

#[test]
fn the_files_of_this_repository_are_read() {
    let quick = Matrix::read(&folder().join("quick.toml")).unwrap_or_else(|e| panic!("{e}"));
    assert!((10..=16).contains(&quick.cells.len()), "quick has {} cells", quick.cells.len());
    let full = Matrix::read(&folder().join("full.toml")).unwrap_or_else(|e| panic!("{e}"));
    assert!(full.cells.len() >= 60, "full has {} cells", full.cells.len());
    let specs: BTreeSet<String> = full.cells.iter().map(|cell| cell.planned.spec.to_string()).collect();
    for engine in ["docker", "podman"] {
        for profile in std::fs::read_dir(folder().join("../seccomp")).expect("the profiles are there").flatten() {
            let name = profile.file_name().to_string_lossy().into_owned();
            let used = |spec: &String| spec.starts_with(engine) && spec.ends_with(&format!("seccomp/{name}"));
            assert!(!name.ends_with(".json") || specs.iter().any(used), "no {engine} cell has the profile {name}");
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        if let Err(e) = parse(&text) {
            prop_assert!(e.to_string().starts_with("test.toml:"));
        }
    }

    /// What looks like a matrix in its parts.
    #[test]
    fn any_product_is_read_or_refused(
        on in prop::collection::vec("(host|sandbox|docker|podman|x)(:[a-z]{1,6}(=[a-z0-9/.]{0,6})?)?", 0..3),
        key in "[a-z.]{1,8}",
        values in prop::collection::vec(prop_oneof!["\"[ -!#-\\[\\]-~]{0,8}\"", "[0-9]{1,5}", "true|false"], 0..4),
        exclude in "(\\{ (on|ipc|[a-z]{1,4}) = \"[a-z0-9]{0,4}\" \\})?",
    ) {
        let text = format!(
            "[[product]]\non = {on:?}\naxes = {{ \"{key}\" = [{}] }}\nexclude = [{exclude}]",
            values.join(", ")
        );
        match parse(&text) {
            Ok(matrix) => prop_assert!(matrix.cells.len() <= on.len() * values.len()),
            Err(e) => prop_assert!(e.to_string().starts_with("test.toml:"), "{e}"),
        }
    }
}
