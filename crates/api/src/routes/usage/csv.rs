//! Usage as CSV (RFC 4180), for spreadsheets and accounting.

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};

use jiff::civil::Date;

use crate::{http::answer::Page, routes::usage::Row};

/// Columns of a row.
const COLUMNS: &str =
    "from,to,application,name,plan,labels,final,events,deliveries,attempts,delivered,failed,unknown,stored_bytes\r\n";

/// A page of the days `from` to `to` as CSV. The header `next` has the cursor of the next page. Only the first page has
/// the names of the columns: pages may be joined.
pub(super) fn answer(page: &Page<Row>, (from, to): (Date, Date), is_first: bool) -> Response {
    let columns = if is_first { COLUMNS } else { "" };
    let rows: String = page.data.iter().map(|of| format!("{from},{to},{}", row(of))).collect();
    let mut response =
        ([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], format!("{columns}{rows}")).into_response();
    if let Some(next) = page.next.as_deref().and_then(|next| HeaderValue::from_str(next).ok()) {
        response.headers_mut().insert("next", next);
    }
    response
}

fn row(row: &Row) -> String {
    let labels: Vec<String> = row.labels.iter().map(|(key, value)| format!("{key}:{value}")).collect();
    let texts = [&row.application.to_string(), &row.name, row.plan.as_deref().unwrap_or_default(), &labels.join("\n")];
    let of = &row.figures;
    let counts = [of.events, of.deliveries, of.attempts, of.delivered, of.failed, of.unknown, of.stored_bytes];
    let counts: Vec<String> = counts.iter().map(ToString::to_string).collect();
    format!("{},{},{}\r\n", texts.map(text).join(","), row.is_final, counts.join(","))
}

/// A text in quotes. A spreadsheet would run a text that begins like a formula: an apostrophe before it prevents that.
fn text(text: &str) -> String {
    let apostrophe = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    format!("\"{apostrophe}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_and_never_formulas() {
        assert_eq!(text("Köln, \"Dom\""), "\"Köln, \"\"Dom\"\"\"");
        assert_eq!(text("=1+1"), "\"'=1+1\"");
        assert_eq!(text(""), "\"\"");
    }
}
