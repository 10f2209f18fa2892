//! A child as its parent sees it, under events in any order: whatever it writes, however often it is
//! stopped, and whatever its parent asks meanwhile, each end is told once, and the process is gone.

use std::fs::File;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, send};
use nix::sys::wait::{Id, WaitPidFlag, waitid};

use super::{Input, ring};
use crate::child::{Child, Event, Spec, Work};
use crate::codec::{Limits, encode};
use crate::end::Goodbye;
use crate::local::LocalWire;
use crate::parcel::Parcel;
use crate::sandbox::SandboxLevel;
use crate::sys::copy;
use crate::sys::descriptors::send_with;
use crate::sys::memory::SharedWords;
use crate::sys::pidfd;
use crate::wire::{HEADER, Kind, Wire, seal};

/// What a child has of its connection, in the hands of an adversary.
struct Far {
    wire: UnixStream,
    ring: SharedWords,
    process: OwnedFd,
    /// What it may send along.
    file: Arc<OwnedFd>,
}

/// What has been told of a child so far.
#[derive(Debug, Default)]
struct Told {
    hellos: usize,
    is_broken: bool,
    ends: usize,
}

pub(super) fn target(bytes: &[u8]) {
    let mut input = Input(bytes);
    // If descriptors or processes were left each time, some day there would be no more.
    let Some((mut child, mut far)) = pair(&mut input) else { panic!("no descriptor or process") };
    let mut told = Told::default();
    while !input.is_empty() {
        match input.below(3) {
            0 => harm(&mut far, &mut input),
            1 => ask(&mut child, &mut input),
            _ => told.take(&mut child),
        }
    }
    let process = far.process.try_clone();
    // Either it is brought to its end, or it is dropped as it is.
    if bytes.len().is_multiple_of(2) {
        child.kill();
        while told.ends == 0 {
            pidfd::await_end(child.ties().pidfd.as_fd());
            child.reap();
            told.take(&mut child);
        }
        // A copy that it made of itself still has its memory, and its end of the wire.
        far.ring.words()[..72].iter().for_each(|word| word.store(1 << 40, Ordering::Relaxed));
        send_frame(&mut far, &mut Input(bytes));
        told.take(&mut child);
    }
    drop((child, far));
    if let Ok(process) = process {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        assert!(waitid(Id::PIDFd(process.as_fd()), flags).is_err(), "it was not reaped");
    }
}

/// A process that does nothing, as a child, and what it would have of the connection.
fn pair(input: &mut Input<'_>) -> Option<(Child, Far)> {
    let kind = input.byte();
    let mut spec = Spec { grace_period: Duration::from_millis(u64::from(kind)), ..Spec::default() };
    if kind % 4 > 1 {
        spec.expect_many_calls();
    }
    let (near, ring) = ring::ends(spec.ring)?;
    let (stream, wire) = UnixStream::pair().ok()?;
    let second = stream.try_clone().ok()?;
    let file = Arc::new(File::open("/dev/null").ok()?.into());
    let born = copy::idle(kind.is_multiple_of(2)).ok()?;
    let process = born.pidfd.try_clone().ok()?;
    let near = LocalWire::new(stream, near, spec.frame_limit());
    Some((Child::new(&spec, born, near, second), Far { wire, ring, process, file }))
}

/// What the child may do.
fn harm(far: &mut Far, input: &mut Input<'_>) {
    match input.below(8) {
        0..=2 => send_frame(far, input),
        // Nobody reads meanwhile: to wait for room would be to wait for ever.
        3 => {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let _ = send(far.wire.as_raw_fd(), input.bytes(40), flags);
        }
        4 => {
            let words = far.ring.words();
            words[input.number(2) as usize % words.len()].store(input.number(8), Ordering::Relaxed);
        }
        // The words that control have a cache line each.
        5 => far.ring.words()[input.below(9) * 8].store(input.number(2), Ordering::Relaxed),
        6 => drop(
            far.wire.shutdown([Shutdown::Both, Shutdown::Write, Shutdown::Read][input.below(3)]),
        ),
        _ => {
            let signals = [Signal::SIGKILL, Signal::SIGSTOP, Signal::SIGCONT, Signal::SIGTERM];
            let _ = pidfd::send_signal(far.process.as_fd(), signals[input.below(4)] as i32);
        }
    }
}

