//! The one tar header that a bundle may hold: POSIX ustar, regular file, owner 0:0, fixed time, no names of owners.
//!
//! A header is never interpreted leniently. What was read is parsed, written again by [`header`], and compared byte
//! for byte; so each set of (path, mode, size) has exactly one valid block, and a flipped bit anywhere is seen. Links,
//! folders, devices, extensions (pax, GNU long names) and sparse files have no valid block at all.

/// Size of a tar block in bytes; headers take one, contents are padded to it with zeros.
pub const BLOCK: usize = 512;

/// Modification time of every member, seconds since the epoch: 2020-01-01, so that no tar warns about its age.
pub const MEMBER_TIME: u64 = 1_577_836_800;

/// Longest path of a member in bytes: what fits into the name field of a header.
pub const PATH_LIMIT: usize = 100;

/// Largest member in bytes: what eleven octal digits hold.
pub const SIZE_LIMIT: u64 = 0o77_777_777_777;

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Path in the bundle.
    pub path: String,
    /// `0o644`, or `0o755` for programs.
    pub mode: u32,
    /// Bytes of content that follow.
    pub size: u64,
}

/// Why a path may not name a member; nothing when it may.
pub fn path_problem(path: &str) -> Option<&'static str> {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+' | b'~' | b'/');
    if path.is_empty() {
        Some("an empty path")
    } else if path.len() > PATH_LIMIT {
        Some("a path longer than 100 bytes")
    } else if path.starts_with('/') {
        Some("an absolute path")
    } else if path.split('/').any(|part| part == "..") {
        Some("a path with `..`")
    } else if path.split('/').any(|part| part.is_empty() || part == ".") {
        Some("a path with an empty part or `.`")
    } else if !path.bytes().all(plain) {
        Some("a path with characters other than letters, digits and ._-+~/")
    } else {
        None
    }
}

/// The block for a member. The caller has checked the path by [`path_problem`] and that the size is at most
/// [`SIZE_LIMIT`].
pub fn header(wanted: &Header) -> [u8; BLOCK] {
    let mut block = [0_u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &wanted.path.as_bytes()[..wanted.path.len().min(PATH_LIMIT)]);
    put(100, format!("{:07o}\0", wanted.mode & 0o777).as_bytes());
    put(108, b"0000000\0"); // owner
    put(116, b"0000000\0"); // group
    put(124, format!("{:011o}\0", wanted.size.min(SIZE_LIMIT)).as_bytes());
    put(136, format!("{MEMBER_TIME:011o}\0").as_bytes());
    put(148, b"        "); // the sum is taken with its own field blank
    put(156, b"0"); // a regular file
    put(257, b"ustar\x0000");
    put(329, b"0000000\0"); // device numbers
    put(337, b"0000000\0");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Reads a block back.
///
/// # Errors
/// In words, for the message that names the member.
pub fn parse(block: &[u8; BLOCK]) -> Result<Header, String> {
    match block[156] {
        b'0' => {}
        b'1' | b'2' => return Err("it is a link, which a bundle may not hold".into()),
        b'x' | b'g' | b'L' | b'K' => {
            return Err("it has an extended header, which a bundle may not hold".into());
        }
        kind => return Err(format!("its type is {kind:#04x}, and only regular files may be in a bundle")),
    }
    let name = &block[..PATH_LIMIT];
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(PATH_LIMIT);
    let path = std::str::from_utf8(&name[..end]).map_err(|_| "its path is not plain text".to_owned())?;
    if let Some(problem) = path_problem(path) {
        return Err(format!("it has {problem}: {path:?}"));
    }
    let found = Header {
        path: path.to_owned(),
        mode: u32::try_from(octal(&block[100..107])?).map_err(|_| "its mode is too large".to_owned())?,
        size: octal(&block[124..135])?,
    };
    if header(&found) != *block {
        return Err("its header is not in canonical form".into());
    }
    Ok(found)
}

/// Zero bytes that follow a content of this size, up to the next block.
pub const fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn octal(digits: &[u8]) -> Result<u64, String> {
    std::str::from_utf8(digits)
        .ok()
        .filter(|text| text.bytes().all(|byte| matches!(byte, b'0'..=b'7')))
        .and_then(|text| u64::from_str_radix(text, 8).ok())
        .ok_or_else(|| "a number in its header is not octal".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Header { path: "images/redis.tar.zst".into(), mode: 0o644, size: 14_000_001 }
    }

    #[test]
    fn is_read_back_as_written() {
        assert_eq!(parse(&header(&sample())).unwrap(), sample());
        assert_eq!(padding(0), 0);
        assert_eq!(padding(1), 511);
        assert_eq!(padding(512), 0);
    }

    #[test]
    fn each_flipped_bit_is_refused() {
        let good = header(&sample());
        for bit in 0..BLOCK * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            // A flip can hit a digit of the path, mode or size and its meaning, but then the sum is wrong.
            assert!(parse(&bad).is_err(), "bit {bit} was accepted");
        }
    }

    #[test]
    fn bad_paths_are_named() {
        for (path, word) in [
            ("/etc/passwd", "absolute"),
            ("images/../../etc/passwd", ".."),
            ("..", ".."),
            ("./a", "`.`"),
            ("a//b", "empty"),
            ("a b", "characters"),
            ("a\u{7}", "characters"),
            ("", "empty"),
        ] {
            let problem = path_problem(path).unwrap();
            assert!(problem.contains(word), "{path}: {problem}");
        }
        assert!(path_problem(&"a".repeat(101)).unwrap().contains("longer"));
        assert_eq!(path_problem("templates/mariadb/my.cnf"), None);
    }

    #[test]
    fn links_and_extensions_are_refused() {
        for kind in [b'1', b'2', b'5', b'x', b'L', b'3', 0] {
            let mut block = header(&sample());
            block[156] = kind;
            assert!(parse(&block).is_err());
        }
    }
}
