//! The form of a webhook, for a new and for a known webhook.

pub(crate) mod creation;
pub(crate) mod credentials;
pub(crate) mod edit;
pub(crate) mod filter;
pub(crate) mod picker;
pub(crate) mod settings;
pub(crate) mod template;

use std::borrow::Cow;

use axum::extract::State;
use fanfare_api::{
    http::{
        body::{JsonBody, from_value},
        error::ApiError,
    },
    routes::{
        event_types::DescribedType,
        webhooks::{
            Webhook,
            filter_test::FilterTest,
            preview::{self, CheckedUrl, CountedEvents},
            templates::TemplateTest,
        },
    },
};
use serde_json::{Value, json};

use crate::{
    Console,
    application::webhooks::form::picker::{Picker, subscriptions},
    frame::{form::Fields, marks, place::Place},
};

/// The content of the form.
pub(crate) struct WebhookForm {
    pub(crate) fields: Fields,
    pub(crate) picker: Picker,
    pub(crate) checked: Checked,
    /// True before the webhook is created.
    pub(crate) is_new: bool,
    /// Names of the present headers.
    pub(crate) headers: String,
    /// Subject of the present client certificate.
    pub(crate) certificate: Option<String>,
    /// Members of samples, as suggestions for a condition.
    pub(crate) members: Vec<String>,
}

/// Result of the checks that the form asks for.
#[derive(Default)]
pub(crate) struct Checked {
    pub(crate) url: Option<CheckedUrl>,
    pub(crate) events: Option<CountedEvents>,
    /// Trial of the filter.
    pub(crate) filter: Option<FilterTest>,
    /// Bodies by the template.
    pub(crate) template: Option<TemplateTest>,
    /// Body by the chosen preset for a sample.
    pub(crate) sample: Option<String>,
}

impl WebhookForm {
    pub(crate) fn new(described: &[DescribedType], fields: Fields) -> Self {
        let (picker, members) = (Picker::new(described, &fields), filter::members(described, &fields));
        Self {
            picker,
            fields,
            checked: Checked::default(),
            is_new: true,
            headers: String::new(),
            certificate: None,
            members,
        }
    }

    /// The form of a known webhook.
    pub(crate) fn of_known(self, webhook: &Webhook) -> Self {
        let certificate = webhook.client_certificate.as_ref().map(|certificate| certificate.subject.clone());
        Self { is_new: false, headers: webhook.headers.join(", "), certificate, ..self }
    }

    /// Adds the result of the checks.
    pub(crate) fn checked(self, checked: Checked) -> Self {
        Self { checked, ..self }
    }

    /// The comparisons of a condition.
    pub(crate) fn comparisons(&self) -> &'static [(&'static str, &'static str)] {
        &filter::COMPARISONS
    }

    /// The choices of FIFO, with the present rule.
    pub(crate) fn fifo_choices(&self) -> Vec<(&str, Cow<'static, str>)> {
        let (chosen, usual) = (self.fields.value("fifo"), settings::FIFO_CHOICES);
        let own = (!usual.iter().any(|(value, _)| *value == chosen)).then(|| (chosen, settings::fifo_in_words(chosen)));
        let usual = usual.into_iter().map(|(value, label)| (value, Cow::from(label)));
        usual.chain(own.map(|(value, label)| (value, Cow::from(label)))).collect()
    }

    /// The presets of templates.
    pub(crate) fn presets(&self) -> &'static [(&'static str, &'static str)] {
        &template::CHOICES
    }

    /// What the receiver of the chosen preset needs.
    pub(crate) fn note(&self) -> Option<&'static str> {
        template::chosen(&self.fields).map(|preset| preset.note)
    }

    /// True if the template is shown open.
    pub(crate) fn has_template(&self) -> bool {
        let has_error = ["template", "preset"].iter().any(|name| self.fields.error_of(name).is_some());
        has_error || self.fields.given("template").is_some()
    }

    /// The choices of an authentication.
    pub(crate) fn authentications(&self) -> &'static [(&'static str, &'static str)] {
        &credentials::TYPES
    }

    /// The choices of a client's authentication at the token server.
    pub(crate) fn client_authentications(&self) -> &'static [(&'static str, &'static str)] {
        &credentials::PLACES
    }

    /// True if the authentication is shown open.
    pub(crate) fn has_credentials(&self) -> bool {
        let is_used = |name: &&str| self.fields.given(name).is_some() || self.fields.error_of(name).is_some();
        credentials::FIELDS.iter().any(is_used)
    }

    /// True if the further settings are shown open: a field has a value or an error.
    pub(crate) fn has_more(&self) -> bool {
        const MORE: [&str; 12] = [
            "secret",
            "schedule",
            "timeout_ms",
            "rate_per_second",
            "headers",
            "email",
            "paused",
            "trace_context",
            "feed",
            "fifo",
            "digest",
            "asymmetric",
        ];
        MORE.iter().any(|name| self.fields.given(name).is_some() || self.fields.error_of(name).is_some())
    }
}

/// The work that a button of the form asks for, beside saving: checks the form, tries the filter or the template, adds
/// a condition, or fills in a preset. `None` for other buttons.
pub(crate) async fn help(
    console: &Console,
    place: &Place,
    fields: &Fields,
    described: &[DescribedType],
) -> Option<Result<WebhookForm, ApiError>> {
    let form = |fields: Fields| WebhookForm::new(described, fields);
    Some(match fields.value("intent") {
        "check" => check(console, place, fields, described).await.map(|checked| form(fields.clone()).checked(checked)),
        "try" => filter::try_out(console, place, fields, described).await.map(|tried| {
            let checked = Checked { filter: Some(tried), ..Checked::default() };
            form(fields.clone()).checked(checked)
        }),
        "condition" => filter::with_condition(fields).map(form),
        "preset" => template::with_preset(console, place, fields).await.map(|(filled, sample)| {
            let checked = Checked { sample, ..Checked::default() };
            form(filled).checked(checked)
        }),
        "preview" => template::try_out(console, place, fields, described).await.map(|tried| {
            let checked = Checked { template: Some(tried), ..Checked::default() };
            form(fields.clone()).checked(checked)
        }),
        _ => return None,
    })
}

/// The number of matched events, as a sentence.
pub(crate) fn counted_in_words(counted: &CountedEvents) -> String {
    if counted.of == 0 {
        return "No event was published yet.".to_owned();
    }
    format!(
        "This endpoint would have got {} of the last {} events, {} in the last hour.",
        marks::number(&counted.matched),
        marks::number(&counted.of),
        marks::number(&counted.matched_last_hour)
    )
}

/// Checks the URL and the subscriptions of the form, if given.
pub(crate) async fn check(
    console: &Console,
    place: &Place,
    fields: &Fields,
    described: &[DescribedType],
) -> Result<Checked, ApiError> {
    let events = subscriptions(described, fields);
    let asked = json!({
        "url": fields.given("url"),
        "events": if events.is_empty() { Value::Null } else { Value::from(events) },
    });
    let body = JsonBody(from_value(&asked)?);
    let found = preview::show(State(console.api.clone()), place.authorized(), body).await?.data;
    Ok(Checked { url: found.url, events: found.events, ..Checked::default() })
}
