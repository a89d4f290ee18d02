//! The cases, and the macro that makes a test of each case on each back end.

mod accounts;
mod archive;
mod durability;
mod housekeeping;
mod offline;
mod profiles;
mod rosters;

use crate::servers::{Kind, Scratch};
use bytes::Bytes;
use im_store::{
    AccountKind, Accounts, Ack, Archive, ArchiveCopy, Credentials, MessageId, NewAccount, NewMessage,
    ScramKeys, Store,
};

/// A test of `$case` on every back end, each with a fresh database.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        cases!(@kind sqlite, Sqlite, [$($case),*]);
        cases!(@kind mariadb, Mariadb, [$($case),*]);
        cases!(@kind postgresql, Postgresql, [$($case),*]);
    };
    (@kind $module:ident, $kind:ident, [$($case:ident),*]) => {
        mod $module {
            $(
                #[test]
                fn $case() {
                    $crate::conformance::run($crate::servers::Kind::$kind, |scratch| super::$case(scratch));
                }
            )*
        }
    };
}
pub(crate) use cases;

/// Runs one case against a fresh database of this kind.
pub fn run<F: Future<Output = ()>>(kind: Kind, case: impl FnOnce(Scratch) -> F) {
    if !kind.is_wanted() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let deadline = std::time::Duration::from_mins(2);
        tokio::time::timeout(deadline, case(Scratch::new(kind).await))
            .await
            .expect("the case took over two minutes");
    });
}

pub fn keys(seed: u8, length: usize) -> ScramKeys {
    ScramKeys {
        salt: vec![seed; 16],
        iterations: 4096 + u32::from(seed),
        stored_key: vec![seed.wrapping_add(1); length],
        server_key: [0, 255, seed].repeat(length / 3 + 1)[..length].to_vec(),
    }
}

pub fn credentials(seed: u8) -> Credentials {
    Credentials { sha1: keys(seed, 20), sha256: keys(seed, 32) }
}

pub fn account(address: &str, kind: AccountKind) -> NewAccount {
    NewAccount { address: address.into(), credentials: credentials(7), kind, display_name: None }
}

pub async fn create(store: &Store, address: &str) {
    assert!(store.create_account(&account(address, AccountKind::Person)).await.unwrap());
}

pub fn stanza(body: &str) -> Bytes {
    Bytes::from(format!("<message xmlns='jabber:client' type='chat'><body>{body}</body></message>"))
}

pub fn copy(owner: &str, peer: &str, archive: bool, offline: bool) -> ArchiveCopy {
    ArchiveCopy { owner: owner.into(), peer: peer.into(), archive, offline }
}

/// A message in both archives, which does not await delivery.
pub fn message(from: &str, to: &str, body: &str) -> NewMessage {
    NewMessage {
        stanza: stanza(body),
        copies: vec![copy(from, to, true, false), copy(to, from, true, false)],
    }
}

/// A message in both archives, which awaits delivery to its recipient.
pub fn offline(from: &str, to: &str, body: &str) -> NewMessage {
    NewMessage { stanza: stanza(body), copies: vec![copy(from, to, true, false), copy(to, from, true, true)] }
}

pub async fn append(store: &Store, message: NewMessage) -> MessageId {
    store.append(message).await.unwrap().await.unwrap()
}

/// Hands all of them over before waiting for the first.
pub async fn append_all(store: &Store, messages: impl IntoIterator<Item = NewMessage>) -> Vec<MessageId> {
    let mut acks: Vec<Ack> = Vec::new();
    for message in messages {
        acks.push(store.append(message).await.unwrap());
    }
    let mut ids = Vec::with_capacity(acks.len());
    for ack in acks {
        ids.push(ack.await.unwrap());
    }
    ids
}
