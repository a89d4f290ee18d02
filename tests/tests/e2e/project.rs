//! What must hold of the checkout itself: dependencies point one way, nothing in it leans on a place that a
//! stranger does not have, files stay readable, and what the documents promise exists.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The files that git knows, as paths from the root, with their text; pictures and other bytes are left out.
fn tracked_text() -> Vec<(String, String)> {
    let listed = Command::new("git").arg("-C").arg(root()).args(["ls-files", "-z"]).output().unwrap();
    assert!(listed.status.success(), "the checkout is a git repository");
    String::from_utf8(listed.stdout)
        .unwrap()
        .split_terminator('\0')
        .filter_map(|path| Some((path.to_owned(), fs::read_to_string(root().join(path)).ok()?)))
        .collect()
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

/// The workspace's crates and which of each other they use (tests and build scripts apart).
fn crates() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let names: BTreeSet<_> =
        packages.iter().map(|package| package["name"].as_str().unwrap().to_owned()).collect();
    packages
        .iter()
        .map(|package| {
            let uses = package["dependencies"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
                .filter(|name| names.contains(name))
                .collect();
            (package["name"].as_str().unwrap().to_owned(), uses)
        })
        .collect()
}

#[test]
fn dependencies_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("maxim-model", &[][..]),
        ("maxim-agent", &["maxim-model", "im-admin-api"][..]),
        ("maxim-engine", &["maxim-agent", "maxim-model", "im-admin-api"][..]),
        ("maxim-iso", &["maxim-model"][..]),
        ("maxim-ctl", &["maxim-engine", "maxim-agent", "maxim-model", "maxim-iso", "im-admin-api"][..]),
        ("maxim-console", &["maxim-engine", "maxim-agent", "maxim-model", "im-admin-api"][..]),
        ("im-proto", &[][..]),
        ("im-store", &["im-proto"][..]),
        ("im-admin-api", &[][..]),
        ("im-server", &["im-store", "im-proto", "im-admin-api"][..]),
        ("maxim-tests", &["maxim-model", "im-admin-api"][..]),
    ]);
    let crates = crates();
    let known: Vec<_> = crates.keys().map(String::as_str).collect();
    assert_eq!(
        known,
        allowed.keys().copied().collect::<Vec<_>>(),
        "a crate came or went: say here what it may use"
    );
    for (name, uses) in &crates {
        for used in uses {
            assert!(
                allowed[name.as_str()].contains(&used.as_str()),
                "{name} may not depend on {used} (see docs/architecture.md)"
            );
        }
        assert!(
            !name.contains("common") && !name.contains("util"),
            "{name} says nothing about what it holds"
        );
    }
}

/// The entries of a list in deny.toml.
fn allowed_licences() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("deny.toml")).unwrap();
    let (_, list) = text.split_once("allow = [").unwrap();
    let (list, _) = list.split_once(']').unwrap();
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether an SPDX expression can be met with the allowed licences. `/` is how old crates write `OR`.
fn may_be_used(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced =
        expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ").replace(" WITH ", "+WITH+");
    let words: Vec<_> = spaced.split_whitespace().map(|word| word.replace("+WITH+", " WITH ")).collect();
    let mut at = 0;
    let verdict = any_of(&words, &mut at, allowed);
    verdict && at == words.len()
}

fn any_of(words: &[String], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut verdict = all_of(words, at, allowed);
    while words.get(*at).is_some_and(|word| word == "OR") {
        *at += 1;
        verdict |= all_of(words, at, allowed);
    }
    verdict
}

fn all_of(words: &[String], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut verdict = one(words, at, allowed);
    while words.get(*at).is_some_and(|word| word == "AND") {
        *at += 1;
        verdict &= one(words, at, allowed);
    }
    verdict
}

fn one(words: &[String], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let word = words.get(*at).cloned().unwrap_or_default();
    *at += 1;
    if word == "(" {
        let verdict = any_of(words, at, allowed);
        *at += 1;
        return verdict;
    }
    allowed.contains(&word)
}

