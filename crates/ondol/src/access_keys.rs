//! Who may sign requests: keys issued by `ondol keys`, the pair `test`/`test` on the loopback, and the
//! temporary keys of this server's own execution environments.
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
use ondol_agent::Credentials;
use ondol_wire::sigv4::{Keys, constant_time_equal, hex, hmac};
use serde::{Deserialize, Serialize};

const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Issued keys: secrets by access key id.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Issued(BTreeMap<String, String>);

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
pub fn create(data_dir: &Path) -> Result<(String, String)> {
    let mut issued = read(data_dir)?;
    let id = format!("AKIA{}", letters(16)?);
    let secret = STANDARD.encode(random::<30>()?);
    issued.0.insert(id.clone(), secret.clone());
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
    read(data_dir).ok()?.0.into_iter().next()
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
    /// What the keys of execution environments are derived from; new with every start of the server, so that
    /// they end with it.
    session_secret: [u8; 32],
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
        Ok(Self { data_dir, loopback, session_secret: random()?, cache: Mutex::default() })
    }

    /// Temporary credentials of one execution environment.
    pub fn session(&self, name: u128) -> Credentials {
        let digits = hex(&hmac(&self.session_secret, &name.to_be_bytes())).to_ascii_uppercase();
        let access_key_id = format!("ASIA{}", &digits[..16]);
        let (secret_access_key, session_token) = self.derive(&access_key_id);
        Credentials { access_key_id, secret_access_key, session_token }
    }

    fn derive(&self, access_key_id: &str) -> (String, String) {
        let part = |what: &str| hmac(&self.session_secret, format!("{what}/{access_key_id}").as_bytes());
        (STANDARD.encode(&part("secret")[..30]), STANDARD.encode(part("token")))
    }

    fn issued(&self, access_key_id: &str) -> Option<String> {
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

impl Keys for KeyRing {
    fn secret(&self, access_key_id: &str, session_token: Option<&str>) -> Option<String> {
        if access_key_id.starts_with("ASIA") {
            let (secret, token) = self.derive(access_key_id);
            return constant_time_equal(session_token?.as_bytes(), token.as_bytes()).then_some(secret);
        }
        if self.loopback && access_key_id == "test" {
            return Some("test".into());
        }
        self.issued(access_key_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_found_and_withdrawn() {
        let folder = std::env::temp_dir().join(format!("ondol-keys-{}", std::process::id()));
        let ring = KeyRing::new(folder.clone(), false).unwrap();
        let (id, secret) = create(&folder).unwrap();
        let ring_after = KeyRing::new(folder.clone(), true).unwrap();
        assert_eq!(ring.secret(&id, None), Some(secret));
        assert_eq!((ring.secret("test", None), ring_after.secret("test", None)), (None, Some("test".into())));
        delete(&folder, &id).unwrap();
        assert_eq!(KeyRing::new(folder.clone(), true).unwrap().secret(&id, None), None);
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(file(&folder)).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn session_keys_need_their_token_and_end_with_the_server() {
        let folder = std::env::temp_dir().join(format!("ondol-session-{}", std::process::id()));
        let ring = KeyRing::new(folder.clone(), true).unwrap();
        let session = ring.session(7);
        let token = session.session_token.as_str();
        assert_eq!(ring.secret(&session.access_key_id, Some(token)), Some(session.secret_access_key.clone()));
        assert_eq!(ring.secret(&session.access_key_id, None), None);
        assert_eq!(ring.secret(&session.access_key_id, Some("x")), None);
        assert_eq!(KeyRing::new(folder, true).unwrap().secret(&session.access_key_id, Some(token)), None);
    }
}
