//! Faults at every step of a life, seeded and replayable: `chaos SCENARIO [options]`.
//!
//! A scenario has cases. Each is a program of its own, this one again, in a session and a cgroup of
//! its own, with this process as the subreaper that sees what it leaves behind. The seed and the
//! number of a case say all that happens in it, but for the scheduler's part.

mod answers;
mod case;
mod cli;
mod figures;
mod group;
mod oracle;
mod scenarios;
mod seed;
mod sys;
mod tally;
mod watchdog;

use std::process::ExitCode;

use cli::Command;

fn main() -> ExitCode {
    match cli::parse(std::env::args().skip(1)) {
        Ok(Command::Subject { scenario, case, arguments }) => {
            (scenario.subject)(case, &arguments);
            ExitCode::SUCCESS
        }
        Ok(Command::Run(plans)) => {
            // Each of them, also after one that failed.
            let failed = plans.iter().filter(|plan| !plan.run()).count();
            ExitCode::from(u8::from(failed > 0))
        }
        Err(problem) => {
            eprintln!("{problem}\n\n{}", cli::usage());
            ExitCode::from(2)
        }
    }
}
