//! A start server loads once what its children share; it may die, hang or fail, and no start hangs
//! for it.

use std::fs::File;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use epilogue::process::Builder;
use epilogue::{JoinError, Pool, Process, ServerError, StartError, StartMethod, end_servers};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};
use support::{Gate, Oracle, Watchdog, procfs, stop};

const PATIENCE: Duration = Duration::from_secs(300);

static LOADED: OnceLock<(u32, Vec<u64>)> = OnceLock::new();

fn load() {
    LOADED.get_or_init(|| (std::process::id(), (0..1000).map(|n| n * n).collect()));
}

fn forked() -> Builder {
    Process::builder().start_method(StartMethod::Server)
}

fn servers() -> Vec<Pid> {
    let entries = procfs::descendants_of(getpid());
    let servers = entries.iter().filter(|entry| entry.name == "epilogue-server");
    servers.filter(|entry| entry.state != 'Z').map(|entry| entry.pid).collect()
}

fn the_server() -> Pid {
    loop {
        match servers()[..] {
            [server] => return server,
            [] => panic!("there is no server"),
            // A child that it has forked has its name for a moment.
            _ => thread::yield_now(),
        }
    }
}

/// Returns when the process has ended, without taking its status from its owner.
fn end(pid: Pid, signal: Signal) {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    kill(pid, signal).unwrap();
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
}

fn answers() {
    assert_eq!(forked().start(20, |n: u32| n + 1).unwrap().join().unwrap(), 21);
}

fn story(tell: impl FnOnce()) {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    tell();
    end_servers();
    oracle.nothing_left();
}

#[test]
fn what_is_preloaded_is_loaded_once_and_seen_by_every_process() {
    story(|| {
        let look = |n: usize| LOADED.get().map(|(loader, all)| (*loader, all[n]));
        let mut loaders = Vec::new();
        for n in 0..5 {
            let seen = Process::builder().preload(load).start(n, look).unwrap().join().unwrap();
            let (loader, square) = seen.expect("nothing was loaded");
            assert_eq!(square, (n * n) as u64);
            loaders.push(loader);
        }
        let pool = Pool::builder().workers(2).preload(load).start().unwrap();
        let seen = pool.map(0..20usize, look).unwrap();
        loaders.extend(seen.into_iter().map(|seen| seen.expect("nothing was loaded").0));
        assert_eq!(pool.close().unwrap().done, 20);
        loaders.dedup();
        assert_eq!(loaders, [the_server().as_raw().unsigned_abs()]);
        assert!(LOADED.get().is_none(), "it was loaded here");
    });
}

#[test]
fn each_preload_function_has_a_server_and_none_sees_what_another_loaded() {
    story(|| {
        let look = |()| LOADED.get().is_some();
        assert!(Process::builder().preload(load).start((), look).unwrap().join().unwrap());
        assert!(!forked().start((), look).unwrap().join().unwrap());
        // Children that they have forked have their name for a moment.
        while servers().len() > 2 {
            thread::yield_now();
        }
        assert_eq!(servers().len(), 2);
    });
}

#[test]
fn a_preload_that_fails_is_an_error_that_says_so_and_leaves_nothing() {
    story(|| {
        let panics = Process::builder().preload(|| panic!("no model")).start((), |()| ());
        let Err(StartError::Server(ServerError::Preload(panic))) = panics else {
            panic!("{panics:?}")
        };
        assert_eq!(panic.message, "no model");
        let threads = || drop(thread::spawn(thread::park));
        let threads = Process::builder().preload(threads).start((), |()| ());
        let refused = StartError::Server(ServerError::Threads { count: 2 });
        assert_eq!(threads.unwrap_err().to_string(), refused.to_string());
        let opens = || std::mem::forget(File::open("/dev/null").unwrap());
        let opens = Process::builder().preload(opens).start((), |()| ());
        let left = matches!(&opens, Err(StartError::Server(ServerError::Descriptors(left))) if left.len() == 1);
        assert!(left, "{opens:?}");
        let exits = Process::builder().preload(|| std::process::exit(9)).start((), |()| ());
        let lost = matches!(&exits, Err(StartError::Server(ServerError::Lost(status))) if status.code() == Some(9));
        assert!(lost, "{exits:?}");
        let endless = || loop {
            thread::park();
        };
        let builder = Process::builder().start_deadline(Duration::from_millis(300));
        let endless = builder.preload(endless).start((), |()| ());
        let silent = matches!(&endless, Err(StartError::Server(ServerError::Silent { .. })));
        assert!(silent, "{endless:?}");
        assert!(servers().is_empty());
    });
}

#[test]
fn a_thread_that_preload_joined_is_no_obstacle() {
    story(|| {
        let joined = || {
            for _ in 0..20 {
                thread::spawn(|| ()).join().unwrap();
            }
        };
        let process = Process::builder().preload(joined).start(1, |n: u32| n + 1).unwrap();
        assert_eq!(process.join().unwrap(), 2);
    });
}

