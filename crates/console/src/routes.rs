//! The routes: one list for the console, one for the portal.

pub(crate) mod list;

use axum::{
    Router,
    extract::Path,
    middleware::from_fn_with_state,
    response::Redirect,
    routing::{get, post},
};
use fanfare_api::http::error::{ApiError, ErrorCode};
use fanfare_domain::{access::session::Face, ids::ApplicationId};

use crate::{
    Console, application, assets,
    frame::fault::Fault,
    operations,
    routes::list::Routes,
    session::{
        guard::{guard, headers},
        page,
        sign_in::{self, link},
        theme,
    },
};

/// The pages of the console, below `/console`.
pub fn console_routes(console: Console) -> Router {
    Router::new()
        .route("/", get(async || Redirect::to("/console/")))
        .route("/console", get(async || Redirect::to("/console/")))
        .route("/console/{app}", get(async |Path(app): Path<String>| to_application(Face::Console, &app)))
        .nest("/console/", pages(&console, Face::Console))
        .layer(from_fn_with_state((console, Face::Console), headers))
}

/// The pages of the portal, below `/portal`.
pub fn portal_routes(console: Console) -> Router {
    Router::new()
        .route("/portal", get(async || Redirect::to("/portal/ended")))
        .route("/portal/", get(async || Redirect::to("/portal/ended")))
        .route("/portal/{app}", get(async |Path(app): Path<String>| to_application(Face::Portal, &app)))
        .nest("/portal/", pages(&console, Face::Portal))
        .layer(from_fn_with_state((console, Face::Portal), headers))
}

/// Paths of all pages behind the guard, such as `/console/{app}/deliveries`. Tests ask for each path.
pub fn guarded_paths(face: Face) -> Vec<String> {
    guarded(face).paths().map(|path| format!("{}{path}", face.root())).collect()
}

/// Paths without a session: sign-in, links and assets.
pub fn open_paths(face: Face) -> Vec<String> {
    open(face).paths().map(|path| format!("{}{path}", face.root())).collect()
}

/// Leads from a path without its last slash to the first page of the application.
fn to_application(face: Face, application: &str) -> Redirect {
    match (application.parse::<ApplicationId>(), face) {
        (Ok(application), face) => Redirect::to(&format!("{}/{application}/", face.root())),
        (Err(_), Face::Console) => Redirect::to("/console/"),
        (Err(_), Face::Portal) => Redirect::to("/portal/ended"),
    }
}

fn pages(console: &Console, face: Face) -> Router {
    let guarded = guarded(face)
        .into_router()
        .fallback(unknown_page)
        .method_not_allowed_fallback(unknown_method)
        .with_state(console.clone())
        .layer(from_fn_with_state((console.clone(), face), guard));
    guarded.merge(open(face).into_router().with_state((console.clone(), face)))
}

fn guarded(face: Face) -> Routes<Console> {
    match face {
        Face::Console => operations::routes().nest("/{app}/", application::routes()).merge(of_session()),
        Face::Portal => {
            let of_application = application::routes().merge(of_session()).route("/theme/{name}", get(theme::serve));
            Routes::new().nest("/{app}/", of_application)
        }
    }
}

fn of_session() -> Routes<Console> {
    Routes::new()
        .route("/session", get(page::show))
        .route("/session/preferences", post(page::prefer))
        .route("/sign-out", post(page::sign_out))
}

/// The sign-in, links that open a session, and the assets.
fn open(face: Face) -> Routes<(Console, Face)> {
    let routes = Routes::new()
        .route("/open/{token}", get(link::show).post(link::open))
        .route("/assets/{name}", get(assets::serve));
    match face {
        Face::Console => routes.route("/sign-in", get(sign_in::show).post(sign_in::by_key)).merge(of_provider()),
        Face::Portal => routes.route("/ended", get(link::ended)),
    }
}

/// The sign-in by a provider of OpenID Connect.
#[cfg(feature = "oidc")]
fn of_provider() -> Routes<(Console, Face)> {
    use crate::session::sign_in::provider;
    Routes::new().route("/sign-in/provider", get(provider::start)).route("/sign-in/callback", get(provider::finish))
}

#[cfg(not(feature = "oidc"))]
fn of_provider() -> Routes<(Console, Face)> {
    Routes::new()
}

async fn unknown_page() -> Fault {
    Fault::from(ApiError::not_found("path", "no page has this address"))
}

async fn unknown_method() -> Fault {
    let message = "the address belongs to a form: open the form's page, and send the form";
    Fault::from(ApiError::new(ErrorCode::MethodNotAllowed, message))
}
