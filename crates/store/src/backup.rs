//! A whole store in one file: documents and the packages they need, each checked by its hash.
//!
//! The file is a zip with `manifest.json`, `documents.jsonl`, one entry for each package under `artifacts/`, and
//! `extra/` for small files the store knows nothing of. Making one reads the database beside a running server.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zip::write::SimpleFileOptions;

use crate::artifacts::{ArtifactError, Artifacts, hex};
use crate::{Committed, SCHEMA_VERSION, Store, StoreError, Transaction, migrations, sqlite};

const FORMAT: u32 = 1;
/// Names of the documents' entry and of the folders in the file.
const DOCUMENTS: &str = "documents.jsonl";
const ARTIFACTS: &str = "artifacts/";
const EXTRA: &str = "extra/";
/// A document, or a file of `extra/`, is not larger than this.
const PART_BYTES_MAX: u64 = 64 << 20;
/// Tries to read a state whose packages are all still there.
const ATTEMPTS_MAX: usize = 5;

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}: {1}")]
    File(String, #[source] io::Error),
    #[error("{0} is no backup of Ondol: {1}")]
    NotABackup(String, String),
    #[error(
        "the backup was written by a newer version (schema {found}, this one knows {SCHEMA_VERSION}); restore it with that version"
    )]
    Newer { found: u32 },
    #[error("the backup is damaged: {0}. Nothing was changed")]
    Damaged(String),
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error(
        "the package {0} is missing in the data folder; the function that uses it must be uploaded again"
    )]
    Missing(String),
}

/// What is in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub schema: u32,
    pub created_at: String,
    pub documents: u64,
    pub artifacts: u64,
    /// Hash of every document and of the names of every package, which are hashes themselves.
    pub state_sha256: String,
}

#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    envelope: Box<serde_json::value::RawValue>,
}

pub type Documents = BTreeMap<String, Arc<[u8]>>;

/// Writes a backup of the store in `folder`, which may be in use by a server. `needed` names the packages the
/// documents need; `extra` are small files to take along. The file appears only when it is whole.
pub fn write(
    folder: &Path,
    file: &Path,
    created_at: &str,
    needed: &dyn Fn(&Documents) -> Result<BTreeSet<String>, StoreError>,
    extra: &[(&str, Vec<u8>)],
) -> Result<Manifest, BackupError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let at = |error| BackupError::File(file.display().to_string(), error);
    let artifacts = folder.join("artifacts");
    let mut attempt = 0;
    let (documents, packages) = loop {
        let documents = snapshot(folder)?;
        let mut packages = Vec::new();
        let mut missing = None;
        for sha256 in needed(&documents)? {
            // Open before anything is written: a server that lets go of a package does not take it from us.
            match File::open(artifacts.join("zip").join(&sha256)) {
                Ok(package) => packages.push((sha256, package)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing = Some(sha256),
                Err(error) => return Err(BackupError::File(format!("the package {sha256}"), error)),
            }
        }
        match missing {
            None => break (documents, packages),
            Some(sha256) if attempt == ATTEMPTS_MAX => return Err(BackupError::Missing(sha256)),
            Some(_) => attempt += 1,
        }
    };
    let manifest = Manifest {
        format: FORMAT,
        schema: SCHEMA_VERSION,
        created_at: created_at.into(),
        documents: documents.len() as u64,
        artifacts: packages.len() as u64,
        state_sha256: state_sha256(&documents, packages.iter().map(|(sha256, _)| sha256.as_str())),
    };
    let mut fresh = file.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = Path::new(&fresh);
    let written = (|| {
        // It holds code, variables and keys: for its owner only.
        let _ = fs::remove_file(fresh);
        let open = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(fresh).map_err(at)?;
        let mut archive = zip::ZipWriter::new(BufWriter::new(open));
        fill(&mut archive, &manifest, &documents, packages, extra).map_err(at)?;
        let open = archive.finish().map_err(|error| at(error.into()))?;
        open.into_inner().map_err(|error| at(error.into_error()))?.sync_all().map_err(at)?;
        fs::rename(fresh, file).map_err(at)?;
        // Its new name is on the disk too before anybody is told of it.
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|open| open.sync_all()).map_err(at)
    })();
    if written.is_err() {
        let _ = fs::remove_file(fresh);
    }
    written.map(|()| manifest)
}

fn fill(
    archive: &mut zip::ZipWriter<impl Write + io::Seek>,
    manifest: &Manifest,
    documents: &Documents,
    packages: Vec<(String, File)>,
    extra: &[(&str, Vec<u8>)],
) -> io::Result<()> {
    let packed = SimpleFileOptions::default();
    let stored = packed.compression_method(zip::CompressionMethod::Stored).large_file(true);
    archive.start_file("manifest.json", packed)?;
    archive.write_all(&serde_json::to_vec_pretty(manifest)?)?;
    archive.start_file(DOCUMENTS, packed)?;
    for (key, bytes) in documents {
        let envelope = serde_json::from_slice(bytes)?;
        serde_json::to_writer(&mut *archive, &Line { key: key.clone(), envelope })?;
        archive.write_all(b"\n")?;
    }
    for (sha256, mut package) in packages {
        archive.start_file(format!("{ARTIFACTS}{sha256}"), stored)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = package.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            archive.write_all(&buffer[..read])?;
        }
        if hex(&hash.finalize()) != sha256 {
            return Err(io::Error::other(format!("the package {sha256} in the data folder is damaged")));
        }
    }
    for (name, bytes) in extra {
        archive.start_file(format!("{EXTRA}{name}"), packed)?;
        archive.write_all(bytes)?;
    }
    Ok(())
}

