//! What a service may be called with instead of being run.

use std::process::exit;

/// What a call asks for instead of running the service: one of `known`, or nothing. Answers `--help` and `--version`
/// itself, and ends with exit code 2 for what there is not: a misspelt flag must not start a service.
pub fn argument(service: &str, known: &[&'static str]) -> Option<&'static str> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let usage = format!("usage: {service} [{} | --help | --version]", known.join(" | "));
    match given.as_slice() {
        [] => None,
        [one] if one == "--help" => {
            println!(
                "{usage}\n\nRuns the service. It is set by environment variables: deploy/README.md describes them."
            );
            exit(0);
        }
        [one] if one == "--version" => {
            println!("{service} {}", env!("CARGO_PKG_VERSION"));
            exit(0);
        }
        [one] => known.iter().find(|known| *known == one).copied().or_else(|| refuse(&usage)),
        _ => refuse(&usage),
    }
}

fn refuse(usage: &str) -> ! {
    eprintln!("{usage}");
    exit(2);
}
