//! RabbitMQ's management API: version, alarms, members of the queues, and policies.

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use fanfare_broker::BrokerSettings;
use fanfare_credentials::Credentials;
use http::Method;
use serde_json::Value;
use url::Url;

use super::{Finding, Findings};
use crate::json_client::JsonClient;

/// Arguments of a policy that break delivery, whatever their values.
const HARMFUL: [&str; 10] = [
    "dead-letter-exchange",
    "dead-letter-routing-key",
    "dead-letter-strategy",
    "delivery-limit",
    "expires",
    "max-length",
    "max-length-bytes",
    "message-ttl",
    "overflow",
    "max-in-memory-length",
];

/// Shortest acknowledgement timeout of a consumer, in milliseconds.
const CONSUMER_TIMEOUT: u64 = 60_000;

pub(super) async fn examine(url: &str, credentials: &Credentials, settings: &BrokerSettings) -> Vec<Finding> {
    let mut findings = Findings::new("broker");
    let examined = async {
        let api = Api::new(url, credentials)?;
        let (overview, nodes) = (api.get("overview").await?, api.get("nodes").await?);
        let queues = api.get(&format!("queues/{}", api.vhost)).await?;
        let flags = api.get("feature-flags").await.unwrap_or_default();
        anyhow::Ok((overview, nodes, queues, flags))
    };
    match examined.await {
        Ok((overview, nodes, queues, flags)) => {
            judge_nodes(&overview, &nodes, &flags, &mut findings);
            judge_queues(
                &queues,
                &settings.topology().events_exchange(),
                nodes.as_array().map_or(1, Vec::len),
                &mut findings,
            );
        }
        Err(error) => findings.fail(format!("--management: {error:#}")),
    }
    findings.into_vec()
}

/// Client of the management API.
struct Api {
    url: Url,
    client: JsonClient,
    /// Virtual host of Fanfare, percent-encoded.
    vhost: String,
}

impl Api {
    /// Takes user and password from the URL, else from the broker's credentials.
    fn new(url: &str, credentials: &Credentials) -> anyhow::Result<Self> {
        let mut url: Url = url.parse().context("is not a URL such as http://rabbitmq:15672")?;
        if !matches!(url.scheme(), "http" | "https") {
            bail!("begins with neither http:// nor https://");
        }
        let of_url = |url: &Url| {
            let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
            (decoded(url.username()), decoded(url.password().unwrap_or_default()))
        };
        let broker: Option<Url> = credentials.url.text().split(',').next().and_then(|url| url.trim().parse().ok());
        let vhost = broker.as_ref().map_or("", |broker| broker.path().trim_start_matches('/'));
        // Without a path, the virtual host is `/`.
        let vhost = if vhost.is_empty() { "%2f" } else { vhost }.to_owned();
        let (user, password) = if url.username().is_empty() {
            let (user, password) = broker.as_ref().map(of_url).unwrap_or_default();
            let (username, secret) = credentials.apart();
            (username.unwrap_or(user), secret.unwrap_or(password))
        } else {
            of_url(&url)
        };
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        // No URL of these schemes refuses the change.
        let _ = (url.set_username(""), url.set_password(None));
        let authorization = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        Ok(Self { url, client: JsonClient::new(authorization)?, vhost })
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let url = self.url.join(&format!("api/{path}"))?;
        let (status, answer) = self.client.send(Method::GET, url.as_str(), None).await?;
        match status.as_u16() {
            200 => Ok(answer),
            401 | 403 => bail!("{url} answers {}: the user needs the tag monitoring", status.as_u16()),
            404 => bail!("{url} answers 404: RabbitMQ has not this virtual host, or the user may not see it"),
            status => bail!("{url} answers {status}"),
        }
    }
}

fn judge_nodes(overview: &Value, nodes: &Value, flags: &Value, findings: &mut Findings) {
    let version = overview["rabbitmq_version"].as_str().unwrap_or("unknown");
    let leading = |part: &str| part.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok();
    let numbers: Vec<u32> = version.split('.').map_while(leading).collect();
    let nodes: Vec<&Value> = nodes.as_array().into_iter().flatten().collect();
    findings.check(
        numbers >= vec![3, 10],
        format!("RabbitMQ {version}, {} nodes", nodes.len()),
        format!("RabbitMQ {version} is older than 3.10"),
    );
    if nodes.len() > 1 && numbers < vec![3, 13, 7] {
        findings.warn(format!("a cluster of RabbitMQ {version} may lose messages: upgrade to 3.13.7 or later"));
    }
    for node in nodes {
        let name = node["name"].as_str().unwrap_or_default();
        if node["running"] == false {
            findings.fail(format!("the node {name} does not run"));
        }
        for (alarm, remedy) in [("mem_alarm", "memory"), ("disk_free_alarm", "disk")] {
            if node[alarm] == true {
                findings.fail(format!("the node {name} has no {remedy}, and accepts no events: free some"));
            }
        }
    }
    let disabled = flags.as_array().into_iter().flatten();
    let disabled: Vec<&str> = disabled
        .filter(|flag| flag["state"] == "disabled" && flag["stability"] == "stable")
        .filter_map(|flag| flag["name"].as_str())
        .collect();
    if !disabled.is_empty() {
        let flags = disabled.join(", ");
        findings.warn(format!("feature flags are disabled: {flags}. rabbitmqctl enable_feature_flag all"));
    }
}

