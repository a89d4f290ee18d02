//! Messages on their way while a part of a deployed cluster dies: whatever the server acknowledged arrives.
//!
//! [`Load`] is one sender and one receiver with books; scenarios kill something under it, wait until all is well, and
//! compare. A message may come twice after a crash; none may be missing.

use crate::cluster::{Cluster, DOMAIN};
use crate::product::authority;
use maxim_tests::chat::{Chat, Server, Tls};
use maxim_tests::hosts::wait_for;
use maxim_tests::traffic::{Open, Receiver, Sender, archived};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const PASSWORD: &str = "carries messages";

/// One sender and one receiver of a cluster.
pub struct Load {
    name: String,
    managed: bool,
    authority: PathBuf,
    sender: Sender,
    receiver: Receiver,
    since: Instant,
}

/// What came of it, beside that nothing was lost.
#[derive(Debug)]
pub struct Books {
    /// Messages that were acknowledged.
    pub acknowledged: usize,
    /// Of these in a second, over the whole time.
    pub per_second: f64,
    /// Messages that came more than once.
    pub doubled: usize,
    /// The sender's longest time without an acknowledgement.
    pub longest_pause: Duration,
}

/// A machine that does other things too may take so long before the next message comes.
const CALM: Duration = Duration::from_secs(20);

