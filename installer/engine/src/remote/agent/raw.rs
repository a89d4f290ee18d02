//! Raw bytes beside the agent's lines: streams of backups in both directions (see `maxim_model::backup::wire`).

use super::{Agent, LINE_LIMIT, SLICE};
use crate::error::EngineError;
use maxim_model::wire::ContentHeader;
use std::io;
use std::time::{Duration, Instant};

impl Agent {
    /// Exactly so many raw bytes, which the line before announced.
    pub fn read_raw(
        &mut self,
        step: &str,
        size: usize,
        into: &mut Vec<u8>,
        patience: Duration,
    ) -> Result<(), EngineError> {
        if size > LINE_LIMIT {
            return Err(self.broken(step, "the agent announced more than a frame"));
        }
        into.clear();
        let have = self.received.len().min(size);
        into.extend(self.received.drain(..have));
        self.scanned = 0;
        let mut until = Instant::now() + patience;
        while into.len() < size {
            self.cancel.check(step).map_err(|error| error.on(&self.host))?;
            let start = into.len();
            into.resize(size, 0);
            let read = self.stream.read(&mut into[start..], SLICE);
            match read {
                Ok(0) => return Err(self.broken(step, "the agent ended")),
                Ok(count) => {
                    into.truncate(start + count);
                    until = Instant::now() + patience;
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    into.truncate(start);
                    if Instant::now() > until {
                        return Err(
                            EngineError::failed(step, "the agent sends nothing any more").on(&self.host)
                        );
                    }
                }
                Err(error) => return Err(self.broken(step, &format!("the connection broke ({error})"))),
            }
        }
        Ok(())
    }

    /// One frame of a stream.
    pub fn write_frame(&mut self, step: &str, bytes: &[u8], patience: Duration) -> Result<(), EngineError> {
        self.send_header(step, &ContentHeader { size: Some(bytes.len() as u64), refused: None })?;
        self.stream
            .write_all(bytes, Instant::now() + patience)
            .map_err(|error| self.write_failed(step, &error))
    }

    /// The end of a stream: whole, or broken off for a reason.
    pub fn end_frames(&mut self, step: &str, broken: Option<&str>) -> Result<(), EngineError> {
        let header = match broken {
            None => ContentHeader { size: Some(0), refused: None },
            Some(why) => ContentHeader { size: None, refused: Some(why.into()) },
        };
        self.send_header(step, &header)
    }
}
