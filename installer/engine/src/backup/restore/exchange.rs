//! What serves is exchanged for what was received: the services stop, what is there goes into a safety set, each part is
//! put in place in one step.
//!
//! How a run that was killed in it goes on is decided by what the hosts still have ([`Standing`]). What is not in place
//! yet may have been served meanwhile (its host was started again), so a safety set is made of it again.

use super::serving::{self, Then};
use super::{EXCHANGE, RestoreOptions, Work, request, roles, session};
use crate::backup::create::create_in;
use crate::backup::relay::ask;
use crate::backup::restore::marker::{Marker, Step};
use crate::backup::sources::origins;
use crate::error::EngineError;
use crate::run::{Run, Session};
use maxim_model::backup::wire::{BackupReply, BackupRequest};
use maxim_model::backup::{PartKind, SetKind};
use maxim_model::wire::ServiceAction;

/// What lies beside a target.
#[derive(Debug, Clone)]
pub(super) struct Beside {
    /// Part.
    pub part: String,
    /// Its kind.
    pub kind: PartKind,
    /// Something was received, and is not in place yet.
    pub received: bool,
    /// What was there before is kept.
    pub kept: bool,
}

/// How far an exchange went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// A host has neither what was received nor what was there before: it is another one, or has lost its data.
    Anew,
    /// Everything was received, nothing is in place.
    Received,
    /// Some parts are in place.
    Partly,
    /// All are.
    InPlace,
}

impl Standing {
    /// Whether nothing of the set is in place.
    pub const fn is_untouched(self) -> bool {
        matches!(self, Self::Anew | Self::Received)
    }

    /// By what lies beside each target: whether something was received, and whether something is kept.
    fn of(beside: &[Beside]) -> Self {
        let received = beside.iter().filter(|one| one.received).count();
        if beside.iter().any(|one| !one.received && !one.kept) {
            Self::Anew
        } else if received == beside.len() {
            Self::Received
        } else if received > 0 {
            Self::Partly
        } else {
            Self::InPlace
        }
    }
}

/// What lies beside every part that this cluster can have, whether it is a target or not. Of those that are none, one that
/// cannot be asked (its server does not run) counts as keeping what it has.
pub(super) fn beside(work: &Work<'_, '_>, sessions: &mut [Session<'_>]) -> Result<Vec<Beside>, EngineError> {
    let mut beside = Vec::new();
    for origin in origins(&work.run.context.topology)? {
        let asked = BackupRequest::Beside { source: origin.source.clone() };
        let (received, kept) = match request(work, sessions, &origin.host, asked) {
            Ok(Some(BackupReply::Beside { received, kept })) => (received, kept),
            Err(error) if work.is_target(origin.name) => return Err(error),
            _ => (false, true),
        };
        beside.push(Beside { part: origin.name.to_owned(), kind: origin.kind, received, kept });
    }
    Ok(beside)
}

/// The same of the targets alone.
pub(super) fn standing(work: &Work<'_, '_>, beside: &[Beside]) -> Standing {
    let targets: Vec<_> = beside.iter().filter(|one| work.is_target(&one.part)).cloned().collect();
    Standing::of(&targets)
}

/// An exchange.
pub(super) struct Exchange<'w, 'r, 'a> {
    /// What of which set.
    pub work: &'w mut Work<'r, 'a>,
    /// How.
    pub options: &'w RestoreOptions,
    /// What comes after it.
    pub then: Then,
    /// How far it went in a run before.
    pub standing: Standing,
}

