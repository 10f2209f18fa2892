//! What a process starts itself is its user's, or ends with it if that was asked for: in a cgroup
//! where one may be made, else in a process group, and the end says which. Processes that start
//! processes end with whichever of them is killed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use epilogue::{JoinError, Mechanism, Process, Rung, embed, scope, wait_all};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, setuid};
use serde::{Deserialize, Serialize};
use support::{Gate, Oracle, await_end, begin, not_tried, park_for_ever, procfs, stop};

/// By when all must have ended that nobody waits for.
const BOUND: Duration = Duration::from_secs(20);

/// What a process starts, by a script of the shell's that says its pid when it is ready.
#[derive(Debug, Clone, Copy)]
enum Grandchild {
    Plain,
    /// Ignores `SIGTERM`.
    Deaf,
    /// In a session, and so in a process group, of its own.
    Session,
    /// Both.
    DeafSession,
    /// Starts another in its place and ends, again and again; all ignore `SIGTERM`.
    ForksOn,
}

use Grandchild::{Deaf, DeafSession, ForksOn, Plain, Session};

impl Grandchild {
    fn command(self) -> Command {
        const SLEEP: &str = "echo $$; exec sleep 1000";
        const DEAF: &str = "trap '' TERM; echo $$; exec sleep 1000";
        // It ends by itself some day, in case a test fails.
        const NEXT: &str = "[ $N -gt 0 ] && N=$((N-1)) sh -c \"$NEXT\" & exit";
        let (program, arguments) = match self {
            Plain => ("sh", vec!["-c", SLEEP]),
            Deaf => ("sh", vec!["-c", DEAF]),
            Session => ("setsid", vec!["sh", "-c", SLEEP]),
            DeafSession => ("setsid", vec!["sh", "-c", DEAF]),
            ForksOn => ("sh", vec!["-c", "trap '' TERM; echo $$; eval \"$NEXT\""]),
        };
        let mut command = Command::new(program);
        command.args(arguments).env("NEXT", NEXT).env("N", "20000");
        command
    }

    fn start(self) -> i32 {
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let stdout = command.spawn().unwrap().stdout.unwrap();
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        line.trim().parse().unwrap()
    }

    const ALL: [Self; 5] = [Plain, Deaf, Session, DeafSession, ForksOn];
}

fn start_all(numbers: &[usize]) -> Vec<i32> {
    numbers.iter().map(|&number| Grandchild::ALL[number].start()).collect()
}

fn numbers(grandchildren: &[Grandchild]) -> Vec<usize> {
    grandchildren.iter().map(|&one| one as usize).collect()
}

/// Those below us that have not ended. What has, waits for us to reap it.
fn running(oracle: &Oracle) -> Vec<procfs::Entry> {
    let mut processes = oracle.leftovers().processes;
    processes.retain(|process| !matches!(process.state, 'Z' | 'X'));
    processes
}

/// Which mechanism held, how many were left, how many were killed.
type Told = (bool, usize, usize);

/// A process that starts these and returns; what its end tells of them.
fn fell(numbers: Vec<usize>) -> Told {
    let builder = Process::builder().end_tree().grace_period(Duration::from_secs(3));
    let process = builder.start(numbers, |numbers| start_all(&numbers)).unwrap();
    await_end(&process);
    let tree = process.terminate().unwrap().tree.unwrap();
    (tree.mechanism == Mechanism::Cgroup, tree.left, tree.killed)
}

/// The same by nobody, who may make no cgroup.
fn fell_as_nobody(numbers: Vec<usize>) -> Told {
    let process = Process::start(numbers, |numbers| {
        if Uid::effective().is_root() {
            setuid(Uid::from_raw(65534)).unwrap();
        }
        fell(numbers)
    });
    process.unwrap().join().unwrap()
}

/// Tells the same story with both mechanisms; `story` is given how to start and whether nothing
/// escapes, if that mechanism is there.
#[track_caller]
fn with_both(story: impl Fn(&Oracle, fn(Vec<usize>) -> Told, bool)) {
    let (oracle, _watchdog) = begin();
    for (fell, wanted) in [(fell as fn(Vec<usize>) -> Told, true), (fell_as_nobody, false)] {
        let (is_cgroup, ..) = fell(Vec::new());
        if is_cgroup != wanted {
            let which = if wanted { "a cgroup" } else { "a process group" };
            not_tried(format!("{which}, which this user on this machine does not get"));
            continue;
        }
        story(&oracle, fell, is_cgroup);
        let left = running(&oracle);
        assert!(left.is_empty(), "cgroup: {is_cgroup}, left: {left:#?}");
        oracle.orphans_end_within(BOUND);
    }
    oracle.nothing_left();
}

