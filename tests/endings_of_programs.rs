//! However a program ends that has a pool or a process, those end well first: what was submitted is
//! done or cancelled as promised, finalizers ran once, and nothing is left.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use support::{Ending, Gate, Marks, Oracle, Program, Watchdog, hooks};

const PATIENCE: Duration = Duration::from_secs(180);

const WORKERS: usize = 2;
const TASKS: usize = 6;
const JOINED: usize = 4;

/// What each test stands on. The marks go first: removing them opens descriptors.
struct Stage {
    marks: Marks,
    _watchdog: Watchdog,
    oracle: Oracle,
}

impl Stage {
    fn new() -> Self {
        let oracle = Oracle::begin();
        Self { _watchdog: Watchdog::start(PATIENCE), marks: Marks::new(), oracle }
    }
}

fn start(story: &str, marks: &Marks) -> Program {
    Program::start(&mut command(story, marks))
}

fn command(story: &str, marks: &Marks) -> Command {
    let (name, directory) = marks.variable();
    let mut command = Command::new(env!("CARGO_BIN_EXE_endings"));
    // A group of its own, as a terminal gives to each job.
    command.arg(story).env(name, directory).process_group(0);
    command
}

/// Tells a story that ends by itself: how the program ended, with nothing left by then.
#[track_caller]
fn tell(story: &str, stage: &Stage) -> Ending {
    let Stage { marks, oracle, .. } = stage;
    let mut program = start(story, marks);
    // The program alone: what it started must be gone by then, not soon after.
    program.reap();
    let left = oracle.leftovers().processes;
    assert!(left.is_empty(), "{story} left {left:#?}");
    let ending = program.finish();
    oracle.nothing_left();
    ending
}

#[track_caller]
fn everything_is_done(story: &str, code: i32) {
    let stage = Stage::new();
    let ending = tell(story, &stage);
    assert_eq!(ending.code(), Some(code), "{ending}");
    assert_eq!(stage.marks.count("task"), TASKS, "{ending}");
    assert_eq!(hooks::all_ran_once(&stage.marks), WORKERS, "{ending}");
}

#[test]
fn exit_with_a_live_pool_finishes_it_first() {
    everything_is_done("exit", 7);
}

#[test]
fn exit_in_one_thread_finishes_a_map_in_another() {
    everything_is_done("exit-elsewhere", 7);
}

#[test]
fn exit_in_a_callback_finishes_its_pool() {
    everything_is_done("exit-in-callback", 7);
}

#[test]
fn exit_in_a_callback_as_main_returns_does_not_hold_up_its_pools_end() {
    // The standard library keeps who comes second, with the code of the first.
    everything_is_done("exit-in-callback-as-main-returns", 0);
}

#[test]
fn exit_in_a_waker_on_the_pools_own_thread_is_not_waited_for_by_that() {
    for (story, code) in [("exit-in-waker", 7), ("exit-in-waker-as-main-returns", 0)] {
        let stage = Stage::new();
        let gate = Gate::new();
        let mut program = Program::start(command(story, &stage.marks).env("GATE", gate.path()));
        program.wait_for_line("ready");
        drop(gate);
        program.reap();
        // Who would have ended them was on its way out: they end by themselves.
        stage.oracle.orphans_end_within(Duration::from_secs(1));
        let ending = program.finish();
        stage.oracle.nothing_left();
        assert_eq!(ending.code(), Some(code), "{story}: {ending}");
        assert_eq!(hooks::all_ran_once(&stage.marks), WORKERS, "{story}: {ending}");
    }
}

#[test]
fn exit_in_a_waker_of_a_task_that_the_programs_end_cancels_does_not_hold_that_up() {
    let stage = Stage::new();
    let gate = Gate::new();
    let story = "exit-in-waker-that-is-cancelled-as-main-returns";
    let mut program = Program::start(command(story, &stage.marks).env("GATE", gate.path()));
    program.reap();
    stage.oracle.orphans_end_within(Duration::from_secs(1));
    let ending = program.finish();
    drop(gate);
    stage.oracle.nothing_left();
    assert_eq!(ending.code(), Some(0), "{ending}");
}

#[test]
fn exit_in_a_listener_is_not_waited_for_by_a_callback_that_closes_the_pool() {
    for whose in ["a-callback", "a-callback-of-another-pool"] {
        let stage = Stage::new();
        let ending = tell(&format!("exit-in-listener-that-{whose}-waits-for"), &stage);
        assert_eq!(ending.code(), Some(7), "{whose}: {ending}");
    }
}

