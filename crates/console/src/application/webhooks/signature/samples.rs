//! Code that verifies a delivery, in five languages, for the signature of the application's dialect.

use askama::Template;
use axum::extract::State;
use fanfare_api::{
    http::{authentication::KeyApplication, error::ApiError, parameters::Path},
    routes::applications,
};
use fanfare_domain::dialect::{Dialect, Part, SignatureEncoding, SignatureKey, SignaturePlace, SignedPlace};

use crate::{
    Console,
    frame::{fault::Fault, place::Place},
};

/// Prefix of the ids in `webhook-id`.
const EVENT_PREFIX: &str = "evt";

/// Code in each language.
pub(crate) struct Samples {
    /// Name of the signature header.
    pub(crate) header: String,
    /// True if the header belongs to the dialect. Libraries of Standard Webhooks verify the other header.
    pub(crate) is_own: bool,
    pub(crate) languages: Vec<Sample>,
}

/// Code in a language.
pub(crate) struct Sample {
    pub(crate) label: &'static str,
    /// Id of the code's element.
    pub(crate) id: &'static str,
    pub(crate) code: String,
}

/// A piece of the signed text, or of the header's value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Body,
    EventId,
    Timestamp,
    Signature,
}

/// A signature, as the code must compute it.
struct Form {
    header: String,
    is_own: bool,
    key: SignatureKey,
    encoding: SignatureEncoding,
    signs: Vec<Piece>,
    value: Vec<Piece>,
    /// Prefix of event ids in the signed text, if other than in `webhook-id`.
    prefix: Option<String>,
}

impl Form {
    /// The form of Standard Webhooks.
    fn standard() -> Self {
        let text = |text: &str| Piece::Text(text.to_owned());
        Self {
            header: "webhook-signature".to_owned(),
            is_own: false,
            key: SignatureKey::Bytes,
            encoding: SignatureEncoding::Base64,
            signs: vec![Piece::EventId, text("."), Piece::Timestamp, text("."), Piece::Body],
            value: vec![text("v1,"), Piece::Signature],
            prefix: None,
        }
    }

    /// The dialect's own form, if any, else the form of Standard Webhooks.
    fn of(dialect: &Dialect) -> Self {
        let Some(form) = &dialect.signature else { return Self::standard() };
        let signed = |part: &Part<SignedPlace>| match part {
            Part::Text(text) => Piece::Text(text.clone()),
            Part::Place(SignedPlace::Body) => Piece::Body,
            Part::Place(SignedPlace::EventId) => Piece::EventId,
            Part::Place(SignedPlace::Timestamp) => Piece::Timestamp,
        };
        let shown = |part: &Part<SignaturePlace>| match part {
            Part::Text(text) => Piece::Text(text.clone()),
            Part::Place(SignaturePlace::Signature) => Piece::Signature,
            Part::Place(SignaturePlace::Timestamp) => Piece::Timestamp,
        };
        let prefix = dialect.event_id_prefix();
        Self {
            header: form.header.to_string(),
            is_own: true,
            key: form.key,
            encoding: form.encoding,
            signs: form.signs.parts().iter().map(signed).collect(),
            value: form.value.parts().iter().map(shown).collect(),
            prefix: (prefix != EVENT_PREFIX).then(|| prefix.to_owned()),
        }
    }

    fn uses(&self, piece: &Piece) -> bool {
        self.signs.contains(piece) || self.value.contains(piece)
    }
}

