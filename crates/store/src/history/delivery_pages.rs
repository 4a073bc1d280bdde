//! Statements of the lists of deliveries. A page is cut first, by an index; details follow for the page's rows only.
//!
//! A filter without an index is a search: the statement walks a bounded number of rows, tests each row by look-ups by
//! primary key, and stops at a full page.

use fanfare_domain::delivery::State;

use crate::history::{deliveries::DeliveryFilter, events::LISTED_BODY};

/// Deliveries that a search walks in a step, newest first.
const MAX_WALKED: usize = 15_000;

/// Deliveries that a search by type and answer walks: each needs two look-ups.
const MAX_WALKED_TWICE: usize = 10_000;

/// Deliveries that a search of texts walks: each needs up to four look-ups.
const MAX_READ: usize = 5_000;

/// Characters of a body, from the beginning, that a search reads. A step stays bounded beside large bodies.
pub(crate) const MAX_TEXT: usize = 8_192;

/// Columns of a finished delivery on a page.
pub(super) const FINISHED: &str = "d.id, d.event_id, d.endpoint_id, d.state, d.reason, d.attempt, d.failures, \
     NULL::timestamptz AS due_at, d.finished_at, d.attempt AS attempts, d.status, \
     d.started_at IS NOT NULL AS is_inline, false AS is_open, false AS finished_once, d.mailed_at, d.mailed_to";

/// Columns of an open delivery, in the order of [`FINISHED`].
pub(super) const OPEN: &str = "o.id, o.event_id, o.endpoint_id, o.state, o.reason, o.attempt, o.failures, o.due_at, \
     NULL::timestamptz AS finished_at, o.attempt - (o.state <> 'sending')::int AS attempts, \
     NULL::int AS status, false AS is_inline, true AS is_open, o.finished_once, \
     NULL::timestamptz AS mailed_at, NULL::text AS mailed_to";

/// Paused endpoints of application $1.
const PAUSED_ENDPOINTS: &str =
    "ARRAY(SELECT id FROM endpoints WHERE application_id = $1 AND status = 'paused' AND deleted_at IS NULL)";

/// True if a row of `deliveries d` has an open row, too. A scalar subquery is always a look-up by key, never a join.
pub(crate) const IS_OPEN: &str = "coalesce((SELECT true FROM open_deliveries once WHERE once.id = d.id), false)";

/// Number of deliveries that a step of a search walks; `None` for a list by an index.
pub(super) fn max_walked(filter: &DeliveryFilter) -> Option<usize> {
    let DeliveryFilter { event_type, status, outcome, reason, contains, .. } = filter;
    let by_answer = status.is_some() || outcome.is_some();
    match (contains.is_some(), event_type.is_some(), by_answer) {
        (true, _, _) => Some(MAX_READ),
        (_, true, true) => Some(MAX_WALKED_TWICE),
        (false, false, false) => reason.as_ref().map(|_| MAX_WALKED),
        _ => Some(MAX_WALKED),
    }
}

/// Statement of a list. Parameters: application, least id, greatest id, limit, endpoint, event, ids, exact type, prefix
/// of types, least status, greatest status, outcome, reason, text, bytes of the text.
///
/// Each row has the last delivery walked in `passed`, if the bound of a step ended a search early. Without a delivery,
/// the only row has NULL as id.
pub(super) fn list_statement(filter: &DeliveryFilter) -> String {
    let body = if filter.with_bodies { LISTED_BODY } else { "NULL AS body" };
    let Some(walked) = max_walked(filter) else {
        let page = rows(filter, "$4", &format!("NOT {IS_OPEN}"));
        return format!(
            "WITH page AS MATERIALIZED ({page}), {}
             SELECT NULL::uuid AS passed, detailed.* FROM detailed WHERE {TYPED} ORDER BY id DESC",
            detailed(body)
        );
    };
    // The test below leaves out finished rows that were requested again: after the other tests, few rows are left.
    let candidates = rows(filter, &walked.to_string(), "true");
    let test = test(!filter.states.is_empty());
    format!(
        "WITH walked AS MATERIALIZED ({candidates}),
         -- Tests in the order of the walk, until the page is full: scalar subqueries only, never a join.
         page AS MATERIALIZED (SELECT * FROM walked w WHERE {test} LIMIT $4),
         {}
         SELECT passed.id AS passed, detailed.*
         FROM (SELECT CASE WHEN (SELECT count(*) FROM page) < $4
                           THEN (SELECT id FROM walked OFFSET {} LIMIT 1) END AS id) passed
         LEFT JOIN detailed ON true WHERE {TYPED} ORDER BY detailed.id DESC",
        detailed(body),
        walked - 1
    )
}

