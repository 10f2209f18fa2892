//! Whoever waits for a process takes in what it sends meanwhile: nobody waits for ever, and no
//! message is lost, doubled or left behind.

use std::fmt::Debug;
use std::thread;
use std::time::Duration;

use epilogue::process::StartMethod;
use epilogue::process::channel::RecvError;
use epilogue::{
    Pool, Process, Receiver, Sender, SharedSlice, channel, channel_with, join_all, scope, wait_all,
    wait_any,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::getpid;
use support::{Oracle, Watchdog, padded, procfs};

const PATIENCE: Duration = Duration::from_secs(300);
/// Many more than wait in a channel of the tests.
const MANY: u64 = 1000;

fn begin() -> (Oracle, Watchdog) {
    (Oracle::begin(), Watchdog::start(PATIENCE))
}

fn all<T: epilogue::Portable + Debug>(receiver: &Receiver<T>) -> Vec<T> {
    receiver.iter().collect::<Result<_, _>>().unwrap()
}

fn is_over<T: epilogue::Portable + Debug>(receiver: &Receiver<T>) -> bool {
    matches!(receiver.recv(), Err(RecvError::Disconnected))
}

fn send_many(sender: Sender<u64>) {
    (0..MANY).for_each(|n| sender.send(n).unwrap());
}

#[track_caller]
fn are_many(receiver: Receiver<u64>) {
    assert!(all(&receiver).into_iter().eq(0..MANY));
}

#[test]
fn a_process_that_sends_64_mib_before_anybody_reads_can_be_joined() {
    const MIB: usize = 1 << 20;
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    for len in [2000, MIB] {
        let (sender, receiver) = channel::<String>().unwrap();
        let process = Process::start((sender, len), |(sender, len): (Sender<String>, usize)| {
            (0..64 * MIB / len).for_each(|n| sender.send(padded(n, len)).unwrap());
        });
        process.unwrap().join().unwrap();
        let mut count = 0;
        for (n, received) in receiver.iter().enumerate() {
            assert_eq!(received.unwrap(), padded(n, len));
            count += 1;
        }
        assert_eq!(count, 64 * MIB / len);
    }
    oracle.nothing_left();
}

#[test]
fn a_process_that_is_dropped_is_not_left_waiting_for_a_receiver() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (sender, receiver) = channel_with::<u64>(1).unwrap();
    let process = Process::start(Some(vec![sender]), |senders: Option<Vec<Sender<u64>>>| {
        (0..1000).for_each(|n| senders.as_ref().unwrap()[0].send(n).unwrap());
    });
    drop(process.unwrap());
    assert_eq!(all(&receiver), (0..1000).collect::<Vec<_>>());
    drop(receiver);
    oracle.nothing_left();
}

#[test]
fn a_pool_is_not_left_waiting_for_a_receiver_whichever_way_it_is_waited_for() {
    fn send(sender: Sender<u64>) {
        (0..1000).for_each(|n| sender.send(n).unwrap());
    }
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let pool = Pool::new(2).unwrap();
    let ends = || channel_with::<u64>(1).unwrap();
    let sent = |receiver: &Receiver<u64>| all(receiver).into_iter().sum::<u64>();

    let (sender, receiver) = ends();
    pool.submit(sender, send).unwrap().join().unwrap();
    assert_eq!(sent(&receiver), 499_500);
    drop(receiver);

    let (sender, receiver) = ends();
    pool.map([sender.clone(), sender], send).unwrap();
    assert_eq!(sent(&receiver), 2 * 499_500);
    drop(receiver);

    let (sender, receiver) = ends();
    let with_state = |sender: &Sender<u64>, n: u64| (0..n).for_each(|n| sender.send(n).unwrap());
    pool.map_with(&sender, [1000, 1000], with_state).unwrap();
    drop(sender);
    assert_eq!(sent(&receiver), 2 * 499_500);
    drop(receiver);

    let (sender, receiver) = ends();
    let task = pool.submit(sender, send).unwrap();
    assert!(pool.close().unwrap().is_clean());
    drop((pool, task));
    assert_eq!(sent(&receiver), 499_500);
    drop(receiver);
    oracle.nothing_left();
}

#[test]
fn a_thread_that_receives_while_another_joins_misses_nothing() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    for _ in 0..20 {
        let (sender, receiver) = channel_with::<u64>(2).unwrap();
        let process = Process::start(sender, |sender: Sender<u64>| {
            (0..2000).for_each(|n| sender.send(n).unwrap());
        });
        let process = process.unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| all(&receiver));
            process.join().unwrap();
            assert_eq!(reader.join().unwrap(), (0..2000).collect::<Vec<_>>());
        });
    }
    oracle.nothing_left();
}

