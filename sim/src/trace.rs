//! Traces: recorded workloads as CSV. Counts by the minute in the format of the Azure Functions trace of 2019
//! (`HashOwner,HashApp,HashFunction,Trigger,1,2,…`), or one line for each invocation
//! (`function,arrival_seconds,duration_seconds`; milliseconds with `_ms`, and `cpu_seconds` where it is known).
//!
//! Single invocations are read once to check them and once more while they are simulated, so that a trace may be larger
//! than memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use csv::{Position, Reader, ReaderBuilder, StringRecord};

use crate::SimError;
use crate::scenario::{FUNCTIONS_MAX, Function, Load, Scenario};
use crate::workload::micros;

const MINUTE_SECONDS: u64 = 60;
/// A year, and what one invocation may take at most.
const ARRIVAL_SECONDS_MAX: f64 = 366.0 * 86_400.0;
const DURATION_SECONDS_MAX: f64 = 86_400.0;

/// One invocation of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traced {
    pub at_micros: u64,
    pub function: usize,
    pub cpu_micros: u64,
    pub wait_micros: u64,
}

/// Single invocations, in the order of their arrival.
#[derive(Debug)]
pub struct Trace {
    reader: Reader<File>,
    columns: Columns,
    numbers: BTreeMap<String, usize>,
    /// The part that needs a CPU where no column tells it: of functions the scenario has, and of all others.
    cpu_shares: BTreeMap<String, f64>,
    cpu_share: f64,
    record: StringRecord,
    last_at: u64,
    error: Option<SimError>,
}

#[derive(Debug, Clone, Copy)]
struct Columns {
    function: Option<usize>,
    arrival: (usize, f64),
    duration: (usize, f64),
    cpu: Option<(usize, f64)>,
}

/// Reads what a trace says into a scenario: its functions, each like the scenario's function of that name or else like
/// its first, and its length. Gives the single invocations, if it is such a trace.
pub fn read(path: &Path, scenario: &mut Scenario) -> Result<Option<Trace>, SimError> {
    let mut reader = open(path)?;
    let header = reader.headers().map_err(|error| broken(&error))?.clone();
    let known = std::mem::take(&mut scenario.functions);
    let first = known.first().cloned().unwrap_or_default();
    let like = |name: &str| known.iter().find(|function| function.name == name).unwrap_or(&first);
    if header.iter().any(|name| name == "HashFunction") {
        scenario.functions = counted(&mut reader, &header, &like)?;
        let minutes = scenario.functions.iter().map(|function| match &function.load {
            Load::PerMinute { counts } => counts.len() as u64,
            _ => 0,
        });
        scenario.duration_seconds = minutes.max().unwrap_or(0).max(1) * MINUTE_SECONDS;
        return Ok(None);
    }
    let columns = Columns::of(&header)?;
    let mut trace = Trace {
        reader,
        columns,
        numbers: BTreeMap::new(),
        cpu_shares: known.iter().map(|of| (of.name.clone(), of.service.cpu_share)).collect(),
        cpu_share: first.service.cpu_share,
        record: StringRecord::new(),
        last_at: 0,
        error: None,
    };
    let mut names: Vec<String> = Vec::new();
    let mut last = 0;
    while let Some((name, traced)) = trace.read_next()? {
        if !trace.numbers.contains_key(&name) {
            if names.len() == FUNCTIONS_MAX {
                return Err(trace.refuse(
                    0,
                    format!(
                        "this is the {}st function; a trace has {FUNCTIONS_MAX} at most",
                        FUNCTIONS_MAX + 1
                    ),
                ));
            }
            trace.numbers.insert(name.clone(), names.len());
            names.push(name);
        }
        last = last.max(traced.at_micros + traced.cpu_micros + traced.wait_micros);
    }
    if names.is_empty() {
        return Err(SimError::Trace { line: 2, column: 1, what: "there is no invocation in it".into() });
    }
    let named = |name: String| {
        let like = like(&name).clone();
        Function { name, count: 1, load: Load::None, ..like }
    };
    scenario.functions = names.into_iter().map(named).collect();
    scenario.duration_seconds = last.div_ceil(1_000_000).max(1);
    let mut reader = open(path)?;
    reader.headers().map_err(|error| broken(&error))?;
    Ok(Some(Trace { reader, last_at: 0, ..trace }))
}

