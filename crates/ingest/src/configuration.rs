//! Settings of ingest, from environment variables.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use axum::http::HeaderName;
use fanfare_broker::{BrokerSettings, HeaderKeys};
use fanfare_console::{ProviderSignIn, ProxySignIn, is_private};
use fanfare_domain::{access::Rule, delivery::delay::DelayQueues, dialect::Dialects};
use fanfare_outbound as outbound;
use fanfare_service::{Environment, TelemetrySettings};
use fanfare_store::{Keyring, StoreSettings};
use ipnet::IpNet;
use url::Url;

pub(crate) struct Configuration {
    pub(crate) address: SocketAddr,
    pub(crate) max_connections: usize,
    pub(crate) publish_rate: u32,
    pub(crate) api_rate: u32,
    /// Bytes for the bodies of requests.
    pub(crate) memory_budget: usize,
    pub(crate) max_webhooks: usize,
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// Settings of the web pages; `None` without the pages.
    pub(crate) console: Option<ConsoleSettings>,
    pub(crate) broker: BrokerSettings,
    pub(crate) store: StoreSettings,
    pub(crate) max_event_bytes: usize,
    pub(crate) outbound: outbound::Settings,
    pub(crate) dialects: Arc<Dialects>,
    /// The settings that all processes must share, for the comparison with others.
    pub(crate) settings: String,
    pub(crate) expiry: Duration,
    pub(crate) retention: Duration,
    pub(crate) grace: Duration,
    pub(crate) operations_address: SocketAddr,
    pub(crate) telemetry: TelemetrySettings,
}

/// Settings of the web pages.
pub(crate) struct ConsoleSettings {
    pub(crate) pages: fanfare_console::Settings,
    /// Address of a listener for the console alone; `None` for the listener of the API.
    pub(crate) address: Option<SocketAddr>,
}

impl ConsoleSettings {
    /// Reads the settings; `Some(None)` without the pages.
    fn read(environment: &mut Environment, extra_roots: Option<&PathBuf>) -> Option<Option<Self>> {
        let url = environment.console_url();
        let meaning = "address and port of a listener for the console alone, inside the operator's network; without a \
                       value, the console is at `FANFARE_ADDRESS`";
        let address = environment.optional::<SocketAddr>("FANFARE_CONSOLE_ADDRESS", meaning);
        let meaning = "origins whose pages may show the portal in a frame, such as `https://app.example.com`; without a \
                       value, the portal is shown in no frame";
        let portal_origins = environment.list::<PageOrigin>("FANFARE_PORTAL_ORIGINS", meaning)?;
        let portal_origins = portal_origins.into_iter().map(|PageOrigin(origin)| origin).collect();
        let meaning =
            "URL of RabbitMQ's management pages, shown as a link on the console's pages; without a value, no link";
        let broker_console = environment.optional::<PageUrl>("FANFARE_BROKER_CONSOLE", meaning);
        let broker_console = broker_console.map(|PageUrl(url)| url);
        let meaning = "access to the console by group, user or claim, such as `operators=admin,support=look,shop=app_…`: \
                       all applications, all without a change, or one application. The first rule that matches counts; \
                       without a match nobody gets in";
        let rules = environment.list::<Rule>("FANFARE_CONSOLE_ROLES", meaning)?;
        let proxy = proxy_sign_in(environment, &rules);
        let provider = provider_sign_in(environment, rules, extra_roots);
        let (proxy, provider) = (proxy?, provider?);
        let pages = url.map(|url| fanfare_console::Settings { url, portal_origins, broker_console, proxy, provider });
        Some(pages.map(|pages| Self { pages, address }))
    }
}

/// A URL that a page may link to.
struct PageUrl(Url);

impl FromStr for PageUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url: Url = text.parse().map_err(|error| format!("{error}"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
            return Err("write it like https://rabbitmq.example.com/, without user and password".to_owned());
        }
        Ok(Self(url))
    }
}

