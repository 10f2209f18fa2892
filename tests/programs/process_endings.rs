//! A program with processes that end with it, in the way its first argument says.

use std::env;
use std::error::Error;
use std::io::{Read, Write, stdin, stdout};
use std::thread;

use epilogue::{Process, Stdio, embed};

fn main() -> Result<(), Box<dyn Error>> {
    let story = env::args().nth(1).ok_or("no story")?;
    match story.as_str() {
        "detached" => {
            // It ends when somebody says so, and that is after this program has begun to.
            let builder = Process::builder().stdin(Stdio::Inherit);
            builder
                .start((), |()| {
                    stdin().read_line(&mut String::new()).unwrap();
                    println!("went on");
                })?
                .detach();
            say("returning");
        }
        "detached-for-ever" => {
            embed::cleanup_on_sigterm()?;
            Process::start((), |()| -> u8 { park() })?.detach();
            say("ready");
            wait();
        }
        other => Err(format!("no such story: {other}"))?,
    }
    Ok(())
}

fn say(line: &str) {
    println!("{line}");
    stdout().flush().unwrap();
}

fn wait() {
    drop(stdin().read_to_end(&mut Vec::new()));
}

fn park() -> ! {
    loop {
        thread::park();
    }
}