/// Names each parameter with its type: a statement may lack some parameters.
const TYPED: &str =
    "($6::uuid IS NULL OR $7::uuid[] IS NULL OR $8::text IS NULL OR $9::text IS NULL OR $10::int IS NULL
     OR $11::int IS NULL OR $12::text IS NULL OR $13::text IS NULL OR $14::text IS NULL OR $15::bytea IS NULL OR true)";

/// Test of a walked row `w`. The order of the branches is the order of their costs.
fn test(is_by_state: bool) -> String {
    // Without states, the walk itself prefers the open row.
    let not_open = match is_by_state {
        true => format!("w.is_open OR NOT {}", IS_OPEN.replace("d.id", "w.id")),
        false => "true".to_owned(),
    };
    let answer = |row: &str, outcome: &str| {
        format!("($12::text IS NULL OR {outcome} = $12) AND ($10::int IS NULL OR {row}.status BETWEEN $10 AND $11)")
    };
    let event = |condition: &str| {
        format!(
            "coalesce((SELECT {condition} FROM events e
                       WHERE e.application_id = $1 AND e.accepted_at = delivery_accepted_at(w.id) AND e.id = w.event_id
                       LIMIT 1), false)"
        )
    };
    let finished = |condition: &str| {
        format!(
            "(SELECT {condition} FROM deliveries d
              WHERE d.application_id = $1 AND d.id = w.id AND d.started_at IS NOT NULL LIMIT 1)"
        )
    };
    let found = |column: &str| format!("coalesce(position($15 IN substring({column} FOR {MAX_TEXT})) > 0, false)");
    format!(
        "CASE WHEN $13::text IS NOT NULL AND w.reason IS DISTINCT FROM $13 THEN false
              WHEN ($10::int IS NOT NULL OR $12::text IS NOT NULL) AND NOT coalesce(
                  CASE WHEN w.attempts > w.is_inline::int
                       THEN (SELECT {} FROM attempts a WHERE a.delivery_id = w.id ORDER BY a.attempt DESC LIMIT 1) END,
                  CASE WHEN w.is_inline THEN {} WHEN w.finished_once THEN {} END, false) THEN false
              WHEN ($8::text IS NOT NULL OR $9::text IS NOT NULL) AND NOT {} THEN false
              WHEN $14::text IS NOT NULL AND NOT {}
                   AND NOT coalesce(CASE WHEN w.is_inline OR w.finished_once THEN {} END, false)
                   AND NOT coalesce((SELECT true FROM attempts a WHERE a.delivery_id = w.id AND {} LIMIT 1), false)
                   THEN false
              ELSE {not_open} END",
        answer("a", "a.outcome"),
        answer("w", "'answered'"),
        finished(&answer("d", "'answered'")),
        event("($8::text IS NULL OR e.type = $8) AND ($9::text IS NULL OR starts_with(e.type, $9))"),
        event(&format!("e.erased_at IS NULL AND strpos(left(e.body, {MAX_TEXT}), $14) > 0")),
        finished(&found("d.response_body")),
        found("a.response_body")
    )
}

