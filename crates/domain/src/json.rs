//! JSON as Node prints it.
//!
//! Receivers of the default dialect sign `JSON.stringify(JSON.parse(body))`. The bytes sent must survive that round
//! trip, whatever JSON the publisher wrote. [`print_as_node`] therefore prints the text that Node would print:
//!
//! - White space is dropped. A duplicate key keeps the first place and the last value. Array indices (`"0"` to
//!   `"4294967294"`) precede all other keys, ascending. Keys are compared unescaped; `__proto__` is an ordinary key.
//! - Numbers become 64-bit floats, printed by ECMAScript's rules: `1.0` is `1`, `-0` is `0`, `1e21` is `1e+21`. An
//!   integer above 2^53 may lose the last digits.
//! - Strings keep only necessary escapes: quote, backslash, control characters, lone surrogates.
//!
//! The result can be longer than the text, by a factor of about five at most (`1e20` has 21 digits).
//!
//! A single pass parses and prints: each piece is printed as soon as read, and an object is sorted on its closing
//! bracket. `tests/tests/e2e/operate/node_prints_json.rs` compares with Node itself.

mod readable;

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

pub use readable::readable;

/// Maximum nesting of arrays and objects. A deeper text is refused.
pub const MAX_DEPTH: usize = 100;

/// The fault in a refused text, with the byte offset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// The text is not JSON.
    #[error("invalid JSON at byte {offset}: {what}")]
    Syntax { offset: usize, what: &'static str },
    /// The text is nested deeper than [`MAX_DEPTH`].
    #[error("arrays and objects are nested deeper than {MAX_DEPTH} levels at byte {offset}")]
    TooDeep { offset: usize },
    /// A number that Node reads as infinite, and would print as `null`.
    #[error("the number at byte {offset} is beyond JavaScript's 1.8e308: send it as a string")]
    InfiniteNumber { offset: usize },
}

/// Checks that Node can read `text` as JSON, within the limits of this module.
pub fn check(text: &str) -> Result<(), JsonFault> {
    print_as_node(text).map(drop)
}

/// Prints `text` as `JSON.stringify(JSON.parse(text))` does in Node. Fails where [`check`] fails.
pub fn print_as_node(text: &str) -> Result<String, JsonFault> {
    let mut printer = Printer { text, at: 0, depth: 0, out: String::with_capacity(text.len()) };
    printer.value()?;
    match printer.peek() {
        None => Ok(printer.out),
        Some(_) => Err(printer.syntax("text follows after the end of the value")),
    }
}

/// Removes the white space outside of strings. Numbers keep all digits, strings all escapes, keys their order.
/// [`check`] must accept `text`.
pub fn compact(text: &str) -> String {
    let (mut is_string, mut is_escaped) = (false, false);
    let is_kept = |&character: &char| {
        if is_string {
            is_string = is_escaped || character != '"';
            is_escaped = !is_escaped && character == '\\';
            return true;
        }
        is_string = character == '"';
        !matches!(character, ' ' | '\t' | '\n' | '\r')
    };
    text.chars().filter(is_kept).collect()
}

struct Printer<'a> {
    text: &'a str,
    /// Offset in `text` of the next byte to read.
    at: usize,
    /// Number of open arrays and objects.
    depth: usize,
    out: String,
}

/// Ranges of a member's key and value in the printed text.
struct Member {
    key: Range<usize>,
    value: Range<usize>,
}

