//! Ed25519 keys of an application (RFC 8032): asymmetric signatures, and the published key set (RFC 7517, RFC 8037).

use std::{cmp::Reverse, fmt, sync::Arc, time::Duration};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jiff::Timestamp;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Time for which a client may keep the key set.
pub const CACHED: Duration = Duration::from_secs(300);

/// Shortest overlap of a rotation, other than none. A client uses a key set for an hour at most while the address does
/// not answer. The set was up to [`CACHED`] old in a shared cache then, and a process knows a new key within ten
/// seconds.
pub const MIN_OVERLAP: Duration = Duration::from_secs(7200);

/// Private key, parsed. Signs without further preparation.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// The key of a seed: 32 random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(seed).expect("each seed of 32 bytes is a key"))
    }

    /// Signs a text.
    pub fn sign(&self, text: &[u8]) -> [u8; 64] {
        let signature = self.0.sign(text);
        signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }

    /// The public part.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key().as_ref().try_into().expect("an Ed25519 key has 32 bytes"))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SigningKey({})", self.public().id())
    }
}

/// Public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Begin of a public key in Standard Webhooks.
    pub const PREFIX: &str = "whpk_";

    /// The form of Standard Webhooks: `whpk_` and base64.
    pub fn text(&self) -> String {
        format!("{}{}", Self::PREFIX, STANDARD.encode(self.0))
    }

    /// The key's id, `kid`: the thumbprint of RFC 7638, SHA-256 of the members `crv`, `kty` and `x`.
    pub fn id(&self) -> String {
        let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, URL_SAFE_NO_PAD.encode(self.0));
        URL_SAFE_NO_PAD.encode(Sha256::digest(members))
    }

    /// True if the signature is right for the text.
    pub fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(text, signature).is_ok()
    }
}

/// Key set of an application (JWKS, RFC 7517).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySet {
    /// The set, as JSON.
    pub document: String,
    /// `ETag` of the document.
    pub tag: String,
}

/// Key of a [`KeySet`], by RFC 8037.
#[derive(Serialize)]
struct Jwk {
    kty: &'static str,
    crv: &'static str,
    x: String,
    kid: String,
    r#use: &'static str,
    alg: &'static str,
}

/// Key of an application.
#[derive(Debug, Clone)]
pub struct ApplicationKey {
    /// Private key.
    pub key: Arc<SigningKey>,
    /// End of the key's use; `None` for the current key.
    pub expires_at: Option<Timestamp>,
}

/// Keys of an application, and their key sets. More than one key only during a rotation.
#[derive(Debug, Clone)]
pub struct SigningKeys {
    /// Keys, newest first: the key that ends last before the others.
    keys: Vec<ApplicationKey>,
    /// Key set of the first key, of the first two keys, and so on: the keys end from the last to the first.
    sets: Vec<KeySet>,
}

impl SigningKeys {
    /// Prepares the key sets of these keys.
    pub fn new(mut keys: Vec<ApplicationKey>) -> Self {
        keys.sort_by_key(|key| Reverse(key.expires_at.unwrap_or(Timestamp::MAX)));
        let listed: Vec<Jwk> = keys.iter().map(|key| Jwk::of(key.key.public())).collect();
        let sets = (1..=keys.len()).map(|count| KeySet::of(&listed[..count])).collect();
        Self { keys, sets }
    }

    /// Keys that sign an attempt at this moment, newest first.
    pub fn live(&self, at: Timestamp) -> impl Iterator<Item = &SigningKey> {
        self.keys.iter().filter(move |key| key.expires_at.is_none_or(|end| at < end)).map(|key| &*key.key)
    }

    /// The key set of the live public keys; `None` without a live key.
    pub fn key_set(&self, at: Timestamp) -> Option<&KeySet> {
        self.live(at).count().checked_sub(1).map(|last| &self.sets[last])
    }
}

impl KeySet {
    fn of(keys: &[Jwk]) -> Self {
        let document = serde_json::json!({ "keys": keys }).to_string();
        let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(Sha256::digest(&document)));
        Self { document, tag }
    }
}

impl Jwk {
    fn of(public: PublicKey) -> Self {
        let x = URL_SAFE_NO_PAD.encode(public.0);
        Self { kty: "OKP", crv: "Ed25519", x, kid: public.id(), r#use: "sig", alg: "EdDSA" }
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, Verifier};
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hexadecimal digits");
        std::array::from_fn(byte)
    }

