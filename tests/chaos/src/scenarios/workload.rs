//! A little of everything that the library does, for programs to which the machine refuses something:
//! each part is right, or says what was refused.

use std::env;
use std::fmt::{self, Display};
use std::fs::{self, File};
use std::io;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use epilogue::process::Builder;
use epilogue::{
    BuildError, CloseError, JoinError, Pool, Process, Receiver, RecvError, Refusal, Sandbox,
    SandboxLevel, Sender, SharedBuf, SharedSlice, StartError, StartMethod, StopError, SubmitError,
    TaskError, channel, channel_with, embed, scope,
};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::Pid;
use support::park_for_ever;

/// Short, since whoever is refused a wake-up has to be ended.
const GRACE: Duration = Duration::from_secs(1);
const START: Duration = Duration::from_secs(3);

fn builder() -> Builder {
    Process::builder().grace_period(GRACE).start_deadline(START)
}

macro_rules! refused {
    ($($(#[$one:meta])* $kind:ident($error:ty),)*) => {
        /// The error that says what was refused.
        #[derive(Debug)]
        pub(super) enum Refused {
            $($(#[$one])* $kind($error),)*
        }

        $(impl From<$error> for Refused {
            fn from(error: $error) -> Self {
                Self::$kind(error)
            }
        })*

        impl fmt::Display for Refused {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$kind(error) => error.fmt(f),)*
                }
            }
        }
    };
}

refused! {
    Build(BuildError),
    Start(StartError),
    Join(JoinError),
    Task(TaskError),
    Call(Refusal),
    Close(CloseError),
    Stop(StopError),
    Receive(RecvError),
    /// Of a channel, or of shared memory.
    Io(io::Error),
    /// Why a pool gave up, as its report says.
    Broken(String),
}

impl<T> From<SubmitError<T>> for Refused {
    fn from(error: SubmitError<T>) -> Self {
        Self::Call(error.reason)
    }
}

/// Cells of a table count the calls of those before.
const PARTS: [fn() -> Result<(), Refused>; 7] =
    [pool, one, scoped, talk, stopped, served, captured];

/// More of what the library does. New ones come last.
const MORE: [fn() -> Result<(), String>; 8] =
    [set_up, set_up_by_a_server, confined, filtered, watched, ended_with_its_tree, long_talk, tied];

/// What was refused, if something was.
///
/// # Panics
///
/// If a value is wrong.
pub(super) fn everything() -> Result<(), Vec<Refused>> {
    // All of them, whatever became of those before.
    all_well(PARTS.iter().filter_map(|part| part().err()).collect())
}

/// The same of [`everything`] and of more: what each part says.
pub(super) fn everything_and_more() -> Result<(), Vec<String>> {
    let first = everything().err().unwrap_or_default();
    let first = first.iter().map(ToString::to_string);
    all_well(first.chain(MORE.iter().filter_map(|part| part().err())).collect())
}

fn all_well<E>(refused: Vec<E>) -> Result<(), Vec<E>> {
    if refused.is_empty() { Ok(()) } else { Err(refused) }
}

/// The first process of a program opens what stays open for good.
pub(super) fn warm_up() -> Result<(), Refused> {
    captured()
}

fn use_pool(method: StartMethod) -> Result<(), Refused> {
    let builder = Pool::builder().workers(2).grace_period(GRACE).start_deadline(START);
    let pool = builder.start_method(method).start()?;
    let outcomes = pool.map_outcomes(0..50u64, |n| n * n)?;
    assert_eq!(outcomes.len(), 50);
    let mut refused = None;
    for (n, outcome) in (0..).zip(outcomes) {
        match outcome {
            Ok(value) => assert_eq!(value, n * n),
            Err(error) => refused = Some(Refused::from(error)),
        }
    }
    match pool.submit(200_000usize, |length| vec![7u8; length])?.join() {
        Ok(bytes) => assert_eq!(bytes, vec![7; 200_000]),
        Err(error) => refused = Some(error.into()),
    }
    let broken = pool.close()?.broken.map(Refused::from);
    refused.or(broken).map_or(Ok(()), Err)
}

fn pool() -> Result<(), Refused> {
    use_pool(StartMethod::Spawn)
}

fn one() -> Result<(), Refused> {
    let process = builder().start((20u64, 22u64), |(a, b)| a + b)?;
    assert_eq!(process.join()?, 42);
    Ok(())
}

fn scoped() -> Result<(), Refused> {
    scope(|processes| {
        let started = [1u64, 2].map(|n| processes.start_with(builder(), n, |n| n * 10));
        for (n, process) in (1..).zip(started) {
            assert_eq!(process?.join()?, n * 10);
        }
        Ok(())
    })
}

fn talk() -> Result<(), Refused> {
    let (sender, receiver) = channel::<u64>()?;
    let shared = SharedSlice::copy_from(&[1u64, 2, 3])?;
    let sum = |(sender, shared): (Sender<u64>, SharedSlice<u64>)| -> u64 {
        let sum = shared.iter().sum();
        // Whoever receives may be gone.
        let _ = sender.send(sum);
        sum
    };
    let process = builder().start((sender, shared), sum)?;
    let received = receiver.recv();
    let joined = process.join()?;
    assert_eq!((received?, joined), (6, 6));
    Ok(())
}

fn stopped() -> Result<(), Refused> {
    let process = builder().start((), |()| -> u64 { park_for_ever() })?;
    Ok(process.terminate().map(drop)?)
}

fn served() -> Result<(), Refused> {
    let result = use_pool(StartMethod::Server);
    epilogue::end_servers();
    result
}

fn captured() -> Result<(), Refused> {
    let builder = builder().stdout(epilogue::Stdio::Capture).end_tree();
    let process = builder.start((), |()| {
        println!("said");
        thread::yield_now();
    })?;
    let output = process.join_output();
    output.result?;
    assert_eq!(output.stdout, b"said\n");
    Ok(())
}

fn told<T, E: Display>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

/// In a directory, with limits, on one CPU, less urgent, between two functions of its own.
fn use_setup(method: StartMethod) -> Result<(), String> {
    const DESCRIPTORS: u64 = 64;
    let builder = builder().start_method(method).initializer(|| ()).finalizer(|| ());
    let builder = builder.current_dir("/").env("CHAOS", "1").own_process_group();
    let builder = builder.stdin(told(File::open("/dev/null"))?).stdout(epilogue::Stdio::Null);
    let builder = builder.limit_descriptors(DESCRIPTORS).limit_core(0).nice(nicer()?);
    let first = told(cpus())?.first().copied();
    let look = |()| -> Result<_, String> {
        let (directory, cpus) = (told(env::current_dir())?, told(cpus())?);
        Ok((directory, told(getrlimit(Resource::RLIMIT_NOFILE))?.0, cpus.len()))
    };
    let process = told(builder.cpu_affinity(first).start((), look))?;
    assert_eq!(told(process.join())??, ("/".into(), DESCRIPTORS, 1));
    Ok(())
}

fn set_up() -> Result<(), String> {
    use_setup(StartMethod::Spawn)
}

fn set_up_by_a_server() -> Result<(), String> {
    let result = use_setup(StartMethod::Server);
    epilogue::end_servers();
    result
}

/// The CPUs that this process may run on.
fn cpus() -> nix::Result<Vec<usize>> {
    let ours = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|&cpu| ours.is_set(cpu) == Ok(true)).collect())
}

