//! Hashes, and the keys that secrets give.

use std::cell::RefCell;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// How many signing keys a thread remembers: a few clients, services and one change of day.
const REMEMBERED_MAX: usize = 8;

/// The key a secret gives for one day, region and service.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SigningKey(pub(super) [u8; 32]);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

/// What a signing key was derived from.
type Source = [String; 4];

impl SigningKey {
    pub fn derive(secret: &str, date: &str, region: &str, service: &str) -> Self {
        let mut key = hmac(format!("AWS4{secret}").as_bytes(), date.as_bytes());
        for part in [region, service, "aws4_request"] {
            key = hmac(&key, part.as_bytes());
        }
        Self(key)
    }

    /// As [`SigningKey::derive`], which is not asked again for one of this thread's latest keys.
    pub fn remembered(secret: &str, date: &str, region: &str, service: &str) -> Self {
        thread_local! {
            static LATEST: RefCell<Vec<(Source, SigningKey)>> = const { RefCell::new(Vec::new()) };
        }
        let source = [secret, date, region, service];
        LATEST.with_borrow_mut(|latest| {
            if let Some((_, key)) = latest.iter().find(|(known, _)| known == &source) {
                return *key;
            }
            let key = Self::derive(secret, date, region, service);
            if latest.len() == REMEMBERED_MAX {
                latest.remove(0);
            }
            latest.push((source.map(str::to_owned), key));
            key
        })
    }

    /// The signature of a string to sign, in hexadecimal digits.
    pub fn sign(&self, string_to_sign: &[u8]) -> String {
        hex(&hmac(&self.0, string_to_sign))
    }
}

pub fn sha256(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}

pub fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    // HMAC takes keys of any length, so this cannot fail.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)] as char);
        out.push(DIGITS[usize::from(byte & 15)] as char);
    }
    out
}

/// Compares without telling by its time where two texts differ.
pub fn constant_time_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remembered_key_is_the_derived_one_however_many_there_are() {
        for round in 0..3 {
            for number in 0..REMEMBERED_MAX * 2 {
                let secret = format!("secret-{number}");
                let source = (secret.as_str(), "20150830", "us-east-1", "lambda");
                assert_eq!(
                    SigningKey::remembered(source.0, source.1, source.2, source.3),
                    SigningKey::derive(source.0, source.1, source.2, source.3),
                    "round {round}, key {number}"
                );
            }
        }
    }
}
