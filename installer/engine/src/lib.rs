//! Connect, probe, plan, apply and verify: the actions behind the command line and the console.
