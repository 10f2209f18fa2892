//! The guide `docs/coverage.md` tells the truth: what it says goes wrong does so, its code is code
//! that is tried, and each test that it names is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use support::{Build, Ending, Oracle, Program, Watchdog};

use coverage::Profiles;

#[path = "support/coverage.rs"]
mod coverage;

const PATIENCE: Duration = Duration::from_secs(180);
const CALL: &str = "measured_call";
const TESTS: &str = env!("CARGO_MANIFEST_DIR");

struct Builds {
    usual: PathBuf,
    pools: PathBuf,
}

/// All are built before the first story: a compiler's run would be seen as left behind by it.
fn builds() -> &'static Builds {
    static BUILDS: OnceLock<Builds> = OnceLock::new();
    let build = |name, variant| Build::program(name, variant).flag("-Cinstrument-coverage");
    BUILDS.get_or_init(|| Builds {
        usual: build("embed_story", "measured").build(),
        pools: build("coverage_pools", "continuous")
            .flag("-Cllvm-args=-runtime-counter-relocation")
            .build(),
    })
}

/// Runs the steps of the measured program and hands what they left to `judge`.
#[track_caller]
fn story(file: Option<&str>, steps: &[&str], judge: impl FnOnce(&Profiles)) -> Ending {
    let program = &builds().usual;
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let profiles = Profiles::new();
    let mut command = profiles.command(program, "");
    command.current_dir(profiles.path()).args(steps);
    match file {
        Some(file) => command.env("LLVM_PROFILE_FILE", file),
        None => command.env_remove("LLVM_PROFILE_FILE"),
    };
    // As in a process that an instrumented one has started.
    command.env("__LLVM_PROFILE_RT_INIT_ONCE", "__LLVM_PROFILE_RT_INIT_ONCE");
    let ending = Program::start(&mut command).finish();
    judge(&profiles);
    drop(profiles);
    oracle.nothing_left();
    ending
}

/// The files in the directory, empty ones too, each with its size.
fn entries(profiles: &Profiles) -> Vec<(String, u64)> {
    let entries = fs::read_dir(profiles.path()).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
        .collect()
}

#[test]
fn without_embed_a_deadly_signal_loses_everything() {
    for signal in ["raise:15", "raise:2", "raise:1", "raise:9"] {
        story(Some("p-%p.profraw"), &["calls:10", signal], |profiles| {
            assert_eq!(profiles.count(CALL), 0, "{signal}");
        });
    }
}

#[test]
fn without_embed_leaving_at_once_loses_everything() {
    story(Some("p-%p.profraw"), &["calls:10", "leave-at-once:0"], |profiles| {
        assert_eq!(profiles.count(CALL), 0);
    });
}

#[test]
fn without_embed_a_program_that_replaces_itself_loses_what_ran_before() {
    story(Some("p-%m.profraw"), &["calls:10", "bare-exec:calls:5,say:new"], |profiles| {
        assert_eq!(profiles.count(CALL), 5);
    });
}

#[test]
fn without_embed_an_abort_loses_everything() {
    story(Some("p-%m.profraw"), &["calls:10", "abort"], |profiles| {
        assert_eq!(profiles.count(CALL), 0);
    });
}

#[test]
fn without_embed_a_copy_appends_to_the_file_of_its_original() {
    let steps = ["calls:10", "fork:calls:1", "reap"];
    story(Some("p-%p.profraw"), &steps, |profiles| {
        let [file] = &profiles.files()[..] else { panic!("{:?}", profiles.files()) };
        let bytes = fs::read(file).unwrap();
        let magic = &bytes[..8];
        assert_eq!(bytes.windows(8).filter(|window| *window == magic).count(), 2);
    });
}

#[test]
fn a_process_that_a_signal_ends_leaves_no_empty_file_where_embed_handles_it() {
    let killed = |steps: &[&str]| {
        let mut sizes = Vec::new();
        let program = &builds().usual;
        let oracle = Oracle::begin();
        let profiles = Profiles::new();
        Program::start(profiles.command(program, "p-%p.profraw").args(steps)).finish();
        sizes.extend(entries(&profiles).into_iter().map(|(_, size)| size > 0));
        drop(profiles);
        oracle.nothing_left();
        sizes
    };
    assert_eq!(killed(&["calls:10", "raise:15"]), [false]);
    assert_eq!(killed(&["handle:15", "calls:10", "raise:15", "park"]), [true]);
}

