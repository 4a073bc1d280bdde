//! The command line of a service.

use std::process::exit;

/// Parses the command line: an argument from `known`, or `None` to run the service. Answers `--help` and `--version`
/// itself. Exits with code 2 on an unknown argument, so that a misspelt flag does not start a service.
pub fn argument(service: &str, known: &[&'static str]) -> Option<&'static str> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let usage = format!("usage: {service} [{} | --help | --version]", known.join(" | "));
    match given.as_slice() {
        [] => None,
        [argument] if argument == "--help" => {
            println!("{usage}\n\nRuns the service. The settings are environment variables: see deploy/settings.md.");
            exit(0);
        }
        [argument] if argument == "--version" => {
            println!("{service} {}", env!("CARGO_PKG_VERSION"));
            exit(0);
        }
        [argument] => known.iter().find(|known| *known == argument).copied().or_else(|| refuse(&usage)),
        _ => refuse(&usage),
    }
}

fn refuse(usage: &str) -> ! {
    eprintln!("{usage}");
    exit(2);
}