impl Exchange<'_, '_, '_> {
    /// Makes it; what was put nowhere is given up.
    pub fn run(
        &mut self,
        sessions: &mut [Session<'_>],
        marker: &mut Marker,
        safety: bool,
    ) -> Result<(), EngineError> {
        let run = self.work.run;
        let untouched = self.standing.is_untouched();
        let stops = roles(self.work);
        let stopped = run.emitter.phase("stop", || serving::act(run, sessions, &stops, ServiceAction::Stop));
        let made = stopped.and_then(|()| if safety { self.safety_set(sessions) } else { Ok(String::new()) });
        let made = match made {
            Ok(made) => made,
            Err(error) if untouched => return Err(self.give_up(sessions, marker, error)),
            Err(error) => return Err(error),
        };
        if made.is_empty() {
            // What a run before has made of it holds still.
        } else if untouched || marker.safety_set.is_empty() {
            marker.safety_set = made;
        } else {
            run.emitter.note(
                "",
                "restore",
                format!("what was there when this went on is in safety set {made}"),
            );
        }
        if self.standing != Standing::InPlace
            && let Err(error) = marker.went(&run.context.state, Step::Exchanging)
        {
            return Err(if untouched { self.give_up(sessions, marker, error) } else { error });
        }
        let put = run.emitter.phase("exchange", || self.put_in_place(sessions, &marker.set_aside));
        put.map_err(|error| {
            let _held = run.context.cancel.hold();
            match beside(self.work, sessions) {
                Ok(beside) if standing(self.work, &beside) == Standing::Received => {
                    self.give_up(sessions, marker, error.and_hint("nothing was put in place"))
                }
                _ => error,
            }
        })
    }

    fn put_in_place(&self, sessions: &mut [Session<'_>], set_aside: &[String]) -> Result<(), EngineError> {
        for (part, origin) in &self.work.targets {
            let keep = set_aside.contains(&part.name);
            let commit = BackupRequest::Commit { source: origin.source.clone(), keep };
            request(self.work, sessions, &origin.host, commit)?;
        }
        Ok(())
    }

    /// A set of what is there.
    fn safety_set(&mut self, sessions: &mut [Session<'_>]) -> Result<String, EngineError> {
        let made = create_in(self.work.run, sessions, &mut self.work.vault, SetKind::Safety);
        made.map(|made| made.manifest.set).map_err(|error| {
            let cause = if self.standing.is_untouched() {
                format!("no safety set could be made, so nothing was overwritten: {}", error.cause)
            } else {
                format!("no safety set could be made, so nothing more was overwritten: {}", error.cause)
            };
            EngineError { cause, ..error }
                .and_hint("when what is there cannot be read any more, say `--without-safety-set`")
        })
    }

    /// Nothing is in place: the services go on with what was there.
    fn give_up(&self, sessions: &mut [Session<'_>], marker: &Marker, error: EngineError) -> EngineError {
        let run = self.work.run;
        // Whoever interrupts it wants to be served again.
        let _held = run.context.cancel.hold();
        if serving::goes_on(self.options, self.then)
            && let Err(start) = serving::act(run, sessions, &roles(self.work), ServiceAction::Start)
        {
            run.emitter.warn(&start.host, "restore", start.cause, "start it with `maxim.ctl start`");
        }
        // What was received goes last: without it a marker of the exchange would say that all is in place.
        match marker.clone().given_up(&run.context.state) {
            Ok(()) => {
                discard(self.work, sessions, false);
                error
            }
            Err(other) => EngineError { others: Box::new([other]), ..error },
        }
    }
}

/// Removes what was received and not used; `before`: and what was kept of before.
pub(super) fn discard(work: &Work<'_, '_>, sessions: &mut [Session<'_>], before: bool) {
    // Whoever interrupts it wants nothing left behind either.
    let _held = work.run.context.cancel.hold();
    for (_, origin) in &work.targets {
        let Ok(session) = session(sessions, &origin.host) else { continue };
        let Some(agent) = session.writer.as_mut() else { continue };
        let discard = BackupRequest::Discard { source: origin.source.clone(), before };
        if let Err(error) = ask(agent, "restore", discard, EXCHANGE) {
            work.run.emitter.warn(&origin.host, "restore", error.cause, "the next restore removes it");
        }
    }
}

/// Removes what any restore before has received and not used, of whatever part. What cannot be removed now takes up room,
/// which is asked for next.
pub(super) fn discard_received(run: &Run<'_>, sessions: &mut [Session<'_>]) -> Result<(), EngineError> {
    for origin in origins(&run.context.topology)? {
        let Some(agent) = session(sessions, &origin.host)?.writer.as_mut() else { continue };
        let _ =
            ask(agent, "restore", BackupRequest::Discard { source: origin.source, before: false }, EXCHANGE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Beside, PartKind, Standing};

    #[test]
    fn what_hosts_have_says_how_an_exchange_goes_on() {
        let (received, replaced, both, lost) = ((true, false), (false, true), (true, true), (false, false));
        for (beside, wanted) in [
            (&[received, received][..], Standing::Received),
            (&[both, received], Standing::Received),
            (&[replaced, received], Standing::Partly),
            (&[replaced, replaced], Standing::InPlace),
            (&[replaced, lost], Standing::Anew),
            (&[lost], Standing::Anew),
        ] {
            let beside: Vec<_> = beside
                .iter()
                .map(|&(received, kept)| Beside {
                    part: "database".into(),
                    kind: PartKind::Sqlite,
                    received,
                    kept,
                })
                .collect();
            assert_eq!(Standing::of(&beside), wanted, "{beside:?}");
        }
    }
}
