//! Decoding of signatures and secrets.

use base64::{
    Engine, alphabet,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD},
    },
};
use fanfare_domain::dialect::SignatureEncoding;

use crate::mistakes::Mistake;

/// Decodes the alphabet for URLs as Node does: a last character without a whole byte is dropped.
pub(super) fn lenient(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let whole = if text.len() % 4 == 1 { &text[..text.len() - 1] } else { text };
    GeneralPurpose::new(&alphabet::URL_SAFE, config).decode(whole).ok()
}

/// Encoding of a signature found in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Hex { is_lower: bool },
    Base64 { is_usual: bool },
    HexInBase64,
}

/// A signature with its encoding.
pub(super) struct Decoded<const N: usize> {
    pub(super) digest: [u8; N],
    encoding: Encoding,
}

impl<const N: usize> Decoded<N> {
    /// True for the usual form of an encoding.
    pub(super) fn is(&self, encoding: SignatureEncoding) -> bool {
        self.mistake(encoding).is_none()
    }

    /// The mistake in the encoding, if any.
    pub(super) fn mistake(&self, right: SignatureEncoding) -> Option<Mistake> {
        match (right, self.encoding) {
            (SignatureEncoding::Hex, Encoding::Hex { is_lower: true })
            | (SignatureEncoding::Base64, Encoding::Base64 { is_usual: true }) => None,
            (SignatureEncoding::Hex, Encoding::Hex { .. }) | (SignatureEncoding::Base64, Encoding::Base64 { .. }) => {
                Some(Mistake::OtherAlphabet)
            }
            (_, Encoding::HexInBase64) => Some(Mistake::HexInBase64),
            (SignatureEncoding::Hex, Encoding::Base64 { .. }) => Some(Mistake::Base64ForHex),
            (SignatureEncoding::Base64, Encoding::Hex { .. }) => Some(Mistake::HexForBase64),
        }
    }
}

/// Decodes a signature of `N` bytes.
pub(super) fn decode<const N: usize>(text: &str) -> Option<Decoded<N>> {
    if let Some(digest) = unhex(text.as_bytes()) {
        let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        return Some(Decoded { digest, encoding: Encoding::Hex { is_lower } });
    }
    let unpadded = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
    let bytes = URL_SAFE_NO_PAD.decode(&unpadded).ok()?;
    if let Some(digest) = unhex(&bytes) {
        return Some(Decoded { digest, encoding: Encoding::HexInBase64 });
    }
    let is_usual = text.len() == N.div_ceil(3) * 4 && !text.contains(['-', '_']);
    Some(Decoded { digest: bytes.try_into().ok()?, encoding: Encoding::Base64 { is_usual } })
}

fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut digest = [0; N];
    for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
        let digits = str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(digest)
}
