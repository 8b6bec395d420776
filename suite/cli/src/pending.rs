#![allow(dead_code, missing_docs)]
pub mod ndjson {
    use shmcheck_protocol::*;
    pub struct Writer<W>(W);
    impl<W: std::io::Write> Writer<W> {
        pub fn begin(w: W, _p: &Program, _n: usize, _e: Vec<String>) -> std::io::Result<Self> { Ok(Self(w)) }
        pub fn cell_started(&mut self, _e: &str) -> std::io::Result<()> { Ok(()) }
        pub fn result(&mut self, _e: &str, _r: &Result) -> std::io::Result<()> { Ok(()) }
        pub fn cell_finished(&mut self, _c: &Cell) -> std::io::Result<()> { Ok(()) }
        pub fn finish(&mut self, _r: &Report) -> std::io::Result<()> { Ok(()) }
    }
    pub fn whole(_r: &Report) -> String { String::new() }
}
pub mod junit { pub fn write(_r: &shmcheck_protocol::Report, _t: &shmcheck_report::Texts) -> String { String::new() } }
pub use junit as tap; pub use junit as markdown; pub use junit as html;
pub mod schema { pub fn report() -> String { String::new() } pub fn events() -> String { String::new() } pub fn agent() -> String { String::new() } }
