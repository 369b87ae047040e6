//! Maps that are only looked things up in, never walked: the same in every process, and fast for ids that are
//! random already.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map whose order nothing may depend on.
pub type Lookup<K, V> = HashMap<K, V, BuildHasherDefault<Mixer>>;

/// Multiplies and folds. Its keys are ids made here, so nobody can choose them to collide.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mixer(u64);

const ODD: u64 = 0x9E37_79B9_7F4A_7C15;

impl Mixer {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(26) ^ word).wrapping_mul(ODD);
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.add(byte.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.add(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.add(word);
    }

    #[allow(clippy::cast_possible_truncation)]
    fn write_u128(&mut self, word: u128) {
        self.add(word as u64);
        self.add((word >> 64) as u64);
    }

    fn finish(&self) -> u64 {
        // The map takes its place from the low bits, which a product mixes least.
        self.0 ^ (self.0 >> 32)
    }
}
