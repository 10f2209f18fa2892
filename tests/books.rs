//! The books tell the truth: all rules and pitfalls are in them, each with tests that exist; and what
//! no test can try is looked for in the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const TESTS: &str = env!("CARGO_MANIFEST_DIR");

fn workspace() -> PathBuf {
    Path::new(TESTS).parent().unwrap().to_owned()
}

/// The rows of a book's tables, by what is in their first column.
fn rows(book: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(Path::new(TESTS).join(book)).unwrap();
    let mut rows = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("| ")) {
        let (number, rest) = line.split_once(" | ").unwrap();
        if number == "#" {
            continue;
        }
        let twice = rows.insert(number.to_owned(), rest.to_owned());
        assert!(twice.is_none(), "{book} has two rows {number}");
    }
    rows
}

/// The names of the tests in a file: functions with the attribute, and those that `deaths!` makes.
fn tests_in(source: &str) -> BTreeSet<&str> {
    let (mut names, mut is_test, mut in_macro) = (BTreeSet::new(), false, false);
    for line in source.lines() {
        let code = line.trim_start();
        match code {
            "#[test]" => is_test = true,
            "deaths! {" => in_macro = true,
            "}" => in_macro = false,
            _ => {}
        }
        let function = code.strip_prefix("fn ").and_then(|rest| rest.split_once('('));
        if let Some((name, _)) = function
            && std::mem::take(&mut is_test)
        {
            names.insert(name);
        }
        if in_macro && let Some((name, _)) = code.split_once(": ") {
            names.insert(name);
        }
    }
    names
}

/// Each row names tests that exist, or says that it is not a test, and why.
#[track_caller]
fn every_row_is_proved(rows: &BTreeMap<String, String>) {
    let mut wrong = Vec::new();
    for (number, row) in rows {
        let words = row.split('`').skip(1).step_by(2).filter(|word| word.contains(".rs::"));
        let mut tests = 0;
        for (file, test) in words.filter_map(|word| word.split_once("::")) {
            let directory = if file.contains('/') { workspace() } else { PathBuf::from(TESTS) };
            let source = fs::read_to_string(directory.join(file)).unwrap_or_default();
            if !tests_in(&source).contains(test) {
                wrong.push(format!("{number}: there is no {file}::{test}"));
            }
            tests += 1;
        }
        let is_argued = row.contains("Not a test: ") && row.contains("Instead: ");
        if tests == 0 && !is_argued {
            wrong.push(format!("{number}: no test, and no reason"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_is_in_the_rulebook_with_tests_that_exist() {
    let rows = rows("RULEBOOK.md");
    let numbers: BTreeSet<u32> = rows.keys().map(|number| number.parse().unwrap()).collect();
    assert!(numbers.into_iter().eq(1..=60));
    every_row_is_proved(&rows);
}

#[test]
fn every_pitfall_is_in_its_book_with_tests_that_exist() {
    let rows = rows("PITFALLS.md");
    let expected: BTreeSet<_> = (1..=44)
        .map(|number| number.to_string())
        .chain((1..=18).map(|number| format!("M{number}")))
        .collect();
    assert!(rows.keys().eq(&expected), "{:?}", rows.keys());
    every_row_is_proved(&rows);
}

/// The code of the library, without its unit tests and comments: each line with its place.
fn code() -> Vec<(String, String)> {
    let mut lines = Vec::new();
    let mut directories: Vec<_> =
        ["embed/src", "process/src", "pool/src", "src"].map(|part| workspace().join(part)).into();
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            let is_test = path.file_stem().is_some_and(|name| name == "tests");
            match path.is_dir() {
                _ if is_test => {}
                true => directories.push(path),
                false => lines.extend(lines_of(&path)),
            }
        }
    }
    lines
}

fn lines_of(path: &Path) -> Vec<(String, String)> {
    let Ok(source) = fs::read_to_string(path) else { return Vec::new() };
    let code = source.split("#[cfg(test)]\nmod ").next().unwrap();
    let lines = code.lines().filter(|line| {
        let line = line.trim_start();
        !line.starts_with("//") && !line.starts_with("#[doc")
    });
    lines.map(|line| (path.display().to_string(), line.to_owned())).collect()
}

/// Asserts that no line of the library's holds any of these, but those of these files that do.
#[track_caller]
fn nowhere_but(exceptions: &[(&str, &str)], words: &[&str]) {
    let code = code();
    assert!(code.len() > 10_000, "{} lines: where is the rest?", code.len());
    let held = |line: &str| words.iter().any(|word| line.contains(word));
    let found: Vec<_> = code.into_iter().filter(|(_, line)| held(line)).collect();
    let is_exception = |(file, line): &(String, String)| {
        exceptions.iter().any(|(in_file, has)| file.ends_with(in_file) && line.contains(has))
    };
    let (known, new): (Vec<_>, Vec<_>) = found.into_iter().partition(is_exception);
    assert!(new.is_empty(), "{new:#?}");
    assert_eq!(known.len(), exceptions.len(), "exceptions that are none any more: {known:#?}");
}

#[test]
fn nothing_reads_the_clock_on_the_wall() {
    nowhere_but(&[], &["SystemTime", "CLOCK_REALTIME", "UNIX_EPOCH", " gettimeofday("]);
}

#[test]
fn nothing_panics_where_there_are_no_random_numbers() {
    // Users' values, in the fuzzer.
    let exceptions = [
        ("process/src/fuzzing/values.rs", "use std::collections"),
        ("process/src/fuzzing/values.rs", "value::<HashMap"),
    ];
    nowhere_but(&exceptions, &["HashMap", "HashSet", "RandomState"]);
}

#[test]
fn nobody_is_signalled_by_a_number() {
    let exceptions = [
        // A child that nobody has waited for: the number is its own.
        ("process/src/launch.rs", "signal::kill(pid, "),
        // A group whose leader has not been waited for, where the kernel knows no other way.
        ("process/src/tree.rs", "killpg(Pid::from_raw(group)"),
        // What a sandbox forbids.
        ("process/src/sandbox/filter.rs", "libc::SYS_kill"),
    ];
    let words = ["libc::kill(", "signal::kill(", "SYS_kill", " killpg(", "SYS_tkill"];
    nowhere_but(&exceptions, &words);
}

#[test]
fn the_library_prints_nothing_that_could_panic() {
    nowhere_but(&[], &[" println!", " print!", " eprintln!", " eprint!", "dbg!("]);
}
