//! Session tokens and the cookies that carry them.
//!
//! A token is 256 random bits. The browser holds it in a cookie that scripts cannot read, that is sent only over TLS
//! and only to pages of this very host (`__Host-`, RFC 6265bis section 4.1.3.2); the database holds its SHA-256.

use crate::store::TokenDigest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use maxim_model::Secret;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

/// Cookie of a session.
pub const SESSION_COOKIE: &str = "__Host-maxim-session";
/// Cookie of a visitor who has not signed in; it keys the token of the sign-in form.
pub const VISIT_COOKIE: &str = "__Host-maxim-visit";
/// Cookie of the chosen language.
pub const LANGUAGE_COOKIE: &str = "__Host-maxim-language";

/// Length of a token as text.
const TOKEN_TEXT: usize = 43;

/// The random source of the system failed; nothing can be done without it.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the system's random source failed")]
pub struct NoRandomness;

/// A new token.
pub fn new_token() -> Result<Secret, NoRandomness> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(Secret::new(BASE64.encode(bytes)))
}

/// What the database keeps of a token.
pub fn digest_of(token: &Secret) -> TokenDigest {
    let mut output = [0; 32];
    output.copy_from_slice(digest(&SHA256, token.expose().as_bytes()).as_ref());
    output
}

/// A cookie's value from the `Cookie` headers of a request, if it has the form of a token.
pub fn token_from<'a>(headers: impl Iterator<Item = &'a str>, name: &str) -> Option<Secret> {
    cookie_from(headers, name)
        .filter(|value| value.len() == TOKEN_TEXT && BASE64.decode(value).is_ok())
        .map(Secret::new)
}

/// A cookie's value from the `Cookie` headers of a request (RFC 6265 section 5.4).
pub fn cookie_from<'a>(headers: impl Iterator<Item = &'a str>, name: &str) -> Option<&'a str> {
    headers
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value)
}

/// A `Set-Cookie` value that lasts as long as the browser window, or `max_age` seconds; 0 removes the cookie.
pub fn set_cookie(name: &str, value: &str, max_age: Option<i64>) -> String {
    let mut cookie = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Strict");
    if let Some(seconds) = max_age {
        cookie.push_str(&format!("; Max-Age={seconds}"));
    }
    cookie
}

#[cfg(test)]
mod tests {
    use super::{SESSION_COOKIE, cookie_from, digest_of, new_token, set_cookie, token_from};

    #[test]
    fn tokens_are_long_and_different() {
        let (one, two) = (new_token().unwrap(), new_token().unwrap());
        assert_eq!(one.expose().len(), 43);
        assert_ne!(one, two);
        assert_ne!(digest_of(&one), digest_of(&two));
    }

    #[test]
    fn reads_a_token_back_from_among_other_cookies() {
        let token = new_token().unwrap();
        let header = format!("a=b; {SESSION_COOKIE}={}; c=d", token.expose());
        let found = token_from(["x=y", header.as_str()].into_iter(), SESSION_COOKIE);
        assert_eq!(found.unwrap().expose(), token.expose());
        let malformed = format!("{SESSION_COOKIE}=abc");
        assert!(token_from([malformed.as_str()].into_iter(), SESSION_COOKIE).is_none());
        assert_eq!(cookie_from(["a=b"].into_iter(), "b"), None);
    }

    #[test]
    fn cookies_carry_every_protection() {
        let cookie = set_cookie("__Host-x", "v", Some(0));
        for part in ["Path=/", "Secure", "HttpOnly", "SameSite=Strict", "Max-Age=0"] {
            assert!(cookie.contains(part), "{cookie}");
        }
    }
}
