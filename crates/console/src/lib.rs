//! The web pages: the console for operators and staff, the portal for customers.
//!
//! A page calls the functions of the management API. A page can do and show nothing that the API cannot. `frame` has
//! the parts of all pages, `session` the sign-in and the guard of all requests. `operations` has the pages of all
//! applications, `application` the pages of one application, `reference` the page about the API.

mod application;
mod assets;
mod frame;
mod operations;
mod reference;
mod routes;
mod session;

use std::{fmt, path::PathBuf, sync::Arc};

use fanfare_api::{ApiState, Audit};
use fanfare_domain::access::Rule;
use http::HeaderName;
use ipnet::IpNet;
use url::{Host, Url};

use crate::session::places::Places;

pub use reference::{reference_page, reference_routes};
pub use routes::{console_routes, guarded_paths, open_paths, portal_routes};

/// Settings of the pages.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address of the pages, without a path. Cookies, forms and links need the address.
    pub url: Url,
    /// Origins whose pages may frame the portal, such as `https://app.example.com`.
    pub portal_origins: Vec<String>,
    /// Address of RabbitMQ's management pages, for a link.
    pub broker_console: Option<Url>,
    /// The sign-in by an authenticating proxy.
    pub proxy: Option<ProxySignIn>,
    /// The sign-in by a provider of OpenID Connect. Needs [`HAS_PROVIDERS`].
    pub provider: Option<ProviderSignIn>,
}

/// True if the build has the sign-in by a provider of OpenID Connect: the feature `oidc`.
pub const HAS_PROVIDERS: bool = cfg!(feature = "oidc");

/// Settings of the sign-in by a provider of OpenID Connect.
#[derive(Clone)]
pub struct ProviderSignIn {
    /// URL of the provider, as its ID tokens name the issuer.
    pub issuer: String,
    /// Id of Fanfare at the provider.
    pub client_id: String,
    /// Secret of Fanfare at the provider.
    pub client_secret: String,
    /// Claim of the ID token with the words of the rules.
    pub claim: String,
    /// Scopes to ask for, beside `openid`.
    pub scopes: Vec<String>,
    /// Access by value of the claim.
    pub rules: Vec<Rule>,
    /// File of certificates trusted in addition to the system's.
    pub extra_roots: Option<PathBuf>,
}

impl fmt::Debug for ProviderSignIn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ProviderSignIn({}, …)", self.issuer)
    }
}

/// Settings of the sign-in by an authenticating proxy.
#[derive(Debug, Clone)]
pub struct ProxySignIn {
    /// Header with the visitor's name.
    pub user: HeaderName,
    /// Header with the visitor's groups, separated by commas or bars.
    pub groups: Option<HeaderName>,
    /// Access by group; without the header of groups, by the visitor's name.
    pub rules: Vec<Rule>,
    /// Networks of the proxies. The headers of other peers are not believed.
    pub proxies: Vec<IpNet>,
}

impl Settings {
    /// The origin of the pages, as browsers send the header `Origin`.
    fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// The address of the API.
    fn api(&self) -> String {
        format!("{}/api/v1", self.origin())
    }

    /// True if nobody on the way can read a session.
    fn is_private(&self) -> bool {
        is_private(&self.url)
    }

    /// True if cookies may require https.
    fn is_secure(&self) -> bool {
        self.url.scheme() == "https"
    }
}

/// True if nobody on the way can read requests to a URL: over https, or on this machine.
pub fn is_private(url: &Url) -> bool {
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "https" || is_loopback && url.scheme() == "http"
}

/// State of the pages. Cheap to clone.
#[derive(Clone)]
pub struct Console {
    api: ApiState,
    audit: Audit,
    settings: Arc<Settings>,
    places: Places,
    #[cfg(feature = "oidc")]
    metadata: session::sign_in::provider::KeptMetadata,
}

impl Console {
    /// Pages over the API's state. The state needs database connections of its own: a visitor holds up no publisher.
    pub fn new(api: ApiState, audit: Audit, settings: Arc<Settings>) -> Self {
        Self {
            api,
            audit,
            settings,
            places: Places::default(),
            #[cfg(feature = "oidc")]
            metadata: session::sign_in::provider::KeptMetadata::default(),
        }
    }
}
