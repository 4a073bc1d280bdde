//! The edit of a parked message, its review, and the put-back.

use askama::Template;
use axum::{body::Bytes, extract::State, response::Response};
use fanfare_api::{
    ApiError,
    http::{
        body::{OptionalJsonBody, from_value},
        parameters::Path,
    },
    routes::parked::{self, NewEdit, ParkedDetail},
};
use fanfare_domain::{access::session::Right, event::parked::Edit};
use serde_json::{Map, Value};

use crate::{
    Console,
    frame::{
        Frame,
        fault::Fault,
        form::Fields,
        marks::{Mark, filters},
        respond::{back_to, page, page_with},
    },
    operations::parked::{difference, show::detail},
    session::visitor::Visitor,
};

/// The parts of a message that an edit may change, with their labels.
const PARTS: [(&str, &str); 3] = [("routing_key", "Routing key"), ("message_id", "message_id"), ("body", "Body")];

#[derive(Template)]
#[template(path = "operations/parked/edit.html")]
struct EditForm {
    frame: Frame,
    parked: String,
    fault: String,
    is_text: bool,
    fields: Fields,
}

#[derive(Template)]
#[template(path = "operations/parked/review.html")]
struct Review {
    frame: Frame,
    parked: String,
    /// Label and difference of each changed part.
    differences: Vec<(&'static str, Mark)>,
    /// All fields, to be sent again.
    sent: Vec<(&'static str, String)>,
}

/// Shows the form.
pub(super) async fn form(
    State(console): State<Console>,
    visitor: Visitor,
    Path(parked): Path<String>,
) -> Result<Response, Fault> {
    visitor.require(Right::Operate)?;
    let of = detail(&console, &visitor, &parked).await?;
    let fields = PARTS.iter().fold(Fields::default(), |fields, (part, _)| fields.with(part, value(&of, part)));
    page(&visitor, &edit_form(&visitor, of, fields))
}

fn edit_form(visitor: &Visitor, of: ParkedDetail, fields: Fields) -> EditForm {
    let fault = format!("{}: {}", of.parked.reason, of.parked.message);
    let frame = Frame::new(visitor, "Edit a parked message");
    EditForm { frame, parked: of.parked.id.to_string(), fault, is_text: of.body.is_some(), fields }
}

/// The present value of a part.
fn value<'a>(of: &'a ParkedDetail, part: &str) -> &'a str {
    let found = match part {
        "routing_key" => of.parked.routing_key.as_deref(),
        "message_id" => of.parked.message_id.as_deref(),
        _ => of.body.as_deref(),
    };
    found.unwrap_or_default()
}

/// A part as the form sends it. Browsers end each line with CR LF: the lines end as before.
fn sent(of: &ParkedDetail, fields: &Fields, part: &str) -> String {
    let text = fields.value(part);
    if value(of, part).contains("\r\n") { text.to_owned() } else { text.replace("\r\n", "\n") }
}

/// The changed parts, as the body of the same request to the API.
fn changes(of: &ParkedDetail, fields: &Fields) -> Map<String, Value> {
    let changed = |(part, _): &(&str, &str)| {
        let is_given = fields.names(part);
        let text = sent(of, fields, part);
        (is_given && text != value(of, part)).then(|| ((*part).to_owned(), Value::from(text)))
    };
    PARTS.iter().filter_map(changed).collect()
}

/// The API's request of the changed parts, checked.
fn checked(asked: &Map<String, Value>) -> Result<NewEdit, ApiError> {
    let asked = Value::Object(asked.clone());
    Edit::from(from_value::<NewEdit>(&asked)?).check()?;
    from_value(&asked)
}

