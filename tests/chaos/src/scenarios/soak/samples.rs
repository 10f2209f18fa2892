//! What there is from moment to moment, and that it does not grow.

use std::time::Duration;

use nix::unistd::{Pid, getpid};
use support::procfs;

use crate::case::status_field;
use crate::figures::say_most;

/// How much the memory of a process may grow along the line that fits best, in the part of a run that is
/// judged, in bytes: the allocator takes minutes until it has all that it will need, some 380 KiB of it in
/// the second half of three minutes.
///
/// In the second half of an hour, with some 33,000 deaths and 214,000 rounds, that is 16 bytes a death, or 3 a
/// round. The C library has no smaller piece than 32.
const NOISE: f64 = (512 << 10) as f64;

/// How many ended workers a pool's report lists: their memory grows until they are so many. A run is judged
/// from then on, or where it is too short for that, allows for what is listed meanwhile.
const LISTED: u64 = 1000;

/// What a worker that is listed takes, in bytes: its place, its name and its finalizers; and what the list
/// itself takes more when it doubles.
const ENTRY: f64 = 1024.0;
const DOUBLED: f64 = (512 << 10) as f64;

/// How much shared memory the parent may have in use, in KiB: of each of five workers a ring of 513, and
/// as much again of segments, of which they keep some. It has no slope to speak of: pages count once they
/// are used, and each new worker begins with none.
const SHARED: u64 = 5 * 2 * 513;

/// The memory that one process has for itself, in bytes, at so many seconds, and what it has open.
#[derive(Debug)]
struct Course {
    pid: Pid,
    memory: Vec<(f64, f64)>,
    descriptors: Vec<usize>,
}

/// All that was seen.
#[derive(Debug)]
pub(super) struct Samples {
    /// The parent, then the workers.
    courses: Vec<Course>,
    /// How many workers of the pool had ended.
    ended: Vec<u64>,
    /// How much shared memory the parent used at most, in KiB.
    shared: u64,
}

impl Samples {
    /// As many that they take no memory to speak of, and all of it now.
    pub(super) fn of(parent: Pid, workers: &[Pid], count: usize) -> Self {
        let all = std::iter::once(parent).chain(workers.iter().copied());
        let course = |pid| {
            let memory = vec![(0.0, 0.0); count + 1];
            Course { pid, memory, descriptors: Vec::with_capacity(count + 1) }
        };
        let mut courses: Vec<_> = all.map(course).collect();
        courses.iter_mut().for_each(|course| course.memory.clear());
        Self { courses, ended: Vec::with_capacity(count + 1), shared: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.ended.len()
    }

    /// Looks once, when nobody is being replaced. So many workers of the pool have ended.
    pub(super) fn take(&mut self, at: Duration, ended: u64) {
        self.ended.push(ended);
        for course in &mut self.courses {
            let bytes = kib(course.pid, "RssAnon") << 10;
            course.memory.push((at.as_secs_f64(), bytes as f64));
            course.descriptors.push(procfs::descriptors_of(course.pid));
        }
        self.shared = self.shared.max(kib(getpid(), "RssShmem"));
    }

    /// From where it is judged: from the half on, and once the list is full, if that leaves a quarter.
    fn first(&self) -> usize {
        let half = self.len() / 2;
        let full = self.ended.iter().position(|&ended| ended >= LISTED);
        full.filter(|&full| full <= half + half / 2).map_or(half, |full| full.max(half))
    }

    /// When all is warm, nothing grows.
    pub(super) fn judge(&self) {
        assert!(self.len() >= 20, "only {} samples", self.len());
        let first = self.first();
        say_most("KiB of shared memory", self.shared);
        assert!(self.shared <= SHARED, "{} KiB of shared memory", self.shared);
        let listed = |at: usize| self.ended[at].min(LISTED);
        let more = (listed(self.len() - 1) - listed(first)) as f64;
        let listed = if more > 0.0 { more * ENTRY + DOUBLED } else { 0.0 };
        say_most("workers listed meanwhile", more as u64);
        for (course, listed) in
            self.courses.iter().zip([listed].into_iter().chain(std::iter::repeat(0.0)))
        {
            let who = if course.pid == getpid() { "the parent" } else { "a worker" };
            let late = &course.descriptors[first..];
            let (least, most) = (late.iter().min().unwrap(), late.iter().max().unwrap());
            say_most(&format!("descriptors of {who} between rounds"), *most as u64);
            assert_eq!(least, most, "the descriptors of {who} between rounds: {late:?}");
            let late = &course.memory[first..];
            let seconds = late[late.len() - 1].0 - late[0].0;
            let slope = slope(late);
            let growth = slope * seconds;
            say_most(&format!("bytes an hour more in {who}"), (slope * 3600.0).max(0.0) as u64);
            say_most(&format!("KiB in {who}"), (late[late.len() - 1].1 / 1024.0) as u64);
            assert!(
                growth <= NOISE + listed,
                "{who}: {growth} bytes more in {seconds} s: {late:?}"
            );
        }
    }
}

fn kib(pid: Pid, field: &str) -> u64 {
    let memory = status_field(pid, field).unwrap();
    memory.split(' ').next().unwrap().parse().unwrap()
}

/// Of the line that fits these points best: the least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (x, y) = (x / count, y / count);
    let sum = |of: fn(f64, f64) -> f64| -> f64 {
        points.iter().map(|point| of(point.0 - x, point.1 - y)).sum()
    };
    sum(|x, y| x * y) / sum(|x, _| x * x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_that_of_the_line_whatever_is_beside_it() {
        let points: Vec<_> = (0..100).map(f64::from).map(|x| (x, 3.0 * x + 7.0)).collect();
        assert!((slope(&points) - 3.0).abs() < 1e-9);
        let beside = |(n, (x, y)): (usize, (f64, f64))| (x, y + [1.0, -1.0, -1.0, 1.0][n % 4]);
        let noisy: Vec<_> = points.into_iter().enumerate().map(beside).collect();
        assert!((slope(&noisy) - 3.0).abs() < 0.01);
    }
}
