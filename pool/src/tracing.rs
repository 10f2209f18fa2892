//! What a pool tells, through `tracing`: in the parent, spans of tasks and events of workers; and the
//! events of the user's code in workers, which travel to the parent.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ::tracing::field::{Empty, Field, Visit};
use ::tracing::level_filters::LevelFilter;
use ::tracing::span::{Attributes, Id, Record};
use ::tracing::{Metadata, Span, Subscriber, debug, error, event, info, info_span, warn};
use epilogue_process::link::Link;
use epilogue_process::note::Notes;

use crate::builder::Builder;
use crate::event::{Event, Tasks};
use crate::note::Note;
use crate::worker::serve;

impl Builder {
    /// Has the pool tell what happens through `tracing`, to the subscriber that there is when it
    /// happens; as [`Builder::on_event`] has a listener told, and on the same thread.
    ///
    /// Tasks that go together are a span `task` from when they are queued until they have their
    /// outcomes, with their job, their positions and their worker. What happens to them, and to workers,
    /// are events: warnings, if something died.
    ///
    /// What the user's code says in a worker through `tracing` is said again in the parent, with the
    /// target `epilogue::worker`, the worker, the task, and its own target as `origin`: what the
    /// subscriber of this process wants to hear as this is called, by its most verbose level; so set
    /// that before. It may come after the end of its task, whose span is over then. A worker says
    /// a thousand such things a second, after a first thousand; what it leaves out on top of that is
    /// told as `left_out`. It never waits for the parent. Spans stay in the worker. A subscriber
    /// that an initializer sets in the worker is left alone, and nothing of it travels.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::builder().workers(1).tracing().start()?;
    /// pool.map(0..3u64, |n| tracing::info!(n, "said in a worker, and heard in its parent"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn tracing(self) -> Self {
        let main = match LevelFilter::current().into_level() {
            None => serve,
            Some(::tracing::Level::ERROR) => serve_traced::<1>,
            Some(::tracing::Level::WARN) => serve_traced::<2>,
            Some(::tracing::Level::INFO) => serve_traced::<3>,
            Some(::tracing::Level::DEBUG) => serve_traced::<4>,
            Some(_) => serve_traced::<5>,
        };
        let spans = Spans::default();
        let mut builder = self.on_event(move |event| spans.tell(event));
        builder.main = main;
        builder
    }
}

// In the parent.

/// The spans of tasks without an outcome, by the first of them: how many are left, too.
#[derive(Default)]
struct Spans(Mutex<BTreeMap<(u64, usize), (usize, Span)>>);

impl Spans {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(u64, usize), (usize, Span)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, tasks: &Tasks) -> Option<Span> {
        let spans = self.lock();
        let (_, (_, span)) = spans.range((tasks.job, 0)..=(tasks.job, tasks.first)).next_back()?;
        Some(span.clone())
    }

    /// The span of these, which have their outcomes. It ends with the last of them.
    fn take(&self, tasks: &Tasks) -> Option<Span> {
        let mut spans = self.lock();
        let those = (tasks.job, 0)..=(tasks.job, tasks.first);
        let (&key, (left, span)) = spans.range_mut(those).next_back()?;
        let span = span.clone();
        *left = left.saturating_sub(tasks.count);
        if *left == 0 {
            spans.remove(&key);
        }
        Some(span)
    }

    fn tell(&self, event: &Event) {
        match event {
            Event::Queued { tasks: Tasks { job, first, count }, .. } => {
                let span = info_span!("task", job, first, count, worker = Empty, outcome = Empty);
                self.lock().insert((*job, *first), (*count, span));
            }
            Event::Started { tasks, worker, .. } => {
                let span = self.of(tasks).unwrap_or_else(Span::none);
                span.record("worker", &*worker.name);
                span.in_scope(|| debug!(parent: &span, "{event}"));
            }
            Event::Moved { tasks, .. } | Event::AskedToStop { tasks, .. } => {
                let span = self.of(tasks).unwrap_or_else(Span::none);
                debug!(parent: &span, "{event}");
            }
            Event::Retried { tasks, .. } => {
                let span = self.of(tasks).unwrap_or_else(Span::none);
                warn!(parent: &span, "{event}");
            }
            Event::Ended { tasks, outcome, .. } => {
                let span = self.take(tasks).unwrap_or_else(Span::none);
                span.record("outcome", outcome.to_string());
                debug!(parent: &span, "{event}");
            }
            Event::Noted { tasks, worker, note } => {
                let span = tasks.as_ref().and_then(|tasks| self.of(tasks));
                say_again(&span.unwrap_or_else(Span::none), &worker.name, tasks.as_ref(), note);
            }
            Event::WorkerUp { .. } | Event::Closed => info!("{event}"),
            Event::WorkerDown { report } if report.end.success() => info!("{event}"),
            Event::WorkerDown { .. } | Event::Stalled { .. } | Event::StartFailed { .. } => {
                warn!("{event}");
            }
            Event::Missed { .. } => {
                // The end of any may be among those.
                self.lock().clear();
                warn!("{event}");
            }
            Event::Broken { .. } => error!("{event}"),
        }
    }
}

