//! A round trip of one number between two processes, over a word of shared memory each way.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use bytemuck::Zeroable;

use super::wait::{Bell, Policy};
use crate::figure::Printer;
use crate::settings::{Place, Settings, pin};
use crate::sys::process::fork;
use crate::sys::shared::Shared;
use crate::timing::samples;

/// A number that only grows, and the bell of who waits for it to grow.
#[derive(Zeroable)]
#[repr(C, align(128))]
struct Line {
    number: AtomicU32,
    bell: Bell,
}

impl Line {
    fn send(&self, number: u32) {
        self.number.store(number, Ordering::Release);
        self.bell.ring();
    }

    fn wait_for(&self, number: u32, policy: Policy) {
        self.bell.wait(policy, || self.number.load(Ordering::Acquire) == number);
    }
}

#[derive(Zeroable)]
#[repr(C)]
struct Lines {
    down: Line,
    up: Line,
}

pub(crate) fn run(print: Printer<'_>, settings: Settings) {
    let n = settings.pick(20_000, 5_000, 200);
    let idle = settings.pick(1_000, 300, 20);
    for (name, policy) in [("futex parked", Policy::Park), ("futex yield", Policy::Yield)] {
        print.emit_latency(&format!("{name}, back to back"), measure(policy, settings, n, None));
        let pause = Some(Duration::from_millis(1));
        print.emit_latency(
            &format!("{name}, after 1 ms idle"),
            measure(policy, settings, idle, pause),
        );
    }
}

fn measure(policy: Policy, settings: Settings, n: usize, pause: Option<Duration>) -> Vec<f64> {
    let lines = Shared::<Lines>::new();
    let warm = n.min(1_000) / 2;
    let total = (warm + n) as u32;
    let other = fork(|| {
        if settings.place == Place::Apart {
            pin(1);
        }
        for number in 1..=total {
            lines.down.wait_for(number, policy);
            lines.up.send(number);
        }
    });
    let round_trip = |i: usize| {
        let number = i as u32 + 1;
        lines.down.send(number);
        lines.up.wait_for(number, policy);
    };
    let sleep = || pause.into_iter().for_each(thread::sleep);
    let us = samples(total as usize, Duration::MAX / 4, sleep, round_trip);
    other.wait();
    us[warm..].to_vec()
}
