//! `/api/v1/webhooks/template-test` and `/api/v1/webhook-templates`: renders a template on the last events, and lists
//! the templates to begin with. Also checks a template before it is saved.

use axum::extract::State;
use fanfare_domain::{
    application::Application,
    endpoint::{
        filter::Filter,
        redaction::HIDDEN,
        template::{self, SAMPLE_DATA, SAMPLE_ID, SAMPLE_TYPE, Template, TemplateEvent, TemplateFault},
    },
    event::{EventType, catalogue::EMPTY_SAMPLE, subscription::Subscription},
    expression::Outcome,
    ids::EventId,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use utoipa::ToSchema;

use super::{
    settings::parsed_filter,
    tried::{Tried, samples, subscriptions},
};
use crate::{
    http::{
        answer::Answer,
        authentication::AuthorizedApplication,
        body::JsonBody,
        error::{ApiError, Failures},
    },
    state::{ApiState, beside_others},
};

/// The maximum number of tried events: each result has a body.
pub const MAX_TRIED: usize = 5;

/// The maximum number of samples and events that a template must render before it is saved.
const MAX_CHECKED: usize = 50;

/// Template to try.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewTemplateTest)]
pub struct New {
    /// A JSON value. Its texts may hold `{{ expression }}`.
    #[schema(value_type = Value, example = json!({ "text": "{{ type }}: {{ data.amount }}" }))]
    pub template: Value,
    /// Subscriptions. Default: all types.
    pub events: Option<Vec<String>>,
    /// At most 5. Default: the last events.
    pub event_ids: Option<Vec<String>>,
    /// Filter of the webhook: events that do not meet it need no body.
    #[schema(example = "data.amount > 100")]
    pub filter: Option<String>,
}

/// Bodies by a template.
#[derive(Debug, Serialize, ToSchema)]
pub struct TemplateTest {
    /// `events`, or `samples` without events.
    pub tried_on: &'static str,
    /// The number of results with a body.
    pub rendered: usize,
    /// Why a webhook with this template cannot be saved; `null` if it can.
    pub save_error: Option<String>,
    pub results: Vec<TemplateResult>,
}

/// Body by a template for an event.
#[derive(Debug, Serialize, ToSchema)]
pub struct TemplateResult {
    #[schema(value_type = Option<String>)]
    pub event: Option<EventId>,
    pub r#type: String,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub accepted_at: Option<Timestamp>,
    /// The body; `null` without a body.
    #[schema(value_type = Value)]
    pub body: Option<Box<RawValue>>,
    /// Why there is no body.
    pub error: Option<String>,
    /// JSON pointer to the text of the template at fault.
    pub pointer: Option<String>,
    /// The placeholder at fault.
    pub expression: Option<String>,
}

/// A template to begin with.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookTemplate {
    /// `slack`, `teams`, `discord`, `pagerduty` or `zapier`.
    #[schema(example = "slack")]
    pub name: &'static str,
    pub title: &'static str,
    /// What the receiver needs, and its bounds.
    pub note: &'static str,
    /// The template, for `template` of a webhook.
    #[schema(value_type = Value)]
    pub template: &'static RawValue,
    /// The body for a sample.
    #[schema(value_type = Value)]
    pub sample: Box<RawValue>,
}

/// Renders a template on the last 5 events, or on samples. Redacted members have the value `[redacted]` here.
#[utoipa::path(post, path = "/webhooks/template-test", operation_id = "test_template", tag = "webhooks",
    request_body = New, responses((status = 200, body = Answer<TemplateTest>), Failures))]
pub async fn run(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    JsonBody(new): JsonBody<New>,
) -> Result<Answer<TemplateTest>, ApiError> {
    api.test_template(&authorized, new).await.map(Answer::of)
}

/// Lists templates of well-known receivers, each with the body for a sample.
#[utoipa::path(get, path = "/webhook-templates", operation_id = "list_webhook_templates", tag = "webhooks",
    responses((status = 200, body = Answer<Vec<WebhookTemplate>>), Failures))]
pub async fn list(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
) -> Result<Answer<Vec<WebhookTemplate>>, ApiError> {
    let application = api.known_application(&authorized)?;
    Ok(Answer::of(presets(&application)))
}

/// The templates to begin with.
fn presets(application: &Application) -> Vec<WebhookTemplate> {
    let Ok(event_type) = EventType::parse(SAMPLE_TYPE) else { return Vec::new() };
    let preset = |preset: &template::Preset| {
        let data = serde_json::from_str(SAMPLE_DATA).unwrap_or_default();
        let mut event = TemplateEvent::of_sample(&application.dialect, &event_type, SAMPLE_ID, data);
        let body = Template::parse(preset.template).and_then(|template| template.render(&mut event)).ok()?;
        Some(WebhookTemplate {
            name: preset.name,
            title: preset.title,
            note: preset.note,
            template: serde_json::from_str(preset.template).ok()?,
            sample: RawValue::from_string(body).ok()?,
        })
    };
    template::PRESETS.iter().filter_map(preset).collect()
}

