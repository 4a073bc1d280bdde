//! SMTP: connects to the mail server, and hands mails over.

use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use fanfare_credentials::Secret;
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
        commands::{self, Data, Rcpt},
        extension::{ClientId, Extension, MailParameter},
    },
};

use crate::server::{Encryption, Sender, SmtpServer};

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

/// A mail of plain text to a single recipient.
pub struct Mail {
    /// Address of the recipient.
    pub recipient: String,
    /// The subject, on a single line.
    pub subject: String,
    pub text: String,
    /// First part of the `Message-ID`. A mail sent again has the same id, so that the reader recognises the duplicate.
    pub id: String,
}

/// The reason why no [`Mailer`] could be made. Each is a fault of the deployment.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The file with additional root certificates is unreadable.
    #[error("cannot read {path}")]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The file is not a PEM certificate.
    #[error(transparent)]
    Certificate(lettre::transport::smtp::Error),
    /// The TLS library refused the parameters.
    #[error("cannot set up TLS for mails")]
    Tls(#[source] lettre::transport::smtp::Error),
}

/// The reason why a mail was not accepted.
#[derive(Debug)]
pub enum SendError {
    /// The server is unavailable, or accepts nothing from us: every other mail would fail, too.
    Server(SmtpError),
    /// The server does not accept this mail. Another mail may succeed, or this mail later.
    Mail(SmtpError),
    /// The server permanently rejects the recipient.
    Recipient(SmtpError),
}

/// Cause of a failure, without the server's text, which may hold an address.
#[derive(Debug, thiserror::Error)]
pub enum SmtpError {
    /// The server gave no answer before the deadline.
    #[error("no answer within {TIMEOUT:?}")]
    TimedOut,
    /// Reply code of a refusal.
    #[error("the server answered {0}")]
    Answer(u16),
    /// The reply cannot be parsed.
    #[error("the server's answer is not SMTP")]
    NotSmtp,
    /// The connection failed.
    #[error("{0}")]
    Connection(lettre::transport::smtp::Error),
    /// The address needs an ability that the server lacks, or is no address.
    #[error("the server cannot send to the address")]
    Address,
    /// The mail cannot be written.
    #[error("cannot write the mail: {0}")]
    Message(lettre::error::Error),
}

impl From<lettre::transport::smtp::Error> for SmtpError {
    fn from(error: lettre::transport::smtp::Error) -> Self {
        match error.status() {
            Some(code) => Self::Answer(code.into()),
            None if error.is_response() => Self::NotSmtp,
            None => Self::Connection(error),
        }
    }
}

/// An authenticated connection to the mail server, for a single mail.
pub struct Connection(AsyncSmtpConnection);

/// Sends mails from a fixed address, by a fixed server.
#[derive(Clone)]
pub struct Mailer {
    server: SmtpServer,
    /// URL of the server, for user and password.
    url: Secret,
    tls: Option<TlsParameters>,
    sender: Sender,
}

impl Mailer {
    /// Creates a mailer that trusts the system's root certificates, and the certificates in the file `extra_roots`
    /// (PEM).
    ///
    /// # Errors
    /// If the file is unreadable, or TLS cannot be set up.
    pub fn new(
        (server, url): (SmtpServer, Secret),
        sender: Sender,
        extra_roots: Option<&Path>,
    ) -> Result<Self, SetupError> {
        let tls = match server.encryption {
            Encryption::None => None,
            Encryption::Tls | Encryption::StartTls => {
                let mut parameters = TlsParameters::builder(server.host.clone());
                if let Some(path) = extra_roots {
                    let unreadable = |source| SetupError::Unreadable { path: path.to_owned(), source };
                    let pem = fs::read(path).map_err(unreadable)?;
                    let certificate = Certificate::from_pem(&pem).map_err(SetupError::Certificate)?;
                    parameters = parameters.add_root_certificate(certificate);
                }
                Some(parameters.build().map_err(SetupError::Tls)?)
            }
        };
        Ok(Self { server, url, tls, sender })
    }

    /// Connects, with encryption and authentication.
    pub async fn connect(&self) -> Result<Connection, SmtpError> {
        tokio::time::timeout(TIMEOUT, self.connect_in_time()).await.unwrap_or(Err(SmtpError::TimedOut))
    }

    async fn connect_in_time(&self) -> Result<Connection, SmtpError> {
        let Self { server, tls, sender, .. } = self;
        // The domain of the sender: some relays identify customers by this name, and a machine may have no name.
        let hello = ClientId::Domain(sender.0.email.domain().to_owned());
        let implicit = tls.clone().filter(|_| server.encryption == Encryption::Tls);
        let address = (server.host.as_str(), server.port);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(address, Some(TIMEOUT), &hello, implicit, None).await?;
        if let Some(tls) = tls.clone().filter(|_| server.encryption == Encryption::StartTls) {
            connection.starttls(tls, &hello).await?;
        }
        if let Some(credentials) = self.credentials() {
            connection.auth(DEFAULT_MECHANISMS, &credentials).await?;
        }
        Ok(Connection(connection))
    }

