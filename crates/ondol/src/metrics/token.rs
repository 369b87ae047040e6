//! Who may read the metrics besides the root user: whoever has the token in `metrics-token` of the data folder. It opens
//! nothing else, so that it can be given to a monitoring system.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
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
            Ok(text) if !text.trim().is_empty() => return Ok(Self(text.trim().to_owned())),
            Ok(_) => bail!("{} is empty; delete it, and a new token is made", shown()),
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
        std::fs::remove_dir_all(folder).unwrap();
    }
}
