//! A small bundle made by hand, and everything that can be wrong with one.

use super::header::{Header, header, padding};
use super::*;
use crate::manifest::{MANIFEST_FORMAT, Manifest, Member, MemberKind};
use minisign::KeyPair;
use sha2::{Digest, Sha256};
use std::io::{Cursor, Read};

fn member(path: &str, kind: MemberKind, name: &str, content: &[u8]) -> Member {
    Member {
        path: path.into(),
        kind,
        name: name.into(),
        version: "1.0".into(),
        sha256: hex::encode(Sha256::digest(content)),
        size: content.len() as u64,
        unpacked_size: content.len() as u64,
        roles: Vec::new(),
    }
}

fn append(bundle: &mut Vec<u8>, path: &str, mode: u32, content: &[u8]) {
    bundle.extend(header(&Header { path: path.into(), mode, size: content.len() as u64 }));
    bundle.extend(content);
    bundle.extend(vec![0; padding(content.len() as u64) as usize]);
}

/// Signs and writes whatever it is told to, right or wrong.
struct Maker {
    keys: KeyPair,
    manifest: Manifest,
    contents: Vec<Vec<u8>>,
    comment: String,
}

impl Maker {
    fn new() -> Self {
        let keys = KeyPair::generate_unencrypted_keypair().unwrap();
        let contents = vec![b"#!program".to_vec(), vec![7; 1500], b"user = maxim\n".to_vec(), Vec::new()];
        let members = vec![
            member("maxim.ctl", MemberKind::Binary, "maxim-ctl", &contents[0]),
            member("images/redis.tar.zst", MemberKind::Image, "redis", &contents[1]),
            member("templates/redis/redis.conf", MemberKind::Template, "redis.conf", &contents[2]),
            member("bundle.lock", MemberKind::Document, "lock", &contents[3]),
        ];
        let manifest = Manifest {
            format: MANIFEST_FORMAT,
            version: "0.1.0".into(),
            architecture: "x86_64".into(),
            lock_sha256: String::new(),
            compatibility: None,
            public_key: keys.pk.to_base64(),
            members,
        };
        Self { keys, manifest, contents, comment: trusted_comment("0.1.0", "x86_64") }
    }

    fn key(&self) -> PublicKey {
        PublicKey::parse(&self.keys.pk.to_base64()).unwrap()
    }

    fn trust(&self) -> Trust {
        Trust::Keys(vec![self.key()])
    }

    fn make(&self) -> Vec<u8> {
        let manifest = serde_json::to_vec_pretty(&self.manifest).unwrap();
        let signature = minisign::sign(
            Some(&self.keys.pk),
            &self.keys.sk,
            Cursor::new(&manifest),
            Some(&self.comment),
            Some(UNTRUSTED_COMMENT),
        )
        .unwrap();
        let mut bundle = Vec::new();
        append(&mut bundle, "maxim.ctl", 0o755, &self.contents[0]);
        append(&mut bundle, "manifest.json", 0o644, &manifest);
        append(&mut bundle, "manifest.json.minisig", 0o644, signature.to_string().as_bytes());
        for (member, content) in self.manifest.members.iter().zip(&self.contents).skip(1) {
            append(&mut bundle, &member.path, 0o644, content);
        }
        bundle.extend([0; 1024]);
        bundle
    }
}

/// Reads it in both ways; both must say the same, contents included.
fn read(bundle: &[u8], trust: &Trust) -> Result<Verified, BundleError> {
    let whole = verify(bundle, trust, &mut |_, _| {});
    let indexed = Index::read(Cursor::new(bundle), trust).and_then(|index| {
        for member in &index.manifest().members {
            index.bytes(Cursor::new(bundle), &member.path, 1 << 20)?;
        }
        Ok(index)
    });
    match (&whole, &indexed) {
        (Ok(whole), Ok(index)) => {
            assert_eq!(whole.manifest_sha256, index.manifest_sha256());
            assert_eq!(whole.size, index.size());
        }
        (Err(_), Err(_)) => {}
        (whole, indexed) => panic!("the readers differ: {whole:?} and {:?}", indexed.as_ref().err()),
    }
    whole
}

fn refusal(bundle: &[u8], trust: &Trust) -> String {
    read(bundle, trust).unwrap_err().to_string()
}

#[test]
fn a_good_bundle_is_read() {
    let maker = Maker::new();
    let bundle = maker.make();
    let mut seen = Vec::new();
    let verified =
        verify(bundle.as_slice(), &maker.trust(), &mut |path, _| seen.push(path.to_owned())).unwrap();
    assert_eq!(seen, ["maxim.ctl", "images/redis.tar.zst", "templates/redis/redis.conf", "bundle.lock"]);
    assert_eq!(verified.size, bundle.len() as u64);
    assert_eq!(verified.key, maker.key());

    let index = Index::read(Cursor::new(&bundle), &Trust::Carried).unwrap();
    assert_eq!(index.key(), &maker.key());
    assert_eq!(
        index.bytes(Cursor::new(&bundle), "templates/redis/redis.conf", 100).unwrap(),
        b"user = maxim\n"
    );
    let mut content = index.content(Cursor::new(&bundle), "images/redis.tar.zst").unwrap();
    let mut exact = vec![0; 1500];
    content.read_exact(&mut exact).unwrap();
    assert_eq!(exact, vec![7; 1500]);
    assert!(index.require_architecture("x86_64").is_ok());
    let other = index.require_architecture("aarch64").unwrap_err();
    assert_eq!(other.to_string(), "the bundle is for x86_64, and aarch64 is needed here");
}

