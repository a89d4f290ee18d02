//! What single values must look like: names, addresses, domains, paths, URLs, schedules.
//!
//! Every check gives back the value, or a [`Wrong`] with what is wrong and what to do. None of them knows where the
//! value stands.

use super::error::{mask_url, quoted};
use std::net::IpAddr;

/// What is wrong with a value, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// Shorthand.
pub(super) fn wrong<T>(message: impl Into<String>, hint: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { message: message.into(), hint: hint.into() })
}

/// Cluster name: it becomes a folder and part of unit descriptions.
pub(super) fn cluster_name(text: &str) -> Result<String, Wrong> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good = !text.is_empty()
        && text.len() <= 32
        && text.starts_with(allowed)
        && text.chars().all(|c| allowed(c) || c == '-');
    if good {
        return Ok(text.to_owned());
    }
    wrong(
        format!("{} cannot be the name of a cluster", quoted(text)),
        "1 to 32 small letters, digits and hyphens, beginning with a letter or digit",
    )
}

/// One or more RFC 1123 labels.
fn labels(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.len() > 253 {
        return Err(format!("it has {} characters, 253 are allowed", text.len()));
    }
    if let Some(bad) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || *c == '-' || *c == '.')) {
        return Err(if bad == '_' {
            "`_` is not allowed in host names".to_owned()
        } else {
            format!("`{}` is not allowed in host names", bad.escape_default())
        });
    }
    for label in text.split('.') {
        if label.is_empty() {
            return Err("it has an empty label (two dots, or one at an end)".to_owned());
        }
        if label.len() > 63 {
            return Err(format!("a label has {} characters, 63 are allowed", label.len()));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("a label begins or ends with a hyphen".to_owned());
        }
    }
    Ok(())
}

/// Name of a host.
pub(super) fn host_name(text: &str) -> Result<String, Wrong> {
    match labels(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(why) => wrong(
            format!("{} cannot be the name of a host: {why}", quoted(text)),
            "letters, digits and hyphens, as `app1`; the address goes into `address`",
        ),
    }
}

/// Address of a host: IP or resolvable name.
pub(super) fn address(text: &str) -> Result<String, Wrong> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        let multicast = ip.is_multicast() || matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
        if ip.is_unspecified() || multicast {
            return wrong(
                format!("{} is not the address of one host", quoted(text)),
                "give the address under which the other hosts reach it",
            );
        }
        return Ok(text.to_owned());
    }
    if let Some((ip, _)) = text.split_once('/').filter(|(ip, _)| ip.parse::<IpAddr>().is_ok()) {
        return wrong(
            format!("{} is a network, not the address of a host", quoted(text)),
            format!("write `{ip}` without the prefix length"),
        );
    }
    if let Some((host, port)) = text.rsplit_once(':').filter(|(host, port)| {
        !host.contains(':')
            && !host.is_empty()
            && !port.is_empty()
            && port.chars().all(|c| c.is_ascii_digit())
    }) {
        return wrong(
            format!("{} has a port in it", quoted(text)),
            format!("write `address: {host}` and `ssh: {{port: {port}}}`"),
        );
    }
    if text.starts_with('[') {
        return wrong(format!("{} has brackets", quoted(text)), "write the IPv6 address without brackets");
    }
    if text.chars().all(|c| c.is_ascii_digit() || c == '.') {
        let parts: Vec<&str> = text.split('.').collect();
        let too_big =
            parts.iter().find(|part| part.parse::<u32>().map_or(!part.is_empty(), |value| value > 255));
        let why = match too_big {
            Some(part) => format!("{part} is more than 255"),
            None if parts.len() != 4 => format!("an IPv4 address has four numbers, this has {}", parts.len()),
            None => "a number is empty or begins with 0".to_owned(),
        };
        return wrong(
            format!("{} is not an address: {why}", quoted(text)),
            "an address looks like `10.77.0.11`",
        );
    }
    match labels(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(why) => wrong(
            format!("{} is not an address: {why}", quoted(text)),
            "give an IP address as `10.77.0.11`, or a host name that resolves",
        ),
    }
}

/// Domain of the accounts.
pub(super) fn domain(text: &str) -> Result<String, Wrong> {
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', ':']).next().unwrap_or(rest);
        return wrong(format!("{} is a URL, not a domain", quoted(text)), format!("write `{host}`"));
    }
    if text.contains('@') {
        return wrong(
            format!("{} is an account, not a domain", quoted(text)),
            format!("write `{}`", text.rsplit('@').next().unwrap_or_default()),
        );
    }
    if text.parse::<IpAddr>().is_ok() {
        return wrong(
            format!("{} is an address, not a domain", quoted(text)),
            "accounts and certificates need a name, as `im.acme.example`",
        );
    }
    if !text.is_ascii() {
        return wrong(
            format!("{} has letters that DNS does not carry", quoted(text)),
            "write the ASCII form, which begins with `xn--`",
        );
    }
    if text.len() > 240 {
        return wrong(
            format!("the domain has {} characters", text.len()),
            "at most 240, so that `conference.` fits before it",
        );
    }
    if let Err(why) = labels(text) {
        return wrong(
            format!("{} is not a domain: {why}", quoted(text)),
            "a domain looks like `im.acme.example`",
        );
    }
    if text.rsplit('.').next().is_some_and(|last| last.chars().all(|c| c.is_ascii_digit())) {
        return wrong(
            format!("{} is not a domain: its last label has digits only", quoted(text)),
            "a domain looks like `im.acme.example`",
        );
    }
    Ok(text.to_ascii_lowercase())
}

