//! The kernel may refuse what seems to be there always: to kill a process, or a random number. Nobody
//! waits for ever for that, and nothing panics.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use epilogue::{
    BuildError, Event, JoinError, Mechanism, OnStall, Pool, Process, Receiver, RecvError, Refusal,
    Rung, Sender, StallKind, StartError, StartMethod, Stdio, TaskError, TreeEnd, channel,
    channel_with, end_servers,
};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, setuid};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use support::seccomp::{self, Answer};
use support::{
    Gate, await_end, begin, hide_cgroups, not_tried, park_for_ever, parked, procfs, waiting,
};

/// Makes one system call fail in this process from here on, and in all that it starts.
fn refuse(call: i64, error: i32) {
    seccompiler::apply_filter_all_threads(&filter(call, error)).unwrap();
}

/// Makes one system call fail in this thread from here on.
fn refuse_here(call: i64, error: i32) {
    seccompiler::apply_filter(&filter(call, error)).unwrap();
}

fn filter(call: i64, error: i32) -> BpfProgram {
    let rules = BTreeMap::from([(call, Vec::new())]);
    let fail = SeccompAction::Errno(error as u32);
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, fail, arch).unwrap();
    BpfProgram::try_from(filter).unwrap()
}

/// Makes one system call of this thread, and of all that it starts from here on, fail with these errors
/// first, and go on from then on.
fn refuse_at_first(call: i64, errors: &'static [Errno]) {
    let listener = seccomp::listen_to(call).unwrap();
    // This thread would wait for its own answer.
    thread::spawn(move || {
        let mut errors = errors.iter();
        while let Ok(waiting) = seccomp::next_waiting(listener.as_fd()) {
            let answer = errors.next().map_or(Answer::Done, |error| Answer::Fails(*error));
            let _ = seccomp::answer(listener.as_fd(), waiting, answer);
        }
    });
}

const NO_ROOM: [Errno; 3] = [Errno::ENOBUFS, Errno::ENOMEM, Errno::ETOOMANYREFS];

fn increment(n: u64) -> u64 {
    n + 1
}

#[test]
fn a_kill_that_the_kernel_refuses_is_no_hang_since_who_shall_end_hears_of_it_otherwise() {
    let (oracle, _watchdog) = begin();
    for error in [libc::EPERM, libc::ESRCH] {
        let program = Process::start(error, |error| {
            refuse(libc::SYS_pidfd_send_signal, error);
            let parked = Process::start((), |()| -> u8 { park_for_ever() }).unwrap();
            assert_eq!(parked.kill().unwrap().rung, Rung::Kill);
            // A server has a child in reserve, which is killed when nobody needs it any more.
            let forked = Process::builder().start_method(StartMethod::Server);
            assert_eq!(forked.start(1, increment).unwrap().join().unwrap(), 2);
            end_servers();
        });
        program.unwrap().join().unwrap();
    }
    oracle.nothing_left();
}

#[test]
fn a_wait_that_the_kernel_refuses_ends_nothing_that_runs_and_hides_no_end() {
    let (oracle, _watchdog) = begin();
    // What does not know of pidfds there, says that the second is wrong: Linux before 5.4.
    for error in [libc::EPERM, libc::EINVAL] {
        let program = Process::start(error, |error| {
            refuse(libc::SYS_waitid, error);
            let mut gate = Gate::new();
            let mut process = waiting(&mut gate);
            assert!(!process.is_finished());
            assert!(process.try_join().unwrap().is_none());
            drop(gate);
            process.join().unwrap();
            assert_eq!(parked().terminate().unwrap().rung, Rung::Stop);
            // How it ended, nobody says.
            let exits: Process<()> = Process::start(7, |code| std::process::exit(code)).unwrap();
            assert!(matches!(exits.join(), Err(JoinError::Unknown)));
            let forked = Process::builder().start_method(StartMethod::Server);
            assert_eq!(forked.start(1, increment).unwrap().join().unwrap(), 2);
            end_servers();
            let pool = Pool::new(2).unwrap();
            assert_eq!(pool.map(0..4, increment).unwrap(), [1, 2, 3, 4]);
            assert_eq!(pool.close().unwrap().broken, None);
        });
        program.unwrap().join().unwrap();
    }
    // All have ended, and were left to be reaped by whoever may.
    oracle.nothing_left_within(Duration::ZERO);
}

