//! The IM core: listeners, streams, sessions, routing and features.
