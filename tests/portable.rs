//! What cannot travel to another process and back is an error that names the type and the cure:
//! never another value, never a hang, and never the end of the process that waits.

use std::time::Duration;

use epilogue::process::Side;
use epilogue::process::codec::Problem;
use epilogue::{JoinError, Portable, Process, StartError};
use serde::{Deserialize, Serialize};
use support::Watchdog;

const PATIENCE: Duration = Duration::from_secs(180);

/// Sends a value to a process, whichever of the two notices what is wrong with it.
fn refused<T: Portable, R: Portable>(argument: T, f: fn(T) -> R) -> Problem {
    let outcome = match Process::start(argument, f) {
        Ok(process) => process.join().map(drop),
        Err(error) => Err(error.into()),
    };
    let error = outcome.unwrap_err();
    let text = error.to_string();
    let problem = match error {
        JoinError::Start(StartError::Encode(error)) | JoinError::Encode(error) => error.problem,
        JoinError::Decode { error, .. } => error.problem,
        other => panic!("{other:?}"),
    };
    assert!(text.contains(problem.hint()), "{text}");
    problem
}

#[derive(Serialize, Deserialize)]
struct Config {
    port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
}

#[test]
fn a_field_that_is_skipped_is_named_before_anything_is_started() {
    let _watchdog = Watchdog::start(PATIENCE);
    let config = Config { port: 80, user: None };
    let error = Process::start(config, |config| config.port).unwrap_err();
    let StartError::Encode(error) = error else { panic!("{error:?}") };
    assert!(error.type_name.ends_with("Config"));
    let Problem::Lossy { container, fields, .. } = error.problem else { panic!("{error:?}") };
    assert_eq!((container.as_str(), fields), ("Config", vec![String::from("user")]));
}

#[test]
fn a_result_that_loses_a_field_is_an_error_that_names_it() {
    let _watchdog = Watchdog::start(PATIENCE);
    let problem = refused(80, |port| Config { port, user: None });
    assert!(problem.to_string().contains("`user`"), "{problem}");
    let whole = Process::start(80, |port| Config { port, user: Some("bob".into()) }).unwrap();
    assert_eq!(whole.join().unwrap().user.as_deref(), Some("bob"));
}

/// One byte is written for it, and two would be read, both of which mean `true`.
#[derive(Serialize, Deserialize)]
struct Cached {
    kept: bool,
    #[serde(default, skip_serializing)]
    cache: bool,
}

#[test]
fn a_field_that_only_one_side_knows_is_an_error_and_not_another_value() {
    let _watchdog = Watchdog::start(PATIENCE);
    let cached = || Cached { kept: true, cache: true };
    let argument = refused((cached(), vec![0u8]), |(cached, _)| cached.kept && cached.cache);
    let result = refused((), |()| (Cached { kept: true, cache: true }, vec![0u8]));
    for problem in [argument, result] {
        assert!(problem.to_string().contains("`Cached` loses"), "{problem}");
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Id {
    Number(u64),
    Name(String),
}

#[test]
fn a_type_that_asks_the_bytes_what_they_hold_is_unsupported_both_ways() {
    let _watchdog = Watchdog::start(PATIENCE);
    let argument = refused(Id::Name("bob".into()), |id| matches!(id, Id::Name(_)));
    let result = refused(7, Id::Number);
    for problem in [argument, result] {
        assert!(matches!(problem, Problem::Unsupported { .. }), "{problem}");
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Node {
    next: Option<Box<Node>>,
}

fn list(nodes: u32) -> Node {
    (1..nodes).fold(Node::default(), |node, _| Node { next: Some(Box::new(node)) })
}

#[test]
fn a_value_that_is_nested_too_deep_ends_no_process() {
    let _watchdog = Watchdog::start(PATIENCE);
    for problem in [refused(list(1000), |_| ()), refused(1000, list)] {
        assert!(matches!(problem, Problem::TooDeep { .. }), "{problem}");
    }
    let process = Process::start(list(50), |node| node).unwrap();
    assert!(process.join().unwrap().next.is_some());
}

/// Written as a long sequence of nothing, which no process should count to the end.
#[derive(Deserialize)]
struct Countless(Vec<()>);

impl Serialize for Countless {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeSeq;
        serializer.serialize_seq(Some(usize::MAX))?.end()
    }
}

#[test]
fn a_result_that_claims_more_than_it_holds_is_an_error_in_the_parent() {
    let _watchdog = Watchdog::start(PATIENCE);
    let process = Process::start((), |()| Countless(Vec::new())).unwrap();
    match process.join().map(|countless| countless.0.len()) {
        Err(JoinError::Decode { side: Side::Result, error }) => {
            assert!(matches!(error.problem, Problem::Amplified { .. }), "{error}");
        }
        other => panic!("{other:?}"),
    }
}
