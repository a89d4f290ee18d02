//! The web chat's files: read once at start, compressed where that pays, served from memory with ETag.
//!
//! Only files that were in the folder at start are served, by exact path, so that no request can name a file
//! outside of it. Files with a content hash in their name are cached for ever, others are asked for each time.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hyper::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
    IF_NONE_MATCH, VARY,
};
use hyper::{Response, StatusCode};
use ring::digest;

use super::{Body, not_found};

#[derive(Debug)]
struct Asset {
    content_type: &'static str,
    plain: Bytes,
    gzip: Option<Bytes>,
    etag: HeaderValue,
    forever: bool,
}

/// The files.
#[derive(Debug, Default)]
pub struct Assets(HashMap<String, Asset>);

/// Files larger than this are left out: nothing of a web chat is.
const MAX_FILE: u64 = 32 * 1024 * 1024;

fn content_type(path: &Path) -> &'static str {
    match path.extension().and_then(|e| e.to_str()).unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "ico" => "image/x-icon",
        "webp" => "image/webp",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "mp3" => "audio/mpeg",
        "ogg" => "audio/ogg",
        "wasm" => "application/wasm",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// True for paths with a content hash, like `app.3f2a9c1b.js` or `client-3f2a9c1b/a.js`.
fn has_hash(path: &Path) -> bool {
    let is_hash = |part: &str| {
        part.len() >= 8
            && part.bytes().all(|b| b.is_ascii_hexdigit())
            && part.bytes().any(|b| b.is_ascii_digit())
    };
    path.iter().filter_map(|c| c.to_str()).any(|c| c.split(['.', '-']).skip(1).any(is_hash))
}

impl Assets {
    /// Reads a folder with all below it. Symbolic links are not followed.
    ///
    /// # Errors
    /// When the folder or a file cannot be read.
    pub fn load(root: &Path) -> io::Result<Self> {
        let mut assets = HashMap::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(root.join(&folder))? {
                let entry = entry?;
                let name = entry.file_name();
                // Hidden files are for whoever builds the folder.
                if name.as_encoded_bytes().starts_with(b".") {
                    continue;
                }
                let path = folder.join(name);
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() && entry.metadata()?.len() <= MAX_FILE {
                    let Some(name) = path.to_str() else { continue };
                    let asset = Asset::new(&path, std::fs::read(root.join(&path))?)?;
                    assets.insert(format!("/{name}"), asset);
                }
            }
        }
        Ok(Self(assets))
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Answers a request for a path.
    pub fn answer(&self, path: &str, headers: &HeaderMap) -> Response<Body> {
        let path = if path == "/" { "/index.html" } else { path };
        let Some(asset) = self.0.get(path) else { return not_found() };
        let same = headers.get(IF_NONE_MATCH).is_some_and(|tags| {
            tags.to_str()
                .is_ok_and(|tags| tags.split(',').any(|t| t.trim().as_bytes() == asset.etag.as_bytes()))
        });
        let gzip =
            headers.get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("gzip"));
        let (body, compressed) = match &asset.gzip {
            _ if same => (Bytes::new(), false),
            Some(bytes) if gzip => (bytes.clone(), true),
            _ => (asset.plain.clone(), false),
        };
        let mut response = Response::new(Body::new(body));
        if same {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let out = response.headers_mut();
        out.insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
        out.insert(ETAG, asset.etag.clone());
        out.insert(VARY, HeaderValue::from_static("accept-encoding"));
        let cache = if asset.forever { "public, max-age=31536000, immutable" } else { "no-cache" };
        out.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
        if compressed {
            out.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

impl Asset {
    fn new(path: &Path, bytes: Vec<u8>) -> io::Result<Self> {
        let hash = digest::digest(&digest::SHA256, &bytes);
        let tag = crate::passwords::hex(&hash.as_ref()[..12]);
        let etag = HeaderValue::from_str(&format!("\"{tag}\"")).map_err(io::Error::other)?;
        let content_type = content_type(path);
        let worth = content_type.starts_with("text/")
            || content_type.contains("json")
            || content_type.contains("svg");
        let gzip = if worth && bytes.len() > 1024 {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
            encoder.write_all(&bytes)?;
            let packed = encoder.finish()?;
            (packed.len() * 10 < bytes.len() * 9).then(|| Bytes::from(packed))
        } else {
            None
        };
        Ok(Self { content_type, plain: bytes.into(), gzip, etag, forever: has_hash(path) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serves_what_is_in_the_folder_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("web");
        std::fs::create_dir_all(root.join("js")).unwrap();
        std::fs::write(root.join("index.html"), "<p>hi".repeat(1000)).unwrap();
        std::fs::write(root.join("js/app.0123abcd.js"), "x").unwrap();
        std::fs::write(folder.path().join("secret"), "no").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
        let assets = Assets::load(&root).unwrap();
        assert_eq!(assets.len(), 2);
        let mut headers = HeaderMap::new();
        for path in
            ["/../secret", "/link", "/js/../index.html", "//index.html", "/%2e%2e/secret", "/js", "/js/"]
        {
            assert_eq!(assets.answer(path, &headers).status(), StatusCode::NOT_FOUND, "{path}");
        }
        let page = assets.answer("/", &headers);
        assert_eq!(page.headers()[CACHE_CONTROL], "no-cache");
        assert!(page.headers().get(CONTENT_ENCODING).is_none());
        let script = assets.answer("/js/app.0123abcd.js", &headers);
        assert!(script.headers()[CACHE_CONTROL].to_str().unwrap().contains("immutable"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("br, gzip"));
        assert_eq!(assets.answer("/", &headers).headers()[CONTENT_ENCODING], "gzip");
        headers.insert(IF_NONE_MATCH, page.headers()[ETAG].clone());
        assert_eq!(assets.answer("/", &headers).status(), StatusCode::NOT_MODIFIED);
    }
}