/// Rows of a list before any search, newest first. `not_open` is a condition on finished rows of a list by state.
fn rows(filter: &DeliveryFilter, limit: &str, not_open: &str) -> String {
    let finished = |state: Option<State>| {
        format!(
            "SELECT {FINISHED} FROM deliveries d
             WHERE {} AND d.id BETWEEN $2 AND $3 AND ($6::uuid IS NULL OR d.event_id = $6) {} {}
             ORDER BY d.id DESC LIMIT {limit}",
            scope(filter, state, "d"),
            named(filter, "d"),
            finished_condition(state, not_open)
        )
    };
    let of_state = |state: State| {
        if state.is_finished() { finished(Some(state)) } else { open_rows(filter, Some(state), limit) }
    };
    match filter.states.as_slice() {
        [] => format!(
            "SELECT DISTINCT ON (id) * FROM (({}) UNION ALL ({})) AS both_tables
             ORDER BY id DESC, is_open DESC LIMIT {limit}",
            finished(None),
            open_rows(filter, None, limit)
        ),
        [state] => of_state(*state),
        states => {
            let branches: Vec<String> = states.iter().map(|state| format!("({})", of_state(*state))).collect();
            format!("SELECT * FROM ({}) AS states ORDER BY id DESC LIMIT {limit}", branches.join("\n UNION ALL\n "))
        }
    }
}

/// Condition for rows with given ids.
fn named(filter: &DeliveryFilter, table: &str) -> String {
    filter.ids.as_ref().map(|_| format!("AND {table}.id = ANY ($7::uuid[])")).unwrap_or_default()
}

/// Condition for an index on the endpoint or on the application.
fn scope(filter: &DeliveryFilter, state: Option<State>, table: &str) -> String {
    match filter.endpoint {
        // Rows are found by their primary key.
        _ if filter.ids.is_some() => {
            format!("{table}.application_id = $1 AND ($5::uuid IS NULL OR {table}.endpoint_id = $5)")
        }
        // Without a condition on `application_id`, the planner does not choose the application's index.
        Some(_) if state.is_none_or(|state| !is_not_delivered(state)) => {
            format!("{table}.endpoint_id = $5 AND (SELECT p.application_id FROM endpoints p WHERE p.id = $5) = $1")
        }
        Some(_) => format!("{table}.application_id = $1 AND {table}.endpoint_id = $5"),
        None => format!("{table}.application_id = $1 AND $5::uuid IS NULL"),
    }
}

/// True if the partial indexes by state contain rows of `state`.
fn is_not_delivered(state: State) -> bool {
    matches!(state, State::Failed | State::Skipped)
}

/// Condition on the state of a finished row. A list by state omits deliveries requested again.
fn finished_condition(state: Option<State>, not_open: &str) -> String {
    match state {
        None => String::new(),
        // The statement repeats the index's own condition: the planner need not derive it.
        Some(state) if is_not_delivered(state) => {
            format!("AND d.state <> 'delivered' AND d.state = '{}' AND {not_open}", state.as_str())
        }
        Some(state) => format!("AND d.state = '{}' AND {not_open}", state.as_str()),
    }
}

/// Newest open rows.
fn open_rows(filter: &DeliveryFilter, state: Option<State>, limit: &str) -> String {
    let condition = match state {
        Some(State::Held) if filter.endpoint.is_none() && filter.ids.is_none() => return held_rows(limit),
        Some(State::Held) => format!("AND o.state = 'queued' AND o.endpoint_id = ANY ({PAUSED_ENDPOINTS})"),
        Some(State::Queued) => format!("AND o.state = 'queued' AND o.endpoint_id <> ALL ({PAUSED_ENDPOINTS})"),
        Some(state) => format!("AND o.state = '{}'", state.as_str()),
        None => String::new(),
    };
    let conditions = format!(
        "{} AND o.id BETWEEN $2 AND $3 AND ($6::uuid IS NULL OR o.event_id = $6) {} {condition}",
        scope(filter, None, "o"),
        named(filter, "o")
    );
    let rows = |listed: &str| {
        format!("SELECT {OPEN} FROM open_deliveries o WHERE {conditions} {listed} ORDER BY o.id DESC LIMIT {limit}")
    };
    // The few rows of one event, and named rows, are found by their ids, listed or not.
    if filter.event.is_some() || filter.ids.is_some() {
        return rows("");
    }
    if !state.is_none_or(|state| state == State::Sending) {
        return rows("AND o.listed");
    }
    format!(
        "({}) UNION ALL ({}) ORDER BY id DESC LIMIT {limit}",
        rows("AND o.listed"),
        rows(&format!("AND NOT o.listed AND {RECENT}"))
    )
}

