//! An event with its deliveries and attempts.

use fanfare_domain::ids::{ApplicationId, DeliveryId, EventId};
use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{Archive, ArchiveError, Manifest, ObjectEntry, Table};

/// A row, by column.
type Columns = Map<String, Value>;

/// The event to find.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Id of the event.
    pub event: EventId,
    /// Application of the event. With the application, fewer objects are read.
    pub application: Option<ApplicationId>,
}

/// An archived event.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The event's row.
    pub event: Map<String, Value>,
    /// Rows of the deliveries.
    pub deliveries: Vec<Map<String, Value>>,
    /// Rows of the attempts, in order. A prompt first success is in the delivery's row.
    pub attempts: Vec<Map<String, Value>>,
}

impl Wanted {
    /// True if the event may be in an object of events.
    fn may_be_in(&self, object: &ObjectEntry) -> bool {
        let (first, last) = (object.first.get(..36), object.last.get(..36));
        // An object of a single application is as good as a known application.
        let application = match self.application {
            Some(application) => application.0.to_string(),
            None if first == last => first.unwrap_or_default().to_owned(),
            None => return true,
        };
        let moment = self.event.accepted_at().map(|moment| format!("/{}", milliseconds(moment)));
        let beginning = application + &moment.unwrap_or_default();
        object.may_hold(&beginning, &beginning)
    }

    /// True if the event may have been accepted on the day: the id of an event without a key tells the day.
    pub fn may_be_of(&self, day: jiff::civil::Date) -> bool {
        self.event.accepted_at().is_none_or(|moment| moment.to_zoned(jiff::tz::TimeZone::UTC).date() == day)
    }
}

impl Archive {
    /// Finds an event on a day. Reads only the objects that may hold its rows.
    ///
    /// # Errors
    /// If an object cannot be read, or is damaged.
    pub async fn find(&self, manifest: &Manifest, wanted: &Wanted) -> Result<Option<Found>, ArchiveError> {
        let Some(event) = self.find_event(manifest, wanted).await? else { return Ok(None) };
        let (Some(application), Some(accepted_at)) = (id(&event, "application_id"), accepted_at(&event)) else {
            let path = self.folder(manifest.day).to_string();
            return Err(ArchiveError::Damaged { path, fault: format!("{}: the row lacks columns", wanted.event) });
        };
        let (low, high) = DeliveryId::bounds(accepted_at);
        let bounds = |before: &str| [low.0, high.0].map(|bound| format!("{before}{bound}"));
        let deliveries =
            self.rows_of(manifest, Table::Deliveries, &bounds(&format!("{application}/")), wanted.event).await?;
        let attempts = self.rows_of(manifest, Table::Attempts, &bounds(""), wanted.event).await?;
        Ok(Some(Found { event, deliveries, attempts }))
    }

