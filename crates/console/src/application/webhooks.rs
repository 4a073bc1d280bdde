//! The pages of webhooks.

mod deletion;
pub(crate) mod form;
mod list;
mod ordering_keys;
mod secret;
mod show;
mod signature;
mod status;
mod subject;
mod test_send;

use axum::routing::{get, post};

use crate::{Console, frame::marks, routes::list::Routes};

/// The pages below `…/webhooks`.
pub(crate) fn routes() -> Routes<Console> {
    Routes::new()
        .route("/webhooks", get(list::list))
        .route("/webhooks/new", get(form::creation::show).post(form::creation::create))
        .route("/webhooks/{webhook}", get(show::show))
        .route("/webhooks/{webhook}/edit", get(form::edit::show).post(form::edit::change))
        .route("/webhooks/{webhook}/status", post(status::change))
        .route("/webhooks/{webhook}/ordering-keys", get(ordering_keys::list).post(ordering_keys::resume))
        .route("/webhooks/{webhook}/delete", get(deletion::show).post(deletion::delete))
        .route("/webhooks/{webhook}/test", get(test_send::show).post(test_send::send))
        .route("/webhooks/{webhook}/secret", get(secret::show).post(secret::rotate))
        .route("/webhooks/{webhook}/secret/end", get(secret::ask_end).post(secret::end))
        .route("/webhooks/{webhook}/signature", get(signature::show).post(signature::verify))
}

/// Title of a webhook: the name, else the host.
pub(crate) fn title(name: Option<&str>, url: &str) -> String {
    name.map_or_else(|| marks::host(url), str::to_owned)
}

/// Subscriptions in a few words.
pub(crate) fn in_words(events: &[String]) -> String {
    const MOST: usize = 3;
    match events {
        [all] if all == "*" => "all events".to_owned(),
        few if few.len() <= MOST => few.join(", "),
        many => format!("{} and {} more", many[..MOST - 1].join(", "), many.len() - (MOST - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_few_subscriptions_and_counts_many() {
        let words = |events: &[&str]| in_words(&events.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(words(&["*"]), "all events");
        assert_eq!(words(&["a", "b", "c"]), "a, b, c");
        assert_eq!(words(&["a", "b", "c", "d"]), "a, b and 2 more");
    }

    #[test]
    fn a_webhook_without_a_name_has_its_host_as_title() {
        assert_eq!(title(None, "https://hooks.example:8443/in"), "hooks.example");
        assert_eq!(title(Some("shop"), "https://hooks.example/in"), "shop");
    }
}
