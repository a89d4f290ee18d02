//! Style sheet, script and icon of the site: in the binary, named by their content, cached for ever.
//!
//! Steps: at start each file is hashed and compressed once; its address holds the hash, so that a new version has a
//! new address and an old one is never served for it. (Pages are not compressed: they hold form tokens.)

use flate2::Compression;
use flate2::write::GzEncoder;
use ring::digest::{SHA256, digest};
use std::io::Write;

/// Where assets lie.
pub const FOLDER: &str = "/assets/";

/// One file.
#[derive(Debug)]
pub struct Asset {
    /// Address, as `/assets/style.0f3a1b2c3d4e.css`.
    pub path: String,
    /// Media type.
    pub media_type: &'static str,
    /// Content.
    pub plain: &'static [u8],
    /// Content, gzip.
    pub gzip: Vec<u8>,
}

/// All files.
#[derive(Debug)]
pub struct Assets {
    /// The style sheet.
    pub style: Asset,
    /// The script; pages work without it.
    pub script: Asset,
    /// The icon of the site.
    pub icon: Asset,
}

impl Default for Assets {
    fn default() -> Self {
        Self {
            style: asset("style", "css", "text/css; charset=utf-8", include_bytes!("../../assets/style.css")),
            script: asset(
                "enhance",
                "js",
                "text/javascript; charset=utf-8",
                include_bytes!("../../assets/enhance.js"),
            ),
            icon: asset("icon", "svg", "image/svg+xml", include_bytes!("../../assets/icon.svg")),
        }
    }
}

impl Assets {
    /// The file at an address.
    pub fn find(&self, path: &str) -> Option<&Asset> {
        [&self.style, &self.script, &self.icon].into_iter().find(|asset| asset.path == path)
    }
}

fn asset(name: &str, end: &str, media_type: &'static str, plain: &'static [u8]) -> Asset {
    let hash = hex::encode(&digest(&SHA256, plain).as_ref()[..6]);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to memory does not fail; if it did, the empty form is not served.
    let gzip = encoder.write_all(plain).and_then(|()| encoder.finish()).unwrap_or_default();
    Asset { path: format!("{FOLDER}{name}.{hash}.{end}"), media_type, plain, gzip }
}

#[cfg(test)]
mod tests {
    use super::Assets;
    use flate2::read::GzDecoder;
    use std::collections::HashMap;
    use std::io::Read;

    #[test]
    fn is_found_by_its_address_and_by_no_other() {
        let assets = Assets::default();
        let found = assets.find(&assets.style.path).unwrap();
        assert!(
            found.path.starts_with("/assets/style.") && found.path.len() == "/assets/style..css".len() + 12
        );
        assert!(assets.find("/assets/style.css").is_none());
        let mut text = Vec::new();
        GzDecoder::new(found.gzip.as_slice()).read_to_end(&mut text).unwrap();
        assert_eq!(text, found.plain);
    }

    #[test]
    fn the_style_sheet_is_small_and_fetches_nothing() {
        let style = include_str!("../../assets/style.css");
        assert!(style.len() < 30_000, "{}", style.len());
        assert!(!style.contains("@import") && !style.contains("http"));
    }

    /// Tokens of one theme: everything `--name: #rrggbb` in a block.
    fn tokens(block: &str) -> HashMap<&str, [f64; 3]> {
        block
            .lines()
            .filter_map(|line| line.trim().strip_prefix("--")?.split_once(": #"))
            .map(|(name, value)| {
                let channel = |at: usize| {
                    let part = f64::from(u8::from_str_radix(&value[at..at + 2], 16).unwrap()) / 255.0;
                    if part <= 0.040_45 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
                };
                (name, [channel(0), channel(2), channel(4)])
            })
            .collect()
    }

    /// Contrast of two colours (WCAG 2.2, section 1.4.3).
    fn contrast(one: [f64; 3], other: [f64; 3]) -> f64 {
        let luminance = |[red, green, blue]: [f64; 3]| 0.2126 * red + 0.7152 * green + 0.0722 * blue;
        let (a, b) = (luminance(one), luminance(other));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn text_can_be_read_in_both_themes() {
        let style = include_str!("../../assets/style.css");
        let (light, rest) = style.split_once("@media (prefers-color-scheme: dark)").unwrap();
        let dark = rest.split_once("}\n}").unwrap().0;
        for (theme, block) in [("light", light), ("dark", dark)] {
            let tokens = tokens(block);
            for text in ["text", "muted", "accent", "well", "attention", "broken", "unknown", "working"] {
                for ground in ["ground", "surface", "raised"] {
                    let value = contrast(tokens[text], tokens[ground]);
                    assert!(value >= 4.5, "{theme}: {text} on {ground} is {value:.2}");
                }
            }
            let button = contrast(tokens["on-accent"], tokens["accent"]);
            assert!(button >= 4.5, "{theme}: on-accent on accent is {button:.2}");
        }
    }
}
