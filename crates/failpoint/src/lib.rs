//! Named points at which a test may kill the process, before and after every durable step and every outside
//! effect. Without the feature `active` a point is nothing at all.
//!
//! `ONDOL_CRASH_AT=name` ends the process with SIGKILL at the first arrival at that point;
//! `ONDOL_CRASH_TRACE=file` adds the name of every point reached to a file.

/// Variables that a server hands on to its launcher.
pub const VARIABLES: [&str; 2] = ["ONDOL_CRASH_AT", "ONDOL_CRASH_TRACE"];

/// How carefully the store writes, where a test of power cuts has it written carelessly to see that it loses.
#[cfg(not(feature = "active"))]
pub fn synchronous() -> &'static str {
    "FULL"
}

#[cfg(feature = "active")]
pub fn synchronous() -> &'static str {
    match std::env::var("ONDOL_STORE_SYNCHRONOUS").as_deref() {
        Ok("NORMAL") => "NORMAL",
        Ok("OFF") => "OFF",
        _ => "FULL",
    }
}

#[cfg(not(feature = "active"))]
#[inline(always)]
pub fn reach(_name: &str) {}

#[cfg(feature = "active")]
pub fn reach(name: &str) {
    use std::io::Write as _;
    if let Some(trace) = std::env::var_os(VARIABLES[1]) {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(trace);
        // A trace that cannot be written shows as points that were never reached.
        let _ = file.and_then(|mut file| file.write_all(format!("{name}\n").as_bytes()));
    }
    if std::env::var_os(VARIABLES[0]).is_some_and(|at| at == name) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