/// Judges the queues whose names begin as the name of the events queue.
fn judge_queues(queues: &Value, events: &str, nodes: usize, findings: &mut Findings) {
    let prefix = &events[..events.rfind('.').map_or(0, |dot| dot + 1)];
    let ours = queues.as_array().into_iter().flatten();
    let ours = ours.filter(|queue| queue["name"].as_str().is_some_and(|name| name.starts_with(prefix)));
    let mut count = 0;
    for queue in ours {
        count += 1;
        let name = queue["name"].as_str().unwrap_or_default();
        let members = queue["members"].as_array().map_or(0, Vec::len);
        let online = queue["online"].as_array().map_or(members, Vec::len);
        if members > 0 && online < members {
            findings.warn(format!("{name} has {online} of {members} members online"));
        }
        if members > 0 && members < nodes.min(3) {
            let risk = if members == 1 { "is lost with its node" } else { "blocks after the loss of a node" };
            findings.warn(format!("{name} has {members} members on {nodes} nodes, and {risk}: rabbitmq-queues grow"));
        }
        let policy = queue["policy"].as_str().unwrap_or_default();
        for (argument, value) in queue["effective_policy_definition"].as_object().into_iter().flatten() {
            let is_short = argument == "consumer-timeout" && value.as_u64().is_some_and(|time| time < CONSUMER_TIMEOUT);
            if HARMFUL.contains(&argument.as_str()) || is_short {
                findings.fail(format!(
                    "the policy {policy:?} sets {argument} {value} on {name}: events would be refused, lost or late. \
                     Exclude ^{} from its pattern",
                    prefix.replace('.', "\\.")
                ));
            }
        }
    }
    findings.check(
        count > 0,
        format!("{count} queues looked at"),
        format!("no queue begins with {prefix}: FANFARE_PREFIX differs, or no process of Fanfare has run"),
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::doctor::Verdict;

    fn bad(findings: Findings) -> Vec<String> {
        let found = findings.into_vec().into_iter().filter(|finding| finding.verdict != Verdict::Good);
        found.map(|finding| finding.text).collect()
    }

    #[test]
    fn policies_and_members_are_judged() {
        let queues = json!([
            { "name": "fanfare.events", "members": ["a", "b", "c"], "online": ["a", "b"], "policy": "limits",
              "effective_policy_definition": { "max-length": 10, "ha-mode": "all" } },
            { "name": "fanfare.delay.60m", "members": ["a"], "online": ["a"],
              "effective_policy_definition": { "consumer-timeout": 1_800_000 } },
            { "name": "other.events", "effective_policy_definition": { "max-length": 10 } },
        ]);
        let mut findings = Findings::new("broker");
        judge_queues(&queues, "fanfare.events", 3, &mut findings);
        let found = bad(findings);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("2 of 3 members"));
        assert!(found[1].contains("max-length 10 on fanfare.events") && found[1].contains("^fanfare\\."));
        assert!(found[2].contains("fanfare.delay.60m has 1 members on 3 nodes, and is lost"));
        let mut findings = Findings::new("broker");
        judge_queues(&json!([]), "fanfare.events", 1, &mut findings);
        assert_eq!(bad(findings).len(), 1);
    }

    #[test]
    fn versions_alarms_and_flags_are_judged() {
        let nodes = json!([{ "name": "a", "running": true, "mem_alarm": true }, { "name": "b", "running": false }]);
        let flags = json!([{ "name": "x", "state": "disabled", "stability": "stable" },
                           { "name": "y", "state": "disabled", "stability": "experimental" }]);
        let mut findings = Findings::new("broker");
        judge_nodes(&json!({ "rabbitmq_version": "3.10.8" }), &nodes, &flags, &mut findings);
        let found = bad(findings);
        assert_eq!(found.len(), 4, "{found:?}");
        let mut findings = Findings::new("broker");
        judge_nodes(&json!({ "rabbitmq_version": "3.9.1" }), &json!([]), &json!(null), &mut findings);
        assert!(bad(findings)[0].contains("older than 3.10"));
    }

    #[test]
    fn the_login_is_of_the_url_or_of_the_broker() {
        let broker = Credentials::of_url("amqp://us%40er:p%2Fw@host/v");
        let authorization = |url: &str, credentials: &Credentials| {
            let api = Api::new(url, credentials).expect("a URL");
            assert!(!api.url.as_str().contains('@'));
            api.client.authorization().to_owned()
        };
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        assert_eq!(authorization("http://host:15672", &broker), basic("us@er:p/w"));
        assert_eq!(authorization("http://o:x@host:15672", &broker), basic("o:x"));
        let apart = Credentials { password: Some(fanfare_credentials::Secret::new("q")), ..broker };
        assert_eq!(authorization("https://host", &apart), basic("us@er:q"));
        assert!(Api::new("host:15672", &apart).is_err());
    }
}