#[test]
fn where_nothing_was_started_nothing_is_told() {
    with_both(|_, fell, is_cgroup| assert_eq!(fell(vec![]), (is_cgroup, 0, 0)));
}

#[test]
fn a_process_that_cleans_up_and_goes_on_ends_its_tree_and_tells_of_all_finalizers_at_its_end() {
    let (oracle, _watchdog) = begin();
    let process = Process::builder().end_tree().start((), |()| {
        embed::finalizer("early", || ());
        assert_eq!(embed::cleanup().finalizers().len(), 1);
        embed::finalizer("late", || ());
        Plain.start()
    });
    let process = process.unwrap();
    await_end(&process);
    let end = process.terminate().unwrap();
    let names: Vec<_> = end.finalizers.unwrap().into_iter().map(|ran| ran.name).collect();
    assert_eq!(names, ["early", "late"]);
    let tree = end.tree.unwrap();
    assert_eq!((tree.left, tree.killed), (1, 0));
    assert!(running(&oracle).is_empty(), "{:#?}", running(&oracle));
    oracle.orphans_end_within(BOUND);
    oracle.nothing_left();
}

#[test]
fn a_process_whose_finalizers_have_no_time_still_ends_its_tree_and_tells_that_they_were_skipped() {
    let (oracle, _watchdog) = begin();
    let process = Process::builder().end_tree().start((), |()| {
        embed::finalizer("skipped", || ());
        embed::set_deadline(Duration::ZERO);
        Plain.start()
    });
    let process = process.unwrap();
    await_end(&process);
    let end = process.terminate().unwrap();
    assert_eq!(end.tree.unwrap().left, 1);
    let [finalizer] = &end.finalizers.unwrap()[..] else { panic!("one was registered") };
    assert!(finalizer.name == "skipped" && finalizer.failure.is_some(), "{finalizer:?}");
    assert!(running(&oracle).is_empty(), "{:#?}", running(&oracle));
    oracle.orphans_end_within(BOUND);
    oracle.nothing_left();
}

#[test]
fn grandchildren_are_asked_to_end_with_the_process() {
    with_both(|_, fell, is_cgroup| {
        assert_eq!(fell(numbers(&[Plain; 3])), (is_cgroup, 3, 0));
    });
}

#[test]
fn one_that_is_deaf_is_killed_and_the_others_are_not() {
    with_both(|_, fell, is_cgroup| {
        assert_eq!(fell(numbers(&[Plain, Deaf, Plain])), (is_cgroup, 3, 1));
    });
}

#[test]
fn one_that_forks_on_cannot_get_away() {
    with_both(|_, fell, is_cgroup| {
        let (found, ..) = fell(numbers(&[ForksOn]));
        assert_eq!(found, is_cgroup);
    });
}

#[test]
fn one_in_a_session_of_its_own_escapes_a_process_group_but_no_cgroup() {
    with_both(|oracle, fell, is_cgroup| {
        let told = fell(numbers(&[Session, DeafSession, Plain]));
        match is_cgroup {
            true => assert_eq!(told, (true, 3, 1)),
            false => {
                assert_eq!(told, (false, 1, 0));
                let escaped = running(oracle);
                assert_eq!(escaped.len(), 2, "{escaped:#?}");
                for process in escaped {
                    kill(process.pid, Signal::SIGKILL).unwrap();
                }
                oracle.orphans_end_within(BOUND);
            }
        }
    });
}

