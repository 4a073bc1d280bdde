//! The conditions of lists of deliveries, of counts and of resends.

use fanfare_domain::{
    delivery::{FailureReason, QueueReason, State, outcome::Outcome},
    event::subscription::Subscription,
    ids::DeliveryId,
};
use fanfare_store::DeliveryFilter;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::http::{
    error::ApiError,
    paging::{PageSize, page_size},
    parameters::{check_display_name, id, timestamp},
};

/// The maximum number of ids in a list.
const MAX_IDS: usize = 100;

/// Selects the deliveries of a list. A delivery must meet all conditions.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Only deliveries to this webhook.
    pub webhook: Option<String>,
    /// Only deliveries of this event.
    pub event: Option<String>,
    /// Only deliveries in this state, or in one of several states separated by commas.
    pub state: Option<String>,
    /// Only deliveries of events of this type, or of types such as `order.*`.
    pub r#type: Option<String>,
    /// Only deliveries whose last response has this status, such as `503`, or a status of this class, such as `5xx`.
    pub status: Option<String>,
    /// Only deliveries whose last attempt has this outcome, such as `timed_out`.
    pub outcome: Option<String>,
    /// Only deliveries with this reason.
    pub reason: Option<String>,
    /// Only deliveries of events accepted at or after this time.
    pub since: Option<String>,
    /// Only deliveries of events accepted before this time.
    pub until: Option<String>,
    /// Only deliveries with this text in the body or in a response, within the first 8,192 characters. Redacted values
    /// are not found.
    pub contains: Option<String>,
    /// Only deliveries with these ids, at most 100, separated by commas.
    pub ids: Option<String>,
    /// The `next` of the previous page.
    pub before: Option<String>,
    /// Only deliveries newer than this delivery.
    pub after: Option<String>,
    /// 1 to 100. Default: 50.
    pub limit: Option<usize>,
}

/// Selects the deliveries of a webhook's list. A delivery must meet all conditions.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryFilter {
    /// Only deliveries in this state, or in one of several states separated by commas.
    pub state: Option<String>,
    /// Only deliveries of events of this type, or of types such as `order.*`.
    pub r#type: Option<String>,
    /// Only deliveries whose last response has this status, such as `503`, or a status of this class, such as `5xx`.
    pub status: Option<String>,
    /// Only deliveries whose last attempt has this outcome, such as `timed_out`.
    pub outcome: Option<String>,
    /// Only deliveries with this reason.
    pub reason: Option<String>,
    /// Only deliveries of events accepted at or after this time.
    pub since: Option<String>,
    /// Only deliveries of events accepted before this time.
    pub until: Option<String>,
    /// Only deliveries with this text in the body or in a response, within the first 8,192 characters. Redacted values
    /// are not found.
    pub contains: Option<String>,
    /// The `next` of the previous page.
    pub before: Option<String>,
    /// Only deliveries newer than this delivery.
    pub after: Option<String>,
    /// 1 to 100. Default: 50.
    pub limit: Option<usize>,
}

