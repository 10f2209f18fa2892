//! A sandbox of which the kernel enforces less than all says so, and one that is required is refused.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use epilogue::{
    BuildError, Enforcement, Pool, Process, Sandbox, SandboxLevel, StartError, StartMethod,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use support::{Program, begin, landlock_is_whole, landlock_says, landlock_version, not_tried};

/// Makes one system call fail here, and in all that this process starts.
fn without(call: i64) {
    let rules = BTreeMap::from([(call, Vec::new())]);
    let fail = SeccompAction::Errno(nix::libc::ENOSYS as u32);
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, fail, arch).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

/// What is told of the sandbox of a process that reads a file, and whether it could; or the refusal.
type Told = Result<(SandboxLevel, bool), String>;

fn level_of_reader(sandbox: Sandbox) -> Told {
    level_of_reader_by(StartMethod::Spawn, sandbox)
}

fn level_of_reader_by(method: StartMethod, sandbox: Sandbox) -> Told {
    let builder = Process::builder().start_method(method).sandbox(sandbox);
    match builder.start((), |()| fs::read("/etc/passwd").is_ok()) {
        Ok(process) => Ok((process.sandbox().unwrap().clone(), process.join().unwrap())),
        Err(StartError::Refused(refusal)) => Err(refusal.to_string()),
        Err(other) => panic!("{other}"),
    }
}

/// What a process is told of its sandbox where the kernel does not have that call.
fn level_without((call, sandbox): (i64, Sandbox)) -> Result<(String, String), String> {
    without(call);
    let (SandboxLevel { landlock, seccomp, .. }, _) = level_of_reader(sandbox)?;
    Ok((format!("{landlock:?}"), format!("{seccomp:?}")))
}

/// What is told of a sandbox that is required where the kernel does not have that call: of a process that a
/// server forks, and of pools whose workers are started either way.
fn refused_without((call, sandbox): (i64, Sandbox)) -> Vec<String> {
    without(call);
    let pool = |method| {
        let builder = Pool::builder().workers(2).start_method(method).sandbox(sandbox.clone());
        match builder.start() {
            Ok(_) => "a pool that starts".to_owned(),
            Err(BuildError::Worker(StartError::Refused(refusal))) => refusal.to_string(),
            Err(other) => panic!("{other}"),
        }
    };
    let pools = [StartMethod::Spawn, StartMethod::Server].map(pool);
    let process = level_of_reader_by(StartMethod::Server, sandbox);
    let process = process.map_or_else(|refusal| refusal, |level| format!("{level:?}"));
    pools.into_iter().chain([process]).collect()
}

#[test]
fn a_required_sandbox_that_cannot_be_had_starts_no_pool_and_no_process_of_a_server() {
    let (oracle, _watchdog) = begin();
    let whole = Sandbox::new().confine().compute_only().required();
    let layers = [
        (nix::libc::SYS_landlock_create_ruleset, "confining the process by Landlock failed"),
        (nix::libc::SYS_seccomp, "filtering system calls by seccomp failed"),
    ];
    // Where the first layer is refused anyway, nobody comes to the second.
    let here = if landlock_is_whole() { &layers[..] } else { &layers[..1] };
    for &(call, refusal) in here {
        let told = Process::start((call, whole.clone()), refused_without).unwrap().join().unwrap();
        assert_eq!(told.len(), 3);
        assert!(told.iter().all(|told| told.starts_with(refusal)), "{told:?}");
    }
    oracle.nothing_left();
}

#[test]
fn where_the_kernel_lacks_a_layer_a_sandbox_that_is_required_is_refused_and_any_other_says_so() {
    let (oracle, _watchdog) = begin();
    let ask =
        |call, sandbox| Process::start((call, sandbox), level_without).unwrap().join().unwrap();
    let whole = Sandbox::new().confine().compute_only();

    let landlock = nix::libc::SYS_landlock_create_ruleset;
    let (confined, filtered) = ask(landlock, whole.clone()).unwrap();
    assert!(confined.starts_with("Absent"), "{confined}");
    assert_eq!(filtered, "Full");
    let refusal = ask(landlock, whole.clone().required()).unwrap_err();
    assert!(refusal.starts_with("confining the process by Landlock failed"), "{refusal}");

    if !landlock_is_whole() {
        return oracle.nothing_left();
    }
    let seccomp = nix::libc::SYS_seccomp;
    let (confined, filtered) = ask(seccomp, whole.clone()).unwrap();
    assert_eq!(confined, "Full");
    assert!(filtered.starts_with("Absent"), "{filtered}");
    let refusal = ask(seccomp, whole.required()).unwrap_err();
    assert!(refusal.starts_with("filtering system calls by seccomp failed"), "{refusal}");
    oracle.nothing_left();
}

/// What is told of one by wish and of one by demand where the kernel says that its Landlock is of that
/// version: why it cannot be had say so, if it cannot.
fn levels_by(version: i64) -> Result<[Told; 2], String> {
    landlock_says(version).map_err(|error| error.to_string())?;
    // Else the tests would not know either.
    assert_eq!(landlock_version(), version);
    let confined = Sandbox::new().confine();
    Ok([level_of_reader(confined.clone()), level_of_reader(confined.required())])
}

#[test]
fn where_landlock_is_too_old_a_sandbox_is_partial_and_one_that_is_required_is_refused() {
    const MISSING: &str = "the kernel's Landlock is older than Linux 6.12";
    let (oracle, _watchdog) = begin();
    // What the kernel does not have it cannot pretend to have.
    let newest = if landlock_is_whole() { 6 } else { landlock_version() };
    for version in 1..=newest {
        let levels = match Process::start(version, levels_by).unwrap().join().unwrap() {
            Ok(levels) => levels,
            Err(error) => {
                not_tried(format!("nobody may answer for the kernel here: {error}"));
                break;
            }
        };
        let [level, required] = levels;
        let (level, could_read) = level.unwrap();
        // What there is holds, however old.
        assert!(!could_read, "version {version}");
        if version == 6 {
            assert_eq!(level.landlock, Enforcement::Full);
            assert!(level.is_full() && !required.unwrap().1);
        } else {
            assert_eq!(level.landlock, Enforcement::Partial(MISSING.to_owned()), "{version}");
            assert!(!level.is_full());
            let refusal = required.unwrap_err();
            assert!(refusal.starts_with("confining the process by Landlock failed"), "{refusal}");
            assert!(refusal.ends_with(MISSING), "{refusal}");
        }
    }
    oracle.nothing_left();
}

#[test]
fn where_a_constructor_has_a_thread_a_sandbox_is_partial_and_one_that_is_required_is_refused() {
    const MISSING: &str = "a thread that a constructor started is not confined";
    let (oracle, _watchdog) = begin();
    if !landlock_is_whole() {
        return oracle.nothing_left();
    }
    let confined = |constructor: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_startup"));
        Program::start(program.args(["confined", constructor])).finish()
    };
    let ending = confined("nothing");
    if let [why] = ending.after("not tried: ")[..] {
        not_tried(why);
        return oracle.nothing_left();
    }
    let whole = ["Full, which may read: false"; 2];
    assert_eq!(ending.after("sandbox "), whole, "{ending}");
    let ending = confined("thread");
    let [level, refusal] = ending.after("sandbox ")[..] else { panic!("{ending}") };
    assert_eq!(level, format!("Partial({MISSING:?}), which may read: false"), "{ending}");
    assert!(refusal.starts_with("refused: ") && refusal.ends_with(MISSING), "{ending}");
    oracle.nothing_left();
}
