//! Mapping and reducing: workers join what they map, and the parent joins what they have joined.
//!
//! Items travel in lists, each of which is one task: its worker maps them one after the other and
//! joins the values as they come. Lists are as long as takes a moment, by how long the last ones
//! took. Should one take longer, for its items are slower than those before, its worker gives back
//! those that it has not begun, and they go out again as shorter lists.
//!
//! # Invariants
//!
//! 1. Only neighbours are joined, the earlier one on the left: an associative function is enough.
//! 2. Whatever is joined here covers items that follow one another, and neighbours are joined as
//!    soon as both are there: there are never more values than lists on their way, and gaps.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZero;
use std::time::Duration;

use epilogue_process::entry::{Entry, Joined, Request};
use epilogue_process::{EncodeError, Portable, Side};

use crate::call::head;
use crate::collect::{comes_first, outcomes};
use crate::error::{Refusal, TaskError};
use crate::job::{Job, Reads};
use crate::mailbox::{Arrival, Index};
use crate::map::{Input, Maps};
use crate::pool::Pool;

impl Pool {
    /// Calls `map` with every item and joins the values with `reduce`, both in the workers; what
    /// those come to is joined here. `None` if there are no items.
    ///
    /// Values are joined in the order of the items: it is enough that `reduce` is associative, as
    /// the joining of texts is. Where the brackets are depends on how long the items take.
    ///
    /// Only what has been joined travels back, so a thousand items may answer with one number.
    ///
    /// # Errors
    ///
    /// As [`Pool::map`]; an item that is lost, or fails, takes the others with it that were joined
    /// in the same list.
    ///
    /// # Panics
    ///
    /// If `reduce` does so here. What was on its way is cancelled first.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::new(2)?;
    /// let sum = pool.map_reduce(1..=1000u64, |x| x * x, |a, b| a + b)?;
    /// assert_eq!(sum, Some(333_833_500));
    ///
    /// let text = pool.map_reduce('a'..='e', String::from, |a, b| a + &b)?;
    /// assert_eq!(text.as_deref(), Some("abcde"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_reduce<I, T, A>(
        &self,
        items: I,
        map: fn(T) -> A,
        reduce: fn(A, A) -> A,
    ) -> Result<Option<A>, TaskError>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
        A: Portable,
    {
        self.maps().map_reduce(items, map, reduce)
    }
}

impl Maps<'_> {
    /// As [`Pool::map_reduce`], and so are the errors. The chunk size is that of the lists.
    pub fn map_reduce<I, T, A>(
        self,
        items: I,
        map: fn(T) -> A,
        reduce: fn(A, A) -> A,
    ) -> Result<Option<A>, TaskError>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
        A: Portable,
    {
        let (entry, joiner) = Entry::joining(map, reduce).map_err(Refusal::from)?;
        let job = Job::new(self.pool, Some(1), Some(self.encode(&joiner)?), Reads::AllTheTime)?;
        let mut job = job.by(self.terms);
        job.progress = self.progress;
        // Where each item has a clock, each has a list of its own.
        let size = self.chunk_size.map(NonZero::get);
        let fixed = if self.terms.need_a_clock() { Some(1) } else { size };
        let lists = Lists {
            head: head(entry, job.state()),
            job,
            input: Input::new(items)?,
            again: VecDeque::new(),
            on_their_way: BTreeMap::new(),
            next_list: 0,
            size: Size { fixed, ..Size::default() },
            failed: None,
        };
        lists.run(self, reduce)
    }
}

/// Items that follow one another, and how many there are before the first.
struct List<T> {
    first: usize,
    items: Vec<T>,
}

/// The lists of one map.
struct Lists<'pool, I, T> {
    job: Job<'pool>,
    head: Vec<u8>,
    input: Input<I>,
    /// What workers gave back.
    again: VecDeque<List<T>>,
    /// By its number, where each begins and how long it is.
    on_their_way: BTreeMap<Index, (usize, usize)>,
    next_list: Index,
    size: Size,
    /// The error of the first item that had one.
    failed: Option<(usize, TaskError)>,
}

