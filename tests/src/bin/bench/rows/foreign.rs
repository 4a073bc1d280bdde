//! The recipe for another webhook server, tried on the stand-in.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use serde_json::json;

use crate::{
    figures::Figures,
    foreign::Foreign,
    roles::{child::Child, publisher::Target},
    scene::machine::Machine,
};

/// Webhooks of the stand-in.
const WEBHOOKS: usize = 2;

/// Measures the stand-in as another server is measured.
pub(crate) async fn measure(machine: &Machine, figures: &mut Figures) {
    let mut stand_in = Child::start("stand-in");
    let listen = free_port();
    let address = stand_in.request(&json!({ "to": listen.to_string(), "webhooks": WEBHOOKS })).await;
    let target = Target {
        address: address["address"].as_str().expect("an address").to_owned(),
        path: "/events".to_owned(),
        headers: vec!["authorization: Bearer stand-in".to_owned()],
        body: r#"{"type":"{type}","number":{n},"payload":{data}}"#.parse().expect("a template"),
    };
    let usual = Foreign::new(target, listen);
    let (count, processes) = (machine.count(usual.count), vec![stand_in.id()]);
    let foreign = Foreign { per_event: WEBHOOKS, count, bytes: machine.bytes, processes, ..usual };
    foreign.measure(figures).await.expect("figures");
}

/// An address of this machine without a listener.
fn free_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address")
}