fn say_again(span: &Span, worker: &str, tasks: Option<&Tasks>, note: &Note) {
    let (task, Note { target: origin, message, fields, left_out, .. }) =
        (tasks.map(ToString::to_string), note);
    let task = task.as_deref().unwrap_or("none");
    // The level is a part of what is known before the program runs.
    macro_rules! say {
        ($level:ident) => {
            event!(
                target: "epilogue::worker", parent: span, ::tracing::Level::$level, worker, task,
                origin, fields, left_out, "{message}"
            )
        };
    }
    match note.level {
        "ERROR" => say!(ERROR),
        "WARN" => say!(WARN),
        "INFO" => say!(INFO),
        "DEBUG" => say!(DEBUG),
        _ => say!(TRACE),
    }
}

// In a worker.

/// The main function of a worker that tells what its tasks say up to this level, from 1 for errors.
fn serve_traced<const LEVEL: u8>(link: Link) {
    let most = match LEVEL {
        1 => LevelFilter::ERROR,
        2 => LevelFilter::WARN,
        3 => LevelFilter::INFO,
        4 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let rate = Mutex::new(Rate::new(Instant::now()));
    let forwarder = Forwarder { notes: link.notes(), most, rate };
    // The initializer may have set another one, which stays.
    let _ = ::tracing::subscriber::set_global_default(forwarder);
    serve(link);
}

/// Tells the parent what is said here.
struct Forwarder {
    notes: Notes,
    most: LevelFilter,
    rate: Mutex<Rate>,
}

/// How many notes may go: a bucket of tokens.
#[derive(Debug)]
struct Rate {
    tokens: f64,
    at: Instant,
    left_out: u64,
}

impl Rate {
    const BURST: f64 = 1000.0;
    const PER_SECOND: f64 = 1000.0;

    fn new(now: Instant) -> Self {
        Self { tokens: Self::BURST, at: now, left_out: 0 }
    }

    /// Whether one more may go.
    fn admits(&mut self, now: Instant) -> bool {
        let more = now.duration_since(self.at).as_secs_f64() * Self::PER_SECOND;
        (self.tokens, self.at) = ((self.tokens + more).min(Self::BURST), now);
        let admits = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(admits));
        admits
    }
}

impl Subscriber for Forwarder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.most)
    }

    // Spans stay here.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &::tracing::Event<'_>) {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        if !rate.admits(Instant::now()) {
            rate.left_out += 1;
            return;
        }
        let left_out = rate.left_out;
        // Whoever formats a field may say something itself.
        drop(rate);
        let (mut text, metadata) = (Text::default(), event.metadata());
        event.record(&mut text);
        let Text { message, fields } = text;
        let (level, target) = (metadata.level().as_str(), metadata.target().to_owned());
        let is_sent = self.notes.send(Note { level, target, message, fields, left_out }.encode());
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        match is_sent {
            true => rate.left_out = rate.left_out.saturating_sub(left_out),
            false => rate.left_out += 1,
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The message and the other fields of an event.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => {
                let space = if self.fields.is_empty() { "" } else { " " };
                write!(self.fields, "{space}{name}={value:?}")
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::Rate;
    use std::time::{Duration, Instant};

    #[test]
    fn a_thousand_notes_go_at_once_and_then_a_thousand_a_second() {
        let begin = Instant::now();
        let mut rate = Rate::new(begin);
        let admitted = |rate: &mut Rate, now| (0..5000).filter(|_| rate.admits(now)).count();
        assert_eq!(admitted(&mut rate, begin), 1000);
        assert_eq!(admitted(&mut rate, begin + Duration::from_millis(100)), 100);
        assert_eq!(admitted(&mut rate, begin + Duration::from_secs(60)), 1000);
    }
}
