//! Tests the client against endpoints of all kinds, over real sockets.

mod answers;
mod certificates;
mod egress;
mod failures;
mod guard;
mod names;
mod probe;
mod receiver;
mod reuse;
mod tls;
mod tokens;
