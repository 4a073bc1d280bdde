//! `fanfare usage`.

use anyhow::bail;
use clap::Args;
use serde_json::Value;

use super::{Api, DEFAULT_LIMIT, Target, rows, segment};

/// Columns of the figures, and before them of a day or an application.
const FIGURES: [(&str, usize); 7] = [
    ("/events", 12),
    ("/deliveries", 12),
    ("/attempts", 12),
    ("/delivered", 12),
    ("/failed", 10),
    ("/unknown", 8),
    ("/stored_bytes", 1),
];
const DAY: [(&str, usize); 2] = [("/day", 10), ("/final", 5)];
const APPLICATION: [(&str, usize); 4] = [("/application", 30), ("/name", 24), ("/plan", 12), ("/final", 5)];

#[derive(Args)]
pub(crate) struct UsageArguments {
    /// List all applications with usage. Needs an admin key.
    #[arg(long)]
    all: bool,
    /// First UTC day, such as 2026-11-01. Default: the first day of this month.
    #[arg(long, conflicts_with = "all")]
    from: Option<String>,
    /// Last UTC day. Default: today.
    #[arg(long, conflicts_with = "all")]
    to: Option<String>,
    /// UTC day of a list of all applications.
    #[arg(long, requires = "all")]
    day: Option<String>,
    /// Month of a list of all applications, such as 2026-11. Default: this month.
    #[arg(long, requires = "all", conflicts_with = "day")]
    month: Option<String>,
    /// Only applications with this label, key:value.
    #[arg(long, requires = "all")]
    label: Option<String>,
    /// Only applications in this plan.
    #[arg(long, requires = "all")]
    plan: Option<String>,
    /// Maximum number of listed applications.
    #[arg(long, default_value_t = DEFAULT_LIMIT)]
    limit: usize,
    #[command(flatten)]
    pub(super) target: Target,
}

pub(super) async fn run(api: &Api, arguments: UsageArguments) -> anyhow::Result<()> {
    if arguments.all {
        let UsageArguments { day, month, label, plan, limit, .. } = arguments;
        let query = [("day", day), ("month", month), ("label", label), ("plan", plan)];
        let columns = [APPLICATION.as_slice(), &FIGURES].concat();
        return api.list("usage", &query, limit, |row: &Value| rows::print(api.prints_json, row, &columns)).await;
    }
    let Some(application) = &api.application else {
        bail!("name the application with --application or in the profile, or list all applications with --all");
    };
    let query = [("from", arguments.from), ("to", arguments.to)];
    let answer = api.get(&format!("applications/{}/usage", segment(application)), &query).await?;
    let report = &answer["data"];
    if api.prints_json {
        return rows::print_all(true, report);
    }
    let columns = [DAY.as_slice(), &FIGURES].concat();
    let days = report["days"].as_array().map(Vec::as_slice).unwrap_or_default();
    days.iter().for_each(|day| rows::print(false, day, &columns));
    for quota in report["quotas"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let of = |member: &str| rows::text(quota.get(member));
        eprintln!("{}: {} of {} used ({} %)", of("name"), of("used"), of("limit"), of("percent"));
    }
    Ok(())
}
