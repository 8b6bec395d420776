//! `agent`: the other end of a runner's streams.

use crate::args::AgentArgs;
use crate::failure::{Failure, Outcome};
use shmcheck_runner::environments::sandbox;

/// Serves requests until the input ends.
pub(crate) fn agent(args: &AgentArgs) -> Outcome {
    if let Some(json) = &args.confine {
        let confinement =
            serde_json::from_str(json).map_err(|e| Failure::Usage(format!("--confine is no confinement: {e}")))?;
        sandbox::enter(&confinement).map_err(|e| Failure::Internal(e.to_string()))?;
    }
    let catalogue = shmcheck_probes::catalogue();
    let options = shmcheck_agent::Options { shared_ipc: args.shared_ipc };
    let scenarios = shmcheck_probes::scenarios();
    match shmcheck_agent::serve(&catalogue, &scenarios, options, std::io::stdin().lock(), std::io::stdout().lock()) {
        Ok(()) => Ok(0),
        Err(shmcheck_agent::Error::Stream(_)) => Err(Failure::Closed),
        Err(e) => Err(Failure::Internal(e.to_string())),
    }
}
