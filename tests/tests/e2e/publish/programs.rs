//! The programs of `proto/publishing`, as a publisher copies them.

use std::{path::PathBuf, process::Stdio};

use fanfare_tests::{
    clients::{
        node::{node, program},
        python::python_at,
    },
    servers::{instance::repository, proxy::Proxy},
    world::World,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    sync::OnceCell,
};

/// Programs in TypeScript; the last needs AMQP 1.0.
const TYPESCRIPT: [(&str, &str); 3] = [
    ("amqplib", "typescript/amqplib.mts"),
    ("rabbitmq-client", "typescript/rabbitmq-client.mts"),
    ("rhea", "amqp10/rhea.mts"),
];

/// Paths of the compiled programs.
static COMPILED: OnceCell<Vec<String>> = OnceCell::const_new();

/// Answer to the protocol header of AMQP 1.0 with SASL from a broker that speaks AMQP 1.0 (OASIS AMQP 1.0, 2.2).
const AMQP_1: &[u8; 8] = b"AMQP\x03\x01\x00\x00";

/// Each program publishes an event, although the first connection breaks. The event exists once.
#[tokio::test(flavor = "multi_thread")]
async fn each_program_publishes_its_event_once() {
    let world = World::new().await;
    let endpoint = world.endpoint("all", &["*"]).await;
    let _dispatcher = world.dispatcher().await;
    world.known().await;
    let (proxy, broker) = Proxy::before(&world.variables["AMQP_URL"]).await;
    let mut names = Vec::new();
    for (name, mut command) in commands(speaks_amqp_1(&world).await).await {
        proxy.reset_next();
        let id = format!("from {name}");
        command
            .args(["order.created", &id, "{\"program\": \"Ümit\"}"])
            .env("BROKER", &broker)
            .env("EXCHANGE", format!("{}.events", world.variables["FANFARE_PREFIX"]))
            .env("APPLICATION", &world.application)
            .stderr(Stdio::piped());
        let output = command.output().await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name}: {printed}{errors}");
        assert_eq!(printed.trim(), format!("confirmed {id}"), "{name}: {errors}");
        assert!(errors.contains("next try"), "{name} did not notice the broken connection: {errors}");
        names.push(json!(id));
    }
    let received = world.receiver.wait_for(&endpoint.path, names.len()).await;
    assert!(received.iter().all(|received| String::from_utf8_lossy(&received.body).contains("Ümit")));
    let events = world.client().get("events").await;
    let mut keys: Vec<_> = events.data().as_array().expect("events").iter().map(|event| event["key"].clone()).collect();
    keys.reverse();
    assert_eq!((keys, world.count("SELECT count(*) FROM parked").await), (names, 0));
}

/// A wrong argument ends with a sentence and status 2.
#[tokio::test]
async fn a_program_without_arguments_shows_its_usage() {
    for (name, mut command) in commands(true).await {
        let output = command.env_remove("BROKER").output().await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && errors.contains("usage: "), "{name}: {errors}");
    }
}

/// The programs for which this machine has a language, without arguments.
async fn commands(with_amqp_1: bool) -> Vec<(&'static str, Command)> {
    let folder = repository().join("proto/publishing");
    let mut commands = vec![
        ("lapin", Command::new(example("publish"))),
        ("pika", python_at(&folder.join("python/pika_publish.py")).await),
        ("aio-pika", python_at(&folder.join("python/aio_pika_publish.py")).await),
    ];
    let compiled = COMPILED.get_or_init(compile).await;
    let count = if with_amqp_1 { TYPESCRIPT.len() } else { TYPESCRIPT.len() - 1 };
    commands.extend(TYPESCRIPT.iter().zip(compiled).map(|((name, _), path)| (*name, program(path))).take(count));
    commands
}

/// Checks and compiles the programs in TypeScript. Returns the paths of the compiled programs.
async fn compile() -> Vec<String> {
    // Node finds packages in the folders above a program only.
    let folder = repository().join("tests/clients/node/node_modules/.programs");
    let sources = TYPESCRIPT.map(|(_, file)| repository().join("proto/publishing").join(file));
    let paths: Vec<_> = [folder].iter().chain(&sources).map(|path| path.to_string_lossy().into_owned()).collect();
    let arguments: Vec<&str> = paths.iter().map(String::as_str).collect();
    node("compile.mjs", &arguments, String::new()).await
}

/// Path of a compiled example of this crate.
fn example(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().expect("the path of this program");
    folder.pop();
    folder.with_file_name("examples").join(name)
}

/// True if the broker speaks AMQP 1.0, as RabbitMQ 4 does.
pub(super) async fn speaks_amqp_1(world: &World) -> bool {
    let (_, rest) = world.variables["AMQP_URL"].split_once('@').expect("a user");
    let (server, _) = rest.split_once('/').expect("a path");
    let mut stream = TcpStream::connect(server).await.expect("the broker");
    stream.write_all(AMQP_1).await.expect("sent");
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).await.is_ok() && answer == *AMQP_1
}
