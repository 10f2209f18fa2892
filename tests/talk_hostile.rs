//! A worker that sends what it must not hurts its own tasks, and nobody else.

use std::fs::{self, File};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use epilogue::process::channel::RecvError;
use epilogue::{
    JoinError, Pool, Process, Receiver, Sender, StartError, TaskError, channel, join_all,
};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, MsgFlags, Shutdown, send, sendmsg, shutdown};
use nix::unistd::{Pid, getpid, setsid};
use support::{Gate, Oracle, Watchdog, not_tried, procfs, raw, sys};

const PATIENCE: Duration = Duration::from_secs(300);

/// The worker's end of its wire.
const WIRE: RawFd = 3;

/// Sends bytes with so many descriptors; how often it could, of so many times.
fn send_descriptors(socket: RawFd, bytes: &[u8], count: usize, times: usize) -> usize {
    let null = File::open("/dev/null").unwrap();
    let fds = vec![null.as_raw_fd(); count];
    let (data, control) = ([IoSlice::new(bytes)], [ControlMessage::ScmRights(&fds)]);
    let flags = MsgFlags::MSG_NOSIGNAL;
    let send = |_: &usize| sendmsg::<()>(socket, &data, &control, flags, None).is_ok();
    (0..times).take_while(send).count()
}

/// The header of an endless frame, then descriptors with every byte of it.
fn flood(times: usize) {
    let mut header = [0u8; 24];
    header[0..2].copy_from_slice(&0xE91Eu16.to_le_bytes());
    header[2] = 130;
    header[16..24].copy_from_slice(&(1u64 << 20).to_le_bytes());
    send(WIRE, &header, MsgFlags::MSG_NOSIGNAL).unwrap();
    send_descriptors(WIRE, &[0], 253, times);
}

/// The memory of a process, and where in there the ring is that it shares with its parent: a way
/// past everything that is meant to write there.
fn ring_of(process: Pid) -> (File, u64) {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let line = maps.lines().find(|line| line.contains("epilogue-ring")).unwrap();
    let start = u64::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
    let memory = File::options().read(true).write(true).open(format!("/proc/{process}/mem"));
    (memory.unwrap(), start)
}

fn word((memory, start): &(File, u64), at: u64) -> u64 {
    let mut word = [0; 8];
    memory.read_exact_at(&mut word, start + at * 8).unwrap();
    u64::from_le_bytes(word)
}

/// The word that says how far answers have been written; see `process/src/ring/README.md`.
const REPLY_TAIL: u64 = 24;
/// The word that says how far they have been taken.
const REPLY_HEAD: u64 = 32;

/// Writes words into the ring of this process.
fn forge(words: &[(u64, u64)]) {
    let (memory, start) = ring_of(getpid());
    for (at, word) in words {
        memory.write_all_at(&word.to_le_bytes(), start + at * 8).unwrap();
    }
}

/// Writes answers to a call that nobody has made all over the half of the ring that is for answers, of
/// so many words behind that for calls, and says without end that as many have come again.
fn flood_the_ring(calls: u64, answers: u64) -> ! {
    let ring = ring_of(getpid());
    // Its number; the first of its items, and the form; no bytes, and one item; the time that it took.
    let record = [1u64 << 60, 0, 1 << 32, 0].map(u64::to_le_bytes).concat();
    let records = record.repeat(answers as usize / 4);
    ring.0.write_all_at(&records, ring.1 + (72 + calls) * 8).unwrap();
    forge(&[(REPLY_TAIL, answers)]);
    // There is something in the ring.
    send(WIRE, &header(133, 0, 0), MsgFlags::MSG_NOSIGNAL).unwrap();
    loop {
        let tail = word(&ring, REPLY_HEAD) + answers;
        ring.0.write_all_at(&tail.to_le_bytes(), ring.1 + REPLY_TAIL * 8).unwrap();
    }
}

