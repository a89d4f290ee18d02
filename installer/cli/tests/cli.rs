//! The command line as a person meets it: exit code and output of what needs no hosts, as snapshots.
//!
//! `INSTA_UPDATE=always cargo test -p maxim-ctl --test cli` writes the snapshots anew; read them before committing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A folder of its own for each test: home, and where the program runs.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder can be made"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, content).expect("a file can be written");
        path
    }

    /// Runs the program; gives its exit code, standard output and standard error.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        self.run_in(arguments, "C")
    }

    fn run_in(&self, arguments: &[&str], language: &str) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_maxim-ctl"))
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path())
            .env("LC_ALL", language)
            .stdin(Stdio::null())
            .output()
            .expect("the program starts");
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes)
                .expect("UTF-8")
                .replace(&self.path().display().to_string(), "[home]")
                .replace(env!("CARGO_BIN_EXE_maxim-ctl"), "maxim.ctl")
        };
        (output.status.code().expect("it ends by itself"), text(output.stdout), text(output.stderr))
    }

    /// The same as one text.
    fn show(&self, arguments: &[&str]) -> String {
        show(self.run(arguments))
    }

    /// Several calls after another as one text.
    fn session(&self, calls: &[&[&str]]) -> String {
        let shown: Vec<String> =
            calls.iter().map(|call| format!("$ maxim.ctl {}\n{}", call.join(" "), self.show(call))).collect();
        shown.join("\n")
    }
}

fn show((code, stdout, stderr): (i32, String, String)) -> String {
    let mut text = format!("exit code {code}\n");
    for (name, content) in [("stdout", stdout), ("stderr", stderr)] {
        if !content.is_empty() {
            text.push_str(&format!("--- {name}\n{}\n", content.trim_end()));
        }
    }
    text
}

#[test]
fn wrong_topologies_are_refused_with_place_and_hint() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/topologies");
    let mut names: Vec<_> =
        std::fs::read_dir(folder).expect("the topologies").flatten().map(|entry| entry.path()).collect();
    names.sort();
    assert!(names.len() >= 45, "only {} topologies were found", names.len());
    for path in names {
        let scratch = Scratch::new();
        scratch.write("cluster.yaml", std::fs::read(&path).expect("readable"));
        let (code, stdout, stderr) = scratch.run(&["check", "-f", "cluster.yaml"]);
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        assert_eq!(code, 2, "{name}: {stderr}");
        assert!(stdout.is_empty(), "{name}: {stdout}");
        assert!(stderr.contains("--> cluster.yaml:"), "{name} names no place: {stderr}");
        assert!(stderr.contains("hint:"), "{name} has no hint: {stderr}");
        assert!(!stderr.contains("planted"), "{name} shows a secret: {stderr}");
        let left: Vec<_> = std::fs::read_dir(scratch.path()).expect("readable").flatten().collect();
        assert_eq!(left.len(), 1, "{name} left something behind");
        insta::with_settings!({ snapshot_path => "snapshots/topologies", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name, stderr);
        });
    }
}

#[test]
fn a_topology_that_is_no_text() {
    let scratch = Scratch::new();
    scratch.write("cluster.yaml", b"name: acme\ndomain: im.\xff\xfe.example\n");
    insta::assert_snapshot!("no-text", scratch.show(&["check", "-f", "cluster.yaml"]));
    scratch.write("cluster.yaml", "x".repeat(5 << 20));
    let (code, _, stderr) = scratch.run(&["check", "-f", "cluster.yaml"]);
    assert!(code == 2 && stderr.contains("too many") && stderr.len() < 400, "{code} {stderr}");
    let (code, _, stderr) = scratch.run(&["check", "-f", "absent.yaml"]);
    assert!(code == 2 && stderr.contains("absent.yaml"), "{code} {stderr}");
}

