//! Messages of AsyncAPI 2 and 3.

use serde_json::Value;

use super::{Payload, first_text, last_part, members, resolved};

/// The payloads of all messages of all channels: `channels.*.publish.message`, `channels.*.subscribe.message`.
pub(super) fn payloads_of_2(document: &Value) -> Vec<Payload<'_>> {
    let mut payloads = Vec::new();
    for (channel, item) in members(&document["channels"]) {
        let item = resolved(document, item);
        for message in ["subscribe", "publish"].iter().filter_map(|operation| item[*operation].get("message")) {
            let alternatives = resolved(document, message).get("oneOf").and_then(Value::as_array);
            let messages = alternatives.map_or_else(|| vec![message], |messages| messages.iter().collect());
            let is_alone = messages.len() == 1;
            for message in messages {
                let key = match message.get("$ref").and_then(Value::as_str) {
                    Some(reference) => last_part(reference),
                    None if is_alone => channel,
                    None => "",
                };
                payloads.push(payload(document, key, message, &item["description"]));
            }
        }
    }
    payloads
}

/// The payloads of all messages of all channels: `channels.*.messages.*`.
pub(super) fn payloads_of_3(document: &Value) -> Vec<Payload<'_>> {
    let channels = members(&document["channels"]).map(|(_, channel)| resolved(document, channel));
    channels
        .flat_map(|channel| {
            members(&channel["messages"]).map(|(key, message)| payload(document, key, message, &channel["description"]))
        })
        .collect()
}

/// The payload of a message. `key` is the name if the message has none of its own.
fn payload<'a>(document: &'a Value, key: &str, message: &'a Value, of_channel: &'a Value) -> Payload<'a> {
    let message = resolved(document, message);
    let tag = message["tags"].get(0).map(|tag| resolved(document, tag));
    Payload {
        name: first_text(message, &["name", "messageId"]).unwrap_or(key).to_owned(),
        category: tag.and_then(|tag| tag["name"].as_str()),
        description: first_text(message, &["description", "summary", "title"]).or(of_channel.as_str()),
        sample: message["examples"].get(0).and_then(|example| example.get("payload")),
        schema: schema(document, message),
    }
}

/// The schema of the payload. Other formats than JSON Schema cannot be imported.
fn schema<'a>(document: &'a Value, message: &'a Value) -> Result<&'a Value, String> {
    let payload = message.get("payload").ok_or("its message has no payload")?;
    // AsyncAPI 3: the format is beside the schema. The payload may be a reference to both.
    let with_format = resolved(document, payload);
    let (format, schema) = match with_format.get("schema") {
        Some(schema) if with_format.get("schemaFormat").is_some() => (&with_format["schemaFormat"], schema),
        _ => (&message["schemaFormat"], payload),
    };
    match format.as_str() {
        Some(format) if !format.contains("schema+json") && !format.contains("aai.asyncapi") => {
            Err(format!("its payload has the format {}, which is no JSON Schema", super::cut(format, 100)))
        }
        _ => Ok(schema),
    }
}
