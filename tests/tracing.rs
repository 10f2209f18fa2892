//! What happens in a pool, and what is said in its workers, is heard through `tracing` in the parent.

use std::fmt::{self, Write as _};
use std::io::{IoSlice, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use epilogue::{Event, Pool, TaskError};
use nix::sys::socket::{MsgFlags, sendmsg};
use support::{Oracle, Watchdog, begin};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Metadata, Subscriber};

/// What was heard: an event or a span as `LEVEL target name=value ..`, and how many spans are open.
struct Heard {
    lines: Vec<String>,
    open_spans: i64,
}

static HEARD: Mutex<Heard> = Mutex::new(Heard { lines: Vec::new(), open_spans: 0 });
static SPANS: AtomicU64 = AtomicU64::new(1);

fn heard() -> MutexGuard<'static, Heard> {
    HEARD.lock().unwrap()
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

/// Hears all that is said up to `INFO`, and of the pool's spans all.
struct Ear;

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut line = Line(format!("span {}", attributes.metadata().name()));
        attributes.record(&mut line);
        let mut heard = heard();
        heard.lines.push(line.0);
        heard.open_spans += 1;
        Id::from_u64(SPANS.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut line = Line("record".to_owned());
        values.record(&mut line);
        heard().lines.push(line.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let metadata = event.metadata();
        let mut line = Line(format!("{} {}", metadata.level(), metadata.target()));
        event.record(&mut line);
        heard().lines.push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}

    fn clone_span(&self, id: &Id) -> Id {
        heard().open_spans += 1;
        id.clone()
    }

    fn try_close(&self, _: Id) -> bool {
        heard().open_spans -= 1;
        false
    }
}

/// How a test of this file begins: this process hears what is said from here on.
fn listen() -> (Oracle, Watchdog) {
    let guards = begin();
    let _ = tracing::subscriber::set_global_default(Ear);
    heard().lines.clear();
    guards
}

/// Closes the pool; the lines that were heard.
fn end(pool: Pool) -> Vec<String> {
    assert!(pool.close().is_ok());
    drop(pool);
    let mut heard = heard();
    assert_eq!(heard.open_spans, 0);
    std::mem::take(&mut heard.lines)
}

/// What was said in workers.
fn said(lines: &[String]) -> Vec<&String> {
    lines.iter().filter(|line| line.contains(" epilogue::worker ")).collect()
}

fn greet(n: u64) -> u64 {
    tracing::info!(n, who = "bob", "hello");
    tracing::debug!("not asked for");
    n
}

#[test]
fn what_a_task_says_is_heard_in_the_parent_with_its_worker_and_task() {
    let (oracle, _watchdog) = listen();
    let pool = Pool::builder().workers(1).name("said").tracing().start().unwrap();
    let task = pool.submit(7, greet).unwrap();
    let id = task.id();
    task.join().unwrap();
    let lines = end(pool);
    let said = said(&lines);
    assert_eq!(said.len(), 1, "{lines:#?}");
    for part in ["INFO", "message=hello", "worker=\"said-1\"", "n=7 who=\\\"bob\\\"", "tracing\""] {
        assert!(said[0].contains(part), "{part}: {}", said[0]);
    }
    assert!(said[0].contains(&format!("task=\"task {id}.0\"")), "{}", said[0]);
    oracle.nothing_left();
}

#[test]
fn each_task_is_a_span_that_ends_with_its_outcome_and_workers_are_events() {
    let (oracle, _watchdog) = listen();
    let pool = Pool::builder().workers(1).tracing().start().unwrap();
    pool.submit(1u64, |n| n).unwrap().join().unwrap();
    pool.submit(0u64, |n| 1 / n).unwrap().join().unwrap_err();
    pool.map(0..1000u64, |n| n).unwrap();
    let lines = end(pool);
    let has = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
    let (spans, outcomes) = (has("span task job="), has("record outcome="));
    assert!(spans >= 3 && outcomes >= spans, "{lines:#?}");
    assert_eq!((has("outcome=\"panicked\""), has(" is up"), has("has ended")), (1, 1, 1));
    oracle.nothing_left();
}

