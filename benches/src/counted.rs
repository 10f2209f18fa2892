//! What a task passes through on its way, piece by piece, for a count of instructions. All of it
//! runs in this process and in one thread: the counter that it is for, callgrind, cannot follow a
//! child that is this executable started again.

use std::hint::black_box;

use epilogue::Limits;
use epilogue::process::Portable;
use epilogue::process::entry::{Entry, answer, ask};
use epilogue::process::parcel::Parcel;
use serde::{Deserialize, Serialize};

/// A piece of the way, done this many times.
pub(crate) fn run(path: &str, times: &str) -> Result<(), String> {
    let times: usize = times.parse().map_err(|_| format!("{times} is no number"))?;
    let (piece, value) = path.split_once('-').ok_or("PIECE-VALUE, such as write-number")?;
    match value {
        "number" => walk(piece, times, 21u64, |x| x * 2),
        "record" => walk(piece, times, Record::example(), |record| record),
        "bytes" => walk(piece, times, vec![7u8; 1024], |bytes| bytes),
        _ => Err(format!("{value}: one of number, record, bytes")),
    }
}

/// What programs send: some of everything, none of it large.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    name: String,
    size: u64,
    ratio: f64,
    parent: Option<u32>,
    tags: Vec<String>,
}

impl Record {
    fn example() -> Self {
        let tags = ["red", "green", "blue"].map(String::from).to_vec();
        Self { name: "a name".into(), size: 12_345_678, ratio: 0.25, parent: Some(7), tags }
    }
}

fn walk<T: Portable, R: Portable>(
    piece: &str,
    times: usize,
    value: T,
    f: fn(T) -> R,
) -> Result<(), String> {
    let limits = Limits::default();
    let entry = Entry::plain(f).map_err(|error| error.to_string())?;
    let call = || write(entry, &value, &limits);
    let sent = call()?;
    match piece {
        "write" => (0..times).try_for_each(|_| call().map(|call| drop(black_box(call)))),
        "run" => (0..times).try_for_each(|_| {
            drop(black_box(execute(black_box(&sent), &limits)?));
            Ok(())
        }),
        // It takes its argument, so the answer to be read is made each time, and counted.
        "read" => (0..times).try_for_each(|_| {
            let reply = execute(black_box(&sent), &limits)?;
            let value: R =
                answer(black_box(reply), &limits).map_err(|fault| format!("{fault:?}"))?;
            drop(black_box(value));
            Ok(())
        }),
        _ => Err(format!("{piece}: one of write, run, read")),
    }
}

/// What the caller does: the function's name, and the argument.
fn write<T: Portable>(entry: Entry, value: &T, limits: &Limits) -> Result<Parcel, String> {
    let mut head = Vec::with_capacity(64);
    entry.write(&mut head);
    ask(black_box(value), head, limits).map_err(|error| error.to_string())
}

/// What the worker does: finds the function, reads the argument, calls, writes the value.
fn execute(call: &Parcel, limits: &Limits) -> Result<Parcel, String> {
    let (entry, argument) = Entry::read(&call.bytes).ok_or("a call that cannot be read")?;
    let mut reply = Parcel::default();
    entry.run(argument, Vec::new(), None, limits, &mut reply);
    Ok(reply)
}