/// An address to bind on.
pub(super) fn listen(text: &str) -> Result<String, Wrong> {
    match text.parse::<IpAddr>() {
        Ok(ip) if !ip.is_multicast() => Ok(ip.to_string()),
        _ => wrong(
            format!("{} is not an address to listen on", quoted(text)),
            "an IP address of the host, `0.0.0.0` for all of them, `127.0.0.1` for this machine only",
        ),
    }
}

/// An absolute path on a host that we may own.
pub(super) fn host_path(text: &str) -> Result<String, Wrong> {
    const SYSTEM: [&str; 20] = [
        "bin", "boot", "dev", "etc", "home", "lib", "lib64", "media", "mnt", "opt", "proc", "root", "run",
        "sbin", "srv", "sys", "tmp", "usr", "var", "var/lib",
    ];
    absolute(text)?;
    let inner = text.trim_matches('/');
    let top = inner.split('/').next().unwrap_or_default();
    if inner.is_empty() || SYSTEM.contains(&inner) || inner == "var/log" {
        return wrong(
            format!("{} belongs to the system", quoted(text)),
            format!("name a folder of its own, as `{}/maxim`", text.trim_end_matches('/')),
        );
    }
    if matches!(top, "proc" | "sys" | "dev" | "boot" | "bin" | "sbin" | "lib" | "lib64" | "tmp")
        || inner.starts_with("var/tmp")
        || inner.starts_with("usr/bin")
        || inner.starts_with("usr/lib")
    {
        return wrong(
            format!("{} lies where the system keeps its own or cleans up", quoted(text)),
            "choose a folder below /opt, /etc, /var/lib, /var/log, /srv or a mount of its own",
        );
    }
    Ok(format!("/{inner}"))
}

/// Any absolute path without tricks.
pub(super) fn absolute(text: &str) -> Result<String, Wrong> {
    if !text.starts_with('/') {
        return wrong(format!("{} is not an absolute path", quoted(text)), "begin with `/`");
    }
    if text.split('/').any(|part| part == "..") {
        return wrong(format!("{} has `..` in it", quoted(text)), "write the path that it means");
    }
    if text.contains("//") || text.contains("/./") {
        return wrong(format!("{} has an empty step in it", quoted(text)), "write each folder once");
    }
    if text.len() > 200 {
        return wrong(format!("the path has {} characters", text.len()), "at most 200");
    }
    if text.chars().any(|c| c.is_whitespace() || matches!(c, '%' | '$' | '"' | '\'' | '\\' | ':')) {
        return wrong(
            format!("{} has a character that service definitions treat specially", quoted(text)),
            "use letters, digits, `-`, `_`, `.` and `/`",
        );
    }
    Ok(text.to_owned())
}

/// A user name for SSH.
pub(super) fn user(text: &str) -> Result<String, Wrong> {
    let good = !text.is_empty()
        && text.len() <= 64
        && !text.starts_with('-')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '@' | '\\'));
    if good {
        return Ok(text.to_owned());
    }
    wrong(format!("{} is not a user name", quoted(text)), "as `root` or `deploy`")
}

/// Parts of a server's URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerUrl {
    /// In small letters.
    pub scheme: String,
    /// Empty when not given.
    pub user: String,
    /// Without brackets.
    pub host: String,
    /// 0 when not given.
    pub port: u16,
    /// Without the leading slash.
    pub path: String,
}

/// A URL of a server that somebody else runs; a password in it is refused.
pub(super) fn server_url(text: &str, schemes: &[&str]) -> Result<ServerUrl, Wrong> {
    let shape = format!("as `{}://im@db.example:port/name`", schemes.first().copied().unwrap_or("scheme"));
    let shown = mask_url(text);
    let Some((scheme, rest)) = text.split_once("://") else {
        return wrong(format!("{} is not a URL", quoted(&shown)), shape);
    };
    let scheme = scheme.to_ascii_lowercase();
    if !schemes.contains(&scheme.as_str()) {
        return wrong(
            format!("the scheme `{}` is not one that can be used here", scheme.escape_default()),
            format!("one of {}", schemes.join(", ")),
        );
    }
    if shown != text {
        return wrong(
            "a password stands in the URL",
            "take it out, and name a file that holds it: `password_file:`",
        );
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, server) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (host, port) = if let Some(inner) = server.strip_prefix('[') {
        let Some((host, after)) = inner.split_once(']') else {
            return wrong(format!("{} has a bracket that is not closed", quoted(&shown)), shape);
        };
        (host, after.strip_prefix(':').unwrap_or(""))
    } else {
        server.split_once(':').unwrap_or((server, ""))
    };
    let port = if port.is_empty() {
        0
    } else {
        match port.parse::<u16>() {
            Ok(port) if port > 0 => port,
            _ => return wrong(format!("{} is not a port", quoted(port)), "1 to 65535"),
        }
    };
    address(host)?;
    if path.contains(['?', '#', '/']) {
        return wrong(format!("{} has more than a name behind the host", quoted(&shown)), shape);
    }
    Ok(ServerUrl { scheme, user: user.to_owned(), host: host.to_owned(), port, path: path.to_owned() })
}

