//! The server's own words to its operator, on standard error. A closed terminal never ends the server.

use std::io::Write as _;

pub fn error(text: &str) {
    say("error", text);
}

pub fn warning(text: &str) {
    say("WARNING", text);
}

fn say(level: &str, text: &str) {
    // Nobody is there to read it; going on is all that is left to do.
    let _ = writeln!(std::io::stderr(), "{level}: {text}");
}
