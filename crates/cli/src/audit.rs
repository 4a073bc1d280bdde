//! Audit log entries of commands that change something, as for requests to the API.

use std::{env, fs};

use fanfare_domain::ids::{ApplicationId, AuditId};
use fanfare_store::{AuditOutcome, NewAuditEntry, Store};
use jiff::Timestamp;

use crate::{AppCommand, Command, archive::ArchiveCommand, keys::KeyCommand, parked::ParkedCommand};

impl Command {
    /// The words and the application of a command with an entry in the audit log. `None` for a command that changes
    /// nothing, and for `migrate`.
    fn change(&self) -> Option<(&'static str, Option<ApplicationId>)> {
        match self {
            Self::App(AppCommand::Create { .. }) => Some(("app create", None)),
            Self::Key(KeyCommand::Create { application, .. }) => Some(("key create", *application)),
            Self::Key(KeyCommand::Rotate { .. }) => Some(("key rotate", None)),
            Self::Key(KeyCommand::Revoke { .. }) => Some(("key revoke", None)),
            Self::Parked(ParkedCommand::PutBack { .. }) => Some(("parked put-back", None)),
            Self::Parked(ParkedCommand::Discard { .. }) => Some(("parked discard", None)),
            Self::SignIn(arguments) => Some(("sign-in", arguments.application)),
            Self::Reencrypt => Some(("reencrypt", None)),
            Self::Verify(_) => Some(("verify", None)),
            Self::Archive(ArchiveCommand::Off) => Some(("archive off", None)),
            Self::Key(KeyCommand::List)
            | Self::Parked(ParkedCommand::List { .. } | ParkedCommand::Show { .. })
            | Self::Archive(_)
            | Self::Client(_)
            | Self::Completion { .. }
            | Self::Dialect(_)
            | Self::Man { .. }
            | Self::Doctor(_)
            | Self::Relay(_)
            | Self::Migrate(_) => None,
        }
    }
}

/// Records a command before the change. `None` for a command without an entry.
pub(crate) async fn begin(store: &Store, command: &Command) -> anyhow::Result<Option<AuditId>> {
    let Some((words, application)) = command.change() else { return Ok(None) };
    let arguments: Vec<String> =
        env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let entry = NewAuditEntry {
        id: AuditId::new(Timestamp::now(), rand::random()),
        application,
        key: None,
        visitor: None,
        origin: origin(),
        action: format!("fanfare {words}"),
        path: None,
        request: Some(serde_json::json!(arguments).to_string()),
    };
    store.begin_audit(&entry).await?;
    Ok(Some(entry.id))
}

/// Records the outcome, and the id of the created object.
pub(crate) async fn end(store: &Store, entry: AuditId, done: &anyhow::Result<Option<String>>) -> anyhow::Result<()> {
    let (outcome, subject) = match done {
        Ok(subject) => (AuditOutcome::Done, subject.as_deref()),
        Err(_) => (AuditOutcome::Failed, None),
    };
    Ok(store.end_audit(entry, outcome, subject, None).await?)
}

/// `user@host`, with `unknown` for a missing part.
pub(crate) fn origin() -> String {
    let user = env::var("USER").or_else(|_| env::var("LOGNAME")).unwrap_or_else(|_| "unknown".to_owned());
    let host = fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| env::var("HOSTNAME"));
    format!("{user}@{}", host.as_deref().map_or("unknown", str::trim))
}
