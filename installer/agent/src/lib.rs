//! What runs on a host: facts, checks and one module per kind of task.
