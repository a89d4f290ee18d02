//! What can be asked of a store, one file per domain: the types and the trait together.
//!
//! Every trait is declared by [`domain!`], which makes the trait itself (its methods return `Send` futures of
//! `Result<_, StoreError>`) and its implementation for [`Store`](crate::Store), which hands each call to the
//! back end in use. A back end implements the traits; callers need only bring them into scope.

/// Declares a domain trait and its dispatch over the back ends of [`Store`](crate::Store).
macro_rules! domain {
    (
        $(#[$trait_meta:meta])*
        pub trait $Trait:ident {
            $( $(#[$fn_meta:meta])* fn $name:ident(&self $(, $arg:ident : $ty:ty)* $(,)?) -> $ret:ty; )*
        }
    ) => {
        $(#[$trait_meta])*
        pub trait $Trait: Send + Sync {
            $(
                $(#[$fn_meta])*
                fn $name(
                    &self $(, $arg: $ty)*
                ) -> impl Future<Output = Result<$ret, crate::StoreError>> + Send;
            )*
        }

        impl $Trait for crate::Store {
            $(
                async fn $name(&self $(, $arg: $ty)*) -> Result<$ret, crate::StoreError> {
                    // On the heap: a back end's future is kilobytes, and every waiting session would hold one for each.
                    match self.backend() {
                        crate::store::Backend::Sqlite(store) => Box::pin(store.$name($($arg),*)).await,
                        crate::store::Backend::Mariadb(store) => Box::pin(store.$name($($arg),*)).await,
                        crate::store::Backend::Postgresql(store) => Box::pin(store.$name($($arg),*)).await,
                    }
                }
            )*
        }
    };
}

mod accounts;
mod archive;
mod housekeeping;
mod profiles;
mod rosters;

pub use accounts::{
    Account, AccountFilter, AccountKind, Accounts, Credentials, NewAccount, ScramKeys, SignIn,
};
pub(crate) use archive::Budget;
pub use archive::{
    Ack, Archive, ArchiveCopy, ArchivePage, ArchiveQuery, ArchivedMessage, NewMessage, Offline, Page,
};
pub use housekeeping::{Housekeeping, Statistics};
pub use profiles::{ArchivePreferences, ArchiveRule, DefaultPolicy, LastActivity, Profiles};
pub use rosters::{Roster, RosterChange, RosterEdit, RosterItem, RosterOutcome, Rosters, Subscription};
pub(crate) use rosters::{groups_from_text, groups_to_text};