/// A frame that a child may send, or may not, with what belongs into it, or does not.
fn send_frame(far: &mut Far, input: &mut Input<'_>) {
    const KINDS: [Kind; 12] = [
        Kind::Hello,
        Kind::Refusal,
        Kind::Reply,
        Kind::Goodbye,
        Kind::Begun,
        Kind::Ready,
        Kind::BulkReply,
        Kind::Missed,
        Kind::Grown,
        Kind::Note,
        Kind::Stop,
        Kind::Call,
    ];
    let kind = KINDS[input.below(KINDS.len())];
    let mut frame = vec![0; HEADER];
    match (kind, input.below(4)) {
        (Kind::Hello, 0..3) => put(&None::<SandboxLevel>, &mut frame),
        (Kind::Goodbye, 0..3) => {
            put(&Goodbye { finalizers: Vec::new(), peak_memory: None, tree: None }, &mut frame);
        }
        (_, 0) => frame.resize(HEADER + input.number(2) as usize, 7),
        _ => frame.extend_from_slice(input.bytes(40)),
    }
    let claimed = input.below(8).saturating_sub(5);
    let sent = vec![Arc::clone(&far.file); input.below(8).saturating_sub(5)];
    seal(kind, u32::from(input.byte() % 4), u64::from(input.byte() % 4), claimed, &mut frame);
    // Longer ones may not fit, and nobody reads meanwhile: what is cut off is a part of a frame.
    let _ = send_with(far.wire.as_fd(), &frame, &sent, MsgFlags::MSG_DONTWAIT);
}

fn put(value: &impl serde::Serialize, frame: &mut Vec<u8>) {
    encode(value, frame, &Limits::default()).unwrap_or_else(|error| panic!("{error}"));
}

/// What its parent may ask.
fn ask(child: &mut Child, input: &mut Input<'_>) {
    match input.below(10) {
        0 | 1 => {
            let payload = Parcel::from(input.bytes(40).to_vec());
            if child.is_connected() && matches!(child.wire().has_room(40), Ok(true)) {
                let _ = child.wire().call(u64::from(input.byte() % 4), 1, &payload);
                child.flush();
            }
        }
        2 => child.finish(),
        3 => {
            let limit = Duration::from_millis(input.number(1));
            let work = if input.byte().is_multiple_of(2) { Work::Finish } else { Work::Abandon };
            child.stop((limit != Duration::ZERO).then_some(limit), work);
        }
        4 => child.kill(),
        5 => child.drained(),
        6 => child.tick(Instant::now() + Duration::from_millis(input.number(2))),
        7 => child.reap(),
        8 => child.resume(),
        _ => {
            child.flush();
            let _ = (child.interest(), child.due(), child.was_continued());
        }
    }
}

impl Told {
    /// Takes events until there are none, of which there is an end: nobody writes meanwhile.
    fn take(&mut self, child: &mut Child) {
        for round in 0.. {
            assert!(round < 100_000, "there cannot be so many");
            let Some(event) = child.event() else { return };
            assert_eq!(self.ends, 0, "{event:?} after its end");
            match event {
                Event::Hello => self.hellos += 1,
                Event::Broken(_) => self.is_broken = true,
                Event::Ended(_) => self.ends += 1,
                // What is in the ring is told to the end, if it is believed.
                Event::Answers(_) | Event::Answer { .. } => continue,
                Event::Refused(_) | Event::Begun { .. } | Event::Grown | Event::Note { .. } => {
                    assert!(!self.is_broken, "it was listened to after it broke the protocol");
                }
            }
            assert!(self.hellos <= 1, "it came up twice");
        }
    }
}
