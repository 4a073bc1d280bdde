//! `fanfare key`: creates, lists, rotates and revokes API keys.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};
use fanfare_domain::{
    access::api_key::{Role, Token},
    ids::{ApplicationId, KeyId},
};
use fanfare_store::{KeyRow, Store};
use jiff::Timestamp;

use crate::require;

/// Keys per query.
const PAGE: usize = 1000;

#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Creates and prints a key. The key is not shown again.
    Create {
        /// Role of the key.
        #[arg(long)]
        role: RoleArgument,
        /// Application of the key; required for `publish` and `manage`, absent for `admin`.
        #[arg(long)]
        application: Option<ApplicationId>,
        /// Lifetime in seconds. Default: until the key is revoked.
        #[arg(long)]
        expires_in: Option<u64>,
    },
    /// Lists all keys, newest first, with expired and revoked keys.
    List,
    /// Creates and prints a key with the same role and application. The old key expires after the overlap.
    Rotate {
        /// Id of the old key.
        key: KeyId,
        /// Seconds until the old key expires, at most 2592000 (30 days).
        #[arg(long, default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(..=2_592_000))]
        overlap: u64,
    },
    /// Revokes a key. All processes refuse the key within seconds.
    Revoke {
        /// Id of the key.
        key: KeyId,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum RoleArgument {
    Publish,
    Manage,
    Admin,
}

/// Runs a key command. Returns the created or revoked key.
pub(crate) async fn run(store: &Store, command: KeyCommand) -> anyhow::Result<Option<KeyId>> {
    match command {
        KeyCommand::Create { role, application, expires_in } => {
            create(store, role, application, expires_in).await.map(Some)
        }
        KeyCommand::List => list(store).await.map(|()| None),
        KeyCommand::Rotate { key, overlap } => {
            let token = token();
            let rotated = store.rotate_key(key, &token, Duration::from_secs(overlap)).await?;
            rotated.context("no such key, or the key is expired or revoked: see `fanfare key list`")?;
            println!("{}", token.reveal());
            Ok(Some(token.key))
        }
        KeyCommand::Revoke { key } => {
            store.revoke_key(key).await?.context("no such key: see `fanfare key list`")?;
            Ok(Some(key))
        }
    }
}

async fn create(
    store: &Store,
    role: RoleArgument,
    application: Option<ApplicationId>,
    expires_in: Option<u64>,
) -> anyhow::Result<KeyId> {
    let role = match role {
        RoleArgument::Publish => Role::Publish,
        RoleArgument::Manage => Role::Manage,
        RoleArgument::Admin => Role::Admin,
    };
    if (role == Role::Admin) != application.is_none() {
        bail!("a publish or manage key needs --application; an admin key has none");
    }
    if let Some(application) = application {
        require(store, application).await?;
    }
    let token = token();
    let lifetime = expires_in.map(Duration::from_secs);
    store.create_key(&token, role, application, lifetime).await.context("cannot create the key")?;
    println!("{}", token.reveal());
    Ok(token.key)
}

async fn list(store: &Store) -> anyhow::Result<()> {
    println!("{:<32}{:<10}{:<34}{:<22}last used", "key", "role", "application", "ends");
    let mut before = None;
    loop {
        let page = store.keys(None, before, PAGE).await?;
        page.iter().for_each(print);
        if page.len() < PAGE {
            return Ok(());
        }
        before = page.last().map(|key| key.id);
    }
}

fn print(key: &KeyRow) {
    let moment = |moment: Option<Timestamp>| moment.map_or("-".to_owned(), |moment| format!("{moment:.0}"));
    let ends = match key.revoked_at {
        Some(_) => "revoked".to_owned(),
        None => moment(key.expires_at),
    };
    let application = key.application.map_or("-".to_owned(), |application| application.to_string());
    let (id, role, used) = (key.id.to_string(), key.role.as_str(), moment(key.last_used_at));
    println!("{id:<32}{role:<10}{application:<34}{ends:<22}{used}");
}

fn token() -> Token {
    Token::from_random(KeyId::new(Timestamp::now(), rand::random()), rand::random())
}
