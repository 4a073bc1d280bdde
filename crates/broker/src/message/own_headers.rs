//! Fanfare's own headers, `fanfare-*`. A publisher can send any header. A signature therefore proves that a process of
//! this deployment wrote them.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use sha2::Sha256;

use crate::{Topology, message::parked::DEATHS};

/// Beginning of the names.
const PREFIX: &str = "fanfare-";

/// Signature of the other own headers and of the property `message_id`: HMAC-SHA256 (RFC 2104) in base64.
pub(crate) const SIGNATURE: &str = "fanfare-signature";

/// Keys for signatures: the first key signs, and a signature by any of the keys is valid.
/// Cheap to clone.
#[derive(Clone, Default)]
pub struct HeaderKeys(Arc<[[u8; 32]]>);

impl HeaderKeys {
    /// Without a key, no header is signed, and no signature is valid.
    pub fn new(keys: Vec<[u8; 32]>) -> Self {
        Self(keys.into())
    }

    /// Signs the own headers of a message, if any.
    pub(crate) fn sign(&self, headers: &mut FieldTable, message_id: Option<&str>) {
        let Some(key) = self.0.first() else { return };
        if !headers.inner().keys().any(is_own) {
            return;
        }
        if let Some(mac) = mac(key, headers, message_id) {
            let signature = STANDARD_NO_PAD.encode(mac.finalize().into_bytes());
            headers.insert(SIGNATURE.into(), AMQPValue::LongString(LongString::from(signature)));
        }
    }

    /// Removes own headers from a message unless a process of this deployment wrote them. Only Fanfare may publish to
    /// the exchange of deliveries. A message that died came from any exchange.
    pub(crate) fn believe(
        &self,
        topology: &Topology,
        exchange: &str,
        headers: &mut FieldTable,
        message_id: Option<&str>,
    ) {
        let is_from_us = exchange == topology.deliveries_exchange() && !headers.inner().contains_key(DEATHS);
        if is_from_us || !headers.inner().keys().any(is_own) || self.have_signed(headers, message_id) {
            return;
        }
        let mut kept = FieldTable::default();
        for (name, value) in headers.inner().iter().filter(|(name, _)| !is_own(name)) {
            kept.insert(name.clone(), value.clone());
        }
        *headers = kept;
    }

    fn have_signed(&self, headers: &FieldTable, message_id: Option<&str>) -> bool {
        let Some(AMQPValue::LongString(signature)) = headers.inner().get(SIGNATURE) else { return false };
        let Ok(signature) = STANDARD_NO_PAD.decode(signature.as_bytes()) else { return false };
        self.0.iter().filter_map(|key| mac(key, headers, message_id)).any(|mac| mac.verify_slice(&signature).is_ok())
    }
}

impl fmt::Debug for HeaderKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "HeaderKeys({})", self.0.len())
    }
}

fn is_own(name: &ShortString) -> bool {
    name.as_str().starts_with(PREFIX)
}

/// Code of the own headers in the order of their names, and of the `message_id`, each with its length. `None` if a
/// value is of a type that Fanfare never writes.
fn mac(key: &[u8; 32], headers: &FieldTable, message_id: Option<&str>) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    let mut add = |bytes: &[u8]| {
        mac.update(&(bytes.len() as u64).to_be_bytes());
        mac.update(bytes);
    };
    add(message_id.unwrap_or_default().as_bytes());
    for (name, value) in headers.inner().iter().filter(|(name, _)| is_own(name) && name.as_str() != SIGNATURE) {
        add(name.as_str().as_bytes());
        match value {
            AMQPValue::LongString(text) => add(text.as_bytes()),
            AMQPValue::Boolean(value) => add(&[u8::from(*value)]),
            _ => return None,
        }
    }
    Some(mac)
}

#[cfg(test)]
mod tests {
    use fanfare_domain::delivery::delay::DelayQueues;

    use super::*;

    fn topology() -> Topology {
        Topology::new("fanfare".parse().expect("a prefix"), DelayQueues::new([]))
    }

    fn put_back() -> FieldTable {
        let mut headers = FieldTable::default();
        headers.insert("fanfare-put-back".into(), AMQPValue::Boolean(true));
        headers.insert("fanfare-accepted".into(), AMQPValue::LongString("7".into()));
        headers.insert("tenant".into(), AMQPValue::LongString("blue".into()));
        headers
    }

    /// The names that remain of a message from the exchange of events.
    fn believed(keys: &HeaderKeys, mut headers: FieldTable, message_id: Option<&str>) -> Vec<String> {
        let topology = topology();
        keys.believe(&topology, &topology.events_exchange(), &mut headers, message_id);
        headers.inner().keys().map(ToString::to_string).collect()
    }

    #[test]
    fn only_signed_headers_are_believed() {
        let [old, new] = [HeaderKeys::new(vec![[1; 32]]), HeaderKeys::new(vec![[2; 32], [1; 32]])];
        let mut signed = put_back();
        old.sign(&mut signed, Some("order-1"));
        let all = ["fanfare-accepted", "fanfare-put-back", SIGNATURE, "tenant"];
        assert_eq!(believed(&old, signed.clone(), Some("order-1")), all);
        assert_eq!(believed(&new, signed.clone(), Some("order-1")), all, "another key signs now");
        let none = HeaderKeys::default();
        let stranger = HeaderKeys::new(vec![[3; 32]]);
        let mut changed = signed.clone();
        changed.insert("fanfare-accepted".into(), AMQPValue::LongString("8".into()));
        let mut more = signed.clone();
        more.insert("fanfare-rerouted".into(), AMQPValue::Boolean(true));
        let mut odd = signed.clone();
        odd.insert("fanfare-accepted".into(), AMQPValue::LongLongInt(7));
        for (keys, headers, id) in [
            (&old, put_back(), Some("order-1")),
            (&old, signed.clone(), Some("order-2")),
            (&old, signed.clone(), None),
            (&old, changed, Some("order-1")),
            (&old, more, Some("order-1")),
            (&old, odd, Some("order-1")),
            (&stranger, signed.clone(), Some("order-1")),
            (&none, signed, Some("order-1")),
        ] {
            assert_eq!(believed(keys, headers, id), ["tenant"]);
        }
    }

    #[test]
    fn the_exchange_of_deliveries_is_ours_unless_the_message_died() {
        let (topology, keys) = (topology(), HeaderKeys::new(vec![[1; 32]]));
        let mut headers = put_back();
        keys.believe(&topology, &topology.deliveries_exchange(), &mut headers, None);
        assert_eq!(headers, put_back());
        headers.insert(DEATHS.into(), AMQPValue::FieldArray(Vec::new().into()));
        keys.believe(&topology, &topology.deliveries_exchange(), &mut headers, None);
        assert_eq!(headers.inner().len(), 2, "{headers:?}");
    }

    #[test]
    fn a_message_without_own_headers_is_not_signed() {
        let mut headers = FieldTable::default();
        headers.insert("tenant".into(), AMQPValue::LongString("blue".into()));
        HeaderKeys::new(vec![[1; 32]]).sign(&mut headers, Some("order-1"));
        assert_eq!(headers.inner().len(), 1);
    }
}