#[test]
fn a_receiver_that_is_dropped_while_another_thread_joins_ends_an_endless_sender() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (sender, receiver) = channel_with::<u64>(1).unwrap();
    let process = Process::start(sender, |sender: Sender<u64>| {
        (0..).find(|&n| sender.send(n).is_err()).unwrap_or(0)
    });
    let process = process.unwrap();
    std::thread::scope(|scope| {
        let joined = scope.spawn(|| process.join().unwrap());
        assert_eq!(receiver.recv().unwrap(), 0);
        // The one that joins has begun to take in what comes.
        let drains = |thread: &procfs::Entry| thread.name == "epilogue-drain";
        while !procfs::threads_of(getpid()).iter().any(drains) {
            std::thread::yield_now();
        }
        drop(receiver);
        assert!(joined.join().unwrap() > 0);
    });
    oracle.nothing_left();
}

#[test]
fn a_receiver_with_messages_taken_in_refuses_to_leave_them_behind() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (sender, receiver) = channel_with::<u64>(1).unwrap();
    let process = Process::start(sender, |sender: Sender<u64>| {
        (0..10).for_each(|n| sender.send(n).unwrap());
    });
    process.unwrap().join().unwrap();
    let (ends, received) = channel::<Receiver<u64>>().unwrap();
    let error = ends.send(receiver).unwrap_err();
    assert!(error.to_string().contains("receive them"), "{error}");
    let receiver = error.into_inner();
    assert_eq!(all(&receiver), (0..10).collect::<Vec<_>>());
    // Now there is nothing to lose.
    ends.send(receiver).unwrap();
    assert!(is_over(&received.recv().unwrap()));
    drop((ends, received));
    oracle.nothing_left();
}

#[test]
fn whoever_only_looks_whether_a_process_has_ended_takes_in_what_it_sends() {
    let (oracle, _watchdog) = begin();
    let (sender, receiver) = channel_with(2).unwrap();
    let mut tried = Process::start(sender, send_many).unwrap();
    while tried.try_join().unwrap().is_none() {
        thread::yield_now();
    }
    are_many(receiver);
    let (sender, receiver) = channel_with(2).unwrap();
    let asked = Process::start(sender, send_many).unwrap();
    while !asked.is_finished() {
        thread::yield_now();
    }
    are_many(receiver);
    drop((tried, asked));
    oracle.nothing_left();
}

/// The first waits for the second, which waits for us to receive.
fn chain(receiver: Receiver<u64>) -> bool {
    receiver.iter().next().is_none()
}

fn send_and_let_go((sender, _chain): (Sender<u64>, Sender<u64>)) -> bool {
    send_many(sender);
    true
}

#[test]
fn several_that_wait_for_each_other_and_for_us_can_be_joined_in_any_order() {
    let (oracle, _watchdog) = begin();
    let ends = || {
        let (sender, receiver) = channel_with(2).unwrap();
        let (link, linked) = channel::<u64>().unwrap();
        let first = Process::start(linked, chain).unwrap();
        (first, Process::start((sender, link), send_and_let_go).unwrap(), receiver)
    };
    let (first, second, receiver) = ends();
    assert!(join_all([first, second]).into_iter().all(Result::unwrap));
    are_many(receiver);

    let (first, second, receiver) = ends();
    wait_all(&[&first, &second]);
    assert!(first.is_finished() && second.is_finished());
    assert!(first.join().unwrap() && second.join().unwrap());
    are_many(receiver);

    let (first, second, receiver) = ends();
    assert!(wait_any(&[&first, &second]).is_some());
    drop((first, second));
    are_many(receiver);
    oracle.nothing_left();
}

#[test]
fn a_scope_ends_although_its_processes_wait_for_each_other_and_for_us() {
    let (oracle, _watchdog) = begin();
    let (sender, receiver) = channel_with(2).unwrap();
    let (link, linked) = channel::<u64>().unwrap();
    scope(|s| {
        std::mem::forget(s.start(linked, chain).unwrap());
        std::mem::forget(s.start((sender, link), send_and_let_go).unwrap());
    });
    are_many(receiver);
    oracle.nothing_left();
}

/// So few descriptors as long as it lives.
struct Few(u64, u64);

impl Few {
    fn descriptors(count: u64) -> Self {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, count, hard).unwrap();
        Self(soft, hard)
    }
}

impl Drop for Few {
    fn drop(&mut self) {
        setrlimit(Resource::RLIMIT_NOFILE, self.0, self.1).unwrap();
    }
}

