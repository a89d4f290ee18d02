//! Coming in, staying in, going out.

use crate::support::{Console, PASSWORD, cluster};
use maxim_model::status::Health;

const SESSION: &str = "__Host-maxim-session";

#[tokio::test]
async fn a_visitor_is_sent_to_sign_in_and_back_to_where_he_was_going() {
    let console = Console::start().await;
    let mut browser = console.browser();
    let page = browser.get("/hosts?q=app").await;
    assert_eq!((page.status, page.header("location")), (303, "/sign-in?next=/hosts%3Fq%3Dapp"));
    page.says_not("app1");
    let form = browser.get("/sign-in?next=/hosts%3Fq%3Dapp").await;
    form.says("name=\"next\" value=\"/hosts?q=app\"");
    let fields = [("account", "admin"), ("password", PASSWORD), ("next", "/hosts?q=app")];
    let page = browser.post("/sign-in", &form.token(), &fields).await;
    assert_eq!((page.status, page.header("location")), (303, "/hosts?q=app"));
    browser.get("/hosts?q=app").await.says("app1");
    console.stop().await;
}

#[tokio::test]
async fn sign_in_leads_to_no_other_site() {
    let console = Console::start().await;
    let mut browser = console.browser();
    for target in ["https://evil.example/", "//evil.example", "/\\evil.example"] {
        let token = browser.get("/sign-in").await.token();
        let fields = [("account", "admin"), ("password", PASSWORD), ("next", target)];
        let page = browser.post("/sign-in", &token, &fields).await;
        assert_eq!((page.status, page.header("location")), (303, "/"), "{target}");
        browser.cookies.clear();
    }
    console.stop().await;
}

#[tokio::test]
async fn the_session_cookie_is_guarded_and_only_its_digest_is_stored() {
    let console = Console::start_from(Ok(cluster(Health::Well)), PASSWORD).await;
    let mut browser = console.browser();
    let page = browser.sign_in("admin", PASSWORD).await;
    let cookie = page
        .headers
        .get_all("set-cookie")
        .iter()
        .map(|value| value.to_str().unwrap())
        .find(|cookie| cookie.starts_with(SESSION))
        .unwrap();
    for part in ["; Secure", "; HttpOnly", "; SameSite=Strict", "; Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Domain"));
    let token = browser.cookies[SESSION].clone();
    assert_eq!(token.len(), 43, "256 bits");

    for entry in std::fs::read_dir(console.folder.path().join("data")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for secret in [token.as_bytes(), PASSWORD.as_bytes()] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        }
    }
    let setup = std::fs::read_to_string(console.folder.path().join("setup")).unwrap();
    assert!(!setup.contains(PASSWORD));
    console.stop().await;
}

#[tokio::test]
async fn wrong_name_and_wrong_password_are_answered_alike() {
    let console = Console::start().await;
    let mut browser = console.browser();
    let strip = |page: &crate::support::Page, name: &str| {
        page.text().replace(&page.token(), "").replace(&format!("value=\"{name}\""), "")
    };
    let wrong_password = browser.sign_in("admin", "not the password").await;
    let wrong_name = browser.sign_in("nobody", PASSWORD).await;
    assert_eq!((wrong_password.status, wrong_name.status), (403, 403));
    wrong_password.says("Name or password is wrong").says("value=\"admin\"").says_not("not the password");
    assert_eq!(strip(&wrong_password, "admin"), strip(&wrong_name, "nobody"));
    assert!(!browser.cookies.contains_key(SESSION));
    assert_eq!(browser.get("/").await.status, 303);
    console.stop().await;
}

#[tokio::test]
async fn the_door_closes_after_ten_failures_for_longer_each_time() {
    let console = Console::start().await;
    let mut browser = console.browser();
    for _ in 0..10 {
        assert_eq!(browser.sign_in("admin", "wrong wrong wrong").await.status, 403);
    }
    let locked = browser.sign_in("admin", PASSWORD).await;
    assert_eq!((locked.status, locked.header("retry-after")), (429, "30"));
    locked.says("Too many wrong passwords. Try again in 30 s.");
    assert!(!browser.cookies.contains_key(SESSION), "the right password does not open a locked door");

    console.clock.advance(30);
    assert_eq!(browser.sign_in("admin", "wrong wrong wrong").await.status, 403);
    assert_eq!(browser.sign_in("admin", PASSWORD).await.header("retry-after"), "60");
    console.clock.advance(60);
    assert_eq!(browser.sign_in("admin", PASSWORD).await.status, 303);
    console.stop().await;
}

#[tokio::test]
async fn parallel_guesses_do_not_slip_past_the_limit() {
    let console = Console::start().await;
    let mut visitor = console.browser();
    let token = visitor.get("/sign-in").await.token();
    let mut guesses = tokio::task::JoinSet::new();
    for _ in 0..14 {
        let (mut browser, token) = (console.browser(), token.clone());
        browser.cookies = visitor.cookies.clone();
        guesses.spawn(async move {
            browser
                .post("/sign-in", &token, &[("account", "admin"), ("password", "wrong wrong")])
                .await
                .status
        });
    }
    let answers = guesses.join_all().await;
    // Ten were let through to the password; where hashing is slow some of them are told to come again (503).
    assert_eq!(answers.iter().filter(|answer| **answer == 429).count(), 4, "{answers:?}");
    assert!(answers.iter().all(|answer| matches!(answer, 403 | 429 | 503)), "{answers:?}");
    console.stop().await;
}

