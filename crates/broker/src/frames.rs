//! The bytes of a connection: split into frames, mended, and given out in the same number.

use crate::mend::{mend_header, mend_method};

/// Type, channel and size.
const HEAD: usize = 7;

/// Types of frames.
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// Bytes that one read has room for, at the least.
const LEAST_ROOM: usize = 16 * 1024;

/// Bytes of the buffer at first.
const FIRST_ROOM: usize = 128 * 1024;

/// Bytes of the largest frame that is held until it is complete. RabbitMQ's default limit is 128 KiB.
const LARGEST: usize = 16 * 1024 * 1024;

/// Bytes on their way: given out up to `given`, mended up to `ready`, read up to `filled`.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    given: usize,
    ready: usize,
    filled: usize,
    /// Bytes to come that need no mending.
    passing: usize,
}

impl Frames {
    /// The room for the next bytes; never empty.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.given..self.filled, 0);
        self.ready -= self.given;
        self.filled -= self.given;
        self.given = 0;
        if self.bytes.len() - self.filled < LEAST_ROOM {
            self.bytes.resize((2 * self.bytes.len()).max(FIRST_ROOM), 0);
        }
        &mut self.bytes[self.filled..]
    }

    /// Takes over `count` bytes that were read into the room.
    pub(crate) fn fill(&mut self, count: usize) {
        self.filled = (self.filled + count).min(self.bytes.len());
        while self.step() {}
    }

    /// Gives out bytes that are ready, as many as fit.
    pub(crate) fn give(&mut self, into: &mut [u8]) -> usize {
        let count = into.len().min(self.ready - self.given);
        into[..count].copy_from_slice(&self.bytes[self.given..self.given + count]);
        self.given += count;
        count
    }

    /// Readies the bytes of one frame; false when more bytes are needed.
    fn step(&mut self) -> bool {
        let there = self.filled - self.ready;
        if there == 0 {
            return false;
        }
        if self.passing > 0 {
            let passed = self.passing.min(there);
            self.passing -= passed;
            self.ready += passed;
            return true;
        }
        let frame = &mut self.bytes[self.ready..self.filled];
        let (kind, size) = match *frame {
            [kind @ (METHOD | HEADER | BODY | HEARTBEAT), _, _, a, b, c, d, ..] => {
                (kind, u32::from_be_bytes([a, b, c, d]) as usize)
            }
            [METHOD | HEADER | BODY | HEARTBEAT, ..] => return false,
            // No type of frame: the begin of the next frame is unknown, and lapin ends the connection.
            _ => {
                self.passing = usize::MAX;
                return true;
            }
        };
        // One byte marks the end.
        let whole = size.saturating_add(HEAD + 1);
        if !matches!(kind, METHOD | HEADER) || size > LARGEST {
            self.passing = whole;
            return true;
        }
        if there < whole {
            return false;
        }
        let payload = &mut frame[HEAD..HEAD + size];
        if kind == METHOD {
            mend_method(payload)
        } else {
            mend_header(payload)
        }
        self.ready += whole;
        true
    }
}

/// Mends bytes that come in pieces of these sizes, in turn: for tests.
pub fn mended(bytes: &[u8], pieces: &[usize]) -> Vec<u8> {
    let (mut frames, mut out, mut rest) = (Frames::default(), Vec::new(), bytes);
    for piece in pieces.iter().cycle() {
        let room = frames.room();
        let count = rest.len().min(room.len()).min((*piece).max(1));
        let (now, later) = rest.split_at(count);
        room[..count].copy_from_slice(now);
        frames.fill(count);
        rest = later;
        let mut into = vec![0; frames.ready - frames.given];
        frames.give(&mut into);
        out.extend(into);
        if rest.is_empty() {
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests;
