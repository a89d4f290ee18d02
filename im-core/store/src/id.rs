//! Identifiers of messages: in order of time, unique across nodes, and small.
//!
//! 42 bits of milliseconds since 2020-01-01 UTC, 10 bits of writer, 11 bits of sequence: 63 bits, so that they
//! fit every database's signed integer, append to the end of a clustered table, and serve as archive order. The
//! writer number comes from a counter in the database that each start takes one step further, not from a name.
//! Should two writers ever meet on an identifier, the primary key refuses the second, which takes fresh ones.

use std::fmt;
use std::str::FromStr;

const EPOCH_MS: i64 = 1_577_836_800_000;
const WRITER_BITS: u32 = 10;
const SEQUENCE_BITS: u32 = 11;
const TIME_SHIFT: u32 = WRITER_BITS + SEQUENCE_BITS;

/// How many writer numbers there are.
pub(crate) const WRITERS: u64 = 1 << WRITER_BITS;

/// Identifier of a stored message, its `stanza-id` (XEP-0359). Written as 16 hexadecimal digits, so that order
/// of text is order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(i64);

impl MessageId {
    /// When the message was stored, in milliseconds since 1970-01-01 UTC.
    pub const fn timestamp_ms(self) -> i64 {
        (self.0 >> TIME_SHIFT) + EPOCH_MS
    }

    /// The smallest identifier of this moment (milliseconds since 1970-01-01 UTC) or later.
    pub const fn first_at(timestamp_ms: i64) -> Self {
        let ms = timestamp_ms.saturating_sub(EPOCH_MS);
        if ms <= 0 {
            return Self(0);
        }
        if ms >= 1 << 42 { Self(i64::MAX) } else { Self(ms << TIME_SHIFT) }
    }

    /// The number as it is stored.
    pub const fn as_i64(self) -> i64 {
        self.0
    }

    /// True when both were given by the same writer.
    pub(crate) const fn same_writer(self, other: Self) -> bool {
        let writer = ((1 << WRITER_BITS) - 1) << SEQUENCE_BITS;
        self.0 & writer == other.0 & writer
    }

    /// From the number as it is stored.
    pub const fn from_i64(number: i64) -> Self {
        Self(number)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A text is not an identifier of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier of a message: 16 hexadecimal digits are expected")]
pub struct InvalidMessageId;

impl FromStr for MessageId {
    type Err = InvalidMessageId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidMessageId);
        }
        i64::from_str_radix(text, 16).map(Self).map_err(|_| InvalidMessageId)
    }
}

/// Makes identifiers that only grow, whatever the clock does.
#[derive(Debug)]
pub(crate) struct IdGenerator {
    writer: i64,
    last_ms: i64,
    sequence: i64,
}

impl IdGenerator {
    /// A generator for this writer whose identifiers all come after `newest`, the newest one stored.
    pub(crate) fn new(writer: u64, newest: Option<MessageId>) -> Self {
        let last_ms = newest.map_or(0, |id| (id.0 >> TIME_SHIFT) + 1);
        Self { writer: (writer % WRITERS) as i64, last_ms, sequence: -1 }
    }

    /// The last identifier that was given, or one that comes before all that will be.
    pub(crate) fn last(&self) -> MessageId {
        MessageId(self.last_ms << TIME_SHIFT | self.writer << SEQUENCE_BITS | self.sequence.max(0))
    }

    /// The next identifier at this moment (milliseconds since 1970-01-01 UTC).
    pub(crate) fn next(&mut self, now_ms: i64) -> MessageId {
        let ms = now_ms.saturating_sub(EPOCH_MS).clamp(0, (1 << 42) - 2);
        if ms > self.last_ms {
            self.last_ms = ms;
            self.sequence = 0;
        } else {
            self.sequence += 1;
            if self.sequence >= 1 << SEQUENCE_BITS {
                self.last_ms += 1;
                self.sequence = 0;
            }
        }
        MessageId(self.last_ms << TIME_SHIFT | self.writer << SEQUENCE_BITS | self.sequence)
    }
}

/// The clock, in milliseconds since 1970-01-01 UTC.
pub(crate) fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grow_even_when_the_clock_goes_back() {
        let mut generator = IdGenerator::new(3, None);
        let mut last = generator.next(1_800_000_000_000);
        for step in 0..10_000 {
            let id = generator.next(1_800_000_000_000 - step);
            assert!(id > last);
            last = id;
        }
    }

    #[test]
    fn come_after_what_is_stored() {
        let stored = IdGenerator::new(1, None).next(1_900_000_000_000);
        let mut generator = IdGenerator::new(0, Some(stored));
        assert!(generator.next(1_700_000_000_000) > stored);
    }

    #[test]
    fn writers_do_not_meet() {
        let (mut first, mut second) = (IdGenerator::new(1, None), IdGenerator::new(2, None));
        for _ in 0..5_000 {
            assert_ne!(first.next(1_800_000_000_000), second.next(1_800_000_000_000));
        }
    }

    #[test]
    fn text_is_exact() {
        let id = IdGenerator::new(1, None).next(1_800_000_000_123);
        assert_eq!(id.timestamp_ms(), 1_800_000_000_123);
        assert_eq!(id.to_string().parse::<MessageId>(), Ok(id));
        for wrong in
            ["", "1", "+000000000000001", "ffffffffffffffff0", "000000000000000g", "ffffffffffffffff"]
        {
            assert!(wrong.parse::<MessageId>().is_err(), "{wrong}");
        }
        assert!(MessageId::first_at(id.timestamp_ms()) <= id);
        assert!(MessageId::first_at(id.timestamp_ms() + 1) > id);
    }
}
