//! Publishes an event to Fanfare with lapin, and waits for the confirm.

use std::{
    env,
    error::Error,
    process::exit,
    time::{Duration, Instant},
};

use lapin::{
    BasicProperties, Confirmation, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

const TRY_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

struct Settings {
    broker: String,
    exchange: ShortString,
    routing_key: ShortString,
    id: ShortString,
    body: Vec<u8>,
    give_up_after: Duration,
}

fn settings() -> Result<Settings, Box<dyn Error>> {
    let variable = |name: &str| env::var(name).map_err(|error| format!("{name}: {error}"));
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [event_type, id, data] = &arguments[..] else { return Err("three arguments are needed".into()) };
    let data: Value = serde_json::from_str(data).map_err(|error| format!("the data are not JSON: {error}"))?;
    let seconds = variable("GIVE_UP_AFTER").unwrap_or_else(|_| "60".to_owned()).parse()?;
    Ok(Settings {
        broker: variable("BROKER")?,
        exchange: ShortString::try_new(variable("EXCHANGE")?)?,
        routing_key: ShortString::try_new(format!("{}.{event_type}", variable("APPLICATION")?))?,
        id: ShortString::try_new(id)?,
        body: json!({ "data": data }).to_string().into_bytes(),
        give_up_after: Duration::from_secs(seconds),
    })
}

/// Connects, publishes and waits for the confirm. A service keeps connection and channel for further events.
async fn publish_once(settings: &Settings) -> Result<(), Box<dyn Error>> {
    let connection = Connection::connect(&settings.broker, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let properties = BasicProperties::default()
        .with_message_id(settings.id.clone())
        .with_delivery_mode(2)
        .with_content_type("application/json".into());
    let (exchange, routing_key) = (settings.exchange.clone(), settings.routing_key.clone());
    let options = BasicPublishOptions::default();
    let sent = channel.basic_publish(exchange, routing_key, options, &settings.body, properties).await?;
    match sent.await? {
        Confirmation::Ack(_) => {}
        refused => return Err(format!("the broker answered {refused:?}").into()),
    }
    // The event is published, even if closing fails.
    let _ = timeout(Duration::from_secs(1), connection.close(200, "published".into())).await;
    Ok(())
}

#[tokio::main]
async fn main() {
    let settings = match settings() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("{error}");
            eprintln!("usage: publish <type> <id> <data as JSON>, with BROKER, EXCHANGE and APPLICATION set");
            exit(2);
        }
    };
    let (began, mut backoff) = (Instant::now(), Duration::from_millis(500));
    loop {
        let error = match timeout(TRY_TIMEOUT, publish_once(&settings)).await {
            Ok(Ok(())) => break,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no confirm within {TRY_TIMEOUT:?}"),
        };
        if began.elapsed() + backoff >= settings.give_up_after {
            eprintln!("{} is not confirmed: {error}. Publish again later, under the same id.", settings.id);
            exit(1);
        }
        eprintln!("{error}; next try in {backoff:?}");
        sleep(backoff).await;
        // The same id again: Fanfare recognises an event that did arrive.
        backoff = MAX_BACKOFF.min(backoff * 2);
    }
    println!("confirmed {}", settings.id);
}
