//! What every answer carries, and what is public.

use crate::support::Console;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn pages_are_private_and_run_nothing_foreign() {
    let console = Console::start().await;
    let mut browser = console.signed_in();
    for path in ["/", "/hosts", "/hosts/app1", "/components", "/settings", "/sign-in", "/nowhere"] {
        let page = browser.get(path).await;
        let policy = page.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'") && policy.contains("form-action 'self'"));
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "same-origin"),
            ("strict-transport-security", "max-age=31536000"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            assert_eq!(page.header(name), value, "{path}: {name}");
        }
        if !page.body.is_empty() {
            for inline in ["style=", "<style", "onclick", "javascript:", "<script>"] {
                page.says_not(inline);
            }
        }
    }
    browser.host = "localhost:9443".into();
    let local = browser.get("/").await;
    assert_eq!(local.header("strict-transport-security"), "", "would break a developer's other servers");
    console.stop().await;
}

#[tokio::test]
async fn assets_are_named_by_content_and_cached_for_ever() {
    let console = Console::start().await;
    let mut browser = console.browser();
    let page = browser.get("/sign-in").await;
    let (_, rest) = page.text().split_once("rel=\"stylesheet\" href=\"").unwrap();
    let path = rest.split('"').next().unwrap().to_owned();
    let plain = browser.get(&path).await;
    assert_eq!((plain.status, plain.header("content-type")), (200, "text/css; charset=utf-8"));
    assert_eq!(plain.header("cache-control"), "public, max-age=31536000, immutable");
    let packed = browser.send("GET", &path, &[("accept-encoding", "br, gzip")], String::new()).await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert!(packed.body.len() * 2 < plain.body.len());
    assert_eq!(browser.get("/assets/style.000000000000.css").await.status, 404);
    assert_eq!(browser.get("/assets/..%2f..%2fetc%2fpasswd").await.status, 404);
    console.stop().await;
}

#[tokio::test]
async fn health_is_public_and_says_nothing_else() {
    let console = Console::start().await;
    let mut browser = console.browser();
    let page = browser.get("/healthz").await;
    assert_eq!((page.status, page.text()), (200, "ok\n"));
    assert_eq!(page.header("set-cookie"), "");
    console.stop().await;
}

#[tokio::test]
async fn what_does_not_exist_is_said_in_words() {
    let console = Console::start().await;
    let mut browser = console.signed_in();
    for path in ["/nowhere", "/hosts/nohost", "/hosts/%3Cscript%3E"] {
        let page = browser.get(path).await;
        assert_eq!(page.status, 404, "{path}");
        page.says("This page does not exist").says_not("<script>");
    }
    assert_eq!(browser.get("/sign-out").await.status, 405);
    let large = "x".repeat(100_000);
    let token = browser.get("/").await.token();
    assert_eq!(browser.post("/language", &token, &[("to", &large)]).await.status, 413);
    console.stop().await;
}

#[tokio::test]
async fn plain_http_is_sent_to_https_and_the_port_is_told() {
    let console = Console::start().await;
    let mut stream = tokio::net::TcpStream::connect(console.address).await.unwrap();
    stream.write_all(b"GET /hosts HTTP/1.1\r\nHost: a.example:9443\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("Location: https://a.example:9443/hosts\r\n"), "{answer}");
    let ports = std::fs::read_to_string(console.folder.path().join("ports.json")).unwrap();
    assert_eq!(ports, format!("{{\"console\":{}}}\n", console.address.port()));
    console.stop().await;
}
