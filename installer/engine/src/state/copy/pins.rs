//! Keys of hosts in a copy of the state. A key that was pinned here is never exchanged by what a copy holds.
//!
//! `known_hosts` of OpenSSH knows patterns, lists and hashed names, so a line may speak of hosts that it does not name. A
//! copy holds none of these: every line is `NAME KIND KEY`, one space between them, and the name is that of a host or a
//! jump host of the copy's own topology ([`published`] writes no other, [`strange`] refuses every other). What is pinned
//! here stays when a copy says nothing of it ([`merged`]): else a key could be exchanged in two steps, first gone and
//! then another.

use crate::remote::ssh;
use maxim_model::topology::Topology;
use std::collections::{BTreeMap, BTreeSet};

/// What is not taken over, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Strange {
    pub what: String,
    /// Whose pinned keys a person must remove here first; none: that would not help.
    pub of: Option<String>,
}

/// Keys by name.
type Keys<'t> = BTreeMap<&'t str, BTreeSet<(&'t str, &'t str)>>;

/// Name, kind and key of a line that names one host, plainly.
fn plain(line: &str) -> Option<(&str, &str, &str)> {
    let mut words = line.split(' ');
    let (name, kind, key) = (words.next()?, words.next()?, words.next()?);
    let one_host = !name.contains(['*', '?', '!', ',', '|', '@', '#']);
    let all_plain = [name, kind, key]
        .iter()
        .all(|word| !word.is_empty() && word.chars().all(|letter| letter.is_ascii_graphic()));
    (words.next().is_none() && one_host && all_plain).then_some((name, kind, key))
}

/// Of what is pinned here what a copy with this topology holds.
pub(super) fn published(text: &str, topology: &Topology) -> String {
    let names = ssh::pinned_names(topology);
    let of_hosts =
        |line: &&str| plain(line.trim_end_matches('\n')).is_some_and(|(name, _, _)| names.contains(name));
    let mut kept: String = text.split_inclusive('\n').filter(of_hosts).collect();
    if !kept.is_empty() && !kept.ends_with('\n') {
        kept.push('\n');
    }
    kept
}

/// What of a copy's keys nobody here has confirmed. `topology`: the copy's; none: it is not understood here.
pub(super) fn strange(mine: &str, copy: &str, topology: Option<&Topology>) -> Option<Strange> {
    let names = topology.map(ssh::pinned_names).unwrap_or_default();
    let mut theirs = Keys::new();
    for line in copy.strip_suffix('\n').unwrap_or(copy).split('\n').filter(|_| !copy.is_empty()) {
        match plain(line).filter(|(name, _, _)| names.contains(*name)) {
            Some((name, kind, key)) => theirs.entry(name).or_default().insert((kind, key)),
            None => {
                let shown: String = line.chars().take(40).collect();
                let what = format!(
                    "keys for other than the hosts of its topology: a line begins with `{}`",
                    shown.escape_debug()
                );
                return Some(Strange { what, of: None });
            }
        };
    }
    let changed = pinned(mine).into_iter().find_map(|(name, own)| match theirs.get(name) {
        Some(found) if *found != own => Some((name, "other keys")),
        None if names.contains(name) => Some((name, "no key")),
        _ => None,
    });
    changed.map(|(name, found)| Strange {
        what: format!("{found} for {} than those that are pinned here", name.escape_debug()),
        of: Some(name.to_owned()),
    })
}

/// A copy's keys, and those that are pinned here of hosts that the copy says nothing of.
pub(super) fn merged(mine: &str, copy: &str) -> String {
    let theirs = pinned(copy);
    let mut all = copy.to_owned();
    for line in mine.lines() {
        let name = line.split_ascii_whitespace().next();
        if name.is_some_and(|name| !theirs.contains_key(name)) {
            all.push_str(line);
            all.push('\n');
        }
    }
    all
}

