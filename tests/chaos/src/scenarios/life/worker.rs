//! What a process of the table does, and what happens to it on the way.

use std::fs::{self, File};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use epilogue::embed;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{getpid, gettid};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use support::{park_for_ever, procfs, sys};

use super::Step::{
    Answering, Decoding, Encoding, Exiting, Finalizing, First, Idle, Initializing, Recovering,
    Running, Stopping,
};
use super::{Cell, Fault, Step, cell, fired};

/// This process has come to that step: the fault happens, if it is the one and did not happen yet.
pub(super) fn reach(step: Step) {
    let Some(Cell(wanted, fault, ..)) = cell() else { return };
    if step == wanted && File::create_new(fired()).is_ok() {
        // In the middle of an exit there is no other exit.
        let is_leaving = matches!(step, First | Recovering | Finalizing | Exiting);
        match fault {
            Fault::Kill => kill(getpid(), Signal::SIGKILL).unwrap(),
            Fault::Stop => kill(getpid(), Signal::SIGSTOP).unwrap(),
            Fault::Term => kill(getpid(), Signal::SIGTERM).unwrap(),
            Fault::Exit if is_leaving => sys::exit_now(3),
            Fault::Exit => std::process::exit(3),
            Fault::Spin => loop {
                std::hint::spin_loop();
            },
            Fault::Deadlock => {
                let lock = Mutex::new(());
                let (_first, _second) = (lock.lock().unwrap(), lock.lock().unwrap());
            }
        }
    }
}

/// The number that the harmed process gets where there is but one; in a pool, one of six.
pub(super) const HARMED: u64 = 3;

/// What a task takes: a number that is hard to read in the cell that wants it so.
#[derive(Debug)]
pub(super) struct Argument(pub(super) u64);

impl Serialize for Argument {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        reach(Decoding);
        u64::deserialize(deserializer).map(Self)
    }
}

/// What it gives, which is hard to write.
#[derive(Debug)]
pub(super) struct Answer(pub(super) u64, pub(super) Vec<u8>);

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        reach(Encoding);
        (self.0, &self.1).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Answer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Deserialize::deserialize(deserializer).map(|(number, bytes)| Self(number, bytes))
    }
}

extern "C" fn at_exit() {
    reach(Exiting);
}

pub(super) fn work(Argument(number): Argument) -> Answer {
    let Some(Cell(step, ..)) = cell() else { panic!("no cell") };
    match step {
        Running => reach(Running),
        Finalizing => drop(embed::finalizer("faulty", || reach(Finalizing))),
        Exiting => sys::at_exit(at_exit),
        Stopping => {
            embed::on_stop(|_| reach(Stopping));
            fs::write(fired().with_extension(format!("begun-{number}")), "").unwrap();
            park_for_ever();
        }
        Recovering if File::create_new(fired().with_extension("killed")).is_ok() => {
            kill(getpid(), Signal::SIGKILL).unwrap();
        }
        // One of several: to decode them all would be a good part of the time that is measured.
        Answering if number == HARMED => {
            let (main, answer) = (gettid(), Answer(number, vec![7; 8 << 20]));
            thread::spawn(move || {
                let sleeps = || {
                    procfs::threads_of(getpid()).iter().any(|it| it.pid == main && it.state == 'S')
                };
                await_until(sleeps);
                reach(Answering);
            });
            return answer;
        }
        Idle => drop(thread::spawn(|| {
            await_until(|| fired().with_extension("answered").exists());
            reach(Idle);
        })),
        First | Initializing | Decoding | Encoding | Answering | Recovering => {}
    }
    Answer(number, vec![7; 9])
}

/// A look now and then: what is awaited is in other processes, which may be gone.
pub(super) fn await_until(is_so: impl Fn() -> bool) {
    while !is_so() {
        thread::sleep(Duration::from_millis(1));
    }
}
