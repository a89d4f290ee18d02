//! English and Chinese.

use crate::support::Console;

#[tokio::test]
async fn follows_the_browser_until_somebody_chooses() {
    let console = Console::start().await;
    let mut browser = console.browser();
    browser.get("/sign-in").await.says("<html lang=\"en\">").says("Sign in to the console").says("中文");
    browser.language = "zh-CN,zh;q=0.9,en;q=0.5".into();
    let page = browser.get("/sign-in").await;
    page.says("<html lang=\"zh-CN\">").says("登录控制台").says("English");

    let chosen = browser.post("/language", &page.token(), &[("to", "en"), ("back", "/sign-in")]).await;
    assert_eq!((chosen.status, chosen.header("location")), (303, "/sign-in"));
    assert!(chosen.header("set-cookie").contains("Max-Age=31536000"));
    browser.get("/sign-in").await.says("Sign in to the console");
    let odd = browser.post("/language", &page.token(), &[("to", "xx"), ("back", "//evil.example")]).await;
    assert_eq!((odd.header("location"), odd.header("set-cookie")), ("/", ""));
    console.stop().await;
}

#[tokio::test]
async fn every_page_speaks_chinese_without_a_missing_key() {
    let console = Console::start().await;
    let mut browser = console.signed_in();
    browser.language = "zh".into();
    for (path, text) in [
        ("/", "一切正常。3 个节点上的 4 个组件均在运行并有响应。"),
        ("/hosts", "全部 3 个节点均有响应。"),
        ("/hosts/app1", "一切正常。其 2 个组件均在运行并有响应。"),
        ("/components", "已运行"),
        ("/settings", "修改密码"),
        ("/nowhere", "此页面不存在"),
    ] {
        browser.get(path).await.says(text).says("概览");
    }
    console.stop().await;
}