#[test]
fn licences_and_sources_are_those_of_deny_toml() {
    let allowed = allowed_licences();
    assert!(may_be_used("(MIT OR GPL-3.0-only) AND Unicode-3.0", &allowed));
    assert!(!may_be_used("MIT AND GPL-3.0-only", &allowed) && !may_be_used("", &allowed));
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--offline",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let banned = ["native-tls", "aws-lc-rs", "serde_yaml"];
    let mut wrong = Vec::new();
    let mut sources = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().unwrap_or_default();
        if !may_be_used(licence, &allowed) {
            wrong.push(format!("{name}: the licence '{licence}' is not in deny.toml"));
        }
        if banned.contains(&name) {
            wrong.push(format!("{name} is banned (deny.toml says why)"));
        }
        sources.extend(package["source"].as_str().map(str::to_owned));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        sources.len() == 1 && sources.iter().all(|source| source.starts_with("registry+")),
        "{sources:?}"
    );
}

#[test]
fn nothing_leans_on_a_place_that_a_stranger_does_not_have() {
    // Put together here so that this file does not find itself.
    let hosts: Vec<String> = [
        ("crates", ".io"),
        ("static.crates", ".io"),
        ("pypi", ".org"),
        ("registry.npmjs", ".org"),
        ("deb.debian", ".org"),
        ("files.pythonhosted", ".org"),
        ("docker", ".io"),
        ("ghcr", ".io"),
    ]
    .iter()
    .map(|(name, end)| format!("{name}{end}"))
    .collect();
    let places = [["/work", "/shared"].concat(), ["/root", "/helpers"].concat(), ["..", "/shared"].concat()];
    let mut found = Vec::new();
    for (path, text) in tracked_text() {
        // Lock files record where a registry is; that is their job.
        let lock = path.ends_with("Cargo.lock") || path.ends_with("package-lock.json");
        for (number, line) in text.lines().enumerate() {
            let registry = !lock && hosts.iter().any(|host| line.contains(host.as_str()));
            if registry || places.iter().any(|place| line.contains(place.as_str())) {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn source_files_stay_readable() {
    let mut found = Vec::new();
    for (path, text) in tracked_text() {
        if !has_extension(&path, "rs") {
            continue;
        }
        let lines = text.lines().count();
        if lines > 640 {
            found.push(format!("{path} has {lines} lines: split it where a second idea has moved in"));
        }
        if !text.starts_with("//!") {
            found.push(format!("{path} does not begin by saying what it is (`//!`)"));
        }
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.starts_with("#[allow(") || line.starts_with("#![allow(") {
                found.push(format!("{path}:{}: use #[expect(…, reason = …)]", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn scripts_parse() {
    let mut seen = 0;
    for (path, text) in tracked_text() {
        let shell = text.starts_with("#!/usr/bin/env bash")
            || text.starts_with("#!/bin/sh")
            || has_extension(&path, "sh");
        if !shell {
            continue;
        }
        seen += 1;
        let checked = Command::new("bash").arg("-n").arg(root().join(&path)).output().unwrap();
        assert!(checked.status.success(), "{path}: {}", String::from_utf8_lossy(&checked.stderr));
    }
    assert!(seen >= 4, "maxim.ctl, tests/setup, tests/run and .ci/run at least, found {seen}");
}

/// Commands in fenced blocks of a document: lines that begin with `./`.
fn promised(path: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut inside = false;
    let mut commands = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if inside && line.trim_start().starts_with("./") {
            commands.push(line.split('#').next().unwrap().trim().to_owned());
        }
    }
    commands
}

#[test]
fn what_the_readme_promises_exists() {
    for readme in ["README.md", "README.zh-CN.md"] {
        let commands = promised(readme);
        let leading: Vec<_> = commands.iter().take(2).map(|command| command.as_str()).collect();
        assert_eq!(leading, ["./maxim.ctl install", "./tests/run"], "{readme} leads with two commands");
        for command in commands {
            let program = command.split_whitespace().next().unwrap();
            assert!(root().join(program).is_file(), "{readme} names {program}, which is not there");
        }
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut broken = Vec::new();
    let mut seen = 0;
    for (path, text) in tracked_text() {
        if !has_extension(&path, "md") {
            continue;
        }
        for part in text.split("](").skip(1) {
            let Some(target) = part.split([')', ' ']).next() else { continue };
            let target = target.split('#').next().unwrap();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            seen += 1;
            let folder = root().join(&path).parent().unwrap().to_owned();
            if !folder.join(target).exists() {
                broken.push(format!("{path}: {target}"));
            }
        }
    }
    assert!(seen > 0, "the documents link to each other");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// What the languages of a document share: the levels of its headings in their order, and its fenced blocks with their
/// language, comments and empty lines apart.
fn skeleton(text: &str) -> (Vec<usize>, Vec<String>) {
    let (mut headings, mut blocks) = (Vec::new(), Vec::<String>::new());
    let mut inside = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
            if inside {
                blocks.push(line.trim().to_owned());
            }
        } else if inside {
            let comment = line.trim_start().starts_with('#');
            let code = if comment { "" } else { line.split(" #").next().unwrap().trim_end() };
            if !code.is_empty() {
                let block = blocks.last_mut().unwrap();
                block.push('\n');
                block.push_str(code);
            }
        } else if line.starts_with('#') {
            headings.push(line.chars().take_while(|letter| *letter == '#').count());
        }
    }
    (headings, blocks)
}

#[test]
fn operator_documents_are_in_both_languages() {
    assert_eq!(skeleton("```sh\na # one\n# two\n```"), skeleton("```sh\na # 一\n```"));
    assert_ne!(skeleton("```sh\na\n```"), skeleton("```sh\nb\n```"));
    assert_ne!(skeleton("```sh\na\n```"), skeleton(""));
    assert_ne!(skeleton("# A\n## B"), skeleton("# A\n### B"));

    let documents: BTreeMap<String, String> = tracked_text()
        .into_iter()
        .filter_map(|(path, text)| {
            Some((path.strip_prefix("docs/operator/")?.strip_suffix(".md")?.to_owned(), text))
        })
        .collect();
    let (chinese, english): (Vec<_>, Vec<_>) =
        documents.keys().map(String::as_str).partition(|name| name.ends_with(".zh-CN"));
    let mut wrong: Vec<_> = chinese
        .iter()
        .filter(|name| !english.contains(&name.trim_end_matches(".zh-CN")))
        .map(|name| format!("{name}.md translates nothing"))
        .collect();
    for &name in &english {
        let translated = format!("{name}.zh-CN");
        let Some(there) = documents.get(&translated) else {
            wrong.push(format!("{name}.md has no {translated}.md"));
            continue;
        };
        let here = &documents[name];
        for (path, text, link) in [
            (name, here, format!("[中文]({translated}.md)")),
            (translated.as_str(), there, format!("[English]({name}.md)")),
        ] {
            if text.lines().next() != Some(link.as_str()) {
                wrong.push(format!("{path}.md does not begin with {link}"));
            }
        }
        let title = there.lines().find(|line| line.starts_with("# ")).unwrap_or_default();
        if !title.chars().any(|letter| ('\u{4e00}'..='\u{9fff}').contains(&letter)) {
            wrong.push(format!("{translated}.md has no Chinese title"));
        }
        let ((headings, blocks), (other_headings, other_blocks)) = (skeleton(here), skeleton(there));
        if headings != other_headings {
            wrong.push(format!("{name}: headings of the levels {headings:?}, in Chinese {other_headings:?}"));
        }
        for block in blocks.iter().filter(|block| !other_blocks.contains(block)) {
            wrong.push(format!("{translated}.md lacks, or has otherwise:\n{block}"));
        }
        for block in other_blocks.iter().filter(|block| !blocks.contains(block)) {
            wrong.push(format!("{name}.md lacks, or has otherwise:\n{block}"));
        }
        if wrong.is_empty() && blocks != other_blocks {
            wrong.push(format!("{name}: the blocks come in another order or number in Chinese"));
        }
    }
    assert!(english.len() >= 6 && wrong.is_empty(), "{} documents\n{}", english.len(), wrong.join("\n"));
}
