//! However a program was built, and whoever the library's host is, a process starts by itself.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Uid;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use support::{Build, Ending, Oracle, Program, Watchdog, cargo_test, not_tried};

/// For what is built first, on a machine that has other things to do as well.
const PATIENCE: Duration = Duration::from_secs(1800);

fn run(program: &Path, role: &str) -> Ending {
    Program::start(Command::new(program).args(role.split_whitespace())).finish()
}

/// How often the program's `main` ran: a worker that gets there would be a second program.
fn mains(ending: &Ending) -> usize {
    ending.stdout.lines().filter(|line| *line == "main").count()
}

/// The program's `main` ran once and ended well.
#[track_caller]
fn assert_one_program(ending: &Ending) {
    assert!(ending.status.success(), "{ending}");
    assert_eq!(mains(ending), 1, "{ending}");
    assert_eq!(ending.stderr, "", "{ending}");
}

#[track_caller]
fn assert_worked(ending: &Ending) {
    assert_one_program(ending);
    assert!(ending.stdout.ends_with("hello bob\nsum 5\n"), "{ending}");
}

fn user(program: &str) -> Build {
    Build::program(program, "user").package("startup_user")
}

#[test]
fn the_tests_of_a_crate_that_never_heard_of_us_need_nothing() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let ending = Program::start(&mut cargo_test("startup_user")).finish();
    assert!(ending.status.success(), "{ending}");
    // Unit tests, the program's own, the integration test, the doc test.
    let results = ending.after("test result: ok. ");
    let passed: Vec<_> = results.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(passed, ["2", "0", "2", "1"], "{ending}");
    oracle.nothing_left();
}

#[test]
fn a_program_that_never_heard_of_us_uses_a_library_that_does() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let ending = run(&user("startup_user").build(), "");
    assert_one_program(&ending);
    assert_eq!(ending.after("letters "), ["7"], "{ending}");
    oracle.nothing_left();
}

#[test]
fn an_example_needs_nothing_in_main() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let ending = run(&user("startup_example").example().build(), "");
    assert_one_program(&ending);
    assert_eq!(ending.after("doubled "), ["42"], "{ending}");
    oracle.nothing_left();
}

#[test]
fn a_program_with_fat_lto_and_without_symbols_loses_one_task_to_a_panic_that_aborts() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    // What is a release otherwise; only what runs during the build is built as it is anyway.
    let mut build = Build::program("startup", "lto");
    for (key, value) in [
        ("lto", "\"fat\""),
        ("codegen-units", "1"),
        ("strip", "\"symbols\""),
        ("panic", "\"abort\""),
        ("debug", "false"),
        ("debug-assertions", "false"),
        // As much is inlined and folded, in less time.
        ("opt-level", "1"),
    ] {
        build = build.config(&format!("profile.dev.{key}={value}"));
    }
    let program = build.build();
    assert_worked(&run(&program, "work"));
    let ending = run(&program, "panic");
    assert!(ending.status.success() && mains(&ending) == 1, "{ending}");
    assert_eq!(ending.after("value "), ["0", "1", "3"], "{ending}");
    let [error] = ending.after("error ")[..] else { panic!("{ending}") };
    assert!(error.starts_with("worker pool-1 ") && error.contains("SIGABRT"), "{ending}");
    assert_eq!(ending.after("afterwards "), ["[2]"], "{ending}");
    oracle.nothing_left();
}

#[test]
fn a_statically_linked_program_needs_nothing_in_main() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let flag = "-Ctarget-feature=+crt-static";
    let program = Build::program("startup", "static").flag(flag).build();
    let interpreter = b"/ld-linux";
    let bytes = fs::read(&program).unwrap();
    assert!(!bytes.windows(interpreter.len()).any(|window| window == interpreter), "not static");
    assert_worked(&run(&program, "work"));
    let ending = run(&program, "nested");
    assert_eq!(ending.after("nested "), ["470"], "{ending}");
    // Its C library cannot close descriptors at the start, so the worker does.
    let ending = run(&program, "descriptors");
    assert_one_program(&ending);
    assert!(!ending.stdout.contains("/etc/passwd"), "{ending}");
    // Linux 5.4 has no call that closes many at once, and a filter may know none.
    for error in [Errno::ENOSYS, Errno::EPERM] {
        let ending = run_without(libc::SYS_close_range, error, &program, "descriptors");
        assert_one_program(&ending);
        assert!(!ending.after("process ").is_empty(), "{ending}");
        assert!(!ending.stdout.contains("/etc/passwd"), "{ending}");
    }
    oracle.nothing_left();
}

