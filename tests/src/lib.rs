//! Real bare hosts, a load generator, and the end-to-end tests in one binary.
