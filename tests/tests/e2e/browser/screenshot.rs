//! The picture of the README: made anew by each run, into `target/screens`. `make screenshot` copies the picture.

use fanfare_tests::{
    clients::browser::{Manner, Visit, screens},
    scene::Scene,
    servers::instance::repository,
    world::World,
};
use serde_json::json;

use crate::console::visitor::Visitor;

/// The largest picture, in bytes.
const LARGEST: u64 = 120_000;

/// Path of the picture in the repository.
const PICTURE: &str = ".github/console.png";

#[tokio::test]
async fn the_picture_of_the_readme_is_made() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    Scene::shop(&world).await;
    let visitor = Visitor::by_key(&world, &world.key).await;
    let visit = Visit::begin(&world, "readme", &visitor.cookie, Manner::USUAL).await;
    visit.open(&format!("/console/{}/deliveries", world.application)).await;
    let file = screens().join("console.png");
    let size = visit.act("picture", json!({ "file": file, "height": 640 })).await;
    assert!(size.as_u64().is_some_and(|size| size <= LARGEST), "{size} bytes");
    visit.end().await;
}

#[test]
fn the_readme_shows_the_picture() {
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("the README");
    assert!(readme.contains(PICTURE), "README.md does not show {PICTURE}");
    let size = std::fs::metadata(repository().join(PICTURE)).expect("the picture: run `make screenshot`").len();
    assert!(size <= LARGEST, "{PICTURE} has {size} bytes");
}
