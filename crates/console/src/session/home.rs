//! The home of a session: the path before all its pages, and the name of its cookie.

use fanfare_domain::{
    access::session::{Face, Session},
    ids::ApplicationId,
};

/// The console has one session in a browser. The portal has a session for each application: staff of a site may look at
/// the portals of two customers side by side. So the application stands in the portal's paths and in the cookie's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    Console,
    Portal(ApplicationId),
}

impl Home {
    /// The home of a request's path. `None` for a path of the portal without an application.
    pub(crate) fn of_path(face: Face, path: &str) -> Option<Self> {
        match face {
            Face::Console => Some(Self::Console),
            Face::Portal => {
                let rest = path.strip_prefix(face.root())?.strip_prefix('/')?;
                rest.split('/').next()?.parse().ok().map(Self::Portal)
            }
        }
    }

    /// The home of a session. `None` for a session of the portal without an application, which nothing creates.
    pub(crate) fn of_session(session: &Session) -> Option<Self> {
        match session.face {
            Face::Console => Some(Self::Console),
            Face::Portal => session.application.map(Self::Portal),
        }
    }

    /// The path before all pages of the session.
    pub(crate) fn path(self) -> String {
        match self {
            Self::Console => Face::Console.root().to_owned(),
            Self::Portal(application) => format!("{}/{application}", Face::Portal.root()),
        }
    }

    /// Name of the session's cookie, without the prefix of secure cookies.
    pub(crate) fn cookie(self) -> String {
        match self {
            Self::Console => "fanfare".to_owned(),
            Self::Portal(application) => format!("fanfare-portal-{application}"),
        }
    }

    pub(crate) fn face(self) -> Face {
        match self {
            Self::Console => Face::Console,
            Self::Portal(_) => Face::Portal,
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_path_tells_the_application_of_the_portal() {
        let application = ApplicationId(Uuid::from_u128(7));
        let home = Home::Portal(application);
        assert_eq!(Home::of_path(Face::Portal, &format!("{}/deliveries", home.path())), Some(home));
        assert_eq!(Home::of_path(Face::Portal, &home.path()), Some(home));
        for path in ["/portal", "/portal/", "/portal/deliveries", &format!("/portals/{application}")] {
            assert_eq!(Home::of_path(Face::Portal, path), None, "{path}");
        }
        assert_eq!(Home::of_path(Face::Console, "/console/parked"), Some(Home::Console));
    }
}
