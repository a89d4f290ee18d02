//! What a support bundle shows of texts with secrets in them.

use super::{REDACTED, Redactor, of_file};

fn plain(text: &str) -> String {
    Redactor::new([]).text(text)
}

#[test]
fn what_is_known_goes_in_every_form() {
    let redactor = Redactor::new(["pass/word \"9\" x".to_owned(), "pass".to_owned(), "abc".to_owned()]);
    for form in
        ["pass/word \"9\" x", r#"pass/word \"9\" x"#, "pass%2Fword%20%229%22%20x", "cGFzcy93b3JkICI5IiB4"]
    {
        assert_eq!(redactor.text(&format!("a {form} b")), format!("a {REDACTED} b"));
    }
    assert_eq!(redactor.text("abc"), "abc", "too short to be taken out");
}

#[test]
fn what_has_the_name_of_a_secret_goes() {
    for (line, shown) in [
        ("password: hunter22\n", "password: [redacted]\n"),
        ("redis_password = 'x y'", "redis_password = '[redacted]'"),
        ("requirepass abc def", "requirepass [redacted]"),
        ("x: config set requirepass abc def\n", "x: config set requirepass [redacted]\n"),
        (r#"{"api_token":"t-1","n":2}"#, r#"{"api_token":"[redacted]","n":2}"#),
        (r#"{"line":"{\"secret\":\"s-1\"}"}"#, r#"{"line":"{\"secret\":\"[redacted]\"}"}"#),
        ("Authorization: Bearer a.b.c", "Authorization: [redacted]"),
        ("set PASSWORD=a;TOKEN=b", "set PASSWORD=[redacted];TOKEN=[redacted]"),
        ("PASSWORD=a;TOKEN=b", "PASSWORD=[redacted]"),
        ("  password: x y, {z\r\n", "  password: [redacted]\r\n"),
        ("# my_password = \\x [y", "# my_password = [redacted]"),
        ("- token: [x y", "- token: [redacted]"),
        ("it said password: x for ann", "it said password: [redacted] for ann"),
        (r#"{"tokens": {"one": 1}}"#, r#"{"tokens": {"one": 1}}"#),
        ("password_file: /root/db-password", "password_file: /root/db-password"),
        ("the password was wrong", "the password was wrong"),
        ("mysql://maxim:pw@db1:3306/maxim x", "mysql://maxim:[redacted]@db1:3306/maxim x"),
        ("https://im.acme.example:443/a@b", "https://im.acme.example:443/a@b"),
    ] {
        assert_eq!(plain(line), shown);
    }
}

#[test]
fn what_is_quoted_goes_to_the_quote_that_closes() {
    for (line, shown) in [
        (r#"token: "a,bcdef""#, r#"token: "[redacted]""#),
        ("password = 'x;y) z' # why\n", "password = '[redacted]' # why\n"),
        (r#"password = "x\" y\\" z"#, r#"password = "[redacted]" z"#),
        (r#"password="x' y", token='z" &'"#, r#"password="[redacted]", token='[redacted]'"#),
        ("password = 'it's x' y", "password = '[redacted]' y"),
        ("password: 'it''s x'", "password: '[redacted]'"),
        (r"PASSWORD='it'\''s x'", "PASSWORD='[redacted]'"),
        ("password = 'x y, z\r\n", "password = '[redacted]\r\n"),
        ("password = \"\" and token = ''", "password = \"\" and token = ''"),
        (r#"{"password":"{x y]","n":"2"}"#, r#"{"password":"[redacted]","n":"2"}"#),
        (r#"{"m":"\"token\": \"x \\\" y\" z","n":2}"#, r#"{"m":"\"token\": \"[redacted]\" z","n":2}"#),
        (r#"{"m":"token=\"x\"","n":"2"}"#, r#"{"m":"token=\"[redacted]\"","n":"2"}"#),
        (r#"{"m":"token=\"x y","n":"2"}"#, r#"{"m":"token=\"[redacted]","n":"2"}"#),
        (r#"{"m":"token='x y'","n":"2"}"#, r#"{"m":"token='[redacted]'","n":"2"}"#),
        ("password: \"\u{5bc6} \u{7801}\" \u{fc}", "password: \"[redacted]\" \u{fc}"),
    ] {
        assert_eq!(plain(line), shown);
        assert_eq!(plain(shown), shown, "once more changes nothing");
    }
    // What is known is part of what stands there.
    let redactor = Redactor::new(["known".to_owned()]);
    for line in ["password: known y", "password: known-y", "password: 'known y'", "a password=known-y"] {
        assert!(!redactor.text(line).contains('y'), "{}", redactor.text(line));
    }
}

#[test]
fn private_keys_go_and_certificates_stay() {
    let text = "a\n-----BEGIN EC PRIVATE KEY-----\nAAAA\nBBBB\n-----END EC PRIVATE KEY-----\nb\n\
                    -----BEGIN CERTIFICATE-----\nCCCC\n-----END CERTIFICATE-----\n";
    let shown = plain(text);
    assert!(shown.starts_with("a\n[redacted]\nb\n-----BEGIN CERTIFICATE-----\nCCCC"), "{shown}");
    let json = r#"{"key":"-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----\n","x":1}"#;
    assert_eq!(plain(json), r#"{"key":"[redacted]\n","x":1}"#);
    assert_eq!(plain("-----BEGIN PRIVATE KEY-----\nAAAA"), REDACTED);
}

#[test]
fn of_a_file_of_secrets_only_what_is_known_to_be_none_is_shown() {
    let redactor = Redactor::new([]);
    for alone in
        ["changed by hand", "port by hand", "c2VjcmV0==", "ends with:", "{by hand}", "[hand]", "#by hand"]
    {
        assert_eq!(redactor.sensitive(alone).trim_end(), REDACTED);
        let commented = redactor.sensitive(&format!("# before: {alone}\n{alone}"));
        assert_eq!(commented.trim_end(), "# [redacted]\n[redacted]");
    }
    let file = "port 6379\n\nRequirePass a b\nby hand\nuser ann on >x\nby=hand\nportly x\nsave \"\"";
    let shown = "port 6379\n\nRequirePass -\n-\n-\n-\n-\nsave \"\"".replace('-', REDACTED);
    assert_eq!(redactor.sensitive(file), shown);
}

#[test]
fn what_we_write_into_a_file_with_a_secret_is_shown_but_for_it() {
    let template = include_str!("../../../../../templates/redis/redis.conf");
    let ours: Vec<&str> = template.lines().filter(|line| !line.starts_with(['{', '#'])).collect();
    let shown = Redactor::new([]).sensitive(&ours.join("\n"));
    for (line, shown) in ours.iter().zip(shown.lines()) {
        let secret = line.starts_with("requirepass");
        assert_eq!(shown, if secret { "requirepass [redacted]" } else { line });
    }
}

#[test]
fn files_give_what_is_secret_in_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = |content: &str| {
        let path = folder.path().join("file");
        std::fs::write(&path, content).unwrap();
        of_file(path.to_str().unwrap())
    };
    assert_eq!(file("one password\n"), ["one password"]);
    assert_eq!(file("[default]\naws_secret_access_key = k\n"), ["k"]);
    let key = "-----BEGIN PRIVATE KEY-----\nabcdefghijklmnopqrst\n-----END PRIVATE KEY-----\n";
    assert_eq!(file(key), ["abcdefghijklmnopqrst"]);
    assert_eq!(of_file("/nonexistent/file"), Vec::<String>::new());
}
