//! What the compiler says about a program that could not work: in the words of this library, or
//! naming the variable that is to blame.
//!
//! The texts are compared in their essential parts, since they are the compiler's. The lifetimes
//! are pinned down by `compile_fail` examples in the documentation as well.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

/// What the fixtures are compiled against: just what this test was built with.
struct Libraries {
    epilogue: PathBuf,
    serde: PathBuf,
}

static LIBRARIES: LazyLock<Libraries> = LazyLock::new(|| {
    let artifacts = cargo_build();
    let find = |name: &str| {
        let name = format!("\"name\":\"{name}\",");
        let lines = artifacts.lines().filter(|line| line.contains(&name));
        let mut words = lines.flat_map(|line| line.split('"'));
        let file = words.find(|word| word.ends_with(".rlib"));
        PathBuf::from(file.unwrap_or_else(|| panic!("no library {name} in {artifacts}")))
    };
    Libraries { epilogue: find("epilogue"), serde: find("serde") }
});

/// Builds the workspace's libraries where this test was built, where they are as a rule already.
fn cargo_build() -> String {
    let test = env::current_exe().unwrap();
    let mut above = test.ancestors();
    let target = above.find(|path| path.join("CACHEDIR.TAG").exists()).expect("a target directory");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace).args(["build", "--locked", "--workspace", "--lib", "--quiet"]);
    cargo.args(["--message-format=json", "--target-dir"]).arg(target);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn rustc(fixture: &str) -> Output {
    let Libraries { epilogue, serde } = &*LIBRARIES;
    let output = tempfile::tempdir().unwrap();
    let named = |name: &str, path: &Path| format!("{name}={}", path.display());
    // A library lies in the directory of its dependencies, or is linked to from beside it.
    let beside = epilogue.parent().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/api").join(fixture);
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "-Dwarnings"]);
    rustc.arg("--extern").arg(named("epilogue", epilogue));
    rustc.arg("--extern").arg(named("serde", serde));
    for directory in [beside.to_owned(), beside.join("deps")] {
        rustc.arg("-L").arg(named("dependency", &directory));
    }
    rustc.arg("--out-dir").arg(output.path()).arg(source).output().unwrap()
}

/// The errors of a fixture, each with its notes. A warning counts as one.
#[track_caller]
fn errors(fixture: &str) -> Vec<String> {
    let output = rustc(fixture);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{fixture} compiles");
    let errors = said.split("\n\n").filter(|text| text.starts_with("error"));
    errors.map(str::to_owned).collect()
}

/// The one error that holds all of `parts`.
#[track_caller]
fn the_error<'a>(errors: &'a [String], parts: &[&str]) -> &'a str {
    let holds = |error: &&String| parts.iter().all(|part| error.contains(part));
    let mut matches = errors.iter().filter(holds);
    let error = matches.next();
    error.unwrap_or_else(|| panic!("no error holds {parts:?}:\n{}", errors.join("\n\n")))
}

#[test]
fn what_is_right_compiles() {
    let output = rustc("good.rs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_capture_is_an_error_that_names_the_variable() {
    let errors = errors("captures.rs");
    for place in ["map", "try_map", "map_with", "map_outcomes", "submit", "process", "scope"] {
        let variable = format!("`in_{place}` captured here");
        let why = "closures can only be coerced to `fn` types if they do not capture any variables";
        the_error(&errors, &["error[E0308]", &variable, why]);
    }
}

#[test]
fn a_type_that_serde_cannot_carry_is_an_error_with_the_cure() {
    let errors = errors("strangers.rs");
    for name in ["Argument", "Answer", "Setting", "OneWay", "Told", "Alone"] {
        let words = format!("`{name}` cannot travel to another process");
        let cure = "derive serde's `Serialize` and `Deserialize` for your own types";
        the_error(&errors, &["error[E0277]", &words, cure]);
    }
    the_error(&errors, &["error[E0277]", "`(u8, Vec<", "Inside>>)` cannot travel"]);
    let foreign = "io::Error>` cannot travel to another process";
    let cure = "return foreign error types such as `io::Error` through `try_map`";
    the_error(&errors, &["error[E0277]", foreign, cure]);
    the_error(&errors, &["error[E0277]", "NoError", "dyn"]);
}

#[test]
fn a_reference_is_an_error() {
    let errors = errors("references.rs");
    the_error(&errors, &["Deserialize", "not general enough"]);
}

#[test]
fn a_handle_cannot_leave_its_scope() {
    let errors = errors("escapes.rs");
    the_error(&errors, &["scope(|s| s.start(1u64", "lifetime"]);
    the_error(&errors, &["error[E0521]", "kept", "s.start"]);
    the_error(&errors, &["error[E0382]", "process"]);
    the_error(&errors, &["error[E0505]", "`pool`", "borrow later used here"]);
}

#[test]
fn what_must_not_be_forgotten_is_a_warning() {
    let errors = errors("forgotten.rs");
    for (what, why) in [
        ("Task", "a task's error is only told to who joins it"),
        ("Report", "a report says whether every worker ended well"),
        ("Builder", "a builder starts nothing by itself"),
        ("Process", "dropping a process waits for it"),
        ("Result", "may be an `Err` variant"),
    ] {
        the_error(&errors, &[what, "must be used", why]);
    }
}
