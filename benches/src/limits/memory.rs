//! Moving 64 MiB: copied within a process, and sent to another one and back through memory that
//! both keep mapped, in pieces, so that copying in and copying out overlap.

use std::sync::atomic::{AtomicU32, Ordering};

use bytemuck::Zeroable;

use super::wait::{Bell, Policy};
use crate::figure::Printer;
use crate::payload::{pattern, sum};
use crate::settings::Settings;
use crate::sys::process::fork;
use crate::sys::shared::{Segment, Shared};
use crate::timing::{median, seconds};

const PIECE: usize = 1 << 20;

/// Whether the bytes arrive in memory that is new, as a new vector is, or was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Fresh,
    Warm,
}

pub(crate) fn run(print: Printer<'_>, settings: Settings) {
    let len = settings.pick(64 << 20, 64 << 20, 8 << 20);
    let runs = settings.pick(7, 3, 1);
    let source = pattern(len);
    let rate = |case: &str, bytes: usize, seconds: f64| {
        print.emit(case, "ms", seconds * 1e3);
        print.emit(case, "GB_per_s", bytes as f64 / seconds / 1e9);
    };
    let mut copy = vec![1; len];
    let times = (0..=runs).map(|_| seconds(|| copy.copy_from_slice(&source)).0);
    rate("memcpy", len, median(times.collect()));
    drop(copy);
    rate("echo by reused shm, fresh target", 2 * len, echo(&source, Target::Fresh, runs));
    rate("echo by reused shm, warm target", 2 * len, echo(&source, Target::Warm, runs));
}

/// One direction: how many pieces were ever written to the segment.
#[derive(Zeroable)]
#[repr(C, align(128))]
struct Way {
    pieces: AtomicU32,
    bell: Bell,
}

impl Way {
    fn send(&self, segment: &Segment, from: &[u8]) {
        for (i, piece) in from.chunks(PIECE).enumerate() {
            segment.write(i * PIECE, piece);
            self.pieces.fetch_add(1, Ordering::Release);
            self.bell.ring();
        }
    }

    /// `before`: how many pieces came with earlier messages.
    fn receive(&self, segment: &Segment, to: &mut [u8], before: u32) {
        for (i, piece) in to.chunks_mut(PIECE).enumerate() {
            let needed = before + i as u32;
            self.bell.wait(Policy::Yield, || self.pieces.load(Ordering::Acquire) > needed);
            segment.read(i * PIECE, piece);
        }
    }
}

#[derive(Zeroable)]
#[repr(C)]
struct Ways {
    down: Way,
    up: Way,
}

/// Median seconds from the sender's memory to the other process's own, and back into ours.
fn echo(source: &[u8], target: Target, runs: usize) -> f64 {
    let ways = Shared::<Ways>::new();
    // One for both directions: what goes up overwrites only what has been read.
    let segment = Segment::new(source.len());
    let pieces = source.len().div_ceil(PIECE) as u32;
    let new_target = || vec![0; source.len()];
    let renew = |vector: &mut Vec<u8>| {
        if target == Target::Fresh {
            // The old one goes first, as it does for who receives one message after the other.
            *vector = Vec::new();
            *vector = new_target();
        }
    };
    let other = fork(|| {
        let mut mine = new_target();
        for round in 0..=runs as u32 {
            renew(&mut mine);
            ways.down.receive(&segment, &mut mine, round * pieces);
            ways.up.send(&segment, &mine);
        }
    });
    let mut back = new_target();
    let mut round = 0;
    let mut once = || {
        renew(&mut back);
        ways.down.send(&segment, source);
        ways.up.receive(&segment, &mut back, round * pieces);
        round += 1;
    };
    once();
    let times = (0..runs).map(|_| seconds(&mut once).0).collect();
    other.wait();
    assert_eq!(sum(source), sum(&back), "the bytes came back");
    median(times)
}