    /// Test vectors of RFC 8032, section 7.1: seed, public key, message, signature.
    #[test]
    fn signs_as_rfc_8032_says() {
        let vectors = [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                &b""[..],
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b\
                 d25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                &[0x72],
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c\
                 387b2eaeb4302aeeb00d291612bb0c00",
            ),
            (
                "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                &[0xaf, 0x82],
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659\
                 4a7c15e9716ed28dc027beceea1ec40a",
            ),
        ];
        for (seed, public, message, signature) in vectors {
            let key = SigningKey::from_seed(&bytes(seed));
            assert_eq!(key.public(), PublicKey(bytes(public)));
            assert_eq!(key.sign(message), bytes::<64>(signature));
            assert!(key.public().verifies(message, &bytes::<64>(signature)));
        }
    }

    /// Example of RFC 8037, appendix A.3.
    #[test]
    fn the_id_is_the_thumbprint() {
        let key = SigningKey::from_seed(&bytes("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"));
        assert_eq!(key.public().id(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(key.public().text(), "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
        let expected = r#"{"keys":[{"alg":"EdDSA","crv":"Ed25519","kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k","kty":"OKP","use":"sig","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let keys = SigningKeys::new(vec![ApplicationKey { key: Arc::new(key), expires_at: None }]);
        let set: serde_json::Value =
            serde_json::from_str(&keys.key_set(Timestamp::UNIX_EPOCH).expect("keys").document).expect("JSON");
        assert_eq!(set, serde_json::from_str::<serde_json::Value>(expected).expect("JSON"));
        assert!(!format!("{keys:?}").contains("9d61"));
    }

    #[test]
    fn an_ended_key_neither_signs_nor_is_listed() {
        let at = |seconds| Timestamp::from_second(seconds).expect("timestamp");
        let key = |seed, end: Option<i64>| ApplicationKey {
            key: Arc::new(SigningKey::from_seed(&[seed; 32])),
            expires_at: end.map(at),
        };
        let keys = SigningKeys::new(vec![key(2, None), key(1, Some(10))]);
        let live = |seconds| keys.live(at(seconds)).map(|key| key.public().id()).collect::<Vec<_>>();
        assert_eq!((live(9).len(), live(10).len()), (2, 1));
        assert_eq!(live(9)[0], live(10)[0]);
        for (seconds, listed) in [(9, 2), (10, 1)] {
            assert_eq!(keys.key_set(at(seconds)).expect("keys").document.matches("kid").count(), listed);
        }
        assert_eq!(SigningKeys::new(vec![key(1, Some(10))]).key_set(at(10)), None);
        let shuffled = SigningKeys::new(vec![key(1, Some(10)), key(2, None)]);
        assert_eq!(shuffled.key_set(at(10)), keys.key_set(at(10)), "the order of the keys is no matter");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn another_implementation_agrees(seed: [u8; 32], message in vec(any::<u8>(), 0..200)) {
            let key = SigningKey::from_seed(&seed);
            let signature = key.sign(&message);
            let other = ed25519_dalek::SigningKey::from_bytes(&seed);
            prop_assert_eq!(other.sign(&message).to_bytes(), signature);
            prop_assert_eq!(other.verifying_key().to_bytes(), key.public().0);
            let signature = ed25519_dalek::Signature::from_bytes(&signature);
            prop_assert!(other.verifying_key().verify(&message, &signature).is_ok());
        }

        #[test]
        fn a_change_of_any_bit_is_found(seed: [u8; 32], message in vec(any::<u8>(), 1..100), bit: prop::sample::Index) {
            let key = SigningKey::from_seed(&seed);
            let signature = key.sign(&message);
            prop_assert!(key.public().verifies(&message, &signature));
            let at = bit.index(8 * (message.len() + signature.len()));
            let (mut message, mut signature) = (message, signature);
            let length = message.len();
            let byte = if at / 8 < length { &mut message[at / 8] } else { &mut signature[at / 8 - length] };
            *byte ^= 1 << (at % 8);
            prop_assert!(!key.public().verifies(&message, &signature));
        }
    }
}
