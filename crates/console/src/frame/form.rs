//! Forms: the values of the fields, and the error beside its field.

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode, header},
};
use fanfare_api::http::{
    body::read_bytes,
    error::{ApiError, ErrorCode},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

type Query = url::form_urlencoded::Serializer<'static, String>;

/// The maximum of fields of a form. The largest form has a box for each event type.
const MAX_FIELDS: usize = 2000;

/// Reads the body of a form of at most `max_bytes`.
///
/// # Errors
/// 415 for another content type, 413 for a larger body or too many fields, 408 for a body that arrives too slowly, 400
/// for an incomplete body.
pub(crate) async fn read(headers: &HeaderMap, body: Body, max_bytes: usize) -> Result<Bytes, ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !content_type.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded")) {
        let message = "the request is no form of these pages: use the page's button";
        return Err(ApiError::new(ErrorCode::UnsupportedContentType, message));
    }
    let body = read_bytes(body, max_bytes).await?;
    if body.split(|byte| *byte == b'&').nth(MAX_FIELDS).is_some() {
        let message = format!("the form has more than {MAX_FIELDS} fields: choose fewer, or use the API");
        return Err(ApiError::new(ErrorCode::BodyTooLarge, message));
    }
    Ok(body)
}

/// The fields of a form, as sent or as shown first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields {
    pairs: Vec<(String, String)>,
    error: Option<ApiError>,
}

impl Fields {
    /// Reads the body of a form.
    pub(crate) fn of_body(body: &[u8]) -> Self {
        let pairs = url::form_urlencoded::parse(body).map(|(name, value)| (name.into_owned(), value.into_owned()));
        Self { pairs: pairs.collect(), error: None }
    }

    /// Reads the parameters of an address, as the fields of a filter.
    pub(crate) fn of_address(address: &str) -> Self {
        Self::of_body(address.split_once('?').map_or("", |(_, query)| query).as_bytes())
    }

    /// Sets the value of a field that is shown first.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.pairs.push((name.to_owned(), value.into()));
        self
    }

    /// Shows the form again, with the error beside its field.
    pub(crate) fn refused(mut self, error: ApiError) -> Self {
        self.error = Some(error);
        self
    }

    /// The value of a field; empty without the field.
    pub(crate) fn value(&self, name: &str) -> &str {
        self.pairs.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
    }

    /// The value of a field, without space around; `None` for an empty field.
    pub(crate) fn given(&self, name: &str) -> Option<&str> {
        Some(self.value(name).trim()).filter(|value| !value.is_empty())
    }

    /// True if one of the fields has a value.
    pub(crate) fn gives_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.given(name).is_some())
    }

    /// True if the form has the field, empty or not.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.pairs.iter().any(|(known, _)| known == name)
    }

    /// All values of a field.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        self.pairs.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    /// True if the field has the value, for boxes and choices.
    pub(crate) fn has(&self, name: &str, value: &str) -> bool {
        self.pairs.iter().any(|(known, given)| known == name && given == value)
    }

    /// The status of the page: 200, or the status of the error.
    pub(crate) fn status(&self) -> StatusCode {
        self.error.as_ref().map_or(StatusCode::OK, ApiError::status)
    }

    /// All fields but the named, for the hidden fields of a confirmation.
    pub(crate) fn others(&self, left_out: &[&str]) -> Vec<(&str, &str)> {
        let pairs = self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        pairs.filter(|(name, _)| !left_out.contains(name)).collect()
    }

    /// Id of the field with the error, for a link.
    pub(crate) fn error_place(&self) -> Option<&str> {
        self.error.as_ref()?.field.as_deref()?.split(['.', '[']).next()
    }

    /// The error of the whole form.
    pub(crate) fn error(&self) -> Option<&ApiError> {
        self.error.as_ref()
    }

    /// The message of an error that concerns the field.
    pub(crate) fn error_of(&self, name: &str) -> Option<&str> {
        let error = self.error.as_ref()?;
        let field = error.field.as_deref()?;
        let is_within = field.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        is_within.then_some(error.message.as_str())
    }

    /// Parses the field as a number; `null` for an empty field.
    pub(crate) fn number(&self, name: &str) -> Result<Value, ApiError> {
        match self.given(name) {
            None => Ok(Value::Null),
            Some(text) => text
                .parse::<u64>()
                .map(Value::from)
                .map_err(|_| ApiError::new(ErrorCode::WrongType, format!("`{name}` must be a whole number")).at(name)),
        }
    }

    /// The lines or comma-separated entries of a field.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let entries = self.value(name).split(['\n', ',']).map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(str::to_owned).collect()
    }
}

