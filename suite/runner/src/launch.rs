//! How an agent is started: a command line, the user it runs as, and what to do when it will not end.

use crate::Declared;

/// The variable that marks every process of a run with the run's id: `clean` knows them by it.
pub const RUN_VARIABLE: &str = "SHMCHECK_RUN";

/// Everything needed to start one cell's agent.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program to run.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables added to its environment.
    pub env: Vec<(String, String)>,
    /// User and group the program is started as; `None` for the runner's own.
    pub user: Option<(u32, u32)>,
    /// The container's name; `None` where there is none.
    pub container: Option<String>,
    /// What the environment was asked for.
    pub declared: Declared,
    /// Command lines that end what the program may leave behind when it is killed.
    pub undo: Vec<Vec<String>>,
}

impl Launch {
    /// A launch of this program itself as the agent.
    pub fn own(exe: &std::path::Path, args: &[&str], declared: Declared) -> Self {
        let mut all = vec!["agent".to_owned()];
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        Self {
            program: exe.display().to_string(),
            args: all,
            env: Vec::new(),
            user: None,
            container: None,
            declared,
            undo: Vec::new(),
        }
    }

    /// Runs a command line with this launch's user and variables, and gives its trimmed output or what it complained.
    pub fn tool(&self, line: &[String]) -> Result<String, String> {
        let Some((program, args)) = line.split_first() else { return Err("no command".to_owned()) };
        run_tool(program, args, &self.env, self.user)
    }

    /// Carries out [`Launch::undo`]; what is gone already is no error.
    pub fn undo(&self) {
        for line in &self.undo {
            let _ = self.tool(line);
        }
    }
}

/// A duct expression for a command line with variables and a user.
pub fn expression(
    program: &str,
    args: &[String],
    env: &[(String, String)],
    user: Option<(u32, u32)>,
) -> duct::Expression {
    let mut command = duct::cmd(program, args);
    for (name, value) in env {
        command = command.env(name, value);
    }
    command.before_spawn(move |command| {
        use std::os::unix::process::CommandExt;
        // A ^C at the terminal is for the runner, which ends its agents in order.
        command.process_group(0);
        if let Some((uid, gid)) = user {
            // Setting the uid also clears the supplementary groups where the caller is root.
            command.gid(gid).uid(uid).current_dir("/");
        }
        Ok(())
    })
}

/// Runs a tool to its end; its trimmed standard output, or the last line of what it complained.
pub fn run_tool(
    program: &str,
    args: &[String],
    env: &[(String, String)],
    user: Option<(u32, u32)>,
) -> Result<String, String> {
    let output = expression(program, args, env, user)
        .stdin_null()
        .stdout_capture()
        .stderr_capture()
        .unchecked()
        .run()
        .map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message").trim().to_owned();
    Err(last)
}
