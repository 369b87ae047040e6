//! The one tool of this repository.
#![allow(clippy::print_stdout)]

mod bench;
mod codegen;
mod demo;
mod prepare;
mod shell;
mod test;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  demo [--keep]                 build, install what is missing, run functions of three languages
  test                          everything CI needs
  bench [--quick]               Ondol beside its limits, interleaved in one run
  codegen [--fetch] [--check]   the AWS tables of crates/wire from models/
";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let done = match arguments.first().map(String::as_str) {
        Some("demo") => demo::demo(rest),
        Some("test") => test::test(),
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
