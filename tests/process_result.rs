//! A process that has ended gives its value, or the reason why there is none, and no two reasons are
//! taken for each other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self};

use epilogue::process::{Builder, Side};
use epilogue::{JoinError, Limits, Process, StartError, Stdio, embed};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, raise};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use support::{LARGE, begin, large, not_tried, park_for_ever};

fn new() -> Builder {
    Process::builder()
}

#[inline(never)]
fn place_of_the_panic() -> u8 {
    panic!("deep inside")
}

#[test]
fn a_panic_comes_with_its_place_and_on_request_with_its_backtrace() {
    let (oracle, _watchdog) = begin();
    let panicked = |builder: Builder| {
        let call = |()| place_of_the_panic();
        match builder.stderr(Stdio::Null).start((), call).unwrap().join() {
            Err(JoinError::Panicked(panic)) => panic,
            other => panic!("{other:?}"),
        }
    };
    let plain = panicked(new());
    assert_eq!((plain.message.as_str(), plain.backtrace), ("deep inside", None));
    assert!(plain.location.unwrap().starts_with(file!()));
    let traced = panicked(new().backtrace());
    let backtrace = traced.backtrace.unwrap();
    assert!(backtrace.contains("place_of_the_panic"), "{backtrace}");
    oracle.nothing_left();
}

/// Cannot be written if it is odd. Cannot be read by another process if it is ten or more.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Picky(u32);

impl Serialize for Picky {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 % 2 {
            0 => (self.0, process::id()).serialize(serializer),
            _ => Err(serde::ser::Error::custom("odd")),
        }
    }
}

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (number, writer) = <(u32, u32)>::deserialize(deserializer)?;
        match number {
            10.. if writer != process::id() => Err(serde::de::Error::custom("too large")),
            _ => Ok(Self(number)),
        }
    }
}

#[test]
fn what_cannot_be_sent_or_read_says_which_way_it_went() {
    let (oracle, _watchdog) = begin();
    let send = |argument, add: fn(Picky) -> Picky| Process::start(argument, add);
    assert_eq!(send(Picky(2), |x| x).unwrap().join().unwrap(), Picky(2));
    let refused = send(Picky(1), |x| x).map(|_| ()).unwrap_err();
    assert!(matches!(refused, StartError::Encode(_)), "{refused:?}");
    let unread = send(Picky(10), |x| x).unwrap().join();
    assert!(matches!(unread, Err(JoinError::Decode { side: Side::Argument, .. })), "{unread:?}");
    let unsent = send(Picky(2), |x| Picky(x.0 + 1)).unwrap().join();
    assert!(matches!(unsent, Err(JoinError::Encode(_))), "{unsent:?}");
    let lost = send(Picky(8), |x| Picky(x.0 + 2)).unwrap().join();
    assert!(matches!(lost, Err(JoinError::Decode { side: Side::Result, .. })), "{lost:?}");
    oracle.nothing_left();
}

#[test]
fn what_is_larger_than_the_limit_is_refused_on_either_side() {
    let (oracle, _watchdog) = begin();
    let mut limits = Limits::default();
    limits.max_bytes = 1 << 16;
    let builder = new().limits(limits);
    let refused = builder.clone().start(large(LARGE), |all| all.len()).map(|_| ()).unwrap_err();
    assert!(matches!(refused, StartError::Encode(_)), "{refused:?}");
    let unsent = builder.start(LARGE, large).unwrap().join();
    assert!(matches!(unsent, Err(JoinError::Encode(_))), "{unsent:?}");
    oracle.nothing_left();
}

#[test]
fn every_ending_without_a_value_is_told_apart() {
    let (oracle, _watchdog) = begin();
    let run = |how: u8| -> u8 {
        match how {
            0 => process::exit(0),
            3 => process::exit(3),
            6 => process::abort(),
            signal => {
                raise(Signal::try_from(i32::from(signal)).unwrap()).unwrap();
                park_for_ever()
            }
        }
    };
    let end = |how| {
        let process = new().limit_core(0).start(how, run).unwrap();
        process.join().unwrap_err()
    };
    assert!(matches!(end(0), JoinError::Exited(0)));
    assert!(matches!(end(3), JoinError::Exited(3)));
    for signal in [6, 9, 11, 15] {
        let error = end(signal);
        let JoinError::Signaled { signal: found, core_dumped: false } = error else {
            panic!("{error:?}");
        };
        assert_eq!(found, i32::from(signal));
    }
    oracle.nothing_left();
}

#[test]
fn a_value_that_was_given_counts_also_if_the_process_then_ended_badly() {
    let (oracle, _watchdog) = begin();
    let process = Process::start((), |()| {
        embed::finalizer("abort", || process::abort());
        5u8
    });
    assert_eq!(process.unwrap().join().unwrap(), 5);
    oracle.nothing_left();
}

/// Puts files in the place of this thread's cgroups, and returns that in which the kernel counts
/// whom it killed for want of memory. None for a user who may not, or who is in no such cgroup.
fn counter_of_kills() -> Option<PathBuf> {
    const ROOT: &str = "/sys/fs/cgroup";
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    unshare(CloneFlags::CLONE_NEWNS).ok()?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).ok()?;
    mount(Some("tmpfs"), ROOT, Some("tmpfs"), MsFlags::empty(), none).ok()?;
    let file = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let path = path.trim_start_matches('/');
        match controllers {
            "" => Some(Path::new(ROOT).join(path).join("memory.events")),
            "memory" => {
                Some(Path::new(ROOT).join(controllers).join(path).join("memory.oom_control"))
            }
            _ => None,
        }
    };
    let file = groups.lines().find_map(file)?;
    fs::create_dir_all(file.parent()?).ok()?;
    Some(file)
}

#[test]
fn a_kill_that_the_count_of_the_cgroup_explains_is_told_as_a_want_of_memory() {
    let (oracle, _watchdog) = begin();
    let story = |()| {
        let counter = counter_of_kills()?;
        let count = |kills: u32| fs::write(&counter, format!("low 0\noom_kill {kills}\n")).unwrap();
        let killed = || {
            let process = Process::start((), |()| -> u8 {
                raise(Signal::SIGKILL).unwrap();
                park_for_ever()
            });
            format!("{:?}", process.unwrap().join().unwrap_err())
        };
        count(5);
        let before = killed();
        count(6);
        let out_of_memory = killed();
        let after = killed();
        count(7);
        let exited = Process::start((), |()| -> u8 { process::exit(3) }).unwrap().join();
        Some([before, out_of_memory, after, format!("{:?}", exited.unwrap_err())])
    };
    let signaled = "Signaled { signal: 9, core_dumped: false }";
    match Process::start((), story).unwrap().join().unwrap() {
        Some(told) => assert_eq!(told, [signaled, "OutOfMemory", signaled, "Exited(3)"]),
        None => not_tried("this user may mount nothing, or is in no memory cgroup"),
    }
    oracle.nothing_left();
}
