//! The control socket in the data folder: what only the folder's owner may ask of a running server. One line of
//! JSON each way.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ondol_store::backup::Manifest;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use crate::backup::Restorer;

const NAME: &str = "control.sock";
const LINE_BYTES_MAX: u64 = 64 * 1024;
const LINE_WAIT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(100);

#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    Restore { file: PathBuf },
}

#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Restored(Manifest),
    Failed(String),
}

/// The socket's path by way of the open folder, as the folder's own may be longer than a socket address can be.
fn address(folder: &std::fs::File) -> PathBuf {
    format!("/proc/self/fd/{}/{NAME}", folder.as_raw_fd()).into()
}

/// Listens in the data folder. What an earlier server left there is replaced: the folder is locked, so it is gone.
pub fn listen(data_dir: &Path) -> Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = std::fs::File::open(data_dir)?;
    let path = address(&folder);
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).context("making the control socket")?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

pub fn remove(data_dir: &Path) {
    // A left-over is replaced by the next start.
    let _ = std::fs::remove_file(data_dir.join(NAME));
}

/// Answers until the task is dropped, one request after another.
pub async fn serve(listener: UnixListener, restorer: Restorer) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely.
            tokio::time::sleep(RETRY).await;
            continue;
        };
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        let mut read = tokio::io::BufReader::new(tokio::io::AsyncReadExt::take(read, LINE_BYTES_MAX));
        if !matches!(tokio::time::timeout(LINE_WAIT, read.read_line(&mut line)).await, Ok(Ok(_))) {
            continue;
        }
        let reply = match serde_json::from_str(&line) {
            Ok(Ask::Restore { file }) => match restorer.restore(file).await {
                Ok(manifest) => Reply::Restored(manifest),
                Err(error) => Reply::Failed(format!("{error:#}")),
            },
            Err(error) => Reply::Failed(error.to_string()),
        };
        let mut text = serde_json::to_vec(&reply).unwrap_or_default();
        text.push(b'\n');
        // Who does not wait for the answer finds it in the state.
        let _ = write.write_all(&text).await;
    }
}

/// Asks the server that uses a data folder to restore a backup; `None` when none does.
pub fn restore(data_dir: &Path, file: &Path) -> Result<Option<Manifest>> {
    let Ok(folder) = std::fs::File::open(data_dir) else { return Ok(None) };
    let Ok(mut stream) = UnixStream::connect(address(&folder)) else { return Ok(None) };
    let mut ask =
        serde_json::to_vec(&Ask::Restore { file: file.canonicalize().context(file.display().to_string())? })?;
    ask.push(b'\n');
    stream.write_all(&ask)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    match serde_json::from_str(&line).context("the server ended before it answered")? {
        Reply::Restored(manifest) => Ok(Some(manifest)),
        Reply::Failed(text) => bail!(text),
    }
}
