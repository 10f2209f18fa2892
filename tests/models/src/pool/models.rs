//! Callers that wait in all ways at once: each gets its outcomes, each once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Wake, Waker};

use shuttle::thread;

use crate::bells;
use crate::flag::Flag;
use crate::floor::Reader;
use crate::harness::Model;
use crate::mailbox::Mailbox;
use crate::reader::Need;
use crate::shared::Shared;
use crate::taken_out::Break;
use crate::wakes::Told;

const SOME: usize = 10_000;
/// One in some 100,000 is enough to show what was wrong there once.
const MANY: usize = 300_000;

pub(crate) const MODELS: [Model; 6] = [
    Model {
        name: "callers_that_wait",
        run: callers_that_wait,
        schedules: SOME,
        needs: &[Break::HandOver, Break::News, Break::Look, Break::Listen],
    },
    Model {
        name: "callers_that_leave",
        run: callers_that_leave,
        schedules: MANY,
        needs: &[Break::HandOver, Break::Look, Break::Listen],
    },
    Model {
        name: "tasks_that_are_awaited",
        run: tasks_that_are_awaited,
        schedules: SOME,
        needs: &[Break::Look, Break::Listen, Break::Leave],
    },
    Model {
        name: "tasks_that_are_awaited_and_lost",
        run: tasks_that_are_awaited_and_lost,
        schedules: SOME,
        needs: &[Break::Look, Break::Listen],
    },
    Model {
        name: "a_waker_that_waits",
        run: a_waker_that_waits,
        schedules: SOME,
        needs: &[Break::Quiet],
    },
    Model {
        name: "tasks_as_they_are_done",
        run: tasks_as_they_are_done,
        schedules: SOME,
        needs: &[Break::News, Break::Look, Break::Listen],
    },
];

/// How a worker ends that has answered all of its tasks but the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Answers,
    Dies,
}

/// What a worker is to do: whose task it is, and which of theirs.
type Tasks<'a> = &'a [(Arc<Mailbox>, usize)];

type Caller = Box<dyn FnOnce(&Arc<Shared>) + Send>;

