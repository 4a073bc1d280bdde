//! `print_as_node` against Node, byte for byte: thousands of generated JSON texts, valid and invalid, and GitHub's
//! example payloads.
//!
//! All runs use the same texts; `FANFARE_TEST_SEED=7` generates others.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use fanfare_domain::json::{JsonFault, check, print_as_node};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::value::RawValue;

const RANDOM_TEXTS: usize = 8_000;

#[test]
fn prints_what_node_prints() -> Result<()> {
    let seed = match std::env::var("FANFARE_TEST_SEED") {
        Ok(seed) => seed.parse().context("FANFARE_TEST_SEED is not a number")?,
        Err(_) => 1,
    };
    let mut nasty = Nasty(StdRng::seed_from_u64(seed));
    let mut texts: Vec<String> = (0..RANDOM_TEXTS).map(|_| nasty.text()).collect();
    texts.extend(edges_of_floats());
    for _ in 0..4 {
        texts.push(nasty.readable(|it| it.big_object(3_000)));
        texts.push(nasty.readable(|it| it.alike_objects(300)));
    }
    texts.extend(octokit()?);

    let answers = ask_node(&texts)?;
    let mut counts = (0, 0, 0);
    for (text, node) in texts.iter().zip(answers) {
        let ours = print_as_node(text);
        ensure!(check(text) == ours.clone().map(drop), "check and print differ on {text:?}");
        match ours {
            Ok(printed) => {
                counts.0 += 1;
                ensure!(Some(&printed) == node.as_ref(), "{text:?}\nwe:   {printed:?}\nNode: {node:?}");
                ensure!(print_as_node(&printed).as_ref() == Ok(&printed), "not stable: {printed:?}");
            }
            Err(fault @ JsonFault::Syntax { .. }) => {
                counts.1 += 1;
                ensure!(node.is_none(), "{text:?}\nwe:   {fault}\nNode: {node:?}");
            }
            Err(JsonFault::TooDeep { .. } | JsonFault::InfiniteNumber { .. }) => counts.2 += 1,
        }
    }
    // A generator of a single kind of text would prove little.
    ensure!(counts.0 > 4_000 && counts.1 > 1_500 && counts.2 > 20, "printed, broken, ours alone: {counts:?}");
    Ok(())
}

/// Node's output for each text; `None` if Node throws.
fn ask_node(texts: &[String]) -> Result<Vec<Option<String>>> {
    let lines: Result<Vec<_>, _> = texts.iter().map(serde_json::to_string).collect();
    let answers = run_node("stringify.mjs", lines?.join("\n"))?;
    let answers: Vec<Option<String>> = answers.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(answers.len() == texts.len(), "Node answered {} of {} texts", answers.len(), texts.len());
    Ok(answers)
}

/// GitHub's payloads as JSON texts, with keys in the original order.
fn octokit() -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Example {
        payload: Box<RawValue>,
    }
    let payload = |line| Ok(serde_json::from_str::<Example>(line)?.payload.get().to_owned());
    run_node("octokit.mjs", String::new())?.lines().map(payload).collect()
}

fn run_node(program: &str, input: String) -> Result<String> {
    const MISSING: &str =
        "Node 18 or later and the packages of tests/clients/node are needed: run `make test`, which installs both";
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients/node");
    ensure!(folder.join("node_modules").is_dir(), MISSING);
    let mut node = Command::new("node");
    let node = node.arg(folder.join(program)).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut node = node.spawn().context(MISSING)?;
    let mut stdin = node.stdin.take().context("no stdin")?;
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = node.wait_with_output()?;
    ensure!(output.status.success(), "{program} failed: {}", output.status);
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    Ok(String::from_utf8(output.stdout)?)
}

/// Powers of two and of ten with their neighbours, whose shortest decimal form is hard to compute.
fn edges_of_floats() -> Vec<String> {
    let twos = (0..=2046u64).map(|exponent| f64::from_bits(exponent << 52));
    let tens = (-324..=308).filter_map(|exponent| format!("1e{exponent}").parse().ok());
    let near = |float: f64| [float.next_down(), float, float.next_up()];
    let floats = twos.chain(tens).flat_map(near);
    let texts: Vec<String> = floats.map(|float| format!("{float:e}")).collect();
    let list = |chunk: &[String]| format!("[{}]", chunk.join(","));
    texts.chunks(100).map(list).collect()
}

/// A generator of unusual JSON texts, valid and invalid.
struct Nasty(StdRng);

