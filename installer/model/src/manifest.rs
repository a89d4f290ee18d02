//! The manifest of a bundle: what is in it, with SHA-256 and size of everything.
//!
//! A bundle is a plain tar with canonical headers: `maxim.ctl` first, then `manifest.json`, then
//! `manifest.json.minisig`, then the members in manifest order. Nothing unnamed may be in it.

use serde::{Deserialize, Serialize};

/// Version of the format.
pub const MANIFEST_FORMAT: u32 = 1;
/// Name of the first member: the bootstrap binary.
pub const MEMBER_CTL: &str = "maxim.ctl";
/// Name of the manifest.
pub const MEMBER_MANIFEST: &str = "manifest.json";
/// Name of its minisign signature.
pub const MEMBER_SIGNATURE: &str = "manifest.json.minisig";

/// The manifest. Fields that this program does not know are passed over: a later version may say more, and a change
/// that must be understood raises the format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: u32,
    /// Version of Maxim.
    pub version: String,
    /// `x86_64`.
    pub architecture: String,
    /// Digest of the lock file it was built from.
    pub lock_sha256: String,
    /// The minisign public key whose owner signed it (base64 line). It proves nothing by itself: it is there so that
    /// its fingerprint can be shown for confirmation.
    pub public_key: String,
    /// Which versions can be upgraded to this one; none: it says nothing, and no upgrade takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compatibility: Option<crate::upgrade::Compatibility>,
    /// `maxim.ctl`, then the members after the signature, in order.
    pub members: Vec<Member>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Path in the bundle, as `images/mariadb.tar.zst`.
    pub path: String,
    /// What it is.
    pub kind: MemberKind,
    /// Name of image or program, as `mariadb`, `maxim-im`.
    pub name: String,
    /// Version of the thing, as `11.8.6`.
    pub version: String,
    /// Hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// Bytes when unpacked; equals `size` for plain files.
    pub unpacked_size: u64,
    /// Roles that need it; empty: none (documentation) or all (`maxim.ctl`).
    pub roles: Vec<crate::names::Role>,
}

/// Kind of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberKind {
    /// `maxim.ctl` or another program file.
    Binary,
    /// A root file system, `.tar.zst`.
    Image,
    /// A folder, `.tar.zst` (web chat).
    Archive,
    /// A playbook.
    Playbook,
    /// A template.
    Template,
    /// The SBOM, licences, lock file.
    Document,
}

impl Member {
    /// The versioned folder or file name on a host: `NAME-VERSION-first 12 digits of the hash`.
    pub fn artefact(&self) -> String {
        let short = self.sha256.get(..12).unwrap_or(&self.sha256);
        format!("{}-{}-{}", self.name, self.version, short)
    }
}

impl Manifest {
    /// The member of a kind with a name.
    pub fn find(&self, kind: MemberKind, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.kind == kind && member.name == name)
    }
}