#[test]
fn a_tree_ends_however_its_process_does() {
    let (oracle, _watchdog) = begin();
    let start = |gate: &mut Gate| {
        let builder = Process::builder().end_tree().grace_period(Duration::from_secs(20));
        let argument = (gate.path(), numbers(&[Plain]));
        let process =
            builder.limit_core(0).start(argument, |(gate, numbers): (PathBuf, Vec<_>)| {
                start_all(&numbers);
                Gate::pass(&gate);
                std::process::abort()
            });
        gate.wait();
        process.unwrap()
    };
    let mut gate = Gate::new();
    let nothing_runs = || assert!(running(&oracle).is_empty(), "{:#?}", running(&oracle));
    let mut told = Vec::new();
    let process: Process<()> = start(&mut gate);
    assert_eq!(running(&oracle).len(), 2);
    told.push(process.kill().unwrap());
    nothing_runs();
    let process: Process<()> = start(&mut gate);
    told.push(process.terminate().unwrap());
    nothing_runs();
    for end in told {
        let tree = end.tree.unwrap();
        assert_eq!((tree.left, tree.killed), (1, 0), "{end:?}");
    }
    let process: Process<()> = start(&mut gate);
    gate.open_once();
    let aborted = process.join();
    assert!(matches!(aborted, Err(JoinError::Signaled { signal: 6, .. })), "{aborted:?}");
    nothing_runs();
    let process: Process<()> = start(&mut gate);
    gate.open_once();
    drop(process);
    nothing_runs();
    let scoped = scope(|s| {
        let builder = Process::builder().end_tree();
        let pids = s.start_with(builder, numbers(&[Plain, Plain]), |all| start_all(&all)).unwrap();
        pids.join().unwrap()
    });
    assert_eq!(scoped.len(), 2);
    nothing_runs();
    drop(gate);
    oracle.nothing_left_within(BOUND);
}

#[test]
fn what_a_process_left_behind_blocks_nobody_who_does_not_wait_for_it() {
    let (oracle, _watchdog) = begin();
    // Long: by far not all of it goes by.
    let builder = Process::builder().end_tree().limit_core(0).grace_period(Duration::from_secs(20));
    let process = builder.start((), |()| -> u8 {
        Deaf.start();
        std::process::abort()
    });
    let mut process = process.unwrap();
    await_end(&process);
    assert!(!process.is_finished());
    assert_eq!(process.try_join().unwrap(), None);
    let [deaf] = &running(&oracle)[..] else { panic!("{:#?}", running(&oracle)) };
    kill(deaf.pid, Signal::SIGKILL).unwrap();
    assert!(matches!(process.join(), Err(JoinError::Signaled { signal: 6, .. })));
    oracle.nothing_left_within(BOUND);
}

#[test]
fn one_that_has_ended_climbs_no_further_up_the_ladder_while_what_it_left_behind_does_not() {
    let (oracle, _watchdog) = begin();
    // From its answer on it has as long to leave.
    let builder = Process::builder().end_tree().limit_core(0).grace_period(Duration::from_secs(1));
    let process = builder.start((), |()| {
        Deaf.start();
        embed::finalizer("crash", || std::process::abort());
    });
    let process = process.unwrap();
    wait_all(&[&process]);
    let end = process.terminate().unwrap();
    assert_eq!((end.rung, end.status.signal()), (Rung::Finish, Some(6)), "{end:?}");
    let tree = end.tree.unwrap();
    assert_eq!((tree.left, tree.killed), (1, 1));
    oracle.nothing_left_within(BOUND);
}

/// A process that starts these, and is killed by one who may open nothing any more.
fn fell_without_descriptors((numbers, is_nobody): (Vec<usize>, bool)) -> Told {
    if is_nobody && Uid::effective().is_root() {
        setuid(Uid::from_raw(65534)).unwrap();
    }
    let mut gate = Gate::new();
    let builder = Process::builder().end_tree().grace_period(Duration::from_secs(3));
    let argument = (gate.path(), numbers);
    let process = builder.start(argument, |(gate, numbers): (PathBuf, Vec<_>)| {
        start_all(&numbers);
        Gate::pass(&gate);
    });
    let process = process.unwrap();
    gate.wait();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
    let end = process.kill();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    let tree = end.unwrap().tree.unwrap();
    (tree.mechanism == Mechanism::Cgroup, tree.left, tree.killed)
}

#[test]
fn a_tree_is_asked_and_told_of_also_by_a_program_that_may_open_nothing_any_more() {
    let (oracle, _watchdog) = begin();
    for is_nobody in [false, true] {
        for (grandchildren, killed) in [(&[Plain; 2], 0), (&[Plain, Deaf], 1)] {
            let argument = (numbers(grandchildren), is_nobody);
            let program = Process::start(argument, fell_without_descriptors).unwrap();
            let (_, left, told) = program.join().unwrap();
            assert_eq!((left, told), (2, killed), "as nobody: {is_nobody}");
            assert!(running(&oracle).is_empty(), "{:#?}", running(&oracle));
            oracle.orphans_end_within(BOUND);
        }
    }
    oracle.nothing_left();
}

