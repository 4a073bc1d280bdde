//! `/api/v1/webhooks/preview`: checks a URL and subscriptions before a webhook is created or changed.

use axum::extract::State;
use fanfare_domain::event::{EventType, subscription::Subscription};
use fanfare_store::RecentTypes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    http::{
        answer::Answer,
        authentication::AuthorizedApplication,
        body::JsonBody,
        error::{ApiError, Failures},
    },
    state::ApiState,
};

/// The number of the newest events to count.
const MAX_COUNTED: usize = 5000;

/// Settings of a webhook to check.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WebhookPreview)]
pub struct New {
    pub url: Option<String>,
    /// Subscriptions to event types.
    pub events: Option<Vec<String>>,
}

/// Result of the checks.
#[derive(Debug, Serialize, ToSchema)]
pub struct Preview {
    /// `null` without a URL in the request.
    pub url: Option<CheckedUrl>,
    /// `null` without subscriptions in the request.
    pub events: Option<CountedEvents>,
}

/// Result of the check of a URL.
#[derive(Debug, Serialize, ToSchema)]
pub struct CheckedUrl {
    /// True if a webhook may have the URL.
    pub callable: bool,
    /// The reason of a refusal.
    pub problem: Option<String>,
}

/// The newest events of the application that the subscriptions match.
#[derive(Debug, Serialize, ToSchema)]
pub struct CountedEvents {
    pub matched: i64,
    /// The matched events of the last hour.
    pub matched_last_hour: i64,
    /// The number of counted events: the newest 5,000, without tests.
    pub of: i64,
    /// The acceptance of the oldest counted event.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// The subscriptions that match no described event type.
    pub warnings: Vec<String>,
}

impl CountedEvents {
    fn new(recent: &RecentTypes, subscriptions: &[Subscription], warnings: Vec<String>) -> Self {
        let is_matched = |name: &str| {
            let event_type = EventType::parse(name);
            event_type.is_ok_and(|name| subscriptions.iter().any(|subscription| subscription.covers(&name)))
        };
        let mut counted = Self { matched: 0, matched_last_hour: 0, of: 0, since: recent.since, warnings };
        for (name, number, of_last_hour) in &recent.types {
            counted.of += number;
            if is_matched(name) {
                counted.matched += number;
                counted.matched_last_hour += of_last_hour;
            }
        }
        counted
    }
}

/// Checks the URL and the subscriptions of a webhook, and counts the newest events that the subscriptions match.
/// Changes nothing.
#[utoipa::path(post, path = "/webhooks/preview", operation_id = "preview_webhook", tag = "webhooks",
    request_body = New, responses((status = 200, body = Answer<Preview>), Failures))]
pub async fn show(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    JsonBody(new): JsonBody<New>,
) -> Result<Answer<Preview>, ApiError> {
    let url = match &new.url {
        Some(url) => Some(match api.url_to_try(url).await {
            Ok(_) => CheckedUrl { callable: true, problem: None },
            Err(refusal) => CheckedUrl { callable: false, problem: Some(refusal.message) },
        }),
        None => None,
    };
    let events = match &new.events {
        Some(events) => Some(api.counted(&authorized, events).await?),
        None => None,
    };
    Ok(Answer::of(Preview { url, events }))
}

impl ApiState {
    async fn counted(&self, authorized: &AuthorizedApplication, events: &[String]) -> Result<CountedEvents, ApiError> {
        let rules = self.rules_of(authorized).await?;
        let warnings = rules.catalogue.check_subscriptions("events", events, rules.is_strict)?;
        let subscriptions = events.iter().map(|text| Subscription::parse(text)).collect::<Result<Vec<_>, _>>()?;
        let recent = self.store.recent_types(authorized.application, MAX_COUNTED).await?;
        Ok(CountedEvents::new(&recent, &subscriptions, warnings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_an_event_once_whatever_subscriptions_match() {
        let types = [("a.b", 3, 1), ("a.c", 2, 0), ("d", 5, 5)].map(|(name, all, hour)| (name.to_owned(), all, hour));
        let recent = RecentTypes { types: types.to_vec(), since: None };
        let parse = |text: &str| Subscription::parse(text).expect("a subscription");
        let counted = CountedEvents::new(&recent, &[parse("a.*"), parse("a.b")], Vec::new());
        assert_eq!((counted.matched, counted.matched_last_hour, counted.of), (5, 1, 10));
    }
}
