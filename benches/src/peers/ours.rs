//! Ours: the only file that calls the pool and the process of this repository.

use std::sync::mpsc::{self, Receiver};
use std::thread;

use epilogue::{Limits, Process, SharedSlice, StartMethod};

use super::Pool;
use crate::payload::{Kind, Payload, pattern, sum};
use crate::tasks::Task;

pub(super) struct Ours {
    pool: epilogue::Pool,
    workers: usize,
}

impl Ours {
    pub(super) fn spawned(workers: usize) -> Self {
        Self::start(workers, StartMethod::Spawn)
    }

    pub(super) fn forked(workers: usize) -> Self {
        Self::start(workers, StartMethod::Server)
    }

    fn start(workers: usize, method: StartMethod) -> Self {
        // The growth table sends more at once than the default allows.
        let mut limits = Limits::default();
        limits.max_bytes = limits.max_bytes.max((1 << 30) + 4096);
        let builder = epilogue::Pool::builder().workers(workers).limits(limits);
        Self { pool: builder.start_method(method).start().expect("a pool"), workers }
    }
}

/// A task as its user would write it: a function that captures nothing.
fn function(task: Task) -> fn(u64) -> u64 {
    match task {
        Task::Square => |x| Task::Square.run(x),
        Task::Spin => |x| Task::Spin.run(x),
        Task::Fragile => |x| Task::Fragile.run(x),
        Task::Meet => |x| Task::Meet.run(x),
        Task::Probe => |x| Task::Probe.run(x),
        Task::Sleep => |x| Task::Sleep.run(x),
        Task::Pin => |x| Task::Pin.run(x),
    }
}

impl Pool for Ours {
    fn map(&mut self, task: Task, xs: &[u64], chunk: Option<usize>) -> Vec<u64> {
        let maps = self.pool.chunk_size(chunk.unwrap_or(0));
        maps.map(xs.iter().copied(), function(task)).expect("a value of each")
    }

    fn one(&mut self, task: Task, x: u64) -> u64 {
        let task = self.pool.submit(x, function(task)).expect("a pool that takes tasks");
        task.join().expect("a value")
    }

    fn payload(&self, kind: Kind, len: usize) -> Option<Payload> {
        let shared = || SharedSlice::copy_from(&pattern(len)).expect("memory to share");
        match kind {
            Kind::Bytes | Kind::Floats => Payload::plain(kind, len),
            Kind::Shared => Some(Payload::Slice(shared())),
            Kind::View => Some(Payload::View(shared())),
        }
    }

    fn echo(&mut self, payload: Payload) -> Payload {
        const SENT: &str = "a pool that takes tasks";
        const BACK: &str = "what was sent";
        match payload {
            Payload::Bytes(bytes) => Payload::Bytes(
                self.pool.submit(bytes, |bytes| bytes).expect(SENT).join().expect(BACK),
            ),
            Payload::Floats(floats) => {
                let task = self.pool.submit(floats, |floats| floats).expect(SENT);
                Payload::Floats(task.join().expect(BACK))
            }
            Payload::Slice(slice) => {
                let copy = |slice: SharedSlice<u8>| SharedSlice::copy_from(&slice).expect("memory");
                Payload::Slice(self.pool.submit(slice, copy).expect(SENT).join().expect(BACK))
            }
            Payload::View(slice) => {
                let read = |slice: SharedSlice<u8>| (sum(&slice), slice);
                let (seen, slice) = self.pool.submit(slice, read).expect(SENT).join().expect(BACK);
                assert_eq!(seen, sum(&slice), "both read the same");
                Payload::View(slice)
            }
            Payload::Ipc(_) => unreachable!("the memory of another peer"),
        }
    }

    fn begin(&mut self, task: Task, x: u64) -> bool {
        for _ in 0..self.workers {
            // A task whose handle is dropped is done all the same.
            drop(self.pool.submit(x, function(task)).expect("a pool that takes tasks"));
        }
        true
    }

    fn fragile(self: Box<Self>, n: u64) -> Option<Receiver<(u64, Result<u64, String>)>> {
        let (send, outcomes) = mpsc::channel();
        thread::spawn(move || {
            let submit = |x| self.pool.submit(x, function(Task::Fragile)).expect("a pool");
            let tasks: Vec<_> = (0..n).map(submit).collect();
            for (x, task) in (0..n).zip(tasks) {
                // Nobody listens any more if it took too long in all.
                let _ = send.send((x, task.join().map_err(|error| error.to_string())));
            }
        });
        Some(outcomes)
    }

    fn close(self: Box<Self>) {
        let report = self.pool.close().expect("a pool that ends");
        assert!(report.is_clean(), "{report}");
    }
}

/// Squares of 0 to n, from an iterator that holds none of them.
pub(crate) fn lazy_squares(workers: usize, chunk: Option<usize>) -> impl FnMut(u64) -> Vec<u64> {
    let Ours { pool, .. } = Ours::spawned(workers);
    move |n| pool.chunk_size(chunk.unwrap_or(0)).map(0..n, |x| x * x).expect("a value of each")
}

/// A process that does nothing.
pub(crate) fn start_and_join(zygote: Zygote) {
    let method = match zygote {
        Zygote::No => StartMethod::Spawn,
        Zygote::Yes => StartMethod::Server,
    };
    let builder = Process::builder().start_method(method);
    builder.start((), |()| ()).expect("a process").join().expect("its end");
}

/// Whether a process is forked by a start server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zygote {
    No,
    Yes,
}
