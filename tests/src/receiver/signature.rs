//! Verification of delivery signatures, written from the specification without Fanfare's signing code.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::receiver::Received;

/// True if a request carries both signatures of its endpoint: the Standard Webhooks signature and the signature of the
/// default dialect.
pub fn is_signed(received: &Received, secret: &str) -> bool {
    let own: String = hmac(secret.as_bytes(), &received.body).iter().map(|byte| format!("{byte:02x}")).collect();
    is_signed_as_standard(received, secret) && received.header("x-webhook-signature") == own
}

/// True if a request carries a signature of Standard Webhooks by this secret. During a rotation, a request carries
/// several.
pub fn is_signed_as_standard(received: &Received, secret: &str) -> bool {
    let Some(key) = secret.strip_prefix("whsec_").and_then(|encoded| STANDARD.decode(encoded).ok()) else {
        return false;
    };
    let signed =
        [received.event().as_bytes(), b".", received.header("webhook-timestamp").as_bytes(), b".", &received.body]
            .concat();
    let standard = format!("v1,{}", STANDARD.encode(hmac(&key, &signed)));
    received.header("webhook-signature").split(' ').any(|signature| signature == standard)
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}
