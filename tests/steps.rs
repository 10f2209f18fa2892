//! The life of a worker has steps, and at each of them it may be killed, stopped, asked to end, or
//! leave: in every cell of that table each task has one outcome, and nothing is left.

use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, process};

use epilogue::pool::Builder;
use epilogue::{Pool, Process, TaskError, embed, scope};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use support::{Marks, begin, procfs};

/// Short, since a worker that was stopped as it ends waits for a half of it.
const GRACE: Duration = Duration::from_millis(1000);

const TASKS: usize = 12;
/// Which of them has the fault: others are done, and others wait in the same worker.
const GUILTY: usize = 5;

/// In the order in which a worker comes to them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Step {
    /// Before it has said hello.
    Starting,
    /// In the middle of its argument.
    Reading,
    Running,
    /// With the value made, and not sent.
    Dropping,
    /// In the middle of its answer.
    Writing,
    /// With everything done.
    Ending,
}

const STEPS: [Step; 6] =
    [Step::Starting, Step::Reading, Step::Running, Step::Dropping, Step::Writing, Step::Ending];

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Fault {
    Kill,
    Stop,
    Terminate,
    Exit,
}

const FAULTS: [Fault; 4] = [Fault::Kill, Fault::Stop, Fault::Terminate, Fault::Exit];

impl Fault {
    /// Happens, in whoever comes first, and once.
    fn happen(self, directory: &Path) {
        if fs::create_dir(directory.join("happened")).is_err() {
            return;
        }
        match self {
            Self::Kill => kill(getpid(), Signal::SIGKILL).unwrap(),
            Self::Stop => kill(getpid(), Signal::SIGSTOP).unwrap(),
            Self::Terminate => kill(getpid(), Signal::SIGTERM).unwrap(),
            Self::Exit => process::exit(3),
        }
    }

    /// Whether a task in the middle of which it happened cannot have a value.
    fn ends_a_task(self) -> bool {
        matches!(self, Self::Kill | Self::Exit)
    }
}

/// What is to happen, where, and not in the parent, which reads and writes and drops as well.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Plan {
    directory: PathBuf,
    at: Option<Step>,
    fault: Fault,
    parent: u32,
}

impl Plan {
    fn reach(&self, step: Step) {
        if self.at == Some(step) && process::id() != self.parent {
            self.fault.happen(&self.directory);
        }
    }
}

#[derive(Serialize)]
struct Argument {
    task: usize,
    plan: Plan,
}

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename = "Argument")]
        struct Read {
            task: usize,
            plan: Plan,
        }
        let Read { task, plan } = Read::deserialize(deserializer)?;
        plan.reach(Step::Reading);
        Ok(Self { task, plan })
    }
}

impl Drop for Argument {
    fn drop(&mut self) {
        self.plan.reach(Step::Dropping);
    }
}

/// More than a frame on both sides of the step.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    before: Vec<u8>,
    step: Written,
    task: usize,
    after: Vec<u8>,
}

#[derive(Debug, Deserialize)]
struct Written(Option<Plan>);

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(plan) = &self.0 {
            plan.reach(Step::Writing);
        }
        serializer.serialize_newtype_struct("Written", &None::<Plan>)
    }
}

fn run(argument: Argument) -> Answer {
    let plan = argument.plan.clone();
    plan.reach(Step::Running);
    Marks::at(&plan.directory).leave(&format!("task-{}", argument.task));
    if plan.at == Some(Step::Ending) {
        let plan = plan.clone();
        embed::finalizer("fault", move || plan.reach(Step::Ending));
    }
    let half = || vec![argument.task as u8; 50_000];
    Answer { before: half(), step: Written(Some(plan)), task: argument.task, after: half() }
}

fn initialize() {
    let fault = env::var("FAULT").unwrap();
    let fault = FAULTS.into_iter().find(|one| format!("{one:?}") == fault);
    fault.unwrap().happen(Marks::from_env().variable().1);
}

/// A process whose fault happens in its initializer.
fn faulty_from_the_start(marks: &Marks, fault: Fault) -> epilogue::process::Builder {
    let (name, directory) = marks.variable();
    let builder = Process::builder().env(name, directory).env("FAULT", format!("{fault:?}"));
    builder.initializer(initialize).start_deadline(Duration::from_millis(600))
}

fn plan(marks: &Marks, at: Option<Step>, fault: Fault) -> Plan {
    Plan { directory: marks.path(), at, fault, parent: process::id() }
}

#[track_caller]
fn is_whole(answer: &Answer, task: usize) {
    let halves = [&answer.before, &answer.after];
    assert_eq!(answer.task, task);
    assert!(halves.iter().all(|half| half.len() == 50_000 && half[49_999] == task as u8));
}