/// Spelling of the pieces in a language.
struct Spelling {
    text: fn(&str) -> String,
    /// Text within the signed text, if spelt differently.
    signed_text: fn(&str) -> String,
    /// Body, event id and timestamp within the signed text.
    signed: [&'static str; 3],
    /// Event id, timestamp and signature within the header's value.
    value: [&'static str; 3],
    plus: &'static str,
}

const NODE: Spelling = Spelling {
    text: single_quoted,
    signed_text: single_quoted,
    signed: ["body", "eventId", "timestamp"],
    value: ["eventId", "timestamp", "signature"],
    plus: " + ",
};
const PYTHON: Spelling = Spelling {
    text: single_quoted,
    signed_text: python_bytes,
    signed: ["body", "event_id.encode()", "timestamp.encode()"],
    value: ["event_id", "timestamp", "signature"],
    plus: " + ",
};
const PHP: Spelling = Spelling {
    text: single_quoted,
    signed_text: single_quoted,
    signed: ["$body", "$eventId", "$timestamp"],
    value: ["$eventId", "$timestamp", "$signature"],
    plus: " . ",
};
const RUBY: Spelling = Spelling {
    text: single_quoted,
    signed_text: single_quoted,
    signed: ["body", "event_id", "timestamp"],
    value: ["event_id", "timestamp", "signature"],
    plus: " + ",
};
const GO: Spelling = Spelling {
    text: double_quoted,
    signed_text: go_bytes,
    signed: ["body", "[]byte(eventID)", "[]byte(timestamp)"],
    value: ["eventID", "timestamp", "signature"],
    plus: " + ",
};

/// Quotes a text of visible ASCII for Node, Python, PHP and Ruby.
fn single_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn double_quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn python_bytes(text: &str) -> String {
    format!("b{}", single_quoted(text))
}

fn go_bytes(text: &str) -> String {
    format!("[]byte({})", double_quoted(text))
}

/// The parts of a sample that depend on the form.
struct Code {
    header: String,
    is_own: bool,
    is_text_key: bool,
    is_hex: bool,
    uses_event_id: bool,
    uses_timestamp: bool,
    prefix: Option<String>,
    signs: Vec<String>,
    value: String,
    plus: &'static str,
}

impl Code {
    fn new(form: &Form, spelling: &Spelling) -> Self {
        let signed = |piece: &Piece| match piece {
            Piece::Text(text) => (spelling.signed_text)(text),
            Piece::Body => spelling.signed[0].to_owned(),
            Piece::EventId => spelling.signed[1].to_owned(),
            Piece::Timestamp => spelling.signed[2].to_owned(),
            // A signature signs no signature.
            Piece::Signature => String::new(),
        };
        let shown = |piece: &Piece| match piece {
            Piece::Text(text) => (spelling.text)(text),
            Piece::EventId => spelling.value[0].to_owned(),
            Piece::Timestamp => spelling.value[1].to_owned(),
            Piece::Signature => spelling.value[2].to_owned(),
            // No header has the body.
            Piece::Body => String::new(),
        };
        let value: Vec<String> = form.value.iter().map(shown).collect();
        Self {
            header: form.header.clone(),
            is_own: form.is_own,
            is_text_key: form.key == SignatureKey::Text,
            is_hex: form.encoding == SignatureEncoding::Hex,
            uses_event_id: form.uses(&Piece::EventId),
            uses_timestamp: form.uses(&Piece::Timestamp),
            prefix: form.prefix.clone(),
            signs: form.signs.iter().map(signed).collect(),
            value: value.join(spelling.plus),
            plus: spelling.plus,
        }
    }

    /// The signed text as one expression.
    fn signed(&self) -> String {
        self.signs.join(self.plus)
    }

    /// Name of the header in the environment of PHP and Ruby.
    fn environment(&self) -> String {
        format!("HTTP_{}", self.header.to_uppercase().replace('-', "_"))
    }
}

#[derive(Template)]
#[template(path = "application/webhooks/signature/samples/node.mjs", escape = "none", whitespace = "preserve")]
struct Node(Code);

#[derive(Template)]
#[template(path = "application/webhooks/signature/samples/python.py", escape = "none", whitespace = "preserve")]
struct Python(Code);

#[derive(Template)]
#[template(path = "application/webhooks/signature/samples/php.php", escape = "none", whitespace = "preserve")]
struct Php(Code);

#[derive(Template)]
#[template(path = "application/webhooks/signature/samples/ruby.rb", escape = "none", whitespace = "preserve")]
struct Ruby(Code);

#[derive(Template)]
#[template(path = "application/webhooks/signature/samples/go.go", escape = "none", whitespace = "preserve")]
struct Go(Code);

/// The samples for a dialect.
fn of_dialect(dialect: &Dialect) -> askama::Result<Samples> {
    let form = Form::of(dialect);
    let sample = |label, id, code: String| Sample { label, id, code: code.trim().to_owned() };
    Ok(Samples {
        languages: vec![
            sample("Node", "sample-node", Node(Code::new(&form, &NODE)).render()?),
            sample("Python", "sample-python", Python(Code::new(&form, &PYTHON)).render()?),
            sample("PHP", "sample-php", Php(Code::new(&form, &PHP)).render()?),
            sample("Ruby", "sample-ruby", Ruby(Code::new(&form, &RUBY)).render()?),
            sample("Go", "sample-go", Go(Code::new(&form, &GO)).render()?),
        ],
        header: form.header,
        is_own: form.is_own,
    })
}

/// The samples for the application of a page.
pub(crate) async fn of_application(console: &Console, place: &Place) -> Result<Samples, Fault> {
    let path = Path(place.application.to_string());
    let application =
        applications::show(State(console.api.clone()), path, KeyApplication(Some(place.application))).await?.data;
    let missing = || ApiError::not_found("dialect", "this process does not have the application's dialect");
    let dialect = console.api.dialects.get(&application.dialect).ok_or_else(missing)?;
    of_dialect(dialect).map_err(Fault::of_template)
}

#[cfg(test)]
mod tests {
    use fanfare_domain::dialect::Dialects;

    use super::*;

    fn samples(name: &str, file: &str) -> Samples {
        let dialects = Dialects::read([(name, name, file)]).unwrap_or_else(|faults| panic!("{faults:?}"));
        of_dialect(dialects.get(name).expect("a dialect")).expect("templates")
    }

    fn file(signature: &str) -> String {
        format!(
            "title = \"x\"\ndescription = \"x\"\n[body]\ntemplate = '<data>'\nevent_id_prefix = \"acme\"\n{signature}\n\
             [delivery]\nschedule = []\ntimeout = \"1s\"\n"
        )
    }

    #[test]
    fn each_language_has_the_dialects_header_and_no_rest_of_a_template() {
        let own = file(
            "[signature]\nheader = \"X-Acme\"\nvalue = \"t=<timestamp>,it's=<signature>\"\n\
             signs = \"<event_id>.<timestamp>.<body>\"\nkey = \"bytes\"\nencoding = \"base64\"",
        );
        for (text, header) in [(own, "x-acme"), (file(""), "webhook-signature")] {
            let samples = samples("acme", &text);
            assert_eq!(samples.header, header);
            assert_eq!(samples.is_own, header == "x-acme");
            for sample in samples.languages {
                let code = sample.code.to_lowercase().replace('_', "-");
                assert!(code.contains(header), "{}: {}", sample.label, sample.code);
                assert!(!sample.code.contains("{%") && !sample.code.contains("{{"), "{}", sample.code);
                assert_eq!(code.contains("acme-"), header == "x-acme", "{}: {}", sample.label, sample.code);
            }
        }
    }

    #[test]
    fn texts_end_no_literal() {
        assert_eq!(single_quoted(r"a'b\"), r"'a\'b\\'");
        assert_eq!(double_quoted(r#"a"b\"#), r#""a\"b\\""#);
    }
}
