//! Reads documents that nobody vouches for, in processes that can do nothing but read them.
//!
//! ```text
//! cargo run --release --features landlock,seccomp --example isolate -- [FILE]...
//! ```
//!
//! The reader outlines Markdown, and follows `{{#include PATH}}` and `{{#fetch HOST:PORT}}`, as
//! some tools do: so a document can name any file and any host. Each is read in a process of its
//! own, held to 256 MiB and ten seconds of CPU time, and in a sandbox. To include a file or to fetch
//! is an error of that document; one that is too much for its process loses that; all others are
//! read.
#![expect(clippy::print_stdout, reason = "printing is what an example is for")]

use std::error::Error;
use std::net::TcpStream;
use std::{env, fs};

use epilogue::{Process, Sandbox, StartMethod, Stdio};

/// Documents that want more than to be read.
const HOSTILE: [(&str, &str); 4] = [
    ("(steals a file)", "# Notes\n\n{{#include /etc/passwd}}\n"),
    ("(calls home)", "# Notes\n\n{{#fetch 127.0.0.1:80}}\n"),
    ("(takes all memory)", "# Notes\n\n{{#repeat 1000000000000}}\n"),
    ("(kills its reader)", "# Notes\n\n{{#crash}}\n"),
];

/// Headings and words of a document, or why it cannot be read.
fn outline(text: String) -> Result<(usize, usize), String> {
    let (mut headings, mut words) = (0, 0);
    for line in text.lines() {
        headings += usize::from(line.starts_with('#'));
        words += line.split_whitespace().count();
        let Some(directive) = line.strip_prefix("{{#").and_then(|it| it.strip_suffix("}}")) else {
            continue;
        };
        match directive.split_once(' ').unwrap_or((directive, "")) {
            ("include", path) => {
                let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
                words += text.split_whitespace().count();
            }
            ("fetch", host) => {
                drop(TcpStream::connect(host).map_err(|error| format!("{host}: {error}"))?);
            }
            ("repeat", times) => {
                let times = times.parse().map_err(|_| format!("{times} is no number"))?;
                words += "word ".repeat(times).len();
            }
            ("crash", _) => std::process::abort(),
            (other, _) => return Err(format!("there is no directive {other}")),
        }
    }
    Ok((headings, words))
}

fn main() -> Result<(), Box<dyn Error>> {
    let files = env::args().skip(1).map(|path| Ok((path.clone(), fs::read_to_string(path)?)));
    let mut documents = files.collect::<Result<Vec<_>, std::io::Error>>()?;
    documents.extend(HOSTILE.map(|(name, text)| (name.to_owned(), text.to_owned())));

    let sandbox = Sandbox::new().confine().compute_only().required();
    let reader = Process::builder().name("reader").start_method(StartMethod::Server);
    let reader = reader.limit_memory(256 << 20).limit_cpu(10).limit_core(0).stderr(Stdio::Null);
    let reader = reader.sandbox(sandbox);
    for batch in documents.chunks(8) {
        let readers = batch.iter().map(|(_, text)| reader.clone().start(text.clone(), outline));
        for ((name, _), reader) in batch.iter().zip(readers.collect::<Result<Vec<_>, _>>()?) {
            match reader.join() {
                Ok(Ok((headings, words))) => println!("{name}: {headings} headings, {words} words"),
                Ok(Err(error)) => println!("{name}: refused, {error}"),
                Err(error) => println!("{name}: {error}"),
            }
        }
    }
    Ok(())
}
