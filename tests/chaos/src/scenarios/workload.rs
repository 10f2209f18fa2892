//! A little of everything that the library does, for programs to which the machine refuses something:
//! each part is right, or says what was refused.

use std::fmt;
use std::io;
use std::thread;
use std::time::Duration;

use epilogue::process::Builder;
use epilogue::{
    BuildError, CloseError, JoinError, Pool, Process, RecvError, Refusal, Sender, SharedSlice,
    StartError, StartMethod, StopError, SubmitError, TaskError, channel, scope,
};
use support::park_for_ever;

/// Short, since whoever is refused a wake-up has to be ended.
const GRACE: Duration = Duration::from_secs(1);
const START: Duration = Duration::from_secs(3);

fn builder() -> Builder {
    Process::builder().grace_period(GRACE).start_deadline(START)
}

/// The error that says what was refused.
#[derive(Debug)]
pub(super) enum Refused {
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

macro_rules! refused {
    ($($kind:ident($error:ty),)*) => {
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
    Io(io::Error),
    Broken(String),
}

impl<T> From<SubmitError<T>> for Refused {
    fn from(error: SubmitError<T>) -> Self {
        Self::Call(error.reason)
    }
}

/// All that was refused in a run.
#[derive(Debug)]
pub(super) struct AllRefused(pub(super) Vec<Refused>);

impl fmt::Display for AllRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&all.join("; "))
    }
}

/// What was refused, if something was.
///
/// # Panics
///
/// If a value is wrong.
pub(super) fn everything() -> Result<(), AllRefused> {
    let parts = [pool, one, scoped, talk, stopped, served, captured];
    // All of them, whatever became of those before.
    let refused: Vec<_> = parts.into_iter().filter_map(|part| part().err()).collect();
    if refused.is_empty() { Ok(()) } else { Err(AllRefused(refused)) }
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
