//! Rows of a publisher's outbox table.

use std::collections::HashMap;

use crate::{
    event::{
        EventFault, EventFields, EventType, FaultCode, check_key, ordering::OrderingKey, trace_context::TraceContext,
    },
    ids::ApplicationId,
};

/// An event in an outbox, as the publisher wrote the row.
#[derive(Debug, Clone)]
pub struct OutboxRow {
    /// Place in the order.
    pub position: i64,
    /// Application id.
    pub application: String,
    /// Event type.
    pub event_type: String,
    /// The publisher's id of the event.
    pub id: String,
    /// The payload, JSON.
    pub data: String,
    /// Time of the event, RFC 3339; `None` for an infinite time.
    pub time: Option<String>,
    /// Events of an application with the same key are published in order, and numbered.
    pub ordering_key: Option<String>,
    /// Trace context of the event.
    pub trace: Option<TraceContext>,
}

impl OutboxRow {
    /// Checks an event as Fanfare does. `max_bytes` bounds the body.
    ///
    /// # Errors
    /// The fault. No later try can succeed.
    pub fn check(&self, max_bytes: usize) -> Result<(), EventFault> {
        let fault = |field, message: &str| Err(EventFault::new(FaultCode::InvalidField, field, message));
        if self.application.parse::<ApplicationId>().is_err() {
            return fault("application", "is not an application id, app_…");
        }
        if self.time.is_none() {
            return fault("time", "is infinite");
        }
        EventType::parse(&self.event_type)?;
        check_key("id", self.id.clone())?;
        self.ordering_key()?;
        let body = self.body();
        if body.len() > max_bytes {
            return fault("data", &format!("makes a body of {} bytes, and {max_bytes} are permitted", body.len()));
        }
        EventFields::parse(body.as_bytes()).map(drop)
    }

    /// The checked ordering key.
    ///
    /// # Errors
    /// The fault of the key.
    pub fn ordering_key(&self) -> Result<Option<OrderingKey>, EventFault> {
        self.ordering_key.as_deref().map(|key| OrderingKey::parse("ordering_key", key)).transpose()
    }

    /// Routing key of the message.
    pub fn routing_key(&self) -> String {
        format!("{}.{}", self.application, self.event_type)
    }

    /// Application and ordering key, if the row has one.
    pub fn chain_key(&self) -> Option<(String, String)> {
        Some((self.application.clone(), self.ordering_key.clone()?))
    }

    /// Body of the message.
    pub fn body(&self) -> String {
        let time = self.time.as_ref().map(|time| format!(r#","time":"{time}""#)).unwrap_or_default();
        format!(r#"{{"data":{}{time}}}"#, self.data)
    }
}

/// Splits rows, which are in order, into chains. The rows of a chain wait for each other: they have the same
/// application and ordering key. A row without an ordering key waits for no other row.
pub fn chains(rows: Vec<OutboxRow>) -> Vec<Vec<OutboxRow>> {
    let mut chains: Vec<Vec<OutboxRow>> = Vec::new();
    let mut of_key: HashMap<(String, String), usize> = HashMap::new();
    for row in rows {
        let Some(key) = row.chain_key() else {
            chains.push(vec![row]);
            continue;
        };
        let chain = *of_key.entry(key).or_insert(chains.len());
        match chains.get_mut(chain) {
            Some(chain) => chain.push(row),
            None => chains.push(vec![row]),
        }
    }
    chains
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(position: i64, application: &str, ordering_key: Option<&str>) -> OutboxRow {
        OutboxRow {
            position,
            application: application.to_owned(),
            event_type: "order.created".to_owned(),
            id: "order-1".to_owned(),
            data: "{\"order\": 1}".to_owned(),
            time: Some("1970-01-01T00:00:00.000000Z".to_owned()),
            ordering_key: ordering_key.map(str::to_owned),
            trace: None,
        }
    }

    #[test]
    fn a_row_makes_the_documented_message() {
        let row = row(1, "app_01h455vb4pex5vsknk084sn02q", None);
        assert_eq!(row.routing_key(), "app_01h455vb4pex5vsknk084sn02q.order.created");
        assert_eq!(row.body(), r#"{"data":{"order": 1},"time":"1970-01-01T00:00:00.000000Z"}"#);
        assert_eq!(row.check(row.body().len()), Ok(()));
        assert!(row.check(row.body().len() - 1).is_err());
        for faulty in [
            OutboxRow { application: "app_1".to_owned(), ..row.clone() },
            OutboxRow { event_type: ".x".to_owned(), ..row.clone() },
            OutboxRow { id: String::new(), ..row.clone() },
            OutboxRow { id: "x".repeat(256), ..row.clone() },
            OutboxRow { data: "1e400".to_owned(), ..row.clone() },
            OutboxRow { data: format!("{}1{}", "[".repeat(200), "]".repeat(200)), ..row.clone() },
            OutboxRow { time: None, ..row.clone() },
            OutboxRow { time: Some("20000-01-01T00:00:00Z".to_owned()), ..row.clone() },
        ] {
            assert!(faulty.check(1000).is_err(), "{faulty:?}");
        }
    }

    proptest! {
        /// Each row is in one chain. A chain has the rows of a key in order, and only of that key.
        #[test]
        fn chains_keep_the_order_of_each_key(
            rows in proptest::collection::vec((0_u8..2, proptest::option::of(0_u8..3)), 0..30),
        ) {
            let made = (0..).zip(&rows).map(|(position, (application, key))| {
                row(position, &application.to_string(), key.map(|key| key.to_string()).as_deref())
            });
            let chains = chains(made.collect());
            let mut all: Vec<i64> = chains.iter().flatten().map(|row| row.position).collect();
            all.sort_unstable();
            prop_assert_eq!(all.len(), rows.len());
            prop_assert!(all.iter().zip(0..).all(|(position, expected)| *position == expected));
            let mut keys = std::collections::HashSet::new();
            for chain in &chains {
                prop_assert!(chain.is_sorted_by_key(|row| row.position));
                prop_assert!(chain.iter().all(|row| row.chain_key() == chain[0].chain_key()));
                match chain[0].chain_key() {
                    Some(key) => prop_assert!(keys.insert(key)),
                    None => prop_assert_eq!(chain.len(), 1),
                }
            }
        }
    }
}