impl From<HistoryFilter> for Filter {
    fn from(filter: HistoryFilter) -> Self {
        let HistoryFilter { state, r#type, status, outcome, reason, since, until, contains, before, after, limit } =
            filter;
        Self { state, r#type, status, outcome, reason, since, until, contains, before, after, limit, ..Self::default() }
    }
}

impl Filter {
    pub(crate) fn parse(&self) -> Result<(DeliveryFilter, PageSize), ApiError> {
        let size = page_size(self.limit)?;
        self.contains.as_deref().map(|text| check_display_name("contains", text)).transpose()?;
        let filter = DeliveryFilter {
            endpoint: self.webhook.as_deref().map(|text| id("webhook", text)).transpose()?,
            event: self.event.as_deref().map(|text| id("event", text)).transpose()?,
            states: self.state.as_deref().map(delivery_states).transpose()?.unwrap_or_default(),
            ids: self.ids.as_deref().map(parse_ids).transpose()?,
            since: self.since.as_deref().map(|text| timestamp("since", text)).transpose()?,
            until: self.until.as_deref().map(|text| timestamp("until", text)).transpose()?,
            event_type: self.r#type.as_deref().map(event_types).transpose()?,
            status: self.status.as_deref().map(statuses).transpose()?,
            outcome: self.outcome.as_deref().map(|text| word("outcome", text, &Outcome::CODES)).transpose()?,
            reason: self.reason.as_deref().map(|text| word("reason", text, &reasons())).transpose()?,
            contains: self.contains.clone(),
            before: self.before.as_deref().map(|text| id("before", text)).transpose()?,
            after: self.after.as_deref().map(|text| id("after", text)).transpose()?,
            with_bodies: false,
            limit: size.rows(),
        };
        Ok((filter, size))
    }
}

fn parse_ids(text: &str) -> Result<Vec<DeliveryId>, ApiError> {
    let ids = text.split(',').map(|text| id("ids", text.trim())).collect::<Result<Vec<_>, _>>()?;
    if ids.len() > MAX_IDS {
        return Err(ApiError::invalid("ids", format!("must have at most {MAX_IDS} ids")));
    }
    Ok(ids)
}

/// Parses states separated by commas, each kept once.
pub(crate) fn delivery_states(text: &str) -> Result<Vec<State>, ApiError> {
    let words = State::ALL.map(State::as_str);
    let mut states = Vec::new();
    for text in text.split(',') {
        let state = State::parse(word("state", text.trim(), &words)?);
        states.extend(state.filter(|state| !states.contains(state)));
    }
    Ok(states)
}

/// Parses a type, or a wildcard such as `order.*`.
pub(crate) fn event_types(text: &str) -> Result<Subscription, ApiError> {
    Subscription::parse(text).map_err(|fault| ApiError::invalid("type", fault.message))
}

/// Least and greatest status of `503` or `5xx`.
fn statuses(text: &str) -> Result<(u16, u16), ApiError> {
    let class = |digit: &str| digit.parse::<u16>().ok().map(|class| (class * 100, class * 100 + 99));
    let status = || text.parse::<u16>().ok().map(|status| (status, status));
    let range = if text.len() == 3 { text.strip_suffix("xx").map_or_else(status, class) } else { None };
    range
        .filter(|(least, greatest)| *least >= 100 && *greatest <= 599)
        .ok_or_else(|| ApiError::invalid("status", "must be a status such as 503, or a class such as 5xx"))
}

/// All reasons of a state.
fn reasons() -> Vec<&'static str> {
    FailureReason::ALL.map(FailureReason::as_str).into_iter().chain(QueueReason::ALL.map(QueueReason::as_str)).collect()
}

fn word(field: &str, text: &str, words: &[&'static str]) -> Result<&'static str, ApiError> {
    let known = words.iter().find(|word| **word == text);
    known.copied().ok_or_else(|| ApiError::invalid(field, format!("must be one of {}", words.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_statuses_and_classes() {
        for (text, expected) in [("503", Some((503, 503))), ("5xx", Some((500, 599))), ("1xx", Some((100, 199)))] {
            assert_eq!(statuses(text).ok(), expected, "{text}");
        }
        for text in ["", "5", "50", "5x", "xx", "0xx", "6xx", "9xx", "099", "600", "5XX", "+20", "5000", "-xx", "üx"] {
            assert_eq!(statuses(text).map_err(|error| error.field), Err(Some("status".to_owned())), "{text}");
        }
    }

    #[test]
    fn reads_states_once_each() {
        let states = |text| delivery_states(text).ok();
        assert_eq!(states("failed,held, failed"), Some(vec![State::Failed, State::Held]));
        assert_eq!((states(""), states("failed,"), states("lost")), (None, None, None));
    }
}
