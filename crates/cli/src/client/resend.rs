//! `fanfare resend`.

use std::collections::HashSet;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use super::{Api, Target, deliveries::DeliveryFilter, given, rows};

#[derive(Args)]
pub(crate) struct ResendArguments {
    /// Ids of deliveries, dlv_…
    #[arg(conflicts_with_all = ["webhook", "event", "state", "event_type", "status", "reason", "since", "until"])]
    ids: Vec<String>,
    #[command(flatten)]
    filter: DeliveryFilter,
    /// Send nothing, and count.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

/// Resends in portions, until no more deliveries match.
pub(super) async fn run(api: &Api, arguments: ResendArguments) -> anyhow::Result<()> {
    let ids = (!arguments.ids.is_empty()).then(|| json!(arguments.ids));
    let texts = arguments.filter.parameters().map(|(name, value)| (name, value.map(Value::from)));
    let filter = [&[("deliveries", ids)], &texts[..]].concat();
    if filter.iter().all(|(_, value)| value.is_none()) {
        bail!("name ids of deliveries or a filter, such as --webhook wh_… or --since 2026-06-18T12:00:00Z");
    }
    let (mut before, mut count) = (None, 0);
    loop {
        let mut body = given(&filter);
        body["count_only"] = json!(arguments.dry_run);
        if let Some(before) = before.take() {
            body["before"] = before;
        }
        let answer = api.post("deliveries/resend", &body).await.with_context(|| {
            format!("{count} were sent again before this failure: look before you run the command again")
        })?;
        let resent = &answer["data"];
        for delivery in resent["deliveries"].as_array().into_iter().flatten() {
            if api.prints_json || !arguments.dry_run {
                rows::print(api.prints_json, delivery, &[("/id", 30), ("/webhook", 30), ("/event", 1)]);
            }
        }
        count += resent["resent"].as_u64().unwrap_or_default();
        before = Some(resent["next"].clone()).filter(|next| !next.is_null());
        if before.is_none() {
            break;
        }
        eprintln!("{count} so far");
    }
    eprintln!("{}: {count}", if arguments.dry_run { "deliveries to send again" } else { "deliveries sent again" });
    let asked = arguments.ids.iter().collect::<HashSet<_>>().len() as u64;
    if asked > count {
        bail!("{} of {asked} deliveries do not exist, or are on their way now", asked - count);
    }
    Ok(())
}
