//! Mails over SMTP. Except for tests, no other crate names `lettre`.
//!
//! - `server`: settings of the mail server and of the sender
//! - `smtp`: connects, writes a mail and hands the mail over

mod server;
mod smtp;

pub use server::{InvalidSender, Sender, SmtpServer};
pub use smtp::{Connection, Mail, Mailer, SendError, SetupError, SmtpError};
