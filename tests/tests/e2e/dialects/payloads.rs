//! Payloads that stress JSON parsers, printers, storage and signatures.

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

/// JSON as the publisher writes the text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Payload {
    pub(crate) text: String,
    /// The same text without whitespace between tokens, as the dialects with `as_sent` deliver the payload.
    pub(crate) compact: String,
}

/// Nesting of the deepest payloads. The limit is 100 levels, including the event itself.
const DEPTH: usize = 90;

/// The first payloads of every receiver.
const FIXED: [&str; 21] = [
    "null",
    "false",
    "0",
    "-0",
    "9007199254740993",
    "5e-324",
    r#""""#,
    r#""\u0000""#,
    r#""\ud800""#,
    "[]",
    "{}",
    r#"{"":""}"#,
    r#"{"10":1,"9":2,"b":3,"a":4,"1":5,"01":6,"-1":7}"#,
    r#"{"a":1,"b":2,"a":3,"\u0061":4}"#,
    r#"{"__proto__":{"polluted":true},"constructor":{"prototype":null},"toJSON":"no"}"#,
    r#"{"data":{"timestamp":"2026-06-18T12:00:00.000Z"},"timestamp":1,"event":"data","id":null}"#,
    r#"["1.0",1.0,-0,-0.0,1e21,1E+20,1e-7,0.000001,9007199254740993,5e-324,1.7976931348623157e308]"#,
    r#"["<event_id>","<data>","<time>","<signature>","<body>","sha256=","\"}"]"#,
    "[\"\\u2028\\u2029\",\"\u{2028}\u{2029}\",\"\\ud83d\\ude00\",\"😀\",\"\\udc00\\ud83d\"]",
    "[\"\\/\\\"\\\\\\b\\f\\n\\r\\t\",\"\\u001f\",\"\u{7f}\",\"\\u007F\"]",
    "{\"e\\u0301\":1,\"é\":2,\"e\u{301}\":3,\"\\u00E9\":4,\"\\uFEFF\":5,\"\u{feff}\":6}",
];

const KEYS: [&str; 32] = [
    "a",
    "b",
    "id",
    "type",
    "event",
    "data",
    "timestamp",
    "",
    "__proto__",
    "constructor",
    "toJSON",
    "length",
    "é",
    "e\u{301}",
    "\u{2028}",
    "😀",
    r"\u0000",
    r"\u0061",
    r"\ud800",
    r"\/",
    "0",
    "1",
    "2",
    "10",
    "9",
    "00",
    "-0",
    "1.0",
    "4294967294",
    "4294967295",
    "9007199254740993",
    "<data>",
];

const NUMBERS: [&str; 36] = [
    "0",
    "-0",
    "1",
    "-1",
    "1.0",
    "-0.0",
    "0.0",
    "0e0",
    "0E-5",
    "10",
    "1e1",
    "1E+0002",
    "1e20",
    "1e21",
    "-1e21",
    "1e-6",
    "1e-7",
    "0.1",
    "0.30000000000000004",
    "4.35",
    "100.00",
    "9007199254740991",
    "9007199254740993",
    "9223372036854775807",
    "18446744073709551616",
    "123456789012345678901234567890",
    "5e-324",
    "2e-324",
    "1e-400",
    "2.2250738585072011e-308",
    "1.7976931348623157e308",
    "-1.7976931348623157e308",
    "0e99999999999",
    "2147483648",
    "-2147483649",
    "1e308",
];

/// Fragments of strings, as written between the quotes.
const PIECES: [&str; 36] = [
    "a",
    " ",
    "\u{7f}",
    "é",
    "e\u{301}",
    "ß",
    "漢字",
    "\u{200d}",
    "\u{202e}",
    "\u{2028}",
    "\u{2029}",
    "\u{feff}",
    "\u{fffd}",
    "\u{ffff}",
    "😀",
    "👩\u{200d}🚀",
    "\u{10ffff}",
    r#"\""#,
    r"\\",
    r"\/",
    r"\b",
    r"\f",
    r"\n",
    r"\r",
    r"\t",
    r"\u0000",
    r"\u001f",
    r"\u007F",
    r"\u2028",
    r"\u0041",
    r"\uD83D\uDE00",
    r"\ud800",
    r"\udfff",
    r"\udc00\ud800",
    "</script>",
    r#"{\"}"#,
];