#[test]
fn a_process_that_says_it_has_more_answers_than_it_was_asked_for_does_not_hold_up_its_parent() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let process: Result<Process<()>, _> = Process::start((), |()| {
        // Behind the words that control, 72, and the calls, 128: four words of a record, whose third
        // says how many answers there are. The word 24 says that it is there.
        let count = u64::from(u32::MAX) << 32;
        forge(&[(200, 0), (201, 0), (202, count), (203, 0), (24, 4)]);
        sys::exit_now(0);
    });
    let error = process.unwrap().join().unwrap_err();
    assert!(matches!(error, JoinError::Protocol(_)), "{error}");
    oracle.nothing_left();
}

#[test]
fn a_process_that_floods_its_parent_with_descriptors_is_killed() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let before = procfs::descriptors_of(getpid());
    let process = Process::start((), |()| flood(10_000)).unwrap();
    let error = process.join().unwrap_err();
    assert!(matches!(&error, JoinError::Protocol(why) if why.contains("descriptors")), "{error}");
    assert_eq!(procfs::descriptors_of(getpid()), before);
    oracle.nothing_left();
}

#[test]
fn a_worker_that_sends_stray_descriptors_loses_its_own_task_only() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let pool = Pool::new(2).unwrap();
    let before = procfs::descriptors_of(getpid());
    let outcomes = pool.map_outcomes(0..40u64, |n| {
        if n == 11 {
            flood(100);
            loop {
                std::thread::park();
            }
        }
        n
    });
    for (n, outcome) in outcomes.unwrap().into_iter().enumerate() {
        match (n, outcome) {
            (11, Err(TaskError::WorkerLost(lost))) => {
                assert!(lost.to_string().contains("descriptors"), "{lost}");
            }
            (n, outcome) => assert_eq!(outcome.unwrap(), n as u64),
        }
    }
    assert!(procfs::descriptors_of(getpid()) <= before);
    let _ = pool.close().unwrap();
    drop(pool);
    oracle.nothing_left();
}

/// Says, in the memory that it shares with its parent, that it has answered more than there is room
/// for; then it waits for its end.
fn spoil_the_ring(gate: PathBuf) {
    // As soon as it has done this, it may be ended.
    Gate::pass(&gate);
    forge(&[(REPLY_TAIL, 1 << 40)]);
    support::park_for_ever()
}

#[test]
fn a_pool_that_closes_ends_a_worker_that_has_spoilt_its_ring() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let pool = Pool::new(2).unwrap();
    let mut gate = Gate::new();
    // Nobody waits for it, so it is the pool's own thread that looks for an answer.
    let task = pool.submit(gate.path(), spoil_the_ring).unwrap();
    gate.wait();
    gate.open_once();
    let report = pool.close().unwrap();
    assert_eq!((report.done, report.lost), (0, 1), "{report}");
    assert!(matches!(task.join(), Err(TaskError::WorkerLost(_))));
    drop((pool, gate));
    oracle.nothing_left();
}

/// Leaves a copy of itself that has its ring, floods that once the gate is open, and does not end.
fn leave_a_flood(gate: PathBuf) -> u64 {
    if raw::fork().is_none() {
        setsid().unwrap();
        Gate::pass(&gate);
        flood_the_ring(1 << 15, 1 << 15);
    }
    support::park_for_ever()
}

#[test]
fn a_copy_of_a_worker_that_floods_its_ring_keeps_nobody_from_the_pool() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let pool = Pool::new(2).unwrap();
    let mut gate = Gate::new();
    let task = pool.submit(gate.path(), leave_a_flood).unwrap();
    let copy = gate.wait();
    let pidfd = sys::pidfd_open(copy).unwrap();
    gate.open_once();
    let error = task.join().unwrap_err();
    assert!(error.to_string().contains("a call that it did not have"), "{error}");
    for n in 0..20u64 {
        assert_eq!(pool.submit(n, |n| n + 1).unwrap().join().unwrap(), n + 1);
    }
    drop(pool.terminate().unwrap());
    // It still writes. Whether it does so fast enough to keep who reads is up to the scheduler; but
    // nobody has read on after the first record, which has four words.
    assert_eq!(word(&ring_of(copy), REPLY_HEAD), 4);
    sys::pidfd_signal(pidfd.as_fd(), Signal::SIGKILL).unwrap();
    drop((pool, gate, pidfd));
    oracle.nothing_left_within(PATIENCE);
}

