//! Rows for people, and JSON for programs.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write},
    process,
};

use serde_json::Value;

/// Prints a line. Ends the command if the reader of a pipe has read enough, as users of a shell expect.
pub(crate) fn line(text: impl Display) {
    if let Err(error) = writeln!(io::stdout(), "{text}") {
        if error.kind() == ErrorKind::BrokenPipe {
            process::exit(0);
        }
        eprintln!("cannot write to the standard output: {error}");
        process::exit(1);
    }
}

/// Prints an entry: as JSON, or the members at these paths in columns of at least these widths.
pub(super) fn print(prints_json: bool, entry: &Value, columns: &[(&str, usize)]) {
    if prints_json {
        line(printable(&entry.to_string()));
        return;
    }
    let cells: Vec<String> =
        columns.iter().map(|(path, width)| format!("{:<width$}", text(entry.pointer(path)), width = *width)).collect();
    line(cells.join("  ").trim_end());
}

/// Prints a value whole: as JSON in a line, or in lines for people.
pub(super) fn print_all(prints_json: bool, value: &Value) -> anyhow::Result<()> {
    let text = if prints_json { value.to_string() } else { serde_json::to_string_pretty(value)? };
    text.lines().for_each(|text| line(printable(text)));
    Ok(())
}

/// A member as text.
pub(super) fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => printable(text),
        Some(other) => printable(&other.to_string()),
    }
}

/// The text with escapes for control characters and for characters that change the direction of writing: texts of
/// strangers must not steer a terminal. In JSON, the escapes mean the same text.
pub(super) fn printable(text: &str) -> String {
    let steers = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match steers(letter) {
            true => shown.push_str(&format!("\\u{:04x}", u32::from(letter))),
            false => shown.push(letter),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_cannot_steer_the_terminal() {
        assert_eq!(text(Some(&json!("a\u{1b}[2Jö\n\u{9b}\u{202e}"))), "a\\u001b[2Jö\\u000a\\u009b\\u202e");
        assert_eq!((text(None), text(Some(&Value::Null)), text(Some(&json!(3)))), ("-".into(), "-".into(), "3".into()));
        let json = json!({ "text": "\u{9b}\u{202e}" });
        assert_eq!(serde_json::from_str::<Value>(&printable(&json.to_string())).expect("JSON"), json);
    }
}
