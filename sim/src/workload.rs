//! Arrivals: moments at which a function is invoked, one after the other, and how long each takes.

use ondol_core::coins::Coins;

use crate::scenario::{Load, Service, Spread};

const SECOND_MICROS: f64 = 1_000_000.0;

/// The arrivals of one function.
#[derive(Debug)]
pub struct Arrivals {
    load: Load,
    is_even: bool,
    coins: Coins,
    /// Where the last one was, in microseconds, with its fraction.
    at: f64,
    /// Of loads that are counted: how many came of the present count.
    came: u32,
    minute: usize,
}

impl Arrivals {
    /// Rates are so from `before_seconds` before the beginning on; counts begin there.
    pub fn new(load: Load, is_even: bool, coins: Coins, before_seconds: u64) -> Self {
        let is_rate = load.highest_per_second() > 0.0;
        let at = if is_rate { -(before_seconds as f64) * SECOND_MICROS } else { 0.0 };
        Self { load, is_even, coins, at, came: 0, minute: 0 }
    }

    /// There are no more.
    pub fn stop(&mut self) {
        self.load = Load::None;
    }

    /// The next moment, in microseconds from the beginning; none when there are no more.
    pub fn next(&mut self) -> Option<i64> {
        match &self.load {
            Load::None => None,
            Load::Calls { count, at_seconds } => {
                self.came += 1;
                (self.came <= *count).then_some(whole(*at_seconds * SECOND_MICROS))
            }
            Load::PerMinute { .. } => self.next_counted(),
            _ => self.next_by_rate(),
        }
    }

    /// By chance with a rate that changes: at the highest rate, of which the part is kept that the present one is.
    fn next_by_rate(&mut self) -> Option<i64> {
        let highest = self.load.highest_per_second();
        if highest <= 0.0 {
            return None;
        }
        // A rate that has fallen to nothing may never rise again; then so many are tried at most.
        for _ in 0..10_000_000 {
            if self.is_even {
                let rate = self.load.per_second_at(self.at / SECOND_MICROS);
                if rate <= 0.0 {
                    self.at += SECOND_MICROS;
                    continue;
                }
                self.at += SECOND_MICROS / rate;
                return Some(whole(self.at));
            }
            self.at += exponential(&mut self.coins) * SECOND_MICROS / highest;
            let rate = self.load.per_second_at(self.at / SECOND_MICROS);
            if self.coins.chance(rate / highest) {
                return Some(whole(self.at));
            }
        }
        None
    }

    /// Spread over its minute by chance, in order: each leaves the rest of the minute to those behind it.
    fn next_counted(&mut self) -> Option<i64> {
        let Load::PerMinute { counts } = &self.load else { return None };
        loop {
            let count = *counts.get(self.minute)?;
            let end = (self.minute + 1) as f64 * 60.0 * SECOND_MICROS;
            if self.came == count {
                self.minute += 1;
                self.came = 0;
                self.at = end;
                continue;
            }
            let behind = f64::from(count - self.came);
            self.came += 1;
            let left = end - self.at;
            let part = if self.is_even {
                1.0 / (behind + 1.0)
            } else {
                1.0 - libm::pow(uniform(&mut self.coins), 1.0 / behind)
            };
            self.at += left * part;
            return Some(whole(self.at));
        }
    }
}

impl Load {
    fn highest_per_second(&self) -> f64 {
        match *self {
            Self::Constant { per_second } => per_second,
            Self::Step { from_per_second, to_per_second, .. }
            | Self::Ramp { from_per_second, to_per_second, .. } => from_per_second.max(to_per_second),
            Self::Diurnal { mean_per_second, swing, .. } => mean_per_second * (1.0 + swing),
            Self::Flash { base_per_second, peak_per_second, .. } => base_per_second.max(peak_per_second),
            Self::None | Self::Calls { .. } | Self::PerMinute { .. } => 0.0,
        }
    }

    fn per_second_at(&self, seconds: f64) -> f64 {
        match *self {
            Self::Constant { per_second } => per_second,
            Self::Step { from_per_second, to_per_second, at_seconds } => {
                if seconds < at_seconds {
                    from_per_second
                } else {
                    to_per_second
                }
            }
            Self::Ramp { from_per_second, to_per_second, at_seconds, over_seconds } => {
                let part = ((seconds - at_seconds) / over_seconds.max(1e-9)).clamp(0.0, 1.0);
                from_per_second + (to_per_second - from_per_second) * part
            }
            Self::Diurnal { mean_per_second, swing, period_seconds } => {
                // Lowest at the beginning of a period, as at night.
                let turn = seconds / period_seconds * 2.0 * std::f64::consts::PI;
                mean_per_second * (1.0 - swing * libm::cos(turn))
            }
            Self::Flash { base_per_second, peak_per_second, at_seconds, rise_seconds, hold_seconds } => {
                let since = seconds - at_seconds;
                let rise = rise_seconds.max(1e-9);
                let part = if since < rise_seconds {
                    (since / rise).clamp(0.0, 1.0)
                } else {
                    // It goes as it came.
                    1.0 - ((since - rise_seconds - hold_seconds) / rise).clamp(0.0, 1.0)
                };
                base_per_second + (peak_per_second - base_per_second) * part
            }
            Self::None | Self::Calls { .. } | Self::PerMinute { .. } => 0.0,
        }
    }
}