/// Bound for rows that are sent at once and not listed. Such a row is younger than 10 s, or has become slow and is
/// listed. The primary key finds the younger rows, so that no page passes a row unseen.
const RECENT: &str = "o.id >= (lpad(to_hex((extract(epoch FROM now() - interval '10 s') * 1000)::bigint), 12, '0')
                               || repeat('0', 20))::uuid";

/// Newest held rows of an application. The walk begins at the paused endpoints: among many queued rows, few may be
/// held.
fn held_rows(limit: &str) -> String {
    format!(
        "SELECT held.* FROM endpoints p CROSS JOIN (VALUES (0::smallint), (1::smallint), (2::smallint)) AS c(class)
         CROSS JOIN LATERAL (
             SELECT {OPEN} FROM open_deliveries o
             WHERE o.endpoint_id = p.id AND o.state = 'queued' AND o.class = c.class AND o.id BETWEEN $2 AND $3
               AND ($6::uuid IS NULL OR o.event_id = $6)
             ORDER BY o.id DESC LIMIT {limit}) held
         WHERE p.application_id = $1 AND p.status = 'paused' AND p.deleted_at IS NULL AND $5::uuid IS NULL
         ORDER BY held.id DESC LIMIT {limit}"
    )
}

/// The CTE `detailed`: adds details to the rows of `page`, and to no others, by look-ups by primary key. $1 is the
/// application.
pub(super) fn detailed(body: &str) -> String {
    format!(
        "detailed AS (
         SELECT page.id, page.event_id, coalesce(e.type, '') AS type, page.endpoint_id, p.url, p.name, page.reason, page.attempt,
                CASE WHEN page.state = 'queued' AND p.status = 'paused' AND p.deleted_at IS NULL THEN 'held'
                     ELSE page.state END AS state, p.had_template,
                page.failures, page.due_at, page.finished_at, page.attempts,
                coalesce(page.mailed_at, once.mailed_at) AS mailed_at,
                coalesce(page.mailed_to, once.mailed_to) AS mailed_to, e.body,
                coalesce(e.is_redacted, false) AS is_redacted, e.ordering_key,
                CASE WHEN e.ordering_key IS NOT NULL
                     THEN (SELECT s.sequence FROM delivery_sequences s WHERE s.id = page.id) END AS sequence,
                CASE WHEN last.attempt IS NOT NULL THEN last.status ELSE coalesce(page.status, once.status) END
                    AS response_status
         FROM page
         JOIN endpoints p ON p.id = page.endpoint_id
         LEFT JOIN LATERAL (
             SELECT e.type, e.body_key_name IS NOT NULL AS is_redacted, e.ordering_key, {body} FROM events e
             WHERE e.application_id = $1 AND e.accepted_at = delivery_accepted_at(page.id) AND e.id = page.event_id
             LIMIT 1) e ON true
         LEFT JOIN LATERAL (
             SELECT a.attempt, a.status FROM attempts a WHERE a.delivery_id = page.id
             ORDER BY a.attempt DESC LIMIT 1) last ON page.attempts > page.is_inline::int
         LEFT JOIN LATERAL (
             SELECT d.status, d.mailed_at, d.mailed_to FROM deliveries d
             WHERE d.application_id = $1 AND d.id = page.id
             LIMIT 1) once ON page.finished_once)"
    )
}
