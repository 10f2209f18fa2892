//! Who is measured: one adapter each, behind one trait.

mod ipc_channel;
mod ours;
mod procspawn;
pub(crate) mod python;
mod rayon;
mod serial;
mod threads;

use std::sync::mpsc::Receiver;

pub(crate) use self::ipc_channel::{WORKER as IPC_WORKER, work as ipc_worker};
pub(crate) use self::ours::{Zygote, lazy_squares, start_and_join as start_and_join_ours};
pub(crate) use self::procspawn::start_and_join as start_and_join_procspawn;
use crate::payload::{Kind, Payload};
use crate::tasks::Task;

/// Ours, with workers that begin as this executable started again.
pub(crate) const OURS: &str = "ours";
/// Ours, with workers that a start server forks.
pub(crate) const OURS_ZYGOTE: &str = "ours:zygote";
pub(crate) const PROCSPAWN: &str = "procspawn";
pub(crate) const IPC_CHANNEL: &str = "ipc-channel";
pub(crate) const RAYON: &str = "rayon";
pub(crate) const THREADS: &str = "crossbeam-threads";
/// No pool: the work itself.
pub(crate) const SERIAL: &str = "serial";
/// Not a peer: the bare system calls that no pool can beat.
pub(crate) const LIMIT: &str = "limit";

/// A pool of workers, of whatever kind.
pub(crate) trait Pool {
    /// Runs `task` on each number, `chunk` of them at a time, or as many as the peer thinks best.
    /// The values come in the order of the numbers.
    fn map(&mut self, task: Task, xs: &[u64], chunk: Option<usize>) -> Vec<u64>;

    /// Has one task done.
    fn one(&mut self, task: Task, x: u64) -> u64 {
        self.map(task, &[x], Some(1))[0]
    }

    /// Something large that this peer can send to a worker and back.
    fn payload(&self, _kind: Kind, _len: usize) -> Option<Payload> {
        None
    }

    /// Sends it to a worker and has it back.
    fn echo(&mut self, _payload: Payload) -> Payload {
        unreachable!("only for peers with a payload")
    }

    /// Begins a task in each worker without waiting; false where the peer cannot.
    fn begin(&mut self, _task: Task, _x: u64) -> bool {
        false
    }

    /// Has the task done for 0 to n, where some end their workers. Each outcome is sent as soon as
    /// it is known, with its number: a value, or what was said of the failure. None where the peer
    /// does not survive that.
    fn fragile(self: Box<Self>, _n: u64) -> Option<Receiver<(u64, Result<u64, String>)>> {
        None
    }

    /// Ends the pool as its users should, and waits.
    fn close(self: Box<Self>);
}

pub(crate) fn exists(peer: &str) -> bool {
    [OURS, OURS_ZYGOTE, PROCSPAWN, IPC_CHANNEL, RAYON, THREADS, SERIAL].contains(&peer)
        || python::is_python(peer)
}

/// A pool of a peer that [`exists`].
pub(crate) fn start(peer: &str, workers: usize) -> Box<dyn Pool> {
    match peer {
        OURS => Box::new(ours::Ours::spawned(workers)),
        OURS_ZYGOTE => Box::new(ours::Ours::forked(workers)),
        PROCSPAWN => Box::new(procspawn::Procspawn::new(workers)),
        IPC_CHANNEL => Box::new(ipc_channel::IpcChannel::new(workers)),
        RAYON => Box::new(rayon::Rayon::new(workers)),
        THREADS => Box::new(threads::Threads::new(workers)),
        SERIAL => Box::new(serial::Serial),
        _ => panic!("there is no peer {peer}"),
    }
}

/// Chunks for peers with no choice of their own: four a worker.
fn even_chunks(len: usize, workers: usize) -> usize {
    len.div_ceil(workers * 4).max(1)
}
