//! Settings of the mail server and of the sender.

use std::{fmt, str::FromStr};

use lettre::{address::AddressError, message::Mailbox, transport::smtp::authentication::Credentials};
use percent_encoding::percent_decode_str;
use url::{Host, Url};

/// Address, encryption and credentials of the mail server. May hold a password.
#[derive(Clone)]
pub struct SmtpServer {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) encryption: Encryption,
    pub(crate) credentials: Option<Credentials>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encryption {
    /// TLS from the first byte on.
    Tls,
    /// STARTTLS before anything else. Without STARTTLS nothing is sent.
    StartTls,
    /// No encryption, by explicit setting.
    None,
}

impl FromStr for SmtpServer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "expected a URL such as smtps://user:password@host:465, smtp://user:password@host:587 or \
                            smtp://host:25?tls=none, its user and password percent-encoded";
        let url = Url::parse(text).map_err(|_| FORM)?;
        let host = match url.host() {
            Some(Host::Domain(name)) if !name.is_empty() => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            _ => return Err(FORM),
        };
        let (encryption, usual_port) = match (url.scheme(), url.query()) {
            ("smtps", None) => (Encryption::Tls, 465),
            ("smtp", None) => (Encryption::StartTls, 587),
            ("smtp", Some("tls=none")) => (Encryption::None, 25),
            _ => return Err(FORM),
        };
        if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
            return Err(FORM);
        }
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, Some(password)) if !user.is_empty() => {
                let decoded = |text| percent_decode_str(text).decode_utf8().map_err(|_| FORM);
                Some(Credentials::new(decoded(user)?.into_owned(), decoded(password)?.into_owned()))
            }
            _ => return Err("has a user without a password, or a password without a user"),
        };
        Ok(Self { host, port: url.port().unwrap_or(usual_port), encryption, credentials })
    }
}

impl fmt::Debug for SmtpServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SmtpServer({}:{}, {:?}, …)", self.host, self.port, self.encryption)
    }
}

/// Sender of mails: an address, or a name and an address, such as `Fanfare <fanfare@example.com>`.
#[derive(Clone)]
pub struct Sender(pub(crate) Mailbox);

impl FromStr for Sender {
    type Err = InvalidSender;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(InvalidSender)
    }
}

/// Fault in the text of a [`Sender`].
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct InvalidSender(AddressError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_three_forms() {
        for (text, shown, has_credentials) in [
            ("smtps://user:p%40ss@mail.example.com", "SmtpServer(mail.example.com:465, Tls, …)", true),
            ("smtp://user:secret@mail.example.com:2525/", "SmtpServer(mail.example.com:2525, StartTls, …)", true),
            ("smtp://127.0.0.1", "SmtpServer(127.0.0.1:587, StartTls, …)", false),
            ("smtp://[::1]?tls=none", "SmtpServer(::1:25, None, …)", false),
        ] {
            let server: SmtpServer = text.parse().expect(text);
            assert_eq!(format!("{server:?}"), shown);
            assert_eq!(server.credentials.is_some(), has_credentials);
        }
        let server: SmtpServer = "smtps://us%40er:p%2Fss@host".parse().expect("a server");
        assert_eq!(server.credentials, Some(Credentials::new("us@er".to_owned(), "p/ss".to_owned())));
    }

    #[test]
    fn refuses_ambiguous_urls_and_shows_no_password() {
        for text in [
            "",
            "mail.example.com",
            "smtp://",
            "http://host",
            "smtp://host?tls=opportunistic",
            "smtps://host?tls=none",
            "smtp://host/path",
            "smtp://host#part",
            "smtp://user@host",
            "smtp://:s3cret@host",
            "smtp://user:s3cret/@host",
            "smtp://user:%ff@host",
            "smtp://user:s3cret@host:99999",
        ] {
            let error = text.parse::<SmtpServer>().expect_err(text);
            assert!(!error.contains("s3cret"));
        }
    }
}