/// A nice value that anybody may set.
fn nicer() -> Result<i32, String> {
    let stat = told(fs::read_to_string("/proc/self/stat"))?;
    let nice = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(16));
    Ok(19.min(told(nice.ok_or("no nice value")?.parse::<i32>())? + 1))
}

/// What both sandboxes below forbid. Whether it could be done.
fn escape(_: ()) -> bool {
    File::open("/proc/version").is_ok()
}

/// Where a layer is refused, the process says so.
fn confined() -> Result<(), String> {
    let sandbox = Sandbox::new().confine().allow_read("/usr").allow_connect(1).compute_only();
    let process = told(builder().sandbox(sandbox).start((), escape))?;
    let full = process.sandbox().is_some_and(SandboxLevel::is_full);
    let escaped = told(process.join())?;
    assert!(!(full && escaped), "a sandbox that is said to be whole is not");
    Ok(())
}

/// Where a layer is refused, the process is not started.
fn filtered() -> Result<(), String> {
    let sandbox = Sandbox::new().compute_only().required();
    let builder = builder().start_method(StartMethod::Server).sandbox(sandbox);
    let escaped = told(builder.start((), escape)).and_then(|process| told(process.join()));
    epilogue::end_servers();
    assert!(!escaped?, "a sandbox that is required is not there");
    Ok(())
}