/// Parses a template of a request.
///
/// # Errors
/// With the place and the reason.
pub fn parsed_template(template: &Value) -> Result<Template, ApiError> {
    Template::of(template).map_err(|fault| unusable(&fault))
}

fn unusable(fault: &TemplateFault) -> ApiError {
    ApiError::invalid("template", format!("cannot be used: {fault}"))
}

impl ApiState {
    /// Renders a template on the last events.
    ///
    /// # Errors
    /// For a template that cannot be used, with the place and the reason.
    pub async fn test_template(&self, authorized: &AuthorizedApplication, new: New) -> Result<TemplateTest, ApiError> {
        let template = parsed_template(&new.template)?;
        let filter = new.filter.as_deref().map(parsed_filter).transpose()?;
        let asked = (new.events.as_deref(), new.event_ids.as_deref());
        let (tried_on, tried) = self.to_try(authorized, asked, MAX_TRIED).await?;
        let application = self.known_application(authorized)?;
        let permit = self.test_sends.begin(authorized.application)?;
        let trying = move || {
            let result = |tried: Tried| TemplateResult::of(&tried, rendered(&template, &application, &tried));
            let results: Vec<TemplateResult> = tried.into_iter().map(result).collect();
            drop(permit);
            results
        };
        let results = beside_others(trying).await?;
        let rendered = results.iter().filter(|result| result.body.is_some()).count();
        let all = || vec![Subscription::All.to_string()];
        let checked = self
            .check_template(authorized, parsed_template(&new.template)?, &new.events.unwrap_or_else(all), filter)
            .await;
        let save_error = match checked {
            Ok(()) => None,
            Err(error) if error.field.as_deref() == Some("template") => Some(error.message),
            Err(error) => return Err(error),
        };
        Ok(TemplateTest { tried_on, rendered, save_error, results })
    }

    /// Renders a template on the newest event, or else on the sample, of each type that a webhook gets. An event that
    /// does not meet the filter is left out.
    ///
    /// # Errors
    /// For the first event without a body, with the place and the reason.
    pub(super) async fn check_template(
        &self,
        authorized: &AuthorizedApplication,
        template: Template,
        events: &[String],
        filter: Option<Filter>,
    ) -> Result<(), ApiError> {
        let rules = self.rules_of(authorized).await?;
        let subscriptions: Vec<Subscription> = subscriptions(Some(events))?;
        // The result on an event would tell something about its payload.
        let mut tried = match authorized.may_see_payloads {
            true => self.last_events(authorized, &subscriptions, MAX_CHECKED).await?,
            false => Vec::new(),
        };
        tried.extend(samples(&rules.catalogue, &subscriptions, MAX_CHECKED));
        let application = self.known_application(authorized)?;
        let permit = self.test_sends.begin(authorized.application)?;
        let checking = move || {
            let _permit = permit;
            let mut known = Vec::new();
            for tried in tried.iter().filter(|tried| tried.event.is_some() || tried.body != EMPTY_SAMPLE) {
                if known.contains(&&tried.event_type) || !passes(filter.as_ref(), &application, tried) {
                    continue;
                }
                known.push(&tried.event_type);
                match rendered(&template, &application, tried) {
                    // The template may need a value that is hidden here.
                    Err(_) if tried.body.contains(HIDDEN) => {}
                    Err(fault) => {
                        let of = match tried.event {
                            Some(event) => format!("event {event} of the type {}", tried.event_type),
                            None => format!("the sample of {}", tried.event_type),
                        };
                        return Err(ApiError::invalid("template", format!("has no body for {of}: {fault}")));
                    }
                    Ok(_) => {}
                }
            }
            Ok(())
        };
        beside_others(checking).await?
    }
}

fn passes(filter: Option<&Filter>, application: &Application, tried: &Tried) -> bool {
    filter.is_none_or(|filter| tried.filtered(application).outcome(filter).0 == Outcome::True)
}

fn rendered(template: &Template, application: &Application, tried: &Tried) -> Result<String, TemplateFault> {
    let (dialect, event_type) = (&application.dialect, &tried.event_type);
    let mut event = match tried.event.zip(tried.accepted_at) {
        Some((event, accepted_at)) => TemplateEvent::new(dialect, event_type, (accepted_at, event), &tried.body),
        None => {
            let data = serde_json::from_str(&tried.body).unwrap_or_default();
            TemplateEvent::of_sample(dialect, event_type, SAMPLE_ID, data)
        }
    };
    template.render(&mut event)
}

impl TemplateResult {
    fn of(tried: &Tried, rendered: Result<String, TemplateFault>) -> Self {
        let (body, fault) = match rendered {
            Ok(body) => (RawValue::from_string(body).ok(), None),
            Err(fault) => (None, Some(fault)),
        };
        Self {
            event: tried.event,
            r#type: tried.event_type.to_string(),
            accepted_at: tried.accepted_at,
            body,
            error: fault.as_ref().map(ToString::to_string),
            pointer: fault.as_ref().map(|fault| fault.pointer.clone()),
            expression: fault.and_then(|fault| fault.expression),
        }
    }
}