#[test]
fn without_a_name_the_data_lands_in_the_current_directory() {
    story(None, &["calls:10"], |profiles| {
        let [(name, _)] = &entries(profiles)[..] else { panic!("{:?}", entries(profiles)) };
        assert!(name.starts_with("default_") && name.ends_with(".profraw"), "{name}");
    });
}

#[test]
fn without_embed_nobody_makes_the_directory_for_a_child() {
    let ending = story(Some("made/p-%p.profraw"), &["calls:10"], |profiles| {
        assert_eq!(entries(profiles), []);
    });
    assert!(ending.stderr.contains("No such file or directory"), "{ending}");
    let steps = ["handle:15", "calls:10"];
    let ending = story(Some("made/p-%p.profraw"), &steps, |profiles| {
        assert_eq!(profiles.count(CALL), 10);
    });
    assert_eq!(ending.code(), Some(0), "{ending}");
}

#[test]
fn continuous_mode_without_its_flag_is_an_error_and_loses_everything() {
    let ending = story(Some("p-%p%c.profraw"), &["calls:10"], |profiles| {
        assert_eq!(profiles.files(), [] as [PathBuf; 0]);
    });
    assert!(ending.stderr.contains("__llvm_profile_counter_bias"), "{ending}");
}

#[test]
fn in_continuous_mode_even_a_worker_that_is_killed_loses_nothing() {
    let program = &builds().pools;
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    for (pattern, files) in [("p-%p%c.profraw", 2), ("p-%m%c.profraw", 1)] {
        let profiles = Profiles::new();
        let ending = Program::start(profiles.command(program, pattern).arg("killed")).finish();
        assert_eq!((ending.code(), &*ending.stderr), (Some(0), ""), "{ending}");
        // Before the flush, and after it.
        assert_eq!((profiles.count("branch"), profiles.files().len()), (2, files), "{pattern}");
    }
    oracle.nothing_left();
}

fn guide() -> String {
    fs::read_to_string(Path::new(TESTS).join("../docs/coverage.md")).unwrap()
}

#[test]
fn each_piece_of_code_in_the_guide_is_part_of_a_program_that_is_tried() {
    let oracle = Oracle::begin(); // A file that is being read is a descriptor too many for others.
    let guide = guide();
    let recipes = Path::new(TESTS).join("fixtures/coverage_recipes");
    let files = ["src/lib.rs", "src/bin/daemon.rs", "src/bin/child.rs", "src/bin/service.rs"];
    let mut tried: String =
        files.iter().map(|file| fs::read_to_string(recipes.join(file)).unwrap()).collect();
    tried.push_str(include_str!("../examples/coverage/src/bin/textmill.rs"));
    tried.push_str(include_str!("../examples/coverage/tests/epilogue.rs"));
    let mut pieces = guide.split("```rust\n").skip(1).map(|rest| rest.split("```").next());
    let mut count = 0;
    while let Some(Some(piece)) = pieces.next() {
        assert!(tried.contains(piece), "no program has this:\n{piece}");
        count += 1;
    }
    assert!(count >= 4, "{count} pieces");
    oracle.nothing_left();
}

#[test]
fn each_test_that_the_guide_names_is_there() {
    let oracle = Oracle::begin();
    let guide = guide();
    let words = guide.split('`').filter(|word| word.contains("::") && !word.contains(' '));
    let mut count = 0;
    for (file, test) in words.filter_map(|word| word.split_once("::")) {
        let path = Path::new(TESTS).join(format!("{file}.rs"));
        let Ok(source) = fs::read_to_string(&path) else { continue };
        assert!(source.contains(&format!("#[test]\nfn {test}(")), "{file}::{test}");
        count += 1;
    }
    assert!(count >= 15, "{count} tests");
    oracle.nothing_left();
}
