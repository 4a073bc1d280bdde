use lapin::protocol::basic::parse_properties;
use proptest::{collection::vec, prelude::*};

use super::*;

fn short_string(bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("a short string");
    [&[length], bytes].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a long string");
    [&length.to_be_bytes(), bytes].concat()
}

/// A field with a type.
fn field(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [&[kind], bytes].concat()
}

/// Bytes of short strings: UTF-8 or arbitrary.
fn names(is_utf8: bool) -> BoxedStrategy<Vec<u8>> {
    let utf8 = ".{0,20}".prop_map(String::into_bytes);
    if is_utf8 { utf8.boxed() } else { prop_oneof![utf8, vec(any::<u8>(), 0..=255)].boxed() }
}

fn values(is_utf8: bool) -> impl Strategy<Value = Vec<u8>> {
    let fixed = prop::sample::select(vec![
        (b't', 1),
        (b'b', 1),
        (b'B', 1),
        (b's', 2),
        (b'U', 2),
        (b'u', 2),
        (b'I', 4),
        (b'i', 4),
        (b'f', 4),
        (b'D', 5),
        (b'L', 8),
        (b'l', 8),
        (b'T', 8),
        (b'd', 8),
        (b'V', 0),
    ]);
    let fixed = fixed.prop_flat_map(|(kind, size)| vec(any::<u8>(), size).prop_map(move |bytes| field(kind, &bytes)));
    let text = (prop::sample::select(vec![b'S', BYTES]), vec(any::<u8>(), 0..20));
    let text = text.prop_map(|(kind, bytes)| field(kind, &long(&bytes)));
    prop_oneof![fixed, text].prop_recursive(8, 40, 5, move |inner| {
        let list = vec(inner.clone(), 0..5).prop_map(|values| field(LIST, &long(&values.concat())));
        let table = entries(is_utf8, inner).prop_map(|entries| field(TABLE, &long(&entries)));
        prop_oneof![list, table]
    })
}

fn entries(is_utf8: bool, values: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let entry = (names(is_utf8), values).prop_map(|(name, value)| [short_string(&name), value].concat());
    vec(entry, 0..5).prop_map(|entries| entries.concat())
}

/// Payloads of content headers.
pub(crate) fn headers(is_utf8: bool) -> impl Strategy<Value = Vec<u8>> {
    let properties = (any::<u16>(), vec(names(is_utf8), 14), entries(is_utf8, values(is_utf8)), any::<[u8; 8]>());
    properties.prop_map(|(flags, names, table, number)| {
        let mut payload = [&[0, 60, 0, 0][..], &[7; 8], &(flags & 0xfffc).to_be_bytes()].concat();
        for (index, (property, name)) in PROPERTIES.into_iter().zip(names).enumerate() {
            if flags & (0x8000 >> index) != 0 {
                payload.extend(match property {
                    Property::ShortString => short_string(&name),
                    Property::Table => long(&table),
                    Property::Fixed(size) => number[..size].to_vec(),
                });
            }
        }
        payload
    })
}

/// Payloads of `basic.deliver`.
pub(crate) fn delivers(is_utf8: bool) -> impl Strategy<Value = Vec<u8>> {
    vec(names(is_utf8), 3).prop_map(|names| {
        let [tag, exchange, key] = [&names[0], &names[1], &names[2]].map(|name| short_string(name));
        [&DELIVER[..], &tag, &[0xff; 9], &exchange, &key].concat()
    })
}

/// Nested lists, as the only header.
fn nested(depth: usize) -> Vec<u8> {
    let mut value = vec![b'V'];
    for _ in 1..depth {
        value = field(LIST, &long(&value));
    }
    let table = long(&[short_string(b"deep"), value].concat());
    [&[0, 60, 0, 0][..], &[7; 8], &0x2000_u16.to_be_bytes(), &table].concat()
}

fn is_read(payload: &[u8]) -> bool {
    parse_properties(&payload[12..]).is_ok_and(|(rest, _)| rest.is_empty())
}

