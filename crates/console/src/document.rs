//! The OpenAPI document and its page.

use axum::{Json, Router, routing::get};
use utoipa::openapi::{
    InfoBuilder, OpenApi, Server,
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
        tag("event types", "What there is to subscribe to."),
        tag("applications", "Tenants, their dialects and keys."),
    ]);
    let components = api.components.get_or_insert_default();
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let token = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("x-api-token")));
    components.add_security_scheme("bearer", bearer);
    components.add_security_scheme("token", token);
    let nothing: [&str; 0] = [];
    api.security = Some(vec![SecurityRequirement::new("bearer", nothing), SecurityRequirement::new("token", nothing)]);
    api
}

/// The document at `/api/v1/openapi.json`, and a page to read it at `/docs`.
pub fn document_routes(api: OpenApi) -> Router {
    let document = api.clone();
    let page = SwaggerUi::new("/docs").config(Config::from("/api/v1/openapi.json"));
    Router::new().route("/api/v1/openapi.json", get(async move || Json(document))).merge(page)
}
