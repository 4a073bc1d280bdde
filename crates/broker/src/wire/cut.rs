//! Messages that are longer than an event may be. The stream passes the beginning and the size of such a message only:
//! the memory of a process has no room for many of them.

use std::{collections::HashMap, ops::Range, sync::LazyLock};

/// Kept bytes of a body that was cut.
pub(crate) const KEPT: usize = 64 * 1024;

/// Bytes behind the kept bytes: a mark that no publisher knows, and the size.
const MARK: usize = 16;
const SIZE: usize = 8;
const CUT: usize = KEPT + MARK + SIZE;

/// Smallest limit of a body, in bytes. A rolled-out change of `FANFARE_MAX_EVENT_BYTES` below it cuts no accepted
/// event.
const LEAST_LIMIT: usize = 1024 * 1024;

/// The mark of this process.
static OURS: LazyLock<[u8; MARK]> = LazyLock::new(rand::random);

/// Bodies that are being cut, by channel.
#[derive(Debug)]
pub(crate) struct Cutting {
    limit: u64,
    bodies: HashMap<u16, Body>,
}

/// Size of a body, and the number of bytes that have come.
#[derive(Debug)]
struct Body {
    size: u64,
    at: u64,
}

impl Cutting {
    /// Cuts bodies of more than `limit` bytes, or of more than 1 MiB if `limit` is less.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit: limit.max(LEAST_LIMIT) as u64, bodies: HashMap::new() }
    }

    /// Reads the size of a body from the payload of a content header frame. Announces the size after the cut.
    pub(crate) fn begin(&mut self, channel: u16, payload: &mut [u8]) {
        self.bodies.remove(&channel);
        // Behind class and weight.
        let Some(announced) = payload.get_mut(4..12).and_then(|bytes| <&mut [u8; SIZE]>::try_from(bytes).ok()) else {
            return;
        };
        let size = u64::from_be_bytes(*announced);
        if size > self.limit {
            *announced = (CUT as u64).to_be_bytes();
            self.bodies.insert(channel, Body { size, at: 0 });
        }
    }

    /// True if the channel's body is being cut.
    pub(crate) fn cuts(&self, channel: u16) -> bool {
        self.bodies.contains_key(&channel)
    }

    /// Cuts the payload of a body frame, and returns the number of bytes that remain.
    pub(crate) fn cut(&mut self, channel: u16, payload: &mut [u8]) -> usize {
        let Some(body) = self.bodies.get_mut(&channel) else { return payload.len() };
        let from = body.at;
        body.at += payload.len() as u64;
        let trailer = [&OURS[..], &body.size.to_be_bytes()].concat();
        if body.at >= body.size {
            self.bodies.remove(&channel);
        }
        let Ok(from) = usize::try_from(from) else { return 0 };
        let there = from..from + payload.len();
        let replaced = common(&there, KEPT..CUT);
        if !replaced.is_empty() {
            let in_payload = replaced.start - from..replaced.end - from;
            payload[in_payload].copy_from_slice(&trailer[replaced.start - KEPT..replaced.end - KEPT]);
        }
        common(&there, 0..CUT).len()
    }
}

/// The common part of two ranges.
fn common(one: &Range<usize>, other: Range<usize>) -> Range<usize> {
    let start = one.start.max(other.start);
    start..one.end.min(other.end).max(start)
}

/// Removes mark and size from a body that was cut. Returns the body's size.
pub(crate) fn uncut(body: &mut Vec<u8>) -> usize {
    let size = body.len();
    let Some((kept, trailer)) = body.split_last_chunk::<{ MARK + SIZE }>() else { return size };
    let (mark, announced) = trailer.split_at(MARK);
    if kept.len() != KEPT || mark != *OURS {
        return size;
    }
    let announced = announced.iter().fold(0, |size, byte| size << 8 | u64::from(*byte));
    body.truncate(KEPT);
    usize::try_from(announced).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Payload of a content header frame for a body of `size` bytes.
    fn header(size: usize) -> Vec<u8> {
        [&[0, 60, 0, 0][..], &(size as u64).to_be_bytes(), &[0, 0]].concat()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_long_body_keeps_its_beginning_and_its_size(
            size in prop_oneof![LEAST_LIMIT - 2..LEAST_LIMIT + 3, 1_usize..2_000_000],
            sizes in vec(prop_oneof![1_usize..40, 1_usize..200_000], 1..40),
        ) {
            let body: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap_or_default()).collect();
            let (mut cutting, mut head, mut passed) = (Cutting::new(0), header(size), Vec::new());
            cutting.begin(1, &mut head);
            let announced = u64::from_be_bytes(head[4..12].try_into().expect("eight bytes"));
            let (mut rest, mut sizes) = (&body[..], sizes.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*sizes.next().expect("a size")).min(rest.len()));
                let mut payload = now.to_vec();
                let count = cutting.cut(1, &mut payload);
                passed.extend(&payload[..count]);
                rest = later;
            }
            prop_assert_eq!(passed.len() as u64, announced);
            prop_assert!(!cutting.cuts(1));
            prop_assert_eq!(uncut(&mut passed), size);
            let kept = if size > LEAST_LIMIT { KEPT } else { size };
            prop_assert_eq!(&passed[..], &body[..kept]);
        }
    }

    #[test]
    fn a_body_of_the_same_length_is_not_taken_for_one_that_was_cut() {
        let mut body = vec![7; CUT];
        assert_eq!((uncut(&mut body), body.len()), (CUT, CUT));
    }

    #[test]
    fn channels_are_cut_apart() {
        let mut cutting = Cutting::new(0);
        cutting.begin(1, &mut header(2_000_000));
        cutting.begin(2, &mut header(10));
        assert!(cutting.cuts(1) && !cutting.cuts(2));
        assert_eq!((cutting.cut(1, &mut [1; 100_000]), cutting.cut(2, &mut [1; 10])), (CUT, 10));
        assert_eq!(cutting.cut(1, &mut [1; 100_000]), 0);
    }
}
