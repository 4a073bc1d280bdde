//! Display names.

/// Maximum length of a name, in bytes.
const MAX_LENGTH: usize = 200;

/// The text is not a display name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to {MAX_LENGTH} bytes that are not all blank, without control characters")]
pub struct InvalidDisplayName;

/// Checks a display name.
///
/// # Errors
/// If the name is blank, longer than 200 bytes, or contains a control character.
pub fn check_display_name(label: &str) -> Result<(), InvalidDisplayName> {
    let is_sound = !label.trim().is_empty() && label.len() <= MAX_LENGTH && !label.chars().any(char::is_control);
    if is_sound { Ok(()) } else { Err(InvalidDisplayName) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_for_people() {
        for label in ["a", "Bestellungen für Köln", &"a".repeat(200)] {
            assert_eq!(check_display_name(label), Ok(()));
        }
        for label in ["", "  ", "a\tb", "a\0", &"a".repeat(201)] {
            assert_eq!(check_display_name(label), Err(InvalidDisplayName), "{label:?}");
        }
    }
}
