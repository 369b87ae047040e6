//! Chance and fresh identities as an argument: a small generator (SplitMix64) from a seed given from outside.

/// A stream of random numbers. The same seed gives the same stream.
#[derive(Debug, Clone)]
pub struct Coins(u64);

impl Coins {
    pub fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed that goes on where this stream is now.
    pub fn state(&self) -> u64 {
        self.0
    }

    pub fn flip(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// True in so many of all cases: `share` between 0 and 1.
    #[allow(clippy::cast_precision_loss)]
    pub fn chance(&mut self, share: f64) -> bool {
        // The 53 bits a double holds.
        let part = (self.flip() >> 11) as f64 / (1_u64 << 53) as f64;
        part < share
    }

    /// A number below `bound`; 0 when the bound is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from((u128::from(self.flip()) * bound as u128) >> 64).unwrap_or(0)
    }
}
