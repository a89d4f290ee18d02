//! What the pages say about the cluster.

use crate::support::{Console, cluster};
use maxim_console::status::source::MeasureError;
use maxim_model::status::Health;

#[tokio::test]
async fn all_well_is_said_in_the_first_line() {
    let console = Console::start().await;
    let mut browser = console.signed_in();
    let page = browser.get("/").await;
    page.says("All well. 4 components on 3 hosts run and answer.").says("acme").says("3 of 3").says("4 of 4");
    page.says("href=\"https://im.acme.example/\"").says("@im.acme.example").says("0 s ago");
    page.says_not("What is not well");
    browser.get("/settings").await.says("acme");
    console.browser().get("/sign-in").await.says_not("acme");
    console.stop().await;
}

#[tokio::test]
async fn what_is_broken_is_named_with_its_cause() {
    let console = Console::start_with(Ok(cluster(Health::Broken))).await;
    let mut browser = console.signed_in();
    let page = browser.get("/").await;
    page.says("Broken: IM core on app1.").says("What is not well").says("3 of 4");
    page.says("exit code 1 &#60;b&#62;twice&#60;/b&#62;").says_not("<b>twice");
    page.says_not("All well");
    browser.get("/hosts/app1").await.says("1 of 2 components on this host is not well.");
    browser.get("/components?show=notwell").await.says("IM core").says_not("MariaDB");
    console.stop().await;
}

#[tokio::test]
async fn another_version_than_wanted_wants_attention() {
    let mut status = cluster(Health::Well);
    status.components[2].running = "11.8.2".into();
    let console = Console::start_with(Ok(status)).await;
    let mut browser = console.signed_in();
    let page = browser.get("/").await;
    page.says("All runs, but look at this: MariaDB on db1.").says("Runs 11.8.2, should run 11.8.6.");
    browser
        .get("/components")
        .await
        .says("One of 4 components is not well: it runs in another version than wanted.");
    console.stop().await;
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_told_once_and_what_is_on_it_is_unknown() {
    let mut status = cluster(Health::Well);
    status.hosts[1].reached = false;
    status.hosts[1].error = "connection timed out after 5 s".into();
    status.components[2].health = Health::Unknown;
    status.components[2].detail = "host not reached".into();
    let console = Console::start_with(Ok(status)).await;
    let mut browser = console.signed_in();
    let page = browser.get("/").await;
    page.says("Broken: Host db1 does not answer.").says("connection timed out after 5 s").says("2 of 3");
    page.says_not("host not reached").says_not("All well");
    browser.get("/hosts").await.says("One of 3 hosts does not answer.");
    browser.get("/hosts/db1").await.says("This host does not answer.").says("Unknown");
    console.stop().await;
}

#[tokio::test]
async fn old_figures_are_greyed_and_nothing_is_called_well() {
    let console = Console::start().await;
    let mut browser = console.signed_in();
    console
        .answers(Err(MeasureError { cause: "the disk is gone".into(), hint: "maxim.ctl doctor".into() }))
        .await;
    console.clock.advance(300);
    for path in ["/", "/hosts", "/hosts/app1", "/components"] {
        let page = browser.get(path).await;
        page.says("class=\"stale\"").says("These figures are 5 min old.");
        page.says("the disk is gone").says("What to do: maxim.ctl doctor");
        page.says_not("state well").says_not("All well");
    }
    browser.get("/").await.says("The state is unknown: the last measurement is 5 min old.");
    browser.get("/components").await.says("Was: Well");
    console.answers(Ok(cluster(Health::Well))).await;
    browser.get("/").await.says("All well.").says_not("class=\"stale\"");
    console.stop().await;
}

#[tokio::test]
async fn nothing_measured_is_not_well() {
    let error = MeasureError { cause: "no topology".into(), hint: "maxim.ctl install".into() };
    let console = Console::start_with(Err(error)).await;
    let mut browser = console.signed_in();
    let page = browser.get("/").await;
    page.says("Nothing is known: the cluster could not be measured.")
        .says("no topology")
        .says("state unknown");
    browser.get("/hosts").await.says("appear here after the first measurement");
    browser.get("/components").await.says("appear here after the first measurement");
    console.stop().await;
}

#[tokio::test]
async fn tables_are_sorted_and_filtered_by_their_address() {
    let console = Console::start().await;
    let mut browser = console.signed_in();
    let order = |text: &str, names: [&str; 3]| {
        let mut at: Vec<(usize, &str)> =
            names.iter().map(|name| (text.find(&format!(">{name}</a>")).unwrap(), *name)).collect();
        at.sort_unstable();
        at.into_iter().map(|(_, name)| name.to_owned()).collect::<Vec<_>>()
    };
    let names = ["app1", "db1", "cache1"];
    let up = browser.get("/hosts?sort=host").await;
    assert_eq!(order(up.text(), names), ["app1", "cache1", "db1"]);
    up.says("aria-sort=\"ascending\"").says("/hosts?sort=host&#38;order=down");
    let down = browser.get("/hosts?sort=host&order=down").await;
    assert_eq!(order(down.text(), names), ["db1", "cache1", "app1"]);
    browser.get("/hosts?q=db").await.says(">db1</a>").says_not(">app1</a>").says("value=\"db\"");
    browser.get("/hosts?q=%22%3E%3Cscript%3E").await.says("Nothing matches.").says_not("\"><script>");
    browser.get("/hosts?show=notwell").await.says("Nothing matches.");
    console.stop().await;
}
