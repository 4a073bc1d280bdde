//! The runner of `make fuzz`: libFuzzer with the target of `FANFARE_FUZZ_TARGET`. Takes libFuzzer's arguments;
//! `--targets` lists the targets instead.

// libFuzzer calls an exported C function, which counts as unsafe code. This crate has no other unsafe code.
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
        let _ = TARGET.set(target.unwrap_or_else(|| panic!("FANFARE_FUZZ_TARGET={name:?} names no target; see --targets")));
    },
    |bytes: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(bytes);
        }
    }
);