/// Every document at one moment, each checked, read beside a running server.
pub fn snapshot(folder: &Path) -> Result<Documents, StoreError> {
    let path = folder.join(sqlite::DATABASE);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(&path, flags).map_err(|error| sqlite::explained(folder, error.into()))?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found != SCHEMA_VERSION {
        let folder = folder.to_owned();
        return Err(StoreError::OtherSchema { folder, found, known: SCHEMA_VERSION });
    }
    let mirror = sqlite::load(&connection).map_err(|error| sqlite::explained(folder, error))?;
    Ok(mirror.documents.into_iter().map(|(key, stored)| (key, stored.bytes)).collect())
}

fn state_sha256<'a>(documents: &Documents, packages: impl Iterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for (key, bytes) in documents {
        hash.update(sqlite::digest(key, bytes));
    }
    packages.for_each(|sha256| hash.update(sha256));
    hex(&hash.finalize())
}

/// A backup that was read and checked whole, with its packages in the data folder and safe from removal.
#[derive(Debug)]
pub struct Checked {
    pub manifest: Manifest,
    documents: Documents,
    pub extra: BTreeMap<String, Vec<u8>>,
    _packages: Vec<crate::artifacts::Pinned>,
}

/// Reads a backup, checks every part of it against its hash, and takes its packages in. The documents are as they
/// were; [`Checked::commit`] puts them in place.
pub fn read(file: &Path, artifacts: &Artifacts) -> Result<Checked, BackupError> {
    let name = file.display().to_string();
    let open = File::open(file).map_err(|error| BackupError::File(name.clone(), error))?;
    let not_a_backup = |what: String| BackupError::NotABackup(name.clone(), what);
    let damaged = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| BackupError::Damaged(format!("{what}: {error}"))
    };
    let mut archive =
        zip::ZipArchive::new(BufReader::new(open)).map_err(|error| not_a_backup(error.to_string()))?;
    let mut part = |name: &str| -> Result<Vec<u8>, io::Error> {
        let entry = archive.by_name(name)?;
        let mut bytes = Vec::new();
        entry.take(PART_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > PART_BYTES_MAX {
            return Err(io::Error::other("it is too large"));
        }
        Ok(bytes)
    };
    let manifest = part("manifest.json").map_err(|error| not_a_backup(error.to_string()))?;
    let manifest: Manifest =
        serde_json::from_slice(&manifest).map_err(|error| not_a_backup(error.to_string()))?;
    if manifest.schema > SCHEMA_VERSION || manifest.format > FORMAT {
        return Err(BackupError::Newer { found: manifest.schema });
    }
    let mut documents = Documents::new();
    {
        let entry = archive.by_name(DOCUMENTS).map_err(|error| BackupError::Damaged(error.to_string()))?;
        let mut lines = BufReader::new(entry);
        loop {
            let mut line = Vec::new();
            lines.by_ref().take(PART_BYTES_MAX).read_until(b'\n', &mut line).map_err(damaged(DOCUMENTS))?;
            if line.is_empty() {
                break;
            }
            let line: Line =
                serde_json::from_slice(&line).map_err(|error| BackupError::Damaged(error.to_string()))?;
            documents.insert(line.key, line.envelope.get().as_bytes().into());
        }
    }
    let names: BTreeSet<String> = archive.file_names().map(str::to_owned).collect();
    let packages: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix(ARTIFACTS)).collect();
    if state_sha256(&documents, packages.iter().copied()) != manifest.state_sha256 {
        return Err(BackupError::Damaged("its documents aren't those of its manifest".into()));
    }
    let mut pinned = Vec::new();
    for sha256 in packages {
        let mut entry = archive
            .by_name(&format!("{ARTIFACTS}{sha256}"))
            .map_err(|error| BackupError::Damaged(error.to_string()))?;
        let limit = crate::artifacts::UNZIPPED_BYTES_MAX + 1;
        let mut bytes = Vec::new();
        entry.by_ref().take(limit).read_to_end(&mut bytes).map_err(damaged(sha256))?;
        if hex(&Sha256::digest(&bytes)) != sha256 {
            return Err(BackupError::Damaged(format!("the package {sha256} isn't what was written")));
        }
        pinned.push(artifacts.put(&bytes)?);
    }
    let mut extra = BTreeMap::new();
    for name in names.iter().filter_map(|name| name.strip_prefix(EXTRA)) {
        let mut entry = archive
            .by_name(&format!("{EXTRA}{name}"))
            .map_err(|error| BackupError::Damaged(error.to_string()))?;
        let mut bytes = Vec::new();
        entry.by_ref().take(PART_BYTES_MAX).read_to_end(&mut bytes).map_err(damaged(name))?;
        extra.insert(name.to_owned(), bytes);
    }
    Ok(Checked { manifest, documents, extra, _packages: pinned })
}

impl Checked {
    /// Puts the backup's documents in the place of all there are, at once. A running server follows.
    pub async fn commit(&self, store: &Store) -> Result<(), StoreError> {
        let mut transaction = Transaction::default();
        for (key, bytes) in &self.documents {
            transaction = transaction.put_raw(key.clone(), migrations::document(key, bytes)?.into());
        }
        for (key, _) in store.scan("", None, usize::MAX) {
            if !self.documents.contains_key(&key) {
                transaction = transaction.delete(key);
            }
        }
        match store.commit(transaction).await? {
            Committed::At(_) => Ok(()),
            // It has no preconditions.
            Committed::Conflict => Err(StoreError::Stopped),
        }
    }
}