impl Nasty {
    fn text(&mut self) -> String {
        let mut text = self.space();
        match self.0.random_range(0..50) {
            0 => {
                let depth = self.0.random_range(80..120);
                text += &(["[", "{\"a\":"][depth % 2].repeat(depth) + "1" + &["]", "}"][depth % 2].repeat(depth));
            }
            1 => text += &self.alike_objects(5),
            _ => text += &self.value(4),
        }
        text += &self.space();
        if self.0.random_ratio(1, 3) { self.broken(text) } else { text }
    }

    fn value(&mut self, depth: usize) -> String {
        match self.0.random_range(0..if depth == 0 { 6 } else { 12 }) {
            0 => self.pick(&["true", "false", "null"]).to_owned(),
            1 | 2 => self.number(),
            3..6 => self.string(),
            6..8 => {
                let items = self.0.random_range(0..5);
                let items: Vec<_> = (0..items).map(|_| self.spaced(|it| it.value(depth - 1))).collect();
                format!("[{}]", if items.is_empty() { self.space() } else { items.join(",") })
            }
            _ => {
                let members = self.0.random_range(0..9);
                let members: Vec<_> = (0..members).map(|_| self.member(depth - 1)).collect();
                format!("{{{}}}", if members.is_empty() { self.space() } else { members.join(",") })
            }
        }
    }

    fn member(&mut self, depth: usize) -> String {
        self.spaced(Self::key) + ":" + &self.spaced(|it| it.value(depth))
    }

    /// A key from a short list, so that keys repeat, with random escapes.
    fn key(&mut self) -> String {
        const KEYS: &[&str] = &[
            "a",
            "b",
            "id",
            "",
            "__proto__",
            "constructor",
            "toJSON",
            "length",
            "é",
            "\u{2028}",
            "😀",
            "0",
            "1",
            "2",
            "9",
            "10",
            "00",
            "01",
            "-0",
            "-1",
            "1.0",
            "1e3",
            " 1",
            "1 ",
            "+1",
            "2147483647",
            "2147483648",
            "4294967293",
            "4294967294",
            "4294967295",
            "4294967296",
            "9007199254740991",
            "9007199254740993",
            "18446744073709551616",
            "Infinity",
            "NaN",
            "١",
        ];
        match self.0.random_range(0..10) {
            0 => self.string(),
            1 => format!("\"{}\"", self.0.random_range(0..200)),
            _ => {
                let key = self.pick(KEYS).to_owned();
                let spelt: String = key.chars().map(|c| self.spelt(c)).collect();
                format!("\"{spelt}\"")
            }
        }
    }

    fn string(&mut self) -> String {
        let pieces = self.0.random_range(0..8);
        let pieces: String = (0..pieces).map(|_| self.piece()).collect();
        format!("\"{pieces}\"")
    }

    fn piece(&mut self) -> String {
        const ESCAPES: &[&str] = &["\\\"", "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t", "/", "'", "<", "\u{7f}"];
        match self.0.random_range(0..6) {
            0 => self.pick(ESCAPES).to_owned(),
            1 => self.unit(0..0x80),
            2 => self.unit(0..0x10000),
            3 => self.unit(0xD7F0..0xE010),
            4 => self.unit(0xD800..0xDC00) + &self.unit(0xDC00..0xE000),
            _ => {
                let c = char::from_u32(self.0.random_range(0x20..0x11000)).unwrap_or('\u{2029}');
                self.spelt(c)
            }
        }
    }

    fn unit(&mut self, range: std::ops::Range<u32>) -> String {
        let unit = self.0.random_range(range);
        if self.0.random() { format!("\\u{unit:04x}") } else { format!("\\u{unit:04X}") }
    }

    /// A character, plain or escaped.
    fn spelt(&mut self, c: char) -> String {
        if self.0.random_ratio(4, 5) && !matches!(c, '"' | '\\' | '\0'..' ') {
            return c.to_string();
        }
        c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
    }

