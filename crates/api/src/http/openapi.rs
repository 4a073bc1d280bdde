//! The OpenAPI document.

use axum::{Router, http::header, routing::get};
use bytes::Bytes;
use utoipa::openapi::{
    InfoBuilder, ObjectBuilder, OpenApi, RefOr, Server, Type,
    path::{Operation, Parameter, ParameterBuilder, ParameterIn},
    security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    tag::TagBuilder,
};

use crate::http::error::ErrorCode;

/// Adds title, error table, tags, security and the parameter `application` to the document generated from the routes.
pub fn describe(mut api: OpenApi) -> OpenApi {
    let description = format!(
        "Publish events. Configure and test webhooks. Inspect and resend deliveries.\n\n\
         Every answer is JSON: `success: true` with `data`, or `success: false` with `error`. To get the next page of \
         a list, pass `next` as `before`; `next` is `null` on the last page. With an admin key, name the application by \
         `?application=app_…`. Bodies of management requests have at most 512 KiB. Unknown fields are errors.\n\n\
         ## Errors\n\n{}",
        ErrorCode::table()
    );
    api.info = InfoBuilder::new().title("Fanfare").version("1").description(Some(description)).build();
    api.servers = Some(vec![Server::new("/")]);
    let tag = |name: &str, description: &str| TagBuilder::new().name(name).description(Some(description)).build();
    api.tags = Some(vec![
        tag("events", "Publish, inspect and erase events."),
        tag("webhooks", "Receivers of deliveries: configure, test, pause, rotate secrets."),
        tag("webhook configs", "Webhooks by the paths of Nudj's Admin API, also below `/api/v2/admin`."),
        tag("deliveries", "State and attempts of each event at each webhook; resends."),
        tag("search", "Objects by an id, a publisher's id of an event, a name or a URL."),
        tag("replays", "Past events, sent again at a limited rate."),
        tag("event types", "Event types that webhooks subscribe to."),
        tag("parked messages", "Messages that Fanfare could not process: inspect, edit, put back, discard."),
        tag("audit log", "Changes with caller, time, origin and outcome."),
        tag("stats", "Counts of attempts and events over time."),
        tag("operation", "The state of the deployment, for administrators."),
        tag("web pages", "Sessions of the web pages, and links to the portal of an application."),
        tag("applications", "Tenants with dialects and API keys."),
    ]);
    for path in api.paths.paths.values_mut() {
        let operations = [&mut path.get, &mut path.put, &mut path.post, &mut path.patch, &mut path.delete];
        operations.into_iter().flatten().filter(|operation| lacks_application(operation)).for_each(name_application);
    }
    let components = api.components.get_or_insert_default();
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let token = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("x-api-token")));
    components.add_security_scheme("bearer", bearer);
    components.add_security_scheme("token", token);
    let nothing: [&str; 0] = [];
    api.security = Some(vec![SecurityRequirement::new("bearer", nothing), SecurityRequirement::new("token", nothing)]);
    api
}

/// True if an operation is about a single application and lacks the parameter `application`.
fn lacks_application(operation: &Operation) -> bool {
    let is_of_all = |tag: &String| ["applications", "parked messages", "operation"].contains(&tag.as_str());
    let names_application =
        |parameter: &RefOr<Parameter>| matches!(parameter, RefOr::T(parameter) if parameter.name == "application");
    !operation.tags.iter().flatten().any(is_of_all) && !operation.parameters.iter().flatten().any(names_application)
}

fn name_application(operation: &mut Operation) {
    let parameter = ParameterBuilder::new()
        .name("application")
        .parameter_in(ParameterIn::Query)
        .description(Some("id of the application, for an admin key"))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build();
    operation.parameters.get_or_insert_default().push(parameter.into());
}

/// Serves the document at `/api/v1/openapi.json`.
///
/// # Errors
/// If the document cannot be serialized as JSON.
pub fn document_routes(api: &OpenApi) -> serde_json::Result<Router> {
    // axum clones routes. The clones share these bytes; the parsed document takes megabytes.
    let document = Bytes::from(serde_json::to_vec(api)?);
    let route = get(async move || ([(header::CONTENT_TYPE, "application/json")], document));
    Ok(Router::new().route("/api/v1/openapi.json", route))
}