/// What a file of this control host holds. A person may have written into it, so its lines are read as SSH reads them.
fn pinned(text: &str) -> Keys<'_> {
    let mut all = Keys::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if let (Some(name), Some(kind), Some(key)) = (words.next(), words.next(), words.next()) {
            all.entry(name).or_default().insert((kind, key));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{Strange, merged, published, strange};
    use crate::sample;
    use maxim_model::topology::{Connection, Topology};

    const MINE: &str = "10.77.0.11 ssh-ed25519 AAA\n10.77.0.12 ssh-ed25519 BBB\n";

    /// Hosts .11, .12 and .13; the last one at another port, behind a jump host.
    fn topology() -> Topology {
        let mut topology = sample::three_hosts();
        let Connection::Ssh(ssh) = &mut topology.hosts[2].connection else { panic!("by SSH") };
        (ssh.port, ssh.jump) = (2222, "ann@gate.example:22".into());
        topology
    }

    fn judged(copy: &str) -> Option<Strange> {
        strange(MINE, copy, Some(&topology()))
    }

    #[test]
    fn keys_of_new_hosts_of_the_topology_and_of_jump_hosts_are_taken_over() {
        assert_eq!(judged(MINE), None);
        assert_eq!(
            judged(&format!("{MINE}[10.77.0.13]:2222 ssh-rsa CCC\ngate.example ssh-ed25519 DDD\n")),
            None
        );
        assert_eq!(strange("", MINE, Some(&topology())), None);
        assert_eq!(strange("", "", Some(&topology())), None);
    }

    /// Whoever writes the copy adds a line that speaks of a host whose key is pinned, in another way than by its name.
    #[test]
    fn a_line_that_names_not_exactly_a_host_of_the_topology_is_refused() {
        for line in [
            "* ssh-ed25519 EVIL",
            "10.77.0.1? ssh-ed25519 EVIL",
            "10.77.0.12,x ssh-ed25519 EVIL",
            "!x,10.77.* ssh-ed25519 EVIL",
            "|1|c2FsdA==|aGFzaA== ssh-ed25519 EVIL",
            "10.77.0.12\tssh-ed25519 EVIL",
            "10.77.0.12\tssh-ed25519 EVIL x",
            " 10.77.0.12 ssh-ed25519 EVIL",
            "10.77.0.12  ssh-ed25519 EVIL",
            "10.77.0.12 ssh-ed25519 EVIL comment",
            "@revoked 10.77.0.12 ssh-ed25519",
            "# 10.77.0.12 ssh-ed25519",
            "10.77.0.13 ssh-ed25519 EVIL",
            "other.example ssh-ed25519 EVIL",
            "10.77.0.12 ssh-ed25519 BBB\r",
            "",
        ] {
            for copy in [format!("{MINE}{line}\n"), format!("{line}\n{MINE}")] {
                let found = judged(&copy).unwrap_or_else(|| panic!("`{line}` was taken over"));
                assert_eq!(found.of, None, "{line}: {found:?}");
            }
        }
        assert!(strange(MINE, MINE, None).is_some(), "without a topology nothing is known of any host");
    }

    #[test]
    fn a_key_that_is_another_or_gone_is_refused() {
        for copy in [
            "10.77.0.11 ssh-ed25519 AAA\n10.77.0.12 ssh-ed25519 EVIL\n".to_owned(),
            format!("{MINE}10.77.0.12 ssh-rsa EVIL\n"),
            "10.77.0.11 ssh-ed25519 AAA\n".to_owned(),
            String::new(),
        ] {
            let found = judged(&copy).unwrap_or_else(|| panic!("`{copy}` was taken over"));
            assert!(found.of.is_some(), "{copy}: {found:?}");
        }
    }

    /// First the host goes, with its key; then it is there again, with another key.
    #[test]
    fn a_key_is_not_exchanged_in_two_steps() {
        let mut fewer = topology();
        fewer.hosts.remove(1);
        let first = "10.77.0.11 ssh-ed25519 AAA\n";
        assert_eq!(strange(MINE, first, Some(&fewer)), None, "hosts come and go");
        let kept = merged(MINE, first);
        assert_eq!(kept, MINE);
        let second = format!("{first}10.77.0.12 ssh-ed25519 EVIL\n");
        let found = strange(&kept, &second, Some(&topology())).unwrap();
        assert_eq!(found.of.as_deref(), Some("10.77.0.12"), "{found:?}");
    }

    #[test]
    fn only_what_others_take_over_is_published() {
        let text = format!(
            "{MINE}10.88.0.1 ssh-ed25519 OLD\n* ssh-ed25519 XXX\n# by ann\n10.77.0.12\tssh-rsa RRR\n[10.77.0.13]:2222 ssh-rsa CCC"
        );
        let copy = published(&text, &topology());
        assert_eq!(copy, format!("{MINE}[10.77.0.13]:2222 ssh-rsa CCC\n"));
        assert_eq!(strange("", &copy, Some(&topology())), None);
        assert_eq!(
            published(&merged(&text, &copy), &topology()),
            copy,
            "whoever took it over writes the same"
        );
    }
}