#[test]
fn a_pool_in_a_static_is_closed_as_main_returns() {
    everything_is_done("static", 0);
}

#[test]
fn a_leaked_pool_is_closed_as_main_returns() {
    everything_is_done("leaked", 0);
}

#[test]
fn a_pool_that_another_thread_holds_in_a_map_is_closed_as_main_returns() {
    everything_is_done("held", 0);
}

#[test]
fn a_pool_is_closed_by_leaving_its_scope() {
    everything_is_done("dropped", 0);
}

#[test]
fn a_pool_is_closed_by_a_question_mark_in_main() {
    everything_is_done("question", 1);
}

#[test]
fn embeds_own_exit_stops_a_pool_and_runs_every_finalizer() {
    let stage = Stage::new();
    let ending = tell("embed-exit", &stage);
    assert_eq!(ending.code(), Some(7), "{ending}");
    assert_eq!(hooks::all_ran_once(&stage.marks), WORKERS, "{ending}");
}

#[test]
fn a_panic_in_main_stops_a_pool_and_runs_every_finalizer() {
    let stage = Stage::new();
    let ending = tell("panic", &stage);
    assert_eq!(ending.code(), Some(101), "{ending}");
    assert_eq!(hooks::all_ran_once(&stage.marks), WORKERS, "{ending}");
}

#[test]
fn a_process_that_was_leaked_or_is_alive_at_exit_is_joined_first() {
    for (story, code) in [("process-leaked", 0), ("process-exit", 7)] {
        let stage = Stage::new();
        let ending = tell(story, &stage);
        assert_eq!(ending.code(), Some(code), "{ending}");
        assert_eq!(stage.marks.count("task"), 1, "{ending}");
        assert_eq!(hooks::all_ran_once(&stage.marks), 1, "{ending}");
    }
}

#[test]
fn a_leaked_process_whose_answer_nobody_reads_is_joined_at_exit() {
    let ending = tell("process-large", &Stage::new());
    assert_eq!(ending.code(), Some(0), "{ending}");
}

#[test]
fn a_process_that_another_thread_joins_as_main_returns_ends_well() {
    // Whoever joins and whoever waits at the exit have to meet in the middle of an answer.
    for _ in 0..20 {
        let stage = Stage::new();
        let ending = tell("process-joined-elsewhere", &stage);
        assert_eq!((ending.code(), ending.stderr.as_str()), (Some(0), ""), "{ending}");
        assert_eq!(hooks::all_ran_once(&stage.marks), JOINED, "{ending}");
    }
}

/// Signals a program that is ready, its whole group if `to_group`: how it ended.
fn signalled(story: &str, stage: &Stage, signal: Signal, to: To) -> Ending {
    let Stage { marks, oracle, .. } = stage;
    let mut program = start(story, marks);
    program.wait_for_line("ready");
    match to {
        To::Program => program.signal(signal),
        To::Group => killpg(program.pid(), signal).unwrap(),
    }
    let input = program.hold_input();
    program.reap();
    drop(input);
    // Where the program died unprepared, its workers end by themselves, soon.
    oracle.orphans_end_within(Duration::from_secs(1));
    let ending = program.finish();
    oracle.nothing_left();
    ending
}

enum To {
    Program,
    Group,
}

#[test]
fn sigterm_cancels_what_had_not_begun_and_runs_every_finalizer() {
    let stage = Stage::new();
    let ending = signalled("sigterm", &stage, Signal::SIGTERM, To::Program);
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
    assert_eq!(stage.marks.count("task"), 0, "{ending}");
    assert_eq!(hooks::all_ran_once(&stage.marks), WORKERS, "{ending}");
}

#[test]
fn sigterm_to_the_whole_group_runs_every_finalizer_once() {
    let stage = Stage::new();
    let ending = signalled("sigterm", &stage, Signal::SIGTERM, To::Group);
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
    assert_eq!(hooks::all_ran_once(&stage.marks), WORKERS, "{ending}");
}

/// How many tasks were held, let through, asked to stop, and done behind those.
fn marks_of(marks: &Marks) -> [usize; 4] {
    ["begun", "let through", "asked", "task"].map(|event| marks.count(event))
}

