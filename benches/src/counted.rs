//! What a task passes through on its way, piece by piece, for a count of instructions. All of it
//! runs in this process and in one thread: the counter that it is for, callgrind, cannot follow a
//! child that is this executable started again.

use std::hint::black_box;

use epilogue::Limits;
use epilogue::process::LocalWire;
use epilogue::process::Portable;
use epilogue::process::entry::{Entry, Request, only_answer};
use epilogue::process::link::{Link, Order, both_ends};
use epilogue::process::ring::Reply;
use epilogue::process::segment::Stock;
use epilogue::process::wire::{Wire, WireError};
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
    let stock = Stock::new(Stock::POOL);
    let entry = Entry::plain(f).map_err(|error| error.to_string())?;
    let mut ends = both_ends(&limits).map_err(|error| error.to_string())?;
    let write = || {
        let mut head = Vec::with_capacity(64);
        entry.write(&mut head);
        let mut request = Request::new(head);
        let pushed = request.push(black_box(&value), &limits, &stock);
        pushed.map(|_| request).map_err(|error| error.to_string())
    };
    let sent = write()?;
    for _ in 0..times {
        match piece {
            "write" => drop(black_box(write()?)),
            "run" => drop(black_box(execute(&mut ends, black_box(&sent), &limits)?)),
            // The answer to be read is made each time, and counted.
            "read" => {
                let reply = execute(&mut ends, black_box(&sent), &limits)?;
                let value = only_answer::<R>(black_box(&reply), &limits);
                drop(black_box(value.map_err(|fault| format!("{fault:?}"))?));
            }
            _ => return Err(format!("{piece}: one of write, run, read")),
        }
    }
    Ok(())
}

/// Sends a call through the ring, does what the worker does with it, and takes the reply.
fn execute(
    (wire, link): &mut (LocalWire, Link),
    call: &Request,
    limits: &Limits,
) -> Result<Reply, String> {
    let error = |error: WireError| error.to_string();
    if !wire.has_room(call.bytes()).map_err(error)? {
        return Err("the ring has no room".into());
    }
    wire.call(1, call.count(), call.parcel()).map_err(error)?;
    let Some(Order::Call(call)) = link.next_order() else { return Err("no call came".into()) };
    let mut answering = link.answer(&call);
    let (entry, arguments) = Entry::read(&call.payload.bytes).ok_or("a call without an entry")?;
    entry.run(arguments, None, None, limits, &mut answering);
    answering.finish();
    wire.reply().map_err(error)?.ok_or_else(|| "no answer came".into())
}