/// Parameters of all pages: the message about a change with its number, plain text, and the seconds between reloads.
const OF_PAGES: [&str; 4] = ["done", "n", "as", "refresh"];

/// Reads the filter of a list from an address. Empty fields are left out, as a form sends all fields.
///
/// # Errors
/// Like the API, for an unknown parameter.
pub(crate) fn query<T: DeserializeOwned>(address: &str) -> Result<T, ApiError> {
    query_besides(address, &[])
}

/// Like [`query`], without the parameters that the page reads itself.
pub(crate) fn query_besides<T: DeserializeOwned>(address: &str, own: &[&str]) -> Result<T, ApiError> {
    serde_urlencoded::from_str(&kept(address, own).finish())
        .map_err(|error| ApiError::new(ErrorCode::InvalidQuery, format!("the address: {error}")))
}

/// The request to the API with the same parameters as the address.
pub(crate) fn call(path: &str, address: &str) -> String {
    with_query(path, kept(address, &[]))
}

/// The address with a parameter set, or removed by an empty value. The cursor of a page is removed.
pub(crate) fn with_parameter(address: &str, parameter: &str, value: &str) -> String {
    let mut query = kept(address, &["before", parameter]);
    if !value.is_empty() {
        query.append_pair(parameter, value);
    }
    with_query(address.split('?').next().unwrap_or_default(), query)
}

/// The parameters of an address, without empty parameters and the named.
fn kept(address: &str, left_out: &[&str]) -> Query {
    let query = address.split_once('?').map_or("", |(_, query)| query);
    let mut kept = Query::new(String::new());
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if !value.is_empty() && !OF_PAGES.contains(&name.as_ref()) && !left_out.contains(&name.as_ref()) {
            kept.append_pair(&name, &value);
        }
    }
    kept
}

fn with_query(path: &str, mut query: Query) -> String {
    let query = query.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Filter {
        state: Option<String>,
        limit: Option<usize>,
    }

    #[tokio::test]
    async fn a_form_with_too_many_fields_is_refused_before_its_page() {
        let mut headers = HeaderMap::new();
        let of = async |headers: &HeaderMap, body: String| {
            read(headers, Body::from(body), 10_000).await.map(|body| body.len()).map_err(|error| error.status())
        };
        assert_eq!(of(&headers, "a=1".to_owned()).await, Err(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/x-www-form-urlencoded"));
        assert_eq!(of(&headers, "&".repeat(MAX_FIELDS - 1)).await, Ok(MAX_FIELDS - 1));
        assert_eq!(of(&headers, "&".repeat(MAX_FIELDS)).await, Err(StatusCode::PAYLOAD_TOO_LARGE));
        assert_eq!(of(&headers, "a".repeat(10_001)).await, Err(StatusCode::PAYLOAD_TOO_LARGE));
    }

    #[test]
    fn empty_fields_are_no_filter() {
        let read = |address: &str| query::<Filter>(address).ok();
        let filter = |state: Option<&str>, limit| Some(Filter { state: state.map(str::to_owned), limit });
        assert_eq!(read("/console/x?state=&limit=&done=saved"), filter(None, None));
        assert_eq!(read("/console/x?state=failed&limit=5"), filter(Some("failed"), Some(5)));
        assert_eq!(read("/console/x?stat=failed"), None);
        assert_eq!(read("/console/x"), filter(None, None));
    }

    #[test]
    fn a_parameter_replaces_its_old_value_and_begins_the_list_anew() {
        assert_eq!(with_parameter("/a?x=1&y=2&before=3", "x", "4 5"), "/a?y=2&x=4+5");
        assert_eq!(with_parameter("/a?x=1", "x", ""), "/a");
        assert_eq!(call("/b", "/a?x=1&y=&before=3&done=saved"), "/b?x=1&before=3");
    }

    #[test]
    fn an_error_stands_beside_its_field() {
        let fields = Fields::of_body(b"url=x&events=a&events=b").refused(ApiError::invalid("events[1]", "is odd"));
        assert!(fields.error_of("events").is_some() && fields.error_of("event").is_none());
        assert_eq!(fields.values("events"), ["a", "b"]);
    }
}
