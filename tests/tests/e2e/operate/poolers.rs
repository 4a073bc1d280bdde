//! PgBouncer between Fanfare and PostgreSQL, in each of its modes.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use fanfare_tests::{
    patience::until,
    world::{World, process::try_fanfare},
};
use serde_json::json;
use tokio::net::TcpStream;

/// A running PgBouncer. Killed on drop.
struct Pooler {
    process: Child,
    configuration: PathBuf,
    /// URL of the database through the pooler.
    url: String,
}

impl Pooler {
    async fn start(world: &World, mode: &str) -> Self {
        let url = &world.variables["DATABASE_URL"];
        let (user, rest) = url.trim_start_matches("postgres://").split_once('@').expect("a user");
        let (server, _) = rest.split_once('/').expect("a database");
        let server: SocketAddr = server.parse().expect("an address");
        // Another process may take the port meanwhile: PgBouncer takes no open port.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let configuration = format!(
            "[databases]\n* = host={} port={} user={user}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = 50\n",
            server.ip(),
            server.port(),
            address.port()
        );
        let file =
            std::env::temp_dir().join(format!("fanfare-pgbouncer-{}-{}.ini", std::process::id(), address.port()));
        fs::write(&file, configuration).expect("a configuration");
        let mut pooler = Command::new("pgbouncer");
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        pooler.arg("--quiet").env("PATH", path).stdout(Stdio::null()).stderr(Stdio::null());
        // PgBouncer refuses to run as root.
        if fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
            pooler.args(["--user", "nobody"]);
        }
        let process = pooler.arg(&file).spawn().expect("PgBouncer: run deploy/dev/install pgbouncer");
        until("PgBouncer to accept connections", async || TcpStream::connect(address).await.ok()).await;
        let through = url.replacen(&server.to_string(), &address.to_string(), 1);
        Self { process, configuration: file, url: through }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.configuration);
    }
}

#[tokio::test]
async fn a_pooler_that_shares_sessions_is_refused() {
    let world = World::new().await;
    for mode in ["transaction", "statement"] {
        let pooler = Pooler::start(&world, mode).await;
        let through = [("DATABASE_URL", pooler.url.as_str())];
        for name in ["ingest", "dispatcher"] {
            let service = world.process_with(name, &through);
            let errors = service.log_lines();
            assert_eq!(service.ended().await, 1, "{name} in mode {mode}");
            let errors = format!("{:?}", errors.lock().expect("the lines"));
            assert!(errors.contains("set pool_mode to session"), "{name} in mode {mode}: {errors}");
        }
        let mut variables = world.variables.clone();
        variables.insert("DATABASE_URL".to_owned(), pooler.url.clone());
        let (_, error) = try_fanfare(&variables, &["migrate"]);
        assert!(error.as_ref().is_some_and(|error| error.contains("set pool_mode to session")), "{mode}: {error:?}");
        let (report, _) = try_fanfare(&variables, &["doctor"]);
        assert!(report.contains("set pool_mode to session"), "{mode}: {report}");
    }
}

#[tokio::test]
async fn a_pooler_by_session_serves_all_processes() {
    let mut world = World::new().await;
    let pooler = Pooler::start(&world, "session").await;
    drop(world.take_ingest());
    let through = [("DATABASE_URL", pooler.url.as_str())];
    world.start_ingest_with(&through).await;
    let dispatcher = world.process_with("dispatcher", &through);
    dispatcher.ready().await;
    world.endpoint("a", &["*"]).await;
    world.known().await;
    world.publish(&json!({ "type": "a", "data": 1 })).await;
    world.receiver.wait_for("a", 1).await;
    world.wait_for_deliveries("state=delivered", 1).await;
}
