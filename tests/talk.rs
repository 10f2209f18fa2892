//! Channels: whatever happens at one end, the other gets whole messages and then a clear word.

use std::fmt::Debug;
use std::time::Duration;

use epilogue::process::channel::{MAX_CAPACITY, RecvError};
use epilogue::{
    Pool, Process, Receiver, RecvTimeoutError, SendError, SendTimeoutError, Sender, TryRecvError,
    TrySendError, channel, channel_with, scope,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};
use serde::{Deserialize, Deserializer, Serialize, de};
use support::{Oracle, Watchdog, padded};

const PATIENCE: Duration = Duration::from_secs(300);
/// Long enough that nobody who is right waits for it.
const FOREVER: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(20);

fn all<T: epilogue::Portable + Debug>(receiver: &Receiver<T>) -> Vec<T> {
    receiver.iter().collect::<Result<_, _>>().unwrap()
}

fn is_over<T: epilogue::Portable + Debug>(receiver: &Receiver<T>) -> bool {
    matches!(receiver.recv(), Err(RecvError::Disconnected))
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(id.try_into().unwrap())
}

fn double((numbers, doubles): (Receiver<u64>, Sender<u64>)) {
    for number in numbers {
        doubles.send(number.unwrap() * 2).unwrap();
    }
}

#[test]
fn messages_go_both_ways_in_their_order() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (numbers, receiver) = channel::<u64>().unwrap();
    let (sender, doubles) = channel::<u64>().unwrap();
    let process = Process::start((receiver, sender), double).unwrap();
    for n in 0..1000 {
        numbers.send(n).unwrap();
        assert_eq!(doubles.recv().unwrap(), 2 * n);
    }
    drop(numbers);
    assert!(is_over(&doubles));
    process.join().unwrap();
    drop(doubles);
    oracle.nothing_left();
}

#[test]
fn an_end_can_be_a_result() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let process = Process::start(10u64, |n| {
        let (sender, receiver) = channel::<u64>().unwrap();
        (0..n).for_each(|i| sender.send(i).unwrap());
        receiver
    });
    let receiver = process.unwrap().join().unwrap();
    assert_eq!(all(&receiver), (0..10).collect::<Vec<_>>());
    drop(receiver);
    oracle.nothing_left();
}

#[derive(Debug, Serialize, Deserialize)]
struct Question {
    number: u64,
    answer: Option<Sender<u64>>,
}

#[test]
fn an_end_travels_in_the_message_of_another_channel() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (questions, receiver) = channel::<Question>().unwrap();
    let process = Process::start(receiver, |questions: Receiver<Question>| {
        for question in questions {
            let Question { number, answer } = question.unwrap();
            answer.unwrap().send(number + 1).unwrap();
        }
    });
    let process = process.unwrap();
    for number in 0..100 {
        let (answer, answers) = channel().unwrap();
        questions.send(Question { number, answer: Some(answer) }).unwrap();
        assert_eq!(answers.recv().unwrap(), number + 1);
        assert!(is_over(&answers));
    }
    drop(questions);
    process.join().unwrap();
    oracle.nothing_left();
}

#[test]
fn a_child_of_a_child_talks_to_the_first_of_them() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (sender, receiver) = channel::<(u32, u32)>().unwrap();
    let child = Process::start(sender, |sender: Sender<(u32, u32)>| {
        let grandchild = Process::start(sender, |sender: Sender<(u32, u32)>| {
            let parent = nix::unistd::getppid().as_raw() as u32;
            sender.send((parent, std::process::id())).unwrap();
        });
        grandchild.unwrap().join().unwrap();
    });
    let child = child.unwrap();
    let (parent, grandchild) = receiver.recv().unwrap();
    assert_eq!(parent, child.id());
    assert_ne!(grandchild, child.id());
    assert!(is_over(&receiver));
    child.join().unwrap();
    drop(receiver);
    oracle.nothing_left();
}

#[test]
fn a_receiver_that_is_killed_is_noticed_and_the_message_comes_back() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    for sent in 0..20 {
        let (sender, receiver) = channel_with::<String>(4).unwrap();
        let process =
            Process::start((receiver, sent), |(receiver, sent): (Receiver<String>, u64)| {
                receiver.iter().take(sent as usize).for_each(drop);
                kill(getpid(), Signal::SIGKILL).unwrap();
            });
        let process = process.unwrap();
        let error = (0..)
            .find_map(|n| sender.send(format!("message {n}")).map_err(|error| (n, error)).err())
            .unwrap();
        let (n, SendError::Disconnected(message)) = error else { panic!("{error:?}") };
        assert_eq!(message, format!("message {n}"));
        assert!(matches!(sender.try_send("x".into()), Err(TrySendError::Disconnected(_))));
        let late = sender.send_timeout("x".into(), FOREVER).unwrap_err();
        assert!(late.is_disconnected());
        assert!(process.join().is_err());
    }
    oracle.nothing_left();
}