/// Reads the sign-in by an authenticating proxy; `Some(None)` without such a proxy.
fn proxy_sign_in(environment: &mut Environment, rules: &[Rule]) -> Option<Option<ProxySignIn>> {
    let meaning = "authenticating proxies (CIDR) that tell the user of the console; only these are trusted with the \
                   headers of `FANFARE_CONSOLE_USER_HEADER` and `FANFARE_CONSOLE_GROUPS_HEADER`";
    let proxies = environment.list::<IpNet>("FANFARE_CONSOLE_PROXIES", meaning)?;
    let meaning = "header in which an authenticating proxy of `FANFARE_CONSOLE_PROXIES` tells the user's name, such as \
                   `X-Forwarded-User`; signs in to the console. The proxy must replace this header in each request";
    let user = environment.optional::<HeaderName>("FANFARE_CONSOLE_USER_HEADER", meaning);
    let meaning = "header in which the proxy tells the user's groups, separated by commas or bars; the proxy must \
                   replace this header, too. Without a value, `FANFARE_CONSOLE_ROLES` names users";
    let groups = environment.optional::<HeaderName>("FANFARE_CONSOLE_GROUPS_HEADER", meaning);
    let mistake = match &user {
        None if groups.is_some() => "FANFARE_CONSOLE_GROUPS_HEADER needs FANFARE_CONSOLE_USER_HEADER",
        None if !proxies.is_empty() => "FANFARE_CONSOLE_PROXIES needs FANFARE_CONSOLE_USER_HEADER",
        None => return Some(None),
        Some(_) if proxies.is_empty() => {
            "FANFARE_CONSOLE_USER_HEADER needs FANFARE_CONSOLE_PROXIES: the header of other peers is not believed"
        }
        Some(_) if rules.is_empty() => "FANFARE_CONSOLE_USER_HEADER needs FANFARE_CONSOLE_ROLES: nobody has access",
        Some(_) => return Some(user.map(|user| ProxySignIn { user, groups, rules: rules.to_vec(), proxies })),
    };
    environment.mistake(mistake);
    None
}

/// Reads the sign-in by a provider of OpenID Connect; `Some(None)` without a provider.
fn provider_sign_in(
    environment: &mut Environment,
    rules: Vec<Rule>,
    extra_roots: Option<&PathBuf>,
) -> Option<Option<ProviderSignIn>> {
    let meaning = "URL of a provider of OpenID Connect that signs in to the console; needs an ingest that was built with \
                   the Cargo feature `oidc`. The provider must permit the address `/console/sign-in/callback` behind \
                   `FANFARE_CONSOLE_URL`";
    let issuer = environment.optional::<String>("FANFARE_OIDC_ISSUER", meaning);
    let client_id = environment.optional::<String>("FANFARE_OIDC_CLIENT_ID", "id of Fanfare at the provider");
    let secret = environment.secret::<String>("FANFARE_OIDC_CLIENT_SECRET", "secret of Fanfare at the provider");
    let meaning = "claim of the ID token that `FANFARE_CONSOLE_ROLES` compares: a text, or a list of texts. The claim \
                   `email` counts only if `email_verified` is true";
    let claim = environment.with_default::<String>("FANFARE_OIDC_CLAIM", "groups", meaning)?;
    let meaning =
        "scopes to ask for beside `openid`, as the provider needs them for the claim, such as `profile,groups`";
    let scopes = environment.list::<String>("FANFARE_OIDC_SCOPES", meaning)?;
    let Some(issuer) = issuer else { return Some(None) };
    let mistake = if !issuer.parse().is_ok_and(|issuer| is_private(&issuer)) {
        "FANFARE_OIDC_ISSUER must be a URL with https: over http, anybody on the way could sign in"
    } else if !fanfare_console::HAS_PROVIDERS {
        "FANFARE_OIDC_ISSUER needs an ingest that was built with the Cargo feature oidc"
    } else if rules.is_empty() {
        "FANFARE_OIDC_ISSUER needs FANFARE_CONSOLE_ROLES: nobody has access"
    } else if let (Some(client_id), Some((client_secret, _))) = (client_id, secret) {
        let extra_roots = extra_roots.cloned();
        return Some(Some(ProviderSignIn { issuer, client_id, client_secret, claim, scopes, rules, extra_roots }));
    } else {
        "FANFARE_OIDC_ISSUER needs FANFARE_OIDC_CLIENT_ID and FANFARE_OIDC_CLIENT_SECRET"
    };
    environment.mistake(mistake);
    None
}

