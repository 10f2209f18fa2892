//! The child's end of its wire: what its main function serves from.
//!
//! Calls are found in the ring, in the order in which the parent made them. What is too long for
//! it, and what comes with descriptors, comes over the socket: then the ring says so at its place
//! in that order. A thread of the child, the watcher, reads the socket and watches the parent, so
//! that a request to stop and the parent's death are seen in the middle of a call.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use crate::answering::Answering;
use crate::codec::Limits;
use crate::growth::Growth;
use crate::local::LocalWire;
use crate::note::Notes;
use crate::parcel::Parcel;
use crate::port::{Going, Port};
use crate::ring::{Far, Near, Place, Size};
use crate::segment::{Bulk, Extent, Lender, Made, Shelf, Stock, Unusable, View};
use crate::sys::memory::SharedWords;
use crate::sys::pid::Original;
use crate::sys::segment::Window;
use crate::wire::{Frame, Kind};

/// What a child's main function is asked to do next.
#[derive(Debug)]
#[non_exhaustive]
pub enum Order {
    /// Answer the items of this call, as far as [`Link::answer`] lets them begin.
    Call(Call),
    /// Keep this data for calls that name it.
    Share(u64, Parcel),
    /// Drop the data of this number.
    Forget(u64),
}

/// One call, as the child received it.
#[derive(Debug, Default)]
pub struct Call {
    pub(crate) id: u64,
    pub(crate) at: u64,
    pub(crate) count: u32,
    /// What the parent sent along.
    pub payload: Parcel,
}

/// The child's end of its wire.
#[derive(Debug)]
pub struct Link {
    pub(crate) far: Far,
    /// What came over the socket.
    orders: Receiver<Order>,
    pub(crate) port: Arc<Port>,
    /// The parent's segments.
    shelf: Shelf,
    /// Our own.
    pub(crate) lender: Lender,
    limits: Limits,
    original: Original,
    /// How many calls were begun: not each is timed.
    calls: u32,
    growth: Growth,
    pub(crate) pace: Pace,
}

/// How long the calls take, by the last one that was timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    Fast,
    Slow,
}

impl Link {
    pub(crate) fn new(far: Far, orders: Receiver<Order>, port: Arc<Port>, limits: Limits) -> Self {
        let stock = match far.size() {
            // A segment that is used once costs more than it saves, and a descriptor.
            Size::Once => Stock::none(),
            Size::Many => Stock::new(Stock::WORKER),
        };
        let growth = Growth::new(None);
        let (shelf, lender, original) = (Shelf::new(), Lender::new(stock), Original::this());
        Self {
            far,
            orders,
            port,
            shelf,
            lender,
            limits,
            original,
            calls: 0,
            growth,
            pace: Pace::Fast,
        }
    }

    /// Has it tell the parent of growth.
    pub(crate) fn watch_growth(&mut self, most: Option<u64>) {
        self.growth = Growth::new(most);
    }

    /// A call has been answered.
    #[inline]
    pub(crate) fn look_at_growth(&mut self) {
        if self.growth.is_beyond() {
            // Should the parent be gone, the next answer will find that out.
            let _ = self.port.send(&Frame::control(Kind::Grown, Vec::new()));
        }
    }

    /// What to do next. None when the child shall leave: no more will come, or it has to stop.
    pub fn next_order(&mut self) -> Option<Order> {
        self.growth.begin();
        loop {
            // Before the last look at the ring: what was sent before this was said is there.
            let is_over = self.port.has_come_to(Going::Finishing);
            if self.port.has_come_to(Going::Stopping) {
                return None;
            }
            if let Some(incoming) = self.far.next() {
                let (id, at, count) = (incoming.id, incoming.at, incoming.count);
                let payload = match incoming.place {
                    Place::Here => Parcel::from(incoming.bytes),
                    Place::Segment => self.find(&incoming.bytes),
                    Place::Socket => match self.orders.recv().ok()? {
                        Order::Call(Call { payload, .. }) => self.admit(payload),
                        Order::Share(id, payload) => {
                            return Some(Order::Share(id, self.admit(payload)));
                        }
                        order => return Some(order),
                    },
                };
                return Some(Order::Call(Call { id, at, count, payload }));
            }
            if is_over {
                return None;
            }
            let idle = self.far.idle();
            self.port.tell(idle);
            let port = &self.port;
            self.far.wait(|| port.has_come_to(Going::Finishing));
        }
    }