#[test]
fn without_random_numbers_all_works_but_the_hash_maps_of_the_standard_library() {
    let (oracle, _watchdog) = begin();
    for error in [libc::EAGAIN, libc::ENOSYS] {
        let program = Process::start(error, |error| {
            refuse(libc::SYS_getrandom, error);
            let pool = Pool::new(2).unwrap();
            assert_eq!(pool.map(0..4, increment).unwrap(), [1, 2, 3, 4]);
            let seven = |n: &u64, m: u64| n + m;
            assert_eq!(pool.map_with(&7u64, 0..2, seven).unwrap(), [7, 8]);
            let sum = pool.map_reduce(0..100, increment, |a, b| a + b).unwrap();
            assert_eq!(sum, Some(5050));
            let counted = pool.local(|| 0u64).map_local(0..9u64, |count, _| {
                *count += 1;
                *count
            });
            assert_eq!(counted.unwrap().len(), 9);
            assert_eq!(pool.close().unwrap().broken, None);
            let (sender, receiver) = channel::<u64>().unwrap();
            let process = Process::start(sender, |sender| sender.send(7).unwrap()).unwrap();
            assert_eq!(receiver.recv().unwrap(), 7);
            process.join().unwrap();
        });
        program.unwrap().join().unwrap();
    }
    oracle.nothing_left();
}

#[test]
fn a_server_that_may_not_look_what_is_open_says_so_and_blames_nobody() {
    let (oracle, _watchdog) = begin();
    let program = Process::start((), |()| {
        refuse(libc::SYS_getdents64, libc::ENOMEM);
        let builder = Process::builder().start_method(StartMethod::Server);
        builder.start(1, increment).unwrap_err().to_string()
    });
    let told = program.unwrap().join().unwrap();
    assert!(told.contains("listing what is open"), "{told}");
    oracle.nothing_left();
}

#[test]
fn a_large_answer_arrives_also_where_the_kernel_has_no_room_for_its_descriptor() {
    let (oracle, _watchdog) = begin();
    for error in [libc::ENOBUFS, libc::ENOMEM] {
        let pool = Pool::new(1).unwrap();
        let task = pool.submit(error, |error| {
            refuse(libc::SYS_sendmsg, error);
            vec![7u8; 200_000]
        });
        assert_eq!(task.unwrap().join().unwrap(), vec![7; 200_000]);
        assert_eq!(pool.close().unwrap().broken, None);
    }
    oracle.nothing_left();
}

#[test]
fn a_result_whose_descriptors_the_kernel_has_no_room_for_is_an_error_and_costs_no_worker() {
    let (oracle, _watchdog) = begin();
    for error in [libc::ENOBUFS, libc::ENOMEM, libc::ETOOMANYREFS] {
        let pool = Pool::new(1).unwrap();
        let worker = pool.submit((), |()| std::process::id()).unwrap().join().unwrap();
        let task = pool.submit(error, |error| {
            refuse(libc::SYS_sendmsg, error);
            channel::<u64>().unwrap().0
        });
        let told = task.unwrap().join().unwrap_err();
        assert!(matches!(&told, TaskError::Encode { .. }), "{told:?}");
        assert!(told.to_string().contains("no room for its descriptors"), "{told}");
        let next = pool.submit((), |()| std::process::id()).unwrap().join().unwrap();
        assert_eq!(next, worker);
        assert_eq!(pool.close().unwrap().broken, None);
    }
    oracle.nothing_left();
}

