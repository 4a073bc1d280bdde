//! SMTP: connects to the mail server, and hands mails over.

use std::{error::Error, fmt, fs, path::Path, str::FromStr, time::Duration};

use anyhow::Context;
use lettre::{
    Address, Message,
    address::Envelope,
    message::{
        Mailbox, SinglePart,
        header::{HeaderName, HeaderValue},
    },
    transport::smtp::{
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, Certificate, TlsParameters},
        commands::{Data, Mail, Rcpt},
        extension::{ClientId, Extension, MailParameter},
    },
};
use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::letter::Letter;

/// Deadline for a connection, and for handing a mail over.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Deadline for closing the connection after the result.
const PARTING: Duration = Duration::from_secs(1);

/// Reply codes to RCPT TO that reject the recipient (RFC 5321, 4.2.2 and RFC 7504). Other permanent codes may also mean
/// that the server relays nothing for us.
const NO_SUCH_RECIPIENT: [u16; 4] = [550, 551, 553, 556];

/// Enhanced status of a policy rejection (RFC 3463, 3.8), which concerns the sender and comes with the same reply
/// codes.
const POLICY: &str = "5.7.";

/// Address, encryption and credentials of the mail server. May hold a password.
#[derive(Clone)]
pub(crate) struct SmtpServer {
    host: String,
    port: u16,
    encryption: Encryption,
    credentials: Option<Credentials>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encryption {
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

/// Reason why a mail was not accepted.
#[derive(Debug)]
pub(super) enum NotSent {
    /// The server is unavailable, or accepts nothing from us: every other mail would fail, too.
    Server(Cause),
    /// The server does not accept this mail. Another mail may succeed, or this mail later.
    Mail(Cause),
    /// The server permanently rejects the recipient.
    Recipient(Cause),
}

/// Cause of a failure, without the server's text, which may hold an address.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cause {
    #[error("no answer within {TIMEOUT:?}")]
    TimedOut,
    #[error("the server answered {0}")]
    Answer(u16),
    #[error("the server's answer is not SMTP")]
    NotSmtp,
    #[error("{0}")]
    Connection(lettre::transport::smtp::Error),
    #[error("the server cannot send to the address")]
    Address,
    #[error("cannot write the mail: {0}")]
    Message(lettre::error::Error),
}

impl From<lettre::transport::smtp::Error> for Cause {
    fn from(error: lettre::transport::smtp::Error) -> Self {
        match error.status() {
            Some(code) => Self::Answer(code.into()),
            None if error.is_response() => Self::NotSmtp,
            None => Self::Connection(error),
        }
    }
}

/// Sends mails from a fixed address, by a fixed server.
#[derive(Clone)]
pub(crate) struct Mailer {
    server: SmtpServer,
    tls: Option<TlsParameters>,
    from: Mailbox,
}

impl Mailer {
    /// Creates a mailer that trusts the system's root certificates, and the certificates in the file `extra_roots`
    /// (PEM).
    ///
    /// # Errors
    /// If the file is unreadable, or TLS cannot be set up.
    pub(crate) fn new(server: SmtpServer, from: Mailbox, extra_roots: Option<&Path>) -> anyhow::Result<Self> {
        let tls = match server.encryption {
            Encryption::None => None,
            Encryption::Tls | Encryption::StartTls => {
                let mut parameters = TlsParameters::builder(server.host.clone());
                if let Some(path) = extra_roots {
                    let pem = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
                    parameters = parameters.add_root_certificate(Certificate::from_pem(&pem)?);
                }
                Some(parameters.build().context("cannot set up TLS for mails")?)
            }
        };
        Ok(Self { server, tls, from })
    }

    /// Connects, with encryption and authentication.
    pub(super) async fn connect(&self) -> Result<AsyncSmtpConnection, Cause> {
        tokio::time::timeout(TIMEOUT, self.connect_in_time()).await.unwrap_or(Err(Cause::TimedOut))
    }

    async fn connect_in_time(&self) -> Result<AsyncSmtpConnection, Cause> {
        let Self { server, tls, from } = self;
        // The domain of the sender: some relays identify customers by this name, and a machine may have no name.
        let hello = ClientId::Domain(from.email.domain().to_owned());
        let implicit = tls.clone().filter(|_| server.encryption == Encryption::Tls);
        let address = (server.host.as_str(), server.port);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(address, Some(TIMEOUT), &hello, implicit, None).await?;
        if let Some(tls) = tls.clone().filter(|_| server.encryption == Encryption::StartTls) {
            connection.starttls(tls, &hello).await?;
        }
        if let Some(credentials) = &server.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        Ok(connection)
    }

