//! Replays all inputs of the corpora: seeds, and inputs found by fuzzing.

use std::{collections::BTreeSet, fs, path::PathBuf};

use fanfare_fuzz::TARGETS;

fn corpora() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpora")
}

fn names(folder: &PathBuf) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_target_has_inputs_and_holds_with_each() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names(&corpora()), targets);
    for target in TARGETS {
        let folder = corpora().join(target.name);
        let inputs = names(&folder);
        assert!(!inputs.is_empty(), "{} has no inputs", target.name);
        for input in inputs {
            // The test harness prints the output of a failed test: the last line names the input.
            println!("{}/{input}", target.name);
            (target.run)(&fs::read(folder.join(input)).expect("an input"));
        }
    }
}
