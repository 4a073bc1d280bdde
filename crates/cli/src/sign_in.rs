//! `fanfare sign-in`: a link that opens a session of the console once.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use fanfare_domain::{
    access::session::{Rights, SessionToken, SignIn},
    ids::{ApplicationId, SessionId},
};
use fanfare_store::{NewSession, Store};
use jiff::Timestamp;
use url::Url;

use crate::{audit::origin, require};

/// Time in which the link opens.
const OPENS_WITHIN: Duration = Duration::from_secs(300);

#[derive(Args)]
pub(crate) struct SignInArguments {
    /// Application of the session. Default: all applications.
    #[arg(long)]
    pub(crate) application: Option<ApplicationId>,
    /// The session can change nothing.
    #[arg(long)]
    look_only: bool,
}

/// Prints the link. Returns the session's id.
pub(crate) async fn run(store: &Store, url: Option<Url>, arguments: &SignInArguments) -> anyhow::Result<SessionId> {
    let url = url.context("FANFARE_CONSOLE_URL is not set: give the address of the web pages, as ingest has it")?;
    if let Some(application) = arguments.application {
        require(store, application).await?;
    }
    let token = SessionToken::from_random(SessionId::new(Timestamp::now(), rand::random()), rand::random());
    let rights = if arguments.look_only { Rights::look_only() } else { Rights::all() };
    let new = NewSession::of_console(origin(), SignIn::Link, arguments.application, rights);
    store.create_session(&token, &new, Some(OPENS_WITHIN)).await.context("cannot create the link")?;
    println!("{}", url.join(&format!("console/open/{}", token.reveal()))?);
    eprintln!("The link opens once, within 5 minutes.");
    Ok(token.session)
}
