//! Descriptors as part of a value: numbered, refused elsewhere, and closed when nobody took them.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use super::{AttachError, MAX_DESCRIPTORS, attach, attached, pack, unpack};
use crate::codec::{Limits, decode, encode};

#[derive(Debug, Clone)]
struct Handle(Arc<OwnedFd>);

impl Handle {
    fn new() -> Self {
        Self(Arc::new(File::open("/dev/null").unwrap().into()))
    }
}

impl Serialize for Handle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        attach(&self.0).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Handle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        attached(u32::deserialize(deserializer)?).map(Self).map_err(de::Error::custom)
    }
}

#[test]
fn descriptors_are_numbered_in_order_and_each_travels_once() {
    let (a, b) = (Handle::new(), Handle::new());
    let value = vec![a.clone(), b.clone(), a.clone()];
    let mut parcel = pack(Vec::new(), &value, &Limits::default()).unwrap();
    let fds: Vec<_> = parcel.descriptors().iter().map(|fd| fd.as_raw_fd()).collect();
    assert_eq!(fds, [a.0.as_raw_fd(), b.0.as_raw_fd()]);
    let descriptors = parcel.take_descriptors();
    let back: Vec<Handle> = unpack(&parcel.bytes, descriptors, &Limits::default()).unwrap();
    assert!(Arc::ptr_eq(&back[2].0, &a.0) && Arc::ptr_eq(&back[1].0, &b.0));
}

#[test]
fn outside_of_a_parcel_a_descriptor_is_refused() {
    let error = encode(&Handle::new(), &mut Vec::new(), &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    let error = decode::<Handle>(&[0], &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    assert_eq!(attached(0).unwrap_err(), AttachError::Nowhere);
}

#[test]
fn a_number_that_did_not_come_along_is_refused() {
    let error = unpack::<Handle>(&[3], Vec::new(), &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("number 3"), "{error}");
}

#[test]
fn more_than_the_kernel_takes_are_refused() {
    let value: Vec<_> = (0..=MAX_DESCRIPTORS).map(|_| Handle::new()).collect();
    assert!(pack(Vec::new(), &value[1..].to_vec(), &Limits::default()).is_ok());
    let error = pack(Vec::new(), &value, &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("253"), "{error}");
}

#[test]
fn packing_within_packing_keeps_the_two_apart() {
    struct Outer(Handle, Handle);
    impl Serialize for Outer {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let first = attach(&self.0.0).map_err(ser::Error::custom)?;
            let inner = pack(Vec::new(), &self.1, &Limits::default()).unwrap();
            assert!(Arc::ptr_eq(&inner.descriptors()[0], &self.1.0));
            let back: Handle =
                unpack(&inner.bytes, inner.descriptors().to_vec(), &Limits::default()).unwrap();
            assert!(Arc::ptr_eq(&back.0, &self.1.0));
            let second = attach(&self.1.0).map_err(ser::Error::custom)?;
            (first, second).serialize(serializer)
        }
    }
    impl<'de> Deserialize<'de> for Outer {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            <(Handle, Handle)>::deserialize(deserializer).map(|(a, b)| Self(a, b))
        }
    }
    let outer = Outer(Handle::new(), Handle::new());
    let parcel = pack(Vec::new(), &outer, &Limits::default()).unwrap();
    assert_eq!(parcel.descriptors().len(), 2);
    assert!(Arc::ptr_eq(&parcel.descriptors()[1], &outer.1.0));
    assert_eq!(attached(0).unwrap_err(), AttachError::Nowhere);
}

#[test]
fn a_panic_closes_the_context() {
    struct Bomb;
    impl Serialize for Bomb {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("while packing");
        }
    }
    impl<'de> Deserialize<'de> for Bomb {
        fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Ok(Self)
        }
    }
    let packing = || pack(Vec::new(), &Bomb, &Limits::default()).is_ok();
    assert!(catch_unwind(AssertUnwindSafe(packing)).is_err());
    assert_eq!(attach(&Handle::new().0).unwrap_err(), AttachError::Nowhere);
}
