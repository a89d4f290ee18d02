//! Bundles that are not what they should be: one bit off, cut short, of another key, for another processor.
//! Each is refused with exit code 5 before anything is unpacked.

use crate::cluster::Cluster;
use crate::product::{Person, bundle, install_arguments, key_of};
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One member of a tar: where its header and its content are.
struct Member {
    name: String,
    header: u64,
    content: u64,
    size: u64,
}

/// The members of a bundle, as any tar reader sees them.
fn members(path: &Path) -> Vec<Member> {
    let mut file = File::open(path).unwrap();
    let length = file.metadata().unwrap().len();
    let (mut found, mut at) = (Vec::new(), 0);
    while at + 512 <= length {
        let mut header = [0; 512];
        file.seek(SeekFrom::Start(at)).unwrap();
        file.read_exact(&mut header).unwrap();
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        let text = |range: std::ops::Range<usize>| {
            String::from_utf8_lossy(&header[range]).trim_end_matches(['\0', ' ']).to_owned()
        };
        let size = u64::from_str_radix(text(124..136).trim(), 8).unwrap();
        found.push(Member { name: text(0..100), header: at, content: at + 512, size });
        at += 512 + size.div_ceil(512) * 512;
    }
    found
}

/// A copy of the bundle to break, beside its public key.
fn copy(person: &Person) -> PathBuf {
    let path = person.home().join("broken.bundle");
    fs::copy(bundle(), &path).unwrap();
    path
}

fn verify(person: &Person, path: &Path) -> crate::product::Outcome {
    let key = key_of(bundle()).display().to_string();
    person.run(&["bundle", "verify", path.to_str().unwrap(), "--trust-key", &key])
}

#[test]
fn a_good_bundle_is_verified_by_us_and_by_stock_minisign() {
    let person = Person::new();
    verify(&person, bundle()).ok();
    assert!(fs::metadata(bundle()).unwrap().len() <= 200 << 20, "at most 200 MB");
    let found = members(bundle());
    let names: Vec<_> = found.iter().take(3).map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["maxim.ctl", "manifest.json", "manifest.json.minisig"]);
    let unpacked = Command::new("tar")
        .arg("-xf")
        .arg(bundle())
        .args(["maxim.ctl", "manifest.json", "manifest.json.minisig"])
        .current_dir(person.home())
        .status();
    assert!(unpacked.unwrap().success(), "any tar reads it");
    let checked = Command::new("minisign")
        .args(["-V", "-q", "-p"])
        .arg(key_of(bundle()))
        .args(["-m", "manifest.json"])
        .current_dir(person.home())
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let bootstrap = Command::new(person.home().join("maxim.ctl")).arg("--version").output().unwrap();
    assert!(bootstrap.status.success());
    person.run(&["bundle", "inspect", bundle().to_str().unwrap()]).ok().says(&["mariadb", "redis"]);
}