impl Service {
    /// The CPU and the waiting of one invocation, in microseconds.
    pub fn draw(&self, coins: &mut Coins, times: f64) -> (u64, u64) {
        let mean = self.mean_millis * 1_000.0 * times;
        let whole = match self.spread {
            Spread::Fixed => mean,
            Spread::Exponential => mean * exponential(coins),
            Spread::LogNormal => {
                // A standard deviation of one mean: σ² = ln 2, and the median is mean / √2.
                let sigma = libm::sqrt(std::f64::consts::LN_2);
                mean / std::f64::consts::SQRT_2 * libm::exp(sigma * normal(coins))
            }
        };
        let cpu = whole * self.cpu_share;
        (micros(cpu), micros(whole - cpu).max(1))
    }
}

/// Between 0 and 1, never 0.
fn uniform(coins: &mut Coins) -> f64 {
    ((coins.flip() >> 11) + 1) as f64 / (1_u64 << 53) as f64
}

/// With mean 1.
fn exponential(coins: &mut Coins) -> f64 {
    -libm::log(uniform(coins))
}

/// By Box and Muller; its twin is left unused, so that each draw costs the same coins.
fn normal(coins: &mut Coins) -> f64 {
    let radius = libm::sqrt(-2.0 * libm::log(uniform(coins)));
    radius * libm::cos(2.0 * std::f64::consts::PI * uniform(coins))
}

/// Between two numbers.
pub fn between(coins: &mut Coins, min: f64, max: f64) -> f64 {
    min + (max - min) * uniform(coins)
}

#[allow(clippy::cast_possible_truncation)]
fn whole(value: f64) -> i64 {
    value as i64
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn micros(value: f64) -> u64 {
    value.max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(load: Load, seconds: i64) -> Vec<i64> {
        let mut arrivals = Arrivals::new(load, false, Coins::from_seed(7), 0);
        std::iter::from_fn(|| arrivals.next()).take_while(|at| *at < seconds * 1_000_000).collect()
    }

    #[test]
    fn rates_are_kept_and_moments_are_in_order() {
        let constant = arrivals(Load::Constant { per_second: 100.0 }, 100);
        assert!((9_700..=10_300).contains(&constant.len()), "{}", constant.len());
        assert!(constant.windows(2).all(|pair| pair[0] <= pair[1]));
        let step =
            arrivals(Load::Step { from_per_second: 10.0, to_per_second: 100.0, at_seconds: 50.0 }, 100);
        let early = step.iter().filter(|at| **at < 50_000_000).count();
        assert!((400..=600).contains(&early) && (4_700..=5_300).contains(&(step.len() - early)), "{early}");
        let day = arrivals(Load::Diurnal { mean_per_second: 50.0, swing: 1.0, period_seconds: 100.0 }, 100);
        assert!((4_700..=5_300).contains(&day.len()), "{}", day.len());
    }

    #[test]
    fn counts_by_the_minute_are_exact() {
        let counts = vec![0, 7, 500, 0, 1];
        let counted = arrivals(Load::PerMinute { counts: counts.clone() }, 3_600);
        assert!(counted.windows(2).all(|pair| pair[0] <= pair[1]));
        for (minute, count) in counts.iter().enumerate() {
            let within = counted.iter().filter(|at| (**at / 60_000_000) as usize == minute).count();
            assert_eq!(within, *count as usize, "minute {minute}");
        }
    }

    #[test]
    fn service_times_have_their_mean() {
        for spread in [Spread::Fixed, Spread::Exponential, Spread::LogNormal] {
            let service = Service { mean_millis: 50.0, spread, cpu_share: 0.3, even_arrivals: false };
            let mut coins = Coins::from_seed(3);
            let drawn: Vec<(u64, u64)> = (0..50_000).map(|_| service.draw(&mut coins, 1.0)).collect();
            let mean = drawn.iter().map(|(cpu, wait)| (cpu + wait) as f64).sum::<f64>() / 50_000.0;
            assert!((48_000.0..52_000.0).contains(&mean), "{spread:?}: {mean}");
        }
    }
}