#[test]
fn each_cause_of_a_programs_end_has_the_policy_that_was_set_for_it() {
    for (signal, marks) in [(Signal::SIGINT, [2, 2, 0, TASKS]), (Signal::SIGTERM, [2, 2, 0, 0])] {
        let stage = Stage::new();
        let ending = signalled("by-policy", &stage, signal, To::Program);
        assert_eq!(ending.signal(), Some(signal), "{ending}");
        assert_eq!(marks_of(&stage.marks), marks, "{signal}: {ending}");
    }
    let stage = Stage::new();
    let ending = tell("cleanup-by-policy", &stage);
    assert_eq!(ending.code(), Some(7), "{ending}");
    assert_eq!(marks_of(&stage.marks), [2, 2, 0, 0], "{ending}");
    // Its turn ends before the next begins.
    drop(stage);
    let stage = Stage::new();
    let ending = tell("exit-by-policy", &stage);
    assert_eq!(ending.code(), Some(7), "{ending}");
    // What has begun is asked to stop as the rest is cancelled, which opens the gate: whichever is first.
    let [begun, let_through, asked, tasks] = marks_of(&stage.marks);
    assert_eq!((begun, let_through + asked, tasks), (2, 2, 0), "{ending}");
}

#[test]
fn the_workers_of_a_program_that_a_signal_ends_unprepared_run_their_finalizers() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        let stage = Stage::new();
        let ending = signalled("unprepared", &stage, signal, To::Program);
        assert_eq!(ending.signal(), Some(signal), "{ending}");
        assert_eq!(hooks::all_ran_once(&stage.marks), WORKERS, "{ending}");
    }
}

#[test]
fn ctrl_c_reaches_a_program_that_handles_it_and_costs_its_workers_nothing() {
    let stage = Stage::new();
    let ending = signalled("interrupted", &stage, Signal::SIGINT, To::Group);
    assert_eq!(ending.code(), Some(0), "{ending}");
    assert!(ending.stdout.contains("interrupted"), "{ending}");
    assert_eq!(stage.marks.count("task"), TASKS, "{ending}");
    assert_eq!(hooks::all_ran_once(&stage.marks), WORKERS, "{ending}");
}

#[test]
fn ctrl_c_that_embed_handles_cancels_what_had_not_begun_and_runs_every_finalizer() {
    let stage = Stage::new();
    let ending = signalled("interrupt-cleans-up", &stage, Signal::SIGINT, To::Group);
    assert_eq!(ending.signal(), Some(Signal::SIGINT), "{ending}");
    assert_eq!(stage.marks.count("task"), 0, "{ending}");
    assert_eq!(hooks::all_ran_once(&stage.marks), WORKERS, "{ending}");
}

#[test]
fn all_that_a_program_has_started_ends_at_the_same_time_when_a_signal_ends_it() {
    let stage = Stage::new();
    // After the turn is taken: its socket would be seen by another test.
    let mut gate = Gate::new();
    let mut command = command("wait-for-each-other", &stage.marks);
    let mut program = Program::start(command.env("GATE", gate.path()));
    program.wait_for_line("ready");
    program.signal(Signal::SIGTERM);
    // Two processes and two pools of a worker: none ends before all have been asked to.
    gate.wait_for(4);
    gate.open_once();
    let input = program.hold_input();
    program.reap();
    drop(input);
    let ending = program.finish();
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
    let ran = ["task", "own"].map(|event| stage.marks.count(event));
    assert_eq!(ran, [4, 1], "{ending}");
    drop(gate);
    stage.oracle.nothing_left();
}

#[test]
fn what_a_leaked_process_has_left_behind_ends_with_the_program() {
    let stage = Stage::new();
    let mut program = start("tree-leaked", &stage.marks);
    program.reap();
    // It has ended by then, and is ours to reap.
    stage.oracle.orphans_end_within(Duration::from_secs(1));
    let ending = program.finish();
    assert_eq!(ending.code(), Some(0), "{ending}");
    stage.oracle.nothing_left();
}

#[test]
fn what_a_process_would_end_too_late_is_ended_by_a_program_that_a_signal_ends() {
    let stage = Stage::new();
    let ending = signalled("tree-signalled", &stage, Signal::SIGTERM, To::Program);
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
}

#[test]
fn what_a_worker_has_left_behind_takes_no_time_from_the_finalizers_of_a_program_that_a_signal_ends()
{
    let stage = Stage::new();
    let ending = signalled("pool-tree-signalled", &stage, Signal::SIGTERM, To::Program);
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
    assert_eq!(stage.marks.count("last"), 1, "{ending}");
}