#[test]
fn a_task_that_says_too_much_is_not_held_up_and_what_is_left_out_is_counted() {
    let (oracle, _watchdog) = listen();
    let pool = Pool::builder().workers(1).tracing().start().unwrap();
    let most = pool.submit(100_000u64, |most| {
        for n in 0..most {
            tracing::info!(n, "flood");
        }
        most
    });
    assert_eq!(most.unwrap().join().unwrap(), 100_000);
    // Until there is room again, the last of what was left out is told with what comes next.
    let mut said_after = 0u64;
    while !heard().lines.iter().any(|line| line.contains("message=after")) {
        pool.submit((), |()| tracing::info!("after")).unwrap().join().unwrap();
        said_after += 1;
    }
    let lines = end(pool);
    let said = said(&lines);
    let left_out = |line: &&String| {
        let (_, count) = line.rsplit_once("left_out=").unwrap();
        count.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let (told, left) = (said.len() as u64, said.iter().map(left_out).sum::<u64>());
    assert!(left > 10_000, "{left}");
    // Those after the last that was heard are not accounted for.
    assert!((100_001..=100_000 + said_after).contains(&(told + left)), "{told}, {left}");
    oracle.nothing_left();
}

/// Writes what is said to a file.
struct Own(PathBuf);

impl Subscriber for Own {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        let mut file = std::fs::File::options().append(true).create(true).open(&self.0).unwrap();
        writeln!(file, "{}", line.0).unwrap();
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn a_subscriber_that_an_initializer_sets_is_left_alone() {
    let (oracle, _watchdog) = listen();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("said");
    let pool = Pool::builder().workers(1).tracing().env("SAID", &file).initializer(|| {
        let file = std::env::var_os("SAID").unwrap();
        tracing::subscriber::set_global_default(Own(file.into())).unwrap();
    });
    let pool = pool.start().unwrap();
    pool.submit(7, greet).unwrap().join().unwrap();
    let lines = end(pool);
    assert_eq!(said(&lines), Vec::<&String>::new());
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("message=hello") && text.contains("n=7"), "{text}");
    oracle.nothing_left();
}

/// Says something by hand, of that length, as no worker of ours would.
fn say_raw(length: usize) {
    let mut frame = vec![0x1E, 0xE9, 137, 0];
    frame.extend_from_slice(&[0; 12]);
    frame.extend_from_slice(&(length as u64).to_le_bytes());
    let text = b"INFO\x000\0a\0\x1b[2J\0";
    frame.extend(text.iter().copied().chain(std::iter::repeat(b'x')).take(length));
    // The wire is descriptor 3 in a child.
    sendmsg::<()>(3, &[IoSlice::new(&frame)], &[], MsgFlags::empty(), None).unwrap();
}

#[test]
fn a_worker_that_says_what_none_would_hurts_nobody_else() {
    let (oracle, _watchdog) = begin();
    let (told, notes) = std::sync::mpsc::channel();
    let pool = Pool::builder().workers(1).on_event(move |event| {
        if let Event::Noted { note, .. } = event {
            told.send(note.message.clone()).unwrap();
        }
    });
    let pool = pool.start().unwrap();
    pool.submit(200, say_raw).unwrap().join().unwrap();
    // No note at all, and then one that is too long.
    pool.submit(3, say_raw).unwrap().join().unwrap();
    let too_long = |length| {
        say_raw(length);
        support::park_for_ever()
    };
    let lost = pool.submit::<usize, ()>(17_000, too_long).unwrap().join().unwrap_err();
    assert!(matches!(&lost, TaskError::WorkerLost(lost) if lost.detail.is_some()), "{lost}");
    assert_eq!(pool.submit(1u64, |n| n).unwrap().join().unwrap(), 1);
    assert!(pool.close().is_ok());
    drop(pool);
    assert_eq!(notes.iter().collect::<Vec<_>>(), ["\\u{1b}[2J"]);
    oracle.nothing_left();
}
