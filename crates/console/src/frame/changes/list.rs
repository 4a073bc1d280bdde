//! Entries of the audit log as rows of a page.

use std::collections::HashSet;

use fanfare_api::{
    ApiState,
    http::error::ApiError,
    routes::{
        audit_log,
        search::names::{Names, names},
    },
};
use fanfare_domain::{
    access::session::Face,
    ids::{ApplicationId, KeyId},
};
use jiff::Timestamp;

use crate::frame::{
    changes::{Entry, sentence, short},
    marks::host,
};

/// A text that may lead to a page.
pub(crate) struct Link {
    pub(crate) text: String,
    /// The id behind a name, or the whole of a shortened id.
    pub(crate) title: String,
    pub(crate) href: Option<String>,
}

/// A row: a sentence, and its circumstances.
pub(crate) struct Change {
    pub(crate) id: String,
    pub(crate) at: Timestamp,
    pub(crate) author: Link,
    pub(crate) words: String,
    pub(crate) objects: Vec<Link>,
    pub(crate) end: String,
    pub(crate) application: Option<Link>,
    /// Address of the client; empty in the portal.
    pub(crate) origin: String,
    /// `done`, `refused`, `failed` or `unknown`.
    pub(crate) outcome: String,
    /// The kept request, indented.
    pub(crate) request: Option<String>,
    pub(crate) path: Option<String>,
}

/// The reader of the rows.
#[derive(Clone, Copy)]
pub(crate) struct Reader {
    pub(crate) face: Face,
    /// True if the reader may open the pages of keys.
    pub(crate) is_administrator: bool,
    /// The only application whose names the reader may see.
    pub(crate) application: Option<ApplicationId>,
}

/// Makes the rows of entries. The portal shows changes of webhooks, deliveries and replays, without staff's keys,
/// addresses and requests.
pub(crate) async fn rows(
    api: &ApiState,
    reader: Reader,
    entries: Vec<audit_log::Shown>,
) -> Result<Vec<Change>, ApiError> {
    let shown: Vec<_> = entries.into_iter().filter(|entry| is_shown(reader.face, &entry.action)).collect();
    let known = names(api, reader.application, wanted(&shown)).await?;
    Ok(shown.into_iter().map(|entry| row(reader, &known, entry)).collect())
}

fn is_shown(face: Face, action: &str) -> bool {
    let of_portal = ["webhook", "secret", "rotation", "signature", "deliver", "replay", "event"];
    face == Face::Console || of_portal.iter().any(|word| action.contains(word))
}

/// The ids whose names the rows show.
fn wanted(entries: &[audit_log::Shown]) -> HashSet<String> {
    let of_entry = |entry: &audit_log::Shown| {
        let of_path: Vec<String> = entry.path.iter().flat_map(|path| path.split('/')).map(str::to_owned).collect();
        let application = entry.application.map(|id| id.to_string());
        of_path.into_iter().chain(entry.subject.clone()).chain(application)
    };
    entries.iter().flat_map(of_entry).filter(|id| id.starts_with("wh_") || id.starts_with("app_")).collect()
}

fn row(reader: Reader, names: &Names, entry: audit_log::Shown) -> Change {
    let is_portal = reader.face == Face::Portal;
    let told = sentence(&Entry {
        action: &entry.action,
        path: entry.path.as_deref(),
        subject: &entry.subject,
        request: entry.request.as_ref().map(|request| request.get()),
        outcome: entry.outcome.as_deref(),
    });
    let base = entry.application.map(|application| format!("{}/{application}", reader.face.root()));
    let link = |id: String| Link {
        // A webhook without a name has its URL: a link shows the host only.
        text: names.get(&id).map_or_else(|| short(&id), |name| host(name)),
        href: href(reader, base.as_deref(), &id),
        title: id,
    };
    let request = entry.request.as_ref().filter(|_| !is_portal).map(|request| indented(request.get()));
    Change {
        id: entry.id.to_string(),
        at: entry.at,
        author: author(reader, &entry),
        words: told.words,
        objects: told.ids.into_iter().map(link).collect(),
        end: told.end,
        application: entry.application.map(|application| link(application.to_string())),
        origin: if is_portal { String::new() } else { entry.origin },
        outcome: entry.outcome.unwrap_or_else(|| "unknown".to_owned()),
        request,
        path: entry.path.filter(|_| !is_portal),
    }
}

/// The author of a change: the visitor, the key, or the user of a command. The portal names its own visitors only.
fn author(reader: Reader, entry: &audit_log::Shown) -> Link {
    let is_of_portal = entry.path.as_deref().is_some_and(|path| path.starts_with("/portal/"));
    let key = entry.key.map(|key| key.to_string());
    let name = match (reader.face, entry.visitor.clone()) {
        (Face::Portal, Some(visitor)) if is_of_portal => visitor,
        (Face::Portal, _) => "The sender".to_owned(),
        (Face::Console, visitor) => visitor.or_else(|| key.clone()).unwrap_or_else(|| entry.origin.clone()),
    };
    let is_key = name.parse::<KeyId>().is_ok();
    let href = key.filter(|_| reader.is_administrator).map(|key| format!("/console/keys/{key}"));
    Link { text: if is_key { short(&name) } else { name.clone() }, title: name, href }
}

/// The page of an id.
fn href(reader: Reader, base: Option<&str>, id: &str) -> Option<String> {
    let folder = |folder: &str| base.map(|base| format!("{base}/{folder}/{id}"));
    match id.split_once('_')?.0 {
        "app" if reader.face == Face::Console => Some(format!("/console/{id}/")),
        "key" if reader.is_administrator => Some(format!("/console/keys/{id}")),
        "wh" => folder("webhooks"),
        "dlv" => folder("deliveries"),
        "evt" => folder("events"),
        "rpl" => folder("replays"),
        _ => None,
    }
}

/// A kept request on several lines. A request that is no JSON stays as it is.
fn indented(request: &str) -> String {
    let value = serde_json::from_str::<serde_json::Value>(request);
    value.ok().and_then(|value| serde_json::to_string_pretty(&value).ok()).unwrap_or_else(|| request.to_owned())
}