#[test]
fn each_byte_that_is_not_utf8_is_replaced() {
    for (bytes, expected) in [
        (&b"plain"[..], "plain"),
        (b"caf\xe9", "caf\u{1a}"),
        (b"caf\xe9-1", "caf\u{1a}-1"),
        ("café-1".as_bytes(), "café-1"),
        (b"\xc3", "\u{1a}"),
        (b"\xe2\x82", "\u{1a}\u{1a}"),
        (b"\xff\xfe\xc3\xa9\xf0\x9f", "\u{1a}\u{1a}é\u{1a}\u{1a}"),
    ] {
        let mut sanitized = bytes.to_vec();
        sanitize(&mut sanitized);
        assert_eq!(str::from_utf8(&sanitized), Ok(expected));
    }
}

#[test]
fn a_value_nested_too_deep_becomes_bytes() {
    for (depth, is_kept) in [(1, true), (MAX_DEPTH, true), (MAX_DEPTH + 1, false), (20_000, false)] {
        let mut payload = nested(depth);
        let before = payload.clone();
        sanitize_header(&mut payload);
        assert_eq!(payload == before, is_kept, "{depth}");
        assert!(is_read(&payload), "{depth}");
        let changed: Vec<_> = before.iter().zip(&payload).filter(|(old, new)| old != new).collect();
        assert!(changed.iter().all(|pair| *pair == (&LIST, &BYTES)) && changed.len() <= 1, "{depth}: {changed:?}");
    }
}

#[test]
fn a_method_that_is_no_delivery_stays() {
    // connection.close with a reply text that is not UTF-8.
    let mut payload = [&[0, 10, 0, 50, 1, 64][..], &short_string(b"\xff\xff"), &[0; 4]].concat();
    let before = payload.clone();
    sanitize_method(&mut payload);
    assert_eq!(payload, before);
}

/// True if only bytes beyond ASCII changed, and only to the replacement.
fn is_sanitized_only(before: &[u8], after: &[u8]) -> bool {
    let is_sound = |(old, new): (&u8, &u8)| old == new || !old.is_ascii() && *new == SUBSTITUTE_BYTE;
    before.len() == after.len() && before.iter().zip(after).all(is_sound)
}

proptest! {
    #[test]
    fn a_sound_message_stays(header in headers(true), deliver in delivers(true)) {
        let (mut header_after, mut deliver_after) = (header.clone(), deliver.clone());
        sanitize_header(&mut header_after);
        sanitize_method(&mut deliver_after);
        prop_assert!(is_read(&header));
        prop_assert_eq!((header_after, deliver_after), (header, deliver));
    }

    #[test]
    fn any_message_can_be_read_afterwards(header in headers(false)) {
        let mut after = header.clone();
        sanitize_header(&mut after);
        prop_assert!(is_read(&after));
        prop_assert!(is_sanitized_only(&header, &after));
        prop_assert_eq!(is_read(&header), header == after);
    }

    #[test]
    fn any_delivery_is_utf8_afterwards(deliver in delivers(false)) {
        let mut after = deliver.clone();
        sanitize_method(&mut after);
        prop_assert!(is_sanitized_only(&deliver, &after));
        let mut walk = Walk { bytes: &mut after, at: DELIVER.len() };
        for skipped in [0, 9, 0] {
            walk.take(skipped).expect("bytes");
            let [length] = walk.number().expect("a length");
            prop_assert!(str::from_utf8(walk.take(length.into()).expect("a text")).is_ok());
        }
        prop_assert_eq!(walk.at, deliver.len());
    }

    #[test]
    fn no_bytes_end_it(bytes in vec(any::<u8>(), 0..300), flags in any::<u16>()) {
        let mut header = [&[0; 12][..], &flags.to_be_bytes(), &bytes].concat();
        sanitize_header(&mut header);
        let mut deliver = [&DELIVER[..], &bytes].concat();
        sanitize_method(&mut deliver);
        sanitize_method(&mut bytes.clone());
        sanitize_header(&mut bytes.clone());
    }
}
