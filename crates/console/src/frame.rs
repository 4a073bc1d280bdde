//! The frame of all pages: navigation, search, messages, twins; and the forms of an answer.

pub(crate) mod bare;
pub(crate) mod body;
pub(crate) mod changes;
pub(crate) mod chart;
pub(crate) mod fault;
pub(crate) mod form;
pub(crate) mod marks;
pub(crate) mod notices;
pub(crate) mod place;
pub(crate) mod respond;
pub(crate) mod search;
pub(crate) mod text;

use fanfare_domain::access::session::{Face, Right, Rights};
use jiff::Timestamp;

use crate::{
    assets,
    session::{cookie::Preferences, theme, visitor::Visitor},
};

/// An entry of the navigation.
pub(crate) struct Entry {
    pub(crate) label: &'static str,
    pub(crate) href: String,
    /// The key after `g` that opens the page.
    pub(crate) key: &'static str,
    pub(crate) is_current: bool,
}

/// The application of a page.
pub(crate) struct Shown {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// The parts of a page around its content.
pub(crate) struct Frame {
    pub(crate) title: String,
    pub(crate) style: &'static str,
    pub(crate) script: &'static str,
    pub(crate) icon: &'static str,
    pub(crate) now: Timestamp,
    pub(crate) is_private: bool,
    /// Address of the API.
    pub(crate) api: String,
    /// Address of the stylesheet of a portal's theme.
    pub(crate) theme: Option<String>,
    /// `auto`, `light` or `dark`: the choice of the visitor, else of the portal's theme.
    pub(crate) scheme: &'static str,
    /// Path before the assets.
    pub(crate) root: &'static str,
    /// Path before the pages of the session.
    pub(crate) home: String,
    /// Origins whose pages may frame the portal, separated by spaces.
    pub(crate) parents: String,
    /// Path before the pages of the application.
    pub(crate) base: String,
    pub(crate) application: Option<Shown>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) is_portal: bool,
    pub(crate) is_administrator: bool,
    pub(crate) is_look_only: bool,
    pub(crate) visitor: String,
    pub(crate) form_token: String,
    pub(crate) preferences: Preferences,
    /// Message about the change that led to the page.
    pub(crate) notice: Option<String>,
    /// Seconds until the script asks for the page's content again; `None` for a page that does not change by itself.
    pub(crate) live: Option<u32>,
    /// Requests to the API that answer the content of the page.
    pub(crate) calls: Vec<String>,
    /// Path and query of the page.
    pub(crate) address: String,
    /// Address of the page as plain text.
    pub(crate) as_text: String,
    /// Text of the search.
    pub(crate) search: String,
    pub(crate) back: Option<String>,
    pub(crate) rights: Rights,
}

impl Frame {
    /// The frame of a page of all applications, or of the visitor's own pages.
    pub(crate) fn new(visitor: &Visitor, title: impl Into<String>) -> Self {
        let base = match visitor.session.application {
            Some(application) => format!("{}/{application}", visitor.session.face.root()),
            None => visitor.home.path(),
        };
        let path = visitor.address.split('?').next().unwrap_or_default();
        Self {
            title: title.into(),
            style: &assets::STYLE.address,
            script: &assets::SCRIPT.address,
            icon: &assets::ICON.address,
            now: visitor.now,
            is_private: visitor.is_private,
            api: visitor.api.clone(),
            theme: theme::address(visitor),
            scheme: scheme(visitor),
            root: visitor.session.face.root(),
            home: visitor.home.path(),
            parents: visitor.parents.clone(),
            entries: entries(visitor, &base, visitor.session.application.is_some(), path),
            base,
            application: None,
            is_portal: visitor.session.face == Face::Portal,
            is_administrator: visitor.is_administrator(),
            is_look_only: visitor.session.rights.are_look_only(),
            visitor: visitor.session.name.clone(),
            form_token: visitor.form_token.clone(),
            preferences: visitor.preferences,
            notice: notices::of(&visitor.address),
            live: None,
            calls: Vec::new(),
            address: visitor.address.clone(),
            as_text: as_text(&visitor.address),
            search: String::new(),
            back: visitor.session.back.clone(),
            rights: visitor.session.rights,
        }
    }

    /// Lets the script ask for the page's content again.
    pub(crate) fn live(mut self) -> Self {
        self.live = Some(respond::FIRST_PACE);
        self
    }

    /// Names a request to the API that answers the content of the page: the path below `/api/v1`. A key of all
    /// applications needs the page's application as a parameter.
    pub(crate) fn call(mut self, path: impl Into<String>) -> Self {
        let path = path.into();
        self.calls.push(match &self.application {
            Some(application) => {
                let separator = if path.contains('?') { '&' } else { '?' };
                format!("{path}{separator}application={}", application.id)
            }
            None => path,
        });
        self
    }

    /// True if the session has the right.
    pub(crate) fn may(&self, right: &Right) -> bool {
        self.rights.contain(*right)
    }
}

/// The navigation: pages of all applications, or of one application.
pub(crate) fn entries(visitor: &Visitor, base: &str, is_of_application: bool, path: &str) -> Vec<Entry> {
    let of_application = [
        ("Overview", "/", "o", Right::View),
        ("Webhooks", "/webhooks", "w", Right::View),
        ("Delivery log", "/deliveries", "d", Right::View),
        ("Events", "/events", "e", Right::View),
        ("Event types", "/event-types", "t", Right::View),
        ("Replays", "/replays", "r", Right::Replay),
        ("Usage", "/usage", "u", Right::View),
        ("Portal", "/portal", "c", Right::Operate),
        ("Changes", "/changes", "h", Right::View),
        ("Settings", "/settings", "s", Right::Operate),
    ];
    let of_all = [
        ("Operations", "/", "o"),
        ("Endpoints", "/endpoints", "w"),
        ("Queues", "/queues", "q"),
        ("Parked", "/parked", "p"),
        ("Applications", "/applications", "a"),
        ("Plans", "/plans", "l"),
        ("Keys", "/keys", "k"),
        ("Changes", "/audit", "c"),
    ];
    let entry = |(label, page, key): (&'static str, &str, &'static str)| {
        let href = format!("{base}{page}");
        let is_current = if page == "/" { path == href } else { path.starts_with(&href) };
        Entry { label, href, key, is_current }
    };
    if is_of_application {
        // A session that may not steer replays may look at them in the console.
        let is_shown = |right: Right| visitor.may(right) || (visitor.session.face == Face::Console);
        of_application.into_iter().filter(|(.., right)| is_shown(*right)).map(|(a, b, c, _)| entry((a, b, c))).collect()
    } else {
        of_all.into_iter().map(entry).collect()
    }
}

fn scheme(visitor: &Visitor) -> &'static str {
    match (visitor.preferences.scheme, visitor.session.theme) {
        ("auto", Some(theme)) => theme.scheme.as_str(),
        (chosen, _) => chosen,
    }
}

/// The address of the same page as plain text.
fn as_text(address: &str) -> String {
    let separator = if address.contains('?') { '&' } else { '?' };
    format!("{address}{separator}as=text")
}