#[test]
fn a_child_is_sent_later_what_the_kernel_has_no_room_for_now_and_ends_of_nothing_else() {
    let (oracle, _watchdog) = begin();
    let program = Process::start((), |()| {
        refuse_at_first(libc::SYS_sendmsg, &NO_ROOM);
        let (sender, receiver) = channel::<u64>().unwrap();
        let process = Process::start(sender, |sender| sender.send(1).unwrap()).unwrap();
        process.join().unwrap();
        assert_eq!(receiver.recv().unwrap(), 1);
    });
    program.unwrap().join().unwrap();
    let program = Process::start((), |()| {
        let pool = Pool::new(1).unwrap();
        let pid = |()| std::process::id();
        let worker = pool.submit((), pid).unwrap().join().unwrap();
        refuse_at_first(libc::SYS_sendmsg, &NO_ROOM);
        let (sender, receiver) = channel::<u64>().unwrap();
        let task = pool.submit(sender, |sender| sender.send(1).unwrap()).unwrap();
        task.join().unwrap();
        assert_eq!(receiver.recv().unwrap(), 1);
        assert_eq!(pool.submit((), pid).unwrap().join().unwrap(), worker);
        assert_eq!(pool.close().unwrap().broken, None);
    });
    program.unwrap().join().unwrap();
    oracle.nothing_left();
}

#[test]
fn a_start_whose_argument_the_kernel_never_has_room_for_says_so() {
    let (oracle, _watchdog) = begin();
    let program = Process::start((), |()| {
        refuse_here(libc::SYS_sendmsg, libc::ETOOMANYREFS);
        let (sender, _receiver) = channel::<u64>().unwrap();
        let builder = Process::builder().start_deadline(Duration::from_secs(1));
        let error = builder.start(sender, drop).unwrap_err();
        let StartError::System { source, .. } = &error else { panic!("{error:?}") };
        assert_eq!(source.raw_os_error(), Some(libc::ETOOMANYREFS));
    });
    program.unwrap().join().unwrap();
    oracle.nothing_left();
}

#[test]
fn a_worker_that_the_kernel_never_has_room_for_is_told_of_and_holds_up_no_end() {
    let (oracle, _watchdog) = begin();
    let program = Process::start((), |()| {
        let short = Duration::from_millis(500);
        let pool = Pool::builder().workers(1).stall_after(short).on_stall(OnStall::End);
        // The first start is a healthy one, and must not be too slow for it.
        let pool = pool.start_deadline(Duration::from_secs(5));
        let pool = pool.restart_intensity(1, Duration::from_secs(3600));
        let pool = pool.start().unwrap();
        let (sender, _receiver) = channel::<u64>().unwrap();
        refuse(libc::SYS_sendmsg, libc::ETOOMANYREFS);
        let task = pool.submit(sender, |sender| sender.send(1).unwrap()).unwrap();
        assert!(task.join().is_err());
        let report = pool.close().unwrap();
        assert!(report.stalls.iter().all(|stall| stall.kind == StallKind::Deaf), "{report}");
        assert!(!report.stalls.is_empty(), "{report}");
    });
    program.unwrap().join().unwrap();
    oracle.nothing_left();
}

#[test]
fn a_pool_that_closes_gives_up_where_the_kernel_starts_nobody_for_what_a_task_waits_for() {
    let (oracle, _watchdog) = begin();
    let program = Process::start((), |()| {
        let mut gate = Gate::new();
        let pool = Pool::builder().min_workers(1).workers(2).grace_period(Duration::from_secs(1));
        let pool = pool.stall_after(Duration::from_millis(100));
        let pool = pool.restart_intensity(0, Duration::from_secs(3600)).start().unwrap();
        refuse(libc::SYS_execve, libc::EAGAIN);
        // As one does that waits for the second.
        let first = pool.submit(gate.path(), |gate: PathBuf| Gate::pass(&gate)).unwrap();
        gate.wait();
        let second = pool.submit(1u64, |x| x).unwrap();
        let report = pool.close().unwrap();
        assert!(report.broken.is_some(), "{report}");
        assert!(matches!(second.join(), Err(TaskError::Refused(Refusal::Broken { .. }))));
        assert!(matches!(first.join(), Err(TaskError::Cancelled { begun: true })));
    });
    program.unwrap().join().unwrap();
    oracle.nothing_left();
}

