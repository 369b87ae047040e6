//! The planner's journal on disk: `<data folder>/journal/`, segments of a bounded size, each beginning with a keyframe.
//!
//! A thread of its own writes; the control loop never waits for it. When it is too slow, or the disk full, lines are
//! lost and counted, and a keyframe follows. Nothing is synced: it tells what was decided, and nothing rests on it.

mod segments;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use ondol_core::capacity::journal::{Line, Recorder, Replay, ReplayError, Summary};
use ondol_core::capacity::{Memory, Picture, Plan};
use ondol_core::coins::Coins;
use ondol_core::time::PolicyTime;
use ondol_observe::notice;

use segments::Segments;

/// Lines that wait to be written. A keyframe of a large fleet is some megabytes.
const LINES_MAX: usize = 64;
/// After a write that failed the next keyframe is asked for so much later.
const RETRY: Duration = Duration::from_secs(10);

/// The loop's side.
#[derive(Debug)]
pub struct Journal {
    recorder: Recorder,
    lines: SyncSender<Line>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    lost: AtomicU64,
    /// The newest segment is full, or broken: the next line begins one.
    wants_keyframe: AtomicBool,
}

/// How many lines were lost since the server started.
#[derive(Debug, Clone)]
pub struct LinesLost(Arc<Shared>);

impl LinesLost {
    pub fn get(&self) -> u64 {
        self.0.lost.load(Relaxed)
    }
}

impl Journal {
    /// Opens the journal of a data folder for the decisions of a server that starts.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let segments = Segments::open(folder(data_dir))?;
        let (lines, received) = sync_channel(LINES_MAX);
        let shared = Arc::<Shared>::default();
        let writing = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("planner-journal".into())
            .spawn(move || write_all(segments, &received, &writing))?;
        Ok(Self { recorder: Recorder::default(), lines, shared })
    }

    pub fn lines_lost(&self) -> LinesLost {
        LinesLost(Arc::clone(&self.shared))
    }

    /// Decides, and has the decision written.
    pub fn decide(
        &mut self,
        picture: &Picture,
        memory: Memory,
        now: PolicyTime,
        coins: &mut Coins,
    ) -> (Plan, Memory) {
        if self.shared.wants_keyframe.swap(false, Relaxed) {
            self.recorder.ask_for_keyframe();
        }
        let decided = self.recorder.decide(picture, memory, now, coins);
        if decided.line.is_some_and(|line| self.lines.try_send(line).is_err()) {
            self.shared.lost.fetch_add(1, Relaxed);
            self.recorder.ask_for_keyframe();
        }
        (decided.plan, decided.memory)
    }
}

fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("journal")
}

/// Writes until the loop ends.
fn write_all(mut segments: Segments, lines: &Receiver<Line>, shared: &Shared) {
    let mut failed_at: Option<Instant> = None;
    for line in lines {
        let written = line.to_json().map_err(io::Error::other).and_then(|text| segments.write(&line, text));
        match written {
            Ok(true) => failed_at = None,
            Ok(false) => drop(shared.lost.fetch_add(1, Relaxed)),
            Err(error) => {
                shared.lost.fetch_add(1, Relaxed);
                if failed_at.replace(Instant::now()).is_none() {
                    let folder = segments.folder.display();
                    notice::warning(&format!(
                        "writing the planner's journal in {folder}: {error}; decisions go on, and are not recorded until it works again"
                    ));
                }
            }
        }
        if segments.want_keyframe() && failed_at.is_none_or(|at| at.elapsed() >= RETRY) {
            shared.wants_keyframe.store(true, Relaxed);
        }
    }
}

/// What a file of the journal gave: as far as it could be replayed, and why not further.
#[derive(Debug)]
pub struct Replayed {
    pub file: PathBuf,
    pub summary: Summary,
    pub error: Option<ReplayError>,
}

/// Makes the decisions of a segment again, or of all segments of a folder, oldest first.
pub fn replay(path: &Path) -> io::Result<Vec<Replayed>> {
    let files = if path.is_dir() { segments::files(path)? } else { vec![path.to_owned()] };
    files.into_iter().map(replay_file).collect()
}

fn replay_file(file: PathBuf) -> io::Result<Replayed> {
    let text = io::BufReader::new(std::fs::File::open(&file)?);
    let mut replay = Replay::new();
    // By bytes: a line may be cut off within a character.
    for line in io::BufRead::split(text, b'\n') {
        if let Err(error) = replay.line(&String::from_utf8_lossy(&line?)) {
            return Ok(Replayed { file, summary: replay.summary().clone(), error: Some(error) });
        }
    }
    Ok(Replayed { file, summary: replay.summary().clone(), error: None })
}

#[cfg(test)]
mod tests;
