use proptest::{collection::vec, prelude::*};

use super::*;
use crate::wire::{
    cut::{KEPT, uncut},
    sanitize::tests::{delivers, headers},
};

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).expect("a frame");
    [&[kind, 0, 1][..], &size.to_be_bytes(), payload, &[0xce]].concat()
}

/// Frames of all types, with short strings that are UTF-8 or arbitrary: type and payload.
fn frames(is_utf8: bool) -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let others = prop::sample::select(vec![METHOD, BODY, HEARTBEAT]);
    let others = (others, vec(any::<u8>(), 0..300)).prop_map(|(kind, mut payload)| {
        if kind == METHOD {
            payload.splice(0..0, [0, 10, 0, 50]);
        }
        (kind, payload)
    });
    let delivers = delivers(is_utf8).prop_map(|payload| (METHOD, payload));
    let headers = headers(is_utf8).prop_map(|payload| (HEADER, payload));
    vec(prop_oneof![others, delivers, headers], 0..8)
}

fn written(frames: &[(u8, Vec<u8>)]) -> Vec<u8> {
    frames.iter().flat_map(|(kind, payload)| frame(*kind, payload)).collect()
}

/// Output for bytes that arrive in `pieces` and are read in sizes of `reads`, without a limit on bodies.
fn passed(bytes: &[u8], pieces: &[usize], reads: &[usize]) -> Vec<u8> {
    passed_within(usize::MAX, bytes, pieces, reads)
}

fn passed_within(limit: usize, bytes: &[u8], pieces: &[usize], reads: &[usize]) -> Vec<u8> {
    let (mut frames, mut out, mut rest) = (Frames::new(limit), Vec::new(), bytes);
    let (mut pieces, mut reads) = (pieces.iter().cycle(), reads.iter().cycle());
    while !rest.is_empty() {
        let room = frames.room();
        let count = rest.len().min(room.len()).min(*pieces.next().expect("sizes"));
        room[..count].copy_from_slice(&rest[..count]);
        frames.fill(count);
        rest = &rest[count..];
        loop {
            let mut into = vec![0; *reads.next().expect("sizes")];
            let given = frames.give(&mut into);
            out.extend(&into[..given]);
            if given == 0 {
                break;
            }
        }
    }
    out
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1_usize..10, 1_usize..2000], 1..20)
}

#[test]
fn the_start_of_a_message_waits_for_its_rest_and_a_body_does_not() {
    let header = frame(HEADER, &[0; 14]);
    assert_eq!(passed(&header[..header.len() - 1], &[1000], &[1000]), b"");
    let body = frame(BODY, b"data");
    assert_eq!(passed(&body[..9], &[1000], &[1000]), body[..9]);
}

#[test]
fn bytes_without_a_frame_pass_unchanged() {
    let bytes = b"AMQP\0\0\x09\x01\x02\0\0\0\0\0\x01";
    assert_eq!(passed(bytes, &[3], &[2]), bytes);
}

#[test]
fn a_frame_beyond_any_size_passes() {
    let mut bytes = vec![HEADER, 0, 1, 0xff, 0xff, 0xff, 0xff];
    bytes.extend([0xff; 300]);
    assert_eq!(passed(&bytes, &[100], &[70]), bytes);
}

#[test]
fn a_large_frame_is_buffered_whole() {
    let table = [&[4][..], b"caf\xe9S", &200_000_u32.to_be_bytes(), &[b'a'; 200_000]].concat();
    let size = u32::try_from(table.len()).expect("a size").to_be_bytes();
    let payload = [&[0; 12][..], &0x2000_u16.to_be_bytes(), &size, &table].concat();
    let out = passed(&frame(HEADER, &payload), &[65_536], &[4096]);
    let mut sanitized = payload;
    sanitize_header(&mut sanitized);
    assert_eq!(out, frame(HEADER, &sanitized));
    assert_eq!(&sanitized[18..23], b"\x04caf\x1a");
}

#[test]
fn a_long_body_is_cut_between_other_frames() {
    const PART: usize = 400_000;
    let header = |size: usize| frame(HEADER, &[&[0, 60, 0, 0][..], &(size as u64).to_be_bytes(), &[0, 0]].concat());
    let other = frame(METHOD, &[0, 10, 0, 50]);
    let parts: Vec<u8> = [b'a', b'b', b'c'].map(|letter| frame(BODY, &[letter; PART])).concat();
    let bytes = [&other[..], &header(3 * PART), &parts, &other, &header(4), &frame(BODY, b"data"), &other].concat();
    let out = passed_within(0, &bytes, &[70_000, 30_000, 1], &[50_000]);
    let cut = out.len() - 3 * other.len() - 2 * header(0).len() - frame(BODY, b"data").len();
    assert_eq!(cut, HEAD + KEPT + 24 + 1);
    let start = other.len() + header(0).len();
    let mut body = out[start + HEAD..start + cut - 1].to_vec();
    assert_eq!((uncut(&mut body), &body[..]), (3 * PART, &[b'a'; KEPT][..]));
    assert_eq!(out[start + cut - 1], 0xce);
    assert_eq!(out[start + cut..], bytes[bytes.len() - (out.len() - start - cut)..]);
}

proptest! {
    #[test]
    fn sound_frames_pass_as_they_are(frames in frames(true), pieces in sizes(), reads in sizes()) {
        let bytes = written(&frames);
        prop_assert_eq!(passed(&bytes, &pieces, &reads), bytes);
    }

    #[test]
    fn any_frames_are_sanitized_however_they_come(frames in frames(false), pieces in sizes(), reads in sizes()) {
        let mut sanitized = frames.clone();
        for (kind, payload) in &mut sanitized {
            match *kind {
                METHOD => sanitize_method(payload),
                HEADER => sanitize_header(payload),
                _ => {}
            }
        }
        prop_assert_eq!(passed(&written(&frames), &pieces, &reads), written(&sanitized));
    }

    #[test]
    fn no_bytes_end_it(bytes in vec(prop_oneof![0_u8..9, any::<u8>()], 0..3000), pieces in sizes()) {
        prop_assert!(passed(&bytes, &pieces, &[700]).len() <= bytes.len());
    }
}
