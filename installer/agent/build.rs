//! Says of which sources the agent is made.

mod sources;

fn main() -> std::io::Result<()> {
    sources::tell(std::path::Path::new(".."))
}
