//! `fanfare signing-keys`: Ed25519 keys of an application.

use anyhow::Context;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;

use super::{Api, Target, given, rows, segment};

/// Columns of a key.
const KEY: [(&str, usize); 4] = [("/kid", 43), ("/public_key", 49), ("/created_at", 30), ("/expires_at", 1)];

#[derive(Subcommand)]
pub(crate) enum SigningKeysCommand {
    /// Lists the keys in force, newest first: id, public key, creation and end. The first line is the path of the key
    /// set.
    List(ListArguments),
    /// Makes a new key, and lists the keys. The previous key signs, too, until the end of the overlap.
    Rotate(RotateArguments),
    /// Ends the previous key now, and lists the keys. The current key stays.
    EndRotation(ListArguments),
}

impl SigningKeysCommand {
    pub(super) fn target(&self) -> &Target {
        match self {
            Self::List(arguments) | Self::EndRotation(arguments) => &arguments.target,
            Self::Rotate(arguments) => &arguments.target,
        }
    }
}

#[derive(Args)]
pub(crate) struct ListArguments {
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
pub(crate) struct RotateArguments {
    /// Seconds until the previous key ends, 7200 to 2592000, or 0 for a leaked key. Default: a day.
    #[arg(long)]
    overlap_seconds: Option<u64>,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(api: &Api, command: SigningKeysCommand) -> anyhow::Result<()> {
    let application = api.application.as_deref().context("name the application by --application app_…")?;
    let path = format!("applications/{}/signing-keys", segment(application));
    let answer = match command {
        SigningKeysCommand::List(_) => api.get(&path, &[]).await?,
        SigningKeysCommand::EndRotation(_) => api.send(Method::POST, &format!("{path}/end-rotation"), None).await?,
        SigningKeysCommand::Rotate(arguments) => {
            let body = given(&[("overlap_seconds", arguments.overlap_seconds.map(Value::from))]);
            api.post(&format!("{path}/rotate"), &body).await?
        }
    };
    let data = &answer["data"];
    if api.prints_json {
        rows::line(rows::printable(&data.to_string()));
        return Ok(());
    }
    rows::line(rows::text(data.get("jwks_path")));
    data["keys"].as_array().into_iter().flatten().for_each(|key| rows::print(false, key, &KEY));
    Ok(())
}
