//! Sentences about refused texts.

use cel::ParseErrors;

use super::ExpressionFault;

/// Signs of other languages, and their form here.
const OTHER_SIGNS: [(&str, &str); 8] = [
    ("=", "compare by =="),
    ("and", "join conditions by &&"),
    ("AND", "join conditions by &&"),
    ("or", "join conditions by ||"),
    ("OR", "join conditions by ||"),
    ("not", "negate by !"),
    ("<>", "write unequal as !="),
    ("===", "compare by =="),
];

/// The first error of the parser, in words of ours.
pub(super) fn of_parser(text: &str, errors: &ParseErrors) -> ExpressionFault {
    let Some(error) = errors.errors.first() else { return ExpressionFault::new(0, "cannot be read") };
    let (line, column) = error.pos;
    let line_start: usize =
        text.split_inclusive('\n').take(usize::try_from(line - 1).unwrap_or(0)).map(|line| line.chars().count()).sum();
    let at = line_start + usize::try_from(column - 1).unwrap_or(0);
    if error.msg.contains("Recursion limit") {
        return ExpressionFault::new(at, "nested too deep");
    }
    let rest: String = text.chars().skip(at).collect();
    if rest.trim().is_empty() {
        return ExpressionFault::new(text.trim_end().chars().count(), "the text ends too early: a value is missing");
    }
    let is_word = |character: &char| character.is_alphanumeric() || *character == '_';
    let first = rest.chars().next().unwrap_or(' ');
    let word: String = if is_word(&first) {
        rest.chars().take_while(is_word).collect()
    } else {
        rest.chars().take_while(|character| "=<>!&|".contains(*character)).collect()
    };
    let found = if word.is_empty() { first.to_string() } else { word };
    // The parser reports the sign behind an unknown sign.
    let before: String = text.chars().take(at).collect();
    let hint = hint(&found).or_else(|| before.trim_end().ends_with('=').then(|| hint("=")).flatten());
    let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
    let reason = match first {
        '"' | '\'' if rest.matches(first).count() % 2 == 1 => "the text has no closing quote".to_owned(),
        _ => format!("`{}` is not expected here{hint}", short(&found)),
    };
    ExpressionFault::new(at, reason)
}

fn hint(found: &str) -> Option<&'static str> {
    OTHER_SIGNS.iter().find(|(sign, _)| *sign == found).map(|(_, hint)| *hint)
}

/// Hint for an unknown name.
pub(super) fn of_name(name: &str, names: &[&str]) -> String {
    match hint(name) {
        Some(hint) => hint.to_owned(),
        None if matches!(name, "True" | "False" | "TRUE" | "FALSE") => format!("write {}", name.to_ascii_lowercase()),
        None => {
            let others = names.get(1..).unwrap_or_default();
            let verb = if others.len() > 1 { "are" } else { "is" };
            format!(
                "a member of the event's data is data.{}, a text is in quotes, and the event's {} {verb} {}",
                short(name),
                others.join(", "),
                others.join(", ")
            )
        }
    }
}

/// Start of a name.
pub(super) fn short(name: &str) -> String {
    name.chars().take(50).collect()
}
