//! Rows for people, and JSON for programs.

use serde_json::Value;

/// Prints an entry: as JSON, or the members at these paths in columns of at least these widths.
pub(super) fn print(prints_json: bool, entry: &Value, columns: &[(&str, usize)]) {
    if prints_json {
        println!("{entry}");
        return;
    }
    let cells: Vec<String> =
        columns.iter().map(|(path, width)| format!("{:<width$}", text(entry.pointer(path)), width = *width)).collect();
    println!("{}", cells.join("  ").trim_end());
}

/// A member as text. Control characters are shown as escapes: texts of strangers must not steer a terminal.
pub(super) fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text
            .chars()
            .flat_map(|letter| if letter.is_control() { letter.escape_default().collect() } else { vec![letter] })
            .collect(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_cannot_steer_the_terminal() {
        assert_eq!(text(Some(&json!("a\u{1b}[2Jö\n"))), "a\\u{1b}[2Jö\\n");
        assert_eq!((text(None), text(Some(&Value::Null)), text(Some(&json!(3)))), ("-".into(), "-".into(), "3".into()));
    }
}