#[test]
fn what_was_captured_is_there_although_the_kernel_had_no_memory_to_read_it_at_first() {
    let (oracle, _watchdog) = begin();
    let program = Process::start((), |()| {
        let (sender, listener) = mpsc::channel::<OwnedFd>();
        let refusing = thread::spawn(move || {
            let listener = listener.recv().unwrap();
            for answer in [Answer::Fails(Errno::ENOMEM), Answer::Done] {
                let waiting = seccomp::next_waiting(listener.as_fd()).unwrap();
                seccomp::answer(listener.as_fd(), waiting, answer).unwrap();
            }
        });
        let process = Process::builder().stdout(Stdio::Capture).start((), |()| println!("said"));
        let process = process.unwrap();
        sender.send(seccomp::listen_to(libc::SYS_pread64).unwrap()).unwrap();
        let output = process.join_output();
        output.result.unwrap();
        assert_eq!(output.stdout, b"said\n");
        refusing.join().unwrap();
    });
    program.unwrap().join().unwrap();
    oracle.nothing_left();
}

#[test]
fn a_process_has_ended_well_also_where_the_kernel_never_has_memory_to_read_what_was_captured() {
    let (oracle, _watchdog) = begin();
    let program = Process::start((), |()| {
        let process = Process::builder().stdout(Stdio::Capture).start((), |()| println!("said"));
        let process = process.unwrap();
        refuse_here(libc::SYS_pread64, libc::ENOMEM);
        let output = process.join_output();
        output.result.unwrap();
        assert_eq!(output.stdout, b"");
    });
    program.unwrap().join().unwrap();
    oracle.nothing_left();
}

