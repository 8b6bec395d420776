//! Writes every format to files, for a person to look at: `cargo test -p shmcheck-report --test look -- --ignored`.

mod common;

use shmcheck_report::{Demands, Format, Human, Style, exit, schema};
use std::path::Path;

#[test]
#[ignore = "writes files for a person to look at"]
fn write_all() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("look");
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    let create = |name: &str| std::fs::File::create(folder.join(name)).expect("the target folder is writable");
    let texts = common::texts();
    for (name, report) in [("small", common::small()), ("hostile", common::hostile()), ("big", common::big())] {
        for format in Format::ALL {
            format.write(&report, &texts, create(&format!("{name}.{format}"))).expect("a file can be written");
        }
        let mut human = Human::new(create(&format!("{name}.txt")), Style::new(true), texts.clone(), false);
        for cell in &report.cells {
            human.cell(cell).expect("a file can be written");
        }
        human.finish(&report, &exit::ending(&report, Demands::default()).reasons).expect("a file can be written");
    }
    serde_json::to_writer(create("report.schema"), &schema::report()).expect("a file can be written");
    serde_json::to_writer(create("events.schema"), &schema::events()).expect("a file can be written");
    println!("{}", folder.display());
}
