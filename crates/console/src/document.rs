//! The OpenAPI document and its page.

use axum::{Router, http::header, routing::get};
use bytes::Bytes;
use utoipa::openapi::{
    InfoBuilder, ObjectBuilder, OpenApi, RefOr, Server, Type,
    path::{Operation, Parameter, ParameterBuilder, ParameterIn},
    security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    tag::TagBuilder,
};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::ErrorCode;

/// Completes what the routes say of themselves to the document of the API.
pub fn describe(mut api: OpenApi) -> OpenApi {
    let description = format!(
        "Publish events, and configure, watch, test and resend what becomes of them.\n\n\
         Every answer is JSON: `success` with `data`, or `success: false` with `error`. A list has a `next`, which is \
         the `before` of its next page, and `null` on the last. An admin key names the application with \
         `?application=app_…`. Management bodies have at most 512 KiB; a field that is not described is an error.\n\n\
         ## Errors\n\n{}",
        ErrorCode::table()
    );
    api.info = InfoBuilder::new().title("Fanfare").version("1").description(Some(description)).build();
    api.servers = Some(vec![Server::new("/")]);
    let tag = |name: &str, description: &str| TagBuilder::new().name(name).description(Some(description)).build();
    api.tags = Some(vec![
        tag("events", "Publish events, and look at them."),
        tag("webhooks", "Where deliveries go: configure, test, pause, rotate secrets."),
        tag("webhook configs", "The same by the paths of Nudj's Admin API, also below `/api/v2/admin`."),
        tag("deliveries", "What became of each event at each webhook, and sending it again."),
        tag("replays", "Sending events of the past again, at a pace."),
        tag("event types", "What there is to subscribe to."),
        tag("parked messages", "What could not be read: look at it, put it back, edited or not, or discard it."),
        tag("audit log", "Who changed what, when, and from where."),
        tag("applications", "Tenants, their dialects and keys."),
    ]);
    for path in api.paths.paths.values_mut() {
        let operations = [&mut path.get, &mut path.put, &mut path.post, &mut path.patch, &mut path.delete];
        operations
            .into_iter()
            .flatten()
            .filter(|operation| is_of_one_application(operation))
            .for_each(name_application);
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

/// Whether an operation is about one application, and says nothing of how to name it.
fn is_of_one_application(operation: &Operation) -> bool {
    let is_of_all = |tag: &String| tag == "applications" || tag == "parked messages";
    let names_one = |parameter: &RefOr<Parameter>| matches!(parameter, RefOr::T(given) if given.name == "application");
    !operation.tags.iter().flatten().any(is_of_all) && !operation.parameters.iter().flatten().any(names_one)
}

fn name_application(operation: &mut Operation) {
    let parameter = ParameterBuilder::new()
        .name("application")
        .parameter_in(ParameterIn::Query)
        .description(Some("the application, for an admin key"))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build();
    operation.parameters.get_or_insert_default().push(parameter.into());
}

/// The document at `/api/v1/openapi.json`, and a page to read it at `/docs`.
///
/// # Errors
/// When the document cannot be written as JSON.
pub fn document_routes(api: &OpenApi) -> serde_json::Result<Router> {
    // As bytes, which a copy of the route shares: axum makes such copies, and the document itself takes megabytes.
    let document = Bytes::from(serde_json::to_vec(api)?);
    let page = SwaggerUi::new("/docs").config(Config::from("/api/v1/openapi.json"));
    let route = get(async move || ([(header::CONTENT_TYPE, "application/json")], document));
    Ok(Router::new().route("/api/v1/openapi.json", route).merge(page))
}
