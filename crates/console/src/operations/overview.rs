//! The first page for operators, and its details: endpoints in trouble, queues, processes and jobs.

mod told;

use askama::Template;
use axum::{extract::State, response::Response, routing::get};
use fanfare_api::{
    ApiError,
    http::{authentication::Scope, parameters::Query},
    routes::overview::{
        self, Overview,
        findings::{FindingView, SubjectView},
        rows::{JobView, ProcessView, QueueView, TroubledWebhook},
        stats::{self, StatsQuery},
    },
};
use fanfare_domain::access::session::Right;

use crate::{
    Console,
    frame::{
        Frame,
        fault::Fault,
        marks::{self, filters, words},
        respond::{back_to, page},
    },
    routes::list::Routes,
    session::visitor::Visitor,
};

/// The pages of the overview.
pub(crate) fn routes() -> Routes<Console> {
    Routes::new().route("/", get(show)).route("/endpoints", get(endpoints)).route("/queues", get(queues))
}

#[derive(Template)]
#[template(path = "operations/overview/overview.html")]
struct OverviewPage {
    frame: Frame,
    of: Overview,
    numbers: Vec<Number>,
    /// Queues that somebody consumes: the queues that delay retries are on the page of queues.
    queues: Vec<QueueView>,
    /// True if nobody published an event in the last day.
    is_quiet: bool,
    broker_console: Option<String>,
}

#[derive(Template)]
#[template(path = "operations/overview/endpoints.html")]
struct Endpoints {
    frame: Frame,
    of: Overview,
}

#[derive(Template)]
#[template(path = "operations/overview/queues.html")]
struct Queues {
    frame: Frame,
    of: Overview,
    /// The told changes; `None` without operational events.
    told: Option<told::Told>,
    queues: Vec<QueueView>,
    broker_console: Option<String>,
}

/// A headline figure that leads to its rows.
struct Number {
    value: String,
    label: &'static str,
    href: &'static str,
}

impl OverviewPage {
    fn class(&self, finding: &FindingView) -> &'static str {
        if finding.severity == "critical" { "bad" } else { "" }
    }
}

/// Shows the first page. A session of one application is led to the application.
async fn show(State(console): State<Console>, visitor: Visitor) -> Result<Response, Fault> {
    if let Some(application) = visitor.session.application {
        return Ok(back_to(format!("/console/{application}/")));
    }
    let of = found(&console, &visitor).await?;
    let shown = OverviewPage {
        frame: Frame::new(&visitor, "Operations").live().call("/overview"),
        numbers: numbers(&of.headline),
        queues: of.queues.iter().filter(|queue| !queue.queue.starts_with("delay.")).cloned().collect(),
        is_quiet: of.applications.is_empty() && is_quiet(&console).await?,
        broker_console: broker_console(&console),
        of,
    };
    page(&visitor, &shown)
}

/// Shows the webhooks of all applications that are in trouble.
async fn endpoints(State(console): State<Console>, visitor: Visitor) -> Result<Response, Fault> {
    let of = found(&console, &visitor).await?;
    page(&visitor, &Endpoints { frame: Frame::new(&visitor, "Endpoints").live().call("/overview"), of })
}

/// Shows queues, processes and jobs.
async fn queues(State(console): State<Console>, visitor: Visitor) -> Result<Response, Fault> {
    let of = found(&console, &visitor).await?;
    let frame = Frame::new(&visitor, "Queues").live().call("/overview");
    let told = told::read(&console).await?;
    page(&visitor, &Queues { frame, queues: of.queues.clone(), of, told, broker_console: broker_console(&console) })
}

async fn found(console: &Console, visitor: &Visitor) -> Result<Overview, ApiError> {
    overview::show(State(console.api.clone()), visitor.administrator()?).await.map(|answer| answer.data)
}

async fn is_quiet(console: &Console) -> Result<bool, ApiError> {
    let day = Query(StatsQuery::default());
    let day = stats::show(State(console.api.clone()), Scope(None), day).await?.data;
    Ok(day.total.events == 0)
}

fn broker_console(console: &Console) -> Option<String> {
    console.settings.broker_console.as_ref().map(ToString::to_string)
}

