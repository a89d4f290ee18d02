//! Just enough of ELF to know for which processor a file is, which libraries it needs, and how new a glibc.
//!
//! Reads 64-bit little-endian files by their section headers; everything else is refused or passed over. Offsets come
//! from the file and are checked before use, so a damaged file gives an error and never a panic.

use std::collections::BTreeSet;

/// What an ELF file says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elf {
    /// As `uname -m` says (`x86_64`, `aarch64`), or the number.
    pub machine: String,
    /// Whether it asks for a program interpreter, so it is a dynamic program.
    pub interpreter: bool,
    /// `DT_NEEDED`: libraries by name.
    pub needed: Vec<String>,
    /// Versions of symbols needed from others, as `GLIBC_2.17`.
    pub versions: BTreeSet<String>,
}

/// Whether these first bytes are of an ELF file.
pub fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

/// Parses a whole file.
///
/// # Errors
/// In words, when it is an ELF file that is not a sound 64-bit little-endian one.
pub fn parse(bytes: &[u8]) -> Result<Elf, String> {
    if !is_elf(bytes) {
        return Err("not an ELF file".into());
    }
    if bytes.get(4..6) != Some(&[2, 1]) {
        return Err("not a 64-bit little-endian ELF file".into());
    }
    let machine = match short(bytes, 18)? {
        62 => "x86_64".to_owned(),
        183 => "aarch64".to_owned(),
        243 => "riscv64".to_owned(),
        other => format!("machine {other}"),
    };
    let mut elf = Elf { machine, interpreter: false, needed: Vec::new(), versions: BTreeSet::new() };
    let (programs, program_size) = (long(bytes, 32)?, u64::from(short(bytes, 54)?));
    for index in 0..u64::from(short(bytes, 56)?) {
        if word(bytes, at(programs, index, program_size)?)? == 3 {
            elf.interpreter = true;
        }
    }
    let (sections, section_size) = (long(bytes, 40)?, u64::from(short(bytes, 58)?));
    for index in 0..u64::from(short(bytes, 60)?) {
        let section = at(sections, index, section_size)?;
        let (offset, size) = (long(bytes, section + 24)?, long(bytes, section + 32)?);
        let strings = || -> Result<u64, String> {
            let link = u64::from(word(bytes, section + 40)?);
            long(bytes, at(sections, link, section_size)? + 24)
        };
        match word(bytes, section + 4)? {
            // SHT_DYNAMIC: pairs of tag and value; tag 1 is DT_NEEDED.
            6 => {
                let strings = strings()?;
                for pair in 0..size / 16 {
                    let entry = at(offset, pair, 16)?;
                    match long(bytes, entry)? {
                        0 => break,
                        1 => elf.needed.push(text(bytes, strings, long(bytes, entry + 8)?)?),
                        _ => {}
                    }
                }
            }
            // SHT_GNU_verneed: a chain of libraries, each with a chain of versions.
            0x6fff_fffe => {
                let strings = strings()?;
                let mut library = offset;
                loop {
                    let mut version = library + u64::from(word(bytes, library + 8)?);
                    for _ in 0..short(bytes, library + 2)? {
                        elf.versions.insert(text(bytes, strings, u64::from(word(bytes, version + 8)?))?);
                        version += u64::from(word(bytes, version + 12)?);
                    }
                    match u64::from(word(bytes, library + 12)?) {
                        0 => break,
                        next => library += next,
                    }
                }
            }
            _ => {}
        }
    }
    Ok(elf)
}

impl Elf {
    /// The newest glibc version that it needs, as (2, 17).
    pub fn newest_glibc(&self) -> Option<(u32, u32)> {
        self.versions
            .iter()
            .filter_map(|version| version.strip_prefix("GLIBC_"))
            .filter_map(|version| {
                let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
                Some((parts.next()??, parts.next().flatten().unwrap_or(0)))
            })
            .max()
    }
}

fn at(base: u64, index: u64, size: u64) -> Result<u64, String> {
    index.checked_mul(size).and_then(|offset| base.checked_add(offset)).ok_or_else(cut)
}

fn cut() -> String {
    "an ELF file with offsets beyond its end".to_owned()
}

fn take<const N: usize>(bytes: &[u8], offset: u64) -> Result<[u8; N], String> {
    let start = usize::try_from(offset).map_err(|_| cut())?;
    let slice = start.checked_add(N).and_then(|end| bytes.get(start..end)).ok_or_else(cut)?;
    slice.try_into().map_err(|_| cut())
}

fn short(bytes: &[u8], offset: u64) -> Result<u16, String> {
    take(bytes, offset).map(u16::from_le_bytes)
}

fn word(bytes: &[u8], offset: u64) -> Result<u32, String> {
    take(bytes, offset).map(u32::from_le_bytes)
}

fn long(bytes: &[u8], offset: u64) -> Result<u64, String> {
    // The top bit is never set in a real file; without it, sums of two offsets cannot overflow.
    take(bytes, offset)
        .map(u64::from_le_bytes)
        .and_then(|value| if value >> 62 == 0 { Ok(value) } else { Err(cut()) })
}

fn text(bytes: &[u8], strings: u64, offset: u64) -> Result<String, String> {
    let start = usize::try_from(strings.saturating_add(offset)).map_err(|_| cut())?;
    let rest = bytes.get(start..).ok_or_else(cut)?;
    let end = rest.iter().take(4096).position(|byte| *byte == 0).ok_or_else(cut)?;
    Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_very_program() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let elf = parse(&bytes).unwrap();
        assert_eq!(elf.machine, std::env::consts::ARCH);
        assert!(elf.interpreter);
        assert!(elf.needed.iter().any(|library| library.starts_with("libc.so")), "{:?}", elf.needed);
        assert!(elf.newest_glibc().unwrap() >= (2, 2), "{:?}", elf.versions);
    }

    #[test]
    fn damaged_files_give_errors() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let head = &bytes[..4096.min(bytes.len())];
        for cut in [0, 3, 5, 20, 63, 64, 200, 4000] {
            assert!(parse(&head[..cut]).is_err(), "cut at {cut}");
        }
        for place in 16..64 {
            let mut bad = head.to_vec();
            bad[place] ^= 0xff;
            drop(parse(&bad)); // any answer, but no panic
        }
        let mut thirty_two = head.to_vec();
        thirty_two[4] = 1;
        assert!(parse(&thirty_two).unwrap_err().contains("64-bit"));
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let versions = ["GLIBC_2.9", "GLIBC_2.17", "GLIBC_2.2.5", "GCC_3.0"].map(str::to_owned).into();
        let elf = Elf { machine: String::new(), interpreter: false, needed: Vec::new(), versions };
        assert_eq!(elf.newest_glibc(), Some((2, 17)));
    }
}