#[track_caller]
fn of_a_pool(limited: fn(Builder) -> Builder, step: Step, fault: Fault) {
    let (oracle, _watchdog) = begin();
    let builder = limited(Pool::builder().workers(2));
    let marks = Marks::new();
    let (name, directory) = marks.variable();
    let mut builder = builder.env(name, directory).grace_period(GRACE);
    builder = builder.stall_after(Duration::from_millis(100));
    if step == Step::Starting {
        let deadline = Duration::from_millis(600);
        builder = builder.env("FAULT", format!("{fault:?}")).initializer(initialize);
        builder = builder.start_deadline(deadline);
    }
    match builder.start() {
        Err(error) => assert_eq!(step, Step::Starting, "{fault:?}: {error}"),
        Ok(pool) => {
            let at = |task| (task == GUILTY).then_some(step);
            let arguments =
                (0..TASKS).map(|task| Argument { task, plan: plan(&marks, at(task), fault) });
            let outcomes = pool.map_outcomes(arguments, run).unwrap();
            let (mut done, mut lost) = (0, 0);
            // A request is heard by another thread: the worker may be at a later task by then.
            let is_late = fault == Fault::Terminate && step != Step::Ending;
            for (task, outcome) in outcomes.iter().enumerate() {
                match outcome {
                    Ok(answer) => {
                        is_whole(answer, task);
                        assert_eq!(marks.count(&format!("task-{task}")), 1);
                        done += 1;
                    }
                    Err(TaskError::WorkerLost(it)) => {
                        assert!(task == GUILTY || is_late, "{step:?} {fault:?}: {it}");
                        lost += 1;
                    }
                    Err(error) => panic!("{step:?} {fault:?}: {task}: {error:?}"),
                }
            }
            let in_a_task = !matches!(step, Step::Starting | Step::Ending);
            assert!(lost == 0 || in_a_task || (lost == 1 && is_late), "{step:?} {fault:?}");
            assert!(lost == 1 || !in_a_task || !fault.ends_a_task(), "{step:?} {fault:?}");
            let report = pool.close().unwrap();
            assert_eq!((report.done, report.lost, report.cancelled), (done, lost, 0), "{report}");
        }
    }
    assert!(marks.path().join("happened").exists(), "{step:?} {fault:?}");
    drop(marks);
    oracle.nothing_left();
}

#[test]
fn a_pool_survives_every_fault_at_every_step_of_a_worker() {
    for step in STEPS {
        for fault in FAULTS {
            of_a_pool(|builder| builder, step, fault);
        }
    }
}

#[test]
fn a_pool_whose_workers_do_one_task_each_survives_every_fault_at_every_step() {
    for step in STEPS {
        for fault in FAULTS {
            of_a_pool(|builder| builder.max_tasks_per_worker(1), step, fault);
        }
    }
}

/// Waits until a process is stopped, or has ended.
fn until_stopped(pid: u32) {
    let pid = Pid::from_raw(pid as i32);
    while procfs::threads_of(pid).iter().any(|thread| !['T', 'Z'].contains(&thread.state)) {
        std::thread::yield_now();
    }
}

#[test]
fn a_process_ends_at_every_fault_at_every_step() {
    for step in STEPS {
        for fault in FAULTS {
            let (oracle, _watchdog) = begin();
            let marks = Marks::new();
            let builder = match step {
                Step::Starting => faulty_from_the_start(&marks, fault),
                _ => Process::builder(),
            };
            let argument = Argument { task: 3, plan: plan(&marks, Some(step), fault) };
            match builder.grace_period(GRACE).start(argument, run) {
                Err(error) => assert_eq!(step, Step::Starting, "{fault:?}: {error}"),
                // Nobody but whoever stops it looks after one that is stopped.
                Ok(process) if fault == Fault::Stop && step != Step::Ending => {
                    until_stopped(process.id());
                    assert!(process.terminate().is_ok(), "{step:?}");
                }
                Ok(process) => match process.join() {
                    Ok(answer) => is_whole(&answer, 3),
                    Err(error) => assert_ne!(step, Step::Ending, "{fault:?}: {error}"),
                },
            }
            assert!(marks.path().join("happened").exists(), "{step:?} {fault:?}");
            drop(marks);
            oracle.nothing_left();
        }
    }
}

#[test]
fn a_scope_ends_at_every_fault_at_every_step() {
    for step in STEPS {
        for fault in FAULTS {
            // A scope waits for one that is stopped as long as it takes, unless it is left by a panic.
            let panics = fault == Fault::Stop && !matches!(step, Step::Starting | Step::Ending);
            let (oracle, _watchdog) = begin();
            let marks = Marks::new();
            let in_scope = || {
                scope(|scope| {
                    for task in 0..3 {
                        let at = (task == 1).then_some(step);
                        let argument = Argument { task, plan: plan(&marks, at, fault) };
                        let builder = match at {
                            Some(Step::Starting) => faulty_from_the_start(&marks, fault),
                            _ => Process::builder(),
                        };
                        let process = match scope.start_with(builder, argument, run) {
                            Err(error) => {
                                assert_eq!(at, Some(Step::Starting), "{fault:?}: {error}");
                                continue;
                            }
                            Ok(process) => process,
                        };
                        if task == 1 && panics {
                            until_stopped(process.id());
                            panic::resume_unwind(Box::new(step));
                        } else if task == 2 {
                            is_whole(&process.join().unwrap(), 2);
                        }
                    }
                });
            };
            match panic::catch_unwind(AssertUnwindSafe(in_scope)) {
                Err(payload) if !payload.is::<Step>() => panic::resume_unwind(payload),
                left => assert_eq!(left.is_err(), panics, "{step:?} {fault:?}"),
            }
            assert!(marks.path().join("happened").exists(), "{step:?} {fault:?}");
            drop(marks);
            oracle.nothing_left();
        }
    }
}