/// A pool that is listened to, measures its workers, replaces them, calls back and grows.
fn watched() -> Result<(), String> {
    let builder = Pool::builder().workers(1).grace_period(GRACE).start_deadline(START);
    let builder = builder.max_tasks_per_worker(2).max_memory_growth(1 << 30).on_event(|_| ());
    let pool = told(builder.task_timeout(Duration::from_secs(20)).start())?;
    let refused = use_watched(&pool).err();
    let report = told(pool.close())?;
    refused.or(report.broken).map_or(Ok(()), Err)
}

fn use_watched(pool: &Pool) -> Result<(), String> {
    let (send, called) = mpsc::channel();
    told(pool.submit(1u64, |n| n + 1))?.on_done(move |outcome| {
        let _ = send.send(outcome);
    });
    for (n, outcome) in (0..4u64).zip(pool.imap(0..4u64, |n| n * 2)) {
        assert_eq!(told(outcome)?, n * 2);
    }
    told(pool.resize(2))?;
    let shared = told(SharedSlice::copy_from(&[1u64, 2, 3, 4]))?;
    assert_eq!(told(pool.map_shared(&shared, |part| part.len()))?.iter().sum::<usize>(), 4);
    assert_eq!(told(told(called.recv())?)?, 2);
    Ok(())
}

/// One that leaves a process behind, which must not outlive it.
fn ended_with_its_tree() -> Result<(), String> {
    let process = told(builder().end_tree().start((), |()| -> Result<(), String> {
        let mut command = Command::new("sleep");
        command.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        told(command.spawn()).map(drop)
    }))?;
    told(process.join())?
}

type Ends = (Receiver<Vec<u8>>, Sender<usize>);

/// Messages that need memory of their own, there and back.
fn long_talk() -> Result<(), String> {
    const LENGTHS: [usize; 3] = [10, 300_000, 100_000];
    let (down, receiver) = told(channel_with::<Vec<u8>>(1))?;
    let (sender, up) = told(channel_with::<usize>(1))?;
    let measure = |(receiver, sender): Ends| {
        // Whoever is at the other end may be gone.
        while receiver.recv().is_ok_and(|message| sender.send(message.len()).is_ok()) {}
    };
    let process = told(builder().start((receiver, sender), measure))?;
    let result = LENGTHS.into_iter().try_for_each(|length| {
        told(down.send(vec![7; length]))?;
        assert_eq!(told(up.recv())?, length);
        Ok(())
    });
    drop((down, up));
    told(process.join())?;
    result
}

/// One that also dies well, and memory that it reads and cannot write.
fn tied() -> Result<(), String> {
    let mut buffer = told(SharedBuf::with_len(1000))?;
    buffer.iter_mut().zip(0u64..).for_each(|(item, n)| *item = n);
    let sum = |shared: SharedSlice<u64>| -> Result<u64, String> {
        told(embed::cleanup_on_crash())?;
        told(embed::cleanup_on_signal(nix::libc::SIGUSR1))?;
        Ok(shared.iter().sum())
    };
    let process = told(builder().start(told(buffer.freeze())?, sum))?;
    assert_eq!(told(process.join())??, 499_500);
    Ok(())
}
