//! A C library that some inputs crash, and a map that keeps all other results:
//!
//! ```text
//! cargo run --release --example bad_input -- [WORD ..]
//! ```
//!
//! Each word is measured by the C library's `strlen`. One that holds a zero byte is no C string, and the
//! careless binding in `sys` passes a null pointer for it, which `strlen` reads: the worker
//! dies by SIGSEGV, as it would by a bug in any C code. That word alone has no length. Without words
//! to measure, it takes some of its own, of which the third is bad.
#![expect(clippy::print_stdout, reason = "printing is what an example is for")]

mod sys;

use std::env;
use std::error::Error;

use epilogue::{Pool, TaskError};

fn main() -> Result<(), Box<dyn Error>> {
    let mut words: Vec<String> = env::args().skip(1).collect();
    if words.is_empty() {
        let own = ["epilogue", "pool", "bad\0word", "", "ends", "well"];
        words = own.map(String::from).into();
    }
    let pool = Pool::builder().workers(2).name("strlen").start()?;
    let lengths = pool.map_outcomes(words.clone(), sys::length)?;

    let mut lost = 0;
    for (word, length) in words.iter().zip(lengths) {
        match length {
            Ok(length) => println!("{word:?} has {length} bytes"),
            Err(TaskError::WorkerLost(loss)) => {
                lost += 1;
                println!("{word:?} has no length: {loss}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    let report = pool.close()?;
    println!("{report}");
    assert_eq!((report.done, report.lost), (words.len() as u64 - lost, lost));
    Ok(())
}