#[test]
fn processes_outlive_a_server_that_dies_and_the_next_start_has_a_new_one() {
    story(|| {
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            let mut gate = Gate::new();
            let pass = |gate: PathBuf| {
                Gate::pass(&gate);
                7
            };
            let busy = forked().start(gate.path(), pass).unwrap();
            gate.wait();
            let first = the_server();
            end(first, signal);
            answers();
            assert_ne!(the_server(), first);
            drop(gate);
            assert_eq!(busy.join().unwrap(), 7);
        }
    });
}

#[test]
fn a_start_that_finds_its_server_dying_is_made_by_a_new_one() {
    story(|| {
        answers();
        let first = the_server();
        stop(first);
        thread::scope(|scope| {
            let start = scope.spawn(answers);
            // Whether the order is in the server's socket by now or not: it must make no difference.
            kill(first, Signal::SIGKILL).unwrap();
            start.join().unwrap();
        });
        // It may have been given the child that the first one had forked ahead.
        answers();
        assert_ne!(the_server(), first);
    });
}

/// Ends the killer also where the test fails.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn a_start_meets_a_server_that_is_killed_at_any_moment() {
    story(|| {
        answers();
        let over = AtomicBool::new(false);
        let over = &over;
        thread::scope(|scope| {
            let ended = EndOnDrop(over);
            let killer = scope.spawn(move || {
                let mut killed = 0;
                while !over.load(Ordering::Acquire) {
                    for server in servers() {
                        killed += usize::from(kill(server, Signal::SIGKILL).is_ok());
                    }
                }
                killed
            });
            let (mut answered, mut refused) = (0, 0);
            while answered < 100 {
                match forked().start(answered, |n: u32| n + 1) {
                    Ok(process) => match process.join() {
                        Ok(answer) => {
                            assert_eq!(answer, answered + 1);
                            answered += 1;
                        }
                        // A child has the server's name for a moment, and was killed for it.
                        Err(JoinError::Signaled { signal: 9, .. }) => refused += 1,
                        Err(error) => panic!("{error}"),
                    },
                    Err(StartError::Server(ServerError::Lost(_))) => refused += 1,
                    Err(StartError::EndedEarly { status }) if status.signal() == Some(9) => {
                        refused += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            drop(ended);
            let killed = killer.join().unwrap();
            assert!(killed > 0, "{refused} refused, and no server was killed");
        });
    });
}

#[test]
fn a_server_that_does_not_answer_is_killed_and_replaced() {
    story(|| {
        answers();
        let first = the_server();
        stop(first);
        let builder = forked().start_deadline(Duration::from_millis(300));
        // The first may still have the child that the server had forked ahead.
        let silent = (0..2).find_map(|_| builder.clone().start((), |()| ()).err());
        let typed = matches!(silent, Some(StartError::Server(ServerError::Silent { .. })));
        assert!(typed, "{silent:?}");
        answers();
        assert_ne!(the_server(), first);
    });
}

#[test]
fn a_server_that_cannot_take_descriptors_is_replaced() {
    use nix::sys::resource::Resource;
    story(|| {
        answers();
        let first = the_server();
        support::sys::limit(first, Resource::RLIMIT_NOFILE, 8).unwrap();
        for _ in 0..2 {
            match forked().start(1, |n: u32| n) {
                Ok(process) => assert_eq!(process.join().unwrap(), 1),
                Err(StartError::System { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        answers();
        assert_ne!(the_server(), first);
    });
}

#[test]
fn a_child_that_was_forked_ahead_ends_with_its_server_and_is_not_missed_if_it_dies() {
    story(|| {
        answers();
        for _ in 0..3 {
            end(the_spare(), Signal::SIGKILL);
            answers();
        }
        let (server, spare) = (the_server(), the_spare());
        end_servers();
        for pid in [server, spare] {
            assert_eq!(kill(pid, None), Err(nix::errno::Errno::ESRCH));
        }
    });
}

/// The child that the server has forked ahead, once it has.
fn the_spare() -> Pid {
    loop {
        let family = procfs::descendants_of(getpid());
        let mut all = family.iter().filter(|entry| entry.name == "epilogue-spare");
        if let Some(spare) = all.find(|entry| entry.state != 'Z') {
            return spare.pid;
        }
        thread::yield_now();
    }
}

fn in_threads(count: usize, work: fn()) {
    let threads: Vec<_> = (0..count).map(|_| thread::spawn(work)).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn servers_can_be_ended_at_any_time_and_from_many_threads() {
    story(|| {
        in_threads(4, || {
            for _ in 0..10 {
                answers();
                end_servers();
            }
        });
    });
}

#[test]
fn many_threads_start_processes_with_one_server() {
    story(|| {
        answers();
        in_threads(8, || (0..20).for_each(|_| answers()));
        the_server();
    });
}
