//! Sessions of the web pages, and their rights.

use std::{fmt, str::FromStr, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    ids::{ApplicationId, KeyId, SessionId},
    theme::Theme,
};

/// Time from the sign-in to the end of a session of the console.
pub const CONSOLE_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// Time from the last request to the end of a session of the console.
pub const CONSOLE_IDLE: Duration = Duration::from_secs(2 * 3600);

/// The pages of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Face {
    /// Pages for operators and a company's own staff.
    Console,
    /// Pages for a customer, mostly in a frame of another site.
    Portal,
}

impl Face {
    /// Both kinds of pages.
    pub const ALL: [Self; 2] = [Self::Console, Self::Portal];

    /// Name in the database and in paths.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::Portal => "portal",
        }
    }

    /// Path before the pages.
    pub fn root(self) -> &'static str {
        match self {
            Self::Console => "/console",
            Self::Portal => "/portal",
        }
    }

    /// Parses the name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|face| face.as_str() == text)
    }
}

/// The proof by which a visitor signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignIn {
    /// An API key, typed once.
    Key,
    /// A link that opens once.
    Link,
    /// The header of an authenticating proxy.
    Proxy,
    /// A provider of OpenID Connect.
    Provider,
}

impl SignIn {
    /// All ways to sign in.
    pub const ALL: [Self; 4] = [Self::Key, Self::Link, Self::Proxy, Self::Provider];

    /// Name in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Link => "link",
            Self::Proxy => "proxy",
            Self::Provider => "provider",
        }
    }

    /// Parses the name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sign_in| sign_in.as_str() == text)
    }
}

/// A right of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Right {
    /// See webhooks, events and deliveries, without payloads.
    View,
    /// See payloads and answers.
    Payloads,
    /// See the publisher's keys of events.
    Keys,
    /// Send test events, and check signatures.
    Test,
    /// Resend deliveries.
    Resend,
    /// Create, change and delete webhooks, and rotate their secrets.
    Endpoints,
    /// Start and steer replays.
    Replay,
    /// Cancel delayed events.
    Cancel,
    /// Change everything else: event types, settings, keys, parked messages, erasures, links to the portal.
    Operate,
}

impl Right {
    /// All rights.
    pub const ALL: [Self; 9] = [
        Self::View,
        Self::Payloads,
        Self::Keys,
        Self::Test,
        Self::Resend,
        Self::Endpoints,
        Self::Replay,
        Self::Cancel,
        Self::Operate,
    ];

    /// Rights that a link to the portal can give.
    pub const OF_PORTAL: [Self; 8] =
        [Self::View, Self::Payloads, Self::Keys, Self::Test, Self::Resend, Self::Endpoints, Self::Replay, Self::Cancel];

    /// Name in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Payloads => "payloads",
            Self::Keys => "keys",
            Self::Test => "test",
            Self::Resend => "resend",
            Self::Endpoints => "endpoints",
            Self::Replay => "replay",
            Self::Cancel => "cancel",
            Self::Operate => "operate",
        }
    }

    /// Parses the name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|right| right.as_str() == text)
    }
}

/// Rights of a session. Every session may view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights(u16);

impl Rights {
    /// All rights.
    pub fn all() -> Self {
        Right::ALL.into_iter().collect()
    }

    /// The rights to look at everything, and to change nothing.
    pub fn look_only() -> Self {
        [Right::Payloads, Right::Keys].into_iter().collect()
    }

    /// True if the rights contain `right`.
    pub fn contain(self, right: Right) -> bool {
        self.0 & bit(right) != 0
    }

    /// True if the rights permit no change.
    pub fn are_look_only(self) -> bool {
        self.0 & !Self::look_only().0 == 0
    }

    /// Names of the rights, in the order of [`Right::ALL`].
    pub fn names(self) -> Vec<&'static str> {
        Right::ALL.into_iter().filter(|right| self.contain(*right)).map(Right::as_str).collect()
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        Self(rights.into_iter().fold(bit(Right::View), |bits, right| bits | bit(right)))
    }
}

fn bit(right: Right) -> u16 {
    1 << right as u8
}

/// Credential of a session: the session's id and 32 secret bytes. Only the browser keeps the whole token.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionToken {
    /// Session of the token.
    pub session: SessionId,
    secret: [u8; 32],
}