impl<I, T> Lists<'_, I, T>
where
    I: Iterator<Item = T>,
    T: Portable,
{
    fn run<A: Portable>(
        mut self,
        maps: Maps<'_>,
        reduce: fn(A, A) -> A,
    ) -> Result<Option<A>, TaskError> {
        let mut runs = Runs { reduce, runs: BTreeMap::new() };
        loop {
            let has_nothing = self.failed.is_some() || (self.input.ended && self.again.is_empty());
            let arrived = match has_nothing || !self.job.has_room() {
                true => self.job.next(),
                false => self.job.try_next(),
            };
            if let Some(arrival) = arrived {
                self.take(arrival, maps, &mut runs);
            } else if !has_nothing {
                self.send(maps)?;
            } else {
                // What reduces may have forked.
                maps.pool.require_owner()?;
                return match self.failed {
                    Some((_, error)) => Err(error),
                    None => Ok(runs.runs.into_values().next().map(|(_, value)| value)),
                };
            }
        }
    }

    fn take<A: Portable>(&mut self, arrival: Arrival, maps: Maps<'_>, runs: &mut Runs<A>) {
        let mut list = arrival.first;
        outcomes::<Joined<T, A>>(arrival.outcomes, &maps.pool.limits, |outcome| {
            let place = self.on_their_way.remove(&list);
            list += 1;
            let Some((first, count)) = place else { return };
            match outcome {
                // What a worker gives back is the end of what it was given, and not all of it.
                Ok(Joined { joined, rest, nanos }) if rest.len() < count => {
                    let done = count - rest.len();
                    self.size.note(done, nanos);
                    runs.insert(first, first + done, joined);
                    if !rest.is_empty() {
                        self.again.push_back(List { first: first + done, items: rest });
                    }
                }
                Ok(_) => self.fail(first, Refusal::Closed.into()),
                Err(error) => self.fail(first, error),
            }
        });
    }

    fn fail(&mut self, first: usize, error: TaskError) {
        if comes_first(first, &error, self.failed.as_ref()) {
            self.failed = Some((first, error));
        }
        self.input.end_early(&self.job);
    }

    /// Puts a list on its way.
    fn send(&mut self, maps: Maps<'_>) -> Result<(), TaskError> {
        let count = self.size.next();
        let list = match self.again.pop_front() {
            Some(mut list) => {
                if list.items.len() > count {
                    let items = list.items.split_off(count);
                    self.again.push_front(List { first: list.first + count, items });
                }
                list
            }
            None => {
                let first = self.input.given;
                let mut items = Vec::new();
                while items.len() < count
                    && let Some(item) = self.input.next()?
                {
                    items.push(item);
                }
                // The iterator may have forked, and goes on in the copy as well.
                maps.pool.require_owner()?;
                List { first, items }
            }
        };
        if list.items.is_empty() {
            return Ok(());
        }
        match self.put(&list, maps) {
            Ok(bytes) => self.size.weigh(list.items.len(), bytes),
            Err(NotPut::TooMuch(_)) if list.items.len() > 1 => {
                // Together they are over a limit that each may be within.
                let List { first, mut items } = list;
                let half = items.len() / 2;
                let later = List { first: first + half, items: items.split_off(half) };
                self.again.push_front(later);
                self.again.push_front(List { first, items });
                self.size.most = half;
            }
            Err(NotPut::TooMuch(error)) => {
                self.fail(list.first, TaskError::Encode { side: Side::Argument, error });
            }
            Err(NotPut::Refused(refusal)) => self.fail(list.first, refusal.into()),
        }
        Ok(())
    }

    fn put(&mut self, list: &List<T>, maps: Maps<'_>) -> Result<usize, NotPut> {
        let mut request = Request::new(self.head.clone());
        request.push(&list.items, &maps.pool.limits, &maps.pool.stock).map_err(NotPut::TooMuch)?;
        let (bytes, number) = (request.bytes(), self.next_list);
        self.job.submit(number, request).map_err(NotPut::Refused)?;
        self.on_their_way.insert(number, (list.first, list.items.len()));
        self.next_list += 1;
        Ok(bytes)
    }
}

/// Why a list was not put on its way.
enum NotPut {
    TooMuch(EncodeError),
    Refused(Refusal),
}

/// How many items go into a list.
#[derive(Debug)]
struct Size {
    fixed: Option<usize>,
    /// As many as went into the last list.
    last: usize,
    /// No more than this, by how many bytes they have.
    most: usize,
    /// How long an item takes: a moving average, in nanoseconds. None as long as nothing is known.
    each: Option<u64>,
}

impl Default for Size {
    fn default() -> Self {
        Self { fixed: None, last: 1, most: usize::MAX, each: None }
    }
}

impl Size {
    /// A list shall take about so long: much longer than to send it, and not so long that the
    /// others wait for the last.
    const TIME: Duration = Duration::from_micros(200);
    /// How many bytes a list has, about, if it has more than one item.
    const BYTES: usize = 48 << 10;

    fn next(&mut self) -> usize {
        self.last = match (self.fixed, self.each) {
            (Some(fixed), _) => fixed.min(self.most),
            // By the first ones it is seen how long they take.
            (None, None) => 1,
            (None, Some(each)) => {
                let count = Self::TIME.as_nanos() as u64 / each.max(1);
                (count as usize).clamp(1, self.last.saturating_mul(4)).min(self.most)
            }
        };
        self.last.max(1)
    }

    fn note(&mut self, count: usize, nanos: u64) {
        let each = nanos / count.max(1) as u64;
        self.each = Some(self.each.map_or(each, |before| before - before / 4 + each / 4));
    }

    fn weigh(&mut self, count: usize, bytes: usize) {
        self.most = (Self::BYTES / (bytes / count.max(1)).max(1)).max(1);
    }
}

/// Values of items that follow one another, by the first of these, with where they end. No two of
/// them are neighbours.
struct Runs<A> {
    reduce: fn(A, A) -> A,
    runs: BTreeMap<usize, (usize, A)>,
}

impl<A> Runs<A> {
    fn insert(&mut self, mut first: usize, mut end: usize, mut value: A) {
        if let Some((&before, &(its_end, _))) = self.runs.range(..first).next_back()
            && its_end == first
            && let Some((_, earlier)) = self.runs.remove(&before)
        {
            value = (self.reduce)(earlier, value);
            first = before;
        }
        if let Some((its_end, later)) = self.runs.remove(&end) {
            value = (self.reduce)(value, later);
            end = its_end;
        }
        self.runs.insert(first, (end, value));
    }
}

#[cfg(test)]
mod tests {
    use super::Runs;
    use std::collections::BTreeMap;

    #[test]
    fn neighbours_are_joined_in_order_whichever_comes_first() {
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
            let mut runs = Runs { reduce: |a: String, b: String| a + &b, runs: BTreeMap::new() };
            for piece in order {
                runs.insert(piece * 2, piece * 2 + 2, ["ab", "cd", "ef", "gh"][piece].to_owned());
            }
            assert_eq!(runs.runs, BTreeMap::from([(0, (8, "abcdefgh".to_owned()))]));
        }
    }
}
