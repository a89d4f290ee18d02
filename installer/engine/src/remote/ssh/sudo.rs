//! How commands become root on a host: not at all, by `sudo -n`, or by sudo with a password.
//!
//! Nothing is asked of the host for it alone: the first command is tried below `sudo -n`, and what sudo says to that
//! decides. A password comes from the command line, from the file that the topology names, or from a person.

use super::SshHost;
use crate::error::EngineError;
use crate::phases::plan::read_password;
use maxim_model::Secret;

/// How commands become root on a host, found out once.
#[derive(Clone, PartialEq)]
pub(super) enum Sudo {
    /// Not needed, or not wanted.
    No,
    /// `sudo -n` works.
    WithoutPassword,
    /// By password.
    Password(Secret),
}

impl SshHost {
    /// Whether commands need sudo at all.
    pub(super) fn wants_sudo(&self) -> bool {
        self.settings.user != "root" && self.settings.sudo
    }

    /// What sudo said, when no password would help.
    pub(super) fn refused_by_sudo(&self, said: &str) -> Option<EngineError> {
        if said.contains("command not found") || said.contains("sudo: not found") {
            return Some(self.failed(
                "access.sudo",
                "there is no sudo on the host",
                "install it, or connect as root",
            ));
        }
        if said.contains("not in the sudoers") || said.contains("not allowed") {
            return Some(self.failed(
                "access.sudo",
                format!("{} may not use sudo", self.settings.user),
                "add the user to the sudo group, or connect as root",
            ));
        }
        None
    }

    /// The password for sudo on this host.
    pub(super) fn sudo_password(&self) -> Result<Secret, EngineError> {
        let given = self.means.access.sudo.get(&self.host).or_else(|| self.means.access.sudo.get(""));
        let password = match given {
            Some(password) => Some(password.clone()),
            None if self.settings.sudo_password_file.is_empty() => self.means.ask.sudo_password(&self.host),
            None => Some(read_password(&self.settings.sudo_password_file)?),
        };
        password.ok_or_else(|| {
            self.failed(
                "access.sudo",
                format!("sudo asks for the password of {}", self.settings.user),
                "name a file with it by `ssh: {sudo_password_file: FILE}`, run on a terminal to be asked, or allow sudo without a password",
            )
        })
    }

    pub(super) fn wrong_sudo_password(&self) -> EngineError {
        self.failed(
            "access.sudo_password",
            format!("sudo did not accept the password of {}", self.settings.user),
            "give the right one with `sudo_password_file` in the topology, or when asked; or allow sudo without a password for this user",
        )
    }
}