fn open(path: &Path) -> Result<Reader<File>, SimError> {
    let file = File::open(path)
        .map_err(|error| std::io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    // Lines of another length are told in our own words.
    Ok(ReaderBuilder::new().trim(csv::Trim::All).flexible(true).from_reader(file))
}

fn broken(error: &csv::Error) -> SimError {
    let line = error.position().map_or(1, Position::line);
    SimError::Trace { line, column: 1, what: error.to_string() }
}

fn counted<'a>(
    reader: &mut Reader<File>,
    header: &StringRecord,
    like: &impl Fn(&str) -> &'a Function,
) -> Result<Vec<Function>, SimError> {
    let named = |name: &str| header.iter().position(|found| found == name);
    let function = named("HashFunction").unwrap_or(0);
    let refuse_header = |column: usize, what: String| SimError::Trace { line: 1, column, what };
    let Some(first) = named("1") else {
        return Err(refuse_header(1, "there is no column 1, the first minute's count".into()));
    };
    for (place, name) in header.iter().enumerate().skip(first) {
        if name != (place - first + 1).to_string() {
            let what = format!("the column after minute {} is called {name}", place - first);
            return Err(refuse_header(character(header, place), what));
        }
    }
    let mut functions = Vec::new();
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| broken(&error))? {
        let line = record.position().map_or(0, Position::line);
        let refuse =
            |place: usize, what: String| SimError::Trace { line, column: character(&record, place), what };
        if record.len() != header.len() {
            let what = format!("there are {} columns, and the first line has {}", record.len(), header.len());
            return Err(refuse(record.len().min(header.len()), what));
        }
        if functions.len() == FUNCTIONS_MAX {
            return Err(refuse(0, format!("a trace has {FUNCTIONS_MAX} functions at most")));
        }
        let mut counts = Vec::with_capacity(header.len() - first);
        for place in first..record.len() {
            let text = &record[place];
            let count = text.parse::<u32>().map_err(|_| {
                refuse(place, format!("{text:?} is no count of invocations (minute {})", place - first + 1))
            })?;
            counts.push(count);
        }
        functions.push(Function {
            name: record[function].to_owned(),
            count: 1,
            load: Load::PerMinute { counts },
            ..like(&record[function]).clone()
        });
    }
    if functions.is_empty() {
        return Err(SimError::Trace { line: 2, column: 1, what: "there is no function in it".into() });
    }
    Ok(functions)
}

impl Columns {
    fn of(header: &StringRecord) -> Result<Self, SimError> {
        let named = |name: &str| header.iter().position(|found| found == name);
        let timed = |what: &str| {
            let seconds = named(&format!("{what}_seconds")).map(|place| (place, 1.0));
            seconds.or_else(|| named(&format!("{what}_ms")).map(|place| (place, 0.001)))
        };
        let missing = |what: &str| {
            let known: Vec<&str> = header.iter().collect();
            SimError::Trace {
                line: 1,
                column: 1,
                what: format!(
                    "there is no column {what}_seconds or {what}_ms among {}. A trace has HashFunction and counts by the minute, or arrival and duration of each invocation",
                    known.join(", ")
                ),
            }
        };
        Ok(Self {
            function: named("function"),
            arrival: timed("arrival").ok_or_else(|| missing("arrival"))?,
            duration: timed("duration").ok_or_else(|| missing("duration"))?,
            cpu: timed("cpu"),
        })
    }
}

impl Trace {
    pub fn take_error(&mut self) -> Option<SimError> {
        self.error.take()
    }

    fn read_next(&mut self) -> Result<Option<(String, Traced)>, SimError> {
        if !self.reader.read_record(&mut self.record).map_err(|error| broken(&error))? {
            return Ok(None);
        }
        let Columns { function, arrival, duration, cpu } = self.columns;
        let at = self.time("arrival", arrival, ARRIVAL_SECONDS_MAX)?;
        let takes = self.time("duration", duration, DURATION_SECONDS_MAX)?;
        let name = match function {
            Some(place) => self.cell(place)?.to_owned(),
            None => "function".into(),
        };
        let cpu_micros = match cpu {
            Some(cpu) => {
                let used = self.time("cpu", cpu, DURATION_SECONDS_MAX)?;
                if used > takes {
                    return Err(self.refuse(cpu.0, "it needs the CPU for longer than it takes".into()));
                }
                used
            }
            None => micros(takes as f64 * self.cpu_shares.get(&name).unwrap_or(&self.cpu_share)),
        };
        if at < self.last_at {
            let what = "it comes before the invocation in the line above: sort the trace by arrival".into();
            return Err(self.refuse(arrival.0, what));
        }
        self.last_at = at;
        let wait_micros = (takes - cpu_micros).max(1);
        Ok(Some((name, Traced { at_micros: at, function: 0, cpu_micros, wait_micros })))
    }

    fn cell(&self, place: usize) -> Result<&str, SimError> {
        let found = self.record.get(place).filter(|text| !text.is_empty());
        found.ok_or_else(|| self.refuse(place.min(self.record.len()), "this column is missing".into()))
    }

    /// A time in microseconds.
    fn time(&self, what: &str, (place, unit): (usize, f64), seconds_max: f64) -> Result<u64, SimError> {
        let text = self.cell(place)?;
        let seconds = text.parse::<f64>().map(|number| number * unit);
        match seconds {
            Ok(seconds) if (0.0..=seconds_max).contains(&seconds) => Ok(micros(seconds * 1e6)),
            Ok(_) => {
                Err(self
                    .refuse(place, format!("the {what} {text} is below 0, or above {seconds_max} seconds")))
            }
            Err(_) => Err(self.refuse(place, format!("{text:?} is no number ({what})"))),
        }
    }