impl Printer<'_> {
    fn value(&mut self) -> Result<(), JsonFault> {
        match self.peek() {
            Some(b'{') => self.object(),
            Some(b'[') => self.items('[', ']', Self::value),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.word(),
        }
    }

    fn object(&mut self) -> Result<(), JsonFault> {
        let start = self.out.len();
        let mut members = Vec::new();
        self.items('{', '}', |printer| {
            let key = printer.out.len();
            printer.string()?;
            let colon = printer.out.len();
            printer.mark(':', "a colon is expected after the key")?;
            printer.value()?;
            let (key, value) = (key..colon, colon + 1..printer.out.len());
            members.push(Member { key, value });
            Ok(())
        })?;
        if let Some(ordered) = in_order(&self.out, members) {
            self.out.truncate(start);
            self.out.push_str(&ordered);
        }
        Ok(())
    }

    /// Prints the items of an array or object. The only recursion, at most [`MAX_DEPTH`] deep.
    fn items(
        &mut self,
        open: char,
        close: char,
        mut item: impl FnMut(&mut Self) -> Result<(), JsonFault>,
    ) -> Result<(), JsonFault> {
        if self.depth == MAX_DEPTH {
            return Err(JsonFault::TooDeep { offset: self.at });
        }
        self.depth += 1;
        self.mark(open, "a bracket is expected")?;
        if self.peek() != Some(close as u8) {
            item(self)?;
            while self.peek() == Some(b',') {
                self.mark(',', "a comma is expected")?;
                item(self)?;
            }
        }
        self.depth -= 1;
        self.mark(close, "a comma or the closing bracket is expected")
    }

    fn string(&mut self) -> Result<(), JsonFault> {
        self.mark('"', "a key in double quotes is expected")?;
        loop {
            let rest = &self.text[self.at..];
            let special = |b| matches!(b, b'"' | b'\\' | 0..0x20);
            let plain = rest.bytes().position(special).unwrap_or(rest.len());
            self.out.push_str(&rest[..plain]);
            self.at += plain;
            match self.byte() {
                Some(b'"') => return self.mark('"', "a quote is expected"),
                Some(b'\\') => self.escape()?,
                _ => return Err(self.syntax("control characters in strings must be escaped")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonFault> {
        match self.text.as_bytes().get(self.at + 1) {
            Some(b'/') => self.out.push('/'),
            Some(b'u') => return self.unicode_escape(),
            Some(&b) if b"\"\\bfnrt".contains(&b) => self.out.extend(['\\', char::from(b)]),
            _ => return Err(self.syntax("unknown escape sequence")),
        }
        self.at += 2;
        Ok(())
    }

    fn unicode_escape(&mut self) -> Result<(), JsonFault> {
        let what = "four hexadecimal digits are expected after \\u";
        let mut code = code_unit(self.text, self.at).ok_or_else(|| self.syntax(what))?;
        self.at += 6;
        if let (0xD800..0xDC00, Some(low @ 0xDC00..0xE000)) = (code, code_unit(self.text, self.at)) {
            self.at += 6;
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        }
        match char::from_u32(code) {
            Some('\u{8}') => self.out.push_str("\\b"),
            Some('\t') => self.out.push_str("\\t"),
            Some('\n') => self.out.push_str("\\n"),
            Some('\u{c}') => self.out.push_str("\\f"),
            Some('\r') => self.out.push_str("\\r"),
            Some(c @ ('"' | '\\')) => self.out.extend(['\\', c]),
            Some(c) if c >= ' ' => self.out.push(c),
            _ => self.out.push_str(&format!("\\u{code:04x}")), // other controls, lone surrogates
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonFault> {
        let offset = self.at;
        self.skip(b"-");
        if !self.skip(b"0") {
            self.digits()?;
        }
        if self.skip(b".") {
            self.digits()?;
        }
        if self.skip(b"eE") {
            self.skip(b"+-");
            self.digits()?;
        }
        let number = float(&self.text[offset..self.at]);
        if !number.is_finite() {
            return Err(JsonFault::InfiniteNumber { offset });
        }
        let mut buffer = ryu_js::Buffer::new();
        self.out.push_str(buffer.format_finite(number));
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonFault> {
        if !self.skip(b"0123456789") {
            return Err(self.syntax("a digit is expected"));
        }
        while self.skip(b"0123456789") {}
        Ok(())
    }

    fn word(&mut self) -> Result<(), JsonFault> {
        let rest = &self.text[self.at..];
        let word = ["true", "false", "null"].into_iter().find(|word| rest.starts_with(word));
        let word = word.ok_or_else(|| self.syntax("a value is expected"))?;
        self.out.push_str(word);
        self.at += word.len();
        Ok(())
    }

    /// Reads and prints a character of the syntax, or fails with the text `what`.
    fn mark(&mut self, mark: char, what: &'static str) -> Result<(), JsonFault> {
        if self.peek() != Some(mark as u8) {
            return Err(self.syntax(what));
        }
        self.at += 1;
        self.out.push(mark);
        Ok(())
    }

    /// Skips white space, and returns the next byte without consuming the byte.
    fn peek(&mut self) -> Option<u8> {
        while self.skip(b" \t\n\r") {}
        self.byte()
    }

    /// Consumes the next byte if `bytes` contains the byte.
    fn skip(&mut self, bytes: &[u8]) -> bool {
        let found = self.byte().is_some_and(|b| bytes.contains(&b));
        self.at += usize::from(found);
        found
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn syntax(&self, what: &'static str) -> JsonFault {
        let offset = self.at;
        let early = "the text ends too early";
        let ended = offset == self.text.len();
        let what = if ended { early } else { what };
        JsonFault::Syntax { offset, what }
    }
}

/// Prints an object's members in Node's order and without duplicates; `None` if the members already are in that order.
///
/// Keys are compared as printed, since each key has a single printed form.
fn in_order(printed: &str, members: Vec<Member>) -> Option<String> {
    let count = members.len();
    let mut places: HashMap<&str, usize> = HashMap::with_capacity(count);
    let mut kept: Vec<Member> = Vec::with_capacity(count);
    for member in members {
        let key = &printed[member.key.clone()];
        match *places.entry(key).or_insert(kept.len()) {
            place if place < kept.len() => kept[place].value = member.value,
            _ => kept.push(member),
        }
    }
    let rank = |member: &Member| array_index(&printed[member.key.clone()]);
    if kept.len() == count && kept.is_sorted_by_key(rank) {
        return None;
    }
    kept.sort_by_key(rank); // stable: keys that are no array index stay in order
    let print = |member: Member| format!("{}:{}", &printed[member.key], &printed[member.value]);
    let printed: Vec<_> = kept.into_iter().map(print).collect();
    Some(format!("{{{}}}", printed.join(",")))
}

/// The array index that ECMAScript reads from a printed key, 0 to 2^32 - 2; `u32::MAX` for any other key.
fn array_index(printed_key: &str) -> u32 {
    let digits = &printed_key[1..printed_key.len() - 1];
    let plain = digits == "0" || digits.starts_with(|first| matches!(first, '1'..='9'));
    let index = if plain { digits.parse().ok() } else { None };
    index.unwrap_or(u32::MAX)
}

/// The 64-bit float nearest to a JSON number.
///
/// The standard library misreads an exponent above 655,360, relevant only to numbers with as many digits. Long numbers
/// are shortened first: 767 digits determine any float, and a further digit replaces the digits cut off.
fn float(number: &str) -> f64 {
    const DIGITS: usize = 800;
    let mut short = Cow::from(number);
    if number.len() > DIGITS {
        let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let joined = [whole, fraction].concat();
        let digits = joined.trim_start_matches(['-', '0']);
        let point = whole.len() as i64 - (joined.len() - digits.len()) as i64;
        let digits = digits.trim_end_matches('0');
        let kept = &digits[..digits.len().min(DIGITS)];
        let rest = u8::from(kept.len() < digits.len());
        let sign = &number[..usize::from(number.starts_with('-'))];
        let huge = [i64::MAX, i64::MIN][usize::from(exponent.starts_with('-'))];
        let exponent = exponent.parse().unwrap_or(huge).saturating_add(point);
        short = format!("{sign}0.{kept}{rest}e{exponent}").into();
    }
    short.parse().unwrap_or(f64::NAN)
}

/// The UTF-16 code unit of the escape `\u` and four digits at byte `at`, if present.
fn code_unit(text: &str, at: usize) -> Option<u32> {
    let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
    let digit = |unit, c: char| Some(unit << 4 | c.to_digit(16)?);
    digits.chars().try_fold(0, digit)
}

#[cfg(test)]
mod tests {
    use super::{JsonFault, MAX_DEPTH, check, compact, print_as_node};
    use proptest::{collection::vec, prelude::*, sample::Index};
    use serde::de::IgnoredAny;

    #[test]
    fn prints_what_node_prints() {
        let table = r#"
             { "a" : [ 1 , true, null ] }          => {"a":[1,true,null]}
            {"b":1,"10":2,"a":3,"9":4}             => {"9":4,"10":2,"b":1,"a":3}
            {"4294967295":1,"4294967294":2,"a":3}  => {"4294967294":2,"4294967295":1,"a":3}
            {"01":1,"-1":2,"":3,"\u0030":4}        => {"0":4,"01":1,"-1":2,"":3}
            {"a":{"x":1},"b":2,"\u0061":3}         => {"a":3,"b":2}
            {"__proto__":1,"a":2,"__proto__":[]}   => {"__proto__":[],"a":2}
            [1.0,-0,-0.0,1E2,0e9,1e-400]           => [1,0,0,100,0,0]
            [1e21,1e20,1e-7,0.000001]              => [1e+21,100000000000000000000,1e-7,0.000001]
            [9007199254740993,5e-324]              => [9007199254740992,5e-324]
            1.7976931348623158e308                 => 1.7976931348623157e+308
            "\/\"\\\b\f\n\r\t\u0022"               => "/\"\\\b\f\n\r\t\""
            "\u0008\u000A\u001F\u0000"             => "\b\n\u001f\u0000"
            "\uD83D\ude00\uD83D\u0041\uDE00"       => "😀\ud83dA\ude00"
        "#;
        for line in table.trim().lines() {
            let (text, printed) = line.trim().split_once(" => ").expect("two columns");
            assert_eq!(print_as_node(text).as_deref(), Ok(printed), "{text}");
        }
        let printed = print_as_node(r#""\u2028\u007F\uFEFFé""#);
        assert_eq!(printed.as_deref(), Ok("\"\u{2028}\u{7f}\u{feff}é\""));
    }

    #[test]
    fn reads_numbers_with_many_digits() {
        let zeros = "0".repeat(1_000_000);
        let half = "9007199254740993"; // halfway between two floats: the even float, unless a digit follows
        for (text, printed) in [
            (format!("-0.{zeros}25e1000001"), "-2.5"),
            (format!("1{zeros}e-1000000"), "1"),
            (format!("1{zeros}e-99999999999999999999"), "0"),
            (format!("{half}.{zeros}"), "9007199254740992"),
            (format!("{half}.{zeros}1"), "9007199254740994"),
        ] {
            assert_eq!(print_as_node(&text).as_deref(), Ok(printed));
        }
    }

    #[test]
    fn an_error_names_the_fault_and_the_place() {
        let syntax = |offset, what| Err(JsonFault::Syntax { offset, what });
        assert_eq!(check("[1,]"), syntax(3, "a value is expected"));
        assert_eq!(check("{\"a\":"), syntax(5, "the text ends too early"));
        let infinite = JsonFault::InfiniteNumber { offset: 2 };
        assert_eq!(check(" [1e400]"), Err(infinite));
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        let deep = nested(MAX_DEPTH - 1);
        assert_eq!(check(&format!("[{deep},{deep}]")), Ok(()));
        let too_deep = JsonFault::TooDeep { offset: MAX_DEPTH };
        assert_eq!(check(&nested(MAX_DEPTH + 1)), Err(too_deep.clone()));
        assert_eq!(check(&"[".repeat(10_000_000)), Err(too_deep));
        let broken = r#"| |01|+1|1.|.5|1e|- 1|nul|NaN|1 2|[1 2]|[1}|{1:2}|{"a" 1}|{"a":1,}|'a'|"a"#;
        let strings = "|\"\t\"|\"\\x\"|\"\\\"|\"\\u+123\"|\"\\ud83d\\u12\"|\u{feff}1|\u{a0}1";
        for text in broken.split('|').chain(strings.split('|')) {
            let fault = check(text).expect_err(text);
            assert!(matches!(fault, JsonFault::Syntax { .. }), "{text}");
        }
    }

    /// JSON texts with repeated keys and white space.
    fn json() -> impl Strategy<Value = String> {
        let number = r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?";
        let string = r#""([a0-9]|\\["/nt\\]|\\u[0dDfF][0-9a-fA-F]{3}|[^"\\\x00-\x1f]){0,3}""#;
        prop_oneof!["true|null", number, string].prop_recursive(6, 60, 6, move |item| {
            let member = (string, " ?: ?", item.clone()).prop_map(|(k, c, v)| k + &c + &v);
            let list = |items: Vec<String>| items.join(" ,\n");
            prop_oneof![
                vec(item, 0..6).prop_map(move |items| format!("[{}]", list(items))),
                vec(member, 0..6).prop_map(move |members| format!("{{{}}}", list(members))),
            ]
        })
    }

    /// Checks the invariants of any text.
    fn holds(text: &str) -> Result<(), TestCaseError> {
        let printed = print_as_node(text);
        prop_assert_eq!(check(text), printed.clone().map(drop));
        if let Ok(printed) = printed {
            let valid = serde_json::from_str::<IgnoredAny>(&printed).is_ok();
            prop_assert!(valid, "{}", printed);
            prop_assert_eq!(print_as_node(&printed), Ok(printed));
        }
        Ok(())
    }

    #[test]
    fn compact_leaves_all_but_the_space_between() {
        let text = " { \"a b\" : [ 1.0 , 1e400 ,\n\"\\\" \\\\\" , \"\\u00e9\" ] }\t";
        assert_eq!(compact(text), r#"{"a b":[1.0,1e400,"\" \\","\u00e9"]}"#);
    }

    proptest! {
        #[test]
        fn compact_means_the_same(text in json()) {
            let compact = compact(&text);
            prop_assert_eq!(print_as_node(&compact), print_as_node(&text));
            prop_assert!(compact.len() <= text.len());
        }

        #[test]
        fn any_text_is_answered(text in json(), noise in r#"\PC{0,3}|[\[{"\\,:}\]0-9.e-]{1,3}"#, at: Index) {
            prop_assert_eq!(check(&text), Ok(()));
            holds(&text)?;
            let mut chars: Vec<char> = text.chars().collect();
            let at = at.index(chars.len());
            chars.splice(at..=at, noise.chars());
            holds(&String::from_iter(chars))?;
            holds(&noise)?;
        }
    }
}