/// The text is not the token of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the token of a session")]
pub struct InvalidSessionToken;

impl SessionToken {
    /// Creates a session's token from 32 random bytes.
    pub fn from_random(session: SessionId, secret: [u8; 32]) -> Self {
        Self { session, secret }
    }

    /// SHA-256 of the secret part. A slow hash is for passwords; the secret has 256 random bits.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.secret).into()
    }

    /// The text of a cookie or a link. Show the text to the session's browser only, and never log the text.
    pub fn reveal(&self) -> String {
        format!("{}.{}", self.session, URL_SAFE_NO_PAD.encode(self.secret))
    }

    /// The text that each form of the session's pages must carry. Another site cannot read or guess the text.
    pub fn form_token(&self) -> String {
        let digest = Sha256::new().chain_update(b"fanfare form ").chain_update(self.secret).finalize();
        URL_SAFE_NO_PAD.encode(digest)
    }

    /// True for the session's [`Self::form_token`].
    pub fn accepts(&self, form_token: &str) -> bool {
        self.form_token().as_bytes().ct_eq(form_token.as_bytes()).into()
    }
}

impl FromStr for SessionToken {
    type Err = InvalidSessionToken;

    fn from_str(text: &str) -> Result<Self, InvalidSessionToken> {
        let (session, secret) = text.split_once('.').ok_or(InvalidSessionToken)?;
        let session = session.parse().map_err(|_| InvalidSessionToken)?;
        let secret = URL_SAFE_NO_PAD.decode(secret).ok().and_then(|bytes| bytes.try_into().ok());
        Ok(Self { session, secret: secret.ok_or(InvalidSessionToken)? })
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SessionToken({}, …)", self.session)
    }
}

/// A session of the web pages.
#[derive(Debug, Clone)]
pub struct Session {
    /// Id of the session.
    pub id: SessionId,
    /// The pages of the session.
    pub face: Face,
    /// Application of the session; `None` for all applications.
    pub application: Option<ApplicationId>,
    /// Rights of the session.
    pub rights: Rights,
    /// Key of the sign-in. The session ends with its key.
    pub key: Option<KeyId>,
    /// Name of the visitor, for the audit log and the list of sessions.
    pub name: String,
    /// The proof of the visitor.
    pub sign_in: SignIn,
    /// Until this time the session's link opens; `None` for an open session.
    pub opens_until: Option<Timestamp>,
    /// Time of the sign-in; of an unopened link, of its creation.
    pub created_at: Timestamp,
    /// Time of the last request, within a minute.
    pub seen_at: Timestamp,
    /// Time from the last request to the end of the session.
    pub idle: Duration,
    /// End of the session, used or not.
    pub ends_at: Timestamp,
    /// Address to return to, of a portal.
    pub back: Option<String>,
    /// Look of a portal.
    pub theme: Option<Theme>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    proptest! {
        #[test]
        fn tokens_round_trip_and_accept_only_their_own_forms(id: u128, secret: [u8; 32], other: [u8; 32]) {
            let token = SessionToken::from_random(SessionId(Uuid::from_u128(id)), secret);
            prop_assert_eq!(token.reveal().parse(), Ok(token.clone()));
            prop_assert!(token.accepts(&token.form_token()));
            let other = SessionToken::from_random(token.session, other);
            prop_assert_eq!(token.accepts(&other.form_token()), token == other);
        }

        #[test]
        fn a_changed_text_is_another_token(secret: [u8; 32], at in 0_usize..73) {
            let token = SessionToken::from_random(SessionId(Uuid::nil()), secret);
            let mut text = token.reveal().into_bytes();
            text[at] = if text[at] == b'A' { b'B' } else { b'A' };
            prop_assert_ne!(String::from_utf8(text).expect("ASCII").parse(), Ok(token));
        }
    }

    #[test]
    fn every_session_may_view() {
        assert!(Rights::from_iter([]).contain(Right::View));
        assert!(Rights::look_only().are_look_only() && !Rights::all().are_look_only());
        assert_eq!(Rights::look_only().names(), ["view", "payloads", "keys"]);
        assert!(Right::ALL.iter().all(|right| Right::parse(right.as_str()) == Some(*right)));
        assert!(!Rights::from_iter([Right::Test]).are_look_only());
    }
}
