//! Tells cargo that the playbooks and templates are part of the program: they are embedded at compile time.

#[path = "../agent/sources.rs"]
mod sources;

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=../../playbooks");
    println!("cargo:rerun-if-changed=../../templates");
    sources::tell(std::path::Path::new(".."))
}
