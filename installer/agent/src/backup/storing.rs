//! Making a snapshot: restic takes one stream, which must be whole (see [`super::feed`]), or makes none.

use super::child::Running;
use super::restic::{OPEN, Restic, lines, said, text};
use super::{feed, stream};
use crate::error::{Failure, Result};
use crate::link::raw::Channel;
use maxim_model::backup::manifest::PACKED;
use serde_json::Value;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// restic takes nothing for so long: the storage has gone.
const STALL: Duration = Duration::from_mins(3);
/// After the stream: the last packs, the index and the snapshot are written.
const FINISH: Duration = Duration::from_mins(30);

/// What a snapshot is found by.
pub struct Names<'a> {
    /// Its one file.
    pub file: &'a str,
    /// Tags.
    pub tags: &'a [String],
    /// Host.
    pub host: &'a str,
}

/// One stream that becomes one snapshot, or none.
pub struct Storing<'r> {
    restic: &'r Restic,
    running: Running,
    reader: JoinHandle<Vec<Value>>,
    socket: UnixStream,
    place: PathBuf,
}

/// A restic that opens the repository.
pub struct Starting<'r> {
    restic: &'r Restic,
    running: Running,
    reader: JoinHandle<Vec<Value>>,
    listener: UnixListener,
    place: PathBuf,
}

impl<'r> Starting<'r> {
    /// Starts restic.
    pub fn start(restic: &'r Restic, names: &Names<'_>) -> Result<Self> {
        // It locks the repository: should it be killed, whoever comes next looks for the lock.
        restic.memo.busy()?;
        let place = restic.private.place("feed");
        let listener = crate::unix::listen(&place)?;
        listener.set_nonblocking(true).map_err(Failure::file("listen on", &place))?;
        let mut command: Vec<String> = ["backup", "--quiet", "--no-scan", "--stdin-from-command"]
            .into_iter()
            .chain(["--stdin-filename", names.file, "--host", names.host])
            .map(str::to_owned)
            .collect();
        if names.file.ends_with(PACKED) {
            command.extend(["--compression", "off"].map(str::to_owned));
        }
        for tag in names.tags {
            command.extend(["--tag".to_owned(), tag.clone()]);
        }
        command.extend([
            "--".to_owned(),
            format!("/proc/{}/exe", std::process::id()),
            "backup-feed".to_owned(),
            place.display().to_string(),
        ]);
        let mut running = restic.start(&command)?;
        let output = running.stdout()?;
        let reader = std::thread::spawn(move || said(output));
        Ok(Self { restic, running, reader, listener, place })
    }

    /// Waits until it takes bytes.
    pub fn ready(self, channel: &dyn Channel) -> Result<Storing<'r>> {
        let Self { restic, mut running, reader, listener, place } = self;
        let accepted = accept(&listener, &mut running, channel).inspect_err(|_| {
            // Asked to end, it takes its lock away; that it did not begin is known already.
            let _ = running.wait(Duration::ZERO, || false);
        });
        let Some(socket) = accepted? else {
            finish(restic, running, Duration::from_secs(30), channel)?;
            return Err(Failure::Invalid("restic ended before it took anything".into()));
        };
        socket.set_write_timeout(Some(STALL)).map_err(Failure::file("write to", &place))?;
        Ok(Storing { restic, running, reader, socket, place })
    }

    /// There is nothing to take: it ends, and takes its lock away.
    pub fn abandon(mut self) {
        let _ = self.running.wait(Duration::ZERO, || false);
    }
}

impl Storing<'_> {
    /// The next bytes.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        feed::piece(&mut self.socket, bytes).map_err(|error| {
            let what = if error.kind() == std::io::ErrorKind::WouldBlock {
                "takes nothing any more"
            } else {
                "has ended"
            };
            Failure::Talk { with: "restic".into(), what: what.into() }
        })
    }

    /// The stream is whole: makes the snapshot. What restic said.
    pub fn whole(mut self, channel: &dyn Channel) -> Result<Vec<Value>> {
        feed::whole(&mut self.socket).map_err(Failure::file("write to", &self.place))?;
        drop(self.socket);
        let mut all = finish(self.restic, self.running, FINISH, channel)?;
        // Its output closes with it.
        all.extend(self.reader.join().unwrap_or_default());
        Ok(all)
    }

    /// The stream broke: there will be no snapshot. Why it broke.
    pub fn broken(mut self, channel: &dyn Channel, failure: Failure) -> Failure {
        drop(self.socket);
        // When it was restic that went, its own words say why; else it is ended.
        if matches!(failure, Failure::Talk { .. }) {
            if let Err(own) = finish(self.restic, self.running, Duration::from_secs(20), channel) {
                return own;
            }
        } else {
            // Its command has failed, so it fails too, and takes its lock away.
            let _ = self.running.wait(Duration::from_secs(20), || true);
        }
        failure
    }
}

fn finish(
    restic: &Restic,
    mut running: Running,
    patience: Duration,
    channel: &dyn Channel,
) -> Result<Vec<Value>> {
    let (status, words) = running.wait(patience, || !channel.is_gone())?;
    let mut all = lines(&words);
    if status.success() {
        Ok(all)
    } else {
        all.retain(|value| text(value).is_some());
        Err(restic.failure("backup", status, &all))
    }
}

/// Makes a snapshot of a stream that comes from the engine.
pub fn backup(channel: &mut dyn Channel, restic: &Restic, names: &Names<'_>) -> Result<Vec<Value>> {
    let mut storing = Starting::start(restic, names)?.ready(channel)?;
    match stream::receive(channel, |bytes| storing.put(bytes)) {
        Ok(_) => storing.whole(channel),
        Err(failure) => Err(storing.broken(channel, failure)),
    }
}

/// The feeder's connection; none when restic ended first.
fn accept(
    listener: &UnixListener,
    running: &mut Running,
    channel: &dyn Channel,
) -> Result<Option<UnixStream>> {
    let until = Instant::now() + OPEN;
    loop {
        match listener.accept() {
            Ok((socket, _)) => {
                return match socket.set_nonblocking(false) {
                    Ok(()) => Ok(Some(socket)),
                    Err(error) => Err(Failure::talk("restic", error)),
                };
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(Failure::talk("restic", error)),
        }
        if running.has_ended() {
            return Ok(None);
        }
        if Instant::now() > until || channel.is_gone() {
            return Err(Failure::Deadline {
                what: "restic to open the repository".into(),
                seconds: OPEN.as_secs(),
                last: "it still runs".into(),
            });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
