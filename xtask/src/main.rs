//! The one tool of this repository.
#![allow(clippy::print_stdout)]

mod bench;
mod codegen;
mod crash;
mod demo;
mod dist;
mod fuzz;
mod mutants;
mod prepare;
mod shell;
mod test;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  demo [--keep]                 build, install what is missing, run functions of three languages
  test                          everything CI needs
  prepare                       what `cargo test` needs from elsewhere; prints the variables to set
  crash [--kills N] [--lives N] [--write]
                                kill the server at every point and at random; the page of docs/operate
  crash-async [--kills N] [--events N] [--cuts N]
                                the same under events, and power cuts: nothing acknowledged is lost
  seeds                         2,000 worlds by chance in the simulator, with every invariant after every event
  mutants-core                  plants bugs in the decisions, and sees the simulator find each
  fuzz [SECONDS]                each fuzz target for a while, 60 s unless given
  dist                          a static binary, a tarball and a Debian package in target/dist
  bench [--quick] [--only decisions]
                                Ondol beside its limits, interleaved in one run; what decisions cost
  codegen [--fetch] [--check]   the AWS tables of crates/wire from models/
";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let done = match arguments.first().map(String::as_str) {
        Some("demo") => demo::demo(rest),
        Some("test") => test::test(),
        Some("prepare") => {
            prepare::prepare().map(|python| println!("export ONDOL_PYTHON={}", python.display()))
        }
        Some("crash") => crash::crash(rest),
        Some("crash-async") => crash::crash_async(rest),
        Some("mutants-core") => mutants::mutants(),
        Some("seeds") => test::seeds(),
        Some("fuzz") => fuzz::fuzz(rest),
        Some("dist") => dist::dist().map(drop),
        Some("bench") => bench::bench(rest),
        Some("codegen") => codegen::codegen(rest),
        _ => {
            eprint!("{USAGE}");
            std::process::exit(2);
        }
    };
    if let Err(error) = done {
        eprintln!("error: {error:#}");
        std::process::exit(1);
    }
}
