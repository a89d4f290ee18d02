//! Verify: hidden accounts exchange a message through every IM host, and are removed again.
//!
//! The first account of the cluster is made here too, because it goes through the same administration socket.

use crate::actions::install::InitialAccount;
use crate::error::EngineError;
use crate::events::millis;
use crate::files;
use crate::fleet;
use crate::remote::Agent;
use crate::render::context::read_pem;
use crate::run::{Run, Session};
use crate::secrets::Secrets;
use im_admin_api::{ApiError, CanaryCreated, CreateUser, Empty, ErrorCode, Password, SweepCanaries, paths};
use maxim_model::Secret;
use maxim_model::event::EventKind;
use maxim_model::names::Role;
use maxim_model::topology::{Tls, Topology};
use maxim_model::wire::{CanaryRequest, Reply, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::{Duration, Instant};

/// Longer than the agent waits for the IM core, so that it is the agent who says what was waited for.
const HTTP: Duration = Duration::from_secs(40);
/// Sign-in of two accounts and a message, on a host that has just been started.
const CANARY_SECONDS: u64 = 20;
/// Canaries of runs that were killed are older than this.
const STALE_SECONDS: u64 = 600;

/// Why a request to the administration socket failed.
#[derive(Debug)]
pub(crate) enum AdminError {
    /// The IM core said no.
    Refused(ApiError),
    /// It was not reached, or its answer was not understood.
    Failed(EngineError),
}

impl AdminError {
    /// As an error of a step on a host.
    pub fn into_engine(self, step: &str, host: &str) -> EngineError {
        match self {
            Self::Failed(error) => error,
            Self::Refused(api) => {
                EngineError::failed(step, api.message).on(host).hint(api.hint.unwrap_or_default())
            }
        }
    }
}

/// Path of the administration socket on IM hosts.
pub(crate) fn admin_socket(topology: &Topology) -> String {
    format!("{}/im/admin.sock", topology.paths.run)
}

/// One request to the administration socket, through the agent of an IM host.
pub(crate) fn admin<T: DeserializeOwned>(
    agent: &mut Agent,
    topology: &Topology,
    step: &str,
    path: &str,
    body: &impl Serialize,
) -> Result<T, AdminError> {
    let body = serde_json::to_string(body)
        .map_err(|error| AdminError::Failed(EngineError::failed(step, error.to_string()).on(agent.host())))?;
    admin_request(agent, topology, step, "POST", path, Secret::new(body))
}

/// The same for what is only looked at.
pub(crate) fn admin_get<T: DeserializeOwned>(
    agent: &mut Agent,
    topology: &Topology,
    step: &str,
    path: &str,
) -> Result<T, AdminError> {
    admin_request(agent, topology, step, "GET", path, Secret::default())
}

fn admin_request<T: DeserializeOwned>(
    agent: &mut Agent,
    topology: &Topology,
    step: &str,
    method: &str,
    path: &str,
    body: Secret,
) -> Result<T, AdminError> {
    let host = agent.host().to_owned();
    let failed = |cause: String| AdminError::Failed(EngineError::failed(step, cause).on(&host));
    let request =
        Request::Http { socket: admin_socket(topology), method: method.into(), path: path.into(), body };
    let (status, body) = agent
        .ask(step, &request, HTTP, |reply| match reply {
            Reply::Http { status, body } => Some((status, body)),
            _ => None,
        })
        .map_err(|error| {
            let hint = if error.hint.is_empty() {
                "is the IM core running? `maxim.ctl status` and `maxim.ctl logs im` tell".into()
            } else {
                error.hint.clone()
            };
            AdminError::Failed(error.hint(hint))
        })?;
    if (200..300).contains(&status) {
        return serde_json::from_str(body.expose())
            .map_err(|error| failed(format!("the IM core's answer is not understood: {error}")));
    }
    match serde_json::from_str::<ApiError>(body.expose()) {
        Ok(error) => Err(AdminError::Refused(error)),
        Err(_) => Err(failed(format!("the IM core answered {path} with status {status}"))),
    }
}

/// The address at which a host of the topology is connected to.
pub(crate) fn connect_address(topology: &Topology, host: &maxim_model::topology::Host) -> String {
    if topology.listen == "0.0.0.0" || topology.listen == "::" {
        host.address.clone()
    } else {
        topology.listen.clone()
    }
}

pub(crate) fn with_port(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// Proves the deployed path: from every IM host a message to the next one (with one IM host: to itself).
pub(crate) fn canary(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    ca_certificate: &str,
) -> Result<(), EngineError> {
    let count = sessions.iter().filter(|session| session.host.roles.contains(&Role::Im)).count();
    let ways: Vec<(usize, usize)> = (0..count).map(|from| (from, (from + 1) % count)).collect();
    canary_between(run, sessions, ca_certificate, &ways, CANARY_SECONDS)
}

/// Proves the given ways, each from one IM host to another, by their places among the IM hosts of the topology. Each
/// has `seconds`.
pub(crate) fn canary_between(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    ca_certificate: &str,
    ways: &[(usize, usize)],
    seconds: u64,
) -> Result<(), EngineError> {
    let topology = &run.context.topology;
    let mut im: Vec<&mut Session<'_>> =
        sessions.iter_mut().filter(|session| session.host.roles.contains(&Role::Im)).collect();
    let targets: Vec<(String, String)> = im
        .iter()
        .map(|session| {
            let address = connect_address(topology, session.host);
            (session.host.name.clone(), with_port(&address, topology.ports.xmpp))
        })
        .collect();
    let Some(maker) = ways.first().map(|(from, _)| *from) else { return Ok(()) };
    // A certificate of the operator's own comes from an authority that only phones and browsers have to know; that
    // this very certificate is served is what has to be shown here.
    let (authority, pinned) = match &topology.tls {
        Tls::PrivateCa => (ca_certificate.to_owned(), String::new()),
        Tls::Files { cert, .. } => (String::new(), read_pem(cert)?),
    };
    let host = im[maker].host.name.clone();
    // A receiver for each way: nobody but the session that waits for the message takes it.
    let mut accounts = Vec::with_capacity(ways.len() + 1);
    let mut made = Ok(());
    while made.is_ok() && accounts.len() < ways.len() {
        made = admin(writer(im[maker])?, topology, "verify", paths::CANARY_CREATE, &Empty {})
            .map(|created: CanaryCreated| accounts.extend(created.accounts))
            .map_err(|error| error.into_engine("verify", &host));
    }
    let results = fleet::for_each(im.iter_mut().enumerate(), run.context.concurrency, |(place, session)| {
        let from_ways = ways.iter().enumerate().filter(|(_, (from, _))| made.is_ok() && *from == place);
        let sent = from_ways.map(|(way, (_, to))| {
            let begun = Instant::now();
            let ((from_host, from), (to_host, to)) = (&targets[place], &targets[*to]);
            // Both of one pair; the second of it receives on the next way.
            let (sender, receiver) = (&accounts[way ^ 1], &accounts[way]);
            let local = |address: &str| address.split('@').next().unwrap_or_default().to_owned();
            let request = Request::Canary(CanaryRequest {
                domain: topology.domain.clone(),
                from: from.clone(),
                to: to.clone(),
                sender: local(&sender.address),
                sender_password: Secret::new(sender.password.expose()),
                receiver: local(&receiver.address),
                receiver_password: Secret::new(receiver.password.expose()),
                ca_certificate: authority.clone(),
                pinned_certificate: pinned.clone(),
                deadline_seconds: seconds,
            });
            let wait = Duration::from_secs(seconds + 5);
            let sent = writer(session)?.ask("verify", &request, wait, |reply| match reply {
                Reply::Canary { round_trip_ms } => Some(round_trip_ms),
                _ => None,
            });
            run.emitter.record("verify", from_host, millis(begun));
            let round_trip_ms = sent.map_err(|error| {
                let cause = format!("no message from {from_host} to {to_host}: {}", error.cause);
                let hint =
                    "look at `maxim.ctl logs im` and at what lies between these hosts (firewall, names)";
                EngineError { cause, ..error }.hint(hint)
            })?;
            run.emitter.emit(EventKind::Canary {
                from_host: from_host.clone(),
                to_host: to_host.clone(),
                round_trip_ms,
            });
            Ok(())
        });
        sent.collect::<Result<(), EngineError>>()
    });
    // Removed whatever came out; a sweep that fails is made up for by the next run and by the IM core itself.
    let sweep = SweepCanaries {
        older_than_seconds: STALE_SECONDS,
        addresses: accounts.iter().map(|account| account.address.clone()).collect(),
    };
    let swept: Result<im_admin_api::CanarySwept, _> =
        admin(writer(im[maker])?, topology, "verify", paths::CANARY_SWEEP, &sweep);
    if let Err(error) = swept {
        let error = error.into_engine("verify", &host);
        run.emitter.warn(
            &host,
            "verify",
            format!("the canary accounts were not removed: {}", error.cause),
            "the next run removes them",
        );
    }
    made?;
    EngineError::join(results.into_iter().filter_map(Result::err).collect()).map_or(Ok(()), Err)
}

fn writer<'s>(session: &'s mut Session<'_>) -> Result<&'s mut Agent, EngineError> {
    let host = session.host.name.clone();
    session.writer.as_mut().ok_or_else(|| EngineError::failed("verify", "the host is not connected").on(host))
}

/// Makes the account `admin` when the cluster has none yet, and writes it to `initial-account`.
pub(crate) fn first_account(
    run: &Run<'_>,
    sessions: &mut [Session<'_>],
    secrets: &mut Secrets,
    made_before: bool,
    console_urls: &[String],
) -> Result<Option<InitialAccount>, EngineError> {
    let topology = &run.context.topology;
    let Some(session) = sessions.iter_mut().find(|session| session.host.roles.contains(&Role::Im)) else {
        return Ok(None);
    };
    let address = format!("admin@{}", topology.domain);
    let path = run.context.state.file("initial-account");
    if made_before {
        return Ok(path.exists().then_some(InitialAccount {
            address,
            path,
            password: None,
            console_password: None,
        }));
    }
    let password = secrets.get_or_make("initial_account_password");
    // Kept before the account exists: a run that is killed between the two must not lose it.
    secrets.save()?;
    let console_password =
        secrets.get("console_admin_password").cloned().filter(|_| !console_urls.is_empty());
    let mut text = format!("address: {address}\npassword: {}\n", password.expose());
    if let Some(console) = &console_password {
        text.push_str(&format!(
            "console: {}\nconsole user: admin\nconsole password: {}\n",
            console_urls.join(" "),
            console.expose()
        ));
    }
    files::write_whole(&path, text.as_bytes(), 0o600)?;
    zeroize::Zeroize::zeroize(&mut text);
    let host = session.host.name.clone();
    let body =
        CreateUser { address: address.clone(), password: Password::new(password.expose()), name: None };
    match admin::<im_admin_api::User>(writer(session)?, topology, "first-account", paths::USER_CREATE, &body)
    {
        Ok(_) => Ok(Some(InitialAccount { address, path, password: Some(password), console_password })),
        // A run that was killed here made it with the same password.
        Err(AdminError::Refused(error)) if error.code == ErrorCode::UserExists => {
            Ok(Some(InitialAccount { address, path, password: None, console_password: None }))
        }
        Err(error) => Err(error.into_engine("first-account", &host)),
    }
}
