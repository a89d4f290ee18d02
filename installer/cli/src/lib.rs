//! The command line of Maxim: one file per command.
