//! The targets of the fuzzer, and the corpus that every test run replays.
//!
//! `tests/fuzz/run` drives libFuzzer; an input that it finds a bug with goes into `corpus/TARGET`,
//! by a name that says which bug, and is a regression test from then on.

use epilogue_process::fuzzing::{TARGETS, Target};

/// The target of that name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(other, _)| *other == name).map(|(_, target)| *target)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use epilogue_process::fuzzing::TARGETS;

    #[test]
    fn every_input_of_the_corpus_keeps_every_promise() {
        for (name, target) in TARGETS {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
            let files: Vec<_> = fs::read_dir(&directory).unwrap().collect();
            assert!(!files.is_empty(), "{name} has no corpus");
            for file in files {
                target(&fs::read(file.unwrap().path()).unwrap());
            }
        }
    }

    /// Numbers that look random and are the same in each run.
    #[test]
    fn inputs_that_nobody_chose_keep_every_promise() {
        let mut state = 0x5EED_0F22u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for (_, target) in TARGETS {
            for _ in 0..2000 {
                let len = random() % 300;
                let small = random().is_multiple_of(2);
                let bytes: Vec<u8> =
                    (0..len).map(|_| random() as u8 % if small { 12 } else { 255 }).collect();
                target(&bytes);
            }
        }
    }
}
