//! The wires between test hosts: one bridge for each run, one namespace and cable for each host.
//!
//! The bridge's name is the claim on its subnet: `mx7` is 10.77.7.0/24, and the kernel refuses a second one.
//! A host can reach the others of its run and this machine's end of the bridge, and has no other route.

use super::run;
use anyhow::{Context as _, Result};
use std::process::Command;

/// A claimed bridge and its subnet.
#[derive(Clone, Debug)]
pub struct Bridge {
    number: u8,
}

impl Bridge {
    /// Tries to make bridge number `number`; `false` when somebody has it.
    pub fn claim(number: u8) -> Result<Option<Self>> {
        let bridge = Self { number };
        let name = bridge.name();
        let output = Command::new("ip").args(["link", "add", &name, "type", "bridge"]).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            if said.contains("File exists") {
                return Ok(None);
            }
            anyhow::bail!("make the bridge {name}: {}", said.trim());
        }
        run(Command::new("ip").args(["addr", "add", &format!("{}/24", bridge.address(1)), "dev", &name]))?;
        run(Command::new("ip").args(["link", "set", &name, "up"]))?;
        Ok(Some(bridge))
    }

    /// `mxN`.
    pub fn name(&self) -> String {
        format!("mx{}", self.number)
    }

    /// The address with the last byte `last` in the subnet of this bridge; 1 is this machine.
    pub fn address(&self, last: u8) -> String {
        format!("10.77.{}.{last}", self.number)
    }

    /// The network namespace of a host.
    pub fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.name())
    }

    /// The bridge's end of the cable of the host with the address's last byte `last`.
    fn cable(&self, last: u8) -> String {
        format!("{}v{last}", self.name())
    }

    /// Makes the namespace of `host`, its cable into the bridge and its address.
    pub fn connect(&self, host: &str, last: u8) -> Result<()> {
        let namespace = self.namespace(host);
        let cable = self.cable(last);
        run(Command::new("ip").args(["netns", "add", &namespace]))?;
        run(Command::new("ip")
            .args(["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &namespace]))?;
        run(Command::new("ip").args(["link", "set", &cable, "master", &self.name(), "up"]))?;
        let inside = |arguments: &[&str]| run(Command::new("ip").args(["-n", &namespace]).args(arguments));
        inside(&["link", "set", "lo", "up"])?;
        inside(&["addr", "add", &format!("{}/24", self.address(last)), "dev", "eth0"])?;
        inside(&["link", "set", "eth0", "up"]).with_context(|| format!("connect {host}"))?;
        Ok(())
    }

    /// Bytes that went through the cable towards the host since it was laid.
    pub fn bytes_to(&self, last: u8) -> Result<u64> {
        // What this end sends, that end receives.
        let path = format!("/sys/class/net/{}/statistics/tx_bytes", self.cable(last));
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        text.trim().parse().with_context(|| format!("{path}: {text}"))
    }

    /// Pulls the cable of a host out of the bridge, or puts it back. Addresses and routes stay.
    pub fn set_cable(&self, last: u8, connected: bool) -> Result<()> {
        let state = if connected { "up" } else { "down" };
        run(Command::new("ip").args(["link", "set", &self.cable(last), state])).map(drop)
    }
}