#[test]
fn a_process_that_floods_its_ring_before_it_is_up_is_told_as_that() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let builder = Process::builder().initializer(|| flood_the_ring(128, 256));
    let error = builder.start((), |()| ()).map(|process| process.id()).unwrap_err();
    assert!(matches!(error, StartError::Protocol(_)), "{error:?}");
    oracle.nothing_left();
}

/// The header of a frame of that kind, with so many bytes to come.
fn header(kind: u8, id: u64, len: u64) -> [u8; 24] {
    let mut frame = [0u8; 24];
    frame[0..2].copy_from_slice(&0xE91Eu16.to_le_bytes());
    frame[2] = kind;
    frame[8..16].copy_from_slice(&id.to_le_bytes());
    frame[16..24].copy_from_slice(&len.to_le_bytes());
    frame
}

/// A whole answer of no meaning to the call of that number.
fn answer(id: u64) {
    send(WIRE, &header(130, id, 0), MsgFlags::MSG_NOSIGNAL).unwrap();
}

#[test]
fn a_process_that_answers_what_it_was_not_asked_or_twice_is_killed() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    for ids in [vec![1u64 << 60], vec![0, 0]] {
        // Longer than anybody's patience: it is not to be ended because it is done.
        let builder = Process::builder().grace_period(PATIENCE * 10);
        let hostile = |ids: Vec<u64>| -> u64 {
            ids.into_iter().for_each(answer);
            support::park_for_ever()
        };
        let error = builder.start(ids, hostile).unwrap().join().unwrap_err();
        assert!(matches!(error, JoinError::Protocol(_)), "{error:?}");
    }
    oracle.nothing_left();
}

#[test]
fn a_process_that_breaks_the_protocol_before_it_is_up_is_told_as_that() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let garbage = || assert!(send(WIRE, &[0x5A; 100], MsgFlags::MSG_NOSIGNAL).is_ok());
    let started = Process::builder().initializer(garbage).start((), |()| ());
    let error = started.map(|process| process.id()).unwrap_err();
    assert!(matches!(error, StartError::Protocol(_)), "{error:?}");
    oracle.nothing_left();
}

#[test]
fn a_process_that_says_again_what_is_said_once_or_no_goodbye_that_is_one_is_killed() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let hello = [&header(128, 0, 1)[..], &[0]].concat();
    // That it does not come up, after it has.
    let refusal = [&header(129, 0, 1)[..], &[0]].concat();
    // Three fields: no finalizers, no memory, no tree.
    let goodbye = [&header(131, 0, 4)[..], &[3, 0, 0, 0]].concat();
    let of_garbage = [&header(131, 0, 9)[..], &[0xFF; 9]].concat();
    let too_long = header(131, 0, 1 << 15).into_iter().chain([0; 1 << 15]).collect();
    let (again, garbage, long) = ("said again", "not a frame", "bytes, more than the limit");
    let all = [
        (hello, again),
        (refusal, again),
        (goodbye.repeat(2), again),
        (of_garbage, garbage),
        (too_long, long),
    ];
    for (frames, why) in all {
        let builder = Process::builder().grace_period(PATIENCE * 10);
        let hostile = |frames: Vec<u8>| -> u64 {
            send(WIRE, &frames, MsgFlags::MSG_NOSIGNAL).unwrap();
            support::park_for_ever()
        };
        let error = builder.start(frames, hostile).unwrap().join().unwrap_err();
        assert!(matches!(&error, JoinError::Protocol(told) if told.contains(why)), "{error:?}");
    }
    oracle.nothing_left();
}

