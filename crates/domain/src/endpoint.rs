//! Parts of an endpoint: URL and address policy, headers, secrets, authentication, redaction, filters, templates, FIFO.

pub mod access_token;
pub mod address;
pub mod authentication;
pub mod email;
pub mod fifo;
pub mod filter;
pub mod header;
pub mod health;
pub mod redaction;
pub mod secret;
pub mod template;
pub mod url;