/// Waits until so many have come, or none has for `calm`.
fn settles(calm: Duration, goal: usize, count: impl Fn() -> usize) {
    let end = Instant::now() + Duration::from_mins(5);
    let (mut last, mut since) = (count(), Instant::now());
    while last < goal && since.elapsed() < calm && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
        let now = count();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

/// Connections of an account to the first of these addresses that lets it in.
fn opener(at: &[&str], user: &str, authority: PathBuf) -> Open {
    let at: Vec<_> = at.iter().map(|&one| one.to_owned()).collect();
    let user = user.to_owned();
    Box::new(move || {
        let mut last = anyhow::anyhow!("there is no address");
        for one in &at {
            let server = Server { at: one, tls: Tls::Start, domain: DOMAIN, authority: &authority };
            match Chat::connect(&server, &user, PASSWORD) {
                Ok(chat) => return Ok(chat),
                Err(error) => last = error,
            }
        }
        Err(last)
    })
}

impl Load {
    /// Makes two accounts and lets one write to the other all the time. Each signs in at the first of its addresses
    /// that lets it in, again and again. `managed`: the receiver acknowledges.
    pub fn start(cluster: &Cluster, name: &str, managed: bool, from: &[&str], to: &[&str]) -> Self {
        let authority = authority(&cluster.person, &["-f", &cluster.file]);
        let (writer, reader) = (format!("{name}-writer"), format!("{name}-reader"));
        cluster.add_user(&writer, PASSWORD);
        let address = cluster.add_user(&reader, PASSWORD);
        let receiver = Receiver::start(managed, opener(to, &reader, authority.clone()));
        let sender = Sender::start(&address, name, opener(from, &writer, authority.clone()));
        let since = Instant::now();
        let load = Self { name: name.to_owned(), managed, authority, sender, receiver, since };
        load.goes_on(50);
        load
    }

    /// Waits until `more` further messages were acknowledged and some arrived.
    #[track_caller]
    pub fn goes_on(&self, more: usize) {
        let (sent, got) = (self.sender.acknowledged() + more, self.receiver.count() + more / 4);
        let goes = wait_for("traffic to go on", Duration::from_mins(3), || {
            (self.sender.acknowledged() >= sent && self.receiver.count() >= got).then_some(())
        });
        let (is_sent, is_got) = (self.sender.acknowledged(), self.receiver.count());
        assert!(goes.is_ok(), "{}: {is_sent} of {sent} acknowledged, {is_got} of {got} came", self.name);
    }

    /// Ends both, and holds the books against each other: all that was acknowledged arrived, or (when the receiver
    /// does not acknowledge, so that nobody can know what it read) is at least in its archive. Gives how many came
    /// more than once.
    #[track_caller]
    pub fn end_with_nothing_lost(self, at: &str) -> Books {
        let sent = self.sender.end().unwrap();
        let per_second = sent.acknowledged.len() as f64 / self.since.elapsed().as_secs_f64();
        assert!(!sent.acknowledged.is_empty());
        // What is still on its way, or waits for another session, comes.
        settles(CALM, sent.acknowledged.len(), || self.receiver.count());
        let mut got = self.receiver.end().unwrap();
        // And what was kept for the next session.
        let reader = format!("{}-reader", self.name);
        let late = Receiver::start(self.managed, opener(&[at], &reader, self.authority.clone()));
        // Where none is missing, some may still come twice; what only the archive has does not come at all.
        let missing = sent.acknowledged.iter().any(|one| !got.bodies.contains_key(one));
        let calm = if self.managed && missing { CALM } else { Duration::from_secs(5) };
        settles(calm, usize::MAX, || late.count());
        for (body, times) in late.end().unwrap().bodies {
            *got.bodies.entry(body).or_default() += times;
        }
        let lost: Vec<_> = sent.acknowledged.iter().filter(|body| !got.bodies.contains_key(*body)).collect();
        let mut chat = opener(&[at], &reader, self.authority.clone())().unwrap();
        let archive = archived(&mut chat).unwrap();
        let gone: Vec<_> = lost.iter().filter(|body| !archive.contains(**body)).collect();
        let doubled = got.bodies.values().filter(|times| **times > 1).count();
        println!(
            "{}: {} acknowledged, {} refused, {} untold, {} signed in again; {} came ({doubled} twice), {} only in \
             the archive, {} gone",
            self.name,
            sent.acknowledged.len(),
            sent.refused.len(),
            sent.unknown.len(),
            sent.connections + got.connections - 2,
            got.bodies.len(),
            lost.len() - gone.len(),
            gone.len()
        );
        assert!(gone.is_empty(), "{}: acknowledged and gone: {gone:?}", self.name);
        if self.managed {
            assert!(lost.is_empty(), "{}: acknowledged and never delivered: {lost:?}", self.name);
        }
        Books {
            acknowledged: sent.acknowledged.len(),
            per_second,
            doubled,
            longest_pause: sent.longest_pause,
        }
    }
}

/// Restarts the IM core in good order under traffic: nothing is lost, and nothing comes twice.
pub fn restarts_gracefully(cluster: &Cluster, at: &str) {
    let load = Load::start(cluster, "graceful", true, &[at], &[at]);
    for _ in 0..2 {
        load.goes_on(200);
        cluster.run(&["restart", "im"]).ok();
    }
    load.goes_on(100);
    assert_eq!(load.end_with_nothing_lost(at).doubled, 0, "a restart in good order doubles nothing");
}

/// Ends a service without a chance to say goodbye, and waits until its unit has started another process.
pub fn kill(cluster: &Cluster, host: &str, service: &str) {
    let host = cluster.testbed.host(host);
    let main = format!("systemctl show -p MainPID --value {service}");
    let before = host.sh(&main).unwrap();
    host.sh(&format!("systemctl kill -s KILL {service}")).unwrap();
    wait_for("another process", Duration::from_mins(1), || {
        let now = host.sh(&main).ok()?;
        (now != before && now.trim() != "0").then_some(())
    })
    .unwrap();
}

/// Kills each of these services some times under traffic to one receiver that acknowledges and one that does not.
pub fn survives_kills(cluster: &Cluster, at: &str, services: &[(&str, &str)], word: &str) {
    for (host, service) in services {
        let short = service.trim_start_matches("maxim-");
        let loads = [(true, "managed"), (false, "plain")].map(|(managed, kind)| {
            Load::start(cluster, &format!("{word}-{short}-{kind}"), managed, &[at], &[at])
        });
        for _ in 0..3 {
            for load in &loads {
                load.goes_on(rand::random_range(50..250));
            }
            kill(cluster, host, service);
        }
        for load in &loads {
            load.goes_on(50);
        }
        for load in loads {
            load.end_with_nothing_lost(at);
        }
        // A service that came back by itself so often wants attention until somebody restarts it.
        cluster.run(&["restart", short]).ok();
        cluster.wait_well();
    }
}