#[test]
fn one_bit_flipped_anywhere_is_found_and_named() {
    let person = Person::new();
    let path = copy(&person);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let found = members(&path);
    let length = file.metadata().unwrap().len();
    // In every kind of member its content, at a random place; some headers; the end of the file.
    let mut places: Vec<(u64, Option<&str>)> = Vec::new();
    let all = std::env::var_os("MAXIM_TEST_ALL").is_some();
    let step = if all { 1 } else { (found.len() / 10).max(1) };
    for (index, member) in found.iter().enumerate() {
        if index < 3 || index % step == 0 {
            places.push((member.content + rand::random_range(0..member.size.max(1)), Some(&member.name)));
        }
        if index % (step * 3) == 0 {
            places.push((member.header + rand::random_range(0..512), None));
        }
    }
    places.push((length - 1, None));
    let listing = || -> Vec<_> {
        fs::read_dir(person.home()).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    let before = listing();
    for (at, name) in places {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        let bit = 1 << rand::random_range(0..8);
        file.write_all_at(&[byte[0] ^ bit], at).unwrap();
        println!("bit {bit:#x} of byte {at} in {name:?}");
        let outcome = verify(&person, &path).exits(5);
        if let Some(name) = name {
            // A broken signature is told as that of the manifest.
            outcome.says(&[name.trim_end_matches(".minisig")]);
        }
        file.write_all_at(&byte, at).unwrap();
    }
    assert_eq!(listing(), before, "nothing was unpacked");
    verify(&person, &path).ok();
}

/// What a refusal must name for a fault at this byte: the member whose header, content or padding it is in, or the end
/// of the bundle.
fn named(found: &[Member], at: u64) -> String {
    let end = |member: &Member| member.content + member.size.div_ceil(512) * 512;
    found
        .iter()
        .find(|member| at < end(member))
        .map_or_else(|| "its end".to_owned(), |member| member.name.clone())
}

#[test]
fn a_truncated_bundle_is_refused_and_says_where_it_breaks_off() {
    let person = Person::new();
    let path = copy(&person);
    let found = members(&path);
    let length = fs::metadata(&path).unwrap().len();
    let file = File::options().write(true).open(&path).unwrap();
    let inside = |member: &Member| [member.content + member.size / 2, member.content, member.header];
    let mut places = vec![length - 1, length - 1024, length * 2 / 3, length / 3, 600, 1, 0];
    places.extend(found[1..4].iter().flat_map(inside));
    // Shorter and shorter: what is cut off does not come back.
    places.sort_unstable();
    for keep in places.into_iter().rev() {
        file.set_len(keep).unwrap();
        verify(&person, &path).exits(5).says(&["is cut off there", &named(&found, keep)]);
    }
}

#[test]
fn something_appended_or_unnamed_is_refused() {
    let person = Person::new();
    let path = copy(&person);
    File::options().append(true).open(&path).unwrap().write_all(&[0; 4096]).unwrap();
    verify(&person, &path).exits(5);
}

/// A new pair of keys by stock minisign.
fn make_key(secret: &Path, public: &Path) {
    let made = Command::new("minisign")
        .args(["-G", "-W", "-f", "-s"])
        .arg(secret)
        .arg("-p")
        .arg(public)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[test]
fn a_bundle_of_another_key_is_refused() {
    let person = Person::new();
    let other = person.home().join("other.pub");
    make_key(&person.home().join("other.key"), &other);
    let path = bundle().to_str().unwrap();
    person.run(&["bundle", "verify", path, "--trust-key", other.to_str().unwrap()]).exits(5).says(&["key"]);
}

/// Changes the manifest of a bundle in its place, without changing its length, and signs it with `key`; the
/// signature's trusted comment names `processor`.
pub fn sign_anew(
    person: &Person,
    path: &Path,
    key: &str,
    processor: &str,
    change: impl Fn(String) -> String,
) {
    let found = members(path);
    let file = File::options().read(true).write(true).open(path).unwrap();
    let (manifest, signature) = (&found[1], &found[2]);
    let read = |member: &Member| {
        let mut text = vec![0; usize::try_from(member.size).unwrap()];
        file.read_exact_at(&mut text, member.content).unwrap();
        String::from_utf8(text).unwrap()
    };
    let text = change(read(manifest));
    assert_eq!(text.len() as u64, manifest.size);
    file.write_all_at(text.as_bytes(), manifest.content).unwrap();
    let plain = person.file("manifest.json", &text);
    let old = read(signature);
    let comment = |kind: &str| {
        let found = old.lines().find_map(|line| line.strip_prefix(&format!("{kind}trusted comment: ")));
        found.unwrap().replace("x86_64", processor)
    };
    let signed = Command::new("minisign")
        .args(["-S", "-s", key, "-x", "anew.minisig", "-m", &plain, "-c", &comment("un"), "-t", &comment("")])
        .current_dir(person.home())
        .output()
        .unwrap();
    assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
    let made = fs::read(person.home().join("anew.minisig")).unwrap();
    assert!(made.len() <= 512 && old.len() <= 512, "it stays in its block");
    let mut block = [0; 1024];
    file.read_exact_at(&mut block[..512], signature.header).unwrap();
    // Size and checksum as tar writes them: octal, the sum over a header whose own field is blank.
    block[124..135].copy_from_slice(format!("{:011o}", made.len()).as_bytes());
    block[148..156].fill(b' ');
    let sum: u32 = block[..512].iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block[512..512 + made.len()].copy_from_slice(&made);
    file.write_all_at(&block, signature.header).unwrap();
}

#[test]
fn a_bundle_for_another_processor_is_refused() {
    let person = Person::new();
    let path = copy(&person);
    let (secret, public) = (person.home().join("other.key"), person.home().join("other.pub"));
    make_key(&secret, &public);
    let key = fs::read_to_string(&public).unwrap().lines().nth(1).unwrap().to_owned();
    let own = fs::read_to_string(key_of(bundle())).unwrap().lines().nth(1).unwrap().to_owned();
    let secret = secret.to_str().unwrap();
    let verify =
        || person.run(&["bundle", "verify", path.to_str().unwrap(), "--trust-key", public.to_str().unwrap()]);
    // Signed by a key that is trusted, it is a good bundle.
    sign_anew(&person, &path, secret, "x86_64", |manifest| manifest.replace(&own, &key));
    verify().ok();
    sign_anew(&person, &path, secret, "aarch64", |manifest| {
        let (from, to) = ("\"architecture\": \"x86_64\"", "\"architecture\":\"aarch64\"");
        assert!(manifest.contains(from));
        manifest.replace(from, to)
    });
    changes_no_host(&Cluster::of_one(), &path, &public, &["aarch64", "x86_64"]);
}

/// Installs from a bundle that must be refused with `words`, and sees that the host and the control host are as they were.
#[track_caller]
fn changes_no_host(cluster: &Cluster, path: &Path, key: &Path, words: &[&str]) {
    let host = cluster.testbed.host("solo");
    let before = host.snapshot().unwrap();
    let mut arguments = install_arguments(&cluster.file);
    for (flag, value) in [("--bundle", path), ("--trust-key", key)] {
        let at = arguments.iter().position(|argument| argument == flag).unwrap();
        arguments[at + 1] = value.display().to_string();
    }
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    cluster.person.run(&arguments).exits(5).says(words);
    assert_eq!(before.changes_to(&host.snapshot().unwrap()), vec![], "not even the agent is left");
    let kept = cluster.person.home().join(".local/share/maxim/clusters/acme");
    for file in ["topology.yaml", "bundle.pub"] {
        assert!(!kept.join(file).exists(), "{file} is kept of an install that was refused");
    }
}

#[test]
fn a_broken_bundle_changes_no_host() {
    let cluster = Cluster::of_one();
    let path = copy(&cluster.person);
    let key = key_of(bundle());
    let found = members(&path);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    let all = std::env::var_os("MAXIM_TEST_ALL").is_some();
    // Anywhere in the whole file, each part of it once: in what a seed has chosen.
    let seed = crate::interruptions::seed() as u64;
    let count = if all { 40 } else { 3 };
    let part = length / count;
    println!("seed {seed}");
    let anywhere = (0..count).map(|number| {
        number * part + seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(number * 7919) % part
    });
    // And in the program, which hosts are sent before anything else.
    let program = found[0].content + seed % found[0].size;
    for (number, at) in (0..).zip(anywhere.chain([program])) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        let bit = 1 << (seed.wrapping_add(number) % 8);
        file.write_all_at(&[byte[0] ^ bit], at).unwrap();
        let name = named(&found, at);
        println!("bit {bit:#x} of byte {at}, in {name}");
        // A broken signature is told as that of the manifest.
        changes_no_host(&cluster, &path, &key, &[name.trim_end_matches(".minisig")]);
        if at == program {
            // A check needs it too: that is the bundle's fault and not the host's.
            let flags = ["--bundle", path.to_str().unwrap(), "--trust-key", key.to_str().unwrap()];
            let check = [&["check", "-f", &cluster.file], &flags[..]].concat();
            cluster.person.run(&check).exits(5).says(&["maxim.ctl"]);
        }
        file.write_all_at(&byte, at).unwrap();
    }
    // Cut off in the middle of a member.
    let image = found.iter().find(|member| member.name.contains("mariadb")).expect("the image of MariaDB");
    file.set_len(image.content + image.size / 2).unwrap();
    changes_no_host(&cluster, &path, &key, &[&image.name, "is cut off there"]);
    // As it was published, but by somebody else.
    let other = cluster.person.home().join("other.pub");
    make_key(&cluster.person.home().join("other.key"), &other);
    changes_no_host(&cluster, bundle(), &other, &["another key", "fingerprint"]);
}

/// An archive of `tar` and `zstd` that is exactly `size` bytes long: what is left is a frame that decoders skip (RFC 8878
/// §3.1.2).
fn archive_of(folder: &Path, tar: &[&str], size: u64) -> Vec<u8> {
    let script = "tar -P --create \"$@\" | zstd -q -c";
    let made = Command::new("sh").args(["-c", script, "sh"]).args(tar).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut archive = made.stdout;
    let left = usize::try_from(size).unwrap() - archive.len() - 8;
    archive.extend(0x184D_2A50_u32.to_le_bytes());
    archive.extend(u32::try_from(left).unwrap().to_le_bytes());
    archive.resize(archive.len() + left, 0);
    archive
}

/// Whoever signs a bundle may still not write outside the folder of an image: members with `..`, absolute ones, and links
/// that lead out are refused by the host that unpacks them.
#[test]
fn a_signed_image_whose_members_lead_out_is_refused_by_its_host() {
    let cluster = Cluster::of_one();
    let person = &cluster.person;
    let path = copy(person);
    let (secret, public) = (person.home().join("other.key"), person.home().join("other.pub"));
    make_key(&secret, &public);
    let text = |path: &Path| fs::read_to_string(path).unwrap().lines().nth(1).unwrap().to_owned();
    let (own, key) = (text(&key_of(bundle())), text(&public));
    let image = members(&path).into_iter().find(|member| member.name.starts_with("images/redis")).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let hash = |bytes: &[u8]| hex::encode(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    let mut honest = vec![0; usize::try_from(image.size).unwrap()];
    file.read_exact_at(&mut honest, image.content).unwrap();
    let mut was = hash(&honest);
    drop(honest);

    let folder = person.home().join("archive");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("maxim-evil"), "evil").unwrap();
    std::os::unix::fs::symlink("../../../../etc", folder.join("out")).unwrap();
    let named = |name: &str| format!("--transform=s,maxim-evil,{name},");
    let (parents, absolute) = (named("../../../maxim-evil"), named("/var/maxim-evil"));
    for (tar, words) in [
        (vec![parents.as_str(), "maxim-evil"], "../../../maxim-evil` leads out"),
        (vec![absolute.as_str(), "maxim-evil"], "/var/maxim-evil` leads out"),
        (vec!["out"], "leads out"),
    ] {
        let archive = archive_of(&folder, &tar, image.size);
        file.write_all_at(&archive, image.content).unwrap();
        let now = hash(&archive);
        sign_anew(person, &path, secret.to_str().unwrap(), "x86_64", |manifest| {
            assert!(manifest.contains(&was));
            manifest.replace(&was, &now).replace(&own, &key)
        });
        was = now;
        let (bundle, key) = (path.to_str().unwrap(), public.to_str().unwrap());
        person.run(&["bundle", "verify", bundle, "--trust-key", key]).ok();
        let mut arguments = install_arguments(&cluster.file);
        for (flag, value) in [("--bundle", bundle), ("--trust-key", key)] {
            let at = arguments.iter().position(|argument| argument == flag).unwrap();
            value.clone_into(&mut arguments[at + 1]);
        }
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let outcome = person.run(&arguments);
        assert_ne!(outcome.code, 0, "{}", outcome.stdout);
        outcome.says(&[words, "solo"]);
        let found = cluster.testbed.host("solo").sh("find / -xdev -name 'maxim-evil*'").unwrap();
        assert_eq!(found.trim(), "", "something was unpacked");
    }
}