/// The same where one system call fails, in the program and in all that it starts.
fn run_without(call: i64, error: Errno, program: &Path, role: &str) -> Ending {
    let fail = SeccompAction::Errno(error as u32);
    let (rules, arch) = (BTreeMap::from([(call, Vec::new())]), env::consts::ARCH);
    let arch = TargetArch::try_from(arch).unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, fail, arch).unwrap();
    let filter = BpfProgram::try_from(filter).unwrap();
    // In a thread of its own: what it has done to itself ends with it.
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            seccompiler::apply_filter(&filter).unwrap();
            run(program, role)
        });
        run.join().unwrap()
    })
}

#[test]
fn a_program_whose_hook_did_not_run_is_told_of_init_and_never_runs_twice() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let program = Build::program("startup", "no_hook").flag("--cfg epilogue_no_hook").build();
    let ending = run(&program, "errors");
    assert_one_program(&ending);
    for who in ["process NoHook: ", "pool Worker(NoHook): ", "scope "] {
        let [error] = ending.after(who)[..] else { panic!("{who}: {ending}") };
        assert!(error.contains("epilogue::init()"), "{who}: {ending}");
    }
    for role in ["work", "nested"] {
        let mut command = Command::new(&program);
        let ending = Program::start(command.arg(role).env("STARTUP_INIT", "1")).finish();
        assert_one_program(&ending);
    }
    oracle.nothing_left();
}

#[test]
fn globals_of_cpp_have_their_values_in_a_worker_wherever_they_are_linked() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    if Command::new(compiler("CXX", "c++")).arg("--version").output().is_err() {
        not_tried("there is no C++ compiler");
        return oracle.nothing_left();
    }
    for (program, came_first) in [("globals_first", "false"), ("globals_last", "true")] {
        let build = Build::program(program, "globals").package("startup_globals").feature("cpp");
        let ending = run(&build.build(), "");
        assert!(ending.status.success(), "{program}: {ending}");
        assert_eq!(ending.after("here "), ["54"], "{program}: {ending}");
        assert_eq!(ending.after("process "), ["54"], "{program}: {ending}");
        assert_eq!(ending.after("pool "), ["[54]"], "{program}: {ending}");
        assert_eq!(ending.after("came first "), [came_first], "{program}: {ending}");
    }
    oracle.nothing_left();
}

fn compiler(variable: &str, usual: &str) -> std::ffi::OsString {
    env::var_os(variable).unwrap_or_else(|| usual.into())
}

/// Compiles C into `output`.
fn cc<A: AsRef<OsStr>>(output: &Path, arguments: impl IntoIterator<Item = A>) {
    let mut cc = Command::new(compiler("CC", "cc"));
    let made = cc.arg("-o").arg(output).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{cc:?}: {}\n{said}", made.status);
}

/// The C program of the fixture.
const HOST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/startup_native/host.c");

fn native(file: &str) -> PathBuf {
    Build::program(file, "native").package("startup_native").library().build()
}

/// A C program that never heard of us ran once, and its worker has nothing that it must not have.
#[track_caller]
fn assert_hosted(ending: &Ending, preload: Option<&str>) {
    assert_one_program(ending);
    assert_eq!(ending.after("square "), ["49"], "{ending}");
    let found = ending.after("worker ");
    let mut expected = vec![format!("preload {preload:?}")];
    expected.extend(preload.map(|path| format!("grandchild LD_PRELOAD={path}")));
    expected.push(format!("has the user's library {}", preload.is_some()));
    assert_eq!(found, expected, "{ending}");
}

#[test]
fn a_c_program_that_is_linked_with_an_archive_never_hears_of_us() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let directory = tempfile::tempdir().unwrap();
    let (archive, host) = (native("libstartup_native.a"), directory.path().join("host"));
    let libraries = ["-Wl,--gc-sections", "-lgcc_s", "-lpthread", "-ldl", "-lm"];
    let sources = [HOST, archive.to_str().unwrap()];
    cc(&host, sources.iter().chain(&libraries));
    assert_hosted(&run(&host, ""), None);
    oracle.nothing_left();
}

#[test]
fn a_c_program_that_is_linked_with_a_shared_object_never_hears_of_us() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let directory = tempfile::tempdir().unwrap();
    let (library, host) = (native("libstartup_native.so"), directory.path().join("host"));
    let path = format!("-Wl,-rpath,{}", library.parent().unwrap().display());
    cc(&host, [HOST, library.to_str().unwrap(), &path]);
    assert_hosted(&run(&host, ""), None);
    oracle.nothing_left();
}