/// Writes frames that ask nothing of the parent, more at a time than it reads at once, without end.
fn chatter((kind, gate): (u8, PathBuf)) -> u64 {
    let frames = header(kind, 0, 0).repeat(1 << 16);
    Gate::pass(&gate);
    while send(WIRE, &frames, MsgFlags::MSG_NOSIGNAL).is_ok() {}
    support::park_for_ever()
}

/// Kinds of which there may be many: begun, ready, missed, grown, note.
const OFTEN: [u8; 5] = [132, 133, 135, 136, 137];

#[test]
fn a_process_that_writes_without_end_neither_holds_up_who_waits_nor_escapes_its_end() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    for kind in OFTEN {
        let mut gate = Gate::new();
        let mut process = Process::start((kind, gate.path()), chatter).unwrap();
        gate.wait();
        gate.open_once();
        assert!(matches!(process.join_timeout(Duration::from_millis(50)), Ok(None)), "{kind}");
        assert!(process.terminate().is_ok());
    }
    oracle.nothing_left();
}

#[test]
fn a_worker_that_writes_without_end_keeps_no_task_of_others_waiting() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    for kind in OFTEN {
        let pool = Pool::new(2).unwrap();
        let mut gate = Gate::new();
        let task = pool.submit((kind, gate.path()), chatter).unwrap();
        gate.wait();
        gate.open_once();
        for n in 0..20u64 {
            assert_eq!(pool.submit(n, |n| n + 1).unwrap().join().unwrap(), n + 1);
        }
        drop(pool.terminate().unwrap());
        assert!(matches!(task.join(), Err(TaskError::Cancelled { begun: true })), "{kind}");
    }
    oracle.nothing_left();
}

/// The sockets of this process besides its wire: the ends that it was given.
fn ends() -> Vec<RawFd> {
    let fds = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let sockets = fds.filter(|entry| {
        fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().contains("socket:"))
    });
    let numbers = sockets.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|&fd| fd != WIRE).collect()
}

fn send_garbage(sender: Sender<u64>) {
    let [end] = ends()[..] else { panic!("{:?}", ends()) };
    let send = |bytes: &[u8]| send(end, bytes, MsgFlags::empty()).unwrap();
    send(&[9; 100]); // No such kind of message.
    send(&[0; 100]); // A number, and more.
    send(&[1, 0, 0]); // In a file, without one.
    send(&[]);
    let mut in_file = vec![1];
    in_file.extend_from_slice(&u64::MAX.to_le_bytes());
    send_descriptors(end, &in_file, 1, 1);
    in_file[1..].copy_from_slice(&100u64.to_le_bytes());
    send_descriptors(end, &in_file, 1, 1);
    send_descriptors(end, &[0, 7], 253, 1);
    send(&vec![0; 100_000]); // Longer than any.
    sender.send(42).unwrap();
}

#[track_caller]
fn is_garbage(receiver: &Receiver<u64>) {
    for n in 0..8 {
        match receiver.recv() {
            // Descriptors that a message does not ask for are closed.
            Ok(7) if n == 6 => {}
            Err(RecvError::Decode(_)) => assert!(n != 6),
            other => panic!("{n}: {other:?}"),
        }
    }
    assert_eq!(receiver.recv().unwrap(), 42);
    assert!(matches!(receiver.recv(), Err(RecvError::Disconnected)));
}

#[test]
fn garbage_in_a_channel_is_an_error_a_message() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (sender, receiver) = channel::<u64>().unwrap();
    let process = Process::start(sender, send_garbage);
    let before = procfs::descriptors_of(getpid());
    is_garbage(&receiver);
    assert!(procfs::descriptors_of(getpid()) <= before);
    process.unwrap().join().unwrap();
    drop(receiver);
    oracle.nothing_left();
}

