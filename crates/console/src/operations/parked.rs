//! Parked messages: groups, list, a message, put back, discard.

mod difference;
mod discard;
mod edit;
mod group;
mod hex;
mod show;

use askama::Template;
use axum::{
    extract::State,
    response::Response,
    routing::{get, post},
};
use fanfare_api::{
    ApiError,
    http::parameters::Query,
    routes::parked::{self, Filter, Parked, ParkedGroup, ParkedGroups},
};
use fanfare_domain::access::session::Right;
use serde::Deserialize;

use crate::{
    Console,
    frame::{
        Frame,
        fault::Fault,
        form,
        marks::{self, filters},
        respond::page,
    },
    routes::list::Routes,
    session::visitor::Visitor,
};

/// The pages below `/console/parked`.
pub(crate) fn routes() -> Routes<Console> {
    Routes::new()
        .route("/parked", get(list))
        .route("/parked/put-back", get(group::ask_put_back).post(group::put_back))
        .route("/parked/discard", get(group::ask_discard).post(group::discard))
        .route("/parked/{parked}", get(show::show))
        .route("/parked/{parked}/edit", get(edit::form).post(edit::review))
        .route("/parked/{parked}/put-back", post(edit::put_back))
        .route("/parked/{parked}/discard", get(discard::ask).post(discard::discard))
}

/// The chosen messages, as in the address of a page.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chosen {
    reason: Option<String>,
    routing_key: Option<String>,
    /// `yes` for messages without a routing key: an empty parameter is no filter.
    without_key: Option<String>,
    before: Option<String>,
    limit: Option<usize>,
}

impl Chosen {
    /// The routing key on the page; empty for messages without a routing key.
    fn key(&self) -> Option<String> {
        if self.without_key.is_some() { Some(String::new()) } else { self.routing_key.clone() }
    }

    fn is_all(&self) -> bool {
        self.reason.is_none() && self.routing_key.is_none() && self.without_key.is_none()
    }

    fn filter(&self) -> Filter {
        Filter {
            reason: self.reason.clone(),
            routing_key: self.routing_key.clone(),
            without_routing_key: self.without_key.as_ref().map(|_| true),
            since: None,
            before: self.before.clone(),
            limit: self.limit,
        }
    }

    /// The parameters of a page with the same messages.
    fn parameters(&self) -> String {
        let mut kept = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in self.pairs() {
            kept.append_pair(name, &value);
        }
        kept.finish()
    }

    /// The conditions as names and values of parameters.
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let reason = self.reason.clone().map(|reason| ("reason", reason));
        let key = match &self.without_key {
            Some(_) => Some(("without_key", "yes".to_owned())),
            None => self.routing_key.clone().map(|key| ("routing_key", key)),
        };
        reason.into_iter().chain(key).collect()
    }

    /// The number of chosen messages among the counted groups.
    fn count(&self, groups: &[ParkedGroup]) -> i64 {
        let has_key = |group: &ParkedGroup| match &self.without_key {
            Some(_) => group.routing_key.is_none(),
            None => self.routing_key.is_none() || self.routing_key == group.routing_key,
        };
        let is_chosen =
            |group: &&ParkedGroup| self.reason.as_ref().is_none_or(|reason| *reason == group.reason) && has_key(group);
        groups.iter().filter(is_chosen).map(|group| group.messages).sum()
    }
}

#[derive(Template)]
#[template(path = "operations/parked.html")]
struct Page {
    frame: Frame,
    groups: ParkedGroups,
    chosen: Chosen,
    messages: Vec<Parked>,
    /// Number of chosen messages.
    count: i64,
    next: Option<String>,
}

impl Page {
    /// The address of the list of a group.
    fn group(&self, group: &ParkedGroup) -> String {
        let key = group.routing_key.clone();
        let without_key = key.is_none().then(|| "yes".to_owned());
        let of = Chosen { reason: Some(group.reason.clone()), routing_key: key, without_key, ..Chosen::default() };
        format!("/console/parked?{}", of.parameters())
    }

    /// The address of the list of all messages with a reason.
    fn reason(&self, reason: &str) -> String {
        let of = Chosen { reason: Some(reason.to_owned()), ..Chosen::default() };
        format!("/console/parked?{}", of.parameters())
    }
}

/// Shows the groups, and lists messages.
async fn list(State(console): State<Console>, visitor: Visitor) -> Result<Response, Fault> {
    let chosen: Chosen = form::query(&visitor.address)?;
    let api = || State(console.api.clone());
    let groups = parked::groups(api(), visitor.administrator()?).await?.data;
    let found = parked::list(api(), visitor.administrator()?, Query(chosen.filter())).await?;
    let shown = Page {
        frame: Frame::new(&visitor, "Parked messages")
            .live()
            .call("/parked/groups")
            .call(form::call("/parked", &visitor.address)),
        count: chosen.count(&groups.groups),
        next: found.next.map(|before| form::with_parameter(&visitor.address, "before", &before)),
        messages: found.data,
        groups,
        chosen,
    };
    page(&visitor, &shown)
}

/// Finds the number of the chosen messages.
async fn counted(console: &Console, visitor: &Visitor, chosen: &Chosen) -> Result<i64, ApiError> {
    let groups = parked::groups(State(console.api.clone()), visitor.administrator()?).await?.data;
    Ok(chosen.count(&groups.groups))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_number_counts_exactly_the_chosen_groups() {
        let at = Timestamp::UNIX_EPOCH;
        let group = |reason: &str, key: &str, messages| ParkedGroup {
            reason: reason.to_owned(),
            routing_key: Some(key.to_owned()).filter(|key| !key.is_empty()),
            messages,
            oldest_parked_at: at,
            newest_parked_at: at,
        };
        let groups = [group("a", "x", 1), group("a", "", 2), group("b", "x", 4)];
        let count = |query: &str| serde_urlencoded::from_str::<Chosen>(query).expect("a query").count(&groups);
        assert_eq!(count(""), 7);
        assert_eq!(count("reason=a"), 3);
        assert_eq!(count("reason=a&without_key=yes"), 2);
        assert_eq!(count("routing_key=x"), 5);
        assert_eq!(count("reason=b&routing_key=y"), 0);
    }

    #[test]
    fn parameters_choose_the_same_messages() {
        for query in ["", "reason=a", "reason=a+b&routing_key=c%26d", "without_key=yes"] {
            let chosen: Chosen = serde_urlencoded::from_str(query).expect("a query");
            assert_eq!(chosen.parameters(), query);
        }
    }
}
