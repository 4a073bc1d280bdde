//! The template of a webhook's form: presets that fill the field, and the preview of the bodies.

use axum::extract::State;
use fanfare_api::{
    http::{body::from_value, error::ApiError},
    routes::{
        event_types::DescribedType,
        webhooks::templates::{self, TemplateResult, TemplateTest},
    },
};
use fanfare_domain::{
    access::session::Right,
    endpoint::template::{PRESETS, Preset, Template},
};
use serde_json::{Value, json};

use crate::{
    Console,
    application::webhooks::form::picker::subscriptions,
    frame::{form::Fields, place::Place},
};

/// The presets: the value of the choice, and its label.
pub(crate) const CHOICES: [(&str, &str); PRESETS.len()] = {
    let mut choices = [("", ""); PRESETS.len()];
    let mut position = 0;
    while position < choices.len() {
        choices[position] = (PRESETS[position].name, PRESETS[position].title);
        position += 1;
    }
    choices
};

/// The preset that the form has chosen.
pub(crate) fn chosen(fields: &Fields) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == fields.value("preset"))
}

/// Puts the chosen preset in the place of the template. Returns the body for a sample, too.
pub(crate) async fn with_preset(
    console: &Console,
    place: &Place,
    fields: &Fields,
) -> Result<(Fields, Option<String>), ApiError> {
    let filled = filled(fields)?;
    let listed = templates::list(State(console.api.clone()), place.authorized()).await?.data;
    let chosen = listed.into_iter().find(|template| template.name == filled.value("preset"));
    Ok((filled, chosen.map(|template| shown(template.sample.get()))))
}

/// The fields with the chosen preset as the template.
///
/// # Errors
/// For an unknown preset.
fn filled(fields: &Fields) -> Result<Fields, ApiError> {
    let preset =
        chosen(fields).ok_or_else(|| ApiError::invalid("preset", "must be one of the receivers of the form"))?;
    let others = fields.others(&["template"]);
    let others = others.into_iter().fold(Fields::default(), |fields, (name, value)| fields.with(name, value));
    Ok(others.with("template", preset.template.trim_end()))
}

/// The template of the form; `None` for an empty field.
///
/// # Errors
/// For a text that is no template, with the place and the reason.
pub(crate) fn value(fields: &Fields) -> Result<Option<Value>, ApiError> {
    let Some(text) = fields.given("template") else { return Ok(None) };
    let unusable = |reason: String| ApiError::invalid("template", format!("cannot be used: {reason}"));
    let template = Template::parse(text).map_err(|fault| unusable(fault.to_string()))?;
    serde_json::from_str(template.text()).map(Some).map_err(|error| unusable(error.to_string()))
}

/// A template as the field shows it.
pub(crate) fn shown(template: &str) -> String {
    let value = serde_json::from_str::<Value>(template).ok();
    value.and_then(|value| serde_json::to_string_pretty(&value).ok()).unwrap_or_default()
}

/// Renders the template of the form on the last events of the chosen types.
pub(crate) async fn try_out(
    console: &Console,
    place: &Place,
    fields: &Fields,
    described: &[DescribedType],
) -> Result<TemplateTest, ApiError> {
    place.visitor.require(Right::Payloads)?;
    let template = value(fields)?.ok_or_else(|| ApiError::invalid("template", "is empty: choose a receiver first"))?;
    let events = subscriptions(described, fields);
    let events = if events.is_empty() { Value::Null } else { Value::from(events) };
    let filter = fields.given("filter");
    let asked = from_value(&json!({ "template": template, "events": events, "filter": filter }))?;
    console.api.test_template(&place.authorized(), asked).await
}

/// The number of bodies, as a sentence.
pub(crate) fn rendered_in_words(test: &TemplateTest) -> String {
    let of = if test.tried_on == "samples" { "samples of the event types" } else { "last events" };
    match test.results.len() {
        0 => "There is no event of these types, and no sample to try the template on.".to_owned(),
        number => format!("{} of the {number} {of} have a body.", test.rendered),
    }
}

/// Longest shown body, in characters.
const MAX_SHOWN: usize = 4000;

/// The body of a result with line breaks, or the reason why there is none.
pub(crate) fn body(result: &TemplateResult) -> String {
    let Some(body) = &result.body else { return result.error.clone().unwrap_or_default() };
    let text = shown(body.get());
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_fills_the_field() {
        for preset in &PRESETS {
            let fields = Fields::default().with("url", "u").with("template", "old").with("preset", preset.name);
            let filled = filled(&fields).unwrap_or_default();
            assert_eq!((filled.value("url"), filled.value("template")), ("u", preset.template.trim_end()));
            assert!(value(&filled).is_ok_and(|template| template.is_some()), "{}", preset.name);
        }
        assert!(filled(&Fields::default().with("preset", "fax")).is_err());
    }

    #[test]
    fn a_text_that_is_no_template_is_refused_with_the_place() {
        let refused = |text: &str| value(&Fields::default().with("template", text)).map_err(|error| error.message);
        assert_eq!(refused(" ").ok(), Some(None));
        assert!(refused("{").is_err_and(|message| message.contains("line 1")));
        assert!(refused(r#"{"a":"{{ b }}"}"#).is_err_and(|message| message.contains("/a, character 4")));
    }
}
