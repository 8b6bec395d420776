//! The image that engines run: this program FROM scratch, made by import, so that no registry is needed.

use crate::launch::expression;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Mutex;

/// The label that images and containers of this program carry.
pub(super) const LABEL: &str = "shmcheck";

/// The engine's command line with the user and variables it is called with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Client {
    pub(super) program: &'static str,
    pub(super) user: Option<(u32, u32)>,
    pub(super) env: Vec<(String, String)>,
}

impl Client {
    /// Runs the engine's client; its output, or the last line of what it complained.
    pub(super) fn run(&self, args: &[&str]) -> Result<String, String> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        crate::launch::run_tool(self.program, &args, &self.env, self.user)
    }

    /// The name of the image that holds this program, imported where the engine does not have it yet.
    pub(super) fn image(&self, exe: &Path) -> Result<String, String> {
        static KNOWN: Mutex<Option<HashMap<Client, Result<String, String>>>> = Mutex::new(None);
        // Held over the import: two cells that start together must not import twice.
        let mut known = KNOWN.lock().map_err(|_| "another cell's import panicked".to_owned())?;
        let known = known.get_or_insert_default();
        if let Some(image) = known.get(self) {
            return image.clone();
        }
        let image = self.find_or_import(exe);
        known.insert(self.clone(), image.clone());
        image
    }

    fn find_or_import(&self, exe: &Path) -> Result<String, String> {
        let program = std::fs::read(exe).map_err(|e| format!("failed to read {}: {e}", exe.display()))?;
        let mut hasher = DefaultHasher::new();
        program.hash(&mut hasher);
        let name = format!("shmcheck:{:016x}", hasher.finish());
        if self.run(&["image", "inspect", "--format", "{{.Id}}", &name]).is_ok() {
            return Ok(name);
        }
        let tar = archive(&program).map_err(|e| format!("failed to pack the image: {e}"))?;
        let change = format!("LABEL {LABEL}=image");
        let args: Vec<String> = ["import", "--change", &change, "-", &name].map(str::to_owned).to_vec();
        let output = expression(self.program, &args, &self.env, self.user)
            .stdin_bytes(tar)
            .stdout_null()
            .stderr_capture()
            .unchecked()
            .run()
            .map_err(|e| format!("{}: {e}", self.program))?;
        if output.status.success() {
            self.forget_old();
            return Ok(name);
        }
        Err(format!("import of the image failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }

    /// Images of builds of another day are of no use any more; those of today may be another checkout's.
    fn forget_old(&self) {
        let label = format!("label={LABEL}=image");
        let _ = self.run(&["image", "prune", "--all", "--force", "--filter", &label, "--filter", "until=24h"]);
    }
}

/// The image's file system: the program and the folders that engines mount over.
fn archive(program: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, mode) in [("dev", 0o755), ("etc", 0o755), ("proc", 0o555), ("sys", 0o555), ("tmp", 0o1777)] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(mode);
        header.set_size(0);
        builder.append_data(&mut header, format!("{name}/"), std::io::empty())?;
    }
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(program.len() as u64);
    builder.append_data(&mut header, "shmcheck", program)?;
    builder.into_inner()
}
