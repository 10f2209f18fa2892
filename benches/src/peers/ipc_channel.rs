//! A small pool on ipc-channel: this executable started again, a channel to each worker, and one
//! that all answer on.

use std::process::{Child, Command};

use ipc_channel::ipc::{self, IpcOneShotServer, IpcReceiver, IpcSender, IpcSharedMemory};
use serde::{Deserialize, Serialize};

use super::{Pool, even_chunks};
use crate::payload::{Kind, Payload, pattern};
use crate::tasks::Task;

/// The first argument of a worker; then come the name of its parent's server, and its number.
pub(crate) const WORKER: &str = "ipc-worker";

pub(super) struct IpcChannel {
    workers: Vec<(Child, IpcSender<Request>)>,
    answers: IpcReceiver<Answer>,
    /// So that the receiver does not end while a worker that died has the last sender.
    _open: IpcSender<Answer>,
}

#[derive(Serialize, Deserialize)]
enum Request {
    AnswerTo(IpcSender<Answer>),
    One { at: usize, task: Task, x: u64 },
    Part { at: usize, task: Task, xs: Vec<u64> },
    Bytes(Vec<u8>),
    Floats(Vec<f64>),
    Shared(IpcSharedMemory),
}

#[derive(Serialize, Deserialize)]
enum Answer {
    One { worker: usize, at: usize, y: u64 },
    Part { worker: usize, at: usize, ys: Vec<u64> },
    Bytes(Vec<u8>),
    Floats(Vec<f64>),
    Shared(IpcSharedMemory),
}

/// The life of a worker.
pub(crate) fn work(server: &str, worker: usize) {
    let (send, requests) = ipc::channel::<Request>().expect("a channel");
    let greeting = IpcSender::connect(server.to_owned()).expect("the parent's server");
    greeting.send(send).expect("a parent that listens");
    let Ok(Request::AnswerTo(answers)) = requests.recv() else { return };
    while let Ok(request) = requests.recv() {
        let answer = match request {
            Request::One { at, task, x } => Answer::One { worker, at, y: task.run(x) },
            Request::Part { at, task, xs } => {
                let ys = xs.into_iter().map(|x| task.run(x)).collect();
                Answer::Part { worker, at, ys }
            }
            Request::Bytes(bytes) => Answer::Bytes(bytes),
            Request::Floats(floats) => Answer::Floats(floats),
            Request::Shared(memory) => Answer::Shared(IpcSharedMemory::from_bytes(&memory)),
            Request::AnswerTo(_) => unreachable!("sent once"),
        };
        if answers.send(answer).is_err() {
            return;
        }
    }
}

impl IpcChannel {
    pub(super) fn new(workers: usize) -> Self {
        let (answer, answers) = ipc::channel().expect("a channel");
        let start = |worker: usize| {
            let (server, name) = IpcOneShotServer::new().expect("a server");
            let mut command = Command::new("/proc/self/exe");
            let child = command.args([WORKER, &name, &worker.to_string()]).spawn();
            (child.expect("a worker"), server)
        };
        // All are started before the first is waited for.
        let started: Vec<_> = (0..workers).map(start).collect();
        let greet = |(child, server): (Child, IpcOneShotServer<IpcSender<Request>>)| {
            let (_, requests) = server.accept().expect("a worker that says hello");
            requests.send(Request::AnswerTo(answer.clone())).expect("a worker that listens");
            (child, requests)
        };
        let workers = started.into_iter().map(greet).collect();
        Self { workers, answers, _open: answer }
    }
}

impl Pool for IpcChannel {
    fn map(&mut self, task: Task, xs: &[u64], chunk: Option<usize>) -> Vec<u64> {
        let chunk = chunk.unwrap_or(even_chunks(xs.len(), self.workers.len()));
        // Sent ahead of the one that runs: many where tasks are tiny, few where they are long.
        let ahead = if chunk == 1 && task == Task::Square { 64 } else { 2 };
        let mut values = vec![0; xs.len()];
        let mut parts = xs.chunks(chunk).enumerate();
        let mut send = |requests: &IpcSender<Request>| {
            let Some((at, part)) = parts.next() else { return 0 };
            let request = match part {
                [x] if chunk == 1 => Request::One { at, task, x: *x },
                part => Request::Part { at, task, xs: part.to_vec() },
            };
            requests.send(request).expect("a worker that listens");
            1
        };
        let mut in_flight = 0;
        for _ in 0..ahead {
            in_flight += self.workers.iter().map(|(_, requests)| send(requests)).sum::<usize>();
        }
        while in_flight > 0 {
            let worker = match self.answers.recv().expect("an answer") {
                Answer::One { worker, at, y } => {
                    values[at] = y;
                    worker
                }
                Answer::Part { worker, at, ys } => {
                    values[at * chunk..][..ys.len()].copy_from_slice(&ys);
                    worker
                }
                _ => unreachable!("nothing else was asked for"),
            };
            in_flight += send(&self.workers[worker].1);
            in_flight -= 1;
        }
        values
    }

    fn payload(&self, kind: Kind, len: usize) -> Option<Payload> {
        match kind {
            Kind::Shared => Some(Payload::Ipc(IpcSharedMemory::from_bytes(&pattern(len)))),
            kind => Payload::plain(kind, len),
        }
    }

    fn echo(&mut self, payload: Payload) -> Payload {
        let request = match payload {
            Payload::Bytes(bytes) => Request::Bytes(bytes),
            Payload::Floats(floats) => Request::Floats(floats),
            Payload::Ipc(memory) => Request::Shared(memory),
            other => unreachable!("{other:?} is not ours"),
        };
        self.workers[0].1.send(request).expect("a worker that listens");
        match self.answers.recv().expect("an answer") {
            Answer::Bytes(bytes) => Payload::Bytes(bytes),
            Answer::Floats(floats) => Payload::Floats(floats),
            Answer::Shared(memory) => Payload::Ipc(memory),
            _ => unreachable!("nothing else was asked for"),
        }
    }

    fn begin(&mut self, task: Task, x: u64) -> bool {
        for (_, requests) in &self.workers {
            requests.send(Request::One { at: 0, task, x }).expect("a worker that listens");
        }
        true
    }

    fn close(self: Box<Self>) {
        for (mut child, requests) in self.workers {
            // Its receiver ends, and it returns from `main`.
            drop(requests);
            child.wait().expect("our own child");
        }
    }
}