/// Whitespace between two tokens.
const SPACES: [&str; 8] = ["", "", " ", "\n", "\t", "\r\n", "  \t", "\n\n "];

/// A generator of payloads, deterministic for a seed.
pub(crate) struct Payloads {
    random: StdRng,
    fixed: std::slice::Iter<'static, &'static str>,
    payload: Payload,
}

impl Payloads {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), fixed: FIXED.iter(), payload: Payload::default() }
    }

    /// Restarts the fixed payloads. The random sequence continues.
    pub(crate) fn begin_anew(&mut self) {
        self.fixed = FIXED.iter();
    }

    fn value(&mut self, depth: usize) {
        match self.random.random_range(0..if depth == 0 { 6 } else { 12 }) {
            0 => self.one_of(&["true", "false", "null"]),
            1 | 2 => self.number(),
            3..6 => self.string(6),
            6..8 => self.array(depth),
            _ => self.object(8, depth),
        }
    }

    fn array(&mut self, depth: usize) {
        let items = self.random.random_range(0..6);
        self.list(("[", "]"), items, |it| it.value(depth - 1));
    }

    fn object(&mut self, most: usize, depth: usize) {
        let members = self.random.random_range(0..=most);
        self.list(("{", "}"), members, |it| {
            it.key();
            it.part(":");
            it.value(depth - 1);
        });
    }

    fn list(&mut self, (open, close): (&str, &str), count: usize, mut item: impl FnMut(&mut Self)) {
        self.part(open);
        for number in 0..count {
            if number > 0 {
                self.part(",");
            }
            item(self);
        }
        self.part(close);
    }

    /// Appends a key. Most keys are picked from a short list, so that keys repeat within an object.
    fn key(&mut self) {
        match self.random.random_range(0..8) {
            0 => self.string(3),
            1 => {
                let number: u8 = self.random.random();
                self.part(&format!("\"{number}\""));
            }
            _ => {
                let key = self.pick(&KEYS);
                self.part(&format!("\"{key}\""));
            }
        }
    }

    fn string(&mut self, most: usize) {
        let pieces = self.random.random_range(0..=most);
        let pieces: String = (0..pieces).map(|_| self.pick(&PIECES)).collect();
        self.part(&format!("\"{pieces}\""));
    }

    fn number(&mut self) {
        let number = match self.random.random_range(0..6) {
            0 => self.random.random::<i64>().to_string(),
            1 => format!("{:e}", self.random.random_range(-1e25..1e25)),
            2 => format!("{:.20}", self.random.random_range(-1e3..1e3)),
            3 => {
                let (digits, zeros) = (self.random.random::<u64>(), self.random.random_range(0..280));
                format!("{digits}{}.0{digits}E-{}", "0".repeat(zeros), self.random.random_range(0..330))
            }
            _ => self.pick(&NUMBERS).to_owned(),
        };
        self.part(&number);
    }

    /// Appends nested arrays and objects.
    fn deep(&mut self) {
        let depth = self.random.random_range(DEPTH / 2..=DEPTH);
        let brackets: Vec<bool> = (0..depth).map(|_| self.random.random()).collect();
        for &is_object in &brackets {
            self.part(if is_object { "{" } else { "[" });
            if is_object {
                self.key();
                self.part(":");
            }
        }
        self.value(0);
        for &is_object in brackets.iter().rev() {
            self.part(if is_object { "}" } else { "]" });
        }
    }

    fn one_of(&mut self, parts: &[&str]) {
        let part = self.pick(parts);
        self.part(part);
    }

    fn part(&mut self, part: &str) {
        let space = self.pick(&SPACES);
        self.payload.text += space;
        self.payload.text += part;
        self.payload.compact += part;
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from.choose(&mut self.random).expect("something to pick from")
    }
}

impl Iterator for Payloads {
    type Item = Payload;

    fn next(&mut self) -> Option<Payload> {
        match (self.fixed.next(), self.random.random_range(0..40)) {
            (Some(fixed), _) => self.part(fixed),
            (None, 0) => self.deep(),
            (None, 1) => self.string(4_000),
            // More keys than V8 stores with a hidden class: such an object is a hash table there.
            (None, 2) => self.object(1_500, 1),
            (None, _) => self.value(4),
        }
        let end = self.pick(&SPACES);
        self.payload.text += end;
        Some(std::mem::take(&mut self.payload))
    }
}
