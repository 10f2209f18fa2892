//! The first example: `cargo run --example squares`.
#![expect(clippy::print_stdout, reason = "printing is what an example is for")]

use std::error::Error;
use std::process;

use epilogue::{Pool, Process};

fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::new(4)?;
    let squares: Vec<u64> = pool.map(0..10, |x| x * x)?;
    println!("{squares:?}");

    let child = Process::start("bob".to_owned(), |name| (format!("hello {name}"), process::id()))?;
    let (greeting, pid) = child.join()?;
    println!("{greeting}, said process {pid}; this is process {}", process::id());

    println!("{}", pool.close()?);
    Ok(())
}
