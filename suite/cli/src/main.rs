//! The program.
fn main() {
    let catalogue = shmcheck_probes::catalogue();
    let shared = std::env::args().any(|a| a == "--shared-ipc");
    let options = shmcheck_agent::Options { shared_ipc: shared };
    let stdin = std::io::stdin().lock();
    let _ = shmcheck_agent::serve(&catalogue, options, stdin, std::io::stdout().lock());
}
