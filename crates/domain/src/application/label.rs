//! Labels of applications: pairs by which operators find and sum up applications.

use std::collections::BTreeMap;

/// Maximum number of labels of an application.
const MAX_LABELS: usize = 16;

/// Maximum length of a key, in bytes.
const MAX_KEY: usize = 63;

/// Maximum length of a value, in characters.
const MAX_VALUE: usize = 128;

/// The labels of an application, or a label in a filter, are not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelFault {
    /// Too many labels.
    #[error("must have at most {MAX_LABELS} labels, and has {0}")]
    TooMany(usize),
    /// A key with other characters, or of another length.
    #[error("has the key {0:?}: a key must have 1 to {MAX_KEY} small letters, digits and `. _ / -`")]
    Key(String),
    /// A value that is too long, or with control characters.
    #[error("has a value under {0:?} that must have at most {MAX_VALUE} characters, none of them a control character")]
    Value(String),
    /// A filter without a colon.
    #[error("must be a key and a value with a colon between them, such as region:eu")]
    NoPair,
}

/// Checks the labels of an application.
///
/// # Errors
/// If an application has too many labels, or a key or value is not valid.
pub fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), LabelFault> {
    if labels.len() > MAX_LABELS {
        return Err(LabelFault::TooMany(labels.len()));
    }
    labels.iter().try_for_each(|(key, value)| check(key, value))
}

/// Parses a filter by a label, `key:value`. A key has no colon, so that a value may have colons.
///
/// # Errors
/// If the text has no colon, or no application can have such a label.
pub fn parse_label(text: &str) -> Result<(&str, &str), LabelFault> {
    let (key, value) = text.split_once(':').ok_or(LabelFault::NoPair)?;
    check(key, value).map(|()| (key, value))
}

fn check(key: &str, value: &str) -> Result<(), LabelFault> {
    let is_permitted = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._/-".contains(&byte);
    if key.is_empty() || key.len() > MAX_KEY || !key.bytes().all(is_permitted) {
        return Err(LabelFault::Key(key.chars().take(MAX_KEY + 1).collect()));
    }
    // The search ends early in a long value.
    if value.chars().nth(MAX_VALUE).is_some() || value.chars().any(char::is_control) {
        return Err(LabelFault::Value(key.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, String> {
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn faults_name_the_label() {
        assert_eq!(check_labels(&labels([("billing/customer-id", "Größe:1"), ("a", "")])), Ok(()));
        let long = "ö".repeat(128);
        assert_eq!(check_labels(&labels([("a", long.as_str())])), Ok(()));
        let too_long = "ö".repeat(129);
        assert_eq!(check_labels(&labels([("a", too_long.as_str())])), Err(LabelFault::Value("a".to_owned())));
        assert_eq!(check_labels(&labels([("Region", "eu")])), Err(LabelFault::Key("Region".to_owned())));
        assert_eq!(check_labels(&labels([("a", "b\nc")])), Err(LabelFault::Value("a".to_owned())));
        let many: BTreeMap<String, String> = (0..17).map(|number| (format!("k{number}"), String::new())).collect();
        assert_eq!(check_labels(&many), Err(LabelFault::TooMany(17)));
        assert_eq!(parse_label("region"), Err(LabelFault::NoPair));
    }

    proptest! {
        /// The text of each permitted label is a filter that finds the label.
        #[test]
        fn each_label_can_be_found(key in "[a-z0-9._/-]{1,63}", value in "[^\\p{C}]{0,128}") {
            prop_assert_eq!(check_labels(&labels([(key.as_str(), value.as_str())])), Ok(()));
            let filter = format!("{key}:{value}");
            prop_assert_eq!(parse_label(&filter), Ok((key.as_str(), value.as_str())));
        }

        /// No text breaks the check, and a filter permits exactly what an application may have.
        #[test]
        fn filters_permit_the_labels_of_applications(text in "\\PC{0,80}") {
            if let Ok((key, value)) = parse_label(&text) {
                prop_assert_eq!(check_labels(&labels([(key, value)])), Ok(()));
            }
        }
    }
}