/// A text that tells whether it is whole.
#[derive(Debug, Serialize, Deserialize)]
struct Numbered {
    number: u64,
    text: String,
}

impl Numbered {
    fn new(number: u64) -> Self {
        // Inline, in a file, and in between.
        let len: usize = [0, 1, 100, 3000, 5000, 70_000, 300_000][number as usize % 7];
        Self { number, text: padded(number as usize, len) }
    }

    fn is_whole(&self) -> bool {
        self.text == Self::new(self.number).text
    }
}

#[test]
fn what_a_sender_that_is_killed_had_sent_arrives_whole_and_then_it_is_over() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    for received in 0..60 {
        let (sender, receiver) = channel_with::<Numbered>(8).unwrap();
        let process = Process::start(sender, |sender: Sender<Numbered>| {
            for n in 0.. {
                sender.send(Numbered::new(n)).unwrap();
            }
        });
        let process = process.unwrap();
        let mut numbers: Vec<_> = receiver.iter().take(received).map(Result::unwrap).collect();
        // It is in the middle of something, wherever that is.
        kill(pid(process.id()), Signal::SIGKILL).unwrap();
        numbers.extend(receiver.iter().map(Result::unwrap));
        assert!(numbers.iter().all(Numbered::is_whole));
        assert!(numbers.iter().map(|message| message.number).eq(0..numbers.len() as u64));
        assert!(is_over(&receiver));
        assert!(process.join().is_err());
    }
    oracle.nothing_left();
}

#[test]
fn senders_that_are_killed_take_no_room_from_those_that_go_on() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (sender, receiver) = channel_with::<u64>(1).unwrap();
    for _ in 0..60 {
        let process: Result<Process<()>, _> =
            Process::start(sender.clone(), |sender: Sender<u64>| {
                loop {
                    sender.send(1).unwrap();
                }
            });
        let process = process.unwrap();
        assert_eq!(receiver.recv().unwrap(), 1);
        kill(pid(process.id()), Signal::SIGKILL).unwrap();
        assert!(process.join().is_err());
    }
    while receiver.try_recv().is_ok() {}
    for n in 0..100 {
        sender.send(n).unwrap();
        assert_eq!(receiver.recv().unwrap(), n);
    }
    // Each may have left room for one more, in the instant in which it was killed.
    let fits = (0..).take_while(|&n| sender.try_send(n).is_ok()).count();
    assert!((1..=61).contains(&fits), "{fits}");
    drop((sender, receiver));
    oracle.nothing_left();
}

#[test]
fn as_many_messages_wait_as_the_capacity_and_no_more() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    for (capacity, len) in
        [(1, 10), (2, 100_000), (3, 60_000), (64, 6000), (256, 30_000), (256, 10)]
    {
        let (sender, receiver) = channel_with::<String>(capacity).unwrap();
        let message = "7".repeat(len);
        for round in 0..3 {
            let fits = (0..).take_while(|_| sender.try_send(message.clone()).is_ok()).count();
            assert_eq!(fits, if round == 0 { capacity } else { 1 });
            let error = sender.try_send(message.clone()).unwrap_err();
            assert!(matches!(&error, TrySendError::Full(back) if *back == message), "{error:?}");
            assert_eq!(receiver.recv().unwrap(), message);
        }
        assert_eq!(receiver.try_iter().count(), capacity - 1);
        assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
    }
    for capacity in [0, MAX_CAPACITY + 1] {
        let error = channel_with::<u8>(capacity).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
    oracle.nothing_left();
}

#[test]
fn whoever_waits_with_a_timeout_gets_it() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (sender, receiver) = channel_with::<u64>(1).unwrap();
    assert!(matches!(receiver.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout)));
    sender.send_timeout(1, FOREVER).unwrap();
    assert!(matches!(sender.send_timeout(2, SHORT), Err(SendTimeoutError::Timeout(2))));
    assert_eq!(receiver.recv_timeout(FOREVER).unwrap(), 1);
    drop(sender);
    assert!(matches!(receiver.recv_timeout(FOREVER), Err(RecvTimeoutError::Disconnected)));
    drop(receiver);
    oracle.nothing_left();
}