/// The page about a finding.
fn href(finding: &FindingView) -> String {
    match &finding.subject {
        SubjectView::Webhook { application, webhook } => format!("/console/{application}/webhooks/{webhook}"),
        SubjectView::Application { application } => format!("/console/{application}/"),
        SubjectView::Parked { reason } => {
            let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("reason", reason).finish();
            format!("/console/parked?{query}")
        }
        SubjectView::Processes => "/console/queues#processes".to_owned(),
        SubjectView::Queues => "/console/queues#queues".to_owned(),
        SubjectView::Jobs | SubjectView::Database => "/console/queues#jobs".to_owned(),
    }
}

/// The side that must act, in a word.
fn whose(finding: &FindingView) -> &'static str {
    match finding.whose {
        "theirs" => "Theirs",
        "publisher" => "A publisher's",
        _ => "Ours",
    }
}

/// The headline figures, each with the page of its rows.
fn numbers(of: &overview::Headline) -> Vec<Number> {
    let number = |value, label, href| Number { value, label, href };
    let count = |count: u64| marks::number(&i64::try_from(count).unwrap_or(i64::MAX));
    let parked = if of.parked >= MAX_PARKED { format!("{}+", count(of.parked)) } else { count(of.parked) };
    let mut numbers = vec![number(count(of.due), "deliveries due", "/console/queues#processes")];
    if of.due > 0 {
        numbers.push(number(marks::took(of.oldest_due_ms), "oldest due", "/console/queues#processes"));
    }
    if let Some(lag) = of.first_attempt_p95_ms {
        numbers.push(number(marks::took_about(&lag), "to the first attempt, p95", "/console/queues#processes"));
    }
    numbers.push(number(rate(&of.attempts_per_second), "attempts/s", "/console/queues#processes"));
    if let Some(share) = of.share_taken {
        numbers.push(number(percent(&share), "of attempts taken", "/console/endpoints"));
    }
    numbers.push(number(count(of.events_ready), "events in the broker", "/console/queues#queues"));
    numbers.push(number(count(of.events_in_hand), "events in hand", "/console/queues#processes"));
    numbers.push(number(count(of.retries_ready), "retries in the broker", "/console/queues#queues"));
    numbers.push(number(parked, "parked", "/console/parked"));
    numbers
}

/// Bound of the API's count of parked messages.
const MAX_PARKED: u64 = 1000;

/// A number a second.
fn rate(rate: &f64) -> String {
    match *rate {
        none if none <= 0.0 => "0".to_owned(),
        few if few < 1.0 => format!("{few:.2}"),
        some if some < 10.0 => format!("{some:.1}"),
        many => format!("{many:.0}"),
    }
}

/// A share in percent, never rounded up to 100.
fn percent(share: &f64) -> String {
    format!("{:.1} %", (share * 1000.0).floor() / 10.0)
}

/// The sentence behind "Show".
fn well(count: usize) -> String {
    match count {
        1 => "1 other thing was looked at and is well".to_owned(),
        count => format!("{count} other things were looked at and are well"),
    }
}

/// The list of the queued deliveries of a webhook.
fn waiting(webhook: &TroubledWebhook) -> String {
    format!("/console/{}/deliveries?webhook={}&state=queued,held", webhook.application, webhook.webhook)
}

/// The state of a process.
fn process_state(process: &ProcessView) -> &'static str {
    match (process.is_alive, process.has_broker, process.has_database) {
        (false, ..) => "dead",
        (true, true, true) => "running",
        (true, false, _) => "without broker",
        (true, true, false) => "without database",
    }
}

/// A duration as in the API's answers.
fn took(milliseconds: &u64) -> String {
    marks::took(*milliseconds)
}

fn job_state(job: &JobView) -> &'static str {
    if job.error.is_some() { "failed" } else { "done" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_never_better_than_the_truth() {
        assert_eq!([0.9999, 1.0, 0.0].map(|share| percent(&share)), ["99.9 %", "100.0 %", "0.0 %"]);
        assert_eq!([0.0, 0.03, 9.94, 512.4].map(|value| rate(&value)), ["0", "0.03", "9.9", "512"]);
        assert_eq!(well(1), "1 other thing was looked at and is well");
    }

    #[test]
    fn a_finding_leads_to_its_page() {
        let finding = |subject| FindingView {
            severity: "warning",
            whose: "publisher",
            since: None,
            sentence: String::new(),
            action: String::new(),
            subject,
        };
        let parked = finding(SubjectView::Parked { reason: "a&b".to_owned() });
        assert_eq!((href(&parked).as_str(), whose(&parked)), ("/console/parked?reason=a%26b", "A publisher's"));
        assert_eq!(href(&finding(SubjectView::Queues)), "/console/queues#queues");
    }
}
