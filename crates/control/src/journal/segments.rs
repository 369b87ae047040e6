//! The files: numbered, for their owner only, the oldest removed when all together are too large.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ondol_core::capacity::journal::Line;

/// A segment that is larger takes no further keyframe.
pub const SEGMENT_BYTES: u64 = 8 << 20;
/// What all segments together may take, as far as whole segments make it.
pub const TOTAL_BYTES_MAX: u64 = 64 << 20;

const EXTENSION: &str = "jsonl";

#[derive(Debug)]
pub struct Segments {
    pub folder: PathBuf,
    segment_bytes: u64,
    total_bytes_max: u64,
    /// The number of the next one.
    next: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Segments {
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        Self::bounded(folder, SEGMENT_BYTES, TOTAL_BYTES_MAX)
    }

    pub fn bounded(folder: PathBuf, segment_bytes: u64, total_bytes_max: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let next = files(&folder)?.last().and_then(|newest| number(newest)).map_or(1, |newest| newest + 1);
        Ok(Self { folder, segment_bytes, total_bytes_max, next, open: None })
    }

    /// Whether the next keyframe begins a segment.
    pub fn want_keyframe(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.bytes >= self.segment_bytes)
    }

    /// Writes a line; `false` if nothing that came before it is there. After an error only a keyframe is written.
    pub fn write(&mut self, line: &Line, mut text: String) -> io::Result<bool> {
        if line.is_keyframe() && self.want_keyframe() {
            self.begin()?;
        }
        let Some(open) = &mut self.open else { return Ok(false) };
        text.push('\n');
        if let Err(error) = open.file.write_all(text.as_bytes()) {
            // What of it was written is the end of this segment, or all of it.
            if open.bytes == 0 {
                let _ = fs::remove_file(&open.path);
            }
            self.open = None;
            return Err(error);
        }
        open.bytes += text.len() as u64;
        Ok(true)
    }

    fn begin(&mut self) -> io::Result<()> {
        self.open = None;
        self.make_room()?;
        let path = self.folder.join(format!("{:010}.{EXTENSION}", self.next));
        let file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(&path)?;
        self.next += 1;
        self.open = Some(Open { path, file, bytes: 0 });
        Ok(())
    }

    /// Removes the oldest, so that there is room for one more.
    fn make_room(&self) -> io::Result<()> {
        let sizes = files(&self.folder)?.into_iter().map(|file| Ok((fs::metadata(&file)?.len(), file)));
        let sizes = sizes.collect::<io::Result<Vec<_>>>()?;
        let mut total: u64 = sizes.iter().map(|(bytes, _)| bytes).sum();
        for (bytes, file) in sizes {
            if total + self.segment_bytes <= self.total_bytes_max {
                break;
            }
            fs::remove_file(file)?;
            total -= bytes;
        }
        Ok(())
    }
}

/// The segments of a folder, oldest first.
pub fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        found.extend(number(&path).map(|number| (number, path)));
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn number(path: &Path) -> Option<u64> {
    let is_segment = path.extension().is_some_and(|extension| extension == EXTENSION);
    path.file_stem().filter(|_| is_segment)?.to_str()?.parse().ok()
}
