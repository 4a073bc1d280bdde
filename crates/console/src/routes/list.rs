//! Routes that can be listed: the tests ask for each path, so that no path is forgotten.

use axum::{Router, routing::MethodRouter};

/// A router, and its paths. Has the methods of [`Router`] that the pages need.
pub(crate) struct Routes<S> {
    router: Router<S>,
    paths: Vec<String>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub(crate) fn new() -> Self {
        Self { router: Router::new(), paths: Vec::new() }
    }

    pub(crate) fn route(mut self, path: &str, methods: MethodRouter<S>) -> Self {
        self.paths.push(path.to_owned());
        Self { router: self.router.route(path, methods), ..self }
    }

    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.paths.extend(other.paths);
        Self { router: self.router.merge(other.router), ..self }
    }

    /// Puts the paths of `other` below a path, which ends with a slash: only then is the first page `/below/`.
    pub(crate) fn nest(mut self, below: &str, other: Self) -> Self {
        self.paths.extend(other.paths.iter().map(|path| format!("{below}{}", path.trim_start_matches('/'))));
        Self { router: self.router.nest(below, other.router), ..self }
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &String> {
        self.paths.iter()
    }

    pub(crate) fn into_router(self) -> Router<S> {
        self.router
    }
}
