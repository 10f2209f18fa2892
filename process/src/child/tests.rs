//! What a child says, and when, against what its parent makes of it.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Child, Event, Spec};
use crate::codec::{Limits, encode};
use crate::error::StartError;
use crate::local::LocalWire;
use crate::ring::Near;
use crate::sandbox::SandboxLevel;
use crate::sys::copy;
use crate::sys::memory::SharedWords;
use crate::wire::{HEADER, Kind, Wire, seal};

/// A process that does nothing, as a child that is not up, and its end of the wire.
fn child(spec: &Spec) -> (Child, UnixStream) {
    let (near, _) = SharedWords::create(spec.ring.words()).unwrap();
    let (stream, far) = UnixStream::pair().unwrap();
    let second = stream.try_clone().unwrap();
    let wire = LocalWire::new(stream, Near::new(near, spec.ring), spec.frame_limit());
    (Child::new(spec, copy::idle(false).unwrap(), wire, second), far)
}

fn say_hello(far: &mut UnixStream) {
    let mut frame = vec![0; HEADER];
    encode(&None::<SandboxLevel>, &mut frame, &Limits::default()).unwrap();
    seal(Kind::Hello, 0, 0, 0, &mut frame);
    far.write_all(&frame).unwrap();
}

#[test]
fn a_hello_after_the_deadline_makes_nobody_up_and_one_before_it_is_heard() {
    let spec = Spec::default();
    let (mut late, mut far) = child(&spec);
    late.tick(Instant::now() + spec.start_deadline);
    say_hello(&mut far);
    let Some(Event::Ended(status)) = late.wait_event(None) else { panic!("it was told to be up") };
    assert!(matches!(late.start_error(None, status), StartError::NoHello { .. }));

    let (mut prompt, mut far) = child(&spec);
    say_hello(&mut far);
    assert!(matches!(prompt.event(), Some(Event::Hello)));
    prompt.tick(Instant::now() + spec.start_deadline);
    assert!(prompt.event().is_none() && prompt.due().is_none());
}

#[test]
fn a_child_that_writes_as_fast_as_it_is_read_has_more_to_say() {
    let (mut child, mut far) = child(&Spec::default());
    let mut begun = [0; HEADER];
    seal(Kind::Begun, 0, 0, 0, &mut begun);
    far.write_all(&begun).unwrap();
    let mut read = 0;
    while let Some(Event::Begun { .. }) = child.event() {
        read += 1;
        assert!(read < 100_000, "nobody else would ever have their turn");
        far.write_all(&begun).unwrap();
    }
    assert!(child.has_more() && child.watch().without_wire().wire().is_none());
    assert!(matches!(child.event(), Some(Event::Begun { .. })));
    assert!(child.event().is_none() && !child.has_more());
}

#[test]
fn a_child_that_is_up_and_takes_nothing_of_its_argument_ends_with_the_start_deadline() {
    let deadline = Duration::from_millis(300);
    let spec = Spec { start_deadline: deadline, ..Spec::default() };
    let (mut stopped, mut far) = child(&spec);
    say_hello(&mut far);
    // More than a socket holds.
    stopped.wire().call(0, 1, &vec![7; 4 << 20].into()).unwrap();
    let (told, error) = mpsc::channel();
    thread::spawn(move || told.send(stopped.wait_until_up()));
    let error = error.recv_timeout(Duration::from_secs(60)).expect("it waits for ever");
    let error = error.unwrap_err();
    assert!(
        matches!(error, StartError::ArgumentNotRead { deadline: told } if told == deadline),
        "{error:?}"
    );
    drop(far);
}
