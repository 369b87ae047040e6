//! Whose turn it is to change what: a check and the write it allows must see the same world.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use tokio::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Names share so many turns; two that share one wait for each other without need, and nothing worse.
const PLACES: usize = 256;

/// Changes of different names go on beside each other, so that they are committed together; what looks at
/// everything is alone. Held for the time of one commit.
#[derive(Debug)]
pub struct Turns {
    everything: RwLock<()>,
    names: Vec<Mutex<()>>,
}

/// Held while a change is under way.
#[derive(Debug)]
#[allow(dead_code)]
pub enum Turn<'a> {
    Of(RwLockReadGuard<'a, ()>, MutexGuard<'a, ()>),
    Alone(RwLockWriteGuard<'a, ()>),
}

impl Default for Turns {
    fn default() -> Self {
        Self { everything: RwLock::default(), names: (0..PLACES).map(|_| Mutex::default()).collect() }
    }
}

impl Turns {
    /// The turn of one name.
    pub async fn of(&self, name: &str) -> Turn<'_> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let place = usize::try_from(hasher.finish() % PLACES as u64).unwrap_or_default();
        let everything = self.everything.read().await;
        Turn::Of(everything, self.names[place].lock().await)
    }

    /// Nobody else's turn.
    pub async fn alone(&self) -> Turn<'_> {
        Turn::Alone(self.everything.write().await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_go_beside_each_other_and_everything_goes_alone() {
        let turns = Turns::default();
        let a = turns.of("a").await;
        let other = (0..).map(|n| n.to_string()).find(|name| {
            let (mut x, mut y) = (DefaultHasher::new(), DefaultHasher::new());
            "a".hash(&mut x);
            name.as_str().hash(&mut y);
            x.finish() % PLACES as u64 != y.finish() % PLACES as u64
        });
        let b = turns.of(&other.unwrap()).await;
        assert!(tokio::time::timeout(std::time::Duration::ZERO, turns.of("a")).await.is_err());
        assert!(tokio::time::timeout(std::time::Duration::ZERO, turns.alone()).await.is_err());
        drop((a, b));
        let alone = turns.alone().await;
        assert!(tokio::time::timeout(std::time::Duration::ZERO, turns.of("a")).await.is_err());
        drop(alone);
    }
}
