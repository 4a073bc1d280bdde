//! Messages about the change that led to a page: `?done=resent&n=37`.

use url::form_urlencoded;

/// The message of the address's parameter `done`. An unknown word has none.
pub(crate) fn of(address: &str) -> Option<String> {
    let query = address.split_once('?')?.1;
    let value = |wanted: &str| {
        form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
    };
    let done = value("done")?;
    let count: u64 = value("n").and_then(|text| text.parse().ok()).unwrap_or(1);
    let things = |one: &str, many: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {many}") };
    let deliveries = things("delivery", "deliveries");
    let messages = things("message", "messages");
    Some(match done.as_str() {
        "created" => "Created.".to_owned(),
        "saved" => "Saved.".to_owned(),
        "created-before" => {
            "The webhook was created already. The secret was shown once, and is not shown again.".to_owned()
        }
        "deleted" => "Deleted.".to_owned(),
        "enabled" => "Enabled. Held deliveries are sent now, oldest first. Failed and skipped deliveries are not: \
                      send them again on their pages."
            .to_owned(),
        "paused" => "Paused. New deliveries are held until the webhook is enabled.".to_owned(),
        "disabled" => "Disabled. New deliveries are recorded as skipped.".to_owned(),
        "resent" if count == 0 => "No delivery was resent: none matches, or all are being sent.".to_owned(),
        "resent" => format!("{deliveries} will be sent again as soon as the webhook can take deliveries."),
        "sent" => "The event will be sent to the webhook.".to_owned(),
        "rotation-ended" => "The previous secret no longer signs.".to_owned(),
        "key-rotated" => "The new key signs, and is in the key set.".to_owned(),
        "key-ended" => "The previous key has ended. Only the current key signs.".to_owned(),
        "event-cancelled" => "The event is cancelled. Nothing of the event is delivered.".to_owned(),
        "erased" => "The event's content is erased.".to_owned(),
        "put-back" => format!("{messages} put back."),
        "discarded" => format!("{messages} discarded."),
        "described" => "The event type is described.".to_owned(),
        "published" => "The sample is published. The event appears here in a moment.".to_owned(),
        "removed" => "The description is removed.".to_owned(),
        "revoked" => "Revoked. All processes refuse the key within seconds.".to_owned(),
        "ended" => "The session has ended.".to_owned(),
        "key-resumed" => "Resumed: the next deliveries are sent.".to_owned(),
        "replay-paused" => "The replay is paused.".to_owned(),
        "replay-resumed" => "The replay runs.".to_owned(),
        "replay-cancelled" => "The replay is cancelled.".to_owned(),
        "preferences" => "Your preferences are kept in this browser.".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn tells_the_change_and_the_number() {
        assert_eq!(of("/console/?done=discarded&n=2").as_deref(), Some("2 messages discarded."));
        assert!(of("/console/?done=resent").is_some_and(|text| text.starts_with("1 delivery will")));
        assert_eq!(of("/console/?done=<script>"), None);
        assert_eq!(of("/console/"), None);
    }
}
