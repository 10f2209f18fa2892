//! SIGTERM storms from the first instruction on: whoever registered a finalizer runs it exactly once.

use std::thread;
use std::time::{Duration, Instant};

use epilogue::{Pool, Process, StartMethod, embed};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Pid, getpid};
use support::{Marks, Random, children_of, hooks, park_for_ever, procfs, signal_child};

use super::parent::register;
use super::{Least, Scenario};
use crate::case::{Case, died_by, panicked};
use crate::figures::Figures;
use crate::seed::Seed;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "storm",
    story: "1 to 20 SIGTERMs to a program, its workers, or all, from the first instruction on",
    cases: |extent| extent.either(500, 10_000),
    patience: |_| Duration::from_secs(60),
    least: Some(Least { what: "finalized once", of: "storms" }),
    case,
    subject,
};

/// What a program is told whose children come from a server.
const SERVED: &str = "served";

/// Within what everything must be gone once the program is: the default grace period, and more.
const BOUND: Duration = Duration::from_secs(1);

fn case(case: &mut Case) -> Figures {
    let mut figures = Figures::default();
    let marks = Marks::new();
    let (name, directory) = marks.variable();
    let target = case.random.one_of(&["program", "workers", "all"]);
    // A server is hit with the workers, and so is the child that it has forked ahead.
    let served = case.seed.random(1).below(3) == 0;
    let mut command = case.command(&[target, if served { SERVED } else { "spawned" }]);
    command.env(name, directory);
    // Blocked until there is something to finalize, as in a child that this library starts.
    let term = SigSet::from(Signal::SIGTERM);
    term.thread_block().unwrap();
    let mut program = case.start(&mut command);
    term.thread_unblock().unwrap();
    figures.count("signals", rage(target, program.pid(), &mut case.random));
    let ending = if target == "workers" {
        // It goes on until its input ends, which whoever waits for it closes.
        let ending = case.ends_within(program, BOUND);
        assert!(ending.status.success(), "{ending}");
        ending
    } else {
        case.may_leave_cgroups = true;
        // The last of them: the program has to end by one, and all that came before may have hit
        // workers only.
        let begun = Instant::now();
        program.signal(Signal::SIGTERM);
        program.reap();
        figures.worst("program gone", begun.elapsed());
        let ending = case.ends_within(program, BOUND);
        died_by(&ending, Signal::SIGTERM);
        ending
    };
    panicked(&ending, 0);
    figures.count("storms", 1);
    figures.count("of them with a server", u64::from(served));
    figures.count("finalized once", hooks::all_that_told_ran_once(&marks) as u64);
    figures
}

/// The storm: how many signals hit.
fn rage(target: &str, program: Pid, random: &mut Random) -> u64 {
    let mut hits = 0;
    for _ in 0..=random.below(20) {
        if target != "workers" && procfs::lives(program) {
            hits += u64::from(kill(program, Signal::SIGTERM).is_ok());
        }
        if target != "program" {
            let children = children_of(program);
            let hit = |child: &Pid| signal_child(program, *child, Signal::SIGTERM);
            hits += children.iter().filter(|child| hit(child)).count() as u64;
        }
        thread::sleep(Duration::from_micros(random.below(2000)));
    }
    hits
}

fn subject(_: Seed, arguments: &[String]) {
    hooks::register(Marks::from_env().variable().1);
    embed::cleanup_on_sigterm().unwrap();
    SigSet::from(Signal::SIGTERM).thread_unblock().unwrap();
    let is_mortal = arguments[0] != "workers";
    let method = if arguments[1] == SERVED { StartMethod::Server } else { StartMethod::Spawn };
    let pools = Pool::builder().workers(2).start_method(method);
    let processes = Process::builder().start_method(method).initializer(|| register(()));
    if !is_mortal {
        let parent = getpid();
        thread::spawn(move || {
            let _ = std::io::stdin().read_line(&mut String::new());
            assert_eq!(parent, getpid());
            std::process::exit(0);
        });
    }
    loop {
        // Workers that are ended before they do anything break a pool, which it tells.
        let Ok(pool) = pools.clone().start() else { continue };
        let _ = pool.map_outcomes(0..8u64, register);
        if let Ok(process) = processes.clone().start((), |()| ()) {
            let _ = process.join();
        }
        if is_mortal && Marks::from_env().count("registered") > 6 {
            let _ = pool.map(0..2u64, |_| -> () { park_for_ever() });
        }
        drop(pool);
    }
}
