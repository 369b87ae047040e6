use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use ondol_core::capacity::{Machine, Settings};
use ondol_core::function::Architecture;
use ondol_core::on_demand::Demand;
use ondol_core::signals::MachineSignals;

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ondol-journal-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn picture(cpu_idle_millis: u32) -> Picture {
    Picture {
        region: "us-east-1".into(),
        settings: Settings::default(),
        providers: BTreeMap::new(),
        versions: BTreeMap::new(),
        functions_deleting: BTreeSet::new(),
        instances: BTreeMap::new(),
        environments: BTreeMap::new(),
        traffic: BTreeMap::new(),
        demand: Demand::default(),
        on_demand: BTreeMap::new(),
        machine: Machine {
            architecture: Architecture::X86_64,
            any_architecture: false,
            on_demand_memory_mib: 1,
            installed_runtimes: BTreeSet::new(),
            signals: MachineSignals { cpu_idle_millis, memory_available_mib: 1 },
        },
    }
}

fn decide(journal: &mut Journal, number: u32) {
    let now = PolicyTime(number.into());
    journal.decide(&picture(number), Memory::default(), now, &mut Coins::from_seed(1));
}

/// Level-triggered: as soon as it is so.
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn decisions(folder: &Path) -> u64 {
    replay(folder).unwrap().iter().map(|file| file.summary.decisions).sum()
}

#[test]
fn what_was_decided_is_on_disk_and_replayed_and_each_start_begins_a_file() {
    let data = Folder::new("starts");
    for start in 1..=2 {
        let mut journal = Journal::open(&data.0).unwrap();
        for number in 0..20 {
            decide(&mut journal, number);
        }
        wait_for("all is written", || decisions(&folder(&data.0)) == 20 * start);
        assert_eq!(journal.lines_lost().get(), 0);
    }
    let files = replay(&folder(&data.0)).unwrap();
    assert_eq!(files.len(), 2);
    for file in files {
        assert_eq!((file.error, file.summary.differences, file.summary.keyframes), (None, 0, 1));
        let mode = std::fs::metadata(&file.file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn segments_begin_with_keyframes_and_the_oldest_are_removed() {
    let data = Folder::new("bounds");
    let mut segments = Segments::bounded(data.0.clone(), 2_000, 10_000).unwrap();
    let mut recorder = Recorder::default();
    for number in 0..200 {
        if segments.want_keyframe() {
            recorder.ask_for_keyframe();
        }
        let mut coins = Coins::from_seed(1);
        let decided = recorder.decide(&picture(number), Memory::default(), PolicyTime(0), &mut coins);
        let line = decided.line.unwrap();
        assert!(segments.write(&line, line.to_json().unwrap()).unwrap());
    }
    let files = segments::files(&data.0).unwrap();
    let total: u64 = files.iter().map(|file| std::fs::metadata(file).unwrap().len()).sum();
    assert!(files.len() > 2 && total <= 10_500, "{} files, {total} bytes", files.len());
    for file in replay(&data.0).unwrap() {
        assert_eq!((file.error, file.summary.skipped, file.summary.differences), (None, 0, 0));
        assert!(file.summary.decisions > 1);
    }
    assert!(files[0].file_name().unwrap() > std::ffi::OsStr::new("0000000001.jsonl"), "the first is gone");
}

#[test]
fn lines_that_cannot_be_written_are_counted_and_nobody_waits() {
    let data = Folder::new("broken");
    let mut journal = Journal::open(&data.0).unwrap();
    std::fs::remove_dir_all(&data.0).unwrap();
    for number in 0..1_000 {
        decide(&mut journal, number);
    }
    let lost = journal.lines_lost();
    wait_for("all are lost", || lost.get() == 1_000);
}

#[test]
fn a_file_that_is_no_journal_says_where() {
    let data = Folder::new("foreign");
    std::fs::create_dir_all(&data.0).unwrap();
    let file = data.0.join("0000000001.jsonl");
    std::fs::write(&file, "{\"keyframe\":{\"format\":1}}\n").unwrap();
    let found = replay(&file).unwrap().remove(0);
    assert!(matches!(found.error, Some(ReplayError::Malformed { line: 1, .. })), "{found:?}");
}
