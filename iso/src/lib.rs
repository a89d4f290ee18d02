//! Builds the offline bundle: one file that holds every byte a cluster needs.
//!
//! Needs a checkout, a cache folder, and on the machine: `apt-get`, `dpkg-deb`, a Rust toolchain with
//! `cargo-zigbuild` and Zig, and `npm` for the web chat; what is missing is installed by the checkout's `tests/setup
//! bundle`, which alone needs root, and only then. Steps of [`build`]:
//!
//! 1. [`lock`]: read `iso/bundle.lock`, or make it anew from Debian's signed indexes when told to;
//! 2. [`debian`]: fetch exactly the locked packages by their hashes; [`image`]: compose component images from them;
//! 3. [`portable`]: compile our programs for any glibc since 2.17; [`elf`] proves it, and the processor of everything;
//! 4. [`web`]: the web chat; playbooks and templates of the checkout; [`sbom`]: what all of it consists of;
//! 5. [`bundle`]: manifest, signature ([`sign`]), and the file itself, written whole or not at all.
//!
//! The same lock, sources and key give the same bytes. What it deliberately does not do: install anything, or trust
//! a bundle (readers are in `maxim_model::bundle`).

mod build;
pub mod bundle;
mod command;
mod compatibility;
pub mod debian;
pub mod elf;
mod error;
pub mod image;
pub mod lock;
pub mod portable;
pub mod progress;
pub mod sbom;
pub mod sign;
mod tree;
pub mod web;

pub use build::{BuildOptions, BuildReport, build};
pub use error::BuildError;
pub use progress::{Progress, Silent};

/// Processor that bundles are built for, as `uname -m` says.
pub const ARCHITECTURE: &str = "x86_64";