/// Runs callers beside two workers and a supervisor. The first worker answers its tasks, the second one
/// as it says.
fn with_pool(end: End, tasks: [Tasks<'_>; 2], callers: Vec<Caller>) {
    let shared = Arc::new(Shared::new());
    let mut threads = Vec::new();
    let [first, second] = tasks;
    let (far, count) = (shared.floor().hire(first), first.len());
    threads.push(thread::spawn(move || {
        (0..count).for_each(|_| far.answer());
        far.idle();
    }));
    let (far, count) = (shared.floor().hire(second), second.len());
    threads.push(thread::spawn(move || {
        (1..count).for_each(|_| far.answer());
        match end {
            End::Answers => far.answer(),
            End::Dies => return far.die(),
        }
        far.idle();
    }));
    let supervisor = thread::spawn({
        let shared = Arc::clone(&shared);
        move || shared.supervise()
    });
    threads.extend(callers.into_iter().map(|caller| {
        let shared = Arc::clone(&shared);
        thread::spawn(move || caller(&shared))
    }));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    shared.end();
    supervisor.join().unwrap();
    let floor = shared.floor();
    assert!(floor.reader == Reader::None && floor.followers.is_empty());
    assert!(!shared.wakes.are_awaited());
}

fn mailboxes<const N: usize>() -> [Arc<Mailbox>; N] {
    bells::begin();
    std::array::from_fn(|_| Arc::default())
}

/// Waits until so many outcomes have come, and takes them; which they are.
fn take(shared: &Shared, mailbox: &Arc<Mailbox>, count: usize, need: Need) -> Vec<usize> {
    let (mut taken, mut arrived) = (Vec::new(), VecDeque::new());
    while taken.len() < count {
        shared.wait(mailbox, need, None);
        // As a map does it.
        mailbox.take_all(&mut arrived);
        taken.extend(arrived.drain(..).map(|arrival| arrival.first));
    }
    taken
}

/// Two callers wait for a task each, and one for three tasks, of which it wants to hear together.
fn callers_that_wait() {
    let [one, other, many] = mailboxes();
    let first = [(many.clone(), 0), (one.clone(), 0), (many.clone(), 1)];
    let second = [(other.clone(), 0), (many.clone(), 2)];
    with_pool(
        End::Dies,
        [&first, &second],
        vec![
            Box::new(move |shared| assert_eq!(take(shared, &one, 1, Need::Each), [0])),
            Box::new(move |shared| assert_eq!(take(shared, &other, 1, Need::Each), [0])),
            Box::new(move |shared| {
                let mut taken = take(shared, &many, 3, Need::Many(3));
                taken.sort_unstable();
                assert_eq!(taken, [0, 1, 2]);
            }),
        ],
    );
}

/// Three callers wait for a task each, and leave as soon as they have its outcome, whatever they were told
/// to do meanwhile. No death wakes who was forgotten.
fn callers_that_leave() {
    let all: [_; 3] = mailboxes();
    let [one, two, three] = all.clone().map(|mailbox| (mailbox, 0));
    let caller = |mailbox| -> Caller {
        Box::new(move |shared| assert_eq!(take(shared, &mailbox, 1, Need::Each), [0]))
    };
    with_pool(End::Answers, [&[one, two], &[three]], all.map(caller).into());
}

/// One caller waits, and two tasks are awaited without a thread: one is woken for, the other called back.
fn awaited(end: End) {
    let [waited, awaited, second] = mailboxes();
    let poll = |mailbox: Arc<Mailbox>, told: fn(Arc<Flag>) -> Told| -> Caller {
        Box::new(move |shared| {
            let flag = Arc::new(Flag::default());
            while mailbox.subscribe(told(Arc::clone(&flag)), &shared.wakes).is_ok() {
                shared.attend();
                flag.wait();
            }
            assert_eq!(mailbox.take().unwrap().first, 0);
            assert!(mailbox.take().is_none());
        })
    };
    with_pool(
        end,
        [&[(awaited.clone(), 0), (waited.clone(), 0)], &[(waited.clone(), 1), (second.clone(), 0)]],
        vec![
            poll(awaited, |flag| Told::Woken(Waker::from(flag))),
            poll(second, |flag| Told::Called(Box::new(move || flag.set()))),
            Box::new(move |shared| {
                let mut taken = take(shared, &waited, 2, Need::Each);
                taken.sort_unstable();
                assert_eq!(taken, [0, 1]);
            }),
        ],
    );
}

fn tasks_that_are_awaited() {
    awaited(End::Answers);
}

fn tasks_that_are_awaited_and_lost() {
    awaited(End::Dies);
}

/// Whoever is called as a task is done waits for another one, on whatever thread that is, while a caller
/// waits for two.
fn a_waker_that_waits() {
    struct Comes(Arc<Mailbox>, Arc<Shared>, Flag);
    impl Wake for Comes {
        fn wake(self: Arc<Self>) {
            assert_eq!(take(&self.1, &self.0, 1, Need::Each), [0]);
            self.2.set();
        }
    }
    let [waited, awaited, inner] = mailboxes();
    with_pool(
        End::Answers,
        [&[(awaited.clone(), 0), (waited.clone(), 0)], &[(inner.clone(), 0), (waited.clone(), 1)]],
        vec![
            Box::new(move |shared| {
                let comes = Arc::new(Comes(inner, Arc::clone(shared), Flag::default()));
                let told = Told::Woken(Waker::from(Arc::clone(&comes)));
                match awaited.subscribe(told, &shared.wakes) {
                    Ok(()) => shared.attend(),
                    Err(told) => told.tell(),
                }
                comes.2.wait();
                assert_eq!(awaited.take().unwrap().first, 0);
            }),
            Box::new(move |shared| {
                let mut taken = take(shared, &waited, 2, Need::Each);
                taken.sort_unstable();
                assert_eq!(taken, [0, 1]);
            }),
        ],
    );
}

/// The outcomes of three tasks go where one caller takes them as they are done, which it says late.
fn tasks_as_they_are_done() {
    let [first, second, third, all] = mailboxes();
    let each = [first.clone(), second.clone(), third.clone()];
    with_pool(
        End::Dies,
        [&[(first, 0), (second, 0)], &[(third, 0)]],
        vec![Box::new(move |shared| {
            for (position, mailbox) in each.iter().enumerate() {
                mailbox.forward(&all, position);
            }
            let mut taken = take(shared, &all, 3, Need::Each);
            taken.sort_unstable();
            assert_eq!(taken, [0, 1, 2]);
        })],
    );
}