#[test]
fn mistakes_in_json_are_objects() {
    let scratch = Scratch::new();
    scratch.write("cluster.yaml", "name: acme\nports: {xmpp: 0}\n");
    let (code, stdout, stderr) = scratch.run(&["check", "-f", "cluster.yaml", "--output", "json"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("cluster.yaml:2:15"), "{stderr}");
    let result: serde_json::Value = serde_json::from_str(stdout.trim()).expect("one JSON object");
    assert_eq!(result["event"], "result");
    assert_eq!(result["ok"], false);
    assert_eq!(result["code"], 2);
    let places: Vec<&str> =
        result["errors"].as_array().expect("a list").iter().filter_map(|one| one["place"].as_str()).collect();
    assert!(places.contains(&"cluster.yaml:2:15"), "{places:?}");
}

#[test]
fn overrides_are_named_by_their_flag() {
    let scratch = Scratch::new();
    insta::assert_snapshot!(
        "overrides",
        scratch.session(&[
            &[
                "check",
                "--nodelist",
                "10.0.0.1",
                "--set",
                "ports.xmpp=0",
                "--set",
                "domian=x.example",
                "--set",
                "ssh.password=planted-1"
            ],
            &["check", "--nodelist", "10.0.0.1", "10.0.0.1", "10.0.0.256"],
            &["install", "--root", "/var/lib/maxim/x"],
        ])
    );
}

#[test]
fn typing_mistakes_get_a_suggestion() {
    let scratch = Scratch::new();
    insta::assert_snapshot!(
        "typing-mistakes",
        scratch.session(&[
            &["instal"],
            &["status", "--outptu", "json"],
            &["status", "--output", "jsn"],
            &["stop", "mariabd"],
            &["status", "--cluster", "acme"],
        ])
    );
}

#[test]
fn nothing_is_installed() {
    let scratch = Scratch::new();
    for command in [
        vec!["status"],
        vec!["start"],
        vec!["stop"],
        vec!["restart"],
        vec!["logs"],
        vec!["doctor"],
        vec!["unlock"],
        vec!["uninstall"],
        vec!["config", "get"],
        vec!["config", "diff"],
        vec!["user", "list"],
        vec!["ca", "export"],
    ] {
        let (code, stdout, stderr) = scratch.run(&command);
        assert_eq!(code, 1, "{command:?}");
        assert!(stdout.is_empty() && stderr.contains("./maxim.ctl install"), "{command:?}: {stderr}");
    }
    insta::assert_snapshot!("nothing-installed", scratch.session(&[&["status", "--output", "json"],]));
    let left: Vec<_> = std::fs::read_dir(scratch.path()).expect("readable").flatten().collect();
    assert!(left.is_empty(), "something was left behind: {left:?}");
}

#[test]
fn several_deployments_are_asked_about() {
    let scratch = Scratch::new();
    for name in ["acme", "beta"] {
        let folder = scratch.path().join(".local/share/maxim/clusters").join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let text = format!(
            "api_version: maxim/v1\nname: {name}\ndomain: im.{name}.example\nhosts: [{{name: app1, address: 10.0.0.1}}]\n"
        );
        std::fs::write(folder.join("topology.yaml"), text).expect("a file");
    }
    insta::assert_snapshot!(
        "several-deployments",
        scratch.session(&[
            &["status"],
            &["config", "get", "ports.xmpp", "--cluster", "beta"],
            &["config", "get", "port.xmpp", "--cluster", "beta"],
            &["config", "get", "--cluster", "acm"],
            &["config", "set", "ports.xmpp", "15222", "--cluster", "beta"],
            &["config", "get", "ports.xmpp", "--cluster", "beta"],
            &["config", "set", "ports.xmpp", "0", "--cluster", "beta"],
            &["config", "set", "ssh.password", "planted-2", "--cluster", "beta"],
            &["config", "get", "ports.xmpp", "--cluster", "beta"],
        ])
    );
}

#[test]
fn a_file_keeps_its_comments_when_a_value_is_set() {
    let scratch = Scratch::new();
    let text = "# ours\napi_version: maxim/v1\nname: acme # short\ndomain: im.acme.example\nhosts: [{name: app1, address: 10.0.0.1}]\n";
    let path = scratch.write("cluster.yaml", text);
    let (code, _, stderr) =
        scratch.run(&["config", "set", "domain", "chat.acme.example", "-f", "cluster.yaml"]);
    assert_eq!(code, 0, "{stderr}");
    let after = std::fs::read_to_string(&path).expect("readable");
    assert_eq!(after, text.replace("im.acme.example", "chat.acme.example"));
    let (code, _, _) = scratch.run(&["config", "set", "domain", "no domain", "-f", "cluster.yaml"]);
    assert_eq!(code, 2);
    assert_eq!(
        std::fs::read_to_string(&path).expect("readable"),
        after,
        "a refused change must change nothing"
    );
}

#[test]
fn wrong_files_are_refused() {
    let scratch = Scratch::new();
    scratch.write("not.plan", "{}");
    scratch.write("broken.bundle", vec![0x55; 100_000]);
    scratch.write("staff.csv", "user,password\nann,planted-3\n");
    for arguments in [vec!["apply", "not.plan"], vec!["apply", "absent.plan"]] {
        let (code, _, stderr) = scratch.run(&arguments);
        assert_eq!(code, 2, "{arguments:?}: {stderr}");
    }
    for arguments in [vec!["bundle", "verify", "broken.bundle"], vec!["bundle", "inspect", "broken.bundle"]] {
        let (code, stdout, stderr) = scratch.run(&arguments);
        assert!(code == 5 && stdout.is_empty(), "{arguments:?}: {code} {stderr}");
        assert!(stderr.contains("maxim.ctl"), "the member is named: {stderr}");
    }
    let (code, _, stderr) = scratch.run(&["user", "import", "staff.csv"]);
    assert!(code == 2 && stderr.contains("unknown column") && !stderr.contains("planted"), "{stderr}");
    let (code, _, stderr) = scratch.run(&["bundle", "build"]);
    assert!(code == 2 && stderr.contains("checkout"), "{stderr}");
}

#[test]
fn help_in_both_languages() {
    let scratch = Scratch::new();
    insta::assert_snapshot!("help", scratch.show(&["--help"]));
    insta::assert_snapshot!("help-zh", show(scratch.run_in(&["--help"], "zh_CN.UTF-8")));
    insta::assert_snapshot!("help-install", scratch.show(&["install", "--help"]));
    let (code, stdout, _) = scratch.run_in(&["status"], "zh_CN.UTF-8");
    assert!(code == 1 && stdout.is_empty());
    let (_, _, stderr) = scratch.run_in(&["status"], "zh_CN.UTF-8");
    assert!(stderr.contains("这里没有安装过任何集群"), "{stderr}");
}

#[test]
fn completions_know_the_commands() {
    let scratch = Scratch::new();
    for shell in ["bash", "zsh", "fish"] {
        let (code, stdout, _) = scratch.run(&["completion", shell]);
        assert!(code == 0 && stdout.contains("uninstall"), "{shell}");
    }
    let script = scratch.run(&["completion", "bash"]).1;
    let path = scratch.write("completion.bash", script);
    let checked = Command::new("bash").arg("-n").arg(&path).status().expect("bash starts");
    assert!(checked.success());
}

#[test]
fn an_agent_refuses_wrong_flags() {
    let scratch = Scratch::new();
    for arguments in [vec!["agent", "--all"], vec!["supervise"], vec!["supervise", "--boot", "/x"]] {
        let (code, stdout, _) = scratch.run(&arguments);
        assert!(code == 2 && stdout.is_empty(), "{arguments:?}");
    }
}

/// `MAXIM_UPDATE_REFERENCE=1 cargo test -p maxim-ctl --test cli` writes the page anew.
#[test]
fn the_reference_page_says_the_same() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md");
    let page = reference();
    if std::env::var_os("MAXIM_UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &page).expect("the page can be written");
    }
    let there = std::fs::read_to_string(&path).expect("docs/reference/cli.md exists");
    assert_eq!(there, page, "run the test with MAXIM_UPDATE_REFERENCE=1");
}

