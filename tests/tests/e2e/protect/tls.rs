//! TLS to the database and the broker, with valid and invalid certificates.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::Arc,
};

use fanfare_tests::{
    patience::until,
    servers::instance::{Instance, Servers},
    world::{
        World,
        process::{Variables, try_fanfare},
    },
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::{io::copy_bidirectional, net::TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};

/// Certificate files for a server and its clients. Removed on drop.
pub(crate) struct Certificates {
    folder: PathBuf,
    /// The authority that issued the server's certificate.
    authority: PathBuf,
    /// Another authority.
    other: PathBuf,
}

impl Certificates {
    /// Creates a certificate for a host, and writes all files.
    pub(crate) fn new(name: &str, host: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("fanfare-tls-{name}-{:032x}", rand::random::<u128>()));
        fs::create_dir(&folder).expect("a folder");
        let authority = authority();
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([host.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &authority.1).expect("a certificate");
        let write = |name: &str, pem: &str| {
            let file = folder.join(name);
            fs::write(&file, pem).expect("written");
            file
        };
        write("server.crt", &certificate.pem());
        write("server.key", &key.serialize_pem());
        let other = write("other.pem", &self::authority().0);
        Self { authority: write("authority.pem", &authority.0), other, folder }
    }

    /// Settings of a server with the certificate. With `clients`, the server requires certificates by this authority.
    pub(crate) fn server(&self, clients: Option<CertificateDer<'static>>) -> ServerConfig {
        let file = |name: &str| self.folder.join(name);
        let chain =
            CertificateDer::pem_file_iter(file("server.crt")).expect("a file").map(|der| der.expect("a certificate"));
        let key = PrivateKeyDer::from_pem_file(file("server.key")).expect("a key");
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().expect("TLS");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(root) => {
                let mut roots = RootCertStore::empty();
                roots.add(root).expect("a root");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        builder.with_single_cert(chain.collect(), key).expect("a certificate")
    }

    /// File of the authority that issued the server's certificate.
    pub(crate) fn authority(&self) -> &Path {
        &self.authority
    }

    /// Copies certificate and key to the server's folder, readable only by the server's user.
    fn hand_over(&self, folder: &Path) -> [PathBuf; 2] {
        let owner = fs::metadata(folder).expect("the server's folder");
        ["server.crt", "server.key"].map(|name| {
            let file = folder.join(name);
            fs::copy(self.folder.join(name), &file).expect("copied");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("permissions");
            chown(&file, Some(owner.uid()), Some(owner.gid())).expect("the server's owner");
            file
        })
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A listener with TLS before another server.
pub(crate) async fn terminate_tls(settings: ServerConfig, server: SocketAddr) -> SocketAddr {
    let acceptor = TlsAcceptor::from(Arc::new(settings));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let (Ok(mut stream), Ok(mut server)) =
                    (acceptor.accept(stream).await, TcpStream::connect(server).await)
                else {
                    return;
                };
                let _ = copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
    address
}

fn authority() -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let pem = params.self_signed(&key).expect("an authority").pem();
    (pem, Issuer::new(params, key))
}

/// A database with TLS and a certificate for the given host.
async fn database(certificates: &Certificates, name: &str) -> (Instance, World) {
    let instance = Instance::postgres(name);
    certificates.hand_over(&instance.data());
    let servers = Servers { database_url: instance.url(), ..Servers::given() };
    let world = World::with(servers, &[]).await;
    let database = world.database().await;
    database.batch_execute("ALTER SYSTEM SET ssl = on").await.expect("TLS");
    database.batch_execute("SELECT pg_reload_conf()").await.expect("the settings are reloaded");
    until("the database to speak TLS", async || {
        let (answer, complaint) = try_fanfare(&with(&world, "sslmode=require"), &["migrate"]);
        complaint.is_none().then_some(answer)
    })
    .await;
    (instance, world)
}

fn with(world: &World, query: &str) -> Variables {
    let mut variables = world.variables.clone();
    let url = format!("{}?{query}", variables["DATABASE_URL"]);
    variables.insert("DATABASE_URL".to_owned(), url);
    variables
}

/// The error of a connection with these URL parameters; `None` if the connection works.
fn complaint(world: &World, query: &str) -> Option<String> {
    try_fanfare(&with(world, query), &["migrate"]).1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_with_a_certificate_in_order_is_worked_with() {
    let certificates = Certificates::new("database", "127.0.0.1");
    let (_instance, world) = database(&certificates, "tls").await;
    let file = certificates.authority.display();
    let url = format!("{}?sslmode=verify-full&sslrootcert={file}", world.variables["DATABASE_URL"]);
    let plainly = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                   WHERE application_name = 'fanfare' AND NOT ssl";
    let mut world = world;
    drop(world.take_ingest());
    world.start_ingest_with(&[("DATABASE_URL", &url)]).await;
    let endpoint = world.endpoint("one", &["a"]).await;
    let dispatcher = world.process_with("dispatcher", &[("DATABASE_URL", &url)]);
    dispatcher.ready().await;
    world.publish(&serde_json::json!({ "type": "a", "data": 1 })).await;
    world.receiver.wait_for(&endpoint.path, 1).await;
    until("all connections to have TLS", async || (world.count(plainly).await == 0).then_some(())).await;

    for query in ["sslmode=verify-full", "sslmode=verify-ca"].map(|mode| format!("{mode}&sslrootcert={file}")) {
        assert_eq!(complaint(&world, &query), None, "{query}");
    }
    let other = certificates.other.display();
    for mode in ["verify-full", "verify-ca", "require"] {
        let complaint = complaint(&world, &format!("sslmode={mode}&sslrootcert={other}")).expect(mode);
        assert!(complaint.contains("certificate"), "{mode}: {complaint}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_with_a_certificate_for_somebody_else_is_refused_where_the_name_counts() {
    let certificates = Certificates::new("database", "elsewhere.example");
    let (_instance, world) = database(&certificates, "tls-name").await;
    let file = certificates.authority.display();
    let refused = complaint(&world, &format!("sslmode=verify-full&sslrootcert={file}")).expect("another name");
    assert!(refused.contains("certificate") && refused.contains("name"), "{refused}");
    assert_eq!(complaint(&world, &format!("sslmode=verify-ca&sslrootcert={file}")), None);
    assert_eq!(complaint(&world, "sslmode=prefer"), None);
    let wrong = complaint(&world, "sslmode=perhaps").expect("no such mode");
    assert!(wrong.contains("sslmode=perhaps") && wrong.contains("verify-full"), "{wrong}");
}

/// A broker with an additional TLS listener. Returns the broker and the TLS URL.
fn broker(certificates: &Certificates, name: &str) -> (Instance, String) {
    let instance = Instance::rabbitmq(name);
    let [certificate, key] = certificates.hand_over(&instance.data());
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let listen = format!(
        "application:ensure_all_started(ssl), rabbit_networking:start_ssl_listener({{\"127.0.0.1\", {port}}}, \
         [{{certfile, \"{}\"}}, {{keyfile, \"{}\"}}], 1).",
        certificate.display(),
        key.display()
    );
    instance.rabbitmqctl(&["eval", &listen]);
    let url = instance.url();
    let (credentials, rest) = url.trim_start_matches("amqp://").split_once('@').expect("a user");
    let host_end = rest.find('/').unwrap_or(rest.len());
    let url = format!("amqps://{credentials}@127.0.0.1:{port}{}", &rest[host_end..]);
    (instance, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_worked_with_where_its_certificate_is_in_order_and_refused_where_not() {
    let certificates = Certificates::new("broker", "127.0.0.1");
    let (instance, url) = broker(&certificates, "tls");
    let servers = Servers { amqp_url: instance.url(), ..Servers::given() };
    let world = World::with(servers, &[]).await;
    let endpoint = world.endpoint("one", &["a"]).await;
    let trusting = format!("{url}?cacertfile={}", certificates.authority.display());
    let dispatcher = world.process_with("dispatcher", &[("AMQP_URL", &trusting)]);
    dispatcher.ready().await;
    world.publish(&serde_json::json!({ "type": "a", "data": 1 })).await;
    world.receiver.wait_for(&endpoint.path, 1).await;

    let deceived = format!("{url}?cacertfile={}", certificates.other.display());
    for url in [deceived, url] {
        let refusing = world.process_with("dispatcher", &[("AMQP_URL", &url)]);
        let said = refusing.logged("cannot connect to the broker for publishing; trying again").await;
        assert!(said["error"].as_str().is_some_and(|error| error.contains("certificate")), "{said}");
    }
}
