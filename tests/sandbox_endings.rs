//! A process in a sandbox ends as well as any other: its finalizers run and are told of, whoever
//! ends it, and the kernel ends what resists.

use std::process::Command;
use std::time::Duration;

use epilogue::{Process, Rung, Sandbox, StartMethod, channel, embed, wait_any};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Marks, Oracle, Program, Watchdog, begin, hooks, landlock_is_whole, park_for_ever};

const METHODS: [StartMethod; 2] = [StartMethod::Spawn, StartMethod::Server];

fn program(story: &str, marks: &Marks) -> Command {
    let (name, directory) = marks.variable();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox_story"));
    command.arg(story).env(name, directory);
    command
}

/// How a process that runs for ever is ended from outside.
#[derive(Debug, Clone, Copy)]
enum Means {
    Terminate,
    Sigterm,
    Close,
}

#[test]
fn the_finalizers_of_a_process_that_only_computes_run_and_are_told_of_however_it_is_ended() {
    let (oracle, _watchdog) = begin();
    if !landlock_is_whole() {
        return oracle.nothing_left();
    }
    for method in METHODS {
        for means in [Means::Terminate, Means::Sigterm, Means::Close] {
            let (sender, receiver) = channel::<String>().unwrap();
            let sandbox = Sandbox::new().confine().compute_only().required();
            let builder = Process::builder().start_method(method).sandbox(sandbox);
            let process = builder
                .start((sender, matches!(means, Means::Close)), |(sender, returns)| {
                    let last = sender.clone();
                    embed::finalizer("say", move || last.send("bye".to_owned()).unwrap());
                    sender.send("ready".to_owned()).unwrap();
                    if !returns {
                        park_for_ever();
                    }
                })
                .unwrap();
            assert_eq!(receiver.recv().unwrap(), "ready");
            match means {
                Means::Terminate | Means::Close => {}
                Means::Sigterm => {
                    kill(Pid::from_raw(process.id().cast_signed()), Signal::SIGTERM).unwrap();
                }
            }
            if !matches!(means, Means::Terminate) {
                wait_any(&[&process]);
            }
            // Of one that has ended it tells how.
            let end = process.terminate().unwrap();
            assert_eq!(receiver.recv().unwrap(), "bye");
            let names: Vec<_> = end.finalizers.unwrap().into_iter().map(|it| it.name).collect();
            assert!(names.contains(&"say".to_owned()), "{method:?} {means:?} {names:?}");
            let expected = match means {
                Means::Terminate => (Rung::Stop, None),
                Means::Sigterm => (Rung::Finish, Some(15)),
                Means::Close => (Rung::Finish, None),
            };
            assert_eq!((end.rung, end.status.signal()), expected, "{method:?} {means:?}");
        }
    }
    epilogue::end_servers();
    oracle.nothing_left();
}

/// Kills the program that tells this story, and asserts how many of its processes ran what they had registered.
#[track_caller]
fn orphans(story: &str, expected: usize) {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(Duration::from_secs(180));
    if !landlock_is_whole() {
        return oracle.nothing_left();
    }
    let marks = Marks::new();
    let mut program = Program::start(&mut program(story, &marks));
    program.wait_for_line("ready");
    program.signal(Signal::SIGKILL);
    program.reap();
    oracle.orphans_end_within(Duration::from_secs(2));
    drop(program);
    assert_eq!(hooks::all_ran_once(&marks), expected);
    oracle.nothing_left();
}

#[test]
fn processes_in_a_sandbox_end_well_when_their_parent_is_killed() {
    orphans("busy", 2);
    // They may not look for their trees, and do not wait as long as they have to end those.
    orphans("busy-tree", 2);
}

#[test]
fn the_kernel_ends_a_process_in_a_sandbox_whose_finalizer_never_returns_and_whose_parent_is_gone() {
    orphans("stubborn", 0);
}