/// All commands and flags as Markdown.
fn reference() -> String {
    let mut command = maxim_ctl::command();
    command.build();
    let mut page = String::from(
        "# Command line reference\n\nMade from the program's own help; a test keeps both the same. How to use it: \
         [the command line](../operator/cli.md).\n\n## Options of every command\n\n| option | meaning |\n|---|---|\n",
    );
    for argument in command.get_arguments() {
        page.push_str(&row(argument));
    }
    section(&mut page, &command, "");
    page
}

fn section(page: &mut String, command: &clap::Command, prefix: &str) {
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let name = format!("{prefix}{}", sub.get_name());
        let text =
            |styled: Option<&clap::builder::StyledStr>| styled.map(ToString::to_string).unwrap_or_default();
        page.push_str(&format!("\n## `{name}`\n\n{}.\n", text(sub.get_about())));
        let own: Vec<&clap::Arg> = sub
            .get_arguments()
            .filter(|argument| !argument.is_global_set() && argument.get_id() != "help")
            .collect();
        if !own.is_empty() {
            page.push_str("\n| argument | meaning |\n|---|---|\n");
            for argument in own {
                page.push_str(&row(argument));
            }
        }
        page.push_str(&format!(
            "\n```sh\n{}\n```\n",
            text(sub.get_after_help()).lines().skip(1).map(str::trim_start).collect::<Vec<_>>().join("\n")
        ));
        section(page, sub, &format!("{name} "));
    }
}

fn row(argument: &clap::Arg) -> String {
    let mut names = Vec::new();
    if let Some(short) = argument.get_short() {
        names.push(format!("`-{short}`"));
    }
    let value = argument
        .get_value_names()
        .and_then(|names| names.first())
        .map(ToString::to_string)
        .unwrap_or_default();
    let takes = argument.get_action().takes_values();
    match argument.get_long() {
        Some(long) if takes => names.push(format!("`--{long} {value}`")),
        Some(long) => names.push(format!("`--{long}`")),
        None => names.push(format!("`{value}`")),
    }
    let mut meaning = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let values: Vec<String> =
        argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if takes && !values.is_empty() {
        meaning.push_str(&format!(" ({})", values.join(", ")));
    }
    let defaults: Vec<_> = argument
        .get_default_values()
        .iter()
        .filter_map(|value| value.to_str())
        .filter(|value| !value.is_empty())
        .collect();
    if takes && !defaults.is_empty() {
        meaning.push_str(&format!(" [default: {}]", defaults.join(", ")));
    }
    format!("| {} | {} |\n", names.join(", "), meaning.replace('|', "\\|"))
}