#[test]
fn each_flipped_bit_is_refused() {
    let maker = Maker::new();
    let good = maker.make();
    for trust in [maker.trust(), Trust::Carried] {
        let mut bundle = good.clone();
        for bit in 0..bundle.len() * 8 {
            // All bits of the first header and of the end, some of each part between: without optimisation a
            // signature takes milliseconds. (Headers have a test of their own that flips every bit.)
            let end = bundle.len() * 8 - bit;
            if bit > 4096 && (end > 256 && bit % 127 != 0) {
                continue;
            }
            bundle[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(bundle.as_slice(), &trust, &mut |_, _| {}).is_err(), "bit {bit} was accepted");
            bundle[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(bundle, good);
    }
}

#[test]
fn both_readers_refuse_seeded_flips_and_cuts() {
    let maker = Maker::new();
    let good = maker.make();
    let mut seed = 20_260_731_u64;
    let mut next = |bound: usize| {
        // Knuth's MMIX generator: enough to spread the places, and the same in every run.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % bound
    };
    for _ in 0..300 {
        let bit = next(good.len() * 8);
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&bad, &maker.trust()).is_err(), "bit {bit} was accepted");
        let cut = next(good.len());
        let error = read(&good[..cut], &maker.trust()).unwrap_err();
        assert!(matches!(error, BundleError::Malformed { .. }), "cut at {cut}: {error}");
    }
}

#[test]
fn the_member_at_fault_is_named() {
    let maker = Maker::new();
    let good = maker.make();
    let find = |text: &[u8]| good.windows(text.len()).position(|window| window == text).unwrap();
    for (place, member) in [
        (find(b"#!program"), "maxim.ctl"),
        (find(&[7; 100]), "images/redis.tar.zst"),
        (find(b"user = maxim"), "templates/redis/redis.conf"),
        (find(b"\"format\""), "manifest.json"),
        (good.len() - 1, "its end"),
    ] {
        let mut bad = good.clone();
        bad[place] ^= 4;
        let error = read(&bad, &maker.trust()).unwrap_err();
        assert_eq!(error.member(), member);
        assert!(error.to_string().contains(member), "{error}");
    }
}

#[test]
fn another_key_is_refused_with_its_fingerprint() {
    let (maker, stranger) = (Maker::new(), Maker::new());
    let text = refusal(&stranger.make(), &maker.trust());
    assert!(text.contains("another key") && text.contains(&stranger.key().fingerprint()), "{text}");
    // A stranger's manifest that claims the trusted key.
    let mut forged = Maker::new();
    forged.manifest.public_key = maker.key().to_base64();
    assert!(refusal(&forged.make(), &maker.trust()).contains("another key"));
    assert!(refusal(&forged.make(), &Trust::Carried).contains("signature"));
}

#[test]
fn order_names_and_paths_are_strict() {
    let mut swapped = Maker::new();
    let good = swapped.make();
    let trust = swapped.trust();
    swapped.manifest.members.swap(1, 2);
    swapped.contents.swap(1, 2);
    // Signed as swapped, written as swapped: that is another good bundle; with the old order of contents it is not.
    assert!(read(&swapped.make(), &trust).is_ok());
    swapped.contents.swap(1, 2);
    assert!(refusal(&swapped.make(), &trust).contains("broken at templates/redis/redis.conf"));

    let mut extra = good[..good.len() - 1024].to_vec();
    append(&mut extra, "images/extra.tar.zst", 0o644, b"more");
    extra.extend([0; 1024]);
    assert!(refusal(&extra, &trust).contains("images/extra.tar.zst: the manifest does not name it"));

    let mut long = good.clone();
    long.push(0);
    assert!(refusal(&long, &trust).contains("there is data after it"));

    for path in ["/etc/passwd", "../../etc/passwd", "images/../x", "images//x"] {
        let mut bad = Maker::new();
        bad.manifest.members[1].path = path.into();
        let text = refusal(&bad.make(), &bad.trust());
        assert!(text.contains(path), "{text}");
    }
    let mut twice = Maker::new();
    twice.manifest.members[2].path = "bundle.lock".into();
    assert!(refusal(&twice.make(), &twice.trust()).contains("bundle.lock: the manifest names it twice"));
    let mut name = Maker::new();
    name.manifest.members[1].name = "../redis".into();
    assert!(refusal(&name.make(), &name.trust()).contains("images/redis.tar.zst"));
    let mut future = Maker::new();
    future.manifest.format = 2;
    assert!(refusal(&future.make(), &future.trust()).contains("its format is 2"));
}

#[test]
fn links_in_place_of_members_are_refused() {
    let maker = Maker::new();
    let good = maker.make();
    let start = good
        .chunks(512)
        .position(|block| block.starts_with(b"templates/redis/redis.conf\0"))
        .map(|block| block * 512)
        .unwrap();
    let mut bad = good;
    bad[start + 156] = b'2';
    bad[start + 157..start + 168].copy_from_slice(b"/etc/shadow");
    let text = refusal(&bad, &maker.trust());
    assert!(text.contains("templates/redis/redis.conf: it is a link"), "{text}");
}

#[test]
fn keys_are_read_in_both_forms_and_fingerprints_differ() {
    let (one, two) = (Maker::new().key(), Maker::new().key());
    assert_eq!(PublicKey::parse(&one.to_file()).unwrap(), one);
    assert_eq!(PublicKey::parse(&one.to_base64()).unwrap(), one);
    assert_ne!(one.fingerprint(), two.fingerprint());
    assert_eq!(one.fingerprint().len(), 16 * 4 + 15);
    for bad in ["", "untrusted comment: x\n", "RWQ", "untrusted comment: x\nnonsense\n"] {
        assert!(matches!(PublicKey::parse(bad), Err(BundleError::Key { .. })), "{bad:?}");
    }
}
