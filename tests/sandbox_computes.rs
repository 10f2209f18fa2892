//! A process in a sandbox has all that a computation wants: threads, channels, shared memory,
//! clocks, panics, and a look at itself.

use std::io;
use std::thread;
use std::time::Duration;

use epilogue::process::Builder;
use epilogue::{Process, Sandbox, SharedSlice, StartMethod, channel};
use nix::libc::{PRIO_PROCESS, c_int};
use nix::sched::sched_getaffinity;
use nix::time::ClockId;
use nix::unistd::{Pid, getpgid, getpid};
use support::{begin, landlock_is_whole, sys};

const METHODS: [StartMethod; 2] = [StartMethod::Spawn, StartMethod::Server];

fn new(method: StartMethod, sandbox: Sandbox) -> Builder {
    Process::builder().start_method(method).sandbox(sandbox.required())
}

/// All that a computation may want.
fn compute((numbers, sender): (SharedSlice<u64>, epilogue::Sender<Vec<u8>>)) -> u64 {
    let sums: Vec<_> = (0..4)
        .map(|part| {
            let quarter = numbers[part * 250..(part + 1) * 250].to_vec();
            thread::spawn(move || quarter.iter().sum::<u64>())
        })
        .collect();
    let sum = sums.into_iter().map(|sum| sum.join().unwrap()).sum();
    // Not to wait for anything: to sleep is a call that the sandbox has to let through.
    thread::sleep(Duration::from_millis(1));
    let caught = std::panic::catch_unwind(|| panic!("on purpose"));
    let (own, other) = channel::<Vec<u8>>().unwrap();
    own.send(vec![1; 1 << 20]).unwrap();
    sender.send(other.recv().unwrap()).unwrap();
    println!("{}", std::env::var_os("PATH").is_some());
    if caught.is_err() { sum } else { 0 }
}

#[test]
fn a_process_that_only_computes_has_threads_channels_shared_memory_clocks_and_panics() {
    let (oracle, _watchdog) = begin();
    if !landlock_is_whole() {
        return oracle.nothing_left();
    }
    for method in METHODS {
        let numbers = SharedSlice::copy_from(&(0..1000u64).collect::<Vec<_>>()).unwrap();
        let (sender, receiver) = channel().unwrap();
        let sandbox = Sandbox::new().confine().compute_only();
        let output = epilogue::Stdio::Capture;
        let builder = new(method, sandbox).stdout(output).stderr(epilogue::Stdio::Capture);
        let process = builder.start((numbers, sender), compute).unwrap();
        assert_eq!(receiver.recv().unwrap(), vec![1; 1 << 20]);
        let output = process.join_output();
        assert_eq!(output.result.unwrap(), 499_500, "{:?}", String::from_utf8(output.stderr));
        assert_eq!(output.stdout, b"true\n");
    }
    epilogue::end_servers();
    oracle.nothing_left();
}

/// Looks at itself, by its number and by 0, and returns what it may not see.
fn look_at_itself(_: ()) -> Vec<String> {
    let looks = |this: Pid| {
        [
            sys::may_see_locks(this),
            sched_getaffinity(this).map(drop).map_err(io::Error::from),
            sys::may_see_policy(this),
            sys::may_see_urgency(this),
            getpgid(Some(this)).map(drop).map_err(io::Error::from),
            sys::may_see_priority(PRIO_PROCESS as c_int, this.as_raw() as u32),
            sys::may_see_cpu_time(this),
            ClockId::CLOCK_PROCESS_CPUTIME_ID.now().map(drop).map_err(io::Error::from),
            ClockId::CLOCK_THREAD_CPUTIME_ID.now().map(drop).map_err(io::Error::from),
        ]
    };
    let all = [Pid::from_raw(0), getpid()].into_iter().flat_map(looks);
    all.filter_map(Result::err).map(|error| error.to_string()).collect()
}

#[test]
fn a_process_that_only_computes_sees_itself() {
    let (oracle, _watchdog) = begin();
    let process = new(StartMethod::Spawn, Sandbox::new().compute_only());
    assert_eq!(process.start((), look_at_itself).unwrap().join().unwrap(), [""; 0]);
    oracle.nothing_left();
}

/// The C library asks by the number of the thread, which no filter knows.
#[test]
fn a_process_that_only_computes_sees_where_the_stack_of_a_thread_is() {
    let (oracle, _watchdog) = begin();
    let process = new(StartMethod::Spawn, Sandbox::new().compute_only()).start((), |()| {
        let stack = thread::spawn(sys::may_see_stack_of_this_thread).join().unwrap();
        stack.map_err(|error| error.to_string())
    });
    assert_eq!(process.unwrap().join().unwrap(), Ok(()));
    oracle.nothing_left();
}
