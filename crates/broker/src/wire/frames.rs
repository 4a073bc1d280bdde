//! The bytes of a connection, split into frames, sanitized and cut.

use super::{
    cut::Cutting,
    sanitize::{sanitize_header, sanitize_method},
};

/// Bytes of a frame's head: type, channel and size.
const HEAD: usize = 7;

/// Frame types.
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// Minimum room for a read, in bytes.
const LEAST_ROOM: usize = 16 * 1024;

/// Initial size of the buffer, in bytes.
const FIRST_ROOM: usize = 128 * 1024;

/// Largest frame that is held until complete, in bytes. RabbitMQ's default limit is 128 KiB.
const LARGEST: usize = 16 * 1024 * 1024;

/// Buffered bytes: given out up to `given`, sanitized up to `ready`, read up to `filled`.
#[derive(Debug)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    given: usize,
    ready: usize,
    filled: usize,
    /// Number of following bytes that need no sanitizing.
    passing: usize,
    cutting: Cutting,
}

impl Frames {
    /// Cuts bodies of more than `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), given: 0, ready: 0, filled: 0, passing: 0, cutting: Cutting::new(limit) }
    }

    /// Room for the next bytes; never empty.
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

    /// Accepts `count` bytes that were read into the room.
    pub(crate) fn fill(&mut self, count: usize) {
        self.filled = (self.filled + count).min(self.bytes.len());
        while self.step() {}
    }

    /// Copies ready bytes into `into`, as many as fit, and returns the count.
    pub(crate) fn give(&mut self, into: &mut [u8]) -> usize {
        let count = into.len().min(self.ready - self.given);
        into[..count].copy_from_slice(&self.bytes[self.given..self.given + count]);
        self.given += count;
        count
    }

    /// Sanitizes and readies the next frame, or the available part of a body; returns false if more bytes are needed.
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
        let (kind, channel, size) = match *frame {
            [kind @ (METHOD | HEADER | BODY | HEARTBEAT), high, low, a, b, c, d, ..] => {
                (kind, u16::from_be_bytes([high, low]), u32::from_be_bytes([a, b, c, d]) as usize)
            }
            [METHOD | HEADER | BODY | HEARTBEAT, ..] => return false,
            // An unknown frame type: the start of the next frame is unknown, and lapin ends the connection.
            _ => {
                self.passing = usize::MAX;
                return true;
            }
        };
        // A byte marks the end of a frame.
        let whole = size.saturating_add(HEAD + 1);
        let is_cut = kind == BODY && self.cutting.cuts(channel);
        if !is_cut && !matches!(kind, METHOD | HEADER) || size > LARGEST {
            self.passing = whole;
            return true;
        }
        if there < whole {
            return false;
        }
        let payload = &mut frame[HEAD..HEAD + size];
        match kind {
            METHOD => sanitize_method(payload),
            HEADER => {
                sanitize_header(payload);
                self.cutting.begin(channel, payload);
            }
            _ => {
                let kept = self.cutting.cut(channel, payload);
                self.shorten(size, kept);
                return true;
            }
        }
        self.ready += whole;
        true
    }

    /// Shortens the payload of the next frame from `size` to `kept` bytes, and readies the frame. A frame without a
    /// payload is removed.
    fn shorten(&mut self, size: usize, kept: usize) {
        let (start, end) = (self.ready, self.ready + HEAD + size);
        let from = if kept == 0 {
            start
        } else {
            // Less than the size, which the head had in four bytes.
            let count = u32::try_from(kept).unwrap_or(u32::MAX);
            self.bytes[start + HEAD - 4..start + HEAD].copy_from_slice(&count.to_be_bytes());
            start + HEAD + kept
        };
        // The byte at `end` marks the end of a frame.
        let rest = if kept == 0 { end + 1 } else { end };
        self.bytes.copy_within(rest..self.filled, from);
        self.filled -= rest - from;
        self.ready = if kept == 0 { start } else { from + 1 };
    }
}

/// Sanitizes bytes that arrive in pieces of these sizes, in turn: for tests.
pub fn sanitized(bytes: &[u8], pieces: &[usize]) -> Vec<u8> {
    let (mut frames, mut out, mut rest) = (Frames::new(usize::MAX), Vec::new(), bytes);
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
