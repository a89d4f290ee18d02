//! Accounts: made once, verified, disabled, listed by pages, removed with all they own.

use super::{account, append, cases, copy, create, credentials, message, offline, stanza};
use crate::servers::Scratch;
use im_store::{
    AccountFilter, AccountKind, Accounts, Archive, ArchivePreferences, ArchiveQuery, DefaultPolicy,
    Housekeeping, LastActivity, NewAccount, NewMessage, Offline, Profiles, RosterChange, RosterEdit,
    RosterItem, Rosters, StoreError,
};

cases!(
    an_address_is_taken_once,
    credentials_come_back_as_they_were,
    a_disabled_account_says_so,
    lists_come_in_pages_without_canaries,
    addresses_are_compared_byte_by_byte,
    removal_takes_all_that_is_owned_and_nothing_else,
    a_removal_that_was_begun_locks_and_can_be_completed,
    unknown_accounts_change_nothing,
    impossible_addresses_are_refused,
    one_of_many_at_once_gets_the_address,
);

async fn an_address_is_taken_once(scratch: Scratch) {
    let store = scratch.open().await;
    let first = NewAccount { display_name: Some("Ann 安".into()), ..account("ann@x", AccountKind::Person) };
    assert!(store.create_account(&first).await.unwrap());
    let second = NewAccount { credentials: credentials(9), ..account("ann@x", AccountKind::Canary) };
    assert!(!store.create_account(&second).await.unwrap());
    let found = store.account("ann@x").await.unwrap().unwrap();
    assert_eq!((found.kind, found.display_name.as_deref()), (AccountKind::Person, Some("Ann 安")));
    assert!(found.created_at > 1_600_000_000_000, "{}", found.created_at);
    assert_eq!(store.sign_in("ann@x").await.unwrap().unwrap().credentials, credentials(7));
}

async fn credentials_come_back_as_they_were(scratch: Scratch) {
    let store = scratch.open().await;
    create(&store, "ann@x").await;
    create(&store, "bob@x").await;
    assert!(store.set_credentials("ann@x", &credentials(200)).await.unwrap());
    // The same again is found all the same, where a server counts changed rows and not found ones.
    assert!(store.set_credentials("ann@x", &credentials(200)).await.unwrap());
    assert_eq!(store.sign_in("ann@x").await.unwrap().unwrap().credentials, credentials(200));
    assert_eq!(store.sign_in("bob@x").await.unwrap().unwrap().credentials, credentials(7));
    let shown = format!("{:?}", store.sign_in("ann@x").await.unwrap());
    assert!(!shown.contains("200, 200"), "{shown}");
}

async fn a_disabled_account_says_so(scratch: Scratch) {
    let store = scratch.open().await;
    create(&store, "ann@x").await;
    for disabled in [true, true, false] {
        assert!(store.set_disabled("ann@x", disabled).await.unwrap());
        assert_eq!(store.sign_in("ann@x").await.unwrap().unwrap().disabled, disabled);
        assert_eq!(store.account("ann@x").await.unwrap().unwrap().disabled, disabled);
    }
}

async fn lists_come_in_pages_without_canaries(scratch: Scratch) {
    let store = scratch.open().await;
    for number in 0..7 {
        create(&store, &format!("user{number}@x")).await;
    }
    store.create_account(&account("hidden@x", AccountKind::Canary)).await.unwrap();
    let mut filter = AccountFilter { limit: 3, ..AccountFilter::default() };
    let mut seen = Vec::new();
    loop {
        let page = store.list_accounts(&filter).await.unwrap();
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        filter.after = Some(last.address.clone());
        seen.extend(page.into_iter().map(|account| account.address));
    }
    assert_eq!(seen, (0..7).map(|number| format!("user{number}@x")).collect::<Vec<_>>());

    let contains = AccountFilter { contains: Some("r5".into()), ..AccountFilter::default() };
    assert_eq!(store.list_accounts(&contains).await.unwrap().len(), 1);
    let wildcard = AccountFilter { contains: Some("%".into()), ..AccountFilter::default() };
    assert!(store.list_accounts(&wildcard).await.unwrap().is_empty());
    let canaries = AccountFilter { kind: AccountKind::Canary, ..AccountFilter::default() };
    assert_eq!(store.list_accounts(&canaries).await.unwrap()[0].address, "hidden@x");
    let old = AccountFilter { created_before: Some(1_600_000_000_000), ..canaries };
    assert!(store.list_accounts(&old).await.unwrap().is_empty());
}

async fn addresses_are_compared_byte_by_byte(scratch: Scratch) {
    let store = scratch.open().await;
    // Prepared addresses that a collation for people would take for one and the same.
    let addresses = ["strasse@x", "straße@x", "e\u{301}@x", "é@x", "a@x", "ä@x", "😀@x", "😁@x"];
    for address in addresses {
        create(&store, address).await;
    }
    for address in addresses {
        assert_eq!(store.account(address).await.unwrap().unwrap().address, address);
    }
    assert!(store.account("A@x").await.unwrap().is_none());
    let mut sorted = addresses.to_vec();
    sorted.sort_unstable();
    let listed: Vec<_> = store.list_accounts(&AccountFilter::default()).await.unwrap();
    assert_eq!(listed.iter().map(|account| account.address.as_str()).collect::<Vec<_>>(), sorted);
}

