//! The token in every form, against requests that another site makes a browser send.
//!
//! It is an HMAC keyed with the session's (or visitor's) cookie, which no other site and no script can read. Nothing
//! needs to be stored, it survives a restart, and it ends with the session.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use maxim_model::Secret;
use ring::hmac;

/// Name of the field.
pub const FIELD: &str = "form_token";

/// Sets the token apart from any other use of the cookie as a key.
const PURPOSE: &[u8] = b"maxim console form token";

/// The token for forms of the holder of this cookie.
pub fn token(cookie: &Secret) -> String {
    BASE64.encode(hmac::sign(&key(cookie), PURPOSE))
}

/// Whether a form came from a page of ours, in constant time.
pub fn is_valid(cookie: &Secret, token: &str) -> bool {
    BASE64.decode(token).is_ok_and(|tag| hmac::verify(&key(cookie), PURPOSE, &tag).is_ok())
}

fn key(cookie: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, cookie.expose().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::{is_valid, token};
    use maxim_model::Secret;

    #[test]
    fn is_bound_to_the_cookie() {
        let mine = Secret::new("cookie-1");
        assert!(is_valid(&mine, &token(&mine)));
        assert!(!is_valid(&Secret::new("cookie-2"), &token(&mine)));
        for wrong in ["", "x", "AAAA", "=", "\u{0}"] {
            assert!(!is_valid(&mine, wrong));
        }
    }
}
