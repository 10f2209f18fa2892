//! The program of the mill: a worker of the raw pool, a service that reloads itself, and one that
//! copies itself. `TEXTMILL_WITH=epilogue` says that it uses epilogue.
#![expect(clippy::print_stdout, reason = "a worker answers on its standard output")]

use std::env;
use std::error::Error;
use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;

use epilogue::embed::{self, signal::SIGHUP};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use signal_hook::iterator::Signals;
use textmill::work::{self, System};
use textmill::{raw, sys};

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let mut arguments = env::args().skip(1);
    let (what, argument) = (arguments.next().unwrap_or_default(), arguments.next());
    let with_epilogue = env::var_os("TEXTMILL_WITH").is_some_and(|with| with == "epilogue");
    match what.as_str() {
        "worker" => serve_lines(&argument.unwrap_or_default()),
        "service" => serve(argument.unwrap_or_default().parse().unwrap_or(0), with_epilogue),
        "largest" => tell_largest(with_epilogue),
        _ => Err("textmill worker WORK | service GENERATION | largest".into()),
    }
}

/// A worker of the raw pool: a line in, a line out, until the input ends.
fn serve_lines(work: &str) -> Outcome {
    for line in io::stdin().lock().lines() {
        let text = line?.replace('|', "\n");
        let answer = match work {
            "words" => work::words(text),
            "sentences" => work::sentences(text),
            "longest" => work::longest((text, None)),
            "longest-to" => work::longest(("never ending".into(), Some(text.into()))),
            "vowels" => work::vowels(text),
            "watch" => work::watch(text.into()),
            "number" => work::number(text) as usize,
            "depth" => work::depth(text, indent_elsewhere),
            "indent" => work::indent(text),
            _ => return Err("no such work".into()),
        };
        println!("{answer}");
    }
    Ok(())
}

/// A grandchild for each line, dropped when it has answered.
fn indent_elsewhere(line: String) -> usize {
    let program = env::current_exe().unwrap_or_default();
    let answer = raw::Worker::start(&program, "indent").and_then(|mut child| child.call(&line));
    answer.ok().flatten().unwrap_or_default()
}

/// A service that starts itself anew at SIGHUP, and is ended by SIGTERM.
fn serve(generation: u32, with_epilogue: bool) -> Outcome {
    let mut hang_up = Signals::new([SIGHUP])?;
    if with_epilogue {
        embed::cleanup_on_sigterm()?; // the first of the two lines
    }
    let rules = work::load(generation);
    if generation < 2 {
        println!("generation {generation} has {rules} rules");
        io::stdout().flush()?;
        hang_up.forever().next();
        let program = env::current_exe()?;
        let mut successor = work::successor(&program.to_string_lossy(), generation);
        let error = match with_epilogue {
            true => embed::exec(&mut successor), // the second
            false => successor.exec(),
        };
        return Err(error.into());
    }
    println!("generation {generation} has {rules} rules");
    io::stdout().flush()?;
    loop {
        std::thread::park();
    }
}

/// Copies itself, as a program does that was written for fork.
fn tell_largest(with_epilogue: bool) -> Outcome {
    let leave = if with_epilogue { embed::exit_now } else { sys::exit_at_once };
    if with_epilogue {
        embed::cleanup_on_sigterm()?;
    }
    let system = System { fork: sys::fork, wait: exit_code, leave };
    let largest = work::largest(&[3, 41, 7], &system);
    println!("{}", largest.unwrap_or_default());
    Ok(())
}

fn exit_code(copy: Pid) -> Option<i32> {
    match waitpid(copy, None) {
        Ok(WaitStatus::Exited(_, code)) => Some(code),
        _ => None,
    }
}
