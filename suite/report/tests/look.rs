//! Writes every format to files, for a person to look at: `cargo test -p shmcheck-report --test look -- --ignored`.

mod common;

use shmcheck_report::{Demands, Human, Style, exit, html, json, junit, markdown, tap};
use std::path::Path;

#[test]
#[ignore = "writes files for a person to look at"]
fn write_all() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("look");
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    let texts = common::texts();
    for (name, report) in [("small", common::small()), ("hostile", common::hostile()), ("big", common::big())] {
        let create = |format: &str| std::fs::File::create(folder.join(format!("{name}.{format}"))).expect("as above");
        html::write(&report, &texts, create("html")).expect("HTML");
        json::write(&report, create("json")).expect("JSON");
        junit::write(&report, &texts, create("xml")).expect("JUnit");
        markdown::write(&report, &texts, create("md")).expect("Markdown");
        tap::write(&report, &texts, create("tap")).expect("TAP");
        let mut human = Human::new(create("txt"), Style::new(true), texts.clone(), false);
        for cell in &report.cells {
            human.cell(cell).expect("human");
        }
        human.finish(&report, &exit::ending(&report, Demands::default()).reasons).expect("human");
    }
    println!("{}", folder.display());
}
