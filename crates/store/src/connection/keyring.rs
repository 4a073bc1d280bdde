//! Encryption of secrets at rest, by XChaCha20-Poly1305.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use hmac::{Hmac, Mac};
use sha2::Sha256;

const NONCE_LENGTH: usize = 24;

/// Keys for secrets: the first key encrypts, all keys decrypt.
///
/// The stored ciphertext begins with a nonce of 24 bytes, long enough to be random. The key's name is stored
/// beside the ciphertext. The row's identity is the associated data: a ciphertext moved to another row cannot be
/// decrypted there.
#[derive(Clone)]
pub struct Keyring(Vec<Key>);

#[derive(Clone)]
struct Key {
    name: String,
    cipher: XChaCha20Poly1305,
    /// Derived key for the signatures of message headers.
    of_headers: [u8; 32],
}

/// Purpose of [`Key::of_headers`]: the text that the key signs.
const OF_HEADERS: &[u8] = b"fanfare message headers";

/// Errors of a keyring, and of decryption.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The setting is malformed.
    #[error(
        "expected name:base64 of 32 bytes, several separated by commas, the current one first (make one with: echo \"k1:$(head -c 32 /dev/urandom | base64)\")"
    )]
    Malformed,
    /// The process has no key.
    #[error("no key to encrypt secrets with: set FANFARE_SECRET_KEYS")]
    Empty,
    /// A row names a key missing from this keyring.
    #[error("a secret is encrypted with the key {0:?}, which is not in the keyring; add it to FANFARE_SECRET_KEYS")]
    UnknownKey(String),
    /// The key does not decrypt the row: another key has the same name, or the row was changed.
    #[error(
        "a secret cannot be decrypted with the key {0:?}: it is not the key that encrypted it, or the row was changed"
    )]
    WrongKey(String),
}

pub(crate) struct Sealed {
    pub(crate) key_name: String,
    pub(crate) ciphertext: Vec<u8>,
}

impl FromStr for Keyring {
    type Err = KeyringError;

    /// Reads `name:base64[,name:base64…]`.
    fn from_str(text: &str) -> Result<Self, KeyringError> {
        let mut keys = Vec::new();
        for entry in text.split(',') {
            let (name, key) = entry.trim().split_once(':').ok_or(KeyringError::Malformed)?;
            let key = STANDARD.decode(key).map_err(|_| KeyringError::Malformed)?;
            let cipher = XChaCha20Poly1305::new_from_slice(&key).map_err(|_| KeyringError::Malformed)?;
            if name.is_empty() || keys.iter().any(|other: &Key| other.name == name) {
                return Err(KeyringError::Malformed);
            }
            keys.push(Key { name: name.to_owned(), cipher, of_headers: derived(&key, OF_HEADERS) });
        }
        Ok(Self(keys))
    }
}

impl Keyring {
    /// Keyring of a process without secrets, which can neither encrypt nor decrypt.
    pub fn empty() -> Self {
        Self(Vec::new())
    }

    /// Names of the keys, the current key first.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|key| key.name.as_str()).collect()
    }

    /// Keys for the signatures of message headers, in the same order.
    pub fn header_keys(&self) -> Vec<[u8; 32]> {
        self.0.iter().map(|key| key.of_headers).collect()
    }

    pub(crate) fn current(&self) -> Result<&str, KeyringError> {
        self.0.first().map(|key| key.name.as_str()).ok_or(KeyringError::Empty)
    }

    pub(crate) fn seal(&self, plain: &[u8], identity: &[u8]) -> Result<Sealed, KeyringError> {
        let Key { name, cipher, .. } = self.0.first().ok_or(KeyringError::Empty)?;
        let nonce: [u8; NONCE_LENGTH] = rand::random();
        let payload = Payload { msg: plain, aad: identity };
        let encrypted = cipher
            .encrypt(&XNonce::from(nonce), payload)
            .expect("a secret is shorter than the cipher's limit of 256 GiB");
        Ok(Sealed { key_name: name.clone(), ciphertext: [nonce.as_slice(), &encrypted].concat() })
    }

    pub(crate) fn open(&self, key_name: &str, ciphertext: &[u8], identity: &[u8]) -> Result<Vec<u8>, KeyringError> {
        let Key { cipher, .. } = self
            .0
            .iter()
            .find(|key| key.name == key_name)
            .ok_or_else(|| KeyringError::UnknownKey(key_name.to_owned()))?;
        let wrong = || KeyringError::WrongKey(key_name.to_owned());
        let (nonce, encrypted) = ciphertext.split_first_chunk::<NONCE_LENGTH>().ok_or_else(wrong)?;
        let payload = Payload { msg: encrypted, aad: identity };
        cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| wrong())
    }
}

/// A key for another purpose, by HMAC-SHA256: the key itself only encrypts.
fn derived(key: &[u8], purpose: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(purpose);
    mac.finalize().into_bytes().into()
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|key| key.name.as_str()).collect();
        write!(formatter, "Keyring({})", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, fill: u8) -> String {
        format!("{name}:{}", STANDARD.encode([fill; 32]))
    }

    #[test]
    fn old_keys_still_open() {
        let old = Keyring::from_str(&entry("k1", 1)).expect("ring");
        let new = Keyring::from_str(&format!("{},{}", entry("k2", 2), entry("k1", 1))).expect("ring");
        let sealed = old.seal(b"whsec", b"row").expect("sealed");
        assert_eq!(new.open(&sealed.key_name, &sealed.ciphertext, b"row").as_deref(), Ok(b"whsec".as_slice()));
        assert_eq!(new.seal(b"whsec", b"row").expect("sealed").key_name, "k2");
    }

    #[test]
    fn a_moved_or_foreign_ciphertext_stays_shut() {
        let ring = Keyring::from_str(&entry("k1", 1)).expect("ring");
        let sealed = ring.seal(b"whsec", b"row").expect("sealed");
        let open = |ring: &Keyring, ciphertext: &[u8], row: &[u8]| ring.open("k1", ciphertext, row);
        let wrong = Err(KeyringError::WrongKey("k1".to_owned()));
        assert_eq!(open(&ring, &sealed.ciphertext, b"other row"), wrong);
        assert_eq!(open(&Keyring::from_str(&entry("k1", 9)).expect("ring"), &sealed.ciphertext, b"row"), wrong);
        assert_eq!(open(&ring, &sealed.ciphertext[..10], b"row"), wrong);
        assert!(matches!(ring.open("k7", &sealed.ciphertext, b"row"), Err(KeyringError::UnknownKey(_))));
    }

    #[test]
    fn refuses_a_malformed_ring() {
        for text in ["", "k1", "k1:", ":AAAA", "k1:c2hvcnQ=", &format!("{0},{0}", entry("k1", 1))] {
            assert!(Keyring::from_str(text).is_err(), "{text}");
        }
        assert!(!format!("{:?}", Keyring::from_str(&entry("k1", 1)).expect("ring")).contains("AQEB"));
    }
}
