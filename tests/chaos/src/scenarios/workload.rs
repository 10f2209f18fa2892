//! A little of everything that the library does, for programs to which the machine refuses something:
//! each part is right, or says what was refused.

use std::fmt::Display;
use std::thread;
use std::time::Duration;

use epilogue::process::Builder;
use epilogue::{Pool, Process, Sender, SharedSlice, StartMethod, channel, scope};
use support::park_for_ever;

/// Short, since whoever is refused a wake-up has to be ended.
const GRACE: Duration = Duration::from_secs(1);
const START: Duration = Duration::from_secs(3);

fn builder() -> Builder {
    Process::builder().grace_period(GRACE).start_deadline(START)
}

/// What was refused, if something was.
///
/// # Panics
///
/// If a value is wrong.
pub(super) fn everything() -> Result<(), String> {
    let parts = [pool, one, scoped, talk, stopped, served, captured];
    // All of them, whatever became of those before.
    let refused: Vec<_> = parts.into_iter().filter_map(|part| part().err()).collect();
    if refused.is_empty() { Ok(()) } else { Err(refused.join("; ")) }
}

/// The first process of a program opens what stays open for good.
pub(super) fn warm_up() -> Result<(), String> {
    captured()
}

fn told<T, E: Display>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

fn use_pool(method: StartMethod) -> Result<(), String> {
    let builder = Pool::builder().workers(2).grace_period(GRACE).start_deadline(START);
    let pool = told(builder.start_method(method).start())?;
    let outcomes = told(pool.map_outcomes(0..50u64, |n| n * n))?;
    assert_eq!(outcomes.len(), 50);
    let mut refused = None;
    for (n, outcome) in (0..).zip(outcomes) {
        match told(outcome) {
            Ok(value) => assert_eq!(value, n * n),
            Err(error) => refused = Some(error),
        }
    }
    let large = told(pool.submit(200_000usize, |length| vec![7u8; length]));
    match told(large.map(|task| task.join())?) {
        Ok(bytes) => assert_eq!(bytes, vec![7; 200_000]),
        Err(error) => refused = Some(error),
    }
    let report = told(pool.close())?;
    refused.or(report.broken).map_or(Ok(()), Err)
}

fn pool() -> Result<(), String> {
    use_pool(StartMethod::Spawn)
}

fn one() -> Result<(), String> {
    let process = told(builder().start((20u64, 22u64), |(a, b)| a + b))?;
    assert_eq!(told(process.join())?, 42);
    Ok(())
}

fn scoped() -> Result<(), String> {
    scope(|processes| {
        let started = [1u64, 2].map(|n| processes.start_with(builder(), n, |n| n * 10));
        for (n, process) in (1..).zip(started) {
            assert_eq!(told(told(process)?.join())?, n * 10);
        }
        Ok(())
    })
}

fn talk() -> Result<(), String> {
    let (sender, receiver) = told(channel::<u64>())?;
    let shared = told(SharedSlice::copy_from(&[1u64, 2, 3]))?;
    let sum = |(sender, shared): (Sender<u64>, SharedSlice<u64>)| -> u64 {
        let sum = shared.iter().sum();
        // Whoever receives may be gone.
        let _ = sender.send(sum);
        sum
    };
    let process = told(builder().start((sender, shared), sum))?;
    let received = told(receiver.recv());
    let joined = told(process.join())?;
    assert_eq!((received?, joined), (6, 6));
    Ok(())
}

fn stopped() -> Result<(), String> {
    let process = told(builder().start((), |()| -> u64 { park_for_ever() }))?;
    told(process.terminate()).map(drop)
}

fn served() -> Result<(), String> {
    let result = use_pool(StartMethod::Server);
    epilogue::end_servers();
    result
}

fn captured() -> Result<(), String> {
    let builder = builder().stdout(epilogue::Stdio::Capture).end_tree();
    let process = told(builder.start((), |()| {
        println!("said");
        thread::yield_now();
    }))?;
    let output = process.join_output();
    told(output.result)?;
    assert_eq!(output.stdout, b"said\n");
    Ok(())
}
