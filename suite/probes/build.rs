//! Packs the sources of the probes: `explain` prints a probe's own.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files)?;
    files.sort();
    // Name, length and text of each file, one after the other; see src/source.rs.
    let mut all = Vec::new();
    for file in &files {
        println!("cargo::rerun-if-changed={}", file.display());
        let name = file.strip_prefix(&root).unwrap_or(file).display().to_string();
        let text = fs::read(file)?;
        all.extend(format!("{name}\n{}\n", text.len()).as_bytes());
        all.extend(text);
    }
    // A new file changes its folder.
    println!("cargo::rerun-if-changed=src");
    let packed = miniz_oxide::deflate::compress_to_vec(&all, 9);
    fs::write(PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("sources.bin"), packed)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}