/// Shows the changes before and after.
pub(super) async fn review(
    State(console): State<Console>,
    visitor: Visitor,
    Path(parked): Path<String>,
    body: Bytes,
) -> Result<Response, Fault> {
    visitor.require(Right::Operate)?;
    let of = detail(&console, &visitor, &parked).await?;
    let fields = Fields::of_body(&body);
    if fields.has("again", "yes") {
        return page(&visitor, &edit_form(&visitor, of, fields));
    }
    let asked = changes(&of, &fields);
    if let Err(error) = checked(&asked) {
        let status = error.status();
        return page_with(status, &visitor, &edit_form(&visitor, of, fields.refused(error)));
    }
    let differences = PARTS.iter().filter(|(part, _)| asked.contains_key(*part));
    let shown = Review {
        frame: Frame::new(&visitor, "Review the edit"),
        differences: differences
            .map(|(part, label)| (*label, difference::shown(value(&of, part), &sent(&of, &fields, part))))
            .collect(),
        sent: PARTS.iter().map(|(part, _)| (*part, sent(&of, &fields, part))).collect(),
        parked,
    };
    page(&visitor, &shown)
}

/// Puts the message back, with the changed parts.
pub(super) async fn put_back(
    State(console): State<Console>,
    visitor: Visitor,
    Path(parked): Path<String>,
    body: Bytes,
) -> Result<Response, Fault> {
    let administrator = visitor.administrator()?;
    let of = detail(&console, &visitor, &parked).await?;
    let fields = Fields::of_body(&body);
    let asked = changes(&of, &fields);
    let done = match checked(&asked) {
        Ok(edit) => {
            let (api, id) = (console.api.clone(), Path(parked));
            let work = async move {
                parked::put_back(State(api), administrator, id, OptionalJsonBody(edit)).await.map(|done| done.data)
            };
            let asked = if asked.is_empty() { Value::Null } else { Value::Object(asked) };
            visitor.change(&console, Right::Operate, ("put_back_parked", asked), None, work).await
        }
        Err(error) => Err(error),
    };
    match done {
        Ok(_) => Ok(back_to("/console/parked?done=put-back&n=1")),
        // The message cannot be put back unchanged: the form shows which part must change.
        Err(error) => {
            let status = error.status();
            let fields = PARTS.iter().fold(Fields::default(), |known, (part, _)| {
                let text = if fields.names(part) { sent(&of, &fields, part) } else { value(&of, part).to_owned() };
                known.with(part, text)
            });
            page_with(status, &visitor, &edit_form(&visitor, of, fields.refused(error)))
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn message(body: Option<&str>) -> ParkedDetail {
        ParkedDetail {
            parked: parked::Parked {
                id: fanfare_domain::ids::ParkedId::new(Timestamp::UNIX_EPOCH, [1; 10]),
                parked_at: Timestamp::UNIX_EPOCH,
                reason: "missing_message_id".to_owned(),
                message: "no message_id".to_owned(),
                origin: "events",
                routing_key: Some("app_1.order".to_owned()),
                message_id: None,
                bytes: 1,
            },
            headers: None,
            body: body.map(str::to_owned),
            body_base64: None,
        }
    }

    #[test]
    fn line_ends_of_a_browser_are_no_change() {
        let of = message(Some("{\n}"));
        let fields = |body: &str| Fields::of_body(body.as_bytes());
        assert!(changes(&of, &fields("routing_key=app_1.order&message_id=&body=%7B%0D%0A%7D")).is_empty());
        assert!(changes(&message(Some("{\r\n}")), &fields("body=%7B%0D%0A%7D")).is_empty());
        let changed = changes(&of, &fields("routing_key=app_1.order&message_id=a&body=%7B%0D%0A1%7D"));
        assert_eq!(Value::Object(changed), serde_json::json!({ "message_id": "a", "body": "{\n1}" }));
    }

    #[test]
    fn a_form_without_a_part_keeps_the_part() {
        assert!(changes(&message(Some("{}")), &Fields::of_body(b"_form=x")).is_empty());
        assert!(changes(&message(None), &Fields::of_body(b"body=")).is_empty(), "bytes that are no text stay");
    }
}
