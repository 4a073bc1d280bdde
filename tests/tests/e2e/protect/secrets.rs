//! Secrets in files: read at the start, and again at each login.

use fanfare_tests::{
    folder::Folder,
    servers::instance::{Instance, Servers},
    world::World,
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_needs_no_restart() {
    let broker = Instance::rabbitmq("password");
    broker.rabbitmqctl(&["add_user", "webhooks", "f%rst"]);
    broker.rabbitmqctl(&["set_permissions", "webhooks", ".*", ".*", ".*"]);
    let world = World::with(Servers { amqp_url: broker.url(), ..Servers::given() }, &[]).await;
    let endpoint = world.endpoint("one", &["a"]).await;

    let folder = Folder::new("secrets");
    let password = folder.write("password", "f%rst\n");
    let database = folder.write("database", &world.variables["DATABASE_URL"]);
    let keys = folder.write("keys", &world.variables["FANFARE_SECRET_KEYS"]);
    let variables = [
        ("AMQP_USERNAME", "webhooks"),
        ("AMQP_PASSWORD_FILE", &password),
        ("DATABASE_URL", ""),
        ("DATABASE_URL_FILE", &database),
        ("FANFARE_SECRET_KEYS", ""),
        ("FANFARE_SECRET_KEYS_FILE", &keys),
    ];
    let dispatcher = world.process_with("dispatcher", &variables);
    dispatcher.ready().await;
    world.publish(&json!({ "type": "a", "data": 1 })).await;
    world.receiver.wait_for(&endpoint.path, 1).await;

    broker.rabbitmqctl(&["change_password", "webhooks", "sec,nd"]);
    broker.rabbitmqctl(&["close_all_user_connections", "webhooks", "the password changed"]);
    dispatcher.logged("cannot connect to the broker for publishing; trying again").await;
    folder.write("password", "sec,nd\n");
    world.publish(&json!({ "type": "a", "data": 2 })).await;
    world.receiver.wait_for(&endpoint.path, 2).await;
}