    /// User and password for the next login. The file of the URL may have changed since the start.
    fn credentials(&self) -> Option<Credentials> {
        if self.url.is_in_file() {
            match self.url.text().parse::<SmtpServer>() {
                Ok(server) => return server.credentials,
                Err(_) => tracing::warn!("the file of FANFARE_SMTP_URL_FILE is no URL any more; keeping the login"),
            }
        }
        self.server.credentials.clone()
    }

    /// Sends a mail, and closes the connection.
    pub async fn send(&self, Connection(mut connection): Connection, mail: Mail) -> Result<(), SendError> {
        let recipient: Address = mail.recipient.parse().map_err(|_| SendError::Recipient(SmtpError::Address))?;
        let message = self.message(&recipient, mail).map_err(|error| SendError::Mail(SmtpError::Message(error)))?;
        let handing = self.hand_over(&mut connection, recipient, &message);
        let sent = tokio::time::timeout(TIMEOUT, handing).await.unwrap_or(Err(SendError::Server(SmtpError::TimedOut)));
        // The result is known: the end of the connection changes nothing.
        let _ = tokio::time::timeout(PARTING, connection.abort()).await;
        sent
    }

    fn message(&self, recipient: &Address, mail: Mail) -> Result<Message, lettre::error::Error> {
        let from = &self.sender.0;
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        // lettre would read the envelope from the headers, and fails there on a quoted name, as in "a b"@example.com.
        let envelope = Envelope::new(Some(from.email.clone()), vec![recipient.clone()])?;
        Message::builder()
            .envelope(envelope)
            .from(from.clone())
            .to(Mailbox::new(None, recipient.clone()))
            .subject(mail.subject)
            .message_id(Some(format!("<{}@{}>", mail.id, from.email.domain())))
            .date_now()
            .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
            .singlepart(SinglePart::plain(mail.text))
    }

    /// Hands a mail over, command by command: the refused command shows whether server, recipient or mail is refused.
    async fn hand_over(
        &self,
        connection: &mut AsyncSmtpConnection,
        recipient: Address,
        message: &Message,
    ) -> Result<(), SendError> {
        let mut parameters = Vec::new();
        if !AsRef::<str>::as_ref(&recipient).is_ascii() {
            if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
                return Err(SendError::Recipient(SmtpError::Address));
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        let server_failed = |error: lettre::transport::smtp::Error| SendError::Server(error.into());
        connection
            .command(commands::Mail::new(Some(self.sender.0.email.clone()), parameters))
            .await
            .map_err(server_failed)?;
        connection.command(Rcpt::new(recipient, Vec::new())).await.map_err(recipient_refused)?;
        connection.command(Data).await.map_err(mail_refused)?;
        connection.message(&message.formatted()).await.map_err(mail_refused)?;
        Ok(())
    }
}

fn recipient_refused(error: lettre::transport::smtp::Error) -> SendError {
    let names_recipient = error.status().is_some_and(|code| NO_SUCH_RECIPIENT.contains(&code.into()));
    let is_policy = error.source().is_some_and(|reply| reply.to_string().starts_with(POLICY));
    if names_recipient && !is_policy { SendError::Recipient(error.into()) } else { mail_refused(error) }
}

fn mail_refused(error: lettre::transport::smtp::Error) -> SendError {
    match SmtpError::from(error) {
        answer @ SmtpError::Answer(_) => SendError::Mail(answer),
        error => SendError::Server(error),
    }
}

#[cfg(test)]
mod tests {
    use fanfare_domain::endpoint::email::check_email;

    use super::*;

    #[test]
    fn writes_to_every_accepted_address() {
        let url = "smtp://127.0.0.1?tls=none";
        let server = (url.parse().expect("a server"), Secret::new(url));
        let mailer = Mailer::new(server, "fanfare@example.com".parse().expect("a sender"), None).expect("a mailer");
        for text in ["owner+fanfare@example.com", "\"a b\"@example.com", "\"a\\\"b\"@example.com", "ö@bücher.example"]
        {
            assert_eq!(check_email(text), Ok(()), "{text}");
            let [recipient, subject, body, id] = [text, "Failed", "All of it.", "1"].map(str::to_owned);
            let mail = Mail { recipient, subject, text: body, id };
            assert!(mailer.message(&text.parse().expect(text), mail).is_ok(), "{text}");
        }
    }
}
