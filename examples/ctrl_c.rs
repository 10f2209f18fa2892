//! A service that stops cleanly: it counts the words that clients send, and loses none of them.
//!
//! ```sh
//! cargo run --example ctrl_c             # then `nc 127.0.0.1 PORT`, type words, press Ctrl-C
//! cargo run --example ctrl_c -- --demo   # is its own three clients, and ends by itself
//! ```
//!
//! Ctrl-C, `kill`, an error and the end of the demo all lead to the same ending: the totals are
//! written, the port file is removed, and the exit status says what happened.
#![expect(clippy::print_stdout, reason = "examples print")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Error, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::{env, fs, thread};

use epilogue::embed::{self, signal::SIGINT};

type Words = Arc<Mutex<BTreeMap<String, u64>>>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words = Words::default();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let directory = env::temp_dir();
    let (totals, port) = (directory.join("ctrl_c.words"), directory.join("ctrl_c.port"));

    // Registered first, handled second: from then on a signal may arrive. The last one runs first.
    let (kept, place) = (Arc::clone(&words), totals.clone());
    embed::finalizer("write the totals", move || {
        let words = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: String = words.iter().map(|(word, n)| format!("{n:6} {word}\n")).collect();
        let written = fs::write(&place, &lines);
        println!("{lines}{}: {written:?}", place.display());
    });
    fs::write(&port, address.port().to_string())?;
    embed::finalizer("remove the port file", move || drop(fs::remove_file(port)));
    embed::cleanup_on_signal(SIGINT)?;
    embed::cleanup_on_sigterm()?;

    println!("{} counts words on {address}; Ctrl-C ends it", std::process::id());
    let is_demo = env::args().any(|argument| argument == "--demo");
    let clients = is_demo.then(|| {
        let talk = move |text: &str| TcpStream::connect(address)?.write_all(text.as_bytes());
        thread::spawn(move || ["the end\n", "the very end\n", "\n"].into_iter().try_for_each(talk))
    });
    for stream in listener.incoming().take(if is_demo { 3 } else { usize::MAX }) {
        for line in BufReader::new(stream?).lines() {
            let line = line?;
            let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
            line.split_whitespace().for_each(|word| *words.entry(word.into()).or_default() += 1);
        }
    }
    clients
        .map_or(Ok(()), |clients| clients.join().unwrap_or(Err(Error::other("a client failed"))))?;
    Ok(())
}
