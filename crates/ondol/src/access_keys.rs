//! The long-lived access keys: those issued by `ondol keys`, and the pair `test`/`test` on the loopback. Each is of
//! the root user of an account, as a rule this server's own.
//!
//! Issued keys are in a file of their own in the data folder, for its owner only, so that they can be made
//! while the server runs; the server looks at the file again when it has changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ondol_identity::{AccessKey, AccessKeys};
use serde::{Deserialize, Serialize};

const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Issued keys by access key id.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Issued(BTreeMap<String, Key>);

/// A secret, or a secret and the account whose root user has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Key {
    Own(String),
    Of { secret: String, account_id: String },
}

impl Key {
    fn secret(&self) -> &str {
        match self {
            Self::Own(secret) | Self::Of { secret, .. } => secret,
        }
    }
}

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("access-keys.json")
}

fn read(data_dir: &Path) -> Result<Issued> {
    match std::fs::read(file(data_dir)) {
        Ok(bytes) => serde_json::from_slice(&bytes).context("access-keys.json cannot be read"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Issued::default()),
        Err(error) => Err(error).with_context(|| file(data_dir).display().to_string()),
    }
}

/// The file as it is, for a backup.
pub fn bytes(data_dir: &Path) -> Result<Option<Vec<u8>>> {
    let issued = read(data_dir)?;
    Ok(if issued.0.is_empty() { None } else { Some(serde_json::to_vec_pretty(&issued)?) })
}

/// Puts the keys of a backup in the place of all there are.
pub fn replace(data_dir: &Path, bytes: &[u8]) -> Result<()> {
    write(data_dir, &serde_json::from_slice(bytes).context("the backup's access keys cannot be read")?)
}

fn write(data_dir: &Path, issued: &Issued) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::create_dir_all(data_dir).with_context(|| data_dir.display().to_string())?;
    let fresh = data_dir.join("access-keys.json.new");
    let _ = std::fs::remove_file(&fresh);
    let mut file_ = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file_.write_all(&serde_json::to_vec_pretty(issued)?)?;
    file_.sync_all()?;
    std::fs::rename(fresh, file(data_dir)).context("replacing access-keys.json")?;
    // The new name is on the disk too before anybody is told of the key.
    std::fs::File::open(data_dir)?.sync_all().context("replacing access-keys.json")
}

/// Makes a key; gives its id and its secret, which is shown nowhere else.
pub fn create(data_dir: &Path, account_id: Option<String>) -> Result<(String, String)> {
    let mut issued = read(data_dir)?;
    let id = format!("AKIA{}", letters(16)?);
    let secret = STANDARD.encode(random::<30>()?);
    let key = match account_id {
        Some(account_id) => Key::Of { secret: secret.clone(), account_id },
        None => Key::Own(secret.clone()),
    };
    issued.0.insert(id.clone(), key);
    write(data_dir, &issued)?;
    Ok((id, secret))
}

pub fn list(data_dir: &Path) -> Result<Vec<String>> {
    Ok(read(data_dir)?.0.into_keys().collect())
}

pub fn delete(data_dir: &Path, id: &str) -> Result<()> {
    let mut issued = read(data_dir)?;
    if issued.0.remove(id).is_none() {
        bail!("there is no access key {id}; `ondol keys list` shows all");
    }
    write(data_dir, &issued)
}

/// Any issued key, for commands run by the owner of the data folder.
pub fn any(data_dir: &Path) -> Option<(String, String)> {
    let issued = read(data_dir).ok()?.0;
    issued.into_iter().find_map(|(id, key)| match key {
        Key::Own(secret) => Some((id, secret)),
        Key::Of { .. } => None,
    })
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))?;
    Ok(bytes)
}

fn letters(count: usize) -> Result<String> {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bytes = random::<32>()?;
    Ok(bytes.iter().take(count).map(|byte| ALPHABET[usize::from(byte & 31)] as char).collect())
}

/// The keys a running server accepts.
#[derive(Debug)]
pub struct KeyRing {
    data_dir: PathBuf,
    /// Whether `test`/`test` is a key: only where nobody but this machine can connect.
    loopback: bool,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    issued: Issued,
    modified: Option<SystemTime>,
    looked: Option<Instant>,
}

impl KeyRing {
    pub fn new(data_dir: PathBuf, loopback: bool) -> Result<Self> {
        read(&data_dir)?;
        Ok(Self { data_dir, loopback, cache: Mutex::default() })
    }

    fn issued(&self, access_key_id: &str) -> Option<Key> {
        let mut cache = self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if cache.looked.is_none_or(|at| at.elapsed() >= LOOK_AGAIN) {
            cache.looked = Some(Instant::now());
            let modified = std::fs::metadata(file(&self.data_dir)).and_then(|found| found.modified()).ok();
            if modified != cache.modified {
                match read(&self.data_dir) {
                    Ok(issued) => (cache.issued, cache.modified) = (issued, modified),
                    Err(error) => ondol_observe::notice::error(&format!("{error:#}")),
                }
            }
        }
        cache.issued.0.get(access_key_id).cloned()
    }
}

impl AccessKeys for KeyRing {
    fn find(&self, access_key_id: &str) -> Option<AccessKey> {
        if self.loopback && access_key_id == "test" {
            return Some(AccessKey { secret: "test".into(), account_id: None });
        }
        let key = self.issued(access_key_id)?;
        let secret = key.secret().to_owned();
        Some(match key {
            Key::Own(_) => AccessKey { secret, account_id: None },
            Key::Of { account_id, .. } => AccessKey { secret, account_id: Some(account_id) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_found_and_withdrawn() {
        let folder = std::env::temp_dir().join(format!("ondol-keys-{}", std::process::id()));
        let ring = KeyRing::new(folder.clone(), false).unwrap();
        let (id, secret) = create(&folder, None).unwrap();
        let (other, _) = create(&folder, Some("111122223333".into())).unwrap();
        let ring_after = KeyRing::new(folder.clone(), true).unwrap();
        assert_eq!(ring.find(&id), Some(AccessKey { secret, account_id: None }));
        assert_eq!(ring.find(&other).unwrap().account_id.as_deref(), Some("111122223333"));
        assert!(ring.find("test").is_none() && ring_after.find("test").is_some());
        delete(&folder, &id).unwrap();
        assert_eq!(KeyRing::new(folder.clone(), true).unwrap().find(&id), None);
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(file(&folder)).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
