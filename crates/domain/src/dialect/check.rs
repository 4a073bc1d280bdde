//! Checks of a dialect: the body is JSON for every event, and each header is set once.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    BodyPlace, DataForm, Dialect, Part,
    file::{Fault, fault},
};
use crate::{
    event::{Event, cloud_event::CloudEvent},
    json,
};

/// Attributes that `<cloud_event_attributes>` never contains.
const OTHER_ATTRIBUTES: [&str; 6] = ["specversion", "id", "source", "type", "time", "data"];

/// Name of an extension, to find the place of `<cloud_event_attributes>`.
const MARK: &str = "extensiontofindtheplace";

impl Dialect {
    pub(super) fn check_headers(&self) -> Result<(), Fault> {
        let signature = self.signature.as_ref().map(|signature| &signature.header);
        match self.headers.iter().find(|(name, _)| Some(name) == signature) {
            Some((name, _)) => Err(fault(&format!("headers.{name}"), "is the signature's header, too")),
            None => Ok(()),
        }
    }

    /// Checks that the body is JSON for every event, by rendering data of each kind, with and without attributes of
    /// CloudEvents.
    pub(super) fn check_body(&self) -> Result<(), Fault> {
        self.example_body().map_err(|reason| fault("event_types[0].sample", reason))?;
        let (attributes, quote) = ([(MARK.to_owned(), "true".to_owned())], "\"\\".to_owned());
        let event = CloudEvent { id: quote, source: "/a".to_owned(), attributes: BTreeMap::from(attributes) };
        for cloud_event in [None, Some(event)] {
            for data in ["null", "\"text\"", "1", "[1]", "{\"a\":1}"] {
                self.check_body_of(&Event {
                    data: data.to_owned(),
                    cloud_event: cloud_event.clone(),
                    ..self.example()
                })?;
            }
        }
        self.check_attributes()
    }

    fn check_body_of(&self, event: &Event) -> Result<(), Fault> {
        let body = self.render_body(event, Timestamp::UNIX_EPOCH).map_err(|reason| fault("body.template", reason))?;
        let printed = json::print_as_node(&body).map_err(|reason| {
            fault("body.template", format!("gives no JSON: {reason}, in {body} (placeholders stand for whole values)"))
        })?;
        if self.body.data == DataForm::AsNode && printed != body {
            let reason =
                format!("does not give what Node prints, as data = \"as_node\" promises: {body} and not {printed}");
            return Err(fault("body.template", reason));
        }
        match serde_json::from_str(&body).ok().as_ref().and_then(beside_mark) {
            Some(name) => {
                let reason = format!(
                    "has \"{name}\" beside <cloud_event_attributes>, and an extension may have this name, too: put the \
                     placeholder into an object of its own"
                );
                Err(fault("body.template", reason))
            }
            None => Ok(()),
        }
    }

    fn check_attributes(&self) -> Result<(), Fault> {
        let is_place = |part: &&Part<BodyPlace>| **part == Part::Place(BodyPlace::CloudEventAttributes);
        match self.body.template.parts().iter().filter(is_place).count() {
            0 => Ok(()),
            1 if self.body.data == DataForm::AsNode => {
                let reason = "has <cloud_event_attributes>, whose order is not Node's, as data = \"as_node\" promises";
                Err(fault("body.template", reason))
            }
            1 => Ok(()),
            _ => Err(fault("body.template", "has <cloud_event_attributes> more than once")),
        }
    }
}

/// A member beside [`MARK`] that may also be the name of an extension.
fn beside_mark(value: &Value) -> Option<&str> {
    match value {
        Value::Array(items) => items.iter().find_map(beside_mark),
        Value::Object(members) => {
            let is_extension = |name: &str| {
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
                    && ![&OTHER_ATTRIBUTES[..], &[MARK]].concat().contains(&name)
            };
            let mut names = members.keys().map(String::as_str).filter(|_| members.contains_key(MARK));
            names.find(|name| is_extension(name)).or_else(|| members.values().find_map(beside_mark))
        }
        _ => None,
    }
}