#[test]
fn a_pool_that_has_no_thread_of_its_own_is_not_started_and_nobody_listens_to_it_any_more() {
    let (oracle, _watchdog) = begin();
    let program = Process::start((), |()| {
        let (sender, listener) = mpsc::channel::<OwnedFd>();
        // Begun before: whoever starts a thread then waits for its answer.
        thread::spawn(move || {
            let listener = listener.recv().unwrap();
            // The first is the one that tells of events.
            let mut answers = [Answer::Done, Answer::Fails(Errno::EAGAIN)].into_iter();
            while let Ok(waiting) = seccomp::next_waiting(listener.as_fd()) {
                let answer = answers.next().unwrap_or(Answer::Done);
                let _ = seccomp::answer(listener.as_fd(), waiting, answer);
            }
        });
        sender.send(seccomp::listen_to(libc::SYS_clone3).unwrap()).unwrap();
        static HAS_RETURNED: AtomicBool = AtomicBool::new(false);
        let (told, is_late) = mpsc::channel();
        let pool = Pool::builder().on_event(move |event| {
            assert!(matches!(event, Event::Closed), "{event:?}");
            // Whoever starts the pool waits for this, or goes on meanwhile.
            let is_late = loop {
                if HAS_RETURNED.load(Ordering::Relaxed) {
                    break true;
                }
                if (0..20).all(|_| sleeps(Pid::this())) {
                    break HAS_RETURNED.load(Ordering::Relaxed);
                }
                thread::yield_now();
            };
            told.send(is_late).unwrap();
        });
        let outcome = pool.start().map(drop);
        HAS_RETURNED.store(true, Ordering::Relaxed);
        let Err(BuildError::System { source, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(source.raw_os_error(), Some(libc::EAGAIN));
        assert_eq!(is_late.recv(), Ok(false));
    });
    program.unwrap().join().unwrap();
    oracle.nothing_left();
}

/// Whether the main thread of `pid` waits for something.
fn sleeps(pid: Pid) -> bool {
    procfs::threads_of(pid).iter().any(|thread| thread.pid == pid && thread.state == 'S')
}

/// A channel of one message, whose first was received: that there is room again could not be said.
fn with_a_credit_that_fails(error: i32) -> (Sender<u64>, Receiver<u64>) {
    let (sender, receiver) = channel_with::<u64>(1).unwrap();
    sender.send(1).unwrap();
    let receiving = thread::spawn(move || {
        refuse_here(libc::SYS_sendto, error);
        assert_eq!(receiver.recv().unwrap(), 1);
        receiver
    });
    (sender, receiving.join().unwrap())
}

#[test]
fn a_sender_goes_on_although_the_kernel_could_not_yet_tell_it_that_there_is_room() {
    let (oracle, _watchdog) = begin();
    let passing = [libc::ENOBUFS, libc::ENOMEM, libc::EAGAIN];
    for (error, moves) in
        passing.map(|error| (error, false)).into_iter().chain([(libc::ENOMEM, true)])
    {
        let program = Process::start((error, moves), |(error, moves)| {
            let (sender, receiver) = with_a_credit_that_fails(error);
            if moves {
                let process = Process::start(receiver, |receiver| receiver.recv().unwrap());
                sender.send(2).unwrap();
                return assert_eq!(process.unwrap().join().unwrap(), 2);
            }
            let sending = thread::spawn(move || sender.send(2).unwrap());
            assert_eq!(receiver.recv().unwrap(), 2);
            sending.join().unwrap();
        });
        program.unwrap().join().unwrap();
    }
    oracle.nothing_left();
}

#[test]
fn a_sender_that_the_kernel_lets_nobody_tell_that_there_is_room_learns_that_nobody_receives() {
    let (oracle, _watchdog) = begin();
    for error in [libc::EPIPE, libc::ECONNRESET, libc::EPERM] {
        let program = Process::start(error, |error| {
            let (sender, receiver) = with_a_credit_that_fails(error);
            let sent = sender.send(2).unwrap_err();
            assert!(sent.is_disconnected(), "{sent}");
            drop(sender);
            assert!(matches!(receiver.recv(), Err(RecvError::Disconnected)));
        });
        program.unwrap().join().unwrap();
    }
    oracle.nothing_left();
}

/// A process of root's that crashes and leaves a process behind, while its parent is nobody by then:
/// what its end tells of that.
fn leave_behind((process, parent): (PathBuf, PathBuf)) -> TreeEnd {
    // By its cgroup it could be killed all the same.
    hide_cgroups().unwrap();
    let builder = Process::builder().end_tree().limit_core(0).grace_period(Duration::from_secs(1));
    let process: Process<()> = builder
        .start(process, |gate| {
            drop(Command::new("sleep").arg("1000").spawn().unwrap());
            Gate::pass(&gate);
            std::process::abort()
        })
        .unwrap();
    setuid(Uid::from_raw(65534)).unwrap();
    Gate::pass(&parent);
    await_end(&process);
    process.terminate().unwrap().tree.unwrap()
}

#[test]
fn what_is_left_of_a_tree_and_may_not_be_killed_is_told_and_not_awaited() {
    let (oracle, _watchdog) = begin();
    let can_be_tried =
        Process::start((), |()| Uid::effective().is_root() && hide_cgroups().is_ok());
    if !can_be_tried.unwrap().join().unwrap() {
        not_tried("what root has started, by another user and without cgroups");
        return oracle.nothing_left();
    }
    let [mut process, mut parent] = [Gate::new(), Gate::new()];
    parent.admit_everybody();
    let program = Process::start((process.path(), parent.path()), leave_behind).unwrap();
    process.wait();
    parent.wait();
    parent.open_once();
    process.open_once();
    let tree = program.join().unwrap();
    let told = (tree.mechanism, tree.left, tree.killed, tree.running);
    assert_eq!(told, (Mechanism::ProcessGroup, 1, 0, 1));
    let left = oracle.leftovers().processes;
    let [sleep] = &left[..] else { panic!("it runs on, alone: {left:#?}") };
    kill(sleep.pid, Signal::SIGKILL).unwrap();
    drop((process, parent));
    oracle.nothing_left_within(Duration::from_secs(20));
}
