//! Tells cargo that the playbooks and templates are part of the program: they are embedded at compile time.

fn main() {
    println!("cargo:rerun-if-changed=../../playbooks");
    println!("cargo:rerun-if-changed=../../templates");
}
