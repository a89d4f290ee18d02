//! Topology, facts, checks, plan, manifest, events: the data of the installer, without I/O.
