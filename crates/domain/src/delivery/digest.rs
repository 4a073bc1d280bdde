//! Daily digests: count and hash of a webhook's deliveries of a day. A receiver compares them with its own book.

use std::fmt::Write;

use jiff::{SignedDuration, Timestamp, civil::Date};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{
    delivery::feed::FeedPlace,
    event::EventType,
    ids::{DeliveryId, EndpointId, EventId, first_id},
    time::{begin_of, day_of, saturating_sub},
};

/// Type of the events that tell a digest. Only Fanfare publishes the type.
pub const EVENT_TYPE: &str = "fanfare.digest";

/// Time from the end of a day until its digest: events of the last seconds are persisted by then.
pub const GRACE: SignedDuration = SignedDuration::from_mins(15);

/// True for the type of digests.
pub fn is_digest(event_type: &EventType) -> bool {
    event_type.as_str() == EVENT_TYPE
}

/// Day of a delivery: the UTC day of the event's acceptance, from the id.
pub fn day_of_delivery(delivery: DeliveryId) -> Date {
    day_of(delivery.accepted_at())
}

/// The last day whose digest is due.
pub fn last_ended(now: Timestamp) -> Date {
    let counted = saturating_sub(now, GRACE.unsigned_abs());
    day_of(counted).yesterday().unwrap_or(Date::MIN)
}

/// Ids of a day's deliveries: from the first, up to the second. The bounds are those of a partition: a greater second
/// bound would let PostgreSQL read the next day's partition, too.
pub fn bounds(day: Date) -> (DeliveryId, DeliveryId) {
    let first = |day| DeliveryId(first_id(begin_of(day)));
    (first(day), day.tomorrow().map_or(DeliveryId(uuid::Uuid::max()), first))
}

/// Days from `from` to `last`, above the line of retention.
pub fn days(from: Date, last: Date, line: Option<Timestamp>) -> Vec<Date> {
    let begin = line.map_or(from, |line| from.max(day_of(line)));
    begin.series(jiff::Span::new().days(1)).take_while(|day| *day <= last).collect()
}

/// Entry of a digest: the deliveries of a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DayEntry {
    /// The UTC day.
    pub day: Date,
    /// Number of deliveries.
    pub count: usize,
    /// Place just before the first delivery in the feed; `None` without a delivery.
    pub first: Option<FeedPlace>,
    /// Place of the last delivery in the feed.
    pub last: Option<FeedPlace>,
    /// Lower-case hex of [`hash_of`].
    pub hash: String,
}

/// Counts the deliveries of a day.
#[derive(Debug, Default)]
pub struct DayCount {
    ids: Vec<EventId>,
    first: Option<FeedPlace>,
    last: Option<FeedPlace>,
}

impl DayCount {
    /// Adds the next delivery, in the order of the feed.
    pub fn add(&mut self, place: FeedPlace, event: EventId) {
        self.first.get_or_insert_with(|| place.just_before());
        self.last = Some(place);
        self.ids.push(event);
    }

    /// The entry of the day.
    pub fn finish(self, day: Date) -> DayEntry {
        let (count, first, last) = (self.ids.len(), self.first, self.last);
        let mut hash = String::with_capacity(64);
        for byte in hash_of(self.ids) {
            let _ = write!(hash, "{byte:02x}");
        }
        DayEntry { day, count, first, last, hash }
    }
}

/// SHA-256 over the `webhook-id` of each delivery, sorted as bytes, each followed by a newline.
pub fn hash_of(mut ids: Vec<EventId>) -> [u8; 32] {
    // The alphabet of the text ascends: ids sort as their texts do.
    ids.sort_unstable();
    let (mut hash, mut line) = (Sha256::new(), String::new());
    for id in ids {
        line.clear();
        let _ = writeln!(line, "{id}");
        hash.update(&line);
    }
    hash.finalize().into()
}