#[test]
fn garbage_that_is_taken_in_is_an_error_a_message_and_keeps_nobody_from_others() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (sender, garbage) = channel::<u64>().unwrap();
    let mut looked_at = Process::start(sender, send_garbage).unwrap();
    while looked_at.try_join().unwrap().is_none() {
        std::thread::yield_now();
    }
    is_garbage(&garbage);
    drop((looked_at, garbage));
    let ((sender, garbage), (honest, numbers)) = (channel().unwrap(), channel().unwrap());
    let hostile = Process::start(sender, send_garbage).unwrap();
    let honest = Process::start(honest, |honest: Sender<u64>| {
        (0..1000).for_each(|n| honest.send(n).unwrap());
    });
    assert!(join_all([hostile, honest.unwrap()]).into_iter().all(|joined| joined.is_ok()));
    is_garbage(&garbage);
    assert!(numbers.iter().map(Result::unwrap).eq(0..1000));
    drop((garbage, numbers));
    oracle.nothing_left();
}

/// Sends a message that claims to be as long as one may be, in a file with nothing in it.
fn send_nothing_at_length((sender, gate): (Sender<u64>, PathBuf)) {
    let [end] = ends()[..] else { panic!("{:?}", ends()) };
    let file = memfd_create(c"nothing", MFdFlags::MFD_ALLOW_SEALING).unwrap();
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    let mut message = vec![1];
    message.extend_from_slice(&(256u64 << 20).to_le_bytes());
    let (data, fds) = ([IoSlice::new(&message)], [file.as_raw_fd()]);
    let control = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(end, &data, &control, MsgFlags::MSG_NOSIGNAL, None).unwrap();
    Gate::pass(&gate);
    drop(sender);
}

#[test]
fn a_message_that_claims_to_be_long_costs_who_looks_no_memory() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    // In a process whose memory no other test takes.
    let grown = Process::start((), |()| {
        let mut gate = Gate::new();
        let (sender, receiver) = channel::<u64>().unwrap();
        let process = Process::start((sender, gate.path()), send_nothing_at_length).unwrap();
        gate.wait();
        let before = procfs::peak_memory();
        // By that it is taken in.
        assert!(!process.is_finished());
        let grown = procfs::peak_memory() - before;
        assert!(matches!(receiver.recv(), Err(RecvError::Decode(_))));
        gate.open_once();
        process.join().unwrap();
        grown
    });
    let grown = grown.unwrap().join().unwrap();
    assert!(grown < 64 << 10, "{grown} KiB");
    oracle.nothing_left();
}

/// Says that it will send no more, and stays.
fn end_its_half((sender, gate): (Sender<u64>, PathBuf)) {
    let [end] = ends()[..] else { panic!("{:?}", ends()) };
    shutdown(end, Shutdown::Write).unwrap();
    Gate::pass(&gate);
    drop(sender);
}

#[test]
fn a_sender_that_ends_its_half_of_a_channel_is_gone() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let mut gate = Gate::new();
    let (sender, receiver) = channel::<u64>().unwrap();
    let process = Process::start((sender.clone(), gate.path()), end_its_half).unwrap();
    gate.wait();
    assert!(!process.is_finished());
    // Another one that has a sender of the same channel, and ends: so does taking in for it.
    Process::start(sender, drop).unwrap().join().unwrap();
    assert!(matches!(receiver.recv(), Err(RecvError::Disconnected)));
    gate.open_once();
    process.join().unwrap();
    drop((receiver, gate));
    oracle.nothing_left();
}

/// Sends what is no message as fast as it can, whether there is a credit or not.
fn flood_a_channel(_sender: Sender<u64>) {
    let [end] = ends()[..] else { panic!("{:?}", ends()) };
    while send(end, &[9], MsgFlags::MSG_NOSIGNAL).is_ok() {}
}

#[test]
fn a_process_that_floods_a_channel_holds_up_neither_who_waits_nor_who_lets_go_of_it() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (sender, receiver) = channel::<u64>().unwrap();
    let process = Process::start(sender.clone(), flood_a_channel).unwrap();
    assert!(matches!(receiver.recv(), Err(RecvError::Decode(_))));
    assert!(!process.is_finished());
    // Another one that has a sender of the same channel, and ends.
    Process::start(sender, drop).unwrap().join().unwrap();
    std::thread::scope(|scope| {
        let joined = scope.spawn(|| process.join().unwrap());
        let drains = |thread: &procfs::Entry| thread.name == "epilogue-drain";
        while !procfs::threads_of(getpid()).iter().any(drains) {
            std::thread::yield_now();
        }
        drop(receiver);
        joined.join().unwrap();
    });
    oracle.nothing_left();
}