    /// A call whose argument lies in a segment that came before.
    fn find(&mut self, bytes: &[u8]) -> Parcel {
        match Extent::split(bytes) {
            Some((extent, head)) => self.receive(head.to_vec(), extent, self.shelf.find(extent)),
            None => Parcel::default(),
        }
    }

    /// What may have come with a segment.
    fn admit(&mut self, mut payload: Parcel) -> Parcel {
        let Some(Bulk::Arrived(extent, file)) = payload.bulk() else { return payload };
        let (extent, window) = (*extent, self.shelf.admit(*extent, file.as_deref()));
        self.receive(std::mem::take(&mut payload.bytes), extent, window)
    }

    fn receive(
        &self,
        bytes: Vec<u8>,
        extent: Extent,
        window: Result<Arc<Window>, Unusable>,
    ) -> Parcel {
        let bulk = match window {
            Ok(window) => Bulk::Received(Arc::new(View::new(window, extent, None))),
            Err(why) => {
                // The parent is to send it again.
                let slot = u64::from(extent.slot);
                let missed = Frame { id: slot, ..Frame::control(Kind::Missed, Vec::new()) };
                // Should the parent be gone, the answer will find that out.
                let _ = self.port.send(&missed);
                Bulk::Missing(why.to_string().into())
            }
        };
        Parcel::with_bulk(bytes, bulk)
    }

    /// Puts a value into a segment of our own; none if it travels some other way.
    pub(crate) fn fill(&mut self, value: &[u8]) -> Option<Made> {
        let returned = self.far.returned();
        self.lender.fill(value, returned)
    }

    /// Begins to answer a call.
    pub fn answer(&mut self, call: &Call) -> Answering<'_> {
        self.calls = self.calls.wrapping_add(1);
        let calls = self.calls;
        Answering::new(self, call, calls)
    }

    /// Where its code's notes go.
    pub fn notes(&self) -> Notes {
        Notes::new(Arc::clone(&self.port))
    }

    /// The limits that the parent set for what is sent.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The process that was started, and not a copy that a call made of it.
    pub(crate) fn original(&self) -> Original {
        self.original
    }
}

/// Both ends of a wire in one process, with no child: to count what a call passes through, and to
/// see what either end makes of what the other one writes.
///
/// # Errors
///
/// What the operating system said to a socket pair, or to shared memory.
pub fn both_ends(limits: &Limits) -> io::Result<(LocalWire, Link)> {
    let (size, (near, far)) = (Size::Many, UnixStream::pair()?);
    let (words, fd) = SharedWords::create(size.words())?;
    let port = Arc::new(Port::new(far, SharedWords::map(&fd)?, None));
    let (_, orders) = crossbeam_channel::unbounded();
    let far = Far::new(Arc::clone(port.ring()))?;
    let wire = LocalWire::new(near, Near::new(words, size), limits.max_bytes);
    Ok((wire, Link::new(far, orders, port, limits.clone())))
}

/// Turns a frame from the parent into an order, if it is one.
pub(crate) fn order(frame: Frame) -> Option<Order> {
    let Frame { kind, id, payload, descriptors, .. } = frame;
    if let Kind::BulkCall | Kind::BulkShare = kind {
        let (extent, bytes) = Extent::split(&payload)?;
        let bulk = Bulk::Arrived(extent, descriptors.into_iter().next());
        let payload = Parcel::with_bulk(bytes.to_vec(), bulk);
        return Some(match kind {
            Kind::BulkShare => Order::Share(id, payload),
            _ => Order::Call(Call { payload, ..Call::default() }),
        });
    }
    let payload = Parcel::with_descriptors(payload, descriptors);
    match kind {
        Kind::Call => Some(Order::Call(Call { payload, ..Call::default() })),
        Kind::Share => Some(Order::Share(id, payload)),
        Kind::Forget => Some(Order::Forget(id)),
        Kind::Start | Kind::Finish | Kind::Stop => None,
        Kind::BulkCall | Kind::BulkShare | Kind::Hello | Kind::Refusal | Kind::Reply => None,
        Kind::Goodbye
        | Kind::Begun
        | Kind::Ready
        | Kind::BulkReply
        | Kind::Missed
        | Kind::Grown
        | Kind::Note => None,
    }
}
