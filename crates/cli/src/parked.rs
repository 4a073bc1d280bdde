//! `fanfare parked`: messages that Fanfare could not process.

use std::{
    fs,
    io::{self, Read, Write, stdin},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use fanfare_broker::{BrokerSettings, Publisher, PutBack, encode_put_back};
use fanfare_domain::{delivery::delay::DelayQueues, event::parked::Edit, ids::ParkedId};
use fanfare_service::Environment;
use fanfare_store::{ParkedFilter, Store};
use tokio_util::sync::CancellationToken;

/// The longest wait for the broker to confirm a message.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);

/// Messages per query.
const CHUNK: usize = 100;

#[derive(Subcommand)]
pub(crate) enum ParkedCommand {
    /// Lists parked messages, newest first.
    List {
        /// Only messages with this reason.
        #[arg(long)]
        reason: Option<String>,
        /// Maximum number of messages.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Shows a message: the body on the standard output, all else on the standard error.
    Show {
        /// Id of the message.
        id: ParkedId,
    },
    /// Puts messages back into their exchange. Reads AMQP_URL and FANFARE_PREFIX.
    PutBack {
        #[command(flatten)]
        choice: Choice,
        /// New routing key, `<application>.<event type>`, for a single message.
        #[arg(long)]
        routing_key: Option<String>,
        /// New message_id, for a single message.
        #[arg(long)]
        message_id: Option<String>,
        /// File with a new body, for a single message; `-` reads the standard input.
        #[arg(long)]
        body: Option<PathBuf>,
    },
    /// Discards messages for good.
    Discard {
        #[command(flatten)]
        choice: Choice,
    },
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Choice {
    /// Ids of the messages.
    ids: Vec<ParkedId>,
    /// All messages with this reason.
    #[arg(long)]
    reason: Option<String>,
}

/// Reads the settings of the broker.
pub(crate) fn broker(environment: &mut Environment) -> Option<BrokerSettings> {
    let (broker, prefix) = (environment.broker(), environment.prefix());
    Some(BrokerSettings::new(broker?, prefix?, DelayQueues::new([]), "fanfare command"))
}

/// Runs a command. `put-back` needs `broker`.
pub(crate) async fn run(store: &Store, broker: Option<BrokerSettings>, command: ParkedCommand) -> anyhow::Result<()> {
    match command {
        ParkedCommand::List { reason, limit } => list(store, reason, limit).await,
        ParkedCommand::Show { id } => show(store, id).await,
        ParkedCommand::PutBack { choice, routing_key, message_id, body } => {
            let edit = Edit { routing_key, message_id, body: body.map(|file| read(&file)).transpose()? };
            edit.check().context("the edited message would be parked again: correct the edit")?;
            let is_edited = edit.routing_key.is_some() || edit.message_id.is_some() || edit.body.is_some();
            if is_edited && choice.ids.len() != 1 {
                bail!("--routing-key, --message-id and --body are for a single message: name one id");
            }
            let broker = broker.context("AMQP_URL was not read")?;
            put_back(store, broker, &choice, &edit).await
        }
        ParkedCommand::Discard { choice } => discard(store, &choice).await,
    }
}

/// Content of a file, or of the standard input.
fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    if file == Path::new("-") {
        stdin().read_to_end(&mut content).context("cannot read the standard input")?;
    } else {
        content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    }
    Ok(content)
}

async fn list(store: &Store, reason: Option<String>, limit: usize) -> anyhow::Result<()> {
    let parked = store.parked(&ParkedFilter { reason, limit, ..ParkedFilter::default() }).await?;
    for row in &parked {
        let (routing_key, message_id) =
            (row.routing_key.as_deref().unwrap_or("-"), row.message_id.as_deref().unwrap_or("-"));
        println!(
            "{}  {:.0}  {:<22} {routing_key}  {message_id}  {} bytes  {}",
            row.id, row.parked_at, row.reason, row.bytes, row.message
        );
    }
    Ok(())
}

async fn show(store: &Store, id: ParkedId) -> anyhow::Result<()> {
    let (row, headers, body) = store.parked_message(id).await?.with_context(|| no_such(id))?;
    eprintln!("parked      {}", row.parked_at);
    eprintln!("reason      {}: {}", row.reason, row.message);
    eprintln!("origin      {}", row.origin.as_str());
    eprintln!("routing key {}", row.routing_key.unwrap_or_default());
    eprintln!("message_id  {}", row.message_id.unwrap_or_default());
    eprintln!("headers     {headers}");
    io::stdout().write_all(&body).context("cannot write the body")
}

async fn put_back(store: &Store, broker: BrokerSettings, choice: &Choice, edit: &Edit) -> anyhow::Result<()> {
    let topology = broker.topology().clone();
    let end = CancellationToken::new();
    let _end = end.clone().drop_guard();
    let publisher = Publisher::start(broker, end);
    let mut count = 0;
    for id in chosen(store, choice).await? {
        // A missing message was put back or discarded meanwhile.
        let Some((row, headers, body)) = store.parked_message(id).await? else { continue };
        let put_back = PutBack {
            origin: row.origin,
            reason: &row.reason,
            routing_key: row.routing_key.as_deref(),
            message_id: row.message_id.as_deref(),
            headers: &headers,
            body: &body,
            size: usize::try_from(row.bytes).unwrap_or_default(),
        };
        let message = encode_put_back(&topology, &put_back, edit)
            .with_context(|| format!("{id} stays parked: correct --routing-key, --message-id or --body"))?;
        let published = tokio::time::timeout(PUBLISH_TIMEOUT, publisher.publish_until_confirmed(&message)).await;
        published.with_context(|| {
            format!("no confirm of {id} in {PUBLISH_TIMEOUT:?}; the message stays parked: try again")
        })?;
        store.discard_parked(id).await?;
        count += 1;
    }
    println!("{count} put back");
    Ok(())
}

async fn discard(store: &Store, choice: &Choice) -> anyhow::Result<()> {
    let mut count = 0;
    for id in chosen(store, choice).await? {
        count += usize::from(store.discard_parked(id).await?);
    }
    println!("{count} discarded");
    Ok(())
}

/// The ids of the selected messages, read before the first put-back: a message parked meanwhile is not selected.
async fn chosen(store: &Store, choice: &Choice) -> anyhow::Result<Vec<ParkedId>> {
    let Some(reason) = &choice.reason else {
        for id in &choice.ids {
            store.parked_message(*id).await?.with_context(|| no_such(*id))?;
        }
        return Ok(choice.ids.clone());
    };
    let mut filter = ParkedFilter { reason: Some(reason.clone()), limit: CHUNK, ..ParkedFilter::default() };
    let mut chosen = Vec::new();
    loop {
        let some: Vec<ParkedId> = store.parked(&filter).await?.iter().map(|row| row.id).collect();
        filter.before = some.last().copied();
        chosen.extend(&some);
        if some.len() < CHUNK {
            return Ok(chosen);
        }
    }
}

fn no_such(id: ParkedId) -> String {
    format!("no parked message has the id {id}: the message may have been put back or discarded")
}