#[test]
fn messages_that_hold_descriptors_are_taken_in_as_far_as_there_is_room_and_none_is_lost() {
    let (oracle, _watchdog) = begin();
    let few = Few::descriptors(120);
    let (sender, receiver) = channel_with::<SharedSlice<u64>>(2).unwrap();
    let process = Process::start(sender, |sender: Sender<SharedSlice<u64>>| {
        (0..MANY).for_each(|n| sender.send(SharedSlice::copy_from(&[n]).unwrap()).unwrap());
    });
    let process = process.unwrap();
    let joining = thread::spawn(move || process.join());
    // There are so many that the sender has to wait until somebody receives.
    while procfs::descriptors_of(getpid()) < 60 {
        thread::yield_now();
    }
    for n in 0..MANY {
        assert_eq!(*receiver.recv().unwrap(), [n]);
    }
    assert!(is_over(&receiver));
    joining.join().unwrap().unwrap();
    drop((receiver, few));
    oracle.nothing_left();
}

#[test]
fn a_receiver_that_is_dropped_with_what_was_taken_in_makes_room_for_the_others() {
    let (oracle, _watchdog) = begin();
    let few = Few::descriptors(120);
    let (sender, full) = channel::<SharedSlice<u64>>().unwrap();
    let process = Process::start(sender, |sender: Sender<SharedSlice<u64>>| {
        (0..125).for_each(|n| sender.send(SharedSlice::copy_from(&[n]).unwrap()).unwrap());
    });
    // As many as may be are taken in, 61, or it would not end: no more than 64 can wait.
    process.unwrap().join().unwrap();
    let (sender, receiver) = channel_with(2).unwrap();
    let process = Process::start(sender, send_many).unwrap();
    let joining = thread::spawn(move || process.join());
    // Whoever takes in has found no room, and waits for it.
    let waits = |thread: &procfs::Entry| thread.name == "epilogue-drain" && thread.state == 'S';
    while !procfs::threads_of(getpid()).iter().any(waits) {
        thread::yield_now();
    }
    drop(full);
    joining.join().unwrap().unwrap();
    are_many(receiver);
    drop(few);
    oracle.nothing_left();
}

#[test]
fn a_message_whose_descriptors_find_no_room_is_an_error_in_its_place() {
    let (oracle, _watchdog) = begin();
    let (sender, receiver) = channel_with::<Vec<SharedSlice<u8>>>(4).unwrap();
    let slices = |count: u8| (0..count).map(|n| SharedSlice::copy_from(&[n]).unwrap()).collect();
    for count in [1, 60, 2] {
        sender.send(slices(count)).unwrap();
    }
    let few = Few::descriptors(40);
    assert_eq!(receiver.recv().unwrap().len(), 1);
    let lost = receiver.recv().unwrap_err();
    assert!(matches!(&lost, RecvError::Decode(_)), "{lost}");
    assert!(lost.to_string().contains("more than this process may open"), "{lost}");
    assert_eq!(receiver.recv().unwrap().len(), 2);
    drop((sender, receiver, few));
    oracle.nothing_left();
}

#[test]
fn messages_are_taken_in_where_no_descriptors_are_allowed_any_more() {
    let (oracle, _watchdog) = begin();
    let (sender, receiver) = channel_with(2).unwrap();
    let process = Process::start(sender, send_many).unwrap();
    let few = Few::descriptors(0);
    process.join().unwrap();
    let count = receiver.iter().map(Result::unwrap).count();
    drop(few);
    assert_eq!(count as u64, MANY);
    drop(receiver);
    oracle.nothing_left();
}

fn send_while_received(sender: Sender<u64>) {
    let _ = (0..MANY).try_for_each(|n| sender.send(n));
}

#[test]
fn a_receiver_that_goes_on_to_another_process_leaves_no_message_behind() {
    let (oracle, _watchdog) = begin();
    let by_server = || Process::builder().start_method(StartMethod::Server);
    for _ in 0..60 {
        let (sender, receiver) = channel_with(64).unwrap();
        let process = by_server().start(sender, send_while_received).unwrap();
        // While it is being joined, messages are taken in here, but never after it was packed.
        let joining = thread::spawn(move || process.join());
        let heir = by_server().start(receiver, |receiver: Receiver<u64>| all(&receiver));
        // Else something had been taken in before, and it was refused.
        if let Ok(heir) = heir {
            assert!(heir.join().unwrap().into_iter().eq(0..MANY));
        }
        joining.join().unwrap().unwrap();
    }
    epilogue::end_servers();
    oracle.nothing_left();
}

#[test]
fn a_receiver_that_could_not_go_on_is_taken_in_for_again() {
    let (oracle, _watchdog) = begin();
    let (sender, receiver) = channel_with(2).unwrap();
    let (ends, gone) = channel_with::<Receiver<u64>>(1).unwrap();
    drop(gone);
    let process = Process::start(sender, send_many).unwrap();
    let receiver = ends.send(receiver).unwrap_err().into_inner();
    process.join().unwrap();
    are_many(receiver);
    drop(ends);
    oracle.nothing_left();
}
