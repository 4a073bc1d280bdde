//! Bytes that are no text, as a hex dump. Pure.

/// Shown bytes of a dump.
pub(crate) const MAX_SHOWN: usize = 1024;

/// Bytes of a line.
const WIDTH: usize = 16;

/// The first bytes as lines of offset, hexadecimal numbers and ASCII letters.
pub(crate) fn dump(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(MAX_SHOWN)];
    let line = |(index, bytes): (usize, &[u8])| {
        let numbers: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
        let letter = |byte: &u8| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' };
        let letters: String = bytes.iter().map(letter).collect();
        format!("{:04x}  {numbers:<48} {letters}", index * WIDTH)
    };
    shown.chunks(WIDTH).enumerate().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_offset_numbers_and_letters() {
        assert_eq!(dump(b"\xff\x00{\"a\":1}"), format!("0000  {:<48} ..{{\"a\":1}}", "ff 00 7b 22 61 22 3a 31 7d "));
        assert_eq!(dump(b""), "");
        let lines = dump(&[0; 5000]);
        assert_eq!(lines.lines().count(), MAX_SHOWN / WIDTH);
        assert!(lines.lines().last().is_some_and(|line| line.starts_with("03f0  00 ")));
    }
}