/// A cron expression of five fields that is due at some time.
pub(super) fn schedule(text: &str) -> Result<String, Wrong> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let hint = "five fields: minute, hour, day of month, month, day of week; `0 3 * * *` is daily at 03:00";
    if !text.starts_with('@') && fields.len() != 5 {
        return wrong(format!("{} is not a schedule: it has {} fields", quoted(text), fields.len()), hint);
    }
    // systemd keeps it in the standard profile, so what that cannot be told is no schedule anywhere.
    let read = crate::backup::schedule::Schedule::parse(text, "");
    if let Err(error) = read.and_then(|schedule| schedule.on_calendar()) {
        return wrong(format!("{} is not a schedule: {error}", quoted(text)), hint);
    }
    // A day that no named month has: the schedule would be valid, and never due.
    if let [_, _, day, month, "*"] = fields[..]
        && let (Ok(day), Ok(month)) = (day.parse::<u8>(), month.parse::<u8>())
    {
        let days = match month {
            2 => 29,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if day > days {
            return wrong(
                format!("{} is never due: month {month} has no day {day}", quoted(text)),
                "name a day that the month has",
            );
        }
    }
    Ok(fields.join(" "))
}

/// The name of a time zone.
pub(super) fn time_zone(text: &str) -> Result<String, Wrong> {
    match crate::backup::schedule::parse_zone(text) {
        Ok(zone) => Ok(zone.name().to_owned()),
        Err(error) => {
            wrong(error.problem, "the names are those of the IANA database: `Asia/Shanghai`, `UTC`")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ServerUrl, absolute, address, cluster_name, domain, host_path, schedule, server_url};

    #[test]
    fn addresses() {
        for good in ["10.77.0.11", "fd00::1", "db1", "db1.acme.example"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in [
            "10.77.0.300",
            "10.77.0",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "10.0.0.1/24",
            "a:22",
            "[fd00::1]",
            "a_b",
            "a..b",
            "",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn domains() {
        assert_eq!(domain("IM.Acme.Example").as_deref(), Ok("im.acme.example"));
        for bad in ["https://im.acme.example/", "a@b.c", "10.0.0.1", "acme.例子", "a.b.1", "-a.b", ""] {
            assert!(domain(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_of_the_system_are_refused() {
        assert_eq!(host_path("/srv/maxim/").as_deref(), Ok("/srv/maxim"));
        for bad in
            ["/", "/etc", "/var/lib", "opt/maxim", "/opt/../etc", "/tmp/x", "/proc/1", "/opt/a b", "/opt/a%n"]
        {
            assert!(host_path(bad).is_err(), "{bad}");
        }
        assert!(absolute("/var/backups/maxim").is_ok());
    }

    #[test]
    fn urls_never_carry_a_password() {
        let url = server_url("mysql://im@db.example:3306/im", &["mysql"]).expect("a good URL");
        assert_eq!(
            url,
            ServerUrl {
                scheme: "mysql".into(),
                user: "im".into(),
                host: "db.example".into(),
                port: 3306,
                path: "im".into()
            }
        );
        let error = server_url("mysql://im:planted-1@db/im", &["mysql"]).expect_err("a password in it");
        assert!(!format!("{error:?}").contains("planted"));
        assert!(server_url("http://db/im", &["mysql"]).is_err());
        assert!(server_url("redis://db:0", &["redis"]).is_err());
    }

    #[test]
    fn schedules() {
        for good in ["0 3 * * *", "*/15 * * * *", "30 2 * * SUN", "0 0 29 2 *"] {
            assert!(schedule(good).is_ok(), "{good}");
        }
        for bad in [
            "0 3 * *",
            "61 3 * * *",
            "0 0 31 2 *",
            "hourly",
            "0 0 3 * * *",
            "0 3 L * *",
            "0 3 * * 5#2",
            "0 3 15W * *",
        ] {
            assert!(schedule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cluster_names() {
        assert!(cluster_name("acme-1").is_ok());
        for bad in ["", "-a", "A", "a_b", "../x", &"a".repeat(33)] {
            assert!(cluster_name(bad).is_err(), "{bad}");
        }
    }
}