    async fn find_event(&self, manifest: &Manifest, wanted: &Wanted) -> Result<Option<Columns>, ArchiveError> {
        for object in manifest.of(Table::Events).filter(|object| wanted.may_be_in(object)) {
            let rows = self.rows(manifest, object, "id", wanted.event).await?;
            if let Some(event) = rows.into_iter().next() {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    async fn rows_of(
        &self,
        manifest: &Manifest,
        table: Table,
        [low, high]: &[String; 2],
        event: EventId,
    ) -> Result<Vec<Columns>, ArchiveError> {
        let mut rows = Vec::new();
        for object in manifest.of(table).filter(|object| object.may_hold(low, high)) {
            rows.extend(self.rows(manifest, object, "event_id", event).await?);
        }
        Ok(rows)
    }

    /// Rows of an object whose `column` is the event.
    async fn rows(
        &self,
        manifest: &Manifest,
        object: &ObjectEntry,
        column: &str,
        event: EventId,
    ) -> Result<Vec<Columns>, ArchiveError> {
        let text = event.0.to_string();
        let keep = |line: &[u8]| contains(line, text.as_bytes());
        let lines = self.lines(manifest.day, object, keep).await?;
        let damaged = |error: serde_json::Error| ArchiveError::Damaged {
            path: self.folder(manifest.day).join(object.name.as_str()).to_string(),
            fault: error.to_string(),
        };
        let rows = lines.iter().map(|line| serde_json::from_slice(line).map_err(damaged));
        // A body may contain the id of another event.
        let is_of_event = |row: &Columns| row.get(column).and_then(Value::as_str) == Some(&text);
        Ok(rows.collect::<Result<Vec<Columns>, _>>()?.into_iter().filter(is_of_event).collect())
    }
}

fn contains(line: &[u8], wanted: &[u8]) -> bool {
    line.windows(wanted.len()).any(|part| part == wanted)
}

fn id(row: &Columns, column: &str) -> Option<Uuid> {
    row.get(column)?.as_str()?.parse().ok()
}

fn accepted_at(row: &Columns) -> Option<Timestamp> {
    row.get("accepted_at")?.as_str()?.parse().ok()
}

/// A moment in the form of the keys of events, up to the milliseconds.
fn milliseconds(moment: Timestamp) -> String {
    format!("{moment:.3}").trim_end_matches('Z').to_owned()
}

#[cfg(test)]
mod tests {
    use fanfare_domain::ids::EndpointId;
    use jiff::civil::{Date, date};
    use serde_json::json;

    use super::*;
    use crate::Row;

    const DAY: Date = date(2026, 10, 26);

    fn application(number: u128) -> ApplicationId {
        ApplicationId(Uuid::from_u128(number))
    }

    fn moment(text: &str) -> Timestamp {
        format!("2026-10-26T{text}Z").parse().expect("a moment")
    }

    fn event_row(application: ApplicationId, at: Timestamp, event: EventId, body: &str) -> Row {
        let key = format!("{}/{at:.6}/{}", application.0, event.0);
        let json = json!({ "id": event.0.to_string(), "accepted_at": at, "application_id": application.0.to_string(), "body": body });
        Row { key, json: json.to_string() }
    }

    #[test]
    fn an_event_is_looked_up_in_few_objects() {
        let object = |first: &Row, last: &Row| ObjectEntry {
            name: String::new(),
            table: Table::Events,
            rows: 2,
            bytes: 0,
            raw_bytes: 0,
            sha256: String::new(),
            first: first.key.clone(),
            last: last.key.clone(),
        };
        let at = moment("12:00:00.500");
        let (timed, keyed) = (EventId::new(application(2), at, [7; 10]), EventId::from_key(application(2), "order-1"));
        let row = |number, at| event_row(application(number), at, keyed, "");
        let one = object(&row(1, at), &row(1, at));
        let two = object(&row(2, moment("11:00:00")), &row(2, at));
        let early = object(&row(2, moment("11:00:00")), &row(2, moment("12:00:00.499")));
        let mixed = object(&row(1, at), &row(3, at));
        let held = |event, application| {
            let wanted = Wanted { event, application };
            [&one, &two, &early, &mixed].map(|object| wanted.may_be_in(object))
        };
        assert_eq!(held(timed, Some(application(2))), [false, true, false, true]);
        assert_eq!(held(timed, None), [true, true, false, true], "the application is unknown, the moment is known");
        assert_eq!(held(keyed, Some(application(2))), [false, true, true, true]);
        assert_eq!(held(keyed, None), [true; 4]);
        let of = |event, day| Wanted { event, application: None }.may_be_of(day);
        assert_eq!((of(timed, DAY), of(timed, date(2026, 10, 25)), of(keyed, date(2026, 10, 25))), (true, false, true));
    }

    #[tokio::test]
    async fn an_event_has_its_deliveries_and_attempts() {
        let folder = std::env::temp_dir().join(format!("fanfare-archive-{:032x}", rand::random::<u128>()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let url = format!("file://{}", folder.display()).parse().expect("a URL");
        let archive = Archive::open(&url, None).expect("an archive");
        let at = moment("12:00:00.500");
        let (event, other) = (EventId::from_key(application(2), "a"), EventId::from_key(application(2), "b"));
        let delivery = DeliveryId::derive(at, event, EndpointId(Uuid::from_u128(9)));
        let rows = [
            // The body of another event names the id.
            (Table::Events, event_row(application(1), at, other, &event.0.to_string())),
            (Table::Events, event_row(application(2), at, event, "{}")),
            (
                Table::Deliveries,
                Row {
                    key: format!("{}/{}", application(2).0, delivery.0),
                    json: json!({ "id": delivery.0.to_string(), "event_id": event.0.to_string() }).to_string(),
                },
            ),
            (
                Table::Attempts,
                Row {
                    key: format!("{}/0000000001", delivery.0),
                    json:
                        json!({ "delivery_id": delivery.0.to_string(), "event_id": event.0.to_string(), "attempt": 1 })
                            .to_string(),
                },
            ),
        ];
        let mut writer = archive.write_day(DAY);
        for (table, row) in rows {
            writer.append(table, vec![row]).await.expect("written");
        }
        let manifest = writer.finish(at, 1, Uuid::nil()).await.expect("a manifest");
        for application in [None, Some(application(2))] {
            let found = archive.find(&manifest, &Wanted { event, application }).await.expect("a look");
            let found = found.expect("the event");
            assert_eq!(found.event["body"], "{}");
            assert_eq!((found.deliveries.len(), found.attempts.len()), (1, 1));
        }
        let missing = Wanted { event: EventId::from_key(application(2), "c"), application: None };
        assert_eq!(archive.find(&manifest, &missing).await.expect("a look"), None);
        std::fs::remove_dir_all(&folder).expect("the folder is removed");
    }
}
