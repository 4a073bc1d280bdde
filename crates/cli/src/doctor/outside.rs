//! The outside: endpoints' addresses, the network's own guard, and the archive. Sends no request to an endpoint.

use std::time::Duration;

use fanfare_archive::{Archive, ArchiveUrl};
use fanfare_outbound::{Client, Settings};
use fanfare_store::Store;
use tokio::{net::TcpStream, time::timeout};
use url::Url;

use super::{Finding, Findings};

/// Number of endpoints whose addresses are checked.
const ENDPOINTS: usize = 20;

/// Metadata service of most clouds.
const METADATA: &str = "169.254.169.254:80";

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn examine(store: &Store, settings: &Settings, archive: Option<&ArchiveUrl>) -> Vec<Finding> {
    let mut findings = Findings::new("outside");
    match Client::new(settings) {
        Ok(client) => endpoints(store, &client, settings, &mut findings).await,
        Err(error) => findings.fail(format!("no requests can be sent: {error}")),
    }
    if settings.proxy.is_some() {
        findings.good("requests leave through the egress proxy");
    } else if reaches(METADATA).await {
        findings.warn(format!(
            "{METADATA} answers: Fanfare refuses the address, your network does not (deploy/security.md)"
        ));
    } else {
        findings.good(format!("{METADATA}, the metadata service of clouds, does not answer"));
    }
    if let Some(url) = archive {
        match try_archive(url, settings).await {
            Ok(()) => findings.good(format!("the archive {url} takes, gives back and deletes an object")),
            Err(error) => findings.fail(format!("the archive {url} does not work: {error:#} (deploy/archive.md)")),
        }
    }
    findings.into_vec()
}

async fn try_archive(url: &ArchiveUrl, settings: &Settings) -> anyhow::Result<()> {
    Ok(Archive::open(url, settings.extra_roots.as_deref())?.probe().await?)
}

async fn endpoints(store: &Store, client: &Client, settings: &Settings, findings: &mut Findings) {
    let urls = match store.sample_urls(ENDPOINTS).await {
        Ok(urls) => urls,
        Err(error) => return findings.fail(format!("the endpoints cannot be read: {error}")),
    };
    let (count, mut permitted) = (urls.len(), 0);
    for text in urls {
        let Ok(url) = text.parse::<Url>() else { continue };
        // The path and the query of a URL may hold secrets.
        let host = url.host_str().unwrap_or_default().to_owned();
        match settings.policy.check(&url) {
            Err(fault) => findings.warn(format!("the URL of an endpoint at {host} is not permitted: {fault}")),
            Ok(()) => match client.refusal(&url).await {
                Some(reason) => findings.warn(format!("the endpoint at {host} is not permitted: {reason}")),
                None => permitted += 1,
            },
        }
    }
    findings.good(format!("{permitted} of the {count} newest endpoints have no forbidden address"));
}

async fn reaches(address: &str) -> bool {
    matches!(timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await, Ok(Ok(_)))
}