    fn refuse(&self, place: usize, what: String) -> SimError {
        let line = self.record.position().map_or(0, Position::line);
        SimError::Trace { line, column: character(&self.record, place), what }
    }
}

impl Iterator for Trace {
    type Item = Traced;

    /// None at the end, or where the trace is not as it was when it was checked.
    fn next(&mut self) -> Option<Traced> {
        match self.read_next() {
            Ok(found) => {
                let (name, traced) = found?;
                let function = *self.numbers.get(&name)?;
                Some(Traced { function, ..traced })
            }
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }
}

/// The character a cell begins at, from 1, in a line without quotes.
fn character(record: &StringRecord, place: usize) -> usize {
    record.iter().take(place).map(|cell| cell.chars().count() + 1).sum::<usize>() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(text: &str) -> Result<(Scenario, Vec<Traced>), SimError> {
        trace_of(text, Scenario::default())
    }

    fn trace_of(text: &str, mut scenario: Scenario) -> Result<(Scenario, Vec<Traced>), SimError> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ondol-trace-{}-{number}.csv", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let read = read(&path, &mut scenario);
        let all = read.map(|found| found.map_or(Vec::new(), Iterator::collect));
        std::fs::remove_file(&path).unwrap();
        all.map(|all| (scenario, all))
    }

    #[test]
    fn single_invocations() {
        let (scenario, all) =
            trace("function,arrival_seconds,duration_ms\na,0.5,100\nb,1,2000\na,1,50\n").unwrap();
        assert_eq!((scenario.functions.len(), scenario.duration_seconds), (2, 3));
        assert_eq!(all.len(), 3);
        assert_eq!((all[1].function, all[1].at_micros, all[1].cpu_micros), (1, 1_000_000, 400_000));
    }

    #[test]
    fn functions_are_as_the_scenario_says_by_their_name_or_else_like_its_first() {
        let of = |name: &str, max_concurrency, cpu_share| {
            let mut function = Function { name: name.into(), max_concurrency, ..Function::default() };
            function.service.cpu_share = cpu_share;
            function
        };
        let scenario = Scenario { functions: vec![of("b", 2, 0.0), of("c", 3, 0.5)], ..Scenario::default() };
        let text = "function,arrival_seconds,duration_ms\na,0,100\nc,1,100\n";
        let (scenario, all) = trace_of(text, scenario).unwrap();
        let shown = scenario.functions.iter().map(|of| (of.name.as_str(), of.max_concurrency));
        assert_eq!(shown.collect::<Vec<_>>(), [("a", 2), ("c", 3)]);
        assert_eq!(all.iter().map(|traced| traced.cpu_micros).collect::<Vec<_>>(), [0, 50_000]);
        let text = "HashFunction,1\nc,1\na,1\n";
        let known = Scenario { functions: vec![of("b", 2, 0.0), of("c", 3, 0.5)], ..Scenario::default() };
        let (scenario, _) = trace_of(text, known).unwrap();
        assert_eq!(scenario.functions[0].max_concurrency, 3);
        assert_eq!(scenario.functions[1].max_concurrency, 2);
    }

    #[test]
    fn counts_by_the_minute() {
        let (scenario, all) =
            trace("HashOwner,HashApp,HashFunction,Trigger,1,2\no,p,f,http,3,0\no,p,g,timer,0,7\n").unwrap();
        assert!(all.is_empty());
        assert_eq!(scenario.duration_seconds, 120);
        assert_eq!(scenario.functions[1].load, Load::PerMinute { counts: vec![0, 7] });
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, line, column, what) in [
            ("function,arrival_seconds,duration_ms\na,0.5,100\na,0.25,x\n", 3, 8, "no number"),
            ("function,arrival_seconds,duration_ms\na,0.5,100\na,0.25,1\n", 3, 3, "sort the trace"),
            ("function,arrival_seconds,duration_ms\na,0.5\n", 2, 7, "missing"),
            ("function,arrival_seconds,duration_ms\na,-1,5\n", 2, 3, "below 0"),
            ("function,arrival_seconds,duration_ms\n", 2, 1, "no invocation"),
            ("function,arrival_seconds\na,1\n", 1, 1, "duration_seconds"),
            ("HashOwner,HashFunction,1,2\no,f,3,-1\n", 2, 7, "no count"),
            ("HashOwner,HashFunction,1,2\no,f,3\n", 2, 7, "columns"),
            ("HashOwner,HashFunction,1,3\no,f,3,1\n", 1, 26, "called 3"),
        ] {
            match trace(text) {
                Err(SimError::Trace { line: at_line, column: at_column, what: told }) => {
                    assert_eq!((at_line, at_column), (line, column), "{text}: {told}");
                    assert!(told.contains(what), "{told}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