/// How many cgroups there are beside ours that the process `maker` made.
fn cgroups_of(maker: u32) -> usize {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or("").to_owned();
    let below = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .flat_map(|root| fs::read_dir(PathBuf::from(root).join(&path)).ok());
    let names = below.flatten().flatten().map(|entry| entry.file_name());
    let prefix = format!("epilogue-{maker}-");
    names.filter(|name| name.to_string_lossy().starts_with(&prefix)).count()
}

#[test]
fn no_cgroup_is_left_of_a_tree() {
    let (oracle, _watchdog) = begin();
    let here = || cgroups_of(std::process::id());
    let builder = Process::builder().end_tree();
    let never = builder.clone().start((), |()| -> u8 { park_for_ever() }).unwrap();
    let made = here();
    let end = never.kill().unwrap();
    assert_eq!(made, usize::from(end.tree.unwrap().mechanism == Mechanism::Cgroup));
    let refused = builder.current_dir("/nowhere").start((), |()| ());
    assert!(refused.is_err());
    assert_eq!(here(), 0);
    oracle.nothing_left();
}

#[test]
fn what_a_process_starts_is_its_users_by_default() {
    let (oracle, _watchdog) = begin();
    let process = Process::start(numbers(&[Plain, Deaf]), |all| start_all(&all)).unwrap();
    let pids = process.join().unwrap();
    let left: Vec<_> = running(&oracle).iter().map(|process| process.pid.as_raw()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    for pid in pids {
        assert!(left.contains(&pid), "{pid} of {left:?}");
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    oracle.nothing_left_within(BOUND);
}

/// What becomes of a process once it has passed the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Then {
    Parks,
    /// It starts another grandchild, again and again.
    GoesOn,
    /// Its finalizers never come to an end.
    Hangs,
    /// It returns, and what it does outside the deadline then never comes to an end.
    HangsAsItExits,
    /// Its finalizers have no time at all.
    HasNoTime,
    Returns,
}

/// A program whose process starts these, and stands at the gate.
fn family(
    gate: &mut Gate,
    grandchildren: &[Grandchild],
    as_nobody: bool,
    then: Then,
    grace_period: Duration,
) -> (Process<()>, Pid) {
    if as_nobody {
        gate.admit_everybody();
    }
    let argument = ((gate.path(), numbers(grandchildren), then), as_nobody, grace_period);
    let program = Process::start(argument, |(argument, as_nobody, grace_period)| {
        if as_nobody && Uid::effective().is_root() {
            setuid(Uid::from_raw(65534)).unwrap();
        }
        let builder = Process::builder().end_tree().grace_period(grace_period);
        let process = builder.start(argument, |(gate, numbers, then): (PathBuf, Vec<_>, Then)| {
            start_all(&numbers);
            if then == Then::GoesOn {
                thread::spawn(|| {
                    loop {
                        // Once it ends, that is refused.
                        drop(Command::new("sleep").arg("1000").spawn());
                    }
                });
            }
            match then {
                Then::Hangs => _ = embed::finalizer("hangs", || park_for_ever()),
                Then::HangsAsItExits => {
                    // Nobody opens it.
                    _ = embed::ending::register("hangs", move |_| Gate::pass(&gate));
                    return;
                }
                Then::HasNoTime => embed::set_deadline(Duration::ZERO),
                Then::Parks | Then::GoesOn | Then::Returns => {}
            }
            Gate::pass(&gate);
            if matches!(then, Then::Parks | Then::Hangs | Then::HasNoTime) {
                park_for_ever()
            }
        });
        process.unwrap().join().unwrap();
    });
    (program.unwrap(), gate.wait())
}

/// A program whose process starts these, and is then killed.
fn parent_is_killed(grandchildren: &[Grandchild], as_nobody: bool, then: Then) -> u32 {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let grace_period = match then {
        // Most of it goes by.
        Then::Hangs | Then::HangsAsItExits => Duration::from_secs(5),
        _ => Duration::from_secs(12),
    };
    let (program, _) = family(&mut gate, grandchildren, as_nobody, then, grace_period);
    let id = program.id();
    let end = program.kill().unwrap();
    assert_eq!(end.rung, Rung::Kill);
    oracle.orphans_end_within(BOUND);
    drop(gate);
    oracle.nothing_left();
    id
}

#[test]
fn a_tree_ends_when_the_parent_of_its_process_is_killed() {
    for as_nobody in [false, true] {
        parent_is_killed(&[Plain, Plain], as_nobody, Then::Parks);
        parent_is_killed(&[Plain, Deaf], as_nobody, Then::Parks);
    }
}

#[test]
fn a_tree_ends_although_the_finalizers_of_its_orphaned_process_do_not_come_to_that() {
    for then in [Then::Hangs, Then::HangsAsItExits, Then::HasNoTime] {
        parent_is_killed(&[Plain, Deaf], false, then);
    }
}

#[test]
fn one_that_closes_its_wire_is_not_alone() {
    let (oracle, _watchdog) = begin();
    for builder in [Process::builder(), Process::builder().end_tree()] {
        let process: Process<()> = builder
            .start((), |()| {
                (3..64).for_each(|fd| _ = nix::unistd::close(fd));
                // Under its number there is something else now that has hung up.
                let (_end, _) = nix::unistd::pipe().unwrap();
                std::process::exit(7)
            })
            .unwrap();
        // Its watcher may see that the wire has hung up before it has left, and leaves then itself.
        let ended = process.join();
        assert!(matches!(ended, Err(JoinError::Exited(7 | 0))), "{ended:?}");
    }
    oracle.nothing_left();
}

#[test]
fn what_is_started_up_to_the_last_moment_ends_as_well_when_the_parent_is_killed() {
    for as_nobody in [false, true] {
        (0..5).for_each(|_| _ = parent_is_killed(&[], as_nobody, Then::GoesOn));
    }
}

#[test]
fn a_process_ends_its_tree_itself_so_nothing_is_left_to_a_parent_that_is_killed_before_it_looks() {
    for as_nobody in [false, true] {
        let (oracle, _watchdog) = begin();
        let mut gate = Gate::new();
        let (then, grace_period) = (Then::Returns, Duration::from_secs(3));
        let (program, process) = family(&mut gate, &[Plain, Deaf], as_nobody, then, grace_period);
        let parent = Pid::from_raw(program.id().cast_signed());
        // It will not look.
        stop(parent);
        gate.open_once();
        while procfs::descendants_of(parent).iter().any(|it| it.pid == process && it.state != 'Z') {
            std::thread::yield_now();
        }
        let left: Vec<_> = running(&oracle).iter().map(|process| process.pid).collect();
        assert_eq!(left, [parent], "as nobody: {as_nobody}");
        program.kill().unwrap();
        oracle.orphans_end_within(BOUND);
        drop(gate);
        oracle.nothing_left();
    }
}

#[test]
fn what_left_the_group_ends_in_its_cgroup_when_the_parent_is_killed() {
    let (oracle, watchdog) = begin();
    let (is_cgroup, ..) = fell(Vec::new());
    oracle.nothing_left();
    drop((watchdog, oracle));
    if is_cgroup {
        let killed = parent_is_killed(&[Session, DeafSession], false, Then::Parks);
        // The killed one could not remove its cgroup. The next to make one does.
        let (oracle, _watchdog) = begin();
        fell(Vec::new());
        assert_eq!(cgroups_of(killed), 0);
        oracle.nothing_left();
    } else {
        not_tried("a cgroup, which this user on this machine does not get");
    }
}

/// A chain of processes, each the child of the one before: all stand at the gate.
fn descend((depth, gate): (u32, PathBuf)) -> u32 {
    if depth > 0 {
        let argument = (depth - 1, gate.clone());
        let below = Process::start(argument, descend).unwrap();
        Gate::pass(&gate);
        return below.join().unwrap_or(0) + 1;
    }
    Gate::pass(&gate);
    park_for_ever()
}

#[test]
fn all_below_end_when_any_level_is_killed() {
    const LEVELS: u32 = 4;
    for level in 0..LEVELS as usize {
        let (oracle, _watchdog) = begin();
        let mut gate = Gate::new();
        let top = Process::start((LEVELS - 1, gate.path()), descend).unwrap();
        gate.wait_for(LEVELS as usize);
        // In the order of their ages: parents come before children.
        let family = procfs::descendants_of(Pid::this());
        assert_eq!(family.len(), LEVELS as usize);
        assert_eq!(family[0].pid.as_raw() as u32, top.id());
        kill(family[level].pid, Signal::SIGKILL).unwrap();
        gate.open_once();
        drop(gate);
        let outcome = top.join();
        match level {
            0 => assert!(matches!(outcome, Err(JoinError::Signaled { signal: 9, .. }))),
            _ => assert_eq!(outcome.unwrap(), level as u32),
        }
        oracle.nothing_left_within(BOUND);
    }
}
