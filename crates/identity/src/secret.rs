//! The secret sessions are made with, in a file of the data folder for its owner only.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

const FILE: &str = "session-secret";

/// The secret of a data folder, made at the first start. Without the file every session is invalid.
pub fn session_secret(folder: &Path) -> io::Result<[u8; 32]> {
    let path = folder.join(FILE);
    match std::fs::read(&path) {
        Ok(bytes) => bytes.try_into().map_err(|_| {
            let text = format!(
                "{} is damaged: it must have 32 bytes. Delete it to end all sessions and start anew",
                path.display()
            );
            io::Error::new(io::ErrorKind::InvalidData, text)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(folder, &path),
        Err(error) => Err(error),
    }
}

fn make(folder: &Path, path: &Path) -> io::Result<[u8; 32]> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| io::Error::other(error.to_string()))?;
    let fresh = folder.join("session-secret.new");
    // Left by a start that was killed.
    let _ = std::fs::remove_file(&fresh);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(&secret)?;
    file.sync_all()?;
    std::fs::rename(fresh, path)?;
    // The new name is on the disk too before anything is signed with it.
    File::open(folder)?.sync_all()?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_made_once_for_its_owner_alone() {
        let folder = std::env::temp_dir().join(format!("ondol-session-secret-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let secret = session_secret(&folder).unwrap();
        assert_ne!(secret, [0; 32]);
        assert_eq!(session_secret(&folder).unwrap(), secret);
        let path = folder.join(FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, b"short").unwrap();
        assert!(session_secret(&folder).unwrap_err().to_string().contains("Delete it"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