#[test]
fn a_receiver_that_gives_out_too_many_credits_makes_nobody_block_or_grow() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (sender, receiver) = channel::<Vec<u8>>().unwrap();
    let process: Process<()> = Process::start(receiver, |receiver: Receiver<Vec<u8>>| {
        let [end] = ends()[..] else { panic!("{:?}", ends()) };
        while send(end, &[0], MsgFlags::MSG_DONTWAIT).is_ok() {}
        let first = receiver.recv().unwrap().len();
        // Never again, and it stays.
        loop {
            std::thread::park_timeout(Duration::from_secs(first as u64));
        }
    })
    .unwrap();
    sender.send(vec![1]).unwrap();
    let timeout = Duration::from_millis(50);
    // The kernel's buffer is what bounds it now.
    let sent = (0..).take_while(|_| sender.send_timeout(vec![0; 1000], timeout).is_ok()).count();
    assert!(sent < 10_000, "{sent}");
    assert!(process.terminate().is_ok());
    drop(sender);
    oracle.nothing_left();
}

/// Makes a channel whose messages come with something that nobody sent, as these options say, and with
/// a message in it that leaves no room for that. None if the kernel has no such option.
fn make_talkative(options: Vec<i32>) -> Option<(Sender<u64>, Receiver<u64>)> {
    let made = channel().unwrap();
    let both = ends();
    let all = both.iter().flat_map(|&end| options.iter().map(move |&option| (end, option)));
    if !all.into_iter().all(|(end, option)| sys::turn_on(end, option).is_ok()) {
        return None;
    }
    assert_eq!(send_descriptors(both[0], &[0, 7], 253, 1), 1);
    Some(made)
}

#[test]
fn a_channel_whose_messages_come_with_what_nobody_sent_keeps_nothing_of_that() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (pidfds, credentials) = (libc::SO_PASSPIDFD, libc::SO_PASSCRED);
    for options in [vec![pidfds], vec![credentials], vec![pidfds, credentials]] {
        let made = Process::start(options, make_talkative).unwrap().join().unwrap();
        let Some((sender, receiver)) = made else {
            not_tried("before Linux 6.5 no message comes with a pidfd");
            continue;
        };
        let before = procfs::descriptors_of(getpid());
        assert!(matches!(receiver.recv(), Err(RecvError::Decode(_))));
        for n in 0..20 {
            sender.send(n).unwrap();
            assert_eq!(receiver.recv().unwrap(), n);
        }
        assert_eq!(procfs::descriptors_of(getpid()), before);
    }
    oracle.nothing_left();
}

#[test]
fn an_end_that_is_no_channel_is_refused() {
    use epilogue::process::parcel::attach;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};
    use std::sync::Arc;

    #[derive(Debug)]
    struct Lie(#[expect(dead_code, reason = "only its decoding matters")] Option<Receiver<u64>>);
    impl Serialize for Lie {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            #[derive(Serialize)]
            struct End {
                socket: u32,
                id: u64,
            }
            let file = Arc::new(File::open("/dev/zero").map_err(ser::Error::custom)?.into());
            let socket = attach(&file).map_err(ser::Error::custom)?;
            End { socket, id: 0 }.serialize(serializer)
        }
    }
    impl<'de> Deserialize<'de> for Lie {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            Receiver::deserialize(deserializer).map(|end| Self(Some(end)))
        }
    }
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let process: Process<Lie> = Process::start((), |()| Lie(None)).unwrap();
    let error = process.join().unwrap_err();
    assert!(error.to_string().contains("a channel that is none"), "{error}");
    oracle.nothing_left();
}
