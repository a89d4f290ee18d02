//! Where each operation is. Every one is `POST` with a JSON body, except those that say `GET`.

/// `GET`: [`Readiness`](crate::Readiness); status 200 when ready, 503 when not.
pub const READINESS: &str = "/v1/readiness";
/// `GET`: [`Stats`](crate::Stats).
pub const STATS: &str = "/v1/stats";
/// [`CreateUser`](crate::CreateUser) makes an account: [`User`](crate::User).
pub const USER_CREATE: &str = "/v1/users/create";
/// [`ListUsers`](crate::ListUsers) lists accounts: [`UserList`](crate::UserList).
pub const USER_LIST: &str = "/v1/users/list";
/// [`SetPassword`](crate::SetPassword) replaces a password and ends the account's sessions:
/// [`Empty`](crate::Empty).
pub const USER_PASSWORD: &str = "/v1/users/password";
/// [`UserAddress`](crate::UserAddress) forbids signing in and ends the account's sessions:
/// [`User`](crate::User).
pub const USER_DISABLE: &str = "/v1/users/disable";
/// [`UserAddress`](crate::UserAddress) allows signing in again: [`User`](crate::User).
pub const USER_ENABLE: &str = "/v1/users/enable";
/// [`UserAddress`](crate::UserAddress) removes an account with all it owns: [`Empty`](crate::Empty).
pub const USER_REMOVE: &str = "/v1/users/remove";
/// [`Empty`](crate::Empty) makes two hidden accounts that may message only each other:
/// [`CanaryCreated`](crate::CanaryCreated).
pub const CANARY_CREATE: &str = "/v1/canary/create";
/// [`SweepCanaries`](crate::SweepCanaries) removes hidden accounts: [`CanarySwept`](crate::CanarySwept).
pub const CANARY_SWEEP: &str = "/v1/canary/sweep";
/// [`Drain`](crate::Drain) ends all sessions and takes no new ones: [`Empty`](crate::Empty).
pub const DRAIN: &str = "/v1/drain";
/// `GET`: [`Schema`](crate::Schema), how far the database's schema is.
pub const SCHEMA: &str = "/v1/schema";
/// [`Empty`](crate::Empty) begins what waits for the end of an upgrade, or joins what was begun:
/// [`Schema`](crate::Schema) at once. Ask [`SCHEMA`] until it is no longer `finalizing`.
pub const SCHEMA_FINALIZE: &str = "/v1/schema/finalize";