/// An origin: scheme, host and port, without a path.
struct PageOrigin(String);

impl FromStr for PageOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url: Url = text.parse().map_err(|error| format!("{error}"))?;
        let origin = url.origin().ascii_serialization();
        if !matches!(url.scheme(), "http" | "https") || text.trim_end_matches('/') != origin {
            return Err("write an origin like https://app.example.com, without a path".to_owned());
        }
        Ok(Self(origin))
    }
}

impl Configuration {
    pub(crate) fn read(environment: &mut Environment) -> Option<Self> {
        let address = environment.with_default("FANFARE_ADDRESS", "0.0.0.0:8080", "address and port of the API");
        let meaning = "maximum of concurrent connections to the API; further connections wait";
        let max_connections = environment.number("FANFARE_MAX_CONNECTIONS", "4096", 1..=1_000_000, meaning);
        let meaning = "proxies (CIDR) in front of the API; only these are trusted with `X-Forwarded-For`";
        let trusted_proxies = environment.list::<IpNet>("FANFARE_TRUSTED_PROXIES", meaning);
        let rates = rates(environment);
        let memory_budget = environment.memory_budget();
        let meaning = "maximum number of webhooks of an application";
        let max_webhooks = environment.number("FANFARE_MAX_WEBHOOKS", "1000", 1..=1_000_000, meaning);
        let broker = environment.broker();
        let prefix = environment.prefix();
        let dialects = environment.dialects();
        let database = environment.database();
        let connections = environment.database_connections();
        let keyring: Option<Keyring> = environment.secret_keys();
        let max_event_bytes = environment.max_event_bytes();
        let policy = environment.url_policy();
        let extra_roots = environment.extra_roots();
        let console = ConsoleSettings::read(environment, extra_roots.as_ref());
        let name_servers = environment.name_servers();
        let proxy = environment.egress_proxy();
        let expiry = environment.expiry();
        let retention = environment.retention();
        let grace = environment.grace();
        let operations_address = environment.operations_address();
        let telemetry = TelemetrySettings::read(environment);
        let dialects = dialects?;
        let settings = environment.agreed_settings(&dialects, keyring.as_ref()?.names());
        let keys = HeaderKeys::new(keyring.as_ref()?.header_keys());
        let delays = DelayQueues::new(dialects.waits());
        let (url, credentials) = database?;
        let [publish_rate, api_rate] = rates?;
        Some(Self {
            address: address?,
            max_connections: max_connections?,
            publish_rate,
            api_rate,
            memory_budget: memory_budget?,
            max_webhooks: max_webhooks?,
            trusted_proxies: trusted_proxies?,
            console: console?,
            broker: BrokerSettings::new(broker?, prefix?, delays, "fanfare ingest").with_keys(keys),
            store: StoreSettings { url, credentials, connections: connections?, keyring: keyring? },
            max_event_bytes: max_event_bytes?,
            outbound: outbound::Settings::new(policy?, extra_roots, name_servers?, proxy),
            dialects,
            settings,
            expiry: expiry?,
            retention: retention?,
            grace: grace?,
            operations_address: operations_address?,
            telemetry: telemetry?,
        })
    }
}

/// Events per second of an application, and requests per second of a caller of the management API.
fn rates(environment: &mut Environment) -> Option<[u32; 2]> {
    let meaning = "maximum of events per second that an application without its own limit may publish over HTTP at \
                   each ingest; the burst is one second's events, and at least 1000; `0` for no limit";
    let publish_rate = environment.number("FANFARE_PUBLISH_RATE", "5000", 0..=1_000_000, meaning);
    let meaning = "maximum of requests per second to the management API by an application, or by an admin key, at \
                   each ingest; `0` for no limit";
    let api_rate = environment.number("FANFARE_API_RATE", "100", 0..=1_000_000, meaning);
    Some([u32::try_from(publish_rate?).ok()?, u32::try_from(api_rate?).ok()?])
}
