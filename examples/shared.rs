//! A large array, summed by several processes without a copy.
//!
//! ```text
//! cargo run --release --example shared -- 64
//! ```
//!
//! The number is the size in MiB. The array is filled in place, sealed, and each task gets a part
//! of it: what travels is a descriptor and two numbers, whatever the size.
#![expect(clippy::print_stdout, reason = "printing is what an example is for")]

use std::error::Error;
use std::time::Instant;
use std::{env, fs};

use epilogue::{Pool, SharedBuf, SharedSlice};

const WORKERS: usize = 2;

/// The sum of a part, and how many KiB of memory of its own the worker took for it.
fn sum(part: SharedSlice<f64>) -> (f64, u64) {
    let before = own_memory();
    (part.iter().sum(), own_memory().saturating_sub(before))
}

/// The memory that this process shares with nobody, in KiB.
fn own_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}

fn main() -> Result<(), Box<dyn Error>> {
    let size: usize = env::args().nth(1).map_or(Ok(64), |argument| argument.parse())?;
    let mut buf = SharedBuf::<f64>::with_len(size << 20 >> 3)?;
    buf.iter_mut().zip(0u32..).for_each(|(place, n)| *place = f64::from(n % 1000));
    let array = buf.freeze()?;

    let pool = Pool::new(WORKERS)?;
    let begin = Instant::now();
    let parts = array.parts(array.len().div_ceil(4 * WORKERS).max(1));
    let sums = pool.map(parts, sum)?;
    let took = begin.elapsed();

    let total: f64 = sums.iter().map(|(sum, _)| sum).sum();
    let copied = sums.iter().map(|(_, memory)| memory).max().unwrap_or(&0);
    assert_eq!(total, array.iter().sum());
    println!("{size} MiB, {} numbers: {total}", array.len());
    println!("summed by {WORKERS} processes in {took:.1?}, which took {copied} KiB of their own");
    println!("{}", pool.close()?);
    Ok(())
}