#[test]
fn a_large_message_is_one_message() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (sender, receiver) = channel_with::<Vec<u64>>(1).unwrap();
    let process = Process::start(sender, |sender: Sender<Vec<u64>>| {
        sender.send((0..2_000_000).collect()).unwrap();
    });
    let process = process.unwrap();
    assert!(receiver.recv().unwrap().into_iter().eq(0..2_000_000));
    assert!(is_over(&receiver));
    process.join().unwrap();
    drop(receiver);
    oracle.nothing_left();
}

#[test]
fn many_senders_share_a_receiver_and_each_keeps_its_order() {
    const SENDERS: u64 = 4;
    const EACH: u64 = 500;
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (sender, receiver) = channel_with::<(u64, u64)>(3).unwrap();
    scope(|scope| {
        let talk = |(name, sender): (u64, Sender<(u64, u64)>)| {
            (0..EACH).for_each(|n| sender.send((name, n)).unwrap());
        };
        // Held: a handle that is dropped is joined.
        let start = |name| scope.start((name, sender.clone()), talk).unwrap();
        let _processes: Vec<_> = (0..SENDERS).map(start).collect();
        drop(sender);
        let mut next = [0; SENDERS as usize];
        for message in &receiver {
            let (name, n) = message.unwrap();
            assert_eq!(n, next[name as usize]);
            next[name as usize] += 1;
        }
        assert_eq!(next, [EACH; SENDERS as usize]);
    });
    drop(receiver);
    oracle.nothing_left();
}

#[test]
fn a_task_that_drops_its_end_is_noticed_while_it_goes_on() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let pool = Pool::new(2).unwrap();
    for _ in 0..20 {
        let (sender, receiver) = channel::<u64>().unwrap();
        let (go_on, wait) = channel::<()>().unwrap();
        let task = pool.submit((sender, wait), |(sender, wait): (Sender<u64>, Receiver<()>)| {
            sender.send(1).unwrap();
            drop(sender);
            wait.recv().is_ok()
        });
        // The task is not over, but its sender is gone: neither pool nor worker keeps a copy.
        assert_eq!(all(&receiver), [1]);
        go_on.send(()).unwrap();
        assert!(task.unwrap().join().unwrap());
    }
    assert!(pool.close().unwrap().is_clean());
    drop(pool);
    oracle.nothing_left();
}

/// Can be read in one process only.
#[derive(Debug, Serialize)]
struct Private {
    reader: u32,
}

impl<'de> Deserialize<'de> for Private {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            reader: u32,
        }
        let Fields { reader } = Fields::deserialize(deserializer)?;
        match std::process::id() == reader {
            true => Ok(Self { reader }),
            false => Err(de::Error::custom("not for you")),
        }
    }
}

#[test]
fn a_message_that_cannot_be_read_is_an_error_in_its_place() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (sender, receiver) = channel::<Private>().unwrap();
    let process = Process::start((sender, std::process::id()), |(sender, parent)| {
        let sender: Sender<Private> = sender;
        // In debug builds the sender reads what it sends, and refuses.
        let refused = sender.send(Private { reader: std::process::id() }).is_err();
        let second = sender.send(Private { reader: parent });
        (refused, second.is_err_and(|error| matches!(error, SendError::Encode(..))))
    });
    // What the child can read, the parent cannot.
    let first = receiver.recv().unwrap_err();
    assert!(matches!(&first, RecvError::Decode(_)), "{first}");
    assert!(first.to_string().contains("not for you"), "{first}");
    let (refused, refused_second) = process.unwrap().join().unwrap();
    assert!(!refused);
    match cfg!(debug_assertions) {
        true => assert!(refused_second),
        false => assert_eq!(receiver.recv().unwrap().reader, std::process::id()),
    }
    assert!(is_over(&receiver));
    drop(receiver);
    oracle.nothing_left();
}

#[test]
fn an_end_that_goes_nowhere_refuses_to_be_written() {
    use epilogue::process::codec::encode;
    let oracle = Oracle::begin();
    let (sender, receiver) = channel::<u64>().unwrap();
    let limits = epilogue::Limits::default();
    for error in
        [encode(&sender, &mut Vec::new(), &limits), encode(&receiver, &mut vec![], &limits)]
    {
        assert!(error.unwrap_err().to_string().contains("another process"));
    }
    drop((sender, receiver));
    oracle.nothing_left();
}