/// Starts a program that is linked with a shared object, puts another object in the place of that, and
/// has the program go on.
fn run_replaced(other: &Path) -> Ending {
    let directory = tempfile::tempdir().unwrap();
    let (host, library) = (directory.path().join("host"), directory.path().join("native.so"));
    fs::copy(native("libstartup_native.so"), &library).unwrap();
    cc(&host, [HOST, library.to_str().unwrap()]);
    let mut program = Program::start(Command::new(&host).arg("later"));
    program.wait_for_line("main");
    let fresh = directory.path().join("fresh.so");
    fs::copy(other, &fresh).unwrap();
    // Not deleted: who has no rights could not open it any more.
    fs::rename(&library, directory.path().join("moved.so")).unwrap();
    fs::rename(&fresh, &library).unwrap();
    program.tell("go on");
    program.finish()
}

#[test]
fn a_child_into_which_another_build_of_the_shared_object_is_loaded_is_refused() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let directory = tempfile::tempdir().unwrap();
    // The same code, linked differently.
    let (archive, other) = (native("libstartup_native.a"), directory.path().join("other.so"));
    let whole = ["-shared", "-Wl,--whole-archive", archive.to_str().unwrap()];
    let libraries = ["-Wl,--no-whole-archive", "-lgcc_s", "-lpthread", "-ldl", "-lm"];
    cc(&other, whole.iter().chain(&libraries));
    let ending = run_replaced(&other);
    assert_one_program(&ending);
    let told = "the child could not start: the child runs another build of this program";
    assert_eq!(ending.after("error "), [told], "{ending}");
    drop(directory);
    oracle.nothing_left();
}

/// A C program that loads a shared object, and that object, in a directory of an awkward name.
struct Loading {
    directory: tempfile::TempDir,
    folder: PathBuf,
    host: PathBuf,
}

impl Loading {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("a b:c");
        fs::create_dir(&folder).unwrap();
        // For anybody: see `unprivileged`.
        for path in [directory.path(), &folder] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        fs::copy(native("libstartup_native.so"), folder.join("native.so")).unwrap();
        let host = folder.join("host");
        cc(&host, ["-DLOAD", HOST, "-ldl"]);
        Self { directory, folder, host }
    }

    fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(&self.host);
        command.current_dir(&self.folder).args(arguments);
        command
    }

    /// The same for who has no rights: only the privileged can open a file that was deleted.
    fn unprivileged<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.command(arguments);
        if Uid::effective().is_root() {
            command.uid(65534).gid(65534);
        }
        command
    }
}

#[test]
fn a_c_program_that_loads_a_shared_object_never_hears_of_us() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let loading = Loading::new();
    let ending = Program::start(&mut loading.command(["./native.so"])).finish();
    assert_hosted(&ending, None);
    // The path that it was loaded by leads nowhere any more.
    let ending = Program::start(&mut loading.command(["./native.so", "/"])).finish();
    assert_hosted(&ending, None);
    let ending = Program::start(&mut loading.unprivileged(["./native.so", "/"])).finish();
    assert_hosted(&ending, None);
    oracle.nothing_left();
}

#[test]
fn a_shared_object_that_was_deleted_starts_workers_or_says_why_not() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let loading = Loading::new();
    let library = loading.folder.join("native.so");
    let arguments = ["./native.so".as_ref(), "/".as_ref(), library.as_os_str()];
    if Uid::effective().is_root() {
        let copy = fs::read(&library).unwrap();
        assert_hosted(&Program::start(&mut loading.command(arguments)).finish(), None);
        fs::write(&library, copy).unwrap();
    } else {
        not_tried("only root can open a library that was deleted");
    }
    let ending = Program::start(&mut loading.unprivileged(arguments)).finish();
    assert_one_program(&ending);
    let [error] = ending.after("error ")[..] else { panic!("{ending}") };
    assert!(error.starts_with("opening the library that holds epilogue failed"), "{ending}");
    oracle.nothing_left();
}

#[test]
fn what_the_user_preloads_is_in_the_worker_and_in_what_it_starts() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let loading = Loading::new();
    let source = loading.folder.join("preloaded.c");
    fs::write(&source, "int startup_preloaded;\n").unwrap();
    // No blank and no colon here: the loader would split the path.
    let preloaded = loading.directory.path().join("startup_preloaded.so");
    cc(&preloaded, ["-shared", "-fPIC", source.to_str().unwrap()]);
    let mut command = loading.command(["./native.so"]);
    let ending = Program::start(command.env("LD_PRELOAD", &preloaded)).finish();
    assert_hosted(&ending, preloaded.to_str());
    // The builder has the last word, on none as well as on another.
    let ending = Program::start(command.env("STARTUP_PRELOAD", "")).finish();
    assert_hosted(&ending, None);
    let mut command = loading.command(["./native.so"]);
    let ending = Program::start(command.env("STARTUP_PRELOAD", &preloaded)).finish();
    assert_hosted(&ending, preloaded.to_str());
    oracle.nothing_left();
}