/// Data of a digest's event.
///
/// # Errors
/// Never: the members have texts for JSON.
pub fn data(webhook: EndpointId, days: &[DayEntry]) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Data<'a> {
        webhook: EndpointId,
        days: &'a [DayEntry],
    }
    serde_json::to_string(&Data { webhook, days })
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use proptest::{collection::vec, prelude::*};
    use uuid::Uuid;

    use super::*;

    fn moment(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    fn place(written: i64, delivery: u128) -> FeedPlace {
        FeedPlace { written, delivery: DeliveryId(Uuid::from_u128(delivery)) }
    }

    proptest! {
        /// Each moment lies within the bounds of its day, and of no other.
        #[test]
        fn the_bounds_of_a_day_hold_its_deliveries(millisecond in 0..4_102_444_800_000_i64, event: u128, endpoint: u128) {
            let at = Timestamp::from_millisecond(millisecond).expect("in range");
            let delivery = DeliveryId::derive(at, EventId(Uuid::from_u128(event)), EndpointId(Uuid::from_u128(endpoint)));
            let day = day_of_delivery(delivery);
            let (from, to) = bounds(day);
            prop_assert!(from <= delivery && delivery < to);
            prop_assert_eq!(bounds(day.tomorrow().expect("a day")).0, to);
        }

        /// The hash is that of `sort | sha256sum`, in any order of the deliveries.
        #[test]
        fn the_hash_is_that_of_sorted_lines(ids in vec(any::<u128>(), 0..20)) {
            let ids: Vec<EventId> = ids.into_iter().map(|id| EventId(Uuid::from_u128(id))).collect();
            let mut lines: Vec<String> = ids.iter().map(|id| format!("{id}\n")).collect();
            lines.sort();
            let expected: [u8; 32] = Sha256::digest(lines.concat()).into();
            prop_assert_eq!(hash_of(ids.iter().rev().copied().collect()), expected);
        }

        /// Due days have ended for the time of grace.
        #[test]
        fn a_due_day_has_ended(millisecond in 86_400_000..4_102_444_800_000_i64) {
            let now = Timestamp::from_millisecond(millisecond).expect("in range");
            let last = last_ended(now);
            let end = begin_of(last.tomorrow().expect("a day"));
            let since = now.duration_since(end);
            prop_assert!(since >= GRACE && since < GRACE + SignedDuration::from_hours(24));
        }
    }

    #[test]
    fn a_day_is_due_a_quarter_of_an_hour_after_its_end() {
        assert_eq!(last_ended(moment("2026-11-28T00:14:59.999Z")), date(2026, 11, 26));
        assert_eq!(last_ended(moment("2026-11-28T00:15:00Z")), date(2026, 11, 27));
    }

    #[test]
    fn days_begin_at_the_line() {
        let (from, last) = (date(2026, 11, 25), date(2026, 11, 27));
        assert_eq!(days(from, last, None), [date(2026, 11, 25), date(2026, 11, 26), last]);
        assert_eq!(days(from, last, Some(moment("2026-11-27T00:00:00Z"))), [last]);
        assert_eq!(days(last, from, None), []);
    }

    #[test]
    fn an_entry_names_the_range_of_the_feed() {
        let mut count = DayCount::default();
        let event = |text: &str| text.parse::<EventId>().expect("an id");
        count.add(place(7, 5), event("evt_01h455vb4pex5vsknk084sn02r"));
        count.add(place(9, 2), event("evt_01h455vb4pex5vsknk084sn02q"));
        let entry = count.finish(date(2026, 11, 27));
        assert_eq!((entry.count, entry.first, entry.last), (2, Some(place(7, 4)), Some(place(9, 2))));
        // printf 'evt_…2q\nevt_…2r\n' | sha256sum
        assert_eq!(entry.hash, "e3d7994ad3870edd3693e956cdf118ea785a9a4002642477103be320bfe32017");
        let webhook = "wh_01h455vb4pex5vsknk084sn02q".parse().expect("an id");
        let empty = DayCount::default().finish(date(2026, 11, 27));
        assert_eq!(
            data(webhook, &[empty]).expect("JSON"),
            r#"{"webhook":"wh_01h455vb4pex5vsknk084sn02q","days":[{"day":"2026-11-27","count":0,"first":null,"last":null,"#
                .to_owned()
                + r#""hash":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]}"#
        );
    }
}
