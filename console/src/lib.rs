//! The web console of Maxim.
