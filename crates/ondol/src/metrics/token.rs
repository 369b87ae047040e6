//! Who may read the metrics besides the root user: whoever has the token in `metrics-token` of the data folder. It opens
//! nothing else, so that it can be given to a monitoring system.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use ondol_wire::sigv4::{constant_time_equal, hex};

const FILE: &str = "metrics-token";

#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// The one of a data folder, made at the first start.
    pub fn of(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join(FILE);
        let shown = || path.display().to_string();
        match std::fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => {
                // Whoever put it there may have left it open to others.
                let owner_only = std::fs::Permissions::from_mode(0o600);
                std::fs::set_permissions(&path, owner_only).with_context(shown)?;
                return Ok(Self(text.trim().to_owned()));
            }
            // A power cut may have left nothing of it: a new one is made.
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(shown),
        }
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("making a token: {error}"))?;
        let token = hex(&bytes);
        let fresh = path.with_extension("new");
        // Left by a start that was killed.
        let _ = std::fs::remove_file(&fresh);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        writeln!(file, "{token}").with_context(shown)?;
        file.sync_all().with_context(shown)?;
        std::fs::rename(fresh, &path).with_context(shown)?;
        Ok(Self(token))
    }

    /// Whether an `Authorization` header has it.
    pub fn is_in(&self, authorization: &str) -> bool {
        let given = authorization.strip_prefix("Bearer ").unwrap_or_default();
        constant_time_equal(given.trim().as_bytes(), self.0.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_nothing_else_passes() {
        let folder = std::env::temp_dir().join(format!("ondol-metrics-token-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (first, second) = (Token::of(&folder).unwrap(), Token::of(&folder).unwrap());
        assert!(first.0.len() == 64 && second.is_in(&format!("Bearer {}", first.0)));
        for wrong in ["", "Bearer ", "Basic x", first.0.as_str(), &format!("Bearer {}0", first.0)] {
            assert!(!first.is_in(wrong), "{wrong}");
        }
        let path = folder.join(FILE);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        Token::of(&folder).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "").unwrap();
        assert_ne!(Token::of(&folder).unwrap().0, first.0, "an empty file opens nothing");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
