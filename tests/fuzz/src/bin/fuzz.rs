//! The runner of `make fuzz`: libFuzzer, with the target that `FANFARE_FUZZ_TARGET` names. Its arguments are libFuzzer's;
//! with `--targets` it lists the targets instead.

// The entry that libFuzzer calls is an exported C function, which counts as unsafe code. There is no other here.
#![allow(unsafe_code)]
#![no_main]

use std::sync::OnceLock;

use fanfare_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<&Target> = OnceLock::new();

fuzz_target!(
    init: {
        if std::env::args().any(|argument| argument == "--targets") {
            for target in TARGETS {
                println!("{}", target.name);
            }
            std::process::exit(0);
        }
        let name = std::env::var("FANFARE_FUZZ_TARGET").unwrap_or_default();
        let target = TARGETS.iter().find(|target| target.name == name);
        let _ = TARGET.set(target.unwrap_or_else(|| panic!("FANFARE_FUZZ_TARGET={name:?} names no target")));
    },
    |bytes: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(bytes);
        }
    }
);
