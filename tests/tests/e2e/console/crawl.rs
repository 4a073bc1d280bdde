//! The pages that a visitor reaches by links, from a first page.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fanfare_console::{guarded_paths, open_paths};
use fanfare_domain::access::session::Face;

use super::{
    html::Html,
    visitor::{Visitor, location},
};

/// Pages of each route that a crawl opens: with each set of parameters.
const PAGES_OF_A_ROUTE: usize = 2;

/// An opened page.
pub(crate) struct Page {
    pub(crate) address: String,
    /// The path of the route, such as `/console/{app}/deliveries`.
    pub(crate) route: String,
    pub(crate) text: String,
    pub(crate) html: Html,
}

/// Opens the pages that links reach, each of which must exist. A set of pages may be as large as the data: a crawl
/// opens some pages of each route and each set of parameters.
pub(crate) async fn crawl(visitor: &Visitor, face: Face, first: &str) -> Vec<Page> {
    let mut waiting = VecDeque::from([first.to_owned()]);
    let mut known = BTreeSet::from([first.to_owned()]);
    let mut opened: BTreeMap<String, usize> = BTreeMap::new();
    let mut pages = Vec::new();
    while let Some(address) = waiting.pop_front() {
        let route = route_of(face, &address).unwrap_or_else(|| panic!("no route serves {address}"));
        let count = opened.entry(format!("{route}?{}", parameters(&address))).or_default();
        *count += 1;
        if *count > PAGES_OF_A_ROUTE {
            continue;
        }
        let answer = visitor.get(&address).await;
        let to = location(&answer).to_owned();
        if answer.status == 303 && route_of(face, &to).is_some_and(|other| other != route) {
            // The first page of a session of one application, for example.
            waiting.extend(known.insert(to.clone()).then_some(to));
            continue;
        }
        assert_eq!(answer.status, 200, "{address}: {}", answer.text);
        if answer.headers.contains_key("content-disposition") {
            continue;
        }
        let html = Html::parse(&answer.text);
        for target in targets(&html, &address) {
            assert!(route_of(face, &target).is_some(), "{address}: no route serves the link to {target}");
            if !target.contains("as=text") && !target.contains("/assets/") && known.insert(target.clone()) {
                waiting.push_back(target);
            }
        }
        pages.push(Page { address, route, text: answer.text, html });
    }
    pages
}

/// Addresses of links, and of forms that change nothing.
fn targets(html: &Html, address: &str) -> Vec<String> {
    let links = html.addresses().map(str::to_owned);
    let forms = html.forms().into_iter().filter(|form| !form.is_post).map(|form| form.action);
    let forms = forms.map(|action| if action.is_empty() { address.to_owned() } else { action });
    // The page about the API needs no session, and is no page of the console.
    let local = |target: &String| !target.starts_with('#') && target != "/docs";
    let found: Vec<String> = links.chain(forms).filter(local).collect();
    for target in &found {
        assert!(target.starts_with('/') && !target.starts_with("//"), "{address} leads away: {target}");
    }
    found
}

/// The names of an address's parameters.
fn parameters(address: &str) -> String {
    let query = address.split_once('?').map_or("", |(_, query)| query);
    let names: BTreeSet<&str> = query.split('&').filter_map(|pair| pair.split('=').next()).collect();
    names.into_iter().collect::<Vec<_>>().join("&")
}

/// The path of the route that serves an address: with the fewest parameters.
pub(crate) fn route_of(face: Face, address: &str) -> Option<String> {
    let path = address.split(['?', '#']).next().unwrap_or_default();
    let serves = |route: &String| {
        let (wanted, given): (Vec<&str>, Vec<&str>) = (route.split('/').collect(), path.split('/').collect());
        wanted.len() == given.len()
            && wanted
                .iter()
                .zip(&given)
                .all(|(wanted, given)| wanted == given || wanted.starts_with('{') && !given.is_empty())
    };
    let routes = guarded_paths(face).into_iter().chain(open_paths(face));
    routes.filter(serves).min_by_key(|route| route.matches('{').count())
}