    fn number(&mut self) -> String {
        const NUMBERS: &[&str] = &[
            "0",
            "-0",
            "-0.0",
            "0e0",
            "-0E-5",
            "1E+0002",
            "1e21",
            "1e20",
            "999999999999999999999",
            "1e-6",
            "1e-7",
            "9007199254740993",
            "9223372036854775807",
            "18446744073709551615",
            "123456789012345678901234567890",
            "5e-324",
            "2e-324",
            "2.4703282292062328e-324",
            "2.2250738585072011e-308",
            "1e-400",
            "0.1e1",
            "4.35",
            "1.7976931348623157e308",
            "1.7976931348623158e308",
            "1e308",
            "-1e308",
            "1e99999999999",
            "1e-99999999999",
            "0e99999999999",
            "1073741823",
            "1073741824",
            "-1073741825",
            "2147483648",
            "-2147483649",
        ];
        match self.0.random_range(0..9) {
            0..2 => self.pick(NUMBERS).to_owned(),
            2 => self.0.random_range(-1000..1000).to_string(),
            3 => self.0.random::<i64>().to_string(),
            4 => {
                let float = f64::from_bits(self.0.random());
                if float.is_finite() { format!("{float:e}") } else { "1.5".to_owned() }
            }
            5 => format!("{:.20}", self.0.random_range(-1e6..1e6)),
            7 => self.halfway(),
            6 => format!("{}.{}", self.0.random::<u16>(), self.0.random::<u64>()),
            _ => {
                let sign = self.pick(&["", "-"]);
                let (whole, fraction) = (self.digits(900), self.digits(900));
                let (e, exponent) = (self.pick(&["e", "E+", "e-", "E-"]), self.0.random_range(0..300));
                format!("{sign}1{whole}.0{fraction}{e}{exponent}")
            }
        }
    }

    /// A number exactly between two floats, or slightly above: 54 bits with the last bit set.
    fn halfway(&mut self) -> String {
        let odd = self.0.random_range(1u128 << 53..1 << 54) | 1;
        let power = self.0.random_range(0..31);
        let upwards = self.0.random();
        let (digits, exponent) = if upwards { (odd << power, 0) } else { (odd * 5u128.pow(power), power) };
        let zeros = "0".repeat(self.pick(&[1, 1, 20, 770, 1500]));
        let more = self.pick(&["", "1"]);
        format!("{digits}.{zeros}{more}e-{exponent}")
    }

    /// A run of digits, usually short.
    fn digits(&mut self, most: usize) -> String {
        let most = if self.0.random_ratio(1, 10) { most } else { 20 };
        let many = self.0.random_range(0..most);
        let digit = self.pick(&["0", "9", "1234567890", "5"]);
        digit.repeat(many).chars().take(many).collect()
    }

    fn spaced(&mut self, write: impl FnOnce(&mut Self) -> String) -> String {
        self.space() + &write(self) + &self.space()
    }

    fn space(&mut self) -> String {
        self.pick(&["", "", "", "", " ", "\n", "\r\n", "\t  "]).to_owned()
    }

    /// Changes a text in a single place, which usually breaks the syntax.
    fn broken(&mut self, mut text: String) -> String {
        const SNIPPETS: &[&str] = &[
            "\"", "\\", "\\u", "\\x", ",", ":", "{", "}", "[", "]", "0", "-", "+", ".", "e", " ", "\n", "\u{0}",
            "\u{a0}", "\u{feff}", "\u{2028}", "nul", "true", "NaN", "Infinity", "'", "/**/", "\u{1f}", "\u{b}",
            "\u{c}", "é", "1",
        ];
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let (place, other) = (self.pick(&places), self.pick(&places));
        match self.0.random_range(0..4) {
            0 => text.insert_str(place, self.pick(SNIPPETS)),
            1 => text.truncate(place),
            2 => drop(text.drain(place.min(other)..place.max(other))),
            _ => {
                let end = place + text[place..].chars().next().map_or(0, char::len_utf8);
                text.replace_range(place..end, self.pick(SNIPPETS));
            }
        }
        text
    }

    /// An object with so many keys that V8 uses dictionary mode. Each key occurs about twice.
    fn big_object(&mut self, keys: usize) -> String {
        let prefixes = ["k", "", "-", "42949"];
        let key = |it: &mut Self| format!("\"{}{}\"", it.pick(&prefixes), it.0.random_range(0..keys));
        let members: Vec<_> = (0..keys * 8).map(|_| key(self) + ":" + &self.readable(Self::number)).collect();
        format!("{{{}}}", members.join(","))
    }

    /// Objects of the same shape with different values, which V8 parses on a special path.
    fn alike_objects(&mut self, many: usize) -> String {
        let keys: Vec<_> = (0..6).map(|_| self.key()).collect();
        let mut object = |_| {
            let members: Vec<_> = keys.iter().map(|key| format!("{key}:{}", self.readable(|it| it.value(1)))).collect();
            format!("{{{}}}", members.join(","))
        };
        let objects: Vec<_> = (0..many).map(&mut object).collect();
        format!("[{}]", objects.join(","))
    }

    /// A text that `check` accepts. A large text would certainly contain a number that `check` refuses.
    fn readable(&mut self, write: impl Fn(&mut Self) -> String) -> String {
        let readable = |text: &String| check(text).is_ok();
        let text = (0..100).map(|_| write(self)).find(readable);
        text.expect("an accepted text within a hundred tries")
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        *of.choose(&mut self.0).expect("something to pick from")
    }
}
