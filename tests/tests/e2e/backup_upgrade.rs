//! The end of the demonstration of `backup_hosts`: a cluster that was rebuilt from repository and recovery kit goes to
//! the next version under load, with a set of its data made first, and back; what the repository's host was handed to
//! put into its sets follows both ways. In the long run a broken version comes first, which takes itself back, and the
//! next one stays.

use crate::backup_hosts::{STATE, Site, long};
use crate::cluster::endpoint;
use crate::delivery::Load;
use crate::product::{Outcome, bundle};
use crate::upgrade::{nothing_doubled, number, print_gaps, version};
use serde_json::Value;

impl Site {
    /// Upgrades with a set first, as an operator does.
    fn upgrade(&self, name: &str) -> Outcome {
        let bundle = version(name).display().to_string();
        self.cluster.run(&["upgrade", "--bundle", &bundle, "--yes"])
    }

    /// The version of the state that the repository's host was handed.
    fn handed_over(&self) -> String {
        let text = self.cluster.testbed.host("app1").read_file(&format!("{STATE}/state.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["version"].as_str().unwrap().to_owned()
    }

    /// Runs a change of versions under load; nothing of the load is lost or doubled.
    fn under_load(&self, name: &str, change: impl FnOnce() -> Outcome) {
        let at = endpoint(&self.installed, "xmpp", 0);
        let load = Load::start(&self.cluster, name, true, &[&at], &[&at]);
        print_gaps(&change());
        load.goes_on(50);
        nothing_doubled(name, &load.end_with_nothing_lost(&at));
    }
}

/// The last part of the demonstration.
pub fn what_was_rebuilt_goes_on_to_the_next_version(site: &Site) {
    let cluster = &site.cluster;
    let (old, new) = (number(&cluster.person, bundle()), number(&cluster.person, &version("next")));
    if long() {
        site.under_load("broken", || site.upgrade("broken").exits(1).says(&["taken back", &old]));
        assert_eq!((cluster.im_versions(), site.handed_over()), (vec![old.clone()], old.clone()));
    }
    site.under_load("forwards", || site.upgrade("next").ok());
    assert_eq!((cluster.im_versions(), site.handed_over()), (vec![new.clone()], new.clone()));
    let sets = site.run(&["list"]).ok().result()["sets"].clone();
    assert_eq!(sets[0]["kind"], "safety", "made of what was there before: {sets}");
    cluster.run(&["rollback", "--yes"]).ok();
    assert_eq!((cluster.im_versions(), site.handed_over()), (vec![old.clone()], old));
    site.scheduled();
    if long() {
        site.under_load("again", || site.upgrade("next").ok());
        cluster.run(&["upgrade", "--finalize", "--yes"]).ok();
        assert_eq!((cluster.im_versions(), site.handed_over()), (vec![new.clone()], new));
        site.scheduled();
        site.run(&["drill"]).ok();
    }
}
