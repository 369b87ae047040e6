//! Fresh names.

const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Letters as AWS's ids have them, out of given bytes.
pub fn letters_of(bytes: &[u8], count: usize) -> String {
    bytes.iter().take(count).map(|byte| LETTERS[usize::from(byte & 31)] as char).collect()
}

/// A fresh unique id, such as `AROA` and 17 letters.
pub fn unique_id(prefix: &str) -> String {
    let mut bytes = [0; 17];
    // The system's generator does not fail on any Linux this runs on; ids that collide would be seen.
    let _ = getrandom::fill(&mut bytes);
    format!("{prefix}{}", letters_of(&bytes, 17))
}

/// A fresh number.
pub fn number() -> u64 {
    getrandom::u64().unwrap_or_default()
}
