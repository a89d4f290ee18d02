//! Ports: each that will be bound is free, or held by our own earlier install.

use super::{Check, Subject};
use maxim_model::check::{CheckResult, Verdict};
use maxim_model::facts::PortState;

pub(super) fn checks(subject: &Subject<'_>) -> Vec<CheckResult> {
    let mut results: Vec<CheckResult> = subject
        .facts
        .ports
        .iter()
        .map(|port| {
            let name = port_setting(&port.component, port.port, subject);
            let check = Check::new(
                "ports.free",
                &subject.host.name,
                &format!("port {} for {}", port.port, port.component),
            )
            .threshold("free, or ours")
            .why("a service that cannot bind its port does not start")
            .fix(format!("stop what holds it, or choose another port: `--set {name}=PORT`"));
            match &port.state {
                PortState::Free => check.measured("free").verdict(Verdict::Pass),
                PortState::Ours { unit } => {
                    check.measured(format!("held by our {unit}")).verdict(Verdict::Pass)
                }
                PortState::Foreign { holder } => check
                    .measured(format!(
                        "held by {}",
                        if holder.is_empty() { "another process" } else { holder }
                    ))
                    .verdict(Verdict::Block),
            }
        })
        .collect();
    // A user without root cannot bind low ports; the plan would only fail later.
    if subject.facts.uid != 0 && !subject.standard() {
        let start = subject
            .facts
            .sysctls
            .get("net.ipv4.ip_unprivileged_port_start")
            .and_then(|value| value.trim().parse::<u16>().ok())
            .unwrap_or(1024);
        for port in subject.facts.ports.iter().filter(|port| port.port < start) {
            results.push(
                Check::new(
                    "ports.privileged",
                    &subject.host.name,
                    &format!("port {} for {}", port.port, port.component),
                )
                .measured(format!("below {start}, and this is {}", subject.facts.user))
                .threshold(format!("at least {start} without root"))
                .why("only root may bind it")
                .fix(format!(
                    "choose a higher port: `--set {}=PORT`",
                    port_setting(&port.component, port.port, subject)
                ))
                .verdict(Verdict::Block),
            );
        }
    }
    results
}

/// The setting that moves a port.
fn port_setting(component: &str, port: u16, subject: &Subject<'_>) -> String {
    let ports = &subject.topology.ports;
    let name = match component {
        "im" if port == ports.xmpp => "xmpp",
        "im" if port == ports.xmpp_tls => "xmpp_tls",
        "im" if port == ports.metrics => "metrics",
        "im" => "https",
        other => other,
    };
    format!("ports.{name}")
}

#[cfg(test)]
mod tests {
    use super::super::{Subject, verdicts};
    use super::checks;
    use crate::sample;
    use maxim_model::check::Verdict;
    use maxim_model::facts::{PortFact, PortState};
    use std::collections::BTreeMap;

    fn port(port: u16, state: PortState) -> PortFact {
        PortFact { port, component: "im".into(), state }
    }

    #[test]
    fn a_foreign_holder_blocks_and_is_named_with_the_setting_to_change() {
        let topology = sample::single_host();
        let mut facts = sample::facts(4 << 30);
        facts.ports = vec![
            port(5222, PortState::Free),
            port(5223, PortState::Ours { unit: "maxim-im".into() }),
            port(443, PortState::Foreign { holder: "nginx (812)".into() }),
        ];
        let artefacts = BTreeMap::new();
        let results = checks(&Subject {
            topology: &topology,
            host: &topology.hosts[0],
            facts: &facts,
            artefacts: &artefacts,
        });
        assert_eq!(
            verdicts(&results).iter().map(|(_, verdict)| *verdict).collect::<Vec<_>>(),
            [Verdict::Pass, Verdict::Pass, Verdict::Block]
        );
        assert!(
            results[2].measured.contains("nginx (812)") && results[2].fix.contains("ports.https"),
            "{:?}",
            results[2]
        );
    }

    #[test]
    fn low_ports_need_root_in_an_embedded_deployment() {
        let mut topology = sample::embedded(std::path::Path::new("/x"));
        topology.ports.https = 443;
        let mut facts = sample::facts(1 << 30);
        facts.uid = 1000;
        facts.ports = vec![port(443, PortState::Free), port(8443, PortState::Free)];
        let artefacts = BTreeMap::new();
        let results = checks(&Subject {
            topology: &topology,
            host: &topology.hosts[0],
            facts: &facts,
            artefacts: &artefacts,
        });
        assert_eq!(verdicts(&results).last(), Some(&("ports.privileged", Verdict::Block)));
    }
}