async fn removal_takes_all_that_is_owned_and_nothing_else(scratch: Scratch) {
    let store = scratch.open().await;
    create(&store, "ann@x").await;
    create(&store, "bob@x").await;
    let to_bob = append(&store, message("ann@x", "bob@x", "kept by bob")).await;
    append(&store, offline("bob@x", "ann@x", "never read")).await;
    append(&store, NewMessage { stanza: stanza("own"), copies: vec![copy("ann@x", "ann@x", true, false)] })
        .await;
    append(&store, NewMessage { stanza: stanza("off"), copies: vec![copy("ann@x", "bob@x", false, true)] })
        .await;
    let put = |contact: &str| {
        let item = RosterItem { contact: contact.into(), listed: true, ..RosterItem::default() };
        RosterEdit::new(move |_| RosterChange::Put(item.clone()))
    };
    store.edit_roster("ann@x", "bob@x", put("bob@x")).await.unwrap();
    store.edit_roster("bob@x", "ann@x", put("ann@x")).await.unwrap();
    store.set_vcard("ann@x", "<vCard/>").await.unwrap();
    store.set_private_xml("ann@x", "e", "n", "<e xmlns='n'/>").await.unwrap();
    store.block("ann@x", &["bob@x".into()]).await.unwrap();
    let preferences =
        ArchivePreferences { default: DefaultPolicy::Never, always: vec!["bob@x".into()], never: vec![] };
    store.set_archive_preferences("ann@x", &preferences).await.unwrap();
    store.set_last_activity("ann@x", &LastActivity { at: 1, status: String::new() }).await.unwrap();

    assert!(store.remove_account("ann@x").await.unwrap());
    assert!(!store.remove_account("ann@x").await.unwrap());
    assert!(store.account("ann@x").await.unwrap().is_none());
    assert!(store.sign_in("ann@x").await.unwrap().is_none());

    // Made anew, it finds nothing of its predecessor.
    create(&store, "ann@x").await;
    let all = ArchiveQuery { max: 100, ..ArchiveQuery::default() };
    assert!(store.query_archive("ann@x", &all).await.unwrap().messages.is_empty());
    assert_eq!(store.pending_count("ann@x").await.unwrap(), 0);
    assert_eq!(store.roster("ann@x").await.unwrap(), im_store::Roster::default());
    assert_eq!(store.vcard("ann@x").await.unwrap(), None);
    assert_eq!(store.private_xml("ann@x", "e", "n").await.unwrap(), None);
    assert!(store.blocked("ann@x").await.unwrap().is_empty());
    assert_eq!(store.archive_preferences("ann@x").await.unwrap(), ArchivePreferences::default());
    assert_eq!(store.last_activity("ann@x").await.unwrap(), None);

    // What bob owns is as it was.
    let kept = store.query_archive("bob@x", &all).await.unwrap().messages;
    assert_eq!((kept.len(), kept[0].id), (2, to_bob));
    assert_eq!(kept[0].stanza, stanza("kept by bob"));
    assert_eq!(store.roster("bob@x").await.unwrap().items.len(), 1);
    scratch.assert_messages_stored(2).await;
}

async fn a_removal_that_was_begun_locks_and_can_be_completed(scratch: Scratch) {
    let store = scratch.open().await;
    for name in ["ann@x", "bob@x", "carl@x"] {
        create(&store, name).await;
    }
    assert!(store.unfinished_removals().await.unwrap().is_empty());
    assert!(!store.begin_removal("nobody@x").await.unwrap());
    assert!(store.begin_removal("ann@x").await.unwrap());
    assert!(store.begin_removal("ann@x").await.unwrap(), "it can be begun again");
    assert!(store.set_disabled("bob@x", true).await.unwrap());
    assert!(store.account("ann@x").await.unwrap().is_none());
    assert!(store.sign_in("ann@x").await.unwrap().is_none());
    assert!(
        !store.create_account(&account("ann@x", AccountKind::Person)).await.unwrap(),
        "the name is taken"
    );
    let all = ["ann@x", "bob@x", "carl@x", "nobody@x"].map(str::to_owned);
    assert_eq!(store.refused_accounts(&all).await.unwrap(), ["ann@x", "bob@x", "nobody@x"]);
    assert!(store.refused_accounts(&[]).await.unwrap().is_empty());
    store.close().await.unwrap();
    let store = scratch.open().await;
    assert_eq!(store.unfinished_removals().await.unwrap(), ["ann@x"]);
    assert!(store.remove_account("ann@x").await.unwrap());
    assert!(store.unfinished_removals().await.unwrap().is_empty());
    create(&store, "ann@x").await;
}

async fn unknown_accounts_change_nothing(scratch: Scratch) {
    let store = scratch.open().await;
    assert!(!store.set_credentials("nobody@x", &credentials(1)).await.unwrap());
    assert!(!store.set_disabled("nobody@x", true).await.unwrap());
    assert!(!store.remove_account("nobody@x").await.unwrap());
    assert!(store.account("nobody@x").await.unwrap().is_none());
    assert!(store.sign_in("nobody@x' OR '1'='1").await.unwrap().is_none());
}

async fn impossible_addresses_are_refused(scratch: Scratch) {
    let store = scratch.open().await;
    for address in ["", "a\0@x", &format!("{}@x", "a".repeat(400))] {
        let error = store.create_account(&account(address, AccountKind::Person)).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    }
    let longest = format!("{}@x", "界".repeat(378));
    create(&store, &longest).await;
    assert!(store.account(&longest).await.unwrap().is_some());
}

async fn one_of_many_at_once_gets_the_address(scratch: Scratch) {
    let store = scratch.open().await;
    let tries = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(
            async move { store.create_account(&account("ann@x", AccountKind::Person)).await.unwrap() },
        )
    });
    let mut made = 0;
    for attempt in tries.collect::<Vec<_>>() {
        made += usize::from(attempt.await.unwrap());
    }
    assert_eq!(made, 1);
}
