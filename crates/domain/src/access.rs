//! Access to the API and the pages: keys, sessions, and rules from groups or names to rights.

pub mod api_key;
pub mod client_address;
pub mod session;

use std::str::FromStr;

use crate::{
    access::session::{Right, Rights},
    ids::ApplicationId,
};

/// Access to the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// All applications, with all rights.
    Administrator,
    /// All applications, without the right to change anything.
    Look,
    /// An application, with all rights.
    Application(ApplicationId),
}

impl Access {
    /// The application of the access; `None` for all applications.
    pub fn application(self) -> Option<ApplicationId> {
        match self {
            Self::Administrator | Self::Look => None,
            Self::Application(application) => Some(application),
        }
    }

    /// The rights of the access.
    pub fn rights(self) -> Rights {
        match self {
            Self::Administrator | Self::Application(_) => Right::ALL.into_iter().collect(),
            Self::Look => Rights::look_only(),
        }
    }
}

/// A rule: a word, such as a group, and its access. The text is `word=admin`, `word=look` or `word=app_…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The group or the name.
    pub word: String,
    /// The access of visitors with the word.
    pub access: Access,
}

/// The text is no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a rule like group=admin, group=look or group=app_…")]
pub struct InvalidRule;

impl FromStr for Rule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        // Groups of directories hold `=`, as in `cn=operators`.
        let (word, access) = text.rsplit_once('=').ok_or(InvalidRule)?;
        let access = match access.trim() {
            "admin" => Access::Administrator,
            "look" => Access::Look,
            id => Access::Application(id.parse().map_err(|_| InvalidRule)?),
        };
        let word = word.trim();
        if word.is_empty() { Err(InvalidRule) } else { Ok(Self { word: word.to_owned(), access }) }
    }
}

/// The access of a visitor with these words: of the first rule that names one of them. `None` without such a rule.
pub fn access(rules: &[Rule], words: &[&str]) -> Option<Access> {
    rules.iter().find(|rule| words.contains(&rule.word.as_str())).map(|rule| rule.access)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(text: &str) -> Vec<Rule> {
        text.split(',').map(|rule| rule.parse().expect("a rule")).collect()
    }

    proptest! {
        #[test]
        fn only_named_words_have_access(words in proptest::collection::vec("[a-z]{1,3}", 0..4)) {
            let rules = rules("ops=admin,all=look");
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let expected = match (words.contains(&"ops"), words.contains(&"all")) {
                (true, _) => Some(Access::Administrator),
                (false, true) => Some(Access::Look),
                (false, false) => None,
            };
            prop_assert_eq!(access(&rules, &words), expected);
        }

        #[test]
        fn any_text_is_a_rule_or_none(text: String) {
            if let Ok(rule) = text.parse::<Rule>() {
                prop_assert!(text.contains(&rule.word) && !rule.word.is_empty());
            }
        }
    }

    #[test]
    fn reads_rules() {
        let id = "app_01h455vb4pex5vsknk084sn02q";
        let rules = rules(&format!("cn=ops =admin, team={id}"));
        assert_eq!((rules[0].word.as_str(), rules[0].access), ("cn=ops", Access::Administrator));
        assert_eq!(rules[1].access.application().map(|id| id.to_string()).as_deref(), Some(id));
        assert!(Access::Look.rights().are_look_only() && !rules[1].access.rights().are_look_only());
        for wrong in ["ops", "=admin", "ops=", "ops=root", "ops=app_x"] {
            assert_eq!(wrong.parse::<Rule>(), Err(InvalidRule), "{wrong}");
        }
    }
}
