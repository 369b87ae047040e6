//! The one tool of this repository; `cargo xtask help` lists what it does.

mod codegen;
mod shell;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    match arguments.first().map(String::as_str) {
        Some("codegen") => codegen::codegen(rest),
        _ => {
            eprintln!("usage: cargo xtask codegen [--fetch] [--check]");
            std::process::exit(2);
        }
    }
}