#[tokio::test]
async fn a_session_ends_when_unused_and_a_refreshing_page_is_no_use() {
    let console = Console::start().await;
    let mut browser = console.signed_in();
    console.clock.advance(29 * 60);
    assert_eq!(browser.get("/").await.status, 200);
    console.clock.advance(29 * 60);
    let refresh = browser.send("GET", "/", &[("x-maxim-refresh", "1")], String::new()).await;
    assert_eq!(refresh.status, 200);
    assert_eq!(browser.get("/?refresh=1").await.status, 200);
    console.clock.advance(2 * 60);
    let refresh = browser.send("GET", "/", &[("x-maxim-refresh", "1")], String::new()).await;
    assert_eq!(refresh.status, 401, "a script is told, not redirected");
    assert_eq!(browser.get("/").await.status, 303);
    console.stop().await;
}

#[tokio::test]
async fn a_session_in_use_ends_after_twelve_hours() {
    let console = Console::start().await;
    let mut browser = console.signed_in();
    for _ in 0..29 {
        console.clock.advance(24 * 60);
        assert_eq!(browser.get("/").await.status, 200);
    }
    console.clock.advance(24 * 60);
    assert_eq!(browser.get("/").await.status, 303);
    console.stop().await;
}

#[tokio::test]
async fn signing_out_ends_the_session_also_for_a_copied_cookie() {
    let console = Console::start().await;
    let mut browser = console.signed_in();
    let copied = browser.cookies.clone();
    let token = browser.get("/").await.token();
    let page = browser.post("/sign-out", &token, &[]).await;
    assert_eq!((page.status, page.header("location")), (303, "/sign-in"));
    assert!(!browser.cookies.contains_key(SESSION));
    let mut thief = console.browser();
    thief.cookies = copied;
    assert_eq!(thief.get("/").await.status, 303);
    console.stop().await;
}

#[tokio::test]
async fn forms_of_other_sites_and_without_token_change_nothing() {
    let console = Console::start().await;
    let mut browser = console.signed_in();
    let token = browser.get("/").await.token();
    let refused = browser.post("/sign-out", "", &[]).await;
    assert_eq!(refused.status, 403);
    refused.says("The form is out of date");
    assert_eq!(browser.post("/sign-out", "AAAA", &[]).await.status, 403);
    let body = format!("form_token={token}");
    for origin in ["https://evil.example", "null", "http://console.acme.example"] {
        let page = browser.send("POST", "/sign-out", &[("origin", origin)], body.clone()).await;
        assert_eq!(page.status, 403, "{origin}");
    }
    let cross = browser.send("POST", "/sign-out", &[("sec-fetch-site", "cross-site")], body.clone()).await;
    assert_eq!(cross.status, 403);
    let mut other = console.signed_in();
    assert_eq!(other.post("/sign-out", &token, &[]).await.status, 403, "another session's token");
    assert_eq!(browser.get("/").await.status, 200, "still signed in");
    assert_eq!(browser.send("POST", "/sign-out", &[], body).await.status, 303);
    console.stop().await;
}

#[tokio::test]
async fn signing_in_needs_the_token_of_the_form_too() {
    let console = Console::start().await;
    let mut browser = console.browser();
    let fields = [("account", "admin"), ("password", PASSWORD)];
    assert_eq!(browser.post("/sign-in", "", &fields).await.status, 403);
    assert!(!browser.cookies.contains_key(SESSION));
    console.stop().await;
}

#[tokio::test]
async fn the_password_is_changed_and_every_other_session_ends() {
    const NEW: &str = "quiet harbour lantern 9";
    let console = Console::start().await;
    let mut other = console.signed_in();
    let mut browser = console.signed_in();
    let page = browser.get("/settings").await;
    page.says("signed in as admin").says("test browser").says("this one").says("End all other sessions");
    let change = |current, new, repeat| [("current", current), ("new", new), ("repeat", repeat)];

    for (fields, status, message) in [
        (change(PASSWORD, "short", "short"), 422, "too short"),
        (change(PASSWORD, "adminadminadmin", "adminadminadmin"), 422, "easy to guess"),
        (change(PASSWORD, PASSWORD, PASSWORD), 422, "is the current one"),
        (change(PASSWORD, NEW, "quiet harbour lantern 8"), 422, "passwords differ"),
        (change("not the password", NEW, NEW), 403, "current password is wrong"),
    ] {
        let page = browser.post("/settings/password", &page.token(), &fields).await;
        assert_eq!(page.status, status, "{message}");
        page.says(message).says_not(NEW).says_not(PASSWORD);
    }
    let before = browser.cookies[SESSION].clone();
    let changed = browser.post("/settings/password", &page.token(), &change(PASSWORD, NEW, NEW)).await;
    assert_eq!((changed.status, changed.header("location")), (303, "/settings?done=password"));
    assert_ne!(browser.cookies[SESSION], before);
    browser.get("/settings?done=password").await.says("The password was changed");
    assert_eq!(other.get("/").await.status, 303);
    assert_eq!(console.browser().sign_in("admin", PASSWORD).await.status, 403);
    assert_eq!(console.browser().sign_in("admin", NEW).await.status, 303);
    console.stop().await;
}

#[tokio::test]
async fn other_sessions_can_be_ended() {
    let console = Console::start().await;
    let mut other = console.signed_in();
    let mut browser = console.signed_in();
    let token = browser.get("/settings").await.token();
    let page = browser.post("/settings/sessions", &token, &[]).await;
    assert_eq!(page.header("location"), "/settings?done=sessions");
    browser.get("/settings").await.says_not("End all other sessions");
    assert_eq!(other.get("/").await.status, 303);
    console.stop().await;
}