    /// Sends a letter. A letter sent again has the same id, so that the reader recognises the duplicate.
    pub(super) async fn send(
        &self,
        mut connection: AsyncSmtpConnection,
        address: &str,
        letter: Letter,
        id: &str,
    ) -> Result<(), NotSent> {
        let recipient: Address = address.parse().map_err(|_| NotSent::Recipient(Cause::Address))?;
        let message = self.message(&recipient, letter, id).map_err(|error| NotSent::Mail(Cause::Message(error)))?;
        let handing = self.hand_over(&mut connection, recipient, &message);
        let sent = tokio::time::timeout(TIMEOUT, handing).await.unwrap_or(Err(NotSent::Server(Cause::TimedOut)));
        // The result is known: the end of the connection changes nothing.
        let _ = tokio::time::timeout(PARTING, connection.abort()).await;
        sent
    }

    fn message(&self, recipient: &Address, letter: Letter, id: &str) -> Result<Message, lettre::error::Error> {
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        // lettre would read the envelope from the headers, and fails there on a quoted name, as in "a b"@example.com.
        let envelope = Envelope::new(Some(self.from.email.clone()), vec![recipient.clone()])?;
        Message::builder()
            .envelope(envelope)
            .from(self.from.clone())
            .to(Mailbox::new(None, recipient.clone()))
            .subject(letter.subject)
            .message_id(Some(format!("<{id}@{}>", self.from.email.domain())))
            .date_now()
            .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
            .singlepart(SinglePart::plain(letter.text))
    }

    /// Hands a mail over, command by command: the refused command shows whether server, recipient or mail is refused.
    async fn hand_over(
        &self,
        connection: &mut AsyncSmtpConnection,
        recipient: Address,
        message: &Message,
    ) -> Result<(), NotSent> {
        let mut parameters = Vec::new();
        if !AsRef::<str>::as_ref(&recipient).is_ascii() {
            if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
                return Err(NotSent::Recipient(Cause::Address));
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        let of_server = |error: lettre::transport::smtp::Error| NotSent::Server(error.into());
        connection.command(Mail::new(Some(self.from.email.clone()), parameters)).await.map_err(of_server)?;
        connection.command(Rcpt::new(recipient, Vec::new())).await.map_err(recipient_not_taken)?;
        connection.command(Data).await.map_err(mail_not_taken)?;
        connection.message(&message.formatted()).await.map_err(mail_not_taken)?;
        Ok(())
    }
}

fn recipient_not_taken(error: lettre::transport::smtp::Error) -> NotSent {
    let speaks_of_it = error.status().is_some_and(|code| NO_SUCH_RECIPIENT.contains(&code.into()));
    let is_about_us = error.source().is_some_and(|said| said.to_string().starts_with(POLICY));
    if speaks_of_it && !is_about_us { NotSent::Recipient(error.into()) } else { mail_not_taken(error) }
}

fn mail_not_taken(error: lettre::transport::smtp::Error) -> NotSent {
    match Cause::from(error) {
        cause @ Cause::Answer(_) => NotSent::Mail(cause),
        cause => NotSent::Server(cause),
    }
}

#[cfg(test)]
mod tests {
    use fanfare_domain::email::check_email;

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
    fn writes_to_every_address_that_may_be_given() {
        let server = "smtp://127.0.0.1?tls=none".parse().expect("a server");
        let mailer = Mailer::new(server, "fanfare@example.com".parse().expect("a sender"), None).expect("a mailer");
        for text in ["owner+fanfare@example.com", "\"a b\"@example.com", "\"a\\\"b\"@example.com", "ö@bücher.example"]
        {
            assert_eq!(check_email(text), Ok(()), "{text}");
            let letter = Letter { subject: "Failed".to_owned(), text: "All of it.".to_owned() };
            assert!(mailer.message(&text.parse().expect(text), letter, "1").is_ok(), "{text}");
        }
    }

    #[test]
    fn refuses_what_could_be_meant_otherwise_and_shows_no_password() {
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
