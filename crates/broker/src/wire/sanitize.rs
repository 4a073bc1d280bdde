//! Sanitizes short strings that are not UTF-8 within a frame's payload. All lengths stay the same.
//!
//! RabbitMQ accepts any bytes as a short string; lapin ends the whole connection at a short string that is not UTF-8.
//! Fanfare's stream therefore replaces such bytes before lapin reads them. The replacement also marks the message for
//! parking.

/// Replacement for each byte that is not UTF-8. Ids of applications, event types and keys of events never contain the
/// character.
pub(crate) const SUBSTITUTE: char = '\u{1a}';
const SUBSTITUTE_BYTE: u8 = SUBSTITUTE as u8;

/// Class and method of `basic.deliver`.
const DELIVER: [u8; 4] = [0, 60, 0, 60];

/// Maximum nesting of tables and lists for lapin. lapin recurses, and a frame has room for some 26,000 levels.
const MAX_DEPTH: usize = 64;

/// Field types: an array of bytes, a list, a table.
const BYTES: u8 = b'x';
const LIST: u8 = b'A';
const TABLE: u8 = b'F';

/// Properties in the order of flags, from the highest bit down.
const PROPERTIES: [Property; 14] = {
    use Property::{Fixed, ShortString, Table};
    [
        ShortString, // content_type
        ShortString, // content_encoding
        Table,       // headers
        Fixed(1),    // delivery_mode
        Fixed(1),    // priority
        ShortString, // correlation_id
        ShortString, // reply_to
        ShortString, // expiration
        ShortString, // message_id
        Fixed(8),    // timestamp
        ShortString, // type
        ShortString, // user_id
        ShortString, // app_id
        ShortString, // cluster_id
    ]
};

#[derive(Clone, Copy)]
enum Property {
    ShortString,
    Table,
    Fixed(usize),
}

/// Replaces each byte that is not part of UTF-8.
pub(crate) fn sanitize(bytes: &mut [u8]) {
    let mut from = 0;
    while let Err(error) = str::from_utf8(&bytes[from..]) {
        let bad = from + error.valid_up_to();
        let end = error.error_len().map_or(bytes.len(), |length| bad + length);
        bytes[bad..end].fill(SUBSTITUTE_BYTE);
        from = end;
    }
}

/// Sanitizes the payload of a `basic.deliver` method frame. No other method carries a publisher's bytes to a consumer.
pub(crate) fn sanitize_method(payload: &mut [u8]) {
    let mut walk = Walk { bytes: payload, at: 0 };
    if walk.take(DELIVER.len()).is_some_and(|method| *method == DELIVER) {
        // lapin refuses a payload that ends early.
        let _ = walk.deliver();
    }
}

/// Sanitizes the payload of a content header frame.
pub(crate) fn sanitize_header(payload: &mut [u8]) {
    let _ = Walk { bytes: payload, at: 0 }.header();
}

/// A walk over a payload. Each step returns `None` if the payload ends early.
struct Walk<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Walk<'_> {
    fn take(&mut self, count: usize) -> Option<&mut [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get_mut(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        (*self.take(N)?).try_into().ok()
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_be_bytes(self.number()?)).ok()
    }

    fn short_string(&mut self) -> Option<()> {
        let [length] = self.number()?;
        sanitize(self.take(length.into())?);
        Some(())
    }

    fn skip_long(&mut self) -> Option<()> {
        let length = self.length()?;
        self.take(length).map(drop)
    }

    /// Walks over consumer tag, delivery tag, redelivered flag, exchange and routing key.
    fn deliver(&mut self) -> Option<()> {
        self.short_string()?;
        self.take(9)?;
        self.short_string()?;
        self.short_string()
    }

    /// Walks over class, weight, size of the body, flags and properties.
    fn header(&mut self) -> Option<()> {
        self.take(12)?;
        let flags = u16::from_be_bytes(self.number()?);
        for (index, property) in PROPERTIES.into_iter().enumerate() {
            if flags & (0x8000 >> index) == 0 {
                continue;
            }
            match property {
                Property::ShortString => self.short_string()?,
                Property::Table => self.table()?,
                Property::Fixed(size) => self.take(size).map(drop)?,
            }
        }
        Some(())
    }

    /// Walks over a table without recursion. A field nested too deep becomes an array of bytes.
    fn table(&mut self) -> Option<()> {
        let mut open = Vec::new();
        self.open(TABLE, &mut open)?;
        while let Some((kind, end)) = open.last().copied() {
            if self.at >= end {
                open.pop();
                continue;
            }
            if kind == TABLE {
                self.short_string()?;
            }
            let place = self.at;
            match self.number()? {
                [b't' | b'b' | b'B'] => self.take(1).map(drop)?,
                [b's' | b'U' | b'u'] => self.take(2).map(drop)?,
                [b'I' | b'i' | b'f'] => self.take(4).map(drop)?,
                [b'D'] => self.take(5).map(drop)?,
                [b'L' | b'l' | b'T' | b'd'] => self.take(8).map(drop)?,
                [b'S' | BYTES] => self.skip_long()?,
                [LIST | TABLE] if open.len() == MAX_DEPTH => {
                    self.bytes[place] = BYTES;
                    self.skip_long()?;
                }
                [kind @ (LIST | TABLE)] => self.open(kind, &mut open)?,
                [b'V'] => {}
                _ => return None,
            }
        }
        Some(())
    }

    fn open(&mut self, kind: u8, open: &mut Vec<(u8, usize)>) -> Option<()> {
        let length = self.length()?;
        open.push((kind, self.at.checked_add(length)?));
        Some(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
