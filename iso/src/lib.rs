//! Builds the offline bundle: component images, binaries, manifest, SBOM, signature.
